/* plan.c: which descriptions are good, what they cost, and that a context stays in its block. */
#define _DEFAULT_SOURCE 1              /* MAP_ANONYMOUS                                          */
#include "pages.h"
#include "text.h"

#include <limits.h>

static longctx_desc plain(void)
{
  return longctx_desc_make(2, 4, 2, 8, 12);
}

/* ---- sentences ------------------------------------------------------------------------------- */

/* A bad description: a sentence that names the field, no size, no context. */
#define refuse(d, field) refuse_at(d, field, __LINE__)
static void refuse_at(const longctx_desc *d, const char *field, int line)
{
  const char *why = longctx_check(d);
  char mem[64];
  longctx_sizes sizes;
  t_case("%s: \"%s\"", field, why ? why : "");
  if (!CHECK(why != NULL)) return;
  CHECK(strstr(why, field) != NULL);
  CHECK(strlen(why) > strlen(field) + 10);
  CHECK_EQ(longctx_size(d), 0);
  CHECK_EQ(longctx_measure(d, &sizes), LONGCTX_E_DESC);
  CHECK(longctx_init(mem, sizeof mem, d) == NULL);
  t_bad_input("%s, line %d", field, line);
}

static void accept(const longctx_desc *d, const char *what)
{
  longctx_sizes sizes;
  const char *why = longctx_check(d);
  t_case("%s: \"%s\"", what, why ? why : "");
  CHECK(why == NULL);
  CHECK(longctx_size(d) > 0);
  if (CHECK_EQ(longctx_measure(d, &sizes), LONGCTX_OK)) CHECK_EQ(sizes.total, longctx_size(d));
}

#define REFUSE(field, value) \
  do { longctx_desc d = plain(); d.field = value; refuse(&d, #field); } while (0)
#define ACCEPT(field, value) \
  do { longctx_desc d = plain(); d.field = value; accept(&d, #field " = " #value); } while (0)

static void test_bad_counts(void)
{
  REFUSE(n_layers, 0);
  REFUSE(n_layers, -1);
  REFUSE(n_layers, INT_MIN);
  REFUSE(n_heads, 0);
  REFUSE(n_heads, -4);
  REFUSE(n_heads, 3);                                  /* not a multiple of n_kv_heads           */
  REFUSE(n_heads, INT_MIN);
  REFUSE(n_kv_heads, -1);
  REFUSE(n_kv_heads, 3);
  REFUSE(n_kv_heads, 8);
  REFUSE(head_dim, 0);
  REFUSE(head_dim, -8);
  REFUSE(head_dim, INT_MIN);
  REFUSE(head_dim_v, -1);
  REFUSE(window, 0);
  REFUSE(window, -1);
  REFUSE(window, INT_MIN);
  REFUSE(sinks, -1);
  REFUSE(sinks, INT_MIN);
  REFUSE(block, -1);
  REFUSE(block, 5);                                    /* window 12 is not a multiple            */
  REFUSE(block, 24);
  REFUSE(block, INT_MAX);
  REFUSE(max_batch, -1);
  REFUSE(max_batch, INT_MIN);
  REFUSE(max_threads, -1);
  REFUSE(max_threads, INT_MIN);
  REFUSE(max_threads, 1025);
  REFUSE(n_layers, 65537);                             /* one above the bounds                   */
  REFUSE(n_heads, 65538);
  REFUSE(head_dim, 577);
  REFUSE(head_dim_v, 577);
  REFUSE(window, (1 << 30) + 1);
  REFUSE(sinks, (1 << 30) + 1);
  REFUSE(max_batch, (1 << 20) + 1);
}

static void test_bad_kinds(void)
{
  REFUSE(type_k, -1);
  REFUSE(type_k, 4);
  REFUSE(type_k, INT_MAX);
  REFUSE(type_v, -1);
  REFUSE(type_v, 4);
  REFUSE(positions, -1);
  REFUSE(positions, 2);
  REFUSE(rope, -1);
  REFUSE(rope, 3);
  REFUSE(rope_dims, -2);
  REFUSE(rope_dims, 3);
  REFUSE(rope_dims, 10);                               /* head_dim is 8                          */
  REFUSE(rope_dims, INT_MIN);
}

/* Memory: which rule, over which block, whose. */
static void test_bad_memory(void)
{
  longctx_layer layers[2];
  longctx_desc d = plain();
  REFUSE(memory, -1);
  REFUSE(memory, 3);
  REFUSE(memory, INT_MAX);
  REFUSE(memory, LONGCTX_MEMORY_LINEAR);               /* without a block                        */
  REFUSE(memory, LONGCTX_MEMORY_DELTA);
  REFUSE(memory_first, -1);
  REFUSE(memory_first, 2);
  d.block = 4;
  d.memory = LONGCTX_MEMORY_LINEAR;
  accept(&d, "memory");
  d.memory_first = LONGCTX_FIRST_ZERO;
  accept(&d, "memory_first");
  layers[0] = layers[1] = longctx_layer_make(&d);
  CHECK_EQ(layers[0].memory, LONGCTX_MEMORY_LINEAR);
  d.layers = layers;
  layers[1].block = 6;
  refuse(&d, "memory");                                /* two blocks                             */
  layers[1].memory = LONGCTX_MEMORY_NONE;
  accept(&d, "another block, without memory");
  layers[1] = layers[0];
  layers[1].memory = LONGCTX_MEMORY_DELTA;
  accept(&d, "two rules, one block");
  layers[1].kv_from = 0;
  refuse(&d, "kv_from");                               /* of another rule                        */
  layers[1].memory = LONGCTX_MEMORY_LINEAR;
  accept(&d, "a reader of memory");
  layers[0].memory = LONGCTX_MEMORY_NONE;
  refuse(&d, "kv_from");                               /* there is none to read                  */
  layers[1].memory = LONGCTX_MEMORY_NONE;
  accept(&d, "a reader without");
}

static void test_memory_sizes(void)
{
  longctx_desc d = longctx_desc_make(3, 32, 8, 128, 2048), none;
  longctx_layer layers[3];
  longctx_sizes sizes, without;
  d.block = 2048;
  none = d;
  d.memory = LONGCTX_MEMORY_LINEAR;
  t_case("memory sizes");
  CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
  CHECK_EQ(longctx_measure(&none, &without), LONGCTX_OK);
  CHECK_EQ(without.memory, 0);
  CHECK_EQ(sizes.memory, 3 * 8 * 2 * 128 * 129 * 4);
  CHECK_EQ(sizes.window, without.window);
  CHECK(sizes.state >= without.state + sizes.memory);

  t_case("a reader keeps none");
  d.layers = layers;
  layers[0] = layers[1] = layers[2] = longctx_layer_make(&d);
  layers[1].kv_from = 0;
  layers[2].kv_from = 0;
  CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
  CHECK_EQ(sizes.memory, 8 * 2 * 128 * 129 * 4);
}

/* Feedback: how many rows, of what block, whose. */
static void test_bad_feedback(void)
{
  longctx_layer layers[2];
  longctx_desc d = plain();
  REFUSE(feedback_len, -1);
  REFUSE(feedback_len, INT_MIN);
  REFUSE(feedback_len, INT_MAX);
  REFUSE(feedback_len, 2);                             /* without a block                        */
  REFUSE(feedback_dim, -1);
  REFUSE(feedback_dim, INT_MAX);
  REFUSE(feedback_dim, (1 << 26) + 1);
  d.n_heads = d.block = d.window = d.feedback_len = 65536;
  d.n_kv_heads = 1;
  refuse(&d, "feedback_len");                          /* 2^32 queries of one KV head            */
  d = plain();
  d.block = 4;
  d.feedback_len = 4;
  accept(&d, "feedback_len");
  d.feedback_dim = 3;
  accept(&d, "feedback_dim");
  d.feedback_dim = 1 << 26;
  CHECK(longctx_check(&d) == NULL);
  d.feedback_dim = INT_MIN;
  refuse(&d, "feedback_dim");
  d.feedback_dim = 0;
  d.feedback_len = d.block = 1;
  refuse(&d, "block");                                 /* a block of one token is no block       */
  d.block = 4;
  d.feedback_len = 5;
  refuse(&d, "feedback_len");                          /* above the block                        */
  d.feedback_len = 3;
  layers[0] = layers[1] = longctx_layer_make(&d);
  CHECK_EQ(layers[0].feedback, 1);
  d.layers = layers;
  accept(&d, "feedback in two layers");
  layers[1].block = 6;
  refuse(&d, "feedback");                              /* two blocks                             */
  layers[1].feedback = 0;
  accept(&d, "another block, without feedback");
  layers[1].memory = LONGCTX_MEMORY_LINEAR;
  refuse(&d, "memory or feedback");                    /* memory here, feedback there            */
  layers[1].block = 4;
  accept(&d, "memory here, feedback there");
  layers[1] = layers[0];
  layers[1].feedback = 2;
  refuse(&d, "feedback");
  layers[1].feedback = -1;
  refuse(&d, "feedback");
  layers[1].feedback = 1;
  layers[1].kv_from = 0;
  accept(&d, "a reader of feedback");
  layers[0].feedback = 0;
  refuse(&d, "kv_from");                               /* there is none to read                  */
  layers[1].feedback = 0;
  accept(&d, "rows in the desc, in no layer");
  d.feedback_len = 0;
  accept(&d, "no rows");
  layers[0].feedback = 1;
  refuse(&d, "feedback_len");                          /* in a layer, not in the desc            */
}

static void test_feedback_sizes(void)
{
  longctx_desc d = longctx_desc_make(3, 32, 8, 128, 4096), none;
  longctx_sizes sizes, without;
  int i;
  d.block = 1024;
  d.type_k = d.type_v = LONGCTX_F16;
  none = d;
  d.feedback_len = 64;
  t_case("feedback sizes");
  CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
  CHECK_EQ(longctx_measure(&none, &without), LONGCTX_OK);
  CHECK_EQ(without.feedback, 0);
  CHECK_EQ(sizes.feedback, 3 * 64 * (2 * 32 * 128 * 4 + 2 * 8 * 128 * 2));
  CHECK_EQ(sizes.memory, 0);
  CHECK(sizes.state >= without.state + sizes.feedback);

  d = longctx_desc_make(1, 16, 2, 64, 64);             /* working space: of 16, 160 and all rows */
  d.block = 64;
  for (i = 0; i < 3; i++) {
    d.feedback_len = i == 0 ? 2 : i == 1 ? 20 : 32;
    CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
    CHECK(i == 0 || sizes.scratch > without.scratch);
    without = sizes;
  }
  d.feedback_len = 64;
  CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
  CHECK_EQ(sizes.scratch, without.scratch);            /* no more than 256 at a time             */
}

static void test_bad_numbers(void)
{
  static const double bad[4] = { 1.0, 0.1, (double)NAN, 0.01 };
  static const double worse[4] = { 1.0, (double)INFINITY, 0.1, 0.01 };
  static const double above[4] = { 1.0, 1.01e6, 0.1, 0.01 };
  static const double below[4] = { 1.0, -1.01e6, 0.1, 0.01 };
  REFUSE(rope_base, -1.0);
  REFUSE(rope_base, (double)NAN);
  REFUSE(rope_base, (double)INFINITY);
  REFUSE(rope_base, 0.99);
  REFUSE(rope_base, 1.01e18);
  REFUSE(rope_mscale, -1.0);
  REFUSE(rope_mscale, (double)NAN);
  REFUSE(rope_mscale, (double)INFINITY);
  REFUSE(rope_mscale, 16.01f);
  REFUSE(rope_mscale, 0.99e-6f);
  REFUSE(rope_freqs, bad);
  REFUSE(rope_freqs, above);
  REFUSE(rope_freqs, below);
  REFUSE(rope_freqs, worse);
  REFUSE(scale, NAN);
  REFUSE(scale, INFINITY);
  REFUSE(scale, 1.1e6f);
  REFUSE(scale, -1.1e6f);
  REFUSE(softcap, -1.0f);
  REFUSE(softcap, NAN);
  REFUSE(softcap, INFINITY);
  REFUSE(softcap, 0.99e-3f);
  REFUSE(softcap, 1.01e6f);
  REFUSE(alibi_max_bias, -8.0f);
  REFUSE(alibi_max_bias, 64.01f);
  REFUSE(alibi_max_bias, NAN);
  REFUSE(alibi_max_bias, INFINITY);
}

/* In the first layer or in the last one. */
#define REFUSE_LAYER(field, value)                                                               \
  do {                                                                                           \
    longctx_layer layers[2];                                                                     \
    int l;                                                                                       \
    for (l = 0; l < 2; l++) {                                                                    \
      longctx_desc d = plain();                                                                  \
      layers[0] = longctx_layer_make(&d);                                                        \
      layers[1] = longctx_layer_make(&d);                                                        \
      layers[l].field = value;                                                                   \
      d.layers = layers;                                                                         \
      refuse(&d, #field);                                                                        \
    }                                                                                            \
  } while (0)

static void test_bad_layers(void)
{
  static const double bad[4] = { 1.0, 0.1, (double)NAN, 0.01 };
  longctx_layer layers[2];
  longctx_desc d = plain();
  REFUSE_LAYER(window, -1);
  REFUSE_LAYER(window, INT_MIN);
  REFUSE_LAYER(block, -1);
  REFUSE_LAYER(block, 5);
  REFUSE_LAYER(positions, 2);
  REFUSE_LAYER(positions, -1);
  REFUSE_LAYER(rope, 3);
  REFUSE_LAYER(rope, -1);
  REFUSE_LAYER(rope_dims, 3);
  REFUSE_LAYER(rope_dims, 10);
  REFUSE_LAYER(rope_dims, -2);
  REFUSE_LAYER(rope_base, (double)NAN);
  REFUSE_LAYER(rope_base, -3.0);
  REFUSE_LAYER(rope_mscale, (double)INFINITY);
  REFUSE_LAYER(rope_freqs, bad);
  REFUSE_LAYER(scale, NAN);
  REFUSE_LAYER(softcap, -1.0f);
  REFUSE_LAYER(softcap, NAN);
  REFUSE_LAYER(kv_from, -2);
  REFUSE_LAYER(kv_from, 1);                            /* itself, or a layer above               */
  REFUSE_LAYER(kv_from, 2);                            /* no such layer                          */
  REFUSE_LAYER(kv_from, INT_MAX);
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[0].kv_from = 0;
  d.layers = layers;
  refuse(&d, "kv_from");                               /* the first layer, of itself             */
  layers[0].kv_from = -1;
  accept(&d, "two layers");
  d.window = 0;
  refuse(&d, "window");                                /* the desc's own, unused, must be valid  */
  d.window = 12;
  d.softcap = -1.0f;
  refuse(&d, "softcap");
}

/* A reader: of a layer with its own keys, no wider than that, in the same blocks. */
static void test_bad_readers(void)
{
  longctx_desc d = plain();
  longctx_layer layers[3];
  d.n_layers = 3;
  layers[0] = layers[1] = layers[2] = longctx_layer_make(&d);
  d.layers = layers;
  layers[1].kv_from = layers[2].kv_from = 0;
  accept(&d, "two readers");
  layers[2].kv_from = 1;
  refuse(&d, "kv_from");                               /* of a reader                            */
  layers[2].kv_from = 0;
  layers[2].window = 16;
  refuse(&d, "kv_from");                               /* it keeps 12                            */
  layers[2].window = 12;
  layers[2].block = 2;
  refuse(&d, "kv_from");                               /* another block, the same window         */
  layers[0].block = 2;
  layers[1].kv_from = -1;
  accept(&d, "a reader in blocks");
}

static void test_good_edges(void)
{
  static const double freqs[4] = { 1.0, 0.0, 0.5, 3.0 }, bounds[4] = { 1.0, 1e6, -1e6, 3.0 };
  static const double inside[9] = { -1e7, 1e7, -1e7, 1e7, 1.0, 0.5, 0.2, 0.1, 1e7 };
  ACCEPT(n_layers, 1);
  ACCEPT(n_heads, 2);
  ACCEPT(n_heads, 14);
  ACCEPT(n_kv_heads, 1);
  ACCEPT(n_kv_heads, 4);
  ACCEPT(head_dim, 2);
  ACCEPT(head_dim, 576);
  ACCEPT(head_dim_v, 1);
  ACCEPT(head_dim_v, 576);
  ACCEPT(window, 1);
  ACCEPT(window, 100000);
  ACCEPT(sinks, 1);
  ACCEPT(sinks, 5000);
  ACCEPT(block, 1);
  ACCEPT(block, 12);
  ACCEPT(block, 4);
  ACCEPT(max_batch, 1);
  ACCEPT(max_batch, 4096);
  ACCEPT(max_threads, 1);
  ACCEPT(max_threads, 64);
  ACCEPT(max_threads, 1024);
  ACCEPT(type_k, LONGCTX_Q8);
  ACCEPT(type_v, LONGCTX_Q8);
  ACCEPT(positions, LONGCTX_POS_TEXT);
  ACCEPT(rope, LONGCTX_ROPE_NONE);
  ACCEPT(rope, LONGCTX_ROPE_INTERLEAVED);
  ACCEPT(rope_dims, 2);
  ACCEPT(rope_dims, 8);
  ACCEPT(rope_base, 10000.0);
  ACCEPT(rope_base, 1000000.0);
  ACCEPT(rope_base, 1.0);                              /* the bounds themselves                  */
  ACCEPT(rope_base, 1e18);
  ACCEPT(rope_mscale, 1.25);
  ACCEPT(rope_mscale, 1.01e-6f);
  ACCEPT(rope_mscale, 16.0f);
  ACCEPT(rope_freqs, freqs);
  ACCEPT(rope_freqs, bounds);
  ACCEPT(rope_freqs, inside + 4);                      /* those four, no others                  */
  ACCEPT(scale, 1.0f);
  ACCEPT(scale, 1e6f);
  ACCEPT(scale, -1e6f);
  ACCEPT(softcap, 50.0f);
  ACCEPT(softcap, 1e-3f);
  ACCEPT(softcap, 1e6f);
  ACCEPT(alibi_max_bias, 8.0f);
  ACCEPT(alibi_max_bias, 64.0f);
}

static void test_odd_head_dim(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 1, 1);
  d.rope = LONGCTX_ROPE_NONE;
  accept(&d, "head_dim 1 without rope");
  d = longctx_desc_make(1, 1, 1, 3, 5);
  d.rope_dims = 2;
  accept(&d, "head_dim 3, rope_dims 2");
}

/* ---- makers and getters ---------------------------------------------------------------------- */

static void test_makers(void)
{
  longctx_desc d = longctx_desc_make(3, 8, 4, 64, 100);
  longctx_layer a;
  t_case("makers");
  CHECK_EQ(d.n_layers, 3);
  CHECK_EQ(d.n_heads, 8);
  CHECK_EQ(d.n_kv_heads, 4);
  CHECK_EQ(d.head_dim, 64);
  CHECK_EQ(d.window, 100);
  CHECK_EQ(d.rope, LONGCTX_ROPE_HALF);
  CHECK_EQ(d.positions, LONGCTX_POS_CACHE);
  CHECK_EQ(d.type_k, LONGCTX_F32);
  CHECK_EQ(d.type_v, LONGCTX_F32);
  CHECK_EQ(d.sinks, 0);
  CHECK(d.layers == NULL && d.rope_freqs == NULL);
  d.block = 20;
  d.softcap = 30.0f;
  a = longctx_layer_make(&d);
  CHECK_EQ(a.window, 100);
  CHECK_EQ(a.block, 20);
  CHECK_EQ(a.rope, LONGCTX_ROPE_HALF);
  CHECK_EQ(a.kv_from, -1);
  CHECK_NEAR(a.softcap, 30.0, 0.0);
  a = longctx_layer_make(NULL);                        /* of no desc: nothing set, no reader     */
  CHECK_EQ(a.kv_from, -1);
  CHECK_EQ(a.window, 0);
  CHECK(a.rope_freqs == NULL);
}

static void test_resolved(void)
{
  longctx_desc d = plain(), r;
  longctx *lc = t_new(&d);
  r = longctx_get_desc(lc);
  t_case("resolved");
  CHECK_EQ(r.n_layers, 2);
  CHECK_EQ(r.head_dim_v, 8);
  CHECK_EQ(r.block, 1);
  CHECK_EQ(r.max_batch, 1);
  CHECK_EQ(r.max_threads, 1);
  CHECK_EQ(r.rope_dims, 8);
  CHECK_NEAR(r.rope_base, 10000.0, 0.0);
  CHECK_NEAR(r.rope_mscale, 1.0, 0.0);
  CHECK_NEAR(r.scale, 1.0 / sqrt(8.0), 1e-7);
  CHECK_EQ(longctx_position(lc), 0);
  CHECK_EQ(longctx_room(lc), 1);
  CHECK(longctx_check(&r) == NULL);
  CHECK_EQ(longctx_size(&r), longctx_size(&d));
  free(lc);
}

/* A layer's 0 is derived, not taken from the desc; a reader shows its own fields. */
static void test_resolved_layers(void)
{
  longctx_desc d = plain(), r;
  longctx_layer layers[2];
  longctx *lc;
  d.rope_base = 500.0;
  d.rope_mscale = 1.25f;
  d.scale = 0.5f;
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[0].rope_base = layers[0].rope_mscale = layers[0].scale = 0;
  layers[0].rope_dims = layers[0].block = 0;
  layers[1].kv_from = 0;
  layers[1].rope = LONGCTX_ROPE_INTERLEAVED;
  layers[1].positions = LONGCTX_POS_TEXT;
  d.layers = layers;
  lc = t_new(&d);
  r = longctx_get_desc(lc);
  t_case("resolved layers");
  CHECK_NEAR(r.layers[0].rope_base, 10000.0, 0.0);
  CHECK_NEAR(r.layers[0].rope_mscale, 1.0, 0.0);
  CHECK_NEAR(r.layers[0].scale, 1.0 / sqrt(8.0), 1e-7);
  CHECK_EQ(r.layers[0].rope_dims, 8);
  CHECK_EQ(r.layers[0].block, 1);
  CHECK_EQ(r.layers[1].rope, LONGCTX_ROPE_INTERLEAVED);
  CHECK_EQ(r.layers[1].positions, LONGCTX_POS_TEXT);
  CHECK_NEAR(r.layers[1].rope_base, 500.0, 0.0);
  free(lc);
}

/* What the caller pointed at was copied: pointers of the resolved desc lead into the block. */
static void test_copied(void)
{
  double freqs[4] = { 1.0, 0.25, 0.5, 0.125 };
  longctx_desc d = plain(), r;
  longctx_layer layers[2];
  size_t bytes;
  char *mem;
  longctx *lc;
  d.rope_freqs = freqs;
  layers[0] = longctx_layer_make(&d);
  layers[1] = longctx_layer_make(&d);
  layers[1].window = 3;
  d.layers = layers;
  bytes = longctx_size(&d);
  mem = (char *)t_memory(bytes);
  lc = longctx_init(mem, bytes, &d);
  t_case("copied");
  CHECK((char *)lc == mem);
  memset(freqs, 0, sizeof freqs);
  memset(layers, 0, sizeof layers);
  r = longctx_get_desc(lc);
  if (CHECK(r.rope_freqs != NULL && (const char *)r.rope_freqs > mem &&
            (const char *)(r.rope_freqs + 4) <= mem + bytes))
    CHECK_NEAR(r.rope_freqs[3], 0.125, 0.0);
  if (CHECK(r.layers != NULL && (const char *)r.layers > mem &&
            (const char *)(r.layers + 2) <= mem + bytes)) {
    CHECK_EQ(r.layers[0].window, 12);
    CHECK_EQ(r.layers[1].window, 3);
    CHECK_EQ(r.layers[1].kv_from, -1);
  }
  CHECK_EQ(longctx_size(&r), bytes);
  free(mem);
}

/* Init clears the block, so a desc of which some lies in it, its list or a table, is refused. */
static void test_own_desc(void)
{
  static const double freqs[4] = { 1.0, 0.25, 0.5, 0.125 };
  longctx_desc d = plain(), own, bad;
  longctx_layer layers[2];
  enum { FRONT = 1024 };                               /* room before the block                  */
  size_t bytes;
  char *room, *mem, *before;
  int i;
  d.rope_freqs = freqs;
  layers[0] = longctx_layer_make(&d);
  layers[1] = longctx_layer_make(&d);
  d.layers = layers;
  bytes = longctx_size(&d);
  room = (char *)t_memory(FRONT + bytes);
  mem = room + FRONT;
  before = (char *)t_memory(bytes);
  own = longctx_get_desc(longctx_init(mem, bytes, &d));
  CHECK(longctx_init(before, bytes, &own) != NULL);    /* elsewhere it is a desc like any other  */
  for (i = 0; i < 7; i++) {
    char *at = (char *)&bad;
    t_case("a desc of the block itself, %d", i);
    bad = d;
    if (i == 0) bad = own;
    if (i == 1) bad.rope_freqs = own.rope_freqs;
    if (i == 2) layers[1].rope_freqs = own.layers[1].rope_freqs;
    if (i == 3) at = mem + bytes - sizeof bad;
    if (i == 4) at = mem - sizeof bad / 16 * 8;        /* half of it                             */
    if (i == 5) bad.layers = (longctx_layer *)memcpy(mem - sizeof *layers, layers, sizeof layers);
    if (i == 6) bad.rope_freqs = (double *)memcpy(mem - sizeof freqs / 2, freqs, sizeof freqs);
    memmove(at, &bad, sizeof bad);
    memcpy(before, mem, bytes);
    CHECK(longctx_check((longctx_desc *)at) == NULL);
    CHECK(longctx_init(mem, bytes, (longctx_desc *)at) == NULL);
    CHECK_SAME(before, mem, bytes);
    layers[1].rope_freqs = freqs;
  }
  t_case("a desc right before the block");
  memcpy(mem - sizeof d, &d, sizeof d);
  CHECK(longctx_init(mem, bytes, (longctx_desc *)(mem - sizeof d)) != NULL);
  free(before);
  free(room);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

/* What the rows themselves take: sinks, a window, and the rest of a batch. */
static long double least_bytes(const longctx_desc *d)
{
  static const int width[] = { 4, 2, 2, 1 };
  long double rows = (long double)d->window + d->sinks + (d->max_batch ? d->max_batch : 1) - 1;
  long double row = (long double)d->head_dim * width[d->type_k];
  row += (long double)(d->head_dim_v ? d->head_dim_v : d->head_dim) * width[d->type_v];
  return row * d->n_layers * d->n_kv_heads * rows;
}

static void test_overflow(void)
{
  static const int huge[] = { 1, 2, 64, 65536, 1 << 20, 1 << 30, INT_MAX - 1, INT_MAX };
  uint64_t seed = 11;
  int i, refused = 0;
  for (i = 0; i < 20000; i++) {
    longctx_desc d = plain();
    size_t bytes;
    int *field[9], f;
    field[0] = &d.n_layers, field[1] = &d.n_heads, field[2] = &d.n_kv_heads;
    field[3] = &d.head_dim, field[4] = &d.window, field[5] = &d.sinks, field[6] = &d.max_batch;
    field[7] = &d.head_dim_v, field[8] = &d.max_threads;
    for (f = 0; f < 9; f++)
      if (t_below(&seed, 3) == 0) *field[f] = huge[t_below(&seed, 8)];
    if (t_below(&seed, 2)) d.n_kv_heads = d.n_heads;
    bytes = longctx_size(&d);
    t_case("overflow %d: size %lu", i, (unsigned long)bytes);
    if (bytes == 0) {
      refused++;
      CHECK(longctx_check(&d) != NULL);
    } else {
      CHECK((long double)bytes >= least_bytes(&d));
    }
  }
  {                                                    /* each number good, together 2^74 bytes  */
    longctx_desc d = longctx_desc_make(65536, 65536, 65536, 576, 1 << 30);
    longctx_layer *layers = (longctx_layer *)t_memory(65536 * sizeof *layers);
    refuse(&d, "address space");
    for (i = 0; i < 65536; i++) layers[i] = longctx_layer_make(&d);
    d.layers = layers;
    refuse(&d, "address space");
    free(layers);
    d = longctx_desc_make(1, 1, 1, 576, 1 << 30);
    if (sizeof(size_t) > 4) accept(&d, "as large as one head can be");
  }
  t_case("overflow, all");
  CHECK(refused > 1000 && refused < 20000);
}

/* A window costs what it holds, give or take a tile. */
static void test_frugal(void)
{
  static const int windows[] = { 128, 256, 1000, 4096 };
  size_t i;
  for (i = 0; i < sizeof windows / sizeof *windows; i++) {
    longctx_desc d = longctx_desc_make(1, 4, 4, 64, windows[i]);
    longctx_sizes sizes, without;
    t_case("window %d", windows[i]);
    if (!CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK)) continue;
    CHECK((long double)sizes.window >= least_bytes(&d));
    CHECK((long double)sizes.window <= 1.3L * least_bytes(&d));
    CHECK(sizes.window + sizes.scratch < sizes.total);
    CHECK_EQ(sizes.state + sizes.scratch, sizes.total);
    without = sizes;
    d.sinks = 100;
    CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
    CHECK(sizes.window - without.window >= 4 * 100 * 2 * 64 * 4);   /* in float32              */
    CHECK(sizes.window < sizes.state);
  }
}

/* The constant is the size, whatever is set of what it takes, and of what takes no room. */
static void test_static_size(void)
{
  static unsigned char block[LONGCTX_STATIC_SIZE(2, 4, 2, 16, 32, 4, 0, LONGCTX_F32, LONGCTX_F32)];
  longctx_desc d = longctx_desc_make(2, 4, 2, 16, 32);
  uint64_t seed = 21;
  size_t bytes;
  int i;
  d.sinks = 4;
  t_case("a static block");
  CHECK_EQ(sizeof block, longctx_size(&d));
  for (i = 0; i < 20000; i++) {
    int kv = 1 + t_below(&seed, 9), heads = kv * (1 + t_below(&seed, 9)), far = t_below(&seed, 2);
    d = longctx_desc_make(1 + t_below(&seed, 40), heads, kv, 1 + t_below(&seed, 576),
                          1 + t_below(&seed, far ? 4000 : 150));
    d.sinks = t_below(&seed, far ? 300 : 9);
    d.max_batch = t_below(&seed, far ? 200 : 5);
    d.type_k = t_below(&seed, 4);
    d.type_v = t_below(&seed, 4);
    d.positions = t_below(&seed, 2);
    d.rope = LONGCTX_ROPE_HALF + t_below(&seed, 2);
    d.softcap = far ? 30.0f : 0.0f;
    if (t_below(&seed, 2)) d.block = d.window;
    t_case("static size %d: %d layers, %d heads of %d, %d kv, window %d, sinks %d, batch %d", i,
           d.n_layers, heads, d.head_dim, kv, d.window, d.sinks, d.max_batch);
    bytes = LONGCTX_STATIC_SIZE(d.n_layers, d.n_heads, d.n_kv_heads, d.head_dim, d.window, d.sinks,
                                d.max_batch, d.type_k, d.type_v);
    if (sizeof bytes > 4 || longctx_size(&d)) /* 32 bits do not reach every block */
      CHECK_EQ(bytes, longctx_size(&d));
  }
}

/* A layer that reads another's keys and values keeps none. */
static void test_readers_are_free(void)
{
  longctx_desc d = longctx_desc_make(3, 4, 4, 64, 500), one = d;
  longctx_layer layers[3];
  longctx_sizes sizes, alone;
  int l;
  for (l = 0; l < 3; l++) {
    layers[l] = longctx_layer_make(&d);
    if (l) layers[l].kv_from = 0;
  }
  d.layers = layers;
  one.n_layers = 1;
  t_case("readers");
  CHECK_EQ(longctx_measure(&d, &sizes), LONGCTX_OK);
  CHECK_EQ(longctx_measure(&one, &alone), LONGCTX_OK);
  CHECK(sizes.window < alone.window + 4096);
}

/* As many layers as there may be, a table of frequencies in each: a walk, not a walk per layer. */
static void test_most_layers(void)
{
  enum { MOST = 65536 };
  static const double freqs[2] = { 1.0, 0.1 }, whole[2] = { 1.0, 0.25 };
  longctx_desc d = longctx_desc_make(MOST, 1, 1, 4, 1), r;
  longctx_layer *layers = (longctx_layer *)t_memory(MOST * sizeof *layers);
  longctx *lc;
  int i, error = 99;
  for (i = 0; i < MOST; i++) {
    layers[i] = longctx_layer_make(&d);
    layers[i].rope_freqs = freqs;
  }
  d.layers = layers;
  d.rope_freqs = whole;
  t_case("%d layers", MOST);
  lc = t_new(&d);
  CHECK(longctx_open(lc, longctx_size(&d), &error) == lc);
  r = longctx_get_desc(lc);
  CHECK(memcmp(r.rope_freqs, whole, sizeof whole) == 0);
  CHECK(memcmp(r.layers[0].rope_freqs, freqs, sizeof freqs) == 0);
  CHECK(memcmp(r.layers[MOST - 1].rope_freqs, freqs, sizeof freqs) == 0);
  free(lc);
  free(layers);
}

static void test_null(void)
{
  longctx_desc d = plain();
  longctx_sizes sizes;
  char mem[64];
  t_case("null");
  CHECK(longctx_check(NULL) != NULL);
  CHECK_EQ(longctx_size(NULL), 0);
  CHECK_EQ(longctx_measure(NULL, &sizes), LONGCTX_E_ARG);
  CHECK_EQ(longctx_measure(&d, NULL), LONGCTX_E_ARG);
  CHECK(longctx_init(NULL, 1 << 20, &d) == NULL);
  CHECK(longctx_init(mem, sizeof mem, NULL) == NULL);
}

/* ---- red zones ------------------------------------------------------------------------------- */

static const double some_freqs[64] = { 1.0, 0.7, 0.3, 0.11, 0.05, 0.013, 0.004, 0.001 };

static void random_layers(longctx_desc *d, longctx_layer *layers, uint64_t *seed)
{
  int l;
  for (l = 0; l < d->n_layers; l++) {
    layers[l] = longctx_layer_make(d);
    layers[l].block = 1 + t_below(seed, 4);
    layers[l].window = layers[l].block * (1 + t_below(seed, 12));
    layers[l].positions = t_below(seed, 2);
    layers[l].rope = t_below(seed, 3);
    if (t_below(seed, 3) == 0) layers[l].softcap = 5.0f;
  }
  if (d->n_layers == 3 && t_below(seed, 2)) {
    layers[2] = layers[0];
    layers[2].kv_from = 0;
  }
  d->layers = layers;
}

static longctx_desc random_desc(longctx_layer *layers, uint64_t *seed)
{
  int n_layers = 1 + t_below(seed, 3), kv = 1 + t_below(seed, 3), ratio = 1 + t_below(seed, 4);
  int dim = 1 + t_below(seed, 40);
  longctx_desc d = longctx_desc_make(n_layers, kv * ratio, kv, dim, 1);
  d.block = 1 + t_below(seed, 5);
  d.window = d.block * (1 + t_below(seed, 12));
  d.sinks = t_below(seed, 2) ? t_below(seed, 20) : 0;
  d.head_dim_v = t_below(seed, 2) ? 1 + t_below(seed, 40) : 0;
  d.max_batch = t_below(seed, 9);
  d.max_threads = t_below(seed, 4);
  d.type_k = t_below(seed, 4);
  d.type_v = t_below(seed, 4);
  d.positions = t_below(seed, 2);
  d.rope = dim > 1 ? t_below(seed, 3) : LONGCTX_ROPE_NONE;
  d.rope_dims = dim / 2 * 2;
  if (t_below(seed, 4) == 0) d.rope_freqs = some_freqs;
  if (t_below(seed, 4) == 0) d.softcap = 20.0f;
  if (t_below(seed, 4) == 0) d.alibi_max_bias = 8.0f;
  if (d.block > 1 && t_below(seed, 2)) {
    d.feedback_len = 1 + t_below(seed, d.block);
    d.feedback_dim = t_below(seed, 30);
    if (t_below(seed, 2)) return d;
  }
  if (d.block > 1 && t_below(seed, 2)) {
    d.memory = 1 + t_below(seed, 2);
    d.memory_first = t_below(seed, 2);
    return d;
  }
  if (dim > 1 && !d.feedback_len && t_below(seed, 3) == 0) random_layers(&d, layers, seed);
  return d;
}

static int finite_row(const float *x, size_t n)
{
  while (n--)
    if (!(fabsf(x[n]) <= FLT_MAX)) return 0;
  return 1;
}

/* Rows of one layer, if it has any, all of them written and used. */
static void give(longctx *lc, int layer, const float *row, float *out)
{
  longctx_desc d = longctx_get_desc(lc);
  float *rows = longctx_feedback(lc, layer);
  size_t floats = (size_t)(d.feedback_len * d.feedback_dim);
  size_t outs = (size_t)(d.feedback_len * d.n_heads * d.head_dim_v);
  if (rows == NULL) return;
  memset(rows, 0x5a, floats * sizeof(float));
  (void)longctx_feedback_attend(lc, layer, out);
  CHECK_EQ(longctx_feedback_set(lc, layer, row, row + 3, row + 7), LONGCTX_OK);
  out[outs] = 77.0f;
  CHECK_EQ(longctx_feedback_attend(lc, layer, out), LONGCTX_OK);
  CHECK(finite_row(out, outs));
  CHECK(out[outs] > 76.0f && out[outs] < 78.0f);
}

/* A few batches, some dropped, through every layer; all rows come from `row` at random places. */
static void exercise(longctx *lc, const longctx_desc *d, const float *row, float *out,
                     uint64_t *seed)
{
  int dim_v = d->head_dim_v ? d->head_dim_v : d->head_dim, step, l;
  static const float gates[16] = { 1.0f, -1.0f, 0.5f };
  for (l = 0; l < d->n_layers && d->memory; l++)
    CHECK_EQ(longctx_set_gate(lc, l, gates), LONGCTX_OK);
  for (step = 0; step < (d->memory || d->feedback_len ? 12 : 4); step++) {
    int n;
    for (l = 0; longctx_feedback_due(lc) && l < d->n_layers; l++) give(lc, l, row, out);
    n = 1 + t_below(seed, longctx_room(lc));
    size_t outs = (size_t)(n * d->n_heads * dim_v);
    for (l = 0; l < d->n_layers; l++) {
      const float *q = row + t_below(seed, 9), *k = row + t_below(seed, 9);
      if (d->layers && d->layers[l].kv_from >= 0) k = NULL;
      CHECK_EQ(longctx_attend(lc, l, n, q, k, k, out), LONGCTX_OK);
      CHECK(finite_row(out, outs));
      out[outs] = 77.0f;                               /* the end of the rows stays              */
      CHECK_EQ(longctx_attend(lc, l, n, q, k, k, out), LONGCTX_OK);
      CHECK(out[outs] > 76.0f && out[outs] < 78.0f);
    }
    CHECK_EQ(longctx_commit(lc, step == 2 ? n / 2 : n), LONGCTX_OK);
  }
}

static int all_are(const unsigned char *x, size_t n, int value)
{
  while (n--)
    if (x[n] != value) return 0;
  return 1;
}

enum { ZONE = 256, ROW_FLOATS = 9 * 12 * 40 + 16 };

static void try_between_zones(const longctx_desc *d, int shift, const float *row, uint64_t *seed)
{
  size_t bytes = longctx_size(d);
  unsigned char *all = (unsigned char *)t_memory(bytes + 2 * ZONE + 64);
  unsigned char *mem = all + ZONE + shift;
  float *out = t_floats(ROW_FLOATS);
  longctx *lc;
  CHECK(longctx_init(mem, bytes - 1, d) == NULL);
  CHECK(all_are(all, bytes + 2 * ZONE + 64, 0xff));
  lc = longctx_init(mem, bytes, d);
  if (CHECK(lc != NULL)) exercise(lc, d, row, out, seed);
  CHECK(all_are(all, (size_t)(ZONE + shift), 0xff));
  CHECK(all_are(mem + bytes, (size_t)(ZONE + 64 - shift), 0xff));
  free(all);
  free(out);
}

static void test_red_zones(void)
{
  uint64_t seed = 1234;
  float *row = t_normals(ROW_FLOATS, 5);
  int i;
  for (i = 0; i < 10000; i++) {
    longctx_layer layers[3];
    longctx_desc d = random_desc(layers, &seed);
    const char *why = longctx_check(&d);
    t_case("random desc %d: \"%s\"", i, why ? why : "");
    if (CHECK(why == NULL)) try_between_zones(&d, 16 * (i % 4), row, &seed);
  }
  free(row);
}

static void test_misaligned(void)
{
  longctx_desc d = plain();
  size_t bytes = longctx_size(&d);
  char *mem = (char *)t_memory(bytes + 64);
  t_case("misaligned block");
  CHECK(longctx_init(mem + 1, bytes, &d) == NULL);
  CHECK(longctx_init(mem + 2, bytes, &d) == NULL);
  CHECK(longctx_init(mem + 32, bytes + 32, &d) != NULL);
  free(mem);
}

/* ---- guard pages: one byte outside is a fault, for the block and for the caller's rows ------- */

#ifdef HAVE_PAGES
static float *guarded_copy(guarded *g, const float *x, int n)
{
  float *y = (float *)guard(g, sizeof *y * (size_t)n);
  memcpy(y, x, sizeof *y * (size_t)n);
  return y;
}

static void try_guarded(const longctx_desc *d, const float *row)
{
  int dim_v = d->head_dim_v ? d->head_dim_v : d->head_dim, step, l;
  int n = d->max_batch ? d->max_batch : 1;
  size_t bytes = longctx_size(d);
  guarded g[5];
  char *mem = (char *)guard(&g[0], (bytes + 15) / 16 * 16);
  float *q = guarded_copy(&g[1], row, n * d->n_heads * d->head_dim);
  float *k = guarded_copy(&g[2], row, n * d->n_kv_heads * d->head_dim);
  float *v = guarded_copy(&g[3], row, n * d->n_kv_heads * dim_v);
  float *out = guarded_copy(&g[4], row, n * d->n_heads * dim_v);
  float *spare = t_floats(ROW_FLOATS);
  longctx *lc = longctx_init(mem, bytes, d);
  static const float gates[16] = { 1.0f, -1.0f, 0.5f };
  CHECK(lc != NULL);
  for (l = 0; l < d->n_layers && d->memory; l++)
    CHECK_EQ(longctx_set_gate(lc, l, gates), LONGCTX_OK);
  for (step = 0; step < 9; step++) {
    for (l = 0; longctx_feedback_due(lc) && l < d->n_layers; l++) give(lc, l, row, spare);
    if (n > longctx_room(lc)) n = longctx_room(lc);
    for (l = 0; l < d->n_layers; l++) {
      int reads = d->layers && d->layers[l].kv_from >= 0;
      CHECK_EQ(longctx_attend(lc, l, n, q, reads ? NULL : k, reads ? NULL : v, out), LONGCTX_OK);
    }
    CHECK_EQ(longctx_commit(lc, n), LONGCTX_OK);
  }
  free(spare);
  for (l = 0; l < 5; l++) unguard(&g[l]);
}

static void test_guard_pages(void)
{
  uint64_t seed = 4321;
  float *row = t_normals(ROW_FLOATS, 6);
  int i;
  for (i = 0; i < 400; i++) {
    longctx_layer layers[3];
    longctx_desc d = random_desc(layers, &seed);
    t_case("guarded desc %d", i);
    try_guarded(&d, row);
  }
  for (i = 1; i <= 300; i++) {                         /* every head width, every tail           */
    longctx_desc d = longctx_desc_make(1, 2, 1, i, 3);
    if (i == 1) d.rope = LONGCTX_ROPE_NONE;
    d.rope_dims = i / 2 * 2;
    d.head_dim_v = 301 - i;
    d.max_batch = 2;
    d.type_k = i % 4;
    d.type_v = i / 4 % 4;
    if (i % 3 == 0) d.block = 3, d.memory = 1 + i % 2;
    if (i % 6 < 2) d.block = 3, d.feedback_len = 1 + i % 3;
    t_case("guarded head_dim %d", i);
    try_guarded(&d, row);
  }
  free(row);
}
#else
static void test_guard_pages(void)
{
  printf("skipped: guard pages (no mmap)\n");
}
#endif

int main(void)
{
  test_bad_counts();
  test_bad_kinds();
  test_bad_memory();
  test_memory_sizes();
  test_bad_feedback();
  test_feedback_sizes();
  test_bad_numbers();
  test_bad_layers();
  test_bad_readers();
  test_good_edges();
  test_odd_head_dim();
  test_makers();
  test_resolved();
  test_resolved_layers();
  test_copied();
  test_own_desc();
  test_overflow();
  test_frugal();
  test_static_size();
  test_readers_are_free();
  test_most_layers();
  test_null();
  test_red_zones();
  test_misaligned();
  test_guard_pages();
  return t_done();
}
