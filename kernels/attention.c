/* attention.c: causal softmax attention with no T x T tensor (Dao 2023): forward, backward, and with a key/value cache.

   Work goes by tiles of TILE queries against TILE keys. A tile of scores is stored transposed: a row is a key, and neighbours in
   memory are queries. Maxima, exponentials and sums then run down the lanes of a vector, nothing is added up across lanes, and
   every product of the method has one form, `product`: numbers of the left matrix times vectors of the right one.

       forward     S^T = K Q^T                  O  += P V
       backward    S^T = K Q^T   dP^T = V dO^T  dV += P^T dO   dK += dS^T Q   dQ += dS K     with dS = P (dP - rowsum(dO O))

   Q carries the factor 1/sqrt(HS). Blocks of scores above the diagonal are never computed. Everything is fp32; bf16 is converted
   where tiles are loaded and stored. Sums are taken in an order that depends neither on threads nor on how queries fall into
   tiles, so results are always the same, and attention_cached, which runs the forward's own code, gives the forward's own bits. */
#include "cpu.h"
#include "dropout.h"

#include <stdlib.h>

#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 8 };
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 4 };
#elif defined(__ARM_NEON)
enum { LANES = 4, ROWS = 8 };
#else
enum { LANES = 4, ROWS = 4 };
#endif
enum {
    TILE = 64,      /* queries, and keys, of a tile */
    GRAIN = 16,     /* the diagonal is followed, and rows are padded, in steps of this; a multiple of LANES and of ROWS */
    MAX_HS = MAX_HEAD_SIZE
};

typedef float Lanes __attribute__((vector_size(4 * LANES)));

static inline Lanes load_lanes(const float *p) { Lanes v; memcpy(&v, p, sizeof v); return v; }
static inline void store_lanes(float *p, Lanes v) { memcpy(p, &v, sizeof v); }
static inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }
static inline int smaller(int a, int b) { return a < b ? a : b; }

/* c(ROWS, vectors * LANES) = or += a(ROWS, k) b(k, vectors * LANES), sums in registers. Element (r, i) of a lies at
   a[r * a_row + i * a_step]. */
static inline __attribute__((always_inline)) void product_block(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_step,
                                                               const float *b, int64_t b_row, int k, int add, int vectors) {
    Lanes sum[ROWS][2];
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = add ? load_lanes(c + r * c_row + v * LANES) : (Lanes){0};
    for (int i = 0; i < k; i++) {
        Lanes right[2];
        for (int v = 0; v < vectors; v++) right[v] = load_lanes(b + i * b_row + v * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < vectors; v++) sum[r][v] += a[r * a_row + i * a_step] * right[v];
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < vectors; v++) store_lanes(c + r * c_row + v * LANES, sum[r][v]);
}

/* The same for n columns, a multiple of LANES. */
static inline __attribute__((always_inline)) void product(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_step,
                                                         const float *b, int64_t b_row, int k, int n, int add) {
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) product_block(c + i, c_row, a, a_row, a_step, b + i, b_row, k, add, 2);
    if (i < n) product_block(c + i, c_row, a, a_row, a_step, b + i, b_row, k, add, 1);
}

/* One head's rows within a tensor of either dtype: row r begins at element start + r * stride. */
typedef struct {
    Tensor t;
    int64_t start, stride;
} Rows;

/* Head `head` of t(B,T,heads,HS) in sample b, from row `first` on. */
static Rows head_rows(Tensor t, int64_t b, int64_t T, int64_t heads, int64_t head, int64_t HS, int64_t first) {
    return (Rows){t, ((b * T + first) * heads + head) * HS, heads * HS};
}
static Rows rows_from(Rows rows, int64_t first) {
    rows.start += first * rows.stride;
    return rows;
}

/* Row r as floats. The same row of the next head lies right behind it and is asked for now: when its turn comes, it is in the cache. */
static const float *read_row(Rows rows, int r, int HS, float *buffer) {
    int64_t offset = rows.start + r * rows.stride;
    const char *next = (const char *)rows.t.data + (size_t)(offset + HS) * dtype_size(rows.t.dtype);
    for (size_t byte = 0; byte < (size_t)HS * dtype_size(rows.t.dtype); byte += 64) __builtin_prefetch(next + byte);
    return read_floats(rows.t, offset, HS, buffer);
}

/* tile(padded, pitch) = scale * the first n rows, zero beyond n rows and HS columns. */
static void load_tile(float *tile, int pitch, Rows rows, int n, int padded, int HS, float scale) {
    float buffer[MAX_HS];
    for (int r = 0; r < n; r++) {
        const float *row = read_row(rows, r, HS, buffer);
        float *out = tile + r * pitch;
        #pragma omp simd
        for (int d = 0; d < HS; d++) out[d] = row[d] * scale;
        for (int d = HS; d < pitch; d++) out[d] = 0;
    }
    memset(tile + n * pitch, 0, sizeof(float) * (size_t)((padded - n) * pitch));
}

/* The first n rows = tile(n, pitch) * scale, and * scales[r] for row r unless scales is NULL. */
static void store_tile(Rows rows, const float *tile, int pitch, int n, int HS, const float *scales, float scale) {
    float buffer[MAX_HS];
    for (int r = 0; r < n; r++) {
        int64_t offset = rows.start + r * rows.stride;
        float *row = write_floats(rows.t, offset, buffer);
        const float *in = tile + r * pitch;
        float factor = scales ? scales[r] * scale : scale;
        #pragma omp simd
        for (int d = 0; d < HS; d++) row[d] = in[d] * factor;
        wrote_floats(rows.t, offset, HS, row);
    }
}

/* out = a[0], b[0], a[1], b[1], ...: two halves of n shuffled together like cards. Over the 2^2m elements of a square this rotates
   the bits of every index by one; m times over it transposes, and a loop of this form vectorises everywhere. */
static inline void riffle(float *restrict out, const float *restrict a, const float *restrict b, int n) {
    #pragma omp simd
    for (int i = 0; i < n; i++) {
        out[2 * i] = a[i];
        out[2 * i + 1] = b[i];
    }
}

/* out(pitch, TILE) = transpose of tile(n, pitch), both multiples of SIDE, by squares of 16 x 16, so four riffles. */
static void transpose_tile(float *out, const float *tile, int pitch, int n) {
    enum { SIDE = 16, HALF = SIDE * SIDE / 2 };
    _Static_assert(GRAIN % SIDE == 0, "tiles are whole squares");
    float x[2 * HALF], y[2 * HALF];
    for (int i = 0; i < n; i += SIDE)
        for (int d = 0; d < pitch; d += SIDE) {
            const float *square = tile + i * pitch + d;
            for (int r = 0; r < SIDE / 2; r++) riffle(x + 2 * r * SIDE, square + r * pitch, square + (r + SIDE / 2) * pitch, SIDE);
            riffle(y, x, x + HALF, HALF);
            riffle(x, y, y + HALF, HALF);
            riffle(y, x, x + HALF, HALF);
            for (int r = 0; r < SIDE; r++) memcpy(out + (d + r) * TILE + i, y + r * SIDE, SIDE * sizeof(float));
        }
}

/* In a tile whose first key is `ahead` positions after its first query, key j is seen by the queries from j + ahead on. The scores
   of its block of ROWS keys exist from this query on. */
static inline int scores_begin(int j, int ahead) {
    int begin = j / ROWS * ROWS + ahead;
    return begin > 0 ? begin / GRAIN * GRAIN : 0;
}
/* One past the last key that the block of ROWS queries beginning with i sees. */
static inline int keys_end(int i, int ahead, int keys) { return smaller(i + ROWS - ahead, keys); }

/* s(keys, TILE) = k(keys, pitch) qT(HS, TILE) */
static void scores(float *s, const float *k, int pitch, const float *qT, int HS, int keys, int queries, int ahead) {
    for (int j = 0; j < keys; j += ROWS) {
        int begin = scores_begin(j, ahead);
        product(s + j * TILE + begin, TILE, k + j * pitch, pitch, 1, qT + begin, TILE, HS, queries - begin, 0);
    }
}
/* Where the query does not see the key. */
static void mask_scores(float *s, int keys, int queries, int ahead) {
    for (int j = 0; j < keys; j++)
        for (int i = scores_begin(j, ahead); i < smaller(j + ahead, queries); i++) s[j * TILE + i] = -INFINITY;
}

/* The dropout mask seen from a tile: query i, key j is element first + i * T + j of all probabilities of the global batch. */
typedef struct {
    Dropout drop;
    uint64_t first;
    int64_t T;
} Mask;

static Mask mask_from(Dropout drop, int64_t b, int64_t NH, int64_t h, int64_t T, int64_t query) {
    uint64_t sample = drop.p > 0 ? (uint64_t)(drop.state->sample + b) : 0;
    uint64_t row = (sample * (uint64_t)NH + (uint64_t)h) * (uint64_t)T + (uint64_t)query;
    return (Mask){drop, row * (uint64_t)T, T};
}

/* keep(TILE, TILE), transposed like the scores: 0 where dropped, else 1/(1-p). `key` is the tile's first. */
static void load_mask(float *keep, Mask mask, int key, int keys, int queries) {
    float rows[TILE * TILE] = {0};
    for (int i = 0; i < queries; i++) dropout_scales(rows + i * TILE, mask.drop, mask.first + (uint64_t)(i * mask.T + key), keys);
    transpose_tile(keep, rows, TILE, queries);
}
static void drop_scores(float *restrict s, const float *restrict keep, int keys, int queries, int ahead) {
    for (int j = 0; j < keys; j++) {
        #pragma omp simd
        for (int i = scores_begin(j, ahead); i < queries; i++) s[j * TILE + i] *= keep[j * TILE + i];
    }
}

/* Turns scores into exp(score - top), with top(queries) raised to the greatest score so far. sum(queries) sums them up, and
   shrink(queries) is the factor that brings down what was summed under the old top. */
static void online_softmax(float *restrict s, float *restrict top, float *restrict sum, float *restrict shrink, int keys, int queries,
                           int ahead) {
    float before[TILE];
    memcpy(before, top, sizeof before);
    for (int j = 0; j < keys; j++) {
        const float *row = s + j * TILE;
        #pragma omp simd
        for (int i = scores_begin(j, ahead); i < queries; i++) top[i] = row[i] > top[i] ? row[i] : top[i];
    }
    #pragma omp simd
    for (int i = 0; i < queries; i++) {
        shrink[i] = exp_float(before[i] - top[i]);
        sum[i] *= shrink[i];
    }
    for (int j = 0; j < keys; j++) {
        float *row = s + j * TILE;
        #pragma omp simd
        for (int i = scores_begin(j, ahead); i < queries; i++) {
            row[i] = exp_float(row[i] - top[i]);
            sum[i] += row[i];
        }
    }
}

/* n <= TILE queries, the first at `position`, attend each to the keys from 0 to its own position. lse may be NULL. */
static void attend(Rows out, float *lse, Rows q, Rows k, Rows v, int n, int position, int HS, Mask mask) {
    _Alignas(64) float kv[TILE * MAX_HS], qT[TILE * MAX_HS], o[TILE * MAX_HS], s[TILE * TILE], keep[TILE * TILE];
    float top[TILE], sum[TILE] = {0}, factor[TILE];
    int pitch = round_up(HS, GRAIN), queries = round_up(n, GRAIN);
    load_tile(o, pitch, q, n, queries, HS, 1.0f / sqrtf((float)HS));
    transpose_tile(qT, o, pitch, queries);
    memset(o, 0, sizeof(float) * (size_t)(queries * pitch));
    for (int i = 0; i < TILE; i++) top[i] = -INFINITY;

    for (int key = 0; key < position + n; key += TILE) {
        int real = smaller(TILE, position + n - key), keys = round_up(real, ROWS), ahead = key - position;
        load_tile(kv, pitch, rows_from(k, key), real, keys, HS, 1);
        scores(s, kv, pitch, qT, HS, keys, queries, ahead);
        mask_scores(s, keys, queries, ahead);
        online_softmax(s, top, sum, factor, keys, queries, ahead);
        if (mask.drop.p > 0) {
            load_mask(keep, mask, key, keys, queries);
            drop_scores(s, keep, keys, queries, ahead);
        }
        load_tile(kv, pitch, rows_from(v, key), real, keys, HS, 1);
        for (int i = 0; i < n; i++) {
            #pragma omp simd
            for (int d = 0; d < pitch; d++) o[i * pitch + d] *= factor[i];
        }
        for (int i = 0; i < n; i += ROWS) product(o + i * pitch, pitch, s + i, 1, TILE, kv, pitch, keys_end(i, ahead, keys), pitch, 1);
    }
    for (int i = 0; i < n; i++) factor[i] = 1.0f / sum[i];
    store_tile(out, o, pitch, n, HS, factor, 1);
    for (int i = 0; lse && i < n; i++) lse[i] = top[i] + logf(sum[i]);
}

/* How many neighbouring pieces of work a thread takes at a time: enough for read_row to pay, and several turns for every thread.
   (A build without OpenMP has no use for it.) */
static inline __attribute__((unused)) int64_t turn(int64_t pieces) {
    int64_t n = pieces / (8 * omp_get_max_threads());
    return n > 0 ? n : 1;
}

void cpu_attention_forward(Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Dropout drop, Stream *stream) {
    (void)scratch, (void)stream;
    int64_t B = qkv.shape[0], T = qkv.shape[1], heads = NH + 2 * NKV, HS = tensor_numel(qkv) / (B * T * heads);
    int64_t tiles = (T + TILE - 1) / TILE;
    #pragma omp parallel for collapse(3) schedule(dynamic, turn(B * NH * tiles))
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < NH; h++)
            for (int64_t tile = tiles - 1; tile >= 0; tile--) {   /* the longest first */
                int64_t first = tile * TILE, kv_head = NH + h / (NH / NKV);
                attend(head_rows(out, b, T, NH, h, HS, first), (float *)lse.data + (b * NH + h) * T + first,
                       head_rows(qkv, b, T, heads, h, HS, first), head_rows(qkv, b, T, heads, kv_head, HS, 0),
                       head_rows(qkv, b, T, heads, kv_head + NKV, HS, 0), smaller(TILE, (int)(T - first)), (int)first, (int)HS,
                       mask_from(drop, b, NH, h, T, first));
            }
}

/* K and V in the caches' rows t0.. are written first, so that attending reads nothing but the caches. */
static void append_to_cache(Tensor cache, Tensor qkv, int64_t first_head, int64_t heads, int64_t NKV, int64_t HS, int64_t t0) {
    int64_t B = qkv.shape[0], T = qkv.shape[1];
    size_t size = dtype_size(qkv.dtype), bytes = (size_t)(NKV * HS) * size;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++)
            memcpy((char *)cache.data + (size_t)(b * cache.shape[1] + t0 + t) * bytes,
                   (const char *)qkv.data + (size_t)(((b * T + t) * heads + first_head) * HS) * size, bytes);
}

void cpu_attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, int NH, int NKV, int t0, Stream *stream) {
    (void)stream;
    int64_t B = qkv.shape[0], T = qkv.shape[1], heads = NH + 2 * NKV, HS = tensor_numel(qkv) / (B * T * heads), maxT = k_cache.shape[1];
    append_to_cache(k_cache, qkv, NH, heads, NKV, HS, t0);
    append_to_cache(v_cache, qkv, NH + NKV, heads, NKV, HS, t0);
    #pragma omp parallel for collapse(3) schedule(dynamic)
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < NH; h++)
            for (int64_t first = 0; first < T; first += TILE) {
                int64_t kv_head = h / (NH / NKV);
                attend(head_rows(out, b, T, NH, h, HS, first), NULL, head_rows(qkv, b, T, heads, h, HS, first),
                       head_rows(k_cache, b, maxT, NKV, kv_head, HS, 0), head_rows(v_cache, b, maxT, NKV, kv_head, HS, 0),
                       smaller(TILE, (int)(T - first)), t0 + (int)first, (int)HS, (Mask){0});
            }
}

/* p holds scores and becomes exp(score - lse); dp, the gradient of p, becomes that of the scores: p * (dp - delta). */
static void softmax_backward(float *restrict p, float *restrict dp, const float *restrict lse, const float *restrict delta, int keys,
                             int queries, int ahead) {
    for (int j = 0; j < keys; j++) {
        float *p_row = p + j * TILE, *dp_row = dp + j * TILE;
        #pragma omp simd
        for (int i = scores_begin(j, ahead); i < queries; i++) {
            p_row[i] = exp_float(p_row[i] - lse[i]);
            dp_row[i] = p_row[i] * (dp_row[i] - delta[i]);
        }
    }
}

/* Keys and values of one head as floats, padded to (T, pitch), and the sums of their gradients. */
typedef struct {
    float *k, *v, *dk, *dv;
    int pitch, HS;
} KeyValues;

/* dq of n <= TILE queries, the first at `position`, and what they add to dk and dv. delta(n) is written. */
static void attend_backward(Rows dq_rows, KeyValues kv, float *delta_out, Rows dout_rows, Rows out_rows, const float *lse_in, Rows q_rows,
                            int n, int position, Mask mask) {
    _Alignas(64) float q[TILE * MAX_HS], qT[TILE * MAX_HS], dout[TILE * MAX_HS], doutT[TILE * MAX_HS], dq[TILE * MAX_HS];
    _Alignas(64) float p[TILE * TILE], dp[TILE * TILE], keep[TILE * TILE];
    float lse[TILE] = {0}, delta[TILE] = {0}, buffer[MAX_HS], scale = 1.0f / sqrtf((float)kv.HS);
    int pitch = kv.pitch, HS = kv.HS, queries = round_up(n, GRAIN);
    load_tile(q, pitch, q_rows, n, queries, HS, scale);
    load_tile(dout, pitch, dout_rows, n, queries, HS, 1);
    transpose_tile(qT, q, pitch, queries);
    transpose_tile(doutT, dout, pitch, queries);
    memset(dq, 0, sizeof(float) * (size_t)(queries * pitch));
    for (int i = 0; i < n; i++) {
        const float *out = read_row(out_rows, i, HS, buffer);
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int d = 0; d < HS; d++) sum += out[d] * dout[i * pitch + d];
        lse[i] = lse_in[i];
        delta_out[i] = delta[i] = sum;
    }
    for (int key = 0; key < position + n; key += TILE) {
        int keys = round_up(smaller(TILE, position + n - key), ROWS), ahead = key - position;
        const float *k = kv.k + key * pitch, *v = kv.v + key * pitch;
        float *dk = kv.dk + key * pitch, *dv = kv.dv + key * pitch;
        scores(p, k, pitch, qT, HS, keys, queries, ahead);
        mask_scores(p, keys, queries, ahead);
        scores(dp, v, pitch, doutT, HS, keys, queries, ahead);
        if (mask.drop.p > 0) {
            load_mask(keep, mask, key, keys, queries);
            drop_scores(dp, keep, keys, queries, ahead);
        }
        softmax_backward(p, dp, lse, delta, keys, queries, ahead);
        if (mask.drop.p > 0) drop_scores(p, keep, keys, queries, ahead);
        for (int j = 0; j < keys; j += ROWS) {
            int begin = scores_begin(j, ahead);
            product(dv + j * pitch, pitch, p + j * TILE + begin, TILE, 1, dout + begin * pitch, pitch, n - begin, pitch, 1);
            product(dk + j * pitch, pitch, dp + j * TILE + begin, TILE, 1, q + begin * pitch, pitch, n - begin, pitch, 1);
        }
        for (int i = 0; i < n; i += ROWS) product(dq + i * pitch, pitch, dp + i, 1, TILE, k, pitch, keys_end(i, ahead, keys), pitch, 1);
    }
    store_tile(dq_rows, dq, pitch, n, HS, NULL, scale);
}

/* Memory for KeyValues: 4 * T * HS floats a thread, which may be too much for the stack. It grows to the most that was ever asked
   for and is kept; one caller at a time. */
static float *key_values_memory(size_t floats) {
    static float *memory;
    static size_t size;
    if (floats > size) {
        free(memory);
        size = (floats + 63) / 64 * 64;
        memory = aligned_alloc(256, size * sizeof(float));
        if (!memory)
            backend_fail("out of memory: attention asked for %.1f MiB of scratch; use a shorter sequence or fewer threads",
                         (double)size * 4 / 1048576);
    }
    return memory;
}

void cpu_attention_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV,
                            Dropout drop, Stream *stream) {
    (void)scratch, (void)stream;
    int64_t B = qkv.shape[0], T = qkv.shape[1], heads = NH + 2 * NKV, HS = tensor_numel(qkv) / (B * T * heads), group = NH / NKV;
    int pitch = round_up((int)HS, GRAIN), padded = round_up((int)T, ROWS);
    size_t floats = (size_t)padded * (size_t)pitch;
    float *memory = key_values_memory(4 * floats * (size_t)omp_get_max_threads());
    #pragma omp parallel for collapse(2) schedule(dynamic, turn(B * NKV))
    for (int64_t b = 0; b < B; b++)
        for (int64_t head = 0; head < NKV; head++) {
            float *own = memory + (size_t)omp_get_thread_num() * 4 * floats;
            KeyValues kv = {own, own + floats, own + 2 * floats, own + 3 * floats, pitch, (int)HS};
            load_tile(kv.k, pitch, head_rows(qkv, b, T, heads, NH + head, HS, 0), (int)T, padded, (int)HS, 1);
            load_tile(kv.v, pitch, head_rows(qkv, b, T, heads, NH + NKV + head, HS, 0), (int)T, padded, (int)HS, 1);
            memset(kv.dk, 0, 2 * floats * sizeof(float));
            for (int64_t h = head * group; h < (head + 1) * group; h++)
                for (int64_t first = 0; first < T; first += TILE) {
                    int64_t row = (b * NH + h) * T + first;
                    attend_backward(head_rows(dqkv, b, T, heads, h, HS, first), kv, (float *)delta.data + row,
                                    head_rows(dout, b, T, NH, h, HS, first), head_rows(out, b, T, NH, h, HS, first),
                                    (const float *)lse.data + row, head_rows(qkv, b, T, heads, h, HS, first),
                                    smaller(TILE, (int)(T - first)), (int)first, mask_from(drop, b, NH, h, T, first));
                }
            store_tile(head_rows(dqkv, b, T, heads, NH + head, HS, 0), kv.dk, pitch, (int)T, (int)HS, NULL, 1);
            store_tile(head_rows(dqkv, b, T, heads, NH + NKV + head, HS, 0), kv.dv, pitch, (int)T, (int)HS, NULL, 1);
        }
}
