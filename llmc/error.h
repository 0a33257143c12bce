/* error.h: how the programs fail. die() is for the user's mistake, CHECK for ours. Both print one sentence on stderr and leave
   through the same hook, which `comm` sets to abort every rank. */
#ifndef LLMC_ERROR_H
#define LLMC_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* Prints "program: message" and exits with status 1. The message says what was found, what was expected, and what to do. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Prints "program: warning: message" and goes on. */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The name that messages begin with; main() sets it once. */
void error_program_name(const char *name);

/* Called with the exit status instead of exit(); for aborting all ranks, and for tests that expect a die(). */
void error_exit_hook(void (*hook)(int status));

void check_failed(const char *expression, const char *file, int line) __attribute__((noreturn));
#define CHECK(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))

/* malloc, calloc and realloc that die when memory runs out. */
void *xmalloc(unsigned long bytes);
void *xcalloc(unsigned long count, unsigned long bytes);
void *xrealloc(void *memory, unsigned long bytes);
char *xstrdup(const char *text);
/* sprintf into fresh memory; free() it. */
char *xprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
