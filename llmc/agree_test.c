/* agree_test.c: ranks that differ in an option, in a parameter, or in whose loss is finite: the one is named, and all end. Ranks are processes. */
#include "agree.h"

#include "model_test.h"
#include "team_test.h"

static const double patient = 60, soon = 60;   /* seconds that no test needs */
enum { RANKS = 3, NOBODY = -1 };

static char host[256];
static int odd;   /* the rank that differs */

static void expect_all_end(int (*act)(Team *t), const char *part) {
    Child c[RANKS];
    char *sentence = part ? xprintf("rank %d on %s%s", odd == NOBODY ? 0 : odd, host, part) : NULL;
    team_start(c, RANKS, patient, act);
    assert_int_equal(team_end(c, RANKS, soon), 0);
    assert_ended(c, RANKS, part ? 1 : 0, part ? "prog: " : NULL);
    if (part) assert_holds(c[0].text, sentence);
    free(sentence);
}

static int act_options(Team *t) {
    Options o;
    options_defaults(&o);
    if (team_rank(t) == odd) o.lr = 0.5;
    agree_on_options(t, &o);
    options_release(&train_options, &o);
    return 0;
}

static void options_are_the_same(void **state) {
    (void)state;
    odd = NOBODY;
    expect_all_end(act_options, NULL);
    for (odd = 1; odd < RANKS; odd++) expect_all_end(act_options, " differs from rank 0 in the options: 'lr = 0.5' there and 'lr = 0.003' on rank 0");
}

static int act_parameters(Team *t) {
    Model m;
    ModelSpec spec = spec_of("", F32, MODEL_TRAIN, 1);
    spec.rank = team_rank(t);
    spec.ranks = team_ranks(t);
    Comm *comm = comm_open(t, backend_find("cpu"), "tcp");
    create_on(backend_find("cpu"), &m, &spec);
    model_join(&m, comm);
    float *last = (float *)m.parameters.data + m.table.elements - 1;
    if (team_rank(t) == odd) *last = -0.0f;   /* a bit of the padding, even: bits count, not values */
    agree_on_parameters(&m, 7);
    model_free(&m);
    comm_close(comm);
    return 0;
}

static void parameters_are_the_same(void **state) {
    (void)state;
    odd = NOBODY;
    expect_all_end(act_parameters, NULL);
    for (odd = 1; odd < RANKS; odd++) expect_all_end(act_parameters, ": after step 7 its parameters have the checksum");
}

static int act_bad_numbers(Team *t) {
    StepOutcome outcome = {.loss = -NAN, .grad_norm = INFINITY, .own_loss = team_rank(t) == odd ? NAN : 1, .skip = SKIP_NOT_FINITE};
    agree_on_bad_numbers(t, 5, &outcome);
}

static void bad_numbers_have_an_owner(void **state) {
    (void)state;
    const char *said = ": step 5: the loss is nan and the gradient norm inf, and so is the loss of this rank's own rows; no parameter was changed";
    for (odd = 0; odd < RANKS; odd++) expect_all_end(act_bad_numbers, said);
    odd = NOBODY;
    expect_all_end(act_bad_numbers, ": step 5: the loss is nan and the gradient norm inf, and it is not known of which rank");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_the_same),
        cmocka_unit_test(parameters_are_the_same),
        cmocka_unit_test(bad_numbers_have_an_owner),
    };
    gethostname(host, sizeof host - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
