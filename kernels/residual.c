/* residual.c: the residual add as an op of its own, for where no norm follows to be fused with. */
#include "residual.h"

void cpu_residual_forward(Tensor out, Tensor x, Tensor delta, Dropout drop, Stream *s) {
    (void)s;
    int64_t N = tensor_numel(x);
    #pragma omp parallel for schedule(static)
    for (int64_t offset = 0; offset < N; offset += RESIDUAL_CHUNK)
        add_residual(out, x, delta, drop, offset, N - offset < RESIDUAL_CHUNK ? N - offset : RESIDUAL_CHUNK);
}
