/* bpe.h: byte-level byte-pair encoding (Sennrich et al. 2016; of bytes, as GPT-2 has it: Radford et al. 2019). A vocabulary is 256 bytes,
   merges in the order in which they apply, and added tokens, most of them special, which cut the text before anything else and are never
   part of a merge.

   Files: tokenizer.json (Hugging Face tokenizers), which also says how a text is cut into pre-tokens (pretokenize.h), whether it becomes
   normal form C before (nfc.h), whether a pre-token that is in the vocabulary is taken whole, and which token may go before a text; or
   vocab.json and merges.txt (GPT-2), for GPT-2's pre-tokens. Both spell bytes as GPT-2's 256 printable letters. */
#ifndef LLMC_BPE_H
#define LLMC_BPE_H

#include "pretokenize.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Bpe Bpe;                 /* read by any number of threads */

/* Tokens left and right become the one numbered token. */
typedef struct { int32_t left, right, token; } BpeMerge;

/* ---- Making and keeping ---- */

/* The vocabulary that lies in `directory`: tokenizer.json if it is there, else vocab.json and merges.txt, where what is neither a byte nor
   made by a merge is a special token. NULL with one sentence: missing or inconsistent files, duplicate ids, a missing byte, a merge of
   unknown tokens, a tokenizer.json that asks for what we do not do (named). */
Bpe *bpe_open(const char *directory, char error[ERROR_SIZE]);
/* Of a trainer: tokens 0 ... 255 are the bytes, then the merges in order, then the specials (as bpe_add_special has them; NULL with its
   sentence). A merge's token is the next number, or that of an older token of the same bytes: no two tokens have the same bytes. */
Bpe *bpe_create(const BpeMerge *merges, int64_t merge_count, const char *const *specials, int64_t special_count, char error[ERROR_SIZE]);
void bpe_free(Bpe *bpe);
/* How texts are cut into pre-tokens, and whether they become normal form C before, as for qwen2; GPT-2's ways otherwise. */
void bpe_set_pretokenization(Bpe *bpe, Pretokenization kind);
/* vocab.json, merges.txt and tokenizer.json, which `tokenizers` and `transformers` load. If there is no room for them, what was there
   stays; a crash leaves a vocabulary that is whole, or one that bpe_open refuses. */
bool bpe_save(const Bpe *bpe, const char *directory, char error[ERROR_SIZE]);
/* Makes a text (UTF-8, not empty) a special token, as --special does: of the number it has in the vocabulary, else the next free one.
   Without effect on one that is special already. Not while an encoder is open. */
bool bpe_add_special(Bpe *bpe, const char *text, char error[ERROR_SIZE]);

/* ---- Asking ---- */

int64_t bpe_vocab_size(const Bpe *bpe);                                            /* one more than the highest token */
const char *bpe_token(const Bpe *bpe, int32_t token, size_t *length);              /* its bytes; NULL if there is none of that number */
int32_t bpe_special(const Bpe *bpe, const char *text);                             /* the added token of that text, or -1 */
int32_t bpe_first(const Bpe *bpe);                                                 /* what may go before a text (Llama 3's), or -1 */

/* ---- Encoding ---- */

/* What a thread needs to encode: a pre-tokenizer, and a memory of the words met so far, of bounded size (4 MB). */
typedef struct BpeEncoder BpeEncoder;
/* NULL with the reason if this build lacks PCRE2, or utf8proc where the vocabulary needs it. */
BpeEncoder *bpe_encoder_open(const Bpe *bpe, char error[ERROR_SIZE]);
void bpe_encoder_close(BpeEncoder *encoder);

/* Tokens growing at the end. */
typedef struct {
    int32_t *tokens;
    int64_t count, capacity;
} TokenBuffer;
void token_buffer_free(TokenBuffer *buffer);

/* Appends the tokens of text[length]: any bytes; decoding gives them back, or their normal form. specials: special tokens in the text are
   taken as such; else as letters. Added tokens that are not special always are. */
void bpe_encode(BpeEncoder *encoder, const char *text, size_t length, bool specials, TokenBuffer *out);

/* The last place in text[length] where it may be cut whatever follows, the tokens staying the same; 0 if there is none. For texts larger
   than memory, and for sharing one among threads. */
size_t bpe_cut(const Bpe *bpe, const char *text, size_t length, bool specials);

#ifdef __cplusplus
}
#endif
#endif
