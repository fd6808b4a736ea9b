/* after.c - before.c with longctx.h in place of its rotation, caches and attention loop.
   It prints the likeliest token, step by step, for as many steps as asked for.

   usage: MODEL TOKENIZER STEPS */
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#include "longctx.h"
#include "../model.h"
#include "../tokenizer.h"
#include <stdlib.h>

typedef struct state {
  float *x, *xb, *xb2;     /* [dim] */
  float *q;                /* [dim] */
  float *hb, *hb2;         /* [hidden_dim] */
  float *logits;           /* [vocab_size] */
  float *k, *v;            /* [kv_dim] */
  longctx *context;        /* replaces the caches */
} state;

static float *floats(int a, int b, int c)
{
  float *x = calloc((size_t)a * (size_t)b * (size_t)c, sizeof *x);
  if (!x) exit(1);
  return x;
}

static void state_init(state *s, const model *m)
{
  int kv_dim = m->n_kv_heads * m->head_dim;
  s->x = floats(1, 1, m->dim);
  s->xb = floats(1, 1, m->dim);
  s->xb2 = floats(1, 1, m->dim);
  s->q = floats(1, 1, m->dim);
  s->hb = floats(1, 1, m->hidden_dim);
  s->hb2 = floats(1, 1, m->hidden_dim);
  s->logits = floats(1, 1, m->vocab_size);
  s->k = floats(1, 1, kv_dim);
  s->v = floats(1, 1, kv_dim);
  longctx_desc desc = longctx_desc_make(m->n_layers, m->n_heads, m->n_kv_heads, m->head_dim,
                                        m->trained_len - 4);
  desc.sinks = 4;
  desc.rope = LONGCTX_ROPE_INTERLEAVED;
  desc.rope_base = m->rope_base;
  size_t bytes = longctx_size(&desc);
  s->context = longctx_init(malloc(bytes), bytes, &desc);
  if (!s->context) exit(1);
}

static float *forward(const model *m, state *s, int token)
{
  matrix_row(&m->embedding, token, s->x);
  for (int l = 0; l < m->n_layers; l++) {
    const model_layer *w = &m->layers[l];
    rmsnorm(m->dim, s->x, w->attention_norm, m->norm_epsilon, s->xb);
    matrix_apply(&w->wq, 1, s->xb, s->q);
    matrix_apply(&w->wk, 1, s->xb, s->k);
    matrix_apply(&w->wv, 1, s->xb, s->v);
    longctx_attend(s->context, l, 1, s->q, s->k, s->v, s->xb);
    matrix_apply(&w->wo, 1, s->xb, s->xb2);
    for (int i = 0; i < m->dim; i++) s->x[i] += s->xb2[i];

    rmsnorm(m->dim, s->x, w->ffn_norm, m->norm_epsilon, s->xb);
    matrix_apply(&w->w1, 1, s->xb, s->hb);
    matrix_apply(&w->w3, 1, s->xb, s->hb2);
    swiglu(m->hidden_dim, s->hb, s->hb2);
    matrix_apply(&w->w2, 1, s->hb, s->xb);
    for (int i = 0; i < m->dim; i++) s->x[i] += s->xb[i];
  }
  longctx_commit(s->context, 1);
  rmsnorm(m->dim, s->x, m->final_norm, m->norm_epsilon, s->x);
  matrix_apply(&m->head, 1, s->x, s->logits);
  return s->logits;
}

int main(int argc, char **argv)
{
  model m;
  tokenizer t;
  state s;
  engine_error error = { "usage: MODEL TOKENIZER STEPS" };
  if (argc != 4 || model_load(&m, argv[1], &error) ||
      tokenizer_load(&t, argv[2], m.vocab_size, &error)) {
    fprintf(stderr, "%s\n", error.text);
    return 1;
  }
  if (m.n_heads * m.head_dim != m.dim || m.rope_dims != m.head_dim || m.rope_freqs) {
    fprintf(stderr, "not a model of llama2.c's shape\n");
    return 1;
  }
  state_init(&s, &m);
  int steps = atoi(argv[3]), token = TOKEN_BOS;
  for (int pos = 0; pos < steps; pos++) {
    int next = logits_argmax(forward(&m, &s, token), m.vocab_size);
    tokenizer_print(&t, token, next, stdout);
    token = next;
  }
  printf("\n");
  return 0;
}
