/* run_directory_test.c: an earlier run makes room for a new one, alone in its directory or not, and loses nothing wherever the program is killed. */
#include "run_directory.h"

#include "directory_test.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const entries[] = {"log.jsonl", "run.json", "samples.txt", "curve.png", "step_00000001", "step_00000002"};
enum { ENTRIES = sizeof entries / sizeof *entries };

static char *at(const char *name) {
    static char places[8][300];
    static int next;
    char *place = places[next++ % 8];
    snprintf(place, sizeof places[0], "%s/%s", directory, name);
    return place;
}

static void put(const char *run, const char *name) {
    if (!file_write_text(run, name, name, strlen(name), error)) fail_msg("%s", error);
}

static void make_run(const char *run) {
    if (!directory_create(run, error)) fail_msg("%s", error);
    for (int i = 0; i < ENTRIES; i++) put(run, entries[i]);
}

static bool has(const char *run, const char *name) {
    char *path = path_join(run, name);
    bool there = path_exists(path);
    free(path);
    return there;
}

static void expect_entries(const char *run, int first, int end) {
    for (int i = first; i < end; i++)
        if (!has(run, entries[i])) fail_msg("%s lacks %s", run, entries[i]);
}

static char *aside(const char *run) {
    char *kept;
    if (!run_set_aside(run, &kept, error)) fail_msg("%s", error);
    return kept;
}

static void expect_aside(const char *run, const char *place) {
    char *kept = aside(run);
    assert_string_equal(kept ? kept : "nothing", place);
    expect_entries(place, 0, ENTRIES);
    for (int i = 0; i < ENTRIES; i++) assert_false(has(run, entries[i]));
    free(kept);
}

static void names(void **state) {
    (void)state;
    static const char *const own[] = {".lock", "run.json", "run.json.tmp", ".curve.png", "best", "last.tmp", "step_00000010", "step_123456789",
                                      "damaged_step_00000010", ".writing-step_00000010"};
    static const char *const others[] = {"gpt2-124M", "step_5", "step_", "steps", "best-run", "export", "notes.txt", "out.1", "damaged", "", "log"};
    for (int i = 0; i < ENTRIES; i++) assert_true(run_owns(entries[i]));
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!run_owns(own[i])) fail_msg("%s is a run's own", own[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (run_owns(others[i])) fail_msg("%s is not a run's own", others[i]);
}

static void no_run(void **state) {
    (void)state;
    assert_null(aside(at("missing")));
    assert_true(directory_create(at("other/inner"), error));
    put(at("other"), "notes");
    assert_null(aside(at("other")));
    assert_true(has(at("other"), "notes"));
}

static void alone(void **state) {
    (void)state;
    make_run(at("alone"));
    put(at("alone"), ".lock");
    expect_aside(at("alone"), at("alone.1"));
    assert_false(path_exists(at("alone")));
    make_run(at("alone"));
    assert_int_equal(symlink("nowhere", at("alone.2")), 0);   /* a name that is taken */
    expect_aside(at("alone"), at("alone.3"));
}

static void beside_others(void **state) {
    (void)state;
    make_run(at("out"));
    make_run(at("out/inner"));
    put(at("out"), ".lock");
    expect_aside(at("out"), at("out.1"));
    expect_entries(at("out/inner"), 0, ENTRIES);
    assert_true(has(at("out"), ".lock"));
    assert_false(has(at("out.1"), "inner") || path_exists(at("out.1.moving")));
    assert_null(aside(at("out")));
}

/* After each of the renames, with the log the last of them. */
static void killed_on_the_way(void **state) {
    (void)state;
    for (int moved = 0; moved <= ENTRIES; moved++) {
        char *run = xprintf("%s/killed%d", directory, moved), *moving = xprintf("%s.1.moving", run), *place = xprintf("%s.1", run);
        make_run(run);
        put(run, "notes");
        assert_int_equal(mkdir(moving, 0777), 0);
        for (int i = ENTRIES - 1; i >= ENTRIES - moved; i--) {
            char *from = path_join(run, entries[i]), *to = path_join(moving, entries[i]);
            assert_int_equal(rename(from, to), 0);
            free(from);
            free(to);
        }
        expect_aside(run, place);
        assert_true(has(run, "notes") && !path_exists(moving));
        free(run);
        free(moving);
        free(place);
    }
}

static void behind_a_link(void **state) {
    (void)state;
    make_run(at("disk/run"));
    assert_int_equal(symlink("disk/run", at("link")), 0);
    char *real = realpath(at("disk/run"), NULL), *place = xprintf("%s.1", real);
    expect_aside(at("link"), place);
    assert_true(path_is_directory(at("link")) && path_is_directory(real));
    assert_false(path_exists(at("link.1")));
    free(real);
    free(place);
}

static void whose_checkpoint(void **state) {
    (void)state;
    make_run(at("a"));
    make_run(at("a/below"));
    assert_int_equal(symlink("step_00000002", at("a/below/last")), 0);
    assert_int_equal(symlink("a/step_00000001", at("named")), 0);
    assert_true(run_has_checkpoint(at("a"), at("a/step_00000001")) && run_has_checkpoint(at("a"), at("named")));
    assert_false(run_has_checkpoint(at("a"), at("a/below/last")) || run_has_checkpoint(at("a"), at("a/missing")));
    char *own = run_of_checkpoint(at("a/below/last")), *linked = run_of_checkpoint(at("named")), *real = realpath(at("a"), NULL);
    assert_string_equal(own, at("a/below"));
    assert_string_equal(linked, real);
    assert_true(directory_create(at("loose/checkpoint"), error));
    assert_null(run_of_checkpoint(at("loose/checkpoint")));
    free(own);
    free(linked);
    free(real);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names),         cmocka_unit_test(no_run),        cmocka_unit_test(alone),
                                       cmocka_unit_test(beside_others), cmocka_unit_test(killed_on_the_way), cmocka_unit_test(behind_a_link),
                                       cmocka_unit_test(whose_checkpoint)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
