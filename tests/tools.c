/* tools.c: what depends on the machine, tried for machines that are not here: which instruction
   sets a processor runs, and how multipliers of integer dots are packed for each; and float16 as
   each set here rounds to it. */
#include "t.h"

#include <math.h>

/* ---- which instruction sets ------------------------------------------------------------------ */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__) && \
    !defined(LONGCTX_NO_SIMD) && !defined(LONGCTX_NO_DISPATCH)

enum { LEAF_1_ECX, LEAF_7_EBX, LEAF_7_ECX, XCR0, WORDS };

/* A bit, and from which level of instruction sets on it is needed. */
typedef struct feature { const char *name; int word, bit, level; } feature;

static const feature features[] = {
  { "AVX", LEAF_1_ECX, 28, 1 },    { "FMA", LEAF_1_ECX, 12, 1 },
  { "SSE kept", XCR0, 1, 1 },      { "AVX kept", XCR0, 2, 1 },
  { "F16C", LEAF_1_ECX, 29, 2 },   { "AVX2", LEAF_7_EBX, 5, 2 },
  { "AVX512F", LEAF_7_EBX, 16, 3 }, { "AVX512BW", LEAF_7_EBX, 30, 3 },
  { "AVX512VL", LEAF_7_EBX, 31, 3 }, { "AVX512VNNI", LEAF_7_ECX, 11, 3 },
  { "masks kept", XCR0, 5, 3 },    { "upper halves kept", XCR0, 6, 3 },
  { "upper 16 kept", XCR0, 7, 3 },
};
enum { FEATURES = sizeof features / sizeof *features };

static int level_of(const char *name)                  /* -1: no set of this machine             */
{
  if (strcmp(name, "scalar") == 0 || strcmp(name, "sse2") == 0) return 0;
  if (strcmp(name, "scalar-fma") == 0) return 1;
  if (strcmp(name, "avx2") == 0) return 2;
  return strcmp(name, "avx512") == 0 ? 3 : -1;
}

static int has(int isa, const unsigned *words)
{
  unsigned one[4] = { 0, 0, 0, 0 }, seven[4] = { 0, 0, 0, 0 };
  one[2] = words[LEAF_1_ECX];
  seven[1] = words[LEAF_7_EBX];
  seven[2] = words[LEAF_7_ECX];
  return lcx_has(isa, one, seven, words[XCR0]);
}

/* Whatever single bit is missing, just the sets that need it are off; and a processor that has
   nothing but one bit, or everything else, is not taken for more. */
static void test_features(void)
{
  int isa, f, g;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    int level = level_of(longctx_isa_name(isa));
    unsigned all[WORDS], none[WORDS] = { 0, 0, 0, 0 };
    if (level < 0) continue;
    t_case("%s", longctx_isa_name(isa));
    if (level == 0) CHECK(lcx_available(isa));
    for (f = 0; f < WORDS; f++) all[f] = ~0u;
    t_case("%s, all bits", longctx_isa_name(isa));
    CHECK_EQ(has(isa, all), 1);
    t_case("%s, no bits", longctx_isa_name(isa));
    CHECK_EQ(has(isa, none), level == 0);
    for (f = 0; f < FEATURES; f++) {
      unsigned some[WORDS], only[WORDS] = { 0, 0, 0, 0 };
      t_case("%s without %s", longctx_isa_name(isa), features[f].name);
      for (g = 0; g < WORDS; g++) some[g] = ~0u;
      some[features[f].word] &= ~(1u << features[f].bit);
      CHECK_EQ(has(isa, some), level < features[f].level);
      for (g = 0; g < FEATURES; g++)
        if (features[g].level <= level && g != f) only[features[g].word] |= 1u << features[g].bit;
      CHECK_EQ(has(isa, only), level < features[f].level);
      only[features[f].word] |= 1u << features[f].bit;
      CHECK_EQ(has(isa, only), 1);
    }
  }
}
#else
static void test_features(void) { printf("skipped: x86-64's instruction sets\n"); }
#endif

/* ---- multipliers of integer dots ------------------------------------------------------------- */

/* Four 14-bit integers packed in each of the ways of room 4, and unpacked as room 5's words do. */
static void test_pack(void)
{
  int m;
  for (m = -8191; m <= 8191; m++) {
    int16_t in[4], back[4];
    int32_t out[2];
    int i, wide = 0;
    in[0] = (int16_t)m;
    in[1] = (int16_t)-m;
    in[2] = (int16_t)(m / 3);
    in[3] = (int16_t)(m < 0 ? -8191 - m : 8191 - m);
    t_case("pack %d", m);
    lcx_pack(0, in, out);                              /* as they lie                            */
    CHECK_SAME(in, out, sizeof in);
    lcx_pack(1, in, out);                              /* even ones, odd ones; low half first    */
    for (i = 0; i < 4; i++) back[i] = (int16_t)((uint32_t)out[i & 1] >> (i / 2 * 16) & 0xffff);
    CHECK_SAME(in, back, sizeof in);
    lcx_pack(2, in, out);                              /* signed bytes: 128 * high + low         */
    for (i = 0; i < 4; i++) {
      int high = (int8_t)((uint32_t)out[0] >> 8 * i & 0xff);
      int low = (int8_t)((uint32_t)out[1] >> 8 * i & 0xff);
      back[i] = (int16_t)(128 * high + low);
      if (high < -64 || high > 64 || low < -64 || low > 63) wide++;
    }
    CHECK_SAME(in, back, sizeof in);
    CHECK_EQ(wide, 0);
  }
}

/* ---- float16 --------------------------------------------------------------------------------- */

/* The nearest float16, ties to even, no further than 65504 (IEEE 754, binary16), as a number. */
static double nearest_half(double x)
{
  int e;
  double unit;
  frexp(x, &e);
  unit = ldexp(1, (e < -13 ? -13 : e) - 11);
  x = nearbyint(x / unit) * unit;
  return x > 65504 ? 65504 : x < -65504 ? -65504 : x;
}

/* From below the least float16 to above the greatest: each of them, the middles to the next, and
   the float32 right beside those. */
static void test_narrow(void)
{
  enum { PARTS = 1024, KINDS = 4, MANY = 2 * PARTS * KINDS };
  static float x[MANY + 16];
  static uint16_t h[MANY + 16];
  int isa, e, m, i, wrong;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    if (!lcx_available(isa)) continue;
    for (e = -27; e <= 17; e++) {
      t_case("%s, 2^%d", longctx_isa_name(isa), e);
      for (m = 0; m < PARTS; m++) {
        float half = (float)ldexp(1 + (m + 0.5) / PARTS, e), *y = x + 2 * KINDS * m;
        y[0] = (float)ldexp(1 + (double)m / PARTS, e);
        y[1] = half;
        y[2] = nextafterf(half, 0);
        y[3] = nextafterf(half, 2 * half);
        for (i = 0; i < KINDS; i++) y[KINDS + i] = -y[i];
      }
      lcx_kernels_of(isa)->narrow(x, MANY, h);
      for (wrong = i = 0; i < MANY; i++)
        wrong += (double)lcx_f32_from_f16(h[i]) != nearest_half(x[i]) || h[i] >> 15 != (x[i] < 0);
      CHECK_EQ(wrong, 0);
    }
  }
}

/* what the 16 bits stand for */
static double half_value(unsigned h)
{
  int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
  double x = e > 0 ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
  return h >> 15 ? -x : x;
}

static double bf16_value(unsigned h)
{
  int e = (int)(h >> 7 & 255), m = (int)(h & 127);
  double x = e > 0 ? ldexp(128 + m, e - 134) : ldexp(m, -133);
  return h >> 15 ? -x : x;
}

/* Every finite float16 and bfloat16 through every set's words, with its sign: keys of 64 dims. */
static void test_widen(void)
{
  enum { DIMS = 64, TILE = 64, MANY = DIMS * TILE };
  static uint16_t h[2 * MANY + 64];
  static float x[MANY];
  int isa, type, first, i, wrong;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    for (type = LONGCTX_F16; type <= LONGCTX_BF16; type++)
      for (first = 0; lcx_available(isa) && first < 65536; first += MANY) {
        lcx_hull all = {0, TILE, 1};
        lcx_store st;
        lcx_span sp;
        t_case("%s, %d from %x", longctx_isa_name(isa), type, (unsigned)first);
        lcx_store_make(&st, type, type, DIMS, DIMS, TILE, 0);
        st.tiles = 1;
        sp = lcx_span_at(&st, (const unsigned char *)h, 0);
        for (i = 0; i < MANY; i++) h[i] = (uint16_t)(first + i);
        lcx_kernels_of(isa)->widen_keys(&st, &sp, all, x);
        for (wrong = i = 0; i < MANY; i++) {
          unsigned exponents = type == LONGCTX_F16 ? 0x7c00 : 0x7f80;
          double is = type == LONGCTX_F16 ? half_value(h[i]) : bf16_value(h[i]);
          if ((h[i] & exponents) == exponents) continue; /* none is ever stored */
          wrong += (double)x[i] != is || lcx_bits(x[i]) >> 31 != h[i] >> 15;
        }
        CHECK_EQ(wrong, 0);
      }
}

int main(void)
{
  test_features();
  test_pack();
  test_narrow();
  test_widen();
  return t_done();
}
