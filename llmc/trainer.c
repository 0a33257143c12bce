/* trainer.c: how a run comes together. */
#include "trainer.h"

#include "agree.h"
#include "banner.h"
#include "error.h"
#include "option_pairs.h"
#include "plan.h"
#include "schedule.h"
#include "tokenizer.h"
#include "trainer_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ---------------------------------------------------------------------------------------------------------------- */

/* The ranks that make a step: those of a plan are on paper. */
static int64_t ranks_of_step(const Trainer *t) {
    const Options *o = &t->options;
    return o->plan && o->ranks ? o->ranks : o->plan && o->gpus ? o->gpus : t->ranks;
}

/* Whether one of the options that say how large a step is was given now. */
static bool batch_given_anew(const Options *o) {
    bool total = o->total_batch && o->from.total_batch > FROM_CHECKPOINT;
    return total || o->from.grad_accum > FROM_CHECKPOINT || o->from.batch_schedule > FROM_CHECKPOINT;
}

/* Steps stay as large as they were, on however many ranks they are made, unless the user says otherwise. A schedule counts before --total-batch. */
static void keep_batch(Trainer *t, const char *directory) {
    char error[ERROR_SIZE];
    int64_t before, step;
    Options *o = &t->options;
    if (!checkpoint_read_ranks(directory, &before, &step, error)) die("%s", error);
    if (o->eval_only || o->export_[0] || batch_given_anew(o) || before == ranks_of_step(t)) return;
    if (o->total_batch && !o->batch_schedule[0]) return;
    if (!schedule_rescale(o, step, before, ranks_of_step(t), error)) die("cannot resume from %s: %s", directory, error);
}

/* On resuming: says so if a step is no longer as large as it was. */
static void note_batch(const Trainer *t, const char *directory) {
    char error[ERROR_SIZE], now[32], then[32];
    int64_t ranks, step;
    Options saved;
    options_defaults(&saved);
    if (!checkpoint_read_options(directory, &saved, error) || !checkpoint_read_ranks(directory, &ranks, &step, error)) die("%s", error);
    int64_t before = ranks * schedule_grad_accum(&saved, step) * saved.batch * saved.seq_len;
    int64_t after = t->ranks * schedule_grad_accum(&t->options, step) * t->spec.B * t->spec.T;
    format_count(now, (double)after);
    format_count(then, (double)before);
    if (after != before) printf("note    steps have %s tokens from here on; before, %s\n", now, then);
    options_release(&train_options, &saved);
}

/* The checkpoint to go on from, which rank 0 finds, its options taken over. A --model given again must be the one that the run began with. */
static char *resolve_resume(Trainer *t) {
    char error[ERROR_SIZE];
    Options *o = &t->options;
    char *asked = o->from.model > FROM_CHECKPOINT ? xstrdup(o->model) : NULL;
    team_excuse(t->team, first_rank(t));   /* a large one is read whole, to see that it is whole */
    char *found = first_rank(t) ? checkpoint_find(o->out, o->resume, error) : NULL;
    team_excuse(t->team, false);
    if (first_rank(t) && !found) die("%s", error);
    char *directory = team_text_of_first(t->team, found, "the checkpoint to resume from");
    free(found);
    o->from.model = FROM_DEFAULT;
    if (!checkpoint_read_options(directory, o, error)) die("%s", error);
    options_settle_batch(o);
    keep_batch(t, directory);
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
static char *resolve_options(Trainer *t, bool *resuming) {
    char error[ERROR_SIZE];
    Options *o = &t->options;
    *resuming = o->resume[0] != 0;
    char *directory = *resuming ? resolve_resume(t) : NULL;
    if (!*resuming) options_settle_batch(o);
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

/* Data of one's own is not validated on the default text: where only -i is given, -j is its name with val for train, or a
   directory's other part. */
static void resolve_val_data(Options *o) {
    if (o->from.train_data < FROM_FILE || o->from.val_data > FROM_DEFAULT) return;
    char *slash = strrchr(o->train_data, '/'), *at = NULL;
    for (char *found = strstr(slash ? slash : o->train_data, "train"); found; found = strstr(found + 1, "train")) at = found;
    bool directory = !at && path_is_directory(o->train_data);
    if (!at && !directory) die("--train-data %s is given without --val-data; name the validation tokens too", o->train_data);
    char *val = directory ? xstrdup(o->train_data)
                          : xprintf("%.*sval%s", (int)(at - o->train_data), o->train_data, at + strlen("train"));
    free(o->val_data);
    o->val_data = val;
}

/* Micro-batches of a rank from --total-batch, and the largest number of them in any step. */
static int64_t resolve_batch(Options *o, int64_t ranks) {
    if (!o->eval_only) o->grad_accum = options_grad_accum(o, ranks * o->batch * o->seq_len, ranks);
    return schedule_most_grad_accum(o);
}

/* loaded: the weights come from a directory */
static ModelSpec resolve_spec(Trainer *t, bool loaded) {
    char error[ERROR_SIZE];
    Options *o = &t->options;
    const DatasetInfo *dataset = &t->dataset;
    ModelSpec spec;
    memset(&spec, 0, sizeof spec);
    if (!o->vocab_size) o->vocab_size = dataset->vocab_size;
    if (!o->vocab_size) dataloader_require_files(o->train_data);
    if (!o->vocab_size) die("the vocabulary size is unknown: no dataset.json lies beside %s; give --vocab-size", o->train_data);
    if (dataset->vocab_size > o->vocab_size)
        die("the data has a vocabulary of %lld tokens, the model one of %lld", (long long)dataset->vocab_size, (long long)o->vocab_size);
    if (!config_from_options(&spec.config, o, error)) die("%s", error);
    if (o->overfit) spec.config.dropout = 0;
    if (spec.config.pos == POS_LEARNED && o->seq_len > spec.config.maxT)
        die("--seq-len %lld is beyond the learned position table of %lld rows; use a shorter one%s", (long long)o->seq_len,
            (long long)spec.config.maxT, loaded ? ", as the table of a trained model does not grow" : ", a larger --max-seq-len, or --pos rope");
    if (spec.config.pos != POS_LEARNED && spec.config.maxT < o->seq_len) spec.config.maxT = o->seq_len;   /* it is now used at that length */
    bool cpu = strcmp(t->backend->name, "cpu") == 0;
    spec.dtype = o->dtype == 0 ? (cpu ? F32 : BF16) : o->dtype == 1 ? F32 : BF16;
    if (spec.dtype == BF16 && !t->backend->supports_bf16()) die("this CPU (or this build without oneDNN) has no bf16 matrix product; use --dtype fp32");
    spec.mode = o->eval_only ? MODEL_EVALUATE : MODEL_TRAIN;
    spec_from_options(&spec, o);
    spec.rank = t->rank;
    spec.ranks = ranks_of_step(t);
    spec.zero = o->zero && spec.mode == MODEL_TRAIN;
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
    plan_check_memory(&spec, backend_find("cpu"), false);
    model_create(&m, &spec, backend_find("cpu"));
    if (!model_read_directory(&m, directory, error) || !model_export(&m, o->export_, directory, o->dtype == 2 ? BF16 : F32, error)) die("%s", error);
    printf("%s holds the model of %s, as transformers has it\n", o->export_, directory);
    require_output();
    exit(0);
}

static void warn_of_idle_options(const Trainer *t, bool loaded) {
    const RunKind kind = {strcmp(t->backend->name, "cpu") == 0, t->spec.dtype == BF16, loaded};
    options_warn_idle(&t->options, &kind);
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

static __thread const Trainer *current_trainer;   /* for report_bad_numbers */

static void report_bad_numbers(const char *op, int output) {
    char ignored[ERROR_SIZE];
    const Trainer *t = current_trainer;
    if (t->writer) checkpoint_writer_wait(t->writer, ignored);   /* what is good so far shall be whole */
    int64_t tokens = t->ranks * schedule_grad_accum(&t->options, t->run.step) * t->spec.B * t->spec.T;   /* of this step */
    trainer_note_diverged(t, t->run.step + 1, t->run.tokens + tokens);
    die("step %lld: output %d of %s holds NaN or Inf; no parameter was changed in this step", (long long)t->run.step + 1, output, op);
}

static void open_backend(Trainer *t) {
    const Options *o = &t->options;
    t->backend = backend_find(o->device);
    if (!t->backend && backend_missing(o->device))
        die("--device '%s' cannot be used here: %s; there is: %s", o->device, backend_missing(o->device), backend_names());
    if (!t->backend) die("--device '%s' is not in this build; there is: %s", o->device, backend_names());
    bool on_paper = o->plan || o->print_config;
    if (o->gpus > 1 && !on_paper && o->from.device == FROM_DEFAULT && strcmp(t->backend->name, "cpu") == 0)
        die("--gpus %lld, but %s; say --device cpu too to have so many processes on the CPU", (long long)o->gpus,
            backend_missing("auto") ? backend_missing("auto") : "this program was built without CUDA");
    t->backend->select(team_of_threads(t->team) ? 0 : team_local_rank(t->team));   /* threads share a device */
    team_expect_same(t->team, t->backend->name, "device");
    char *comm = option_choice_word(options_find(&train_options, "comm")->choices, o->comm);
    if (!o->plan) t->comm = comm_open(t->team, t->backend, comm);
    free(comm);
    configure_from_options(t->backend, o, first_rank(t) || team_of_threads(t->team));   /* threads share one backend */
}

/* weights: the directory that the model comes from, or NULL; most: micro-batches in the largest step */
static void open_data(Trainer *t, const char *weights, int64_t most, bool sized) {
    const Options *o = &t->options;
    const char *beside = t->dataset.directory;
    const int64_t T = o->seq_len, V = t->spec.config.V;
    const uint64_t seed = (uint64_t)o->seed;
    DataFiles files = data_files_for_training(o->train_data, o->val_data);
    t->train = dataloader_open_files(files, o->train_data, (SampleOrder)o->data_order, T, V, seed, sized);
    t->val = dataloader_open_files(data_files_for_validation(o->val_data), o->val_data, SAMPLE_SHARDS, T, V, seed, sized);
    if (o->doc_start) dataloader_begin_at_documents(t->train, t->dataset.end_of_text);
    if (o->overfit) dataloader_repeat(t->train, t->ranks * o->grad_accum * o->batch);
    if (!beside || !tokenizer_present(beside)) beside = weights;
    if (beside) t->vocabulary = xstrdup(beside);
    snprintf(t->run.data, sizeof t->run.data, "%lld files of %lld tokens, vocabulary %08x", (long long)dataloader_files(t->train),
             (long long)dataloader_tokens(t->train), beside ? (unsigned)tokenizer_checksum(beside) : 0);
    team_expect_same(t->team, t->run.data, "training data");
    t->tokens = (int32_t *)xmalloc((size_t)(most * o->batch * o->seq_len) * sizeof *t->tokens);
    t->targets = (int32_t *)xmalloc((size_t)(most * o->batch * o->seq_len) * sizeof *t->targets);
}

static void open_model(Trainer *t, const char *weights, bool resuming) {
    char error[ERROR_SIZE];
    const Options *o = &t->options;
    model_create(&t->model, &t->spec, t->backend);
    if (t->comm) model_join(&t->model, t->comm);
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
        if (first_rank(t) && !o->quiet) printf("resume  %s: step %lld\n", weights, (long long)t->run.step);
        if (first_rank(t) && !o->quiet) note_batch(t, weights);
    } else if (weights) {
        if (!model_read_directory(&t->model, weights, error)) die("%s", error);
    } else {
        model_init_weights(&t->model, (int)o->init_scheme, (uint64_t)o->seed);
    }
    if (o->stats && !o->eval_only) t->stats = model_stats_create(&t->model);
    t->run.ranks = t->ranks;
    agree_on_parameters(&t->model, t->run.step);
}

void trainer_open(Trainer *t, int argc, char **argv, Team *team) {
    char error[ERROR_SIZE];
    bool resuming;
    Options *o = &t->options;
    current_trainer = t;
    t->team = team;
    t->lock = -1;
    t->rank = team_rank(team);
    t->ranks = team_ranks(team);
    options_parse(&train_options, o, argc, argv);
    agree_on_options(t->team, o);
    if (o->ranks && !o->plan && !team_of_threads(t->team) && o->ranks != 1)
        die("--ranks %lld is for --plan, and for --comm loopback; to start so many processes say --gpus, or mpirun -np", (long long)o->ranks);
    if (o->skip_spikes > 0 && o->skip_spikes < 2)
        die("--skip-spikes is %g standard deviations, so that every other step would be a spike; give 2 or more, as 6", o->skip_spikes);
    cut_trailing_slashes(o->out);
    char *weights = resolve_options(t, &resuming);
    options_refuse_pairs(o);
    int64_t shortened = o->eval_only || o->export_[0] ? 0 : options_settle_schedule(o);
    if (o->eval_only && !weights) die("--eval-only needs a trained model; give --model DIR, or --resume auto with the --out of a run");
    if (o->from.export_ == FROM_COMMAND_LINE && !o->export_[0]) die("--export is empty; give it the name of a new directory");
    if (o->export_[0]) export_model(o, weights);
    resolve_val_data(o);
    int64_t most = resolve_batch(o, ranks_of_step(t));
    open_backend(t);
    if (!dataset_info_read(&t->dataset, o->train_data, error)) die("%s", error);
    bool sized = o->vocab_size || t->dataset.vocab_size;
    t->spec = resolve_spec(t, weights != NULL);
    if (o->print_config) config_write_json(stdout, &t->spec.config);
    PlanSettings plan = {schedule_least_grad_accum(o), schedule_most_grad_accum(o), 1e9 * o->link_speed, 1e12 * o->matmul_speed,
                         0x1p30 * o->plan_memory, o->checkpoint_async != 0};
    if (o->plan) plan_print(&t->spec, t->backend, &plan);
    if (o->print_config || o->plan) {
        require_output();
        exit(0);
    }
    plan_check_memory(&t->spec, t->backend, !o->eval_only && o->checkpoint_async && first_rank(t));
    if (o->check_numerics) t->backend = backend_checked(t->backend, report_bad_numbers);
    else if (o->profile) t->backend = backend_timed(t->backend);
    open_data(t, weights, most, sized);
    open_evaluation(t, t->vocabulary);
    if (first_rank(t) && !o->quiet) banner_print(t, weights, shortened);
    if (first_rank(t)) warn_of_idle_options(t, weights != NULL);
    open_model(t, weights, resuming);
    if (!o->eval_only) trainer_open_run(t, argc, argv, resuming ? weights : NULL);
    if (!o->eval_only && o->checkpoint_async) trainer_copy_state(t);   /* memory for copies is taken now, not in the middle of training */
    t->saved_step = resuming ? t->run.step : -1;
    free(weights);
}

void trainer_copy_state(Trainer *t) {
    team_excuse(t->team, first_rank(t));   /* it may have to wait for the disk */
    Snapshot *snapshot = t->writer ? checkpoint_writer_snapshot(t->writer) : &t->snapshot;
    team_excuse(t->team, false);
    model_snapshot(&t->model, snapshot, true, t->writer && checkpoint_writer_copies(t->writer));
}

void trainer_close(Trainer *t) {
    trainer_close_run(t);
    model_stats_free(t->stats);
    snapshot_release(&t->snapshot);
    dataloader_close(t->train);
    dataloader_close(t->val);
    hellaswag_close(t->hellaswag);
    dataset_info_free(&t->dataset);
    free(t->vocabulary);
    model_free(&t->model);
    comm_close(t->comm);
    free(t->tokens);
    free(t->targets);
    options_release(&train_options, &t->options);
}
