/* oracle.h: attention over sinks and a window, in double, the slow and literal way.

   Written from the papers. Every token ever seen is kept, un-rotated. For each query the visible
   tokens are listed by the rule, every one of them is rotated anew, at its index in that list
   (positions in the cache) or at its place in the text, and a textbook softmax follows. No ring, no
   running maximum, no trick: what it shares with the header is the meaning of the fields, no code.

     oracle o = oracle_make(&desc, layer);
     oracle_push(&o, n, k, v);                       n more tokens
     oracle_row(&o, i, q, out, lse);                 the i-th token's output, [heads][dim_v]
     oracle_free(&o);                                                                            */
#ifndef ORACLE_H
#define ORACLE_H

#include "t.h"

typedef struct oracle {
  int heads, kv_heads, dim, dim_v;
  int sinks, window, block, positions;
  int rope, rope_dims;
  int type_k, type_v;                /* set to a stored type to model what storage loses         */
  double base, mscale, scale, softcap, alibi;
  const double *freqs;               /* radians per token, or NULL: powers of the base           */
  const float *logits;               /* sink logits, one per head, or NULL                       */
  int64_t start;                     /* the position of the first token                          */
  int tokens, room;                  /* tokens pushed, tokens there is room for                  */
  double *k, *v;                     /* [token][kv head][dim], as the cache would give them back */
  int turns, turns_from_start;       /* rotations known, and whether they count from `start`     */
  double *turn;                      /* [index][pair][cos, sin]                                  */
} oracle;

/* ---- the description ------------------------------------------------------------------------- */

static inline void oracle_of_layer(oracle *o, const longctx_layer *a, const longctx_layer *keys)
{
  o->window = a->window;
  o->block = a->block;
  o->scale = (double)a->scale;
  o->softcap = (double)a->softcap;
  o->positions = keys->positions;    /* a layer that reads another's keys has that one's ...     */
  o->rope = keys->rope;              /* ... positions and rope                                   */
  o->rope_dims = keys->rope_dims;
  o->base = (double)keys->rope_base;
  o->mscale = (double)keys->rope_mscale;
  o->freqs = keys->rope_freqs;
}

static inline void oracle_defaults(oracle *o)
{
  if (o->dim_v == 0) o->dim_v = o->dim;
  if (o->block == 0) o->block = 1;
  if (o->rope_dims == 0) o->rope_dims = o->dim;
  if (!(o->base > 0.0)) o->base = 10000.0;
  if (!(o->mscale > 0.0)) o->mscale = 1.0;
  if (!(fabs(o->scale) > 0.0)) o->scale = 1.0 / sqrt((double)o->dim);
}

static inline oracle oracle_make(const longctx_desc *d, int layer)
{
  oracle o;
  memset(&o, 0, sizeof o);
  o.heads = d->n_heads;
  o.kv_heads = d->n_kv_heads;
  o.dim = d->head_dim;
  o.dim_v = d->head_dim_v;
  o.sinks = d->sinks;
  o.window = d->window;
  o.block = d->block;
  o.positions = d->positions;
  o.rope = d->rope;
  o.rope_dims = d->rope_dims;
  o.base = (double)d->rope_base;
  o.mscale = (double)d->rope_mscale;
  o.freqs = d->rope_freqs;
  o.scale = (double)d->scale;
  o.softcap = (double)d->softcap;
  o.alibi = (double)d->alibi_max_bias;
  if (d->layers != NULL) {
    const longctx_layer *a = &d->layers[layer];
    oracle_of_layer(&o, a, a->kv_from >= 0 ? &d->layers[a->kv_from] : a);
  }
  oracle_defaults(&o);
  return o;
}

static inline void oracle_free(oracle *o)
{
  free(o->k);
  free(o->v);
  free(o->turn);
}

/* ---- rotation -------------------------------------------------------------------------------- */

/* cos and sin of pos * freq. The product is split into a rounded part and its exact error, the
   library reduces the rounded part exactly: right to 1e-15 at any position below 2^53. */
static inline void oracle_angle(double pos, double freq, double *c, double *s)
{
  double hi = pos * freq, lo = fma(pos, freq, -hi);
  *c = cos(hi) * cos(lo) - sin(hi) * sin(lo);
  *s = sin(hi) * cos(lo) + cos(hi) * sin(lo);
}

static inline double oracle_freq(const oracle *o, int pair)
{
  return o->freqs ? o->freqs[pair] : pow(o->base, -2.0 * pair / o->rope_dims);
}

/* Rotations for indices 0 .. count-1, from position 0 or from the start of the text. */
static inline void oracle_turns(oracle *o, int count, int from_start)
{
  int pairs = o->rope_dims / 2, i, p;
  if (from_start != o->turns_from_start) o->turns = 0;
  if (count <= o->turns) return;
  count += 64;
  o->turn = (double *)realloc(o->turn, sizeof(double) * 2 * (size_t)count * (size_t)(pairs + 1));
  if (o->turn == NULL) { printf("out of memory\n"); exit(1); }
  for (i = o->turns; i < count; i++)
    for (p = 0; p < pairs; p++) {
      double *cs = o->turn + 2 * ((size_t)i * (size_t)pairs + (size_t)p);
      double pos = (double)((from_start ? o->start : 0) + i);
      oracle_angle(pos, oracle_freq(o, p), cs, cs + 1);
    }
  o->turns = count;
  o->turns_from_start = from_start;
}

/* y = x rotated by table row `index`, forwards (sign 1) or back (sign -1), times `gain`. */
static inline void oracle_rotate(const oracle *o, const double *x, int index, int sign,
                                 double gain, double *y)
{
  int pairs = o->rope_dims / 2, p;
  memcpy(y, x, sizeof(double) * (size_t)o->dim);
  if (o->rope == LONGCTX_ROPE_NONE) return;
  for (p = 0; p < pairs; p++) {
    const double *cs = o->turn + 2 * ((size_t)index * (size_t)pairs + (size_t)p);
    int a = o->rope == LONGCTX_ROPE_HALF ? p : 2 * p;
    int b = o->rope == LONGCTX_ROPE_HALF ? p + pairs : 2 * p + 1;
    y[a] = gain * (x[a] * cs[0] - sign * x[b] * cs[1]);
    y[b] = gain * (x[b] * cs[0] + sign * x[a] * cs[1]);
  }
}

/* ---- what storage loses ---------------------------------------------------------------------- */

/* Nearest, ties to even, with `bits` significant bits, no step below 2^low, clamped to `top`. */
static inline double oracle_nearest(double x, int bits, int low, double top)
{
  int e;
  double step, y;
  (void)frexp(x, &e);
  step = ldexp(1.0, e - bits > low ? e - bits : low);
  y = rint(x / step) * step;
  return y > top ? top : y < -top ? -top : y;
}

static inline double oracle_f16(double x) { return oracle_nearest(x, 11, -24, 65504.0); }
static inline double oracle_bf16(double x) { return oracle_nearest(x, 8, -133, 0x1.fep127); }

static inline void oracle_q8(double *x, int n)
{
  double top = 0.0;
  int i;
  for (i = 0; i < n; i++) top = fmax(top, fabs(x[i]));
  if (top > 0.0)
    for (i = 0; i < n; i++) x[i] = rint(x[i] * 127.0 / top) * top / 127.0;
}

static inline void oracle_store(double *x, int n, int type)
{
  int i;
  if (type == LONGCTX_Q8) oracle_q8(x, n);
  for (i = 0; i < n; i++) {
    if (type == LONGCTX_F16) x[i] = oracle_f16(x[i]);
    if (type == LONGCTX_BF16) x[i] = oracle_bf16(x[i]);
  }
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static inline void oracle_grow(oracle *o, int n)
{
  size_t rows;
  if (o->tokens + n <= o->room) return;
  o->room = 2 * (o->tokens + n);
  rows = (size_t)o->room * (size_t)o->kv_heads;
  o->k = (double *)realloc(o->k, sizeof(double) * rows * (size_t)o->dim);
  o->v = (double *)realloc(o->v, sizeof(double) * rows * (size_t)o->dim_v);
  if (o->k == NULL || o->v == NULL) { printf("out of memory\n"); exit(1); }
}

/* Keys are stored rotated at their place in the text, so that is where they lose precision. */
static inline void oracle_store_key(oracle *o, double *k, int token)
{
  double *r;
  if (o->type_k == LONGCTX_F32) return;
  if (o->rope == LONGCTX_ROPE_NONE) { oracle_store(k, o->dim, o->type_k); return; }
  r = (double *)malloc(sizeof(double) * (size_t)o->dim);
  if (r == NULL) { printf("out of memory\n"); exit(1); }
  oracle_turns(o, token + 1, 1);
  oracle_rotate(o, k, token, 1, 1.0, r);
  oracle_store(r, o->dim, o->type_k);
  oracle_rotate(o, r, token, -1, 1.0, k);
  free(r);
}

static inline void oracle_push(oracle *o, int n, const float *k, const float *v)
{
  int i, g, d;
  oracle_grow(o, n);
  for (i = 0; i < n; i++, o->tokens++)
    for (g = 0; g < o->kv_heads; g++) {
      size_t row = (size_t)o->tokens * (size_t)o->kv_heads + (size_t)g;
      double *kd = o->k + row * (size_t)o->dim, *vd = o->v + row * (size_t)o->dim_v;
      for (d = 0; d < o->dim; d++) kd[d] = (double)*k++;
      for (d = 0; d < o->dim_v; d++) vd[d] = (double)*v++;
      if (o->tokens < o->sinks) continue;              /* sinks lose nothing                     */
      oracle_store_key(o, kd, o->tokens);
      oracle_store(vd, o->dim_v, o->type_v);
    }
}

/* The rule: the first `sinks` tokens, and the window, which ends with the query's own block. */
static inline int oracle_sees(const oracle *o, int query, int key)
{
  int64_t t = o->start + query, p = o->start + key;
  if (key > query) return 0;
  return key < o->sinks || p >= (t / o->block + 1) * o->block - o->window;
}

static inline double oracle_slope(const oracle *o, int head)
{
  int n2 = 1;
  if (!(o->alibi > 0.0)) return 0.0;
  while (2 * n2 <= o->heads) n2 *= 2;
  if (head < n2) return pow(2.0, -o->alibi * (head + 1) / n2);
  return pow(2.0, -o->alibi * (2 * (head - n2) + 1) / (2.0 * n2));
}

/* ---- one row --------------------------------------------------------------------------------- */

static inline double oracle_score(const oracle *o, const double *q, const double *k)
{
  double s = 0.0;
  int d;
  for (d = 0; d < o->dim; d++) s += q[d] * k[d];
  s *= o->scale;
  return o->softcap > 0.0 ? o->softcap * tanh(s / o->softcap) : s;
}

/* Scores of one head against its visible tokens, and the softmax over them. */
static inline void oracle_head(const oracle *o, int head, int n, const int *seen,
                               const double *score, double *out, double *lse)
{
  double top = o->logits ? (double)o->logits[head] : score[0], sum, w;
  int g = head / (o->heads / o->kv_heads), c, d;
  for (c = 0; c < n; c++) top = fmax(top, score[c]);
  sum = o->logits ? exp((double)o->logits[head] - top) : 0.0;
  for (c = 0; c < n; c++) sum += exp(score[c] - top);
  for (d = 0; d < o->dim_v; d++) out[d] = 0.0;
  for (c = 0; c < n; c++) {
    const double *v = o->v + ((size_t)seen[c] * (size_t)o->kv_heads + (size_t)g) * (size_t)o->dim_v;
    w = exp(score[c] - top) / sum;
    for (d = 0; d < o->dim_v; d++) out[d] += w * v[d];
  }
  if (lse != NULL) *lse = top + log(sum);
}

/* Token `query`'s output for its q [heads][dim]; lse [heads] may be NULL. */
static inline void oracle_row(oracle *o, int query, const float *q, double *out, double *lse)
{
  int in_cache = o->positions == LONGCTX_POS_CACHE;
  int ratio = o->heads / o->kv_heads, n = 0, g, h, c, d;
  size_t count = (size_t)query + 1, dim = (size_t)o->dim;
  int *seen = (int *)malloc(sizeof(int) * count);
  double *key = (double *)malloc(sizeof(double) * (count + 2) * dim);
  double *score = (double *)malloc(sizeof(double) * count);
  double *plain = key + count * dim, *turned = plain + dim;
  if (seen == NULL || key == NULL || score == NULL) { printf("out of memory\n"); exit(1); }
  for (c = 0; c <= query; c++)
    if (oracle_sees(o, query, c)) seen[n++] = c;
  if (o->rope != LONGCTX_ROPE_NONE) oracle_turns(o, query + 1, !in_cache);
  for (g = 0; g < o->kv_heads; g++) {
    for (c = 0; c < n; c++)
      oracle_rotate(o, o->k + ((size_t)seen[c] * (size_t)o->kv_heads + (size_t)g) * dim,
                    in_cache ? c : seen[c], 1, o->mscale, key + (size_t)c * dim);
    for (h = g * ratio; h < (g + 1) * ratio; h++) {
      for (d = 0; d < o->dim; d++) plain[d] = (double)q[(size_t)h * dim + (size_t)d];
      oracle_rotate(o, plain, in_cache ? n - 1 : query, 1, o->mscale, turned);
      for (c = 0; c < n; c++) {
        double far = in_cache ? n - 1 - c : query - seen[c];
        score[c] = oracle_score(o, turned, key + (size_t)c * dim) - oracle_slope(o, h) * far;
      }
      oracle_head(o, h, n, seen, score, out + (size_t)h * (size_t)o->dim_v, lse ? lse + h : NULL);
    }
  }
  free(seen);
  free(key);
  free(score);
}

#endif
