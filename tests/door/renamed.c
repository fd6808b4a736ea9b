/* The header under another name, in another folder: door.sh puts it there. */
#define LONGCTX_FILENAME "attention.h"
#define LONGCTX_IMPLEMENTATION
#include "attention.h"
#include "smoke.h"

int main(void) { return smoke(); }
