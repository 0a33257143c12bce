/* json.c: see json.h. A parser by recursive descent. The tree is whole at every moment (each item is cleared before it is
   counted), so that an error anywhere frees it from the root. */
#include "json.h"
#include "error.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 64,
    MAX_NUMBER_LENGTH = 400,      /* the longest double without an exponent has 309 digits before the point */
    SMALL_OBJECT = 8,             /* members, up to which a plain search is the fastest */
    FREE_VALUES = 1 << 21,        /* values that any text may have; beyond them, one for every ... */
    BYTES_OF_VALUE = 8,           /* ... bytes up to there: "0," takes much more as a tree. A million merges have fewer. */
};
static const size_t MAX_TEXT_LENGTH = (size_t)1 << 31;

typedef struct {
    const char *start, *at, *end;
    size_t values;
    char *error;
    size_t error_size;
} Parser;

/* ---- Errors: "line L, column C: ..." ---- */

static bool refuse(const Parser *p, const char *where, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool refuse(const Parser *p, const char *where, const char *format, ...) {
    if (!p->error || p->error_size == 0) return false;
    size_t line = 1, column = 1;
    for (const char *c = p->start; c < where; c++) {
        if (*c == '\n') line++, column = 1;
        else if (((unsigned char)*c & 0xC0) != 0x80) column++;   /* characters are counted, not bytes */
    }
    int used = snprintf(p->error, p->error_size, "line %zu, column %zu: ", line, column);
    if ((size_t)used >= p->error_size) return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(p->error + used, p->error_size - used, format, arguments);
    va_end(arguments);
    return false;
}

static bool refuse_found(const Parser *p, const char *expected) {
    if (p->at == p->end) return refuse(p, p->at, "the text ends where %s was expected", expected);
    unsigned char c = *p->at;
    if (c > ' ' && c < 127) return refuse(p, p->at, "found '%c' where %s was expected", c, expected);
    return refuse(p, p->at, "found the byte 0x%02X where %s was expected", c, expected);
}

/* ---- Strings ---- */

/* Bytes of the UTF-8 character at s, 0 if it is none (Unicode 15, table 3-7: no overlong forms, no surrogates). */
static int utf8_length(const char *text, const char *end) {
    const unsigned char *s = (const unsigned char *)text;
    unsigned char first = s[0];
    if (first < 0x80) return 1;
    int length = first >= 0xC2 && first <= 0xDF ? 2 : (first & 0xF0) == 0xE0 ? 3 : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
    if (length == 0 || end - text < length) return 0;
    unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high) return 0;
    for (int i = 2; i < length; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    return length;
}

static char *utf8_put(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = code;
    } else if (code < 0x800) {
        *to++ = 0xC0 | code >> 6;
        *to++ = 0x80 | (code & 63);
    } else if (code < 0x10000) {
        *to++ = 0xE0 | code >> 12;
        *to++ = 0x80 | (code >> 6 & 63);
        *to++ = 0x80 | (code & 63);
    } else {
        *to++ = 0xF0 | code >> 18;
        *to++ = 0x80 | (code >> 12 & 63);
        *to++ = 0x80 | (code >> 6 & 63);
        *to++ = 0x80 | (code & 63);
    }
    return to;
}

/* The value of \uXXXX at s, or -1. */
static int32_t hex_escape(const char *s, const char *end) {
    if (end - s < 6 || s[0] != '\\' || s[1] != 'u') return -1;
    int32_t code = 0;
    for (int i = 2; i < 6; i++) {
        char c = s[i] | 0x20;
        int digit = s[i] >= '0' && s[i] <= '9' ? s[i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

/* Decodes the escape at s, appends it to *to, and returns what follows it; NULL on error. */
static const char *parse_escape(const Parser *p, const char *s, const char *end, char **to) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = s[1] ? strchr(letters, s[1]) : NULL;
    if (letter) {
        *(*to)++ = meanings[letter - letters];
        return s + 2;
    }
    int32_t code = hex_escape(s, end);
    const char *problem = s[1] != 'u' ? "an unknown escape in a string; a backslash itself is written \\\\"
                          : code < 0  ? "\\u must be followed by four hexadecimal digits"
                          : code == 0 ? "\\u0000 is not allowed in a string here"
                                      : NULL;
    const char *next = s + 6;
    if (!problem && code >= 0xD800 && code <= 0xDFFF) {
        int32_t low = hex_escape(next, end);
        if (code >= 0xDC00 || low < 0xDC00 || low > 0xDFFF) problem = "half of a surrogate pair in a string";
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        next += 6;
    }
    if (problem) {
        refuse(p, s, "%s", problem);
        return NULL;
    }
    *to = utf8_put(*to, code);
    return next;
}

static bool parse_string(Parser *p, char **string) {
    const char *s = p->at + 1, *close = s;
    while (close < p->end && *close != '"') close += *close == '\\' ? 2 : 1;
    if (close >= p->end) return refuse(p, p->at, "a string begins here that is never closed");
    char *to = *string = xmalloc(close - s + 1);   /* no escape is shorter than what it stands for */
    while (s < close) {
        if (*s == '\\') {
            s = parse_escape(p, s, close, &to);
            if (!s) return false;
            continue;
        }
        if ((unsigned char)*s < 0x20) return refuse(p, s, "the control character 0x%02X in a string must be escaped", *s);
        int length = utf8_length(s, close);
        if (length == 0) return refuse(p, s, "the byte 0x%02X is not valid UTF-8", (unsigned char)*s);
        while (length--) *to++ = *s++;
    }
    *to = 0;
    p->at = close + 1;
    return true;
}

/* ---- Numbers ---- */

static bool skip_digits(Parser *p) {
    const char *before = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return p->at > before;
}

static bool take(Parser *p, char c) {
    bool found = p->at < p->end && *p->at == c;
    p->at += found;
    return found;
}

static bool parse_number(Parser *p, double *number) {
    const char *begin = p->at;
    take(p, '-');
    if (!take(p, '0') && !skip_digits(p)) return refuse_found(p, "a digit");
    if (take(p, '.') && !skip_digits(p)) return refuse_found(p, "a digit");
    if (take(p, 'e') || take(p, 'E')) {
        if (!take(p, '-')) take(p, '+');
        if (!skip_digits(p)) return refuse_found(p, "a digit");
    }
    size_t length = p->at - begin;
    char digits[MAX_NUMBER_LENGTH + 1];
    if (length > MAX_NUMBER_LENGTH) return refuse(p, begin, "a number of %zu characters, more than %d", length, MAX_NUMBER_LENGTH);
    memcpy(digits, begin, length);
    digits[length] = 0;
    *number = strtod(digits, NULL);
    if (isinf(*number)) return refuse(p, begin, "the number %.20s%s is too large", digits, length > 20 ? "..." : "");
    return true;
}

/* ---- Objects: their hash table ---- */

static uint32_t hash(const char *key) {   /* FNV-1a */
    uint64_t h = 0xCBF29CE484222325u;
    for (; *key; key++) h = (h ^ (unsigned char)*key) * 0x100000001B3u;
    return h ^ h >> 32;
}

/* A power of two, at least twice the members. */
static size_t index_size(size_t count) {
    size_t size = 4 * SMALL_OBJECT;
    while (size < 2 * count) size *= 2;
    return size;
}

/* The slot of key: that of the member which has it, or else the empty one where it belongs. */
static uint32_t *index_slot(const Json *object, const char *key) {
    size_t mask = index_size(object->count) - 1, slot = hash(key) & mask;
    while (object->index[slot] && strcmp(object->items[object->index[slot] - 1].key, key) != 0) slot = (slot + 1) & mask;
    return &object->index[slot];
}

static Json *find(const Json *object, const char *key, size_t count) {
    if (object->index) {
        uint32_t position = *index_slot(object, key);
        return position ? &object->items[position - 1] : NULL;
    }
    for (size_t i = 0; i < count; i++)
        if (strcmp(object->items[i].key, key) == 0) return &object->items[i];
    return NULL;
}

/* Refuses duplicate keys; builds the table of a large object on the way. */
static bool index_members(const Parser *p, Json *object) {
    if (object->count > SMALL_OBJECT) object->index = xcalloc(index_size(object->count), sizeof *object->index);
    for (size_t i = 0; i < object->count; i++) {
        const char *key = object->items[i].key;
        if (find(object, key, i)) return refuse(p, p->at - 1, "the object that ends here has the key \"%.100s\" twice", key);
        if (object->index) *index_slot(object, key) = i + 1;
    }
    return true;
}

/* ---- Values ---- */

static void skip_space(Parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t')) p->at++;
}

static bool parse_word(Parser *p, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, word, length) != 0) return refuse_found(p, "a value");
    p->at += length;
    return true;
}

static bool parse_key(Parser *p, char **key) {
    skip_space(p);
    if (p->at == p->end || *p->at != '"') return refuse_found(p, "a key in quotes");
    if (!parse_string(p, key)) return false;
    skip_space(p);
    return take(p, ':') || refuse_found(p, "':'");
}

static bool parse_value(Parser *p, Json *out, int depth);

static bool parse_items(Parser *p, Json *out, int depth) {
    bool object = out->type == JSON_OBJECT;
    char close = object ? '}' : ']';
    if (depth == MAX_DEPTH) return refuse(p, p->at, "nested deeper than %d levels", MAX_DEPTH);
    p->at++;
    skip_space(p);
    if (take(p, close)) return true;
    size_t capacity = 0;
    do {
        if (out->count == capacity) {
            capacity = capacity ? 2 * capacity : 2;
            out->items = xrealloc(out->items, capacity * sizeof *out->items);
        }
        if (++p->values > FREE_VALUES + (size_t)(p->at - p->start) / BYTES_OF_VALUE)
            return refuse(p, p->at, "too many values: %zu in %zu bytes", p->values, (size_t)(p->at - p->start));
        Json *item = &out->items[out->count++];
        *item = (Json){ 0 };
        if (object && !parse_key(p, &item->key)) return false;
        if (!parse_value(p, item, depth + 1)) return false;
        skip_space(p);
    } while (take(p, ','));
    if (!take(p, close)) return refuse_found(p, object ? "',' or '}'" : "',' or ']'");
    return !object || index_members(p, out);
}

static bool parse_value(Parser *p, Json *out, int depth) {
    skip_space(p);
    switch (p->at < p->end ? *p->at : 0) {
    case '{': out->type = JSON_OBJECT; return parse_items(p, out, depth);
    case '[': out->type = JSON_ARRAY; return parse_items(p, out, depth);
    case '"': out->type = JSON_STRING; return parse_string(p, &out->string);
    case 't': out->type = JSON_TRUE; return parse_word(p, "true");
    case 'f': out->type = JSON_FALSE; return parse_word(p, "false");
    case 'n': out->type = JSON_NULL; return parse_word(p, "null");
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        out->type = JSON_NUMBER; return parse_number(p, &out->number);
    default: return refuse_found(p, "a value");
    }
}

Json *json_parse(const char *text, size_t length, char *error, size_t error_size) {
    Parser p = { text, text, text + length, 0, error, error_size };
    if (length > MAX_TEXT_LENGTH) {
        refuse(&p, text, "the text has %zu bytes, more than %zu", length, MAX_TEXT_LENGTH);
        return NULL;
    }
    Json *root = xcalloc(1, sizeof *root);
    bool good = parse_value(&p, root, 0);
    if (good) {
        skip_space(&p);
        good = p.at == p.end || refuse_found(&p, "the end of the text");
    }
    if (good) return root;
    json_free(root);
    return NULL;
}

static void free_contents(Json *json) {
    for (size_t i = 0; i < json->count; i++) free_contents(&json->items[i]);
    free(json->items);
    free(json->index);
    free(json->string);
    free(json->key);
}

void json_free(Json *json) {
    if (json) free_contents(json);
    free(json);
}

/* ---- Looking up ---- */

const Json *json_get(const Json *object, const char *key) {
    return object && object->type == JSON_OBJECT ? find(object, key, object->count) : NULL;
}

bool json_integer(const Json *json, int64_t *value) {
    const double limit = 9007199254740992.0;   /* 2^53: beyond it doubles skip whole numbers */
    if (!json || json->type != JSON_NUMBER || fabs(json->number) > limit || json->number != floor(json->number)) return false;
    *value = (int64_t)json->number;
    return true;
}

bool json_get_integer(const Json *object, const char *key, int64_t *value) { return json_integer(json_get(object, key), value); }

bool json_get_number(const Json *object, const char *key, double *value) {
    const Json *json = json_get(object, key);
    if (!json || json->type != JSON_NUMBER) return false;
    *value = json->number;
    return true;
}

bool json_get_bool(const Json *object, const char *key, bool *value) {
    const Json *json = json_get(object, key);
    if (!json || (json->type != JSON_TRUE && json->type != JSON_FALSE)) return false;
    *value = json->type == JSON_TRUE;
    return true;
}

const char *json_get_string(const Json *object, const char *key) {
    const Json *json = json_get(object, key);
    return json && json->type == JSON_STRING ? json->string : NULL;
}

/* ---- Writing ---- */

void json_write_string(FILE *file, const char *text) {
    const char *end = text + strlen(text);
    putc('"', file);
    while (text < end) {
        int length = utf8_length(text, end);
        unsigned char c = *text;
        if (length == 0) fputs("\xEF\xBF\xBD", file);
        else if (c == '"' || c == '\\') fprintf(file, "\\%c", c);
        else if (c == '\n') fputs("\\n", file);
        else if (c == '\t') fputs("\\t", file);
        else if (c < 0x20) fprintf(file, "\\u%04x", c);
        else fwrite(text, 1, length, file);
        text += length ? length : 1;
    }
    putc('"', file);
}

/* The fewest digits, of first ... last, that read back as the same number. */
static void write_shortest(FILE *file, double value, int first, int last, bool single) {
    if (!isfinite(value)) {
        fputs("null", file);
        return;
    }
    char digits[32];
    for (int precision = first; precision <= last; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        double read = strtod(digits, NULL);
        if (single ? (float)read == (float)value : read == value) break;
    }
    fputs(digits, file);
}

void json_write_number(FILE *file, double value) { write_shortest(file, value, 15, 17, false); }
void json_write_float(FILE *file, float value) { write_shortest(file, value, 6, 9, true); }

void json_write_number_member(FILE *file, const char *key, double value) {
    fprintf(file, ", \"%s\": ", key);
    json_write_number(file, value);
}

void json_write_string_member(FILE *file, const char *key, const char *text) {
    fprintf(file, ", \"%s\": ", key);
    json_write_string(file, text);
}
