/* model.h - a decoder-only transformer in memory, and the reader that puts it there.

   A reader learns the shape, calls model_allocate, and fills the matrices one after another; it
   is the only part that knows a file format. Today there is one, for llama2.c checkpoints of
   version 0 (float32), with a tail of our own where a model was trained to remember. Shapes stand in brackets, slowest index first.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this (or a header that does). */
#ifndef EXAMPLES_MODEL_H
#define EXAMPLES_MODEL_H

#include "file.h"

/* A matrix [rows][cols] that multiplies vectors: y[rows] = W x[cols]. Its rows are kept in panels
   of MATRIX_PANEL (the last may be narrower), a panel as [cols][width]: one pass over a panel
   reads memory in order and adds to `width` sums of up to MATRIX_TOKENS tokens at once, which
   compilers turn into vector code without being allowed to reorder an addition. */
enum { MATRIX_PANEL = 32, MATRIX_TOKENS = 4 };

typedef struct matrix {
  int rows, cols;
  float *panels;  /* [rows * cols] */
} matrix;

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
  float norm_epsilon;
  matrix embedding, head; /* [vocab_size][dim] */
  float *final_norm;      /* [dim] */
  model_layer *layers;    /* [n_layers] */
  float *weights;         /* the one block that all of the above and below point into */

  /* how it was trained to remember; all 0 in a plain model */
  int window, block;      /* longctx.h's */
  int memory;             /* LONGCTX_MEMORY_NONE, _LINEAR, _DELTA */
  float *gates;           /* [n_layers][n_heads], before the sigmoid; NULL without a memory */
  int feedback_len;       /* feedback rows of a layer */
  float *rows;            /* [feedback_len][dim]: what they are before the text; NULL without */
  float row_limit;        /* largest magnitude in a row after an update, 0 = any */
  float row_rest;         /* largest change of a number in it that counts as none */
} model;

/* Both return 0, or -1 and say why; then there is nothing to free. The bytes may be freed. */
int model_load(model *m, const char *path, engine_error *error);
int model_parse(model *m, const unsigned char *bytes, size_t size, engine_error *error);
void model_free(model *m);

/* y [n][rows] = x [n][cols] times W transposed. Each element of y is one sum in the order of
   cols, so its bits depend neither on n nor on the number of threads. */
void matrix_apply(const matrix *w, int n, const float *x, float *y);

/* y [cols] = row `row` of W */
void matrix_row(const matrix *w, int row, float *y);

/* y [dim] = x [dim] / rms(x) * gain [dim] */
void rmsnorm(int dim, const float *x, const float *gain, float epsilon, float *y);

/* gate[i] = silu(gate[i]) * up[i] */
void swiglu(int n, float *gate, const float *up);

/* -log of the probability that logits [n] give to `token`; and the largest logit's index */
double logits_nll(const float *logits, int n, int token);
int logits_argmax(const float *logits, int n);

#ifdef ENGINE_IMPLEMENTATION
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ==== matrices ==== */

/* y [n][width] = n tokens x [n][cols] times the panel's rows; y's rows lie `apart` floats from each
   other. Inlined below with a constant n and width: then the sums live in vector registers. */
static inline void matrix_panel(const float *panel, int cols, int width, int n, const float *x,
                                float *y, int apart)
{
  float sum[MATRIX_TOKENS][MATRIX_PANEL] = {{0}};
  for (int i = 0; i < cols; i++)
    for (int t = 0; t < n; t++)
      for (int j = 0; j < width; j++)
        sum[t][j] += x[(size_t)t * (size_t)cols + (size_t)i] * panel[i * width + j];
  for (int t = 0; t < n; t++)
    for (int j = 0; j < width; j++) y[(size_t)t * (size_t)apart + (size_t)j] = sum[t][j];
}

static int matrix_width(const matrix *w, int first_row)
{
  int rest = w->rows - first_row;
  return rest < MATRIX_PANEL ? rest : MATRIX_PANEL;
}

void matrix_apply(const matrix *w, int n, const float *x, float *y)
{
#ifdef _OPENMP
#pragma omp parallel for if ((double)n * w->rows * w->cols > 1e6)
#endif
  for (int r = 0; r < w->rows; r += MATRIX_PANEL) {
    const float *panel = w->panels + (size_t)r * (size_t)w->cols;
    int width = matrix_width(w, r);
    for (int i = 0, many; i < n; i += many) {
      const float *x_row = x + (size_t)i * (size_t)w->cols;
      float *y_row = y + (size_t)i * (size_t)w->rows + r;
      many = n - i < MATRIX_TOKENS ? 1 : MATRIX_TOKENS;
      if (width != MATRIX_PANEL) matrix_panel(panel, w->cols, width, many, x_row, y_row, w->rows);
      else if (many == 1) matrix_panel(panel, w->cols, MATRIX_PANEL, 1, x_row, y_row, w->rows);
      else matrix_panel(panel, w->cols, MATRIX_PANEL, MATRIX_TOKENS, x_row, y_row, w->rows);
    }
  }
}

void matrix_row(const matrix *w, int row, float *y)
{
  int first = row - row % MATRIX_PANEL, width = matrix_width(w, first);
  const float *panel = w->panels + (size_t)first * (size_t)w->cols;
  for (int i = 0; i < w->cols; i++) y[i] = panel[(size_t)i * (size_t)width + (size_t)(row - first)];
}

/* puts one row of a file's matrix into its place among the panels */
static void matrix_set_row(matrix *w, int row, const float *x)
{
  int first = row - row % MATRIX_PANEL, width = matrix_width(w, first);
  float *panel = w->panels + (size_t)first * (size_t)w->cols;
  for (int i = 0; i < w->cols; i++) panel[(size_t)i * (size_t)width + (size_t)(row - first)] = x[i];
}

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

/* ==== the model's block ==== */

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
  matrix w = { rows, cols, model_carve(next, rows, cols) };
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
  m->head_dim = m->dim / m->n_heads;
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

static int llama2c_vector(cursor *c, float *x, int n, const char *name, engine_error *error)
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
    if (llama2c_vector(c, row, w->cols, name, error)) return -1;
    matrix_set_row(w, r, row);
  }
  return 0;
}

/* what llama2c_length has found there */
static int llama2c_tail(cursor *c, model *m, engine_error *error)
{
  engine_error none;
  if (m->block && llama2c_tail_header(c, m, &none)) return -1;
  if (m->memory && llama2c_vector(c, m->gates, m->n_layers * m->n_heads, "the gates", error))
    return -1;
  if (m->feedback_len == 0) return 0;
  if (llama2c_vector(c, m->rows, m->feedback_len * m->dim, "the feedback rows", error)) return -1;
  if (llama2c_vector(c, &m->row_limit, 1, "row_limit", error)) return -1;
  if (llama2c_vector(c, &m->row_rest, 1, "row_rest", error)) return -1;
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
    bad = llama2c_vector(c, layer[l].attention_norm, m->dim, "rms_att_weight", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wq, row, "wq", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wk, row, "wk", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wv, row, "wv", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].wo, row, "wo", error);
  for (int l = 0; !bad && l < n; l++)
    bad = llama2c_vector(c, layer[l].ffn_norm, m->dim, "rms_ffn_weight", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].w1, row, "w1", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].w2, row, "w2", error);
  for (int l = 0; !bad && l < n; l++) bad = llama2c_matrix(c, &layer[l].w3, row, "w3", error);
  if (!bad) bad = llama2c_vector(c, m->final_norm, m->dim, "rms_final_weight", error);

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

/* ==== in and out ==== */

int model_parse(model *m, const unsigned char *bytes, size_t size, engine_error *error)
{
  cursor c = { bytes, size };
  memset(m, 0, sizeof *m);
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
