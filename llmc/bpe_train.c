/* bpe_train.c: see bpe_train.h. The distinct pre-tokens lie one after the other, a slot a byte. A token is written into its first and its
   last slot, so that its neighbours are found in both directions; slots between, and one between pre-tokens, are EMPTY.

   A pair lists the places where it was when it came into being. They only become fewer: two tokens can become neighbours only when the
   later of the two is made, which happens in one merge and never again. So a list is written once, with its exact length, and read once,
   when the pair is merged; and a count only falls, so that an outdated entry of the heap is noticed when it comes to the top. All merges
   together take time in proportion to the slots, and a logarithm for the heap. */
#include "bpe_train.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES = 256, EMPTY = -1, CLASS_SHIFT = 6, LIST_BLOCK = 1 << 14, LONG_LIST = 1 << 10 };

typedef uint32_t Place;                /* of a slot */

typedef struct {
    int32_t left, right;
    int64_t count;
    Place *places;                     /* ascending; some may be outdated */
    uint32_t place_count;
} Pair;

typedef struct {
    int64_t count;                     /* when it was put here; the pair's own may have fallen since */
    uint32_t pair;
} HeapEntry;

typedef struct {
    Place first;                       /* a place where its bytes are */
    uint32_t length;
} Token;

/* What a merge counts of one neighbour of the new token. */
typedef struct {
    int64_t count;
    uint32_t place_count;
    Place *next;                       /* where its next place is listed */
} Neighbour;

/* The neighbours on one side, by token. */
typedef struct {
    Neighbour *of;
    int32_t *met;
    int64_t met_count;
} Side;

typedef struct ListBlock {
    struct ListBlock *next;
    Place places[LIST_BLOCK];
} ListBlock;

/* Pre-tokens lie in order of their counts, so that those of one count, a class, are neighbours. */
typedef struct {
    int64_t count;
    Place end;
} Class;

struct BpeTrainer {
    char *bytes;                       /* of the slots; 0 between pre-tokens */
    int32_t *slots;
    Place slot_count;
    Class *classes;
    uint32_t *class_of;                /* of the first of every 2^CLASS_SHIFT slots */
    Token *tokens;
    BpeMerge *merges;
    int64_t merge_count, merge_capacity;
    Pair *pairs;
    uint32_t *pair_table;              /* open addressing; a pair's number and 1, or 0 */
    uint32_t pair_count, pair_capacity;
    HeapEntry *heap;                   /* the pairs whose count is at least heap_floor, greatest first */
    int64_t heap_count, heap_capacity, heap_floor;
    Side left, right;
    ListBlock *list_blocks;
    size_t list_room;
    BpeTrainerReport report;
};

/* ---- Slots ---- */

static int falling(const void *a, const void *b) {
    int64_t x = ((const CountedPretoken *)a)->count, y = ((const CountedPretoken *)b)->count;
    return (x < y) - (x > y);
}

static void take_class(BpeTrainer *t, int64_t *class_count, int64_t count, Place end) {
    if (*class_count == 0 || t->classes[*class_count - 1].count != count) {
        if ((*class_count & (*class_count - 1)) == 0)   /* 0 or a power of 2 */
            t->classes = xrealloc(t->classes, (size_t)(*class_count ? 2 * *class_count : 1) * sizeof(Class));
        t->classes[(*class_count)++].count = count;
    }
    t->classes[*class_count - 1].end = end;
}

static void fill_class_of(BpeTrainer *t) {
    t->class_of = xmalloc(((t->slot_count >> CLASS_SHIFT) + 1) * sizeof *t->class_of);
    uint32_t class = 0;
    for (uint64_t at = 0; at < t->slot_count; at += 1 << CLASS_SHIFT) {
        while (at >= t->classes[class].end) class++;
        t->class_of[at >> CLASS_SHIFT] = class;
    }
}

static int64_t count_at(const BpeTrainer *t, Place place) {
    const Class *class = &t->classes[t->class_of[place >> CLASS_SHIFT]];
    while (place >= class->end) class++;
    return class->count;
}

static bool fill_slots(BpeTrainer *t, PretokenCounts *counts, char error[ERROR_SIZE]) {
    uint64_t slots = 1;
    for (int64_t i = 0; i < counts->distinct; i++) slots += counts->pretokens[i].length + 1;
    if (slots > UINT32_MAX)
        return file_error(error, "the distinct pre-tokens of the text have %.1f GiB, where less than 4 are possible; train on a part of it",
                          (double)slots / (1 << 30));
    qsort(counts->pretokens, (size_t)counts->distinct, sizeof *counts->pretokens, falling);
    t->slot_count = (Place)slots;
    t->bytes = xcalloc(slots, 1);
    t->slots = xmalloc(slots * sizeof *t->slots);
    int64_t class_count = 0;
    Place at = 0;
    t->slots[at++] = EMPTY;
    for (int64_t i = 0; i < counts->distinct; i++) {
        const CountedPretoken *p = &counts->pretokens[i];
        memcpy(t->bytes + at, p->bytes, p->length);
        for (uint64_t k = 0; k < p->length; k++) t->slots[at++] = (unsigned char)p->bytes[k];
        t->slots[at++] = EMPTY;
        take_class(t, &class_count, p->count, at);
        t->report.tokens += p->count * (int64_t)p->length;
    }
    fill_class_of(t);
    return true;
}

/* ---- Lists of places ---- */

/* Short ones lie in blocks; long ones have their own memory, which comes back when their pair is merged. */
static Place *list_take(BpeTrainer *t, uint32_t count) {
    if (count >= LONG_LIST) return xmalloc(count * sizeof(Place));
    if (count > t->list_room) {
        ListBlock *block = xmalloc(sizeof *block);
        block->next = t->list_blocks;
        t->list_blocks = block;
        t->list_room = LIST_BLOCK;
    }
    t->list_room -= count;
    return t->list_blocks->places + t->list_room;
}

static void list_free(Pair *pair) {
    if (pair->place_count >= LONG_LIST) free(pair->places);
    pair->places = NULL;
    pair->place_count = 0;
}

/* ---- Pairs ---- */

static uint64_t pair_hash(int32_t left, int32_t right) {
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u >> 32;
}

/* Where the pair stands in the table, or the free place where it would. The table has twice the capacity for pairs, a power of 2. */
static uint32_t *pair_slot(const BpeTrainer *t, int32_t left, int32_t right) {
    uint64_t mask = 2 * (uint64_t)t->pair_capacity - 1;
    for (uint64_t i = pair_hash(left, right) & mask;; i = (i + 1) & mask) {
        uint32_t number = t->pair_table[i];
        if (number == 0 || (t->pairs[number - 1].left == left && t->pairs[number - 1].right == right)) return &t->pair_table[i];
    }
}

static void pairs_grow(BpeTrainer *t) {
    CHECK(t->pair_capacity < (uint32_t)1 << 31);
    t->pair_capacity *= 2;
    t->pairs = xrealloc(t->pairs, t->pair_capacity * sizeof *t->pairs);
    free(t->pair_table);
    t->pair_table = xcalloc(2 * (size_t)t->pair_capacity, sizeof *t->pair_table);
    for (uint32_t i = 0; i < t->pair_count; i++) *pair_slot(t, t->pairs[i].left, t->pairs[i].right) = i + 1;
}

static const char *token_bytes(const BpeTrainer *t, int32_t token) { return t->bytes + t->tokens[token].first; }

static int compare_tokens(const BpeTrainer *t, int32_t a, int32_t b) {
    if (a == b) return 0;
    uint32_t m = t->tokens[a].length, n = t->tokens[b].length;
    int order = memcmp(token_bytes(t, a), token_bytes(t, b), m < n ? m : n);
    return order ? order : (m > n) - (m < n);
}

/* Whether x is to be merged before y. */
static bool goes_before(const BpeTrainer *t, HeapEntry x, HeapEntry y) {
    if (x.count != y.count) return x.count > y.count;
    const Pair *p = &t->pairs[x.pair], *q = &t->pairs[y.pair];
    int order = compare_tokens(t, p->left, q->left);
    return (order ? order : compare_tokens(t, p->right, q->right)) > 0;
}

static void sift_down(BpeTrainer *t, int64_t at) {
    HeapEntry moved = t->heap[at];
    for (int64_t child; (child = 2 * at + 1) < t->heap_count; at = child) {
        if (child + 1 < t->heap_count && goes_before(t, t->heap[child + 1], t->heap[child])) child++;
        if (!goes_before(t, t->heap[child], moved)) break;
        t->heap[at] = t->heap[child];
    }
    t->heap[at] = moved;
}

static void heap_append(BpeTrainer *t, uint32_t pair) {
    if (t->heap_count == t->heap_capacity) {
        t->heap_capacity = t->heap_capacity ? 2 * t->heap_capacity : 1024;
        t->heap = xrealloc(t->heap, (size_t)t->heap_capacity * sizeof *t->heap);
    }
    t->heap[t->heap_count++] = (HeapEntry){ t->pairs[pair].count, pair };
}

static void heap_push(BpeTrainer *t, uint32_t pair) {
    heap_append(t, pair);
    int64_t at = t->heap_count - 1;
    HeapEntry moved = t->heap[at];
    for (; at > 0 && goes_before(t, moved, t->heap[(at - 1) / 2]); at = (at - 1) / 2) t->heap[at] = t->heap[(at - 1) / 2];
    t->heap[at] = moved;
}

static void heap_replace_top(BpeTrainer *t, bool keep) {
    HeapEntry top = t->heap[0];
    t->heap[0] = keep ? (HeapEntry){ t->pairs[top.pair].count, top.pair } : t->heap[--t->heap_count];
    if (t->heap_count > 0) sift_down(t, 0);
}

/* The many rare pairs stay outside until the frequent ones are used up. False if no pair is left. */
static bool heap_refill(BpeTrainer *t) {
    int64_t greatest = 0;
    for (uint32_t i = 0; i < t->pair_count; i++)
        if (t->pairs[i].count > greatest) greatest = t->pairs[i].count;
    t->heap_floor = greatest / 4 + 1;
    t->heap_count = 0;
    for (uint32_t i = 0; i < t->pair_count; i++)
        if (t->pairs[i].count >= t->heap_floor) heap_append(t, i);
    for (int64_t i = t->heap_count / 2; i-- > 0;) sift_down(t, i);
    return greatest > 0;
}

/* The pair to merge, or -1. */
static int64_t best_pair(BpeTrainer *t) {
    do {
        while (t->heap_count > 0) {
            HeapEntry top = t->heap[0];
            int64_t count = t->pairs[top.pair].count;
            if (count == top.count) return top.pair;
            heap_replace_top(t, count >= t->heap_floor);
        }
    } while (heap_refill(t));
    return -1;
}

/* Returns where its places go. One that would be too long a token is never counted. */
static Place *pair_add(BpeTrainer *t, int32_t left, int32_t right, int64_t count, uint32_t place_count) {
    if (t->tokens[left].length + t->tokens[right].length > BPE_LONGEST_TOKEN) count = 0;
    if (t->pair_count == t->pair_capacity) pairs_grow(t);
    uint32_t number = t->pair_count++;
    t->pairs[number] = (Pair){ left, right, count, list_take(t, place_count), place_count };
    *pair_slot(t, left, right) = number + 1;
    if (count >= t->heap_floor) heap_push(t, number);
    return t->pairs[number].places;
}

/* ---- The pairs of single bytes ---- */

static void count_bytes(const BpeTrainer *t, Neighbour *of) {
    for (Place at = 1; at + 1 < t->slot_count; at++) {
        if (t->slots[at] == EMPTY || t->slots[at + 1] == EMPTY) continue;
        Neighbour *pair = &of[t->slots[at] * BYTES + t->slots[at + 1]];
        pair->count += count_at(t, at);
        pair->place_count++;
    }
}

static void list_bytes(BpeTrainer *t) {
    Neighbour *of = xcalloc(BYTES * BYTES, sizeof *of);
    count_bytes(t, of);
    t->heap_floor = INT64_MAX;
    for (int i = 0; i < BYTES * BYTES; i++)
        if (of[i].place_count) of[i].next = pair_add(t, i / BYTES, i % BYTES, of[i].count, of[i].place_count);
    for (Place at = 1; at + 1 < t->slot_count; at++)
        if (t->slots[at] != EMPTY && t->slots[at + 1] != EMPTY) *of[t->slots[at] * BYTES + t->slots[at + 1]].next++ = at;
    free(of);
}

/* ---- A merge ---- */

static void side_grow(Side *side, int64_t used, int64_t capacity) {
    side->of = xrealloc(side->of, (size_t)capacity * sizeof *side->of);
    side->met = xrealloc(side->met, (size_t)capacity * sizeof *side->met);
    memset(side->of + used, 0, (size_t)(capacity - used) * sizeof *side->of);
}

static void tokens_grow(BpeTrainer *t) {
    int64_t used = t->merge_capacity ? BYTES + t->merge_capacity : 0;
    t->merge_capacity = t->merge_capacity ? 2 * t->merge_capacity : 1024;
    t->merges = xrealloc(t->merges, (size_t)t->merge_capacity * sizeof *t->merges);
    t->tokens = xrealloc(t->tokens, (size_t)(BYTES + t->merge_capacity) * sizeof *t->tokens);
    side_grow(&t->left, used, BYTES + t->merge_capacity);
    side_grow(&t->right, used, BYTES + t->merge_capacity);
}

/* The number of a new token made of those two, whose bytes are at that place. */
static int32_t token_add(BpeTrainer *t, int32_t left, int32_t right, Place first) {
    if (t->merge_count == t->merge_capacity) tokens_grow(t);
    int32_t made = (int32_t)(BYTES + t->merge_count);
    t->merges[t->merge_count++] = (BpeMerge){ left, right, made };
    t->tokens[made] = (Token){ first, t->tokens[left].length + t->tokens[right].length };
    return made;
}

/* Writes the new token wherever its two parts still are neighbours, from left to right; returns at how many places, which then come first
   in the list. */
static uint32_t write_token(BpeTrainer *t, const Pair *pair, int32_t made) {
    uint32_t left_length = t->tokens[pair->left].length, length = t->tokens[made].length, written = 0;
    for (uint32_t i = 0; i < pair->place_count; i++) {
        Place at = pair->places[i];
        if (t->slots[at] != pair->left || t->slots[at + left_length] != pair->right) continue;
        t->slots[at + left_length] = EMPTY;
        t->slots[at] = t->slots[at + length - 1] = made;
        pair->places[written++] = at;
    }
    return written;
}

static void meet(Side *side, int32_t token, int64_t count) {
    Neighbour *n = &side->of[token];
    if (n->place_count++ == 0) side->met[side->met_count++] = token;
    n->count += count;
}

/* Where the new token follows itself, the left one of the two counts the pair. */
static void count_neighbours(BpeTrainer *t, const Place *places, uint32_t place_count, int32_t made) {
    for (uint32_t i = 0; i < place_count; i++) {
        int64_t count = count_at(t, places[i]);
        int32_t before = t->slots[places[i] - 1], after = t->slots[places[i] + t->tokens[made].length];
        if (before != EMPTY && before != made) meet(&t->left, before, count);
        if (after != EMPTY) meet(&t->right, after, count);
        t->report.tokens -= count;
    }
}

static void pair_lose(BpeTrainer *t, int32_t left, int32_t right, int64_t count) {
    t->pairs[*pair_slot(t, left, right) - 1].count -= count;
}

/* Whatever stands beside the new token was beside one of its parts before: the pairs with the new token take over what those lose. A new
   token on the right began with the pair's left part. */
static void replace_pairs(BpeTrainer *t, Pair merged, int32_t made) {
    for (int64_t i = 0; i < t->left.met_count; i++) {
        int32_t before = t->left.met[i];
        Neighbour *n = &t->left.of[before];
        pair_lose(t, before, merged.left, n->count);
        n->next = pair_add(t, before, made, n->count, n->place_count);
    }
    for (int64_t i = 0; i < t->right.met_count; i++) {
        int32_t after = t->right.met[i];
        Neighbour *n = &t->right.of[after];
        pair_lose(t, merged.right, after == made ? merged.left : after, n->count);
        n->next = pair_add(t, made, after, n->count, n->place_count);
    }
}

static void list_neighbours(BpeTrainer *t, const Place *places, uint32_t place_count, int32_t made) {
    for (uint32_t i = 0; i < place_count; i++) {
        int32_t before = t->slots[places[i] - 1], after = t->slots[places[i] + t->tokens[made].length];
        if (before != EMPTY && before != made) *t->left.of[before].next++ = places[i] - t->tokens[before].length;
        if (after != EMPTY) *t->right.of[after].next++ = places[i];
    }
}

static void side_clear(Side *side) {
    for (int64_t i = 0; i < side->met_count; i++) side->of[side->met[i]] = (Neighbour){ 0 };
    side->met_count = 0;
}

static void merge(BpeTrainer *t, uint32_t number) {
    Pair merged = t->pairs[number];
    int32_t made = token_add(t, merged.left, merged.right, merged.places[0]);
    uint32_t written = write_token(t, &merged, made);
    count_neighbours(t, merged.places, written, made);
    replace_pairs(t, merged, made);
    list_neighbours(t, merged.places, written, made);
    side_clear(&t->left);
    side_clear(&t->right);
    t->pairs[number].count = 0;
    list_free(&t->pairs[number]);
}

/* ---- The whole ---- */

static void name_bytes(BpeTrainer *t) {
    tokens_grow(t);
    for (Place at = 1; at < t->slot_count; at++)
        if (t->slots[at] != EMPTY) t->tokens[t->slots[at]] = (Token){ at, 1 };
}

BpeTrainer *bpe_trainer_open(const Corpus *corpus, char error[ERROR_SIZE]) {
    PretokenCounts counts;
    if (!pretoken_count(&counts, corpus, error)) return NULL;
    BpeTrainer *t = xcalloc(1, sizeof *t);
    t->report = (BpeTrainerReport){ counts.bytes, counts.total, counts.distinct, counts.specials };
    bool good = counts.total > 0 ? fill_slots(t, &counts, error)
                                 : file_error(error, "the input holds no text to learn from; give at least one file that is not empty");
    pretoken_counts_free(&counts);
    if (!good) {
        bpe_trainer_close(t);
        return NULL;
    }
    t->pair_capacity = 1 << 16;
    t->pairs = xmalloc(t->pair_capacity * sizeof *t->pairs);
    t->pair_table = xcalloc(2 * (size_t)t->pair_capacity, sizeof *t->pair_table);
    name_bytes(t);
    list_bytes(t);
    return t;
}

void bpe_trainer_close(BpeTrainer *t) {
    for (uint32_t i = 0; i < t->pair_count; i++) list_free(&t->pairs[i]);
    for (ListBlock *block = t->list_blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    void *const all[] = { t->bytes, t->slots, t->classes, t->class_of, t->tokens, t->merges, t->pairs, t->pair_table, t->heap,
                          t->left.of, t->left.met, t->right.of, t->right.met };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(t);
}

int64_t bpe_trainer_merge(BpeTrainer *t, int64_t count) {
    int64_t made = 0, best;
    for (; made < count && (best = best_pair(t)) >= 0; made++) merge(t, (uint32_t)best);
    return made;
}

const BpeMerge *bpe_trainer_merges(const BpeTrainer *t, int64_t *count) {
    *count = t->merge_count;
    return t->merges;
}

BpeTrainerReport bpe_trainer_report(const BpeTrainer *t) { return t->report; }
