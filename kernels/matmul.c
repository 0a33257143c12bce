/* matmul.c: the three products of a linear layer on the CPU, by oneDNN where it is in the build and has the product, else by the
   portable one. Everything accumulates in fp32. The activation is applied to the fp32 sums, before anything is rounded to
   bf16: `out` is then as near as bf16 allows, and the same whether `pre` is kept or not.

   What is done beside the product (activations, bias gradients) happens on blocks of rows that are still, or will be, in cache. */
#include "cpu.h"

#include "activation.h"
#include "onednn.h"

#include <stdlib.h>

enum {
    ROWS_A_THREAD = 256,       /* of a block whose activation is applied while it is in cache */
    ROWS_AT_MOST = 2048,
    ACTIVATION_PIECE = 4096,   /* elements that a thread takes at a time */
    WEIGHT_ROWS = 512,         /* of a block whose columns are summed, which brings it into cache, before the product reads it; */
    WEIGHT_CACHED = 1 << 18,   /* worth it while dw, to which each block adds, has no more elements than stay in cache */
    SUM_ROWS = 64,             /* summed one after the other: fixed, so that the order does not depend on the threads */
    ROW_PIECE = 64,            /* outputs of a single row that a thread takes at a time */
};

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rows of the matrix (..., last_dim). */
static int64_t rows_of(Tensor t) {
    int64_t rows = 1;
    for (int i = 0; i < t.rank - 1; i++) rows *= t.shape[i];
    return rows;
}

static void *element(Tensor t, int64_t offset) { return (char *)t.data + (size_t)offset * dtype_size(t.dtype); }

/* One piece of memory for all calls, which only ever grows. */
static float *scratch(int64_t floats) {
    static float *memory;
    static int64_t size;
    if (floats > size) {
        free(memory);
        size = (floats + 1023) / 1024 * 1024;
        memory = aligned_alloc(64, (size_t)size * sizeof *memory);
        if (!memory) backend_fail("out of memory: a matmul needs %.1f MiB of scratch; use a smaller batch or model", (double)size / 262144.0);
    }
    return memory;
}

static inline float load(const void *memory, DType dtype, int64_t i) {
    return dtype == BF16 ? bf16_to_float(((const uint16_t *)memory)[i]) : ((const float *)memory)[i];
}

/* sums[i] += t[offset + i] */
static void add_floats(float *sums, Tensor t, int64_t offset, int64_t n) {
    for (int64_t i = 0; i < n; i++) sums[i] += load(t.data, t.dtype, offset + i);
}

/* t[offset + i] = values[i] */
static void store_floats(Tensor t, int64_t offset, int64_t n, const float *values) {
    if (t.dtype == BF16) bf16_of_floats(element(t, offset), values, n);
    else if (values != element(t, offset)) memcpy(element(t, offset), values, (size_t)n * sizeof *values);
}

/* D(M,N) = op(A) op(B) + bias(N), added to D if `add`; A and B as for onednn_matmul. */
static void product(Tensor D, const void *A, const void *B, DType dtype, Tensor bias, int64_t M, int64_t N, int64_t K,
                    int transpose_a, int transpose_b, int add) {
    if (M > 0 && N > 0 && K > 0 &&
        onednn_matmul(D.data, D.dtype, A, B, dtype, bias.data, bias.dtype, M, N, K, transpose_a, transpose_b, add)) return;
    portable_matmul(D.data, D.dtype, A, B, dtype, bias.data, bias.dtype, M, N, K, transpose_a, transpose_b, add);
}

static Tensor floats(float *memory) { return tensor(memory, F32, 1, 0, 0, 0, 0); }
static Tensor from_element(Tensor t, int64_t offset) { t.data = element(t, offset); return t; }

/* How many rows a block has whose sums are to stay in the threads' caches. */
static int64_t block_rows(int64_t N) { return at_most(N, at_most((int64_t)ROWS_A_THREAD * omp_get_max_threads(), ROWS_AT_MOST)); }

/* pre = sums, unless absent or the sums' own memory; out = act(sums): n elements at `offset`. The sums may be overwritten. */
static void finish(Tensor out, Tensor pre, int64_t offset, int64_t n, float *sums, Activation act) {
    if (pre.data) store_floats(pre, offset, n, sums);
    float *result = write_floats(out, offset, sums);
    activate(result, sums, n, act);
    wrote_floats(out, offset, n, result);
}

static void forward_blocks(Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, int64_t N, int64_t IC, int64_t OC) {
    int64_t rows = block_rows(N);
    float *buffer = out.dtype == F32 ? NULL : scratch(rows * OC);
    for (int64_t row = 0; row < N; row += rows) {
        int64_t n = at_most(rows, N - row);
        float *sums = write_floats(pre.data ? pre : out, row * OC, buffer);
        product(floats(sums), element(x, row * IC), w.data, x.dtype, bias, n, OC, IC, 0, 1, 0);
        #pragma omp parallel for
        for (int64_t i = 0; i < n * OC; i += ACTIVATION_PIECE)
            finish(out, pre, row * OC + i, at_most(ACTIVATION_PIECE, n * OC - i), sums + i, act);
    }
}

static inline float dot(const float *x, const void *w, DType dtype, int64_t n) {
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i] * load(w, dtype, i);
    return sum;
}

/* One row, as in generation: bound by reading the weights, which it does once and in order. */
static void forward_row(Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, int64_t IC, int64_t OC) {
    const float *row = read_floats(x, 0, IC, x.dtype == F32 ? NULL : scratch(IC));
    #pragma omp parallel for
    for (int64_t column = 0; column < OC; column += ROW_PIECE) {
        float sums[ROW_PIECE];
        int64_t n = at_most(ROW_PIECE, OC - column);
        for (int64_t i = 0; i < n; i++) {
            const void *weights = element(w, (column + i) * IC);
            sums[i] = w.dtype == BF16 ? dot(row, weights, BF16, IC) : dot(row, weights, F32, IC);
        }
        if (bias.data) add_floats(sums, bias, column, n);
        finish(out, pre, column, n, sums, act);
    }
}

void cpu_matmul_forward(Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, Stream *s) {
    (void)s;
    int64_t N = rows_of(x), IC = last_dim(x), OC = last_dim(out);
    if (N == 1) forward_row(out, pre, x, w, bias, act, IC, OC);
    else if (act == ACT_NONE) product(out, x.data, w.data, x.dtype, bias, N, OC, IC, 0, 1, 0);
    else forward_blocks(out, pre, x, w, bias, act, N, IC, OC);
}

void cpu_matmul_add_forward(Tensor out, Tensor x, Tensor w, Tensor bias, Tensor add, Stream *s) {
    (void)s;
    memcpy(out.data, add.data, tensor_bytes(out));
    product(out, x.data, w.data, x.dtype, bias, rows_of(x), last_dim(out), last_dim(x), 0, 1, 1);
}

/* sums[i] *= act'(pre[i]) for n elements at `offset`, stored into dx */
static void finish_backward(Tensor dx, Tensor pre, int64_t offset, int64_t n, float *sums, Activation act) {
    static _Thread_local float buffer[ACTIVATION_PIECE];
    activation_backward(sums, read_floats(pre, offset, n, buffer), n, act);
    wrote_floats(dx, offset, n, sums);
}

void cpu_matmul_backward_input(Tensor dx, Tensor dout, Tensor w, Tensor pre, Activation act, Stream *s) {
    (void)s;
    int64_t N = rows_of(dx), IC = last_dim(dx), OC = last_dim(dout);
    if (act == ACT_NONE) {
        product(dx, dout.data, w.data, dout.dtype, no_tensor(), N, IC, OC, 0, 0, 0);
        return;
    }
    int64_t rows = block_rows(N);
    float *buffer = dx.dtype == F32 ? NULL : scratch(rows * IC);
    for (int64_t row = 0; row < N; row += rows) {
        int64_t n = at_most(rows, N - row);
        float *sums = write_floats(dx, row * IC, buffer);
        product(floats(sums), element(dout, row * OC), w.data, dout.dtype, no_tensor(), n, IC, OC, 0, 0, 0);
        #pragma omp parallel for
        for (int64_t i = 0; i < n * IC; i += ACTIVATION_PIECE)
            finish_backward(dx, pre, row * IC + i, at_most(ACTIVATION_PIECE, n * IC - i), sums + i, act);
    }
}

/* sums(OC) = the sum of rows [first, last) of dout(.,OC) */
static inline void sum_rows(float *sums, const void *dout, DType dtype, int64_t OC, int64_t first, int64_t last) {
    memset(sums, 0, (size_t)OC * sizeof *sums);
    int64_t row = first;
    for (; row + 4 <= last; row += 4) {
        int64_t r0 = row * OC, r1 = r0 + OC, r2 = r1 + OC, r3 = r2 + OC;
        #pragma omp simd
        for (int64_t i = 0; i < OC; i++)
            sums[i] += (load(dout, dtype, r0 + i) + load(dout, dtype, r1 + i)) + (load(dout, dtype, r2 + i) + load(dout, dtype, r3 + i));
    }
    for (; row < last; row++) {
        #pragma omp simd
        for (int64_t i = 0; i < OC; i++) sums[i] += load(dout, dtype, row * OC + i);
    }
}

/* db(OC) (+)= the column sums of dout(N,OC): each SUM_ROWS rows make a partial sum, which are then added in order. */
static void column_sums(float *db, Tensor dout, int64_t N, int64_t OC, int add) {
    int64_t parts = (N + SUM_ROWS - 1) / SUM_ROWS;
    float *partial = scratch(parts * OC);
    #pragma omp parallel for
    for (int64_t part = 0; part < parts; part++) {
        int64_t first = part * SUM_ROWS, last = at_most(first + SUM_ROWS, N);
        if (dout.dtype == BF16) sum_rows(partial + part * OC, dout.data, BF16, OC, first, last);
        else sum_rows(partial + part * OC, dout.data, F32, OC, first, last);
    }
    if (!add) memset(db, 0, (size_t)OC * sizeof *db);
    for (int64_t part = 0; part < parts; part++) {
        #pragma omp simd
        for (int64_t i = 0; i < OC; i++) db[i] += partial[part * OC + i];
    }
}

void cpu_matmul_backward_weight(Tensor dw, Tensor db, Tensor dout, Tensor x, int accumulate, Stream *s) {
    (void)s;
    int64_t N = rows_of(x), IC = last_dim(x), OC = last_dim(dout), rows = OC * IC <= WEIGHT_CACHED ? WEIGHT_ROWS : N, row = 0;
    do {
        int64_t n = at_most(rows, N - row);
        if (db.data) column_sums(db.data, from_element(dout, row * OC), n, OC, accumulate || row > 0);
        product(dw, element(dout, row * OC), element(x, row * IC), x.dtype, no_tensor(), OC, IC, n, 1, 0, accumulate || row > 0);
        row += rows;
    } while (row < N);
}
