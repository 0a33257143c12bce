/* json.h: JSON (RFC 8259) read into a tree, and the few calls that write it. Our own, because a bare compiler must build the
   trainer; it is fuzzed (dev/fuzz). Strict: UTF-8 only, no duplicate keys, no trailing text, depth at most 64, and
   beyond two million values no more than one in eight bytes. */
#ifndef LLMC_JSON_H
#define LLMC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;

typedef struct Json Json;
struct Json {
    JsonType type;
    double number;
    char *string;       /* JSON_STRING: UTF-8, NUL-terminated; the escape of NUL is refused, so no string holds one */
    char *key;          /* in an object: this member's key */
    size_t count;       /* elements of an array or members of an object */
    Json *items;        /* items[count], in the order of the text */
    uint32_t *index;    /* private to json.c: the hash table of a large object's keys */
};

/* Parses text[length] (no NUL needed). NULL on error, with a sentence naming line and column in error (may be NULL). */
Json *json_parse(const char *text, size_t length, char *error, size_t error_size);
void json_free(Json *json);

/* The member of that key, or NULL (also when `object` is NULL or no object). Objects of more than a few members are searched
   by hash, so that a vocabulary of 50,000 keys can be looked up key by key. */
const Json *json_get(const Json *object, const char *key);

/* True and *value set if json is a whole number within +-2^53; else (also for NULL) false. */
bool json_integer(const Json *json, int64_t *value);

/* True and *value set if the member exists and is of that kind (for integers: a whole number within +-2^53); else false. */
bool json_get_integer(const Json *object, const char *key, int64_t *value);
bool json_get_number(const Json *object, const char *key, double *value);
bool json_get_bool(const Json *object, const char *key, bool *value);
/* The string, or NULL. It lives as long as the tree. */
const char *json_get_string(const Json *object, const char *key);

/* Writes text as a JSON string, quotes and escapes included. Bytes that are not UTF-8 become U+FFFD. */
void json_write_string(FILE *file, const char *text);
/* Writes a number so that reading it gives the same double (or float, for json_write_float); NaN and Inf become null. */
void json_write_number(FILE *file, double value);
void json_write_float(FILE *file, float value);
/* `, "key": value`: a member behind another one. */
void json_write_number_member(FILE *file, const char *key, double value);
void json_write_string_member(FILE *file, const char *key, const char *text);

#ifdef __cplusplus
}
#endif

#endif
