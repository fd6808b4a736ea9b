/* feedback.c: feedback rows, against one masked softmax in double, and the paper's laws.

   First the operator: rows and tokens of random numbers, every kind of context, against an oracle
   that lists what a query sees, seats every key where it stands and takes one softmax. Then the
   loop: a small model whose tail (output projection, residual, FFN) is this file's, in double, run
   once through the library and once without it, and the laws that TransformerFAM (arXiv 2404.09173)
   implies.                                                                                      */
#include "oracle.h"
#include "text.h"
#include "feedback_golden.h"

static const float some_logits[16] = { 0.5f, -1.0f, 2.0f, 0.0f, 1.0f, -3.0f, 0.1f, 0.7f,
                                       0.5f, -1.0f, 2.0f, 0.0f, 1.0f, -3.0f, 0.1f, 0.7f };

/* ---- a text with rows ------------------------------------------------------------------------ */

typedef struct world {
  text x;                            /* the tokens                                               */
  text rows;                         /* update u's rows in its tokens u*F .. u*F + F-1           */
  int64_t start;
  int f, block, updates;
  float *out;                        /* of tokens, [layer][token]                                */
  float *before, *after;             /* of rows as they attend before and after each set         */
} world;

static world world_make(const longctx_desc *d, int tokens, int64_t start, uint64_t seed)
{
  world w;
  w.f = d->feedback_len;
  w.block = d->layers ? d->layers[0].block : d->block;
  w.updates = tokens / w.block + 1;
  w.x = text_make(d, tokens, seed);
  w.rows = text_make(d, w.updates * w.f, seed + 50);
  w.start = start;
  w.out = text_out(&w.x);
  w.before = text_out(&w.rows);
  w.after = text_out(&w.rows);
  return w;
}

static void world_free(world *w)
{
  text_free(&w->x);
  text_free(&w->rows);
  free(w->out);
  free(w->before);
  free(w->after);
}

static int has_rows(const longctx_desc *d, int l)
{
  return d->layers == NULL || (d->layers[l].feedback && d->layers[l].kv_from < 0);
}

static int waits(const longctx *lc, const longctx_desc *d, int l)
{
  return has_rows(d, l) && !lcx_live_of(lc, l)->fed_set;
}

/* What a caller does when rows are due: attend, set, attend, layer by layer. */
static void meet_layer(longctx *lc, world *w, int l)
{
  int u = (int)((longctx_position(lc) - w->start) / w->block), i;
  size_t at = text_at(&w->rows, l, u * w->f);
  float *rows = longctx_feedback(lc, l);
  if (u > 0) CHECK_EQ(longctx_feedback_attend(lc, l, w->before + at * w->rows.out_row), LONGCTX_OK);
  CHECK(rows != NULL);
  for (i = 0; i < w->f; i++) rows[i] = w->rows.q[at * w->rows.q_row + (size_t)i];
  CHECK_EQ(longctx_feedback_set(lc, l, w->rows.q + at * w->rows.q_row,
                                w->rows.k + at * w->rows.k_row, w->rows.v + at * w->rows.v_row),
           LONGCTX_OK);
  CHECK_EQ(longctx_feedback_attend(lc, l, w->after + at * w->rows.out_row), LONGCTX_OK);
}

static void meet(longctx *lc, world *w)
{
  int l, n = w->x.layers, turn = (int)(longctx_position(lc) / w->block) & 1;
  for (l = 0; l < n; l++)
    if (waits(lc, &w->x.d, turn ? n - 1 - l : l)) meet_layer(lc, w, turn ? n - 1 - l : l);
  CHECK_EQ(longctx_feedback_due(lc), 0);
}

/* Tokens from..to-1 in chunks (0: of random length), rows whenever they are due. */
static void feed(longctx *lc, world *w, int from, int to, int chunk)
{
  uint64_t seed = (uint64_t)(from + 7 * to + chunk);
  while (from < to) {
    int room, n;
    if (longctx_feedback_due(lc)) meet(lc, w);
    room = longctx_room(lc);
    n = chunk ? chunk : 1 + t_below(&seed, room);
    if (n > room) n = room;
    if (n > to - from) n = to - from;
    text_step(lc, &w->x, from, n, w->out);
    if (longctx_commit(lc, n) != LONGCTX_OK) FAIL("commit refused");
    from += n;
  }
  if (to == w->x.tokens && longctx_feedback_due(lc)) meet(lc, w);
}

static longctx *new_at(const longctx_desc *d, int64_t start, const float *logits)
{
  longctx *lc = t_new(d);
  int l;
  CHECK_EQ(longctx_seek(lc, start), LONGCTX_OK);
  for (l = 0; logits && l < d->n_layers; l++)
    CHECK_EQ(longctx_set_sink_logits(lc, l, logits), LONGCTX_OK);
  for (l = 0; l < d->n_layers; l++)
    if (d->layers ? d->layers[l].memory : d->memory)
      CHECK_EQ(longctx_set_gate(lc, l, some_logits), LONGCTX_OK);
  return lc;
}

static void same_worlds(const world *a, const world *b)
{
  CHECK_SAME(a->out, b->out, sizeof(float) * text_out_floats(&a->x));
  CHECK_SAME(a->before, b->before, sizeof(float) * text_out_floats(&a->rows));
  CHECK_SAME(a->after, b->after, sizeof(float) * text_out_floats(&a->rows));
}

/* ---- the oracle ------------------------------------------------------------------------------ */

/* One key that a query sees: where it stands, how far that is, what it brings. */
typedef struct seen { double *k, *v, stand, far; } seen;

static void seat(const oracle *o, const double *x, double pos, double *y)
{
  int pairs = o->rope_dims / 2, p;
  memcpy(y, x, sizeof(double) * (size_t)o->dim);
  if (o->rope == LONGCTX_ROPE_NONE) return;
  for (p = 0; p < pairs; p++) {
    int a = o->rope == LONGCTX_ROPE_HALF ? p : 2 * p;
    int b = o->rope == LONGCTX_ROPE_HALF ? p + pairs : 2 * p + 1;
    double c, s;
    oracle_angle(pos, oracle_freq(o, p), &c, &s);
    y[a] = o->mscale * (x[a] * c - x[b] * s);
    y[b] = o->mscale * (x[b] * c + x[a] * s);
  }
}

/* Softmax of one head over n keys; q stands at `stand`. */
static void attention(const oracle *o, int h, const double *q, double stand, const seen *s, int n,
                      double *out)
{
  double *score = (double *)malloc(sizeof(double) * (size_t)(n + 1)), top = -INFINITY, sum = 0.0;
  double turned[600], key[600];
  int i, d;
  seat(o, q + h * o->dim, stand, turned);
  for (i = 0; i < n; i++) {
    seat(o, s[i].k, s[i].stand, key);
    score[i] = oracle_score(o, turned, key) - oracle_slope(o, h) * s[i].far;
    top = fmax(top, score[i]);
  }
  if (o->logits) sum = exp((double)o->logits[h] - top);
  for (i = 0; i < n; i++) sum += exp(score[i] - top);
  for (d = 0; d < o->dim_v; d++) out[d] = 0.0;
  for (i = 0; i < n; i++)
    for (d = 0; d < o->dim_v; d++) out[d] += exp(score[i] - top) / sum * s[i].v[d];
  free(score);
}

/* Rows as their store gives them back: oracle `r` holds update u's at u*F.., as if tokens. */
static oracle rows_make(const world *w, int layer, int type_k, int type_v)
{
  oracle r = oracle_make(&w->x.d, layer);
  double *turned = (double *)malloc(sizeof(double) * 600);
  int u, i, g, p;
  r.sinks = 0;
  oracle_push(&r, w->rows.tokens, text_k(&w->rows, layer, 0), text_v(&w->rows, layer, 0));
  for (u = 0; u < w->updates; u++)
    for (i = 0; i < w->f; i++)
      for (g = 0; g < r.kv_heads; g++) {
        size_t row = (size_t)(u * w->f + i) * (size_t)r.kv_heads + (size_t)g;
        double *k = r.k + row * (size_t)r.dim, pos = (double)(w->start + u * w->block - w->f + i);
        oracle_store(r.v + row * (size_t)r.dim_v, r.dim_v, type_v);
        if (type_k == LONGCTX_F32) continue;
        seat(&r, k, pos, turned);
        oracle_store(turned, r.dim, type_k);
        for (p = 0; p < r.dim; p++) k[p] = turned[p];
        if (r.rope == LONGCTX_ROPE_NONE) continue;
        seat(&r, turned, -pos, k);                     /* what turns back, divided by both gains */
        for (p = 0; p < r.rope_dims; p++) k[p] /= r.mscale * r.mscale;
      }
  free(turned);
  return r;
}

static int list_rows(const world *w, const oracle *r, int u, int g, double base, double stand,
                     seen *s)
{
  int i;
  for (i = 0; i < w->f; i++) {
    size_t row = (size_t)(u * w->f + i) * (size_t)r->kv_heads + (size_t)g;
    s[i].k = r->k + row * (size_t)r->dim;
    s[i].v = r->v + row * (size_t)r->dim_v;
    s[i].stand = base - w->f + i;
    s[i].far = fabs(stand - s[i].stand);
  }
  return w->f;
}

static void set_seen(const oracle *o, int t, int g, double stand, double far, seen *s)
{
  size_t row = (size_t)t * (size_t)o->kv_heads + (size_t)g;
  s->k = o->k + row * (size_t)o->dim;
  s->v = o->v + row * (size_t)o->dim_v;
  s->stand = stand;
  s->far = fabs(far);
}

static double *doubles(const float *x, int n)          /* free() it                              */
{
  double *y = (double *)malloc(sizeof(double) * (size_t)n);
  if (y == NULL) { printf("out of memory\n"); exit(1); }
  while (n--) y[n] = (double)x[n];
  return y;
}

static double off_by(const float *got, const double *want, int n)
{
  double worst = 0.0;
  int i;
  for (i = 0; i < n; i++) {
    double off = fabs((double)got[i] - want[i]) / fmax(1.0, fabs(want[i]));
    worst = t_worse(worst, off);
  }
  return worst;
}

/* Token t of a layer: [sinks ; rows ; window], the paper's mask. */
static double compare_token(const world *w, const oracle *o, const oracle *r, int layer, int t,
                            seen *s)
{
  int in_cache = o->positions == LONGCTX_POS_CACHE, h, n, c, seen_tokens = 0;
  const float *out = w->out + text_at(&w->x, layer, t) * w->x.out_row;
  double want[600], worst = 0.0, me, shift;
  double *q = doubles(text_q(&w->x, layer, t), o->heads * o->dim);
  for (c = 0; c <= t; c++) seen_tokens += oracle_sees(o, t, c);
  me = in_cache ? seen_tokens - 1 : (double)(w->start + t);
  shift = me - (double)(w->start + t);                 /* from places in the text to the query's */
  for (h = 0; h < o->heads; h++) {
    int g = h / (o->heads / o->kv_heads), index = 0;
    double off;
    n = r ? list_rows(w, r, t / w->block, g,
                      (double)(w->start + t / w->block * w->block) + shift, me, s) : 0;
    for (c = 0; c <= t; c++)
      if (oracle_sees(o, t, c)) {
        double stand = in_cache ? index++ : (double)(w->start + c);
        set_seen(o, c, g, stand, me - stand, s + n++);
      }
    attention(o, h, q, me, s, n, want);
    off = off_by(out + h * o->dim_v, want, o->dim_v);
    worst = t_worse(worst, off);
  }
  free(q);
  return worst;
}

/* Row i of update u, before (over itself and its block) and after (over update u+1's alone). */
static double compare_row(const world *w, const oracle *o, const oracle *r, int layer, int u, int i,
                          int tokens, const float *all, seen *s)
{
  double *q = doubles(text_q(&w->rows, layer, u * w->f + i), o->heads * o->dim);
  const float *out = all + text_at(&w->rows, layer, (u + (tokens > 0)) * w->f + i)
                           * w->rows.out_row;
  double want[600], worst = 0.0, base = (double)(w->start + u * w->block), me = base - w->f + i;
  int h, n, c;
  for (h = 0; h < o->heads; h++) {
    int g = h / (o->heads / o->kv_heads);
    double off;
    n = list_rows(w, r, u, g, base, me, s);
    for (c = u * w->block; c < u * w->block + tokens; c++)
      if (c >= o->sinks) {
        double stand = (double)(w->start + c);
        set_seen(o, c, g, stand, me - stand, s + n++);
      }
    attention(o, h, q, me, s, n, want);
    off = off_by(out + h * o->dim_v, want, o->dim_v);
    worst = t_worse(worst, off);
  }
  free(q);
  return worst;
}

/* The largest difference of a layer's outputs, of tokens and rows, to the oracle's. */
static double compare(const world *w, int layer, const float *logits, int type_k, int type_v)
{
  const longctx_desc *d = &w->x.d;
  int source = d->layers && d->layers[layer].kv_from >= 0 ? d->layers[layer].kv_from : layer;
  int fed = d->layers == NULL || d->layers[layer].feedback, t, u, i;
  oracle o = oracle_make(d, layer), r = rows_make(w, source, type_k, type_v);
  seen *s = (seen *)malloc(sizeof(seen) * (size_t)(w->x.tokens + w->f + 1));
  double worst = 0.0;
  o.start = w->start;
  o.logits = r.logits = logits;
  o.type_k = type_k;
  o.type_v = type_v;
  oracle_push(&o, w->x.tokens, text_k(&w->x, source, 0), text_v(&w->x, source, 0));
  for (t = 0; t < w->x.tokens; t++)
    worst = t_worse(worst, compare_token(w, &o, fed ? &r : NULL, layer, t, s));
  for (u = 0; fed && source == layer && u < w->updates; u++)
    for (i = 0; i < w->f; i++) {
      worst = t_worse(worst, compare_row(w, &o, &r, layer, u, i, 0, w->after, s));
      if (u + 1 < w->updates)
        worst = t_worse(worst, compare_row(w, &o, &r, layer, u, i, w->block, w->before, s));
    }
  free(s);
  oracle_free(&o);
  oracle_free(&r);
  return worst;
}

/* ---- against the oracle ---------------------------------------------------------------------- */

typedef struct shape {
  int heads, kv, dim, dim_v, window, block, f, sinks, rope, rope_dims, tokens;
  int64_t start;
  float softcap, alibi, mscale;
  int positions, logits;
} shape;

static const shape shapes[] = {
  { 4, 2, 16, 16, 32, 32, 8, 0, LONGCTX_ROPE_HALF, 0, 100, 0, 0, 0, 0, 0, 0 },
  { 4, 4, 8, 12, 24, 8, 8, 3, LONGCTX_ROPE_INTERLEAVED, 0, 60, 4096, 0, 0, 0, 1, 0 },
  { 6, 1, 24, 40, 20, 5, 3, 7, LONGCTX_ROPE_HALF, 10, 60, 35, 4.0f, 0, 1.25f, 0, 1 },
  { 3, 3, 7, 5, 6, 3, 1, 0, LONGCTX_ROPE_NONE, 0, 40, 0, 0, 8.0f, 0, 0, 1 },
  { 8, 2, 64, 64, 128, 64, 33, 4, LONGCTX_ROPE_HALF, 0, 200, 64, 0, 0, 0, 0, 0 },
  { 5, 1, 33, 70, 200, 100, 100, 110, LONGCTX_ROPE_INTERLEAVED, 32, 250, 0, 0, 0, 0.5f, 0, 1 },
  { 2, 2, 1, 1, 4, 2, 2, 1, LONGCTX_ROPE_NONE, 0, 30, 0, 0, 4.0f, 0, 1, 0 },
  { 6, 2, 12, 12, 60, 20, 16, 25, LONGCTX_ROPE_NONE, 0, 90, 40, 3.0f, 8.0f, 0, 0, 0 },
  { 1, 1, 4, 4, 600, 600, 520, 0, LONGCTX_ROPE_HALF, 0, 1210, (int64_t)600 << 30, 0, 0, 0, 0, 0 },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static longctx_desc desc_of(const shape *s)
{
  longctx_desc d = longctx_desc_make(1, s->heads, s->kv, s->dim, s->window);
  d.head_dim_v = s->dim_v;
  d.block = s->block;
  d.sinks = s->sinks;
  d.rope = s->rope;
  d.rope_dims = s->rope_dims;
  d.rope_mscale = s->mscale;
  d.softcap = s->softcap;
  d.alibi_max_bias = s->alibi;
  d.positions = s->positions;
  d.feedback_len = s->f;
  d.max_batch = 19;
  return d;
}

/* In every stored type; the oracle stores alike, so what is left is arithmetic. */
static void test_oracle(void)
{
  static const double room[4] = { 5e-6, 3e-3, 3e-2, 5e-2 };
  double worst[4] = { 0, 0, 0, 0 }, lost[4] = { 0, 0, 0, 0 };
  int i, type;
  for (i = 0; i < N_SHAPES; i++)
    for (type = 0; type < 4; type++) {
      longctx_desc d = desc_of(&shapes[i]);
      const float *logits = shapes[i].logits ? some_logits : NULL;
      world w;
      longctx *lc;
      double off, plain;
      d.type_k = d.type_v = type;
      w = world_make(&d, shapes[i].tokens, shapes[i].start, 40 + (uint64_t)i);
      lc = new_at(&d, shapes[i].start, logits);
      feed(lc, &w, 0, w.x.tokens, 0);
      off = compare(&w, 0, logits, type, type);
      plain = compare(&w, 0, logits, 0, 0);
      t_case("oracle: shape %d, %s", i, t_type_names[type]);
      CHECK_NEAR(off, 0.0, room[type]);
      worst[type] = t_worse(worst[type], off);
      lost[type] = fmax(lost[type], plain);
      free(lc);
      world_free(&w);
    }
  for (type = 0; type < 4; type++)
    printf("%s: largest error %.1e, to float32 keys and values %.1e\n", t_type_names[type],
           worst[type], lost[type]);
}

/* Layers that differ: with rows, without, one that reads another's, one that reads but not rows. */
static longctx_desc living(longctx_layer *layers, int memory)
{
  longctx_desc d = longctx_desc_make(5, 4, 2, 6, 12);
  int l;
  d.head_dim_v = 5;
  d.block = 6;
  d.sinks = 2;
  d.max_batch = 4;
  d.feedback_len = 3;
  d.feedback_dim = 7;
  d.memory = memory;
  for (l = 0; l < 5; l++) layers[l] = longctx_layer_make(&d);
  layers[1].feedback = 0;
  layers[2].window = 6;
  layers[3].window = 6;
  layers[3].kv_from = 0;
  layers[4].kv_from = 0;
  layers[4].feedback = 0;
  d.layers = layers;
  return d;
}

static void test_layers(void)
{
  longctx_layer layers[5];
  longctx_desc d = living(layers, 0), back;
  world w = world_make(&d, 40, 12, 12);
  longctx *lc = new_at(&d, 12, some_logits);
  int l;
  feed(lc, &w, 0, 40, 0);
  for (l = 0; l < 5; l++) {
    t_case("layers: layer %d", l);
    CHECK_NEAR(compare(&w, l, some_logits, 0, 0), 0.0, 5e-6);
    CHECK_EQ(longctx_feedback(lc, l) != NULL, l == 0 || l == 2);
  }
  back = longctx_get_desc(lc);
  CHECK_EQ(back.feedback_len, 3);
  CHECK_EQ(back.feedback_dim, 7);
  CHECK_EQ(back.layers[0].feedback, 1);
  CHECK_EQ(back.layers[1].feedback, 0);
  CHECK_EQ(back.layers[3].feedback, 1);
  CHECK(longctx_check(&back) == NULL);
  free(lc);
  world_free(&w);
}

/* Rows off: the block window, bit for bit; a block window that sees all: dense, bit for bit. */
static void test_off(void)
{
  int i, type;
  for (i = 0; i < N_SHAPES; i++)
    for (type = 0; type < 4; type++) {
      longctx_desc d = desc_of(&shapes[i]), plain, dense;
      longctx_layer layer;
      text x;
      float *a, *b, *c;
      longctx *one, *two;
      d.type_k = d.type_v = type;
      plain = d;
      plain.feedback_len = 0;
      layer = longctx_layer_make(&d);
      layer.feedback = 0;
      d.layers = &layer;                               /* rows in the desc, none in the layer    */
      x = text_make(&d, shapes[i].tokens, 50);
      a = text_out(&x), b = text_out(&x), c = text_out(&x);
      one = new_at(&d, shapes[i].start, NULL);
      two = new_at(&plain, shapes[i].start, NULL);
      t_case("off: shape %d, type %d", i, type);
      CHECK_EQ(longctx_feedback_due(one) + longctx_feedback_due(two), 0);
      text_run(one, &x, 0, x.tokens, 0, a);
      text_run(two, &x, 0, x.tokens, 7, b);
      CHECK_SAME(a, b, sizeof(float) * text_out_floats(&x));
      free(two);
      plain.window = (shapes[i].tokens / plain.block + 2) * plain.block;
      dense = plain;
      dense.block = 1;
      one = (free(one), new_at(&plain, shapes[i].start, NULL));
      two = new_at(&dense, shapes[i].start, NULL);
      text_run(one, &x, 0, x.tokens, 0, b);
      text_run(two, &x, 0, x.tokens, 0, c);
      CHECK_SAME(b, c, sizeof(float) * text_out_floats(&x));
      free(one), free(two), free(a), free(b), free(c);
      text_free(&x);
    }
}

/* ---- the same bits --------------------------------------------------------------------------- */

/* The whole text in chunks and parts, the last part first; NULL without the instruction set. */
static longctx *run_parts(const longctx_desc *d, world *w, int isa, int chunk)
{
  longctx *lc = new_at(d, w->start, some_logits);
  int t, n, p;
  if (longctx_set_isa(lc, isa) != LONGCTX_OK) { free(lc); return NULL; }
  for (t = 0; t < w->x.tokens; t += n) {
    float *row = w->out + (size_t)t * w->x.out_row;
    if (longctx_feedback_due(lc)) meet(lc, w);
    n = longctx_room(lc) < chunk ? longctx_room(lc) : chunk;
    if (n > w->x.tokens - t) n = w->x.tokens - t;
    for (p = d->max_threads; p-- > 0;)
      CHECK_EQ(longctx_attend_part(lc, 0, n, text_q(&w->x, 0, t), text_k(&w->x, 0, t),
                                   text_v(&w->x, 0, t), row, p, d->max_threads), LONGCTX_OK);
    CHECK_EQ(longctx_attend_join(lc, 0, n, row), LONGCTX_OK);
    if (t % 3 == 0)
      CHECK_EQ(longctx_attend(lc, 0, n, text_q(&w->x, 0, t), NULL, NULL, row), LONGCTX_OK);
    CHECK_EQ(longctx_commit(lc, n), LONGCTX_OK);
  }
  if (longctx_feedback_due(lc)) meet(lc, w);
  return lc;
}

static void test_class(int i, int fused)
{
  static const int counts[4] = { 1, 2, 3, 8 };
  const shape *s = &shapes[i];
  longctx_desc d = desc_of(s);
  longctx *first = NULL;
  world a, b;
  int isa, k;
  d.type_k = i % 4;
  d.type_v = i / 2 % 4;
  if (i % 2) d.memory = LONGCTX_MEMORY_LINEAR;
  a = world_make(&d, s->tokens, s->start, 80);
  b = world_make(&d, s->tokens, s->start, 80);
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    for (k = 0; k < 4 && t_is_fused(longctx_isa_name(isa)) == fused; k++) {
      longctx *lc;
      d.max_threads = counts[k];
      d.max_batch = k == 0 ? 19 : k == 1 ? 1 : 7 * k;
      t_case("class: shape %d, %s, %d parts", i, longctx_isa_name(isa), counts[k]);
      lc = run_parts(&d, first ? &b : &a, isa, k == 0 ? 1 : 6 * k);
      if (lc == NULL) break;
      if (first == NULL) { first = lc; continue; }
      same_worlds(&a, &b);
      if (k == 0) t_same_states(first, lc);            /* max_batch is part of a state           */
      free(lc);
    }
  free(first);
  world_free(&a);
  world_free(&b);
}

static void test_isas(void)
{
  int i, fused;
  for (i = 0; i < N_SHAPES; i++)
    for (fused = 0; fused < 2; fused++) test_class(i, fused);
}

/* ---- life ------------------------------------------------------------------------------------ */

static longctx *another(const longctx *lc, const longctx_desc *d, int way)
{
  size_t bytes = longctx_size(d), n;
  void *mem = t_memory(bytes);
  longctx *next = (longctx *)mem;
  unsigned char *state = t_state(lc, &n);
  FILE *file = t_file(state, n);
  int error = 99;
  if (way == 0) next = longctx_load(mem, bytes, file, &error);
  if (way == 1) CHECK_EQ(longctx_copy(mem, bytes, lc), LONGCTX_OK);
  if (way == 2) {
    memcpy(mem, (const void *)lc, bytes);
    next = longctx_open(mem, bytes, &error);
  }
  if (way == 3) {
    world w = world_make(d, 25, 0, 99);
    free(mem);
    mem = next = new_at(d, 0, NULL);
    feed(next, &w, 0, 25, 0);                          /* something else, to be overwritten      */
    CHECK_EQ(longctx_restore(next, file), LONGCTX_OK);
    world_free(&w);
  }
  fclose(file);
  free(state);
  if (!CHECK(next != NULL)) { printf("[%s]: %s\n", t_label, longctx_error(error)); exit(t_done()); }
  t_same_states(lc, next);
  return next;
}

/* From this moment on, every copy goes on alike. */
static void go_on(const longctx *lc, const longctx_desc *d, const longctx *whole, world *want,
                  world *got, int t)
{
  int way;
  for (way = 0; way < 4; way++) {
    longctx *next = another(lc, d, way);
    feed(next, got, t, 45, 0);
    same_worlds(want, got);
    t_same_states(next, whole);
    free(next);
  }
}

/* At every token, and between all the calls of a block's end. */
static void test_life(void)
{
  int memory, t, l;
  for (memory = LONGCTX_MEMORY_NONE; memory <= LONGCTX_MEMORY_DELTA; memory++) {
    longctx_layer layers[5];
    longctx_desc d = living(layers, memory);
    world want, got;
    longctx *whole, *lc;
    d.type_k = LONGCTX_F16;
    d.type_v = LONGCTX_Q8;
    if (memory) layers[0].window = layers[1].window = layers[4].window = 6;
    if (memory == LONGCTX_MEMORY_DELTA) d.max_batch = 6;
    want = world_make(&d, 45, 12, 11);
    got = world_make(&d, 45, 12, 11);
    whole = new_at(&d, 12, NULL);
    lc = new_at(&d, 12, NULL);
    feed(whole, &want, 0, 45, 0);
    memcpy(got.out, want.out, sizeof(float) * text_out_floats(&want.x));
    for (t = 0; t < 40; t++) {
      t_case("life: memory %d, token %d", memory, t);
      go_on(lc, &d, whole, &want, &got, t);
      for (l = 0; longctx_feedback_due(lc) && l < 5; l++) {
        if (!has_rows(&d, l)) continue;
        if (t > 0) {                                   /* attend changes nothing                 */
          float *spare = t_floats(text_out_floats(&got.rows));
          CHECK_EQ(longctx_feedback_attend(lc, l, spare), LONGCTX_OK);
          free(spare);
        }
        meet_layer(lc, &got, l);
        t_case("life: memory %d, token %d, after layer %d", memory, t, l);
        go_on(lc, &d, whole, &want, &got, t);
      }
      if (t % 6 == 0) {                                /* an open batch at a block's start       */
        longctx *twin = another(lc, &d, 1);
        text_step(lc, &got.x, t, longctx_room(lc), got.out);
        t_case("life: memory %d, token %d, open batch", memory, t);
        t_same_states(lc, twin);
        free(twin);
        CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);
        memcpy(got.out, want.out, sizeof(float) * text_out_floats(&want.x));
      }
      feed(lc, &got, t, t + 1, 1);
    }
    free(whole);
    free(lc);
    world_free(&want);
    world_free(&got);
  }
}

/* A ring that is full to the last row: the block just read stays, whatever follows it unsettled. */
static void test_full_ring(void)
{
  longctx_desc d = longctx_desc_make(1, 2, 1, 4, 13);
  world w;
  longctx *lc, *twin;
  d.block = 13;
  d.max_batch = 4;                                     /* 13 + 3 rows are one tile of 16         */
  d.feedback_len = 2;
  w = world_make(&d, 39, 0, 3);
  lc = new_at(&d, 0, NULL);
  feed(lc, &w, 0, 13, 0);
  meet(lc, &w);
  twin = another(lc, &d, 1);
  text_step(lc, &w.x, 13, 4, w.out);
  t_case("full ring");
  t_same_states(lc, twin);
  free(lc);
  free(twin);
  world_free(&w);
}

/* ---- order ----------------------------------------------------------------------------------- */

typedef struct picture { const longctx *lc; void *bytes; size_t n; } picture;

static picture picture_of(const longctx *lc, const longctx_desc *d)
{
  picture p;
  p.lc = lc;
  p.n = longctx_size(d);
  p.bytes = t_memory(p.n);
  memcpy(p.bytes, (const void *)lc, p.n);
  return p;
}

#define REFUSED(p, call, code)                              \
  do {                                                      \
    t_case("%s", #call);                                    \
    CHECK_EQ(call, code);                                   \
    CHECK_SAME((p).bytes, (const void *)(p).lc, (p).n);     \
    if (code) t_bad_input("%s, line %d", #call, __LINE__);  \
  } while (0)

static void test_errors(void)
{
  longctx_layer layers[5];
  longctx_desc d = living(layers, 0), none;
  world w = world_make(&d, 40, 0, 5);
  longctx *lc = t_new(&d), *bare;
  const float *q = w.x.q, *k = w.x.k, *v = w.x.v;
  float *out = t_floats(4096);
  picture p = picture_of(lc, &d);
  t_case("errors");
  CHECK_EQ(longctx_feedback_due(lc), 1);
  CHECK_EQ(longctx_room(lc), 0);
  REFUSED(p, longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_E_ORDER);
  REFUSED(p, longctx_attend(lc, 1, 1, q, k, v, out), LONGCTX_E_ORDER);   /* it has no rows       */
  REFUSED(p, longctx_attend(lc, 0, 1, NULL, k, v, out), LONGCTX_E_ARG);
  REFUSED(p, longctx_attend(lc, 0, 0, q, k, v, out), LONGCTX_OK);
  REFUSED(p, longctx_attend_part(lc, 0, 1, q, k, v, out, 0, 1), LONGCTX_E_ORDER);
  REFUSED(p, longctx_attend_join(lc, 0, 1, out), LONGCTX_E_ORDER);
  REFUSED(p, longctx_commit(lc, 1), LONGCTX_E_ORDER);
  REFUSED(p, longctx_commit(lc, 0), LONGCTX_OK);
  REFUSED(p, longctx_feedback_attend(lc, 0, out), LONGCTX_E_ORDER);      /* nothing was set yet  */
  REFUSED(p, longctx_feedback_attend(NULL, 0, out), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_attend(lc, 1, out), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_attend(lc, 3, out), LONGCTX_E_ARG);        /* it reads layer 0's   */
  REFUSED(p, longctx_feedback_attend(lc, -1, out), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_attend(lc, 5, out), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(NULL, 0, q, k, v), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(lc, 1, q, k, v), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(lc, 4, q, k, v), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(lc, 5, q, k, v), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(lc, 0, NULL, k, v), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(lc, 0, q, NULL, v), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_set(lc, 0, q, k, NULL), LONGCTX_E_ARG);
  REFUSED(p, longctx_seek(lc, 3), LONGCTX_E_ARG);
  CHECK(longctx_feedback(NULL, 0) == NULL && longctx_feedback(lc, 5) == NULL);
  CHECK(longctx_feedback(lc, -1) == NULL && longctx_feedback(lc, 3) == NULL);
  CHECK_EQ(longctx_feedback_due(NULL), 0);
  CHECK_EQ(longctx_seek(lc, 6), LONGCTX_OK);
  CHECK_EQ(longctx_seek(lc, 0), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_set(lc, 2, q, k, v), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_due(lc), 1);               /* layer 0 is missing                     */
  free(p.bytes);
  p = picture_of(lc, &d);
  REFUSED(p, longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_E_ORDER);
  REFUSED(p, longctx_feedback_attend(lc, 2, NULL), LONGCTX_E_ARG);
  REFUSED(p, longctx_feedback_attend(lc, 0, out), LONGCTX_E_ORDER);
  REFUSED(p, longctx_seek(lc, 6), LONGCTX_E_ORDER);    /* rows stand somewhere already           */
  CHECK_EQ(longctx_feedback_attend(lc, 2, out), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_set(lc, 0, q, k, v), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_set(lc, 0, k, q, v), LONGCTX_OK);   /* the last one counts           */
  CHECK_EQ(longctx_feedback_due(lc), 0);
  CHECK_EQ(longctx_room(lc), 4);
  CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_OK);
  free(p.bytes);
  p = picture_of(lc, &d);
  REFUSED(p, longctx_feedback_set(lc, 0, q, k, v), LONGCTX_E_ORDER);     /* a token is on its way */
  REFUSED(p, longctx_feedback_attend(lc, 2, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_attend(lc, 2, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 1, q, k, v, out, 0, 1), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_set(lc, 0, q, k, v), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend_join(lc, 0, 1, out), LONGCTX_OK);
  text_step(lc, &w.x, 0, 4, w.out);
  CHECK_EQ(longctx_commit(lc, 4), LONGCTX_OK);
  CHECK_EQ(longctx_room(lc), 2);                       /* no further than the block's end        */
  free(p.bytes);
  p = picture_of(lc, &d);
  REFUSED(p, longctx_feedback_set(lc, 0, q, k, v), LONGCTX_E_ORDER);
  REFUSED(p, longctx_feedback_attend(lc, 0, out), LONGCTX_E_ORDER);
  text_step(lc, &w.x, 4, 2, w.out);
  CHECK_EQ(longctx_commit(lc, 2), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_due(lc), 1);
  CHECK_EQ(longctx_room(lc), 0);
  longctx_reset(lc);
  CHECK_EQ(longctx_feedback_due(lc), 1);
  bare = t_new(&d);
  t_same_states(lc, bare);                             /* rows, keys, queries: all forgotten     */
  free(bare);
  none = longctx_desc_make(1, 2, 1, 4, 4);
  bare = t_new(&none);
  CHECK_EQ(longctx_feedback_due(bare), 0);
  CHECK(longctx_feedback(bare, 0) == NULL);
  CHECK_EQ(longctx_feedback_set(bare, 0, q, k, v), LONGCTX_E_ARG);
  CHECK_EQ(longctx_feedback_attend(bare, 0, out), LONGCTX_E_ARG);
  free(bare);
  free(p.bytes);
  free(out);
  free(lc);
  world_free(&w);
}

/* ---- numbers and bytes that are not ---------------------------------------------------------- */

/* Rows that are no numbers spoil their KV head, saved or not; new rows or a reset are a cure. */
static void test_bad_rows(void)
{
  static const float bads[4] = { NAN, INFINITY, -INFINITY, 3e38f };
  int b, part, type, i;
  for (b = 0; b < 4; b++)
    for (part = 0; part < 4; part++)
      for (type = 0; type < 4; type++) {
        longctx_desc d = longctx_desc_make(1, 4, 2, 8, 8);
        world bad, good;
        longctx *lc, *twin;
        float *rows, *at;
        d.block = 8;
        d.feedback_len = 4;
        d.max_batch = 8;
        d.type_k = d.type_v = type;
        bad = world_make(&d, 32, 0, 30);
        good = world_make(&d, 32, 0, 30);
        at = part == 0 ? text_q(&bad.rows, 0, 5) : part == 1 ? text_k(&bad.rows, 0, 5)
                                                             : text_v(&bad.rows, 0, 5);
        if (part < 3) at[3] = bads[b];                 /* update 1, row 1, head 0                */
        lc = new_at(&d, 0, NULL);
        twin = new_at(&d, 0, NULL);
        feed(lc, &bad, 0, 16, 0);
        if (part == 3) longctx_feedback(lc, 0)[2] = bads[b];
        t_case("bad %g in part %d, %s", (double)bads[b], part, t_type_names[type]);
        twin = (free(twin), another(lc, &d, b));       /* such a state is a state                */
        free(twin);
        feed(lc, &bad, 16, 32, 0);
        twin = new_at(&d, 0, NULL);
        feed(twin, &good, 0, 32, 0);
        CHECK(t_all_finite(bad.out, text_out_floats(&bad.x)));
        for (i = 0; i < 32; i++)                       /* the other KV head saw nothing of it    */
          CHECK_SAME(bad.out + i * 32 + 16, good.out + i * 32 + 16, 16 * sizeof(float));
        CHECK_SAME(bad.out, good.out, 8 * 32 * sizeof(float));
        CHECK_SAME(bad.out + 16 * 32, good.out + 16 * 32, 16 * 32 * sizeof(float));
        if (part == 0)
          for (i = 0; i < 32; i++)                     /* row 1's head 0, in its attention alone */
            CHECK_EQ(isnan(bad.before[2 * 4 * 32 + 32 + i]) != 0, i < 8 && b < 3);
        if (part == 0 || part == 3) CHECK_SAME(bad.out, good.out, 32 * 32 * sizeof(float));
        rows = longctx_feedback(lc, 0);
        longctx_reset(lc);
        for (i = 0; i < 4 * 32; i++) CHECK(!(fabsf(rows[i]) > 0));
        feed(lc, &good, 0, 32, 0);
        t_same_states(lc, twin);
        free(lc);
        free(twin);
        world_free(&bad);
        world_free(&good);
      }
}

static int loads(const longctx_desc *d, unsigned char *state, size_t n)
{
  size_t bytes = longctx_size(d);
  void *mem = t_memory(bytes);
  longctx *live = t_new(d), *twin = t_new(d);
  FILE *file;
  int error = 99, code;
  t_rehash(state, n);
  file = t_file(state, n);
  code = longctx_restore(live, file);
  if (code != LONGCTX_OK) CHECK_SAME((const void *)live, (const void *)twin, bytes);
  rewind(file);
  CHECK_EQ(longctx_load(mem, bytes, file, &error) != NULL, code == LONGCTX_OK);
  CHECK_EQ(error, code);
  fclose(file);
  free(mem);
  free(live);
  free(twin);
  return code;
}

static void test_hostile(void)
{
  static const int32_t given[4] = { 0, 1, 2, -1 };
  static const float numbers[4] = { NAN, INFINITY, -INFINITY, 3e38f };
  static const size_t from_end[4] = { 1, 6, 11, 8 };   /* the last row: 6 of k, 6 of v           */
  int at_end, i;
  for (at_end = 0; at_end < 2; at_end++) {
    longctx_desc d = longctx_desc_make(1, 4, 2, 6, 8);
    world w;
    longctx *lc;
    size_t n, bytes, tail = 3 * 2 * 12 * 4, rows;
    unsigned char *state, *block;
    int error = 99;
    d.block = 4;
    d.feedback_len = 3;
    d.feedback_dim = 5;
    w = world_make(&d, 20, 0, 6);
    lc = new_at(&d, 0, NULL);
    feed(lc, &w, 0, at_end ? 8 : 10, 0);
    state = t_state(lc, &n);
    bytes = longctx_size(&d);
    block = (unsigned char *)t_memory(bytes);
    rows = n - 8 - tail - 3 * (5 + 24) * 4;            /* rows and queries, behind the flag      */
    for (i = 0; i < 4; i++) {
      unsigned char *bad = (unsigned char *)t_memory(n);
      int good = i == 1 || (i == 0 && at_end);
      t_case("hostile flag %d, at a block's end: %d", given[i], at_end);
      memcpy(bad, state, n);
      memcpy(bad + rows - 4, &given[i], 4);
      CHECK_EQ(loads(&d, bad, n), good ? LONGCTX_OK : LONGCTX_E_FORMAT);
      memcpy(block, (const void *)lc, bytes);
      lcx_live_of((longctx *)(void *)block, 0)->fed_set = given[i];
      CHECK_EQ(longctx_open(block, bytes, &error) != NULL, good);
      t_case("hostile number %g", (double)numbers[i]);
      memcpy(bad, state, n);
      memcpy(bad + n - 8 - 4 * from_end[i], &numbers[i], 4);
      CHECK_EQ(loads(&d, bad, n), LONGCTX_E_FORMAT);
      memcpy(bad, state, n);
      memcpy(bad + rows + 4 * (size_t)(7 * i), &numbers[i], 4);
      CHECK_EQ(loads(&d, bad, n), LONGCTX_OK);         /* rows and queries may be anything       */
      free(bad);
    }
    free(state);
    free(block);
    free(lc);
    world_free(&w);
  }
}

/* ---- with memory ----------------------------------------------------------------------------- */

/* Rows never touch memory: what is recalled is what it was, what attends is what it was. */
static void test_memory(void)
{
  int rule, t, h, e;
  for (rule = LONGCTX_MEMORY_LINEAR; rule <= LONGCTX_MEMORY_DELTA; rule++) {
    longctx_desc d = desc_of(&shapes[0]), fed, old, plain;
    world both, rows;
    text x;
    float *recalls, *neither;
    longctx *lc;
    d.memory = rule;
    fed = old = plain = d;
    fed.memory = LONGCTX_MEMORY_NONE;
    old.feedback_len = 0;
    plain.memory = LONGCTX_MEMORY_NONE;
    plain.feedback_len = 0;
    both = world_make(&d, 100, 0, 7);
    rows = world_make(&fed, 100, 0, 7);
    x = text_make(&old, 100, 7);
    recalls = text_out(&x);
    neither = text_out(&x);
    lc = new_at(&d, 0, NULL), feed(lc, &both, 0, 100, 0), free(lc);
    lc = new_at(&fed, 0, NULL), feed(lc, &rows, 0, 100, 0), free(lc);
    lc = new_at(&old, 0, NULL), text_run(lc, &x, 0, 100, 0, recalls), free(lc);
    lc = new_at(&plain, 0, NULL), text_run(lc, &x, 0, 100, 0, neither), free(lc);
    t_case("memory, rule %d", rule);
    CHECK_SAME(both.before, rows.before, sizeof(float) * text_out_floats(&both.rows));
    for (t = 0; t < 100; t++)
      for (h = 0; h < 4; h++)
        for (e = 0; e < 16; e++) {
          int i = t * 64 + h * 16 + e;
          double g = t < 32 ? 0.0 : 1.0 / (1.0 + exp(-(double)some_logits[h]));
          double want = (double)recalls[i] + (1.0 - g) * ((double)rows.out[i] - (double)neither[i]);
          CHECK_NEAR(both.out[i], want, 3e-6);
        }
    free(recalls);
    free(neither);
    text_free(&x);
    world_free(&both);
    world_free(&rows);
  }
}

/* Rows see their own block alone: what stood before it counts for nothing. */
static void test_own_block(void)
{
  longctx_desc d = desc_of(&shapes[4]);
  world a, b;
  longctx *one, *two;
  int u = 1, i;
  a = world_make(&d, 192, 0, 8);
  b = world_make(&d, 192, 0, 8);
  for (i = 0; i < 64 * 128; i++) b.x.k[i] += 1.0f, b.x.v[i] -= 1.0f;   /* block 0, sinks and all */
  one = new_at(&d, 0, NULL);
  two = new_at(&d, 0, NULL);
  feed(one, &a, 0, 192, 0);
  feed(two, &b, 0, 192, 9);
  t_case("own block");
  CHECK(memcmp(a.out + 64 * 512, b.out + 64 * 512, 64 * 512 * sizeof(float)) != 0);
  CHECK(memcmp(a.before + u * 33 * 512, b.before + u * 33 * 512, 33 * 512 * sizeof(float)) != 0);
  CHECK_SAME(a.before + 2 * 33 * 512, b.before + 2 * 33 * 512, 2 * 33 * 512 * sizeof(float));
  CHECK_SAME(a.after, b.after, sizeof(float) * text_out_floats(&a.rows));
  free(one);
  free(two);
  world_free(&a);
  world_free(&b);
}

/* ---- the loop: a model whose tail is the caller's -------------------------------------------- */

enum { WIDTH = FED_WIDTH, FF = FED_FF, MOST = 700 };

typedef struct layer { double *q, *k, *v, *o, *up, *down; } layer;

/* Hidden states come out in hidden [token][WIDTH], rows in made [update][layer][f][WIDTH]. */
typedef struct model {
  longctx_desc d;
  layer l[FED_LAYERS];
  double *learned, *text, *hidden, *made;
  int tokens, keeps_first;           /* keeps_first: rows are residual at the first update, too  */
  int64_t start;
} model;

/* -2 .. 2 in steps of 1/1024, times scale, as feedback_golden.py makes them. */
static double *integers(uint64_t seed, int n, double scale)
{
  double *x = (double *)malloc(sizeof(double) * (size_t)n);
  int i;
  if (x == NULL) { printf("out of memory\n"); exit(1); }
  for (i = 0; i < n; i++) x[i] = scale * (double)((int)(t_u64(&seed) >> 52) - 2048) / 1024.0;
  return x;
}

static model model_make(int segments, int f, int tokens)
{
  model m;
  int i;
  memset(&m, 0, sizeof m);
  m.d = longctx_desc_make(FED_LAYERS, FED_HEADS, FED_KV, FED_DIM, (segments + 1) * FED_BLOCK);
  m.d.block = FED_BLOCK;
  m.d.feedback_len = f;
  m.d.feedback_dim = f ? WIDTH : 0;
  m.d.max_batch = FED_BLOCK;
  for (i = 0; i < FED_LAYERS; i++) {
    uint64_t s = 1000 * (uint64_t)i;
    m.l[i].q = integers(s + 1, FED_HEADS * FED_DIM * WIDTH, 0.5);
    m.l[i].k = integers(s + 2, FED_KV * FED_DIM * WIDTH, 0.5);
    m.l[i].v = integers(s + 3, FED_KV * FED_DIM * WIDTH, 0.25);
    m.l[i].o = integers(s + 4, WIDTH * FED_HEADS * FED_DIM, 0.125);
    m.l[i].up = integers(s + 5, FF * WIDTH, 0.25);
    m.l[i].down = integers(s + 6, WIDTH * FF, 0.125);
  }
  m.tokens = tokens;
  m.learned = integers(7, (f + 1) * WIDTH, 1.0);
  m.text = integers(8, tokens * WIDTH, 1.0);
  m.hidden = integers(0, tokens * WIDTH, 0.0);
  m.made = integers(0, (tokens / FED_BLOCK + 1) * FED_LAYERS * (f + 1) * WIDTH, 0.0);
  return m;
}

static void model_free(model *m)
{
  int i;
  for (i = 0; i < FED_LAYERS; i++) {
    free(m->l[i].q), free(m->l[i].k), free(m->l[i].v);
    free(m->l[i].o), free(m->l[i].up), free(m->l[i].down);
  }
  free(m->learned), free(m->text), free(m->hidden), free(m->made);
}

static double *made(const model *m, int update, int l)
{
  return m->made + (size_t)((update * FED_LAYERS + l) * m->d.feedback_len * WIDTH);
}

static void product(const double *w, const double *x, int rows, int cols, double *y)
{
  int r, c;
  for (r = 0; r < rows; r++)
    for (y[r] = 0.0, c = 0; c < cols; c++) y[r] += w[r * cols + c] * x[c];
}

static void norm(const double *x, double *y)
{
  double sum = 0.0;
  int i;
  for (i = 0; i < WIDTH; i++) sum += x[i] * x[i];
  for (i = 0; i < WIDTH; i++) y[i] = x[i] / sqrt(sum / WIDTH + 1e-6);
}

static void qkv(const layer *l, const double *x, double *q, double *k, double *v)
{
  double y[WIDTH];
  norm(x, y);
  product(l->q, y, FED_HEADS * FED_DIM, WIDTH, q);
  product(l->k, y, FED_KV * FED_DIM, WIDTH, k);
  product(l->v, y, FED_KV * FED_DIM, WIDTH, v);
}

/* x = FFN(norm(f)) + f, f = wo a + residual (NULL: zero) */
static void tail(const layer *l, const double *a, const double *residual, double *x)
{
  double f[WIDTH], y[WIDTH], up[FF];
  int i;
  product(l->o, a, WIDTH, FED_HEADS * FED_DIM, f);
  for (i = 0; residual && i < WIDTH; i++) f[i] += residual[i];
  norm(f, y);
  product(l->up, y, FF, WIDTH, up);
  for (i = 0; i < FF; i++) up[i] = tanh(up[i]);
  product(l->down, up, WIDTH, FF, x);
  for (i = 0; i < WIDTH; i++) x[i] += f[i];
}

/* ---- through the library --------------------------------------------------------------------- */

enum { Q_ROW = FED_HEADS * FED_DIM, K_ROW = FED_KV * FED_DIM };

typedef struct rows { float q[MOST * Q_ROW], k[MOST * K_ROW], v[MOST * K_ROW], out[MOST * Q_ROW]; }
    rows;

static void to_floats(const layer *l, const double *x, int n, rows *r)
{
  double q[Q_ROW], k[K_ROW], v[K_ROW];
  int i, j;
  for (i = 0; i < n; i++) {
    qkv(l, x + i * WIDTH, q, k, v);
    for (j = 0; j < Q_ROW; j++) r->q[i * Q_ROW + j] = (float)q[j];
    for (j = 0; j < K_ROW; j++) r->k[i * K_ROW + j] = (float)k[j];
    for (j = 0; j < K_ROW; j++) r->v[i * K_ROW + j] = (float)v[j];
  }
}

static void tail_of(const layer *l, const rows *r, int i, const double *residual, double *x)
{
  double a[Q_ROW];
  int j;
  for (j = 0; j < Q_ROW; j++) a[j] = (double)r->out[i * Q_ROW + j];
  tail(l, a, residual, x);
}

static void give(longctx *lc, const model *m, int l, const double *x, rows *r)
{
  float *stored = longctx_feedback(lc, l);
  int f = m->d.feedback_len, i;
  for (i = 0; i < f * WIDTH; i++) stored[i] = (float)x[i];
  to_floats(&m->l[l], x, f, r);
  CHECK_EQ(longctx_feedback_set(lc, l, r->q, r->k, r->v), LONGCTX_OK);
}

static void begin_or_update(longctx *lc, model *m, int update, rows *r)
{
  int f = m->d.feedback_len, l, i, e;
  double x[MOST * WIDTH];
  memcpy(x, m->learned, sizeof(double) * (size_t)(f * WIDTH));
  for (l = 0; l < FED_LAYERS; l++) {
    double *now = made(m, update, l);
    if (update > 0) {
      const float *stored = longctx_feedback(lc, l);
      CHECK_EQ(longctx_feedback_attend(lc, l, r->out), LONGCTX_OK);
      for (i = 0; i < f; i++) {
        double old[WIDTH];
        for (e = 0; e < WIDTH; e++) old[e] = (double)stored[i * WIDTH + e];
        tail_of(&m->l[l], r, i, update > 1 || m->keeps_first ? old : NULL, now + i * WIDTH);
      }
      give(lc, m, l, now, r);
      continue;
    }
    memcpy(now, x, sizeof(double) * (size_t)(f * WIDTH));
    give(lc, m, l, x, r);
    CHECK_EQ(longctx_feedback_attend(lc, l, r->out), LONGCTX_OK);
    for (i = 0; i < f; i++) tail_of(&m->l[l], r, i, now + i * WIDTH, x + i * WIDTH);
  }
}

static void run_model(model *m, int chunk)
{
  static rows r;
  longctx *lc = new_at(&m->d, m->start, NULL);
  int t, n, l, i;
  for (t = 0; t <= m->tokens; t += n) {
    double x[MOST * WIDTH];
    if (longctx_feedback_due(lc)) begin_or_update(lc, m, t / FED_BLOCK, &r);
    n = longctx_room(lc) < chunk ? longctx_room(lc) : chunk;
    if (n > m->tokens - t) n = m->tokens - t;
    if (n == 0) break;
    memcpy(x, m->text + t * WIDTH, sizeof(double) * (size_t)(n * WIDTH));
    for (l = 0; l < FED_LAYERS; l++) {
      to_floats(&m->l[l], x, n, &r);
      CHECK_EQ(longctx_attend(lc, l, n, r.q, r.k, r.v, r.out), LONGCTX_OK);
      for (i = 0; i < n; i++) tail_of(&m->l[l], &r, i, x + i * WIDTH, x + i * WIDTH);
    }
    memcpy(m->hidden + t * WIDTH, x, sizeof(double) * (size_t)(n * WIDTH));
    CHECK_EQ(longctx_commit(lc, n), LONGCTX_OK);
  }
  free(lc);
}

/* ---- without it: a block at a time, [rows ; block] over [segments ; rows ; block] ------------ */

/* n queries at places p[], each seeing those of `count` keys where see[query*count + key]. */
static void literal(const oracle *o, const double *q, const double *p, int n, seen *keys,
                    const char *see, int count, double *out)
{
  seen *some = (seen *)malloc(sizeof(seen) * (size_t)count);
  int i, h, c, m;
  for (i = 0; i < n; i++)
    for (h = 0; h < o->heads; h++) {
      for (m = c = 0; c < count; c++)
        if (see[i * count + c]) {
          some[m] = keys[c];
          some[m].k += h / (o->heads / o->kv_heads) * o->dim;
          some[m++].v += h / (o->heads / o->kv_heads) * o->dim;
        }
      attention(o, h, q + i * Q_ROW, p[i], some, m, out + i * Q_ROW + h * FED_DIM);
    }
  free(some);
}

static void run_literally(model *m)
{
  int f = m->d.feedback_len, segments = m->d.window / FED_BLOCK - 1, at, l, i, c, n;
  oracle o = oracle_make(&m->d, 0);
  static double k[FED_LAYERS][MOST * K_ROW], v[FED_LAYERS][MOST * K_ROW];
  double x[64 * WIDTH], fq[64 * Q_ROW], fk[64 * K_ROW], fv[64 * K_ROW], q[64 * Q_ROW];
  double p[64], out[64 * Q_ROW];
  seen keys[256];
  char see[64 * 256];
  memcpy(x, m->learned, sizeof(double) * (size_t)(f * WIDTH));
  for (l = 0; l < FED_LAYERS; l++) {
    memcpy(made(m, 0, l), x, sizeof(double) * (size_t)(f * WIDTH));
    for (i = 0; i < f; i++) {
      qkv(&m->l[l], x + i * WIDTH, q + i * Q_ROW, fk + i * K_ROW, fv + i * K_ROW);
      p[i] = (double)(m->start - f + i);
      keys[i].k = fk + i * K_ROW, keys[i].v = fv + i * K_ROW;
      keys[i].stand = p[i], keys[i].far = 0.0;
    }
    memset(see, 1, sizeof see);
    literal(&o, q, p, f, keys, see, f, out);
    for (i = 0; i < f; i++)
      tail(&m->l[l], out + i * Q_ROW, made(m, 0, l) + i * WIDTH, x + i * WIDTH);
  }
  for (at = 0; at < m->tokens; at += n) {
    int u = at / FED_BLOCK, from = at - segments * FED_BLOCK, old;
    if (from < 0) from = 0;
    old = at - from;
    n = m->tokens - at < FED_BLOCK ? m->tokens - at : FED_BLOCK;
    memcpy(x, m->text + at * WIDTH, sizeof(double) * (size_t)(n * WIDTH));
    for (l = 0; l < FED_LAYERS; l++) {
      int count = old + f + n;
      double *now = made(m, u, l), *next = now + FED_LAYERS * f * WIDTH;
      for (i = 0; i < f; i++) {
        qkv(&m->l[l], now + i * WIDTH, fq + i * Q_ROW, fk + i * K_ROW, fv + i * K_ROW);
        p[i] = (double)(m->start + at - f + i);
      }
      for (i = 0; i < n; i++) {
        qkv(&m->l[l], x + i * WIDTH, fq + (f + i) * Q_ROW, k[l] + (at + i) * K_ROW,
            v[l] + (at + i) * K_ROW);
        p[f + i] = (double)(m->start + at + i);
      }
      for (c = 0; c < count; c++) {                    /* segments, rows, block                  */
        int row = c - old, t = c < old ? from + c : c - f + from, fed = row >= 0 && row < f;
        keys[c].k = fed ? fk + row * K_ROW : k[l] + t * K_ROW;
        keys[c].v = fed ? fv + row * K_ROW : v[l] + t * K_ROW;
        keys[c].stand = fed ? p[row] : (double)(m->start + t);
        keys[c].far = 0.0;
        for (i = 0; i < f + n; i++)
          see[i * count + c] = (char)(fed || (i < f ? c >= old : c < old + f || t <= at + i - f));
      }
      literal(&o, fq, p, f + n, keys, see, count, out);
      for (i = 0; i < f && n == FED_BLOCK; i++)
        tail(&m->l[l], out + i * Q_ROW, u || m->keeps_first ? now + i * WIDTH : NULL,
             next + i * WIDTH);
      for (i = 0; i < n; i++)
        tail(&m->l[l], out + (f + i) * Q_ROW, x + i * WIDTH, x + i * WIDTH);
    }
    memcpy(m->hidden + at * WIDTH, x, sizeof(double) * (size_t)(n * WIDTH));
  }
  oracle_free(&o);
}

/* ---- laws ------------------------------------------------------------------------------------ */

static int made_numbers(const model *m)
{
  return (m->tokens / FED_BLOCK + 1) * FED_LAYERS * m->d.feedback_len * WIDTH;
}

static double apart(const double *a, const double *b, int n)
{
  double worst = 0.0;
  int i;
  for (i = 0; i < n; i++) {
    double off = fabs(a[i] - b[i]) / fmax(1.0, fabs(b[i]));
    worst = t_worse(worst, off);
  }
  return worst;
}

/* Token by token with an update at each end, and blocks as one masked softmax: the same model. */
static void test_two_ways(void)
{
  int segments, f;
  double worst = 0.0;
  for (segments = 0; segments < 4; segments++)
    for (f = 1; f <= FED_BLOCK; f += 1 + segments % 2) {
      model a = model_make(segments, f, 100), b = model_make(segments, f, 100);
      double off;
      a.start = b.start = segments * 6000;
      run_model(&a, 1 + f % 5);
      run_literally(&b);
      off = t_worse(apart(a.hidden, b.hidden, 100 * WIDTH), apart(a.made, b.made, made_numbers(&a)));
      t_case("two ways: %d segments, %d rows", segments, f);
      CHECK_NEAR(off, 0.0, 4e-5);
      worst = t_worse(worst, off);
      model_free(&a);
      model_free(&b);
    }
  printf("a model of two layers, after 16 updates: largest difference %.1e\n", worst);
}

/* Numbers that PyTorch computed from the paper: by the library, and by the literal run. */
static void test_golden(void)
{
  int way, i;
  for (way = 0; way < 2; way++) {
    model m = model_make(FED_SEGMENTS, FED_F, FED_TOKENS);
    const double *last;
    double room = way ? 2e-8 : 1e-5;
    if (way) run_literally(&m);
    else run_model(&m, 4);
    last = m.hidden + (FED_TOKENS - FED_SHOWN) * WIDTH;
    t_case("golden, way %d", way);
    for (i = 0; i < FED_SHOWN * WIDTH; i++) CHECK_NEAR(last[i], fed_out[i], room);
    last = made(&m, FED_TOKENS / FED_BLOCK, 0);
    for (i = 0; i < FED_LAYERS * FED_F * WIDTH; i++) CHECK_NEAR(last[i], fed_rows[i], room);
    model_free(&m);
  }
}

/* What is not yet read changes nothing, bit for bit; what was read goes on to all that follows. */
static void test_causality(void)
{
  int t;
  for (t = 0; t < 40; t += 7) {
    model a = model_make(1, 3, 48), b = model_make(1, 3, 48);
    int u = t / FED_BLOCK, rows_before = (u + 1) * FED_LAYERS * 3 * WIDTH;
    b.text[t * WIDTH + 3] += 0.5;
    run_model(&a, 6);
    run_model(&b, 5);
    t_case("causality, token %d", t);
    CHECK_SAME(a.hidden, b.hidden, sizeof(double) * (size_t)(t * WIDTH));
    CHECK_SAME(a.made, b.made, sizeof(double) * (size_t)rows_before);
    CHECK(apart(a.hidden + t * WIDTH, b.hidden + t * WIDTH, WIDTH) > 1e-6);
    CHECK(apart(made(&a, u + 1, 1), made(&b, u + 1, 1), 3 * WIDTH) > 1e-6);
    model_free(&a);
    model_free(&b);
  }
}

/* Without positions rows are a set: in another order they are the same rows in that order. */
static void test_permutation(void)
{
  static const int order[5] = { 3, 0, 4, 1, 2 };
  model a = model_make(1, 5, 60), b = model_make(1, 5, 60);
  int u, l, i;
  a.d.rope = b.d.rope = LONGCTX_ROPE_NONE;
  for (i = 0; i < 5; i++)
    memcpy(b.learned + i * WIDTH, a.learned + order[i] * WIDTH, WIDTH * sizeof(double));
  run_model(&a, 6);
  run_model(&b, 6);
  t_case("permutation");
  CHECK_NEAR(apart(a.hidden, b.hidden, 60 * WIDTH), 0.0, 4e-5);
  for (u = 0; u <= 10; u++)
    for (l = 0; l < FED_LAYERS; l++)
      for (i = 0; i < 5; i++)
        CHECK_NEAR(apart(made(&a, u, l) + order[i] * WIDTH, made(&b, u, l) + i * WIDTH, WIDTH),
                   0.0, 4e-5);
  model_free(&a);
  model_free(&b);
}

/* Rows and tokens shifted together are the same rows and tokens, also from 6 * 2^40 on. */
static void test_shift(void)
{
  static const int64_t starts[3] = { 6, 6 * 1000003, (int64_t)6 << 40 };
  int i, way;
  for (i = 0; i < 3; i++)
    for (way = 0; way < 2; way++) {
      model a = model_make(way, 4, 60), b = model_make(way, 4, 60);
      b.start = starts[i];
      a.d.sinks = b.d.sinks = way * 2;
      run_model(&a, 6);
      run_model(&b, 4);
      t_case("shift to %ld", (long)starts[i]);
      CHECK_NEAR(apart(a.hidden, b.hidden, 60 * WIDTH), 0.0, 4e-5);
      CHECK_NEAR(apart(a.made, b.made, made_numbers(&a)), 0.0, 4e-5);
      model_free(&a);
      model_free(&b);
    }
}

/* One block is all that tokens see, yet block 0 is felt in block 100; without rows it is not. */
static void test_carry(void)
{
  int f;
  for (f = 0; f <= 3; f += 3) {
    model a = model_make(0, f, 606), b = model_make(0, f, 606);
    b.text[3] += 1.0;
    run_model(&a, 6);
    run_model(&b, 6);
    t_case("carry, %d rows", f);
    CHECK_EQ(apart(a.hidden + 600 * WIDTH, b.hidden + 600 * WIDTH, 6 * WIDTH) > 0.0, f > 0);
    model_free(&a);
    model_free(&b);
  }
}

/* Nothing but residuals: the first update's is zero, and so are all rows from then on. */
static void test_first_update(void)
{
  int keeps, i, l, u;
  for (keeps = 0; keeps < 2; keeps++) {
    model m = model_make(1, 3, 24);
    m.keeps_first = keeps;
    for (l = 0; l < FED_LAYERS; l++) {
      for (i = 0; i < WIDTH * Q_ROW; i++) m.l[l].o[i] = 0.0;
      for (i = 0; i < WIDTH * FF; i++) m.l[l].down[i] = 0.0;
    }
    run_model(&m, 6);
    t_case("first update, residual %d", keeps);
    for (u = 1; u <= 4; u++)
      for (l = 0; l < FED_LAYERS; l++)
        for (i = 0; i < 3 * WIDTH; i++)
          CHECK_NEAR(made(&m, u, l)[i], keeps ? (double)(float)m.learned[i] : 0.0, 0.0);
    model_free(&m);
  }
}

int main(void)
{
  test_oracle();
  test_layers();
  test_off();
  test_isas();
  test_life();
  test_full_ring();
  test_errors();
  test_bad_rows();
  test_hostile();
  test_memory();
  test_own_block();
  test_two_ways();
  test_golden();
  test_causality();
  test_permutation();
  test_shift();
  test_carry();
  test_first_update();
  return t_done();
}
