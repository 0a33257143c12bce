/* sgd.c: plain gradient descent with decoupled weight decay over the flat parameter buffer. */
#include "segments.h"

typedef struct {
    Tensor param;
    float *master;
    const float *grad;
    float step_size, shrink;   /* lr * clip_scale, and what a decayed weight is multiplied by */
} Update;

static void update(const void *context, int64_t offset, int64_t n, int decayed) {
    Update u = *(const Update *)context;
    float *w = u.master + offset, shrink = decayed ? u.shrink : 1.0f;
    const float *grad = u.grad + offset;
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) w[i] = w[i] * shrink - u.step_size * grad[i];
    wrote_floats(u.param, offset, n, w);
}

void cpu_sgd(Tensor param, Tensor master, Tensor grad, Tensor segments, float weight_decay, const StepState *state, Stream *s) {
    (void)s;
    if (state->skip) return;
    Update u = {
        .param = param, .master = master.data, .grad = grad.data,
        .step_size = (float)((double)state->lr * state->clip_scale),
        .shrink = (float)(1 - (double)state->lr * weight_decay),
    };
    update_segments(segments, update, &u);
}
