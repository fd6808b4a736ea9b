/* 04_save_restore.c - saves a context to a file and loads it back, with not one bit changed.

   A crash at any moment leaves the old file or the new one, never half of one: the state is
   written to a file beside the old one, flushed to the disk, and only then renamed over it.
   build  cc -O2 -std=c99 -I. examples/04_save_restore.c -o 04_save_restore

   expected output:
      saved after 700 tokens, loaded at position 700
      300 more tokens: the same bits
      saved again: the same file
*/
#define _POSIX_C_SOURCE 200809L
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 16, WINDOW = 128, SINKS = 4 };

static const char *const path = "04_save_restore.state";
static const char *const path_new = "04_save_restore.state.new";

/* the state under path_new, on the disk; 0 or -1 */
static int write_state(const longctx *context)
{
  FILE *file = fopen(path_new, "wb");
  if (!file) return -1;
  int bad = longctx_save(context, file) || fflush(file) || fsync(fileno(file));
  return fclose(file) || bad ? -1 : 0;
}

static int save(const longctx *context)
{
  return write_state(context) || rename(path_new, path) ? -1 : 0;
}

/* init and restore refuse a file of another desc; longctx_load would take the file's */
static longctx *load(void *memory, size_t bytes, const longctx_desc *desc)
{
  FILE *file = fopen(path, "rb");
  longctx *context = longctx_init(memory, bytes, desc);
  int code = file && context ? longctx_restore(context, file) : LONGCTX_E_IO;
  if (code) fprintf(stderr, "%s: %s\n", path, longctx_error(code));
  if (file) fclose(file);
  return code ? NULL : context;
}

/* q, k and v of one token, made up from its number, so that both contexts see the same text */
static void fill(float *x, int n, uint32_t seed)
{
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

/* out [LAYERS][HEADS][DIM] of one more token; 0 or an error's code */
static int step(longctx *context, float *out)
{
  float qkv[(HEADS + 2 * KV_HEADS) * DIM], *k = qkv + HEADS * DIM, *v = k + KV_HEADS * DIM;
  uint32_t token = (uint32_t)longctx_position(context);
  for (int layer = 0; layer < LAYERS; layer++) {
    fill(qkv, (HEADS + 2 * KV_HEADS) * DIM, LAYERS * token + (uint32_t)layer);
    int code = longctx_attend(context, layer, 1, qkv, k, v, out + layer * HEADS * DIM);
    if (code) return code;
  }
  return longctx_commit(context, 1);
}

/* 1 when a save of the context now gives the bytes that `path` already holds */
static int saves_the_same(const longctx *context)
{
  if (write_state(context)) return 0;
  FILE *old_file = fopen(path, "rb"), *new_file = fopen(path_new, "rb");
  int a = 0, b = 0;
  while (old_file && new_file && a == b && a != EOF) {
    a = getc(old_file);
    b = getc(new_file);
  }
  int same = old_file && new_file && a == b;
  if (old_file) fclose(old_file);
  if (new_file) fclose(new_file);
  return same;
}

int main(void)
{
  float out_1[LAYERS * HEADS * DIM], out_2[LAYERS * HEADS * DIM];
  longctx_desc desc = longctx_desc_make(LAYERS, HEADS, KV_HEADS, DIM, WINDOW);
  desc.sinks = SINKS;
  size_t bytes = longctx_size(&desc);
  void *memory_1 = malloc(bytes), *memory_2 = malloc(bytes);
  longctx *first = memory_1 ? longctx_init(memory_1, bytes, &desc) : NULL;
  if (!first || !memory_2) return 1;

  for (int i = 0; i < 700; i++)
    if (step(first, out_1)) return 1;
  if (save(first)) return 1;
  longctx *second = load(memory_2, bytes, &desc);
  if (!second) return 1;
  printf("saved after 700 tokens, loaded at position %d\n", (int)longctx_position(second));

  int same = 1;
  for (int i = 0; i < 300; i++) {
    if (step(first, out_1) || step(second, out_2)) return 1;
    same = same && memcmp(out_1, out_2, sizeof out_1) == 0;
  }
  printf("300 more tokens: %s\n", same ? "the same bits" : "OTHER BITS");

  if (save(first)) return 1;
  int same_file = saves_the_same(second);
  printf("saved again: %s\n", same_file ? "the same file" : "ANOTHER FILE");
  remove(path);
  remove(path_new);
  free(memory_1);
  free(memory_2);
  return same && same_file ? 0 : 1;
}
