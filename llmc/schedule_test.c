/* schedule_test.c: every schedule at the points where its formula is known, and the batch schedule. */
#include "schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static Options *with(const char *settings) {
    static Options o;
    char error[ERROR_SIZE];
    static bool initialised;
    if (initialised) options_release(&train_options, &o);
    initialised = true;
    options_defaults(&o);
    if (!options_parse_text(&o, settings, strlen(settings), "test", error)) fail_msg("%s", error);
    return &o;
}

static void expect_lr(const Options *o, int64_t t, double expected) {
    double got = schedule_lr(o, t);
    if (!(fabs(got - expected) <= 1e-12 * (fabs(expected) + 1e-300) + 1e-18))
        fail_msg("step %lld: %.15g, expected %.15g", (long long)t, got, expected);
}

static void test_constant(void **state) {
    (void)state;
    Options *o = with("schedule=constant\nlr=0.5\nwarmup=10\n");
    expect_lr(o, 0, 0);
    expect_lr(o, 5, 0.25);
    expect_lr(o, 10, 0.5);
    expect_lr(o, 1000000, 0.5);
    o = with("schedule=constant\nlr=0.5\nwarmup=10\nwarmup-from=one\n");
    expect_lr(o, 0, 0.05);
    expect_lr(o, 9, 0.5);
    expect_lr(o, 10, 0.5);
    expect_lr(with("schedule=constant\nlr=0.5\nwarmup=0\n"), 0, 0.5);
}

static void test_linear(void **state) {
    (void)state;
    Options *o = with("schedule=linear\nlr=1\nmin-lr=0.2\nwarmup=10\nsteps=110\n");
    expect_lr(o, 10, 1);
    expect_lr(o, 60, 0.6);
    expect_lr(o, 110, 0.2);
    expect_lr(o, 500, 0.2);
}

static void test_cosine(void **state) {
    (void)state;
    Options *o = with("schedule=cosine\nlr=1\nmin-lr=0.1\nwarmup=7\ndecay-steps=21\nsteps=100\n");
    /* the course's example: T_w = 7, T_c = 21 */
    expect_lr(o, 3, 3.0 / 7);
    expect_lr(o, 7, 1);
    expect_lr(o, 14, 0.55);
    expect_lr(o, 9, 0.1 + 0.5 * (1 + cos(M_PI * 2 / 14)) * 0.9);
    expect_lr(o, 21, 0.1);
    expect_lr(o, 22, 0.1);
}

static void test_wsd(void **state) {
    (void)state;
    Options *o = with("schedule=wsd\nlr=1\nmin-lr=0\nwarmup=10\nsteps=100\n");
    expect_lr(o, 79, 1);
    expect_lr(o, 80, 1);
    expect_lr(o, 90, 0.5);
    o = with("schedule=wsd\nlr=1\nmin-lr=0.5\nwarmup=0\ndecay-steps=50\nsteps=100\n");
    expect_lr(o, 50, 1);
    expect_lr(o, 75, 0.75);
}

static void test_square_roots(void **state) {
    (void)state;
    Options *o = with("schedule=inverse-sqrt\nlr=1\nwarmup=100\nn-embd=64\n");
    expect_lr(o, 0, 0.125 * 1 * pow(100, -1.5));
    expect_lr(o, 99, 0.125 * 0.1);
    expect_lr(o, 399, 0.125 * 0.05);
    o = with("schedule=sqrt-decay\nlr=1\n");
    expect_lr(o, 0, 1);
    expect_lr(o, 3, 0.5);
}

/* Whether the peak comes, looked for step by step. */
static bool has_peak(const Options *o) {
    double peak = o->schedule == 4 ? o->lr / sqrt((double)o->n_embd * (double)(o->warmup > 0 ? o->warmup : 1)) : o->lr;   /* inverse-sqrt */
    for (int64_t t = 0; t < o->steps; t++)
        if (schedule_lr(o, t) >= peak * (1 - 1e-12)) return true;
    return o->steps == 0;
}

static void test_peak(void **state) {
    (void)state;
    static const char *const schedules[] = {"constant", "linear", "cosine", "wsd", "inverse-sqrt", "sqrt-decay"};
    for (int schedule = 0; schedule < 6; schedule++)
        for (int one = 0; one < 2; one++)
            for (int steps = 0; steps < 14; steps++)
                for (int warmup = 0; warmup < 14; warmup++)
                    for (int decay = 0; decay < 14; decay += 3) {
                        char settings[160];
                        snprintf(settings, sizeof settings, "schedule=%s\nlr=1\nmin-lr=0.1\nwarmup-from=%s\nsteps=%d\nwarmup=%d\ndecay-steps=%d\n",
                                 schedules[schedule], one ? "one" : "zero", steps, warmup, decay);
                        const Options *o = with(settings);
                        if (schedule_reaches_peak(o) != has_peak(o)) fail_msg("%s", settings);
                    }
}

static void test_sensible_warmup(void **state) {
    (void)state;
    static const struct { const char *settings; int64_t warmup; } cases[] = {
        {"steps=7000\nwarmup=700\n", 700}, {"steps=600\nwarmup=700\n", 60}, {"steps=600\nwarmup=50\n", 50}, {"steps=9\nwarmup=50\n", 0},
        {"steps=1000\nwarmup=700\ndecay-steps=500\n", 50}, {"steps=100\nwarmup=700\ndecay-steps=5000\n", 500},
        {"schedule=constant\nsteps=600\nwarmup=700\ndecay-steps=100\n", 60}, {"schedule=wsd\nsteps=600\nwarmup=700\ndecay-steps=300\n", 60},
        {"schedule=wsd\nsteps=600\nwarmup=700\ndecay-steps=590\n", 10}, {"schedule=sqrt-decay\nsteps=10\nwarmup=50\n", 50},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t warmup = schedule_sensible_warmup(with(cases[i].settings));
        if (warmup != cases[i].warmup) fail_msg("%s: %lld, expected %lld", cases[i].settings, (long long)warmup, (long long)cases[i].warmup);
    }
}

static void test_contradictions(void **state) {
    (void)state;
    char error[ERROR_SIZE];
    static const struct { const char *settings, *cause; } cases[] = {
        {"steps=12\nwarmup=6\ndecay-steps=5\n", "--decay-steps 5 is the step at which the decay ends, and --warmup 6 is not over before"},
        {"steps=12\nwarmup=6\ndecay-steps=6\nschedule=linear\n", "--decay-steps 6"},
        {"steps=12\nwarmup=0\ndecay-steps=13\nschedule=wsd\n", "--decay-steps 13 is the length of the decay"},
        {"steps=12\nwarmup=7\ndecay-steps=6\nschedule=wsd\n", "--warmup 7 and the --decay-steps 6 of --schedule wsd are more than the 12 --steps"},
        {"lr=1e-3\nmin-lr=2e-3\n", "--min-lr 0.002, at which the decay ends, is above the peak, --lr 0.001"},
        {"steps=12\nwarmup=6\ndecay-steps=7\n", NULL}, {"steps=12\nwarmup=6\ndecay-steps=100\n", NULL}, {"steps=12\nwarmup=60\n", NULL},
        {"steps=12\nwarmup=6\ndecay-steps=6\nschedule=wsd\n", NULL}, {"steps=12\nwarmup=6\ndecay-steps=5\nschedule=constant\n", NULL},
        {"lr=1e-3\nmin-lr=2e-3\nschedule=constant\n", NULL}, {"lr=1e-3\nmin-lr=1e-3\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        error[0] = 0;
        if (schedule_check_lr(with(cases[i].settings), error) != !cases[i].cause) fail_msg("%s: %s", cases[i].settings, error);
        if (cases[i].cause && !strstr(error, cases[i].cause)) fail_msg("%s: \"%s\"", cases[i].settings, error);
    }
}

static void test_batch_schedule(void **state) {
    (void)state;
    char error[ERROR_SIZE];
    Options *o = with("grad-accum=3\n");
    assert_true(schedule_check(o, error));
    assert_int_equal(schedule_grad_accum(o, 1000), 3);
    o = with("batch-schedule=0:1,200:4,400:8\n");
    assert_true(schedule_check(o, error));
    assert_int_equal(schedule_grad_accum(o, 0), 1);
    assert_int_equal(schedule_grad_accum(o, 199), 1);
    assert_int_equal(schedule_grad_accum(o, 200), 4);
    assert_int_equal(schedule_grad_accum(o, 5000), 8);
    assert_int_equal(schedule_least_grad_accum(o), 1);
    assert_int_equal(schedule_most_grad_accum(o), 8);
    o = with("grad-accum=9\nbatch-schedule=0:4,200:2,400:3\n");   /* of which none is from grad-accum */
    assert_int_equal(schedule_least_grad_accum(o), 2);
    assert_int_equal(schedule_most_grad_accum(o), 4);
    o = with("grad-accum=9\n");
    assert_int_equal(schedule_least_grad_accum(o), 9);
    assert_int_equal(schedule_most_grad_accum(o), 9);
    static const char *const wrong[] = {"1:1", "0:0", "0:1,0:2", "0", "0:1;5:2", "0:1,", "x", "0:1,5:-2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char setting[64];
        snprintf(setting, sizeof setting, "batch-schedule=%s\n", wrong[i]);
        bool trailing_comma = strcmp(wrong[i], "0:1,") == 0;   /* harmless */
        if (schedule_check(with(setting), error) != trailing_comma) fail_msg("'%s'", wrong[i]);
    }
}

/* Twelve micro-batches in all stay twelve on any number of ranks that divides them. */
static void test_rescale(void **state) {
    (void)state;
    char error[ERROR_SIZE];
    Options *o = with("grad_accum=6\n");
    assert_true(schedule_rescale(o, 0, 2, 3, error));
    assert_int_equal(o->grad_accum, 4);
    assert_true(schedule_rescale(o, 50, 3, 1, error));
    assert_int_equal(o->grad_accum, 12);
    assert_false(schedule_rescale(o, 0, 1, 5, error));
    assert_int_equal(o->grad_accum, 12);
    /* A schedule counts alone, and of it what is not over. */
    o = with("grad_accum=1\nbatch_schedule=0:3,100:6,200:12\n");
    assert_true(schedule_rescale(o, 99, 2, 3, error));
    assert_string_equal(o->batch_schedule, "0:2,100:4,200:8");
    assert_true(schedule_rescale(o, 0, 3, 1, error));
    assert_string_equal(o->batch_schedule, "0:6,100:12,200:24");
    assert_false(schedule_rescale(o, 99, 1, 12, error));   /* six do not divide */
    assert_non_null(strstr(error, "12 ranks"));
    assert_string_equal(o->batch_schedule, "0:6,100:12,200:24");
    assert_true(schedule_rescale(o, 100, 1, 12, error));
    assert_string_equal(o->batch_schedule, "0:1,200:2");
    assert_true(schedule_rescale(o, 1000, 12, 24, error));
    assert_string_equal(o->batch_schedule, "0:1");
    assert_int_equal(o->grad_accum, 1);
    o = with("grad_accum=1\n");
    assert_false(schedule_rescale(o, 0, 4, 8, error));
    assert_true(schedule_rescale(o, 0, 4, 2, error));
    assert_int_equal(o->grad_accum, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant), cmocka_unit_test(test_linear), cmocka_unit_test(test_cosine), cmocka_unit_test(test_wsd),
        cmocka_unit_test(test_square_roots), cmocka_unit_test(test_peak), cmocka_unit_test(test_sensible_warmup),
        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_batch_schedule),
        cmocka_unit_test(test_rescale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
