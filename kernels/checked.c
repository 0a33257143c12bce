/* checked.c: a backend that looks at every output of every op, to name the op that first makes a NaN or an infinity. */
#include "ops.h"

#include <stdarg.h>

static struct {
    const Backend *inner;
    void (*on_bad)(const char *op, int output);
    int reported;
} checker;

/* A float is NaN or infinite when every bit of its exponent is set. */
static int bytes_are_bad(const void *memory, size_t bytes, DType dtype) {
    int bad = 0;
    if (dtype == F64)
        for (size_t i = 0; i < bytes / 8; i++) bad |= (((const uint64_t *)memory)[i] >> 52 & 0x7FF) == 0x7FF;
    else if (dtype == F32)
        for (size_t i = 0; i < bytes / 4; i++) bad |= (((const uint32_t *)memory)[i] & 0x7F800000u) == 0x7F800000u;
    else
        for (size_t i = 0; i < bytes / 2; i++) bad |= (((const uint16_t *)memory)[i] & 0x7F80u) == 0x7F80u;
    return bad;
}

/* Ranks that are threads of one process take turns, and so share the buffer. */
static int tensor_is_bad(Tensor t, Stream *s) {
    static uint64_t buffer[1 << 19];
    size_t bytes = tensor_bytes(t);
    if (t.dtype != F64 && t.dtype != F32 && t.dtype != BF16) return 0;
    for (size_t done = 0; done < bytes; done += sizeof buffer) {
        size_t n = bytes - done < sizeof buffer ? bytes - done : sizeof buffer;
        checker.inner->download(buffer, (const char *)t.data + done, n, s);
        if (bytes_are_bad(buffer, n, t.dtype)) return 1;
    }
    return 0;
}

/* The op's own arguments follow; the first `outputs` of them are Tensors, and no more are looked at. */
static void check_outputs(const char *op, int outputs, Stream *s, ...) {
    va_list arguments;
    va_start(arguments, s);
    for (int output = 0; output < outputs && !checker.reported; output++) {
        if (!tensor_is_bad(va_arg(arguments, Tensor), s)) continue;
        checker.reported = 1;
        checker.on_bad(op, output);
    }
    va_end(arguments);
}

#define UNWRAPPED(...) __VA_ARGS__
#define X(name, outputs, arguments, call, bytes, flops)                \
    static void checked_##name arguments {                             \
        checker.inner->op.name call;                                   \
        check_outputs(#name, outputs, s, UNWRAPPED call);              \
    }
OP_LIST(X)
#undef X

const Backend *backend_checked(const Backend *inner, void (*on_bad)(const char *op, int output)) {
    static Backend backend;
    backend = *inner;
    backend.graph_begin = NULL;   /* the ops of a graph are not called one by one */
#define X(name, outputs, arguments, call, bytes, flops) backend.op.name = checked_##name;
    OP_LIST(X)
#undef X
    checker.inner = inner;
    checker.on_bad = on_bad;
    checker.reported = 0;
    return &backend;
}
