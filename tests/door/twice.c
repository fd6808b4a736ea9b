/* Included again and again, before and behind the implementation. */
#include "../../longctx.h"
#include "../../longctx.h"
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "../../longctx.h"
#undef LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int main(void) { return smoke(); }
