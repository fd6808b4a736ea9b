/* model.h - a decoder-only transformer in memory, and the reader that puts it there.

   A reader learns the shape, makes room, and fills the matrices one after another; it is the only
   part that knows a file format. There are two: for llama2.c checkpoints of version 0 (float32),
   with a tail of our own where a model was trained to remember, and for GGUF files of the llama
   architecture, whose weights stay as small as the file has them. Shapes stand in brackets,
   slowest index first.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this (or a header that does). */
#ifndef EXAMPLES_MODEL_H
#define EXAMPLES_MODEL_H

#include "file.h"
#include "gguf.h"
#include "matrix.h"

typedef struct model_layer {
  float *attention_norm;  /* [dim] */
  matrix wq;              /* [n_heads * head_dim][dim] */
  matrix wk, wv;          /* [n_kv_heads * head_dim][dim] */
  matrix wo;              /* [dim][n_heads * head_dim] */
  float *ffn_norm;        /* [dim] */
  matrix w1, w3;          /* [hidden_dim][dim]: gate and up */
  matrix w2;              /* [dim][hidden_dim]: down */
} model_layer;

typedef struct model {
  int dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, vocab_size;
  int trained_len;        /* the longest text it saw in training */
  int tied;               /* 1: the head is the embedding */
  double rope_base;       /* rotated in interleaved pairs */
  int rope_dims;          /* how many of head_dim rotate */
  double *rope_freqs;     /* [rope_dims / 2], radians per token; NULL: as rope_base has them */
  float norm_epsilon;
  matrix embedding, head; /* [vocab_size][dim] */
  float *final_norm;      /* [dim] */
  model_layer *layers;    /* [n_layers] */
  void *weights;          /* the one block that all of the above and below point into */
  int has_tokenizer;      /* 1: its file holds its tokenizer, too */

  /* how it was trained to remember; all 0 in a plain model */
  int window, block;      /* longctx.h's */
  int memory;             /* LONGCTX_MEMORY_NONE, _LINEAR, _DELTA */
  float *gates;           /* [n_layers][n_heads], before the sigmoid; NULL without a memory */
  int feedback_len;       /* feedback rows of a layer */
  float *rows;            /* [feedback_len][dim]: what they are before the text; NULL without */
  float row_limit;        /* largest magnitude in a row after an update, 0 = any */
  float row_rest;         /* largest change of a number in it that counts as none */
} model;

/* Both return 0, or -1 and say why; then there is nothing to free. The bytes may be freed. The
   first four bytes decide which reader takes the file. */
int model_load(model *m, const char *path, engine_error *error);
int model_parse(model *m, const unsigned char *bytes, size_t size, engine_error *error);
void model_free(model *m);

/* y [dim] = x [dim] / rms(x) * gain [dim] */
void rmsnorm(int dim, const float *x, const float *gain, float epsilon, float *y);

/* gate[i] = silu(gate[i]) * up[i] */
void swiglu(int n, float *gate, const float *up);

/* -log of the probability that logits [n] give to `token`; and the largest logit's index */
double logits_nll(const float *logits, int n, int token);
int logits_argmax(const float *logits, int n);

#ifdef ENGINE_IMPLEMENTATION
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ==== small layers ==== */

void rmsnorm(int dim, const float *x, const float *gain, float epsilon, float *y)
{
  float sum = 0.0f;
  for (int i = 0; i < dim; i++) sum += x[i] * x[i];
  float scale = 1.0f / sqrtf(sum / (float)dim + epsilon);
  for (int i = 0; i < dim; i++) y[i] = x[i] * scale * gain[i];
}

void swiglu(int n, float *gate, const float *up)
{
  for (int i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

int logits_argmax(const float *logits, int n)
{
  int best = 0;
  for (int i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

double logits_nll(const float *logits, int n, int token)
{
  double largest = (double)logits[logits_argmax(logits, n)], sum = 0.0;
  for (int i = 0; i < n; i++) sum += exp((double)logits[i] - largest);
  return log(sum) + largest - (double)logits[token];
}

/* ==== the block of a model whose weights are all floats ==== */

/* How many floats the weights take; -1 when 64 bits do not hold the number. */
static int model_count(const model *m, uint64_t *floats)
{
  uint64_t dim = (uint64_t)m->dim, hidden = (uint64_t)m->hidden_dim;
  uint64_t n_layers = (uint64_t)m->n_layers, vocab = (uint64_t)m->vocab_size;
  uint64_t kv_dim = (uint64_t)m->n_kv_heads * (uint64_t)m->head_dim;
  int wrapped = 0;
  *floats = 0;
  wrapped |= add_product(floats, vocab, dim, m->tied ? 1 : 2); /* embedding, head */
  wrapped |= add_product(floats, n_layers, dim, 2);            /* two norms */
  wrapped |= add_product(floats, n_layers, 2 * dim, dim);      /* wq, wo */
  wrapped |= add_product(floats, n_layers, 2 * kv_dim, dim);   /* wk, wv */
  wrapped |= add_product(floats, n_layers, 3 * hidden, dim);   /* w1, w2, w3 */
  wrapped |= add_product(floats, 1, dim, 1);                   /* final norm */
  if (m->memory) wrapped |= add_product(floats, n_layers, (uint64_t)m->n_heads, 1); /* gates */
  wrapped |= add_product(floats, (uint64_t)m->feedback_len, dim, 1);
  return wrapped ? -1 : 0;
}

static float *model_carve(float **next, int rows, int cols)
{
  float *piece = *next;
  *next += (size_t)rows * (size_t)cols;
  return piece;
}

static matrix model_carve_matrix(float **next, int rows, int cols)
{
  matrix w = { rows, cols, model_carve(next, rows, cols), MATRIX_F32, NULL };
  return w;
}

static void model_carve_layer(const model *m, model_layer *layer, float **next)
{
  int q_dim = m->n_heads * m->head_dim, kv_dim = m->n_kv_heads * m->head_dim;
  layer->attention_norm = model_carve(next, 1, m->dim);
  layer->wq = model_carve_matrix(next, q_dim, m->dim);
  layer->wk = model_carve_matrix(next, kv_dim, m->dim);
  layer->wv = model_carve_matrix(next, kv_dim, m->dim);
  layer->wo = model_carve_matrix(next, m->dim, q_dim);
  layer->ffn_norm = model_carve(next, 1, m->dim);
  layer->w1 = model_carve_matrix(next, m->hidden_dim, m->dim);
  layer->w2 = model_carve_matrix(next, m->dim, m->hidden_dim);
  layer->w3 = model_carve_matrix(next, m->hidden_dim, m->dim);
}

/* Memory for a model whose shape is known and whose file is known to be as large. */
static int model_allocate(model *m, engine_error *error)
{
  uint64_t floats;
  if (model_count(m, &floats) || floats > SIZE_MAX / sizeof(float))
    return engine_fail(error, "the model is larger than this machine can address");
  m->weights = malloc((size_t)floats * sizeof(float));
  m->layers = calloc((size_t)m->n_layers, sizeof *m->layers);
  if (!m->weights || !m->layers) return engine_fail(error, "no memory for the model's weights");

  float *next = m->weights;
  m->embedding = model_carve_matrix(&next, m->vocab_size, m->dim);
  for (int l = 0; l < m->n_layers; l++) model_carve_layer(m, &m->layers[l], &next);
  m->final_norm = model_carve(&next, 1, m->dim);
  m->head = m->tied ? m->embedding : model_carve_matrix(&next, m->vocab_size, m->dim);
  if (m->memory) m->gates = model_carve(&next, m->n_layers, m->n_heads);
  if (m->feedback_len) m->rows = model_carve(&next, m->feedback_len, m->dim);
  return 0;
}

void model_free(model *m)
{
  free(m->weights);
  free(m->layers);
  free(m->rope_freqs);
  memset(m, 0, sizeof *m);
}

/* ==== the reader of llama2.c checkpoints, version 0 ====
   Seven int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: a head of
   its own follows at the end), trained length; then float32 tensors, all layers of one kind
   together, and two rotation tables [trained_len][head_dim / 2] that nobody needs any more.

   Behind them may stand a tail of our own, which other readers pass over: "LCXM"; six int32:
   version 1, window, block, memory, feedback_len, 0; with a memory the gates; with feedback the
   rows, row_limit and row_rest. */

static int llama2c_range(const char *name, int32_t value, engine_error *error)
{
  if (value >= 1 && value <= FILE_LARGEST) return 0;
  return engine_fail(error, "%s is %ld, it must be 1 to %d", name, (long)value, FILE_LARGEST);
}

static int llama2c_heads(const model *m, engine_error *error)
{
  if (m->n_heads > m->dim)
    return engine_fail(error, "n_heads %d is more than dim %d", m->n_heads, m->dim);
  if (m->dim % m->n_heads)
    return engine_fail(error, "dim %d is no multiple of n_heads %d", m->dim, m->n_heads);
  if (m->dim / m->n_heads % 2)
    return engine_fail(error, "head size %d is odd, its pairs cannot be rotated",
                       m->dim / m->n_heads);
  if (m->n_kv_heads > m->n_heads)
    return engine_fail(error, "n_kv_heads %d is more than n_heads %d", m->n_kv_heads, m->n_heads);
  if (m->n_heads % m->n_kv_heads)
    return engine_fail(error, "n_heads %d is no multiple of n_kv_heads %d",
                       m->n_heads, m->n_kv_heads);
  return 0;
}

static int llama2c_header(cursor *c, model *m, engine_error *error)
{
  static const char *const name[7] = {
    "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"
  };
  int32_t value[7];
  for (int i = 0; i < 7; i++)
    if (take_i32(c, &value[i]))
      return engine_fail(error, "the file ends inside its header, before %s", name[i]);
  if (value[0] == 0x616b3432)
    return engine_fail(error, "this llama2.c checkpoint is of version 1 or 2; version 0 is read");
  m->tied = value[5] > 0;
  if (value[5] < 0 && value[5] >= -FILE_LARGEST) value[5] = -value[5];
  for (int i = 0; i < 7; i++)
    if (llama2c_range(name[i], value[i], error)) return -1;

  m->dim = value[0];
  m->hidden_dim = value[1];
  m->n_layers = value[2];
  m->n_heads = value[3];
  m->n_kv_heads = value[4];
  m->vocab_size = value[5];
  m->trained_len = value[6];
  if (llama2c_heads(m, error)) return -1;
  m->head_dim = m->rope_dims = m->dim / m->n_heads;
  m->rope_base = 10000.0;
  m->norm_epsilon = 1e-5f;
  return 0;
}

static int llama2c_tail_header(cursor *c, model *m, engine_error *error)
{
  static const char *const name[6] = {
    "tail version", "window", "block", "memory", "feedback_len", "tail's last number"
  };
  int32_t value[6], most[6] = { 1, FILE_LARGEST, FILE_LARGEST, 2, 4096, 0 };
  const unsigned char *magic;
  if (take_bytes(c, 4, &magic) || memcmp(magic, "LCXM", 4))
    return engine_fail(error, "what follows the weights is no tail of ours (it starts LCXM)");
  for (int i = 0; i < 6; i++) {
    if (take_i32(c, &value[i]))
      return engine_fail(error, "the file ends inside its tail, before %s", name[i]);
    int least = i < 3;
    if (value[i] < least || value[i] > most[i])
      return engine_fail(error, "%s is %ld, it must be %d to %ld", name[i], (long)value[i], least,
                         (long)most[i]);
  }
  m->window = value[1];
  m->block = value[2];
  m->memory = value[3];
  m->feedback_len = value[4];
  if (m->window % m->block)
    return engine_fail(error, "window %d is no multiple of block %d", m->window, m->block);
  return 0;
}

static int llama2c_must_be(uint64_t bytes, uint64_t left, engine_error *error)
{
  if (bytes == left) return 0;
  return engine_fail(error, "the file is too %s: the header promises %llu bytes of weights, %llu "
                     "follow", left < bytes ? "short" : "long", (unsigned long long)bytes,
                     (unsigned long long)left);
}

/* The rest of the file must be exactly what the header, and the tail's if there is one, promises:
   so no header can make us ask for much more memory than its file has bytes. */
static int llama2c_length(const cursor *c, model *m, engine_error *error)
{
  uint64_t plain, floats, bytes = 0;
  cursor tail = *c;
  const unsigned char *weights;
  int wrapped = model_count(m, &plain);
  wrapped |= add_product(&plain, (uint64_t)m->trained_len, (uint64_t)m->head_dim, 1);
  wrapped |= add_product(&bytes, plain, sizeof(float), 1);
  if (wrapped) return engine_fail(error, "the header's sizes multiply to more than 64 bits");
  if (take_bytes(&tail, bytes, &weights) || tail.left < 4 || memcmp(tail.at, "LCXM", 4))
    return llama2c_must_be(bytes, c->left, error);
  if (llama2c_tail_header(&tail, m, error)) return -1;
  wrapped = model_count(m, &floats);
  wrapped |= add_product(&floats, (uint64_t)m->trained_len, (uint64_t)m->head_dim, 1);
  bytes = 0;
  wrapped |= add_product(&bytes, floats - plain + (m->feedback_len ? 2 : 0), sizeof(float), 1);
  if (wrapped) return engine_fail(error, "the tail's sizes multiply to more than 64 bits");
  return llama2c_must_be(bytes, tail.left, error);
}

static int model_floats(cursor *c, float *x, int n, const char *name, engine_error *error)
{
  for (int i = 0; i < n; i++) {
    if (take_f32(c, &x[i])) return engine_fail(error, "the file ends inside %s", name);
    if (!is_finite(x[i])) return engine_fail(error, "%s holds a value that is not finite", name);
  }
  return 0;
}

static int llama2c_matrix(cursor *c, matrix *w, float *row, const char *name, engine_error *error)
{
  for (int r = 0; r < w->rows; r++) {
    if (model_floats(c, row, w->cols, name, error)) return -1;
    matrix_set_row(w, r, row);
  }
  return 0;
}

/* what llama2c_length has found there */
static int llama2c_tail(cursor *c, model *m, engine_error *error)
{
  engine_error none;
  if (m->block && llama2c_tail_header(c, m, &none)) return -1;
  if (m->memory && model_floats(c, m->gates, m->n_layers * m->n_heads, "the gates", error))
    return -1;
  if (m->feedback_len == 0) return 0;
  if (model_floats(c, m->rows, m->feedback_len * m->dim, "the feedback rows", error)) return -1;
  if (model_floats(c, &m->row_limit, 1, "row_limit", error)) return -1;
  if (model_floats(c, &m->row_rest, 1, "row_rest", error)) return -1;
  if (m->row_limit < 0 || m->row_rest < 0)
    return engine_fail(error, "row_limit or row_rest is negative");
  return 0;
}

/* `row` has room for the longest row of any matrix */
static int llama2c_tensors(cursor *c, model *m, float *row, engine_error *error)
{
  model_layer *layer = m->layers;
  int bad = llama2c_matrix(c, &m->embedding, row, "the embedding", error), n = m->n_layers;
  for (int l = 0; !bad && l < n; l++)
    bad = model_floats(c, layer[l].attention_norm, m->dim, "rms_att_weight", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wq, row, "wq", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wk, row, "wk", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wv, row, "wv", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wo, row, "wo", error);
  for (int l = 0; !bad && l < n; l++)
    bad = model_floats(c, layer[l].ffn_norm, m->dim, "rms_ffn_weight", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].w1, row, "w1", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].w2, row, "w2", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].w3, row, "w3", error);
  if (!bad) bad = model_floats(c, m->final_norm, m->dim, "rms_final_weight", error);

  uint64_t tables = (uint64_t)m->trained_len * (uint64_t)m->head_dim * sizeof(float);
  const unsigned char *skipped;
  if (!bad && take_bytes(c, tables, &skipped))
    bad = engine_fail(error, "the file ends inside its rotation tables");
  if (!bad && !m->tied) bad = llama2c_matrix(c, &m->head, row, "the head (wcls)", error);
  return bad ? bad : llama2c_tail(c, m, error);
}

static int llama2c_weights(cursor *c, model *m, engine_error *error)
{
  size_t longest = (size_t)(m->dim > m->hidden_dim ? m->dim : m->hidden_dim);
  float *row = malloc(longest * sizeof *row);
  if (!row) return engine_fail(error, "no memory for one row of weights");
  int bad = llama2c_tensors(c, m, row, error);
  free(row);
  return bad;
}

/* ==== the reader of GGUF files of the llama architecture ====
   Metadata gives the shape; tensors are found by name. All of the file's tensors must be ones that
   this forward pass uses: a bias or an expert that nobody adds would give wrong text, not an
   error. q and k come permuted for interleaved pairs. */

static int llama_refuse(const gguf *g, engine_error *error)
{
  gguf_text name;
  int causal = 1, experts = 0;
  if (gguf_string(g, "general.architecture", &name, error)) return -1;
  if (!gguf_is(name, "llama"))
    return engine_fail(error, "the architecture is '%s', llama is read", SHOWN(name));
  if (gguf_int(g, "llama.expert_count", 0, FILE_LARGEST, &experts, error)) return -1;
  if (experts > 0)
    return engine_fail(error, "the model is a mixture of %d experts, which is not read", experts);
  if (gguf_bool(g, "llama.attention.causal", &causal, error)) return -1;
  if (!causal) return engine_fail(error, "llama.attention.causal is false, which is not read");
  return 0;
}

static int llama_sizes(const gguf *g, model *m, engine_error *error)
{
  const struct { const char *key; int *value, most; } sizes[] = {
    { "llama.embedding_length", &m->dim, FILE_LARGEST },
    { "llama.block_count", &m->n_layers, 4096 },
    { "llama.feed_forward_length", &m->hidden_dim, FILE_LARGEST },
    { "llama.attention.head_count", &m->n_heads, FILE_LARGEST },
    { "llama.context_length", &m->trained_len, FILE_LARGEST },
  };
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    *sizes[i].value = GGUF_REQUIRED;
    if (gguf_int(g, sizes[i].key, 1, sizes[i].most, sizes[i].value, error)) return -1;
  }
  m->n_kv_heads = m->n_heads;
  return gguf_int(g, "llama.attention.head_count_kv", 1, FILE_LARGEST, &m->n_kv_heads, error);
}

static int llama_heads(const gguf *g, model *m, engine_error *error)
{
  m->head_dim = m->dim / m->n_heads;
  const gguf_value *said = gguf_find(g, "llama.attention.key_length");
  if (!said && m->dim % m->n_heads)
    return engine_fail(error, "embedding_length %d is no multiple of head_count %d", m->dim,
                       m->n_heads);
  if (gguf_int(g, "llama.attention.key_length", 1, 65536, &m->head_dim, error)) return -1;
  int value_length = m->head_dim;
  if (gguf_int(g, "llama.attention.value_length", 1, 65536, &value_length, error)) return -1;
  if (value_length != m->head_dim)
    return engine_fail(error, "values of %d beside keys of %d are not read", value_length,
                       m->head_dim);
  if (m->head_dim < 1 || m->head_dim > FILE_LARGEST / m->n_heads)
    return engine_fail(error, "%d heads of %d are out of range", m->n_heads, m->head_dim);
  if (m->n_heads % m->n_kv_heads)
    return engine_fail(error, "head_count %d is no multiple of head_count_kv %d", m->n_heads,
                       m->n_kv_heads);
  return 0;
}

/* Linear scaling divides every frequency by one factor, a tensor rope_freqs each by its own. */
static int llama_freqs(gguf *g, model *m, float factor, engine_error *error)
{
  gguf_tensor *t = gguf_take_tensor(g, "rope_freqs.weight");
  int half = m->rope_dims / 2;
  if (!t && factor - 1.0f <= 0.0f && factor - 1.0f >= 0.0f) return 0;
  if (t && (t->type != MATRIX_F32 || t->dims[0] != (uint64_t)half || t->size != 4 * t->dims[0]))
    return engine_fail(error, "rope_freqs.weight must be %d numbers of type F32", half);
  m->rope_freqs = malloc((size_t)half * sizeof *m->rope_freqs);
  if (!m->rope_freqs) return engine_fail(error, "no memory for the rotation's frequencies");
  cursor c = { t ? t->data : NULL, t ? (size_t)t->size : 0 };
  for (int i = 0; i < half; i++) {
    float own = 1.0f;
    if (t) take_f32(&c, &own);
    if (!is_finite(own) || !(own > 0.0f))
      return engine_fail(error, "rope_freqs.weight holds a value that is not above 0");
    m->rope_freqs[i] = pow(m->rope_base, -(double)i / half) / (double)own / (double)factor;
  }
  return 0;
}

static int llama_rope(gguf *g, model *m, engine_error *error)
{
  float base = 10000.0f, factor = 1.0f;
  gguf_text scaling;
  m->rope_dims = m->head_dim;
  if (gguf_float(g, "llama.rope.freq_base", &base, error) ||
      gguf_int(g, "llama.rope.dimension_count", 2, m->head_dim, &m->rope_dims, error) ||
      gguf_string(g, "llama.rope.scaling.type", &scaling, error) ||
      gguf_float(g, "llama.rope.scale_linear", &factor, error) ||
      gguf_float(g, "llama.rope.scaling.factor", &factor, error))
    return -1;
  if (scaling.len > 0 && !gguf_is(scaling, "none") && !gguf_is(scaling, "linear"))
    return engine_fail(error, "llama.rope.scaling.type is '%s'; none and linear are read",
                       SHOWN(scaling));
  if (gguf_is(scaling, "none")) factor = 1.0f;
  if (m->rope_dims % 2)
    return engine_fail(error, "%d dims of a head are an odd number, their pairs cannot be rotated",
                       m->rope_dims);
  if (base < 1.0f) return engine_fail(error, "llama.rope.freq_base is below 1");
  if (!(factor > 0.0f)) return engine_fail(error, "llama.rope.scaling.factor is not above 0");
  m->rope_base = (double)base;
  return llama_freqs(g, m, factor, error);
}

static int llama_shape(gguf *g, model *m, engine_error *error)
{
  m->norm_epsilon = -1.0f;
  if (llama_refuse(g, error) || llama_sizes(g, m, error) || llama_heads(g, m, error) ||
      llama_rope(g, m, error) ||
      gguf_float(g, "llama.attention.layer_norm_rms_epsilon", &m->norm_epsilon, error))
    return -1;
  if (!(m->norm_epsilon > 0.0f))
    return engine_fail(error, "llama.attention.layer_norm_rms_epsilon is not above 0");
  m->has_tokenizer = gguf_find(g, "tokenizer.ggml.tokens") != NULL;
  const gguf_tensor *t = gguf_take_tensor(g, "token_embd.weight");
  if (!t) return engine_fail(error, "the tensor token_embd.weight is missing");
  m->vocab_size = (int)t->dims[1];
  return 0;
}

/* Two passes over the same list of tensors: the first checks shapes and adds up sizes, the second
   fills the block that was made by them. */
typedef struct llama_reader {
  gguf *g;
  model *m;
  unsigned char *block;  /* NULL in the first pass */
  uint64_t used;         /* bytes of it */
  float *row;            /* [the longest row] */
  engine_error *error;
} llama_reader;

static void *llama_carve(llama_reader *r, uint64_t bytes)
{
  void *piece = r->block ? r->block + r->used : NULL;
  r->used += (bytes + 63) & ~(uint64_t)63;  /* at most 64 times the file */
  return piece;
}

static const gguf_tensor *llama_tensor(llama_reader *r, const char *name, int rows, int cols)
{
  const gguf_tensor *t = gguf_take_tensor(r->g, name);
  if (!t) {
    engine_fail(r->error, "the tensor %s is missing", name);
  } else if (t->dims[0] != (uint64_t)cols || t->dims[1] != (uint64_t)rows || t->dims[2] != 1 ||
             t->dims[3] != 1) {
    engine_fail(r->error, "tensor %s is %llu x %llu x %llu x %llu, it must be %d x %d x 1 x 1",
                name, (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                (unsigned long long)t->dims[2], (unsigned long long)t->dims[3], cols, rows);
    t = NULL;
  }
  return t;
}

static int llama_fill(llama_reader *r, matrix *w, const gguf_tensor *t, const char *name)
{
  size_t bytes = (size_t)t->size / (size_t)w->rows;
  for (int i = 0; i < w->rows; i++) {
    const unsigned char *from = t->data + (size_t)i * bytes;
    cursor c = { from, bytes };
    if (w->type == MATRIX_F32) {
      if (model_floats(&c, r->row, w->cols, name, r->error)) return -1;
      matrix_set_row(w, i, r->row);
    } else {
      if (!matrix_packed_row_is_finite(w, from))
        return engine_fail(r->error, "%s holds a value that is not finite", name);
      matrix_set_packed_row(w, i, from);
    }
  }
  return 0;
}

static int llama_matrix(llama_reader *r, matrix *w, const char *name, int rows, int cols)
{
  const gguf_tensor *t = llama_tensor(r, name, rows, cols);
  if (!t) return -1;
  w->rows = rows;
  w->cols = cols;
  w->type = t->type;
  void *weights = llama_carve(r, matrix_bytes(w));
  if (!weights) return 0;
  if (w->type == MATRIX_F32) w->panels = weights;
  else w->packed = weights;
  return llama_fill(r, w, t, name);
}

/* a vector is a matrix of one row, of any type, whose floats are kept */
static int llama_vector(llama_reader *r, float **x, const char *name, int n)
{
  matrix w = { 1, n, NULL, 0, NULL };
  const gguf_tensor *t = llama_tensor(r, name, 1, n);
  if (!t) return -1;
  if (t->type != MATRIX_F32)
    return engine_fail(r->error, "%s is of type %s, it must be F32", name,
                       gguf_tensor_type((uint32_t)t->type));
  *x = w.panels = llama_carve(r, (uint64_t)n * sizeof **x);
  return *x ? llama_fill(r, &w, t, name) : 0;
}

static int llama_layer(llama_reader *r, int l)
{
  const model *m = r->m;
  model_layer *layer = &m->layers[l];
  int q_dim = m->n_heads * m->head_dim, kv_dim = m->n_kv_heads * m->head_dim;
  const struct { const char *name; matrix *w; int rows, cols; } matrices[] = {
    { "attn_q", &layer->wq, q_dim, m->dim },         { "attn_k", &layer->wk, kv_dim, m->dim },
    { "attn_v", &layer->wv, kv_dim, m->dim },        { "attn_output", &layer->wo, m->dim, q_dim },
    { "ffn_gate", &layer->w1, m->hidden_dim, m->dim },
    { "ffn_up", &layer->w3, m->hidden_dim, m->dim },
    { "ffn_down", &layer->w2, m->dim, m->hidden_dim },
  };
  char name[GGUF_NAME];
  for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
    snprintf(name, sizeof name, "blk.%d.%s.weight", l, matrices[i].name);
    if (llama_matrix(r, matrices[i].w, name, matrices[i].rows, matrices[i].cols)) return -1;
  }
  snprintf(name, sizeof name, "blk.%d.attn_norm.weight", l);
  if (llama_vector(r, &layer->attention_norm, name, m->dim)) return -1;
  snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", l);
  return llama_vector(r, &layer->ffn_norm, name, m->dim);
}

static int llama_pass(llama_reader *r)
{
  model *m = r->m;
  r->used = 0;
  if (llama_matrix(r, &m->embedding, "token_embd.weight", m->vocab_size, m->dim)) return -1;
  for (int l = 0; l < m->n_layers; l++)
    if (llama_layer(r, l)) return -1;
  if (llama_vector(r, &m->final_norm, "output_norm.weight", m->dim)) return -1;
  m->tied = gguf_take_tensor(r->g, "output.weight") == NULL;
  m->head = m->embedding;
  return m->tied ? 0 : llama_matrix(r, &m->head, "output.weight", m->vocab_size, m->dim);
}

static int llama_weights(gguf *g, model *m, engine_error *error)
{
  llama_reader r = { g, m, NULL, 0, NULL, error };
  if ((size_t)m->n_layers > g->n_tensors)
    return engine_fail(error, "llama.block_count is %d, the file has %llu tensors", m->n_layers,
                       (unsigned long long)g->n_tensors);
  m->layers = calloc((size_t)m->n_layers, sizeof *m->layers);
  if (!m->layers) return engine_fail(error, "no memory for the model's layers");
  if (llama_pass(&r)) return -1;
  const gguf_tensor *left = gguf_left_tensor(g);
  if (left)
    return engine_fail(error, "tensor %s has no place in a llama model as it is read here",
                       SHOWN(left->name));

  if (r.used > SIZE_MAX) return engine_fail(error, "the model is larger than this machine can "
                                            "address");
  m->weights = r.block = calloc(1, (size_t)r.used);
  int longest = m->dim > m->hidden_dim ? m->dim : m->hidden_dim;
  if (longest < m->n_heads * m->head_dim) longest = m->n_heads * m->head_dim;
  r.row = malloc((size_t)longest * sizeof *r.row);
  int bad = !r.block || !r.row ? engine_fail(error, "no memory for the model's weights")
                               : llama_pass(&r);
  free(r.row);
  return bad;
}

static int llama_parse(model *m, const unsigned char *bytes, size_t size, engine_error *error)
{
  gguf g;
  if (gguf_open(&g, bytes, size, error)) return -1;
  int bad = llama_shape(&g, m, error) || llama_weights(&g, m, error);
  gguf_close(&g);
  if (bad) model_free(m);
  return bad ? -1 : 0;
}

/* ==== in and out ==== */

int model_parse(model *m, const unsigned char *bytes, size_t size, engine_error *error)
{
  cursor c = { bytes, size };
  memset(m, 0, sizeof *m);
  if (gguf_begins(bytes, size)) return llama_parse(m, bytes, size, error);
  if (llama2c_header(&c, m, error) == 0 && llama2c_length(&c, m, error) == 0 &&
      model_allocate(m, error) == 0 && llama2c_weights(&c, m, error) == 0)
    return 0;
  model_free(m);
  return -1;
}

int model_load(model *m, const char *path, engine_error *error)
{
  size_t size;
  memset(m, 0, sizeof *m);
  unsigned char *bytes = file_read(path, &size, error);
  if (!bytes) return -1;
  int bad = model_parse(m, bytes, size, error);
  free(bytes);
  return bad;
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_MODEL_H */
