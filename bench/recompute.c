/* recompute.c - sinks and a window against the alternative that StreamingLLM measures itself by:
   for each token, feed the last L tokens anew and predict one ("sliding window with
   re-computation"). It is as good as a window can be, and slow.

   run  build/bench/recompute -m MODEL -f TEXT [options]      (from the repository's root)

   -m FILE     the model
   -t FILE     its tokenizer                             (the model's file)
   -f FILE     the text
   -n TOKENS   how much of it is streamed                (8192)
   -k TOKENS   how many of those are re-computed         (48)
   -s SINKS    first tokens that stay for ever           (4)
   -l KEYS     L of the comparison, sinks in it          (1024)
   -c TOKENS   a pass of the re-computation              (64)
   -o FILE     the result as CSV                         (bench/out/recompute.csv)

   First the times of a token at L = 256, 1024, 4096 keys: a pass of one token when the window is
   full, the median of 33; and L tokens from an empty context, by passes of -c, all of the engine's
   speed in them and logits of the last token alone, the median of three (at 4096, one). Seconds
   that this thread had a core, so that neighbours do not count. Then perplexities over the same
   tokens, evenly spread over the second half of the text. */
#define _GNU_SOURCE 1
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#define BENCH "recompute"
#include "engine.h"
#include "tokenizer.h"
#include "bench.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* ==== options ==== */

typedef struct options {
  const char *model, *tokenizer, *text, *csv;
  long tokens, samples, sinks, keys, chunk;
} options;

static options options_of(int argc, char **argv)
{
  options o = { NULL, NULL, NULL, "bench/out/recompute.csv", 8192, 48, 4, 1024, 64 };
  const option known[] = {
    { "-m", &o.model, NULL, 0, NULL },      { "-t", &o.tokenizer, NULL, 0, NULL },
    { "-f", &o.text, NULL, 0, NULL },       { "-o", &o.csv, NULL, 0, NULL },
    { "-n", NULL, &o.tokens, 2, NULL },     { "-k", NULL, &o.samples, 1, NULL },
    { "-s", NULL, &o.sinks, 0, NULL },      { "-l", NULL, &o.keys, 1, NULL },
    { "-c", NULL, &o.chunk, 1, NULL },
  };
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  if (!o.model || !o.text) die("-m and -f name the model and the text", "");
  if (!o.tokenizer) o.tokenizer = o.model;
  if (o.sinks >= o.keys) die("-s", "no room for a window beside so many sinks");
  return o;
}

/* ==== a model and a text ==== */

typedef struct bench {
  options o;
  model m;
  engine e;
  int *text;
  size_t n_text;
  float *logits;     /* [vocab_size] */
} bench;

static void bench_load(bench *b)
{
  tokenizer t;
  engine_error error;
  if (model_load(&b->m, b->o.model, &error)) die(b->o.model, error.text);
  if (tokenizer_load(&t, b->o.tokenizer, b->m.vocab_size, &error)) die(b->o.tokenizer, error.text);
  b->text = tokenizer_encode_file(&t, b->o.text, &b->n_text, &error);
  if (!b->text) die(b->o.text, error.text);
  tokenizer_free(&t);
  if (engine_init(&b->e, &b->m, (int)b->o.chunk, &error)) die("the engine", error.text);
  b->logits = malloc((size_t)b->m.vocab_size * sizeof(float));
  if (!b->logits) die("no memory", "");
}

static longctx *context_new(const bench *b, int keys, int sinks)
{
  longctx_desc d = engine_desc(&b->m, keys - sinks);
  d.sinks = sinks;
  d.max_batch = (int)b->o.chunk;
  return make_context(&d);
}

static double now(void) { return seconds(CLOCK_THREAD_CPUTIME_ID); }

/* ==== times ==== */

/* seconds of a token when the window of so many keys is full */
static double time_stream(bench *b, int keys)
{
  enum { PASSES = 33 };
  double spent[PASSES];
  longctx *c = context_new(b, keys, (int)b->o.sinks);
  must(engine_read(&b->e, c, b->text, keys, NULL));
  for (int i = 0; i < PASSES; i++) {
    double begin = now();
    must(engine_read(&b->e, c, b->text + keys + i, 1, b->logits));
    spent[i] = now() - begin;
  }
  free(c);
  return quantile(spent, PASSES, 0.5);
}

/* seconds of so many tokens from an empty context, and the last one's logits */
static double time_recompute(bench *b, int keys)
{
  double spent[3];
  int passes = keys > 2048 ? 1 : 3;
  longctx *c = context_new(b, keys, 0);
  for (int i = 0; i < passes; i++) {
    longctx_reset(c);
    double begin = now();
    must(engine_read(&b->e, c, b->text, keys, b->logits));
    spent[i] = now() - begin;
  }
  free(c);
  return quantile(spent, passes, 0.5);
}

static void compare_times(bench *b, FILE *csv)
{
  static const int lengths[] = { 256, 1024, 4096 };
  printf("| keys L | ms a token, sinks + window | ms a token, L tokens anew | ratio |\n"
         "|---:|---:|---:|---:|\n");
  for (int i = 0; i < 3; i++) {
    if ((size_t)lengths[i] + 40 > b->n_text) continue;
    fprintf(stderr, "times at L = %d\n", lengths[i]);
    double stream = time_stream(b, lengths[i]), anew = time_recompute(b, lengths[i]);
    printf("| %d | %.1f | %.1f | %.1f |\n", lengths[i], 1e3 * stream, 1e3 * anew, anew / stream);
    fflush(stdout);
    fprintf(csv, "time,%d,1,%.4g,%.4g,%.4g\n", lengths[i], stream, anew, anew / stream);
  }
}

/* ==== perplexities over the same tokens ==== */

/* The i-th token to compare: its predecessor is the last one read. */
static long sample(const bench *b, long i)
{
  return b->o.tokens / 2 + (i + 1) * (b->o.tokens / 2) / b->o.samples;
}

static double nll_of(const bench *b, const float *logits, long at)
{
  return logits_nll(logits, b->m.vocab_size, b->text[at]);
}

/* nll [samples] of a stream that reads the text once */
static void stream_losses(bench *b, int sinks, double *nll)
{
  longctx *c = context_new(b, (int)b->o.keys, sinks);
  long at = 0;
  for (long i = 0; i < b->o.samples; i++) {
    long to = sample(b, i);
    must(engine_read(&b->e, c, b->text + at, (int)(to - at), b->logits));
    at = to;
    nll[i] = nll_of(b, b->logits, at);
  }
  free(c);
}

static void anew_losses(bench *b, double *nll)
{
  int keys = (int)b->o.keys;
  longctx *c = context_new(b, keys, 0);
  for (long i = 0; i < b->o.samples; i++) {
    long to = sample(b, i), from = to > keys ? to - keys : 0;
    longctx_reset(c);
    must(engine_read(&b->e, c, b->text + from, (int)(to - from), b->logits));
    nll[i] = nll_of(b, b->logits, to);
    fprintf(stderr, "\r%ld of %ld tokens re-computed ", i + 1, b->o.samples);
  }
  fprintf(stderr, "\n");
  free(c);
}

/* mean of nll, and of its difference to re-computation's with that mean's standard error */
static void compare_one(const bench *b, const char *arm, const double *nll, const double *anew,
                        FILE *csv)
{
  double n = (double)b->o.samples, sum = 0, more = 0, squares = 0;
  for (long i = 0; i < b->o.samples; i++) {
    double d = nll[i] - anew[i];
    sum += nll[i];
    more += d;
    squares += d * d;
  }
  double error = sqrt(fmax(0, squares / n - more / n * (more / n)) / n);
  printf("| %s | %.2f | %+.3f +- %.3f |\n", arm, exp(sum / n), more / n, error);
  fprintf(csv, "%s,%ld,%ld,%.6g,%.6g,%.3g\n", arm, b->o.keys, b->o.samples, exp(sum / n), more / n,
          error);
}

static void compare_losses(bench *b, FILE *csv)
{
  size_t n = (size_t)b->o.samples;
  double *anew = malloc(3 * n * sizeof *anew), *sinks, *window;
  if (!anew) die("no memory", "");
  sinks = anew + n;
  window = sinks + n;
  anew_losses(b, anew);
  fprintf(stderr, "the same tokens, streamed\n");
  stream_losses(b, (int)b->o.sinks, sinks);
  stream_losses(b, 0, window);
  printf("\nPerplexity over %ld tokens of the second half of %ld, %ld keys each; nll beside "
         "re-computation's, +- its\nmean's standard error:\n\n| arm | ppl | nll - re-computation's "
         "|\n|---|---:|---:|\n", b->o.samples, b->o.tokens, b->o.keys);
  compare_one(b, "recompute", anew, anew, csv);
  compare_one(b, "sinks", sinks, anew, csv);
  compare_one(b, "window", window, anew, csv);
  free(anew);
}

int main(int argc, char **argv)
{
  static bench b;
  b.o = options_of(argc, argv);
#ifdef _OPENMP
  omp_set_num_threads(1); /* of which the time is */
#endif
  bench_load(&b);
  if ((size_t)b.o.tokens + 1 > b.n_text) b.o.tokens = (long)b.n_text - 1;
  if (b.o.samples > b.o.tokens / 2) die("-k", "more than half the text's tokens");
  FILE *csv = fopen(b.o.csv, "w");
  if (!csv) die(b.o.csv, strerror(errno));
  fprintf(csv, "what,keys,samples,stream_s_or_ppl,recompute_s_or_nll_more,ratio_or_error\n");
  printf("Re-computation: %s, %ld tokens of %s, %ld sinks\n\n", b.o.model, b.o.tokens, b.o.text,
         b.o.sinks);
  compare_times(&b, csv);
  compare_losses(&b, csv);
  if (fclose(csv)) die(b.o.csv, strerror(errno));
  model_free(&b.m);
  engine_free(&b.e);
  free(b.text);
  free(b.logits);
  return fflush(stdout) ? 1 : 0;
}
