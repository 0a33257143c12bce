/* layernorm_test.c: layer normalisation, alone and after the residual add: the tests of norm_test.h. */
#include "norm_test.h"

static void layernorm(const OpTable *op, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor bias, float eps) {
    op->layernorm_forward(out, mean, rstd, x, w, bias, eps, NULL);
}
static void residual_layernorm(const OpTable *op, Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w,
                               Tensor bias, float eps, Dropout drop) {
    op->residual_layernorm_forward(residual, out, mean, rstd, x, delta, w, bias, eps, drop, NULL);
}
static void layernorm_gradient(const OpTable *op, Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean,
                               Tensor rstd, int add_dx, int accumulate) {
    op->layernorm_backward(dx, dw, db, dout, x, w, mean, rstd, add_dx, accumulate, NULL);
}
static const Norm norm = {true, layernorm, residual_layernorm, layernorm_gradient};

int main(void) { return run_norm_tests(); }
