/* comm_tcp_test.c: collectives of processes by way of rank 0, against plain sums in the order of the ranks, and what happens when a rank is lost
   meanwhile. */
#include "comm_test.h"
#include "team_test.h"

#include "comm_body.h"

enum { SOON = 30 };

static const Backend *cpu;

/* Larger than a chunk and than what sockets hold. */
static int act_collectives(Team *t) {
    Comm *c = comm_open(t, cpu, "tcp");
    int wrong = strcmp(comm_name(c), "tcp") != 0 || comm_ranks(c) != team_ranks(t);
    wrong += check_collectives(c, cpu, 1500007);
    CommTimes times = comm_times(c);
    wrong += !(times.busy > 0 && times.exposed > 0 && times.exposed < 60);
    comm_close(c);
    return wrong > 100 ? 100 : wrong;
}

static void collectives_are_right_to_the_bit(void **state) {
    (void)state;
    Child c[MOST_RANKS];
    for (int i = 0; i < 3; i++) {
        int ranks = (const int[]){2, 3, 5}[i];
        team_start(c, ranks, 60, act_collectives);
        assert_int_equal(team_end(c, ranks, 2 * SOON), 0);
        assert_ended(c, ranks, 0, NULL);
    }
}

static int faulty;

/* One rank is lost while the others wait for its part of the second sum. */
static int act_one_is_lost(Team *t) {
    Comm *c = comm_open(t, cpu, "tcp");
    float *x = calloc(1 << 20, sizeof *x);
    Tensor all = tensor(x, F32, 1, 1 << 20, 0, 0, 0);
    comm_wait(c, comm_all_reduce(c, all, NULL), NULL);
    if (team_rank(t) == faulty) raise(SIGKILL);
    comm_wait(c, comm_all_reduce(c, all, NULL), NULL);
    return 0;
}

static void a_lost_rank_ends_all(void **state) {
    (void)state;
    Child c[3];
    for (faulty = 0; faulty < 3; faulty += 2) {
        team_start(c, 3, 60, act_one_is_lost);
        assert_int_equal(team_end(c, 3, SOON), 0);
        for (int r = 0; r < 3; r++) {
            assert_int_equal(c[r].status, r == faulty ? 128 + SIGKILL : 1);
            if (r == faulty || (r > 0 && faulty)) assert_string_equal(c[r].text, "");
            else assert_holds(c[r].text, "ended without a word");
        }
    }
}

static int act_one_is_stuck(Team *t) {
    Comm *c = comm_open(t, cpu, "tcp");
    float x[4] = {0};
    team_note_step(t, 3);
    if (team_rank(t) == 1)
        for (;;) pause();
    comm_wait(c, comm_all_reduce(c, tensor(x, F32, 1, 4, 0, 0, 0), NULL), NULL);
    return 0;
}

static void a_stuck_collective_ends_all(void **state) {
    (void)state;
    Child c[2];
    team_start(c, 2, 2, act_one_is_stuck);
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 1, "prog: rank 1 on ");
    assert_holds(c[0].text, "(they wait for a sum over the ranks in step 3;");
}

static int act_out_of_step(Team *t) {
    Comm *c = comm_open(t, cpu, "tcp");
    float x[8] = {0};
    comm_wait(c, comm_all_reduce(c, tensor(x, F32, 1, team_rank(t) == 1 ? 4 : 8, 0, 0, 0), NULL), NULL);
    return 0;
}

static void collectives_out_of_step_are_named(void **state) {
    (void)state;
    Child c[3];
    team_start(c, 3, 60, act_out_of_step);
    assert_int_equal(team_end(c, 3, SOON), 0);
    assert_ended(c, 3, 1, "collective 1 has 16 bytes (kind 0) on rank 1, and 32 bytes (kind 0) on rank 0");
}

static void only_for_processes_on_the_cpu(void **state) {
    (void)state;
    Backend device = *cpu;
    device.host_memory = 0;
    assert_non_null(strstr(comm_tcp.missing(NULL, &device), "tcp is for the CPU"));
    assert_null(comm_tcp.missing(NULL, cpu));
}

int main(void) {
    cpu = backend_find("cpu");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_are_right_to_the_bit),
        cmocka_unit_test(a_lost_rank_ends_all),
        cmocka_unit_test(a_stuck_collective_ends_all),
        cmocka_unit_test(collectives_out_of_step_are_named),
        cmocka_unit_test(only_for_processes_on_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
