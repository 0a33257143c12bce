/* backend_test.c: finding backends, their devices, streams and events, how they fail, and the two that wrap another: checked and timed. */
#include "op_test.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void backends_are_found_by_name(void **state) {
    (void)state;
    assert_non_null(backend_find("cpu"));
    assert_string_equal(backend_find("cpu")->name, "cpu");
    assert_non_null(backend_find("auto"));
    assert_true(strcmp(backend_find("auto")->name, "emu") != 0);
    assert_null(backend_find("abacus"));
    assert_null(backend_find(""));
    char names[128];
    assert_true(snprintf(names, sizeof names, "%s", backend_names()) < (int)sizeof names);
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", ")) assert_string_equal(backend_find(name)->name, name);
    assert_non_null(strstr(backend_names(), "cpu"));
}

static void put(const char *directory, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
}

/* A job of 1000 bytes, 300 of them taken, 50 of these a cache; in it a step without a limit; above both a slice with 600 bytes left. */
static void memory_is_what_the_control_groups_leave(void **state) {
    (void)state;
    char root[] = P_tmpdir "/train_gpt_test.XXXXXX", slice[64], job[80], step[96], command[80];
    assert_non_null(mkdtemp(root));
    snprintf(slice, sizeof slice, "%s/slice", root);
    snprintf(job, sizeof job, "%s/job", slice);
    snprintf(step, sizeof step, "%s/step", job);
    assert_true(mkdir(slice, 0700) == 0 && mkdir(job, 0700) == 0 && mkdir(step, 0700) == 0);
    assert_true(isinf(cgroup_room(root, "/slice/job/step")) && isinf(cgroup_room(root, "/")) && isinf(cgroup_room(root, "/none")));
    put(job, "memory.max", "1000\n");
    assert_true(isinf(cgroup_room(root, "/slice/job/step")));   /* how much is taken is not known */
    put(job, "memory.current", "300\n");
    assert_true(cgroup_room(root, "/slice/job") == 700);
    put(job, "memory.stat", "anon 250\nfile 50\ninactive_file 50\nactive_file 0\n");
    put(step, "memory.max", "max\n");
    put(step, "memory.current", "300\n");
    assert_true(cgroup_room(root, "/slice/job") == 750 && cgroup_room(root, "/slice/job/step") == 750 && cgroup_room(root, "/slice/job/") == 750);
    put(slice, "memory.max", "1600\n");
    put(slice, "memory.current", "1000\n");
    assert_true(cgroup_room(root, "/slice/job/step") == 600);
    assert_true(isinf(cgroup_room(root, "")));
    put(root, "memory.max", "2\n");
    put(root, "memory.current", "1\n");
    assert_true(cgroup_room(root, "") == 1 && cgroup_room(root, "/slice") == 1);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

/* Also where the memory was used before: several blocks at once, so that some come back. */
static void cpu_memory_is_aligned_and_zeroed(void **state) {
    (void)state;
    enum { BLOCKS = 16 };
    const Backend *b = backend_find("cpu");
    static const size_t sizes[] = {0, 1, 255, 256, 5000, 100000};
    for (int i = 0; i < 6; i++)
        for (int round = 0; round < 2; round++) {
            unsigned char *blocks[BLOCKS];
            for (int k = 0; k < BLOCKS; k++) {
                blocks[k] = b->alloc(sizes[i]);
                assert_int_equal((uintptr_t)blocks[k] % 256, 0);
                for (size_t byte = 0; byte < sizes[i]; byte++) assert_true(blocks[k][byte] == 0);
                memset(blocks[k], 0xFF, sizes[i]);
            }
            for (int k = 0; k < BLOCKS; k++) b->release(blocks[k]);
        }
}

static void every_number_is_a_device(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++) {
        const Backend *b = test_backend(i);
        if (!b) continue;
        int n = b->devices();
        char first[64];
        assert_in_range(n, 1, 1024);
        snprintf(first, sizeof first, "%s", b->select(0));
        for (int k = 1; k < n; k++) assert_string_not_equal(b->select(k), first);
        assert_string_equal(b->select(n), first);
        assert_true((*first == 0) == b->host_memory);
    }
}

/* x + x */
static void twice(const Backend *b, Tensor out, Tensor x, Stream *s) { b->op.residual_forward(out, x, x, (Dropout){0, 0, NULL}, s); }

static void expect_all(const Backend *b, Tensor t, double value) {
    double *got = test_values(b, t);
    for (int64_t i = 0; i < tensor_numel(t); i++) if (got[i] != value) fail_msg("%s: %g at %lld, expected %g", b->name, got[i], (long long)i, value);
    free(got);
}

/* Work goes from one stream to another and back, and nobody but the streams themselves waits until the end. The second event is recorded again after
   the wait for it was put in, in a stream that waits in turn for that one: the wait is for the event as it was. */
static void check_order_of_streams(const Backend *b, DType dtype) {
    enum { LENGTH = 5000 };
    double ones[LENGTH];
    for (int i = 0; i < LENGTH; i++) ones[i] = 1;
    Tensor x = test_tensor(b, dtype, ones, 2, 2, LENGTH / 2, 0, 0), y = test_tensor(b, dtype, NULL, 2, 2, LENGTH / 2, 0, 0);
    Stream *compute = b->stream_open(0), *copy = b->stream_open(1);
    Event *there = b->event_open(), *back = b->event_open();
    assert_int_equal(b->event_over(there), 1);
    b->event_wait(there);
    for (int round = 0; round < 3; round++) {   /* x = 4 x */
        twice(b, y, x, compute);
        b->event_record(there, compute);
        b->stream_wait(copy, there);
        twice(b, x, y, copy);
        b->event_record(back, copy);
        b->stream_wait(compute, back);
    }
    b->event_record(there, compute);
    b->stream_wait(copy, there);
    b->event_record(back, copy);
    int asked = 0;
    while (!b->event_over(back)) if (asked++ == 100000000) fail_msg("%s: the event does not come", b->name);
    assert_int_equal(b->event_over(back), 1);
    b->synchronize(compute);
    expect_all(b, x, 64);
    expect_all(b, y, 32);
    b->event_close(there); b->event_close(back);
    b->stream_close(compute); b->stream_close(copy);
    test_free(b, x); test_free(b, y);
}

static void streams_wait_for_each_other(void **state) { (void)state; on_every_backend(check_order_of_streams); }

/* Threads that take turns, each with tensors and a stream of its own: never two at a time. */
enum { THREADS = 3, TURNS = 4 };
typedef struct {
    const Backend *b;
    DType dtype;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int turn, opened;
} Turns;

static void wait_for_turn(Turns *t, int number) {
    while (t->turn % THREADS != number) pthread_cond_wait(&t->changed, &t->mutex);
}
static void end_turn(Turns *t) {
    t->turn++;
    pthread_cond_broadcast(&t->changed);
}
static void *take_turns(void *context) {
    enum { LENGTH = 20000 };
    Turns *t = context;
    pthread_mutex_lock(&t->mutex);
    const Backend *b = t->b;
    int number = t->opened++;
    double *ones = malloc(LENGTH * sizeof *ones);
    for (int i = 0; i < LENGTH; i++) ones[i] = 1 + number;
    b->select(0);
    Tensor x = test_tensor(b, t->dtype, ones, 2, 2, LENGTH / 2, 0, 0), sum = test_tensor(b, F32, NULL, 1, 1, 0, 0, 0);
    Stream *s = b->stream_open(0);
    for (int turn = 0; turn < TURNS; turn++) {
        wait_for_turn(t, number);
        twice(b, x, x, s);
        if (t->dtype == F32) b->op.loss_sum(sum, x, 0, s);   /* has a barrier, and so fibers of many CUDA threads at once */
        b->synchronize(s);
        end_turn(t);
    }
    wait_for_turn(t, number);
    expect_all(b, x, (1 + number) << TURNS);
    if (t->dtype == F32) expect_all(b, sum, (double)LENGTH * ((1 + number) << TURNS));
    b->stream_close(s);
    test_free(b, x); test_free(b, sum); free(ones);
    end_turn(t);
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}
static void check_turns(const Backend *b, DType dtype) {
    Turns t = {b, dtype, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, take_turns, &t), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(t.turn, THREADS * (TURNS + 1));
}

static void threads_take_turns(void **state) { (void)state; on_every_backend(check_turns); }

/* How a child that runs `end` exits, and what it says on stderr. */
static int exit_of(void (*end)(void), char *said, size_t size) {
    int ends[2], status = 0;
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        end();
        _exit(99);
    }
    close(ends[1]);
    for (ssize_t n; length + 1 < size && (n = read(ends[0], said + length, size - 1 - length)) > 0;) length += (size_t)n;
    said[length] = 0;
    close(ends[0]);
    assert_true(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void go_elsewhere(const char *message) {
    fprintf(stderr, "elsewhere: %s.", message);
    _exit(7);
}
static void fail_plainly(void) { backend_fail("%d of %s", 3, "these"); }
static void fail_elsewhere(void) {
    backend_on_failure(go_elsewhere);
    fail_plainly();
}
static void want_too_much(void) {
    backend_on_failure(go_elsewhere);
    backend_find("cpu")->configure(&(BackendSettings){.attention = ATTENTION_CUDNN});
}

static void failure_is_one_sentence(void **state) {
    (void)state;
    char said[2000];
    assert_int_equal(exit_of(fail_plainly, said, sizeof said), 1);
    assert_string_equal(said, "3 of these\n");
    assert_int_equal(exit_of(fail_elsewhere, said, sizeof said), 7);
    assert_string_equal(said, "elsewhere: 3 of these.");
    assert_int_equal(exit_of(want_too_much, said, sizeof said), 7);
    assert_string_equal(said, "elsewhere: --attention cudnn is for the cuda device; this is the cpu: use --attention auto.");
}

/* What the checker reported. */
static struct { int calls, output; char op[64]; } report;
static void remember(const char *op, int output) {
    report.calls++;
    report.output = output;
    snprintf(report.op, sizeof report.op, "%s", op);
}
static void forget(void) { memset(&report, 0, sizeof report); }

static Tensor of_value(const Backend *b, DType dtype, int64_t n, int64_t bad, double value) {
    double *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = i == bad ? value : 1 + i % 3;
    Tensor t = test_tensor(b, dtype, values, 2, 1, n, 0, 0);
    free(values);
    return t;
}

/* A bad value at any place, of any kind and dtype, on the op that first shows it, once. */
static void check_places(const Backend *b, DType dtype) {
    enum { LONG = 20011 };
    static const int places[] = {0, 4095, 4096, 8192, LONG - 1};
    Dropout off = {0, 0, NULL};
    for (int i = 0; i < 5; i++)
        for (int kind = 0; kind < 3; kind++) {
            forget();
            const Backend *checked = backend_checked(b, remember);
            Tensor good = of_value(b, dtype, LONG, -1, 0);
            Tensor bad = of_value(b, dtype, LONG, places[i], kind == 0 ? NAN : kind == 1 ? INFINITY : -INFINITY);
            checked->op.dropout(good, good, off, NULL);
            assert_int_equal(report.calls, 0);
            checked->op.dropout(bad, bad, off, NULL);
            assert_int_equal(report.calls, 1);
            assert_string_equal(report.op, "dropout");
            assert_int_equal(report.output, 0);
            checked->op.dropout(bad, bad, off, NULL);
            assert_int_equal(report.calls, 1);
            test_free(b, good); test_free(b, bad);
        }
}

static void checked_finds_a_bad_value(void **state) { (void)state; on_every_backend(check_places); }

/* Sums in double are looked at as well. */
static void checked_finds_a_bad_sum(void **state) {
    (void)state;
    const Backend *b = backend_find("cpu"), *checked = backend_checked(b, remember);
    Tensor sum = test_tensor(b, F64, NULL, 1, 1, 0, 0, 0), good = of_value(b, F32, 100, -1, 0), bad = of_value(b, F32, 100, 99, -INFINITY);
    forget();
    checked->op.sum_of_squares(sum, good, 0, NULL);
    assert_int_equal(report.calls, 0);
    checked->op.sum_of_squares(sum, bad, 1, NULL);
    assert_int_equal(report.calls, 1);
    assert_string_equal(report.op, "sum_of_squares");
    test_free(b, sum); test_free(b, good); test_free(b, bad);
}

/* The largest and the smallest numbers are no infinities, and outputs that are absent or no floats are passed over. */
static void checked_lets_good_values_pass(void **state) {
    (void)state;
    const Backend *b = backend_find("cpu"), *checked = backend_checked(b, remember);
    Dropout off = {0, 0, NULL};
    forget();
    double extremes[] = {3.4028234663852886e38, -3.4028234663852886e38, 1e-45, 0};
    Tensor t = test_tensor(b, F32, extremes, 2, 1, 4, 0, 0);
    checked->op.dropout(t, t, off, NULL);
    double tokens[] = {1, 0, 2, 1};
    Tensor d_tokens = test_tensor(b, I32, tokens, 2, 1, 4, 0, 0), dout = of_value(b, F32, 12, -1, 0);
    checked->op.embedding_backward(no_tensor(), no_tensor(), dout, d_tokens, 0, 0, NULL);
    assert_int_equal(report.calls, 0);
    test_free(b, t); test_free(b, d_tokens); test_free(b, dout);
}

/* A backend whose norm goes wrong in its third output, and whose dropout takes two milliseconds. */
static void broken_layernorm(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b, float eps, Stream *s) {
    (void)x; (void)w; (void)b; (void)eps; (void)s;
    float nan = NAN, one = 1;
    const Backend *cpu = backend_find("cpu");
    cpu->upload(out.data, &one, sizeof one, NULL);
    cpu->upload(mean.data, &one, sizeof one, NULL);
    cpu->upload(rstd.data, &nan, sizeof nan, NULL);
}
static void slow_dropout(Tensor out, Tensor x, Dropout drop, Stream *s) {
    (void)out; (void)x; (void)drop; (void)s;
    struct timespec two_milliseconds = {0, 2000000};
    nanosleep(&two_milliseconds, NULL);
}
static Backend odd_backend(void) {
    Backend odd = *backend_find("cpu");
    odd.op.layernorm_forward = broken_layernorm;
    odd.op.dropout = slow_dropout;
    return odd;
}

static void checked_names_op_and_output(void **state) {
    (void)state;
    Backend odd = odd_backend();
    const Backend *checked = backend_checked(&odd, remember);
    forget();
    Tensor one[6];
    for (int i = 0; i < 6; i++) one[i] = of_value(&odd, F32, 1, -1, 0);
    checked->op.loss_sum(one[0], one[1], 0, NULL);
    assert_int_equal(report.calls, 0);
    checked->op.layernorm_forward(one[0], one[1], one[2], one[3], one[4], one[5], 1e-5f, NULL);
    assert_int_equal(report.calls, 1);
    assert_string_equal(report.op, "layernorm_forward");
    assert_int_equal(report.output, 2);
    for (int i = 0; i < 6; i++) test_free(&odd, one[i]);
}

/* The report's line of an op, split into its columns; false if it has none. */
typedef struct { long long calls; double ms, share, gb, gflop, floors; } Line;
static bool find_line(const char *text, const char *op, Line *line) {
    char name[64];
    for (; text; text = strchr(text, '\n') ? strchr(text, '\n') + 1 : NULL)
        if (sscanf(text, "%63s %lld %lf %lf%% %lf %lf %lf", name, &line->calls, &line->ms, &line->share, &line->gb, &line->gflop,
                   &line->floors) == 7 && !strcmp(name, op)) return true;
    return false;
}

/* Three calls of 2 ms that read and write 4 MiB each, whose floor at 2 GB/s is 4.2 ms. */
static void timed_reports_calls_and_floors(void **state) {
    (void)state;
    enum { N = 1 << 20, CALLS = 3 };
    Backend odd = odd_backend();
    Tensor x = of_value(&odd, F32, N, -1, 0), sum = of_value(&odd, F32, 1, -1, 0);
    Dropout off = {0, 0, NULL};
    const Backend *timed = backend_timed(&odd);
    timed->op.loss_sum(sum, sum, 0, NULL);
    for (int i = 0; i < CALLS; i++) timed->op.dropout(x, x, off, NULL);
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    backend_timed_report(file, 2e9, 1e9);
    fclose(file);
    Line dropout, loss_sum, absent;
    assert_true(find_line(text, "dropout", &dropout) && find_line(text, "loss_sum", &loss_sum) && !find_line(text, "adamw", &absent));
    assert_true(strstr(text, "\ndropout") < strstr(text, "\nloss_sum"));
    assert_int_equal(dropout.calls, CALLS);
    assert_int_equal(loss_sum.calls, 1);
    assert_true(dropout.ms >= 2.0 * CALLS - 0.1);   /* the report rounds to a tenth */
    assert_true(fabs(dropout.share + loss_sum.share - 100) <= 0.2);
    double bytes = 8.0 * N * CALLS, floor_ms = 1e3 * bytes / 2e9;
    assert_true(fabs(dropout.gb - 1e-6 * bytes / dropout.ms) <= 0.1 + 0.02 * bytes / dropout.ms * 1e-6);
    assert_true(fabs(dropout.floors - dropout.ms / floor_ms) <= 0.01 + 0.02 * dropout.ms / floor_ms);
    free(text);
    backend_timed(&odd);   /* starts again from nothing */
    file = open_memstream(&text, &size);
    backend_timed_report(file, 2e9, 1e9);
    fclose(file);
    assert_false(find_line(text, "dropout", &dropout));
    free(text);
    test_free(&odd, x); test_free(&odd, sum);
}

/* At 1 GB/s and 10 GFLOP/s one product is bound by its bytes and the other by its arithmetic: their floor is more than that of their sums. */
static void timed_floor_is_a_sum_over_calls(void **state) {
    (void)state;
    enum { C = 64, CALLS = 2 };
    const Backend *b = backend_find("cpu"), *timed = backend_timed(b);
    Tensor w = of_value(b, F32, C * C, -1, 0);
    w.rank = 2, w.shape[0] = w.shape[1] = C;
    double bytes = 0, flops = 0, floor = 0;
    for (int64_t N = 1; N <= C; N += C - 1) {
        Tensor x = of_value(b, F32, N * C, -1, 0), out = of_value(b, F32, N * C, -1, 0);
        x.rank = out.rank = 2, x.shape[0] = out.shape[0] = N, x.shape[1] = out.shape[1] = C;
        for (int i = 0; i < CALLS; i++) timed->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_NONE, NULL);
        double call_bytes = 4.0 * (double)(2 * N * C + C * C), call_flops = 2.0 * (double)(N * C * C);
        bytes += CALLS * call_bytes;
        flops += CALLS * call_flops;
        floor += CALLS * fmax(call_bytes / 1e9, call_flops / 1e10);
        test_free(b, x); test_free(b, out);
    }
    assert_true(floor > 1.01 * fmax(bytes / 1e9, flops / 1e10));
    OpTime ops[BACKEND_OPS];
    assert_int_equal(backend_timed_ops(ops, 1e9, 1e10), 1);
    assert_string_equal(ops[0].name, "matmul_forward");
    assert_int_equal(ops[0].calls, 2 * CALLS);
    assert_true(ops[0].seconds > 0 && ops[0].bytes == bytes && ops[0].flops == flops);
    assert_true(fabs(ops[0].floor - floor) <= 1e-12 * floor);
    test_free(b, w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_is_one_sentence),   /* first: it forks, and a copy lacks the threads that others start */
        cmocka_unit_test(backends_are_found_by_name),
        cmocka_unit_test(memory_is_what_the_control_groups_leave),
        cmocka_unit_test(cpu_memory_is_aligned_and_zeroed),
        cmocka_unit_test(every_number_is_a_device),
        cmocka_unit_test(streams_wait_for_each_other),
        cmocka_unit_test(threads_take_turns),
        cmocka_unit_test(checked_finds_a_bad_value),
        cmocka_unit_test(checked_finds_a_bad_sum),
        cmocka_unit_test(checked_lets_good_values_pass),
        cmocka_unit_test(checked_names_op_and_output),
        cmocka_unit_test(timed_reports_calls_and_floors),
        cmocka_unit_test(timed_floor_is_a_sum_over_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
