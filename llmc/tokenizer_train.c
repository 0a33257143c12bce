/* tokenizer_train.c: see tokenizer_train.h. */
#include "tokenizer_train.h"
#include "arguments.h"
#include "bpe.h"
#include "bpe_train.h"
#include "error.h"
#include "machine.h"
#include "utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BYTES = 256, MOST_TOKENS = 1 << 21 };

typedef struct {
    const char **files, **specials;
    int64_t file_count, special_count, vocab_size;
    const char *out, *pretokenizer;
    Pretokenization pretokenization;
    int64_t threads;
} Arguments;

/* ---- Options ---- */

static Arguments parse(int argc, char **argv) {
    Arguments a = { .threads = processors(), .pretokenizer = "gpt2" };
    a.files = xcalloc((size_t)argc, sizeof *a.files);
    a.specials = xcalloc((size_t)argc, sizeof *a.specials);
    for (ArgumentList list = { argc, argv, 2 }; list.at < argc; list.at++) {
        bool known = argument_texts(&list, "--input", a.files, &a.file_count) ||
                     argument_texts(&list, "--special", a.specials, &a.special_count) ||
                     argument_whole(&list, "--vocab-size", &a.vocab_size, 1, MOST_TOKENS) || argument_text(&list, "--out", &a.out) ||
                     argument_text(&list, "--pretokenizer", &a.pretokenizer) ||
                     argument_whole(&list, "--threads", &a.threads, 1, MOST_THREADS);
        if (!known) die("the command train has no option '%s'; see tokenizer --help", argv[list.at]);
    }
    if (!a.file_count || !a.vocab_size || !a.out) die("the command train needs --input FILES, --vocab-size N and --out DIR");
    for (int64_t i = 0; i < a.file_count; i++)
        if (strcmp(a.files[i], "-") == 0) die("the command train reads files, not standard input; give /dev/stdin or a file to --input");
    if (!pretokenization_named(a.pretokenizer, &a.pretokenization))
        die("--pretokenizer is '%s'; expected gpt2, llama3, qwen2 or smollm", a.pretokenizer);
    if (a.vocab_size < BYTES + a.special_count)
        die("--vocab-size %" PRId64 " is too small: %d bytes and %" PRId64 " special tokens need %" PRId64, a.vocab_size, BYTES,
            a.special_count, BYTES + a.special_count);
    return a;
}

/* ---- Output ---- */

/* At most 40 bytes; what is no UTF-8, or no letter that can be shown, as \xNN. */
static void print_quoted(const char *bytes, size_t length) {
    size_t at = 0, size;
    putchar('\'');
    while (at < length && at < 40) {
        int32_t code = utf8_decode(bytes + at, length - at, &size);
        bool shown = code >= ' ' && code != '\'' && code != '\\' && !(code >= 127 && code <= 0xA0);
        if (shown) fwrite(bytes + at, 1, size, stdout);
        else printf("\\x%02X", (unsigned char)bytes[at]);
        at += shown ? size : 1;
    }
    printf("'%s", at < length ? "..." : "");
}

static void print_longest(const Bpe *bpe, int64_t tokens) {
    const char *longest = NULL;
    size_t length, most = 0;
    for (int32_t token = 0; token < tokens; token++) {
        const char *bytes = bpe_token(bpe, token, &length);
        if (length <= most) continue;
        longest = bytes;
        most = length;
    }
    printf("the longest token has %zu bytes: ", most);
    print_quoted(longest, most);
    putchar('\n');
}

/* An interruption waits until all files are there. */
static bool save(const Bpe *bpe, const char *directory, char error[ERROR_SIZE]) {
    sigset_t interruptions, before;
    sigemptyset(&interruptions);
    sigaddset(&interruptions, SIGINT);
    sigaddset(&interruptions, SIGTERM);
    sigaddset(&interruptions, SIGHUP);
    sigprocmask(SIG_BLOCK, &interruptions, &before);
    bool good = bpe_save(bpe, directory, error);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return good;
}

/* ---- The command ---- */

/* Its tokens and its vocabulary would no longer belong together. */
static void refuse_dataset(const char *directory) {
    static const char *const names[] = { "dataset.json", "characters.json" };
    for (int i = 0; i < 2; i++) {
        char *path = path_join(directory, names[i]);
        if (path_exists(path))
            die("'%s' holds %s of a dataset, whose tokens are of another vocabulary; give another directory to --out", directory, names[i]);
        free(path);
    }
}

/* The directory is made first, so that hours of work are not lost for want of it, and removed again if nothing comes of them. */
static BpeTrainer *open_trainer(const Arguments *a) {
    char error[ERROR_SIZE];
    refuse_dataset(a->out);
    bool made = !path_exists(a->out);
    if (!directory_create(a->out, error)) die("%s", error);
    Corpus corpus = { a->files, a->specials, a->file_count, a->special_count, (int)a->threads, a->pretokenization };
    Bpe *without_merges = bpe_create(NULL, 0, a->specials, a->special_count, error);
    BpeTrainer *trainer = without_merges ? bpe_trainer_open(&corpus, error) : NULL;
    if (!trainer && made) rmdir(a->out);
    if (!trainer) die("%s", error);
    bpe_free(without_merges);
    return trainer;
}

static void report_counted(const BpeTrainer *trainer, int threads, double seconds) {
    BpeTrainerReport r = bpe_trainer_report(trainer);
    printf("counted %.1f MB in %.2f s with %d thread%s: %" PRId64 " pre-tokens, %" PRId64 " distinct\n", (double)r.bytes / 1e6,
           seconds, threads, threads > 1 ? "s" : "", r.pretokens, r.distinct);
    fflush(stdout);
}

static void report_merged(const BpeTrainer *trainer, int64_t made, double seconds) {
    BpeTrainerReport r = bpe_trainer_report(trainer);
    printf("merged %" PRId64 " pairs in %.2f s: %.4f bytes per token of the text\n", made, seconds, (double)r.bytes / (double)r.tokens);
}

int tokenizer_train_command(int argc, char **argv) {
    Arguments a = parse(argc, argv);
    char error[ERROR_SIZE];
    double start = machine_seconds();
    BpeTrainer *trainer = open_trainer(&a);
    double counted = machine_seconds();
    report_counted(trainer, (int)a.threads, counted - start);
    int64_t wanted = a.vocab_size - BYTES - a.special_count, made = bpe_trainer_merge(trainer, wanted);
    report_merged(trainer, made, machine_seconds() - counted);
    if (made < wanted)
        warn("--vocab-size %" PRId64 " is more than the text gives: after %" PRId64 " merges no pair is left; the vocabulary has %" PRId64,
             a.vocab_size, made, BYTES + made + a.special_count);
    const BpeMerge *merges = bpe_trainer_merges(trainer, &made);
    Bpe *bpe = bpe_create(merges, made, a.specials, a.special_count, error);
    if (!bpe) die("%s", error);
    bpe_set_pretokenization(bpe, a.pretokenization);
    if (!save(bpe, a.out, error)) die("%s", error);
    print_longest(bpe, BYTES + made);
    printf("%s: %" PRId64 " tokens; %.2f s in all, peak memory %.1f MiB\n", a.out, bpe_vocab_size(bpe), machine_seconds() - start,
           machine_peak_memory() / (1 << 20));
    bpe_free(bpe);
    bpe_trainer_close(trainer);
    free(a.files);
    free(a.specials);
    if (fflush(stdout) != 0 || ferror(stdout)) die("cannot write standard output: %s", strerror(errno));
    return 0;
}
