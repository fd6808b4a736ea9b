/* text.h: a text to push through contexts: q, k, v of every token in every layer, and the ways
   to feed it. Rows lie [layer][token][...], so that any run of tokens is one attend call. */
#ifndef TEXT_H
#define TEXT_H

#include "t.h"

typedef struct text {
  int layers, tokens;
  size_t q_row, k_row, v_row, out_row;                 /* floats of one token in one layer       */
  float *q, *k, *v;
  longctx_desc d;
} text;

static inline text text_make(const longctx_desc *d, int tokens, uint64_t seed)
{
  text x;
  int dim_v = d->head_dim_v ? d->head_dim_v : d->head_dim;
  size_t rows = (size_t)d->n_layers * (size_t)tokens;
  x.d = *d;
  x.layers = d->n_layers;
  x.tokens = tokens;
  x.q_row = (size_t)d->n_heads * (size_t)d->head_dim;
  x.k_row = (size_t)d->n_kv_heads * (size_t)d->head_dim;
  x.v_row = (size_t)d->n_kv_heads * (size_t)dim_v;
  x.out_row = (size_t)d->n_heads * (size_t)dim_v;
  x.q = t_normals(rows * x.q_row, seed);
  x.k = t_normals(rows * x.k_row, seed + 1);
  x.v = t_normals(rows * x.v_row, seed + 2);
  return x;
}

static inline void text_free(text *x)
{
  free(x->q);
  free(x->k);
  free(x->v);
}

static inline size_t text_at(const text *x, int layer, int token)
{
  return (size_t)layer * (size_t)x->tokens + (size_t)token;
}

static inline float *text_q(const text *x, int layer, int token)
{
  return x->q + text_at(x, layer, token) * x->q_row;
}

static inline float *text_k(const text *x, int layer, int token)
{
  return x->k + text_at(x, layer, token) * x->k_row;
}

static inline float *text_v(const text *x, int layer, int token)
{
  return x->v + text_at(x, layer, token) * x->v_row;
}

static inline size_t text_out_floats(const text *x)
{
  return (size_t)x->layers * (size_t)x->tokens * x->out_row;
}

static inline float *text_out(const text *x)           /* room for every output; free() it       */
{
  return t_floats(text_out_floats(x));
}

static inline int text_reads_only(const text *x, int layer)
{
  return x->d.layers != NULL && x->d.layers[layer].kv_from >= 0;
}

/* Layer `layer` attends tokens at .. at+n-1; nothing is committed. */
static inline int text_attend(longctx *lc, const text *x, int layer, int at, int n, float *out)
{
  const float *k = text_reads_only(x, layer) ? NULL : text_k(x, layer, at);
  const float *v = text_reads_only(x, layer) ? NULL : text_v(x, layer, at);
  return longctx_attend(lc, layer, n, text_q(x, layer, at), k, v, out);
}

/* Every layer attends tokens at .. at+n-1 into their places of `out`; nothing is committed. */
static inline void text_step(longctx *lc, const text *x, int at, int n, float *out)
{
  int l;
  for (l = 0; l < x->layers; l++) {
    int r = text_attend(lc, x, l, at, n, out + text_at(x, l, at) * x->out_row);
    if (r != LONGCTX_OK) CHECK_EQ(r, LONGCTX_OK);
  }
}

static inline int lc_batch(const longctx *lc) { return longctx_get_desc(lc).max_batch; }

/* Feedback that is due, from numbers that depend on the position and the layer alone. Rows attend
   before and after they are set, if `out` wants it: [2][feedback_len] rows for each layer. */
static inline void text_meet(longctx *lc, const text *x, float *out)
{
  int f = longctx_get_desc(lc).feedback_len, l;
  size_t n = (size_t)f, i;
  for (l = 0; longctx_feedback_due(lc) && l < x->layers; l++) {
    uint64_t seed = (uint64_t)longctx_position(lc) * 31 + (uint64_t)l;
    float *rows = longctx_feedback(lc, l), *q, *k, *v;
    if (rows == NULL) continue;
    q = t_normals(n * x->q_row, seed + 1);
    k = t_normals(n * x->k_row, seed + 2);
    v = t_normals(n * x->v_row, seed + 3);
    if (out) (void)longctx_feedback_attend(lc, l, out + (size_t)(2 * l) * n * x->out_row);
    for (i = 0; i < n; i++) rows[i] = q[i];
    CHECK_EQ(longctx_feedback_set(lc, l, q, k, v), LONGCTX_OK);
    if (out) (void)longctx_feedback_attend(lc, l, out + (size_t)(2 * l + 1) * n * x->out_row);
    free(q), free(k), free(v);
  }
}

/* Tokens from .. to-1 in runs of `chunk` (0: runs of random length up to room), committed. */
static inline void text_run(longctx *lc, const text *x, int from, int to, int chunk, float *out)
{
  uint64_t seed = (uint64_t)(from + 7 * to);
  while (from < to) {
    int room = (text_meet(lc, x, NULL), longctx_room(lc));
    int n = chunk ? chunk : 1 + t_below(&seed, room);
    if (chunk > 1 && n > room && room < lc_batch(lc)) n = room;    /* a block's end, no misuse   */
    if (n > to - from) n = to - from;
    text_step(lc, x, from, n, out);
    if (longctx_commit(lc, n) != LONGCTX_OK) FAIL("commit refused");
    from += n;
  }
}

#endif
