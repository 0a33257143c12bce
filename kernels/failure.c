/* failure.c: how the backends end the program. */
#include "ops.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void (*on_failure)(const char *message);

void backend_on_failure(void (*hook)(const char *message)) { on_failure = hook; }

void backend_fail(const char *format, ...) {
    char message[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (on_failure) on_failure(message);
    fprintf(stderr, "%s\n", message);
    exit(1);
}
