/* fuzz_calls.c: any bytes as a desc and a sequence of calls, right ones and wrong ones.

   A model of the contract (ORDER OF CALLS in longctx.h) knows which codes each call may give. A
   refused call leaves every byte of the block as it was. A second context gets the committed tokens
   one at a time, on an instruction set of its own: outputs and states must be the same bytes, and
   now and then a row is compared with the oracle.

   make test  programs drawn from a fixed seed (fuzz_calls N SEED: N others)
   libFuzzer  clang -g -O1 -std=c99 -DFUZZER -fsanitize=fuzzer,address,undefined \
                tests/fuzz_calls.c -o fuzz_calls -lm */
#include "oracle.h"

enum { LAYERS = 3, HEADS = 8, LONGEST = 400, BATCH = 20, WIDEST = 40 };
enum { Q, K, V, OUT };

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size);

/* ---- the program ----------------------------------------------------------------------------- */

typedef struct program { const unsigned char *at, *end; } program;

static int pick(program *p, int n)                     /* 0 .. n-1; 0 when the bytes are used up */
{
  return p->at < p->end ? *p->at++ % n : 0;
}

/* ---- the model ------------------------------------------------------------------------------- */

/* What a state carries. A salt stands for the numbers of a row. */
typedef struct past {
  int64_t start;
  int tokens, given[LAYERS], gated[LAYERS], has_logits[LAYERS];
  float logits[LAYERS][HEADS];
  unsigned salt[LAYERS][LONGEST];
} past;

/* outputs that a commit will compare */
typedef struct record { int n; unsigned salt; float *out; } record;

typedef struct model {
  longctx_desc d;
  longctx_layer layers[LAYERS];
  longctx *lc, *twin;
  size_t bytes;
  int wild, block;                     /* odd numbers too; of the layers with memory or feedback  */
  unsigned salts;
  past now, saved;
  int rows[LAYERS];                    /* in the open batch                                       */
  unsigned salt[LAYERS];
  record wrote[LAYERS], read[LAYERS];
  unsigned char *state;                /* the saved one                                           */
  size_t state_bytes;
  float *x[4], *twin_out;
  program *p;
} model;

static long calls, refused, compared, oracled;
static double worst[4];                /* errors beside what storage loses, by type              */
static int isas[16], n_isas;           /* that this machine has, of the class of the best         */
static unsigned available;

static int64_t position(const model *m) { return m->now.start + m->now.tokens; }

static int source_of(const model *m, int l)
{
  return m->layers[l].kv_from < 0 ? l : m->layers[l].kv_from;
}

static int writes(const model *m, int l) { return m->layers[l].kv_from < 0; }
static int has_rows(const model *m, int l) { return writes(m, l) && m->layers[l].feedback; }

static int due(const model *m)
{
  int l;
  if (m->block == 0 || position(m) % m->block) return 0;
  for (l = 0; l < m->d.n_layers; l++)
    if (has_rows(m, l) && !m->now.given[l]) return 1;
  return 0;
}

static int room(const model *m)
{
  int64_t n = m->d.max_batch, end = ((int64_t)1 << 62) - position(m);
  if (due(m)) return 0;
  if (n > end) n = end;
  if (m->block && n > m->block - position(m) % m->block) n = m->block - position(m) % m->block;
  return (int)n;
}

static int untouched(const model *m)
{
  int l;
  for (l = 0; l < m->d.n_layers && !m->rows[l]; l++) {}
  return l == m->d.n_layers;
}

static void drop_batch(model *m)
{
  int l;
  for (l = 0; l < LAYERS; l++) m->rows[l] = m->wrote[l].n = m->read[l].n = 0;
}

/* outputs of layer l, or of all (-1), are of another time now */
static void forget_outputs(model *m, int l)
{
  int i;
  for (i = 0; i < m->d.n_layers; i++)
    if (l < 0 || i == l) m->wrote[i].n = m->read[i].n = 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static size_t floats_of(const model *m, int what)      /* in one token's row                     */
{
  size_t heads = (size_t)(what == Q || what == OUT ? m->d.n_heads : m->d.n_kv_heads);
  int dim = what == Q || what == K || !m->d.head_dim_v ? m->d.head_dim : m->d.head_dim_v;
  return heads * (size_t)dim;
}

static void fill(const model *m, int what, int layer, int64_t at, int n, unsigned salt, float *x)
{
  static const float odd[8] = { NAN, INFINITY, -INFINITY, 65504.0f, 1e12f, -2e38f, 1e-42f, 0.0f };
  size_t row = floats_of(m, what), i;
  int t;
  for (t = 0; t < n; t++) {
    uint64_t seed = ((uint64_t)at + (uint64_t)t) * 0x9e3779b97f4a7c15u +
                    salt * 64u + (unsigned)(4 * layer + what);
    for (i = 0; i < row; i++, x++) {
      uint64_t bits = t_u64(&seed);
      *x = (float)((double)(bits >> 11) / 4503599627370496.0 - 1.0);
      if (m->wild && (bits & 255) == 0) *x = odd[bits >> 8 & 7];
    }
  }
}

static void fill_all(model *m, int layer, int64_t at, int n, unsigned salt)
{
  int what;
  for (what = Q; what <= V; what++) fill(m, what, layer, at, n, salt, m->x[what]);
}

/* the same bits, or both no number */
static int same_floats(const float *a, const float *b, size_t n)
{
  size_t i;
  for (i = 0; i < n; i++)
    if (memcmp(a + i, b + i, sizeof *a) && (a[i] == a[i] || b[i] == b[i])) return 0;
  compared++;
  return 1;
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* The codes that a call may give, as bits; where several things are wrong, any of theirs. */
static unsigned because(int wrong, int code) { return wrong ? 1u << -code : 0; }

static int as_expected(int code, unsigned wrong)
{
  calls++;
  refused += wrong != 0;
  t_case("call %ld", calls);
  if (wrong == 0) return CHECK_EQ(code, LONGCTX_OK);
  return CHECK(code < 0 && code > -32 && wrong >> -code & 1);
}

/* A call on m->lc; refused, it must not have touched one byte. */
#define CALL(wrong, call)                                                          \
  do {                                                                             \
    unsigned wrong_ = (wrong);                                                     \
    unsigned char *picture_ = wrong_ ? (unsigned char *)t_memory(m->bytes) : NULL; \
    if (wrong_) memcpy(picture_, m->lc, m->bytes);                                 \
    if (!as_expected(call, wrong_)) printf("  %s, expected %#x\n", #call, wrong_); \
    if (wrong_) CHECK_SAME(picture_, (const unsigned char *)m->lc, m->bytes);      \
    free(picture_);                                                                \
  } while (0)

/* ---- attend ---------------------------------------------------------------------------------- */

/* What may be wrong with an attend of n rows; `off` says which argument is left out. */
static unsigned attend_wrong(const model *m, int l, int n, int k, int off)
{
  if (l < 0 || l >= m->d.n_layers || n < 0) return because(1, LONGCTX_E_ARG);
  if (n == 0) return 0;
  return because(off || (k && !writes(m, l)) || n > room(m), LONGCTX_E_ARG) |
         because(due(m), LONGCTX_E_ORDER) |
         because(!k && m->rows[source_of(m, l)] < n, LONGCTX_E_ORDER);
}

/* The calls of a caller with threads: all parts, in some order, and a join; or not quite. */
static void in_parts(model *m, int l, int n, const float *k, const float *v)
{
  int parts = 1 + pick(m->p, 6), first = pick(m->p, 6), slip = pick(m->p, 8), i;
  CALL(because(1, LONGCTX_E_ARG), longctx_attend_part(m->lc, l, n, m->x[Q], k, v, m->x[OUT],
                                                      slip & 1 ? parts : -1, parts));
  for (i = 0; i < parts; i++) {
    int part = (i + first) % parts;
    if (slip == 7 && part == 0) continue;              /* part 0 always leaves a ticket          */
    CALL(0, longctx_attend_part(m->lc, l, n, m->x[Q], k, v, m->x[OUT], part, parts));
  }
  if (slip == 6)
    CALL(because(1, LONGCTX_E_ARG), longctx_attend_join(m->lc, l, n, NULL));
  if (slip == 5 && n > 1)
    CALL(because(1, LONGCTX_E_ORDER), longctx_attend_join(m->lc, l, n - 1, m->x[OUT]));
  if (slip == 7) {
    CALL(because(1, LONGCTX_E_ORDER), longctx_attend_join(m->lc, l, n, m->x[OUT]));
    for (i = 0; i < parts; i++)
      CALL(0, longctx_attend_part(m->lc, l, n, m->x[Q], k, v, m->x[OUT], i, parts));
  }
  CALL(0, longctx_attend_join(m->lc, l, n, m->x[OUT]));
  CALL(because(1, LONGCTX_E_ORDER), longctx_attend_join(m->lc, l, n, m->x[OUT]));
}

static void keep_output(const model *m, record *r, int n)
{
  r->n = n;
  r->salt = m->salts;
  memcpy(r->out, m->x[OUT], sizeof(float) * (size_t)n * floats_of(m, OUT));
}

static void attend(model *m, int l, int n, int with_k, int off, int parts)
{
  unsigned wrong = attend_wrong(m, l, n, with_k, off);
  int safe_l = l < 0 || l >= m->d.n_layers ? 0 : l, safe_n = n < 0 || n > BATCH ? 1 : n, i;
  const float *q = off == 1 ? NULL : m->x[Q], *k = with_k && off != 2 ? m->x[K] : NULL;
  const float *v = with_k || off == 2 ? m->x[V] : NULL;
  float *out = off == 3 ? NULL : m->x[OUT];
  m->salts++;
  fill_all(m, safe_l, position(m), safe_n, m->salts);
  if (parts && !wrong && n > 0) in_parts(m, l, n, k, v);
  else CALL(wrong, longctx_attend(m->lc, l, n, q, k, v, out));
  if (wrong || n == 0) return;
  if (!with_k) {
    keep_output(m, &m->read[l], n);
    return;
  }
  m->rows[l] = n;
  m->salt[l] = m->salts;
  for (i = 0; i < m->d.n_layers; i++)
    if (source_of(m, i) == l) m->read[i].n = 0;
  keep_output(m, &m->wrote[l], n);
}

/* ---- time ------------------------------------------------------------------------------------ */

/* The twin takes one token as it was committed; whoever attended that token agrees with it. */
static void twin_step(model *m, int i)
{
  size_t row = floats_of(m, OUT);
  int l;
  for (l = 0; l < m->d.n_layers; l++) {
    if (!writes(m, l)) continue;
    fill_all(m, l, position(m), 1, m->salt[l]);
    CHECK_EQ(longctx_attend(m->twin, l, 1, m->x[Q], m->x[K], m->x[V], m->twin_out), LONGCTX_OK);
    t_case("call %ld: layer %d, token %d", calls, l, m->now.tokens);
    if (i < m->wrote[l].n)
      CHECK(same_floats(m->wrote[l].out + (size_t)i * row, m->twin_out, row));
  }
  for (l = 0; l < m->d.n_layers; l++) {
    if (i >= m->read[l].n) continue;
    fill(m, Q, l, position(m), 1, m->read[l].salt, m->x[Q]);
    CHECK_EQ(longctx_attend(m->twin, l, 1, m->x[Q], NULL, NULL, m->twin_out), LONGCTX_OK);
    t_case("call %ld: layer %d reads, token %d", calls, l, m->now.tokens);
    CHECK(same_floats(m->read[l].out + (size_t)i * row, m->twin_out, row));
  }
  CHECK_EQ(longctx_commit(m->twin, 1), LONGCTX_OK);
}

/* Row i of the open batch, written or read by layer l, against attention in double. */
static void ask_oracle(model *m, int l, int i, const record *r)
{
  static const double allowed[4] = { 2e-6, 4e-3, 2e-2, 4e-2 };
  int type = m->d.type_k > m->d.type_v ? m->d.type_k : m->d.type_v, t, source = source_of(m, l);
  double *want, error = 0.0;
  size_t row = floats_of(m, OUT), j;
  oracle o;
  if (i >= r->n || m->wild || m->layers[l].feedback || m->now.gated[l]) return;
  if (m->now.start > (int64_t)1 << 40) return;
  o = oracle_make(&m->d, l);
  o.start = m->now.start;
  if (m->d.rope_dims == 0) o.rope_dims = m->d.head_dim & ~1;       /* pairs only                 */
  o.type_k = m->d.type_k;
  o.type_v = m->d.type_v;
  o.logits = m->now.has_logits[l] ? m->now.logits[l] : NULL;
  for (t = 0; t <= m->now.tokens; t++) {
    fill_all(m, source, m->now.start + t, 1,
             t < m->now.tokens ? m->now.salt[source][t] : m->salt[source]);
    oracle_push(&o, 1, m->x[K], m->x[V]);
  }
  fill(m, Q, l, position(m), 1, r->salt, m->x[Q]);
  want = (double *)malloc(sizeof(double) * row);
  oracle_row(&o, m->now.tokens, m->x[Q], want, NULL);
  for (j = 0; j < row; j++) {
    double off = fabs(want[j] - (double)r->out[(size_t)i * row + j]);
    error = t_worse(error, off);
  }
  t_case("call %ld: layer %d, token %d against the oracle", calls, l, m->now.tokens);
  CHECK_NEAR(error, 0.0, allowed[type]);
  if (error > worst[type]) worst[type] = error;
  oracled++;
  free(want);
  oracle_free(&o);
}

static void commit(model *m, int n)
{
  unsigned wrong = because(n < 0 || n > room(m), LONGCTX_E_ARG) |
                   because(n > 0 && due(m), LONGCTX_E_ORDER);
  int ask = pick(m->p, 16), i, l;
  for (l = 0; l < m->d.n_layers; l++)
    wrong |= because(writes(m, l) && m->rows[l] < n, LONGCTX_E_ORDER);
  if (m->now.tokens + n > LONGEST) return;
  CALL(wrong, longctx_commit(m->lc, n));
  if (wrong) return;
  for (i = 0; i < n; i++) {
    if (ask < 3 && i == n - 1) {
      l = ask % m->d.n_layers;
      ask_oracle(m, l, i, &m->wrote[l]);
      ask_oracle(m, l, i, &m->read[l]);
    }
    twin_step(m, i);
    for (l = 0; l < m->d.n_layers; l++) m->now.salt[l][m->now.tokens] = m->salt[l];
    m->now.tokens++;
  }
  drop_batch(m);
  if (n > 0 && m->block && position(m) % m->block == 0)
    for (l = 0; l < LAYERS; l++) m->now.given[l] = 0;
}

/* ---- feedback -------------------------------------------------------------------------------- */

static unsigned rows_wrong(const model *m, int l, int off)
{
  if (l < 0 || l >= m->d.n_layers || !has_rows(m, l)) return because(1, LONGCTX_E_ARG);
  return because(off, LONGCTX_E_ARG) |
         because(position(m) % m->block != 0 || !untouched(m), LONGCTX_E_ORDER);
}

static void rows_set(model *m, int l, int off)
{
  unsigned wrong = rows_wrong(m, l, off);
  int f = m->d.feedback_len, i;
  float *mine = longctx_feedback(m->lc, l), *other = longctx_feedback(m->twin, l);
  t_case("call %ld: rows of layer %d", calls, l);
  CHECK((mine != NULL) == (l >= 0 && l < m->d.n_layers && has_rows(m, l)));
  m->salts++;
  if (f) fill_all(m, l & 3, position(m), f, m->salts);
  CALL(wrong, longctx_feedback_set(m->lc, l, off == 1 ? NULL : m->x[Q], off == 2 ? NULL : m->x[K],
                                   off == 3 ? NULL : m->x[V]));
  if (wrong) return;
  CHECK_EQ(longctx_feedback_set(m->twin, l, m->x[Q], m->x[K], m->x[V]), LONGCTX_OK);
  for (i = 0; i < f * m->d.feedback_dim; i++) mine[i] = other[i] = (float)m->salts;
  m->now.given[l] = 1;
}

static void rows_attend(model *m, int l, int off)
{
  unsigned wrong = rows_wrong(m, l, off);
  size_t n = (size_t)m->d.feedback_len * floats_of(m, OUT);
  if (!(wrong & because(1, LONGCTX_E_ARG)))
    wrong |= because(m->now.tokens == 0 && !m->now.given[l], LONGCTX_E_ORDER);
  CALL(wrong, longctx_feedback_attend(m->lc, l, off ? NULL : m->x[OUT]));
  if (wrong) return;
  CHECK_EQ(longctx_feedback_attend(m->twin, l, m->twin_out), LONGCTX_OK);
  CHECK(same_floats(m->x[OUT], m->twin_out, n));
}

/* ---- settings -------------------------------------------------------------------------------- */

static void settings(model *m, int l, int gate, int how)
{
  static const float values[8] = { 0.0f, 1.5f, -2.0f, -INFINITY, 0.25f, -90.0f, 3.0f, -0.5f };
  int outside = l < 0 || l >= m->d.n_layers, h;
  int bad = how == 7;                                  /* a NaN                                  */
  unsigned wrong = because(outside || bad || (gate && !m->layers[l].memory), LONGCTX_E_ARG);
  float x[HEADS];
  const float *logits = how == 0 ? NULL : x;
  for (h = 0; h < HEADS; h++) x[h] = values[(h + how) % 8];
  if (bad) x[m->d.n_heads - 1] = NAN;
  if (gate) CALL(wrong, longctx_set_gate(m->lc, l, logits));
  else CALL(wrong, longctx_set_sink_logits(m->lc, l, logits));
  if (wrong) return;
  if (gate) CHECK_EQ(longctx_set_gate(m->twin, l, logits), LONGCTX_OK);
  else CHECK_EQ(longctx_set_sink_logits(m->twin, l, logits), LONGCTX_OK);
  if (gate) m->now.gated[l] = how != 0;
  if (!gate) m->now.has_logits[l] = how != 0;
  if (!gate) memcpy(m->now.logits[l], x, sizeof x);
  forget_outputs(m, l);
}

static void change_isa(model *m, int isa)
{
  int old = longctx_isa(m->lc), i, known = isa >= 0 && isa < 16 && (available >> isa & 1);
  CALL(because(!known, LONGCTX_E_ISA), longctx_set_isa(m->lc, isa));
  for (i = 0; i < n_isas && isas[i] != isa; i++) {}
  if (known && i == n_isas) CALL(0, longctx_set_isa(m->lc, old)); /* it has other bits            */
}

static void seek(model *m, int how)
{
  static const int64_t places[8] = { 0, 512, -1, 1000, (int64_t)1 << 31, ((int64_t)1 << 62) - 40,
                                     INT64_MAX, 96 };
  int64_t to = places[how];
  int l;
  unsigned wrong;
  if (m->block && how != 3 && to > 0 && to < INT64_MAX) to -= to % m->block;
  wrong = because(to < 0 || to > (int64_t)1 << 62 || (m->block && to % m->block), LONGCTX_E_ARG) |
          because(m->now.tokens > 0 || !untouched(m), LONGCTX_E_ORDER);
  for (l = 0; l < LAYERS; l++) wrong |= because(m->now.given[l], LONGCTX_E_ORDER);
  CALL(wrong, longctx_seek(m->lc, to));
  if (wrong) return;
  CHECK_EQ(longctx_seek(m->twin, to), LONGCTX_OK);
  m->now.start = to;
}

static void reset(model *m)
{
  longctx_reset(m->lc);
  longctx_reset(m->twin);
  m->now.start = m->now.tokens = 0;
  memset(m->now.given, 0, sizeof m->now.given);
  drop_batch(m);
}

/* ---- states ---------------------------------------------------------------------------------- */

static void save(model *m)
{
  size_t n;
  unsigned char *other = t_state(m->twin, &n);
  free(m->state);
  m->state = t_state(m->lc, &m->state_bytes);
  t_case("call %ld: save", calls);
  if (CHECK_EQ(n, m->state_bytes)) CHECK_SAME(m->state, other, n);
  m->saved = m->now;
  free(other);
}

static void restore(model *m, int how)
{
  unsigned char *bytes;
  size_t n = m->state_bytes;
  unsigned wrong = 0;
  FILE *file;
  if (m->state == NULL) return;
  bytes = (unsigned char *)t_memory(n);
  memcpy(bytes, m->state, n);
  if (how == 1) n -= 1 + (size_t)pick(m->p, 255) * n / 256, wrong = because(1, LONGCTX_E_FORMAT);
  if (how == 2) {                                      /* one bit                                */
    bytes[((size_t)pick(m->p, 256) * 256 + (size_t)pick(m->p, 256)) % n] ^= 16;
    wrong = because(1, LONGCTX_E_FORMAT) | because(1, LONGCTX_E_VERSION) |
            because(1, LONGCTX_E_MISMATCH);
  }
  file = t_file(bytes, n);
  CALL(wrong, longctx_restore(m->lc, file));
  rewind(file);
  if (!wrong) CHECK_EQ(longctx_restore(m->twin, file), LONGCTX_OK);
  fclose(file);
  free(bytes);
  if (wrong) return;
  m->now = m->saved;
  drop_batch(m);
}

/* The context moves into another block: as a copy, by memcpy and open, or from a file. */
static void move(model *m, int how)
{
  void *mem = t_memory(m->bytes + 64);
  longctx *old = m->lc, *lc = NULL;
  size_t n;
  int error = 1;
  unsigned char *state;
  FILE *file;
  CALL(because(1, LONGCTX_E_SPACE), longctx_copy(mem, m->bytes - 1, old));
  CALL(because(1, LONGCTX_E_ARG), longctx_copy((char *)mem + 1, m->bytes, old));
  CALL(because(1, LONGCTX_E_ARG), longctx_copy((void *)old, m->bytes, old));
  if (how == 0) {
    CALL(0, longctx_copy(mem, m->bytes, old));
    lc = (longctx *)mem;
  } else if (how == 1) {
    memcpy(mem, old, m->bytes);
    lc = longctx_open(mem, m->bytes, &error);
    as_expected(error, 0);
  } else {
    state = t_state(old, &n);
    file = t_file(state, n);
    lc = longctx_load(mem, m->bytes, file, &error);
    as_expected(error, 0);
    fclose(file);
    free(state);
  }
  if (lc == NULL) {
    CHECK(lc != NULL);
    exit(t_done());
  }
  free((void *)old);
  m->lc = lc;
  m->d.max_threads = longctx_get_desc(lc).max_threads;
  m->bytes = longctx_size(&m->d);
  drop_batch(m);
}

/* Both contexts remember what the saved one does, too. */
static void add_memory(model *m, int how)
{
  unsigned wrong = 0;
  int any = 0, l, error = 1;
  FILE *file;
  void *mem;
  longctx *other;
  longctx_desc d = m->d;
  if (m->state == NULL) return;
  for (l = 0; l < m->d.n_layers; l++) {
    wrong |= because(m->layers[l].memory == LONGCTX_MEMORY_DELTA, LONGCTX_E_DESC);
    any |= m->layers[l].memory;
  }
  wrong |= because(!any, LONGCTX_E_DESC);
  if (how == 0) {
    CALL(because(1, LONGCTX_E_ARG) | wrong, longctx_memory_add(m->lc, m->lc));
    return;
  }
  if (how == 1) d.sinks++;
  mem = t_memory(longctx_size(&d));
  file = t_file(m->state, m->state_bytes);
  other = how == 1 ? longctx_init(mem, longctx_size(&d), &d)
                   : longctx_load(mem, longctx_size(&d), file, &error);
  CHECK(other != NULL);
  wrong |= because(how == 1, LONGCTX_E_MISMATCH);
  CALL(wrong, longctx_memory_add(m->lc, other));
  if (!wrong) CHECK_EQ(longctx_memory_add(m->twin, other), LONGCTX_OK);
  if (!wrong) forget_outputs(m, -1);
  fclose(file);
  free(mem);
}

/* ---- a desc ---------------------------------------------------------------------------------- */

static void make_layers(model *m)
{
  program *p = m->p;
  int l;
  for (l = 0; l < LAYERS; l++) m->layers[l] = longctx_layer_make(&m->d);
  if (pick(p, 2) == 0) return;
  for (l = 0; l < m->d.n_layers; l++) {
    longctx_layer *a = &m->layers[l];
    a->window = m->d.block ? m->d.block * (1 + pick(p, 5)) : 1 + pick(p, 40);
    a->positions = pick(p, 2);
    a->feedback = m->d.feedback_len ? pick(p, 2) : 0;
    if (m->d.memory && pick(p, 3) == 0) a->memory = LONGCTX_MEMORY_NONE;
    if (l == 0 || pick(p, 2)) continue;
    *a = m->layers[l - 1];
    if (a->kv_from < 0) a->kv_from = l - 1;
    if (pick(p, 2) && a->window > (m->d.block ? m->d.block : 1))
      a->window -= m->d.block ? m->d.block : 1;
    if (pick(p, 3) == 0) a->memory = LONGCTX_MEMORY_NONE;
    if (pick(p, 3) == 0) a->feedback = 0;
  }
  m->d.layers = m->layers;
}

static void make_desc(model *m)
{
  static const float scales[4] = { 0.0f, 0.5f, -0.25f, 0.125f };
  program *p = m->p;
  int kv = 1 + pick(p, 3), ratio = 1 + pick(p, 8) % (HEADS / kv), block = pick(p, 3) * pick(p, 9);
  m->d = longctx_desc_make(1 + pick(p, LAYERS), kv * ratio, kv, 1 + pick(p, WIDEST), 1);
  m->d.block = block;
  m->d.window = (block ? block : 1) * (1 + pick(p, block ? 6 : 70));
  m->d.head_dim_v = pick(p, 3) ? 0 : 1 + pick(p, WIDEST);
  m->d.sinks = pick(p, 2) * pick(p, 20);
  m->d.max_batch = pick(p, BATCH + 1);
  m->d.max_threads = pick(p, 5);
  m->d.type_k = pick(p, 4);
  m->d.type_v = pick(p, 4);
  m->d.positions = pick(p, 2);
  m->d.rope = pick(p, 3);
  if (m->d.rope && m->d.head_dim > 3) m->d.rope_dims = pick(p, m->d.head_dim / 2 + 1) * 2;
  m->d.rope_mscale = pick(p, 4) ? 0.0f : 1.25f;
  m->d.scale = scales[pick(p, 4)];
  m->d.softcap = pick(p, 4) ? 0.0f : 2.0f;
  m->d.alibi_max_bias = pick(p, 4) ? 0.0f : 8.0f;
  if (block > 1) m->d.memory = pick(p, 3);
  m->d.memory_first = pick(p, 2);
  if (block > 1 && pick(p, 2)) m->d.feedback_len = 1 + pick(p, block);
  m->d.feedback_dim = m->d.feedback_len ? 1 + pick(p, 4) : 0;
  make_layers(m);
  m->wild = pick(p, 4) == 3;
}

/* ---- one program ----------------------------------------------------------------------------- */

static model *model_make(program *p)
{
  model *m = (model *)calloc(1, sizeof *m);
  size_t most = (size_t)BATCH * HEADS * WIDEST;
  int i;
  if (m == NULL) { printf("out of memory\n"); exit(1); }
  m->p = p;
  make_desc(m);
  t_case("desc: %s", longctx_check(&m->d) ? longctx_check(&m->d) : "good");
  m->lc = t_new(&m->d);
  m->twin = t_new(&m->d);
  m->bytes = longctx_size(&m->d);
  CHECK_EQ(longctx_set_isa(m->twin, isas[pick(p, n_isas)]), LONGCTX_OK);
  if (m->d.max_batch == 0) m->d.max_batch = 1;
  for (i = 0; i < m->d.n_layers; i++)
    if (m->layers[i].memory || m->layers[i].feedback) m->block = m->d.block;
  for (i = 0; i < 4; i++) m->x[i] = t_floats(most);
  for (i = 0; i < LAYERS; i++) m->wrote[i].out = t_floats(most), m->read[i].out = t_floats(most);
  m->twin_out = t_floats(most);
  return m;
}

static void model_free(model *m)
{
  int i;
  for (i = 0; i < 4; i++) free(m->x[i]);
  for (i = 0; i < LAYERS; i++) free(m->wrote[i].out), free(m->read[i].out);
  free(m->twin_out);
  free(m->state);
  free(m->lc);
  free(m->twin);
  free(m);
}

/* Everything as it should be: rows that are due, n rows in every layer, most of them kept. */
static void go_on(model *m)
{
  int n, l;
  if (due(m))
    for (l = 0; l < m->d.n_layers; l++)
      if (has_rows(m, l) && untouched(m)) rows_set(m, l, 0);
  n = room(m) ? 1 + pick(m->p, room(m)) : 0;
  for (l = 0; l < m->d.n_layers; l++) attend(m, l, n, writes(m, l), 0, pick(m->p, 3) == 2);
  commit(m, n && pick(m->p, 4) == 0 ? pick(m->p, n + 1) : n);
}

static void one_call(model *m)
{
  program *p = m->p;
  int what = pick(p, 32), l = pick(p, 16) ? pick(p, m->d.n_layers) : pick(p, 2) * 4 - 1;
  int off = pick(p, 4) ? 0 : pick(p, 4);
  if (what < 12) go_on(m);
  else if (what < 16) attend(m, l, pick(p, BATCH + 3) - 1, pick(p, 3) > 0, off, pick(p, 2));
  else if (what < 18) commit(m, pick(p, BATCH + 3) - 1);
  else if (what < 20) rows_set(m, l, off);
  else if (what < 22) rows_attend(m, l, off);
  else if (what < 24) settings(m, l, what & 1, pick(p, 8));
  else if (what == 24) change_isa(m, pick(p, 10) - 1);
  else if (what == 25) seek(m, pick(p, 8));
  else if (what == 26) { if (pick(p, 3) == 0) reset(m); }
  else if (what == 27) save(m);
  else if (what == 28) restore(m, pick(p, 3));
  else if (what == 29) move(m, pick(p, 3));
  else if (what == 30) add_memory(m, pick(p, 4));
  else commit(m, 0);
}

static void find_isas(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 1, 1);
  longctx *lc = t_new(&d);
  const char *best = longctx_isa_name(longctx_isa(lc)), *name;
  int fused = strcmp(best, "scalar") && strcmp(best, "sse2") && strcmp(best, "wasm"), isa;
  for (isa = 0; (name = longctx_isa_name(isa)) != NULL; isa++) {
    int like = strcmp(name, "scalar") && strcmp(name, "sse2") && strcmp(name, "wasm");
    if (longctx_set_isa(lc, isa) != LONGCTX_OK) continue;
    available |= 1u << isa;
    if (like == fused) isas[n_isas++] = isa;
  }
  free(lc);
}

static void print_desc(const model *m)
{
  const longctx_desc *d = &m->d;
  int l;
  printf("  %d heads, %d kv, dim %d/%d, sinks %d, batch %d, threads %d, types %d %d, "
         "rope %d of %d, mscale %g, scale %g, cap %g, alibi %g, first %d, feedback %d, wild %d, from %lld\n",
         d->n_heads, d->n_kv_heads, d->head_dim, d->head_dim_v, d->sinks, d->max_batch,
         d->max_threads, d->type_k, d->type_v, d->rope, d->rope_dims, (double)d->rope_mscale,
         (double)d->scale, (double)d->softcap, (double)d->alibi_max_bias, d->memory_first,
         d->feedback_len, m->wild, (long long)m->now.start);
  for (l = 0; l < d->n_layers; l++)
    printf("  layer %d: window %d, block %d, positions %d, memory %d, feedback %d, kv_from %d\n", l,
           m->layers[l].window, m->layers[l].block, m->layers[l].positions, m->layers[l].memory,
           m->layers[l].feedback, m->layers[l].kv_from);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size)
{
  program p;
  model *m;
  if (n_isas == 0) find_isas();
  p.at = bytes;
  p.end = bytes + size;
  m = model_make(&p);
  if (pick(&p, 2)) seek(m, pick(&p, 8));
  while (p.at < p.end) {
    one_call(m);
    t_case("call %ld: questions", calls);
    CHECK_EQ(longctx_position(m->lc), position(m));
    CHECK_EQ(longctx_room(m->lc), room(m));
    CHECK_EQ(longctx_feedback_due(m->lc), due(m));
    if (t_failed) print_desc(m);
    if (t_failed) break;                               /* the model is lost                      */
  }
  if (!t_failed) save(m);
  model_free(m);
#ifdef FUZZER
  if (t_failed) abort();
#endif
  return 0;
}

#ifndef FUZZER
int main(int argc, char **argv)
{
  int programs = argc > 1 ? atoi(argv[1]) : 3000, i;
  uint64_t seed = argc > 2 ? (uint64_t)atoi(argv[2]) : 1;
  unsigned char bytes[400];
  for (i = 0; i < programs && !t_failed; i++) {
    int n = 60 + t_below(&seed, 340), j;
    for (j = 0; j < n; j++) bytes[j] = (unsigned char)t_below(&seed, 256);
    LLVMFuzzerTestOneInput(bytes, (size_t)n);
    if (t_failed) printf("in program %d\n", i);
  }
  printf("%d programs, %ld calls, %ld of them refused; %ld outputs the same, "
         "%ld by the oracle\n", i, calls, refused, compared, oracled);
  printf("worst of an output against the oracle: float32 %.1e, float16 %.1e, bfloat16 %.1e, "
         "int8 %.1e\n", worst[0], worst[1], worst[2], worst[3]);
  CHECK(refused > programs && compared > programs && oracled > programs / 20);
  return t_done();
}
#endif
