/* Two files with a private copy each: the other one. */
#define LONGCTX_STATIC
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int other_smoke(void);

int other_smoke(void) { return smoke(); }
