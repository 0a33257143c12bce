/* dropout.cu: dropout as an op of its own (Srivastava et al. 2014), for the embedding; forward and backward are the same call. */
#include "packs.cuh"

enum { BLOCK = 256 };

/* out(n) = x(n) * mask; per_sample elements, a multiple of P::N, belong to one row of the batch. A thread takes a pack at a time. */
template <class P> __global__ void __launch_bounds__(BLOCK)
dropout_kernel(ElementOf<P> *out, const ElementOf<P> *x, int64_t n, int64_t per_sample, Dropout drop) {
    const DropoutKey key = dropout_key(drop);
    const uint64_t first = (uint64_t)drop.state->sample * (uint64_t)per_sample;
    for (int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * P::N; i < n; i += (int64_t)gridDim.x * BLOCK * P::N) {
        const P pack = load_pack_stream<P>(x + i);
        float v[P::N];
        dropout_scales<P>(v, key, first + (uint64_t)i);
        for (int k = 0; k < P::N; k++) v[k] *= element(pack, k);
        store_pack(out + i, pack_floats<P>(v));
    }
}

void cuda_dropout(Tensor out, Tensor x, Dropout drop, Stream *s) {
    const int64_t n = tensor_numel(x), per_sample = n / x.shape[0];
    if (drop.p == 0) {
        if (out.data != x.data)
            CUDA_CHECK(cudaMemcpyAsync(out.data, x.data, tensor_bytes(x), cudaMemcpyDeviceToDevice, cuda_stream(s)));
        return;
    }
    by_pack(x.dtype, rows_aligned(x.dtype, per_sample, out, x), [&](auto pack) {
        typedef decltype(pack) P;
        const int64_t blocks = ceil_div(n, BLOCK * P::N), most = 8 * device_multiprocessors();
        LAUNCH((dropout_kernel<P>), (unsigned)(blocks < most ? blocks : most), BLOCK, 0, cuda_stream(s), (ElementOf<P> *)out.data,
               (const ElementOf<P> *)x.data, n, per_sample, drop);
    });
}
