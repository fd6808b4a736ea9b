/* streameval.c - what was said twenty lines ago, asked again and again while the text grows.

   run  build/bench/streameval -m MODEL [options]      (from the repository's root)

   -m FILE     the model
   -t FILE     its tokenizer                           (the model's file)
   -a ARM,ARM  only these of dense, window, sinks      (all)
   -n TOKENS   how far the text grows                  (16384)
   -d TOKENS   where the dense arm's memory ends       (12288)
   -r STREAMS  texts, each of its own seed             (2)
   -s SINKS    first tokens that stay for ever         (4)
   -w KEYS     budget, sinks in it                     (1024)
   -b LINES    how far back a question goes            (20)
   -o FILE     the result as CSV                       (bench/out/streameval.csv)

   After StreamEval of StreamingLLM, whose text was not published. A line says who came ("Line 17:
   Clara Stone came in."); every tenth is followed by a question about the one -b lines back ("Who
   came in? It was Clara"). Right is when of all 32 family names that person's is the likeliest to
   follow; a guess is right in 3 of 100. The right one is then read in any case, and the text goes
   on. First names come back after 40 lines. (StreamEval's five-digit numbers are beyond a model of
   135M parameters even while it sees all of a short text.) */
#define _GNU_SOURCE 1
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#define BENCH "streameval"
#include "engine.h"
#include "tokenizer.h"
#include "words.h"
#include "bench.h"

/* ==== options ==== */

typedef struct options {
  const char *model, *tokenizer, *arms, *csv;
  long tokens, dense, streams, sinks, keys, back;
} options;

static options options_of(int argc, char **argv)
{
  options o = { NULL, NULL, NULL, "bench/out/streameval.csv", 16384, 12288, 2, 4,
                1024, 20 };
  const option known[] = {
    { "-m", &o.model, NULL, 0, NULL },      { "-t", &o.tokenizer, NULL, 0, NULL },
    { "-a", &o.arms, NULL, 0, NULL },       { "-o", &o.csv, NULL, 0, NULL },
    { "-n", NULL, &o.tokens, 1, NULL },     { "-d", NULL, &o.dense, 1, NULL },
    { "-r", NULL, &o.streams, 1, NULL },    { "-s", NULL, &o.sinks, 0, NULL },
    { "-w", NULL, &o.keys, 1, NULL },       { "-b", NULL, &o.back, 1, NULL },
  };
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  if (!o.model) die("-m names the model", "");
  if (!o.tokenizer) o.tokenizer = o.model;
  if (o.sinks >= o.keys) die("-s", "no room for a window beside so many sinks");
  return o;
}

/* ==== the text ==== */

static const char *const first_names[] = {
  "Anna", "Boris", "Clara", "David", "Elena", "Frank", "Grace", "Henry", "Irene", "Jacob",
  "Karen", "Louis", "Maria", "Nikolai", "Olga", "Peter", "Rachel", "Samuel", "Tanya", "Victor",
  "William", "Yvonne", "Zachary", "Arthur", "Bella", "Charles", "Diana", "Edward", "Fiona",
  "George", "Helen", "Isaac", "Julia", "Kevin", "Laura", "Martin", "Nora", "Oliver", "Paula",
  "Robert"
};
static const char *const family_names[] = {
  " Smith", " Brown", " Walker", " Hunter", " King", " Stone", " Wood", " Hill", " Fox", " Bell",
  " Cook", " Baker", " Carter", " Cooper", " Fisher", " Gardner", " Mason", " Miller", " Parker",
  " Turner", " Taylor", " Ward", " Wright", " Young", " White", " Green", " Black", " Gray",
  " Long", " Rivers", " Brooks", " Lake"
};
enum { N_FIRST = sizeof first_names / sizeof *first_names,
       N_FAMILY = sizeof family_names / sizeof *family_names,
       EVERY = 10, PASS = 64, N_BINS = 8 };

typedef struct person { int first, family; } person;

typedef struct text {
  uint64_t seed;
  int order[N_FIRST];            /* again and again: a name comes back after N_FIRST lines */
  long line;
  person said[N_FIRST];          /* of line i, at i % N_FIRST */
} text;

static int draw(text *t, int n)
{
  t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;
  return (int)((t->seed >> 33) % (uint64_t)n);
}

static person next_person(text *t)
{
  int at = (int)(t->line % N_FIRST);
  if (t->line == 0)
    for (int i = 0; i < N_FIRST; i++) t->order[i] = i;
  for (int i = N_FIRST - 1; t->line == 0 && i > 0; i--) {
    int other = draw(t, i + 1), moved = t->order[i];
    t->order[i] = t->order[other];
    t->order[other] = moved;
  }
  person p = { t->order[at], draw(t, N_FAMILY) };
  t->said[t->line++ % N_FIRST] = p;
  return p;
}

/* ==== streams ==== */

typedef struct bench {
  options o;
  model m;
  tokenizer t;
  engine e;
  int family[N_FAMILY];          /* the first token of each */
  float *logits;                 /* [vocab_size] */
} bench;

static void bench_load(bench *b)
{
  engine_error error;
  size_t n;
  if (model_load(&b->m, b->o.model, &error)) die(b->o.model, error.text);
  if (tokenizer_load(&b->t, b->o.tokenizer, b->m.vocab_size, &error))
    die(b->o.tokenizer, error.text);
  if (engine_init(&b->e, &b->m, PASS, &error)) die("the engine", error.text);
  b->logits = malloc((size_t)b->m.vocab_size * sizeof(float));
  if (!b->logits) die("no memory", "");
  b->t.adds_bos = 0;             /* every line is encoded by itself */
  for (int i = 0; i < N_FAMILY; i++) {
    int *tokens = tokenizer_encode(&b->t, family_names[i], strlen(family_names[i]), &n, &error);
    if (!tokens || n == 0) die(family_names[i], "is no token");
    b->family[i] = tokens[0];
    for (int k = 0; k < i; k++)
      if (b->family[k] == tokens[0]) die(family_names[i], "begins as another name does");
    free(tokens);
  }
}

static void say(bench *b, longctx *c, const char *what, float *logits)
{
  engine_error error;
  size_t n;
  int *tokens = tokenizer_encode(&b->t, what, strlen(what), &n, &error);
  if (!tokens) die(what, error.text);
  must(engine_read(&b->e, c, tokens, (int)n, logits));
  free(tokens);
}

/* 1 when the right family name is the likeliest; it is read then */
static int ask(bench *b, longctx *c, person p)
{
  char line[128];
  int best = 0;
  snprintf(line, sizeof line, "Who came in? It was %s", first_names[p.first]);
  say(b, c, line, b->logits);
  for (int i = 1; i < N_FAMILY; i++)
    if (b->logits[b->family[i]] > b->logits[b->family[best]]) best = i;
  snprintf(line, sizeof line, "%s.\n", family_names[p.family]);
  say(b, c, line, NULL);
  return best == p.family;
}

typedef struct count { long asked, right; } count;

/* One text of so many tokens; answers are counted in the N_BINS parts of -n that they fall into. */
static void stream(bench *b, longctx *c, long tokens, uint64_t seed, count *bins)
{
  static text t;
  char lines[EVERY * 64];
  memset(&t, 0, sizeof t);
  t.seed = seed;
  while (longctx_position(c) < tokens) {
    size_t n = 0;
    for (int i = 0; i < EVERY; i++) {
      person p = next_person(&t);
      n += (size_t)snprintf(lines + n, sizeof lines - n, "Line %ld: %s%s came in.\n", t.line,
                            first_names[p.first], family_names[p.family]);
    }
    say(b, c, lines, NULL);
    long bin = longctx_position(c) * N_BINS / b->o.tokens;
    if (t.line <= b->o.back || bin >= N_BINS) continue;
    bins[bin].asked++;
    bins[bin].right += ask(b, c, t.said[(t.line - 1 - b->o.back) % N_FIRST]);
  }
}

/* ==== the result ==== */

static void report(const bench *b, const char *arm, const count *bins, FILE *csv)
{
  count all = { 0, 0 };
  printf("| %s |", arm);
  for (int i = 0; i < N_BINS; i++) {
    double low, high;
    all.asked += bins[i].asked;
    all.right += bins[i].right;
    if (bins[i].asked == 0) {
      printf(" |");
      continue;
    }
    interval(bins[i].right, bins[i].asked, &low, &high);
    double share = (double)bins[i].right / (double)bins[i].asked;
    printf(" %.0f |", 100 * share);
    fprintf(csv, "%s,%ld,%ld,%ld,%.4g,%.4g,%.4g,%s,%d,%ld,%ld\n", arm,
            (i + 1) * b->o.tokens / N_BINS, bins[i].asked, bins[i].right, share, low, high,
            b->o.model, b->m.trained_len, b->o.keys, b->o.back);
  }
  printf(" %ld of %ld |\n", all.right, all.asked);
  fflush(stdout);
  fflush(csv);
}

static void run_arm(bench *b, const char *arm, int keys, int sinks, long tokens, FILE *csv)
{
  count bins[N_BINS] = { { 0, 0 } };
  longctx_desc d = engine_desc(&b->m, keys - sinks);
  if (!listed(b->o.arms, arm)) return;
  d.sinks = sinks;
  d.max_batch = PASS;
  longctx *c = make_context(&d);
  for (long i = 0; i < b->o.streams; i++) {
    fprintf(stderr, "%s, stream %ld of %ld\n", arm, i + 1, b->o.streams);
    longctx_reset(c);
    stream(b, c, tokens, (uint64_t)i + 1, bins);
  }
  free(c);
  report(b, arm, bins, csv);
}

int main(int argc, char **argv)
{
  static bench b;
  b.o = options_of(argc, argv);
  if (b.o.back >= N_FIRST) die("-b", "first names come back after 40 lines");
  if (!listed(b.o.arms, "dense") && !listed(b.o.arms, "window") && !listed(b.o.arms, "sinks"))
    die("no such arm", b.o.arms);
  bench_load(&b);
  FILE *csv = fopen(b.o.csv, "w");
  if (!csv) die(b.o.csv, strerror(errno));
  fprintf(csv, "arm,input_length,asked,right,share,low,high,model,trained_len,keys,back\n");
  printf("Who came %ld lines ago, %% right (a guess: 3 %%), by length of the text:\n\n| arm |",
         b.o.back);
  for (int i = 0; i < N_BINS; i++) printf(" to %ld |", (i + 1) * b.o.tokens / N_BINS);
  printf(" all |\n|---|");
  for (int i = 0; i <= N_BINS; i++) printf("---:|");
  printf("\n");
  long dense = b.o.dense < b.o.tokens ? b.o.dense : b.o.tokens;
  run_arm(&b, "window", (int)b.o.keys, 0, b.o.tokens, csv);
  run_arm(&b, "sinks", (int)b.o.keys, (int)b.o.sinks, b.o.tokens, csv);
  run_arm(&b, "dense", (int)dense + 512, 0, dense, csv); /* the last lines go a little further */
  if (fclose(csv)) die(b.o.csv, strerror(errno));
  tokenizer_free(&b.t);
  model_free(&b.m);
  engine_free(&b.e);
  free(b.logits);
  return fflush(stdout) ? 1 : 0;
}
