/* tests/gguf_dump.c - what the examples' engine makes of a model and a text, for gguf_logits.py.

   gguf_dump MODEL TEXT TOKENS CHUNK OUT
   writes OUT.ids (int32, the whole text) and OUT.logits (float32, of the first TOKENS tokens), and
   prints one line: prefill and decode in tokens a second of wall clock and of CPU time. */
#define _XOPEN_SOURCE 700
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#include "engine.h"
#include "tokenizer.h"
#include <time.h>

static void die(const char *what, const char *why)
{
  fprintf(stderr, "gguf_dump: %s: %s\n", what, why);
  exit(1);
}

static void dump(const char *name, const char *end, const void *data, size_t bytes)
{
  char path[4096];
  snprintf(path, sizeof path, "%s.%s", name, end);
  FILE *out = fopen(path, "wb");
  if (!out || fwrite(data, 1, bytes, out) != bytes || fclose(out)) die(path, "cannot be written");
}

static double seconds(clockid_t id)
{
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static longctx *make_context(const model *m, int window, int batch)
{
  longctx_desc desc = engine_desc(m, window);
  desc.max_batch = batch;
  size_t bytes = longctx_size(&desc);
  void *memory = bytes ? malloc(bytes) : NULL;
  longctx *context = memory ? longctx_init(memory, bytes, &desc) : NULL;
  if (!context) die("context", memory ? longctx_check(&desc) : "no memory");
  return context;
}

/* reads n tokens by `chunk` and says how many a second, by both clocks */
static void measure(engine *e, longctx *context, const int *tokens, int n, int chunk, int all,
                    float *logits, const char *what)
{
  double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < n; i += chunk) {
    int now = n - i < chunk ? n - i : chunk;
    float *to = logits + (all ? (size_t)i * (size_t)e->m->vocab_size : 0);
    int code = engine_forward(e, context, tokens + i, now, to, all ? now : 1);
    if (!code) code = longctx_commit(context, now);
    if (code) die("forward", longctx_error(code));
  }
  wall = seconds(CLOCK_MONOTONIC) - wall;
  cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("%s %.1f tokens/s (%.1f per CPU second)\n", what, n / wall, n / cpu);
}

int main(int argc, char **argv)
{
  model m;
  tokenizer t;
  engine e;
  engine_error error;
  size_t n_ids = 0;
  if (argc != 6) die("usage", "gguf_dump MODEL TEXT TOKENS CHUNK OUT");
  int n = atoi(argv[3]), chunk = atoi(argv[4]);
  if (model_load(&m, argv[1], &error)) die(argv[1], error.text);
  if (tokenizer_load(&t, argv[1], m.vocab_size, &error)) die(argv[1], error.text);
  int *ids = tokenizer_encode_file(&t, argv[2], &n_ids, &error);
  if (!ids) die(argv[2], error.text);
  if (n < 1 || (size_t)n > n_ids || chunk < 1) die("TOKENS, CHUNK", "out of range");
  float *logits = malloc((size_t)n * (size_t)m.vocab_size * sizeof *logits);
  if (!logits || engine_init(&e, &m, chunk, &error)) die("memory", logits ? error.text : "none");
  longctx *context = make_context(&m, n, chunk);
  measure(&e, context, ids, n, chunk, 1, logits, "prefill with all logits");
  dump(argv[5], "ids", ids, n_ids * sizeof *ids);
  dump(argv[5], "logits", logits, (size_t)n * (size_t)m.vocab_size * sizeof *logits);
  measure(&e, context, ids, n, chunk, 0, logits, "prefill with the last logits");
  measure(&e, context, ids, n < 100 ? n : 100, 1, 0, logits, "decode");
  return 0;
}
