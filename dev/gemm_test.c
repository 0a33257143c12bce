/* gemm_test.c: which algorithms kernels/gemm.cu takes, over the stand-in for cuBLASLt (dev/lt_standin.cpp, which lists what it offers: number 2 is
   its first choice that works, 3 the faster, 4 the fastest and adds up in the result). make test-gemm. */
#include "kernels/op_test.h"

enum { N = 40, IC = 24, OC = 72 };

static const BackendSettings fixed = {ATTENTION_AUTO, 0, 1, 0, NULL}, timed = {ATTENTION_AUTO, 0, 0, 1, NULL};

typedef struct {
    Tensor dw, dout, x;
    double *expected;
} Weights;

/* Two products that are added up: dw = 0, then dw = dout^T x, then twice that. */
static Weights weights_of(const Backend *b, int64_t offset) {
    Weights w;
    double *douts = random_values(N * OC, 1, F32), *xs = random_values(N * IC + offset, 1, F32);
    w.dout = test_tensor(b, F32, douts, 2, N, OC, 0, 0);
    w.x = test_tensor(b, F32, xs, 1, N * IC + offset, 0, 0, 0);
    w.dw = test_tensor(b, F32, NULL, 2, OC, IC, 0, 0);
    w.expected = calloc(OC * IC, sizeof *w.expected);
    for (int64_t n = 0; n < N; n++)
        for (int64_t o = 0; o < OC; o++)
            for (int64_t i = 0; i < IC; i++) w.expected[o * IC + i] += 2 * douts[n * OC + o] * xs[n * IC + i + offset];
    free(douts);
    free(xs);
    return w;
}
static void add_up(const Backend *b, const Weights *w, int64_t offset, Stream *s) {
    Tensor x = tensor((float *)w->x.data + offset, F32, 2, N, IC, 0, 0);
    for (int accumulate = 0; accumulate < 2; accumulate++) b->op.matmul_backward_weight(w->dw, no_tensor(), w->dout, x, accumulate, s);
    b->synchronize(s);
}
static void expect_twice(const Backend *b, Weights w) {
    double *got = test_values(b, w.dw);
    for (int i = 0; i < OC * IC; i++)
        if (!(fabs(got[i] - w.expected[i]) <= 1e-4)) fail_msg("dw[%d] is %g, expected %g", i, got[i], w.expected[i]);
    free(got);
    free(w.expected);
    test_free(b, w.dw); test_free(b, w.dout); test_free(b, w.x);
}

/* How many products of the text take algorithm number `kind`: its text begins with that number, the lowest byte first. */
static int count_of(const char *text, int kind) {
    char begin[32];
    int count = 0;
    snprintf(begin, sizeof begin, " = %02x00000000000000", kind);
    for (const char *at = strstr(text, begin); at; at = strstr(at + 1, begin)) count++;
    return count;
}

/* Adding is timed beside the result: it holds two products and not all that were tried. Timed, the fastest; of tensors that begin at a multiple of 4
   bytes too, which its rival cannot take. */
static void the_fastest_is_taken(void **state) {
    (void)state;
    const Backend *b = backend_find("emu");
    b->configure(&timed);
    for (int64_t offset = 0; offset < 2; offset++) {
        Weights w = weights_of(b, offset);
        add_up(b, &w, offset, NULL);
        assert_int_equal(count_of(b->algorithms(), 4), 2 * (offset + 1));
        expect_twice(b, w);
    }
    assert_int_equal(count_of(b->algorithms(), 2) + count_of(b->algorithms(), 3), 0);
}

static void multiply(const Backend *b, int64_t rows) {
    Tensor dout = test_tensor(b, BF16, NULL, 2, rows, 16, 0, 0), x = test_tensor(b, BF16, NULL, 2, rows, 32, 0, 0);
    Tensor dw = test_tensor(b, F32, NULL, 2, 16, 32, 0, 0);
    b->op.matmul_backward_weight(dw, no_tensor(), dout, x, 0, NULL);
    b->synchronize(NULL);
    test_free(b, dout); test_free(b, x); test_free(b, dw);
}

/* Untimed, the first that works, past one without success and one that is refused when run. What a text says of another product is not taken over:
   the stand-in would end the program. */
static void the_first_that_works_is_taken(void **state) {
    (void)state;
    const Backend *b = backend_find("emu");
    b->configure(&fixed);
    int before = count_of(b->algorithms(), 2);
    multiply(b, 8);
    assert_int_equal(count_of(b->algorithms(), 2), before + 1);
    char *text = strdup(b->algorithms()), *name = strstr(text, "16 x 32 x 8 tn");
    assert_non_null(name);
    name[strlen("16 x 32 x ")] = '6';
    assert_true(b->set_algorithms(text));
    multiply(b, 6);
    assert_int_equal(count_of(b->algorithms(), 2), before + 2);
    free(text);
}

/* What a capture holds was chosen and run before it, or the stand-in ends the program; pointers are those of the call. */
static void a_capture_finds_all_chosen(void **state) {
    (void)state;
    const Backend *b = backend_find("emu");
    b->configure(&timed);
    Stream *s = b->stream_open(0);
    Weights before = weights_of(b, 0), w = weights_of(b, 0);
    add_up(b, &before, 0, s);
    b->graph_begin(s);
    for (int accumulate = 0; accumulate < 2; accumulate++)
        b->op.matmul_backward_weight(w.dw, no_tensor(), w.dout, tensor(w.x.data, F32, 2, N, IC, 0, 0), accumulate, s);
    Graph *graph = b->graph_end(s);
    b->graph_launch(graph, s);
    b->synchronize(s);
    expect_twice(b, before);
    expect_twice(b, w);
    b->graph_close(graph);
    b->stream_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_is_taken),
        cmocka_unit_test(the_first_that_works_is_taken),
        cmocka_unit_test(a_capture_finds_all_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
