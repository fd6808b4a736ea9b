/* t.h: checks that count themselves, a seeded generator, contexts from descriptions.

   A test is one program. It includes this file, CHECKs things, and main ends with
   `return t_done();`, which prints `N passed, M failed` and gives the exit status.
   The implementation comes along unless T_LINKED says that it is linked from elsewhere. */
#ifndef T_H
#define T_H

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef T_LINKED
#define LONGCTX_IMPLEMENTATION
#ifndef LONGCTX_ASSERT                 /* what must always hold inside does                      */
#define LONGCTX_ASSERT(x)                                                                         \
  ((x) ? (void)0 : (printf("longctx.h:%d: not so: %s\n", __LINE__, #x), exit(1)))
#endif
#endif
#include "../longctx.h"

/* ---- checks ---------------------------------------------------------------------------------- */

enum { T_NAMES = 4096 };
static long t_passed, t_failed;
static uint64_t t_bad_names[T_NAMES];  /* hashes                                                 */
static int t_bad_inputs;
static char t_label[200];              /* what is being tried, printed with a failure            */

static inline void t_case(const char *format, ...)
{
  va_list list;
  va_start(list, format);
  vsnprintf(t_label, sizeof t_label, format, list);
  va_end(list);
}

static inline int t_check(int good, const char *file, int line, const char *text)
{
  if (good) t_passed++;
  else if (++t_failed <= 25) printf("%s:%d: failed: %s [%s]\n", file, line, text, t_label);
#ifdef T_FIRST_FAILURE_ENDS                             /* tests/mutate.py wants no more to know    */
  if (!good) exit(1);
#endif
  return good;
}

static inline int t_check_eq(long long a, long long b, const char *file, int line, const char *text)
{
  char full[300];
  snprintf(full, sizeof full, "%s (%lld, %lld)", text, a, b);
  return t_check(a == b, file, line, full);
}

static inline int t_check_near(double a, double b, double room, const char *file, int line,
                               const char *text)
{
  char full[300];
  snprintf(full, sizeof full, "%s (%.9g, %.9g, off by %.3g, allowed %.3g)", text, a, b,
           fabs(a - b), room);
  return t_check(fabs(a - b) <= room, file, line, full);
}

static inline int t_check_same(const void *a, const void *b, size_t bytes, const char *file,
                               int line, const char *text)
{
  const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
  char full[300];
  size_t i = 0;
  if (memcmp(a, b, bytes) == 0) return t_check(1, file, line, text);
  while (x[i] == y[i]) i++;
  snprintf(full, sizeof full, "%s (first difference at byte %lu of %lu)", text,
           (unsigned long)i, (unsigned long)bytes);
  return t_check(0, file, line, full);
}

#define FAIL(text) t_check(0, __FILE__, __LINE__, text)
#define CHECK(x) t_check((x) ? 1 : 0, __FILE__, __LINE__, #x)
#define CHECK_EQ(a, b) \
  t_check_eq((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)
#define CHECK_NEAR(a, b, room) \
  t_check_near((double)(a), (double)(b), (double)(room), __FILE__, __LINE__, #a " near " #b)
#define CHECK_SAME(a, b, bytes) \
  t_check_same(a, b, bytes, __FILE__, __LINE__, "same bytes: " #a ", " #b)

/* A bad input that got its own answer and changed nothing counts once, by its name. */
static inline void t_bad_input(const char *format, ...)
{
  char name[200];
  uint64_t h = 0xcbf29ce484222325u;
  int i;
  va_list list;
  va_start(list, format);
  vsnprintf(name, sizeof name, format, list);
  va_end(list);
  for (i = 0; name[i]; i++) h = (h ^ (unsigned char)name[i]) * 0x100000001b3u;
  for (i = 0; i < t_bad_inputs; i++)
    if (t_bad_names[i] == h) return;
  if (t_bad_inputs < T_NAMES) t_bad_names[t_bad_inputs++] = h;
}

static inline void t_say_bad_inputs(void)
{
  if (t_bad_inputs) printf("%d bad inputs by name\n", t_bad_inputs);
}

static inline int t_done(void)
{
  t_say_bad_inputs();
  printf("%ld passed, %ld failed\n", t_passed, t_failed);
  return t_failed != 0;
}

/* The larger of two errors; NaN if either is: fmax, and a comparison, would drop it. */
static inline double t_worse(double a, double b) { return a >= b || a != a ? a : b; }

/* ---- numbers --------------------------------------------------------------------------------- */

static inline uint64_t t_u64(uint64_t *seed)
{
  uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static inline int t_below(uint64_t *seed, int n)
{
  return (int)(t_u64(seed) % (uint64_t)n);
}

static inline double t_unit(uint64_t *seed)            /* uniform in (0, 1)                      */
{
  return ((double)(t_u64(seed) >> 12) + 0.5) / 4503599627370496.0;
}

static inline float t_normal(uint64_t *seed)           /* mean 0, variance 1                     */
{
  double r = sqrt(-2.0 * log(t_unit(seed)));
  return (float)(r * cos(6.283185307179586 * t_unit(seed)));
}

static inline float *t_floats(size_t n)                /* n floats, all zero                     */
{
  float *x = (float *)calloc(n ? n : 1, sizeof *x);
  if (x == NULL) { printf("out of memory\n"); exit(1); }
  return x;
}

static inline float *t_normals(size_t n, uint64_t seed)
{
  float *x = t_floats(n);
  size_t i;
  for (i = 0; i < n; i++) x[i] = t_normal(&seed);
  return x;
}

/* ---- what is compared ------------------------------------------------------------------------ */

/* by LONGCTX_F32, _F16, _BF16, _Q8 */
static const char *const t_type_names[4] = { "float32", "float16", "bfloat16", "int8" };

static inline int t_all_finite(const float *x, size_t n)
{
  while (n--)
    if (!(fabsf(x[n]) <= FLT_MAX)) return 0;
  return 1;
}

/* Which of the two classes of bits? */
static inline int t_is_fused(const char *isa)
{
  return strcmp(isa, "scalar") != 0 && strcmp(isa, "sse2") != 0 && strcmp(isa, "wasm") != 0;
}

/* ---- contexts -------------------------------------------------------------------------------- */

static inline void *t_memory(size_t bytes)
{
  void *mem = malloc(bytes ? bytes : 1);
  if (mem == NULL) { printf("out of memory\n"); exit(1); }
  memset(mem, 0xff, bytes);                            /* nothing but NaN: malloc cleans nothing */
  return mem;
}

static inline longctx *t_new(const longctx_desc *d)    /* free() it                              */
{
  size_t bytes = longctx_size(d);
  void *mem = t_memory(bytes);
  longctx *lc = longctx_init(mem, bytes, d);
  const char *why = longctx_check(d);
  if (lc != NULL) return lc;
  CHECK(lc != NULL);
  printf("init refused: %s\n", why ? why : "check found nothing wrong");
  exit(t_done());
}

static inline int t_have_isa(int isa)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 2, 1);
  longctx *lc = t_new(&d);
  int r = longctx_set_isa(lc, isa);
  free(lc);
  return r == LONGCTX_OK;
}

/* The saved state as bytes; free() them. One scratch file serves every call. */
static inline unsigned char *t_state(const longctx *lc, size_t *bytes)
{
  static FILE *file;
  unsigned char *state;
  if (file == NULL) file = tmpfile();
  if (file == NULL) { printf("no temporary file\n"); exit(1); }
  rewind(file);
  if (!CHECK_EQ(longctx_save(lc, file), LONGCTX_OK)) exit(t_done());
  *bytes = (size_t)ftell(file);
  CHECK_EQ(*bytes, longctx_state_size(lc));
  state = (unsigned char *)t_memory(*bytes);
  rewind(file);
  if (fread(state, 1, *bytes, file) != *bytes) { printf("cannot read back\n"); exit(1); }
  return state;
}

static inline void t_same_states(const longctx *a, const longctx *b)
{
  size_t n, m;
  unsigned char *x = t_state(a, &n), *y = t_state(b, &m);
  if (CHECK_EQ(n, m)) CHECK_SAME(x, y, n);
  free(x);
  free(y);
}

#ifndef T_LINKED
/* A state whose checksum is right, whatever stands in it: as the header hashes, in 256s. */
static inline void t_rehash(unsigned char *state, size_t n)
{
  size_t at = sizeof(lcx_file_head), end = n - sizeof(uint64_t);
  uint64_t h = lcx_hash(0, state, at);
  for (; at < end; at += 256) h = lcx_hash(h, state + at, end - at < 256 ? end - at : 256);
  memcpy(state + end, &h, sizeof h);
}
#endif

/* A scratch file holding these bytes, at its start; fclose() it. */
static inline FILE *t_file(const void *bytes, size_t n)
{
  FILE *file = tmpfile();
  if (file == NULL || fwrite(bytes, 1, n, file) != n) { printf("no temporary file\n"); exit(1); }
  rewind(file);
  return file;
}

#endif
