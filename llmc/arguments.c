/* arguments.c: see arguments.h. */
#define _GNU_SOURCE   /* sched_getaffinity */
#include "arguments.h"
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

bool argument_text(ArgumentList *list, const char *name, const char **value) {
    const char *word = list->words[list->at];
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0 || (word[length] && word[length] != '=')) return false;
    if (!word[length] && list->at + 1 >= list->count) die("%s needs a value; see tokenizer --help", name);
    *value = word[length] ? word + length + 1 : list->words[++list->at];
    return true;
}

bool argument_whole(ArgumentList *list, const char *name, int64_t *value, int64_t least, int64_t most) {
    const char *text;
    char *end;
    if (!argument_text(list, name, &text)) return false;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (end == text || *end || errno || *value < least || *value > most)
        die("%s is '%s'; expected a whole number from %" PRId64 " to %" PRId64, name, text, least, most);
    return true;
}

bool argument_number(ArgumentList *list, const char *name, double *value, double least, double most) {
    const char *text;
    char *end;
    if (!argument_text(list, name, &text)) return false;
    *value = strtod(text, &end);
    if (end == text || *end || !(*value >= least && *value <= most))
        die("%s is '%s'; expected a number from %g to %g", name, text, least, most);
    return true;
}

bool argument_texts(ArgumentList *list, const char *name, const char **values, int64_t *count) {
    if (!argument_text(list, name, &values[*count])) return false;
    ++*count;
    while (list->at + 1 < list->count && strncmp(list->words[list->at + 1], "--", 2) != 0) values[(*count)++] = list->words[++list->at];
    return true;
}

bool argument_flag(ArgumentList *list, const char *name, bool *value) {
    bool found = strcmp(list->words[list->at], name) == 0;
    *value |= found;
    return found;
}

int processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}
