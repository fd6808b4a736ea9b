// C++11, everything in one file, beside the standard library.
#include <vector>
#define LONGCTX_IMPLEMENTATION
#include "../../longctx.h"
#include "smoke.h"

int main() { return smoke() + static_cast<int>(std::vector<int>().size()); }
