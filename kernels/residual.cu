/* residual.cu: the residual add as an op of its own, for where no norm follows to be fused with. */
#include "residual.cuh"

enum { BLOCK = 256 };

/* out(n) = x + delta, dropped or not; per_sample elements, a multiple of P::N, belong to one row of the batch. A thread takes a pack at a
   time. */
template <class P, bool DROPPED> __global__ void __launch_bounds__(BLOCK)
residual_kernel(ElementOf<P> *out, const ElementOf<P> *x, const ElementOf<P> *delta, int64_t n, int64_t per_sample, Dropout drop) {
    const ResidualMask mask = residual_mask<DROPPED>(drop, per_sample);
    for (int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * P::N; i < n; i += (int64_t)gridDim.x * BLOCK * P::N) {
        const P before = load_pack_stream<P>(x + i), change = load_pack_stream<P>(delta + i);
        store_pack(out + i, add_residual<DROPPED>(before, change, mask, i));
    }
}

void cuda_residual_forward(Tensor out, Tensor x, Tensor delta, Dropout drop, Stream *s) {
    const int64_t n = tensor_numel(x), per_sample = n / x.shape[0];
    by_pack(x.dtype, rows_aligned(x.dtype, per_sample, out, x, delta), [&](auto pack) {
        typedef decltype(pack) P;
        typedef ElementOf<P> T;
        const int64_t blocks = ceil_div(n, BLOCK * P::N), most = 8 * device_multiprocessors();
        const unsigned grid = (unsigned)(blocks < most ? blocks : most);
        T *sum = (T *)out.data;
        const T *before = (const T *)x.data, *change = (const T *)delta.data;
        if (drop.p == 0) LAUNCH((residual_kernel<P, false>), grid, BLOCK, 0, cuda_stream(s), sum, before, change, n, per_sample, drop);
        else LAUNCH((residual_kernel<P, true>), grid, BLOCK, 0, cuda_stream(s), sum, before, change, n, per_sample, drop);
    });
}
