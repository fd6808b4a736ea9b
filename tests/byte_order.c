/* byte_order.c: saves a state on one machine, to be loaded on another. Ends with 0 when the file
   was saved or loaded, 3 when it was refused as not of this machine (LONGCTX_E_FORMAT).
   Usage: byte_order save|load FILE                                                             */
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include <stdlib.h>

enum { DIM = 8, TOKENS = 30 };

static int save(FILE *file)
{
  static float x[DIM], out[DIM];
  longctx_desc desc = longctx_desc_make(1, 1, 1, DIM, 10);
  size_t bytes = longctx_size(&desc);
  longctx *context = longctx_init(malloc(bytes), bytes, &desc);
  if (!context) return 1;
  for (int token = 0; token < TOKENS; token++) {
    for (int i = 0; i < DIM; i++) x[i] = (float)(token + i);
    if (longctx_attend(context, 0, 1, x, x, x, out) || longctx_commit(context, 1)) return 1;
  }
  return longctx_save(context, file) ? 1 : 0;
}

static int load(FILE *file)
{
  int code;
  size_t bytes = 1 << 20;
  longctx *context = longctx_load(malloc(bytes), bytes, file, &code);
  if (context && longctx_position(context) == TOKENS) return 0;
  fprintf(stderr, "%s\n", longctx_error(code));
  return code == LONGCTX_E_FORMAT ? 3 : 1;
}

int main(int argc, char **argv)
{
  int code, saves = argc == 3 && argv[1][0] == 's';
  FILE *file = argc == 3 ? fopen(argv[2], saves ? "wb" : "rb") : NULL;
  if (!file) return 1;
  code = saves ? save(file) : load(file);
  return fclose(file) ? 1 : code;
}
