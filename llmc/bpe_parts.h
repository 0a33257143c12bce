/* bpe_parts.h: what a byte-pair vocabulary is made of: shared by bpe.c (building, asking), bpe_encode.c and bpe_files.c. Others use bpe.h.
   */
#ifndef LLMC_BPE_PARTS_H
#define LLMC_BPE_PARTS_H

#include "bpe.h"
#include "specials.h"

#include <stdio.h>

enum { BPE_MAX_TOKENS = 1 << 21 };

typedef struct {
    char *bytes;            /* NUL-terminated, though it may hold NULs too; NULL where there is no token of that number */
    size_t length;
} BpeToken;

/* Where in the list of merges a pair stands; rank -1 in an empty slot. Linear probing. */
typedef struct { int32_t left, right, rank; } BpePair;

struct Bpe {
    BpeToken *tokens;
    int64_t vocab_size;
    int32_t of_byte[256];
    BpeMerge *merges;       /* by rank */
    int64_t merge_count;
    BpePair *pairs;         /* (1 << pair_bits) */
    int pair_bits;
    char **special_texts;
    int32_t *special_tokens;
    Specials specials;      /* of special_texts */
};

/* Takes tokens and merges, also where it fails. NULL with a sentence, beginning with `name`, if a byte is missing, a pair is merged twice,
   or a merge does not give its token's bytes. No special tokens yet. */
Bpe *bpe_assemble(BpeToken *tokens, int64_t vocab_size, BpeMerge *merges, int64_t merge_count, const char *name, char error[ERROR_SIZE]);
/* Makes texts, the bytes of those tokens, special, besides those that are. False with a sentence, and bpe good for bpe_free only, if one is
   empty or there twice. */
bool bpe_set_specials(Bpe *bpe, const char *const *texts, const int32_t *tokens, int64_t more, char error[ERROR_SIZE]);

/* Slot of the pair, or the empty one where it belongs. */
static inline BpePair *bpe_pair(const Bpe *bpe, int32_t left, int32_t right) {
    uint64_t mask = ((uint64_t)1 << bpe->pair_bits) - 1;
    uint64_t at = ((uint64_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u >> (64 - bpe->pair_bits);
    while (bpe->pairs[at].rank >= 0 && (bpe->pairs[at].left != left || bpe->pairs[at].right != right)) at = (at + 1) & mask;
    return &bpe->pairs[at];
}

/* ---- Files ---- */

/* GPT-2's way to write any bytes as text: a letter for each, in fresh memory. */
char *bpe_spell(const char *bytes, size_t length);
/* And back: bytes in fresh memory, NUL-terminated; NULL if text has other letters than those 256. */
char *bpe_unspell(const char *text, size_t *length);

/* Of the texts of the files; the names are for messages. */
Bpe *bpe_of_tokenizer(const char *text, size_t length, const char *name, char error[ERROR_SIZE]);
Bpe *bpe_of_vocabulary(const char *vocab, size_t vocab_length, const char *vocab_name, const char *merges, size_t merges_length,
                       const char *merges_name, char error[ERROR_SIZE]);
void bpe_write_tokenizer(FILE *file, const Bpe *bpe);
void bpe_write_vocab(FILE *file, const Bpe *bpe);
void bpe_write_merges(FILE *file, const Bpe *bpe);

#endif
