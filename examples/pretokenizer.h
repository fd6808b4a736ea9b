/* pretokenizer.h - cuts a text into the words inside which a byte-level BPE may merge.

   By hand what GPT-2's regular expression says,
     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
   and SmolLM's, which first cuts out every number by itself, as if the text ended there and began
   again. A byte that is no UTF-8 counts as a character of no class.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this (or a header that does). */
#ifndef EXAMPLES_PRETOKENIZER_H
#define EXAMPLES_PRETOKENIZER_H

#include "unicode.h"

enum { PRETOKENIZER_GPT2, PRETOKENIZER_SMOLLM };

/* How many bytes the first word of text [n] has, n > 0. */
size_t pretokenizer_word(int kind, const unsigned char *text, size_t n);

#ifdef ENGINE_IMPLEMENTATION
#include <string.h>

static int word_class(const unsigned char *text, size_t n, int *len)
{
  uint32_t character = unicode_take(text, n, len);
  return character == UNICODE_BROKEN ? UNICODE_OTHER : unicode_class(character);
}

/* the bytes at the start of text [n] that are of one class */
static size_t word_run(const unsigned char *text, size_t n, int kind)
{
  size_t at = 0;
  int len;
  while (at < n && word_class(text + at, n - at, &len) == kind) at += (size_t)len;
  return at;
}

static size_t word_contraction(const unsigned char *text, size_t n)
{
  static const char *const known[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    size_t len = strlen(known[i]);
    if (n >= len && memcmp(text, known[i], len) == 0) return len;
  }
  return 0;
}

/* Spaces before a word leave it the last one, if that is a blank; spaces before the end do not. */
static size_t word_spaces(const unsigned char *text, size_t n)
{
  size_t at = 0, last = 0;
  int len;
  while (at < n && word_class(text + at, n - at, &len) == UNICODE_SPACE) {
    last = at;
    at += (size_t)len;
  }
  return at < n && last > 0 ? last : at;
}

static size_t word_gpt2(const unsigned char *text, size_t n)
{
  size_t contraction = word_contraction(text, n), blank = text[0] == ' ';
  int len, kind;
  if (contraction) return contraction;
  if (blank == n) return n;
  kind = word_class(text + blank, n - blank, &len);
  if (kind == UNICODE_SPACE) return word_spaces(text, n);
  return blank + word_run(text + blank, n - blank, kind);
}

/* where the first number of text [n] stands, or n */
static size_t word_until_number(const unsigned char *text, size_t n)
{
  size_t at = 0;
  int len;
  while (at < n && word_class(text + at, n - at, &len) != UNICODE_NUMBER) at += (size_t)len;
  return at;
}

size_t pretokenizer_word(int kind, const unsigned char *text, size_t n)
{
  int len;
  size_t word = word_gpt2(text, n);
  if (kind == PRETOKENIZER_GPT2) return word;
  if (word_class(text, n, &len) == UNICODE_NUMBER) return (size_t)len;
  size_t seen = n - word > 8 ? word + 8 : n; /* a word's end looks no further */
  size_t number = word_until_number(text, seen);
  return number < seen ? word_gpt2(text, number) : word;
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_PRETOKENIZER_H */
