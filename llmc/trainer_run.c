/* trainer_run.c: see trainer_run.h. */
#include "trainer_run.h"

#include "curve.h"
#include "error.h"
#include "plan.h"
#include "run_directory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Two runs in one directory would replace and remove each other's checkpoints. */
static void lock_run(Trainer *t) {
    char *path = path_join(t->options.out, ".lock");
    if (t->lock < 0 && !file_lock(&t->lock, path))
        die("a run is under way in %s, which has %s locked; wait for its end, or choose another --out", t->options.out, path);
    free(path);
}

static void unlock_run(Trainer *t) {
    file_unlock(t->lock);
    t->lock = -1;
}

/* A new run never mixes with an older one in the same directory: the older one is kept under another name. */
static void set_earlier_run_aside(Trainer *t) {
    char error[ERROR_SIZE], *kept;
    const char *out = t->options.out;
    if (!run_set_aside(out, &kept, error)) die("%s", error);
    if (kept && !t->options.quiet) printf("run     an earlier run in %s is kept as %s\n", out, kept);
    if (!path_is_directory(out)) unlock_run(t);   /* the lock went with it */
    free(kept);
}

/* Nor does a run that goes on from a checkpoint, if that is of another. */
static void refuse_another_run(const char *out, const char *checkpoint) {
    if (!checkpoint_run_exists(out) || run_has_checkpoint(out, checkpoint)) return;
    char *own = run_of_checkpoint(checkpoint), *way = own ? xprintf("-o %s to go on with the run that it is of, or ", own) : xstrdup("");
    die("%s holds another run than the one that %s is of, and would mix the two; give %sa new directory with -o", out, checkpoint, way);
}

/* What the model's FLOP/s are counted against. Ranks that are threads share one device. Unknown of one rank is unknown of all. */
static void find_peak(Trainer *t) {
    bool sharing = team_of_threads(t->team) && !first_rank(t);
    Peak own = {0, NULL};
    if (!sharing) own = machine_peak(backend_find(t->options.device), t->spec.dtype);   /* not t->backend, which may count or check what it runs */
    double sums[2] = {own.flops, sharing || own.flops > 0};
    team_sum(t->team, sums, 2, "the peak");
    t->peak = own;
    t->peak.flops = sums[1] == (double)t->ranks ? sums[0] : 0;
    t->flops_per_token = config_flops_per_token(&t->spec.config, t->spec.T);
}

static RecordedData recorded_data(DataLoader *loader, const char *path) {
    return (RecordedData){path, dataloader_files(loader), dataloader_tokens(loader), dataloader_crc32(loader)};
}

static void open_record(Trainer *t, int argc, char **argv, bool resuming) {
    char error[ERROR_SIZE];
    const Options *o = &t->options;
    const Config *c = &t->spec.config;
    RunFacts facts = {
        .options = o, .config = c, .description = config_describe(c), .parameters = plan_parameters(c), .flops_per_token = t->flops_per_token,
        .train = recorded_data(t->train, o->train_data), .val = recorded_data(t->val, o->val_data), .vocab_size = c->V, .source = t->dataset.source,
        .peak_flops = t->peak.flops, .peak_from = t->peak.from, .host = team_host(t->team, (int)t->rank), .device = t->backend->describe(),
        .dtype = t->spec.dtype == BF16 ? "bf16" : "fp32", .ranks = t->ranks, .step = t->run.step, .resumed = resuming, .argc = argc, .argv = argv};
    t->record = run_record_open(o->out, &facts, error);
    if (!t->record) die("%s", error);
}

static void open_directory(Trainer *t, int argc, char **argv, const char *resumed) {
    char error[ERROR_SIZE];
    const char *out = t->options.out;
    if (path_is_directory(out)) lock_run(t);
    if (resumed) refuse_another_run(out, resumed);
    else set_earlier_run_aside(t);
    if (!directory_create(out, error)) die("%s", error);
    lock_run(t);
    if (!checkpoint_clean(out, error)) die("%s", error);
    if (resumed && checkpoint_newest_step(out) > t->run.step)
        die("%s holds a checkpoint of step %lld, newer than step %lld to resume from; choose another --out to branch off", out,
            (long long)checkpoint_newest_step(out), (long long)t->run.step);
    t->logger = logger_open(out, t->run.step, error);
    if (!t->logger) die("%s", error);
    open_record(t, argc, argv, resumed != NULL);
    t->samples = samples_open(out, &t->options, t->vocabulary, t->spec.config.V, t->run.step);
    char *best = path_join(out, "best");
    double best_val_loss = path_exists(best) ? t->run.best_val_loss : INFINITY;   /* a run that branches off another one has none at first */
    free(best);
    t->writer = checkpoint_writer_open(out, &t->options, t->vocabulary, best_val_loss, t->options.checkpoint_async != 0);
}

void trainer_open_run(Trainer *t, int argc, char **argv, const char *resumed) {
    find_peak(t);
    progress_open(&t->progress, t->options.quiet, t->options.live);   /* all ranks: their warnings come to the same terminal */
    team_excuse(t->team, first_rank(t));
    if (first_rank(t)) open_directory(t, argc, argv, resumed);
    team_excuse(t->team, false);
}

void trainer_close_run(Trainer *t) {
    logger_close(t->logger);
    run_record_close(t->record);
    samples_close(t->samples);
    if (t->writer) checkpoint_writer_close(t->writer);
    unlock_run(t);
}

/* ---- samples, and the end ------------------------------------------------------------------------------------------------------- */

/* Bytes that training took at most on this rank: on the CPU all of the process, else what the model was given of the device. */
static double peak_memory(const Trainer *t) {
    return t->backend->host_memory ? machine_peak_memory() : (double)model_plan(&t->spec, t->backend).total + t->backend->own_memory();
}

void trainer_sample(Trainer *t, const volatile sig_atomic_t *give_up) {
    team_excuse(t->team, first_rank(t));
    samples_write(t->samples, &t->model, backend_find(t->options.device), t->run.step, give_up);
    team_excuse(t->team, false);
}

void trainer_settle_checkpoints(Trainer *t) {
    char error[ERROR_SIZE];
    if (!t->writer) return;
    team_excuse(t->team, true);
    bool good = checkpoint_writer_wait(t->writer, error);
    team_excuse(t->team, false);
    long long step = t->run.step, failures = checkpoint_writer_failures(t->writer), newest = checkpoint_newest_step(t->options.out);
    if (good && failures)
        warn("%lld of the checkpoints could not be written, as was said then; that of the end, step %lld, is there", failures, step);
    if (good) return;
    char *kept = newest < 0 ? xstrdup("there is none in") : xprintf("the newest one, of step %lld, is untouched in", newest);
    die("step %lld: the last checkpoint could not be written: %s; %s %s", step, error, kept, t->options.out);
}

static void record_end(const Trainer *t, const char *status, int64_t step, int64_t tokens, double elapsed_s) {
    char error[ERROR_SIZE];
    RunEnd end = {status, step, tokens, elapsed_s, t->run.best_val_loss, peak_memory(t), t->peak.flops};
    if (!run_record_end(t->record, &end, error)) warn("%s; the record of the run lacks its end", error);
}

void trainer_note_diverged(const Trainer *t, int64_t step, int64_t tokens) {
    char error[ERROR_SIZE];
    if (!logger_report_remembered(t->logger, error)) warn("%s; the log lacks the last steps", error);
    record_end(t, "diverged", step, tokens, t->elapsed_before + machine_seconds() - t->started);
}

/* run.json first: whoever has no patience for the rest loses nothing else. */
void trainer_finish(Trainer *t, bool stopped, const volatile sig_atomic_t *give_up) {
    enum { MOST_SECONDS = 20 };
    const RunState *run = &t->run;
    const Options *o = &t->options;
    team_excuse(t->team, true);
    record_end(t, stopped ? "interrupted" : run->step < o->steps ? "max-time" : "done", run->step, run->tokens, run->elapsed_s);
    if (!stopped && !*give_up && t->samples && samples_newest_step(t->samples) != run->step) {
        progress_say(&t->progress, "writing a sample");
        trainer_sample(t, give_up);
    }
    team_excuse(t->team, true);
    if (!stopped && o->curve) {
        progress_say(&t->progress, "drawing the curve");
        curve_draw(o->out, MOST_SECONDS, give_up);
    }
    team_excuse(t->team, false);
    progress_clear(&t->progress);
}
