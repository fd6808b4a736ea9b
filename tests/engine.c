/* tests/engine.c - the examples' engine: hostile files, the tokenizer, the forward pass.

   Run from the repository's root: tests/engine [folder of reference data]
   The folder (or $LONGCTX_SHARED, or ../shared/data) holds models, golden texts and golden
   per-token losses of an independent evaluator; without it those tests are skipped by name.
   The rest needs nothing: its files are made here. */
#define _POSIX_C_SOURCE 200809L
#include "t.h"
#include <unistd.h>

#include "bytes.h"

#define ENGINE_IMPLEMENTATION
#define malloc test_malloc
#define calloc test_calloc
#define realloc test_realloc
#include "../examples/engine.h"
#include "../examples/tokenizer.h"
#undef malloc
#undef calloc
#undef realloc

static uint64_t seed = 1;
static int skipped;

static int random_below(int n) { return t_below(&seed, n); }
static float random_float(void) { return (float)(2.0 * t_unit(&seed) - 1.0); }

/* ==== files made in memory ==== */

enum { DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, LENGTH };

/* a checkpoint of the smallest interesting shape; tied where the vocabulary is positive */
static bytes make_checkpoint(int vocab)
{
  int dim = 16, hidden = 36, layers = 2, heads = 4, kv_heads = 2, length = 16;
  int kv_dim = dim / heads * kv_heads, size = abs(vocab);
  int header[7] = { dim, hidden, layers, heads, kv_heads, vocab, length };
  int floats = size * dim + layers * (2 * dim + 2 * dim * dim + 2 * dim * kv_dim +
               3 * dim * hidden) + dim + length * dim / heads + (vocab < 0 ? size * dim : 0);
  bytes b = { NULL, 0, 0 };
  for (int i = 0; i < 7; i++) put_u32(&b, (uint32_t)header[i]);
  for (int i = 0; i < floats; i++) put_f32(&b, random_float());
  return b;
}

static void put_piece(bytes *b, float score, const char *name)
{
  put_f32(b, score);
  put_u32(b, (uint32_t)strlen(name));
  put_bytes(b, name, strlen(name));
}

static const char *const merges[] = {
  " ", "a", "b", "c", "\xc3\xa9", "\xe2\x82\xac", "ab", "ba", "aba", "abab", "bb", " a", " b",
  " ab", "c\xc3\xa9", "\xc3\xa9\xc3\xa9", "ca", "cab", "aa", "aaa", "aaaa", "a b"
};
enum { N_MERGES = (int)(sizeof merges / sizeof merges[0]), N_TOKENS = 3 + 256 + N_MERGES };

/* a tokenizer with all bytes and a few pieces, several of them of equal score */
static bytes make_tokenizer(void)
{
  bytes b = { NULL, 0, 0 };
  char name[8];
  put_u32(&b, 7);
  put_piece(&b, 0, "<unk>");
  put_piece(&b, 0, "\n<s>\n");
  put_piece(&b, 0, "\n</s>\n");
  for (int i = 0; i < 256; i++) {
    snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
    put_piece(&b, 0, name);
  }
  for (int i = 0; i < N_MERGES; i++)
    put_piece(&b, strcmp(merges[i], "aaaa") ? -(float)random_below(6) : -2e10f, merges[i]);
  return b;
}

/* ==== checkpoints that must be refused ==== */

static int parse_model(const bytes *b, size_t n, engine_error *error)
{
  model m;
  unsigned char *copy = exact_copy(b, n);
  int bad = model_parse(&m, copy, n, error);
  free(copy);
  if (!bad) model_free(&m);
  return bad;
}

static void refuse_model(const bytes *b, const char *what, const char *words)
{
  engine_error error = { "" };
  int bad = parse_model(b, b->n, &error);
  check_refusal(bad, &error, what, words);
}

static void refuse_header(const char *what, int field, int64_t value, const char *words)
{
  bytes b = make_checkpoint(20);
  set_u32(&b, 4 * (size_t)field, (uint32_t)value);
  refuse_model(&b, what, words);
  free(b.at);
}

static void test_header_fields(void)
{
  static const char *const name[7] = {
    "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"
  };
  for (int i = 0; i < 7; i++) {
    refuse_header("zero", i, 0, name[i]);
    refuse_header("most negative", i, INT32_MIN, name[i]);
    refuse_header("largest", i, INT32_MAX, name[i]);
    if (i != VOCAB) refuse_header("negative", i, -1, name[i]);
  }
  refuse_header("more heads than dim", HEADS, 17, "n_heads 17 is more than dim 16");
  refuse_header("dim no multiple of heads", HEADS, 5, "no multiple of n_heads");
  refuse_header("odd head size", HEADS, 16, "odd");
  refuse_header("more kv heads than heads", KV_HEADS, 5, "is more than n_heads");
  refuse_header("kv heads do not divide", KV_HEADS, 3, "no multiple of n_kv_heads");
  refuse_header("a head that is not there", VOCAB, -20, "too short");
  refuse_header("one layer more", LAYERS, 3, "too short");
  refuse_header("one layer less", LAYERS, 1, "too long");
  refuse_header("version 1", DIM, 0x616b3432, "version 1 or 2");
  refuse_header("more than 2^31 bytes", VOCAB, 1 << 24, "too short");
}

static void test_products(void)
{
  bytes b = make_checkpoint(20);
  for (int i = 0; i < 4; i++) set_u32(&b, 4 * (size_t)i, 1u << 24);
  set_u32(&b, 4 * HEADS, 1u << 22);
  refuse_model(&b, "a product above 2^64", "64 bits");
  set_u32(&b, 4 * LAYERS, 1u << 10);
  refuse_model(&b, "a product above 2^62", "too short");
  set_u32(&b, 4 * DIM, 1u << 16);
  set_u32(&b, 4 * HEADS, 1u << 14);
  set_u32(&b, 4 * LAYERS, 1u << 24);
  refuse_model(&b, "only the last product above 2^64", "64 bits");
  free(b.at);
}

static void test_add_product(void)
{
  uint64_t total = 5, half = (uint64_t)1 << 63;
  t_case("products of 64 bits");
  CHECK(add_product(&total, half, 2, 1) < 0 && add_product(&total, 2, half, 1) < 0);
  CHECK(add_product(&total, half, 1, 2) < 0 && add_product(&total, 3, half / 2, 4) < 0);
  CHECK(add_product(&total, UINT64_MAX - 4, 1, 1) < 0);
  CHECK_EQ(total, 5);
  CHECK(add_product(&total, UINT64_MAX - 5, 1, 1) == 0 && total == UINT64_MAX);
  total = 7;
  CHECK(add_product(&total, UINT64_MAX, 0, UINT64_MAX) == 0 && total == 7);
  CHECK(add_product(&total, 3, 5, 7) == 0 && total == 112);
}

static void test_lengths(int vocab)
{
  bytes b = make_checkpoint(vocab);
  engine_error error = { "" };
  size_t refused = 0;
  t_case("a sound checkpoint, vocabulary %d", vocab);
  CHECK_EQ(parse_model(&b, b.n, &error), 0);
  t_case("truncations at every byte, vocabulary %d", vocab);
  for (size_t n = 0; n < b.n; n++) refused += parse_model(&b, n, &error) != 0 && error.text[0];
  CHECK_EQ(refused, b.n);
  check_refusal(parse_model(&b, b.n - 1, &error), &error, "one byte less", "too short");
  check_refusal(parse_model(&b, 27, &error), &error, "27 bytes", "header");
  check_refusal(parse_model(&b, 0, &error), &error, "no bytes", "header");
  put_bytes(&b, "x", 1);
  refuse_model(&b, "one byte more", "too long");
  free(b.at);
}

/* a flip in the header is refused, or changes nothing that could be read wrongly */
static void test_header_flips(void)
{
  bytes b = make_checkpoint(20);
  engine_error error;
  int survived = 0;
  for (int bit = 0; bit < 28 * 8; bit++) {
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
    survived += parse_model(&b, b.n, &error) == 0;
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  t_case("flips of every bit of the header");
  CHECK_EQ(survived, 0);
  free(b.at);
}

static void test_values(void)
{
  static const uint32_t bad[4] = { 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u };
  static const struct { int index; const char *name; } place[] = {
    { 0, "embedding" }, { 320, "rms_att_weight" }, { 352, "wq" }, { 864, "wk" }, { 1120, "wv" },
    { 1376, "wo" }, { 1888, "rms_ffn_weight" }, { 1920, "w1" }, { 3072, "w2" }, { 4224, "w3" },
    { 5376, "rms_final_weight" }, { 5456, "head" }
  };
  for (size_t p = 0; p < sizeof place / sizeof place[0]; p++)
    for (int i = 0; i < 4; i++) {
      bytes b = make_checkpoint(-20);
      set_u32(&b, 28 + 4 * (size_t)place[p].index, bad[i]);
      refuse_model(&b, "a value that is not finite", place[p].name);
      free(b.at);
    }
}

/* ==== the tail that says how a model remembers ==== */

enum { T_VERSION = 1, T_WINDOW, T_BLOCK, T_MEMORY, T_FEEDBACK, T_LAST };

/* a checkpoint with a tail: 2 layers of 4 gates, and 3 rows of 16 and their bounds; where it starts */
static bytes make_remembering(int memory, int feedback_len, size_t *tail)
{
  bytes b = make_checkpoint(20);
  int number[6] = { 1, 128, 64, memory, feedback_len, 0 };
  *tail = b.n;
  put_bytes(&b, "LCXM", 4);
  for (int i = 0; i < 6; i++) put_u32(&b, (uint32_t)number[i]);
  for (int i = 0; memory && i < 8; i++) put_f32(&b, (float)i);
  for (int i = 0; i < feedback_len * 16; i++) put_f32(&b, (float)i / 16);
  if (feedback_len) put_f32(&b, 2.5f), put_f32(&b, 0.125f);
  return b;
}

static void test_tail(int memory, int feedback_len)
{
  engine_error error = { "" };
  size_t tail, refused = 0, promised = 0;
  model m;
  bytes b = make_remembering(memory, feedback_len, &tail);
  t_case("a tail with memory %d and %d rows", memory, feedback_len);
  CHECK_EQ(model_parse(&m, b.at, b.n, &error), 0);
  CHECK(m.window == 128 && m.block == 64 && m.memory == memory);
  CHECK(m.feedback_len == feedback_len && (m.gates != NULL) == (memory > 0));
  CHECK(memory == 0 || (m.gates[0] <= 0.0f && m.gates[7] >= 7.0f));
  CHECK((m.rows != NULL) == (feedback_len > 0));
  CHECK(feedback_len == 0 || (m.rows[47] > 2.9f && m.row_limit >= 2.5f && m.row_rest >= 0.125f));
  model_free(&m);
  for (size_t n = tail + 1; n < b.n; n++) {
    refused += parse_model(&b, n, &error) != 0;
    promised += strstr(error.text, "too short") || strstr(error.text, "too long") ||
                strstr(error.text, "inside its tail");
  }
  CHECK_EQ(refused, b.n - tail - 1);
  CHECK_EQ(promised, b.n - tail - 1);
  put_bytes(&b, "x", 1);
  refuse_model(&b, "one byte more", "too long");
  free(b.at);
}

static void refuse_tail(const char *what, int field, uint32_t value, const char *words)
{
  size_t tail;
  bytes b = make_remembering(1, 3, &tail);
  set_u32(&b, tail + 4 * (size_t)field, value);
  refuse_model(&b, what, words);
  free(b.at);
}

static void test_tails(void)
{
  static const char *const name[7] = {
    "", "tail version", "window", "block", "memory", "feedback_len", "last number"
  };
  test_tail(0, 0);
  test_tail(1, 0);
  test_tail(2, 3);
  test_tail(0, 3);
  for (int i = T_VERSION; i <= T_LAST; i++) {
    refuse_tail("negative", i, 0xffffffffu, name[i]);
    refuse_tail("largest", i, 0x7fffffffu, name[i]);
  }
  refuse_tail("another magic", 0, 0x21212121u, "too long");
  refuse_tail("no window", T_WINDOW, 0, "window");
  refuse_tail("a block of 0", T_BLOCK, 0, "block");
  refuse_tail("no multiple", T_WINDOW, 100, "no multiple of block 64");
  refuse_tail("an unknown rule", T_MEMORY, 3, "memory");
  refuse_tail("one row more", T_FEEDBACK, 4, "too short");
  refuse_tail("one row less", T_FEEDBACK, 2, "too long");
  refuse_tail("gates that are not there", 7, 0x7f800000u, "gates");
  refuse_tail("a row that is no number", 15, 0x7fc00000u, "rows");
  refuse_tail("a limit that is none", 15 + 48, 0xff800000u, "row_limit");
  refuse_tail("a rest that is none", 15 + 49, 0x7fc00000u, "row_rest");
  refuse_tail("a limit below 0", 15 + 48, 0xbf800000u, "negative");
}

/* ==== tokenizers that must be refused ==== */

static int parse_tokenizer(const bytes *b, size_t n, engine_error *error)
{
  tokenizer t;
  unsigned char *copy = exact_copy(b, n);
  int bad = tokenizer_parse(&t, copy, n, N_TOKENS, error);
  free(copy);
  if (!bad) tokenizer_free(&t);
  return bad;
}

static void refuse_tokenizer(size_t at, uint32_t value, const char *what, const char *words)
{
  bytes b = make_tokenizer();
  engine_error error = { "" };
  set_u32(&b, at, value);
  int bad = parse_tokenizer(&b, b.n, &error);
  check_refusal(bad, &error, what, words);
  free(b.at);
}

static void test_tokenizer_fields(void)
{
  refuse_tokenizer(0, 0, "longest 0", "longest");
  refuse_tokenizer(0, 0xffffffffu, "longest -1", "longest");
  refuse_tokenizer(0, 0x7fffffffu, "longest huge", "longest");
  refuse_tokenizer(0, 3, "a name longer than the longest", "promised at most 3");
  refuse_tokenizer(4, 0x7fc00000u, "score NaN", "score of token 0");
  refuse_tokenizer(4, 0xff800000u, "score -infinity", "score of token 0");
  refuse_tokenizer(8, 0xffffffffu, "length -1", "negative");
  refuse_tokenizer(8, 0x80000000u, "length most negative", "negative");
  refuse_tokenizer(8, 0x7fffffffu, "length huge", "promised at most 7");
  refuse_tokenizer(8, 6, "length off by one", "");

  size_t byte_0 = 4 + (8 + 5) + (8 + 5) + (8 + 6) + 8; /* where the name "<0x00>" starts */
  refuse_tokenizer(byte_0 + 2, 0x3e312d78u, "the byte <0x-1>", "spells none");
  refuse_tokenizer(byte_0 + 2, 0x3e473078u, "the byte <0x0G>", "spells none");
  refuse_tokenizer(byte_0 + 2, 0x3e663078u, "the byte <0x0f>", "spells none");
}

static void test_tokenizer_lengths(void)
{
  bytes b = make_tokenizer();
  engine_error error = { "" };
  size_t refused = 0;
  int score = 0, length = 0, name = 0;
  t_case("a sound tokenizer");
  CHECK_EQ(parse_tokenizer(&b, b.n, &error), 0);
  t_case("a tokenizer cut at every byte");
  for (size_t n = 0; n < b.n; n++) {
    refused += parse_tokenizer(&b, n, &error) != 0;
    score += strstr(error.text, "before the score") != NULL;
    length += strstr(error.text, "before the length") != NULL;
    name += strstr(error.text, "inside the name") != NULL;
  }
  CHECK_EQ(refused, b.n);
  CHECK_EQ(score, 4 * N_TOKENS);
  CHECK_EQ(length, 4 * N_TOKENS);
  CHECK(name > 0);
  put_bytes(&b, "x", 1);
  check_refusal(parse_tokenizer(&b, b.n, &error), &error, "one byte more", "more than");
  free(b.at);
}

/* a flip is refused or gives another tokenizer; the sanitizers watch */
static void test_tokenizer_flips(void)
{
  bytes b = make_tokenizer();
  engine_error error;
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * b.n; bit++) {
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
    refused += parse_tokenizer(&b, b.n, &error) != 0;
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  t_case("flips of every bit of a tokenizer");
  CHECK(refused > 32 * N_TOKENS && refused < 8 * b.n);
  free(b.at);
}

/* ==== files and memory that fail ==== */

static char scratch_path[] = "/tmp/longctx_engine_XXXXXX";

static void make_scratch(const bytes *b)
{
  int file = mkstemp(scratch_path);
  need(file >= 0 && write(file, b->at, b->n) == (ssize_t)b->n, "a scratch file");
  close(file);
}

static void test_files(void)
{
  model m;
  tokenizer t;
  engine_error error = { "" };
  const char *missing = "no/such/file";
  const unsigned char *empty = (const unsigned char *)"";
  check_refusal(model_load(&m, missing, &error), &error, "no model", "cannot be opened");
  check_refusal(model_load(&m, ".", &error), &error, "a folder", "");
  check_refusal(tokenizer_load(&t, missing, 300, &error), &error, "no tokenizer", "opened");
  check_refusal(tokenizer_parse(&t, empty, 0, 300, &error), &error, "0 bytes", "longest");
  check_refusal(tokenizer_parse(&t, empty, 0, 2, &error), &error, "2 tokens", "no room");
  check_refusal(tokenizer_parse(&t, empty, 0, INT32_MAX, &error), &error, "2^31", "more than");
}

/* one whole life of the engine; 0 when all of it succeeded */
static int live(void)
{
  model m;
  tokenizer t;
  engine e;
  engine_error error = { "" };
  size_t n = 0;
  if (model_load(&m, scratch_path, &error)) return -1;
  bytes b = make_tokenizer();
  int bad = tokenizer_parse(&t, b.at, b.n, N_TOKENS, &error);
  free(b.at);
  if (!bad) {
    int *tokens = tokenizer_encode(&t, "abab cab", 8, &n, &error);
    bad = tokens ? engine_init(&e, &m, 4, &error) : -1;
    if (!bad) engine_free(&e);
    free(tokens);
    tokenizer_free(&t);
  }
  model_free(&m);
  return bad;
}

static void test_failing_allocations(void)
{
  bytes b = make_checkpoint(20);
  long n = 1;
  make_scratch(&b);
  free(b.at);
  for (int bad = 1; bad && n < 100; n++) {
    allocations = 0;
    failing_allocation = n;
    bad = live();
    t_case("allocation %ld fails", n);
    CHECK_EQ(bad != 0, allocations >= n);
  }
  failing_allocation = 0;
  CHECK(n > 8 && n < 100);
  remove(scratch_path);
}

/* ==== encode and decode ==== */

/* llama2.c's way: look through the whole text for the best pair, merge it, begin again */
static int naive_merge(const tokenizer *t, int *tokens, int n)
{
  for (;;) {
    int best = -1, best_at = -1;
    for (int i = 0; i + 1 < n; i++) {
      const tokenizer_piece *a = &t->pieces[tokens[i]], *b = &t->pieces[tokens[i + 1]];
      for (int id = 0; id < t->vocab_size; id++) {
        const tokenizer_piece *p = &t->pieces[id];
        float best_score = best < 0 ? -1e10f : t->pieces[best].score;
        if (p->name_len == a->name_len + b->name_len && p->score > best_score &&
            memcmp(p->name, a->name, (size_t)a->name_len) == 0 &&
            memcmp(p->name + a->name_len, b->name, (size_t)b->name_len) == 0) {
          best = id;
          best_at = i;
        }
      }
    }
    if (best < 0) return n;
    tokens[best_at] = best;
    n--;
    for (int i = best_at + 1; i < n; i++) tokens[i] = tokens[i + 1];
  }
}

static int naive_encode(const tokenizer *t, const char *text, int n, int *tokens)
{
  int count = 0;
  tokens[count++] = TOKEN_BOS;
  if (n > 0) tokens[count++] = 3 + 256; /* the space */
  for (int i = 0, len; i < n; i += len) {
    int found = -1;
    for (len = 1; len < 4 && i + len < n && ((unsigned char)text[i + len] & 0xc0) == 0x80;) len++;
    for (int id = 0; id < t->vocab_size && found < 0; id++)
      if (t->pieces[id].name_len == len && memcmp(t->pieces[id].name, text + i, (size_t)len) == 0)
        found = id;
    if (found >= 0) tokens[count++] = found;
    for (int b = 0; found < 0 && b < len; b++) tokens[count++] = 3 + (unsigned char)text[i + b];
  }
  return 1 + naive_merge(t, tokens + 1, count - 1);
}

static int random_text(char *text)
{
  static const char *const parts[] = {
    "a", "b", "c", " ", "ab", "\xc3\xa9", "\xe2\x82\xac", "\x80", "\xff", "\n", "<", "aa"
  };
  int n = 0, count = random_below(40);
  for (int i = 0; i < count; i++) {
    const char *part = parts[random_below(12)];
    memcpy(text + n, part, strlen(part));
    n += (int)strlen(part);
    if (random_below(30) == 0) text[n++] = 0;
  }
  return n;
}

static int decodes_to(const tokenizer *t, const int *tokens, size_t count, const char *text, int n)
{
  int at = 0, len;
  for (size_t i = 1; i < count; i++) {
    const unsigned char *piece = tokenizer_decode(t, tokens[i - 1], tokens[i], &len);
    if (at + len > n || memcmp(text + at, piece, (size_t)len)) return 0;
    at += len;
  }
  return at == n;
}

static void test_encode(void)
{
  int different = 0, broken = 0;
  for (int round = 0; round < 300; round++) {
    tokenizer t;
    engine_error error;
    char text[400];
    int expected[500], n = random_text(text);
    size_t count = 0;
    bytes b = make_tokenizer();
    need(tokenizer_parse(&t, b.at, b.n, N_TOKENS, &error) == 0, error.text);
    int *tokens = tokenizer_encode(&t, text, (size_t)n, &count, &error);
    need(tokens != NULL, error.text);
    int expected_count = naive_encode(&t, text, n, expected);
    different += count != (size_t)expected_count ||
                 memcmp(tokens, expected, count * sizeof *tokens) != 0;
    broken += !decodes_to(&t, tokens, count, text, n);
    free(tokens);
    tokenizer_free(&t);
    free(b.at);
  }
  t_case("300 texts, merged as llama2.c does");
  CHECK_EQ(different, 0);
  CHECK_EQ(broken, 0);
}

static void test_encode_long(void)
{
  enum { N = 1000000 };
  tokenizer t;
  engine_error error;
  size_t count = 0;
  bytes b = make_tokenizer();
  char *text = malloc(N);
  need(text != NULL, "no memory");
  need(tokenizer_parse(&t, b.at, b.n, N_TOKENS, &error) == 0, error.text);
  for (int i = 0; i < N; i++) text[i] = "aab c"[random_below(5)];
  int *tokens = tokenizer_encode(&t, text, N, &count, &error);
  t_case("a megabyte");
  CHECK(tokens && decodes_to(&t, tokens, count, text, N));
  free(tokens);
  tokens = tokenizer_encode(&t, text, SIZE_MAX, &count, &error);
  check_refusal(!tokens, &error, "G09: a text of SIZE_MAX bytes", "64 MiB");
  free(text);
  free(b.at);
  tokenizer_free(&t);
}

static void test_unknown_bytes(void)
{
  tokenizer t;
  engine_error error;
  size_t count = 0;
  bytes b = { NULL, 0, 0 };
  put_u32(&b, 5);
  put_piece(&b, 0, "<unk>");
  put_piece(&b, 0, "<s>");
  put_piece(&b, 0, "</s>");
  put_piece(&b, 0, "a");
  need(tokenizer_parse(&t, b.at, b.n, 4, &error) == 0, error.text);
  int *tokens = tokenizer_encode(&t, "a\xff", 2, &count, &error);
  t_case("a byte without a piece");
  CHECK(tokens && count == 3 && tokens[1] == 3 && tokens[2] == TOKEN_UNKNOWN);
  free(tokens);
  free(b.at);
  tokenizer_free(&t);
}

/* ==== the forward pass ==== */

static void test_matrix(void)
{
  static const int shapes[][2] = { {1, 1}, {31, 5}, {32, 7}, {33, 64}, {64, 3}, {172, 64} };
  static float values[172 * 64], x[3 * 64], y[3 * 172], row[64];
  for (int s = 0; s < 6; s++) {
    matrix w = { shapes[s][0], shapes[s][1], values, MATRIX_F32, NULL };
    int wrong = 0;
    static float plain[172 * 64];
    for (int r = 0; r < w.rows; r++) {
      for (int i = 0; i < w.cols; i++) plain[r * w.cols + i] = random_float();
      matrix_set_row(&w, r, plain + r * w.cols);
    }
    for (int i = 0; i < 3 * w.cols; i++) x[i] = random_float();
    matrix_apply(&w, 3, x, y);
    for (int i = 0; i < 3 * w.rows; i++) {
      double sum = 0;
      for (int j = 0; j < w.cols; j++)
        sum += (double)plain[i % w.rows * w.cols + j] * (double)x[i / w.rows * w.cols + j];
      wrong += sum - (double)y[i] > 1e-5 || sum - (double)y[i] < -1e-5;
    }
    for (int r = 0; r < w.rows; r++) {
      matrix_row(&w, r, row);
      wrong += memcmp(row, plain + r * w.cols, (size_t)w.cols * sizeof(float)) != 0;
    }
    t_case("matrix %d x %d", w.rows, w.cols);
    CHECK_EQ(wrong, 0);
  }
}

/* one run of a model over a text, with everything it needs */
typedef struct run {
  engine e;
  longctx *context;
  float *logits;  /* [max_batch][vocab_size] */
} run;

static void run_start(run *r, const model *m, int window, int sinks, int positions, int batch)
{
  engine_error error = { "" };
  longctx_desc desc = engine_desc(m, window);
  desc.sinks = sinks;
  desc.positions = positions;
  desc.max_batch = batch;
  r->context = t_new(&desc);
  r->logits = t_floats((size_t)batch * (size_t)m->vocab_size);
  need(engine_init(&r->e, m, batch, &error) == 0, error.text);
}

static void run_step(run *r, const int *tokens, int n)
{
  int code = engine_forward(&r->e, r->context, tokens, n, r->logits, n);
  if (!code) code = longctx_commit(r->context, n);
  need(code == 0, longctx_error(code));
}

static void run_end(run *r)
{
  engine_free(&r->e);
  free(r->context);
  free(r->logits);
}

static void chunk_logits(const model *m, const int *tokens, int n, int chunk, int positions,
                         float *logits)
{
  run r;
  run_start(&r, m, 12, 2, positions, chunk);
  for (int i = 0; i < n; i += chunk) {
    int now = n - i < chunk ? n - i : chunk;
    run_step(&r, tokens + i, now);
    memcpy(logits + (size_t)i * (size_t)m->vocab_size, r.logits,
           (size_t)now * (size_t)m->vocab_size * sizeof(float));
  }
  run_end(&r);
}

static void test_chunks(void)
{
  enum { N = 100, VOCABULARY = 40 };
  static const int chunks[] = { 2, 3, 7, 16, 64, 100 };
  static float one[N * VOCABULARY], many[N * VOCABULARY];
  model m;
  engine_error error;
  int tokens[N];
  bytes b = make_checkpoint(-VOCABULARY);
  need(model_parse(&m, b.at, b.n, &error) == 0, error.text);
  for (int i = 0; i < N; i++) tokens[i] = random_below(VOCABULARY);
  for (int positions = LONGCTX_POS_CACHE; positions <= LONGCTX_POS_TEXT; positions++) {
    chunk_logits(&m, tokens, N, 1, positions, one);
    for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
      chunk_logits(&m, tokens, N, chunks[c], positions, many);
      t_case("chunks of %d, positions %d", chunks[c], positions);
      CHECK_SAME(one, many, sizeof one);
    }
  }
  model_free(&m);
  free(b.at);
}

static void test_forward_arguments(void)
{
  model m;
  engine_error error;
  run r;
  int tokens[3] = { 1, 2, 3 }, too_large[1] = { 20 }, negative[1] = { -1 };
  float last[20];
  bytes b = make_checkpoint(20);
  need(model_parse(&m, b.at, b.n, &error) == 0, error.text);
  run_start(&r, &m, 8, 0, LONGCTX_POS_CACHE, 3);
  t_case("arguments of engine_forward");
  CHECK_EQ(engine_forward(&r.e, r.context, too_large, 1, r.logits, 1), LONGCTX_E_ARG);
  CHECK_EQ(engine_forward(&r.e, r.context, negative, 1, r.logits, 1), LONGCTX_E_ARG);
  CHECK_EQ(engine_forward(&r.e, r.context, tokens, 0, r.logits, 0), LONGCTX_E_ARG);
  CHECK_EQ(engine_forward(&r.e, r.context, tokens, 4, r.logits, 0), LONGCTX_E_ARG);
  CHECK_EQ(engine_forward(&r.e, r.context, tokens, 2, r.logits, 3), LONGCTX_E_ARG);
  CHECK_EQ(engine_forward(&r.e, r.context, tokens, 3, NULL, 0), 0);
  CHECK_EQ(engine_forward(&r.e, r.context, tokens, 3, last, 1), 0);
  CHECK_EQ(engine_forward(&r.e, r.context, tokens, 3, r.logits, 3), 0);
  CHECK_SAME(last, r.logits + 40, sizeof last);
  CHECK_EQ(longctx_position(r.context), 0);
  run_end(&r);
  check_refusal(engine_init(&r.e, &m, 0, &error), &error, "batches of 0", "out of range");
  model_free(&m);
  free(b.at);
}

/* ==== the shipped models ==== */

static void test_shipped(const char *path)
{
  static const char *text = "Once there was \xe2\x80\x9cnothing\xe2\x80\x9d,\n\n  and then this.";
  model m;
  tokenizer t;
  engine_error error = { "" };
  run r;
  size_t n = 0;
  int token = TOKEN_BOS, finite = 1;
  t_case("%s", path);
  if (!CHECK_EQ(model_load(&m, path, &error), 0)) return;
  need(tokenizer_load(&t, "examples/models/story.tok", m.vocab_size, &error) == 0, error.text);
  int *tokens = tokenizer_encode(&t, text, strlen(text), &n, &error);
  CHECK(tokens && decodes_to(&t, tokens, n, text, (int)strlen(text)));
  run_start(&r, &m, m.trained_len / 2, 4, LONGCTX_POS_CACHE, 1);
  for (int i = 0; i < 2 * m.trained_len; i++) {
    run_step(&r, &token, 1);
    token = logits_argmax(r.logits, m.vocab_size);
    for (int j = 0; j < m.vocab_size; j++) finite = finite && is_finite(r.logits[j]);
  }
  CHECK(finite);
  run_end(&r);
  free(tokens);
  tokenizer_free(&t);
  model_free(&m);
}

/* ==== against an independent evaluator ==== */

static char shared_path[4096];

static const char *shared(const char *name)
{
  static char path[5000];
  snprintf(path, sizeof path, "%s/%s", shared_path, name);
  return path;
}

static char *shared_text(const char *name, size_t *n)
{
  engine_error error;
  unsigned char *text = file_read(shared(name), n, &error);
  need(text != NULL, error.text);
  return (char *)text;
}

static void load_shared(model *m, tokenizer *t, const char *name)
{
  engine_error error = { "" };
  need(model_load(m, shared(name), &error) == 0, error.text);
  const char *path = shared("models/stories260K/tok512.bin");
  need(tokenizer_load(t, path, m->vocab_size, &error) == 0, error.text);
}

static void test_greedy(void)
{
  model m;
  tokenizer t;
  run r;
  size_t n, at = 0;
  char *golden = shared_text("golden/stories260K.greedy.txt", &n);
  if (n > 0 && golden[n - 1] == '\n') n--; /* the file's own end */
  int same = 1, token = TOKEN_BOS;
  load_shared(&m, &t, "models/stories260K/stories260K.bin");
  run_start(&r, &m, m.trained_len, 0, LONGCTX_POS_CACHE, 1);
  while (same && at < n) {
    int len, previous = token;
    run_step(&r, &token, 1);
    token = logits_argmax(r.logits, m.vocab_size);
    const unsigned char *text = tokenizer_decode(&t, previous, token, &len);
    if (at + (size_t)len > n) len = (int)(n - at);
    same = memcmp(golden + at, text, (size_t)len) == 0;
    at += (size_t)len;
  }
  t_case("the golden greedy text, to byte %d", (int)at);
  CHECK(same);
  run_end(&r);
  free(golden);
  tokenizer_free(&t);
  model_free(&m);
}

static void test_golden_ids(void)
{
  model m;
  tokenizer t;
  engine_error error;
  size_t text_n, ids_n, count = 0;
  load_shared(&m, &t, "models/stories260K/stories260K.bin");
  char *text = shared_text("text/tinystories_sample.txt", &text_n);
  char *ids = shared_text("golden/stories260K.ids.i32", &ids_n);
  int *tokens = tokenizer_encode(&t, text, text_n, &count, &error), same = count > 4097;
  cursor c = { (unsigned char *)ids, ids_n };
  for (int i = 0; same && i < 4097; i++) {
    int32_t id = -1;
    same = take_i32(&c, &id) == 0 && id == tokens[i];
  }
  t_case("the tokens of the golden text");
  CHECK(same);
  CHECK(tokens && decodes_to(&t, tokens, count, text, (int)text_n));
  free(tokens);
  free(ids);
  free(text);
  tokenizer_free(&t);
  model_free(&m);
}

typedef struct golden {
  const char *model, *file;
  int sinks, window, positions;
} golden;

/* compares the losses of a run with the lines "token_index,token_id,nll" of a golden file */
static void test_golden(const golden *g)
{
  model m;
  tokenizer t;
  run r;
  size_t n;
  char *csv = shared_text(g->file, &n), *line = strchr(csv, '\n');
  int token = TOKEN_BOS, lines = 0;
  double worst = 0, mean = 0, golden_mean = 0;
  load_shared(&m, &t, g->model);
  run_start(&r, &m, g->window, g->sinks, g->positions, 1);
  for (; line && line[1]; line = strchr(line + 1, '\n'), lines++) {
    int index, next;
    double nll;
    if (sscanf(line + 1, "%d,%d,%lf", &index, &next, &nll) != 3) break;
    run_step(&r, &token, 1);
    double ours = logits_nll(r.logits, m.vocab_size, next), off = fabs(ours - nll);
    if (off > worst) worst = off;
    mean += ours;
    golden_mean += nll;
    token = next;
  }
  double off = lines ? fabs(mean - golden_mean) / lines : 1;
  t_case("%s: %d tokens, worst %.1e, mean off by %.1e", g->file, lines, worst, off);
  printf("%s\n", t_label);
  CHECK(lines >= 300);
  CHECK(worst <= 2e-3);
  CHECK(off <= 1e-4);
  run_end(&r);
  free(csv);
  tokenizer_free(&t);
  model_free(&m);
}

/* W in a file's name counts the token itself, as window does in longctx.h. Dense: a window that
   holds the whole text. */
static const golden goldens[] = {
  { "models/stories260K/stories260K.bin", "golden/stories260K.dense.S0.W0.csv",
    0, 601, LONGCTX_POS_CACHE },
  { "models/stories260K/stories260K.bin", "golden/stories260K.window.S0.W64.csv",
    0, 64, LONGCTX_POS_CACHE },
  { "models/stories260K/stories260K.bin", "golden/stories260K.inpos.S4.W60.csv",
    4, 60, LONGCTX_POS_CACHE },
  { "models/stories260K/stories260K.bin", "golden/stories260K.inpos.S4.W252.csv",
    4, 252, LONGCTX_POS_CACHE },
  { "models/stories260K/stories260K.bin", "golden/stories260K.abs.S4.W60.csv",
    4, 60, LONGCTX_POS_TEXT },
  { "models/sink260k/sink260k.bin", "golden/sink260k.dense.S0.W0.csv",
    0, 601, LONGCTX_POS_CACHE },
  { "models/sink260k/sink260k.bin", "golden/sink260k.window.S0.W64.csv",
    0, 64, LONGCTX_POS_CACHE },
  { "models/sink260k/sink260k.bin", "golden/sink260k.inpos.S1.W63.csv",
    1, 63, LONGCTX_POS_CACHE },
};

static void test_shared(int argc, char **argv)
{
  const char *path = argc > 1 ? argv[1] : getenv("LONGCTX_SHARED");
  snprintf(shared_path, sizeof shared_path, "%s", path ? path : "../shared/data");
  FILE *probe = fopen(shared("golden/stories260K.greedy.txt"), "rb");
  if (!probe) {
    printf("skipped: golden greedy text, golden tokens, golden losses (no reference data)\n");
    skipped = 3;
    return;
  }
  fclose(probe);
  test_greedy();
  test_golden_ids();
  for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++) test_golden(&goldens[i]);
}

int main(int argc, char **argv)
{
  test_header_fields();
  test_products();
  test_add_product();
  test_lengths(20);
  test_lengths(-20);
  test_header_flips();
  test_values();
  test_tails();
  test_tokenizer_fields();
  test_tokenizer_lengths();
  test_tokenizer_flips();
  test_files();
  test_failing_allocations();
  test_encode();
  test_encode_long();
  test_unknown_bytes();
  test_matrix();
  test_chunks();
  test_forward_arguments();
  test_shipped("examples/models/story.bin");
  test_shipped("examples/models/control.bin");
  test_shared(argc, argv);
  if (skipped == 0) return t_done();
  t_say_bad_inputs();
  printf("%ld passed, %ld failed, %d skipped\n", t_passed, t_failed, skipped);
  return t_failed > 0;
}
