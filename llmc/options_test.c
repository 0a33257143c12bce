/* options_test.c: every way to spell an option, what is refused and in which words, files of options, which source wins, and values
   written as text and read back. */
#include "options.h"

#include "error.h"

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char error[ERROR_SIZE];

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

static jmp_buf died;
static void jump_out(int status) { longjmp(died, status); }

/* What die() printed. */
static char said[4096];
static void read_said(int descriptor) {
    ssize_t n = pread(descriptor, said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = 0;
}

/* Runs options_parse on words separated by blanks. True if it came back; else what it said is in `said`. */
static bool parse(const OptionTable *table, void *values, const char *words) {
    char *copy = strdup(words), *argv[32] = {"program"}, name[] = P_tmpdir "/options_testXXXXXX";
    int argc = 1, aside = dup(2), file = mkstemp(name);
    unlink(name);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    argv[argc] = NULL;
    dup2(file, 2);
    error_exit_hook(jump_out);
    bool volatile ok = false;
    if (setjmp(died) == 0) {
        options_parse(table, values, argc, argv);
        ok = true;
    }
    error_exit_hook(NULL);
    dup2(aside, 2);
    read_said(file);
    close(aside);
    close(file);
    free(copy);
    return ok;
}

static Options parsed(const char *words) {
    Options o;
    if (!parse(&train_options, &o, words)) fail_msg("'%s' was refused: %s", words, said);
    options_release(&train_options, &o);   /* callers look at numbers only */
    return o;
}

static void expect_refused(const char *words, const char *cause) {
    Options o;
    if (parse(&train_options, &o, words)) fail_msg("'%s' was accepted", words);
    if (!strstr(said, cause)) fail_msg("'%s': \"%s\" does not say \"%s\"", words, said, cause);
    options_release(&train_options, &o);
}

static const OptionRow *row_named(const OptionTable *table, const char *name) {
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].name, name) == 0) return &table->rows[i];
    fail_msg("no row %s", name);
    return NULL;
}

/* ---- the tables ------------------------------------------------------------------------------------------------------------- */

static void check_table(const OptionTable *table) {
    for (int i = 0; i < table->count; i++) {
        const OptionRow *a = &table->rows[i];
        if (a->kind == OPTION_SECTION) continue;
        assert_true(*a->help != 0);
        assert_true(strlen(a->name) <= 31);   /* longer names get no suggestion */
        if (a->letter == 'h') fail_msg("-h is --help's");
        for (int j = 0; j < i; j++) {
            const OptionRow *b = &table->rows[j];
            if (b->kind != OPTION_SECTION && strcmp(a->name, b->name) == 0) fail_msg("two rows are called %s", a->name);
            if (a->letter && a->letter == b->letter) fail_msg("-%c is both %s and %s", a->letter, a->name, b->name);
        }
    }
}

static void test_tables(void **state) {
    (void)state;
    check_table(&train_options);
    check_table(&sample_options);
}

static void test_defaults(void **state) {
    (void)state;
    Options o;
    SampleOptions s;
    assert_true(parse(&train_options, &o, ""));
    assert_int_equal(o.n_layer, 6);
    assert_int_equal(o.grad_accum, 8);
    assert_int_equal(o.pos, 1);
    assert_int_equal(o.bias, 1);
    assert_int_equal(o.plan, 0);
    assert_true(o.lr == 3e-3 && o.rope_base == 10000 && o.dropout == 0);
    assert_string_equal(o.model, "baby");
    assert_string_equal(o.resume, "");
    assert_int_equal(o.from.lr, FROM_DEFAULT);
    options_release(&train_options, &o);
    assert_null(o.model);
    assert_true(parse(&sample_options, &s, ""));
    assert_string_equal(s.prompt, "\n");
    assert_true(s.temperature == 0.8);
    options_release(&sample_options, &s);
}

/* ---- the command line ------------------------------------------------------------------------------------------------------- */

static void test_spellings(void **state) {
    (void)state;
    static const char *const whole[] = {"-g5", "-g 5", "-g=5", "--grad-accum 5", "--grad-accum=5", "--grad_accum 5", "--grad_accum=5",
                                        "-g 4 -g 5", "--steps 1 -g5 -b 2"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        Options o = parsed(whole[i]);
        if (o.grad_accum != 5 || o.from.grad_accum != FROM_COMMAND_LINE) fail_msg("'%s' gives %lld", whole[i], (long long)o.grad_accum);
        assert_int_equal(o.from.n_layer, FROM_DEFAULT);
    }
    static const char *const real[] = {"-l3e-4", "-l 3e-4", "-l=3e-4", "--lr 3e-4", "--lr=3e-4", "--lr 0.0003", "--lr .0003",
        "--lr 30.0E-5"};
    for (size_t i = 0; i < sizeof real / sizeof *real; i++)
        if (parsed(real[i]).lr != 3e-4) fail_msg("'%s'", real[i]);
    static const char *const choice[] = {"-enone", "-e none", "-e=none", "--pos none", "--pos=none"};
    for (size_t i = 0; i < sizeof choice / sizeof *choice; i++)
        if (parsed(choice[i]).pos != 2) fail_msg("'%s'", choice[i]);
    static const char *const text[] = {"-oa=b", "-o a=b", "-o=a=b", "--out a=b", "--out=a=b"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        Options o;
        assert_true(parse(&train_options, &o, text[i]));
        assert_string_equal(o.out, "a=b");
        options_release(&train_options, &o);
    }
    Options o;
    assert_true(parse(&train_options, &o, "--model="));
    assert_string_equal(o.model, "");
    options_release(&train_options, &o);
}

static void test_flags(void **state) {
    (void)state;
    static const char *const on[] = {"--plan", "--plan=1", "--plan 1", "--plan=true", "--plan yes", "--no-plan --plan", "--plan --no-bias",
        "--plan=ON"};
    static const char *const off[] = {"--no-plan", "--plan=0", "--plan 0", "--plan=false", "--plan no", "--plan --no-plan", "--plan off"};
    for (size_t i = 0; i < sizeof on / sizeof *on; i++)
        if (parsed(on[i]).plan != 1) fail_msg("'%s'", on[i]);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (parsed(off[i]).plan != 0) fail_msg("'%s'", off[i]);
    Options o = parsed("--plan 0 --eval-only -g 3 --no-bias --no_tie");
    assert_int_equal(o.plan, 0);
    assert_int_equal(o.eval_only, 1);
    assert_int_equal(o.grad_accum, 3);
    assert_int_equal(o.bias, 0);
    assert_int_equal(o.tie, 0);
    expect_refused("--plan=2", "expected 0 or 1");
    expect_refused("--plan=", "expected 0 or 1");
    expect_refused("--no-plan=1", "unknown option '--no-plan'");
    expect_refused("--no-lr", "unknown option '--no-lr'");
    expect_refused("--no-", "unknown option");
}

static void test_unknown(void **state) {
    (void)state;
    expect_refused("--grad-acum 8", "unknown option '--grad-acum'; the nearest is --grad-accum");
    expect_refused("--grad-acum=8", "the nearest is --grad-accum");
    expect_refused("--learnin-rate 1 --n_layers 4", "unknown option");
    expect_refused("--n_layers 4", "the nearest is --n-layer");
    expect_refused("--no-biass", "unknown option '--no-biass'");
    expect_refused("--vocab 65", "unknown option '--vocab'");
    expect_refused("--sead 3", "the nearest is --seed");
    expect_refused("-G 8", "unknown option '-G'");
    expect_refused("--", "unknown option");
    expect_refused("-", "unexpected argument '-'");
    expect_refused("train", "unexpected argument 'train'");
    expect_refused("-g 8 9", "unexpected argument '9'");
    expect_refused("-i a.bin b.bin", "unexpected argument 'b.bin'; options begin with -, and a pattern with *,");
    expect_refused("-o --quiet", "--out needs a value, and '--quiet' looks like another option; if it is the value, write --out=--quiet");
    expect_refused("--lr --steps=3", "--lr needs a value");
    static const char *const given[] = {"--out=--quiet", "-o--quiet", "-o=--quiet"};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        Options o;
        if (!parse(&train_options, &o, given[i])) fail_msg("'%s' was refused: %s", given[i], said);
        assert_string_equal(o.out, "--quiet");
        options_release(&train_options, &o);
    }
    expect_refused("--a-name-so-long-that-it-is-cut-off-at-the-sixty-third-character=of-the-buffer", "unknown option '--a-name-so-long");
    expect_refused("--steps", "--steps needs a value");
    expect_refused("-x", "--steps needs a value");
    /* A prefix is not the option. */
    expect_refused("--grad 8", "unknown option '--grad'");
    assert_false(options_set(&train_options, &(Options){0}, "grad-acum", "8", FROM_FILE, error));
    assert_non_null(strstr(error, "the nearest is --grad-accum"));
}

static void test_refused_values(void **state) {
    (void)state;
    static const char *const words[] = {"nan", "-nan", "NAN", "inf", "-inf", "infinity", "1e", "1e+", "e5", ".", "-", "1.5x", "1 ", "1e400",
        "0x", "--lr", "ten"};
    Options o;
    options_defaults(&o);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int whole = 0; whole < 2; whole++) {
            const char *name = whole ? "n_layer" : "lr";
            if (options_set(&train_options, &o, name, words[i], FROM_COMMAND_LINE, error)) fail_msg("%s accepts '%s'", name, words[i]);
            assert_non_null(strstr(error, words[i]));
            assert_non_null(strstr(error, whole ? "--n-layer is" : "--lr is"));
        }
    static const char *const not_whole[] = {"", "1.0", "1e3", "0x10", "1,000", "99999999999999999999", "-99999999999999999999"};
    for (size_t i = 0; i < sizeof not_whole / sizeof *not_whole; i++)
        if (options_set(&train_options, &o, "steps", not_whole[i], FROM_COMMAND_LINE, error)) fail_msg("steps accepts '%s'", not_whole[i]);
    assert_false(options_set(&train_options, &o, "lr", "", FROM_COMMAND_LINE, error));
    static const char *const not_choices[] = {"", "rop", "ropes", "Rope", "learned|rope", "|", "0", "1"};
    for (size_t i = 0; i < sizeof not_choices / sizeof *not_choices; i++) {
        if (options_set(&train_options, &o, "pos", not_choices[i], FROM_COMMAND_LINE, error)) fail_msg("pos accepts '%s'", not_choices[i]);
        assert_non_null(strstr(error, "learned|rope|none"));
    }
    /* Nothing of all that was stored. */
    assert_true(o.lr == 3e-3);
    assert_int_equal(o.n_layer, 6);
    assert_int_equal(o.steps, 600);
    assert_int_equal(o.pos, 1);
    assert_int_equal(o.from.lr, FROM_DEFAULT);
    options_release(&train_options, &o);
    expect_refused("--lr -1", "--lr is '-1'; expected a number from 0 to 1000");
    expect_refused("--lr=", "--lr is ''");
}

/* Both ends of every range are accepted, what lies beyond is not, and the message shows the ends exactly. */
static void check_ranges(const OptionTable *table, void *values) {
    for (int i = 0; i < table->count; i++) {
        const OptionRow *row = &table->rows[i];
        if (row->kind != OPTION_REAL && row->kind != OPTION_INT) continue;
        for (int most = 0; most < 2; most++) {
            double end = most ? row->most : row->least, beyond = most ? nextafter(end, INFINITY) : nextafter(end, -INFINITY), low, high;
            char text[64];
            if (row->kind == OPTION_INT) beyond = most ? end + 1 : end - 1;
            snprintf(text, sizeof text, "%.17g", end);
            if (row->kind == OPTION_INT) snprintf(text, sizeof text, "%.0f", end);
            if (!options_set(table, values, row->name, text, FROM_COMMAND_LINE, error)) fail_msg("%s=%s: %s", row->name, text, error);
            snprintf(text, sizeof text, row->kind == OPTION_INT ? "%.0f" : "%.17g", beyond);
            if (options_set(table, values, row->name, text, FROM_COMMAND_LINE, error)) fail_msg("%s=%s is accepted", row->name, text);
            const char *range = strstr(error, "number from ");
            assert_non_null(range);
            assert_int_equal(sscanf(range, "number from %lf to %lf", &low, &high), 2);
            if (low != row->least || high != row->most)
                fail_msg("%s: \"%s\", but the range is %.17g to %.17g", row->name, error, row->least, row->most);
        }
    }
}

static void test_ranges(void **state) {
    (void)state;
    Options o;
    SampleOptions s;
    options_set_defaults(&train_options, &o);
    options_set_defaults(&sample_options, &s);
    check_ranges(&train_options, &o);
    check_ranges(&sample_options, &s);
    options_release(&train_options, &o);
    options_release(&sample_options, &s);
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static bool read_text(Options *o, const char *text) {
    options_defaults(o);
    return options_parse_text(o, text, strlen(text), "run.conf", error);
}

static void test_file(void **state) {
    (void)state;
    Options o;
    static const char text[] = "# a run\r\n"
                               "\r\n"
                               "lr = 1e-4   # peak\r\n"
                               "  n-layer=3\r\n"
                               "\tn_head\t=\t2\t\n"
                               "#steps = 7\n"
                               "   # steps = 7\n"
                               "pos=none\n"
                               "bias = no\n"
                               "out = a directory = with blanks  \n"
                               "model =\n"
                               "lr = 2e-4";
    assert_true(read_text(&o, text));
    assert_true(o.lr == 2e-4);
    assert_int_equal(o.n_layer, 3);
    assert_int_equal(o.n_head, 2);
    assert_int_equal(o.steps, 600);
    assert_int_equal(o.pos, 2);
    assert_int_equal(o.bias, 0);
    assert_string_equal(o.out, "a directory = with blanks");
    assert_string_equal(o.model, "");
    assert_int_equal(o.from.lr, FROM_FILE);
    options_release(&train_options, &o);
    assert_true(read_text(&o, ""));
    options_release(&train_options, &o);
    assert_true(read_text(&o, "\n\n#"));
    options_release(&train_options, &o);
}

/* A # within a word or within quotes is a character like others; quotes around a value are not part of it. */
static void test_values_in_a_file(void **state) {
    (void)state;
    static const struct { const char *text, *value; } cases[] = {
        {"sample_prompt = hi# there", "hi# there"}, {"sample_prompt = hi # there", "hi"}, {"sample_prompt = hi\t# there", "hi"},
        {"sample_prompt = \"hi # there\"", "hi # there"}, {"sample_prompt = ' hi # there '  # said\r\n", " hi # there "},
        {"sample_prompt=\"it's\"#x", "it's"}, {"sample_prompt = it's \"so\"", "it's \"so\""}, {"sample_prompt = ''", ""},
        {"sample_prompt = # nothing", ""}, {"sample_prompt =# nothing", ""}, {"\xEF\xBB\xBFsample_prompt = a", "a"},
        {"\xEF\xBB\xBF# a mark\nsample-prompt = a = b", "a = b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Options o;
        if (!read_text(&o, cases[i].text)) fail_msg("%s: %s", cases[i].text, error);
        assert_string_equal(o.sample_prompt, cases[i].value);
        options_release(&train_options, &o);
    }
}

static void test_file_mistakes(void **state) {
    (void)state;
    static const struct { const char *text, *cause; } mistakes[] = {
        {"lr = 1e-4\n\n# x\nlr = fast\n", "run.conf, line 4: --lr is 'fast'"},
        {"lr = 1e-4\r\ngrad-acum = 8\r\n", "run.conf, line 2: unknown option 'grad-acum'; the nearest is --grad-accum"},
        {"lr\n", "run.conf, line 1: 'lr' has no '='"},
        {"\n\nn_layer 4", "run.conf, line 3: 'n_layer 4' has no '='"},
        {"= 4\n", "run.conf, line 1: unknown option ''"},
        {"steps =\n", "run.conf, line 1: --steps is ''"},
        {"steps = 10 20\n", "run.conf, line 1: --steps is '10 20'"},
        {"--steps = 10\n", "run.conf, line 1: unknown option '--steps'"},
        {"out = \"a\n", "run.conf, line 1: out has a value that begins with a quote"},
        {"out = 'a' b\n", "run.conf, line 1: out has a value that begins with a quote"},
        {"out = '\n", "run.conf, line 1: out has a value that begins with a quote"},
        {"config = more.conf\n", "run.conf, line 1: a file of options names no other"},
        {"no-tie = 1\n", "run.conf, line 1: 'no-tie' is for the command line; in a file write tie = 0"},
        {"no_qkv_bias = 1\n", "in a file write qkv-bias = 0"},
        {"lr = 1\n\xEF\xBB\xBFlr = 2\n", "run.conf, line 2: unknown option"},
        {"n layer = 10\n", "run.conf, line 1: unknown option 'n layer'; the nearest is --n-layer"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        Options o;
        if (read_text(&o, mistakes[i].text)) fail_msg("accepted: %s", mistakes[i].text);
        if (!strstr(error, mistakes[i].cause)) fail_msg("\"%s\" does not say \"%s\"", error, mistakes[i].cause);
        options_release(&train_options, &o);
    }
    Options o;
    options_defaults(&o);
    assert_false(options_parse_text(&o, "lr=1\0\n", 6, "run.conf", error));
    assert_non_null(strstr(error, "not a text file"));
    options_release(&train_options, &o);
}

/* A value from a stronger source stays, whichever comes first; among equals the later one wins. */
static void test_sources(void **state) {
    (void)state;
    static const char *const values[] = {"1", "2", "3", "4", "5"};
    for (OptionSource first = FROM_DEFAULT; first <= FROM_COMMAND_LINE; first++)
        for (OptionSource second = FROM_DEFAULT; second <= FROM_COMMAND_LINE; second++) {
            Options o;
            options_defaults(&o);
            assert_true(options_set(&train_options, &o, "batch", values[first], first, error));
            assert_true(options_set(&train_options, &o, "batch", "9", second, error));
            assert_true(options_set(&train_options, &o, "out", values[first], first, error));
            assert_true(options_set(&train_options, &o, "out", "9", second, error));
            assert_int_equal(o.batch, second >= first ? 9 : first + 1);
            assert_string_equal(o.out, second >= first ? "9" : values[first]);
            assert_int_equal(o.from.batch, second >= first ? second : first);
            options_release(&train_options, &o);
        }
}

static void test_command_line_wins_over_file(void **state) {
    (void)state;
    char path[] = P_tmpdir "/options_testXXXXXX", words[128];
    int descriptor = mkstemp(path);
    static const char text[] = "lr = 0.5\nsteps = 7\n";
    assert_int_equal(write(descriptor, text, sizeof text - 1), sizeof text - 1);
    close(descriptor);
    for (int order = 0; order < 2; order++) {
        snprintf(words, sizeof words, order ? "--lr 0.25 --config %s" : "--config=%s --lr 0.25", path);
        Options o = parsed(words);
        assert_true(o.lr == 0.25);
        assert_int_equal(o.steps, 7);
    }
    FILE *file = fopen(path, "a");
    fputs("step = 7\n", file);
    fclose(file);
    snprintf(words, sizeof words, "--config %s", path);
    expect_refused(words, "line 3: unknown option 'step'");
    unlink(path);
    expect_refused(words, "cannot open");
    expect_refused("--config " P_tmpdir, P_tmpdir);
}

/* ---- text and back ---------------------------------------------------------------------------------------------------------- */

static double real_value(const OptionRow *row, const void *values) {
    double value;
    memcpy(&value, (const char *)values + row->value, sizeof value);
    return value;
}

static int64_t integer_value(const OptionRow *row, const void *values) {
    int64_t value;
    memcpy(&value, (const char *)values + row->value, sizeof value);
    return value;
}

/* Sets the row from text, formats it, sets another struct from that, and compares. */
static void check_round_trip(const OptionTable *table, const OptionRow *row, const char *text, void *a, void *b) {
    if (!options_set(table, a, row->name, text, FROM_COMMAND_LINE, error)) fail_msg("%s", error);
    char *formatted = options_format(row, a);
    if (!options_set(table, b, row->name, formatted, FROM_COMMAND_LINE, error)) fail_msg("%s", error);
    bool same = row->kind == OPTION_REAL ? real_value(row, a) == real_value(row, b)
              : row->kind == OPTION_TEXT ? strcmp(*(char **)((char *)a + row->value), *(char **)((char *)b + row->value)) == 0
                                         : integer_value(row, a) == integer_value(row, b);
    if (!same) fail_msg("%s=%s comes back from '%s' as another value", row->name, text, formatted);
    free(formatted);
}

static void check_row(const OptionTable *table, const OptionRow *row, void *a, void *b) {
    static const double odd[] = {0, 0.1, 1.0 / 3, 2.0 / 3, 3e-4, 1e-5, 0.95, 123456789.123456789, 1e12, 5e-324, DBL_MIN, 0.1 + 0.2,
        9007199254740993.0};
    static const char *const texts[] = {"", "a", "with blanks ", "quo\"tes \\ and = # signs", "line\nbreak", "\xC3\xA9t\xC3\xA9"};
    char text[64];
    if (row->kind == OPTION_TEXT)
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) check_round_trip(table, row, texts[i], a, b);
    if (row->kind == OPTION_FLAG) check_round_trip(table, row, "0", a, b), check_round_trip(table, row, "1", a, b);
    if (row->kind == OPTION_CHOICE)
        for (const char *word = row->choices; *word; word += strcspn(word, "|"), word += *word == '|') {
            snprintf(text, sizeof text, "%.*s", (int)strcspn(word, "|"), word);
            check_round_trip(table, row, text, a, b);
            char *formatted = options_format(row, a);
            assert_string_equal(formatted, text);
            free(formatted);
        }
    if (row->kind != OPTION_REAL && row->kind != OPTION_INT) return;
    bool real = row->kind == OPTION_REAL;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        double values[] = {odd[i], row->least, row->most, row->least + (row->most - row->least) / 3, nextafter(row->most, 0),
            nextafter(odd[i], INFINITY)};
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            double value = real ? values[k] : floor(values[k]);
            if (!(value >= row->least && value <= row->most)) continue;
            snprintf(text, sizeof text, real ? "%.17g" : "%.0f", value);
            check_round_trip(table, row, text, a, b);
            if (real && real_value(row, a) != value) fail_msg("%s=%s is read as %.17g", row->name, text, real_value(row, a));
        }
    }
}

static void check_table_round_trip(const OptionTable *table, void *a, void *b) {
    options_set_defaults(table, a);
    options_set_defaults(table, b);
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].kind != OPTION_SECTION) check_row(table, &table->rows[i], a, b);
    options_release(table, a);
    options_release(table, b);
}

static void test_round_trip(void **state) {
    (void)state;
    Options a, b;
    SampleOptions c, d;
    check_table_round_trip(&train_options, &a, &b);
    check_table_round_trip(&sample_options, &c, &d);
}

static void test_format_is_short(void **state) {
    (void)state;
    Options o;
    options_defaults(&o);
    static const struct { const char *name, *text; } expected[] = {
        {"lr", "0.003"}, {"rope_base", "10000"}, {"eps", "1e-08"}, {"grad_accum", "8"}, {"tie", "1"}, {"schedule", "cosine"},
        {"out", "out"}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char *text = options_format(row_named(&train_options, expected[i].name), &o);
        assert_string_equal(text, expected[i].text);
        free(text);
    }
    options_release(&train_options, &o);
}

/* ---- help ------------------------------------------------------------------------------------------------------------------- */

static void check_help(const OptionTable *table, void *values, char *argument) {
    static char text[65536];
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        char *argv[] = {"program", "--unknown", argument, NULL};   /* --help wins over a mistake */
        options_parse(table, values, 3, argv);
        _exit(99);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(ends[0], text + used, sizeof text - 1 - used)) > 0;) used += (size_t)n;
    text[used] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < table->count; i++) {
        const OptionRow *row = &table->rows[i];
        char spelled[64] = "--";
        for (size_t k = 0; row->kind != OPTION_SECTION && k <= strlen(row->name); k++)
            spelled[2 + k] = row->name[k] == '_' ? row->name[k + 1] ? '-' : 0 : row->name[k];
        if (row->kind != OPTION_SECTION && !strstr(text, spelled)) fail_msg("--help lacks %s", spelled);
        if (!strstr(text, row->kind == OPTION_SECTION ? row->name : row->help)) fail_msg("--help lacks the text of %s", row->name);
    }
}

static void test_help(void **state) {
    (void)state;
    Options o;
    SampleOptions s;
    check_help(&train_options, &o, "--help");
    check_help(&sample_options, &s, "-h");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables), cmocka_unit_test(test_defaults), cmocka_unit_test(test_spellings), cmocka_unit_test(test_flags),
        cmocka_unit_test(test_unknown), cmocka_unit_test(test_refused_values), cmocka_unit_test(test_ranges), cmocka_unit_test(test_file),
        cmocka_unit_test(test_values_in_a_file), cmocka_unit_test(test_file_mistakes), cmocka_unit_test(test_sources),
        cmocka_unit_test(test_command_line_wins_over_file),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_format_is_short), cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
