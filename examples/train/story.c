/* story.c - an endless story of a small country, for training a tiny model and
 * for measuring what it still knows.
 *
 *   story SEED BYTES                  write about BYTES bytes of story
 *   story --facts SEED BYTES FILE     the same, and list every question in FILE
 *
 * There are people, places and things. What becomes of a thing is told once
 * ("Osena put the brass key in Oakford.") and asked back once ("Where is the
 * brass key? In Oakford."), from 2 to some 4000 sentences later; until then
 * nothing touches it. So the sentence that told it is the only place where the
 * answer can be found, and its distance is the length of memory needed.
 *
 * FILE has one line per question, tab separated: byte offset of the telling
 * sentence, byte offset of the answer, number of sentences between (a question
 * and its answer count as one), and the answer. Facts told before the text
 * begins have no offset and are left out.
 *
 * The text depends on the seed alone: integer arithmetic, own random numbers.
 * Licence: MIT-0, as the project. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* ---- the country ---------------------------------------------------------
 * Names are made of two parts that many names share: to say one again takes the
 * memory of how the two went together. */
static const char *const NAME_HEADS[] = {
    "Al", "Ber", "Cor", "Dal", "El", "Fen", "Gar", "Hal",
    "Is", "Jor", "Kel", "Lor", "Mar", "Nor", "Os", "Per",
};
static const char *const NAME_TAILS[] = { /* women and men alternate */
    "a", "in", "ena", "ric", "is", "win", "ia", "mund",
    "wyn", "dan", "ilde", "bert", "essa", "vin", "ora", "gar",
};
static const char *const PLACE_HEADS[] = {
    "Oak", "Mill", "Stone", "Ash", "Green", "High", "Long", "Red",
    "Fox", "Wolf", "Bell", "Swan", "Thorn", "Corn", "Black", "White",
};
static const char *const PLACE_TAILS[] = {
    "ford", "hill", "bridge", "field", "wood", "ton", "well", "gate",
    "mere", "stead", "moor", "dale", "wick", "brook", "cliff", "haven",
};
static const char *const LOOKS[] = {
    "brass", "tin", "red", "blue", "green", "old", "small", "long",
    "silver", "iron", "black", "white", "round", "flat", "heavy", "new",
};
static const char *const NOUNS[] = {
    "key", "cup", "bell", "box", "lamp", "ring", "coin", "book", "knife", "map", "rope", "drum",
};
static const char *const FOODS[] = {
    "some bread", "an apple", "a pear", "some cheese", "a bowl of soup", "an egg",
};
static const char *const ANIMALS[] = {
    "a dog", "a cat", "a goose", "a goat", "a crow", "a horse", "a hare", "a pig",
};
static const char *const DAYS[] = {
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
};
static const char *const HOURS[] = {"morning", "afternoon", "evening"};
static const struct { const char *began, *lasted; } WEATHER[] = {
    {"it rained", "It was still raining."},
    {"it snowed", "Snow lay on everything."},
    {"the sun was out", "The sun was warm."},
    {"there was fog", "Nobody could see far in the fog."},
    {"a cold wind blew", "The wind would not rest."},
};

/* ---- the sentences -------------------------------------------------------
 * $a who acts   $b who is with them   $s $S she or he   $q who is asked for
 * $t the thing  $p the place          $g its giver      $k its keeper
 * $d $h day, hour   $w the weather    $f food           $x an animal
 * [ ] stand round the answer, for the list of facts, and are not written. */
static const char *const OPENING[] = {
    "On $d $h $w, and $a met $b in $p.",
    "It was $d $h and $w, and $a and $b were in $p.",
    "In the $h of that $d $w, and $a found $b in $p.",
};
static const char *const PUT[] = {
    "$a put the $t in $p.",
    "$a left the $t in $p.",
    "$a hid the $t in $p, and only $b knew.",
    "\"I left the $t in $p,\" said $a. \"In $p?\" asked $b.",
};
static const char *const KEEP[] = {
    "$a found the $t and kept it.",
    "$a bought the $t from a pedlar.",
    "\"I have the $t now,\" said $a. \"The $t?\" asked $b.",
};
static const char *const GIVE[] = {
    "$a gave the $t to $b.",
    "$a sold the $t to $b for a penny.",
    "\"Take the $t,\" said $a to $b.",
};
static const char *const MOVE[] = {
    "$a walked to $p.",
    "$a ran to $p and stayed there.",
    "Then $a had to go to $p.",
};
/* Of questions, the first form is asked by nobody: it also fits when the answer
 * is one of the two who are talking. */
static const char *const WHERE_THING[] = {
    "Where is the $t? In [$p].",
    "\"Where is the $t?\" asked $a. \"In [$p],\" said $b.",
    "$a wanted the $t. \"It is in [$p],\" said $b.",
    "The $t was still in [$p].",
};
static const char *const WHO_KEEPS[] = {
    "Who has the $t? [$k].",
    "\"Who has the $t?\" asked $a. \"[$k] has it,\" said $b.",
    "$a wanted the $t. \"You must ask [$k],\" said $b.",
    "The $t was still with [$k].",
};
static const char *const WHO_GAVE[] = {
    "Who gave the $t to $k? [$g].",
    "\"Who gave $k the $t?\" asked $a. \"[$g] did,\" said $b.",
};
static const char *const WHERE_PERSON[] = {
    "Where is $q now? In [$p].",
    "\"Where is $q?\" asked $a. \"In [$p],\" said $b.",
};
static const char *const DEED[] = {
    "$S sat down and sang a song.",
    "$S looked up at the sky.",
    "$S laughed, and $b laughed too.",
    "$S was tired, but $s did not stop.",
    "Then $s ate $f.",
    "$S gave $f to $x.",
    "$S told $b an old story about $x.",
    "$S helped $b with the work.",
    "$S and $b talked for a while.",
    "Then $x came by, and $s was glad.",
};
static const char *const TALK[] = {
    "\"Good $h, $b,\" said $a.",
    "\"How are you, $b?\" asked $a. \"Very well,\" said $b.",
    "\"It will be $d all day,\" said $a.",
    "\"Are you hungry?\" asked $a. \"I had $f,\" said $b.",
    "\"We have time,\" said $a. \"We do not,\" said $b.",
    "\"Did you see $x?\" asked $a. \"It ran off,\" said $b.",
};

/* ---- the state of the story ---------------------------------------------- */
enum { PEOPLE = 16 * 16, PLACES = 16 * 16, THINGS = 16 * 12, RECENT = 64 };

typedef struct {
    int64_t at, sentence; /* byte offset and number of the sentence that told it */
} telling;

typedef struct {
    enum { FREE, PUT_DOWN, KEPT, GIVEN } fate;
    int place, keeper, giver;
    int64_t due;          /* the sentence number from which it may be asked back */
    telling told;
} thing;

typedef struct {
    int place;
    telling told;
} person;

typedef struct {
    FILE *out, *facts;    /* NULL: write nothing */
    uint64_t random;
    int64_t bytes, sentences;
    int day, hour, weather, actor, other;       /* the scene */
    int thing, place, giver, keeper, asked;     /* what the sentence is about */
    int named;            /* the actor is named already: a pronoun will do */
    int fresh;            /* at the start of a paragraph */
    int in_answer;
    char answer[32];
    size_t answer_len;
    int64_t answer_at;
    telling last;         /* the latest sentence */
    person people[PEOPLE];
    thing things[THINGS];
    int seen[RECENT];     /* who was last said to be somewhere: a ring */
    int64_t sightings;
} story;

/* splitmix64: the same numbers on every machine. */
static uint64_t next_random(story *s) {
    uint64_t z = s->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static int pick(story *s, int n) { /* one of 0 .. n - 1 */
    return (int)(((next_random(s) >> 32) * (uint64_t)n) >> 32);
}

/* ---- writing ------------------------------------------------------------- */
static void put(story *s, const char *text) {
    for (; *text; text++) {
        if (s->in_answer && s->answer_len + 1 < sizeof s->answer) s->answer[s->answer_len++] = *text;
        if (!s->out) continue;
        fputc(*text, s->out);
        s->bytes++;
    }
}

static void put_two(story *s, const char *head, const char *between, const char *tail) {
    put(s, head);
    put(s, between);
    put(s, tail);
}

static void put_name(story *s, int who) {
    put_two(s, NAME_HEADS[who / COUNT(NAME_TAILS)], "", NAME_TAILS[who % COUNT(NAME_TAILS)]);
}

static void put_actor(story *s, const char *she, const char *he) {
    if (s->named) put(s, s->actor % 2 ? he : she);
    else put_name(s, s->actor);
    s->named = 1;
}

static void put_slot(story *s, char slot) {
    switch (slot) {
    case 'a': s->named = 0; put_actor(s, "", ""); break;
    case 's': put_actor(s, "she", "he"); break;
    case 'S': put_actor(s, "She", "He"); break;
    case 'b': put_name(s, s->other); break;
    case 'g': put_name(s, s->giver); break;
    case 'k': put_name(s, s->keeper); break;
    case 'q': put_name(s, s->asked); break;
    case 't': put_two(s, LOOKS[s->thing / COUNT(NOUNS)], " ", NOUNS[s->thing % COUNT(NOUNS)]); break;
    case 'p':
        put_two(s, PLACE_HEADS[s->place / COUNT(PLACE_TAILS)], "",
                PLACE_TAILS[s->place % COUNT(PLACE_TAILS)]);
        break;
    case 'd': put(s, DAYS[s->day]); break;
    case 'h': put(s, HOURS[s->hour]); break;
    case 'w': put(s, WEATHER[s->weather].began); break;
    case 'f': put(s, FOODS[pick(s, COUNT(FOODS))]); break;
    case 'x': put(s, ANIMALS[pick(s, COUNT(ANIMALS))]); break;
    default: break;
    }
}

/* Writes one sentence, or a question with its answer. */
static void say(story *s, const char *form) {
    put(s, s->fresh ? "" : " ");
    s->fresh = 0;
    s->last.at = s->out ? s->bytes : -1;
    s->last.sentence = s->sentences++;
    for (; *form; form++) {
        if (*form == '$') {
            put_slot(s, *++form);
        } else if (*form == '[') {
            s->in_answer = 1;
            s->answer_at = s->bytes;
            s->answer_len = 0;
        } else if (*form == ']') {
            s->in_answer = 0;
            s->answer[s->answer_len] = '\0';
        } else {
            put(s, (const char[]){*form, '\0'});
        }
    }
}

#define SAY_ONE_OF(s, table) say((s), (table)[pick((s), COUNT(table))])

/* ---- telling and asking -------------------------------------------------- */

/* Two waits in three are short, 2 to 31 sentences, the others go up to 4095;
 * within both kinds every octave is as common as the next. */
static int64_t draw_wait(story *s) {
    int octave = pick(s, 3) ? 1 + pick(s, 4) : 5 + pick(s, 7);
    return ((int64_t)1 << octave) + pick(s, 1 << octave);
}

static int tell_of_thing(story *s) {
    int i = pick(s, THINGS), tried = 0;
    while (s->things[i].fate != FREE) {
        if (++tried == THINGS) return 0;
        i = (i + 1) % THINGS;
    }
    thing *t = &s->things[i];
    s->thing = i;
    switch (pick(s, 4)) {
    case 0:
        SAY_ONE_OF(s, KEEP);
        t->fate = KEPT;
        t->keeper = s->actor;
        break;
    case 1:
        SAY_ONE_OF(s, GIVE);
        t->fate = GIVEN;
        t->giver = s->actor;
        t->keeper = s->other;
        break;
    default:
        t->place = s->place = pick(s, PLACES);
        SAY_ONE_OF(s, PUT);
        t->fate = PUT_DOWN;
        break;
    }
    t->told = s->last;
    t->due = s->sentences + draw_wait(s);
    return 1;
}

static int present(const story *s, int who) { return who == s->actor || who == s->other; }

#define ASK(s, table, plain) say((s), (table)[(plain) ? 0 : pick((s), COUNT(table))])

static void list_answer(story *s, telling told) {
    if (!s->facts || !s->out || told.at < 0) return;
    fprintf(s->facts, "%lld\t%lld\t%lld\t%s\n", (long long)told.at, (long long)s->answer_at,
            (long long)(s->last.sentence - told.sentence - 1), s->answer);
}

/* Asks back the thing that is longest overdue, if one is due. */
static int ask_thing(story *s) {
    thing *t = NULL;
    for (int i = 0; i < THINGS; i++) {
        thing *c = &s->things[i];
        if (c->fate == FREE || c->due > s->sentences || (t && t->due <= c->due)) continue;
        t = c;
        s->thing = i;
    }
    if (!t) return 0;
    s->place = t->place;
    s->keeper = t->keeper;
    s->giver = t->giver;
    if (t->fate == PUT_DOWN) SAY_ONE_OF(s, WHERE_THING);
    else if (t->fate == KEPT || pick(s, 2)) ASK(s, WHO_KEEPS, present(s, t->keeper));
    else ASK(s, WHO_GAVE, present(s, t->keeper) || present(s, t->giver));
    list_answer(s, t->told);
    t->fate = FREE;
    return 1;
}

static void ask_person(story *s) {
    int back = pick(s, 1 << pick(s, 7)); /* of the last sightings: often a late one */
    s->asked = s->seen[(s->sightings + RECENT - 1 - back) % RECENT];
    s->place = s->people[s->asked].place;
    ASK(s, WHERE_PERSON, present(s, s->asked));
    list_answer(s, s->people[s->asked].told);
}

static void be_at(story *s, int who, int place) {
    s->people[who].place = place;
    s->people[who].told = s->last;
    s->seen[s->sightings++ % RECENT] = who;
}

/* ---- scenes: a paragraph, two people, the next hour of the day ----------- */
static void open_scene(story *s) {
    s->hour = (s->hour + 1) % COUNT(HOURS);
    if (s->hour == 0) s->day = (s->day + 1) % COUNT(DAYS);
    s->weather = pick(s, COUNT(WEATHER));
    s->actor = pick(s, PEOPLE);
    s->other = (s->actor + 1 + pick(s, PEOPLE - 1)) % PEOPLE;
    s->place = pick(s, PLACES);
    SAY_ONE_OF(s, OPENING);
    be_at(s, s->actor, s->place);
    be_at(s, s->other, s->place);
}

static void go_on(story *s) {
    if (pick(s, 2)) { /* the other's turn */
        int other = s->other;
        s->other = s->actor;
        s->actor = other;
        s->named = 0;
    }
    int n = pick(s, 16);
    /* As much is asked as told, but at times there is nothing to ask. */
    if (n < 4 && tell_of_thing(s)) return;
    if (n >= 4 && n < 11 && ask_thing(s)) return;
    if (n == 11 || n == 12) {
        ask_person(s);
    } else if (n == 13) {
        s->place = pick(s, PLACES);
        SAY_ONE_OF(s, MOVE);
        be_at(s, s->actor, s->place);
    } else if (!pick(s, 8)) {
        say(s, WEATHER[s->weather].lasted);
    } else if (pick(s, 2)) {
        SAY_ONE_OF(s, TALK);
    } else {
        SAY_ONE_OF(s, DEED);
    }
}

static void tell(story *s, int64_t sentences, int64_t bytes) {
    while (s->sentences < sentences && s->bytes < bytes) {
        s->fresh = 1;
        open_scene(s);
        for (int left = 5 + pick(s, 8); left > 0 && s->bytes < bytes; left--) go_on(s);
        put(s, "\n");
    }
}

int main(int argc, char **argv) {
    static story s; /* zeroed */
    int listing = argc == 5 && strcmp(argv[1], "--facts") == 0;
    char **arg = argv + 1 + listing, *end_seed = NULL, *end_bytes = NULL;
    int64_t bytes = 0;
    if (argc == 3 || listing) {
        s.random = strtoull(arg[0], &end_seed, 10);
        bytes = strtoll(arg[1], &end_bytes, 10);
    }
    if (bytes < 1 || *end_seed || *end_bytes) {
        fprintf(stderr, "usage: story SEED BYTES\n       story --facts SEED BYTES FILE\n");
        return 2;
    }
    if (listing && !(s.facts = fopen(arg[2], "w"))) {
        fprintf(stderr, "story: cannot write %s: %s\n", arg[2], strerror(errno));
        return 1;
    }

    /* An endless story has no beginning: some of it is told in silence, so that
     * the first page asks as much about long ago as any other page does. */
    tell(&s, 20000, INT64_MAX);
    s.out = stdout;
    tell(&s, INT64_MAX, bytes);

    int failed = fflush(stdout) != 0 || ferror(stdout);
    if (s.facts) failed |= ferror(s.facts) | fclose(s.facts);
    if (failed) fprintf(stderr, "story: the text was not written in full\n");
    return failed ? 1 : 0;
}
