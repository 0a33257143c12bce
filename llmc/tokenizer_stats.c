/* tokenizer_stats.c: the command `tokenizer stats`: vocabularies compared on documents drawn from texts. */
#include "bpe.h"
#include "documents.h"
#include "error.h"
#include "kernels/philox.h"
#include "machine.h"
#include "token_stream.h"
#include "tokenizer_commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOCUMENT_BYTES = 16 << 20 };         /* of a longer document only so many are taken */
static const double PILE_BYTES = 825e9;     /* The Pile: Gao et al. 2020 */

typedef struct {
    const char **vocabs, **inputs, *field;
    int64_t vocab_count, input_count, documents, seed;
} Options;

static Options parse(int argc, char **argv) {
    Options o = { .field = "text", .documents = 1000 };
    o.vocabs = xcalloc((size_t)argc, sizeof *o.vocabs);
    o.inputs = xcalloc((size_t)argc, sizeof *o.inputs);
    for (ArgumentList list = { argc, argv, 2 }; list.at < argc; list.at++) {
        bool known = argument_texts(&list, "--vocab", o.vocabs, &o.vocab_count) ||
                     argument_texts(&list, "--input", o.inputs, &o.input_count) ||
                     argument_whole(&list, "--documents", &o.documents, 1, 1 << 24) || argument_text(&list, "--field", &o.field) ||
                     argument_whole(&list, "--seed", &o.seed, 0, INT64_MAX);
        if (!known) die("the command stats has no option '%s'; see tokenizer --help", argv[list.at]);
    }
    if (!o.vocab_count || !o.input_count) die("the command stats needs --vocab DIRECTORIES and --input FILES");
    return o;
}

/* ---- Documents ---- */

typedef struct {
    ByteBuffer *documents;      /* (wanted) */
    int64_t wanted, seen;       /* documents; seen ones so far */
    int64_t bytes;              /* of those taken */
    ByteBuffer *current;        /* the place of the document at hand, NULL if it is not taken */
    uint64_t seed;
} Sample;

/* Of all documents so far each is among those taken with the same probability: Vitter 1985, algorithm R. */
static ByteBuffer *place_of_next(Sample *sample) {
    int64_t document = sample->seen++;
    if (document < sample->wanted) return &sample->documents[document];
    uint32_t bits[4] = { (uint32_t)document, (uint32_t)(document >> 32) };
    philox(bits, sample->seed);
    uint64_t place = ((uint64_t)bits[0] << 32 | bits[1]) % (uint64_t)sample->seen;
    return place < (uint64_t)sample->wanted ? &sample->documents[place] : NULL;
}

static void take_part(Sample *sample, const DocumentPart *part) {
    if (part->begins) {
        sample->current = place_of_next(sample);
        if (sample->current) byte_buffer_clear(sample->current, DOCUMENT_BYTES);
    }
    if (sample->current && sample->current->count < DOCUMENT_BYTES) byte_buffer_append(sample->current, part->text, part->length);
}

static Sample draw(const Options *o, const char *input) {
    Sample sample = { .wanted = o->documents, .seed = (uint64_t)o->seed };
    sample.documents = xcalloc((size_t)o->documents, sizeof *sample.documents);
    char error[ERROR_SIZE];
    DocumentReader reader;
    Stretch stretch = { 0 };
    DocumentPart part;
    PartResult result;
    if (!documents_open(&reader, &input, 1, o->field, NULL, error)) die("%s", error);
    while (documents_read(&reader, &stretch)) {
        if (stretch.error[0]) die("%s", stretch.error);
        while ((result = stretch_next(&stretch, &part, error)) != PARTS_END) {
            if (result == PART_BAD) die("%s", error);
            take_part(&sample, &part);
        }
    }
    stretch_free(&stretch);
    documents_close(&reader);
    if (sample.seen == 0) die("there is no text in '%s'", input);
    if (sample.seen < sample.wanted) sample.wanted = sample.seen;
    for (int64_t i = 0; i < sample.wanted; i++) sample.bytes += (int64_t)sample.documents[i].count;
    return sample;
}

static void sample_free(Sample *sample) {
    for (int64_t i = 0; i < sample->wanted; i++) byte_buffer_free(&sample->documents[i]);
    free(sample->documents);
}

/* ---- The table ---- */

typedef struct {
    int64_t tokens;
    double rate;                /* bytes per second of one thread */
} Measured;

static int64_t encode_document(const ByteBuffer *document, BpeEncoder *encoder, const Tokenizer *tokenizer, const char *input) {
    TokenBuffer tokens = { 0 };
    char error[ERROR_SIZE];
    if (encoder) bpe_encode(encoder, document->bytes, document->count, false, &tokens);
    else tokens.tokens = tokenizer_encode(tokenizer, document->bytes, document->count, &tokens.count, error);
    if (!tokens.tokens) die("a document of '%s': %s", input, error);
    int64_t count = tokens.count;
    token_buffer_free(&tokens);
    return count;
}

/* The first half warms up; the clock runs for the rest. */
static Measured measure(const Sample *sample, const char *input, Tokenizer *tokenizer) {
    char error[ERROR_SIZE];
    Bpe *bpe = tokenizer_bpe(tokenizer);
    BpeEncoder *encoder = bpe ? bpe_encoder_open(bpe, error) : NULL;
    if (bpe && !encoder) die("%s", error);
    Measured m = { 0 };
    double start = 0, bytes = 0;
    for (int64_t i = 0; i < sample->wanted; i++) {
        if (i == sample->wanted / 2) start = machine_seconds();
        if (i >= sample->wanted / 2) bytes += (double)sample->documents[i].count;
        m.tokens += encode_document(&sample->documents[i], encoder, tokenizer, input);
    }
    m.rate = bytes / (machine_seconds() - start);
    bpe_encoder_close(encoder);
    return m;
}

static char *duration(double seconds) {
    if (seconds < 7200) return xprintf("%.0f min", seconds / 60);
    return seconds < 172800 ? xprintf("%.1f h", seconds / 3600) : xprintf("%.1f days", seconds / 86400);
}

static void print_row(const Sample *sample, const char *input, const char *vocab, Tokenizer *tokenizer) {
    Measured m = measure(sample, input, tokenizer);
    char *pile = duration(PILE_BYTES / m.rate);
    printf("%-28s %-20s %10" PRId64 " %10" PRId64 " %9.2f %12.4f %8.1f %12s\n", input, vocab, tokenizer_vocab_size(tokenizer),
           sample->wanted, (double)sample->bytes / 1e6, (double)sample->bytes / (double)m.tokens, m.rate / 1e6, pile);
    free(pile);
}

int tokenizer_stats_command(int argc, char **argv) {
    Options o = parse(argc, argv);
    Tokenizer **tokenizers = xcalloc((size_t)o.vocab_count, sizeof *tokenizers);
    for (int64_t v = 0; v < o.vocab_count; v++) tokenizers[v] = vocabulary_open(vocabulary_directory(o.vocabs[v]), NULL, 0);
    printf("%-28s %-20s %10s %10s %9s %12s %8s %12s\n", "text", "vocabulary", "its tokens", "documents", "MB", "bytes/token", "MB/s",
           "The Pile");
    for (int64_t i = 0; i < o.input_count; i++) {
        Sample sample = draw(&o, o.inputs[i]);
        for (int64_t v = 0; v < o.vocab_count; v++) print_row(&sample, o.inputs[i], o.vocabs[v], tokenizers[v]);
        sample_free(&sample);
    }
    printf("MB/s: one thread, on the second half of the documents. The Pile: its 825 GB at that rate.\n");
    for (int64_t v = 0; v < o.vocab_count; v++) tokenizer_free(tokenizers[v]);
    free(tokenizers);
    free(o.vocabs);
    free(o.inputs);
    if (fflush(stdout) != 0 || ferror(stdout)) die("cannot write standard output: %s", strerror(errno));
    return 0;
}
