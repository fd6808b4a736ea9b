/* recall_text.h - texts that tell something, go on about nothing, and ask it back.

   The grammar is that of examples/train/recall_text.py. A word is a token, with the space before
   it; "+" joins it to the word before. In a form stands
   $a a name  $p a place  $t a thing  $c a digit  $d a day  $h an hour  $w weather  $f food
   $x an animal. */
#ifndef EXAMPLES_RECALL_TEXT_H
#define EXAMPLES_RECALL_TEXT_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "tokenizer.h"

enum { MOST_CHOICES = 256, MOST_WORDS = 6, MOST_PARTS = 24, MOST_FORM = 64, N_FILLERS = 20 };

typedef struct words { int n, token[MOST_WORDS]; } words;
typedef struct slot { int n; words choice[MOST_CHOICES]; } slot;
typedef struct form { int n; struct { char slot; int token; } part[MOST_PARTS]; } form;

typedef struct grammar {
  slot slots[26]; /* by letter */
  form filler[N_FILLERS], key, ask_key, fact, ask_fact;
} grammar;

static const char *const name_heads = "Al Ber Cor Dal El Fen Gar Hal Is Jor Kel Lor Mar Nor Os Per";
static const char *const name_tails =
  "+a +in +ena +ric +is +win +ia +mund +wyn +dan +ilde +bert +essa +vin +ora +gar";
static const char *const place_heads =
  "Oak Mill Stone Ash Green High Long Red Fox Wolf Bell Swan Thorn Corn Black White";
static const char *const place_tails = "+ford +hill +bridge +field +wood +ton +well +gate +mere "
                                       "+stead +moor +dale +wick +brook +cliff +haven";
static const char *const looks =
  "brass tin red blue green old small long silver iron black white round flat heavy new";
static const char *const nouns = "key cup bell box lamp ring coin book knife map rope drum";
static const char *const digits = "0/1/2/3/4/5/6/7/8/9";
static const char *const days = "Monday/Tuesday/Wednesday/Thursday/Friday/Saturday/Sunday";
static const char *const hours = "morning/afternoon/evening";
static const char *const weathers =
  "it rained/it snowed/the sun was out/there was fog/a cold wind blew";
static const char *const foods = "some bread/an apple/a pear/some cheese/a bowl of soup/an egg";
static const char *const animals = "a dog/a cat/a goose/a goat/a crow/a horse/a hare/a pig";
static const char *const fillers[N_FILLERS] = {
  "It was $d $h and $w .", "On $d $w .", "In the $h $a met $a .", "$a walked home .", "$a ate $f .",
  "$a gave $f to $x .", "Then $x came by .", "$a sat down and sang a song .",
  "$a looked up at the sky .", "$a was tired but did not stop .", "Good $h , $a , said $a .",
  "$a told $a a story about $x .", "$a and $a talked for a while .", "$a helped $a with the work .",
  "Did you see $x ? asked $a .", "It will be $d all day , said $a .", "Snow lay on everything .",
  "The sun was warm .", "The wind would not rest .", "Nobody could see far in the fog ."
};

/* The token of the word [n]; -1 when the tokenizer has none. */
static int word_token(const tokenizer *t, const char *word, size_t n)
{
  char piece[32] = " ";
  int glued = word[0] == '+', plain = n == 1 && strchr(".,?", word[0]) != NULL;
  size_t at = glued || plain ? 0 : 1;
  if (n >= sizeof piece - 1) return -1;
  memcpy(piece + at, word + glued, n - (size_t)glued);
  at += n - (size_t)glued;
  for (int i = 0; i < t->vocab_size; i++)
    if ((size_t)t->pieces[i].name_len == at && memcmp(t->pieces[i].name, piece, at) == 0) return i;
  return -1;
}

/* the words of text up to `end`, a character, behind those that w has; 0, or -1 */
static int add_words(const tokenizer *t, const char *text, char end, words *w)
{
  while (*text && *text != end) {
    size_t n = 0;
    while (text[n] && text[n] != ' ' && text[n] != end) n++;
    if (w->n == MOST_WORDS || (w->token[w->n++] = word_token(t, text, n)) < 0) return -1;
    text += n;
    if (*text != end) text += *text == ' ';
  }
  return 0;
}

/* what stands between slashes */
static int make_slot(const tokenizer *t, grammar *g, char name, const char *choices)
{
  slot *s = &g->slots[name - 'a'];
  for (; choices; choices = strchr(choices, '/')) {
    choices += *choices == '/';
    if (add_words(t, choices, '/', &s->choice[s->n++])) return -1;
  }
  return 0;
}

/* every first word with every second */
static int make_pairs(const tokenizer *t, grammar *g, char name, const char *first,
                      const char *seconds)
{
  slot *s = &g->slots[name - 'a'];
  for (; first; first = strchr(first, ' ')) {
    first += *first == ' ';
    for (const char *second = seconds; second; second = strchr(second, ' ')) {
      second += *second == ' ';
      words *w = &s->choice[s->n++];
      if (add_words(t, first, ' ', w) || add_words(t, second, ' ', w)) return -1;
    }
  }
  return 0;
}

static int make_form(const tokenizer *t, const char *text, form *f)
{
  f->n = 0;
  while (*text) {
    size_t n = strcspn(text, " ");
    if (f->n == MOST_PARTS) return -1;
    f->part[f->n].slot = text[0] == '$' ? text[1] : 0;
    f->part[f->n].token = text[0] == '$' ? 0 : word_token(t, text, n);
    if (f->part[f->n++].token < 0) return -1;
    text += n;
    text += *text == ' ';
  }
  return 0;
}

/* 0, or -1 when the tokenizer lacks a word */
static int grammar_make(grammar *g, const tokenizer *t)
{
  int bad = 0;
  memset(g, 0, sizeof *g);
  bad |= make_pairs(t, g, 'a', name_heads, name_tails);
  bad |= make_pairs(t, g, 'p', place_heads, place_tails);
  bad |= make_pairs(t, g, 't', looks, nouns);
  bad |= make_slot(t, g, 'c', digits);
  bad |= make_slot(t, g, 'd', days);
  bad |= make_slot(t, g, 'h', hours);
  bad |= make_slot(t, g, 'w', weathers);
  bad |= make_slot(t, g, 'f', foods);
  bad |= make_slot(t, g, 'x', animals);
  for (int i = 0; i < N_FILLERS; i++) bad |= make_form(t, fillers[i], &g->filler[i]);
  bad |= make_form(t, "The pass key is $c $c $c $c $c . Remember it .", &g->key);
  bad |= make_form(t, "What is the pass key ? The pass key is", &g->ask_key);
  bad |= make_form(t, "$a put the $t in $p .", &g->fact);
  bad |= make_form(t, "Where is the $t ? In", &g->ask_fact);
  return bad;
}

/* The same with the shipped tokenizer of models with vocab_size tokens. Returns 0, or -1 and why. */
static int grammar_load(grammar *g, int vocab_size, engine_error *error)
{
  tokenizer t;
  if (tokenizer_load(&t, "examples/models/recall.tok", vocab_size, error)) return -1;
  int bad = grammar_make(g, &t);
  tokenizer_free(&t);
  return bad ? engine_fail(error, "a word of the texts is missing") : 0;
}

/* splitmix64: 0 to n - 1 */
static int random_below(uint64_t *seed, int n)
{
  uint64_t z = *seed += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (int)((z ^ z >> 31) >> 33) % n;
}

/* A form in tokens, at most MOST_FORM; each slot takes the next of `chosen`, or any where that is
   NULL. Returns how many. */
static int say(const grammar *g, const form *f, const int *chosen, uint64_t *seed, int *out)
{
  int n = 0;
  for (int i = 0; i < f->n; i++) {
    if (!f->part[i].slot) {
      out[n++] = f->part[i].token;
      continue;
    }
    const slot *s = &g->slots[f->part[i].slot - 'a'];
    const words *w = &s->choice[chosen ? *chosen++ : random_below(seed, s->n)];
    for (int j = 0; j < w->n; j++) out[n++] = w->token[j];
  }
  return n;
}

/* One sentence about nothing. */
static int say_filler(const grammar *g, uint64_t *seed, int *out)
{
  return say(g, &g->filler[random_below(seed, N_FILLERS)], NULL, seed, out);
}

#endif /* EXAMPLES_RECALL_TEXT_H */
