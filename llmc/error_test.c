/* error_test.c: what a message looks like, and how the program leaves after it. */
#include "child_test.h"

#include <fcntl.h>

/* AddressSanitizer, where it is built in, asks this: an allocation too large shall fail as it does without it. */
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

typedef void (*Act)(void);
static int call(void *act) {
    error_program_name("bin/prog");
    (*(Act *)act)();
    return 77;
}
static void expect(Act act, int status, const char *text) {
    Child c = child_run(call, &act);
    assert_int_equal(c.status, status);
    assert_string_equal(c.text, text);
}
static void expect_part(Act act, int status, const char *part) {
    Child c = child_run(call, &act);
    assert_int_equal(c.status, status);
    assert_holds(c.text, part);
}

static void act_die(void) { die("found %d, expected %s", 3, "4"); }
static void act_die_strange(void) { die("no file 'a\nb\033[31m\xC3\xA9'"); }
static void act_warn(void) { warn("slow %s", "disk"); }
static void act_check(void) { CHECK(1 + 1 == 2); CHECK(1 + 1 == 3); }
static void act_memory(void) { xcalloc(1ul << 60, 1ul << 10); }
static void leave_with_9(int status) { _exit(status + 8); }
static void act_hook(void) { error_exit_hook(leave_with_9); die("x"); }
static void do_nothing(int status) { (void)status; }
static void act_hook_returns(void) { error_exit_hook(do_nothing); die("x"); }

static bool tell_elsewhere(const char *message) { return strcmp(message, "found 3, expected 4") == 0; }
static void act_told(void) { error_report_hook(tell_elsewhere); act_die(); }
static void act_not_told(void) { error_report_hook(tell_elsewhere); die("x"); }
static void act_print(void) { error_print("of another"); }
static void leave_without_stdout(int status) {
    close(STDOUT_FILENO);   /* ThreadSanitizer flushes in _exit() */
    _exit(status + 8);
}
/* stdout is a pipe that is full, and nobody reads: the message does not wait for it. */
static void act_full_stdout(void) {
    int ends[2];
    char block[4096] = {0};
    if (pipe(ends) != 0) _exit(78);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    while (write(ends[1], block, sizeof block) > 0) continue;
    fcntl(ends[1], F_SETFL, 0);
    dup2(ends[1], STDOUT_FILENO);
    printf("waits");
    error_exit_hook(leave_without_stdout);
    die("x");
}

static void messages_and_statuses(void **state) {
    (void)state;
    expect(act_die, 1, "prog: found 3, expected 4\n");
    expect(act_die_strange, 1, "prog: no file 'a?b?[31m\xC3\xA9'\n");
    expect(act_warn, 77, "prog: warning: slow disk\n");
    expect_part(act_check, 1, "prog: internal error: CHECK(1 + 1 == 3) failed at ");
    expect_part(act_memory, 1, "prog: out of memory: ");
}

static void the_hook_decides_how_to_leave(void **state) {
    (void)state;
    expect(act_hook, 9, "prog: x\n");
    expect(act_hook_returns, 1, "prog: x\n");
}

static void a_message_may_be_told_elsewhere(void **state) {
    (void)state;
    expect(act_told, 1, "");
    expect(act_not_told, 1, "prog: x\n");
    expect(act_print, 77, "prog: of another\n");
    expect(act_full_stdout, 9, "prog: x\n");
}

static void memory_and_text(void **state) {
    (void)state;
    char *long_text = xprintf("%0*d", 5000, 7), *copy = xstrdup(long_text);
    assert_int_equal(strlen(copy), 5000);
    assert_true(copy[4999] == '7' && copy[0] == '0');
    copy = xrealloc(copy, 6000);
    assert_int_equal(strlen(copy), 5000);
    int *zeros = xcalloc(10, sizeof *zeros);
    for (int i = 0; i < 10; i++) assert_int_equal(zeros[i], 0);
    void *none = xmalloc(0);
    assert_non_null(none);
    free(none);
    free(zeros);
    free(copy);
    free(long_text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_and_statuses),
        cmocka_unit_test(the_hook_decides_how_to_leave),
        cmocka_unit_test(a_message_may_be_told_elsewhere),
        cmocka_unit_test(memory_and_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
