/* file.h - read a whole file, then take it apart without trusting a byte of it.

   Every reader of the examples stands on this: bytes come through a cursor that cannot leave the
   file, sizes are 64 bits wide and their products are checked, and what is wrong is said in one
   sentence that the caller may print. Nothing here prints or exits.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this (or a header that does). */
#ifndef EXAMPLES_FILE_H
#define EXAMPLES_FILE_H

#include <stddef.h>
#include <stdint.h>

/* The largest dimension, count or length a reader accepts: products of two fit an int64_t, and
   every index of the examples an int. No model comes near it. */
enum { FILE_LARGEST = 1 << 24 };

typedef struct engine_error { char text[240]; } engine_error;

/* Writes the sentence and returns -1, so that a refusal is one line: return engine_fail(...). */
int engine_fail(engine_error *error, const char *format, ...);

/* The bytes of a file (or of standard input where path is "-") in one malloc'd piece with a zero
   behind its end; NULL when it cannot be read. The caller frees it. */
unsigned char *file_read(const char *path, size_t *size, engine_error *error);

/* What is left of a file. The take functions return 0, or -1 when fewer bytes are left, and then
   take nothing. Numbers are little-endian whatever the machine. */
typedef struct cursor { const unsigned char *at; size_t left; } cursor;

int take_bytes(cursor *c, uint64_t n, const unsigned char **bytes);
int take_u32(cursor *c, uint32_t *value);
int take_i32(cursor *c, int32_t *value);
int take_f32(cursor *c, float *value);

/* *total += factor_1 * factor_2 * factor_3; -1 when a 64-bit number does not hold it. */
int add_product(uint64_t *total, uint64_t factor_1, uint64_t factor_2, uint64_t factor_3);

/* 1 for every float but infinities and NaN, also under compilers told that those do not exist. */
int is_finite(float value);

#ifdef ENGINE_IMPLEMENTATION
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int engine_fail(engine_error *error, const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->text, sizeof error->text, format, arguments);
  va_end(arguments);
  return -1;
}

static unsigned char *file_read_stream(FILE *in, size_t *size)
{
  size_t capacity = 1 << 16;
  unsigned char *bytes = malloc(capacity);
  *size = 0;
  while (bytes) {
    *size += fread(bytes + *size, 1, capacity - 1 - *size, in);
    if (*size < capacity - 1) break;
    capacity = capacity <= SIZE_MAX / 2 ? 2 * capacity : 0;
    unsigned char *larger = capacity ? realloc(bytes, capacity) : NULL;
    if (!larger) free(bytes);
    bytes = larger;
  }
  if (bytes) bytes[*size] = 0;
  return bytes;
}

unsigned char *file_read(const char *path, size_t *size, engine_error *error)
{
  int standard = strcmp(path, "-") == 0;
  FILE *in = standard ? stdin : fopen(path, "rb");
  if (!in) {
    engine_fail(error, "cannot be opened");
    return NULL;
  }
  unsigned char *bytes = file_read_stream(in, size);
  int broken = ferror(in);
  if (!standard) fclose(in);
  if (!bytes) engine_fail(error, "no memory for its bytes");
  if (bytes && broken) {
    engine_fail(error, "cannot be read to its end");
    free(bytes);
    bytes = NULL;
  }
  return bytes;
}

int take_bytes(cursor *c, uint64_t n, const unsigned char **bytes)
{
  if (n > c->left) return -1;
  *bytes = c->at;
  c->at += (size_t)n;
  c->left -= (size_t)n;
  return 0;
}

int take_u32(cursor *c, uint32_t *value)
{
  const unsigned char *b;
  if (take_bytes(c, 4, &b)) return -1;
  *value = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
  return 0;
}

int take_i32(cursor *c, int32_t *value)
{
  uint32_t bits;
  if (take_u32(c, &bits)) return -1;
  memcpy(value, &bits, sizeof *value);
  return 0;
}

int take_f32(cursor *c, float *value)
{
  uint32_t bits;
  if (take_u32(c, &bits)) return -1;
  memcpy(value, &bits, sizeof *value);
  return 0;
}

int add_product(uint64_t *total, uint64_t factor_1, uint64_t factor_2, uint64_t factor_3)
{
  if (factor_2 && factor_1 > UINT64_MAX / factor_2) return -1;
  uint64_t product = factor_1 * factor_2;
  if (factor_3 && product > UINT64_MAX / factor_3) return -1;
  product *= factor_3;
  if (product > UINT64_MAX - *total) return -1;
  *total += product;
  return 0;
}

int is_finite(float value)
{
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7f800000u) != 0x7f800000u;
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_FILE_H */
