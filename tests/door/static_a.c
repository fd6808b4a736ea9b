/* Two files with a private copy each: this one has main. */
#define LONGCTX_STATIC
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int other_smoke(void);

int main(void) { return smoke() + other_smoke(); }
