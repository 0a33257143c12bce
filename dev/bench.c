/* bench: training speed of whole steps (forward, backward, norm, AdamW), set against what this machine can do, measured in the same run.
   On a CPU: the baby GPT, GPT-2 124M and the 17M model of TinyStories in fp32 and bf16, against the rate of the library's matrix product;
   with --profile also every op against its floor.
   On a GPU: the four sizes of GPT-2, the 17M model and one like Llama in bf16, against the card's published peak and against the roofline floor: the
   sum over all ops of a step of the greater of the time to move their bytes and the time to do their arithmetic, by the ops' own cost functions.
   Ops are listed in the order in which tuning could gain most: by their time above their floor, all calls of a step together. */
#include "bench_report.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "bench [SECONDS | --seconds S] [--json FILE] [OPTION ...]: training speed against what this machine can do.\n"
    "  --seconds S      time given to each measurement (6)\n"
    "  --json FILE      append the results, one JSON object a line\n"
    "  OPTION           any option of train_gpt; those that matter: --model NAME (else a list of models), --batch B, --seq-len T,\n"
    "                   --total-batch TOKENS (on a GPU 524288) or --grad-accum G, --device, --dtype, --attention, --deterministic,\n"
    "                   --recompute, --profile (on a GPU always)\n";

/* ---- what is measured ----------------------------------------------------------------------------------------------------------- */

/* Takes --seconds and --json out of the arguments; the rest is train_gpt's. */
static int take_own_arguments(int argc, char **argv, double *seconds, const char **json) {
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        char *end;
        bool wants_seconds = !strcmp(argv[i], "--seconds"), wants_json = !strcmp(argv[i], "--json");
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            exit(0);
        }
        if ((wants_seconds || wants_json) && i + 1 == argc) die("%s needs a value", argv[i]);
        if (wants_json) *json = argv[++i];
        else if (wants_seconds || (i == 1 && argv[1][0] != '-')) {
            i += wants_seconds;
            *seconds = strtod(argv[i], &end);
            if (*end || !(*seconds > 0 && *seconds < 1e6)) die("'%s' is not a number of seconds", argv[i]);
        } else argv[kept++] = argv[i];
    }
    return kept;
}

/* What this program wants where the command line is silent: stronger than a preset. */
static void set_open(Options *o, const char *name, const char *value) {
    char error[ERROR_SIZE];
    if (!options_set(&train_options, o, name, value, FROM_FILE, error)) die("%s", error);
}

/* The largest power of two, at most `most`, whose plan leaves a twentieth of the free memory to the libraries; 0 if not even one row fits. */
static int64_t largest_batch(ModelSpec spec, const Backend *backend, int64_t most) {
    double room = 0.95 * backend->free_memory();
    for (spec.B = 1; spec.B * 2 <= most;) spec.B *= 2;
    while (spec.B > 0 && (double)model_plan(&spec, backend).total > room) spec.B /= 2;
    return spec.B;
}

/* Rows of a micro-batch and micro-batches of a step, on a GPU, where command line and preset leave them open: 524,288 tokens a step, and of
   124M as the design has it 64 rows. */
static void choose_batch(Case *c, const Options *o, const Backend *backend) {
    bool asked = o->from.batch != FROM_DEFAULT;
    int64_t T = c->spec.T, total = o->total_batch ? o->total_batch : 524288;
    if (o->from.grad_accum != FROM_DEFAULT && !o->total_batch) total = 0;
    int64_t most = asked ? o->batch : !strcmp(c->model, "gpt2-124M") ? 64 : total ? total / T : 512;
    c->spec.B = most;
    if (o->from.batch == FROM_COMMAND_LINE) plan_check_memory(&c->spec, backend, false);
    else c->spec.B = largest_batch(c->spec, backend, most);
    if (c->spec.B == 0)
        die("%s does not fit into the %.1f GiB free here; choose a smaller model or --recompute", c->model, backend->free_memory() / 0x1p30);
    if (total && total % (c->spec.B * T) != 0)
        die("%lld tokens a step are not a multiple of batch x seq-len = %lld; use --total-batch or --grad-accum", (long long)total,
            (long long)(c->spec.B * T));
    c->grad_accum = total ? total / (c->spec.B * T) : o->grad_accum;
}

static Case make_case(Options *o, const char *model, DType dtype) {
    char error[ERROR_SIZE];
    Case c;
    memset(&c, 0, sizeof c);
    c.model = model;
    c.options = o;
    if (!config_preset(o, model)) die("--model '%s' is no preset; there is: %s", model, config_preset_names());
    if (!o->vocab_size) set_open(o, "vocab_size", "65");
    if (!config_from_options(&c.spec.config, o, error)) die("%s", error);
    c.spec.dtype = dtype;
    c.spec.mode = MODEL_TRAIN;
    spec_from_options(&c.spec, o);
    c.adamw = adamw_from_options(o);
    c.grad_accum = o->grad_accum;
    c.graphs = o->graphs != 0;
    return c;
}

/* Token k as often as 1/(k+1), as words are in a text; n of them and, one place on, their targets. */
static int32_t *draw_tokens(int64_t n, int64_t V) {
    int32_t *tokens = xmalloc((size_t)(n + 1) * sizeof *tokens);
    uint64_t state = 88172645463325252u;
    for (int64_t i = 0; i <= n; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;   /* Marsaglia's xorshift */
        tokens[i] = (int32_t)pow((double)V, (double)(state >> 11) * 0x1p-53) - 1;
    }
    return tokens;
}

static void run_step(Model *m, const Case *c, const int32_t *tokens, int64_t step) {
    int64_t BT = c->spec.B * c->spec.T;
    StepSettings settings = {.step = step, .lr = 1e-4, .max_norm = 1, .valid = c->grad_accum * BT};
    model_begin_step(m, &settings);
    for (int64_t g = 0; g < c->grad_accum; g++) model_micro_step(m, tokens + g * BT, tokens + g * BT + 1, g * c->spec.B, g);
    model_update(m);
    m->backend->synchronize(m->stream);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The first steps make primitives, touch memory, choose algorithms and capture graphs; they do not count. */
static void time_steps(Result *r, Model *m, const Case *c, const int32_t *tokens, double seconds) {
    static double times[MOST_STEPS];
    int64_t step = 0;
    r->warm_up = m->backend->host_memory ? 1 : 3;
    while (step < r->warm_up) {
        run_step(m, c, tokens, step);
        r->losses[step++] = model_outcome(m, 0).loss;
    }
    double cpu_begin = cpu_seconds();
    for (double begin = machine_seconds(); r->steps < 3 || (r->steps < MOST_STEPS && machine_seconds() - begin < seconds);) {
        double start = machine_seconds();
        run_step(m, c, tokens, step++);
        times[r->steps++] = machine_seconds() - start;
        if (step <= FIRST_LOSSES) r->losses[step - 1] = model_outcome(m, 0).loss;
    }
    r->cpu = (cpu_seconds() - cpu_begin) / r->steps;
    StepOutcome outcome = model_outcome(m, 0);
    if (outcome.skip || !isfinite(outcome.loss))
        die("%s broke: its loss is %f and its gradient's norm %f; the speed of that means nothing", c->model, outcome.loss, outcome.grad_norm);
    qsort(times, (size_t)r->steps, sizeof *times, ascending);
    r->median = times[r->steps / 2];
    r->least = times[0];
    r->most = times[r->steps - 1];
}

/* A graph's ops are not called one by one, so they are timed in a step of their own, launched one by one and each awaited. What that adds is the same
   for every call: from launching to knowing that it is done. It is measured with an op that does nothing (machine_wait_seconds) and taken off again,
   so that an op's time is the device's, as in a graph or behind a queue of launches, where the gap before an op is nothing or a microsecond. Gaps
   between the kernels of one op stay in. The ops' times together, beside those of the steps that count, tell how good all this is. */
static void profile_step(Model *m, const Case *c, const int32_t *tokens, int64_t step) {
    const Backend *plain = m->backend;
    m->backend = backend_timed(plain);
    run_step(m, c, tokens, step);
    m->backend = plain;
}

static double sum_of_floors(const OpTime *ops, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += ops[i].floor;
    return sum;
}

static int by_time_above_floor(const void *a, const void *b) {
    double x = above_floor(a), y = above_floor(b);
    return (x < y) - (x > y);
}

/* From the profiled step, once the rates are known. */
static void settle_ops(Result *r, const Card *card) {
    OpTime ops[BACKEND_OPS];
    if (card && card->tera_bytes_real)
        r->nominal_floor = sum_of_floors(ops, backend_timed_ops(ops, 1e12 * card->tera_bytes_real, 1e12 * card->tera_flops_real));
    r->op_count = backend_timed_ops(ops, r->bandwidth, r->rate);
    r->floor = sum_of_floors(ops, r->op_count);
    for (int i = 0; i < r->op_count; i++) r->ops[i] = (Op){ops[i], fmax(0, ops[i].seconds - (double)ops[i].calls * r->wait)};
    qsort(r->ops, (size_t)r->op_count, sizeof *r->ops, by_time_above_floor);
}

static double memory_taken(const Backend *backend, double free_at_first) {
    return backend->host_memory ? machine_peak_memory() : free_at_first - backend->free_memory();
}

static Result measure(const Case *c, const Backend *backend, bool profile, double seconds) {
    Result r;
    Model m;
    memset(&r, 0, sizeof r);
    double free_at_first = backend->free_memory(), half = seconds / 2;
    r.rate = machine_matmul_rate(backend, c->spec.dtype, half) / 2;
    if (profile) r.bandwidth = machine_bandwidth(backend, half) / 2;
    r.memory_before = memory_taken(backend, free_at_first);
    r.plan = (double)model_plan(&c->spec, backend).total;
    model_create(&m, &c->spec, backend);
    model_init_weights(&m, 0, 1);
    m.adamw = c->adamw;
    m.use_graphs = c->graphs;
    int32_t *tokens = draw_tokens(c->grad_accum * c->spec.B * c->spec.T, c->spec.config.V);
    time_steps(&r, &m, c, tokens, seconds);
    r.memory = memory_taken(backend, free_at_first);
    if (profile) profile_step(&m, c, tokens, r.warm_up + r.steps);
    model_free(&m);
    free(tokens);
    r.rate += machine_matmul_rate(backend, c->spec.dtype, half) / 2;
    if (!profile) return r;
    r.bandwidth += machine_bandwidth(backend, half) / 2;
    r.wait = machine_wait_seconds(backend);
    settle_ops(&r, machine_card(backend));
    return r;
}

/* ---- the cases ---------------------------------------------------------------------------------------------------------------------- */

/* Rows and tokens a row where the command line is silent. */
static const struct { const char *model, *batch, *seq_len; } cpu_shapes[] = {
    {"baby", "64", "128"}, {"tinystories-17M", "8", "256"}, {NULL, "4", "64"},
};

/* Each in a process of its own, so that its peak memory is its own. */
static void bench_cpu(Options *o, const char *model, const Backend *backend, double seconds, const char *json) {
    int shape = 0;
    while (cpu_shapes[shape].model && strcmp(cpu_shapes[shape].model, model)) shape++;
    if (o->from.batch == FROM_DEFAULT) set_open(o, "batch", cpu_shapes[shape].batch);
    if (o->from.seq_len == FROM_DEFAULT) set_open(o, "seq_len", cpu_shapes[shape].seq_len);
    if (o->from.grad_accum == FROM_DEFAULT) set_open(o, "grad_accum", "1");
    for (int d = F32; d <= BF16; d++) {
        if (o->dtype && (o->dtype == 2) != (d == BF16)) continue;
        if (d == BF16 && !backend->supports_bf16()) {
            printf("%-15s bf16: not on this CPU\n", model);
            continue;
        }
        Case c = make_case(o, model, (DType)d);
        fflush(stdout);
        pid_t child = fork();
        int status = 1;
        if (child == 0) {
            Result r = measure(&c, backend, o->profile, seconds);
            print_cpu(&c, &r);
            if (o->profile) print_ops(&r);
            if (json) append_json(json, &c, &r, backend, NULL);
            fflush(stdout);
            _exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) die("the measurement of %s did not finish", model);
    }
}

/* All in this process: a GPU that a process has opened is of no use to its children. */
static void bench_gpu(Options *o, const char *model, const Backend *backend, double seconds, const char *json) {
    const Card *card = machine_card(backend);
    Case c = make_case(o, model, o->dtype == 1 ? F32 : BF16);
    if (c.spec.dtype == BF16 && !backend->supports_bf16()) die("this GPU has no bf16 matrix products; use --dtype fp32");
    choose_batch(&c, o, backend);
    Result r = measure(&c, backend, true, seconds);
    print_gpu(&c, &r, backend, card);
    if (json) append_json(json, &c, &r, backend, card);
}

int main(int argc, char **argv) {
    static const char *const cpu_models[] = {"baby", "gpt2-124M", "tinystories-17M", NULL};
    static const char *const gpu_models[] = {"gpt2-124M", "gpt2-350M", "gpt2-774M", "gpt2-1558M", "tinystories-17M", "llama-350M", NULL};
    double seconds = 6;
    const char *json = NULL;
    Options o;
    machine_share_cores(argv);
    error_program_name("bench");
    argc = take_own_arguments(argc, argv, &seconds, &json);
    options_parse(&train_options, &o, argc, argv);
    const Backend *backend = backend_find(o.device);
    if (!backend) die("--device '%s' is not in this build or machine; there is: %s", o.device, backend_names());
    bool cpu = strcmp(backend->name, "cpu") == 0;
    BackendSettings settings = settings_from_options(&o);
    backend->configure(&settings);
    if (!cpu) printf("%s\n", backend->describe());
    const char *const asked[] = {o.model, NULL};
    const char *const *models = o.from.model == FROM_COMMAND_LINE ? asked : cpu ? cpu_models : gpu_models;
    for (; *models; models++) {
        Options of_model;
        options_parse(&train_options, &of_model, argc, argv);
        (cpu ? bench_cpu : bench_gpu)(&of_model, *models, backend, seconds, json);
        options_release(&train_options, &of_model);
    }
    options_release(&train_options, &o);
    return 0;
}
