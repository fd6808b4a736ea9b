/* intrin.h: MSVC's dialect as clang can speak it, so that the branches of longctx.h for MSVC are
   compiled and run. Use: -include tests/msvc/intrin.h -I tests/msvc -fms-extensions, with every
   instruction set on (MSVC asks for none). What MSVC itself makes of them it does not show. */
#ifndef TESTS_MSVC_H
#define TESTS_MSVC_H
#include <cpuid.h>
#include <errno.h>
#include <float.h>
#include <immintrin.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void msvc_cpuidex(int *r, int leaf, int sub)
{
  __cpuid_count(leaf, sub, r[0], r[1], r[2], r[3]);
}
#define __cpuidex msvc_cpuidex

#undef __clang__
#undef __GNUC__
#undef __x86_64__
#undef __FMA__
#define _MSC_VER 1938
#define _M_X64 100
#endif
