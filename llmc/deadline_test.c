/* deadline_test.c: a run that stops when the deadline is near has time for everything that it still does, however long evaluations and checkpoints
   take; and it does not stop much too soon. */
#include "deadline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* A run on paper: a clock, and what everything takes. */
typedef struct {
    double limit, step, first_step, evaluation, checkpoint, assumed;
    int evaluate_every, save_every;
} Course;

static bool due(int step, int every) { return every && step % every == 0; }

/* When the last checkpoint is on the disk. Looks at the clock while a step is under way, as train_gpt does. */
static double end_of(const Course *c, int *steps) {
    Deadline d;
    double now = 100, begin = now;
    bool near = false;
    deadline_open(&d, now, c->limit, c->assumed);
    for (*steps = 0; !near;) {
        int step = ++*steps;
        const int times[DEADLINE_PARTS] = {2, due(step, c->evaluate_every) + 1, 0, 2};   /* the end is evaluated */
        double took = step == 1 ? c->first_step : c->step;
        near = deadline_near(&d, now + 0.1 * took, times);
        now += took;
        deadline_took(&d, PART_STEP, took);
        if (near || due(step, c->evaluate_every)) {
            now += c->evaluation;
            deadline_took(&d, PART_EVALUATION, c->evaluation);
        }
        if (due(step, c->save_every)) {
            now += c->checkpoint;
            deadline_took(&d, PART_CHECKPOINT, c->checkpoint);
        }
    }
    return now + c->checkpoint - begin;
}

static void expect_between(const Course *c, double least, double most) {
    int steps;
    double end = end_of(c, &steps);
    if (!(end >= least && end <= most)) fail_msg("it ends at %g s after %d steps; between %g and %g was expected", end, steps, least, most);
}

static void it_ends_in_time(void **state) {
    (void)state;
    const Course plain = {.limit = 100, .step = 1, .first_step = 1, .checkpoint = 0.5, .assumed = 0.5};
    expect_between(&plain, 96, 100);
    const Course slow_evaluation = {.limit = 100, .step = 1, .first_step = 1, .evaluation = 20, .evaluate_every = 10, .checkpoint = 1, .assumed = 1};
    expect_between(&slow_evaluation, 70, 100);
    const Course slow_checkpoint = {.limit = 100, .step = 1, .first_step = 1, .checkpoint = 15, .save_every = 20};
    expect_between(&slow_checkpoint, 60, 100);
    const Course only_checkpoint = {.limit = 100, .step = 1, .first_step = 1, .checkpoint = 15, .assumed = 20};
    expect_between(&only_checkpoint, 60, 100);
}

/* The first step of a GPU, which tries algorithms, takes long, and is forgotten. */
static void a_slow_beginning_is_forgotten(void **state) {
    (void)state;
    const Course slow_start = {.limit = 1000, .step = 1, .first_step = 200};
    expect_between(&slow_start, 994, 1000);
}

static void the_least_is_a_step(void **state) {
    (void)state;
    int steps;
    const Course no_time = {.limit = 1e-9, .step = 1, .first_step = 1};
    end_of(&no_time, &steps);
    assert_int_equal(steps, 1);
}

static void without_a_limit_there_is_time(void **state) {
    (void)state;
    const int times[DEADLINE_PARTS] = {2, 2, 2, 2};
    Deadline d;
    deadline_open(&d, 5, 0, 1e9);
    assert_false(deadline_near(&d, 1e12, times));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_ends_in_time), cmocka_unit_test(a_slow_beginning_is_forgotten),
                                       cmocka_unit_test(the_least_is_a_step), cmocka_unit_test(without_a_limit_there_is_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
