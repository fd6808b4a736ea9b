/* C99, everything in one file. */
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int main(void) { return smoke(); }
