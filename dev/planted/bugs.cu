/* bugs.cu: kernels with a bug each. `bugs NAME` runs one: exit status 0 if the answer is right and nothing was noticed, 3 if it is
   wrong; else the emulator or a sanitizer ended it. Without an argument: the names. expected.txt says who catches which. */
#include "kernels/cu.h"

#include <functional>
#include <map>
#include <string>
#include <vector>

/* Stand in for cuda.cu's. */
void cuda_launched(const char *, const char *, int) {
    if (cudaGetLastError() != cudaSuccess) emu::fail("a launch is blamed for an error that nobody had looked at");
}
void cuda_failed(const char *, const char *, const char *, int) { abort(); }

/* ---- out of bounds ------------------------------------------------------------------------------------------------------------------- */

__global__ void shared_index(float *out, int n) {
    SHARED(float, s, [64]);
    s[threadIdx.x] = 1;
    __syncthreads();
    s[threadIdx.x + n] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
__global__ void shared_pointer(float *out, int n) {
    SHARED(float, s, [64]);
    float *p = s;
    p[threadIdx.x] = 1;
    __syncthreads();
    p[threadIdx.x + n] = 1;
    __syncthreads();
    out[threadIdx.x] = p[threadIdx.x];
}
__global__ void shared_read(float *out, int n) {
    SHARED(float, s, [64]);
    float *p = s;
    p[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = p[threadIdx.x + n];
}
__global__ void carved(float *out, int n) {
    SMEM_CARVER(shared);
    float *a = shared.take<float>(64), *b = shared.take<float>(64);
    b[threadIdx.x] = 2;
    __syncthreads();
    a[threadIdx.x + n] = 1;
    __syncthreads();
    out[threadIdx.x] = b[threadIdx.x];
}
__global__ void cut_by_hand(float *out, int n) {
    SMEM_CARVER(shared);
    float *a = shared.take<float>(128), *b = a + 64;
    b[threadIdx.x] = 2;
    __syncthreads();
    a[threadIdx.x + n] = 1;
    __syncthreads();
    out[threadIdx.x] = b[threadIdx.x];
}
__global__ void global_write(float *out, int n) { out[(int)threadIdx.x + n] = 1; }
__global__ void global_read(float *out, const float *x, int n) { out[threadIdx.x] = x[threadIdx.x + n]; }
__global__ void local_array(float *out, int n) {
    float r[8], sum = 0;
    for (int i = 0; i < n; i++) r[i] = (float)i;
    for (int i = 0; i < 8; i++) sum += r[i];
    out[threadIdx.x] = sum;
}
__global__ void set(float *out, float v) { out[threadIdx.x] = v; }
__global__ void index_overflows(float *out, int row, int P) {
    const long i = row * P;
    out[0] = i > 0 ? 1.0f : 2.0f;
}

/* ---- barriers and races -------------------------------------------------------------------------------------------------------------- */

__global__ void no_barrier(float *out) {
    SHARED(float, s, [128]);
    const int t = threadIdx.x;
    s[t] = (float)t;
    out[t] = s[127 - t];
}
__global__ void no_barrier_before_write(float *out) {
    SHARED(float, s, [128]);
    const int t = threadIdx.x;
    s[t] = (float)t;
    __syncthreads();
    const float v = s[(t + 64) % 128];
    s[t] = v + 1;
    __syncthreads();
    out[t] = s[t];
}
__global__ void no_warp_barrier(float *out) {
    SHARED(float, s, [32]);
    s[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = s[31 - threadIdx.x];
}
__global__ void shuffle_as_barrier(float *out) {
    SHARED(float, s, [32]);
    s[threadIdx.x] = (float)threadIdx.x;
    const float nothing = __shfl_xor_sync(0xffffffffu, 0.0f, 1);
    out[threadIdx.x] = s[31 - threadIdx.x] + nothing;
}
template <int BLOCK> __device__ float sum_without_first_barrier(float v) {
    SHARED(float, part, [BLOCK / 32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_sum(v);
    if (lane == 0) part[warp] = v;
    __syncthreads();
    return warp_sum(lane < BLOCK / 32 ? part[lane] : 0.0f);
}
__global__ void reduce_twice(float *out) {
    const float a = sum_without_first_barrier<256>(1), b = sum_without_first_barrier<256>(2);
    out[threadIdx.x] = a + b;
}
__global__ void left_neighbour(float *out) {
    SHARED(float, s, [256]);
    s[threadIdx.x] = 1;
    out[threadIdx.x] = threadIdx.x ? s[threadIdx.x - 1] : 1;
}
__global__ void same_value(float *out) {
    SHARED(int, flag, );
    flag = 1;
    __syncthreads();
    out[threadIdx.x] = (float)flag;
}
__global__ void half_barrier(float *out) {
    if (threadIdx.x < 64) __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void two_barriers(float *out) {
    out[threadIdx.x] = 1;
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
__global__ void early_return(float *out, int n) {
    if ((int)threadIdx.x >= n) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void blocks_add(float *out) {
    if (threadIdx.x == 0) out[0] += 1;
}
__global__ void atomic_then_read(float *out, float *seen) {
    if (threadIdx.x == 0) {
        atomicAdd(out, 1.0f);
        seen[blockIdx.x] = out[0];
    }
}

/* ---- warp operations ----------------------------------------------------------------------------------------------------------------- */

__global__ void half_warp(float *out) {
    float v = 1;
    if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);
    out[threadIdx.x] = v;
}
__global__ void ragged_loop(float *out, int n) {
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += 32) sum += warp_sum(1);
    out[threadIdx.x] = sum;
}
__global__ void source_not_in_mask(float *out) {
    float v = 1;
    if (threadIdx.x < 16) v = __shfl_sync(0x0000ffffu, v, 20);
    out[threadIdx.x] = v;
}
__global__ void mixed_operations(float *out) {
    float v = 1;
    if (threadIdx.x & 1) v = __shfl_xor_sync(0xffffffffu, v, 1);
    else v = __shfl_down_sync(0xffffffffu, v, 1);
    out[threadIdx.x] = v;
}
__global__ void partial_warp(float *out) { out[threadIdx.x] = warp_sum(1); }

/* ---- memory -------------------------------------------------------------------------------------------------------------------------- */

__global__ void misaligned_plain(float *out) { out[0] = reinterpret_cast<float4 *>(out + 1)->x; }
__global__ void misaligned_pack(float *out) { out[0] = ld128(out + 1).v[0]; }
__global__ void copy_without_wait(float *out, const float *x) {
    SHARED(float, s, [128]);
    const int t = threadIdx.x * 4;
    cp_async16(s + t, x + t);
    cp_async_commit();
    __syncthreads();
    for (int i = t; i < t + 4; i++) out[i] = s[i];
    cp_async_wait<0>();
}
__global__ void copy_without_barrier(float *out, const float *x) {
    SHARED(float, s, [128]);
    const int t = threadIdx.x * 4;
    cp_async16(s + t, x + t);
    cp_async_commit();
    cp_async_wait<0>();
    for (int i = t; i < t + 4; i++) out[i] = s[127 - i];
}
__global__ void unwritten_shared(float *out) {
    SHARED(float, s, [64]);
    if (threadIdx.x < 63) s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[63] + 1;
}
__global__ void much_shared(float *out) {
    SMEM_CARVER(shared);
    float *s = shared.take<float>(15000);
    s[threadIdx.x] = 1;
    out[threadIdx.x] = s[threadIdx.x];
}

/* ---- the cases ----------------------------------------------------------------------------------------------------------------------- */

static float *filled(size_t n, float value = 0) {
    float *memory;
    const std::vector<float> host(n, value);
    cudaMalloc(&memory, n * sizeof(float));
    cudaMemcpy(memory, host.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    return memory;
}
/* The exit status: do the n values at out equal want(i)? */
static int answer(const float *out, int n, float (*want)(int)) {
    std::vector<float> host((size_t)n);
    cudaMemcpy(host.data(), out, (size_t)n * sizeof(float), cudaMemcpyDeviceToHost);
    for (int i = 0; i < n; i++)
        if (!(host[(size_t)i] == want(i))) return 3;
    return 0;
}
static float one(int) { return 1; }
static float two(int) { return 2; }

static std::map<std::string, std::function<int()>> cases() {
    std::map<std::string, std::function<int()>> c;
#define CASE(name, n, want, ...) c[#name] = [] { float *out = filled(n); LAUNCH(name, __VA_ARGS__); return answer(out, n, want); }
    CASE(shared_index, 64, one, 1, 64, 0, 0, out, 1);
    CASE(shared_pointer, 64, one, 1, 64, 0, 0, out, 1);
    CASE(shared_read, 64, one, 1, 64, 0, 0, out, 1);
    CASE(carved, 64, two, 1, 64, 128 * 4, 0, out, 1);
    CASE(cut_by_hand, 64, two, 1, 64, 128 * 4, 0, out, 1);
    c["carves_too_much"] = [] { float *out = filled(64); LAUNCH(carved, 1, 64, 100 * 4, 0, out, 0); return answer(out, 64, two); };
    c["global_write"] = [] { LAUNCH(global_write, 1, 64, 0, 0, filled(64), 1); return 0; };
    c["global_write_odd_size"] = [] { LAUNCH(global_write, 1, 3, 0, 0, filled(3), 1); return 0; };
    c["global_write_before"] = [] { LAUNCH(global_write, 1, 64, 0, 0, filled(64), -1); return 0; };
    c["global_read"] = [] { LAUNCH(global_read, 1, 64, 0, 0, filled(64), filled(64), 1); return 0; };
    c["global_read_odd_size"] = [] {
        float *out = filled(3);
        LAUNCH(global_read, 1, 3, 0, 0, out, filled(3, 1), 1);
        return answer(out, 3, one);
    };
    c["global_in_one_arena"] = [] { LAUNCH(global_write, 1, 64, 0, 0, filled(128), 1); return 0; };
    CASE(local_array, 32, [](int) { return 28.0f; }, 1, 32, 0, 0, out, 9);
    c["use_after_free"] = [] { float *out = filled(64); cudaFree(out); LAUNCH(set, 1, 64, 0, 0, out, 1.0f); return 0; };
    c["host_pointer"] = [] { std::vector<float> host(64); LAUNCH(set, 1, 64, 0, 0, host.data(), 1.0f); return 0; };
    c["host_reads_device"] = [] { return filled(1, 1)[0] == 1 ? 0 : 3; };
    c["copy_overruns"] = [] { float host[65]; cudaMemcpy(host, filled(64), sizeof host, cudaMemcpyDeviceToHost); return 0; };
    c["copy_kind"] = [] { float host[4]; cudaMemcpy(host, filled(4), sizeof host, cudaMemcpyHostToDevice); return 0; };
    CASE(index_overflows, 1, one, 1, 1, 0, 0, out, 65536, 50304);
    CASE(no_barrier, 128, [](int i) { return 127.0f - (float)i; }, 1, 128, 0, 0, out);
    CASE(no_barrier_before_write, 128, [](int i) { return (float)((i + 64) % 128 + 1); }, 1, 128, 0, 0, out);
    CASE(no_warp_barrier, 32, [](int i) { return 31.0f - (float)i; }, 1, 32, 0, 0, out);
    CASE(shuffle_as_barrier, 32, [](int i) { return 31.0f - (float)i; }, 1, 32, 0, 0, out);
    CASE(reduce_twice, 256, [](int) { return 768.0f; }, 1, 256, 0, 0, out);
    CASE(left_neighbour, 256, one, 1, 256, 0, 0, out);
    CASE(same_value, 64, one, 1, 64, 0, 0, out);
    CASE(half_barrier, 128, one, 1, 128, 0, 0, out);
    CASE(two_barriers, 128, one, 1, 128, 0, 0, out);
    c["early_return"] = [] { float *out = filled(128, 1); LAUNCH(early_return, 1, 128, 0, 0, out, 100); return answer(out, 128, one); };
    CASE(blocks_add, 1, [](int) { return 64.0f; }, 64, 32, 0, 0, out);
    CASE(atomic_then_read, 1, [](int) { return 64.0f; }, 64, 32, 0, 0, out, filled(64));
    c["half_warp"] = [] { LAUNCH(half_warp, 1, 32, 0, 0, filled(32)); return 0; };
    c["ragged_loop"] = [] { LAUNCH(ragged_loop, 1, 32, 0, 0, filled(32), 40); return 0; };
    c["source_not_in_mask"] = [] { LAUNCH(source_not_in_mask, 1, 32, 0, 0, filled(32)); return 0; };
    c["mixed_operations"] = [] { LAUNCH(mixed_operations, 1, 32, 0, 0, filled(32)); return 0; };
    c["partial_warp"] = [] { LAUNCH(partial_warp, 1, 40, 0, 0, filled(40)); return 0; };
    c["misaligned_plain"] = [] { LAUNCH(misaligned_plain, 1, 1, 0, 0, filled(64)); return 0; };
    c["misaligned_pack"] = [] { LAUNCH(misaligned_pack, 1, 1, 0, 0, filled(64)); return 0; };
    CASE(copy_without_wait, 128, one, 1, 32, 0, 0, out, filled(128, 1));
    CASE(copy_without_barrier, 128, one, 1, 32, 0, 0, out, filled(128, 1));
    CASE(unwritten_shared, 64, two, 1, 64, 0, 0, out);
    CASE(much_shared, 64, one, 1, 64, 60000, 0, out);
    c["unwritten_global"] = [] {
        float *out = filled(64), *x;
        cudaMalloc(&x, 64 * sizeof(float));
        LAUNCH(global_read, 1, 64, 0, 0, out, x, 0);
        return answer(out, 64, [](int) { return 0.0f; });
    };
    c["block_too_big"] = [] { LAUNCH(set, 1, 2048, 0, 0, filled(2048), 1.0f); return 0; };
    c["wait_in_capture"] = [] {
        cudaStream_t s;
        cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        return cudaStreamSynchronize(s);
    };
    c["pageable_copy_in_capture"] = [] {
        cudaStream_t s;
        std::vector<float> host(64);
        float *x = filled(64);
        cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        cudaMemcpyAsync(x, host.data(), 64 * sizeof(float), cudaMemcpyHostToDevice, s);
        return 0;
    };
    c["error_left_behind"] = [] {
        cudaSetDevice(1);
        LAUNCH(set, 1, 64, 0, 0, filled(64), 1.0f);
        return 0;
    };
    c["stream_forgotten_in_capture"] = [] {
        cudaStream_t s;
        cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        float *out = filled(64);
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        LAUNCH(set, 1, 64, 0, 0, out, 1.0f);
        return 0;
    };
    /* No bug: the arguments are those of the capture, the data those of the launch. */
    c["right_graph"] = [] {
        cudaStream_t s;
        cudaGraph_t graph;
        cudaGraphExec_t run;
        float *out = filled(64), *x = filled(64);
        cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        int shift = 0;
        LAUNCH(global_read, 1, 64, 0, s, out, x, shift);
        shift = 1000;
        cudaStreamEndCapture(s, &graph);
        cudaGraphInstantiate(&run, graph, 0);
        const std::vector<float> ones(64, 1.0f);
        cudaMemcpy(x, ones.data(), 64 * sizeof(float), cudaMemcpyHostToDevice);
        cudaGraphLaunch(run, s);
        cudaStreamSynchronize(s);
        return answer(out, 64, one);
    };
    /* No bug. */
    c["right"] = [] { float *out = filled(64); LAUNCH(global_read, 1, 64, 0, 0, out, filled(64, 1), 0); return answer(out, 64, one); };
    return c;
}

int main(int argc, char **argv) {
    const auto all = cases();
    if (argc < 2) {
        for (const auto &c : all) puts(c.first.c_str());
        return 0;
    }
    return all.at(argv[1])();
}
