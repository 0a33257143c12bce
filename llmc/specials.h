/* specials.h: special tokens in a text: where they are, and where the text may be cut without cutting one. Read from left to right, the
   longest that begins at a place is taken. */
#ifndef LLMC_SPECIALS_H
#define LLMC_SPECIALS_H

#include "pretokenize.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char **sorted;           /* (count) the caller's texts, in the order of their bytes */
    size_t longest;
    int64_t count;
    bool begins[256];              /* with this byte */
} Specials;

/* The texts stay the caller's. False with a sentence if one is empty or given twice. */
bool specials_init(Specials *specials, const char *const *texts, int64_t count, char error[ERROR_SIZE]);
void specials_free(Specials *specials);

/* Bytes before the first special token in text[length], whose bytes go to *size; length, and *size 0, if there is none. */
size_t specials_find(const Specials *specials, const char *text, size_t length, size_t *size);

/* The last place in text[length] where `cut`, given `context`, may cut it, and which no special token goes across: both parts give the special
   tokens, and what lies between them, that the whole would. 0 if there is none. cut looks only at what lies beside a place. */
size_t specials_clear_cut(const Specials *specials, TextCut cut, const void *context, const char *text, size_t length);
/* The same; else the end of the last special token, if all of them are taken as such. The text begins where one may begin. */
size_t specials_cut(const Specials *specials, TextCut cut, const void *context, const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif
