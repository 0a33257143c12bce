/* parameters_test.c: where each tensor lies, how it begins, and how it goes to files and back. */
#include "parameters.h"
#include "directory_test.h"

#include "error.h"
#include "kernels/cpu.h"
#include "weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

static Config config_of(const char *settings) {
    static const char small[] = "n_layer=3\nn_head=4\nn_embd=40\nvocab_size=65\nseq_len=24\n";
    Options o;
    Config c = {0};
    options_defaults(&o);
    bool ok = options_parse_text(&o, small, strlen(small), "small", error)
           && options_parse_text(&o, settings, strlen(settings), "test", error)
           && config_from_options(&c, &o, error);
    if (!ok) fail_msg("%s: %s", settings, error);
    options_release(&train_options, &o);
    return c;
}

/* Architectures that between them have every row of the list, and lack each that may be missing. */
static const char *const architectures[] = {"", "pos=learned\n", "pos=none\nbias=0\n", "tie=0\n",
                                            "tie=0\nbias=0\npos=learned\nn_kv_head=2\nn_hidden=77\n",
                                            "head_size=18\nn_kv_head=1\nn_layer=1\n", "vocab_size=128\npos=learned\nseq_len=128\n",
                                            "norm=rmsnorm\nactivation=swiglu\nbias=0\n", "norm=rmsnorm\nqk_norm=1\nhead_size=6\ntie=0\n",
                                            "norm=none\nactivation=swiglu\n", "norm=none\nbias=0\n", "norm_place=post\n",
                                            "norm_place=post\nnorm=rmsnorm\nbias=0\nqkv_bias=1\nn_kv_head=2\n"};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

static const ParameterInfo *info_named(const ParameterTable *t, const char *name) {
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->info[i].name, name) == 0) return &t->info[i];
    return NULL;
}

/* A flat buffer with a different number in every element that belongs to a tensor, 0 elsewhere. */
static float *numbered(const ParameterTable *t) {
    float *memory = calloc((size_t)t->elements, sizeof *memory);
    for (int i = 0; i < t->count; i++)
        for (int64_t k = 0; k < parameter_file_count(&t->info[i]); k++)
            memory[t->info[i].offset + k] = (float)(t->info[i].offset + k + 1) / 1024;
    return memory;
}

/* ---- layout ----------------------------------------------------------------------------------------------------------------- */

static void check_layout(const Config *c) {
    ParameterTable t;
    parameters_describe(&t, c);
    int64_t end = 0, parameters = 0;
    for (int i = 0; i < t.count; i++) {
        const ParameterInfo *p = &t.info[i];
        assert_int_equal(p->offset % 64, 0);
        assert_true(p->offset >= end && p->offset < end + 64);
        assert_int_equal(p->count, (p->rows ? p->rows : 1) * p->columns);
        end = p->offset + p->count;
        parameters += parameter_file_count(p);
        assert_ptr_equal(info_named(&t, p->name), p);   /* no name twice */
        assert_int_equal(p->decay, p->rows > 0);        /* weights of two dimensions, and they alone */
    }
    assert_true(t.elements >= end && t.elements < end + 64 && t.elements % 64 == 0);
    assert_int_equal(t.parameters, parameters);
    parameters_release(&t);
}

/* Even pieces hold decayed tensors only, odd ones the others; two pieces a layer, or one in all where there are no others. */
static void check_segments(const Config *c) {
    ParameterTable t;
    parameters_describe(&t, c);
    bool vectors = c->norm != NORM_NONE || c->bias || c->qkv_bias || c->qk_norm;
    assert_int_equal(t.segment_count, vectors ? 2 * c->L + 1 : 2);
    assert_int_equal(t.segments[0], 0);
    assert_int_equal(t.segments[t.segment_count - 1], t.elements);
    for (int s = 1; s < t.segment_count; s++) assert_true(t.segments[s] > t.segments[s - 1]);
    for (int i = 0; i < t.count; i++) {
        const ParameterInfo *p = &t.info[i];
        int piece = 0;
        while (t.segments[piece + 1] <= p->offset) piece++;
        assert_true(p->offset + p->count <= t.segments[piece + 1]);
        if ((piece % 2 == 0) != p->decay) fail_msg("%s lies in piece %d", p->name, piece);
    }
    parameters_release(&t);
}

/* Which bucket a parameter belongs to. */
static int bucket_of(const ParameterTable *t, const ParameterInfo *p) {
    if (p->layer >= 0) return t->bucket_of_layer + (int)p->layer;
    if (p->kind == PARAMETER_wte || p->kind == PARAMETER_wpe) return BUCKET_EMBEDDING;
    return p->kind == PARAMETER_head ? t->bucket_of_head : t->bucket_of_norm;
}

/* Buckets cover the buffer, in pieces of that multiple, and each parameter lies in its own; tensors are the same whatever the padding. */
static void check_buckets(const Config *c, int64_t multiple) {
    ParameterTable t, plain;
    parameters_describe(&plain, c);
    parameters_describe_padded(&t, c, multiple);
    int64_t end = 0;
    for (int b = 0; b < t.bucket_count; b++) {
        assert_int_equal(t.buckets[b].offset, end);
        assert_true(t.buckets[b].count > 0 && t.buckets[b].count % multiple == 0);
        assert_true(t.buckets[b].count < plain.buckets[b].count + multiple);
        end += t.buckets[b].count;
    }
    assert_true(end == t.elements && t.bucket_count == plain.bucket_count && t.count == plain.count && t.parameters == plain.parameters);
    assert_int_equal(t.bucket_count, 1 + !c->tie + c->L + config_has_final_norm(c));
    assert_true((t.bucket_of_head >= 0) == !c->tie && (t.bucket_of_norm >= 0) == config_has_final_norm(c));
    for (int i = 0; i < t.count; i++) {
        const ParameterInfo *p = &t.info[i];
        const int number = bucket_of(&t, p);
        const ParameterBucket *b = &t.buckets[number];
        assert_true(p->offset >= b->offset && p->offset + p->count <= b->offset + b->count);
        assert_int_equal(p->offset - b->offset, plain.info[i].offset - plain.buckets[number].offset);
    }
    parameters_release(&t);
    parameters_release(&plain);
}

/* The field's tensor is that of the table's entry of this name, or absent like it. Returns how many exist. */
static int check_field(const ParameterTable *t, const char *name, Tensor field, const char *memory, DType dtype) {
    const ParameterInfo *info = info_named(t, name);
    const char *expected = info && memory ? memory + (size_t)info->offset * dtype_size(dtype) : NULL;
    if ((const char *)field.data != expected) fail_msg("%s points elsewhere", name);
    if (!info) return 0;
    bool same = field.dtype == dtype && field.rank == (info->rows ? 2 : 1) && last_dim(field) == info->columns
             && (!info->rows || field.shape[0] == info->rows);
    if (!same) fail_msg("%s has another shape or dtype", name);
    return 1;
}

static const char *layer_name(int64_t l, const char *spelling) {
    static char name[96];
    snprintf(name, sizeof name, "transformer.h.%d.%s", (int)l, spelling);
    return name;
}

/* Every field of the struct points to the tensor that its row names, with its shape; absent ones point nowhere. */
static void check_binding(const Config *c, DType dtype, bool with_memory) {
    ParameterTable t;
    ParameterTensors p;
    int bound = 0;
    parameters_describe(&t, c);
    char *memory = with_memory ? malloc((size_t)t.elements * dtype_size(dtype)) : NULL;
    parameters_bind(&p, &t, c, memory, dtype);
#define ONCE(field, exists, rows, columns, init, decay, transposed, spelling) bound += check_field(&t, spelling, p.field, memory, dtype);
#define LAYER(field, exists, rows, columns, init, decay, transposed, spelling)                                                      \
    for (int64_t l = 0; l < c->L; l++) bound += check_field(&t, layer_name(l, spelling), p.field[l], memory, dtype);
    PARAMETER_LIST(ONCE, LAYER)
#undef ONCE
#undef LAYER
    assert_int_equal(bound, t.count);
    parameters_unbind(&p);
    free(memory);
    parameters_release(&t);
}

static void test_layout(void **state) {
    (void)state;
    for (int i = 0; i < ARCHITECTURES; i++) {
        Config c = config_of(architectures[i]);
        check_layout(&c);
        check_segments(&c);
        check_buckets(&c, 64);
        check_buckets(&c, 7 * 128);
        check_binding(&c, F32, true);
        check_binding(&c, BF16, true);
        check_binding(&c, F32, false);
    }
}

/* What exists, and its shape in memory and in files, for one architecture spelled out. */
static void test_shapes(void **state) {
    (void)state;
    Config c = config_of("pos=learned\nn_kv_head=2\nn_hidden=77\nseq_len=30\ntie=0\n");   /* C 40, NH 4, NKV 2, HS 10: QKV 80 */
    static const struct { const char *name; int64_t rows, columns; int rank; int64_t file[2]; } expected[] = {
        {"transformer.wte.weight", 128, 40, 2, {65, 40}}, {"transformer.wpe.weight", 30, 40, 2, {30, 40}},
        {"lm_head.weight", 128, 40, 2, {65, 40}},
        {"transformer.h.2.attn.c_attn.weight", 80, 40, 2, {40, 80}}, {"transformer.h.0.attn.c_proj.weight", 40, 40, 2, {40, 40}},
        {"transformer.h.1.mlp.c_fc.weight", 77, 40, 2, {40, 77}}, {"transformer.h.1.mlp.c_proj.weight", 40, 77, 2, {77, 40}},
        {"transformer.h.0.ln_1.weight", 0, 40, 1, {40, 0}}, {"transformer.h.0.ln_1.bias", 0, 40, 1, {40, 0}},
        {"transformer.h.0.attn.c_attn.bias", 0, 80, 1, {80, 0}}, {"transformer.h.0.attn.c_proj.bias", 0, 40, 1, {40, 0}},
        {"transformer.h.0.ln_2.weight", 0, 40, 1, {40, 0}}, {"transformer.h.0.ln_2.bias", 0, 40, 1, {40, 0}},
        {"transformer.h.0.mlp.c_fc.bias", 0, 77, 1, {77, 0}}, {"transformer.h.0.mlp.c_proj.bias", 0, 40, 1, {40, 0}},
        {"transformer.ln_f.weight", 0, 40, 1, {40, 0}}, {"transformer.ln_f.bias", 0, 40, 1, {40, 0}},
    };
    ParameterTable t;
    parameters_describe(&t, &c);
    assert_int_equal(t.count, 5 + 3 * 12);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const ParameterInfo *p = info_named(&t, expected[i].name);
        int rank;
        int64_t shape[2];
        if (!p) fail_msg("no %s", expected[i].name);
        parameter_file_shape(p, &rank, shape);
        bool same = p->rows == expected[i].rows && p->columns == expected[i].columns && rank == expected[i].rank
                 && shape[0] == expected[i].file[0]
                 && (rank == 1 || shape[1] == expected[i].file[1]);
        if (!same) fail_msg("%s has another shape", expected[i].name);
    }
    parameters_release(&t);
    c = config_of("bias=0\n");
    parameters_describe(&t, &c);
    assert_int_equal(t.count, 2 + 3 * 6);
    assert_null(info_named(&t, "transformer.wpe.weight"));
    assert_null(info_named(&t, "lm_head.weight"));
    assert_null(info_named(&t, "transformer.h.0.attn.c_attn.bias"));
    parameters_release(&t);
    c = config_of("norm=rmsnorm\nqk_norm=1\nactivation=swiglu\nn_hidden=77\n");   /* of two norms in a block, weights alone */
    parameters_describe(&t, &c);
    assert_int_equal(t.count, 2 + 3 * 12);
    assert_int_equal(info_named(&t, "transformer.h.1.mlp.c_fc.weight")->rows, 154);
    assert_int_equal(info_named(&t, "transformer.h.1.mlp.c_fc.bias")->columns, 154);
    assert_int_equal(info_named(&t, "transformer.h.1.mlp.c_proj.weight")->columns, 77);
    assert_int_equal(info_named(&t, "transformer.h.2.attn.q_norm.weight")->columns, 10);
    assert_null(info_named(&t, "transformer.h.0.ln_1.bias"));
    assert_null(info_named(&t, "transformer.ln_f.bias"));
    parameters_release(&t);
    c = config_of("norm_place=post\nbias=0\nqkv_bias=1\n");
    parameters_describe(&t, &c);
    assert_int_equal(t.count, 1 + 3 * 7);
    assert_non_null(info_named(&t, "transformer.h.0.attn.c_attn.bias"));
    assert_null(info_named(&t, "transformer.ln_f.weight"));
    parameters_release(&t);
    c = config_of("pos=learned\nseq_len=128\n");   /* as many positions as padded tokens: yet none of them is padding */
    parameters_describe(&t, &c);
    assert_int_equal(info_named(&t, "transformer.wte.weight")->file_rows, 65);
    assert_int_equal(info_named(&t, "transformer.wpe.weight")->file_rows, 128);
    parameters_release(&t);
}

/* ---- initial values --------------------------------------------------------------------------------------------------------- */

/* Five standard errors: with fixed seeds a statistic beyond them means a wrong distribution, not bad luck. */
enum { ERRORS = 5 };

static double correlation(const float *a, const float *b, int64_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

/* n numbers of mean 0 and that standard deviation, normal or uniform, neighbours independent. */
static void check_distribution(const char *name, const float *x, int64_t n, double std, bool uniform) {
    double mean = 0, square = 0, greatest = 0, root = sqrt((double)n);
    int64_t beyond_two = 0;
    for (int64_t i = 0; i < n; i++) {
        mean += x[i] / (double)n;
        square += (double)x[i] * x[i] / (double)n;
        if (fabs(x[i]) > greatest) greatest = fabs(x[i]);
        beyond_two += fabs(x[i]) > 2 * std;
    }
    if (!(fabs(mean) <= ERRORS * std / root)) fail_msg("%s: mean %g with standard deviation %g", name, mean, std);
    if (!(fabs(sqrt(square) / std - 1) <= ERRORS / (sqrt(2) * root)))
        fail_msg("%s: standard deviation %g, expected %g", name, sqrt(square), std);
    if (!(fabs(correlation(x, x + 1, n - 1)) <= ERRORS / root)) fail_msg("%s: neighbours are correlated", name);
    /* a normal variable is beyond two standard deviations with probability 0.0455, a uniform one never beyond the square root of three */
    double share = (double)beyond_two / (double)n;
    double limit = sqrt(3) * std;
    bool right = uniform ? greatest <= limit * (1 + 1e-6) && greatest >= 0.99 * limit
                         : fabs(share - 0.0455) <= ERRORS * sqrt(0.0455 / (double)n);
    if (!right)
        fail_msg("%s: another distribution: %g beyond two standard deviations, greatest %g", name, share, greatest / std);
}

static void check_init(const Config *c, int scheme) {
    enum { GPT2, XAVIER, KAIMING };
    ParameterTable t;
    parameters_describe(&t, c);
    float *memory = malloc((size_t)t.elements * sizeof *memory);
    memset(memory, 0xFF, (size_t)t.elements * sizeof *memory);
    parameters_init(memory, &t, c, scheme, 17);
    int64_t end = 0;
    for (int i = 0; i < t.count; i++) {
        const ParameterInfo *p = &t.info[i];
        const float *x = memory + p->offset;
        int64_t n = parameter_file_count(p);
        for (int64_t k = end; k < p->offset; k++) assert_true(memory[k] == 0);
        for (int64_t k = n; k < p->count; k++) assert_true(x[k] == 0);
        end = p->offset + p->count;
        bool norm = (strstr(p->name, "ln_") || strstr(p->name, "_norm")) && strstr(p->name, "weight");
        bool embedding = strstr(p->name, "wte") || strstr(p->name, "wpe") || strstr(p->name, "lm_head");
        if (!p->rows) {
            for (int64_t k = 0; k < n; k++) assert_true(x[k] == (norm ? 1 : 0));
            continue;
        }
        double in = (double)p->columns, out = (double)p->rows, std = 0.02;
        bool residual = strstr(p->name, "c_proj") != NULL, uniform = scheme == XAVIER && !embedding;
        if (scheme == GPT2 && residual) std = 0.02 / sqrt(2 * (double)c->L);
        if (scheme == XAVIER && !embedding) std = sqrt(6 / (in + out)) / sqrt(3);
        if (scheme == KAIMING && !embedding) std = sqrt(2 / in);
        check_distribution(p->name, x, n, std, uniform);
        for (int j = 0; j < i; j++) {   /* no two tensors hold the same numbers */
            const ParameterInfo *q = &t.info[j];
            if (!q->rows || parameter_file_count(q) != n) continue;
            if (!(fabs(correlation(x, memory + q->offset, n)) <= ERRORS / sqrt((double)n))) fail_msg("%s resembles %s", p->name, q->name);
        }
    }
    for (int64_t k = end; k < t.elements; k++) assert_true(memory[k] == 0);
    free(memory);
    parameters_release(&t);
}

static void test_init(void **state) {
    (void)state;
    Config c = config_of("n_layer=2\nn_embd=96\npos=learned\ntie=0\nseq_len=50\n");
    for (int scheme = 0; scheme < 3; scheme++) check_init(&c, scheme);
    c = config_of("n_layer=4\nn_embd=64\nn_kv_head=2\nn_hidden=100\n");
    for (int scheme = 0; scheme < 3; scheme++) check_init(&c, scheme);
}

static float *init_with(const ParameterTable *t, const Config *c, uint64_t seed, int threads) {
    float *memory = malloc((size_t)t->elements * sizeof *memory);
#ifdef _OPENMP
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    parameters_init(memory, t, c, 0, seed);
    omp_set_num_threads(before);
#else
    (void)threads;
    parameters_init(memory, t, c, 0, seed);
#endif
    return memory;
}

static void test_init_depends_on_seed_alone(void **state) {
    (void)state;
    Config c = config_of("pos=learned\ntie=0\n");
    ParameterTable t;
    parameters_describe(&t, &c);
    size_t bytes = (size_t)t.elements * sizeof(float);
    float *first = init_with(&t, &c, 5, 1);
    for (int threads = 1; threads <= 7; threads += 2) {
        float *again = init_with(&t, &c, 5, threads);
        assert_memory_equal(first, again, bytes);
        free(again);
    }
    static const uint64_t others[] = {4, 6, 5 + (1ULL << 32), UINT64_MAX};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        float *other = init_with(&t, &c, others[i], 1);
        int64_t same = 0;
        for (int64_t k = 0; k < 65 * 40; k++) same += other[k] == first[k];
        assert_true(same < 10);
        free(other);
    }
    free(first);
    parameters_release(&t);
}

/* ---- one tensor in its file form -------------------------------------------------------------------------------------------- */

static void test_transpose_and_padding(void **state) {
    (void)state;
    for (int i = 0; i < ARCHITECTURES; i++) {
        Config c = config_of(architectures[i]);
        ParameterTable t;
        parameters_describe(&t, &c);
        float *memory = numbered(&t);
        for (int k = 0; k < t.count; k++) {
            const ParameterInfo *p = &t.info[k];
            int64_t n = parameter_file_count(p), rows = p->file_rows ? p->file_rows : 1;
            float *file = malloc((size_t)n * sizeof *file);
            parameter_to_file(p, memory + p->offset, file);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t col = 0; col < p->columns; col++) {
                    int64_t at = p->transposed ? col * rows + r : r * p->columns + col;
                    if (file[at] != memory[p->offset + r * p->columns + col])
                        fail_msg("%s (%d, %d) is elsewhere", p->name, (int)r, (int)col);
                }
            free(file);
        }
        free(memory);
        parameters_release(&t);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

typedef enum { KEEP, LEAVE_OUT, SHORTER, LONGER, NARROWER, OTHER_RANK, INTEGERS, HALF, HOLD_NAN, HOLD_INF } Change;

/* Writes all tensors under prefix, those whose name contains `changed` in another way (NULL: all of them). */
static void write_file(const char *path, const ParameterTable *t, const float *memory, const char *prefix, const char *changed,
                       Change change) {
    SafetensorsWriter *w = safetensors_create(path);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < t->count; i++) {
            const ParameterInfo *p = &t->info[i];
            Change now = !changed || strstr(p->name, changed) ? change : KEEP;
            int rank;
            int64_t shape[3] = {1, 1, 1}, n;
            char name[128];
            parameter_file_shape(p, &rank, shape);
            snprintf(name, sizeof name, "%s%s", prefix, p->name);
            if (now == LEAVE_OUT) continue;
            if (now == SHORTER) shape[0]--;
            if (now == LONGER) shape[0]++;
            if (now == NARROWER) shape[1]--;
            n = shape[0] * (rank == 2 ? shape[1] : 1);
            if (now == OTHER_RANK) shape[rank++] = 1;
            if (pass == 0) {
                safetensors_declare(w, name, now == INTEGERS ? ST_I32 : now == HALF ? ST_BF16 : ST_F32, rank, shape);
                continue;
            }
            float *file = calloc((size_t)(n + p->count), sizeof *file);
            uint16_t *half = malloc((size_t)n * sizeof *half);
            parameter_to_file(p, memory + p->offset, file);
            if (now == HOLD_NAN) file[n - 1] = NAN;
            if (now == HOLD_INF) file[n / 2] = -INFINITY;
            bf16_of_floats(half, file, n);
            if (now == HALF) safetensors_write(w, half, (size_t)n * sizeof *half);
            else safetensors_write(w, file, (size_t)n * sizeof *file);
            free(file);
            free(half);
        }
        if (pass == 0) safetensors_begin(w);
    }
    uint32_t crc;
    if (!safetensors_finish(w, &crc, error)) fail_msg("%s", error);
}

static bool read_file(const char *path, const ParameterTable *t, const char *prefix, float *memory) {
    Safetensors st;
    if (!safetensors_open(&st, path, error)) fail_msg("%s", error);
    bool ok = parameters_read(&st, t, prefix, memory, error);
    safetensors_close(&st);
    return ok;
}

static void test_file_round_trip(void **state) {
    (void)state;
    char *path = path_join(directory, "weights");
    static const char *const prefixes[] = {"", "exp_avg."};
    for (int i = 0; i < ARCHITECTURES; i++)
        for (int k = 0; k < 2; k++) {
            Config c = config_of(architectures[i]);
            ParameterTable t;
            uint32_t crc;
            parameters_describe(&t, &c);
            float *memory = numbered(&t), *back = calloc((size_t)t.elements, sizeof *back);
            SafetensorsWriter *w = safetensors_create(path);
            parameters_declare(w, &t, prefixes[k]);
            safetensors_begin(w);
            parameters_write(w, &t, memory);
            assert_true(safetensors_finish(w, &crc, error));
            if (!read_file(path, &t, prefixes[k], back)) fail_msg("%s", error);
            assert_memory_equal(memory, back, (size_t)t.elements * sizeof *back);
            assert_false(read_file(path, &t, "other.", back));
            assert_non_null(strstr(error, "'other.transformer.wte.weight' is missing"));
            free(memory);
            free(back);
            parameters_release(&t);
        }
    free(path);
}

static void test_bf16_file(void **state) {
    (void)state;
    char *path = path_join(directory, "weights");
    Config c = config_of("pos=learned\n");
    ParameterTable t;
    parameters_describe(&t, &c);
    float *memory = numbered(&t), *back = calloc((size_t)t.elements, sizeof *back);
    /* the nearest number of that type */
    write_file(path, &t, memory, "", NULL, HALF);
    if (!read_file(path, &t, "", back)) fail_msg("%s", error);
    for (int64_t i = 0; i < t.elements; i++) assert_true(back[i] == bf16_to_float(bf16_of_float(memory[i])));
    free(memory);
    free(back);
    parameters_release(&t);
    free(path);
}

static void test_crop_of_positions(void **state) {
    (void)state;
    char *path = path_join(directory, "weights");
    Config longer = config_of("pos=learned\nseq_len=24\n"), shorter = config_of("pos=learned\nseq_len=10\n");
    ParameterTable a, b;
    parameters_describe(&a, &longer);
    parameters_describe(&b, &shorter);
    float *memory = numbered(&a), *back = calloc((size_t)b.elements, sizeof *back);
    write_file(path, &a, memory, "", NULL, KEEP);
    if (!read_file(path, &b, "", back)) fail_msg("%s", error);
    for (int i = 0; i < b.count; i++) {
        assert_string_equal(a.info[i].name, b.info[i].name);
        assert_memory_equal(back + b.info[i].offset, memory + a.info[i].offset, (size_t)b.info[i].count * sizeof *back);
    }
    free(memory);
    free(back);
    /* a table can't grow */
    memory = numbered(&b), back = calloc((size_t)a.elements, sizeof *back);
    write_file(path, &b, memory, "", NULL, KEEP);
    assert_false(read_file(path, &a, "", back));
    assert_non_null(strstr(error, "'transformer.wpe.weight' has the shape (10, 40)"));
    assert_non_null(strstr(error, "(24, 40)"));
    free(memory);
    free(back);
    parameters_release(&a);
    parameters_release(&b);
    free(path);
}

static void test_refusals(void **state) {
    (void)state;
    char *path = path_join(directory, "weights");
    Config c = config_of("pos=learned\ntie=0\nn_hidden=77\nn_layer=1\n");
    ParameterTable t;
    parameters_describe(&t, &c);
    float *memory = numbered(&t), *back = calloc((size_t)t.elements, sizeof *back);
    static const struct { Change change; const char *cause; } changes[] = {
        {LEAVE_OUT, "is missing"}, {SHORTER, "has the shape ("}, {LONGER, "has the shape ("}, {NARROWER, "has the shape ("},
        {OTHER_RANK, "has the shape ("}, {INTEGERS, "holds integers"}, {HOLD_NAN, "not finite"}, {HOLD_INF, "not finite"}};
    for (int i = 0; i < t.count; i++)
        for (size_t k = 0; k < sizeof changes / sizeof *changes; k++) {
            const ParameterInfo *p = &t.info[i];
            if (changes[k].change == NARROWER && !p->rows) continue;
            if (changes[k].change == LONGER && strstr(p->name, "wpe")) continue;   /* cropped */
            write_file(path, &t, memory, "", p->name, changes[k].change);
            if (read_file(path, &t, "", back)) fail_msg("%s: change %d is accepted", p->name, (int)changes[k].change);
            for (int64_t e = 0; e < t.elements; e++) assert_true(back[e] == 0);   /* nothing is read before all is checked */
            char named[128];
            snprintf(named, sizeof named, "'%s' ", p->name);
            if (!strstr(error, named) || !strstr(error, changes[k].cause))
                fail_msg("\"%s\" does not say %s %s", error, p->name, changes[k].cause);
        }
    free(memory);
    free(back);
    parameters_release(&t);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout), cmocka_unit_test(test_shapes), cmocka_unit_test(test_init),
        cmocka_unit_test(test_init_depends_on_seed_alone), cmocka_unit_test(test_transpose_and_padding),
        cmocka_unit_test(test_file_round_trip), cmocka_unit_test(test_bf16_file), cmocka_unit_test(test_crop_of_positions),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
