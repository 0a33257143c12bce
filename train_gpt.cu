/* train_gpt: trains a GPT. This file is main(): options -> data -> model -> loop. It is C that is also C++: nvcc compiles it where CUDA is
   built, the C compiler where it is not. The model is in llmc/model.c, the ops in kernels/. */
#include "llmc/checkpoint.h"
#include "llmc/dataloader.h"
#include "llmc/error.h"
#include "llmc/hellaswag.h"
#include "llmc/logger.h"
#include "llmc/machine.h"
#include "llmc/plan.h"
#include "llmc/schedule.h"
#include "llmc/tokenizer.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Options options;
    const Backend *backend;
    DatasetInfo dataset;
    char *vocabulary;            /* directory of the data's vocabulary, else of that which came with the weights; NULL: none is known */
    ModelSpec spec;
    Model model;
    DataLoader *train, *val;
    double val_bytes_per_token;  /* 0: unknown */
    Hellaswag *hellaswag;        /* NULL: not asked for */
    Logger *logger;
    RunState run;
    int64_t saved_step;          /* of the newest checkpoint */
    int64_t valid_targets;       /* in the batch of this step */
    int32_t *tokens, *targets;   /* (G, B, T): the batch of one optimizer step */
    double started;              /* machine_seconds at which this process began to train */
    double clock;                /* and at which the step under way began */
    int64_t first_step;          /* of this process */
    double elapsed_before;       /* seconds that the run took in other processes */
} Trainer;

static volatile sig_atomic_t interrupted;
static void on_signal(int number) {
    interrupted = 1;
    signal(number, SIG_DFL);   /* a second one ends the program at once */
}

/* ---- before training -------------------------------------------------------------------------------------------------------- */

/* The checkpoint to go on from, its options taken over. A --model given again must be the one that the run began with. */
static char *resolve_resume(Options *o) {
    char error[ERROR_SIZE];
    char *asked = o->from.model > FROM_CHECKPOINT ? xstrdup(o->model) : NULL;
    char *directory = checkpoint_find(o->out, o->resume, error);
    o->from.model = FROM_DEFAULT;
    if (!directory || !checkpoint_read_options(directory, o, error)) die("%s", error);
    if (asked && strcmp(asked, o->model) != 0)
        die("cannot resume from %s: that run began with --model %s, not %s; leave --model out, or --resume", directory, o->model, asked);
    free(asked);
    /* The model's context stays what it is where rows are shorter now; resolve_spec has longer ones where the model allows it. */
    Config config;
    if (!model_directory_config(directory, &config, error)) die("%s", error);
    if (o->from.max_seq_len < FROM_FILE) o->max_seq_len = config.maxT;
    return directory;
}

/* A learned table of so many rows in a directory can be cropped, and no more. */
static void check_table(const Config *config, int64_t rows, const char *directory) {
    if (config->pos == POS_LEARNED && config->maxT > rows)
        die("--max-seq-len %lld is more than the %lld rows of the position table in %s, and a learned table does not grow", (long long)config->maxT,
            (long long)rows, directory);
}

/* The options that --resume and --model imply. Returns the directory to load weights from, or NULL; *resuming tells which it is. */
static char *resolve_options(Options *o, bool *resuming) {
    char error[ERROR_SIZE];
    *resuming = o->resume[0] != 0;
    char *directory = *resuming ? resolve_resume(o) : NULL;
    if (config_preset(o, o->model) || directory) return directory;
    if (!path_is_directory(o->model))
        die("--model '%s' is neither a preset (%s) nor a directory", o->model, config_preset_names());
    Config config;
    directory = model_directory(o->model, error);
    if (!directory || !model_directory_verify(directory, error) || !model_directory_config(directory, &config, error)) die("%s", error);
    int64_t rows = config.maxT;
    if (o->max_seq_len) config.maxT = o->max_seq_len;
    check_table(&config, rows, directory);
    config.maxT = rows;
    config_to_options(&config, o);
    return directory;
}

/* Data of one's own is not validated on the default text: where only -i is given, -j is its name with val for train. */
static void resolve_val_data(Options *o) {
    if (o->from.train_data < FROM_FILE || o->from.val_data > FROM_DEFAULT) return;
    char *slash = strrchr(o->train_data, '/'), *at = NULL;
    for (char *found = strstr(slash ? slash : o->train_data, "train"); found; found = strstr(found + 1, "train")) at = found;
    if (!at) die("--train-data %s is given without --val-data; name the validation tokens too", o->train_data);
    char *val = xprintf("%.*sval%s", (int)(at - o->train_data), o->train_data, at + strlen("train"));
    free(o->val_data);
    o->val_data = val;
}

/* Micro-batches from --total-batch, and the largest number of them in any step. */
static int64_t resolve_batch(Options *o) {
    char error[ERROR_SIZE];
    int64_t micro = o->batch * o->seq_len, most = o->grad_accum;
    if (o->total_batch) {
        if (o->total_batch % micro != 0)
            die("--total-batch %lld is not a multiple of batch x seq-len = %lld", (long long)o->total_batch, (long long)micro);
        o->grad_accum = most = o->total_batch / micro;
    }
    if (!schedule_check(o, error)) die("%s", error);
    int64_t scheduled = schedule_most_grad_accum(o);
    return scheduled > most ? scheduled : most;
}

static ModelSpec resolve_spec(Options *o, const DatasetInfo *dataset, const Backend *backend) {
    char error[ERROR_SIZE];
    ModelSpec spec;
    memset(&spec, 0, sizeof spec);
    if (!o->vocab_size) o->vocab_size = dataset->vocab_size;
    if (!o->vocab_size) dataloader_require_files(o->train_data);
    if (!o->vocab_size) die("the vocabulary size is unknown: no dataset.json lies beside %s; give --vocab-size", o->train_data);
    if (dataset->vocab_size > o->vocab_size)
        die("the data has a vocabulary of %lld tokens, the model one of %lld", (long long)dataset->vocab_size, (long long)o->vocab_size);
    if (!config_from_options(&spec.config, o, error)) die("%s", error);
    if (spec.config.pos == POS_LEARNED && o->seq_len > spec.config.maxT)
        die("--seq-len %lld is beyond the learned position table of %lld rows; use a shorter one, or --pos rope", (long long)o->seq_len,
            (long long)spec.config.maxT);
    if (spec.config.pos != POS_LEARNED && spec.config.maxT < o->seq_len) spec.config.maxT = o->seq_len;   /* it is now used at that length */
    bool cpu = strcmp(backend->name, "cpu") == 0;
    spec.dtype = o->dtype == 0 ? (cpu ? F32 : BF16) : o->dtype == 1 ? F32 : BF16;
    if (spec.dtype == BF16 && !backend->supports_bf16()) die("this CPU (or this build without oneDNN) has no bf16 matrix product; use --dtype fp32");
    spec.mode = o->eval_only ? MODEL_EVALUATE : MODEL_TRAIN;
    spec_from_options(&spec, o);
    return spec;
}

/* Dies if an option stands on the command line that --export would not heed. */
static void refuse_beside_export(const Options *o) {
    static const char *const heeded[] = {"model", "out", "resume", "export_", "dtype", "max_seq_len"};
    for (int i = 0; i < train_options.count; i++) {
        const OptionRow *row = &train_options.rows[i];
        bool given = row->kind != OPTION_SECTION && *(const OptionSource *)((const char *)o + row->source) == FROM_COMMAND_LINE;
        for (size_t k = 0; k < sizeof heeded / sizeof *heeded; k++) given = given && strcmp(row->name, heeded[k]) != 0;
        if (given) die("--export writes the model as it is, so that %s has no part in it; leave that option out", row->name);
    }
}

/* For --export: the model of that directory, in fp32 unless --dtype says bf16, and the end of the program. */
static void export_model(const Options *o, const char *directory) {
    char error[ERROR_SIZE];
    ModelSpec spec;
    Model m;
    if (!directory) die("--export needs a model; give --model DIR, or --resume auto with the --out of a run");
    refuse_beside_export(o);
    memset(&spec, 0, sizeof spec);
    if (!model_directory_config(directory, &spec.config, error)) die("%s", error);
    int64_t rows = spec.config.maxT;
    if (o->from.max_seq_len >= FROM_FILE) spec.config.maxT = o->max_seq_len;
    if (!config_check(&spec.config, error)) die("%s", error);
    check_table(&spec.config, rows, directory);
    spec.mode = MODEL_EVALUATE;
    spec.B = spec.T = 1;
    plan_check_memory(&spec, backend_find("cpu"));
    model_create(&m, &spec, backend_find("cpu"));
    if (!model_read_directory(&m, directory, error) || !model_export(&m, o->export_, directory, o->dtype == 2 ? BF16 : F32, error)) die("%s", error);
    printf("%s holds the model of %s, as transformers has it\n", o->export_, directory);
    exit(0);
}

static void print_banner(const Trainer *t) {
    const Config *c = &t->spec.config;
    const Options *o = &t->options;
    char parameters[32], memory[32], tokens[32];
    format_count(parameters, (double)plan_parameters(c));
    format_bytes(memory, (double)model_plan(&t->spec, t->backend).total);
    printf("model   %s: %s, %s parameters\n", o->model, config_describe(c), parameters);
    format_count(tokens, (double)dataloader_tokens(t->train));
    printf("data    %s: %s tokens", o->train_data, tokens);
    if (t->dataset.source) printf(", from %s", t->dataset.source);
    if (t->dataset.vocab_size && t->dataset.vocab_size != c->V)
        printf("\nnote    the data has a vocabulary of %lld tokens, the model one of %lld: is it the same?", (long long)t->dataset.vocab_size,
               (long long)c->V);
    format_count(tokens, (double)(o->grad_accum * o->batch * o->seq_len));
    printf("\nstep    %lld micro-batches x %lld rows x %lld tokens = %s tokens; %lld steps of %s, peak lr %g\n", (long long)o->grad_accum,
           (long long)o->batch, (long long)o->seq_len, tokens, (long long)o->steps, o->optimizer ? "SGD" : "AdamW", o->lr);
    if (strcmp(o->device, "auto") == 0 && backend_missing("auto")) printf("note    training on the cpu: %s\n", backend_missing("auto"));
    printf("device  %s, %s, %s of memory\n", t->backend->describe(), t->spec.dtype == BF16 ? "bf16" : "fp32", memory);
    printf("run     %s\n", o->out);
    fflush(stdout);
}

/* A new run never mixes with an older one in the same directory: the older one is kept under another name. */
static void set_earlier_run_aside(const char *out) {
    if (!checkpoint_run_exists(out)) return;
    for (int i = 1; i < 100000; i++) {
        char *aside = xprintf("%s.%d", out, i);
        bool taken = path_exists(aside);
        if (!taken && rename(out, aside) != 0) die("%s holds an earlier run and cannot be renamed to %s; choose another --out", out, aside);
        if (!taken) printf("run     an earlier run in %s is kept as %s\n", out, aside);
        free(aside);
        if (!taken) return;
    }
    die("%s holds an earlier run; choose another --out", out);
}

static void open_run(Trainer *t, bool resuming) {
    char error[ERROR_SIZE];
    const char *out = t->options.out;
    if (!resuming) set_earlier_run_aside(out);
    if (!directory_create(out, error) || !checkpoint_clean(out, error)) die("%s", error);
    if (resuming && checkpoint_newest_step(out) > t->run.step)
        die("%s holds a checkpoint of step %lld, newer than step %lld to resume from; choose another --out to branch off", out,
            (long long)checkpoint_newest_step(out), (long long)t->run.step);
    t->logger = logger_open(out, t->run.step, error);
    if (!t->logger) die("%s", error);
}

/* "out/" is "out": the names of earlier runs are made of it. */
static void cut_trailing_slashes(char *path) {
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = 0;
}

/* A loss on tokens of another vocabulary would mean nothing. */
static void check_same_vocabulary(const Trainer *t, const DatasetInfo *val) {
    const DatasetInfo *train = &t->dataset;
    bool sizes = train->vocab_size && val->vocab_size && train->vocab_size != val->vocab_size;
    bool files = train->directory && val->directory && tokenizer_present(train->directory) && tokenizer_present(val->directory)
              && tokenizer_checksum(train->directory) != tokenizer_checksum(val->directory);
    if (sizes || files)
        die("the vocabulary of --val-data %s is not that of --train-data %s; give tokens of one vocabulary", t->options.val_data, t->options.train_data);
}

/* What evaluation needs besides the loaders. */
static void open_evaluation(Trainer *t, const char *vocabulary) {
    char error[ERROR_SIZE];
    const Options *o = &t->options;
    DatasetInfo val;
    if (!dataset_info_read(&val, o->val_data, error)) die("%s", error);
    check_same_vocabulary(t, &val);
    t->val_bytes_per_token = dataset_bytes_per_token(&val, dataloader_tokens(t->val));
    dataset_info_free(&val);
    if (o->hellaswag[0]) t->hellaswag = hellaswag_open(o->hellaswag, vocabulary, t->spec.config.V, o->hellaswag_limit, error);
    if (o->hellaswag[0] && !t->hellaswag) die("%s", error);
}

static void report_bad_numbers(const char *op, int output);
static const Trainer *current_trainer;   /* for report_bad_numbers */

static void open_backend(Trainer *t) {
    const Options *o = &t->options;
    t->backend = backend_find(o->device);
    if (!t->backend && backend_missing(o->device))
        die("--device '%s' cannot be used here: %s; there is: %s", o->device, backend_missing(o->device), backend_names());
    if (!t->backend) die("--device '%s' is not in this build; there is: %s", o->device, backend_names());
    BackendSettings settings = settings_from_options(o);
    t->backend->configure(&settings);
}

/* weights: the directory that the model comes from, or NULL; most: micro-batches in the largest step */
static void open_data(Trainer *t, const char *weights, int64_t most, bool sized) {
    const Options *o = &t->options;
    const char *beside = t->dataset.directory;
    t->train = dataloader_open(o->train_data, (SampleOrder)o->data_order, o->seq_len, t->spec.config.V, (uint64_t)o->seed, sized);
    t->val = dataloader_open(o->val_data, SAMPLE_SHARDS, o->seq_len, t->spec.config.V, (uint64_t)o->seed, sized);
    if (o->doc_start) dataloader_begin_at_documents(t->train, t->dataset.end_of_text);
    if (!beside || !tokenizer_present(beside)) beside = weights;
    if (beside) t->vocabulary = xstrdup(beside);
    snprintf(t->run.data, sizeof t->run.data, "%lld files of %lld tokens, vocabulary %08x", (long long)dataloader_files(t->train),
             (long long)dataloader_tokens(t->train), beside ? (unsigned)tokenizer_checksum(beside) : 0);
    t->tokens = (int32_t *)xmalloc((size_t)(most * o->batch * o->seq_len) * sizeof *t->tokens);
    t->targets = (int32_t *)xmalloc((size_t)(most * o->batch * o->seq_len) * sizeof *t->targets);
}

static void open_model(Trainer *t, const char *weights, bool resuming) {
    char error[ERROR_SIZE];
    const Options *o = &t->options;
    model_create(&t->model, &t->spec, t->backend);
    t->model.use_graphs = o->graphs != 0;
    t->model.state.seed = (uint64_t)o->seed;
    t->model.adamw = adamw_from_options(o);
    t->run.best_val_loss = INFINITY;
    if (weights && resuming && !o->eval_only) {
        RunState now = t->run;
        if (!checkpoint_load(weights, &t->model, &t->run, error)) die("cannot resume from %s: %s", weights, error);
        if (t->run.data[0] && strcmp(t->run.data, now.data) != 0 && o->from.train_data < FROM_FILE)
            die("cannot resume from %s: it was trained on %s, but %s has %s; put the data back, or say with --train-data what to go on with", weights,
                t->run.data, o->train_data, now.data);
        memcpy(t->run.data, now.data, sizeof now.data);
        printf("resume  %s: step %lld\n", weights, (long long)t->run.step);
    } else if (weights) {
        if (!model_read_directory(&t->model, weights, error)) die("%s", error);
    } else {
        model_init_weights(&t->model, (int)o->init_scheme, (uint64_t)o->seed);
    }
}

static void open_trainer(Trainer *t, int argc, char **argv) {
    char error[ERROR_SIZE];
    bool resuming;
    Options *o = &t->options;
    options_parse(&train_options, o, argc, argv);
    cut_trailing_slashes(o->out);
    char *weights = resolve_options(o, &resuming);
    if (o->eval_only && !weights) die("--eval-only needs a trained model; give --model DIR, or --resume auto with the --out of a run");
    if (o->from.export_ == FROM_COMMAND_LINE && !o->export_[0]) die("--export is empty; give it the name of a new directory");
    if (o->export_[0]) export_model(o, weights);
    if (o->print_config && o->plan) die("--print-config and --plan each print and exit; give one of them");
    resolve_val_data(o);
    int64_t most = resolve_batch(o);
    open_backend(t);
    if (!dataset_info_read(&t->dataset, o->train_data, error)) die("%s", error);
    bool sized = o->vocab_size || t->dataset.vocab_size;
    t->spec = resolve_spec(o, &t->dataset, t->backend);
    if (o->print_config) config_write_json(stdout, &t->spec.config);
    if (o->plan) plan_print(&t->spec, t->backend, o->grad_accum);
    if (o->print_config || o->plan) exit(0);
    plan_check_memory(&t->spec, t->backend);
    if (o->check_numerics) t->backend = backend_checked(t->backend, report_bad_numbers);
    else if (o->profile) t->backend = backend_timed(t->backend);
    open_data(t, weights, most, sized);
    open_evaluation(t, t->vocabulary);
    print_banner(t);
    open_model(t, weights, resuming);
    if (!o->eval_only) open_run(t, resuming);
    t->saved_step = resuming ? t->run.step : -1;
    free(weights);
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------------- */

/* Targets of the last rows that are not of this batch. Returns how many of all are left. */
static int64_t mask_rows(const Trainer *t, int64_t rows) {
    int64_t B = t->spec.B, T = t->spec.T, valid = 0;
    for (int64_t i = 0; i < B * T; i++) {
        if (i >= rows * T) t->targets[i] = -1;
        valid += t->targets[i] >= 0;
    }
    return valid;
}

/* Mean loss over so many micro-batches spread evenly over the split, always the same ones; over all of it, each row once, if they are enough. */
static double evaluate(Trainer *t, DataLoader *loader, int64_t batches) {
    int64_t B = t->spec.B, rows = dataloader_rows(loader), valid = 0, all = (rows + B - 1) / B;
    bool whole = batches >= all;
    if (whole) batches = all;
    double sum = 0;
    for (int64_t i = 0; i < batches; i++) {
        int64_t first = whole ? i * B : i * rows / batches;
        dataloader_batch_in_order(loader, first, B, t->tokens, t->targets);
        valid += mask_rows(t, whole && rows - first < B ? rows - first : B);
        sum += model_evaluate(&t->model, t->tokens, t->targets);
    }
    return valid > 0 ? sum / (double)valid : 0;
}

static void measure(Trainer *t, StepReport *report) {
    int64_t B = t->spec.B, batches = t->options.eval_batches;
    if (batches == 0) batches = (dataloader_rows(t->val) + B - 1) / B;
    report->train_loss = evaluate(t, t->train, batches);
    report->val_loss = evaluate(t, t->val, batches);
    report->val_bits_per_byte = bits_per_byte(report->val_loss, t->val_bytes_per_token);
    if (!t->hellaswag) return;
    HellaswagScore score = hellaswag_evaluate(t->hellaswag, &t->model);
    report->hellaswag_examples = score.examples;
    report->hellaswag_acc = score.acc;
    report->hellaswag_acc_norm = score.acc_norm;
}

/* ---- the loop --------------------------------------------------------------------------------------------------------------- */

static void report_bad_numbers(const char *op, int output) {
    die("step %lld: output %d of %s holds NaN or Inf; no parameter was changed in this step", (long long)current_trainer->run.step + 1, output, op);
}

static void save(Trainer *t, bool best) {
    char error[ERROR_SIZE];
    if (!checkpoint_save(t->options.out, &t->model, &t->run, &t->options, t->vocabulary, best, error))
        die("step %lld: the checkpoint could not be written: %s; the earlier ones are untouched", (long long)t->run.step, error);
    t->saved_step = t->run.step;
}

/* Loads the whole batch first, because the loss is the mean over its valid targets; the next one is made while this one trains. */
static void load_batch(Trainer *t, int64_t G) {
    int64_t B = t->spec.B, rows = G * B;
    int64_t next = t->run.step + 1;
    t->valid_targets = dataloader_batch(t->train, t->run.samples, rows, t->tokens, t->targets);
    if (next < t->options.steps) dataloader_prefetch(t->train, t->run.samples + rows, schedule_grad_accum(&t->options, next) * B);
}

/* Puts a whole step before the device without waiting for it. */
static void start_step(Trainer *t, StepReport *report) {
    const Options *o = &t->options;
    int64_t G = schedule_grad_accum(o, t->run.step), BT = t->spec.B * t->spec.T;
    memset(report, 0, sizeof *report);
    load_batch(t, G);
    report->lr = schedule_lr(o, t->run.step);
    model_begin_step(&t->model, t->run.step, report->lr, o->grad_clip, t->valid_targets);
    for (int64_t g = 0; g < G; g++)
        model_micro_step(&t->model, t->tokens + g * BT, t->targets + g * BT, g * t->spec.B, g);
    model_update(&t->model);
    t->run.step++;
    t->run.samples += G * t->spec.B;
    report->step = t->run.step;
    report->steps = o->steps;
    report->tokens = G * BT;
}

/* Waits for the outcome of the step last started (back 0) or the one before (back 1). */
static void finish_step(Trainer *t, StepReport *report, int back) {
    StepOutcome outcome = model_outcome(&t->model, back);
    double now = machine_seconds();
    report->loss = outcome.loss;
    report->grad_norm = outcome.grad_norm;
    if (outcome.skipped || !isfinite(outcome.loss) || !isfinite(outcome.grad_norm))
        die("step %lld: the loss is %f and the gradient norm %f; no parameter was changed in it; --check-numerics names the op that made it",
            (long long)report->step, outcome.loss, outcome.grad_norm);
    report->ms = 1e3 * (now - t->clock);
    report->tokens_per_s = (double)report->tokens / (now - t->clock);
    t->clock = now;
    t->run.elapsed_s = report->elapsed_s = t->elapsed_before + now - t->started;
    report->left_s = (now - t->started) / (double)(report->step - t->first_step) * (double)(report->steps - report->step);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static void evaluate_step(Trainer *t, StepReport *report) {
    report->evaluated = true;
    measure(t, report);
    if (!isfinite(report->train_loss) || !isfinite(report->val_loss))
        die("step %lld: the evaluation gives a train loss of %f and a validation loss of %f; the checkpoints are as they were",
            (long long)report->step, report->train_loss, report->val_loss);
    report->best = report->val_loss < t->run.best_val_loss;
    if (report->best) t->run.best_val_loss = report->val_loss;
    t->run.elapsed_s = report->elapsed_s = t->elapsed_before + machine_seconds() - t->started;
}

static void report_step(Trainer *t, const StepReport *report) {
    char error[ERROR_SIZE];
    bool shown = report->evaluated || report->step == report->steps || due(report->step, t->options.log_every) || report->step == 1;
    if (shown && !logger_report(t->logger, report, true, error)) warn("%s; training goes on without the log", error);
}

/* A step is started before the outcome of the last one is read, so that the device never waits for the host; only where something must be
   known now, as for an evaluation or a checkpoint, and on a device that works while the host waits anyway, is a step finished at once. */
static void train(Trainer *t) {
    const Options *o = &t->options;
    StepReport report, previous;
    bool under_way = false, timed_out = false;
    t->first_step = t->run.step;
    t->elapsed_before = t->run.elapsed_s;
    t->started = machine_seconds();
    while (t->run.step < o->steps && !interrupted && !timed_out) {
        if (under_way) previous = report;
        else t->clock = machine_seconds();
        start_step(t, &report);
        if (under_way) {
            finish_step(t, &previous, 1);
            report_step(t, &previous);
        }
        int64_t step = t->run.step;
        bool last = step == o->steps, evaluated = last || due(step, o->eval_every), saved = last || due(step, o->checkpoint_every);
        timed_out = o->max_time > 0 && machine_seconds() - t->started >= o->max_time;
        under_way = !(t->backend->host_memory || evaluated || saved || timed_out);
        if (under_way) continue;
        finish_step(t, &report, 0);
        if (evaluated) evaluate_step(t, &report);
        report_step(t, &report);
        if (report.best || saved) save(t, report.best);
    }
    if (under_way) {
        finish_step(t, &report, 0);
        report_step(t, &report);
    }
    if (t->saved_step != t->run.step) save(t, false);
}

static void print_profile(Trainer *t) {
    const Backend *plain = backend_find(t->options.device);
    double bandwidth = machine_bandwidth(plain, 0.5), rate = machine_matmul_rate(plain, t->spec.dtype, 1);
    printf("\nmeasured here: %.1f GB/s, %.1f GFLOP/s (%s)\n", bandwidth / 1e9, rate / 1e9, t->spec.dtype == BF16 ? "bf16" : "fp32");
    backend_timed_report(stdout, bandwidth, rate);
}

/* The last lines: why training ended, and where its results are. */
static void print_end(const Trainer *t) {
    const Options *o = &t->options;
    if (t->run.step < o->steps)
        printf("%s: step %lld is saved in %s; go on with --resume auto\n", interrupted ? "interrupted" : "--max-time is over",
               (long long)t->run.step, o->out);
    else if (isfinite(t->run.best_val_loss))
        printf("done: best validation loss %.4f; the model is in %s/best, the newest state in %s/last\n", t->run.best_val_loss, o->out,
               o->out);
    else
        printf("done: the newest state is in %s/last\n", o->out);
}

static void close_trainer(Trainer *t) {
    logger_close(t->logger);
    dataloader_close(t->train);
    dataloader_close(t->val);
    hellaswag_close(t->hellaswag);
    dataset_info_free(&t->dataset);
    free(t->vocabulary);
    model_free(&t->model);
    free(t->tokens);
    free(t->targets);
    options_release(&train_options, &t->options);
}

int main(int argc, char **argv) {
    Trainer trainer;
    memset(&trainer, 0, sizeof trainer);
    current_trainer = &trainer;
    error_program_name("train_gpt");
    open_trainer(&trainer, argc, argv);
    if (trainer.options.eval_only) {
        StepReport report;
        memset(&report, 0, sizeof report);
        measure(&trainer, &report);
        logger_print_evaluation(&report);
        printf("\n");
        if (!isfinite(report.train_loss) || !isfinite(report.val_loss)) die("the loss is not finite");
        close_trainer(&trainer);
        return 0;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    train(&trainer);
    if (trainer.options.profile) print_profile(&trainer);
    print_end(&trainer);
    bool stopped = interrupted && trainer.run.step < trainer.options.steps;
    close_trainer(&trainer);
    return stopped ? 130 : 0;
}
