/* activation.cu: the activations as passes of their own: after a forward pass that kept only their inputs, and where the library of matrix
   products cannot fold them in. */
#include "activation.cuh"

enum { BLOCK = 256 };

/* out(n) = act(pre(n)); a thread takes 128 bits. `vectors`: both begin at a multiple of 16 bytes. */
template <class T, Activation ACT>
__global__ void __launch_bounds__(BLOCK) activation_forward_kernel(T *out, const T *pre, int64_t n, int vectors) {
    constexpr int W = Pack<T>::N;
    const int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * W;
    if (vectors && i + W <= n) {
        Pack<T> x = ld128(pre + i);
        for (int k = 0; k < W; k++) x.v[k] = from_float<T>(activate(to_float(x.v[k]), ACT));
        st128(out + i, x);
    } else {
        for (int64_t k = i; k < i + W && k < n; k++) out[k] = from_float<T>(activate(to_float(pre[k]), ACT));
    }
}

static int whole_vectors(Tensor a, Tensor b) { return ((uintptr_t)a.data | (uintptr_t)b.data) % 16 == 0; }

template <class T> static int grid_for(int64_t n) { return (int)ceil_div(n, BLOCK * Pack<T>::N); }

void cuda_activation_forward(Tensor out, Tensor pre, Activation act, Stream *s) {
    const int64_t n = tensor_numel(pre);
    if (n == 0 || (act == ACT_NONE && out.data == pre.data)) return;
    by_dtype(pre.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        by_activation(act, [&](auto constant) {
            LAUNCH((activation_forward_kernel<T, decltype(constant)::value>), grid_for<T>(n), BLOCK, 0, cuda_stream(s), (T *)out.data,
                   (const T *)pre.data, n, whole_vectors(out, pre));
        });
    });
}
