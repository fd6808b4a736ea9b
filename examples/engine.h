/* engine.h - the forward pass: tokens in, logits out, attention by longctx.h.

   The whole of what an engine needs from longctx.h stands in engine_forward: one call per layer.
   There is no rotation, no key-value cache and no attention loop here.

   One .c file defines LONGCTX_IMPLEMENTATION and ENGINE_IMPLEMENTATION before it includes this. */
#ifndef EXAMPLES_ENGINE_H
#define EXAMPLES_ENGINE_H

#include "longctx.h"
#include "model.h"

/* What a forward pass of up to max_batch tokens works in. Two engines may share a model. */
typedef struct engine {
  const model *m;
  int max_batch;
  float *x, *normed;    /* [max_batch][dim]: the stream, and what a layer makes of it */
  float *q, *attended;  /* [max_batch][n_heads][head_dim] */
  float *k, *v;         /* [max_batch][n_kv_heads][head_dim] */
  float *gate, *up;     /* [max_batch][hidden_dim] */
  float *memory;        /* the one block they all point into */
} engine;

/* Returns 0, or -1 and says why; then there is nothing to free. */
int engine_init(engine *e, const model *m, int max_batch, engine_error *error);
void engine_free(engine *e);

/* The desc of a context for this model: its shape and its rotation, the rest as longctx.h has it.
   The caller sets sinks, positions, max_batch and types. */
longctx_desc engine_desc(const model *m, int window);

/* The same as the model was trained to remember: its window, block and memory, too. */
longctx_desc engine_trained_desc(const model *m);

/* What an empty context needs of the model before its first token: the gates of a context with a
   memory. Returns 0 or longctx.h's code. */
int engine_start(const engine *e, longctx *context);

/* One pass over tokens [n], at most max_batch: the caller commits them, or does not. The last
   n_logits of them leave logits [n_logits][vocab_size]. Returns 0 or longctx.h's code. */
int engine_forward(engine *e, longctx *context, const int *tokens, int n, float *logits,
                   int n_logits);

/* Any number of tokens [n], read and committed in as many passes as it takes. The last one leaves
   logits [vocab_size] unless that is NULL. Returns 0 or longctx.h's code. */
int engine_read(engine *e, longctx *context, const int *tokens, int n, float *logits);

#ifdef ENGINE_IMPLEMENTATION
#include <stdlib.h>
#include <string.h>

static float *engine_carve(float **next, int max_batch, size_t width)
{
  float *piece = *next;
  *next += (size_t)max_batch * width;
  return piece;
}

int engine_init(engine *e, const model *m, int max_batch, engine_error *error)
{
  size_t dim = (size_t)m->dim, hidden = (size_t)m->hidden_dim;
  size_t q_dim = (size_t)m->n_heads * (size_t)m->head_dim;
  size_t kv_dim = (size_t)m->n_kv_heads * (size_t)m->head_dim;
  size_t row = 2 * (dim + q_dim + kv_dim + hidden);
  memset(e, 0, sizeof *e);
  if (max_batch < 1 || (size_t)max_batch > SIZE_MAX / sizeof(float) / row)
    return engine_fail(error, "a batch of %d tokens is out of range", max_batch);
  e->memory = malloc((size_t)max_batch * row * sizeof(float));
  if (!e->memory) return engine_fail(error, "no memory for a batch of %d tokens", max_batch);

  float *next = e->memory;
  e->m = m;
  e->max_batch = max_batch;
  e->x = engine_carve(&next, max_batch, dim);
  e->normed = engine_carve(&next, max_batch, dim);
  e->q = engine_carve(&next, max_batch, q_dim);
  e->attended = engine_carve(&next, max_batch, q_dim);
  e->k = engine_carve(&next, max_batch, kv_dim);
  e->v = engine_carve(&next, max_batch, kv_dim);
  e->gate = engine_carve(&next, max_batch, hidden);
  e->up = engine_carve(&next, max_batch, hidden);
  return 0;
}

void engine_free(engine *e)
{
  free(e->memory);
  memset(e, 0, sizeof *e);
}

longctx_desc engine_desc(const model *m, int window)
{
  longctx_desc desc =
    longctx_desc_make(m->n_layers, m->n_heads, m->n_kv_heads, m->head_dim, window);
  desc.rope = LONGCTX_ROPE_INTERLEAVED;
  desc.rope_base = m->rope_base;
  desc.rope_dims = m->rope_dims;
  desc.rope_freqs = m->rope_freqs;
  return desc;
}

longctx_desc engine_trained_desc(const model *m)
{
  longctx_desc desc = engine_desc(m, m->window);
  desc.block = m->block;
  desc.memory = m->memory;
  return desc;
}

int engine_start(const engine *e, longctx *context)
{
  const model *m = e->m;
  int remembers = longctx_get_desc(context).memory != LONGCTX_MEMORY_NONE, code = LONGCTX_OK;
  for (int l = 0; l < m->n_layers && remembers && code == LONGCTX_OK; l++)
    code = longctx_set_gate(context, l, m->gates + (size_t)l * (size_t)m->n_heads);
  return code;
}

static void engine_norm(const engine *e, int n, const float *gain)
{
  for (int i = 0; i < n; i++) {
    size_t row = (size_t)i * (size_t)e->m->dim;
    rmsnorm(e->m->dim, e->x + row, gain, e->m->norm_epsilon, e->normed + row);
  }
}

/* x += normed, the result of a layer's half */
static void engine_add(const engine *e, int n)
{
  size_t count = (size_t)n * (size_t)e->m->dim;
  for (size_t i = 0; i < count; i++) e->x[i] += e->normed[i];
}

static int engine_attention(engine *e, longctx *context, int layer, int n)
{
  const model_layer *w = &e->m->layers[layer];
  engine_norm(e, n, w->attention_norm);
  matrix_apply(&w->wq, n, e->normed, e->q);
  matrix_apply(&w->wk, n, e->normed, e->k);
  matrix_apply(&w->wv, n, e->normed, e->v);
  int code = longctx_attend(context, layer, n, e->q, e->k, e->v, e->attended);
  if (code) return code;
  matrix_apply(&w->wo, n, e->attended, e->normed);
  engine_add(e, n);
  return 0;
}

static void engine_ffn(engine *e, int layer, int n)
{
  const model_layer *w = &e->m->layers[layer];
  engine_norm(e, n, w->ffn_norm);
  matrix_apply(&w->w1, n, e->normed, e->gate);
  matrix_apply(&w->w3, n, e->normed, e->up);
  for (int i = 0; i < n; i++) {
    size_t row = (size_t)i * (size_t)e->m->hidden_dim;
    swiglu(e->m->hidden_dim, e->gate + row, e->up + row);
  }
  matrix_apply(&w->w2, n, e->gate, e->normed);
  engine_add(e, n);
}

int engine_forward(engine *e, longctx *context, const int *tokens, int n, float *logits,
                   int n_logits)
{
  const model *m = e->m;
  if (n < 1 || n > e->max_batch || n_logits < 0 || n_logits > n) return LONGCTX_E_ARG;
  for (int i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= m->vocab_size) return LONGCTX_E_ARG;

  for (int i = 0; i < n; i++)
    matrix_row(&m->embedding, tokens[i], e->x + (size_t)i * (size_t)m->dim);
  for (int layer = 0; layer < m->n_layers; layer++) {
    int code = engine_attention(e, context, layer, n);
    if (code) return code;
    engine_ffn(e, layer, n);
  }
  if (n_logits == 0) return 0;
  engine_norm(e, n, m->final_norm);
  matrix_apply(&m->head, n_logits, e->normed + (size_t)(n - n_logits) * (size_t)m->dim, logits);
  return 0;
}

int engine_read(engine *e, longctx *context, const int *tokens, int n, float *logits)
{
  while (n > 0) {
    int room = longctx_room(context), take = n < room ? n : room;
    if (take > e->max_batch) take = e->max_batch;
    int code = engine_forward(e, context, tokens, take, logits, logits && take == n);
    if (code == LONGCTX_OK) code = longctx_commit(context, take);
    if (code != LONGCTX_OK) return code;
    tokens += take;
    n -= take;
  }
  return LONGCTX_OK;
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_ENGINE_H */
