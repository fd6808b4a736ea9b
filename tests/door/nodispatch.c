/* One path, chosen by the compiler's flags; the header does not include itself. */
#define LONGCTX_NO_DISPATCH
#define LONGCTX_FILENAME "no/such/file.h"
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int main(void) { return smoke(); }
