/* fuzz_json.c: whatever text is read can be written and read again as the same tree, and every member is found by its key. */
#include "llmc/error.h"
#include "llmc/json.h"

#include <stdlib.h>
#include <string.h>

static void write_json(FILE *file, const Json *json) {
    static const char *const words[] = { [JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true" };
    if (json->type <= JSON_TRUE) fputs(words[json->type], file);
    else if (json->type == JSON_NUMBER) json_write_number(file, json->number);
    else if (json->type == JSON_STRING) json_write_string(file, json->string);
    else {
        putc(json->type == JSON_ARRAY ? '[' : '{', file);
        for (size_t i = 0; i < json->count; i++) {
            if (i) putc(',', file);
            if (json->type == JSON_OBJECT) json_write_string(file, json->items[i].key), putc(':', file);
            write_json(file, &json->items[i]);
        }
        putc(json->type == JSON_ARRAY ? ']' : '}', file);
    }
}

static void check_same(const Json *a, const Json *b) {
    CHECK(a->type == b->type && a->count == b->count && memcmp(&a->number, &b->number, sizeof a->number) == 0);
    CHECK(!a->string == !b->string && (!a->string || strcmp(a->string, b->string) == 0));
    CHECK(!a->key == !b->key && (!a->key || strcmp(a->key, b->key) == 0));
    for (size_t i = 0; i < a->count; i++) {
        if (a->type == JSON_OBJECT) CHECK(json_get(a, a->items[i].key) == &a->items[i]);
        check_same(&a->items[i], &b->items[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[256] = "", *text = NULL;
    size_t length = 0;
    Json *json = json_parse((const char *)data, size, error, sizeof error), *again = NULL;
    CHECK(json || (strlen(error) > 20 && strlen(error) < sizeof error));
    if (!json) return 0;
    FILE *file = open_memstream(&text, &length);
    write_json(file, json);
    fclose(file);
    again = json_parse(text, length, error, sizeof error);
    CHECK(again);
    check_same(json, again);
    json_free(again);
    json_free(json);
    free(text);
    return 0;
}
