/* parameters.c: the parameter table turned into layout, initial values and files. */
#include "parameters.h"

#include "error.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

typedef struct {
    bool per_layer, exists;
    int64_t rows, columns;
    InitKind init;
    bool decay, transposed;
    const char *name;
} Row;

enum {
#define ROW(field, ...) ROW_##field,
    PARAMETER_LIST(ROW, ROW)
#undef ROW
    ROWS
};

/* The list, evaluated for one architecture. */
static void evaluate_rows(Row rows[ROWS], const Config *c) {
    Row *row = rows;
#define ONCE(field, exists, r, k, init, decay, transposed, name) *row++ = (Row){false, exists, r, k, init, decay, transposed, name};
#define LAYER(field, exists, r, k, init, decay, transposed, name) *row++ = (Row){true, exists, r, k, init, decay, transposed, name};
    PARAMETER_LIST(ONCE, LAYER)
#undef ONCE
#undef LAYER
}

static void append(ParameterTable *t, const Config *c, const Row *row, int64_t layer) {
    ParameterInfo *p = &t->info[t->count++];
    p->name = row->per_layer ? xprintf("transformer.h.%lld.%s", (long long)layer, row->name) : xstrdup(row->name);
    p->rows = row->rows;
    p->columns = row->columns;
    p->file_rows = row->rows == c->Vp && row->init == INIT_EMBEDDING && strcmp(row->name, "transformer.wpe.weight") != 0 ? c->V : row->rows;
    p->offset = t->elements;
    p->count = (row->rows ? row->rows : 1) * row->columns;
    p->decay = row->decay;
    p->transposed = row->transposed;
    p->init = row->init;
    t->elements += (p->count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    t->parameters += parameter_file_count(p);
    /* A boundary wherever decay changes: even pieces are decayed, so the first boundary is followed by decayed elements. */
    bool in_decayed = t->segment_count % 2 == 1;
    if (p->decay != in_decayed) t->segments[t->segment_count++] = p->offset;
}

void parameters_describe(ParameterTable *t, const Config *c) {
    Row rows[ROWS];
    evaluate_rows(rows, c);
    memset(t, 0, sizeof *t);
    size_t most = ROWS * (size_t)c->L;
    t->info = (ParameterInfo *)xcalloc(most, sizeof *t->info);
    t->segments = (int64_t *)xcalloc(2 * (size_t)c->L + 4, sizeof *t->segments);
    int r = 0;
    for (; !rows[r].per_layer; r++)
        if (rows[r].exists) append(t, c, &rows[r], 0);
    int first = r;
    for (int64_t l = 0; l < c->L; l++)
        for (r = first; rows[r].per_layer; r++)
            if (rows[r].exists) append(t, c, &rows[r], l);
    for (; r < ROWS; r++)
        if (rows[r].exists) append(t, c, &rows[r], 0);
    t->segments[t->segment_count++] = t->elements;
}

void parameters_release(ParameterTable *t) {
    for (int i = 0; i < t->count; i++) free(t->info[i].name);
    free(t->info);
    free(t->segments);
    memset(t, 0, sizeof *t);
}

static Tensor view(const ParameterTable *t, int *next, bool exists, void *memory, DType dtype) {
    if (!exists) return no_tensor();
    const ParameterInfo *p = &t->info[(*next)++];
    void *data = memory ? (char *)memory + (size_t)p->offset * dtype_size(dtype) : NULL;
    return p->rows ? tensor(data, dtype, 2, p->rows, p->columns, 0, 0) : tensor(data, dtype, 1, p->columns, 0, 0, 0);
}

/* Walks the list in memory order: the fields before the layers, the layers, the fields after. */
void parameters_bind(ParameterTensors *p, const ParameterTable *t, const Config *c, void *memory, DType dtype) {
    int next = 0;
    bool after_layers = false;
#define NOTHING(...)
#define ALLOCATE(field, ...) p->field = (Tensor *)xcalloc((size_t)c->L, sizeof(Tensor));
#define BEFORE(field, exists, ...) if (!after_layers) p->field = view(t, &next, exists, memory, dtype);
#define MARK(...) after_layers = true;
#define WITHIN(field, exists, ...) p->field[l] = view(t, &next, exists, memory, dtype);
#define AFTER(field, exists, ...) if (after_layers) p->field = view(t, &next, exists, memory, dtype);
    PARAMETER_LIST(NOTHING, ALLOCATE)
    PARAMETER_LIST(BEFORE, MARK)
    for (int64_t l = 0; l < c->L; l++) { PARAMETER_LIST(NOTHING, WITHIN) }
    after_layers = false;
    PARAMETER_LIST(AFTER, MARK)
#undef NOTHING
#undef ALLOCATE
#undef BEFORE
#undef MARK
#undef WITHIN
#undef AFTER
    CHECK(next == t->count);
}

void parameters_unbind(ParameterTensors *p) {
#define ONCE(...)
#define LAYER(field, ...) free(p->field);
    PARAMETER_LIST(ONCE, LAYER)
#undef ONCE
#undef LAYER
    memset(p, 0, sizeof *p);
}

/* A standard normal (Box and Muller 1958) and a uniform number in (-1, 1), for element i of tensor `index`. */
static double unit(uint32_t bits) { return ((double)bits + 0.5) / 4294967296.0; }
enum { INIT_STEP = 0xFFFFFFFF };   /* keeps these numbers apart from every dropout mask */
static double normal_at(uint64_t seed, uint32_t index, uint64_t i) {
    double u = unit(philox_at(seed, INIT_STEP, index, 2 * i)), v = unit(philox_at(seed, INIT_STEP, index, 2 * i + 1));
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}
static double uniform_at(uint64_t seed, uint32_t index, uint64_t i) { return 2 * unit(philox_at(seed, INIT_STEP, index, i)) - 1; }

static void init_tensor(float *out, const ParameterInfo *p, uint32_t index, int64_t L, int scheme, uint64_t seed) {
    enum { GPT2, XAVIER, KAIMING };
    double in = (double)p->columns, both = (double)(p->columns + p->rows);
    bool linear = p->init == INIT_LINEAR || p->init == INIT_RESIDUAL, uniform = linear && scheme == XAVIER;
    double scale = uniform ? sqrt(6 / both) : linear && scheme == KAIMING ? sqrt(2 / in)
                 : p->init == INIT_RESIDUAL ? 0.02 / sqrt(2 * (double)L) : 0.02;
    int64_t drawn = (p->file_rows ? p->file_rows : 1) * p->columns;   /* the padding stays zero */
    for (int64_t i = 0; i < drawn; i++)
        out[i] = p->init == INIT_ZERO ? 0.0f : p->init == INIT_ONE ? 1.0f
               : (float)(scale * (uniform ? uniform_at(seed, index, (uint64_t)i) : normal_at(seed, index, (uint64_t)i)));
}

void parameters_init(float *memory, const ParameterTable *t, const Config *c, int scheme, uint64_t seed) {
    memset(memory, 0, (size_t)t->elements * sizeof *memory);
    #pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < t->count; i++) init_tensor(memory + t->info[i].offset, &t->info[i], (uint32_t)i, c->L, scheme, seed);
}

int64_t parameter_file_count(const ParameterInfo *p) { return (p->file_rows ? p->file_rows : 1) * p->columns; }

void parameter_file_shape(const ParameterInfo *p, int *rank, int64_t shape[2]) {
    *rank = p->rows ? 2 : 1;
    shape[0] = p->rows == 0 ? p->columns : p->transposed ? p->columns : p->file_rows;
    shape[1] = p->transposed ? p->file_rows : p->columns;
}

void parameter_to_file(const ParameterInfo *p, const float *memory, float *file) {
    int64_t n = parameter_file_count(p);
    if (!p->transposed) memcpy(file, memory, (size_t)n * sizeof *file);
    else
        for (int64_t r = 0; r < p->rows; r++)
            for (int64_t k = 0; k < p->columns; k++) file[k * p->rows + r] = memory[r * p->columns + k];
}

void parameter_from_file(const ParameterInfo *p, const float *file, float *memory) {
    int64_t n = parameter_file_count(p);
    memset(memory, 0, (size_t)p->count * sizeof *memory);
    if (!p->transposed) memcpy(memory, file, (size_t)n * sizeof *memory);
    else
        for (int64_t r = 0; r < p->rows; r++)
            for (int64_t k = 0; k < p->columns; k++) memory[r * p->columns + k] = file[k * p->rows + r];
}

void parameters_declare(SafetensorsWriter *w, const ParameterTable *t, const char *prefix) {
    for (int i = 0; i < t->count; i++) {
        int rank;
        int64_t shape[2];
        char *name = xprintf("%s%s", prefix, t->info[i].name);
        parameter_file_shape(&t->info[i], &rank, shape);
        safetensors_declare(w, name, ST_F32, rank, shape);
        free(name);
    }
}

void parameters_write(SafetensorsWriter *w, const ParameterTable *t, const float *memory) {
    for (int i = 0; i < t->count; i++) {
        const ParameterInfo *p = &t->info[i];
        size_t bytes = (size_t)parameter_file_count(p) * sizeof(float);
        float *file = (float *)xmalloc(bytes);
        parameter_to_file(p, memory + p->offset, file);
        safetensors_write(w, file, bytes);
        free(file);
    }
}

static const SafetensorsEntry *find_entry(const Safetensors *st, const char *prefix, const char *name) {
    static const char family[] = "transformer.";
    char *full = xprintf("%s%s", prefix, name);
    const SafetensorsEntry *entry = safetensors_find(st, full);
    free(full);
    if (!entry && strncmp(name, family, sizeof family - 1) == 0) {
        full = xprintf("%s%s", prefix, name + sizeof family - 1);
        entry = safetensors_find(st, full);
        free(full);
    }
    return entry;
}

static bool read_parameter(const Safetensors *st, const ParameterInfo *p, const char *prefix, float *memory, char error[ERROR_SIZE]) {
    const SafetensorsEntry *entry = find_entry(st, prefix, p->name);
    int rank;
    int64_t shape[2];
    if (!entry) {
        snprintf(error, ERROR_SIZE, "tensor '%s%s' is missing", prefix, p->name);
        return false;
    }
    parameter_file_shape(p, &rank, shape);
    bool position_table = strcmp(p->name, "transformer.wpe.weight") == 0;
    bool same = entry->rank == rank && (entry->shape[0] == shape[0] || (position_table && entry->shape[0] > shape[0]))
             && (rank == 1 || entry->shape[1] == shape[1]);
    bool floats = entry->dtype == ST_F32 || entry->dtype == ST_F16 || entry->dtype == ST_BF16;
    if (!same || !floats) {
        snprintf(error, ERROR_SIZE, "tensor '%s%s' has another shape or type; expected floats (%lld%s%.0lld)", prefix, p->name, (long long)shape[0],
                 rank == 2 ? ", " : "", rank == 2 ? (long long)shape[1] : 0LL);
        return false;
    }
    int64_t n = parameter_file_count(p);
    float *file = (float *)xmalloc((size_t)n * sizeof *file);
    safetensors_read_floats(entry, 0, n, file);
    bool finite = true;
    for (int64_t i = 0; i < n; i++) finite = finite && isfinite(file[i]);
    if (finite) parameter_from_file(p, file, memory + p->offset);
    else snprintf(error, ERROR_SIZE, "tensor '%s%s' holds a number that is not finite", prefix, p->name);
    free(file);
    return finite;
}

bool parameters_read(const Safetensors *st, const ParameterTable *t, const char *prefix, float *memory, char error[ERROR_SIZE]) {
    for (int i = 0; i < t->count; i++)
        if (!read_parameter(st, &t->info[i], prefix, memory, error)) return false;
    return true;
}
