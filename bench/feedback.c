/* feedback.c - what feedback rows cost a whole model: TransformerFAM (arXiv 2404.09173) in its own
   setting, blocks of 1,024 tokens and 64 rows, with no memory segments (m = 0) and with three.

   run  build/bench/feedback [options]            (make bench-feedback)

   -m FILE    a model, llama2.c's or GGUF  (random Q4_1 weights in the shape of SmolLM2-135M)
   -n BLOCKS  so many measured of each     (2)
   -f FILE    the result as CSV            (none)

   Four contexts of one model, two with rows and two with the same block window alone, take the same
   tokens call by call in turn, so that all see the same neighbours, heat and clock; one thread, by
   its CPU time. The windows are filled first. Three passes are measured:

     prefill    chunks of 64 tokens, no logits
     decode     one token at a time, logits and all
     attention  the calls of longctx.h alone, one token at a time

     us         a token, the mean over whole blocks, rows' update at their ends included: at each
                block's end all rows go through all layers as one batch
     us_min, us_max   the same, of single blocks
     ratio      us over that without rows
     p50_us, p999_us  of calls
     end_us     the update alone, the median, of the whole model's passes together: it comes once in
                1,024 tokens, so p999_us of single ones is below it

   The model need not have been trained with rows, as time does not depend on it; one that was keeps
   its own block and number of rows. */
#define _XOPEN_SOURCE 700
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#define BENCH "feedback"
#include "engine.h"
#include "bench.h"

enum { CHUNK = 64, MOST_SEGMENTS = 3, N_ARMS = 4, N_PASSES = 3 };
enum { PREFILL, DECODE, ATTENTION };

static const char *const passes[N_PASSES] = { "prefill", "decode", "attention" };

static uint32_t random_bits(void)
{
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}

/* between -scale and scale */
static void fill(float *x, size_t n, float scale)
{
  for (size_t i = 0; i < n; i++) x[i] = scale * ((float)random_bits() / 1073741824.0f - 1.0f);
}

/* ==== the model ==== */

static void *room_for(size_t n, size_t size)
{
  void *p = calloc(n, size);
  if (!p) die("no memory", "");
  return p;
}

/* [rows][cols] of Q4_1, whose blocks are two halves d, m and 32 numbers q of 4 bits: d q + m lies
   between -0.06 and 0.06, so a product is about as long as what went in */
static matrix random_matrix(int rows, int cols)
{
  static const unsigned char scales[4] = { 0x00, 0x20, 0x80, 0xab };
  matrix w = { rows, cols, NULL, MATRIX_Q4_1, NULL };
  size_t bytes = (size_t)cols / 32 * 20;
  unsigned char *row = room_for(bytes, 1);
  w.packed = room_for(matrix_bytes(&w), 1);
  for (int r = 0; r < rows; r++) {
    for (size_t i = 0; i < bytes; i++) {
      if (i % 20 < 4) row[i] = scales[i % 20];
      else row[i] = (unsigned char)random_bits();
    }
    matrix_set_packed_row(&w, r, row);
  }
  free(row);
  return w;
}

static void random_model(model *m)
{
  static const model shape = { .dim = 576, .hidden_dim = 1536, .n_layers = 30, .n_heads = 9,
                               .n_kv_heads = 3, .head_dim = 64, .vocab_size = 49152, .tied = 1,
                               .rope_base = 100000, .rope_dims = 64, .norm_epsilon = 1e-5f };
  static float gain[576];
  int dim = shape.dim, hidden = shape.hidden_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
  for (int i = 0; i < dim; i++) gain[i] = 1;
  *m = shape;
  m->layers = room_for((size_t)m->n_layers, sizeof *m->layers);
  for (int l = 0; l < m->n_layers; l++) {
    model_layer *w = &m->layers[l];
    w->attention_norm = w->ffn_norm = gain;
    w->wq = random_matrix(dim, dim);
    w->wk = random_matrix(kv_dim, dim);
    w->wv = random_matrix(kv_dim, dim);
    w->wo = random_matrix(dim, dim);
    w->w1 = random_matrix(hidden, dim);
    w->w3 = random_matrix(hidden, dim);
    w->w2 = random_matrix(dim, hidden);
  }
  m->final_norm = gain;
  m->embedding = m->head = random_matrix(shape.vocab_size, dim);
}

/* the paper's block and rows for a model that has none */
static void add_rows(model *m)
{
  if (m->memory) die("-m", "this model was trained with another memory");
  if (m->feedback_len) return;
  m->block = 1024;
  m->feedback_len = 64;
  m->row_limit = 4; /* untrained rows would grow for ever */
  size_t n = (size_t)m->feedback_len * (size_t)m->dim;
  m->rows = room_for(n, sizeof *m->rows);
  fill(m->rows, n, 1);
}

/* ==== what is measured ==== */

typedef struct sample { double *x; int n; } sample;

typedef struct arm {
  int segments, rows;
  longctx *context;
  sample call[N_PASSES], end[N_PASSES]; /* microseconds: of calls, and of updates within them */
} arm;

/* An update is the same work after a block read in chunks as after one read token by token. */
static sample *updates(arm *a, int pass) { return &a->end[pass == DECODE ? PREFILL : pass]; }

typedef struct bench {
  model m;
  engine e;
  arm arms[N_ARMS];
  int blocks, tokens[CHUNK];
  float *logits;
} bench;

static double now(void) { return 1e6 * seconds(CLOCK_THREAD_CPUTIME_ID); }

static void arm_init(bench *b, arm *a, int segments, int rows)
{
  const model *m = &b->m;
  longctx_desc d = engine_desc(m, (segments + 1) * m->block);
  d.block = m->block;
  d.type_k = d.type_v = LONGCTX_F16;
  d.max_batch = CHUNK;
  d.feedback_len = rows;
  d.feedback_dim = rows ? m->dim : 0;
  a->segments = segments;
  a->rows = rows;
  a->context = make_context(&d);
  must(engine_start(&b->e, a->context));
  for (int p = 0; p < N_PASSES; p++) {
    a->call[p].x = room_for((size_t)b->blocks * (size_t)m->block, sizeof(double));
    a->end[p].x = room_for(2 * (size_t)b->blocks, sizeof(double));
  }
}

static void note(sample *s, double x)
{
  s->x[s->n++] = x;
}

/* The whole model over n tokens; returns when it came to commit. */
static double run_model(bench *b, longctx *context, int n)
{
  must(engine_forward(&b->e, context, b->tokens, n, b->logits, n == 1));
  double before = now();
  must(engine_commit(&b->e, context, n));
  return before;
}

/* the same of longctx.h's calls; q, k and v are what the model left there */
static double run_attention(bench *b, longctx *context, int n)
{
  engine *e = &b->e;
  int n_layers = b->m.n_layers;
  for (int l = 0; l < n_layers; l++)
    must(longctx_attend(context, l, n, e->q, e->k, e->v, e->attended));
  double before = now();
  must(longctx_commit(context, n));
  for (int l = 0; l < n_layers && longctx_feedback_due(context); l++) {
    must(longctx_feedback_attend(context, l, e->attended));
    must(longctx_feedback_set(context, l, e->q, e->k, e->v));
  }
  return before;
}

/* n tokens of each arm; a pass below 0 fills the windows, nothing of it is noted */
static void turn(bench *b, int pass, int n)
{
  for (int i = 0; i < n; i++) b->tokens[i] = (int)(random_bits() % (uint32_t)b->m.vocab_size);
  for (int i = 0; i < N_ARMS; i++) {
    arm *a = &b->arms[i];
    double begin = now();
    int whole = pass == PREFILL || pass == DECODE;
    double commit = (whole ? run_model : run_attention)(b, a->context, n);
    double end = now();
    if (pass < 0) continue;
    note(&a->call[pass], end - begin);
    if (longctx_position(a->context) % b->m.block == 0) note(updates(a, pass), end - commit);
  }
}

static void run_pass(bench *b, int pass, int blocks, int n)
{
  int left = blocks * b->m.block;
  for (int i = 0; i < left; i += n) {
    if (i % b->m.block == 0)
      fprintf(stderr, "%s, block %d of %d\n", pass < 0 ? "filling the windows" : passes[pass],
              i / b->m.block + 1, blocks);
    turn(b, pass, n);
  }
}

/* ==== the result ==== */

typedef struct figures { double us, least, most, p50, p999, end; } figures;

static figures figures_of(const bench *b, arm *a, int pass)
{
  figures f = { 0, 0, 0, 0, 0, 0 };
  sample *s = &a->call[pass];
  int per_block = s->n / b->blocks;
  for (int i = 0; i < b->blocks; i++) {
    double sum = 0;
    for (int j = 0; j < per_block; j++) sum += s->x[i * per_block + j];
    sum /= b->m.block;
    f.us += sum / b->blocks;
    if (i == 0 || sum < f.least) f.least = sum;
    if (i == 0 || sum > f.most) f.most = sum;
  }
  f.p50 = quantile(s->x, s->n, 0.5);
  f.p999 = quantile(s->x, s->n, 0.999);
  f.end = quantile(updates(a, pass)->x, updates(a, pass)->n, 0.5);
  return f;
}

static void print_row(FILE *file, const char *form, const char *pass, const arm *a,
                      const figures *f, double ratio)
{
  fprintf(file, form, pass, a->segments, a->rows, f->us, f->least, f->most, ratio, f->p50, f->p999,
          f->end);
}

static void print_result(bench *b, FILE *csv)
{
  if (csv) fprintf(csv, "pass,m,rows,us,us_min,us_max,ratio,p50_us,p999_us,end_us\n");
  printf("| pass | m | rows | us | us_min | us_max | ratio | p50_us | p999_us | end_us |\n"
         "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  for (int p = 0; p < N_PASSES; p++)
    for (int i = 0; i < N_ARMS; i += 2) {
      figures without = figures_of(b, &b->arms[i], p), with = figures_of(b, &b->arms[i + 1], p);
      const figures *f[2] = { &without, &with };
      for (int k = 0; k < 2; k++) {
        double ratio = f[k]->us / without.us;
        const arm *a = &b->arms[i + k];
        print_row(stdout, "| %s | %d | %d | %.1f | %.1f | %.1f | %.4f | %.1f | %.1f | %.1f |\n",
                  passes[p], a, f[k], ratio);
        if (csv) print_row(csv, "%s,%d,%d,%.1f,%.1f,%.1f,%.4f,%.1f,%.1f,%.1f\n", passes[p], a,
                           f[k], ratio);
      }
      if (p == DECODE)
        fprintf(stderr, "decode, m = %d: a token takes %.2f %% longer with rows; their update at a "
                "block's end takes %.1f ms, as long as %.1f tokens\n", b->arms[i].segments,
                100 * (with.us / without.us - 1), with.end / 1e3, with.end / without.p50);
    }
}

int main(int argc, char **argv)
{
  static bench b;
  engine_error error;
  const char *path = NULL, *csv_path = NULL;
  FILE *csv = NULL;
  long blocks = 2;
  const option known[] = { { "-m", &path, NULL, 0, NULL }, { "-f", &csv_path, NULL, 0, NULL },
                           { "-n", NULL, &blocks, 1, NULL } };
  parse_options(known, sizeof known / sizeof *known, argc, argv);
  if (blocks > 1000) die("-n", "1 to 1000 blocks");
  b.blocks = (int)blocks;
  if (!path) random_model(&b.m);
  else if (model_load(&b.m, path, &error)) die(path, error.text);
  add_rows(&b.m);
  if (csv_path && !(csv = fopen(csv_path, "w"))) die(csv_path, strerror(errno));
  if (engine_init(&b.e, &b.m, CHUNK, &error)) die("engine", error.text);
  b.logits = room_for((size_t)b.m.vocab_size, sizeof *b.logits);
  fill(b.e.q, (size_t)CHUNK * (size_t)(b.m.n_heads * b.m.head_dim), 1); /* the first windows hold */
  fill(b.e.k, (size_t)CHUNK * (size_t)(b.m.n_kv_heads * b.m.head_dim), 1);
  fill(b.e.v, (size_t)CHUNK * (size_t)(b.m.n_kv_heads * b.m.head_dim), 1);
  for (int i = 0; i < N_ARMS; i++)
    arm_init(&b, &b.arms[i], i / 2 * MOST_SEGMENTS, i % 2 * b.m.feedback_len);

  run_pass(&b, -1, MOST_SEGMENTS, CHUNK);
  run_pass(&b, PREFILL, b.blocks, CHUNK);
  run_pass(&b, DECODE, b.blocks, 1);
  run_pass(&b, ATTENTION, b.blocks, 1);
  print_result(&b, csv);
  if (csv && fclose(csv)) die(csv_path, strerror(errno));
  return fflush(stdout) ? 1 : 0;
}
