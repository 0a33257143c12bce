/* swiglu.cu: the gated hidden layer of SwiGLU (Shazeer 2020) on the GPU: each tensor crosses the memory bus once. A thread has one pack of
   columns of one row and all of its loads under way together; what it reads is not read again soon. */
#include "activation.cuh"
#include "packs.cuh"

enum { BLOCK = 256 };

/* Packs are counted in 32 bits: 2^32 are more than a device can hold. Single elements may be more. */
template <class P> using ItemOf = std::conditional_t<P::N == 1, uint64_t, uint32_t>;

/* Where a thread's pack is: `at` in (N,F), its gates at `gate` in (N,2F), the other factors F further. */
struct Place {
    int64_t at, gate;
};
template <class P> __device__ __forceinline__ Place place_of(ItemOf<P> item, ItemOf<P> in_row) {
    const int64_t at = (int64_t)item * P::N;
    return {at, at + (int64_t)(item / in_row * in_row) * P::N};
}

/* in_row: packs of a row of F; items: of all rows */
template <class P> __global__ void __launch_bounds__(BLOCK)
swiglu_forward_kernel(ElementOf<P> *out, const ElementOf<P> *pre, ItemOf<P> in_row, ItemOf<P> items) {
    const ItemOf<P> item = (ItemOf<P>)blockIdx.x * BLOCK + threadIdx.x;
    if (item >= items) return;
    const Place place = place_of<P>(item, in_row);
    const P gate = load_pack_stream<P>(pre + place.gate), up = load_pack_stream<P>(pre + place.gate + (int64_t)in_row * P::N);
    float values[P::N];
    #pragma unroll
    for (int k = 0; k < P::N; k++) values[k] = silu(element(gate, k)) * element(up, k);
    store_pack(out + place.at, pack_floats<P>(values));
}

template <class P> __global__ void __launch_bounds__(BLOCK)
swiglu_backward_kernel(ElementOf<P> *dpre, const ElementOf<P> *dout, const ElementOf<P> *pre, ItemOf<P> in_row, ItemOf<P> items) {
    const ItemOf<P> item = (ItemOf<P>)blockIdx.x * BLOCK + threadIdx.x;
    if (item >= items) return;
    const Place place = place_of<P>(item, in_row);
    const int64_t up_at = place.gate + (int64_t)in_row * P::N;
    const P gate = load_pack_stream<P>(pre + place.gate), up = load_pack_stream<P>(pre + up_at), d = load_pack_stream<P>(dout + place.at);
    float dgate[P::N], dup[P::N];
    #pragma unroll
    for (int k = 0; k < P::N; k++) {
        float value, slope;
        silu_and_slope(element(gate, k), value, slope);
        dgate[k] = element(d, k) * element(up, k) * slope;
        dup[k] = element(d, k) * value;
    }
    store_pack_stream(dpre + place.gate, pack_floats<P>(dgate));   /* nvcc takes two plain ones apart, into stores of 32 bits */
    store_pack_stream(dpre + up_at, pack_floats<P>(dup));
}

void cuda_swiglu_forward(Tensor out, Tensor pre, Stream *s) {
    const int64_t F = last_dim(out), n = tensor_numel(out);
    if (n == 0) return;
    by_pack(out.dtype, rows_aligned(out.dtype, F, out, pre), [&](auto pack) {
        typedef decltype(pack) P;
        typedef ElementOf<P> T;
        LAUNCH((swiglu_forward_kernel<P>), (unsigned)ceil_div(n / P::N, BLOCK), BLOCK, 0, cuda_stream(s), (T *)out.data,
               (const T *)pre.data, (ItemOf<P>)(F / P::N), (ItemOf<P>)(n / P::N));
    });
}

void cuda_swiglu_backward(Tensor dpre, Tensor dout, Tensor pre, Stream *s) {
    const int64_t F = last_dim(dout), n = tensor_numel(dout);
    if (n == 0) return;
    by_pack(dout.dtype, rows_aligned(dout.dtype, F, dpre, dout, pre), [&](auto pack) {
        typedef decltype(pack) P;
        typedef ElementOf<P> T;
        LAUNCH((swiglu_backward_kernel<P>), (unsigned)ceil_div(n / P::N, BLOCK), BLOCK, 0, cuda_stream(s), (T *)dpre.data,
               (const T *)dout.data, (const T *)pre.data, (ItemOf<P>)(F / P::N), (ItemOf<P>)(n / P::N));
    });
}
