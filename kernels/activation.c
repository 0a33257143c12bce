/* activation.c: see activation.h. One exponential and one division an element, vectorised. */
#include "activation.h"

/* x held within the range where an activation still bends; NaN stays. */
static inline float bounded(float x, float limit) { return x > limit ? limit : x < -limit ? -limit : x; }

/* exp(-2u) of the tanh form: sigmoid(2u) = 1 / (1 + that) */
static inline float gelu_exp(float x) {
    const float c1 = -1.59576912f, c3 = -0.0713548162f;   /* -2 sqrt(2/pi), and that times 0.044715 */
    return exp_bounded(x * multiply_add(c3 * x, x, c1));
}

static inline float gelu(float x) { return x / (1.0f + gelu_exp(bounded(x, 10.0f))); }

/* (x s)' = s + x s (1 - s) (2u)', s = sigmoid(2u); 1 - s = s exp(-2u) does not cancel. */
static inline float gelu_derivative(float x) {
    const float c1 = 1.59576912f, c3 = 0.214064449f;      /* of (2u)': 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2) */
    float xb = bounded(x, 10.0f), e = gelu_exp(xb), s = 1.0f / (1.0f + e);
    return multiply_add(xb * s, s * e * multiply_add(c3 * xb, xb, c1), s);
}

/* Phi(-|x|) = exp(-x^2/2) t Q(t), t = 1/(1 + 0.265 |x|): Q is a weighted least-squares fit of degree 8, relative error 3e-8.
   `bell` is exp(-x^2/2), which the derivative needs too. */
static inline float cdf_from_bell(float x, float bell) {
    float t = 1.0f / multiply_add(0.265f, fabsf(x), 1.0f);
    float q = 0.0306245647f;
    q = multiply_add(q, t, -0.143301055f);
    q = multiply_add(q, t, 0.215951189f);
    q = multiply_add(q, t, -0.114287280f);
    q = multiply_add(q, t, 0.136555463f);
    q = multiply_add(q, t, 0.0608948208f);
    q = multiply_add(q, t, 0.102555133f);
    q = multiply_add(q, t, 0.105266772f);
    q = multiply_add(q, t, 0.105740398f);
    float tail = bell * t * q;
    return x > 0.0f ? 1.0f - tail : tail;
}

static inline float bell_of(float x) { return exp_bounded(-0.5f * x * x); }

static inline float cdf(float x) {
    float xb = bounded(x, 13.0f);
    return cdf_from_bell(xb, bell_of(xb));
}

float normal_cdf(float x) { return cdf(x); }

static inline float gelu_erf(float x) { return x * cdf(x); }

/* (x Phi(x))' = Phi(x) + x exp(-x^2/2) / sqrt(2 pi) */
static inline float gelu_erf_derivative(float x) {
    float xb = bounded(x, 13.0f), bell = bell_of(xb);
    return multiply_add(0.398942280f * xb, bell, cdf_from_bell(xb, bell));
}

static inline float relu(float x) { return x < 0.0f ? 0.0f : x; }
static inline float relu_derivative(float x) { return x > 0.0f ? 1.0f : x <= 0.0f ? 0.0f : x; }

static inline float silu_derivative(float x) {
    float value, slope;
    silu_and_slope(x, &value, &slope);
    return slope;
}

static inline float relu2(float x) { return relu(x) * relu(x); }
static inline float relu2_derivative(float x) { return 2.0f * relu(x); }

void activate(float *out, const float *x, int64_t n, Activation act) {
    switch (act) {
    case ACT_GELU:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = gelu(x[i]);
        break;
    case ACT_GELU_ERF:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = gelu_erf(x[i]);
        break;
    case ACT_RELU:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = relu(x[i]);
        break;
    case ACT_SILU:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = silu(x[i]);
        break;
    case ACT_RELU2:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = relu2(x[i]);
        break;
    case ACT_NONE:
        if (out != x) memcpy(out, x, (size_t)n * sizeof *out);
    }
}

void activation_backward(float *gradient, const float *x, int64_t n, Activation act) {
    switch (act) {
    case ACT_GELU:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) gradient[i] *= gelu_derivative(x[i]);
        break;
    case ACT_GELU_ERF:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) gradient[i] *= gelu_erf_derivative(x[i]);
        break;
    case ACT_RELU:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) gradient[i] *= relu_derivative(x[i]);
        break;
    case ACT_SILU:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) gradient[i] *= silu_derivative(x[i]);
        break;
    case ACT_RELU2:
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) gradient[i] *= relu2_derivative(x[i]);
        break;
    case ACT_NONE:
        break;
    }
}

void cpu_activation_forward(Tensor out, Tensor pre, Activation act, Stream *s) {
    (void)s;
    enum { CHUNK = 1024 };
    int64_t N = tensor_numel(pre);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < N; i += CHUNK) {
        float in_buffer[CHUNK], out_buffer[CHUNK];
        int64_t n = N - i < CHUNK ? N - i : CHUNK;
        const float *x = read_floats(pre, i, n, in_buffer);
        float *y = write_floats(out, i, out_buffer);
        activate(y, x, n, act);
        wrote_floats(out, i, n, y);
    }
}
