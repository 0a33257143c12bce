/* options.c: the option tables, and the code that reads, checks and prints any of them. */
#include "options.h"

#include "error.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SECTION_ROW(title) {OPTION_SECTION, 0, title, 0, 0, "", "", "", 0, 0},
#define REAL_ROW(letter, field, fallback, least, most, help)                                                                        \
    {OPTION_REAL, letter, #field, least, most, "", #fallback, help, offsetof(STRUCT, field), offsetof(STRUCT, from.field)},
#define INT_ROW(letter, field, fallback, least, most, help)                                                                         \
    {OPTION_INT, letter, #field, least, most, "", #fallback, help, offsetof(STRUCT, field), offsetof(STRUCT, from.field)},
#define FLAG_ROW(letter, field, fallback, help)                                                                                     \
    {OPTION_FLAG, letter, #field, 0, 1, "", #fallback, help, offsetof(STRUCT, field), offsetof(STRUCT, from.field)},
#define CHOICE_ROW(letter, field, fallback, choices, help)                                                                          \
    {OPTION_CHOICE, letter, #field, 0, 0, choices, fallback, help, offsetof(STRUCT, field), offsetof(STRUCT, from.field)},
#define TEXT_ROW(letter, field, fallback, help)                                                                                     \
    {OPTION_TEXT, letter, #field, 0, 0, "", fallback, help, offsetof(STRUCT, field), offsetof(STRUCT, from.field)},

#define STRUCT Options
static const OptionRow train_rows[] = {TRAIN_OPTIONS(SECTION_ROW, REAL_ROW, INT_ROW, FLAG_ROW, CHOICE_ROW, TEXT_ROW)};
#undef STRUCT
#define STRUCT SampleOptions
static const OptionRow sample_rows[] = {SAMPLE_OPTIONS(SECTION_ROW, REAL_ROW, INT_ROW, FLAG_ROW, CHOICE_ROW, TEXT_ROW)};
#undef STRUCT

const OptionTable train_options = {train_rows, sizeof train_rows / sizeof *train_rows,
    "train_gpt [options]: trains a GPT.\n"
    "Without options it trains a small character model on the default text, which `make train_gpt` prepares."};
const OptionTable sample_options = {sample_rows, sizeof sample_rows / sizeof *sample_rows,
    "sample_gpt [options]: writes text with a trained model."};

static int64_t *integer_field(const OptionRow *row, void *values) { return (int64_t *)((char *)values + row->value); }
static double *real_field(const OptionRow *row, void *values) { return (double *)((char *)values + row->value); }
static char **text_field(const OptionRow *row, void *values) { return (char **)((char *)values + row->value); }
static OptionSource *source_field(const OptionRow *row, void *values) { return (OptionSource *)((char *)values + row->source); }

/* n_layer is written --n-layer; both spellings are read. A field whose name C++ keeps for itself ends in _, which is not written. */
static char spelled(char c) { return c == '_' ? '-' : c; }

static bool same_name(const char *field, const char *name) {
    while (*field && spelled(*field) == spelled(*name)) field++, name++;
    return (*field == 0 || strcmp(field, "_") == 0) && *name == 0;
}

static void copy_spelled(char *out, size_t size, const char *name) {
    size_t i = 0;
    for (; name[i] && strcmp(name + i, "_") != 0 && i + 1 < size; i++) out[i] = spelled(name[i]);
    out[i] = 0;
}

const OptionRow *options_find(const OptionTable *table, const char *name) {
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].kind != OPTION_SECTION && same_name(table->rows[i].name, name)) return &table->rows[i];
    return NULL;
}

/* Levenshtein distance, for naming the option that was probably meant. Names longer than 31 characters count as far. */
static int edit_distance(const char *a, const char *b) {
    enum { LONGEST = 31 };
    int la = (int)strlen(a), lb = (int)strlen(b), row[LONGEST + 1];
    if (la > LONGEST || lb > LONGEST) return 1000;
    for (int j = 0; j <= lb; j++) row[j] = j;
    for (int i = 1; i <= la; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= lb; j++) {
            int substitute = diagonal + (spelled(a[i - 1]) != spelled(b[j - 1]));
            diagonal = row[j];
            int insert_or_delete = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            row[j] = substitute < insert_or_delete ? substitute : insert_or_delete;
        }
    }
    return row[lb];
}

static const OptionRow *nearest_row(const OptionTable *table, const char *name) {
    const OptionRow *best = NULL;
    int least = 1000000;
    for (int i = 0; i < table->count; i++) {
        if (table->rows[i].kind == OPTION_SECTION) continue;
        int distance = edit_distance(name, table->rows[i].name);
        if (distance < least) least = distance, best = &table->rows[i];
    }
    return best;
}

int option_choice_index(const char *choices, const char *word) {
    size_t length = strlen(word);
    for (int index = 0;; index++) {
        size_t n = strcspn(choices, "|");
        if (n == length && strncmp(choices, word, n) == 0) return index;
        if (choices[n] == 0) return -1;
        choices += n + 1;
    }
}

char *option_choice_word(const char *choices, int64_t index) {
    while (index-- > 0) choices += strcspn(choices, "|") + 1;
    return xprintf("%.*s", (int)strcspn(choices, "|"), choices);
}

static int flag_value(const char *text) {
    static const char *const words[2][4] = {{"0", "false", "no", "off"}, {"1", "true", "yes", "on"}};
    for (int value = 0; value < 2; value++)
        for (int i = 0; i < 4; i++)
            if (strcasecmp(text, words[value][i]) == 0) return value;
    return -1;
}

/* Reads text into *value; false with what was expected. */
static bool parse_value(const OptionRow *row, const char *text, OptionValue *value, char expected[ERROR_SIZE]) {
    char *end;
    errno = 0;
    switch (row->kind) {
    case OPTION_REAL:
        value->real = strtod(text, &end);
        snprintf(expected, ERROR_SIZE, "a number from %.10g to %.10g", row->least, row->most);
        return end != text && *end == 0 && isfinite(value->real) && value->real >= row->least && value->real <= row->most;
    case OPTION_INT:
        value->integer = strtoll(text, &end, 10);
        snprintf(expected, ERROR_SIZE, "a whole number from %.0f to %.0f", row->least, row->most);
        return end != text && *end == 0 && errno == 0 && (double)value->integer >= row->least && (double)value->integer <= row->most;
    case OPTION_FLAG:
        value->integer = flag_value(text);
        snprintf(expected, ERROR_SIZE, "0 or 1");
        return value->integer >= 0;
    case OPTION_CHOICE:
        value->integer = option_choice_index(row->choices, text);
        snprintf(expected, ERROR_SIZE, "one of %s", row->choices);
        return value->integer >= 0;
    default:
        value->text = (char *)text;
        return true;
    }
}

static void store(const OptionRow *row, void *values, OptionValue value, OptionSource source) {
    if (source < *source_field(row, values)) return;
    *source_field(row, values) = source;
    if (row->kind == OPTION_REAL) *real_field(row, values) = value.real;
    else if (row->kind == OPTION_TEXT) { free(*text_field(row, values)); *text_field(row, values) = xstrdup(value.text); }
    else *integer_field(row, values) = value.integer;
}

void options_set_defaults(const OptionTable *table, void *values) {
    char expected[ERROR_SIZE];
    for (int i = 0; i < table->count; i++) {
        const OptionRow *row = &table->rows[i];
        OptionValue value;
        if (row->kind == OPTION_SECTION) continue;
        if (row->kind == OPTION_TEXT) *text_field(row, values) = NULL;
        *source_field(row, values) = FROM_DEFAULT;
        CHECK(parse_value(row, row->fallback, &value, expected));
        store(row, values, value, FROM_DEFAULT);
    }
}

void options_release(const OptionTable *table, void *values) {
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].kind == OPTION_TEXT) { free(*text_field(&table->rows[i], values)); *text_field(&table->rows[i], values) = NULL; }
}

bool options_set(const OptionTable *table, void *values, const char *name, const char *text, OptionSource source, char error[ERROR_SIZE]) {
    char spelling[32], expected[ERROR_SIZE];
    OptionValue value;
    const OptionRow *row = options_find(table, name);
    if (!row) {
        copy_spelled(spelling, sizeof spelling, nearest_row(table, name)->name);
        snprintf(error, ERROR_SIZE, "unknown option '%.60s'; the nearest is --%s (--help lists them all)", name, spelling);
        return false;
    }
    copy_spelled(spelling, sizeof spelling, row->name);
    if (!parse_value(row, text, &value, expected)) {
        snprintf(error, ERROR_SIZE, "--%s is '%.60s'; expected %.300s", spelling, text, expected);
        return false;
    }
    store(row, values, value, source);
    return true;
}

/* Cuts blanks from both ends of line[n]; returns the new start and sets *n. */
static const char *trim(const char *line, size_t *n) {
    while (*n > 0 && strchr(" \t\r", line[*n - 1])) --*n;
    while (*n > 0 && strchr(" \t\r", *line)) line++, --*n;
    return line;
}

/* The value at the beginning of text[*n], which may be in quotes; a # at its beginning or after a blank, outside of quotes, begins a comment. Returns
   its start and sets *n, or NULL where a quote does not end, or something follows it. */
static const char *value_of_line(const char *text, size_t *n) {
    size_t length = 0;
    text = trim(text, n);
    if (*n && (*text == '"' || *text == '\'')) {
        const char *end = memchr(text + 1, *text, *n - 1);
        if (!end) return NULL;
        size_t rest = *n - (size_t)(end + 1 - text);
        const char *behind = trim(end + 1, &rest);
        *n = (size_t)(end - text - 1);
        return rest == 0 || *behind == '#' ? text + 1 : NULL;
    }
    while (length < *n && !(text[length] == '#' && (length == 0 || strchr(" \t", text[length - 1])))) length++;
    *n = length;
    return trim(text, n);
}

static bool set_from_file(const OptionTable *table, void *values, const char *key, const char *text, OptionSource source, char error[ERROR_SIZE]) {
    char spelling[32];
    const OptionRow *row = strncmp(key, "no", 2) == 0 && spelled(key[2]) == '-' ? options_find(table, key + 3) : NULL;
    if (row && row->kind == OPTION_FLAG) {
        copy_spelled(spelling, sizeof spelling, row->name);
        return file_error(error, "'%.60s' is for the command line; in a file write %s = 0", key, spelling);
    }
    if (strcmp(key, "config") == 0) return file_error(error, "a file of options names no other; put its lines here, or name it by --config");
    return options_set(table, values, key, text, source, error);
}

static bool read_line(const OptionTable *table, void *values, const char *line, size_t n, OptionSource source, char error[ERROR_SIZE]) {
    line = trim(line, &n);
    if (n == 0 || *line == '#') return true;
    const char *equals = memchr(line, '=', n);
    if (!equals) return file_error(error, "'%.*s' has no '='; expected: option = value", (int)(n < 60 ? n : 60), line);
    size_t key_length = (size_t)(equals - line), text_length = n - key_length - 1;
    const char *key = trim(line, &key_length), *text = value_of_line(equals + 1, &text_length);
    if (!text)
        return file_error(error, "%.*s has a value that begins with a quote and is not all that stands between two of them",
                          (int)(key_length < 60 ? key_length : 60), key);
    char *key_copy = xprintf("%.*s", (int)key_length, key), *text_copy = xprintf("%.*s", (int)text_length, text);
    bool ok = set_from_file(table, values, key_copy, text_copy, source, error);
    free(key_copy);
    free(text_copy);
    return ok;
}

bool options_read_text(const OptionTable *table, void *values, const char *text, size_t length, const char *path, OptionSource source,
                       char error[ERROR_SIZE]) {
    static const char byte_order_mark[] = "\xEF\xBB\xBF";
    int number = 1;
    if (memchr(text, 0, length)) {
        snprintf(error, ERROR_SIZE, "%.200s is not a text file: it holds a zero byte", path);
        return false;
    }
    const char *line = text, *end = text + length;
    if (length >= 3 && memcmp(text, byte_order_mark, 3) == 0) line += 3;
    for (; line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = newline ? (size_t)(newline - line) : (size_t)(end - line);
        char cause[ERROR_SIZE];
        if (!read_line(table, values, line, n, source, cause)) {
            snprintf(error, ERROR_SIZE, "%.150s, line %d: %.300s", path, number, cause);
            return false;
        }
        line += n + 1;
    }
    return true;
}

bool options_read_config(const OptionTable *table, void *values, char error[ERROR_SIZE]) {
    const OptionRow *config = options_find(table, "config");
    const char *path = config ? *text_field(config, values) : "";
    size_t length;
    if (!*path) return true;
    char *text = file_read_text(path, 1 << 20, &length, error);
    bool ok = text && options_read_text(table, values, text, length, path, FROM_FILE, error);
    free(text);
    return ok;
}

/* One argument at argv[i]; returns how many were used. */
static int parse_argument(const OptionTable *table, void *values, int argc, char **argv, int i) {
    char error[ERROR_SIZE], name[64], spelling[64];
    const char *argument = argv[i], *value = NULL;
    const OptionRow *row = NULL;
    bool negated = false;
    if (argument[0] != '-' || argument[1] == 0)
        die("unexpected argument '%s'; options begin with -, and a pattern with *, or a value with blanks, stands in quotes (--help lists them)",
            argument);
    if (argument[1] == '-') {
        size_t n = strcspn(argument + 2, "=");
        if (n >= sizeof name) n = sizeof name - 1;
        memcpy(name, argument + 2, n);
        name[n] = 0;
        if (argument[2 + n] == '=') value = argument + 3 + n;
        row = options_find(table, name);
        if (!row && strncmp(name, "no", 2) == 0 && spelled(name[2]) == '-') {
            row = options_find(table, name + 3);
            negated = row && row->kind == OPTION_FLAG && !value;
            if (!negated) row = NULL;
        }
    } else {
        snprintf(name, sizeof name, "-%c", argument[1]);
        for (int r = 0; r < table->count && !row; r++)
            if (table->rows[r].letter == argument[1]) row = &table->rows[r];
        if (argument[2]) value = argument + 2 + (argument[2] == '=');
        if (!row) die("unknown option '%s' (--help lists them all)", name);
    }
    if (!row) {
        copy_spelled(spelling, sizeof spelling, nearest_row(table, name)->name);
        die("unknown option '--%s'; the nearest is --%s (--help lists them all)", name, spelling);
    }
    int used = 1;
    if (row->kind == OPTION_FLAG && !value) {
        value = negated ? "0" : "1";
        if (!negated && i + 1 < argc && flag_value(argv[i + 1]) >= 0) value = argv[i + 1], used = 2;
    } else if (!value) {
        copy_spelled(spelling, sizeof spelling, row->name);
        if (i + 1 >= argc) die("--%s needs a value: %s", spelling, row->help);
        value = argv[i + 1];
        if (strncmp(value, "--", 2) == 0)
            die("--%s needs a value, and '%.60s' looks like another option; if it is the value, write --%s=%.60s", spelling, value, spelling, value);
        used = 2;
    }
    if (!options_set(table, values, row->name, value, FROM_COMMAND_LINE, error)) die("%s", error);
    return used;
}

void options_parse(const OptionTable *table, void *values, int argc, char **argv) {
    char error[ERROR_SIZE];
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            options_help(table);
            exit(0);
        }
    options_set_defaults(table, values);
    for (int i = 1; i < argc;) i += parse_argument(table, values, argc, argv, i);
    if (!options_read_config(table, values, error)) die("%s", error);
}

char *options_format(const OptionRow *row, const void *values) {
    void *fields = (void *)values;
    switch (row->kind) {
    case OPTION_REAL: {
        char *text = xprintf("%.15g", *real_field(row, fields));
        if (strtod(text, NULL) == *real_field(row, fields)) return text;
        free(text);
        return xprintf("%.17g", *real_field(row, fields));
    }
    case OPTION_CHOICE: return option_choice_word(row->choices, *integer_field(row, fields));
    case OPTION_TEXT: return xstrdup(*text_field(row, fields));
    default: return xprintf("%lld", (long long)*integer_field(row, fields));
    }
}

void options_help(const OptionTable *table) {
    printf("%s\n", table->usage);
    for (int i = 0; i < table->count; i++) {
        const OptionRow *row = &table->rows[i];
        char left[64], name[32], letter[8] = "    ";
        if (row->kind == OPTION_SECTION) {
            printf("\n%s\n", row->name);
            continue;
        }
        copy_spelled(name, sizeof name, row->name);
        if (row->letter) snprintf(letter, sizeof letter, "-%c, ", row->letter);
        static const char *const shapes[] = {"", " X", " N", "", "", " TEXT"};
        snprintf(left, sizeof left, "%s--%s%s", letter, name, shapes[row->kind]);
        printf("  %-26s %s", left, row->help);
        if (row->kind == OPTION_CHOICE) printf("; one of %s", row->choices);
        const char *fallback = strcmp(row->fallback, "\n") == 0 ? "a newline" : row->fallback;
        if (*fallback) printf(" [%s]", fallback);
        printf("\n");
    }
}

void options_defaults(Options *options) { options_set_defaults(&train_options, options); }

bool options_parse_text(Options *options, const char *text, size_t length, const char *path, char error[ERROR_SIZE]) {
    return options_read_text(&train_options, options, text, length, path, FROM_FILE, error);
}
