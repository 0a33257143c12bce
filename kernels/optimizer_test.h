/* optimizer_test.h: what the tests of the norm and of the optimizers share: the state of a step on the device, and its norm taken. */
#ifndef KERNELS_OPTIMIZER_TEST_H
#define KERNELS_OPTIMIZER_TEST_H

#include "op_test.h"

static inline StepState *device_state(const Backend *b, StepState state) {
    StepState *device = b->alloc(sizeof state);
    b->upload(device, &state, sizeof state, NULL);
    return device;
}

static inline StepState host_state(const Backend *b, const StepState *device) {
    StepState state;
    b->download(&state, device, sizeof state, NULL);
    return state;
}

/* Valid targets, as many as the host of these tests expects; their losses are 3. */
enum { TARGETS = 48 };

static inline void compute_norm(const Backend *b, StepState *state, Tensor grad) {
    const double values[TOTALS] = {3 * TARGETS, TARGETS, 0};
    Tensor totals = test_tensor(b, F32, values, 1, TOTALS, 0, 0, 0), squares = test_tensor(b, F64, NULL, 1, 1, 0, 0, 0);
    b->op.sum_of_squares(squares, grad, 0, NULL);
    b->op.global_norm(state, totals, squares, NULL);
    b->synchronize(NULL);
    test_free(b, totals); test_free(b, squares);
}

#endif
