/* logger_test.c: the lines of log.jsonl, what is left of them on resuming, a full disk, and the formatted numbers. */
#include "logger.h"

#include "error.h"
#include "json.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char run[] = P_tmpdir "/logger_testXXXXXX";
static char error[ERROR_SIZE];

static int make_run(void **state) {
    (void)state;
    return mkdtemp(run) ? 0 : -1;
}
static int remove_run(void **state) {
    (void)state;
    return directory_remove(run, error) ? 0 : -1;
}

static char *log_path(void) { return path_join(run, "log.jsonl"); }

/* The log's text; free() it. */
static char *log_text(size_t *length) {
    char *path = log_path(), *text = file_read_text(path, 1 << 20, length, error);
    if (!text) fail_msg("%s", error);
    free(path);
    return text;
}

static void put_log(const char *text, size_t length) {
    char *path = log_path();
    FILE *file = fopen(path, "w");
    assert_int_equal(fwrite(text, 1, length, file), length);
    fclose(file);
    free(path);
}

static Logger *open_log(int64_t step) {
    Logger *logger = logger_open(run, step, error);
    if (!logger) fail_msg("%s", error);
    return logger;
}

static StepReport report_of(int64_t step, bool evaluated) {
    return (StepReport){.step = step, .steps = 600, .tokens = 8192, .tokens_seen = 8192 * step, .mfu = evaluated ? 0.375 : 0,
                        .loss = 3 + 1.0 / (double)(step + 2), .lr = 1.0 / 3000, .grad_norm = 0.1 * (double)step, .ms = 123.4567,
                        .tokens_per_s = 7654.321, .elapsed_s = 0.12 * (double)step,
                        .left_s = 12, .evaluated = evaluated, .train_loss = 2.25, .val_loss = 2.5, .best = evaluated};
}

static void append(Logger *logger, int64_t step, bool evaluated) {
    StepReport r = report_of(step, evaluated);
    if (!logger_report(logger, &r, error)) fail_msg("%s", error);
}

/* A fresh log of steps 1 ... n, every third evaluated. */
static void write_steps(int64_t n) {
    put_log("", 0);
    Logger *logger = open_log(0);
    for (int64_t step = 1; step <= n; step++) append(logger, step, step % 3 == 0);
    logger_close(logger);
}

/* Parses line `number` (from 0) of the log; NULL if there is none. */
static Json *log_line(int number) {
    size_t length;
    char *text = log_text(&length), *line = text, cause[ERROR_SIZE];
    Json *json = NULL;
    for (char *newline; (newline = strchr(line, '\n')); line = newline + 1)
        if (number-- == 0) {
            json = json_parse(line, (size_t)(newline - line), cause, sizeof cause);
            if (!json) fail_msg("%s in: %s", cause, line);
            break;
        }
    if (!json) assert_true(*line == 0);   /* every line is a whole one */
    free(text);
    return json;
}

static double field(const Json *line, const char *key) {
    double value;
    if (!json_get_number(line, key, &value)) fail_msg("no number '%s'", key);
    return value;
}

static void expect_steps(int64_t first, int64_t last) {
    int number = 0;
    for (int64_t step = first; step <= last; step++) {
        Json *line = log_line(number++);
        if (!line) fail_msg("the log ends before step %lld", (long long)step);
        assert_true(field(line, "step") == (double)step);
        json_free(line);
    }
    assert_null(log_line(number));
}

/* ---- lines ------------------------------------------------------------------------------------------------------------------ */

static void test_lines(void **state) {
    (void)state;
    write_steps(6);
    for (int i = 0; i < 6; i++) {
        Json *line = log_line(i);
        StepReport r = report_of(i + 1, (i + 1) % 3 == 0);
        assert_true(field(line, "step") == (double)r.step);
        assert_true(field(line, "tokens") == (double)r.tokens);
        assert_true(field(line, "tokens_seen") == (double)r.tokens_seen);
        assert_true((json_get(line, "mfu") != NULL) == (r.mfu > 0) && (r.mfu == 0 || field(line, "mfu") == r.mfu));
        assert_true(field(line, "loss") == r.loss);
        assert_true(field(line, "lr") == r.lr);
        assert_true(field(line, "grad_norm") == r.grad_norm);
        assert_true(field(line, "perplexity") == exp(r.loss));
        assert_true(fabs(field(line, "tokens_per_s") - r.tokens_per_s) <= 0.5);
        assert_true(fabs(field(line, "ms") - r.ms) <= 0.1);
        assert_true(fabs(field(line, "elapsed_s") - r.elapsed_s) <= 0.1);
        assert_true((json_get(line, "val_loss") != NULL) == r.evaluated);
        assert_true((json_get(line, "train_loss") != NULL) == r.evaluated);
        if (r.evaluated) {
            assert_true(field(line, "train_loss") == r.train_loss);
            assert_true(field(line, "val_loss") == r.val_loss);
            assert_true(field(line, "val_perplexity") == exp(r.val_loss));
        }
        assert_true(!json_get(line, "val_bits_per_byte") && !json_get(line, "hellaswag_acc"));   /* absent where unknown */
        json_free(line);
    }
    expect_steps(1, 6);
}

/* Each line can be read at once, while the run goes on. */
static void test_lines_are_flushed(void **state) {
    (void)state;
    put_log("", 0);
    Logger *logger = open_log(0);
    for (int64_t step = 1; step <= 3; step++) {
        append(logger, step, false);
        expect_steps(1, step);
    }
    logger_close(logger);
}

static void test_not_finite(void **state) {
    (void)state;
    const double bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_log("", 0);
        Logger *logger = open_log(0);
        StepReport r = report_of(1, true);
        r.loss = r.lr = r.grad_norm = r.ms = r.tokens_per_s = r.elapsed_s = r.train_loss = r.val_loss = bad[i];
        assert_true(logger_report(logger, &r, error));
        logger_close(logger);
        static const char *const keys[] = {"loss", "lr", "grad_norm", "ms", "tokens_per_s", "elapsed_s", "train_loss", "val_loss"};
        Json *line = log_line(0);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const Json *value = json_get(line, keys[k]);
            if (!value || value->type != JSON_NULL) fail_msg("'%s' is not null", keys[k]);
        }
        json_free(line);
    }
    put_log("", 0);
    Logger *logger = open_log(0);
    StepReport r = report_of(1, false);
    r.loss = 1000;   /* exp overflows */
    assert_true(logger_report(logger, &r, error));
    logger_close(logger);
    Json *line = log_line(0);
    assert_int_equal(json_get(line, "perplexity")->type, JSON_NULL);
    json_free(line);
}

/* ---- resuming --------------------------------------------------------------------------------------------------------------- */

static void test_resume(void **state) {
    (void)state;
    write_steps(10);
    size_t before, after;
    char *whole = log_text(&before);
    logger_close(open_log(10));
    logger_close(open_log(1000000));
    char *same = log_text(&after);
    assert_int_equal(before, after);
    assert_memory_equal(whole, same, before);
    free(same);

    Logger *logger = open_log(6);
    expect_steps(1, 6);
    append(logger, 7, false);
    logger_close(logger);
    expect_steps(1, 7);
    char *shorter = log_text(&after);
    assert_memory_equal(whole, shorter, after);   /* step 7 is what it was */
    free(shorter);
    free(whole);
    logger_close(open_log(0));
    assert_null(log_line(0));
}

/* A process killed while it wrote leaves a beginning of the last line, which goes. */
static void test_half_written(void **state) {
    (void)state;
    write_steps(5);
    size_t length;
    char *whole = log_text(&length), *last = whole + length - 1;
    while (last[-1] != '\n') last--;
    size_t before_last = (size_t)(last - whole);
    for (size_t from_end = 1; from_end <= length - before_last; from_end += from_end < 4 ? 1 : 23) {
        put_log(whole, length - from_end);
        Logger *logger = open_log(5);
        expect_steps(1, 4);
        append(logger, 5, false);
        logger_close(logger);
        expect_steps(1, 5);
    }
    free(whole);
}

static void test_not_a_log(void **state) {
    (void)state;
    static const char *const texts[] = {"hello\n", "[1]\n", "{}\n", "{\"step\": \"1\"}\n", "{\"step\": 1.5}\n", "\n", "\0\0\0\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put_log(texts[i], i == 6 ? 4 : strlen(texts[i]));
        Logger *logger = open_log(100);
        append(logger, 1, false);
        logger_close(logger);
        expect_steps(1, 1);
    }
}

/* ---- trouble ---------------------------------------------------------------------------------------------------------------- */

static void test_cannot_open(void **state) {
    (void)state;
    char *nowhere = path_join(run, "missing"), *path = log_path();
    assert_null(logger_open(nowhere, 0, error));
    assert_non_null(strstr(error, "missing/log.jsonl"));
    free(nowhere);
    unlink(path);
    assert_true(directory_create(path, error));
    assert_null(logger_open(run, 0, error));
    assert_non_null(strstr(error, "log.jsonl"));
    assert_true(directory_remove(path, error));
    free(path);
}

/* Lines in the log, or -1 if the last has no end. */
static int whole_lines(void) {
    size_t length;
    char *text = log_text(&length);
    int lines = length > 0 && text[length - 1] != '\n' ? -1 : 0;
    for (size_t i = 0; lines >= 0 && i < length; i++) lines += text[i] == '\n';
    free(text);
    return lines;
}

/* Twenty steps from `first` on; how many reports failed. */
static int report_twenty(Logger *logger, int64_t first) {
    int refused = 0;
    for (int64_t step = first; step < first + 20; step++) {
        StepReport r = report_of(step, false);
        refused += !logger_report(logger, &r, error);
    }
    return refused;
}

/* In a child whose files may not grow beyond 1000 bytes, then without bounds, then not beyond 9000. */
static int report_on_full_disk(void) {
    const struct rlimit small = {1000, RLIM_INFINITY}, large = {RLIM_INFINITY, RLIM_INFINITY}, middle = {9000, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    Logger *logger = logger_open(run, 0, error);
    if (!logger) return 10;
    if (report_twenty(logger, 1) != 1 || !strstr(error, "log.jsonl: File too large")) return 11;
    if (whole_lines() != 4) return 12;
    setrlimit(RLIMIT_FSIZE, &large);
    if (report_twenty(logger, 21) != 0 || whole_lines() != 40) return 13;
    setrlimit(RLIMIT_FSIZE, &middle);
    if (report_twenty(logger, 41) != 1 || whole_lines() > 59) return 14;   /* it is said again */
    setrlimit(RLIMIT_FSIZE, &large);
    logger_close(logger);   /* the last chance of those that wait */
    return whole_lines() == 60 ? 0 : 15;
}

static void test_full_disk(void **state) {
    (void)state;
    put_log("", 0);
    int status;
    pid_t child = fork();
    if (child == 0) _exit(report_on_full_disk());
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    expect_steps(1, 60);
}

static void test_remembered_steps(void **state) {
    (void)state;
    put_log("", 0);
    Logger *logger = open_log(0);
    append(logger, 1, false);
    assert_true(logger_report_remembered(logger, error));
    expect_steps(1, 1);
    for (int64_t step = 2; step <= 5; step++) {
        StepReport r = report_of(step, false);
        logger_remember(logger, &r);
    }
    assert_true(logger_report_remembered(logger, error));
    assert_true(logger_report_remembered(logger, error));   /* they have been forgotten */
    expect_steps(1, 5);
    logger_close(logger);

    put_log("", 0);
    logger = open_log(0);
    for (int64_t step = 1; step <= 40; step++) {
        StepReport r = report_of(step, false);
        if (step == 7) append(logger, step, false);   /* after which the ones before have no place any more */
        else logger_remember(logger, &r);
    }
    assert_true(logger_report_remembered(logger, error));
    logger_close(logger);
    static const int64_t expected[] = {7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40};
    for (int i = 0; i < (int)(sizeof expected / sizeof *expected); i++) {
        Json *line = log_line(i);
        assert_true(field(line, "step") == (double)expected[i]);
        json_free(line);
    }
    assert_null(log_line(17));
}

static void test_what_an_evaluation_may_add(void **state) {
    (void)state;
    StepReport r = report_of(1, true);
    put_log("", 0);
    r.val_bits_per_byte = 1.2, r.hellaswag_examples = 200, r.hellaswag_acc = 0.25, r.hellaswag_acc_norm = 0.3;
    Logger *logger = open_log(0);
    assert_true(logger_report(logger, &r, error));
    logger_close(logger);
    Json *line = log_line(0);
    assert_true(field(line, "val_bits_per_byte") == 1.2 && field(line, "hellaswag_acc") == 0.25);
    assert_true(field(line, "hellaswag_acc_norm") == 0.3 && field(line, "hellaswag_examples") == 200);
    json_free(line);
}

static void test_formats(void **state) {
    (void)state;
    char text[32];
    static const struct { double value; const char *text; } durations[] = {
        {0, "0s"}, {0.4, "0s"}, {0.6, "1s"}, {12, "12s"}, {59.4, "59s"}, {59.6, "1m00s"}, {61, "1m01s"}, {185, "3m05s"}, {3599.4, "59m59s"},
        {3599.6, "1h00m"}, {3725, "1h02m"}, {360000, "100h00m"}, {INFINITY, "?"}, {NAN, "?"}, {1e300, "?"}};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        format_duration(text, durations[i].value);
        assert_string_equal(text, durations[i].text);
    }
    static const struct { double value; const char *text; } sizes[] = {
        {0, "0.0 MiB"}, {1048576, "1.0 MiB"}, {12.34 * 1048576, "12.3 MiB"}, {1073741824, "1.00 GiB"}, {1.5 * 1073741824, "1.50 GiB"}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        format_bytes(text, sizes[i].value);
        assert_string_equal(text, sizes[i].text);
    }
    static const struct { double value; const char *text; } counts[] = {
        {0, "0"}, {7, "7"}, {999, "999"}, {1000, "1,000"}, {7654, "7,654"}, {123456, "123,456"}, {1234567, "1,234,567"},
        {124439808, "124,439,808"},
        {999.6, "1,000"}, {-1, "-1"}, {-999, "-999"}, {-1000, "-1,000"}, {-123456, "-123,456"}, {9007199254740992, "9,007,199,254,740,992"},
        {1e18, "1,000,000,000,000,000,000"}, {1e30, "1e+30"}, {-1e300, "-1e+300"}, {INFINITY, "inf"}, {-INFINITY, "-inf"}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        format_count(text, counts[i].value);
        assert_string_equal(text, counts[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_lines_are_flushed), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_half_written), cmocka_unit_test(test_not_a_log),
        cmocka_unit_test(test_cannot_open), cmocka_unit_test(test_full_disk), cmocka_unit_test(test_remembered_steps),
        cmocka_unit_test(test_what_an_evaluation_may_add), cmocka_unit_test(test_formats),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
