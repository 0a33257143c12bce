/* qk_norm.cu: RMSNorm of every query and key head (Henry et al. 2020), and then its rotation (Su et al. 2021). A head stays in registers
   of the few threads that share it, so that each tensor crosses the memory bus once. */
#include "packs.cuh"
#include "rope.cuh"

#include <assert.h>

enum { BLOCK = 128 };

/* How a head is cut up. A team of neighbouring threads shares it; a thread has K of its elements in pieces of P, and the K cosines and
   sines that turn them in pieces of Turns. Element e of a thread stands at place(e) of the head, if present(e). Elements first(i) and
   second(i) make a pair; number turn_place(2i) of the position's rotation is its cosine, the next its sine. A team takes ..._HEADS heads of
   a row at once, which turn by the same numbers; ..._BLOCKS blocks are to share a multiprocessor. */

/* For heads whose halves are whole packs: the same pack of both halves, which are whole pairs in either layout. Where a half is not a power
   of two of packs, the last threads of a team have nothing. */
template <class E_, RopeLayout LAYOUT> struct HalvesCut {
    typedef E_ E;
    typedef Vec<E> P;
    typedef Vec<float> Turns;
    static constexpr int N = P::N, K = 2 * N, FORWARD_HEADS = 4, FORWARD_BLOCKS = 5, BACKWARD_HEADS = 2, BACKWARD_BLOCKS = 4;
    int HS, thread;

    static int team(int HS) {
        int threads = 1;
        while (threads * N < HS / 2) threads *= 2;
        return threads;
    }
    __device__ __forceinline__ bool present(int) const { return thread * N < HS / 2; }
    __device__ __forceinline__ int place(int e) const { return (e < N ? 0 : HS / 2) + thread * N + e % N; }
    __device__ __forceinline__ int turn_place(int e) const { return LAYOUT == ROPE_HALF ? thread * K + e : place(e); }
    static __device__ __forceinline__ constexpr int first(int i) { return LAYOUT == ROPE_HALF ? i : 2 * i; }
    static __device__ __forceinline__ constexpr int second(int i) { return LAYOUT == ROPE_HALF ? N + i : 2 * i + 1; }
};

/* For any head: a warp takes it, a thread every 32nd pair. Of an odd head, which is never turned, the last pair has one element. */
template <class E_, RopeLayout LAYOUT> struct PairsCut {
    typedef E_ E;
    typedef Single<E> P;
    typedef Single<float> Turns;
    static constexpr int K = MAX_HEAD_SIZE / 32, FORWARD_HEADS = 1, FORWARD_BLOCKS = 8, BACKWARD_HEADS = 1, BACKWARD_BLOCKS = 8;
    int HS, thread;

    static int team(int) { return 32; }
    __device__ __forceinline__ int pairs() const { return (HS + 1) / 2; }
    __device__ __forceinline__ int pair(int e) const { return e / 2 * 32 + thread; }
    __device__ __forceinline__ bool present(int e) const { return pair(e) < pairs() && place(e) < HS; }
    __device__ __forceinline__ int place(int e) const { return LAYOUT == ROPE_HALF ? e % 2 * pairs() + pair(e) : turn_place(e); }
    __device__ __forceinline__ int turn_place(int e) const { return 2 * pair(e) + e % 2; }
    static __device__ __forceinline__ constexpr int first(int i) { return 2 * i; }
    static __device__ __forceinline__ constexpr int second(int i) { return 2 * i + 1; }
};

template <class Cut> using PiecesOf = typename Cut::P[Cut::K / Cut::P::N];
template <class Cut> using TurnsOf = typename Cut::Turns[Cut::K / Cut::Turns::N];
template <class Cut> using FloatsOf = float[Cut::K / Cut::P::N][Cut::P::N];

/* What both passes know of (rows, NH + 2 NKV, HS). */
struct Heads {
    const float *rotations;   /* (maxT, HS/2, 2), from the first row's position on; or NULL */
    unsigned rows;            /* B*T */
    int T, NH, NKV, HS, team;
};

/* This thread's part of head[HS]; zeros where there is none, or everywhere if head is NULL. */
template <class Cut> __device__ __forceinline__ void load_head(PiecesOf<Cut> &pieces, const Cut &cut, const typename Cut::E *head) {
    typedef typename Cut::P P;
    #pragma unroll
    for (int p = 0; p < Cut::K / P::N; p++)
        pieces[p] = head && cut.present(p * P::N) ? load_pack<P>(head + cut.place(p * P::N)) : P();
}

template <class Cut> __device__ __forceinline__ void store_head(const FloatsOf<Cut> &x, const Cut &cut, typename Cut::E *head) {
    typedef typename Cut::P P;
    #pragma unroll
    for (int p = 0; p < Cut::K / P::N; p++)
        if (cut.present(p * P::N)) store_pack(head + cut.place(p * P::N), pack_floats<P>(x[p]));
}

/* The rotation of a row's position, NULL if the model has none. */
__device__ __forceinline__ const float *rotation_of(const Heads &z, unsigned row) {
    return z.rotations ? z.rotations + (int64_t)(row % z.T) * z.HS : nullptr;
}

/* Zeros, which are not used, if rotation is NULL. */
template <class Cut> __device__ __forceinline__ void load_turns(TurnsOf<Cut> &turns, const Cut &cut, const float *rotation) {
    typedef typename Cut::Turns R;
    #pragma unroll
    for (int i = 0; i < Cut::K / R::N; i++)
        turns[i] = rotation && cut.present(i * R::N) ? load_pack<R>(rotation + cut.turn_place(i * R::N)) : R();
}

/* By the position's angle, or back with direction -1. */
template <class Cut> __device__ __forceinline__ void turn_head(FloatsOf<Cut> &x, const TurnsOf<Cut> &turns, float direction) {
    constexpr int N = Cut::P::N, R = Cut::Turns::N;
    #pragma unroll
    for (int i = 0; i < Cut::K / 2; i++) {
        const int u = Cut::first(i), v = Cut::second(i);
        const float cosine = element(turns[2 * i / R], 2 * i % R), sine = direction * element(turns[(2 * i + 1) / R], (2 * i + 1) % R);
        turn(x[u / N][u % N], x[v / N][v % N], cosine, sine);
    }
}

/* Each of the H sums over a team, for each of its threads; the order of additions is fixed. All threads of a warp take part. */
template <int H> __device__ __forceinline__ void team_sums(float (&v)[H], int team) {
    for (int offset = team / 2; offset > 0; offset /= 2) {
        #pragma unroll
        for (int h = 0; h < H; h++) v[h] += __shfl_xor_sync(0xffffffffu, v[h], offset);
    }
}

/* ---- forward -------------------------------------------------------------------------------------------------------------------- */

template <class E> struct QKNormForward {
    Heads z;
    E *out;
    float *rstd;
    const E *qkv, *qw, *kw;
    float eps;
};

/* A team takes up to H heads of one row, all of Q, all of K or all of V. Threads without a head go along with zeros to the sums. */
template <class Cut> __global__ void __launch_bounds__(BLOCK, Cut::FORWARD_BLOCKS)
qk_norm_forward_kernel(QKNormForward<typename Cut::E> a) {
    typedef typename Cut::P P;
    constexpr int H = Cut::FORWARD_HEADS, N = P::N, PIECES = Cut::K / N;
    const int HS = a.z.HS, NH = a.z.NH, NKV = a.z.NKV, q_groups = (NH + H - 1) / H, kv_groups = (NKV + H - 1) / H;
    const Cut cut = {HS, (int)(threadIdx.x % a.z.team)};
    const unsigned item = blockIdx.x * (BLOCK / a.z.team) + threadIdx.x / a.z.team, row = item / (q_groups + 2 * kv_groups);
    const int group = (int)(item % (q_groups + 2 * kv_groups));
    const bool is_q = group < q_groups, is_v = group >= q_groups + kv_groups;
    const int start = is_q ? 0 : is_v ? NH + NKV : NH;
    const int first = start + (is_q ? group : (group - q_groups) % kv_groups) * H, end = row < a.z.rows ? start + (is_q ? NH : NKV) : 0;
    const int64_t offset = ((int64_t)row * (NH + 2 * NKV) + first) * HS;
    const float *rotation = is_v ? nullptr : rotation_of(a.z, row);

    PiecesOf<Cut> x[H], w;
    TurnsOf<Cut> turns;
    float squares[H] = {};
    #pragma unroll
    for (int h = 0; h < H; h++) load_head<Cut>(x[h], cut, first + h < end ? a.qkv + offset + h * HS : nullptr);
    load_head<Cut>(w, cut, is_q ? a.qw : a.kw);
    load_turns<Cut>(turns, cut, rotation);
    #pragma unroll
    for (int h = 0; h < H; h++)
        for (int e = 0; e < Cut::K; e++) squares[h] = fmaf(element(x[h][e / N], e % N), element(x[h][e / N], e % N), squares[h]);
    team_sums(squares, a.z.team);
    #pragma unroll
    for (int h = 0; h < H; h++) {
        if (first + h >= end) continue;
        const float rstd = 1.0f / sqrtf(squares[h] / (float)HS + a.eps);
        FloatsOf<Cut> y;
        #pragma unroll
        for (int p = 0; p < PIECES; p++)
            for (int k = 0; k < N; k++) y[p][k] = is_v ? element(x[h][p], k) : element(x[h][p], k) * rstd * element(w[p], k);
        if (rotation) turn_head<Cut>(y, turns, 1);
        store_head<Cut>(y, cut, a.out + offset + h * HS);
        if (!is_v && cut.thread == 0) a.rstd[(int64_t)row * (NH + NKV) + first + h] = rstd;
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------------------------- */

template <class E> struct QKNormBackward {
    Heads z;
    E *dqkv;
    float *partial;   /* (blocks, HS): each block's sum for dqw, if it is one of the first q_blocks, or for dkw */
    const E *qkv, *qw, *kw;
    const float *rstd;
    unsigned q_blocks;
};

/* The block's sum: those of its teams, added one after another. */
template <class Cut> __device__ __forceinline__ void store_partial(float *partial, const float (&dw)[Cut::K], const Cut &cut, int team) {
    SHARED(float, sums, [BLOCK * Cut::K]);
    #pragma unroll
    for (int e = 0; e < Cut::K; e++)
        if (cut.present(e)) sums[threadIdx.x / team * cut.HS + cut.place(e)] = dw[e];
    __syncthreads();
    for (int column = threadIdx.x; column < cut.HS; column += BLOCK) {
        float sum = 0;
        for (int other = 0; other < BLOCK / team; other++) sum += sums[other * cut.HS + column];
        partial[column] = sum;
    }
}

/* With g = dout turned back and xhat = x rstd:  dx = rstd (g w - xhat mean(g w xhat)),  dw = sum g xhat.
   The first q_blocks blocks take the heads of Q and the others those of K, so that a thread has its part of one weight, and the sums for
   it, in registers. A team takes up to H heads of a row at a time; without a head it goes along with zeros. */
template <class Cut> __global__ void __launch_bounds__(BLOCK, Cut::BACKWARD_BLOCKS)
qk_norm_backward_kernel(QKNormBackward<typename Cut::E> a) {
    typedef typename Cut::P P;
    constexpr int H = Cut::BACKWARD_HEADS, N = P::N, PIECES = Cut::K / N;
    const bool is_q = blockIdx.x < a.q_blocks;
    const int HS = a.z.HS, NH = a.z.NH, NKV = a.z.NKV, start = is_q ? 0 : NH, heads = is_q ? NH : NKV;
    const unsigned groups = (heads + H - 1) / H, items = a.z.rows * groups, teams = BLOCK / a.z.team;
    const unsigned block = is_q ? blockIdx.x : blockIdx.x - a.q_blocks, blocks = is_q ? a.q_blocks : gridDim.x - a.q_blocks;
    const Cut cut = {HS, (int)(threadIdx.x % a.z.team)};
    PiecesOf<Cut> w;
    float dw[Cut::K] = {};
    load_head<Cut>(w, cut, is_q ? a.qw : a.kw);
    for (unsigned base = block * teams; base < items; base += blocks * teams) {
        const unsigned item = base + threadIdx.x / a.z.team, row = item / groups;
        const int first = start + (int)(item % groups) * H, end = item < items ? start + heads : 0;
        const int64_t offset = ((int64_t)row * (NH + 2 * NKV) + first) * HS;
        const float *rotation = rotation_of(a.z, row);
        PiecesOf<Cut> x[H], dout[H];
        TurnsOf<Cut> turns;
        FloatsOf<Cut> g[H];
        float rstd[H], products[H] = {};
        #pragma unroll
        for (int h = 0; h < H; h++) {
            load_head<Cut>(dout[h], cut, first + h < end ? a.dqkv + offset + h * HS : nullptr);
            load_head<Cut>(x[h], cut, first + h < end ? a.qkv + offset + h * HS : nullptr);
            rstd[h] = first + h < end ? a.rstd[(int64_t)row * (NH + NKV) + first + h] : 0.0f;
        }
        load_turns<Cut>(turns, cut, rotation);
        #pragma unroll
        for (int h = 0; h < H; h++) {
            #pragma unroll
            for (int e = 0; e < Cut::K; e++) g[h][e / N][e % N] = element(dout[h][e / N], e % N);
            if (rotation) turn_head<Cut>(g[h], turns, -1);
            #pragma unroll
            for (int e = 0; e < Cut::K; e++) {
                const float dxhat = g[h][e / N][e % N] * (element(x[h][e / N], e % N) * rstd[h]);
                dw[e] += dxhat;
                products[h] = fmaf(dxhat, element(w[e / N], e % N), products[h]);
            }
        }
        team_sums(products, a.z.team);
        #pragma unroll
        for (int h = 0; h < H; h++) {
            const float mean = products[h] / (float)HS;
            #pragma unroll
            for (int p = 0; p < PIECES; p++)
                for (int k = 0; k < N; k++)
                    g[h][p][k] = rstd[h] * (g[h][p][k] * element(w[p], k) - element(x[h][p], k) * rstd[h] * mean);
            if (first + h < end) store_head<Cut>(g[h], cut, a.dqkv + offset + h * HS);
        }
    }
    store_partial<Cut>(a.partial + (int64_t)blockIdx.x * HS, dw, cut, a.z.team);
}

/* dqw(HS) (+)= partial summed over the first q_blocks of its blocks, dkw(HS) over the others. A block of threads adds 32 neighbouring
   columns of the one (blockIdx.y 0) or the other, its warp g the blocks g, g + warps, ... */
__global__ void __launch_bounds__(1024)
qk_norm_weights_kernel(float *dqw, float *dkw, const float *partial, int q_blocks, int blocks, int HS, int accumulate) {
    SHARED(float, sums, [32][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, column = blockIdx.x * 32 + lane;
    const int begin = blockIdx.y ? q_blocks : 0, end = blockIdx.y ? blocks : q_blocks;
    float sum = 0;
    #pragma unroll 8
    for (int block = begin + warp; block < end; block += warps) sum += column < HS ? partial[(int64_t)block * HS + column] : 0.0f;
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= HS) return;
    for (int other = 1; other < warps; other++) sum += sums[other][lane];
    float *total = (blockIdx.y ? dkw : dqw) + column;
    *total = accumulate ? *total + sum : sum;
}

/* ---- launchers ------------------------------------------------------------------------------------------------------------------ */

template <class E, class F> static void by_layout(RopeLayout layout, int aligned, F f) {
    if (aligned && layout == ROPE_HALF) f(HalvesCut<E, ROPE_HALF>());
    else if (aligned) f(HalvesCut<E, ROPE_INTERLEAVED>());
    else if (layout == ROPE_HALF) f(PairsCut<E, ROPE_HALF>());
    else f(PairsCut<E, ROPE_INTERLEAVED>());
}

/* Calls f with a cut for these tensors and the heads' description. 2^32 heads are more than a device can hold. */
template <class F>
static void by_cut(Tensor qkv, Tensor other, Tensor qw, Tensor kw, Tensor rotations, int NH, int NKV, RopeLayout layout, int t0, F f) {
    const int64_t rows = qkv.shape[0] * qkv.shape[1];
    const int HS = (int)(tensor_numel(qkv) / rows / (NH + 2 * NKV));
    const int aligned = HS % 2 == 0 && rows_aligned(qkv.dtype, HS / 2, qkv, other, qw, kw, rotations);
    assert(HS <= MAX_HEAD_SIZE && (HS % 2 == 0 || !rotations.data));
    by_dtype(qkv.dtype, [&](auto zero) {
        by_layout<decltype(zero)>(layout, aligned, [&](auto cut) {
            const float *from_t0 = rotations.data ? (const float *)rotations.data + (int64_t)t0 * HS : nullptr;
            f(cut, Heads{from_t0, (unsigned)rows, (int)qkv.shape[1], NH, NKV, HS, decltype(cut)::team(HS)});
        });
    });
}

void cuda_qk_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor qw, Tensor kw, Tensor rotations, int NH, int NKV, RopeLayout layout,
                          int t0, float eps, Stream *s) {
    by_cut(qkv, out, qw, kw, rotations, NH, NKV, layout, t0, [&](auto cut, Heads z) {
        typedef decltype(cut) Cut;
        typedef typename Cut::E E;
        const QKNormForward<E> a = {z, (E *)out.data, (float *)rstd.data, (const E *)qkv.data, (const E *)qw.data, (const E *)kw.data, eps};
        const int64_t groups = ceil_div(NH, Cut::FORWARD_HEADS) + 2 * ceil_div(NKV, Cut::FORWARD_HEADS);
        LAUNCH((qk_norm_forward_kernel<Cut>), (unsigned)ceil_div(z.rows * groups, BLOCK / z.team), BLOCK, 0, cuda_stream(s), a);
    });
}

/* The same bits on every run: partial sums of the blocks, added in the order of the blocks by a second launch. */
void cuda_qk_norm_backward(Tensor dqkv, Tensor dqw, Tensor dkw, Tensor qkv, Tensor rstd, Tensor qw, Tensor kw, Tensor rotations, int NH,
                           int NKV, RopeLayout layout, int accumulate, Stream *s) {
    by_cut(qkv, dqkv, qw, kw, rotations, NH, NKV, layout, 0, [&](auto cut, Heads z) {
        typedef decltype(cut) Cut;
        typedef typename Cut::E E;
        const int64_t q_wanted = ceil_div(z.rows * ceil_div(NH, Cut::BACKWARD_HEADS), BLOCK / z.team);
        const int64_t k_wanted = ceil_div(z.rows * ceil_div(NKV, Cut::BACKWARD_HEADS), BLOCK / z.team);
        const int64_t wanted = q_wanted + k_wanted, resident = (int64_t)Cut::BACKWARD_BLOCKS * device_multiprocessors();
        const int64_t blocks = wanted < resident ? wanted : resident, k_share = blocks * k_wanted / wanted;
        const int q_blocks = (int)(blocks - (k_share ? k_share : 1));
        float *partial = reduction_scratch((size_t)(blocks * z.HS));
        const QKNormBackward<E> a = {z, (E *)dqkv.data, partial, (const E *)qkv.data, (const E *)qw.data, (const E *)kw.data,
                                     (const float *)rstd.data, (unsigned)q_blocks};
        LAUNCH((qk_norm_backward_kernel<Cut>), (unsigned)blocks, BLOCK, 0, cuda_stream(s), a);
        const int warps = blocks >= 4 * 32 ? 32 : (int)ceil_div(blocks, 4);
        LAUNCH(qk_norm_weights_kernel, dim3((unsigned)ceil_div(z.HS, 32), 2), 32 * warps, 0, cuda_stream(s), (float *)dqw.data,
               (float *)dkw.data, partial, q_blocks, (int)blocks, z.HS, accumulate);
    });
}
