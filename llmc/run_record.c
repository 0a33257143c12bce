/* run_record.c: see run_record.h. Everything up to the peak and the end is one text, made at the start. */
#include "run_record.h"

#include "error.h"
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FORMAT = 1, MOST_BYTES = 64 << 20 };

struct RunRecord {
    char *run;
    char *text;        /* up to "peak_flops": */
    size_t length;
    const char *peak_from;
};

/* "" in a tree without git; absent from programs that are not the trainer (Makefile). */
extern const char build_commit[] __attribute__((weak));

/* ---- pieces of JSON ------------------------------------------------------------------------------------------------------------ */

static void name(FILE *f, const char *key) { fprintf(f, "\"%s\": ", key); }

static void text_or_null(FILE *f, const char *text) {
    if (text) json_write_string(f, text);
    else fputs("null", f);
}

static void write_commit(FILE *f) {
    name(f, "commit");
    text_or_null(f, build_commit && *build_commit ? build_commit : NULL);
}

static void write_compiler(FILE *f) {
    name(f, "compiler");
#ifdef __clang__
    fprintf(f, "\"clang %d.%d.%d\"", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
    fprintf(f, "\"gcc %d.%d.%d\"", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

static void write_time(FILE *f) {
    char text[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    name(f, "time");
    json_write_string(f, text);
}

/* A member of a file that was read. */
static void write_value(FILE *f, const Json *json) {
    static const char *const words[] = {[JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true"};
    bool object = json->type == JSON_OBJECT;
    if (json->type == JSON_NUMBER) json_write_number(f, json->number);
    else if (json->type == JSON_STRING) json_write_string(f, json->string);
    else if (json->type < JSON_NUMBER) fputs(words[json->type], f);
    else {
        fputc(object ? '{' : '[', f);
        for (size_t i = 0; i < json->count; i++) {
            if (i) fputs(", ", f);
            if (object) json_write_string(f, json->items[i].key);
            if (object) fputs(": ", f);
            write_value(f, &json->items[i]);
        }
        fputc(object ? '}' : ']', f);
    }
}

/* ---- its members --------------------------------------------------------------------------------------------------------------- */

/* Without the underscore that keeps a name apart from a word of C++: export_. */
static void write_option_name(FILE *f, const char *field) {
    size_t n = strlen(field);
    fprintf(f, "\"%.*s\": ", (int)(n && field[n - 1] == '_' ? n - 1 : n), field);
}

/* Those of the model as it has them, where an option may be 0 for "as follows from the others"; but the rows' length is the run's own. */
static void write_options(FILE *f, const Options *given, const Config *config) {
    const char *separator = "";
    Options settled;
    options_defaults(&settled);
    config_to_options(config, &settled);
    fputs("  \"options\": {", f);
    for (int i = 0; i < train_options.count; i++) {
        const OptionRow *row = &train_options.rows[i];
        if (row->kind == OPTION_SECTION) continue;
        bool of_model = *(const OptionSource *)((const char *)&settled + row->source) == FROM_MODEL && strcmp(row->name, "seq_len") != 0;
        char *text = options_format(row, of_model ? &settled : given);
        fputs(separator, f);
        write_option_name(f, row->name);
        if (row->kind == OPTION_FLAG) fputs(strcmp(text, "0") ? "true" : "false", f);
        else if (row->kind == OPTION_CHOICE || row->kind == OPTION_TEXT) json_write_string(f, text);
        else fputs(text, f);   /* a finite number, as C and JSON both have it */
        free(text);
        separator = ", ";
    }
    options_release(&train_options, &settled);
    fputs("},\n", f);
}

static void write_data(FILE *f, const char *split, const RecordedData *data) {
    fprintf(f, "\"%s\": {\"path\": ", split);
    json_write_string(f, data->path);
    fprintf(f, ", \"files\": %" PRId64 ", \"tokens\": %" PRId64 ", \"crc32\": \"%08" PRIx32 "\"}, ", data->files, data->tokens, data->crc32);
}

static void write_facts(FILE *f, const RunFacts *facts) {
    fprintf(f, "{\n  \"format\": %d,\n  \"program\": \"train_gpt\",\n  ", FORMAT);
    write_commit(f);
    fputs(",\n  ", f);
    write_compiler(f);
    fputs(",\n", f);
    write_options(f, facts->options, facts->config);
    fputs("  \"model\": {\"description\": ", f);
    json_write_string(f, facts->description);
    fprintf(f, ", \"parameters\": %" PRId64 ", \"flops_per_token\": ", facts->parameters);
    json_write_number(f, facts->flops_per_token);
    fputs("},\n  \"data\": {", f);
    write_data(f, "train", &facts->train);
    write_data(f, "val", &facts->val);
    fprintf(f, "\"vocab_size\": %" PRId64 ", \"source\": ", facts->vocab_size);
    text_or_null(f, facts->source);
    fputs("},\n", f);
}

static void write_peak(FILE *f, double flops, const char *from) {
    if (!(flops > 0)) return;
    fputs("  \"peak_flops\": ", f);
    json_write_number(f, flops);
    fprintf(f, ", \"peak_from\": \"%s\",\n", from);
}

static void write_start(FILE *f, const RunFacts *facts) {
    fputs("    {", f);
    write_time(f);
    fputs(", \"host\": ", f);
    json_write_string(f, facts->host);
    fputs(", \"command\": [", f);
    for (int i = 0; i < facts->argc; i++) {
        if (i) fputs(", ", f);
        json_write_string(f, facts->argv[i]);
    }
    fprintf(f, "], \"step\": %" PRId64 ", \"device\": ", facts->step);
    json_write_string(f, facts->device);
    fprintf(f, ", \"dtype\": \"%s\", \"ranks\": %" PRId64 ", ", facts->dtype, facts->ranks);
    write_commit(f);
    fputs("}\n", f);
}

static void write_end(FILE *f, const RunEnd *end) {
    fprintf(f, "{\"status\": \"%s\", ", end->status);
    write_time(f);
    fprintf(f, ", \"step\": %" PRId64 ", \"tokens\": %" PRId64 ", \"elapsed_s\": ", end->step, end->tokens);
    json_write_number(f, end->elapsed_s);
    fputs(", \"best_val_loss\": ", f);
    json_write_number(f, end->best_val_loss);
    fputs(", \"peak_memory\": ", f);
    json_write_number(f, end->peak_memory);
    fputc('}', f);
}

/* ---- reading, writing ---------------------------------------------------------------------------------------------------------- */

/* The record of a run that goes on; *json is NULL where there is none, as of a run from before there were any. */
static bool read_earlier(const char *run, Json **json, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE], *path = path_join(run, "run.json");
    size_t length;
    int64_t format = 0;
    *json = NULL;
    bool good = true;
    if (path_exists(path)) {
        char *text = file_read_text(path, MOST_BYTES, &length, error);
        *json = text ? json_parse(text, length, cause, sizeof cause) : NULL;
        const Json *starts = json_get(*json, "starts");
        if (!text) good = false;
        else if (!*json) good = file_error(error, "%.200s is damaged: %.200s; move it away to go on without it", path, cause);
        else if (!json_get_integer(*json, "format", &format) || format != FORMAT || !starts || starts->type != JSON_ARRAY)
            good = file_error(error, "%.200s is not a record of format %d, which is all that this program knows; move it away to go on without it",
                              path, FORMAT);
        free(text);
    }
    free(path);
    if (!good) json_free(*json);
    return good;
}

/* end: NULL while it runs. */
static bool write_record(const RunRecord *record, double peak_flops, const RunEnd *end, char error[ERROR_SIZE]) {
    char *text = NULL;
    size_t length = 0;
    FILE *f = open_memstream(&text, &length);
    if (!f) die("out of memory");
    fwrite(record->text, 1, record->length, f);
    write_peak(f, peak_flops, record->peak_from);
    fputs("  \"end\": ", f);
    if (end) write_end(f, end);
    else fputs("null", f);
    fputs("\n}\n", f);
    fclose(f);
    bool good = file_write_text(record->run, "run.json", text, length, error);
    free(text);
    return good;
}

RunRecord *run_record_open(const char *run, const RunFacts *facts, char error[ERROR_SIZE]) {
    Json *earlier = NULL;
    if (facts->resumed && !read_earlier(run, &earlier, error)) return NULL;
    RunRecord *record = (RunRecord *)xcalloc(1, sizeof *record);
    record->run = xstrdup(run);
    record->peak_from = facts->peak_from;
    FILE *f = open_memstream(&record->text, &record->length);
    if (!f) die("out of memory");
    write_facts(f, facts);
    fputs("  \"starts\": [\n", f);
    const Json *starts = json_get(earlier, "starts");
    for (size_t i = 0; starts && i < starts->count; i++) {
        fputs("    ", f);
        write_value(f, &starts->items[i]);
        fputs(",\n", f);
    }
    write_start(f, facts);
    fputs("  ],\n", f);
    fclose(f);
    json_free(earlier);
    if (write_record(record, facts->peak_flops, NULL, error)) return record;
    run_record_close(record);
    return NULL;
}

bool run_record_end(RunRecord *record, const RunEnd *end, char error[ERROR_SIZE]) {
    return !record || write_record(record, end->peak_flops, end, error);
}

void run_record_close(RunRecord *record) {
    if (!record) return;
    free(record->run);
    free(record->text);
    free(record);
}
