/* sdpa_standin.cpp: in the emulator there is no cuDNN. */
#include "kernels/sdpa.cuh"

#include <stdlib.h>

const char *sdpa_library(void) { return NULL; }
const char *sdpa_refusal(void) { return "there is no cuDNN in the emulator"; }
int sdpa_can(int64_t, int64_t, int, int, int, int) { return 0; }
size_t sdpa_workspace(int64_t, int64_t, int, int, int, int) { return 0; }

/* Reached only by a caller that did not ask sdpa_can. */
void sdpa_forward(Tensor, Tensor, Tensor, Tensor, int, int, Stream *) { abort(); }
void sdpa_backward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int, int, Stream *) { abort(); }
