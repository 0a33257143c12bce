/* tokenizer.c: main() of the tokenizer: its commands, and the one for characters. */
#define _GNU_SOURCE   /* open_memstream */
#include "llmc/arguments.h"
#include "llmc/dataloader.h"
#include "llmc/error.h"
#include "llmc/json.h"
#include "llmc/tokenizer.h"
#include "llmc/tokenizer_commands.h"
#include "llmc/tokenizer_train.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: tokenizer train --input FILES... --vocab-size N --out DIR    a byte-pair vocabulary of texts\n"
    "       tokenizer shards --vocab DIR --input FILES... --out DIR    token shards of documents\n"
    "       tokenizer chars --input FILE --out DIR    token shards of a text, its characters the tokens\n"
    "       tokenizer stats --vocab DIRS... --input FILES...    vocabularies compared\n"
    "       tokenizer encode --vocab DIR              text on standard input to token numbers on standard output\n"
    "       tokenizer decode --vocab DIR              and back\n"
    "\n"
    "train writes DIR/vocab.json, DIR/merges.txt and DIR/tokenizer.json:\n"
    "  --input FILES...     texts; any bytes will do, and files larger than the memory\n"
    "  --vocab-size N       tokens: 256 bytes, merged pairs, and the special tokens, which come last\n"
    "  --pretokenizer NAME  how a text is cut into words: gpt2 (default), llama3, qwen2 (in normal form C) or smollm\n"
    "  --special TEXT       cuts the text and is a token of its own, as \"<|endoftext|>\"; may be given several times\n"
    "  --out DIR            made if missing\n"
    "  --threads N          default: one for each processor; the result does not depend on it\n"
    "shards writes DIR/train_000000.bin ..., DIR/val_000000.bin ..., the vocabulary and, last, DIR/dataset.json,\n"
    "if that is not there yet:\n"
    "  --vocab DIR          of byte pairs, with a token <|endoftext|> (or <|end_of_text|>, </s>), which goes before each document\n"
    "  --input FILES...     NAME.txt: documents with the text <|endoftext|> between; NAME.jsonl: a JSON object a line;\n"
    "                       -: such lines on standard input\n"
    "  --out DIR            made if missing\n"
    "  --field NAME         member of the objects that holds the text (default text)\n"
    "  --val-fraction F     share of the documents, drawn by their number, that goes to validation (default 0.01)\n"
    "  --val-documents N    or: the first N documents\n"
    "  --val-input FILES... or: all documents of these files\n"
    "  --shard-tokens N     tokens in a shard (default 100000000)\n"
    "  --seed S             of what is drawn (default 0)\n"
    "  --source TEXT        where the text came from, for dataset.json (default: the first of FILES)\n"
    "  --threads N          default: one for each processor; the result does not depend on it\n"
    "  --skip-bad           leaves out JSON lines that are broken or have no text, and counts them\n"
    "  --force              replaces the dataset that is there\n"
    "chars writes DIR/train.bin, DIR/val.bin, DIR/characters.json and, last, DIR/dataset.json:\n"
    "  --input FILE         UTF-8 text\n"
    "  --out DIR            made if missing\n"
    "  --val-fraction F     share of the text, at its end, that becomes val.bin (default 0.1)\n"
    "  --source TEXT        where the text came from, for dataset.json (default: FILE)\n"
    "  --sha256 HEX         of the text, for dataset.json (default: left out)\n"
    "stats prints bytes per token, speed, and the time for The Pile:\n"
    "  --vocab DIRS...      of any kind\n"
    "  --input FILES...     as for shards\n"
    "  --documents N        drawn from each file (default 1000)\n"
    "  --field NAME, --seed S   as for shards\n"
    "encode and decode take texts and token lists of any size:\n"
    "  --vocab DIR          tokenizer.json, or vocab.json and merges.txt, or characters.json\n"
    "  --input FILE         default: standard input\n"
    "  --output FILE        default: standard output\n"
    "  --format F           of the tokens: text (decimal numbers), u16 or u32 (little-endian, no header)\n"
    "  --special TEXT...    further special tokens: of the number that they have in the vocabulary, else the next free one\n"
    "  --begin-of-text      encode: the token that the vocabulary puts before a text, as Llama 3's does, comes first\n"
    "  --ordinary           encode: special tokens in the text are taken as letters\n"
    "  --bytes              decode: bytes as they are; else what is not UTF-8 becomes U+FFFD\n"
    "  --threads N          default: one for each processor\n"
    "encode turns all of the text into tokens, the newline at the end too (printf avoids it).\n";

/* ---- Options ---- */

typedef struct {
    const char *input, *out, *val_fraction, *source, *sha256;
} Arguments;

static Arguments parse(int argc, char **argv) {
    Arguments a = { 0 };
    for (ArgumentList list = { argc, argv, 2 }; list.at < argc; list.at++) {
        bool known = argument_text(&list, "--input", &a.input) || argument_text(&list, "--out", &a.out) ||
                     argument_text(&list, "--val-fraction", &a.val_fraction) || argument_text(&list, "--source", &a.source) ||
                     argument_text(&list, "--sha256", &a.sha256);
        if (!known) die("the command chars has no option '%s'; see tokenizer --help", argv[list.at]);
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
    int64_t train_bytes, val_bytes;   /* of text behind the tokens */
} Counts;

/* Bytes of the first n characters of text[length], which is UTF-8. */
static int64_t bytes_of_characters(const char *text, size_t length, int64_t n) {
    size_t at = 0;
    for (int64_t seen = -1; at < length; at++) {
        seen += (text[at] & 0xC0) != 0x80;
        if (seen == n) break;
    }
    return (int64_t)at;
}

static char *describe(const Arguments *a, Counts counts, size_t *length) {
    char *text = NULL;
    FILE *memory = open_memstream(&text, length);
    CHECK(memory);
    fprintf(memory, "{\"vocab_size\": %" PRId64 ", \"tokenizer\": \"characters\", \"source\": ", counts.vocab_size);
    json_write_string(memory, a->source ? a->source : a->input);
    if (a->sha256) fprintf(memory, ", \"sha256\": \"%s\"", a->sha256);
    fprintf(memory, ", \"tokens\": {\"train\": %" PRId64 ", \"val\": %" PRId64 "}", counts.train, counts.val);
    fprintf(memory, ", \"bytes\": {\"train\": %" PRId64 ", \"val\": %" PRId64 "}}\n", counts.train_bytes, counts.val_bytes);
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
    Arguments a = parse(argc, argv);
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
    Counts counts = { tokenizer_vocab_size(tokenizer), (int64_t)(count * (1 - val_fraction)), 0, 0, 0 };
    counts.val = count - counts.train;
    counts.train_bytes = bytes_of_characters((const char *)text.data, text.size, counts.train);
    counts.val_bytes = (int64_t)text.size - counts.train_bytes;
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

/* ---- Commands ---- */

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "train", tokenizer_train_command },   { "shards", tokenizer_shards_command }, { "chars", command_chars },
    { "stats", tokenizer_stats_command },   { "encode", tokenizer_encode_command }, { "decode", tokenizer_decode_command },
};

int main(int argc, char **argv) {
    error_program_name(argv[0]);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return fputs(usage, stdout) < 0;
    if (argc < 2) die("a command is missing: train, shards, chars, stats, encode or decode; see tokenizer --help");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc, argv);
    die("there is no command '%s'; there are train, shards, chars, stats, encode and decode", argv[1]);
}
