/* ggml.c - attention by this header and by ggml's CPU flash attention, in turn, in one process.

   make bench-ggml GGML=DIR    a clone of ggml, built by:
                               cmake -B build -DBUILD_SHARED_LIBS=OFF && cmake --build build
   run  build/bench/ggml [-o md|csv] [-f CSV] [-r ROUNDS] [-s SHAPE]

   One thread, both with the same queries, keys and values; their outputs are compared first, and
   the greatest difference is a column. ggml gets what suits it: a graph of one node planned before,
   each KV head's keys in one piece, values token by token, a float16 mask only where one is needed
   (its prefill; made before). The header's time holds, besides, what ggml leaves to other nodes:
   the append of the new keys and values. Neither rotates. Cold shapes walk so many layers that each
   call finds its keys in no cache. A sample is one call, in CPU time; us is the median.

     ratio   ggml's time over ours
     differ  the greatest difference of an output between the two, over the greatest output. Both
             round keys and values to float16, or to int8 (ours: a scale a row; q8_0: one for 32);
             ggml's decode also adds up float16 values in float16, which is most of what is seen */
#define _GNU_SOURCE 1
#define LONGCTX_IMPLEMENTATION
#define BENCH "ggml"
#include "longctx.h"
#include "bench.h"
#include "inputs.h"

#include "ggml-cpu.h"
#include "ggml.h"

enum { COLD = 128 << 20, MOST_SAMPLES = 2000, SINKS = 4 };

typedef struct shape {
  const char *name, *what;
  int head_dim, heads, kv_heads, window, n, keys, cold, type;
} shape;

/* kernels.c's; sinks and window together hold every key, or the last `window` */
static const shape shapes[] = {
  {"D1", "decode, in cache", 128, 32, 8, 1024, 1, 1024, 0, LONGCTX_F16},
  {"D2", "decode, 4 heads a KV head", 128, 32, 8, 4096, 1, 4096, 1, LONGCTX_F16},
  {"D2", "decode, 4 heads a KV head", 128, 32, 8, 4096, 1, 4096, 1, LONGCTX_Q8},
  {"D3", "decode, every head its own", 128, 32, 32, 4096, 1, 4096, 1, LONGCTX_F16},
  {"D3", "decode, every head its own", 128, 32, 32, 4096, 1, 4096, 1, LONGCTX_Q8},
  {"D4", "decode, short rows", 64, 32, 8, 4096, 1, 4096, 1, LONGCTX_F16},
  {"D4", "decode, short rows", 64, 32, 8, 4096, 1, 4096, 1, LONGCTX_Q8},
  {"P1", "prefill 512, window 1024", 128, 32, 8, 1024, 512, 4096, 0, LONGCTX_F16},
  {"P2", "prefill 512, causal", 128, 32, 8, 4096, 512, 4096, 0, LONGCTX_F16},
};

typedef struct bench {
  const shape *s;
  int layers;
  longctx *lc;
  void *block;
  float *q, *k, *v, *out;      /* of the last n tokens; k and v of all                            */
  struct ggml_context *ctx;
  struct ggml_cgraph **graph;  /* a layer's                                                       */
  struct ggml_cplan *plan;
  struct ggml_tensor *last;    /* layer 0's output                                                */
  double ours[MOST_SAMPLES], theirs[MOST_SAMPLES];
  int n_ours, n_theirs;
} bench;

/* ==== ours ==== */

static void make_ours(bench *b)
{
  const shape *s = b->s;
  int causal = s->window < s->keys ? 0 : SINKS; /* a window of all keys: sinks are the first */
  size_t row = (size_t)(s->kv_heads * s->head_dim), bytes;
  longctx_desc d = longctx_desc_make(b->layers, s->heads, s->kv_heads, s->head_dim,
                                     s->window - causal);
  float *q = random_floats((size_t)(64 * s->heads * s->head_dim));
  d.sinks = causal;
  d.rope = LONGCTX_ROPE_NONE;
  d.max_batch = s->n > 64 ? s->n : 64;
  d.type_k = d.type_v = s->type;
  if (longctx_check(&d)) die("desc", longctx_check(&d));
  bytes = longctx_size(&d);
  b->block = memory(&bytes);
  b->lc = longctx_init(b->block, bytes, &d);
  for (int64_t at = 0; at < s->keys - s->n; ) {
    int n = (int)(s->keys - s->n - at < 64 ? s->keys - s->n - at : 64);
    for (int l = 0; l < b->layers; l++)
      must(longctx_attend(b->lc, l, n, q, b->k + (size_t)at * row, b->v + (size_t)at * row, b->out));
    must(longctx_commit(b->lc, n));
    at += n;
  }
  free(q);
}

/* the last n tokens, not committed: each call does the same */
static void run_ours(bench *b, int layer)
{
  size_t row = (size_t)(b->s->kv_heads * b->s->head_dim), at = (size_t)(b->s->keys - b->s->n);
  must(longctx_attend(b->lc, layer, b->s->n, b->q, b->k + at * row, b->v + at * row, b->out));
}

/* ==== theirs ==== */

/* x [tokens][n_kv_heads][head_dim] to a tensor [n_kv_heads][tokens][head_dim] of its type */
static void store_theirs(const shape *s, const float *x, struct ggml_tensor *t)
{
  size_t row = ggml_row_size(t->type, s->head_dim);
  for (int h = 0; h < s->kv_heads; h++)
    for (int i = 0; i < s->keys; i++)
      ggml_quantize_chunk(t->type, x + ((size_t)i * (size_t)s->kv_heads + (size_t)h) *
                                         (size_t)s->head_dim,
                          (char *)t->data + ((size_t)h * (size_t)s->keys + (size_t)i) * row, 0, 1,
                          s->head_dim, NULL);
}

static struct ggml_tensor *mask_of(const shape *s, struct ggml_context *ctx)
{
  struct ggml_tensor *t = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, s->keys, s->n);
  ggml_fp16_t *m = (ggml_fp16_t *)t->data, none = ggml_fp32_to_fp16(-INFINITY), zero = 0;
  for (int r = 0; r < s->n; r++)
    for (int i = 0, at = s->keys - s->n + r; i < s->keys; i++)
      *m++ = i <= at && i > at - s->window ? zero : none;
  return t;
}

static void make_theirs(bench *b)
{
  const shape *s = b->s;
  enum ggml_type type = s->type == LONGCTX_Q8 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
  size_t layer = 2 * ggml_row_size(type, s->head_dim) * (size_t)(s->kv_heads * s->keys);
  size_t rest = 16 * (size_t)s->n * (size_t)(s->heads * s->head_dim + s->keys);
  struct ggml_init_params params = {0};
  struct ggml_threadpool_params pool = ggml_threadpool_params_default(1);
  struct ggml_threadpool *threads = ggml_threadpool_new(&pool);
  struct ggml_tensor *q, *mask;
  params.mem_size = (layer + rest + (1 << 20)) * (size_t)b->layers + ((size_t)1 << 20);
  params.mem_buffer = memory(&params.mem_size);
  b->ctx = ggml_init(params);
  b->graph = (struct ggml_cgraph **)calloc((size_t)b->layers, sizeof *b->graph);
  b->plan = (struct ggml_cplan *)calloc((size_t)b->layers, sizeof *b->plan);
  if (!b->ctx || !threads || !b->graph || !b->plan) die("ggml", "no context");
  q = ggml_new_tensor_3d(b->ctx, GGML_TYPE_F32, s->head_dim, s->n, s->heads);
  for (int r = 0; r < s->n; r++)
    for (int h = 0; h < s->heads; h++)
      memcpy((float *)q->data + (h * s->n + r) * s->head_dim,
             b->q + (r * s->heads + h) * s->head_dim, sizeof(float) * (size_t)s->head_dim);
  mask = s->n > 1 ? mask_of(s, b->ctx) : NULL; /* decode: all keys are visible */
  for (int l = 0; l < b->layers; l++) {
    struct ggml_tensor *k, *v, *out;
    k = ggml_new_tensor_3d(b->ctx, type, s->head_dim, s->keys, s->kv_heads);
    v = ggml_new_tensor_3d(b->ctx, type, s->head_dim, s->keys, s->kv_heads);
    store_theirs(s, b->k, k);
    store_theirs(s, b->v, v);
    out = ggml_flash_attn_ext(b->ctx, q, k, v, mask, 1.0f / sqrtf((float)s->head_dim), 0, 0);
    b->graph[l] = ggml_new_graph_custom(b->ctx, 8, false);
    ggml_build_forward_expand(b->graph[l], out);
    b->plan[l] = ggml_graph_plan(b->graph[l], 1, threads);
    b->plan[l].work_data = (uint8_t *)malloc(b->plan[l].work_size + 1);
    if (!b->plan[l].work_data) die("no memory", "");
    if (l == 0) b->last = out;
  }
}

static void run_theirs(bench *b, int layer)
{
  if (ggml_graph_compute(b->graph[layer], &b->plan[layer]) != GGML_STATUS_SUCCESS)
    die("ggml", "a graph failed");
}

/* ==== both ==== */

/* both have out as [tokens][n_heads][head_dim] */
static double difference(bench *b)
{
  const float *y = (const float *)b->last->data;
  double most = 0, off = 0;
  run_ours(b, 0);
  run_theirs(b, 0);
  for (int i = 0; i < b->s->n * b->s->heads * b->s->head_dim; i++) {
    most = fmax(most, fabs(y[i]));
    off = fmax(off, fabs((double)y[i] - b->out[i]));
  }
  return off / most;
}

static void sample(bench *b, void (*run)(bench *, int), double *x, int *n)
{
  for (int l = 0; l < b->layers && *n < MOST_SAMPLES; l++) {
    double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
    run(b, l);
    x[(*n)++] = (seconds(CLOCK_THREAD_CPUTIME_ID) - begin) * 1e6;
  }
}

static void print(FILE *f, int csv, const shape *s, const char *who, double *x, int n, double ratio,
                  double differ)
{
  double us = quantile(x, n, 0.5), low = quantile(x, n, 0), high = quantile(x, n, 1);
  const char *type = s->type == LONGCTX_F16 ? "float16" : who[0] == 'g' ? "q8_0" : "int8";
  fprintf(f, csv ? "%s,%s,%s,%.1f,%.1f,%.1f," : "| %s | %s | %s | %.1f | %.1f | %.1f | ", s->name,
          type, who, us, low, high);
  if (ratio > 0) fprintf(f, csv ? "%.2f,%.1e\n" : "%.2f | %.1e |\n", ratio, differ);
  else fprintf(f, csv ? ",\n" : "- | - |\n");
  fflush(f);
}

static void one_shape(const shape *s, long rounds, int csv, FILE *file)
{
  static bench b;
  size_t keys = (size_t)s->keys * (size_t)(s->kv_heads * s->head_dim);
  size_t bytes = 2 * keys * (s->type == LONGCTX_F16 ? 2 : 1);
  double differ, ratio;
  memset(&b, 0, sizeof b);
  b.s = s;
  b.layers = s->cold ? (int)(COLD / bytes) + 1 : 1;
  b.q = random_floats((size_t)(s->n * s->heads * s->head_dim));
  b.out = random_floats((size_t)((s->n > 64 ? s->n : 64) * s->heads * s->head_dim));
  b.k = random_floats(keys);
  b.v = random_floats(keys);
  make_ours(&b);
  make_theirs(&b);
  differ = difference(&b);
  if (!(differ < 0.05)) die(s->name, "outputs do not agree");
  for (long r = 0; r < (s->n > 1 ? (rounds + 9) / 10 : s->cold ? rounds : 20 * rounds); r++) {
    sample(&b, run_ours, b.ours, &b.n_ours);
    sample(&b, run_theirs, b.theirs, &b.n_theirs);
  }
  ratio = quantile(b.theirs, b.n_theirs, 0.5) / quantile(b.ours, b.n_ours, 0.5);
  for (int f = 0; f < 2; f++) {
    FILE *to = f ? file : stdout;
    if (!to) continue;
    print(to, f || csv, s, longctx_isa_name(longctx_isa(b.lc)), b.ours, b.n_ours, ratio, differ);
    print(to, f || csv, s, "ggml", b.theirs, b.n_theirs, 0, 0);
  }
  free(b.block), free(b.q), free(b.out), free(b.k), free(b.v); /* ggml's is left to the end */
}

int main(int argc, char **argv)
{
  const char *format = "md", *path = NULL, *only = NULL;
  long rounds = 30;
  const option known[] = {
    {"-o", &format, NULL, 0, NULL}, {"-f", &path, NULL, 0, NULL}, {"-s", &only, NULL, 0, NULL},
    {"-r", NULL, &rounds, 1, NULL},
  };
  FILE *file = NULL;
  int csv;
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  csv = !strcmp(format, "csv");
  if (!csv && strcmp(format, "md")) die("-o takes md or csv, not", format);
  if (path && !(file = fopen(path, "w"))) die(path, strerror(errno));
  ggml_cpu_init();
  fprintf(stderr, "ggml %s, %s\n", ggml_version(), ggml_commit());
  printf(csv ? "shape,type,who,us,us_min,us_max,ratio,differ\n"
             : "| shape | type | who | us | us_min | us_max | ratio | differ |\n"
               "|---|---|---|---:|---:|---:|---:|---:|\n");
  if (file) fprintf(file, "shape,type,who,us,us_min,us_max,ratio,differ\n");
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    if (!only || !strcmp(only, shapes[i].name)) one_shape(&shapes[i], rounds, csv, file);
  if (file && fclose(file)) die(path, strerror(errno));
  return 0;
}
