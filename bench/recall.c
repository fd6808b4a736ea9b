/* recall.c - what each way to remember still knows, by distance.

   run  build/bench/recall [options]          (from the repository's root; make recall)

   -a ARM,ARM   only these arms                      (all whose model is there)
   -d TOKENS    the longest text                     (1000000; FULL=1: 10000000)
   -n TRIALS    streams to 131,072 tokens per arm    (8; FULL=1: 50)
   -l TRIALS    streams to the longest text          (1; FULL=1: 4)
                half as many for windows alone
   -j JOBS      streams at a time                    (the processors)
   -o FILE      the result as CSV                    (bench/out/recall.csv)

   A stream is filler, one sentence at a time. Its distances are counted from anywhere in a block, so
   that what is told, and what is asked, lies anywhere in blocks and across their ends. Arms in blocks
   of one size read the same streams. Two tasks:

     passkey  "The pass key is 4 1 5 9 2." at the start, in the middle or before the last tenth of
              a text; at its end the key is asked for. A trial is one key, right when all five
              digits are; passkey_digits counts them singly.
     facts    sentences like "Perric put the tin lamp in Oakmoor.", one where a key would be told
              and asked for where the key would be; or many spread over 8,192 tokens, position "any",
              and each asked for at its end. A trial is one fact, right when both halves of the
              place's name are. Models of their own answer them, facts_linear and facts_delta.

   Answers are the model's own: the likeliest token is read back. The state is forked to ask, so that
   asking leaves no trace; one stream serves all distances. Accuracy stands with its 95 % interval
   (Wilson), which takes facts of one stream as independent, so that it is too narrow for many; digits
   of a key have none. The arms
     window           the model of memory_linear (facts_linear), its window alone
     sinks            the same with 4 sinks
     memory_linear    Infini-attention, linear rule: trained so
     memory_delta     the same by the delta rule
     block_window_mN  the model of feedback, N blocks and the present one, without its rows
     feedback_mN      TransformerFAM: trained with N = 0 */
#define _XOPEN_SOURCE 700
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#define BENCH "recall"
#include "engine.h"
#include "recall_text.h"
#include "words.h"
#include "bench.h"

#include <pthread.h>
#include <unistd.h>

/* ==== arms ==== */

typedef struct arm {
  const char *name, *model;
  int sinks, plain, feedback, segments; /* plain: without what the model was trained to keep */
  int facts;                            /* asked for facts, the others for keys */
} arm;

static const arm arms[] = {
  { "window", "memory_linear", 0, 1, 0, 0, 0 },
  { "sinks", "memory_linear", 4, 1, 0, 0, 0 },
  { "memory_linear", "memory_linear", 0, 0, 0, 0, 0 },
  { "memory_delta", "memory_delta", 0, 0, 0, 0, 0 },
  { "block_window_m0", "feedback", 0, 1, 0, 0, 0 },
  { "block_window_m1", "feedback", 0, 1, 0, 1, 0 },
  { "block_window_m3", "feedback", 0, 1, 0, 3, 0 },
  { "feedback_m0", "feedback", 0, 0, 1, 0, 0 },
  { "feedback_m1", "feedback", 0, 0, 1, 1, 0 },
  { "window", "facts_linear", 0, 1, 0, 0, 1 },
  { "sinks", "facts_linear", 4, 1, 0, 0, 1 },
  { "memory_linear", "facts_linear", 0, 0, 0, 0, 1 },
  { "memory_delta", "facts_delta", 0, 0, 0, 0, 1 },
};
enum { N_ARMS = sizeof arms / sizeof *arms };

static int trained_in_blocks(const arm *a)
{
  return strcmp(a->model, "feedback") == 0;
}

static longctx_desc arm_desc(const arm *a, const model *m)
{
  longctx_desc d = engine_trained_desc(m);
  int from_blocks = trained_in_blocks(a);
  if (from_blocks) d.window = (a->segments + 1) * m->block;
  if (a->plain) {
    d.memory = LONGCTX_MEMORY_NONE;
    d.feedback_len = 0;
    if (!from_blocks) d.block = 1;
  }
  d.sinks = a->sinks;
  d.window -= a->sinks;
  d.max_batch = 64;
  return d;
}

/* ==== what is counted ==== */

static const long distances[] = { 512, 2048, 8192, 32768, 131072, 524288, 1000000, 5000000, 10000000 };
static const char *const positions[] = { "start", "middle", "end" };
static const int held[] = { 1, 4, 16, 64 };
enum { N_DISTANCES = 9, N_POSITIONS = 3, N_HELD = 4, N_DIGITS = 5, FACTS_AT = 8192,
       SHORT = 131072 };

typedef struct count { long trials, correct; } count;

typedef struct score {
  count key[N_POSITIONS][N_DISTANCES], digit[N_POSITIONS][N_DISTANCES];
  count fact[N_POSITIONS][N_DISTANCES], many[N_HELD];
} score;

static void add(count *c, int right)
{
  c->trials++;
  c->correct += right;
}

/* ==== a stream ==== */

typedef struct job { int arm, kind, held, trial; long longest; } job;
enum { FIRST, LATER, FACTS }; /* kinds of jobs */

typedef struct stream {
  const model *m;
  const grammar *g;
  engine e;
  longctx *now, *fork, *ask; /* three contexts of one desc */
  size_t bytes;
  uint64_t seed;
  int facts;            /* asked for them, not for keys */
  int offset;           /* of every position below, so that blocks end anywhere */
  int text[4096];
  float *logits;        /* [max_batch][vocab_size] */
} stream;

static void stream_read(stream *s, longctx *context, int n, float *logits)
{
  must(engine_read(&s->e, context, s->text, n, logits));
}

static void take_copy(stream *s, longctx *to, const longctx *from)
{
  must(longctx_copy(to, s->bytes, from));
}

/* filler up to offset + `to` or a sentence beyond */
static void stream_fill(stream *s, longctx *context, int64_t to)
{
  to += s->offset;
  while (longctx_position(context) < to) {
    int64_t left = to - longctx_position(context);
    int n = 0;
    while (n < left && n < (int)(sizeof s->text / sizeof *s->text) - MOST_FORM)
      n += say_filler(s->g, &s->seed, s->text + n);
    stream_read(s, context, n, NULL);
  }
}

static void stream_begin(stream *s)
{
  longctx_reset(s->now);
  must(engine_start(&s->e, s->now));
  s->text[0] = TOKEN_BOS;
  stream_read(s, s->now, 1, NULL);
  s->offset = random_below(&s->seed, s->m->block);
  stream_fill(s, s->now, 0);
}

/* asks a copy of the context, and takes the n tokens of its answer */
static void stream_ask(stream *s, const longctx *context, const form *f, const int *chosen,
                       int *answer, int n)
{
  take_copy(s, s->ask, context);
  int asked = say(s->g, f, chosen, &s->seed, s->text);
  stream_read(s, s->ask, asked, s->logits);
  for (int i = 0; i < n; i++) {
    answer[i] = logits_argmax(s->logits, s->m->vocab_size);
    s->text[0] = answer[i];
    if (i + 1 < n) stream_read(s, s->ask, 1, s->logits);
  }
}

/* what a text tells: a key, or a thing's place */
typedef struct told { int key[N_DIGITS], thing, place; } told;

static void stream_tell_fact(stream *s, longctx *context, int thing, int place)
{
  int chosen[3] = { random_below(&s->seed, s->g->slots['a' - 'a'].n), thing, place };
  stream_read(s, context, say(s->g, &s->g->fact, chosen, &s->seed, s->text), NULL);
}

static int stream_ask_fact(stream *s, const longctx *context, int thing, int place)
{
  const words *w = &s->g->slots['p' - 'a'].choice[place];
  int answer[2];
  stream_ask(s, context, &s->g->ask_fact, &thing, answer, 2);
  return answer[0] == w->token[0] && answer[1] == w->token[1];
}

static void stream_tell(stream *s, longctx *context, told *t)
{
  for (int i = 0; i < N_DIGITS; i++) t->key[i] = random_below(&s->seed, 10);
  t->thing = random_below(&s->seed, s->g->slots['t' - 'a'].n);
  t->place = random_below(&s->seed, s->g->slots['p' - 'a'].n);
  if (s->facts) stream_tell_fact(s, context, t->thing, t->place);
  else stream_read(s, context, say(s->g, &s->g->key, t->key, &s->seed, s->text), NULL);
}

static void stream_ask_told(stream *s, const longctx *context, const told *t, int position,
                            int distance, score *result)
{
  int answer[N_DIGITS], right = 0;
  if (s->facts) {
    add(&result->fact[position][distance], stream_ask_fact(s, context, t->thing, t->place));
    return;
  }
  stream_ask(s, context, &s->g->ask_key, NULL, answer, N_DIGITS);
  for (int i = 0; i < N_DIGITS; i++) {
    int good = answer[i] == s->g->slots['c' - 'a'].choice[t->key[i]].token[0];
    add(&result->digit[position][distance], good);
    right += good;
  }
  add(&result->key[position][distance], right == N_DIGITS);
}

/* ==== jobs ==== */

typedef struct options {
  const char *list, *csv;
  long longest, trials, long_trials, jobs;
} options;

/* told at the start of one text, asked for at every distance */
static void run_first(stream *s, const job *j, score *result)
{
  told t;
  stream_tell(s, s->now, &t);
  for (int d = 0; d < N_DISTANCES && distances[d] <= j->longest; d++) {
    stream_fill(s, s->now, distances[d]);
    stream_ask_told(s, s->now, &t, 0, d, result);
  }
}

/* Told in the middle and at the end: the text goes on without, and is forked where one stands. */
static void run_later(stream *s, const job *j, score *result)
{
  int next[N_POSITIONS] = { 0, 0, 0 };
  told t;
  for (;;) {
    int best = 0;
    int64_t at = 0;
    for (int p = 1; p < N_POSITIONS; p++) {
      if (next[p] == N_DISTANCES || distances[next[p]] > j->longest) continue;
      int64_t here = p == 1 ? distances[next[p]] / 2 : distances[next[p]] / 10 * 9;
      if (best == 0 || here < at) best = p, at = here;
    }
    if (best == 0) return;
    int d = next[best]++;
    stream_fill(s, s->now, at);
    take_copy(s, s->fork, s->now);
    stream_tell(s, s->fork, &t);
    stream_fill(s, s->fork, distances[d]);
    stream_ask_told(s, s->fork, &t, best, d, result);
  }
}

static void run_facts(stream *s, const job *j, score *result)
{
  int n = held[j->held], thing[64], place[64];
  const grammar *g = s->g;
  for (int i = 0; i < n; i++) {
    int again;
    do { /* no thing twice */
      thing[i] = random_below(&s->seed, g->slots['t' - 'a'].n);
      again = 0;
      for (int k = 0; k < i; k++) again |= thing[k] == thing[i];
    } while (again);
    place[i] = random_below(&s->seed, g->slots['p' - 'a'].n);
    stream_fill(s, s->now, (int64_t)i * FACTS_AT / n + random_below(&s->seed, FACTS_AT / n / 2));
    stream_tell_fact(s, s->now, thing[i], place[i]);
  }
  stream_fill(s, s->now, FACTS_AT);
  for (int i = 0; i < n; i++)
    add(&result->many[j->held], stream_ask_fact(s, s->now, thing[i], place[i]));
}

/* tokens read, about: what progress counts */
static double job_tokens(const job *j)
{
  double sum = 0;
  if (j->kind == FACTS) return FACTS_AT;
  if (j->kind == FIRST) return (double)j->longest;
  for (int d = 0; d < N_DISTANCES && distances[d] <= j->longest; d++)
    sum += 0.6 * (double)distances[d];
  return sum + 0.9 * (double)j->longest;
}

/* ==== workers ==== */

typedef struct work {
  pthread_mutex_t lock;
  const job *jobs;
  int n_jobs, next;
  double tokens, done; /* of all jobs */
  const model *models[N_ARMS];
  const grammar *g;
  score scores[N_ARMS];
} work;

static void run_job(const work *w, const job *j, score *result)
{
  static void (*const run[])(stream *, const job *, score *) = {
    run_first, run_later, run_facts
  };
  engine_error error;
  stream *s = calloc(1, sizeof *s);
  if (!s) die("no memory", "");
  s->m = w->models[j->arm];
  s->g = w->g;
  s->facts = arms[j->arm].facts;
  s->seed = (uint64_t)j->trial * 1000003 + (uint64_t)j->kind * 7919 + (uint64_t)j->held;
  longctx_desc d = arm_desc(&arms[j->arm], s->m);
  s->bytes = longctx_size(&d);
  s->now = make_context(&d);
  s->fork = make_context(&d);
  s->ask = make_context(&d);
  s->logits = malloc((size_t)d.max_batch * (size_t)s->m->vocab_size * sizeof(float));
  if (!s->logits) die("no memory", "");
  if (engine_init(&s->e, s->m, d.max_batch, &error)) die("engine", error.text);
  stream_begin(s);
  run[j->kind](s, j, result);
  engine_free(&s->e);
  free(s->logits);
  free(s->now);
  free(s->fork);
  free(s->ask);
  free(s);
}

static void add_score(score *to, const score *from)
{
  count *a = &to->key[0][0];
  const count *b = &from->key[0][0];
  for (size_t i = 0; i < sizeof *to / sizeof *a; i++) {
    a[i].trials += b[i].trials;
    a[i].correct += b[i].correct;
  }
}

static void *worker(void *argument)
{
  work *w = argument;
  pthread_mutex_lock(&w->lock);
  while (w->next < w->n_jobs) {
    const job *j = &w->jobs[w->next++];
    score result;
    memset(&result, 0, sizeof result);
    pthread_mutex_unlock(&w->lock);
    run_job(w, j, &result);
    pthread_mutex_lock(&w->lock);
    add_score(&w->scores[j->arm], &result);
    w->done += job_tokens(j);
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

/* ==== the result ==== */

static void csv_row(FILE *f, const char *arm, const char *task, long distance, const char *position,
                    int facts, const count *c)
{
  double low, high;
  if (c->trials == 0) return;
  fprintf(f, "%s,%s,%ld,%s,%d,%ld,%ld,%.4f,", arm, task, distance, position, facts, c->trials,
          c->correct, (double)c->correct / (double)c->trials);
  interval(c->correct, c->trials, &low, &high);
  if (strcmp(task, "passkey_digits")) fprintf(f, "%.4f,%.4f\n", low, high);
  else fprintf(f, ",\n");
}

static void write_csv(const work *w, FILE *f, const char *path)
{
  fprintf(f, "arm,task,distance,position,facts,trials,correct,accuracy,lo,hi\n");
  for (int a = 0; a < N_ARMS; a++) {
    const score *s = &w->scores[a];
    for (int p = 0; p < N_POSITIONS; p++)
      for (int d = 0; d < N_DISTANCES; d++) {
        csv_row(f, arms[a].name, "passkey", distances[d], positions[p], 1, &s->key[p][d]);
        csv_row(f, arms[a].name, "passkey_digits", distances[d], positions[p], 1, &s->digit[p][d]);
        csv_row(f, arms[a].name, "facts", distances[d], positions[p], 1, &s->fact[p][d]);
      }
    for (int h = 0; h < N_HELD; h++)
      csv_row(f, arms[a].name, "facts", FACTS_AT, "any", held[h], &s->many[h]);
  }
  if (fclose(f)) die(path, strerror(errno));
}

static const char *distance_name(char name[32], long d)
{
  if (d >= 1000000) snprintf(name, 32, "%ldM", d / 1000000);
  else if (d >= 1024) snprintf(name, 32, "%ldK", d / 1024);
  else snprintf(name, 32, "%ld", d);
  return name;
}

static void print_share(const count *c)
{
  if (c->trials == 0) printf(" - |");
  else printf(" %.0f |", 100.0 * (double)c->correct / (double)c->trials);
}

/* What is remembered does not grow; a cache of all keys and values, of the same type, does. */
static void print_bytes(const work *w, int last)
{
  char name[32];
  printf("State against text: bytes of M and z, or of rows, in %% of a cache of all keys and "
         "values:\n\n| arm | model | bytes | whole state |");
  for (int d = 0; d < last; d++) printf(" %s |", distance_name(name, distances[d]));
  printf("\n|---|---|---:|---:|");
  for (int d = 0; d < last; d++) printf("---:|");
  printf("\n");
  for (int a = 0; a < N_ARMS; a++) {
    longctx_sizes sizes;
    const model *m = w->models[a];
    if (!m || arms[a].plain) continue;
    longctx_desc d = arm_desc(&arms[a], m);
    must(longctx_measure(&d, &sizes));
    double row = 2.0 * m->n_layers * m->n_kv_heads * m->head_dim * sizeof(float);
    double kept = (double)(sizes.memory + sizes.feedback);
    printf("| %s | %s | %.0f | %.0f |", arms[a].name, arms[a].model, kept, (double)sizes.state);
    for (int i = 0; i < last; i++) printf(" %.3g |", 100 * kept / (row * (double)distances[i]));
    printf("\n");
  }
}

/* the shares of a task by distance, a line for each arm and position that has any */
static void print_distances(const work *w, int last, int facts)
{
  char name[32];
  printf("| arm | told at |");
  for (int d = 0; d < last; d++) printf(" %s |", distance_name(name, distances[d]));
  printf(" trials |\n|---|---|");
  for (int d = 0; d < last; d++) printf("---:|");
  printf("---:|\n");
  for (int a = 0; a < N_ARMS; a++)
    for (int p = 0; p < N_POSITIONS && w->models[a]; p++) {
      const score *s = &w->scores[a];
      const count *c = facts ? s->fact[p] : s->key[p];
      if (c[0].trials == 0) continue;
      printf("| %s | %s |", arms[a].name, positions[p]);
      for (int d = 0; d < last; d++) print_share(&c[d]);
      printf(" %ld to %ld |\n", c[last - 1].trials, c[0].trials);
    }
}

static void print_tables(const work *w, long longest)
{
  int last = 0;
  while (last < N_DISTANCES && distances[last] <= longest) last++;
  print_bytes(w, last);
  printf("\nFacts right, %% (held at once, at %d tokens):\n\n| arm |", FACTS_AT);
  for (int h = 0; h < N_HELD; h++) printf(" %d |", held[h]);
  printf("\n|---|---:|---:|---:|---:|\n");
  for (int a = 0; a < N_ARMS; a++) {
    if (!w->models[a] || !arms[a].facts) continue;
    printf("| %s |", arms[a].name);
    for (int h = 0; h < N_HELD; h++) print_share(&w->scores[a].many[h]);
    printf("\n");
  }
  printf("\nPass keys right, %% (all five digits), by the text's length in tokens:\n\n");
  print_distances(w, last, 0);
  printf("\nOne fact right, %%, likewise:\n\n");
  print_distances(w, last, 1);
}

/* ==== the program ==== */

static options options_of(int argc, char **argv)
{
  const char *full = getenv("FULL");
  int all = full && strcmp(full, "1") == 0;
  options o = { NULL, "bench/out/recall.csv", all ? 10000000 : 1000000, all ? 50 : 8,
                all ? 4 : 1, sysconf(_SC_NPROCESSORS_ONLN) };
  const option known[] = {
    { "-a", &o.list, NULL, 0, NULL },         { "-o", &o.csv, NULL, 0, NULL },
    { "-d", NULL, &o.longest, 0, NULL },      { "-n", NULL, &o.trials, 0, NULL },
    { "-l", NULL, &o.long_trials, 0, NULL },  { "-j", NULL, &o.jobs, 1, NULL },
  };
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  if (o.longest < distances[0]) die("-d", "the shortest text has 512 tokens");
  return o;
}

static void load_models(const options *o, work *w)
{
  for (int a = 0; a < N_ARMS; a++) {
    char path[256];
    engine_error error;
    if (!listed(o->list, arms[a].name)) continue;
    for (int b = 0; b < a; b++)
      if (strcmp(arms[b].model, arms[a].model) == 0 && w->models[b]) w->models[a] = w->models[b];
    if (w->models[a]) continue;
    snprintf(path, sizeof path, "examples/models/%s.bin", arms[a].model);
    model *m = malloc(sizeof *m);
    if (!m) die("no memory", "");
    if (model_load(m, path, &error)) {
      fprintf(stderr, "skipped: %s (%s %s)\n", arms[a].name, path, error.text);
      free(m);
      continue;
    }
    if (!m->block) die(path, "this model was not trained to remember");
    w->models[a] = m;
  }
}

static int more_first(const void *a, const void *b)
{
  double x = job_tokens(a), y = job_tokens(b);
  return x < y ? 1 : x > y ? -1 : 0;
}

/* Jobs for the arms that have a model; half as many for what only has a window. */
static job *make_jobs(const options *o, const work *w, int *n_jobs)
{
  size_t most = (size_t)N_ARMS * ((size_t)o->trials * (2 + N_HELD) + (size_t)o->long_trials * 2);
  job *jobs = malloc((most + 1) * sizeof *jobs);
  int n = 0;
  if (!jobs) die("no memory", "");
  long near = o->longest < SHORT ? o->longest : SHORT;
  for (int a = 0; a < N_ARMS; a++) {
    if (!w->models[a]) continue;
    int far = (int)(arms[a].plain ? o->long_trials / 2 : o->long_trials);
    int trials = (int)(arms[a].plain ? (o->trials + 1) / 2 : o->trials);
    for (int t = 0; t < trials + far; t++) {
      long longest = t < far ? o->longest : near;
      job first = { a, FIRST, 0, t + 1, longest }, later = { a, LATER, 0, t + 1, longest };
      jobs[n++] = first;
      jobs[n++] = later;
    }
    for (int h = 0; h < N_HELD && arms[a].facts; h++)
      for (int t = 0; t < trials; t++) {
        job facts = { a, FACTS, h, t + 1, FACTS_AT };
        jobs[n++] = facts;
      }
  }
  qsort(jobs, (size_t)n, sizeof *jobs, more_first); /* long ones first: all end together */
  *n_jobs = n;
  return jobs;
}

static double now(void) { return seconds(CLOCK_MONOTONIC); }

static void watch(work *w, double start)
{
  struct timespec pause = { 0, 200000000 };
  int terminal = isatty(STDERR_FILENO);
  double shown = start;
  for (;;) {
    pthread_mutex_lock(&w->lock);
    double share = w->done / w->tokens, spent = now() - start;
    int next = w->next, end = w->done >= w->tokens * 0.999999;
    pthread_mutex_unlock(&w->lock);
    if (end) break;
    if (terminal || now() > shown + 15) {
      shown = now();
      fprintf(stderr, "%s%3.0f %%  %d of %d streams begun, %.0f s spent", terminal ? "\r" : "",
              100 * share, next, w->n_jobs, spent);
      if (share > 0) fprintf(stderr, ", about %.0f s left   ", spent / share - spent);
      if (!terminal) fprintf(stderr, "\n");
    }
    nanosleep(&pause, NULL);
  }
  if (terminal) fprintf(stderr, "\r\033[K");
}

int main(int argc, char **argv)
{
  static work w;
  static grammar g;
  options o = options_of(argc, argv);
  engine_error error;
  pthread_t threads[256];
  load_models(&o, &w);
  const model *any = NULL;
  for (int a = 0; a < N_ARMS; a++)
    if (w.models[a]) any = w.models[a];
  if (!any) die("no such arm, or none of the models is there", o.list ? o.list : "");
  if (grammar_load(&g, any->vocab_size, &error)) die("examples/models/recall.tok", error.text);

  FILE *csv = fopen(o.csv, "w");
  if (!csv) die(o.csv, strerror(errno));

  double start = now();
  w.g = &g;
  w.jobs = make_jobs(&o, &w, &w.n_jobs);
  for (int i = 0; i < w.n_jobs; i++) w.tokens += job_tokens(&w.jobs[i]);
  pthread_mutex_init(&w.lock, NULL);
  int n = o.jobs < 256 ? (int)o.jobs : 256;
  for (int i = 0; i < n; i++)
    if (pthread_create(&threads[i], NULL, worker, &w)) die("no thread", "");
  watch(&w, start);
  for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
  fprintf(stderr, "%.0f million tokens in %.0f s\n", w.tokens / 1e6, now() - start);
  print_tables(&w, o.longest);
  write_csv(&w, csv, o.csv);
  return fflush(stdout) ? 1 : 0;
}
