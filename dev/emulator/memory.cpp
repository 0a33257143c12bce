/* memory.cpp: device memory. It is open to kernels and copies only: where host code touches it, as a launcher that reads a StepState
   would, the program ends as it would on a GPU. Each allocation has pages of its own, ends at their end (but for padding to 256 bytes,
   which is checked after every launch), and is followed by a page that is never open. An address is not given twice, so that use after
   release is seen. Under AddressSanitizer the heap's red zones do this better, and the host may look. */
#include "emu_runtime.h"
#include "engine.h"

#include <map>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emu {

constexpr size_t PAGE = 4096, ALIGNMENT = 256, REGION = size_t(1) << 38;   /* address space, not memory */
constexpr int UNBACKED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

struct DeviceMemory {
    char *pages, *memory;   /* memory: what cudaMalloc gave */
    size_t page_bytes, bytes;
    bool open;
    char *end() const { return memory + bytes; }
};
static std::map<const char *, DeviceMemory> allocations;   /* by memory */
static std::vector<DeviceMemory *> opened;
static std::mutex mutex;
static char *region, *region_next;
static int accesses;                      /* how many DeviceAccess live */
static const char *last_work = "a copy";   /* for messages */

static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* The last allocation that begins at p or before, or NULL. */
static DeviceMemory *allocation_before(const void *p) {
    auto next = allocations.upper_bound(static_cast<const char *>(p));
    return next == allocations.begin() ? nullptr : &std::prev(next)->second;
}
Allocation device_allocation(const void *p) {
    const DeviceMemory *m = allocation_before(p);
    return m && p < m->end() ? Allocation{m->memory, m->bytes} : Allocation{nullptr, 0};
}

/* ---- who may touch it ---------------------------------------------------------------------------------------------------------------- */

static void open_memory(DeviceMemory *m) {
    if (m->open) return;
    m->open = true;
    opened.push_back(m);
    if (!EMU_ASAN) mprotect(m->pages, m->page_bytes, PROT_READ | PROT_WRITE);
}
static void check_pads(const DeviceMemory &m);
static void close_memory() {
    if (accesses) return;
    for (DeviceMemory *m : opened) {
        check_pads(*m);
        m->open = false;
        if (!EMU_ASAN) mprotect(m->pages, m->page_bytes, PROT_NONE);
    }
    opened.clear();
}

static struct sigaction before_us;

/* One line on where p lies, for the messages below. */
static const char *place(const void *p) {
    static char text[200];
    const DeviceMemory *m = allocation_before(p);
    const char *c = static_cast<const char *>(p);
    if (c < region || c >= region + REGION) snprintf(text, sizeof text, "%p is not device memory", p);
    else if (!m) snprintf(text, sizeof text, "%p lies before every allocation, or was released", p);
    else if (c < m->end()) snprintf(text, sizeof text, "byte %zu of an allocation of %zu", size_t(c - m->memory), m->bytes);
    else snprintf(text, sizeof text, "%zu bytes past the end of an allocation of %zu, or released", size_t(c - m->end()), m->bytes);
    return text;
}
/* To the first touch of an allocation in a launch it opens: most launches touch few of them. */
static bool open_on_touch(const char *p) {
    const std::lock_guard<std::mutex> lock(mutex);
    DeviceMemory *m = allocation_before(p);
    if (!accesses || !m || p >= m->pages + m->page_bytes) return false;
    open_memory(m);
    return true;
}
static void on_fault(int signal, siginfo_t *info, void *context) {
    const char *p = static_cast<const char *>(info->si_addr);
    const bool ours = region && p >= region && p < region + REGION;
    if (!ours && !thread) {
        sigaction(signal, &before_us, nullptr);   /* not our business: the instruction faults again */
        return;
    }
    if (ours && open_on_touch(p)) return;
    char message[300];
    const char *what = thread ? "a kernel touched memory out of bounds" : accesses ? "out of bounds" : "host code touched device memory";
    snprintf(message, sizeof message, "%s: %s", what, place(p));
#ifdef __x86_64__
    print_code_address("the access is", reinterpret_cast<void *>(static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]));
#else
    (void)context;
#endif
    fail(message);
}
/* Again and again, because test frameworks put in handlers of their own. */
static void watch_faults() {
    if (EMU_ASAN) return;
    struct sigaction action = {}, old;
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &old);
    if (old.sa_sigaction != on_fault) before_us = old;
}

DeviceAccess::DeviceAccess(const char *what) {
    const std::lock_guard<std::mutex> lock(mutex);
    watch_faults();
    accesses++;
    last_work = what;
}
DeviceAccess::~DeviceAccess() {
    const std::lock_guard<std::mutex> lock(mutex);
    accesses--;
    close_memory();
}

/* ---- overruns within the padding ----------------------------------------------------------------------------------------------------- */

static bool untouched(const char *from, const char *to) {
    for (; from < to; from++)
        if (*from != char(0xff)) return false;
    return true;
}
static void check_pads(const DeviceMemory &m) {
    if (EMU_ASAN) return;
    const char *head = m.memory - m.pages > ptrdiff_t(ALIGNMENT) ? m.memory - ALIGNMENT : m.pages;
    if (untouched(head, m.memory) && untouched(m.end(), m.pages + m.page_bytes)) return;
    char message[300];
    snprintf(message, sizeof message, "out of bounds: %s wrote just %s an allocation of %zu bytes", last_work,
             untouched(head, m.memory) ? "past the end of" : "before", m.bytes);
    fail(message);
}

/* ---- allocation ---------------------------------------------------------------------------------------------------------------------- */

static DeviceMemory map_pages(size_t bytes) {
    DeviceMemory m;
    m.bytes = bytes;
    const size_t padded = round_up(bytes ? bytes : 1, ALIGNMENT);
    m.page_bytes = round_up(padded, PAGE);
    if (!region) region = region_next = static_cast<char *>(mmap(nullptr, REGION, PROT_NONE, UNBACKED, -1, 0));
    if (region == MAP_FAILED || size_t(region + REGION - region_next) < m.page_bytes + PAGE)
        fail("the emulator is out of address space for device memory");
    m.pages = region_next;
    m.memory = m.pages + m.page_bytes - padded;
    region_next += m.page_bytes + PAGE;
    m.open = false;
    mprotect(m.pages, m.page_bytes, PROT_READ | PROT_WRITE);
    memset(m.pages, 0xff, m.page_bytes);   /* fresh memory reads as NaN */
    mprotect(m.pages, m.page_bytes, PROT_NONE);
    return m;
}
static DeviceMemory map_heap(size_t bytes) {
    DeviceMemory m;
    m.bytes = bytes;
    void *memory = nullptr;
    if (posix_memalign(&memory, ALIGNMENT, bytes ? bytes : 1)) fail("the emulator is out of memory");
    m.pages = m.memory = static_cast<char *>(memory);
    m.page_bytes = bytes;
    m.open = false;
    memset(memory, 0xff, bytes);
    return m;
}

}   // namespace emu

using namespace emu;

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    forbid_in_capture("cudaMalloc");
    const std::lock_guard<std::mutex> lock(mutex);
    watch_faults();
    const DeviceMemory m = EMU_ASAN ? map_heap(bytes) : map_pages(bytes);
    allocations[m.memory] = m;
    if (race_allocation) race_allocation(m.memory, bytes, true);
    *memory = m.memory;
    return cudaSuccess;
}
cudaError_t cudaFree(void *memory) {
    if (!memory) return cudaSuccess;
    forbid_in_capture("cudaFree");
    cudaDeviceSynchronize();
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = allocations.find(static_cast<char *>(memory));
    if (found == allocations.end()) fail("cudaFree of an address that cudaMalloc did not give, or that was freed before");
    const DeviceMemory m = found->second;
    allocations.erase(found);
    if (race_allocation) race_allocation(memory, m.bytes, false);
    if (EMU_ASAN) free(memory);
    else mmap(m.pages, m.page_bytes, PROT_NONE, UNBACKED | MAP_FIXED, -1, 0);
    return cudaSuccess;
}

/* ---- copies -------------------------------------------------------------------------------------------------------------------------- */

/* The allocation of p if all of [p, p + bytes) must be and is device memory; NULL if it must not be and is not. */
static DeviceMemory *check_side(const void *p, size_t bytes, bool device, bool known, const char *side) {
    DeviceMemory *m = allocation_before(p);
    const char *c = static_cast<const char *>(p);
    const bool inside = m && c < m->end();
    char message[300];
    if (known && inside != device) {
        snprintf(message, sizeof message, "the %s of a copy is %s memory, but cudaMemcpyKind says otherwise", side,
                 inside ? "device" : "host");
        fail(message);
    }
    if (inside && bytes > size_t(m->end() - c)) {
        snprintf(message, sizeof message, "the %s of a copy of %zu bytes is out of bounds: it begins at %s", side, bytes, place(p));
        fail(message);
    }
    return inside ? m : nullptr;
}
/* Opens what the copy touches, and nothing else. */
static void copy_now(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    watch_faults();
    const bool known = kind != cudaMemcpyDefault;
    DeviceMemory *target = check_side(to, bytes, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, known, "target");
    DeviceMemory *source = check_side(from, bytes, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, known, "source");
    if (target) open_memory(target);
    if (source) open_memory(source);
    memcpy(to, from, bytes);
    close_memory();
}
static void set_now(void *memory, int value, size_t bytes) {
    if (bytes == 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    DeviceMemory *target = check_side(memory, bytes, true, true, "target");
    open_memory(target);
    memset(memory, value, bytes);
    close_memory();
}

/* Memory of the host that the device copies from and to by itself. */
static std::map<const char *, size_t> pinned;
static bool is_pinned(const void *p) {
    auto next = pinned.upper_bound(static_cast<const char *>(p));
    return next != pinned.begin() && static_cast<const char *>(p) < std::prev(next)->first + std::prev(next)->second;
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
    *memory = malloc(bytes ? bytes : 1);
    pinned[static_cast<char *>(*memory)] = bytes;
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *memory) {
    cudaDeviceSynchronize();
    pinned.erase(static_cast<char *>(memory));
    free(memory);
    return cudaSuccess;
}

/* As on a GPU, other memory of the host is read before this returns, and has been written to when it returns. A graph would read and write it
   whenever it is launched, though it may be gone by then. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (under_capture(stream) && ((kind == cudaMemcpyHostToDevice && !is_pinned(from)) || (kind == cudaMemcpyDeviceToHost && !is_pinned(to))))
        fail("a copy inside a capture goes from or to memory of the host that is not pinned");
    if (config.lazy && kind == cudaMemcpyHostToDevice && !is_pinned(from)) {
        const std::vector<char> staged(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
        submit(stream, [=] { copy_now(to, staged.data(), bytes, kind); });
        return cudaSuccess;
    }
    submit(stream, [=] { copy_now(to, from, bytes, kind); });
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) cudaStreamSynchronize(stream);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    return cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    submit(stream, [=] { set_now(memory, value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
    cudaMemsetAsync(memory, value, bytes, nullptr);
    return cudaStreamSynchronize(nullptr);
}
