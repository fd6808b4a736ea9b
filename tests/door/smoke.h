/* smoke.h: the smallest use. The first token sees itself alone: its output is its value. */
#include <string.h>

static int smoke(void)                                 /* 0: all is well                         */
{
  static double block[4096];                           /* aligned, as malloc would               */
  const float q[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, k[4] = { 1, 0, 1, 0 }, v[4] = { 5, 6, 7, 8 };
  float out[8];
  longctx_desc desc = longctx_desc_make(1, 2, 1, 4, 8);
  longctx *lc = longctx_init(block, sizeof block, &desc);
  if (longctx_check(&desc) != NULL || lc == NULL) return 1;
  if (longctx_attend(lc, 0, 1, q, k, v, out) != LONGCTX_OK) return 2;
  if (memcmp(out, v, sizeof v) != 0 || memcmp(out + 4, v, sizeof v) != 0) return 3;
  if (longctx_commit(lc, 1) != LONGCTX_OK || longctx_position(lc) != 1) return 4;
  longctx_reset(lc);
  if (longctx_position(lc) != 0) return 5;
  desc.block = 2;                                      /* memory: its names and its functions    */
  desc.window = 2;
  desc.memory = LONGCTX_MEMORY_NONE + LONGCTX_MEMORY_LINEAR;
  desc.memory_first = LONGCTX_FIRST_LOCAL + LONGCTX_FIRST_ZERO;
  lc = longctx_init(block, sizeof block, &desc);
  if (lc == NULL || longctx_room(lc) != 1) return 6;
  if (longctx_set_gate(lc, 0, NULL) != LONGCTX_OK) return 7;
  if (longctx_memory_add(lc, lc) != LONGCTX_E_ARG) return 8;
  if (desc.memory >= LONGCTX_MEMORY_DELTA) return 9;
  desc.memory = LONGCTX_MEMORY_NONE;                   /* feedback: a row that sees itself alone */
  desc.feedback_len = 1;
  desc.feedback_dim = 3;
  lc = longctx_init(block, sizeof block, &desc);
  if (lc == NULL || longctx_room(lc) != 0 || longctx_feedback_due(lc) != 1) return 10;
  if (longctx_feedback(lc, 0) == NULL || longctx_feedback_attend(lc, 0, out) == 0) return 11;
  if (longctx_feedback_set(lc, 0, q, k, v) || longctx_feedback_attend(lc, 0, out)) return 12;
  if (memcmp(out, v, sizeof v) != 0 || longctx_feedback_due(lc) != 0) return 13;
  return longctx_layer_make(&desc).feedback == 1 ? 0 : 14;
}
