/* backend.c: which backends this program has. The one file that asks. */
#include "ops.h"

#include <stdio.h>
#include <string.h>

/* Weak: a backend that is not linked has the address NULL. */
extern const Backend cpu_backend, cuda_backend __attribute__((weak)), emu_backend __attribute__((weak));

/* Best first. emu runs the CUDA kernels on the CPU, for tests: "auto" comes upon cpu before it. */
static const Backend *const backends[] = {&cuda_backend, &cpu_backend, &emu_backend};
enum { BACKENDS = sizeof backends / sizeof *backends };

static int is_named(const Backend *backend, const char *name) { return backend && (!strcmp(name, "auto") || !strcmp(name, backend->name)); }

const Backend *backend_find(const char *name) {
    for (int i = 0; i < BACKENDS; i++)
        if (is_named(backends[i], name) && !backends[i]->missing()) return backends[i];
    return NULL;
}

const char *backend_missing(const char *name) {
    for (int i = 0; i < BACKENDS; i++)
        if (is_named(backends[i], name)) return backends[i]->missing();
    return NULL;
}

const char *backend_names(void) {
    static char names[64];
    size_t length = 0;
    for (int i = 0; i < BACKENDS; i++)
        if (backends[i] && !backends[i]->missing())
            length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", length ? ", " : "", backends[i]->name);
    return names;
}
