/* data_files.c: see data_files.h. */
#include "data_files.h"

#include "error.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

static void add(DataFiles *files, char *name) {
    files->names = xrealloc(files->names, (files->count + 1) * sizeof *files->names);
    files->names[files->count++] = name;
}

void data_files_free(DataFiles *files) {
    for (size_t i = 0; i < files->count; i++) free(files->names[i]);
    free(files->names);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void add_directory(DataFiles *files, const char *path) {
    DIR *directory = opendir(path);
    if (!directory) die("cannot read the directory '%s': %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(directory));) {
        size_t length = strlen(entry->d_name);
        if (length > 4 && strcmp(entry->d_name + length - 4, ".bin") == 0) add(files, path_join(path, entry->d_name));
    }
    closedir(directory);
    if (files->count == 0) die("the directory '%s' holds no token shards (*.bin); prepare data with data/prepare.py (data/README.md)", path);
}

static void add_glob(DataFiles *files, const char *pattern) {
    glob_t found;
    int status = glob(pattern, GLOB_ERR, NULL, &found);
    for (size_t i = 0; status == 0 && i < found.gl_pathc; i++) add(files, xstrdup(found.gl_pathv[i]));
    if (status == 0) globfree(&found);
    if (files->count == 0)
        die("there is no token file '%s'; prepare data with data/prepare.py (data/prepare.sh: characters), or name another file", pattern);
}

DataFiles data_files(const char *pattern) {
    DataFiles files = {NULL, 0};
    if (path_is_directory(pattern)) add_directory(&files, pattern);
    else if (path_exists(pattern)) add(&files, xstrdup(pattern));
    else add_glob(&files, pattern);
    qsort(files.names, files.count, sizeof *files.names, compare_names);
    return files;
}

static bool named_for_validation(const char *path) {
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, "val", 3) == 0;
}

DataFiles data_files_for_validation(const char *pattern) {
    DataFiles files = data_files(pattern);
    size_t kept = 0, named = 0;
    for (size_t i = 0; i < files.count; i++) named += named_for_validation(files.names[i]);
    if (!path_is_directory(pattern) || named == 0) return files;
    for (size_t i = 0; i < files.count; i++) {
        if (named_for_validation(files.names[i])) files.names[kept++] = files.names[i];
        else free(files.names[i]);
    }
    files.count = kept;
    return files;
}

/* By the one name that tells a file from all others. */
static DataFiles resolved(DataFiles files) {
    for (size_t i = 0; i < files.count; i++) {
        char *path = realpath(files.names[i], NULL);
        if (!path) continue;
        free(files.names[i]);
        files.names[i] = path;
    }
    qsort(files.names, files.count, sizeof *files.names, compare_names);
    return files;
}

static bool among(const DataFiles *files, const char *name) {
    char *path = realpath(name, NULL);
    bool found = path && bsearch(&path, files->names, files->count, sizeof *files->names, compare_names);
    free(path);
    return found;
}

DataFiles data_files_for_training(const char *pattern, const char *validation) {
    DataFiles files = data_files(pattern);
    if (!path_is_directory(pattern)) return files;
    DataFiles others = resolved(data_files_for_validation(validation));
    size_t kept = 0;
    for (size_t i = 0; i < files.count; i++) {
        bool left_out = named_for_validation(files.names[i]) || among(&others, files.names[i]);
        if (left_out) free(files.names[i]);
        else files.names[kept++] = files.names[i];
    }
    files.count = kept;
    data_files_free(&others);
    if (kept == 0)
        die("of the directory '%s' nothing is left to train on without its validation tokens (val*.bin, and the files of --val-data); name the "
            "training tokens by a pattern in quotes", pattern);
    return files;
}
