/* instructions.c - one named case, N times: what tests/instructions.sh counts.
   Usage: instructions ISA CASE N      2 when this machine has no such instruction set. */
#define LONGCTX_IMPLEMENTATION
#include "../longctx.h"

#include <stdlib.h>

typedef struct kind {
  const char *name;
  int head_dim, heads, kv_heads, window, sinks, n, type;
} kind;

static const kind kinds[] = {
  {"decode_f16_gqa", 128, 4, 1, 252, 4, 1, LONGCTX_F16},
  {"decode_int8", 128, 4, 1, 252, 4, 1, LONGCTX_Q8},
  {"decode_f32_small", 48, 6, 6, 256, 0, 1, LONGCTX_F32},
  {"prefill_f16_64", 128, 4, 1, 128, 0, 64, LONGCTX_F16},
  {"prefill_small_window", 64, 2, 2, 64, 0, 256, LONGCTX_F16}, /* rows that see little in common */
  {"append_rotation", 128, 2, 2, 1, 0, 64, LONGCTX_F16}, /* each token sees itself alone */
};

enum { FLOATS = 64 * 6 * 128, BYTES = 4 << 20 };
static float q[FLOATS], k[FLOATS], v[FLOATS], out[FLOATS];
static unsigned char room[BYTES + 4096];

static void fill(float *x, uint32_t seed)
{
  int i;
  for (i = 0; i < FLOATS; ++i) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

int main(int argc, char **argv)
{
  size_t i = 0, most = sizeof kinds / sizeof *kinds;
  const kind *s;
  longctx_desc d;
  longctx *lc;
  int isa = 0, times;
  if (argc != 4) return 1;
  while (i < most && strcmp(kinds[i].name, argv[2])) ++i;
  if (i == most) return 1;
  s = &kinds[i];
  d = longctx_desc_make(1, s->heads, s->kv_heads, s->head_dim, s->window);
  d.sinks = s->sinks;
  d.max_batch = s->n > 64 ? s->n : 64;
  d.type_k = d.type_v = s->type;
  lc = longctx_init(room + (4096 - (uintptr_t)room % 4096), BYTES, &d); /* ever the same lines */
  while (longctx_isa_name(isa) && strcmp(longctx_isa_name(isa), argv[1])) ++isa;
  if (!lc) return 1;
  if (longctx_set_isa(lc, isa)) return 2;
  fill(q, 1), fill(k, 2), fill(v, 3);
  while (longctx_position(lc) < s->window + s->sinks + 64) /* full, and come round */
    if (longctx_attend(lc, 0, 64, q, k, v, out) || longctx_commit(lc, 64)) return 1;
  for (times = atoi(argv[3]); times > 0; --times) /* the same tokens again: commit(0) drops them */
    if (longctx_attend(lc, 0, s->n, q, k, v, out) || longctx_commit(lc, 0)) return 1;
  return 0;
}
