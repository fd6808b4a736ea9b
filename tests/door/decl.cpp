// C++ against an implementation compiled as C.
#include "../../longctx.h"
#include "smoke.h"

int main() { return smoke(); }
