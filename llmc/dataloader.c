/* dataloader.c: see dataloader.h. */
#include "dataloader.h"
#include "error.h"
#include "json.h"
#include "kernels/philox.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Shards ---- */

enum { HEADER_BYTES = 256 * 4, WRITE_BLOCK = 4096 };

static const struct { uint32_t magic, version; int width; } formats[] = {{20240520, 1, 2}, {20240801, 7, 4}};

/* Files are little-endian whatever the machine is; compilers turn these into single instructions. */
static uint32_t read_u32(const unsigned char *at) { return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24; }

static void store(unsigned char *at, uint32_t value, int width) {
    for (int i = 0; i < width; i++) at[i] = (unsigned char)(value >> 8 * i);
}

int32_t shard_token(const Shard *shard, int64_t index) {
    const unsigned char *at = shard->tokens + index * shard->width;
    return shard->width == 2 ? at[0] | at[1] << 8 : (int32_t)read_u32(at);
}

static bool parse_header(Shard *shard, const unsigned char *data, size_t size, const char *path, int format, char error[ERROR_SIZE]) {
    if (size < HEADER_BYTES)
        return file_error(error, "'%s' is cut off: it has %zu bytes, fewer than the %d of a shard's header", path, size, HEADER_BYTES);
    uint32_t version = read_u32(data + 4), known = formats[format].version;
    if (version != known)
        return file_error(error, "'%s' is a token shard of version %" PRIu32 ", where only %" PRIu32 " is known", path, version, known);
    int64_t count = (int32_t)read_u32(data + 8);
    size_t bytes = size - HEADER_BYTES;
    int width = formats[format].width;
    if (count <= 0) return file_error(error, "'%s' holds no tokens: its header counts %" PRId64, path, count);
    if (bytes != (uint64_t)count * width)
        return file_error(error, "'%s' is damaged: its header counts %" PRId64 " tokens (%" PRIu64 " bytes), but %zu bytes follow it; "
                          "copy or prepare it again", path, count, (uint64_t)count * width, bytes);
    *shard = (Shard){ .tokens = data + HEADER_BYTES, .width = width, .count = count };
    return true;
}

bool shard_parse(Shard *shard, const void *data, size_t size, const char *path, bool headerless, char error[ERROR_SIZE]) {
    *shard = (Shard){ 0 };
    if (size == 0) return file_error(error, "'%s' is empty, where a token shard is needed", path);
    uint32_t magic = size >= 4 ? read_u32(data) : 0;
    for (int format = 0; format < 2; format++)
        if (magic == formats[format].magic) return parse_header(shard, data, size, path, format, error);
    if (!headerless)
        return file_error(error, "'%s' is no token shard (it begins with %" PRIu32 ", not with 20240520 or 20240801); if it is a "
                          "headerless file of nanoGPT, give --vocab-size or run data/nanogpt_meta.py on its directory; text is prepared by "
                          "data/prepare.sh", path, magic);
    if (size % 2) return file_error(error, "'%s' is no file of uint16 tokens: it has an odd number of bytes, %zu", path, size);
    *shard = (Shard){ .tokens = data, .width = 2, .count = size / 2 };
    return true;
}

bool shard_open(Shard *shard, const char *path, bool headerless, char error[ERROR_SIZE]) {
    *shard = (Shard){ 0 };
    FileMap map;
    if (!file_map(&map, path, error)) return false;
    if (!shard_parse(shard, map.data, map.size, path, headerless, error)) {
        file_unmap(&map);
        return false;
    }
    shard->map = map;
    shard->path = xstrdup(path);
    return true;
}

void shard_close(Shard *shard) {
    file_unmap(&shard->map);
    free(shard->path);
    *shard = (Shard){ 0 };
}

bool shard_write(const char *path, const int32_t *tokens, int64_t count, int64_t vocab_size, char error[ERROR_SIZE]) {
    if (count < 1 || count > INT32_MAX)
        return file_error(error, "cannot write %" PRId64 " tokens to '%s': a shard holds 1 to %d", count, path, INT32_MAX);
    int format = vocab_size > 65536, width = formats[format].width;
    unsigned char block[WRITE_BLOCK] = { 0 };
    store(block, formats[format].magic, 4);
    store(block + 4, formats[format].version, 4);
    store(block + 8, (uint32_t)count, 4);
    FileWriter *file = file_create(path);
    file_write(file, block, HEADER_BYTES);
    size_t used = 0;
    for (int64_t i = 0; i < count; i++) {
        CHECK(tokens[i] < vocab_size && tokens[i] >= (width == 4 ? -1 : 0));
        store(block + used, (uint32_t)tokens[i], width);
        used += width;
        if (used == sizeof block || i == count - 1) {
            file_write(file, block, used);
            used = 0;
        }
    }
    return file_close(file, NULL, error);
}

/* ---- dataset.json ---- */

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

static bool read_fields(DatasetInfo *info, const Json *json, const char *path, char error[ERROR_SIZE]) {
    if (json->type != JSON_OBJECT) return file_error(error, "'%s' is no dataset description: it is JSON, but no object", path);
    bool whole = json_get_integer(json, "vocab_size", &info->vocab_size);
    if (json_get(json, "vocab_size") && !(whole && info->vocab_size >= 1 && info->vocab_size <= INT32_MAX))
        return file_error(error, "'%s': vocab_size must be a whole number from 1 to %d", path, INT32_MAX);
    if (!take_text(json, "tokenizer", &info->tokenizer) || !take_text(json, "source", &info->source) ||
        !take_text(json, "sha256", &info->sha256))
        return file_error(error, "'%s': tokenizer, source and sha256 must be texts", path);
    return true;
}

bool dataset_info_read(DatasetInfo *info, const char *shard_path, char error[ERROR_SIZE]) {
    *info = (DatasetInfo){ 0 };
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
    *info = (DatasetInfo){ 0 };
}

/* ---- Finding the files ---- */

typedef struct {
    char **names;
    size_t count;
} Names;

static void names_add(Names *names, char *name) {
    names->names = xrealloc(names->names, (names->count + 1) * sizeof *names->names);
    names->names[names->count++] = name;
}

static void names_free(Names *names) {
    for (size_t i = 0; i < names->count; i++) free(names->names[i]);
    free(names->names);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names_of_directory(Names *names, const char *path) {
    DIR *directory = opendir(path);
    if (!directory) die("cannot read the directory '%s': %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(directory));) {
        size_t length = strlen(entry->d_name);
        if (length > 4 && strcmp(entry->d_name + length - 4, ".bin") == 0) names_add(names, path_join(path, entry->d_name));
    }
    closedir(directory);
    if (names->count == 0) die("the directory '%s' holds no token shards (*.bin); prepare data with data/prepare.sh", path);
}

static void names_of_glob(Names *names, const char *pattern) {
    glob_t found;
    int status = glob(pattern, GLOB_ERR, NULL, &found);
    for (size_t i = 0; status == 0 && i < found.gl_pathc; i++) names_add(names, xstrdup(found.gl_pathv[i]));
    if (status == 0) globfree(&found);
    if (names->count == 0) die("there is no token file '%s'; prepare data with data/prepare.sh, or name another file", pattern);
}

static Names names_of(const char *pattern) {
    Names names = { 0 };
    if (path_is_directory(pattern)) names_of_directory(&names, pattern);
    else if (path_exists(pattern)) names_add(&names, xstrdup(pattern));
    else names_of_glob(&names, pattern);
    qsort(names.names, names.count, sizeof *names.names, compare_names);
    return names;
}

void dataloader_require_files(const char *pattern) {
    Names names = names_of(pattern);
    names_free(&names);
}

/* ---- Opening ---- */

struct DataLoader {
    Shard *shards;
    int64_t count;                 /* shards */
    SampleOrder order;
    int64_t T, vocab_size;
    uint64_t seed;
    int64_t tokens;
    int64_t *crops_before;         /* (count+1) places where a crop may begin, in the shards before each one */
    int64_t *rows_before;          /* (count+1) whole rows likewise */
};

static void check_lengths(const DataLoader *loader, const char *pattern) {
    int64_t longest = 0;
    for (int64_t s = 0; s < loader->count; s++) {
        if (loader->shards[s].count > loader->shards[longest].count) longest = s;
        if (loader->shards[s].count <= loader->T && loader->rows_before[loader->count] > 0)
            warn("'%s' is left out: its %" PRId64 " tokens are too few for a row of %" PRId64, loader->shards[s].path,
                 loader->shards[s].count, loader->T);
    }
    if (loader->rows_before[loader->count] == 0)
        die("'%s'%s%s%s holds %" PRId64 " tokens, fewer than the %" PRId64 " that a row needs (--seq-len %" PRId64
            " and one more); give a smaller --seq-len or more text",
            loader->shards[longest].path, loader->count > 1 ? ", the longest file of '" : "", loader->count > 1 ? pattern : "",
            loader->count > 1 ? "'," : "", loader->shards[longest].count, loader->T + 1, loader->T);
}

__attribute__((noreturn))
static void refuse_token(const DataLoader *loader, const Shard *shard, int64_t index) {
    int32_t token = shard_token(shard, index);
    if (token == -1)
        die("'%s': the token at offset %" PRId64 " is 4294967295, \"no target\", and cannot be an input of the model", shard->path, index);
    die("'%s': the token at offset %" PRId64 " is %" PRIu32 ", but the vocabulary has %" PRId64 " tokens; the file belongs to another "
        "tokenizer, or --vocab-size is wrong", shard->path, index, (uint32_t)token, loader->vocab_size);
}

/* A file of another tokenizer is refused before a run begins, and without reading all of a huge one. */
static void check_first_tokens(const DataLoader *loader, const Shard *shard) {
    enum { FIRST = 1 << 20 };
    int64_t n = shard->count < FIRST ? shard->count : FIRST;
    for (int64_t i = 0; i < n; i++) {
        int32_t token = shard_token(shard, i);
        if (token < -1 || token >= loader->vocab_size) refuse_token(loader, shard, i);
    }
}

DataLoader *dataloader_open(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed, bool headerless) {
    CHECK(T >= 1 && vocab_size >= 1);
    Names names = names_of(pattern);
    DataLoader *loader = xcalloc(1, sizeof *loader);
    *loader = (DataLoader){ .count = names.count, .order = order, .T = T, .vocab_size = vocab_size, .seed = seed };
    loader->shards = xcalloc(loader->count, sizeof *loader->shards);
    loader->crops_before = xcalloc(loader->count + 1, sizeof *loader->crops_before);
    loader->rows_before = xcalloc(loader->count + 1, sizeof *loader->rows_before);
    for (int64_t s = 0; s < loader->count; s++) {
        char error[ERROR_SIZE];
        if (!shard_open(&loader->shards[s], names.names[s], headerless, error)) die("%s", error);
        int64_t count = loader->shards[s].count;
        loader->tokens += count;
        loader->crops_before[s + 1] = loader->crops_before[s] + (count > T ? count - T : 0);
        loader->rows_before[s + 1] = loader->rows_before[s] + (count - 1) / T;
    }
    check_lengths(loader, pattern);
    for (int64_t s = 0; s < loader->count; s++) check_first_tokens(loader, &loader->shards[s]);
    names_free(&names);
    return loader;
}

void dataloader_close(DataLoader *loader) {
    if (!loader) return;
    for (int64_t s = 0; s < loader->count; s++) shard_close(&loader->shards[s]);
    free(loader->shards);
    free(loader->crops_before);
    free(loader->rows_before);
    free(loader);
}

int64_t dataloader_tokens(const DataLoader *loader) { return loader->tokens; }
int64_t dataloader_rows(const DataLoader *loader) { return loader->rows_before[loader->count]; }

/* ---- Order ---- */

/* What a random number is for. It goes where dropout's Philox counter has the tensor's number, far above any of those. */
enum { RANDOM_CROP = 0x44415441, RANDOM_SHARD_ORDER, RANDOM_ROW_ORDER, RANDOM_ROUND };

static uint64_t random_bits(uint64_t key, uint32_t purpose, uint64_t index, uint32_t part) {
    uint32_t counter[4] = { (uint32_t)index, (uint32_t)(index >> 32), part, purpose };
    philox(counter, key);
    return (uint64_t)counter[1] << 32 | counter[0];
}

/* Number `index` of a shuffled 0 ... n-1, without storing the permutation. The index is written as two digits of bases a and b with
   n <= a*b < n + a, and each digit in turn is shifted by a random function of the other: a Feistel network. Where that leaves
   0 ... n-1 it is applied again (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). */
static int64_t shuffled(int64_t index, int64_t n, uint64_t key) {
    uint64_t a = (uint64_t)ceil(sqrt((double)n)), b = (n + a - 1) / a, x = index;
    do {
        uint64_t low = x % a, high = x / a;
        for (uint32_t round = 0; round < 8; round += 2) {
            low = (low + random_bits(key, RANDOM_ROUND, high, round) % a) % a;
            high = (high + random_bits(key, RANDOM_ROUND, low, round + 1) % b) % b;
        }
        x = high * a + low;
    } while (x >= (uint64_t)n);
    return x;
}

typedef struct {
    int64_t shard, start;   /* the row is the tokens start ... start+T of that shard */
} Place;

/* The shard s with before[s] <= index < before[s + 1]. */
static int64_t find_shard(const DataLoader *loader, const int64_t *before, int64_t index) {
    int64_t low = 0, high = loader->count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (before[middle] <= index) low = middle;
        else high = middle;
    }
    return low;
}

static Place place_of_crop(const DataLoader *loader, int64_t row) {
    uint64_t bits = random_bits(loader->seed, RANDOM_CROP, row, 0);
    int64_t crop = (int64_t)((unsigned __int128)bits * loader->crops_before[loader->count] >> 64);
    int64_t shard = find_shard(loader, loader->crops_before, crop);
    return (Place){ shard, crop - loader->crops_before[shard] };
}

/* A walk over the shards of an epoch; `before` rows lie in the shards visited before this one. */
typedef struct {
    int64_t epoch, visit, before;
} Walk;

/* The walk only goes forward, so that a batch passes the shards once and not once for each row. */
static Place place_in_shuffled_shards(const DataLoader *loader, Walk *walk, int64_t row) {
    int64_t epoch = row / dataloader_rows(loader), shard, rows;
    row %= dataloader_rows(loader);
    if (walk->epoch != epoch) *walk = (Walk){ .epoch = epoch };
    uint64_t order_key = random_bits(loader->seed, RANDOM_SHARD_ORDER, epoch, 0);
    for (;; walk->visit++, walk->before += rows) {
        shard = shuffled(walk->visit, loader->count, order_key);
        rows = loader->rows_before[shard + 1] - loader->rows_before[shard];
        if (row < walk->before + rows) break;
    }
    uint64_t row_key = random_bits(loader->seed, RANDOM_ROW_ORDER, epoch, (uint32_t)shard);
    return (Place){ shard, shuffled(row - walk->before, rows, row_key) * loader->T };
}

static Place place_in_order(const DataLoader *loader, int64_t row) {
    row %= dataloader_rows(loader);
    int64_t shard = find_shard(loader, loader->rows_before, row);
    return (Place){ shard, (row - loader->rows_before[shard]) * loader->T };
}

/* ---- Batches ---- */

/* tokens(T) and targets(T) of one row; returns the number of targets >= 0. */
static int64_t copy_row(const DataLoader *loader, Place place, int32_t *tokens, int32_t *targets) {
    const Shard *shard = &loader->shards[place.shard];
    int64_t T = loader->T;
    for (int64_t t = 0; t <= T; t++) {
        int32_t token = shard_token(shard, place.start + t);
        bool valid = token >= 0 && token < loader->vocab_size;
        if (!valid && !(token == -1 && t == T)) refuse_token(loader, shard, place.start + t);
        if (t < T) tokens[t] = token;
        if (t > 0) targets[t - 1] = token;
    }
    return targets[T - 1] >= 0 ? T : T - 1;
}

int64_t dataloader_batch(const DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets) {
    CHECK(first_row >= 0);
    Walk walk = { .epoch = -1 };
    int64_t valid = 0, T = loader->T;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = first_row + i;
        Place place = loader->order == SAMPLE_CROPS ? place_of_crop(loader, row) : place_in_shuffled_shards(loader, &walk, row);
        valid += copy_row(loader, place, tokens + i * T, targets + i * T);
    }
    return valid;
}

int64_t dataloader_batch_in_order(const DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets) {
    CHECK(first_row >= 0);
    int64_t valid = 0, T = loader->T;
    for (int64_t i = 0; i < rows; i++) valid += copy_row(loader, place_in_order(loader, first_row + i), tokens + i * T, targets + i * T);
    return valid;
}
