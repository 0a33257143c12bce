/* tokenizer_train_test.c: the command `tokenizer train`: what it writes, what it refuses, and what an interruption leaves. */
#include "tokenizer_train.h"
#include "directory_test.h"
#include "bpe.h"
#include "error.h"
#include "pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Every test writes into a directory of its own, by relative names. */
static int enter_directory(void **state) { return make_directory(state) == 0 && chdir(directory) == 0 ? 0 : -1; }

static void write_text(const char *path, const char *text, size_t length) {
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    assert_true(file_close(file, NULL, error));
}

/* ---- Running the command in a process of its own; its words go to the files `said` and `complained` ---- */

static void leave_child(int status) {
    fflush(NULL);
    _exit(status);
}

static pid_t start(char **argv) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    if (!freopen("said", "w", stdout) || !freopen("complained", "w", stderr)) _exit(99);
    error_exit_hook(leave_child);
    int argc = 0;
    while (argv[argc]) argc++;
    leave_child(tokenizer_train_command(argc, argv));
    return 0;
}

#define COMMAND(...) ((char *[]){ "tokenizer", "train", __VA_ARGS__, NULL })

static int run(char **argv) {
    int status;
    assert_int_equal(waitpid(start(argv), &status, 0) > 0, 1);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_words(const char *file, const char *phrase) {
    char *text = file_read_text(file, 1 << 16, NULL, error);
    assert_non_null(text);
    if (!strstr(text, phrase)) fail_msg("%s: '%s' does not hold '%s'", file, text, phrase);
    free(text);
}

/* One sentence, and no directory left behind. */
static void expect_refusal(const char *phrase, char **argv) {
    assert_int_equal(run(argv), 1);
    expect_words("complained", phrase);
    char *text = file_read_text("complained", 1 << 16, NULL, error);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    free(text);
    assert_false(path_exists("out"));
}

static int entries(const char *path) {
    DIR *listing = opendir(path);
    int count = 0;
    for (struct dirent *entry; listing && (entry = readdir(listing));) count += entry->d_name[0] != '.';
    if (listing) closedir(listing);
    return count;
}

/* ---- Tests ---- */

static const char text[] = "low low low low low lower lower<|end|>widest widest widest newest newest newest newest newest newest";

static void test_vocabulary(void **state) {
    (void)state;
    size_t length;
    write_text("text", text, sizeof text - 1);
    assert_int_equal(run(COMMAND("--input", "text", "--vocab-size=260", "--special", "<|end|>", "--special", "<|pad|>", "--out", "made/out",
                                 "--threads", "3")), 0);
    expect_words("said", "counted 0.0 MB");
    expect_words("said", "merged 2 pairs");
    expect_words("said", "made/out: 260 tokens");
    expect_words("said", "the longest token has 3 bytes: 'est'");
    assert_int_equal(entries("made/out"), 3);
    Bpe *bpe = bpe_open("made/out", error);
    if (!bpe) fail_msg("%s", error);
    assert_int_equal(bpe_vocab_size(bpe), 260);
    assert_memory_equal(bpe_token(bpe, 256, &length), "st", 2);
    assert_memory_equal(bpe_token(bpe, 257, &length), "est", 3);
    assert_int_equal(bpe_special(bpe, "<|end|>"), 258);
    assert_int_equal(bpe_special(bpe, "<|pad|>"), 259);
    bpe_free(bpe);
}

static void test_bytes_alone(void **state) {
    (void)state;
    assert_int_equal(run(COMMAND("--vocab-size", "256", "--out", "bytes", "--input", "text", "text")), 0);
    expect_words("said", "merged 0 pairs");
    expect_words("said", "bytes: 256 tokens");
}

static void test_fewer_merges(void **state) {
    (void)state;
    write_text("short", "ab ab", 5);
    assert_int_equal(run(COMMAND("--input", "short", "--vocab-size", "1000", "--special", "<|end|>", "--out", "few")), 0);
    expect_words("complained", "after 2 merges no pair is left; the vocabulary has 259");
    Bpe *bpe = bpe_open("few", error);
    assert_non_null(bpe);
    assert_int_equal(bpe_vocab_size(bpe), 259);
    bpe_free(bpe);
}

static bool has_token(const Bpe *bpe, const char *bytes) {
    size_t length;
    for (int32_t token = 0; token < bpe_vocab_size(bpe); token++) {
        const char *found = bpe_token(bpe, token, &length);
        if (found && length == strlen(bytes) && memcmp(found, bytes, length) == 0) return true;
    }
    return false;
}

/* What can become a token, and what the written vocabulary makes of the text, follows from the pre-tokens. */
static void test_pretokenizers(void **state) {
    (void)state;
    static const struct { char *name; bool joins_mark, joins_digits, composes; } kinds[] = {
        { "gpt2", false, true, false }, { "llama3", true, true, false }, { "qwen2", true, false, true }, { "smollm", false, false, false } };
    static const char lines[] = "(ab(12(e\u0301(ab(12(e\u0301";
    write_text("lines", lines, sizeof lines - 1);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int status = run(COMMAND("--input", "lines", "--vocab-size", "1000", "--pretokenizer", kinds[k].name, "--out", kinds[k].name));
        if (status != 0 && kinds[k].composes) {
            expect_words("complained", "utf8proc was missing");
            continue;
        }
        assert_int_equal(status, 0);
        Bpe *bpe = bpe_open(kinds[k].name, error);
        BpeEncoder *encoder = bpe_encoder_open(bpe, error);
        TokenBuffer tokens = { 0 };
        assert_non_null(encoder);
        assert_int_equal(has_token(bpe, "(ab"), kinds[k].joins_mark);
        assert_int_equal(has_token(bpe, "12"), kinds[k].joins_digits);
        assert_int_equal(has_token(bpe, "\u00e9") || has_token(bpe, "(\u00e9"), kinds[k].composes);
        bpe_encode(encoder, "(ab12", 5, false, &tokens);
        assert_int_equal(tokens.count, 4 - kinds[k].joins_mark - kinds[k].joins_digits);
        token_buffer_free(&tokens);
        bpe_encoder_close(encoder);
        bpe_free(bpe);
    }
}

static void test_refusals(void **state) {
    (void)state;
    write_text("empty", "", 0);
    expect_refusal("needs --input FILES, --vocab-size N and --out DIR", COMMAND("--input", "text", "--out", "out"));
    expect_refusal("no option '--inputs'", COMMAND("--inputs", "text"));
    expect_refusal("--out needs a value", COMMAND("--input", "text", "--out"));
    expect_refusal("--vocab-size is 'many'; expected a whole number", COMMAND("--input", "text", "--vocab-size", "many", "--out", "out"));
    expect_refusal("--vocab-size is '99999999'", COMMAND("--input", "text", "--vocab-size", "99999999", "--out", "out"));
    expect_refusal("--vocab-size 255 is too small: 256 bytes and 0", COMMAND("--input", "text", "--vocab-size", "255", "--out", "out"));
    expect_refusal("256 bytes and 2 special tokens need 258",
                   COMMAND("--input", "text", "--vocab-size", "257", "--special", "<|a|>", "--special=<|b|>", "--out", "out"));
    expect_refusal("--threads is '0'", COMMAND("--input", "text", "--vocab-size", "300", "--threads", "0", "--out", "out"));
    expect_refusal("not standard input", COMMAND("--input", "text", "-", "--vocab-size", "300", "--out", "out"));
    expect_refusal("cannot open 'missing': No such file", COMMAND("--input", "text", "missing", "--vocab-size", "300", "--out", "out"));
    expect_refusal("holds no text", COMMAND("--input", "empty", "--vocab-size", "300", "--out", "out"));
    expect_refusal("special token is empty", COMMAND("--input", "text", "--vocab-size", "300", "--special", "", "--out", "out"));
    expect_refusal("not UTF-8", COMMAND("--input", "text", "--vocab-size", "300", "--special", "\xff", "--out", "out"));
    expect_refusal("'<|a|>' is given twice",
                   COMMAND("--input", "text", "--vocab-size", "300", "--special", "<|a|>", "--special", "<|a|>", "--out", "out"));
    expect_refusal("would be in the files", COMMAND("--input", "text", "--vocab-size", "300", "--special", "\u0120\u0120", "--out", "out"));
    assert_true(directory_create("set", error));
    write_text("set/dataset.json", "{}", 2);
    expect_refusal("'set' holds dataset.json", COMMAND("--input", "missing", "--vocab-size", "300", "--out", "set"));
    assert_int_equal(rename("set/dataset.json", "set/characters.json"), 0);
    expect_refusal("'set' holds characters.json", COMMAND("--input", "text", "--vocab-size", "300", "--out", "set"));
    assert_int_equal(entries("set"), 1);
    expect_refusal("cannot create the directory 'text'", COMMAND("--input", "text", "--vocab-size", "300", "--out", "text"));
}

/* Interrupted at any moment, also while it writes: all of the files are there, or none, and no part of one. */
static void test_interruption(void **state) {
    (void)state;
    enum { LENGTH = 2000000, TRIES = 30, MOST_TRIES = 300 };
    char *letters = malloc(LENGTH);
    uint32_t random = 1;
    for (size_t i = 0; i < LENGTH; i++) letters[i] = "etaoin shrdlu "[(random = random * 1664525 + 1013904223) % 4294967291u % 14];
    write_text("large", letters, LENGTH);
    free(letters);
    int whole = 0, none = 0;
    for (int i = 0; i < TRIES || (i < MOST_TRIES && (!whole || !none)); i++) {   /* a busy machine may need more to see both */
        int status;
        pid_t child = start(COMMAND("--input", "large", "--vocab-size", "20000", "--out", "interrupted"));
        usleep((useconds_t)(i % TRIES) * 1000);
        bool until_it_writes = i % 3 == 0;
        while (until_it_writes && entries("interrupted") == 0 && waitpid(child, &status, WNOHANG) == 0) usleep(100);
        kill(child, SIGINT);
        waitpid(child, &status, 0);
        int count = entries("interrupted");
        if (count != 0 && count != 3) fail_msg("after an interruption there are %d files", count);
        whole += count == 3;
        none += count == 0;
        assert_true(directory_remove("interrupted", error));
    }
    assert_true(whole > 0 && none > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary), cmocka_unit_test(test_bytes_alone),  cmocka_unit_test(test_fewer_merges),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_interruption), cmocka_unit_test(test_pretokenizers),
    };
    Pretokenizer *pretokenizer = pretokenizer_open(PRETOKENS_GPT2, error);
    if (!pretokenizer) {
        print_message("skipped: %s\n", error);
        return 0;
    }
    pretokenizer_close(pretokenizer);
    signal(SIGINT, SIG_DFL);   /* programs in the background of a shell ignore it, and so would their children */
    return cmocka_run_group_tests(tests, enter_directory, remove_directory);
}
