/* soak.c: many tokens, and at the end all is as at the beginning. Usage: soak [TOKENS [START]]

   Two contexts take TOKENS tokens (10^6) from position START (0) on. A hundred times on the way a
   new context that has seen nothing but the window must give the bits of the first one, and plain
   attention in double must agree with the second one, which has sinks. At the end the process has
   no more memory than early on (Linux counts 64 pages late), and 32 tokens take the CPU time that
   they take in two new contexts, run in turn with the last ones, so that all see the same machine.
   How much longer the slowest thousandth took is told, not judged: other programs are in it.     */
#define _POSIX_C_SOURCE 200809L
#include "t.h"
#include <sys/resource.h>
#include <time.h>

enum { HEADS = 2, DIM = 16, WINDOW = 64, SINKS = 4, Q = HEADS * DIM, LOOKS = 100 };

/* q, k, v of a token, from its number alone */
static void rows_of(int64_t token, float *q, float *k, float *v)
{
  uint64_t seed = (uint64_t)token * 3;
  int i;
  for (i = 0; i < Q + 2 * DIM; i++) {
    float x;
    if (i % 4 == 0) t_u64(&seed);
    x = (float)((int)(((seed * 0x9e3779b97f4a7c15u) ^ (seed >> 29)) >> (16 * (i % 4)) & 0xffff) -
                32768) / 16384.0f;
    if (i < Q) q[i] = x;
    else if (i < Q + DIM) k[i - Q] = x;
    else v[i - Q - DIM] = x;
  }
}

static int take(longctx *lc, int64_t token, float *out)
{
  float q[Q], k[DIM], v[DIM];
  rows_of(token, q, k, v);
  return longctx_attend(lc, 0, 1, q, k, v, out) || longctx_commit(lc, 1);
}

/* A context that starts with the window before `token`: what it has not seen does not count. */
static void check_bits(const longctx_desc *d, int64_t start, int64_t token, const float *out)
{
  int64_t from = token - WINDOW + 1 < start ? start : token - WINDOW + 1;
  float got[Q];
  longctx *lc = t_new(d);
  t_case("bits at position %lld", (long long)token);
  CHECK_EQ(longctx_seek(lc, from), LONGCTX_OK);
  for (; from <= token; from++)
    if (take(lc, from, got)) FAIL("refused");
  CHECK_SAME(out, got, sizeof got);
  free(lc);
}

static double dot(const float *a, const float *b)
{
  double sum = 0;
  int i;
  for (i = 0; i < DIM; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* Softmax over sinks and window, in double. Returns the largest difference. */
static double off(int64_t start, int64_t token, const float *out)
{
  float q[Q], k[DIM], v[DIM], unused[Q];
  double worst = 0;
  int h, i;
  rows_of(token, q, k, v);
  for (h = 0; h < HEADS; h++) {
    double sum = 0, o[DIM] = { 0 };
    int64_t t, first = token - WINDOW + 1 < start ? start : token - WINDOW + 1;
    for (t = start; t <= token; t++) {
      double w;
      if (t >= start + SINKS && t < first) t = first;
      rows_of(t, unused, k, v);
      w = exp(dot(q + h * DIM, k) / 4);                /* scale 1/sqrt(16)                       */
      sum += w;
      for (i = 0; i < DIM; i++) o[i] += w * (double)v[i];
    }
    for (i = 0; i < DIM; i++) {
      double d = fabs(o[i] / sum - (double)out[h * DIM + i]);
      worst = t_worse(worst, d);
    }
  }
  return worst;
}

static long kilobytes(void)
{
  struct rusage r;
  return getrusage(RUSAGE_SELF, &r) ? -1 : r.ru_maxrss;
}

static int64_t cpu_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* CPU time of 32 tokens: of all, of the last ones, and of new contexts beside the last ones. */
enum { SAMPLE = 32, LAST = 1000 * SAMPLE, TICK = 100, TICKS = 50000, ALL = 0, OLD = 1, NEW = 2 };
static long ticks[3][TICKS];                           /* a tick: 100 ns                         */

static double quantile(const long *n, double share)
{
  double all = 0, sum = 0;
  int i;
  for (i = 0; i < TICKS; i++) all += (double)n[i];
  for (i = 0; i < TICKS - 1 && (sum += (double)n[i]) < share * all;) i++;
  return (i + 0.5) * TICK;
}

static void count(long *n, int64_t took) { n[took / TICK < TICKS ? took / TICK : TICKS - 1]++; }

/* 32 tokens of the new contexts, from `token` on */
static void beside(longctx *a, longctx *b, int64_t token)
{
  float out[Q];
  int64_t begin = cpu_ns();
  int i, bad = 0;
  for (i = 0; i < SAMPLE; i++) bad |= take(a, token + i, out) || take(b, token + i, out);
  count(ticks[NEW], cpu_ns() - begin);
  CHECK_EQ(bad, 0);
}

int main(int argc, char **argv)
{
  int64_t tokens = argc > 1 ? strtoll(argv[1], NULL, 10) : 1000000;
  int64_t start = argc > 2 ? strtoll(argv[2], NULL, 10) : 0, begin = 0, apart = 0, young = 0, i;
  longctx_desc plain = longctx_desc_make(1, HEADS, 1, DIM, WINDOW), sinks = plain;
  longctx *a, *b, *new_a, *new_b;
  float out_a[Q], out_b[Q];
  double worst = 0, growth;
  long early = 0, end;
  plain.type_k = LONGCTX_F16;
  plain.type_v = LONGCTX_Q8;
  sinks.rope = LONGCTX_ROPE_NONE;
  sinks.sinks = SINKS;
  memset(ticks, 0, sizeof ticks);                      /* touched: no page of them comes later   */
  a = t_new(&plain);
  b = t_new(&sinks);
  new_a = t_new(&plain);
  new_b = t_new(&sinks);
  if (tokens < 2 * LOOKS) tokens = 2 * LOOKS;
  CHECK_EQ(longctx_seek(a, start), LONGCTX_OK);
  CHECK_EQ(longctx_seek(b, start), LONGCTX_OK);
  for (i = 0; i < tokens; i++) {
    if (i % SAMPLE == 0) {
      int64_t took = cpu_ns() - begin - apart;
      if (i) count(ticks[ALL], took);
      if (i && tokens - i <= LAST) {
        if (young == WINDOW) memset(ticks[NEW], 0, sizeof ticks[NEW]); /* full from here on       */
        count(ticks[OLD], took);
        beside(new_a, new_b, young);
        young += SAMPLE;
      }
      begin = cpu_ns(), apart = 0;
    }
    if (take(a, start + i, out_a)) { FAIL("refused"); break; }
    if (take(b, start + i, out_b)) { FAIL("refused"); break; }
    if ((i + 1) % (tokens / LOOKS)) continue;
    apart -= cpu_ns();
    check_bits(&plain, start, start + i, out_a);
    { double d = off(start, start + i, out_b);
      t_case("drift at position %lld", (long long)(start + i));
      CHECK(d <= 2e-6);
      if (d > worst) worst = d; }
    if (!early && i > tokens / 50) early = kilobytes();
    apart += cpu_ns();
  }
  end = kilobytes();
  growth = quantile(ticks[OLD], 0.5) / quantile(ticks[NEW], 0.5);
  t_case("early %ld KB, at the end %ld KB; time times %.3f", early, end, growth);
  CHECK_EQ(longctx_position(a), start + tokens);
  CHECK(end - early <= 256);
  CHECK(growth <= 1.15);
  printf("%lld tokens from %lld: %ld KB more, off by %.1e, time times %.3f, p99.9 / p50 %.2f\n",
         (long long)tokens, (long long)start, end - early, worst, growth,
         quantile(ticks[ALL], 0.999) / quantile(ticks[ALL], 0.5));
  free(a);
  free(b);
  free(new_a);
  free(new_b);
  return t_done();
}
