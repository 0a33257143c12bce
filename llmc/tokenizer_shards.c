/* tokenizer_shards.c: the command `tokenizer shards`. Stretches of the text are encoded by several threads; in their order, their documents
   go to training or to validation. Special tokens in a document are letters like others: only documents are separated by one. */
#include "arguments.h"
#include "bpe.h"
#include "dataset_writer.h"
#include "documents.h"
#include "error.h"
#include "machine.h"
#include "pipeline.h"
#include "token_stream.h"
#include "tokenizer_commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    const char *vocab, *out, *source, *field;
    const char **inputs, **val_inputs, **files;     /* files: val_inputs, then inputs */
    int64_t input_count, val_input_count;
    int64_t shard_tokens, val_documents;            /* val_documents -1: not given */
    double val_fraction;                            /* -1: not given */
    int64_t seed, threads;
    bool force, skip_bad;
} Options;

/* Of a document, or of a part of it. */
typedef struct {
    bool begins;
    int64_t tokens, bytes;
} Share;

typedef struct {
    Stretch stretch;
    TokenBuffer tokens;
    Share *shares;              /* (share_capacity) of the tokens, in their order */
    int64_t share_count, share_capacity, bad_lines;
    char error[ERROR_SIZE];
} Piece;

typedef struct {
    const Options *options;
    BpeEncoder **encoders;      /* (threads) */
    DocumentReader reader;
    DatasetWriter *writer;
    int64_t documents;          /* of the inputs, those of --val-input apart */
    int64_t bad_lines, read_bytes, all_bytes;
    double start, shown;        /* seconds */
    char error[ERROR_SIZE];
} Shards;

/* ---- Options ---- */

static void check(const Options *o) {
    if (!o->vocab || !o->out || !o->input_count) die("the command shards needs --vocab DIR, --input FILES and --out DIR");
    if ((o->val_fraction >= 0) + (o->val_documents >= 0) + (o->val_input_count > 0) > 1)
        die("of --val-fraction, --val-documents and --val-input only one can say what validation gets");
    int64_t standard = 0;
    for (int64_t i = 0; i < o->val_input_count + o->input_count; i++) standard += strcmp(o->files[i], "-") == 0;
    if (standard > 1) die("standard input, -, can be read only once");
}

static Options parse(int argc, char **argv) {
    Options o = { .field = "text", .shard_tokens = 100000000, .val_documents = -1, .val_fraction = -1, .threads = processors() };
    o.inputs = xcalloc((size_t)argc, sizeof *o.inputs);
    o.val_inputs = xcalloc((size_t)argc, sizeof *o.val_inputs);
    for (ArgumentList list = { argc, argv, 2 }; list.at < argc; list.at++) {
        bool known = argument_text(&list, "--vocab", &o.vocab) || argument_text(&list, "--out", &o.out) ||
                     argument_text(&list, "--source", &o.source) || argument_text(&list, "--field", &o.field) ||
                     argument_texts(&list, "--input", o.inputs, &o.input_count) ||
                     argument_texts(&list, "--val-input", o.val_inputs, &o.val_input_count) ||
                     argument_whole(&list, "--val-documents", &o.val_documents, 0, INT64_MAX) ||
                     argument_number(&list, "--val-fraction", &o.val_fraction, 0, 0.99) ||
                     argument_whole(&list, "--shard-tokens", &o.shard_tokens, 1000, INT32_MAX) ||
                     argument_whole(&list, "--seed", &o.seed, 0, INT64_MAX) ||
                     argument_whole(&list, "--threads", &o.threads, 1, MOST_THREADS) ||
                     argument_flag(&list, "--force", &o.force) || argument_flag(&list, "--skip-bad", &o.skip_bad);
        if (!known) die("the command shards has no option '%s'; see tokenizer --help", argv[list.at]);
    }
    o.files = xcalloc((size_t)(2 * argc), sizeof *o.files);
    memcpy(o.files, o.val_inputs, (size_t)o.val_input_count * sizeof *o.files);
    memcpy(o.files + o.val_input_count, o.inputs, (size_t)o.input_count * sizeof *o.files);
    check(&o);
    if (o.val_fraction < 0) o.val_fraction = o.val_documents >= 0 || o.val_input_count > 0 ? 0 : 0.01;
    return o;
}

/* ---- Pieces ---- */

static bool read_piece(void *context, void *piece) { return documents_read(&((Shards *)context)->reader, &((Piece *)piece)->stretch); }

static void encode_part(BpeEncoder *encoder, Piece *piece, const DocumentPart *part) {
    int64_t before = piece->tokens.count;
    bpe_encode(encoder, part->text, part->length, false, &piece->tokens);
    if (piece->share_count == piece->share_capacity) {
        piece->share_capacity = 2 * piece->share_capacity + 16;
        piece->shares = xrealloc(piece->shares, (size_t)piece->share_capacity * sizeof *piece->shares);
    }
    piece->shares[piece->share_count++] = (Share){ part->begins, piece->tokens.count - before, (int64_t)part->length };
}

static void encode_piece(void *context, int thread, void *piece_) {
    enum { MOST_TOKENS = 4 << 20 };     /* kept, where one long stretch took more */
    Shards *s = context;
    Piece *piece = piece_;
    DocumentPart part;
    PartResult result;
    if (piece->tokens.capacity > MOST_TOKENS) token_buffer_free(&piece->tokens);
    piece->tokens.count = piece->share_count = piece->bad_lines = 0;
    memcpy(piece->error, piece->stretch.error, sizeof piece->error);
    while (!piece->error[0] && (result = stretch_next(&piece->stretch, &part, piece->error)) != PARTS_END) {
        if (result == PART) {
            encode_part(s->encoders[thread], piece, &part);
        } else if (s->options->skip_bad) {
            piece->bad_lines++;
            piece->error[0] = 0;
        } else {
            size_t length = strlen(piece->error);
            snprintf(piece->error + length, sizeof piece->error - length, "; --skip-bad leaves such lines out");
        }
    }
}

static DatasetSplit split_of_next(Shards *s, const Piece *piece) {
    const Options *o = s->options;
    if (piece->stretch.file < o->val_input_count) return VAL;
    int64_t document = s->documents++;
    return document < o->val_documents ? VAL : dataset_split((uint64_t)o->seed, document, o->val_fraction);
}

static void show_progress(Shards *s) {
    double now = machine_seconds();
    if (!isatty(STDERR_FILENO) || now - s->shown < 0.2) return;
    s->shown = now;
    fprintf(stderr, "\r%.1f MB", (double)s->read_bytes / 1e6);
    if (s->all_bytes > 0) fprintf(stderr, " of %.1f", (double)s->all_bytes / 1e6);
    fprintf(stderr, ", %.1f MB/s, %" PRId64 " shards  ", (double)s->read_bytes / 1e6 / (now - s->start),
            dataset_writer_counts(s->writer, TRAIN).shards);
}

static bool write_piece(void *context, void *piece_) {
    Shards *s = context;
    Piece *piece = piece_;
    const int32_t *tokens = piece->tokens.tokens;
    if (piece->error[0]) return file_error(s->error, "%s", piece->error);
    for (int64_t i = 0; i < piece->share_count; tokens += piece->shares[i++].tokens) {
        const Share *share = &piece->shares[i];
        if (share->begins && !dataset_writer_begin(s->writer, split_of_next(s, piece), s->error)) return false;
        if (!dataset_writer_append(s->writer, tokens, share->tokens, share->bytes, s->error)) return false;
    }
    s->bad_lines += piece->bad_lines;
    s->read_bytes += (int64_t)piece->stretch.text.count;
    show_progress(s);
    return true;
}

/* ---- The command ---- */

/* Bytes of all files; 0 if that cannot be known beforehand. */
static int64_t size_of_files(const DocumentReader *reader) {
    int64_t size = 0;
    for (int64_t i = 0; i < reader->file_count; i++) {
        struct stat status;
        if (stat(reader->files[i], &status) != 0 || !S_ISREG(status.st_mode)) return 0;
        size += status.st_size;
    }
    return size;
}

static void encode_all(Shards *s, const Bpe *bpe) {
    int threads = (int)s->options->threads, count = pipeline_pieces(threads);
    s->encoders = xcalloc((size_t)threads, sizeof *s->encoders);
    Piece *pieces = xcalloc((size_t)count, sizeof *pieces);
    bool good = true;
    for (int i = 0; good && i < threads; i++) good = (s->encoders[i] = bpe_encoder_open(bpe, s->error)) != NULL;
    if (good) pipeline_run(&(Pipeline){ s, read_piece, encode_piece, write_piece, pieces, sizeof *pieces, count, threads });
    if (s->shown > s->start) fputs("\r\033[K", stderr);
    for (int i = 0; i < threads; i++) bpe_encoder_close(s->encoders[i]);
    for (int i = 0; i < count; i++) {
        stretch_free(&pieces[i].stretch);
        token_buffer_free(&pieces[i].tokens);
        free(pieces[i].shares);
    }
    free(s->encoders);
    free(pieces);
}

static bool check_counts(const Shards *s, char error[ERROR_SIZE]) {
    const Options *o = s->options;
    DatasetCounts train = dataset_writer_counts(s->writer, TRAIN), val = dataset_writer_counts(s->writer, VAL);
    bool wanted = o->val_fraction > 0 || o->val_documents > 0 || o->val_input_count > 0;
    if (train.documents + val.documents == 0) return file_error(error, "there is no text in '%s'", o->inputs[0]);
    if (train.documents > 0 && (val.documents > 0 || !wanted)) return true;
    return file_error(error, "of %" PRId64 " documents %" PRId64 " are for training and %" PRId64 " for validation, where each needs one; a "
                      "document is never cut in two: choose --val-documents N, --val-input FILES, another --val-fraction, or 0 for no validation",
                      train.documents + val.documents, train.documents, val.documents);
}

static void report(const Shards *s) {
    static const char *const purposes[SPLITS] = { "training", "validation" };
    double seconds = machine_seconds() - s->start, megabytes = (double)s->read_bytes / 1e6;
    for (int split = 0; split < SPLITS; split++) {
        DatasetCounts c = dataset_writer_counts(s->writer, (DatasetSplit)split);
        printf("%s: %" PRId64 " documents, %" PRId64 " tokens of %.1f MB of text, in %" PRId64 " shard%s\n", purposes[split], c.documents,
               c.tokens, (double)c.bytes / 1e6, c.shards, c.shards == 1 ? "" : "s");
    }
    if (s->bad_lines > 0) printf("left out: %" PRId64 " bad line%s\n", s->bad_lines, s->bad_lines == 1 ? "" : "s");
    printf("%s: %.1f MB read in %.2f s with %" PRId64 " thread%s (%.1f MB/s), peak memory %.1f MiB\n", s->options->out, megabytes, seconds,
           s->options->threads, s->options->threads == 1 ? "" : "s", megabytes / seconds, machine_peak_memory() / (1 << 20));
}

static bool is_there(const char *directory) {
    char *path = path_join(directory, "dataset.json");
    bool there = path_exists(path);
    free(path);
    return there;
}

/* In fresh memory. */
static char *source_of(const Options *o) {
    const char *first = strcmp(o->inputs[0], "-") == 0 ? "standard input" : o->inputs[0];
    if (o->source) return xstrdup(o->source);
    return o->input_count > 1 ? xprintf("%s and %" PRId64 " more", first, o->input_count - 1) : xstrdup(first);
}

static void make_dataset(const Options *o, Tokenizer *tokenizer) {
    Bpe *bpe = tokenizer_bpe(tokenizer);
    if (!bpe) die("'%s' is a vocabulary of characters; the command chars makes shards of characters", o->vocab);
    int32_t end_of_text = tokenizer_end_of_text(tokenizer);
    if (end_of_text < 0)
        die("the vocabulary in '%s' has no token <|endoftext|>, <|end_of_text|> or </s> to separate documents; train one with "
            "--special '<|endoftext|>'", o->vocab);
    char error[ERROR_SIZE], *source = source_of(o);
    DatasetPlan plan = { o->out, o->vocab, source, bpe_vocab_size(bpe), o->shard_tokens, end_of_text };
    Shards s = { .options = o, .start = machine_seconds() };
    s.shown = s.start;
    if (!documents_open(&s.reader, o->files, o->val_input_count + o->input_count, o->field, bpe, error)) die("%s", error);
    s.all_bytes = size_of_files(&s.reader);
    s.writer = dataset_writer_open(&plan, error);
    if (!s.writer) die("%s", error);
    encode_all(&s, bpe);
    memcpy(error, s.error, sizeof error);
    bool good = !error[0] && check_counts(&s, error) && dataset_writer_finish(s.writer, error);
    if (good) report(&s);
    dataset_writer_close(s.writer);
    documents_close(&s.reader);
    free(source);
    if (!good) die("%s", error);
}

int tokenizer_shards_command(int argc, char **argv) {
    Options o = parse(argc, argv);
    if (is_there(o.out) && !o.force) {
        printf("'%s' holds a dataset already; --force makes it anew\n", o.out);
    } else {
        o.vocab = vocabulary_directory(o.vocab);
        Tokenizer *tokenizer = vocabulary_open(o.vocab, NULL, 0);
        make_dataset(&o, tokenizer);
        tokenizer_free(tokenizer);
    }
    free(o.inputs);
    free(o.val_inputs);
    free(o.files);
    if (fflush(stdout) != 0 || ferror(stdout)) die("cannot write standard output: %s", strerror(errno));
    return 0;
}
