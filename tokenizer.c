/* tokenizer.c: main() of the tokenizer: makes a character vocabulary and token shards of a text, encodes, and decodes. */
#define _GNU_SOURCE   /* open_memstream */
#include "llmc/dataloader.h"
#include "llmc/error.h"
#include "llmc/json.h"
#include "llmc/tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: tokenizer chars --input FILE --out DIR    token shards of a text, its characters the tokens\n"
    "       tokenizer encode --vocab DIR              text on standard input to token numbers on standard output\n"
    "       tokenizer decode --vocab DIR              and back\n"
    "\n"
    "chars writes DIR/train.bin, DIR/val.bin, DIR/characters.json and, last, DIR/dataset.json:\n"
    "  --input FILE         UTF-8 text\n"
    "  --out DIR            made if missing\n"
    "  --val-fraction F     share of the text, at its end, that becomes val.bin (default 0.1)\n"
    "  --source TEXT        where the text came from, for dataset.json (default: FILE)\n"
    "  --sha256 HEX         of the text, for dataset.json (default: left out)\n"
    "encode turns every character into a token, the newline at the end too (printf avoids it).\n";

/* ---- Options ---- */

typedef struct {
    const char *input, *out, *val_fraction, *source, *sha256, *vocab;
} Arguments;

/* `--name value` or `--name=value` into the field; true if argument number *i was that option. */
static bool take(const char *name, const char **value, int argc, char **argv, int *i) {
    size_t length = strlen(name);
    if (strncmp(argv[*i], name, length) != 0) return false;
    if (argv[*i][length] == '=') *value = argv[*i] + length + 1;
    else if (argv[*i][length]) return false;
    else if (*i + 1 >= argc) die("%s needs a value; see tokenizer --help", name);
    else *value = argv[++*i];
    return true;
}

static Arguments parse(int argc, char **argv, bool chars) {
    Arguments a = { 0 };
    for (int i = 2; i < argc; i++) {
        bool known = chars ? take("--input", &a.input, argc, argv, &i) || take("--out", &a.out, argc, argv, &i) ||
                                 take("--val-fraction", &a.val_fraction, argc, argv, &i) ||
                                 take("--source", &a.source, argc, argv, &i) || take("--sha256", &a.sha256, argc, argv, &i)
                           : take("--vocab", &a.vocab, argc, argv, &i);
        if (!known) die("the command %s has no option '%s'; see tokenizer --help", argv[1], argv[i]);
    }
    return a;
}

static double parse_fraction(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0 && value < 1)) die("--val-fraction must be a number between 0 and 1, not '%s'", text);
    return value;
}

static void check_sha256(const char *text) {
    if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64) die("--sha256 must be 64 digits of 0-9 and a-f, not '%s'", text);
}

/* ---- chars ---- */

typedef struct {
    int64_t vocab_size, train, val;
} Counts;

static char *describe(const Arguments *a, Counts counts, size_t *length) {
    char *text = NULL;
    FILE *memory = open_memstream(&text, length);
    CHECK(memory);
    fprintf(memory, "{\"vocab_size\": %" PRId64 ", \"tokenizer\": \"characters\", \"source\": ", counts.vocab_size);
    json_write_string(memory, a->source ? a->source : a->input);
    if (a->sha256) fprintf(memory, ", \"sha256\": \"%s\"", a->sha256);
    fprintf(memory, ", \"tokens\": {\"train\": %" PRId64 ", \"val\": %" PRId64 "}}\n", counts.train, counts.val);
    CHECK(fclose(memory) == 0);
    return text;
}

static bool write_description(const char *path, const Arguments *a, Counts counts, char error[ERROR_SIZE]) {
    size_t length = 0;
    char *text = describe(a, counts, &length);
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    free(text);
    return file_close(file, NULL, error);
}

/* dataset.json goes first and comes last, so that a set which an interruption left half old and half new is not taken for whole. */
static void write_dataset(const Arguments *a, const Tokenizer *tokenizer, const int32_t *tokens, Counts counts) {
    char error[ERROR_SIZE];
    if (!directory_create(a->out, error)) die("%s", error);
    char *description = path_join(a->out, "dataset.json"), *train = path_join(a->out, "train.bin"), *val = path_join(a->out, "val.bin");
    if (unlink(description) != 0 && errno != ENOENT) die("cannot replace '%s': %s", description, strerror(errno));
    bool good = shard_write(train, tokens, counts.train, counts.vocab_size, error) &&
                shard_write(val, tokens + counts.train, counts.val, counts.vocab_size, error) && tokenizer_save(tokenizer, a->out, error) &&
                write_description(description, a, counts, error);
    if (!good) die("%s", error);
    free(description);
    free(train);
    free(val);
}

static int command_chars(int argc, char **argv) {
    Arguments a = parse(argc, argv, true);
    char error[ERROR_SIZE];
    FileMap text;
    if (!a.input || !a.out) die("the command chars needs --input FILE and --out DIR");
    double val_fraction = parse_fraction(a.val_fraction ? a.val_fraction : "0.1");
    if (a.sha256) check_sha256(a.sha256);
    if (!file_map(&text, a.input, error)) die("%s", error);
    Tokenizer *tokenizer = tokenizer_of_characters((const char *)text.data, text.size, error);
    if (!tokenizer) die("'%s': %s", a.input, error);
    int64_t count;
    int32_t *tokens = tokenizer_encode(tokenizer, (const char *)text.data, text.size, &count, error);
    CHECK(tokens);
    Counts counts = { tokenizer_vocab_size(tokenizer), (int64_t)(count * (1 - val_fraction)), 0 };
    counts.val = count - counts.train;
    if (counts.train < 2 || counts.val < 2 || counts.train > INT32_MAX || counts.val > INT32_MAX)
        die("'%s' is too %s: of its %" PRId64 " characters %" PRId64 " are for training and %" PRId64 " for validation, where 2 to %d "
            "are possible", a.input, count < INT32_MAX ? "short" : "long", count, counts.train, counts.val, INT32_MAX);
    write_dataset(&a, tokenizer, tokens, counts);
    printf("%" PRId64 " characters, %" PRId64 " distinct: %" PRId64 " for training, %" PRId64 " for validation\n", count,
           counts.vocab_size, counts.train, counts.val);
    free(tokens);
    tokenizer_free(tokenizer);
    file_unmap(&text);
    return 0;
}

/* ---- encode and decode ---- */

static Tokenizer *open_vocabulary(int argc, char **argv) {
    Arguments a = parse(argc, argv, false);
    char error[ERROR_SIZE];
    if (!a.vocab) die("the command %s needs --vocab DIR, the directory of characters.json", argv[1]);
    Tokenizer *tokenizer = tokenizer_open(a.vocab, error);
    if (!tokenizer) die("%s", error);
    return tokenizer;
}

/* All of standard input, NUL-terminated. */
static char *read_input(size_t *length) {
    enum { PIECE = 1 << 16 };
    char *text = NULL;
    size_t n;
    *length = 0;
    do {
        text = xrealloc(text, *length + PIECE + 1);
        n = fread(text + *length, 1, PIECE, stdin);
        *length += n;
    } while (n > 0);
    if (ferror(stdin)) die("cannot read standard input: %s", strerror(errno));
    text[*length] = 0;
    return text;
}

static int finish_output(void) {
    if (fflush(stdout) != 0 || ferror(stdout)) die("cannot write standard output: %s", strerror(errno));
    return 0;
}

static int command_encode(int argc, char **argv) {
    Tokenizer *tokenizer = open_vocabulary(argc, argv);
    size_t length;
    int64_t count;
    char error[ERROR_SIZE], *text = read_input(&length);
    int32_t *tokens = tokenizer_encode(tokenizer, text, length, &count, error);
    if (!tokens) die("standard input: %s", error);
    for (int64_t i = 0; i < count; i++) printf(i ? " %d" : "%d", tokens[i]);
    putchar('\n');
    free(tokens);
    free(text);
    tokenizer_free(tokenizer);
    return finish_output();
}

static int command_decode(int argc, char **argv) {
    Tokenizer *tokenizer = open_vocabulary(argc, argv);
    size_t length;
    char *text = read_input(&length), *save = NULL;
    if (strlen(text) != length) die("the input holds NUL bytes, where token numbers are needed");
    for (char *word = strtok_r(text, " \t\r\n", &save); word; word = strtok_r(NULL, " \t\r\n", &save)) {
        char *end;
        errno = 0;
        long token = strtol(word, &end, 10);
        const char *bytes = *end || errno || token != (int32_t)token ? NULL : tokenizer_token(tokenizer, (int32_t)token, &length);
        if (!bytes) die("'%s' is no token number from 0 to %" PRId64, word, tokenizer_vocab_size(tokenizer) - 1);
        fwrite(bytes, 1, length, stdout);
    }
    free(text);
    tokenizer_free(tokenizer);
    return finish_output();
}

int main(int argc, char **argv) {
    error_program_name(argv[0]);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return fputs(usage, stdout) < 0;
    if (argc < 2) die("a command is missing: chars, encode or decode; see tokenizer --help");
    if (strcmp(argv[1], "chars") == 0) return command_chars(argc, argv);
    if (strcmp(argv[1], "encode") == 0) return command_encode(argc, argv);
    if (strcmp(argv[1], "decode") == 0) return command_decode(argc, argv);
    die("there is no command '%s'; there are chars, encode and decode", argv[1]);
}
