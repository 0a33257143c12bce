/* error.c: see error.h. Messages are put together first and written at once, so that those of several ranks do not mix. */
#include "error.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 2048 };

static const char *program = "train_gpt", *line_begin = "";
static void (*exit_hook)(int status);
static bool (*report_hook)(const char *message);

void error_program_name(const char *name) {
    const char *slash = strrchr(name, '/');
    program = slash ? slash + 1 : name;
}

void error_begin_lines(const char *bytes) { line_begin = bytes; }
void error_exit_hook(void (*hook)(int status)) { exit_hook = hook; }
void error_report_hook(bool (*hook)(const char *message)) { report_hook = hook; }

/* One line whatever the message quotes: a file name may hold a newline or an escape sequence of the terminal. */
static void put_together(char *message, size_t size, const char *format, va_list arguments) {
    vsnprintf(message, size, format, arguments);
    for (char *c = message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
}

/* Another thread may be stuck within stdout, as on a pipe that nobody reads: then its text is not waited for. */
void error_flush(void) {
    struct pollfd room = {.fd = STDOUT_FILENO, .events = POLLOUT};
    if (poll(&room, 1, 0) != 1 || ftrylockfile(stdout) != 0) return;
    fflush(stdout);
    funlockfile(stdout);
}

void require_output(void) {
    errno = 0;
    bool good = fflush(stdout) == 0 && !ferror(stdout);
    if (!good) die("standard output could not be written%s%s", errno ? ": " : "", errno ? strerror(errno) : "");
}

void error_print(const char *message) {
    char line[MESSAGE_SIZE + 256];
    int length = snprintf(line, sizeof line - 1, "%s%s: %s", isatty(STDERR_FILENO) ? line_begin : "", program, message);
    if (length < 0 || length > (int)sizeof line - 2) length = (int)strlen(line);
    line[length++] = '\n';
    error_flush();
    for (int sent = 0, n; sent < length; sent += n) {
        n = (int)write(STDERR_FILENO, line + sent, (size_t)(length - sent));
        if (n < 0 && errno == EINTR) n = 0;
        if (n < 0) return;
    }
}

static void leave(void) __attribute__((noreturn));
static void leave(void) {
    if (exit_hook) exit_hook(EXIT_FAILURE);
    exit(EXIT_FAILURE);
}

void die(const char *format, ...) {
    char message[MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    put_together(message, sizeof message, format, arguments);
    va_end(arguments);
    if (!report_hook || !report_hook(message)) error_print(message);
    leave();
}

void warn(const char *format, ...) {
    char message[MESSAGE_SIZE] = "warning: ";
    size_t used = strlen(message);
    va_list arguments;
    va_start(arguments, format);
    put_together(message + used, sizeof message - used, format, arguments);
    va_end(arguments);
    error_print(message);
}

void check_failed(const char *expression, const char *file, int line) {
    die("internal error: CHECK(%s) failed at %s:%d; this is a bug of the program, please report it", expression, file, line);
}

static void *allocated(void *memory, double bytes) {
    if (!memory) die("out of memory: %.1f MiB more were needed; choose a smaller model or batch", bytes / (1 << 20));
    return memory;
}

void *xmalloc(unsigned long bytes) { return allocated(malloc(bytes ? bytes : 1), bytes); }

void *xcalloc(unsigned long count, unsigned long bytes) {
    return allocated(count && bytes ? calloc(count, bytes) : calloc(1, 1), (double)count * bytes);
}

void *xrealloc(void *memory, unsigned long bytes) { return allocated(realloc(memory, bytes ? bytes : 1), bytes); }

char *xstrdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(xmalloc(bytes), text, bytes);
}

char *xprintf(const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    CHECK(length >= 0);
    char *text = xmalloc(length + 1);
    vsnprintf(text, length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}
