/* rmsnorm.cu: root mean square normalisation (Zhang and Sennrich 2019), alone and fused with the residual add before it: norm.cuh, not
   centred. */
#include "norm.cuh"

void cuda_rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor w, float eps, Stream *s) {
    norm_forward<false>(no_tensor(), out, no_tensor(), rstd, x, no_tensor(), w, no_tensor(), eps, Dropout(), s);
}

void cuda_residual_rmsnorm_forward(Tensor residual, Tensor out, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps, Dropout drop,
                                   Stream *s) {
    norm_forward<false>(residual, out, no_tensor(), rstd, x, delta, w, no_tensor(), eps, drop, s);
}

void cuda_rmsnorm_backward(Tensor dx, Tensor dw, Tensor dout, Tensor x, Tensor w, Tensor rstd, int add_dx, int accumulate, Stream *s) {
    norm_backward<false>(dx, dw, no_tensor(), dout, x, w, no_tensor(), rstd, add_dx, accumulate, s);
}
