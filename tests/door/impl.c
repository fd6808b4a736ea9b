/* The implementation alone: linked with decl.c, and looked at by nm. */
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
