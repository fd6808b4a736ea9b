/* tools.c: what depends on the machine, tried for machines that are not here: which instruction
   sets a processor runs, and how multipliers of integer dots are packed for each; float16 as each
   set here rounds to it; bfloat16's largest numbers, and a caller's frequencies to the last bit. */
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

/* The makers' names as leaf 0 of cpuid spells them: registers b, d, c in that order. */
static void test_maker(void)
{
  static const char *const names[] = { "GenuineIntel", "AuthenticAMD", "XenuineIntel",
                                       "GenuXXXXntel", "GenuineIXXXX" };
  unsigned r[4];
  int i;
  for (i = 0; i < (int)(sizeof names / sizeof *names); i++) {
    t_case("made by %s", names[i]);
    r[0] = 22;
    memcpy(&r[1], names[i], 4);
    memcpy(&r[3], names[i] + 4, 4);
    memcpy(&r[2], names[i] + 8, 4);
    CHECK_EQ(lcx_is_intel(r), i == 0);
  }
  CHECK_EQ(lcx_fetches_alone(1 << 20), 0);             /* what a core's own cache holds          */
  lcx_cpuid(0, r);
  CHECK_EQ(lcx_fetches_alone(1 << 24), lcx_is_intel(r));
  CHECK_EQ(lcx_on_intel(), lcx_is_intel(r));
}
#else
static void test_maker(void) { }
static void test_features(void) { printf("skipped: x86-64's instruction sets\n"); }
#endif

/* ---- multipliers of integer dots ------------------------------------------------------------- */

/* dim d of a query as this set's integer dots read it from its quads */
static int unpacked(int isa, const int32_t *quads, int d)
{
  const char *name = longctx_isa_name(isa);
  uint32_t first = (uint32_t)quads[d / 4 * 2], second = (uint32_t)quads[d / 4 * 2 + 1];
  int i = d % 4;
  int16_t m[4];
  if (strcmp(name, "avx512") == 0)                     /* bytes: 128 * high + low                */
    return 128 * (int8_t)(first >> 8 * i & 0xff) + (int8_t)(second >> 8 * i & 0xff);
  if (strncmp(name, "scalar", 6) != 0 && strcmp(name, "neon") != 0)     /* even dims, odd dims    */
    return (int16_t)((i & 1 ? second : first) >> (i / 2 * 16) & 0xffff);
  memcpy(m, quads + d / 4 * 2, sizeof m);              /* shorts as they lie, in any byte order   */
  return m[i];
}

/* What overflowed in rotation packs as 0, and adds up as what is packed. */
static void test_no_number(void)
{
  static float q[70 + 16], scale[1];
  static int32_t qi[36], shift[1];
  lcx_work w;
  int isa, at, i;
  memset(&w, 0, sizeof w);
  w.n = 1, w.head_dim = 70, w.q[LCX_WINDOW] = q, w.qi = qi, w.qi_scale = scale, w.qi_shift = shift;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    if (!lcx_available(isa)) continue;
    for (at = 0; at < 4 * 70; at++) {                  /* a NaN hides what a lane held before    */
      int sum = 0, sign = at % 2 ? -1 : 1, bad = at / 4;
      t_case("%s: no number in dim %d, way %d", longctx_isa_name(isa), bad, at % 4);
      for (i = 0; i < 70; i++) q[i] = i % 16 == bad % 16 && i < bad ? (float)sign * 3e38f : 1.0f;
      q[bad] = at % 4 < 2 ? NAN : (float)sign * INFINITY;
      lcx_kernels_of(isa)->quantise_q(&w);
      for (i = 0; i < 70; i++) sum += unpacked(isa, qi, i);
      CHECK_EQ(unpacked(isa, qi, bad), 0);
      CHECK_EQ(shift[0], -128 * sum);
    }
  }
}

/* Rows of 14-bit integers whose scale is 1 come back as they were, behind them zeros, and nothing
   further is written; all integers, and rows that end anywhere in a vector. */
static void test_quantise_q(void)
{
  enum { MOST = 8191, ROWS = 2, DIMS = 70, INTS = (DIMS + 3) / 4 * 2, GUARD = 0x55aa55aa };
  static float q[ROWS * DIMS + 16], scale[ROWS];
  static int32_t qi[ROWS * INTS + 1], shift[ROWS];
  lcx_work w;
  int isa, r, d, m, i;
  memset(&w, 0, sizeof w);
  w.n = ROWS, w.q[LCX_WINDOW] = q, w.qi = qi, w.qi_scale = scale, w.qi_shift = shift;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    if (!lcx_available(isa)) continue;
    for (m = -MOST, d = 1; m <= MOST; m += d - 1, d = d % DIMS + 1) {
      int ints = (d + 3) / 4 * 2, wrong = 0;
      t_case("%s: %d dims from %d", longctx_isa_name(isa), d, m);
      w.head_dim = d;
      for (i = 0; i < ROWS * d + 16; i++) q[i] = NAN;
      for (r = 0; r < ROWS; r++)
        for (i = 0; i < d; i++)
          q[r * d + i] = (float)(i == d - 1 || m + i > MOST ? MOST : r ? -(m + i) : m + i);
      for (i = 0; i <= ROWS * ints; i++) qi[i] = GUARD;
      lcx_kernels_of(isa)->quantise_q(&w);
      for (r = 0; r < ROWS; r++) {
        int sum = 0;
        for (i = 0; i < 2 * ints; i++) {
          int want = i < d ? (int)q[r * d + i] : 0;
          wrong += unpacked(isa, qi + r * ints, i) != want;
          sum += want;
        }
        wrong += shift[r] != -128 * sum || scale[r] != 1;
      }
      CHECK_EQ(wrong, 0);
      CHECK_EQ(qi[ROWS * ints], GUARD);
    }
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
        lcx_span_at(&st, (const unsigned char *)h, 0, &sp);
        sp.fetch_alone = sp.fetch_widen = 0;
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

/* bfloat16 from 2^96 up: the numbers themselves, the middles between two, the floats beside both;
   beyond the largest one all are that one, with their sign. */
static void test_large_bf16(void)
{
  uint32_t h;
  int sign;
  t_case("bfloat16, large");
  for (h = 0x6f80; h < 0x7f80; h++)
    for (sign = 0; sign < 2; sign++) {
      uint32_t s = (uint32_t)sign << 31, is = h | s >> 16, next = h == 0x7f7f ? is : is + 1;
      CHECK_EQ(lcx_bf16_from_f32(lcx_float(h << 16 | s)), is);
      CHECK_EQ(lcx_bf16_from_f32(lcx_float(h << 16 | 1 | s)), is);
      CHECK_EQ(lcx_bf16_from_f32(lcx_float(h << 16 | 0x7fff | s)), is);
      CHECK_EQ(lcx_bf16_from_f32(lcx_float(h << 16 | 0x8000 | s)), h & 1 ? next : is);
      CHECK_EQ(lcx_bf16_from_f32(lcx_float(h << 16 | 0x8001 | s)), next);
      CHECK_EQ(lcx_bf16_from_f32(lcx_float(h << 16 | 0xffff | s)), next);
    }
}

/* A frequency in radians becomes 2^64 / (2 pi) of them, rounded down, modulo 2^64. */
static void test_frequencies(void)
{
  const uint64_t turn = 0x28be60db9391054au;           /* 2^64 / (2 pi)                          */
  double x = 1;
  int i;
  t_case("frequencies");
  for (i = 0; i < 64; i++, x /= 2) CHECK_EQ(lcx_freq_step(x), turn >> i);
  for (i = 0, x = 1; i < 20; i++, x *= 2) {
    CHECK_EQ(lcx_freq_step(x), turn << i);
    CHECK_EQ(lcx_freq_step(-x), 0 - (turn << i));
    CHECK_EQ(lcx_freq_step(1.5 * x), (turn << i) + (turn >> 1 << i));
  }
  CHECK_EQ(lcx_freq_step(1 + DBL_EPSILON), turn + (turn >> 52));
  CHECK_EQ(lcx_freq_step(0.5 + DBL_EPSILON / 2), (turn >> 1) + (turn >> 53));
}

/* The high half of a product, from the halves of its factors by other ways than the header's. */
static void test_mulhi(void)
{
  uint64_t seed = 7, a, b;
  int i, k;
  t_case("high halves of products");
  CHECK_EQ(lcx_mulhi(0x1ffffffffu, 0x100000001u), 2);  /* one carry from the middle, by one bit  */
  for (i = 0; i < 20000; i++) {
    uint32_t f[2][2], limb[4] = { 0, 0, 0, 0 };
    a = t_u64(&seed) | (i % 3 ? 0 : 0xffffffff00000000u), b = t_u64(&seed) | (i % 5 ? 0 : ~0u);
    f[0][0] = (uint32_t)a, f[0][1] = (uint32_t)(a >> 32);
    f[1][0] = (uint32_t)b, f[1][1] = (uint32_t)(b >> 32);
    for (k = 0; k < 4; k++) {                          /* long multiplication, limb by limb      */
      uint64_t sum = (uint64_t)f[0][k / 2] * f[1][k % 2];
      int at = k / 2 + k % 2;
      for (; sum != 0 && at < 4; at++) {
        sum += limb[at];
        limb[at] = (uint32_t)sum;
        sum >>= 32;
      }
    }
    CHECK_EQ(lcx_mulhi(a, b), (uint64_t)limb[3] << 32 | limb[2]);
  }
}

int main(void)
{
  test_features();
  test_maker();
  test_quantise_q();
  test_no_number();
  test_narrow();
  test_widen();
  test_large_bf16();
  test_frequencies();
  test_mulhi();
  return t_done();
}
