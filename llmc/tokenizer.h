/* tokenizer.h: text to tokens and back, whatever the vocabulary. A directory holds one: of characters (Unicode code points),
   characters.json, {"type": "characters", "characters": ["\n", " ", ...]}, token = position; or of byte pairs (bpe.h), tokenizer.json, or
   vocab.json and merges.txt. */
#ifndef LLMC_TOKENIZER_H
#define LLMC_TOKENIZER_H

#include "bpe.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Tokenizer Tokenizer;

/* Reads the vocabulary that lies in `directory`, characters.json if it is there. NULL with the cause if there is none or it is broken. */
Tokenizer *tokenizer_open(const char *directory, char error[ERROR_SIZE]);
/* True if a vocabulary lies there, broken or not. */
bool tokenizer_present(const char *directory);
/* The CRC-32 of all the files that it is made of; 0 if there is none. */
uint32_t tokenizer_checksum(const char *directory);
/* Every distinct code point of text[length], sorted; text must be UTF-8. */
Tokenizer *tokenizer_of_characters(const char *text, size_t length, char error[ERROR_SIZE]);
void tokenizer_free(Tokenizer *tokenizer);
bool tokenizer_save(const Tokenizer *tokenizer, const char *directory, char error[ERROR_SIZE]);
/* Copies the vocabulary files of one directory to another (a checkpoint), those of Hugging Face included; true if there are none. */
bool tokenizer_copy(const char *from_directory, const char *to_directory, char error[ERROR_SIZE]);

int64_t tokenizer_vocab_size(const Tokenizer *tokenizer);
const char *tokenizer_kind(const Tokenizer *tokenizer);     /* "characters" or "bpe" */
/* The byte pairs behind it, or NULL if it is of characters. */
Bpe *tokenizer_bpe(Tokenizer *tokenizer);
/* The token that separates texts, <|endoftext|>, <|end_of_text|> or </s>, or -1 if the vocabulary has none. */
int32_t tokenizer_end_of_text(const Tokenizer *tokenizer);
/* Whether that token ends what a model writes: the one above, and those that are eos_token_id in generation_config.json, or else in config.json,
   of the directory. */
bool tokenizer_ends_text(const Tokenizer *tokenizer, int32_t token);
/* The token that the vocabulary puts before a text (Llama 3's <|begin_of_text|>), or -1. */
int32_t tokenizer_begin_of_text(const Tokenizer *tokenizer);
/* Tokens of text[length] in fresh memory, *count of them; special tokens in it are taken as such. NULL with a sentence: the first character
   that it does not know, or a build that cannot encode byte pairs. */
int32_t *tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t length, int64_t *count, char error[ERROR_SIZE]);
/* The same with the token before it that the vocabulary puts before a text, if it has one: what a model expects of a prompt. */
int32_t *tokenizer_encode_prompt(const Tokenizer *tokenizer, const char *text, size_t length, int64_t *count, char error[ERROR_SIZE]);
/* The bytes of one token (which may hold NULs), valid as long as the tokenizer; NULL if there is no token of that number. */
const char *tokenizer_token(const Tokenizer *tokenizer, int32_t token, size_t *length);

#ifdef __cplusplus
}
#endif

#endif
