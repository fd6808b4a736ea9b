/* 02_stream.c - a long text streams through a small model, several ways side by side.

   build  cc -O3 -std=c99 -I. examples/02_stream.c -o 02_stream -lm
   run    02_stream -m MODEL -t TOKENIZER -f TEXT [options]

   -m FILE             a llama2.c checkpoint or a GGUF file     (examples/models/story.bin)
   -t FILE             its tokenizer          (the model's own, or examples/models/story.tok)
   -f FILE             the text; - reads standard input         (-)
   -n TOKENS           how many tokens to stream                (100000)
   -s SINKS            first tokens that stay for ever          (4)
   -w WINDOW           recent tokens an arm with sinks sees     (half the trained length - SINKS)
   -a ARM,ARM          only these arms                          (all)
   -c FILE             a control model; two arms run on it too  (none)
   -j JOBS             arms at a time                           (2)
   --chunk N           tokens per forward pass                  (1)
   --dense-tokens N    where the dense arm's memory ends        (8192)
   --dense-seconds N   how long the dense arm may run           (10)
   --recall            also the arms that remember, on the shipped models trained for it
   --csv               the result as CSV with plain numbers

   The arms are
     dense       every token sees all before it: memory and time per token grow, so it has a budget
     window      the last SINKS + WINDOW tokens, nothing else
     sinks       the first SINKS and the last WINDOW tokens, at their positions in the cache
     sinks_text  the same tokens, at their positions in the text
   and with --recall, on another text of -n tokens with a pass key at its start:
     recall_window, recall_sinks   the model of memory_linear, its window alone or with 4 sinks
     memory_linear, memory_delta   Infini-attention
     block_window_m1               the feedback model: this block and the one before, no rows
     feedback_m0                   TransformerFAM

   kv_bytes counts keys and values, memory and feedback rows. The key is asked for 20 times on the
   way, always after it has left the window; `recalled` is how often all of it was right.

   Each arm is a process of its own, so that its peak memory is its own. Progress goes to standard
   error, the result to standard output; every figure is measured in this run. */
#define _XOPEN_SOURCE 700
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#include "arms.h"
#include "words.h"
#include "engine.h"
#include "recall_text.h"
#include "tokenizer.h"

#include <math.h>
#include <stdlib.h>

/* ==== options ==== */

typedef struct options {
  const char *model, *tokenizer, *text, *control, *arms;
  long tokens, sinks, window, jobs, chunk, dense_tokens, dense_seconds;
  int recall, csv;
} options;

static void die(const char *what, const char *why)
{
  fflush(stdout);
  fprintf(stderr, "02_stream: %s%s%s\n", what, why[0] ? ": " : "", why);
  exit(1);
}

static long parse_count(const char *name, const char *text, long least)
{
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno || end == text || *end || value < least || value > 1000000000L) die(name, text);
  return value;
}

static options parse_options(int argc, char **argv)
{
  options o = { "examples/models/story.bin", NULL, "-", NULL,
                NULL, 100000, 4, 0, 2, 1, 8192, 10, 0, 0 };
  struct { const char *name; const char **text; long *count; long least; int *flag; } known[] = {
    { "-m", &o.model, NULL, 0, NULL },       { "-t", &o.tokenizer, NULL, 0, NULL },
    { "-f", &o.text, NULL, 0, NULL },        { "-c", &o.control, NULL, 0, NULL },
    { "-a", &o.arms, NULL, 0, NULL },        { "-n", NULL, &o.tokens, 1, NULL },
    { "-s", NULL, &o.sinks, 0, NULL },       { "-w", NULL, &o.window, 1, NULL },
    { "-j", NULL, &o.jobs, 1, NULL },        { "--chunk", NULL, &o.chunk, 1, NULL },
    { "--dense-tokens", NULL, &o.dense_tokens, 1, NULL },
    { "--dense-seconds", NULL, &o.dense_seconds, 1, NULL },
    { "--recall", NULL, NULL, 0, &o.recall }, { "--csv", NULL, NULL, 0, &o.csv },
  };
  size_t n_known = sizeof known / sizeof known[0];
  for (int i = 1; i < argc; i++) {
    size_t k = 0;
    while (k < n_known && strcmp(argv[i], known[k].name)) k++;
    if (k == n_known) die("unknown option (the first lines of 02_stream.c list them)", argv[i]);
    if (known[k].flag) *known[k].flag = 1;
    else if (i + 1 == argc) die("a value is missing behind", argv[i]);
    else if (known[k].text) *known[k].text = argv[++i];
    else i++, *known[k].count = parse_count(known[k].name, argv[i], known[k].least);
  }
  return o;
}

/* ==== arms and what is measured of them ==== */

/* A pass key, told in the first sentences of a text and asked for on the way. */
enum { N_DIGITS = 5, N_ASKED = 20 };

typedef struct question {
  int64_t told;                      /* so many tokens were read when it had been told */
  int n, token[MOST_FORM + N_DIGITS]; /* the question [n], and behind it the key [N_DIGITS] */
} question;

typedef struct arm {
  const char *name;
  const model *m;
  longctx_desc desc;
  int chunk;
  int64_t tokens;      /* how many to stream */
  double budget;       /* seconds, 0 = as long as it takes */
  const int *text;     /* [tokens + 1] */
  const question *ask; /* NULL: nothing is asked */
} arm;

typedef struct result {
  int64_t tokens, kv_bytes, peak_rss, early_rss;
  double tps_first, tps_last;     /* tokens per second in the first and the last tenth */
  double ppl_first, ppl_last;     /* perplexity likewise */
  int64_t steady_tokens;          /* CPU time per token in the first and last so many */
  double us_first, us_last;
  int out_of_time, asked, recalled;
} result;

/* what an arm's process tells: how far it is, and at the end its result or its failure */
typedef struct message {
  int done, failed;
  int64_t tokens;
  double tps, ppl;  /* since the message before */
  result result;
  char failure[sizeof(engine_error)];
} message;

/* running totals at some moment */
typedef struct mark {
  int64_t tokens, peak_rss;
  double nll, seconds, cpu_seconds;
} mark;

/* An arm keeps this many marks, evenly spread over its tokens, and all figures are differences of
   two of them: what it stores does not grow with the text either. */
enum { N_MARKS = 1000, STEADY_TOKENS = 10000 };

static double span_ppl(const mark *a, const mark *b)
{
  return exp((b->nll - a->nll) / (double)(b->tokens - a->tokens));
}

static double span_tps(const mark *a, const mark *b)
{
  return (double)(b->tokens - a->tokens) / (b->seconds - a->seconds);
}

static double span_us(const mark *a, const mark *b)
{
  return 1e6 * (b->cpu_seconds - a->cpu_seconds) / (double)(b->tokens - a->tokens);
}

static const mark *mark_at(const mark *marks, int n_marks, int64_t tokens)
{
  int i = 0;
  while (i < n_marks - 1 && marks[i].tokens < tokens) i++;
  return &marks[i];
}

/* The first tenth begins where the window is full: from there on every token sees as many. */
static void summarize(const arm *a, const mark *marks, int n_marks, result *r)
{
  const mark *end = &marks[n_marks - 1];
  int64_t full = (int64_t)a->desc.sinks + a->desc.window;
  const mark *begin = mark_at(marks, n_marks, full < end->tokens ? full : 0);
  int64_t tenth = (end->tokens - begin->tokens) / 10;
  if (tenth == 0) tenth = end->tokens - begin->tokens;
  const mark *first_end = mark_at(marks, n_marks, begin->tokens + tenth);
  const mark *last_begin = mark_at(marks, n_marks - 1, end->tokens - tenth);
  r->tokens = end->tokens;
  r->peak_rss = end->peak_rss;
  r->early_rss = first_end->peak_rss;
  r->tps_first = span_tps(begin, first_end);
  r->tps_last = span_tps(last_begin, end);
  r->ppl_first = span_ppl(begin, first_end);
  r->ppl_last = span_ppl(last_begin, end);

  int64_t steady = tenth < STEADY_TOKENS ? tenth : STEADY_TOKENS;
  first_end = mark_at(marks, n_marks, begin->tokens + steady);
  last_begin = mark_at(marks, n_marks - 1, end->tokens - steady);
  r->steady_tokens = first_end->tokens - begin->tokens;
  r->us_first = span_us(begin, first_end);
  r->us_last = span_us(last_begin, end);
}

/* ==== an arm's own process ==== */

typedef struct stream {
  engine e;
  longctx *context;
  float *logits;           /* [chunk or N_DIGITS, the larger][vocab_size] */
  mark now, reported;
  mark marks[N_MARKS + 2]; /* the start, one after each share of the tokens, the end */
  int n_marks;
} stream;

static const char *stream_start(stream *s, const arm *a, result *r, engine_error *error)
{
  longctx_desc desc = a->desc;
  longctx_sizes sizes;
  int least = a->ask ? a->ask->n + N_DIGITS : 1, chunk = a->chunk > least ? a->chunk : least;
  desc.max_batch = chunk;
  if (longctx_measure(&desc, &sizes)) return longctx_check(&desc);
  void *memory = malloc(sizes.total);
  if (!memory) return "no memory for its context";
  s->context = longctx_init(memory, sizes.total, &desc);
  if (!s->context) return longctx_check(&desc);
  if (engine_init(&s->e, a->m, chunk, error)) return error->text;
  s->logits = malloc((size_t)chunk * (size_t)a->m->vocab_size * sizeof(float));
  if (!s->logits) return "no memory for its logits";
  r->kv_bytes = (int64_t)(sizes.window + sizes.memory + sizes.feedback);
  int code = engine_start(&s->e, s->context);
  return code == LONGCTX_OK ? NULL : longctx_error(code);
}

/* Reads text [n], no more than there is room for, and scores each of its tokens' successors:
   text [n] is looked at, too. */
static int stream_step(stream *s, const int *text, int n)
{
  int vocab = s->e.m->vocab_size;
  int code = engine_forward(&s->e, s->context, text, n, s->logits, n);
  if (code == LONGCTX_OK) code = engine_commit(&s->e, s->context, n);
  if (code != LONGCTX_OK) return code;
  for (int i = 0; i < n; i++)
    s->now.nll += logits_nll(s->logits + (size_t)i * (size_t)vocab, vocab, text[i + 1]);
  s->now.tokens += n;
  return LONGCTX_OK;
}

/* Asks for the key: question and key go in as drafts, which are dropped, so the text never had
   them. Behind the question and each digit the likeliest token must be the next digit: then, and
   only then, the model left alone would have said the whole key. */
static int stream_ask(stream *s, const question *q, result *r)
{
  int n = q->n + N_DIGITS - 1, vocab = s->e.m->vocab_size, right = 0;
  int code = engine_forward(&s->e, s->context, q->token, n, s->logits, N_DIGITS);
  if (code == LONGCTX_OK) code = longctx_commit(s->context, 0);
  if (code != LONGCTX_OK) return code;
  for (int i = 0; i < N_DIGITS; i++)
    right += logits_argmax(s->logits + (size_t)i * (size_t)vocab, vocab) == q->token[q->n + i];
  r->asked++;
  r->recalled += right == N_DIGITS;
  return LONGCTX_OK;
}

/* a share of the text, at whose end the key is asked for */
static int64_t asked_each(const arm *a)
{
  return (a->tokens + N_ASKED - 1) / N_ASKED;
}

/* the first such end where all that was told has left the window */
static int64_t first_due(const arm *a)
{
  int64_t due = asked_each(a);
  while (a->ask && due < a->ask->told + a->desc.window) due += asked_each(a);
  return due;
}

static int stream_asks(const stream *s, const arm *a, int64_t due)
{
  return a->ask && s->now.tokens >= due &&
         longctx_room(s->context) >= a->ask->n + N_DIGITS - 1; /* of the drafts */
}

static void stream_mark(stream *s)
{
  s->now.peak_rss = peak_rss();
  s->now.cpu_seconds = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
  s->marks[s->n_marks++] = s->now;
}

static void stream_report(stream *s, int pipe_end)
{
  message m;
  memset(&m, 0, sizeof m);
  m.tokens = s->now.tokens;
  m.tps = span_tps(&s->reported, &s->now);
  m.ppl = span_ppl(&s->reported, &s->now);
  s->reported = s->now;
  if (write(pipe_end, &m, sizeof m) != (ssize_t)sizeof m) _exit(1);
}

static const char *stream_run(stream *s, const arm *a, int pipe_end, result *r)
{
  int64_t share = (a->tokens + N_MARKS - 1) / N_MARKS, due = first_due(a);
  double start = clock_seconds(CLOCK_MONOTONIC);
  memset(s->marks, 1, sizeof s->marks); /* touched now, so that no page comes later */
  stream_mark(s);
  while (s->now.tokens < a->tokens && !r->out_of_time) {
    int64_t left = a->tokens - s->now.tokens;
    int room = longctx_room(s->context), n = a->chunk < room ? a->chunk : room;
    int code = stream_step(s, a->text + s->now.tokens, left < n ? (int)left : n);
    if (code == LONGCTX_OK && stream_asks(s, a, due)) {
      code = stream_ask(s, a->ask, r);
      due += asked_each(a);
    }
    if (code != LONGCTX_OK) return longctx_error(code);
    s->now.seconds = clock_seconds(CLOCK_MONOTONIC) - start;
    r->out_of_time = a->budget > 0 && s->now.seconds > a->budget;
    if (s->now.tokens >= share * s->n_marks) stream_mark(s);
    if (s->now.seconds > s->reported.seconds + 0.2) stream_report(s, pipe_end);
  }
  if (s->marks[s->n_marks - 1].tokens < s->now.tokens) stream_mark(s);
  summarize(a, s->marks, s->n_marks, r);
  return NULL;
}

static void run_arm(const arm *a, int pipe_end)
{
  static stream s;
  engine_error error;
  message m;
  memset(&m, 0, sizeof m);
  const char *failure = stream_start(&s, a, &m.result, &error);
  if (!failure) failure = stream_run(&s, a, pipe_end, &m.result);
  m.done = 1;
  m.failed = failure != NULL;
  m.tokens = s.now.tokens;
  if (failure) snprintf(m.failure, sizeof m.failure, "%s", failure);
  if (write(pipe_end, &m, sizeof m) != (ssize_t)sizeof m) _exit(1);
}

/* ==== the process that starts them and shows how far they are ==== */

typedef struct job {
  arm a;
  message last;
} job;

typedef struct job_list {
  const options *o;
  job jobs[MOST_ARMS];
  arms processes;
} job_list;

static void work_job(void *run, int i, int pipe_end)
{
  run_arm(&((job_list *)run)->jobs[i].a, pipe_end);
}

static int hear_job(void *run, int i, int pipe_end)
{
  message *last = &((job_list *)run)->jobs[i].last, m;
  if (arms_message(pipe_end, &m, sizeof m)) *last = m;
  else {
    last->done = last->failed = 1;
    snprintf(last->failure, sizeof last->failure, "its process ended early");
  }
  return last->done;
}

/* in 80 columns, so that a terminal need not wrap it */
static void show_job(const void *run, int i)
{
  const job_list *list = run;
  const job *j = &list->jobs[i];
  char done[32], all[32], speed[32];
  commas(done, (double)j->last.tokens);
  commas(all, (double)j->a.tokens);
  commas(speed, j->last.tps);
  fprintf(stderr, "%-14s ", j->a.name);
  if (j->last.failed) fprintf(stderr, "failed: %s", j->last.failure);
  else if (!list->processes.of[i].id) fprintf(stderr, "waits");
  else if (j->last.done) fprintf(stderr, "done, %s tokens", done);
  else
    fprintf(stderr, "%3d%%  %s of %s tokens, %s a second, ppl %.2f",
            (int)(100 * j->last.tokens / j->a.tokens), done, all, speed, j->last.ppl);
}

static void run_jobs(job_list *list)
{
  arms *a = &list->processes;
  int more = 1;
  a->quiet = 5;
  a->run = list;
  a->work = work_job;
  a->hear = hear_job;
  a->line = show_job;
  while (more > 0) more = arms_step(a, (int)list->o->jobs);
  if (more < 0) die("no process, or none that speaks", strerror(errno));
}

/* ==== what the arms are ==== */

/* a model and the text it is shown */
typedef struct source {
  const model *m;
  const int *text;
  int64_t tokens;
  const question *ask;
} source;

static job *add_job(job_list *list, const source *s, const char *name, longctx_desc desc)
{
  job *j = &list->jobs[list->processes.n++];
  j->a.name = name;
  j->a.m = s->m;
  j->a.desc = desc;
  j->a.chunk = (int)list->o->chunk;
  j->a.tokens = s->tokens;
  j->a.text = s->text;
  j->a.ask = s->ask;
  return j;
}

static void add_listed(job_list *list, const source *s, const char *name, longctx_desc desc)
{
  if (listed(list->o->arms, name)) add_job(list, s, name, desc);
}

static longctx_desc plain_desc(const model *m, int window, int sinks, int positions)
{
  longctx_desc desc = engine_desc(m, window);
  desc.sinks = sinks;
  desc.positions = positions;
  return desc;
}

static void add_plain(job_list *list, const source *s)
{
  const options *o = list->o;
  int sinks = (int)o->sinks, window = (int)o->window;
  source some = *s;
  if (some.tokens > o->dense_tokens) some.tokens = o->dense_tokens;
  if (listed(o->arms, "dense"))
    add_job(list, &some, "dense", plain_desc(s->m, (int)some.tokens, 0, LONGCTX_POS_CACHE))
      ->a.budget = (double)o->dense_seconds;
  add_listed(list, s, "window", plain_desc(s->m, sinks + window, 0, LONGCTX_POS_CACHE));
  add_listed(list, s, "sinks", plain_desc(s->m, window, sinks, LONGCTX_POS_CACHE));
  add_listed(list, s, "sinks_text", plain_desc(s->m, window, sinks, LONGCTX_POS_TEXT));
}

static void add_control(job_list *list, const source *s)
{
  int sinks = (int)list->o->sinks, window = (int)list->o->window;
  source some = *s;
  if (some.tokens > 20000) some.tokens = 20000;
  add_job(list, &some, "control_window",
          plain_desc(s->m, sinks + window, 0, LONGCTX_POS_CACHE));
  add_job(list, &some, "control_sinks", plain_desc(s->m, window, sinks, LONGCTX_POS_CACHE));
}

/* ==== models and texts ==== */

static void load_model(model *m, const char *path)
{
  engine_error error;
  if (model_load(m, path, &error)) die(path, error.text);
  fprintf(stderr, "%s: %d layers, %d heads on %d, dim %d, vocabulary %d, trained length %d\n", path,
          m->n_layers, m->n_heads, m->n_kv_heads, m->dim, m->vocab_size, m->trained_len);
}

/* The file's text, and in *tokens how many of it are streamed. */
static int *read_text(const options *o, int vocab_size, int64_t *tokens)
{
  tokenizer t;
  engine_error error;
  char had[32], asked[32];
  size_t n;
  if (tokenizer_load(&t, o->tokenizer, vocab_size, &error)) die(o->tokenizer, error.text);
  int *text = tokenizer_encode_file(&t, o->text, &n, &error);
  if (!text) die(o->text, error.text);
  tokenizer_free(&t);
  if (n < 2) die("the text is empty", o->text);
  *tokens = o->tokens;
  if (*tokens > (int64_t)n - 1) {
    *tokens = (int64_t)n - 1; /* the last one is only predicted */
    fprintf(stderr, "The text has %s tokens, fewer than the %s asked for: the arms stop at its "
            "end.\n", commas(had, (double)*tokens), commas(asked, (double)o->tokens));
  }
  int *needed = realloc(text, ((size_t)*tokens + 1) * sizeof *text);
  return needed ? needed : text;
}

/* Sentences about nothing, as many as it takes; behind the first three a pass key is told. */
static int *recall_text(int64_t tokens, int vocab_size, question *ask)
{
  static grammar g;
  engine_error error;
  uint64_t seed = 1;
  int key[N_DIGITS];
  int64_t n = 0;
  int *text = malloc(((size_t)tokens + 1 + 5 * MOST_FORM) * sizeof *text);
  if (!text) die("no memory", "");
  if (grammar_load(&g, vocab_size, &error)) die("examples/models/recall.tok", error.text);

  ask->n = say(&g, &g.ask_key, NULL, &seed, ask->token);
  for (int i = 0; i < N_DIGITS; i++) {
    key[i] = random_below(&seed, 10);
    ask->token[ask->n + i] = g.slots['c' - 'a'].choice[key[i]].token[0];
  }
  text[n++] = TOKEN_BOS;
  for (int i = 0; i < 3; i++) n += say_filler(&g, &seed, text + n);
  n += say(&g, &g.key, key, &seed, text + n);
  ask->told = n;
  while (n <= tokens) n += say_filler(&g, &seed, text + n);
  return text;
}

/* The shipped models that remember; one that is not there is skipped by name. */
static void add_recall(job_list *list)
{
  static const struct { const char *path, *arms; } shipped[3] = {
    { "examples/models/memory_linear.bin", "recall_window, recall_sinks, memory_linear" },
    { "examples/models/memory_delta.bin", "memory_delta" },
    { "examples/models/feedback.bin", "block_window_m1, feedback_m0" },
  };
  static model models[3];
  static question ask;
  int *text = NULL;
  for (int i = 0; i < 3; i++) {
    const model *m = &models[i];
    if (access(shipped[i].path, R_OK)) {
      fprintf(stderr, "skipped: %s (no %s)\n", shipped[i].arms, shipped[i].path);
      continue;
    }
    load_model(&models[i], shipped[i].path);
    if (!text) text = recall_text(list->o->tokens, m->vocab_size, &ask);
    source s = { m, text, list->o->tokens, &ask };
    longctx_desc blocks = plain_desc(m, 2 * m->block, 0, LONGCTX_POS_CACHE);
    blocks.block = m->block;
    if (i == 0) {
      add_listed(list, &s, "recall_window", plain_desc(m, m->window, 0, LONGCTX_POS_CACHE));
      add_listed(list, &s, "recall_sinks", plain_desc(m, m->window - 4, 4, LONGCTX_POS_CACHE));
    }
    if (i == 2) add_listed(list, &s, "block_window_m1", blocks);
    add_listed(list, &s, i == 0 ? "memory_linear" : i == 1 ? "memory_delta" : "feedback_m0",
               engine_trained_desc(m));
  }
}

/* ==== the result ==== */

static void print_dense_end(const job *j, int64_t tokens)
{
  char had[32], asked[32], taken[32], whole[32], budget[32];
  const result *r = &j->last.result;
  longctx_desc desc = engine_desc(j->a.m, (int)tokens);
  longctx_sizes sizes;
  commas(had, (double)r->tokens);
  commas(asked, (double)tokens);
  bytes_text(taken, r->kv_bytes);
  if (longctx_measure(&desc, &sizes)) snprintf(whole, sizeof whole, "more than one context");
  else bytes_text(whole, (int64_t)sizes.window);
  if (r->out_of_time) snprintf(budget, sizeof budget, "%.0f seconds", j->a.budget);
  else snprintf(budget, sizeof budget, "%s", taken);
  if (r->tokens == tokens)
    printf("dense read the whole text within its budget, %s tokens in %s of keys and values.\n",
           had, taken);
  else
    printf("dense ended after %s of %s tokens at its budget of %s; the whole text would take %s of "
           "keys and values.\n", had, asked, budget, whole);
}

static void print_steady(const job *j)
{
  const result *r = &j->last.result;
  char tokens[32], early[32], late[32];
  commas(tokens, (double)r->steady_tokens);
  printf("%s: CPU time per token %.1f us in the first %s tokens after the window filled, %.1f us "
         "in the last (%+.1f %%); peak memory %s after the first tenth, %s at the end.\n",
         j->a.name, r->us_first, tokens, r->us_last, 100 * (r->us_last / r->us_first - 1),
         bytes_text(early, r->early_rss), bytes_text(late, r->peak_rss));
}

static void print_recalled(const result *r)
{
  if (r->asked) printf(" %d of %d |", r->recalled, r->asked);
  else printf(" - |");
}

/* recall: a column more */
static void print_table(const job *jobs, int n_jobs, int recall)
{
  char tokens[32], kv[32], rss[32], first[32], last[32];
  printf("\n| arm | tokens | kv_bytes | peak_rss | tps_first | tps_last | ppl_first | ppl_last |"
         "%s\n|---|---:|---:|---:|---:|---:|---:|---:|%s\n", recall ? " recalled |" : "",
         recall ? "---:|" : "");
  for (int i = 0; i < n_jobs; i++) {
    const result *r = &jobs[i].last.result;
    printf("| %s | %s | %s | %s | %s | %s | %.2f | %.2f |", jobs[i].a.name,
           commas(tokens, (double)r->tokens), bytes_text(kv, r->kv_bytes),
           bytes_text(rss, r->peak_rss), commas(first, r->tps_first), commas(last, r->tps_last),
           r->ppl_first, r->ppl_last);
    if (recall) print_recalled(r);
    printf("\n");
  }
}

static void print_csv(const job_list *list)
{
  int recall = list->o->recall;
  printf("arm,tokens,kv_bytes,peak_rss,tps_first,tps_last,ppl_first,ppl_last%s\n",
         recall ? ",asked,recalled" : "");
  for (int i = 0; i < list->processes.n; i++) {
    const result *r = &list->jobs[i].last.result;
    printf("%s,%lld,%lld,%lld,%.1f,%.1f,%.4f,%.4f", list->jobs[i].a.name, (long long)r->tokens,
           (long long)r->kv_bytes, (long long)r->peak_rss, r->tps_first, r->tps_last,
           r->ppl_first, r->ppl_last);
    if (recall) printf(",%d,%d", r->asked, r->recalled);
    printf("\n");
  }
}

/* the arms, and behind the first n_arms those of the control */
static void print_result(const job_list *list, int n_arms, int64_t tokens)
{
  const job *jobs = list->jobs;
  int n_controls = list->processes.n - n_arms;
  printf("\n");
  if (n_controls > 0) {
    printf("The cause: the control model learnt the same kind of text from windows that began "
           "anywhere in it,\nnever with a text start in their first slot. Nothing taught it to "
           "rest its attention there, so a plain\nwindow should cost it nothing and sinks should "
           "gain it nothing:\n");
    print_table(jobs + n_arms, n_controls, 0);
    printf("\n");
  }
  for (int i = 0; i < n_arms; i++)
    if (strcmp(jobs[i].a.name, "dense") == 0) print_dense_end(&jobs[i], tokens);
    else if (!jobs[i].a.ask) print_steady(&jobs[i]);
  printf("First and last stand for a tenth of an arm's tokens, from where its window was full.\n");
  if (list->o->recall)
    printf("recalled: a pass key is told once, at the start of another text, to models that were "
           "trained to\nremember or see a window of the same text alone; it is asked for on the "
           "way, whole keys count.\n");
  print_table(jobs, n_arms, list->o->recall);
}

/* ==== the program ==== */

int main(int argc, char **argv)
{
  options o = parse_options(argc, argv);
  static job_list list;
  model m, control;
  int failed = 0;
  load_model(&m, o.model);
  if (!o.tokenizer) o.tokenizer = m.has_tokenizer ? o.model : "examples/models/story.tok";
  if (o.window == 0) o.window = m.trained_len / 2 - o.sinks;
  if (o.window < 1) die("-w", "no room for a window beside the sinks in half the trained length");
  source s = { &m, NULL, 0, NULL };
  int *text = read_text(&o, m.vocab_size, &s.tokens);
  s.text = text;
  list.o = &o;
  add_plain(&list, &s);
  if (o.recall) add_recall(&list);
  int n_arms = list.processes.n;
  if (n_arms == 0) die("no such arm", o.arms);
  if (o.control) {
    load_model(&control, o.control);
    if (control.vocab_size != m.vocab_size) die(o.control, "its vocabulary is another");
    s.m = &control;
    add_control(&list, &s);
  }

  run_jobs(&list);
  for (int i = 0; i < list.processes.n; i++) failed += list.jobs[i].last.failed;
  if (failed == 0 && o.csv) print_csv(&list);
  if (failed == 0 && !o.csv) print_result(&list, n_arms, s.tokens);

  free(text);
  model_free(&m);
  if (o.control) model_free(&control);
  if (failed) die("an arm failed", "see above");
  return fflush(stdout) ? 1 : 0;
}
