/* Under -ffast-math: refused, unless the caller insists; then right, though not to the bit. */
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include <math.h>
#include <stdlib.h>

enum { TOKENS = 200, DIM = 16, WINDOW = 30 };

static float q[TOKENS][DIM], k[TOKENS][DIM], v[TOKENS][DIM], out[TOKENS][DIM];

static void fill(float *x)
{
  static unsigned seed = 1;
  int i;
  for (i = 0; i < TOKENS * DIM; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(int)(seed >> 20) / 1024.0f - 2.0f;
  }
}

static double worst_of_token(int t)
{
  double sum = 0.0, want[DIM] = { 0.0 }, worst = 0.0;
  int j, d, from = t < WINDOW ? 0 : t - WINDOW + 1;
  for (j = from; j <= t; j++) {
    double s = 0.0, w;
    for (d = 0; d < DIM; d++) s += (double)q[t][d] * (double)k[j][d];
    w = exp(s / 4.0);
    sum += w;
    for (d = 0; d < DIM; d++) want[d] += w * (double)v[j][d];
  }
  for (d = 0; d < DIM; d++) worst = fmax(worst, fabs((double)out[t][d] - want[d] / sum));
  return worst;
}

static int takes_nan(void)
{
  longctx_desc desc = longctx_desc_make(1, 1, 1, DIM, WINDOW);
  double freqs[DIM / 2] = { 1.0 };
  if (longctx_check(&desc) != NULL) return 1;
  desc.rope_freqs = freqs;
  memset(&freqs[3], 0xff, sizeof freqs[3]);          /* NaN: to this compiler NAN is nothing   */
  return longctx_check(&desc) == NULL;
}

int main(void)
{
  longctx_desc desc = longctx_desc_make(1, 1, 1, DIM, WINDOW);
  longctx *lc;
  int t;
  desc.rope = LONGCTX_ROPE_NONE;
  lc = longctx_init(malloc(longctx_size(&desc)), longctx_size(&desc), &desc);
  fill(&q[0][0]);
  fill(&k[0][0]);
  fill(&v[0][0]);
  for (t = 0; t < TOKENS; t++) {
    if (longctx_attend(lc, 0, 1, q[t], k[t], v[t], out[t]) != LONGCTX_OK) return 1;
    if (longctx_commit(lc, 1) != LONGCTX_OK) return 2;
    if (worst_of_token(t) > 1e-4) return 3;
  }
  free(lc);
  return takes_nan() ? 4 : 0;
}
