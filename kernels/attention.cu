/* attention.cu: the choice between the project's own flash attention (flash.cu), cuDNN's (sdpa.cu) and the plain reference
   (attention_plain.cu). */
#include "cu.h"
#include "attention.cuh"
#include "flash.cuh"
#include "sdpa.cuh"

void attention_configure(void) {
    if (cuda_settings.attention != ATTENTION_CUDNN || sdpa_library()) return;
    backend_fail("--attention cudnn cannot be had here: %s; install cuDNN 9, or use --attention auto", sdpa_refusal());
}

const char *attention_library(void) {
    const AttentionKind kind = cuda_settings.attention;
    if (kind == ATTENTION_PLAIN) return "plain";
    return kind != ATTENTION_OWN && sdpa_library() ? sdpa_library() : "own";
}

/* cuDNN is taken, where it is there, for all that it can do. */
static AttentionKind choose(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward) {
    const AttentionKind kind = cuda_settings.attention;
    if (kind == ATTENTION_PLAIN || dtype != BF16) return ATTENTION_PLAIN;
    if (kind != ATTENTION_OWN && !dropout && sdpa_library() && sdpa_can(B, T, NH, NKV, HS, backward)) return ATTENTION_CUDNN;
    return flash_can(HS) ? ATTENTION_OWN : ATTENTION_PLAIN;
}

static size_t scratch_of(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward) {
    switch (choose(B, T, NH, NKV, HS, dtype, dropout, backward)) {
    case ATTENTION_CUDNN: return sdpa_workspace(B, T, NH, NKV, HS, backward);
    case ATTENTION_OWN: return backward ? flash_scratch(B, T, NH, HS) : 0;
    default: return 0;
    }
}

/* Enough also for a forward without dropout, as evaluation in a training model runs it: cuDNN may do that one and not the others. */
size_t attention_scratch(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward) {
    const size_t evaluating = scratch_of(B, T, NH, NKV, HS, dtype, 0, 0), asked = scratch_of(B, T, NH, NKV, HS, dtype, dropout, backward);
    return evaluating > asked ? evaluating : asked;
}

static AttentionKind choose_for(Tensor qkv, int NH, int NKV, Dropout drop, int backward) {
    const int64_t B = qkv.shape[0], T = qkv.shape[1], HS = tensor_numel(qkv) / (B * T * (NH + 2 * NKV));
    return choose(B, T, NH, NKV, (int)HS, qkv.dtype, drop.p > 0, backward);
}

void cuda_attention_forward(Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Dropout drop, Stream *s) {
    switch (choose_for(qkv, NH, NKV, drop, 0)) {
    case ATTENTION_CUDNN: sdpa_forward(out, lse, qkv, scratch, NH, NKV, s); break;
    case ATTENTION_OWN: flash_forward(out, lse, qkv, NH, NKV, drop, s); break;
    default: plain_forward(out, lse, qkv, NH, NKV, drop, s);
    }
}

enum { LANES = 8, BLOCK = 256 };   /* threads that share a row */

/* delta(B,NH,T) = row sums of dout * out(B,T,NH,HS), n rows. */
template <class E>
__global__ void __launch_bounds__(BLOCK)
delta_kernel(float *delta, const E *dout, const E *out, int64_t n, int T, int NH, int HS, int packed) {
    const int64_t row = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / LANES;
    const int lane = threadIdx.x % LANES;
    float sum = 0;
    if (row < n) {
        const E *a = dout + row * HS, *b = out + row * HS;
        if (packed)
            for (int d = lane * Pack<E>::N; d < HS; d += LANES * Pack<E>::N) {
                const Pack<E> x = ld128(a + d), y = ld128(b + d);
                for (int k = 0; k < Pack<E>::N; k++) sum += to_float(x.v[k]) * to_float(y.v[k]);
            }
        else
            for (int d = lane; d < HS; d += LANES) sum += to_float(a[d]) * to_float(b[d]);
    }
    for (int offset = LANES / 2; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    const int64_t h = row % NH, position = row / NH;
    if (lane == 0 && row < n) delta[(position / T * NH + h) * T + position % T] = sum;
}

static void row_sums(Tensor delta, Tensor dout, Tensor out, int NH, Stream *s) {
    const int64_t B = delta.shape[0], T = delta.shape[2], n = B * T * NH, HS = tensor_numel(out) / n;
    by_dtype(out.dtype, [&](auto zero) {
        typedef decltype(zero) E;
        LAUNCH((delta_kernel<E>), (unsigned)ceil_div(n * LANES, BLOCK), BLOCK, 0, cuda_stream(s), (float *)delta.data, (const E *)dout.data,
               (const E *)out.data, n, (int)T, NH, (int)HS, packs<E>(HS));
    });
}

void cuda_attention_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV,
                             Dropout drop, Stream *s) {
    const AttentionKind kind = choose_for(qkv, NH, NKV, drop, 1);
    if (kind == ATTENTION_CUDNN) {
        sdpa_backward(dqkv, delta, dout, out, lse, qkv, scratch, NH, NKV, s);
        return;
    }
    row_sums(delta, dout, out, NH, s);
    if (kind == ATTENTION_OWN) flash_backward(dqkv, delta, dout, lse, qkv, scratch, NH, NKV, drop, s);
    else plain_backward(dqkv, delta, dout, lse, qkv, NH, NKV, drop, s);
}
