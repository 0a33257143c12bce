/* layernorm.cu: layer normalisation (Ba et al. 2016), alone and fused with the residual add before it: norm.cuh, centred. */
#include "norm.cuh"

void cuda_layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b, float eps, Stream *s) {
    norm_forward<true>(no_tensor(), out, mean, rstd, x, no_tensor(), w, b, eps, Dropout(), s);
}

void cuda_residual_layernorm_forward(Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w, Tensor b,
                                     float eps, Dropout drop, Stream *s) {
    norm_forward<true>(residual, out, mean, rstd, x, delta, w, b, eps, drop, s);
}

void cuda_layernorm_backward(Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean, Tensor rstd, int add_dx,
                             int accumulate, Stream *s) {
    norm_backward<true>(dx, dw, db, dout, x, w, mean, rstd, add_dx, accumulate, s);
}
