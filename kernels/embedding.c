/* embedding.c: token vectors plus position vectors, and their gradients. */
#include "cpu.h"

enum { CHUNK = 1024, CACHE_LINE = 16 /* floats */ };

static int32_t token_at(Tensor tokens, int64_t row) { return ((const int32_t *)tokens.data)[row]; }

void cpu_embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, Stream *s) {
    (void)s;
    int64_t N = tensor_numel(tokens), T = last_dim(tokens), C = last_dim(wte);
    #pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < N; row++) {
        float out_buffer[CHUNK], wte_buffer[CHUNK], wpe_buffer[CHUNK];
        for (int64_t c = 0; c < C; c += CHUNK) {
            int64_t n = C - c < CHUNK ? C - c : CHUNK;
            const float *word = read_floats(wte, token_at(tokens, row) * C + c, n, wte_buffer);
            float *sum = write_floats(out, row * C + c, out_buffer);
            if (wpe.data) {
                const float *position = read_floats(wpe, row % T * C + c, n, wpe_buffer);
                #pragma omp simd
                for (int64_t i = 0; i < n; i++) sum[i] = word[i] + position[i];
            } else {
                memcpy(sum, word, (size_t)n * sizeof *sum);
            }
            wrote_floats(out, row * C + c, n, sum);
        }
    }
}

/* Columns c ... c + n - 1 of an F32 matrix. */
static void clear_columns(Tensor matrix, int64_t c, int64_t n) {
    int64_t C = last_dim(matrix), rows = tensor_numel(matrix) / C;
    for (int64_t row = 0; row < rows; row++) memset((float *)matrix.data + row * C + c, 0, (size_t)n * sizeof(float));
}

static void add_columns(Tensor matrix, int64_t row, int64_t c, int64_t n, const float *addend) {
    float *sum = (float *)matrix.data + row * last_dim(matrix) + c;
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) sum[i] += addend[i];
}

/* Whole columns belong to one thread, so no two threads add to the same place and the order of additions is always the same. */
void cpu_embedding_backward(Tensor dwte, Tensor dwpe, Tensor dout, Tensor tokens, int accumulate_wte, int accumulate_wpe, Stream *s) {
    (void)s;
    int64_t T = last_dim(tokens), B = tensor_numel(tokens) / T, C = last_dim(dout);
    int64_t share = (C + omp_get_max_threads() - 1) / omp_get_max_threads();
    int64_t width = share < CHUNK ? (share + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE : CHUNK;
    #pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < C; c += width) {
        float buffer[CHUNK];
        int64_t n = C - c < width ? C - c : width;
        if (dwte.data && !accumulate_wte) clear_columns(dwte, c, n);
        if (dwpe.data && !accumulate_wpe) clear_columns(dwpe, c, n);
        for (int64_t t = 0; t < T; t++) {
            for (int64_t b = 0; b < B; b++) {
                const float *gradient = read_floats(dout, (b * T + t) * C + c, n, buffer);
                if (dwte.data) add_columns(dwte, token_at(tokens, b * T + t), c, n, gradient);
                if (dwpe.data) add_columns(dwpe, t, c, n, gradient);
            }
        }
    }
}
