/* Declarations alone: the implementation is linked. */
#include "../../longctx.h"
#include "smoke.h"

int main(void) { return smoke(); }
