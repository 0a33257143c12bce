/* weight_files.c: see weight_files.h. */
#include "weight_files.h"

#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INDEX_BYTES = 64 << 20 };

static const char whole_file[] = "model.safetensors", index_file[] = "model.safetensors.index.json";

void weight_files_free_names(char **names, int count) {
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

char **weight_files_of_index(const Json *index, int *count, char error[ERROR_SIZE]) {
    const Json *map = json_get(index, "weight_map");
    *count = 0;
    if (!map || map->type != JSON_OBJECT || map->count == 0) {
        file_error(error, "the index has no weight_map from tensors to files");
        return NULL;
    }
    const char **sorted = (const char **)xcalloc(map->count, sizeof *sorted);
    char **names = (char **)xcalloc(map->count, sizeof *names);
    for (size_t i = 0; i < map->count; i++) {
        const Json *shard = &map->items[i];
        bool plain = shard->type == JSON_STRING && *shard->string && *shard->string != '.' && !strchr(shard->string, '/');
        if (!plain) {
            file_error(error, "the index puts tensor '%.100s' into no file of this directory", shard->key);
            free(sorted);
            free(names);
            return NULL;
        }
        sorted[i] = shard->string;
    }
    qsort(sorted, map->count, sizeof *sorted, compare_names);
    for (size_t i = 0; i < map->count; i++)
        if (i == 0 || strcmp(sorted[i], sorted[i - 1]) != 0) names[(*count)++] = xstrdup(sorted[i]);
    free(sorted);
    return names;
}

/* The files and the index name the same tensors in the same places. */
static bool check_index(const WeightFiles *s, const Json *map, char error[ERROR_SIZE]) {
    size_t found = 0;
    for (int i = 0; i < s->count; i++)
        for (size_t k = 0; k < s->files[i].count; k++, found++) {
            const char *name = s->files[i].entries[k].name, *place = json_get_string(map, name);
            if (!place) return file_error(error, "tensor '%.100s' lies in '%.100s', but the index lacks it", name, s->names[i]);
            if (strcmp(place, s->names[i]) != 0)
                return file_error(error, "tensor '%.100s' lies in '%.100s', but belongs into '%.100s' alone", name, s->names[i], place);
        }
    for (size_t i = 0; found != map->count && i < map->count; i++)
        for (int f = 0; f < s->count; f++)
            if (strcmp(map->items[i].string, s->names[f]) == 0 && !safetensors_find(&s->files[f], map->items[i].key))
                return file_error(error, "tensor '%.100s' is missing from '%.100s', where the index puts it", map->items[i].key,
                                  s->names[f]);
    return true;
}

static bool open_files(WeightFiles *s, const char *directory, char error[ERROR_SIZE]) {
    int wanted = s->count;
    s->files = (Safetensors *)xcalloc((size_t)wanted, sizeof *s->files);
    for (int i = 0; i < wanted; i++) {
        char *path = path_join(directory, s->names[i]);
        bool opened = safetensors_open(&s->files[i], path, error);
        free(path);
        if (!opened) return false;
    }
    return true;
}

static Json *read_index(const char *path, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE];
    size_t length;
    char *text = file_read_text(path, INDEX_BYTES, &length, error);
    Json *index = text ? json_parse(text, length, cause, sizeof cause) : NULL;
    if (text && !index) file_error(error, "'%.200s' is not valid JSON: %.250s", path, cause);
    free(text);
    return index;
}

static bool open_indexed(WeightFiles *s, const char *directory, const char *path, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE] = "";
    Json *index = read_index(path, error);
    if (!index) return false;
    s->names = weight_files_of_index(index, &s->count, cause);
    bool opened = s->names && open_files(s, directory, error);
    bool good = opened && check_index(s, json_get(index, "weight_map"), cause);
    if (*cause) file_error(error, "%.200s: %.300s", path, cause);
    json_free(index);
    return good;
}

static bool open_whole(WeightFiles *s, const char *directory, char error[ERROR_SIZE]) {
    s->count = 1;
    s->names = (char **)xcalloc(1, sizeof *s->names);
    s->names[0] = xstrdup(whole_file);
    return open_files(s, directory, error);
}

static bool refuse_without(const char *directory, char error[ERROR_SIZE]) {
    static const char *const pickled[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    bool found = false;
    for (int i = 0; i < 2; i++) {
        char *path = path_join(directory, pickled[i]);
        found = found || path_exists(path);
        free(path);
    }
    if (!found) return file_error(error, "%.300s holds neither %s nor %s", directory, whole_file, index_file);
    return file_error(error, "%.200s holds its weights as pytorch_model.bin, which can run code when it is read; load the model in "
                             "transformers and save_pretrained() it, which writes %s", directory, whole_file);
}

/* An adapter changes the weights beside it, as transformers heeds and we would not. */
static bool refuse_adapter(const char *directory, char error[ERROR_SIZE]) {
    char *adapter = path_join(directory, "adapter_config.json");
    bool found = path_exists(adapter);
    free(adapter);
    if (!found) return true;
    return file_error(error, "%.200s holds adapter_config.json: an adapter, which this engine lacks; merge it into the model first "
                             "(merge_and_unload() of peft), or remove that file to leave the adapter out", directory);
}

bool weight_files_open(WeightFiles *s, const char *directory, char error[ERROR_SIZE]) {
    *s = (WeightFiles){0};
    if (!refuse_adapter(directory, error)) return false;
    char *whole = path_join(directory, whole_file), *index = path_join(directory, index_file);
    bool good = path_exists(whole) ? open_whole(s, directory, error)
              : path_exists(index) ? open_indexed(s, directory, index, error) : refuse_without(directory, error);
    free(whole);
    free(index);
    if (!good) weight_files_close(s);
    return good;
}

void weight_files_close(WeightFiles *s) {
    for (int i = 0; s->files && i < s->count; i++) safetensors_close(&s->files[i]);
    free(s->files);
    weight_files_free_names(s->names, s->count);
    *s = (WeightFiles){0};
}
