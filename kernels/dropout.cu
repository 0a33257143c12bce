/* dropout.cu: dropout as an op of its own (Srivastava et al. 2014), for the embedding; forward and backward are the same call. */
#include "cu.h"

enum { BLOCK = 256 };

/* out(n) = x(n) * mask; per_sample elements belong to one row of the batch. A thread takes four neighbours: one Philox block. */
template <class T> __global__ void __launch_bounds__(BLOCK) dropout_kernel(T *out, const T *x, int64_t n, int64_t per_sample, Dropout drop) {
    const DropoutKey key = dropout_key(drop);
    const uint64_t first = (uint64_t)drop.state->sample * (uint64_t)per_sample;
    const uint64_t ahead = first % 4;   /* so many elements of the first Philox block come before ours */
    const int64_t groups = ((int64_t)ahead + n + 3) / 4;
    for (int64_t g = (int64_t)blockIdx.x * BLOCK + threadIdx.x; g < groups; g += (int64_t)gridDim.x * BLOCK) {
        float scales[4];
        dropout_scales4(scales, key, first - ahead + 4 * (uint64_t)g);
        for (int k = 0; k < 4; k++) {
            const int64_t i = 4 * g + k - (int64_t)ahead;
            if (i >= 0 && i < n) out[i] = from_float<T>(to_float(x[i]) * scales[k]);
        }
    }
}

template <class T> __global__ void __launch_bounds__(BLOCK) copy_kernel(T *out, const T *x, int64_t n) {
    for (int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * Pack<T>::N; i < n; i += (int64_t)gridDim.x * BLOCK * Pack<T>::N) {
        if (i + Pack<T>::N <= n) st128_stream(out + i, ld128_stream(x + i));
        else
            for (int64_t k = i; k < n; k++) out[k] = x[k];
    }
}

void cuda_dropout(Tensor out, Tensor x, Dropout drop, Stream *s) {
    const int64_t n = tensor_numel(x);
    if (drop.p == 0 && out.data == x.data) return;
    by_dtype(x.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        const int grid = (int)(n / (4 * BLOCK) < 8 * device_multiprocessors() ? n / (4 * BLOCK) + 1 : 8 * device_multiprocessors());
        if (drop.p > 0) LAUNCH((dropout_kernel<T>), grid, BLOCK, 0, cuda_stream(s), (T *)out.data, (const T *)x.data, n, n / x.shape[0], drop);
        else LAUNCH((copy_kernel<T>), grid, BLOCK, 0, cuda_stream(s), (T *)out.data, (const T *)x.data, n);
    });
}
