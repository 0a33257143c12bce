/* attention_plain.cu: causal softmax attention with no T x T tensor on CUDA cores: fp32 arithmetic, any head size, either dtype. The
   reference for the tensor-core kernels (flash.cu), what fp32 models run, and attention with a key/value cache.

   A block of 16 x 16 threads holds TILE rows of one head, queries or keys, and walks over tiles of the other kind in shared memory, all
   floats:

       forward, dQ     S = Q K^T     dP = dO V^T     O += P V        dQ += dS K        with dS = P (dP - delta)
       dK, dV          S^T = K Q^T   dP^T = V dO^T   dV += P^T dO    dK += dS^T Q

   Q carries the factor 1/sqrt(HS). Every sum has one owner and a fixed order: the same bits on every run. */
#include "cu.h"
#include "attention.cuh"

enum { SIDE = 16, BLOCK = SIDE * SIDE };

/* Sizes for head sizes up to WIDTH: a thread holds R x R scores, and WIDTH / SIDE columns of R rows of a result. */
template <int WIDTH, int TILE> struct Shape {
    static constexpr int R = TILE / SIDE;
    static constexpr int PITCH = WIDTH + 4;   /* of a tile of rows, in floats: rows apart by one access of 16 bytes */
    static constexpr int WEIGHTS = TILE + 4;  /* of the tile of weights */
    static constexpr size_t bytes(int tiles) { return sizeof(float) * (size_t)(tiles * TILE * PITCH + TILE * WEIGHTS); }
};

/* The same for every block of a launch. */
struct PlainSizes {
    int T, NH, NKV, HS, packed;   /* packed: rows can be read 128 bits at a time */
    float scale;
    Dropout drop;
};
__device__ __forceinline__ int heads_of(const PlainSizes &z) { return z.NH + 2 * z.NKV; }

/* tile(TILE, PITCH) = scale * rows first .. first + TILE - 1, zero from row T and column HS on. Row t begins at rows + t * stride. */
template <int WIDTH, int TILE, class T>
__device__ void load_tile(float *tile, const T *rows, int64_t stride, int first, const PlainSizes &z, float scale) {
    constexpr int PITCH = Shape<WIDTH, TILE>::PITCH, N = Pack<T>::N;
    for (int i = threadIdx.x; i < TILE * (WIDTH / N); i += BLOCK) {
        const int row = i / (WIDTH / N), d = i % (WIDTH / N) * N;
        const T *from = rows + (first + row) * stride + d;
        Pack<T> pack;
        for (int k = 0; k < N; k++) pack.v[k] = from_float<T>(0.0f);
        if (first + row < z.T && d < z.HS) {
            if (z.packed) pack = ld128(from);
            else
                for (int k = 0; k < N && d + k < z.HS; k++) pack.v[k] = from[k];
        }
        for (int k = 0; k < N; k++) tile[row * PITCH + d + k] = to_float(pack.v[k]) * scale;
    }
}

/* The thread's rows of a tile of scores are R * (tid / SIDE) + i, its columns tid % SIDE + SIDE * j. */
template <int R> __device__ __forceinline__ int row_of(int i) { return R * ((int)threadIdx.x / SIDE) + i; }
__device__ __forceinline__ int column_of(int j) { return (int)threadIdx.x % SIDE + SIDE * j; }

/* s = a(TILE, HS) b(TILE, HS)^T */
template <int WIDTH, int TILE, int R> __device__ __forceinline__ void scores(float (&s)[R][R], const float *a, const float *b, int HS) {
    constexpr int PITCH = Shape<WIDTH, TILE>::PITCH;
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) s[i][j] = 0;
    for (int d = 0; d < HS; d += 4) {
        Pack<float> x[R], y[R];
        for (int i = 0; i < R; i++) x[i] = ld128(a + row_of<R>(i) * PITCH + d);
        for (int j = 0; j < R; j++) y[j] = ld128(b + column_of(j) * PITCH + d);
        for (int i = 0; i < R; i++)
            for (int j = 0; j < R; j++)
                for (int k = 0; k < 4; k++) s[i][j] += x[i].v[k] * y[j].v[k];
    }
}

/* o += weights(TILE, TILE) x(TILE, WIDTH). The thread's columns of o are 64 * m + 4 * (tid % SIDE) + c. */
template <int WIDTH, int TILE, int R>
__device__ __forceinline__ void add_product(float (&o)[R][WIDTH / SIDE], const float *weights, const float *x) {
    constexpr int PITCH = Shape<WIDTH, TILE>::PITCH, WEIGHTS = Shape<WIDTH, TILE>::WEIGHTS;
#pragma unroll 1
    for (int k = 0; k < TILE; k += 4) {
        Pack<float> w[R];
        for (int i = 0; i < R; i++) w[i] = ld128(weights + row_of<R>(i) * WEIGHTS + k);
#pragma unroll
        for (int q = 0; q < 4; q++)
#pragma unroll
            for (int m = 0; m < WIDTH / 64; m++) {
                const Pack<float> v = ld128(x + (k + q) * PITCH + 64 * m + 4 * column_of(0));
                for (int i = 0; i < R; i++)
                    for (int c = 0; c < 4; c++) o[i][4 * m + c] += w[i].v[q] * v.v[c];
            }
    }
}

/* Rows first .. of o times factors[i] * scale, as far as there are rows and columns. */
template <int WIDTH, int R, class T>
__device__ void store_rows(T *rows, int64_t stride, int first, const float (&o)[R][WIDTH / SIDE], const float (&factors)[R],
                           const PlainSizes &z) {
    for (int i = 0; i < R; i++)
        for (int m = 0; m < WIDTH / 64; m++)
            for (int c = 0; c < 4; c++) {
                const int t = first + row_of<R>(i), d = 64 * m + 4 * column_of(0) + c;
                if (t < z.T && d < z.HS) rows[t * stride + d] = from_float<T>(o[i][4 * m + c] * factors[i]);
            }
}

/* weights(TILE, WEIGHTS) = what dropout multiplies the tile's probabilities by; KEY_ROWS: transposed, a row is a key. */
template <int WIDTH, int TILE, bool KEY_ROWS>
__device__ void load_mask(float *weights, int64_t head, int query, int key, const PlainSizes &z) {
    constexpr int WEIGHTS = Shape<WIDTH, TILE>::WEIGHTS;
    const DropoutKey mask = dropout_key(z.drop);
    const uint64_t first = ((uint64_t)z.drop.state->sample * z.NH + (uint64_t)head) * z.T;
    for (int i = threadIdx.x; i < TILE * TILE / 4; i += BLOCK) {
        const int row = i / (TILE / 4), column = i % (TILE / 4) * 4;
        const uint64_t index = (first + (uint64_t)(query + row)) * z.T + (uint64_t)(key + column);
        float keep[4];
        if (z.T % 4 == 0) dropout_scales4(keep, mask, index);
        else
            for (int k = 0; k < 4; k++) keep[k] = dropout_scale(mask, index + k);
        for (int k = 0; k < 4; k++) weights[KEY_ROWS ? (column + k) * WEIGHTS + row : row * WEIGHTS + column + k] = keep[k];
    }
}

/* Over the SIDE threads that share rows. */
__device__ __forceinline__ float side_max(float v) {
    for (int offset = SIDE / 2; offset > 0; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}
__device__ __forceinline__ float side_sum(float v) {
    for (int offset = SIDE / 2; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

/* out and lse of one tile of queries: grid (tiles, NH, B). */
template <class T, int WIDTH, int TILE>
__global__ void __launch_bounds__(BLOCK)
plain_forward_kernel(T *out, float *lse, const T *qkv, PlainSizes z) {
    typedef Shape<WIDTH, TILE> S;
    constexpr int R = S::R;
    SMEM_CARVER(shared);
    float *q = shared.take<float>(TILE * S::PITCH), *kv = shared.take<float>(TILE * S::PITCH);
    float *weights = shared.take<float>(TILE * S::WEIGHTS);
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * TILE, h = blockIdx.y;   /* the longest first */
    const int64_t b = blockIdx.z, head = b * z.NH + h, stride = (int64_t)heads_of(z) * z.HS;
    const T *q_rows = qkv + b * z.T * stride + h * z.HS, *k_rows = qkv + b * z.T * stride + (z.NH + h / (z.NH / z.NKV)) * z.HS;
    float o[R][WIDTH / SIDE] = {}, top[R], sum[R] = {}, s[R][R];
    for (int i = 0; i < R; i++) top[i] = -INFINITY;
    load_tile<WIDTH, TILE>(q, q_rows, stride, first, z, z.scale);
    for (int key = 0; key <= first; key += TILE) {
        __syncthreads();
        load_tile<WIDTH, TILE>(kv, k_rows, stride, key, z, 1);
        if (z.drop.p > 0) load_mask<WIDTH, TILE, false>(weights, head, first, key, z);
        __syncthreads();
        scores<WIDTH, TILE>(s, q, kv, z.HS);
        for (int i = 0; i < R; i++) {
            float highest = top[i], shrink;
            for (int j = 0; j < R; j++) {
                if (key + column_of(j) > first + row_of<R>(i)) s[i][j] = -INFINITY;
                highest = fmaxf(highest, s[i][j]);
            }
            highest = side_max(highest);
            shrink = expf(top[i] - highest);
            top[i] = highest;
            sum[i] *= shrink;
            for (int d = 0; d < WIDTH / SIDE; d++) o[i][d] *= shrink;
            for (int j = 0; j < R; j++) {
                float *weight = weights + row_of<R>(i) * S::WEIGHTS + column_of(j), p = expf(s[i][j] - highest);
                sum[i] += p;
                *weight = z.drop.p > 0 ? p * *weight : p;
            }
        }
        __syncthreads();
        load_tile<WIDTH, TILE>(kv, k_rows + z.NKV * z.HS, stride, key, z, 1);
        __syncthreads();
        add_product<WIDTH, TILE>(o, weights, kv);
    }
    for (int i = 0; i < R; i++) {
        const int t = first + row_of<R>(i);
        sum[i] = side_sum(sum[i]);
        if (column_of(0) == 0 && t < z.T) lse[head * z.T + t] = top[i] + logf(sum[i]);
        sum[i] = 1.0f / sum[i];
    }
    store_rows<WIDTH>(out + (b * z.T * z.NH + h) * z.HS, (int64_t)z.NH * z.HS, first, o, sum, z);
}

/* With p = exp(s - lse) and keep the dropout mask, which stands at weights: s becomes p * keep, and dp, the gradient of the dropped-out
   probabilities, that of the scores: p * (keep * dp - delta). query(i, j) and key(i, j) are the positions of an element. */
template <int R, class Query, class Key>
__device__ __forceinline__ void softmax_backward(float (&s)[R][R], float (&dp)[R][R], const float *weights, int pitch, const float *lse,
                                                 const float *delta, const PlainSizes &z, Query query, Key key) {
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) {
            const int tq = query(i, j), tk = key(i, j);
            const float keep = z.drop.p > 0 ? weights[row_of<R>(i) * pitch + column_of(j)] : 1.0f;
            const int visible = tk <= tq && tq < z.T;
            const float p = visible ? expf(s[i][j] - lse[tq]) : 0.0f;
            dp[i][j] = visible ? p * (keep * dp[i][j] - delta[tq]) : 0.0f;
            s[i][j] = p * keep;
        }
}
template <int R> __device__ __forceinline__ void store_weights(float *weights, int pitch, const float (&w)[R][R]) {
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) weights[row_of<R>(i) * pitch + column_of(j)] = w[i][j];
}

/* dQ of one tile of queries: grid (tiles, NH, B). */
template <class T, int WIDTH, int TILE>
__global__ void __launch_bounds__(BLOCK)
plain_dq_kernel(T *dqkv, const float *delta, const T *dout, const float *lse, const T *qkv, PlainSizes z) {
    typedef Shape<WIDTH, TILE> S;
    constexpr int R = S::R;
    SMEM_CARVER(shared);
    float *q = shared.take<float>(TILE * S::PITCH), *d_o = shared.take<float>(TILE * S::PITCH), *k = shared.take<float>(TILE * S::PITCH);
    float *v = shared.take<float>(TILE * S::PITCH), *weights = shared.take<float>(TILE * S::WEIGHTS);
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * TILE, h = blockIdx.y;
    const int64_t b = blockIdx.z, head = b * z.NH + h, stride = (int64_t)heads_of(z) * z.HS, q_start = b * z.T * stride + h * z.HS;
    const T *k_rows = qkv + b * z.T * stride + (z.NH + h / (z.NH / z.NKV)) * z.HS;
    float dq[R][WIDTH / SIDE] = {}, s[R][R], dp[R][R], factors[R];
    load_tile<WIDTH, TILE>(q, qkv + q_start, stride, first, z, z.scale);
    load_tile<WIDTH, TILE>(d_o, dout + (b * z.T * z.NH + h) * z.HS, (int64_t)z.NH * z.HS, first, z, 1);
    for (int key = 0; key <= first; key += TILE) {
        __syncthreads();
        load_tile<WIDTH, TILE>(k, k_rows, stride, key, z, 1);
        load_tile<WIDTH, TILE>(v, k_rows + z.NKV * z.HS, stride, key, z, 1);
        if (z.drop.p > 0) load_mask<WIDTH, TILE, false>(weights, head, first, key, z);
        __syncthreads();
        scores<WIDTH, TILE>(s, q, k, z.HS);
        scores<WIDTH, TILE>(dp, d_o, v, z.HS);
        softmax_backward(s, dp, weights, S::WEIGHTS, lse + head * z.T, delta + head * z.T, z,
                         [&](int i, int) { return first + row_of<R>(i); }, [&](int, int j) { return key + column_of(j); });
        store_weights(weights, S::WEIGHTS, dp);
        __syncthreads();
        add_product<WIDTH, TILE>(dq, weights, k);
    }
    for (int i = 0; i < R; i++) factors[i] = z.scale;
    store_rows<WIDTH>(dqkv + q_start, stride, first, dq, factors, z);
}

/* dK and dV of one tile of keys, summed over the query heads that read it: grid (tiles, NKV, B). */
template <class T, int WIDTH, int TILE>
__global__ void __launch_bounds__(BLOCK)
plain_dkv_kernel(T *dqkv, const float *delta, const T *dout, const float *lse, const T *qkv, PlainSizes z) {
    typedef Shape<WIDTH, TILE> S;
    constexpr int R = S::R;
    SMEM_CARVER(shared);
    float *q = shared.take<float>(TILE * S::PITCH), *d_o = shared.take<float>(TILE * S::PITCH), *k = shared.take<float>(TILE * S::PITCH);
    float *v = shared.take<float>(TILE * S::PITCH), *weights = shared.take<float>(TILE * S::WEIGHTS);
    const int key = blockIdx.x * TILE, group = z.NH / z.NKV;
    const int64_t b = blockIdx.z, stride = (int64_t)heads_of(z) * z.HS, sample = b * z.T * stride, v_offset = (int64_t)z.NKV * z.HS;
    const int64_t k_start = sample + (z.NH + (int64_t)blockIdx.y) * z.HS;
    float dk[R][WIDTH / SIDE] = {}, dv[R][WIDTH / SIDE] = {}, s[R][R], dp[R][R], factors[R];
    load_tile<WIDTH, TILE>(k, qkv + k_start, stride, key, z, 1);
    load_tile<WIDTH, TILE>(v, qkv + k_start + v_offset, stride, key, z, 1);
    for (int h = blockIdx.y * group; h < (int)(blockIdx.y + 1) * group; h++)
        for (int query = key; query < z.T; query += TILE) {
            const int64_t head = b * z.NH + h;
            __syncthreads();
            load_tile<WIDTH, TILE>(q, qkv + sample + h * z.HS, stride, query, z, z.scale);
            load_tile<WIDTH, TILE>(d_o, dout + (b * z.T * z.NH + h) * z.HS, (int64_t)z.NH * z.HS, query, z, 1);
            if (z.drop.p > 0) load_mask<WIDTH, TILE, true>(weights, head, query, key, z);
            __syncthreads();
            scores<WIDTH, TILE>(s, k, q, z.HS);
            scores<WIDTH, TILE>(dp, v, d_o, z.HS);
            softmax_backward(s, dp, weights, S::WEIGHTS, lse + head * z.T, delta + head * z.T, z,
                             [&](int, int j) { return query + column_of(j); }, [&](int i, int) { return key + row_of<R>(i); });
            store_weights(weights, S::WEIGHTS, s);
            __syncthreads();
            add_product<WIDTH, TILE>(dv, weights, d_o);
            __syncthreads();
            store_weights(weights, S::WEIGHTS, dp);
            __syncthreads();
            add_product<WIDTH, TILE>(dk, weights, q);
        }
    for (int i = 0; i < R; i++) factors[i] = 1;
    store_rows<WIDTH>(dqkv + k_start, stride, key, dk, factors, z);
    store_rows<WIDTH>(dqkv + k_start + v_offset, stride, key, dv, factors, z);
}

static PlainSizes plain_sizes(Tensor qkv, int NH, int NKV, Dropout drop) {
    const int64_t B = qkv.shape[0], T = qkv.shape[1], HS = tensor_numel(qkv) / (B * T * (NH + 2 * NKV));
    const int packed = HS % (int64_t)(16 / dtype_size(qkv.dtype)) == 0;
    return {(int)T, NH, NKV, (int)HS, packed, 1.0f / sqrtf((float)HS), drop};
}

template <class T, int WIDTH, int TILE> static void launch_forward(Tensor out, Tensor lse, Tensor qkv, const PlainSizes &z, Stream *s) {
    const dim3 grid((unsigned)ceil_div(z.T, TILE), (unsigned)z.NH, (unsigned)qkv.shape[0]);
    const size_t bytes = Shape<WIDTH, TILE>::bytes(2);
    allow_shared_memory(plain_forward_kernel<T, WIDTH, TILE>, bytes);
    LAUNCH((plain_forward_kernel<T, WIDTH, TILE>), grid, BLOCK, bytes, cuda_stream(s), (T *)out.data, (float *)lse.data,
           (const T *)qkv.data, z);
}
template <class T, int WIDTH, int TILE>
static void launch_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor lse, Tensor qkv, const PlainSizes &z, Stream *s) {
    const unsigned tiles = (unsigned)ceil_div(z.T, TILE), B = (unsigned)qkv.shape[0];
    const size_t bytes = Shape<WIDTH, TILE>::bytes(4);
    allow_shared_memory(plain_dq_kernel<T, WIDTH, TILE>, bytes);
    allow_shared_memory(plain_dkv_kernel<T, WIDTH, TILE>, bytes);
    LAUNCH((plain_dkv_kernel<T, WIDTH, TILE>), dim3(tiles, (unsigned)z.NKV, B), BLOCK, bytes, cuda_stream(s), (T *)dqkv.data,
           (const float *)delta.data, (const T *)dout.data, (const float *)lse.data, (const T *)qkv.data, z);
    LAUNCH((plain_dq_kernel<T, WIDTH, TILE>), dim3(tiles, (unsigned)z.NH, B), BLOCK, bytes, cuda_stream(s), (T *)dqkv.data,
           (const float *)delta.data, (const T *)dout.data, (const float *)lse.data, (const T *)qkv.data, z);
}

/* Tiles are as large as leaves a block within the 99 KB of shared memory that every GPU from compute capability 8.0 on has. */
void plain_forward(Tensor out, Tensor lse, Tensor qkv, int NH, int NKV, Dropout drop, Stream *s) {
    const PlainSizes z = plain_sizes(qkv, NH, NKV, drop);
    by_dtype(qkv.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (z.HS <= 64) launch_forward<T, 64, 64>(out, lse, qkv, z, s);
        else if (z.HS <= 128) launch_forward<T, 128, 64>(out, lse, qkv, z, s);
        else launch_forward<T, 256, 32>(out, lse, qkv, z, s);
    });
}

void plain_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor lse, Tensor qkv, int NH, int NKV, Dropout drop, Stream *s) {
    const PlainSizes z = plain_sizes(qkv, NH, NKV, drop);
    by_dtype(qkv.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (z.HS <= 64) launch_backward<T, 64, 64>(dqkv, delta, dout, lse, qkv, z, s);
        else if (z.HS <= 128) launch_backward<T, 128, 32>(dqkv, delta, dout, lse, qkv, z, s);
        else launch_backward<T, 256, 16>(dqkv, delta, dout, lse, qkv, z, s);
    });
}

/* ---- generation ------------------------------------------------------------------------------------------------------------------ */

/* Rows t0 .. t0 + T - 1 of the caches(B,maxT,NKV,HS) from qkv(B,T,NH+2NKV,HS). */
template <class T>
__global__ void __launch_bounds__(BLOCK)
append_kernel(T *k_cache, T *v_cache, const T *qkv, int64_t n, int rows, int maxT, int t0, int NH, int width, int HS) {
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n; i += (int64_t)gridDim.x * BLOCK) {
        const int64_t row = i / width, column = i % width;
        const int64_t to = (row / rows * maxT + t0 + row % rows) * width + column;
        const int64_t from = row * ((int64_t)NH * HS + 2 * width) + NH * HS + column;
        k_cache[to] = qkv[from];
        v_cache[to] = qkv[from + width];
    }
}

/* out of one query: grid (T, NH, B). Keys go by BLOCK at a time: one score a thread, then a few threads sum each element of out. */
template <class T>
__global__ void __launch_bounds__(BLOCK)
cached_kernel(T *out, const T *k_cache, const T *v_cache, const T *qkv, PlainSizes z, int maxT, int t0) {
    SHARED(float, q, [MAX_HEAD_SIZE]);
    SHARED(float, p, [BLOCK]);
    const int tid = threadIdx.x, t = blockIdx.x, h = blockIdx.y, HS = z.HS, kv_head = h / (z.NH / z.NKV), groups = BLOCK / HS;
    const int64_t b = blockIdx.z, stride = (int64_t)z.NKV * HS, start = (b * maxT * z.NKV + kv_head) * HS;
    const T *q_row = qkv + ((b * z.T + t) * heads_of(z) + h) * HS;
    for (int d = tid; d < HS; d += BLOCK) q[d] = to_float(q_row[d]) * z.scale;
    __syncthreads();
    float top = -INFINITY, sum = 0, o = 0;
    for (int key = 0; key <= t0 + t; key += BLOCK) {
        const int n = t0 + t + 1 - key < BLOCK ? t0 + t + 1 - key : BLOCK;
        float score = -INFINITY;
        if (tid < n) {
            const T *k = k_cache + start + (key + tid) * stride;
            score = 0;
            if (z.packed)
                for (int d = 0; d < HS; d += Pack<T>::N) {
                    const Pack<T> pack = ld128(k + d);
                    for (int i = 0; i < Pack<T>::N; i++) score += q[d + i] * to_float(pack.v[i]);
                }
            else
                for (int d = 0; d < HS; d++) score += q[d] * to_float(k[d]);
        }
        const float highest = fmaxf(top, block_max<BLOCK>(score)), shrink = expf(top - highest);
        p[tid] = expf(score - highest);
        sum = sum * shrink + block_sum<BLOCK>(p[tid]);   /* its barriers also show p to all */
        o *= shrink;
        top = highest;
        for (int i = tid / HS; tid < groups * HS && i < n; i += groups)
            o += p[i] * to_float(v_cache[start + (key + i) * stride + tid % HS]);
        __syncthreads();
    }
    p[tid] = o;
    __syncthreads();
    if (tid >= HS) return;
    for (int g = 1; g < groups; g++) o += p[g * HS + tid];
    out[((b * z.T + t) * z.NH + h) * HS + tid] = from_float<T>(o / sum);
}

void cuda_attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, int NH, int NKV, int t0, Stream *s) {
    const PlainSizes z = plain_sizes(qkv, NH, NKV, Dropout());
    const int64_t B = qkv.shape[0], n = B * z.T * NKV * z.HS;
    by_dtype(qkv.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        const unsigned blocks = (unsigned)(ceil_div(n, BLOCK) < 4096 ? ceil_div(n, BLOCK) : 4096);
        LAUNCH((append_kernel<T>), blocks, BLOCK, 0, cuda_stream(s), (T *)k_cache.data, (T *)v_cache.data, (const T *)qkv.data, n, z.T,
               (int)k_cache.shape[1], t0, NH, NKV * z.HS, z.HS);
        LAUNCH((cached_kernel<T>), dim3((unsigned)z.T, (unsigned)NH, (unsigned)B), BLOCK, 0, cuda_stream(s), (T *)out.data,
               (const T *)k_cache.data, (const T *)v_cache.data, (const T *)qkv.data, z, (int)k_cache.shape[1], t0);
    });
}
