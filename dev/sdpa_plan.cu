/* sdpa_plan: checks kernels/sdpa.cu without a GPU. It holds the constants and signatures of kernels/cudnn.cuh against cuDNN's own headers,
   where those are installed, and has cuDNN make the plans of many shapes, compiled kernels and all, for an H100 that is not there; for this
   dev/sdpa_driver.c stands in for the driver. Exit status 1 if a plan that should exist does not, or the reverse. */
#include <cuda_runtime.h>
#if __has_include(<cudnn.h>)
#include <cudnn.h>
#include <type_traits>
#define HEADERS "agree with its headers"
#else
#define HEADERS "not compared: its headers are not installed"
#endif
#include "kernels/cu.h"
#include "kernels/cudnn.cuh"
#include "kernels/sdpa.cuh"

#include <stdio.h>

#ifdef CUDNN_H_
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#define X(name, value) static_assert((int)name == value, #name " has another value in cuDNN's headers");
CUDNN_CONSTANTS(X)
#undef X
#define X(result, name, arguments) \
    static_assert(std::is_same<decltype(&cudnn##name), result (*) arguments>::value, "cudnn" #name " has another signature there");
CUDNN_FUNCTIONS(X)
#undef X
#endif

/* sdpa.cu asks these for `deterministic` only. */
BackendSettings cuda_settings = {ATTENTION_CUDNN, 0, 0, 0, NULL};

static const char h100[] =
    "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"multiProcessorCount\":132,"
    "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,\"reservedSharedMemoryPerBlock\":1024,"
    "\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,"
    "\"isTccDriver\":0,\"supportCoopLaunch\":1,\"totalGlobalMem\":85000000000,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,"
    "\"l2CacheSize\":52428800,\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,\"deviceName\":\"NVIDIA H100 80GB HBM3\"}";

typedef struct {
    int64_t B, T;
    int NH, NKV, HS;
    int expected;
} Case;

static const Case cases[] = {
    {64, 1024, 12, 12, 64, 1}, {16, 1024, 25, 25, 64, 1}, {16, 1024, 20, 20, 80, 1}, {8, 1024, 12, 4, 96, 1}, {8, 2048, 32, 8, 128, 1},
    {4, 1024, 16, 8, 64, 1},   {4, 256, 8, 1, 64, 1},     {4, 512, 8, 8, 256, 1},    {2, 1000, 12, 12, 64, 1}, {2, 129, 6, 6, 64, 1},
    {2, 64, 6, 2, 32, 1},      {2, 2, 6, 6, 64, 1},       {2, 128, 6, 6, 33, 0},     {2, 1, 6, 6, 64, 0},
};

static int wrong;

static void check(const Case *c, int backward, int deterministic) {
    cuda_settings.deterministic = deterministic;
    const int can = sdpa_can(c->B, c->T, c->NH, c->NKV, c->HS, backward);
    const size_t workspace = sdpa_workspace(c->B, c->T, c->NH, c->NKV, c->HS, backward);
    if (can != c->expected) wrong++;
    printf("B=%-3lld T=%-5lld NH=%-3d NKV=%-3d HS=%-4d %-24s ", (long long)c->B, (long long)c->T, c->NH, c->NKV, c->HS,
           !backward ? "forward" : deterministic ? "backward, deterministic" : "backward");
    if (can) printf("%12zu bytes\n", workspace);
    else printf("none: %s\n", sdpa_refusal());
}

int main(void) {
    if (!sdpa_library()) {
        printf("%s\n", sdpa_refusal());
        return 1;
    }
    printf("%s; constants and signatures %s\n", sdpa_library(), HEADERS);
    sdpa_for_device(h100);
    for (const Case &c : cases) {
        check(&c, 0, 0);
        check(&c, 1, 0);
        check(&c, 1, 1);
    }
    printf("%d not as expected\n", wrong);
    return wrong != 0;
}
