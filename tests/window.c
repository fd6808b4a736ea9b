/* window.c: which tokens a query sees, and at which positions it sees them. */
#include "oracle.h"
#include "text.h"

/* ---- off by one: change one token, and see who notices --------------------------------------- */

typedef struct shape { int window, block, sinks, batch, type; int64_t start; } shape;

static longctx_desc shape_desc(const shape *s)
{
  longctx_desc d = longctx_desc_make(1, 2, 1, 4, s->window);
  d.block = s->block;
  d.sinks = s->sinks;
  d.max_batch = s->batch;
  d.type_k = s->type;
  d.type_v = s->type;
  return d;
}

static void run_shape(const text *x, const shape *s, float *out)
{
  longctx *lc = t_new(&x->d);
  CHECK_EQ(longctx_seek(lc, s->start), LONGCTX_OK);
  text_run(lc, x, 0, x->tokens, s->batch, out);
  CHECK_EQ(longctx_position(lc), s->start + x->tokens);
  free(lc);
}

static void nudge(float *row, size_t n, float by)
{
  size_t i;
  for (i = 0; i < n; i++) row[i] += by;
}

/* Every query either has the bits it had, or not, exactly as the rule says. */
static void compare_to_rule(const text *x, const oracle *o, int changed, const float *before,
                            const float *after)
{
  int t;
  for (t = 0; t < x->tokens; t++) {
    const float *a = before + (size_t)t * x->out_row, *b = after + (size_t)t * x->out_row;
    int differs = memcmp(a, b, x->out_row * sizeof *a) != 0;
    CHECK_EQ(differs, oracle_sees(o, t, changed));
  }
}

static void try_shape(const shape *s, int tokens)
{
  longctx_desc d = shape_desc(s);
  text x = text_make(&d, tokens, 7);
  oracle o = oracle_make(&d, 0);
  float *before = text_out(&x), *after = text_out(&x);
  int j;
  o.start = s->start;
  run_shape(&x, s, before);
  for (j = 0; j < tokens; j++) {
    t_case("window %d block %d sinks %d batch %d type %d start %ld token %d", s->window, s->block,
           s->sinks, s->batch, s->type, (long)s->start, j);
    nudge(text_k(&x, 0, j), x.k_row, 1.0f);
    nudge(text_v(&x, 0, j), x.v_row, 8.0f);
    run_shape(&x, s, after);
    compare_to_rule(&x, &o, j, before, after);
    nudge(text_k(&x, 0, j), x.k_row, -1.0f);           /* not always the old bits ...            */
    nudge(text_v(&x, 0, j), x.v_row, -8.0f);
    run_shape(&x, s, before);                          /* ... so the old outputs are renewed     */
  }
  oracle_free(&o);
  free(before);
  free(after);
  text_free(&x);
}

static void test_off_by_one(void)
{
  static const int types[] = { LONGCTX_F32, LONGCTX_F16, LONGCTX_BF16, LONGCTX_Q8 };
  shape s;
  int count = 0;
  for (s.block = 1; s.block <= 4; s.block++)
    for (s.window = s.block; s.window <= 9; s.window += s.block)
      for (s.sinks = 0; s.sinks <= 5; s.sinks++) {
        static const int batches[] = { 1, 2, 5, 24 };
        s.batch = batches[count % 4];
        s.type = types[(count / 4) % 4];
        s.start = count % 3 == 2 ? 57 * s.block : 0;   /* the window then crosses position 64    */
        count++;
        try_shape(&s, 24);
      }
}

/* Windows around the sizes in which storage comes: none is rounded up or down. */
static void test_wide_windows(void)
{
  static const int windows[] = { 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 127, 128, 129 };
  size_t i;
  for (i = 0; i < sizeof windows / sizeof *windows; i++) {
    shape s = { 0, 1, 3, 7, LONGCTX_F32, 0 };
    longctx_desc d;
    text x;
    oracle o;
    float *before, *after;
    int tokens, j;
    s.window = windows[i];
    tokens = windows[i] + 90;
    d = shape_desc(&s);
    x = text_make(&d, tokens, 9);
    o = oracle_make(&d, 0);
    before = text_out(&x);
    after = text_out(&x);
    for (j = 0; j < tokens; j += 1 + j / 4) {
      t_case("window %d token %d", s.window, j);
      run_shape(&x, &s, before);
      nudge(text_v(&x, 0, j), x.v_row, 8.0f);
      run_shape(&x, &s, after);
      compare_to_rule(&x, &o, j, before, after);
    }
    oracle_free(&o);
    free(before);
    free(after);
    text_free(&x);
  }
}

/* ---- against the literal oracle -------------------------------------------------------------- */

static double check_against(const text *x, oracle *o, int layer, const float *out, double room)
{
  double *want = (double *)malloc(sizeof(double) * x->out_row), worst = 0.0;
  int t;
  size_t i;
  if (want == NULL) exit(1);
  oracle_push(o, x->tokens, text_k(x, layer, 0), text_v(x, layer, 0));
  for (t = 0; t < x->tokens; t++) {
    oracle_row(o, t, text_q(x, layer, t), want, NULL);
    for (i = 0; i < x->out_row; i++) {
      double off = fabs((double)out[text_at(x, layer, t) * x->out_row + i] - want[i]);
      worst = t_worse(worst, off);
    }
  }
  CHECK_NEAR(worst, 0.0, room);
  free(want);
  return worst;
}

static void try_oracle(const longctx_desc *d, int64_t start, int tokens, int chunk)
{
  text x = text_make(d, tokens, (uint64_t)start + 31);
  float *out = text_out(&x);
  longctx *lc = t_new(d);
  int l;
  CHECK_EQ(longctx_seek(lc, start), LONGCTX_OK);
  text_run(lc, &x, 0, tokens, chunk, out);
  for (l = 0; l < d->n_layers; l++) {
    oracle o = oracle_make(d, l);
    o.start = start;
    if (text_reads_only(&x, l)) {                      /* its keys and values are its source's   */
      memcpy(text_k(&x, l, 0), text_k(&x, d->layers[l].kv_from, 0),
             sizeof(float) * x.k_row * (size_t)tokens);
      memcpy(text_v(&x, l, 0), text_v(&x, d->layers[l].kv_from, 0),
             sizeof(float) * x.v_row * (size_t)tokens);
    }
    check_against(&x, &o, l, out, 1e-5);
    oracle_free(&o);
  }
  free(lc);
  free(out);
  text_free(&x);
}

static void test_literal(void)
{
  static const int64_t starts[] = { 0, 1000, 1000000000, (int64_t)1 << 40 };
  int s, p, r, b;
  for (s = 0; s < 4; s++)
    for (p = 0; p < 2; p++)
      for (r = 0; r < 3; r++)
        for (b = 0; b < 2; b++) {
          longctx_desc d = longctx_desc_make(1, 4, 2, 16, b ? 24 : 21);
          d.sinks = r == 1 ? 0 : 4;
          d.block = b ? 8 : 1;
          d.positions = p ? LONGCTX_POS_TEXT : LONGCTX_POS_CACHE;
          d.rope = r == 2 ? LONGCTX_ROPE_INTERLEAVED : LONGCTX_ROPE_HALF;
          d.max_batch = 9;
          t_case("start 2^%d positions %d rope %d block %d", s, p, r, b);
          try_oracle(&d, starts[s] - starts[s] % 8, 150, b ? 0 : 5);
        }
}

static void test_sinks_fill(void)                      /* first batches around the sinks' number */
{
  int sinks, batch;
  for (sinks = 0; sinks <= 9; sinks += 3)
    for (batch = 1; batch <= 20; batch += 1 + batch / 5) {
      longctx_desc d = longctx_desc_make(1, 2, 2, 8, 6);
      d.sinks = sinks;
      d.max_batch = batch;
      t_case("sinks %d first batch %d", sinks, batch);
      try_oracle(&d, 0, 40, batch);
      try_oracle(&d, 61, 40, batch);
    }
}

static void test_edges(void)
{
  static const int pairs[][2] = { { 1, 0 }, { 1, 1 }, { 1, 5 }, { 2, 70 }, { 3, 130 }, { 600, 0 } };
  size_t i;
  for (i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    longctx_desc d = longctx_desc_make(1, 2, 1, 8, pairs[i][0]);
    d.sinks = pairs[i][1];
    d.max_batch = 50;
    t_case("window %d sinks %d", pairs[i][0], pairs[i][1]);
    try_oracle(&d, 0, 220, 0);
    try_oracle(&d, 480, 220, 50);                      /* across position 512                    */
  }
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* Four layers that differ in everything a layer may differ in, the last reads the second's rows. */
static void make_layers(longctx_desc *d, longctx_layer *layer)
{
  static const double slow[4] = { 0.5, 0.2, 0.03, 0.001 }, fast[2] = { 2.5, 0.7 };
  int l;
  *d = longctx_desc_make(4, 4, 2, 8, 12);
  d->sinks = 3;
  d->max_batch = 6;
  for (l = 0; l < 4; l++) layer[l] = longctx_layer_make(d);
  layer[0].rope_freqs = slow;
  layer[1].window = 5;
  layer[1].rope = LONGCTX_ROPE_INTERLEAVED;
  layer[1].rope_base = 500.0;
  layer[2].window = 16;
  layer[2].block = 4;
  layer[2].positions = LONGCTX_POS_TEXT;
  layer[2].rope_dims = 4;
  layer[2].rope_freqs = fast;
  layer[2].rope_mscale = 1.25f;
  layer[2].softcap = 3.0f;
  layer[3].window = 4;
  layer[3].scale = 0.5f;
  layer[3].positions = LONGCTX_POS_TEXT;               /* ignored: its source's apply            */
  layer[3].kv_from = 1;
  d->layers = layer;
}

static void test_layers_oracle(void)
{
  longctx_layer layer[4];
  longctx_desc d;
  make_layers(&d, layer);
  t_case("four layers");
  try_oracle(&d, 0, 90, 0);
  try_oracle(&d, 60, 90, 4);
}

static longctx_desc desc_of_layer(const longctx_desc *all, int l)
{
  const longctx_layer *a = &all->layers[l];
  const longctx_layer *keys = a->kv_from < 0 ? a : &all->layers[a->kv_from];
  longctx_desc d = longctx_desc_make(1, all->n_heads, all->n_kv_heads, all->head_dim, a->window);
  d.sinks = all->sinks;
  d.max_batch = all->max_batch;
  d.block = a->block;
  d.positions = keys->positions;
  d.scale = a->scale;
  d.softcap = a->softcap;
  d.rope = keys->rope;
  d.rope_dims = keys->rope_dims;
  d.rope_base = keys->rope_base;
  d.rope_mscale = keys->rope_mscale;
  d.rope_freqs = keys->rope_freqs;
  return d;
}

/* A layer among others has the bits it has alone. */
static void test_layers_alone(void)
{
  longctx_layer layer[4];
  longctx_desc d;
  text x;
  float *out, *alone;
  longctx *lc;
  int l;
  make_layers(&d, layer);
  x = text_make(&d, 70, 5);
  out = text_out(&x);
  lc = t_new(&d);
  text_run(lc, &x, 0, 70, 0, out);
  for (l = 0; l < 4; l++) {
    longctx_desc one = desc_of_layer(&d, l);
    text y = text_make(&one, 70, 5);
    longctx *single = t_new(&one);
    int source = layer[l].kv_from < 0 ? l : layer[l].kv_from;
    t_case("layer %d alone", l);
    memcpy(y.q, text_q(&x, l, 0), sizeof(float) * 70 * x.q_row);
    memcpy(y.k, text_k(&x, source, 0), sizeof(float) * 70 * x.k_row);
    memcpy(y.v, text_v(&x, source, 0), sizeof(float) * 70 * x.v_row);
    alone = text_out(&y);
    text_run(single, &y, 0, 70, 3, alone);
    CHECK_SAME(alone, out + text_at(&x, l, 0) * x.out_row, sizeof(float) * 70 * x.out_row);
    free(alone);
    free(single);
    text_free(&y);
  }
  free(lc);
  free(out);
  text_free(&x);
}

/* ---- the open batch -------------------------------------------------------------------------- */

static longctx_desc batch_desc(int type)
{
  longctx_desc d = longctx_desc_make(2, 4, 2, 8, 10);
  d.sinks = 2;
  d.max_batch = 7;
  d.type_k = type;
  d.type_v = type;
  return d;
}

/* Drafts that are dropped leave nothing behind, at any phase of the wrap. */
static void test_rollback(void)
{
  int type;
  for (type = LONGCTX_F32; type <= LONGCTX_Q8; type++) {
    longctx_desc d = batch_desc(type);
    text x = text_make(&d, 80, 21), junk = text_make(&d, 80, 22);
    float *want = text_out(&x), *got = text_out(&x), *spare = text_out(&x);
    longctx *plain = t_new(&d), *drafty = t_new(&d);
    uint64_t seed = 3;
    int t = 0, l;
    text_run(plain, &x, 0, 80, 1, want);
    while (t < 80) {
      int n = 1 + t_below(&seed, 7), keep = 1 + t_below(&seed, n);
      if (n > 80 - t) n = 80 - t;
      if (keep > n) keep = n;
      text_step(drafty, &junk, t, n, spare);           /* rejected altogether                    */
      if (t & 1) CHECK_EQ(longctx_commit(drafty, 0), LONGCTX_OK);
      for (l = 0; l < 2; l++) {                        /* right rows first, then rejected ones   */
        memcpy(text_k(&junk, l, t), text_k(&x, l, t), sizeof(float) * x.k_row * (size_t)keep);
        memcpy(text_v(&junk, l, t), text_v(&x, l, t), sizeof(float) * x.v_row * (size_t)keep);
        memcpy(text_q(&junk, l, t), text_q(&x, l, t), sizeof(float) * x.q_row * (size_t)keep);
      }
      text_step(drafty, &junk, t, n, spare);
      for (l = 0; l < 2; l++)
        memcpy(got + text_at(&x, l, t) * x.out_row, spare + text_at(&x, l, t) * x.out_row,
               sizeof(float) * x.out_row * (size_t)keep);
      CHECK_EQ(longctx_commit(drafty, keep), LONGCTX_OK);
      CHECK_EQ(longctx_position(drafty), t += keep);
    }
    t_case("rollback, type %d", type);
    CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
    free(plain);
    free(drafty);
    free(want);
    free(got);
    free(spare);
    text_free(&x);
    text_free(&junk);
  }
}

/* Attending again replaces the rows; reading only gives what writing would have given. */
static void test_repeat_and_read(void)
{
  longctx_desc d = batch_desc(LONGCTX_F16);
  text x = text_make(&d, 60, 41), other = text_make(&d, 60, 42);
  float *want = text_out(&x), *got = text_out(&x), *spare = text_out(&x);
  longctx *plain = t_new(&d), *again = t_new(&d);
  int t, l;
  text_run(plain, &x, 0, 60, 5, want);
  for (t = 0; t < 60; t += 5) {
    for (l = 0; l < 2; l++) {
      size_t at = text_at(&x, l, t) * x.out_row;
      int n;
      text_attend(again, &other, l, t, 7 < 60 - t ? 7 : 60 - t, spare + at);
      longctx_attend(again, l, 5, text_q(&other, l, t), text_k(&x, l, t), text_v(&x, l, t),
                     spare + at);
      for (n = 1; n <= 5; n++) {                       /* the first n of the rows, read only     */
        memset(got + at, 0, sizeof(float) * 5 * x.out_row);
        CHECK_EQ(longctx_attend(again, l, n, text_q(&x, l, t), NULL, NULL, got + at), LONGCTX_OK);
        CHECK_SAME(want + at, got + at, sizeof(float) * x.out_row * (size_t)n);
      }
    }
    CHECK_EQ(longctx_commit(again, 5), LONGCTX_OK);
  }
  t_case("read only and repeated");
  CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
  free(plain);
  free(again);
  free(want);
  free(got);
  free(spare);
  text_free(&x);
  text_free(&other);
}

/* Layers in any order, and each other's work does not show. */
static void test_layer_order(void)
{
  longctx_desc d = batch_desc(LONGCTX_F32);
  text x = text_make(&d, 30, 51);
  float *want = text_out(&x), *got = text_out(&x);
  longctx *up = t_new(&d), *down = t_new(&d);
  int t, l;
  text_run(up, &x, 0, 30, 3, want);
  for (t = 0; t < 30; t += 3) {
    for (l = 1; l >= 0; l--) text_attend(down, &x, l, t, 3, got + text_at(&x, l, t) * x.out_row);
    CHECK_EQ(longctx_commit(down, 3), LONGCTX_OK);
  }
  t_case("layers in another order");
  CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
  free(up);
  free(down);
  free(want);
  free(got);
  text_free(&x);
}

/* ---- proofs ---------------------------------------------------------------------------------- */

/* Until the window is full, its width cannot be told: dense attention, bit for bit. */
static void test_dense(void)
{
  static const int windows[] = { 40, 41, 64, 100, 512, 1000 };
  float *want = NULL;
  size_t i;
  for (i = 0; i < sizeof windows / sizeof *windows; i++) {
    longctx_desc d = longctx_desc_make(1, 4, 2, 16, windows[i]);
    text x = text_make(&d, 40, 61);
    float *out = text_out(&x);
    longctx *lc = t_new(&d);
    t_case("dense, window %d", windows[i]);
    text_run(lc, &x, 0, 40, 1, out);
    if (want == NULL) want = text_out(&x), memcpy(want, out, sizeof(float) * text_out_floats(&x));
    CHECK_SAME(want, out, sizeof(float) * text_out_floats(&x));
    free(lc);
    free(out);
    text_free(&x);
  }
  free(want);
}

/* In-cache positions: what came before is forgotten, so is how far the text has come. */
static void test_shift(void)
{
  static const int64_t starts[] = { 0, 1000, 1000000000, (int64_t)1 << 40 };
  int block, s;
  for (block = 1; block <= 8; block += 7) {
    longctx_desc d = longctx_desc_make(1, 4, 2, 32, 40);
    text x;
    float *base, *out;
    size_t i;
    d.sinks = 4;
    d.block = block;
    x = text_make(&d, 120, 71);
    base = text_out(&x);
    out = text_out(&x);
    for (s = 0; s < 4; s++) {
      longctx *lc = t_new(&d);
      double worst = 0.0;
      CHECK_EQ(longctx_seek(lc, starts[s]), LONGCTX_OK);
      text_run(lc, &x, 0, 120, 1, s ? out : base);
      if (s)
        for (i = 0; i < text_out_floats(&x); i++)
          worst = t_worse(worst, fabs((double)out[i] - (double)base[i]));
      t_case("shift, block %d, start %ld", block, (long)starts[s]);
      CHECK_NEAR(worst, 0.0, 4e-6);
      free(lc);
    }
    free(base);
    free(out);
    text_free(&x);
  }
}

/* The same offset on every key shifts all of a query's scores alike: nothing may change. */
static void test_constant_scores(void)
{
  longctx_desc d = longctx_desc_make(1, 6, 2, 16, 30);
  text x;
  float *a, *b;
  double worst = 0.0;
  longctx *one, *two;
  size_t i;
  d.rope = LONGCTX_ROPE_NONE;
  d.alibi_max_bias = 8.0f;
  d.sinks = 3;
  x = text_make(&d, 100, 81);
  a = text_out(&x);
  b = text_out(&x);
  one = t_new(&d);
  two = t_new(&d);
  text_run(one, &x, 0, 100, 1, a);
  nudge(x.k, x.k_row * 100, 2.0f);
  text_run(two, &x, 0, 100, 1, b);
  for (i = 0; i < text_out_floats(&x); i++)
    worst = t_worse(worst, fabs((double)a[i] - (double)b[i]));
  t_case("constant added to every score");
  CHECK_NEAR(worst, 0.0, 4e-6);
  free(one);
  free(two);
  free(a);
  free(b);
  text_free(&x);
}

/* ---- sink logits ----------------------------------------------------------------------------- */

enum { SINK_TOKENS = 90 };

static longctx_desc sink_desc(void)
{
  longctx_desc d = longctx_desc_make(1, 4, 2, 16, 20);
  d.max_batch = 8;
  return d;
}

static void run_with_logits(const text *x, const float *logits, float *out)
{
  longctx *lc = t_new(&x->d);
  CHECK_EQ(longctx_set_sink_logits(lc, 0, logits), LONGCTX_OK);
  text_run(lc, x, 0, x->tokens, 0, out);
  free(lc);
}

/* out = plain * sigmoid(LSE - b), head by head; and the oracle's own way gives the same. */
static void test_logit_identity(const text *x, const float *plain)
{
  static const float logits[4] = { -2.0f, 0.0f, 1.5f, 6.0f };
  float *out = text_out(x);
  oracle o = oracle_make(&x->d, 0), with = oracle_make(&x->d, 0);
  double want[64], direct[64], lse[4];
  int t, i;
  with.logits = logits;
  oracle_push(&o, x->tokens, x->k, x->v);
  oracle_push(&with, x->tokens, x->k, x->v);
  run_with_logits(x, logits, out);
  t_case("sigmoid identity");
  for (t = 0; t < x->tokens; t++) {
    oracle_row(&o, t, text_q(x, 0, t), want, lse);
    oracle_row(&with, t, text_q(x, 0, t), direct, NULL);
    for (i = 0; i < 64; i++) {
      double share = 1.0 / (1.0 + exp((double)logits[i / 16] - lse[i / 16]));
      double got = (double)out[t * 64 + i];
      CHECK_NEAR(want[i] * share, direct[i], 1e-12);
      CHECK_NEAR(got, direct[i], 4e-6);
      CHECK_NEAR(got, (double)plain[t * 64 + i] * share, 4e-6);
    }
  }
  oracle_free(&o);
  oracle_free(&with);
  free(out);
}

/* A logit far below every score is no sink; NULL turns it off again. */
static void test_logit_off(const text *x, const float *plain)
{
  static const float low[4] = { -1e4f, -1e30f, -1e4f, -FLT_MAX };
  static const float high[4] = { 9.0f, 9.0f, 9.0f, 9.0f };
  float *out = text_out(x);
  longctx *lc = t_new(&x->d);
  run_with_logits(x, low, out);
  t_case("logit far below");
  CHECK_SAME(plain, out, sizeof(float) * text_out_floats(x));
  CHECK_EQ(longctx_set_sink_logits(lc, 0, high), LONGCTX_OK);
  CHECK_EQ(longctx_set_sink_logits(lc, 0, NULL), LONGCTX_OK);
  text_run(lc, x, 0, x->tokens, 0, out);
  t_case("logits off again");
  CHECK_SAME(plain, out, sizeof(float) * text_out_floats(x));
  free(lc);
  free(out);
}

/* A logit of 0 is a token with zero key and zero value in front. */
static void test_zero_sink(const text *x)
{
  static const float zero[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
  longctx_desc d = x->d;
  text y;
  float *a = text_out(x), *b;
  longctx *lc;
  int t;
  size_t i;
  d.sinks = 1;
  y = text_make(&d, SINK_TOKENS + 1, 1);
  b = text_out(&y);
  memset(y.k, 0, sizeof(float) * y.k_row);
  memset(y.v, 0, sizeof(float) * y.v_row);
  memcpy(text_q(&y, 0, 1), x->q, sizeof(float) * x->q_row * SINK_TOKENS);
  memcpy(text_k(&y, 0, 1), x->k, sizeof(float) * x->k_row * SINK_TOKENS);
  memcpy(text_v(&y, 0, 1), x->v, sizeof(float) * x->v_row * SINK_TOKENS);
  run_with_logits(x, zero, a);
  lc = t_new(&d);
  text_run(lc, &y, 0, SINK_TOKENS + 1, 0, b);
  t_case("zero sink");
  for (t = 0; t < SINK_TOKENS; t++)
    for (i = 0; i < x->out_row; i++)
      CHECK_NEAR(a[(size_t)t * x->out_row + i], b[(size_t)(t + 1) * x->out_row + i], 4e-6);
  free(lc);
  free(a);
  free(b);
  text_free(&y);
}

static void test_sink_logits(void)
{
  longctx_desc d = sink_desc();
  text x = text_make(&d, SINK_TOKENS, 91);
  float *plain = text_out(&x);
  longctx *lc = t_new(&d);
  text_run(lc, &x, 0, SINK_TOKENS, 1, plain);
  test_logit_identity(&x, plain);
  test_logit_off(&x, plain);
  test_zero_sink(&x);
  free(lc);
  free(plain);
  text_free(&x);
}

/* One sink lies in a tile of one token, so its key is whole in memory, however long. */
static void test_one_long_sink(void)
{
  enum { DIMS = 150 };
  static float q[DIMS], k[DIMS], v[DIMS], out[2][DIMS];
  int s, t, i;
  t_case("one sink of many dims");
  for (s = 0; s < 2; s++) {
    longctx_desc d = longctx_desc_make(1, 1, 1, DIMS, 16);
    longctx *lc;
    d.rope = LONGCTX_ROPE_NONE;
    d.sinks = s;
    lc = longctx_init(malloc(longctx_size(&d)), longctx_size(&d), &d);
    if (!CHECK(lc != NULL)) return;
    for (t = 0; t < 3; t++) {
      for (i = 0; i < DIMS; i++) {
        q[i] = (float)((i * 7 + t) % 11) - 5;
        k[i] = (float)((i * 5 + t * 3) % 13) / 6 - 1;
        v[i] = (float)(i % 9 * (t + 1));
      }
      CHECK_EQ(longctx_attend(lc, 0, 1, q, k, v, out[s]), LONGCTX_OK);
      CHECK_EQ(longctx_commit(lc, 1), LONGCTX_OK);
    }
    free(lc);
  }
  for (i = 0; i < DIMS; i++) CHECK_NEAR((double)out[1][i], (double)out[0][i], 1e-4);
}

int main(void)
{
  test_off_by_one();
  test_wide_windows();
  test_literal();
  test_sinks_fill();
  test_edges();
  test_layers_oracle();
  test_layers_alone();
  test_rollback();
  test_repeat_and_read();
  test_layer_order();
  test_dense();
  test_shift();
  test_constant_scores();
  test_sink_logits();
  test_one_long_sink();
  return t_done();
}
