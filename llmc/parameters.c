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
    ParameterKind kind;
    bool per_layer, exists;
    int64_t rows, columns;
    InitKind init;
    bool decay, transposed;
    const char *name;
} Row;

/* The list, evaluated for one architecture. */
static void evaluate_rows(Row rows[PARAMETER_KINDS], const Config *c) {
    Row *row = rows;
#define ONCE(field, exists, r, k, init, decay, transposed, name) \
    *row++ = (Row){PARAMETER_##field, false, exists, r, k, init, decay, transposed, name};
#define LAYER(field, exists, r, k, init, decay, transposed, name) \
    *row++ = (Row){PARAMETER_##field, true, exists, r, k, init, decay, transposed, name};
    PARAMETER_LIST(ONCE, LAYER)
#undef ONCE
#undef LAYER
}

static int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static void append(ParameterTable *t, const Config *c, const Row *row, int64_t layer) {
    ParameterInfo *p = &t->info[t->count++];
    p->name = row->per_layer ? xprintf("transformer.h.%lld.%s", (long long)layer, row->name) : xstrdup(row->name);
    p->kind = row->kind;
    p->layer = row->per_layer ? layer : -1;
    p->rows = row->rows;
    p->columns = row->columns;
    p->file_rows = row->kind == PARAMETER_wte || row->kind == PARAMETER_head ? c->V : row->rows;
    p->offset = t->elements;
    p->count = (row->rows ? row->rows : 1) * row->columns;
    p->decay = row->decay;
    p->transposed = row->transposed;
    p->init = row->init;
    t->elements = round_up(t->elements + p->count, ALIGNMENT);
    t->parameters += parameter_file_count(p);
    /* A boundary wherever decay changes: even pieces are decayed, so the first boundary is followed by decayed elements. */
    bool in_decayed = t->segment_count % 2 == 1;
    if (p->decay != in_decayed) t->segments[t->segment_count++] = p->offset;
}

/* Everything appended since the last bucket is one more. Returns its number, or -1 if that is nothing. */
static int end_bucket(ParameterTable *t, int64_t multiple) {
    const ParameterBucket *last = t->bucket_count > 0 ? &t->buckets[t->bucket_count - 1] : NULL;
    int64_t offset = last ? last->offset + last->count : 0;
    if (t->elements == offset) return -1;
    t->elements = round_up(t->elements, multiple);
    t->buckets[t->bucket_count] = (ParameterBucket){offset, t->elements - offset};
    return t->bucket_count++;
}

void parameters_describe_padded(ParameterTable *t, const Config *c, int64_t multiple) {
    Row rows[PARAMETER_KINDS];
    CHECK(multiple % ALIGNMENT == 0);
    evaluate_rows(rows, c);
    memset(t, 0, sizeof *t);
    size_t most = PARAMETER_KINDS * (size_t)c->L;
    t->info = (ParameterInfo *)xcalloc(most, sizeof *t->info);
    t->segments = (int64_t *)xcalloc(2 * (size_t)c->L + 4, sizeof *t->segments);
    t->buckets = (ParameterBucket *)xcalloc((size_t)c->L + 3, sizeof *t->buckets);
    int r = 0;
    for (; rows[r].kind != PARAMETER_head; r++)
        if (rows[r].exists) append(t, c, &rows[r], 0);
    end_bucket(t, multiple);
    for (; !rows[r].per_layer; r++)
        if (rows[r].exists) append(t, c, &rows[r], 0);
    t->bucket_of_head = end_bucket(t, multiple);
    t->bucket_of_layer = t->bucket_count;
    int first = r;
    for (int64_t l = 0; l < c->L; l++) {
        for (r = first; rows[r].per_layer; r++)
            if (rows[r].exists) append(t, c, &rows[r], l);
        end_bucket(t, multiple);
    }
    for (; r < PARAMETER_KINDS; r++)
        if (rows[r].exists) append(t, c, &rows[r], 0);
    t->bucket_of_norm = end_bucket(t, multiple);
    t->segments[t->segment_count++] = t->elements;
}

void parameters_describe(ParameterTable *t, const Config *c) { parameters_describe_padded(t, c, ALIGNMENT); }

void parameters_release(ParameterTable *t) {
    for (int i = 0; i < t->count; i++) free(t->info[i].name);
    free(t->info);
    free(t->segments);
    free(t->buckets);
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
