/* tokenizer.h - text to token numbers and back, by llama2.c's tokenizer.bin or a GGUF file.

   Byte-pair encoding as sentencepiece means it: a text starts as its characters, and the two
   neighbours that together make the best-scored piece are merged until no piece is left to make,
   the leftmost of equals first. A heap of candidate pairs gives exactly that order in n log n.

   As GPT-2 means it ("byte-level"): a text is first cut into words; each starts as its bytes, and
   pairs merge in the order of a list of them.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this. */
#ifndef EXAMPLES_TOKENIZER_H
#define EXAMPLES_TOKENIZER_H

#include <stdio.h>
#include "file.h"
#include "gguf.h"
#include "pretokenizer.h"

enum { TOKEN_UNKNOWN = 0, TOKEN_BOS = 1, TOKEN_EOS = 2 };

typedef struct tokenizer_piece {
  const unsigned char *name;  /* [name_len], as the file has it: "<0x0A>" for a byte token */
  const unsigned char *text;  /* [text_len], what it decodes to: the one byte 10 */
  int name_len, text_len;
  float score;
  int control;                /* 1: no text becomes it by its name */
} tokenizer_piece;

/* in a byte-level tokenizer: left and right become `merged`, the lower ranks first */
typedef struct tokenizer_merge { int left, right, merged; } tokenizer_merge;

typedef struct tokenizer {
  int vocab_size;
  tokenizer_piece *pieces;    /* [vocab_size] */
  unsigned char *bytes;       /* what the pieces point into: 0 to 255, then their names */
  int byte_token[256];        /* the piece that stands for one byte, or `unknown`, or -1 */
  int *slots;                 /* [slot_mask + 1]: names to pieces by hash, -1 where free */
  uint32_t slot_mask;
  int bos, eos, unknown;      /* -1 where there is none */
  int adds_bos, adds_space;   /* 1: encode begins with them */
  int byte_level, words;      /* 1: as GPT-2; words: PRETOKENIZER_GPT2 or _SMOLLM */
  tokenizer_merge *merges;    /* [n_merges], the first to merge first */
  int *merge_slots;           /* [merge_mask + 1]: pairs to merges by hash, -1 where free */
  uint32_t merge_mask;
  int n_merges;
} tokenizer;

/* Both return 0, or -1 and say why; then there is nothing to free. The bytes may be freed. Those of
   a GGUF file are taken as such, others as a tokenizer.bin. */
int tokenizer_load(tokenizer *t, const char *path, int vocab_size, engine_error *error);
int tokenizer_parse(tokenizer *t, const unsigned char *bytes, size_t size, int vocab_size,
                    engine_error *error);
void tokenizer_free(tokenizer *t);

/* The tokens of text [n], t->bos first if t->adds_bos, in a malloc'd array; NULL and the reason
   otherwise. A character that is no piece becomes its bytes; a byte without a piece becomes
   t->unknown, or nothing in a byte-level tokenizer. The text's words are only text: it cannot
   spell a control token. */
int *tokenizer_encode(const tokenizer *t, const char *text, size_t n, size_t *n_tokens,
                      engine_error *error);

/* The same of a file's text, or of standard input where path is "-". */
int *tokenizer_encode_file(const tokenizer *t, const char *path, size_t *n_tokens,
                           engine_error *error);

/* The piece of that very name, controls too ("<|im_start|>"), or -1. It looks through all. */
int tokenizer_named(const tokenizer *t, const char *name);

/* The text of a token; the space that encode puts before a text's start is dropped again. */
const unsigned char *tokenizer_decode(const tokenizer *t, int previous, int token, int *len);

/* The same to a stream, without the control characters a terminal would obey. */
void tokenizer_print(const tokenizer *t, int previous, int token, FILE *out);

#ifdef ENGINE_IMPLEMENTATION
#include <stdlib.h>
#include <string.h>

/* ==== names to pieces ==== */

static uint32_t tokenizer_hash(uint32_t hash, const unsigned char *name, int len)
{
  for (int i = 0; i < len; i++) hash = (hash ^ name[i]) * 16777619u;
  return hash;
}

static int tokenizer_same(const tokenizer_piece *p, const unsigned char *a, int a_len,
                          const unsigned char *b, int b_len)
{
  return p->name_len == a_len + b_len && memcmp(p->name, a, (size_t)a_len) == 0 &&
         memcmp(p->name + a_len, b, (size_t)b_len) == 0;
}

/* the slot of the piece named a followed by b, or the free slot where it would stand */
static uint32_t tokenizer_slot(const tokenizer *t, const unsigned char *a, int a_len,
                               const unsigned char *b, int b_len)
{
  uint32_t slot = tokenizer_hash(tokenizer_hash(2166136261u, a, a_len), b, b_len) & t->slot_mask;
  while (t->slots[slot] >= 0 &&
         !tokenizer_same(&t->pieces[t->slots[slot]], a, a_len, b, b_len))
    slot = (slot + 1) & t->slot_mask;
  return slot;
}

static int tokenizer_find(const tokenizer *t, const unsigned char *a, int a_len,
                          const unsigned char *b, int b_len)
{
  return t->slots[tokenizer_slot(t, a, a_len, b, b_len)];
}

static int tokenizer_index(tokenizer *t, engine_error *error)
{
  uint32_t n_slots = 64;
  while (n_slots < 2 * (uint32_t)t->vocab_size) n_slots *= 2;
  t->slots = malloc(n_slots * sizeof *t->slots);
  if (!t->slots) return engine_fail(error, "no memory for the tokenizer's index");
  t->slot_mask = n_slots - 1;
  for (uint32_t i = 0; i < n_slots; i++) t->slots[i] = -1;
  for (int i = 0; i < t->vocab_size; i++) {
    const tokenizer_piece *p = &t->pieces[i];
    if (p->control) continue;
    uint32_t slot = tokenizer_slot(t, p->name, p->name_len, p->name, 0);
    if (t->slots[slot] < 0) t->slots[slot] = i; /* of two pieces of one name the first counts */
  }
  return 0;
}

/* ==== the reader of tokenizer.bin ====
   int32 the longest name; then for each token float32 score, int32 length, its name. */

static int tokenizer_hex(unsigned char digit)
{
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

/* a name of the form <0x..> stands for the byte its two digits spell */
static int tokenizer_byte_piece(tokenizer *t, int token, engine_error *error)
{
  tokenizer_piece *p = &t->pieces[token];
  if (p->name_len != 6 || memcmp(p->name, "<0x", 3) || p->name[5] != '>') return 0;
  int high = tokenizer_hex(p->name[3]), low = tokenizer_hex(p->name[4]);
  if (high < 0 || low < 0)
    return engine_fail(error, "token %d is named like a byte but spells none", token);
  int byte = high * 16 + low;
  p->text = t->bytes + byte;
  p->text_len = 1;
  if (t->byte_token[byte] == t->unknown) t->byte_token[byte] = token;
  return 0;
}

static int tokenizer_take_piece(tokenizer *t, cursor *c, int token, int32_t longest,
                                engine_error *error)
{
  tokenizer_piece *p = &t->pieces[token];
  int32_t len;
  if (take_f32(c, &p->score))
    return engine_fail(error, "the tokenizer ends before the score of token %d", token);
  if (!is_finite(p->score))
    return engine_fail(error, "the score of token %d is not finite", token);
  if (take_i32(c, &len))
    return engine_fail(error, "the tokenizer ends before the length of token %d", token);
  if (len < 0) return engine_fail(error, "the length of token %d is negative", token);
  if (len > longest)
    return engine_fail(error, "token %d is %ld bytes long, the file promised at most %ld", token,
                       (long)len, (long)longest);
  if (take_bytes(c, (uint64_t)len, &p->name))
    return engine_fail(error, "the tokenizer ends inside the name of token %d", token);
  p->text = p->name;
  p->name_len = p->text_len = len;
  return tokenizer_byte_piece(t, token, error);
}

static int tokenizer_take(tokenizer *t, cursor *c, engine_error *error)
{
  int32_t longest;
  if (take_i32(c, &longest))
    return engine_fail(error, "the tokenizer ends before its longest length");
  if (longest < 1 || longest > FILE_LARGEST)
    return engine_fail(error, "the tokenizer's longest length is %ld, it must be 1 to %d",
                       (long)longest, FILE_LARGEST);
  for (int i = 0; i < t->vocab_size; i++)
    if (tokenizer_take_piece(t, c, i, longest, error)) return -1;
  if (c->left > 0)
    return engine_fail(error, "the tokenizer has more than the model's %d tokens", t->vocab_size);
  return tokenizer_index(t, error);
}

/* room for the pieces and for `size` bytes of names */
static int tokenizer_make(tokenizer *t, size_t size, int vocab_size, engine_error *error)
{
  if (vocab_size <= TOKEN_EOS)
    return engine_fail(error, "a vocabulary of %d has no room for the text's start and end",
                       vocab_size);
  if (vocab_size > FILE_LARGEST)
    return engine_fail(error, "a vocabulary of %d is more than the %d this reader takes",
                       vocab_size, FILE_LARGEST);
  t->vocab_size = vocab_size;
  t->pieces = calloc((size_t)vocab_size, sizeof *t->pieces);
  t->bytes = malloc(256 + size);
  if (!t->pieces || !t->bytes) return engine_fail(error, "no memory for the tokenizer");
  for (int i = 0; i < 256; i++) t->bytes[i] = (unsigned char)i;
  for (int i = 0; i < 256; i++) t->byte_token[i] = t->byte_level ? -1 : t->unknown;
  return 0;
}

static int tokenizer_parse_bin(tokenizer *t, const unsigned char *bytes, size_t size,
                               int vocab_size, engine_error *error)
{
  t->unknown = TOKEN_UNKNOWN;
  t->bos = TOKEN_BOS;
  t->eos = TOKEN_EOS;
  t->adds_bos = t->adds_space = 1;
  if (tokenizer_make(t, size, vocab_size, error)) return -1;
  if (size > 0) memcpy(t->bytes + 256, bytes, size);
  cursor c = { t->bytes + 256, size };
  return tokenizer_take(t, &c, error);
}

/* ==== the tokenizer in a GGUF file ====
   tokenizer.ggml.model is "llama" (sentencepiece: scores, U+2581 for a space) or "gpt2"
   (byte-level: merges, and in its names a character for each byte). */

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

static int vocabulary_settings(const gguf *g, tokenizer *t, engine_error *error)
{
  const struct { const char *key; int *value; } ids[] = {
    { "tokenizer.ggml.bos_token_id", &t->bos }, { "tokenizer.ggml.eos_token_id", &t->eos },
    { "tokenizer.ggml.unknown_token_id", &t->unknown }
  };
  gguf_text kind, pre;
  if (gguf_string(g, "tokenizer.ggml.model", &kind, error) ||
      gguf_string(g, "tokenizer.ggml.pre", &pre, error))
    return -1;
  t->byte_level = gguf_is(kind, "gpt2");
  if (!t->byte_level && !gguf_is(kind, "llama"))
    return engine_fail(error, "tokenizer.ggml.model is '%s'; llama and gpt2 are read",
                       SHOWN(kind));
  t->words = gguf_is(pre, "smollm") ? PRETOKENIZER_SMOLLM : PRETOKENIZER_GPT2;
  if (t->byte_level && !gguf_is(pre, "smollm") && !gguf_is(pre, "gpt-2"))
    return engine_fail(error, "tokenizer.ggml.pre is '%s'; smollm and gpt-2 are read", SHOWN(pre));
  t->bos = t->byte_level ? -1 : TOKEN_BOS;
  t->eos = t->byte_level ? -1 : TOKEN_EOS;
  t->unknown = t->byte_level ? -1 : TOKEN_UNKNOWN;
  for (size_t i = 0; i < 3; i++)
    if (gguf_int(g, ids[i].key, 0, t->vocab_size - 1, ids[i].value, error)) return -1;
  t->adds_bos = t->adds_space = !t->byte_level;
  if (gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, error) ||
      gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->adds_space, error))
    return -1;
  if (t->adds_bos && t->bos < 0)
    return engine_fail(error, "tokenizer.ggml.add_bos_token is set, but no bos_token_id");
  return 0;
}

/* U+2581, a low line, stands for a space */
static int piece_write_spaces(gguf_text name, unsigned char *out)
{
  int n = 0;
  for (size_t i = 0; i < name.len; i++) {
    int is_space = name.len - i >= 3 && memcmp(name.at + i, "\xe2\x96\x81", 3) == 0;
    out[n++] = is_space ? ' ' : name.at[i];
    if (is_space) i += 2;
  }
  return n;
}

/* GPT-2's names: a byte that shows by itself stands for itself, the other 68 for U+0100 and up */
static int byte_shows(int byte)
{
  return (byte > ' ' && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
}

static int byte_of_character(uint32_t character)
{
  if (character < 256) return byte_shows((int)character) ? (int)character : -1;
  for (int byte = 0, next = 256; byte < 256; byte++)
    if (!byte_shows(byte) && character == (uint32_t)next++) return byte;
  return -1;
}

/* Returns how many bytes the name stands for, or -1 when it is none of GPT-2's. */
static int piece_write_bytes(gguf_text name, unsigned char *out)
{
  int n = 0, len;
  for (size_t i = 0; i < name.len; i += (size_t)len) {
    int byte = byte_of_character(unicode_take(name.at + i, name.len - i, &len));
    if (byte < 0) return -1;
    out[n++] = (unsigned char)byte;
  }
  return n;
}

static int vocabulary_piece(tokenizer *t, int token, gguf_text name, int type, unsigned char *out,
                            engine_error *error)
{
  tokenizer_piece *p = &t->pieces[token];
  int plain = type == PIECE_NORMAL || type == PIECE_UNUSED, len = (int)name.len;
  if (type < PIECE_NORMAL || type > PIECE_BYTE)
    return engine_fail(error, "token %d is of the unknown type %d", token, type);
  memcpy(out, name.at, name.len);
  if (plain) len = t->byte_level ? piece_write_bytes(name, out) : piece_write_spaces(name, out);
  if (len < 0)
    return engine_fail(error, "token %d has a character that stands for no byte", token);
  p->name = p->text = out;
  p->name_len = p->text_len = len;
  p->control = !plain && type != PIECE_USER;
  if (!t->byte_level && type == PIECE_BYTE && tokenizer_byte_piece(t, token, error)) return -1;
  if (type == PIECE_BYTE && p->text == p->name)
    return engine_fail(error, "token %d is of a byte's type but named like none", token);
  if (t->byte_level && plain && len == 1) t->byte_token[*out] = token;
  return 0;
}

static int vocabulary_pieces(const gguf *g, tokenizer *t, engine_error *error)
{
  cursor names, types, scores;
  unsigned char *out = t->bytes + 256;
  if (gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, t->vocab_size, &names, error) ||
      gguf_array(g, "tokenizer.ggml.token_type", GGUF_I32, t->vocab_size, &types, error) ||
      gguf_array(g, "tokenizer.ggml.scores", GGUF_F32, t->vocab_size, &scores, error))
    return -1;
  if (!scores.at && !t->byte_level)
    return engine_fail(error, "the file does not say tokenizer.ggml.scores");
  for (int i = 0; i < t->vocab_size; i++) {
    int32_t type = PIECE_NORMAL;
    gguf_text name = gguf_next(&names);
    if (name.len > GGUF_KEY)
      return engine_fail(error, "token %d is %llu bytes long, at most %d are read", i,
                         (unsigned long long)name.len, GGUF_KEY);
    if (types.at) take_i32(&types, &type);
    if (scores.at) take_f32(&scores, &t->pieces[i].score);
    if (!is_finite(t->pieces[i].score))
      return engine_fail(error, "the score of token %d is not finite", i);
    if (vocabulary_piece(t, i, name, type, out, error)) return -1;
    out += name.len;
  }
  return tokenizer_index(t, error);
}

static uint32_t merge_slot(const tokenizer *t, int left, int right)
{
  uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
  uint32_t slot = (uint32_t)(hash >> 32) & t->merge_mask;
  for (; t->merge_slots[slot] >= 0; slot = (slot + 1) & t->merge_mask) {
    const tokenizer_merge *m = &t->merges[t->merge_slots[slot]];
    if (m->left == left && m->right == right) break;
  }
  return slot;
}

/* "left right", in the names of the file; neither of them holds a blank */
static int vocabulary_merge(tokenizer *t, int rank, gguf_text pair, unsigned char *scratch,
                            engine_error *error)
{
  tokenizer_merge *m = &t->merges[rank];
  const unsigned char *blank = pair.len ? memchr(pair.at, ' ', pair.len) : NULL;
  if (!blank || pair.len > GGUF_KEY)
    return engine_fail(error, "merge %d is no pair of two pieces", rank);
  gguf_text left = { pair.at, (size_t)(blank - pair.at) };
  gguf_text right = { blank + 1, pair.len - left.len - 1 };
  int left_len = piece_write_bytes(left, scratch);
  int right_len = left_len < 0 ? -1 : piece_write_bytes(right, scratch + left_len);
  if (left_len < 1 || right_len < 1)
    return engine_fail(error, "merge %d is no pair of two pieces", rank);
  m->left = tokenizer_find(t, scratch, left_len, scratch, 0);
  m->right = tokenizer_find(t, scratch + left_len, right_len, scratch, 0);
  m->merged = tokenizer_find(t, scratch, left_len + right_len, scratch, 0);
  if (m->left < 0 || m->right < 0 || m->merged < 0)
    return engine_fail(error, "merge %d is of pieces that are not in the vocabulary", rank);
  uint32_t slot = merge_slot(t, m->left, m->right);
  if (t->merge_slots[slot] < 0) t->merge_slots[slot] = rank; /* of two the first counts */
  return 0;
}

static int vocabulary_merges(const gguf *g, tokenizer *t, engine_error *error)
{
  cursor pairs;
  uint32_t n_slots = 64;
  unsigned char *scratch;
  const gguf_value *v = gguf_find(g, "tokenizer.ggml.merges");
  if (gguf_array(g, "tokenizer.ggml.merges", GGUF_STRING, GGUF_ANY, &pairs, error)) return -1;
  if (!v) return engine_fail(error, "the file does not say tokenizer.ggml.merges");
  if (v->count > FILE_LARGEST)
    return engine_fail(error, "%llu merges are more than the %d this reader takes",
                       (unsigned long long)v->count, FILE_LARGEST);
  t->n_merges = (int)v->count;
  while (n_slots < 2 * (uint32_t)t->n_merges) n_slots *= 2;
  t->merge_mask = n_slots - 1;
  t->merges = malloc(((size_t)t->n_merges + 1) * sizeof *t->merges);
  t->merge_slots = malloc(n_slots * sizeof *t->merge_slots);
  scratch = malloc(GGUF_KEY);
  int bad = 0;
  if (!t->merges || !t->merge_slots || !scratch)
    bad = engine_fail(error, "no memory for the tokenizer's merges");
  for (uint32_t i = 0; !bad && i < n_slots; i++) t->merge_slots[i] = -1;
  for (int i = 0; !bad && i < t->n_merges; i++)
    bad = vocabulary_merge(t, i, gguf_next(&pairs), scratch, error);
  free(scratch);
  return bad;
}

static int vocabulary_take(const gguf *g, tokenizer *t, engine_error *error)
{
  const gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
  if (!tokens) return engine_fail(error, "the file has no tokenizer (tokenizer.ggml.tokens)");
  int bad = vocabulary_settings(g, t, error) ||
            tokenizer_make(t, tokens->data.left, t->vocab_size, error) ||
            vocabulary_pieces(g, t, error);
  return bad || !t->byte_level ? bad : vocabulary_merges(g, t, error);
}

static int tokenizer_parse_gguf(tokenizer *t, const unsigned char *bytes, size_t size,
                                int vocab_size, engine_error *error)
{
  gguf g;
  t->vocab_size = vocab_size;
  if (gguf_open(&g, bytes, size, error)) return -1;
  int bad = vocabulary_take(&g, t, error);
  gguf_close(&g);
  return bad;
}

int tokenizer_parse(tokenizer *t, const unsigned char *bytes, size_t size, int vocab_size,
                    engine_error *error)
{
  memset(t, 0, sizeof *t);
  int bad = gguf_begins(bytes, size) ? tokenizer_parse_gguf(t, bytes, size, vocab_size, error)
                                     : tokenizer_parse_bin(t, bytes, size, vocab_size, error);
  if (bad) tokenizer_free(t);
  return bad ? -1 : 0;
}

int tokenizer_load(tokenizer *t, const char *path, int vocab_size, engine_error *error)
{
  size_t size;
  memset(t, 0, sizeof *t);
  unsigned char *bytes = file_read(path, &size, error);
  if (!bytes) return -1;
  int bad = tokenizer_parse(t, bytes, size, vocab_size, error);
  free(bytes);
  return bad;
}

void tokenizer_free(tokenizer *t)
{
  free(t->pieces);
  free(t->bytes);
  free(t->slots);
  free(t->merges);
  free(t->merge_slots);
  memset(t, 0, sizeof *t);
}

/* ==== encode ==== */

/* pieces of this score or less are never merged to, as in llama2.c */
static const float TOKENIZER_NEVER = -1e10f;

/* one token of the text so far; merged-away ones have the token -1 */
typedef struct tokenizer_symbol { int token, before, after; } tokenizer_symbol;

/* a pair that may merge: the symbol `at` and the one after it make the piece `merged`; the higher
   scores first, and a rank counts as a score below 0 */
typedef struct tokenizer_pair { int at, merged; float score; } tokenizer_pair;

typedef struct tokenizer_text {
  const tokenizer *t;
  tokenizer_symbol *symbols;  /* [n_symbols], linked in the order of the text */
  tokenizer_pair *heap;       /* [n_pairs], the next to merge first */
  size_t n_symbols, n_pairs;
  size_t first;               /* the symbols of the words before merge no more */
} tokenizer_text;

static void text_add_symbol(tokenizer_text *text, int token)
{
  int at = (int)text->n_symbols++;
  text->symbols[at].token = token;
  text->symbols[at].before = at - 1;
  text->symbols[at].after = at + 1;
}

/* how many bytes at the start of text [n] make one UTF-8 character, or look like one */
static int text_character(const unsigned char *text, size_t n)
{
  int len = 1;
  while (len < 4 && (size_t)len < n && (text[len] & 0xc0) == 0x80) len++;
  return len;
}

static void text_add_characters(tokenizer_text *text, const unsigned char *bytes, size_t n)
{
  const tokenizer *t = text->t;
  static const unsigned char space[1] = { ' ' };
  int prefix = n > 0 && t->adds_space ? tokenizer_find(t, space, 1, space, 0) : -1;
  if (prefix >= 0) text_add_symbol(text, prefix);
  for (size_t i = 0; i < n;) {
    int len = text_character(bytes + i, n - i);
    int token = tokenizer_find(t, bytes + i, len, bytes, 0);
    if (token >= 0) text_add_symbol(text, token);
    for (int b = 0; token < 0 && b < len; b++)
      text_add_symbol(text, t->byte_token[bytes[i + (size_t)b]]);
    i += (size_t)len;
  }
}

static int text_merges_before(tokenizer_pair a, tokenizer_pair b)
{
  if (a.score > b.score) return 1;
  if (a.score < b.score) return 0;
  return a.at < b.at;
}

static void text_push(tokenizer_text *text, tokenizer_pair pair)
{
  tokenizer_pair *heap = text->heap;
  size_t i = text->n_pairs++;
  while (i > 0 && text_merges_before(pair, heap[(i - 1) / 2])) {
    heap[i] = heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  heap[i] = pair;
}

static tokenizer_pair text_pop(tokenizer_text *text)
{
  tokenizer_pair *heap = text->heap, first = heap[0], last = heap[--text->n_pairs];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child + 1 < text->n_pairs && text_merges_before(heap[child + 1], heap[child]))
      child++;
    if (child >= text->n_pairs || !text_merges_before(heap[child], last)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = last;
  return first;
}

/* what the neighbours left and right make, or -1, and how soon */
static int text_merged(const tokenizer *t, int left, int right, float *score)
{
  if (t->byte_level) {
    int rank = t->merge_slots[merge_slot(t, left, right)];
    *score = -(float)rank;
    return rank < 0 ? -1 : t->merges[rank].merged;
  }
  const tokenizer_piece *a = &t->pieces[left], *b = &t->pieces[right];
  int merged = tokenizer_find(t, a->name, a->name_len, b->name, b->name_len);
  *score = merged < 0 ? 0.0f : t->pieces[merged].score;
  return *score > TOKENIZER_NEVER ? merged : -1;
}

/* enters the pair that begins with symbol `at`, if there is one and it makes a piece */
static void text_consider(tokenizer_text *text, int at)
{
  if (at < (int)text->first || (size_t)text->symbols[at].after >= text->n_symbols) return;
  tokenizer_pair pair = { at, -1, 0.0f };
  pair.merged = text_merged(text->t, text->symbols[at].token,
                            text->symbols[text->symbols[at].after].token, &pair.score);
  if (pair.merged >= 0) text_push(text, pair);
}

/* A pair waits while its neighbours merge; it still stands if its two symbols are there and as
   long together as its piece, for then they are the same characters. */
static int text_stands(const tokenizer_text *text, tokenizer_pair pair)
{
  const tokenizer_piece *pieces = text->t->pieces;
  tokenizer_symbol left = text->symbols[pair.at];
  if (left.token < 0 || (size_t)left.after >= text->n_symbols) return 0;
  int right_token = text->symbols[left.after].token;
  return pieces[left.token].name_len + pieces[right_token].name_len ==
         pieces[pair.merged].name_len;
}

static void text_merge(tokenizer_text *text, tokenizer_pair pair)
{
  tokenizer_symbol *left = &text->symbols[pair.at], *right = &text->symbols[left->after];
  left->token = pair.merged;
  left->after = right->after;
  right->token = -1;
  if ((size_t)left->after < text->n_symbols) text->symbols[left->after].before = pair.at;
  text_consider(text, left->before);
  text_consider(text, pair.at);
}

static int *text_tokens(const tokenizer_text *text, size_t *n_tokens)
{
  int *tokens = malloc((text->n_symbols + 1) * sizeof *tokens);
  if (!tokens) return NULL;
  tokens[0] = text->t->bos;
  *n_tokens = (size_t)text->t->adds_bos;
  for (size_t at = 0; at < text->n_symbols; at = (size_t)text->symbols[at].after)
    tokens[(*n_tokens)++] = text->symbols[at].token;
  return tokens;
}

/* merges the symbols from text->first on */
static void text_merge_all(tokenizer_text *text)
{
  for (size_t i = text->first; i < text->n_symbols; i++) text_consider(text, (int)i);
  while (text->n_pairs > 0) {
    tokenizer_pair pair = text_pop(text);
    if (text_stands(text, pair)) text_merge(text, pair);
  }
}

static void text_add_words(tokenizer_text *text, const unsigned char *bytes, size_t n)
{
  for (size_t word; n > 0; bytes += word, n -= word) {
    word = pretokenizer_word(text->t->words, bytes, n);
    text->first = text->n_symbols;
    for (size_t i = 0; i < word; i++)
      if (text->t->byte_token[bytes[i]] >= 0) text_add_symbol(text, text->t->byte_token[bytes[i]]);
    text_merge_all(text);
  }
}

static void text_add(tokenizer_text *text, const unsigned char *bytes, size_t n)
{
  if (text->t->byte_level) {
    text_add_words(text, bytes, n);
  } else {
    text_add_characters(text, bytes, n);
    text_merge_all(text);
  }
}

int *tokenizer_encode(const tokenizer *t, const char *bytes, size_t n, size_t *n_tokens,
                      engine_error *error)
{
  tokenizer_text text = { t, NULL, NULL, 0, 0, 0 };
  int *tokens = NULL;
  if (n > INT32_MAX / 32) {
    engine_fail(error, "a text of more than 64 MiB is not encoded in one piece");
    return NULL;
  }
  text.symbols = malloc((n + 1) * sizeof *text.symbols);
  text.heap = malloc(2 * (n + 1) * sizeof *text.heap); /* a merge takes one pair, gives two */
  if (text.symbols && text.heap) {
    text_add(&text, (const unsigned char *)bytes, n);
    tokens = text_tokens(&text, n_tokens);
  }
  if (!tokens) engine_fail(error, "no memory to encode a text of %llu bytes",
                           (unsigned long long)n);
  free(text.symbols);
  free(text.heap);
  return tokens;
}

int *tokenizer_encode_file(const tokenizer *t, const char *path, size_t *n_tokens,
                           engine_error *error)
{
  size_t n;
  unsigned char *bytes = file_read(path, &n, error);
  int *tokens = bytes ? tokenizer_encode(t, (char *)bytes, n, n_tokens, error) : NULL;
  free(bytes);
  return tokens;
}

/* ==== decode ==== */

int tokenizer_named(const tokenizer *t, const char *name)
{
  for (int i = 0; i < t->vocab_size; i++)
    if (tokenizer_same(&t->pieces[i], (const unsigned char *)name, (int)strlen(name),
                       (const unsigned char *)name, 0))
      return i;
  return -1;
}

const unsigned char *tokenizer_decode(const tokenizer *t, int previous, int token, int *len)
{
  const tokenizer_piece *p = &t->pieces[token];
  int drop = t->adds_space && previous == t->bos && p->text_len > 0 && p->text[0] == ' ';
  *len = p->text_len - drop;
  return p->text + drop;
}

void tokenizer_print(const tokenizer *t, int previous, int token, FILE *out)
{
  int len;
  const unsigned char *text = tokenizer_decode(t, previous, token, &len);
  for (int i = 0; i < len; i++)
    if ((text[i] >= ' ' && text[i] != 0x7f) || text[i] == '\n' || text[i] == '\t')
      putc(text[i], out);
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_TOKENIZER_H */
