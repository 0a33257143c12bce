/* model_ranks_test.c: several ranks against one, as threads of this process: gradients, losses and weights are those of one rank that does all the
   micro-steps; with ZeRO and without they have the same bits; every rank ends each step with the same parameters, and a run goes on from a snapshot
   on any number of ranks. */
#include "comm_late_test.h"
#include "model_ranks.h"
#include "model_test.h"
#include "snapshot.h"
#include "weights.h"

#include <unistd.h>

enum { ROWS = 12, STEPS = 3, RANKS = 4, NOBODY = -1 };

/* Weights and moments, tensor by tensor without padding, which depends on the ranks. */
typedef struct { float *values[3]; int64_t n; } State;

/* What is asked of a run, and what comes of it. */
typedef struct {
    const Backend *backend;
    ModelSpec spec;                  /* rank is filled in */
    int ranks;
    double lr, max_norm, spike_norm;
    int64_t first, last;             /* steps first ... last - 1 */
    bool late, graphs;
    bool count_valid;                /* one rank says how many targets it has, not how many there could be */
    const char *load, *save;         /* weights and moments in a file, before and after */
    uint32_t updates;                /* in the file */
    int bad_rank;                    /* whose weights hold a NaN in step 1 */
    unsigned votes;                  /* bit r: rank r votes in step 1 */

    StepOutcome outcomes[RANKS][STEPS];
    uint32_t crc[RANKS][STEPS], updates_after[RANKS];
    double evaluation[RANKS];        /* of the first rows, after the last step */
    float *gradients;                /* summed, of the first step, laid out as the table of the spec says */
    State state;
} Run;

static Run run_of(const Backend *backend, const char *settings, DType dtype, int ranks, bool zero) {
    Run run = {.backend = backend, .spec = spec_of(settings, dtype, MODEL_TRAIN, 1), .ranks = ranks, .last = STEPS, .bad_rank = NOBODY};
    const bool sgd = run.spec.optimizer == OPTIMIZER_SGD;   /* in the model without norms, whose gradient is small */
    run.max_norm = sgd ? 0.02 : 0.5;
    run.lr = sgd ? 5 : 1e-3;
    run.spec.ranks = ranks;
    run.spec.zero = zero;
    return run;
}

static State state_of(const Snapshot *s) {
    const float *flats[3] = {s->weights, s->m, s->v};
    State state = {{NULL}, 0};
    for (int k = 0; k < 3; k++) {
        if (!flats[k]) continue;
        state.values[k] = malloc((size_t)s->table->elements * sizeof(float));
        state.n = 0;
        for (int i = 0; i < s->table->count; i++) {
            const ParameterInfo *p = &s->table->info[i];
            memcpy(state.values[k] + state.n, flats[k] + p->offset, (size_t)p->count * sizeof(float));
            state.n += p->count;
        }
    }
    return state;
}

static void release_run(Run *run) {
    for (int k = 0; k < 3; k++) free(run->state.values[k]);
    free(run->gradients);
}

/* ---- the work of a rank ------------------------------------------------------------------------------------------------------- */

static const char *const prefixes[3] = {"weight.", "m.", "v."};

static void save(const Run *run, const Snapshot *s) {
    const float *flats[3] = {s->weights, s->m, s->v};
    char error[ERROR_SIZE];
    uint32_t crc;
    SafetensorsWriter *w = safetensors_create(run->save);
    for (int k = 0; k < 3; k++)
        if (flats[k]) parameters_declare(w, s->table, k ? moment_prefixes[k - 1] : prefixes[0]);
    safetensors_begin(w);
    for (int k = 0; k < 3; k++)
        if (flats[k]) parameters_write(w, s->table, flats[k]);
    if (!safetensors_finish(w, &crc, error)) die("%s", error);
}

static void begin(Model *m, const Run *run) {
    char error[ERROR_SIZE];
    m->adamw = (AdamW){0.9f, 0.99f, 1e-3f, 0.1f};
    m->use_graphs = run->graphs;
    model_init_weights(m, 0, 1337);
    if (!run->load) return;
    if (!model_read_weights(m, run->load, prefixes[0], error) || !model_read_optimizer(m, run->load, error)) die("%s", error);
    model_set_updates(m, run->updates);
}

/* Exchanges the first weight of layer 0's queries, where every row passes, with *bits. */
static void swap_weight(Model *m, uint32_t *bits) {
    uint32_t found = 0;
    size_t bytes = dtype_size(m->spec.dtype);
    ranks_need_all(m);
    m->backend->download(&found, m->p.qkvw[0].data, bytes, m->stream);
    m->backend->upload(m->p.qkvw[0].data, bits, bytes, m->stream);
    *bits = found;
}

static void micro_steps(Model *m, const Batch *b, const Run *run, int64_t step) {
    int64_t each = ROWS / run->ranks, rank = m->spec.rank, T = b->T, valid = 0;
    for (int64_t g = 0; g < each; g++)
        for (int64_t t = 0; t < T; t++) valid += b->targets[(g * run->ranks + rank) * T + t] >= 0;
    StepSettings settings = {.step = step, .lr = run->lr, .max_norm = run->max_norm, .valid = valid, .targets = run->count_valid ? 0 : ROWS * T,
                             .micro_steps = each, .spike_norm = step == 1 ? run->spike_norm : 0};
    model_begin_step(m, &settings);
    m->vote = step == 1 && (run->votes >> rank & 1);
    for (int64_t g = 0; g < each; g++) {
        int64_t row = g * run->ranks + rank;
        model_micro_step(m, b->tokens + row * T, b->targets + row * T, row, g);
    }
}

static int rank_main(int argc, char **argv, Team *team) {
    Run *run = (Run *)argv;
    Model m;
    ModelSpec spec = run->spec;
    Snapshot snapshot = {0};
    int rank = team_rank(team);
    Comm *comm = run->late && team ? comm_of_body(&comm_late, team, run->backend) : comm_open(team, run->backend, "auto");
    Batch b = batch_of(ROWS, spec.T, spec.config.V, true, 5);
    (void)argc;
    spec.rank = rank;
    model_create(&m, &spec, run->backend);
    model_join(&m, comm);
    begin(&m, run);
    for (int64_t step = run->first; step < run->last; step++) {
        uint32_t bits = spec.dtype == F32 ? 0x7FC00000 : 0x7FC0;
        const bool bad = step == 1 && rank == run->bad_rank;
        if (bad) swap_weight(&m, &bits);
        micro_steps(&m, &b, run, step);
        if (bad) swap_weight(&m, &bits);
        model_update(&m);
        if (step == run->first)
            for (int i = 0; i < m.together->share_count; i++) {
                const Share *share = &m.together->shares[i];
                Tensor part = share_of(&m, m.gradients, share);
                run->backend->download(run->gradients + share->offset, part.data, tensor_bytes(part), m.stream);
            }
        if (step % 2 == 0) run->crc[rank][step] = model_parameters_crc(&m);   /* in the others the next forward pass is the first to wait */
        run->outcomes[rank][step] = model_outcome(&m, 0);
    }
    run->evaluation[rank] = model_evaluate(&m, b.tokens, b.targets);
    run->updates_after[rank] = model_updates(&m);
    model_snapshot(&m, &snapshot, true, false);
    if (rank == 0) run->state = state_of(&snapshot);
    if (rank == 0 && run->save) save(run, &snapshot);
    snapshot_release(&snapshot);
    team_barrier(team, "the end of the test");
    model_free(&m);
    comm_close(comm);
    free_batch(b);
    return 0;
}

static void expect_alike(const Run *run, const char *what) {
    for (int r = 1; r < run->ranks; r++)
        for (int64_t s = run->first; s < run->last; s++) {
            const StepOutcome *a = &run->outcomes[0][s], *b = &run->outcomes[r][s];
            bool same = memcmp(&a->loss, &b->loss, sizeof a->loss) == 0 && memcmp(&a->grad_norm, &b->grad_norm, sizeof a->loss) == 0;
            if (!same || a->skip != b->skip || a->votes != b->votes || run->crc[0][s] != run->crc[r][s])
                fail_msg("%s: step %d differs on rank %d: loss %g, %g, crc %x, %x", what, (int)s, r, a->loss, b->loss, run->crc[0][s],
                         run->crc[r][s]);
            assert_int_equal(run->updates_after[0], run->updates_after[r]);
        }
}

/* Runs it on its ranks, which must agree in everything. */
static void execute(Run *run, const char *what) {
    ParameterTable table;
    model_table(&table, &run->spec);
    run->gradients = calloc((size_t)table.elements, sizeof(float));
    parameters_release(&table);
    if (run->ranks == 1) rank_main(0, (char **)run, NULL);
    else assert_int_equal(loopback_run(run->ranks, 0, (char **)run, rank_main), 0);
    expect_alike(run, what);
}

/* ---- comparing ------------------------------------------------------------------------------------------------------------------ */

/* Of gradients that may be laid out with different padding. */
static double gradient_difference(const Run *a, const Run *b) {
    ParameterTable x, y;
    double d = 0, n = 0;
    model_table(&x, &a->spec);
    model_table(&y, &b->spec);
    for (int i = 0; i < x.count; i++)
        for (int64_t k = 0; k < x.info[i].count; k++) {
            double u = a->gradients[x.info[i].offset + k], v = b->gradients[y.info[i].offset + k];
            d += (u - v) * (u - v);
            n += v * v;
        }
    parameters_release(&x);
    parameters_release(&y);
    return sqrt(d) / sqrt(n);
}

static void expect_same_state(const Run *a, const Run *b, const char *what) {
    assert_int_equal(a->state.n, b->state.n);
    for (int k = 0; k < 3; k++)
        if (a->state.values[k] && memcmp(a->state.values[k], b->state.values[k], (size_t)a->state.n * sizeof(float)) != 0)
            fail_msg("%s: %s have other bits; they differ by %g", what, prefixes[k],
                     difference(a->state.values[k], b->state.values[k], a->state.n));
    assert_true(a->evaluation[0] == b->evaluation[0]);
}

static void expect_same_bits(const Run *a, const Run *b, const char *what) {
    for (int s = 0; s < STEPS; s++)
        if (a->outcomes[0][s].loss != b->outcomes[0][s].loss)
            fail_msg("%s: step %d: loss %g, %g", what, s, a->outcomes[0][s].loss, b->outcomes[0][s].loss);
    expect_same_state(a, b, what);
}

/* In fp32 all that differs is the order of sums, of which each term has the same bits: 1e-6. A step turns a gradient that is off by so much of a
   norm of at most 1/2 into weights that are off by lr/eps = 1 times that (SGD: by lr, of at most 1/50), and the weights' norm is above 1. In bf16 the
   first step is as good; then masters that differ in the last bit may round to neighbours, 2^-8 apart. */
static void expect_equal_sums(const Run *a, const Run *reference, const char *what) {
    const bool fp32 = a->spec.dtype == F32;
    for (int s = 0; s < STEPS; s++) {
        const StepOutcome *got = &a->outcomes[0][s], *expected = &reference->outcomes[0][s];
        const bool exact = fp32 || s == 0;
        if (!(fabs(got->loss / expected->loss - 1) <= (exact ? 1e-6 : 0x1p-8)))
            fail_msg("%s: step %d: loss %.9g, expected %.9g", what, s, got->loss, expected->loss);
        if (exact && !(fabs(got->grad_norm / expected->grad_norm - 1) <= 1e-6))
            fail_msg("%s: step %d: norm %.9g, expected %.9g", what, s, got->grad_norm, expected->grad_norm);
    }
    double apart = difference(a->state.values[0], reference->state.values[0], a->state.n);
    if (!(apart <= (fp32 ? STEPS * 1e-6 : 1e-3))) fail_msg("%s: weights differ by %g", what, apart);
    double evaluated = a->evaluation[0] / reference->evaluation[0];
    if (!(fabs(evaluated - 1) <= (fp32 ? STEPS * 1e-6 : 0x1p-8))) fail_msg("%s: evaluation is %g times that expected", what, evaluated);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------------- */

/* Between them: both norms, before and after, and none; tied and not; every way to know positions; shared key/value heads, SwiGLU, QK-norm;
   sizes that 64 does not divide, and 97 tokens. */
static const char *const architectures[] = {
    "pos=learned\ndropout=0.1\nmax_seq_len=24\n",
    "pos=rope\ntie=0\nn_kv_head=2\nactivation=swiglu\nn_hidden=40\nnorm=rmsnorm\nbias=0\n",
    "pos=learned\nnorm_place=post\ntie=0\ndropout=0.1\nvocab_size=97\n",
    "pos=rope\nn_head=3\nn_embd=36\nqk_norm=1\nnorm=rmsnorm\nnorm_place=post\nvocab_size=131\n",
    "pos=none\nnorm=none\noptimizer=sgd\ndropout=0.1\n",
};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

static const char *name_of(const Run *run, int architecture) {
    static char name[240];
    snprintf(name, sizeof name, "%s, %s, %d ranks%s, %s", run->backend->name, dtype_names[run->spec.dtype], run->ranks,
             run->spec.zero ? ", ZeRO" : "", architectures[architecture]);
    return name;
}

static void check_against_one(const Backend *backend, int architecture, DType dtype, int fewest, int most) {
    Run one = run_of(backend, architectures[architecture], dtype, 1, false), counted = one;
    counted.count_valid = true;
    execute(&one, "one");
    execute(&counted, "one");
    if (dtype == F32) expect_equal_sums(&counted, &one, "a step that knows how many targets are valid");
    const StepOutcome *first = &one.outcomes[0][0], *third = &one.outcomes[0][2];
    if (!(first->grad_norm > one.max_norm && third->loss < first->loss))
        fail_msg("%s: norm %g, loss %g, then %g", architectures[architecture], first->grad_norm, first->loss, third->loss);
    for (int ranks = fewest; ranks <= most; ranks++)
        for (int zero = 0; zero < 2; zero++) {
            Run run = run_of(backend, architectures[architecture], dtype, ranks, zero);
            const char *what = name_of(&run, architecture);
            run.spec.recompute = dtype == F32 ? (Recompute)(ranks % RECOMPUTE_NEVER) : RECOMPUTE_BLOCK;   /* those that change no bit */
            execute(&run, what);
            expect_equal_sums(&run, &one, what);
            Run late = run;
            late.late = true;
            execute(&late, what);
            expect_same_bits(&late, &run, what);
            assert_true(gradient_difference(&late, &run) == 0);
            release_run(&late);
            double apart = gradient_difference(&run, &one);
            if (!(apart <= 1e-6)) fail_msg("%s: gradients differ by %g", what, apart);
            release_run(&run);
        }
    release_run(&one);
    release_run(&counted);
}

static void test_as_one_rank(void **state) {
    (void)state;
    for (int k = 0; k < ARCHITECTURES; k++) check_against_one(backend_find("cpu"), k, F32, 2, RANKS);
    for (int k = 0; k < ARCHITECTURES; k++) check_against_one(backend_find("cpu"), k, BF16, 3, 3);
    for (int i = 0; i < TEST_BACKENDS; i++) {
        const Backend *b = test_backend(i);
        if (!b || b->host_memory) continue;
        check_against_one(b, 1, F32, 3, 3);
        check_against_one(b, 2, BF16, 2, 2);
    }
}

/* The ranks' gradients are added in the same order either way, and without clipping nothing else mixes elements. With clipping the squares are
   added in another order, in double: a norm that may round to the neighbouring float. */
static void check_zero(const Backend *backend, int architecture, DType dtype, int ranks, double max_norm) {
    const char *settings = architectures[architecture];
    Run plain = run_of(backend, settings, dtype, ranks, false), zero = run_of(backend, settings, dtype, ranks, true);
    plain.max_norm = zero.max_norm = max_norm;
    execute(&plain, "without ZeRO");
    execute(&zero, name_of(&zero, architecture));
    if (max_norm == 0) expect_same_bits(&zero, &plain, name_of(&zero, architecture));
    else expect_equal_sums(&zero, &plain, name_of(&zero, architecture));
    assert_true(gradient_difference(&zero, &plain) == 0);
    release_run(&plain);
    release_run(&zero);
}

static void test_zero(void **state) {
    (void)state;
    for (int k = 0; k < ARCHITECTURES; k++)
        for (int dtype = F32; dtype <= BF16; dtype++)
            for (int clip = 0; clip < 2; clip++) check_zero(backend_find("cpu"), k, (DType)dtype, 2 + k % 3, 0.5 * clip);
    for (int i = 0; i < TEST_BACKENDS; i++)
        if (test_backend(i) && !test_backend(i)->host_memory) check_zero(test_backend(i), 3, BF16, 3, 0);
}

/* The same bits on a second run, and with steps captured and replayed, where there are graphs. */
static void test_again(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int zero = 0; zero < 2; zero++) {
            const Backend *backend = test_backend(i);
            if (!backend) continue;
            Run first = run_of(backend, architectures[0], BF16, 2, zero), second = first;
            second.graphs = true;
            execute(&first, name_of(&first, 0));
            execute(&second, name_of(&second, 0));
            expect_same_bits(&second, &first, name_of(&second, 0));
            release_run(&first);
            release_run(&second);
        }
}

/* Two steps on so many ranks, one more after the file on others: what arrives is what was saved, and on as many ranks nothing shows that training
   ever stopped. */
static void check_resume(const Backend *backend, int architecture, DType dtype, int before, int after, bool zero_before, bool zero_after) {
    char *path = path_join(directory, "optimizer.safetensors");
    Run whole = run_of(backend, architectures[architecture], dtype, before, zero_before), until = whole;
    Run loaded = run_of(backend, architectures[architecture], dtype, after, zero_after), rest = loaded;
    const char *what = name_of(&rest, architecture);
    whole.max_norm = until.max_norm = rest.max_norm = 0;
    until.last = loaded.first = loaded.last = rest.first = STEPS - 1;
    until.save = loaded.load = rest.load = path;
    loaded.updates = rest.updates = STEPS - 1;
    execute(&whole, what);
    execute(&until, what);
    execute(&loaded, what);
    execute(&rest, what);
    expect_same_state(&loaded, &until, what);
    if (before == after) expect_same_state(&rest, &whole, what);
    double apart = difference(rest.state.values[0], whole.state.values[0], whole.state.n);
    if (!(apart <= (dtype == F32 ? 1e-6 : 1e-3))) fail_msg("%s: weights differ by %g after a step on other ranks", what, apart);
    assert_true(rest.updates_after[0] == STEPS);
    free(path);
    Run *runs[] = {&whole, &until, &loaded, &rest};
    for (int i = 0; i < 4; i++) release_run(runs[i]);
}

static void test_resume(void **state) {
    (void)state;
    const int places[][4] = {{2, 2, 1, 1}, {3, 3, 0, 1}, {4, 1, 1, 0}, {4, 2, 1, 1}, {1, 3, 0, 1}, {2, 4, 0, 0}, {3, 1, 1, 1}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (int dtype = F32; dtype <= BF16; dtype++)
            check_resume(backend_find("cpu"), (int)i % ARCHITECTURES, (DType)dtype, places[i][0], places[i][1], places[i][2], places[i][3]);
    for (int i = 0; i < TEST_BACKENDS; i++)
        if (test_backend(i) && !test_backend(i)->host_memory) check_resume(test_backend(i), 1, BF16, 2, 3, true, true);
}

/* A NaN in one rank's weights: all leave the update out and go on, and the sum of the losses tells whose it was. */
static void check_bad_rank(const Backend *backend, DType dtype, bool zero) {
    Run run = run_of(backend, architectures[1], dtype, 3, zero);
    run.bad_rank = 1;
    execute(&run, "a NaN on rank 1");
    for (int r = 0; r < 3; r++) {
        for (int s = 0; s < STEPS; s++) assert_int_equal(run.outcomes[r][s].skip, s == 1 ? SKIP_NOT_FINITE : SKIP_NOTHING);
        assert_true(isfinite(run.outcomes[r][1].own_loss) == (r != 1));
        assert_false(isfinite(run.outcomes[r][1].loss));
        assert_true(isfinite(run.evaluation[r]) && isfinite(run.outcomes[r][2].loss));
        assert_int_equal(run.updates_after[r], STEPS - 1);
    }
    release_run(&run);
}
static void test_bad_rank(void **state) {
    (void)state;
    for (int dtype = F32; dtype <= BF16; dtype++)
        for (int zero = 0; zero < 2; zero++) check_bad_rank(backend_find("cpu"), (DType)dtype, zero);
}

/* A norm above the threshold is a spike on every rank; votes are counted, in the step in which they were given. The sums of the losses add up. */
static void test_spikes_and_votes(void **state) {
    (void)state;
    for (int zero = 0; zero < 2; zero++) {
        Run run = run_of(backend_find("cpu"), architectures[0], F32, 4, zero);
        run.spike_norm = 1e-6;
        run.votes = 0xA;
        execute(&run, "a spike");
        for (int s = 0; s < STEPS; s++) {
            double losses = 0;
            for (int r = 0; r < 4; r++) losses += run.outcomes[r][s].own_loss;
            Batch b = batch_of(ROWS, run.spec.T, run.spec.config.V, true, 5);
            assert_true(fabs(losses / (double)b.valid / run.outcomes[0][s].loss - 1) <= 1e-6);
            assert_int_equal(run.outcomes[0][s].skip, s == 1 ? SKIP_SPIKE : SKIP_NOTHING);
            assert_int_equal(run.outcomes[3][s].votes, s == 1 ? 2 : 0);
            free_batch(b);
        }
        assert_int_equal(run.updates_after[2], STEPS - 1);
        release_run(&run);
    }
}

/* ---- shares --------------------------------------------------------------------------------------------------------------------- */

/* Every element of the buffers is in one share of one rank, decayed there if its parameter is; a rank keeps as much as the plan says. */
static void check_shares(const char *settings, int ranks) {
    ModelSpec spec = spec_of(settings, BF16, MODEL_TRAIN, 1);
    spec.ranks = ranks;
    spec.zero = true;
    ParameterTable table;
    model_table(&table, &spec);
    char *decayed = malloc((size_t)table.elements);   /* 0, 1, or 2: in no share yet */
    memset(decayed, 2, (size_t)table.elements);
    for (int rank = 0; rank < ranks; rank++) {
        Model m = {.spec = spec, .config = spec.config, .table = table};
        int64_t kept = 0;
        m.spec.rank = rank;
        ranks_open(&m);
        for (int i = 0; i < m.together->share_count; i++) {
            const Share *share = &m.together->shares[i];
            const int64_t *bound = m.together->segments + share->first_segment;
            assert_true(share->offset % 64 == 0 && share->kept % 64 == 0 && share->count % 128 == 0);
            assert_true(bound[0] == 0 && bound[share->segments - 1] == share->count);
            for (int64_t p = 0; p + 1 < share->segments; p++)
                for (int64_t k = bound[p]; k < bound[p + 1]; k++) {
                    assert_int_equal(decayed[share->offset + k], 2);
                    decayed[share->offset + k] = p % 2 == 0;
                }
            kept += share->count;
        }
        assert_int_equal(kept * ranks, table.elements);
        MemoryPlan plan = model_plan(&m.spec, backend_find("cpu"));
        assert_int_equal(plan.bytes[ARENA_MOMENTS], spec.optimizer == OPTIMIZER_SGD ? 0 : 8 * kept);
        assert_int_equal(plan.bytes[ARENA_MASTERS], 4 * kept);
        ranks_close(&m);
    }
    for (int i = 0; i < table.count; i++)
        for (int64_t k = 0; k < table.info[i].count; k++) assert_int_equal(decayed[table.info[i].offset + k], table.info[i].decay);
    assert_null(memchr(decayed, 2, (size_t)table.elements));
    free(decayed);
    parameters_release(&table);
}
static void test_shares(void **state) {
    (void)state;
    for (int k = 0; k < ARCHITECTURES; k++)
        for (int ranks = 1; ranks <= 7; ranks++) check_shares(architectures[k], ranks);
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------------------ */

/* A copy stays what it was while training goes on, and the next one takes its memory; what is no copy is the model's own where the host reaches that.
   The parameters' checksum tells one bit. */
static void check_snapshot(const Backend *backend, DType dtype) {
    Model m;
    Batch b = batch_of(2, 16, 65, false, 1);
    ModelSpec spec = spec_of("tie=0\n", dtype, MODEL_TRAIN, 2);
    Snapshot first = {0}, second = {0}, own = {0};
    create_on(backend, &m, &spec);
    train(&m, &b, 0, 1, 1e-2);
    size_t bytes = (size_t)m.table.elements * sizeof(float);
    assert_int_equal(snapshot_bytes(&spec), 3 * bytes);
    model_snapshot(&m, &first, true, true);
    model_snapshot(&m, &second, true, true);
    const float *memory = first.weights;
    train(&m, &b, 1, 1, 1e-2);
    assert_true(first.updates == 1 && first.owned && memcmp(first.weights, second.weights, bytes) == 0 && memcmp(first.v, second.v, bytes) == 0);
    model_snapshot(&m, &first, true, true);
    model_snapshot(&m, &own, true, false);
    assert_true(first.updates == 2 && first.weights == memory && memcmp(first.weights, second.weights, bytes) != 0);
    assert_true(memcmp(first.weights, own.weights, bytes) == 0 && memcmp(first.m, own.m, bytes) == 0 && memcmp(first.v, own.v, bytes) == 0);
    assert_true((own.weights == m.masters.data) == backend->host_memory && own.owned == !backend->host_memory);
    model_snapshot(&m, &first, false, true);
    assert_true(first.weights && !first.m && !first.v);
    uint32_t crc = model_parameters_crc(&m), one = 1;
    backend->upload((char *)m.parameters.data + tensor_bytes(m.parameters) - 4, &one, 4, m.stream);
    assert_true(model_parameters_crc(&m) != crc);
    snapshot_release(&first);
    snapshot_release(&second);
    snapshot_release(&own);
    free_batch(b);
    model_free(&m);
}
static void test_snapshot(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int dtype = F32; dtype <= BF16 && test_backend(i); dtype++) check_snapshot(test_backend(i), (DType)dtype);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares), cmocka_unit_test(test_as_one_rank), cmocka_unit_test(test_zero), cmocka_unit_test(test_again),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_bad_rank), cmocka_unit_test(test_snapshot), cmocka_unit_test(test_spikes_and_votes),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
