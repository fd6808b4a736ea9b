/* before.c - a forward pass as small engines write it: rotation, caches and attention by hand.
   It prints the likeliest token, step by step, and stops when its caches are full. after.c is the
   same program with longctx.h and does not stop there: diff the two.

   usage: MODEL TOKENIZER STEPS */
#define ENGINE_IMPLEMENTATION
#include "../model.h"
#include "../tokenizer.h"
#include <math.h>
#include <stdlib.h>

typedef struct state {
  float *x, *xb, *xb2;     /* [dim] */
  float *q;                /* [dim] */
  float *hb, *hb2;         /* [hidden_dim] */
  float *logits;           /* [vocab_size] */
  float *att;              /* [trained_len] */
  float *key_cache;        /* [n_layers][trained_len][kv_dim] */
  float *value_cache;      /* [n_layers][trained_len][kv_dim] */
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
  s->att = floats(1, 1, m->trained_len);
  s->key_cache = floats(m->n_layers, m->trained_len, kv_dim);
  s->value_cache = floats(m->n_layers, m->trained_len, kv_dim);
}

/* turns neighbouring pairs of a vector [n] made of heads, for position pos */
static void rotate(const model *m, float *x, int n, int pos)
{
  for (int i = 0; i < n; i += 2) {
    double angle = pos * pow(m->rope_base, -(double)(i % m->head_dim) / m->head_dim);
    float c = (float)cos(angle), s = (float)sin(angle), a = x[i], b = x[i + 1];
    x[i] = a * c - b * s;
    x[i + 1] = a * s + b * c;
  }
}

/* out [head_dim] = softmax(q . keys) times values, over positions 0 to pos */
static void attend_head(const model *m, const float *q, const float *keys, const float *values,
                        int pos, float *att, float *out)
{
  int stride = m->n_kv_heads * m->head_dim;
  float largest = -INFINITY, sum = 0.0f;
  for (int t = 0; t <= pos; t++) {
    att[t] = 0.0f;
    for (int i = 0; i < m->head_dim; i++) att[t] += q[i] * keys[t * stride + i];
    att[t] /= sqrtf((float)m->head_dim);
    if (att[t] > largest) largest = att[t];
  }
  for (int i = 0; i < m->head_dim; i++) out[i] = 0.0f;
  for (int t = 0; t <= pos; t++) {
    float weight = expf(att[t] - largest);
    sum += weight;
    for (int i = 0; i < m->head_dim; i++) out[i] += weight * values[t * stride + i];
  }
  for (int i = 0; i < m->head_dim; i++) out[i] /= sum;
}

static float *forward(const model *m, state *s, int token, int pos)
{
  int head_dim = m->head_dim, kv_dim = m->n_kv_heads * head_dim;
  matrix_row(&m->embedding, token, s->x);
  for (int l = 0; l < m->n_layers; l++) {
    const model_layer *w = &m->layers[l];
    float *keys = s->key_cache + (size_t)l * (size_t)m->trained_len * (size_t)kv_dim;
    float *values = s->value_cache + (size_t)l * (size_t)m->trained_len * (size_t)kv_dim;
    float *k = keys + pos * kv_dim, *v = values + pos * kv_dim;

    rmsnorm(m->dim, s->x, w->attention_norm, m->norm_epsilon, s->xb);
    matrix_apply(&w->wq, 1, s->xb, s->q);
    matrix_apply(&w->wk, 1, s->xb, k);
    matrix_apply(&w->wv, 1, s->xb, v);
    rotate(m, s->q, m->dim, pos);
    rotate(m, k, kv_dim, pos);
    for (int h = 0; h < m->n_heads; h++) {
      int kv_head = h / (m->n_heads / m->n_kv_heads);
      attend_head(m, s->q + h * head_dim, keys + kv_head * head_dim, values + kv_head * head_dim,
                  pos, s->att, s->xb + h * head_dim);
    }
    matrix_apply(&w->wo, 1, s->xb, s->xb2);
    for (int i = 0; i < m->dim; i++) s->x[i] += s->xb2[i];

    rmsnorm(m->dim, s->x, w->ffn_norm, m->norm_epsilon, s->xb);
    matrix_apply(&w->w1, 1, s->xb, s->hb);
    matrix_apply(&w->w3, 1, s->xb, s->hb2);
    swiglu(m->hidden_dim, s->hb, s->hb2);
    matrix_apply(&w->w2, 1, s->hb, s->xb);
    for (int i = 0; i < m->dim; i++) s->x[i] += s->xb[i];
  }
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
  if (steps > m.trained_len) steps = m.trained_len;
  for (int pos = 0; pos < steps; pos++) {
    int next = logits_argmax(forward(&m, &s, token, pos), m.vocab_size);
    tokenizer_print(&t, token, next, stdout);
    token = next;
  }
  printf("\n");
  return 0;
}
