/* 01_hello.c - endless context in five calls: desc_make, size, init, attend, commit.
   Random numbers stand in for the queries, keys and values of a model of two layers.
   build  cc -O2 -std=c99 -I. examples/01_hello.c -o 01_hello

   expected output:
   72128 bytes, for ever
     1000 tokens, out[0] = -0.0192
   100000 tokens, out[0] = 0.0199
*/
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include <stdlib.h>

static void fill(float *x, int n)
{
  static uint32_t seed = 1;
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

int main(void)
{
  float q[4 * 16], k[2 * 16], v[2 * 16], out[4 * 16];      /* [heads][16], [kv heads][16] */
  longctx_desc desc = longctx_desc_make(2, 4, 2, 16, 128); /* layers heads kv dim window */
  desc.sinks = 4;                                          /* the first four stay for ever */
  size_t bytes = longctx_size(&desc);
  longctx *context = longctx_init(malloc(bytes), bytes, &desc);
  if (!context) return 1;
  printf("%u bytes, for ever\n", (unsigned)bytes);
  for (int token = 1; token <= 100000; token++) {
    for (int layer = 0; layer < 2; layer++) {
      fill(q, 4 * 16), fill(k, 2 * 16), fill(v, 2 * 16);
      if (longctx_attend(context, layer, 1, q, k, v, out)) return 1;
    }
    if (longctx_commit(context, 1)) return 1;
    if (token == 1000 || token == 100000)
      printf("%6d tokens, out[0] = %.4f\n", token, (double)out[0]);
  }
  return 0;
}
