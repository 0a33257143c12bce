/* curve_test.c: how curve.png is asked for: by a copy of this program beside a scripts/plot.py, with stand-ins for python3 on its PATH. */
#include "curve.h"

#include "child_test.h"
#include "directory_test.h"

#include <sys/stat.h>

static char *at(const char *name) {
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", directory, name);
    return path[turn];
}

static void put(const char *name, const char *text) {
    FILE *file = fopen(at(name), "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    chmod(at(name), 0755);
}

/* run, python3 and the program, in `directory`. */
static int make_place(void **state) {
    if (make_directory(state) != 0) return -1;
    char *command = xprintf("cd %s && mkdir run bin place place/scripts && touch place/scripts/plot.py && cp /proc/%d/exe place/program", directory,
                            (int)getpid());
    int status = system(command);
    free(command);
    return status;
}

/* Runs the copy: curve_draw, and what else main does. Returns the seconds that it took. */
static double draw(const char *seconds, const char *give_up) {
    double begin = machine_seconds();
    char *command = xprintf("cd %s && PATH=%s/bin:/bin:/usr/bin MARK=mark timeout 60 place/program run %s %s", directory, directory, seconds, give_up);
    int status = system(command);
    free(command);
    assert_int_equal(status, 0);
    return machine_seconds() - begin;
}

static char *text_of(const char *name) {
    static char text[4096];
    FILE *file = fopen(at(name), "r");
    text[file ? fread(text, 1, sizeof text - 1, file) : 0] = 0;
    if (file) fclose(file);
    return text;
}

static void expect_nothing(void) {
    assert_false(path_exists(at("run/curve.png")));
    assert_false(path_exists(at("run/.curve.png")));
}

static void test_drawn(void **state) {
    (void)state;
    put("bin/python3", "#!/bin/sh\necho loud; echo louder >&2\n{ pwd; echo $MARK; echo $0 $*; cat; } >$4\n");
    draw("20", "0");
    char *expected = xprintf("%s\nmark\n%s %s run -o run/.curve.png\n", directory, at("bin/python3"), at("place/scripts/plot.py"));
    assert_string_equal(text_of("run/curve.png"), expected);   /* and cat had nothing to read */
    assert_false(path_exists(at("run/.curve.png")));
    free(expected);
    unlink(at("run/curve.png"));
}

static void test_not_drawn(void **state) {
    (void)state;
    put("bin/python3", "#!/bin/sh\necho half >$4\nexit 1\n");
    put("place/scripts/plot.py", "raise SystemExit(1)\n");   /* for /usr/bin/python3, if it is there */
    draw("20", "0");
    expect_nothing();
    put("bin/python3", "#!/bin/sh\nkill -9 $$\n");
    draw("20", "0");
    expect_nothing();
    put("bin/python3", "#!/bin/sh\necho whole >$4\n");
    assert_int_equal(rename(at("place/scripts/plot.py"), at("plot.py")), 0);
    draw("20", "0");
    expect_nothing();
    assert_int_equal(rename(at("plot.py"), at("place/scripts/plot.py")), 0);
    draw("20", "0");
    assert_string_equal(text_of("run/curve.png"), "whole\n");
    unlink(at("run/curve.png"));
}

/* The stand-in becomes a sleep of its own name, so that killing it is killing all of it. */
static void test_takes_too_long(void **state) {
    (void)state;
    put("bin/python3", "#!/bin/sh\necho half >$4\necho $$ >pid\nexec sleep 1000\n");
    assert_true(draw("0.3", "0") < 30);
    expect_nothing();
    pid_t child = (pid_t)strtol(text_of("pid"), NULL, 10);
    assert_true(child > 0 && kill(child, 0) != 0);   /* gone, and no zombie */
    unlink(at("pid"));
    assert_true(draw("1000", "1") < 30);   /* given up before it began */
    expect_nothing();
}

int main(int argc, char **argv) {
    if (argc == 4) {
        volatile sig_atomic_t give_up = argv[3][0] == '1';
        int words[2];
        if (pipe(words) != 0) return 2;
        dup2(words[1], STDOUT_FILENO);
        dup2(words[1], STDERR_FILENO);
        curve_draw(argv[1], strtod(argv[2], NULL), &give_up);
        struct pollfd heard = {.fd = words[0], .events = POLLIN};
        return poll(&heard, 1, 0) != 0;   /* nothing was said */
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_drawn), cmocka_unit_test(test_not_drawn), cmocka_unit_test(test_takes_too_long)};
    return cmocka_run_group_tests(tests, make_place, remove_directory);
}
