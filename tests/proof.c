/* proof.c: what Frama-C's EVA goes through for tests/proof.sh; nobody runs it. EVA takes what is
   made "any" here as every value at once, so "0 alarms" says of all of them: no access outside an
   object, no overflow of a signed integer, no division by 0, no shift too far, nothing read that
   was never set. It does not say that results are right. Each proof_ function is one proof. */
#define LONGCTX_IMPLEMENTATION
#define LONGCTX_NO_DISPATCH
#define LONGCTX_NO_SIMD
#include "__fc_builtin.h"
#include "longctx.h"

enum { LAYERS = 2, FREQS = 2, BLOCK = 24576, SHAPES = 6 };
#define LAST (((int64_t)1 << 62) + (1 << 20)) /* position of a batch's last token */

/* A block ends where this array ends, so that one byte past it is seen. */
static union { double aligned; unsigned char at[BLOCK]; } block;
static double freqs[288];

static void any(void *bytes, size_t n) { Frama_C_make_unknown((char *)bytes, n); }

static int64_t between(int64_t low, int64_t high)
{
  return Frama_C_long_interval(low, high);
}

/* ---- desc: any fields; layers alike, or LAYERS of their own with any fields ------------------ */

void proof_desc(void)
{
  longctx_desc d;
  longctx_sizes sizes;
  any(&d, sizeof d);
  any(freqs, sizeof freqs);
  d.layers = NULL;
  d.rope_freqs = NULL;
  longctx_check(&d);
  longctx_size(&d);
  longctx_measure(&d, &sizes);
  d.rope_freqs = freqs;
  longctx_measure(&d, &sizes);
}

void proof_layers(void)
{
  longctx_desc d;
  longctx_sizes sizes;
  longctx_layer layers[LAYERS];
  int i, tables;
  any(&d, sizeof d);
  any(layers, sizeof layers);
  any(freqs, sizeof freqs);
  d.rope_freqs = NULL;
  d.layers = layers;
  d.n_layers = (int)between(-5, 1);
  for (i = 0; i < LAYERS; ++i) layers[i].rope_freqs = freqs;
  longctx_measure(&d, &sizes);
  d.n_layers = LAYERS;
  for (tables = 0; tables < 1 << LAYERS; ++tables) {
    for (i = 0; i < LAYERS; ++i) layers[i].rope_freqs = tables >> i & 1 ? freqs : NULL;
    longctx_measure(&d, &sizes);
  }
}

/* ---- wish: any bytes where a block or a file has its desc ------------------------------------ */

/* A block of `bytes` with that many layers of their own (-1: none has) and tables of n_freqs. */
static void wish_of(size_t bytes, int layers, int n_freqs)
{
  longctx *lc = (longctx *)(void *)(block.at + sizeof block.at - bytes);
  lcx_wish_layer *l = (lcx_wish_layer *)(void *)(lc + 1);
  lcx_plan p;
  int i;
  any(block.at, sizeof block.at);
  lc->wish.has_layers = layers >= 0 ? 1 : (int)between(-5, 0);
  if (layers >= 0) lc->wish.n_layers = layers <= LAYERS ? layers : (int)between(LAYERS + 1, 65536);
  lc->wish.base.n_freqs = n_freqs;
  for (i = 0; i < layers && i < LAYERS && bytes >= sizeof *lc + sizeof *l * (size_t)(i + 1); ++i)
    l[i].n_freqs = n_freqs;
  lcx_sound_wish(lc, bytes, (int)between(1, 1024), &p);
}

void proof_wish(void)
{
  size_t more;
  int layers, n_freqs;
  //@ loop unroll 12;
  for (more = 0; more <= LAYERS * sizeof(lcx_wish_layer) + 8 * FREQS * (LAYERS + 1); more += 16)
    //@ loop unroll 5;
    for (layers = -1; layers <= LAYERS + 1; ++layers)
      //@ loop unroll 2;
      for (n_freqs = 0; n_freqs <= FREQS; n_freqs += FREQS)
        wish_of(sizeof(longctx) + more, layers, n_freqs);
}

/* ---- open, load: what the wish leaves free is any bytes -------------------------------------- */

static longctx_desc shape(int i, longctx_layer *layers)
{
  longctx_desc d = longctx_desc_make(1 + i % 2, 2, 1 + i % 2, 2 + i % 3, 4);
  d.sinks = i % 3;
  d.block = i % 2 ? 2 : 1;
  d.max_batch = 1 + i % 3;
  d.type_k = i % 4;
  d.type_v = (i + 1) % 4;
  d.head_dim_v = 1 + i % 4;
  if (i == 1) d.memory = LONGCTX_MEMORY_LINEAR;
  if (i == 2) d.alibi_max_bias = 8;
  if (i == 3) d.memory = LONGCTX_MEMORY_DELTA;
  if (i == 3 || i == 5) d.feedback_len = 2, d.feedback_dim = 3;
  if (i != 5) return d;
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[1].kv_from = 0;
  layers[1].window = 2;
  d.layers = layers;
  return d;
}

static void open_of(int i, int threads)
{
  longctx_layer layers[2];
  longctx_desc d = shape(i, layers);
  size_t bytes;
  longctx *lc;
  lcx_wish w;
  unsigned char *end, own[256];
  int n, error;
  d.max_threads = threads;
  bytes = longctx_size(&d);
  lc = longctx_init(block.at + sizeof block.at - bytes, bytes, &d);
  if (!lc) return;
  n = lc->wish.bytes;
  memcpy(own, &lc->wish, (size_t)n);
  any(block.at, sizeof block.at);
  memcpy(&lc->wish, own, (size_t)n);
  lc->max_threads = threads;
  if (longctx_open(lc, bytes, &error)) {
    longctx_state_size(lc);
    longctx_room(lc);
    longctx_feedback_due(lc);
    longctx_seek(lc, between(INT64_MIN, INT64_MAX));
  }
  longctx_open(lc, (size_t)between(0, (int64_t)bytes - 1), &error);
}

void proof_open(void)
{
  int i;
  //@ loop unroll 8;
  for (i = 0; i < SHAPES; ++i) {
    open_of(i, 1);
    open_of(i, 2);
  }
}

/* The file that fread reads: its front is known, then any bytes, and so it ends. */
static unsigned char front[512];
static size_t front_size, file_at, file_end;

size_t fread(void *to, size_t size, size_t n, FILE *file)
{
  size_t all = size * n, known = file_at < front_size ? front_size - file_at : 0;
  (void)file;
  if (all > file_end - file_at) {
    any(to, all);
    file_at = file_end;
    return 0;
  }
  if (known > all) known = all;
  any(to, all);
  if (known > 0) memcpy(to, front + file_at, known);
  file_at += all;
  return n;
}

/* A state of shape i at `position` that says it has `more` bytes than it has, and ends `early`. */
static void load_of(int i, int64_t position, int64_t more, size_t early)
{
  longctx_layer layers[2];
  longctx_desc d = shape(i, layers);
  size_t bytes = longctx_size(&d);
  longctx *lc = longctx_init(block.at + sizeof block.at - bytes, bytes, &d);
  lcx_file_head head;
  FILE file;
  int error;
  if (!lc) return;
  memset(&head, 0, sizeof head);
  head.label = lc->label;
  head.position = position;
  head.bytes = lcx_state_bytes(lc, 0, position) + (uint64_t)more;
  file_at = 0;
  file_end = (size_t)lcx_state_bytes(lc, 0, position) - early;
  front_size = sizeof head + (size_t)lc->wish.bytes;
  memcpy(front, &head, sizeof head);
  memcpy(front + sizeof head, &lc->wish, (size_t)lc->wish.bytes);
  any(block.at, sizeof block.at);
  longctx_load(lc, bytes, &file, &error);
}

/* One load a run: what splits its states apart would go on to multiply those of the next. */
#ifndef SHAPE
enum { SHAPE = 0, POSITION = 2, MORE = 0, EARLY = 0 };
#endif
void proof_load(void) { load_of(SHAPE, POSITION, MORE, EARLY); }

/* ---- ring: any position, window, block, sinks, batch ----------------------------------------- */

static void ring_of(int64_t start)
{
  longctx *lc = (longctx *)(void *)block.at;
  const int64_t end = (int64_t)1 << 62;
  lcx_layer y;
  lcx_work w;
  lcx_reach r;
  lcx_view seen[3][2];
  int64_t x, t, to;
  int i;
  any(block.at, sizeof block.at);
  any(&y, sizeof y);
  for (i = 0; i < 3; ++i) w.view[i] = seen[i];
  lc->start = start;
  lc->position = between(start, end);
  lc->wish.sinks = (int32_t)between(0, 1 << 30);
  y.window = (int32_t)between(1, 1 << 30);
  y.block = (int32_t)between(1, 1 << 30);
  y.fed_rows = (int32_t)between(0, 65536);
  y.store[0].tile = Frama_C_nondet(16, 64);
  y.store[0].tiles = (int32_t)between(1, (1 << 26) + 2);
  t = between(start, LAST);
  r = lcx_reach_of(lc, &y, between(-1, end), t, between(start, LAST));
  lcx_segments_of(&r);
  lcx_segment_of(&r, between(0, 1 << 25));
  lcx_tile_at(&y.store[0], t);
  lcx_look(lc, &y, &w, Frama_C_interval(0, 1), -1, t);
  lcx_look(lc, &y, &w, Frama_C_interval(0, 1), between(0, end), Frama_C_interval(0, 65535));
  lcx_kept(lc, &y, Frama_C_interval(0, 1), start, between(start, end), &x, &to);
  lcx_first_waiting(lc, &y, t, Frama_C_interval(0, 1));
}

void proof_ring(void)
{
  ring_of(0);
  ring_of(1000);
  ring_of((int64_t)1 << 53);
  ring_of((int64_t)1 << 62);
}
