/* bytes.h: files made in memory, and allocations that fail when a test wants it.

   Include it before the engine's headers, and around them
     #define malloc test_malloc   #define calloc test_calloc   #define realloc test_realloc
   with the matching #undef lines, so that only the engine's allocations count. */
#ifndef BYTES_H
#define BYTES_H

#include "t.h"

/* Every allocation of the engine passes here, so that the Nth of them can be made to fail. */
static long allocations, failing_allocation;
static size_t largest_allocation;

static inline int allocation_fails(size_t n)
{
  if (n > largest_allocation) largest_allocation = n;
  return ++allocations == failing_allocation;
}

static inline void *test_malloc(size_t n) { return allocation_fails(n) ? NULL : malloc(n); }

static inline void *test_calloc(size_t n, size_t m)
{
  return allocation_fails(n * m) ? NULL : calloc(n, m);
}

static inline void *test_realloc(void *p, size_t n)
{
  return allocation_fails(n) ? NULL : realloc(p, n);
}

/* for what no test is about */
static inline void need(int good, const char *what)
{
  if (good) return;
  FAIL(what);
  exit(t_done());
}

typedef struct bytes { unsigned char *at; size_t n, room; } bytes;

static inline void put_bytes(bytes *b, const void *data, size_t n)
{
  if (b->n + n > b->room) {
    b->room = 2 * (b->n + n);
    b->at = realloc(b->at, b->room);
    need(b->at != NULL, "no memory");
  }
  if (n > 0) memcpy(b->at + b->n, data, n);
  b->n += n;
}

static inline void put_u32(bytes *b, uint32_t value)
{
  unsigned char byte[4] = { (unsigned char)value, (unsigned char)(value >> 8),
                            (unsigned char)(value >> 16), (unsigned char)(value >> 24) };
  put_bytes(b, byte, 4);
}

static inline void put_f32(bytes *b, float value)
{
  uint32_t bits;
  memcpy(&bits, &value, 4);
  put_u32(b, bits);
}

static inline void set_u32(bytes *b, size_t at, uint32_t value)
{
  size_t n = b->n;
  b->n = at;
  put_u32(b, value);
  b->n = n;
}

/* a piece of memory of exactly n bytes, so that a sanitizer sees the first byte read beyond */
static inline unsigned char *exact_copy(const bytes *b, size_t n)
{
  unsigned char *copy = malloc(n ? n : 1);
  need(copy != NULL, "no memory");
  memcpy(copy, b->at, n);
  return copy;
}

/* error: an engine_error */
static inline void check_refusal(int bad, const void *error, const char *what, const char *words)
{
  const char *why = (const char *)error;
  t_case("%s: expected '%s', got '%s'", what, words, why);
  CHECK(bad && strstr(why, words));
  t_bad_input("%s: %s", what, words);
}

#endif
