/* safetensors_test.c: what is written reads back, and a file with anything wrong in it is refused whole. */
#include "safetensors.h"
#include "error.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char directory[] = P_tmpdir "/safetensors_testXXXXXX";
static char path[sizeof directory + 16];
static char error[ERROR_SIZE];

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory)) return -1;
    snprintf(path, sizeof path, "%s/file", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    return directory_remove(directory, error) ? 0 : -1;
}

/* ---- Round trips ---- */

static const SafetensorsEntry *find(const Safetensors *st, const char *name, SafetensorsDType dtype, int rank, size_t bytes) {
    const SafetensorsEntry *entry = safetensors_find(st, name);
    assert_non_null(entry);
    assert_string_equal(entry->name, name);
    assert_int_equal(entry->dtype, dtype);
    assert_int_equal(entry->rank, rank);
    assert_int_equal(entry->bytes, bytes);
    return entry;
}

static const float FLOATS[6] = { 0, -1.5f, 3.25e-20f, INFINITY, 1e-45f, 7 };
static const uint16_t HALVES[3] = { 0x3C00, 0xC000, 0x0001 }, BRAINS[2] = { 0x3F80, 0xC040 };
static const int32_t WORDS[2] = { -5, 2147483647 };
static const int64_t LONGS[2] = { -5, INT64_MAX };
static const unsigned char BYTES[5] = { 0, 1, 127, 128, 255 };
static const char NAME[] = "a \"quoted\" \\ n\xC3\xA4me\n";

static void write_one_of_each(uint32_t *crc) {
    const int64_t five[] = { 5 }, two_by_three[] = { 2, 3 }, none[] = { 4, 0, 2 }, three[] = { 1, 1, 1, 3, 1, 1, 1, 1 }, two[] = { 2 };
    SafetensorsWriter *w = safetensors_create(path);
    safetensors_declare_metadata(w, "format", "pt");
    safetensors_declare(w, "u8", ST_U8, 1, five);
    safetensors_declare(w, NAME, ST_F32, 2, two_by_three);
    safetensors_declare_metadata(w, "config", "{\"n\": \"\\u00e9\n\"}");
    safetensors_declare(w, "nothing", ST_F32, 3, none);
    safetensors_declare(w, "f16", ST_F16, 8, three);
    safetensors_declare(w, "bf16", ST_BF16, 1, two);
    safetensors_declare(w, "i32", ST_I32, 1, two);
    safetensors_declare(w, "i64", ST_I64, 1, two);
    safetensors_declare(w, "scalar", ST_F32, 0, NULL);
    safetensors_begin(w);
    safetensors_write(w, BYTES, 2);   /* in pieces, and across the end of a tensor */
    safetensors_write(w, BYTES + 2, 3);
    unsigned char mixed[24 + 6];
    memcpy(mixed, FLOATS, 24);
    memcpy(mixed + 24, HALVES, 6);
    safetensors_write(w, mixed, sizeof mixed);
    safetensors_write(w, BRAINS, 4);
    safetensors_write(w, WORDS, 8);
    safetensors_write(w, LONGS, 16);
    safetensors_write(w, &FLOATS[1], 4);
    assert_true(safetensors_finish(w, crc, error));
}

static void one_of_each_reads_back(void **state) {
    (void)state;
    uint32_t crc = 0, crc_again = 1;
    uint64_t size;
    write_one_of_each(&crc);
    assert_true(file_crc32(path, &crc_again, &size, error));
    assert_int_equal(crc, crc_again);

    Safetensors st;
    assert_true(safetensors_open(&st, path, error));
    const char *order[] = { "u8", NAME, "nothing", "f16", "bf16", "i32", "i64", "scalar" };
    assert_int_equal(st.count, 8);
    for (int i = 0; i < 8; i++) assert_string_equal(st.entries[i].name, order[i]);
    assert_int_equal(((const unsigned char *)st.entries[0].data - st.map.data) % 8, 0);
    assert_string_equal(safetensors_metadata(&st, "format"), "pt");
    assert_string_equal(safetensors_metadata(&st, "config"), "{\"n\": \"\\u00e9\n\"}");
    assert_null(safetensors_metadata(&st, "missing"));
    assert_null(safetensors_find(&st, "missing"));
    assert_null(safetensors_find(&st, "__metadata__"));

    float floats[6] = { 0 };
    int64_t integers[5] = { 0 };
    const SafetensorsEntry *entry = find(&st, NAME, ST_F32, 2, 24);
    assert_true(entry->shape[0] == 2 && entry->shape[1] == 3);
    safetensors_read_floats(entry, 0, 6, floats);
    assert_memory_equal(floats, FLOATS, 24);
    safetensors_read_floats(entry, 4, 2, floats);
    assert_memory_equal(floats, &FLOATS[4], 8);
    safetensors_read_floats(entry, 6, 0, NULL);
    safetensors_read_floats(find(&st, "scalar", ST_F32, 0, 4), 0, 1, floats);
    assert_true(floats[0] == -1.5f);
    entry = find(&st, "nothing", ST_F32, 3, 0);
    assert_true(entry->shape[0] == 4 && entry->shape[1] == 0 && entry->shape[2] == 2);
    entry = find(&st, "f16", ST_F16, 8, 6);
    assert_true(entry->shape[3] == 3 && entry->shape[7] == 1);
    safetensors_read_floats(entry, 0, 3, floats);
    assert_true(floats[0] == 1 && floats[1] == -2 && floats[2] == 0x1p-24f);
    safetensors_read_floats(find(&st, "bf16", ST_BF16, 1, 4), 0, 2, floats);
    assert_true(floats[0] == 1 && floats[1] == -3);
    safetensors_read_integers(find(&st, "i32", ST_I32, 1, 8), 0, 2, integers);
    assert_true(integers[0] == -5 && integers[1] == 2147483647);
    safetensors_read_integers(find(&st, "i64", ST_I64, 1, 16), 0, 2, integers);
    assert_memory_equal(integers, LONGS, 16);
    safetensors_read_integers(find(&st, "u8", ST_U8, 1, 5), 1, 4, integers);
    for (int i = 0; i < 4; i++) assert_int_equal(integers[i], BYTES[i + 1]);
    safetensors_close(&st);
    safetensors_close(&st);
}

static void nothing_at_all(void **state) {
    (void)state;
    for (int with_metadata = 0; with_metadata < 2; with_metadata++) {
        SafetensorsWriter *w = safetensors_create(path);
        if (with_metadata) safetensors_declare_metadata(w, "a", "b");
        safetensors_begin(w);
        assert_true(safetensors_finish(w, NULL, error));
        Safetensors st;
        assert_true(safetensors_open(&st, path, error));
        assert_int_equal(st.count, 0);
        assert_true(!safetensors_metadata(&st, "a") == !with_metadata);
        safetensors_close(&st);
    }
}

static void every_half_is_exact(void **state) {
    (void)state;
    static uint16_t halves[65536];
    static float f16[65536], bf16[65536];
    for (int i = 0; i < 65536; i++) halves[i] = i;
    SafetensorsEntry entry = { .name = "x", .dtype = ST_F16, .rank = 1, .shape = { 65536 }, .bytes = sizeof halves, .data = halves };
    safetensors_read_floats(&entry, 0, 65536, f16);
    entry.dtype = ST_BF16;
    safetensors_read_floats(&entry, 0, 65536, bf16);
    for (int i = 0; i < 65536; i++) {
        int exponent = i >> 10 & 31, mantissa = i & 1023;
        double half = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        if (exponent == 31) half = mantissa ? NAN : INFINITY;
        double brain = ldexp((i & 127) + (i >> 7 & 255 ? 128 : 0), (i >> 7 & 255 ? i >> 7 & 255 : 1) - 134);
        if ((i >> 7 & 255) == 255) brain = i & 127 ? NAN : INFINITY;
        assert_true(isnan(half) ? isnan(f16[i]) : fabsf(f16[i]) == half && !signbit(f16[i]) == (i < 32768));
        assert_true(isnan(brain) ? isnan(bf16[i]) : fabsf(bf16[i]) == brain && !signbit(bf16[i]) == (i < 32768));
    }
}

/* ---- Refusals ---- */

/* A file of this header and `bytes` bytes of data in exactly sized memory, for a sanitizer. */
static unsigned char *build(const char *header, size_t bytes, size_t *size) {
    size_t length = strlen(header);
    *size = 8 + length + bytes;
    unsigned char *file = calloc(*size, 1);
    for (int i = 0; i < 8; i++) file[i] = (uint64_t)length >> 8 * i;
    memcpy(file + 8, header, length);
    return file;
}

static bool parse(const char *header, size_t bytes) {
    size_t size;
    unsigned char *file = build(header, bytes, &size);
    Safetensors st;
    bool good = safetensors_parse(&st, file, size, "x.safetensors", error);
    if (!good) assert_true(st.header == NULL && st.entries == NULL && st.count == 0);
    safetensors_close(&st);
    free(file);
    return good;
}

#define ENTRY(name, dtype, shape, offsets) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"

static void headers_accepted(void **state) {
    (void)state;
    const struct { const char *header; size_t bytes; } cases[] = {
        { "{}", 0 },
        { "{}      ", 0 },
        { "{\"__metadata__\":{}}", 0 },
        { "{" ENTRY("a", "F32", "2", "0,8") "}", 8 },
        { "{" ENTRY("b", "F32", "2", "8,16") "," ENTRY("a", "I64", "1", "0,8") "}", 16 },        /* any order in the header */
        { "{" ENTRY("z", "F32", "0", "8,8") "," ENTRY("a", "F32", "2", "0,8") "," ENTRY("y", "U8", "0", "0,0") "}", 8 },
        { "{" ENTRY("a", "U8", "0,9007199254740992", "0,0") "}", 0 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1e0],\"data_offsets\":[0.0,1],\"extra\":[]}}", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!parse(cases[i].header, cases[i].bytes)) fail_msg("%s: %s", cases[i].header, error);
}

static void headers_refused(void **state) {
    (void)state;
    const struct { const char *header; size_t bytes; const char *message; } cases[] = {
        { "", 0, "the header is not valid JSON: line 1, column 1: the text ends where a value was expected" },
        { "[]", 0, "the header is not a JSON object" },
        { "{} x", 0, "the header is not valid JSON: line 1, column 4: found 'x' where the end of the text was expected" },
        { "{\"__metadata__\":[]}", 0, "__metadata__ must be an object of strings" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ must be an object of strings" },
        { "{\"a\":1}", 0, "the tensor 'a' has no dtype, where F32, F16, BF16, I32, I64, U8 or BOOL is needed" },
        { "{\"a\":{\"dtype\":5,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "the tensor 'a' has no dtype" },
        { "{" ENTRY("a", "F64", "", "0,8") "}", 8, "the tensor 'a' has dtype F64, where F32, F16, BF16, I32, I64, U8 or BOOL is needed" },
        { "{" ENTRY("a", "f32", "", "0,4") "}", 4, "the tensor 'a' has dtype f32" },
        { "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "the tensor 'a' has no shape" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":{},\"data_offsets\":[0,1]}}", 1, "the tensor 'a' has no shape" },
        { "{" ENTRY("a", "U8", "1,1,1,1,1,1,1,1,1", "0,1") "}", 1, "the tensor 'a' has 9 dimensions, more than 8" },
        { "{" ENTRY("a", "U8", "1,-1", "0,1") "}", 1, "dimension 1 of the tensor 'a' is not a possible size" },
        { "{" ENTRY("a", "U8", "1.5", "0,1") "}", 1, "dimension 0 of the tensor 'a' is not a possible size" },
        { "{" ENTRY("a", "U8", "\"1\"", "0,1") "}", 1, "dimension 0 of the tensor 'a' is not a possible size" },
        { "{" ENTRY("a", "U8", "9007199254740994", "0,1") "}", 1, "dimension 0 of the tensor 'a' is not a possible size" },
        { "{" ENTRY("a", "F32", "2147483648,2147483648", "0,0") "}", 0, "dimension 1 of the tensor 'a' is not a possible size" },
        { "{" ENTRY("a", "U8", "4294967296,4294967296", "0,0") "}", 0, "dimension 1 of the tensor 'a' is not a possible size" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "1", "0") "}", 1, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "1", "0,1,1") "}", 1, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "1", "-1,0") "}", 1, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "1", "1,0") "}", 1, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "1", "0,null") "}", 1, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "1", "0.5,1.5") "}", 2, "the tensor 'a' has no valid data_offsets" },
        { "{" ENTRY("a", "U8", "2", "0,2") "}", 1, "is truncated: the tensor 'a' ends at byte 2 of the data, of which there are 1" },
        { "{" ENTRY("a", "F32", "2", "0,4") "}", 4, "the tensor 'a' has 4 bytes of data, where its shape asks for 8" },
        { "{" ENTRY("a", "F32", "", "0,8") "}", 8, "the tensor 'a' has 8 bytes of data, where its shape asks for 4" },
        { "{" ENTRY("a", "U8", "1", "1,2") "}", 2, "the data of the tensor 'a' begins at byte 1, where 0 was expected: there is a hole" },
        { "{" ENTRY("a", "U8", "1", "0,1") "," ENTRY("b", "U8", "1", "2,3") "}", 3,
          "the data of the tensor 'b' begins at byte 2, where 1 was expected: there is a hole" },
        { "{" ENTRY("a", "U8", "2", "0,2") "," ENTRY("b", "U8", "2", "1,3") "}", 3,
          "the data of the tensor 'b' begins at byte 1, where 2 was expected: it overlaps another" },
        { "{" ENTRY("a", "U8", "2", "0,2") "," ENTRY("b", "U8", "2", "0,2") "}", 2,
          "the data of the tensor 'b' begins at byte 0, where 2 was expected: it overlaps another" },
        { "{" ENTRY("a", "U8", "2", "0,2") "," ENTRY("b", "U8", "0", "1,1") "}", 2, "where 2 was expected: it overlaps another" },
        { "{" ENTRY("a", "U8", "2", "0,2") "}", 5, "has 5 bytes of data, where its tensors take 2" },
        { "{}", 1, "has 1 bytes of data, where its tensors take 0" },
        { "{" ENTRY("a", "U8", "1", "0,1") "," ENTRY("a", "U8", "1", "1,2") "}", 2, "has the key \"a\" twice" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (parse(cases[i].header, cases[i].bytes)) fail_msg("accepted: %s", cases[i].header);
        if (!strstr(error, cases[i].message)) fail_msg("%s\n  said:     %s\n  expected: %s", cases[i].header, error, cases[i].message);
        assert_ptr_equal(strstr(error, "'x.safetensors'"), error);
    }
}

static void impossible_lengths(void **state) {
    (void)state;
    const struct { uint64_t length; const char *message; } cases[] = {
        { 3, "'x' is truncated: the header has 3 bytes, of which 2 are there" },
        { 100000000, "'x' is truncated: the header has 100000000 bytes, of which 2 are there" },
        { 100000001, "'x' is not a safetensors file: its header would have 100000001 bytes, more than 100000000" },
        { UINT64_MAX, "'x' is not a safetensors file: its header would have 18446744073709551615 bytes" },
        { UINT64_MAX - 7, "'x' is not a safetensors file" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char file[10] = { [8] = '{', [9] = '}' };
        for (int b = 0; b < 8; b++) file[b] = cases[i].length >> 8 * b;
        Safetensors st;
        assert_false(safetensors_parse(&st, file, sizeof file, "x", error));
        assert_non_null(strstr(error, cases[i].message));
    }
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    FileMap map;
    Safetensors st;
    write_one_of_each(NULL);
    assert_true(file_map(&map, path, error));
    for (size_t size = 0; size <= map.size + 1; size++) {
        unsigned char *part = calloc(size ? size : 1, 1);
        memcpy(part, map.data, size < map.size ? size : map.size);
        bool good = safetensors_parse(&st, part, size, "x", error);
        assert_true(good == (size == map.size));
        safetensors_close(&st);
        free(part);
    }
    file_unmap(&map);
}

static void missing_and_empty_files(void **state) {
    (void)state;
    Safetensors st;
    char *missing = path_join(directory, "missing");
    assert_false(safetensors_open(&st, missing, error));
    assert_non_null(strstr(error, "No such file or directory"));
    safetensors_close(&st);
    assert_true(file_close(file_create(missing), NULL, error));
    assert_false(safetensors_open(&st, missing, error));
    assert_non_null(strstr(error, "has 0 bytes: too short for a safetensors file"));
    free(missing);
}

/* ---- Misuse, which is our bug and not the user's ---- */

static const int64_t TWO[] = { 2 };

static SafetensorsWriter *begun(void) {
    SafetensorsWriter *w = safetensors_create(path);
    safetensors_declare(w, "a", ST_U8, 1, TWO);
    safetensors_begin(w);
    safetensors_write(w, "x", 1);
    return w;
}
static void too_few(void) { safetensors_finish(begun(), NULL, error); }
static void too_many(void) { safetensors_write(begun(), "xy", 2); }
static void too_late(void) { safetensors_declare(begun(), "b", ST_U8, 1, TWO); }
static void declared_twice(void) {
    SafetensorsWriter *w = safetensors_create(path);
    for (int i = 0; i < 2; i++) safetensors_declare(w, "a", ST_U8, 1, TWO);
    safetensors_begin(w);
}
static void read_beyond(void) {
    float floats[2];
    SafetensorsEntry entry = { .dtype = ST_F32, .bytes = 8, .data = floats };
    safetensors_read_floats(&entry, 1, 2, floats);
}
static void read_another_kind(void) {
    int64_t integers[2];
    SafetensorsEntry entry = { .dtype = ST_F32, .bytes = 8, .data = integers };
    safetensors_read_integers(&entry, 0, 2, integers);
}

static void misuse_stops_the_program(void **state) {
    (void)state;
    void (*const acts[])(void) = { too_few, too_many, too_late, declared_twice, read_beyond, read_another_kind };
    for (int i = 0; i < 6; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (!freopen("/dev/null", "w", stderr)) _exit(3);
            error_exit_hook(_exit);
            acts[i]();
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_int_equal(WEXITSTATUS(status), 1);
    }
}

static void a_failed_write_is_reported(void **state) {
    (void)state;
    char *nowhere = path_join(directory, "no/such/place");
    SafetensorsWriter *w = safetensors_create(nowhere);
    safetensors_declare(w, "a", ST_U8, 1, TWO);
    safetensors_begin(w);
    safetensors_write(w, "xy", 2);
    assert_false(safetensors_finish(w, NULL, error));
    assert_non_null(strstr(error, "no/such/place"));
    assert_non_null(strstr(error, "No such file or directory"));
    free(nowhere);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_each_reads_back),
        cmocka_unit_test(nothing_at_all),
        cmocka_unit_test(every_half_is_exact),
        cmocka_unit_test(headers_accepted),
        cmocka_unit_test(headers_refused),
        cmocka_unit_test(impossible_lengths),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(missing_and_empty_files),
        cmocka_unit_test(misuse_stops_the_program),
        cmocka_unit_test(a_failed_write_is_reported),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
