/* cpu.c: the CPU backend: plain memory, and the table of the cpu_ ops. */
#include "cpu.h"
#include "onednn.h"

#include <stdio.h>
#include <stdlib.h>

static void *cpu_alloc(size_t bytes) {
    size_t padded = (bytes + 255) / 256 * 256;
    void *memory = aligned_alloc(256, padded ? padded : 256);
    if (!memory) {
        fprintf(stderr, "out of memory: %.1f MiB were asked for; use a smaller batch or model (--plan shows what is needed)\n", (double)bytes / 1048576.0);
        exit(1);
    }
    memset(memory, 0, padded);
    return memory;
}
static void cpu_release(void *memory) { free(memory); }
static void cpu_upload(void *device, const void *host, size_t bytes, Stream *s) { (void)s; memcpy(device, host, bytes); }
static void cpu_download(void *host, const void *device, size_t bytes, Stream *s) { (void)s; memcpy(host, device, bytes); }
static void cpu_synchronize(Stream *s) { (void)s; }

const Backend cpu_backend = {
    "cpu", 1, cpu_alloc, cpu_release, cpu_upload, cpu_download, cpu_synchronize, matmul_supports_bf16,
    {
#define X(name, outputs, arguments, call, bytes, flops) cpu_##name,
        OP_LIST(X)
#undef X
    },
};
