/* matrix.h - matrices that multiply vectors, of floats or as small as a file has them.

   Quantised weights stay quantised in memory. A product unpacks a small tile of them to floats
   and then does what it would do with floats: so the result has the same bits as if the whole
   matrix had been unpacked before.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this (or a header that does). */
#ifndef EXAMPLES_MATRIX_H
#define EXAMPLES_MATRIX_H

#include <stddef.h>
#include <stdint.h>

/* How weights are stored; the numbers are GGUF's. A block is `cols` neighbours of one row in
   `bytes` bytes, little-endian. half is IEEE 754's 16 bits, d, m, x the weight:
     Q8_0  half d; 32 x int8 q                                x = d q
     Q4_0  half d; 32 x 4 bits q (low halves first)           x = d (q - 8)
     Q4_1  half d, m; 32 x 4 bits q                           x = d q + m
     Q4_K  half d, m; 8 x 6 bits s, t packed; 256 x 4 bits q  x = d s q - m t
     Q6_K  256 x 4 bits, 256 x 2 bits q; 16 x int8 s; half d  x = d s (q - 32) */
enum {
  MATRIX_F32 = 0, MATRIX_F16 = 1, MATRIX_Q4_0 = 2, MATRIX_Q4_1 = 3, MATRIX_Q8_0 = 8,
  MATRIX_Q4_K = 12, MATRIX_Q6_K = 14, MATRIX_BF16 = 30
};

typedef struct matrix_format {
  int type, cols, bytes;
  const char *name;
} matrix_format;

/* NULL for what is not read here */
const matrix_format *matrix_format_of(uint32_t type);

/* A matrix [rows][cols]: y[rows] = W x[cols]. Its rows are kept in panels of MATRIX_PANEL. A panel
   of floats is [cols][width] (the last may be narrower than MATRIX_PANEL), one of packed rows
   [bytes of a row][MATRIX_PANEL] (the last is filled up with zeros): one pass over a panel reads
   memory in order and adds to `width` sums of several tokens at once, which is vector code without
   reordering an addition. */
enum { MATRIX_PANEL = 32, MATRIX_TILE = 32, MATRIX_TOKENS = 6, MATRIX_BATCH = 64 };

typedef struct matrix {
  int rows, cols;
  float *panels;          /* [rows * cols] when the type is MATRIX_F32 */
  int type;
  unsigned char *packed;  /* otherwise; cols is a multiple of the format's */
} matrix;

/* y [n][rows] = x [n][cols] times W transposed. Each element of y is one sum in the order of
   cols, so its bits depend neither on n nor on the number of threads. */
void matrix_apply(const matrix *w, int n, const float *x, float *y);

/* y [cols] = row `row` of W */
void matrix_row(const matrix *w, int row, float *y);

/* How many bytes the weights of a matrix take in memory. */
uint64_t matrix_bytes(const matrix *w);

/* Puts one row into its place: floats, or the bytes as the format has them. */
void matrix_set_row(matrix *w, int row, const float *x);
void matrix_set_packed_row(matrix *w, int row, const unsigned char *bytes);

/* 1 when no weight of a packed row is infinite or NaN */
int matrix_packed_row_is_finite(const matrix *w, const unsigned char *bytes);

#ifdef ENGINE_IMPLEMENTATION
#include <string.h>

/* ==== formats ==== */

const matrix_format *matrix_format_of(uint32_t type)
{
  static const matrix_format known[] = {
    { MATRIX_F32, 1, 4, "F32" },       { MATRIX_F16, 1, 2, "F16" },
    { MATRIX_BF16, 1, 2, "BF16" },     { MATRIX_Q8_0, 32, 34, "Q8_0" },
    { MATRIX_Q4_0, 32, 18, "Q4_0" },   { MATRIX_Q4_1, 32, 20, "Q4_1" },
    { MATRIX_Q4_K, 256, 144, "Q4_K" }, { MATRIX_Q6_K, 256, 210, "Q6_K" },
  };
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if ((uint32_t)known[i].type == type) return &known[i];
  return NULL;
}

static size_t matrix_row_bytes(const matrix *w)
{
  const matrix_format *f = matrix_format_of((uint32_t)w->type);
  return (size_t)(w->cols / f->cols) * (size_t)f->bytes;
}

uint64_t matrix_bytes(const matrix *w)
{
  uint64_t rows = (uint64_t)w->rows;
  if (w->type != MATRIX_F32) rows = (rows + MATRIX_PANEL - 1) / MATRIX_PANEL * MATRIX_PANEL;
  return rows * matrix_row_bytes(w);
}

/* ==== tiles: packed weights [.][MATRIX_PANEL] to floats [MATRIX_TILE][MATRIX_PANEL] ====
   Byte k of a block's rows lies at packed[k * MATRIX_PANEL], row after row. */

typedef float matrix_tile[MATRIX_TILE][MATRIX_PANEL];

/* Halves to floats, exactly: exponent and digits move to a float's place, where they stand for
   2^112 times too little. What is infinite or NaN never comes here. */
static void unpack_halves(const unsigned char *restrict packed, float *restrict value)
{
  for (int j = 0; j < MATRIX_PANEL; j++) {
    uint32_t half = (uint32_t)packed[j] | (uint32_t)packed[MATRIX_PANEL + j] << 8;
    uint32_t bits = (half & 0x8000) << 16 | (half & 0x7fff) << 13;
    float small;
    memcpy(&small, &bits, 4);
    value[j] = small * 0x1p112f;
  }
}

static void unpack_f16(const unsigned char *restrict packed, int cols, matrix_tile tile)
{
  for (int i = 0; i < cols; i++) unpack_halves(packed + 2 * i * MATRIX_PANEL, tile[i]);
}

static void unpack_bf16(const unsigned char *restrict packed, int cols, matrix_tile tile)
{
  for (int i = 0; i < cols; i++) {
    const unsigned char *low = packed + 2 * i * MATRIX_PANEL, *high = low + MATRIX_PANEL;
    for (int j = 0; j < MATRIX_PANEL; j++) {
      uint32_t bits = (uint32_t)low[j] << 16 | (uint32_t)high[j] << 24;
      memcpy(&tile[i][j], &bits, 4);
    }
  }
}

static void unpack_q8_0(const unsigned char *restrict packed, float (*restrict tile)[MATRIX_PANEL])
{
  float d[MATRIX_PANEL];
  unpack_halves(packed, d);
  for (int i = 0; i < MATRIX_TILE; i++) {
    const unsigned char *q = packed + (2 + i) * MATRIX_PANEL;
    for (int j = 0; j < MATRIX_PANEL; j++) tile[i][j] = d[j] * (float)((q[j] ^ 128) - 128);
  }
}

/* sixteen bytes of two weights each: x = d (q - zero) + m */
static void unpack_q4(const unsigned char *restrict packed, const float *restrict d, int zero,
                      const float *restrict m, float (*restrict tile)[MATRIX_PANEL])
{
  for (int i = 0; i < MATRIX_TILE / 2; i++) {
    const unsigned char *q = packed + i * MATRIX_PANEL;
    float *low = tile[i], *high = tile[i + MATRIX_TILE / 2];
    int both[MATRIX_PANEL]; /* loops over one type each: so they become good vector code */
    for (int j = 0; j < MATRIX_PANEL; j++) both[j] = q[j];
    for (int j = 0; j < MATRIX_PANEL; j++) low[j] = d[j] * (float)((both[j] & 15) - zero) + m[j];
    for (int j = 0; j < MATRIX_PANEL; j++) high[j] = d[j] * (float)((both[j] >> 4) - zero) + m[j];
  }
}

static void unpack_q4_0(const unsigned char *packed, matrix_tile tile)
{
  float d[MATRIX_PANEL], m[MATRIX_PANEL] = { 0 };
  unpack_halves(packed, d);
  unpack_q4(packed + 2 * MATRIX_PANEL, d, 8, m, tile);
}

static void unpack_q4_1(const unsigned char *packed, matrix_tile tile)
{
  float d[MATRIX_PANEL], m[MATRIX_PANEL];
  unpack_halves(packed, d);
  unpack_halves(packed + 2 * MATRIX_PANEL, m);
  unpack_q4(packed + 4 * MATRIX_PANEL, d, 0, m, tile);
}

/* Part p of Q4_K's eight has the 6-bit numbers s and t: of the first four parts each lies in one
   of twelve bytes, of the others four bits lie there and two more in the first eight's tops. */
static void unpack_q4_k_scales(const unsigned char *restrict packed, int part, float *restrict d,
                               float *restrict m)
{
  const unsigned char *s = packed + (4 + part % 4) * MATRIX_PANEL, *t = s + 4 * MATRIX_PANEL;
  const unsigned char *st = t + 4 * MATRIX_PANEL;
  unpack_halves(packed, d);
  unpack_halves(packed + 2 * MATRIX_PANEL, m);
  for (int j = 0; j < MATRIX_PANEL; j++) {
    int scale = part < 4 ? s[j] & 63 : (st[j] & 15) | s[j] >> 6 << 4;
    int least = part < 4 ? t[j] & 63 : st[j] >> 4 | t[j] >> 6 << 4;
    d[j] *= (float)scale;
    m[j] *= (float)least;
  }
}

static void unpack_q4_k(const unsigned char *restrict packed, int part,
                        float (*restrict tile)[MATRIX_PANEL])
{
  float d[MATRIX_PANEL], m[MATRIX_PANEL];
  int shift = part % 2 * 4;
  unpack_q4_k_scales(packed, part, d, m);
  for (int i = 0; i < MATRIX_TILE; i++) {
    const unsigned char *q = packed + (16 + part / 2 * 32 + i) * MATRIX_PANEL;
    for (int j = 0; j < MATRIX_PANEL; j++)
      tile[i][j] = d[j] * (float)(q[j] >> shift & 15) - m[j];
  }
}

/* Half h of Q6_K's two holds four parts: their low four bits in 64 bytes, the parts 0 and 1 in the
   low, 2 and 3 in the high halves of a byte; their high two bits in 32 bytes, one pair a part. */
static void unpack_q6_k(const unsigned char *restrict packed, int part,
                        float (*restrict tile)[MATRIX_PANEL])
{
  float d[MATRIX_PANEL];
  int half = part / 4, of_half = part % 4, shift = of_half / 2 * 4;
  unpack_halves(packed + 208 * MATRIX_PANEL, d);
  for (int i = 0; i < MATRIX_TILE; i++) {
    const unsigned char *low = packed + (64 * half + of_half % 2 * 32 + i) * MATRIX_PANEL;
    const unsigned char *high = packed + (128 + 32 * half + i) * MATRIX_PANEL;
    const unsigned char *s = packed + (192 + 8 * half + 2 * of_half + i / 16) * MATRIX_PANEL;
    for (int j = 0; j < MATRIX_PANEL; j++) {
      int q = (low[j] >> shift & 15) | (high[j] >> 2 * of_half & 3) << 4;
      tile[i][j] = d[j] * (float)((s[j] ^ 128) - 128) * (float)(q - 32);
    }
  }
}

/* columns col .. col + cols - 1 of the panel whose first row is `first`; cols <= MATRIX_TILE */
static void matrix_unpack(const matrix *w, int first, int col, int cols, matrix_tile tile)
{
  const matrix_format *f = matrix_format_of((uint32_t)w->type);
  size_t at = (size_t)first * matrix_row_bytes(w);
  const unsigned char *packed =
    w->packed + at + (size_t)(col / f->cols) * (size_t)f->bytes * MATRIX_PANEL;
  int part = col % f->cols / MATRIX_TILE;
  switch (w->type) {
  case MATRIX_F16: unpack_f16(packed, cols, tile); break;
  case MATRIX_BF16: unpack_bf16(packed, cols, tile); break;
  case MATRIX_Q8_0: unpack_q8_0(packed, tile); break;
  case MATRIX_Q4_0: unpack_q4_0(packed, tile); break;
  case MATRIX_Q4_1: unpack_q4_1(packed, tile); break;
  case MATRIX_Q4_K: unpack_q4_k(packed, part, tile); break;
  case MATRIX_Q6_K: unpack_q6_k(packed, part, tile); break;
  }
}

/* ==== products ==== */

/* A vector register of floats, where the compiler has such a type. Plain loops would do, but gcc
   12 keeps the sums of more than one token in memory. */
#if defined __GNUC__ && !defined __TINYC__
#if defined __AVX512F__
typedef float matrix_lanes __attribute__((vector_size(64)));
#elif defined __AVX__
typedef float matrix_lanes __attribute__((vector_size(32)));
#else
typedef float matrix_lanes __attribute__((vector_size(16)));
#endif
#else
typedef float matrix_lanes;
#endif
enum { MATRIX_LANES = sizeof(matrix_lanes) / sizeof(float) };

static inline matrix_lanes lanes_at(const float *x)
{
  matrix_lanes v;
  memcpy(&v, x, sizeof v);
  return v;
}

/* n tokens x [n][cols], `apart` floats from each other, times two registers of columns out of rows
   [cols][MATRIX_PANEL], added to as much of sums [n][MATRIX_PANEL]. Inlined below with a constant
   n: 2 n sums, two products and a number of x fill the sixteen registers that most machines have. */
static inline void matrix_add(const float *rows, int cols, int n, const float *x, int apart,
                              float *sums)
{
  matrix_lanes low[MATRIX_TOKENS], high[MATRIX_TOKENS];
  for (int t = 0; t < n; t++) {
    low[t] = lanes_at(sums + t * MATRIX_PANEL);
    high[t] = lanes_at(sums + t * MATRIX_PANEL + MATRIX_LANES);
  }
  for (int i = 0; i < cols; i++, rows += MATRIX_PANEL)
    for (int t = 0; t < n; t++) {
      low[t] += x[(size_t)t * (size_t)apart + (size_t)i] * lanes_at(rows);
      high[t] += x[(size_t)t * (size_t)apart + (size_t)i] * lanes_at(rows + MATRIX_LANES);
    }
  for (int t = 0; t < n; t++) {
    memcpy(sums + t * MATRIX_PANEL, &low[t], sizeof low[t]);
    memcpy(sums + t * MATRIX_PANEL + MATRIX_LANES, &high[t], sizeof high[t]);
  }
}

/* the same for one token and all columns, for the last panel's width, too */
static inline void matrix_add_one(const float *restrict rows, int cols, int width,
                                  const float *restrict x, float *restrict sums)
{
  for (int i = 0; i < cols; i++, rows += width)
    for (int j = 0; j < width; j++) sums[j] += x[i] * rows[j];
}

/* the same for up to MATRIX_BATCH tokens */
static void matrix_add_all(const float *rows, int cols, int width, int n, const float *x,
                           int apart, float (*sums)[MATRIX_PANEL])
{
  for (int i = 0, many; i < n; i += many) {
    const float *at = x + (size_t)i * (size_t)apart;
    int few = width < MATRIX_PANEL || n - i < 2;
    many = few ? 1 : n - i < MATRIX_TOKENS ? 2 : MATRIX_TOKENS;
    if (width < MATRIX_PANEL) matrix_add_one(rows, cols, width, at, sums[i]);
    else if (many == 1) matrix_add_one(rows, cols, MATRIX_PANEL, at, sums[i]);
    for (int j = 0; many > 1 && j < MATRIX_PANEL; j += 2 * MATRIX_LANES)
      if (many == 2) matrix_add(rows + j, cols, 2, at, apart, sums[i] + j);
      else matrix_add(rows + j, cols, MATRIX_TOKENS, at, apart, sums[i] + j);
  }
}

static int matrix_width(const matrix *w, int first_row)
{
  int rest = w->rows - first_row;
  return rest < MATRIX_PANEL ? rest : MATRIX_PANEL;
}

/* y's columns first .. first + width - 1, for up to MATRIX_BATCH tokens */
static void matrix_panel(const matrix *w, int first, int n, const float *x, float *y)
{
  float sums[MATRIX_BATCH][MATRIX_PANEL];
  int width = matrix_width(w, first), cols = w->cols;
  memset(sums, 0, (size_t)n * sizeof sums[0]);
  if (w->type == MATRIX_F32) {
    const float *rows = w->panels + (size_t)first * (size_t)cols;
    matrix_add_all(rows, cols, width, n, x, cols, sums);
  } else {
    matrix_tile tile;
    for (int i = 0, many; i < cols; i += many) {
      many = cols - i < MATRIX_TILE ? cols - i : MATRIX_TILE;
      matrix_unpack(w, first, i, many, tile);
      matrix_add_all(tile[0], many, MATRIX_PANEL, n, x + i, cols, sums);
    }
  }
  for (int t = 0; t < n; t++)
    memcpy(y + (size_t)t * (size_t)w->rows + first, sums[t], (size_t)width * sizeof(float));
}

void matrix_apply(const matrix *w, int n, const float *x, float *y)
{
#ifdef _OPENMP
#pragma omp parallel for if ((double)n * w->rows * w->cols > 2e5)
#endif
  for (int r = 0; r < w->rows; r += MATRIX_PANEL)
    for (int i = 0, many; i < n; i += many) {
      many = n - i < MATRIX_BATCH ? n - i : MATRIX_BATCH;
      matrix_panel(w, r, many, x + (size_t)i * (size_t)w->cols, y + (size_t)i * (size_t)w->rows);
    }
}

/* ==== single rows ==== */

static void matrix_packed_row(const matrix *w, int row, float *y)
{
  matrix_tile tile;
  for (int i = 0, many; i < w->cols; i += many) {
    many = w->cols - i < MATRIX_TILE ? w->cols - i : MATRIX_TILE;
    matrix_unpack(w, row - row % MATRIX_PANEL, i, many, tile);
    for (int k = 0; k < many; k++) y[i + k] = tile[k][row % MATRIX_PANEL];
  }
}

void matrix_row(const matrix *w, int row, float *y)
{
  int first = row - row % MATRIX_PANEL, width = matrix_width(w, first);
  if (w->type != MATRIX_F32) {
    matrix_packed_row(w, row, y);
    return;
  }
  const float *panel = w->panels + (size_t)first * (size_t)w->cols;
  for (int i = 0; i < w->cols; i++) y[i] = panel[(size_t)i * (size_t)width + (size_t)(row - first)];
}

void matrix_set_row(matrix *w, int row, const float *x)
{
  int first = row - row % MATRIX_PANEL, width = matrix_width(w, first);
  float *panel = w->panels + (size_t)first * (size_t)w->cols;
  for (int i = 0; i < w->cols; i++) panel[(size_t)i * (size_t)width + (size_t)(row - first)] = x[i];
}

void matrix_set_packed_row(matrix *w, int row, const unsigned char *bytes)
{
  int lane = row % MATRIX_PANEL;
  size_t n = matrix_row_bytes(w);
  unsigned char *panel = w->packed + (size_t)(row - lane) * n;
  for (size_t i = 0; i < n; i++) panel[i * MATRIX_PANEL + (size_t)lane] = bytes[i];
}

/* Only numbers of 16 bits can be infinite: all weights of F16 and BF16, the scales of others. */
int matrix_packed_row_is_finite(const matrix *w, const unsigned char *bytes)
{
  const matrix_format *f = matrix_format_of((uint32_t)w->type);
  int first = w->type == MATRIX_Q6_K ? 208 : 0;
  int count = w->type == MATRIX_Q4_1 || w->type == MATRIX_Q4_K ? 2 : 1;
  int exponent = w->type == MATRIX_BF16 ? 0x7f80 : 0x7c00;
  for (int i = 0; i < w->cols / f->cols; i++, bytes += f->bytes)
    for (int k = first; k < first + 2 * count; k += 2)
      if (((bytes[k] | bytes[k + 1] << 8) & exponent) == exponent) return 0;
  return 1;
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_MATRIX_H */
