/* attend.c: the numbers. Every shape against the oracle, the error of every stored type, and what
   non-finite input may and may not do. */
#include "oracle.h"
#include "text.h"

/* ---- comparing ------------------------------------------------------------------------------- */

typedef struct error { double sum, norm, worst; int bad; } error;

static void error_add(error *e, const float *got, const double *want, size_t n)
{
  size_t i;
  for (i = 0; i < n; i++) {
    double off = fabs((double)got[i] - want[i]);
    if (!(off < 1e30)) e->bad++;
    e->sum += off * off;
    e->norm += want[i] * want[i];
    e->worst = fmax(e->worst, off);
  }
}

static double error_rms(const error *e)                /* relative to the output's own size      */
{
  if (e->bad) return 1e9;
  return e->norm > 0.0 ? sqrt(e->sum / e->norm) : sqrt(e->sum);
}

/* Rows from `first` on against the oracle; `stored` models what storage loses. */
static error compare(const text *x, const float *out, int first, const float *logits, int stored)
{
  error e = { 0.0, 0.0, 0.0, 0 };
  oracle o = oracle_make(&x->d, 0);
  double *want = (double *)malloc(sizeof(double) * x->out_row);
  int t;
  if (want == NULL) exit(1);
  o.logits = logits;
  if (stored) o.type_k = x->d.type_k, o.type_v = x->d.type_v;
  oracle_push(&o, x->tokens, x->k, x->v);
  for (t = first; t < x->tokens; t++) {
    oracle_row(&o, t, text_q(x, 0, t), want, NULL);
    error_add(&e, out + (size_t)t * x->out_row, want, x->out_row);
  }
  free(want);
  oracle_free(&o);
  return e;
}

static float *run(const text *x, const float *logits, int chunk)
{
  float *out = text_out(x);
  longctx *lc = t_new(&x->d);
  CHECK_EQ(longctx_set_sink_logits(lc, 0, logits), LONGCTX_OK);
  text_run(lc, x, 0, x->tokens, chunk, out);
  free(lc);
  return out;
}

/* A text of its own, run, and how far it is off. */
static double off_by(const longctx_desc *d, int tokens, uint64_t seed, const float *logits,
                     int chunk, int stored)
{
  static const double most[4] = { 1e-5, 1e-2, 4e-2, 1e-1 };    /* beside what storage loses     */
  text x = text_make(d, tokens, seed);
  float *out = run(&x, logits, chunk);
  error e = compare(&x, out, 0, logits, stored), own = compare(&x, out, 0, logits, 1);
  int type = d->type_k > d->type_v ? d->type_k : d->type_v;
  CHECK_NEAR(own.worst, 0.0, most[type]);              /* no single number is far off            */
  free(out);
  text_free(&x);
  return error_rms(&e);
}

/* ---- the oracle itself ----------------------------------------------------------------------- */

/* Turning to 2^40 + n and back by 2^40 must be turning by n. */
static void test_oracle_angles(void)
{
  static const double freqs[] = { 1.0, 0.7498942093324559, 0.01, 1e-4, 3.0 };
  const double far = 1099511627776.0;
  int i, n;
  for (i = 0; i < 5; i++)
    for (n = 0; n < 50; n++) {
      double c, s, c0, s0, c1, s1;
      oracle_angle(far + n, freqs[i], &c, &s);
      oracle_angle(far, freqs[i], &c0, &s0);
      oracle_angle(n, freqs[i], &c1, &s1);
      t_case("oracle angle, frequency %g, distance %d", freqs[i], n);
      CHECK_NEAR(c * c0 + s * s0, c1, 1e-14);
      CHECK_NEAR(s * c0 - c * s0, s1, 1e-14);
    }
}

static void test_oracle_slopes(void)                   /* as printed for 8 and for 12 heads      */
{
  longctx_desc d = longctx_desc_make(1, 12, 12, 8, 4);
  oracle o = oracle_make(&d, 0);
  t_case("oracle slopes");
  o.alibi = 8.0;
  CHECK_NEAR(oracle_slope(&o, 0), 0.5, 1e-15);
  CHECK_NEAR(oracle_slope(&o, 7), 0.00390625, 1e-15);
  CHECK_NEAR(oracle_slope(&o, 8), 0.7071067811865476, 1e-15);
  CHECK_NEAR(oracle_slope(&o, 11), 0.08838834764831845, 1e-15);
  o.heads = 8;
  CHECK_NEAR(oracle_slope(&o, 2), 0.125, 1e-15);
}

/* ---- the grid -------------------------------------------------------------------------------- */

static const int dims[] = { 1, 2, 3, 8, 24, 48, 64, 80, 96, 128, 192, 256, 576 };
static const int ratios[] = { 1, 2, 3, 4, 6, 7, 8 };

static void grid_rope(longctx_desc *d, uint64_t *seed)
{
  static double freqs[288];
  int i, even = d->head_dim / 2 * 2;
  d->rope = even ? t_below(seed, 3) : LONGCTX_ROPE_NONE;
  d->rope_dims = even > 2 && t_below(seed, 3) == 0 ? even / 4 * 2 : even;
  if (t_below(seed, 3) == 0) d->rope_base = 500000.0;
  if (t_below(seed, 4) == 0) d->rope_mscale = 1.25;
  if (t_below(seed, 4)) return;
  for (i = 0; i < 288; i++) freqs[i] = 3.0 * exp(-0.05 * i);
  d->rope_freqs = freqs;
}

static longctx_desc grid_desc(int dim, int ratio, uint64_t *seed)
{
  static const int other[] = { 0, 0, 1, 5, 16, 40, 72, 130 };
  int kv = 1 + t_below(seed, 3);
  longctx_desc d = longctx_desc_make(1, kv * ratio, kv, dim, 30);
  d.sinks = t_below(seed, 2) * 4;
  d.max_batch = 1 + t_below(seed, 20);
  d.head_dim_v = other[t_below(seed, 8)];
  d.positions = t_below(seed, 2);
  grid_rope(&d, seed);
  if (t_below(seed, 3) == 0) d.block = 10;
  if (t_below(seed, 4) == 0) d.softcap = t_below(seed, 2) ? 2.0f : 0.4f;
  if (t_below(seed, 4) == 0) d.alibi_max_bias = 8.0f;
  if (t_below(seed, 4) == 0) d.scale = 0.4f / sqrtf((float)dim);
  return d;
}

static double try_grid(longctx_desc d, int type, const float *logits, uint64_t *seed)
{
  d.type_k = type;
  d.type_v = type;
  return off_by(&d, 75, t_u64(seed), logits, 0, 0);
}

static void test_grid(void)
{
  static const float logits[24] = { 0.5f, -1.0f, 2.0f, 0.0f, 1.0f, -3.0f, 0.1f, 0.7f };
  static const double room[4] = { 2e-6, 1e-3, 8e-3, 3e-2 };
  double worst[4] = { 0.0, 0.0, 0.0, 0.0 };
  uint64_t seed = 2024;
  size_t i, j;
  int type;
  for (i = 0; i < sizeof dims / sizeof *dims; i++)
    for (j = 0; j < sizeof ratios / sizeof *ratios; j++) {
      longctx_desc d = grid_desc(dims[i], ratios[j], &seed);
      const float *sink = t_below(&seed, 3) == 0 ? logits : NULL;
      for (type = 0; type < 4; type++) {
        double rms;
        if (type && (int)(i + j) % 3 != type - 1) continue;
        t_case("head_dim %d dim_v %d heads %d/%d rope %d of %d alibi %g softcap %g type %s",
               dims[i], d.head_dim_v, d.n_heads, d.n_kv_heads, d.rope, d.rope_dims,
               (double)d.alibi_max_bias, (double)d.softcap, t_type_names[type]);
        rms = try_grid(d, type, sink, &seed);
        CHECK_NEAR(rms, 0.0, room[type]);
        worst[type] = fmax(worst[type], rms);
      }
    }
  for (type = 0; type < 4; type++)
    printf("grid, %s: worst relative error %.2g\n", t_type_names[type], worst[type]);
}

/* ALiBi for every number of heads, a power of two or not; biases are small, so that far keys
   count. Distances do not depend on where the text starts, and so the oracle starts at 0. */
static void try_alibi(int heads, int positions, int64_t start)
{
  longctx_desc d = longctx_desc_make(1, heads, heads % 2 ? 1 : 2, 8, 25);
  text x;
  float *out;
  longctx *lc;
  error e;
  d.rope = LONGCTX_ROPE_NONE;
  d.alibi_max_bias = heads % 3 ? 8.0f : 12.0f;
  d.sinks = 2;
  d.positions = positions;
  x = text_make(&d, 60, (uint64_t)heads);
  out = text_out(&x);
  lc = t_new(&d);
  t_case("alibi, %d heads, positions %d, start %ld", heads, positions, (long)start);
  CHECK_EQ(longctx_seek(lc, start), LONGCTX_OK);
  text_run(lc, &x, 0, x.tokens, 1, out);
  e = compare(&x, out, 0, NULL, 0);
  CHECK_NEAR(error_rms(&e), 0.0, 2e-6);
  free(lc);
  free(out);
  text_free(&x);
}

static void test_alibi(void)
{
  int heads;
  for (heads = 1; heads <= 20; heads++) {
    try_alibi(heads, LONGCTX_POS_CACHE, 0);
    try_alibi(heads, LONGCTX_POS_TEXT, 0);
    try_alibi(heads, LONGCTX_POS_CACHE, 1000);
    try_alibi(heads, LONGCTX_POS_TEXT, (int64_t)1 << 40);
  }
}

/* A call of more rows than pass over the keys at once: 600, the passes' border inside a token. */
static void test_passes(void)
{
  int type, isa;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    for (type = 0; type < 4; type++) {
      longctx_desc d = longctx_desc_make(1, 5, 1, 12, 70);
      longctx *lc;
      text x;
      float *want, *got;
      d.sinks = 3;
      d.max_batch = 120;
      d.type_k = d.type_v = type;
      lc = t_new(&d);
      x = text_make(&d, 240, 71);
      want = text_out(&x);
      got = text_out(&x);
      t_case("rows in passes, %s, type %d", longctx_isa_name(isa), type);
      if (longctx_set_isa(lc, isa) == LONGCTX_OK) {
        text_run(lc, &x, 0, 240, 1, want);
        longctx_reset(lc);
        text_run(lc, &x, 0, 240, 120, got);
        CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
      }
      free(lc);
      free(want);
      free(got);
      text_free(&x);
    }
}

/* ---- the stored types ------------------------------------------------------------------------ */

/* 4096 keys of N(0, 1), head_dim 128: what a stored type costs, and the header's own share. */
static void test_types(void)
{
  static const double room[4] = { 2e-6, 4e-4, 3e-3, 1.2e-2 };
  static const double own_room[4] = { 2e-6, 2e-5, 2e-5, 7e-3 };
  longctx_desc d = longctx_desc_make(1, 4, 2, 128, 4096);
  int type;
  d.max_batch = 64;
  for (type = 0; type < 4; type++) {
    text x;
    float *out;
    error e, own;
    d.type_k = type;
    d.type_v = type;
    x = text_make(&d, 4096 + 8, 99);
    out = run(&x, NULL, 64);
    e = compare(&x, out, 4096 - 8, NULL, 0);
    own = compare(&x, out, 4096 - 8, NULL, 1);
    printf("4096 keys, head_dim 128, %s: relative RMS error %.3g of %.2g allowed, "
           "%.2g beside rounding\n", t_type_names[type], error_rms(&e), room[type],
           error_rms(&own));
    t_case("type %s", t_type_names[type]);
    CHECK_NEAR(error_rms(&e), 0.0, room[type]);
    CHECK_NEAR(error_rms(&own), 0.0, own_room[type]);
    free(out);
    text_free(&x);
  }
}

/* A query or keys of zeros see all alike: the mean of the values, whatever is stored. */
static void test_zeros(void)
{
  static const double room[4] = { 1e-6, 1e-3, 1e-2, 4e-2 };
  int type, keys, isa, t, u, i;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    for (type = 0; type < 4; type++)
      for (keys = 0; keys < 2; keys++) {
        longctx_desc d = longctx_desc_make(1, 3, 1, 12, 20);
        longctx *lc;
        text x;
        float *out;
        d.type_k = d.type_v = type;
        lc = t_new(&d);
        if (longctx_set_isa(lc, isa) != LONGCTX_OK) { free(lc); continue; }
        x = text_make(&d, 50, 61);
        out = text_out(&x);
        memset(keys ? x.k : x.q, 0, sizeof(float) * 50 * (keys ? x.k_row : x.q_row));
        text_run(lc, &x, 0, 50, 1, out);
        for (t = 0; t < 50; t++)
          for (i = 0; i < 3 * 12; i++) {
            int seen = t < 20 ? t + 1 : 20;
            double mean = 0.0;
            for (u = t + 1 - seen; u <= t; u++) mean += (double)text_v(&x, 0, u)[i % 12] / seen;
            t_case("%s, type %d, zero %s, token %d", longctx_isa_name(isa), type,
                   keys ? "keys" : "queries", t);
            CHECK_NEAR(out[(size_t)t * x.out_row + (size_t)i], mean, room[type]);
          }
        free(lc);
        free(out);
        text_free(&x);
      }
}

/* Without rope the stored key is the caller's, rounded: then nothing but arithmetic is left. */
static void test_rounding_model(void)
{
  int type_k, type_v;
  for (type_k = 0; type_k < 3; type_k++)
    for (type_v = 0; type_v < 3; type_v++) {
      longctx_desc d = longctx_desc_make(1, 4, 2, 32, 90);
      d.rope = LONGCTX_ROPE_NONE;
      d.sinks = 3;
      d.max_batch = 7;
      d.type_k = type_k;
      d.type_v = type_v;
      t_case("rounded keys %d values %d", type_k, type_v);
      CHECK_NEAR(off_by(&d, 250, 55, NULL, 7, 1), 0.0, 2e-6);
    }
}

/* Sinks are kept in float32 whatever the window holds. */
static void test_sinks_exact(void)
{
  longctx_desc d = longctx_desc_make(1, 2, 1, 64, 1);
  d.sinks = 50;
  d.type_k = LONGCTX_Q8;
  d.type_v = LONGCTX_Q8;
  d.max_batch = 5;
  t_case("sinks of an int8 cache");
  CHECK_NEAR(off_by(&d, 50, 5, NULL, 5, 0), 0.0, 2e-6);
}

/* ---- laws ------------------------------------------------------------------------------------ */

static void visible_range(const text *x, const oracle *o, int t, int head, int d, float *lo,
                          float *hi)
{
  int j, g = head / (o->heads / o->kv_heads);
  *lo = FLT_MAX;
  *hi = -FLT_MAX;
  for (j = 0; j <= t; j++)
    if (oracle_sees(o, t, j)) {
      float v = text_v(x, 0, j)[g * o->dim_v + d];
      if (v < *lo) *lo = v;
      if (v > *hi) *hi = v;
    }
}

/* An output is an average of values: it lies among them. */
static void test_convex(void)
{
  longctx_desc d = longctx_desc_make(1, 4, 2, 16, 20);
  text x;
  float *out;
  oracle o;
  int t, h, i;
  d.sinks = 2;
  x = text_make(&d, 120, 17);
  for (i = 0; i < 120 * 4 * 16; i++) x.q[i] *= 9.0f;   /* from flat to one-sided                 */
  out = run(&x, NULL, 1);
  o = oracle_make(&d, 0);
  t_case("convex");
  for (t = 0; t < 120; t++)
    for (h = 0; h < 4; h++)
      for (i = 0; i < 16; i++) {
        float lo, hi, y = out[(t * 4 + h) * 16 + i];
        visible_range(&x, &o, t, h, i, &lo, &hi);
        CHECK(y >= lo - 1e-6f && y <= hi + 1e-6f);
      }
  oracle_free(&o);
  free(out);
  text_free(&x);
}

/* Values times a power of two: outputs times that power, exactly. */
static void test_power_of_two(void)
{
  longctx_desc d = longctx_desc_make(1, 4, 2, 16, 70);
  text x;
  float *a, *b;
  size_t i;
  d.sinks = 2;
  x = text_make(&d, 150, 18);
  a = run(&x, NULL, 1);
  for (i = 0; i < 150 * x.v_row; i++) x.v[i] *= 1024.0f;
  b = run(&x, NULL, 1);
  for (i = 0; i < text_out_floats(&x); i++) a[i] *= 1024.0f;
  t_case("power of two");
  CHECK_SAME(a, b, sizeof(float) * text_out_floats(&x));
  free(a);
  free(b);
  text_free(&x);
}

/* Rows, heads and KV heads do not see each other. */
static void test_heads_apart(void)
{
  longctx_desc wide = longctx_desc_make(1, 6, 2, 24, 33), one = longctx_desc_make(1, 3, 1, 24, 33);
  text x, y;
  float *a, *b;
  int t;
  wide.sinks = one.sinks = 3;
  wide.max_batch = one.max_batch = 11;
  x = text_make(&wide, 100, 19);
  y = text_make(&one, 100, 20);
  for (t = 0; t < 100; t++) {                          /* y is the second KV head of x           */
    memcpy(text_q(&y, 0, t), text_q(&x, 0, t) + 3 * 24, sizeof(float) * 3 * 24);
    memcpy(text_k(&y, 0, t), text_k(&x, 0, t) + 24, sizeof(float) * 24);
    memcpy(text_v(&y, 0, t), text_v(&x, 0, t) + 24, sizeof(float) * 24);
  }
  a = run(&x, NULL, 11);
  b = run(&y, NULL, 4);
  t_case("heads apart");
  for (t = 0; t < 100; t++) CHECK_SAME(a + t * 144 + 72, b + t * 72, sizeof(float) * 72);
  free(a);
  free(b);
  text_free(&x);
  text_free(&y);
}

/* Heads first..first+heads-1 of x, through a context of their own; free() the outputs. */
static float *run_heads(const text *x, int first, int heads, int chunk, int isa)
{
  longctx_desc d = x->d;
  int dim = d.head_dim, t;
  longctx *lc;
  text y;
  float *out;
  d.n_heads = heads;
  d.max_batch = chunk;
  lc = t_new(&d);
  y = text_make(&d, x->tokens, 74);
  memcpy(y.k, x->k, sizeof(float) * x->k_row * (size_t)x->tokens);
  memcpy(y.v, x->v, sizeof(float) * x->v_row * (size_t)x->tokens);
  for (t = 0; t < x->tokens; t++)
    memcpy(text_q(&y, 0, t), text_q(x, 0, t) + first * dim, sizeof(float) * y.q_row);
  out = text_out(&y);
  CHECK_EQ(longctx_set_isa(lc, isa), LONGCTX_OK);
  text_run(lc, &y, 0, x->tokens, chunk, out);
  free(lc);
  text_free(&y);
  return out;
}

/* Kernels take several heads of a KV head at once, perhaps with a row more than there are: each
   head comes out as if it were alone, whatever lay in the block before. Values are so large that
   weights which are not yet weights would overflow. */
static void test_any_group(int type, int isa)
{
  enum { DIM = 20, MOST = 11, TOKENS = 200 };
  longctx_desc d = longctx_desc_make(1, MOST, 1, DIM, 70);
  text x;
  float *alone[MOST];
  int group, h, t;
  d.sinks = 2;
  d.type_k = d.type_v = type;
  x = text_make(&d, TOKENS, 73);
  for (t = 0; t < TOKENS * DIM; t++) x.v[t] = x.v[t] > 0 ? 3e38f : -3e38f;
  for (t = 0; t < TOKENS * DIM * MOST; t++) x.q[t] *= 8;
  for (h = 0; h < MOST; h++) alone[h] = run_heads(&x, h, 1, 1, isa);
  for (group = 2; group <= MOST; group++) {
    float *out = run_heads(&x, 0, group, 3, isa);
    t_case("%d heads at once, %s, %s", group, longctx_isa_name(isa), t_type_names[type]);
    for (t = 0; t < TOKENS; t++)
      for (h = 0; h < group; h++)
        CHECK_SAME(out + (t * group + h) * DIM, alone[h] + t * DIM, sizeof(float) * DIM);
    free(out);
  }
  for (h = 0; h < MOST; h++) free(alone[h]);
  text_free(&x);
}

static void test_groups(void)
{
  int type, isa;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    for (type = 0; type < 4 && t_have_isa(isa); type++) test_any_group(type, isa);
}

/* ---- exponentials ---------------------------------------------------------------------------- */

/* Two keys, scores 0 and -s: the second one's weight is e^-s / (1 + e^-s). */
static void test_exp(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 1, 2);
  longctx *lc;
  double worst = 0.0;
  float k[2] = { 0.0f, 0.0f }, v[2] = { 1.0f, 0.0f }, q[2] = { 1.0f, 1.0f }, out[2];
  int i;
  d.rope = LONGCTX_ROPE_NONE;
  d.scale = 1.0f;
  d.max_batch = 2;
  lc = t_new(&d);
  for (i = 0; i < 300000; i++) {
    double s, want;
    k[0] = -(float)i / 4600.0f;                        /* down to e^-65                          */
    s = -(double)k[0];
    if (longctx_attend(lc, 0, 2, q, k, v, out) != LONGCTX_OK) FAIL("attend refused");
    want = exp(-s) / (1.0 + exp(-s));
    worst = t_worse(worst, fabs((double)out[1] - want) / want / (3.0 + s));
  }
  t_case("exponential");
  CHECK_NEAR(worst, 0.0, 1.2e-7);
  free(lc);
}

/* ---- non-finite input ------------------------------------------------------------------------ */

enum { HEADS = 4, KV = 2, DIM = 16, LONG = 90 };

static longctx_desc finite_desc(int type)
{
  longctx_desc d = longctx_desc_make(1, HEADS, KV, DIM, 12);
  d.sinks = 2;
  d.max_batch = 30;
  d.type_k = type;
  d.type_v = type;
  return d;
}

static int has_nan(const float *x, size_t n)
{
  while (n--)
    if (x[n] != x[n]) return 1;
  return 0;
}

/* A bad q spoils its own row and head, and shows there. */
static void test_bad_query(float value, int type, int chunk)
{
  longctx_desc d = finite_desc(type);
  text x = text_make(&d, LONG, 23);
  float *clean = run(&x, NULL, chunk), *got;
  int t, h;
  text_q(&x, 0, 40)[1 * DIM + 5] = value;
  got = run(&x, NULL, chunk);
  t_case("bad q, type %d, chunk %d", type, chunk);
  for (t = 0; t < LONG; t++)
    for (h = 0; h < HEADS; h++)
      if (t != 40 || h != 1)
        CHECK_SAME(clean + (t * HEADS + h) * DIM, got + (t * HEADS + h) * DIM, sizeof(float) * DIM);
  for (t = 0; t < DIM; t++) CHECK(has_nan(got + (40 * HEADS + 1) * DIM + t, 1));
  free(clean);
  free(got);
  text_free(&x);
}

/* A bad k or v spoils its KV head's rows that see it: none before, none after it left. */
static void test_bad_row(float value, int type, int chunk, int in_k, int at)
{
  longctx_desc d = finite_desc(type);
  text x = text_make(&d, LONG, 24);
  oracle o = oracle_make(&d, 0);
  float *clean = run(&x, NULL, chunk), *got;
  int t, h;
  (in_k ? text_k : text_v)(&x, 0, at)[DIM + 3] = value;
  got = run(&x, NULL, chunk);
  t_case("bad %s at %d, type %d, chunk %d", in_k ? "k" : "v", at, type, chunk);
  for (t = 0; t < LONG; t++)
    for (h = 0; h < HEADS; h++)
      if (h / (HEADS / KV) != 1 || !oracle_sees(&o, t, at))
        CHECK_SAME(clean + (t * HEADS + h) * DIM, got + (t * HEADS + h) * DIM, sizeof(float) * DIM);
  oracle_free(&o);
  free(clean);
  free(got);
  text_free(&x);
}

static void test_non_finite(void)
{
  static const float values[] = { NAN, INFINITY, -INFINITY };
  static const int chunks[] = { 1, 7, 30 };
  int i, type, c;
  for (i = 0; i < 3; i++)
    for (type = 0; type < 4; type++)
      for (c = 0; c < 3; c++) {
        test_bad_query(values[i], type, chunks[c]);
        test_bad_row(values[i], type, chunks[c], 0, 41);
        test_bad_row(values[i], type, chunks[c], 1, 41);
        test_bad_row(values[i], type, chunks[c], 0, 1);     /* a sink: for ever, in its KV head  */
        test_bad_row(values[i], type, chunks[c], 1, 1);
      }
}

/* Huge but finite: whatever overflows on the way, no NaN comes out. */
static void test_huge(void)
{
  static const float sizes[] = { 1e4f, 1e10f, 1e19f, 1e25f, 1e30f, FLT_MAX };
  int i, type;
  size_t j;
  for (i = 0; i < 6; i++)
    for (type = 0; type < 4; type++) {
      longctx_desc d = finite_desc(type);
      text x = text_make(&d, LONG, 25);
      float *out;
      for (j = 0; j < LONG * x.q_row; j++) x.q[j] = j % 3 ? sizes[i] : -sizes[i];
      for (j = 0; j < LONG * x.k_row; j++) x.k[j] = j % 5 ? sizes[i] : -sizes[i];
      out = run(&x, NULL, 7);
      t_case("huge %g, type %d", (double)sizes[i], type);
      CHECK(!has_nan(out, text_out_floats(&x)));
      free(out);
      text_free(&x);
    }
}

/* Values whose sum overflows: an output ends at the largest float. */
static void test_huge_values(void)
{
  int type, size;
  for (type = 0; type < 4; type++)
    for (size = 0; size < 2; size++) {
      longctx_desc d = finite_desc(type);
      text x = text_make(&d, LONG, 29);
      float *out;
      size_t j;
      for (j = 0; j < LONG * x.v_row; j++)
        x.v[j] = (j % 3 ? 1.0f : -1.0f) * (size ? FLT_MAX : 1e38f);
      out = run(&x, NULL, 7);
      t_case("values of %g, type %d", (double)fabsf(x.v[0]), type);
      for (j = 0; j < text_out_floats(&x); j++) CHECK(fabsf(out[j]) <= FLT_MAX);
      free(out);
      text_free(&x);
    }
}

/* Keys beyond 2^40 are taken as 2^40. */
static void test_held_keys(void)
{
  int type;
  for (type = 0; type < 4; type++) {
    longctx_desc d = finite_desc(type);
    text x = text_make(&d, LONG, 28);
    float *a, *b;
    size_t j;
    for (j = 3; j < LONG * x.k_row; j += 11) x.k[j] = j % 2 ? 0x1p40f : -0x1p40f;
    a = run(&x, NULL, 7);
    for (j = 3; j < LONG * x.k_row; j += 11) x.k[j] = j % 2 ? 1e13f : -1e35f;
    b = run(&x, NULL, 7);
    t_case("held keys, type %d", type);
    CHECK_SAME(a, b, sizeof(float) * text_out_floats(&x));
    free(b);
    for (j = 3; j < LONG * x.k_row; j += 11)
      if (j % 2) x.k[j] = NAN;
    b = run(&x, NULL, 7);
    t_case("a key that is no number, type %d", type);
    CHECK_SAME(a, b, sizeof(float) * text_out_floats(&x));
    free(a);
    free(b);
    for (j = 3; j < LONG * x.k_row; j += 11) x.k[j] = 1.0f;
    for (j = 1; j < LONG * x.q_row; j += 5) x.q[j] = j % 2 ? 1e14f : -1e14f;
    a = run(&x, NULL, 7);
    for (j = 1; j < LONG * x.q_row; j += 5) x.q[j] = j % 2 ? 1e17f : -1e35f;
    b = run(&x, NULL, 7);
    t_case("held queries, type %d", type);
    CHECK_SAME(a, b, sizeof(float) * text_out_floats(&x));
    free(a);
    free(b);
    text_free(&x);
  }
}

/* Scores far apart: the best key wins alone, the others vanish without a trace. */
static void test_one_winner(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 2, 50);
  text x;
  float *out;
  int t;
  d.rope = LONGCTX_ROPE_NONE;
  x = text_make(&d, 50, 26);
  for (t = 0; t < 50; t++) {
    x.q[2 * t] = 1000.0f;
    x.q[2 * t + 1] = 0.0f;
    x.k[2 * t] = (float)((t * 7) % 50);
  }
  out = run(&x, NULL, 1);
  t_case("one winner");
  for (t = 0; t < 50; t++) {
    int best = 0, j;
    for (j = 0; j <= t; j++)
      if (x.k[2 * j] > x.k[2 * best]) best = j;
    CHECK_SAME(out + 2 * t, x.v + 2 * best, sizeof(float) * 2);
  }
  free(out);
  text_free(&x);
}

/* A sink logit above everything leaves nothing to the keys: zero, not NaN. */
static void test_all_to_the_sink(void)
{
  static const float top[HEADS] = { 1e30f, 1e4f, FLT_MAX, 500.0f };
  longctx_desc d = finite_desc(LONGCTX_F32);
  text x = text_make(&d, LONG, 27);
  float *out = run(&x, top, 7);
  size_t i;
  t_case("all to the sink");
  for (i = 0; i < text_out_floats(&x); i++) CHECK(fabsf(out[i]) < 1e-30f);
  free(out);
  text_free(&x);
}

/* Spans that a window covers whole are capped and shifted, too, however little. */
static void test_whole_spans(void)
{
  static const float caps[] = { 0.01f, 0.4f, 3.0f, 0.0f }, biases[] = { 0.0f, 0.01f, 8.0f };
  int i, j;
  for (i = 0; i < 4; i++)
    for (j = 0; j < 3; j++) {
      longctx_desc d = longctx_desc_make(1, 2, 1, 8, 200);
      d.max_batch = 16;
      d.softcap = caps[i];
      d.alibi_max_bias = biases[j];
      t_case("whole spans, softcap %g, alibi %g", (double)caps[i], (double)biases[j]);
      CHECK_NEAR(off_by(&d, 300, 5, NULL, 16, 0), 0.0, 2e-6);
    }
}

int main(void)
{
  test_oracle_angles();
  test_oracle_slopes();
  test_grid();
  test_whole_spans();
  test_passes();
  test_alibi();
  test_types();
  test_zeros();
  test_rounding_model();
  test_sinks_exact();
  test_convex();
  test_power_of_two();
  test_heads_apart();
  test_groups();
  test_exp();
  test_non_finite();
  test_huge();
  test_huge_values();
  test_held_keys();
  test_one_winner();
  test_all_to_the_sink();
  return t_done();
}
