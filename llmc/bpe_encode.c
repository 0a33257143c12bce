/* bpe_encode.c: encoding; see bpe.h. Most words were met before: a small table has their tokens. A new one is merged, always the pair of
   the lowest rank first, the leftmost of equals: plainly if it is short, else by lists of the places of each rank, in near-linear time. */
#include "bpe_parts.h"
#include "error.h"
#include "nfc.h"

#include <stdlib.h>
#include <string.h>

enum {
    SHORT_BYTES = 128,      /* up to which merging in quadratic time is the faster */
    ENTRY_BYTES = 30,
    ENTRY_TOKENS = 8,
    CACHE_BITS = 15,        /* pairs of entries */
};
static const uint32_t NO_RANK = UINT32_MAX;

/* A word and its tokens: one cache line. */
typedef struct {
    uint8_t length, count;
    char bytes[ENTRY_BYTES];
    int32_t tokens[ENTRY_TOKENS];
} Entry;

/* Places in a long word at which a pair of one rank began when they were noted. */
typedef struct {
    uint32_t *places;
    size_t count, capacity, done;
} Places;

struct BpeEncoder {
    const Bpe *bpe;
    Pretokenizer *pretokenizer;
    Entry (*cache)[2];      /* (1 << CACHE_BITS), the newer first */
    Places *ranked;         /* (merge_count) of long words, once there is one; empty between them */
    uint32_t *heap;         /* (merge_count) the ranks that have places */
    ByteBuffer normal;      /* of the text */
};

BpeEncoder *bpe_encoder_open(const Bpe *bpe, char error[ERROR_SIZE]) {
    if (bpe->rules.nfc && !nfc_available(error)) return NULL;
    Pretokenizer *pretokenizer = pretokenizer_open(bpe->rules.pretokenization, error);
    if (!pretokenizer) return NULL;
    BpeEncoder *encoder = xcalloc(1, sizeof *encoder);
    encoder->bpe = bpe;
    encoder->pretokenizer = pretokenizer;
    encoder->cache = aligned_alloc(64, sizeof *encoder->cache << CACHE_BITS);
    if (!encoder->cache) die("out of memory: %zu bytes for the words met before", sizeof *encoder->cache << CACHE_BITS);
    memset(encoder->cache, 0, sizeof *encoder->cache << CACHE_BITS);
    return encoder;
}

void bpe_encoder_close(BpeEncoder *encoder) {
    if (!encoder) return;
    pretokenizer_close(encoder->pretokenizer);
    free(encoder->cache);
    free(encoder->ranked);
    free(encoder->heap);
    byte_buffer_free(&encoder->normal);
    free(encoder);
}

static uint32_t rank_of(const Bpe *bpe, int32_t left, int32_t right) { return (uint32_t)bpe_pair(bpe, left, right)->rank; }

/* ---- Short words ---- */

/* The tokens of word[length], length 1 to SHORT_BYTES; returns how many. tokens has room for length. */
static int merge_short(const Bpe *bpe, const char *word, int length, int32_t *tokens) {
    uint32_t ranks[SHORT_BYTES];
    int count = length;
    for (int i = 0; i < count; i++) tokens[i] = bpe->of_byte[(unsigned char)word[i]];
    for (int i = 0; i + 1 < count; i++) ranks[i] = rank_of(bpe, tokens[i], tokens[i + 1]);
    while (count > 1) {
        int best = 0;
        for (int i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) break;
        tokens[best] = bpe->merges[ranks[best]].token;
        count--;
        for (int i = best + 1; i < count; i++) {
            tokens[i] = tokens[i + 1];
            ranks[i - 1] = ranks[i];
        }
        if (best > 0) ranks[best - 1] = rank_of(bpe, tokens[best - 1], tokens[best]);
        if (best + 1 < count) ranks[best] = rank_of(bpe, tokens[best], tokens[best + 1]);
    }
    return count;
}

/* ---- Long words ---- */

/* A token is noted at its first and at its last byte, so that both neighbours of a token are found. */
typedef struct {
    BpeEncoder *encoder;
    uint32_t length, heap_count;
    int32_t *tokens;        /* (length) */
    uint32_t *ranks;        /* (length) of the pair that begins at a token's first byte */
} LongWord;

static void heap_push(LongWord *w, uint32_t rank) {
    uint32_t *heap = w->encoder->heap, at = w->heap_count++;
    for (; at > 0 && heap[(at - 1) / 2] > rank; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = rank;
}

static uint32_t heap_pop(LongWord *w) {
    uint32_t *heap = w->encoder->heap, least = heap[0], last = heap[--w->heap_count], at = 0, child;
    while ((child = 2 * at + 1) < w->heap_count) {
        child += child + 1 < w->heap_count && heap[child + 1] < heap[child];
        if (heap[child] >= last) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return least;
}

/* Notes the rank of the pair that begins at `place`. */
static void note(LongWord *w, uint32_t place, uint32_t rank) {
    w->ranks[place] = rank;
    if (rank == NO_RANK) return;
    Places *places = &w->encoder->ranked[rank];
    if (places->count == 0) heap_push(w, rank);
    if (places->count == places->capacity) {
        places->capacity = places->capacity ? 2 * places->capacity : 4;
        places->places = xrealloc(places->places, places->capacity * sizeof *places->places);
    }
    places->places[places->count++] = place;
}

static uint32_t length_of(const LongWord *w, int32_t token) { return (uint32_t)w->encoder->bpe->tokens[token].length; }

/* Merges the pair of that rank at `place`; returns the lowest rank of the two pairs that this makes. */
static uint32_t merge_at(LongWord *w, uint32_t place, uint32_t rank) {
    const Bpe *bpe = w->encoder->bpe;
    BpeMerge merge = bpe->merges[rank];
    uint32_t next = place + length_of(w, merge.token), before = NO_RANK, after = NO_RANK;
    w->ranks[place + length_of(w, merge.left)] = NO_RANK;
    w->tokens[place] = w->tokens[next - 1] = merge.token;
    if (place > 0) {
        int32_t left = w->tokens[place - 1];
        before = rank_of(bpe, left, merge.token);
        note(w, place - length_of(w, left), before);
    }
    if (next < w->length) after = rank_of(bpe, merge.token, w->tokens[next]);
    note(w, place, after);
    return before < after ? before : after;
}

/* Merges all that still has the lowest rank, from left to right. The places need no sorting: no merge reaches across the ends of what
   becomes one token, so the same bytes become it by the same merges everywhere, each of which goes from left to right. A pair of a lower
   rank may come of a merge, in a list of merges that no training made: it goes first. */
static void merge_lowest(LongWord *w) {
    uint32_t rank = heap_pop(w);
    Places *places = &w->encoder->ranked[rank];
    while (places->done < places->count) {
        uint32_t place = places->places[places->done++];
        if (w->ranks[place] == rank && merge_at(w, place, rank) < rank && places->done < places->count) {
            heap_push(w, rank);
            return;
        }
    }
    free(places->places);
    *places = (Places){ 0 };
}

static void merge_long(BpeEncoder *encoder, const char *word, size_t length, TokenBuffer *out) {
    const Bpe *bpe = encoder->bpe;
    if (length >= UINT32_MAX) die("a text holds a word of %zu bytes, without a place to cut it; words have less than 4 GiB", length);
    if (!encoder->ranked) {
        encoder->ranked = xcalloc(bpe->merge_count, sizeof *encoder->ranked);
        encoder->heap = xmalloc(bpe->merge_count * sizeof *encoder->heap);
    }
    LongWord w = { encoder, (uint32_t)length, 0, xmalloc(length * sizeof *w.tokens), xmalloc(length * sizeof *w.ranks) };
    for (uint32_t i = 0; i < length; i++) w.tokens[i] = bpe->of_byte[(unsigned char)word[i]];
    for (uint32_t i = 0; i < length; i++) note(&w, i, i + 1 < length ? rank_of(bpe, w.tokens[i], w.tokens[i + 1]) : NO_RANK);
    while (w.heap_count > 0) merge_lowest(&w);
    for (uint32_t i = 0; i < length; i += length_of(&w, w.tokens[i])) out->tokens[out->count++] = w.tokens[i];
    free(w.tokens);
    free(w.ranks);
}

/* ---- Words met before ---- */

static uint64_t load(const char *bytes, size_t size) {
    uint64_t value = 0;
    memcpy(&value, bytes, size);
    return value;
}

static uint64_t mix(uint64_t h, uint64_t value) {
    h = (h ^ value) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

/* Reads every byte, some twice. */
static inline uint64_t word_hash(const char *word, size_t length) {
    uint64_t h = length;
    if (length < 4) return mix(h, load(word, 1) << 16 | load(word + length / 2, 1) << 8 | load(word + length - 1, 1));
    if (length <= 8) return mix(h, load(word, 4) << 32 | load(word + length - 4, 4));
    for (size_t i = 0; i + 8 < length; i += 8) h = mix(h, load(word + i, 8));
    return mix(h, load(word + length - 8, 8));
}

static bool is_entry(const Entry *entry, const char *word, size_t length) {
    return entry->length == length && memcmp(entry->bytes, word, length) == 0;
}

static void remember(Entry *pair, const char *word, size_t length, const int32_t *tokens, int count) {
    pair[1] = pair[0];
    pair[0].length = (uint8_t)length;
    pair[0].count = (uint8_t)count;
    memcpy(pair[0].bytes, word, length);
    memcpy(pair[0].tokens, tokens, count * sizeof *tokens);
}

/* ---- Words that are tokens ---- */

/* The slot of the token with those bytes, or the empty one where it belongs. */
static int32_t *word_slot(const Bpe *bpe, const char *word, size_t length) {
    size_t mask = ((size_t)1 << bpe->word_bits) - 1, at = word_hash(word, length) >> 8 & mask;
    for (;; at = (at + 1) & mask) {
        int32_t token = bpe->words[at];
        if (token < 0) break;
        if (bpe->tokens[token].length == length && memcmp(bpe->tokens[token].bytes, word, length) == 0) break;
    }
    return &bpe->words[at];
}

void bpe_index_words(Bpe *bpe) {
    bpe->word_bits = 8;
    while ((int64_t)1 << bpe->word_bits < 2 * bpe->vocab_size) bpe->word_bits++;
    size_t size = sizeof *bpe->words << bpe->word_bits;
    bpe->words = memset(xmalloc(size), -1, size);
    bool *added = xcalloc((size_t)bpe->vocab_size + 1, sizeof *added);
    for (int64_t i = 0; i < bpe->specials.count; i++) added[bpe->added[i].token] = true;
    for (int32_t token = 0; token < bpe->vocab_size; token++) {
        const BpeToken *t = &bpe->tokens[token];
        if (t->bytes && !added[token]) *word_slot(bpe, t->bytes, t->length) = token;
    }
    free(added);
}

/* ---- Words ---- */

/* The token that the word is, if words are taken whole, or -1. */
static int32_t whole_word(const Bpe *bpe, const char *word, size_t length) { return bpe->words ? *word_slot(bpe, word, length) : -1; }

static int encode_short(const Bpe *bpe, const char *word, int length, int32_t *tokens) {
    int32_t whole = whole_word(bpe, word, (size_t)length);
    if (whole < 0) return merge_short(bpe, word, length, tokens);
    *tokens = whole;
    return 1;
}

static void encode_long(BpeEncoder *encoder, const char *word, size_t length, TokenBuffer *out) {
    int32_t whole = whole_word(encoder->bpe, word, length);
    if (whole < 0) merge_long(encoder, word, length, out);
    else out->tokens[out->count++] = whole;
}

/* out has room for length + ENTRY_TOKENS more. */
static void encode_word(BpeEncoder *encoder, const char *word, size_t length, TokenBuffer *out) {
    int32_t *tokens = out->tokens + out->count;
    if (length > SHORT_BYTES) {
        encode_long(encoder, word, length, out);
        return;
    }
    if (length > ENTRY_BYTES) {
        out->count += encode_short(encoder->bpe, word, (int)length, tokens);
        return;
    }
    Entry *pair = encoder->cache[word_hash(word, length) >> 8 & (((size_t)1 << CACHE_BITS) - 1)];
    Entry *entry = is_entry(&pair[0], word, length) ? &pair[0] : is_entry(&pair[1], word, length) ? &pair[1] : NULL;
    if (entry) {
        memcpy(tokens, entry->tokens, sizeof entry->tokens);   /* all, which is faster than so many as there are */
        out->count += entry->count;
        return;
    }
    int count = encode_short(encoder->bpe, word, (int)length, tokens);
    if (count <= ENTRY_TOKENS) remember(pair, word, length, tokens, count);
    out->count += count;
}

/* ---- Texts ---- */

static void reserve(TokenBuffer *buffer, int64_t more) {
    if (buffer->count + more <= buffer->capacity) return;
    buffer->capacity = 2 * buffer->capacity + more;
    buffer->tokens = xrealloc(buffer->tokens, buffer->capacity * sizeof *buffer->tokens);
}

void token_buffer_free(TokenBuffer *buffer) {
    free(buffer->tokens);
    *buffer = (TokenBuffer){ 0 };
}

static void encode_words(BpeEncoder *encoder, const char *text, size_t length, TokenBuffer *out) {
    for (size_t at = 0, n; at < length; at += n) {
        n = pretoken_length(encoder->pretokenizer, text + at, length - at);
        reserve(out, (int64_t)n + ENTRY_TOKENS);
        encode_word(encoder, text + at, n, out);
    }
}

static const BpeAdded *added_of(const Bpe *bpe, const char *text, size_t size) {
    const BpeAdded *added = bpe->added;
    while (strncmp(added->text, text, size) != 0 || added->text[size]) added++;
    return added;
}

static bool takes_added(const Bpe *bpe, bool specials) {
    for (int64_t i = 0; i < bpe->specials.count; i++)
        if (specials || !bpe->added[i].special) return true;
    return false;
}

/* Bytes before the first added token of the pass that is taken, and its own; NULL and 0 if there is none. One that is not taken hides others
   in it. */
static size_t find_added(const Bpe *bpe, int pass, const char *text, size_t length, bool specials, const BpeAdded **added, size_t *size) {
    for (size_t at = 0;; at += *size) {
        at += specials_find(&bpe->passes[pass], text + at, length - at, size);
        *added = *size > 0 ? added_of(bpe, text + at, *size) : NULL;
        if (!*added || specials || !(*added)->special) return at;
    }
}

/* From that pass on. */
static void encode_pass(BpeEncoder *encoder, int pass, const char *text, size_t length, bool specials, TokenBuffer *out) {
    const Bpe *bpe = encoder->bpe;
    const BpeAdded *added;
    size_t size = 0;
    if (pass == 2) {
        encode_words(encoder, text, length, out);
        return;
    }
    if (pass == 1 && bpe->rules.nfc) text = nfc(text, &length, &encoder->normal);
    for (size_t at = 0, n; at < length; at += n + size) {
        n = find_added(bpe, pass, text + at, length - at, specials, &added, &size);
        if (n > 0) encode_pass(encoder, pass + 1, text + at, n, specials, out);
        if (!added) continue;
        reserve(out, 1);
        out->tokens[out->count++] = added->token;
    }
}

void bpe_encode(BpeEncoder *encoder, const char *text, size_t length, bool specials, TokenBuffer *out) {
    encode_pass(encoder, takes_added(encoder->bpe, specials) ? 0 : 1, text, length, specials, out);
}

/* ---- Cutting ---- */

/* If all added tokens are taken, and in one pass, the text may be cut behind one too. */
size_t bpe_cut(const Bpe *bpe, const char *text, size_t length, bool specials) {
    const Pretokenization *kind = &bpe->rules.pretokenization;
    if (!takes_added(bpe, specials)) return pretoken_cut(kind, text, length);
    if (specials && bpe->passes[1].count == 0) return specials_cut(&bpe->specials, pretoken_cut, kind, text, length);
    return specials_clear_cut(&bpe->specials, pretoken_cut, kind, text, length);
}
