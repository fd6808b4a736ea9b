/* inputs.h - what kernels.c and ggml.c feed those they measure: memory, and numbers from -1 to 1.

   Behind bench.h, with _GNU_SOURCE defined. */
#ifndef INPUTS_H
#define INPUTS_H

#include <stdint.h>
#include <sys/mman.h>

static inline float random_float(void)
{
  static uint64_t x = 88172645463325252u;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return (float)(x >> 40) / 8388608.0f - 1.0f;
}

/* in huge pages where there are any, for the header and whom it is measured against alike */
static inline void *memory(size_t *bytes)
{
  size_t page = (size_t)2 << 20;
  void *p;
  *bytes = (*bytes + page - 1) / page * page;
  p = aligned_alloc(page, *bytes);
  if (!p) die("no memory", "");
#ifdef MADV_HUGEPAGE
  madvise(p, *bytes, MADV_HUGEPAGE);
#endif
  return p;
}

static inline float *random_floats(size_t n)
{
  size_t i, bytes = n * sizeof(float);
  float *p = (float *)memory(&bytes);
  for (i = 0; i < n; ++i) p[i] = random_float();
  return p;
}

#endif
