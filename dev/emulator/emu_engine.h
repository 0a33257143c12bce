/* emu_engine.h: what device code sees of the engine: which thread runs, its shared memory, and how a kernel is launched. engine.cpp runs
   it. */
#ifndef EMU_ENGINE_H
#define EMU_ENGINE_H

#include "emu_types.h"

namespace emu {

/* Where in a kernel's source a thread waits. */
struct Site {
    const char *file;
    int line;
};
#define EMU_SITE emu::Site site = {__builtin_FILE(), __builtin_LINE()}

struct Thread {
    uint3 index;
    int lane;
};
struct Block {
    uint3 index;
    dim3 size, grid;
};
/* Who runs on this OS thread; NULL: host code. */
extern __thread Thread *thread;
extern __thread Block *block;

/* ---- launches ------------------------------------------------------------------------------------------------------------------------ */

struct Stream;
struct Launch {
    const char *kernel;
    const void *address;   /* of the kernel: what cudaFuncSetAttribute knows it by */
    dim3 grid, block;
    size_t shared_bytes;
};
/* Ends the program unless a GPU would take the launch. */
void check_launch(const Launch &launch);
bool dynamic_shared_allowed(const void *kernel, size_t bytes);
/* Runs call(arguments) once for every thread of the grid. `size` bytes at `arguments` are the kernel's. */
void run_grid(const Launch &launch, void (*call)(void *), void *arguments, size_t size);

/* Work of a stream: run at once; noted while the stream is under capture; with EMU_LAZY=1 run when the host waits for it. */
struct Work {
    virtual ~Work() {}
    virtual void run() = 0;
};
/* Takes the work over. */
void submit_work(Stream *stream, Work *work);
template <class F> void submit(Stream *stream, F f) {
    struct Function final : Work {
        F f;
        explicit Function(const F &f) : f(f) {}
        void run() override { f(); }
    };
    submit_work(stream, new Function(f));
}

/* While one of these lives, device memory is open; `what` is done to it, for messages. */
struct DeviceAccess {
    explicit DeviceAccess(const char *what);
    ~DeviceAccess();
};
/* f(), which may touch device memory, as work of the stream. Stand-ins for NVIDIA's libraries do their work so. */
template <class F> void enqueue(Stream *stream, F f) {
    submit(stream, [f]() mutable {
        DeviceAccess access("a stand-in for a library");
        f();
    });
}

template <class K> inline const void *address_of(K *kernel) { return reinterpret_cast<const void *>(kernel); }

/* The arguments are copied here, as a launch on a GPU copies them. */
template <class F, class... A> void launch(const Launch &launch, Stream *stream, F kernel, A... arguments) {
    static_assert((sizeof(A) + ... + 0) <= 4096, "a kernel takes at most 4 KB of arguments");
    check_launch(launch);
    auto call = [=] { kernel(arguments...); };
    auto run = [](void *c) { (*static_cast<decltype(call) *>(c))(); };
    submit(stream, [=]() mutable { run_grid(launch, run, &call, sizeof call); });
}

/* ---- shared memory: fresh memory holds NaN, and red zones lie between the variables -------------------------------------------------- */

/* The block's static variable of this key, made on first use. */
void *static_shared(const void *key, size_t bytes);
/* A function of its own, and so a key, for every SHARED in the source and for every instance of a template around it. */
template <class T, class Tag> inline T &shared_variable(Tag) {
    static char key;
    return *static_cast<T *>(static_shared(&key, sizeof(T)));
}

/* Piece number `piece` of the block's dynamic shared memory. */
void *dynamic_shared(int piece, size_t bytes);
struct SharedCarver {
    int pieces = 0;
    template <class T> T *take(size_t n) { return static_cast<T *>(dynamic_shared(pieces++, n * sizeof(T))); }
};

}   // namespace emu

#endif
