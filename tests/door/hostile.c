/* Macros that other headers are known to leave behind. */
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define near
#define far
#define small char
#define interface struct
#define I (-1)
#define ERROR 0
#define IN
#define OUT
#define DEBUG 1
#define EPSILON 1
#define PI 3
#define N 1
#define M 2
#define U 3
#define VF 4
#define VW 5
#define FMA 6
#define SIMD 7
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int main(void) { return smoke(); }
