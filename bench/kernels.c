/* kernels.c - decode and prefill against the limits of the machine they run on, in one process.

   run  build/bench/kernels [-o md|csv|json] [-f CSV] [-r ROUNDS] [-s SHAPE] [-t THREADS] [-l]
        -r: at most 4,000 samples count, layers times rounds
        -t 16: by 1, 2, 4, 8 and 16 threads; by default 1 and 2
        -s S1, or -l before everything else: a stream of a million tokens, three minutes

   Every round runs each competitor, one after another: the header at each instruction set, a loop
   as a user would write it (naive.c, float32), a read of the same bytes, fused multiply-adds in
   registers, integer dots in registers. So all see the same neighbours, heat and clock. A sample is
   one call; where a call is so short that the clock would count, as many calls as make a tenth of
   a millisecond, of every competitor alike. Decode whose keys fit a cache makes one untimed call
   first, which reads back what the competitor before it evicted. Cold shapes walk so many layers
   that each call finds its keys in no cache. Figures are medians; least and most are shown beside
   them. One thread is timed by its CPU time; more threads, each on its core, by the wall clock, and
   only calls without a forced task switch count.

     isa     who: an instruction set of the header, naive, or read (of the same bytes)
     gbps    keys and values of the window as stored, int8's scales included, over the time
     gflops  a multiply and an add for each visible key's and value's dim, over the time, whatever
             a kernel spends on it: int8 keys cost two integer dots (14-bit queries), count as one
     share   the time that the binding limit alone would take over the time taken. The limit is the
             longer of bytes / read and flop / fma (int8: over integer dots); prefill: flop / fma;
             N threads: a read by N, N times the arithmetic of one core
     naive_ratio  naive's time over ours, one thread of naive against all of ours

   fma, dots      the peaks, medians over the whole run
   D2-append      right behind each D2-full, the same call with a window of one: append, rotation
             and conversion, and a single key
   M-plain, -linear, -delta   one token of four layers, commit included, 32 heads on 8, blocks of 128
             in a window of 2048: without a memory, and with one by either rule, in turn. us is
             the mean: one token in 16 folds
   F-plain, -feedback   the same in a window of 4096 and blocks of 1024 (TransformerFAM's own), without
             and with 64 feedback rows; their attend and set at a block's end are part of the next
             token, the caller's layers are not. us is the mean: one token in 1,024 has them
   S1-first, -last, -fresh   one token: the first 2,000 after the window filled, the last 2,000 of a
             million, and the first 2,000 of a second context run in turn with those last */
#define _GNU_SOURCE 1
#define LONGCTX_IMPLEMENTATION
#define BENCH "kernels"
#include "longctx.h"
#include "bench.h"
#include "inputs.h"
#include "naive.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MOST_SAMPLES = 4000, MOST_ISAS = 8, COLD = 128 << 20 };

/* ==== the shapes ==== */

typedef struct shape {
  const char *name;
  int head_dim, heads, kv_heads, window, sinks, n, keys, cold, type;
} shape;

static const shape shapes[] = {
  {"D1", 128, 32, 8, 1020, 4, 1, 1024, 0, LONGCTX_F16},   /* decode, in cache */
  {"D1", 128, 32, 8, 1020, 4, 1, 1024, 0, LONGCTX_Q8},    /* decode, in cache */
  {"D2", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_F16},   /* decode, 4 heads a KV head */
  {"D2", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_F32},   /* decode, 4 heads a KV head */
  {"D2", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_BF16},  /* decode, 4 heads a KV head */
  {"D2", 128, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_Q8},    /* decode, 4 heads a KV head */
  {"D3", 128, 32, 32, 4092, 4, 1, 4096, 1, LONGCTX_F16},  /* decode, every head its own */
  {"D3", 128, 32, 32, 4092, 4, 1, 4096, 1, LONGCTX_Q8},   /* decode, every head its own */
  {"D4", 64, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_F16},    /* decode, short rows */
  {"D4", 64, 32, 8, 4092, 4, 1, 4096, 1, LONGCTX_Q8},     /* decode, short rows */
  {"D5", 128, 32, 8, 16380, 4, 1, 16384, 1, LONGCTX_F16}, /* decode, long window */
  {"D6", 128, 32, 1, 4092, 4, 1, 4096, 0, LONGCTX_F16},   /* decode, one KV head */
  {"D7", 128, 24, 8, 4092, 4, 1, 4096, 1, LONGCTX_F16},   /* decode, 3 heads a KV head */
  {"P1", 128, 32, 8, 1024, 0, 512, 4096, 0, LONGCTX_F16}, /* prefill 512, window 1024 */
  {"P1", 128, 32, 8, 1024, 0, 512, 4096, 0, LONGCTX_BF16}, /* prefill 512, window 1024 */
  {"P2", 128, 32, 8, 4096, 0, 512, 4096, 0, LONGCTX_F16}, /* prefill 512, causal */
  {"P3", 128, 32, 8, 1024, 0, 64, 4096, 0, LONGCTX_F16},  /* chunk of 64, window 1024 */
  {"S48", 48, 6, 6, 256, 0, 1, 256, 0, LONGCTX_F32},      /* small, in cache */
  {"S48", 48, 6, 6, 256, 0, 1, 256, 0, LONGCTX_F16},      /* small, in cache */
  {"S48", 48, 6, 6, 256, 0, 1, 256, 0, LONGCTX_Q8},       /* small, in cache */
  {"S24", 24, 4, 4, 128, 0, 1, 128, 0, LONGCTX_F32},      /* small, in cache */
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const char *type_name(int type)
{
  static const char *const names[] = {"float32", "float16", "bfloat16", "int8"};
  return names[type];
}

/* one key or value of one head, as stored */
static int row_bytes(int type, int dims)
{
  return type == LONGCTX_F32 ? 4 * dims : type == LONGCTX_Q8 ? dims + 4 : 2 * dims;
}

/* keys that a call has to read */
static int keys_of(const shape *s)
{
  int seen = s->window + s->sinks + s->n - 1;
  return seen < s->keys ? seen : s->keys;
}

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

static long forced_switches(void)
{
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r.ru_nivcsw;
}

typedef struct sample { /* microseconds, or operations a second */
  double x[MOST_SAMPLES];
  int n;
} sample;

static void note(sample *s, double x)
{
  if (s->n < MOST_SAMPLES) s->x[s->n++] = x;
}

static double quantile_of(sample *s, double q) { return quantile(s->x, s->n, q); }
static double median(sample *s) { return quantile_of(s, 0.5); }

static double began;
static long switches;

static void start(int threads)
{
  switches = threads > 1 ? forced_switches() : 0;
  began = seconds(threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID);
}

static void stop(sample *s, int threads, int calls)
{
  double end = seconds(threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID);
  if (threads == 1 || forced_switches() == switches) note(s, (end - began) * 1e6 / calls);
}

/* ==== cores ==== */

enum { MOST_THREADS = 64, STEPS = 7 }; /* 1, 2, 4 ... threads */
#ifdef _OPENMP
static const int openmp = 1;
#else
static const int openmp = 0;
#endif
static int core[MOST_THREADS], cores; /* the first ones that this process may use */

static void find_cores(void)
{
#ifdef __linux__
  cpu_set_t set;
  int i;
  if (sched_getaffinity(0, sizeof set, &set)) return;
  for (i = 0; i < CPU_SETSIZE && cores < MOST_THREADS; ++i)
    if (CPU_ISSET(i, &set)) core[cores++] = i;
#else
  cores = MOST_THREADS;
#endif
}

static void stay_on(int thread)
{
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core[thread], &set);
  sched_setaffinity(0, sizeof set, &set);
#else
  (void)thread;
#endif
}

/* so many threads from now on, awake and each on its core */
static void use_threads(int threads)
{
#ifdef _OPENMP
  struct timespec rest = {0, 2500000};
  omp_set_num_threads(threads);
  if (threads == 1) return;
  nanosleep(&rest, NULL); /* who slept gets a whole slice */
#pragma omp parallel num_threads(threads)
  stay_on(omp_get_thread_num());
#else
  (void)threads;
#endif
}

/* ==== the machine's limits ==== */

static volatile float seen; /* keeps the compiler from finding that nobody looks */
static int wide, half;      /* does this machine run the 512-bit, the 256-bit loops? */

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

/* operations of one second in registers: fused multiply-adds count two, dots of four bytes eight */
static double peak(int lanes, float (*chains)(long))
{
  const long n = 60000;
  double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
  seen = chains(n);
  return 12.0 * lanes * (double)n / (seconds(CLOCK_THREAD_CPUTIME_ID) - begin);
}
#endif

static uint64_t read_bytes(const unsigned char *p, size_t n)
{
  uint64_t sum = 0, x;
  size_t i;
#if defined(__x86_64__)
  if (wide) return read_512(p, n);
  if (half) return read_256(p, n);
#endif
  for (i = 0; i + 8 <= n; i += 8) {
    memcpy(&x, p + i, 8);
    sum |= x;
  }
  return sum;
}

static void read_all(const unsigned char *p, size_t n, int threads)
{
  uint64_t sum = 0;
  int t;
  size_t each = n / (size_t)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(| : sum)
#endif
  for (t = 0; t < threads; ++t) sum |= read_bytes(p + each * (size_t)t, each);
  seen = (float)sum;
}

typedef struct peaks { sample fma, fma_half, dot; } peaks;

static void note_peaks(peaks *p)
{
#if defined(__x86_64__)
  if (wide) note(&p->fma, peak(2 * 16, fma_512));
  if (wide) note(&p->dot, peak(8 * 16, dot_512));
  if (half) note(wide ? &p->fma_half : &p->fma, peak(2 * 8, fma_256));
#else
  (void)p;
#endif
}

/* ==== one shape ==== */

typedef struct options {
  const char *format, *file, *only;
  long rounds, most_threads;
  int stream;
} options;

typedef struct bench {
  const shape *s;
  int layers, calls, untimed, n_isas, isas[MOST_ISAS];
  int steps, threads[STEPS];
  size_t bytes;                 /* of keys and values that one call reads */
  void *block;
  size_t block_bytes;
  longctx *lc;
  float *q, *k, *v, *out;
  float *naive_k, *naive_v, *scores;
  double flop;
  sample ours[MOST_ISAS][STEPS], naive, read[STEPS];
  peaks peaks;
} bench;

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
  size_t rows = (size_t)(s->n > 64 ? s->n : 64), keys = (size_t)keys_of(s);
  longctx_desc d;
  longctx_sizes sizes;
  int i, most;
  memset(b, 0, sizeof *b);
  b->s = s;
  b->bytes = 2 * keys * (size_t)s->kv_heads * (size_t)row_bytes(s->type, s->head_dim);
  b->flop = 4.0 * s->heads * s->head_dim * pairs_of(s);
  b->layers = s->cold ? (int)(COLD / b->bytes) + 1 : 1;
  b->calls = 1 + (int)(5e6 / b->flop);
  b->untimed = s->n == 1 && !s->cold;
  most = b->calls > 1 ? 1 : (int)o->most_threads; /* nobody splits so short a call */
  for (i = 1; i < most; i *= 2) b->threads[b->steps++] = i;
  b->threads[b->steps++] = most;
  d = longctx_desc_make(b->layers, s->heads, s->kv_heads, s->head_dim, s->window);
  d.sinks = s->sinks;
  d.max_batch = (int)rows;
  d.max_threads = (int)o->most_threads;
  d.type_k = d.type_v = s->type;
  if (longctx_measure(&d, &sizes)) exit(1);
  b->block_bytes = sizes.total;
  b->block = memory(&b->block_bytes);
  b->lc = longctx_init(b->block, b->block_bytes, &d);
  if (!b->lc) exit(1);
  b->q = random_floats(rows * (size_t)(s->heads * s->head_dim));
  b->k = random_floats(rows * (size_t)(s->kv_heads * s->head_dim));
  b->v = random_floats(rows * (size_t)(s->kv_heads * s->head_dim));
  b->out = random_floats(rows * (size_t)(s->heads * s->head_dim));
  b->naive_k = random_floats(keys * (size_t)(s->kv_heads * s->head_dim));
  b->naive_v = random_floats(keys * (size_t)(s->kv_heads * s->head_dim));
  b->scores = random_floats(keys);
  use_threads(o->most_threads < s->kv_heads ? (int)o->most_threads : s->kv_heads);
  fill_context(b);
  use_threads(1);
  for (i = 0; longctx_isa_name(i); ++i)
    if (strncmp(longctx_isa_name(i), "scalar", 6) && longctx_set_isa(b->lc, i) == 0)
      b->isas[b->n_isas++] = i;
}

static void bench_free(bench *b)
{
  free(b->block), free(b->q), free(b->k), free(b->v), free(b->out);
  free(b->naive_k), free(b->naive_v), free(b->scores);
}

static void time_ours(bench *b, int i, int step)
{
  int l, c, threads = b->threads[step];
  longctx_set_isa(b->lc, b->isas[i]);
  use_threads(threads);
  for (l = 0; l < b->layers; ++l) {
    for (c = -b->untimed; c < b->calls; ++c) {
      if (c == 0) start(threads);
      longctx_attend(b->lc, l, b->s->n, b->q, b->k, b->v, b->out);
    }
    stop(&b->ours[i][step], threads, b->calls);
  }
}

static void time_read(bench *b, int step)
{
  const unsigned char *p = (const unsigned char *)b->block;
  int l, c, threads = b->threads[step];
  use_threads(threads);
  for (l = 0; l < b->layers; ++l, p += b->bytes) {
    for (c = -b->untimed; c < b->calls; ++c) {
      if (c == 0) start(threads);
      read_all(p, b->bytes, threads);
    }
    stop(&b->read[step], threads, b->calls);
  }
}

static void one_round(bench *b)
{
  int i, step;
  for (i = 0; i < b->n_isas; ++i)
    for (step = 0; step < b->steps; ++step) time_ours(b, i, step);
  for (step = 0; b->s->n == 1 && step < b->steps; ++step) time_read(b, step);
  if (b->s->n == 1) {
    for (i = -b->untimed; i < b->calls; ++i) {
      if (i == 0) start(1);
      naive_attend(b->s->heads, b->s->kv_heads, b->s->head_dim, b->s->keys, b->q, b->naive_k,
                   b->naive_v, b->scores, b->out);
    }
    stop(&b->naive, 1, b->calls);
  }
  note_peaks(&b->peaks);
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

/* what is below 0 is not known */
static void print_row(FILE *f, const char *format, const char *const text[3], int threads,
                      const double number[7])
{
  static const char *const digits[] = {"%.1f", "%.1f", "%.1f", "%.3f", "%.1f", "%.3f", "%.2f"};
  int i, md = !strcmp(format, "md"), json = !strcmp(format, "json");
  for (i = 0; i < COLUMNS; ++i) {
    fprintf(f, "%s", md ? "| " : json ? (i ? ", " : "{") : i ? "," : "");
    if (json) fprintf(f, "\"%s\": ", columns[i]);
    if (i < 3) fprintf(f, json ? "\"%s\"" : "%s", text[i]);
    else if (i == 3) fprintf(f, "%d", threads);
    else if (number[i - 4] < 0) fprintf(f, md ? "-" : json ? "null" : "");
    else fprintf(f, digits[i - 4], number[i - 4]);
    if (md) fputc(' ', f);
  }
  fprintf(f, md ? "|\n" : json ? "}\n" : "\n");
}

static void row(const options *o, FILE *csv, const char *name, int type, const char *who,
                int threads, const double number[7])
{
  const char *text[3];
  text[0] = name, text[1] = type_name(type), text[2] = who;
  print_row(stdout, o->format, text, threads, number);
  if (csv) print_row(csv, "csv", text, threads, number), fflush(csv);
  fflush(stdout);
}

/* a row of times; no flop: only bytes count. Share and ratio below 0 are not known */
static void time_row(const options *o, FILE *csv, const char *name, int type, const char *who,
                     int threads, sample *x, double bytes, double flop, double share, double ratio)
{
  double us = median(x), number[7];
  if (x->n == 0) return;
  number[0] = us;
  number[1] = quantile_of(x, 0);
  number[2] = quantile_of(x, 1);
  number[3] = bytes / us * 1e-3;
  number[4] = flop > 0 ? flop / us * 1e-3 : -1;
  number[5] = share;
  number[6] = ratio;
  row(o, csv, name, type, who, threads, number);
}

/* us that the binding limit alone would take; 0: it is not known */
static double limit_us(bench *b, int step)
{
  double read = b->s->n == 1 ? median(&b->read[step]) : 0;
  double rate = median(b->s->type == LONGCTX_Q8 && wide ? &b->peaks.dot : &b->peaks.fma);
  double work = rate > 0 ? b->flop / rate / b->threads[step] * 1e6 : 0;
  return rate > 0 && read > work ? read : work;
}

static void report(bench *b, const options *o, FILE *csv)
{
  const shape *s = b->s;
  double bytes = (double)b->bytes, naive = median(&b->naive);
  int i, t;
  for (i = 0; i < b->n_isas; ++i)
    for (t = 0; t < b->steps; ++t) {
      double us = median(&b->ours[i][t]), limit = limit_us(b, t);
      time_row(o, csv, s->name, s->type, longctx_isa_name(b->isas[i]), b->threads[t],
               &b->ours[i][t], bytes, b->flop, limit > 0 ? limit / us : -1,
               naive > 0 ? naive / us : -1);
    }
  for (t = 0; t < b->steps; ++t)
    time_row(o, csv, s->name, s->type, "read", b->threads[t], &b->read[t], bytes, -1, -1, -1);
  bytes = 8.0 * keys_of(s) * s->kv_heads * s->head_dim;
  time_row(o, csv, s->name, LONGCTX_F32, "naive", 1, &b->naive, bytes, b->flop, -1, -1);
  if (b->steps < 2) return;
  t = b->steps - 1;
  fprintf(stderr, "%s %s: ", s->name, type_name(s->type));
  for (i = 0; i < b->n_isas; ++i)
    fprintf(stderr, "%s%s %d of %d", i ? ", " : "", longctx_isa_name(b->isas[i]),
            b->ours[i][t].n, b->ours[i][0].n);
  fprintf(stderr, " samples of %d threads count\n", b->threads[t]);
}

static void report_peak(const options *o, FILE *csv, const char *name, int type, const char *who,
                        sample *x)
{
  double number[7] = {-1, -1, -1, -1, -1, -1, -1};
  if (x->n == 0) return;
  number[4] = median(x) * 1e-9;
  row(o, csv, name, type, who, 1, number);
}

/* ==== what a call does besides reading ==== */

/* The same call, of a window that sees its own key alone, right behind one that sees them all and
   has left nothing of it in the inner caches. */
static void append_share(const shape *s, const options *o, FILE *csv)
{
  static bench whole, bare;
  shape one = *s;
  const char *isa;
  int r, l, rounds = o->rounds ? (int)o->rounds : 15;
  one.window = 1, one.sinks = 0, one.keys = 1, one.cold = 0;
  bench_make(&whole, s, o);
  bench_make(&bare, &one, o);
  isa = longctx_isa_name(longctx_isa(bare.lc));
  longctx_set_isa(whole.lc, longctx_isa(bare.lc));
  use_threads(1);
  for (r = 0; r < rounds; ++r)
    for (l = 0; l < whole.layers; ++l) {
      start(1);
      longctx_attend(whole.lc, l, 1, whole.q, whole.k, whole.v, whole.out);
      stop(&whole.ours[0][0], 1, 1);
      start(1);
      longctx_attend(bare.lc, 0, 1, whole.q, whole.k, whole.v, whole.out);
      stop(&bare.ours[0][0], 1, 1);
    }
  time_row(o, csv, "D2-full", s->type, isa, 1, &whole.ours[0][0], (double)whole.bytes, whole.flop,
           -1, -1);
  time_row(o, csv, "D2-append", s->type, isa, 1, &bare.ours[0][0], (double)bare.bytes, bare.flop,
           -1, -1);
  fprintf(stderr, "append, rotation, conversion, one key: %.1f %% of a D2 call\n",
          100 * median(&bare.ours[0][0]) / median(&whole.ours[0][0]));
  bench_free(&whole), bench_free(&bare);
}

/* ==== what a memory and feedback rows add ==== */

enum { REMEMBERED = 2048, ROWS = 64, LAYERS = 4 };

typedef struct remembering {
  const char *name, *what;
  int window, block, memory, rows;
  longctx *lc;
  size_t bytes;
  sample token;
} remembering;

static void remember(remembering *m, const shape *s)
{
  longctx_desc d = longctx_desc_make(LAYERS, s->heads, s->kv_heads, s->head_dim, m->window);
  static const float open[64]; /* logits of 0: half memory, half window */
  int l;
  d.type_k = d.type_v = s->type;
  d.block = m->block;
  d.memory = m->memory;
  d.max_batch = ROWS;
  d.feedback_len = m->rows;
  m->bytes = longctx_size(&d);
  m->lc = longctx_init(memory(&m->bytes), m->bytes, &d);
  if (!m->lc) exit(1);
  for (l = 0; l < LAYERS && m->memory; ++l)
    if (longctx_set_gate(m->lc, l, open)) exit(1);
}

static void remembered_tokens(remembering *m, const bench *b, int n)
{
  int l;
  for (l = 0; l < LAYERS && longctx_feedback_due(m->lc); ++l)
    if ((longctx_position(m->lc) && longctx_feedback_attend(m->lc, l, b->out)) ||
        longctx_feedback_set(m->lc, l, b->q, b->k, b->v))
      exit(1);
  for (l = 0; l < LAYERS; ++l)
    if (longctx_attend(m->lc, l, n, b->q, b->k, b->v, b->out)) exit(1);
  if (longctx_commit(m->lc, n)) exit(1);
}

/* tokens of each in turn, once the window is full */
static void memories(const options *o, FILE *csv)
{
  static remembering all[] = {
    {"M-plain", "a window of 2048", 2048, 128, 0, 0, NULL, 0, {{0}, 0}},
    {"M-linear", "memory, linear rule", 2048, 128, LONGCTX_MEMORY_LINEAR, 0, NULL, 0, {{0}, 0}},
    {"M-delta", "memory, delta rule", 2048, 128, LONGCTX_MEMORY_DELTA, 0, NULL, 0, {{0}, 0}},
    {"F-plain", "a window of four blocks of 1024", 4096, 1024, 0, 0, NULL, 0, {{0}, 0}},
    {"F-feedback", "64 feedback rows", 4096, 1024, 0, ROWS, NULL, 0, {{0}, 0}},
  };
  static bench b;
  shape like = shapes[0]; /* D1: heads and type */
  double plain = 0, mean, sum;
  int i, t, n = sizeof all / sizeof *all;
  like.n = ROWS, like.keys = 1024;
  bench_make(&b, &like, o);
  use_threads(1);
  for (i = 0; i < n; ++i) {
    remember(&all[i], &like);
    for (t = 0; t < 4096; t += ROWS) remembered_tokens(&all[i], &b, ROWS);
  }
  for (t = 0; t < REMEMBERED; ++t)
    for (i = 0; i < n; ++i) {
      start(1);
      remembered_tokens(&all[i], &b, 1);
      stop(&all[i].token, 1, 1);
    }
  for (i = 0; i < n; ++i) {
    sample *x = &all[i].token;
    double number[7] = {0, 0, 0, -1, -1, -1, -1};
    for (sum = 0, t = 0; t < x->n; ++t) sum += x->x[t];
    number[0] = mean = sum / x->n;
    number[1] = quantile_of(x, 0);
    number[2] = quantile_of(x, 1);
    row(o, csv, all[i].name, like.type, longctx_isa_name(longctx_isa(all[i].lc)), 1, number);
    if (all[i].memory == 0 && all[i].rows == 0) plain = mean;
    fprintf(stderr, "%s: a token %.1f us, median %.1f, p99.9 %.1f: %.3f times that without\n",
            all[i].what, mean, quantile_of(x, 0.5), quantile_of(x, 0.999), mean / plain);
    free(all[i].lc);
  }
  bench_free(&b);
}

/* ==== a million tokens ==== */

enum { STRETCH = 20, STRETCHES = 100, MILLION = 1000000 };

static void one_token(bench *b, int i)
{
  const shape *s = b->s;
  int row = i % 64;
  if (longctx_attend(b->lc, 0, 1, b->q + row * s->heads * s->head_dim,
                     b->k + row * s->kv_heads * s->head_dim,
                     b->v + row * s->kv_heads * s->head_dim, b->out) ||
      longctx_commit(b->lc, 1))
    exit(1);
}

static void stretch(bench *b, sample *x)
{
  int i;
  start(1);
  for (i = 0; i < STRETCH; ++i) one_token(b, i);
  stop(x, 1, STRETCH);
}

static double rss_mb(void)
{
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return (double)pages * (double)sysconf(_SC_PAGESIZE) * 1e-6;
}

static void stream(const options *o, FILE *csv)
{
  static bench old, fresh;
  static sample first, last, beside;
  const shape *s = shapes; /* D1, float16 */
  const char *isa;
  double rss;
  int i;
  use_threads(1);
  bench_make(&old, s, o);
  bench_make(&fresh, s, o);
  isa = longctx_isa_name(longctx_isa(old.lc));
  for (i = 0; i < STRETCHES; ++i) stretch(&old, &first);
  rss = rss_mb();
  while (longctx_position(old.lc) < MILLION - STRETCH * STRETCHES)
    one_token(&old, (int)longctx_position(old.lc));
  for (i = 0; i < STRETCHES; ++i) stretch(&old, &last), stretch(&fresh, &beside);
  time_row(o, csv, "S1-first", s->type, isa, 1, &first, (double)old.bytes, old.flop, -1, -1);
  time_row(o, csv, "S1-last", s->type, isa, 1, &last, (double)old.bytes, old.flop, -1, -1);
  time_row(o, csv, "S1-fresh", s->type, isa, 1, &beside, (double)old.bytes, old.flop, -1, -1);
  fprintf(stderr, "S1: last 2,000 of %lld tokens over the first: %.3f; over those of a fresh "
          "context in turn with them: %.3f; RSS %.1f MB after the first, %.1f MB at the end\n",
          (long long)longctx_position(old.lc), median(&last) / median(&first),
          median(&last) / median(&beside), rss, rss_mb());
  bench_free(&old), bench_free(&fresh);
}

int main(int argc, char **argv)
{
  options o = {"md", NULL, NULL, 0, 2, 0};
  FILE *csv = NULL;
  static bench b;
  static peaks all;
  int i, r, most;
  const option known[] = {
    {"-o", &o.format, NULL, 0, NULL}, {"-f", &o.file, NULL, 0, NULL},
    {"-r", NULL, &o.rounds, 1, NULL}, {"-s", &o.only, NULL, 0, NULL},
    {"-t", NULL, &o.most_threads, 1, NULL}, {"-l", NULL, NULL, 0, &o.stream},
  };
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  if (strcmp(o.format, "md") && strcmp(o.format, "csv") && strcmp(o.format, "json"))
    die("-o", "md, csv or json");
  if (o.most_threads > MOST_THREADS) die("-t", "at most 64 threads");
  for (i = 0; o.only && i < SHAPES && strcmp(o.only, shapes[i].name); ++i) {}
  if (i == SHAPES && strcmp(o.only, "S1") && strcmp(o.only, "M")) die("no such shape", o.only);
#if defined(__x86_64__)
  wide = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
  half = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  find_cores();
  most = openmp ? cores : 1;
  if (o.most_threads > most) {
    fprintf(stderr, "skipped: more threads than %d (%s)\n", most,
            openmp ? "as many cores are allowed" : "no OpenMP");
    o.most_threads = most;
  }
  stay_on(0);
  if (o.only && !strcmp(o.only, "S1")) o.stream = 1;
  if (o.file && !(csv = fopen(o.file, "w"))) die(o.file, strerror(errno));
  print_head(stdout, o.format);
  if (csv) print_head(csv, "csv");
  if (o.stream) stream(&o, csv); /* first: its RSS would hold what others freed */
  for (i = 0; i < SHAPES; ++i) {
    const shape *s = &shapes[i];
    int rounds = o.rounds ? (int)o.rounds : s->n > 1 ? 5 : s->cold ? 15 : 201;
    if (o.only && strcmp(o.only, s->name)) continue;
    bench_make(&b, s, &o);
    for (r = 0; r < rounds; ++r) one_round(&b);
    report(&b, &o, csv);
    if (b.peaks.fma.n) note(&all.fma, median(&b.peaks.fma));
    if (b.peaks.fma_half.n) note(&all.fma_half, median(&b.peaks.fma_half));
    if (b.peaks.dot.n) note(&all.dot, median(&b.peaks.dot));
    bench_free(&b);
    if (s->cold && s->type == LONGCTX_F16 && !strcmp(s->name, "D2")) append_share(s, &o, csv);
  }
  if (!o.only || !strcmp(o.only, "M")) memories(&o, csv);
  report_peak(&o, csv, "fma", LONGCTX_F32, wide ? "avx512" : "avx2", &all.fma);
  report_peak(&o, csv, "fma", LONGCTX_F32, "avx2", &all.fma_half);
  report_peak(&o, csv, "dots", LONGCTX_Q8, "avx512", &all.dot);
  if (csv) fclose(csv);
  return 0;
}
