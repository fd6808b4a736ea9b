/* 05_threads.c - attention on the caller's own threads, with the bits of one thread.

   The threads start once and wait at a barrier; a layer is one round of all of them. The header
   starts no thread and takes no lock: a part only needs its number.
   build  cc -O2 -std=c99 -I. examples/05_threads.c -o 05_threads -pthread

   expected output:
      4 threads, 2048 tokens in batches of 16, 2 layers: the same bits as one thread
*/
#define _XOPEN_SOURCE 700
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, HEADS = 8, KV_HEADS = 2, DIM = 32, WINDOW = 512, SINKS = 4 };
enum { THREADS = 4, BATCH = 16, TOKENS = 2048 };

/* One layer's call, shared by all threads. The barriers order who writes and who reads it. */
static struct {
  longctx *context;
  int layer;
  float q[BATCH * HEADS * DIM], k[BATCH * KV_HEADS * DIM], v[BATCH * KV_HEADS * DIM];
  float out[BATCH * HEADS * DIM];
  int codes[THREADS];
  int over;
  pthread_barrier_t begin, end;
} work;

static void run_part(int part)
{
  work.codes[part] = longctx_attend_part(work.context, work.layer, BATCH, work.q, work.k, work.v,
                                         work.out, part, THREADS);
}

static void *worker(void *number)
{
  int part = *(int *)number;
  for (;;) {
    pthread_barrier_wait(&work.begin);
    if (work.over) return NULL;
    run_part(part);
    pthread_barrier_wait(&work.end);
  }
}

/* what longctx_attend does, on all threads; the caller's own is part 0 */
static int attend_with_all(longctx *context, int layer)
{
  work.context = context;
  work.layer = layer;
  pthread_barrier_wait(&work.begin);
  run_part(0);
  pthread_barrier_wait(&work.end);
  for (int i = 0; i < THREADS; i++)
    if (work.codes[i]) return work.codes[i];
  return longctx_attend_join(context, layer, BATCH, work.out);
}

static void fill(float *x, int n)
{
  static uint32_t seed = 1;
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

/* streams a text through both contexts; 1 same bits, 0 others, -1 error */
static int compare(longctx *alone, longctx *together)
{
  static float out[BATCH * HEADS * DIM];
  int same = 1;
  for (int token = 0; token < TOKENS; token += BATCH) {
    for (int layer = 0; layer < LAYERS; layer++) {
      fill(work.q, BATCH * HEADS * DIM);
      fill(work.k, BATCH * KV_HEADS * DIM);
      fill(work.v, BATCH * KV_HEADS * DIM);
      if (longctx_attend(alone, layer, BATCH, work.q, work.k, work.v, out)) return -1;
      if (attend_with_all(together, layer)) return -1;
      same = same && memcmp(out, work.out, sizeof out) == 0;
    }
    if (longctx_commit(alone, BATCH) || longctx_commit(together, BATCH)) return -1;
  }
  return same;
}

static longctx *make_context(int max_threads)
{
  longctx_desc desc = longctx_desc_make(LAYERS, HEADS, KV_HEADS, DIM, WINDOW);
  desc.sinks = SINKS;
  desc.max_batch = BATCH;
  desc.max_threads = max_threads;
  size_t bytes = longctx_size(&desc);
  void *memory = malloc(bytes);
  return memory ? longctx_init(memory, bytes, &desc) : NULL;
}

int main(void)
{
  pthread_t threads[THREADS];
  int numbers[THREADS];
  longctx *alone = make_context(1), *together = make_context(THREADS);
  if (!alone || !together) return 1;
  if (pthread_barrier_init(&work.begin, NULL, THREADS)) return 1;
  if (pthread_barrier_init(&work.end, NULL, THREADS)) return 1;
  for (int i = 1; i < THREADS; i++) {
    numbers[i] = i;
    if (pthread_create(&threads[i], NULL, worker, &numbers[i])) return 1;
  }

  int same = compare(alone, together);
  work.over = 1;
  pthread_barrier_wait(&work.begin);
  for (int i = 1; i < THREADS; i++) pthread_join(threads[i], NULL);
  if (same < 0) return 1;
  printf("%d threads, %d tokens in batches of %d, %d layers: %s\n", THREADS, TOKENS, BATCH, LAYERS,
         same ? "the same bits as one thread" : "OTHER BITS");
  return same ? 0 : 1;
}
