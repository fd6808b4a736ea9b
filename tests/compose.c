/* compose.c: everything composes, in the same bits.

   A cell is one kind of context: sinks, window, stored types, positions, heads. A schedule is one
   way to feed it: in which chunks, with rejected drafts or without, saved and loaded or copied on
   the way, in how many parts, on which instruction set. Every schedule of a cell must give the
   bytes that one token at a time gives. The program walks all 8,192 cells, draws a schedule
   for each, checks that every pair (value of a cell, value of a schedule) was met, and prints the
   table of what was met. */
#include "text.h"

enum { TOKENS = 300, LONGEST = 1400 };

/* ---- cells ----------------------------------------------------------------------------------- */

typedef struct axis { const char *title; int n; const char *names[6]; } axis;

enum { SINKS, BLOCK, TYPE_K, TYPE_V, ROPE, RATIO, POSITIONS, LOGITS, MEMORY, FEEDBACK, N_AXES };

static const axis cell_axes[N_AXES] = {
  { "sinks", 4, { "0", "1", "4", "100" } },
  { "window", 2, { "sliding", "in blocks" } },
  { "keys", 4, { "float32", "float16", "bfloat16", "int8" } },
  { "values", 4, { "float32", "float16", "bfloat16", "int8" } },
  { "rotation", 4, { "half-split RoPE", "interleaved RoPE", "none", "ALiBi" } },
  { "query heads per KV head", 4, { "1", "3", "4", "8" } },
  { "positions", 2, { "in the cache", "in the text" } },
  { "sink logits", 2, { "off", "on" } },
  { "memory", 4, { "none", "linear", "delta", "linear, read by another layer" } },
  { "feedback", 3, { "none", "5 rows", "16 rows" } },
};

typedef struct cell { int at[N_AXES]; int dim, dim_v, kv, window, tokens; int64_t start; } cell;

static cell cell_of(int index)
{
  static const int dims[] = { 16, 8, 32, 24 };
  cell c;
  int a, i = index;
  for (a = 0; a < MEMORY; a++) {
    c.at[a] = i % cell_axes[a].n;
    i /= cell_axes[a].n;
  }
  c.at[MEMORY] = c.at[BLOCK] ? index / 8 * 5 % 19 % 4 : 0;       /* it needs a block             */
  c.at[FEEDBACK] = c.at[BLOCK] ? index / 8 * 3 % 13 % 3 : 0;
  c.dim = dims[index % 7 % 4];
  c.dim_v = index % 5 == 4 ? 12 : c.dim;
  c.kv = 1 + index % 3 % 2;
  c.window = index % 11 == 10 ? 16 : 64;
  c.tokens = TOKENS;
  c.start = index % 3 == 1 ? 384 : 0;                  /* then the text crosses position 512     */
  return c;
}

static int count_cells(void)
{
  int n = 1, a;
  for (a = 0; a < MEMORY; a++) n *= cell_axes[a].n;
  return n;
}

static longctx_desc cell_desc(const cell *c)
{
  static const int sinks[] = { 0, 1, 4, 100 }, ratios[] = { 1, 3, 4, 8 };
  static const int ropes[] = { LONGCTX_ROPE_HALF, LONGCTX_ROPE_INTERLEAVED, LONGCTX_ROPE_NONE,
                               LONGCTX_ROPE_NONE };
  int kv = c->kv;
  static const int rules[] = { LONGCTX_MEMORY_NONE, LONGCTX_MEMORY_LINEAR, LONGCTX_MEMORY_DELTA,
                               LONGCTX_MEMORY_LINEAR };
  static const int rows[] = { 0, 5, 16 };
  static longctx_layer layers[2];
  longctx_desc d = longctx_desc_make(1, kv * ratios[c->at[RATIO]], kv, c->dim, c->window);
  d.head_dim_v = c->dim_v;
  d.sinks = sinks[c->at[SINKS]];
  d.block = c->at[BLOCK] ? 16 : 1;
  d.type_k = c->at[TYPE_K];
  d.type_v = c->at[TYPE_V];
  d.rope = ropes[c->at[ROPE]];
  if (c->at[ROPE] == 3) d.alibi_max_bias = 8.0f;
  d.positions = c->at[POSITIONS] ? LONGCTX_POS_TEXT : LONGCTX_POS_CACHE;
  d.memory = rules[c->at[MEMORY]];
  d.feedback_len = rows[c->at[FEEDBACK]];
  d.feedback_dim = d.feedback_len ? 3 : 0;
  if (c->at[MEMORY] != 3) return d;
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[1].kv_from = 0;
  d.n_layers = 2;
  d.layers = layers;
  return d;
}

/* ---- schedules ------------------------------------------------------------------------------- */

enum { CHUNK, DRAFTS, BREAK, PARTS, ISA, N_WAYS };
enum { NO_BREAK, SAVE_LOAD, COPY };
enum { RANDOM_CHUNKS = 4, WHOLE = 5 };

static const axis ways[N_WAYS] = {
  { "chunks", 6, { "1", "7", "16", "64", "random", "whole" } },
  { "drafts", 2, { "none", "rejected in between" } },
  { "break", 3, { "none", "save, load", "copy" } },
  { "parts", 5, { "1", "2", "3", "8", "64" } },
  { "isa", 0, { NULL } },
};

typedef struct schedule { int at[N_WAYS]; int isa; } schedule;

static const int part_counts[] = { 1, 2, 3, 8, 64 };

static int chunk_limit(const schedule *s, int tokens)
{
  static const int sizes[] = { 1, 7, 16, 64, 37 };
  return s->at[CHUNK] == WHOLE ? tokens : sizes[s->at[CHUNK]];
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct runner {
  longctx *lc;
  longctx_desc d;
  const text *x;
  const schedule *s;
  const float *junk;                 /* rows that are never kept                                 */
  float *out, *spare;
  uint64_t seed;
  int breaks;
} runner;

static int attend_layer(runner *r, int layer, int n, const float *q, const float *k,
                        const float *v, float *out)
{
  int n_parts = part_counts[r->s->at[PARTS]], p, step, result = LONGCTX_OK;
  if (n_parts == 1) return longctx_attend(r->lc, layer, n, q, k, v, out);
  step = n_parts == 8 ? 3 : n_parts == 64 ? 37 : 1;    /* parts out of order                     */
  for (p = 0; p < n_parts && result == LONGCTX_OK; p++)
    result = longctx_attend_part(r->lc, layer, n, q, k, v, out, (p * step + 1) % n_parts, n_parts);
  return result == LONGCTX_OK ? longctx_attend_join(r->lc, layer, n, out) : result;
}

/* The layer that writes; then, if there is one, the layer that reads it, whose rows count. */
static int attend_rows(runner *r, int n, const float *q, const float *k, const float *v, float *out)
{
  int result = attend_layer(r, 0, n, q, k, v, out);
  if (result != LONGCTX_OK || r->d.n_layers == 1) return result;
  return attend_layer(r, 1, n, q, NULL, NULL, out);
}

/* A batch of junk, dropped; then the right rows with junk behind them, which commit drops. */
static int draft(runner *r, int at, int n, int extra)
{
  const text *x = r->x;
  size_t wide = (size_t)(n + extra), good = (size_t)n;
  float *q = r->spare, *k = q + wide * x->q_row, *v = k + wide * x->k_row;
  float *out = v + wide * x->v_row;
  int result;
  if (t_below(&r->seed, 2)) {
    result = longctx_attend(r->lc, 0, n + extra, r->junk, r->junk, r->junk, out);
    if (result != LONGCTX_OK) return result;
    if (t_below(&r->seed, 2)) result = longctx_commit(r->lc, 0);
    if (result != LONGCTX_OK) return result;
  }
  memcpy(q, r->junk, sizeof(float) * wide * x->q_row);
  memcpy(k, r->junk, sizeof(float) * wide * x->k_row);
  memcpy(v, r->junk, sizeof(float) * wide * x->v_row);
  memcpy(q, text_q(x, 0, at), sizeof(float) * good * x->q_row);
  memcpy(k, text_k(x, 0, at), sizeof(float) * good * x->k_row);
  memcpy(v, text_v(x, 0, at), sizeof(float) * good * x->v_row);
  result = attend_rows(r, n + extra, q, k, v, out);
  memcpy(r->out + (size_t)at * x->out_row, out, sizeof(float) * good * x->out_row);
  return result;
}

static FILE *scratch_file(void)
{
  static FILE *file;
  if (file == NULL) file = tmpfile();
  if (file == NULL) { printf("no temporary file\n"); exit(1); }
  rewind(file);
  return file;
}

/* The context goes through a file, or into another block, and back to work. */
static int take_break(runner *r)
{
  size_t bytes = longctx_size(&r->d);
  void *mem = t_memory(bytes);
  longctx *next = (longctx *)mem;
  int result = LONGCTX_OK, kind = r->s->at[BREAK], odd = r->breaks++ & 1;
  if (kind == SAVE_LOAD) {
    FILE *file = scratch_file();
    result = longctx_save(r->lc, file);
    rewind(file);
    if (odd) {                                         /* every other time into a live context   */
      next = longctx_init(mem, bytes, &r->d);
      if (result == LONGCTX_OK) result = longctx_restore(next, file);
    } else {
      next = longctx_load(mem, bytes, file, &result);
    }
  } else if (odd) {
    memcpy(mem, r->lc, bytes);
    next = longctx_open(mem, bytes, &result);
  } else {
    result = longctx_copy(mem, bytes, r->lc);
  }
  free(r->lc);
  r->lc = next;
  if (next == NULL) free(mem);
  if (result == LONGCTX_OK) result = longctx_set_isa(r->lc, r->s->isa);
  return result;
}

/* Rows that are due: as they come out before and after they are set, behind the tokens' outputs. A
   break between the layers, or between two calls, changes nothing. */
static int meet(runner *r, int at, int tokens)
{
  size_t f = (size_t)r->d.feedback_len;
  float *out = r->out + ((size_t)tokens + (size_t)at / 16 * 2 * f) * r->x->out_row;
  float *rows, *q, *k, *v;
  uint64_t seed = (uint64_t)at;
  size_t i;
  int result = LONGCTX_OK;
  if (!longctx_feedback_due(r->lc)) return LONGCTX_OK;
  q = t_normals(f * r->x->q_row, seed);
  k = t_normals(f * r->x->k_row, seed + 1);
  v = t_normals(f * r->x->v_row, seed + 2);
  if (at > 0) result = longctx_feedback_attend(r->lc, 0, out);
  if (result == LONGCTX_OK && r->s->at[BREAK]) result = take_break(r);
  rows = longctx_feedback(r->lc, 0);
  for (i = 0; i < 3 * f; i++) rows[i] = q[i];
  if (result == LONGCTX_OK) result = longctx_feedback_set(r->lc, 0, q, k, v);
  if (result == LONGCTX_OK && r->s->at[BREAK]) result = take_break(r);
  if (result == LONGCTX_OK)
    result = longctx_feedback_attend(r->lc, 0, out + f * r->x->out_row);
  free(q), free(k), free(v);
  return result;
}

static int run_chunk(runner *r, int at, int n, int extra)
{
  const text *x = r->x;
  int result;
  if (extra)
    result = draft(r, at, n, extra);
  else
    result = attend_rows(r, n, text_q(x, 0, at), text_k(x, 0, at), text_v(x, 0, at),
                         r->out + (size_t)at * x->out_row);
  return result == LONGCTX_OK ? longctx_commit(r->lc, n) : result;
}

/* The whole text by the schedule; the code of the first call that was refused, or LONGCTX_OK. */
static int run_schedule(runner *r, const cell *c)
{
  int limit = chunk_limit(r->s, c->tokens), extra = r->s->at[DRAFTS] ? 3 : 0;
  static const float logits[16] = { 0.5f, -1.0f, 2.0f, 0.0f, 1.0f, -3.0f, 0.1f, 0.7f };
  int at = 0, next_break = 37, result, l;
  r->d.max_batch = limit + extra;
  r->d.max_threads = part_counts[r->s->at[PARTS]];
  r->lc = t_new(&r->d);
  result = longctx_seek(r->lc, c->start);
  if (c->at[LOGITS]) result |= longctx_set_sink_logits(r->lc, 0, logits);
  for (l = 0; l < r->d.n_layers && c->at[MEMORY]; l++)
    result |= longctx_set_gate(r->lc, l, logits);
  if (result == LONGCTX_OK) result = longctx_set_isa(r->lc, r->s->isa);
  while (at < c->tokens && result == LONGCTX_OK) {
    int n;
    result = meet(r, at, c->tokens);
    n = r->s->at[CHUNK] == RANDOM_CHUNKS ? 1 + t_below(&r->seed, limit) : limit;
    if (n > c->tokens - at) n = c->tokens - at;
    if (n > longctx_room(r->lc)) n = longctx_room(r->lc);          /* with memory: a block's end */
    result = run_chunk(r, at, n, longctx_room(r->lc) < n + extra ? longctx_room(r->lc) - n : extra);
    at += n;
    if (result == LONGCTX_OK && r->s->at[BREAK] && at >= next_break) {
      result = take_break(r);
      next_break = at + 61;
    }
  }
  free(r->lc);
  return result;
}

/* ---- counting -------------------------------------------------------------------------------- */

enum { PREFILL, THREADS, ISAS, ROLLBACK, SAVED, COPIED, N_COLUMNS };

static const char *const columns[N_COLUMNS] = {
  "decode = prefill", "1 to 64 parts", "instruction sets", "rollback", "save and load", "copy"
};

static long met[N_AXES][6][N_COLUMNS], differ[N_AXES][6][N_COLUMNS];
static long pairs[N_AXES][6][N_WAYS][8];

static void count(const cell *c, const schedule *s, int isa_index, int same)
{
  int in[N_COLUMNS], a, w;
  in[PREFILL] = s->at[CHUNK] != 0;
  in[THREADS] = s->at[PARTS] != 0;
  in[ISAS] = isa_index != 0;
  in[ROLLBACK] = s->at[DRAFTS];
  in[SAVED] = s->at[BREAK] == SAVE_LOAD;
  in[COPIED] = s->at[BREAK] == COPY;
  for (a = 0; a < N_AXES; a++) {
    for (w = 0; w < N_COLUMNS; w++) {
      met[a][c->at[a]][w] += in[w];
      if (!same) differ[a][c->at[a]][w] += in[w];
    }
    for (w = 0; w < N_WAYS; w++) pairs[a][c->at[a]][w][s->at[w]]++;
  }
}

/* ---- classes of instruction sets ------------------------------------------------------------- */

typedef struct family { const char *name; int n; int isa[8]; } family;

static int fused(const char *name)
{
  return strcmp(name, "scalar") != 0 && strcmp(name, "sse2") != 0 && strcmp(name, "wasm") != 0;
}

static void find_families(family *with, family *without)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 2, 1);
  longctx *lc = t_new(&d);
  int isa;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    family *f = fused(longctx_isa_name(isa)) ? with : without;
    if (longctx_set_isa(lc, isa) == LONGCTX_OK && f->n < 8) f->isa[f->n++] = isa;
  }
  free(lc);
}

/* ---- the walk -------------------------------------------------------------------------------- */

static void describe(const cell *c, const schedule *s)
{
  const char *n[N_AXES], *w[N_WAYS];
  int a;
  for (a = 0; a < N_AXES; a++) n[a] = cell_axes[a].names[c->at[a]];
  for (a = 0; a < ISA; a++) w[a] = ways[a].names[s->at[a]];
  t_case("sinks %s, %s window %d, %s/%s, %s, %s to one, %s, logits %s, memory %s, "
         "feedback %s, dim %d | "
         "chunks %s, drafts %s, break %s, parts %s, %s", n[SINKS], n[BLOCK], c->window, n[TYPE_K],
         n[TYPE_V], n[ROPE], n[RATIO], n[POSITIONS], n[LOGITS], n[MEMORY], n[FEEDBACK], c->dim,
         w[CHUNK], w[DRAFTS], w[BREAK], w[PARTS], longctx_isa_name(s->isa));
}

/* The k-th schedule of the walk: drawn, so that it follows no rhythm of the cells. */
static schedule schedule_of(long k, const family *f)
{
  uint64_t seed = (uint64_t)k;
  schedule s;
  int w;
  for (w = 0; w < ISA; w++) s.at[w] = t_below(&seed, ways[w].n);
  s.at[ISA] = t_below(&seed, f->n);
  s.isa = f->isa[s.at[ISA]];
  return s;
}

typedef struct walk { const family *f; long next; float *junk, *spare; long compared; } walk;

static runner runner_of(const text *x, const schedule *s, const walk *w, float *out)
{
  runner r;
  memset(&r, 0, sizeof r);
  r.d = x->d;
  r.x = x;
  r.s = s;
  r.junk = w->junk;
  r.spare = w->spare;
  r.out = out;
  r.seed = (uint64_t)w->next;
  return r;
}

static void try_cell(walk *w, const cell *c, int turns)
{
  longctx_desc d = cell_desc(c);
  schedule s;
  text x = text_make(&d, c->tokens, 1000);
  size_t rows = (size_t)(c->tokens + (c->tokens / 16 + 1) * 2 * d.feedback_len);
  size_t bytes = sizeof(float) * rows * x.out_row;
  float *want = t_floats(rows * x.out_row), *got = t_floats(rows * x.out_row);
  runner r;
  memset(&s, 0, sizeof s);
  s.isa = w->f->isa[0];
  describe(c, &s);
  r = runner_of(&x, &s, w, want);
  CHECK_EQ(run_schedule(&r, c), LONGCTX_OK);
  while (turns--) {
    int same;
    s = schedule_of(w->next++, w->f);
    describe(c, &s);
    memset(got, 0xff, bytes);
    memset(got + (size_t)c->tokens * x.out_row, 0,
           sizeof(float) * (rows - (size_t)c->tokens) * x.out_row);
    r = runner_of(&x, &s, w, got);
    same = CHECK_EQ(run_schedule(&r, c), LONGCTX_OK) && CHECK_SAME(want, got, bytes);
    count(c, &s, s.at[ISA], same);
    w->compared++;
  }
  free(want);
  free(got);
  text_free(&x);
}

/* Windows of several segments, and a long prompt kept for ever: fewer cells, longer texts. */
static void walk_long(walk *w, int cells, int step)
{
  int i;
  for (i = 0; i < cells; i += step) {
    cell c = cell_of(i);
    c.tokens = LONGEST;
    c.window = 1040;
    c.dim = c.dim_v = 8;
    c.kv = 1;
    try_cell(w, &c, 2);
  }
}

static void walk_cells(const family *f, int step, int turns)
{
  int n = count_cells(), i;
  walk w;
  memset(&w, 0, sizeof w);
  w.f = f;
  w.junk = t_normals((size_t)(LONGEST + 3) * 16 * 32, 4);
  w.spare = t_floats((size_t)(LONGEST + 3) * 16 * 32 * 4);
  for (i = 0; i < n; i += step) {
    cell c = cell_of(i);
    try_cell(&w, &c, turns);
  }
  walk_long(&w, n, 131 * step);
  printf("%s: %ld comparisons\n", f->name, w.compared);
  free(w.junk);
  free(w.spare);
}

/* ---- the table ------------------------------------------------------------------------------- */

static void print_table(void)
{
  int a, v, c;
  printf("\n| |");
  for (c = 0; c < N_COLUMNS; c++) printf(" %s |", columns[c]);
  printf("\n|---|");
  for (c = 0; c < N_COLUMNS; c++) printf("---|");
  printf("\n");
  for (a = 0; a < N_AXES; a++)
    for (v = 0; v < cell_axes[a].n; v++) {
      printf("| %s: %s |", cell_axes[a].title, cell_axes[a].names[v]);
      for (c = 0; c < N_COLUMNS; c++) {
        if (met[a][v][c] == 0) printf(" not tried |");
        else if (differ[a][v][c]) printf(" %ld of %ld differ |", differ[a][v][c], met[a][v][c]);
        else printf(" \xe2\x9c\x93 %ld |", met[a][v][c]);
      }
      printf("\n");
    }
  printf("\n");
}

static void check_pairs(const family *f)
{
  int a, v, w, u;
  for (a = 0; a < N_AXES; a++)
    for (v = 0; v < cell_axes[a].n; v++)
      for (w = 0; w < N_WAYS; w++)
        for (u = 0; u < (w == ISA ? f->n : ways[w].n); u++) {
          t_case("pair %s %s, %s %d", cell_axes[a].title, cell_axes[a].names[v], ways[w].title, u);
          CHECK(pairs[a][v][w][u] > 0);
        }
}

static void print_family(const family *f)
{
  int i;
  printf("%s:", f->name);
  for (i = 0; i < f->n; i++) printf(" %s", longctx_isa_name(f->isa[i]));
  printf("%s\n", f->n ? "" : " none on this machine");
}

int main(int argc, char **argv)
{
  int step = argc > 1 ? atoi(argv[1]) : 1, turns = argc > 2 ? atoi(argv[2]) : 1;
  family with = { "with fused multiply-add", 0, { 0 } };
  family without = { "without fused multiply-add", 0, { 0 } };
  find_families(&with, &without);
  print_family(&with);
  print_family(&without);
  if (with.n == 0) with = without, without.n = 0;      /* then the other class is the table      */
  walk_cells(&with, step, turns);
  check_pairs(&with);
  print_table();
  memset(met, 0, sizeof met);
  if (without.n) walk_cells(&without, 13 * step, 1);
  return t_done();
}
