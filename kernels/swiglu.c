/* swiglu.c: the gated hidden layer of SwiGLU (Shazeer 2020) on the CPU. A piece of a row is read, computed and written while it is in the
   first cache. */
#include "activation.h"

enum { PIECE = 512 };

/* Of `row`, the columns from `column` on: PIECE of them, or what is left of F. */
static void forward_piece(Tensor out, Tensor pre, int64_t row, int64_t column, int64_t F) {
    float gates[PIECE], ups[PIECE], outs[PIECE];
    int64_t n = F - column < PIECE ? F - column : PIECE, at = row * F + column, gate_at = 2 * row * F + column;
    const float *gate = read_floats(pre, gate_at, n, gates), *up = read_floats(pre, gate_at + F, n, ups);
    float *result = write_floats(out, at, outs);
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) result[i] = silu(gate[i]) * up[i];
    wrote_floats(out, at, n, result);
}

static void backward_piece(Tensor dpre, Tensor dout, Tensor pre, int64_t row, int64_t column, int64_t F) {
    float gates[PIECE], ups[PIECE], douts[PIECE], dgates[PIECE], dups[PIECE];
    int64_t n = F - column < PIECE ? F - column : PIECE, gate_at = 2 * row * F + column, up_at = gate_at + F;
    const float *gate = read_floats(pre, gate_at, n, gates), *up = read_floats(pre, up_at, n, ups);
    const float *d = read_floats(dout, row * F + column, n, douts);
    float *dgate = write_floats(dpre, gate_at, dgates), *dup = write_floats(dpre, up_at, dups);
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float value, slope;
        silu_and_slope(gate[i], &value, &slope);
        dgate[i] = d[i] * up[i] * slope;
        dup[i] = d[i] * value;
    }
    wrote_floats(dpre, gate_at, n, dgate);
    wrote_floats(dpre, up_at, n, dup);
}

void cpu_swiglu_forward(Tensor out, Tensor pre, Stream *s) {
    (void)s;
    int64_t F = last_dim(out), N = F > 0 ? tensor_numel(out) / F : 0;
    #pragma omp parallel for collapse(2) schedule(static)
    for (int64_t row = 0; row < N; row++)
        for (int64_t column = 0; column < F; column += PIECE) forward_piece(out, pre, row, column, F);
}

void cpu_swiglu_backward(Tensor dpre, Tensor dout, Tensor pre, Stream *s) {
    (void)s;
    int64_t F = last_dim(dout), N = F > 0 ? tensor_numel(dout) / F : 0;
    #pragma omp parallel for collapse(2) schedule(static)
    for (int64_t row = 0; row < N; row++)
        for (int64_t column = 0; column < F; column += PIECE) backward_piece(dpre, dout, pre, row, column, F);
}
