/* matmul.cu: the three products of a linear layer on the GPU. The library does them (gemm.cuh), in bf16 with the activation in its epilogue
   where it can; a tiled kernel here does those that it has no algorithm for.

   What the library cannot fuse is done apart, and with the same rounding as on the CPU: the activation sees the fp32 sums. For bf16 tensors
   the sums of some rows at a time lie in scratch, small enough to be still in the L2 cache when the activation reads them; for fp32 ones in
   the result's own memory. */
#include "activation.cuh"
#include "gemm.cuh"

#include <initializer_list>
#include <type_traits>

enum {
    BLOCK = 256,
    TILE = 64, DEPTH = 16,              /* of the tiled product: rows and columns of D, and how far it looks along K at a time */
    SUM_WARPS = BLOCK / 32,             /* column sums: each warp takes every eighth row of a part, */
    SUM_AHEAD = 4,                      /* four rows at a time, so that their loads are under way together */
    SUM_BLOCKS = 2048, SUM_ROWS = 64,   /* about so many blocks, no part below so many rows: the result does not depend on the device */
    ADD_WARPS = 32,                     /* which add up the parts of 32 columns */
    PART_ROWS = 256,                    /* sums in scratch: a multiple of so many rows, which fills the library's tiles */
};

/* ---- rows of W elements at a time ----------------------------------------------------------------------------------------------- */

/* W is 1 (any address) or a multiple of a Pack (addresses divisible by 16). */
template <class T, int W> __device__ __forceinline__ void load(float (&values)[W], const T *p) {
    if constexpr (W % Pack<T>::N == 0) {
        for (int i = 0; i < W; i += Pack<T>::N) {
            const Pack<T> pack = ld128(p + i);
            for (int k = 0; k < Pack<T>::N; k++) values[i + k] = to_float(pack.v[k]);
        }
    } else {
        for (int i = 0; i < W; i++) values[i] = to_float(p[i]);
    }
}

/* Around the caches as far as that goes: they are to keep the sums. */
template <class T, int W> __device__ __forceinline__ void store(T *p, const float (&values)[W]) {
    if constexpr (W % Pack<T>::N == 0) {
        for (int i = 0; i < W; i += Pack<T>::N) {
            Pack<T> pack;
            for (int k = 0; k < Pack<T>::N; k++) pack.v[k] = from_float<T>(values[i + k]);
            st128_stream(p + i, pack);
        }
    } else {
        for (int i = 0; i < W; i++) p[i] = from_float<T>(values[i]);
    }
}

/* ---- kernels -------------------------------------------------------------------------------------------------------------------- */

/* D(M,N) = A B + C + bias(N), where C, which may be D, and bias may be NULL; element (m,k) of A is at m * a_m + k * a_k, (k,n) of B at
   k * b_k + n * b_n. Each thread keeps 4 x 4 sums, neighbours of which are 16 apart, so that a warp reads neighbouring words of shared memory. */
template <class T, class TD>
__global__ void __launch_bounds__(BLOCK) tiled_product_kernel(TD *D, const T *A, const T *B, const TD *C, const TD *bias, int64_t M, int64_t N,
                                                              int64_t K, int64_t a_m, int64_t a_k, int64_t b_k, int64_t b_n) {
    SHARED(float, a, [DEPTH][TILE + 1]);
    SHARED(float, b, [DEPTH][TILE + 1]);
    const int row = threadIdx.x / 16, column = threadIdx.x % 16;
    const int64_t m0 = (int64_t)blockIdx.x * TILE, n0 = (int64_t)blockIdx.y * TILE;
    float sums[4][4] = {};
    for (int64_t k0 = 0; k0 < K; k0 += DEPTH) {
        for (int i = threadIdx.x; i < TILE * DEPTH; i += BLOCK) {   /* neighbouring threads take what is neighbours in memory */
            const int am = a_k == 1 ? i / DEPTH : i % TILE, ak = a_k == 1 ? i % DEPTH : i / TILE;
            const int bn = b_k == 1 ? i / DEPTH : i % TILE, bk = b_k == 1 ? i % DEPTH : i / TILE;
            a[ak][am] = m0 + am < M && k0 + ak < K ? to_float(A[(m0 + am) * a_m + (k0 + ak) * a_k]) : 0.0f;
            b[bk][bn] = n0 + bn < N && k0 + bk < K ? to_float(B[(k0 + bk) * b_k + (n0 + bn) * b_n]) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sums[i][j] = fmaf(a[k][row + 16 * i], b[k][column + 16 * j], sums[i][j]);
        __syncthreads();   /* before the next step overwrites a and b */
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int64_t m = m0 + row + 16 * i, n = n0 + column + 16 * j;
            const float added = m < M && n < N ? (C ? to_float(C[m * N + n]) : 0.0f) + (bias ? to_float(bias[n]) : 0.0f) : 0.0f;
            if (m < M && n < N) D[m * N + n] = from_float<TD>(sums[i][j] + added);
        }
}

/* pre = sums + bias and out = act(pre), n elements of whole rows of OC; bias and pre may be NULL. The sums may lie in out or pre. */
template <class T, int W, Activation ACT>
__global__ void __launch_bounds__(BLOCK) activate_kernel(T *out, T *pre, const float *sums, const T *bias, unsigned n, unsigned OC) {
    const unsigned i = (blockIdx.x * BLOCK + threadIdx.x) * W;
    float values[W], biases[W];
    if (i >= n) return;
    load(values, sums + i);
    if (bias) {
        load(biases, bias + i % OC);
        for (int k = 0; k < W; k++) values[k] += biases[k];
    }
    if (pre) store(pre + i, values);
    for (int k = 0; k < W; k++) values[k] = activate(values[k], ACT);
    store(out + i, values);
}

/* dx(n) = sums * act'(pre). The sums may lie in dx. */
template <class T, int W, Activation ACT>
__global__ void __launch_bounds__(BLOCK) activate_backward_kernel(T *dx, const float *sums, const T *pre, unsigned n) {
    const unsigned i = (blockIdx.x * BLOCK + threadIdx.x) * W;
    float values[W], inputs[W];
    if (i >= n) return;
    load(values, sums + i);
    load(inputs, pre + i);
    for (int k = 0; k < W; k++) values[k] *= activation_derivative(inputs[k], ACT);
    store(dx + i, values);
}

/* parts(gridDim.y,OC): blockIdx.y's is the sum of its `rows` rows of dout(N,OC). A lane has W columns, a block 32 W. */
template <class T, int W>
__global__ void __launch_bounds__(BLOCK) column_sums_kernel(float *parts, const T *dout, int64_t N, int64_t OC, int64_t rows) {
    SHARED(float, warp_sums, [SUM_WARPS][32 * W]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t first_column = (int64_t)blockIdx.x * 32 * W, column = first_column + lane * W;
    const int64_t first = blockIdx.y * rows, last = first + rows < N ? first + rows : N;
    float sums[W] = {}, values[SUM_AHEAD][W];
    int64_t row = first + warp;
    if (column < OC) {
        for (; row + (SUM_AHEAD - 1) * SUM_WARPS < last; row += SUM_AHEAD * SUM_WARPS) {
            for (int i = 0; i < SUM_AHEAD; i++) load(values[i], dout + (row + i * SUM_WARPS) * OC + column);
            for (int i = 0; i < SUM_AHEAD; i++)
                for (int k = 0; k < W; k++) sums[k] += values[i][k];
        }
        for (; row < last; row += SUM_WARPS) {
            load(values[0], dout + row * OC + column);
            for (int k = 0; k < W; k++) sums[k] += values[0][k];
        }
    }
    for (int k = 0; k < W; k++) warp_sums[warp][k * 32 + lane] = sums[k];   /* column lane * W + k; no two lanes in one bank */
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * W; i += BLOCK) {
        float sum = 0.0f;
        for (int w = 0; w < SUM_WARPS; w++) sum += warp_sums[w][i % W * 32 + i / W];
        if (first_column + i < OC) parts[blockIdx.y * OC + first_column + i] = sum;
    }
}

/* db(OC) (+)= the sum of parts(n,OC) over n */
__global__ void __launch_bounds__(32 * ADD_WARPS) add_parts_kernel(float *db, const float *parts, int n, int64_t OC, int accumulate) {
    SHARED(float, warp_sums, [ADD_WARPS][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t column = (int64_t)blockIdx.x * 32 + lane;
    float sum = 0.0f;
    for (int part = warp; column < OC && part < n; part += ADD_WARPS) sum += parts[part * OC + column];
    warp_sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || column >= OC) return;
    sum = accumulate ? db[column] : 0.0f;
    for (int w = 0; w < ADD_WARPS; w++) sum += warp_sums[w][lane];
    db[column] = sum;
}

/* ---- products ------------------------------------------------------------------------------------------------------------------- */

/* Rows of the matrix (..., last_dim). */
static int64_t rows_of(Tensor t) {
    int64_t rows = 1;
    for (int i = 0; i < t.rank - 1; i++) rows *= t.shape[i];
    return rows;
}

static void *element(Tensor t, int64_t offset) { return t.data ? (char *)t.data + (size_t)offset * dtype_size(t.dtype) : NULL; }

static Gemm product_of(const void *A, int transpose_a, const void *B, int transpose_b, DType dtype, int64_t M, int64_t N, int64_t K) {
    Gemm g = {};
    g.A = A; g.B = B; g.dtype = dtype;
    g.M = M; g.N = N; g.K = K;
    g.transpose_a = transpose_a; g.transpose_b = transpose_b;
    return g;
}

static int by_library(const Gemm &g, Stream *s) { return g.M > 0 && g.N > 0 && g.K > 0 && gemm(&g, s); }

/* A product without epilogue, which is always possible. */
static void plain_product(const Gemm &g, Stream *s) {
    if (g.M == 0 || g.N == 0 || by_library(g, s)) return;
    const dim3 grid((unsigned)ceil_div(g.M, TILE), (unsigned)ceil_div(g.N, TILE));
    by_dtype(g.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        by_dtype(g.d_dtype, [&](auto d_zero) {
            typedef decltype(d_zero) TD;
            LAUNCH((tiled_product_kernel<T, TD>), grid, BLOCK, 0, cuda_stream(s), (TD *)g.D, (const T *)g.A, (const T *)g.B, (const TD *)g.C,
                   (const TD *)g.bias, g.M, g.N, g.K, g.transpose_a ? 1 : g.K, g.transpose_a ? g.M : 1, g.transpose_b ? 1 : g.N,
                   g.transpose_b ? g.K : 1);
        });
    });
}

/* Calls f with a constant W: a Pack where rows of C elements and all the addresses allow it (NULL does), else 1. */
template <class T, class F> static void by_width(int64_t C, std::initializer_list<const void *> addresses, F f) {
    uintptr_t bits = 0;
    for (const void *p : addresses) bits |= (uintptr_t)p;
    if (packs<T>(C) && bits % 16 == 0) f(std::integral_constant<int, Pack<T>::N>());
    else f(std::integral_constant<int, 1>());
}

/* Calls f(first row, rows, where their fp32 sums go) for all rows of the tensor: into its own memory if that is F32, else into scratch. */
template <class F> static void by_rows(Tensor t, F f) {
    const int64_t N = rows_of(t), C = last_dim(t);
    int64_t most = REDUCTION_FLOATS / C;
    most = most >= PART_ROWS ? most - most % PART_ROWS : most > 0 ? most : 1;
    for (int64_t row = 0; row < N; row += most) {
        const int64_t rows = N - row < most ? N - row : most;
        f(row, rows, t.dtype == F32 ? (float *)element(t, row * C) : reduction_scratch((size_t)(rows * C)));
    }
}

/* out and pre, from row `row` on, from the sums of so many rows. */
template <class T> static void activate_rows(Tensor out, Tensor pre, const float *sums, Tensor bias, Activation act, int64_t row,
                                             int64_t rows, Stream *s) {
    const int64_t OC = last_dim(out);
    T *const out_rows = (T *)element(out, row * OC), *const pre_rows = (T *)element(pre, row * OC);
    by_width<T>(OC, {out_rows, pre_rows, sums, bias.data}, [&](auto width) {
        by_activation(act, [&](auto activation) {
            typedef decltype(width) W;
            const unsigned blocks = (unsigned)ceil_div(rows * OC, BLOCK * W::value);
            LAUNCH((activate_kernel<T, W::value, decltype(activation)::value>), blocks, BLOCK, 0, cuda_stream(s), out_rows, pre_rows, sums,
                   (const T *)bias.data, (unsigned)(rows * OC), (unsigned)OC);
        });
    });
}

static void forward_apart(Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, Stream *s) {
    const int64_t IC = last_dim(x), OC = last_dim(out);
    by_rows(pre.data ? pre : out, [&](int64_t row, int64_t rows, float *sums) {
        Gemm g = product_of(element(x, row * IC), 0, w.data, 1, x.dtype, rows, OC, IC);
        g.D = sums;
        g.d_dtype = F32;
        plain_product(g, s);
        by_dtype(out.dtype, [&](auto zero) { activate_rows<decltype(zero)>(out, pre, sums, bias, act, row, rows, s); });
    });
}

static int forward_fused(Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, Stream *s) {
    Gemm g = product_of(x.data, 0, w.data, 1, x.dtype, rows_of(x), last_dim(out), last_dim(x));
    g.D = out.data;
    g.d_dtype = out.dtype;
    g.bias = bias.data;
    g.aux = pre.data;
    g.epilogue = act == ACT_GELU ? GEMM_GELU : GEMM_PLAIN;
    return by_library(g, s);
}

/* The library's GELU is the tanh form; its fp32 one is not as exact as ours. */
static bool may_fuse(DType dtype, Activation act) { return dtype == BF16 && act == ACT_GELU; }

void cuda_matmul_forward(Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, Stream *s) {
    const int64_t N = rows_of(x), IC = last_dim(x), OC = last_dim(out);
    if (N == 0 || OC == 0) return;
    if (act == ACT_NONE) pre = no_tensor();
    const auto fused = [&] { return forward_fused(out, pre, x, w, bias, act, s); };
    const auto apart = [&] {
        forward_apart(out, pre, x, w, bias, act, s);
        return 1;
    };
    if (may_fuse(out.dtype, act)) gemm_either(pre.data ? "gelu+aux" : "gelu", N, OC, IC, fused, apart, gemm_fuses_activations(), 1, s);
    else if (act != ACT_NONE || !fused()) apart();
}

void cuda_matmul_add_forward(Tensor out, Tensor x, Tensor w, Tensor bias, Tensor add, Stream *s) {
    Gemm g = product_of(x.data, 0, w.data, 1, x.dtype, rows_of(x), last_dim(out), last_dim(x));
    g.D = out.data;
    g.d_dtype = out.dtype;
    g.C = add.data;
    g.bias = bias.data;
    plain_product(g, s);
}

/* dx, from row `row` on, from the sums of so many rows. */
template <class T> static void activate_backward_rows(Tensor dx, const float *sums, Tensor pre, Activation act, int64_t row, int64_t rows,
                                                      Stream *s) {
    const int64_t IC = last_dim(dx);
    T *const dx_rows = (T *)element(dx, row * IC);
    const T *const pre_rows = (const T *)element(pre, row * IC);
    by_width<T>(IC, {dx_rows, pre_rows, sums}, [&](auto width) {
        by_activation(act, [&](auto activation) {
            typedef decltype(width) W;
            const unsigned blocks = (unsigned)ceil_div(rows * IC, BLOCK * W::value);
            LAUNCH((activate_backward_kernel<T, W::value, decltype(activation)::value>), blocks, BLOCK, 0, cuda_stream(s), dx_rows, sums,
                   pre_rows, (unsigned)(rows * IC));
        });
    });
}

static void backward_input_apart(Tensor dx, Tensor dout, Tensor w, Tensor pre, Activation act, Stream *s) {
    const int64_t IC = last_dim(dx), OC = last_dim(dout);
    by_rows(dx, [&](int64_t row, int64_t rows, float *sums) {
        Gemm g = product_of(element(dout, row * OC), 0, w.data, 0, dout.dtype, rows, IC, OC);
        g.D = sums;
        g.d_dtype = F32;
        plain_product(g, s);
        by_dtype(dx.dtype, [&](auto zero) { activate_backward_rows<decltype(zero)>(dx, sums, pre, act, row, rows, s); });
    });
}

void cuda_matmul_backward_input(Tensor dx, Tensor dout, Tensor w, Tensor pre, Activation act, Stream *s) {
    const int64_t N = rows_of(dx), IC = last_dim(dx), OC = last_dim(dout);
    if (N == 0 || IC == 0) return;
    Gemm g = product_of(dout.data, 0, w.data, 0, dout.dtype, N, IC, OC);
    g.D = dx.data;
    g.d_dtype = dx.dtype;
    if (act == ACT_NONE) {
        plain_product(g, s);
        return;
    }
    g.epilogue = GEMM_DGELU;
    g.aux = pre.data;
    const auto fused = [&] { return by_library(g, s); };
    const auto apart = [&] {
        backward_input_apart(dx, dout, w, pre, act, s);
        return 1;
    };
    if (may_fuse(dx.dtype, act)) gemm_either("dgelu", N, IC, OC, fused, apart, gemm_fuses_activations(), 1, s);
    else apart();
}

static void add_parts(Tensor db, const float *parts, int n, int64_t OC, int accumulate, cudaStream_t stream) {
    LAUNCH(add_parts_kernel, (unsigned)ceil_div(OC, 32), 32 * ADD_WARPS, 0, stream, (float *)db.data, parts, n, OC, accumulate);
}

/* db(OC) (+)= the column sums of dout(N,OC), in an order that depends on the shape alone. */
static void column_sums(Tensor db, Tensor dout, int64_t N, int64_t OC, int accumulate, cudaStream_t stream) {
    int64_t parts = 0;
    float *sums = NULL;
    by_dtype(dout.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        by_width<T>(OC, {dout.data}, [&](auto width) {
            typedef decltype(width) Width;
            constexpr int W = Width::value;
            const int64_t across = ceil_div(OC, 32 * W), blocks = ceil_div(SUM_BLOCKS, across), most = ceil_div(N, SUM_ROWS);
            const int64_t rows = ceil_div(N, blocks < most ? blocks : most > 0 ? most : 1);
            parts = N > 0 ? ceil_div(N, rows) : 0;
            sums = reduction_scratch((size_t)(parts * OC));
            if (parts > 0)
                LAUNCH((column_sums_kernel<T, Width::value>), dim3((unsigned)across, (unsigned)parts), BLOCK, 0, stream, sums,
                       (const T *)dout.data, N, OC, rows);
        });
    });
    add_parts(db, sums, (int)parts, OC, accumulate, stream);
}

void cuda_matmul_backward_weight(Tensor dw, Tensor db, Tensor dout, Tensor x, int accumulate, Stream *s) {
    const int64_t N = rows_of(x), IC = last_dim(x), OC = last_dim(dout);
    Gemm g = product_of(dout.data, 1, x.data, 0, x.dtype, OC, IC, N);
    g.D = dw.data;
    g.C = accumulate ? dw.data : NULL;
    g.d_dtype = F32;
    const auto apart = [&] {
        plain_product(g, s);
        if (db.data) column_sums(db, dout, N, OC, accumulate, cuda_stream(s));
        return 1;
    };
    const auto fused = [&] {   /* the library assigns bias gradients */
        float *sums = accumulate ? reduction_scratch((size_t)OC) : (float *)db.data;
        Gemm with_sums = g;
        with_sums.epilogue = GEMM_BIAS_GRADIENT;
        with_sums.bias_gradient = sums;
        if (!by_library(with_sums, s)) return 0;
        if (accumulate) add_parts(db, sums, 1, OC, 1, cuda_stream(s));
        return 1;
    };
    /* Whether the library adds its column sums in a fixed order, it does not say. */
    if (db.data && x.dtype == BF16 && !cuda_settings.deterministic) gemm_either("bias gradient", OC, IC, N, fused, apart, 0, !accumulate, s);
    else apart();
}
