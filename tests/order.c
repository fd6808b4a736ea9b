/* order.c: every misuse has its code, and changes nothing: not one byte of the block. */
#include "text.h"

#include <limits.h>

enum { LAYERS = 3, TOKENS = 40, BATCH = 4 };

/* Three layers, the last one reads the first one's rows. */
static longctx_desc three_layers(longctx_layer *layers)
{
  longctx_desc d = longctx_desc_make(LAYERS, 4, 2, 8, 6);
  int l;
  d.sinks = 2;
  d.max_batch = BATCH;
  d.max_threads = 3;
  for (l = 0; l < LAYERS; l++) layers[l] = longctx_layer_make(&d);
  layers[2].kv_from = 0;
  d.layers = layers;
  return d;
}

/* A context in some condition, and a picture of its block to compare with. */
typedef struct subject { longctx *lc; void *picture; size_t bytes; text x; float *out; } subject;

static void take_picture(subject *s)
{
  memcpy(s->picture, (const void *)s->lc, s->bytes);
}

static subject make_subject(const longctx_desc *d, int tokens)
{
  subject s;
  s.x = text_make(d, TOKENS, 3);
  s.lc = t_new(d);
  s.bytes = longctx_size(d);
  s.picture = t_memory(s.bytes);
  s.out = text_out(&s.x);
  text_run(s.lc, &s.x, 0, tokens, 1, s.out);
  take_picture(&s);
  return s;
}

static void free_subject(subject *s)
{
  free(s->lc);
  free(s->picture);
  free(s->out);
  text_free(&s->x);
}

/* The call gave this code, and the block is what it was. */
#define REFUSED(s, call, code)                                   \
  do {                                                           \
    t_case("%s", #call);                                         \
    CHECK_EQ(call, code);                                        \
    CHECK_SAME((s)->picture, (const void *)(s)->lc, (s)->bytes); \
    if (code) t_bad_input("%s, line %d", #call, __LINE__);       \
  } while (0)

/* ---- arguments ------------------------------------------------------------------------------- */

static void test_attend_arguments(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  REFUSED(s, longctx_attend(NULL, 0, 1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, 1, NULL, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, 1, q, k, v, NULL), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, 1, q, NULL, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, 1, q, k, NULL, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, -1, 1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, LAYERS, 1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, INT_MAX, 1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, INT_MIN, 1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, -1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, INT_MIN, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, BATCH + 1, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, INT_MAX, q, k, v, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 0, BATCH + 1, q, NULL, NULL, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend(lc, 2, 1, q, k, v, out), LONGCTX_E_ARG);      /* it reads layer 0's  */
  REFUSED(s, longctx_attend(lc, 0, 0, q, k, v, out), LONGCTX_OK);         /* nothing to do       */
  REFUSED(s, longctx_attend(lc, 2, 0, q, NULL, NULL, out), LONGCTX_OK);
}

static void test_part_arguments(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  REFUSED(s, longctx_attend_part(NULL, 0, 1, q, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, NULL, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, NULL, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, NULL, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, v, NULL, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, LAYERS, 1, q, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, -1, 1, q, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, BATCH + 1, q, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, -1, q, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, v, out, -1, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, v, out, 2, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, v, out, 0, 0), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, v, out, 0, -1), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, k, v, out, INT_MAX, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 2, 1, q, k, v, out, 0, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(NULL, 0, 1, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(lc, -1, 1, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(lc, LAYERS, 1, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(lc, 0, -1, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(lc, 0, BATCH + 1, out), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(lc, 0, 1, NULL), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_part(lc, 0, 0, q, k, v, out, 1, 2), LONGCTX_OK); /* nothing to do    */
  REFUSED(s, longctx_attend_part(lc, 0, 0, q, k, v, out, 2, 2), LONGCTX_E_ARG);
  REFUSED(s, longctx_attend_join(lc, 0, 0, out), LONGCTX_OK);
}

static void test_other_arguments(subject *s)
{
  static const float logits[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
  static const float wrong[4] = { 0.0f, NAN, 0.0f, 0.0f };
  static const float above[4] = { 0.0f, 0.0f, 0.0f, INFINITY };
  longctx *lc = s->lc;
  int isa = 0;
  while (longctx_isa_name(isa) != NULL) isa++;
  REFUSED(s, longctx_commit(NULL, 1), LONGCTX_E_ARG);
  REFUSED(s, longctx_commit(lc, -1), LONGCTX_E_ARG);
  REFUSED(s, longctx_commit(lc, INT_MIN), LONGCTX_E_ARG);
  REFUSED(s, longctx_commit(lc, BATCH + 1), LONGCTX_E_ARG);
  REFUSED(s, longctx_commit(lc, INT_MAX), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_sink_logits(NULL, 0, logits), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_sink_logits(lc, -1, logits), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_sink_logits(lc, LAYERS, logits), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_sink_logits(lc, 0, wrong), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_sink_logits(lc, 0, above), LONGCTX_E_ARG);
  REFUSED(s, longctx_seek(lc, -1), LONGCTX_E_ARG);
  REFUSED(s, longctx_seek(NULL, 1), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_isa(NULL, 0), LONGCTX_E_ARG);
  REFUSED(s, longctx_set_isa(lc, isa), LONGCTX_E_ISA);
  REFUSED(s, longctx_set_isa(lc, -1), LONGCTX_E_ISA);
  REFUSED(s, longctx_set_isa(lc, INT_MAX), LONGCTX_E_ISA);
  REFUSED(s, longctx_set_isa(lc, INT_MIN), LONGCTX_E_ISA);
}

/* Questions about no context have harmless answers. */
static void test_null_questions(void)
{
  longctx_desc d = longctx_get_desc(NULL);
  t_case("questions about NULL");
  CHECK_EQ(longctx_position(NULL), 0);
  CHECK_EQ(longctx_room(NULL), 0);
  CHECK_EQ(longctx_feedback_due(NULL), 0);
  CHECK_EQ(longctx_state_size(NULL), 0);
  CHECK_EQ(longctx_isa(NULL), LONGCTX_E_ARG);
  CHECK_EQ(d.n_layers, 0);
  CHECK(d.layers == NULL);
  CHECK(longctx_feedback(NULL, 0) == NULL);
  longctx_reset(NULL);
}

/* ---- order ----------------------------------------------------------------------------------- */

/* Nothing attended since the last commit. */
static void test_order_closed(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q;
  float *out = s->out;
  REFUSED(s, longctx_commit(lc, 1), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend(lc, 0, 1, q, NULL, NULL, out), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend(lc, 2, 1, q, NULL, NULL, out), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend_part(lc, 0, 1, q, NULL, NULL, out, 0, 2), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend_join(lc, 0, 1, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);         /* there is nothing to drop               */
}

/* One layer after another: commit waits for every layer that writes, with enough rows. */
static void test_order_layers(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  int64_t t = longctx_position(lc);
  CHECK_EQ(longctx_attend(lc, 0, 3, q, k, v, out), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_commit(lc, 1), LONGCTX_E_ORDER);  /* layer 1 is missing                     */
  REFUSED(s, longctx_attend(lc, 1, 1, q, NULL, NULL, out), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend(lc, 0, 4, q, NULL, NULL, out), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend(lc, 2, 4, q, NULL, NULL, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend(lc, 1, 2, q, k, v, out), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_commit(lc, 3), LONGCTX_E_ORDER);  /* layer 1 has two rows only              */
  REFUSED(s, longctx_commit(lc, 4), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_position(lc), t);
  CHECK_EQ(longctx_commit(lc, 2), LONGCTX_OK);         /* layer 2 does not hold it up            */
  CHECK_EQ(longctx_position(lc), t + 2);
}

/* A second, shorter attend replaces the first one's rows: there are fewer now. */
static void test_order_shorter(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  CHECK_EQ(longctx_attend(lc, 0, 4, q, k, v, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend(lc, 1, 4, q, k, v, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend(lc, 1, 2, q, k, v, out), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_commit(lc, 4), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend(lc, 1, 3, q, NULL, NULL, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend(lc, 1, 2, q, NULL, NULL, out), LONGCTX_OK);
  CHECK_EQ(longctx_commit(lc, 2), LONGCTX_OK);
}

static void test_order_seek(subject *s)
{
  longctx *lc = s->lc;
  REFUSED(s, longctx_seek(lc, 0), LONGCTX_E_ORDER);
  REFUSED(s, longctx_seek(lc, longctx_position(lc)), LONGCTX_E_ORDER);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static void test_order_parts(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  CHECK_EQ(longctx_attend(lc, 1, 2, q, k, v, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, 1, 3), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_commit(lc, 2), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend_join(lc, 0, 2, out), LONGCTX_E_ORDER);        /* two parts missing   */
  REFUSED(s, longctx_attend_join(lc, 1, 2, out), LONGCTX_E_ORDER);        /* no parts there      */
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, 0, 3), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, 2, 3), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_commit(lc, 2), LONGCTX_E_ORDER);                     /* not joined yet      */
  REFUSED(s, longctx_attend_join(lc, 0, 1, out), LONGCTX_E_ORDER);        /* another batch       */
  REFUSED(s, longctx_attend_join(lc, 1, 2, out), LONGCTX_E_ORDER);        /* another layer       */
  CHECK_EQ(longctx_attend_join(lc, 0, 2, out), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_attend_join(lc, 0, 2, out), LONGCTX_E_ORDER);        /* once                */
  CHECK_EQ(longctx_commit(lc, 2), LONGCTX_OK);
}

/* a context in memory of its own, which free(lc) gives back */
static longctx *made(const longctx_desc *d)
{
  size_t bytes = longctx_size(d);
  longctx *lc = longctx_init(malloc(bytes), bytes, d);
  CHECK(lc != NULL);
  return lc;
}

/* Parts replace the rows of an earlier batch: unless they are joined, there is none. */
static void test_parts_replace(void)
{
  longctx_desc d = longctx_desc_make(2, 1, 1, 4, 16);
  float x[12] = {1, 2, 3, 4}, out[12];
  longctx *lc;
  t_case("commit between parts and join");
  d.max_batch = 3;
  d.max_threads = 2;
  lc = made(&d);
  if (!lc) return;
  CHECK_EQ(longctx_attend(lc, 0, 3, x, x, x, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend(lc, 1, 3, x, x, x, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, x, x, x, out, 0, 1), LONGCTX_OK);
  CHECK_EQ(longctx_commit(lc, 3), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_commit(lc, 1), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend_join(lc, 0, 2, out), LONGCTX_OK);
  CHECK_EQ(longctx_commit(lc, 3), LONGCTX_E_ORDER);   /* two rows now */
  CHECK_EQ(longctx_attend(lc, 0, 3, x, x, x, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, x, x, x, out, 0, 1), LONGCTX_OK);
  CHECK_EQ(longctx_attend(lc, 1, 3, x, x, x, out), LONGCTX_OK); /* forgets the part ... */
  CHECK_EQ(longctx_attend_join(lc, 0, 2, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_commit(lc, 3), LONGCTX_E_ORDER);   /* ... and the rows it replaced */
  CHECK_EQ(longctx_attend(lc, 0, 2, x, NULL, NULL, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend(lc, 0, 3, x, x, x, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 1, 2, x, NULL, NULL, out, 0, 1), LONGCTX_OK); /* only reads */
  CHECK_EQ(longctx_commit(lc, 3), LONGCTX_OK);
  free(lc);
}

/* Parts of a call that was given up may have stored its tokens, or may not: no join beside them. */
static void test_parts_left(void)
{
  longctx_desc d = longctx_desc_make(2, 4, 4, 2, 8);
  float x[8] = {1, 1, 1, 1, 1, 1, 1, 1}, y[8] = {50, 50, 50, 50, 50, 50, 50, 50}, out[8];
  longctx *lc;
  int p;
  t_case("join beside another call's parts");
  d.max_threads = 4;
  lc = made(&d);
  if (!lc) return;
  for (p = 0; p < 2; p++) CHECK_EQ(longctx_attend_part(lc, 0, 1, x, x, x, out, p, 2), LONGCTX_OK);
  for (p = 2; p < 4; p++) CHECK_EQ(longctx_attend_part(lc, 0, 1, x, x, y, out, p, 4), LONGCTX_OK);
  CHECK_EQ(longctx_attend_join(lc, 0, 1, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_commit(lc, 1), LONGCTX_E_ORDER);
  for (p = 0; p < 2; p++) CHECK_EQ(longctx_attend_part(lc, 0, 1, x, x, y, out, p, 4), LONGCTX_OK);
  CHECK_EQ(longctx_attend_join(lc, 0, 1, out), LONGCTX_OK); /* now it is one call */
  CHECK_SAME(out, y, sizeof out);

  for (p = 0; p < 2; p++) CHECK_EQ(longctx_attend_part(lc, 0, 1, x, x, x, out, p, 2), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 1, 1, x, x, x, out, 2, 4), LONGCTX_OK);
  CHECK_EQ(longctx_attend_join(lc, 0, 1, out), LONGCTX_E_ORDER); /* another layer's */
  CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);
  for (p = 0; p < 2; p++) CHECK_EQ(longctx_attend_part(lc, 0, 1, x, x, x, out, p, 2), LONGCTX_OK);
  CHECK_EQ(longctx_attend_join(lc, 0, 1, out), LONGCTX_OK);
  CHECK_SAME(out, x, sizeof out);
  free(lc);
}

/* Parts that wait for their join have written rows: an empty context cannot be moved under them. */
static void test_seek_under_parts(void)
{
  longctx_desc d = longctx_desc_make(1, 1, 1, 4, 16);
  float x[4] = {1, 2, 3, 4}, out[4];
  longctx *lc;
  t_case("seek between parts and join");
  lc = made(&d);
  if (!lc) return;
  CHECK_EQ(longctx_attend_part(lc, 0, 1, x, x, x, out, 0, 1), LONGCTX_OK);
  CHECK_EQ(longctx_seek(lc, 4), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend_join(lc, 0, 1, out), LONGCTX_OK);
  CHECK_EQ(longctx_seek(lc, 4), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);
  CHECK_EQ(longctx_seek(lc, 4), LONGCTX_OK);
  free(lc);
}

/* Parts that disagree whether they write are no call. */
static void test_mixed_parts(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  CHECK_EQ(longctx_attend(lc, 0, 2, q, k, v, out), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, NULL, NULL, out, 1, 2), LONGCTX_OK);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, 0, 2), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_attend_part(lc, 0, 2, q, NULL, NULL, out, 1, 2), LONGCTX_E_ORDER);
  REFUSED(s, longctx_attend_join(lc, 0, 2, out), LONGCTX_E_ORDER);
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, 1, 2), LONGCTX_OK);
  CHECK_EQ(longctx_attend_join(lc, 0, 2, out), LONGCTX_OK);
}

/* Any one part may be the missing one, whatever stands in its place from before. */
static void test_missing_part(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  int missing, p;
  for (missing = 0; missing < 2; missing++) {
    for (p = 0; p < 2; p++)
      if (p != missing)
        CHECK_EQ(longctx_attend_part(lc, 0, 3, q, k, v, out, p, 2), LONGCTX_OK);
    take_picture(s);
    REFUSED(s, longctx_attend_join(lc, 0, 3, out), LONGCTX_E_ORDER);
    CHECK_EQ(longctx_attend_part(lc, 0, 3, q, k, v, out, missing, 2), LONGCTX_OK);
    CHECK_EQ(longctx_attend_join(lc, 0, 3, out), LONGCTX_OK);
  }
}

/* What an earlier call left behind is not a part of this one. */
static void test_stale_parts(subject *s)
{
  longctx *lc = s->lc;
  const float *q = s->x.q, *k = s->x.k, *v = s->x.v;
  float *out = s->out;
  int p;
  CHECK_EQ(longctx_attend(lc, 0, 2, q, k, v, out), LONGCTX_OK);
  for (p = 1; p < 3; p++)
    CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, p, 3), LONGCTX_OK);
  take_picture(s);
  REFUSED(s, longctx_attend_join(lc, 0, 2, out), LONGCTX_E_ORDER);        /* the first is missing */
  CHECK_EQ(longctx_attend_part(lc, 0, 2, q, k, v, out, 0, 3), LONGCTX_OK);
  CHECK_EQ(longctx_commit(lc, 0), LONGCTX_OK);                            /* dropped              */
  take_picture(s);
  REFUSED(s, longctx_attend_join(lc, 0, 2, out), LONGCTX_E_ORDER);
  REFUSED(s, longctx_commit(lc, 2), LONGCTX_E_ORDER);
}

/* ---- after all that -------------------------------------------------------------------------- */

/* The subject has seen every misuse and still gives the bits of one that has not. */
static void test_still_right(const longctx_desc *d)
{
  subject s = make_subject(d, 9), twin = make_subject(d, 9);
  test_attend_arguments(&s);
  test_part_arguments(&s);
  test_other_arguments(&s);
  test_order_closed(&s);
  test_order_seek(&s);
  text_run(s.lc, &s.x, 9, TOKENS, 3, s.out);
  text_run(twin.lc, &twin.x, 9, TOKENS, 3, twin.out);
  t_case("still right");
  CHECK_SAME(s.out, twin.out, sizeof(float) * text_out_floats(&s.x));
  free_subject(&s);
  free_subject(&twin);
}

static void test_all_orders(const longctx_desc *d)
{
  int tokens;
  for (tokens = 0; tokens < 22; tokens += 7) {
    subject s = make_subject(d, tokens);
    test_order_layers(&s);
    free_subject(&s);
    s = make_subject(d, tokens);
    test_order_shorter(&s);
    free_subject(&s);
    s = make_subject(d, tokens);
    test_order_parts(&s);
    free_subject(&s);
    s = make_subject(d, tokens);
    test_missing_part(&s);
    free_subject(&s);
    s = make_subject(d, tokens);
    test_mixed_parts(&s);
    free_subject(&s);
    s = make_subject(d, tokens);
    test_stale_parts(&s);
    free_subject(&s);
  }
}

/* ---- strings --------------------------------------------------------------------------------- */

static void test_strings(void)
{
  static const int codes[] = { LONGCTX_OK, LONGCTX_E_ARG, LONGCTX_E_DESC, LONGCTX_E_SPACE,
                               LONGCTX_E_ORDER, LONGCTX_E_FORMAT, LONGCTX_E_VERSION,
                               LONGCTX_E_MISMATCH, LONGCTX_E_IO, LONGCTX_E_ISA };
  const size_t n = sizeof codes / sizeof *codes;
  size_t i, j;
  char version[40];
  t_case("strings");
  CHECK_EQ(LONGCTX_OK, 0);
  CHECK_EQ(LONGCTX_E_ARG, -1);
  for (i = 0; i < n; i++) {
    CHECK(longctx_error(codes[i]) != NULL && longctx_error(codes[i])[0] != '\0');
    for (j = 0; j < i; j++) {
      CHECK(codes[i] != codes[j] && codes[i] < 0);
      CHECK(strcmp(longctx_error(codes[i]), longctx_error(codes[j])) != 0);
    }
  }
  CHECK(longctx_error(1) != NULL);
  CHECK(longctx_error(-1000) != NULL);
  CHECK(longctx_error(INT_MIN) != NULL);
  CHECK(longctx_error(INT_MAX) != NULL);
  snprintf(version, sizeof version, "%d.%d.%d", LONGCTX_VERSION_MAJOR, LONGCTX_VERSION_MINOR,
           LONGCTX_VERSION_PATCH);
  CHECK(strcmp(longctx_version(), version) == 0);
  CHECK(longctx_isa_name(-1) == NULL);
  CHECK(longctx_isa_name(0) != NULL);
  CHECK(longctx_isa_name(INT_MAX) == NULL);
}

static void test_isa(const longctx_desc *d)
{
  static const char *const best[] = { "avx512", "avx2", "neon", "wasm", "sse2", "scalar-fma",
                                      "scalar" };
  longctx *lc = t_new(d);
  int isa, given = longctx_isa(lc), able = 0, i;
  longctx_desc one = *d;
  size_t bytes = longctx_size(d), n;
  unsigned char *state = t_state(lc, &n);
  void *mem;
  FILE *file;
  one.max_threads = 1;                                 /* load's, which may need more            */
  if (bytes < longctx_size(&one)) bytes = longctx_size(&one);
  mem = t_memory(bytes);
  t_case("isa");
  CHECK(longctx_isa_name(given) != NULL);
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    int r = longctx_set_isa(lc, isa);
    if (r != LONGCTX_OK) { CHECK_EQ(r, LONGCTX_E_ISA); continue; }
    able++;
    CHECK_EQ(longctx_isa(lc), isa);
    longctx_reset(lc);                                 /* reset and copy keep it ...             */
    CHECK_EQ(longctx_isa(lc), isa);
    CHECK_EQ(longctx_copy(mem, bytes, lc), LONGCTX_OK);
    CHECK_EQ(longctx_isa((longctx *)mem), isa);
    CHECK(longctx_open(mem, bytes, NULL) != NULL);     /* ... open and load choose anew          */
    CHECK_EQ(longctx_isa((longctx *)mem), given);
    file = t_file(state, n);
    CHECK(longctx_load(mem, bytes, file, NULL) != NULL);
    CHECK_EQ(longctx_isa((longctx *)mem), given);
    fclose(file);
  }
  for (i = 0; i < 7; i++)
    for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
      if (strcmp(longctx_isa_name(isa), best[i]) == 0 && longctx_set_isa(lc, isa) == LONGCTX_OK) {
        CHECK_EQ(given, isa);
        i = 7;
        break;
      }
  CHECK(able >= 1);
  CHECK_EQ(longctx_set_isa(lc, given), LONGCTX_OK);
  free(mem);
  free(state);
  free(lc);
}

int main(void)
{
  longctx_layer layers[LAYERS];
  longctx_desc d = three_layers(layers);
  test_still_right(&d);
  test_all_orders(&d);
  test_parts_replace();
  test_parts_left();
  test_seek_under_parts();
  test_null_questions();
  test_strings();
  test_isa(&d);
  return t_done();
}
