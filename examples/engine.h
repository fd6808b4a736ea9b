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
   memory, the first rows of one with feedback. Returns 0 or longctx.h's code. */
int engine_start(engine *e, longctx *context);

/* Time moves n tokens; where that fills a block, the feedback rows are updated (TransformerFAM,
   arXiv 2404.09173). Returns 0 or longctx.h's code. */
int engine_commit(engine *e, longctx *context, int n);

/* One pass over tokens [n], at most max_batch: the caller commits them, or does not. The last
   n_logits of them leave logits [n_logits][vocab_size]. Returns 0 or longctx.h's code. */
int engine_forward(engine *e, longctx *context, const int *tokens, int n, float *logits,
                   int n_logits);

/* Any number of tokens [n], read and committed in as many passes as it takes. The last one leaves
   logits [vocab_size] unless that is NULL. Returns 0 or longctx.h's code. */
int engine_read(engine *e, longctx *context, const int *tokens, int n, float *logits);

#ifdef ENGINE_IMPLEMENTATION
#include <math.h>
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
  if (max_batch < m->feedback_len) max_batch = m->feedback_len; /* rows go the way of tokens */
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
  desc.feedback_len = m->feedback_len;
  desc.feedback_dim = m->feedback_len ? m->dim : 0;
  return desc;
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

/* q, k, v of the stream's n rows */
static void engine_project(engine *e, int layer, int n)
{
  const model_layer *w = &e->m->layers[layer];
  engine_norm(e, n, w->attention_norm);
  matrix_apply(&w->wq, n, e->normed, e->q);
  matrix_apply(&w->wk, n, e->normed, e->k);
  matrix_apply(&w->wv, n, e->normed, e->v);
}

/* x += what was attended to */
static void engine_take(engine *e, int layer, int n)
{
  matrix_apply(&e->m->layers[layer].wo, n, e->attended, e->normed);
  engine_add(e, n);
}

static int engine_attention(engine *e, longctx *context, int layer, int n)
{
  engine_project(e, layer, n);
  int code = longctx_attend(context, layer, n, e->q, e->k, e->v, e->attended);
  if (code == LONGCTX_OK) engine_take(e, layer, n);
  return code;
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

/* ==== feedback: the caller's half of the loop ==== */

static size_t engine_row_bytes(const engine *e)
{
  return (size_t)e->m->feedback_len * (size_t)e->m->dim * sizeof(float);
}

/* The stream's rows become layer's: kept as they are, and as keys, values and queries. */
static int engine_give_rows(engine *e, longctx *context, int layer)
{
  memcpy(longctx_feedback(context, layer), e->x, engine_row_bytes(e));
  engine_project(e, layer, e->m->feedback_len);
  return longctx_feedback_set(context, layer, e->q, e->k, e->v);
}

/* Before the text: learned rows go through the stack, and see each other. */
static int engine_first_rows(engine *e, longctx *context)
{
  const model *m = e->m;
  memcpy(e->x, m->rows, engine_row_bytes(e));
  for (int layer = 0; layer < m->n_layers; layer++) {
    int code = engine_give_rows(e, context, layer);
    if (code == LONGCTX_OK) code = longctx_feedback_attend(context, layer, e->attended);
    if (code != LONGCTX_OK) return code;
    engine_take(e, layer, m->feedback_len);
    engine_ffn(e, layer, m->feedback_len);
  }
  return LONGCTX_OK;
}

/* Two bounds that the paper has not, as the model was trained with them. In a loop a residual grows
   for ever, so every number is held to +-row_limit. And a change of less than row_rest is none, so
   that what nothing speaks of stays as it is, however long. */
static void engine_settle_rows(engine *e, const float *old, int first)
{
  const model *m = e->m;
  for (int i = 0; i < m->feedback_len * m->dim; i++) {
    float change = e->x[i] - old[i], rest = m->row_rest, limit = m->row_limit;
    if (!first) e->x[i] = old[i] + (change - fminf(fmaxf(change, -rest), rest));
    if (limit > 0) e->x[i] = fminf(fmaxf(e->x[i], -limit), limit);
  }
}

/* A block is full: each layer's rows look at it and at each other, and go through the layer as a
   token would. The first time there is nothing to add to: the residual is 0. */
static int engine_update_rows(engine *e, longctx *context)
{
  const model *m = e->m;
  int first = longctx_position(context) == m->block;
  for (int layer = 0; layer < m->n_layers; layer++) {
    int code = longctx_feedback_attend(context, layer, e->attended);
    if (code != LONGCTX_OK) return code;
    const float *old = longctx_feedback(context, layer);
    if (first) memset(e->x, 0, engine_row_bytes(e));
    else memcpy(e->x, old, engine_row_bytes(e));
    engine_take(e, layer, m->feedback_len);
    engine_ffn(e, layer, m->feedback_len);
    engine_settle_rows(e, old, first);
    if ((code = engine_give_rows(e, context, layer)) != LONGCTX_OK) return code;
  }
  return LONGCTX_OK;
}

/* ==== the calls ==== */

int engine_start(engine *e, longctx *context)
{
  const model *m = e->m;
  int remembers = longctx_get_desc(context).memory != LONGCTX_MEMORY_NONE, code = LONGCTX_OK;
  for (int l = 0; l < m->n_layers && remembers && code == LONGCTX_OK; l++)
    code = longctx_set_gate(context, l, m->gates + (size_t)l * (size_t)m->n_heads);
  if (code == LONGCTX_OK && longctx_feedback_due(context)) code = engine_first_rows(e, context);
  return code;
}

int engine_commit(engine *e, longctx *context, int n)
{
  int code = longctx_commit(context, n);
  if (code == LONGCTX_OK && longctx_feedback_due(context)) code = engine_update_rows(e, context);
  return code;
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
    if (code == LONGCTX_OK) code = engine_commit(e, context, take);
    if (code != LONGCTX_OK) return code;
    tokens += take;
    n -= take;
  }
  return LONGCTX_OK;
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_ENGINE_H */
