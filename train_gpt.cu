/* train_gpt: trains a GPT. This file is main(): options -> ranks -> data -> model -> loop. It is C that is also C++: nvcc compiles it where CUDA is
   built, the C compiler where it is not. The model is in llmc/model.c, the ops in kernels/.

   Where several ranks train one model (llmc/launch.h), each runs all of this on its own rows of every batch. Rank 0 alone prints, and writes
   files. What one rank knows before the others (a signal, the time) it puts to the vote, so that all do the same at the same step. */
#include "llmc/agree.h"
#include "llmc/error.h"
#include "llmc/launch.h"
#include "llmc/machine.h"
#include "llmc/plan.h"
#include "llmc/schedule.h"
#include "llmc/trainer.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A second signal of a kind ends the program at once, unless it is the same one on two ways: from the terminal, and passed on by a launcher. One of
   another kind is no more than another warning: clusters send SIGUSR1, and later SIGTERM. */
static volatile sig_atomic_t interrupted;
static volatile double came_at[_NSIG];
static void on_signal(int number) {
    double now = machine_seconds();
    if (came_at[number] > 0 && now - came_at[number] >= 2) {
        signal(number, SIG_DFL);
        raise(number);
    }
    if (!(came_at[number] > 0)) came_at[number] = now;
    interrupted = 1;
}

/* Before training there is nothing to save. */
static void leave_at_once(int number) {
    (void)number;
    _exit(130);
}

/* SIGUSR1 is what clusters send before they take a machine away, and what mpirun passes on; SIGHUP, the end of a login, unless nohup has it
   ignored. */
static void catch_signals(void (*act)(int)) {
    signal(SIGINT, act);
    signal(SIGTERM, act);
    signal(SIGUSR1, act);
    if (signal(SIGHUP, act) == SIG_IGN) signal(SIGHUP, SIG_IGN);
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

/* Mean loss over so many micro-batches spread evenly over the split, always the same ones; over all of it, each row once, if they are enough.
   The ranks take turns. */
static double evaluate(Trainer *t, DataLoader *loader, int64_t batches) {
    int64_t B = t->spec.B, rows = dataloader_rows(loader), all = (rows + B - 1) / B;
    bool whole = batches >= all;
    if (whole) batches = all;
    double total[2] = {0, 0};   /* losses, valid targets */
    for (int64_t i = t->rank; i < batches; i += t->ranks) {
        int64_t first = whole ? i * B : i * rows / batches;
        dataloader_batch_in_order(loader, first, B, t->tokens, t->targets);
        total[1] += (double)mask_rows(t, whole && rows - first < B ? rows - first : B);
        total[0] += model_evaluate(&t->model, t->tokens, t->targets);
    }
    team_sum(t->team, total, 2, "the evaluation");
    return total[1] > 0 ? total[0] / total[1] : 0;
}

/* Of each split. */
static int64_t evaluation_batches(const Trainer *t) {
    int64_t B = t->spec.B, batches = t->options.eval_batches;
    return batches ? batches : (dataloader_rows(t->val) + B - 1) / B;
}

static void measure(Trainer *t, StepReport *report) {
    int64_t batches = evaluation_batches(t);
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

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

/* Every rank has a part in the copy; rank 0 writes it. A write that fails is reported, and training goes on. */
static void save(Trainer *t, bool best) {
    trainer_copy_state(t);
    team_excuse(t->team, first_rank(t));
    if (t->writer) checkpoint_writer_save(t->writer, &t->run, best, t->stopping || t->run.step == t->options.steps);
    team_excuse(t->team, false);
    t->writing = t->writer != NULL;
    t->saved_step = t->run.step;
}

/* Loads this rank's part of the batch, G * B rows, before the step; that of the next one is made while this one trains. */
static void load_batch(Trainer *t, int64_t G) {
    int64_t rows = G * t->spec.B, next = t->run.step + 1, next_rows = schedule_grad_accum(&t->options, next) * t->spec.B;
    t->valid_targets = dataloader_batch(t->train, t->run.samples + t->rank * rows, rows, t->tokens, t->targets);
    if (next < t->options.steps) dataloader_prefetch(t->train, t->run.samples + t->ranks * rows + t->rank * next_rows, next_rows);
}

/* Before the run is given up: what is good so far shall be whole on the disk. */
static void finish_writing(Trainer *t, const StepReport *report) {
    char ignored[ERROR_SIZE];
    team_excuse(t->team, first_rank(t));
    if (t->writer) checkpoint_writer_wait(t->writer, ignored);   /* a failure has been reported */
    trainer_note_diverged(t, report->step, report->tokens_seen);
    team_excuse(t->team, false);
    team_barrier(t->team, "the checkpoint under way");
}

/* Of the limit, and seconds: what a busy machine may take away from the last step, so that the evaluation of the end still has its time. */
static const double SLACK = 0.02, MOST_SLACK = 0.2;

/* An evaluation that would take most of the limit is not worth it. */
static bool has_time_to_measure(const Trainer *t) { return 2 * t->deadline.seconds[PART_EVALUATION] <= t->options.max_time; }

/* Whether the step under way must be the last for --max-time: after one more, with all that is due behind the two, evaluation and checkpoint of the
   end would come too late. */
static bool time_is_up(Trainer *t, int64_t step) {
    const Options *o = &t->options;
    if (!(o->max_time > 0)) return false;
    double written = t->writer ? checkpoint_writer_times(t->writer).writing : 0;
    deadline_took(&t->deadline, PART_CHECKPOINT, written);
    if (written > 0) t->writing = false;
    int times[DEADLINE_PARTS] = {2, due(step, o->eval_every), 0, 1 + t->writing};
    times[PART_EVALUATION] += due(step + 1, o->eval_every) || has_time_to_measure(t);   /* of the end */
    for (int64_t s = step; s <= step + 1; s++) {
        times[PART_SAMPLE] += due(s, o->sample_every);
        times[PART_CHECKPOINT] += due(s, o->eval_every) || due(s, o->checkpoint_every);
    }
    return deadline_near(&t->deadline, machine_seconds() + fmin(MOST_SLACK, SLACK * o->max_time), times);
}

static bool wants_to_stop(Trainer *t, int64_t step) { return interrupted || time_is_up(t, step); }

static StepSettings step_settings(const Trainer *t, int64_t G) {
    const Options *o = &t->options;
    StepSettings s;
    memset(&s, 0, sizeof s);
    s.step = t->run.step;
    s.lr = schedule_lr(o, t->run.step);
    s.max_norm = o->grad_clip;
    s.valid = t->valid_targets;
    s.targets = t->comm ? t->ranks * G * t->spec.B * t->spec.T : 0;
    s.micro_steps = G;
    spikes_thresholds(&t->run.spikes, o->skip_spikes, t->run.step, &s.spike_loss, &s.spike_norm);
    return s;
}

/* Puts a whole step before the device without waiting for it. */
static void start_step(Trainer *t, StepReport *report) {
    const Options *o = &t->options;
    int64_t G = schedule_grad_accum(o, t->run.step), B = t->spec.B, BT = B * t->spec.T;
    memset(report, 0, sizeof *report);
    team_note_step(t->team, t->run.step + 1);
    load_batch(t, G);
    StepSettings settings = step_settings(t, G);
    model_begin_step(&t->model, &settings);
    for (int64_t g = 0; g < G; g++) {
        t->model.vote = wants_to_stop(t, t->run.step + 1);
        model_micro_step(&t->model, t->tokens + g * BT, t->targets + g * BT, (t->rank * G + g) * B, g);
    }
    model_update(&t->model);
    t->run.step++;
    t->run.samples += t->ranks * G * B;
    t->run.tokens += t->ranks * G * BT;
    report->lr = settings.lr;
    report->step = t->run.step;
    report->steps = o->steps;
    report->tokens = t->ranks * G * BT;
    report->tokens_seen = t->run.tokens;
}

/* Until one has been timed: its forward passes take a third of micro-steps. */
static void guess_evaluation(Trainer *t, double step) {
    double micro_steps = (double)(t->ranks * schedule_grad_accum(&t->options, t->first_step + 1));
    double endings = t->hellaswag ? 4 * (double)hellaswag_examples(t->hellaswag) : 0;
    double passes = 2 * (double)evaluation_batches(t) + endings / (double)t->spec.B;
    deadline_took(&t->deadline, PART_EVALUATION, step / micro_steps * passes / 3);
}

/* True, on all ranks, if the time is up, and what is left of it is enough to measure the model of the end as it is at the end of any other run;
   after a signal, to any rank, the checkpoint is all that there is time for. */
static bool measures_stopped(Trainer *t) {
    const int times[DEADLINE_PARTS] = {0, 1, 0, 1 + t->writing};
    if (!t->stopping || !(t->options.max_time > 0)) return false;
    if (!(t->deadline.seconds[PART_EVALUATION] > 0)) guess_evaluation(t, t->deadline.seconds[PART_STEP]);
    double hindered = interrupted || !has_time_to_measure(t) || deadline_near(&t->deadline, machine_seconds(), times);
    team_sum(t->team, &hindered, 1, "the end");
    return hindered == 0;
}

/* Waits for the outcome of the step last started (back 0) or the one before (back 1). */
static void finish_step(Trainer *t, StepReport *report, int back) {
    StepOutcome outcome = model_outcome(&t->model, back);
    double now = machine_seconds();
    report->loss = outcome.loss;
    report->grad_norm = outcome.grad_norm;
    report->skipped = outcome.skip == SKIP_SPIKE;
    t->spikes += report->skipped;
    if (outcome.skip == SKIP_NOT_FINITE || !isfinite(outcome.loss) || !isfinite(outcome.grad_norm)) {
        finish_writing(t, report);
        agree_on_bad_numbers(t->team, report->step, &outcome);
    }
    if (t->options.skip_spikes > 0) spikes_note(&t->run.spikes, t->options.skip_spikes, report->step - 1, outcome.loss, outcome.grad_norm);
    t->stopping |= outcome.votes > 0;
    CommTimes comm = comm_times(t->comm);
    report->comm_ms = 1e3 * comm.busy;
    report->comm_exposed_ms = 1e3 * comm.exposed;
    deadline_took(&t->deadline, PART_STEP, now - t->clock);
    if (report->step == t->first_step + 2) guess_evaluation(t, now - t->clock);   /* a first step is no measure */
    report->ms = 1e3 * (now - t->clock);
    report->tokens_per_s = (double)report->tokens / (now - t->clock);
    report->mfu = machine_utilization(&t->peak, t->flops_per_token * report->tokens_per_s);
    t->clock = now;
    t->run.elapsed_s = report->elapsed_s = t->elapsed_before + now - t->started;
    report->left_s = (now - t->started) / (double)(report->step - t->first_step) * (double)(report->steps - report->step);
}

/* The best so far is what rank 0 has on the disk, or on its way there; at the last step, behind which nothing can be made good, what is there
   for sure. */
static void learn_best(Trainer *t, bool last) {
    char ignored[ERROR_SIZE];
    team_excuse(t->team, first_rank(t));
    if (t->writer && last) checkpoint_writer_wait(t->writer, ignored);   /* a failure has been reported */
    team_excuse(t->team, false);
    t->run.best_val_loss = t->writer ? checkpoint_writer_best(t->writer) : 0;
    team_sum(t->team, &t->run.best_val_loss, 1, "the best checkpoint");
}

static void evaluate_step(Trainer *t, StepReport *report) {
    double begin = machine_seconds();
    measure(t, report);
    if (!isfinite(report->train_loss) || !isfinite(report->val_loss)) {
        if (t->logger) logger_remember(t->logger, report);
        finish_writing(t, report);
        die("step %lld: the evaluation gives a train loss of %f and a validation loss of %f; the checkpoints are as they were",
            (long long)report->step, report->train_loss, report->val_loss);
    }
    report->evaluated = true;
    learn_best(t, t->stopping || report->step == report->steps);
    report->best = report->val_loss < t->run.best_val_loss;
    if (report->best) t->run.best_val_loss = report->val_loss;
    t->run.elapsed_s = report->elapsed_s = t->elapsed_before + machine_seconds() - t->started;
    deadline_took(&t->deadline, PART_EVALUATION, machine_seconds() - begin);
}

static void sample_step(Trainer *t) {
    double begin = machine_seconds();
    trainer_sample(t, &interrupted);
    deadline_took(&t->deadline, PART_SAMPLE, machine_seconds() - begin);
}

static void report_step(Trainer *t, const StepReport *report) {
    char error[ERROR_SIZE];
    bool ends = report->step == 1 || report->step == report->steps;
    bool shown = ends || report->evaluated || report->skipped || due(report->step, t->options.log_every);
    if (!t->logger) return;
    progress_step(&t->progress, report, shown);
    if (!shown && !report->stats) logger_remember(t->logger, report);
    else if (!logger_report(t->logger, report, error)) warn("%s; training goes on, and the log follows when it can", error);
}

/* A checkpoint, until one has been timed: master weights and two moments, to a disk of 500 MB/s. */
static double seconds_to_write(const Trainer *t) { return first_rank(t) ? 12.0 * (double)plan_parameters(&t->spec.config) / 500e6 : 0; }

/* A step is started before the outcome of the last one is read, so that the device never waits for the host; only where something must be
   known now, as for an evaluation or a checkpoint, and on a device that works while the host waits anyway, is a step finished at once. */
static void train(Trainer *t) {
    const Options *o = &t->options;
    StepReport report, previous;
    bool under_way = false;
    t->first_step = t->run.step;
    t->elapsed_before = t->run.elapsed_s;
    t->started = machine_seconds();
    deadline_open(&t->deadline, t->started, o->max_time, seconds_to_write(t));
    /* A run that was interrupted at its sample has yet to write it. */
    if (t->samples && t->run.step > 0 && due(t->run.step, o->sample_every) && samples_newest_step(t->samples) != t->run.step) sample_step(t);
    while (t->run.step < o->steps && !t->stopping) {
        if (under_way) previous = report;
        else t->clock = machine_seconds();
        start_step(t, &report);
        if (under_way) {
            finish_step(t, &previous, 1);
            report_step(t, &previous);
        }
        int64_t step = t->run.step;
        bool last = step == o->steps, evaluated = last || due(step, o->eval_every), saved = last || due(step, o->checkpoint_every);
        bool compared = due(step, o->check_ranks), looked_into = due(step, o->stats), sampled = due(step, o->sample_every);
        if (t->ranks == 1) t->stopping |= wants_to_stop(t, step);   /* no need to wait for the count of votes */
        under_way = !(t->backend->host_memory || evaluated || saved || compared || looked_into || sampled || t->stopping);
        if (under_way) continue;
        finish_step(t, &report, 0);
        if (compared) agree_on_parameters(&t->model, step);
        if (looked_into) model_stats_measure(t->stats);
        report.stats = looked_into ? t->stats : NULL;
        if (evaluated || measures_stopped(t)) evaluate_step(t, &report);
        report_step(t, &report);
        if (report.best || saved) save(t, report.best);
        if (sampled) sample_step(t);
        if (t->ranks == 1) t->stopping |= interrupted;   /* at a sample that is cut short, so that the run goes on with it */
    }
    if (under_way) {
        finish_step(t, &report, 0);
        report_step(t, &report);
    }
    if (t->saved_step != t->run.step) save(t, false);
    trainer_settle_checkpoints(t);
}

static void print_profile(Trainer *t) {
    const Backend *plain = backend_find(t->options.device);
    double bandwidth = machine_bandwidth(plain, 0.5), rate = machine_matmul_rate(plain, t->spec.dtype, 1);
    printf("\nmeasured here: %.1f GB/s, %.1f GFLOP/s (%s)\n", bandwidth / 1e9, rate / 1e9, t->spec.dtype == BF16 ? "bf16" : "fp32");
    backend_timed_report(stdout, bandwidth, rate);
}

/* The last lines: why training ended, and where its results are. */
static void print_end(const Trainer *t, bool stopped) {
    const Options *o = &t->options;
    if (t->spikes && !o->quiet) printf("%lld of %lld updates were left out as spikes\n", (long long)t->spikes, (long long)(t->run.step - t->first_step));
    if (t->run.step < o->steps)
        printf("%s: step %lld is saved in %s; go on with --resume auto\n", stopped ? "interrupted" : "--max-time is over",
               (long long)t->run.step, o->out);
    else if (isfinite(t->run.best_val_loss))
        printf("done: best validation loss %.4f; the model is in %s/best, the newest state in %s/last\n", t->run.best_val_loss, o->out,
               o->out);
    else
        printf("done: the newest state is in %s/last\n", o->out);
    error_flush();   /* before another rank ends: mpirun ends all when one has a status other than 0 */
}

static void print_evaluation(Trainer *t) {
    StepReport report;
    memset(&report, 0, sizeof report);
    measure(t, &report);
    if (!isfinite(report.train_loss) || !isfinite(report.val_loss))
        die("the loss is not finite: %f on the training data, %f on the validation data", report.train_loss, report.val_loss);
    if (!first_rank(t)) return;
    progress_print_evaluation(&report);
    printf("\n");
    require_output();
}

/* Exit status 130 where a signal, to any rank, stopped the run before its end. */
static int run_training(Trainer *t) {
    catch_signals(on_signal);
    train(t);
    double signals = interrupted;
    team_sum(t->team, &signals, 1, "the end");
    bool stopped = signals > 0 && t->run.step < t->options.steps;
    if (first_rank(t)) trainer_finish(t, stopped, &interrupted);
    if (first_rank(t) && t->options.profile) print_profile(t);
    if (first_rank(t)) print_end(t, stopped);
    return stopped ? 130 : 0;
}

static int run_rank(int argc, char **argv, Team *team) {
    Trainer *t = (Trainer *)xcalloc(1, sizeof *t);
    int status = 0;
    trainer_open(t, argc, argv, team);
    if (t->options.eval_only) print_evaluation(t);
    else status = run_training(t);
    trainer_close(t);
    free(t);
    return status;
}

int main(int argc, char **argv) {
    machine_share_cores(argv);
    error_program_name("train_gpt");
    signal(SIGPIPE, SIG_IGN);   /* whoever reads our words may go away, as head does */
    catch_signals(leave_at_once);
    return launch(argc, argv, run_rank);
}
