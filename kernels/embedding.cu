/* embedding.cu: token vectors plus position vectors, and their gradients without float atomics.

   For the tokens' gradient the rows of dout are taken in the order of their tokens (a radix sort of row numbers, stable, by integer
   counts), in tiles of 32: whatever the batch looks like, each tile is as much work. Within a tile the rows of one token are added up in
   registers and then added to dwte. Where a token's rows go on from one tile into others, these others put their part into scratch, and a
   last launch adds the parts in order. Rows that no token names are not touched. Memory moved: dout once, and dwte of the tokens that
   occur. */
#include "packs.cuh"

enum { BLOCK = 128, ROWS = 4, AHEAD = 8 /* rows on their way to a thread */ };

/* ---- forward -------------------------------------------------------------------------------------------------------------------- */

/* out(B,T,C) = wte[tokens(B,T)] + wpe[t]. A thread takes one pack of one position in ROWS rows of the batch, so that wpe is read once. */
template <class P> __global__ void __launch_bounds__(BLOCK)
embedding_kernel(ElementOf<P> *out, const int32_t *tokens, const ElementOf<P> *wte, const ElementOf<P> *wpe, int B, int T, int C) {
    const unsigned packs = C / P::N, item = blockIdx.x * BLOCK + threadIdx.x;
    const int column = item % packs * P::N, t = item / packs % T, first = item / packs / T * ROWS;
    if (first >= B) return;
    int token[ROWS];
    P row[ROWS], position = P();
    #pragma unroll
    for (int i = 0; i < ROWS; i++) token[i] = tokens[(int64_t)(first + i < B ? first + i : first) * T + t];
    #pragma unroll
    for (int i = 0; i < ROWS; i++) row[i] = load_pack<P>(wte + (int64_t)token[i] * C + column);
    if (wpe) position = load_pack<P>(wpe + (int64_t)t * C + column);
    #pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (first + i >= B) continue;
        float sum[P::N];
        #pragma unroll
        for (int k = 0; k < P::N; k++) sum[k] = element(row[i], k) + element(position, k);
        store_pack(out + ((int64_t)(first + i) * T + t) * C + column, pack_floats<P>(sum));
    }
}

void cuda_embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, Stream *s) {
    const int64_t T = last_dim(tokens), B = tensor_numel(tokens) / T, C = last_dim(wte);
    by_pack(out.dtype, rows_aligned(out.dtype, C, out, wte, wpe), [&](auto pack) {
        typedef decltype(pack) P;
        typedef ElementOf<P> E;
        const int64_t items = ceil_div(B, ROWS) * T * (C / P::N);
        LAUNCH((embedding_kernel<P>), (unsigned)ceil_div(items, BLOCK), BLOCK, 0, cuda_stream(s), (E *)out.data,
               (const int32_t *)tokens.data, (const E *)wte.data, (const E *)wpe.data, (int)B, (int)T, (int)C);
    });
}

/* sum += the packs at p, p + stride, ..., n of them in this order. A batch of loads is carried from one turn of the loop to the next: else
   the compiler would put each load beside its addition, and wait. */
template <class P> __device__ __forceinline__ void sum_rows(float (&sum)[P::N], const ElementOf<P> *p, int64_t stride, int n) {
    const int whole = n / AHEAD * AHEAD;
    P row[AHEAD] = {}, next[AHEAD] = {};
    if (whole > 0) {
        #pragma unroll
        for (int j = 0; j < AHEAD; j++) row[j] = load_pack_stream<P>(p + j * stride);
    }
    for (int i = AHEAD; i <= whole; i += AHEAD) {
        if (i < whole) {
            #pragma unroll
            for (int j = 0; j < AHEAD; j++) next[j] = load_pack_stream<P>(p + (i + j) * stride);
        }
        #pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            for (int k = 0; k < P::N; k++) sum[k] += element(row[j], k);
            row[j] = next[j];
        }
    }
    for (int i = whole; i < n; i++) {
        const P last = load_pack_stream<P>(p + i * stride);
        for (int k = 0; k < P::N; k++) sum[k] += element(last, k);
    }
}

/* ---- the gradient of the positions ---------------------------------------------------------------------------------------------- */

/* dwpe(maxT,C) (+)= the sum of dout(B,T,C) over the batch, nothing from position T on. A thread takes one pack of one position. */
template <class P> __global__ void __launch_bounds__(BLOCK)
positions_backward_kernel(float *dwpe, const ElementOf<P> *dout, int B, int T, int maxT, int C, int accumulate) {
    const unsigned packs = C / P::N, item = blockIdx.x * BLOCK + threadIdx.x;
    const int column = item % packs * P::N, t = item / packs;
    if (t >= maxT) return;
    float sum[P::N] = {};
    if (t < T) sum_rows<P>(sum, dout + (int64_t)t * C + column, (int64_t)T * C, B);
    if (accumulate) add_floats(dwpe + (int64_t)t * C + column, sum);
    else store_floats(dwpe + (int64_t)t * C + column, sum);
}

/* ---- rows in the order of their tokens ------------------------------------------------------------------------------------------ */

/* One pass sorts by one digit of eight bits, the lowest first, and keeps the order of rows whose digits are the same. */
enum { DIGITS = 256, SORT_ROWS = 1024, SORT_WARPS = DIGITS / 32, WARP_ROWS = SORT_ROWS / SORT_WARPS };

/* Before the first pass, `order` NULL, rows stand as they are numbered. */
__device__ __forceinline__ int row_at(const int32_t *order, int i) { return order ? order[i] : i; }
__device__ __forceinline__ int digit_of(int token, int shift) { return token >> shift & (DIGITS - 1); }

/* counts(blocks, DIGITS): the rows of each digit among the SORT_ROWS of a block. */
__global__ void __launch_bounds__(DIGITS)
count_digits_kernel(int32_t *counts, const int32_t *order, const int32_t *tokens, int rows, int shift) {
    SHARED(int, count, [DIGITS]);
    count[threadIdx.x] = 0;
    __syncthreads();
    const int first = blockIdx.x * SORT_ROWS, end = first + SORT_ROWS < rows ? first + SORT_ROWS : rows;
    for (int i = first + threadIdx.x; i < end; i += DIGITS) atomicAdd(&count[digit_of(tokens[row_at(order, i)], shift)], 1);
    __syncthreads();
    counts[blockIdx.x * DIGITS + threadIdx.x] = count[threadIdx.x];
}

/* The sum of v over the threads before this one. */
__device__ __forceinline__ int sum_before(int v) {
    SHARED(int, warp_total, [SORT_WARPS]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = v;
    for (int offset = 1; offset < 32; offset *= 2) {
        const int lower = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += lower;
    }
    if (lane == 31) warp_total[warp] = sum;
    __syncthreads();
    for (int i = 0; i < warp; i++) sum += warp_total[i];
    return sum - v;
}

/* next[warp][digit]: where in the new order the first row of this digit goes that this warp has. Rows of lower digits come before it, then
   those of its digit in blocks, then in warps, before this one. On entry next holds the warps' own counts. */
__device__ __forceinline__ void find_places(int (*next)[DIGITS], const int32_t *counts) {
    const int digit = threadIdx.x;
    int before = 0, total = 0;
    #pragma unroll 4
    for (unsigned block = 0; block < gridDim.x; block++) {
        const int count = counts[block * DIGITS + digit];
        total += count;
        before += block < blockIdx.x ? count : 0;
    }
    int place = sum_before(total) + before;
    for (int warp = 0; warp < SORT_WARPS; warp++) {
        const int count = next[warp][digit];
        next[warp][digit] = place;
        place += count;
    }
}

__global__ void __launch_bounds__(DIGITS)
sort_digit_kernel(int32_t *sorted, const int32_t *order, const int32_t *counts, const int32_t *tokens, int rows, int shift) {
    SHARED(int, next, [SORT_WARPS][DIGITS]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * SORT_ROWS + warp * WARP_ROWS;
    for (int i = threadIdx.x; i < SORT_WARPS * DIGITS; i += DIGITS) next[i / DIGITS][i % DIGITS] = 0;
    __syncthreads();
    int row[WARP_ROWS / 32], digit[WARP_ROWS / 32];
    #pragma unroll
    for (int r = 0; r < WARP_ROWS / 32; r++) {
        const int i = first + 32 * r + lane;
        row[r] = i < rows ? row_at(order, i) : 0;
        digit[r] = digit_of(tokens[row[r]], shift);
        if (i < rows) atomicAdd(&next[warp][digit[r]], 1);
    }
    __syncthreads();
    find_places(next, counts);
    __syncthreads();
    #pragma unroll
    for (int r = 0; r < WARP_ROWS / 32; r++) {
        const bool present = first + 32 * r + lane < rows;
        unsigned same = __ballot_sync(0xffffffffu, present);   /* lanes that have a row of the same digit */
        #pragma unroll
        for (int bit = 1; bit < DIGITS; bit *= 2) {
            const unsigned set = __ballot_sync(0xffffffffu, (digit[r] & bit) != 0);
            same &= digit[r] & bit ? set : ~set;
        }
        const int place = next[warp][digit[r]], lower = __popc(same & ((1u << lane) - 1));
        __syncwarp();
        if (present) {
            sorted[place + lower] = row[r];
            if (same >> lane == 1) next[warp][digit[r]] = place + __popc(same);   /* this lane is the last of them */
        }
        __syncwarp();
    }
}

/* Fills order(2, rows) with row numbers sorted by token, those of one token ascending, and returns the half in which the result is. */
static int32_t *sort_rows(int32_t *order, int32_t *counts, const int32_t *tokens, int rows, int64_t V, Stream *s) {
    const unsigned blocks = (unsigned)ceil_div(rows, SORT_ROWS);
    int32_t *from = NULL, *to = order;
    for (int shift = 0; shift == 0 || (V - 1) >> shift; shift += 8) {
        LAUNCH(count_digits_kernel, blocks, DIGITS, 0, cuda_stream(s), counts, from, tokens, rows, shift);
        LAUNCH(sort_digit_kernel, blocks, DIGITS, 0, cuda_stream(s), to, from, counts, tokens, rows, shift);
        from = to;
        to = from == order ? order + rows : order;
    }
    return from;
}

/* ---- the gradient of the tokens ------------------------------------------------------------------------------------------------- */

/* A tile is as many rows as a warp has lanes. */
enum { TILE = 32, WARPS = 4 };

__device__ __forceinline__ int token_at(const int32_t *tokens, const int32_t *order, int i) { return tokens[order[i]]; }

/* A warp takes 32 packs of columns of a tile. dwte(V,C) += the sums of dout(rows,C) over the tile's rows of each token; if the tile's first
   rows belong to a token of the tile before, their sum goes to carried(tiles,C) instead. */
template <class P> __global__ void __launch_bounds__(32 * WARPS)
tokens_backward_kernel(float *dwte, float *carried, const ElementOf<P> *dout, const int32_t *order, const int32_t *tokens, int rows,
                       int C) {
    const int groups = (C / P::N + 31) / 32, lane = threadIdx.x % 32;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int tile = (int)(item / groups), column = (int)(item % groups * 32 + lane) * P::N, first = tile * TILE;
    if (first >= rows) return;
    const ElementOf<P> *source = dout + (column < C ? column : 0);   /* all lanes load, so that no load waits for a condition */
    const int n = rows - first < TILE ? rows - first : TILE, my_row = lane < n ? order[first + lane] : 0, my_token = tokens[my_row];
    int token = __shfl_sync(0xffffffffu, my_token, 0);
    bool carry = first > 0 && token_at(tokens, order, first - 1) == token;
    float sum[P::N] = {};
    const auto add_run = [&] {
        if (carry) store_floats(carried + (int64_t)tile * C + column, sum);
        else add_floats(dwte + (int64_t)token * C + column, sum);
    };
    for (int i = 0; i < n; i += AHEAD) {
        P row[AHEAD];
        #pragma unroll
        for (int j = 0; j < AHEAD; j++) row[j] = load_pack_stream<P>(source + (int64_t)__shfl_sync(0xffffffffu, my_row, i + j) * C);
        #pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int next = __shfl_sync(0xffffffffu, my_token, i + j);
            if (i + j >= n) continue;
            if (next != token) {
                if (column < C) add_run();
                for (int k = 0; k < P::N; k++) sum[k] = 0;
                token = next;
                carry = false;
            }
            for (int k = 0; k < P::N; k++) sum[k] += element(row[j], k);
        }
    }
    if (column < C) add_run();
}

/* The warps of the first tile into which a token's rows go on add the parts of all tiles into which they do. P: of floats. */
template <class P> __global__ void __launch_bounds__(32 * WARPS)
tokens_carry_kernel(float *dwte, const float *carried, const int32_t *order, const int32_t *tokens, int rows, int C) {
    const int groups = (C / P::N + 31) / 32, lane = threadIdx.x % 32;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int tile = (int)(item / groups) + 1, column = (int)(item % groups * 32 + lane) * P::N, first = tile * TILE;
    if (first >= rows) return;
    const int token = token_at(tokens, order, first);
    if (token_at(tokens, order, first - 1) != token) return;
    if (tile > 1 && token_at(tokens, order, first - TILE - 1) == token) return;   /* the tile before is not where they begin */
    int parts = 0, more = 32;
    while (more == 32) {
        const int64_t start = first + (int64_t)(parts + lane) * TILE;
        more = __popc(__ballot_sync(0xffffffffu, start < rows && token_at(tokens, order, (int)start) == token));
        parts += more;
    }
    if (column >= C) return;
    float sum[P::N] = {};
    sum_rows<P>(sum, carried + (int64_t)tile * C + column, C, parts);
    add_floats(dwte + (int64_t)token * C + column, sum);
}

/* Scratch for so many rows: what is carried, two orders of rows, counts. */
static int64_t slice_floats(int64_t rows, int64_t C) { return ceil_div(rows, TILE) * C + 2 * rows + ceil_div(rows, SORT_ROWS) * DIGITS; }

/* dwte += the gradients of `rows` rows. */
template <class P> void tokens_backward(Tensor dwte, const ElementOf<P> *dout, const int32_t *tokens, int rows, int C, Stream *s) {
    const int64_t tiles = ceil_div(rows, TILE), groups = ceil_div(C / P::N, 32);
    float *carried = reduction_scratch((size_t)slice_floats(rows, C));
    int32_t *both = reinterpret_cast<int32_t *>(carried + tiles * C);
    int32_t *order = sort_rows(both, both + 2 * rows, tokens, rows, tensor_numel(dwte) / C, s);
    LAUNCH((tokens_backward_kernel<P>), (unsigned)ceil_div(tiles * groups, WARPS), 32 * WARPS, 0, cuda_stream(s), (float *)dwte.data,
           carried, dout, order, tokens, rows, C);
    typedef std::conditional_t<P::N == 1, Single<float>, Vec<float>> F;
    if (tiles > 1)
        LAUNCH((tokens_carry_kernel<F>), (unsigned)ceil_div((tiles - 1) * ceil_div(C / F::N, 32), WARPS), 32 * WARPS, 0, cuda_stream(s),
               (float *)dwte.data, carried, order, tokens, rows, C);
}

/* A batch of very many rows is taken in slices, one after another, for which scratch suffices. */
void cuda_embedding_backward(Tensor dwte, Tensor dwpe, Tensor dout, Tensor tokens, int accumulate_wte, int accumulate_wpe, Stream *s) {
    const int64_t T = last_dim(tokens), N = tensor_numel(tokens), C = last_dim(dout);
    if (dwte.data && !accumulate_wte) CUDA_CHECK(cudaMemsetAsync(dwte.data, 0, tensor_bytes(dwte), cuda_stream(s)));
    by_pack(dout.dtype, rows_aligned(dout.dtype, C, dout, dwte, dwpe), [&](auto pack) {
        typedef decltype(pack) P;
        typedef ElementOf<P> E;
        if (dwpe.data) {
            const int64_t maxT = tensor_numel(dwpe) / C;
            LAUNCH((positions_backward_kernel<P>), (unsigned)ceil_div(maxT * (C / P::N), BLOCK), BLOCK, 0, cuda_stream(s),
                   (float *)dwpe.data, (const E *)dout.data, (int)(N / T), (int)T, (int)maxT, (int)C, accumulate_wpe);
        }
        int64_t most = 128 * SORT_ROWS;
        while (most > 1 && slice_floats(most, C) > REDUCTION_FLOATS) most /= 2;
        for (int64_t first = 0; dwte.data && first < N; first += most)
            tokens_backward<P>(dwte, (const E *)dout.data + first * C, (const int32_t *)tokens.data + first,
                               (int)(N - first < most ? N - first : most), (int)C, s);
    });
}
