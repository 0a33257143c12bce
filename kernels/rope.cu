/* rope.cu: rotary position embedding (Su et al. 2021), in place on the packed Q, K and V, with the projection's bias added on the way. */
#include "packs.cuh"
#include "rope.cuh"

#include <assert.h>

enum { BLOCK = 128, HEADS = 4 };

template <class E> struct RopeArguments {
    E *qkv;                   /* (rows, heads, HS), rows B*T */
    const E *bias;            /* (heads, HS) or NULL */
    const float *rotations;   /* (maxT, HS/2, 2), from position t0 on */
    int64_t rows;
    int T, HS, heads, rotated, touched;   /* of the heads, the first `rotated` are turned, the first `touched` are changed at all */
    float direction;                      /* -1 turns back */
};

/* For heads whose halves are whole packs. A thread takes the same pack of both halves of HEADS neighbouring heads: with either layout these
   are N pairs a head, and all of these heads turn by the same 2N numbers. */
template <class E, RopeLayout LAYOUT> __global__ void __launch_bounds__(BLOCK, 5) rope_packs_kernel(RopeArguments<E> a) {
    typedef Vec<E> P;
    constexpr int N = P::N;
    const unsigned half = a.HS / 2, packs = half / N, groups = (a.touched + HEADS - 1) / HEADS, item = blockIdx.x * BLOCK + threadIdx.x;
    const int column = item % packs * N, first = item / packs % groups * HEADS;
    const unsigned row = item / packs / groups;   /* 2^32 items are more than a device can hold */
    if (row >= a.rows) return;
    E *head = a.qkv + ((int64_t)row * a.heads + first) * a.HS + column;
    const E *bias = a.bias + first * a.HS + column;
    const float *rotation = a.rotations + row % a.T * a.HS + (LAYOUT == ROPE_HALF ? 2 * column : column);
    P low[HEADS], high[HEADS];
    Vec<float> turns[2 * N / 4];
    #pragma unroll
    for (int h = 0; h < HEADS; h++)
        if (first + h < a.touched) low[h] = load_pack<P>(head + h * a.HS), high[h] = load_pack<P>(head + h * a.HS + half);
    #pragma unroll
    for (int i = 0; i < 2 * N / 4; i++)
        turns[i] = load_pack<Vec<float>>(rotation + 4 * i + (LAYOUT == ROPE_HALF || 4 * i < N ? 0 : half - N));
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (first + h >= a.touched) continue;
        float x[2][N];
        #pragma unroll
        for (int k = 0; k < N; k++) x[0][k] = element(low[h], k), x[1][k] = element(high[h], k);
        if (a.bias) {
            const P low_bias = load_pack<P>(bias + h * a.HS), high_bias = load_pack<P>(bias + h * a.HS + half);
            #pragma unroll
            for (int k = 0; k < N; k++) x[0][k] += element(low_bias, k), x[1][k] += element(high_bias, k);
        }
        if (first + h < a.rotated) {
            #pragma unroll
            for (int i = 0; i < N; i++) {
                const float cosine = element(turns[i / 2], i % 2 * 2), sine = a.direction * element(turns[i / 2], i % 2 * 2 + 1);
                const int u = LAYOUT == ROPE_HALF ? i : 2 * i, v = LAYOUT == ROPE_HALF ? N + i : 2 * i + 1;
                turn(x[u / N][u % N], x[v / N][v % N], cosine, sine);
            }
        }
        store_pack(head + h * a.HS, pack_floats<P>(x[0]));
        store_pack(head + h * a.HS + half, pack_floats<P>(x[1]));
    }
}

/* For any even HS: a thread takes one pair. */
template <class E, RopeLayout LAYOUT> __global__ void __launch_bounds__(BLOCK) rope_pairs_kernel(RopeArguments<E> a) {
    const int half = a.HS / 2, pairs = a.touched * half;
    for (int64_t item = (int64_t)blockIdx.x * BLOCK + threadIdx.x; item < a.rows * pairs; item += (int64_t)gridDim.x * BLOCK) {
        const int64_t row = item / pairs;
        const int head = (int)(item % pairs) / half, i = (int)(item % half);
        const int first = head * a.HS + (LAYOUT == ROPE_HALF ? i : 2 * i), second = first + (LAYOUT == ROPE_HALF ? half : 1);
        const float *rotation = a.rotations + row % a.T * a.HS + 2 * i;
        E *x = a.qkv + row * a.heads * a.HS;
        float u = to_float(x[first]), v = to_float(x[second]);
        if (a.bias) u += to_float(a.bias[first]), v += to_float(a.bias[second]);
        if (head < a.rotated) turn(u, v, rotation[0], a.direction * rotation[1]);
        x[first] = from_float<E>(u);
        x[second] = from_float<E>(v);
    }
}

template <class E, RopeLayout LAYOUT> static void launch_rope(RopeArguments<E> a, int aligned, Stream *s) {
    if (aligned) {
        const int64_t items = a.rows * ceil_div(a.touched, HEADS) * (a.HS / 2 / Vec<E>::N);
        LAUNCH((rope_packs_kernel<E, LAYOUT>), (unsigned)ceil_div(items, BLOCK), BLOCK, 0, cuda_stream(s), a);
    } else {
        const int64_t blocks = ceil_div(a.rows * a.touched * (a.HS / 2), BLOCK), most = 8 * device_multiprocessors();
        LAUNCH((rope_pairs_kernel<E, LAYOUT>), (unsigned)(blocks < most ? blocks : most), BLOCK, 0, cuda_stream(s), a);
    }
}

static void rope(Tensor qkv, Tensor bias, Tensor rotations, int NH, int NKV, RopeLayout layout, int t0, float direction, Stream *s) {
    const int64_t rows = qkv.shape[0] * qkv.shape[1];
    const int T = (int)qkv.shape[1], heads = NH + 2 * NKV, HS = (int)(tensor_numel(qkv) / rows / heads);
    assert(HS % 2 == 0);
    by_dtype(qkv.dtype, [&](auto zero) {
        typedef decltype(zero) E;
        const float *from_t0 = (const float *)rotations.data + (int64_t)t0 * HS;
        const RopeArguments<E> a = {(E *)qkv.data, (const E *)bias.data, from_t0, rows, T, HS, heads, NH + NKV,
                                    bias.data ? heads : NH + NKV, direction};
        const int aligned = rows_aligned(qkv.dtype, HS / 2, qkv, bias, rotations);
        if (layout == ROPE_HALF) launch_rope<E, ROPE_HALF>(a, aligned, s);
        else launch_rope<E, ROPE_INTERLEAVED>(a, aligned, s);
    });
}

void cuda_rope_forward(Tensor qkv, Tensor bias, Tensor rotations, int NH, int NKV, RopeLayout layout, int t0, Stream *s) {
    rope(qkv, bias, rotations, NH, NKV, layout, t0, 1, s);
}

void cuda_rope_backward(Tensor dqkv, Tensor rotations, int NH, int NKV, RopeLayout layout, Stream *s) {
    rope(dqkv, no_tensor(), rotations, NH, NKV, layout, 0, -1, s);
}
