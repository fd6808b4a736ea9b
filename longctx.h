/* longctx.h 1.1.15 - an endless context in a fixed amount of memory, for any transformer.

   One C99 / C++11 header, libc only. It replaces the attention loop of a forward pass: give it each
   layer's q, k, v, and from then on memory and time per token never grow.

     sliding or block window + attention sinks        StreamingLLM, arXiv 2309.17453
     compressive memory of what left the window       Infini-attention, arXiv 2404.07143
     feedback rows, a working memory that loops       TransformerFAM, arXiv 2404.09173
     float32 / float16 / bfloat16 / int8 keys and values, rollback of drafts, save and restore
     the same bits for any chunking, any thread count, every SIMD path with fused multiply-add

   QUICK START

     #define LONGCTX_IMPLEMENTATION                     // in one .c file
     #include "longctx.h"

     longctx_desc d = longctx_desc_make(n_layers, n_heads, n_kv_heads, head_dim, 1020);
     d.sinks = 4;                                       // 4 + 1020: StreamingLLM's usual cache
     d.max_batch = 64;                                  // up to 64 prompt tokens at a time
     size_t bytes = longctx_size(&d);                   // 0: ask longctx_check(&d)
     longctx *lc = longctx_init(malloc(bytes), bytes, &d);
     for (;;) {                                         // one token at a time
       for (int l = 0; l < n_layers; ++l)               // q, k, v un-rotated: the header rotates
         longctx_attend(lc, l, 1, q[l], k[l], v[l], out[l]);
       longctx_commit(lc, 1);                           // time advances by one token
     }

   THE ROOMS (search for "== 6 KERNELS ==")

      1 MANUAL     what it promises, what it asks for
      2 DOOR       types and functions, each with its contract
     ---- the rest is compiled where LONGCTX_IMPLEMENTATION is defined ----
      3 TOOLS      compiler layer, exact integers, conversions
      4 TILES      how keys and values lie in memory; queries in flight
      5 WORDS      the vector words, one block per instruction set
      6 KERNELS    the arithmetic, written once in vector words
      7 PASSES     rooms 5 and 6, once per instruction set; which one runs
      8 PLAN       desc -> layout: checks, sizes, offsets
      9 WINDOW     where each token lies, what a query sees, positions
     10 MEMORY     folding what leaves the window, recalling it
     11 FEEDBACK   rows that every token sees, rewritten by the caller at each block's end
     12 STATE      init, open, copy, save, restore
     13 ATTEND     attend, parts, commit
     14 ANSWERS    facts about a context, error texts, names
     15 BACK DOOR  private names removed, changelog, licence

   A room calls only rooms before it. Public names: longctx_, LONGCTX_. Private: lcx_, LCX_, and the
   words' macros v_, vi_, vq_, vw_, which exist only in rooms 5 and 6. */

#ifndef LCX_PASS /* this file includes itself once per instruction set: see room 7 */
#ifndef LONGCTX_H
#define LONGCTX_H

/* ============================================================================================ */
/* == 1 MANUAL ==                                                                               */
/* What the library promises and what it asks for; room 2 has every function's contract.        */

/* BUILD (define before including; all but IMPLEMENTATION and STATIC the same in every file)

     LONGCTX_IMPLEMENTATION   the code: in exactly one file, ideally with nothing else in it
     LONGCTX_STATIC           a private copy in this file (with LONGCTX_IMPLEMENTATION)
     LONGCTX_NO_STDIO         omits longctx_save, longctx_load, longctx_restore and <stdio.h>
     LONGCTX_NO_SIMD          scalar code only
     LONGCTX_NO_DISPATCH      one instruction set, the best the compiler's flags allow; the file no
                              longer includes itself, so it can be pasted into another
     LONGCTX_NO_OPENMP        serial even when compiled with OpenMP
     LONGCTX_FILENAME         "this file's name", if it was renamed
     LONGCTX_ALLOW_FAST_MATH  compile even under -ffast-math: finite numbers come out right, but not
                              bit for bit; NaN and infinity go undetected. Without it -ffast-math
                              is an error, as is any part of it that the compiler reveals
                              (-ffinite-math-only; gcc's -freciprocal-math)
     LONGCTX_ASSERT(x)        checks internal invariants; off by default

   STORAGE
     All state of all layers lives in one block that you provide: longctx_size() bytes at any
     address malloc could return (64-byte alignment is fastest, by up to a fifth). No malloc, no
     globals, no pointers inside: memcpy + longctx_open moves it, longctx_copy forks it, a static
     array holds it (LONGCTX_STATIC_SIZE). The library never frees or resizes it. A call takes at
     most 1.8 KB of stack with gcc 12 -O2 on x86-64; without optimisation, vector code takes many
     times that.

   WINDOW, SINKS
     `window` is the most keys a query sees, its own included; sinks come on top. No key is seen
     twice: a sink within the window's reach is seen as a sink. With block B > 1 the window moves in
     blocks aligned to position 0: the query at t sees from (t/B + 1)*B - window on. The first
     `sinks` tokens stay for ever, in float32. They keep a model trained on full attention fluent;
     they do not remember what left the window. Keep window + sinks within the length the model was
     trained on: more is not refused, only wrong.

   POSITIONS
     Keys are rotated once, at their absolute position, and never touched again; the query is
     rotated twice, once for the window and once for the sinks. Under LONGCTX_POS_CACHE the sinks
     see the query at its index among the keys it sees (from 0, sinks first): at first its place in
     the text, never more than sinks + window - 1. As RoPE sees only differences, this is exactly
     StreamingLLM's rule. LONGCTX_POS_TEXT keeps true distances. Angles are 64-bit fractions of a
     turn, so distances inside the window are as exact at position 2^40 as at 1. Positions end at
     2^62.

   MEMORY
     Infini-attention (arXiv 2404.07143). With desc.memory, tokens that leave the window are folded,
     a block at a time, into two sums per KV head, M [head_dim][head_dim_v] and z [head_dim]:
       LINEAR   M += s(k)' v                              s(x) = ELU(x) + 1, element by element;
       DELTA    M += s(k)' (v - (s(k) M) / (s(k) z))      k and q un-rotated, q unscaled
       both     z += s(k)
       recall = (s(q) M) / (s(q) z)      out = g recall + (1 - g) attention
     Queries, and DELTA's correction, read M and z as the last block's end left them; 0/0 is 0, and
     desc.memory_first says whether such a recall is mixed in at all. Each query head's gate g =
     sigmoid(logit) (longctx_set_gate) starts closed, g = 0: bit for bit as without memory. A model
     must be trained with it; any other gains nothing. window = block is the paper's segment. With a
     longer window memory holds what left it; sinks never leave, so they are never folded. A kv_from
     layer reads its source's memory: with a smaller window of its own it misses what lies between.
     Tokens are folded as stored, rotated back: float16, bfloat16 and int8 fold what they kept. A k
     or v that is not finite or, as stored, reaches 2^22 (in float16 its largest number, 65504)
     keeps its token out of that KV head's memory. M and z are compensated float32 sums: after 10^9
     tokens each one still counts. DELTA is as published: a pair written twice is recalled halved.
     While a block fills, commit folds the one that will leave at its end, 16 tokens at a time: no
     block's end is slow. Chunks and threads change no bit.

   FEEDBACK
     TransformerFAM (arXiv 2404.09173). A layer keeps F = desc.feedback_len rows, vectors as wide as
     the model, in a loop: every token sees them all beside its window, and at each block's end the
     layer's own weights recompute them from themselves and that block, as if they were tokens. So
     they carry on what the window loses. The header owns masks, positions, keys and storage; norms,
     projections and FFN are the caller's. The caller's half (in C: examples/07_feedback.c), where
     attend and set are longctx_feedback_attend and _set, and wo is the output projection:
       begin    x = F learned rows. For each layer l: copy x to longctx_feedback(l); set(l) q, k, v
                of norm(x); x += wo(attend(l)); x += FFN(norm(x)), which the next layer takes
       text     longctx_attend and _commit tokens, up to longctx_room at once, until room is 0
       update   for each layer l: f = rows + wo(attend(l)), the first time without the "rows +";
                f += FFN(norm(f)); copy f to the rows; set(l) q, k, v of norm(f)
     Rows see all rows and the tokens since they were set, except tokens that are sinks: no sinks,
     no memory, no older block. The paper's m memory segments are window = (m + 1)*block. A row's
     key and query take one of the last F positions of the block it was made from (the first rows:
     the F before the first token); in-cache indices do not count rows; ALiBi takes the magnitude of
     text distances to and from rows. Rows are float32; their keys and values are stored and clamped
     as the window's. A non-finite one spoils its KV head and, through the loop, later rows:
     longctx_reset cures it. A NaN in a row's q stays in its head. A final, partial block leaves the
     rows as they are. A kv_from layer reads its source's rows and has none to set. A model must be
     trained with them; any other gains nothing.

   SCORE
     softcap(scale * q.k) + ALiBi; softmax over sinks, feedback rows and window. ALiBi's distance to
     a sink goes by `positions` as RoPE's does, without RoPE too; its slopes are BLOOM's and MPT's
     for any number of heads. A sink logit (longctx_set_sink_logits) joins maximum and denominator
     but brings no value. Query head h reads KV head h / (n_heads / n_kv_heads). Feedback rows
     attend by the same rule. QK norms, biases and projections are the caller's.

   SAME BITS
     A token's output has the same bits one token at a time or in any chunks, before or after save
     and restore, with any number of threads or parts, on avx512, avx2, neon and scalar-fma, with
     gcc and clang at any -O. Instruction sets without fused multiply-add (sse2, wasm, scalar) agree
     among themselves. longctx_set_isa chooses; init, open and load take the best. This needs the
     default floating-point environment; -ffast-math breaks it and is refused.

   NON-FINITE AND HUGE NUMBERS
     A NaN or infinity in q makes that token's head NaN. Keys and scaled queries are clamped to
     +-2^40, a NaN in k becomes 2^40. What a type cannot hold is stored as its largest number, of
     the same sign; so is an infinity in v, and a NaN as the positive one. These affect their KV
     head until they leave the window (a sink never does), never its memory. A sum of values that
     overflows comes out as float32's largest number, of either sign.

   THREADS
     One caller at a time per context, except longctx_attend_part with distinct parts. Contexts
     share nothing. With OpenMP, longctx_attend, longctx_feedback_attend and a longctx_commit that
     folds use up to desc.max_threads threads (0 means 1). If their number divides n_kv_heads, each
     takes whole KV heads; else attend shares out segments of 512 tokens, so that one KV head is
     enough (of at most 96 query heads). A call forks and joins once; where segments are shared
     out, once for every as many tokens as make 96 queries to a KV head.

   STATE FILES
     longctx_save writes desc, sink logits, gates, positions, keys and values still visible (with
     feedback, at a block's start, also the block before), memory, feedback and a checksum, in this
     machine's byte order; other orders are refused. Equal states give equal bytes. Open files in
     binary mode. The checksum finds damage, not malice; a hostile file is refused or loads as some
     valid state.

   ORDER OF CALLS
     Tokens attended since the last commit are the open batch: later reads see them, no file holds
     them. attend writes them for one layer; called again it replaces them all, even with fewer.
     Only commit advances time. commit(n) needs every layer (except kv_from ones) attended with at
     least n tokens; those beyond n are dropped drafts, commit(0) drops all. Layers in any order, a
     kv_from layer after its source and before commit, which does not check it. k = v = NULL (a must
     for a kv_from layer) reads the open batch again without writing: token i sees what it saw when
     it was written. With feedback, rows are set before the first token and at each block's end, in
     any order of layers; until all are, attend is E_ORDER. Functions that return a code return 0,
     or a negative one after which nothing has changed (except longctx_load, whose `mem` is raw, a
     state that longctx_open refuses, and a restore that had to reset). */

/* ============================================================================================ */
/* == 2 DOOR ==                                                                                 */
/* Everything a caller may touch.                                                               */

#include <stddef.h>
#include <stdint.h>
#ifndef LONGCTX_NO_STDIO
#include <stdio.h>
#endif

#define LONGCTX_VERSION_MAJOR 1
#define LONGCTX_VERSION_MINOR 1
#define LONGCTX_VERSION_PATCH 15

#if !defined(LONGCTX_STATIC) && defined(__cplusplus)
#define LONGCTX_API extern "C"
#elif !defined(LONGCTX_STATIC)
#define LONGCTX_API extern
#elif defined(__GNUC__)
#define LONGCTX_API static __attribute__((unused))
#else
#define LONGCTX_API static
#endif

enum { LONGCTX_F32, LONGCTX_F16, LONGCTX_BF16, LONGCTX_Q8 };
/* Q8: int8, one scale, the largest magnitude / 127, per token and KV head. int8 keys round queries
   to 14 bits; int8 values round each token's weight * scale to 8 bits of the largest of 64 tokens:
   sums are exact integers. */
enum { LONGCTX_ROPE_NONE, LONGCTX_ROPE_HALF, LONGCTX_ROPE_INTERLEAVED };
/* HALF rotates dims (i, i + rope_dims/2): HF and NeoX weights. INTERLEAVED rotates (2i, 2i + 1):
   llama2.c, GPT-J, Meta and GGUF Llama weights. NONE: no RoPE. Keys that you rotated cannot be
   rotated back: to them sinks stay at text positions, and memory folds them as they are. */
enum { LONGCTX_POS_CACHE, LONGCTX_POS_TEXT };
enum { LONGCTX_MEMORY_NONE, LONGCTX_MEMORY_LINEAR, LONGCTX_MEMORY_DELTA };
enum { LONGCTX_FIRST_LOCAL, LONGCTX_FIRST_ZERO };
/* While a KV head's memory is empty (z = 0), LOCAL ignores the gate, so that short texts run as
   without memory; ZERO gates in a recall of 0, as published code does. */

/* X(name, value, what happened and what to do) */
#define LONGCTX_ERRORS(X)                                                                        \
  X(OK, 0, "no error")                                                                           \
  X(E_ARG, -1, "bad argument: a null or unaligned pointer, k without v, a layer, part or "       \
               "number out of range, more tokens than longctx_room (at most max_batch), a "       \
               "layer without the feature asked for, or a copy over its source")                 \
  X(E_DESC, -2, "bad desc: longctx_check names the field; or its memories cannot be added")      \
  X(E_SPACE, -3, "memory too small: provide longctx_size bytes (for a file: see longctx_load)")  \
  X(E_ORDER, -4, "call out of order: see ORDER OF CALLS in longctx.h")                           \
  X(E_FORMAT, -5, "not a longctx state of this machine, or a damaged one")                       \
  X(E_VERSION, -6, "state of another format version")                                            \
  X(E_MISMATCH, -7, "a valid state of another desc: all but max_threads must be equal")          \
  X(E_IO, -8, "reading or writing failed")                                                       \
  X(E_ISA, -9, "instruction set not available on this machine or in this build")
#define LCX_X(name, value, text) LONGCTX_##name = value,
enum { LONGCTX_ERRORS(LCX_X) };
#undef LCX_X

/* What may differ between layers. Once a desc has `layers`, these count and its own fields of the
   same names do not. A 0 is derived as in the desc (rope_base: 10000), not taken from the desc:
   longctx_layer_make copies the values that the desc has at that moment, and sets kv_from, which in
   a zeroed layer names layer 0. */
typedef struct longctx_layer {
  int window, block, positions;
  int rope, rope_dims;
  double rope_base;
  float rope_mscale;
  const double *rope_freqs;
  float scale, softcap;
  int memory;   /* LONGCTX_MEMORY_*; layers with memory or feedback must agree on block          */
  int feedback; /* 1: has feedback rows, or with kv_from reads its source's; 0: has none         */
  int kv_from;  /* -1, or a lower layer, itself without kv_from, whose keys and values this one
                   uses, and whose rope and positions apply: its own fields of these are ignored.
                   Its window may be smaller, its block must be the same, its memory and feedback
                   the same or none; its index in the cache is by its own window                 */
} longctx_layer;

/* Zero means off or derived. Make one with longctx_desc_make: it sets RoPE, which a zeroed desc
   does not have, and your source keeps compiling when fields are added. */
typedef struct longctx_desc {
  int n_layers, n_heads, n_kv_heads; /* 1 to 65536; n_heads % n_kv_heads == 0, any ratio         */
  int head_dim;                      /* of queries and keys, 1 to 576                            */
  int window;                        /* most keys a query sees, its own included, 1 to 2^30      */
  int head_dim_v;                    /* of values, 1 to 576; 0 = head_dim                        */
  int sinks;                         /* first tokens kept for ever, 0 to 2^30                    */
  int block;                         /* the window's step, a divisor of window; 0 = 1 (sliding)  */
  int max_batch;                     /* most tokens in an attend, drafts too, to 2^20; 0 = 1.
                                        Times n_heads/n_kv_heads, as feedback_len, to 2^30       */
  int max_threads;                   /* most parts or threads in one attend, to 1024; 0 = 1      */
  int type_k, type_v;                /* LONGCTX_F32, _F16, _BF16, _Q8                            */
  int positions;                     /* LONGCTX_POS_CACHE, _TEXT                                 */
  int rope, rope_dims;               /* LONGCTX_ROPE_*; leading dims that rotate, even; 0: all, of
                                        an odd head_dim all but the last                         */
  double rope_base;                  /* theta, 1 to 1e18; 0 = 10000                              */
  float rope_mscale;                 /* of cos and sin (YaRN, LongRoPE), 1e-6 to 16; 0 = 1       */
  const double *rope_freqs;          /* [rope_dims/2] radians per token, +-1e6, copied; or NULL  */
  float scale;                       /* factor of q.k, within +-1e6; 0 = 1/sqrt(head_dim)        */
  float softcap;                     /* c: score = c*tanh(score/c), 1e-3 to 1e6; 0 = none        */
  float alibi_max_bias;              /* 8 for MPT, BLOOM; to 64; 0 = no ALiBi                    */
  int memory;                        /* LONGCTX_MEMORY_*: of what left the window; block > 1     */
  int memory_first;                  /* LONGCTX_FIRST_*: how an empty memory counts              */
  int feedback_len;                  /* F rows all tokens see, to 65536 and to block; 0 = none. In
                                        all layers, unless `layers` says otherwise               */
  int feedback_dim;                  /* floats of a row, to 2^26; 0 = n_heads*head_dim           */
  const longctx_layer *layers;       /* [n_layers], copied; NULL = all alike. With them the desc's
                                        own window, rope and so on are unused, but must be valid */
} longctx_desc;

typedef struct longctx_sizes {
  size_t window;   /* keys and values of all layers, sinks included                              */
  size_t memory;   /* M, z and what is pending for them, of all layers with memory               */
  size_t feedback; /* rows, their queries, keys and values, of all layers that have them         */
  size_t scratch;  /* working space, never saved                                                 */
  size_t state;    /* everything but scratch; a file takes longctx_state_size                    */
  size_t total;    /* longctx_size()                                                             */
} longctx_sizes;

typedef struct longctx longctx; /* lives in your memory */

/* ---- plan ---------------------------------------------------------------------------------- */

/* Sets the required fields and rope = LONGCTX_ROPE_HALF; the rest is 0. */
LONGCTX_API longctx_desc longctx_desc_make(int n_layers, int n_heads, int n_kv_heads,
                                           int head_dim, int window);
/* The desc's values for one layer, kv_from = -1. */
LONGCTX_API longctx_layer longctx_layer_make(const longctx_desc *);
/* NULL, or a sentence naming the bad field, what is wrong with its value, and the remedy. */
LONGCTX_API const char *longctx_check(const longctx_desc *);
/* Bytes that longctx_init needs; 0 = bad desc. */
LONGCTX_API size_t longctx_size(const longctx_desc *);
/* The same, by kind. Returns 0, E_ARG or E_DESC. */
LONGCTX_API int longctx_measure(const longctx_desc *, longctx_sizes *);

/* ---- life ---------------------------------------------------------------------------------- */

/* Makes an empty context at the front of `mem`. NULL if bytes < longctx_size, mem is NULL or not
   aligned as malloc aligns, or the desc is bad or has a list or table in `mem` (as longctx_get_desc
   gives it: copy them out first); then nothing has changed. */
LONGCTX_API longctx *longctx_init(void *mem, size_t bytes, const longctx_desc *);
/* Adopts a block that was memcpy'd or read back whole. Every field is validated, an open batch is
   dropped, the instruction set chosen anew. The desc is the block's, max_threads included: compare
   it before you attend (see longctx_load). NULL on failure, with *error set (may be NULL). */
LONGCTX_API longctx *longctx_open(void *mem, size_t bytes, int *error);
/* Forgets every token, memory, feedback and the start position; keeps sink logits and gates. */
LONGCTX_API void longctx_reset(longctx *);
/* Forks src: `mem` becomes a context, (longctx *)mem, with all that src has, its settings and
   instruction set too, but no open batch. Needs longctx_size of src's desc. E_ARG (NULL, unaligned,
   overlapping) or E_SPACE leaves `mem` unchanged. */
LONGCTX_API int longctx_copy(void *mem, size_t bytes, const longctx *src);
/* Sets where a context starts counting, 0 to 2^62, with memory or feedback a multiple of the block.
   E_ORDER unless it is empty: no token, not even in an open batch, and no feedback set. */
LONGCTX_API int longctx_seek(longctx *, int64_t position);

/* ---- forward ------------------------------------------------------------------------------- */

/* The most tokens the next attend may take: max_batch, with memory or feedback at most up to the
   block's end; 0 while feedback is due; never beyond position 2^62. */
LONGCTX_API int longctx_room(const longctx *);
/* q [n][n_heads][head_dim], k [n][n_kv_heads][head_dim], v [n][n_kv_heads][head_dim_v],
   out [n][n_heads][head_dim_v], overlapping none of them; float32, contiguous, un-rotated. The n
   tokens follow the committed ones; token i sees those and tokens 0..i of the call, as far as its
   window reaches. n = 0 does nothing. k = v = NULL (a must for a kv_from layer) only reads: E_ORDER
   if n exceeds the layer's, or its source's, tokens in the open batch. E_ARG for more than
   longctx_room, one of k and v alone, or k and v for a kv_from layer; E_ORDER while feedback is
   due. */
LONGCTX_API int longctx_attend(longctx *, int layer, int n, const float *q, const float *k,
                               const float *v, float *out);
/* For your own threads: call it once for each part 0 <= part < n_parts, all other arguments equal,
   in any order or at once. Then call join once, with the same layer, n and out, before anything
   else is attended: join is E_ORDER while a part is missing, or where one waits of a call with
   another layer, n or number of parts. Give a call up by commit(0): it discards the parts that
   wait, and all batches. To repeat one part, repeat all. `out` is unspecified until join; once a
   part has written, the layer has no batch until join. Parts beyond max_threads do nothing; if
   n*n_heads/n_kv_heads > 96, nor do those beyond n_kv_heads: attend and commit fewer tokens at a
   time. Errors else as attend's. */
LONGCTX_API int longctx_attend_part(longctx *, int layer, int n, const float *q, const float *k,
                                    const float *v, float *out, int part, int n_parts);
LONGCTX_API int longctx_attend_join(longctx *, int layer, int n, float *out);
/* Time advances by n tokens; those attended beyond n were drafts and are gone. With memory, tokens
   are folded here: at every 16th, about 16 in each KV head. E_ARG beyond longctx_room, E_ORDER if a
   layer (except kv_from ones) has fewer than n tokens or feedback is due. */
LONGCTX_API int longctx_commit(longctx *, int n);
/* Learned sinks (gpt-oss): logits [n_heads] before softmax, finite or -INFINITY; NULL = off. These
   are not the desc's sink tokens; both may be on. */
LONGCTX_API int longctx_set_sink_logits(longctx *, int layer, const float *logits);

/* ---- memory -------------------------------------------------------------------------------- */

/* How much memory each query head mixes in: logits [n_heads] before the sigmoid, not NaN; -87 or
   less is closed, NULL closes all. E_ARG for a layer without memory. */
LONGCTX_API int longctx_set_gate(longctx *, int layer, const float *logits);
/* Adds src's memory to dst's, so that shards of a text sum up, except for each shard's sinks and
   what is still in its window. Only what src has settled counts: all blocks that left its window.
   No position moves. E_ARG if dst is src, E_MISMATCH unless both have one desc (max_threads may
   differ), E_DESC if a layer uses the delta rule or none has memory. */
LONGCTX_API int longctx_memory_add(longctx *dst, const longctx *src);

/* ---- feedback ------------------------------------------------------------------------------ */

/* A layer's rows, [feedback_len][feedback_dim], yours to read and write; saved and copied with the
   state, unchanged. NULL for a layer that has none of its own. */
LONGCTX_API float *longctx_feedback(longctx *, int layer);
/* With feedback, 1 before the first token and after a commit that fills a block, until every
   layer's rows have been set; else 0. */
LONGCTX_API int longctx_feedback_due(const longctx *);
/* Gives attention a layer's rows, replacing the old ones: q [feedback_len][n_heads][head_dim],
   k [feedback_len][n_kv_heads][head_dim], v [feedback_len][n_kv_heads][head_dim_v], un-rotated.
   E_ARG for a layer without rows of its own or a NULL, E_ORDER except at a block's start before any
   of its tokens is attended. */
LONGCTX_API int longctx_feedback_set(longctx *, int layer, const float *q, const float *k,
                                     const float *v);
/* Attention of the rows last set over themselves and the tokens since: none right after set, all
   the block's at its end. out [feedback_len][n_heads][head_dim_v]. Call it as often as you like;
   errors as for set, and E_ORDER if nothing was set yet. */
LONGCTX_API int longctx_feedback_attend(longctx *, int layer, float *out);

/* ---- state files --------------------------------------------------------------------------- */

/* The bytes that longctx_save would write now, exactly. */
LONGCTX_API size_t longctx_state_size(const longctx *);
#ifndef LONGCTX_NO_STDIO
/* Writes the committed state at the file's position and leaves the file right behind it. It does
   not flush: a full disk may show only at your fflush or fclose. */
LONGCTX_API int longctx_save(const longctx *, FILE *);
/* Makes a context in raw memory. The desc is the file's, so compare longctx_get_desc with yours
   before you attend: with another shape, attend reads and writes past your q, k, v and out. If you
   know the desc, longctx_init and longctx_restore compare it for you. max_threads is 1, so one part
   does all. `bytes`: longctx_size of the saver's desc with max_threads 1 is enough; no call reads
   it from the file, so keep it beside. The file need not be seekable. NULL on failure, with *error
   set (may be NULL); what was in `mem` is lost. */
LONGCTX_API longctx *longctx_load(void *mem, size_t bytes, FILE *, int *error);
/* Reads into a live context of the same desc (max_threads may differ). Verifies the whole state
   before it touches the context, so the file must be seekable; a refusal changes nothing, success
   drops an open batch. If reading fails after that (E_IO, and position 0), the context is as new:
   set its sink logits and gates again. */
LONGCTX_API int longctx_restore(longctx *, FILE *);
#endif

/* ---- questions ----------------------------------------------------------------------------- */

LONGCTX_API int64_t longctx_position(const longctx *); /* of the next token; 0 for NULL          */
/* Resolved, no zeros left to derive; a kv_from layer shows its own rope and positions, though its
   source's apply. Pointers lead into the block; `layers` (if the desc had any) is a list there that
   this call writes, so it counts as a use of the context. */
LONGCTX_API longctx_desc longctx_get_desc(const longctx *);
LONGCTX_API const char *longctx_error(int code); /* a sentence, for any number                   */
LONGCTX_API const char *longctx_version(void);   /* this header's, "major.minor.patch"           */
/* The instruction set in use. Numbers count longctx_isa_name's from 0: "scalar" "scalar-fma" "sse2"
   "avx2" "avx512" "neon" "wasm"; NULL past the end. avx512 needs VNNI as well (since Ice Lake and
   Zen 4), avx2 FMA and F16C. */
LONGCTX_API int longctx_isa(const longctx *);
LONGCTX_API const char *longctx_isa_name(int isa);
/* E_ISA when this machine or build lacks it. Kept by reset and longctx_copy. */
LONGCTX_API int longctx_set_isa(longctx *, int isa);

/* ---- static arrays ------------------------------------------------------------------------- */

/* longctx_size as a constant, for a desc from longctx_desc_make(n_layers, n_heads, n_kv_heads,
   head_dim, window) with sinks, max_batch, type_k and type_v set and, beyond them, only fields that
   take no room: block, positions, rope (except NONE), rope_base, rope_mscale, scale, softcap. For a
   bad desc it means nothing: longctx_init has the last word. The array must be aligned as malloc
   aligns: put it in a union with an int64_t, a double and a pointer. */
#define LONGCTX_STATIC_SIZE(n_layers, n_heads, n_kv_heads, head_dim, window, sinks, max_batch,   \
                            type_k, type_v)                                                      \
  ((size_t)(LONGCTX_STATIC_UP(288 + (int64_t)256 * (n_layers) +                                  \
                              ((int64_t)4 * (n_layers) * (n_heads) + 7) / 8 * 8 +                \
                              (head_dim) / 2 * 8) +                                              \
            (n_layers) * (LONGCTX_STATIC_RING(n_kv_heads, head_dim,                              \
                                              (window) + LONGCTX_STATIC_OR_1(max_batch) - 1,     \
                                              type_k, type_v) +                                  \
                          LONGCTX_STATIC_SINKS(n_kv_heads, head_dim, sinks)) +                   \
            256 +                                                                                \
            LONGCTX_STATIC_WORK(LONGCTX_STATIC_ROWS(max_batch, (n_heads) / (n_kv_heads)),        \
                                head_dim, sinks, type_k, type_v)))
/* its parts: the window and the sinks of a layer, the working space of r queries */
#define LONGCTX_STATIC_OR_1(n) ((n) > 0 ? (n) : 1)
#define LONGCTX_STATIC_UP(bytes) (((int64_t)(bytes) + 63) / 64 * 64)
#define LONGCTX_STATIC_TILE(kept)                                                                \
  (((kept) + 63) / 64 * (int64_t)512 <= (int64_t)9 * (kept) ? 64 : 16)
#define LONGCTX_STATIC_BYTES(dims, type)                                                         \
  ((type) == LONGCTX_F32 ? 4 * (dims) : (type) == LONGCTX_Q8 ? (dims) + 4 : 2 * (dims))
#define LONGCTX_STATIC_RING(n_kv_heads, dims, kept, type_k, type_v)                              \
  LONGCTX_STATIC_UP(                                                                             \
    (int64_t)(n_kv_heads) * LONGCTX_STATIC_TILE(kept) *                                          \
    (((kept) + LONGCTX_STATIC_TILE(kept) - 1) / LONGCTX_STATIC_TILE(kept)) *                     \
    (LONGCTX_STATIC_BYTES((type_k) == LONGCTX_Q8 ? ((dims) + 3) / 4 * 4 : (dims), type_k) +      \
     LONGCTX_STATIC_BYTES(dims, type_v)))
#define LONGCTX_STATIC_SINKS(n_kv_heads, dims, sinks)                                            \
  LONGCTX_STATIC_UP((int64_t)8 * (n_kv_heads) * (dims) * (((sinks) + 63) / 64) *                 \
                    ((sinks) < 64 ? (sinks) : 64))
#define LONGCTX_STATIC_ROWS(max_batch, ratio)                                                    \
  LONGCTX_STATIC_EVEN((int64_t)LONGCTX_STATIC_OR_1(max_batch) * (ratio) < 256                    \
                        ? (int64_t)LONGCTX_STATIC_OR_1(max_batch) * (ratio)                      \
                        : 256)
#define LONGCTX_STATIC_EVEN(r) ((r) + ((r) > 1 ? (r) % 2 : 0))
#define LONGCTX_STATIC_HALF(type) ((type) == LONGCTX_BF16 || (type) == LONGCTX_F16)
#define LONGCTX_STATIC_WIDE(r, dims, type_k, type_v)                                             \
  ((r) > 8 && (LONGCTX_STATIC_HALF(type_k) || LONGCTX_STATIC_HALF(type_v)) ? 64 * (dims) + 64 : 0)
#define LONGCTX_STATIC_WORK(r, dims, sinks, type_k, type_v)                                      \
  (64 + LONGCTX_STATIC_UP(                                                                       \
          16 + 72 * (r) +                                                                        \
          4 * (((sinks) > 0 ? 2 : 1) * ((r) * (dims) + 64 + (dims) / 2 * 3) +                    \
               (r) * (89 + ((dims) + 63) / 64 * 128) + 80 + 2 * (dims) +                         \
               LONGCTX_STATIC_WIDE(r, dims, type_k, type_v) +                                    \
               ((type_k) == LONGCTX_Q8 ? (r) * (((dims) + 3) / 4 * 2 + 2) : 0) +                 \
               ((type_v) == LONGCTX_Q8 ? (r) * 33 : 0))))

#endif /* LONGCTX_H */
#endif /* LCX_PASS */

#if defined(LONGCTX_IMPLEMENTATION) && !defined(LONGCTX_IMPLEMENTED)
#ifndef LCX_PASS

/* ============================================================================================ */
/* == 3 TOOLS ==                                                                                */
/* The compiler layer, exact integer arithmetic, conversions of numbers. Called by everyone.    */

#if (defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(_M_FP_FAST) ||           \
     defined(__RECIPROCAL_MATH__) || defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) &&   \
    !defined(LONGCTX_ALLOW_FAST_MATH)
#error "longctx.h: -ffast-math (or -Ofast, or a part of it) ends its promise of the same bits. \
Compile the file with LONGCTX_IMPLEMENTATION without it, or define LONGCTX_ALLOW_FAST_MATH to go \
on regardless."
#endif
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2) ||    \
    defined(_M_IX86_FP) && _M_IX86_FP < 2
#error "longctx.h: float arithmetic is wider than float here. Add -msse2 -mfpmath=sse on x86 \
(it is x87's), -fexcess-precision=fast on s390x."
#endif

#if defined(__clang__) && (defined(__x86_64__) || defined(__aarch64__)) &&                       \
    !defined(LONGCTX_ALLOW_FAST_MATH)
#define LCX_PRECISE 1 /* not every part of fast-math has a macro in clang: turn them all off */
#pragma float_control(precise, on, push)
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#pragma fp_contract(off) /* without fma (room 5: class two) no sum takes a product unrounded */
#endif

#include <string.h> /* memcpy, memset, memcmp; nothing else of libc */

#ifndef LONGCTX_FILENAME
#define LONGCTX_FILENAME "longctx.h"
#endif
#ifndef LONGCTX_ASSERT
#define LONGCTX_ASSERT(x) ((void)0)
#endif

#if defined(__GNUC__) && !defined(__TINYC__)
#define LCX_GNU 1
#else
#define LCX_GNU 0
#endif

/* Instruction sets by longctx_isa's numbers; then which of them this build has. */
#define LCX_SCALAR 0
#define LCX_SCALAR_FMA 1
#define LCX_SSE2 2
#define LCX_AVX2 3
#define LCX_AVX512 4
#define LCX_NEON 5
#define LCX_WASM 6
#define LCX_ISAS 7

#if defined(__FMA__) || defined(__aarch64__) || defined(__ARM_FEATURE_FMA) ||                    \
    defined(__FP_FAST_FMAF) || defined(__s390x__) || defined(__powerpc64__) ||                   \
    (defined(__riscv_flen) && LCX_GNU)
#define LCX_BASE_FMA LCX_GNU /* every machine this build runs on has fused multiply-add */
#else
#define LCX_BASE_FMA 0
#endif
#if !defined(LONGCTX_NO_SIMD) &&                                                                 \
    (defined(__x86_64__) && LCX_GNU || defined(_M_X64) && !defined(__clang__))
#define LCX_X86 1
#else
#define LCX_X86 0
#endif
#if !defined(LONGCTX_NO_SIMD) && defined(__aarch64__) && defined(__ARM_NEON)
#define LCX_ARM 1
#else
#define LCX_ARM 0
#endif
#if !defined(LONGCTX_NO_SIMD) && defined(__wasm_simd128__)
#define LCX_WEB 1
#else
#define LCX_WEB 0
#endif

#if defined(__OPTIMIZE_SIZE__) && !LCX_X86 && !LCX_ARM && !LCX_WEB
#define LCX_SMALL 1 /* -Os without SIMD: one instruction set, small shapes, no unrolling */
#else
#define LCX_SMALL 0
#endif
#if LCX_GNU
#if LCX_SMALL
#define LCX_INLINE static inline __attribute__((unused))
#else
#define LCX_INLINE static inline __attribute__((always_inline, unused))
#endif
#define LCX_OUTLINE static __attribute__((noinline, unused)) /* frames stay small */
#define LCX_TARGET(list) __attribute__((target(list)))
#else
#ifdef _MSC_VER
#define LCX_INLINE static __forceinline
#define LCX_OUTLINE static __declspec(noinline)
#else
#define LCX_INLINE static inline
#define LCX_OUTLINE static
#endif
#define LCX_TARGET(list)
#endif
#if defined(__clang__) && !LCX_SMALL
#define LCX_UNROLL _Pragma("clang loop unroll(full)")
#elif LCX_GNU && !LCX_SMALL
#define LCX_UNROLL _Pragma("GCC unroll 64")
#else
#define LCX_UNROLL
#endif
#if LCX_GNU && defined(__x86_64__)
#define LCX_KEEP(t) __asm__("" : "+v"(t)) /* or fast-math cancels (x + magic) - magic */
#elif LCX_GNU && defined(__aarch64__)
#define LCX_KEEP(t) __asm__("" : "+w"(t))
#elif LCX_GNU && defined(LONGCTX_ALLOW_FAST_MATH)
#define LCX_KEEP(t) __asm__("" : "+m"(t))
#else
#define LCX_KEEP(t) ((void)0)
#endif
#if LCX_GNU && LCX_X86
#define LCX_FENCE() __asm__ volatile("" ::: "memory") /* compilers move no access across it */
#else
#define LCX_FENCE() ((void)0)
#endif
#ifdef __clang__
#define LCX_IN_TURN() LCX_FENCE() /* or clang 19 loads ahead, and spills */
#else
#define LCX_IN_TURN() ((void)0)
#endif
#if LCX_GNU
#define LCX_FETCH(p) __builtin_prefetch(p, 0, 2) /* not into the nearest cache: it is full */
#define LCX_CLEAR(p) __atomic_store_n(p, 0, __ATOMIC_RELAXED) /* parts may do so at once */
#else
#if LCX_X86
#define LCX_FETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#else
#define LCX_FETCH(p) ((void)(p))
#endif
#define LCX_CLEAR(p) ((void)(*(p) = 0))
#endif

#if LCX_X86
#include <immintrin.h>
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif LCX_ARM
#include <arm_neon.h>
#elif LCX_WEB
#include <wasm_simd128.h>
#endif

#define LCX_POS_END ((int64_t)1 << 62)
#define LCX_NOWHERE (-LCX_POS_END)   /* no position */
#define LCX_SPAN 64                  /* tokens: the unit of softmax; another changes every bit */
#define LCX_SEGMENT 512              /* tokens: the unit of merging partial results; likewise */
#define LCX_ROWS 256                 /* most (token, head) rows in one pass over the keys */
#define LCX_SPLIT 96                 /* most rows of a KV head that parts share by segments */
#define LCX_DIRECT 8                 /* up to so many rows, every set reads float16 and bfloat16
                                        (in short: halves) as stored, unwidened */
#define LCX_MANY 32                  /* more rows work so long on a span that on Intel's processors
                                        it pays to widen it, and that they prefetch the next one */
#define LCX_NEAR 8192                /* bytes ahead that a lone row prefetches, but of int8 */
#define LCX_DIMS 576                 /* largest head_dim and head_dim_v */
#define LCX_BIG 1.09951163e12f       /* 2^40: clamps queries and keys so that no score overflows */
#define LCX_MAX 3.40282347e38f
#define LCX_INFINITY lcx_float(0x7f800000u)
#define LCX_MASKED (-3e38f)          /* score of a key that a row does not see */
#define LCX_KEY (32 * LCX_BIG)       /* above any rotated key: sqrt(2) * 16 (mscale) * LCX_BIG */
#define LCX_NOTHING (-1e30f)         /* maximum of a row that has seen nothing yet */
#define LCX_LOG2E 1.4426950408889634
#define LCX_STRIP 16                 /* columns of M, tokens or rows that memory takes at once */
#define LCX_MEMORY_AHEAD 2048        /* floats of a memory to prefetch before it is used */
#define LCX_FOLDED 4194304.0f        /* 2^22: what reaches it is not folded; 2^30 tokens below it,
                                        recalled by the largest query, still fit float32 */
#define LCX_STOCK 1.329227996e36f    /* 2^120: bound on every element of M and z */

LCX_INLINE int lcx_min(int a, int b) { return a < b ? a : b; }
LCX_INLINE int64_t lcx_min64(int64_t a, int64_t b) { return a < b ? a : b; }
LCX_INLINE int64_t lcx_max64(int64_t a, int64_t b) { return a > b ? a : b; }
LCX_INLINE int lcx_up(int n, int unit) { return (n + unit - 1) / unit * unit; }
LCX_INLINE int lcx_even(int n) { return n + (n > 1 ? n % 2 : 0); } /* rows, and the spare one */

/* Prefetches `bytes` from p on. Like all that only prefetches it is inline, or gcc 12 drops it. */
LCX_INLINE void lcx_fetch(const void *p, int bytes)
{
  int i;
  for (i = 0; i < bytes; i += 64) LCX_FETCH((const unsigned char *)p + i);
}

/* For a step of a loop that reads several lines, from p on: prefetches one at every `every`-th of
   the step's multiply-adds, number e being at hand. Spread out, because Intel's processors forget
   one of two prefetches that follow each other, and fenced, because compilers would lump them. */
LCX_INLINE void lcx_fetch_at(int e, int every, const unsigned char *p)
{
  if (e % every != 0) return;
  LCX_FENCE();
  LCX_FETCH(p + e / every * 64);
  LCX_FENCE();
}

LCX_INLINE uint32_t lcx_bits(float x)
{
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

LCX_INLINE float lcx_float(uint32_t u)
{
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* by bits: comparisons are not to be trusted under -ffinite-math-only */
LCX_INLINE int lcx_finite(float x) { return (lcx_bits(x) & 0x7f800000u) != 0x7f800000u; }
LCX_INLINE int lcx_finite_double(const double *x) /* not by value: clang would know it finite */
{
  uint64_t u;
  memcpy(&u, x, sizeof u);
  return (u >> 52 & 0x7ff) != 0x7ff;
}

/* high half of a 64 x 64 bit product */
static uint64_t lcx_mulhi(uint64_t a, uint64_t b)
{
  uint64_t al = a & 0xffffffffu, ah = a >> 32, bl = b & 0xffffffffu, bh = b >> 32;
  uint64_t mid = ah * bl + (al * bl >> 32), mid2 = al * bh + (mid & 0xffffffffu);
  return ah * bh + (mid >> 32) + (mid2 >> 32);
}

/* x = 2^e * m, 1 <= m < 2, a normal double > 0: e, and log2(m) as a 64-bit fraction, by 64
   squarings */
static int lcx_log2(double x, uint64_t *fraction)
{
  uint64_t u, m, f = 0;
  int i;
  memcpy(&u, &x, sizeof u);
  m = ((u & 0xfffffffffffffu) | 0x10000000000000u) << 11;
  for (i = 0; i < 64; ++i) {
    m = lcx_mulhi(m, m);
    f <<= 1;
    if (m >> 63) f |= 1;
    else m <<= 1;
  }
  *fraction = f;
  return (int)(u >> 52 & 0x7ff) - 1023;
}

/* 2^-f of a 64-bit fraction f > 0, as a 64-bit fraction: 1 - x + x^2/2 - ..., x = f ln 2 */
static uint64_t lcx_exp2_minus(uint64_t f)
{
  uint64_t x = lcx_mulhi(f, 0xb17217f7d1cf79abu), term = x, sum = 0 - x;
  unsigned n;
  if (x == 0) return ~(uint64_t)0;
  for (n = 2; n < 26; ++n) {
    term = lcx_mulhi(term, x) / n;
    sum = n & 1 ? sum - term : sum + term;
  }
  return sum;
}

/* RoPE's step per token, in units of 2^-64 turn: 2^64 / (2 pi) * base^(-i/half), in integers so
   that every machine rotates alike (arXiv 2104.09864, theta_i) */
static uint64_t lcx_rope_step(double base, int i, int half)
{
  uint64_t f, n = (uint64_t)i, d = (uint64_t)half, turn = 0x28be60db9391054au; /* 2^64 / (2 pi) */
  uint64_t whole = (uint64_t)lcx_log2(base, &f) * n, low = (f & 0xffffffffu) * n;
  uint64_t high = (whole % d << 32) + (f >> 32) * n + (low >> 32); /* log2(base)*i in parts */
  uint64_t shift = whole / d + (high / d >> 32), fraction = high / d << 32;
  fraction |= ((high % d << 32) | (low & 0xffffffffu)) / d;
  if (fraction) turn = lcx_mulhi(turn, lcx_exp2_minus(fraction));
  return turn >> shift; /* base <= 1e18: shift < 60 */
}

/* The same step from a caller's frequency in radians a token: mantissa * 2^64/(2 pi), shifted. */
static uint64_t lcx_freq_step(double radians)
{
  uint64_t u, m, high, low, step;
  int shift;
  memcpy(&u, &radians, sizeof u);
  shift = 1023 + 52 - (int)(u >> 52 & 0x7ff); /* radians = m * 2^-shift */
  m = (u & 0xfffffffffffffu) | 0x10000000000000u;
  high = lcx_mulhi(m, 0x28be60db9391054au);
  low = m * 0x28be60db9391054au;
  if (shift > 127) step = 0; /* or radians = 0 */
  else if (shift >= 64) step = high >> (shift - 64);
  else step = high << (64 - shift) | low >> shift; /* radians <= 1e6: shift > 0 */
  return u >> 63 ? 0 - step : step;
}

/* 2^-x for x >= 0, within an ulp */
static float lcx_pow2_minus(double x)
{
  uint64_t whole = (uint64_t)x, f = (uint64_t)((x - (double)whole) * 18446744073709551616.0);
  double y = f ? (double)lcx_exp2_minus(f) * (1 / 18446744073709551616.0) : 1;
  for (; whole > 0; --whole) y *= 0.5; /* at most 125 */
  return (float)y;
}

/* by Newton's method: no libm; 64 steps are plenty for any int */
static double lcx_sqrt(double x)
{
  double y = x > 1 ? x : 1;
  int i;
  for (i = 0; i < 64; ++i) y = (y + x / y) * 0.5;
  return y;
}

/* float32 -> float16, nearest even; saturates at 65504 so that what is stored is finite */
LCX_INLINE uint16_t lcx_f16_from_f32(float x)
{
  uint32_t u = lcx_bits(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7bffu);
  if (a >= 0x38800000u) return (uint16_t)(sign | (a - 0x38000000u + 0xfffu + (a >> 13 & 1)) >> 13);
  if (a <= 0x33000000u) return (uint16_t)sign; /* 2^-25 ties to zero */
  {
    uint32_t shift = 126u - (a >> 23), m = (a & 0x7fffffu) | 0x800000u, half = 1u << (shift - 1);
    return (uint16_t)(sign | (m + half - 1 + (m >> shift & 1)) >> shift);
  }
}

LCX_INLINE float lcx_f32_from_f16(uint16_t h)
{
  uint32_t m = (uint32_t)(h & 0x7fffu) << 13, sign = (uint32_t)(h & 0x8000u) << 16;
  if (m >= 0x800000u) return lcx_float(sign | (m + 0x38000000u));
  /* a denormal: exact, and no denormal float32 appears on the way */
  return lcx_float(sign | lcx_bits(lcx_float(m + 0x38800000u) - 6.103515625e-5f));
}

/* the same to bfloat16, of a finite number */
LCX_INLINE uint16_t lcx_bf16_from_f32(float x)
{
  uint32_t u = lcx_bits(x);
  if ((u & 0x7fffffffu) >= 0x7f7f8000u) return (uint16_t)(u >> 16 & 0xff7fu); /* not to infinity */
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

LCX_INLINE float lcx_f32_from_bf16(uint16_t h) { return lcx_float((uint32_t)h << 16); }

/* -limit..limit; NaN becomes limit */
LCX_INLINE float lcx_held(float x, float limit)
{
  x = x < limit ? x : limit;
  return x > -limit ? x : -limit;
}

/* ============================================================================================ */
/* == 4 TILES ==                                                                                */
/* How keys and values lie in memory: the kernels and the window agree here.                    */

/* A tile holds `tile` tokens of one KV head: keys dimension-major, so that neighbouring lanes are
   neighbouring tokens, and right behind them the values token-major, so that lanes are dims:

     keys    [head_dim][tile]            float32, float16, bfloat16
             [head_dim/4][tile][4]       int8 (+128), then scales [tile]
     values  panels of 64 dims, each     [tile][<= 64], for int8 [tile/4][<= 64][4]; then scales

   int8 lies in quads for the integer dot products: four dims of a key, four tokens of values. The
   window uses tiles of 64, or of 16 where 64 would waste memory; sinks and feedback use tiles of
   64, or one of about their number if fewer. Kernels may read up to 64 lanes past a tile's end,
   into whatever follows (LCX_GUARD bytes behind the last tile): scores there are masked, sums land
   in the padding of o's rows, which nobody reads. */
typedef struct lcx_store {
  int32_t type_k, type_v, head_dim, head_dim_v;
  int32_t tile;                    /* tokens in a tile                                           */
  int32_t tiles;                   /* tiles in a KV head's ring                                  */
  uint32_t scale_k, val, scale_v;  /* offsets in a tile: of key scales, values, value scales     */
  uint32_t bytes;                  /* of a tile                                                  */
} lcx_store;

#define LCX_PANEL 64

LCX_INLINE int lcx_elem(int type) { return type == LONGCTX_F32 ? 4 : type == LONGCTX_Q8 ? 1 : 2; }

/* Shape of tiles `gap` bytes apart; tiles is left 0. Ints suffice: dims <= 576, tile <= 64. */
static void lcx_store_make(lcx_store *s, int type_k, int type_v, int head_dim, int head_dim_v,
                           int tile, int gap)
{
  int k = type_k == LONGCTX_Q8 ? lcx_up(head_dim, 4) * tile : head_dim * tile * lcx_elem(type_k);
  int v = head_dim_v * tile * lcx_elem(type_v);
  int val = k + (type_k == LONGCTX_Q8 ? 4 * tile : 0);
  int end = val + v + (type_v == LONGCTX_Q8 ? 4 * tile : 0);
  s->type_k = type_k;
  s->type_v = type_v;
  s->head_dim = head_dim;
  s->head_dim_v = head_dim_v;
  s->tile = tile;
  s->tiles = 0;
  s->scale_k = (uint32_t)k;
  s->val = (uint32_t)val;
  s->scale_v = (uint32_t)(val + v);
  s->bytes = (uint32_t)(lcx_up(end, 4) + gap);
}

/* bytes from the keys to element (dim, token) */
LCX_INLINE size_t lcx_key_at(const lcx_store *s, int dim, int token)
{
  unsigned d = (unsigned)dim, t = (unsigned)token, tile = (unsigned)s->tile;
  if (s->type_k == LONGCTX_Q8) return (d / 4 * tile + t) * 4 + d % 4;
  return (size_t)(d * tile + t) * (size_t)lcx_elem(s->type_k);
}

LCX_INLINE int lcx_panel_width(const lcx_store *s, int dim)
{
  return lcx_min(LCX_PANEL, s->head_dim_v - (int)((unsigned)dim / LCX_PANEL * LCX_PANEL));
}

/* bytes from the values to element (token, dim); type is the store's, a constant in the kernels */
LCX_INLINE size_t lcx_val_of(const lcx_store *s, int type, int token, int dim)
{
  unsigned t = (unsigned)token, in = (unsigned)dim % LCX_PANEL, panel = (unsigned)dim - in;
  unsigned width = (unsigned)lcx_panel_width(s, dim), first = panel * (unsigned)s->tile;
  if (type == LONGCTX_Q8) return first + (t / 4 * width + in) * 4 + t % 4;
  return (size_t)(first + t * width + in) * (size_t)lcx_elem(type);
}

LCX_INLINE size_t lcx_val_at(const lcx_store *s, int token, int dim)
{
  return lcx_val_of(s, s->type_v, token, dim);
}

/* The ring's slot that holds the tile of token x. */
LCX_INLINE int lcx_slot_of(const lcx_store *s, int64_t x) { return (int)(x / s->tile % s->tiles); }

/* Where that tile lies. */
LCX_INLINE size_t lcx_tile_at(const lcx_store *s, int64_t x)
{
  return (size_t)lcx_slot_of(s, x) * s->bytes;
}

/* 64 tokens as the kernels see them: four groups of 16, each inside one tile, or hanging over the
   end of a store's only one. */
typedef struct lcx_span {
  const unsigned char *tile[4];
  int at[4];       /* index of the group's first token in its tile                               */
  ptrdiff_t ahead; /* bytes to what is prefetched, mostly the ring's next span; 0 unless a tile is
                      a span                                                                     */
  int fetch_alone; /* prefetch for a single row, too: lcx_fetches_alone, room 7                  */
  int fetch_widen; /* widening prefetches; else the rows do, see lcx_next_is, room 13            */
} lcx_span;

/* Sets *r to the span that starts with the tile in ring slot `slot`; its fetch_ flags stay. */
LCX_INLINE void lcx_span_at(const lcx_store *s, const unsigned char *ring, int slot, lcx_span *r)
{
  int g;
  for (g = 0; g < 4; ++g) {
    r->tile[g] = ring + (size_t)(s->tile == 16 ? (slot + g) % s->tiles : slot) * s->bytes;
    r->at[g] = s->tile == 16 ? 0 : 16 * g;
  }
  r->ahead = s->tile != LCX_SPAN ? 0 : slot + 1 < s->tiles ? (ptrdiff_t)s->bytes
                                                           : -(ptrdiff_t)s->bytes * slot;
}

/* Column c of a span where a token takes `size` bytes. */
LCX_INLINE const unsigned char *lcx_column(const lcx_span *s, int c, int size)
{
  unsigned t = (unsigned)c;
  return s->tile[t / 16] + ((unsigned)s->at[t / 16] + t % 16) * (unsigned)size;
}

/* A layer's three stores, and what x counts in each: positions in the window, indices among the
   sinks and among the feedback rows. */
enum { LCX_WINDOW, LCX_SINKS, LCX_FED };

/* What a row sees of a store, from <= x < to, and the x of its query: it is |stand - x| from a
   key. */
typedef struct lcx_view { int64_t from, to, stand; } lcx_view;

/* A part's working space, in the block's scratch. A row is one query head of one token; up to
   LCX_ROWS of them pass over the keys of one KV head. Behind an odd number of rows, but for one
   alone, is the spare row: it holds anything, and nobody reads what becomes of it. [3] and [2] are
   indexed by store. */
typedef struct lcx_work {
  int n, head_dim, head_dim_v;
  int first, end;        /* rows that see some of the current span: first <= r < end             */
  int stride;            /* floats between rows of o and sum_o: head_dim_v rounded up to 64      */
  float cap;             /* soft-cap in base 2; 0 = none                                         */
  int8_t on_intel;       /* lcx_on_intel, room 7; tests set both                                 */
  int8_t fetch_alone;    /* lcx_span.fetch_alone of each span                                    */
  int8_t careful;        /* other parts may be writing other 16-token tiles of this span         */
  float *q[3];           /* [n][head_dim] scaled to base 2, rotated; LCX_FED's is the window's   */
  lcx_view *view[3];     /* [n]                                                                  */
  float *slope;          /* [n] ALiBi in base 2, negative; NULL = none                           */
  int *bad;              /* [n] the query was NaN or infinite                                    */
  int *lo, *hi;          /* [n] columns of the current span that are visible: lo <= c < hi       */
  float *m, *l, *o;      /* [n], [n], [n][stride] maximum, sum, values of the current segment    */
  float *lane;           /* [n][16] partial sums, which add up to l                              */
  float *rescale;        /* [n + 16] 2^(old m - new m)                                           */
  float *s;              /* [n][64] scores of the current span, then its weights                 */
  float *sum_m, *sum_l, *sum_o; /* like m, l, o, over all segments so far                        */
  float *turn[2];        /* [3][rope_dims/2 + 16] cos, sin, -sin: for the window, for the sinks  */
  float *line, *key;     /* [head dims + 32] a query, key or value on its way; a key, rotated    */
  float *wide;           /* a span's keys, after them its values in their place; empty if unused,
                            like the arrays below                                                */
  int32_t *qi;           /* [n][head_dim/4, rounded up][2] 14-bit queries for int8 keys, packed  */
  float *qi_scale;       /* [n]                                                                  */
  int32_t *qi_shift;     /* [n] what the +128 of the keys adds to a dot product, negated         */
  int32_t *wi;           /* [n][32] 8-bit weights for int8 values, packed; 16 if vw_quad is 1    */
  float *wi_scale;       /* [n]                                                                  */
  int64_t turned[2];     /* the position that turn[] is for, or LCX_NOWHERE                      */
  float *phi;            /* [head_dim][16] features of 16 queries or keys                        */
  float *back;           /* [pairs][2][16] cos, sin that rotate 16 keys back                     */
  float *val, *recalled; /* [strips][16][16] values to be folded; what 16 rows recall            */
  int64_t backed;        /* position of the first key that back[] is for, -1 = none              */
  int back_layer;        /* and the layer                                                        */
  int next_bytes;        /* what qk or pv prefetches of the next span: lcx_next_is, room 13      */
  const unsigned char *next; /* and from where                                                   */
} lcx_work;

/* The shape of one KV head's memory: M in strips of 16 columns, [strips][head_dim][16], so that a
   pass over a strip reads one stream; then z [head_dim]; padding is 0 or ignored. Behind them, in
   the same shape, what is on its way: sums over the tokens folded since the last settling, on top
   of what rounding had taken from M and z by then. */
typedef struct lcx_memory {
  int32_t dims, dims_v;
  int32_t strips;
  int32_t floats; /* of M and z                                                                  */
} lcx_memory;

LCX_INLINE lcx_memory lcx_memory_make(int head_dim, int head_dim_v)
{
  lcx_memory m;
  m.dims = head_dim;
  m.dims_v = head_dim_v;
  m.strips = (head_dim_v + LCX_STRIP - 1) / LCX_STRIP;
  m.floats = (m.strips * head_dim + (head_dim + LCX_STRIP - 1) / LCX_STRIP) * LCX_STRIP;
  return m;
}

/* floats from M to z */
LCX_INLINE int lcx_z_at(const lcx_memory *m) { return m->strips * m->dims * LCX_STRIP; }

/* visible columns of a span, first <= c < last; alike: the same ones to each row */
typedef struct lcx_hull { int first, last, alike; } lcx_hull;

/* columns that aligned steps of this width pass over to cover h */
LCX_INLINE int lcx_covered(lcx_hull h, int step)
{
  return lcx_min(lcx_up(h.last, step), LCX_SPAN) - h.first / step * step;
}

/* Kernels of one type that take `rows` rows at once, from r on: qk over the keys of a span, pv over
   one panel of its values. */
typedef struct lcx_shape {
  int16_t type;
  int8_t rows, least; /* room 5: v_shapes */
  int32_t has_narrower; /* the next is for this type and one row, too, from a narrower set */
  void (*qk)(const lcx_store *st, const lcx_span *sp, const lcx_work *w, const float *q, int r,
             lcx_hull seen);
  void (*pv)(const lcx_store *st, const lcx_span *sp, const lcx_work *w, int r, int panel,
             lcx_hull seen);
} lcx_shape;

/* One set's kernels; room 6 says what each does, room 5 what `direct` and the shapes are. */
typedef struct lcx_kernels {
  int direct;
  const lcx_shape *shapes; /* by type, most rows first, one row last */
  void (*turn)(const uint64_t *step, int half, uint64_t position, float mscale, float *turn);
  int (*hold)(const float *x, int dims, int pairs, float factor, float limit, float *y);
  void (*rotate)(const float *x, int dims, int half, const float *turn, float *y);
  float (*most)(const float *x, int n);
  void (*round)(const float *x, int n, float factor, int16_t *q);
  void (*narrow)(const float *x, int n, uint16_t *h);
  void (*widen_keys)(const lcx_store *st, const lcx_span *sp, lcx_hull part, float *keys);
  void (*widen_vals)(const lcx_store *st, const lcx_span *sp, lcx_hull part, float *vals);
  void (*soften)(const lcx_work *w, const lcx_view *view, int64_t x);
  void (*quantise_q)(const lcx_work *w);
  void (*quantise_w)(const lcx_store *st, const lcx_span *sp, const lcx_work *w, lcx_hull all);
  void (*merge)(float *sum_m, float *sum_l, float *sum_o, float m, float l, const float *o,
                int dims);
  void (*finish)(const float *o, float l, int dims, float *out);
  void (*feature)(const float *x, int dims, float *phi);
  void (*recall)(const lcx_memory *m, const float *settled, const float *phi, int n, float *to);
  void (*blend)(const float *recalled, float gate, int dims, float *out);
  void (*fold)(const lcx_memory *m, lcx_work *w, const lcx_store *st, const unsigned char *tile,
               int at, int first, int last, int half, int delta, float *settled);
  void (*sum)(float *x, const float *more, float *rest, int n, int onto);
} lcx_kernels;

/* Is it widened to float32, span by span? Halves are, for more than `direct` rows. */
LCX_INLINE int lcx_widens(int type, int rows, int direct)
{
  return (type == LONGCTX_F16 || type == LONGCTX_BF16) && rows > direct;
}

#if LCX_GNU && !defined(__clang__)
#pragma GCC diagnostic push /* gcc 12's own AVX-512 headers warn inside our functions */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif

#ifdef LONGCTX_NO_DISPATCH /* rooms 5 and 6 are read once, here */
#if LCX_X86 && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) &&         \
    defined(__AVX512VNNI__)
#define LCX_PASS LCX_AVX512
#elif LCX_X86 && defined(__AVX2__) && (defined(__FMA__) || defined(_MSC_VER)) /* then F16C, too */
#define LCX_PASS LCX_AVX2
#elif LCX_X86
#define LCX_PASS LCX_SSE2
#elif LCX_ARM
#define LCX_PASS LCX_NEON
#elif LCX_WEB
#define LCX_PASS LCX_WASM
#elif LCX_BASE_FMA
#define LCX_PASS LCX_SCALAR_FMA
#else
#define LCX_PASS LCX_SCALAR
#endif
#endif
#endif /* LCX_PASS */

#ifdef LCX_PASS

/* ============================================================================================ */
/* == 5 WORDS ==                                                                                */
/* Vector operations, defined once per instruction set in the same order; used only by room 6.  */

/* v_width lanes of float32. fma(a, b, c) = a*b + c, rounded once where the set can (class one),
   twice elsewhere (class two). LCX_FN(x): this set's x. LCX_T: its target attribute.

   Rule 0: no v_add or v_sub ever takes a v_mul; a product that may be added later is written
   v_fma(a, b, 0). So no compiler can contract anything of ours, in any mode, and bits stay the
   same; class two's own v_fma keeps its product apart by hand.

     v_set(x): every lane x          v_all(p): v_set(*p), by a faster load where a set has one
     v_max(a, b) = a > b ? a : b     v_min(a, b) = a < b ? a : b     exactly so, also for NaN
     v_pick(a, b, x, y) = a < b ? x : y
     v_exp2i(p, t, x, least): p * 2^i, i the low bits of t, by integer addition to the exponent; 0
       where x < least
     LCX_FN(hmax): largest lane      v_lanes: 0, 1, 2, ...
     v_from_int: int32 lanes to float
     v_store_f16: of numbers within 65504, nearest even; only where a set has an instruction
     v_shapes_*: S(type, rows, least, vectors of keys, of a rest, of values, of a rest): what a
       kernel holds in registers, at most 6 rows (int8: 4) and 8 vectors; most rows first, one row
       last. least: it is still the fastest for so few rows with the spare row (lcx_work) behind
       them: `rows`, or one less. LCX_SHAPES refuses what does not fit a span or a panel
     v_narrower(type): the table entry for one row, with its comma, from a narrower set (if in the
       build) that is faster at it except on Intel's processors; undefined in other sets
     v_direct: up to so many rows read float16 and bfloat16 directly (on Intel's processors LCX_MANY
       at most); more share one widened copy

   int8 dots, exact on every set: to each lane of a, vq_dot adds the dot of four neighbouring bytes
   of keys (unsigned) and four 14-bit integers, vw_dot that of four bytes of values (signed) and
   four unsigned bytes. vq_sum and vw_sum give a's total, vq_sum plus `shift`: -128 times the sum of
   the integers. A span of values adds up to less than 2^22, so a set may keep 256 times as much.
   Multipliers lie as these words read them, a quad of queries in two int32, of weights in vw_quad:
   vq_store packs v_width queries from dim d on, vw_store weights from column j on, each from the
   low bits of a lane of t. */

#if LCX_PASS == LCX_AVX512
#define LCX_HAVE_AVX512 1
#define LCX_FN(name) lcx_##name##_avx512
#define LCX_T LCX_TARGET("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")
#define v_width 16
#define v_f32 __m512
#define v_set(x) _mm512_set1_ps(x)
LCX_T LCX_INLINE v_f32 LCX_FN(all)(const float *p)
{ /* loaded as an integer: as a float, beside conversions, it costs Zen 4 an eighth of its fma */
#if LCX_GNU && defined(__clang__)
  v_f32 a;
  __asm__("vpbroadcastd {%1, %0|%0, %1}" : "=v"(a) : "m"(*p)); /* or clang makes it a float's */
  return a;
#else
  return _mm512_castsi512_ps(_mm512_set1_epi32((int32_t)lcx_bits(*p)));
#endif
}
#define v_all(p) LCX_FN(all)(p)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, a) _mm512_storeu_ps(p, a)
#define v_load_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define v_store_f16(p, a) _mm256_storeu_si256((__m256i *)(void *)(p), _mm512_cvtps_ph(a, 0))
#define v_load_bf16(p)                                                                           \
  _mm512_castsi512_ps(_mm512_slli_epi32(                                                         \
      _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p))), 16))
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_pick(a, b, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x)
#define v_lanes() _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define v_exp2i(p, t, x, least)                                                                  \
  _mm512_castsi512_ps(_mm512_maskz_add_epi32(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ),          \
                                             _mm512_castps_si512(p),                             \
                                             _mm512_slli_epi32(_mm512_castps_si512(t), 23)))
LCX_T LCX_INLINE float LCX_FN(hmax)(v_f32 a)
{
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a),
                           _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
#define v_i32 __m512i
typedef struct LCX_FN(acc) { v_i32 high, low; } LCX_FN(acc); /* q = 128*high + low, bytes both */
#define vi_load(p) _mm512_loadu_si512((const void *)(p))
#define vi_zero() _mm512_setzero_si512()
#define v_from_int(a) _mm512_cvtepi32_ps(a)
#define vq_zero(a) ((a).high = (a).low = _mm512_setzero_si512())
#define vq_dot(a, k, q)                                                                          \
  ((a).high = _mm512_dpbusd_epi32((a).high, k, _mm512_set1_epi32((q)[0])),                       \
   (a).low = _mm512_dpbusd_epi32((a).low, k, _mm512_set1_epi32((q)[1])))
#define vq_sum(a, shift)                                                                         \
  _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32((a).high, 7), (a).low),                    \
                   _mm512_set1_epi32(shift))
LCX_T LCX_INLINE void LCX_FN(vq_store)(int32_t *q, v_f32 t)
{
  v_i32 m = _mm512_castps_si512(t);
  __m128i high = _mm512_cvtepi32_epi8(_mm512_srli_epi32(m, 7));
  __m128i low = _mm512_cvtepi32_epi8(_mm512_and_si512(m, _mm512_set1_epi32(127)));
  _mm_storeu_si128((__m128i *)(void *)q, _mm_unpacklo_epi32(high, low));
  _mm_storeu_si128((__m128i *)(void *)(q + 4), _mm_unpackhi_epi32(high, low));
}
#define vq_store(q, d, t) LCX_FN(vq_store)((q) + (d) / 2, t)
#define vw_dot(a, v, w) ((a) = _mm512_dpbusd_epi32(a, _mm512_set1_epi32((w)[0]), v))
#define vw_sum(a) (a)
#define vw_quad 1
#define vw_store(w, j, t)                                                                        \
  _mm_storeu_si128((__m128i *)(void *)((w) + (j) / 4), _mm512_cvtepi32_epi8(_mm512_castps_si512(t)))
#define v_shapes_f32(S) S(F32, 6, 5, 4, 1, 4, 4) S(F32, 4, 3, 4, 1, 4, 4) S(F32, 1, 1, 4, 1, 4, 3)
#define v_shapes_half(S, type)                                                                   \
  S(type, 4, 3, 4, 1, 4, 4) S(type, 2, 2, 4, 1, 4, 4) S(type, 1, 1, 4, 1, 4, 3)
#ifdef LCX_HAVE_AVX2
#define v_narrower(type) {LONGCTX_##type, 1, 1, 0, lcx_qk_##type##_1_avx2, lcx_pv_##type##_1_avx2},
#endif
#define v_shapes_q8(S) S(Q8, 4, 3, 2, 1, 4, 4) S(Q8, 2, 2, 4, 1, 4, 4) S(Q8, 1, 1, 4, 1, 4, 4)
#define v_direct LCX_ROWS /* but for Intel's, reading half the bytes outweighs repeated widening */

#elif LCX_PASS == LCX_AVX2
#define LCX_HAVE_AVX2 1
#define LCX_FN(name) lcx_##name##_avx2
#define LCX_T LCX_TARGET("avx2,fma,f16c")
#define v_width 8
#define v_f32 __m256
#define v_set(x) _mm256_set1_ps(x)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, a) _mm256_storeu_ps(p, a)
#define v_load_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_store_f16(p, a) _mm_storeu_si128((__m128i *)(void *)(p), _mm256_cvtps_ph(a, 0))
#define v_load_bf16(p)                                                                           \
  _mm256_castsi256_ps(_mm256_slli_epi32(                                                         \
      _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))), 16))
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_min(a, b) _mm256_min_ps(a, b)
LCX_T LCX_INLINE v_f32 LCX_FN(pick)(v_f32 a, v_f32 b, v_f32 x, v_f32 y)
{
  v_f32 is = _mm256_cmp_ps(a, b, _CMP_LT_OQ); /* not a blend: so gcc 12 drops a side that is 0 */
  return _mm256_or_ps(_mm256_and_ps(is, x), _mm256_andnot_ps(is, y));
}
#define v_pick(a, b, x, y) LCX_FN(pick)(a, b, x, y)
#define v_lanes() _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)
#define v_exp2i(p, t, x, least)                                                                  \
  v_pick(x, least, v_set(0.0f),                                                                  \
         _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p),                            \
                                              _mm256_slli_epi32(_mm256_castps_si256(t), 23))))
LCX_T LCX_INLINE float LCX_FN(hmax)(v_f32 a)
{
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
#define v_i32 __m256i
#define vi_load(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define vi_zero() _mm256_setzero_si256()
#define v_from_int(a) _mm256_cvtepi32_ps(a)
#define vq_dot(a, k, q) /* even bytes by [0], odd by [1], widened: pmaddubsw would saturate */   \
  ((a) = _mm256_add_epi32(                                                                       \
       _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_and_si256(k, _mm256_set1_epi16(255)),        \
                                             _mm256_set1_epi32((q)[0]))),                        \
       _mm256_madd_epi16(_mm256_srli_epi16(k, 8), _mm256_set1_epi32((q)[1]))))
#define vq_sum(a, shift) _mm256_add_epi32(a, _mm256_set1_epi32(shift))
#define vw_dot(a, v, w) /* 256 times the dot: signed bytes in the upper halves of shorts */      \
  ((a) = _mm256_add_epi32(                                                                       \
       _mm256_add_epi32(                                                                         \
           a, _mm256_madd_epi16(_mm256_slli_epi16(v, 8), _mm256_set1_epi32((w)[0]))),            \
       _mm256_madd_epi16(_mm256_and_si256(v, _mm256_set1_epi16(-256)),                           \
                         _mm256_set1_epi32((w)[1]))))
#define vw_sum(a) _mm256_srai_epi32(a, 8)
/* v_width/4 quads of lanes into shorts, per quad lanes 0 and 2, then 1 and 3 */
LCX_T LCX_INLINE void LCX_FN(even_odd)(int32_t *w, v_f32 t, int bits)
{
  v_i32 a = _mm256_and_si256(_mm256_castps_si256(t), _mm256_set1_epi32(bits));
  a = _mm256_or_si256(a, _mm256_slli_epi32(_mm256_shuffle_epi32(a, 0xee), 16));
  _mm_storel_epi64((__m128i *)(void *)w, _mm256_castsi256_si128(a));
  _mm_storel_epi64((__m128i *)(void *)(w + 2), _mm256_extracti128_si256(a, 1));
}
#define vq_store(q, d, t) LCX_FN(even_odd)((q) + (d) / 2, t, 65535)
#define vw_store(w, j, t) LCX_FN(even_odd)((w) + (j) / 2, t, 255)
#define v_shapes_f32(S) S(F32, 6, 5, 2, 2, 2, 2) S(F32, 4, 4, 2, 2, 2, 2) S(F32, 1, 1, 8, 4, 8, 6)
#define v_shapes_half(S, type)                                                                   \
  S(type, 6, 5, 2, 2, 2, 2) S(type, 4, 3, 3, 2, 3, 2) S(type, 2, 2, 4, 2, 4, 2)                  \
  S(type, 1, 1, 8, 4, 8, 6)
#define v_shapes_q8(S) S(Q8, 4, 3, 2, 2, 2, 2) S(Q8, 1, 1, 8, 2, 8, 8)
#define v_direct LCX_ROWS /* but for Intel's, widening is free beside fma */

#elif LCX_PASS == LCX_SSE2
#define LCX_HAVE_SSE2 1
#define LCX_FN(name) lcx_##name##_sse2
#define LCX_T
#define v_width 4
#define v_f32 __m128
#define v_set(x) _mm_set1_ps(x)
#define v_load(p) _mm_loadu_ps(p)
#define v_store(p, a) _mm_storeu_ps(p, a)
/* A float16's exponent plus 112 is right down to 2^-14. Below that no leading 1 is implied: twice
   the result less 2^-14 is right, and only there is that the smaller of the two. */
LCX_INLINE v_f32 LCX_FN(load_f16)(const void *p)
{
  __m128i h = _mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)p));
  __m128i m = _mm_srli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x7fff0000)), 3);
  v_f32 sign = _mm_and_ps(_mm_castsi128_ps(h), _mm_set1_ps(-0.0f));
  v_f32 a = _mm_castsi128_ps(_mm_add_epi32(m, _mm_set1_epi32(0x38000000)));
  v_f32 b = _mm_sub_ps(_mm_add_ps(a, a), _mm_set1_ps(6.103515625e-5f));
  return _mm_or_ps(_mm_min_ps(a, b), sign);
}
#define v_load_f16(p) LCX_FN(load_f16)(p)
#define v_load_bf16(p)                                                                           \
  _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(),                                       \
                                      _mm_loadl_epi64((const __m128i *)(const void *)(p))))
#define v_add(a, b) _mm_add_ps(a, b)
#define v_sub(a, b) _mm_sub_ps(a, b)
LCX_INLINE v_f32 LCX_FN(mul)(v_f32 a, v_f32 b)
{
  v_f32 p = _mm_mul_ps(a, b);
  LCX_KEEP(p); /* with -mfma a compiler would fuse it: class two must not */
  return p;
}
#define v_mul(a, b) LCX_FN(mul)(a, b)
#define v_div(a, b) _mm_div_ps(a, b)
#define v_fma(a, b, c) _mm_add_ps(LCX_FN(mul)(a, b), c)
#define v_max(a, b) _mm_max_ps(a, b)
#define v_min(a, b) _mm_min_ps(a, b)
LCX_INLINE v_f32 LCX_FN(pick)(v_f32 a, v_f32 b, v_f32 x, v_f32 y)
{
  v_f32 is = _mm_cmplt_ps(a, b);
  return _mm_or_ps(_mm_and_ps(is, x), _mm_andnot_ps(is, y));
}
#define v_pick(a, b, x, y) LCX_FN(pick)(a, b, x, y)
#define v_lanes() _mm_setr_ps(0, 1, 2, 3)
#define v_exp2i(p, t, x, least)                                                                  \
  v_pick(x, least, v_set(0.0f),                                                                  \
         _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(p),                                     \
                                        _mm_slli_epi32(_mm_castps_si128(t), 23))))
LCX_INLINE float LCX_FN(hmax)(v_f32 a)
{
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}
#define v_i32 __m128i
#define vi_load(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define vi_zero() _mm_setzero_si128()
#define v_from_int(a) _mm_cvtepi32_ps(a)
#define vq_dot(a, k, q)                                                                          \
  ((a) = _mm_add_epi32(                                                                          \
       _mm_add_epi32(a, _mm_madd_epi16(_mm_and_si128(k, _mm_set1_epi16(255)),                    \
                                       _mm_set1_epi32((q)[0]))),                                 \
       _mm_madd_epi16(_mm_srli_epi16(k, 8), _mm_set1_epi32((q)[1]))))
#define vq_sum(a, shift) _mm_add_epi32(a, _mm_set1_epi32(shift))
#define vw_dot(a, v, w) /* as with AVX2 */                                                       \
  ((a) = _mm_add_epi32(                                                                          \
       _mm_add_epi32(a, _mm_madd_epi16(_mm_slli_epi16(v, 8), _mm_set1_epi32((w)[0]))),           \
       _mm_madd_epi16(_mm_and_si128(v, _mm_set1_epi16(-256)), _mm_set1_epi32((w)[1]))))
#define vw_sum(a) _mm_srai_epi32(a, 8)
LCX_INLINE void LCX_FN(even_odd)(int32_t *w, v_f32 t, int bits)
{
  v_i32 a = _mm_and_si128(_mm_castps_si128(t), _mm_set1_epi32(bits));
  a = _mm_or_si128(a, _mm_slli_epi32(_mm_shuffle_epi32(a, 0xee), 16));
  _mm_storel_epi64((__m128i *)(void *)w, a);
}
#define vq_store(q, d, t) LCX_FN(even_odd)((q) + (d) / 2, t, 65535)
#define vw_store(w, j, t) LCX_FN(even_odd)((w) + (j) / 2, t, 255)
#define v_shapes_f32(S) S(F32, 4, 4, 2, 2, 2, 2) S(F32, 1, 1, 8, 4, 8, 8)
#define v_shapes_half(S, type) S(type, 4, 3, 2, 2, 2, 2) S(type, 1, 1, 8, 4, 8, 8)
#define v_shapes_q8(S) S(Q8, 4, 4, 2, 2, 2, 2) S(Q8, 1, 1, 4, 4, 4, 4)
#define v_direct LCX_DIRECT

#elif LCX_PASS == LCX_NEON
#define LCX_HAVE_NEON 1
#define LCX_FN(name) lcx_##name##_neon
#define LCX_T
#define v_width 4
#define v_f32 float32x4_t
#define v_set(x) vdupq_n_f32(x)
#define v_load(p) vld1q_f32(p)
#define v_store(p, a) vst1q_f32(p, a)
#define v_load_f16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(p))))
#define v_store_f16(p, a) vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)))
#define v_load_bf16(p) vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)(p)), 16))
#define v_add(a, b) vaddq_f32(a, b)
#define v_sub(a, b) vsubq_f32(a, b)
#define v_mul(a, b) vmulq_f32(a, b)
#define v_div(a, b) vdivq_f32(a, b)
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_max(a, b) vbslq_f32(vcgtq_f32(a, b), a, b)
#define v_min(a, b) vbslq_f32(vcltq_f32(a, b), a, b)
#define v_pick(a, b, x, y) vbslq_f32(vcltq_f32(a, b), x, y)
LCX_INLINE v_f32 LCX_FN(lanes)(void)
{
  static const float lanes[4] = {0, 1, 2, 3};
  return vld1q_f32(lanes);
}
#define v_lanes() LCX_FN(lanes)()
#define v_exp2i(p, t, x, least)                                                                  \
  v_pick(x, least, v_set(0.0f),                                                                  \
         vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p),                               \
                                         vshlq_n_u32(vreinterpretq_u32_f32(t), 23))))
LCX_INLINE float LCX_FN(hmax)(v_f32 a) { return vmaxvq_f32(a); }
#define v_i32 int32x4_t
#define vi_load(p) vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)(p)))
#define vi_zero() vdupq_n_s32(0)
#define v_from_int(a) vcvtq_f32_s32(a)
/* a + dots of each 4 neighbours of low, then of high, with the 4 shorts at w */
LCX_INLINE v_i32 LCX_FN(dot)(v_i32 a, int16x8_t low, int16x8_t high, const int32_t *w)
{
  int16x4_t b = vld1_s16((const int16_t *)(const void *)w);
  v_i32 p = vpaddq_s32(vmull_s16(vget_low_s16(low), b), vmull_s16(vget_high_s16(low), b));
  v_i32 q = vpaddq_s32(vmull_s16(vget_low_s16(high), b), vmull_s16(vget_high_s16(high), b));
  return vaddq_s32(a, vpaddq_s32(p, q));
}
#define vq_dot(a, k, q)                                                                          \
  ((a) = LCX_FN(dot)(a, vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(vreinterpretq_u8_s32(k)))),   \
                     vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(vreinterpretq_u8_s32(k)))), q))
#define vq_sum(a, shift) vaddq_s32(a, vdupq_n_s32(shift))
#define vw_dot(a, v, w)                                                                          \
  ((a) = LCX_FN(dot)(a, vmovl_s8(vget_low_s8(vreinterpretq_s8_s32(v))),                          \
                     vmovl_s8(vget_high_s8(vreinterpretq_s8_s32(v))), w))
#define vw_sum(a) (a)
LCX_INLINE void LCX_FN(shorts)(int32_t *w, v_f32 t, uint16_t bits)
{
  vst1_u16((uint16_t *)(void *)w, vand_u16(vmovn_u32(vreinterpretq_u32_f32(t)), vdup_n_u16(bits)));
}
#define vq_store(q, d, t) LCX_FN(shorts)((q) + (d) / 2, t, 65535)
#define vw_store(w, j, t) LCX_FN(shorts)((w) + (j) / 2, t, 255)
#define v_shapes_f32(S) S(F32, 6, 6, 4, 4, 4, 4) S(F32, 4, 4, 4, 4, 4, 4) S(F32, 1, 1, 8, 4, 8, 4)
#define v_shapes_half(S, type) S(type, 4, 3, 4, 4, 4, 4) S(type, 1, 1, 8, 4, 8, 4)
#define v_shapes_q8(S) S(Q8, 4, 4, 4, 4, 4, 4) S(Q8, 1, 1, 4, 4, 4, 4)
#define v_direct LCX_DIRECT

#elif LCX_PASS == LCX_WASM
#define LCX_HAVE_WASM 1
#define LCX_FN(name) lcx_##name##_wasm
#define LCX_T
#define v_width 4
#define v_f32 v128_t
#define v_set(x) wasm_f32x4_splat(x)
#define v_load(p) wasm_v128_load(p)
#define v_store(p, a) wasm_v128_store(p, a)
LCX_INLINE v_f32 LCX_FN(load_f16)(const void *p)
{
  v_f32 h = wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16); /* as with SSE2 */
  v_f32 sign = wasm_v128_and(h, wasm_f32x4_splat(-0.0f));
  v_f32 m = wasm_u32x4_shr(wasm_v128_and(h, wasm_i32x4_splat(0x7fff0000)), 3);
  v_f32 a = wasm_i32x4_add(m, wasm_i32x4_splat(0x38000000));
  v_f32 b = wasm_f32x4_sub(wasm_f32x4_add(a, a), wasm_f32x4_splat(6.103515625e-5f));
  return wasm_v128_or(wasm_f32x4_pmin(a, b), sign);
}
#define v_load_f16(p) LCX_FN(load_f16)(p)
#define v_load_bf16(p) wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16)
#define v_add(a, b) wasm_f32x4_add(a, b)
#define v_sub(a, b) wasm_f32x4_sub(a, b)
#define v_mul(a, b) wasm_f32x4_mul(a, b)
#define v_div(a, b) wasm_f32x4_div(a, b)
#define v_fma(a, b, c) wasm_f32x4_add(wasm_f32x4_mul(a, b), c)
#define v_max(a, b) wasm_f32x4_pmax(b, a)
#define v_min(a, b) wasm_f32x4_pmin(b, a)
#define v_pick(a, b, x, y) wasm_v128_bitselect(x, y, wasm_f32x4_lt(a, b))
#define v_lanes() wasm_f32x4_make(0, 1, 2, 3)
#define v_exp2i(p, t, x, least)                                                                  \
  v_pick(x, least, v_set(0.0f), wasm_i32x4_add(p, wasm_i32x4_shl(t, 23)))
LCX_INLINE float LCX_FN(hmax)(v_f32 a)
{
  a = v_max(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
  a = v_max(a, wasm_i32x4_shuffle(a, a, 1, 0, 3, 2));
  return wasm_f32x4_extract_lane(a, 0);
}
#define v_i32 v128_t
#define vi_load(p) wasm_v128_load(p)
#define vi_zero() wasm_i32x4_splat(0)
#define v_from_int(a) wasm_f32x4_convert_i32x4(a)
#define vq_dot(a, k, q)                                                                          \
  ((a) = wasm_i32x4_add(                                                                         \
       wasm_i32x4_add(a, wasm_i32x4_dot_i16x8(wasm_v128_and(k, wasm_i16x8_splat(255)),           \
                                              wasm_i32x4_splat((q)[0]))),                        \
       wasm_i32x4_dot_i16x8(wasm_u16x8_shr(k, 8), wasm_i32x4_splat((q)[1]))))
#define vq_sum(a, shift) wasm_i32x4_add(a, wasm_i32x4_splat(shift))
#define vw_dot(a, v, w)                                                                          \
  ((a) = wasm_i32x4_add(                                                                         \
       wasm_i32x4_add(a, wasm_i32x4_dot_i16x8(wasm_i16x8_shl(v, 8), wasm_i32x4_splat((w)[0]))),  \
       wasm_i32x4_dot_i16x8(wasm_v128_and(v, wasm_i16x8_splat(-256)), wasm_i32x4_splat((w)[1]))))
#define vw_sum(a) wasm_i32x4_shr(a, 8)
LCX_INLINE void LCX_FN(even_odd)(int32_t *w, v_f32 t, int bits)
{
  v_i32 a = wasm_v128_and(t, wasm_i32x4_splat(bits));
  a = wasm_v128_or(a, wasm_i32x4_shl(wasm_i32x4_shuffle(a, a, 2, 3, 2, 3), 16));
  wasm_v128_store64_lane(w, a, 0);
}
#define vq_store(q, d, t) LCX_FN(even_odd)((q) + (d) / 2, t, 65535)
#define vw_store(w, j, t) LCX_FN(even_odd)((w) + (j) / 2, t, 255)
#define v_shapes_f32(S) S(F32, 4, 4, 2, 2, 2, 2) S(F32, 1, 1, 8, 4, 8, 8)
#define v_shapes_half(S, type) S(type, 4, 3, 2, 2, 2, 2) S(type, 1, 1, 8, 4, 8, 8)
#define v_shapes_q8(S) S(Q8, 4, 4, 2, 2, 2, 2) S(Q8, 1, 1, 4, 4, 4, 4)
#define v_direct LCX_DIRECT

#else /* scalar, with or without hardware fused multiply-add */
#if LCX_PASS == LCX_SCALAR_FMA
#define LCX_HAVE_SCALAR_FMA 1
#define LCX_FN(name) lcx_##name##_scalar_fma
#if LCX_X86
#define LCX_T LCX_TARGET("fma")
#else
#define LCX_T
#endif
#define v_mul(a, b) ((a) * (b))
#define v_fma(a, b, c) __builtin_fmaf(a, b, c)
#else
#define LCX_HAVE_SCALAR 1
#define LCX_FN(name) lcx_##name##_scalar
#define LCX_T
LCX_INLINE float LCX_FN(mul)(float a, float b)
{
#if LCX_BASE_FMA && !defined(__x86_64__) && !defined(__aarch64__)
  volatile float p = a * b;
#else
  float p = a * b;
#endif
  LCX_KEEP(p); /* where hardware could fuse it: class two must not */
  return p;
}
#define v_mul(a, b) LCX_FN(mul)(a, b)
#define v_fma(a, b, c) (LCX_FN(mul)(a, b) + (c))
#endif
#define v_width 1
#define v_f32 float
#define v_set(x) (x)
#define v_load(p) (*(p))
#define v_store(p, a) ((void)(*(p) = (a)))
#define v_load_f16(p) lcx_f32_from_f16(*(const uint16_t *)(p))
#define v_load_bf16(p) lcx_f32_from_bf16(*(const uint16_t *)(p))
#define v_add(a, b) ((a) + (b))
#define v_sub(a, b) ((a) - (b))
#define v_div(a, b) ((a) / (b))
LCX_T LCX_INLINE float LCX_FN(max)(float a, float b) { return a > b ? a : b; }
LCX_T LCX_INLINE float LCX_FN(min)(float a, float b) { return a < b ? a : b; }
LCX_T LCX_INLINE float LCX_FN(pick)(float a, float b, float x, float y) { return a < b ? x : y; }
#define v_max(a, b) LCX_FN(max)(a, b)
#define v_min(a, b) LCX_FN(min)(a, b)
#define v_pick(a, b, x, y) LCX_FN(pick)(a, b, x, y)
#define v_lanes() 0.0f
#define v_exp2i(p, t, x, least)                                                                  \
  v_pick(x, least, 0.0f, lcx_float(lcx_bits(p) + (lcx_bits(t) << 23)))
LCX_T LCX_INLINE float LCX_FN(hmax)(float a) { return a; }
#define v_i32 int32_t
LCX_INLINE v_i32 LCX_FN(vi_load)(const void *p)
{
  v_i32 a;
  memcpy(&a, p, 4);
  return a;
}
#define vi_load(p) LCX_FN(vi_load)(p)
#define vi_zero() 0
#define v_from_int(a) ((float)(a))
#define LCX_DOT(name, type)                                                                      \
  LCX_INLINE v_i32 LCX_FN(name)(v_i32 a, v_i32 bytes, const int32_t *shorts)                     \
  {                                                                                              \
    type b[4];                                                                                   \
    int16_t m[4];                                                                                \
    memcpy(b, &bytes, 4);                                                                        \
    memcpy(m, shorts, 8);                                                                        \
    return a + b[0] * m[0] + b[1] * m[1] + b[2] * m[2] + b[3] * m[3];                            \
  }
LCX_DOT(vq, uint8_t)
LCX_DOT(vw, int8_t)
#undef LCX_DOT
#define vq_dot(a, k, q) ((a) = LCX_FN(vq)(a, k, q))
#define vq_sum(a, shift) ((a) + (shift))
#define vw_dot(a, v, w) ((a) = LCX_FN(vw)(a, v, w))
#define vw_sum(a) (a)
LCX_INLINE void LCX_FN(shorts)(int32_t *w, int j, float t, uint32_t bits)
{
  uint16_t m = (uint16_t)(lcx_bits(t) & bits);
  memcpy((unsigned char *)w + 2 * j, &m, 2);
}
#define vq_store(q, d, t) LCX_FN(shorts)(q, d, t, 65535)
#define vw_store(w, j, t) LCX_FN(shorts)(w, j, t, 255)
#if LCX_X86 || LCX_SMALL /* only a reference beside faster sets, or -Os: small, not fast */
#define v_shapes_f32(S) S(F32, 4, 4, 1, 1, 1, 1) S(F32, 1, 1, 1, 1, 1, 1)
#define v_shapes_half(S, type) S(type, 1, 1, 1, 1, 1, 1)
#define v_shapes_q8(S) S(Q8, 1, 1, 1, 1, 1, 1)
#else
#define v_shapes_f32(S) S(F32, 4, 4, 1, 1, 1, 1) S(F32, 1, 1, 4, 1, 4, 1)
#define v_shapes_half(S, type) S(type, 1, 1, 4, 1, 4, 1)
#define v_shapes_q8(S) S(Q8, 1, 1, 4, 1, 4, 1)
#endif
#define v_direct LCX_DIRECT
#endif
#ifndef v_all
#define v_all(p) v_set(*(p))
#endif
#ifndef vw_quad
#define vw_quad 2
#define vq_zero(a) ((a) = vi_zero())
typedef v_i32 LCX_FN(acc);
#endif

/* ============================================================================================ */
/* == 6 KERNELS ==                                                                              */
/* The arithmetic, written once in words; called through lcx_kernels (room 4) by rooms 9 to 13. */

/* What fixes the bits: the chain of fma over dims per (query, key); spans of 64 and segments of 512
   at absolute positions, oldest first; one rescale per span; 16 lanes of row sums; one order of
   merging. Register tiles, tile shapes and who computes what are free: they change nothing. */

/* 2^x for x up to about 0; below -100 it is 0, which keeps every product clear of denormals.
   1.01 ulp, 2^0 = 1. */
LCX_T LCX_INLINE v_f32 LCX_FN(exp2)(v_f32 x)
{
  v_f32 magic = v_set(12582912.0f), t = v_add(x, magic), n, f, p = v_set(0.000155946764f);
  LCX_KEEP(t);
  n = v_sub(t, magic);
  LCX_KEEP(n);
  f = v_sub(x, n);
  p = v_fma(p, f, v_set(0.00134066434f));
  p = v_fma(p, f, v_set(0.00961769279f));
  p = v_fma(p, f, v_set(0.0555031039f));
  p = v_fma(p, f, v_set(0.240226522f));
  p = v_fma(p, f, v_set(0.693147242f));
  p = v_fma(p, f, v_set(1.0f));
  return v_exp2i(p, t, x, v_set(-100.0f));
}

LCX_T LCX_INLINE float LCX_FN(exp2_one)(float x)
{
  float r[v_width];
  v_store(r, LCX_FN(exp2)(v_set(x)));
  return r[0];
}

/* odd polynomial below 5/8, (1 - e)/(1 + e) with e = 2^(-2 log2(e) |x|) above */
LCX_T LCX_INLINE v_f32 LCX_FN(tanh)(v_f32 x)
{
  v_f32 zero = v_set(0.0f), one = v_set(1.0f), a = v_max(x, v_sub(zero, x)), z = v_mul(x, x);
  v_f32 e = LCX_FN(exp2)(v_fma(a, v_set(-2.88539008f), zero));
  v_f32 big = v_div(v_sub(one, e), v_add(one, e));
  v_f32 p = v_set(-0.0057040425f);
  p = v_fma(p, z, v_set(0.0206378624f));
  p = v_fma(p, z, v_set(-0.0537391566f));
  p = v_fma(p, z, v_set(0.133314312f));
  p = v_fma(p, z, v_set(-0.333332807f));
  p = v_fma(v_mul(x, z), p, x);
  return v_pick(a, v_set(0.625f), p, v_pick(x, zero, v_sub(zero, big), big));
}

/* cos, sin, -sin of position * step (in 2^-64 turn), times mscale: three arrays of half + 16 */
LCX_T static void LCX_FN(turn)(const uint64_t *step, int half, uint64_t position, float mscale,
                               float *turn)
{
  float *c = turn, *s = turn + half + 16, *ns = s + half + 16;
  v_f32 m = v_set(mscale), zero = v_set(0.0f), one = v_set(1.0f), minus = v_set(-1.0f);
  int i;
  for (i = 0; i < half; ++i) { /* where cos and sin will lie, all of them before any is loaded */
    uint64_t phase = position * step[i];
    c[i] = (float)(int32_t)((phase + ((uint64_t)1 << 61)) >> 62); /* nearest quarter, 0..3 */
    s[i] = (float)(int32_t)(uint32_t)(phase >> 30);               /* the rest, in 2^-32 */
  }
  for (i = 0; i < half; i += v_width) {
    v_f32 quarter = v_load(c + i), two = v_set(2.0f), p, q;
    v_f32 a = v_fma(v_load(s + i), v_set(2.3283064365386963e-10f), zero);
    v_f32 z = v_mul(a, a), odd = v_sub(quarter, v_pick(quarter, two, zero, two));
    v_f32 middle = v_sub(quarter, v_set(1.5f)), away = v_max(middle, v_sub(zero, middle));
    p = v_fma(v_set(-0.00460165786f), z, v_set(0.079680033f));
    p = v_fma(p, z, v_set(-0.64596349f));
    p = v_fma(p, z, v_set(1.57079637f));
    p = v_mul(v_mul(p, a), m);
    q = v_fma(v_set(0.000904021668f), z, v_set(-0.0208602883f));
    q = v_fma(q, z, v_set(0.253669232f));
    q = v_fma(q, z, v_set(-1.23370051f));
    q = v_mul(v_fma(q, z, one), m);
    /* a quarter turn on, cos is -sin and sin is cos; quarters 1 and 2 lie within 1 of 1.5 */
    v_store(c + i, v_mul(v_pick(odd, one, q, p), v_pick(away, one, minus, one)));
    p = v_mul(v_pick(odd, one, p, q), v_pick(quarter, two, one, minus));
    v_store(s + i, p);
    v_store(ns + i, v_mul(p, minus));
  }
}

/* y = x * factor, clamped to -limit..limit, NaN to limit; 1 if some x was not finite. The first
   `pairs` interleaved pairs come out half-split, for keys and queries alike, so one loop rotates
   both kinds of RoPE. y has 16 floats to spare. */
LCX_T static int LCX_FN(hold)(const float *x, int dims, int pairs, float factor, float limit,
                              float *y)
{
  v_f32 f = v_set(factor), top = v_set(limit), low = v_set(-limit), bad = v_set(0.0f), zero = bad;
  v_f32 infinite = v_set(LCX_INFINITY), one = v_set(1.0f);
  float in[16];
  int i, n;
  for (i = 0; i < dims; i += v_width) {
    const float *from = x + i;
    v_f32 a;
    n = lcx_min(v_width, dims - i);
    if (n < v_width || i < 2 * pairs) {
      int j;
      for (j = 0; j < v_width; ++j) in[j] = 0;
      for (j = 0; j < n; ++j) {
        int k = i + j;
        in[j] = x[k >= 2 * pairs ? k : k < pairs ? 2 * k : 2 * (k - pairs) + 1];
      }
      from = in;
    }
    a = v_load(from);
    bad = v_max(v_pick(v_max(a, v_sub(zero, a)), infinite, zero, one), bad);
    a = v_mul(a, f);
    v_store(y + i, v_max(v_min(a, top), low));
  }
  return LCX_FN(hmax)(bad) > 0;
}

/* x[dims], its first 2*half dims rotated, to y; both have 16 floats to spare, x is not y. */
LCX_T static void LCX_FN(rotate)(const float *x, int dims, int half, const float *turn, float *y)
{
  const float *c = turn, *s = turn + half + 16, *ns = s + half + 16;
  int i;
  for (i = 0; i < half; i += v_width)
    v_store(y + i, v_fma(v_load(x + i), v_load(c + i),
                         v_mul(v_load(x + half + i), v_load(ns + i))));
  for (i = 0; i < half; i += v_width)
    v_store(y + half + i, v_fma(v_load(x + half + i), v_load(c + i),
                                v_mul(v_load(x + i), v_load(s + i))));
  for (i = 2 * half; i < dims; i += v_width) v_store(y + i, v_load(x + i));
}

/* the largest magnitude in x[n]; floats behind it are read but do not count */
LCX_T static float LCX_FN(most)(const float *x, int n)
{
  v_f32 zero = v_set(0.0f), top = zero, end = v_set((float)n);
  int i;
  for (i = 0; i < n; i += v_width) {
    v_f32 a = v_load(x + i);
    a = v_pick(v_add(v_lanes(), v_set((float)i)), end, v_max(a, v_sub(zero, a)), zero);
    top = v_max(top, a);
  }
  return LCX_FN(hmax)(top);
}

/* x[n] times factor to the nearest integers; both arrays have 16 to spare */
LCX_T static void LCX_FN(round)(const float *x, int n, float factor, int16_t *q)
{
  float t[v_width];
  int i, j;
  for (i = 0; i < n; i += v_width) {
    v_store(t, v_fma(v_load(x + i), v_set(factor), v_set(12582912.0f)));
    for (j = 0; j < v_width; ++j) q[i + j] = (int16_t)(int32_t)(lcx_bits(t[j]) - 0x4b400000u);
  }
}

/* x[n] to float16, bit for bit as lcx_f16_from_f32; both arrays have 16 to spare */
LCX_T static void LCX_FN(narrow)(const float *x, int n, uint16_t *h)
{
  int i;
#ifdef v_store_f16
  v_f32 most = v_set(65504.0f), least = v_set(-65504.0f);
  for (i = 0; i < n; i += v_width)
    v_store_f16(h + i, v_max(v_min(v_load(x + i), most), least));
#else
  for (i = 0; i < n; ++i) h[i] = lcx_f16_from_f32(x[i]);
#endif
}

/* v_width stored numbers, not int8 */
#define LCX_LOAD_HALF(type, p)                                                                   \
  ((type) == LONGCTX_F16 ? v_load_f16((const void *)(p)) : v_load_bf16((const void *)(p)))
#define LCX_LOAD(type, p)                                                                        \
  ((type) == LONGCTX_F32 ? v_load((const float *)(const void *)(p)) : LCX_LOAD_HALF(type, p))

/* lcx_fetch_at's `every`, where rows share vectors of numbers of `elem` bytes: one per 64 bytes. A
   step of no more than that has its one prefetch in front. */
#define LCX_EVERY(rows, elem) ((rows) * (v_width * (elem) < 64 ? 64 / (v_width * (elem)) : 1))

/* A widened span has nothing ahead, and 6 rows of AVX-512 lose 6 % by prefetching it itself. */
#define LCX_BARE(type, rows, sp)                                                                 \
  ((type) == LONGCTX_F32 && (rows) > 4 && (sp)->ahead == 0)

/* qk_tile's and pv_tile's loops; with `fetch` they prefetch what they read, sp->ahead bytes on. */
LCX_T LCX_INLINE void LCX_FN(qk_dims)(int type, int rows, int vecs, int fetch,
                                      const lcx_store *st, const unsigned char *const *k,
                                      const lcx_span *sp, const float *q, v_f32 (*acc)[8])
{
  v_f32 x[8];
  size_t at = 0, step = (size_t)(st->tile * lcx_elem(type));
  int d, i, j, dims = st->head_dim, group = vecs * v_width % 16 ? v_width : 16;
  int every = LCX_EVERY(rows, lcx_elem(type)), spread = every < rows * vecs;
  for (d = 0; d < dims; ++d, at += step) {
    if (fetch & !spread) LCX_FETCH(k[0] + at + sp->ahead);
    LCX_UNROLL for (i = 0; i < rows; ++i) {
      v_f32 b = v_all(q + i * dims + d);
      LCX_UNROLL for (j = 0; j < vecs; ++j) {
        const unsigned char *p = k[j * v_width / group] + at + j * v_width % group * lcx_elem(type);
        if (i == 0) x[j] = LCX_LOAD(type, p);
        acc[i][j] = v_fma(x[j], b, acc[i][j]);
        if (fetch & spread) lcx_fetch_at(i * vecs + j, every, k[0] + at + sp->ahead);
      }
    }
  }
}

LCX_T LCX_INLINE void LCX_FN(pv_tokens)(int type, int rows, int vecs, int fetch, size_t pitch,
                                        const unsigned char *v, const lcx_span *sp, const float *p,
                                        int n, v_f32 (*acc)[8])
{
  v_f32 x[8];
  int t, i, j, every = LCX_EVERY(rows, lcx_elem(type)), spread = every < rows * vecs;
  for (t = 0; t < n; ++t, v += pitch) {
    if (fetch & !spread) LCX_FETCH(v + sp->ahead);
    LCX_UNROLL for (i = 0; i < rows; ++i) {
      v_f32 b;
      if (i > 0) LCX_IN_TURN();
      b = v_all(p + i * LCX_SPAN + t);
      LCX_UNROLL for (j = 0; j < vecs; ++j) {
        if (i == 0) x[j] = LCX_LOAD(type, v + j * v_width * lcx_elem(type));
        acc[i][j] = v_fma(x[j], b, acc[i][j]);
        if (fetch & spread) lcx_fetch_at(i * vecs + j, every, v + sp->ahead);
      }
    }
  }
}

/* Scores of `rows` queries against `vecs` vectors of keys from column c on. q.k is one chain of fma
   over the dims per (query, key), whatever the tile. */
LCX_T LCX_INLINE void LCX_FN(qk_tile)(int type, int rows, int vecs, const lcx_store *st,
                                      const lcx_span *sp, const float *q, int c, float *s)
{
  v_f32 acc[6][8];
  const unsigned char *k[8]; /* by groups of columns inside one tile */
  int i, j, group = vecs * v_width % 16 ? v_width : 16, fetch = (rows > 1) | sp->fetch_alone;
  LCX_UNROLL for (j = 0; j < vecs * v_width; j += group)
    k[j / group] = lcx_column(sp, c + j, lcx_elem(type));
  LCX_UNROLL for (i = 0; i < rows; ++i) {
    LCX_UNROLL for (j = 0; j < vecs; ++j) acc[i][j] = v_set(0.0f);
  }
  if (LCX_BARE(type, rows, sp)) LCX_FN(qk_dims)(type, rows, vecs, 0, st, k, sp, q, acc);
  else LCX_FN(qk_dims)(type, rows, vecs, fetch, st, k, sp, q, acc);
  LCX_UNROLL for (i = 0; i < rows; ++i) {
    LCX_UNROLL for (j = 0; j < vecs; ++j) v_store(s + i * LCX_SPAN + c + j * v_width, acc[i][j]);
  }
}

/* The same over int8 keys: an exact integer dot product, then one product with both scales. */
LCX_T LCX_INLINE void LCX_FN(qk_tile_q8)(int rows, int vecs, const lcx_store *st,
                                         const lcx_span *sp, const lcx_work *w, int r, int c)
{
  LCX_FN(acc) acc[4][8];
  v_i32 x[8];
  const unsigned char *k[4];
  int d, i, j, quads = (st->head_dim + 3) / 4, fetch = (rows > 1) | sp->fetch_alone;
  int every = LCX_EVERY(rows, 4), spread = every < rows * vecs;
  const int32_t *q = w->qi + r * quads * 2;
  size_t at = 0, step = (size_t)(st->tile * 4);
  LCX_UNROLL for (j = 0; j < vecs * v_width; j += 16) k[j / 16] = lcx_column(sp, c + j, 4);
  LCX_UNROLL for (i = 0; i < rows; ++i) {
    LCX_UNROLL for (j = 0; j < vecs; ++j) vq_zero(acc[i][j]);
  }
  for (d = 0; d < quads; ++d, at += step) {
    if (fetch & !spread) LCX_FETCH(k[0] + at + sp->ahead);
    LCX_UNROLL for (j = 0; j < vecs; ++j) {
      const unsigned char *p = k[j * v_width / 16] + at + j * v_width % 16 * 4;
      x[j] = vi_load(p);
    }
    LCX_UNROLL for (i = 0; i < rows; ++i) {
      const int32_t *m = q + (i * quads + d) * 2;
      LCX_UNROLL for (j = 0; j < vecs; ++j) {
        if (fetch & spread) lcx_fetch_at(i * vecs + j, every, k[0] + at + sp->ahead);
        vq_dot(acc[i][j], x[j], m);
      }
    }
  }
  LCX_UNROLL for (j = 0; j < vecs; ++j) {
    int t = c + j * v_width;
    v_f32 scale = v_load((const float *)(const void *)(lcx_column(sp, t, 4) + st->scale_k));
    LCX_UNROLL for (i = 0; i < rows; ++i) {
      v_f32 f = v_from_int(vq_sum(acc[i][j], w->qi_shift[r + i]));
      v_store(w->s + (r + i) * LCX_SPAN + t,
              v_fma(f, v_mul(v_set(w->qi_scale[r + i]), scale), v_set(0.0f)));
    }
  }
}

/* o = o*rescale + weights . values, for `vecs` vectors of dims from `dim` on: one chain of fma over
   the tokens first..last-1 per dim. */
LCX_T LCX_INLINE void LCX_FN(pv_tile)(int type, int rows, int vecs, const lcx_store *st,
                                      const lcx_span *sp, const lcx_work *w, int r, int dim,
                                      int first, int last)
{
  v_f32 acc[6][8];
  size_t pitch = (size_t)(lcx_panel_width(st, dim) * lcx_elem(type)), stride = (size_t)w->stride;
  float *o = w->o + (size_t)r * stride + dim, *y = o;
  const float *p = w->s + r * LCX_SPAN, *rescale = w->rescale + r;
  int i, j, t, fetch = (rows > 1) | sp->fetch_alone;
  LCX_UNROLL for (i = 0; i < rows; ++i, y += stride) {
    v_f32 a = v_set(rescale[i]);
    LCX_UNROLL for (j = 0; j < vecs; ++j) acc[i][j] = v_mul(v_load(y + j * v_width), a);
  }
  for (t = first; t < last;) {
    unsigned g = (unsigned)t / 16, in = (unsigned)t % 16;
    int end = st->tile == 16 ? lcx_min(t - (int)in + 16, last) : last;
    const unsigned char *v = sp->tile[g] + st->val + lcx_val_of(st, type, sp->at[g] + (int)in, dim);
    int n = end - t;
    if (LCX_BARE(type, rows, sp))
      LCX_FN(pv_tokens)(type, rows, vecs, 0, pitch, v, sp, p + t, n, acc);
    else LCX_FN(pv_tokens)(type, rows, vecs, fetch, pitch, v, sp, p + t, n, acc);
    t = end;
  }
  y = o;
  LCX_UNROLL for (i = 0; i < rows; ++i, y += stride) {
    LCX_UNROLL for (j = 0; j < vecs; ++j) v_store(y + j * v_width, acc[i][j]);
  }
}

/* The same over int8 values with weights of 8 bits: an exact integer sum per span. */
LCX_T LCX_INLINE void LCX_FN(pv_tile_q8)(int rows, int vecs, const lcx_store *st,
                                         const lcx_span *sp, const lcx_work *w, int r, int dim,
                                         int first, int last)
{
  v_i32 acc[4][8], x[8];
  size_t pitch = (size_t)(lcx_panel_width(st, dim) * 4), stride = (size_t)w->stride;
  float *o = w->o + (size_t)r * stride + dim;
  const int32_t *m = w->wi + r * (LCX_SPAN / 2) + first / 4 * vw_quad;
  int i, j, t, fetch = (rows > 1) | sp->fetch_alone;
  int every = LCX_EVERY(rows, 4), spread = every < rows * vecs;
  LCX_UNROLL for (i = 0; i < rows; ++i) {
    LCX_UNROLL for (j = 0; j < vecs; ++j) acc[i][j] = vi_zero();
  }
  for (t = first & ~3; t < last;) { /* by quads: weights outside first..last-1 are 0 */
    unsigned g = (unsigned)t / 16, in = (unsigned)t % 16;
    int end = st->tile == 16 ? lcx_min(t - (int)in + 16, last) : last;
    const unsigned char *v =
        sp->tile[g] + st->val + lcx_val_of(st, LONGCTX_Q8, sp->at[g] + (int)in, dim);
    for (; t < end; t += 4, v += pitch, m += vw_quad) {
      if (fetch & !spread) LCX_FETCH(v + sp->ahead);
      LCX_UNROLL for (j = 0; j < vecs; ++j) x[j] = vi_load(v + j * v_width * 4);
      LCX_UNROLL for (i = 0; i < rows; ++i) {
        LCX_UNROLL for (j = 0; j < vecs; ++j) {
          if (fetch & spread) lcx_fetch_at(i * vecs + j, every, v + sp->ahead);
          vw_dot(acc[i][j], x[j], m + i * (LCX_SPAN / 2));
        }
      }
    }
  }
  LCX_UNROLL for (i = 0; i < rows; ++i) {
    v_f32 scale = v_set(w->wi_scale[r + i]), a = v_set(w->rescale[r + i]);
    LCX_UNROLL for (j = 0; j < vecs; ++j) {
      float *y = o + (size_t)i * stride + j * v_width;
      v_store(y, v_fma(v_from_int(vw_sum(acc[i][j])), scale, v_mul(v_load(y), a)));
    }
  }
}

/* Kernels of each shape. In columns, WIDE and REST are what k and k_rest vectors hold. QK steps by
   WIDE or, all the way, by REST: one row does if it sees no more than REST, several (to which REST
   costs no more per column) if they then pass over fewer columns. Where other parts may be writing
   16-token tiles of the span (w->careful), it steps by LEAST, at most 16, to read only tiles with a
   column asked for. FITS: steps end where a span or a panel does, or leave just one rest, and int8
   keys never straddle tiles of 16; else 1 / 0 does not compile. */
#define LCX_STEPS(lanes, type)                                                                   \
  (REST <= WIDE && ((lanes) % WIDE == 0 || (lanes) % WIDE == REST) &&                            \
   (LONGCTX_##type != LONGCTX_Q8 || WIDE % 16 == 0 || 16 % WIDE == 0))
#define LCX_SHAPES(type, rows, least, k, k_rest, v, v_rest)                                      \
  LCX_T static void LCX_FN(qk_##type##_##rows)(const lcx_store *st, const lcx_span *sp,          \
                                               const lcx_work *w, const float *q, int r,         \
                                               lcx_hull seen)                                    \
  {                                                                                              \
    enum { WIDE = k * v_width, REST = k_rest * v_width, LEAST = REST < 16 ? REST : 16,           \
           FITS = 1 / (LCX_SPAN % REST == 0 && LCX_STEPS(LCX_SPAN, type)) };                     \
    int c, careful = w->careful && st->tile == 16;                                               \
    int few = rows > 1 ? lcx_covered(seen, REST) < lcx_covered(seen, WIDE)                       \
                       : seen.last - seen.first <= REST;                                         \
    int step = careful ? LEAST : few ? REST : WIDE;                                              \
    for (c = seen.first / step * step; c < seen.last; c += step)                                 \
      if (WIDE > LEAST && step == WIDE && c + WIDE <= LCX_SPAN) LCX_QK_TILE(type, rows, k);      \
      else if (REST > LEAST && step > LEAST) LCX_QK_TILE(type, rows, k_rest);                    \
      else LCX_QK_TILE(type, rows, LEAST / v_width);                                             \
    (void)q;                                                                                     \
  }                                                                                              \
  LCX_T static void LCX_FN(pv_##type##_##rows)(const lcx_store *st, const lcx_span *sp,          \
                                               const lcx_work *w, int r, int panel,              \
                                               lcx_hull seen)                                    \
  {                                                                                              \
    enum { WIDE = v * v_width, REST = v_rest * v_width,                                          \
           FITS = 1 / LCX_STEPS(LCX_PANEL, type) };                                              \
    int d = panel, end = panel + lcx_panel_width(st, panel);                                     \
    if (WIDE > REST)                                                                             \
      for (; end - d > REST; d += WIDE) LCX_PV_TILE(type, rows, v);                              \
    for (; d < end; d += REST) LCX_PV_TILE(type, rows, v_rest);                                  \
  }
#define LCX_QK_TILE(type, rows, vecs)                                                            \
  LCX_FN(qk_tile)(LONGCTX_##type, rows, vecs, st, sp, q + r * st->head_dim, c, w->s + r * LCX_SPAN)
#define LCX_PV_TILE(type, rows, vecs)                                                            \
  LCX_FN(pv_tile)(LONGCTX_##type, rows, vecs, st, sp, w, r, d, seen.first, seen.last)
v_shapes_f32(LCX_SHAPES)
v_shapes_half(LCX_SHAPES, F16)
v_shapes_half(LCX_SHAPES, BF16)
#undef LCX_QK_TILE
#undef LCX_PV_TILE
#define LCX_QK_TILE(type, rows, vecs) LCX_FN(qk_tile_q8)(rows, vecs, st, sp, w, r, c)
#define LCX_PV_TILE(type, rows, vecs)                                                            \
  LCX_FN(pv_tile_q8)(rows, vecs, st, sp, w, r, d, seen.first, seen.last)
v_shapes_q8(LCX_SHAPES)
#undef LCX_QK_TILE
#undef LCX_PV_TILE
#undef LCX_SHAPES
#undef LCX_BARE
#undef LCX_EVERY
#undef LCX_STEPS

#ifdef v_narrower
#define LCX_NARROWER(type, rows) ((rows) == 1 && LONGCTX_##type != LONGCTX_Q8)
#else
#define LCX_NARROWER(type, rows) 0
#define v_narrower(type)
#endif
#define LCX_SHAPE(type, rows, least, k, k_rest, v, v_rest)                                       \
  {LONGCTX_##type, rows, least, LCX_NARROWER(type, rows),                                        \
   LCX_FN(qk_##type##_##rows), LCX_FN(pv_##type##_##rows)},
static const lcx_shape LCX_FN(shapes)[] = {
    v_shapes_f32(LCX_SHAPE) v_narrower(F32)
    v_shapes_half(LCX_SHAPE, F16) v_narrower(F16)
    v_shapes_half(LCX_SHAPE, BF16) v_narrower(BF16)
    v_shapes_q8(LCX_SHAPE)};
#undef LCX_NARROWER
#undef v_narrower
#undef LCX_SHAPE

/* Soft-cap, ALiBi and mask turn row r's q.k into scores. Columns outside lo..hi-1 are overwritten,
   whatever they held; `distance` is from the span's first token to the query. */
LCX_T LCX_OUTLINE void LCX_FN(adjust)(const lcx_work *w, int r, float distance)
{
  float *s = w->s + r * LCX_SPAN;
  v_f32 lo = v_set((float)w->lo[r]), hi = v_set((float)w->hi[r]), never = v_set(LCX_MASKED);
  v_f32 cap = v_set(w->cap), inverse = v_set(w->cap > 0 ? 1.0f / w->cap : 0.0f);
  v_f32 slope = v_set(w->slope ? w->slope[r] : 0.0f);
  int j;
  for (j = 0; j < LCX_SPAN; j += v_width) {
    v_f32 x = v_load(s + j), token = v_add(v_lanes(), v_set((float)j));
    v_f32 away = v_sub(v_set(distance), token);
    if (w->cap > 0) x = v_fma(cap, LCX_FN(tanh)(v_fma(x, inverse, v_set(0.0f))), v_set(0.0f));
    if (w->slope) x = v_fma(slope, v_max(away, v_sub(v_set(0.0f), away)), x);
    v_store(s + j, v_pick(token, lo, never, v_pick(token, hi, x, never)));
  }
}

/* One step of the online softmax over a span that starts at x: scores become weights; maximum,
   rescale and the sum's 16 lanes are updated. All rows finish a phase before the next one, so that
   none waits for its own maximum. */
LCX_T static void LCX_FN(soften)(const lcx_work *w, const lcx_view *view, int64_t x)
{
  int adjusts = w->cap > 0 || w->slope != NULL, first = w->first, end = w->end, r, j;
  const int *lo = w->lo, *hi = w->hi;
  float *m = w->m, *rescale = w->rescale, *s = w->s + first * LCX_SPAN, *lane = w->lane;
  for (r = first; r < end; ++r, s += LCX_SPAN) {
    float old = m[r], most;
    v_f32 top = v_set(LCX_MASKED);
    if (adjusts || lo[r] > 0 || hi[r] < LCX_SPAN) LCX_FN(adjust)(w, r, (float)(view[r].stand - x));
    for (j = 0; j < 16; j += v_width) {
      v_f32 a = v_max(v_load(s + j), v_load(s + j + 16));
      v_f32 b = v_max(v_load(s + j + 32), v_load(s + j + 48));
      top = v_max(top, v_max(a, b));
    }
    most = LCX_FN(hmax)(top);
    m[r] = most > old ? most : old;
    rescale[r] = old - m[r];
  }
  /* a lone row's is set: a vector load would wait for its store */
  for (r = first; r < end; r += v_width)
    v_store(rescale + r, LCX_FN(exp2)(end - first > 1 ? v_load(rescale + r) : v_set(rescale[r])));
  s = w->s + first * LCX_SPAN;
  lane += first * 16;
  for (r = first; r < end; ++r, s += LCX_SPAN, lane += 16) {
    v_f32 top = v_set(m[r]), f = v_set(rescale[r]);
    for (j = 0; j < 16; j += v_width) {
      v_f32 a = LCX_FN(exp2)(v_sub(v_load(s + j), top));
      v_f32 b = LCX_FN(exp2)(v_sub(v_load(s + j + 16), top));
      v_f32 c = LCX_FN(exp2)(v_sub(v_load(s + j + 32), top));
      v_f32 d = LCX_FN(exp2)(v_sub(v_load(s + j + 48), top));
      v_store(s + j, a);
      v_store(s + j + 16, b);
      v_store(s + j + 32, c);
      v_store(s + j + 48, d);
      v_store(lane + j, v_fma(v_load(lane + j), f, v_add(v_add(a, b), v_add(c, d))));
    }
  }
}

/* The rows' queries for int8 keys: 14-bit integers at scale max|query|/8191. Their sum, which is
   exact, takes the keys' 128 off again. */
LCX_T static void LCX_FN(quantise_q)(const lcx_work *w)
{
  int r, d, i, dims = w->head_dim, ints = (dims + 3) / 4 * 2;
  v_f32 zero = v_set(0.0f), magic = v_set(12582912.0f), end = v_set((float)dims);
  v_f32 low = v_set(12582912.0f - 8192.0f), high = v_set(12582912.0f + 8192.0f);
  for (r = 0; r < w->n; ++r) {
    const float *q = w->q[LCX_WINDOW] + r * dims;
    float most = LCX_FN(most)(q, dims), lanes[v_width];
    int32_t *to = w->qi + r * ints, some[8];
    v_f32 factor = v_set(most > 0 ? 8191.0f / most : 0.0f), sum = zero;
    for (d = 0; d < 2 * ints; d += v_width) {
      v_f32 x = v_pick(v_add(v_lanes(), v_set((float)d)), end, v_load(q + d), zero);
      v_f32 t = v_fma(x, factor, magic);
      LCX_KEEP(t);
      t = v_pick(t, high, v_pick(low, t, t, magic), magic); /* 8191/most may be infinite */
      sum = v_add(sum, v_sub(t, magic));
      if (d + v_width <= 2 * ints) vq_store(to, d, t);
      else {
        vq_store(some, 0, t);
        memcpy(to + d / 2, some, sizeof *to * (size_t)(ints - d / 2));
      }
    }
    v_store(lanes, sum);
    for (i = 1; i < v_width; ++i) lanes[0] = lanes[0] + lanes[i];
    w->qi_scale[r] = most / 8191.0f;
    w->qi_shift[r] = -128 * (int32_t)lanes[0];
  }
}

/* The rows' weights for int8 values: 8 bits at scale max(weight * value scale)/255. A value
   that no row sees gets scale 0: the stored one may be stale, or NaN. */
LCX_T static void LCX_FN(quantise_w)(const lcx_store *st, const lcx_span *sp, const lcx_work *w,
                                     lcx_hull all)
{
  v_f32 zero = v_set(0.0f), first = v_set((float)all.first), last = v_set((float)all.last);
  float scales[LCX_SPAN];
  int r, j;
  for (j = 0; j < LCX_SPAN; j += v_width) {
    v_f32 a = zero;
    if (j + v_width > all.first && j < all.last)
      a = v_load((const float *)(const void *)(lcx_column(sp, j, 4) + st->scale_v));
    if (j < all.first || j + v_width > all.last) {
      v_f32 token = v_add(v_lanes(), v_set((float)j));
      a = v_pick(token, first, zero, v_pick(token, last, a, zero));
    }
    v_store(scales + j, a);
  }
  for (r = w->first; r < w->end; ++r) {
    float *p = w->s + r * LCX_SPAN, most;
    int32_t *to = w->wi + r * (LCX_SPAN / 2);
    v_f32 top = zero, factor;
    for (j = 0; j < 16; j += v_width) {
      v_f32 a = v_mul(v_load(p + j), v_load(scales + j));
      v_f32 b = v_mul(v_load(p + j + 16), v_load(scales + j + 16));
      v_f32 c = v_mul(v_load(p + j + 32), v_load(scales + j + 32));
      v_f32 d = v_mul(v_load(p + j + 48), v_load(scales + j + 48));
      top = v_max(top, v_max(v_max(a, b), v_max(c, d)));
      v_store(p + j, a);
      v_store(p + j + 16, b);
      v_store(p + j + 32, c);
      v_store(p + j + 48, d);
    }
    most = LCX_FN(hmax)(top);
    factor = v_set(most > 0 ? 255.0f / most : 0.0f);
    w->wi_scale[r] = most / 255.0f;
    for (j = 0; j < LCX_SPAN; j += v_width)
      vw_store(to, j, v_fma(v_load(p + j), factor, v_set(12582912.0f)));
  }
}

/* n stored float16 or bfloat16 to float32, which is exact, so no bit depends on it. */
LCX_T LCX_INLINE void LCX_FN(widen)(int type, const unsigned char *p, ptrdiff_t ahead, int n,
                                    float *to)
{
  int i;
  for (i = 0; i < n; i += v_width) {
    if (i % 32 == 0) LCX_FETCH(p + i * 2 + ahead);
    v_store(to + i, LCX_LOAD_HALF(type, p + i * 2));
  }
}

/* Keys of a span, in whole groups of 16, to [head_dim][64]. */
LCX_T static void LCX_FN(widen_keys)(const lcx_store *st, const lcx_span *sp, lcx_hull part,
                                     float *keys)
{
  int c, d, dims = st->head_dim, type = st->type_k, step = st->tile * 2;
  ptrdiff_t ahead = sp->fetch_widen ? sp->ahead : 0;
  for (c = part.first / 16 * 16; c < part.last; c += 16) {
    const unsigned char *p = lcx_column(sp, c, 2);
    float *to = keys + c;
    for (d = 0; d < dims; ++d, p += step, to += LCX_SPAN)
      if (type == LONGCTX_F16) LCX_FN(widen)(LONGCTX_F16, p, ahead, 16, to);
      else LCX_FN(widen)(LONGCTX_BF16, p, ahead, 16, to);
  }
}

/* Values of a span to panels of [64][<= 64]. */
LCX_T static void LCX_FN(widen_vals)(const lcx_store *st, const lcx_span *sp, lcx_hull part,
                                     float *vals)
{
  int d, t, type = st->type_v;
  ptrdiff_t ahead = sp->fetch_widen ? sp->ahead : 0;
  for (d = 0; d < st->head_dim_v; d += LCX_PANEL) {
    int width = lcx_panel_width(st, d);
    for (t = part.first; t < part.last; ++t) { /* the next token overwrites what hangs over */
      const unsigned char *p = sp->tile[t / 16] + st->val;
      float *to = vals + d * LCX_SPAN + t * width;
      p += lcx_val_at(st, sp->at[t / 16] + t % 16, d);
      if (type == LONGCTX_F16) LCX_FN(widen)(LONGCTX_F16, p, ahead, width, to);
      else LCX_FN(widen)(LONGCTX_BF16, p, ahead, width, to);
    }
  }
}

/* Merges a partial result (m, l, o) into another; o = NULL: a logit that brings no value. */
LCX_T static void LCX_FN(merge)(float *sum_m, float *sum_l, float *sum_o, float m, float l,
                                const float *o, int dims)
{
  float top = m > *sum_m ? m : *sum_m, a, b, r[v_width];
  v_f32 va, vb;
  int d;
  a = LCX_FN(exp2_one)(*sum_m - top);
  b = LCX_FN(exp2_one)(m - top);
  va = v_set(a);
  vb = v_set(b);
  *sum_m = top;
  v_store(r, v_fma(v_set(l), vb, v_mul(v_set(*sum_l), va)));
  *sum_l = r[0];
  for (d = 0; d < dims; d += v_width) {
    v_f32 old = v_mul(v_load(sum_o + d), va);
    v_store(sum_o + d, o ? v_fma(v_load(o + d), vb, old) : old);
  }
}

/* the first n lanes of x to p, or all if n is more */
LCX_T LCX_INLINE void LCX_FN(store_some)(float *p, v_f32 x, int n)
{
  float r[v_width];
  if (v_width == 1 || n >= v_width) v_store(p, x);
  else {
    v_store(r, x);
    memcpy(p, r, sizeof(float) * (size_t)n);
  }
}

/* out[dims] = o / l; 0 where nothing was seen, NaN where l is NaN. A sum of values that overflowed
   comes out as the largest float, of its sign. */
LCX_T static void LCX_FN(finish)(const float *o, float l, int dims, float *out)
{
  v_f32 inverse = v_set(l > 0 ? 1.0f / l : 0.0f), most = v_set(LCX_MAX), least = v_set(-LCX_MAX);
  v_f32 nan = v_set(lcx_float(0x7fc00000u));
  int d;
  for (d = 0; d < dims; d += v_width) {
    v_f32 x = v_fma(v_load(o + d), inverse, v_set(0.0f));
    LCX_FN(store_some)(out + d, lcx_finite(l) ? v_max(v_min(x, most), least) : nan, dims - d);
  }
}

/* ---- memory: what fixes the bits is the chain over dims per (row, column), the chain over tokens
   per element of M and z, and each word that makes a feature or settles a sum; tiling is free */

/* ELU + 1: x + 1 above 0, e^x below; 0 below -69 */
LCX_T LCX_INLINE v_f32 LCX_FN(elu)(v_f32 x)
{
  v_f32 zero = v_set(0.0f), e = v_fma(v_min(x, zero), v_set((float)LCX_LOG2E), zero);
  return v_pick(zero, x, v_add(x, v_set(1.0f)), LCX_FN(exp2)(e));
}

/* features of x[dims] into column phi of [dims][16]; x has 16 floats to spare */
LCX_T static void LCX_FN(feature)(const float *x, int dims, float *phi)
{
  float f[v_width];
  int d, i;
  for (d = 0; d < dims; d += v_width) {
    v_store(f, LCX_FN(elu)(v_load(x + d)));
    for (i = 0; i < lcx_min(v_width, dims - d); ++i) phi[(d + i) * LCX_STRIP] = f[i];
  }
}

/* c = a . b, or with `onto` c += a . b, for rows*strips (4 or 1) rows of 16 floats: per element one
   chain of fma over k in from..to-1. a has (row, k) at row*row_a + k*k_a; b and c have rows of 16,
   their strips strip_b and strip_c apart. `ahead`: floats in b, to prefetch. */
LCX_T LCX_INLINE void LCX_FN(product_tile)(int rows, int strips, const float *a, int row_a,
                                           int k_a, const float *b, size_t strip_b, int from,
                                           int to, float *c, size_t strip_c, int onto,
                                           size_t ahead)
{
  v_f32 acc[4][LCX_STRIP / v_width], x;
  int i, j, k;
  LCX_UNROLL for (i = 0; i < rows * strips; ++i) {
    const float *y = c + (size_t)(i % strips) * strip_c + i / strips * LCX_STRIP;
    LCX_UNROLL for (j = 0; j < LCX_STRIP / v_width; ++j)
      acc[i][j] = onto ? v_load(y + j * v_width) : v_set(0.0f);
  }
  for (k = from; k < to; ++k) {
    LCX_UNROLL for (i = 0; i < strips; ++i)
      LCX_FETCH(b + (size_t)i * strip_b + (size_t)k * LCX_STRIP + ahead);
    LCX_UNROLL for (i = 0; i < rows * strips; ++i) {
      const float *y = b + (size_t)(i % strips) * strip_b + k * LCX_STRIP;
      x = v_all(a + i / strips * row_a + k * k_a);
      LCX_UNROLL for (j = 0; j < LCX_STRIP / v_width; ++j)
        acc[i][j] = v_fma(v_load(y + j * v_width), x, acc[i][j]);
    }
  }
  LCX_UNROLL for (i = 0; i < rows * strips; ++i) {
    float *y = c + (size_t)(i % strips) * strip_c + i / strips * LCX_STRIP;
    LCX_UNROLL for (j = 0; j < LCX_STRIP / v_width; ++j) v_store(y + j * v_width, acc[i][j]);
  }
}

/* The same for all rows and strips: four rows share a strip of b, or fewer rows take four strips
   each, so that chains overlap and b comes from memory once. */
LCX_T LCX_OUTLINE void LCX_FN(product)(int rows, int strips, const float *a, int row_a, int k_a,
                                       const float *b, size_t strip_b, int from, int to, float *c,
                                       size_t strip_c, int onto)
{
  int s, r, wide, tall;
  for (s = 0; s < strips; s += wide, b += (size_t)wide * strip_b, c += (size_t)wide * strip_c) {
    size_t ahead;
    wide = v_width > 1 && rows < 4 && strips - s >= 4 ? 4 : 1; /* scalars: no such registers */
    ahead = s + wide < strips ? (size_t)wide * strip_b : 0; /* the next strips, early */
    for (r = 0; r < rows; r += tall) {
      const float *x = a + r * row_a;
      float *y = c + r * LCX_STRIP;
      tall = v_width > 1 && wide == 1 && rows - r >= 4 ? 4 : 1;
      if (wide == 4)
        LCX_FN(product_tile)(1, 4, x, row_a, k_a, b, strip_b, from, to, y, strip_c, onto,
                             ahead);
      else if (tall == 4)
        LCX_FN(product_tile)(4, 1, x, row_a, k_a, b, strip_b, from, to, y, strip_c, onto,
                             ahead);
      else
        LCX_FN(product_tile)(1, 1, x, row_a, k_a, b, strip_b, from, to, y, strip_c, onto,
                             ahead);
    }
  }
}

/* What the first n of 16 columns of features recall: phi M / phi z, or 0 unless phi z > 0; to
   [strips][16][16]. */
LCX_T static void LCX_FN(recall)(const lcx_memory *m, const float *settled, const float *phi,
                                 int n, float *to)
{
  const float *z = settled + lcx_z_at(m);
  v_f32 zero = v_set(0.0f), most = v_set(LCX_MAX), least = v_set(-LCX_MAX);
  float sum[LCX_STRIP];
  int s, r, d, j;
  for (j = 0; j < LCX_STRIP; j += v_width) {
    v_f32 a = zero;
    for (d = 0; d < m->dims; ++d) a = v_fma(v_load(phi + d * LCX_STRIP + j), v_set(z[d]), a);
    v_store(sum + j, a);
  }
  LCX_FN(product)(n, m->strips, phi, 1, LCX_STRIP, settled, (size_t)m->dims * LCX_STRIP, 0,
                  m->dims, to, LCX_STRIP * LCX_STRIP, 0);
  for (s = 0; s < m->strips; ++s)
    for (r = 0; r < n; ++r)
      for (j = 0; j < LCX_STRIP; j += v_width) {
        float *y = to + (s * LCX_STRIP + r) * LCX_STRIP + j;
        v_f32 l = v_set(sum[r]), x = v_pick(zero, l, v_div(v_load(y), l), zero);
        v_store(y, v_max(v_min(x, most), least));
      }
}

/* out = gate*recalled + (1 - gate)*out */
LCX_T static void LCX_FN(blend)(const float *recalled, float gate, int dims, float *out)
{
  v_f32 g = v_set(gate), rest = v_sub(v_set(1.0f), g);
  float x[v_width];
  int d;
  memset(x, 0, sizeof x);
  for (d = 0; d < dims; d += v_width) {
    const float *from = out + d;
    if (v_width > 1 && dims - d < v_width) {
      memcpy(x, from, sizeof(float) * (size_t)(dims - d));
      from = x;
    }
    LCX_FN(store_some)(out + d, v_fma(g, v_load(recalled + d), v_mul(rest, v_load(from))),
                       dims - d);
  }
}

/* 1 in each lane where |x| < limit fails, as it does for NaN; else 0 */
LCX_T LCX_INLINE v_f32 LCX_FN(beyond)(v_f32 x, float limit)
{
  v_f32 zero = v_set(0.0f);
  return v_pick(v_max(x, v_sub(zero, x)), v_set(limit), zero, v_set(1.0f));
}

/* dim d of v_width stored keys from `token` on, as float32 */
LCX_T LCX_INLINE v_f32 LCX_FN(stored_key)(const lcx_store *st, const unsigned char *tile, int token,
                                          int d)
{
  const unsigned char *p = tile + lcx_key_at(st, d, token);
  if (st->type_k == LONGCTX_Q8) {
    float x[v_width];
    int i;
    for (i = 0; i < v_width; ++i) x[i] = (float)((int)p[4 * i] - 128);
    return v_fma(v_load(x), v_load((const float *)(const void *)(tile + st->scale_k) + token),
                 v_set(0.0f));
  }
  return LCX_LOAD(st->type_k, p);
}

/* Keys of 16 tokens, rotated back, to phi as features; reject[t] > 0: key t is not to be folded. */
LCX_T LCX_OUTLINE void LCX_FN(fold_keys)(lcx_work *w, const lcx_store *st,
                                         const unsigned char *tile, int at, int half,
                                         float *reject)
{
  float most = st->type_k == LONGCTX_F16 ? 65504.0f : LCX_INFINITY;
  int d, j;
  for (j = 0; j < LCX_STRIP; j += v_width) {
    v_f32 bad = v_set(0.0f), zero = bad;
    float *phi = w->phi + j;
    for (d = 0; d < st->head_dim; ++d) {
      v_f32 x = LCX_FN(stored_key)(st, tile, at + j, d);
      bad = v_max(LCX_FN(beyond)(x, most), bad);
      v_store(phi + d * LCX_STRIP, x);
    }
    for (d = 0; d < half; ++d) {
      float *a = phi + d * LCX_STRIP, *b = a + half * LCX_STRIP;
      const float *turn = w->back + d * 2 * LCX_STRIP + j;
      v_f32 x = v_load(a), y = v_load(b), c = v_load(turn), s = v_load(turn + LCX_STRIP);
      v_store(a, v_fma(x, c, v_mul(y, v_sub(zero, s))));
      v_store(b, v_fma(y, c, v_mul(x, s)));
    }
    for (d = 0; d < st->head_dim; ++d) {
      v_f32 x = v_load(phi + d * LCX_STRIP);
      bad = v_max(LCX_FN(beyond)(x, LCX_FOLDED), bad);
      v_store(phi + d * LCX_STRIP, LCX_FN(elu)(x));
    }
    v_store(reject + j, bad);
  }
}

/* A token's values to row t of val's strips; returns 1 if they must not be folded. */
LCX_T LCX_OUTLINE int LCX_FN(fold_val)(lcx_work *w, const lcx_store *st, const unsigned char *tile,
                                       int token, int t)
{
  const unsigned char *val = tile + st->val;
  int d, i, end = lcx_up(st->head_dim_v, LCX_STRIP), size = lcx_elem(st->type_v);
  float limit = st->type_v == LONGCTX_F16 ? 65504.0f : LCX_FOLDED, *x = w->line;
  v_f32 bad = v_set(0.0f), scale = v_set(1.0f);
  if (st->type_v == LONGCTX_Q8) {
    scale = v_set(((const float *)(const void *)(tile + st->scale_v))[token]);
    for (d = 0; d < st->head_dim_v; ++d) x[d] = (float)(int8_t)val[lcx_val_at(st, token, d)];
  } else {
    for (d = 0; d < st->head_dim_v; d += LCX_PANEL) {
      const unsigned char *p = val + lcx_val_at(st, token, d);
      for (i = 0; i < lcx_panel_width(st, d); i += v_width)
        v_store(x + d + i, LCX_LOAD(st->type_v, p + i * size));
    }
  }
  for (d = st->head_dim_v; d < end; ++d) x[d] = 0;
  for (d = 0; d < end; d += v_width) {
    v_f32 a = v_load(x + d);
    if (st->type_v == LONGCTX_Q8) a = v_fma(a, scale, v_set(0.0f));
    bad = v_max(LCX_FN(beyond)(a, limit), bad);
    v_store(w->val + (d / LCX_STRIP * LCX_STRIP + t) * LCX_STRIP + d % LCX_STRIP, a);
  }
  return LCX_FN(hmax)(bad) > 0;
}

/* Adds tokens first..last-1, of the 16 from `at` in a tile, to what is on its way to M and z. */
LCX_T static void LCX_FN(fold)(const lcx_memory *m, lcx_work *w, const lcx_store *st,
                               const unsigned char *tile, int at, int first, int last, int half,
                               int delta, float *settled)
{
  float *way = settled + m->floats, *z = way + lcx_z_at(m);
  float reject[LCX_STRIP];
  int s, t, d, j;
  LCX_FN(fold_keys)(w, st, tile, at, half, reject);
  for (t = first; t < last; ++t)
    if (LCX_FN(fold_val)(w, st, tile, at + t, t) || reject[t] > 0) { /* both 0: 0 * inf is NaN */
      for (d = 0; d < m->dims; ++d) w->phi[d * LCX_STRIP + t] = 0;
      for (s = 0; s < m->strips; ++s)
        memset(w->val + (s * LCX_STRIP + t) * LCX_STRIP, 0, LCX_STRIP * sizeof(float));
    }
  if (delta) {
    LCX_FN(recall)(m, settled, w->phi, last, w->recalled);
    for (s = 0; s < m->strips; ++s)
      for (t = first; t < last; ++t)
        for (j = 0; j < LCX_STRIP; j += v_width) {
          int i = (s * LCX_STRIP + t) * LCX_STRIP + j;
          v_f32 x = v_sub(v_load(w->val + i), v_load(w->recalled + i));
          v_store(w->val + i, v_max(v_min(x, v_set(LCX_FOLDED)), v_set(-LCX_FOLDED)));
        }
  }
  LCX_FN(product)(m->dims, m->strips, w->phi, LCX_STRIP, 1, w->val, LCX_STRIP * LCX_STRIP, first,
                  last, way, (size_t)m->dims * LCX_STRIP, 1);
  for (d = 0; d < m->dims; ++d) {
    float x = z[d];
    for (t = first; t < last; ++t) x = x + w->phi[d * LCX_STRIP + t];
    z[d] = x;
  }
}

/* x += more; what rounding took goes to `rest`, or onto it (two-sum: exact). `more` may be `rest`.
   x is clamped to LCX_STOCK. So a sum that grows for ever still takes in small addends. */
LCX_T static void LCX_FN(sum)(float *x, const float *more, float *rest, int n, int onto)
{
  v_f32 most = v_set(LCX_STOCK), least = v_set(-LCX_STOCK);
  int i;
  for (i = 0; i < n; i += v_width) {
    v_f32 a = v_load(x + i), b = v_load(more + i), s = v_add(a, b), c, e;
    LCX_KEEP(s);
    c = v_sub(s, a);
    LCX_KEEP(c);
    e = v_sub(s, c);
    LCX_KEEP(e);
    e = v_add(v_sub(a, e), v_sub(b, c));
    v_store(x + i, v_max(v_min(s, most), least));
    v_store(rest + i, onto ? v_add(v_load(rest + i), e) : e);
  }
}

static const lcx_kernels LCX_FN(kernels) = {
    v_direct,           LCX_FN(shapes),     LCX_FN(turn),       LCX_FN(hold),
    LCX_FN(rotate),     LCX_FN(most),       LCX_FN(round),      LCX_FN(narrow),
    LCX_FN(widen_keys), LCX_FN(widen_vals), LCX_FN(soften),     LCX_FN(quantise_q),
    LCX_FN(quantise_w), LCX_FN(merge),      LCX_FN(finish),     LCX_FN(feature),
    LCX_FN(recall),     LCX_FN(blend),      LCX_FN(fold),       LCX_FN(sum)};

#undef v_width
#undef v_f32
#undef v_i32
#undef LCX_T
#undef vw_quad
#undef vq_store
#undef vw_store
#undef LCX_LOAD_HALF
#undef LCX_LOAD
#undef v_set
#undef v_all
#undef v_load
#undef v_store
#undef v_load_f16
#undef v_load_bf16
#undef v_store_f16
#undef v_add
#undef v_sub
#undef v_mul
#undef v_div
#undef v_fma
#undef v_max
#undef v_min
#undef v_pick
#undef v_lanes
#undef v_exp2i
#undef vi_load
#undef vi_zero
#undef v_from_int
#undef vq_zero
#undef vq_dot
#undef vq_sum
#undef vw_dot
#undef vw_sum
#undef v_shapes_half
#undef v_shapes_f32
#undef v_shapes_q8
#undef v_direct
#undef LCX_FN
#endif /* LCX_PASS: rooms 5 and 6 */

#if !defined(LCX_PASS) || defined(LONGCTX_NO_DISPATCH)
#undef LCX_PASS

/* ============================================================================================ */
/* == 7 PASSES ==                                                                               */
/* Rooms 5 and 6 read once per instruction set; which of them this machine can run.             */

#ifndef LONGCTX_NO_DISPATCH
#if !LCX_SMALL || !LCX_BASE_FMA
#define LCX_PASS LCX_SCALAR
#include LONGCTX_FILENAME
#undef LCX_PASS
#endif
#if LCX_BASE_FMA || LCX_X86 && LCX_GNU
#define LCX_PASS LCX_SCALAR_FMA
#include LONGCTX_FILENAME
#undef LCX_PASS
#endif
#if LCX_X86
#define LCX_PASS LCX_SSE2
#include LONGCTX_FILENAME
#undef LCX_PASS
#define LCX_PASS LCX_AVX2
#include LONGCTX_FILENAME
#undef LCX_PASS
#define LCX_PASS LCX_AVX512
#include LONGCTX_FILENAME
#undef LCX_PASS
#endif
#if LCX_ARM
#define LCX_PASS LCX_NEON
#include LONGCTX_FILENAME
#undef LCX_PASS
#endif
#if LCX_WEB
#define LCX_PASS LCX_WASM
#include LONGCTX_FILENAME
#undef LCX_PASS
#endif
#endif
#if LCX_GNU && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

static const lcx_kernels *lcx_kernels_of(int isa)
{
  switch (isa) {
#ifdef LCX_HAVE_SCALAR
  case LCX_SCALAR: return &lcx_kernels_scalar;
#endif
#ifdef LCX_HAVE_SCALAR_FMA
  case LCX_SCALAR_FMA: return &lcx_kernels_scalar_fma;
#endif
#ifdef LCX_HAVE_SSE2
  case LCX_SSE2: return &lcx_kernels_sse2;
#endif
#ifdef LCX_HAVE_AVX2
  case LCX_AVX2: return &lcx_kernels_avx2;
#endif
#ifdef LCX_HAVE_AVX512
  case LCX_AVX512: return &lcx_kernels_avx512;
#endif
#ifdef LCX_HAVE_NEON
  case LCX_NEON: return &lcx_kernels_neon;
#endif
#ifdef LCX_HAVE_WASM
  case LCX_WASM: return &lcx_kernels_wasm;
#endif
  default: return NULL;
  }
}

#if LCX_X86
static void lcx_cpuid(unsigned leaf, unsigned r[4])
{
#ifdef _MSC_VER
  __cpuidex((int *)r, (int)leaf, 0);
#else
  r[0] = r[1] = r[2] = r[3] = 0;
  if ((unsigned)__get_cpuid_max(0, NULL) >= leaf) __cpuid_count(leaf, 0, r[0], r[1], r[2], r[3]);
#endif
}

/* GenuineIntel, as leaf 0 spells it */
static int lcx_is_intel(const unsigned zero[4])
{
  return (zero[1] == 0x756e6547u) & (zero[3] == 0x49656e69u) & (zero[2] == 0x6c65746eu);
}

/* On Intel's processors a conversion of halves takes the place of one or two multiply-adds;
   elsewhere it runs beside them. And they begin two multiply-adds of 512 bits at once; where it is
   one, a lone row, which has few chains, is faster in vectors of half the length. */
static int lcx_on_intel(void)
{
  unsigned zero[4];
  lcx_cpuid(0, zero);
  return lcx_is_intel(zero);
}
#else
static int lcx_on_intel(void) { return 0; }
#endif

/* A lone row reads one stream, `bytes` long over all layers. AMD processors prefetch it best by
   themselves and our hints slow them down; without hints Intel's leave a third of the memory's rate
   unused, unless it all stays in a core's own cache. */
static int lcx_fetches_alone(uint64_t bytes) { return lcx_on_intel() & (bytes > (2 << 20)); }

#if LCX_X86 && !defined(LONGCTX_NO_DISPATCH)
/* Do cpuid leaves 1 and 7 have isa, and does the system save its registers (kept: XCR0)? */
static int lcx_has(int isa, const unsigned one[4], const unsigned seven[4], unsigned kept)
{
  if (isa == LCX_SCALAR || isa == LCX_SSE2) return 1;
  if ((kept & 6) != 6 || !(one[2] >> 28 & 1) || !(one[2] >> 12 & 1)) return 0; /* AVX, FMA */
  if (isa == LCX_SCALAR_FMA) return 1;
  if (!(one[2] >> 29 & 1) || !(seven[1] >> 5 & 1)) return 0; /* F16C, AVX2 */
  if (isa == LCX_AVX2) return 1;
  return (kept & 0xe0) == 0xe0 && (seven[1] >> 16 & 1) && (seven[1] >> 30 & 1) && /* F, BW */
         (seven[1] >> 31) && (seven[2] >> 11 & 1);                                /* VL, VNNI */
}

static int lcx_runs(int isa)
{
  unsigned one[4], seven[4], kept = 0;
  lcx_cpuid(1, one);
  lcx_cpuid(7, seven);
  if (one[2] >> 27 & 1) { /* OSXSAVE: xgetbv is allowed */
#ifdef _MSC_VER
    kept = (unsigned)_xgetbv(0);
#else
    unsigned high;
    __asm__ volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    (void)high;
#endif
  }
  return lcx_has(isa, one, seven, kept);
}
#else
static int lcx_runs(int isa) { return isa >= 0; }
#endif

static int lcx_available(int isa)
{
  return lcx_kernels_of(isa) != NULL && lcx_runs(isa);
}

/* Sets that can be in one build are numbered from slow to fast. */
static int lcx_best_isa(void)
{
  int isa = LCX_ISAS - 1;
  while (!lcx_available(isa)) --isa; /* a build has at least one that always runs */
  return isa;
}

/* ============================================================================================ */
/* == 8 PLAN ==                                                                                 */
/* A desc, resolved and checked; the one layout function behind size, measure, init and load.   */

/* What a wish says of a layer. */
typedef struct lcx_wish_layer {
  int32_t window, block, positions, rope, rope_dims, kv_from;
  float rope_mscale, scale, softcap;
  int32_t n_freqs; /* 0 or rope_dims/2 */
  int32_t memory, feedback;
  double rope_base;
} lcx_wish_layer;

/* The desc as a block and a state file hold it: fixed widths, defaults filled in. n_layers
   lcx_wish_layer follow if the caller gave layers, then the frequency tables: the desc's, then each
   layer's. */
typedef struct lcx_wish {
  int32_t n_layers, n_heads, n_kv_heads, head_dim, head_dim_v, sinks, max_batch, type_k, type_v;
  int32_t has_layers;
  float alibi_max_bias;
  int32_t bytes; /* of the wish, layers and tables included */
  int32_t memory_first, feedback_len, feedback_dim, zero; /* zero: padding */
  lcx_wish_layer base;
} lcx_wish;

/* How many layers a wish lists, and where its tables begin, from the wish's own start. */
static int lcx_listed(const lcx_wish *w) { return w->has_layers ? w->n_layers : 0; }
static uint64_t lcx_tables_at(const lcx_wish *w)
{
  return sizeof *w + (uint64_t)lcx_listed(w) * sizeof(lcx_wish_layer);
}

/* Fields that longctx_desc, longctx_layer and the wish share unchanged. */
#define LCX_LAYER_FIELDS(X)                                                                      \
  X(window) X(block) X(positions) X(rope) X(rope_dims) X(rope_base) X(rope_mscale) X(scale)      \
  X(softcap) X(memory)
#define LCX_DESC_FIELDS(X)                                                                       \
  X(n_layers) X(n_heads) X(n_kv_heads) X(head_dim) X(head_dim_v) X(sinks) X(max_batch) X(type_k) \
  X(type_v) X(alibi_max_bias) X(memory_first) X(feedback_len) X(feedback_dim)

/* One layer as it runs; offsets count from the context's first byte. */
typedef struct lcx_layer {
  int32_t window, block, positions, rope, half; /* half: pairs that rotate */
  int32_t source;                               /* layer that holds keys and values */
  float mscale, scale, cap;                     /* scale and cap in base 2 */
  int32_t reader;                               /* 1: a kv_from layer, stores no tokens */
  uint64_t steps;  /* uint64_t [half] */
  uint64_t ring[3], head[3]; /* window, sinks, feedback: first head's tiles; bytes per KV head */
  uint64_t memory_at;        /* first KV head's memory; the others follow */
  uint64_t fed_at;           /* feedback: rows [F][feedback_dim], queries [F][heads][head_dim] */
  int32_t memory, fed_rows;  /* a rule; feedback rows that its tokens see */
  lcx_store store[3];
} lcx_layer;

/* A layer's flags and its count of tokens in the open batch. */
typedef struct lcx_live {
  int32_t tokens;
  int32_t has_logits;
  int32_t fed_set, zero; /* its feedback was set since it became due; padding */
} lcx_live;

typedef struct lcx_plan {
  uint64_t layers, live, slopes, scratch, partials, list; /* offsets; list: of get_desc's layers */
  uint64_t work, partial; /* bytes of scratch for a part; floats of a partial result */
  uint64_t window, memory, feedback, total; /* bytes of each kind, and of the block */
  uint64_t logits, gates; /* float [n_layers][n_heads]: base 2; if a layer remembers */
  int32_t segments; /* most that one batch can see, sinks, feedback, memory included */
  int32_t rows;     /* most rows in one pass */
  int32_t split_rows; /* most rows of a KV head that parts share by segments */
  int32_t block;    /* of the layers that remember or have feedback, 0 = none */
} lcx_plan;

/* What a block and a state file begin with. */
typedef struct lcx_label {
  char magic[8];
  uint32_t version, probe;
} lcx_label;

struct longctx {
  lcx_label label;
  int32_t max_threads;
  int16_t isa;                     /* this and the next two are chosen for the machine */
  int8_t fetch_alone, on_intel;    /* as in lcx_work */
  int64_t start, position;  /* 0 or seek's; of the next token */
  lcx_plan plan;
  lcx_wish wish; /* last: its layers and tables follow */
};

#define LCX_MAGIC "longctx" /* with its zero, 8 bytes */
#define LCX_FORMAT 2
#define LCX_PROBE 0x01020304u /* reads differently in the other byte order */
#define LCX_GUARD 256         /* bytes that kernels may read past the last tile */

static void lcx_wish_layer_from(const longctx_layer *l, int head_dim, lcx_wish_layer *w)
{
  memset(w, 0, sizeof *w);
#define LCX_X(field) w->field = l->field;
  LCX_LAYER_FIELDS(LCX_X)
#undef LCX_X
  w->feedback = l->feedback;
  w->kv_from = l->kv_from;
  if (!w->block) w->block = 1;
  if (!w->rope_dims) w->rope_dims = head_dim & ~1;
  if (w->rope == LONGCTX_ROPE_NONE) w->rope_dims = 0;
  if (w->rope_base == 0) w->rope_base = 10000;
  if (!(lcx_bits(w->rope_mscale) << 1)) w->rope_mscale = 1;
  if (!(lcx_bits(w->scale) << 1)) w->scale = (float)(1.0 / lcx_sqrt(head_dim));
  if (!(lcx_bits(w->softcap) << 1)) w->softcap = 0; /* not -0: descs are compared by bytes */
  w->n_freqs = l->rope_freqs ? w->rope_dims / 2 : 0;
}

static void lcx_wish_from(const longctx_desc *d, lcx_wish *w)
{
  longctx_layer base = longctx_layer_make(d);
  memset(w, 0, sizeof *w);
#define LCX_X(field) w->field = d->field;
  LCX_DESC_FIELDS(LCX_X)
#undef LCX_X
  w->has_layers = d->layers != NULL;
  if (!w->head_dim_v) w->head_dim_v = d->head_dim;
  if (!w->max_batch) w->max_batch = 1;
  if (!(lcx_bits(w->alibi_max_bias) << 1)) w->alibi_max_bias = 0;
  if (d->feedback_len && !d->feedback_dim) /* unsigned: neither was checked yet */
    w->feedback_dim = (int32_t)((uint32_t)d->n_heads * (uint32_t)d->head_dim);
  lcx_wish_layer_from(&base, d->head_dim, &w->base);
  if (d->layers) w->base.feedback = 0; /* each layer says whether it has rows */
}

/* Layer i's wish, from a caller's desc, or if that is NULL from behind w, which lies in a block;
   i = -1 is the desc's own. */
static void lcx_wish_layer_at(const longctx_desc *d, const lcx_wish *w, int i, lcx_wish_layer *l)
{
  if (i < 0 || !w->has_layers) *l = w->base;
  else if (d) lcx_wish_layer_from(&d->layers[i], w->head_dim, l);
  else memcpy(l, (const unsigned char *)w + sizeof *w + (size_t)i * sizeof *l, sizeof *l);
}

/* Layer i's frequency table, or the desc's own: i = -1. */
static const double *lcx_freqs_of(const longctx_desc *d, int i)
{
  return i < 0 ? d->rope_freqs : d->layers[i].rope_freqs;
}

#define LCX_WANT(ok, sentence)                                                                   \
  do {                                                                                           \
    if (!(ok)) return sentence;                                                                  \
  } while (0)
#define LCX_IN(x, low, high) ((x) >= (low) && (x) <= (high))

static const char *lcx_check_freqs(const double *f, int n)
{
  int i;
  for (i = 0; i < n; ++i) {
    LCX_WANT(lcx_finite_double(f + i) && LCX_IN(f[i], -1e6, 1e6),
             "rope_freqs holds a value that is not finite or beyond +-1e6: give radians per token");
  }
  return NULL;
}

static const char *lcx_check_layer(const lcx_wish *w, const lcx_wish_layer *l)
{
  LCX_WANT(LCX_IN(l->window, 1, 1 << 30),
           "window is below 1 or above 2^30: give how many keys a query sees, its own included");
  LCX_WANT(LCX_IN(l->block, 1, 1 << 30),
           "block is negative or above 2^30: give 1 for a sliding window (0 means 1)");
  LCX_WANT(l->window % l->block == 0,
           "block does not divide window: make window a multiple of block");
  LCX_WANT(LCX_IN(l->positions, LONGCTX_POS_CACHE, LONGCTX_POS_TEXT),
           "positions is not LONGCTX_POS_CACHE or LONGCTX_POS_TEXT: give one of them");
  LCX_WANT(LCX_IN(l->rope, LONGCTX_ROPE_NONE, LONGCTX_ROPE_INTERLEAVED),
           "rope is not LONGCTX_ROPE_NONE, _HALF or _INTERLEAVED: give one of them");
  LCX_WANT(LCX_IN(l->rope_dims, 0, w->head_dim) && l->rope_dims % 2 == 0,
           "rope_dims is negative, odd or above head_dim: give an even number of dims");
  LCX_WANT(lcx_finite_double(&l->rope_base) && LCX_IN(l->rope_base, 1, 1e18),
           "rope_base is below 1, above 1e18 or not finite: give theta (0 means 10000)");
  LCX_WANT(lcx_finite(l->rope_mscale) && LCX_IN(l->rope_mscale, 1e-6f, 16),
           "rope_mscale is below 1e-6 or above 16: give the factor on cos and sin (0 means 1)");
  LCX_WANT(lcx_finite(l->scale) && LCX_IN(l->scale, -1e6f, 1e6f),
           "scale is not finite or beyond +-1e6: give the factor on q.k (0: 1/sqrt(head_dim))");
  LCX_WANT(lcx_finite(l->softcap) && LCX_IN(l->softcap, 0, 1e6f),
           "softcap is negative, above 1e6 or not finite: give the cap on scores (0 means none)");
  LCX_WANT(l->softcap <= 0 || l->softcap >= 1e-3f,
           "softcap is above 0 but below 1e-3: give the cap on scores (0 means none)");
  LCX_WANT(l->n_freqs == 0 || l->n_freqs == l->rope_dims / 2,
           "rope_freqs does not hold rope_dims/2 frequencies: give one for each pair");
  LCX_WANT(LCX_IN(l->memory, LONGCTX_MEMORY_NONE, LONGCTX_MEMORY_DELTA),
           "memory is not LONGCTX_MEMORY_NONE, _LINEAR or _DELTA: give one of them");
  LCX_WANT(!l->memory || l->block > 1,
           "memory needs a block: make block above 1 (window = block is the paper's segment)");
  LCX_WANT(LCX_IN(l->feedback, 0, 1) && l->feedback <= w->feedback_len,
           "feedback is not 0 or 1, or is 1 without rows: give 0, or 1 and a feedback_len");
  LCX_WANT(!l->feedback || (l->block > 1 && w->feedback_len <= l->block),
           "feedback_len is above block, or block is 1: raise block (rows stand at its end)");
  return NULL;
}

static const char *lcx_check_wish(const lcx_wish *w)
{
  LCX_WANT(LCX_IN(w->n_layers, 1, 65536),
           "n_layers is below 1 or above 65536: give the number of layers");
  LCX_WANT(LCX_IN(w->n_heads, 1, 65536),
           "n_heads is below 1 or above 65536: give the query heads of a layer");
  LCX_WANT(LCX_IN(w->n_kv_heads, 1, 65536),
           "n_kv_heads is below 1 or above 65536: give the key and value heads of a layer");
  LCX_WANT(w->n_heads % w->n_kv_heads == 0,
           "n_kv_heads does not divide n_heads: make n_heads a multiple of n_kv_heads");
  LCX_WANT(LCX_IN(w->head_dim, 1, LCX_DIMS),
           "head_dim is below 1 or above 576: give the floats per head of q and k");
  LCX_WANT(LCX_IN(w->head_dim_v, 1, LCX_DIMS),
           "head_dim_v is negative or above 576: give the floats per head of v (0: head_dim)");
  LCX_WANT(LCX_IN(w->sinks, 0, 1 << 30),
           "sinks is negative or above 2^30: give the first tokens to keep, 0 for none");
  LCX_WANT(LCX_IN(w->max_batch, 1, 1 << 20),
           "max_batch is negative or above 2^20: give the most tokens in one attend (0 means 1)");
  LCX_WANT((int64_t)w->max_batch * (w->n_heads / w->n_kv_heads) <= 1 << 30,
           "max_batch times n_heads/n_kv_heads is above 2^30: lower max_batch");
  LCX_WANT(LCX_IN(w->type_k, LONGCTX_F32, LONGCTX_Q8),
           "type_k is not LONGCTX_F32, _F16, _BF16 or _Q8: give one of them");
  LCX_WANT(LCX_IN(w->type_v, LONGCTX_F32, LONGCTX_Q8),
           "type_v is not LONGCTX_F32, _F16, _BF16 or _Q8: give one of them");
  LCX_WANT(lcx_finite(w->alibi_max_bias) && LCX_IN(w->alibi_max_bias, 0, 64),
           "alibi_max_bias is negative, above 64 or not finite: 8 is usual, 0 for no ALiBi");
  LCX_WANT(LCX_IN(w->memory_first, LONGCTX_FIRST_LOCAL, LONGCTX_FIRST_ZERO),
           "memory_first is not LONGCTX_FIRST_LOCAL or LONGCTX_FIRST_ZERO: give one of them");
  LCX_WANT(LCX_IN(w->feedback_len, 0, 65536) &&
               (int64_t)w->feedback_len * (w->n_heads / w->n_kv_heads) <= 1 << 30,
           "feedback_len is negative, above 65536 or above 2^30*n_kv_heads/n_heads: 0 for none");
  LCX_WANT(LCX_IN(w->feedback_dim, w->feedback_len > 0, 1 << 26),
           "feedback_dim is negative or above 2^26: give floats per row (0: n_heads*head_dim)");
  return NULL;
}

/* Checks the whole wish; *bytes becomes its size in a block. */
static const char *lcx_check_all(const longctx_desc *d, const lcx_wish *w, uint64_t *bytes)
{
  const char *bad = lcx_check_wish(w);
  uint64_t n = 0;
  int i, block = 0;
  if (bad) return bad;
  *bytes = lcx_tables_at(w);
  for (i = -1; i < lcx_listed(w); ++i) {
    lcx_wish_layer l, from;
    int shares;
    lcx_wish_layer_at(d, w, i, &l);
    bad = lcx_check_layer(w, &l);
    if (!bad && d && l.n_freqs) bad = lcx_check_freqs(lcx_freqs_of(d, i), l.n_freqs);
    if (bad) return bad;
    n += (uint64_t)l.n_freqs;
    shares = i >= 0 && (l.memory || l.feedback);
    LCX_WANT(!shares || !block || l.block == block,
             "memory or feedback is in layers whose blocks differ: give them all the same block");
    if (shares) block = l.block;
    LCX_WANT(LCX_IN(l.kv_from, -1, i > 0 ? i - 1 : -1),
             "kv_from is below -1 or not a lower layer: give the index of a lower layer, or -1");
    if (l.kv_from < 0) continue;
    lcx_wish_layer_at(d, w, l.kv_from, &from);
    LCX_WANT(from.kv_from < 0,
             "kv_from names a layer that reads another: give the layer that has its own keys");
    LCX_WANT(l.window <= from.window && l.block == from.block,
             "kv_from's layer has a smaller window or another block: lower window or match block");
    LCX_WANT(!l.memory || l.memory == from.memory,
             "kv_from names a layer with another memory rule or none: use its rule, or none");
    LCX_WANT(l.feedback <= from.feedback,
             "kv_from names a layer without feedback: set the reading layer's feedback to 0");
  }
  *bytes += n * sizeof(double);
  return NULL;
}

/* ---- layout -------------------------------------------------------------------------------- */

/* Hands out a block front to back; too much sets `over` and returns 0. */
typedef struct lcx_cursor { uint64_t at; int over; } lcx_cursor;

LCX_OUTLINE uint64_t lcx_take(lcx_cursor *c, uint64_t count, uint64_t bytes, uint64_t align)
{
  const uint64_t limit = SIZE_MAX > (uint64_t)1 << 62 ? (uint64_t)1 << 62 : SIZE_MAX - 63;
  uint64_t at = (c->at + align - 1) / align * align; /* align divides limit, so at <= limit */
  if (c->over || (bytes && count > (limit - at) / bytes)) {
    c->over = 1;
    return 0;
  }
  c->at = at + count * bytes;
  return at;
}

/* What a part leaves at the end of its working space for join. */
typedef struct lcx_ticket {
  int32_t parts; /* lcx_useful_parts of the call; 0 = nothing to join */
  int32_t layer, n, wrote;
} lcx_ticket;

/* The next piece of a working space, aligned to the largest power of two that divides `bytes`. */
LCX_OUTLINE void *lcx_piece(unsigned char *base, size_t *at, size_t count, size_t bytes)
{
  size_t align = bytes & (0 - bytes), from = (*at + align - 1) & (0 - align);
  *at = from + count * bytes;
  return base ? base + from : NULL;
}

/* One part's working space: carved from `base`, or only measured where it is NULL. Long vectors
   must not straddle cache lines: first come arrays of whole lines, then those that take whole lines
   where head_dim is a multiple of 16, then the rest. Bounds on rows, dims keep it below 4 MiB. */
static size_t lcx_carve(const lcx_wish *wish, const lcx_plan *p, unsigned char *base, lcx_work *w)
{
  lcx_work none;
  size_t n = (size_t)p->rows, k = (size_t)wish->head_dim, v = (size_t)wish->head_dim_v;
  size_t stride = (size_t)lcx_up(wish->head_dim_v, LCX_PANEL), quads = (k + 3) / 4;
  size_t ints_k = wish->type_k == LONGCTX_Q8 ? n : 0, ints_v = wish->type_v == LONGCTX_Q8 ? n : 0;
  size_t remember = p->memory ? LCX_STRIP : 0, dims = k > v ? k : v, at = 0;
  int i, two = wish->sinks > 0 ? 2 : 1;
  int widens = lcx_widens(wish->type_k, p->rows, LCX_DIRECT) |
               lcx_widens(wish->type_v, p->rows, LCX_DIRECT);
  if (!w) w = &none;
#define LCX_CARVE(type, field, count) w->field = (type *)lcx_piece(base, &at, count, sizeof(type))
  LCX_CARVE(float, wide, widens ? dims * LCX_SPAN + 64 : 0);
  LCX_CARVE(float, s, n * LCX_SPAN);
  LCX_CARVE(float, lane, n * 16);
  LCX_CARVE(float, o, n * stride);
  LCX_CARVE(float, sum_o, n * stride);
  LCX_CARVE(int32_t, wi, ints_v * (LCX_SPAN / 4) * 2);
  LCX_CARVE(float, phi, remember * k);
  LCX_CARVE(float, back, remember * (k / 2 * 2));
  LCX_CARVE(float, val, remember * (size_t)lcx_up(wish->head_dim_v, LCX_STRIP));
  LCX_CARVE(float, recalled, remember * (size_t)lcx_up(wish->head_dim_v, LCX_STRIP));
  LCX_CARVE(float, line, dims + 32);
  LCX_CARVE(float, key, k + 32);
  for (i = 0; i < two; ++i) {
    LCX_CARVE(float, turn[i], 3 * (k / 2 + 16));
    LCX_CARVE(float, q[i], n * k + 16);
    w->turned[i] = LCX_NOWHERE;
  }
  w->q[LCX_FED] = w->q[LCX_WINDOW];
  LCX_CARVE(int32_t, qi, ints_k * quads * 2);
  LCX_CARVE(float, qi_scale, ints_k);
  LCX_CARVE(int32_t, qi_shift, ints_k);
  LCX_CARVE(float, wi_scale, ints_v);
  LCX_CARVE(int, lo, n);
  LCX_CARVE(int, hi, n);
  LCX_CARVE(int, bad, n);
  LCX_CARVE(float, slope, n);
  LCX_CARVE(float, m, n);
  LCX_CARVE(float, l, n);
  LCX_CARVE(float, rescale, n + 16);
  LCX_CARVE(float, sum_m, n);
  LCX_CARVE(float, sum_l, n);
  for (i = 0; i < 3; ++i) LCX_CARVE(lcx_view, view[i], n);
#undef LCX_CARVE
  w->backed = -1;
  w->back_layer = -1;
  if (!(wish->alibi_max_bias > 0)) w->slope = NULL;
  w->n = w->careful = w->fetch_alone = w->on_intel = 0;
  w->head_dim = wish->head_dim;
  w->head_dim_v = wish->head_dim_v;
  w->stride = (int)stride;
  return (at + sizeof(lcx_ticket) + 63) / 64 * 64 + 64; /* 64 spare, for lcx_work_at */
}

static int lcx_threads(const longctx_desc *d) { return d->max_threads ? d->max_threads : 1; }

/* floats of one layer's F feedback rows and their queries */
static uint64_t lcx_fed_floats(const lcx_wish *w)
{
  return (uint64_t)w->feedback_len *
         ((uint64_t)w->feedback_dim + (uint64_t)w->n_heads * (uint64_t)w->head_dim);
}

/* Layer i's record, with room for its rings from the cursor; the caller adds other offsets. */
LCX_OUTLINE void lcx_layer_plan(const lcx_wish *w, const lcx_wish_layer *l, int i, int max_threads,
                                lcx_cursor *c, lcx_layer *y)
{
  int fed = l->feedback ? w->feedback_len : 0;
  /* a token outlives each query that sees it; with feedback one more: a state saved at a block's
     start, with a batch open, holds the block before */
  int64_t kept = (int64_t)l->window + w->max_batch - (fed == 0);
  /* with parts one tile more: the oldest token seen and the newest never share a slot, so that
     no part writes a tile that another part reads */
  int64_t spare = max_threads > 1;
  int64_t tiles16 = (kept + 15) / 16 + spare, tiles64 = (kept + 63) / 64 + spare;
  int tile = tiles64 * 64 * 8 <= kept * 9 ? 64 : 16; /* 64 unless it takes an eighth more */
  int sink_tile = lcx_min(w->sinks, LCX_SPAN);
  /* with parts, lanes past the end of a narrow last panel, or of a short tile's keys, must not fall
     in the next head, which another part may write; whole panels end exactly, and cover the keys */
  int gap = spare && w->head_dim_v % LCX_PANEL ? LCX_GUARD : 0;
  int s;
  memset(y, 0, sizeof *y);
  y->window = l->window;
  y->block = l->block;
  y->positions = l->positions;
  y->rope = l->rope;
  y->half = l->rope_dims / 2; /* 0 without rope */
  y->reader = l->kv_from >= 0;
  y->source = y->reader ? l->kv_from : i;
  y->mscale = l->rope_mscale;
  y->memory = l->memory;
  y->fed_rows = fed;
  y->scale = (float)((double)l->scale * LCX_LOG2E);
  y->cap = (float)((double)l->softcap * LCX_LOG2E);
  lcx_store_make(&y->store[LCX_WINDOW], w->type_k, w->type_v, w->head_dim, w->head_dim_v, tile,
                 gap);
  lcx_store_make(&y->store[LCX_SINKS], LONGCTX_F32, LONGCTX_F32, w->head_dim, w->head_dim_v,
                 sink_tile ? sink_tile : 1, gap);
  lcx_store_make(&y->store[LCX_FED], w->type_k, w->type_v, w->head_dim, w->head_dim_v,
                 lcx_up(lcx_min(fed ? fed : 1, LCX_SPAN), 4), gap);
  y->store[LCX_WINDOW].tiles = (int32_t)(tile == 64 ? tiles64 : tiles16);
  y->store[LCX_SINKS].tiles = (w->sinks + LCX_SPAN - 1) / LCX_SPAN;
  y->store[LCX_FED].tiles = (fed + LCX_SPAN - 1) / LCX_SPAN;
  for (s = 0; s < 3; ++s) {
    y->head[s] = (uint64_t)y->store[s].tiles * y->store[s].bytes;
    if (s < 2 && l->kv_from < 0)
      y->ring[s] = lcx_take(c, (uint64_t)w->n_kv_heads, y->head[s], 64);
  }
}

/* A kv_from layer reads its source's tokens, as its source rotated them. */
static void lcx_layer_share(const lcx_layer *source, lcx_layer *y)
{
  y->positions = source->positions;
  y->rope = source->rope;
  y->half = source->half;
  y->mscale = source->mscale;
  y->steps = source->steps;
  memcpy(y->ring, source->ring, sizeof y->ring);
  memcpy(y->head, source->head, sizeof y->head);
  memcpy(y->store, source->store, sizeof y->store);
  y->memory_at = source->memory_at;
}

/* Most segments that the rows of one batch can see. */
static int64_t lcx_most_segments(const lcx_wish *w, const lcx_wish_layer *l)
{
  int64_t seen = (int64_t)l->window + w->max_batch - 1;
  int64_t fed = l->feedback ? w->feedback_len : 0;
  return (seen + LCX_SEGMENT - 1) / LCX_SEGMENT + 1 + (w->sinks + LCX_SEGMENT - 1) / LCX_SEGMENT +
         (fed + LCX_SEGMENT - 1) / LCX_SEGMENT + (l->memory != 0);
}

/* The one layout. With `mem` it writes the layers' records there, else it only counts. 0, or
   E_DESC when the total exceeds the address space. */
static int lcx_layout(const longctx_desc *d, const lcx_wish *w, int max_threads, unsigned char *mem,
                      lcx_plan *p)
{
  lcx_cursor c = {offsetof(struct longctx, wish), 0};
  uint64_t steps = 0, heads = (uint64_t)w->n_heads, kv_heads = (uint64_t)w->n_kv_heads;
  uint64_t floats = 2 * (uint64_t)lcx_memory_make(w->head_dim, w->head_dim_v).floats;
  int i, group = w->n_heads / w->n_kv_heads, tokens = lcx_min(w->max_batch, LCX_ROWS);
  memset(p, 0, sizeof *p);
  lcx_take(&c, 1, (uint64_t)w->bytes, 8);
  p->layers = lcx_take(&c, (uint64_t)w->n_layers, sizeof(lcx_layer), 8);
  p->live = lcx_take(&c, (uint64_t)w->n_layers, sizeof(lcx_live), 8);
  p->slopes = lcx_take(&c, w->alibi_max_bias > 0 ? heads : 0, sizeof(float), 8);
  p->logits = lcx_take(&c, (uint64_t)w->n_layers * heads, sizeof(float), 8);
  for (i = 0; i < w->n_layers && !c.over; ++i) {
    lcx_wish_layer l;
    lcx_layer y, *list;
    uint64_t before;
    lcx_wish_layer_at(d, w, i, &l);
    if (w->has_layers || i == 0)
      steps = lcx_take(&c, (uint64_t)l.rope_dims / 2, sizeof(uint64_t), 8);
    before = c.at;
    lcx_layer_plan(w, &l, i, max_threads, &c, &y);
    y.steps = steps;
    p->window += c.at - before;
    if (l.memory || l.feedback) p->block = l.block;
    before = c.at;
    if (l.memory && l.kv_from < 0)
      y.memory_at = lcx_take(&c, kv_heads * floats, sizeof(float), 64);
    p->memory += c.at - before;
    before = c.at;
    if (l.feedback && l.kv_from < 0) {
      y.fed_at = lcx_take(&c, lcx_fed_floats(w), sizeof(float), 64);
      y.ring[LCX_FED] = lcx_take(&c, kv_heads, y.head[LCX_FED], 64);
    }
    p->feedback += c.at - before;
    p->segments = (int32_t)lcx_max64(p->segments, lcx_most_segments(w, &l));
    if (!mem) continue;
    list = (lcx_layer *)(void *)(mem + p->layers);
    if (l.kv_from >= 0) lcx_layer_share(&list[l.kv_from], &y);
    list[i] = y;
  }
  p->gates = lcx_take(&c, p->memory ? (uint64_t)w->n_layers * heads : 0, sizeof(float), 8);
  lcx_take(&c, 1, LCX_GUARD, 1);
  p->scratch = lcx_take(&c, 0, 1, 64);
  p->split_rows = lcx_min(tokens * group, LCX_SPLIT);
  if (p->feedback && w->feedback_len > tokens) tokens = lcx_min(w->feedback_len, LCX_ROWS);
  p->rows = lcx_min(lcx_even(tokens * group), LCX_ROWS);
  p->work = lcx_carve(w, p, NULL, NULL);
  lcx_take(&c, (uint64_t)max_threads, p->work, 64);
  p->partial = 2 + (uint64_t)lcx_up(w->head_dim_v, 16);
  p->partials = lcx_take(&c, max_threads > 1 ? kv_heads * (uint64_t)p->split_rows * p->partial : 0,
                         (uint64_t)p->segments * sizeof(float), 64);
  p->list = lcx_take(&c, (uint64_t)lcx_listed(w), sizeof(longctx_layer), 8);
  p->total = c.at;
  return c.over ? LONGCTX_E_DESC : 0;
}

/* All that a desc decides: the wish, its size in bytes, the plan. NULL, or what is wrong. */
static const char *lcx_resolve(const longctx_desc *d, lcx_wish *w, lcx_plan *p)
{
  const char *bad;
  uint64_t bytes = 0;
  LCX_WANT(d != NULL, "the desc is NULL: make one with longctx_desc_make");
  lcx_wish_from(d, w);
  bad = lcx_check_all(d, w, &bytes);
  if (bad) return bad;
  LCX_WANT(LCX_IN(d->max_threads, 0, 1024),
           "max_threads is negative or above 1024: give the most parts of one attend (0 means 1)");
  w->bytes = (int32_t)bytes; /* below 2^28 */
  LCX_WANT(lcx_layout(d, w, lcx_threads(d), NULL, p) == 0,
           "window, sinks, n_layers or another size exceeds the address space: lower it");
  return NULL;
}

LONGCTX_API longctx_desc longctx_desc_make(int n_layers, int n_heads, int n_kv_heads, int head_dim,
                                           int window)
{
  longctx_desc d;
  memset(&d, 0, sizeof d);
  d.n_layers = n_layers;
  d.n_heads = n_heads;
  d.n_kv_heads = n_kv_heads;
  d.head_dim = head_dim;
  d.window = window;
  d.rope = LONGCTX_ROPE_HALF;
  return d;
}

LONGCTX_API longctx_layer longctx_layer_make(const longctx_desc *d)
{
  longctx_layer l;
  memset(&l, 0, sizeof l);
  l.kv_from = -1;
  if (!d) return l;
#define LCX_X(field) l.field = d->field;
  LCX_LAYER_FIELDS(LCX_X)
#undef LCX_X
  l.rope_freqs = d->rope_freqs;
  l.feedback = d->feedback_len > 0;
  return l;
}

LONGCTX_API const char *longctx_check(const longctx_desc *d)
{
  lcx_wish w;
  lcx_plan p;
  return lcx_resolve(d, &w, &p);
}

LONGCTX_API size_t longctx_size(const longctx_desc *d)
{
  longctx_sizes s;
  return longctx_measure(d, &s) ? 0 : s.total;
}

LONGCTX_API int longctx_measure(const longctx_desc *d, longctx_sizes *sizes)
{
  lcx_wish w;
  lcx_plan p;
  if (!d || !sizes) return LONGCTX_E_ARG;
  if (lcx_resolve(d, &w, &p)) return LONGCTX_E_DESC;
  sizes->window = (size_t)p.window;
  sizes->memory = (size_t)p.memory;
  sizes->feedback = (size_t)p.feedback;
  sizes->scratch = (size_t)(p.total - p.scratch);
  sizes->state = (size_t)p.scratch;
  sizes->total = (size_t)p.total;
  return LONGCTX_OK;
}

/* ============================================================================================ */
/* == 9 WINDOW ==                                                                               */
/* Where each token lies, what a query sees, positions.                                         */

/* What lies at an offset; it drops const, so a caller writes only what its own contract says. */
static unsigned char *lcx_at(const longctx *lc, uint64_t offset)
{
  return (unsigned char *)(uintptr_t)lc + offset;
}

static lcx_layer *lcx_layer_of(const longctx *lc, int i)
{
  return (lcx_layer *)(void *)lcx_at(lc, lc->plan.layers) + i;
}

static lcx_live *lcx_live_of(const longctx *lc, int i)
{
  return (lcx_live *)(void *)lcx_at(lc, lc->plan.live) + i;
}

/* A part's working space, on a cache line's border wherever the block lies. */
static unsigned char *lcx_work_at(const longctx *lc, int part)
{
  unsigned char *p = lcx_at(lc, lc->plan.scratch + (uint64_t)part * lc->plan.work);
  return p + (0 - (uintptr_t)p) % 64;
}

static lcx_ticket *lcx_ticket_of(const longctx *lc, int part)
{
  uint64_t end = lc->plan.scratch + (uint64_t)(part + 1) * lc->plan.work;
  return (lcx_ticket *)(void *)lcx_at(lc, end - sizeof(lcx_ticket));
}

/* KV head h's tiles in a store of a layer */
static unsigned char *lcx_ring_of(const longctx *lc, const lcx_layer *y, int which, int h)
{
  return lcx_at(lc, y->ring[which] + (uint64_t)h * y->head[which]);
}

/* query heads that share a KV head */
static int lcx_group(const longctx *lc) { return lc->wish.n_heads / lc->wish.n_kv_heads; }

/* Row r of KV head h is query head r % group of those that share h, at the batch's token r / group.
   That head's number, and the row's index in q and out, [token][n_heads]. */
static int lcx_head_of(const longctx *lc, int h, int r)
{
  int group = lcx_group(lc);
  return h * group + r % group;
}

static size_t lcx_query_of(const longctx *lc, int h, int r)
{
  return (size_t)(r / lcx_group(lc)) * (size_t)lc->wish.n_heads + (size_t)lcx_head_of(lc, h, r);
}

/* first position after the sinks */
static int64_t lcx_after_sinks(const longctx *lc) { return lc->start + lc->wish.sinks; }

/* First position that a query at t sees in the window; `after` is the first after the sinks. */
static int64_t lcx_first_seen(const lcx_layer *y, int64_t after, int64_t t)
{
  return lcx_max64(t - t % y->block + y->block - y->window, after);
}

/* What queries see: so many sinks and feedback rows, and the window's tokens at positions
   from..to-1 (none if to <= from: all are sinks). It is cut into segments in this order, each
   kind's oldest first. */
typedef struct lcx_reach { int64_t sinks, fed, from, to; } lcx_reach;

/* What the queries of tokens first..last see (since < 0), or those of the feedback rows set at
   `since`: the tokens from there on. */
static lcx_reach lcx_reach_of(const longctx *lc, const lcx_layer *y, int64_t since, int64_t first,
                              int64_t last)
{
  lcx_reach r;
  int64_t after = lcx_after_sinks(lc);
  r.fed = y->fed_rows;
  if (since < 0) {
    r.sinks = lcx_min64(last + 1 - lc->start, lc->wish.sinks);
    r.from = lcx_first_seen(y, after, first);
    r.to = last + 1;
  } else {
    r.sinks = 0;
    r.from = lcx_max64(since, after);
    r.to = lc->position;
  }
  return r;
}

/* how many segments from <= x < to is cut into: at multiples of LCX_SEGMENT */
static int64_t lcx_cuts(int64_t from, int64_t to)
{
  return to > from ? (to - 1) / LCX_SEGMENT - from / LCX_SEGMENT + 1 : 0;
}

static int64_t lcx_segments_of(const lcx_reach *r)
{
  return lcx_cuts(0, r->sinks) + lcx_cuts(0, r->fed) + lcx_cuts(r->from, r->to);
}

/* What is seen of one segment of a store: from <= x < to. */
typedef struct lcx_segment { int which; int64_t from, to; } lcx_segment;

/* Segment i of a reach. */
static lcx_segment lcx_segment_of(const lcx_reach *r, int64_t i)
{
  lcx_segment s = {LCX_WINDOW, r->from, r->to};
  int64_t sinks = lcx_cuts(0, r->sinks), fed = lcx_cuts(0, r->fed);
  if (i < sinks) {
    s.which = LCX_SINKS, s.from = 0, s.to = r->sinks;
  } else if (i < sinks + fed) {
    s.which = LCX_FED, s.from = 0, s.to = r->fed;
    i -= sinks;
  } else {
    i += r->from / LCX_SEGMENT - sinks - fed;
  }
  s.from = lcx_max64(s.from, i * LCX_SEGMENT);
  s.to = lcx_min64(s.to, (i + 1) * LCX_SEGMENT);
  return s;
}

/* cos and sin for p into w->turn[which], unless already there */
static void lcx_turn_to(const lcx_kernels *kernel, const longctx *lc, const lcx_layer *y,
                        lcx_work *w, int which, int64_t p)
{
  if (w->turned[which] == p || y->half == 0) return;
  kernel->turn((const uint64_t *)(const void *)lcx_at(lc, y->steps), y->half, (uint64_t)p,
               y->mscale, w->turn[which]);
  w->turned[which] = p;
}

/* pairs that rotate if they are interleaved, else 0 */
static int lcx_pairs(const lcx_layer *y)
{
  return y->rope == LONGCTX_ROPE_INTERLEAVED ? y->half : 0;
}

/* x[n] to memory as float32, float16 or bfloat16, `step` bytes apart; x has 16 to spare */
static void lcx_put(const lcx_kernels *kernel, int type, const float *x, int n, unsigned char *p,
                    int step)
{
  uint16_t h[LCX_SPAN + 16];
  int size = lcx_elem(type), d, i;
  for (d = 0; d < n; d += LCX_SPAN) { /* a few at a time: stacks may be small */
    int end = lcx_min(LCX_SPAN, n - d);
    const void *from = type == LONGCTX_F32 ? (const void *)(x + d) : h;
    if (type == LONGCTX_F16) kernel->narrow(x + d, end, h);
    if (type == LONGCTX_BF16)
      for (i = 0; i < end; ++i) h[i] = lcx_bf16_from_f32(x[d + i]);
    if (step == size) {
      memcpy(p, from, (size_t)(end * size));
      p += end * size;
    } else if (size == 4)
      for (i = 0; i < end; ++i, p += step) *(float *)(void *)p = x[d + i];
    else
      for (i = 0; i < end; ++i, p += step) *(uint16_t *)(void *)p = h[i];
  }
}

/* x[n] of a token as int8 and a scale: a key, made unsigned by +128, or values. */
LCX_OUTLINE void lcx_put_q8(const lcx_kernels *kernel, const lcx_store *st, unsigned char *tile,
                            int token, int key, const float *x)
{
  int16_t q[LCX_PANEL + 16];
  int n = key ? st->head_dim : st->head_dim_v;
  float most = kernel->most(x, n), factor = most > 0 ? 127.0f / most : 0.0f;
  int d, i;
  ((float *)(void *)(tile + (key ? st->scale_k : st->scale_v)))[token] = most / 127.0f;
  for (d = 0; d < n; d += LCX_PANEL) { /* by panels, as values lie; stacks may be small */
    int end = lcx_min(LCX_PANEL, n - d);
    unsigned char *to =
        tile + (key ? lcx_key_at(st, d, token) : st->val + lcx_val_at(st, token, d));
    kernel->round(x + d, end, factor, q);
    if (key)
      for (i = 0; i < end; ++i) to[i / 4 * st->tile * 4 + i % 4] = (unsigned char)(q[i] + 128);
    else
      for (i = 0; i < end; ++i) to[i * 4] = (unsigned char)q[i];
  }
}

/* One rotated key into its tile; it is finite and has 16 floats to spare. */
static void lcx_put_key(const lcx_kernels *kernel, const lcx_store *st, unsigned char *tile,
                        int token, const float *k)
{
  int size = lcx_elem(st->type_k);
  if (st->type_k == LONGCTX_Q8) lcx_put_q8(kernel, st, tile, token, 1, k);
  else lcx_put(kernel, st->type_k, k, st->head_dim, tile + token * size, st->tile * size);
}

/* The same for values. */
static void lcx_put_val(const lcx_kernels *kernel, const lcx_store *st, unsigned char *tile,
                        int token, const float *v)
{
  int d, size = lcx_elem(st->type_v);
  if (st->type_v == LONGCTX_Q8) lcx_put_q8(kernel, st, tile, token, 0, v);
  else
    for (d = 0; d < st->head_dim_v; d += LCX_PANEL)
      lcx_put(kernel, st->type_v, v + d, lcx_panel_width(st, d),
              tile + st->val + lcx_val_at(st, token, d), size);
}

/* Stores k [head_dim], rotated to position p, and v [head_dim_v] at x in a store of KV head h. */
static void lcx_write_at(const lcx_kernels *kernel, const longctx *lc, const lcx_layer *y,
                         lcx_work *w, int h, int which, int64_t x, int64_t p, const float *k,
                         const float *v)
{
  const lcx_store *st = &y->store[which];
  unsigned char *tile = lcx_ring_of(lc, y, which, h) + lcx_tile_at(st, x);
  int turn = which == LCX_SINKS ? LCX_SINKS : LCX_WINDOW, token = (int)(x % st->tile);
  lcx_turn_to(kernel, lc, y, w, turn, p);
  kernel->hold(k, w->head_dim, lcx_pairs(y), 1.0f, LCX_BIG, w->line);
  kernel->rotate(w->line, w->head_dim, y->half, w->turn[turn], w->key);
  lcx_put_key(kernel, st, tile, token, w->key);
  kernel->hold(v, w->head_dim_v, 0, 1.0f, LCX_MAX, w->line);
  lcx_put_val(kernel, st, tile, token, w->line);
}

/* RoPE's position for index x among the sinks, a key's or a query's */
static int64_t lcx_sink_position(const longctx *lc, const lcx_layer *y, int64_t x)
{
  return y->positions == LONGCTX_POS_TEXT ? lc->start + x : x;
}

/* Stores the token at position t in KV head h's cache. */
static void lcx_write_token(const lcx_kernels *kernel, const longctx *lc, const lcx_layer *y,
                            lcx_work *w, int h, int64_t t, const float *k, const float *v)
{
  int64_t x = t - lc->start;
  if (x >= lc->wish.sinks) lcx_write_at(kernel, lc, y, w, h, LCX_WINDOW, t, t, k, v);
  else lcx_write_at(kernel, lc, y, w, h, LCX_SINKS, x, lcx_sink_position(lc, y, x), k, v);
}

static lcx_view lcx_view_of(int64_t from, int64_t to, int64_t stand)
{
  lcx_view v = {from, to, stand};
  return v;
}

/* What row r sees, a query of the token at t (since < 0) or of feedback row t, set at `since`, and
   where it stands. Feedback rows stand right before the block that they serve. */
static void lcx_look(const longctx *lc, const lcx_layer *y, lcx_work *w, int r, int64_t since,
                     int64_t t)
{
  lcx_reach see = lcx_reach_of(lc, y, since, t, t);
  int64_t in = since < 0 ? t : since - y->fed_rows + t; /* RoPE's position */
  int64_t among = since < 0 ? t % y->block + y->fed_rows : t;
  int64_t index = see.sinks + lcx_max64(see.to - see.from, 0) - 1;
  w->view[LCX_WINDOW][r] = lcx_view_of(see.from, see.to, in);
  w->view[LCX_SINKS][r] =
      lcx_view_of(0, see.sinks, y->positions == LONGCTX_POS_TEXT ? t - lc->start : index);
  w->view[LCX_FED][r] = lcx_view_of(0, see.fed, among);
}

/* ============================================================================================ */
/* == 10 MEMORY ==                                                                              */
/* Infini-attention (arXiv 2404.07143): when tokens are folded, what queries recall.            */

/* The block [X, X + B), X = (b + 1)*B - window, leaves the window when the current block b ends. Of
   it as many tokens are folded as b has so far, down to a position that is a multiple of 16; the
   rest at b's end, where all is settled. So memory is a function of the position and the tokens,
   whatever the chunks were, and a rejected draft never gets here. */

static lcx_memory lcx_memory_of(const longctx *lc)
{
  return lcx_memory_make(lc->wish.head_dim, lc->wish.head_dim_v);
}

/* KV head h's M, z and what is on its way, of a layer that remembers */
static float *lcx_memory_at(const longctx *lc, const lcx_layer *y, int h)
{
  size_t floats = 2 * (size_t)lcx_memory_of(lc).floats;
  return (float *)(void *)lcx_at(lc, y->memory_at) + (size_t)h * floats;
}

/* gates of layer i's query heads, 0 to 1 */
static float *lcx_gates_of(const longctx *lc, int i)
{
  return (float *)(void *)lcx_at(lc, lc->plan.gates) + (size_t)i * (size_t)lc->wish.n_heads;
}

static int lcx_keeps_memory(const lcx_layer *y) { return y->memory && !y->reader; }

/* Forgets all memory; gates stay. */
static void lcx_forget_memory(longctx *lc)
{
  size_t bytes = 2 * (size_t)lcx_memory_of(lc).floats * sizeof(float);
  int i;
  for (i = 0; i < lc->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(lc, i);
    if (lcx_keeps_memory(y))
      memset(lcx_at(lc, y->memory_at), 0, bytes * (size_t)lc->wish.n_kv_heads);
  }
}

/* Has nothing been settled or added yet? Then z is 0; features are >= 0 and never cancel. */
static int lcx_blank(const longctx *lc, const float *settled)
{
  lcx_memory m = lcx_memory_of(lc);
  const float *z = settled + lcx_z_at(&m);
  int d = 0;
  while (d < m.dims && lcx_bits(z[d]) << 1 == 0) ++d;
  return d == m.dims;
}

/* ---- folding ------------------------------------------------------------------------------- */

/* The first token still to be folded, of the block that leaves when the block of `position` ends;
   `end`: as of that end. */
static int64_t lcx_first_waiting(const longctx *lc, const lcx_layer *y, int64_t position, int end)
{
  int64_t b = y->block, in = position % b, leaving = position - in + b - y->window;
  int64_t low = lcx_max64(leaving, lcx_after_sinks(lc)), x = leaving + (end ? b : in);
  return lcx_max64(low, end ? x : x - x % LCX_STRIP); /* x < 0 rounds to 0 at most: low */
}

/* w->back: turns that undo the rotation of the 16 keys at x..: -position, at 1/mscale. */
static void lcx_turn_back(const lcx_kernels *kernel, const longctx *lc, const lcx_layer *y, int i,
                          lcx_work *w, int64_t x)
{
  const uint64_t *step = (const uint64_t *)(const void *)lcx_at(lc, y->steps);
  uint64_t at[LCX_STRIP];
  float *turn = w->recalled; /* 3*32 of its 256 or more, which are free until something folds */
  int j;
  if (w->backed == x && w->back_layer == i) return;
  for (j = 0; j < LCX_STRIP; ++j) at[j] = 0 - ((uint64_t)x + (uint64_t)j);
  for (j = 0; j < y->half; ++j) { /* phase = position * step, so the two may be swapped */
    float *to = w->back + j * 2 * LCX_STRIP;
    kernel->turn(at, LCX_STRIP, step[j], 1.0f / y->mscale, turn);
    memcpy(to, turn, LCX_STRIP * sizeof(float));
    memcpy(to + LCX_STRIP, turn + LCX_STRIP + 16, LCX_STRIP * sizeof(float));
  }
  w->backed = x;
  w->back_layer = i;
}

/* Folds tokens from..to-1 of KV head h; with `end`, also settles. */
LCX_OUTLINE void lcx_fold(const lcx_kernels *kernel, const longctx *lc, int i, lcx_work *w, int h,
                          int64_t from, int64_t to, int end)
{
  const lcx_layer *y = lcx_layer_of(lc, i);
  const lcx_store *st = &y->store[LCX_WINDOW];
  const unsigned char *ring = lcx_ring_of(lc, y, LCX_WINDOW, h);
  lcx_memory m = lcx_memory_of(lc);
  float *settled = lcx_memory_at(lc, y, h), *way = settled + m.floats;
  while (from < to) {
    int64_t x = from - from % LCX_STRIP, last = lcx_min64(to - x, LCX_STRIP);
    lcx_turn_back(kernel, lc, y, i, w, x);
    kernel->fold(&m, w, st, ring + lcx_tile_at(st, x), (int)(x % st->tile), (int)(from - x),
                 (int)last, y->half, y->memory == LONGCTX_MEMORY_DELTA, settled);
    from = x + last;
  }
  if (end) kernel->sum(settled, way, way, m.floats, 0);
}

/* One part's share of what n more committed tokens fold: every parts-th of all layers' heads. */
static void lcx_fold_part(const longctx *lc, lcx_work *w, int n, int part, int parts)
{
  const lcx_kernels *kernel = lcx_kernels_of(lc->isa);
  int end = (lc->position + n) % lc->plan.block == 0, i, h;
  int64_t unit = 0;
  for (i = 0; i < lc->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(lc, i);
    if (!lcx_keeps_memory(y)) continue;
    for (h = 0; h < lc->wish.n_kv_heads; ++h)
      if (unit++ % parts == part)
        lcx_fold(kernel, lc, i, w, h, lcx_first_waiting(lc, y, lc->position, 0),
                 lcx_first_waiting(lc, y, lc->position + n - end, end), end);
  }
}

/* Do n more committed tokens fold or settle anything? */
static int lcx_folds(const longctx *lc, int n)
{
  int i;
  if (n == 0 || lc->plan.memory == 0) return 0;
  if ((lc->position + n) % lc->plan.block == 0) return 1;
  for (i = 0; i < lc->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(lc, i);
    if (lcx_keeps_memory(y) &&
        lcx_first_waiting(lc, y, lc->position, 0) < lcx_first_waiting(lc, y, lc->position + n, 0))
      return 1;
  }
  return 0;
}

LONGCTX_API int longctx_memory_add(longctx *dst, const longctx *src)
{
  const lcx_kernels *kernel;
  const uint64_t wish = offsetof(struct longctx, wish);
  lcx_memory m;
  int i, h, any = 0;
  if (!dst || !src || dst == src) return LONGCTX_E_ARG;
  if (dst->wish.bytes != src->wish.bytes ||
      memcmp(lcx_at(dst, wish), lcx_at(src, wish), (size_t)dst->wish.bytes))
    return LONGCTX_E_MISMATCH;
  for (i = 0; i < dst->wish.n_layers; ++i) {
    int rule = lcx_layer_of(dst, i)->memory;
    if (rule == LONGCTX_MEMORY_DELTA) return LONGCTX_E_DESC;
    any |= rule;
  }
  if (!any) return LONGCTX_E_DESC;
  m = lcx_memory_of(dst);
  kernel = lcx_kernels_of(dst->isa);
  for (i = 0; i < dst->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(dst, i), *from = lcx_layer_of(src, i);
    if (!lcx_keeps_memory(y)) continue;
    for (h = 0; h < dst->wish.n_kv_heads; ++h) { /* offsets differ where max_threads does */
      float *to = lcx_memory_at(dst, y, h);
      kernel->sum(to, lcx_memory_at(src, from, h), to + m.floats, m.floats, 1);
    }
  }
  return LONGCTX_OK;
}

/* ---- recalling ----------------------------------------------------------------------------- */

/* 1/(1 + e^-x), 0 up to -87, 1 from 87 on */
static float lcx_sigmoid(float x)
{
  double a = x < 0 ? -(double)x : (double)x, e = 0;
  if (!(a < 87)) return x < 0 ? 0.0f : 1.0f;
  e = (double)lcx_pow2_minus(a / 0.69314718055994531); /* a product could fuse with what follows */
  return (float)((x < 0 ? e : 1) / (1 + e));
}

LONGCTX_API int longctx_set_gate(longctx *lc, int layer, const float *logits)
{
  int h;
  if (!lc || layer < 0 || layer >= lc->wish.n_layers || !lcx_layer_of(lc, layer)->memory)
    return LONGCTX_E_ARG;
  for (h = 0; logits && h < lc->wish.n_heads; ++h) /* by bits: above infinity's is NaN */
    if (lcx_bits(logits[h]) << 1 > 0xff000000u) return LONGCTX_E_ARG;
  for (h = 0; h < lc->wish.n_heads; ++h)
    lcx_gates_of(lc, layer)[h] = logits ? lcx_sigmoid(logits[h]) : 0;
  return LONGCTX_OK;
}

/* Does any query head of KV head h in layer i use memory now? */
static int lcx_may_recall(const longctx *lc, int i, int h)
{
  const lcx_layer *y = lcx_layer_of(lc, i);
  int group = lcx_group(lc), g;
  if (!y->memory) return 0;
  for (g = 0; g < group && !(lcx_gates_of(lc, i)[h * group + g] > 0); ++g) {}
  return g < group && (lc->wish.memory_first == LONGCTX_FIRST_ZERO ||
                       !lcx_blank(lc, lcx_memory_at(lc, y, h)));
}

/* What rows r0..r0+n-1, at most 16, of KV head h recall, into w->recalled; returns how many do, in
   row[] which. A row whose gate is closed or whose query is not finite does not. */
static int lcx_recall(const lcx_kernels *kernel, const longctx *lc, int i, lcx_work *w, int h,
                      int r0, int n, const float *q, int *row)
{
  const lcx_layer *y = lcx_layer_of(lc, i);
  lcx_memory m = lcx_memory_of(lc);
  const float *settled = lcx_memory_at(lc, y, h);
  int some = 0, r;
  lcx_fetch(settled, lcx_min(LCX_MEMORY_AHEAD, m.floats) * (int)sizeof(float));
  for (r = 0; r < n; ++r) {
    const float *x = q + lcx_query_of(lc, h, r0 + r) * (size_t)m.dims;
    if (!(lcx_gates_of(lc, i)[lcx_head_of(lc, h, r0 + r)] > 0) ||
        kernel->hold(x, m.dims, lcx_pairs(y), 1.0f, LCX_BIG, w->line))
      continue;
    kernel->feature(w->line, m.dims, w->phi + some);
    row[some++] = r0 + r;
  }
  if (some) kernel->recall(&m, settled, w->phi, some, w->recalled);
  return some;
}

/* What row[j] of lcx_recall recalled, in one piece: [head_dim_v], rounded up to 16. */
static void lcx_recalled_row(const lcx_work *w, int j, float *to)
{
  int d;
  for (d = 0; d < w->head_dim_v; d += LCX_STRIP)
    memcpy(to + d, w->recalled + (d + j) * LCX_STRIP, LCX_STRIP * sizeof(float));
}

/* ============================================================================================ */
/* == 11 FEEDBACK ==                                                                            */
/* TransformerFAM (arXiv 2404.09173): rows in a loop, when they are due, where they stand.      */

/* Rows set at position P, a block's start, stand at P - F..P - 1 and serve the tokens of that
   block. Besides themselves they see the tokens from P on: at the block's end all of it, before its
   first token none. So one rule covers both moments at which they may attend. */

static int lcx_keeps_feedback(const lcx_layer *y) { return y->fed_rows && !y->reader; }

/* A layer's rows [F][feedback_dim] */
static float *lcx_fed_of(const longctx *lc, const lcx_layer *y)
{
  return (float *)(void *)lcx_at(lc, y->fed_at);
}

/* and their queries as they were given, [F][n_heads][head_dim] */
static float *lcx_fed_q(const longctx *lc, const lcx_layer *y)
{
  return lcx_fed_of(lc, y) + (size_t)lc->wish.feedback_len * (size_t)lc->wish.feedback_dim;
}

static size_t lcx_fed_bytes(const longctx *lc)
{
  return (size_t)lcx_fed_floats(&lc->wish) * sizeof(float);
}

/* No token attended since the last commit, not even in parts? */
static int lcx_untouched(const longctx *lc)
{
  int i;
  for (i = 0; i < lc->max_threads; ++i)
    if (lcx_ticket_of(lc, i)->parts) return 0;
  for (i = 0; i < lc->wish.n_layers && !lcx_live_of(lc, i)->tokens; ++i) {}
  return i == lc->wish.n_layers;
}

/* Is a context with feedback between two blocks? */
static int lcx_between(const longctx *lc)
{
  return lc->position % lc->plan.block == 0 && lcx_untouched(lc);
}

/* Position at which layer i's rows were last set; asked between two blocks only. */
static int64_t lcx_set_at(const longctx *lc, int i)
{
  return lc->position - (lcx_live_of(lc, i)->fed_set ? 0 : lc->plan.block);
}

static void lcx_become_due(longctx *lc)
{
  int i;
  for (i = 0; i < lc->wish.n_layers; ++i) lcx_live_of(lc, i)->fed_set = 0;
}

/* Clears feedback: no row was ever set. */
static void lcx_forget_feedback(longctx *lc)
{
  int i;
  for (i = 0; i < lc->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(lc, i);
    if (!lcx_keeps_feedback(y)) continue;
    memset(lcx_at(lc, y->fed_at), 0, lcx_fed_bytes(lc));
    memset(lcx_at(lc, y->ring[LCX_FED]), 0, (size_t)y->head[LCX_FED] * (size_t)lc->wish.n_kv_heads);
  }
  lcx_become_due(lc);
}

/* 0, or why layer i's rows cannot be set or attend now */
static int lcx_fed_check(const longctx *lc, int i)
{
  if (!lc || i < 0 || i >= lc->wish.n_layers || !lcx_keeps_feedback(lcx_layer_of(lc, i)))
    return LONGCTX_E_ARG;
  return lcx_between(lc) ? LONGCTX_OK : LONGCTX_E_ORDER;
}

LONGCTX_API int longctx_feedback_due(const longctx *lc)
{
  int i;
  if (!lc || lc->plan.feedback == 0 || lc->position % lc->plan.block) return 0;
  for (i = 0; i < lc->wish.n_layers; ++i)
    if (lcx_keeps_feedback(lcx_layer_of(lc, i)) && !lcx_live_of(lc, i)->fed_set) return 1;
  return 0;
}

LONGCTX_API float *longctx_feedback(longctx *lc, int layer)
{
  return lcx_fed_check(lc, layer) == LONGCTX_E_ARG ? NULL : lcx_fed_of(lc, lcx_layer_of(lc, layer));
}

LONGCTX_API int longctx_feedback_set(longctx *lc, int layer, const float *q, const float *k,
                                     const float *v)
{
  const lcx_layer *y;
  lcx_work w;
  int code = lcx_fed_check(lc, layer), rows, heads, i, h;
  if (!code && (!q || !k || !v)) code = LONGCTX_E_ARG;
  if (code) return code;
  y = lcx_layer_of(lc, layer);
  rows = lc->wish.feedback_len;
  heads = lc->wish.n_kv_heads;
  lcx_carve(&lc->wish, &lc->plan, lcx_work_at(lc, 0), &w);
  for (i = 0; i < rows; ++i)
    for (h = 0; h < heads; ++h) {
      size_t at = (size_t)i * (size_t)heads + (size_t)h;
      lcx_write_at(lcx_kernels_of(lc->isa), lc, y, &w, h, LCX_FED, i, lc->position - rows + i,
                   k + at * (size_t)w.head_dim, v + at * (size_t)w.head_dim_v);
    }
  memcpy(lcx_fed_q(lc, y), q,
         sizeof(float) * (size_t)rows * (size_t)lc->wish.n_heads * (size_t)w.head_dim);
  lcx_live_of(lc, layer)->fed_set = 1;
  return LONGCTX_OK;
}

/* ============================================================================================ */
/* == 12 STATE ==                                                                               */
/* The block's life: init, open, reset, copy; state files.                                      */

static float *lcx_logits_of(const longctx *lc, int i)
{
  return (float *)(void *)lcx_at(lc, lc->plan.logits) + (size_t)i * (size_t)lc->wish.n_heads;
}

static int lcx_aligned(const void *mem)
{
  struct lcx_align { char c; union { double d; int64_t i; void *p; } u; };
  return (uintptr_t)mem % offsetof(struct lcx_align, u) == 0;
}

/* Layer i's wish into *l (i = -1: the desc's own); returns its frequency table, or NULL. Tables are
   contiguous: asked for i = -1, 0, 1 and so on, *at walks them. */
static const double *lcx_freqs_next(const longctx *lc, int i, lcx_wish_layer *l, uint64_t *at)
{
  const lcx_wish *w = &lc->wish;
  const double *f;
  if (i < 0) *at = offsetof(struct longctx, wish) + lcx_tables_at(w);
  lcx_wish_layer_at(NULL, w, i, l);
  f = l->n_freqs ? (const double *)(const void *)lcx_at(lc, *at) : NULL;
  *at += (uint64_t)l->n_freqs * sizeof(double);
  return f;
}

/* Press et al. (ALiBi, arXiv 2108.12409): slope of head h, in base 2 and negative */
static float lcx_slope(const lcx_wish *w, int h)
{
  int n = 1;
  double bias = (double)w->alibi_max_bias;
  while (n * 2 <= w->n_heads) n *= 2;
  bias = h < n ? bias * (h + 1) / n : bias * (2 * (h - n) + 1) / (2 * n);
  return (float)(-LCX_LOG2E * (double)lcx_pow2_minus(bias));
}

/* From the wish: plan, layers, steps, slopes; from the machine: isa, fetch_alone, on_intel. */
static void lcx_derive(longctx *lc, int max_threads)
{
  const lcx_wish *w = &lc->wish;
  uint64_t at = 0;
  int i, j, code = lcx_layout(NULL, w, max_threads, lcx_at(lc, 0), &lc->plan);
  LONGCTX_ASSERT(code == 0); /* it was checked */
  (void)code;
  lc->max_threads = max_threads;
  lc->isa = (int16_t)lcx_best_isa();
  lc->fetch_alone = (int8_t)lcx_fetches_alone(lc->plan.window);
  lc->on_intel = (int8_t)lcx_on_intel();
  for (i = -1; i < lcx_listed(w); ++i) {
    lcx_wish_layer l;
    const double *f = lcx_freqs_next(lc, i, &l, &at);
    const lcx_layer *y = lcx_layer_of(lc, i < 0 ? 0 : i); /* no list: all share layer 0's steps */
    uint64_t *step = (uint64_t *)(void *)lcx_at(lc, y->steps);
    if (i < 0 && w->has_layers) continue;
    for (j = 0; !y->reader && j < y->half; ++j)
      step[j] = f ? lcx_freq_step(f[j]) : lcx_rope_step(l.rope_base, j, y->half);
  }
  for (i = 0; w->alibi_max_bias > 0 && i < w->n_heads; ++i)
    ((float *)(void *)lcx_at(lc, lc->plan.slopes))[i] = lcx_slope(w, i);
}

static const lcx_label lcx_own_label = {LCX_MAGIC, LCX_FORMAT, LCX_PROBE};

static int lcx_check_label(const lcx_label *l)
{
  if (memcmp(l->magic, LCX_MAGIC, sizeof l->magic) || l->probe != LCX_PROBE)
    return LONGCTX_E_FORMAT;
  return l->version == LCX_FORMAT ? LONGCTX_OK : LONGCTX_E_VERSION;
}

static void lcx_drop_tickets(longctx *lc)
{
  int p;
  for (p = 0; p < lc->max_threads; ++p) lcx_ticket_of(lc, p)->parts = 0;
}

static void lcx_drop_batch(longctx *lc)
{
  int i;
  for (i = 0; i < lc->wish.n_layers; ++i) lcx_live_of(lc, i)->tokens = 0;
  lcx_drop_tickets(lc);
}

/* For a block that came from elsewhere: clears its scratch and drops its open batch. */
static void lcx_fresh(longctx *lc)
{
  memset(lcx_at(lc, lc->plan.scratch), 0, (size_t)(lc->plan.total - lc->plan.scratch));
  lcx_drop_batch(lc);
}

/* Do the n bytes at x and the `bytes` at mem have one in common? */
LCX_OUTLINE int lcx_meet(const void *x, uint64_t n, const void *mem, uint64_t bytes)
{
  return ((uintptr_t)x - (uintptr_t)mem < bytes) | ((uintptr_t)mem - (uintptr_t)x < n);
}

LONGCTX_API longctx *longctx_init(void *mem, size_t bytes, const longctx_desc *d)
{
  longctx *lc = (longctx *)mem;
  lcx_wish w;
  lcx_wish_layer l;
  lcx_plan p;
  const double *f;
  unsigned char *to, *table;
  int i, meets;
  if (!mem || !lcx_aligned(mem) || lcx_resolve(d, &w, &p) || bytes < p.total) return NULL;
  meets = lcx_meet(d, sizeof *d, mem, p.total) |
          lcx_meet(d->layers, (uint64_t)lcx_listed(&w) * sizeof *d->layers, mem, p.total);
  for (i = -1; i < lcx_listed(&w) && !meets; ++i) {
    lcx_wish_layer_at(d, &w, i, &l);
    meets = lcx_meet(lcx_freqs_of(d, i), (uint64_t)l.n_freqs * sizeof *f, mem, p.total);
  }
  if (meets) return NULL;
  memset(mem, 0, (size_t)p.total);
  lc->label = lcx_own_label;
  lc->wish = w;
  to = (unsigned char *)mem + offsetof(struct longctx, wish) + sizeof w;
  table = (unsigned char *)mem + offsetof(struct longctx, wish) + lcx_tables_at(&w);
  for (i = -1; i < lcx_listed(&w); ++i) {
    lcx_wish_layer_at(d, &w, i, &l);
    if (i >= 0) memcpy(to + (size_t)i * sizeof l, &l, sizeof l);
    f = lcx_freqs_of(d, i);
    if (l.n_freqs) memcpy(table, f, (size_t)l.n_freqs * sizeof *f);
    table += (size_t)l.n_freqs * sizeof *f;
  }
  lcx_derive(lc, lcx_threads(d));
  return lc;
}

/* Is nothing left to derive? Then some desc resolves to this. */
static int lcx_resolved(const lcx_wish *w, const lcx_wish_layer *l)
{
  int rotates = l->rope != LONGCTX_ROPE_NONE && w->head_dim > 1;
  return (l->rope_dims > 0) == rotates && lcx_bits(l->scale) << 1 && !(lcx_bits(l->softcap) >> 31);
}

/* Is the wish in a block of `bytes` sound? 0, or a code; *p becomes its plan. */
static int lcx_sound_wish(const longctx *lc, uint64_t bytes, int max_threads, lcx_plan *p)
{
  const lcx_wish *w = &lc->wish;
  uint64_t need = 0, at = 0, room = bytes - offsetof(struct longctx, wish);
  int i;
  if (lcx_check_wish(w) || !LCX_IN(w->has_layers, 0, 1) || w->zero) return LONGCTX_E_FORMAT;
  if (w->bytes < 0 || lcx_tables_at(w) > (uint64_t)w->bytes) return LONGCTX_E_FORMAT;
  if ((uint64_t)w->bytes > room) return LONGCTX_E_SPACE; /* before any layer is read */
  if (lcx_check_all(NULL, w, &need) || need != (uint64_t)w->bytes) return LONGCTX_E_FORMAT;
  if (w->base.feedback != (w->feedback_len > 0 && !w->has_layers)) return LONGCTX_E_FORMAT;
  if (lcx_bits(w->alibi_max_bias) >> 31) return LONGCTX_E_FORMAT; /* -0 resolves to 0 */
  for (i = -1; i < lcx_listed(w); ++i) {
    lcx_wish_layer l;
    const double *f = lcx_freqs_next(lc, i, &l, &at);
    if (!lcx_resolved(w, &l)) return LONGCTX_E_FORMAT;
    if (f && lcx_check_freqs(f, l.n_freqs)) return LONGCTX_E_FORMAT;
  }
  if (lcx_layout(NULL, w, max_threads, NULL, p)) return LONGCTX_E_FORMAT;
  return p->total <= bytes ? LONGCTX_OK : LONGCTX_E_SPACE;
}

static int lcx_sound_position(int64_t start, int64_t position)
{
  return start >= 0 && position <= LCX_POS_END && start <= position;
}

/* with memory or feedback a text starts at a block's start */
static int lcx_sound_start(const lcx_plan *p, int64_t start)
{
  return p->block == 0 || start % p->block == 0;
}

/* Could this have been stored? */
static int lcx_sound_number(int type, float least, float most, const unsigned char *p)
{
  uint16_t h;
  float x;
  if (type == LONGCTX_Q8) return 1;
  if (type == LONGCTX_F32) memcpy(&x, p, sizeof x);
  else {
    memcpy(&h, p, sizeof h);
    if (type == LONGCTX_F16) return (h & 0x7c00) != 0x7c00;
    x = lcx_f32_from_bf16(h);
  }
  return lcx_finite(x) && LCX_IN(x, least, most);
}

/* ---- streaming a state --------------------------------------------------------------------- */

/* bytes of one token, key and value of one head, in a state file */
static uint64_t lcx_token_bytes(const lcx_store *s)
{
  return (uint64_t)(s->head_dim * lcx_elem(s->type_k) + 4 * (s->type_k == LONGCTX_Q8) +
                    s->head_dim_v * lcx_elem(s->type_v) + 4 * (s->type_v == LONGCTX_Q8));
}

/* A state file's head. After it: the wish, sink logits and gates; layer by layer tokens, memory and
   feedback; a hash. */
typedef struct lcx_file_head {
  lcx_label label;
  uint64_t bytes; /* of the whole state */
  int64_t start, position;
} lcx_file_head;

enum { LCX_INSPECT, LCX_WRITE, LCX_VERIFY, LCX_READ }; /* INSPECT checks a block, VERIFY a file */

/* Bytes pass through a small buffer and a 64-bit hash, in blocks of 128. */
typedef struct lcx_stream {
  int mode, error;
  uint64_t left, hash; /* left: to read from the file */
  unsigned at, have;   /* in buf: the next byte; how many there are, when reading */
  unsigned char buf[128];
#ifndef LONGCTX_NO_STDIO
  FILE *file;
#endif
} lcx_stream;

#ifndef LONGCTX_NO_STDIO
/* Each step is a bijection of h, and of word: one changed word always shows. */
static uint64_t lcx_hash(uint64_t h, const unsigned char *p, size_t n)
{
  for (; n > 0; p += 8) {
    uint64_t word = 0;
    memcpy(&word, p, n < 8 ? n : 8);
    n -= n < 8 ? n : 8;
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
  }
  return h;
}

static void lcx_flush(lcx_stream *s)
{
  s->hash = lcx_hash(s->hash, s->buf, s->at);
  if (!s->error && fwrite(s->buf, 1, s->at, s->file) != s->at) s->error = LONGCTX_E_IO;
  s->at = 0;
}

/* why a read fell short: a file cut short is no state */
static int lcx_read_error(FILE *file) { return ferror(file) ? LONGCTX_E_IO : LONGCTX_E_FORMAT; }

static void lcx_refill(lcx_stream *s)
{
  s->have = s->left < sizeof s->buf ? (unsigned)s->left : (unsigned)sizeof s->buf;
  s->left -= s->have;
  s->at = 0;
  if (s->have == 0) s->error = LONGCTX_E_FORMAT; /* by its head the state ends here */
  else if (fread(s->buf, 1, s->have, s->file) != s->have) s->error = lcx_read_error(s->file);
  if (s->error) s->have = 0;
  s->hash = lcx_hash(s->hash, s->buf, s->have);
}

/* NULL: reads past them */
static void lcx_stream_bytes(lcx_stream *s, void *bytes, size_t n)
{
  unsigned char *p = (unsigned char *)bytes;
  int writes = s->mode == LCX_WRITE;
  while (n > 0 && !s->error && s->mode != LCX_INSPECT) {
    unsigned part;
    if (writes && s->at == sizeof s->buf) lcx_flush(s);
    if (!writes && s->at == s->have) lcx_refill(s);
    part = (writes ? (unsigned)sizeof s->buf : s->have) - s->at;
    if (part > n) part = (unsigned)n;
    if (writes) memcpy(s->buf + s->at, p, part);
    else if (p) memcpy(p, s->buf + s->at, part);
    s->at += part;
    if (p) p += part;
    n -= part;
  }
}
#else
static void lcx_stream_bytes(lcx_stream *s, void *bytes, size_t n)
{
  (void)s, (void)bytes, (void)n;
}
#endif

/* A stored number: checked, and copied as the mode says. */
static void lcx_stream_number(lcx_stream *s, int type, float least, float most, unsigned char *p)
{
  unsigned char e[4] = {0, 0, 0, 0};
  size_t n = (size_t)lcx_elem(type);
  if (s->mode == LCX_INSPECT || s->mode == LCX_WRITE) memcpy(e, p, n);
  lcx_stream_bytes(s, e, n);
  if (!s->error && !lcx_sound_number(type, least, most, e)) s->error = LONGCTX_E_FORMAT;
  if (s->mode == LCX_READ && !s->error) memcpy(p, e, n);
}

/* Likewise x[n]. */
static void lcx_stream_floats(lcx_stream *s, float *x, int n, float least, float most)
{
  for (; n > 0 && !s->error; --n, ++x)
    lcx_stream_number(s, LONGCTX_F32, least, most, (unsigned char *)x);
}

/* Likewise a flag, 0 or 1, where `must` only 1; returns it. */
static int32_t lcx_stream_flag(lcx_stream *s, int must, int32_t *flag)
{
  int32_t x = *flag;
  lcx_stream_bytes(s, &x, sizeof x);
  if (!s->error && !LCX_IN(x, must, 1)) s->error = LONGCTX_E_FORMAT;
  if (s->mode == LCX_READ && !s->error) *flag = x;
  return x;
}

/* A stored token: finite, keys small enough that scores exceed LCX_NOTHING, scales not negative. */
static void lcx_stream_token(lcx_stream *s, const lcx_store *st, unsigned char *tile, int token)
{
  unsigned char *scale_k = tile + st->scale_k + 4 * token;
  unsigned char *scale_v = tile + st->scale_v + 4 * token;
  int d;
  for (d = 0; d < st->head_dim; ++d)
    lcx_stream_number(s, st->type_k, -LCX_KEY, LCX_KEY, tile + lcx_key_at(st, d, token));
  if (st->type_k == LONGCTX_Q8) lcx_stream_number(s, LONGCTX_F32, 0, LCX_KEY / 128, scale_k);
  for (d = 0; d < st->head_dim_v; ++d)
    lcx_stream_number(s, st->type_v, -LCX_MAX, LCX_MAX, tile + st->val + lcx_val_at(st, token, d));
  if (st->type_v == LONGCTX_Q8) lcx_stream_number(s, LONGCTX_F32, 0, LCX_MAX, scale_v);
}

/* One KV head's memory: M dim by dim, z, then the same of what is on its way. */
static void lcx_stream_memory(lcx_stream *s, const lcx_memory *m, float *x)
{
  int part, d, e;
  for (part = 0; part < 2; ++part, x += m->floats) {
    for (d = 0; d < m->dims && !s->error; ++d)
      for (e = 0; e < m->dims_v; e += LCX_STRIP)
        lcx_stream_floats(s, x + e * m->dims + d * LCX_STRIP, lcx_min(LCX_STRIP, m->dims_v - e),
                          -LCX_STOCK, LCX_STOCK);
    lcx_stream_floats(s, x + lcx_z_at(m), m->dims, -LCX_STOCK, LCX_STOCK);
  }
}

/* Tokens that the next one can see, oldest first, from <= x < to of the sinks or the window. At a
   block's start, with feedback, the block before stays: its rows may still attend to it. */
static void lcx_kept(const longctx *lc, const lcx_layer *y, int which, int64_t start,
                     int64_t position, int64_t *from, int64_t *to)
{
  int64_t sinks = lcx_min64(position - start, lc->wish.sinks);
  *from = which == LCX_SINKS ? 0 : lcx_first_seen(y, start + lc->wish.sinks, position);
  if (which == LCX_WINDOW && lcx_keeps_feedback(y) && position % y->block == 0)
    *from = lcx_max64(lcx_min64(*from, position - y->block), start + lc->wish.sinks);
  *to = which == LCX_SINKS ? sinks : lcx_max64(position, *from);
}

/* A layer's feedback: whether it was set, rows and queries as given, keys and values. */
static void lcx_stream_feedback(const longctx *lc, lcx_stream *s, int i, int64_t position)
{
  const lcx_layer *y = lcx_layer_of(lc, i);
  const lcx_store *st = &y->store[LCX_FED];
  int h, x;
  lcx_stream_flag(s, position % y->block != 0, &lcx_live_of(lc, i)->fed_set);
  /* any bytes */
  lcx_stream_bytes(s, s->mode == LCX_VERIFY ? NULL : lcx_fed_of(lc, y), lcx_fed_bytes(lc));
  for (h = 0; h < lc->wish.n_kv_heads; ++h)
    for (x = 0; x < y->fed_rows && !s->error; ++x)
      lcx_stream_token(s, st, lcx_ring_of(lc, y, LCX_FED, h) + lcx_tile_at(st, x), x % st->tile);
}

/* All that follows a state's head and wish, for this start and position. */
static void lcx_stream_all(const longctx *lc, lcx_stream *s, int64_t start, int64_t position)
{
  int i, h, which;
  for (i = 0; i < lc->wish.n_layers && !s->error; ++i) {
    float most = lcx_stream_flag(s, 0, &lcx_live_of(lc, i)->has_logits) ? -LCX_NOTHING : 0;
    lcx_stream_floats(s, lcx_logits_of(lc, i), lc->wish.n_heads, -most, most);
    if (lcx_layer_of(lc, i)->memory)
      lcx_stream_floats(s, lcx_gates_of(lc, i), lc->wish.n_heads, 0, 1);
  }
  for (i = 0; i < lc->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(lc, i);
    for (which = LCX_SINKS; which >= LCX_WINDOW && !y->reader; --which)
      for (h = 0; h < lc->wish.n_kv_heads; ++h) {
        const lcx_store *st = &y->store[which];
        unsigned char *ring = lcx_ring_of(lc, y, which, h);
        int64_t x, to;
        for (lcx_kept(lc, y, which, start, position, &x, &to); x < to && !s->error; ++x)
          lcx_stream_token(s, st, ring + lcx_tile_at(st, x), (int)(x % st->tile));
      }
    for (h = 0; h < lc->wish.n_kv_heads && lcx_keeps_memory(y) && !s->error; ++h) {
      lcx_memory m = lcx_memory_of(lc);
      lcx_stream_memory(s, &m, lcx_memory_at(lc, y, h));
    }
    if (lcx_keeps_feedback(y) && !s->error) lcx_stream_feedback(lc, s, i, position);
  }
}

static uint64_t lcx_state_bytes(const longctx *lc, int64_t start, int64_t position)
{
  uint64_t n = sizeof(lcx_file_head) + (uint64_t)lc->wish.bytes + sizeof(uint64_t);
  int i, which;
  for (i = 0; i < lc->wish.n_layers; ++i) {
    const lcx_layer *y = lcx_layer_of(lc, i);
    n += sizeof(int32_t) + (uint64_t)lc->wish.n_heads * sizeof(float) * (y->memory ? 2 : 1);
    if (lcx_keeps_memory(y))
      n += (uint64_t)lc->wish.n_kv_heads * 2 * (uint64_t)lc->wish.head_dim *
           (uint64_t)(lc->wish.head_dim_v + 1) * sizeof(float);
    if (lcx_keeps_feedback(y))
      n += sizeof(int32_t) + lcx_fed_bytes(lc) +
           (uint64_t)y->fed_rows * (uint64_t)lc->wish.n_kv_heads *
               lcx_token_bytes(&y->store[LCX_FED]);
    for (which = LCX_WINDOW; which <= LCX_SINKS && !y->reader; ++which) {
      int64_t from, to;
      lcx_kept(lc, y, which, start, position, &from, &to);
      n += (uint64_t)(to - from) * (uint64_t)lc->wish.n_kv_heads *
           lcx_token_bytes(&y->store[which]);
    }
  }
  return n;
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* What open and load return. */
static longctx *lcx_result(void *mem, int code, int *error)
{
  if (error) *error = code;
  return code ? NULL : (longctx *)mem;
}

/* open: 0, or why the block is refused. */
static int lcx_adopt(void *mem, size_t bytes)
{
  longctx *lc = (longctx *)mem;
  lcx_stream s;
  lcx_plan p;
  int code, i;
  if (!mem || !lcx_aligned(mem)) return LONGCTX_E_ARG;
  if (bytes < sizeof *lc) return LONGCTX_E_SPACE;
  code = lcx_check_label(&lc->label);
  if (code) return code;
  if (!(LCX_IN(lc->max_threads, 1, 1024) && lcx_sound_position(lc->start, lc->position)))
    return LONGCTX_E_FORMAT;
  code = lcx_sound_wish(lc, bytes, lc->max_threads, &p);
  if (code) return code;
  if (memcmp(&p, &lc->plan, sizeof p) || !lcx_sound_start(&p, lc->start))
    return LONGCTX_E_FORMAT;
  lcx_derive(lc, lc->max_threads); /* anew: not trusted, but the same for the same wish */
  for (i = 0; i < lc->wish.n_layers; ++i)
    if ((lcx_live_of(lc, i)->fed_set && !lcx_keeps_feedback(lcx_layer_of(lc, i))) ||
        lcx_live_of(lc, i)->zero)
      return LONGCTX_E_FORMAT;
  memset(&s, 0, sizeof s);
  s.mode = LCX_INSPECT;
  lcx_stream_all(lc, &s, lc->start, lc->position);
  if (s.error) return s.error;
  lcx_fresh(lc);
  return LONGCTX_OK;
}

LONGCTX_API longctx *longctx_open(void *mem, size_t bytes, int *error)
{
  return lcx_result(mem, lcx_adopt(mem, bytes), error);
}

LONGCTX_API void longctx_reset(longctx *lc)
{
  if (!lc) return;
  lc->start = lc->position = 0;
  lcx_forget_memory(lc);
  lcx_forget_feedback(lc);
  lcx_drop_batch(lc);
}

LONGCTX_API int longctx_copy(void *mem, size_t bytes, const longctx *src)
{
  if (!mem || !src || !lcx_aligned(mem)) return LONGCTX_E_ARG;
  if (bytes < src->plan.total) return LONGCTX_E_SPACE;
  if (lcx_meet(src, src->plan.total, mem, src->plan.total)) return LONGCTX_E_ARG;
  memcpy(mem, src, (size_t)src->plan.scratch);
  lcx_fresh((longctx *)mem);
  return LONGCTX_OK;
}

LONGCTX_API int longctx_seek(longctx *lc, int64_t position)
{
  int i;
  if (!lc || position < 0 || position > LCX_POS_END || !lcx_sound_start(&lc->plan, position))
    return LONGCTX_E_ARG;
  if (lc->position != lc->start || !lcx_untouched(lc)) return LONGCTX_E_ORDER;
  for (i = 0; i < lc->wish.n_layers; ++i)
    if (lcx_live_of(lc, i)->fed_set) return LONGCTX_E_ORDER;
  lc->start = lc->position = position;
  return LONGCTX_OK;
}

LONGCTX_API int longctx_set_sink_logits(longctx *lc, int layer, const float *logits)
{
  float *to;
  int h;
  if (!lc || layer < 0 || layer >= lc->wish.n_layers) return LONGCTX_E_ARG;
  to = lcx_logits_of(lc, layer);
  for (h = 0; logits && h < lc->wish.n_heads; ++h) /* -infinity is allowed */
    if (!lcx_finite(logits[h]) && lcx_bits(logits[h]) != 0xff800000u) return LONGCTX_E_ARG;
  for (h = 0; h < lc->wish.n_heads; ++h) /* -infinity, held, changes no bit of the output */
    to[h] = logits ? lcx_held(logits[h] * (float)LCX_LOG2E, -LCX_NOTHING) : 0;
  lcx_live_of(lc, layer)->has_logits = logits != NULL;
  return LONGCTX_OK;
}

/* ---- files --------------------------------------------------------------------------------- */

LONGCTX_API size_t longctx_state_size(const longctx *lc)
{
  return lc ? (size_t)lcx_state_bytes(lc, lc->start, lc->position) : 0;
}

#ifndef LONGCTX_NO_STDIO
static void lcx_stream_begin(lcx_stream *s, FILE *file, int mode, const lcx_file_head *head)
{
  memset(s, 0, sizeof *s);
  s->mode = mode;
  s->file = file;
  s->left = head->bytes - sizeof *head - sizeof(uint64_t);
  s->hash = lcx_hash(0, (const unsigned char *)head, sizeof *head);
}

LONGCTX_API int longctx_save(const longctx *lc, FILE *file)
{
  lcx_stream s;
  lcx_file_head head;
  if (!lc || !file) return LONGCTX_E_ARG;
  memset(&head, 0, sizeof head);
  head.label = lcx_own_label;
  head.bytes = lcx_state_bytes(lc, lc->start, lc->position);
  head.start = lc->start;
  head.position = lc->position;
  lcx_stream_begin(&s, file, LCX_WRITE, &head);
  if (fwrite(&head, sizeof head, 1, file) != 1) return LONGCTX_E_IO;
  lcx_stream_bytes(&s, lcx_at(lc, offsetof(struct longctx, wish)), (size_t)lc->wish.bytes);
  lcx_stream_all(lc, &s, lc->start, lc->position);
  lcx_flush(&s);
  if (!s.error && fwrite(&s.hash, sizeof s.hash, 1, file) != 1) s.error = LONGCTX_E_IO;
  return s.error;
}

static int lcx_read_head(FILE *file, lcx_file_head *head)
{
  int code;
  if (fread(head, sizeof *head, 1, file) != 1) return lcx_read_error(file);
  code = lcx_check_label(&head->label);
  if (code) return code;
  if (head->bytes < sizeof *head + sizeof(lcx_wish) + sizeof(uint64_t) ||
      !lcx_sound_position(head->start, head->position))
    return LONGCTX_E_FORMAT;
  return LONGCTX_OK;
}

/* Hashes the rest, whatever it is, and compares the hash after it. */
static int lcx_read_hash(lcx_stream *s)
{
  uint64_t stored;
  while (!s->error && (s->left > 0 || s->at < s->have)) {
    if (s->at == s->have) lcx_refill(s);
    s->at = s->have;
  }
  if (s->error) return s->error;
  if (fread(&stored, sizeof stored, 1, s->file) != 1) return lcx_read_error(s->file);
  return stored == s->hash ? LONGCTX_OK : LONGCTX_E_FORMAT;
}

/* load: 0, or why the file is refused; what was in `mem` is lost. */
static int lcx_read_new(void *mem, size_t bytes, FILE *file)
{
  longctx *lc = (longctx *)mem;
  lcx_stream s;
  lcx_file_head head;
  lcx_plan p;
  int code;
  if (!mem || !file || !lcx_aligned(mem)) return LONGCTX_E_ARG;
  if (bytes < sizeof *lc) return LONGCTX_E_SPACE;
  code = lcx_read_head(file, &head);
  if (code) return code;
  lcx_stream_begin(&s, file, LCX_READ, &head);
  memset(mem, 0, sizeof *lc);
  lcx_stream_bytes(&s, &lc->wish, sizeof lc->wish);
  if (!s.error && lc->wish.bytes < (int32_t)sizeof lc->wish) s.error = LONGCTX_E_FORMAT;
  if (!s.error && (uint64_t)lc->wish.bytes > bytes - offsetof(struct longctx, wish))
    s.error = LONGCTX_E_SPACE;
  if (!s.error) lcx_stream_bytes(&s, lc + 1, (size_t)lc->wish.bytes - sizeof lc->wish);
  if (!s.error) s.error = lcx_sound_wish(lc, bytes, 1, &p);
  if (s.error == LONGCTX_E_SPACE) { /* too little memory, or a damaged number that asks for more? */
    s.error = 0;
    code = lcx_read_hash(&s);
    s.error = code ? code : LONGCTX_E_SPACE;
  }
  if (s.error) return s.error;
  memset((unsigned char *)mem + offsetof(struct longctx, wish) + (size_t)lc->wish.bytes, 0,
         (size_t)p.total - offsetof(struct longctx, wish) - (size_t)lc->wish.bytes);
  lc->start = head.start;
  lc->position = head.position;
  lcx_derive(lc, 1);
  if (head.bytes != lcx_state_bytes(lc, lc->start, lc->position) ||
      !lcx_sound_start(&lc->plan, lc->start))
    return LONGCTX_E_FORMAT;
  lcx_stream_all(lc, &s, lc->start, lc->position);
  code = lcx_read_hash(&s);
  if (!code) lc->label = lcx_own_label;
  return code;
}

LONGCTX_API longctx *longctx_load(void *mem, size_t bytes, FILE *file, int *error)
{
  return lcx_result(mem, lcx_read_new(mem, bytes, file), error);
}

/* Verifies or reads a state of this context's desc, from where the file stands. */
static int lcx_read_into(longctx *lc, FILE *file, int mode)
{
  lcx_stream s;
  lcx_file_head head;
  const unsigned char *own = lcx_at(lc, offsetof(struct longctx, wish));
  int code = lcx_read_head(file, &head), other = 0;
  int32_t i;
  if (code) return code;
  lcx_stream_begin(&s, file, mode, &head);
  for (i = 0; i < lc->wish.bytes && !other; i += 8) {
    unsigned char e[8];
    lcx_stream_bytes(&s, e, sizeof e);
    other = s.error || memcmp(e, own + i, sizeof e);
  }
  if (!other && (head.bytes != lcx_state_bytes(lc, head.start, head.position) ||
                 !lcx_sound_start(&lc->plan, head.start)))
    return LONGCTX_E_FORMAT;
  if (!other) lcx_stream_all(lc, &s, head.start, head.position);
  if (s.error) return s.error;
  code = lcx_read_hash(&s);
  if (code) return code;
  if (other) return LONGCTX_E_MISMATCH;
  if (mode == LCX_READ) {
    lc->start = head.start;
    lc->position = head.position;
    lcx_drop_batch(lc);
  }
  return LONGCTX_OK;
}

LONGCTX_API int longctx_restore(longctx *lc, FILE *file)
{
  long here;
  int code, i;
  if (!lc || !file) return LONGCTX_E_ARG;
  here = ftell(file);
  if (here < 0) return LONGCTX_E_IO;
  code = lcx_read_into(lc, file, LCX_VERIFY);
  if (fseek(file, here, SEEK_SET)) return code ? code : LONGCTX_E_IO;
  if (code) return code;
  if (lcx_read_into(lc, file, LCX_READ) == 0) return LONGCTX_OK;
  longctx_reset(lc); /* the file changed, or failed, meanwhile */
  for (i = 0; i < lc->wish.n_layers; ++i) { /* what was read may be half of a layer's settings */
    longctx_set_sink_logits(lc, i, NULL);
    longctx_set_gate(lc, i, NULL);
  }
  return LONGCTX_E_IO;
}
#endif

/* ============================================================================================ */
/* == 13 ATTEND ==                                                                              */
/* The calls of the forward pass: checks, work shared among parts, time.                        */

#if defined(_OPENMP) && !defined(LONGCTX_NO_OPENMP)
#include <omp.h>
#define LCX_OPENMP 1
#else
#define LCX_OPENMP 0
#endif

/* An attend's arguments, as its parts get them. */
typedef struct lcx_call {
  const lcx_kernels *kernel;
  longctx *lc;
  const lcx_layer *y;
  int layer, n, writes;
  int64_t at;    /* position of the first token */
  int64_t since; /* below 0: queries of tokens; else of feedback rows, set at this position */
  const float *q, *k, *v;
  float *out;
} lcx_call;

LONGCTX_API int longctx_room(const longctx *lc)
{
  int64_t room, block;
  if (!lc || longctx_feedback_due(lc)) return 0;
  room = lcx_min64(lc->wish.max_batch, LCX_POS_END - lc->position);
  block = lc->plan.block; /* no token may read what another of its batch folds; feedback is due */
  return (int)(block ? lcx_min64(room, block - lc->position % block) : room);
}

static void lcx_call_make(lcx_call *c, longctx *lc, int layer, int n, float *out)
{
  memset(c, 0, sizeof *c);
  c->kernel = lcx_kernels_of(lc->isa);
  c->lc = lc;
  c->y = lcx_layer_of(lc, layer);
  c->layer = layer;
  c->n = n;
  c->at = lc->position;
  c->since = LCX_NOWHERE;
  c->out = out;
}

/* Fills in c; 0, or why the attend is refused. */
static int lcx_call_check(lcx_call *c, longctx *lc, int layer, int n, const float *q,
                          const float *k, const float *v, float *out)
{
  if (!lc || layer < 0 || layer >= lc->wish.n_layers || n < 0) return LONGCTX_E_ARG;
  lcx_call_make(c, lc, layer, n, out);
  c->q = q;
  c->k = k;
  c->v = v;
  c->writes = k != NULL;
  if (n == 0) return LONGCTX_OK;
  if (!q || !out || !k != !v || (k && c->y->reader)) return LONGCTX_E_ARG;
  if (n > longctx_room(lc)) return longctx_feedback_due(lc) ? LONGCTX_E_ORDER : LONGCTX_E_ARG;
  if (!k && lcx_live_of(lc, c->y->source)->tokens < n) return LONGCTX_E_ORDER;
  return LONGCTX_OK;
}

static lcx_reach lcx_call_reach(const lcx_call *c)
{
  return lcx_reach_of(c->lc, c->y, c->since, c->at, c->at + c->n - 1);
}

/* Are KV heads split into segments, whose partial results wait for join? Only few rows, never
   feedback's, and only if heads % parts is not 0; else a part takes whole heads. */
static int lcx_splits(const lcx_call *c, int parts)
{
  int heads = c->lc->wish.n_kv_heads;
  return parts > 1 && c->since < 0 && heads % parts != 0 &&
         (int64_t)c->n * lcx_group(c->lc) <= c->lc->plan.split_rows;
}

/* A split head's units: its segments, then memory if the layer has it. */
static int64_t lcx_units_of_head(const lcx_call *c, const lcx_reach *r)
{
  return lcx_segments_of(r) + (c->y->memory != 0);
}

/* How many parts take part: no more than there are units. lcx_part and lcx_finish_call go by this
   number, so that they agree on whether heads are split. */
static int lcx_useful_parts(const lcx_call *c, int n_parts)
{
  int64_t units = c->lc->wish.n_kv_heads;
  int parts = lcx_min(n_parts, c->lc->max_threads);
  if (lcx_splits(c, parts)) {
    lcx_reach r = lcx_call_reach(c);
    units *= lcx_units_of_head(c, &r);
  }
  return (int)lcx_min64(parts, units);
}

/* What unit `unit` of KV head h left for a row: m, l and o of a segment; of memory whether the row
   recalled, nothing, and what. */
static float *lcx_partial(const longctx *lc, int64_t h, int64_t unit, int row)
{
  uint64_t i = ((uint64_t)h * (uint64_t)lc->plan.segments + (uint64_t)unit) *
                   (uint64_t)lc->plan.split_rows + (uint64_t)row;
  return (float *)(void *)lcx_at(lc, lc->plan.partials) + i * lc->plan.partial;
}

/* Stores the call's tokens in KV head h, those at positions from..to-1, which end with the call's
   last one or before. */
static void lcx_write(const lcx_call *c, lcx_work *w, int h, int64_t from, int64_t to)
{
  const lcx_wish *wish = &c->lc->wish;
  int64_t t;
  if (!c->writes) return;
  for (t = lcx_max64(from, c->at); t < to; ++t) {
    size_t at = (size_t)(t - c->at) * (size_t)wish->n_kv_heads + (size_t)h;
    if (t + 1 < to) { /* a head's part of each token: too far apart for hardware to foresee */
      size_t next = at + (size_t)wish->n_kv_heads;
      lcx_fetch(c->k + next * (size_t)wish->head_dim, wish->head_dim * (int)sizeof(float));
      lcx_fetch(c->v + next * (size_t)wish->head_dim_v, wish->head_dim_v * (int)sizeof(float));
    }
    lcx_write_token(c->kernel, c->lc, c->y, w, h, t, c->k + at * (size_t)wish->head_dim,
                    c->v + at * (size_t)wish->head_dim_v);
  }
}

/* Prepares rows r0..r0+n-1 of KV head h: queries scaled and rotated, views. */
static void lcx_prepare(const lcx_call *c, lcx_work *w, int h, int r0, int n)
{
  const lcx_kernels *kernel = c->kernel;
  const longctx *lc = c->lc;
  const lcx_layer *y = c->y;
  const float *slopes = (const float *)(const void *)lcx_at(lc, lc->plan.slopes);
  int r, dims = w->head_dim, group = lcx_group(lc);
  w->n = n;
  w->cap = y->cap;
  for (r = 0; r < n; ++r) {
    const float *x = c->q + lcx_query_of(lc, h, r0 + r) * (size_t)dims;
    int token = (r0 + r) / group, next = r0 + r + group;
    if (next < r0 + n)
      lcx_fetch(c->q + lcx_query_of(lc, h, next) * (size_t)dims, dims * (int)sizeof(float));
    lcx_look(lc, y, w, r, c->since, c->since < 0 ? c->at + token : token);
    w->bad[r] = kernel->hold(x, dims, lcx_pairs(y), y->scale, LCX_BIG, w->line);
    lcx_turn_to(kernel, lc, y, w, LCX_WINDOW, w->view[LCX_WINDOW][r].stand);
    kernel->rotate(w->line, dims, y->half, w->turn[LCX_WINDOW], w->q[LCX_WINDOW] + r * dims);
    if (w->view[LCX_SINKS][r].to > 0) {
      lcx_turn_to(kernel, lc, y, w, LCX_SINKS,
                  lcx_sink_position(lc, y, w->view[LCX_SINKS][r].stand));
      kernel->rotate(w->line, dims, y->half, w->turn[LCX_SINKS], w->q[LCX_SINKS] + r * dims);
    }
    if (w->slope) w->slope[r] = slopes[lcx_head_of(lc, h, r0 + r)];
  }
  if (lc->wish.type_k == LONGCTX_Q8) kernel->quantise_q(w);
}

/* ---- rows over keys and values, span by span ---------------------------------------------- */

/* The hull of rows first..end-1, by their lo and hi. */
static lcx_hull lcx_hull_of(const lcx_work *w, int first, int end)
{
  lcx_hull h = {LCX_SPAN, 0, 1};
  int r;
  for (r = first; r < end; ++r) {
    if (w->lo[r] != w->lo[first] || w->hi[r] != w->hi[first]) h.alike = 0;
    if (w->lo[r] < h.first) h.first = w->lo[r];
    if (w->hi[r] > h.last) h.last = w->hi[r];
  }
  return h;
}

/* Sets each row's lo and hi in the span at x, and which rows see some of it; returns their hull.
   Rows are in order of time, so those that do follow each other; views leave no gap: one does. */
LCX_OUTLINE lcx_hull lcx_visible(lcx_work *w, const lcx_view *view, int64_t x)
{
  lcx_hull whole = {0, LCX_SPAN, 1};
  int r, inside = view[w->n - 1].from <= x && x + LCX_SPAN <= view[0].to;
  for (r = 0; r < w->n; ++r) {
    w->lo[r] = inside ? 0 : (int)lcx_max64(0, lcx_min64(view[r].from - x, LCX_SPAN));
    w->hi[r] = inside ? LCX_SPAN : (int)lcx_max64(0, lcx_min64(view[r].to - x, LCX_SPAN));
  }
  w->first = 0;
  w->end = w->n;
  while (w->lo[w->first] >= w->hi[w->first]) {
    LONGCTX_ASSERT(w->first + 1 < w->n);
    ++w->first;
  }
  while (w->lo[w->end - 1] >= w->hi[w->end - 1]) --w->end;
  return inside ? whole : lcx_hull_of(w, w->first, w->end);
}

/* Rows that end with the call's last, an odd number of them, have room for one more behind them. */
static int lcx_has_spare(const lcx_work *w) { return (w->end == w->n) & w->n & 1; }

/* For the next of `rows` rows: the first shape from t on of this type and no more rows, but perhaps
   the spare one. Eight rows go as two fours: six would leave two, often too few for a shape. */
static const lcx_shape *lcx_shape_of(const lcx_shape *t, const lcx_work *w, int type, int rows,
                                     int spare)
{
  if (rows == 8) rows = 4;
  while (t->type != type || (spare ? t->least : t->rows) > rows) ++t;
  return t + (t->has_narrower & !w->on_intel);
}

/* Sets what rows prefetch of the tile behind a stored span: bytes from..to-1 if they will be
   widened, else nothing. Up to LCX_MANY rows leave it to widening. More work far longer in qk and
   pv than widening takes, and longer than memory takes to send a span: each group of rows asks for
   a portion before its kernel runs. */
static void lcx_next_is(lcx_work *w, const lcx_span *stored, int widens, uint32_t from,
                        uint32_t to)
{
  w->next_bytes = 0;
  if (!widens || stored->fetch_widen || stored->ahead == 0) return;
  w->next = stored->tile[0] + stored->ahead + from;
  w->next_bytes = (int)(to - from);
}

/* Prefetches portions i..end-1 of n. */
LCX_INLINE void lcx_fetch_next(const lcx_work *w, int i, int end, int n)
{
  int first = lcx_up(w->next_bytes * i / n, 64);
  if (w->next_bytes > 0) lcx_fetch(w->next + first, w->next_bytes * end / n - first);
}

/* Scores the rows that see some of a span, with shapes from t on. */
static void lcx_qk(const lcx_shape *t, const lcx_store *st, const lcx_span *sp, const lcx_work *w,
                   const float *q, lcx_hull all)
{
  int r, end, first = w->first, of = w->end - first, spare = lcx_has_spare(w);
  for (r = first; r < w->end; r = end) {
    t = lcx_shape_of(t, w, st->type_k, w->end - r, spare);
    end = lcx_min(r + t->rows, w->end);
    lcx_fetch_next(w, r - first, end - first, of);
    t->qk(st, sp, w, q, r, all.alike ? all : lcx_hull_of(w, r, end));
  }
}

/* Adds a span's weighted values to the rows that see some of it. All take a panel before the next:
   it stays in the nearest cache. */
static void lcx_pv(const lcx_shape *shapes, const lcx_store *st, const lcx_span *sp,
                   const lcx_work *w, lcx_hull all)
{
  int r, end, panel, rows = w->end - w->first, at = 0, spare = lcx_has_spare(w);
  int of = w->stride / LCX_PANEL * rows;
  for (panel = 0; panel < st->head_dim_v; panel += LCX_PANEL) {
    const lcx_shape *t = shapes;
    for (r = w->first; r < w->end; at += end - r, r = end) {
      t = lcx_shape_of(t, w, st->type_v, w->end - r, spare);
      end = lcx_min(r + t->rows, w->end);
      lcx_fetch_next(w, at, at + end - r, of);
      t->pv(st, sp, w, r, panel, all.alike ? all : lcx_hull_of(w, r, end));
    }
  }
}

/* the sum of 16 lanes, by halves */
static float lcx_sum_of(const float *lane)
{
  float sum[8];
  int j;
  LCX_UNROLL for (j = 0; j < 8; ++j) sum[j] = lane[j] + lane[j + 8];
  LCX_UNROLL for (j = 0; j < 4; ++j) sum[j] = sum[j] + sum[j + 4];
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* Prefetches what int8's kernels would wait for: the span's scales, read all at once after what
   they scale; and for several rows the next span's last 2 KB, because pv asks for values faster
   than memory sends them (not where fetch_alone is set: Intel's processors lose by it). Inline, or
   gcc 12 drops it as having no effect. */
LCX_INLINE void lcx_fetch_q8(const lcx_store *st, const lcx_span *sp, int rows)
{
  int g, last, early = (rows > 1) & !sp->fetch_alone;
  if (st->type_k != LONGCTX_Q8 && st->type_v != LONGCTX_Q8) return;
  for (g = 0; g < 4; ++g) {
    LCX_FETCH(sp->tile[g] + st->scale_k + 4 * sp->at[g]);
    LCX_FETCH(sp->tile[g] + st->scale_v + 4 * sp->at[g]);
  }
  last = early && sp->ahead != 0 ? lcx_min(2048, (int)st->bytes) : 0;
  lcx_fetch(sp->tile[0] + sp->ahead + st->bytes - last, last);
}

/* All rows over one segment of a store: m, l and o; l is NaN where a query was not finite. */
static void lcx_sweep(const lcx_call *c, lcx_work *w, int h, lcx_segment s)
{
  const lcx_kernels *kernel = c->kernel;
  const lcx_store *store = &c->y->store[s.which];
  const unsigned char *ring = lcx_ring_of(c->lc, c->y, s.which, h);
  static const int16_t directly[2] = {LCX_ROWS, LCX_MANY}; /* elsewhere, on Intel */
  const lcx_store *sk = store, *sv = store;
  const lcx_view *view = w->view[s.which];
  int r, slot, per_span = LCX_SPAN / store->tile; /* tiles not of 16 or 64: only one span */
  int direct = lcx_min(kernel->direct, directly[w->on_intel]);
  int wide_k = lcx_widens(store->type_k, w->n, direct);
  int wide_v = lcx_widens(store->type_v, w->n, direct);
  const lcx_shape *shape_k, *shape_v;
  lcx_store wide_store;
  lcx_span stored, widened;
  const lcx_span *span_k = &stored, *span_v = &stored;
  int64_t x = s.from / LCX_SPAN * LCX_SPAN;
  if (wide_k || wide_v) { /* one span, refilled each time */
    lcx_store_make(&wide_store, LONGCTX_F32, LONGCTX_F32, store->head_dim, store->head_dim_v,
                   LCX_SPAN, 0);
    wide_store.tiles = 1;
    wide_store.val = 0; /* values take the keys' place */
    lcx_span_at(&wide_store, (const unsigned char *)w->wide, 0, &widened);
    widened.fetch_alone = widened.fetch_widen = 0;
    if (wide_k) sk = &wide_store, span_k = &widened;
    if (wide_v) sv = &wide_store, span_v = &widened;
  }
  shape_k = lcx_shape_of(kernel->shapes, w, sk->type_k, w->n, 1);
  shape_v = lcx_shape_of(kernel->shapes, w, sv->type_v, w->n, 1);
  for (r = 0; r < w->n; ++r) w->m[r] = LCX_NOTHING;
  memset(w->lane, 0, (size_t)w->n * 16 * sizeof(float));
  memset(w->o, 0, (size_t)(lcx_even(w->n) * w->stride) * sizeof(float));
  stored.fetch_alone = w->fetch_alone;
  stored.fetch_widen = w->n <= LCX_MANY;
  slot = lcx_slot_of(store, x);
  for (; x < s.to; x += LCX_SPAN, slot = (slot + per_span) % store->tiles) {
    lcx_hull all = lcx_visible(w, view, x);
    lcx_span_at(store, ring, slot, &stored);
    if (w->n == 1 && store->type_k != LONGCTX_Q8 && stored.ahead > LCX_NEAR)
      stored.ahead = LCX_NEAR;
    lcx_fetch_q8(store, &stored, w->n);
    if (wide_k) kernel->widen_keys(store, &stored, all, w->wide);
    lcx_next_is(w, &stored, wide_k, 0, store->val);
    lcx_qk(shape_k, sk, span_k, w, w->q[s.which], all);
    kernel->soften(w, view, x);
    if (wide_v) kernel->widen_vals(store, &stored, all, w->wide); /* the keys are done with */
    if (sv->type_v == LONGCTX_Q8) kernel->quantise_w(sv, span_v, w, all);
    lcx_next_is(w, &stored, wide_v, store->val, store->bytes);
    lcx_pv(shape_v, sv, span_v, w, all);
  }
  for (r = 0; r < w->n; ++r)
    w->l[r] = w->bad[r] ? lcx_float(0x7fc00000u) : lcx_sum_of(w->lane + r * 16);
}

/* ---- parts --------------------------------------------------------------------------------- */

/* where row r of KV head h goes */
static float *lcx_out_of(const lcx_call *c, int h, int r)
{
  return c->out + lcx_query_of(c->lc, h, r) * (size_t)c->lc->wish.head_dim_v;
}

/* Completes row r of KV head h: merges the sink logit, divides, writes out. */
static void lcx_finish_row(const lcx_call *c, int h, int r, float m, float l, float *o)
{
  int dims = c->lc->wish.head_dim_v, head = lcx_head_of(c->lc, h, r);
  if (lcx_live_of(c->lc, c->layer)->has_logits)
    c->kernel->merge(&m, &l, o, lcx_logits_of(c->lc, c->layer)[head], 1.0f, NULL, dims);
  c->kernel->finish(o, l, dims, lcx_out_of(c, h, r));
}

/* Blends what row r of KV head h recalled into out. */
static void lcx_blend(const lcx_call *c, int h, int r, const float *recalled)
{
  c->kernel->blend(recalled, lcx_gates_of(c->lc, c->layer)[lcx_head_of(c->lc, h, r)],
                   c->lc->wish.head_dim_v, lcx_out_of(c, h, r));
}

/* Rows r0..r0+n-1 of KV head h recall: into outputs if unit < 0, else kept for join. */
static void lcx_recall_rows(const lcx_call *c, lcx_work *w, int h, int r0, int n, int64_t unit)
{
  int row[LCX_STRIP], i, r, some;
  if (!lcx_may_recall(c->lc, c->layer, h)) return;
  for (r = r0; r < r0 + n; r += LCX_STRIP) {
    some = lcx_recall(c->kernel, c->lc, c->layer, w, h, r, lcx_min(LCX_STRIP, r0 + n - r), c->q,
                      row);
    for (i = 0; i < some; ++i) {
      float *kept = unit < 0 ? NULL : lcx_partial(c->lc, h, unit, row[i]);
      lcx_recalled_row(w, i, kept ? kept + 2 : w->line);
      if (kept) kept[0] = 1;
      else lcx_blend(c, h, row[i], w->line);
    }
  }
}

/* All of one KV head: rows in, outputs out. */
LCX_OUTLINE void lcx_whole_head(const lcx_call *c, lcx_work *w, int h)
{
  const longctx *lc = c->lc;
  int group = lcx_group(lc), rows = c->n * group, r0, r;
  lcx_write(c, w, h, c->at, c->at + c->n);
  for (r0 = 0; r0 < rows; r0 += lc->plan.rows) {
    int n = lcx_min(lc->plan.rows, rows - r0);
    lcx_reach reach = lcx_reach_of(lc, c->y, c->since, c->at + r0 / group,
                                   c->at + (r0 + n - 1) / group);
    int64_t i;
    lcx_prepare(c, w, h, r0, n);
    for (r = 0; r < n; ++r) {
      w->sum_m[r] = LCX_NOTHING;
      w->sum_l[r] = 0;
      memset(w->sum_o + r * w->stride, 0, (size_t)w->stride * sizeof(float));
    }
    for (i = 0; i < lcx_segments_of(&reach); ++i) {
      lcx_sweep(c, w, h, lcx_segment_of(&reach, i));
      for (r = 0; r < n; ++r)
        c->kernel->merge(&w->sum_m[r], &w->sum_l[r], w->sum_o + r * w->stride, w->m[r], w->l[r],
                         w->o + r * w->stride, w->head_dim_v);
    }
    for (r = 0; r < n; ++r)
      lcx_finish_row(c, h, r0 + r, w->sum_m[r], w->sum_l[r], w->sum_o + r * w->stride);
    if (c->since < 0) lcx_recall_rows(c, w, h, r0, n, -1);
  }
}

/* About what unit i takes, in tokens, and at least 1, or no part would take it. Memory's matrix has
   a row for each dim of a key, as long as a value: half a token. */
static int64_t lcx_work_of(const lcx_call *c, const lcx_reach *reach, int64_t i)
{
  lcx_segment s;
  if (i == lcx_segments_of(reach)) return (c->lc->wish.head_dim + 1) / 2;
  s = lcx_segment_of(reach, i);
  return s.to - s.from;
}

/* Unit i of KV head h, its results kept for join. No other unit stores the new tokens of its
   segment. */
LCX_OUTLINE void lcx_one_unit(const lcx_call *c, lcx_work *w, int h, const lcx_reach *reach,
                              int64_t i)
{
  lcx_segment s;
  int rows = c->n * lcx_group(c->lc), r;
  if (i == lcx_segments_of(reach)) { /* after the segments: memory */
    for (r = 0; r < rows; ++r) lcx_partial(c->lc, h, i, r)[0] = 0;
    lcx_recall_rows(c, w, h, 0, rows, i);
    return;
  }
  s = lcx_segment_of(reach, i); /* each store takes its own of the new tokens */
  if (s.which == LCX_SINKS) lcx_write(c, w, h, c->lc->start + s.from, c->lc->start + s.to);
  if (s.which == LCX_WINDOW) lcx_write(c, w, h, s.from, s.to);
  lcx_prepare(c, w, h, 0, rows);
  lcx_sweep(c, w, h, s);
  for (r = 0; r < rows; ++r) {
    float *to = lcx_partial(c->lc, h, i, r);
    to[0] = w->m[r];
    to[1] = w->l[r];
    memcpy(to + 2, w->o + r * w->stride, (size_t)w->head_dim_v * sizeof(float));
  }
}

/* A part's share of split heads: the units whose middle lies in it, so that no part has more than
   half a unit too much at either end. */
LCX_OUTLINE void lcx_split_part(const lcx_call *c, lcx_work *w, int part, int parts)
{
  lcx_reach reach = lcx_call_reach(c);
  int64_t units = lcx_units_of_head(c, &reach), all = 0, done = 0, work, i;
  int heads = c->lc->wish.n_kv_heads, h;
  w->careful = 1;
  for (i = 0; i < units; ++i) all += lcx_work_of(c, &reach, i) * heads;
  for (h = 0; h < heads; ++h)
    for (i = 0; i < units; ++i, done += work) {
      work = lcx_work_of(c, &reach, i);
      if ((done + work / 2) * parts / all == part) lcx_one_unit(c, w, h, &reach, i);
    }
}

/* A part's share of a call, and its ticket for join. */
static void lcx_part(const lcx_call *c, int part, int parts)
{
  lcx_ticket *ticket = lcx_ticket_of(c->lc, part);
  int heads = c->lc->wish.n_kv_heads, h;
  lcx_work w;
  if (c->writes) LCX_CLEAR(&lcx_live_of(c->lc, c->layer)->tokens); /* no batch until join */
  lcx_carve(&c->lc->wish, &c->lc->plan, lcx_work_at(c->lc, part), &w);
  w.fetch_alone = c->lc->fetch_alone;
  w.on_intel = c->lc->on_intel;
  if (lcx_splits(c, parts)) lcx_split_part(c, &w, part, parts);
  else
    for (h = part; h < heads; h += parts) lcx_whole_head(c, &w, h);
  ticket->layer = c->layer;
  ticket->n = c->n;
  ticket->wrote = c->writes;
  ticket->parts = parts;
}

/* Merges partial results in a fixed order, whoever computed them. */
static void lcx_merge_partials(const lcx_call *c)
{
  lcx_reach reach = lcx_call_reach(c);
  int rows = c->n * lcx_group(c->lc), dims = c->lc->wish.head_dim_v, h, r;
  int64_t segments = lcx_segments_of(&reach), i;
  lcx_work w;
  lcx_carve(&c->lc->wish, &c->lc->plan, lcx_work_at(c->lc, 0), &w);
  for (h = 0; h < c->lc->wish.n_kv_heads; ++h)
    for (r = 0; r < rows; ++r) {
      float m = LCX_NOTHING, l = 0;
      memset(w.sum_o, 0, (size_t)w.stride * sizeof(float));
      for (i = 0; i < segments; ++i) {
        const float *from = lcx_partial(c->lc, h, i, r);
        c->kernel->merge(&m, &l, w.sum_o, from[0], from[1], from + 2, dims);
      }
      lcx_finish_row(c, h, r, m, l, w.sum_o);
      if (c->y->memory) { /* its unit is the last */
        const float *from = lcx_partial(c->lc, h, segments, r);
        if (from[0] > 0) lcx_blend(c, h, r, from + 2);
      }
    }
}

/* All parts are done: merge what they left, open the layer's batch, drop the tickets. */
static void lcx_finish_call(const lcx_call *c, int parts)
{
  if (lcx_splits(c, parts)) lcx_merge_partials(c);
  if (c->writes) lcx_live_of(c->lc, c->layer)->tokens = (int)(c->at - c->lc->position) + c->n;
  lcx_drop_tickets(c->lc);
}

LONGCTX_API int longctx_attend_part(longctx *lc, int layer, int n, const float *q, const float *k,
                                    const float *v, float *out, int part, int n_parts)
{
  lcx_call c;
  int code = lcx_call_check(&c, lc, layer, n, q, k, v, out), parts;
  if (code) return code;
  if (n_parts < 1 || part < 0 || part >= n_parts) return LONGCTX_E_ARG;
  if (n == 0) return LONGCTX_OK;
  parts = lcx_useful_parts(&c, n_parts);
  if (part < parts) lcx_part(&c, part, parts);
  return LONGCTX_OK;
}

LONGCTX_API int longctx_attend_join(longctx *lc, int layer, int n, float *out)
{
  lcx_call c;
  const lcx_ticket *first;
  int p, parts;
  if (!lc || layer < 0 || layer >= lc->wish.n_layers || n < 0) return LONGCTX_E_ARG;
  if (n == 0) return LONGCTX_OK;
  if (!out) return LONGCTX_E_ARG;
  if (n > longctx_room(lc)) return longctx_feedback_due(lc) ? LONGCTX_E_ORDER : LONGCTX_E_ARG;
  first = lcx_ticket_of(lc, 0);
  parts = first->parts;
  if (parts < 1) return LONGCTX_E_ORDER;
  LONGCTX_ASSERT(parts <= lc->max_threads);
  for (p = 0; p < parts; ++p) {
    const lcx_ticket *t = lcx_ticket_of(lc, p);
    if (t->parts != parts || t->layer != layer || t->n != n || t->wrote != first->wrote)
      return LONGCTX_E_ORDER;
  }
  for (; p < lc->max_threads; ++p) /* of another call: they may have stored its tokens */
    if (lcx_ticket_of(lc, p)->parts) return LONGCTX_E_ORDER;
  lcx_call_make(&c, lc, layer, n, out);
  c.writes = first->wrote;
  lcx_finish_call(&c, parts);
  return LONGCTX_OK;
}

#if LCX_OPENMP
/* Runs a call on as many threads as there are. Where whole KV heads would leave some idle, it takes
   as many tokens at a time as parts can split: the same bits. */
static void lcx_run(const lcx_call *call)
{
  lcx_call c = *call;
  const lcx_wish *w = &c.lc->wish;
  size_t heads = (size_t)w->n_heads, kv_heads = (size_t)w->n_kv_heads;
  int threads = lcx_min(c.lc->max_threads, omp_get_max_threads());
  int step = c.n, at_once = c.lc->plan.split_rows / lcx_group(c.lc), left;
  if (c.since < 0 && w->n_kv_heads % threads && at_once > 0) step = at_once;
  for (left = c.n; left > 0; left -= c.n) {
    int p, parts;
    c.n = lcx_min(step, left);
    parts = lcx_useful_parts(&c, threads);
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (p = 0; p < parts; ++p) lcx_part(&c, p, parts);
    lcx_finish_call(&c, parts);
    c.at += c.n;
    c.q += (size_t)c.n * heads * (size_t)w->head_dim;
    c.out += (size_t)c.n * heads * (size_t)w->head_dim_v;
    if (!c.writes) continue;
    c.k += (size_t)c.n * kv_heads * (size_t)w->head_dim;
    c.v += (size_t)c.n * kv_heads * (size_t)w->head_dim_v;
  }
}
#else
static void lcx_run(const lcx_call *c)
{
  lcx_part(c, 0, 1);
  lcx_finish_call(c, 1);
}
#endif

LONGCTX_API int longctx_attend(longctx *lc, int layer, int n, const float *q, const float *k,
                               const float *v, float *out)
{
  lcx_call c;
  int code = lcx_call_check(&c, lc, layer, n, q, k, v, out);
  if (code == LONGCTX_OK && n > 0) lcx_run(&c);
  return code;
}

LONGCTX_API int longctx_feedback_attend(longctx *lc, int layer, float *out)
{
  lcx_call c;
  int code = lcx_fed_check(lc, layer);
  if (!code && !out) code = LONGCTX_E_ARG;
  if (code) return code;
  lcx_call_make(&c, lc, layer, lc->wish.feedback_len, out);
  c.q = lcx_fed_q(lc, c.y);
  c.since = lcx_set_at(lc, layer);
  if (c.since < lc->start) return LONGCTX_E_ORDER; /* nothing was set yet */
  lcx_run(&c);
  return LONGCTX_OK;
}

/* Folds what n more committed tokens fold, on as many threads as attend uses. */
static void lcx_fold_all(longctx *lc, int n)
{
  int parts = 1, p;
#if LCX_OPENMP
  int64_t heads = (int64_t)lc->wish.n_layers * lc->wish.n_kv_heads;
  parts = (int)lcx_min64(lcx_min(lc->max_threads, omp_get_max_threads()), heads);
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
#endif
  for (p = 0; p < parts; ++p) {
    lcx_work w;
    lcx_carve(&lc->wish, &lc->plan, lcx_work_at(lc, p), &w);
    lcx_fold_part(lc, &w, n, p, parts);
  }
}

LONGCTX_API int longctx_commit(longctx *lc, int n)
{
  int i;
  if (!lc || n < 0) return LONGCTX_E_ARG;
  if (n > longctx_room(lc)) return longctx_feedback_due(lc) ? LONGCTX_E_ORDER : LONGCTX_E_ARG;
  for (i = 0; i < lc->wish.n_layers; ++i)
    if (!lcx_layer_of(lc, i)->reader && lcx_live_of(lc, i)->tokens < n) return LONGCTX_E_ORDER;
  lcx_drop_batch(lc);
  if (lcx_folds(lc, n)) lcx_fold_all(lc, n);
  lc->position += n;
  if (n > 0 && lc->plan.feedback && lc->position % lc->plan.block == 0) lcx_become_due(lc);
  return LONGCTX_OK;
}

/* ============================================================================================ */
/* == 14 ANSWERS ==                                                                             */
/* Questions about a context; error codes, version and instruction sets as text.                */

LONGCTX_API int64_t longctx_position(const longctx *lc) { return lc ? lc->position : 0; }

LONGCTX_API longctx_desc longctx_get_desc(const longctx *lc)
{
  longctx_desc d;
  longctx_layer *list;
  lcx_wish_layer l;
  const lcx_wish *w;
  uint64_t at;
  int i;
  memset(&d, 0, sizeof d);
  if (!lc) return d;
  w = &lc->wish;
#define LCX_X(field) d.field = w->field;
  LCX_DESC_FIELDS(LCX_X)
#undef LCX_X
#define LCX_X(field) d.field = w->base.field;
  LCX_LAYER_FIELDS(LCX_X)
#undef LCX_X
  d.rope_freqs = lcx_freqs_next(lc, -1, &l, &at);
  d.max_threads = lc->max_threads;
  if (!w->has_layers) return d;
  d.layers = list = (longctx_layer *)(void *)lcx_at(lc, lc->plan.list);
  for (i = 0; i < w->n_layers; ++i) {
    list[i].rope_freqs = lcx_freqs_next(lc, i, &l, &at);
#define LCX_X(field) list[i].field = l.field;
    LCX_LAYER_FIELDS(LCX_X)
#undef LCX_X
    list[i].feedback = l.feedback;
    list[i].kv_from = l.kv_from;
  }
  return d;
}

LONGCTX_API const char *longctx_error(int code)
{
#define LCX_X(name, value, text)                                                                 \
  case LONGCTX_##name: return text;
  switch (code) {
    LONGCTX_ERRORS(LCX_X)
  default: return "unknown error code";
  }
#undef LCX_X
}

#define LCX_TEXT(x) #x
#define LCX_VERSION(a, b, c) LCX_TEXT(a) "." LCX_TEXT(b) "." LCX_TEXT(c)
LONGCTX_API const char *longctx_version(void)
{
  return LCX_VERSION(LONGCTX_VERSION_MAJOR, LONGCTX_VERSION_MINOR, LONGCTX_VERSION_PATCH);
}

LONGCTX_API int longctx_isa(const longctx *lc) { return lc ? (int)lc->isa : LONGCTX_E_ARG; }

LONGCTX_API int longctx_set_isa(longctx *lc, int isa)
{
  if (!lc) return LONGCTX_E_ARG;
  if (!lcx_available(isa)) return LONGCTX_E_ISA;
  lc->isa = (int16_t)isa;
  return LONGCTX_OK;
}

LONGCTX_API const char *longctx_isa_name(int isa)
{
  static const char *const names[LCX_ISAS] = {"scalar", "scalar-fma", "sse2", "avx2",
                                              "avx512", "neon",       "wasm"};
  return isa >= 0 && isa < LCX_ISAS ? names[isa] : NULL;
}

/* ============================================================================================ */
/* == 15 BACK DOOR ==                                                                           */
/* Private macros removed, changelog, licence.                                                  */

#ifdef LCX_PRECISE
#pragma float_control(pop)
#undef LCX_PRECISE
#endif
#undef LCX_ARM
#undef LCX_AVX2
#undef LCX_AVX512
#undef LCX_BASE_FMA
#undef LCX_BIG
#undef LCX_CLEAR
#undef LCX_DESC_FIELDS
#undef LCX_DIMS
#undef LCX_DIRECT
#undef LCX_FENCE
#undef LCX_FETCH
#undef LCX_FOLDED
#undef LCX_FORMAT
#undef LCX_GNU
#undef LCX_GUARD
#undef LCX_HAVE_AVX2
#undef LCX_HAVE_AVX512
#undef LCX_HAVE_NEON
#undef LCX_HAVE_SCALAR
#undef LCX_HAVE_SCALAR_FMA
#undef LCX_HAVE_SSE2
#undef LCX_HAVE_WASM
#undef LCX_IN
#undef LCX_INFINITY
#undef LCX_INLINE
#undef LCX_IN_TURN
#undef LCX_ISAS
#undef LCX_KEEP
#undef LCX_KEY
#undef LCX_LAYER_FIELDS
#undef LCX_LOG2E
#undef LCX_MAGIC
#undef LCX_MANY
#undef LCX_MASKED
#undef LCX_MAX
#undef LCX_MEMORY_AHEAD
#undef LCX_NEAR
#undef LCX_NEON
#undef LCX_NOTHING
#undef LCX_NOWHERE
#undef LCX_OPENMP
#undef LCX_OUTLINE
#undef LCX_PANEL
#undef LCX_POS_END
#undef LCX_PROBE
#undef LCX_ROWS
#undef LCX_SCALAR
#undef LCX_SCALAR_FMA
#undef LCX_SEGMENT
#undef LCX_SMALL
#undef LCX_SPAN
#undef LCX_SPLIT
#undef LCX_SSE2
#undef LCX_STOCK
#undef LCX_STRIP
#undef LCX_TARGET
#undef LCX_TEXT
#undef LCX_UNROLL
#undef LCX_VERSION
#undef LCX_WANT
#undef LCX_WASM
#undef LCX_WEB
#undef LCX_X86
#endif /* rooms 7 to 15 */
#ifndef LCX_PASS
#define LONGCTX_IMPLEMENTED
#endif
#endif /* LONGCTX_IMPLEMENTATION */

/* CHANGELOG
     1.1.15 Faster: where it saves a pass, three query heads to a KV head are computed as four, five
            as six: float16, 24 heads on 8, 0.80 of the time with avx512, 0.66 with sse2 (avx2: no
            difference; measured on Intel). Eight rows go as two fours. Fixed: init took a list or a
            table that begins before `mem` and ends in it; copy took a block that is too small for
            one that overlaps; LONGCTX_NO_DISPATCH with -mavx2 -mfma but not -mf16c gave sse2. The
            contract of join says what it does. Blocks are 8 bytes a layer smaller, and odd batches
            take a row more: blocks of 1.1.14 are refused, its state files are not. No bit changed.
     1.1.14 Faster, measured on Intel. 256 rows pass over the keys at once, not 96, and a span takes
            only those that see some of it: prefill 72 to 76 % of the multiply-add peak, from 68 to
            74. There lone rows use avx512's own vectors: small shapes 1.3 to 1.4 times the plain
            loop, from 1.1 to 1.2 (int8 stays at 1.6). The working space of long batches grows, at
            head_dim 128 by up to 0.5 MB a thread; values are widened where keys were. No bit and
            no state changed.
     1.1.13 Faster, measured on Intel. The working space's vectors lie on cache lines, wherever the
            block lies, and widened spans are not prefetched in vain: prefill 0.80 to 0.87
            of the time (avx2 0.89 to 0.93), at addresses from malloc less still. Prefetches are
            spread out: decode 0.91 to 0.96 of the time (bfloat16 0.99). Not measured on AMD. No
            bit and no size changed.
     1.1.12 Fixed: join took a call of few parts as complete beside parts of another call, which may
            have stored its tokens; now E_ORDER. init in place with the context's own desc lost its
            layers and frequencies; a desc that lies in the block, or whose tables do, now makes it
            return NULL. Faster: RoPE's angles (a third to a half of the time), and prefill (0.96
            to 0.99): the next token's numbers are fetched early. Decode of small shapes with one
            query head to a KV head (0.96). Manual: feedback rows do not see sink tokens of their
            own block; ALiBi's distance to sinks; what int8 rounds; a NaN's sign. No bit changed.
     1.1.11 Faster: decode of bfloat16, read as stored now and no longer widened (0.42 of the time);
            its prefill (0.95); avx512 with several rows on Zen 4 (float16 0.93 to 0.96); two or
            three query heads to a KV head in avx512, and with float16 and bfloat16 in avx2 (0.7 to
            0.9). With avx512, float16 and keys in cache, six or seven take 4 to 6 % more.
            Blocks with bfloat16 and at most 8 rows are smaller: those of 1.1.10 are refused, its
            state files are not. No bit changed.
     1.1.10 Faster: prefill of float16 on Intel's processors, where more than 32 rows now share one
            widened copy, and int8 with several query heads to a KV head, which 1.1.9 had slowed
            down there; prefill of what is widened (bfloat16; float16 without AVX2). No bit changed.
     1.1.9  Faster: int8 with several query heads to a KV head, over keys in no cache: the values'
            last lines are asked for earlier. No bit changed.
     1.1.8  Faster: parts that split KV heads share them out by tokens instead of by segments: of
            one KV head the longest of 4 or 8 parts has up to a third less to do. No bit changed.
            MSVC inlines the kernels and fetches early as other compilers do; its branches are
            compiled and run by clang now.
     1.1.7  Manual, contracts and the sentences of longctx_check in plainer words; a row no longer
            means a token. Now in room 1: window + sinks within the trained length, kv_from layers
            only read, a non-finite key or value of a sink stays. No bit changed. Fixed: after a
            restore whose second reading failed, what the context saved was refused by load.
     1.1.6  Faster: avx512, tuned on hardware for the first time, reads float16 keys and values as
            stored in prefill and takes avx2's kernels for a single float32 or float16 row. On every
            set int8 queries are packed by vectors, and a window's edge costs only the columns seen.
            One query head to a KV head on Intel: keys and values are fetched early if they exceed
            2 MB; other processors do that better by themselves. No bit changed. No warnings with
            g++ and LONGCTX_NO_DISPATCH on avx512.
     1.1.5  Faster: int8 over keys in no cache (it waited for their scales), and with OpenMP long
            batches over few KV heads, which threads now share. No bit changed. Refused: an int8
            scale that brings scores below an empty row's maximum, sink logits where a state says
            there are none, a copy onto an overlapping block, rope_mscale below 1e-6 (memory
            silently stayed empty). Load with too little memory returns E_IO where reading failed.
            A softcap of -0 is 0.
     1.1.4  Faster: int8 with one query head to a KV head (hardware fetches its stream, we no longer
            do), float16 through SSE2 and WASM. Early fetches wrap with the ring; they ran past its
            end. No frame above 512 bytes with gcc 12 -O2. No bit changed.
     1.1.3  One kernel call takes all keys of a span, or a panel of its values; int8 tokens and
            weights are packed faster: decode takes 2 % fewer instructions with float16, 7 % with
            int8; no bit changed. A state with a negative int8 scale is refused; int8 was wrong on
            big-endian AArch64. The door says what copy gives, that load takes any shape, and what
            size it needs: with max_threads 1, which may be larger than with more.
     1.1.2  Decode takes 6 to 11 % fewer instructions, prefill 8 %; no bit changed. commit
            accepted a batch whose rows unjoined parts had partly replaced; that is E_ORDER now.
     1.1.1  Parts of fast-math are refused (gcc, -ffinite-math-only) or have no effect (clang): they
            silently changed bits. Rows from 2^22 on (was 2^39) are not folded into memory: sums of
            many could overflow float32. Float16 is rounded by instruction where there is one. -Os
            without SIMD builds one set, the machine's own. Opening many layers with tables is no
            longer quadratic. LONGCTX_ERROR_END is gone.
     1.1.0  Compressive memory (Infini-attention), linear and delta rule: fields memory and
            memory_first, longctx_set_gate, longctx_memory_add. Feedback rows (TransformerFAM):
            fields feedback_len, feedback_dim and feedback, longctx_feedback and longctx_feedback_*.
            LONGCTX_STATIC_SIZE. State format 2. Fixed: int8 keys gave wrong scores on big-endian
            machines; longctx_restore could reset the context and return E_FORMAT, as if nothing had
            changed; a forged state that no desc makes (scale 0, rope dims without rope) was
            accepted.
     1.0.0  Sliding and block windows with sinks, float32, float16, bfloat16 and int8 keys and
            values, rollback, state files, parts; scalar, SSE2, AVX2, AVX-512, NEON, WASM.

   LICENCE
   This software is available under 2 licences: choose the one you prefer.

   A - MIT No Attribution (MIT-0), Copyright (c) 2026 the longctx.h authors
   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   B - Public Domain (www.unlicense.org)
   This is free and unencumbered software released into the public domain. Anyone is free to copy,
   modify, publish, use, compile, sell, or distribute this software, either in source code form or
   as a compiled binary, for any purpose, commercial or non-commercial, and by any means. In
   jurisdictions that recognize copyright laws, the author or authors of this software dedicate any
   and all copyright interest in the software to the public domain. We make this dedication for the
   benefit of the public at large and to the detriment of our heirs and successors. We intend this
   dedication to be an overt act of relinquishment in perpetuity of all present and future rights
   to this software under copyright law. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY
   KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
   FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY
   CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING
   FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
