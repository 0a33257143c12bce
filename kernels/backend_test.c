/* backend_test.c: finding backends, and the two that wrap another: checked and timed. */
#include "op_test.h"

#include <time.h>

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
        cmocka_unit_test(backends_are_found_by_name),
        cmocka_unit_test(cpu_memory_is_aligned_and_zeroed),
        cmocka_unit_test(checked_finds_a_bad_value),
        cmocka_unit_test(checked_lets_good_values_pass),
        cmocka_unit_test(checked_names_op_and_output),
        cmocka_unit_test(timed_reports_calls_and_floors),
        cmocka_unit_test(timed_floor_is_a_sum_over_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
