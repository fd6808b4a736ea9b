/* tests/gguf.c - GGUF: every tensor type against a double oracle, hostile files, tokenizers.

   All files are made here, in memory: a whole llama model with its tokenizer, of which one key or
   one tensor at a time is made wrong. The classes G01 to G51 are those of the reliability notes:
   what was reported against other readers. */
#define _POSIX_C_SOURCE 200809L
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

/* ==== the file that is made, and what is to be wrong in it ==== */

typedef struct shape { int dim, hidden, layers, heads, kv_heads, vocab, type, tied, gpt2; } shape;

static const shape small = { 8, 12, 2, 2, 1, 12, MATRIX_F32, 0, 1 };

/* one key whose type and value are these bytes instead (or which is left out, or comes twice), one
   tensor whose name, dimensions, type or place are others, numbers of the header */
static struct {
  const char *key;
  bytes value;
  int drop, twice;
  const char *tensor, *name;
  uint32_t n_dims, type;
  uint64_t dims[4], move;
  int no_tensor, extra_tensor;
  uint64_t n_tensors, n_keys;
  uint32_t magic, version;
  int tail;
} wrong;

enum { AS_IT_IS = 12345 };

static void all_right(void)
{
  free(wrong.value.at);
  memset(&wrong, 0, sizeof wrong);
  wrong.n_dims = wrong.type = AS_IT_IS;
  wrong.n_tensors = wrong.n_keys = UINT64_MAX / 2;
  wrong.version = 3;
}

static void put_u64(bytes *b, uint64_t value)
{
  put_u32(b, (uint32_t)value);
  put_u32(b, (uint32_t)(value >> 32));
}

static void put_text(bytes *b, const char *text)
{
  put_u64(b, strlen(text));
  put_bytes(b, text, strlen(text));
}

typedef struct maker { bytes keys, heads, data; uint64_t n_keys, n_tensors; } maker;

/* a key with the bytes of its type and value */
static void add_key(maker *m, const char *name, const bytes *value)
{
  int other = wrong.key && strcmp(wrong.key, name) == 0;
  if (other && wrong.drop) return;
  for (int i = 0; i <= (other && wrong.twice); i++, m->n_keys++) {
    const bytes *v = other && wrong.value.n ? &wrong.value : value;
    put_text(&m->keys, name);
    put_bytes(&m->keys, v->at, v->n);
  }
}

static void add_u32(maker *m, const char *name, int value)
{
  bytes b = { NULL, 0, 0 };
  put_u32(&b, GGUF_U32);
  put_u32(&b, (uint32_t)value);
  add_key(m, name, &b);
  free(b.at);
}

static void add_f32(maker *m, const char *name, float value)
{
  bytes b = { NULL, 0, 0 };
  put_u32(&b, GGUF_F32);
  put_f32(&b, value);
  add_key(m, name, &b);
  free(b.at);
}

static void add_bool(maker *m, const char *name, int value)
{
  bytes b = { NULL, 0, 0 };
  unsigned char byte = (unsigned char)value;
  put_u32(&b, GGUF_BOOL);
  put_bytes(&b, &byte, 1);
  add_key(m, name, &b);
  free(b.at);
}

static void add_text(maker *m, const char *name, const char *value)
{
  bytes b = { NULL, 0, 0 };
  put_u32(&b, GGUF_STRING);
  put_text(&b, value);
  add_key(m, name, &b);
  free(b.at);
}

static void start_array(bytes *b, uint32_t element, uint64_t count)
{
  put_u32(b, GGUF_ARRAY);
  put_u32(b, element);
  put_u64(b, count);
}

static void add_texts(maker *m, const char *name, const char *const *texts, int n)
{
  bytes b = { NULL, 0, 0 };
  start_array(&b, GGUF_STRING, (uint64_t)n);
  for (int i = 0; i < n; i++) put_text(&b, texts[i]);
  add_key(m, name, &b);
  free(b.at);
}

/* a key that is there only when a test gives it a value */
static void add_if_wrong(maker *m, const char *name)
{
  if (wrong.key && strcmp(wrong.key, name) == 0 && wrong.value.n) add_key(m, name, &wrong.value);
}

/* ==== tensors ==== */

/* a half with exponent -12 to 1; a weight of F16 likewise */
static uint32_t random_half(void)
{
  return (uint32_t)(t_u64(&seed) & 0x83ff) | (uint32_t)(3 + t_below(&seed, 14)) << 10;
}

static void put_half(unsigned char *at, uint32_t half)
{
  at[0] = (unsigned char)half;
  at[1] = (unsigned char)(half >> 8);
}

/* a block of random bits, whose 16-bit floats are sane */
static void put_block(bytes *b, const matrix_format *f)
{
  unsigned char block[256];
  int at = f->type == MATRIX_Q6_K ? 208 : 0;
  int two = f->type == MATRIX_Q4_1 || f->type == MATRIX_Q4_K;
  for (int i = 0; i < f->bytes; i++) block[i] = (unsigned char)t_u64(&seed);
  put_half(block + at, random_half());
  if (two) put_half(block + 2, random_half());
  if (f->type == MATRIX_BF16) put_half(block, (random_half() & 0x807f) | 0x3e00);
  if (f->type == MATRIX_F32) put_f32(b, t_normal(&seed));
  else put_bytes(b, block, (size_t)f->bytes);
}

static void pad(bytes *b, size_t alignment)
{
  while (b->n % alignment) put_bytes(b, "", 1);
}

static void add_tensor(maker *m, const char *name, int type, int cols, int rows)
{
  const matrix_format *f = matrix_format_of((uint32_t)type);
  int other = wrong.tensor && strcmp(wrong.tensor, name) == 0;
  uint32_t n_dims = other && wrong.n_dims != AS_IT_IS ? wrong.n_dims : rows > 1 ? 2 : 1;
  uint64_t dims[4] = { (uint64_t)cols, (uint64_t)rows, 1, 1 };
  if (other && wrong.no_tensor) return;
  if (other && wrong.dims[0] + wrong.dims[1]) memcpy(dims, wrong.dims, sizeof dims);
  pad(&m->data, 32);
  put_text(&m->heads, other && wrong.name ? wrong.name : name);
  put_u32(&m->heads, n_dims);
  for (uint32_t i = 0; i < n_dims && i < 4; i++) put_u64(&m->heads, dims[i]);
  put_u32(&m->heads, other && wrong.type != AS_IT_IS ? wrong.type : (uint32_t)type);
  put_u64(&m->heads, m->data.n + (other ? wrong.move : 0));
  for (int i = 0; i < rows * (cols / f->cols); i++) put_block(&m->data, f);
  m->n_tensors++;
}

static void add_layer(maker *m, const shape *s, int l)
{
  int kv_dim = s->dim / s->heads * s->kv_heads;
  const struct { const char *name; int cols, rows; } list[] = {
    { "attn_q", s->dim, s->dim },     { "attn_k", s->dim, kv_dim },
    { "attn_v", s->dim, kv_dim },
    { "attn_output", s->dim, s->dim }, { "ffn_gate", s->dim, s->hidden },
    { "ffn_up", s->dim, s->hidden },  { "ffn_down", s->hidden, s->dim },
  };
  char name[80];
  snprintf(name, sizeof name, "blk.%d.attn_norm.weight", l);
  add_tensor(m, name, MATRIX_F32, s->dim, 1);
  for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
    snprintf(name, sizeof name, "blk.%d.%s.weight", l, list[i].name);
    add_tensor(m, name, s->type, list[i].cols, list[i].rows);
  }
  snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", l);
  add_tensor(m, name, MATRIX_F32, s->dim, 1);
}

static void add_tensors(maker *m, const shape *s)
{
  add_tensor(m, "token_embd.weight", s->type, s->dim, s->vocab);
  for (int l = 0; l < s->layers; l++) add_layer(m, s, l);
  add_tensor(m, "output_norm.weight", MATRIX_F32, s->dim, 1);
  if (!s->tied) add_tensor(m, "output.weight", s->type, s->dim, s->vocab);
  if (wrong.extra_tensor) add_tensor(m, wrong.name, MATRIX_F32, s->dim, 1);
}

/* ==== keys ==== */

/* \xc4\xa0 stands for a blank, \xc4\x8a for a new line */
static const char *const gpt2_pieces[12] = {
  "<|end|>", "a", "b", "\xc4\xa0", "1", "'", "s", "\xc4\x8a", "ab", ("\xc4\xa0" "ab"), "abab", "'s"
};
static const char *const gpt2_merges[6] = {
  "a b", "\xc4\xa0 ab", "ab ab", "' s", "\xc4\xa0 ab", "a b"
};
static const char *const llama_pieces[12] = {
  "<unk>", "<s>", "</s>", "<0x0A>", "\xe2\x96\x81", "a", "b", "ab", ("\xe2\x96\x81" "ab"), "aa",
  "</", "s>"
};

static void add_pieces(maker *m, int gpt2, int n)
{
  bytes types = { NULL, 0, 0 }, scores = { NULL, 0, 0 };
  start_array(&types, GGUF_I32, (uint64_t)n);
  start_array(&scores, GGUF_F32, (uint64_t)n);
  for (int i = 0; i < n; i++) {
    put_u32(&types, gpt2 ? (i ? PIECE_NORMAL : PIECE_CONTROL)
                         : i == 0 ? PIECE_UNKNOWN : i < 3 ? PIECE_CONTROL
                         : i == 3 ? PIECE_BYTE : PIECE_NORMAL);
    put_f32(&scores, -(float)i);
  }
  add_texts(m, "tokenizer.ggml.tokens", gpt2 ? gpt2_pieces : llama_pieces, n);
  add_key(m, "tokenizer.ggml.token_type", &types);
  add_key(m, "tokenizer.ggml.scores", &scores);
  free(types.at);
  free(scores.at);
}

static void add_tokenizer(maker *m, const shape *s)
{
  add_text(m, "tokenizer.ggml.model", s->gpt2 ? "gpt2" : "llama");
  add_text(m, "tokenizer.ggml.pre", s->gpt2 ? "smollm" : "default");
  add_pieces(m, s->gpt2, 12);
  if (s->gpt2) add_texts(m, "tokenizer.ggml.merges", gpt2_merges, 6);
  add_u32(m, "tokenizer.ggml.bos_token_id", s->gpt2 ? 0 : 1);
  add_u32(m, "tokenizer.ggml.eos_token_id", s->gpt2 ? 0 : 2);
  add_bool(m, "tokenizer.ggml.add_bos_token", !s->gpt2);
}

static void add_keys(maker *m, const shape *s)
{
  static const char *const optional[] = {
    "general.alignment", "llama.expert_count", "llama.attention.causal",
    "llama.attention.key_length", "llama.attention.value_length", "llama.rope.scaling.type",
    "llama.rope.scaling.factor", "tokenizer.ggml.unknown_token_id", "odd.key"
  };
  add_text(m, "general.architecture", "llama");
  add_u32(m, "llama.block_count", s->layers);
  add_u32(m, "llama.context_length", 64);
  add_u32(m, "llama.embedding_length", s->dim);
  add_u32(m, "llama.feed_forward_length", s->hidden);
  add_u32(m, "llama.attention.head_count", s->heads);
  add_u32(m, "llama.attention.head_count_kv", s->kv_heads);
  add_f32(m, "llama.rope.freq_base", 1000.0f);
  add_u32(m, "llama.rope.dimension_count", s->dim / s->heads);
  add_f32(m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) add_if_wrong(m, optional[i]);
  if (s->vocab == 12) add_tokenizer(m, s);
}

/* the whole file, of which *data is where its tensors begin */
static bytes make_file(const shape *s, size_t *data)
{
  maker m;
  bytes b = { NULL, 0, 0 };
  memset(&m, 0, sizeof m);
  add_keys(&m, s);
  add_tensors(&m, s);
  put_u32(&b, wrong.magic ? wrong.magic : 0x46554747u);
  put_u32(&b, wrong.version);
  put_u64(&b, wrong.n_tensors != UINT64_MAX / 2 ? wrong.n_tensors : m.n_tensors);
  put_u64(&b, wrong.n_keys != UINT64_MAX / 2 ? wrong.n_keys : m.n_keys);
  put_bytes(&b, m.keys.at, m.keys.n);
  put_bytes(&b, m.heads.at, m.heads.n);
  pad(&b, 32);
  *data = b.n;
  put_bytes(&b, m.data.at, m.data.n);
  for (int i = 0; i < wrong.tail; i++) put_bytes(&b, "", 1);
  free(m.keys.at);
  free(m.heads.at);
  free(m.data.at);
  return b;
}

/* ==== refusals ==== */

/* 1 model, 2 tokenizer: which of them were refused; *error is what the first of them says */
static int parse(const bytes *b, size_t n, engine_error *error)
{
  model m;
  tokenizer t;
  engine_error second = { "" };
  unsigned char *copy = exact_copy(b, n);
  largest_allocation = 0;
  error->text[0] = 0;
  int bad = model_parse(&m, copy, n, error) != 0;
  if (!bad) model_free(&m);
  bad |= (tokenizer_parse(&t, copy, n, 12, &second) != 0) << 1;
  if (!(bad & 2)) tokenizer_free(&t);
  if (bad == 2) *error = second;
  free(copy);
  if (largest_allocation > 64 * n + 65536) FAIL("G24: an allocation far above the file's size");
  return bad;
}

static void refuse_shape(const shape *s, const char *what, const char *words)
{
  size_t data;
  engine_error error;
  bytes b = make_file(s, &data);
  check_refusal(parse(&b, b.n, &error), &error, what, words);
  free(b.at);
  all_right();
}

static void refuse(const char *what, const char *words) { refuse_shape(&small, what, words); }

static void accept(const char *what)
{
  size_t data;
  engine_error error;
  bytes b = make_file(&small, &data);
  int bad = parse(&b, b.n, &error);
  t_case("%s: %s", what, error.text);
  CHECK_EQ(bad, 0);
  free(b.at);
  all_right();
}

static void refuse_u32(const char *key, uint32_t value, const char *words)
{
  wrong.key = key;
  put_u32(&wrong.value, GGUF_U32);
  put_u32(&wrong.value, value);
  refuse(key, words);
}

static void refuse_f32(const char *key, float value, const char *words)
{
  wrong.key = key;
  put_u32(&wrong.value, GGUF_F32);
  put_f32(&wrong.value, value);
  refuse(key, words);
}

static void refuse_text(const char *key, const char *value, const char *words)
{
  wrong.key = key;
  put_u32(&wrong.value, GGUF_STRING);
  put_text(&wrong.value, value);
  refuse(key, words);
}

static void test_header(void)
{
  static const uint32_t versions[] = { 0, 1, 4, 0xffffffffu };
  static const uint64_t counts[] = { UINT64_MAX, (uint64_t)1 << 63, (uint64_t)1 << 61, 65537 };
  accept("a sound file");
  wrong.version = 2;
  accept("version 2");
  wrong.magic = 0x46554746u;
  refuse("G25 magic", "dim is");
  for (int i = 0; i < 4; i++) {
    wrong.version = versions[i];
    refuse("G26 version", "2 and 3 are read");
    wrong.n_tensors = counts[i];
    refuse("G03 tensors", "at most 65536");
    wrong.n_keys = counts[i];
    refuse("G04 keys", "at most 65536");
  }
  wrong.version = 0x03000000u;
  refuse("big-endian", "big-endian");
  wrong.n_tensors = 60000;
  refuse("more tensors than room", "tensors, more than it has room for");
  wrong.n_keys = 60000;
  refuse("more keys than room", "keys, more than it has room for");
  wrong.tail = 32;
  refuse("a tail", "too long");
}

static void refuse_array(const char *key, uint32_t element, uint64_t count, const char *words)
{
  uint64_t size = element == GGUF_U8 ? 1 : element == GGUF_STRING ? 8 : 4;
  wrong.key = key;
  start_array(&wrong.value, element, count);
  for (uint64_t i = 0; i < size * count && count < 100; i++) put_bytes(&wrong.value, "", 1);
  refuse(key, words);
}

static void test_keys(void)
{
  static const uint64_t lengths[] = { UINT64_MAX, (uint64_t)1 << 63, (uint64_t)1 << 31, 100000 };
  refuse_array("odd.key", GGUF_ARRAY, 1, "one of arrays");
  refuse_array("odd.key", 13, 1, "unknown type 13");
  refuse_array("odd.key", GGUF_U64, (uint64_t)1 << 61, "promises 2305843009213693952");
  refuse_array("odd.key", GGUF_STRING, UINT64_MAX, "more than the file has room");
  for (int i = 0; i < 4; i++) {
    wrong.key = "odd.key";
    put_u32(&wrong.value, GGUF_STRING);
    put_u64(&wrong.value, lengths[i]);
    refuse("G05 a string's length", "inside string 0 of odd.key");
    wrong.key = "tokenizer.ggml.tokens";
    start_array(&wrong.value, GGUF_STRING, 1);
    put_u64(&wrong.value, lengths[i]);
    refuse("G08 a token's length", "inside string 0 of tokenizer.ggml.tokens");
  }
  wrong.key = "odd.key";
  put_u32(&wrong.value, 13);
  refuse("G29 a type", "unknown type 13");
  wrong.key = "llama.block_count";
  wrong.twice = 1;
  refuse("G30 a key twice", "two keys are named llama.block_count");
  refuse_u32("general.alignment", 0, "general.alignment is 0");
  refuse_u32("general.alignment", 3, "general.alignment is 3, it must be 8 to");
  refuse_u32("general.alignment", 24, "power of two");
  refuse_u32("general.alignment", 0x80000000u, "general.alignment is 2147483648");
  refuse_f32("general.alignment", 32.0f, "general.alignment is of type float32");
  refuse_u32("general.alignment", 64, "lies at");
}

/* the names of keys: none, too long, longer than the file */
static void test_key_names(void)
{
  static const struct { uint64_t len; const char *words; } names[] = {
    { 0, "a key has no name" }, { 65536, "at most 65535" }, { UINT64_MAX, "at most 65535" },
    { (uint64_t)1 << 63, "at most 65535" }, { 60000, "inside the name of a key" }
  };
  for (int i = 0; i < 5; i++) {
    size_t data;
    engine_error error;
    bytes b = make_file(&small, &data);
    set_u32(&b, 24, (uint32_t)names[i].len);
    set_u32(&b, 28, (uint32_t)(names[i].len >> 32));
    check_refusal(parse(&b, b.n, &error), &error, "G27 a key's name", names[i].words);
    free(b.at);
  }
}

static void test_shape_keys(void)
{
  static const char *const required[] = {
    "llama.block_count", "llama.context_length", "llama.embedding_length",
    "llama.feed_forward_length", "llama.attention.head_count",
    "llama.attention.layer_norm_rms_epsilon"
  };
  for (int i = 0; i < 6; i++) {
    wrong.key = required[i];
    wrong.drop = 1;
    refuse("a key is missing", required[i]);
    refuse_text(required[i], "1", "is of type string");
    if (i == 5) continue;
    refuse_u32(required[i], 0, "it must be 1 to");
    refuse_u32(required[i], 0x80000000u, "is 2147483648, it must be 1 to");
    refuse_u32(required[i], 0xffffffffu, "it must be 1 to");
    refuse_f32(required[i], 1.0f, "it must be uint32");
  }
  refuse_u32("llama.block_count", 513, "the file has 21 tensors");
  refuse_u32("llama.block_count", 3, "blk.2.attn_q.weight is missing");
  refuse_u32("llama.block_count", 1, "has no place");
  refuse_u32("llama.attention.head_count", 3, "no multiple of head_count 3");
  refuse_u32("llama.attention.head_count", 16, "no multiple of head_count 16");
  refuse_u32("llama.attention.head_count_kv", 3, "no multiple of head_count_kv 3");
  refuse_u32("llama.attention.head_count_kv", 0, "head_count_kv is 0");
  refuse_u32("llama.attention.key_length", 0, "key_length is 0");
  refuse_u32("llama.attention.key_length", 16, "blk.0.attn_q.weight is 8 x 8");
  refuse_u32("llama.attention.value_length", 2, "values of 2 beside keys of 4");
  refuse_u32("llama.expert_count", 8, "mixture of 8 experts");
  refuse_text("general.architecture", "qwen2", "architecture is 'qwen2'");
  refuse_text("general.architecture", "\033[2J", "architecture is '?[2J'");
  refuse_u32("llama.rope.dimension_count", 3, "odd number");
  refuse_u32("llama.rope.dimension_count", 6, "dimension_count is 6");
  refuse_f32("llama.rope.freq_base", 0.0f, "freq_base is below 1");
  refuse_f32("llama.rope.freq_base", NAN, "freq_base is not finite");
  refuse_text("llama.rope.scaling.type", "yarn", "scaling.type is 'yarn'");
  refuse_f32("llama.rope.scaling.factor", 0.0f, "scaling.factor is not above 0");
  refuse_f32("llama.attention.layer_norm_rms_epsilon", 0.0f, "not above 0");
  wrong.key = "llama.attention.causal";
  put_u32(&wrong.value, GGUF_BOOL);
  put_bytes(&wrong.value, "", 1);
  refuse("not causal", "causal is false");
  wrong.key = "llama.attention.causal";
  put_u32(&wrong.value, GGUF_BOOL);
  put_bytes(&wrong.value, "\2", 1);
  refuse("a bool of 2", "a bool is 0 or 1");
}

static void refuse_dims(uint32_t n_dims, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                        const char *words)
{
  wrong.tensor = "blk.0.attn_q.weight";
  wrong.n_dims = n_dims;
  wrong.dims[0] = a;
  wrong.dims[1] = b;
  wrong.dims[2] = c;
  wrong.dims[3] = d;
  refuse("dimensions", words);
}

static void test_tensor_heads(void)
{
  static const uint32_t n_dims[] = { 0, 5, 0x80000000u, 0xffffffffu };
  static const uint64_t sizes[] = { UINT64_MAX, (uint64_t)1 << 63, ((uint64_t)1 << 32) + 8, 0 };
  uint64_t most = 1 << 24;
  for (int i = 0; i < 4; i++) {
    refuse_dims(n_dims[i], 8, 8, 1, 1, "it must be 1 to 4");
    refuse_dims(2, sizes[i], 8, 1, 1, "dimension 0 of tensor blk.0.attn_q.weight is");
    refuse_dims(2, 8, sizes[i], 1, 1, "dimension 1 of tensor blk.0.attn_q.weight is");
  }
  refuse_dims(4, most, most, most, most, "multiply to more than 64 bits");
  refuse_dims(4, most, most, 1 << 14, 1, "multiply to more than 64 bits");
  refuse_dims(4, most, most, 1 << 13, 1, "too short");
  refuse_dims(4, 85932, 49981, 13325, 80581, "add up to more than 64 bits"); /* G10: 2^64 - 16 */
  refuse_dims(2, 4, 16, 1, 1, "is 4 x 16 x 1 x 1, it must be 8 x 8");
  refuse_dims(3, 8, 4, 2, 1, "is 8 x 4 x 2 x 1");
  wrong.tensor = "blk.0.attn_q.weight";
  wrong.type = MATRIX_Q8_0;
  refuse("rows of no whole block", "no multiple of Q8_0's blocks of 32");
  wrong.tensor = "blk.0.attn_q.weight";
  wrong.type = 13;
  refuse("a type that is not read", "of type Q5_K (13), which is not read");
  wrong.tensor = "blk.0.attn_q.weight";
  wrong.type = 0xffffffffu - 1;
  refuse("no type", "of type unknown (4294967294)");
  wrong.tensor = "blk.0.attn_q.weight";
  wrong.move = 32;
  refuse("G14 a place further on", "lies at");
  wrong.tensor = "token_embd.weight";
  wrong.move = UINT64_MAX;
  refuse("G14 a place before", "lies at 18446744073709551615");
}

static void test_tensor_names(void)
{
  static const char *const left[] = {
    "blk.0.attn_q.bias", "blk.0.ffn_gate_exps.weight", "blk.2.attn_q.weight", "something"
  };
  for (int i = 0; i < 4; i++) {
    wrong.extra_tensor = 1;
    wrong.name = left[i];
    refuse("a tensor nobody adds", left[i]);
  }
  wrong.tensor = "blk.1.ffn_up.weight";
  wrong.no_tensor = 1;
  refuse("a tensor is missing", "blk.1.ffn_up.weight is missing");
  wrong.tensor = "token_embd.weight";
  wrong.no_tensor = 1;
  refuse("no embedding", "token_embd.weight is missing");
  wrong.tensor = "blk.1.ffn_up.weight";
  wrong.name = "blk.1.ffn_gate.weight";
  refuse("a name twice", "two tensors are named blk.1.ffn_gate.weight");
  wrong.tensor = "blk.1.ffn_up.weight";
  wrong.name = "";
  refuse("no name", "a tensor has no name");
  wrong.tensor = "blk.1.ffn_up.weight";
  wrong.name = "0123456789012345678901234567890123456789012345678901234567890123456789";
  refuse("a long name", "70 bytes long, at most 64");
  wrong.tensor = "output_norm.weight";
  wrong.type = MATRIX_F16;
  wrong.dims[0] = 16;
  wrong.dims[1] = 1;
  refuse("a norm that is too long", "output_norm.weight is 16 x 1");
}

/* ==== hostile tokenizers ==== */

static void refuse_llama(const char *what, const char *words)
{
  shape s = small;
  s.gpt2 = 0;
  refuse_shape(&s, what, words);
}

/* the list of pieces, with one of them changed */
static void wrong_piece(const char *const *pieces, int at, const char *name)
{
  wrong.key = "tokenizer.ggml.tokens";
  start_array(&wrong.value, GGUF_STRING, 12);
  for (int i = 0; i < 12; i++) put_text(&wrong.value, i == at ? name : pieces[i]);
}

static void wrong_numbers(const char *key, uint32_t element, int at, uint32_t bits)
{
  wrong.key = key;
  start_array(&wrong.value, element, 12);
  for (int i = 0; i < 12; i++) put_u32(&wrong.value, i == at ? bits : 1);
}

static void test_tokenizer_keys(void)
{
  refuse_text("tokenizer.ggml.model", "bert", "tokenizer.ggml.model is 'bert'");
  refuse_text("tokenizer.ggml.pre", "llama-bpe", "tokenizer.ggml.pre is 'llama-bpe'");
  refuse_u32("tokenizer.ggml.bos_token_id", 12, "bos_token_id is 12, it must be 0 to 11");
  refuse_u32("tokenizer.ggml.eos_token_id", 0xffffffffu, "eos_token_id is 4294967295");
  refuse_u32("tokenizer.ggml.unknown_token_id", 49152, "unknown_token_id is 49152");
  wrong.key = "tokenizer.ggml.tokens";
  wrong.drop = 1;
  refuse("no tokenizer", "has no tokenizer");
  refuse_array("tokenizer.ggml.tokens", GGUF_STRING, 11, "has 11 elements, it must have 12");
  refuse_array("tokenizer.ggml.tokens", GGUF_U32, 12, "elements of tokenizer.ggml.tokens are");
  refuse_array("tokenizer.ggml.scores", GGUF_U8, 12, "of type uint8, they must be float32");
  refuse_array("tokenizer.ggml.scores", GGUF_STRING, 12, "of type string");
  refuse_array("tokenizer.ggml.scores", GGUF_F32, 13, "has 13 elements");
  refuse_array("tokenizer.ggml.token_type", GGUF_F32, 12, "they must be int32");
  refuse_array("tokenizer.ggml.token_type", GGUF_I32, 1, "has 1 elements");
  wrong_numbers("tokenizer.ggml.token_type", GGUF_I32, 5, 7);
  refuse("a type of piece", "token 5 is of the unknown type 7");
  wrong_numbers("tokenizer.ggml.token_type", GGUF_I32, 5, 0xffffffffu);
  refuse("a type of piece", "token 5 is of the unknown type -1");
  wrong_numbers("tokenizer.ggml.scores", GGUF_F32, 3, 0x7f800000u);
  refuse("an infinite score", "score of token 3 is not finite");
  wrong.key = "tokenizer.ggml.scores";
  wrong.drop = 1;
  refuse_llama("no scores", "does not say tokenizer.ggml.scores");
  wrong.key = "tokenizer.ggml.bos_token_id";
  put_u32(&wrong.value, GGUF_U32);
  put_u32(&wrong.value, 12);
  refuse_llama("bos", "bos_token_id is 12");
}

static void refuse_merge(const char *merge, const char *words)
{
  wrong.key = "tokenizer.ggml.merges";
  start_array(&wrong.value, GGUF_STRING, 1);
  put_text(&wrong.value, merge);
  refuse(merge, words);
}

static void test_pieces(void)
{
  static const char *const bytes_of_none[] = { "<0x-1>", "<0x1>", "<0xGG>", "<0x0a>", "0A", "" };
  char *many = malloc(70001);
  need(many != NULL, "no memory");
  memset(many, 'a', 70000);
  many[70000] = 0;
  for (int i = 0; i < 6; i++) {
    wrong_piece(llama_pieces, 3, bytes_of_none[i]);
    refuse_llama("G23 a byte", i == 0 || i == 2 || i == 3 ? "spells none" : "named like none");
  }
  wrong_piece(gpt2_pieces, 2, "b b");
  refuse("a blank in a byte-level name", "token 2 has a character that stands for no byte");
  wrong_piece(gpt2_pieces, 2, "\xff");
  refuse("no UTF-8", "token 2 has a character that stands for no byte");
  wrong_piece(gpt2_pieces, 2, many);
  refuse("a long token", "token 2 is 70000 bytes long");
  refuse_merge("", "merge 0 is no pair");
  refuse_merge("ab", "merge 0 is no pair");
  refuse_merge(" ", "merge 0 is no pair");
  refuse_merge("a ", "merge 0 is no pair");
  refuse_merge("a b b", "merge 0 is no pair");
  refuse_merge(many, "merge 0 is no pair");
  refuse_merge("b a", "not in the vocabulary");
  refuse_merge("z a", "not in the vocabulary");
  wrong.key = "tokenizer.ggml.merges";
  wrong.drop = 1;
  refuse("no merges", "does not say tokenizer.ggml.merges");
  free(many);
}

/* ==== every byte, every bit, every allocation ==== */

static void test_truncation(int gpt2)
{
  shape s = small;
  size_t data, refused = 0;
  engine_error error;
  s.gpt2 = gpt2;
  bytes b = make_file(&s, &data);
  for (size_t n = 0; n < b.n; n++) refused += parse(&b, n, &error) == 3 && error.text[0];
  t_case("G06 cut at every byte, %d", gpt2);
  CHECK_EQ(refused, b.n);
  free(b.at);
}

/* A flip is refused or gives another model or tokenizer; the sanitizers watch. All of the first 24
   bytes must be refused, but for the one that makes a 2 of the version 3. */
static void test_flips(int gpt2)
{
  shape s = small;
  size_t data, refused = 0, header = 0;
  engine_error error;
  s.gpt2 = gpt2;
  bytes b = make_file(&s, &data);
  for (size_t bit = 0; bit < 8 * data; bit++) {
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
    int bad = parse(&b, b.n, &error) != 0;
    refused += (size_t)bad;
    header += (size_t)(bad && bit < 24 * 8);
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  t_case("flips of every bit before the tensors' data, %d", gpt2);
  CHECK_EQ(header, 24 * 8 - 1);
  CHECK(refused > 4 * data && refused < 8 * data);
  free(b.at);
}

static int live(const bytes *b)
{
  model m;
  tokenizer t;
  engine_error error = { "" };
  size_t n;
  if (model_parse(&m, b->at, b->n, &error)) return -1;
  int bad = tokenizer_parse(&t, b->at, b->n, 12, &error);
  if (!bad) {
    int *tokens = tokenizer_encode(&t, "abab ab", 7, &n, &error);
    bad = tokens ? 0 : -1;
    free(tokens);
    tokenizer_free(&t);
  }
  model_free(&m);
  return bad;
}

static void test_failing_allocations(void)
{
  size_t data;
  long n = 1;
  wrong.key = "llama.rope.scaling.factor"; /* so that frequencies are allocated, too */
  put_u32(&wrong.value, GGUF_F32);
  put_f32(&wrong.value, 2.0f);
  bytes b = make_file(&small, &data);
  all_right();
  for (int bad = 1; bad && n < 100; n++) {
    allocations = 0;
    failing_allocation = n;
    bad = live(&b);
    t_case("G07 allocation %ld fails", n);
    CHECK_EQ(bad != 0, allocations >= n);
  }
  failing_allocation = 0;
  CHECK(n > 15 && n < 100);
  free(b.at);
}

/* ==== the formats, by the element, in double ==== */

static double half_of(const unsigned char *at)
{
  int half = at[0] | at[1] << 8, exponent = half >> 10 & 31, digits = half & 1023;
  double value = exponent ? ldexp(1024 + digits, exponent - 25) : ldexp(digits, -24);
  return half >> 15 ? -value : value;
}

static double bfloat_of(const unsigned char *at)
{
  int bits = at[0] | at[1] << 8, exponent = bits >> 7 & 255, digits = bits & 127;
  double value = ldexp(128 + digits, exponent - 134);
  return bits >> 15 ? -value : value;
}

static int nibble(const unsigned char *q, int i) /* of 32: low halves first */
{
  return i < 16 ? q[i] & 15 : q[i - 16] >> 4;
}

static int signed_byte(unsigned char byte) { return byte < 128 ? byte : byte - 256; }

static double q4_k_of(const unsigned char *b, int i)
{
  int part = i / 32, q = b[16 + i / 64 * 32 + i % 32], scale, least;
  q = part % 2 ? q >> 4 : q & 15;
  if (part < 4) {
    scale = b[4 + part] & 63;
    least = b[8 + part] & 63;
  } else {
    scale = (b[8 + part] & 15) + (b[part] >> 6) * 16;
    least = (b[8 + part] >> 4) + (b[4 + part] >> 6) * 16;
  }
  return half_of(b) * scale * q - half_of(b + 2) * least;
}

static double q6_k_of(const unsigned char *b, int i)
{
  int half = i / 128, row = i % 128 / 32, l = i % 32;
  int low = b[half * 64 + row % 2 * 32 + l], high = b[128 + half * 32 + l] >> (2 * row) & 3;
  int q = (row < 2 ? low & 15 : low >> 4) + high * 16 - 32;
  return half_of(b + 208) * signed_byte(b[192 + i / 16]) * q;
}

/* weight i of a packed row */
static double weight_of(int type, const unsigned char *row, int i)
{
  const matrix_format *f = matrix_format_of((uint32_t)type);
  const unsigned char *b = row + (size_t)(i / f->cols) * (size_t)f->bytes;
  int k = i % f->cols;
  switch (type) {
  case MATRIX_F16: return half_of(b);
  case MATRIX_BF16: return bfloat_of(b);
  case MATRIX_Q8_0: return half_of(b) * signed_byte(b[2 + k]);
  case MATRIX_Q4_0: return half_of(b) * (nibble(b + 2, k) - 8);
  case MATRIX_Q4_1: return half_of(b) * nibble(b + 4, k) + half_of(b + 2);
  case MATRIX_Q4_K: return q4_k_of(b, k);
  case MATRIX_Q6_K: return q6_k_of(b, k);
  }
  return 0;
}

/* a matrix of random blocks, and the same as floats */
typedef struct pair { matrix packed, floats; bytes rows; } pair;

static pair make_pair(int type, int rows, int cols)
{
  const matrix_format *f = matrix_format_of((uint32_t)type);
  pair p = { { rows, cols, NULL, type, NULL }, { rows, cols, NULL, MATRIX_F32, NULL },
             { NULL, 0, 0 } };
  float *row = t_floats((size_t)cols);
  for (int i = 0; i < rows * (cols / f->cols); i++) put_block(&p.rows, f);
  p.packed.packed = calloc(1, (size_t)matrix_bytes(&p.packed));
  p.floats.panels = t_floats((size_t)rows * (size_t)cols);
  need(p.packed.packed != NULL, "no memory");
  for (int r = 0; r < rows; r++)
    matrix_set_packed_row(&p.packed, r, p.rows.at + (size_t)r * (p.rows.n / (size_t)rows));
  for (int r = 0; r < rows; r++) {
    matrix_row(&p.packed, r, row);
    matrix_set_row(&p.floats, r, row);
  }
  free(row);
  return p;
}

static void free_pair(pair *p)
{
  free(p->packed.packed);
  free(p->floats.panels);
  free(p->rows.at);
}

static void test_rows(const pair *p)
{
  const matrix *w = &p->packed;
  size_t bytes_of_row = p->rows.n / (size_t)w->rows;
  float *row = t_floats((size_t)w->cols);
  int wrong_ones = 0;
  double room = w->type == MATRIX_F16 || w->type == MATRIX_BF16 || w->type == MATRIX_Q8_0 ||
                w->type == MATRIX_Q4_0 ? 0 : 3e-7; /* one product of few bits is exact */
  for (int r = 0; r < w->rows; r++) {
    const unsigned char *bytes_at = p->rows.at + (size_t)r * bytes_of_row;
    matrix_row(w, r, row);
    for (int i = 0; i < w->cols; i++) {
      double want = weight_of(w->type, bytes_at, i), parts = fabs(want);
      if (w->type == MATRIX_Q4_1 || w->type == MATRIX_Q4_K) parts += 2000;
      wrong_ones += !(fabs(want - (double)row[i]) <= room * parts);
    }
  }
  t_case("%s, %d x %d: rows", matrix_format_of((uint32_t)w->type)->name, w->rows, w->cols);
  CHECK_EQ(wrong_ones, 0);
  free(row);
}

/* the same bits as the same weights in floats, however many tokens */
static void test_products(const pair *p)
{
  enum { N = 71 };
  int rows = p->packed.rows, cols = p->packed.cols;
  float *x = t_normals((size_t)N * (size_t)cols, 5), *want = t_floats((size_t)N * (size_t)rows);
  float *got = t_floats((size_t)N * (size_t)rows);
  matrix_apply(&p->floats, N, x, want);
  for (int n = 1; n <= N; n += n < 6 ? 1 : 13) {
    memset(got, 0, (size_t)N * (size_t)rows * sizeof *got);
    for (int i = 0, many; i < N; i += many) {
      many = N - i < n ? N - i : n;
      matrix_apply(&p->packed, many, x + (size_t)i * (size_t)cols, got + (size_t)i * (size_t)rows);
    }
    t_case("%s, %d x %d: %d tokens a call", matrix_format_of((uint32_t)p->packed.type)->name, rows,
           cols, n);
    CHECK_SAME(got, want, (size_t)N * (size_t)rows * sizeof *got);
  }
  free(x);
  free(want);
  free(got);
}

static void test_finite(const pair *p)
{
  const matrix *w = &p->packed;
  size_t n = p->rows.n / (size_t)w->rows, caught = 0, block;
  const matrix_format *f = matrix_format_of((uint32_t)w->type);
  int at = w->type == MATRIX_Q6_K ? 209 : 1, two = w->type == MATRIX_Q4_1 || w->type == MATRIX_Q4_K;
  bytes row = { exact_copy(&p->rows, n), n, n };
  t_case("%s: what is not finite", f->name);
  CHECK(matrix_packed_row_is_finite(w, row.at));
  for (block = 0; block < n / (size_t)f->bytes; block++)
    for (int k = at; k <= at + 2 * two; k += 2) {
      unsigned char *high = row.at + block * (size_t)f->bytes + k, was = *high, low = high[-1];
      *high = w->type == MATRIX_BF16 ? 0x7f : 0x7c;
      high[-1] = w->type == MATRIX_BF16 ? 0x80 : 0;
      caught += !matrix_packed_row_is_finite(w, row.at);
      *high = was;
      high[-1] = low;
    }
  CHECK_EQ(caught, block * (size_t)(1 + two));
  free(row.at);
}

static void test_halves(void)
{
  static unsigned char packed[2 * MATRIX_PANEL];
  float value[MATRIX_PANEL];
  int wrong_ones = 0;
  for (int half = 0; half < 65536; half++) {
    if ((half & 0x7c00) == 0x7c00) continue;
    packed[half % MATRIX_PANEL] = (unsigned char)half;
    packed[MATRIX_PANEL + half % MATRIX_PANEL] = (unsigned char)(half >> 8);
    unpack_halves(packed, value);
    unsigned char at[2] = { (unsigned char)half, (unsigned char)(half >> 8) };
    double off = half_of(at) - (double)value[half % MATRIX_PANEL];
    wrong_ones += off > 0 || off < 0;
  }
  t_case("all halves");
  CHECK_EQ(wrong_ones, 0);
}

static const int packed_types[] = {
  MATRIX_F16, MATRIX_BF16, MATRIX_Q8_0, MATRIX_Q4_0, MATRIX_Q4_1, MATRIX_Q4_K, MATRIX_Q6_K
};
enum { N_PACKED = 7 };

static void test_formats(void)
{
  static const int shapes[][2] = { { 1, 256 }, { 33, 512 }, { 64, 768 } };
  test_halves();
  for (int t = 0; t < N_PACKED; t++)
    for (int s = 0; s < 3; s++) {
      pair p = make_pair(packed_types[t], shapes[s][0], shapes[s][1]);
      test_rows(&p);
      test_products(&p);
      test_finite(&p);
      free_pair(&p);
    }
  for (int cols = 1; cols < 70; cols += 17) {
    pair p = make_pair(MATRIX_F16, 35, cols);
    test_rows(&p);
    test_products(&p);
    free_pair(&p);
  }
}

/* ==== whole models ==== */

/* the logits of a few tokens, by `chunk` */
static void run_model(const model *m, int chunk, float *logits)
{
  enum { N = 24 };
  engine e;
  engine_error error = { "" };
  longctx_desc desc = engine_desc(m, 8);
  desc.sinks = 2;
  desc.max_batch = chunk;
  longctx *context = t_new(&desc);
  need(engine_init(&e, m, chunk, &error) == 0, error.text);
  for (int i = 0; i < N; i += chunk) {
    int tokens[N];
    for (int k = 0; k < chunk; k++) tokens[k] = (i + k) * 5 % m->vocab_size;
    int code = engine_forward(&e, context, tokens, chunk, logits + i * m->vocab_size, chunk);
    if (!code) code = longctx_commit(context, chunk);
    need(code == 0, longctx_error(code));
  }
  engine_free(&e);
  free(context);
}

/* a copy of the packed weights as floats: the model must not see the difference */
static matrix floats_of(const matrix *w)
{
  matrix f = { w->rows, w->cols, t_floats((size_t)w->rows * (size_t)w->cols), MATRIX_F32, NULL };
  float *row = t_floats((size_t)w->cols);
  for (int r = 0; r < w->rows; r++) {
    matrix_row(w, r, row);
    matrix_set_row(&f, r, row);
  }
  free(row);
  return f;
}

static void test_model(int type, int tied)
{
  enum { N = 24, VOCAB = 20 };
  static float one[N * VOCAB], many[N * VOCAB], plain[N * VOCAB];
  shape s = { 256, 256, 1, 4, 2, VOCAB, type, tied, 1 };
  engine_error error = { "" };
  model m;
  size_t data;
  int finite = 1;
  bytes b = make_file(&s, &data);
  t_case("a model of %s, tied %d", matrix_format_of((uint32_t)type)->name, tied);
  if (!CHECK_EQ(model_parse(&m, b.at, b.n, &error), 0)) need(0, error.text);
  CHECK(m.dim == 256 && m.n_layers == 1 && m.head_dim == 64 && m.rope_dims == 64);
  CHECK(m.vocab_size == VOCAB && m.tied == tied && m.trained_len == 64 && !m.has_tokenizer);
  run_model(&m, 1, one);
  run_model(&m, 8, many);
  CHECK_SAME(one, many, sizeof one);
  for (int i = 0; i < N * VOCAB; i++) finite &= is_finite(one[i]);
  CHECK(finite);

  matrix *all[9] = { &m.embedding, &m.head, &m.layers->wq, &m.layers->wk, &m.layers->wv,
                     &m.layers->wo, &m.layers->w1, &m.layers->w2, &m.layers->w3 };
  for (int i = 0; i < 9; i++) *all[i] = floats_of(all[i]);
  run_model(&m, 8, plain);
  CHECK_SAME(one, plain, sizeof one);
  for (int i = 0; i < 9; i++) free(all[i]->panels);
  model_free(&m);
  free(b.at);
}

/* a value that is not finite is refused wherever it stands */
static void test_values(void)
{
  static const char *const names[] = { "token_embd", "blk.0.attn_norm", "blk.0.ffn_down" };
  shape s = small;
  size_t data;
  engine_error error = { "" };
  s.type = MATRIX_F16;
  bytes b = make_file(&s, &data);
  size_t places[3] = { data, data + 192, 0 };
  gguf g;
  need(gguf_open(&g, b.at, b.n, &error) == 0, error.text);
  places[2] = (size_t)(gguf_take_tensor(&g, "blk.0.ffn_down.weight")->data - b.at);
  gguf_close(&g);
  for (int i = 0; i < 3; i++) {
    unsigned char was[4];
    memcpy(was, b.at + places[i], 4);
    set_u32(&b, places[i], 0x7fc07e00u); /* NaN both as a float and as a half */
    CHECK(parse(&b, b.n, &error) & 1);
    t_case("NaN in %s", names[i]);
    model m;
    check_refusal(model_parse(&m, b.at, b.n, &error), &error, names[i], names[i]);
    memcpy(b.at + places[i], was, 4);
  }
  free(b.at);
}

static void test_rope(void)
{
  model m;
  size_t data;
  engine_error error = { "" };
  wrong.key = "llama.rope.scaling.factor";
  put_u32(&wrong.value, GGUF_F32);
  put_f32(&wrong.value, 4.0f);
  bytes b = make_file(&small, &data);
  all_right();
  t_case("linear scaling");
  need(model_parse(&m, b.at, b.n, &error) == 0, error.text);
  longctx_desc desc = engine_desc(&m, 8);
  CHECK(desc.rope == LONGCTX_ROPE_INTERLEAVED && desc.rope_dims == 4 && desc.rope_freqs != NULL);
  CHECK_NEAR(m.rope_freqs[0], 0.25, 1e-15);
  CHECK_NEAR(m.rope_freqs[1], pow(1000.0, -0.5) / 4, 1e-15);
  CHECK(longctx_check(&desc) == NULL);
  CHECK(m.has_tokenizer == 1 && !m.tied && m.norm_epsilon > 0.9e-5f && m.norm_epsilon < 1.1e-5f);
  model_free(&m);
  free(b.at);
}

/* ==== words and tokens ==== */

/* words with a | between them, cut by both rules */
static void check_words(int kind, const char *words)
{
  char text[100];
  size_t n = 0, at = 0;
  int same = 1;
  for (const char *c = words; *c; c++)
    if (*c != '|') text[n++] = *c;
  for (const char *c = words; *c; c += *c == '|') {
    size_t len = strcspn(c, "|");
    if (len == 0) continue;
    same &= at < n && pretokenizer_word(kind, (unsigned char *)text + at, n - at) == len;
    at += len;
    c += len - (c[len] == 0);
    if (*c != '|') break;
  }
  t_case("words '%s' by rule %d", words, kind);
  CHECK(same && at == n);
}

static void test_words(void)
{
  static const char *const same[] = {
    "Hello| world|!?", "it|'s| we|'ll| I|'d", "a|  | b", "a|\n|\n|b", "a| \n", "  ", " \n| b| ",
    "caf\xc3\xa9| \xe4\xbd\xa0\xe5\xa5\xbd|,", "'|S", "don|'t|'re", "a|\xc2\xa0|b", "x|\xff\xfe|y",
    "\xf0\x9f\x98\x80| \xf0\x9f\x98\x80", "a|\t| b", "e|\xcc\x81", "_|a|_", " '|s"
  };
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
    check_words(PRETOKENIZER_GPT2, same[i]);
    check_words(PRETOKENIZER_SMOLLM, same[i]);
  }
  check_words(PRETOKENIZER_GPT2, "a| 1234|b|  | 5");
  check_words(PRETOKENIZER_SMOLLM, "a| |1|2|3|4|b|   |5");
  check_words(PRETOKENIZER_SMOLLM, "-|\xc2\xbd|\xe2\x85\xa7|a| |\xd9\xa3");
  check_words(PRETOKENIZER_SMOLLM, "ab|   |7| c");
}

static void check_tokens(int gpt2, const char *text, int n, const int *want)
{
  shape s = small;
  size_t data, count = 0;
  tokenizer t;
  engine_error error = { "" };
  char back[64] = "";
  int at = 0, len, previous = -1;
  s.gpt2 = gpt2;
  bytes b = make_file(&s, &data);
  need(tokenizer_parse(&t, b.at, b.n, 12, &error) == 0, error.text);
  int *tokens = tokenizer_encode(&t, text, strlen(text), &count, &error);
  need(tokens != NULL, error.text);
  t_case("tokens of '%s', byte-level %d", text, gpt2);
  if (CHECK_EQ(count, n)) CHECK_SAME(tokens, want, (size_t)n * sizeof *want);
  for (size_t i = 0; i < count; previous = tokens[i++]) {
    const unsigned char *piece = tokenizer_decode(&t, previous, tokens[i], &len);
    if (tokens[i] == t.bos) continue;
    memcpy(back + at, piece, (size_t)len);
    at += len;
  }
  CHECK(strcmp(back, text) == 0);
  CHECK_EQ(tokenizer_named(&t, gpt2 ? "<|end|>" : "</s>"), gpt2 ? 0 : 2);
  CHECK_EQ(tokenizer_named(&t, "no such"), -1);
  free(tokens);
  tokenizer_free(&t);
  free(b.at);
}

static void test_tokens(void)
{
  static const int byte_level[] = { 10, 9, 11, 4, 4, 3, 4, 7 };
  static const int sentencepiece[] = { 1, 8, 8, 3 };
  static const int leftmost[] = { 10, 8 };
  check_tokens(1, "abab ab's11 1\n", 8, byte_level);
  check_tokens(1, "ababab", 2, leftmost);
  check_tokens(0, "ab ab\n", 4, sentencepiece);
}

/* the sound files, as seeds for tests/fuzz_gguf.c */
static void write_seeds(const char *folder)
{
  for (int i = 0; i < N_PACKED + 3; i++) {
    shape s = small, large = { 256, 256, 1, 4, 2, 20, 0, 1, 1 };
    char path[4096];
    size_t data;
    if (i < N_PACKED) s = large;
    if (i < N_PACKED) s.type = packed_types[i];
    s.gpt2 = i != N_PACKED;
    s.tied = i % 2;
    bytes b = make_file(&s, &data);
    snprintf(path, sizeof path, "%s/%d.gguf", folder, i);
    FILE *out = fopen(path, "wb");
    need(out && fwrite(b.at, 1, b.n, out) == b.n && fclose(out) == 0, path);
    free(b.at);
  }
}

int main(int argc, char **argv)
{
  all_right();
  if (argc > 1) {
    write_seeds(argv[1]);
    return 0;
  }
  test_header();
  test_keys();
  test_key_names();
  test_shape_keys();
  test_tensor_heads();
  test_tensor_names();
  test_tokenizer_keys();
  test_pieces();
  test_truncation(0);
  test_truncation(1);
  test_flips(0);
  test_flips(1);
  test_failing_allocations();
  test_formats();
  for (int t = 0; t < N_PACKED; t++) test_model(packed_types[t], t % 2);
  test_model(MATRIX_F32, 0);
  test_values();
  test_rope();
  test_words();
  test_tokens();
  return t_done();
}
