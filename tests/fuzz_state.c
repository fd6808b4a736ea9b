/* fuzz_state.c: any bytes as a block for longctx_open and as a file for longctx_load and _restore.

   What is refused changes nothing in a context that lives. What is accepted must work: it saves,
   the saved state loads and is restored into a context made from its desc, and two such contexts
   give the same bits for more tokens, after a reset, too.

   make test  changed seeds, drawn from a fixed seed; with FOLDER the seeds are written there
   libFuzzer  clang -g -O1 -std=c99 -DFUZZER -fsanitize=fuzzer,address,undefined \
                tests/fuzz_state.c -o fuzz_state -lm */
#define _POSIX_C_SOURCE 200809L                        /* fmemopen                               */
#include "text.h"

enum { AS_FILE = 1, MENDED = 2, FRONT = 8 };           /* the first byte of an input; its length */

static long opened, loaded;

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size);

/* ---- contexts that make the seeds ------------------------------------------------------------ */

enum { SEEDS = 6 };

static longctx_desc seed_desc(int i, longctx_layer *layers)
{
  static const double freqs[2] = { 1.0, 0.01 };
  longctx_desc d = longctx_desc_make(1 + i % 2, 4, 2, 4 + i, 8);
  d.sinks = i % 3;
  d.block = i % 2 ? 4 : 1;
  d.max_batch = 1 + i % 3;
  d.type_k = i % 4;
  d.type_v = (i + 1) % 4;
  d.rope_dims = 4;
  if (i == 1) d.rope_freqs = freqs;
  if (i == 1) d.memory = LONGCTX_MEMORY_LINEAR;
  if (i == 3) d.memory = LONGCTX_MEMORY_DELTA;
  if (i == 2) d.alibi_max_bias = 8.0f;
  if (i == 5 || i == 3) d.feedback_len = 3, d.feedback_dim = 2;
  if (i != 5) return d;
  layers[0] = layers[1] = longctx_layer_make(&d);
  layers[1].kv_from = 0;
  layers[1].window = 4;
  d.layers = layers;
  return d;
}

static longctx *seed_context(int i)
{
  static const float logits[4] = { 0.5f, -INFINITY, 2.0f, 0.0f };
  longctx_layer layers[2];
  longctx_desc d = seed_desc(i, layers);
  longctx *lc = t_new(&d);
  text x = text_make(&d, 21, 3);
  float *out = text_out(&x);
  CHECK_EQ(longctx_seek(lc, i % 2 ? 1020 : 505), LONGCTX_OK);
  if (i % 2) CHECK_EQ(longctx_set_sink_logits(lc, 0, logits), LONGCTX_OK);
  if (d.memory) CHECK_EQ(longctx_set_gate(lc, 1, logits), LONGCTX_OK);
  text_run(lc, &x, 0, i % 2 ? 20 : 21, 0, out);
  free(out);
  text_free(&x);
  return lc;
}

static unsigned char *seed_bytes(int i, int as_file, size_t *size)
{
  longctx *lc = seed_context(i);
  unsigned char *state = t_state(lc, size), *seed;
  if (!as_file) {
    longctx_desc d = longctx_get_desc(lc);
    *size = longctx_size(&d);
  }
  seed = (unsigned char *)t_memory(FRONT + *size);
  memset(seed, 0, FRONT);
  seed[0] = (unsigned char)(as_file ? AS_FILE | MENDED : MENDED);
  memcpy(seed + FRONT, as_file ? state : (const unsigned char *)lc, *size);
  *size += FRONT;
  free(state);
  free(lc);
  return seed;
}

/* ---- what is accepted must work -------------------------------------------------------------- */

/* Their states are equal bytes. */
static void compare_states(const longctx *a, const longctx *b)
{
  size_t n, m;
  unsigned char *x = t_state(a, &n), *y = t_state(b, &m);
  if (CHECK_EQ(n, m)) CHECK_SAME(x, y, n);
  free(x);
  free(y);
}

/* A few tokens through both, which must come out alike. */
static void compare_outputs(longctx *a, longctx *b)
{
  longctx_desc d = longctx_get_desc(a);
  text x = text_make(&d, 3, 5);
  float *out = text_out(&x), *same = text_out(&x);
  size_t rows = (size_t)(2 * d.n_layers * d.feedback_len) + 1;
  float *fed = t_floats(rows * x.out_row), *fed_same = t_floats(rows * x.out_row);
  int times, l, n;
  for (times = 0; times < 3; times++) {
    text_meet(a, &x, fed);
    text_meet(b, &x, fed_same);
    CHECK_SAME(fed, fed_same, sizeof(float) * rows * x.out_row);
    n = longctx_room(a) < 3 ? longctx_room(a) : 3;
    CHECK_EQ(longctx_room(b), longctx_room(a));
    for (l = 0; l < x.layers; l++) {
      CHECK_EQ(text_attend(a, &x, l, 0, n, out), LONGCTX_OK);
      CHECK_EQ(text_attend(b, &x, l, 0, n, same), LONGCTX_OK);
      CHECK_SAME(out, same, sizeof(float) * (size_t)n * x.out_row);
    }
    CHECK_EQ(longctx_commit(a, n), LONGCTX_OK);
    CHECK_EQ(longctx_commit(b, n), LONGCTX_OK);
  }
  free(out), free(same), free(fed), free(fed_same);
  text_free(&x);
}

static void live_on(longctx *lc)
{
  longctx_desc d = longctx_get_desc(lc);
  size_t n, bytes;
  unsigned char *state = t_state(lc, &n);
  FILE *file = fmemopen(state, n, "rb");
  longctx *again;
  void *mem;
  int error = 1;
  CHECK(longctx_check(&d) == NULL);
  d.max_threads = 1;
  bytes = longctx_size(&d);
  mem = t_memory(bytes);
  again = longctx_load(mem, bytes, file, &error);
  if (CHECK_EQ(error, LONGCTX_OK) && again) {
    compare_states(lc, again);
    rewind(file);
    again = longctx_init(mem, bytes, &d);
    CHECK_EQ(longctx_restore(again, file), LONGCTX_OK);
    if ((int64_t)d.n_layers * d.n_heads * (d.head_dim + d.head_dim_v) < 1 << 16 &&
        (int64_t)d.feedback_len * d.feedback_dim < 1 << 16) {
      compare_outputs(lc, again);
      compare_states(lc, again);
      longctx_reset(lc);
      longctx_reset(again);
      compare_outputs(lc, again);
    }
    compare_states(lc, again);
  }
  fclose(file);
  free(mem);
  free(state);
}

/* ---- the two doors --------------------------------------------------------------------------- */

/* A mutated wish rarely has the plan that belongs to it: then only refusals would be tried. */
static void mend_block(void *mem, size_t n)
{
  longctx *lc = (longctx *)mem;
  lcx_plan plan;
  if (n < sizeof *lc || lc->max_threads < 1 || lc->max_threads > 1024) return;
  if (lcx_sound_wish(lc, n, lc->max_threads, &plan) == LONGCTX_OK) lc->plan = plan;
}

/* nor has a mutated file its length and its checksum */
static void mend_file(unsigned char *state, size_t n)
{
  uint64_t bytes = n;
  if (n < sizeof(lcx_file_head) + sizeof(uint64_t)) return;
  memcpy(state + offsetof(lcx_file_head, bytes), &bytes, sizeof bytes);
  t_rehash(state, n);
}

static void as_block(const unsigned char *bytes, size_t n, int mended)
{
  void *mem = t_memory(n);                             /* exact: a sanitizer sees one byte beyond */
  longctx *lc;
  int error = 1;
  memcpy(mem, bytes, n);
  if (mended) mend_block(mem, n);
  lc = longctx_open(mem, n, &error);
  CHECK((lc != NULL) == (error == LONGCTX_OK) && error <= 0);
  if (lc) opened++;
  if (lc) live_on(lc);
  free(mem);
}

static void as_file(const unsigned char *bytes, size_t n, int mended)
{
  static longctx *witness;
  static unsigned char *picture;
  static size_t witness_bytes;
  size_t room = 1 << 18;
  unsigned char *state = (unsigned char *)t_memory(n);
  void *mem = t_memory(room);
  longctx *lc;
  FILE *file;
  int error = 1, code;
  memcpy(state, bytes, n);
  if (mended) mend_file(state, n);
  file = fmemopen(state, n, "rb");
  lc = longctx_load(mem, room, file, &error);
  CHECK((lc != NULL) == (error == LONGCTX_OK) && error <= 0);
  if (lc) loaded++;
  if (lc) live_on(lc);
  if (witness == NULL) {
    longctx_desc d;
    witness = seed_context(1);
    d = longctx_get_desc(witness);
    witness_bytes = longctx_size(&d);
    picture = (unsigned char *)t_memory(witness_bytes);
  }
  memcpy(picture, witness, witness_bytes);
  rewind(file);
  code = longctx_restore(witness, file);
  if (code) CHECK_SAME(picture, (const unsigned char *)witness, witness_bytes);
  else CHECK(lc != NULL);
  memcpy(witness, picture, witness_bytes);
  fclose(file);
  free(mem);
  free(state);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size)
{
  if (size <= FRONT) return 0;
  if (bytes[0] & AS_FILE) as_file(bytes + FRONT, size - FRONT, bytes[0] & MENDED);
  else as_block(bytes + FRONT, size - FRONT, bytes[0] & MENDED);
#ifdef FUZZER
  if (t_failed) abort();
#endif
  return 0;
}

/* ---- without libFuzzer ----------------------------------------------------------------------- */

#ifndef FUZZER
/* A few changes, most of them near the front, where the desc is. */
static size_t mutate(unsigned char *bytes, size_t size, uint64_t *seed)
{
  static const int32_t numbers[] = { 0, 1, -1, 2, 3, 4, 8, 16, 64, 255, 1 << 16, 1 << 30,
                                     INT32_MAX, INT32_MIN, 0x7f800000, 0x7fc00000, 0x3f800000 };
  int n = t_below(seed, 4);
  while (n--) {
    size_t reach = t_below(seed, 3) ? size < 640 ? size : 640 : size;
    size_t at = FRONT + (size_t)t_below(seed, (int)(reach - FRONT));
    size_t word = at / 4 * 4;
    int32_t number = numbers[t_below(seed, (int)(sizeof numbers / sizeof *numbers))];
    int kind = t_below(seed, 16);
    if (kind < 6) bytes[at] = (unsigned char)(bytes[at] ^ 1 << t_below(seed, 8));
    else if (kind < 8) bytes[at] = (unsigned char)t_below(seed, 256);
    else if (kind < 15 && word + 4 <= size) memcpy(bytes + word, &number, 4);
    else if (kind == 15) size = at + 1;
  }
  bytes[0] = (unsigned char)((bytes[0] & AS_FILE) | (t_below(seed, 8) ? MENDED : 0));
  return size;
}

static void write_seeds(const char *folder)
{
  int i;
  for (i = 0; i < 2 * SEEDS; i++) {
    char name[1000];
    size_t size;
    unsigned char *seed = seed_bytes(i / 2, i % 2, &size);
    FILE *file;
    snprintf(name, sizeof name, "%s/state-%d", folder, i);
    file = fopen(name, "wb");
    CHECK(file && fwrite(seed, 1, size, file) == size && fclose(file) == 0);
    free(seed);
  }
}

int main(int argc, char **argv)
{
  uint64_t seed = 7;
  int i, times = 1500, n;
  if (argc > 1) {
    write_seeds(argv[1]);
    return t_done();
  }
  for (i = 0; i < 2 * SEEDS; i++) {
    size_t size;
    unsigned char *bytes = seed_bytes(i / 2, i % 2, &size);
    long before = opened + loaded;
    t_case("seed %d as it is", i);
    LLVMFuzzerTestOneInput(bytes, size);
    CHECK_EQ(opened + loaded, before + 1);
    for (n = 0; n < times; n++) {
      unsigned char *bad = (unsigned char *)t_memory(size);
      memcpy(bad, bytes, size);
      t_case("seed %d, change %d", i, n);
      LLVMFuzzerTestOneInput(bad, mutate(bad, size, &seed));
      free(bad);
    }
    free(bytes);
  }
  printf("%d inputs: %ld blocks opened, %ld files loaded, the rest refused\n",
         2 * SEEDS * (times + 1), opened, loaded);
  CHECK(opened > times && loaded > times);             /* of 6*times each: no empty test          */
  return t_done();
}
#endif
