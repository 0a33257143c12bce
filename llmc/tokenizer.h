/* tokenizer.h: text to tokens and back. Today characters (Unicode code points); byte-level BPE joins it behind the same calls.
   A character vocabulary is a characters.json: {"type": "characters", "characters": ["\n", " ", ...]}, token = position. */
#ifndef LLMC_TOKENIZER_H
#define LLMC_TOKENIZER_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Tokenizer Tokenizer;

/* Reads the vocabulary that lies in `directory`. NULL with the cause if there is none or it is broken. */
Tokenizer *tokenizer_open(const char *directory, char error[ERROR_SIZE]);
/* Every distinct code point of text[length], sorted; text must be UTF-8. */
Tokenizer *tokenizer_of_characters(const char *text, size_t length, char error[ERROR_SIZE]);
void tokenizer_free(Tokenizer *tokenizer);
bool tokenizer_save(const Tokenizer *tokenizer, const char *directory, char error[ERROR_SIZE]);
/* Copies the vocabulary files of one directory to another (a checkpoint), those of Hugging Face included; true if there are none. */
bool tokenizer_copy(const char *from_directory, const char *to_directory, char error[ERROR_SIZE]);

int64_t tokenizer_vocab_size(const Tokenizer *tokenizer);
const char *tokenizer_kind(const Tokenizer *tokenizer);     /* "characters" */
/* The token that ends a text, or -1 if the vocabulary has none. */
int32_t tokenizer_end_of_text(const Tokenizer *tokenizer);
/* Tokens of text[length] in fresh memory, *count of them. NULL with a sentence naming the first character it does not know. */
int32_t *tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t length, int64_t *count, char error[ERROR_SIZE]);
/* The bytes of one token (not NUL-terminated), valid as long as the tokenizer; NULL if token is out of range. */
const char *tokenizer_token(const Tokenizer *tokenizer, int32_t token, size_t *length);

#ifdef __cplusplus
}
#endif

#endif
