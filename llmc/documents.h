/* documents.h: the documents of text files, read in stretches of about a megabyte, so that several threads share them and memory does not
   grow with the files.

   NAME.txt      documents are separated by the text <|endoftext|>, to which a newline ("\n" or "\r\n")
                 right behind it belongs; without it the file is one
   NAME.jsonl    a line is a JSON object, whose member `field` is the text of a document; the escapes of NUL and
                 of half a surrogate pair, which stand for no character, are taken for U+FFFD
   -             the same lines on standard input

   Documents without any text do not count. */
#ifndef LLMC_DOCUMENTS_H
#define LLMC_DOCUMENTS_H

#include "bpe.h"
#include "json.h"
#include "specials.h"
#include "text_reader.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *const *files, *field;
    int64_t file_count, next_file;      /* next_file - 1 is being read */
    size_t stretch_bytes;
    const Bpe *bpe;
    Specials separator;
    TextReader reader;
    bool open, lines;                   /* a file is; it is of JSON lines */
    bool fresh, separated;              /* a document begins here; a separator is right before */
    int64_t line;                       /* in this file, from 1 */
} DocumentReader;

/* All zero to begin with, so that it can be used again and again. */
typedef struct {
    ByteBuffer text;
    char error[ERROR_SIZE];             /* why nothing could be read */
    int64_t file;
    /* Private: */
    const char *name, *field;
    const Specials *separator;
    bool lines, fresh, separated;
    int64_t line;
    size_t at;
    Json *json;
} Stretch;

/* A document, or a part of one that is longer than a stretch, cut where bpe_cut may cut it, special tokens being letters. */
typedef struct {
    const char *text;
    size_t length;
    bool begins;                        /* a document; else it goes on with the one before */
} DocumentPart;

typedef enum { PART, PARTS_END, PART_BAD } PartResult;

/* bpe: the vocabulary that parts will be encoded with; NULL where that is nothing to the reader. False with a sentence: a name of another
   kind, a file that cannot be opened. */
bool documents_open(DocumentReader *reader, const char *const *files, int64_t file_count, const char *field, const Bpe *bpe,
                    char error[ERROR_SIZE]);
void documents_close(DocumentReader *reader);
/* False at the end. If it cannot be read, the stretch has no parts, but an error, and is the last one. */
bool documents_read(DocumentReader *reader, Stretch *stretch);
/* The next part of the stretch, valid until the next call. PART_BAD: a line that has no document, error saying where and why; it may be
   left out. */
PartResult stretch_next(Stretch *stretch, DocumentPart *part, char error[ERROR_SIZE]);
void stretch_free(Stretch *stretch);

#ifdef __cplusplus
}
#endif
#endif
