/* 07_feedback.c - a working memory that runs in a loop: TransformerFAM (arXiv 2404.09173).

   Each layer has a few rows that every token sees beside its window. When a block of tokens is
   full, the rows attend to it and go through the layer as tokens do; what comes out is the new
   rows. This file shows the caller's half: norm, projections, output with FFN (`tail`), and when to
   run the rows through them. A random model of two layers stands in for a trained one. Its window
   is one block, so the last block can know the first word only through the rows, once around the
   loop per block.
   build  cc -O2 -std=c99 -I. examples/07_feedback.c -o 07_feedback -lm

   expected output:
   does the first word matter 6 blocks later? with 4 rows: yes; without: no
*/
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, WIDTH = 32, HEADS = 4, HIDDEN = 64, BLOCK = 16, ROWS = 4, TOKENS = 7 * BLOCK };

typedef float row[WIDTH];
typedef struct layer {
  row q[WIDTH], k[WIDTH], v[WIDTH], o[WIDTH], up[HIDDEN], down[HIDDEN];
} layer;

static layer model[LAYERS];
static row learned[ROWS];                          /* what layer 0's rows are at first */
static row q[BLOCK], k[BLOCK], v[BLOCK], out[BLOCK];

/* ---- the caller's half --------------------------------------------------------------------- */

static void times(row *w, int n, const float *x, float *y) /* y[i] = w[i] . x */
{
  for (int i = 0; i < n; i++) {
    y[i] = 0;
    for (int j = 0; j < WIDTH; j++) y[i] += w[i][j] * x[j];
  }
}

static void norm(const float *x, float *y)
{
  float sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += x[i] * x[i];
  for (int i = 0; i < WIDTH; i++) y[i] = x[i] / sqrtf(sum / WIDTH + 1e-6f);
}

static void project(layer *l, row *x, int n)       /* q, k, v of n rows: tokens or feedback */
{
  row y;
  for (int i = 0; i < n; i++) {
    norm(x[i], y);
    times(l->q, WIDTH, y, q[i]), times(l->k, WIDTH, y, k[i]), times(l->v, WIDTH, y, v[i]);
  }
}

static void tail(layer *l, row *x, int n, int residual) /* x = h + FFN(norm(h)), h = o . out + x */
{
  row h, y;
  float up[HIDDEN];
  for (int i = 0; i < n; i++) {
    times(l->o, WIDTH, out[i], h);
    for (int j = 0; j < WIDTH && residual; j++) h[j] += x[i][j];
    norm(h, y);
    times(l->up, HIDDEN, y, up);
    for (int m = 0; m < HIDDEN; m++)
      for (int j = 0; j < WIDTH && up[m] > 0; j++) h[j] += l->down[m][j] * up[m];
    memcpy(x[i], h, sizeof h);
  }
}

/* Before the first token: the learned rows go up through the layers and see each other. */
static int begin(longctx *c)
{
  row x[ROWS];
  memcpy(x, learned, sizeof x);
  for (int l = 0; l < LAYERS; l++) {
    memcpy(longctx_feedback(c, l), x, sizeof x);
    project(&model[l], x, ROWS);
    if (longctx_feedback_set(c, l, q[0], k[0], v[0])) return -1;
    if (longctx_feedback_attend(c, l, out[0])) return -1;
    tail(&model[l], x, ROWS, 1);
  }
  return 0;
}

/* At a block's end: each layer's rows read the block and are rewritten where they lie. */
static int update(longctx *c)
{
  int first = longctx_position(c) == BLOCK;        /* then no residual; (after longctx_seek: its
                                                      position and a block) */
  for (int l = 0; l < LAYERS; l++) {
    row *rows = (row *)longctx_feedback(c, l);
    if (longctx_feedback_attend(c, l, out[0])) return -1;
    tail(&model[l], rows, ROWS, !first);
    project(&model[l], rows, ROWS);
    if (longctx_feedback_set(c, l, q[0], k[0], v[0])) return -1;
  }
  return 0;
}

/* n tokens x, which become the last layer's outputs */
static int forward(longctx *c, row *x, int n)
{
  for (int m; n > 0; x += m, n -= m) {
    if (longctx_feedback_due(c) && (longctx_position(c) ? update(c) : begin(c))) return -1;
    m = n < longctx_room(c) ? n : longctx_room(c);
    for (int l = 0; l < LAYERS; l++) {
      project(&model[l], x, m);
      if (longctx_attend(c, l, m, q[0], k[0], v[0], out[0])) return -1;
      tail(&model[l], x, m, 1);
    }
    if (longctx_commit(c, m)) return -1;
  }
  return 0;
}

/* ---- a model and a text, made up ------------------------------------------------------------- */

static void fill(void *x, size_t bytes, uint32_t seed, float scale)
{
  float *y = (float *)x;
  for (size_t i = 0; i < bytes / sizeof *y; i++) {
    seed = seed * 1664525u + 1013904223u;
    y[i] = scale * ((float)(seed >> 8) / 8388608.0f - 1.0f);
  }
}

/* Does the last block's output depend on the first word, with so many rows? */
static int matters(int n_rows)
{
  static row x[2][TOKENS];
  longctx_desc desc = longctx_desc_make(LAYERS, HEADS, HEADS, WIDTH / HEADS, BLOCK);
  desc.block = desc.max_batch = BLOCK;
  desc.feedback_len = n_rows;                      /* feedback_dim: 0 is HEADS * head_dim */
  size_t bytes = longctx_size(&desc);
  void *memory = malloc(bytes);
  longctx *context = memory ? longctx_init(memory, bytes, &desc) : NULL;
  if (!context) exit(1);
  for (int i = 0; i < 2; i++) {
    fill(x[i], sizeof x[i], 7, 1);
    x[i][0][0] += (float)i;                        /* another first word */
    longctx_reset(context);
    if (forward(context, x[i], TOKENS)) exit(1);
  }
  free(memory);
  return memcmp(x[0][TOKENS - BLOCK], x[1][TOKENS - BLOCK], BLOCK * sizeof(row)) != 0;
}

int main(void)
{
  fill(model, sizeof model, 1, 0.25f);
  fill(learned, sizeof learned, 2, 1);
  printf("does the first word matter 6 blocks later? with 4 rows: %s; without: %s\n",
         matters(ROWS) ? "yes" : "no", matters(0) ? "yes" : "no");
  return 0;
}
