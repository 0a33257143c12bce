/* adamw.cu: AdamW (Loshchilov and Hutter 2019) over the flat parameter buffer, in one pass over memory and one launch. */
#include "segments.cuh"

struct AdamWRule {
    const StepState *state;
    bf16 *param;   /* or NULL */
    float *master, *m, *v;
    const float *grad;
    AdamW config;

    struct Scalars {
        float clip_scale, shrink;     /* shrink: what a decayed weight is multiplied by */
        float step_size, v_scale;     /* lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) */
    };

    __device__ Scalars scalars() const {
        const double t = state->updates, lr = state->lr;
        return {state->clip_scale, (float)(1 - lr * config.weight_decay), (float)(lr / (1 - pow((double)config.beta1, t))),
                (float)(1 / sqrt(1 - pow((double)config.beta2, t)))};
    }

    /* m = beta1 m + (1-beta1) g, v = beta2 v + (1-beta2) g^2, w = w (1 - lr decay) - lr mhat / (sqrt(vhat) + eps) */
    __device__ __forceinline__ void update(float &w, float &first, float &second, float g, const Scalars &u, float shrink) const {
        g *= u.clip_scale;
        first = config.beta1 * first + (1.0f - config.beta1) * g;
        second = config.beta2 * second + (1.0f - config.beta2) * g * g;
        w = w * shrink - u.step_size * first / (sqrtf(second) * u.v_scale + config.eps);
    }

    __device__ __forceinline__ void four(int64_t i, const Scalars &u, int decayed) const {
        const Pack<float> g = ld128_stream(grad + i);
        Pack<float> w = ld128_stream(master + i), first = ld128_stream(m + i), second = ld128_stream(v + i);
        const float shrink = decayed ? u.shrink : 1.0f;
        for (int k = 0; k < SEGMENT_WIDTH; k++) update(w.v[k], first.v[k], second.v[k], g.v[k], u, shrink);
        st128_stream(master + i, w);
        st128_stream(m + i, first);
        st128_stream(v + i, second);
        if (param) store_four(param + i, w);
    }

    __device__ __forceinline__ void one(int64_t i, const Scalars &u, int decayed) const {
        update(master[i], m[i], v[i], grad[i], u, decayed ? u.shrink : 1.0f);
        if (param) param[i] = from_float<bf16>(master[i]);
    }
};

void cuda_adamw(Tensor param, Tensor master, Tensor m, Tensor v, Tensor grad, Tensor segments, AdamW config, const StepState *state,
                Stream *s) {
    AdamWRule rule = {state, rounded_copy(param), (float *)master.data, (float *)m.data, (float *)v.data, (const float *)grad.data, config};
    const int vectors = aligned(param) && aligned(master) && aligned(m) && aligned(v) && aligned(grad);
    update_segments(rule, segments, tensor_numel(master), vectors, s);
}
