/* checkpoint_state.c: see checkpoint_state.h. */
#include "checkpoint_state.h"

#include "error.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "train_gpt checkpoint";
static const char checksum_member[] = "  \"checksum\": ";

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

/* Options that belong to one invocation, not to the run. */
static bool belongs_to_run(const char *name) {
    static const char *const invocation[] = {"out", "resume", "config", "plan", "profile", "eval_only", "check_numerics", "max_time", "device",
                                             "print_config", "export_", "gpus", "comm", "ranks", "comm_timeout", "check_ranks", "link_speed",
                                             "matmul_speed", "plan_memory", "checkpoint_async", "quiet", "live"};
    for (size_t i = 0; i < sizeof invocation / sizeof *invocation; i++)
        if (strcmp(name, invocation[i]) == 0) return false;
    return true;
}

static void write_options(FILE *f, const Options *options) {
    const char *separator = "\n";
    for (int i = 0; i < train_options.count; i++) {
        const OptionRow *row = &train_options.rows[i];
        if (row->kind == OPTION_SECTION || !belongs_to_run(row->name)) continue;
        char *text = options_format(row, options);
        fprintf(f, "%s    \"%s\": ", separator, row->name);
        json_write_string(f, text);
        free(text);
        separator = ",\n";
    }
}

/* Oldest first. */
static void write_outcomes(FILE *f, const char *name, const SpikeGuard *g, const float *values) {
    fprintf(f, ", \"%s\": [", name);
    for (int64_t i = 0; i < g->count; i++) {
        if (i) fputs(", ", f);
        json_write_float(f, values[(g->newest - g->count + 1 + i) % SPIKE_WINDOW]);
    }
    putc(']', f);
}

static void write_spikes(FILE *f, const SpikeGuard *g) {
    fprintf(f, "{\"newest\": %lld", (long long)g->newest);
    write_outcomes(f, "losses", g, g->losses);
    write_outcomes(f, "norms", g, g->norms);
    putc('}', f);
}

static void write_run(FILE *f, const RunState *run, uint32_t updates) {
    fprintf(f, "  \"step\": %lld,\n  \"samples\": %lld,\n  \"tokens\": %lld,\n  \"updates\": %u,\n  \"ranks\": %lld,\n", (long long)run->step,
            (long long)run->samples, (long long)run->tokens, (unsigned)updates, (long long)(run->ranks ? run->ranks : 1));
    fprintf(f, "  \"best_val_loss\": ");
    json_write_number(f, run->best_val_loss);
    fprintf(f, ",\n  \"elapsed_s\": ");
    json_write_number(f, run->elapsed_s);
    fprintf(f, ",\n  \"data\": ");
    json_write_string(f, run->data);
    fprintf(f, ",\n  \"spikes\": ");
    write_spikes(f, &run->spikes);
}

/* name, checksum and size of every file that lies in the directory already */
static bool write_file_list(FILE *f, const char *directory, char error[ERROR_SIZE]) {
    DIR *d = opendir(directory);
    const char *separator = "\n";
    bool ok = d || file_error(error, "cannot read the directory '%s': %s", directory, strerror(errno));
    for (struct dirent *entry; ok && (entry = readdir(d));) {
        uint32_t crc;
        uint64_t size;
        if (entry->d_name[0] == '.') continue;
        char *path = path_join(directory, entry->d_name);
        ok = file_crc32(path, &crc, &size, error);
        free(path);
        if (!ok) break;
        fprintf(f, "%s    ", separator);
        json_write_string(f, entry->d_name);
        fprintf(f, ": {\"crc32\": %" PRIu32 ", \"size\": %" PRIu64 "}", crc, size);
        separator = ",\n";
    }
    if (d) closedir(d);
    return ok;
}

/* Its own last member is the CRC-32 of all the text before that number. */
bool state_write(const char *directory, const Snapshot *s, const RunState *run, const Options *options, char error[ERROR_SIZE]) {
    char *text = NULL;
    size_t length = 0;
    FILE *f = open_memstream(&text, &length);
    if (!f) die("out of memory");
    fprintf(f, "{\n  \"format\": \"%s\",\n", format_name);
    write_run(f, run, s->updates);
    fprintf(f, ",\n  \"matmul_algorithms\": ");
    json_write_string(f, s->algorithms);
    fprintf(f, ",\n  \"options\": {");
    write_options(f, options);
    fprintf(f, "\n  },\n  \"files\": {");
    bool ok = write_file_list(f, directory, error);
    fprintf(f, "\n  },\n%s", checksum_member);
    fflush(f);
    fprintf(f, "%" PRIu32 "\n}\n", crc32_update(0, text, length));
    fclose(f);
    ok = ok && file_write_text(directory, "state.json", text, length, error);
    free(text);
    return ok;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

static bool checksum_holds(const char *text) {
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, checksum_member)); at++) last = at;
    if (!last) return false;
    const char *number = last + sizeof checksum_member - 1;
    char *expected = xprintf("%" PRIu32 "\n}\n", crc32_update(0, text, (size_t)(number - text)));
    bool same = strcmp(number, expected) == 0;
    free(expected);
    return same;
}

/* The text must end with its own checksum, as state_write makes it. */
static Json *read_checked(const char *directory, char error[ERROR_SIZE]) {
    char *path = path_join(directory, "state.json"), cause[ERROR_SIZE];
    size_t length;
    char *text = file_read_text(path, 16 << 20, &length, error);
    Json *json = NULL;
    if (text && !checksum_holds(text)) {
        snprintf(error, ERROR_SIZE, "%.200s is damaged, or not that of a train_gpt checkpoint", path);
    } else if (text) {
        json = json_parse(text, length, cause, sizeof cause);
        if (!json) snprintf(error, ERROR_SIZE, "%.200s: %.300s", path, cause);
    }
    free(text);
    free(path);
    return json;
}

Json *state_read(const char *directory, char error[ERROR_SIZE]) {
    Json *json = read_checked(directory, error);
    if (!json) return NULL;
    const char *format = json_get_string(json, "format");
    const Json *files = json_get(json, "files"), *options = json_get(json, "options");
    if (format && strcmp(format, format_name) == 0 && files && files->type == JSON_OBJECT && options && options->type == JSON_OBJECT) return json;
    snprintf(error, ERROR_SIZE, "%.200s/state.json is not that of a train_gpt checkpoint", directory);
    json_free(json);
    return NULL;
}

static bool parse_ranks(const Json *json, const char *directory, int64_t *ranks, char error[ERROR_SIZE]) {
    *ranks = 1;
    if (!json_get(json, "ranks") || (json_get_integer(json, "ranks", ranks) && *ranks >= 1)) return true;
    return file_error(error, "%.200s/state.json has a 'ranks' that is not a whole number from 1 on", directory);
}

/* The outcomes of the steps up to g->newest, g->count of them, into their places. */
static bool parse_outcomes(const Json *list, const SpikeGuard *g, float *values) {
    if (!list || list->type != JSON_ARRAY || list->count != (size_t)g->count) return false;
    for (int64_t i = 0; i < g->count; i++) {
        const Json *value = &list->items[i];
        if (value->type != JSON_NUMBER || !isfinite((float)value->number)) return false;
        values[(g->newest - g->count + 1 + i) % SPIKE_WINDOW] = (float)value->number;
    }
    return true;
}

static bool parse_spikes(const Json *json, const char *directory, SpikeGuard *g, char error[ERROR_SIZE]) {
    const Json *spikes = json_get(json, "spikes"), *losses = json_get(spikes, "losses");
    memset(g, 0, sizeof *g);
    if (!spikes) return true;
    bool good = losses && losses->count <= SPIKE_WINDOW && json_get_integer(spikes, "newest", &g->newest) && g->newest >= (int64_t)losses->count - 1;
    g->count = good ? (int64_t)losses->count : 0;
    if (good && parse_outcomes(losses, g, g->losses) && parse_outcomes(json_get(spikes, "norms"), g, g->norms)) return true;
    return file_error(error, "%.200s/state.json has 'spikes' that are not a newest step with as many losses as norms, at most %d", directory,
                      SPIKE_WINDOW);
}

/* A checkpoint from before they were counted had rows of one length. */
static int64_t parse_tokens(const Json *json, int64_t samples) {
    int64_t tokens;
    const char *seq_len = json_get_string(json_get(json, "options"), "seq_len");
    if (json_get_integer(json, "tokens", &tokens) && tokens >= 0) return tokens;
    return seq_len ? samples * strtoll(seq_len, NULL, 10) : 0;
}

bool state_parse(const Json *json, const char *directory, RunState *run, int64_t *updates, char error[ERROR_SIZE]) {
    RunState read;
    bool good = json_get_integer(json, "step", &read.step) && json_get_integer(json, "samples", &read.samples)
             && json_get_integer(json, "updates", updates) && json_get_number(json, "elapsed_s", &read.elapsed_s)
             && read.step >= 0 && read.samples >= 0 && *updates >= 0 && *updates <= UINT32_MAX;
    if (!good) return file_error(error, "%.200s/state.json lacks step, samples, updates or elapsed_s", directory);
    if (!json_get_number(json, "best_val_loss", &read.best_val_loss)) read.best_val_loss = INFINITY;
    read.tokens = parse_tokens(json, read.samples);
    const char *data = json_get_string(json, "data");
    snprintf(read.data, sizeof read.data, "%s", data ? data : "");
    if (!parse_ranks(json, directory, &read.ranks, error) || !parse_spikes(json, directory, &read.spikes, error)) return false;
    *run = read;
    return true;
}

bool checkpoint_read_ranks(const char *directory, int64_t *ranks, int64_t *step, char error[ERROR_SIZE]) {
    Json *json = state_read(directory, error);
    bool good = json && parse_ranks(json, directory, ranks, error)
             && (json_get_integer(json, "step", step) || file_error(error, "%.200s/state.json lacks step", directory));
    json_free(json);
    return good;
}

bool checkpoint_read_options(const char *directory, Options *options, char error[ERROR_SIZE]) {
    Json *json = state_read(directory, error);
    if (!json) return false;
    const Json *saved = json_get(json, "options");
    bool good = true;
    for (size_t i = 0; i < saved->count && good; i++) {
        const Json *option = &saved->items[i];
        if (!belongs_to_run(option->key)) continue;
        if (option->type != JSON_STRING) good = file_error(error, "%.200s/state.json: option '%.60s' is not a text", directory, option->key);
        else good = options_set(&train_options, options, option->key, option->string, FROM_CHECKPOINT, error);
    }
    json_free(json);
    return good;
}
