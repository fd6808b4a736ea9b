/* curves.c - memory, latency and perplexity against length: one text through each arm.

   run  build/bench/curves -f TEXT [options]      (from the repository's root; make bench)

   -m FILE             the model                        (examples/models/story.bin)
   -t FILE             its tokenizer                    (examples/models/story.tok)
   -f FILE             the text; - reads standard input (-)
   -n TOKENS           how many tokens to stream        (100000)
   -a ARM,ARM          only these arms                  (all that the models can)
   -s SINKS            first tokens that stay for ever  (4)
   -w WINDOW           recent tokens beside them        (1024 or half the trained length, - SINKS)
   -j JOBS             arms at a time                   (1: latencies of arms that are alone)
   -o md|csv|json      the result on standard output    (md)
   --csv FILE          every row as CSV                 (bench/out/curves.csv)
   --type T            keys and values: f32, f16, bf16 or q8 (int8)  (f32)
   --chunk N           a second run of each arm, N tokens a pass: the same bits, faster
   --singly N          the first run, of a token a pass, only so far   (as far as the second)
   --more              also the arms marked + below, in the second run alone
   --recall            also the arms that remember, on the shipped models trained for it
   --dense-tokens N    where the dense arm's memory ends  (8192, or half again the trained length)
   --dense-seconds N   and its time                       (600)
   --checkpoint BASE   BASE-ARM.state: context and rows, now and then and when stopped
   --resume BASE       goes on from those that are there, and keeps them up to date
   --stop N            stops after N tokens, as ^C would
   --commit NAME       what was measured; stands in the CSV
   --sizes             only the table of states of well-known models

   The arms; attention_sinks calls the first three transformers, windowed and attention_sinks:
     dense            every token sees all before it, within its budget
     window           the last SINKS + WINDOW tokens, nothing else
     sinks            the first SINKS and the last WINDOW, at their positions in the cache
     sinks_text       the same tokens, at their positions in the text
   + sinks_1, sinks_2, sinks_8     so many sinks, in the same number of keys
   + sinks_half       half as many keys, SINKS of them sinks
   + sinks_f16, sinks_int8         sinks, in a smaller type
   and of models that were trained to remember, with the window that they were trained with,
     memory_linear, memory_delta   Infini-attention
     block_window_m1               the model of feedback: a block and the present one, no rows
     feedback_m0                   TransformerFAM
     recall_window                 with --recall: the model of memory_linear, its window alone

   Each arm is a process of its own, so that its memory is its own. A row stands for the tokens
   since the row before: nll and ppl are means over them, latency_s the mean of seconds per token
   (forward pass and commit by the wall clock; scoring is not in it), p50_s and p999_s quantiles of
   the same passes, to 1 %. cpu_p50_s and cpu_p999_s are, too, but of the time that the arm had a
   core: what other processes take is not in them. One thread, or OMP_NUM_THREADS: of several, that
   time is the first one's, its waiting for the others in it. overall_ppl is of all tokens so far.
   kv_bytes and state_bytes are longctx_measure's: ours are there from the first token on; dense
   counts a context as long as its text so far, and what its block has not filled yet is given back
   to the system, so that rss_bytes tells the same. */
#define _GNU_SOURCE 1
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#define BENCH "curves"
#include "arms.h"
#include "words.h"
#include "engine.h"
#include "recall_text.h"
#include "bench.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <signal.h>
#include <sys/mman.h>
#include <sys/utsname.h>

/* ==== options ==== */

typedef struct options {
  const char *model, *tokenizer, *text, *arms, *format, *csv, *type, *checkpoint, *resume, *commit;
  long tokens, sinks, window, jobs, chunk, singly, dense_tokens, dense_seconds, stop;
  int recall, sizes, more;
} options;

static options options_of(int argc, char **argv)
{
  options o = { "examples/models/story.bin", "examples/models/story.tok", "-", NULL, "md",
                "bench/out/curves.csv", "f32", NULL, NULL, "-", 100000, 4, 0, 1, 1, 1000000000L,
                0, 600, 0, 0, 0, 0 };
  const option known[] = {
    { "-m", &o.model, NULL, 0, NULL },      { "-t", &o.tokenizer, NULL, 0, NULL },
    { "-f", &o.text, NULL, 0, NULL },       { "-a", &o.arms, NULL, 0, NULL },
    { "-o", &o.format, NULL, 0, NULL },     { "--csv", &o.csv, NULL, 0, NULL },
    { "--type", &o.type, NULL, 0, NULL },   { "--checkpoint", &o.checkpoint, NULL, 0, NULL },
    { "--resume", &o.resume, NULL, 0, NULL }, { "--commit", &o.commit, NULL, 0, NULL },
    { "-n", NULL, &o.tokens, 1, NULL },     { "-s", NULL, &o.sinks, 0, NULL },
    { "-w", NULL, &o.window, 1, NULL },     { "-j", NULL, &o.jobs, 1, NULL },
    { "--chunk", NULL, &o.chunk, 1, NULL }, { "--singly", NULL, &o.singly, 1, NULL },
    { "--more", NULL, NULL, 0, &o.more },   { "--dense-tokens", NULL, &o.dense_tokens, 1, NULL },
    { "--dense-seconds", NULL, &o.dense_seconds, 1, NULL }, { "--stop", NULL, &o.stop, 1, NULL },
    { "--recall", NULL, NULL, 0, &o.recall }, { "--sizes", NULL, NULL, 0, &o.sizes },
  };
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  if (strcmp(o.format, "md") && strcmp(o.format, "csv") && strcmp(o.format, "json"))
    die("-o takes md, csv or json", o.format);
  if (o.resume) o.checkpoint = o.resume;
  return o;
}

static const char *const type_names[] = { "f32", "f16", "bf16", "q8" }; /* in longctx.h's order */

static int parse_type(const char *name)
{
  for (int i = 0; i < 4; i++)
    if (strcmp(name, type_names[i]) == 0) return i;
  die("--type takes f32, f16, bf16 or q8", name);
  return 0;
}

/* ==== what is measured ==== */

typedef struct row {
  int64_t input_length, kv_bytes, state_bytes, rss_bytes;
  double nll, overall_nll, latency, p50, p999, cpu_p50, cpu_p999;
} row;

/* seconds, in bins of 1 % from 100 ns to about 100 s */
enum { N_BINS = 2100 };
typedef struct histogram { uint64_t n; uint32_t bins[N_BINS]; } histogram;

static void histogram_add(histogram *h, double seconds, int n)
{
  int bin = (int)(log(fmax(seconds, 1e-7) / 1e-7) / log(1.01));
  h->bins[bin < N_BINS ? bin : N_BINS - 1] += (uint32_t)n;
  h->n += (uint64_t)n;
}

/* the least time that a share of all did not exceed, at the middle of its bin */
static double histogram_quantile(const histogram *h, double share)
{
  if (h->n == 0) return 0;
  uint64_t seen = 0;
  int i = 0;
  while (i < N_BINS && (double)(seen += h->bins[i]) < share * (double)h->n) i++;
  return 1e-7 * pow(1.01, i + 0.5);
}

/* Everything measured of an arm so far, in a fixed size: what a checkpoint keeps beside the
   context. The fields of `span` are of the tokens since the last row. */
enum { MOST_ROWS = 512 };
typedef struct measured {
  char format[16];
  uint64_t model, text;                 /* fingerprints of the file and of the tokens read */
  int64_t tokens, span_from;
  double nll, seconds, span_nll, span_seconds;
  histogram span, span_cpu, all, all_cpu;
  int n_rows;
  row rows[MOST_ROWS];
} measured;

static const char format[16] = "curves 2";

static double seconds_now(void) { return seconds(CLOCK_MONOTONIC); }

/* pages in memory now; at their most where the system does not tell */
static int64_t rss(void)
{
  static FILE *file; /* opened once, unbuffered: asking takes no memory */
  long all, resident;
  if (!file && (file = fopen("/proc/self/statm", "r")) != NULL) setvbuf(file, NULL, _IONBF, 0);
  if (!file) return peak_rss();
  rewind(file);
  if (fscanf(file, "%ld %ld", &all, &resident) != 2) return peak_rss();
  return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static uint64_t fingerprint(const void *bytes, size_t n, uint64_t hash)
{
  const unsigned char *at = bytes;
  for (size_t i = 0; i < n; i++) hash = (hash ^ at[i]) * 0x100000001b3u;
  return hash;
}

/* ==== arms ==== */

typedef struct source { /* a model and what it reads */
  const char *model_name, *text_name;
  model m;
  uint64_t fingerprint;
  int *text;
  int64_t tokens;
} source;

typedef struct arm {
  const char *name;
  const source *s;
  longctx_desc desc;
  int dense, chunk;
  int64_t tokens;      /* how many to stream, */
  int64_t whole;       /* of so many: rows of all arms stand at the same lengths */
  double budget;       /* seconds, 0 = as long as it takes */
} arm;

/* ==== an arm's own process ==== */

static volatile sig_atomic_t stop_asked;

static void ask_stop(int number)
{
  (void)number;
  stop_asked = 1;
}

typedef struct stream {
  const arm *a;
  const options *o;
  engine e;
  longctx *context;
  float *logits;        /* [chunk][vocab_size] */
  measured now;
  double saved, saving; /* when, and how long it took */
  int pipe_end;
} stream;

/* what an arm's process tells: how far it is, each row, and at the end how it ended */
typedef struct message {
  int done, failed, stopped, has_row, resumed;
  int64_t tokens;
  double seconds, ppl, p50, p999, cpu_p50, cpu_p999;
  row row;
  char failure[sizeof(engine_error)];
} message;

static void tell(const stream *s, message *m)
{
  m->tokens = s->now.tokens;
  m->seconds = s->now.seconds;
  m->ppl = exp(s->now.nll / (double)(s->now.tokens ? s->now.tokens : 1));
  if (write(s->pipe_end, m, sizeof *m) != (ssize_t)sizeof *m) _exit(1);
}

static void tell_row(const stream *s, const row *r)
{
  message m;
  memset(&m, 0, sizeof m);
  m.has_row = 1;
  m.row = *r;
  tell(s, &m);
}

/* Pages of a block with nothing but zeros go back to the system; read, they are zeros again. */
static void give_back_zeros(unsigned char *block, size_t bytes)
{
  static const unsigned char zeros[65536];
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (page > sizeof zeros) return;
#ifdef MADV_NOHUGEPAGE
  madvise(block, bytes, MADV_NOHUGEPAGE);
#endif
  for (size_t at = 0; at + page <= bytes; at += page)
    if (memcmp(block + at, zeros, page) == 0) madvise(block + at, page, MADV_DONTNEED);
}

static const char *stream_start(stream *s, engine_error *error)
{
  const arm *a = s->a;
  size_t bytes = longctx_size(&a->desc);
  if (bytes == 0) return longctx_check(&a->desc);
  void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return "no memory for its context";
  s->context = longctx_init(block, bytes, &a->desc);
  if (!s->context) return longctx_check(&a->desc);
  if (a->dense) give_back_zeros(block, bytes);
  if (engine_init(&s->e, &a->s->m, a->chunk, error)) return error->text;
  s->logits = malloc((size_t)a->chunk * (size_t)a->s->m.vocab_size * sizeof(float));
  if (!s->logits) return "no memory for its logits";
  memset(&s->now, 1, sizeof s->now); /* touched now, so that no page comes later */
  memset(&s->now, 0, sizeof s->now);
  memcpy(s->now.format, format, sizeof format);
  s->now.model = a->s->fingerprint;
  return NULL;
}

/* ---- checkpoints ---- */

static void checkpoint_name(const stream *s, const char *end, char *name, size_t size)
{
  if (s->a->chunk > 1)
    snprintf(name, size, "%s-%s-%d%s", s->o->checkpoint, s->a->name, s->a->chunk, end);
  else snprintf(name, size, "%s-%s%s", s->o->checkpoint, s->a->name, end);
}

static uint64_t text_read(const stream *s)
{
  size_t n = s->now.tokens ? (size_t)s->now.tokens + 1 : 0; /* the last was predicted */
  return fingerprint(s->a->s->text, n * sizeof(int), 0xcbf29ce484222325u);
}

/* A crash at any moment leaves the old checkpoint or the new one. */
static const char *checkpoint_save(stream *s)
{
  char name[512], beside[512];
  checkpoint_name(s, ".state", name, sizeof name);
  checkpoint_name(s, ".state.new", beside, sizeof beside);
  double begin = seconds_now();
  FILE *f = fopen(beside, "wb");
  if (!f) return "its checkpoint cannot be written";
  s->now.text = text_read(s);
  int bad = fwrite(&s->now, sizeof s->now, 1, f) != 1 || longctx_save(s->context, f) ||
            fflush(f) || fsync(fileno(f));
  bad |= fclose(f) != 0;
  s->saved = seconds_now();
  s->saving = s->saved - begin;
  return bad || rename(beside, name) ? "its checkpoint was not written" : NULL;
}

/* 1: there was one, and it goes on from there; 0: there is none; -1 and why */
static int checkpoint_load(stream *s, const char **failure)
{
  static measured then;
  char name[512];
  checkpoint_name(s, ".state", name, sizeof name);
  FILE *f = fopen(name, "rb");
  if (!f) return 0;
  *failure = "its checkpoint is damaged, or of another version";
  int ok = fread(&then, sizeof then, 1, f) == 1 && memcmp(then.format, format, sizeof format) == 0;
  ok = ok && then.n_rows >= 0 && then.n_rows <= MOST_ROWS && then.tokens >= 0;
  if (ok) *failure = "its checkpoint is of another model, text, window or type";
  ok = ok && then.model == s->now.model && then.tokens <= s->a->s->tokens;
  ok = ok && longctx_restore(s->context, f) == LONGCTX_OK;
  ok = ok && longctx_position(s->context) == then.tokens;
  fclose(f);
  if (!ok) return -1;
  s->now = then;
  if (text_read(s) != then.text) return -1;
  *failure = NULL;
  return 1;
}

/* ---- rows ---- */

/* The next length that has a row: close together at first, later a hundred and fifty to the end. */
static int64_t next_row(const stream *s)
{
  int64_t from = s->now.span_from, widest = s->a->whole / 150, step = from / 16;
  if (step > widest) step = widest;
  if (step < 16) step = 16;
  return from + step < s->a->tokens ? from + step : s->a->tokens;
}

static void set_bytes(const stream *s, row *r)
{
  longctx_sizes sizes;
  longctx_desc desc = s->a->desc;
  if (s->a->dense) desc.window = (int)s->now.tokens;
  if (longctx_measure(&desc, &sizes)) memset(&sizes, 0, sizeof sizes);
  r->kv_bytes = (int64_t)sizes.window;
  r->state_bytes = (int64_t)sizes.state;
}

static void add_row(stream *s)
{
  measured *m = &s->now;
  double n = (double)(m->tokens - m->span_from);
  row *r = &m->rows[m->n_rows++];
  set_bytes(s, r);
  r->input_length = m->tokens;
  r->rss_bytes = rss();
  r->nll = m->span_nll / n;
  r->overall_nll = m->nll / (double)m->tokens;
  r->latency = m->span_seconds / n;
  r->p50 = histogram_quantile(&m->span, 0.5);
  r->p999 = histogram_quantile(&m->span, 0.999);
  r->cpu_p50 = histogram_quantile(&m->span_cpu, 0.5);
  r->cpu_p999 = histogram_quantile(&m->span_cpu, 0.999);
  m->span_from = m->tokens;
  m->span_nll = m->span_seconds = 0;
  memset(&m->span, 0, sizeof m->span);
  memset(&m->span_cpu, 0, sizeof m->span_cpu);
  tell_row(s, r);
}

static void add_time(measured *m, double spent, double cpu, int n)
{
  m->tokens += n;
  m->seconds += spent;
  m->span_seconds += spent;
  histogram_add(&m->span, spent / n, n);
  histogram_add(&m->all, spent / n, n);
  histogram_add(&m->span_cpu, cpu / n, n);
  histogram_add(&m->all_cpu, cpu / n, n);
}

/* One pass over the next tokens, timed; then each of their successors is scored. */
static int stream_step(stream *s)
{
  measured *m = &s->now;
  const int *text = s->a->s->text + m->tokens;
  int64_t left = next_row(s) - m->tokens;
  int vocab = s->a->s->m.vocab_size, n = s->a->chunk, room = longctx_room(s->context);
  if (n > room) n = room;
  if (n > left) n = (int)left;
  double begin = seconds_now(), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
  int code = engine_forward(&s->e, s->context, text, n, s->logits, n);
  if (code == LONGCTX_OK) code = engine_commit(&s->e, s->context, n);
  double spent = seconds_now() - begin;
  cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
  if (code != LONGCTX_OK) return code;
  for (int i = 0; i < n; i++) {
    double nll = logits_nll(s->logits + (size_t)i * (size_t)vocab, vocab, text[i + 1]);
    m->nll += nll;
    m->span_nll += nll;
  }
  add_time(m, spent, cpu, n);
  return LONGCTX_OK;
}

static const char *why(int code) { return code == LONGCTX_OK ? NULL : longctx_error(code); }

static const char *stream_begin(stream *s)
{
  const char *failure = NULL;
  message m;
  int resumed = s->o->resume ? checkpoint_load(s, &failure) : 0;
  if (resumed < 0) return failure;
  if (resumed == 0) return why(engine_start(&s->e, s->context));
  for (int i = 0; i < s->now.n_rows; i++) tell_row(s, &s->now.rows[i]);
  memset(&m, 0, sizeof m);
  m.resumed = 1;
  tell(s, &m);
  return NULL;
}

static const char *stream_run(stream *s)
{
  const arm *a = s->a;
  measured *m = &s->now;
  const char *failure = stream_begin(s);
  double told = 0;
  message news;
  if (!failure && s->o->checkpoint) failure = checkpoint_save(s);
  if (failure) return failure;
  while (m->tokens < a->tokens && !stop_asked && (a->budget == 0 || m->seconds < a->budget)) {
    int code = stream_step(s);
    if (code != LONGCTX_OK) return why(code);
    if (s->o->stop && m->tokens >= s->o->stop) stop_asked = 1;
    if (m->tokens == next_row(s) && m->n_rows < MOST_ROWS) add_row(s);
    double now = seconds_now();
    if (s->o->checkpoint && now > s->saved + 5 + 50 * s->saving) failure = checkpoint_save(s);
    if (failure) return failure;
    if (now < told + 0.2) continue;
    told = now;
    memset(&news, 0, sizeof news);
    tell(s, &news);
  }
  int stopped = stop_asked && m->tokens < a->tokens;
  if (!stopped && m->tokens > m->span_from && m->n_rows < MOST_ROWS) add_row(s);
  return s->o->checkpoint ? checkpoint_save(s) : NULL;
}

static void run_arm(const arm *a, const options *o, int pipe_end)
{
  static stream s;
  engine_error error;
  message m;
  memset(&m, 0, sizeof m);
  s.a = a;
  s.o = o;
  s.pipe_end = pipe_end;
  const char *failure = stream_start(&s, &error);
  if (!failure) failure = stream_run(&s);
  m.done = 1;
  m.failed = failure != NULL;
  m.stopped = stop_asked && s.now.tokens < a->tokens;
  m.p50 = histogram_quantile(&s.now.all, 0.5);
  m.p999 = histogram_quantile(&s.now.all, 0.999);
  m.cpu_p50 = histogram_quantile(&s.now.all_cpu, 0.5);
  m.cpu_p999 = histogram_quantile(&s.now.all_cpu, 0.999);
  if (failure) snprintf(m.failure, sizeof m.failure, "%s", failure);
  tell(&s, &m);
}

/* ==== the process that starts them and shows how far they are ==== */

typedef struct job {
  arm a;
  message last;
  int64_t tokens;        /* where it began, and after how many seconds, if it was resumed */
  double seconds, tps;
  int n_rows;
  row rows[MOST_ROWS];
} job;

typedef struct run {
  options o;
  job jobs[MOST_ARMS];
  arms processes;
  int n_jobs, n_first;   /* the first run's come first */
  char machine[128], date[16];
  double load;           /* average, when the run began: neighbours make latencies spike */
} run;

static void work_job(void *all, int i, int pipe_end)
{
  const run *r = all;
  run_arm(&r->jobs[i].a, &r->o, pipe_end);
}

static int hear_job(void *all, int i, int pipe_end)
{
  run *r = all;
  job *j = &r->jobs[i];
  message m;
  if (arms_message(pipe_end, &m, sizeof m)) {
    if (m.has_row && j->n_rows < MOST_ROWS) j->rows[j->n_rows++] = m.row;
    if (m.resumed) j->tokens = m.tokens, j->seconds = m.seconds;
    if (m.tokens > j->tokens && m.seconds > j->seconds)
      j->tps = (double)(m.tokens - j->tokens) / (seconds_now() - r->processes.of[i].begun);
    j->last = m;
  } else {
    j->last.done = j->last.failed = 1;
    snprintf(j->last.failure, sizeof j->last.failure, "its process ended early");
  }
  return j->last.done;
}

static const char *time_text(char text[32], double seconds)
{
  if (seconds < 3600) snprintf(text, 32, "%d:%02d", (int)seconds / 60, (int)seconds % 60);
  else snprintf(text, 32, "%d h %02d min", (int)seconds / 3600, (int)seconds / 60 % 60);
  return text;
}

static double seconds_left(const job *j)
{
  double left = j->tps > 0 ? (double)(j->a.tokens - j->last.tokens) / j->tps : 0;
  double budget = j->a.budget - j->last.seconds;
  return j->a.budget > 0 && left > budget ? fmax(budget, 0) : left;
}

/* in 80 columns, so that a terminal need not wrap it */
static void show_job(const void *all, int i)
{
  const run *r = all;
  const job *j = &r->jobs[i];
  char done[32], most[32], left[32], name[48];
  snprintf(name, sizeof name, j->a.chunk > 1 ? "%s, by %d" : "%s", j->a.name, j->a.chunk);
  fprintf(stderr, "%-20s ", name);
  commas(done, (double)j->last.tokens);
  if (j->last.failed) fprintf(stderr, "failed: %s", j->last.failure);
  else if (!r->processes.of[i].id) fprintf(stderr, "waits");
  else if (j->last.stopped) fprintf(stderr, "stopped after %s tokens", done);
  else if (j->last.done) fprintf(stderr, "done, %s tokens, ppl %.2f", done, j->last.ppl);
  else
    fprintf(stderr, "%3d%%  %s of %s tokens, ppl %.2f, %s left",
            (int)(100 * j->last.tokens / j->a.tokens), done, commas(most, (double)j->a.tokens),
            j->last.ppl, time_text(left, seconds_left(j)));
}

/* ==== the rows as files ==== */

/* a value in a CSV: no comma, no quote, no line's end */
static const char *plain(char out[128], const char *text)
{
  int i = 0;
  for (; text[i] && i < 127; i++)
    out[i] = (unsigned char)text[i] < ' ' || strchr(",\"\\", text[i]) ? ' ' : text[i];
  out[i] = 0;
  return out;
}

static void csv_rows(const run *r, const job *j, FILE *f)
{
  char model[128], text[128], commit[128];
  plain(model, j->a.s->model_name);
  plain(text, j->a.s->text_name);
  plain(commit, r->o.commit);
  for (int i = 0; i < j->n_rows; i++) {
    const row *x = &j->rows[i];
    fprintf(f, "%s,%lld,%.17g,%.6g,%.6g,%lld,%lld,%lld,%.4g,%.4g,%.4g,%.4g,%.4g,%s,%d,%s,%s,%d,"
               "%s,%s,%s\n", j->a.name, (long long)x->input_length, x->nll, exp(x->nll),
            exp(x->overall_nll), (long long)x->kv_bytes, (long long)x->state_bytes,
            (long long)x->rss_bytes, x->latency, x->p50, x->p999, x->cpu_p50, x->cpu_p999, model,
            j->a.s->m.trained_len, text, type_names[j->a.desc.type_k], j->a.chunk, r->machine, commit, r->date);
  }
}

static void csv_file(const run *r, FILE *f)
{
  fprintf(f, "arm,input_length,nll,ppl,overall_ppl,kv_bytes,state_bytes,rss_bytes,latency_s,p50_s,"
             "p999_s,cpu_p50_s,cpu_p999_s,model,trained_len,text,type,chunk,machine,commit,date\n");
  for (int i = 0; i < r->n_jobs; i++) csv_rows(r, &r->jobs[i], f);
}

/* The whole file, beside the old one until it is complete. */
static void write_csv(const run *r)
{
  char beside[512];
  snprintf(beside, sizeof beside, "%s.new", r->o.csv);
  FILE *f = fopen(beside, "w");
  if (!f) die(beside, strerror(errno));
  csv_file(r, f);
  if (fclose(f) || rename(beside, r->o.csv)) die(r->o.csv, strerror(errno));
}

/* whoever asked us to stop may not have asked them */
static void stop_jobs(const run *r)
{
  for (int i = 0; i < r->n_jobs; i++)
    if (r->processes.of[i].id && !r->processes.of[i].done) kill(r->processes.of[i].id, SIGTERM);
}

static void run_jobs(run *r)
{
  arms *a = &r->processes;
  double written = seconds_now();
  int more;
  a->n = r->n_jobs;
  a->quiet = 15;
  a->run = r;
  a->work = work_job;
  a->hear = hear_job;
  a->line = show_job;
  while ((more = arms_step(a, stop_asked ? 0 : (int)r->o.jobs)) > 0) {
    if (stop_asked) stop_jobs(r);
    if (seconds_now() < written + 5) continue;
    written = seconds_now();
    write_csv(r); /* what was measured is never lost */
  }
  if (more < 0) die("no process, or none that speaks", strerror(errno));
  write_csv(r);
}

/* ==== what the rows amount to ==== */

typedef struct line { double a, b; } line;

/* bytes = a + b * tokens, by least squares, from where the arm's window is full */
static line fit(const job *j, size_t field)
{
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  int64_t full = j->a.dense ? 0 : (int64_t)j->a.desc.sinks + j->a.desc.window;
  line l = { 0, 0 };
  for (int pass = 0; pass < 2; pass++) /* sums about the means: a constant has a slope of 0 */
    for (int i = 0; i < j->n_rows; i++) {
      int64_t bytes;
      double at = (double)j->rows[i].input_length;
      if (at < (double)full) continue;
      memcpy(&bytes, (const char *)&j->rows[i] + field, sizeof bytes);
      if (pass == 0) n++, x += at, y += (double)bytes;
      else xx += (at - x / n) * (at - x / n), xy += (at - x / n) * ((double)bytes - y / n);
    }
  l.b = xx > 0 ? xy / xx : 0;
  l.a = n > 0 ? y / n - l.b * x / n : 0;
  return l;
}

typedef struct summary { double first, last, all; } summary; /* perplexities */

/* of the first and last tenth of what came after the window was full, and of everything */
static summary summarize(const job *j)
{
  const row *end = &j->rows[j->n_rows - 1];
  int64_t full = j->a.dense ? 0 : (int64_t)j->a.desc.sinks + j->a.desc.window, from = 0;
  double sum[2] = { 0, 0 }, n[2] = { 0, 0 };
  if (full >= end->input_length) full = 0;
  int64_t tenth = (end->input_length - full) / 10;
  for (int i = 0; i < j->n_rows; from = j->rows[i++].input_length) {
    double tokens = (double)(j->rows[i].input_length - from);
    int in[2] = { from >= full && from < full + tenth, from >= end->input_length - tenth };
    in[1] |= i == j->n_rows - 1;
    for (int k = 0; k < 2; k++)
      if (in[k]) sum[k] += tokens * j->rows[i].nll, n[k] += tokens;
  }
  summary s = { n[0] > 0 ? exp(sum[0] / n[0]) : exp(end->overall_nll), exp(sum[1] / n[1]),
                exp(end->overall_nll) };
  return s;
}

/* ==== the result ==== */

typedef struct known_model {
  const char *name;
  int layers, heads, kv_heads, head_dim;
  int half_window;               /* of every other layer, which the model was trained with, or 0 */
} known_model;

static const known_model known_models[] = {
  { "Llama-3.1-8B", 32, 32, 8, 128, 0 }, { "Llama-2-7B", 32, 32, 32, 128, 0 },
  { "Mistral-7B", 32, 32, 8, 128, 0 },   { "Qwen2.5-7B", 28, 28, 4, 128, 0 },
  { "gpt-oss-20b", 24, 64, 8, 64, 128 }, { "SmolLM2-135M", 30, 9, 3, 64, 0 },
};

static void print_state(const known_model *k, int window, int type)
{
  char text[32];
  longctx_sizes sizes;
  longctx_layer layers[64];
  longctx_desc d = longctx_desc_make(k->layers, k->heads, k->kv_heads, k->head_dim, window - 4);
  d.sinks = 4;
  d.type_k = d.type_v = type;
  for (int i = 0; i < k->layers; i++) {
    layers[i] = longctx_layer_make(&d);
    if (k->half_window && i % 2 == 0) layers[i].window = k->half_window;
  }
  d.layers = layers;
  if (longctx_measure(&d, &sizes)) die("sizes", longctx_check(&d));
  printf(" %s |", bytes_text(text, (double)sizes.state));
}

static void print_sizes(void)
{
  printf("States of well-known models, 4 sinks and the rest window, all layers, by "
         "longctx_measure; beside them\nwhat a cache of 128K tokens takes. A state is one block "
         "without pointers: "
         "in VRAM it takes the same bytes.\n\n"
         "| model | layers, KV heads, head_dim | 1K float16 | 1K int8 | 4K float16 | 4K int8 "
         "| 128K float16 |\n|---|---|---:|---:|---:|---:|---:|\n");
  for (size_t i = 0; i < sizeof known_models / sizeof *known_models; i++) {
    const known_model *k = &known_models[i];
    printf("| %s | %d, %d, %d |", k->name, k->layers, k->kv_heads, k->head_dim);
    print_state(k, 1024, LONGCTX_F16);
    print_state(k, 1024, LONGCTX_Q8);
    print_state(k, 4096, LONGCTX_F16);
    print_state(k, 4096, LONGCTX_Q8);
    print_state(k, 131072, LONGCTX_F16);
    printf("\n");
  }
}

/* rows of two runs of an arm that stand at the same length; how many, and how many losses agree */
static void compare(const job *a, const job *b, int *rows, int *same)
{
  *rows = *same = 0;
  for (int i = 0, k = 0; i < a->n_rows; i++) {
    while (k < b->n_rows && b->rows[k].input_length < a->rows[i].input_length) k++;
    if (k == b->n_rows || b->rows[k].input_length != a->rows[i].input_length) continue;
    ++*rows;
    *same += memcmp(&a->rows[i].nll, &b->rows[k].nll, sizeof(double)) == 0;
  }
}

static void print_chunks(const run *r)
{
  if (r->n_jobs == r->n_first) return;
  printf("\nThe second run, %ld tokens a pass; medians:\n\n| arm | us a token, one by one "
         "| in chunks | rows with the same bits of nll |\n|---|---:|---:|---:|\n", r->o.chunk);
  for (int i = 0; i < r->n_first; i++) {
    const job *a = &r->jobs[i], *b = &r->jobs[r->n_first + i];
    int rows, same;
    compare(a, b, &rows, &same);
    printf("| %s | %.1f | %.1f | %d of %d |\n", a->a.name, 1e6 * a->last.p50,
           1e6 * b->last.p50, same, rows);
  }
}

/* The run of an arm that went farthest. */
static const job *farthest(const run *r, int i)
{
  const job *one = &r->jobs[i];
  if (i >= r->n_first || r->n_jobs == r->n_first) return one;
  const job *many = &r->jobs[r->n_first + i];
  return many->last.tokens > one->last.tokens ? many : one;
}

static void print_rss(const run *r)
{
  char start[32];
  printf("\nResident memory of each process, model, text and program in it, fitted likewise, "
         "and bytes a token:\n");
  for (int i = 0; i < r->n_first; i++) {
    if (r->jobs[i].n_rows == 0) continue;
    line l = fit(&r->jobs[i], offsetof(row, rss_bytes));
    printf("%s%s %s %+.4g", i ? "; " : "", r->jobs[i].a.name, bytes_text(start, l.a), l.b);
  }
  printf(".\n");
}

/* from one arm to the next: those of the first run, then those that only the second has */
static int next_arm(const run *r, int i) { return i == r->n_first - 1 ? r->n_first + 1 : 1; }

/* how far all arms came */
static int64_t common_length(const run *r)
{
  int64_t least = INT64_MAX;
  for (int i = 0; i < r->n_jobs; i += next_arm(r, i)) {
    const job *j = farthest(r, i);
    if (j->n_rows && j->rows[j->n_rows - 1].input_length < least)
      least = j->rows[j->n_rows - 1].input_length;
  }
  return least == INT64_MAX ? 0 : least;
}

static double overall_ppl_at(const job *j, int64_t length)
{
  int i = j->n_rows - 1;
  while (i > 0 && j->rows[i].input_length > length) i--;
  return exp(j->rows[i].overall_nll);
}

/* perplexity and bytes of the farther run of an arm, times of the one token by token */
static void print_arm(const run *r, int i, int64_t common)
{
  char tokens[32], kv[32], state[32], resident[32], start[32];
  const job *j = farthest(r, i), *single = i < r->n_first ? &r->jobs[i] : NULL;
  if (j->n_rows == 0) return;
  const row *end = &j->rows[j->n_rows - 1];
  line l = fit(j, offsetof(row, kv_bytes));
  summary s = summarize(j);
  printf("| %s | %s | %s | %s | %s | %s | %.4g | %.2f | %.2f | %.2f | %.2f |",
         j->a.name,
         commas(tokens, (double)end->input_length), bytes_text(kv, (double)end->kv_bytes),
         bytes_text(state, (double)end->state_bytes), bytes_text(resident, (double)end->rss_bytes),
         bytes_text(start, fabs(l.a) < 0.5 ? 0 : l.a), l.b, s.first, s.last, s.all,
         overall_ppl_at(j, common));
  if (!single) printf(" | | | |\n");
  else
    printf(" %.1f | %.1f | %.1f | %.1f |\n", 1e6 * single->last.p50, 1e6 * single->last.p999,
           1e6 * single->last.cpu_p50, 1e6 * single->last.cpu_p999);
}

static void print_md(const run *r)
{
  const source *s = NULL;
  char common[32];
  commas(common, (double)common_length(r));
  print_sizes();
  print_chunks(r);
  print_rss(r);
  printf("\n%s, %s, commit %s, keys and values %s unless an arm's name says another; "
         "load average %.1f before the run.\n"
         "attention_sinks calls dense, window and sinks transformers, windowed and "
         "attention_sinks.\n", r->machine, r->date, r->o.commit, r->o.type, r->load);
  for (int i = 0; i < r->n_jobs; i += next_arm(r, i)) {
    const job *j = &r->jobs[i];
    if (j->a.s != s)
      printf("%s%s reads %s: %s", s ? ".\n" : "", j->a.s->model_name, j->a.s->text_name, j->a.name);
    else printf(", %s", j->a.name);
    s = j->a.s;
  }
  printf(".\nkv_bytes = a + b * tokens, fitted from where the window is full; ppl_first and "
         "ppl_last are of a tenth\nof an arm's tokens each, from there on; the last ppl is of the "
         "tokens that all arms read. Times are of\npasses of one token; the cpu_ ones leave out "
         "what other processes took.\n\n"
         "| arm | tokens | kv_bytes | state_bytes | rss_bytes | a | b, bytes a token | ppl_first "
         "| ppl_last | ppl | ppl to %s | p50_us | p999_us | cpu_p50_us | cpu_p999_us |\n"
         "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n", common);
  for (int i = 0; i < r->n_jobs; i += next_arm(r, i)) print_arm(r, i, common_length(r));
}

/* a string of JSON; what would need an escape was made a space */
static void json_text(const char *name, const char *text, const char *end)
{
  char out[128];
  printf("\"%s\":\"%s\"%s", name, plain(out, text), end);
}

static void json_rows(const job *j)
{
  for (int i = 0; i < j->n_rows; i++) {
    const row *x = &j->rows[i];
    printf("%s\n   {\"input_length\":%lld,\"nll\":%.17g,\"ppl\":%.6g,\"overall_ppl\":%.6g,"
           "\"kv_bytes\":%lld,\"state_bytes\":%lld,\"rss_bytes\":%lld,\"latency_s\":%.4g,"
           "\"p50_s\":%.4g,\"p999_s\":%.4g,\"cpu_p50_s\":%.4g,\"cpu_p999_s\":%.4g}", i ? "," : "",
           (long long)x->input_length, x->nll, exp(x->nll), exp(x->overall_nll),
           (long long)x->kv_bytes, (long long)x->state_bytes, (long long)x->rss_bytes, x->latency,
           x->p50, x->p999, x->cpu_p50, x->cpu_p999);
  }
}

static void print_json(const run *r)
{
  printf("{");
  json_text("machine", r->machine, ",");
  json_text("commit", r->o.commit, ",");
  json_text("date", r->date, ",");
  json_text("type", r->o.type, ",\"arms\":[");
  for (int i = 0; i < r->n_jobs; i++) {
    const job *j = &r->jobs[i];
    line l = fit(j, offsetof(row, kv_bytes));
    printf("%s\n {", i ? "," : "");
    json_text("arm", j->a.name, ",");
    json_text("model", j->a.s->model_name, ",");
    json_text("text", j->a.s->text_name, ",");
    printf("\"chunk\":%d,\"kv_a\":%.6g,\"kv_b\":%.6g,\"p50_s\":%.4g,\"p999_s\":%.4g,\"rows\":[",
           j->a.chunk, l.a, l.b, j->last.p50, j->last.p999);
    json_rows(j);
    printf("]}");
  }
  printf("\n]}\n");
}

/* ==== what the arms are ==== */

/* the same keys and values for every arm of a model, sinks included */
static int window_of(const options *o, const model *m)
{
  int most = m->trained_len / 2 < 1024 ? m->trained_len / 2 : 1024;
  if (o->window) return (int)(o->window + o->sinks);
  if (m->block) return m->window;
  if (most <= o->sinks) die("-s", "no room for a window beside so many sinks");
  return most;
}

static longctx_desc plain_desc(const model *m, int window, int sinks, int positions)
{
  longctx_desc d = engine_desc(m, window - sinks);
  d.sinks = sinks;
  d.positions = positions;
  return d;
}

static longctx_desc blocks_desc(const model *m)
{
  longctx_desc d = engine_desc(m, 2 * m->block);
  d.block = m->block;
  return d;
}

/* NULL where -a does not list it */
static job *add_job(run *r, const source *s, const char *name, longctx_desc d, int64_t tokens)
{
  job *j = &r->jobs[r->n_jobs];
  if (!listed(r->o.arms, name)) return NULL;
  if (r->n_jobs == MOST_ARMS) die("too many arms", name);
  d.max_batch = 1;
  d.type_k = d.type_v = parse_type(r->o.type);
  j->a.name = name;
  j->a.s = s;
  j->a.desc = d;
  j->a.chunk = 1;
  j->a.tokens = tokens;
  j->a.whole = s->tokens;
  r->n_jobs++;
  return j;
}

static void add_plain(run *r, const source *s)
{
  int64_t dense = s->m.trained_len + s->m.trained_len / 2;
  if (dense < 8192) dense = 8192;
  if (r->o.dense_tokens) dense = r->o.dense_tokens;
  if (dense > s->tokens) dense = s->tokens;
  int window = window_of(&r->o, &s->m), sinks = (int)r->o.sinks;
  if (sinks >= window) die("-s", "no room for a window beside so many sinks");
  longctx_desc all_keys = plain_desc(&s->m, (int)dense, 0, LONGCTX_POS_CACHE);
  job *j = add_job(r, s, "dense", all_keys, dense);
  if (j) j->a.dense = 1, j->a.budget = (double)r->o.dense_seconds;
  add_job(r, s, "window", plain_desc(&s->m, window, 0, LONGCTX_POS_CACHE), s->tokens);
  add_job(r, s, "sinks", plain_desc(&s->m, window, sinks, LONGCTX_POS_CACHE), s->tokens);
  add_job(r, s, "sinks_text", plain_desc(&s->m, window, sinks, LONGCTX_POS_TEXT), s->tokens);
}

/* what the model was trained to keep */
static void add_trained(run *r, const source *s)
{
  const model *m = &s->m;
  const char *name = m->memory == LONGCTX_MEMORY_DELTA ? "memory_delta" : "memory_linear";
  if (m->memory) add_job(r, s, name, engine_trained_desc(m), s->tokens);
  if (!m->feedback_len) return;
  add_job(r, s, "block_window_m1", blocks_desc(m), s->tokens);
  add_job(r, s, "feedback_m0", engine_trained_desc(m), s->tokens);
}

/* ==== models and texts ==== */

static void load_model(source *s, const char *path)
{
  engine_error error;
  size_t n;
  s->model_name = path;
  if (model_load(&s->m, path, &error)) die(path, error.text);
  unsigned char *bytes = file_read(path, &n, &error);
  if (!bytes) die(path, error.text);
  s->fingerprint = fingerprint(bytes, n, 0xcbf29ce484222325u);
  free(bytes);
  fprintf(stderr, "%s: %d layers, %d heads on %d, dim %d, vocabulary %d, trained length %d\n", path,
          s->m.n_layers, s->m.n_heads, s->m.n_kv_heads, s->m.dim, s->m.vocab_size,
          s->m.trained_len);
}

static void read_text(const options *o, source *s)
{
  tokenizer t;
  engine_error error;
  char had[32], asked[32];
  size_t n;
  s->text_name = o->text;
  if (tokenizer_load(&t, o->tokenizer, s->m.vocab_size, &error)) die(o->tokenizer, error.text);
  s->text = tokenizer_encode_file(&t, o->text, &n, &error);
  if (!s->text) die(o->text, error.text);
  tokenizer_free(&t);
  if (n < 2) die("the text is empty", o->text);
  s->tokens = o->tokens;
  if (s->tokens > (int64_t)n - 1) {
    s->tokens = (int64_t)n - 1; /* the last one is only predicted */
    fprintf(stderr, "The text has %s tokens, fewer than the %s asked for: the arms stop at its "
            "end.\n", commas(had, (double)s->tokens), commas(asked, (double)o->tokens));
  }
  int *needed = realloc(s->text, ((size_t)s->tokens + 1) * sizeof *s->text);
  if (needed) s->text = needed;
}

/* sentences of recall's, as many as it takes; the same for all who read them */
static int *recall_text(int64_t tokens, int vocab_size)
{
  static grammar g;
  engine_error error;
  uint64_t seed = 1;
  int *text = malloc(((size_t)tokens + 1 + MOST_FORM) * sizeof *text);
  if (!text) die("no memory", "");
  if (grammar_load(&g, vocab_size, &error)) die("examples/models/recall.tok", error.text);
  text[0] = TOKEN_BOS;
  for (int64_t n = 1; n <= tokens;) n += say_filler(&g, &seed, text + n);
  return text;
}

/* The shipped models that remember; one that is not there is skipped by name. */
static void add_recall(run *r)
{
  static const struct { const char *path, *arms; } shipped[] = {
    { "examples/models/memory_linear.bin", "recall_window, memory_linear" },
    { "examples/models/memory_delta.bin", "memory_delta" },
    { "examples/models/feedback.bin", "block_window_m1, feedback_m0" },
  };
  static source sources[3];
  int *text = NULL;
  for (int i = 0; i < 3; i++) {
    source *s = &sources[i];
    if (access(shipped[i].path, R_OK)) {
      fprintf(stderr, "skipped: %s (no %s)\n", shipped[i].arms, shipped[i].path);
      continue;
    }
    load_model(s, shipped[i].path);
    if (!text) text = recall_text(r->o.tokens, s->m.vocab_size);
    s->text = text;
    s->text_name = "sentences of examples/recall_text.h";
    s->tokens = r->o.tokens;
    if (i == 0)
      add_job(r, s, "recall_window", plain_desc(&s->m, s->m.window, 0, LONGCTX_POS_CACHE),
              s->tokens);
    add_trained(r, s);
  }
}

/* in the second run alone */
static void add_more(run *r, const source *s)
{
  static const struct { const char *name; int sinks, half, type; } more[] = {
    { "sinks_1", 1, 0, -1 },     { "sinks_2", 2, 0, -1 },
    { "sinks_8", 8, 0, -1 },     { "sinks_half", -1, 1, -1 },
    { "sinks_f16", -1, 0, LONGCTX_F16 }, { "sinks_int8", -1, 0, LONGCTX_Q8 },
  };
  int window = window_of(&r->o, &s->m);
  for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
    int sinks = more[i].sinks < 0 ? (int)r->o.sinks : more[i].sinks;
    int keys = more[i].half ? window / 2 : window;
    if (sinks >= keys) die("-s", "no room for a window beside so many sinks");
    longctx_desc d = plain_desc(&s->m, keys, sinks, LONGCTX_POS_CACHE);
    job *j = add_job(r, s, more[i].name, d, s->tokens);
    if (j && more[i].type >= 0) j->a.desc.type_k = j->a.desc.type_v = more[i].type;
  }
}

/* The second run: the same arms and some more, many tokens a pass. The first may end earlier. */
static void add_chunks(run *r, const source *s)
{
  r->n_first = r->n_jobs;
  if (r->o.chunk > 1) {
    if (2 * r->n_first > MOST_ARMS) die("too many arms", "");
    for (int i = 0; i < r->n_first; i++) r->jobs[r->n_jobs++].a = r->jobs[i].a;
    if (r->o.more) add_more(r, s);
  }
  for (int i = 0; i < r->n_jobs; i++) {
    arm *a = &r->jobs[i].a;
    if (i >= r->n_first) a->chunk = a->desc.max_batch = (int)r->o.chunk;
    else if (a->tokens > r->o.singly) a->tokens = r->o.singly;
  }
}

/* ==== the program ==== */

static void name_machine(run *r)
{
  char text[256] = "";
  struct utsname u;
  time_t now = time(NULL);
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && fgets(text, sizeof text, f) && strncmp(text, "model name", 10)) text[0] = 0;
  if (f) fclose(f);
  char *name = strchr(text, ':');
  if (name) name += 2, name[strcspn(name, "\n")] = 0;
  else name = uname(&u) ? "unknown machine" : u.machine;
  char whole[300], safe[128];
  snprintf(whole, sizeof whole, "%s x %ld", name, sysconf(_SC_NPROCESSORS_ONLN));
  snprintf(r->machine, sizeof r->machine, "%s", plain(safe, whole));
  if (getloadavg(&r->load, 1) != 1) r->load = 0;
  strftime(r->date, sizeof r->date, "%Y-%m-%d", gmtime(&now));
}

static int report(const run *r)
{
  int failed = 0, stopped = stop_asked != 0;
  for (int i = 0; i < r->n_jobs; i++) {
    failed += r->jobs[i].last.failed;
    stopped |= r->jobs[i].last.stopped;
  }
  if (strcmp(r->o.format, "csv") == 0) csv_file(r, stdout);
  else if (strcmp(r->o.format, "json") == 0) print_json(r);
  else print_md(r);
  if (fflush(stdout)) die("standard output", strerror(errno));
  if (failed) die("an arm failed", "see above");
  if (stopped && r->o.checkpoint)
    fprintf(stderr, "stopped; --resume %s goes on\n", r->o.checkpoint);
  return stopped ? 130 : 0;
}

int main(int argc, char **argv)
{
  static run r;
  static source main_source;
  struct sigaction action;
  r.o = options_of(argc, argv);
#ifdef _OPENMP
  if (!getenv("OMP_NUM_THREADS")) omp_set_num_threads(1);
#endif
  if (r.o.sizes) {
    print_sizes();
    return fflush(stdout) ? 1 : 0;
  }
  memset(&action, 0, sizeof action);
  action.sa_handler = ask_stop;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  name_machine(&r);
  load_model(&main_source, r.o.model);
  read_text(&r.o, &main_source);
  add_plain(&r, &main_source);
  add_trained(&r, &main_source);
  if (r.o.recall) add_recall(&r);
  add_chunks(&r, &main_source);
  if (r.n_jobs == 0) die("no such arm", r.o.arms);
  run_jobs(&r);
  return report(&r);
}
