/* error.c: see error.h. Messages are put together first and written at once, so that those of several ranks do not mix. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *program = "train_gpt";
static void (*exit_hook)(int status);

void error_program_name(const char *name) {
    const char *slash = strrchr(name, '/');
    program = slash ? slash + 1 : name;
}

void error_exit_hook(void (*hook)(int status)) { exit_hook = hook; }

/* One line whatever the message quotes: a file name may hold a newline or an escape sequence of the terminal. */
static void print_line(const char *kind, const char *format, va_list arguments) {
    char message[2048];
    vsnprintf(message, sizeof message, format, arguments);
    for (char *c = message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", program, kind, message);
}

static void leave(void) __attribute__((noreturn));
static void leave(void) {
    if (exit_hook) exit_hook(EXIT_FAILURE);
    exit(EXIT_FAILURE);
}

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line("", format, arguments);
    va_end(arguments);
    leave();
}

void warn(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line("warning: ", format, arguments);
    va_end(arguments);
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
