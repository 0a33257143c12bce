/* flash.cu: causal softmax attention on tensor cores with no T x T tensor, forward and backward, after FlashAttention-2 (Dao 2023): bf16 in
   and out, fp32 softmax and sums.

   A block owns ROWS rows of one head, a warp 16 * M of them, and tiles of the other side stream by through shared memory, the next one on
   its way while one is worked on. The weights, a product's result in registers, are laid out as the next product wants its left side, so no
   weight ever leaves its thread:

       forward     rows are queries   S = Q K^T                     O += P V
       dQ          rows are queries   S = Q K^T     dP = dO V^T     dQ += dS K          with dS = P (dP - delta)
       dK, dV      rows are keys      S^T = K Q^T   dP^T = V dO^T   dV += P^T dO        dK += dS^T Q

   Tiles that no query of a warp sees are skipped, and only those on the diagonal are masked. Sums have one owner and a fixed order. Where
   the same bits are not asked for, the dK, dV kernel also adds dQ, by atomics into fp32 scratch: five products in place of seven.

   A head size that is no multiple of 32 is filled up with zeros in shared memory and registers. */
#include "cu.h"
#include "flash.cuh"

static constexpr float LOG2E = 1.4426950408889634f;
enum { ROWS = 128 };

/* D: head size, filled up. M: 16-row strips a warp has in the backward; the forward's warps have two. */
template <int D> struct Shape {
    static constexpr int STEPS = D / 16;                  /* of a product over the head size */
    static constexpr int PITCH = D + 8;                   /* of shared memory: an odd number of 16 bytes, so 8 rows meet all banks */
    static constexpr int LANES = D == 96 ? 16 : D / 8;    /* threads that load a row */
    static constexpr int M = D <= 64 ? 2 : 1;
    static constexpr int KEYS = D == 128 ? 32 : 64;       /* in a tile of the forward */
    static constexpr int QUERIES = D == 128 ? 32 : 64;    /* in a tile of the dK, dV kernel */
    static constexpr int DS_PITCH = QUERIES + 8;
    static constexpr int FORWARD_WARPS = ROWS / 32, BACKWARD_WARPS = ROWS / (16 * M);
    static constexpr int STRIPS = D == 64 ? 2 : 1, BANDS = QUERIES / (16 * STRIPS);   /* of dQ a warp has STRIPS strips, one of so many bands, */
    static constexpr int GROUPS = D / 8 * BANDS / BACKWARD_WARPS;                     /* and of that so many groups of 8 columns */
    static constexpr size_t ROW = PITCH * sizeof(bf16);
    static constexpr bool Q_IN_REGISTERS = D <= 64;
    static constexpr size_t FORWARD_BYTES = ROW * (4 * KEYS + (Q_IN_REGISTERS ? 0 : ROWS));
    static constexpr size_t DQ_BYTES = ROW * 4 * 64;
    static constexpr size_t DKV_BYTES = ROW * 4 * QUERIES + 4 * QUERIES * sizeof(float);
    static constexpr size_t KEYS_BYTES = ROW * ROWS, DS_BYTES = ROWS * DS_PITCH * sizeof(bf16);   /* what only some of its variants have */
};

/* The same for every block of a launch. What can be worked out before is: arguments cost no registers. */
struct FlashSizes {
    int B, T, NH, NKV, HS;
    int group;                    /* query heads that read the same keys */
    int qkv_stride, out_stride;   /* from row to row */
    float scale, scale_log2;      /* of scores, for exp and for 2^x */
    Dropout drop;
    uint32_t threshold;           /* of dropout, with kept, as in DropoutKey */
    float kept;
};

/* ---- who does what --------------------------------------------------------------------------------------------------------------- */

struct Work {
    int rank, b, h;   /* rank 0: the tile with most to do */
};
/* Blocks start in the order of their numbers. Heads are taken by sections whose streamed tensors stay in the second-level cache, and in a
   section the longest tiles of all heads come first, so that the short ones fill the gaps at the end. */
__device__ __forceinline__ Work work_of(int tiles, int heads, int section, int B) {
    const int first = blockIdx.x / (tiles * section) * section, i = blockIdx.x % (tiles * section);
    const int n = heads * B - first < section ? heads * B - first : section, head = first + i % n;
    return {i / n, head / heads, head % heads};
}

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_id() { return threadIdx.x / 32; }

/* ---- moving tiles ---------------------------------------------------------------------------------------------------------------- */

/* Asks for rows first .. first + COUNT - 1 (row t begins at rows + t * stride) in tile(COUNT, PITCH), and in place of rows beyond the last
   for earlier ones, so that no copy depends on a condition. What meets those weighs nothing: causal masks hide keys from all queries
   before them, and a query that is none has an infinite lse, or no result. A thread keeps to its column, if that is one. */
template <int D, int COUNT, int WARPS>
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *rows, int stride, int first, const FlashSizes &z) {
    constexpr int LANES = Shape<D>::LANES, AT_ONCE = 32 * WARPS / LANES;
    static_assert(COUNT % AT_ONCE == 0, "all threads work to the end");
    const int row = threadIdx.x / LANES, d = threadIdx.x % LANES * 8, t = first + row;
    const bf16 *from = rows + (int64_t)(t < z.T ? t : z.T - 1) * stride + d;
    bf16 *const to = tile + row * Shape<D>::PITCH + d;
    if (d >= z.HS) return;
#pragma unroll
    for (int n = 0; n < COUNT; n += AT_ONCE) {
        cp_async16(to + n * Shape<D>::PITCH, from);
        from += t + n + AT_ONCE < z.T ? AT_ONCE * stride : 0;
    }
}

/* Zeros in those columns of tile(COUNT, PITCH) that load_tile leaves alone. */
template <int D, int COUNT, int WARPS> __device__ __forceinline__ void clear_padding(bf16 *tile, const FlashSizes &z) {
    constexpr int LANES = Shape<D>::LANES, AT_ONCE = 32 * WARPS / LANES;
    const int d = threadIdx.x % LANES * 8;
    if (d < z.HS || d >= D) return;
#pragma unroll 1
    for (int row = threadIdx.x / LANES; row < COUNT; row += AT_ONCE)
        st128(tile + row * Shape<D>::PITCH + d, pack_of<bf16>(int4{0, 0, 0, 0}));
}

/* The left side of a product from device memory: the warp's rows first .. first + 16 * M - 1. */
template <int M, int D>
__device__ __forceinline__ void load_left(uint32_t (&a)[M][D / 16][4], const bf16 *rows, int stride, int first, const FlashSizes &z) {
    const int g = lane_id() / 4, c = lane_id() % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int row = first + 16 * m + 8 * (e % 2) + g, d = 16 * i + 8 * (e / 2) + c;
                a[m][i][e] = row < z.T && d < z.HS ? *reinterpret_cast<const uint32_t *>(rows + (int64_t)row * stride + d) : 0;
            }
}

__device__ __forceinline__ void copy4(uint32_t (&to)[4], const uint32_t (&from)[4]) {
    for (int e = 0; e < 4; e++) to[e] = from[e];
}

__device__ __forceinline__ uint32_t pack2(float a, float b) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    uint32_t bits;
    memcpy(&bits, &pair, 4);
    return bits;
}

/* The warp's rows first .. = o, row 16m + 8half + lane/4 times factors[m][half]. They go by way of `stage`, (16M, PITCH) of the warp's own,
   to leave 16 bytes a lane. */
template <int M, int D>
__device__ __forceinline__ void store_rows(bf16 *rows, int stride, int first, bf16 *stage, const float (&o)[M][D / 8][4],
                                           const float (&factors)[M][2], const FlashSizes &z) {
    constexpr int PITCH = Shape<D>::PITCH, UNITS = D / 8;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t *>(stage + (16 * m + 8 * half + lane_id() / 4) * PITCH + 8 * n + lane_id() % 4 * 2) =
                    pack2(o[m][n][2 * half] * factors[m][half], o[m][n][2 * half + 1] * factors[m][half]);
    __syncwarp();
    for (int i = lane_id(); i < 16 * M * UNITS; i += 32) {
        const int row = i / UNITS, d = i % UNITS * 8;
        if (first + row < z.T && d < z.HS) st128(rows + (int64_t)(first + row) * stride + d, ld128(stage + row * PITCH + d));
    }
    __syncwarp();   /* the next tensor may use stage again */
}

/* ---- products -------------------------------------------------------------------------------------------------------------------- */

/* s(16M, 8N) += a x^T over 16 columns of a and of x: x(8N rows, PITCH) points to the first of them. */
template <int M, int N, int PITCH>
__device__ __forceinline__ void add_scores(float (&s)[M][N][4], const uint32_t (&a)[M][4], const bf16 *x) {
    const bf16 *row = x + (lane_id() % 8 + lane_id() / 16 * 8) * PITCH + lane_id() / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, row + 8 * n * PITCH);
        const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_m16n8k16_bf16(s[m][n], a[m], left, s[m][n]);
            mma_m16n8k16_bf16(s[m][n + 1], a[m], right, s[m][n + 1]);
        }
    }
}

/* o(16M, 8N) += w x over 16 columns of w, which are rows of x(16 rows, PITCH). */
template <int M, int N, int PITCH>
__device__ __forceinline__ void add_rows(float (&o)[M][N][4], const uint32_t (&w)[M][4], const bf16 *x) {
    const bf16 *row = x + lane_id() % 16 * PITCH + lane_id() / 16 * 8;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, row + 8 * n);
        const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_m16n8k16_bf16(o[m][n], w[m], left, o[m][n]);
            mma_m16n8k16_bf16(o[m][n + 1], w[m], right, o[m][n + 1]);
        }
    }
}

/* Scores of pairs that do not see each other: those for which hidden(column group, element) holds. */
template <int N, class Hidden> __device__ __forceinline__ void hide(float (&s)[N][4], float value, Hidden hidden) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (hidden(n, e)) s[n][e] = value;
}

/* Columns 16i .. 16i + 15 of weights as the left side of a product. */
template <int M, int N> __device__ __forceinline__ void weights_left(uint32_t (&w)[M][4], const float (&s)[M][N][4], int i) {
#pragma unroll
    for (int m = 0; m < M; m++) {
        w[m][0] = pack2(s[m][2 * i][0], s[m][2 * i][1]);
        w[m][1] = pack2(s[m][2 * i][2], s[m][2 * i][3]);
        w[m][2] = pack2(s[m][2 * i + 1][0], s[m][2 * i + 1][1]);
        w[m][3] = pack2(s[m][2 * i + 1][2], s[m][2 * i + 1][3]);
    }
}

/* ---- dropout --------------------------------------------------------------------------------------------------------------------- */

struct Mask {
    uint64_t seed, first;   /* first: number of the head's first row of probabilities */
    uint32_t step;
};
__device__ __forceinline__ Mask mask_of(const FlashSizes &z, int b, int h) {
    const StepState &state = *z.drop.state;
    return {state.seed, ((uint64_t)(state.sample + b) * z.NH + h) * z.T, state.step};
}
/* Bit k: whether element 4 * block + k is kept. */
__device__ __forceinline__ uint32_t kept4(const Mask &mask, uint64_t block, const FlashSizes &z) {
    uint32_t words[4] = {(uint32_t)block, (uint32_t)(block >> 32), mask.step, z.drop.tensor}, bits = 0;
    philox(words, mask.seed);
    for (int k = 0; k < 4; k++) bits |= (uint32_t)(words[k] >= z.threshold) << k;
    return bits;
}
/* Of keys tk .. tk + 3 for query tq, where rows begin with a whole block; then of key tk alone. */
__device__ __forceinline__ uint32_t kept_keys(const Mask &mask, int tq, int tk, const FlashSizes &z) {
    return kept4(mask, ((mask.first + tq) * z.T + tk) >> 2, z);
}
__device__ __forceinline__ uint32_t kept_key(const Mask &mask, int tq, int tk, const FlashSizes &z) {
    const uint64_t i = (mask.first + tq) * z.T + tk;
    return kept4(mask, i >> 2, z) >> (i & 3) & 1;
}

/* Which of the thread's elements of a strip of scores (16, 8N) are kept: bit 4n + e for element e of column group n. A Philox block covers
   four neighbouring keys. Where rows begin with a whole block, the lanes that share blocks work out one each and exchange the bits. Here
   rows are queries. */
template <int N> __device__ __forceinline__ uint32_t kept_of_queries(const Mask &mask, int tq, int tk, const FlashSizes &z) {
    const int g = lane_id() / 4, t = lane_id() % 4;
    uint32_t own = 0;
    if (z.T % 4 != 0) {
#pragma unroll 1
        for (int i = 0; i < 4 * N; i++) own |= kept_key(mask, tq + g + 8 * (i / 2 % 2), tk + i / 4 * 8 + 2 * t + i % 2, z) << i;
        return own;
    }
#pragma unroll 1
    for (int n = 0; n < N; n++) own |= kept_keys(mask, tq + g + 8 * (t % 2), tk + 8 * n + 4 * (t / 2), z) << (4 * n);
    const uint32_t other = __shfl_xor_sync(0xffffffffu, own, 1), low = 0x33333333u;
    return t % 2 ? (other >> 2 & low) | (own & ~low) : (own & low) | (other & low) << 2;
}
/* The same where rows are keys. */
template <int N> __device__ __forceinline__ uint32_t kept_of_keys(const Mask &mask, int tq, int tk, const FlashSizes &z) {
    const int g = lane_id() / 4, t = lane_id() % 4, r = g % 4;
    uint32_t own = 0, kept = 0;
    if (z.T % 4 != 0) {
#pragma unroll 1
        for (int i = 0; i < 4 * N; i++) own |= kept_key(mask, tq + i / 4 * 8 + 2 * t + i % 2, tk + g + 8 * (i / 2 % 2), z) << i;
        return own;
    }
#pragma unroll 1
    for (int n = 0; n < N; n++) own |= kept_keys(mask, tq + 8 * n + 2 * t + r % 2, tk + g - r + 8 * (r / 2), z) << (4 * n);
#pragma unroll
    for (int j = 0; j < 4; j++) kept |= (__shfl_xor_sync(0xffffffffu, own, 4 * j) >> r & 0x11111111u) << (r ^ j);
    return kept;
}

/* ---- forward --------------------------------------------------------------------------------------------------------------------- */

/* Turns scores (as Q K^T gives them) into exp(scale * (score - top)), with top raised to the greatest so far; sum and o shrink along.
   scale_log2 is scale * log2(e). sum is of this thread's columns only. */
template <int M, int N, int D>
__device__ __forceinline__ void online_softmax(float (&s)[M][N][4], float (&top)[M][2], float (&sum)[M][2], float (&o)[M][D / 8][4],
                                               float scale_log2) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float highest = top[m][half];
#pragma unroll
            for (int n = 0; n < N; n++) highest = fmaxf(highest, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
            const float above = highest * scale_log2, shrink = exp2_approximate(top[m][half] * scale_log2 - above);
            top[m][half] = highest;
            float total = 0;
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[m][n][e] = exp2_approximate(fmaf(s[m][n][e], scale_log2, -above));
                    total += s[m][n][e];
                }
            sum[m][half] = sum[m][half] * shrink + total;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                o[m][n][2 * half] *= shrink;
                o[m][n][2 * half + 1] *= shrink;
            }
        }
}

/* out(B,T,NH,HS), lse(B,NH,T) from qkv(B,T,NH+2NKV,HS). */
template <int D, bool DROPPED>
__global__ void __launch_bounds__(32 * Shape<D>::FORWARD_WARPS, 2)
flash_forward_kernel(bf16 *out, float *lse, const bf16 *qkv, FlashSizes z, int section) {
    typedef Shape<D> S;
    constexpr int M = 2, KEYS = S::KEYS, N = KEYS / 8, PITCH = S::PITCH, STEPS = S::STEPS, WARPS = S::FORWARD_WARPS;
    SMEM_CARVER(shared);
    bf16 *const tiles = shared.take<bf16>(4 * KEYS * PITCH), *const q_tile = S::Q_IN_REGISTERS ? tiles : shared.take<bf16>(ROWS * PITCH);
    const int row_tiles = (z.T + ROWS - 1) / ROWS;
    const Work work = work_of(row_tiles, z.NH, section, z.B);
    const int first = (row_tiles - 1 - work.rank) * ROWS, own = first + 32 * warp_id(), end = first + ROWS < z.T ? first + ROWS : z.T;
    const int stride = z.qkv_stride;
    const int64_t sample = (int64_t)work.b * z.T * stride;
    const bf16 *q = qkv + sample + work.h * z.HS, *k = qkv + sample + (z.NH + work.h / z.group) * z.HS, *v = k + z.NKV * z.HS;
    const Mask mask = DROPPED ? mask_of(z, work.b, work.h) : Mask();

    uint32_t a[M][S::Q_IN_REGISTERS ? STEPS : 1][4];
    if constexpr (S::Q_IN_REGISTERS) load_left<M, D>(a, q, stride, own, z);
    else {
        clear_padding<D, ROWS, WARPS>(q_tile, z);
        load_tile<D, ROWS, WARPS>(q_tile, q, stride, first, z);
    }
    clear_padding<D, 4 * KEYS, WARPS>(tiles, z);
    load_tile<D, KEYS, WARPS>(tiles, k, stride, 0, z);
    load_tile<D, KEYS, WARPS>(tiles + KEYS * PITCH, v, stride, 0, z);
    cp_async_commit();

    float o[M][D / 8][4] = {}, top[M][2], sum[M][2] = {};
    for (int m = 0; m < M; m++) top[m][0] = top[m][1] = -INFINITY;
    for (int key = 0, stage = 0; key < end; key += KEYS, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();   /* this tile is there, and nobody reads the other stage any more */
        if (key + KEYS < end) {
            bf16 *const next = tiles + (stage ^ 1) * 2 * KEYS * PITCH;
            load_tile<D, KEYS, WARPS>(next, k, stride, key + KEYS, z);
            load_tile<D, KEYS, WARPS>(next + KEYS * PITCH, v, stride, key + KEYS, z);
            cp_async_commit();
        }
        if (key > own + 16 * M - 1) continue;
        const bf16 *const k_tile = tiles + stage * 2 * KEYS * PITCH, *const v_tile = k_tile + KEYS * PITCH;
        float s[M][N][4] = {};
#pragma unroll D <= 96 ? STEPS : 1
        for (int i = 0; i < STEPS; i++) {
            const bf16 *const q_row = q_tile + (32 * warp_id() + lane_id() % 16) * PITCH + 16 * i + lane_id() / 16 * 8;
            uint32_t left[M][4];
            for (int m = 0; m < M; m++) {
                if constexpr (S::Q_IN_REGISTERS) copy4(left[m], a[m][i]);
                else ldmatrix_x4(left[m], q_row + 16 * m * PITCH);
            }
            add_scores<M, N, PITCH>(s, left, k_tile + 16 * i);
        }
        if (key + KEYS - 1 > own)
#pragma unroll
            for (int m = 0; m < M; m++) {
                /* The last column that the thread's first row sees. */
                const int seen = own + 16 * m + lane_id() / 4 - (key + lane_id() % 4 * 2);
                hide(s[m], -INFINITY, [&](int n, int e) { return 8 * n + e % 2 > seen + 8 * (e / 2); });
            }
        online_softmax<M, N, D>(s, top, sum, o, z.scale_log2);
        if (DROPPED)
#pragma unroll
            for (int m = 0; m < M; m++) {
                const uint32_t kept = kept_of_queries<N>(mask, own + 16 * m, key, z);
#pragma unroll
                for (int i = 0; i < 4 * N; i++) s[m][i / 4][i % 4] *= kept >> i & 1 ? z.kept : 0.0f;
            }
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            uint32_t left[M][4];
            weights_left(left, s, i);
            add_rows<M, D / 8, PITCH>(o, left, v_tile + 16 * i * PITCH);
        }
    }
    __syncthreads();   /* the tiles become the way out */
    for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++) {
            float total = sum[m][half] + __shfl_xor_sync(0xffffffffu, sum[m][half], 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            const int t = own + 16 * m + 8 * half + lane_id() / 4;
            if (lane_id() % 4 == 0 && t < z.T) lse[(int64_t)(work.b * z.NH + work.h) * z.T + t] = top[m][half] * z.scale + logf(total);
            sum[m][half] = 1.0f / total;
        }
    store_rows<M, D>(out + ((int64_t)work.b * z.T * z.NH + work.h) * z.HS, z.out_stride, own, tiles + 32 * warp_id() * PITCH, o, sum, z);
}

/* ---- backward -------------------------------------------------------------------------------------------------------------------- */

/* From scores s and products dp = dO V^T of one strip: s becomes p * keep, and dp the gradient p * (keep * dp - delta) of the scaled
   scores, with p = exp(scale * s - lse). log_sum is lse * log2(e); log_sum and delta are functions of the element. */
template <int N, class LogSum, class Delta>
__device__ __forceinline__ void softmax_backward(float (&s)[N][4], float (&dp)[N][4], float scale_log2, uint32_t kept, float kept_scale,
                                                 LogSum log_sum, Delta delta) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float keep = kept >> (4 * n + e) & 1 ? kept_scale : 0.0f;
            const float p = exp2_approximate(fmaf(s[n][e], scale_log2, -log_sum(n, e)));
            s[n][e] = p * keep;
            dp[n][e] = p * (keep * dp[n][e] - delta(n, e));
        }
}

/* dQ within dqkv(B,T,NH+2NKV,HS). */
template <int D, bool DROPPED>
__global__ void __launch_bounds__(32 * Shape<D>::BACKWARD_WARPS, Shape<D>::M)
flash_dq_kernel(bf16 *dqkv, const float *delta, const bf16 *dout, const float *lse, const bf16 *qkv, FlashSizes z, int section) {
    typedef Shape<D> S;
    constexpr int M = S::M, KEYS = 64, PITCH = S::PITCH, STEPS = S::STEPS, WARPS = S::BACKWARD_WARPS;
    constexpr int CHUNK = D <= 64 ? 32 : 16, N = CHUNK / 8;   /* keys at a time: what registers hold */
    SMEM_CARVER(shared);
    bf16 *const tiles = shared.take<bf16>(4 * KEYS * PITCH);
    const int row_tiles = (z.T + ROWS - 1) / ROWS;
    const Work work = work_of(row_tiles, z.NH, section, z.B);
    const int first = (row_tiles - 1 - work.rank) * ROWS, own = first + 16 * M * warp_id(), end = first + ROWS < z.T ? first + ROWS : z.T;
    const int stride = z.qkv_stride;
    const int64_t sample = (int64_t)work.b * z.T * stride, head = (int64_t)work.b * z.NH + work.h;
    const bf16 *k = qkv + sample + (z.NH + work.h / z.group) * z.HS, *v = k + z.NKV * z.HS;
    const Mask mask = DROPPED ? mask_of(z, work.b, work.h) : Mask();

    clear_padding<D, 4 * KEYS, WARPS>(tiles, z);
    load_tile<D, KEYS, WARPS>(tiles, k, stride, 0, z);
    load_tile<D, KEYS, WARPS>(tiles + KEYS * PITCH, v, stride, 0, z);
    cp_async_commit();
    uint32_t q[M][STEPS][4], d_o[M][STEPS][4];
    load_left<M, D>(q, qkv + sample + work.h * z.HS, stride, own, z);
    load_left<M, D>(d_o, dout + ((int64_t)work.b * z.T * z.NH + work.h) * z.HS, z.out_stride, own, z);
    float log_sum[M][2], row_delta[M][2], dq[M][D / 8][4] = {};
    for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++) {
            const int t = own + 16 * m + 8 * half + lane_id() / 4;
            log_sum[m][half] = t < z.T ? lse[head * z.T + t] * LOG2E : INFINITY;   /* a row that is none weighs nothing */
            row_delta[m][half] = t < z.T ? delta[head * z.T + t] : 0.0f;
        }
    for (int key = 0, stage = 0; key < end; key += KEYS, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();   /* this tile is there, and nobody reads the other stage any more */
        if (key + KEYS < end) {
            bf16 *const next = tiles + (stage ^ 1) * 2 * KEYS * PITCH;
            load_tile<D, KEYS, WARPS>(next, k, stride, key + KEYS, z);
            load_tile<D, KEYS, WARPS>(next + KEYS * PITCH, v, stride, key + KEYS, z);
            cp_async_commit();
        }
#pragma unroll 1
        for (int c = 0; c < KEYS && key + c < own + 16 * M; c += CHUNK) {
            const bf16 *const k_rows = tiles + (stage * 2 * KEYS + c) * PITCH, *const v_rows = k_rows + KEYS * PITCH;
            float s[M][N][4] = {}, dp[M][N][4] = {};
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                uint32_t left[M][4];
                for (int m = 0; m < M; m++) copy4(left[m], q[m][i]);
                add_scores<M, N, PITCH>(s, left, k_rows + 16 * i);
                for (int m = 0; m < M; m++) copy4(left[m], d_o[m][i]);
                add_scores<M, N, PITCH>(dp, left, v_rows + 16 * i);
            }
            const bool diagonal = key + c + CHUNK - 1 > own;
#pragma unroll
            for (int m = 0; m < M; m++) {
                if (diagonal) {
                    const int seen = own + 16 * m + lane_id() / 4 - (key + c + lane_id() % 4 * 2);
                    auto hidden = [&](int n, int e) { return 8 * n + e % 2 > seen + 8 * (e / 2); };
                    hide(s[m], -INFINITY, hidden);
                    hide(dp[m], 0, hidden);
                }
                const uint32_t kept = DROPPED ? kept_of_queries<N>(mask, own + 16 * m, key + c, z) : ~0u;
                softmax_backward(s[m], dp[m], z.scale_log2, kept, DROPPED ? z.kept : 1.0f,
                                 [&](int, int e) { return log_sum[m][e / 2]; }, [&](int, int e) { return row_delta[m][e / 2]; });
            }
#pragma unroll
            for (int i = 0; i < CHUNK / 16; i++) {
                uint32_t left[M][4];
                weights_left(left, dp, i);
                add_rows<M, D / 8, PITCH>(dq, left, k_rows + 16 * i * PITCH);
            }
        }
    }
    __syncthreads();   /* the tiles become the way out */
    for (int m = 0; m < M; m++) log_sum[m][0] = log_sum[m][1] = z.scale;
    store_rows<M, D>(dqkv + sample + work.h * z.HS, stride, own, tiles + 16 * M * warp_id() * PITCH, dq, log_sum, z);
}

/* dQ's fp32 sums lie as a warp has them: tile by tile of QUERIES queries of a head, in it warp by warp, 128 floats for each column group: of
   element e of lane l, float 32e + l. So a warp adds to 32 neighbours at a time, without conditions: the last tile has room for all rows. */
template <int D> __host__ __device__ __forceinline__ int64_t dq_tiles(int T) { return (T + Shape<D>::QUERIES - 1) / Shape<D>::QUERIES; }
template <int D> __host__ __device__ __forceinline__ int64_t dq_tile(const FlashSizes &z, int b, int h, int query) {
    return (((int64_t)b * z.NH + h) * dq_tiles<D>(z.T) + query / Shape<D>::QUERIES) * Shape<D>::QUERIES * D;
}

/* tile(QUERIES, D) += dS K, laid out as above: ds(ROWS keys, QUERIES) holds dS^T, k_tile(ROWS, PITCH) K. Each warp takes some queries and
   a share of the columns. */
template <int D> __device__ __forceinline__ void add_dq(float *tile, const bf16 *ds, const bf16 *k_tile) {
    typedef Shape<D> S;
    static_assert(S::GROUPS % 2 == 0, "a warp's share is whole pairs of column groups");
    const int query = warp_id() % S::BANDS * 16 * S::STRIPS, column = warp_id() / S::BANDS * 8 * S::GROUPS;
    float dq[S::STRIPS][S::GROUPS][4] = {};
    const bf16 *const ds_row = ds + (lane_id() % 8 + lane_id() / 16 * 8) * S::DS_PITCH + query + lane_id() / 8 % 2 * 8;
#pragma unroll
    for (int key = 0; key < ROWS; key += 16) {
        uint32_t left[S::STRIPS][4];
        for (int m = 0; m < S::STRIPS; m++) ldmatrix_x4_trans(left[m], ds_row + key * S::DS_PITCH + 16 * m);
        add_rows<S::STRIPS, S::GROUPS, S::PITCH>(dq, left, k_tile + key * S::PITCH + column);
    }
    float *const own = tile + warp_id() * 128 * S::STRIPS * S::GROUPS + lane_id();
#pragma unroll
    for (int i = 0; i < S::STRIPS * S::GROUPS; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) atomicAdd(own + 128 * i + 32 * e, dq[i / S::GROUPS][i % S::GROUPS][e]);
}

/* dK and dV within dqkv(B,T,NH+2NKV,HS), summed over the query heads that read them. With ATOMIC, dQ / scale is added to dq_sum. */
template <int D, bool DROPPED, bool ATOMIC>
__global__ void __launch_bounds__(32 * Shape<D>::BACKWARD_WARPS, Shape<D>::M)
flash_dkv_kernel(bf16 *dqkv, float *dq_sum, const float *delta, const bf16 *dout, const float *lse, const bf16 *qkv, FlashSizes z,
                 int section) {
    typedef Shape<D> S;
    constexpr int M = S::M, QUERIES = S::QUERIES, PITCH = S::PITCH, STEPS = S::STEPS, WARPS = S::BACKWARD_WARPS;
    constexpr int CHUNK = 16, N = CHUNK / 8;   /* queries at a time: what registers hold */
    SMEM_CARVER(shared);
    bf16 *const tiles = shared.take<bf16>(4 * QUERIES * PITCH);
    float *const statistics = shared.take<float>(4 * QUERIES);   /* of each stage's queries: lse * log2(e), delta */
    constexpr bool KEYS_SHARED = DROPPED || ATOMIC;   /* K lies in shared memory, for want of registers */
    bf16 *const k_tile = KEYS_SHARED ? shared.take<bf16>(ROWS * PITCH) : nullptr;
    bf16 *const ds = ATOMIC ? shared.take<bf16>(ROWS * S::DS_PITCH) : nullptr;
    SHARED(Work, place, );   /* what is wanted once a tile is worked out anew from this: registers are for the sums */
    const Work work = work_of((z.T + ROWS - 1) / ROWS, z.NKV, section, z.B);
    if (threadIdx.x == 0) place = work;
    auto first_of = [&](const Work &w) { return w.rank * ROWS; };
    auto own_of = [&](const Work &w) { return w.rank * ROWS + 16 * M * warp_id(); };
    auto k_of = [&](const Work &w) { return (int64_t)w.b * z.T * z.qkv_stride + (z.NH + w.h) * z.HS; };
    auto v_of = [&](const Work &w) { return (int64_t)w.b * z.T * z.qkv_stride + (z.NH + z.NKV + w.h) * z.HS; };

    /* Tiles come by query heads, and within a head by position, beginning with that of the first key. At the tile to be loaded next, its
       own included: heads to come, and queries of its head. */
    int heads = z.group, left = z.T - first_of(work);
    auto load_queries = [&](int stage, const Work &w) {
        bf16 *const to = tiles + stage * 2 * QUERIES * PITCH;
        const int head = (w.h + 1) * z.group - heads;
        const bf16 *const q = qkv + (int64_t)(w.b * z.T) * z.qkv_stride + head * z.HS;
        const bf16 *const d_o = dout + (int64_t)(w.b * z.T) * z.out_stride + head * z.HS;
        load_tile<D, QUERIES, WARPS>(to, q, z.qkv_stride, z.T - left, z);
        load_tile<D, QUERIES, WARPS>(to + QUERIES * PITCH, d_o, z.out_stride, z.T - left, z);
        cp_async_commit();
    };
    /* The thread's own statistic of a tile: lse or delta. A query that is none weighs nothing. */
    auto load_statistic = [&](const Work &w) {
        const int64_t end = (int64_t)(w.b * z.NH + (w.h + 1) * z.group - heads + 1) * z.T;
        const float *const all = threadIdx.x % 2 ? delta : lse;
        if (threadIdx.x < 2 * QUERIES && (int)threadIdx.x / 2 < left) return all[end - left + threadIdx.x / 2];
        return threadIdx.x % 2 ? 0.0f : INFINITY;
    };
    auto store_statistic = [&](int stage, float value) {
        if (threadIdx.x < 2 * QUERIES) statistics[stage * 2 * QUERIES + threadIdx.x] = threadIdx.x % 2 ? value : value * LOG2E;
    };
    auto move_on = [&](int queries) {   /* queries: of a head, for this block */
        left -= QUERIES;
        if (left <= 0) {
            left = queries;
            heads--;
        }
    };

    /* After moving on, the head of the tile before: where all queries are left, a head begins. */
    auto tile_head = [&]() { return (place.h + 1) * z.group - heads - (left == z.T - first_of(place)); };

    clear_padding<D, 4 * QUERIES, WARPS>(tiles, z);
    if (KEYS_SHARED) clear_padding<D, ROWS, WARPS>(k_tile, z);
    if (KEYS_SHARED) load_tile<D, ROWS, WARPS>(k_tile, qkv + k_of(work), z.qkv_stride, first_of(work), z);
    load_queries(0, work);
    store_statistic(0, load_statistic(work));
    uint32_t k[M][STEPS][4], v[M][STEPS][4];
    if (!KEYS_SHARED) load_left<M, D>(k, qkv + k_of(work), z.qkv_stride, own_of(work), z);
    load_left<M, D>(v, qkv + v_of(work), z.qkv_stride, own_of(work), z);
    float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {};
    for (int stage = 0; heads > 0; stage ^= 1) {
        const bf16 *const q_tile = tiles + stage * 2 * QUERIES * PITCH;
        const float *const tile_statistics = statistics + stage * 2 * QUERIES;
        float next_statistic = 0;
        cp_async_wait<0>();
        __syncthreads();   /* this tile is there, and nobody reads the other stage, or ds, any more */
        int ahead = own_of(place) - z.T + left;   /* from the first query of a chunk to the warp's first key */
        move_on(z.T - first_of(place));
        if (heads > 0) {
            load_queries(stage ^ 1, place);
            next_statistic = load_statistic(place);   /* used only after this tile, when it has long arrived */
        }
#pragma unroll 1
        for (int c = 0; c < QUERIES; c += CHUNK, ahead -= CHUNK) {
            const bool unseen = ahead > CHUNK - 1, diagonal = ahead > 1 - 16 * M;
            const bf16 *const q_rows = q_tile + c * PITCH, *const dout_rows = q_rows + QUERIES * PITCH;
            float s[M][N][4] = {}, dp[M][N][4] = {};
            uint32_t left[M][4] = {};   /* dS^T, rounded */
            if (!unseen) {
                uint32_t kept = DROPPED ? 0 : ~0u;   /* 4N bits a strip, worked out while s and dp take no registers */
                if (DROPPED) {
                    const Mask mask = mask_of(z, place.b, tile_head());
#pragma unroll 1
                    for (int m = 0; m < M; m++)
                        kept |= kept_of_keys<N>(mask, own_of(place) - ahead, own_of(place) + 16 * m, z) << (4 * N * m);
                }
#pragma unroll
                for (int i = 0; i < STEPS; i++) {
                    for (int m = 0; m < M; m++)
                        if (KEYS_SHARED)
                            ldmatrix_x4(left[m], k_tile + (16 * (M * warp_id() + m) + lane_id() % 16) * PITCH + 16 * i + lane_id() / 16 * 8);
                        else copy4(left[m], k[m][i]);
                    add_scores<M, N, PITCH>(s, left, q_rows + 16 * i);
                    for (int m = 0; m < M; m++) copy4(left[m], v[m][i]);
                    add_scores<M, N, PITCH>(dp, left, dout_rows + 16 * i);
                }
                Pack<float> of_columns[N];   /* statistics of the thread's two queries of each column group */
                for (int n = 0; n < N; n++) of_columns[n] = ld128(tile_statistics + 2 * (c + 8 * n + lane_id() % 4 * 2));
#pragma unroll
                for (int m = 0; m < M; m++) {
                    if (diagonal) {
                        /* The first column that sees the thread's first row. */
                        const int seen = ahead + 16 * m + lane_id() / 4 - lane_id() % 4 * 2;
                        auto hidden = [&](int n, int e) { return 8 * n + e % 2 < seen + 8 * (e / 2); };
                        hide(s[m], -INFINITY, hidden);
                        hide(dp[m], 0, hidden);
                    }
                    softmax_backward(s[m], dp[m], z.scale_log2, kept >> (4 * N * m), DROPPED ? z.kept : 1.0f,
                                     [&](int n, int e) { return of_columns[n].v[e % 2 * 2]; },
                                     [&](int n, int e) { return of_columns[n].v[e % 2 * 2 + 1]; });
                }
                weights_left(left, s, 0);
                add_rows<M, D / 8, PITCH>(dv, left, dout_rows);
                weights_left(left, dp, 0);
                add_rows<M, D / 8, PITCH>(dk, left, q_rows);
            }
            if (ATOMIC)
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < 2 * N; i++) {
                        const int row = 16 * (M * warp_id() + m) + 8 * (i % 2) + lane_id() / 4, column = c + i / 2 * 8 + lane_id() % 4 * 2;
                        *reinterpret_cast<uint32_t *>(ds + row * S::DS_PITCH + column) = left[m][i];
                    }
        }
        store_statistic(stage ^ 1, next_statistic);
        if (ATOMIC) {
            __syncthreads();
            add_dq<D>(dq_sum + dq_tile<D>(z, place.b, tile_head(), own_of(place) - ahead - QUERIES), ds, k_tile);
        }
    }
    __syncthreads();   /* the tiles become the way out */
    float factors[M][2];
    for (int m = 0; m < M; m++) factors[m][0] = factors[m][1] = 1;
    bf16 *const way_out = tiles + 16 * M * warp_id() * PITCH;
    store_rows<M, D>(dqkv + v_of(place), z.qkv_stride, own_of(place), way_out, dv, factors, z);
    for (int m = 0; m < M; m++) factors[m][0] = factors[m][1] = z.scale;
    store_rows<M, D>(dqkv + k_of(place), z.qkv_stride, own_of(place), way_out, dk, factors, z);
}

enum { ROUND_BLOCK = 256 };

/* dQ within dqkv(B,T,NH+2NKV,HS) = scale * dq_sum. A thread has 8 columns of two queries that are 8 apart: what four lanes added. */
template <int D> __global__ void __launch_bounds__(ROUND_BLOCK) round_dq_kernel(bf16 *dqkv, const float *dq_sum, FlashSizes z) {
    typedef Shape<D> S;
    const int64_t item = (int64_t)blockIdx.x * ROUND_BLOCK + threadIdx.x;
    const int group = item % (D / 8), g = item / (D / 8) % 8, strip = item / D % (S::QUERIES / 16), column = 8 * group;
    const int tiles = dq_tiles<D>(z.T);
    const int64_t tile = item / (D * S::QUERIES / 16), head = tile / tiles;
    const int t = tile % tiles * S::QUERIES + 16 * strip + g;
    if (head >= (int64_t)z.B * z.NH || t >= z.T || column >= z.HS) return;
    const int warp = strip / S::STRIPS + group / S::GROUPS * S::BANDS, place = (warp * S::STRIPS + strip % S::STRIPS) * S::GROUPS;
    const float *const sums = dq_sum + tile * S::QUERIES * D + (place + group % S::GROUPS) * 128 + 4 * g;
    bf16 *const row = dqkv + (head / z.NH * z.T + t) * z.qkv_stride + head % z.NH * z.HS + column;
    Pack<float> lanes[4];
    for (int e = 0; e < 4; e++) lanes[e] = ld128_stream(sums + 32 * e);
    for (int half = 0; half < 2 && t + 8 * half < z.T; half++) {
        Pack<bf16> rounded;
        for (int i = 0; i < 8; i++) rounded.v[i] = from_float<bf16>(lanes[2 * half + i % 2].v[i / 2] * z.scale);
        st128_stream(row + (int64_t)8 * half * z.qkv_stride, rounded);   /* nvcc takes plain ones apart, into stores of 32 bits */
    }
}

/* ---- host ------------------------------------------------------------------------------------------------------------------------ */

int flash_can(int HS) { return HS % 8 == 0 && HS <= 128; }

static FlashSizes flash_sizes(Tensor qkv, int NH, int NKV, Dropout drop) {
    const int64_t B = qkv.shape[0], T = qkv.shape[1], HS = tensor_numel(qkv) / (B * T * (NH + 2 * NKV));
    const float scale = 1.0f / sqrtf((float)HS);
    FlashSizes z = {};
    z.B = (int)B, z.T = (int)T, z.NH = NH, z.NKV = NKV, z.HS = (int)HS, z.group = NH / NKV;
    z.qkv_stride = (NH + 2 * NKV) * z.HS, z.out_stride = NH * z.HS;
    z.scale = scale, z.scale_log2 = scale * LOG2E;
    z.drop = drop, z.threshold = dropout_threshold(drop.p), z.kept = 1.0f / (1.0f - drop.p);
    return z;
}

/* So many heads at a time that what streams by, two tensors a head, takes 16 MiB of the second-level cache. */
static int section_of(const FlashSizes &z, int heads) {
    const int64_t n = (16 << 20) / (4 * (int64_t)z.T * z.HS) + 1;
    return (int)(n < (int64_t)heads * z.B ? n : (int64_t)heads * z.B);
}

template <int D, bool DROPPED> static void launch_forward(Tensor out, Tensor lse, Tensor qkv, const FlashSizes &z, Stream *s) {
    typedef Shape<D> S;
    const unsigned grid = (unsigned)(ceil_div(z.T, ROWS) * z.NH * z.B);
    allow_shared_memory(flash_forward_kernel<D, DROPPED>, S::FORWARD_BYTES);
    LAUNCH((flash_forward_kernel<D, DROPPED>), grid, 32 * S::FORWARD_WARPS, S::FORWARD_BYTES, cuda_stream(s), (bf16 *)out.data,
           (float *)lse.data, (const bf16 *)qkv.data, z, section_of(z, z.NH));
}

template <int D, bool DROPPED, bool ATOMIC>
static void launch_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor lse, Tensor qkv, Tensor scratch, const FlashSizes &z,
                            Stream *s) {
    typedef Shape<D> S;
    const int64_t tiles = ceil_div(z.T, ROWS) * z.B;
    const size_t bytes = S::DKV_BYTES + (DROPPED || ATOMIC ? S::KEYS_BYTES : 0) + (ATOMIC ? S::DS_BYTES : 0);
    bf16 *const grad = (bf16 *)dqkv.data;
    float *const dq_sum = (float *)scratch.data;
    if (ATOMIC) CUDA_CHECK(cudaMemsetAsync(dq_sum, 0, (size_t)dq_tile<D>(z, z.B, 0, 0) * sizeof(float), cuda_stream(s)));
    allow_shared_memory(flash_dkv_kernel<D, DROPPED, ATOMIC>, bytes);
    LAUNCH((flash_dkv_kernel<D, DROPPED, ATOMIC>), (unsigned)(tiles * z.NKV), 32 * S::BACKWARD_WARPS, bytes, cuda_stream(s), grad, dq_sum,
           (const float *)delta.data, (const bf16 *)dout.data, (const float *)lse.data, (const bf16 *)qkv.data, z, section_of(z, z.NKV));
    if constexpr (ATOMIC) {
        const unsigned grid = (unsigned)ceil_div(dq_tile<D>(z, z.B, 0, 0) / 16, ROUND_BLOCK);
        LAUNCH((round_dq_kernel<D>), grid, ROUND_BLOCK, 0, cuda_stream(s), grad, (const float *)dq_sum, z);
    } else {
        allow_shared_memory(flash_dq_kernel<D, DROPPED>, S::DQ_BYTES);
        LAUNCH((flash_dq_kernel<D, DROPPED>), (unsigned)(tiles * z.NH), 32 * S::BACKWARD_WARPS, S::DQ_BYTES, cuda_stream(s), grad,
               (const float *)delta.data, (const bf16 *)dout.data, (const float *)lse.data, (const bf16 *)qkv.data, z, section_of(z, z.NH));
    }
}

/* Calls f with the head size, filled up, and with whether there is dropout, as types. */
template <int N> struct Constant {
    static constexpr int value = N;
};
template <class F> static void by_shape(const FlashSizes &z, F f) {
    auto with = [&](auto D) {
        if (z.drop.p > 0) f(D, Constant<1>());
        else f(D, Constant<0>());
    };
    if (z.HS <= 32) with(Constant<32>());
    else if (z.HS <= 64) with(Constant<64>());
    else if (z.HS <= 96) with(Constant<96>());
    else with(Constant<128>());
}

void flash_forward(Tensor out, Tensor lse, Tensor qkv, int NH, int NKV, Dropout drop, Stream *s) {
    const FlashSizes z = flash_sizes(qkv, NH, NKV, drop);
    by_shape(z, [&](auto D, auto dropped) { launch_forward<decltype(D)::value, decltype(dropped)::value>(out, lse, qkv, z, s); });
}

size_t flash_scratch(int64_t B, int64_t T, int NH, int HS) {
    FlashSizes z = {};
    int64_t floats = 0;
    z.T = (int)T, z.NH = NH, z.HS = HS;
    by_shape(z, [&](auto D, auto) { floats = dq_tile<decltype(D)::value>(z, (int)B, 0, 0); });
    return cuda_settings.deterministic ? 0 : (size_t)floats * sizeof(float);
}

void flash_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Dropout drop,
                    Stream *s) {
    const FlashSizes z = flash_sizes(qkv, NH, NKV, drop);
    by_shape(z, [&](auto D, auto dropped) {
        constexpr int SIZE = decltype(D)::value, DROPPED = decltype(dropped)::value;
        if (cuda_settings.deterministic) launch_backward<SIZE, DROPPED, false>(dqkv, delta, dout, lse, qkv, scratch, z, s);
        else launch_backward<SIZE, DROPPED, true>(dqkv, delta, dout, lse, qkv, scratch, z, s);
    });
}
