/* rope.c: rotary position embedding (Su et al. 2021), in place on the packed Q, K and V, with the projection's bias added on the way. */
#include "cpu.h"
#include "rope.h"

enum { MAX_HS = MAX_HEAD_SIZE };

static void add_bias(float *restrict x, Tensor bias, int64_t offset, int HS) {
    float buffer[MAX_HS];
    const float *head_bias = read_floats(bias, offset, HS, buffer);
    #pragma omp simd
    for (int i = 0; i < HS; i++) x[i] += head_bias[i];
}

/* The heads of every row: bias to all of them if there is one, a turn by position t0 + t to the first NH + NKV. */
static void rope(Tensor qkv, Tensor bias, Tensor rotations, int NH, int NKV, RopeLayout layout, int t0, float direction) {
    int64_t B = qkv.shape[0], T = qkv.shape[1], rotated = NH + NKV, heads = rotated + NKV, touched = bias.data ? heads : rotated;
    int HS = (int)(tensor_numel(qkv) / (B * T * heads));
    #pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < B * T; row++) {
        const float *rotation = (const float *)rotations.data + (t0 + row % T) * HS;
        for (int64_t head = 0; head < touched; head++) {
            float buffer[MAX_HS];
            int64_t offset = (row * heads + head) * HS;
            float *x = write_floats(qkv, offset, buffer);
            if (qkv.dtype == BF16) bf16_to_floats(x, (const uint16_t *)qkv.data + offset, HS);
            if (bias.data) add_bias(x, bias, head * HS, HS);
            if (head < rotated) rotate(x, rotation, HS / 2, layout, direction);
            wrote_floats(qkv, offset, HS, x);
        }
    }
}

void cpu_rope_forward(Tensor qkv, Tensor bias, Tensor rotations, int NH, int NKV, RopeLayout layout, int t0, Stream *s) {
    (void)s;
    rope(qkv, bias, rotations, NH, NKV, layout, t0, 1);
}

void cpu_rope_backward(Tensor dqkv, Tensor rotations, int NH, int NKV, RopeLayout layout, Stream *s) {
    (void)s;
    rope(dqkv, no_tensor(), rotations, NH, NKV, layout, 0, -1);
}
