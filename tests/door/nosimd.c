/* Without vector instructions only the scalar paths are left. */
#define LONGCTX_NO_SIMD
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int main(void)
{
  static double block[4096];
  longctx_desc desc = longctx_desc_make(1, 2, 1, 4, 8);
  longctx *lc = longctx_init(block, sizeof block, &desc);
  int isa;
  for (isa = 0; longctx_isa_name(isa) != NULL; isa++)
    if (strncmp(longctx_isa_name(isa), "scalar", 6) != 0 && longctx_set_isa(lc, isa) == LONGCTX_OK)
      return 9;
  return smoke();
}
