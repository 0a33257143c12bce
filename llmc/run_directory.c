/* run_directory.c: see run_directory.h. */
#include "run_directory.h"

#include "checkpoint.h"
#include "error.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char lock[] = ".lock", log_name[] = "log.jsonl";

static bool one_of(const char *name, const char *const *names) {
    while (*names && strcmp(name, *names) != 0) names++;
    return *names != NULL;
}

bool run_owns(const char *name) {
    static const char *const files[] = {lock, log_name, "run.json", "samples.txt", "curve.png", ".curve.png", NULL};
    static const char *const unfinished[] = {"log.jsonl.tmp", "run.json.tmp", "samples.txt.tmp", NULL};   /* files.h */
    return one_of(name, files) || one_of(name, unfinished) || checkpoint_owns(name);
}

/* ---- the entries of a directory ------------------------------------------------------------------------------------------------- */

typedef struct {
    char **own;        /* names, without the lock; the log is the last, since a directory that has it holds a run */
    int count;
    bool others;       /* there is more than the run's */
} Entries;

static int log_last(const void *a, const void *b) {
    return (strcmp(*(char *const *)a, log_name) == 0) - (strcmp(*(char *const *)b, log_name) == 0);
}

static Entries list_entries(const char *run) {
    Entries entries = {NULL, 0, false};
    DIR *d = opendir(run);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, lock) == 0) continue;
        if (!run_owns(name)) {
            entries.others = true;
            continue;
        }
        entries.own = (char **)xrealloc(entries.own, (size_t)(entries.count + 1) * sizeof *entries.own);
        entries.own[entries.count++] = xstrdup(name);
    }
    if (d) closedir(d);
    if (entries.count) qsort(entries.own, (size_t)entries.count, sizeof *entries.own, log_last);
    return entries;
}

static void entries_release(Entries *entries) {
    for (int i = 0; i < entries->count; i++) free(entries->own[i]);
    free(entries->own);
}

/* ---- an earlier run ------------------------------------------------------------------------------------------------------------- */

/* Where links lead to nothing, too. */
static bool taken(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

/* A directory that has another name than its own here: renaming it would not make room, or leave a link to nothing. */
static bool goes_by_another_name(const char *run) {
    struct stat status;
    const char *slash = strrchr(run, '/'), *name = slash ? slash + 1 : run;
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (lstat(run, &status) == 0 && S_ISLNK(status.st_mode));
}

/* The first free DIRECTORY.N. */
static char *free_name(const char *directory) {
    for (int i = 1;; i++) {
        char *name = xprintf("%s.%d", directory, i);
        if (!taken(name)) return name;
        free(name);
    }
}

static bool refuse(char error[ERROR_SIZE], const char *run, const char *kept) {
    return file_error(error, "%.150s holds an earlier run, which cannot be moved to %.150s: %s; choose another --out", run, kept, strerror(errno));
}

static bool move(const char *from, const char *to, const char *name) {
    char *old = path_join(from, name), *new_path = path_join(to, name);
    bool moved = rename(old, new_path) == 0;
    free(old);
    free(new_path);
    return moved;
}

/* Of what was begun before and is a whole now only the last step is left. */
static bool move_entries(const char *run, const Entries *entries, const char *moving, const char *kept, char error[ERROR_SIZE]) {
    bool good = mkdir(moving, 0777) == 0 || errno == EEXIST;
    for (int i = 0; good && i < entries->count; i++) good = move(run, moving, entries->own[i]);
    if (good && rename(moving, kept) == 0) return true;
    refuse(error, run, kept);
    rmdir(moving);   /* if nothing is in it */
    return false;
}

bool run_set_aside(const char *run, char **kept, char error[ERROR_SIZE]) {
    bool by_entries = goes_by_another_name(run), good = true;
    char *directory = by_entries ? realpath(run, NULL) : xstrdup(run);
    *kept = NULL;
    if (!directory) return true;   /* there is nothing */
    char *place = free_name(directory), *moving = xprintf("%s.moving", place);
    bool begun = taken(moving), needed = begun || checkpoint_run_exists(run);
    Entries entries = list_entries(run);
    if (needed && (begun || by_entries || entries.others)) good = move_entries(run, &entries, moving, place, error);
    else if (needed) good = rename(run, place) == 0 || refuse(error, run, place);
    if (needed && good) *kept = xstrdup(place);
    entries_release(&entries);
    free(moving);
    free(place);
    free(directory);
    return good;
}

/* ---- whose checkpoint ----------------------------------------------------------------------------------------------------------- */

/* The directory that holds it, links resolved; NULL if it is missing. */
static char *real_parent(const char *path) {
    char *real = realpath(path, NULL), *parent = real ? path_parent(real) : NULL;
    free(real);
    return parent;
}

bool run_has_checkpoint(const char *run, const char *checkpoint) {
    char *parent = real_parent(checkpoint), *real = realpath(run, NULL);
    bool same = parent && real && strcmp(parent, real) == 0;
    free(parent);
    free(real);
    return same;
}

char *run_of_checkpoint(const char *checkpoint) {
    char *shown = path_parent(checkpoint);   /* as the user has it, where that is the same */
    char *run = run_has_checkpoint(shown, checkpoint) ? xstrdup(shown) : real_parent(checkpoint);
    free(shown);
    if (run && checkpoint_run_exists(run)) return run;
    free(run);
    return NULL;
}
