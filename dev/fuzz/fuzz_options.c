/* fuzz_options.c: an option file that is read leaves every option within its range, and printing the options and reading that gives
   the same again. */
#include "llmc/error.h"
#include "llmc/options.h"

#include <stdlib.h>
#include <string.h>

static bool is_text(const OptionRow *row) { return row->kind == OPTION_TEXT; }

static void check_row(const OptionRow *row, const Options *options) {
    const char *field = (const char *)options + row->value;
    double real = row->kind == OPTION_REAL ? *(const double *)field : 0;
    int64_t integer = row->kind == OPTION_REAL || is_text(row) ? 0 : *(const int64_t *)field;
    if (row->kind == OPTION_REAL) CHECK(real >= row->least && real <= row->most);
    if (row->kind == OPTION_INT || row->kind == OPTION_FLAG) CHECK(integer >= row->least && integer <= row->most);
    if (row->kind == OPTION_CHOICE) CHECK(integer >= 0);
    char error[ERROR_SIZE], *text = options_format(row, options);
    static Options copy;   /* all NULL at first; set field by field */
    CHECK(options_set(&train_options, &copy, row->name, text, FROM_COMMAND_LINE, error));
    char *again = options_format(row, &copy);
    CHECK(strcmp(text, again) == 0);
    if (row->kind == OPTION_REAL) CHECK(real == *(const double *)((const char *)&copy + row->value));
    free(text);
    free(again);
}

static bool was_set(const OptionRow *row, const Options *options) {
    return row->kind != OPTION_SECTION && *(const OptionSource *)((const char *)options + row->source) == FROM_FILE;
}

/* What options_defaults does, some ten times as fast. */
static void copy_defaults(Options *options) {
    static Options defaults;
    if (!defaults.model) options_defaults(&defaults);
    *options = defaults;
    for (int i = 0; i < train_options.count; i++) {
        char **text = (char **)((char *)options + train_options.rows[i].value);
        if (is_text(&train_options.rows[i])) *text = xstrdup(*text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[ERROR_SIZE] = "";
    Options options;
    copy_defaults(&options);
    if (options_parse_text(&options, (const char *)data, size, "input", error)) {
        for (int i = 0; i < train_options.count; i++)
            if (was_set(&train_options.rows[i], &options)) check_row(&train_options.rows[i], &options);
    } else {
        CHECK(strncmp(error, "input", 5) == 0 && strlen(error) < ERROR_SIZE && !strchr(error, '\n'));
    }
    options_release(&train_options, &options);
    return 0;
}
