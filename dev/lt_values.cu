/* lt_values.cu: compiled, and never run: holds the values that the emulator's stand-in for cuBLASLt has against the toolkit's headers. */
#include <cublasLt.h>

#include "dev/emulator/cublasLt.h"

#define X(name, value) static_assert((int)name == value, #name " has another value in cuBLASLt's headers");
CUBLASLT_CONSTANTS(X)
#undef X
static_assert(sizeof(cublasLtMatmulAlgo_t) == 64, "an algorithm is kept as 128 digits");
