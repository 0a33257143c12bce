/* nccl_test.c: what llmc/comm_nccl.c asks of NCCL, and the order that its events make, without a GPU: a stand-in is loaded as libnccl.so.2, the other
   ranks of the team are made up, and streams and events only keep account. */
#include "llmc/child_test.h"
#include "llmc/comm_body.h"
#include "llmc/team_body.h"
#include "nccl_standin.h"

#include <dlfcn.h>

/* ---- a device of streams and events ---- */

enum { COMPUTE, OTHER, OWN, STREAMS };

/* Pieces of work put into it so far, and of each stream how many its next piece waits for. */
struct Stream {
    int put, seen[STREAMS];
};
struct Event {
    const Stream *of;
    int put;
};

static Stream streams[STREAMS];
static int events, own_streams, synchronized;
static int finished;   /* so much of OWN's work is over */
static int waiting;    /* the watch has been told so */

static const char *select_device(int index) {
    static char name[32];
    snprintf(name, sizeof name, "0000:%02d:00.0", 17 + index);
    return name;
}
static Stream *stream_open(int urgent) {
    assert_int_equal(urgent, 1);
    own_streams++;
    return &streams[OWN];
}
static void stream_close(Stream *s) { assert_ptr_equal(s, &streams[OWN]); own_streams--; }
static void synchronize(Stream *s) { synchronized += s == &streams[OWN]; }
static Event *event_open(void) { events++; return xcalloc(1, sizeof(Event)); }
static void event_close(Event *e) { events--; free(e); }
static void event_record(Event *e, Stream *s) { *e = (Event){s, s->put}; }
static int event_over(Event *e) { return !e->of || e->put <= finished; }
static void event_wait(Event *e) {
    assert_int_equal(waiting, 1);
    if (e->put > finished) finished = e->put;
}
static void stream_wait(Stream *s, Event *e) {
    int *seen = &s->seen[e->of - streams];
    if (e->put > *seen) *seen = e->put;
}

static Backend device(void) {
    Backend b = *backend_find("cpu");
    b.name = "cuda";
    b.host_memory = 0;
    b.select = select_device;
    b.stream_open = stream_open;
    b.stream_close = stream_close;
    b.synchronize = synchronize;
    b.event_open = event_open;
    b.event_close = event_close;
    b.event_record = event_record;
    b.event_over = event_over;
    b.event_wait = event_wait;
    b.stream_wait = stream_wait;
    return b;
}

/* ---- a team whose other members are made up ---- */

static bool one_gpu_for_two, namesakes;

/* The others bring what this rank does; their GPUs are their own unless two share one. Namesakes are machines alike in the names of host and GPU, but
   not in the id of their boot. Rank 0 brings the id. */
static void gather(Team *t, const void *mine, size_t bytes, void *all, const char *what) {
    for (int r = 0; r < t->ranks; r++) {
        char *place = (char *)all + (size_t)r * bytes;
        memcpy(place, mine, bytes);
        if (strstr(what, "GPU")) assert_true(strchr(place, ' ')[1] != 0);
        if (strstr(what, "GPU") && r != t->rank && namesakes) strchr(place, ' ')[1] = (char)('A' + r);
        else if (strstr(what, "GPU") && r != t->rank && !(one_gpu_for_two && r == t->rank - 1)) snprintf(place, bytes, "other %d", r);
        if (strstr(what, "NCCL") && r == 0) memset(place, 'i', bytes);
    }
}

static void wait_begin(Team *t, const char *what) {
    assert_non_null(t);
    assert_non_null(what);
    assert_int_equal(waiting++, 0);
}
static void wait_end(Team *t) {
    assert_non_null(t);
    assert_int_equal(waiting--, 1);
}

static const TeamBody body = {.gather = gather, .wait_begin = wait_begin, .wait_end = wait_end};
static char *hosts[] = {(char *)"node", (char *)"node", (char *)"node", (char *)"node"};
static Team member(int rank, int ranks) {
    return (Team){.body = &body, .rank = rank, .ranks = ranks, .local_rank = rank, .hosts = hosts};
}

/* ---- what NCCL is told ---- */

static int watched;   /* there is a team */

static struct {
    const char *name;
    const void *from, *to;
    size_t count;
    ncclDataType_t type;
    int times;
} told;

static int opening;   /* calls while a Comm is opened: one of each kind, so that NCCL connects */

static void listen(const char *name, const void *from, void *to, size_t count, ncclDataType_t type, cudaStream_t stream) {
    Stream *own = &streams[OWN];
    assert_ptr_equal(stream, own);
    if (opening) {
        opening++;
        return;
    }
    assert_int_equal(own->seen[COMPUTE], streams[COMPUTE].put);   /* it waits for all that was computed by now */
    assert_int_equal(waiting, watched);                           /* for NCCL may make the host wait for other ranks */
    own->put++;
    int times = told.times + 1;
    told.name = name, told.from = from, told.to = to, told.count = count, told.type = type, told.times = times;
}

static void expect_told(const char *name, const void *from, const void *to, size_t count, ncclDataType_t type) {
    assert_string_equal(told.name, name);
    assert_ptr_equal(told.from, from);
    assert_ptr_equal(told.to, to);
    assert_int_equal(told.count, count);
    assert_int_equal(told.type, type);
}

static Comm *open_nccl(Team *team, const Backend *backend, const char *kind) {
    opening = 1;
    Comm *c = comm_open(team, backend, kind);
    assert_int_equal(opening, 4);
    opening = 0;
    return c;
}

static int begin(void **state) {
    (void)state;
    void *library = dlopen("libnccl.so.2", RTLD_NOW);
    void (*start_listening)(NcclListener) = library ? (void (*)(NcclListener))dlsym(library, "nccl_standin_listen") : NULL;
    if (!start_listening) return -1;
    start_listening(listen);
    memset(streams, 0, sizeof streams);
    memset(&told, 0, sizeof told);
    one_gpu_for_two = namesakes = false;
    finished = waiting = watched = 0;
    return 0;
}

static void collectives_in_place(void **state) {
    (void)state;
    static float x[4096];
    char *bytes = (char *)x;
    Backend b = device();
    for (int ranks = 1; ranks <= 4; ranks++)
        for (int rank = 0; rank < ranks; rank++) {
            Team team = member(rank, ranks);
            watched = ranks > 1;
            Comm *c = open_nccl(ranks > 1 ? &team : NULL, &b, "nccl");
            size_t n = 12 * 7, piece = n / (size_t)ranks;
            Tensor f32 = tensor(x, F32, 2, 12, 7, 0, 0), f64 = tensor(x, F64, 1, 3, 0, 0, 0), bf16 = tensor(x, BF16, 1, (int64_t)n, 0, 0, 0);
            assert_string_equal(comm_name(c), "nccl");
            comm_all_reduce(c, f32, &streams[COMPUTE]);
            expect_told("AllReduce", x, x, n, ncclFloat32);
            comm_all_reduce(c, f64, &streams[COMPUTE]);
            expect_told("AllReduce", x, x, 3, ncclFloat64);
            comm_reduce_scatter(c, f32, &streams[COMPUTE]);
            expect_told("ReduceScatter", x, bytes + 4 * piece * (size_t)rank, piece, ncclFloat32);
            comm_all_gather(c, f32, &streams[COMPUTE]);
            expect_told("AllGather", bytes + 4 * piece * (size_t)rank, x, piece, ncclFloat32);
            comm_all_gather(c, bf16, &streams[COMPUTE]);
            expect_told("AllGather", bytes + 2 * piece * (size_t)rank, x, piece, ncclBfloat16);
            int before = synchronized;
            comm_close(c);
            assert_true(synchronized > before);
            assert_int_equal(events, 0);
            assert_int_equal(own_streams, 0);
            assert_int_equal(waiting, 0);
        }
}

/* A device that never ends anything before the host waits for it, as with a rank that is gone. */
static void host_is_not_far_ahead(void **state) {
    (void)state;
    static float x[8];
    Backend b = device();
    Team team = member(1, 2);
    watched = 1;
    Comm *c = open_nccl(&team, &b, "nccl");
    for (int i = 0; i < 200; i++) {
        comm_all_reduce(c, tensor(x, F32, 1, 8, 0, 0, 0), &streams[COMPUTE]);
        assert_true(streams[OWN].put - finished <= 64);
        assert_true(i >= 64 || finished == 0);
    }
    comm_close(c);
    assert_int_equal(waiting, 0);
}

static void events_order_the_streams(void **state) {
    (void)state;
    enum { COUNT = 500 };   /* more than there are events */
    static float x[8];
    Backend b = device();
    Comm *c = open_nccl(NULL, &b, "nccl");
    finished = COUNT;
    for (int i = 0; i < COUNT; i++) {
        streams[COMPUTE].put += 1 + i % 3;
        assert_int_equal(comm_all_reduce(c, tensor(x, F32, 1, 8, 0, 0, 0), &streams[COMPUTE]), i + 1);
        assert_int_equal(told.times, i + 1);
        assert_int_equal(streams[COMPUTE].seen[OWN], 0);   /* who computes does not wait until told to */
    }
    comm_wait(c, 0, &streams[OTHER]);
    assert_int_equal(streams[OTHER].seen[OWN], 0);
    const int tickets[] = {1, COUNT - 100, COUNT - 64, COUNT - 63, COUNT - 62, COUNT - 1, COUNT};
    for (size_t i = 0; i < sizeof tickets / sizeof *tickets; i++) {
        comm_wait(c, tickets[i], &streams[OTHER]);
        assert_true(streams[OTHER].seen[OWN] >= tickets[i]);
        /* Of the last ones it waits for no more than it must. */
        if (tickets[i] > COUNT - 64) assert_int_equal(streams[OTHER].seen[OWN], tickets[i]);
    }
    comm_close(c);
}

/* ---- failures ---- */

/* Rank 2 of 3, where `fails` fails. */
static int open_and_use(void *fails) {
    static float x[8];
    Backend b = device();
    Team team = member(2, 3);
    error_exit_hook(_exit);
    setenv("NCCL_STANDIN_FAILS", fails, 1);
    watched = 1;
    Comm *c = open_nccl(&team, &b, "auto");
    Ticket ticket = comm_all_reduce(c, tensor(x, F32, 1, 8, 0, 0, 0), &streams[COMPUTE]);
    comm_wait(c, ticket, &streams[OTHER]);
    return 0;
}

/* It ends with status 1 and a sentence that has `part`; with part NULL with status 0. */
static void expect_end(const char *fails, const char *part) {
    Child c = child_run(open_and_use, (void *)fails);
    assert_int_equal(c.status, part ? 1 : 0);
    if (part) assert_holds(c.text, part);
}

static void failures_are_named(void **state) {
    (void)state;
    expect_end("", NULL);
    expect_end("init", "NCCL failed in ncclCommInitRank");
    expect_end("start", "NCCL failed in ncclAllReduce: some error: cable unplugged");
    expect_end("later", "NCCL failed in a collective: remote error: cable unplugged");
    one_gpu_for_two = true;
    expect_end("", "ranks 1 and 2 both use GPU 0000:19:00.0 of node");
    namesakes = true;
    expect_end("", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(collectives_in_place, begin),
        cmocka_unit_test_setup(events_order_the_streams, begin),
        cmocka_unit_test_setup(host_is_not_far_ahead, begin),
        cmocka_unit_test_setup(failures_are_named, begin),
    };
    return cmocka_run_group_tests_name("nccl", tests, NULL, NULL);
}
