/* 06_static.c - a model's whole context in one static array: no malloc, no files, no stdio.

   This is what a microcontroller would do: the block is a variable of exactly the right size, known
   at compile time. `make check` runs it on an emulated Cortex-M4F with 32 KB of RAM in all. Only
   main prints, and only on a machine that can.
   build  cc -O2 -std=c99 -I. examples/06_static.c -o 06_static

   expected output:
      100000 tokens in a static block of 22976 bytes, out[0] = -0.1174
*/
#define LONGCTX_NO_STDIO
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"

#ifndef TOKENS
#define TOKENS 100000
#endif
enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 16, WINDOW = 32, SINKS = 4 };
enum { BLOCK = LONGCTX_STATIC_SIZE(LAYERS, HEADS, KV_HEADS, DIM, WINDOW, SINKS, 1, LONGCTX_F32,
                                   LONGCTX_F32) };

/* aligned as malloc would have aligned it */
static union {
  unsigned char bytes[BLOCK];
  int64_t align_integer;
  long double align_float;
  void *align_pointer;
} block;

static void fill(float *x, int n)
{
  static uint32_t seed = 1;
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

/* one token of a made-up model; out [HEADS][DIM] is its last layer's */
static int step(longctx *context, float *out)
{
  static float q[HEADS * DIM], k[KV_HEADS * DIM], v[KV_HEADS * DIM];
  for (int layer = 0; layer < LAYERS; layer++) {
    fill(q, HEADS * DIM);
    fill(k, KV_HEADS * DIM);
    fill(v, KV_HEADS * DIM);
    int code = longctx_attend(context, layer, 1, q, k, v, out);
    if (code) return code;
  }
  return longctx_commit(context, 1);
}

/* from here on only what shows it on a desktop */
#include <stdio.h>

int main(void)
{
  static float out[HEADS * DIM];
  longctx_desc desc = longctx_desc_make(LAYERS, HEADS, KV_HEADS, DIM, WINDOW);
  desc.sinks = SINKS;
  longctx *context = longctx_init(block.bytes, sizeof block.bytes, &desc);
  if (!context) return 1;
  for (int token = 0; token < TOKENS; token++)
    if (step(context, out)) return 1;
  printf("%d tokens in a static block of %d bytes, out[0] = %.4f\n", (int)longctx_position(context),
         (int)sizeof block.bytes, (double)out[0]);
  return 0;
}
