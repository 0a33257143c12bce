/* weights.c: see weights.h. */
#include "weights.h"

#include "error.h"
#include "huggingface.h"
#include "kernels/cpu.h"
#include "weight_files.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- layouts ---------------------------------------------------------------------------------------------------------------- */

static FileTensor *append(WeightLayout *layout, const ParameterInfo *p, char *name, int64_t rows, bool transposed) {
    layout->tensors = (FileTensor *)xrealloc(layout->tensors, (size_t)(layout->count + 1) * sizeof *layout->tensors);
    FileTensor *t = &layout->tensors[layout->count++];
    bool vector = p->rows == 0;
    *t = (FileTensor){.name = name, .parameter = p, .rank = vector ? 1 : 2, .rows = rows, .columns = vector ? 1 : p->columns,
                      .transposed = vector || transposed};
    t->shape[0] = vector || !transposed ? rows : p->columns;
    t->shape[1] = transposed ? rows : p->columns;
    return t;
}

/* A vector's elements are rows of one column. */
static int64_t rows_in_files(const ParameterInfo *p) { return p->rows ? p->file_rows : p->columns; }

void weights_native(WeightLayout *layout, const ParameterTable *table, const char *prefix) {
    *layout = (WeightLayout){0};
    for (int i = 0; i < table->count; i++) {
        const ParameterInfo *p = &table->info[i];
        append(layout, p, xprintf("%s%s", prefix, p->name), rows_in_files(p), p->transposed);
    }
}

static int64_t first_row(const Config *c, RowRange range) {
    switch (range) {
    case KEYS: return c->NH * c->HS;
    case VALUES: return (c->NH + c->NKV) * c->HS;
    case UP: return c->F;
    default: return 0;
    }
}

static int64_t row_count(const Config *c, RowRange range, const ParameterInfo *p) {
    switch (range) {
    case QUERIES: return c->NH * c->HS;
    case KEYS: case VALUES: return c->NKV * c->HS;
    case GATE: case UP: return c->F;
    default: return rows_in_files(p);
    }
}

/* The row of the parameter that comes r-th where each head has its query, key and value rows together. */
static int64_t unpacked(const Config *c, int64_t r) {
    int64_t head = r / (3 * c->HS), part = r / c->HS % 3, i = r % c->HS;
    return (part * c->NH + head) * c->HS + i;
}

/* True if RoPE acts on that row of the parameter: on each of a query's or key's, or on the weights of their norms. */
static bool is_rotated(const Config *c, ParameterKind kind, int64_t row) {
    if (kind == PARAMETER_qkvw || kind == PARAMETER_qkvb) return row < (c->NH + c->NKV) * c->HS;
    return kind == PARAMETER_qnormw || kind == PARAMETER_knormw;
}

/* Where the channel that the file has i-th of HS lies in memory: of pair p, halves have the members at p and p + HS/2, interleaved pairs at
   2p and 2p + 1. */
static int64_t other_layout(int64_t HS, int64_t i, RopeLayout file) {
    return file == ROPE_HALF ? 2 * (i % (HS / 2)) + i / (HS / 2) : i / 2 + i % 2 * (HS / 2);
}

static void place_rows(FileTensor *t, const Config *c, RowRange range, RopeLayout file) {
    const ParameterInfo *p = t->parameter;
    ParameterKind kind = p->kind;
    int64_t rows = p->rows ? p->rows : p->columns;
    bool permuted = c->pos == POS_ROPE && c->rope_layout != file && is_rotated(c, kind, 0);
    if (range == WHOLE && !permuted) return;
    t->row = (int64_t *)xmalloc((size_t)t->rows * sizeof *t->row);
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t row = range == PACKED ? unpacked(c, r) : first_row(c, range) + r, i = row % c->HS;
        t->row[r] = permuted && is_rotated(c, kind, row) ? row - i + other_layout(c->HS, i, file) : row;
        CHECK(t->row[r] >= 0 && t->row[r] < rows);
    }
}

static char *name_in_family(const Family *family, const ParameterInfo *p, const char *name) {
    if (p->kind == PARAMETER_head) return xstrdup(name);
    if (p->layer < 0) return xprintf("%s%s", family->base, name);
    return xprintf("%s%s%lld.%s", family->base, family->layers, (long long)p->layer, name);
}

void weights_of_family(WeightLayout *layout, const ParameterTable *table, const Config *c, const Family *family, RopeLayout rope) {
    *layout = (WeightLayout){0};
    if (!family->tensors) {
        weights_native(layout, table, "");
        for (int i = 0; i < layout->count; i++) place_rows(&layout->tensors[i], c, WHOLE, rope);
        return;
    }
    for (int i = 0; i < table->count; i++) {
        const ParameterInfo *p = &table->info[i];
        const TensorName *name;
        CHECK(family_tensor(family, p->kind, 0));
        for (int n = 0; (name = family_tensor(family, p->kind, n)); n++) {
            FileTensor *t = append(layout, p, name_in_family(family, p, name->name), row_count(c, name->rows, p), false);
            place_rows(t, c, name->rows, rope);
        }
    }
}

void weights_release(WeightLayout *layout) {
    for (int i = 0; i < layout->count; i++) {
        free(layout->tensors[i].name);
        free(layout->tensors[i].row);
    }
    free(layout->tensors);
    *layout = (WeightLayout){0};
}

/* ---- lines ------------------------------------------------------------------------------------------------------------------ */

/* A file's tensor is lines of `length` elements. So many go at once that a column of memory, where lines are columns, is read by whole
   pieces of cache. */
enum { LINES = 16 };
static int64_t line_count(const FileTensor *t) { return t->transposed ? t->columns : t->rows; }
static int64_t lines_from(const FileTensor *t, int64_t first) { return line_count(t) - first < LINES ? line_count(t) - first : LINES; }
static int64_t line_length(const FileTensor *t) { return t->transposed ? t->rows : t->columns; }
static int64_t row_of(const FileTensor *t, int64_t r) { return t->row ? t->row[r] : r; }

/* Lines first ... first+n-1: to memory, or from it. */
static void scatter(const FileTensor *t, int64_t first, int64_t n, const float *lines, float *memory) {
    int64_t length = line_length(t), columns = t->columns;
    if (!t->transposed)
        for (int64_t i = 0; i < n; i++) memcpy(memory + row_of(t, first + i) * columns, lines + i * length, (size_t)length * sizeof *lines);
    else
        for (int64_t r = 0; r < length; r++)
            for (int64_t i = 0; i < n; i++) memory[row_of(t, r) * columns + first + i] = lines[i * length + r];
}

static void gather(const FileTensor *t, int64_t first, int64_t n, const float *memory, float *lines) {
    int64_t length = line_length(t), columns = t->columns;
    if (!t->transposed)
        for (int64_t i = 0; i < n; i++) memcpy(lines + i * length, memory + row_of(t, first + i) * columns, (size_t)length * sizeof *lines);
    else
        for (int64_t r = 0; r < length; r++)
            for (int64_t i = 0; i < n; i++) lines[i * length + r] = memory[row_of(t, r) * columns + first + i];
}

static float *line_buffer(const FileTensor *t) { return (float *)xmalloc(LINES * (size_t)line_length(t) * sizeof(float)); }

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

void weights_declare(SafetensorsWriter *w, const WeightLayout *layout, DType dtype) {
    for (int i = 0; i < layout->count; i++) {
        const FileTensor *t = &layout->tensors[i];
        safetensors_declare(w, t->name, dtype == BF16 ? ST_BF16 : ST_F32, t->rank, t->shape);
    }
}

static void write_tensor(SafetensorsWriter *w, const FileTensor *t, const float *memory, DType dtype) {
    float *lines = line_buffer(t);
    uint16_t *half = (uint16_t *)xmalloc(LINES * (size_t)line_length(t) * sizeof *half);
    for (int64_t first = 0; first < line_count(t); first += LINES) {
        int64_t n = lines_from(t, first), elements = n * line_length(t);
        gather(t, first, n, memory + t->parameter->offset, lines);
        if (dtype == BF16) bf16_of_floats(half, lines, elements);
        if (dtype == BF16) safetensors_write(w, half, (size_t)elements * sizeof *half);
        else safetensors_write(w, lines, (size_t)elements * sizeof *lines);
    }
    free(lines);
    free(half);
}

void weights_write(SafetensorsWriter *w, const WeightLayout *layout, const float *memory, DType dtype) {
    for (int i = 0; i < layout->count; i++) write_tensor(w, &layout->tensors[i], memory, dtype);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

static int compare_entries(const void *left, const void *right) {
    const SafetensorsEntry *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

TensorIndex tensors_of_files(const Safetensors *files, int count) {
    TensorIndex index = {NULL, 0};
    for (int i = 0; i < count; i++) index.count += files[i].count;
    index.entries = (const SafetensorsEntry **)xcalloc(index.count, sizeof *index.entries);
    size_t next = 0;
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < files[i].count; k++) index.entries[next++] = &files[i].entries[k];
    qsort(index.entries, index.count, sizeof *index.entries, compare_entries);
    return index;
}

void tensors_release(TensorIndex *index) {
    free(index->entries);
    *index = (TensorIndex){NULL, 0};
}

/* The place of the name, or count. */
static size_t tensors_place(const TensorIndex *index, const char *name) {
    SafetensorsEntry wanted = {.name = name};
    const SafetensorsEntry *key = &wanted;
    const SafetensorsEntry **found = bsearch(&key, index->entries, index->count, sizeof *index->entries, compare_entries);
    return found ? (size_t)(found - index->entries) : index->count;
}

const SafetensorsEntry *tensors_find(const TensorIndex *index, const char *name) {
    size_t place = tensors_place(index, name);
    return place < index->count ? index->entries[place] : NULL;
}

static bool is_floats(const SafetensorsEntry *entry) { return entry->dtype == ST_F32 || entry->dtype == ST_F16 || entry->dtype == ST_BF16; }

static bool has_shape(const SafetensorsEntry *entry, const FileTensor *t) {
    bool cropped = t->parameter->kind == PARAMETER_wpe && entry->rank == 2 && entry->shape[0] > t->shape[0];
    return entry->rank == t->rank && (entry->shape[0] == t->shape[0] || cropped) && (t->rank == 1 || entry->shape[1] == t->shape[1]);
}

static bool is_finite(const SafetensorsEntry *entry, const FileTensor *t) {
    float *lines = line_buffer(t), sum = 0;
    for (int64_t first = 0; first < line_count(t); first += LINES) {
        int64_t elements = lines_from(t, first) * line_length(t);
        safetensors_read_floats(entry, first * line_length(t), elements, lines);
        for (int64_t i = 0; i < elements; i++) sum += 0 * lines[i];   /* NaN as soon as one of them is not finite */
    }
    free(lines);
    return sum == 0;
}

static void format_shape(char text[64], int rank, const int64_t *shape) {
    int used = snprintf(text, 64, "(");
    for (int i = 0; i < rank && used < 48; i++)
        used += snprintf(text + used, (size_t)(64 - used), "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(text + used, (size_t)(64 - used), ")");
}

static bool check_tensor(const SafetensorsEntry *entry, const FileTensor *t, char error[ERROR_SIZE]) {
    char found[64], expected[64];
    if (!entry) return file_error(error, "tensor '%.150s' is missing", t->name);
    if (!is_floats(entry)) return file_error(error, "tensor '%.150s' holds integers; expected F32, F16 or BF16", t->name);
    if (!has_shape(entry, t)) {
        format_shape(found, entry->rank, entry->shape);
        format_shape(expected, t->rank, t->shape);
        return file_error(error, "tensor '%.150s' has the shape %s; expected %s", t->name, found, expected);
    }
    return is_finite(entry, t) || file_error(error, "tensor '%.150s' holds a number that is not finite", t->name);
}

bool weights_check(const TensorIndex *index, const WeightLayout *layout, char error[ERROR_SIZE]) {
    for (int i = 0; i < layout->count; i++)
        if (!check_tensor(tensors_find(index, layout->tensors[i].name), &layout->tensors[i], error)) return false;
    return true;
}

static void read_tensor(const SafetensorsEntry *entry, const FileTensor *t, float *memory) {
    float *lines = line_buffer(t);
    for (int64_t first = 0; first < line_count(t); first += LINES) {
        int64_t n = lines_from(t, first);
        safetensors_read_floats(entry, first * line_length(t), n * line_length(t), lines);
        scatter(t, first, n, lines, memory);
    }
    free(lines);
}

void weights_read(const TensorIndex *index, const WeightLayout *layout, float *memory) {
    for (int i = 0; i < layout->count; i++) {
        const ParameterInfo *p = layout->tensors[i].parameter;
        int64_t held = parameter_file_count(p);
        memset(memory + p->offset + held, 0, (size_t)(p->count - held) * sizeof *memory);   /* padding, which comes last */
        read_tensor(tensors_find(index, layout->tensors[i].name), &layout->tensors[i], memory + p->offset);
    }
}

/* ---- our own names ---------------------------------------------------------------------------------------------------------- */

void parameters_declare(SafetensorsWriter *w, const ParameterTable *table, const char *prefix) {
    WeightLayout layout;
    weights_native(&layout, table, prefix);
    weights_declare(w, &layout, F32);
    weights_release(&layout);
}

void parameters_write(SafetensorsWriter *w, const ParameterTable *table, const float *memory) {
    WeightLayout layout;
    weights_native(&layout, table, "");
    weights_write(w, &layout, memory, F32);
    weights_release(&layout);
}

bool parameters_read(const Safetensors *file, const ParameterTable *table, const char *prefix, float *memory, char error[ERROR_SIZE]) {
    WeightLayout layout;
    TensorIndex index = tensors_of_files(file, 1);
    weights_native(&layout, table, prefix);
    bool good = weights_check(&index, &layout, error);
    if (good) weights_read(&index, &layout, memory);
    weights_release(&layout);
    tensors_release(&index);
    return good;
}

/* ---- directories ------------------------------------------------------------------------------------------------------------ */

/* A model without its head is saved without the base. Takes the base off the layout's names where no tensor begins with it. */
static void match_base(WeightLayout *layout, const TensorIndex *index, const char *base) {
    size_t length = strlen(base);
    for (size_t i = 0; i < index->count; i++)
        if (strncmp(index->entries[i]->name, base, length) == 0) return;
    for (int i = 0; i < layout->count; i++) {
        char *name = layout->tensors[i].name;
        if (strncmp(name, base, length) == 0) memmove(name, name + length, strlen(name) - length + 1);
    }
}

/* Masks and frequencies, which are computed and not learned. */
static bool is_buffer(const char *name) {
    static const char *const buffers[] = {"attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias",
                                          "rotary_emb.inv_freq"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        size_t n = strlen(buffers[i]);
        if (length > n && name[length - n - 1] == '.' && strcmp(name + length - n, buffers[i]) == 0) return true;
    }
    return false;
}

static bool check_tied_head(const TensorIndex *index, const WeightLayout *layout, const SafetensorsEntry *head, char error[ERROR_SIZE]) {
    const SafetensorsEntry *wte = NULL;
    for (int i = 0; i < layout->count; i++)
        if (layout->tensors[i].parameter->kind == PARAMETER_wte) wte = tensors_find(index, layout->tensors[i].name);
    bool same = head->dtype == wte->dtype && head->bytes == wte->bytes && memcmp(head->data, wte->data, head->bytes) == 0;
    return same || file_error(error, "tensor '%.150s' differs from the embedding, but the two are tied; remove it, or set "
                                     "tie_word_embeddings to false in config.json", head->name);
}

/* Every tensor of the files belongs to a parameter, or is known to belong to none. */
static bool check_rest(const TensorIndex *index, const WeightLayout *layout, const char *head_name, char error[ERROR_SIZE]) {
    bool *wanted = (bool *)xcalloc(index->count, sizeof *wanted), good = true, tied = true;
    for (int i = 0; i < layout->count; i++) {
        wanted[tensors_place(index, layout->tensors[i].name)] = true;
        tied = tied && layout->tensors[i].parameter->kind != PARAMETER_head;
    }
    for (size_t i = 0; i < index->count && good; i++) {
        const SafetensorsEntry *entry = index->entries[i];
        if (wanted[i] || is_buffer(entry->name)) continue;
        if (tied && strcmp(entry->name, head_name) == 0) good = check_tied_head(index, layout, entry, error);
        else good = file_error(error, "tensor '%.150s' belongs to nothing in this model", entry->name);
    }
    free(wanted);
    return good;
}

/* The model must be the one that the directory holds: what tensors cannot show, as an activation, would come out as another model, and the
   family's tables are for its own architectures alone. These may differ: dropout, the context (check_tensor sees whether a table has the
   rows), the layout of pairs (rows are permuted), and RoPE's base and scaling and the norms' epsilon, which finetuning may change on purpose. */
static bool check_same(const char *directory, const Family *family, Config saved, const Config *config, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE];
    saved.dropout = config->dropout;
    saved.maxT = config->maxT;
    saved.rope_layout = config->rope_layout;
    saved.rope_base = config->rope_base;
    saved.rope_scaling = config->rope_scaling;
    saved.norm_eps = config->norm_eps;
    return config_same(&saved, config, cause) || file_error(error, "%.200s holds a %s, which cannot be made another architecture: %.200s; "
                                                                   "leave that option out", directory, family->model_type, cause);
}

bool weights_read_directory(const char *directory, const ParameterTable *table, const Config *config, float *memory,
                            char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE];
    Config saved;
    const Family *family;
    WeightFiles shards;
    WeightLayout layout;
    if (!config_read_directory(directory, &saved, &family, error) || !check_same(directory, family, saved, config, error)
        || !weight_files_open(&shards, directory, error)) return false;
    TensorIndex index = tensors_of_files(shards.files, shards.count);
    weights_of_family(&layout, table, config, family, family->native ? saved.rope_layout : ROPE_HALF);
    match_base(&layout, &index, family->base);
    const TensorName *head = family_tensor(family, PARAMETER_head, 0);
    bool good = weights_check(&index, &layout, cause) && check_rest(&index, &layout, head ? head->name : "lm_head.weight", cause);
    if (good) weights_read(&index, &layout, memory);
    else file_error(error, "%.200s: %.300s", directory, cause);
    weights_release(&layout);
    tensors_release(&index);
    weight_files_close(&shards);
    return good;
}

bool weights_write_file(const char *path, const ParameterTable *table, const Config *config, const float *memory, DType dtype,
                        uint32_t *crc, char error[ERROR_SIZE]) {
    WeightLayout layout;
    const Family *family = family_of(config);
    SafetensorsWriter *w = safetensors_create(path);
    weights_of_family(&layout, table, config, family, family->native ? config->rope_layout : ROPE_HALF);
    safetensors_declare_metadata(w, "format", "pt");
    weights_declare(w, &layout, dtype);
    safetensors_begin(w);
    weights_write(w, &layout, memory, dtype);
    weights_release(&layout);
    return safetensors_finish(w, crc, error);
}
