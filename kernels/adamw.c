/* adamw.c: AdamW (Loshchilov and Hutter 2019) over the flat parameter buffer, in one pass over memory. */
#include "segments.h"

typedef struct {
    Tensor param;
    float *master, *m, *v;
    const float *grad;
    float clip_scale, beta1, beta2, eps, shrink;   /* shrink: what a decayed weight is multiplied by */
    float step_size, v_scale;                      /* lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) */
} Update;

/* m = beta1 m + (1-beta1) g, v = beta2 v + (1-beta2) g^2, w = w (1 - lr decay) - lr mhat / (sqrt(vhat) + eps) */
static void update(const void *context, int64_t offset, int64_t n, int decayed) {
    Update u = *(const Update *)context;
    float *w = u.master + offset, *m = u.m + offset, *v = u.v + offset, shrink = decayed ? u.shrink : 1.0f;
    const float *grad = u.grad + offset;
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * u.clip_scale;
        float first = u.beta1 * m[i] + (1.0f - u.beta1) * g;
        float second = u.beta2 * v[i] + (1.0f - u.beta2) * g * g;
        m[i] = first;
        v[i] = second;
        w[i] = w[i] * shrink - u.step_size * first / (sqrtf(second) * u.v_scale + u.eps);
    }
    wrote_floats(u.param, offset, n, w);
}

void cpu_adamw(Tensor param, Tensor master, Tensor m, Tensor v, Tensor grad, Tensor segments, AdamW config, const StepState *state,
               Stream *s) {
    (void)s;
    if (state->skip) return;
    double t = state->updates;
    Update u = {
        .param = param, .master = master.data, .m = m.data, .v = v.data, .grad = grad.data,
        .clip_scale = state->clip_scale, .beta1 = config.beta1, .beta2 = config.beta2, .eps = config.eps,
        .shrink = (float)(1 - (double)state->lr * config.weight_decay),
        .step_size = (float)(state->lr / (1 - pow(config.beta1, t))),
        .v_scale = (float)(1 / sqrt(1 - pow(config.beta2, t))),
    };
    update_segments(segments, update, &u);
}
