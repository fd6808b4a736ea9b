/* memory.c: the compressive memory, against the paper's equations in double and its laws.

   The oracle keeps every token and folds by the formulas of arXiv 2404.07143, a block at a time;
   for the linear rule it does not even fold, it sums kernel attention over all that left.
   `LONG=1 memory` adds 10^8 tokens.                                                             */
#include "oracle.h"
#include "text.h"
#include "memory_golden.h"

enum { LINEAR = LONGCTX_MEMORY_LINEAR, DELTA = LONGCTX_MEMORY_DELTA };

/* ---- the oracle ------------------------------------------------------------------------------ */

typedef struct past { oracle o; int rule; int64_t window; double *big, *sum; } past;

static double elu_plus_one(double x) { return x > 0.0 ? x + 1.0 : exp(x); }

static past past_make(const longctx_desc *d, int layer)
{
  past p;
  int source = layer;
  memset(&p, 0, sizeof p);
  p.o = oracle_make(d, layer);
  p.rule = d->layers ? d->layers[layer].memory : d->memory;
  if (d->layers && d->layers[layer].kv_from >= 0) source = d->layers[layer].kv_from;
  p.window = d->layers ? d->layers[source].window : d->window;   /* its source's */
  p.big = (double *)calloc((size_t)(p.o.kv_heads * p.o.dim * p.o.dim_v), sizeof(double));
  p.sum = (double *)calloc((size_t)(p.o.kv_heads * p.o.dim), sizeof(double));
  if (p.big == NULL || p.sum == NULL) { printf("out of memory\n"); exit(1); }
  return p;
}

static void past_free(past *p)
{
  oracle_free(&p->o);
  free(p->big);
  free(p->sum);
}

static const double *past_k(const past *p, int token, int g)
{
  return p->o.k + ((size_t)token * (size_t)p->o.kv_heads + (size_t)g) * (size_t)p->o.dim;
}

static const double *past_v(const past *p, int token, int g)
{
  return p->o.v + ((size_t)token * (size_t)p->o.kv_heads + (size_t)g) * (size_t)p->o.dim_v;
}

/* s(x) M / s(x) z */
static void past_read(const past *p, int g, const double *x, const double *big, const double *sum,
                      double *out)
{
  int d, e, dim = p->o.dim, dim_v = p->o.dim_v;
  double l = 0.0;
  for (e = 0; e < dim_v; e++) out[e] = 0.0;
  for (d = 0; d < dim; d++) {
    double s = elu_plus_one(x[d]);
    l += s * sum[g * dim + d];
    for (e = 0; e < dim_v; e++) out[e] += s * big[(g * dim + d) * dim_v + e];
  }
  for (e = 0; e < dim_v; e++) out[e] = l > 0.0 ? out[e] / l : 0.0;
}

/* One block, tokens from..to-1, against M and z as they were before it. */
static void past_fold(past *p, int from, int to)
{
  int dim = p->o.dim, dim_v = p->o.dim_v, t, g, d, e;
  size_t n = (size_t)(p->o.kv_heads * dim * dim_v), m = (size_t)(p->o.kv_heads * dim);
  double *big = (double *)malloc(sizeof(double) * (n + m)), *sum = big + n, old[600];
  if (big == NULL) { printf("out of memory\n"); exit(1); }
  memcpy(big, p->big, sizeof(double) * n);
  memcpy(sum, p->sum, sizeof(double) * m);
  for (t = from; t < to; t++)
    for (g = 0; g < p->o.kv_heads; g++) {
      const double *k = past_k(p, t, g), *v = past_v(p, t, g);
      memset(old, 0, sizeof old);
      if (p->rule == DELTA) past_read(p, g, k, big, sum, old);
      for (d = 0; d < dim; d++) {
        double s = elu_plus_one(k[d]);
        p->sum[g * dim + d] += s;
        for (e = 0; e < dim_v; e++) p->big[(g * dim + d) * dim_v + e] += s * (v[e] - old[e]);
      }
    }
  free(big);
}

/* Token index of the first that is still in the (source's) window of a query at index `query`. */
static int past_left(const past *p, int window, int query)
{
  int64_t t = p->o.start + query;
  int64_t x = (t / p->o.block + 1) * p->o.block - window - p->o.start;
  return x < p->o.sinks ? p->o.sinks : (int)x;
}

/* What head h recalls for q: for LINEAR the plain sum over everything that left. */
static void past_recall(past *p, int window, int query, int h, const float *q, double *out)
{
  int g = h / (p->o.heads / p->o.kv_heads), t, d, e, left = past_left(p, window, query);
  double x[600], total = 0.0;
  for (d = 0; d < p->o.dim; d++) x[d] = (double)q[h * p->o.dim + d];
  if (p->rule == DELTA) { past_read(p, g, x, p->big, p->sum, out); return; }
  for (e = 0; e < p->o.dim_v; e++) out[e] = 0.0;
  for (t = p->o.sinks; t < left; t++) {
    const double *k = past_k(p, t, g), *v = past_v(p, t, g);
    double w = 0.0;
    for (d = 0; d < p->o.dim; d++) w += elu_plus_one(x[d]) * elu_plus_one(k[d]);
    total += w;
    for (e = 0; e < p->o.dim_v; e++) out[e] += w * v[e];
  }
  for (e = 0; e < p->o.dim_v; e++) out[e] = total > 0.0 ? out[e] / total : 0.0;
}

/* Folds all blocks that have left for a query at this index; queries come in order. */
static void past_advance(past *p, int *done, int window, int query)
{
  int left = past_left(p, window, query);
  while (*done < left) {
    int64_t t = p->o.start + *done, end = (t / p->o.block + 1) * p->o.block - p->o.start;
    past_fold(p, *done, (int)end);
    *done = (int)end;
  }
}

/* The largest difference between out [tokens][heads][dim_v] of a layer and the equations. */
static double past_compare(const text *x, int layer, int64_t start, const float *logits,
                           const float *out, int type_k, int type_v)
{
  past p = past_make(&x->d, layer);
  int source = layer, window = (int)p.window, done = p.o.sinks, t, h, e;
  double want[4096], recalled[600], worst = 0.0;
  if (x->d.layers && x->d.layers[layer].kv_from >= 0) source = x->d.layers[layer].kv_from;
  p.o.start = start;
  p.o.type_k = type_k;
  p.o.type_v = type_v;
  oracle_push(&p.o, x->tokens, text_k(x, source, 0), text_v(x, source, 0));
  for (t = 0; t < x->tokens; t++) {
    const float *q = text_q(x, layer, t), *row = out + text_at(x, layer, t) * x->out_row;
    int empty = past_left(&p, window, t) <= p.o.sinks;
    past_advance(&p, &done, window, t);
    oracle_row(&p.o, t, q, want, NULL);
    for (h = 0; h < p.o.heads; h++) {
      double g = 1.0 / (1.0 + exp(-(double)logits[h]));
      if (empty && x->d.memory_first == LONGCTX_FIRST_LOCAL) g = 0.0;
      past_recall(&p, window, t, h, q, recalled);
      for (e = 0; e < p.o.dim_v; e++) {
        int i = h * p.o.dim_v + e;
        double y = g * recalled[e] + (1.0 - g) * want[i];
        double off = fabs((double)row[i] - y) / fmax(1.0, fabs(y));
        worst = t_worse(worst, off);
      }
    }
  }
  past_free(&p);
  return worst;
}

/* ---- running --------------------------------------------------------------------------------- */

static const float open_gates[16] = { 0.3f, -1.0f, 2.0f, 0.0f, -0.5f, 1.0f, 4.0f, -3.0f,
                                      0.1f, 0.2f, -0.2f, 1.5f, 0.7f, -0.7f, 3.0f, 0.0f };
static const float all_of_it[16] = { INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY,
                                     INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY,
                                     INFINITY, INFINITY, INFINITY, INFINITY };

static longctx *new_at(const longctx_desc *d, int64_t start, const float *gates)
{
  longctx *lc = t_new(d);
  int l;
  CHECK_EQ(longctx_seek(lc, start), LONGCTX_OK);
  for (l = 0; gates && l < d->n_layers; l++)
    if (d->layers ? d->layers[l].memory : d->memory)
      CHECK_EQ(longctx_set_gate(lc, l, gates), LONGCTX_OK);
  return lc;
}

/* text_run that stops where room does, whatever the chunk. */
static void feed(longctx *lc, const text *x, int from, int to, int chunk, float *out)
{
  uint64_t seed = (uint64_t)(from + 7 * to + chunk);
  while (from < to) {
    int room = longctx_room(lc), n = chunk ? chunk : 1 + t_below(&seed, room);
    if (n > room) n = room;
    if (n > to - from) n = to - from;
    text_step(lc, x, from, n, out);
    if (longctx_commit(lc, n) != LONGCTX_OK) FAIL("commit refused");
    from += n;
  }
}

/* ---- against the paper ----------------------------------------------------------------------- */

typedef struct shape {
  int heads, kv, dim, dim_v, window, block, sinks, rope, rope_dims, first, tokens;
  int64_t start;
  float mscale;
} shape;

static const shape shapes[] = {
  { 4, 2, 16, 16, 32, 32, 0, LONGCTX_ROPE_HALF, 0, LONGCTX_FIRST_LOCAL, 150, 0, 0.0f },
  { 4, 4, 8, 12, 24, 8, 3, LONGCTX_ROPE_INTERLEAVED, 0, LONGCTX_FIRST_ZERO, 120, 4096, 0.0f },
  { 6, 1, 24, 40, 20, 5, 7, LONGCTX_ROPE_HALF, 10, LONGCTX_FIRST_LOCAL, 90, 35, 1.25f },
  { 3, 3, 7, 5, 6, 3, 0, LONGCTX_ROPE_NONE, 0, LONGCTX_FIRST_LOCAL, 60, 0, 0.0f },
  { 8, 2, 64, 64, 64, 64, 4, LONGCTX_ROPE_HALF, 0, LONGCTX_FIRST_LOCAL, 300, 64, 0.0f },
  { 5, 1, 33, 70, 96, 48, 100, LONGCTX_ROPE_INTERLEAVED, 32, LONGCTX_FIRST_ZERO, 400, 0, 0.5f },
  { 2, 2, 1, 1, 4, 2, 1, LONGCTX_ROPE_NONE, 0, LONGCTX_FIRST_LOCAL, 30, 0, 0.0f },
  { 14, 2, 128, 128, 100, 20, 0, LONGCTX_ROPE_HALF, 0, LONGCTX_FIRST_LOCAL, 200, 20, 0.0f },
};

static longctx_desc desc_of(const shape *s, int rule)
{
  longctx_desc d = longctx_desc_make(1, s->heads, s->kv, s->dim, s->window);
  d.head_dim_v = s->dim_v;
  d.block = s->block;
  d.sinks = s->sinks;
  d.rope = s->rope;
  d.rope_dims = s->rope_dims;
  d.rope_mscale = s->mscale;
  d.memory = rule;
  d.memory_first = s->first;
  d.max_batch = 19;
  return d;
}

/* In every stored type; the oracle stores alike, so what is left is arithmetic. int8 queries and
   weights are rounded, too, and a number stored to the other side is off by a whole step.    */
static void test_paper(void)
{
  static const double room[4] = { 5e-6, 3e-3, 2e-2, 4e-2 };
  double worst[4] = { 0, 0, 0, 0 }, lost[4] = { 0, 0, 0, 0 };
  size_t i;
  int rule, type;
  for (i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (rule = LINEAR; rule <= DELTA; rule++)
      for (type = 0; type < 4; type++) {
        longctx_desc d = desc_of(&shapes[i], rule);
        text x = text_make(&d, shapes[i].tokens, 40 + i);
        float *out = text_out(&x);
        longctx *lc;
        double off, plain;
        d.type_k = type;
        d.type_v = type;
        lc = new_at(&d, shapes[i].start, open_gates);
        feed(lc, &x, 0, x.tokens, 0, out);
        off = past_compare(&x, 0, shapes[i].start, open_gates, out, type, type);
        plain = past_compare(&x, 0, shapes[i].start, open_gates, out, 0, 0);
        t_case("paper: shape %d, rule %d, %s", (int)i, rule, t_type_names[type]);
        CHECK_NEAR(off, 0.0, room[type]);
        if (off > worst[type]) worst[type] = off;
        if (plain > lost[type]) lost[type] = plain;
        free(lc);
        free(out);
        text_free(&x);
      }
  for (type = 0; type < 4; type++)
    printf("%s: largest error %.1e, to float32 keys and values %.1e\n", t_type_names[type],
           worst[type], lost[type]);
}

/* Numbers that PyTorch computed from the paper, window = segment. */
static void test_golden(void)
{
  int rule, t, i, n;
  for (rule = LINEAR; rule <= DELTA; rule++) {
    longctx_desc d = longctx_desc_make(1, GOLDEN_HEADS, GOLDEN_KV, GOLDEN_DIM, GOLDEN_SEGMENT);
    const double *want = golden_out[rule - LINEAR];
    float q[GOLDEN_HEADS * GOLDEN_DIM], k[GOLDEN_KV * GOLDEN_DIM], v[GOLDEN_KV * GOLDEN_DIM_V];
    float out[GOLDEN_HEADS * GOLDEN_DIM_V], *part[3] = { q, k, v };
    int sizes[3] = { GOLDEN_HEADS * GOLDEN_DIM, GOLDEN_KV * GOLDEN_DIM, GOLDEN_KV * GOLDEN_DIM_V };
    longctx *lc;
    d.head_dim_v = GOLDEN_DIM_V;
    d.block = GOLDEN_SEGMENT;
    d.memory = rule;
    lc = new_at(&d, 0, golden_gates);
    t_case("golden, rule %d", rule);
    for (t = 0; t < GOLDEN_TOKENS; t++) {
      uint64_t seed = (uint64_t)t * 77 + 5;
      for (n = 0; n < 3; n++)
        for (i = 0; i < sizes[n]; i++)
          part[n][i] = (float)((int)(t_u64(&seed) >> 52) - 2048) / 1024.0f;
      CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_OK);
      CHECK_EQ(longctx_commit(lc, 1), LONGCTX_OK);
      if (t < GOLDEN_TOKENS - GOLDEN_SHOWN) continue;
      for (i = 0; i < GOLDEN_HEADS * GOLDEN_DIM_V; i++) CHECK_NEAR(out[i], *want++, 2e-6);
    }
    free(lc);
  }
}

/* ---- laws ------------------------------------------------------------------------------------ */

static longctx_desc small(int rule, int block)         /* what it recalls is what comes out      */
{
  longctx_desc d = longctx_desc_make(1, 2, 1, 8, block);
  d.block = block;
  d.max_batch = block;
  d.memory = rule;
  return d;
}

/* What all heads recall for q, from a context whose gates are open wide; nothing is committed. */
static void ask(longctx *lc, const float *q, const float *k, const float *v, float *out)
{
  CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out), LONGCTX_OK);
  CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);
}

/* Segments in another order are the same memory under the linear rule. */
static void test_order(void)
{
  static const int order[6] = { 3, 0, 5, 1, 4, 2 };
  longctx_desc d = small(LINEAR, 12);
  text x = text_make(&d, 72, 5), y = text_make(&d, 72, 5);
  float *out = text_out(&x), a[16], b[16];
  longctx *lc = new_at(&d, 0, all_of_it), *other = new_at(&d, 0, all_of_it);
  int i;
  t_case("order of segments");
  for (i = 0; i < 6; i++) {
    memcpy(text_k(&y, 0, 12 * i), text_k(&x, 0, 12 * order[i]), sizeof(float) * 12 * x.k_row);
    memcpy(text_v(&y, 0, 12 * i), text_v(&x, 0, 12 * order[i]), sizeof(float) * 12 * x.v_row);
  }
  feed(lc, &x, 0, 72, 0, out);
  feed(other, &y, 0, 72, 0, out);
  ask(lc, x.q, x.k, x.v, a);
  ask(other, x.q, x.k, x.v, b);
  for (i = 0; i < 16; i++) CHECK_NEAR(a[i], b[i], 2e-6);
  free(lc);
  free(other);
  free(out);
  text_free(&x);
  text_free(&y);
}

/* One binding, whatever is asked: its value. Written again, DELTA's is halved, as published. */
static void test_binding(void)
{
  int rule, segment, i, t;
  for (rule = LINEAR; rule <= DELTA; rule++) {
    longctx_desc d = small(rule, 4);
    text x = text_make(&d, 24, 6);
    float *out = text_out(&x), a[16];
    longctx *lc = new_at(&d, 0, all_of_it);
    for (t = 1; t < 24; t++) {
      memcpy(text_k(&x, 0, t), x.k, sizeof(float) * x.k_row);
      memcpy(text_v(&x, 0, t), x.v, sizeof(float) * x.v_row);
    }
    for (segment = 0; segment < 5; segment++) {
      float factor = rule == DELTA && segment > 0 ? 0.5f : 1.0f;
      feed(lc, &x, 4 * segment, 4 * segment + 4, 0, out);
      t_case("one binding, rule %d, %d segments", rule, segment + 1);
      for (t = 0; t < 24; t += 5) {
        ask(lc, text_q(&x, 0, t), x.k, x.v, a);
        for (i = 0; i < 16; i++) CHECK_NEAR(a[i], factor * x.v[i % 8], 2e-6);
      }
    }
    free(lc);
    free(out);
    text_free(&x);
  }
}

/* LINEAR recalls a mean of the values with weights above 0. */
static void test_convex(void)
{
  longctx_desc d = small(LINEAR, 8);
  text x = text_make(&d, 400, 8);
  float *out = text_out(&x), a[16];
  longctx *lc = new_at(&d, 0, all_of_it);
  int t, i, u;
  t_case("convex");
  feed(lc, &x, 0, 400, 0, out);
  for (t = 0; t < 400; t++) {
    ask(lc, text_q(&x, 0, t), x.k, x.v, a);
    for (i = 0; i < 8; i++) {
      float low = x.v[i], high = x.v[i];
      for (u = 0; u < 400; u++) {
        low = fminf(low, text_v(&x, 0, u)[i]);
        high = fmaxf(high, text_v(&x, 0, u)[i]);
      }
      CHECK(a[i] >= low && a[i] <= high && a[8 + i] >= low && a[8 + i] <= high);
    }
  }
  free(lc);
  free(out);
  text_free(&x);
}

/* Memory knows no positions: the same text anywhere, with any rotation, is recalled alike. */
static void test_nowhere(void)
{
  static const int64_t starts[] = { 0, 32, (int64_t)1 << 32, ((int64_t)1 << 50) + 8 };
  int rule, i, s, kind;
  for (rule = LINEAR; rule <= DELTA; rule++) {
    longctx_desc d = small(rule, 8);
    text x = text_make(&d, 90, 9);
    float *out = text_out(&x), want[16], got[16];
    longctx *lc;
    d.rope = LONGCTX_ROPE_NONE;
    lc = new_at(&d, 0, all_of_it);
    feed(lc, &x, 0, 88, 0, out);
    ask(lc, x.q, x.k, x.v, want);
    free(lc);
    for (s = 0; s < 4; s++)
      for (kind = 0; kind < 4; kind++) {
        d.rope = kind == 3 ? LONGCTX_ROPE_INTERLEAVED : LONGCTX_ROPE_HALF;
        d.rope_base = kind == 1 ? 100.0 : 10000.0;
        d.rope_mscale = kind == 2 ? 0.125f : 1.0f;
        d.rope_dims = kind == 2 ? 4 : 8;
        t_case("nowhere: rule %d, start %ld, kind %d", rule, (long)starts[s], kind);
        lc = new_at(&d, starts[s], all_of_it);
        feed(lc, &x, 0, 88, 0, out);
        ask(lc, x.q, x.k, x.v, got);
        for (i = 0; i < 16; i++) CHECK_NEAR(want[i], got[i], 3e-6);
        free(lc);
      }
    free(out);
    text_free(&x);
  }
}

/* ---- gates ----------------------------------------------------------------------------------- */

/* Closed gates, by default, by -infinity, by NULL: bit for bit a context without memory. */
static void test_closed(void)
{
  static const float closed[16] = { -INFINITY, -INFINITY, -87.0f, -3e38f, -INFINITY, -INFINITY,
                                    -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -90.0f,
                                    -INFINITY, -INFINITY, -INFINITY, -INFINITY };
  size_t i;
  int way, type;
  for (i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (type = 0; type < 4; type++)
      for (way = 0; way < 3; way++) {
        longctx_desc d = desc_of(&shapes[i], LINEAR + way % 2), without;
        text x = text_make(&d, shapes[i].tokens, 50 + i);
        float *a = text_out(&x), *b = text_out(&x);
        longctx *lc, *plain;
        d.type_k = d.type_v = type;
        without = d;
        without.memory = LONGCTX_MEMORY_NONE;
        t_case("closed: shape %d, type %d, way %d", (int)i, type, way);
        lc = new_at(&d, shapes[i].start, way == 0 ? NULL : way == 1 ? closed : open_gates);
        if (way == 2) CHECK_EQ(longctx_set_gate(lc, 0, NULL), LONGCTX_OK);
        plain = new_at(&without, shapes[i].start, NULL);
        feed(lc, &x, 0, x.tokens, 0, a);
        feed(plain, &x, 0, x.tokens, 7, b);
        CHECK_SAME(a, b, sizeof(float) * text_out_floats(&x));
        free(lc);
        free(plain);
        free(a);
        free(b);
        text_free(&x);
      }
}

/* One closed head among open ones: that head alone is untouched. */
static void test_one_closed(void)
{
  longctx_desc d = desc_of(&shapes[4], LINEAR), without = d;
  text x = text_make(&d, 200, 60);
  float *a = text_out(&x), *b = text_out(&x), gates[8];
  longctx *lc, *plain;
  int t, h;
  memcpy(gates, open_gates, sizeof gates);
  gates[2] = -INFINITY;
  without.memory = LONGCTX_MEMORY_NONE;
  lc = new_at(&d, 64, gates);
  plain = new_at(&without, 64, NULL);
  feed(lc, &x, 0, 200, 0, a);
  feed(plain, &x, 0, 200, 7, b);
  for (t = 0; t < 200; t++)
    for (h = 0; h < 8; h++) {
      size_t at = (size_t)t * x.out_row + (size_t)h * 64;
      int same = memcmp(a + at, b + at, 64 * sizeof(float)) == 0, empty = t < 64;
      t_case("one closed: token %d, head %d", t, h);
      CHECK_EQ(same, h == 2 || empty);
    }
  free(lc);
  free(plain);
  free(a);
  free(b);
  text_free(&x);
}

/* While nothing was folded: LOCAL is as without memory, ZERO recalls 0. Sinks are never folded, so
   a text that is all sinks and window leaves memory empty, however many blocks it has. */
static void test_first(void)
{
  int first;
  for (first = LONGCTX_FIRST_LOCAL; first <= LONGCTX_FIRST_ZERO; first++) {
    longctx_desc d = small(LINEAR, 4), without;
    text x = text_make(&d, 44, 61);
    float *a = text_out(&x), *b = text_out(&x);
    longctx *lc, *plain;
    int t, i;
    d.sinks = 31;
    d.window = 8;
    d.memory_first = first;
    without = d;
    without.memory = LONGCTX_MEMORY_NONE;
    lc = new_at(&d, 8, open_gates);
    plain = new_at(&without, 8, NULL);
    feed(lc, &x, 0, 44, 0, a);
    feed(plain, &x, 0, 44, 3, b);
    for (t = 0; t < 44; t++) {
      size_t at = (size_t)t * x.out_row;
      t_case("first %d, token %d", first, t);
      if (first == LONGCTX_FIRST_LOCAL)                /* tokens 31 and on fold at 36, as they go */
        CHECK_EQ(memcmp(a + at, b + at, sizeof(float) * x.out_row) == 0, t < 36);
      for (i = 0; i < 16 && first == LONGCTX_FIRST_ZERO && t < 36; i++)
        CHECK_NEAR(a[at + (size_t)i],
                   (double)b[at + (size_t)i] / (1.0 + exp((double)open_gates[i / 8])), 1e-6);
    }
    free(lc);
    free(plain);
    free(a);
    free(b);
    text_free(&x);
  }
}

/* The state is compared when all of them were tried. */
#define REFUSED(call, code) (CHECK_EQ(call, code), t_bad_input("%s, line %d", #call, __LINE__))

static void test_gate_arguments(void)
{
  longctx_layer layers[2];
  longctx_desc d = small(LINEAR, 4);
  float gates[2] = { 0.0f, NAN };
  longctx *lc;
  size_t n;
  unsigned char *before, *after;
  d.n_layers = 2;
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[1].memory = LONGCTX_MEMORY_NONE;
  d.layers = layers;
  lc = t_new(&d);
  before = t_state(lc, &n);
  t_case("gate arguments");
  REFUSED(longctx_set_gate(lc, 0, gates), LONGCTX_E_ARG);
  gates[1] = -NAN;
  REFUSED(longctx_set_gate(lc, 0, gates), LONGCTX_E_ARG);
  gates[1] = 1.0f;
  REFUSED(longctx_set_gate(lc, 1, gates), LONGCTX_E_ARG);    /* it has no memory                */
  REFUSED(longctx_set_gate(lc, 1, NULL), LONGCTX_E_ARG);
  REFUSED(longctx_set_gate(lc, -1, gates), LONGCTX_E_ARG);
  REFUSED(longctx_set_gate(lc, 2, gates), LONGCTX_E_ARG);
  REFUSED(longctx_set_gate(NULL, 0, gates), LONGCTX_E_ARG);
  after = t_state(lc, &n);
  CHECK_SAME(before, after, n);
  free(after);
  CHECK_EQ(longctx_set_gate(lc, 0, gates), LONGCTX_OK);
  after = t_state(lc, &n);
  CHECK(memcmp(before, after, n) != 0);
  free(before);
  free(after);
  free(lc);
}

/* The sigmoid, from one end to the other: ours has no library in it. */
static void test_sigmoid(void)
{
  double x;
  for (x = -100.0; x <= 100.0; x += 0.0371) {
    double want = 1.0 / (1.0 + exp(-(double)(float)x)), got = (double)lcx_sigmoid((float)x);
    t_case("sigmoid of %g", x);
    if (x <= -87.0) CHECK(!(got > 0.0));
    else CHECK_NEAR(got / want, 1.0, 2e-7);
  }
  for (x = 1.0; x > 1e-30; x *= 0.5) {                 /* down to the last bit of 2^-x's fraction */
    t_case("sigmoid of +-%g", x);
    CHECK_NEAR(lcx_sigmoid((float)x) + lcx_sigmoid((float)-x), 1.0, 1e-7);
    CHECK_NEAR(lcx_sigmoid((float)x), 1.0 / (1.0 + exp(-x)), 1e-7);
  }
}

/* ---- the same memory, however it came about -------------------------------------------------- */

/* After every token: the state is a function of the tokens, not of chunks, parts or drafts. */
static void test_progressive(void)
{
  size_t i;
  int rule, type;
  for (i = 0; i < 6; i++)
    for (rule = LINEAR; rule <= DELTA; rule++) {
      longctx_desc d = desc_of(&shapes[i], rule);
      text x = text_make(&d, 110, 70 + i), junk = text_make(&d, 110, 90);
      float *out = text_out(&x), *want = text_out(&x);
      longctx *one, *some, *drafty;
      int t, at = 0;
      type = (int)i % 4;
      d.type_k = type;
      d.type_v = (type + rule) % 4;
      one = new_at(&d, shapes[i].start, open_gates);
      some = new_at(&d, shapes[i].start, open_gates);
      drafty = new_at(&d, shapes[i].start, open_gates);
      for (t = 0; t < 110; t++) {
        int room = longctx_room(drafty), next;
        t_case("progressive: shape %d, rule %d, token %d", (int)i, rule, t);
        CHECK_EQ(longctx_room(one),
                 d.block - t % d.block < d.max_batch ? d.block - t % d.block : d.max_batch);
        feed(one, &x, t, t + 1, 1, want);
        text_step(drafty, &junk, t, t + room > 110 ? 110 - t : room, out);
        if (room > 1 && t + 1 < 110) {                 /* the right row, and one that is rejected */
          memcpy(text_q(&junk, 0, t), text_q(&x, 0, t), sizeof(float) * x.q_row);
          memcpy(text_k(&junk, 0, t), text_k(&x, 0, t), sizeof(float) * x.k_row);
          memcpy(text_v(&junk, 0, t), text_v(&x, 0, t), sizeof(float) * x.v_row);
          text_step(drafty, &junk, t, 2, out);
          CHECK_SAME(out + (size_t)t * x.out_row, want + (size_t)t * x.out_row,
                     sizeof(float) * x.out_row);
        } else {
          text_step(drafty, &x, t, 1, out);
        }
        CHECK_EQ(longctx_commit(drafty, 1), LONGCTX_OK);
        t_same_states(one, drafty);
        next = at + 1 + t % 13;
        if (next <= t + 1) {
          feed(some, &x, at, next, 0, out);
          at = next;
        }
        if (at == t + 1) t_same_states(one, some);
      }
      free(one);
      free(some);
      free(drafty);
      free(out);
      free(want);
      text_free(&x);
      text_free(&junk);
    }
}

/* The whole text in chunks of at most `chunk` and so many parts, the last one first; now and then a
   batch is read once more. */
static void run_parts(longctx *lc, const longctx_desc *d, const text *x, int chunk, float *out)
{
  int t, n, p;
  for (t = 0; t < x->tokens; t += n) {
    float *row = out + (size_t)t * x->out_row;
    n = longctx_room(lc) < chunk ? longctx_room(lc) : chunk;
    if (n > x->tokens - t) n = x->tokens - t;
    for (p = d->max_threads; p-- > 0;)
      CHECK_EQ(longctx_attend_part(lc, 0, n, text_q(x, 0, t), text_k(x, 0, t), text_v(x, 0, t),
                                   row, p, d->max_threads), LONGCTX_OK);
    CHECK_EQ(longctx_attend_join(lc, 0, n, row), LONGCTX_OK);
    if (t % 3 == 0)
      CHECK_EQ(longctx_attend(lc, 0, n, text_q(x, 0, t), NULL, NULL, row), LONGCTX_OK);
    CHECK_EQ(longctx_commit(lc, n), LONGCTX_OK);
  }
}

/* Every instruction set of a class and every number of parts: the same bytes, state and outputs;
   and once more after a reset, when parts may have left something behind. */
static void test_class(const shape *s, int rule, int fused, uint64_t seed)
{
  static const int counts[4] = { 1, 2, 3, 8 };
  longctx_desc d = desc_of(s, rule);
  text x = text_make(&d, s->tokens, seed);
  float *out = text_out(&x), *want = text_out(&x);
  longctx *first = NULL;
  int isa, i;
  d.type_k = (int)seed % 4;
  d.type_v = (int)seed / 2 % 4;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    for (i = 0; i < 4 && t_is_fused(longctx_isa_name(isa)) == fused; i++) {
      longctx *lc;
      d.max_threads = counts[i];
      t_case("class: window %d, block %d, rule %d, %s, %d parts", s->window, s->block, rule,
             longctx_isa_name(isa), counts[i]);
      lc = new_at(&d, s->start, open_gates);
      if (longctx_set_isa(lc, isa) != LONGCTX_OK) { free(lc); break; }
      run_parts(lc, &d, &x, 1 + 6 * i, first ? out : want);
      if (first == NULL) { first = lc; continue; }
      CHECK_SAME(out, want, sizeof(float) * text_out_floats(&x));
      t_same_states(first, lc);
      if (i == 3) {
        longctx_reset(lc);
        CHECK_EQ(longctx_seek(lc, s->start), LONGCTX_OK);
        run_parts(lc, &d, &x, 5, out);
        CHECK_SAME(out, want, sizeof(float) * text_out_floats(&x));
      }
      free(lc);
    }
  free(first);
  free(out);
  free(want);
  text_free(&x);
}

static void test_isas(void)
{
  size_t i;
  int rule, fused;
  for (i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (rule = LINEAR; rule <= DELTA; rule++)
      for (fused = 0; fused < 2; fused++) test_class(&shapes[i], rule, fused, 80 + i);
}

/* ---- life ------------------------------------------------------------------------------------ */

static longctx_desc living(longctx_layer *layers, int rule)
{
  longctx_desc d = longctx_desc_make(4, 4, 2, 6, 12);
  int l;
  d.head_dim_v = 5;
  d.block = 6;
  d.sinks = 2;
  d.max_batch = 4;
  d.type_k = LONGCTX_F16;
  d.type_v = LONGCTX_Q8;
  d.memory = rule;
  for (l = 0; l < 4; l++) layers[l] = longctx_layer_make(&d);
  layers[0].memory = LONGCTX_MEMORY_NONE;
  layers[0].block = 1;
  layers[1].memory = rule;
  layers[2].rope_base = 50.0;                          /* folds with layer 1, turns otherwise    */
  layers[3].window = 6;
  layers[3].kv_from = 1;
  d.layers = layers;
  return d;
}

/* At every token: saved and loaded, restored, copied, moved; all go on alike. */
static void test_life(void)
{
  int rule, t, i;
  for (rule = LINEAR; rule <= DELTA; rule++) {
    longctx_layer layers[4];
    longctx_desc d = living(layers, rule);
    size_t bytes = longctx_size(&d), n;
    text x = text_make(&d, 60, 11);
    float *want = text_out(&x), *got = text_out(&x);
    longctx *whole = new_at(&d, 12, open_gates), *lc = new_at(&d, 12, open_gates);
    feed(whole, &x, 0, 60, 0, want);
    for (t = 0; t < 50; t++) {
      unsigned char *state = t_state(lc, &n);
      int error = 99;
      for (i = 0; i < 4; i++) {
        void *mem = t_memory(bytes);
        longctx *next = (longctx *)mem;
        FILE *file = t_file(state, n);
        t_case("life: rule %d, token %d, way %d", rule, t, i);
        if (i == 0) next = longctx_load(mem, bytes, file, &error);
        if (i == 1) CHECK_EQ(longctx_copy(mem, bytes, lc), LONGCTX_OK);
        if (i == 2) {
          memcpy(mem, lc, bytes);
          next = longctx_open(mem, bytes, &error);
        }
        if (i == 3) {
          free(mem);
          mem = next = new_at(&d, 0, NULL);
          feed(next, &x, 0, 25, 0, got);
          CHECK_EQ(longctx_restore(next, file), LONGCTX_OK);
        }
        fclose(file);
        if (!CHECK(next != NULL)) { free(mem); continue; }
        t_same_states(lc, next);
        memcpy(got, want, sizeof(float) * text_out_floats(&x));
        feed(next, &x, t, 60, 0, got);
        CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
        t_same_states(next, whole);
        free(mem);
      }
      feed(lc, &x, t, t + 1, 1, got);
      free(state);
    }
    t_case("reset keeps gates, forgets memory");
    longctx_reset(lc);
    CHECK_EQ(longctx_position(lc), 0);
    free(whole);
    whole = new_at(&d, 0, open_gates);
    t_same_states(lc, whole);
    free(lc);
    free(whole);
    free(want);
    free(got);
    text_free(&x);
  }
}

/* Layers by the paper's equations, one of which reads another's rows and memory. */
static void test_layers(void)
{
  int rule, l;
  for (rule = LINEAR; rule <= DELTA; rule++) {
    longctx_layer layers[4];
    longctx_desc d = living(layers, rule);
    text x = text_make(&d, 80, 12);
    float *out = text_out(&x);
    longctx *lc;
    longctx_desc back;
    d.type_k = d.type_v = LONGCTX_F32;
    x.d = d;
    lc = new_at(&d, 12, open_gates);
    feed(lc, &x, 0, 80, 0, out);
    for (l = 1; l < 4; l++) {
      t_case("layers: rule %d, layer %d", rule, l);
      CHECK_NEAR(past_compare(&x, l, 12, open_gates, out, 0, 0), 0.0, 5e-6);
    }
    back = longctx_get_desc(lc);
    CHECK_EQ(back.layers[0].memory, LONGCTX_MEMORY_NONE);
    CHECK_EQ(back.layers[3].memory, rule);
    CHECK_EQ(back.memory, rule);
    CHECK(longctx_check(&back) == NULL);
    free(lc);
    free(out);
    text_free(&x);
  }
}

static void test_seek(void)
{
  longctx_desc d = small(LINEAR, 6);
  longctx *lc = t_new(&d);
  t_case("seek");
  CHECK_EQ(longctx_seek(lc, 3), LONGCTX_E_ARG);
  CHECK_EQ(longctx_seek(lc, ((int64_t)6 << 40) + 1), LONGCTX_E_ARG);
  CHECK_EQ(longctx_position(lc), 0);
  CHECK_EQ(longctx_seek(lc, (int64_t)6 << 40), LONGCTX_OK);
  CHECK_EQ(longctx_room(lc), 6);
  free(lc);
}

/* ---- numbers that are not -------------------------------------------------------------------- */

/* A bad row is not folded into its KV head: later outputs are those of a text in which the row
   is left out: compared are M and z, with those of a twin whose row is good. */
static void test_bad_rows(void)
{
  static const float bads[5] = { NAN, INFINITY, -INFINITY, 4.2e6f, -3e38f };
  static const double room[4] = { 1e-5, 4e-3, 0.04, 0.04 };
  int rule, type, b, in_v, ropes, t, i, e;
  for (rule = LINEAR; rule <= DELTA; rule++)
    for (type = 0; type < 4; type++)
      for (b = 0; b < 5; b++)
        for (in_v = 0; in_v < 2; in_v++)
          for (ropes = 0; ropes < 2; ropes++) {
            longctx_desc d = longctx_desc_make(1, 4, 2, 8, 8);
            text x, y;
            float *out, *clean;
            longctx *lc, *twin;
            const float *settled, *other;
            d.block = 8;
            d.max_batch = 8;
            d.memory = rule;
            d.type_k = d.type_v = type;
            if (ropes == 0) d.rope = LONGCTX_ROPE_NONE;
            x = text_make(&d, 64, 13);
            y = text_make(&d, 64, 13);
            out = text_out(&x);
            clean = text_out(&x);
            if (in_v) text_v(&x, 0, 12)[3] = bads[b];
            else text_k(&x, 0, 12)[3] = bads[b];
            lc = new_at(&d, 0, open_gates);
            twin = new_at(&d, 0, open_gates);
            feed(lc, &x, 0, 64, 0, out);
            feed(twin, &y, 0, 64, 0, clean);
            t_case("bad %g in %s, rule %d, %s, rope %d", (double)bads[b], in_v ? "v" : "k", rule,
                   t_type_names[type], ropes);
            CHECK(t_all_finite(out, text_out_floats(&x)));
            for (t = 16; t < 64; t++)                  /* the other KV head saw nothing of it    */
              CHECK_SAME(out + (size_t)t * x.out_row + 16, clean + (size_t)t * x.out_row + 16,
                         16 * sizeof(float));
            for (t = 16; t < 64; t++)                  /* and in its own it made no storm        */
              for (i = 0; i < 16; i++) CHECK(fabsf(out[(size_t)t * x.out_row + (size_t)i]) < 20);
            settled = lcx_memory_at(lc, lcx_layer_of(lc, 0), 0);
            other = lcx_memory_at(twin, lcx_layer_of(twin, 0), 0);
            for (i = 0; i < 8; i++) {                  /* z lacks just this token's features     */
              double k = (double)text_k(&y, 0, 12)[i], less = elu_plus_one(k);
              CHECK_NEAR(settled[16 * 8 + i] + less, other[16 * 8 + i], room[type]);
              for (e = 0; e < 8 && rule == LINEAR; e++)    /* and M just what it would have added */
                CHECK_NEAR(settled[16 * i + e] + less * (double)text_v(&y, 0, 12)[e],
                           other[16 * i + e], room[type]);
            }
            free(lc);
            free(twin);
            free(out);
            free(clean);
            text_free(&x);
            text_free(&y);
          }
}

/* A query that is no number: NaN in its row of its head, nothing anywhere else. */
static void test_bad_queries(void)
{
  int parts, t, h, i;
  for (parts = 1; parts < 4; parts++) {
    longctx_desc d = longctx_desc_make(1, 3, 1, 8, 8);
    text x, y;
    float *out, *clean;
    longctx *lc, *twin;
    int p;
    d.block = 8;
    d.max_batch = 8;
    d.max_threads = parts;
    d.memory = LINEAR;
    x = text_make(&d, 40, 14);
    y = text_make(&d, 40, 14);
    out = text_out(&x);
    clean = text_out(&x);
    text_q(&x, 0, 21)[8 + 2] = NAN;
    text_q(&x, 0, 30)[16 + 7] = -INFINITY;
    lc = new_at(&d, 0, open_gates);
    twin = new_at(&d, 0, open_gates);
    feed(twin, &y, 0, 40, 0, clean);
    for (t = 0; t < 40; t += 4) {
      float *row = out + (size_t)t * x.out_row;
      for (p = 0; p < parts; p++)
        CHECK_EQ(longctx_attend_part(lc, 0, 4, text_q(&x, 0, t), text_k(&x, 0, t),
                                     text_v(&x, 0, t), row, p, parts), LONGCTX_OK);
      CHECK_EQ(longctx_attend_join(lc, 0, 4, row), LONGCTX_OK);
      CHECK_EQ(longctx_commit(lc, 4), LONGCTX_OK);
    }
    for (t = 0; t < 40; t++)
      for (h = 0; h < 3; h++) {
        const float *a = out + (size_t)t * x.out_row + 8 * h;
        const float *b = clean + (size_t)t * x.out_row + 8 * h;
        t_case("bad query: %d parts, token %d, head %d", parts, t, h);
        if ((t == 21 && h == 1) || (t == 30 && h == 2))
          for (i = 0; i < 8; i++) CHECK(isnan(a[i]));
        else
          CHECK_SAME(a, b, 8 * sizeof(float));
      }
    free(lc);
    free(twin);
    free(out);
    free(clean);
    text_free(&x);
    text_free(&y);
  }
}

/* Numbers as large as they may be, everywhere: nothing becomes NaN or infinite. */
static void test_extremes(void)
{
  static const float sizes[6] = { 4e6f, 1e38f, 65503.0f, 1e-38f, 80.0f, -5e11f };
  int rule, a, b, i;
  for (rule = LINEAR; rule <= DELTA; rule++)
    for (a = 0; a < 6; a++)
      for (b = 0; b < 6; b++) {
        longctx_desc d = small(rule, 4);
        text x = text_make(&d, 60, 15);
        float *out = text_out(&x);
        longctx *lc;
        d.type_k = (a + b) % 4;
        d.type_v = a % 4;
        for (i = 0; i < 60; i++) {
          int e;
          for (e = 0; e < 8; e++) {
            text_k(&x, 0, i)[e] *= i % 3 ? 1.0f : sizes[a];
            text_v(&x, 0, i)[e] *= i % 3 ? 1.0f : sizes[b];
            text_q(&x, 0, i)[e] *= sizes[(a + b) % 6] / 2;
          }
        }
        lc = new_at(&d, 0, open_gates);
        feed(lc, &x, 0, 60, 0, out);
        t_case("extremes: rule %d, k %g, v %g", rule, (double)sizes[a], (double)sizes[b]);
        CHECK(t_all_finite(out, text_out_floats(&x)));
        free(lc);
        free(out);
        text_free(&x);
      }
}

/* The loudest rows that are folded, all alike: what is recalled of them is as loud, not more. */
static void test_loud(void)
{
  enum { DIM = 64, TOKENS = 6000 };
  int rule, t, i;
  for (rule = LINEAR; rule <= DELTA; rule++) {
    longctx_desc d = longctx_desc_make(1, 1, 1, DIM, 16);
    float q[DIM], k[DIM], v[DIM], out[DIM];
    longctx *lc;
    d.block = 16;
    d.rope = LONGCTX_ROPE_NONE;
    d.type_k = d.type_v = LONGCTX_F32;
    d.memory = rule;
    lc = new_at(&d, 0, open_gates);
    for (i = 0; i < DIM; i++) q[i] = 1e12f, k[i] = v[i] = 4.19e6f;
    for (t = 0; t < TOKENS; t++) {
      t_case("loud: rule %d, token %d", rule, t);
      CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out) || longctx_commit(lc, 1), LONGCTX_OK);
      CHECK(out[DIM - 1] <= 1.0001f * v[0] && out[DIM - 1] > 0);
      if (rule == LINEAR) CHECK_NEAR(out[DIM - 1], v[0], 1e-4 * (double)v[0]);
    }
    free(lc);
  }
}

/* ---- adding ---------------------------------------------------------------------------------- */

/* Shards of a text, folded apart, sum to the memory of the whole; layer 1 may have none. */
static void test_add(int layer_1)
{
  longctx_desc d = longctx_desc_make(2, 4, 2, 12, 8);
  longctx_layer layers[2];
  text x;
  float *out, a[48], b[48];
  longctx *whole, *left, *right, *one, *many;
  int i;
  size_t n;
  unsigned char *before, *after;
  d.block = 8;
  d.max_batch = 8;
  d.memory = LINEAR;
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[1].memory = layer_1;
  d.layers = layers;
  x = text_make(&d, 80, 16);
  out = text_out(&x);
  whole = new_at(&d, 0, all_of_it);
  left = new_at(&d, 0, all_of_it);
  right = new_at(&d, 40, all_of_it);
  feed(whole, &x, 0, 80, 0, out);
  feed(left, &x, 0, 40, 0, out);
  feed(right, &x, 40, 80, 0, out);
  before = t_state(left, &n);
  t_case("add, layer 1 by rule %d", layer_1);
  CHECK_EQ(longctx_memory_add(right, left), LONGCTX_OK);
  CHECK_EQ(longctx_position(right), 80);
  after = t_state(left, &n);
  CHECK_SAME(before, after, n);                        /* src is only read                       */
  ask(whole, x.q, x.k, x.v, a);
  ask(right, x.q, x.k, x.v, b);
  for (i = 0; i < 48; i++) CHECK_NEAR(a[i], b[i], 2e-6);
  free(before);
  free(after);
  t_case("add, layer 1 by rule %d, other max_threads: other places", layer_1);
  one = new_at(&d, 0, all_of_it);
  d.max_threads = 3;
  many = new_at(&d, 0, all_of_it);
  CHECK_EQ(longctx_memory_add(one, left), LONGCTX_OK);
  CHECK_EQ(longctx_memory_add(many, left), LONGCTX_OK);
  before = t_state(one, &n);
  after = t_state(many, &n);
  CHECK_SAME(before, after, n);
  free(after);
  longctx_reset(one);
  CHECK_EQ(longctx_memory_add(one, many), LONGCTX_OK);
  after = t_state(one, &n);
  CHECK_SAME(before, after, n);
  free(before);
  free(after);
  free(one);
  free(many);
  longctx_reset(left);                                 /* added to an empty one: it remembers    */
  CHECK_EQ(longctx_memory_add(left, right), LONGCTX_OK);
  CHECK_EQ(longctx_position(left), 0);
  CHECK_EQ(longctx_seek(left, 16), LONGCTX_OK);
  ask(left, x.q, x.k, x.v, b);
  for (i = 0; i < 48; i++) CHECK_NEAR(a[i], b[i], 2e-6);
  free(whole);
  free(left);
  free(right);
  free(out);
  text_free(&x);
}

/* Of a shard that ends within a block only what has settled counts. */
static void test_add_within(void)
{
  longctx_desc d = small(LINEAR, 64);
  text x = text_make(&d, 120, 18);
  float *out = text_out(&x);
  longctx *whole = new_at(&d, 0, NULL), *more = new_at(&d, 0, NULL);
  longctx *a = new_at(&d, 0, NULL), *b = new_at(&d, 0, NULL);
  feed(whole, &x, 0, 64, 0, out);
  feed(more, &x, 0, 120, 0, out);
  t_case("add, within a block");
  CHECK_EQ(longctx_memory_add(a, whole), LONGCTX_OK);
  CHECK_EQ(longctx_memory_add(b, more), LONGCTX_OK);
  t_same_states(a, b);
  free(whole), free(more), free(a), free(b);
  free(out);
  text_free(&x);
}

/* While a block fills, all its tokens but the last few are on their way, 16 at a time. */
static void test_schedule(void)
{
  longctx_desc d = small(LINEAR, 64);
  text x = text_make(&d, 64, 19);
  float *out = text_out(&x);
  longctx *lc = new_at(&d, 0, NULL);
  const float *way;
  int t, u;
  for (t = 0; t < 63; t++) {
    double sum = 0.0;
    feed(lc, &x, t, t + 1, 1, out);
    way = lcx_memory_at(lc, lcx_layer_of(lc, 0), 0) + lcx_memory_of(lc).floats;
    for (u = 0; u < (t + 1) / 16 * 16; u++) sum += elu_plus_one((double)text_k(&x, 0, u)[0]);
    t_case("folded after token %d", t);
    CHECK_NEAR(way[16 * 8], sum, 1e-4);
  }
  free(lc);
  free(out);
  text_free(&x);
}

static void test_add_refused(void)
{
  longctx_desc d = small(LINEAR, 8), e = small(LINEAR, 4), f = small(DELTA, 8);
  longctx_desc g = small(LONGCTX_MEMORY_NONE, 8), threads = d;
  longctx_layer layers[2];
  longctx *a = t_new(&d), *b = t_new(&e), *c = t_new(&f), *c2 = t_new(&f), *n1 = t_new(&g);
  longctx *n2 = t_new(&g), *many;
  text x = text_make(&f, 20, 17);
  float *out = text_out(&x);
  size_t n;
  unsigned char *before, *after;
  threads.max_threads = 3;
  many = t_new(&threads);
  feed(a, &x, 0, 20, 0, out);
  feed(c, &x, 0, 20, 0, out);
  feed(c2, &x, 0, 20, 0, out);
  t_case("add, refused");
  before = t_state(c, &n);
  REFUSED(longctx_memory_add(NULL, a), LONGCTX_E_ARG);
  REFUSED(longctx_memory_add(a, NULL), LONGCTX_E_ARG);
  REFUSED(longctx_memory_add(a, a), LONGCTX_E_ARG);
  REFUSED(longctx_memory_add(c, a), LONGCTX_E_MISMATCH);
  REFUSED(longctx_memory_add(c, b), LONGCTX_E_MISMATCH);
  REFUSED(longctx_memory_add(c, c2), LONGCTX_E_DESC);
  REFUSED(longctx_memory_add(n1, n2), LONGCTX_E_DESC);
  after = t_state(c, &n);
  CHECK_SAME(before, after, n);
  CHECK_EQ(longctx_memory_add(many, a), LONGCTX_OK);   /* max_threads is not part of a desc      */
  free(before);
  free(after);
  free(b);
  d.n_layers = 2;                                      /* one layer of the delta rule is enough  */
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[1].memory = DELTA;
  d.layers = layers;
  b = t_new(&d);
  REFUSED(longctx_memory_add(a, b), LONGCTX_E_MISMATCH);     /* a has one layer                 */
  free(c);
  c = t_new(&d);
  before = t_state(b, &n);
  REFUSED(longctx_memory_add(b, c), LONGCTX_E_DESC);
  after = t_state(b, &n);
  CHECK_SAME(before, after, n);
  free(before);
  free(after);
  free(a), free(b), free(c), free(c2), free(n1), free(n2), free(many);
  free(out);
  text_free(&x);
}

/* ---- for ever -------------------------------------------------------------------------------- */

/* Sums of 2 * 10^8 parts: what one takes in at last is what it took in at first, on every path. */
static void test_never_stalls(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 2, 1);
  longctx *lc = t_new(&d);
  int isa;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    float x[16], way[16];
    double want[16];
    int i, n, rounds = 3000000;
    if (longctx_set_isa(lc, isa) != LONGCTX_OK) continue;
    memset(x, 0, sizeof x);
    memset(way, 0, sizeof way);
    for (i = 0; i < 16; i++) want[i] = 0.0;
    for (n = 0; n < rounds; n++) {
      for (i = 0; i < 16; i++) way[i] += 1.1f + 0.07f * (float)i;
      lcx_kernels_of(isa)->sum(x, way, way, 16, 0);
    }
    for (i = 0; i < 16; i++) {
      want[i] = (double)(1.1f + 0.07f * (float)i) * rounds;
      t_case("never stalls: %s, lane %d", longctx_isa_name(isa), i);
      CHECK_NEAR(((double)x[i] + (double)way[i]) / want[i], 1.0, 3e-7);
    }
  }
  free(lc);
}

/* The real thing: so many tokens through attend and commit, and z against the sum in double. */
static void soak(long tokens, int block)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 4, block);
  float q[16 * 4], k[16 * 4], v[16 * 4], out[16 * 4];
  double sum[4] = { 0, 0, 0, 0 }, big[4] = { 0, 0, 0, 0 }, worst = 0.0;
  uint64_t seed = 3;
  longctx *lc;
  const float *settled;
  long t;
  int i, e;
  d.rope = LONGCTX_ROPE_NONE;
  d.block = block;
  d.max_batch = 16;
  d.memory = LINEAR;
  lc = t_new(&d);
  memset(q, 0, sizeof q);
  for (t = 0; t < tokens; t += 16) {
    for (i = 0; i < 16 * 4; i++) {
      k[i] = (float)((int)(t_u64(&seed) >> 52) - 2048) / 1024.0f;
      v[i] = (float)(int)(t_u64(&seed) >> 52) / 4096.0f;
    }
    for (i = 0; i < 16; i++)
      for (e = 0; e < 4; e++) {
        double s = elu_plus_one((double)k[4 * i + e]);
        sum[e] += s;
        big[e] += s * (double)v[4 * i];
      }
    if (longctx_attend(lc, 0, 16, q, k, v, out) != LONGCTX_OK ||
        longctx_commit(lc, 16) != LONGCTX_OK)
      FAIL("refused");
  }
  settled = lcx_memory_at(lc, lcx_layer_of(lc, 0), 0);
  for (e = 0; e < 4; e++) {
    double z = (double)settled[16 * 4 + e] / sum[e], m = (double)settled[16 * e] / big[e];
    worst = t_worse(worst, t_worse(fabs(z - 1.0), fabs(m - 1.0)));
  }
  printf("after %ld tokens M and z are right to %.1e\n", tokens, worst);
  t_case("soak of %ld tokens", tokens);
  CHECK_NEAR(worst, 0.0, 1e-6);
  free(lc);
}

int main(void)
{
  const char *more = getenv("LONG");
  test_paper();
  test_golden();
  test_order();
  test_binding();
  test_convex();
  test_nowhere();
  test_closed();
  test_one_closed();
  test_first();
  test_gate_arguments();
  test_sigmoid();
  test_progressive();
  test_isas();
  test_life();
  test_layers();
  test_seek();
  test_bad_rows();
  test_bad_queries();
  test_extremes();
  test_loud();
  test_add(LINEAR);
  test_add(LONGCTX_MEMORY_NONE);
  test_add_within();
  test_schedule();
  test_add_refused();
  test_never_stalls();
  soak(1 << 20, 16);
  if (more != NULL && more[0] == '1') soak(100000000, 16);
  return t_done();
}
