/* arguments.h: the words behind a command. All die, naming the option, where a value is missing or wrong. */
#ifndef LLMC_ARGUMENTS_H
#define LLMC_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MOST_THREADS = 1024 };

typedef struct {
    int count;
    char **words;
    int at;             /* the word to look at; after true the last one that was taken */
} ArgumentList;

/* Each takes the option `--name value`, or `--name=value`; false if another word is there. */
bool argument_text(ArgumentList *list, const char *name, const char **value);
bool argument_whole(ArgumentList *list, const char *name, int64_t *value, int64_t least, int64_t most);
bool argument_number(ArgumentList *list, const char *name, double *value, double least, double most);
/* `--name value value ...`, up to the next word that begins with "--". Appends to values, which has room for all words. */
bool argument_texts(ArgumentList *list, const char *name, const char **values, int64_t *count);
/* `--name` alone. */
bool argument_flag(ArgumentList *list, const char *name, bool *value);

/* Processors that this process may use. */
int processors(void);

#ifdef __cplusplus
}
#endif
#endif
