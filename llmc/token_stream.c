/* token_stream.c: see token_stream.h. */
#include "token_stream.h"
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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

StreamOptions stream_options(int argc, char **argv, const char *flag) {
    StreamOptions o = { .specials = xcalloc((size_t)argc, sizeof *o.specials), .threads = processors() };
    for (ArgumentList list = { argc, argv, 2 }; list.at < argc; list.at++) {
        bool known = argument_text(&list, "--vocab", &o.vocab) || argument_text(&list, "--input", &o.input) ||
                     argument_text(&list, "--output", &o.output) || argument_texts(&list, "--special", o.specials, &o.special_count) ||
                     take_format(&list, &o.format) || argument_flag(&list, flag, &o.flag) ||
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

StreamOutput stream_output_open(const char *path) { return (StreamOutput){ path ? file_create(path) : NULL }; }

static bool standard_failed(char error[ERROR_SIZE]) { return file_error(error, "cannot write standard output: %s", strerror(errno)); }

bool stream_output_write(StreamOutput *output, const void *bytes, size_t count, char error[ERROR_SIZE]) {
    if (!output->file) return fwrite(bytes, 1, count, stdout) == count || standard_failed(error);
    file_write(output->file, bytes, count);
    return file_good(output->file, error);
}

bool stream_output_close(StreamOutput *output, char error[ERROR_SIZE]) {
    if (output->file) return file_close(output->file, NULL, error);
    return (fflush(stdout) == 0 && !ferror(stdout)) || standard_failed(error);
}

void stream_output_discard(StreamOutput *output) {
    if (output->file) file_discard(output->file);
}
