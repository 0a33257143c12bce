/* error.h: how the programs fail. die() is for the user's mistake, CHECK for ours. Both print one sentence on stderr and leave
   through the same hooks, which a team of processes sets: rank 0 prints, and every rank ends. */
#ifndef LLMC_ERROR_H
#define LLMC_ERROR_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Prints "program: message" and exits with status 1. The message says what was found, what was expected, and what to do. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Prints "program: warning: message" and goes on. */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints "program: message" and a newline on stderr, at once: for who was given the sentence of another rank. */
void error_print(const char *message);
/* Writes out what stdout holds, unless that could take forever: before _exit(). */
void error_flush(void);

/* Dies if anything that was printed did not get to standard output, as on a full disk: at the end of a program that prints what it was asked for. */
void require_output(void);

/* Bytes before every message from now on, where stderr is a terminal: what takes away a line of progress that stands half drawn there, in the same
   write, so that whichever thread has something to say, its message is a line of its own. A string that stays. "": none. */
void error_begin_lines(const char *bytes);

/* The name that messages begin with; main() sets it once. */
void error_program_name(const char *name);

/* Called with the exit status instead of exit(); for aborting all ranks, and for tests that expect a die(). */
void error_exit_hook(void (*hook)(int status));
/* Given the sentence of a die() before it is printed; true: it has been told to the user elsewhere (on rank 0's terminal) and is not printed here. */
void error_report_hook(bool (*hook)(const char *message));

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
