/* cross_entropy.cu: softmax, negative log-likelihood and its gradient in one op, and the sum of the losses.

   The first walk over a row finds its maximum and the sum of exponentials together (Milakov and Gimelshein 2018); the second writes the
   gradient over the logits. A long row has a block, which keeps it in shared memory between the two, so that global memory is read once. It
   may have 99 KB, which every device since sm_80 allows and of which an H100's multiprocessor holds two, so that one block loads and stores
   while the other computes; 50,304 columns of bf16 fit. A thread reads only what it copied itself, so the copies need no barrier.
   A longer row, and any of which only the loss is asked, has a block and nothing kept: for the gradient it is read again, partly from the
   L2 cache. A short row has a warp, which needs no barriers, and is read again from the L1 cache. */
#include "sum.cuh"

#include <assert.h>
#include <float.h>

enum {
    SHORT_ROW = 1024,                  /* columns that a warp does alone */
    SHORT_BLOCK = 256,                 /* threads: a row for each warp */
    ROW_BLOCK = 512,                   /* threads: one row */
    KEPT_BYTES = 99 * 1024 - 256,      /* the longest row that is kept; the rest is for the reductions */
    COPIES_AHEAD = 8,                  /* 16-byte copies of each thread that are under way */
    SUM_BLOCK = 1024,
};

/* W neighbours as floats: all at once, or one by one (W = 1) where rows are not aligned. */
template <int W, class T> __device__ __forceinline__ void load(float (&x)[W], const T *p) {
    if constexpr (W == 1) x[0] = to_float(*p);
    else {
        const Pack<T> pack = ld128(p);
        for (int k = 0; k < W; k++) x[k] = to_float(pack.v[k]);
    }
}
template <int W, class T> __device__ __forceinline__ void store(T *p, const float (&x)[W]) {
    if constexpr (W == 1) *p = from_float<T>(x[0]);
    else {
        Pack<T> pack;
        for (int k = 0; k < W; k++) pack.v[k] = from_float<T>(x[k]);
        st128(p, pack);
    }
}

/* Gives x[k] for column first + k >= V the value `padding`. */
template <int W> __device__ __forceinline__ void fill_padding(float (&x)[W], int first, int V, float padding) {
    if (first + W <= V) return;
    for (int k = 0; k < W; k++)
        if (first + k >= V) x[k] = padding;
}

/* The largest of the logits seen, and the sum of exp(logit - maximum). A NaN is passed over by the maximum and carried by the sum. */
struct Softmax {
    float maximum, sum;
};

template <int W> __device__ __forceinline__ void see(Softmax &seen, const float (&x)[W]) {
    float maximum = seen.maximum, sum = 0;
    for (int k = 0; k < W; k++) maximum = fmaxf(maximum, x[k]);
    for (int k = 0; k < W; k++) sum += __expf(x[k] - maximum);
    seen.sum = seen.sum * __expf(seen.maximum - maximum) + sum;
    seen.maximum = maximum;
}

/* Over the THREADS threads of a row. */
template <int THREADS> __device__ __forceinline__ Softmax combine(Softmax mine) {
    if constexpr (THREADS == 32) {
        const float maximum = warp_max(mine.maximum);
        return {maximum, warp_sum(mine.sum * __expf(mine.maximum - maximum))};
    } else {
        const float maximum = block_max<THREADS>(mine.maximum);
        return {maximum, block_sum<THREADS>(mine.sum * __expf(mine.maximum - maximum))};
    }
}

/* Thread `thread` of THREADS sees the row x(V), W columns at a time. */
template <int W, int THREADS, class T> __device__ __forceinline__ Softmax see_row(const T *x, int V, int thread) {
    Softmax seen = {-FLT_MAX, 0};   /* finite: -INF less itself would be NaN */
    #pragma unroll 2
    for (int i = thread * W; i < V; i += THREADS * W) {
        float logits[W];
        load(logits, x + i);
        fill_padding(logits, i, V, -INFINITY);
        see(seen, logits);
    }
    return seen;
}

/* The same, keeping the row in shared memory. */
template <int W, int THREADS, class T> __device__ __forceinline__ Softmax see_and_keep_row(T *kept, const T *x, int V, int thread) {
    Softmax seen = {-FLT_MAX, 0};
    const auto copy = [&](int i) {
        if (i < V) cp_async16(kept + i, x + i);
        cp_async_commit();
    };
    for (int ahead = 0; ahead < COPIES_AHEAD; ahead++) copy((ahead * THREADS + thread) * W);
    for (int i = thread * W; i < V; i += THREADS * W) {
        float logits[W];
        cp_async_wait<COPIES_AHEAD - 1>();
        load(logits, kept + i);
        copy(i + COPIES_AHEAD * THREADS * W);
        fill_padding(logits, i, V, -INFINITY);
        see(seen, logits);
    }
    return seen;
}

/* gradient = exp(x - maximum) * scale, zero in the padding; x may be the gradient's own memory. */
template <int W, int THREADS, class T>
__device__ __forceinline__ void write_gradient(T *gradient, const T *x, float maximum, float scale, int V, int Vp, int thread) {
    for (int i = thread * W; i < Vp; i += THREADS * W) {
        float values[W] = {};
        if (i < V) {
            load(values, x + i);
            for (int k = 0; k < W; k++) values[k] = __expf(values[k] - maximum) * scale;
            fill_padding(values, i, V, 0.0f);
        }
        store(gradient + i, values);
    }
}

template <int W, int THREADS, class T> __device__ __forceinline__ void clear_row(T *x, int Vp, int thread) {
    const float zeros[W] = {};
    for (int i = thread * W; i < Vp; i += THREADS * W) store(x + i, zeros);
}

/* One row per THREADS threads, a whole block or a warp; KEEP: the row fits in shared memory. See cuda_cross_entropy. */
template <class T, int W, int BLOCK, int THREADS, bool KEEP>
__global__ void __launch_bounds__(BLOCK, 1024 / BLOCK)
cross_entropy_kernel(float *losses, T *logits, const int *targets, int64_t N, int V, int Vp, int backward, const StepState *state) {
    SMEM_CARVER(shared);
    const int thread = threadIdx.x % THREADS;
    const int64_t row = (int64_t)blockIdx.x * (BLOCK / THREADS) + threadIdx.x / THREADS;
    if (row >= N) return;   /* a whole warp, in a kernel without barriers */
    const int target = targets[row];
    T *x = logits + row * Vp;
    const bool owner = thread == target / W % THREADS;   /* of the target's column */
    assert(target < V);
    if (target < 0) {
        if (thread == 0) losses[row] = 0;
        if (backward) clear_row<W, THREADS>(x, Vp, thread);
        return;
    }
    const float target_logit = owner ? to_float(x[target]) : 0.0f;
    T *kept = x;
    Softmax seen;
    if constexpr (KEEP) seen = see_and_keep_row<W, THREADS>(kept = shared.take<T>(Vp), x, V, thread);
    else seen = see_row<W, THREADS>(x, V, thread);
    seen = combine<THREADS>(seen);
    if (owner) losses[row] = logf(seen.sum) + (seen.maximum - target_logit);
    if (!backward) return;
    const float loss_scale = state->loss_scale, scale = loss_scale / seen.sum;
    write_gradient<W, THREADS>(x, kept, seen.maximum, scale, V, Vp, thread);
    /* The owner itself wrote this column's pack, so the order is certain. */
    if (owner) x[target] = from_float<T>(__expf(target_logit - seen.maximum) * scale - loss_scale);
}

/* Adds up in double, in a fixed order; one block, for there are only N losses. */
__global__ void __launch_bounds__(SUM_BLOCK) loss_sum_kernel(float *result, const float *losses, int64_t N, int accumulate) {
    double sum = 0;
    #pragma unroll 8
    for (int64_t i = threadIdx.x; i < N; i += SUM_BLOCK) sum += losses[i];
    sum = block_sum_double<SUM_BLOCK>(sum);
    if (threadIdx.x == 0) *result = (float)((accumulate ? *result : 0.0) + sum);
}

template <class T, int W, int BLOCK, int THREADS, bool KEEP>
static void launch(Tensor losses, Tensor logits, Tensor targets, int V, int backward, const StepState *state, Stream *s) {
    const int Vp = (int)last_dim(logits);
    const int64_t N = tensor_numel(logits) / Vp;
    const size_t shared_bytes = KEEP ? (size_t)ceil_div(Vp, Pack<T>::N) * 16 : 0;
    allow_shared_memory(cross_entropy_kernel<T, W, BLOCK, THREADS, KEEP>, shared_bytes);
    LAUNCH((cross_entropy_kernel<T, W, BLOCK, THREADS, KEEP>), (int)ceil_div(N, BLOCK / THREADS), BLOCK, shared_bytes, cuda_stream(s),
           (float *)losses.data, (T *)logits.data, (const int *)targets.data, N, V, Vp, backward, state);
}

void cuda_cross_entropy(Tensor losses, Tensor logits, Tensor targets, int V, int backward, const StepState *state, Stream *s) {
    if (tensor_numel(losses) == 0) return;
    by_dtype(logits.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        constexpr int W = Pack<T>::N;
        const int64_t Vp = last_dim(logits);
        const bool aligned = packs<T>(Vp) && (uintptr_t)logits.data % 16 == 0, keep = backward && Vp * (int64_t)sizeof(T) <= KEPT_BYTES;
        if (!aligned) launch<T, 1, ROW_BLOCK, ROW_BLOCK, false>(losses, logits, targets, V, backward, state, s);
        else if (Vp <= SHORT_ROW) launch<T, W, SHORT_BLOCK, 32, false>(losses, logits, targets, V, backward, state, s);
        else if (keep) launch<T, W, ROW_BLOCK, ROW_BLOCK, true>(losses, logits, targets, V, backward, state, s);
        else launch<T, W, ROW_BLOCK, ROW_BLOCK, false>(losses, logits, targets, V, backward, state, s);
    });
}

void cuda_loss_sum(Tensor sum, Tensor losses, int accumulate, Stream *s) {
    const int64_t N = tensor_numel(losses);
    LAUNCH(loss_sum_kernel, 1, SUM_BLOCK, 0, cuda_stream(s), (float *)sum.data, (const float *)losses.data, N, accumulate);
}
