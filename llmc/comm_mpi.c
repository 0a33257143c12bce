/* comm_mpi.c: collectives over MPI for a backend whose device memory is the host's; the one file that includes mpi.h.

   The three are made here of messages from every rank to every other. A sum is cut into as many parts as ranks; each rank gets all versions of its
   part and adds them up in the order of the ranks, so that the result depends on nothing that an MPI chooses, and is that of comm_loopback.c to the bit.
   Each rank sends and receives (ranks - 1)/ranks of the array, and for an all-reduce twice that: no way needs less (Thakur et al. 2005).

   The worker's thread looks again and again whether the messages are through, and sleeps in between: with one core a rank, a thread that spins
   holds up the one that computes, and one that yields gets its turn back only after milliseconds. */
#include "comm_body.h"
#include "error.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SMALL = 4096,              /* bytes up to which an all-reduce sends the whole array to everyone: half the messages */
    CHUNK = 16 << 20,          /* bytes that are summed at a time: bounds the memory for what is received */
    LARGEST_MESSAGE = 1 << 30, /* bytes; MPI counts in int */
    LOOKS = 4,                 /* without sleeping: small messages are through at once */
    SHORT_NAP = 5000,          /* nanoseconds; each is twice as long as the one before, up to */
    LONG_NAP = 100000
};

/* So many elements for, or from, a rank. */
typedef struct {
    void *at;
    int64_t n;
} Part;

typedef struct {
    CommWorker *worker;
    MPI_Comm comm;
    int rank, ranks;
    size_t slot_bytes;
    char *slots;             /* (ranks, slot_bytes) what the others sent of my part; mine stays empty */
    Part *give, *take;       /* (ranks) of the exchange under way */
    MPI_Request *requests;   /* (2*ranks) */
    MPI_Status *statuses;    /* (2*ranks) of no use, but MPICH's MPI_STATUSES_IGNORE makes compilers warn */
} Mpi;

static bool started;

static void check(int error, const char *what) {
    if (error == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(error, text, &length) != MPI_SUCCESS) length = 0;
    die("MPI failed in %s: %.*s", what, length, text);
}

/* ---- for launch.c ---- */

bool mpi_start(MpiPlace *place) {
    int threads;
    check(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &threads), "MPI_Init_thread");
    if (threads < MPI_THREAD_SERIALIZED)
        die("this MPI was built without support for threads (it gives level %d, and MPI_THREAD_SERIALIZED is %d): use another MPI, or --comm tcp", threads,
            MPI_THREAD_SERIALIZED);
    MPI_Comm here;
    MPI_Comm_rank(MPI_COMM_WORLD, &place->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &place->ranks);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, place->rank, MPI_INFO_NULL, &here);
    MPI_Comm_rank(here, &place->local_rank);
    MPI_Comm_free(&here);
    started = place->ranks > 1;
    if (!started) MPI_Finalize();
    return started;
}

void mpi_text_of_first(char *text, size_t size) { check(MPI_Bcast(text, (int)size, MPI_CHAR, 0, MPI_COMM_WORLD), "MPI_Bcast"); }

void mpi_finish(void) {
    if (started) MPI_Finalize();
    started = false;
}

/* ---- the collectives ---- */

static void wait_for_messages(Mpi *m, int n) {
    struct timespec nap = {0, SHORT_NAP};
    int over = 0;
    for (int looks = 0; !over; looks++) {
        if (looks >= LOOKS) {
            nanosleep(&nap, NULL);
            if (nap.tv_nsec < LONG_NAP) nap.tv_nsec *= 2;
        }
        check(MPI_Testall(n, m->requests, &over, m->statuses), "MPI_Testall");
    }
}

/* Sends give[r] to every other rank r and receives take[r] from it. */
static void exchange(Mpi *m, size_t element_bytes) {
    int n = 0;
    for (int i = 1; i < m->ranks; i++) {
        int r = (m->rank + m->ranks - i) % m->ranks;
        check(MPI_Irecv(m->take[r].at, (int)(m->take[r].n * (int64_t)element_bytes), MPI_BYTE, r, 0, m->comm, &m->requests[n++]), "MPI_Irecv");
    }
    for (int i = 1; i < m->ranks; i++) {
        int r = (m->rank + i) % m->ranks;
        check(MPI_Isend(m->give[r].at, (int)(m->give[r].n * (int64_t)element_bytes), MPI_BYTE, r, 0, m->comm, &m->requests[n++]), "MPI_Isend");
    }
    wait_for_messages(m, n);
}

static void add(void *out, const void *a, const void *b, DType dtype, int64_t n) {
    if (dtype == F64) {
        double *sum = out;
        const double *x = a, *y = b;
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] = x[i] + y[i];
    } else {
        float *sum = out;
        const float *x = a, *y = b;
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] = x[i] + y[i];
    }
}

/* mine(n) becomes the sum of itself and what lies in the slots, in the order of the ranks. */
static void add_slots(Mpi *m, void *mine, DType dtype, int64_t n) {
    void *sum = m->rank == 0 ? mine : m->slots;
    for (int r = 1; r < m->ranks; r++) {
        const void *term = r == m->rank ? mine : m->slots + (size_t)r * m->slot_bytes;
        add(r == m->ranks - 1 ? mine : sum, sum, term, dtype, n);
    }
}

/* Part r of n elements from `first` on, cut as evenly as they can be. */
static Part part_of(const Mpi *m, char *first, int64_t n, int r, size_t element_bytes) {
    int64_t begin = n * r / m->ranks, end = n * (r + 1) / m->ranks;
    return (Part){first + (size_t)begin * element_bytes, end - begin};
}

static void take_into_slots(Mpi *m, int64_t n) {
    for (int r = 0; r < m->ranks; r++) m->take[r] = (Part){m->slots + (size_t)r * m->slot_bytes, n};
}

static void all_reduce_small(Mpi *m, Tensor x) {
    int64_t n = tensor_numel(x);
    for (int r = 0; r < m->ranks; r++) m->give[r] = (Part){x.data, n};
    take_into_slots(m, n);
    exchange(m, dtype_size(x.dtype));
    add_slots(m, x.data, x.dtype, n);
}

static void all_reduce(Mpi *m, Tensor x) {
    int64_t size = (int64_t)dtype_size(x.dtype), n = tensor_numel(x), step = CHUNK / size;
    for (int64_t at = 0; at < n; at += step) {
        char *first = (char *)x.data + at * size;
        int64_t count = n - at < step ? n - at : step;
        Part mine = part_of(m, first, count, m->rank, (size_t)size);
        for (int r = 0; r < m->ranks; r++) m->give[r] = part_of(m, first, count, r, (size_t)size);
        take_into_slots(m, mine.n);
        exchange(m, (size_t)size);
        add_slots(m, mine.at, x.dtype, mine.n);
        for (int r = 0; r < m->ranks; r++) {
            m->give[r] = mine;
            m->take[r] = part_of(m, first, count, r, (size_t)size);
        }
        exchange(m, (size_t)size);
    }
}

static void reduce_scatter(Mpi *m, Tensor x) {
    int64_t size = (int64_t)dtype_size(x.dtype), piece = tensor_numel(x) / m->ranks, step = CHUNK / size / m->ranks;
    for (int64_t at = 0; at < piece; at += step) {
        int64_t count = piece - at < step ? piece - at : step;
        for (int r = 0; r < m->ranks; r++) m->give[r] = (Part){(char *)x.data + (r * piece + at) * size, count};
        take_into_slots(m, count);
        exchange(m, (size_t)size);
        add_slots(m, m->give[m->rank].at, x.dtype, count);
    }
}

static void all_gather(Mpi *m, Tensor x) {
    int64_t size = (int64_t)dtype_size(x.dtype), piece = tensor_numel(x) / m->ranks, step = LARGEST_MESSAGE / size;
    for (int64_t at = 0; at < piece; at += step) {
        int64_t count = piece - at < step ? piece - at : step;
        for (int r = 0; r < m->ranks; r++) {
            m->give[r] = (Part){(char *)x.data + (m->rank * piece + at) * size, count};
            m->take[r] = (Part){(char *)x.data + (r * piece + at) * size, count};
        }
        exchange(m, (size_t)size);
    }
}

static void run(void *context, Collective what, Tensor x) {
    Mpi *m = context;
    if (what == COMM_REDUCE_SCATTER) reduce_scatter(m, x);
    else if (what == COMM_ALL_GATHER) all_gather(m, x);
    else if (tensor_bytes(x) <= SMALL) all_reduce_small(m, x);
    else all_reduce(m, x);
}

/* ---- the body ---- */

static const char *missing(const Team *team, const Backend *backend) {
    (void)team;
    if (!backend->host_memory) return "it is for the CPU; on GPUs take --comm nccl";
    return started ? NULL : "these ranks were not started by mpirun (mpirun -np N ./train_gpt ...)";
}

static void *open_body(Team *team, const Backend *backend) {
    (void)backend;
    Mpi *m = xcalloc(1, sizeof *m);
    m->rank = team_rank(team);
    m->ranks = team_ranks(team);
    check(MPI_Comm_dup(MPI_COMM_WORLD, &m->comm), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    m->slot_bytes = (size_t)(CHUNK / m->ranks + SMALL) / 64 * 64;
    m->slots = xmalloc((size_t)m->ranks * m->slot_bytes);
    m->give = xcalloc((size_t)m->ranks, sizeof *m->give);
    m->take = xcalloc((size_t)m->ranks, sizeof *m->take);
    m->requests = xcalloc(2 * (size_t)m->ranks, sizeof *m->requests);
    m->statuses = xcalloc(2 * (size_t)m->ranks, sizeof *m->statuses);
    m->worker = worker_open(team, run, m);
    return m;
}

static void close_body(void *own) {
    Mpi *m = own;
    worker_close(m->worker);
    MPI_Comm_free(&m->comm);
    free(m->slots);
    free(m->give);
    free(m->take);
    free(m->requests);
    free(m->statuses);
    free(m);
}

static Ticket start(void *own, Collective what, Tensor x, Stream *after) {
    (void)after;
    return worker_start(((Mpi *)own)->worker, what, x);
}

static void wait_for(void *own, Ticket ticket, Stream *before) {
    (void)before;
    worker_wait(((Mpi *)own)->worker, ticket);
}

static CommTimes times(void *own) { return worker_times(((Mpi *)own)->worker); }

const CommBody comm_mpi = {
    .name = "mpi", .missing = missing, .open = open_body, .close = close_body, .start = start, .wait = wait_for, .times = times};
