/* bpe.c: see bpe.h. Vocabularies: put together, asked, extended. */
#include "bpe_parts.h"
#include "error.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- GPT-2's letters for bytes ---- */

/* Printable bytes of Latin-1 are themselves; the other 68, in order (0x00 to 0x20, 0x7F to 0xA0, 0xAD), the letters from U+0100 on. */
static bool is_printable(int byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE; }

static int32_t letter_of_byte(int byte) {
    if (is_printable(byte)) return byte;
    return 0x100 + (byte <= 0x20 ? byte : byte <= 0xA0 ? 33 + byte - 0x7F : 67);
}

/* -1 if that is no such letter. */
static int byte_of_letter(int32_t letter) {
    int number = letter - 0x100;
    if (number < 0) return letter >= 0 && is_printable(letter) ? letter : -1;
    return number < 33 ? number : number < 67 ? 0x7F + number - 33 : number == 67 ? 0xAD : -1;
}

char *bpe_spell(const char *bytes, size_t length) {
    char *text = xmalloc(2 * length + 5), *end = text;
    for (size_t i = 0; i < length; i++) end += utf8_encode(letter_of_byte((unsigned char)bytes[i]), end);
    *end = 0;
    return text;
}

char *bpe_unspell(const char *text, size_t *length) {
    size_t left = strlen(text), size;
    char *bytes = xmalloc(left + 1);
    for (*length = 0; left > 0; text += size, left -= size) {
        int byte = byte_of_letter(utf8_decode(text, left, &size));
        if (byte < 0) {
            free(bytes);
            return NULL;
        }
        bytes[(*length)++] = (char)byte;
    }
    bytes[*length] = 0;
    return bytes;
}

/* ---- Putting together ---- */

/* A token's text for messages, spelled as in the files. */
static char *shown(const Bpe *bpe, int32_t token) { return bpe_spell(bpe->tokens[token].bytes, bpe->tokens[token].length); }

static bool find_bytes(Bpe *bpe, const char *name, char error[ERROR_SIZE]) {
    memset(bpe->of_byte, -1, sizeof bpe->of_byte);
    for (int64_t token = 0; token < bpe->vocab_size; token++)
        if (bpe->tokens[token].bytes && bpe->tokens[token].length == 1) bpe->of_byte[(unsigned char)*bpe->tokens[token].bytes] = token;
    for (int byte = 0; byte < 256; byte++)
        if (bpe->of_byte[byte] < 0)
            return file_error(error, "%s: there is no token of the byte 0x%02X, so that not every text could be encoded", name, byte);
    return true;
}

static bool fits(const BpeToken *left, const BpeToken *right, const BpeToken *token) {
    return left->length + right->length == token->length && memcmp(left->bytes, token->bytes, left->length) == 0 &&
           memcmp(right->bytes, token->bytes + left->length, right->length) == 0;
}

static bool add_pair(Bpe *bpe, int32_t rank, const char *name, char error[ERROR_SIZE]) {
    BpeMerge merge = bpe->merges[rank];
    BpePair *pair = bpe_pair(bpe, merge.left, merge.right);
    bool doubled = pair->rank >= 0, wrong = !fits(&bpe->tokens[merge.left], &bpe->tokens[merge.right], &bpe->tokens[merge.token]);
    if (doubled || wrong) {
        char *left = shown(bpe, merge.left), *right = shown(bpe, merge.right), *token = shown(bpe, merge.token);
        if (doubled)
            file_error(error, "%s: merges %d and %d are the same, of '%.40s' and '%.40s'", name, pair->rank + 1, rank + 1, left, right);
        else
            file_error(error, "%s: merge %d makes '%.40s' and '%.40s' one, which '%.80s' is not", name, rank + 1, left, right, token);
        free(left);
        free(right);
        free(token);
        return false;
    }
    *pair = (BpePair){ merge.left, merge.right, rank };
    return true;
}

Bpe *bpe_assemble(BpeToken *tokens, int64_t vocab_size, BpeMerge *merges, int64_t merge_count, const char *name, char error[ERROR_SIZE]) {
    Bpe *bpe = xcalloc(1, sizeof *bpe);
    bpe->rules.first = -1;
    bpe->tokens = tokens;
    bpe->vocab_size = vocab_size;
    bpe->merges = merges;
    bpe->merge_count = merge_count;
    bpe->pair_bits = 8;
    while ((int64_t)1 << bpe->pair_bits < 2 * merge_count) bpe->pair_bits++;
    size_t pairs_size = sizeof *bpe->pairs << bpe->pair_bits;
    bpe->pairs = memset(xmalloc(pairs_size), -1, pairs_size);
    bool good = find_bytes(bpe, name, error);
    for (int64_t rank = 0; good && rank < merge_count; rank++) good = add_pair(bpe, (int32_t)rank, name, error);
    if (good) return bpe;
    bpe_free(bpe);
    return NULL;
}

static void free_specials(Bpe *bpe) {
    specials_free(&bpe->specials);
    for (int pass = 0; pass < 2; pass++) specials_free(&bpe->passes[pass]);
}

void bpe_free(Bpe *bpe) {
    if (!bpe) return;
    for (int64_t i = 0; i < bpe->specials.count; i++) free(bpe->added[i].text);
    for (int64_t token = 0; token < bpe->vocab_size; token++) free(bpe->tokens[token].bytes);
    free_specials(bpe);
    free(bpe->added);
    free(bpe->words);
    free(bpe->tokens);
    free(bpe->merges);
    free(bpe->pairs);
    free(bpe);
}

static BpeToken joined(const BpeToken *left, const BpeToken *right) {
    BpeToken token = { xmalloc(left->length + right->length + 1), left->length + right->length };
    memcpy(token.bytes, left->bytes, left->length);
    memcpy(token.bytes + left->length, right->bytes, right->length + 1);
    return token;
}

/* Refused whether or not the bytes it spells became a token: who trains shall know before. */
static bool check_spelling(const char *special, char error[ERROR_SIZE]) {
    size_t length;
    char *bytes = bpe_unspell(special, &length);
    bool good = !bytes || strcmp(bytes, special) == 0;
    free(bytes);
    return good || file_error(error, "the special token '%s' would be in the files what other bytes are; take another text", special);
}

Bpe *bpe_create(const BpeMerge *merges, int64_t merge_count, const char *const *specials, int64_t special_count, char error[ERROR_SIZE]) {
    BpeToken *tokens = xcalloc(256 + merge_count, sizeof *tokens);
    int64_t count = 256;
    for (int byte = 0; byte < 256; byte++) tokens[byte] = (BpeToken){ xprintf("%c", byte), 1 };
    for (int64_t i = 0; i < merge_count; i++) {
        CHECK(merges[i].left >= 0 && merges[i].left < count && merges[i].right >= 0 && merges[i].right < count);
        CHECK(merges[i].token >= 0 && merges[i].token <= count);
        if (merges[i].token == count) tokens[count++] = joined(&tokens[merges[i].left], &tokens[merges[i].right]);
    }
    BpeMerge *copy = xmalloc(merge_count * sizeof *copy + 1);
    if (merge_count > 0) memcpy(copy, merges, merge_count * sizeof *copy);
    Bpe *bpe = bpe_assemble(tokens, count, copy, merge_count, "the trained vocabulary", error);
    for (int64_t i = 0; bpe && i < special_count; i++) {
        if (check_spelling(specials[i], error) && bpe_add_special(bpe, specials[i], error)) continue;
        bpe_free(bpe);
        bpe = NULL;
    }
    return bpe;
}

void bpe_set_pretokenization(Bpe *bpe, Pretokenization kind) {
    bpe->rules.pretokenization = kind;
    bpe->rules.nfc = pretokenization_normalizes(kind);
}

/* ---- Added tokens ---- */

/* Those of one pass, or all (pass 2). */
static bool find_specials(const Bpe *bpe, int64_t count, int pass, Specials *specials, char error[ERROR_SIZE]) {
    const char **texts = xmalloc((size_t)count * sizeof *texts + 1);
    int64_t taken = 0;
    for (int64_t i = 0; i < count; i++)
        if (pass == 2 || bpe->added[i].normalized == pass) texts[taken++] = bpe->added[i].text;
    bool good = specials_init(specials, texts, taken, error);
    free(texts);
    return good;
}

bool bpe_set_added(Bpe *bpe, const BpeAdded *added, int64_t more, char error[ERROR_SIZE]) {
    int64_t before = bpe->specials.count, count = before + more;
    bpe->added = xrealloc(bpe->added, (size_t)count * sizeof *bpe->added + 1);
    for (int64_t i = 0; i < more; i++) {
        bpe->added[before + i] = added[i];
        bpe->added[before + i].text = xstrdup(added[i].text);
    }
    free_specials(bpe);
    bool good = find_specials(bpe, count, 2, &bpe->specials, error) && find_specials(bpe, count, 0, &bpe->passes[0], error) &&
                find_specials(bpe, count, 1, &bpe->passes[1], error);
    bpe->specials.count = count;   /* also where one is refused, so that bpe_free finds all */
    return good;
}

/* The token that stands for text in the files, -1 if there is none. */
static int32_t spelled_so(const Bpe *bpe, const char *text) {
    size_t length;
    char *bytes = bpe_unspell(text, &length);
    int64_t token = bpe->vocab_size - 1;
    if (!bytes) bytes = xstrdup(text), length = strlen(text);
    for (; token >= 0; token--) {
        const BpeToken *t = &bpe->tokens[token];
        if (t->bytes && t->length == length && memcmp(t->bytes, bytes, length) == 0) break;
    }
    free(bytes);
    return (int32_t)token;
}

static bool is_utf8(const char *text) {
    size_t left = strlen(text), size;
    for (; left > 0 && utf8_decode(text, left, &size) >= 0; text += size) left -= size;
    return left == 0;
}

bool bpe_add_special(Bpe *bpe, const char *text, char error[ERROR_SIZE]) {
    for (int64_t i = 0; i < bpe->specials.count; i++)
        if (strcmp(bpe->added[i].text, text) == 0) return bpe->added[i].special = true;
    if (!*text || !is_utf8(text)) return file_error(error, "a special token is %s; it needs UTF-8 text", *text ? "not UTF-8" : "empty");
    int32_t token = spelled_so(bpe, text);
    if (token >= 0 && strcmp(bpe->tokens[token].bytes, text) != 0)
        return file_error(error, "the special token '%s' would be in the files what the bytes of token %d are; take another text", text,
                          token);
    if (token < 0) {
        if (bpe->vocab_size >= BPE_MAX_TOKENS) return file_error(error, "no token beyond the %d there are is possible", BPE_MAX_TOKENS);
        token = (int32_t)bpe->vocab_size++;
        bpe->tokens = xrealloc(bpe->tokens, bpe->vocab_size * sizeof *bpe->tokens);
        bpe->tokens[token] = (BpeToken){ xstrdup(text), strlen(text) };
    }
    return bpe_set_added(bpe, &(BpeAdded){ (char *)text, token, true, false }, 1, error);
}

/* ---- Asking ---- */

int32_t bpe_first(const Bpe *bpe) { return bpe->rules.first; }

int64_t bpe_vocab_size(const Bpe *bpe) { return bpe->vocab_size; }

const char *bpe_token(const Bpe *bpe, int32_t token, size_t *length) {
    if (token < 0 || token >= bpe->vocab_size || !bpe->tokens[token].bytes) return NULL;
    *length = bpe->tokens[token].length;
    return bpe->tokens[token].bytes;
}

int32_t bpe_special(const Bpe *bpe, const char *text) {
    for (int64_t i = 0; i < bpe->specials.count; i++)
        if (strcmp(bpe->added[i].text, text) == 0) return bpe->added[i].token;
    return -1;
}
