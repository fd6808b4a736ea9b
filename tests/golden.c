/* golden.c: the bits themselves. Inputs are small integers over 1024, exactly representable and
   made without a library; outputs are hashed. A hash changes only when the arithmetic does: the
   table below is the same for every compiler, option, language and machine. Instruction sets with
   fused multiply-add share one column, those without it the other.

     golden            compares
     golden small      compares the small shapes only: for machines that are emulated
     golden --print    prints the table as it comes out here                                     */
#include "t.h"

#ifndef GOLDEN_SMALL
#define GOLDEN_SMALL 0 /* 1: small, where a program gets no arguments */
#endif

typedef struct shape {
  const char *name;
  int heads, kv, dim, dim_v, window, block, sinks;
  int type_k, type_v, rope, positions;
  float alibi, softcap;
  int tokens;
  int64_t start;
  int memory, feedback;
} shape;

static const shape shapes[] = {
  { "float32, head_dim 64", 8, 2, 64, 64, 100, 1, 4, LONGCTX_F32, LONGCTX_F32, LONGCTX_ROPE_HALF,
    LONGCTX_POS_CACHE, 0.0f, 0.0f, 300, 0, 0, 0 },
  { "float16, head_dim 128", 8, 2, 128, 128, 256, 1, 4, LONGCTX_F16, LONGCTX_F16,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 600, 0, 0, 0 },
  { "bfloat16, head_dim 96, in blocks", 6, 2, 96, 96, 128, 32, 0, LONGCTX_BF16, LONGCTX_BF16,
    LONGCTX_ROPE_INTERLEAVED, LONGCTX_POS_TEXT, 0.0f, 0.0f, 300, 1024, 0, 0 },
  { "int8, head_dim 128", 8, 2, 128, 128, 200, 1, 4, LONGCTX_Q8, LONGCTX_Q8, LONGCTX_ROPE_HALF,
    LONGCTX_POS_CACHE, 0.0f, 0.0f, 500, 0, 0, 0 },
  { "int8 keys, float16 values, head_dim 24", 4, 4, 24, 24, 70, 1, 130, LONGCTX_Q8, LONGCTX_F16,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 300, 0, 0, 0 },
  { "float16 keys, int8 values, softcap", 7, 1, 64, 40, 90, 1, 1, LONGCTX_F16, LONGCTX_Q8,
    LONGCTX_ROPE_INTERLEAVED, LONGCTX_POS_TEXT, 0.0f, 4.0f, 250, 7, 0, 0 },
  { "ALiBi, 6 heads", 6, 3, 24, 24, 80, 1, 4, LONGCTX_F32, LONGCTX_BF16, LONGCTX_ROPE_NONE,
    LONGCTX_POS_CACHE, 8.0f, 0.0f, 250, 0, 0, 0 },
  { "far out, head_dim 64", 4, 1, 64, 64, 600, 1, 4, LONGCTX_F16, LONGCTX_F16, LONGCTX_ROPE_HALF,
    LONGCTX_POS_CACHE, 0.0f, 0.0f, 900, (int64_t)1 << 40, 0, 0 },
  { "memory, linear, float16, head_dim 128", 8, 2, 128, 128, 64, 64, 4, LONGCTX_F16, LONGCTX_F16,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 300, 0, LONGCTX_MEMORY_LINEAR, 0 },
  { "memory, delta, int8, window of 3 blocks", 6, 2, 40, 24, 60, 20, 0, LONGCTX_Q8, LONGCTX_Q8,
    LONGCTX_ROPE_INTERLEAVED, LONGCTX_POS_TEXT, 0.0f, 0.0f, 250, 1000, LONGCTX_MEMORY_DELTA, 0 },
  { "memory, delta, float32 and bfloat16", 4, 4, 33, 50, 48, 24, 30, LONGCTX_F32, LONGCTX_BF16,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 250, 0, LONGCTX_MEMORY_DELTA, 0 },
  { "feedback, float16, head_dim 128", 8, 2, 128, 128, 128, 64, 4, LONGCTX_F16, LONGCTX_F16,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 300, 0, 0, 24 },
  { "feedback, int8, softcap, with memory", 6, 2, 40, 24, 40, 20, 0, LONGCTX_Q8, LONGCTX_Q8,
    LONGCTX_ROPE_INTERLEAVED, LONGCTX_POS_TEXT, 0.0f, 5.0f, 130, 1000, LONGCTX_MEMORY_DELTA, 9 },
  { "feedback, ALiBi, more than one tile", 4, 4, 33, 50, 200, 100, 30, LONGCTX_F32, LONGCTX_BF16,
    LONGCTX_ROPE_NONE, LONGCTX_POS_CACHE, 8.0f, 0.0f, 250, 0, 0, 70 },
  /* small: seconds where every instruction is emulated */
  { "small, float32", 4, 2, 16, 16, 21, 1, 4, LONGCTX_F32, LONGCTX_F32, LONGCTX_ROPE_HALF,
    LONGCTX_POS_CACHE, 0.0f, 0.0f, 90, 0, 0, 0 },
  { "small, float16, far out, ALiBi", 3, 1, 20, 12, 36, 12, 2, LONGCTX_F16, LONGCTX_F16,
    LONGCTX_ROPE_INTERLEAVED, LONGCTX_POS_TEXT, 8.0f, 0.0f, 90, (int64_t)1 << 40, 0, 0 },
  { "small, int8, bfloat16, softcap", 2, 2, 24, 8, 70, 1, 3, LONGCTX_Q8, LONGCTX_BF16,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 3.0f, 120, 7, 0, 0 },
  { "small, bfloat16, int8, odd dims", 2, 1, 13, 17, 30, 1, 0, LONGCTX_BF16, LONGCTX_Q8,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 90, 0, 0, 0 },
  { "small, a long window", 1, 1, 8, 4, 530, 1, 4, LONGCTX_F16, LONGCTX_Q8, LONGCTX_ROPE_HALF,
    LONGCTX_POS_CACHE, 0.0f, 0.0f, 600, 0, 0, 0 },
  { "small, memory, linear", 4, 2, 16, 16, 24, 24, 4, LONGCTX_F32, LONGCTX_F32,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 120, 0, LONGCTX_MEMORY_LINEAR, 0 },
  { "small, memory, delta, int8", 2, 1, 12, 20, 40, 20, 0, LONGCTX_Q8, LONGCTX_F16,
    LONGCTX_ROPE_INTERLEAVED, LONGCTX_POS_TEXT, 0.0f, 0.0f, 120, 1000, LONGCTX_MEMORY_DELTA, 0 },
  { "small, feedback with memory", 2, 2, 16, 12, 20, 10, 3, LONGCTX_F16, LONGCTX_F32,
    LONGCTX_ROPE_HALF, LONGCTX_POS_CACHE, 0.0f, 0.0f, 60, 0, LONGCTX_MEMORY_LINEAR, 5 },
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_SMALL = 8, CHUNK = 40 };

/* What the outputs of each shape hash to: with fused multiply-add, and without. */
static const uint64_t golden[N_SHAPES][2] = {
  { 0xf732fb3fef582df4u, 0x369daf60fa9ee117u },
  { 0x4f0380d591de792cu, 0x86f52948735b696cu },
  { 0x4767c677bce66b5eu, 0x034bb807371e9b0fu },
  { 0xb42a10055f0fa4fau, 0xf2d276148eff33a3u },
  { 0x5122b77df42c8f9fu, 0xed0d1f95ab918554u },
  { 0x19cd12af8295291fu, 0xb408e63fd34e0471u },
  { 0x15e1ee91588f20f1u, 0xc748397582fd315cu },
  { 0xbcb7e9e2b5fdc541u, 0x5fcb15a39fe1b689u },
  { 0x4a82b750921a4be1u, 0x496252074be13fc2u },
  { 0x877535ef36518a27u, 0x1b3847ce4e2bd2abu },
  { 0xfdff890c752fc769u, 0x87b2cc35fe1ac5c4u },
  { 0x3354964a945b9ed3u, 0x6b4aee5d0cea3be1u },
  { 0x563dd4e94c7f1ec0u, 0x3eef97f1f6a9f06du },
  { 0xb6fc909ffcf1810du, 0x24045e64b8b26e48u },
  { 0x8422e2a4379f1d33u, 0x8d13c628fb9ff3cfu },
  { 0x8f624181e600f81fu, 0x94c7787c0500a2f3u },
  { 0x536b6f6c5c7e02feu, 0x726995d0ed182de5u },
  { 0x0f8e6d62579c7d2bu, 0xcf9ef34dea925e49u },
  { 0x2195cb53186f0065u, 0x66fbacf3da6621bfu },
  { 0x81a1752dcfb7542du, 0x36aec01e9be546f5u },
  { 0x1869896a4c0f4b3du, 0xa0dbc99bd2c331c3u },
  { 0x223d5b2136e0b764u, 0xec790024dcc3d69cu },
};

static longctx_desc desc_of(const shape *s)
{
  longctx_desc d = longctx_desc_make(1, s->heads, s->kv, s->dim, s->window);
  d.head_dim_v = s->dim_v;
  d.block = s->block;
  d.sinks = s->sinks;
  d.max_batch = CHUNK;
  d.type_k = s->type_k;
  d.type_v = s->type_v;
  d.rope = s->rope;
  d.positions = s->positions;
  d.alibi_max_bias = s->alibi;
  d.softcap = s->softcap;
  d.memory = s->memory;
  d.feedback_len = s->feedback;
  if (s->dim % 2) d.rope_dims = s->dim - 1;
  return d;
}

static void fill(float *x, int n, uint64_t *seed)      /* -2 .. 2 in steps of 1/1024             */
{
  int i;
  for (i = 0; i < n; i++) x[i] = (float)((int)(t_u64(seed) >> 52) - 2048) / 1024.0f;
}

/* FNV-1a over the floats as little-endian bytes, wherever this runs. */
static uint64_t hash(uint64_t h, const float *x, int n)
{
  int i, b;
  for (i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, &x[i], sizeof u);
    for (b = 0; b < 4; b++) h = (h ^ ((u >> 8 * b) & 255u)) * 0x100000001b3u;
  }
  return h;
}

/* Inputs depend on the token alone, so chunks do not change them. */
static void fill_token(const shape *s, int t, float *q, float *k, float *v)
{
  uint64_t seed = (uint64_t)t * 77 + 5;
  fill(q, s->heads * s->dim, &seed);
  fill(k, s->kv * s->dim, &seed);
  fill(v, s->kv * s->dim_v, &seed);
}

/* Rows that are due attend, are set from the position's numbers, and attend again. */
static uint64_t meet(longctx *lc, const shape *s, uint64_t h)
{
  static float q[70 * 1024], k[70 * 512], v[70 * 512], out[70 * 1024];
  int i, set = longctx_position(lc) > s->start;
  for (i = 0; i < s->feedback; i++)
    fill_token(s, (int)(longctx_position(lc) % 1000) + 5000 + i, q + i * s->heads * s->dim,
               k + i * s->kv * s->dim, v + i * s->kv * s->dim_v);
  CHECK_EQ(longctx_feedback_attend(lc, 0, out), set ? LONGCTX_OK : LONGCTX_E_ORDER);
  if (set) h = hash(h, out, s->feedback * s->heads * s->dim_v);
  CHECK_EQ(longctx_feedback_set(lc, 0, q, k, v), LONGCTX_OK);
  CHECK_EQ(longctx_feedback_attend(lc, 0, out), LONGCTX_OK);
  return hash(h, out, s->feedback * s->heads * s->dim_v);
}

static uint64_t run_shape(const shape *s, int isa, int chunk)
{
  static float q[CHUNK * 1024], k[CHUNK * 512], v[CHUNK * 512], out[CHUNK * 1024];
  static const float logits[8] = { 1.0f, -2.0f, 0.5f, 0.0f, 3.0f, -0.25f, 1.5f, -1.0f };
  longctx_desc d = desc_of(s);
  longctx *lc = t_new(&d);
  uint64_t h = 0xcbf29ce484222325u;
  int t, i, n;
  CHECK_EQ(longctx_set_isa(lc, isa), LONGCTX_OK);
  CHECK_EQ(longctx_seek(lc, s->start), LONGCTX_OK);
  if (s->memory) CHECK_EQ(longctx_set_gate(lc, 0, logits), LONGCTX_OK);
  if (s->dim == 96) CHECK_EQ(longctx_set_sink_logits(lc, 0, logits), LONGCTX_OK);
  for (t = 0; t < s->tokens; t += n) {
    if (longctx_feedback_due(lc)) h = meet(lc, s, h);
    n = s->tokens - t < chunk ? s->tokens - t : chunk;
    if (n > longctx_room(lc)) n = longctx_room(lc);
    for (i = 0; i < n; i++)
      fill_token(s, t + i, q + i * s->heads * s->dim, k + i * s->kv * s->dim,
                 v + i * s->kv * s->dim_v);
    lc->fetch_alone = (int8_t)(t / chunk % 2);         /* both as on either maker's processors    */
    lc->on_intel = (int8_t)(t / chunk / 2 % 2);
    if (longctx_attend(lc, 0, n, q, k, v, out) != LONGCTX_OK ||
        longctx_commit(lc, n) != LONGCTX_OK)
      FAIL("refused");
    h = hash(h, out, n * s->heads * s->dim_v);
  }
  free(lc);
  return h;
}

static void check_isa(int isa, int from)
{
  const char *name = longctx_isa_name(isa);
  int i, chunk;
  for (i = from; i < N_SHAPES; i++)
    for (chunk = 1; chunk <= CHUNK; chunk += CHUNK - 1) {
      uint64_t got = run_shape(&shapes[i], isa, chunk);
      uint64_t want = golden[i][t_is_fused(name) ? 0 : 1];
      t_case("%s on %s, chunks of %d: %016llx instead of %016llx", shapes[i].name, name, chunk,
             (unsigned long long)got, (unsigned long long)want);
      CHECK(got == want);
    }
}

static uint64_t hash_of_family(const shape *s, int fused)
{
  int isa;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    if (t_is_fused(longctx_isa_name(isa)) == fused && t_have_isa(isa)) return run_shape(s, isa, 1);
  return 0;
}

static void print_table(void)
{
  int i;
  for (i = 0; i < N_SHAPES; i++)
    printf("  { 0x%016llxu, 0x%016llxu },\n", (unsigned long long)hash_of_family(&shapes[i], 1),
           (unsigned long long)hash_of_family(&shapes[i], 0));
}

int main(int argc, char **argv)
{
  int isa, small = GOLDEN_SMALL || (argc > 1 && strcmp(argv[1], "small") == 0);
  if (argc > 1 && strcmp(argv[1], "--print") == 0) {
    print_table();
    return 0;
  }
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++) {
    if (t_have_isa(isa)) check_isa(isa, small ? N_SHAPES - N_SMALL : 0);
    else printf("skipped: %s (not on this machine)\n", longctx_isa_name(isa));
  }
  return t_done();
}
