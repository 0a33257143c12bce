/* cuda.cu: the CUDA backend: device memory, streams, events and graphs, and the table of the cuda_ ops. Compiled for the emulator, it is the
   backend emu. */
#include "cu.h"
#include "attention.cuh"
#include "gemm.cuh"

#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

BackendSettings cuda_settings = {ATTENTION_AUTO, 0, 1, 0, NULL};

/* ---- errors --------------------------------------------------------------------------------------------------------------------- */

static const char *last_kernel = "none yet";

void cuda_failed(const char *expression, const char *message, const char *file, int line) {
    backend_fail("CUDA error: %s, at %s (%s:%d); the kernel launched last was %s. Checkpoints on disk are as they were; --check-numerics waits "
                 "after every op and so shows which one fails", message, expression, file, line, last_kernel);
}

void cuda_launched(const char *kernel, const char *file, int line) {
    last_kernel = kernel;
    cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) cuda_failed(kernel, cudaGetErrorString(error), file, line);
}

/* ---- the device ----------------------------------------------------------------------------------------------------------------- */

static cudaDeviceProp device;

int device_multiprocessors(void) { return device.multiProcessorCount; }

__global__ void probe_kernel() {}

/* Why kernels cannot run on the thread's device, or NULL. It makes the device's context, of some hundred megabytes. */
static const char *refusal_of_device(void) {
    static char why[400];
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (error == cudaSuccess) return NULL;
    cudaGetLastError();   /* else the next launch would report it */
    if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction) {
        snprintf(why, sizeof why, "of the %s the driver says: %s", device.name, cudaGetErrorString(error));   /* as when another process has it */
        return why;
    }
    snprintf(why, sizeof why, "the %s has compute capability %d.%d, for which this program was not built: make CUDA=1 CUDA_ARCHS=%d%d", device.name,
             device.major, device.minor, device.major, device.minor);
    return why;
}

/* Looks for the device; if it cannot be used, why. Where there are several, the choice is left to select: no rank has a context on another's. */
static const char *find_device(void) {
    static char why[400];
    int count = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) {
        snprintf(why, sizeof why, "the driver knows CUDA %d.%d, and this program was built with CUDA %d.%d: install a newer driver", driver / 1000,
                 driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
        return why;
    }
    if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        return "no NVIDIA driver or GPU was found";
    if (error != cudaSuccess) {
        snprintf(why, sizeof why, "the driver says: %s", cudaGetErrorString(error));
        return why;
    }
    CUDA_CHECK(cudaGetDeviceProperties(&device, 0));
    return count == 1 ? refusal_of_device() : NULL;
}

static const char *missing(void) {
    static int looked;
    static const char *why;
    if (!looked) why = find_device();
    looked = 1;
    return why;
}

static int devices(void) {
    int count;
    CUDA_CHECK(cudaGetDeviceCount(&count));
    return count;
}

/* For the calling thread; what a process keeps for all of its threads (`device`, workspaces, plans) is for one device. */
static const char *select_device(int index) {
    static char name[32];
    const int number = index % devices();
    CUDA_CHECK(cudaSetDevice(number));
    CUDA_CHECK(cudaGetDeviceProperties(&device, number));
    CUDA_CHECK(cudaDeviceGetPCIBusId(name, sizeof name, number));
    if (const char *why = refusal_of_device()) backend_fail("device %d cannot be used: %s", number, why);
    return name;
}

static const char *describe(void) {
    static char text[400];
    snprintf(text, sizeof text, "%s, %s, %s attention", device.name, gemm_library(), attention_library());
    return text;
}

static double free_memory(void) {
    size_t free_bytes, total;
    CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total));
    return (double)free_bytes;
}

static double own_memory(void) { return 4.0 * REDUCTION_FLOATS + (double)gemm_workspace_bytes(); }

static int supports_bf16(void) { return device.major >= 8; }

static void configure(const BackendSettings *settings) {
    cuda_settings = *settings;
    gemm_configure();
    attention_configure();
    reduction_scratch(1);   /* now: under capture it could not be taken */
}

/* ---- memory --------------------------------------------------------------------------------------------------------------------- */

static void *device_alloc(size_t bytes) {
    void *memory = NULL;
    cudaError_t error = cudaMalloc(&memory, bytes ? bytes : 256);
    if (error != cudaSuccess) {
        backend_fail("out of memory: %.1f MiB were asked of the %s, which has %.1f MiB free; use a smaller batch or model (--plan shows what is "
                     "needed)", (double)bytes / 1048576.0, device.name, free_memory() / 1048576.0);
    }
    CUDA_CHECK(cudaMemset(memory, 0, bytes ? bytes : 256));
    CUDA_CHECK(cudaDeviceSynchronize());   /* our streams do not wait for the one that clears it */
    return memory;
}
static void device_release(void *memory) { CUDA_CHECK(cudaFree(memory)); }

static void *host_alloc(size_t bytes) {
    void *memory = NULL;
    CUDA_CHECK(cudaHostAlloc(&memory, bytes ? bytes : 1, cudaHostAllocDefault));
    memset(memory, 0, bytes);
    return memory;
}
static void host_release(void *memory) { CUDA_CHECK(cudaFreeHost(memory)); }

static void upload(void *to, const void *from, size_t bytes, Stream *s) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_stream(s)));
}
static void download_later(void *to, const void *from, size_t bytes, Stream *s) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_stream(s)));
}
static void download(void *to, const void *from, size_t bytes, Stream *s) {
    download_later(to, from, bytes, s);
    CUDA_CHECK(cudaStreamSynchronize(cuda_stream(s)));
}

/* Taken once and never given back: the ops of a stream use it one after another. In the emulator every size has memory of its own, so that a
   sanitizer sees an overrun. */
float *reduction_scratch(size_t n) {
    static auto &memory = *new std::map<size_t, float *>;   /* in use until the end */
    if (n > REDUCTION_FLOATS) cuda_failed("reduction_scratch", "an op asked for more scratch than there is", __FILE__, __LINE__);
    const size_t size = strcmp(BACKEND_NAME, "emu") == 0 ? n : (size_t)REDUCTION_FLOATS;
    float *&piece = memory[size];
    if (!piece) piece = (float *)device_alloc(size * sizeof(float));
    return piece;
}

/* ---- order of work -------------------------------------------------------------------------------------------------------------- */

static Stream *stream_open(int urgent) {
    cudaStream_t s;
    int least, greatest;
    CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_CHECK(cudaStreamCreateWithPriority(&s, cudaStreamNonBlocking, urgent ? greatest : least));
    return reinterpret_cast<Stream *>(s);
}
static void stream_close(Stream *s) { CUDA_CHECK(cudaStreamDestroy(cuda_stream(s))); }
static void synchronize(Stream *s) { CUDA_CHECK(cudaStreamSynchronize(cuda_stream(s))); }

static cudaEvent_t cuda_event(Event *e) { return reinterpret_cast<cudaEvent_t>(e); }
static Event *event_open(void) {
    cudaEvent_t e;
    CUDA_CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    return reinterpret_cast<Event *>(e);
}
static void event_close(Event *e) { CUDA_CHECK(cudaEventDestroy(cuda_event(e))); }
static void event_record(Event *e, Stream *s) { CUDA_CHECK(cudaEventRecord(cuda_event(e), cuda_stream(s))); }
static void event_wait(Event *e) { CUDA_CHECK(cudaEventSynchronize(cuda_event(e))); }
static int event_over(Event *e) {
    const cudaError_t error = cudaEventQuery(cuda_event(e));
    if (error != cudaErrorNotReady) CUDA_CHECK(error);
    else cudaGetLastError();   /* it is no error, but the next launch would report it */
    return error == cudaSuccess;
}
static void stream_wait(Stream *s, Event *e) { CUDA_CHECK(cudaStreamWaitEvent(cuda_stream(s), cuda_event(e), 0)); }

static void graph_begin(Stream *s) { CUDA_CHECK(cudaStreamBeginCapture(cuda_stream(s), cudaStreamCaptureModeThreadLocal)); }
static Graph *graph_end(Stream *s) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CUDA_CHECK(cudaStreamEndCapture(cuda_stream(s), &graph));
    CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
    return reinterpret_cast<Graph *>(executable);
}
static void graph_launch(Graph *g, Stream *s) { CUDA_CHECK(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(g), cuda_stream(s))); }
static void graph_close(Graph *g) { CUDA_CHECK(cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(g))); }

/* ---- the table ------------------------------------------------------------------------------------------------------------------ */

extern "C" const Backend cuda_backend;
const Backend cuda_backend = {
    BACKEND_NAME, missing, 0, device_alloc, device_release, host_alloc, host_release, upload, download, download_later, devices,
    select_device, stream_open, stream_close, synchronize, event_open, event_close, event_record, event_wait, event_over, stream_wait, graph_begin,
    graph_end, graph_launch, graph_close, free_memory, own_memory, supports_bf16, configure, describe, attention_scratch, gemm_algorithms,
    gemm_set_algorithms,
    {
#define X(name, outputs, arguments, call, bytes, flops) cuda_##name,
        OP_LIST(X)
#undef X
    },
};
