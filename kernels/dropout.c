/* dropout.c: dropout as an op of its own (Srivastava et al. 2014), for the embedding; forward and backward are the same call. */
#include "dropout.h"

enum { CHUNK = 1024 };

static void drop_chunk(Tensor out, Tensor x, Dropout drop, uint64_t first_index, int64_t offset, int64_t n) {
    float x_buffer[CHUNK], out_buffer[CHUNK], scales[CHUNK];
    const float *in = read_floats(x, offset, n, x_buffer);
    float *dropped = write_floats(out, offset, out_buffer);
    dropout_scales(scales, drop, first_index + (uint64_t)offset, n);
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) dropped[i] = in[i] * scales[i];
    wrote_floats(out, offset, n, dropped);
}

void cpu_dropout(Tensor out, Tensor x, Dropout drop, Stream *s) {
    (void)s;
    if (drop.p == 0) {
        if (out.data != x.data) memcpy(out.data, x.data, tensor_bytes(x));
        return;
    }
    int64_t N = tensor_numel(x);
    uint64_t first_index = dropout_first_index(drop, x);
    #pragma omp parallel for schedule(static)
    for (int64_t offset = 0; offset < N; offset += CHUNK)
        drop_chunk(out, x, drop, first_index, offset, N - offset < CHUNK ? N - offset : CHUNK);
}
