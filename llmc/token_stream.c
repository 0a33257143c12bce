/* token_stream.c: see token_stream.h. */
#define _GNU_SOURCE   /* realpath */
#include "token_stream.h"
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Options ---- */

static bool take_format(ArgumentList *list, TokenFormat *format) {
    static const char *const names[] = { "text", "u16", "u32" };
    const char *name;
    if (!argument_text(list, "--format", &name)) return false;
    for (int f = 0; f < 3; f++)
        if (strcmp(name, names[f]) == 0) {
            *format = (TokenFormat)f;
            return true;
        }
    die("--format is '%s'; expected text, u16 or u32", name);
}

static bool take_once(ArgumentList *list, const char *name, const char **value) {
    const char *before = *value;
    bool found = argument_text(list, name, value);
    if (found && before) die("%s is given twice, as '%s' and as '%s'; one is possible", name, before, *value);
    return found;
}

StreamOptions stream_options(int argc, char **argv, const char *flag, bool begin_of_text) {
    StreamOptions o = { .specials = xcalloc((size_t)argc, sizeof *o.specials), .threads = processors() };
    for (ArgumentList list = { argc, argv, 2 }; list.at < argc; list.at++) {
        bool known = take_once(&list, "--vocab", &o.vocab) || take_once(&list, "--input", &o.input) ||
                     take_once(&list, "--output", &o.output) || argument_texts(&list, "--special", o.specials, &o.special_count) ||
                     take_format(&list, &o.format) || argument_flag(&list, flag, &o.flag) ||
                     (begin_of_text && argument_flag(&list, "--begin-of-text", &o.begin_of_text)) ||
                     argument_whole(&list, "--threads", &o.threads, 1, MOST_THREADS);
        if (!known) die("the command %s has no option '%s'; see tokenizer --help", argv[1], argv[list.at]);
    }
    if (!o.vocab) die("the command %s needs --vocab DIR, the directory of a vocabulary", argv[1]);
    o.vocab = vocabulary_directory(o.vocab);
    return o;
}

int format_width(TokenFormat format) { return format == FORMAT_TEXT ? 0 : format == FORMAT_U16 ? 2 : 4; }

/* ---- The vocabulary ---- */

const char *vocabulary_directory(const char *name) {
    static const char gpt2[] = "data/vocab/gpt2";
    if (path_exists(name)) return name;
    if (strcmp(name, "gpt2") != 0) die("there is no directory '%s' of a vocabulary", name);
    if (!path_exists(gpt2))
        die("there is neither a directory 'gpt2' nor '%s'; python3 data/prepare.py gpt2 fetches GPT-2's vocabulary (data/README.md)", gpt2);
    return gpt2;
}

Tokenizer *vocabulary_open(const char *directory, const char *const *specials, int64_t special_count) {
    char error[ERROR_SIZE];
    Tokenizer *tokenizer = tokenizer_open(directory, error);
    if (!tokenizer) die("%s", error);
    Bpe *bpe = tokenizer_bpe(tokenizer);
    if (!bpe && special_count > 0) die("'%s' is a vocabulary of characters, which has no special tokens; leave --special out", directory);
    for (int64_t i = 0; i < special_count; i++)
        if (!bpe_add_special(bpe, specials[i], error)) die("%s", error);
    return tokenizer;
}

/* ---- The output ---- */

/* A link stays: the file it names is the one to replace. */
static FileWriter *create(const char *path) {
    struct stat status;
    char *target = realpath(path, NULL);
    if (!target && lstat(path, &status) == 0) die("cannot write '%s': it is a link to what is not there; make that first", path);
    FileWriter *file = file_create(target ? target : path);
    free(target);
    return file;
}

StreamOutput stream_output_open(const char *path) {
    struct stat status;
    if (!path || strcmp(path, "-") == 0) return (StreamOutput){ .stream = stdout, .name = "standard output" };
    if (stat(path, &status) != 0 || S_ISREG(status.st_mode)) return (StreamOutput){ .file = create(path) };
    StreamOutput output = { .stream = fopen(path, "we"), .name = path };
    if (!output.stream) die("cannot write '%s': %s", path, strerror(errno));
    return output;
}

static bool stream_failed(const StreamOutput *output, char error[ERROR_SIZE]) {
    return file_error(error, "cannot write %s: %s", output->name, strerror(errno));
}

bool stream_output_write(StreamOutput *output, const void *bytes, size_t count, char error[ERROR_SIZE]) {
    if (output->stream) return fwrite(bytes, 1, count, output->stream) == count || stream_failed(output, error);
    file_write(output->file, bytes, count);
    return file_good(output->file, error);
}

bool stream_output_close(StreamOutput *output, char error[ERROR_SIZE]) {
    if (output->file) return file_close(output->file, NULL, error);
    bool good = (fflush(output->stream) == 0 && !ferror(output->stream)) || stream_failed(output, error);
    if (output->stream != stdout) fclose(output->stream);
    return good;
}

void stream_output_discard(StreamOutput *output) {
    if (output->file) file_discard(output->file);
}

/* ---- Tokens one by one ---- */

static void print_whole(TokenPrinter *p) {
    FILE *file = p->file ? p->file : stdout;
    if (p->whole.count > 0) fwrite(p->whole.bytes, 1, p->whole.count, file);
    fflush(file);
    byte_buffer_clear(&p->whole, STREAM_BYTES);
}

void print_token(TokenPrinter *p, int32_t token) {
    size_t length;
    const char *bytes = tokenizer_token(p->tokenizer, token, &length);
    if (bytes) utf8_repair(&p->repair, bytes, length, &p->whole);
    print_whole(p);
}

void print_end(TokenPrinter *p) {
    utf8_repair_end(&p->repair, &p->whole);
    print_whole(p);
    byte_buffer_free(&p->whole);
}
