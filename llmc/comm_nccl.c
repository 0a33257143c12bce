/* comm_nccl.c: collectives over NCCL among GPUs; the one file that includes nccl.h. The library itself is loaded when it is first needed, so that
   a program built with it runs where there is none.

   The collectives have an urgent stream of their own, which waits for the caller's by an event; another event after each collective is what comm_wait
   makes the caller's stream wait for. The host waits only where it is far ahead. None of it is ever captured in a graph. */
#include "comm_body.h"
#include "error.h"

#include <dlfcn.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NCCL_FUNCTIONS(X) \
    X(GetUniqueId) X(CommInitRank) X(CommDestroy) X(AllReduce) X(ReduceScatter) X(AllGather) X(CommGetAsyncError) X(GetErrorString) X(GetLastError)

static struct {
#define X(name) __typeof__(&nccl##name) name;
    NCCL_FUNCTIONS(X)
#undef X
} nccl;

/* Events of the last so many collectives. Who waits for an older one waits for the oldest of these: they end in order. No more are under way: where
   one hangs, the host comes to wait here, which the watch sees, before the driver's queue of launches is full, where it would wait unseen. */
enum { EVENTS = 64 };

typedef struct {
    const Backend *backend;
    Team *team;
    int rank, ranks;
    ncclComm_t comm;
    Stream *stream;
    Event *computed, *done[EVENTS];   /* that of ticket t is done[t % EVENTS] */
    Ticket started;
} Nccl;

/* NULL, or why not. */
static const char *load(void) {
    static char why[300];
    static void *library;
    if (library) return NULL;
    void *file = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!file) {
        snprintf(why, sizeof why, "%.200s; install NCCL 2.14 or later (libnccl2)", dlerror());
        return why;
    }
#define X(name)                                                                                                \
    nccl.name = (__typeof__(nccl.name))dlsym(file, "nccl" #name);                                              \
    if (!nccl.name) return "libnccl.so.2 lacks nccl" #name "; install NCCL 2.14 or later";
    NCCL_FUNCTIONS(X)
#undef X
    library = file;
    return NULL;
}

static const char *missing(const Team *team, const Backend *backend) {
    if (strcmp(backend->name, "cuda") != 0) return "NCCL needs a GPU, and this is another backend; take --comm mpi or tcp";
    if (team_of_threads(team)) return "NCCL needs a process for each rank, and these ranks are threads; take --comm loopback";
    return load();
}

static void check(ncclResult_t result, const char *what, ncclComm_t comm) {
    if (result == ncclSuccess) return;
    const char *last = nccl.GetLastError(comm);
    die("NCCL failed in %s: %s%s%s", what, nccl.GetErrorString(result), last && last[0] ? ": " : "", last ? last : "");
}

/* What went wrong in a collective already under way. */
static void check_progress(const Nccl *n) {
    ncclResult_t result;
    check(nccl.CommGetAsyncError(n->comm, &result), "ncclCommGetAsyncError", n->comm);
    if (result != ncclInProgress) check(result, "a collective", n->comm);
}

/* The device's name and, behind a space, the kernel's id of this boot: machines with the same host name, as containers have, differ in it. */
typedef char GpuName[96];
static void name_gpu(GpuName name, const char *device) {
    char boot[40] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (f && !fgets(boot, sizeof boot, f)) boot[0] = 0;
    if (f) fclose(f);
    memset(name, 0, sizeof(GpuName));
    snprintf(name, sizeof(GpuName), "%.32s %s", device, boot);
}

/* NCCL itself would wait for ever, or fail without a name. */
static void refuse_shared_gpus(Team *team, const char *device) {
    GpuName mine, *all = xmalloc(sizeof mine * (size_t)team_ranks(team));
    name_gpu(mine, device);
    team_gather(team, mine, sizeof mine, all, "the names of the GPUs");
    for (int a = 0; a < team_ranks(team); a++)
        for (int b = a + 1; b < team_ranks(team); b++)
            if (strcmp(all[a], all[b]) == 0 && strcmp(team_host(team, a), team_host(team, b)) == 0)
                die("ranks %d and %d both use GPU %.*s of %s; NCCL needs one each: start at most as many ranks on a machine as it has GPUs", a, b,
                    (int)strcspn(all[a], " "), all[a], team_host(team, a));
    free(all);
}

static ncclUniqueId id_of_first(Team *team) {
    ncclUniqueId mine, *all = xmalloc(sizeof mine * (size_t)team_ranks(team));
    memset(&mine, 0, sizeof mine);
    if (team_rank(team) == 0) check(nccl.GetUniqueId(&mine), "ncclGetUniqueId", NULL);
    team_gather(team, &mine, sizeof mine, all, "the NCCL id");
    mine = all[0];
    free(all);
    return mine;
}

/* NCCL connects, and takes device memory for it, at the first large collective of each kind: better now, before anybody counts what memory is left,
   and where a network that does not work shows at once. */
static void connect_ranks(const Nccl *n) {
    enum { FLOATS = 1 << 23 };
    const size_t piece = FLOATS / (size_t)n->ranks, count = piece * (size_t)n->ranks;
    float *x = n->backend->alloc(count * sizeof *x), *mine = x + (size_t)n->rank * piece;
    cudaStream_t stream = (cudaStream_t)n->stream;
    check(nccl.AllReduce(x, x, count, ncclFloat32, ncclSum, n->comm, stream), "ncclAllReduce", n->comm);
    check(nccl.ReduceScatter(x, mine, piece, ncclFloat32, ncclSum, n->comm, stream), "ncclReduceScatter", n->comm);
    check(nccl.AllGather(mine, x, piece, ncclFloat32, n->comm, stream), "ncclAllGather", n->comm);
    n->backend->synchronize(n->stream);
    check_progress(n);
    n->backend->release(x);
}

static void *open_body(Team *team, const Backend *backend) {
    Nccl *n = xcalloc(1, sizeof *n);
    n->backend = backend;
    n->team = team;
    n->rank = team_rank(team);
    n->ranks = team_ranks(team);
    refuse_shared_gpus(team, backend->select(team_local_rank(team)));
    ncclUniqueId id = id_of_first(team);
    team_wait_begin(team, "NCCL to connect the GPUs");
    check(nccl.CommInitRank(&n->comm, n->ranks, id, n->rank), "ncclCommInitRank", NULL);
    n->stream = backend->stream_open(1);
    connect_ranks(n);
    team_wait_end(team);
    n->computed = backend->event_open();
    for (int i = 0; i < EVENTS; i++) n->done[i] = backend->event_open();
    return n;
}

static void close_body(void *own) {
    Nccl *n = own;
    team_wait_begin(n->team, "the end of NCCL");
    n->backend->synchronize(n->stream);
    check(nccl.CommDestroy(n->comm), "ncclCommDestroy", NULL);
    team_wait_end(n->team);
    for (int i = 0; i < EVENTS; i++) n->backend->event_close(n->done[i]);
    n->backend->event_close(n->computed);
    n->backend->stream_close(n->stream);
    free(n);
}

/* Until the event of the next collective is free again. */
static void wait_for_room(const Nccl *n) {
    Event *next = n->done[(n->started + 1) % EVENTS];
    if (n->backend->event_over(next)) return;
    team_wait_begin(n->team, "a collective");
    n->backend->event_wait(next);
    team_wait_end(n->team);
}

static Ticket start(void *own, Collective what, Tensor x, Stream *after) {
    Nccl *n = own;
    check_progress(n);
    wait_for_room(n);
    n->backend->event_record(n->computed, after);
    n->backend->stream_wait(n->stream, n->computed);
    ncclDataType_t type = x.dtype == F64 ? ncclFloat64 : x.dtype == BF16 ? ncclBfloat16 : ncclFloat32;
    cudaStream_t stream = (cudaStream_t)n->stream;
    size_t count = (size_t)tensor_numel(x), piece = count / (size_t)n->ranks;
    void *mine = (char *)x.data + (size_t)n->rank * piece * dtype_size(x.dtype);
    team_wait_begin(n->team, "NCCL to start a collective");   /* it may have to connect for this one */
    if (what == COMM_ALL_REDUCE) check(nccl.AllReduce(x.data, x.data, count, type, ncclSum, n->comm, stream), "ncclAllReduce", n->comm);
    if (what == COMM_REDUCE_SCATTER) check(nccl.ReduceScatter(x.data, mine, piece, type, ncclSum, n->comm, stream), "ncclReduceScatter", n->comm);
    if (what == COMM_ALL_GATHER) check(nccl.AllGather(mine, x.data, piece, type, n->comm, stream), "ncclAllGather", n->comm);
    team_wait_end(n->team);
    n->started++;
    n->backend->event_record(n->done[n->started % EVENTS], n->stream);
    return n->started;
}

static void wait_for(void *own, Ticket ticket, Stream *before) {
    Nccl *n = own;
    CHECK(ticket <= n->started);
    check_progress(n);
    Ticket oldest = n->started - EVENTS + 1;
    n->backend->stream_wait(before, n->done[(ticket > oldest ? ticket : oldest) % EVENTS]);
}

const CommBody comm_nccl = {.name = "nccl", .missing = missing, .open = open_body, .close = close_body, .start = start, .wait = wait_for};
