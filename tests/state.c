/* state.c: reset, copy, open, save, load, restore, and everything that may be wrong with a file. */
#ifdef __linux__
#define _GNU_SOURCE 1                  /* fopencookie                                            */
#endif
#define _DEFAULT_SOURCE 1              /* pipe, fdopen; pages.h                                  */
#include "pages.h"
#include "text.h"

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#define HAVE_PIPE 1
#endif

#ifdef __linux__
#include <errno.h>
#include <sys/types.h>
#define HAVE_COOKIE 1
#endif

enum { TOKENS = 60, BATCH = 4 };

static const double freqs_a[8] = { 1.0, 0.3, 0.1, 0.02, 0.01 };
static const double freqs_b[8] = { 1.0, 0.3, 0.1, 0.03, 0.01 };

/* Small, and with something of everything: sinks, two types, two layers of different kinds. */
static longctx_desc small_desc(longctx_layer *layers)
{
  longctx_desc d = longctx_desc_make(2, 4, 2, 8, 6);
  d.sinks = 2;
  d.max_batch = BATCH;
  d.type_k = LONGCTX_Q8;
  d.type_v = LONGCTX_F16;
  d.rope_freqs = freqs_a;
  layers[0] = longctx_layer_make(&d);
  layers[1] = longctx_layer_make(&d);
  layers[1].window = 9;
  layers[1].block = 3;
  d.layers = layers;
  return d;
}

static void set_logits(longctx *lc)
{
  static const float logits[4] = { 0.5f, -1.0f, 0.25f, 2.0f };
  longctx_desc d = longctx_get_desc(lc);
  if (d.layers != NULL && d.layers[1].memory) CHECK_EQ(longctx_set_gate(lc, 1, logits), LONGCTX_OK);
  CHECK_EQ(longctx_set_sink_logits(lc, 1, logits), LONGCTX_OK);
}

static longctx *run_new(const longctx_desc *d, const text *x, int tokens, int chunk)
{
  longctx *lc = t_new(d);
  float *out = text_out(x);
  set_logits(lc);
  text_run(lc, x, 0, tokens, chunk, out);
  free(out);
  return lc;
}

/* Both go on from token `from` to the end, and agree in every bit. */
static void same_future(longctx *a, longctx *b, const text *x, int from)
{
  float *p = text_out(x), *q = text_out(x);
  CHECK_EQ(longctx_position(a), longctx_position(b));
  text_run(a, x, from, x->tokens, 1, p);
  text_run(b, x, from, x->tokens, 3, q);
  CHECK_SAME(p, q, sizeof(float) * text_out_floats(x));
  t_same_states(a, b);
  free(p);
  free(q);
}

static longctx *load_from(const longctx_desc *d, const void *bytes, size_t n, int *error)
{
  size_t room = longctx_size(d);
  void *mem = t_memory(room);
  FILE *file = t_file(bytes, n);
  longctx *lc = longctx_load(mem, room, file, error);
  fclose(file);
  if (lc == NULL) free(mem);
  return lc;
}

/* ---- equal states are equal bytes ------------------------------------------------------------ */

static void test_equal_chunks(const longctx_desc *d, const text *x)
{
  longctx *one = run_new(d, x, 41, 1);
  int chunk;
  for (chunk = 0; chunk <= BATCH; chunk++) {
    longctx *other = run_new(d, x, 41, chunk);
    t_case("chunk %d", chunk);
    t_same_states(one, other);
    free(other);
  }
  free(one);
}

static void swap_rows(text *a, text *b, int token)
{
  int l;
  size_t i;
  for (l = 0; l < a->layers; l++) {
    float *x = text_k(a, l, token), *y = text_k(b, l, token);
    for (i = 0; i < a->k_row; i++) { float z = x[i]; x[i] = y[i]; y[i] = z; }
    x = text_v(a, l, token), y = text_v(b, l, token);
    for (i = 0; i < a->v_row; i++) { float z = x[i]; x[i] = y[i]; y[i] = z; }
  }
}

static void test_equal_after_drafts(const longctx_desc *d, text *x, text *junk)
{
  float *out = text_out(x);
  int t;
  for (t = 0; t < 30; t++) {
    longctx *clean = run_new(d, x, t, 1), *drafty = t_new(d);
    int i;
    set_logits(drafty);
    t_case("drafts at %d", t);
    for (i = 0; i < t; i++) {
      text_step(drafty, junk, i, BATCH, out);          /* replaced                               */
      swap_rows(x, junk, i);
      text_step(drafty, junk, i, BATCH, out);          /* the first row stays, three are dropped */
      CHECK_EQ(longctx_commit(drafty, 1), LONGCTX_OK);
      swap_rows(x, junk, i);
    }
    t_same_states(clean, drafty);
    text_step(drafty, junk, t, BATCH, out);            /* an open batch is not part of a state   */
    t_same_states(clean, drafty);
    CHECK_EQ(longctx_commit(drafty, 0), LONGCTX_OK);
    t_same_states(clean, drafty);
    free(clean);
    free(drafty);
  }
  free(out);
}

static void test_equal_threads(const longctx_desc *d, const text *x)
{
  longctx *one = run_new(d, x, 33, 1), *other;
  longctx_desc many = *d;
  size_t n;
  unsigned char *state = t_state(one, &n);
  FILE *file = t_file(state, n);
  many.max_threads = 7;
  other = run_new(&many, x, 33, BATCH);
  t_case("max_threads");
  t_same_states(one, other);
  longctx_reset(other);
  CHECK_EQ(longctx_restore(other, file), LONGCTX_OK);  /* it is not a part of the desc either    */
  same_future(one, other, x, 33);
  fclose(file);
  free(state);
  free(one);
  free(other);
}

static void test_reset(const longctx_desc *d, const text *x)
{
  longctx *used = run_new(d, x, 41, BATCH), *fresh = run_new(d, x, 0, 1);
  t_case("reset");
  longctx_reset(used);
  CHECK_EQ(longctx_position(used), 0);
  t_same_states(used, fresh);                          /* the sink logits stayed                 */
  same_future(used, fresh, x, 0);
  free(used);
  free(fresh);
}

/* ---- copy, move, open ------------------------------------------------------------------------ */

static void test_copy(const longctx_desc *d, const text *x)
{
  size_t bytes = longctx_size(d);
  float *out = text_out(x);
  int t;
  for (t = 0; t < 34; t += 3) {
    longctx *lc = run_new(d, x, t, 2), *twin = run_new(d, x, t, 2);
    void *mem = t_memory(bytes);
    size_t i;
    int l;
    t_case("copy at %d", t);
    text_step(lc, x, t, BATCH, out);                   /* open: not carried                      */
    CHECK_EQ(longctx_copy(mem, bytes - 1, lc), LONGCTX_E_SPACE);
    for (i = 0; i < bytes && ((unsigned char *)mem)[i] == 0xff; i++) {}
    CHECK_EQ(i, bytes);                                /* untouched                              */
    CHECK_EQ(longctx_copy(mem, bytes, lc), LONGCTX_OK);
    t_same_states(lc, (longctx *)mem);
    for (l = 0; l < 2; l++)
      CHECK_EQ(longctx_attend((longctx *)mem, l, 1, text_q(x, l, t), NULL, NULL, out),
               LONGCTX_E_ORDER);
    CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);
    same_future((longctx *)mem, twin, x, t);
    free(mem);
    free(twin);
    twin = run_new(d, x, t, 1);
    same_future(lc, twin, x, t);                       /* the original lives on                  */
    free(lc);
    free(twin);
  }
  free(out);
}

/* A copy that would lie on its source is refused, and one right beside it is not. */
static void test_copy_overlapping(const longctx_desc *d, const text *x)
{
  size_t bytes = (longctx_size(d) + 63) / 64 * 64;
  unsigned char *memory = (unsigned char *)t_memory(3 * bytes);
  longctx *lc = run_new(d, x, 17, 1), *middle = (longctx *)(void *)(memory + bytes);
  CHECK_EQ(longctx_copy(middle, bytes, lc), LONGCTX_OK);
  t_case("copies that overlap");
  CHECK_EQ(longctx_copy(memory + bytes + 64, bytes, middle), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(memory + bytes - 64, bytes, middle), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(memory + 2 * bytes - 64, bytes, middle), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(memory + 64, bytes, middle), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(memory + bytes - 128, 128, middle), LONGCTX_E_SPACE);
  t_bad_input("a copy that overlaps");
  t_same_states(middle, lc);
  CHECK_EQ(longctx_copy(memory, bytes, middle), LONGCTX_OK);
  CHECK_EQ(longctx_copy(memory + 2 * bytes, bytes, middle), LONGCTX_OK);
  t_same_states((longctx *)(void *)memory, lc);
  t_same_states((longctx *)(void *)(memory + 2 * bytes), lc);
  free(memory);
  free(lc);
}

static void test_move(const longctx_desc *d, const text *x)
{
  size_t bytes = longctx_size(d);
  float *out = text_out(x);
  int t;
  for (t = 0; t < 34; t += 5) {
    longctx *lc = run_new(d, x, t, 2), *twin = run_new(d, x, t, 2), *moved;
    char *mem = (char *)t_memory(bytes + 16);
    int error = 99;
    t_case("moved at %d", t);
    text_step(lc, x, t, BATCH, out);
    memcpy(mem + 16, lc, bytes);
    memset((void *)lc, 0xdd, bytes);
    free(lc);
    moved = longctx_open(mem + 16, bytes, &error);
    if (CHECK(moved != NULL)) {
      CHECK_EQ(error, LONGCTX_OK);
      CHECK_EQ(longctx_commit(moved, 1), LONGCTX_E_ORDER);   /* the open batch was dropped       */
      same_future(moved, twin, x, t);
    }
    free(mem);
    free(twin);
  }
  free(out);
}

/* ---- a hostile block ------------------------------------------------------------------------- */

/* Whatever open makes of it, nothing outside the block is touched and a context is consistent. */
static void open_hostile(const unsigned char *bytes, size_t n, const text *x, float *out)
{
  enum { ZONE = 64 };
  unsigned char *all = (unsigned char *)t_memory(n + 2 * ZONE);
  int error = 99;
  size_t i;
  longctx *lc;
  memcpy(all + ZONE, bytes, n);
  lc = longctx_open(all + ZONE, n, &error);
  if (lc == NULL) {
    CHECK(error < 0 && error != 99);
  } else {
    longctx_desc d = longctx_get_desc(lc);
    CHECK_EQ(error, LONGCTX_OK);
    CHECK(longctx_check(&d) == NULL);
    CHECK(longctx_size(&d) <= n);
    CHECK(longctx_position(lc) >= 0);
    if (longctx_feedback_due(lc) && d.feedback_len == 2) {
      (void)longctx_feedback_attend(lc, 1, out);
      (void)longctx_feedback_set(lc, 1, x->q, x->k, x->v);
    }
    if (d.n_heads == x->d.n_heads && d.head_dim == x->d.head_dim && d.n_layers == x->d.n_layers &&
        (d.head_dim_v == 8 || d.head_dim_v == 0) && longctx_room(lc) >= 2) {
      (void)longctx_attend(lc, 0, 2, x->q, x->k, x->v, out);
      (void)longctx_attend(lc, 1, 2, x->q, x->k, x->v, out);
      (void)longctx_commit(lc, 2);
    }
  }
  for (i = 0; i < ZONE; i++)
    if (all[i] != 0xff || all[ZONE + n + i] != 0xff) break;
  CHECK_EQ(i, ZONE);
  free(all);
}

/* Behind what is left of a block lies nothing that could be looked at. */
static void open_cut(const unsigned char *block, size_t n)
{
  int error = 99;
#ifdef HAVE_PAGES
  guarded g;
  void *mem = guard(&g, n);
#else
  void *mem = t_memory(n);
#endif
  memcpy(mem, block, n);
  CHECK(longctx_open(mem, n, &error) == NULL);
  CHECK(error < 0 && error != LONGCTX_E_ARG);
#ifdef HAVE_PAGES
  unguard(&g);
#else
  free(mem);
#endif
}

static void test_hostile(const longctx_desc *d, const text *x)
{
  size_t bytes = longctx_size(d), i, n;
  longctx *lc = run_new(d, x, 29, 3);
  unsigned char *block = (unsigned char *)t_memory(bytes);
  float *out = text_out(x);
  memcpy(block, lc, bytes);
  for (i = 0; i < bytes && i < 1024; i++) {
    static const int masks[] = { 0x01, 0x80, 0xff };
    int m;
    for (m = 0; m < 3; m++) {
      t_case("block byte %lu ^ %02x", (unsigned long)i, (unsigned)masks[m]);
      block[i] ^= (unsigned char)masks[m];
      open_hostile(block, bytes, x, out);
      block[i] ^= (unsigned char)masks[m];
    }
  }
  for (n = 16; n < bytes; n += 16 + n / 36 / 16 * 16) {
    t_case("block cut to %lu of %lu", (unsigned long)n, (unsigned long)bytes);
    open_cut(block, n);
  }
  free(block);
  free(out);
  free(lc);
}

static void test_hostile_noise(const longctx_desc *d, const text *x)
{
  size_t bytes = longctx_size(d), i;
  longctx *lc = run_new(d, x, 29, 3);
  unsigned char *noise = (unsigned char *)t_memory(bytes);
  float *out = text_out(x);
  uint64_t seed = 5;
  int k;
  for (k = 0; k < 2000; k++) {
    size_t from = k % 2 ? 0 : (size_t)t_below(&seed, 512);
    size_t till = k % 5 ? from + 1 + (size_t)t_below(&seed, 64) : bytes;
    t_case("block with noise %d", k);
    memcpy(noise, lc, bytes);
    for (i = from; i < till && i < bytes; i++) noise[i] = (unsigned char)t_u64(&seed);
    open_hostile(noise, bytes, x, out);
  }
  free(noise);
  free(out);
  free(lc);
}

static void test_open_misuse(const longctx_desc *d)
{
  size_t bytes = longctx_size(d), i;
  longctx *lc = t_new(d);
  int error = 99;
  t_case("open misuse");
  CHECK(longctx_open(NULL, bytes, &error) == NULL);
  CHECK(error < 0);
  error = 99;
  CHECK(longctx_open(lc, bytes - 1, &error) == NULL);
  CHECK(error < 0);
  CHECK(longctx_open(lc, 0, NULL) == NULL);            /* error may be NULL                      */
  for (i = 0; i < sizeof lc->label; i++) {             /* each byte of it alone counts           */
    size_t version = offsetof(lcx_label, version), probe = offsetof(lcx_label, probe);
    unsigned char *p = (unsigned char *)&lc->label + i;
    *p ^= 1;
    CHECK(longctx_open(lc, bytes, &error) == NULL);
    CHECK_EQ(error, i >= version && i < probe ? LONGCTX_E_VERSION : LONGCTX_E_FORMAT);
    *p ^= 1;
  }
  CHECK(longctx_open(lc, bytes, NULL) == lc);
  free(lc);
}

/* Fields that lie, each alone possible: refused before anything is laid out by them. */
static void test_open_forged(void)
{
  longctx_desc d = longctx_desc_make(1, 2, 1, 8, 8);
  size_t bytes;
  longctx *lc;
  int error = 99;
  d.block = 4;
  d.feedback_len = 2;
  bytes = longctx_size(&d);
  lc = t_new(&d);
  t_case("forged: rows in the desc, in no layer");
  lc->wish.base.feedback = 0;
  CHECK(longctx_open(lc, bytes, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_FORMAT);
  lc->wish.base.feedback = 1;
  CHECK(longctx_open(lc, bytes, &error) == lc);
  t_case("forged: what no desc sets");
  lc->wish.zero = 1;
  CHECK(longctx_open(lc, bytes, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_FORMAT);
  lc->wish.zero = 0;
  t_case("forged: larger than memory");
  lc->wish.n_layers = lc->wish.n_heads = lc->wish.n_kv_heads = 65536;
  lc->wish.base.window = 1 << 30;
  CHECK(longctx_open(lc, bytes, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_FORMAT);
  free(lc);
}

/* -0 and 0 are one desc, whose states are the same bytes; a block with the sign is nobody's. */
static void test_minus_zero(void)
{
  static const float minus = -0.0f;
  longctx_desc d = longctx_desc_make(1, 2, 1, 8, 8), o = d;
  longctx *a = t_new(&d), *b;
  size_t bytes = longctx_size(&d), k;
  o.softcap = o.alibi_max_bias = o.scale = o.rope_mscale = minus;
  b = t_new(&o);
  t_case("minus zero");
  CHECK_SAME(a, b, bytes);
  for (k = 0; k < 2; k++) {
    int error = 99;
    memcpy(k ? &b->wish.base.softcap : &b->wish.alibi_max_bias, &minus, sizeof minus);
    CHECK(longctx_open(b, bytes, &error) == NULL);
    CHECK_EQ(error, LONGCTX_E_FORMAT);
    t_bad_input("a block with a minus zero, %d", (int)k);
    memcpy(b, a, bytes);
    CHECK(longctx_open(b, bytes, &error) == b);
  }
  free(a);
  free(b);
}

/* ---- save and load --------------------------------------------------------------------------- */

/* Empty, one token, filling, full, at every phase of the wrap. */
static void test_save_everywhere(const longctx_desc *d, const text *x)
{
  int t;
  for (t = 0; t <= 40; t++) {
    longctx *lc = run_new(d, x, t, 3), *loaded, *live;
    size_t n;
    unsigned char *state = t_state(lc, &n);
    FILE *file = t_file(state, n);
    int error = 99;
    t_case("saved at %d", t);
    loaded = load_from(d, state, n, &error);
    live = run_new(d, x, (t * 7) % 23, 1);
    CHECK_EQ(longctx_restore(live, file), LONGCTX_OK);
    fclose(file);
    if (CHECK(loaded != NULL)) {
      CHECK_EQ(error, LONGCTX_OK);
      CHECK_EQ(longctx_room(loaded), BATCH);
      CHECK(longctx_isa_name(longctx_isa(loaded)) != NULL);
      t_same_states(lc, loaded);
      t_same_states(lc, live);
      same_future(loaded, live, x, t);
      free(loaded);
    }
    free(live);
    live = run_new(d, x, t, 1);
    same_future(lc, live, x, t);                       /* saving left no trace                   */
    free(state);
    free(lc);
    free(live);
  }
}

/* The format stays as it is, checksum and all: a file of whole numbers that no arithmetic touches,
   byte for byte, by FNV-1a, which is not the file's own. When this fails, old files cannot be read:
   the format's version must go up. */
static void test_format(void)
{
  longctx_desc d = longctx_desc_make(2, 2, 1, 4, 8);
  float q[8] = { 0 }, k[4], v[4], out[8];
  const uint16_t order = 1;
  uint64_t h = 0xcbf29ce484222325u;
  unsigned char *state;
  longctx *lc;
  size_t n, i;
  int token, l, j;
  d.sinks = 2;
  d.rope = LONGCTX_ROPE_NONE;
  d.type_v = LONGCTX_F16;
  lc = t_new(&d);
  for (token = 0; token < 21; token++) {
    for (l = 0; l < 2; l++) {
      for (j = 0; j < 4; j++) {
        k[j] = (float)(100 * l + 4 * token + j);
        v[j] = -k[j];
      }
      CHECK_EQ(longctx_attend(lc, l, 1, q, k, v, out), LONGCTX_OK);
    }
    CHECK_EQ(longctx_commit(lc, 1), LONGCTX_OK);
  }
  state = t_state(lc, &n);
  for (i = 0; i < n; i++) h = (h ^ state[i]) * 0x100000001b3u;
  t_case("the format of state files: %d bytes, %08x%08x", (int)n, (unsigned)(h >> 32), (unsigned)h);
  CHECK_EQ(n, 656);
  if (*(const unsigned char *)&order) CHECK(h == 0x6043308007c1ad4eu);
  free(state);
  free(lc);
}

/* The same for int8 and bfloat16, memory, feedback, sink logits and gates. Every row's largest
   number is 127, so that int8's scale is 1, and keys are not negative, so that a feature is k + 1:
   all sums are whole. */
static void test_format_all(void)
{
  static const float open[2] = { INFINITY, -INFINITY }, logits[2] = { 0.0f, -INFINITY };
  longctx_desc d = longctx_desc_make(1, 2, 1, 4, 40);
  float q[16], k[8], v[8], out[16];
  const uint16_t order = 1;
  uint64_t h = 0xcbf29ce484222325u;
  unsigned char *state;
  longctx *lc;
  size_t n, i;
  int token, j;
  d.block = 20;
  d.sinks = 3;
  d.rope = LONGCTX_ROPE_NONE;
  d.type_k = LONGCTX_Q8;
  d.type_v = LONGCTX_BF16;
  d.memory = LONGCTX_MEMORY_LINEAR;
  d.feedback_len = 2;
  d.feedback_dim = 3;
  lc = t_new(&d);
  CHECK_EQ(longctx_set_gate(lc, 0, open), LONGCTX_OK);
  CHECK_EQ(longctx_set_sink_logits(lc, 0, logits), LONGCTX_OK);
  for (token = 0; token < 99; token++) {               /* 19 of a block: 16 are on their way     */
    for (j = 0; j < 16; j++) q[j] = (float)(j - token);
    for (j = 0; j < 8; j++) {
      k[j] = (float)(j % 4 == 3 ? 127 : (7 * token + 5 * j) % 120);
      v[j] = (float)(j % 4 == 0 ? -127 : (3 * token + j) % 100 - 50);
    }
    if (longctx_feedback_due(lc)) {
      for (j = 0; j < 6; j++) longctx_feedback(lc, 0)[j] = (float)(10 * token + j);
      CHECK_EQ(longctx_feedback_set(lc, 0, q, k, v), LONGCTX_OK);
    }
    CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_OK);
    CHECK_EQ(longctx_commit(lc, 1), LONGCTX_OK);
  }
  state = t_state(lc, &n);
  for (i = 0; i < n; i++) h = (h ^ state[i]) * 0x100000001b3u;
  t_case("the format, all kinds: %d bytes, %08x%08x", (int)n, (unsigned)(h >> 32), (unsigned)h);
  CHECK_EQ(n, 1192);
  if (*(const unsigned char *)&order) CHECK(h == 0x69505ab75355bea0u);
  free(state);
  free(lc);
}

/* Part of the format, too: a sink's key is stored as the window would store it, rotated at its
   position in the text, or at its index in the cache. Outputs would not tell: scores see only
   differences of positions. */
static void test_sink_keys(void)
{
  enum { START = 1000, DIM = 16 };
  float q[DIM], k[DIM], v[DIM], out[DIM], key[2][DIM];
  uint64_t seed = 5;
  int positions, start, i, sinks;
  for (i = 0; i < DIM; i++) q[i] = k[i] = v[i] = t_normal(&seed);
  for (positions = LONGCTX_POS_CACHE; positions <= LONGCTX_POS_TEXT; positions++) {
    t_case("a sink's key, positions %d", positions);
    for (sinks = 0; sinks < 2; sinks++) {
      longctx_desc d = longctx_desc_make(1, 1, 1, DIM, 8);
      longctx *lc;
      const lcx_store *st;
      int64_t x;
      d.sinks = sinks;
      d.positions = positions;
      lc = t_new(&d);
      start = sinks || positions == LONGCTX_POS_TEXT ? START : 0;
      CHECK_EQ(longctx_seek(lc, start), LONGCTX_OK);
      CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_OK);
      st = &lcx_layer_of(lc, 0)->store[sinks ? LCX_SINKS : LCX_WINDOW];
      x = sinks ? 0 : start;
      for (i = 0; i < DIM; i++)
        memcpy(&key[sinks][i],
               lcx_ring_of(lc, lcx_layer_of(lc, 0), sinks ? LCX_SINKS : LCX_WINDOW, 0) +
                   lcx_tile_at(st, x) + lcx_key_at(st, i, (int)(x % st->tile)), sizeof(float));
      free(lc);
    }
    CHECK_SAME(key[0], key[1], sizeof key[0]);
    if (positions == LONGCTX_POS_TEXT) CHECK(memcmp(key[0], k, sizeof key[0]) != 0);
  }
}

/* Bytes before and behind are other people's: the file is left right behind the state. */
static void test_file_position(const longctx_desc *d, const text *x)
{
  longctx *a = run_new(d, x, 17, 1), *b = run_new(d, x, 30, 1), *again;
  size_t bytes = longctx_size(d);
  void *mem = t_memory(bytes);
  FILE *file = tmpfile();
  long first, second;
  int error = 99;
  t_case("file position");
  if (file == NULL) { CHECK(file != NULL); return; }
  fputs("before", file);
  CHECK_EQ(longctx_save(a, file), LONGCTX_OK);
  first = ftell(file);
  CHECK_EQ(first, 6 + (long)longctx_state_size(a));
  CHECK_EQ(longctx_save(b, file), LONGCTX_OK);
  second = ftell(file);
  fputs("behind", file);
  fseek(file, 6, SEEK_SET);
  again = longctx_load(mem, bytes, file, &error);
  if (CHECK(again != NULL)) t_same_states(a, again);
  CHECK_EQ(ftell(file), first);
  CHECK_EQ(longctx_restore(a, file), LONGCTX_OK);
  CHECK_EQ(ftell(file), second);
  t_same_states(a, b);
  CHECK_EQ(fgetc(file), 'b');
  fclose(file);
  free(mem);
  free(a);
  free(b);
}

static void test_load_misuse(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 17, 1);
  size_t bytes = longctx_size(d), n;
  unsigned char *state = t_state(lc, &n);
  void *mem = t_memory(bytes);
  FILE *file = t_file(state, n);
  int error = 99;
  t_case("load misuse");
  CHECK(longctx_load(NULL, bytes, file, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_ARG);
  CHECK(longctx_load(mem, bytes, NULL, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_ARG);
  rewind(file);
  CHECK(longctx_load(mem, n / 2, file, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_SPACE);
  rewind(file);
  CHECK(longctx_load(mem, n / 2, file, NULL) == NULL);
  rewind(file);
  CHECK(longctx_load(mem, bytes, file, NULL) != NULL);
  CHECK_EQ(longctx_restore(lc, NULL), LONGCTX_E_ARG);
  CHECK_EQ(longctx_restore(NULL, file), LONGCTX_E_ARG);
  CHECK_EQ(longctx_save(lc, NULL), LONGCTX_E_ARG);
  CHECK_EQ(longctx_save(NULL, file), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(NULL, bytes, lc), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(mem, bytes, NULL), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy(lc, bytes, lc), LONGCTX_E_ARG);
  CHECK_EQ(longctx_copy((char *)mem + 1, bytes - 1, lc), LONGCTX_E_ARG);
  t_case("load and open, misaligned");
  rewind(file);
  CHECK(longctx_load((char *)mem + 1, bytes - 1, file, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_ARG);
  CHECK(longctx_open((char *)mem + 1, bytes - 1, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_ARG);
  t_case("load into less than a context's head");
  CHECK(longctx_load(mem, 16, file, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_SPACE);
  fclose(file);
  free(mem);
  free(state);
  free(lc);
}

static void test_write_fails(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 17, 1);
  FILE *file = fopen("/dev/full", "wb");
  t_case("disk full");
  if (file != NULL) {
    setvbuf(file, NULL, _IONBF, 0);
    CHECK_EQ(longctx_save(lc, file), LONGCTX_E_IO);
    fclose(file);
  }
  file = fopen("/dev/null", "rb");
  t_case("not writable");
  if (file != NULL) {
    CHECK_EQ(longctx_save(lc, file), LONGCTX_E_IO);
    fclose(file);
  }
  free(lc);
}

#ifdef HAVE_PIPE
static FILE *piped(const unsigned char *bytes, size_t n)
{
  int ends[2];
  if (n > 60000 || pipe(ends) != 0) return NULL;
  CHECK_EQ(write(ends[1], bytes, n), (long)n);
  close(ends[1]);
  return fdopen(ends[0], "rb");
}

/* load reads straight through; restore must read twice, and says so where it cannot. */
static void test_pipe(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 17, 1), *live = run_new(d, x, 5, 1), *twin = run_new(d, x, 5, 1);
  size_t n, bytes = longctx_size(d);
  unsigned char *state = t_state(lc, &n);
  void *mem = t_memory(bytes);
  FILE *file = piped(state, n);
  int error = 99;
  t_case("pipe");
  if (CHECK(file != NULL)) {
    CHECK(longctx_load(mem, bytes, file, &error) != NULL);
    CHECK_EQ(error, LONGCTX_OK);
    fclose(file);
  }
  file = piped(state, n);
  if (CHECK(file != NULL)) {
    CHECK_EQ(longctx_restore(live, file), LONGCTX_E_IO);
    t_same_states(live, twin);
    fclose(file);
  }
  free(mem);
  free(state);
  free(lc);
  free(live);
  free(twin);
}
#else
static void test_pipe(const longctx_desc *d, const text *x)
{
  (void)d;
  (void)x;
  printf("skipped: pipes\n");
}
#endif

/* ---- damaged files --------------------------------------------------------------------------- */

typedef struct patient { longctx *lc; unsigned char *before; size_t n; } patient;

/* A refused restore leaves every byte of the state. */
static void refuse_restore(patient *p, FILE *file, int error, int or_error)
{
  size_t n;
  unsigned char *after;
  int r = longctx_restore(p->lc, file);
  CHECK(r == error || r == or_error);
  after = t_state(p->lc, &n);
  if (CHECK_EQ(n, p->n)) CHECK_SAME(p->before, after, n);
  free(after);
}

static void refuse_load(const longctx_desc *d, const unsigned char *bytes, size_t n, int error,
                        int or_error)
{
  int got = 99;
  longctx *lc = load_from(d, bytes, n, &got);
  CHECK(lc == NULL);
  CHECK(got == error || got == or_error);
  free(lc);
}

static patient make_patient(const longctx_desc *d, const text *x)
{
  patient p;
  p.lc = run_new(d, x, 31, 2);
  p.before = t_state(p.lc, &p.n);
  return p;
}

/* After all those refusals the last 29 tokens agree with a twin's. */
static void end_patient(patient *p, const longctx_desc *d, const text *x)
{
  longctx *twin = run_new(d, x, 31, 2);
  same_future(p->lc, twin, x, 31);
  free(twin);
  free(p->lc);
  free(p->before);
}

static void test_cut_files(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 20, 1);
  patient p = make_patient(d, x);
  size_t n, cut;
  unsigned char *state = t_state(lc, &n);
  for (cut = 0; cut < n; cut++) {
    FILE *file = t_file(state, cut);
    t_case("cut to %lu of %lu", (unsigned long)cut, (unsigned long)n);
    refuse_restore(&p, file, LONGCTX_E_IO, LONGCTX_E_FORMAT);
    fclose(file);
    refuse_load(d, state, cut, LONGCTX_E_IO, LONGCTX_E_FORMAT);
  }
  end_patient(&p, d, x);
  free(state);
  free(lc);
}

/* Cut where the header reads on: for some number of heads that is before each kind of field. */
static void test_cut_in_blocks(void)
{
  int i;
  for (i = 0; i < 140; i++) {
    int heads = 1 + i / 2;
    longctx_desc d = longctx_desc_make(1, heads, 1, 4, 8);
    size_t n, cut;
    longctx *lc;
    unsigned char *state;
    d.block = 4;
    d.memory = i % 2 ? LONGCTX_MEMORY_LINEAR : LONGCTX_MEMORY_NONE;
    d.feedback_len = 2;
    lc = t_new(&d);
    state = t_state(lc, &n);
    for (cut = sizeof(lcx_file_head); cut < n; cut += 256) {
      FILE *file = t_file(state, cut);
      t_case("%d heads, cut to %lu of %lu", heads, (unsigned long)cut, (unsigned long)n);
      CHECK_EQ(longctx_restore(lc, file), LONGCTX_E_FORMAT);
      fclose(file);
      refuse_load(&d, state, cut, LONGCTX_E_FORMAT, LONGCTX_E_FORMAT);
    }
    free(state);
    free(lc);
  }
}

/* ---- disks that fail ------------------------------------------------------------------------- */

#ifdef HAVE_COOKIE
/* A file of `room` bytes; behind them reads and writes fail. It can be wound back `seeks` times,
   and then, if `turn` is not 0, the byte there changes, and if `cuts`, `cut` bytes are left. */
typedef struct disk { unsigned char *bytes; size_t room, at, turn, cut; int seeks, cuts; } disk;

static ssize_t disk_read(void *cookie, char *to, size_t n)
{
  disk *d = (disk *)cookie;
  if (n > d->room - d->at) n = d->room - d->at;
  if (n == 0) {
    errno = EIO;
    return -1;
  }
  memcpy(to, d->bytes + d->at, n);
  d->at += n;
  return (ssize_t)n;
}

static ssize_t disk_write(void *cookie, const char *from, size_t n)
{
  disk *d = (disk *)cookie;
  if (n > d->room - d->at) n = d->room - d->at;
  memcpy(d->bytes + d->at, from, n);
  d->at += n;
  return (ssize_t)n;
}

static int disk_seek(void *cookie, off64_t *offset, int whence)
{
  disk *d = (disk *)cookie;
  if (whence == SEEK_SET) {
    if (d->seeks-- == 0) return -1;
    if (d->turn) d->bytes[d->turn] ^= 1;
    if (d->cuts) d->room = d->cut;
    d->at = (size_t)*offset;
  }
  *offset = (off64_t)d->at;
  return 0;
}

static FILE *disk_open(disk *d)
{
  cookie_io_functions_t calls = { disk_read, disk_write, disk_seek, NULL };
  FILE *file = fopencookie(d, "r+", calls);
  if (file == NULL) { printf("no stream\n"); exit(1); }
  setvbuf(file, NULL, _IONBF, 0);
  return file;
}

/* Full at every byte, unreadable from every byte on. */
static void test_disk(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 20, 1), *loaded;
  patient p = make_patient(d, x);
  size_t n, room, bytes = longctx_size(d);
  unsigned char *state = t_state(lc, &n), *copy = (unsigned char *)t_memory(n);
  void *mem = t_memory(bytes);
  disk k;
  FILE *file;
  int error;
  memset(&k, 0, sizeof k);
  for (room = 0; room <= n; room++) {
    k.bytes = copy, k.room = room, k.at = 0, k.seeks = 9;
    t_case("disk full at %lu of %lu", (unsigned long)room, (unsigned long)n);
    file = disk_open(&k);
    CHECK_EQ(longctx_save(lc, file), room < n ? LONGCTX_E_IO : LONGCTX_OK);
    fclose(file);
    t_case("disk unreadable at %lu of %lu", (unsigned long)room, (unsigned long)n);
    k.bytes = state, k.at = 0, error = 99;
    file = disk_open(&k);
    loaded = longctx_load(mem, bytes, file, &error);
    CHECK((loaded == NULL) == (room < n));
    CHECK_EQ(error, room < n ? LONGCTX_E_IO : LONGCTX_OK);
    fclose(file);
    k.at = 0;                                          /* nor can it tell how much it wanted     */
    file = disk_open(&k);
    CHECK(longctx_load(mem, bytes / 2, file, &error) == NULL);
    CHECK_EQ(error, room < n ? LONGCTX_E_IO : LONGCTX_E_SPACE);
    fclose(file);
    if (room == n) break;
    k.at = 0;
    file = disk_open(&k);
    refuse_restore(&p, file, LONGCTX_E_IO, LONGCTX_E_IO);
    fclose(file);
  }
  CHECK_SAME(state, copy, n);

  t_case("no way back, and none needed");
  k.at = 0, k.seeks = 0;
  file = disk_open(&k);
  refuse_restore(&p, file, LONGCTX_E_IO, LONGCTX_E_IO);
  fclose(file);
  t_case("no way back from a damaged state");
  k.bytes = copy, k.at = 0, k.seeks = 0;
  copy[n / 2] ^= 4;
  file = disk_open(&k);
  refuse_restore(&p, file, LONGCTX_E_FORMAT, LONGCTX_E_FORMAT);
  fclose(file);
  copy[n / 2] ^= 4;
  end_patient(&p, d, x);

  t_case("a file that changes between the two readings");
  k.at = 0, k.seeks = 1, k.turn = n / 2;
  file = disk_open(&k);
  CHECK_EQ(longctx_restore(lc, file), LONGCTX_E_IO);
  fclose(file);
  CHECK_EQ(longctx_position(lc), 0);                   /* it was reset, and is a sound context   */
  set_logits(lc);
  loaded = run_new(d, x, 0, 1);
  same_future(lc, loaded, x, 0);
  free(loaded);
  free(mem);
  free(copy);
  free(state);
  free(lc);
}

/* The second reading ends at any byte: the context is sound, and so is what it saves. Into settings
   that the file does not have, so that a flag may have changed before what it stands for; in so
   many layers that somewhere a read ends between the two. */
static void test_cut_restore(void)
{
  static const float logits[4] = { 0.5f, -1.0f, 0.25f, 2.0f };
  longctx_desc d = longctx_desc_make(32, 4, 1, 2, 1);
  longctx *lc = t_new(&d), *live = t_new(&d);
  size_t n, m, bytes = longctx_size(&d);
  unsigned char *state = t_state(lc, &n), *saved;
  void *mem = t_memory(bytes);
  disk k;
  FILE *file;
  int l, error;
  memset(&k, 0, sizeof k);
  for (k.cut = 0; k.cut < n; k.cut++) {
    t_case("the second reading ends at %lu of %lu", (unsigned long)k.cut, (unsigned long)n);
    for (l = 0; l < 32; l++) CHECK_EQ(longctx_set_sink_logits(live, l, logits), LONGCTX_OK);
    k.bytes = state, k.room = n, k.at = 0, k.seeks = k.cuts = 1;
    file = disk_open(&k);
    CHECK_EQ(longctx_restore(live, file), LONGCTX_E_IO);
    fclose(file);
    saved = t_state(live, &m);
    CHECK_SAME(state, saved, m);                       /* as new                                 */
    file = t_file(saved, m);
    CHECK(longctx_load(mem, bytes, file, &error) != NULL);
    fclose(file);
    free(saved);
  }
  free(mem);
  free(state);
  free(lc);
  free(live);
}
#else
static void test_cut_restore(void) { }

static void test_disk(const longctx_desc *d, const text *x)
{
  (void)d;
  (void)x;
  printf("skipped: disks that fail\n");
}
#endif

/* Every single bit of the file. */
static void test_flipped_files(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 20, 1);
  patient p = make_patient(d, x);
  size_t n, bit;
  unsigned char *state = t_state(lc, &n);
  FILE *file = t_file(state, n);
  for (bit = 0; bit < 8 * n; bit++) {
    t_case("bit %lu of byte %lu of %lu", (unsigned long)bit % 8, (unsigned long)bit / 8,
           (unsigned long)n);
    state[bit / 8] ^= (unsigned char)(1u << bit % 8);
    fseek(file, (long)(bit / 8), SEEK_SET);
    fputc(state[bit / 8], file);
    rewind(file);
    refuse_restore(&p, file, LONGCTX_E_FORMAT, LONGCTX_E_VERSION);
    if (bit % 8 == bit / 8 % 8)
      refuse_load(d, state, n, LONGCTX_E_FORMAT, LONGCTX_E_VERSION);
    state[bit / 8] ^= (unsigned char)(1u << bit % 8);
    fseek(file, (long)(bit / 8), SEEK_SET);
    fputc(state[bit / 8], file);
  }
  fclose(file);
  end_patient(&p, d, x);
  free(state);
  free(lc);
}

static void test_noise_files(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 20, 1);
  patient p = make_patient(d, x);
  size_t n, i;
  unsigned char *state = t_state(lc, &n), *bad = (unsigned char *)t_memory(2 * n);
  uint64_t seed = 77;
  int k;
  for (k = 0; k < 1500; k++) {
    size_t from = (size_t)t_below(&seed, (int)n), till = from + 2 + (size_t)t_below(&seed, 300);
    FILE *file;
    memcpy(bad, state, n);
    for (i = from; i < till && i < n; i++) bad[i] = (unsigned char)t_u64(&seed);
    if (k % 50 == 0) memset(bad, k / 50 * 37 % 256, n);
    if (memcmp(bad, state, n) == 0) continue;
    t_case("noise file %d", k);
    file = t_file(bad, n);
    refuse_restore(&p, file, LONGCTX_E_FORMAT, LONGCTX_E_VERSION);
    fclose(file);
    refuse_load(d, bad, n, LONGCTX_E_FORMAT, LONGCTX_E_VERSION);
  }
  end_patient(&p, d, x);
  free(bad);
  free(state);
  free(lc);
}

/* A refusal in the middle of a batch: the batch is still open, and commits. */
static void test_refused_with_open_batch(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 31, 2), *twin = run_new(d, x, 31, 2);
  size_t n;
  unsigned char *state = t_state(lc, &n);
  float *out = text_out(x);
  FILE *file;
  state[n / 2] ^= 4;
  file = t_file(state, n);
  t_case("refused with an open batch");
  text_step(lc, x, 31, 3, out);
  CHECK(longctx_restore(lc, file) < 0);
  CHECK_EQ(longctx_commit(lc, 3), LONGCTX_OK);
  text_run(twin, x, 31, 34, 1, out);
  same_future(lc, twin, x, 34);
  fclose(file);
  free(state);
  free(out);
  free(lc);
  free(twin);
}

/* ---- memory of doubtful origin --------------------------------------------------------------- */

static void refuse_number(const longctx_desc *d, const text *x, const unsigned char *state,
                          size_t n, size_t at, float with)
{
  unsigned char *bad = (unsigned char *)t_memory(n);
  patient p = make_patient(d, x);
  FILE *file;
  memcpy(bad, state, n);
  memcpy(bad + at, &with, sizeof with);
  t_rehash(bad, n);
  t_case("%g at byte %lu of %lu", (double)with, (unsigned long)at, (unsigned long)n);
  file = t_file(bad, n);
  refuse_restore(&p, file, LONGCTX_E_FORMAT, LONGCTX_E_FORMAT);
  fclose(file);
  refuse_load(d, bad, n, LONGCTX_E_FORMAT, LONGCTX_E_FORMAT);
  end_patient(&p, d, x);
  free(bad);
  t_bad_input("%g in a state's memory or gates", (double)with);
}

/* An int8 row's scale is its largest number by 127: no tokens make it negative, or so large that
   scores fall below the maximum of a row that has seen nothing. */
static void test_hostile_scale(const longctx_desc *d, const text *x)
{
  longctx *lc = run_new(d, x, 20, 1), *again;
  const lcx_store *st = &lcx_layer_of(lc, 0)->store[LCX_WINDOW];
  size_t n, sinks = 2 * 2 * 4 * 16, bytes = longctx_size(d), at;
  unsigned char *state = t_state(lc, &n), *block = (unsigned char *)t_memory(bytes);
  float scale;
  int error = 99;
  at = sizeof(lcx_file_head) + (size_t)lc->wish.bytes + 2 * 20 + sinks + 8;
  memcpy(&scale, state + at, sizeof scale);            /* behind the first key of the window     */
  t_case("hostile scale");
  CHECK(scale > 0 && scale < 1);
  refuse_number(d, x, state, n, at, -scale);
  refuse_number(d, x, state, n, at, 1e12f);
  memcpy(block, lc, bytes);
  again = (longctx *)(void *)block;
  at = lcx_tile_at(st, 19) + st->scale_k + 19 % (size_t)st->tile * 4;
  memcpy(&scale, lcx_ring_of(again, lcx_layer_of(again, 0), LCX_WINDOW, 0) + at, sizeof scale);
  CHECK(scale > 0 && scale < 1);
  scale = -scale;
  memcpy(lcx_ring_of(again, lcx_layer_of(again, 0), LCX_WINDOW, 0) + at, &scale, sizeof scale);
  CHECK(longctx_open(block, bytes, &error) == NULL);
  CHECK_EQ(error, LONGCTX_E_FORMAT);
  t_bad_input("hostile scale in a block");
  free(block);
  free(state);
  free(lc);
}

/* Where there are no sink logits, none may stand: one state has one file. */
static void test_hostile_logits(const longctx_desc *d, const text *x)
{
  longctx *lc = t_new(d), *again;
  size_t n, bytes = longctx_size(d);
  unsigned char *state = t_state(lc, &n), *block = (unsigned char *)t_memory(bytes);
  int error = 99, k;
  refuse_number(d, x, state, n, sizeof(lcx_file_head) + (size_t)lc->wish.bytes + 8, 3.0f);
  for (k = 0; k < 4; k++) {
    memcpy(block, lc, bytes);
    again = (longctx *)(void *)block;
    t_case("hostile live part of a layer, %d", k);
    if (k == 0) lcx_logits_of(again, 0)[1] = 1e-30f;
    if (k == 1) lcx_live_of(again, 1)->has_logits = 2;
    if (k == 2) lcx_live_of(again, 1)->fed_set = 1;    /* without feedback rows                  */
    if (k == 3) lcx_live_of(again, 1)->zero = 1;
    CHECK(longctx_open(block, bytes, &error) == NULL);
    CHECK_EQ(error, LONGCTX_E_FORMAT);
    t_bad_input("hostile live part of a layer, %d", k);
  }
  free(block);
  free(state);
  free(lc);
}

static void test_hostile_memory(const longctx_desc *d, const text *x)
{
  static const float bad[5] = { NAN, INFINITY, -INFINITY, 2e36f, -3e38f };
  static const float no_gates[4] = { NAN, -0.25f, 1.25f, INFINITY };
  static const float no_logits[4] = { NAN, INFINITY, 2e30f, -2e30f };
  longctx *lc = run_new(d, x, 32, 2), *again;
  size_t n, floats = 2 * 8 * 9, i, gates, bytes = longctx_size(d);
  unsigned char *state = t_state(lc, &n), *block = (unsigned char *)t_memory(bytes);
  int64_t start = 1;
  int error = 99, k;
  again = load_from(d, state, n, &error);
  t_case("hostile memory, as it is");
  t_rehash(state, n);
  CHECK(again != NULL);
  free(again);
  again = load_from(d, state, n, &error);
  CHECK(again != NULL);                                /* our hash is the header's               */
  free(again);
  for (i = 0; i < 2 * floats; i += 31)                 /* two KV heads of M, z and what waits     */
    for (k = 0; k < 5; k++) refuse_number(d, x, state, n, n - 8 - 4 * (i + 1), bad[k]);
  gates = sizeof(lcx_file_head) + (size_t)lc->wish.bytes + 2 * 20;
  for (k = 0; k < 4; k++) refuse_number(d, x, state, n, gates + 12, no_gates[k]);
  memcpy(state + 24, &start, sizeof start);            /* no text starts within a block          */
  t_rehash(state, n);
  t_case("hostile start");
  refuse_load(d, state, n, LONGCTX_E_FORMAT, LONGCTX_E_FORMAT);
  for (k = 0; k < 13; k++) {
    t_case("hostile block %d", k);
    memcpy(block, lc, bytes);
    again = (longctx *)(void *)block;
    if (k < 5) memcpy(lcx_memory_at(again, lcx_layer_of(again, 1), 1) + 3, &bad[k], 4);
    else if (k < 9) lcx_gates_of(again, 1)[2] = no_gates[k - 5];
    else lcx_logits_of(again, 1)[2] = no_logits[k - 9];
    CHECK(longctx_open(block, bytes, &error) == NULL);
    CHECK_EQ(error, LONGCTX_E_FORMAT);
    t_bad_input("hostile block %d", k);
  }
  memcpy(block, lc, bytes);
  CHECK(longctx_open(block, bytes, &error) != NULL);
  free(block);
  free(state);
  free(lc);
}

/* ---- a desc of doubtful origin --------------------------------------------------------------- */

/* A state with one number changed and a right checksum is refused by load with a code of its own,
   or it is a valid state that saves as itself; restore refuses it, and nothing has changed. */
static void try_number(const longctx_desc *d, patient *p, unsigned char *state, size_t n, size_t at,
                       const void *number, size_t size, const char *name)
{
  unsigned char *bad = (unsigned char *)t_memory(n);
  int error = 99, restored;
  longctx *lc;
  FILE *file;
  memcpy(bad, state, n);
  memcpy(bad + at, number, size);
  t_case("%s", name);
  if (memcmp(bad, state, n) != 0) {
    t_rehash(bad, n);
    lc = load_from(d, bad, n, &error);
    if (lc == NULL) {
      CHECK(error == LONGCTX_E_FORMAT || error == LONGCTX_E_VERSION || error == LONGCTX_E_SPACE ||
            error == LONGCTX_E_IO);
      t_bad_input("%s", name);
    } else {
      size_t m;
      unsigned char *again = t_state(lc, &m);
      CHECK_EQ(error, LONGCTX_OK);
      if (CHECK_EQ(m, n)) CHECK_SAME(again, bad, n);
      free(again);
      free(lc);
    }
    file = t_file(bad, n);
    restored = error == LONGCTX_E_VERSION ? error : LONGCTX_E_MISMATCH;
    if (error < 0 || at >= sizeof(lcx_file_head))      /* else another time of the same desc     */
      refuse_restore(p, file, restored, error < 0 ? LONGCTX_E_FORMAT : LONGCTX_E_MISMATCH);
    fclose(file);
  }
  free(bad);
}

/* Every number of the head, of the desc and of its layers, as bad as it may be. */
static void test_hostile_numbers(const longctx_desc *d, const text *x)
{
  static const char *const head[] = { "magic", "magic", "version", "probe", "bytes", "bytes",
                                      "start", "start", "position", "position" };
  static const char *const wish[] = {
    "n_layers", "n_heads", "n_kv_heads", "head_dim", "head_dim_v", "sinks", "max_batch", "type_k",
    "type_v", "has_layers", "alibi_max_bias", "wish bytes", "memory_first", "feedback_len",
    "feedback_dim", "zero"
  };
  static const char *const layer[] = {
    "window", "block", "positions", "rope", "rope_dims", "kv_from", "rope_mscale", "scale",
    "softcap", "n_freqs", "memory", "feedback", "rope_base", "rope_base"
  };
  static const int32_t values[] = { -1, 0, INT32_MIN, INT32_MAX, 0x7fc00000 };
  longctx *lc = run_new(d, x, 20, 1);
  patient p = make_patient(d, x);
  size_t n, i, words;
  unsigned char *state = t_state(lc, &n);
  int v;
  words = (sizeof(lcx_file_head) + sizeof(lcx_wish) + 2 * sizeof(lcx_wish_layer)) / 4;
  CHECK_EQ(sizeof head / sizeof *head, sizeof(lcx_file_head) / 4);
  CHECK_EQ(sizeof layer / sizeof *layer, sizeof(lcx_wish_layer) / 4);
  for (i = 0; i < words; i++)
    for (v = 0; v < 5; v++) {
      size_t at = i < 10 ? i : i - 10;
      char name[80];
      snprintf(name, sizeof name, "%s word %u = %ld",
               i < 10 ? head[at] : at < 16 ? wish[at] : layer[(at - 16) % 14], (unsigned)i,
               (long)values[v]);
      try_number(d, &p, state, n, 4 * i, &values[v], 4, name);
    }
  end_patient(&p, d, x);
  free(state);
  free(lc);
}

/* ---- another desc ---------------------------------------------------------------------------- */

static void mismatch(const longctx_desc *d, const text *x, const longctx_desc *other,
                     const char *field)
{
  longctx *from = t_new(other);
  patient p = make_patient(d, x);
  size_t n;
  unsigned char *state = t_state(from, &n);
  FILE *file = t_file(state, n);
  t_case("mismatch: %s", field);
  refuse_restore(&p, file, LONGCTX_E_MISMATCH, LONGCTX_E_MISMATCH);
  t_bad_input("mismatch: %s", field);
  fclose(file);
  end_patient(&p, d, x);
  free(state);
  free(from);
}

#define MISMATCH(field, value) \
  do { longctx_desc o = *d; o.field = value; mismatch(d, x, &o, #field); } while (0)

#define MISMATCH_LAYER(field, value)              \
  do {                                            \
    longctx_desc o = *d;                          \
    longctx_layer a[2];                           \
    a[0] = d->layers[0], a[1] = d->layers[1];     \
    a[0].field = value;                           \
    o.layers = a;                                 \
    mismatch(d, x, &o, "layer " #field);          \
  } while (0)

static void test_mismatch(const longctx_desc *d, const text *x)
{
  longctx_layer three[3];
  longctx_desc more = *d;
  three[0] = d->layers[0], three[1] = d->layers[1], three[2] = d->layers[1];
  more.n_layers = 3;
  more.layers = three;
  mismatch(d, x, &more, "n_layers");
  MISMATCH(n_heads, 6);
  MISMATCH(n_kv_heads, 1);
  MISMATCH(head_dim, 10);
  MISMATCH(head_dim_v, 9);
  MISMATCH(sinks, 3);
  MISMATCH(max_batch, BATCH + 1);
  MISMATCH(type_k, LONGCTX_F32);
  MISMATCH(type_v, LONGCTX_BF16);
  MISMATCH(alibi_max_bias, 8.0f);
  MISMATCH_LAYER(window, 7);
  MISMATCH_LAYER(block, 2);
  MISMATCH_LAYER(positions, LONGCTX_POS_TEXT);
  MISMATCH_LAYER(rope, LONGCTX_ROPE_INTERLEAVED);
  MISMATCH_LAYER(rope_dims, 6);
  MISMATCH_LAYER(rope_mscale, 1.25);
  MISMATCH_LAYER(rope_freqs, freqs_b);
  MISMATCH_LAYER(rope_freqs, NULL);
  MISMATCH_LAYER(scale, 0.5f);
  MISMATCH_LAYER(softcap, 9.0f);
}

/* A file that is refused at its very end has not changed logits or gates on the way there. */
static void test_refused_late(const longctx_desc *d, const text *x)
{
  static const float others[4] = { 3.0f, 2.0f, -1.5f, 0.75f };
  longctx *other = run_new(d, x, 31, 2);
  patient p = make_patient(d, x);
  unsigned char *state;
  FILE *file;
  size_t n;
  CHECK_EQ(longctx_set_sink_logits(other, 1, others), LONGCTX_OK);
  CHECK_EQ(longctx_set_gate(other, 1, others), LONGCTX_OK);
  state = t_state(other, &n);
  state[n - 1] ^= 1;
  file = t_file(state, n);
  t_case("other logits and gates, and a wrong checksum");
  refuse_restore(&p, file, LONGCTX_E_FORMAT, LONGCTX_E_FORMAT);
  fclose(file);
  end_patient(&p, d, x);
  free(state);
  free(other);
}

static void test_mismatch_memory(const longctx_desc *d, const text *x)
{
  longctx_desc o = *d;
  longctx_layer a[2];
  a[0] = d->layers[0], a[1] = d->layers[1];
  o.layers = a;
  a[1].memory = LONGCTX_MEMORY_LINEAR;
  mismatch(d, x, &o, "layer memory");
  o = *d;
  o.memory_first = LONGCTX_FIRST_ZERO;
  mismatch(d, x, &o, "memory_first");
}

static void test_mismatch_feedback(const longctx_desc *d, const text *x)
{
  longctx_desc o = *d;
  longctx_layer a[2];
  a[0] = d->layers[0], a[1] = d->layers[1];
  o.layers = a;
  a[1].feedback = 0;
  mismatch(d, x, &o, "layer feedback");
  a[1].feedback = 1;
  o.feedback_len = 1;
  mismatch(d, x, &o, "feedback_len");
  o.feedback_len = 2;
  o.feedback_dim = 3;
  mismatch(d, x, &o, "feedback_dim");
}

static void test_mismatch_base(const text *x)
{
  longctx_desc d = x->d, o;
  longctx_layer layers[2];
  d.layers = NULL;
  d.rope_freqs = NULL;
  o = d;
  o.rope_base = 10001.0;
  mismatch(&d, x, &o, "rope_base");
  o = d;
  o.window++;
  mismatch(&d, x, &o, "window");
  o = d;
  layers[0] = longctx_layer_make(&d);
  layers[1] = longctx_layer_make(&d);
  layers[1].kv_from = 0;
  o.layers = layers;
  mismatch(&d, x, &o, "layer kv_from");
}

/* ---- seek ------------------------------------------------------------------------------------ */

static void test_seek(const longctx_desc *d, const text *x)
{
  longctx *lc = t_new(d), *zero = t_new(d);
  float *out = text_out(x);
  size_t n, m;
  unsigned char *a, *b;
  t_case("seek");
  CHECK_EQ(longctx_seek(lc, -1), LONGCTX_E_ARG);
  CHECK_EQ(longctx_seek(NULL, 0), LONGCTX_E_ARG);
  CHECK_EQ(longctx_seek(lc, (int64_t)1 << 40), LONGCTX_OK);
  CHECK_EQ(longctx_position(lc), (int64_t)1 << 40);
  CHECK_EQ(longctx_seek(lc, 12), LONGCTX_OK);          /* still empty                            */
  CHECK_EQ(longctx_position(lc), 12);
  a = t_state(lc, &n);
  b = t_state(zero, &m);
  CHECK(n != m || memcmp(a, b, n) != 0);               /* the start is part of the state         */
  free(a);
  free(b);
  text_run(lc, x, 0, 5, 1, out);
  CHECK_EQ(longctx_position(lc), 17);
  CHECK_EQ(longctx_seek(lc, 12), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_seek(lc, 17), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_position(lc), 17);
  longctx_reset(lc);
  CHECK_EQ(longctx_position(lc), 0);
  t_same_states(lc, zero);
  CHECK_EQ(longctx_seek(lc, INT64_MAX), LONGCTX_E_ARG);
  CHECK_EQ(longctx_seek(lc, ((int64_t)1 << 62) + 1), LONGCTX_E_ARG);
  CHECK_EQ(longctx_position(lc), 0);
  CHECK_EQ(longctx_seek(lc, (int64_t)1 << 62), LONGCTX_OK);
  CHECK_EQ(longctx_room(lc), 0);                       /* positions end there                    */
  free(lc);
  free(zero);
  free(out);
}

/* Counters that pass 2^31, 2^32 and 2^40 on the way: save and load there, too. */
static void test_far(const longctx_desc *d, const text *x)
{
  static const int64_t starts[] = { 2147483640, 4294967290, 1099511627770 };
  float *out = text_out(x);
  int s;
  for (s = 0; s < 3; s++) {
    longctx *lc = t_new(d), *loaded;
    size_t n;
    unsigned char *state;
    int error = 99;
    t_case("start %ld", (long)starts[s]);
    CHECK_EQ(longctx_seek(lc, starts[s]), LONGCTX_OK);
    text_run(lc, x, 0, 21, 2, out);
    state = t_state(lc, &n);
    loaded = load_from(d, state, n, &error);
    CHECK_EQ(longctx_position(lc), starts[s] + 21);
    if (CHECK(loaded != NULL)) same_future(lc, loaded, x, 21);
    free(state);
    free(lc);
    free(loaded);
  }
  free(out);
}

int main(void)
{
  longctx_layer layers[2];
  longctx_desc d = small_desc(layers);
  text x = text_make(&d, TOKENS, 1), junk = text_make(&d, TOKENS, 2);
  int l;
  test_equal_chunks(&d, &x);
  test_equal_after_drafts(&d, &x, &junk);
  test_equal_threads(&d, &x);
  test_reset(&d, &x);
  test_copy(&d, &x);
  test_copy_overlapping(&d, &x);
  test_move(&d, &x);
  test_hostile(&d, &x);
  test_hostile_noise(&d, &x);
  test_open_misuse(&d);
  test_open_forged();
  test_minus_zero();
  test_save_everywhere(&d, &x);
  test_format();
  test_format_all();
  test_sink_keys();
  test_file_position(&d, &x);
  test_load_misuse(&d, &x);
  test_write_fails(&d, &x);
  test_pipe(&d, &x);
  test_cut_in_blocks();
  test_disk(&d, &x);
  test_cut_restore();
  test_cut_files(&d, &x);
  test_flipped_files(&d, &x);
  test_noise_files(&d, &x);
  test_refused_with_open_batch(&d, &x);
  test_hostile_numbers(&d, &x);
  test_hostile_scale(&d, &x);
  test_hostile_logits(&d, &x);
  test_mismatch(&d, &x);
  test_mismatch_base(&x);
  test_seek(&d, &x);
  test_far(&d, &x);
  layers[1].memory = LONGCTX_MEMORY_DELTA;             /* and with memory in one layer           */
  x.d = junk.d = d;
  test_equal_chunks(&d, &x);
  test_reset(&d, &x);
  test_hostile(&d, &x);
  test_hostile_noise(&d, &x);
  test_cut_files(&d, &x);
  test_flipped_files(&d, &x);
  test_noise_files(&d, &x);
  test_hostile_memory(&d, &x);
  test_hostile_numbers(&d, &x);
  test_mismatch_memory(&d, &x);
  test_refused_late(&d, &x);
  for (l = 0; l < 2; l++) {                            /* and with feedback, without and with it */
    d.feedback_len = 2;
    layers[1].feedback = 1;
    layers[1].memory = l ? LONGCTX_MEMORY_LINEAR : LONGCTX_MEMORY_NONE;
    x.d = junk.d = d;
    test_equal_chunks(&d, &x);
    test_equal_threads(&d, &x);
    test_reset(&d, &x);
    test_hostile(&d, &x);
    test_hostile_noise(&d, &x);
    test_cut_files(&d, &x);
    test_flipped_files(&d, &x);
    test_noise_files(&d, &x);
    test_mismatch_feedback(&d, &x);
  }
  text_free(&x);
  text_free(&junk);
  return t_done();
}
