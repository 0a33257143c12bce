/* rmsnorm_test.c: root mean square normalisation, alone and after the residual add: the tests of norm_test.h. */
#include "norm_test.h"

static void rmsnorm(const OpTable *op, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor bias, float eps) {
    (void)mean; (void)bias;
    op->rmsnorm_forward(out, rstd, x, w, eps, NULL);
}
static void residual_rmsnorm(const OpTable *op, Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w,
                             Tensor bias, float eps, Dropout drop) {
    (void)mean; (void)bias;
    op->residual_rmsnorm_forward(residual, out, rstd, x, delta, w, eps, drop, NULL);
}
static void rmsnorm_gradient(const OpTable *op, Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean, Tensor rstd,
                             int add_dx, int accumulate) {
    (void)db; (void)mean;
    op->rmsnorm_backward(dx, dw, dout, x, w, rstd, add_dx, accumulate, NULL);
}
static const Norm norm = {false, rmsnorm, residual_rmsnorm, rmsnorm_gradient};

int main(void) { return run_norm_tests(); }
