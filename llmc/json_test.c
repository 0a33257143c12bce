/* json_test.c: what is read, what is refused and where, and that what is written reads back the same. */
#include "json.h"
#include "error.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static char error[512];

/* Parses a copy that has exactly these bytes and no NUL, so that a sanitizer sees a step beyond the end. */
static Json *parse_bytes(const char *text, size_t length) {
    char *copy = malloc(length ? length : 1);
    memcpy(copy, text, length);
    snprintf(error, sizeof error, "none");
    Json *json = json_parse(copy, length, error, sizeof error);
    free(copy);
    return json;
}

static Json *parse(const char *text) { return parse_bytes(text, strlen(text)); }

/* ---- What is read ---- */

static void a_tree(void **state) {
    (void)state;
    Json *json = parse(" {\"a\" : [1, -2.5e-3 ,true,false,null, \"\", {}, [] ],\r\n\t\"b\":{\"\":0}} \n");
    assert_non_null(json);
    assert_int_equal(json->type, JSON_OBJECT);
    assert_int_equal(json->count, 2);
    const Json *a = json_get(json, "a");
    assert_ptr_equal(a, &json->items[0]);
    assert_string_equal(a->key, "a");
    const JsonType types[] = { JSON_NUMBER, JSON_NUMBER, JSON_TRUE, JSON_FALSE, JSON_NULL, JSON_STRING, JSON_OBJECT, JSON_ARRAY };
    assert_int_equal(a->type, JSON_ARRAY);
    assert_int_equal(a->count, 8);
    for (int i = 0; i < 8; i++) assert_int_equal(a->items[i].type, types[i]);
    assert_true(a->items[0].number == 1 && a->items[1].number == -2.5e-3);
    assert_string_equal(a->items[5].string, "");
    assert_int_equal(a->items[6].count + a->items[7].count, 0);
    assert_true(json_get(json_get(json, "b"), "")->number == 0);
    json_free(json);
    json_free(NULL);
}

static void scalars_at_the_top(void **state) {
    (void)state;
    const struct { const char *text; JsonType type; double number; } cases[] = {
        { "0", JSON_NUMBER, 0 }, { "-0.0", JSON_NUMBER, 0 }, { "10", JSON_NUMBER, 10 }, { "1E+2", JSON_NUMBER, 100 },
        { "0.1", JSON_NUMBER, 0.1 }, { "1e-400", JSON_NUMBER, 0 }, { "1.7976931348623157e308", JSON_NUMBER, 1.7976931348623157e308 },
        { "4.9e-324", JSON_NUMBER, 4.9e-324 }, { "true", JSON_TRUE, 0 }, { "null", JSON_NULL, 0 }, { "\"x\"", JSON_STRING, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Json *json = parse(cases[i].text);
        assert_non_null(json);
        assert_int_equal(json->type, cases[i].type);
        assert_true(json->number == cases[i].number);
        json_free(json);
    }
}

static void escapes(void **state) {
    (void)state;
    Json *json = parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\uD83D\\ude00\\uffff|\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"");
    assert_non_null(json);
    assert_string_equal(json->string,
                        "\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xEF\xBF\xBF|\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    json_free(json);
}

/* Every \uXXXX, and every surrogate pair of a sample, against the encoding written out in arithmetic. */
static void every_escape(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x10000; code++) {
        char text[16], expected[4] = { 0 };
        snprintf(text, sizeof text, "\"\\u%04x\"", code);
        Json *json = parse(text);
        if (code == 0 || (code >= 0xD800 && code < 0xE000)) {
            assert_null(json);
            continue;
        }
        assert_non_null(json);
        if (code < 128) expected[0] = code;
        else if (code < 2048) expected[0] = 192 + code / 64, expected[1] = 128 + code % 64;
        else expected[0] = 224 + code / 4096, expected[1] = 128 + code / 64 % 64, expected[2] = 128 + code % 64;
        assert_memory_equal(json->string, expected, strlen(json->string) + 1);
        json_free(json);
    }
    for (uint32_t code = 0x10000; code < 0x110000; code += 97) {
        char text[32], expected[5] = { 240 + code / 262144, 128 + code / 4096 % 64, 128 + code / 64 % 64, 128 + code % 64, 0 };
        snprintf(text, sizeof text, "\"\\u%04X\\u%04X\"", 0xD800 + (code - 0x10000) / 1024, 0xDC00 + (code - 0x10000) % 1024);
        Json *json = parse(text);
        assert_non_null(json);
        assert_string_equal(json->string, expected);
        json_free(json);
    }
}

static int accepted(unsigned char *bytes, int length) {   /* bytes[1 ... length] are a string's contents */
    bytes[0] = bytes[length + 1] = '"';
    Json *json = json_parse((char *)bytes, length + 2, NULL, 0);
    int good = json && memcmp(json->string, bytes + 1, length) == 0 && json->string[length] == 0;
    json_free(json);
    return good;
}

/* The number of byte sequences that are one character is known from the size of Unicode. */
static void utf8_is_checked(void **state) {
    (void)state;
    unsigned char b[8];
    int one = 0, two = 0, three = 0, four = 0;
    for (int i = 128; i < 256; i++) {
        b[1] = i;
        one += accepted(b, 1);
        for (int j = 128; j < 256; j++) b[1] = i, b[2] = j, two += accepted(b, 2);
    }
    for (int i = 0xE0; i < 0xF0; i++)
        for (int j = 0x70; j < 256; j++)
            for (int k = 0; k < 256; k++) b[1] = i, b[2] = j, b[3] = k, three += accepted(b, 3);
    const unsigned char edges[] = { 0x7F, 0x80, 0xBF, 0xC0 };
    for (int i = 0xF0; i < 256; i++)
        for (int j = 0x70; j < 256; j++)
            for (int k = 0; k < 16; k++) b[1] = i, b[2] = j, b[3] = edges[k / 4], b[4] = edges[k % 4], four += accepted(b, 4);
    assert_int_equal(one, 0);
    assert_int_equal(two, 0x800 - 0x80);
    assert_int_equal(three, 0x10000 - 0x800 - 0x800);   /* less the surrogates */
    assert_int_equal(four, 0x100000 / 64 / 64 * 2 * 2);
}

/* ---- What is refused ---- */

static void refusals(void **state) {
    (void)state;
    const struct { const char *text, *message; } cases[] = {
        { "", "line 1, column 1: the text ends where a value was expected" },
        { "  \n ", "line 2, column 2: the text ends where a value was expected" },
        { "{", "line 1, column 2: the text ends where a key in quotes was expected" },
        { "{\"a\"", "line 1, column 5: the text ends where ':' was expected" },
        { "{\"a\" 1}", "line 1, column 6: found '1' where ':' was expected" },
        { "{\"a\":1,}", "line 1, column 8: found '}' where a key in quotes was expected" },
        { "{a:1}", "line 1, column 2: found 'a' where a key in quotes was expected" },
        { "{'a':1}", "line 1, column 2: found ''' where a key in quotes was expected" },
        { "{\"a\":1 \"b\":2}", "line 1, column 8: found '\"' where ',' or '}' was expected" },
        { "[1,]", "line 1, column 4: found ']' where a value was expected" },
        { "[1 2]", "line 1, column 4: found '2' where ',' or ']' was expected" },
        { "[1}", "line 1, column 3: found '}' where ',' or ']' was expected" },
        { "[\n  1,\n  oops]", "line 3, column 3: found 'o' where a value was expected" },
        { "[\"\xC3\xA9\xE2\x82\xAC\", x]", "line 1, column 8: found 'x' where a value was expected" },
        { "1 2", "line 1, column 3: found '2' where the end of the text was expected" },
        { "{}]", "line 1, column 3: found ']' where the end of the text was expected" },
        { "\xEF\xBB\xBF{}", "found the byte 0xEF where a value was expected" },
        { "\v1", "line 1, column 1: found the byte 0x0B where a value was expected" },
        { "tru", "line 1, column 1: found 't' where a value was expected" },
        { "nul1", "found 'n' where a value was expected" },
        { "TRUE", "found 'T' where a value was expected" },
        { "trueish", "line 1, column 5: found 'i' where the end of the text was expected" },
        { "NaN", "found 'N' where a value was expected" },
        { "+1", "found '+' where a value was expected" },
        { ".5", "found '.' where a value was expected" },
        { "01", "line 1, column 2: found '1' where the end of the text was expected" },
        { "-", "line 1, column 2: the text ends where a digit was expected" },
        { "-Infinity", "line 1, column 2: found 'I' where a digit was expected" },
        { "1.", "line 1, column 3: the text ends where a digit was expected" },
        { "1.e5", "line 1, column 3: found 'e' where a digit was expected" },
        { "1e", "line 1, column 3: the text ends where a digit was expected" },
        { "1e+-5", "line 1, column 4: found '-' where a digit was expected" },
        { "0x10", "line 1, column 2: found 'x' where the end of the text was expected" },
        { "[1e999]", "line 1, column 2: the number 1e999 is too large" },
        { "[-1e999]", "the number -1e999 is too large" },
        { "\"abc", "line 1, column 1: a string begins here that is never closed" },
        { "\"abc\\", "a string begins here that is never closed" },
        { "\"abc\\\"", "a string begins here that is never closed" },
        { "\"a\nb\"", "line 1, column 3: the control character 0x0A in a string must be escaped" },
        { "\"\\x\"", "line 1, column 2: an unknown escape in a string; a backslash itself is written \\\\" },
        { "\"\\u12\"", "line 1, column 2: \\u must be followed by four hexadecimal digits" },
        { "\"\\u12G4\"", "\\u must be followed by four hexadecimal digits" },
        { "\"\\u0000\"", "\\u0000 is not allowed in a string here" },
        { "\"\\ud800\"", "half of a surrogate pair in a string" },
        { "\"\\udc00\\ud800\"", "half of a surrogate pair in a string" },
        { "\"\\udc00\\udc00\"", "half of a surrogate pair in a string" },
        { "\"\\ud800\\u0041\"", "half of a surrogate pair in a string" },
        { "\"a\xFF\"", "line 1, column 3: the byte 0xFF is not valid UTF-8" },
        { "\"\xC3\"", "the byte 0xC3 is not valid UTF-8" },
        { "{\"a\":1,\"b\":2,\"a\":3}", "line 1, column 19: the object that ends here has the key \"a\" twice" },
        { "[{\"\":1,\"\":1}]", "the object that ends here has the key \"\" twice" },
        { "{\"a\":1,\"\\u0061\":2}", "the object that ends here has the key \"a\" twice" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(parse(cases[i].text));
        if (!strstr(error, cases[i].message)) fail_msg("%s\n  said:     %s\n  expected: %s", cases[i].text, error, cases[i].message);
        assert_null(json_parse(cases[i].text, strlen(cases[i].text), NULL, 0));
        char little[8] = "";
        assert_null(json_parse(cases[i].text, strlen(cases[i].text), little, sizeof little));
        assert_int_equal(strlen(little), 7);
    }
    assert_null(parse_bytes("\"a\0b\"", 5));
    assert_string_equal(error, "line 1, column 3: the control character 0x00 in a string must be escaped");
    assert_null(parse_bytes("1\0", 2));
    assert_string_equal(error, "line 1, column 2: found the byte 0x00 where the end of the text was expected");
    assert_null(parse_bytes("\"\\\0\"", 4));
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    const char *text = "{\"name\":[1.5e+10,-0.25,true,false,null],\"\\u00e9\\ud83d\\ude00 \xE2\x82\xAC\":{\"x\":\"y\\n\"},\"z\":[[],{}]}";
    Json *whole = parse(text);
    assert_non_null(whole);
    json_free(whole);
    for (size_t length = 0; length < strlen(text); length++) {
        assert_null(parse_bytes(text, length));
        assert_string_not_equal(error, "none");
    }
}

static void depth_is_limited(void **state) {
    (void)state;
    char text[201];
    for (int depth = 63; depth <= 66; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        Json *json = parse_bytes(text, 2 * depth);
        if (depth <= 64) assert_non_null(json);
        else assert_null(json);
        json_free(json);
    }
    assert_string_equal(error, "line 1, column 65: nested deeper than 64 levels");
    char *deep = malloc(1000000);
    memset(deep, '[', 1000000);
    assert_null(parse_bytes(deep, 1000000));
    free(deep);
}

static void long_numbers(void **state) {
    (void)state;
    char digits[402];
    memset(digits, '1', sizeof digits);
    assert_null(parse_bytes(digits, 401));
    assert_string_equal(error, "line 1, column 1: a number of 401 characters, more than 400");
    assert_null(parse_bytes(digits, 400));
    assert_string_equal(error, "line 1, column 1: the number 11111111111111111111... is too large");
    digits[1] = '.';
    Json *json = parse_bytes(digits, 400);
    assert_true(json->number == 10.0 / 9);
    json_free(json);
}

/* ---- Looking up ---- */

static void typed_members(void **state) {
    (void)state;
    Json *json = parse("{\"i\":12,\"big\":9007199254740992,\"bigger\":9007199254740994,\"low\":-9007199254740992,\"f\":1.5,\"e\":1e3,"
                       "\"s\":\"x\",\"t\":true,\"no\":false,\"n\":null,\"a\":[5]}");
    int64_t integer = 7;
    double number = 7;
    bool flag = false;
    assert_true(json_get_integer(json, "i", &integer) && integer == 12);
    assert_true(json_get_integer(json, "e", &integer) && integer == 1000);
    assert_true(json_get_integer(json, "big", &integer) && integer == 1LL << 53);
    assert_true(json_get_integer(json, "low", &integer) && integer == -(1LL << 53));
    integer = 7;
    const char *no_integers[] = { "bigger", "f", "s", "t", "n", "a", "missing" };
    for (int i = 0; i < 7; i++) assert_false(json_get_integer(json, no_integers[i], &integer));
    assert_int_equal(integer, 7);
    assert_true(json_integer(&json_get(json, "a")->items[0], &integer) && integer == 5);
    assert_false(json_integer(NULL, &integer));
    assert_true(json_get_number(json, "f", &number) && number == 1.5);
    assert_false(json_get_number(json, "s", &number) || json_get_number(json, "missing", &number));
    assert_true(json_get_bool(json, "t", &flag) && flag);
    assert_true(json_get_bool(json, "no", &flag) && !flag);
    assert_false(json_get_bool(json, "i", &flag) || json_get_bool(json, "n", &flag) || json_get_bool(json, "missing", &flag));
    assert_string_equal(json_get_string(json, "s"), "x");
    assert_null(json_get_string(json, "i"));
    assert_null(json_get_string(json, "missing"));
    assert_null(json_get(json, "missing"));
    assert_null(json_get(NULL, "i"));
    assert_null(json_get(json_get(json, "a"), "i"));
    assert_null(json_get(json_get(json, "i"), "i"));
    json_free(json);
}

/* Objects of every size across the change from plain search to hashing: all members found, no other, and each duplicate refused. */
static void objects_of_every_size(void **state) {
    (void)state;
    for (int count = 1; count <= 70; count++) {
        char text[2000], key[16];
        for (int twice = -1; twice < count; twice++) {   /* member `twice` once more at the end; -1: none */
            int used = snprintf(text, sizeof text, "{");
            for (int i = 0; i < count; i++) used += snprintf(text + used, sizeof text - used, "%s\"k%d\":%d", i ? "," : "", i, i);
            if (twice >= 0) used += snprintf(text + used, sizeof text - used, ",\"k%d\":0", twice);
            snprintf(text + used, sizeof text - used, "}");
            Json *json = parse(text);
            if (twice >= 0) {
                assert_null(json);
                snprintf(key, sizeof key, "\"k%d\" twice", twice);
                assert_non_null(strstr(error, key));
                continue;
            }
            for (int i = 0; i < count; i++) {
                snprintf(key, sizeof key, "k%d", i);
                assert_ptr_equal(json_get(json, key), &json->items[i]);
            }
            snprintf(key, sizeof key, "k%d", count);
            assert_null(json_get(json, key));
            json_free(json);
        }
    }
}

static void a_vocabulary_is_quick(void **state) {
    (void)state;
    enum { N = 50257 };
    char *text = NULL, key[32];
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    for (int i = 0; i < N; i++) fprintf(file, "%s\"\\u0120token%d\":%d", i ? "," : "{", i * 7919 % N, i);
    fprintf(file, "}");
    fclose(file);
    clock_t start = clock();
    Json *json = json_parse(text, size, error, sizeof error);
    assert_non_null(json);
    assert_int_equal(json->count, N);
    for (int i = 0; i < N; i++) {
        int64_t id = -1;
        snprintf(key, sizeof key, "\xC4\xA0token%d", i * 7919 % N);
        assert_true(json_get_integer(json, key, &id) && id == i);
    }
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    json_free(json);
    free(text);
    assert_true(seconds < 1.5);   /* about 0.02; a plain search would take some ten seconds */
}

/* ---- A tree for its text ---- */

/* `count` times the piece in an array. */
static Json *array_of(const char *piece, size_t count) {
    size_t size = strlen(piece), whole = count * (size + 1) + 1;
    char *text = malloc(whole);
    for (size_t i = 0; i < count; i++) {
        text[i * (size + 1)] = i ? ',' : '[';
        memcpy(text + i * (size + 1) + 1, piece, size);
    }
    text[whole - 1] = ']';
    snprintf(error, sizeof error, "none");
    Json *json = json_parse(text, whole, error, sizeof error);
    free(text);
    return json;
}

/* As many values as files have are read; what would only fill the memory is refused at once. */
static void values_are_limited(void **state) {
    (void)state;
    static const struct { const char *piece; size_t count; } accepted[] = {
        { "0", 2000000 }, { "1234567", 2400000 }, { "[\"a\",\"b\"]", 300000 } };
    for (int i = 0; i < 3; i++) {
        Json *json = array_of(accepted[i].piece, accepted[i].count);
        if (!json) fail_msg("%zu times %s: %s", accepted[i].count, accepted[i].piece, error);
        assert_int_equal(json->count, accepted[i].count);
        json_free(json);
    }
    static const struct { const char *piece; size_t count; } refused[] = { { "0", 47500000 }, { "[]", 20000000 }, { "{\"\":0}", 8000000 } };
    for (int i = 0; i < 3; i++) {
        clock_t start = clock();
        assert_null(array_of(refused[i].piece, refused[i].count));
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (!strstr(error, "too many values: ")) fail_msg("%s: %s", refused[i].piece, error);
        if (seconds > 5) fail_msg("%s: %g s", refused[i].piece, seconds);
    }
}

/* ---- What is written ---- */

static char written[256];

static const char *write_string(const char *text) {
    FILE *file = fmemopen(written, sizeof written, "w");
    json_write_string(file, text);
    fclose(file);
    return written;
}

static const char *write_number(double value) {
    FILE *file = fmemopen(written, sizeof written, "w");
    json_write_number(file, value);
    fclose(file);
    return written;
}

static const char *write_float(float value) {
    FILE *file = fmemopen(written, sizeof written, "w");
    json_write_float(file, value);
    fclose(file);
    return written;
}

static void strings_written(void **state) {
    (void)state;
    assert_string_equal(write_string(""), "\"\"");
    assert_string_equal(write_string("a\"b\\c/\n\t\r\x01\x1F\x7F"), "\"a\\\"b\\\\c/\\n\\t\\u000d\\u0001\\u001f\x7F\"");
    assert_string_equal(write_string("\xC3\xA9\xF0\x9F\x98\x80"), "\"\xC3\xA9\xF0\x9F\x98\x80\"");
    assert_string_equal(write_string("a\xFF" "b\xC3"), "\"a\xEF\xBF\xBD" "b\xEF\xBF\xBD\"");
    assert_string_equal(write_string("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    char all[256];
    for (int i = 1; i < 128; i++) all[i - 1] = i;
    all[127] = 0;
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    json_write_string(file, all);
    fclose(file);
    Json *json = parse_bytes(text, size);
    assert_string_equal(json->string, all);
    json_free(json);
    free(text);
}

static void numbers_written(void **state) {
    (void)state;
    assert_string_equal(write_number(0), "0");
    assert_string_equal(write_number(600), "600");
    assert_string_equal(write_number(-0.1), "-0.1");
    assert_string_equal(write_number(3e-4), "0.0003");
    assert_string_equal(write_number(1e300), "1e+300");
    assert_string_equal(write_number(9007199254740991.0), "9007199254740991");
    assert_string_equal(write_number(NAN), "null");
    assert_string_equal(write_number(-INFINITY), "null");
    assert_string_equal(write_float(0.1f), "0.1");
    assert_string_equal(write_float(3e-4f), "0.0003");
    assert_string_equal(write_float(16777216.0f), "16777216");
    assert_string_equal(write_float(INFINITY), "null");
}

static void members_written(void **state) {
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    json_write_number_member(file, "a", 0.5);
    json_write_string_member(file, "b", "\"");
    fclose(file);
    assert_string_equal(text, ", \"a\": 0.5, \"b\": \"\\\"\"");
    free(text);
}

static void numbers_read_back_the_same(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        double number;
        float single;
        uint64_t bits = seed ^ seed >> 29;
        uint32_t half = bits >> 32;
        memcpy(&number, &bits, 8);
        memcpy(&single, &half, 4);
        if (!isfinite(number) || !isfinite(single)) continue;
        Json *json = parse(write_number(number));
        assert_memory_equal(&json->number, &number, 8);
        json_free(json);
        json = parse(write_float(single));
        float read = (float)json->number;
        assert_memory_equal(&read, &single, 4);
        json_free(json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tree),
        cmocka_unit_test(scalars_at_the_top),
        cmocka_unit_test(escapes),
        cmocka_unit_test(every_escape),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(refusals),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(long_numbers),
        cmocka_unit_test(typed_members),
        cmocka_unit_test(objects_of_every_size),
        cmocka_unit_test(a_vocabulary_is_quick),
        cmocka_unit_test(values_are_limited),
        cmocka_unit_test(strings_written),
        cmocka_unit_test(numbers_written),
        cmocka_unit_test(members_written),
        cmocka_unit_test(numbers_read_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
