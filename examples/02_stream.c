/* 02_stream.c - a long text streams through a small model, four ways side by side.

   build  cc -O3 -std=c99 -I. examples/02_stream.c -o 02_stream -lm
   run    02_stream -m MODEL -t TOKENIZER -f TEXT [options]

   -m FILE             a llama2.c checkpoint or a GGUF file     (examples/models/story.bin)
   -t FILE             its tokenizer          (the model's own, or examples/models/story.tok)
   -f FILE             the text; - reads standard input         (-)
   -n TOKENS           how many tokens to stream                (100000)
   -s SINKS            first tokens that stay for ever          (4)
   -w WINDOW           recent tokens an arm with sinks sees     (half the trained length - SINKS)
   -a ARM,ARM          only these arms                          (dense,window,sinks,sinks_text)
   -c FILE             a control model; two arms run on it too  (none)
   -j JOBS             arms at a time                           (2)
   --chunk N           tokens per forward pass                  (1)
   --dense-tokens N    where the dense arm's memory ends        (8192)
   --dense-seconds N   and its time                             (10)
   --csv               the result as CSV with plain numbers

   The arms are
     dense       every token sees all before it: memory and time per token grow, so it has a budget
     window      the last SINKS + WINDOW tokens, nothing else
     sinks       the first SINKS and the last WINDOW tokens, at their positions in the cache
     sinks_text  the same tokens, at their positions in the text

   Each arm is a process of its own, so that its peak memory is its own. Progress goes to standard
   error, the result to standard output; every figure is measured in this run. */
#define _XOPEN_SOURCE 700
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#include "engine.h"
#include "tokenizer.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ==== options ==== */

typedef struct options {
  const char *model, *tokenizer, *text, *control, *arms;
  long tokens, sinks, window, jobs, chunk, dense_tokens, dense_seconds;
  int csv;
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
                "dense,window,sinks,sinks_text", 100000, 4, 0, 2, 1, 8192, 10, 0 };
  struct { const char *name; const char **text; long *count; long least; } known[] = {
    { "-m", &o.model, NULL, 0 },       { "-t", &o.tokenizer, NULL, 0 },
    { "-f", &o.text, NULL, 0 },        { "-c", &o.control, NULL, 0 },
    { "-a", &o.arms, NULL, 0 },        { "-n", NULL, &o.tokens, 1 },
    { "-s", NULL, &o.sinks, 0 },       { "-w", NULL, &o.window, 1 },
    { "-j", NULL, &o.jobs, 1 },        { "--chunk", NULL, &o.chunk, 1 },
    { "--dense-tokens", NULL, &o.dense_tokens, 1 },
    { "--dense-seconds", NULL, &o.dense_seconds, 1 },
  };
  size_t n_known = sizeof known / sizeof known[0];
  for (int i = 1; i < argc; i++) {
    size_t k = 0;
    if (strcmp(argv[i], "--csv") == 0) {
      o.csv = 1;
      continue;
    }
    while (k < n_known && strcmp(argv[i], known[k].name)) k++;
    if (k == n_known) die("unknown option (the first lines of 02_stream.c list them)", argv[i]);
    if (i + 1 == argc) die("a value is missing behind", argv[i]);
    i++;
    if (known[k].text) *known[k].text = argv[i];
    else *known[k].count = parse_count(known[k].name, argv[i], known[k].least);
  }
  return o;
}

/* ==== arms and what is measured of them ==== */

typedef struct arm {
  const char *name;
  const model *m;
  int sinks, window, positions, chunk;
  int64_t tokens;   /* how many to stream */
  double budget;    /* seconds, 0 = as long as it takes */
} arm;

typedef struct result {
  int64_t tokens, kv_bytes, peak_rss, early_rss;
  double tps_first, tps_last;     /* tokens per second in the first and the last tenth */
  double ppl_first, ppl_last;     /* perplexity likewise */
  int64_t steady_tokens;          /* CPU time per token in the first and last so many */
  double us_first, us_last;
  int out_of_time;
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

static double clock_seconds(clockid_t id)
{
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t peak_rss(void)
{
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage)) return 0;
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return (int64_t)usage.ru_maxrss * 1024;
#endif
}

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
  int64_t full = (int64_t)a->sinks + a->window;
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
  float *logits;           /* [chunk][vocab_size] */
  mark now, reported;
  mark marks[N_MARKS + 2]; /* the start, one after each share of the tokens, the end */
  int n_marks;
} stream;

static const char *stream_start(stream *s, const arm *a, result *r, engine_error *error)
{
  longctx_desc desc = engine_desc(a->m, a->window);
  longctx_sizes sizes;
  desc.sinks = a->sinks;
  desc.positions = a->positions;
  desc.max_batch = a->chunk;
  if (longctx_measure(&desc, &sizes)) return longctx_check(&desc);
  void *memory = malloc(sizes.total);
  if (!memory) return "no memory for its context";
  s->context = longctx_init(memory, sizes.total, &desc);
  if (!s->context) return longctx_check(&desc);
  if (engine_init(&s->e, a->m, a->chunk, error)) return error->text;
  s->logits = malloc((size_t)a->chunk * (size_t)a->m->vocab_size * sizeof(float));
  if (!s->logits) return "no memory for its logits";
  r->kv_bytes = (int64_t)sizes.window;
  return NULL;
}

/* reads text [n] and scores each of its tokens' successors: text [n] is read, too */
static int stream_step(stream *s, const int *text, int n)
{
  int vocab = s->e.m->vocab_size;
  int code = engine_forward(&s->e, s->context, text, n, s->logits, n);
  if (code == LONGCTX_OK) code = longctx_commit(s->context, n);
  if (code != LONGCTX_OK) return code;
  for (int i = 0; i < n; i++)
    s->now.nll += logits_nll(s->logits + (size_t)i * (size_t)vocab, vocab, text[i + 1]);
  s->now.tokens += n;
  return LONGCTX_OK;
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

static const char *stream_run(stream *s, const arm *a, const int *text, int pipe_end, result *r)
{
  int64_t share = (a->tokens + N_MARKS - 1) / N_MARKS;
  double start = clock_seconds(CLOCK_MONOTONIC);
  memset(s->marks, 1, sizeof s->marks); /* touched now, so that no page comes later */
  stream_mark(s);
  while (s->now.tokens < a->tokens && !r->out_of_time) {
    int64_t left = a->tokens - s->now.tokens;
    int code = stream_step(s, text + s->now.tokens, left < a->chunk ? (int)left : a->chunk);
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

static void run_arm(const arm *a, const int *text, int pipe_end)
{
  static stream s;
  engine_error error;
  message m;
  memset(&m, 0, sizeof m);
  const char *failure = stream_start(&s, a, &m.result, &error);
  if (!failure) failure = stream_run(&s, a, text, pipe_end, &m.result);
  m.done = 1;
  m.failed = failure != NULL;
  m.tokens = s.now.tokens;
  if (failure) snprintf(m.failure, sizeof m.failure, "%s", failure);
  if (write(pipe_end, &m, sizeof m) != (ssize_t)sizeof m) _exit(1);
}

/* ==== the process that starts them and shows how far they are ==== */

enum { MAX_JOBS = 6 };

typedef struct job {
  arm a;
  pid_t process;    /* 0 = not yet started */
  int pipe_end;
  message last;
  double shown;     /* when its last plain line was printed */
} job;

static void start_job(job *j, const int *text)
{
  int ends[2];
  if (pipe(ends)) die("no pipe", strerror(errno));
  fflush(NULL);
  j->process = fork();
  if (j->process < 0) die("no process", strerror(errno));
  if (j->process == 0) {
    close(ends[0]);
    run_arm(&j->a, text, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  j->pipe_end = ends[0];
  j->shown = clock_seconds(CLOCK_MONOTONIC);
}

/* takes one message; a pipe that ends without a last word belongs to a process that was killed */
static void hear_job(job *j)
{
  message m;
  ssize_t n = read(j->pipe_end, &m, sizeof m);
  if (n == (ssize_t)sizeof m) {
    j->last = m;
  } else {
    j->last.done = j->last.failed = 1;
    snprintf(j->last.failure, sizeof j->last.failure, "its process ended early");
  }
  if (!j->last.done) return;
  close(j->pipe_end);
  waitpid(j->process, NULL, 0);
}

/* 1234567 as 1,234,567 */
static const char *commas(char text[32], double value)
{
  char digits[32];
  int n = snprintf(digits, sizeof digits, "%.0f", value), out = 0;
  for (int i = 0; i < n; i++) {
    if (i > 0 && (n - i) % 3 == 0) text[out++] = ',';
    text[out++] = digits[i];
  }
  text[out] = 0;
  return text;
}

static const char *bytes_text(char text[32], int64_t bytes)
{
  double value = (double)bytes;
  if (value < 1e6) snprintf(text, 32, "%.1f KB", value / 1e3);
  else if (value < 1e9) snprintf(text, 32, "%.1f MB", value / 1e6);
  else snprintf(text, 32, "%.1f GB", value / 1e9);
  return text;
}

/* in 80 columns, so that a terminal need not wrap it */
static void show_job(const job *j)
{
  char done[32], all[32], speed[32];
  commas(done, (double)j->last.tokens);
  commas(all, (double)j->a.tokens);
  commas(speed, j->last.tps);
  fprintf(stderr, "%-14s ", j->a.name);
  if (j->last.failed) fprintf(stderr, "failed: %s", j->last.failure);
  else if (!j->process) fprintf(stderr, "waits");
  else if (j->last.done) fprintf(stderr, "done, %s tokens", done);
  else
    fprintf(stderr, "%3d%%  %s of %s tokens, %s a second, ppl %.2f",
            (int)(100 * j->last.tokens / j->a.tokens), done, all, speed, j->last.ppl);
}

/* on a terminal one line per arm, drawn again and again; elsewhere a line now and then */
static void show_all(job *jobs, int n_jobs, int redraw)
{
  if (redraw) fprintf(stderr, "\033[%dA", n_jobs);
  for (int i = 0; i < n_jobs; i++) {
    show_job(&jobs[i]);
    fprintf(stderr, "\033[K\n");
  }
}

static void show_one(job *j)
{
  double now = clock_seconds(CLOCK_MONOTONIC);
  if (!j->last.done && now < j->shown + 5) return;
  j->shown = now;
  show_job(j);
  fprintf(stderr, "\n");
}

/* waits until some running job speaks, and hears all that do; returns how many have ended by it */
static int hear_jobs(job *jobs, int n_jobs, int terminal)
{
  struct pollfd polls[MAX_JOBS];
  int ended = 0;
  for (int i = 0; i < n_jobs; i++) {
    int runs = jobs[i].process && !jobs[i].last.done;
    polls[i].fd = runs ? jobs[i].pipe_end : -1; /* poll passes over -1 */
    polls[i].events = POLLIN;
    polls[i].revents = 0;
  }
  if (poll(polls, (nfds_t)n_jobs, -1) < 0 && errno != EINTR) die("poll", strerror(errno));
  for (int i = 0; i < n_jobs; i++) {
    if (!polls[i].revents) continue;
    hear_job(&jobs[i]);
    ended += jobs[i].last.done;
    if (!terminal) show_one(&jobs[i]);
  }
  return ended;
}

static void run_jobs(job *jobs, int n_jobs, int at_a_time, const int *text)
{
  int terminal = isatty(STDERR_FILENO), started = 0, ended = 0;
  if (terminal) show_all(jobs, n_jobs, 0);
  while (ended < n_jobs) {
    while (started < n_jobs && started - ended < at_a_time) start_job(&jobs[started++], text);
    ended += hear_jobs(jobs, n_jobs, terminal);
    if (terminal) show_all(jobs, n_jobs, 1);
  }
}

/* ==== what the arms are ==== */

static int listed(const char *list, const char *name)
{
  size_t n = strlen(name);
  for (const char *at = list; at; at = strchr(at, ',')) {
    if (*at == ',') at++;
    if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == 0)) return 1;
  }
  return 0;
}

static int add_jobs(job *jobs, const options *o, const model *m, int64_t tokens)
{
  int sinks = (int)o->sinks, window = (int)o->window, n = 0;
  int64_t dense = tokens < o->dense_tokens ? tokens : o->dense_tokens;
  const arm all[4] = {
    { "dense", m, 0, (int)dense, LONGCTX_POS_CACHE, 0, dense, (double)o->dense_seconds },
    { "window", m, 0, sinks + window, LONGCTX_POS_CACHE, 0, tokens, 0 },
    { "sinks", m, sinks, window, LONGCTX_POS_CACHE, 0, tokens, 0 },
    { "sinks_text", m, sinks, window, LONGCTX_POS_TEXT, 0, tokens, 0 },
  };
  for (int i = 0; i < 4; i++)
    if (listed(o->arms, all[i].name)) jobs[n++].a = all[i];
  for (int i = 0; i < n; i++) jobs[i].a.chunk = (int)o->chunk;
  if (n == 0) die("no such arm", o->arms);
  return n;
}

static int add_control_jobs(job *jobs, const options *o, const model *m, int64_t tokens)
{
  int sinks = (int)o->sinks, window = (int)o->window, chunk = (int)o->chunk;
  int64_t fewer = tokens < 20000 ? tokens : 20000;
  arm plain = { "control_window", m, 0, sinks + window, LONGCTX_POS_CACHE, chunk, fewer, 0 };
  arm with = { "control_sinks", m, sinks, window, LONGCTX_POS_CACHE, chunk, fewer, 0 };
  jobs[0].a = plain;
  jobs[1].a = with;
  return 2;
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

static void print_table(const job *jobs, int n_jobs)
{
  char tokens[32], kv[32], rss[32], first[32], last[32];
  printf("\n| arm | tokens | kv_bytes | peak_rss | tps_first | tps_last | ppl_first | ppl_last |\n"
         "|---|---:|---:|---:|---:|---:|---:|---:|\n");
  for (int i = 0; i < n_jobs; i++) {
    const result *r = &jobs[i].last.result;
    printf("| %s | %s | %s | %s | %s | %s | %.2f | %.2f |\n", jobs[i].a.name,
           commas(tokens, (double)r->tokens), bytes_text(kv, r->kv_bytes),
           bytes_text(rss, r->peak_rss), commas(first, r->tps_first), commas(last, r->tps_last),
           r->ppl_first, r->ppl_last);
  }
}

static void print_csv(const job *jobs, int n_jobs)
{
  printf("arm,tokens,kv_bytes,peak_rss,tps_first,tps_last,ppl_first,ppl_last\n");
  for (int i = 0; i < n_jobs; i++) {
    const result *r = &jobs[i].last.result;
    printf("%s,%lld,%lld,%lld,%.1f,%.1f,%.4f,%.4f\n", jobs[i].a.name, (long long)r->tokens,
           (long long)r->kv_bytes, (long long)r->peak_rss, r->tps_first, r->tps_last,
           r->ppl_first, r->ppl_last);
  }
}

static void print_result(const job *jobs, int n_jobs, int n_control, int64_t tokens)
{
  printf("\n");
  if (n_control > 0) {
    printf("The cause: the control model learnt the same kind of text from windows that began "
           "anywhere in it,\nnever with a text start in their first slot. Nothing taught it to "
           "rest its attention there, so a plain\nwindow should cost it nothing and sinks should "
           "gain it nothing:\n");
    print_table(jobs + n_jobs, n_control);
    printf("\n");
  }
  for (int i = 0; i < n_jobs; i++)
    if (strcmp(jobs[i].a.name, "dense") == 0) print_dense_end(&jobs[i], tokens);
    else print_steady(&jobs[i]);
  printf("First and last stand for a tenth of an arm's tokens, from where its window was full.\n");
  print_table(jobs, n_jobs);
}

/* ==== the program ==== */

static int *read_text(const options *o, int vocab_size, int64_t *tokens)
{
  tokenizer t;
  engine_error error;
  char had[32], asked[32];
  size_t n_bytes, n;
  if (tokenizer_load(&t, o->tokenizer, vocab_size, &error)) die(o->tokenizer, error.text);
  unsigned char *bytes = file_read(o->text, &n_bytes, &error);
  if (!bytes) die(o->text, error.text);
  int *text = tokenizer_encode(&t, (char *)bytes, n_bytes, &n, &error);
  if (!text) die(o->text, error.text);
  free(bytes);
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

static void load_model(model *m, const char *path)
{
  engine_error error;
  if (model_load(m, path, &error)) die(path, error.text);
  fprintf(stderr, "%s: %d layers, %d heads on %d, dim %d, vocabulary %d, trained length %d\n", path,
          m->n_layers, m->n_heads, m->n_kv_heads, m->dim, m->vocab_size, m->trained_len);
}

int main(int argc, char **argv)
{
  options o = parse_options(argc, argv);
  static job jobs[MAX_JOBS];
  model m, control;
  int64_t tokens;
  int n_control = 0, failed = 0;
  load_model(&m, o.model);
  if (!o.tokenizer) o.tokenizer = m.has_tokenizer ? o.model : "examples/models/story.tok";
  if (o.window == 0) o.window = m.trained_len / 2 - o.sinks;
  if (o.window < 1) die("-w", "no room for a window beside the sinks in half the trained length");
  int *text = read_text(&o, m.vocab_size, &tokens);
  int n_jobs = add_jobs(jobs, &o, &m, tokens);
  if (o.control) {
    load_model(&control, o.control);
    if (control.vocab_size != m.vocab_size) die(o.control, "its vocabulary is another");
    n_control = add_control_jobs(jobs + n_jobs, &o, &control, tokens);
  }

  run_jobs(jobs, n_jobs + n_control, (int)o.jobs, text);
  for (int i = 0; i < n_jobs + n_control; i++) failed += jobs[i].last.failed;
  if (failed == 0 && o.csv) print_csv(jobs, n_jobs + n_control);
  if (failed == 0 && !o.csv) print_result(jobs, n_jobs, n_control, tokens);

  free(text);
  model_free(&m);
  if (o.control) model_free(&control);
  if (failed) die("an arm failed", "see above");
  return fflush(stdout) ? 1 : 0;
}
