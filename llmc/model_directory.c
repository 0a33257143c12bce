/* model_directory.c: see model_directory.h. */
#include "model_directory.h"

#include "error.h"
#include "families.h"
#include "tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool model_directory_config(const char *directory, Config *config, char error[ERROR_SIZE]) {
    const Family *family;
    return config_read_directory(directory, config, &family, error);
}

/* ---- special tokens --------------------------------------------------------------------------------------------------------- */

static Json *read_json(const char *directory, const char *name) {
    enum { MOST_BYTES = 1 << 20 };
    char error[ERROR_SIZE], *path = path_join(directory, name);
    size_t length;
    char *text = path_exists(path) ? file_read_text(path, MOST_BYTES, &length, error) : NULL;
    Json *json = text ? json_parse(text, length, NULL, 0) : NULL;
    free(text);
    free(path);
    return json;
}

/* The member, if it is a token of the vocabulary, or a list of such. */
static const Json *tokens_at(const Json *json, const char *key, int64_t V) {
    const Json *member = json_get(json, key), *ids = member;
    bool list = member && member->type == JSON_ARRAY;
    size_t count = !member ? 0 : list ? member->count : 1;
    for (size_t i = 0; i < count; i++) {
        int64_t id;
        if (list) ids = &member->items[i];
        if (!json_integer(ids, &id) || id < 0 || id >= V) return NULL;
    }
    return count > 0 ? member : NULL;
}

/* What generation_config.json says beside the vocabulary, or config.json; else the vocabulary itself. *json owns what is returned. */
static SpecialTokens find_special_tokens(const char *directory, int64_t V, Json **json) {
    static const char *const sources[] = {"generation_config.json", "config.json"};
    SpecialTokens special = {NULL, NULL};
    for (int i = 0; directory && i < 2; i++) {
        *json = read_json(directory, sources[i]);
        special = (SpecialTokens){tokens_at(*json, "bos_token_id", V), tokens_at(*json, "eos_token_id", V)};
        if (special.bos || special.eos) return special;
        json_free(*json);
    }
    char error[ERROR_SIZE], text[64];
    Tokenizer *tokenizer = directory ? tokenizer_open(directory, error) : NULL;
    int32_t end = tokenizer ? tokenizer_end_of_text(tokenizer) : -1;
    int length = snprintf(text, sizeof text, end >= 0 ? "{\"eos_token_id\": %d}" : "{}", end);
    if (tokenizer) tokenizer_free(tokenizer);
    *json = json_parse(text, (size_t)length, NULL, 0);
    return (SpecialTokens){NULL, tokens_at(*json, "eos_token_id", V)};
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

/* A text file, written into memory first. */
typedef struct { FILE *file; char *text; size_t length; } TextFile;

static void text_open(TextFile *t) {
    t->file = open_memstream(&t->text, &t->length);
    if (!t->file) die("out of memory");
}
static bool text_close(TextFile *t, const char *directory, const char *name, char error[ERROR_SIZE]) {
    fclose(t->file);
    bool good = file_write_text(directory, name, t->text, t->length, error);
    free(t->text);
    return good;
}

static bool write_config(const char *directory, const Config *config, DType dtype, SpecialTokens special, char error[ERROR_SIZE]) {
    TextFile t;
    text_open(&t);
    config_write(t.file, config, dtype, special);
    return text_close(&t, directory, "config.json", error);
}

static bool write_generation_config(const char *directory, SpecialTokens special, char error[ERROR_SIZE]) {
    TextFile t;
    text_open(&t);
    generation_config_write(t.file, special);
    return text_close(&t, directory, "generation_config.json", error);
}

static bool write_weights(const char *directory, const Model *m, DType dtype, char error[ERROR_SIZE]) {
    char *path = path_join(directory, "model.safetensors");
    uint32_t crc;
    bool good = model_write_weights(m, path, dtype, &crc, error);
    free(path);
    return good;
}

bool model_directory_write(const char *directory, const Model *m, DType dtype, const char *tokenizer_directory, char error[ERROR_SIZE]) {
    Json *owner;
    SpecialTokens special = find_special_tokens(tokenizer_directory, m->config.V, &owner);
    bool good = write_config(directory, &m->config, dtype, special, error)
             && (family_of(&m->config)->native || write_generation_config(directory, special, error))
             && write_weights(directory, m, dtype, error)
             && (!tokenizer_directory || tokenizer_copy(tokenizer_directory, directory, error));
    json_free(owner);
    return good;
}

static bool write_whole(const Model *m, const char *temporary, const char *directory, const char *tokenizer_directory, DType dtype,
                        char error[ERROR_SIZE]) {
    if (!directory_remove(temporary, error) || !directory_create(temporary, error)
        || !model_directory_write(temporary, m, dtype, tokenizer_directory, error) || !directory_sync(temporary, error)) return false;
    if (rename(temporary, directory) == 0) return true;
    return file_error(error, "cannot rename '%.150s' to '%.150s': %s", temporary, directory, strerror(errno));
}

/* The directory's name without slashes at its end. */
static char *bare_name(const char *directory) {
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') length--;
    return xprintf("%.*s", (int)length, directory);
}

bool model_export(const Model *m, const char *directory, const char *tokenizer_directory, DType dtype, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE], ignored[ERROR_SIZE];
    if (!huggingface_family(&m->config, cause)) return file_error(error, "cannot export to '%.100s': %.350s", directory, cause);
    if (path_exists(directory)) return file_error(error, "cannot export to '%.300s': it exists already; give a new name", directory);
    char *final = bare_name(directory), *temporary = xprintf("%s.writing", final);
    bool good = write_whole(m, temporary, final, tokenizer_directory, dtype, error);
    if (!good) directory_remove(temporary, ignored);
    free(temporary);
    free(final);
    return good;
}
