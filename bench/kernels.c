/* kernels.c - decode and prefill against the limits of the machine they run on, in one process.

   run  build/bench/kernels [-o md|csv|json] [-f CSV] [-r ROUNDS] [-s SHAPE] [-t 1]

   Every round runs each competitor once, one after another: the header at each instruction set, a
   loop as a user would write it (naive.c, float32), a read of the same bytes, fused multiply-adds
   in registers, integer dots in registers. So all see the same neighbours, heat and clock. Figures
   are medians over the rounds; least and most are shown beside them. One thread is timed by its
   CPU time; two threads by the wall clock, and only rounds without a forced task switch count.

     share  the time that the binding limit alone would take over the time taken. The limit is the
            longer of bytes / read and flop / fma (int8: integer dots and read)
     naive  naive's time over ours */
#define _GNU_SOURCE 1
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include "naive.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ROUNDS = 401, MOST_ISAS = 8, COLD = 192 << 20 };

/* ==== the shapes ==== */

typedef struct shape {
  const char *name, *what;
  int head_dim, heads, kv_heads, window, sinks, n, keys, cold, type;
} shape;

static const shape shapes[] = {
  {"D1", "decode, in cache", 128, 32, 8, 1020, 4, 1, 1024, 0, LONGCTX_F16},
  {"D1", "decode, in cache", 128, 32, 8, 1020, 4, 1, 1024, 0, LONGCTX_Q8},
  {"D2", "decode, 4 heads a KV head", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_F16},
  {"D2", "decode, 4 heads a KV head", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_F32},
  {"D2", "decode, 4 heads a KV head", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_Q8},
  {"D3", "decode, every head its own", 128, 32, 32, 4092, 4, 1, 4096, 1, LONGCTX_F16},
  {"D3", "decode, every head its own", 128, 32, 32, 4092, 4, 1, 4096, 1, LONGCTX_Q8},
  {"D4", "decode, short rows", 64, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_F16},
  {"D4", "decode, short rows", 64, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_Q8},
  {"D5", "decode, long window", 128, 32, 8, 16380, 4, 1, 16384, 1, LONGCTX_F16},
  {"P1", "prefill 512, window 1024", 128, 32, 8, 1024, 0, 512, 4096, 0, LONGCTX_F16},
  {"P2", "prefill 512, causal", 128, 32, 8, 4096, 0, 512, 4096, 0, LONGCTX_F16},
  {"P3", "chunk of 64, window 1024", 128, 32, 8, 1024, 0, 64, 4096, 0, LONGCTX_F16},
  {"S48", "small, in cache", 48, 6, 6, 256, 0, 1, 256, 0, LONGCTX_F32},
  {"S24", "small, in cache", 24, 4, 4, 128, 0, 1, 128, 0, LONGCTX_F32},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const char *type_name(int type)
{
  static const char *const names[] = {"float32", "float16", "bfloat16", "int8"};
  return names[type];
}

static int type_bytes(int type) { return type == LONGCTX_F32 ? 4 : type == LONGCTX_Q8 ? 1 : 2; }

/* keys that all queries of a call see together */
static double pairs_of(const shape *s)
{
  double sum = 0, last = s->keys;
  int i, window = s->window + s->sinks;
  if (s->n == 1) return s->keys;
  for (i = 0; i < s->n; ++i) {
    double seen = last - s->n + i + 1;
    sum += seen < window ? seen : window;
  }
  return sum;
}

/* ==== time ==== */

static double seconds(clockid_t clock)
{
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long forced_switches(void)
{
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r.ru_nivcsw;
}

typedef struct sample { double us[MOST_ROUNDS]; int n; } sample; /* peaks: operations a second */

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double quantile(sample *s, double q)
{
  if (s->n == 0) return 0;
  qsort(s->us, (size_t)s->n, sizeof *s->us, by_value);
  return s->us[(int)(q * (s->n - 1) + 0.5)];
}

/* ==== the machine's limits ==== */

#if defined(__x86_64__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define HALF __attribute__((target("avx2,fma")))

WIDE static uint64_t read_512(const unsigned char *p, size_t n)
{
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  size_t i;
  for (i = 0; i + 256 <= n; i += 256) {
    a = _mm512_or_si512(a, _mm512_loadu_si512(p + i));
    b = _mm512_or_si512(b, _mm512_loadu_si512(p + i + 64));
    c = _mm512_or_si512(c, _mm512_loadu_si512(p + i + 128));
    d = _mm512_or_si512(d, _mm512_loadu_si512(p + i + 192));
  }
  a = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
  return (uint64_t)_mm512_reduce_or_epi64(a);
}

HALF static uint64_t read_256(const unsigned char *p, size_t n)
{
  __m256i a = _mm256_setzero_si256(), b = a;
  uint64_t r[4];
  size_t i;
  for (i = 0; i + 64 <= n; i += 64) {
    a = _mm256_or_si256(a, _mm256_loadu_si256((const __m256i *)(const void *)(p + i)));
    b = _mm256_or_si256(b, _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 32)));
  }
  _mm256_storeu_si256((__m256i *)(void *)r, _mm256_or_si256(a, b));
  return r[0] | r[1] | r[2] | r[3];
}

/* twelve independent chains in registers, n steps each */
#define CHAINS(T, STEP)                                                                          \
  T a0 = x, a1 = STEP(a0), a2 = STEP(a1), a3 = STEP(a2), a4 = STEP(a3), a5 = STEP(a4),           \
    a6 = STEP(a5), a7 = STEP(a6), a8 = STEP(a7), a9 = STEP(a8), aa = STEP(a9), ab = STEP(aa);    \
  long i; /* from different starts, or a compiler merges them */                                 \
  for (i = 0; i < n; ++i) {                                                                      \
    a0 = STEP(a0), a1 = STEP(a1), a2 = STEP(a2), a3 = STEP(a3), a4 = STEP(a4), a5 = STEP(a5);    \
    a6 = STEP(a6), a7 = STEP(a7), a8 = STEP(a8), a9 = STEP(a9), aa = STEP(aa), ab = STEP(ab);    \
  }
#define SUM(ADD)                                                                                 \
  ADD(ADD(ADD(ADD(a0, a1), ADD(a2, a3)), ADD(ADD(a4, a5), ADD(a6, a7))),                         \
      ADD(ADD(a8, a9), ADD(aa, ab)))
#define FMA512(a) _mm512_fmadd_ps(a, y, z)
#define FMA256(a) _mm256_fmadd_ps(a, y, z)
#define DOT512(a) _mm512_dpbusd_epi32(a, y, z)

WIDE static float fma_512(long n)
{
  __m512 x = _mm512_set1_ps(1.0f), y = _mm512_set1_ps(0.9999f), z = _mm512_set1_ps(1e-4f);
  CHAINS(__m512, FMA512)
  return _mm512_reduce_add_ps(SUM(_mm512_add_ps));
}

HALF static float fma_256(long n)
{
  __m256 x = _mm256_set1_ps(1.0f), y = _mm256_set1_ps(0.9999f), z = _mm256_set1_ps(1e-4f);
  CHAINS(__m256, FMA256)
  return _mm256_cvtss_f32(SUM(_mm256_add_ps));
}

WIDE static float dot_512(long n)
{
  __m512i x = _mm512_set1_epi8(1), y = _mm512_set1_epi8(3), z = _mm512_set1_epi8(2);
  CHAINS(__m512i, DOT512)
  return (float)_mm512_reduce_add_epi32(SUM(_mm512_add_epi32));
}
#endif

static volatile float seen; /* keeps the compiler from finding that nobody looks */
static int wide, half;      /* does this machine run the 512-bit, the 256-bit loops? */

static void read_bytes(const unsigned char *p, size_t n)
{
#if defined(__x86_64__)
  if (wide) seen = (float)read_512(p, n);
  else if (half) seen = (float)read_256(p, n);
#else
  (void)p, (void)n;
#endif
}

/* operations of one second in registers, from n steps: fused multiply-adds count two, dots eight */
static double peak_fma(long n)
{
  double begin = seconds(CLOCK_THREAD_CPUTIME_ID), lanes = 0;
#if defined(__x86_64__)
  if (wide) seen = fma_512(n), lanes = 16;
  else if (half) seen = fma_256(n), lanes = 8;
#endif
  return 2 * 12 * lanes * (double)n / (seconds(CLOCK_THREAD_CPUTIME_ID) - begin);
}

static double peak_dot(long n)
{
  double begin = seconds(CLOCK_THREAD_CPUTIME_ID), lanes = 0;
#if defined(__x86_64__)
  if (wide) seen = dot_512(n), lanes = 16;
#endif
  return 8 * 12 * lanes * (double)n / (seconds(CLOCK_THREAD_CPUTIME_ID) - begin);
}

/* ==== one shape ==== */

typedef struct options {
  const char *format, *file, *only;
  int rounds, most_threads;
} options;

typedef struct bench {
  const shape *s;
  int layers, n_isas, isas[MOST_ISAS];
  size_t bytes;                 /* of keys and values that one call reads */
  void *block;
  size_t block_bytes;
  longctx *lc;
  float *q, *k, *v, *out;
  float *naive_k, *naive_v, *scores;
  double flop;
  sample ours[MOST_ISAS][2], naive, read, fma, dot;
} bench;

static float random_float(void)
{
  static uint64_t x = 88172645463325252u;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return (float)(x >> 40) / 8388608.0f - 1.0f;
}

static float *random_floats(size_t n)
{
  float *p = (float *)malloc(n * sizeof *p);
  size_t i;
  for (i = 0; p && i < n; ++i) p[i] = random_float();
  if (!p) exit(1);
  return p;
}

static void fill_context(bench *b)
{
  const shape *s = b->s;
  int step = 64, l;
  int64_t until = s->n > 1 ? s->keys - s->n : s->keys + 200; /* a full, wrapped window */
  while (longctx_position(b->lc) < until) {
    for (l = 0; l < b->layers; ++l)
      if (longctx_attend(b->lc, l, step, b->q, b->k, b->v, b->out)) exit(1);
    if (longctx_commit(b->lc, step)) exit(1);
  }
}

static void bench_make(bench *b, const shape *s, const options *o)
{
  size_t page = (size_t)2 << 20, rows = (size_t)(s->n > 64 ? s->n : 64);
  longctx_desc d;
  longctx_sizes sizes;
  int i;
  memset(b, 0, sizeof *b);
  b->s = s;
  b->bytes = (size_t)2 * (size_t)s->kv_heads * (size_t)s->head_dim * (size_t)s->keys *
             (size_t)type_bytes(s->type);
  b->layers = s->cold ? (int)(COLD / b->bytes) + 1 : 1;
  b->flop = 4.0 * s->heads * s->head_dim * pairs_of(s);
  d = longctx_desc_make(b->layers, s->heads, s->kv_heads, s->head_dim, s->window);
  d.sinks = s->sinks;
  d.max_batch = (int)rows;
  d.max_threads = o->most_threads;
  d.type_k = d.type_v = s->type;
  if (longctx_measure(&d, &sizes)) exit(1);
  b->block_bytes = (sizes.total + page - 1) / page * page;
  b->block = aligned_alloc(page, b->block_bytes);
  if (!b->block) exit(1);
  madvise(b->block, b->block_bytes, MADV_HUGEPAGE);
  b->lc = longctx_init(b->block, b->block_bytes, &d);
  if (!b->lc) exit(1);
  b->q = random_floats(rows * (size_t)(s->heads * s->head_dim));
  b->k = random_floats(rows * (size_t)(s->kv_heads * s->head_dim));
  b->v = random_floats(rows * (size_t)(s->kv_heads * s->head_dim));
  b->out = random_floats(rows * (size_t)(s->heads * s->head_dim));
  b->naive_k = random_floats((size_t)s->keys * (size_t)(s->kv_heads * s->head_dim));
  b->naive_v = random_floats((size_t)s->keys * (size_t)(s->kv_heads * s->head_dim));
  b->scores = random_floats((size_t)s->keys);
  fill_context(b);
  for (i = 0; longctx_isa_name(i); ++i)
    if (strncmp(longctx_isa_name(i), "scalar", 6) && longctx_set_isa(b->lc, i) == 0)
      b->isas[b->n_isas++] = i;
}

static void bench_free(bench *b)
{
  free(b->block), free(b->q), free(b->k), free(b->v), free(b->out);
  free(b->naive_k), free(b->naive_v), free(b->scores);
}

static void note(sample *s, double time) { s->us[s->n++] = time * 1e6; }

static void time_ours(bench *b, int i, int threads)
{
  clockid_t clock = threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
  struct timespec rest = {0, 2500000};
  double begin;
  long switches;
  int l;
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
  longctx_set_isa(b->lc, b->isas[i]);
  if (threads > 1) nanosleep(&rest, NULL); /* who slept gets a whole slice */
  switches = forced_switches();
  begin = seconds(clock);
  for (l = 0; l < b->layers; ++l)
    longctx_attend(b->lc, l, b->s->n, b->q, b->k, b->v, b->out);
  begin = (seconds(clock) - begin) / b->layers;
  if (threads == 1 || forced_switches() == switches) note(&b->ours[i][threads - 1], begin);
}

static void one_round(bench *b, const options *o)
{
  double begin;
  size_t n = b->bytes * (size_t)b->layers;
  int i, threads;
  for (i = 0; i < b->n_isas; ++i)
    for (threads = 1; threads <= o->most_threads; ++threads) time_ours(b, i, threads);
  if (b->s->n == 1) {
    begin = seconds(CLOCK_THREAD_CPUTIME_ID);
    naive_attend(b->s->heads, b->s->kv_heads, b->s->head_dim, b->s->keys, b->q, b->naive_k,
                 b->naive_v, b->scores, b->out);
    note(&b->naive, seconds(CLOCK_THREAD_CPUTIME_ID) - begin);
  }
  begin = seconds(CLOCK_THREAD_CPUTIME_ID);
  read_bytes((unsigned char *)b->block, n < b->block_bytes ? n : b->block_bytes);
  note(&b->read, (seconds(CLOCK_THREAD_CPUTIME_ID) - begin) / b->layers);
  b->fma.us[b->fma.n++] = peak_fma(20000);
  b->dot.us[b->dot.n++] = peak_dot(20000);
}

/* ==== the table ==== */

static const char *const columns[] = {"shape", "type", "isa", "threads", "us", "us_min", "us_max",
                                      "gbps", "gflops", "share", "naive_ratio"};
enum { COLUMNS = 11 };

static void print_head(FILE *f, const char *format)
{
  int i;
  if (!strcmp(format, "json")) return;
  for (i = 0; i < COLUMNS; ++i)
    fprintf(f, !strcmp(format, "md") ? "| %s " : i ? ",%s" : "%s", columns[i]);
  fprintf(f, !strcmp(format, "md") ? "|\n" : "\n");
  if (!strcmp(format, "md")) fprintf(f, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
}

static void print_row(FILE *f, const char *format, const char *text[4], const double number[7])
{
  static const char *const digits[] = {"%.1f", "%.1f", "%.1f", "%.1f", "%.1f", "%.3f", "%.2f"};
  int i, md = !strcmp(format, "md"), json = !strcmp(format, "json");
  for (i = 0; i < COLUMNS; ++i) {
    fprintf(f, "%s", md ? "| " : json ? (i ? ", " : "{") : i ? "," : "");
    if (json) fprintf(f, "\"%s\": ", columns[i]);
    if (i < 4) fprintf(f, json && i < 3 ? "\"%s\"" : "%s", text[i]);
    else fprintf(f, digits[i - 4], number[i - 4]);
    if (md) fputc(' ', f);
  }
  fprintf(f, md ? "|\n" : json ? "}\n" : "\n");
}

/* us that the binding limit alone would take */
static double limit_us(bench *b)
{
  double read = b->s->n == 1 ? quantile(&b->read, 0.5) : 0;
  double rate = quantile(b->s->type == LONGCTX_Q8 && wide ? &b->dot : &b->fma, 0.5);
  double work = rate > 0 ? b->flop / rate * 1e6 : 0;
  return read > work ? read : work;
}

static void report(bench *b, const options *o, FILE *csv)
{
  int i, t;
  for (i = 0; i < b->n_isas; ++i)
    for (t = 0; t < o->most_threads; ++t) {
      sample *x = &b->ours[i][t];
      double us = quantile(x, 0.5), naive = quantile(&b->naive, 0.5);
      double number[7];
      const char *text[4];
      char threads[8];
      if (x->n == 0) continue;
      snprintf(threads, sizeof threads, "%d", t + 1);
      text[0] = b->s->name;
      text[1] = type_name(b->s->type);
      text[2] = longctx_isa_name(b->isas[i]);
      text[3] = threads;
      number[0] = us;
      number[1] = quantile(x, 0);
      number[2] = quantile(x, 1);
      number[3] = (double)b->bytes / us * 1e-3;
      number[4] = b->flop / us * 1e-3;
      number[5] = limit_us(b) / us / (t + 1);
      number[6] = naive / us;
      print_row(stdout, o->format, text, number);
      if (csv) print_row(csv, "csv", text, number);
    }
  fflush(stdout);
}

int main(int argc, char **argv)
{
  options o = {"md", NULL, NULL, 0, 1};
  FILE *csv = NULL;
  static bench b;
  int i, c, r;
#ifdef _OPENMP
  o.most_threads = 2;
#endif
  while ((c = getopt(argc, argv, "o:f:r:s:t:")) != -1) {
    if (c == 'o') o.format = optarg;
    else if (c == 'f') o.file = optarg;
    else if (c == 'r') o.rounds = atoi(optarg);
    else if (c == 's') o.only = optarg;
    else if (c == 't' && atoi(optarg) == 1) o.most_threads = 1;
    else return fprintf(stderr, "usage: see the head of bench/kernels.c\n"), 2;
  }
#if defined(__x86_64__)
  wide = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
  half = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  if (o.file && !(csv = fopen(o.file, "w"))) return perror(o.file), 1;
  print_head(stdout, o.format);
  if (csv) print_head(csv, "csv");
  for (i = 0; i < SHAPES; ++i) {
    int rounds = o.rounds ? o.rounds : shapes[i].n > 1 ? 5 : shapes[i].cold ? 15 : 201;
    if (o.only && strcmp(o.only, shapes[i].name)) continue;
    bench_make(&b, &shapes[i], &o);
    for (r = 0; r < rounds && r < MOST_ROUNDS; ++r) one_round(&b, &o);
    report(&b, &o, csv);
    if (!strcmp(o.format, "md"))
      fprintf(stderr, "%s %s: read %.1f us, fma %.1f GF/s, int8 dots %.1f Gop/s, naive %.1f us\n",
              shapes[i].name, type_name(shapes[i].type), quantile(&b.read, 0.5),
              quantile(&b.fma, 0.5) * 1e-9, quantile(&b.dot, 0.5) * 1e-9, quantile(&b.naive, 0.5));
    bench_free(&b);
  }
  if (csv) fclose(csv);
  return 0;
}
