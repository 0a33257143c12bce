/* dataset_info.c: see dataset_info.h. */
#include "dataset_info.h"
#include "error.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The directory of a file, or of a pattern of files; a directory is its own. */
static char *dataset_directory(const char *path) {
    if (path_is_directory(path)) return xstrdup(path);
    const char *slash = strrchr(path, '/');
    if (!slash) return xstrdup(".");
    return slash == path ? xstrdup("/") : xprintf("%.*s", (int)(slash - path), path);
}

/* Takes the text of a member; false if the member is there and is no text. */
static bool take_text(const Json *json, const char *key, char **text) {
    const char *found = json_get_string(json, key);
    if (found) *text = xstrdup(found);
    return found || !json_get(json, key);
}

/* Takes a whole number that counts something; false if the member is there and is no such number. */
static bool take_count(const Json *json, const char *key, int64_t *count) {
    return !json_get(json, key) || (json_get_integer(json, key, count) && *count >= 0);
}

static bool take_counts(const Json *json, const char *key, SplitCounts *counts) {
    const Json *member = json_get(json, key);
    return !member || (member->type == JSON_OBJECT && take_count(member, "train", &counts->train) && take_count(member, "val", &counts->val));
}

static bool read_fields(DatasetInfo *info, const Json *json, const char *path, char error[ERROR_SIZE]) {
    if (json->type != JSON_OBJECT) return file_error(error, "'%s' is no dataset description: it is JSON, but no object", path);
    bool whole = json_get_integer(json, "vocab_size", &info->vocab_size);
    if (json_get(json, "vocab_size") && !(whole && info->vocab_size >= 1 && info->vocab_size <= INT32_MAX))
        return file_error(error, "'%s': vocab_size must be a whole number from 1 to %d", path, INT32_MAX);
    int64_t most = (info->vocab_size ? info->vocab_size : INT32_MAX) - 1;
    whole = json_get_integer(json, "end_of_text", &info->end_of_text);
    if (json_get(json, "end_of_text") && !(whole && info->end_of_text >= 0 && info->end_of_text <= most))
        return file_error(error, "'%s': end_of_text must be a token, a whole number from 0 to %lld", path, (long long)most);
    if (!take_text(json, "tokenizer", &info->tokenizer) || !take_text(json, "source", &info->source) ||
        !take_text(json, "sha256", &info->sha256))
        return file_error(error, "'%s': tokenizer, source and sha256 must be texts", path);
    if (!take_counts(json, "tokens", &info->tokens) || !take_counts(json, "bytes", &info->bytes))
        return file_error(error, "'%s': tokens and bytes must be whole numbers, as {\"train\": N, \"val\": N}", path);
    return true;
}

bool dataset_info_read(DatasetInfo *info, const char *shard_path, char error[ERROR_SIZE]) {
    *info = (DatasetInfo){ .end_of_text = -1 };
    char *directory = dataset_directory(shard_path), *path = path_join(directory, "dataset.json");
    bool good = true;
    if (path_exists(path)) {
        size_t length;
        char cause[ERROR_SIZE / 2], *text = file_read_text(path, 1 << 20, &length, error);
        Json *json = text ? json_parse(text, length, cause, sizeof cause) : NULL;
        if (text && !json) file_error(error, "'%s' is broken: %s", path, cause);
        good = json && read_fields(info, json, path, error);
        json_free(json);
        free(text);
        if (good) info->directory = xstrdup(directory);
        else dataset_info_free(info);
    }
    free(directory);
    free(path);
    return good;
}

void dataset_info_free(DatasetInfo *info) {
    free(info->tokenizer);
    free(info->source);
    free(info->sha256);
    free(info->directory);
    *info = (DatasetInfo){ .end_of_text = -1 };
}

double dataset_bytes_per_token(const DatasetInfo *info, int64_t tokens) {
    const SplitCounts *t = &info->tokens, *b = &info->bytes;
    if (tokens > 0 && tokens == t->val && b->val > 0) return (double)b->val / (double)t->val;
    if (tokens > 0 && tokens == t->train && b->train > 0) return (double)b->train / (double)t->train;
    return 0;
}

double bits_per_byte(double loss, double bytes_per_token) { return bytes_per_token > 0 ? loss / M_LN2 / bytes_per_token : 0; }
