/* Without files, <stdio.h> does not come along. */
#define LONGCTX_NO_STDIO
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#if defined(EOF) || defined(SEEK_SET) || defined(BUFSIZ)
#error "LONGCTX_NO_STDIO, and still <stdio.h> is here"
#endif
#include "smoke.h"

int main(void) { return smoke(); }
