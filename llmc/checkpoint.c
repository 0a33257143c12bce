/* checkpoint.c: checkpoints written whole, found, verified and read. */
#include "checkpoint_state.h"

#include "error.h"
#include "weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char temporary_prefix[] = ".writing-", damaged_prefix[] = "damaged_", step_prefix[] = "step_";
static const char optimizer_file[] = "optimizer.safetensors";

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

static bool write_optimizer(const char *directory, const Snapshot *s, char error[ERROR_SIZE]) {
    const float *const moments[2] = {s->m, s->v};
    char *path = path_join(directory, optimizer_file);
    SafetensorsWriter *w = safetensors_create(path);
    free(path);
    for (int i = 0; i < 2; i++)
        if (moments[i]) parameters_declare(w, s->table, moment_prefixes[i]);
    safetensors_begin(w);
    for (int i = 0; i < 2; i++)
        if (moments[i]) parameters_write(w, s->table, moments[i]);
    return safetensors_finish(w, NULL, error);
}

static bool write_contents(const char *directory, const Snapshot *s, const RunState *state, const Options *options, const char *tokenizer_directory,
                           char error[ERROR_SIZE]) {
    return model_directory_write(directory, s, F32, tokenizer_directory, error) && write_optimizer(directory, s, error)
        && state_write(directory, s, state, options, error) && directory_sync(directory, error);
}

/* Puts the finished directory in its place. Where one of that name exists already the two change places in one step, and
   the old one goes; on a file system that cannot exchange, this one name is missing for a moment, and older checkpoints stand in. */
static bool move_into_place(const char *temporary, const char *final, char error[ERROR_SIZE]) {
    enum { EXCHANGE = 2 };
    if (path_exists(final)) {
        bool exchanged = syscall(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, final, EXCHANGE) == 0;
        if (!directory_remove(exchanged ? temporary : final, error)) return false;
        if (exchanged) return true;
    }
    if (rename(temporary, final) == 0) return true;
    snprintf(error, ERROR_SIZE, "cannot rename %.150s to %.150s: %s", temporary, final, strerror(errno));
    return false;
}

static char *step_name(int64_t step) { return xprintf("%s%08lld", step_prefix, (long long)step); }

/* -1 if it is not such a name. */
static int64_t step_of_name(const char *name) {
    if (strncmp(name, step_prefix, sizeof step_prefix - 1) != 0) return -1;
    int64_t step = strtoll(name + sizeof step_prefix - 1, NULL, 10);
    char *expected = step_name(step);
    bool ours = step >= 0 && strcmp(name, expected) == 0;
    free(expected);
    return ours ? step : -1;
}

/* Steps of the checkpoints in a run, newest first, in fresh memory. */
static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}
static int64_t *list_steps(const char *run, int *count) {
    int64_t *steps = NULL;
    DIR *d = opendir(run);
    *count = 0;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        int64_t step = step_of_name(entry->d_name);
        if (step < 0) continue;
        steps = (int64_t *)xrealloc(steps, (size_t)(*count + 1) * sizeof *steps);
        steps[(*count)++] = step;
    }
    if (d) closedir(d);
    if (*count) qsort(steps, (size_t)*count, sizeof *steps, descending);
    return steps;
}

/* Removes all but the newest `keep` and the one that `best` points to. */
static bool prune(const char *run, int64_t keep, char error[ERROR_SIZE]) {
    char best[256] = "", *link = path_join(run, "best");
    ssize_t n = readlink(link, best, sizeof best - 1);
    best[n > 0 ? n : 0] = 0;
    free(link);
    int count;
    int64_t *steps = list_steps(run, &count);
    bool ok = true;
    for (int i = (int)keep; i < count && ok; i++) {
        char *name = step_name(steps[i]), *path = path_join(run, name);
        if (strcmp(name, best) != 0) ok = directory_remove(path, error);
        free(name);
        free(path);
    }
    free(steps);
    return ok;
}

bool checkpoint_save(const char *run, const Snapshot *s, const RunState *state, const Options *options, const char *tokenizer_directory, bool best,
                     char error[ERROR_SIZE]) {
    char *name = step_name(state->step), *temporary_name = xprintf("%s%s", temporary_prefix, name);
    char *temporary = path_join(run, temporary_name), *final = path_join(run, name);
    char *best_link = path_join(run, "best"), *last_link = path_join(run, "last"), aside[ERROR_SIZE];
    /* A run without a vocabulary beside its data has it from the checkpoint that it went on from, which may have been pruned. */
    if (tokenizer_directory && !path_exists(tokenizer_directory)) tokenizer_directory = last_link;
    bool ok = directory_remove(temporary, error) && directory_create(temporary, error)
           && write_contents(temporary, s, state, options, tokenizer_directory, error)
           && move_into_place(temporary, final, error) && directory_sync(run, error);
    if (!ok) directory_remove(temporary, aside);
    ok = ok && symlink_replace(name, last_link, error) && (!best || symlink_replace(name, best_link, error));
    if (ok && !prune(run, options->keep, aside)) warn("an older checkpoint could not be removed: %s", aside);
    free(name);
    free(temporary_name);
    free(temporary);
    free(final);
    free(best_link);
    free(last_link);
    return ok;
}

bool checkpoint_clean(const char *run, char error[ERROR_SIZE]) {
    DIR *d = opendir(run);
    bool ok = true;
    for (struct dirent *entry; d && ok && (entry = readdir(d));) {
        if (strncmp(entry->d_name, temporary_prefix, sizeof temporary_prefix - 1) != 0) continue;
        char *path = path_join(run, entry->d_name);
        ok = directory_remove(path, error);
        free(path);
    }
    if (d) closedir(d);
    return ok;
}

bool checkpoint_owns(const char *name) {
    static const char *const links[] = {"best", "last", "best.tmp", "last.tmp"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (strcmp(name, links[i]) == 0) return true;
    if (strncmp(name, damaged_prefix, sizeof damaged_prefix - 1) == 0) name += sizeof damaged_prefix - 1;
    return step_of_name(name) >= 0 || strncmp(name, temporary_prefix, sizeof temporary_prefix - 1) == 0;
}

int64_t checkpoint_newest_step(const char *run) {
    int count;
    int64_t *steps = list_steps(run, &count), newest = count > 0 ? steps[0] : -1;
    free(steps);
    return newest;
}

bool checkpoint_run_exists(const char *run) {
    char *log = path_join(run, "log.jsonl");
    bool exists = checkpoint_newest_step(run) >= 0 || path_exists(log);
    free(log);
    return exists;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

static bool verify_file(const char *directory, const Json *file, char error[ERROR_SIZE]) {
    int64_t crc, size;
    uint32_t found_crc = 0;
    uint64_t found_size = 0;
    if (strchr(file->key, '/') || !json_get_integer(file, "crc32", &crc) || !json_get_integer(file, "size", &size)) {
        snprintf(error, ERROR_SIZE, "%.200s/state.json describes file '%.60s' wrongly", directory, file->key);
        return false;
    }
    char *path = path_join(directory, file->key);
    bool ok = file_crc32(path, &found_crc, &found_size, error);
    if (ok && (found_size != (uint64_t)size || found_crc != (uint32_t)crc)) {
        snprintf(error, ERROR_SIZE, "%.200s is damaged: %llu bytes with checksum %08x, expected %lld with %08x", path, (unsigned long long)found_size,
                 (unsigned)found_crc, (long long)size, (unsigned)crc);
        ok = false;
    }
    free(path);
    return ok;
}

static bool verify_files(const char *directory, bool with_optimizer, char error[ERROR_SIZE]) {
    static const char *const needed[] = {"config.json", "model.safetensors", optimizer_file};
    Json *state = state_read(directory, error);
    if (!state) return false;
    const Json *files = json_get(state, "files");
    bool ok = true;
    for (size_t i = 0; i < 3 && ok; i++)
        if (!json_get(files, needed[i])) {
            snprintf(error, ERROR_SIZE, "%.200s/state.json lists no %s", directory, needed[i]);
            ok = false;
        }
    for (size_t i = 0; i < files->count && ok; i++)
        if (with_optimizer || strcmp(files->items[i].key, optimizer_file) != 0) ok = verify_file(directory, &files->items[i], error);
    json_free(state);
    return ok;
}

bool checkpoint_verify(const char *directory, char error[ERROR_SIZE]) { return verify_files(directory, true, error); }

static bool step_is_whole(const char *run, int64_t step, char error[ERROR_SIZE]) {
    char *name = step_name(step), *path = path_join(run, name);
    bool whole = checkpoint_verify(path, error);
    free(name);
    free(path);
    return whole;
}

/* A damaged checkpoint must not count as the newest one when older ones are pruned. */
static void set_aside(const char *run, int64_t step) {
    char *name = step_name(step), *path = path_join(run, name);
    char *aside_name = xprintf("%s%s", damaged_prefix, name), *aside = path_join(run, aside_name);
    char cause[ERROR_SIZE], ignored[ERROR_SIZE];
    if (!checkpoint_verify(path, cause)) warn("checkpoint passed over and renamed %s: %s", aside_name, cause);
    directory_remove(aside, ignored);
    if (rename(path, aside) != 0) warn("cannot rename %s: %s", path, strerror(errno));
    free(name);
    free(path);
    free(aside_name);
    free(aside);
}

char *checkpoint_find(const char *run, const char *which, char error[ERROR_SIZE]) {
    if (strcmp(which, "auto") != 0) {
        char *directory = model_directory(which, error);
        if (directory && checkpoint_verify(directory, error)) return directory;
        free(directory);
        return NULL;
    }
    int count, whole = 0;
    char cause[ERROR_SIZE];
    int64_t *steps = list_steps(run, &count);
    snprintf(error, ERROR_SIZE, "there is no checkpoint in %.200s to resume from", run);
    while (whole < count && !step_is_whole(run, steps[whole], cause)) {
        if (whole == 0) snprintf(error, ERROR_SIZE, "there is no complete checkpoint in %.100s to resume from: %.350s", run, cause);
        whole++;
    }
    for (int i = 0; i < whole && whole < count; i++) set_aside(run, steps[i]);
    char *name = whole < count ? step_name(steps[whole]) : NULL, *found = name ? path_join(run, name) : NULL;
    free(name);
    free(steps);
    return found;
}

/* Takes up the matrix products of the run, so that the same numbers come out of them. */
static void set_algorithms(const char *directory, const Model *m, const char *algorithms) {
    if (algorithms && !m->backend->set_algorithms(algorithms) && m->spec.rank == 0)
        warn("%s was written on another device or with another library: going on from it, but not to the same bits", directory);
}

bool checkpoint_load(const char *directory, Model *m, RunState *run, char error[ERROR_SIZE]) {
    Config config;
    RunState read;
    int64_t updates;
    if (!model_directory_config(directory, &config, error) || !config_same(&config, &m->config, error)) return false;
    Json *state = state_read(directory, error);
    char *optimizer = path_join(directory, optimizer_file);
    bool ok = state && state_parse(state, directory, &read, &updates, error);
    if (ok) set_algorithms(directory, m, json_get_string(state, "matmul_algorithms"));
    ok = ok && model_read_directory(m, directory, error) && model_read_optimizer(m, optimizer, error);
    if (ok) model_set_updates(m, (uint32_t)updates);
    if (ok) *run = read;
    free(optimizer);
    json_free(state);
    return ok;
}

char *model_directory(const char *path, char error[ERROR_SIZE]) {
    static const char *const candidates[] = {"", "best", "last"};
    for (int i = 0; i < 3; i++) {
        char *directory = i == 0 ? xstrdup(path) : path_join(path, candidates[i]), *config = path_join(directory, "config.json");
        bool found = path_exists(config);
        free(config);
        if (found) return directory;
        free(directory);
    }
    bool empty = path_is_directory(path);
    snprintf(error, ERROR_SIZE, empty ? "%.200s holds no model: neither config.json nor a checkpoint" : "%.200s is not a directory", path);
    return NULL;
}

bool model_directory_verify(const char *directory, char error[ERROR_SIZE]) {
    char *state = path_join(directory, "state.json");
    bool checkpoint = path_exists(state);
    free(state);
    return !checkpoint || verify_files(directory, false, error);
}
