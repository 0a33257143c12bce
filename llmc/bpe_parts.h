/* bpe_parts.h: what a byte-pair vocabulary is made of: shared by bpe.c (building, asking), bpe_encode.c, and those that
   read and write files. Others use bpe.h. */
#ifndef LLMC_BPE_PARTS_H
#define LLMC_BPE_PARTS_H

#include "bpe.h"
#include "json.h"
#include "specials.h"

#include <stdio.h>

enum { BPE_MAX_TOKENS = 1 << 21 };

typedef struct {
    char *bytes;            /* NUL-terminated, though it may hold NULs too; NULL where there is no token of that number */
    size_t length;
} BpeToken;

/* Where in the list of merges a pair stands; rank -1 in an empty slot. Linear probing. */
typedef struct { int32_t left, right, rank; } BpePair;

/* What a tokenizer.json asks for besides vocabulary and merges. */
typedef struct {
    Pretokenization pretokenization;
    bool nfc;
    bool whole_words;       /* ignore_merges: a pre-token that is in the vocabulary is that token */
    int32_t first;          /* token before a text, or -1 */
} BpeRules;

typedef struct {
    char *text;
    int32_t token;
    bool special, normalized;   /* normalized: sought in the second pass */
} BpeAdded;

struct Bpe {
    BpeToken *tokens;
    int64_t vocab_size;
    int32_t of_byte[256];
    BpeMerge *merges;       /* by rank */
    int64_t merge_count;
    BpePair *pairs;         /* (1 << pair_bits) */
    int pair_bits;
    BpeRules rules;
    BpeAdded *added;        /* (specials.count) */
    Specials specials;      /* of their texts */
    Specials passes[2];     /* of those sought in the text as it is, and, between these, in its normal form */
    int32_t *words;         /* (1 << word_bits) with whole_words: tokens by the hash of their bytes, -1 in an empty slot */
    int word_bits;
};

/* Takes tokens and merges, also where it fails. NULL with a sentence, beginning with `name`, if a byte is missing, a pair is merged twice,
   or a merge does not give its token's bytes. No special tokens yet. */
Bpe *bpe_assemble(BpeToken *tokens, int64_t vocab_size, BpeMerge *merges, int64_t merge_count, const char *name, char error[ERROR_SIZE]);
/* Adds tokens whose texts are their bytes to those that are; copies the texts. False with a sentence, and bpe good for bpe_free only, if one
   is empty or there twice. */
bool bpe_set_added(Bpe *bpe, const BpeAdded *added, int64_t more, char error[ERROR_SIZE]);
/* Makes the table of words, once all tokens are known. */
void bpe_index_words(Bpe *bpe);

/* Slot of the pair, or the empty one where it belongs. */
static inline BpePair *bpe_pair(const Bpe *bpe, int32_t left, int32_t right) {
    uint64_t mask = ((uint64_t)1 << bpe->pair_bits) - 1;
    uint64_t at = ((uint64_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u >> (64 - bpe->pair_bits);
    while (bpe->pairs[at].rank >= 0 && (bpe->pairs[at].left != left || bpe->pairs[at].right != right)) at = (at + 1) & mask;
    return &bpe->pairs[at];
}

/* ---- Files ---- */

static inline bool is_null(const Json *json) { return !json || json->type == JSON_NULL; }

/* GPT-2's way to write any bytes as text: a letter for each, in fresh memory. */
char *bpe_spell(const char *bytes, size_t length);
/* And back: bytes in fresh memory, NUL-terminated; NULL if text has other letters than those 256. */
char *bpe_unspell(const char *text, size_t *length);

/* The rules of a tokenizer.json; `first` is one of its added tokens only if the caller finds it there. False with a sentence, beginning with `name`,
   that names what is not done here. */
bool bpe_read_rules(const Json *tokenizer, BpeRules *rules, const char *name, char error[ERROR_SIZE]);
/* Its members normalizer, pre_tokenizer and post_processor. */
void bpe_write_rules(FILE *file, const Bpe *bpe);

/* Of the texts of the files; the names are for messages. */
Bpe *bpe_of_tokenizer(const char *text, size_t length, const char *name, char error[ERROR_SIZE]);
Bpe *bpe_of_vocabulary(const char *vocab, size_t vocab_length, const char *vocab_name, const char *merges, size_t merges_length,
                       const char *merges_name, char error[ERROR_SIZE]);
void bpe_write_tokenizer(FILE *file, const Bpe *bpe);
void bpe_write_vocab(FILE *file, const Bpe *bpe);
void bpe_write_merges(FILE *file, const Bpe *bpe);

#endif
