/* kernels.c: what a stored type does to a value, for every value that matters and on every
   instruction set. With a window of one token the output is the value as it was stored, so the
   public functions suffice: no private name is needed here. */
#include "oracle.h"
#include "text.h"

/* ---- a value through the cache --------------------------------------------------------------- */

enum { LANES = 256, HEADS = 8, BATCH = LANES * HEADS };

typedef struct mirror { longctx *lc; float in[BATCH], out[BATCH]; int n; } mirror;

static mirror *mirror_new(int type, int isa)
{
  longctx_desc d = longctx_desc_make(1, HEADS, HEADS, 1, 1);
  mirror *m = (mirror *)t_memory(sizeof *m);
  d.head_dim_v = LANES;
  d.rope = LONGCTX_ROPE_NONE;
  d.type_v = type;
  m->lc = t_new(&d);
  m->n = 0;
  CHECK_EQ(longctx_set_isa(m->lc, isa), LONGCTX_OK);
  return m;
}

static void mirror_free(mirror *m)
{
  free(m->lc);
  free(m);
}

static void reflect(mirror *m)                         /* out = in, as it was stored             */
{
  static const float one[HEADS] = { 1, 1, 1, 1, 1, 1, 1, 1 };
  memset(m->in + m->n, 0, sizeof(float) * (size_t)(BATCH - m->n));
  if (longctx_attend(m->lc, 0, 1, one, one, m->in, m->out) != LONGCTX_OK ||
      longctx_commit(m->lc, 1) != LONGCTX_OK)
    FAIL("attend refused");
  m->n = 0;
}

/* ---- 16-bit types: correctly rounded, saturating --------------------------------------------- */

typedef struct tally { mirror *m; double (*want)(double); float limit; long wrong, seen; } tally;

static void settle(tally *t)
{
  int i, n = t->m->n;
  reflect(t->m);
  for (i = 0; i < n; i++) {
    double want = t->want((double)t->m->in[i]);
    t->seen++;
    if (fabs((double)t->m->out[i] - want) <= 0.0) continue;
    if (t->wrong++ < 3)
      printf("  %a became %a, nearest is %a\n", (double)t->m->in[i], (double)t->m->out[i], want);
  }
}

static void feed(tally *t, float x)
{
  if (!(fabsf(x) <= t->limit)) return;
  t->m->in[t->m->n++] = x;
  if (t->m->n == BATCH) settle(t);
}

static float from_bits(uint32_t u)
{
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

static uint32_t to_bits(float x)
{
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static void feed_around(tally *t, float x)             /* x and the floats next to it            */
{
  uint32_t u = to_bits(x);
  feed(t, x);
  feed(t, from_bits(u + 1));
  if (u & 0x7fffffffu) feed(t, from_bits(u - 1));
}

/* Every representable value, every midpoint between neighbours, and the floats beside both. */
static void feed_boundaries(tally *t, const float *value, int n)
{
  int i;
  for (i = 0; i < n; i++) {
    feed_around(t, value[i]);
    feed_around(t, -value[i]);
    if (i + 1 < n) {
      float mid = (float)(0.5 * ((double)value[i] + (double)value[i + 1]));
      feed_around(t, mid);
      feed_around(t, -mid);
    }
  }
}

static void feed_random(tally *t, long n)              /* any bit pattern, and the usual range   */
{
  uint64_t seed = 99;
  long i;
  for (i = 0; i < n; i++) {
    uint64_t u = t_u64(&seed);
    if (i & 1) feed(t, from_bits((uint32_t)u));
    else feed(t, from_bits((uint32_t)(u & 0x8fffffffu) | 0x30000000u));
  }
  feed(t, FLT_MAX);
  feed(t, -FLT_MAX);
  feed(t, FLT_MIN);
  feed(t, from_bits(1));
}

static float half_value(int h)                         /* 0 .. 0x7bff: the finite halves         */
{
  int e = h >> 10, f = h & 1023;
  return (float)(e ? ldexp(1024 + f, e - 25) : ldexp(f, -24));
}

static void test_16_bits(const char *name, int type, double (*want)(double), float limit,
                         const float *value, int n, int isa, long random)
{
  tally t = { NULL, NULL, 0.0f, 0, 0 };
  t.m = mirror_new(type, isa);
  t.want = want;
  t.limit = limit;
  t_case("%s on %s", name, longctx_isa_name(isa));
  feed_boundaries(&t, value, n);
  feed_random(&t, random);
  settle(&t);
  CHECK_EQ(t.wrong, 0);
  CHECK(t.seen >= 9L * n);
  printf("%s on %s: %ld values, %ld wrong\n", name, longctx_isa_name(isa), t.seen, t.wrong);
  mirror_free(t.m);
}

static void test_f16(int isa, long random)
{
  static float value[0x7c00];
  int h;
  for (h = 0; h < 0x7c00; h++) value[h] = half_value(h);
  test_16_bits("float16", LONGCTX_F16, oracle_f16, FLT_MAX, value, 0x7c00, isa, random);
}

static void test_bf16(int isa, long random)
{
  static float value[0x7f80];
  uint32_t h;
  for (h = 0; h < 0x7f80u; h++) value[h] = from_bits(h << 16);
  test_16_bits("bfloat16", LONGCTX_BF16, oracle_bf16, FLT_MAX, value, 0x7f80, isa, random);
}

/* ---- float32: nothing is lost ---------------------------------------------------------------- */

static double itself(double x) { return x; }

static void test_f32(int isa)
{
  tally t = { NULL, itself, FLT_MAX, 0, 0 };
  t.m = mirror_new(LONGCTX_F32, isa);
  t_case("float32 on %s", longctx_isa_name(isa));
  feed_random(&t, 1L << 18);
  settle(&t);
  CHECK_EQ(t.wrong, 0);
  mirror_free(t.m);
}

/* An infinity and a NaN in v are stored as the type's largest number. */
static void test_no_numbers(int isa)
{
  static const double most[4] = { FLT_MAX, 65504.0, 0x1.fep127, FLT_MAX };
  static const float bad[3] = { INFINITY, -INFINITY, NAN };
  int type, i;
  for (type = 0; type < 4; type++) {
    mirror *m = mirror_new(type, isa);
    memcpy(m->in, bad, sizeof bad);
    m->n = 3;
    t_case("no numbers, type %d on %s", type, longctx_isa_name(isa));
    reflect(m);
    for (i = 0; i < 3; i++)
      CHECK_NEAR(m->out[i] / most[type], i == 1 ? -1.0 : 1.0, type == LONGCTX_Q8 ? 1e-6 : 0.0);
    mirror_free(m);
  }
}

/* ---- int8: one scale a row ------------------------------------------------------------------- */

/* Every output within half a step of its input, the largest one kept, zero rows kept. */
static void test_q8_row(mirror *m, float size, uint64_t *seed)
{
  int h, i, far = 0;
  for (i = 0; i < BATCH; i++) m->in[i] = size * (float)(2.0 * t_unit(seed) - 1.0);
  for (i = 0; i < LANES; i++) m->in[LANES + i] = 0.0f; /* the second head's row is all zero      */
  m->n = BATCH;
  reflect(m);
  for (h = 0; h < HEADS; h++) {
    const float *x = m->in + h * LANES, *y = m->out + h * LANES;
    double top = 0.0, step;
    for (i = 0; i < LANES; i++) top = fmax(top, fabs((double)x[i]));
    step = top / 127.0;
    for (i = 0; i < LANES; i++)
      if (!(fabs((double)y[i] - (double)x[i]) <= step * 0.5002)) far++;
    for (i = 0; i < LANES; i++)
      if (fabs((double)x[i]) >= top && !(fabs((double)y[i] - (double)x[i]) <= top * 1e-6)) far++;
  }
  CHECK_EQ(far, 0);
}

static void test_q8(int isa)
{
  static const float sizes[] = { 1.0f, 3.7f, 1e-3f, 1e-20f, 1e-30f, 1e5f, 1e20f, 1e28f };
  mirror *m = mirror_new(LONGCTX_Q8, isa);
  uint64_t seed = 8;
  int i, k;
  for (i = 0; i < 8; i++)
    for (k = 0; k < 20; k++) {
      t_case("int8 on %s, size %g", longctx_isa_name(isa), (double)sizes[i]);
      test_q8_row(m, sizes[i], &seed);
    }
  mirror_free(m);
}

/* ---- every instruction set ------------------------------------------------------------------- */

int main(void)
{
  int isa, first = 1;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    long random = first ? 1L << 24 : 1L << 19;
    if (!t_have_isa(isa)) {
      printf("skipped: %s (not on this machine)\n", longctx_isa_name(isa));
      continue;
    }
    test_f16(isa, random);
    test_bf16(isa, random);
    test_f32(isa);
    test_q8(isa);
    test_no_numbers(isa);
    first = 0;
  }
  return t_done();
}
