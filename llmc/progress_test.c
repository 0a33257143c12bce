/* progress_test.c: what a run prints while it trains: on a terminal (a pseudo-terminal, and what would be seen on it), and elsewhere. */
#define _GNU_SOURCE   /* posix_openpt */
#include "progress.h"

#include "child_test.h"

#include <fcntl.h>
#include <math.h>
#include <sys/ioctl.h>

static StepReport report_of(int64_t step, bool evaluated) {
    return (StepReport){.step = step, .steps = 600, .tokens = 8192, .loss = 3 + 1.0 / (double)(step + 2), .lr = 1.0 / 3000, .grad_norm = 0.5,
                        .ms = 123, .tokens_per_s = 7654.321, .left_s = 12, .evaluated = evaluated, .train_loss = 2.25, .val_loss = 2.5,
                        .best = evaluated, .mfu = 0.4125};
}

/* ---- a terminal ---------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 40, MOST_COLUMNS = 200 };

typedef struct {
    char bytes[TEXT_SIZE];                      /* as they came */
    char line[ROWS][MOST_COLUMNS + 1];          /* as they would be seen, without blanks at the end */
    int lines, widest;                          /* columns ever used, the one with the cursor included */
} Screen;

/* Only what the live line needs: carriage return, newline, erase to the end of the line. */
static void show(Screen *s) {
    int row = 0, column = 0;
    memset(s->line, 0, sizeof s->line);
    s->widest = 0;
    for (const char *c = s->bytes; *c; c++) {
        if (*c == '\r') column = 0;
        else if (*c == '\n') row++;
        else if (strncmp(c, "\033[K", 3) == 0) s->line[row][column] = 0, c += 2;
        else {
            assert_true(*c >= ' ' && row < ROWS && column < MOST_COLUMNS);
            assert_true(column <= (int)strlen(s->line[row]));
            char after = s->line[row][column];
            s->line[row][column++] = *c;
            if (!after) s->line[row][column] = 0;
        }
        if (column > s->widest) s->widest = column;
    }
    s->lines = row + 1;
}

static void set_columns(int columns) {
    struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    ioctl(STDOUT_FILENO, TIOCSWINSZ, &size);
}

/* Runs act in a child whose stdout and stderr are a terminal of that kind and width. */
static void on_terminal(Screen *s, const char *term, int columns, void (*act)(void)) {
    int master = posix_openpt(O_RDWR | O_NOCTTY), status;
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
        dup2(slave, STDOUT_FILENO);
        dup2(slave, STDERR_FILENO);
        if (term) setenv("TERM", term, 1);
        else unsetenv("TERM");
        error_program_name("prog");
        set_columns(columns);
        act();
        fflush(NULL);
        _exit(0);
    }
    size_t used = 0;
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);   /* so that reading does not fail before the child has opened it */
    assert_true(slave >= 0);
    fcntl(master, F_SETFL, O_NONBLOCK);
    for (bool ended = false, read_all = false; !read_all;) {   /* it ends only if somebody reads */
        struct pollfd ready = {.fd = master, .events = POLLIN};
        ssize_t n = poll(&ready, 1, 10) > 0 ? read(master, s->bytes + used, TEXT_SIZE - 1 - used) : 0;
        if (n > 0) used += (size_t)n;
        if (used == TEXT_SIZE - 1) kill(child, SIGKILL);   /* it will never be done */
        read_all = ended && n <= 0;
        ended = ended || waitpid(child, &status, WNOHANG) == child;
    }
    assert_int_equal(status, 0);
    s->bytes[used] = 0;
    close(slave);
    close(master);
    show(s);
}

static void expect_line(const Screen *s, int row, const char *text) {
    if (strcmp(s->line[row], text) != 0) fail_msg("line %d is '%s', not '%s'", row, s->line[row], text);
}

static void step(Progress *p, int64_t number, bool evaluated) {
    StepReport r = report_of(number, evaluated);
    p->drawn_at = -INFINITY;   /* as if the last one were long ago */
    progress_step(p, &r, true);
}

static void three_steps(void) {
    Progress p;
    progress_open(&p, false, true);
    for (int i = 1; i <= 3; i++) step(&p, i, false);
}

static void test_live(void **state) {
    (void)state;
    Screen s;
    on_terminal(&s, "xterm", 120, three_steps);
    assert_int_equal(s.lines, 1);
    assert_holds(s.line[0], "[");
    assert_holds(s.line[0], "step   3/600 | loss 3.2000 | lr 3.33e-04 | norm 0.500 |   7,654 tok/s | mfu 41.2% | 12s left");
    assert_true(s.widest < 120);
    on_terminal(&s, "xterm", 40, three_steps);
    assert_int_equal(s.lines, 1);
    expect_line(&s, 0, "step   3/600 | loss 3.2000 | 12s left");
    on_terminal(&s, "xterm", 10, three_steps);
    assert_int_equal(s.lines, 1);
    expect_line(&s, 0, "step   ");
}

static void evaluations(void) {
    Progress p;
    progress_open(&p, false, true);
    step(&p, 9, false);
    step(&p, 10, true);
    StepReport spike = report_of(11, false);
    spike.skipped = true;
    progress_step(&p, &spike, true);
    step(&p, 12, false);
}

static void test_lasting_lines(void **state) {
    (void)state;
    Screen s;
    on_terminal(&s, "xterm", 60, evaluations);
    assert_int_equal(s.lines, 3);
    expect_line(&s, 0, "step  10/600 | train loss 2.2500 | val loss 2.5000 | val ppl 12.18 | best so far");
    expect_line(&s, 1, "step  11/600 | loss 3.0769 | norm 0.500 | a spike: update left out");
    assert_holds(s.line[2], "step  12/600 | loss 3.0714 | val 2.5000 | 12s left");
}

static void narrower(void) {
    Progress p;
    progress_open(&p, false, true);
    step(&p, 1, false);
    set_columns(30);
    step(&p, 2, false);
}

static void test_resized(void **state) {
    (void)state;
    Screen s;
    on_terminal(&s, "xterm", 120, narrower);
    expect_line(&s, 0, "step   2/600 | loss 3.2500");
}

static void to_the_end(void) {
    Progress p;
    progress_open(&p, false, true);
    step(&p, 1, false);
    progress_clear(&p);
    printf("done\n");
}

static void sample_at_the_end(void) {
    Progress p;
    progress_open(&p, false, true);
    step(&p, 1, false);
    progress_say(&p, "writing a sample");
    progress_clear(&p);
    printf("done\n");
}

static void still_busy(void) {
    Progress p;
    progress_open(&p, false, true);
    step(&p, 1, false);
    progress_say(&p, "writing a sample");
}

static void warning(void) {
    Progress p;
    progress_open(&p, false, true);
    step(&p, 1, false);
    warn("the disk is full");
    step(&p, 2, false);
}

static void test_what_takes_its_place(void **state) {
    (void)state;
    Screen s;
    on_terminal(&s, "xterm", 100, to_the_end);
    assert_int_equal(s.lines, 2);
    expect_line(&s, 0, "done");
    on_terminal(&s, "xterm", 100, still_busy);
    assert_int_equal(s.lines, 1);
    expect_line(&s, 0, "writing a sample");
    on_terminal(&s, "xterm", 18, still_busy);
    expect_line(&s, 0, "step   1/600");   /* no room */
    on_terminal(&s, "xterm", 100, sample_at_the_end);
    assert_int_equal(s.lines, 2);
    expect_line(&s, 0, "done");
    on_terminal(&s, "xterm", 100, warning);
    assert_int_equal(s.lines, 2);
    expect_line(&s, 0, "prog: warning: the disk is full");
    assert_holds(s.line[1], "step   2/600");
}

/* However often: 0.1 s between one and the next. */
static void very_many(void) {
    Progress p;
    progress_open(&p, false, true);
    for (int64_t i = 1; i <= 300; i++) {
        StepReport r = report_of(i, false);
        progress_step(&p, &r, true);
    }
}

static void test_seldom(void **state) {
    (void)state;
    Screen s;
    on_terminal(&s, "xterm", 100, very_many);
    int drawn = 0;
    for (const char *at = s.bytes; (at = strstr(at, "\033[K")); at++) drawn++;
    assert_in_range(drawn, 1, 60);   /* 6 s, on whatever machine */
}

/* ---- plain lines --------------------------------------------------------------------------------------------------------------- */

static void not_live(void) {
    Progress p;
    progress_open(&p, false, false);
    step(&p, 1, false);
    progress_say(&p, "writing a sample");
}

static void test_plain(void **state) {
    (void)state;
    static const char line[] = "step   1/600 | loss 3.3333 | ppl    28.03 | lr 3.33e-04 | norm  0.500 | 7,654 tok/s | mfu 41.2% | 12s left";
    const struct { const char *term; int columns; void (*act)(void); int lines; } cases[] = {
        {"dumb", 150, three_steps, 4}, {"", 150, three_steps, 4}, {NULL, 150, three_steps, 4}, {"xterm", 0, three_steps, 4},
        {"xterm", 150, not_live, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Screen s;
        on_terminal(&s, cases[i].term, cases[i].columns, cases[i].act);
        assert_null(strchr(s.bytes, '\033'));
        assert_int_equal(s.lines, cases[i].lines);
        expect_line(&s, 0, line);
    }
}

/* ---- standard output that takes nothing in -------------------------------------------------------------------------------------- */

/* Far more steps than a pipe or a terminal has room for. */
static int print_many(void *output) {
    Progress p;
    dup2(*(int *)output, STDOUT_FILENO);
    signal(SIGPIPE, SIG_IGN);
    progress_open(&p, false, true);
    for (int i = 1; i <= 3000; i++) step(&p, i, i % 10 == 0);
    progress_clear(&p);
    return 0;
}

static void expect_one_warning(int output, const char *part) {
    Child c = child_run(print_many, &output);
    assert_int_equal(c.status, 0);
    assert_int_equal(lines_in(c.text), part ? 1 : 0);
    if (part) assert_holds(c.text, part);
}

static void test_nobody_reads(void **state) {
    (void)state;
    int ends[2], terminal = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    assert_int_equal(pipe(ends), 0);
    expect_one_warning(ends[1], NULL);   /* both ends are open in the child, too */
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    struct winsize size = {.ws_row = 24, .ws_col = 100};
    ioctl(slave, TIOCSWINSZ, &size);
    setenv("TERM", "xterm", 1);
    expect_one_warning(slave, NULL);
    for (int i = 0; i < 2; i++) close(ends[i]);
    close(slave);
    close(terminal);
}

static void test_the_reader_is_gone(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    expect_one_warning(ends[1], "prog: warning: standard output cannot be written: Broken pipe; training goes on");
    close(ends[1]);
}

static void test_full_disk(void **state) {
    (void)state;
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    expect_one_warning(full, "prog: warning: standard output cannot be written: No space left on device; training goes on");
    close(full);
}

static void quietly(void) {
    Progress p;
    progress_open(&p, true, true);
    step(&p, 1, false);
    step(&p, 2, true);
    progress_clear(&p);
}

static void test_quiet(void **state) {
    (void)state;
    Screen s;
    on_terminal(&s, "xterm", 80, quietly);
    assert_string_equal(s.bytes, "");
}

/* What is printed of it into a file. */
static void expect_printed(const StepReport *r, const char *const *words, const char *no_word) {
    char text[1024];
    FILE *file = tmpfile();
    int aside = dup(1);
    assert_non_null(file);
    fflush(stdout);
    dup2(fileno(file), 1);
    Progress p;
    progress_open(&p, false, true);
    progress_step(&p, r, true);
    fflush(stdout);
    dup2(aside, 1);
    close(aside);
    ssize_t n = pread(fileno(file), text, sizeof text - 1, 0);
    fclose(file);
    assert_true(p.kind == PROGRESS_PLAIN && n >= 0);
    text[n] = 0;
    for (; *words; words++) assert_holds(text, *words);
    if (strstr(text, no_word)) fail_msg("'%s' stands in: %s", no_word, text);
}

static void test_into_a_file(void **state) {
    (void)state;
    StepReport r = report_of(2, false);
    static const char *const plain[] = {"step   2/600 | loss 3.2500 | ppl    25.79 | ", "| 7,654 tok/s | mfu 41.2% | 12s left\n", NULL};
    expect_printed(&r, plain, "evaluation");
    r.mfu = 0;
    static const char *const unknown[] = {"| 7,654 tok/s | 12s left\n", NULL};
    expect_printed(&r, unknown, "mfu");
    r = report_of(30, true);
    static const char *const evaluated[] = {
        "12s left\n  evaluation: train loss 2.2500 | val loss 2.5000 | val ppl 12.18 | best so far\n", NULL};
    expect_printed(&r, evaluated, "\033");
    r.val_bits_per_byte = 1.23456, r.hellaswag_examples = 200, r.hellaswag_acc = 0.255, r.hellaswag_acc_norm = 0.31;
    static const char *const more[] = {"val ppl 12.18 | 1.2346 bits per byte | HellaSwag acc 0.2550, acc_norm 0.3100 | best so far", NULL};
    expect_printed(&r, more, "\033");
    r.loss = NAN, r.tokens_per_s = INFINITY, r.left_s = INFINITY, r.val_loss = INFINITY, r.mfu = NAN;
    static const char *const bad[] = {"nan", "inf tok/s | ? left", NULL};
    expect_printed(&r, bad, "mfu");
}

/* ---- the line ------------------------------------------------------------------------------------------------------------------ */

static void test_never_wraps(void **state) {
    (void)state;
    StepReport r = report_of(12, false), huge = r;
    huge.steps = huge.step = 9007199254740992;
    huge.loss = -1e300, huge.grad_norm = 1e300, huge.tokens_per_s = 1e18, huge.left_s = 1e14, huge.lr = NAN;
    for (int columns = 0; columns <= 400; columns++) {
        char text[PROGRESS_WIDEST];
        progress_live_line(text, &huge, 1e300, columns);
        int most = columns > 3 ? columns - 3 : 0;
        assert_true((int)strlen(text) <= most);
        progress_live_line(text, &r, 2.5, columns);
        assert_true((int)strlen(text) <= most);
        if (columns >= 15) assert_holds(text, "step  12/600");
        if (columns < 120) continue;
        assert_holds(text, "] step  12/600 | loss 3.0714 | val 2.5000 | lr 3.33e-04 | norm 0.500 |   7,654 tok/s | mfu 41.2% | 12s left");
    }
    char text[PROGRESS_WIDEST];
    r.step = 300;
    progress_live_line(text, &r, 0, 400);
    assert_holds(text, "[##############..............] step");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_live), cmocka_unit_test(test_lasting_lines), cmocka_unit_test(test_resized),
        cmocka_unit_test(test_what_takes_its_place), cmocka_unit_test(test_seldom), cmocka_unit_test(test_plain),
        cmocka_unit_test(test_nobody_reads), cmocka_unit_test(test_the_reader_is_gone), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_quiet), cmocka_unit_test(test_into_a_file), cmocka_unit_test(test_never_wraps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
