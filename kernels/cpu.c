/* cpu.c: the CPU backend: plain memory, and the table of the cpu_ ops. */
#include "cpu.h"
#include "onednn.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *cpu_alloc(size_t bytes) {
    size_t padded = (bytes + 255) / 256 * 256;
    void *memory = aligned_alloc(256, padded ? padded : 256);
    if (!memory)
        backend_fail("out of memory: %.1f MiB were asked for; use a smaller batch or model (--plan shows what is needed)", (double)bytes / 1048576.0);
    memset(memory, 0, padded);
    return memory;
}
static void cpu_release(void *memory) { free(memory); }
static void cpu_upload(void *device, const void *host, size_t bytes, Stream *s) { (void)s; memcpy(device, host, bytes); }
static void cpu_download(void *host, const void *device, size_t bytes, Stream *s) { (void)s; memcpy(host, device, bytes); }
static const char *cpu_missing(void) { return NULL; }
static int cpu_devices(void) { return 1; }
static const char *cpu_select(int index) { return (void)index, ""; }
static Stream *cpu_stream_open(int urgent) { return (void)urgent, NULL; }
static void cpu_synchronize(Stream *s) { (void)s; }
static Event *cpu_event_open(void) { return NULL; }
static void cpu_event_record(Event *e, Stream *s) { (void)e, (void)s; }
static void cpu_event_done(Event *e) { (void)e; }
static int cpu_event_over(Event *e) { return (void)e, 1; }
static void cpu_stream_wait(Stream *s, Event *e) { (void)s, (void)e; }

/* The number in a file; INFINITY where there is none, as for the limit "max". */
static double number_in(const char *directory, const char *name) {
    char path[4352];
    double number = INFINITY;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%lf", &number) != 1) number = INFINITY;
    if (f) fclose(f);
    return number;
}

/* Of a line "key number" in a file; 0 where there is none. */
static double number_of(const char *path, const char *key) {
    char line[4352], word[64];
    double number, found = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %lf", word, &number) == 2 && !strcmp(word, key)) found = number;
    if (f) fclose(f);
    return found;
}

double cgroup_room(const char *root, const char *group) {
    char directory[4096], stat[4352];
    double room = INFINITY;
    int length = snprintf(directory, sizeof directory, "%s%s", root, group), top = (int)strlen(root);
    if (length >= (int)sizeof directory) return room;
    for (;;) {
        while (length > top && directory[length - 1] == '/') directory[--length] = 0;
        snprintf(stat, sizeof stat, "%s/memory.stat", directory);
        double left = number_in(directory, "memory.max") - number_in(directory, "memory.current") + number_of(stat, "inactive_file");
        if (isfinite(left) && left < room) room = left;
        if (length <= top) return room;
        while (length > top && directory[length - 1] != '/') directory[--length] = 0;
    }
}

/* What the control groups of this process leave it. */
static double room_in_cgroups(void) {
    char line[4096], group[4096];
    double room = INFINITY;
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "0::%4095[^\n]", group) == 1) room = cgroup_room("/sys/fs/cgroup", group);
    if (f) fclose(f);
    return room;
}

/* Pages that are free, or held by caches that would yield, or in swap; and no more than a container or a job may take. */
static double cpu_free_memory(void) {
    const char *const memory = "/proc/meminfo";
    double total = 1024 * (number_of(memory, "MemAvailable:") + number_of(memory, "SwapFree:")), allowed = room_in_cgroups();
    if (!(total > 0)) total = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return allowed < total ? fmax(allowed, 0) : total;
}

static double cpu_own_memory(void) { return 0; }

static void cpu_configure(const BackendSettings *settings) {
    if (settings->attention != ATTENTION_CUDNN) return;
    backend_fail("--attention cudnn is for the cuda device; this is the cpu: use --attention auto");
}

static const char *cpu_describe(void) {
    static char text[64];
    snprintf(text, sizeof text, "cpu, %d thread%s", omp_get_max_threads(), omp_get_max_threads() == 1 ? "" : "s");
    return text;
}

static size_t cpu_attention_scratch(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward) {
    (void)B, (void)T, (void)NH, (void)NKV, (void)HS, (void)dtype, (void)dropout, (void)backward;
    return 0;
}

static const char *cpu_algorithms(void) { return ""; }
static int cpu_set_algorithms(const char *text) { return !*text; }

const Backend cpu_backend = {
    .name = "cpu",
    .missing = cpu_missing,
    .host_memory = 1,
    .alloc = cpu_alloc, .release = cpu_release, .alloc_host = cpu_alloc, .release_host = cpu_release,
    .upload = cpu_upload, .download = cpu_download, .download_later = cpu_download,
    .devices = cpu_devices, .select = cpu_select,
    .stream_open = cpu_stream_open, .stream_close = cpu_synchronize, .synchronize = cpu_synchronize,
    .event_open = cpu_event_open, .event_close = cpu_event_done, .event_record = cpu_event_record, .event_wait = cpu_event_done,
    .event_over = cpu_event_over, .stream_wait = cpu_stream_wait,
    .free_memory = cpu_free_memory, .own_memory = cpu_own_memory,
    .supports_bf16 = matmul_supports_bf16, .configure = cpu_configure, .describe = cpu_describe,
    .attention_scratch = cpu_attention_scratch, .algorithms = cpu_algorithms, .set_algorithms = cpu_set_algorithms,
    .op = {
#define X(name, outputs, arguments, call, bytes, flops) cpu_##name,
        OP_LIST(X)
#undef X
    },
};
