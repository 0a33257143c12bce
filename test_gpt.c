/* test_gpt.c: the whole model against PyTorch. Each dump (dev/reference.py says what is in one) is run on every backend of this build
   in fp32 and bf16: the forward pass, the same through the key/value cache, every gradient, and the dump's AdamW steps.

   fp32   relative errors (norm of the difference over norm of the reference): logits, losses 1e-5; each gradient and the gradient's norm
          1e-4; then, after the steps, losses 1e-4 and each parameter 1e-3 of the way that it went.
   bf16   twice the error of PyTorch's own bf16 model, as the dump has it. A mean loss may be off by what single tokens' losses are, and
          the gradient's norm by what the worst gradient is.
   The key bias with neither RoPE nor QK-norm is left out: its gradient is zero in theory. Rows that pad the vocabulary hold ones here,
   and must neither change a result nor get a gradient. With dropout the first part, evaluation, has none, and what training does proves
   every element of every mask.

   The dumps of dev/reference: pair_01 to pair_30, a table in which every value of every switch (norm and its place, position, key/value
   heads, head size, QK-norm, biases, tying, activation, dropout, micro-steps, masked targets) meets every value of every other;
   rmsnorm_gqa64, qk_norm64, qk_norm128, dropout64, head32, head64: heads and contexts of whole tiles and more; odd, odd_all: sizes that
   divide nothing; llama, qwen2, qwen3, tinystories: those families in small; llama3, yarn: RoPE scaled, beyond its
   original context; the others: GPT-2 with what their names say. */
#include "llmc/error.h"
#include "llmc/model.h"
#include "llmc/safetensors.h"

#include <glob.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a dump ----------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *path;
    Safetensors file;
    Options options;                     /* the metadata: every key is an option of train_gpt */
    Config config;
    int64_t N, B, T, V;                  /* rows of the global batch, of a micro-step; tokens in a row; vocabulary */
    int64_t valid, logit_rows, steps, bf16_count;
    int32_t *tokens, *targets;           /* (N,T) */
    float *logits, *token_losses, *losses, *norms;
    double evaluation_loss;              /* mean of token_losses over the valid targets */
    float *bf16_logits, *bf16_losses, *bf16_gradients, *bf16_after;
    char error[ERROR_SIZE];              /* the first thing wrong with the file, or "" */
} Dump;

/* Keeps the first reason only. */
static __attribute__((format(printf, 2, 3))) void refuse(Dump *d, const char *format, ...) {
    char reason[ERROR_SIZE / 2];
    if (*d->error) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    snprintf(d->error, ERROR_SIZE, "%.200s: %s (dev/reference.py makes dumps)", d->path, reason);
}

/* The tensor of that name if it has that dtype and `count` elements; otherwise the dump is refused. */
static const SafetensorsEntry *find(Dump *d, const char *name, SafetensorsDType dtype, int64_t count) {
    const SafetensorsEntry *entry = safetensors_find(&d->file, name);
    if (!entry) refuse(d, "there is no tensor '%s'", name);
    else if (entry->dtype != dtype || entry->bytes != (size_t)count * 4)
        refuse(d, "tensor '%s' should hold %lld %s numbers by the metadata", name, (long long)count, dtype == ST_F32 ? "F32" : "I32");
    return *d->error ? NULL : entry;
}

static float *floats(Dump *d, const char *name, int64_t count) {
    const SafetensorsEntry *entry = find(d, name, ST_F32, count);
    if (!entry) return NULL;
    float *values = xmalloc((size_t)count * sizeof *values);
    safetensors_read_floats(entry, 0, count, values);
    return values;
}

static int32_t *integers(Dump *d, const char *name, int64_t count, int64_t least) {
    const SafetensorsEntry *entry = find(d, name, ST_I32, count);
    if (!entry) return NULL;
    int32_t *values = xmalloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++) {
        int64_t value;
        safetensors_read_integers(entry, i, 1, &value);
        if (value < least || value >= d->V)
            refuse(d, "'%s' holds %lld; expected %lld to %lld", name, (long long)value, (long long)least, (long long)d->V - 1);
        values[i] = (int32_t)value;
    }
    return values;
}

static void read_metadata(Dump *d) {
    static const char *const keys[] = {"n_layer", "n_head", "n_kv_head", "head_size", "n_embd", "n_hidden", "vocab_size", "max_seq_len",
        "seq_len", "batch", "grad_accum", "pos", "rope_base", "rope_layout", "norm", "norm_place", "qk_norm", "norm_eps", "activation",
        "bias", "qkv_bias", "tie", "dropout", "lr", "beta1", "beta2", "eps", "weight_decay", "grad_clip", "steps", "seed"};
    static const char *const scaling_keys[] = {"rope_scaling", "rope_factor", "rope_original_len", "rope_low_freq", "rope_high_freq"};
    enum { KEYS = sizeof keys / sizeof *keys, SCALING_KEYS = sizeof scaling_keys / sizeof *scaling_keys };
    char cause[ERROR_SIZE];
    for (int i = 0; i < KEYS + SCALING_KEYS; i++) {
        const char *key = i < KEYS ? keys[i] : scaling_keys[i - KEYS], *text = safetensors_metadata(&d->file, key);
        if (!text && i < KEYS) refuse(d, "the metadata lack '%s'", key);
        else if (text && !options_set(&train_options, &d->options, key, text, FROM_FILE, cause)) refuse(d, "metadata: %s", cause);
    }
    if (!*d->error && !config_from_options(&d->config, &d->options, cause)) refuse(d, "metadata: %s", cause);
    if (d->options.seq_len > d->config.maxT)
        refuse(d, "metadata: seq_len %lld is beyond max_seq_len %lld", (long long)d->options.seq_len, (long long)d->config.maxT);
    if (d->options.steps < 1) refuse(d, "metadata: steps is 0; at least 1 is needed");
}

static int64_t names_in(const char *list) {
    int64_t count = 1;
    for (; *list; list++) count += *list == ',';
    return count;
}

static void read_tensors(Dump *d) {
    const Options *o = &d->options;
    const char *names = safetensors_metadata(&d->file, "bf16_names");
    d->B = o->batch;
    d->N = o->batch * o->grad_accum;
    d->T = o->seq_len;
    d->V = o->vocab_size;
    d->steps = o->steps;
    if (!names) refuse(d, "the metadata lack 'bf16_names'");
    const SafetensorsEntry *logits = safetensors_find(&d->file, "logits");
    if (!logits || logits->rank != 3 || logits->shape[0] < 1 || logits->shape[0] > d->N || logits->shape[1] != d->T
        || logits->shape[2] != d->V)
        refuse(d, "there is no tensor 'logits' of shape (1 to %lld, %lld, %lld)", (long long)d->N, (long long)d->T, (long long)d->V);
    if (*d->error) return;
    d->logit_rows = logits->shape[0];
    d->tokens = integers(d, "tokens", d->N * d->T, 0);
    d->targets = integers(d, "targets", d->N * d->T, -1);
    d->logits = floats(d, "logits", d->logit_rows * d->T * d->V);
    d->token_losses = floats(d, "token_losses", d->N * d->T);
    d->losses = floats(d, "losses", d->steps);
    d->norms = floats(d, "norms", d->steps);
    d->bf16_logits = floats(d, "bf16.error.logits", 1);
    d->bf16_losses = floats(d, "bf16.error.losses", 1);
    d->bf16_after = floats(d, "bf16.error.after", 1);
    d->bf16_count = names_in(names);
    d->bf16_gradients = floats(d, "bf16.error.grad", d->bf16_count);
    for (int64_t i = 0; !*d->error && i < d->N * d->T; i++) {
        d->valid += d->targets[i] >= 0;
        d->evaluation_loss += d->token_losses[i];
    }
    if (d->valid == 0) refuse(d, "'targets' are all masked");
    d->evaluation_loss /= (double)d->valid;
}

/* param., grad. and after. of every parameter that the model has. */
static void check_parameters(Dump *d) {
    static const char *const prefixes[] = {"param.", "grad.", "after."};
    ParameterTable table;
    parameters_describe(&table, &d->config);
    for (int i = 0; i < table.count; i++)
        for (int k = 0; k < 3; k++) {
            char *name = xprintf("%s%s", prefixes[k], table.info[i].name);
            find(d, name, ST_F32, parameter_file_count(&table.info[i]));
            free(name);
        }
    parameters_release(&table);
}

/* False with the reason in d->error. Close it either way. */
static bool dump_open(Dump *d, const char *path) {
    memset(d, 0, sizeof *d);
    d->path = path;
    options_defaults(&d->options);
    if (!safetensors_open(&d->file, path, d->error)) return false;
    read_metadata(d);
    if (!*d->error) read_tensors(d);
    if (!*d->error) check_parameters(d);
    return !*d->error;
}

static void dump_close(Dump *d) {
    free(d->tokens); free(d->targets);
    free(d->logits); free(d->token_losses); free(d->losses); free(d->norms);
    free(d->bf16_logits); free(d->bf16_losses); free(d->bf16_gradients); free(d->bf16_after);
    options_release(&train_options, &d->options);
    safetensors_close(&d->file);
}

/* PyTorch's bf16 error of one gradient; NaN, which no test passes, if the dump does not name it. */
static double bf16_gradient_error(const Dump *d, const char *name) {
    const char *list = safetensors_metadata(&d->file, "bf16_names");
    for (int64_t i = 0; *list; i++) {
        size_t n = strcspn(list, ",");
        if (strlen(name) == n && strncmp(list, name, n) == 0) return d->bf16_gradients[i];
        list += n + (list[n] == ',');
    }
    return NAN;
}

/* ---- errors and limits ------------------------------------------------------------------------------------------------------ */

typedef enum { LOGITS, CACHED_LOGITS, TOKEN_LOSSES, LOSS, GRADIENTS, NORM, STEP_LOSSES, PARAMETERS, PADDING, CHECKS } Check;
static const char *const check_names[CHECKS] = {"logits", "cached", "token losses", "loss", "gradients", "norm", "step losses",
                                                "parameters", "padding"};

/* The worst of the errors measured under one heading. */
typedef struct { double error, limit, ratio; char where[64]; } Worst;

typedef struct {
    const Dump *dump;
    const Backend *backend;
    DType dtype;
    Worst worst[CHECKS];
    char error[ERROR_SIZE];              /* why the test could not be run, or "" */
} Test;

static void measure(Test *t, Check check, double error, double limit, const char *where) {
    Worst *w = &t->worst[check];
    double ratio = error <= limit ? (limit > 0 ? error / limit : 0) : error / limit;
    if (!(ratio <= 1e9)) ratio = 1e9;    /* NaN and Inf too: worse than anything else */
    if (!(ratio > w->ratio)) return;
    w->error = error;
    w->limit = limit;
    w->ratio = ratio;
    snprintf(w->where, sizeof w->where, "%s", where);
}

static double limit_of(const Test *t, double fp32, double pytorch_bf16) { return t->dtype == F32 ? fp32 : 2 * pytorch_bf16; }

typedef struct { double difference, reference; } Squares;

/* The reference is counted from origin, or from zero if that is NULL. */
static void add_squares(Squares *s, const float *got, const float *want, const float *origin, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double difference = (double)got[i] - want[i], reference = origin ? (double)want[i] - origin[i] : want[i];
        s->difference += difference * difference;
        s->reference += reference * reference;
    }
}
static double relative(Squares s) { return sqrt(s.difference) / (sqrt(s.reference) + 1e-30); }
static double relative_difference(double got, double want) { return fabs(got - want) / fabs(want); }

static float *read_parameter(const Dump *d, const char *prefix, const ParameterInfo *p) {
    int64_t n = parameter_file_count(p);
    char *name = xprintf("%s%s", prefix, p->name);
    float *values = xmalloc((size_t)n * sizeof *values);
    safetensors_read_floats(safetensors_find(&d->file, name), 0, n, values);
    free(name);
    return values;
}

/* One tensor of a flat buffer against the dump's, its reference counted from the initial value if from_initial. */
static Squares compare_parameter(const Dump *d, const ParameterInfo *p, const float *flat, const char *prefix, bool from_initial) {
    const Config *c = &d->config;
    Squares s = {0, 0};
    int64_t n = parameter_file_count(p), key = n, value = n;   /* elements key ... value-1 are left out */
    if (c->pos != POS_ROPE && !c->qk_norm && strstr(p->name, "c_attn.bias")) {
        key = c->NH * c->HS;
        value = (c->NH + c->NKV) * c->HS;
    }
    float *want = read_parameter(d, prefix, p), *origin = from_initial ? read_parameter(d, "param.", p) : NULL;
    float *got = xmalloc((size_t)n * sizeof *got);
    parameter_to_file(p, flat + p->offset, got);
    add_squares(&s, got, want, origin, key);
    add_squares(&s, got + value, want + value, origin ? origin + value : NULL, n - value);
    free(want); free(origin); free(got);
    return s;
}

/* The sum of the gradients' absolute values in the rows that pad the vocabulary. */
static void measure_padding(Test *t, const ParameterTable *table, const float *gradients) {
    for (int i = 0; i < table->count; i++) {
        const ParameterInfo *p = &table->info[i];
        double sum = 0;
        for (int64_t k = parameter_file_count(p); k < p->count; k++) sum += fabsf(gradients[p->offset + k]);
        measure(t, PADDING, sum, 0, p->name);
    }
}

/* Ones in the rows that pad the vocabulary: zeros would hide it if padding took part in the softmax or were trained. */
static void fill_padding(Model *m) {
    for (int i = 0; i < m->table.count; i++) {
        const ParameterInfo *p = &m->table.info[i];
        int64_t first = p->offset + parameter_file_count(p), n = p->count - parameter_file_count(p);
        if (n == 0) continue;
        float *ones = xmalloc((size_t)n * sizeof *ones);
        uint16_t *bf16_ones = xmalloc((size_t)n * sizeof *bf16_ones);
        for (int64_t k = 0; k < n; k++) ones[k] = 1, bf16_ones[k] = 0x3F80;
        if (m->masters.data) m->backend->upload((float *)m->masters.data + first, ones, (size_t)n * sizeof *ones, m->stream);
        if (m->parameters.dtype == BF16)
            m->backend->upload((uint16_t *)m->parameters.data + first, bf16_ones, (size_t)n * sizeof *bf16_ones, m->stream);
        m->backend->synchronize(m->stream);
        free(ones);
        free(bf16_ones);
    }
}

/* ---- the tests -------------------------------------------------------------------------------------------------------------- */

static bool create(Test *t, Model *m, ModelMode mode, int64_t B) {
    const Options *o = &t->dump->options;
    ModelSpec spec = {.config = t->dump->config, .dtype = t->dtype, .mode = mode, .optimizer = OPTIMIZER_ADAMW, .B = B, .T = t->dump->T};
    model_create(m, &spec, t->backend);
    m->adamw = adamw_from_options(o);
    m->state.seed = (uint64_t)o->seed;   /* of the dropout masks */
    if (!model_read_weights(m, t->dump->path, "param.", t->error)) return false;
    fill_padding(m);
    return true;
}

static void test_forward(Test *t) {
    const Dump *d = t->dump;
    Model m;
    Squares logit = {0, 0}, loss = {0, 0};
    double sum = 0;
    int64_t rows = d->B * d->T;
    float *logits = xmalloc((size_t)(rows * d->V) * sizeof *logits), *losses = xmalloc((size_t)rows * sizeof *losses);
    bool ready = create(t, &m, MODEL_EVALUATE, d->B);
    for (int64_t first = 0; ready && first < d->N; first += d->B) {
        sum += model_evaluate(&m, d->tokens + first * d->T, d->targets + first * d->T);
        model_copy_losses(&m, losses);
        model_copy_logits(&m, logits);
        add_squares(&loss, losses, d->token_losses + first * d->T, NULL, rows);
        int64_t known = d->logit_rows - first < d->B ? d->logit_rows - first : d->B;
        if (known > 0) add_squares(&logit, logits, d->logits + first * d->T * d->V, NULL, known * d->T * d->V);
    }
    measure(t, LOGITS, relative(logit), limit_of(t, 1e-5, *d->bf16_logits), "logits");
    measure(t, TOKEN_LOSSES, relative(loss), limit_of(t, 1e-5, *d->bf16_losses), "token_losses");
    measure(t, LOSS, relative_difference(sum / (double)d->valid, d->evaluation_loss), limit_of(t, 1e-5, *d->bf16_losses), "evaluation");
    model_free(&m);
    free(logits);
    free(losses);
}

/* The first row again, half of it at once and the rest token by token. */
static void test_cache(Test *t) {
    const Dump *d = t->dump;
    Model m;
    Squares logit = {0, 0};
    float *logits = xmalloc((size_t)d->V * sizeof *logits);
    bool ready = create(t, &m, MODEL_GENERATE, 1);
    for (int64_t fed = 0, n = (d->T + 1) / 2; ready && fed < d->T; fed += n, n = 1) {
        model_generate(&m, d->tokens + fed, n, fed, logits);
        add_squares(&logit, logits, d->logits + (fed + n - 1) * d->V, NULL, d->V);
    }
    measure(t, CACHED_LOGITS, relative(logit), limit_of(t, 1e-5, *d->bf16_logits), "logits");
    model_free(&m);
    free(logits);
}

static void forward_backward(Test *t, Model *m, int64_t step) {
    const Dump *d = t->dump;
    StepSettings settings = {.step = step, .lr = d->options.lr, .max_norm = d->options.grad_clip, .valid = d->valid};
    model_begin_step(m, &settings);
    for (int64_t first = 0, micro = 0; first < d->N; first += d->B, micro++)
        model_micro_step(m, d->tokens + first * d->T, d->targets + first * d->T, first, micro);
}

static void measure_gradients(Test *t, const Model *m) {
    float *flat = model_copy_flat(m, ARENA_GRADIENTS);
    for (int i = 0; i < m->table.count; i++) {
        const ParameterInfo *p = &m->table.info[i];
        double error = relative(compare_parameter(t->dump, p, flat, "grad.", false));
        measure(t, GRADIENTS, error, limit_of(t, 1e-4, bf16_gradient_error(t->dump, p->name)), p->name);
    }
    measure_padding(t, &m->table, flat);
    free(flat);
}

static void measure_parameters(Test *t, const Model *m) {
    float *flat = model_copy_flat(m, ARENA_MASTERS);
    Squares all = {0, 0};
    for (int i = 0; i < m->table.count; i++) {
        const ParameterInfo *p = &m->table.info[i];
        Squares s = compare_parameter(t->dump, p, flat, "after.", true);
        all.difference += s.difference;
        all.reference += s.reference;
        if (t->dtype == F32) measure(t, PARAMETERS, relative(s), 1e-3, p->name);
    }
    if (t->dtype == BF16) measure(t, PARAMETERS, relative(all), 2 * (double)*t->dump->bf16_after, "all");
    free(flat);
}

static void test_training(Test *t) {
    const Dump *d = t->dump;
    Model m;
    double worst_gradient = 0;
    for (int64_t i = 0; i < d->bf16_count; i++) worst_gradient = fmax(worst_gradient, d->bf16_gradients[i]);
    bool ready = create(t, &m, MODEL_TRAIN, d->B);
    for (int64_t step = 0; ready && step < d->steps; step++) {
        char where[32];
        snprintf(where, sizeof where, "step %lld", (long long)step + 1);
        forward_backward(t, &m, step);
        if (step == 0) measure_gradients(t, &m);
        model_update(&m);
        double error = relative_difference(model_loss(&m), d->losses[step]);
        if (step == 0) measure(t, LOSS, error, limit_of(t, 1e-5, *d->bf16_losses), where);
        else measure(t, STEP_LOSSES, error, limit_of(t, 1e-4, *d->bf16_losses), where);
        measure(t, NORM, relative_difference(model_grad_norm(&m), d->norms[step]), limit_of(t, 1e-4, worst_gradient), where);
    }
    if (ready) measure_parameters(t, &m);
    model_free(&m);
}

/* ---- report ----------------------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool run(const Dump *d, const Backend *backend, DType dtype) {
    Test t = {.dump = d, .backend = backend, .dtype = dtype};
    for (int i = 0; i < CHECKS; i++) t.worst[i].ratio = -1;
    test_forward(&t);
    test_cache(&t);
    test_training(&t);
    bool passed = !*t.error;
    for (int i = 0; i < CHECKS; i++) passed = passed && t.worst[i].ratio >= 0 && t.worst[i].ratio <= 1;
    printf("%s %s %s %s:", passed ? "passed" : "FAILED", backend->name, dtype == F32 ? "fp32" : "bf16", base_name(d->path));
    if (*t.error) printf(" %s", t.error);
    for (int i = 0; i < CHECKS && !*t.error; i++) {
        const Worst *w = &t.worst[i];
        if (w->ratio < 0) printf(" %s NOT MEASURED;", check_names[i]);
        else if (!(w->ratio <= 1)) printf(" %s %.1e > %.1e (%s);", check_names[i], w->error, w->limit, w->where);
        else if (passed && i != PADDING) printf(" %s %.1e (%.0f%%)", check_names[i], w->error, 100 * w->ratio);
    }
    printf("\n");
    fflush(stdout);
    return passed;
}

typedef struct {
    const char *device, *dtype;          /* NULL: all */
    int passed, failed;
} Choice;

static void count(Choice *s, bool passed) {
    s->passed += passed;
    s->failed += !passed;
}

static const char *const backends[] = {"cpu", "emu", "cuda"};
enum { BACKENDS = sizeof backends / sizeof *backends };

static bool chosen(const Choice *s, const char *backend) {
    return backend_find(backend) && (!s->device || strcmp(s->device, backend) == 0);
}

/* bf16 runs where the backend is made for it, and wherever it is asked for by name. */
static bool runs_bf16(const Choice *s, const Backend *b) { return s->dtype ? strcmp(s->dtype, "bf16") == 0 : b->supports_bf16(); }

static void run_dump(Choice *s, const char *path) {
    Dump d;
    bool valid = dump_open(&d, path);
    if (!valid) {
        printf("FAILED %s\n", d.error);
        s->failed++;
    }
    for (int i = 0; valid && i < BACKENDS; i++) {
        if (!chosen(s, backends[i])) continue;
        const Backend *b = backend_find(backends[i]);
        if (!s->dtype || strcmp(s->dtype, "fp32") == 0) count(s, run(&d, b, F32));
        if (runs_bf16(s, b)) count(s, run(&d, b, BF16));
    }
    dump_close(&d);
}

static const char usage[] =
    "test_gpt [--device cpu|emu|cuda] [--dtype fp32|bf16] [DUMP ...]: compares the model with PyTorch's dumps.\n"
    "Without options: every backend of this build, both dtypes, and the dumps in dev/reference. Make others with dev/reference.py.\n"
    "Prints the worst errors of each run and, in brackets, their share of the limit.\n";

/* The value of --name VALUE or --name=VALUE at argv[*i], moving *i on, or NULL if that is another argument. */
static const char *option(const char *name, int argc, char **argv, int *i) {
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0 || (argv[*i][n] != 0 && argv[*i][n] != '=')) return NULL;
    if (argv[*i][n] == '=') return argv[*i] + n + 1;
    if (*i + 1 >= argc) die("%s needs a value (--help says which)", name);
    return argv[++*i];
}

/* Moves the dumps to the front of argv and returns their number. */
static int parse(Choice *s, int argc, char **argv) {
    int dumps = 0;
    for (int i = 1; i < argc; i++) {
        const char *value;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            printf("%s", usage);
            exit(0);
        }
        if ((value = option("--device", argc, argv, &i))) s->device = value;
        else if ((value = option("--dtype", argc, argv, &i))) s->dtype = value;
        else if (argv[i][0] == '-') die("unknown option '%s'; there are --device, --dtype and --help", argv[i]);
        else argv[dumps++] = argv[i];
    }
    if (s->device && strcmp(s->device, "auto") == 0) s->device = backend_find("auto")->name;
    if (s->device && !backend_find(s->device)) die("--device is '%s', but this build and machine have: %s", s->device, backend_names());
    if (s->dtype && strcmp(s->dtype, "fp32") != 0 && strcmp(s->dtype, "bf16") != 0) die("--dtype is '%s'; expected fp32 or bf16", s->dtype);
    return dumps;
}

int main(int argc, char **argv) {
    Choice s = {NULL, NULL, 0, 0};
    glob_t committed = {0};
    error_program_name("test_gpt");
    int dumps = parse(&s, argc, argv);
    char **paths = argv;
    if (dumps == 0) {
        if (glob("dev/reference/*.safetensors", 0, NULL, &committed) != 0)
            die("found no dev/reference/*.safetensors; run from the repository's root, name a dump, or make them with dev/reference.py");
        dumps = (int)committed.gl_pathc;
        paths = committed.gl_pathv;
    }
    for (int i = 0; i < dumps; i++) run_dump(&s, paths[i]);
    for (int i = 0; i < BACKENDS; i++)
        if (!s.dtype && chosen(&s, backends[i]) && !backend_find(backends[i])->supports_bf16())
            printf("%s: bf16 skipped, no bf16 matrix products here (a CPU needs oneDNN and AVX512-BF16 or AMX); or ask: --dtype bf16\n",
                   backends[i]);
    globfree(&committed);
    printf("%d passed, %d failed\n", s.passed, s.failed);
    return s.failed > 0 || s.passed == 0;
}
