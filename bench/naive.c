/* naive.c: built with -O3 -ffast-math -march=native, in its own object: the compiler may do to it
   whatever it can. */
#include "naive.h"

#include <float.h>
#include <math.h>

void naive_attend(int n_heads, int n_kv_heads, int head_dim, int n, const float *q, const float *k,
                  const float *v, float *scores, float *out)
{
  float scale = 1.0f / sqrtf((float)head_dim);
  int row = n_kv_heads * head_dim, h, t, d;
  for (h = 0; h < n_heads; ++h, q += head_dim, out += head_dim) {
    int at = h / (n_heads / n_kv_heads) * head_dim;
    float most = -FLT_MAX, sum = 0;
    for (t = 0; t < n; ++t) {
      const float *key = k + (long)t * row + at;
      float dot = 0;
      for (d = 0; d < head_dim; ++d) dot += q[d] * key[d];
      scores[t] = dot * scale;
      if (scores[t] > most) most = scores[t];
    }
    for (t = 0; t < n; ++t) sum += scores[t] = expf(scores[t] - most);
    for (d = 0; d < head_dim; ++d) out[d] = 0;
    for (t = 0; t < n; ++t) {
      const float *value = v + (long)t * row + at;
      float weight = scores[t] / sum;
      for (d = 0; d < head_dim; ++d) out[d] += weight * value[d];
    }
  }
}
