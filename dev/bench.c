/* bench: training speed of whole steps (forward, backward, norm, AdamW), set against what this machine can do, measured in the same run.
   On a CPU: the baby GPT, GPT-2 124M and the 17M model of TinyStories in fp32 and bf16, against the rate of the library's matrix product;
   with --profile also every op against its floor.
   On a GPU: the four sizes of GPT-2 and the 17M model in bf16, against the card's published peak and against the roofline floor: the sum over
   all ops of a step of the greater of the time to move their bytes and the time to do their arithmetic, by the ops' own cost functions. */
#include "llmc/error.h"
#include "llmc/json.h"
#include "llmc/logger.h"
#include "llmc/machine.h"
#include "llmc/model.h"
#include "llmc/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

typedef struct {
    const char *model;
    ModelSpec spec;
    AdamW adamw;
    int64_t grad_accum;
    bool graphs;
} Case;

enum { MOST_STEPS = 1000, FIRST_LOSSES = 3 };

typedef struct {
    int warm_up, steps;
    double median, least, most;                /* seconds of a step */
    double cpu;                                /* seconds of a step on all cores together, the mean */
    double losses[FIRST_LOSSES];               /* of the first steps, those to warm up included */
    double bandwidth, rate;                    /* bytes/s, FLOP/s: measured here, before and after */
    double wait;                               /* seconds of launching and awaiting an op that does nothing */
    double plan, memory, memory_before;        /* bytes: as planned; taken at most; of them taken before the model was made */
    OpTime ops[BACKEND_OPS];                   /* of one step more, every op awaited */
    int op_count;
    double floor, nominal_floor;               /* seconds of a step, at the rates measured, and at those that the design assumes (or 0) */
} Result;

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
    c->spec.B = asked ? most : largest_batch(c->spec, backend, most);
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

static double sum_of_floors(Result *r, double bytes_per_second, double flops_per_second) {
    double sum = 0;
    r->op_count = backend_timed_ops(r->ops, bytes_per_second, flops_per_second);
    for (int i = 0; i < r->op_count; i++) sum += r->ops[i].floor;
    return sum;
}

static void profile_step(Model *m, const Case *c, const int32_t *tokens, int64_t step) {
    const Backend *plain = m->backend;
    m->backend = backend_timed(plain);
    run_step(m, c, tokens, step);
    m->backend = plain;
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
    const Card *card = machine_card(backend);
    if (card && card->tera_bytes_real) r.nominal_floor = sum_of_floors(&r, 1e12 * card->tera_bytes_real, 1e12 * card->tera_flops_real);
    r.floor = sum_of_floors(&r, r.bandwidth, r.rate);
    return r;
}

/* ---- what is said ----------------------------------------------------------------------------------------------------------------- */

static double tokens_per_step(const Case *c) { return (double)(c->grad_accum * c->spec.B * c->spec.T); }

/* FLOP/s of attention by what it must do: 4 B NH T^2 HS / 2 forward and 2.5 times that backward, which is its cost function. NULL: of both. */
static double attention_rate(const Result *r, const char *which) {
    double flops = 0, seconds = 0;
    for (int i = 0; i < r->op_count; i++) {
        const OpTime *op = &r->ops[i];
        bool forward = !strcmp(op->name, "attention_forward"), backward = !strcmp(op->name, "attention_backward");
        if (which ? strcmp(op->name, which) != 0 : !(forward || backward)) continue;
        flops += op->flops;
        seconds += op->seconds;
    }
    return seconds > 0 ? flops / seconds : 0;
}

static void print_cpu(const Case *c, const Result *r) {
    char speed[32], planned[32], taken[32], flops_text[32];
    double tokens = tokens_per_step(c) / r->median, flops = config_flops_per_token(&c->spec.config, c->spec.T);
    format_count(speed, tokens);
    format_bytes(planned, r->plan);
    format_bytes(taken, r->memory);
    format_count(flops_text, flops);
    printf("%-15s B=%-3lld T=%-4lld %s | %8s tok/s | %11s FLOP/token | ceiling %6.1f GFLOP/s | share %5.1f%% | plan %s, peak %s (%.1f MiB before the model)\n",
           c->model, (long long)c->spec.B, (long long)c->spec.T, c->spec.dtype == BF16 ? "bf16" : "fp32", speed, flops_text, r->rate / 1e9,
           100 * tokens * flops / r->rate, planned, taken, r->memory_before / 1048576.0);
}

static void print_gpu(const Case *c, const Result *r, const Card *card) {
    char speed[32], total[32], planned[32], taken[32];
    double tokens = tokens_per_step(c) / r->median, flops = tokens * config_flops_per_token(&c->spec.config, c->spec.T);
    format_count(speed, tokens);
    format_count(total, tokens_per_step(c));
    format_bytes(planned, r->plan);
    format_bytes(taken, r->memory);
    printf("\n%s, %s, B=%lld T=%lld x %lld = %s tokens a step\n", c->model, c->spec.dtype == BF16 ? "bf16" : "fp32", (long long)c->spec.B,
           (long long)c->spec.T, (long long)c->grad_accum, total);
    printf("  speed      %s tok/s: %.1f ms a step, the median of %d (%.1f to %.1f) after %d to warm up\n", speed, 1e3 * r->median, r->steps,
           1e3 * r->least, 1e3 * r->most, r->warm_up);
    printf("  MFU        ");
    if (card && c->spec.dtype == BF16)
        printf("%.1f%% of the published %.1f TFLOP/s (%s); ", 100 * flops / (1e12 * card->tera_flops), card->tera_flops, card->name);
    else printf("no published peak is known for this card and dtype; ");
    printf("%.1f%% of the %.1f TFLOP/s measured here\n", 100 * flops / r->rate, r->rate / 1e12);
    printf("  roofline   %.1f%%: at the least %.1f ms a step, at %.2f TB/s and %.1f TFLOP/s measured here", 100 * r->floor / r->median,
           1e3 * r->floor, r->bandwidth / 1e12, r->rate / 1e12);
    if (r->nominal_floor)
        printf("; %.1f%%: %.1f ms, at %.2f TB/s and %.1f TFLOP/s", 100 * r->nominal_floor / r->median, 1e3 * r->nominal_floor, card->tera_bytes_real,
               card->tera_flops_real);
    printf("\n  memory     %s, by plan %s\n", taken, planned);
    printf("  attention  forward %.1f TFLOP/s, backward %.1f, both %.1f\n", attention_rate(r, "attention_forward") / 1e12,
           attention_rate(r, "attention_backward") / 1e12, attention_rate(r, NULL) / 1e12);
    printf("  ops        of one step more, each awaited (%.1f us of every call are launch and wait):\n", 1e6 * r->wait);
    backend_timed_report(stdout, r->bandwidth, r->rate);
    fflush(stdout);
}

/* {"name": value, ...}, flat but for the ops. */
static void append_json(const char *path, const Case *c, const Result *r, const Backend *backend, const Card *card) {
    FILE *file = fopen(path, "a");
    if (!file) die("cannot append to '%s'", path);
    double tokens = tokens_per_step(c) / r->median, flops = tokens * config_flops_per_token(&c->spec.config, c->spec.T);
    fputs("{\"program\": \"train_gpt\"", file);
    json_write_string_member(file, "model", c->model);
    json_write_string_member(file, "device", backend->describe());
    json_write_string_member(file, "dtype", c->spec.dtype == BF16 ? "bf16" : "fp32");
    json_write_number_member(file, "batch", (double)c->spec.B);
    json_write_number_member(file, "seq_len", (double)c->spec.T);
    json_write_number_member(file, "grad_accum", (double)c->grad_accum);
    json_write_number_member(file, "tokens_per_step", tokens_per_step(c));
    json_write_number_member(file, "tokens_per_s", tokens);
    json_write_number_member(file, "ms", 1e3 * r->median);
    json_write_number_member(file, "ms_least", 1e3 * r->least);
    json_write_number_member(file, "ms_most", 1e3 * r->most);
    json_write_number_member(file, "cpu_ms", 1e3 * r->cpu);
    json_write_number_member(file, "steps", r->steps);
    json_write_number_member(file, "parameters", (double)plan_parameters(&c->spec.config));
    json_write_number_member(file, "flops_per_token", config_flops_per_token(&c->spec.config, c->spec.T));
    for (int i = 0; i < FIRST_LOSSES; i++) fprintf(file, "%s%.9g", i ? ", " : ", \"losses\": [", r->losses[i]);
    fputc(']', file);
    json_write_number_member(file, "mfu", card && c->spec.dtype == BF16 ? flops / (1e12 * card->tera_flops) : NAN);
    json_write_number_member(file, "share_of_matmul_rate", flops / r->rate);
    json_write_number_member(file, "matmul_rate", r->rate);
    json_write_number_member(file, "memory", r->memory);
    json_write_number_member(file, "memory_plan", r->plan);
    if (r->op_count) {
        json_write_number_member(file, "bandwidth", r->bandwidth);
        json_write_number_member(file, "floor_ms", 1e3 * r->floor);
        json_write_number_member(file, "floor_share", r->floor / r->median);
        json_write_number_member(file, "nominal_floor_share", r->nominal_floor ? r->nominal_floor / r->median : NAN);
        json_write_number_member(file, "attention_forward", attention_rate(r, "attention_forward"));
        json_write_number_member(file, "attention_backward", attention_rate(r, "attention_backward"));
        json_write_number_member(file, "attention_both", attention_rate(r, NULL));
        json_write_number_member(file, "wait_us", 1e6 * r->wait);
        fputs(", \"ops\": [", file);
        for (int i = 0; i < r->op_count; i++) {
            fprintf(file, "%s{\"calls\": %lld", i ? ", " : "", r->ops[i].calls);
            json_write_string_member(file, "name", r->ops[i].name);
            json_write_number_member(file, "ms", 1e3 * r->ops[i].seconds);
            json_write_number_member(file, "floor_ms", 1e3 * r->ops[i].floor);
            fputc('}', file);
        }
        fputc(']', file);
    }
    fputs("}\n", file);
    if (fclose(file) != 0) die("cannot write '%s'", path);
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
            if (o->profile) backend_timed_report(stdout, r.bandwidth, r.rate);
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
    print_gpu(&c, &r, card);
    if (json) append_json(json, &c, &r, backend, card);
}

int main(int argc, char **argv) {
    static const char *const cpu_models[] = {"baby", "gpt2-124M", "tinystories-17M", NULL};
    static const char *const gpu_models[] = {"gpt2-124M", "gpt2-350M", "gpt2-774M", "gpt2-1558M", "tinystories-17M", NULL};
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
