/* backend.c: which backends this program has. The one file that asks. */
#include "ops.h"

#include <stdio.h>
#include <string.h>

/* Weak: a backend that is not linked has the address NULL. */
extern const Backend cpu_backend, cuda_backend __attribute__((weak)), emu_backend __attribute__((weak));

/* Best first. emu runs the CUDA kernels on the CPU, for tests: "auto" comes upon cpu before it. */
static const Backend *const backends[] = {&cuda_backend, &cpu_backend, &emu_backend};
enum { BACKENDS = sizeof backends / sizeof *backends };

const Backend *backend_find(const char *name) {
    for (int i = 0; i < BACKENDS; i++)
        if (backends[i] && (!strcmp(name, "auto") || !strcmp(name, backends[i]->name)) && backends[i]->present()) return backends[i];
    return NULL;
}

const char *backend_names(void) {
    static char names[64];
    size_t length = 0;
    for (int i = 0; i < BACKENDS; i++)
        if (backends[i])
            length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", length ? ", " : "", backends[i]->name);
    return names;
}
