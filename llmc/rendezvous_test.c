/* rendezvous_test.c: processes find each other and nobody else, and whatever keeps them from it is named. */
#include "team_test.h"

#include "directory_test.h"
#include "team.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>

enum { SOON = 15 };
static const double patient = 60;   /* a timeout that no test reaches */

static char host[256];

static int act_nothing(Team *t) { return team_ranks(t) < 2; }

static int act_adds(Team *t) {
    double x = 1;
    team_sum(t, &x, 1, "a sum");
    return x != team_ranks(t);
}

static void those_that_do_not_come_are_named(void **state) {
    (void)state;
    Child c[2];
    int port = 0, listener = socket_listen("127.0.0.1", &port);
    rank_start(&c[0], 0, 5, listener, port, 1, act_nothing);
    rank_start(&c[1], 3, 5, listener, port, 1, act_nothing);
    close(listener);
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 1, "prog: ranks 1, 2 and 4 have not come within 1 s; rank 0 on ");
    port = 0;
    listener = socket_listen("127.0.0.1", &port);
    rank_start(&c[0], 0, 2, listener, port, 1, act_nothing);
    close(listener);
    assert_int_equal(team_end(c, 1, SOON), 0);
    assert_ended(c, 1, 1, "prog: rank 1 has not come within 1 s; rank 0 on ");
}

/* A rank that is not silent for long: within a second it says what it waits for, and then gives up. */
static Child impatient(int rank, int local_rank, int listener, int port) {
    TestRank r = {.act = act_nothing, .place = {.rank = rank, .ranks = 3, .local_rank = local_rank, .addresses = "127.0.0.1", .port = port,
                                                .listener = listener, .timeout = 1, .silence = 0.1}};
    return child_run(test_rank_run, &r);
}

/* So many lines, the first of which begins with that, and all but the last of which are warnings. */
static void expect_words(const Child *c, int least, int most, const char *first) {
    assert_int_equal(c->status, 1);
    int lines = lines_in(c->text), warnings = 0;
    for (const char *at = c->text; (at = strstr(at, "prog: warning: ")); at++) warnings++;
    if (lines < least || lines > most || warnings != lines - 1) fail_msg("%d lines, %d of them warnings: %s", lines, warnings, c->text);
    if (first && strncmp(c->text, first, strlen(first)) != 0) fail_msg("'%s' was expected to begin: %s", first, c->text);
}

static void those_that_wait_say_for_what(void **state) {
    (void)state;
    int port = 0, listener = socket_listen("127.0.0.1", &port);
    Child c = impatient(0, -1, listener, port);   /* warnings after 0.1, 0.3 and 0.7 s */
    close(listener);
    char *missing = xprintf("prog: warning: ranks 1 and 2 have not come yet; rank 0 on %s waits on port %d, for ", host, port);
    char *unreached = xprintf("prog: warning: rank 2 on %s does not reach rank 0 at 127.0.0.1:%d yet: Connection refused; it tries for ", host, port);
    expect_words(&c, 2, 4, missing);
    for (int local_rank = -1; local_rank < 2; local_rank++) {
        c = impatient(2, local_rank, -1, port);
        expect_words(&c, local_rank == 1 ? 1 : 2, local_rank == 1 ? 1 : 4, local_rank == 1 ? NULL : unreached);
    }
    free(missing);
    free(unreached);
}

/* Ranks as given; all end with one sentence on rank 0. */
static void assert_refused(const int *ranks, const int *sizes, int count, const char *part) {
    Child c[MOST_RANKS];
    int port = 0, listener = socket_listen("127.0.0.1", &port);
    for (int i = 0; i < count; i++) rank_start(&c[i], ranks[i], sizes[i], listener, port, patient, act_nothing);
    close(listener);
    assert_int_equal(team_end(c, count, SOON), 0);
    assert_ended(c, count, 1, part);
}

static void wrong_places_are_named(void **state) {
    (void)state;
    char *size = xprintf("prog: rank 1 on %s is one of 4 ranks, and rank 0 on %s one of 3; WORLD_SIZE must be the same everywhere\n", host, host);
    char *twice = xprintf("prog: rank 1 was started twice, on %s and on %s; every process needs a RANK of its own\n", host, host);
    assert_refused((const int[]){0, 1}, (const int[]){3, 4}, 2, size);
    assert_refused((const int[]){0, 1, 1}, (const int[]){3, 3, 3}, 3, twice);
    assert_refused((const int[]){0, 3}, (const int[]){3, 3}, 2, "calls itself rank 3; expected 1 to 2");
    free(size);
    free(twice);
}

static int stranger(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int s = socket_connect((struct sockaddr *)&address, sizeof address, 5);
    assert_true(s >= 0);
    return s;
}

/* One says something else, one half of something right, one nothing, one hangs up. */
static void strangers_do_not_disturb(void **state) {
    (void)state;
    Child c[3];
    static const char http[] = "GET / HTTP/1.1\r\nHost: here\r\n\r\n", half[] = {0x4c, 0x4c, 0x4d};
    int port = 0, listener = socket_listen("127.0.0.1", &port), strangers[4];
    rank_start(&c[0], 0, 3, listener, port, patient, act_adds);
    rank_start(&c[1], 1, 3, listener, port, patient, act_adds);
    for (int i = 0; i < 4; i++) strangers[i] = stranger(port);
    assert_int_equal(send(strangers[0], http, sizeof http - 1, MSG_NOSIGNAL), sizeof http - 1);
    assert_int_equal(send(strangers[1], half, sizeof half, MSG_NOSIGNAL), sizeof half);
    close(strangers[3]);
    /* The first is shown the door, and so rank 0 has looked at it. */
    struct pollfd ready = {.fd = strangers[0], .events = POLLIN};
    char byte;
    assert_int_equal(poll(&ready, 1, 1000 * SOON), 1);
    assert_true(recv(strangers[0], &byte, 1, 0) <= 0);
    rank_start(&c[2], 2, 3, listener, port, patient, act_adds);
    close(listener);
    assert_int_equal(team_end(c, 3, 2 * SOON), 0);
    assert_ended(c, 3, 0, NULL);
    for (int i = 0; i < 3; i++) close(strangers[i]);
}

static void an_unreachable_rank_0_is_named(void **state) {
    (void)state;
    Child c;
    int port = 0, taken = socket_listen("127.0.0.1", &port);
    close(taken);   /* nobody listens there now */
    rank_start(&c, 3, 4, -1, port, 1, act_nothing);
    assert_true(child_end(&c, SOON));
    assert_int_equal(c.status, 1);
    char *sentence = xprintf("prog: rank 3 on %s cannot reach rank 0 at 127.0.0.1:%d: Connection refused, for 1 s; is it running, and do MASTER_ADDR "
                             "and MASTER_PORT name it?\n", host, port);
    assert_string_equal(c.text, sentence);
    free(sentence);
}

static void something_else_at_the_port_is_named(void **state) {
    (void)state;
    Child c;
    int port = 0, listener = socket_listen("127.0.0.1", &port);
    rank_start(&c, 1, 2, -1, port, patient, act_nothing);
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 1000 * SOON), 1);
    int s = socket_accept(listener);
    assert_int_equal(send(s, "SSH-2.0-x\r\n", 11, MSG_NOSIGNAL), 11);
    assert_true(child_end(&c, SOON));
    assert_int_equal(c.status, 1);
    assert_holds(c.text, "found something else than rank 0 of this program at 127.0.0.1:");
    close(s);
    close(listener);
}

/* Rank 1 of another job calls first, and is sent away; the team forms without it. */
static void another_job_is_sent_away(void **state) {
    (void)state;
    Child c[2], other;
    int port = 0, listener = socket_listen("127.0.0.1", &port);
    TestRank r = {.act = act_nothing, .place = {.rank = 0, .ranks = 2, .local_rank = -1, .addresses = "127.0.0.1", .port = port, .listener = listener,
                                                .job = 7, .timeout = patient}};
    child_start(&c[0], test_rank_run, &r);
    close(listener);
    r.place.listener = -1;
    r.place.rank = 1;
    r.place.job = 8;
    child_start(&other, test_rank_run, &r);
    assert_true(child_end(&other, SOON));
    assert_int_equal(other.status, 1);
    assert_holds(other.text, "belongs to another job; give this one another MASTER_PORT\n");
    r.place.job = 7;
    child_start(&c[1], test_rank_run, &r);
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 0, NULL);
}

/* ---- another program: a copy of this one with a byte more ---- */

static char copy_path[128];

static int act_exec_copy(void *port) {
    execl(copy_path, copy_path, "--as-rank-1", (char *)port, (char *)NULL);
    return 99;
}

static int run_as_rank_1(int port) {
    error_program_name("prog");
    TestRank r = {.act = act_nothing, .place = {.rank = 1, .ranks = 2, .local_rank = -1, .addresses = "127.0.0.1", .port = port, .listener = -1,
                                                .timeout = patient}};
    return test_rank_run(&r);
}

static void copy_program(bool changed) {
    char buffer[65536];
    snprintf(copy_path, sizeof copy_path, "%s/program", directory);
    int from = open("/proc/self/exe", O_RDONLY), to = open(copy_path, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    assert_true(from >= 0 && to >= 0);
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;) assert_int_equal(write(to, buffer, (size_t)n), n);
    if (changed) assert_int_equal(write(to, "", 1), 1);
    close(from);
    close(to);
}

static void another_program_is_named(void **state) {
    (void)state;
    Child c[2];
    for (int changed = 0; changed < 2; changed++) {
        int port = 0, listener = socket_listen("127.0.0.1", &port);
        char *number = xprintf("%d", port);
        copy_program(changed);
        rank_start(&c[0], 0, 2, listener, port, patient, act_nothing);
        close(listener);
        child_start(&c[1], act_exec_copy, number);
        assert_int_equal(team_end(c, 2, SOON), 0);
        free(number);
        char *sentence = xprintf("prog: rank 1 on %s runs another program (", host);
        assert_ended(c, 2, changed, changed ? sentence : NULL);
        free(sentence);
    }
}

int main(int argc, char **argv) {
    gethostname(host, sizeof host - 1);
    if (argc == 3 && strcmp(argv[1], "--as-rank-1") == 0) return run_as_rank_1(atoi(argv[2]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_that_do_not_come_are_named),
        cmocka_unit_test(those_that_wait_say_for_what),
        cmocka_unit_test(wrong_places_are_named),
        cmocka_unit_test(strangers_do_not_disturb),
        cmocka_unit_test(an_unreachable_rank_0_is_named),
        cmocka_unit_test(something_else_at_the_port_is_named),
        cmocka_unit_test(another_job_is_sent_away),
        cmocka_unit_test(another_program_is_named),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
