/* runtime.cpp: the device, launches, streams, events and graphs of the runtime's stand-in. */
#include "emu_runtime.h"
#include "engine.h"

#include <deque>
#include <map>
#include <set>

namespace emu {

/* ---- launches ------------------------------------------------------------------------------------------------------------------------ */

static std::map<const void *, size_t> allowed_shared;   /* by kernel: dynamic shared memory beyond 48 KB */

void allow_dynamic_shared(const void *kernel, size_t bytes) {
    if (bytes > SHARED_LIMIT) fail("more dynamic shared memory is asked for than the 99 KB that a block has on the smallest GPU");
    allowed_shared[kernel] = bytes;
}
bool dynamic_shared_allowed(const void *kernel, size_t bytes) {
    const auto allowed = allowed_shared.find(kernel);
    return allowed != allowed_shared.end() && allowed->second >= bytes;
}
static const char *refusal(const Launch &l) {
    const dim3 g = l.grid, b = l.block;
    if (b.x == 0 || b.y == 0 || b.z == 0 || b.z > 64 || uint64_t(b.x) * b.y * b.z > 1024) return "a block has 1 to 1024 threads";
    if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535)
        return "a grid has 1 to 2^31-1 by 65535 by 65535 blocks";
    if (l.shared_bytes > SHARED_LIMIT) return "a block has at most 99 KB of shared memory on the smallest GPU";
    if (l.shared_bytes > STATIC_LIMIT && !dynamic_shared_allowed(l.address, l.shared_bytes))
        return "more than 48 KB of dynamic shared memory must be allowed before the launch";
    return nullptr;
}
void check_launch(const Launch &l) {
    const char *why = refusal(l);
    if (!why) return;
    char message[400];
    snprintf(message, sizeof message, "the launch of %s with grid (%u,%u,%u), block (%u,%u,%u) and %zu bytes of shared memory is refused: "
             "%s", l.kernel, l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y, l.block.z, l.shared_bytes, why);
    fail(message);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------------- */

typedef std::shared_ptr<Work> Task;
static uint64_t streams_made;
struct Stream {
    bool capturing = false;
    std::vector<Task> captured;
    std::deque<Task> waiting;     /* under EMU_LAZY */
    /* Pieces of work. They are counted from where no stream made before gets, so that an event of one that is gone is over, even if its address
       has been given again. */
    uint64_t submitted = ++streams_made << 40, done = submitted;
};
struct Event {
    Stream *stream = nullptr;     /* NULL: never recorded */
    uint64_t position = 0;        /* the stream's `submitted` when it was */
    bool timed = false;
};
struct Graph { std::vector<Task> tasks; };

static cudaError_t last_error = cudaSuccess;
static cudaError_t answer(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

static Stream default_stream;
static std::set<Stream *> streams = {&default_stream};
static int captures;

static Stream *get(Stream *s) {
    if (!s) return &default_stream;
    if (!streams.count(s)) fail("a stream is used that was not made, or was destroyed");
    return s;
}
static void run_until(Stream *s, uint64_t position) {
    while (s->done < position) {
        const Task task = s->waiting.front();
        s->waiting.pop_front();
        s->done++;
        task->run();
    }
}
static void submit_task(Stream *s, const Task &task) {
    if (s->capturing) {
        s->captured.push_back(task);
        return;
    }
    if (captures && s == &default_stream) fail("work goes to the default stream while another is under capture: the graph would miss it");
    s->submitted++;
    s->waiting.push_back(task);
    if (!config.lazy) run_until(s, s->submitted);
}
static bool is_over(const Event &e) { return !e.stream || !streams.count(e.stream) || e.stream->done >= e.position; }
static void run_until(const Event &e) {
    if (!is_over(e)) run_until(e.stream, e.position);
}
void submit_work(Stream *stream, Work *work) { submit_task(get(stream), Task(work)); }
bool under_capture(Stream *stream) { return get(stream)->capturing; }
void forbid_in_capture(const char *call) {
    char message[200];
    snprintf(message, sizeof message, "%s is refused inside a capture: a graph neither waits for the host nor allocates", call);
    if (captures) fail(message);
}

}   // namespace emu

using namespace emu;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    *stream = new Stream;
    streams.insert(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) { return cudaStreamCreateWithFlags(stream, flags); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    run_until(get(stream), stream->submitted);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    forbid_in_capture("cudaStreamSynchronize");
    run_until(get(stream), get(stream)->submitted);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    forbid_in_capture("cudaDeviceSynchronize");
    for (Stream *s : streams) run_until(s, s->submitted);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    *event = new Event;
    (*event)->timed = !(flags & cudaEventDisableTiming);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (get(stream)->capturing) fail("an event recorded inside a capture is no event that the host can wait for");
    event->stream = get(stream);
    event->position = get(stream)->submitted;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    forbid_in_capture("cudaEventSynchronize");
    run_until(*event);
    return cudaSuccess;
}
/* Who asks again and again is waiting, so each question moves the work on by one piece. */
cudaError_t cudaEventQuery(cudaEvent_t event) {
    forbid_in_capture("cudaEventQuery");
    if (is_over(*event)) return cudaSuccess;
    run_until(event->stream, event->stream->done + 1);
    return answer(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t before, cudaEvent_t after) {
    if (!before->timed || !after->timed || !before->stream || before->stream != after->stream)
        fail("the time between events that do not tell the time, or were not recorded in one stream");
    if (!is_over(*before) || !is_over(*after)) return answer(cudaErrorNotReady);
    *milliseconds = float(after->position - before->position);
    return cudaSuccess;
}
/* The event as it is now: recording it again changes nothing for this wait. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    if (under_capture(stream)) fail("a graph cannot wait for an event recorded outside its capture");
    const Event recorded = *event;
    submit(stream, [recorded] { run_until(recorded); });
    return cudaSuccess;
}

/* ---- graphs: what was submitted, with the arguments of then, to be run as often as wanted -------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int) {
    if (!stream) fail("the default stream cannot be captured");
    if (get(stream)->capturing) fail("the stream is under capture already");
    stream->capturing = true;
    captures++;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    *status = under_capture(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    if (!get(stream)->capturing) fail("the stream is not under capture");
    stream->capturing = false;
    captures--;
    *graph = new Graph;
    (*graph)->tasks.swap(stream->captured);
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
    *executable = new Graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    for (const Task &task : executable->tasks) submit_task(get(stream), task);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete executable;
    return cudaSuccess;
}

/* ---- the device: small, so that loops over the grid are seen to work ----------------------------------------------------------------- */

/* EMU_FAIL=n: as if the n-th launch had gone wrong, to see what the program then says. It is asked once a launch, and where an error is no error. */
cudaError_t cudaGetLastError() {
    static const char *const wanted = getenv("EMU_FAIL");
    static long launches;
    const cudaError_t error = wanted && ++launches == atol(wanted) ? 719 : last_error;
    last_error = cudaSuccess;
    return error;
}
const char *cudaGetErrorString(cudaError_t error) { return error == 719 ? "a failure that EMU_FAIL asked for" : "an error of the emulator"; }
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 0;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return answer(device == 0 ? cudaSuccess : cudaErrorNoDevice); }
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *name, int bytes, int) {
    snprintf(name, size_t(bytes), "0000:00:00.0");
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    *properties = cudaDeviceProp{"emulated GPU", 9, 0, 4, size_t(1) << 34};
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = size_t(1) << 34;
    return cudaSuccess;
}
