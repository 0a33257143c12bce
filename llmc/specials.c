/* specials.c: see specials.h. */
#include "specials.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

static int in_order(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

bool specials_init(Specials *specials, const char *const *texts, int64_t count, char error[ERROR_SIZE]) {
    const char **sorted = xcalloc((size_t)count, sizeof *sorted);
    *specials = (Specials){ .sorted = sorted, .count = count };
    for (int64_t i = 0; i < count; i++) sorted[i] = texts[i];
    qsort(sorted, (size_t)count, sizeof *sorted, in_order);
    for (int64_t i = 0; i < count; i++) {
        if (!*sorted[i]) return file_error(error, "a special token is empty; it needs at least one letter");
        if (i > 0 && strcmp(sorted[i - 1], sorted[i]) == 0)
            return file_error(error, "the special token '%s' is given twice; give each once", sorted[i]);
        size_t length = strlen(sorted[i]);
        if (length > specials->longest) specials->longest = length;
        specials->begins[(unsigned char)*sorted[i]] = true;
    }
    return true;
}

void specials_free(Specials *specials) {
    free(specials->sorted);
    *specials = (Specials){ 0 };
}

/* The first of sorted[from ... to), all alike before that place, whose byte there is at least `byte`. */
static int64_t first_with(const Specials *specials, int64_t from, int64_t to, size_t place, int byte) {
    while (from < to) {
        int64_t middle = from + (to - from) / 2;
        if ((unsigned char)specials->sorted[middle][place] < byte) from = middle + 1;
        else to = middle;
    }
    return from;
}

/* Bytes of the longest special token that text[length] begins with, or 0. Of several, the shortest are the first. */
static size_t longest_at(const Specials *specials, const char *text, size_t length) {
    size_t longest = 0;
    int64_t from = 0, to = specials->count;
    for (size_t place = 0; from < to; place++) {
        if (!specials->sorted[from][place]) {
            longest = place;
            from++;
        }
        if (place == length) break;
        int byte = (unsigned char)text[place];
        from = first_with(specials, from, to, place, byte);
        to = first_with(specials, from, to, place, byte + 1);
    }
    return longest;
}

size_t specials_find(const Specials *specials, const char *text, size_t length, size_t *size) {
    *size = 0;
    if (specials->count == 0) return length;
    for (size_t at = 0; at < length; at++)
        if (specials->begins[(unsigned char)text[at]] && (*size = longest_at(specials, text + at, length - at)) > 0) return at;
    return length;
}

/* Where a special token begins that goes on behind `cut`, or `cut` if there is none. Every place is looked at, taken or not. */
static size_t straddling(const Specials *specials, const char *text, size_t length, size_t cut) {
    size_t first = cut + 1 > specials->longest ? cut + 1 - specials->longest : 0;
    for (size_t at = first; at < cut; at++)
        if (specials->begins[(unsigned char)text[at]] && longest_at(specials, text + at, length - at) > cut - at) return at;
    return cut;
}

/* The end of the last special token of which it is certain that it is taken. */
static size_t end_of_last(const Specials *specials, const char *text, size_t length) {
    size_t size, end = 0, at = 0;
    while ((at += specials_find(specials, text + at, length - at, &size)) + specials->longest <= length && size > 0) end = at += size;
    return end;
}

size_t specials_clear_cut(const Specials *specials, TextCut cut, const void *context, const char *text, size_t length) {
    if (specials->count == 0) return cut(context, text, length);
    if (length < specials->longest) return 0;
    /* So far from the end that every special token which goes on behind the cut is whole. */
    size_t place = cut(context, text, length - specials->longest + 1);
    while (place > 0) {
        size_t start = straddling(specials, text, length, place);
        if (start == place) return place;
        place = cut(context, text, start);
    }
    return 0;
}

size_t specials_cut(const Specials *specials, TextCut cut, const void *context, const char *text, size_t length) {
    size_t place = specials_clear_cut(specials, cut, context, text, length);
    return place || specials->count == 0 ? place : end_of_last(specials, text, length);
}
