/* spikes_test.c: the thresholds against plain sums over the steps they are of; what an outcome read late must not change. */
#include "spikes.h"

#include "error.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A loss and a norm that differ from step to step. */
static float loss_of(int64_t step) { return 3.0f + (float)(step * 7919 % 101) / 101.0f; }
static float norm_of(int64_t step) { return 0.5f + (float)(step * 104729 % 89) / 890.0f; }

static SpikeGuard noted(int64_t first, int64_t last) {
    SpikeGuard g = {0};
    for (int64_t s = first; s <= last; s++) spikes_note(&g, 0, s, loss_of(s), norm_of(s));
    return g;
}

static double expected(float (*value)(int64_t step), int64_t first, int64_t last, double z) {
    double sum = 0, squares = 0, n = (double)(last - first + 1);
    for (int64_t s = first; s <= last; s++) sum += value(s);
    for (int64_t s = first; s <= last; s++) squares += (value(s) - sum / n) * (value(s) - sum / n);
    return sum / n + z * sqrt(squares / (n - 1));
}

static void expect_thresholds(const SpikeGuard *g, double z, int64_t step, int64_t first, int64_t last) {
    double loss, norm;
    spikes_thresholds(g, z, step, &loss, &norm);
    if (!(fabs(loss - expected(loss_of, first, last, z)) <= 1e-12) || !(fabs(norm - expected(norm_of, first, last, z)) <= 1e-12))
        fail_msg("step %d: %g, %g", (int)step, loss, norm);
}

static void expect_none(const SpikeGuard *g, double z, int64_t step) {
    double loss = -1, norm = -1;
    spikes_thresholds(g, z, step, &loss, &norm);
    assert_true(loss == 0 && norm == 0);
}

static void test_window(void **state) {
    (void)state;
    SpikeGuard few = noted(0, SPIKE_LEAST - 2), enough = noted(0, SPIKE_LEAST - 1), many = noted(0, 499);
    expect_none(&few, 3, SPIKE_LEAST + 1);
    expect_thresholds(&enough, 3, SPIKE_LEAST + 1, 0, SPIKE_LEAST - 1);
    expect_none(&enough, 3, SPIKE_LEAST);   /* the newest is not of that step's past */
    expect_none(&enough, 0, SPIKE_LEAST + 1);
    expect_thresholds(&many, 2.5, 501, 501 - SPIKE_WINDOW + 1, 499);
    expect_thresholds(&many, 2.5, 500, 500 - SPIKE_WINDOW + 1, 498);
}

/* A device that reports a step late has not noted step s - 1 when step s begins; the thresholds are the same. */
static void test_late_outcome(void **state) {
    (void)state;
    for (int64_t step = 2; step < 400; step++) {
        SpikeGuard early = noted(0, step - 1), late = noted(0, step - 2);
        double loss[2], norm[2];
        spikes_thresholds(&early, 3, step, &loss[0], &norm[0]);
        spikes_thresholds(&late, 3, step, &loss[1], &norm[1]);
        assert_true(loss[0] == loss[1] && norm[0] == norm[1]);
        assert_true((loss[0] > 0) == (step - 1 >= SPIKE_LEAST));
    }
}

/* After a gap the window begins anew: what lies in it is not of the steps before. */
static void test_gap(void **state) {
    (void)state;
    SpikeGuard g = noted(0, 200);
    for (int64_t s = 300; s < 300 + SPIKE_LEAST; s++) spikes_note(&g, 0, s, loss_of(s), norm_of(s));
    expect_thresholds(&g, 3, 300 + SPIKE_LEAST + 1, 300, 300 + SPIKE_LEAST - 1);
    expect_none(&g, 3, 300 + SPIKE_LEAST);
}

/* One spike does not hide the next; a level that has moved is followed. */
static void test_spikes_in_the_window(void **state) {
    (void)state;
    SpikeGuard g = noted(0, 199);
    double loss, norm, before;
    spikes_thresholds(&g, 4, 200, &before, &norm);
    spikes_note(&g, 4, 200, 1000, norm_of(200));
    for (int64_t s = 201; s < 210; s++) spikes_note(&g, 4, s, loss_of(s), norm_of(s));
    spikes_thresholds(&g, 4, 210, &loss, &norm);
    assert_true(before < 6 && loss < 1.2 * before);
    int64_t step = 210;
    for (; loss < 20 && step < 2000; step++) {
        spikes_note(&g, 4, step, 20, norm_of(step));
        spikes_thresholds(&g, 4, step + 1, &loss, &norm);
    }
    if (!(step < 300)) fail_msg("the threshold is %g after %d steps at 20", loss, (int)step - 210);
}

static jmp_buf refused;
static void leave(int status) { longjmp(refused, status); }
static void test_not_finite_is_refused(void **state) {
    (void)state;
    static SpikeGuard g;
    volatile int times = 0;
    error_exit_hook(leave);
    if (setjmp(refused) == 0) spikes_note(&g, 3, 0, NAN, 1);
    else times++;
    if (setjmp(refused) == 0) spikes_note(&g, 3, 0, 1, INFINITY);
    else times++;
    error_exit_hook(NULL);
    assert_int_equal(times, 2);
    assert_int_equal(g.count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_late_outcome),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_spikes_in_the_window),
        cmocka_unit_test(test_not_finite_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
