/* dataset_writer.c: see dataset_writer.h. */
#define _GNU_SOURCE   /* open_memstream */
#include "dataset_writer.h"
#include "error.h"
#include "json.h"
#include "kernels/philox.h"
#include "shard_set.h"
#include "tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const split_names[SPLITS] = { "train", "val" };
static const char description_name[] = "dataset.json";

struct DatasetWriter {
    DatasetPlan plan;
    char *work;                 /* directory/new.tmp */
    int lock;                   /* the directory, locked, so that no other run writes there; -1 where it is not */
    bool made;                  /* the directory was not there before */
    DatasetSplit split;         /* of the document at hand */
    ShardSet sets[SPLITS];
    int64_t bytes[SPLITS], documents[SPLITS];
};

DatasetSplit dataset_split(uint64_t seed, int64_t document, double val_fraction) {
    enum { DOCUMENTS = 0x646F6373 };   /* so that nothing else draws the same numbers */
    return philox_at(seed, 0, DOCUMENTS, (uint64_t)document) < val_fraction * 4294967296.0 ? VAL : TRAIN;
}

/* ---- Writing ---- */

static bool holds_characters(const char *directory) {
    char *path = path_join(directory, "characters.json");
    bool there = path_exists(path);
    free(path);
    return there;
}

/* Where the file system has no locks it goes without. */
static bool lock_directory(DatasetWriter *writer, char error[ERROR_SIZE]) {
    const char *directory = writer->plan.directory;
    int lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0) return file_error(error, "cannot open the directory '%s': %s", directory, strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(lock);
        return file_error(error, "another run is writing a dataset into '%s'; wait for its end, or give another directory", directory);
    }
    writer->lock = lock;
    return true;
}

DatasetWriter *dataset_writer_open(const DatasetPlan *plan, char error[ERROR_SIZE]) {
    if (holds_characters(plan->directory)) {
        file_error(error, "'%s' holds a dataset of characters, whose files would be mixed with these; give another directory",
                   plan->directory);
        return NULL;
    }
    DatasetWriter *writer = xcalloc(1, sizeof *writer);
    *writer = (DatasetWriter){ .plan = *plan, .work = path_join(plan->directory, "new.tmp"), .lock = -1,
                               .made = !path_exists(plan->directory) };
    for (int split = 0; split < SPLITS; split++)
        writer->sets[split] = (ShardSet){
            .directory = writer->work, .name = split_names[split], .vocab_size = plan->vocab_size, .shard_tokens = plan->shard_tokens
        };
    if (directory_create(plan->directory, error) && lock_directory(writer, error) && directory_remove(writer->work, error) &&
        directory_create(writer->work, error))
        return writer;
    dataset_writer_close(writer);
    return NULL;
}

bool dataset_writer_begin(DatasetWriter *writer, DatasetSplit split, char error[ERROR_SIZE]) {
    writer->split = split;
    writer->documents[split]++;
    return shard_set_append(&writer->sets[split], &writer->plan.end_of_text, 1, error);
}

bool dataset_writer_append(DatasetWriter *writer, const int32_t *tokens, int64_t count, int64_t bytes, char error[ERROR_SIZE]) {
    writer->bytes[writer->split] += bytes;
    return shard_set_append(&writer->sets[writer->split], tokens, count, error);
}

DatasetCounts dataset_writer_counts(const DatasetWriter *writer, DatasetSplit split) {
    const ShardSet *set = &writer->sets[split];
    return (DatasetCounts){ set->tokens, writer->bytes[split], writer->documents[split], set->shards };
}

void dataset_writer_close(DatasetWriter *writer) {
    char ignored[ERROR_SIZE];
    if (!writer) return;
    for (int split = 0; split < SPLITS; split++) shard_set_discard(&writer->sets[split]);
    if (writer->lock >= 0) directory_remove(writer->work, ignored);
    if (writer->made) rmdir(writer->plan.directory);   /* fails, as it should, if there is anything in it */
    if (writer->lock >= 0) close(writer->lock);
    free(writer->work);
    free(writer);
}

/* ---- Finishing ---- */

static void describe_counts(FILE *file, const char *key, int64_t train, int64_t val) {
    fprintf(file, ", \"%s\": {\"train\": %" PRId64 ", \"val\": %" PRId64 "}", key, train, val);
}

static char *describe(const DatasetWriter *writer, size_t *length) {
    char *text = NULL;
    FILE *memory = open_memstream(&text, length);
    CHECK(memory);
    fprintf(memory, "{\"vocab_size\": %" PRId64 ", \"tokenizer\": \"bpe\", \"source\": ", writer->plan.vocab_size);
    json_write_string(memory, writer->plan.source);
    fprintf(memory, ", \"end_of_text\": %" PRId32, writer->plan.end_of_text);
    describe_counts(memory, "tokens", writer->sets[TRAIN].tokens, writer->sets[VAL].tokens);
    describe_counts(memory, "bytes", writer->bytes[TRAIN], writer->bytes[VAL]);
    describe_counts(memory, "documents", writer->documents[TRAIN], writer->documents[VAL]);
    fprintf(memory, ", \"shard_tokens\": %" PRId64 "}\n", writer->plan.shard_tokens);
    CHECK(fclose(memory) == 0);
    return text;
}

static bool write_description(const DatasetWriter *writer, char error[ERROR_SIZE]) {
    size_t length = 0;
    char *text = describe(writer, &length), *path = path_join(writer->work, description_name);
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    free(path);
    free(text);
    return file_close(file, NULL, error);
}

/* train_ or val_, digits, .bin. */
static bool is_shard(const char *name) {
    for (int split = 0; split < SPLITS; split++) {
        size_t n = strlen(split_names[split]);
        if (strncmp(name, split_names[split], n) != 0 || name[n] != '_') continue;
        size_t digits = strspn(name + n + 1, "0123456789");
        return digits >= 6 && strcmp(name + n + 1 + digits, ".bin") == 0;
    }
    return false;
}

/* What an earlier dataset left and this one would be read together with. */
static bool is_ours(const char *name) {
    return is_shard(name) || strcmp(name, "tokenizer.json") == 0 || strcmp(name, "vocab.json") == 0 || strcmp(name, "merges.txt") == 0;
}

static bool remove_file(const char *directory, const char *name, char error[ERROR_SIZE]) {
    char *path = path_join(directory, name);
    bool good = unlink(path) == 0 || errno == ENOENT || file_error(error, "cannot replace '%s': %s", path, strerror(errno));
    free(path);
    return good;
}

static bool move_file(const char *from_directory, const char *to_directory, const char *name, char error[ERROR_SIZE]) {
    char *from = path_join(from_directory, name), *to = path_join(to_directory, name);
    bool good = rename(from, to) == 0 || file_error(error, "cannot make '%s': %s", to, strerror(errno));
    free(from);
    free(to);
    return good;
}

typedef struct {
    char **names;
    int64_t count;
} Names;

static bool names_in(const char *directory, Names *names, char error[ERROR_SIZE]) {
    struct dirent *entry;
    DIR *stream = opendir(directory);
    if (!stream) return file_error(error, "cannot list the directory '%s': %s", directory, strerror(errno));
    while (errno = 0, (entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        names->names = xrealloc(names->names, (size_t)(names->count + 1) * sizeof *names->names);
        names->names[names->count++] = xstrdup(entry->d_name);
    }
    bool good = errno == 0 || file_error(error, "cannot list the directory '%s': %s", directory, strerror(errno));
    closedir(stream);
    return good;
}

static void names_free(Names *names) {
    for (int64_t i = 0; i < names->count; i++) free(names->names[i]);
    free(names->names);
}

/* Everything is in new.tmp/ now. */
static bool replace(const DatasetWriter *writer, char error[ERROR_SIZE]) {
    const char *directory = writer->plan.directory;
    Names old = { 0 }, new = { 0 };
    bool good = names_in(directory, &old, error) && names_in(writer->work, &new, error) && remove_file(directory, description_name, error);
    for (int64_t i = 0; good && i < old.count; i++)
        if (is_ours(old.names[i])) good = remove_file(directory, old.names[i], error);
    for (int64_t i = 0; good && i < new.count; i++)
        if (strcmp(new.names[i], description_name) != 0) good = move_file(writer->work, directory, new.names[i], error);
    names_free(&old);
    names_free(&new);
    return good && directory_sync(directory, error) && move_file(writer->work, directory, description_name, error) &&
           directory_sync(directory, error);
}

bool dataset_writer_finish(DatasetWriter *writer, char error[ERROR_SIZE]) {
    bool good = true;
    for (int split = 0; split < SPLITS; split++) good = good && shard_set_close(&writer->sets[split], error);
    return good && tokenizer_copy(writer->plan.vocab_directory, writer->work, error) && write_description(writer, error) &&
           replace(writer, error);
}
