/* model_directory.c: see model_directory.h. */
#include "model_directory.h"

#include "error.h"
#include "families.h"
#include "tokenizer.h"
#include "weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* What says which tokens they are: two files beside the vocabulary, and, if neither knows what ends a text, the vocabulary itself. */
typedef struct { Json *config, *generation, *vocabulary; } TokenSources;

/* The member, if it is a token of the vocabulary, or a list with at least one. */
static const Json *tokens_at(const Json *json, const char *key, int64_t V) {
    const Json *member = json_get(json, key);
    if (is_token(member, V)) return member;
    for (size_t i = 0; member && member->type == JSON_ARRAY && i < member->count; i++)
        if (is_token(&member->items[i], V)) return member;
    return NULL;
}

/* {"eos_token_id": ...} */
static Json *read_vocabulary(const char *directory) {
    char error[ERROR_SIZE], text[64];
    Tokenizer *tokenizer = tokenizer_open(directory, error);
    int32_t end = tokenizer ? tokenizer_end_of_text(tokenizer) : -1;
    int length = snprintf(text, sizeof text, end >= 0 ? "{\"eos_token_id\": %d}" : "{}", end);
    tokenizer_free(tokenizer);
    return json_parse(text, (size_t)length, NULL, 0);
}

static TokenSources token_sources(const char *directory, int64_t V) {
    static const char eos[] = "eos_token_id";
    TokenSources s = {NULL, NULL, NULL};
    if (!directory) return s;
    s.config = read_json(directory, "config.json");
    s.generation = read_json(directory, "generation_config.json");
    if (!tokens_at(s.config, eos, V) && !tokens_at(s.generation, eos, V)) s.vocabulary = read_vocabulary(directory);
    return s;
}

static void token_sources_release(TokenSources *s) {
    json_free(s->config);
    json_free(s->generation);
    json_free(s->vocabulary);
}

/* Each of the tokens by itself, from the first that knows it. */
static SpecialTokens special_tokens(const Json *first, const Json *second, const Json *third, int64_t V) {
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    const Json *sources[] = {first, second, third}, *found[3] = {NULL, NULL, NULL};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 3 && !found[k]; i++) found[k] = tokens_at(sources[i], keys[k], V);
    return (SpecialTokens){found[0], found[1], found[2]};
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

static bool write_generation_config(const char *directory, SpecialTokens special, int64_t V, char error[ERROR_SIZE]) {
    TextFile t;
    text_open(&t);
    generation_config_write(t.file, special, V);
    return text_close(&t, directory, "generation_config.json", error);
}

static bool write_weights(const char *directory, const Snapshot *s, DType dtype, char error[ERROR_SIZE]) {
    char *path = path_join(directory, "model.safetensors");
    bool good = weights_write_file(path, s->table, s->config, s->weights, dtype, NULL, error);
    free(path);
    return good;
}

bool model_directory_write(const char *directory, const Snapshot *s, DType dtype, const char *tokenizer_directory, char error[ERROR_SIZE]) {
    int64_t V = s->config->V;
    TokenSources from = token_sources(tokenizer_directory, V);
    bool good = write_config(directory, s->config, dtype, special_tokens(from.config, from.generation, from.vocabulary, V), error)
             && (family_of(s->config)->native
                 || write_generation_config(directory, special_tokens(from.generation, from.config, from.vocabulary, V), V, error))
             && write_weights(directory, s, dtype, error)
             && (!tokenizer_directory || tokenizer_copy(tokenizer_directory, directory, error));
    token_sources_release(&from);
    return good;
}

/* A new directory beside `directory`, whose missing parents are made too; its name, or NULL. */
static char *create_beside(const char *directory, char error[ERROR_SIZE]) {
    enum { TRIES = 100 };
    const char *slash = strrchr(directory, '/');
    char *parent = xprintf("%.*s", slash > directory ? (int)(slash - directory) : 1, slash ? directory : ".");
    bool good = directory_create(parent, error);
    free(parent);
    for (int i = 0; good && i < TRIES; i++) {
        char *name = xprintf("%s.writing-%d-%d", directory, (int)getpid(), i);
        if (mkdir(name, 0777) == 0) return name;
        good = errno == EEXIST && i + 1 < TRIES;
        if (!good) file_error(error, "cannot create the directory '%s': %s", name, strerror(errno));
        free(name);
    }
    return NULL;
}

static bool write_whole(const Snapshot *s, const char *temporary, const char *directory, const char *tokenizer_directory, DType dtype,
                        char error[ERROR_SIZE]) {
    if (!model_directory_write(temporary, s, dtype, tokenizer_directory, error) || !directory_sync(temporary, error)) return false;
    if (rename(temporary, directory) == 0) return true;
    return file_error(error, "cannot rename '%.150s' to '%.150s': %s", temporary, directory, strerror(errno));
}

/* The directory's name without slashes at its end. */
static char *bare_name(const char *directory) {
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') length--;
    return xprintf("%.*s", (int)length, directory);
}

bool model_export(Model *m, const char *directory, const char *tokenizer_directory, DType dtype, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE], ignored[ERROR_SIZE];
    Snapshot s = {0};
    if (!huggingface_family(&m->config, cause)) return file_error(error, "cannot export to '%.100s': %.350s", directory, cause);
    if (path_exists(directory)) return file_error(error, "cannot export to '%.300s': it exists already; give a new name", directory);
    char *final = bare_name(directory), *temporary = create_beside(final, error);
    if (temporary) model_snapshot(m, &s, false, false);
    bool good = temporary && write_whole(&s, temporary, final, tokenizer_directory, dtype, error);
    if (temporary && !good) directory_remove(temporary, ignored);
    snapshot_release(&s);
    free(temporary);
    free(final);
    return good;
}
