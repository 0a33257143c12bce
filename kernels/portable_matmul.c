/* portable_matmul.c: the matrix product in plain C, for builds without oneDNN and for products that it lacks. The result is cut into
   tiles, one a task. Slices of A and B are packed as floats, zero-padded, in the order in which the inner loop reads them: A in panels
   of 6 rows, B in panels of two vectors of columns, whose 6 x 2 vectors of sums stay in registers. A tile's sums are added in the same
   order whatever the number of threads. */
#include "cpu.h"
#include "onednn.h"

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES), may_alias));
enum { PANEL_M = 6, PANEL_N = 2 * LANES, TILE_M = 96, TILE_N = 192, TILE_K = 256 };   /* tiles are whole panels */

static _Thread_local _Alignas(64) float packed_a[TILE_M * TILE_K], packed_b[TILE_N * TILE_K], tile[TILE_M * TILE_N];

static inline float load(const void *memory, DType dtype, int64_t i) {
    return dtype == BF16 ? bf16_to_float(((const uint16_t *)memory)[i]) : ((const float *)memory)[i];
}

/* packed[panel][k][lane] = element `panel * width + lane` of the outer axis, number k of the inner one; zero beyond `count`. */
static inline void pack_panels(float *packed, int width, const void *memory, DType dtype, int64_t origin, int64_t outer_stride,
                               int64_t inner_stride, int count, int K) {
    for (int first = 0; first < count; first += width, packed += width * K)
        for (int lane = 0; lane < width; lane++) {
            int64_t start = origin + (first + lane) * outer_stride;
            int filled = first + lane < count ? K : 0;
            for (int k = 0; k < filled; k++) packed[k * width + lane] = load(memory, dtype, start + k * inner_stride);
            for (int k = filled; k < K; k++) packed[k * width + lane] = 0;
        }
}
static void pack(float *packed, int width, const void *memory, DType dtype, int64_t origin, int64_t outer_stride, int64_t inner_stride,
                 int count, int K) {
    if (dtype == BF16) pack_panels(packed, width, memory, BF16, origin, outer_stride, inner_stride, count, K);
    else pack_panels(packed, width, memory, F32, origin, outer_stride, inner_stride, count, K);
}

/* sums(6,PANEL_N), a corner of the tile, += a(K,6)^T b(K,PANEL_N) */
static inline void multiply_panels(float *sums, const float *a, const float *b, int K) {
    Lanes left[PANEL_M] = {{0}}, right[PANEL_M] = {{0}};
    for (int k = 0; k < K; k++, a += PANEL_M, b += PANEL_N)
        for (int i = 0; i < PANEL_M; i++) {
            left[i] += a[i] * *(const Lanes *)b;
            right[i] += a[i] * *(const Lanes *)(b + LANES);
        }
    for (int i = 0; i < PANEL_M; i++, sums += TILE_N) {
        *(Lanes *)sums += left[i];
        *(Lanes *)(sums + LANES) += right[i];
    }
}

static inline int at_most(int most, int64_t n) { return n < most ? (int)n : most; }

void portable_matmul(void *D, DType d_dtype, const void *A, const void *B, DType ab_dtype, const void *bias, DType bias_dtype,
                     int64_t M, int64_t N, int64_t K, int transpose_a, int transpose_b, int add) {
    int64_t a_outer = transpose_a ? 1 : K, a_inner = transpose_a ? M : 1, b_outer = transpose_b ? K : 1, b_inner = transpose_b ? 1 : N;
    #pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t m = 0; m < M; m += TILE_M)
        for (int64_t n = 0; n < N; n += TILE_N) {
            int rows = at_most(TILE_M, M - m), columns = at_most(TILE_N, N - n);
            memset(tile, 0, sizeof tile);
            for (int64_t k = 0; k < K; k += TILE_K) {
                int depth = at_most(TILE_K, K - k);
                pack(packed_a, PANEL_M, A, ab_dtype, m * a_outer + k * a_inner, a_outer, a_inner, rows, depth);
                pack(packed_b, PANEL_N, B, ab_dtype, n * b_outer + k * b_inner, b_outer, b_inner, columns, depth);
                for (int j = 0; j < columns; j += PANEL_N)
                    for (int i = 0; i < rows; i += PANEL_M)
                        multiply_panels(tile + i * TILE_N + j, packed_a + i * depth, packed_b + j * depth, depth);
            }
            for (int i = 0; i < rows; i++) {
                float *sums = tile + i * TILE_N;
                int64_t first = (m + i) * N + n;
                for (int j = 0; bias && j < columns; j++) sums[j] += load(bias, bias_dtype, n + j);
                for (int j = 0; add && j < columns; j++) sums[j] += load(D, d_dtype, first + j);
                if (d_dtype == BF16) bf16_of_floats((uint16_t *)D + first, sums, columns);
                else memcpy((float *)D + first, sums, (size_t)columns * sizeof *sums);
            }
        }
}
