/* threads.c: any number of parts, in any order, one after another or at once: the same bits.
   Build it with -pthread; once more with -fopenmp, where attend itself uses threads. */
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define COUNTS_FORKS 1                                 /* gcc's way into a parallel region        */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <omp.h>
#endif
#include "text.h"

#include <pthread.h>

enum { TOKENS = 200 };

typedef struct part {
  pthread_t thread;
  longctx *lc;
  const text *x;
  int layer, at, n, part, n_parts, result;
  float *out;
} part;

static void *run_part(void *p)
{
  part *a = (part *)p;
  int reads = text_reads_only(a->x, a->layer);
  a->result = longctx_attend_part(a->lc, a->layer, a->n, text_q(a->x, a->layer, a->at),
                                  reads ? NULL : text_k(a->x, a->layer, a->at),
                                  reads ? NULL : text_v(a->x, a->layer, a->at),
                                  a->out, a->part, a->n_parts);
  return NULL;
}

static void fill_parts(part *all, int n_parts, longctx *lc, const text *x, int layer, int at, int n,
                       float *out)
{
  int p;
  for (p = 0; p < n_parts; p++) {
    all[p].lc = lc;
    all[p].x = x;
    all[p].layer = layer;
    all[p].at = at;
    all[p].n = n;
    all[p].part = p;
    all[p].n_parts = n_parts;
    all[p].out = out;
  }
}

static void shuffle(part *all, int n, uint64_t *seed)
{
  int i;
  for (i = n - 1; i > 0; i--) {
    int j = t_below(seed, i + 1), k = all[i].part;
    all[i].part = all[j].part;
    all[j].part = k;
  }
}

enum { IN_ORDER, SHUFFLED, AT_ONCE };

static void run_parts(part *all, int n_parts, int way)
{
  int p;
  for (p = 0; p < n_parts; p++) {
    if (way != AT_ONCE) run_part(&all[p]);
    else if (pthread_create(&all[p].thread, NULL, run_part, &all[p]) != 0) FAIL("no thread");
  }
  for (p = 0; p < n_parts; p++) {
    if (way == AT_ONCE) pthread_join(all[p].thread, NULL);
    if (all[p].result != LONGCTX_OK) CHECK_EQ(all[p].result, LONGCTX_OK);
  }
}

static void run_in_parts(const text *x, int n_parts, int threads, int chunk, int way, float *out)
{
  longctx_desc d = x->d;
  part all[64];
  uint64_t seed = (uint64_t)n_parts;
  longctx *lc;
  int t, l, n;
  d.max_threads = threads;
  lc = t_new(&d);
  for (t = 0; t < x->tokens; t += n) {
    text_meet(lc, x, NULL);
    n = x->tokens - t < chunk ? x->tokens - t : chunk;
    if (n > longctx_room(lc)) n = longctx_room(lc);
    for (l = 0; l < x->layers; l++) {
      float *rows = out + text_at(x, l, t) * x->out_row;
      fill_parts(all, n_parts, lc, x, l, t, n, rows);
      if (way != IN_ORDER) shuffle(all, n_parts, &seed);
      run_parts(all, n_parts, way);
      if (longctx_attend_join(lc, l, n, rows) != LONGCTX_OK) FAIL("join refused");
    }
    if (longctx_commit(lc, n) != LONGCTX_OK) FAIL("commit refused");
  }
  free(lc);
}

static longctx_desc shape(int i)                       /* the fourth: layer 1 reads layer 0's    */
{
  static longctx_layer layers[2];
  static const int heads[6][2] = { { 4, 4 }, { 8, 2 }, { 6, 1 }, { 7, 1 }, { 9, 3 }, { 100, 1 } };
  longctx_desc d = longctx_desc_make(2, heads[i][0], heads[i][1], 24, 150);
  d.sinks = i % 2 ? 5 : 0;
  d.max_batch = 40;
  d.type_k = i % 4;
  d.type_v = (i + 1) % 4;
  if (i == 4) d.block = 50, d.memory = LONGCTX_MEMORY_DELTA, d.feedback_len = 7;
  layers[0] = longctx_layer_make(&d);
  layers[1] = longctx_layer_make(&d);
  layers[1].window = 90;
  layers[1].kv_from = 0;
  if (i == 3) d.layers = layers;
  return d;
}

static void test_parts(int i)
{
  static const int counts[] = { 1, 2, 3, 8, 64 };
  static const int chunks[] = { 1, 7, 40 };
  longctx_desc d = shape(i);
  text x = text_make(&d, TOKENS, 33);
  float *want = text_out(&x), *got = text_out(&x);
  longctx *lc = t_new(&d);
  int p, threads, c;
  text_run(lc, &x, 0, TOKENS, 1, want);
  for (p = 0; p < 5; p++)
    for (threads = 1; threads <= 64; threads = threads == 1 ? 3 : threads == 3 ? 8 : threads * 8)
      for (c = 0; c < 3; c++) {
        int way = (p + c + threads) % 2 ? IN_ORDER : SHUFFLED;
        memset(got, 0xff, sizeof(float) * text_out_floats(&x));
        run_in_parts(&x, counts[p], threads, chunks[c], way, got);
        t_case("shape %d, %d parts, max_threads %d, chunk %d", i, counts[p], threads, chunks[c]);
        CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
      }
  free(lc);
  free(want);
  free(got);
  text_free(&x);
}

static void test_at_once(int i)
{
  static const int counts[] = { 2, 3, 8 };
  longctx_desc d = shape(i);
  text x = text_make(&d, TOKENS, 34);
  float *want = text_out(&x), *got = text_out(&x);
  longctx *lc = t_new(&d);
  int p, chunk;
  text_run(lc, &x, 0, TOKENS, 40, want);
  for (p = 0; p < 3; p++)
    for (chunk = 1; chunk <= 40; chunk += 13) {
      memset(got, 0xff, sizeof(float) * text_out_floats(&x));
      run_in_parts(&x, counts[p], counts[p], chunk, AT_ONCE, got);
      t_case("shape %d, %d threads at once, chunk %d", i, counts[p], chunk);
      CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
    }
  free(lc);
  free(want);
  free(got);
  text_free(&x);
}

/* One KV head, one long window: then parts can only be spans of keys. */
static void test_one_head(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 16, 2100);
  text x;
  float *want, *got;
  longctx *lc;
  int p;
  d.sinks = 600;
  d.max_batch = 100;
  x = text_make(&d, 3000, 35);
  want = text_out(&x);
  got = text_out(&x);
  lc = t_new(&d);
  text_run(lc, &x, 0, 3000, 100, want);
  for (p = 2; p <= 64; p = p == 2 ? 3 : p == 3 ? 8 : p * 8) {
    run_in_parts(&x, p, p, p == 3 ? 1 : 77, p == 8 ? AT_ONCE : SHUFFLED, got);
    t_case("one head, %d parts", p);
    CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
  }
  free(lc);
  free(want);
  free(got);
  text_free(&x);
}

/* Tokens of unit i, cut by hand: sinks, then the window, at multiples of 512; then memory. */
static int64_t tokens_of(const lcx_reach *r, int64_t i, int64_t memory)
{
  int64_t sinks = (r->sinks + 511) / 512, at = (i - sinks + r->from / 512) * 512;
  if (i < sinks) return r->sinks - 512 * i < 512 ? r->sinks - 512 * i : 512;
  if (at >= r->to) return memory;
  return (r->to < at + 512 ? r->to : at + 512) - (r->from > at ? r->from : at);
}

/* Parts that split heads take every unit once, and about as many tokens each: at most half a
   segment more than its share at either end. */
static void test_even(int kv_heads, int sinks, int memory)
{
  enum { SEGMENT = 512 };
  longctx_desc d = longctx_desc_make(1, kv_heads * 2, kv_heads, 8, 3000);
  text x;
  float *out, zero[16] = {0};
  longctx *lc;
  lcx_call call;
  lcx_reach reach;
  int64_t all = 0, units, i;
  int parts, p, h;
  d.sinks = sinks;
  d.max_threads = 16;
  d.memory = memory;
  d.block = memory ? 500 : 0;
  d.max_batch = 64;
  x = text_make(&d, 3456, 38);
  out = text_out(&x);
  lc = t_new(&d);
  if (memory) CHECK_EQ(longctx_set_gate(lc, 0, zero), 0);
  text_run(lc, &x, 0, 3456 - 1, 50, out);
  lcx_call_make(&call, lc, 0, 1, out);
  reach = lcx_call_reach(&call);
  units = lcx_units_of_head(&call, &reach);
  for (i = 0; i < units; i++) all += tokens_of(&reach, i, 4) * kv_heads;
  t_case("%d KV heads, %d sinks, memory %d", kv_heads, sinks, memory);
  CHECK(all >= (int64_t)kv_heads * (sinks + 2500) && units <= lc->plan.segments);
  for (parts = 2; parts <= 16; parts++) {
    int64_t taken = 0;
    if (kv_heads % parts == 0) continue;
    for (p = 0; p < parts; p++) {
      int64_t share = 0;
      for (h = 0; h < kv_heads; h++)
        for (i = 0; i < units; i++) lcx_partial(lc, h, i, 0)[0] = 3e38f;
      CHECK_EQ(longctx_attend_part(lc, 0, 1, x.q, x.k, x.v, out, p, parts), 0);
      for (h = 0; h < kv_heads; h++)
        for (i = 0; i < units; i++)
          if (lcx_partial(lc, h, i, 0)[0] < 3e38f) share += tokens_of(&reach, i, 4);
      CHECK(share * parts <= all + SEGMENT * parts);
      taken += share;
    }
    CHECK_EQ(taken, all);
  }
  free(lc);
  free(out);
  text_free(&x);
}

/* Tiles of 16 and two segments: the span with the oldest key seen may hold the tile that another
   part is writing just now. Bits do not show a read of it, ThreadSanitizer does. */
static void test_tiles_at_once(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 16, 300);
  text x = text_make(&d, 900, 36);
  float *want = text_out(&x), *got = text_out(&x);
  longctx *lc = t_new(&d);
  t_case("tiles of 16, three threads at once");
  text_run(lc, &x, 0, 900, 1, want);
  run_in_parts(&x, 3, 3, 1, AT_ONCE, got);
  CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
  free(lc);
  free(want);
  free(got);
  text_free(&x);
}

/* Where the compiler makes attend use threads of its own (OpenMP), max_threads does not show. */
static void test_own_threads(void)
{
  int i, threads;
  for (i = 0; i < 6; i++) {                            /* 100 heads: more rows than can be split */
    longctx_desc d = shape(i);
    text x = text_make(&d, TOKENS, 36);
    float *want = text_out(&x), *got = text_out(&x);
    size_t rows = 2 * 2 * (size_t)d.feedback_len * x.out_row;    /* before and after set         */
    float *met = t_floats(rows), *meets = t_floats(rows);
    longctx *lc = t_new(&d);
    text_run(lc, &x, 0, TOKENS, 1, want);
    text_meet(lc, &x, met);                            /* 200 tokens are four blocks of 50       */
    free(lc);
    for (threads = 2; threads <= 8; threads++) {
      d.max_threads = threads;
      lc = t_new(&d);
      text_run(lc, &x, 0, TOKENS, threads * 5, got);
      CHECK_EQ(longctx_feedback_due(lc), d.feedback_len > 0);
      text_meet(lc, &x, meets);
      t_case("shape %d, max_threads %d", i, threads);
      CHECK_SAME(want, got, sizeof(float) * text_out_floats(&x));
      CHECK_SAME(met, meets, sizeof(float) * rows);
      free(lc);
    }
    free(want);
    free(got);
    free(met);
    free(meets);
    text_free(&x);
  }
}

#ifdef COUNTS_FORKS
static int forks;

typedef void region(void (*work)(void *), void *data, unsigned threads, unsigned flags);
region GOMP_parallel;

void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags)
{
  region *real;
  void *found = dlsym(RTLD_NEXT, "GOMP_parallel");     /* memcpy: C has no such cast             */
  memcpy(&real, &found, sizeof real);
  if (threads != 1) forks++;
  real(work, data, threads, flags);
}

/* A call forks once; where KV heads have to be split, once per as many whole tokens as make at most
   96 queries to a KV head. */
static void test_forks(void)
{
  static const struct { int kv_heads, group, n, forks; } cases[] = {
      { 3, 4, 1, 1 },  { 3, 4, 60, 1 }, { 6, 4, 60, 1 }, { 1, 4, 1, 1 },  { 1, 4, 24, 1 },
      { 1, 4, 25, 2 }, { 1, 4, 60, 3 }, { 2, 4, 60, 3 }, { 1, 96, 3, 3 }, { 1, 50, 3, 3 },
      { 1, 7, 39, 3 }, { 1, 7, 40, 4 }, { 1, 97, 3, 0 } };
  enum { KEYS = 2100 };
  int i, most = omp_get_max_threads();
  omp_set_num_threads(3);
  for (i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
    int kv = cases[i].kv_heads, heads = kv * cases[i].group;
    longctx_desc d = longctx_desc_make(1, heads, kv, 8, KEYS);
    text x;
    float *out;
    longctx *lc;
    d.max_batch = 60;
    d.max_threads = 3;
    x = text_make(&d, KEYS + 60, 41);
    out = text_out(&x);
    lc = t_new(&d);
    text_run(lc, &x, 0, KEYS, 60, out);
    forks = 0;
    t_case("%d KV heads, %d queries to each, %d tokens", kv, cases[i].group, cases[i].n);
    text_run(lc, &x, KEYS, KEYS + cases[i].n, cases[i].n, out);
    CHECK_EQ(forks, cases[i].forks);
    free(lc);
    free(out);
    text_free(&x);
  }
  omp_set_num_threads(most);
}
#endif

/* Contexts share nothing: many at once, each in its own thread, first calls and all. */
typedef struct own { pthread_t thread; const text *x; float *out; } own;

static void *run_own(void *p)
{
  own *a = (own *)p;
  size_t bytes = longctx_size(&a->x->d);
  longctx *lc = longctx_init(t_memory(bytes), bytes, &a->x->d);
  int t, l;
  for (t = 0; lc != NULL && t < a->x->tokens; t++) {
    for (l = 0; l < a->x->layers; l++)
      (void)text_attend(lc, a->x, l, t, 1, a->out + text_at(a->x, l, t) * a->x->out_row);
    (void)longctx_commit(lc, 1);
  }
  free(lc);
  return NULL;
}

static void test_many_contexts(void)
{
  enum { MANY = 8 };
  longctx_desc d = shape(1);
  text x = text_make(&d, TOKENS, 37);
  own all[MANY];
  float *want = text_out(&x);
  longctx *lc;
  int i;
  for (i = 0; i < MANY; i++) {
    all[i].x = &x;
    all[i].out = text_out(&x);
    if (pthread_create(&all[i].thread, NULL, run_own, &all[i]) != 0) FAIL("no thread");
  }
  for (i = 0; i < MANY; i++) pthread_join(all[i].thread, NULL);
  t_case("many contexts");
  lc = t_new(&d);
  text_run(lc, &x, 0, TOKENS, 1, want);
  for (i = 0; i < MANY; i++) CHECK_SAME(want, all[i].out, sizeof(float) * text_out_floats(&x));
  free(lc);
  free(want);
  for (i = 0; i < MANY; i++) free(all[i].out);
  text_free(&x);
}

/* A part's working space lies on a cache line, and ends before its ticket and the next part's,
   wherever malloc may have put the block. */
static void test_working_space(void)
{
  int i, p, off;
  for (i = 0; i < 32; i++) {
    longctx_desc d = longctx_desc_make(1, i % 2 ? 6 : 3, 3, 1 + 7 * i, 64);
    unsigned char *all, *mem;
    size_t bytes;
    d.type_k = d.type_v = i % 4;
    d.sinks = i % 3 * 4;
    d.max_batch = 1 + 3 * i;
    d.max_threads = 3;
    if (d.head_dim % 2) d.rope = LONGCTX_ROPE_NONE;
    bytes = longctx_size(&d);
    all = malloc(bytes + 128);
    mem = all + (0 - (uintptr_t)all) % 64;
    for (off = 0; off < 64; off += 16) {
      longctx *lc = longctx_init(mem + off, bytes, &d);
      t_case("desc %d, %d bytes off", i, off);
      CHECK(lc != NULL);
      for (p = 0; lc && p < 3; p++) {
        unsigned char *at = lcx_work_at(lc, p), *ticket = (unsigned char *)lcx_ticket_of(lc, p);
        lcx_work w;
        lcx_carve(&lc->wish, &lc->plan, at, &w);
        CHECK((uintptr_t)at % 64 == 0 && (uintptr_t)w.s % 64 == 0 && (uintptr_t)w.o % 64 == 0);
        CHECK((uintptr_t)w.wide % 64 == 0);
        CHECK((unsigned char *)(w.view[2] + lc->plan.rows) <= ticket); /* the last piece */
        CHECK(ticket < (p < 2 ? lcx_work_at(lc, p + 1) : mem + off + bytes));
      }
    }
    free(all);
  }
}

int main(void)
{
  int i;
  test_working_space();
  for (i = 0; i < 5; i++) {
    test_parts(i);
    test_at_once(i);
  }
  test_one_head();
  test_even(1, 4, 0);
  test_even(3, 600, 0);
  test_even(5, 0, LONGCTX_MEMORY_LINEAR);
  test_tiles_at_once();
  test_own_threads();
#ifdef COUNTS_FORKS
  test_forks();
#elif defined(_OPENMP)
  printf("skipped: how often attend forks (counted in gcc's OpenMP on Linux)\n");
#endif
  test_many_contexts();
  return t_done();
}
