/* norm.cuh: the kernels of LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019), alone and fused with the residual add before
   them. A row stays in the registers of a warp (up to 768 channels) or of a block, so that each tensor crosses the memory bus once.
   LayerNorm is centred: it takes the mean out, and may have a bias. RMSNorm has neither, and what serves only them falls away. */
#ifndef KERNELS_NORM_CUH
#define KERNELS_NORM_CUH

#include "residual.cuh"

#include <assert.h>

/* How rows lie in registers: THREADS threads share a row, each has PACKS packs of it, and neighbours have neighbouring packs. What a thread
   has of a row is element p, k: pack p * THREADS + thread, place k. */
template <class P_, int K_, int THREADS_, bool CENTRED_> struct NormLayout {
    typedef P_ P;
    typedef ElementOf<P> T;
    static constexpr bool CENTRED = CENTRED_;
    static constexpr int K = K_, THREADS = THREADS_, PACKS = K / P::N;
    static constexpr int BLOCK = THREADS == 32 ? 128 : THREADS, ROWS = BLOCK / THREADS;
    static constexpr int SUMS = CENTRED ? 2 : 1, PARTIAL = SUMS * K * THREADS;   /* dw and db; floats of a block's sums for them */
    /* Blocks that share a multiprocessor and its 65536 registers, by the registers a thread wants; in warps, a multiple of four.
       Forward holds a few values an element, backward also the sums for dw and db. */
    static constexpr int resident(int registers) { return 65536 / registers < BLOCK ? 1 : 65536 / registers / 128 * 128 / BLOCK; }
    static constexpr int FORWARD_BLOCKS = resident(16 + K * (1 + (int)sizeof(T)));
    static constexpr int BACKWARD_BLOCKS = resident(48 + K * (SUMS + (int)sizeof(T)));

    static __device__ __forceinline__ int thread() { return threadIdx.x % THREADS; }
    static __device__ __forceinline__ int row() { return threadIdx.x / THREADS; }
    static __device__ __forceinline__ int column(int p) { return (p * THREADS + thread()) * P::N; }
};

/* The layout depends on the width and alignment of rows alone, so that the norm of a row comes out the same from every kernel here. */
template <bool CENTRED, class F> void by_norm_layout(DType dtype, int64_t C, int aligned, F f) {
    assert(C <= MAX_CHANNELS);
    by_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (!aligned && C <= 1024) f(NormLayout<Single<T>, 16, 64, CENTRED>());
        else if (!aligned) f(NormLayout<Single<T>, 16, 1024, CENTRED>());
        else if (C <= 256) f(NormLayout<Vec<T>, 8, 32, CENTRED>());
        else if (C <= 512) f(NormLayout<Vec<T>, 16, 32, CENTRED>());
        else if (C <= 768) f(NormLayout<Vec<T>, 24, 32, CENTRED>());
        else if (C <= 1024) f(NormLayout<Vec<T>, 16, 64, CENTRED>());
        else if (C <= 1536) f(NormLayout<Vec<T>, 16, 96, CENTRED>());
        else if (C <= 2048) f(NormLayout<Vec<T>, 16, 128, CENTRED>());
        else if (C <= 4096) f(NormLayout<Vec<T>, 16, 256, CENTRED>());
        else if (C <= 8192) f(NormLayout<Vec<T>, 16, 512, CENTRED>());
        else f(NormLayout<Vec<T>, 16, 1024, CENTRED>());
    });
}

/* This thread's part of row[C]; zeros beyond its end, or everywhere if row is NULL. */
template <class L> __device__ __forceinline__ void load_row(typename L::P (&part)[L::PACKS], const typename L::T *row, int C) {
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++)
        part[p] = row && L::column(p) < C ? load_pack_stream<typename L::P>(row + L::column(p)) : typename L::P();
}
/* The same of weights, which every row reads again. */
template <class L> __device__ __forceinline__ void load_weights(typename L::P (&part)[L::PACKS], const typename L::T *w, int C) {
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++)
        part[p] = w && L::column(p) < C ? load_pack<typename L::P>(w + L::column(p)) : typename L::P();
}

/* Sums over the threads of a row, for each of them; the order of additions is fixed. */
template <class L> __device__ __forceinline__ float row_sum(float v) {
    if constexpr (L::THREADS == 32) return warp_sum(v);
    else return block_sum<L::THREADS>(v);
}
template <class L> __device__ __forceinline__ void row_sums(float &a, float &b) {
    a = warp_sum(a);
    b = warp_sum(b);
    if constexpr (L::THREADS > 32) {
        SHARED(float, part, [2][L::THREADS / 32]);
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        __syncthreads();   /* part may still be read from the row before */
        if (lane == 0) part[0][warp] = a, part[1][warp] = b;
        __syncthreads();
        a = warp_sum(lane < L::THREADS / 32 ? part[0][lane] : 0.0f);
        b = warp_sum(lane < L::THREADS / 32 ? part[1][lane] : 0.0f);
    }
}

/* ---- forward -------------------------------------------------------------------------------------------------------------------- */

/* What is normalised: x, x + delta, or x + dropout(delta). */
enum NormInput { INPUT_X, INPUT_SUM, INPUT_DROPPED_SUM };

template <class T> struct NormForward {
    T *residual, *out;
    float *mean, *rstd;
    const T *x, *delta, *w, *b;
    float eps;
    Dropout drop;
    int64_t N, per_sample;   /* rows, and elements of one row of the batch */
    int C;
};

/* x += dropout(delta), rounded as it is stored. */
template <class L, NormInput INPUT> __device__ __forceinline__ void
add_delta(typename L::P (&x)[L::PACKS], const NormForward<typename L::T> &a, int64_t row) {
    constexpr bool DROPPED = INPUT == INPUT_DROPPED_SUM;
    typename L::P delta[L::PACKS];
    load_row<L>(delta, a.delta + row * a.C, a.C);
    ResidualMask mask = residual_mask<DROPPED>(a.drop, a.per_sample);
    mask.first += (uint64_t)(row * a.C);
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++) {
        x[p] = add_residual<DROPPED>(x[p], delta[p], mask, L::column(p));
        if (L::column(p) < a.C) store_pack_stream(a.residual + row * a.C + L::column(p), x[p]);
    }
}

/* mean and 1/sqrt(variance + eps) of a row. The second pass also sums the distances from the first mean, which would be zero but for
   rounding, and corrects both by them (Chan, Golub and LeVeque 1983). The products are fused by hand: no compiler may choose otherwise in
   another kernel. */
template <class L> __device__ __forceinline__ void
row_statistics(float &mean, float &rstd, const typename L::P (&x)[L::PACKS], int C, float eps) {
    float sum = 0, distances = 0, squares = 0;
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++)
        for (int k = 0; k < L::P::N; k++) sum += element(x[p], k);
    const float rough = row_sum<L>(sum) / (float)C;
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++) {
        if (L::column(p) >= C) continue;   /* those zeros are no data */
        #pragma unroll
        for (int k = 0; k < L::P::N; k++) {
            const float distance = element(x[p], k) - rough;
            distances += distance;
            squares = fmaf(distance, distance, squares);
        }
    }
    row_sums<L>(distances, squares);
    const float correction = distances / (float)C;
    mean = rough + correction;
    rstd = 1.0f / sqrtf(fmaf(-correction, correction, squares / (float)C) + eps);
}

/* 1/sqrt(mean of the squares + eps) of a row; zeros beyond its end change nothing. */
template <class L> __device__ __forceinline__ float row_scale(const typename L::P (&x)[L::PACKS], int C, float eps) {
    float squares = 0;
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++)
        for (int k = 0; k < L::P::N; k++) squares = fmaf(element(x[p], k), element(x[p], k), squares);
    return 1.0f / sqrtf(row_sum<L>(squares) / (float)C + eps);
}

template <class L, NormInput INPUT> __global__ void __launch_bounds__(L::BLOCK, L::FORWARD_BLOCKS)
norm_forward_kernel(NormForward<typename L::T> a) {
    typedef typename L::P P;
    const int64_t row = (int64_t)blockIdx.x * L::ROWS + L::row();
    if (row >= a.N) return;   /* only where a warp has a row of its own: no barriers follow */
    P x[L::PACKS], w[L::PACKS], b[L::PACKS];
    float mean = 0, rstd;
    load_row<L>(x, a.x + row * a.C, a.C);
    if constexpr (INPUT != INPUT_X) add_delta<L, INPUT>(x, a, row);
    if constexpr (L::CENTRED) row_statistics<L>(mean, rstd, x, a.C, a.eps);
    else rstd = row_scale<L>(x, a.C, a.eps);
    load_weights<L>(w, a.w, a.C);
    if constexpr (L::CENTRED) load_weights<L>(b, a.b, a.C);
    #pragma unroll
    for (int p = 0; p < L::PACKS; p++) {
        float normalized[P::N];
        #pragma unroll
        for (int k = 0; k < P::N; k++) {
            const float xhat = (element(x[p], k) - mean) * rstd;
            if constexpr (L::CENTRED) normalized[k] = fmaf(xhat, element(w[p], k), element(b[p], k));
            else normalized[k] = xhat * element(w[p], k);
        }
        if (L::column(p) < a.C) store_pack(a.out + row * a.C + L::column(p), pack_floats<P>(normalized));
    }
    if (L::thread() == 0) {
        if constexpr (L::CENTRED) a.mean[row] = mean;
        a.rstd[row] = rstd;
    }
}

/* residual and delta absent: the norm of x. Else out and the statistics are, bit for bit, those of the norm of the stored residual: the
   model relies on it where it computes them again. */
template <bool CENTRED> void norm_forward(Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w, Tensor b,
                                          float eps, Dropout drop, Stream *s) {
    const int64_t C = last_dim(x), N = tensor_numel(x) / C;
    by_norm_layout<CENTRED>(x.dtype, C, rows_aligned(x.dtype, C, residual, out, x, delta, w, b), [&](auto layout) {
        typedef decltype(layout) L;
        typedef typename L::T T;
        const NormForward<T> a = {(T *)residual.data, (T *)out.data, (float *)mean.data, (float *)rstd.data, (const T *)x.data,
                                  (const T *)delta.data, (const T *)w.data, (const T *)b.data, eps, drop, N, tensor_numel(x) / x.shape[0],
                                  (int)C};
        const unsigned grid = (unsigned)ceil_div(N, L::ROWS);
        if (!delta.data) LAUNCH((norm_forward_kernel<L, INPUT_X>), grid, L::BLOCK, 0, cuda_stream(s), a);
        else if (drop.p == 0) LAUNCH((norm_forward_kernel<L, INPUT_SUM>), grid, L::BLOCK, 0, cuda_stream(s), a);
        else LAUNCH((norm_forward_kernel<L, INPUT_DROPPED_SUM>), grid, L::BLOCK, 0, cuda_stream(s), a);
    });
}

/* ---- backward ------------------------------------------------------------------------------------------------------------------- */

template <class T> struct NormBackward {
    T *dx;
    float *partial;   /* (blocks, SUMS, K, THREADS): each block's sums for dw and db */
    const T *dout, *x, *w;
    const float *mean, *rstd;
    int64_t N;
    int C, add_dx;
};

/* Writes the block's sums: those of its rows are added one row after another. */
template <class L> __device__ __forceinline__ void store_partial(float *partial, const float (&sums)[L::SUMS][L::K]) {
    if constexpr (L::ROWS == 1) {
        #pragma unroll
        for (int k = 0; k < L::SUMS * L::K; k++) partial[k * L::THREADS + L::thread()] = sums[k / L::K][k % L::K];
    } else {
        SHARED(float, total, [L::PARTIAL]);
        for (int row = 0; row < L::ROWS; row++) {
            if (L::row() == row) {
                #pragma unroll
                for (int k = 0; k < L::SUMS * L::K; k++) {
                    const float mine = sums[k / L::K][k % L::K];
                    float *sum = total + k * L::THREADS + L::thread();
                    *sum = row == 0 ? mine : *sum + mine;
                }
            }
            __syncthreads();
        }
        for (int i = threadIdx.x; i < L::PARTIAL; i += L::BLOCK) partial[i] = total[i];
    }
}

/* With xhat = (x - mean) rstd and g = dout w:  dx = rstd (g - mean(g) - xhat mean(g xhat)),  dw = sum dout xhat,  db = sum dout; where the
   norm is not centred, without mean, mean(g) and db. A thread has the same columns of every row that its block takes, and their w, dw and
   db in registers. It reads what it has of a row before it writes, so dout may be dx. */
template <class L> __global__ void __launch_bounds__(L::BLOCK, L::BACKWARD_BLOCKS) norm_backward_kernel(NormBackward<typename L::T> a) {
    typedef typename L::P P;
    float sums[L::SUMS][L::K] = {};
    P w[L::PACKS];
    load_weights<L>(w, a.w, a.C);
    for (int64_t row = (int64_t)blockIdx.x * L::ROWS + L::row(); row < a.N; row += (int64_t)gridDim.x * L::ROWS) {
        P x[L::PACKS], dout[L::PACKS], dx[L::PACKS];
        load_row<L>(x, a.x + row * a.C, a.C);
        load_row<L>(dout, a.dout + row * a.C, a.C);
        load_row<L>(dx, a.add_dx ? a.dx + row * a.C : nullptr, a.C);
        const float mean = L::CENTRED ? a.mean[row] : 0.0f, rstd = a.rstd[row];
        float sum = 0, product = 0;
        #pragma unroll
        for (int p = 0; p < L::PACKS; p++) {
            #pragma unroll
            for (int k = 0; k < P::N; k++) {
                const float gradient = element(dout[p], k), xhat = (element(x[p], k) - mean) * rstd, g = gradient * element(w[p], k);
                product += g * xhat;
                sums[0][p * P::N + k] += gradient * xhat;
                if constexpr (L::CENTRED) {
                    sum += g;
                    sums[1][p * P::N + k] += gradient;
                }
            }
        }
        if constexpr (L::CENTRED) row_sums<L>(sum, product);
        else product = row_sum<L>(product);
        sum /= (float)a.C;
        product /= (float)a.C;
        #pragma unroll
        for (int p = 0; p < L::PACKS; p++) {
            float gradient[P::N];
            #pragma unroll
            for (int k = 0; k < P::N; k++) {
                const float xhat = (element(x[p], k) - mean) * rstd, g = element(dout[p], k) * element(w[p], k);
                gradient[k] = element(dx[p], k) + rstd * (g - sum - xhat * product);
            }
            if (L::column(p) < a.C) store_pack(a.dx + row * a.C + L::column(p), pack_floats<P>(gradient));
        }
    }
    store_partial<L>(a.partial + (int64_t)blockIdx.x * L::PARTIAL, sums);
}

/* dw(C) and, where there are sums for it, db(C) (+)= partial summed over its blocks. Each block adds 32 neighbouring sums, its warp g those
   of blocks g, g + warps, ... */
static __global__ void __launch_bounds__(1024)
norm_weights_kernel(float *dw, float *db, const float *partial, int blocks, int K, int threads, int N, int C, int accumulate) {
    SHARED(float, sums, [32][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, slots = K * threads, first = blockIdx.x * 32;
    float sum = 0;
    #pragma unroll 8
    for (int block = warp; block < blocks; block += warps) sum += partial[(int64_t)block * gridDim.x * 32 + first + lane];
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0) return;
    for (int other = 1; other < warps; other++) sum += sums[other][lane];
    const int slot = (first + lane) % slots, k = slot / threads, column = (k / N * threads + slot % threads) * N + k % N;
    float *total = first < slots ? dw : db;
    if (total && column < C) total[column] = accumulate ? total[column] + sum : sum;
}

/* The same bits on every run: partial sums of the blocks, added in the order of the blocks by a second launch. */
template <bool CENTRED> void norm_backward(Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean, Tensor rstd,
                                           int add_dx, int accumulate, Stream *s) {
    const int64_t C = last_dim(x), N = tensor_numel(x) / C;
    by_norm_layout<CENTRED>(x.dtype, C, rows_aligned(x.dtype, C, dx, dout, x, w), [&](auto layout) {
        typedef decltype(layout) L;
        typedef typename L::T T;
        const int64_t resident = (int64_t)L::BACKWARD_BLOCKS * device_multiprocessors(), room = REDUCTION_FLOATS / L::PARTIAL;
        const int64_t wanted = ceil_div(N, L::ROWS), fit = resident < room ? resident : room;
        const int blocks = (int)(wanted < fit ? wanted : fit);
        float *partial = reduction_scratch((size_t)blocks * L::PARTIAL);
        const NormBackward<T> a = {(T *)dx.data, partial, (const T *)dout.data, (const T *)x.data, (const T *)w.data,
                                   (const float *)mean.data, (const float *)rstd.data, N, (int)C, add_dx};
        LAUNCH((norm_backward_kernel<L>), blocks, L::BLOCK, 0, cuda_stream(s), a);
        const int warps = blocks >= 4 * 32 ? 32 : (int)ceil_div(blocks, 4);
        LAUNCH(norm_weights_kernel, L::PARTIAL / 32, 32 * warps, 0, cuda_stream(s), (float *)dw.data, (float *)db.data, partial, blocks,
               L::K, L::THREADS, L::P::N, (int)C, accumulate);
    });
}

#endif
