/* bench.h - what the benches share: giving up, contexts, options, clocks, quantiles, an interval.

   #define BENCH "name" before it is included. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline void die(const char *what, const char *why)
{
  fflush(stdout);
  fprintf(stderr, "%s: %s%s%s\n", BENCH, what, why[0] ? ": " : "", why);
  exit(1);
}

static inline void must(int code)
{
  if (code != LONGCTX_OK) die("longctx", longctx_error(code));
}

static inline longctx *make_context(const longctx_desc *d)
{
  size_t bytes = longctx_size(d);
  void *memory = bytes ? malloc(bytes) : NULL;
  longctx *lc = memory ? longctx_init(memory, bytes, d) : NULL;
  if (!lc) die("no context", bytes ? "no memory" : longctx_check(d));
  return lc;
}

/* ==== options: what an option's value goes to is what is not NULL ==== */

typedef struct option {
  const char *name, **text;
  long *count, least;            /* and at most 10^9 */
  int *flag;                     /* takes no value */
} option;

static inline void parse_options(const option *known, size_t n_known, int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    const option *o = known;
    char *end;
    while (o < known + n_known && strcmp(argv[i], o->name)) o++;
    if (o == known + n_known)
      die("unknown option (the first lines of bench/" BENCH ".c list them)", argv[i]);
    if (o->flag) {
      *o->flag = 1;
      continue;
    }
    if (++i == argc) die("a value is missing behind", o->name);
    if (o->text) {
      *o->text = argv[i];
      continue;
    }
    errno = 0;
    *o->count = strtol(argv[i], &end, 10);
    if (errno || end == argv[i] || *end || *o->count < o->least || *o->count > 1000000000L)
      die(o->name, argv[i]);
  }
}

/* ==== figures ==== */

/* CLOCK_THREAD_CPUTIME_ID: what other processes take is not in it; or CLOCK_MONOTONIC */
static inline double seconds(clockid_t clock)
{
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* sorts x */
static inline double quantile(double *x, int n, double q)
{
  if (n == 0) return 0;
  qsort(x, (size_t)n, sizeof *x, by_value);
  return x[(int)(q * (n - 1) + 0.5)];
}

/* the 95 % interval of a share: Wilson, 1927 */
static inline void interval(long right, long trials, double *low, double *high)
{
  double n = (double)trials, p = (double)right / n, z = 1.959964;
  double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
  double half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  *low = n > 0 ? fmax(0, middle - half) : 0;
  *high = n > 0 ? fmin(1, middle + half) : 1;
}

#endif
