/* model_stats_test.c: norms and root mean squares against plain double sums over copies of the same tensors, and against the norm that clipping
   sees; on several ranks, with ZeRO and without, against one; and that measuring changes no bit of training. */
#include "model_stats.h"

#include "comm_late_test.h"
#include "json.h"
#include "model_ranks.h"
#include "model_test.h"

enum { STEPS = 3, ROWS = 4, RANKS = 2 };   /* the third step is a graph's, where there are graphs */

/* Between them: both norms, before and after, and none; tied and not; every way to know positions; shared key/value heads, SwiGLU, QK-norm;
   no biases; one layer. */
static const char *const architectures[] = {
    "pos=learned\ndropout=0.1\n",
    "pos=rope\ntie=0\nn_kv_head=2\nactivation=swiglu\nn_hidden=40\nnorm=rmsnorm\nbias=0\n",
    "pos=learned\nnorm_place=post\ntie=0\ndropout=0.1\nvocab_size=97\n",
    "pos=rope\nn_head=3\nn_embd=36\nqk_norm=1\nnorm=rmsnorm\nnorm_place=post\nvocab_size=131\n",
    "pos=none\nnorm=none\n",
    "n_layer=1\nn_kv_head=1\n",
};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

static const char *name_of(const Model *m, int architecture) {
    static char name[240];
    snprintf(name, sizeof name, "%s, %s, recompute %d%s, %s", m->backend->name, dtype_names[m->spec.dtype], (int)m->spec.recompute,
             m->spec.zero ? ", ZeRO" : "", architectures[architecture]);
    return name;
}

/* ---- what was written ------------------------------------------------------------------------------------------------------------- */

static char *text_of(const ModelStats *stats) {
    char *text = NULL;
    size_t length;
    FILE *f = open_memstream(&text, &length);
    model_stats_write(f, stats);
    fclose(f);
    return text;
}

static Json *parse(const char *text) {
    Json *json = json_parse(text, strlen(text), error, sizeof error);
    if (!json) fail_msg("%s: %s", text, error);
    assert_int_equal(json->count, 3);
    return json;
}

/* NaN for null. */
static double number_at(const Json *json, const char *section, const char *key, int64_t layer) {
    const Json *row = json_get(json_get(json, section), key);
    if (!row || row->type != JSON_ARRAY || layer >= (int64_t)row->count) fail_msg("no %s.%s[%d]", section, key, (int)layer);
    const Json *item = &row->items[layer];
    assert_true(item->type == JSON_NUMBER || item->type == JSON_NULL);
    return item->type == JSON_NUMBER ? item->number : (double)NAN;
}

static int64_t numbers_in(const Json *section) {
    int64_t n = 0;
    for (size_t i = 0; i < section->count; i++) n += (int64_t)section->items[i].count;
    return n;
}

/* ---- one rank, against copies ------------------------------------------------------------------------------------------------------ */

static const char *const parameter_keys[PARAMETER_KINDS] = {
#define KEY(field, ...) [PARAMETER_##field] = #field,
    PARAMETER_LIST(KEY, KEY)
#undef KEY
};

/* Written as fp32 what was summed in double: 1e-6 is beyond both. */
static void expect_near(const char *what, const char *section, const char *key, int64_t layer, double got, double expected) {
    if (!(fabs(got - expected) <= 1e-6 * fabs(expected)))
        fail_msg("%s: %s.%s[%d] is %.9g, expected %.9g", what, section, key, (int)layer, got, expected);
}

/* The sum over the squares of all numbers, which must be those of this flat buffer times `factor`. */
static double check_parameters(const Model *m, const Json *json, const char *section, ArenaName which, double factor, const char *what) {
    float *flat = model_copy_flat(m, which);
    double squares = 0;
    for (int i = 0; i < m->table.count; i++) {
        const ParameterInfo *p = &m->table.info[i];
        const char *key = parameter_keys[p->kind];
        double got = number_at(json, section, key, p->layer < 0 ? 0 : p->layer);
        expect_near(what, section, key, p->layer, got, factor * norm_of(flat + p->offset, p->count));
        assert_int_equal(json_get(json_get(json, section), key)->count, p->layer < 0 ? 1 : m->config.L);
        squares += got * got;
    }
    assert_int_equal(numbers_in(json_get(json, section)), m->table.count);
    free(flat);
    return squares;
}

typedef struct {
    const char *name;
    Tensor tensor;
    Recompute dropped_from;
} KeptActivation;

/* Those of layer l, from what the header says. */
static int activations_of(const Model *m, int64_t l, KeptActivation list[10]) {
    const Activations *a = &m->a;
    const KeptActivation all[] = {
        {"embedded", l == 0 ? a->embedded : no_tensor(), RECOMPUTE_NEVER}, {"ln1", a->ln1[l], RECOMPUTE_NORM}, {"qkv", a->qkv[l], RECOMPUTE_BLOCK},
        {"att", a->att[l], RECOMPUTE_BLOCK}, {"mid", a->mid[l], RECOMPUTE_BLOCK}, {"ln2", a->ln2[l], RECOMPUTE_NORM},
        {"fc", a->fc[l], RECOMPUTE_BLOCK}, {"fc_act", a->fc_act[l], RECOMPUTE_MLP}, {"out", a->out[l], RECOMPUTE_NEVER},
        {"lnf", l == 0 ? a->lnf : no_tensor(), RECOMPUTE_NEVER}};
    int n = 0;
    for (int i = 0; i < 10; i++) {
        const bool norm = strncmp(all[i].name, "ln", 2) == 0, kept = m->spec.recompute < all[i].dropped_from || m->config.L == 1;
        if (kept && all[i].tensor.data && !(norm && m->config.norm == NORM_NONE)) list[n++] = all[i];
    }
    return n;
}

static void check_activations(const Model *m, const Json *json, const char *what) {
    int64_t numbers = 0;
    for (int64_t l = 0; l < m->config.L; l++) {
        KeptActivation list[10];
        int n = activations_of(m, l, list);
        for (int i = 0; i < n; i++, numbers++) {
            double got = number_at(json, "activations", list[i].name, l), squares = 0, *x = test_values(m->backend, list[i].tensor);
            const int64_t elements = tensor_numel(list[i].tensor);
            for (int64_t k = 0; k < elements; k++) squares += x[k] * x[k];
            free(x);
            if (l == 0 && m->config.norm_place == NORM_POST && strcmp(list[i].name, "ln1") == 0) {
                assert_true(isnan(got));
                continue;
            }
            assert_true(squares > 0);
            expect_near(what, "activations", list[i].name, l, got, sqrt(squares / (double)elements));
        }
    }
    assert_int_equal(numbers_in(json_get(json, "activations")), numbers);
}

static void create(Model *m, const Backend *backend, int architecture, DType dtype, Recompute recompute) {
    ModelSpec spec = spec_of(architectures[architecture], dtype, MODEL_TRAIN, 2);
    spec.recompute = recompute;
    create_on(backend, m, &spec);
    m->use_graphs = true;
}

/* A step for which as many targets are expected as there could be; some are masked, so that the stored gradient is not that of the mean. */
static StepOutcome step_of(Model *m, const Batch *b, int64_t step, double lr) {
    StepSettings settings = {.step = step, .lr = lr, .max_norm = 0.5, .valid = b->valid, .targets = b->rows * b->T,
                             .micro_steps = b->rows / m->spec.B};
    model_begin_step(m, &settings);
    for (int64_t row = 0, micro = 0; row < b->rows; row += m->spec.B, micro++)
        model_micro_step(m, b->tokens + row * b->T, b->targets + row * b->T, row, micro);
    model_update(m);
    return model_outcome(m, 0);
}

static void check_copies(const Backend *backend, int architecture, DType dtype, Recompute recompute) {
    Model m;
    create(&m, backend, architecture, dtype, recompute);
    ModelStats *stats = model_stats_create(&m);
    Batch b = batch_of(ROWS, m.spec.T, m.config.V, true, 7);
    const char *what = name_of(&m, architecture);
    StepOutcome outcome;
    for (int64_t s = 0; s < STEPS; s++) outcome = step_of(&m, &b, s, 1e-3);
    model_stats_measure(stats);
    char *text = text_of(stats);
    Json *json = parse(text);
    check_parameters(&m, json, "weights", ARENA_MASTERS, 1, what);
    double squares = check_parameters(&m, json, "gradients", ARENA_GRADIENTS, (double)(b.rows * b.T) / (double)b.valid, what);
    assert_true(b.valid > 0 && b.valid < b.rows * b.T);
    expect_near(what, "all", "gradients", 0, sqrt(squares), outcome.grad_norm);
    check_activations(&m, json, what);
    json_free(json);
    free(text);
    free_batch(b);
    model_stats_free(stats);
    model_free(&m);
}

/* On the CPU every level of recomputation; where kernels are emulated, one of them for each model. */
static void test_copies(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int dtype = F32; dtype <= BF16 && test_backend(i); dtype++)
            for (int k = 0; k < ARCHITECTURES; k++)
                for (int r = RECOMPUTE_NONE; r < RECOMPUTE_NEVER; r++)
                    if (test_backend(i)->host_memory || (k + dtype) % RECOMPUTE_NEVER == r)
                        check_copies(test_backend(i), k, (DType)dtype, (Recompute)r);
}

/* Backward, the update and a graph leave what forward has made: after a forward pass alone, with the same weights, the same is measured. */
static void check_forward(const Backend *backend, int architecture, DType dtype, Recompute recompute) {
    Model m;
    create(&m, backend, architecture, dtype, recompute);
    ModelStats *stats = model_stats_create(&m);
    m.config.dropout = 0;
    Batch b = batch_of(m.spec.B, m.spec.T, m.config.V, true, 8);
    for (int64_t s = 0; s < STEPS; s++) step_of(&m, &b, s, 0);
    model_stats_measure(stats);
    char *stepped = text_of(stats);
    model_evaluate(&m, b.tokens, b.targets);
    model_stats_measure(stats);
    char *forward = text_of(stats);
    if (strcmp(stepped, forward) != 0) fail_msg("%s: %s, after a forward pass %s", name_of(&m, architecture), stepped, forward);
    free(stepped);
    free(forward);
    free_batch(b);
    model_stats_free(stats);
    model_free(&m);
}
static void test_forward(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int dtype = F32; dtype <= BF16 && test_backend(i); dtype++)
            for (int k = 0; k < ARCHITECTURES; k++) check_forward(test_backend(i), k, (DType)dtype, (Recompute)((k + dtype) % RECOMPUTE_NEVER));
}

/* A number that is none is null, and spoils no other. */
static void test_not_finite(void **state) {
    (void)state;
    const float bad[2] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        Model m;
        create(&m, backend_find("cpu"), 0, BF16, RECOMPUTE_NONE);
        ModelStats *stats = model_stats_create(&m);
        Batch b = batch_of(ROWS, m.spec.T, m.config.V, false, 9);
        step_of(&m, &b, 0, 1e-3);
        const ParameterInfo *last = &m.table.info[m.table.count - 1];
        ((float *)m.masters.data)[last->offset + 3] = bad[i];
        ((uint16_t *)m.a.out[1].data)[5] = bf16_of_float(bad[i]);
        model_stats_measure(stats);
        char *text = text_of(stats);
        Json *json = parse(text);
        assert_true(isnan(number_at(json, "weights", parameter_keys[last->kind], 0)));
        assert_true(isnan(number_at(json, "activations", "out", 1)));
        int nulls = 0;
        for (const char *at = text; (at = strstr(at, "null")); at++) nulls++;
        assert_int_equal(nulls, 2);
        json_free(json);
        free(text);
        free_batch(b);
        model_stats_free(stats);
        model_free(&m);
    }
}

/* ---- several ranks ---------------------------------------------------------------------------------------------------------------- */

/* What is asked of a run, and what comes of it. */
typedef struct {
    const Backend *backend;
    ModelSpec spec;              /* rank is filled in; B rows of each rank make a micro-batch */
    int ranks;
    bool late, measures;
    char *texts[RANKS][STEPS];
    StepOutcome outcomes[RANKS][STEPS];
    uint32_t crc[RANKS];         /* of the parameters in the end */
} Run;

static Run run_of(const Backend *backend, int architecture, DType dtype, int ranks, bool zero) {
    Run run = {.backend = backend, .spec = spec_of(architectures[architecture], dtype, MODEL_TRAIN, 2 / ranks), .ranks = ranks, .measures = true};
    run.spec.ranks = ranks;
    run.spec.zero = zero;
    return run;
}

static int64_t valid_of(const Batch *b, int64_t rank, int64_t ranks, int64_t B) {
    int64_t valid = 0;
    for (int64_t row = 0; row < b->rows; row++)
        for (int64_t t = 0; t < b->T && row / B % ranks == rank; t++) valid += b->targets[row * b->T + t] >= 0;
    return valid;
}

static int rank_main(int argc, char **argv, Team *team) {
    Run *run = (Run *)argv;
    Model m;
    ModelSpec spec = run->spec;
    const int rank = team_rank(team);
    Comm *comm = run->late ? comm_of_body(&comm_late, team, run->backend) : comm_open(team, run->backend, "auto");
    Batch b = batch_of(ROWS, spec.T, spec.config.V, true, 5);
    const int64_t B = spec.B, micro_steps = ROWS / (run->ranks * B);
    (void)argc;
    spec.rank = rank;
    model_create(&m, &spec, run->backend);
    model_join(&m, comm);
    m.adamw = (AdamW){0.9f, 0.99f, 1e-3f, 0.1f};
    m.use_graphs = true;
    model_init_weights(&m, 0, 1337);
    ModelStats *stats = model_stats_create(&m);
    for (int64_t step = 0; step < STEPS; step++) {
        StepSettings settings = {.step = step, .lr = 1e-2, .max_norm = 0.5, .valid = valid_of(&b, rank, run->ranks, B), .targets = ROWS * b.T,
                                 .micro_steps = micro_steps};
        model_begin_step(&m, &settings);
        for (int64_t g = 0; g < micro_steps; g++) {
            int64_t row = (g * run->ranks + rank) * B;
            model_micro_step(&m, b.tokens + row * b.T, b.targets + row * b.T, row, g);
        }
        model_update(&m);
        run->outcomes[rank][step] = model_outcome(&m, 0);
        if (run->measures) model_stats_measure(stats);
        if (run->measures) run->texts[rank][step] = text_of(stats);
    }
    run->crc[rank] = model_parameters_crc(&m);
    team_barrier(team, "the end of the test");
    model_stats_free(stats);
    model_free(&m);
    comm_close(comm);
    free_batch(b);
    return 0;
}

static void execute(Run *run) {
    if (run->ranks == 1) rank_main(0, (char **)run, NULL);
    else assert_int_equal(loopback_run(run->ranks, 0, (char **)run, rank_main), 0);
}

static void release_run(Run *run) {
    for (int r = 0; r < run->ranks; r++)
        for (int s = 0; s < STEPS; s++) free(run->texts[r][s]);
}

static void expect_alike(const Json *got, const Json *expected, const char *section, double tolerance, const char *what) {
    const Json *a = json_get(got, section), *b = json_get(expected, section);
    assert_int_equal(a->count, b->count);
    double largest = 0;
    for (size_t i = 0; i < b->count; i++)
        for (size_t l = 0; l < b->items[i].count; l++) largest = fmax(largest, b->items[i].items[l].number);
    for (size_t i = 0; i < b->count; i++)
        for (size_t l = 0; l < b->items[i].count; l++) {
            const char *key = b->items[i].key;
            double x = number_at(got, section, key, (int64_t)l), y = number_at(expected, section, key, (int64_t)l);
            if (!(fabs(x - y) <= tolerance * largest) && !(isnan(x) && isnan(y)))
                fail_msg("%s: %s.%s[%d] is %.9g, expected %.9g", what, section, key, (int)l, x, y);
        }
}

/* In fp32 only sums are added in another order: 1e-6 of the largest norm. In bf16 a product of other rows may round to a neighbour, 2^-8 apart.
   The gradients must make the norm that clipping saw. */
static void expect_same_stats(const Run *got, const Run *expected, int step, bool same_rows, const char *what) {
    Json *a = parse(got->texts[0][step]), *b = parse(expected->texts[0][step]);
    const double tolerance = same_rows || got->spec.dtype == F32 ? 1e-6 : 0x1p-8;
    const Json *gradients = json_get(a, "gradients");
    double squares = 0;
    expect_alike(a, b, "weights", tolerance, what);
    expect_alike(a, b, "gradients", tolerance, what);
    expect_alike(a, b, "activations", tolerance, what);
    for (size_t i = 0; i < gradients->count; i++)
        for (size_t l = 0; l < gradients->items[i].count; l++) squares += gradients->items[i].items[l].number * gradients->items[i].items[l].number;
    expect_near(what, "all", "gradients", 0, sqrt(squares), got->outcomes[0][step].grad_norm);
    json_free(a);
    json_free(b);
}

/* To the letter, at every step. */
static void expect_agreement(const Run *run) {
    for (int r = 1; r < run->ranks; r++)
        for (int s = 0; s < STEPS; s++) assert_string_equal(run->texts[r][s], run->texts[0][s]);
}

static void check_ranks(const Backend *backend, int architecture, DType dtype) {
    Run one = run_of(backend, architecture, dtype, 1, false), plain = run_of(backend, architecture, dtype, RANKS, false);
    execute(&one);
    execute(&plain);
    expect_same_stats(&plain, &one, 0, false, "two ranks against one");
    for (int late = 0; late < 2; late++) {
        Run zero = run_of(backend, architecture, dtype, RANKS, true);
        zero.late = late;
        execute(&zero);
        expect_same_stats(&zero, &plain, 0, true, late ? "ZeRO, late" : "ZeRO");
        expect_agreement(&zero);
        release_run(&zero);
    }
    expect_agreement(&plain);
    release_run(&one);
    release_run(&plain);
}
static void test_ranks(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int dtype = F32; dtype <= BF16 && test_backend(i); dtype++)
            for (int k = 0; k < ARCHITECTURES; k++)
                if (test_backend(i)->host_memory || k % 3 == 1) check_ranks(test_backend(i), k, (DType)dtype);
}

/* The same bits of losses, norms and parameters, whether or not every step is measured. */
static void check_no_change(const Backend *backend, int architecture, DType dtype, int ranks, bool zero) {
    Run measured = run_of(backend, architecture, dtype, ranks, zero), plain = measured;
    plain.measures = false;
    execute(&measured);
    execute(&plain);
    for (int r = 0; r < ranks; r++) {
        assert_int_equal(measured.crc[r], plain.crc[r]);
        for (int s = 0; s < STEPS; s++)
            assert_true(measured.outcomes[r][s].loss == plain.outcomes[r][s].loss
                        && measured.outcomes[r][s].grad_norm == plain.outcomes[r][s].grad_norm);
    }
    release_run(&measured);
}
static void test_no_change(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int dtype = F32; dtype <= BF16 && test_backend(i); dtype++)
            for (int ranks = 1; ranks <= RANKS; ranks++)
                for (int zero = 0; zero < ranks; zero++) check_no_change(test_backend(i), ranks + zero, (DType)dtype, ranks, zero);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies), cmocka_unit_test(test_forward), cmocka_unit_test(test_not_finite), cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_no_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
