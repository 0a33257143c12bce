/* team_test.c: what ranks exchange is the same on all, and the team ends as a whole, soon and with one sentence, whatever happens to one of its
   ranks. */
#include "team_test.h"

#include "team.h"

/* Seconds in which a team without faults, or told of one, must be gone; generous for a busy machine. */
enum { SOON = 15 };
static const double patient = 60;   /* a timeout that no test reaches */

static char host[256];

/* ---- exchange ---- */

static int act_gathers(Team *t) {
    int rank = team_rank(t), ranks = team_ranks(t), wrong = team_local_rank(t) != rank;
    for (int round = 0; round < 100; round++) {
        int mine = 1000 * rank + round, all[MOST_RANKS];
        team_gather(t, &mine, sizeof mine, all, "numbers");
        for (int r = 0; r < ranks; r++) wrong += all[r] != 1000 * r + round;
    }
    enum { BIG = 3000001 };   /* more than a socket holds, and odd */
    unsigned char *mine = malloc(BIG), *all = malloc((size_t)BIG * (size_t)ranks);
    for (int i = 0; i < BIG; i++) mine[i] = (unsigned char)(i * 7 + rank);
    team_gather(t, mine, BIG, all, "much");
    for (int r = 0; r < ranks; r++)
        for (int i = 0; i < BIG; i++) wrong += all[(size_t)r * BIG + (size_t)i] != (unsigned char)(i * 7 + r);
    free(mine);
    free(all);
    team_barrier(t, "nothing");
    for (int r = 0; r < ranks; r++) wrong += strcmp(team_host(t, r), host) != 0;
    return wrong > 100 ? 100 : wrong;
}

/* Numbers whose sum depends on the order. */
static double addend(int rank, int i) { return (rank % 2 ? -1 : 1) * (0.1 + i) * (rank == 1 ? 1e16 : 1) / (1 + rank); }

static int act_sums(Team *t) {
    enum { N = 50 };
    double x[N], all[N * MOST_RANKS];
    int wrong = 0;
    for (int i = 0; i < N; i++) x[i] = addend(team_rank(t), i);
    team_sum(t, x, N, "sums");
    team_gather(t, x, sizeof x, all, "their bits");
    for (int i = 0; i < N; i++) {
        double expected = addend(0, i);
        for (int r = 1; r < team_ranks(t); r++) expected += addend(r, i);
        for (int r = 0; r < team_ranks(t); r++) wrong += memcmp(&all[r * N + i], &expected, sizeof expected) != 0;
    }
    return wrong > 100 ? 100 : wrong;
}

static int act_texts(Team *t) {
    char *mine = team_rank(t) == 0 ? NULL : "of another rank", *none = team_text_of_first(t, mine, "no text");
    char *empty = team_text_of_first(t, team_rank(t) == 0 ? "" : "of another rank", "an empty text");
    char *big = xprintf("%0*d", 16384 * 2 + 17 * (team_rank(t) == 0), team_rank(t)), *same = team_text_of_first(t, big, "a long text");
    int wrong = (none != NULL) + (!empty || *empty) + (strlen(same) != 16384 * 2 + 17) + (strspn(same, "0") != strlen(same));
    team_expect_same(t, "lr = 1\nseed = 2\n", "options");
    team_expect_same(t, "", "nothing");
    free(empty);
    free(big);
    free(same);
    return wrong;
}

static void exchanges_are_the_same_on_all(void **state) {
    (void)state;
    static const RankAct acts[] = {act_gathers, act_sums, act_texts};
    Child c[MOST_RANKS];
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 3; k++) {
            int ranks = (const int[]){2, 3, 5}[k];
            team_start(c, ranks, patient, acts[i]);
            assert_int_equal(team_end(c, ranks, 2 * SOON), 0);
            assert_ended(c, ranks, 0, NULL);
        }
        assert_int_equal(acts[i](NULL), 0);
    }
}

static int act_differs(Team *t) {
    team_expect_same(t, team_rank(t) == 2 ? "a = 1\nb = 3\nc" : "a = 1\nb = 2\nc", "options");
    return 0;
}
static int act_longer(Team *t) {
    team_expect_same(t, team_rank(t) == 1 ? "a\nb\n" : "a", "options");
    return 0;
}

static void unequal_texts_are_named(void **state) {
    (void)state;
    Child c[3];
    team_start(c, 3, patient, act_differs);
    assert_int_equal(team_end(c, 3, SOON), 0);
    char *sentence = xprintf("prog: rank 2 on %s differs from rank 0 in the options: 'b = 3' there and 'b = 2' on rank 0; all ranks need "
                             "the same\n", host);
    assert_ended(c, 3, 1, sentence);
    free(sentence);
    team_start(c, 2, patient, act_longer);
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 1, ": 'b' there and '' on rank 0");
}

/* ---- one rank ends ---- */

static int faulty;   /* the rank to which it happens */

/* Computes forever. */
static void compute(void) {
    for (;;) pause();
}

/* The faulty rank dies; of the others the even ones wait for it, the odd ones compute. */
static int act_dies(Team *t) {
    team_barrier(t, "the start");
    if (team_rank(t) == faulty) die("cannot read %s", "data.bin");
    if (team_rank(t) % 2) compute();
    team_barrier(t, "the data");
    return 0;
}

static void a_death_is_told_once_by_rank_0(void **state) {
    (void)state;
    Child c[4];
    for (faulty = 0; faulty < 4; faulty++) {
        team_start(c, 4, patient, act_dies);
        assert_int_equal(team_end(c, 4, SOON), 0);
        char *sentence = xprintf("prog: rank %d on %s: cannot read data.bin\n", faulty, host);
        assert_ended(c, 4, 1, sentence);
        assert_string_equal(c[0].text, sentence);
        free(sentence);
    }
}

static int act_all_die(Team *t) {
    team_barrier(t, "the start");
    die("no data");
    return 0;
}

static void one_line_though_all_die(void **state) {
    (void)state;
    Child c[5];
    team_start(c, 5, patient, act_all_die);
    assert_int_equal(team_end(c, 5, SOON), 0);
    assert_ended(c, 5, 1, ": no data\n");
}

static int act_device_fails(Team *t) {
    if (team_rank(t) == 1) backend_fail("the device is %s", "gone");
    team_barrier(t, "the data");
    return 0;
}

static void a_device_that_fails_is_told_alike(void **state) {
    (void)state;
    Child c[2];
    team_start(c, 2, patient, act_device_fails);
    assert_int_equal(team_end(c, 2, SOON), 0);
    char *sentence = xprintf("prog: rank 1 on %s: the device is gone\n", host);
    assert_ended(c, 2, 1, sentence);
    free(sentence);
}

static int act_exits(Team *t) {
    team_barrier(t, "the start");
    if (team_rank(t) == faulty) exit(0);
    team_barrier(t, "the data");
    return 0;
}
static int act_is_killed(Team *t) {
    team_barrier(t, "the start");
    if (team_rank(t) == faulty) raise(SIGKILL);
    if (team_rank(t) % 2) compute();
    team_barrier(t, "the data");
    return 0;
}

static void silent_ends_are_noticed(void **state) {
    (void)state;
    Child c[3];
    for (int kind = 0; kind < 2; kind++) {
        faulty = 1 + kind;
        team_start(c, 3, patient, kind ? act_is_killed : act_exits);
        assert_int_equal(team_end(c, 3, SOON), 0);
        assert_int_equal(c[faulty].status, kind ? 128 + SIGKILL : 0);
        assert_string_equal(c[faulty].text, "");
        c[faulty].status = 1;
        char *sentence = xprintf("prog: rank %d on %s ended without a word (killed by a signal, or out of memory?)\n", faulty, host);
        assert_ended(c, 3, 1, sentence);
        free(sentence);
    }
}

static void without_rank_0_the_others_speak(void **state) {
    (void)state;
    Child c[3];
    faulty = 0;
    team_start(c, 3, patient, act_is_killed);
    assert_int_equal(team_end(c, 3, SOON), 0);
    char *sentence = xprintf("prog: rank 0 on %s ended without a word (killed by a signal, or out of memory?)\n", host);
    for (int r = 1; r < 3; r++) {
        assert_int_equal(c[r].status, 1);
        assert_string_equal(c[r].text, sentence);
    }
    free(sentence);
}

static int act_returns_early(Team *t) {
    if (team_rank(t) != faulty) team_barrier(t, "the data");
    return 0;
}

static void one_that_finishes_early_is_named(void **state) {
    (void)state;
    Child c[3];
    for (faulty = 0; faulty < 3; faulty++) {
        team_start(c, 3, patient, act_returns_early);
        assert_int_equal(team_end(c, 3, SOON), 0);
        char *sentence = xprintf("prog: rank %d on %s has finished, and rank ", faulty, host);
        assert_ended(c, 3, 1, sentence);
        assert_holds(c[0].text, "(the data)");
        free(sentence);
    }
}

static int act_out_of_step(Team *t) {
    int x[3] = {0}, all[9];
    team_gather(t, x, team_rank(t) == 1 ? 8 : 4, all, "numbers");
    return 0;
}

static void ranks_out_of_step_are_named(void **state) {
    (void)state;
    Child c[2];
    team_start(c, 2, patient, act_out_of_step);
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 1, "'numbers' (8 bytes)");
}

/* Slower than a watch that mistakes a rank at its end for a dead one. */
static int act_ends_late(Team *t) {
    if (team_rank(t) == faulty) poll(NULL, 0, 1500);
    return 0;
}

static void a_late_end_is_no_fault(void **state) {
    (void)state;
    Child c[3];
    for (faulty = 0; faulty < 2; faulty++) {
        team_start(c, 3, patient, act_ends_late);
        assert_int_equal(team_end(c, 3, SOON), 0);
        assert_ended(c, 3, 0, NULL);
    }
}

/* ---- one rank is stuck ---- */

static int act_hangs(Team *t) {
    team_note_step(t, 17);
    if (team_rank(t) == faulty) compute();
    if (team_rank(t) == 1) team_wait_begin(t, "the sum of the gradients"), compute();
    team_barrier(t, "the data");
    return 0;
}

static void one_that_keeps_others_waiting_is_named(void **state) {
    (void)state;
    Child c[3];
    for (faulty = 0; faulty < 3; faulty += 2) {
        team_start(c, 3, 2, act_hangs);
        assert_int_equal(team_end(c, 3, SOON), 0);
        char *sentence = xprintf("prog: rank %d on %s has kept the others waiting for ", faulty, host);
        assert_ended(c, 3, 1, sentence);
        assert_holds(c[0].text, "in step 17; --comm-timeout sets how long)");
        free(sentence);
    }
}

static int act_waits(Team *t) {
    team_wait_begin(t, "a link");
    compute();
    return 0;
}

/* An excuse that lasts longer than the timeout, and a second more before the others get what they wait for. */
static int act_has_an_excuse(Team *t) {
    if (team_rank(t) == faulty) {
        team_excuse(t, true);
        sleep(4);
        team_excuse(t, false);
        sleep(1);
    }
    team_barrier(t, "a file");
    return 0;
}
static void an_excuse_holds(void **state) {
    (void)state;
    Child c[3];
    for (faulty = 0; faulty < 2; faulty++) {
        team_start(c, 3, 2, act_has_an_excuse);
        assert_int_equal(team_end(c, 3, SOON), 0);
        assert_ended(c, 3, 0, NULL);
    }
}

static void a_stuck_link_is_named(void **state) {
    (void)state;
    Child c[2];
    team_start(c, 2, 2, act_waits);
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 1, "prog: all ranks wait for a link since ");
}

/* Stopped ranks cannot leave: the test kills them once the others have gone. */
static int act_is_stopped(Team *t) {
    team_barrier(t, "the start");
    if (team_rank(t) == faulty) raise(SIGSTOP);
    team_barrier(t, "the data");
    return 0;
}

static void a_stopped_rank_is_named(void **state) {
    (void)state;
    Child c[3];
    for (faulty = 0; faulty < 3; faulty += 2) {
        team_start(c, 3, 2, act_is_stopped);
        for (int r = 0; r < 3; r++)
            if (r != faulty) assert_true(child_end(&c[r], SOON));
        child_end(&c[faulty], 0);
        /* Either may be seen first: its silence, or that the others wait. */
        const char *text = c[faulty == 0].text;
        char *name = xprintf("prog: rank %d on %s has ", faulty, host);
        assert_holds(text, name);
        if (!strstr(text, "kept the others waiting for") && !strstr(text, "not been heard from for")) fail_msg("not this: %s", text);
        for (int r = 0; r < 3; r++)
            if (r != faulty) {
                assert_int_equal(c[r].status, 1);
                assert_int_equal(lines_in(c[r].text), r == 0 || faulty == 0);
            }
        free(name);
    }
}

int main(void) {
    gethostname(host, sizeof host - 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exchanges_are_the_same_on_all),
        cmocka_unit_test(unequal_texts_are_named),
        cmocka_unit_test(a_death_is_told_once_by_rank_0),
        cmocka_unit_test(one_line_though_all_die),
        cmocka_unit_test(a_device_that_fails_is_told_alike),
        cmocka_unit_test(silent_ends_are_noticed),
        cmocka_unit_test(without_rank_0_the_others_speak),
        cmocka_unit_test(one_that_finishes_early_is_named),
        cmocka_unit_test(ranks_out_of_step_are_named),
        cmocka_unit_test(a_late_end_is_no_fault),
        cmocka_unit_test(one_that_keeps_others_waiting_is_named),
        cmocka_unit_test(an_excuse_holds),
        cmocka_unit_test(a_stuck_link_is_named),
        cmocka_unit_test(a_stopped_rank_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
