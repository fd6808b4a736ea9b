/* tokenizer.h - text to token numbers and back, by llama2.c's tokenizer.bin.

   Byte-pair encoding as sentencepiece means it: a text starts as its characters, and the two
   neighbours that together make the best-scored piece are merged until no piece is left to make,
   the leftmost of equals first. A heap of candidate pairs gives exactly that order in n log n.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this. */
#ifndef EXAMPLES_TOKENIZER_H
#define EXAMPLES_TOKENIZER_H

#include <stdio.h>
#include "file.h"

enum { TOKEN_UNKNOWN = 0, TOKEN_BOS = 1, TOKEN_EOS = 2 };

typedef struct tokenizer_piece {
  const unsigned char *name;  /* [name_len], as the file has it: "<0x0A>" for a byte token */
  const unsigned char *text;  /* [text_len], what it decodes to: the one byte 10 */
  int name_len, text_len;
  float score;
} tokenizer_piece;

typedef struct tokenizer {
  int vocab_size;
  tokenizer_piece *pieces;    /* [vocab_size] */
  unsigned char *bytes;       /* what the pieces point into: 0 to 255, then the file */
  int byte_token[256];        /* the piece that stands for one byte, or TOKEN_UNKNOWN */
  int *slots;                 /* [slot_mask + 1]: names to pieces by hash, -1 where free */
  uint32_t slot_mask;
} tokenizer;

/* Both return 0, or -1 and say why; then there is nothing to free. The bytes may be freed. */
int tokenizer_load(tokenizer *t, const char *path, int vocab_size, engine_error *error);
int tokenizer_parse(tokenizer *t, const unsigned char *bytes, size_t size, int vocab_size,
                    engine_error *error);
void tokenizer_free(tokenizer *t);

/* The tokens of text [n], TOKEN_BOS first, in a malloc'd array; NULL and the reason otherwise. A
   character that is no piece becomes its bytes, a byte without a piece TOKEN_UNKNOWN. */
int *tokenizer_encode(const tokenizer *t, const char *text, size_t n, size_t *n_tokens,
                      engine_error *error);

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
  if (t->byte_token[byte] == TOKEN_UNKNOWN) t->byte_token[byte] = token;
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

int tokenizer_parse(tokenizer *t, const unsigned char *bytes, size_t size, int vocab_size,
                    engine_error *error)
{
  memset(t, 0, sizeof *t);
  if (vocab_size <= TOKEN_EOS)
    return engine_fail(error, "a vocabulary of %d has no room for the text's start and end",
                       vocab_size);
  if (vocab_size > FILE_LARGEST)
    return engine_fail(error, "a vocabulary of %d is more than the %d this reader takes",
                       vocab_size, FILE_LARGEST);
  t->vocab_size = vocab_size;
  t->pieces = calloc((size_t)vocab_size, sizeof *t->pieces);
  t->bytes = malloc(256 + size);
  int bad = !t->pieces || !t->bytes;
  if (bad) {
    engine_fail(error, "no memory for the tokenizer");
  } else {
    for (int i = 0; i < 256; i++) t->bytes[i] = (unsigned char)i;
    memcpy(t->bytes + 256, bytes, size);
    cursor c = { t->bytes + 256, size };
    bad = tokenizer_take(t, &c, error);
  }
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
  memset(t, 0, sizeof *t);
}

/* ==== encode ==== */

/* pieces of this score or less are never merged to, as in llama2.c */
static const float TOKENIZER_NEVER = -1e10f;

/* one token of the text so far; merged-away ones have the token -1 */
typedef struct tokenizer_symbol { int token, before, after; } tokenizer_symbol;

/* a pair that may merge: the symbol `at` and the one after it make the piece `merged` */
typedef struct tokenizer_pair { int at, merged; } tokenizer_pair;

typedef struct tokenizer_text {
  const tokenizer *t;
  tokenizer_symbol *symbols;  /* [n_symbols], linked in the order of the text */
  tokenizer_pair *heap;       /* [n_pairs], the next to merge first */
  size_t n_symbols, n_pairs;
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
  int prefix = n > 0 ? tokenizer_find(t, space, 1, space, 0) : -1;
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

static int text_merges_before(const tokenizer_text *text, tokenizer_pair a, tokenizer_pair b)
{
  float score_a = text->t->pieces[a.merged].score, score_b = text->t->pieces[b.merged].score;
  if (score_a > score_b) return 1;
  if (score_a < score_b) return 0;
  return a.at < b.at;
}

static void text_push(tokenizer_text *text, tokenizer_pair pair)
{
  tokenizer_pair *heap = text->heap;
  size_t i = text->n_pairs++;
  while (i > 0 && text_merges_before(text, pair, heap[(i - 1) / 2])) {
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
    if (child + 1 < text->n_pairs && text_merges_before(text, heap[child + 1], heap[child]))
      child++;
    if (child >= text->n_pairs || !text_merges_before(text, heap[child], last)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = last;
  return first;
}

/* enters the pair that begins with symbol `at`, if there is one and it makes a piece */
static void text_consider(tokenizer_text *text, int at)
{
  const tokenizer *t = text->t;
  if (at < 0 || (size_t)text->symbols[at].after >= text->n_symbols) return;
  const tokenizer_piece *left = &t->pieces[text->symbols[at].token];
  const tokenizer_piece *right = &t->pieces[text->symbols[text->symbols[at].after].token];
  int merged = tokenizer_find(t, left->name, left->name_len, right->name, right->name_len);
  tokenizer_pair pair = { at, merged };
  if (merged >= 0 && t->pieces[merged].score > TOKENIZER_NEVER) text_push(text, pair);
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
  tokens[0] = TOKEN_BOS;
  *n_tokens = 1;
  for (size_t at = 0; at < text->n_symbols; at = (size_t)text->symbols[at].after)
    tokens[(*n_tokens)++] = text->symbols[at].token;
  return tokens;
}

int *tokenizer_encode(const tokenizer *t, const char *bytes, size_t n, size_t *n_tokens,
                      engine_error *error)
{
  tokenizer_text text = { t, NULL, NULL, 0, 0 };
  int *tokens = NULL;
  if (n > INT32_MAX / 32) {
    engine_fail(error, "a text of more than 64 MiB is not encoded in one piece");
    return NULL;
  }
  text.symbols = malloc((n + 1) * sizeof *text.symbols);
  text.heap = malloc(2 * (n + 1) * sizeof *text.heap); /* a merge takes one pair, gives two */
  if (text.symbols && text.heap) {
    text_add_characters(&text, (const unsigned char *)bytes, n);
    for (size_t i = 0; i < text.n_symbols; i++) text_consider(&text, (int)i);
    while (text.n_pairs > 0) {
      tokenizer_pair pair = text_pop(&text);
      if (text_stands(&text, pair)) text_merge(&text, pair);
    }
    tokens = text_tokens(&text, n_tokens);
  }
  if (!tokens) engine_fail(error, "no memory to encode a text of %llu bytes",
                           (unsigned long long)n);
  free(text.symbols);
  free(text.heap);
  return tokens;
}

/* ==== decode ==== */

const unsigned char *tokenizer_decode(const tokenizer *t, int previous, int token, int *len)
{
  const tokenizer_piece *p = &t->pieces[token];
  int drop = previous == TOKEN_BOS && p->text_len > 0 && p->text[0] == ' ';
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
