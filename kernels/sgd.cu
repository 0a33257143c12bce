/* sgd.cu: plain gradient descent with decoupled weight decay over the flat parameter buffer. */
#include "segments.cuh"

struct SgdRule {
    const StepState *state;
    bf16 *param;   /* or NULL */
    float *master;
    const float *grad;
    float weight_decay;

    struct Scalars {
        float step_size, shrink;   /* lr * clip_scale, and what a decayed weight is multiplied by */
    };

    __device__ Scalars scalars() const {
        const double lr = state->lr;
        return {(float)(lr * state->clip_scale), (float)(1 - lr * weight_decay)};
    }

    __device__ __forceinline__ void four(int64_t i, const Scalars &u, int decayed) const {
        const Pack<float> g = ld128_stream(grad + i);
        Pack<float> w = ld128_stream(master + i);
        const float shrink = decayed ? u.shrink : 1.0f;
        for (int k = 0; k < SEGMENT_WIDTH; k++) w.v[k] = w.v[k] * shrink - u.step_size * g.v[k];
        st128_stream(master + i, w);
        if (param) store_four(param + i, w);
    }

    __device__ __forceinline__ void one(int64_t i, const Scalars &u, int decayed) const {
        master[i] = master[i] * (decayed ? u.shrink : 1.0f) - u.step_size * grad[i];
        if (param) param[i] = from_float<bf16>(master[i]);
    }
};

void cuda_sgd(Tensor param, Tensor master, Tensor grad, Tensor segments, float weight_decay, const StepState *state, Stream *s) {
    SgdRule rule = {state, rounded_copy(param), (float *)master.data, (const float *)grad.data, weight_decay};
    update_segments(rule, segments, tensor_numel(master), aligned(param) && aligned(master) && aligned(grad), s);
}
