/* immintrin.h: AVX-512's intrinsics by SIMDe (Debian: libsimde-dev), so that longctx.h's AVX-512
   pass runs where the machine has none: two AVX2 halves for each vector. Found before the
   compiler's own by -isystem; for builds with -mavx2 -mfma -mf16c and LONGCTX_NO_DISPATCH. It shows
   that the words mean what they should, not what a compiler makes of them. */
#ifndef TESTS_AVX512_H
#define TESTS_AVX512_H
#include_next <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

/* what SIMDe 0.7.4 lacks */
static inline simde__m512 avx512_float(simde__m512i a)
{
  simde__m512_private r;
  simde__m512i_private x = simde__m512i_to_private(a);
  for (int i = 0; i < 16; ++i) r.f32[i] = (float)x.i32[i];
  return simde__m512_from_private(r);
}
static inline simde__m512i avx512_widen(__m256i a)
{
  simde__m512i_private r;
  uint16_t x[16];
  _mm256_storeu_si256((__m256i *)x, a);
  for (int i = 0; i < 16; ++i) r.i32[i] = x[i];
  return simde__m512i_from_private(r);
}
static inline simde__m512 avx512_half(__m256i a)
{
  simde__m512_private r;
  r.m256[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
  r.m256[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
  return simde__m512_from_private(r);
}
static inline __m256i avx512_to_half(simde__m512 a)
{
  simde__m512_private x = simde__m512_to_private(a);
  return _mm256_set_m128i(_mm256_cvtps_ph(x.m256[1], 0), _mm256_cvtps_ph(x.m256[0], 0));
}
static inline __m128i avx512_bytes(simde__m512i a)
{
  simde__m512i_private x = simde__m512i_to_private(a);
  uint8_t r[16];
  for (int i = 0; i < 16; ++i) r[i] = (uint8_t)x.i32[i];
  return _mm_loadu_si128((const __m128i *)r);
}
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_ph
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_ps(a) avx512_float(a)
#define _mm512_cvtepu16_epi32(a) avx512_widen(a)
#define _mm512_cvtph_ps(a) avx512_half(a)
#define _mm512_cvtps_ph(a, nearest) avx512_to_half(a)
#define _mm512_cvtepi32_epi8(a) avx512_bytes(a)

/* longctx.h chooses by these, and asks the compiler for instructions that are not there */
#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1
#define __AVX512VNNI__ 1
#undef LCX_KEEP
#define LCX_KEEP(t) ((void)0)
#undef LCX_TARGET
#define LCX_TARGET(list)
#endif
