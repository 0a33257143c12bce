/* option_pairs.c: see option_pairs.h. */
#include "option_pairs.h"

#include "error.h"
#include "schedule.h"

/* Given for this start of the program, not taken from a checkpoint. */
static bool given(OptionSource source) { return source >= FROM_FILE; }

void options_settle_batch(Options *o) {
    char error[ERROR_SIZE];
    OptionSource accum = o->from.grad_accum, total = o->total_batch ? o->from.total_batch : FROM_DEFAULT;
    OptionSource schedule = o->batch_schedule[0] ? o->from.batch_schedule : FROM_DEFAULT;
    if (!schedule_check(o, error)) die("%s", error);
    if (given(schedule) && schedule == total)
        die("--total-batch %lld and --batch-schedule %s both say how large a step is; give one of them", (long long)o->total_batch,
            o->batch_schedule);
    if (given(schedule) && schedule == accum && schedule_grad_accum(o, 0) != o->grad_accum)
        die("--grad-accum %lld and --batch-schedule %s both say how many micro-batches a step has; give one of them", (long long)o->grad_accum,
            o->batch_schedule);
    OptionSource strongest = accum > total ? accum : total;
    if (schedule > strongest) strongest = schedule;
    if (total < strongest) o->total_batch = 0;
    if (schedule < strongest) o->batch_schedule[0] = 0;
}

int64_t options_grad_accum(const Options *o, int64_t micro, int64_t ranks) {
    if (!o->total_batch || o->batch_schedule[0]) return o->grad_accum;
    if (o->total_batch % micro != 0)
        die("--total-batch %lld is not a multiple of %sbatch x seq-len = %lld", (long long)o->total_batch, ranks > 1 ? "ranks x " : "",
            (long long)micro);
    int64_t count = o->total_batch / micro;
    if (given(o->from.total_batch) && o->from.total_batch == o->from.grad_accum && count != o->grad_accum)
        die("--total-batch %lld is %lld micro-batches, and --grad-accum says %lld; give one of the two", (long long)o->total_batch, (long long)count,
            (long long)o->grad_accum);
    return count;
}

int64_t options_settle_schedule(Options *o) {
    char error[ERROR_SIZE];
    int64_t before = o->warmup;
    if (o->from.warmup == FROM_MODEL) o->warmup = schedule_sensible_warmup(o);
    bool anew = given(o->from.warmup) || given(o->from.decay_steps) || given(o->from.schedule) || given(o->from.steps) || given(o->from.lr)
             || given(o->from.min_lr);
    if (anew && !schedule_check_lr(o, error)) die("%s", error);
    return o->warmup == before ? 0 : before;
}

void options_refuse_pairs(const Options *o) {
    if (o->overfit && o->eval_only) die("--overfit trains, and --eval-only does not; leave one of them out");
    if (o->overfit && o->batch_schedule[0]) die("--overfit trains on one batch, and --batch-schedule changes its size; leave one of them out");
    if (o->profile && o->check_numerics) die("--profile times ops, and --check-numerics makes them slow; leave one of them out");
    if (o->print_config && o->plan) die("--print-config and --plan each print and exit; give one of them");
}

static bool chosen(const char *option, int64_t value, const char *word) {
    return option_choice_index(options_find(&train_options, option)->choices, word) == value;
}

void options_warn_idle(const Options *o, const RunKind *kind) {
    bool fixed = chosen("schedule", o->schedule, "constant"), inverse = chosen("schedule", o->schedule, "inverse-sqrt");
    bool root = chosen("schedule", o->schedule, "sqrt-decay"), sgd = chosen("optimizer", o->optimizer, "sgd");
    bool timed = o->autotune && !o->deterministic, rotates = chosen("pos", o->pos, "rope"), normless = chosen("norm", o->norm, "none");
    const char *of_gpus = "it is for GPUs, and this is the CPU";
    const char *untimed = o->deterministic ? "--deterministic takes the library's first choice" : "--no-autotune times none";
    const struct { const char *name; OptionSource from; bool idle; const char *because; } rows[] = {
        {"attention", o->from.attention, kind->cpu && o->attention, of_gpus},
        {"tf32", o->from.tf32, o->tf32 && (kind->cpu || kind->bf16), kind->cpu ? of_gpus : "it is for fp32, and this is bf16"},
        {"autotune", o->from.autotune, o->autotune && (kind->cpu || !timed), kind->cpu ? of_gpus : untimed},
        {"algorithms", o->from.algorithms, o->algorithms[0] && (kind->cpu || !timed), kind->cpu ? of_gpus : untimed},
        {"graphs", o->from.graphs, o->graphs && (kind->cpu || o->profile || o->check_numerics),
         kind->cpu ? of_gpus : "--profile and --check-numerics look at one op after the other"},
        {"beta1", o->from.beta1, sgd, "it is AdamW's"},
        {"beta2", o->from.beta2, sgd, "it is AdamW's"},
        {"eps", o->from.eps, sgd, "it is AdamW's"},
        {"warmup", o->from.warmup, o->warmup && root, "--schedule sqrt-decay has no warm-up"},
        {"decay-steps", o->from.decay_steps, o->decay_steps && (fixed || inverse || root), "that --schedule has no end"},
        {"min-lr", o->from.min_lr, o->min_lr > 0 && (fixed || inverse || root), "that --schedule has no end"},
        {"rope-base", o->from.rope_base, !rotates, "--pos is not rope"},
        {"rope-layout", o->from.rope_layout, !rotates, "--pos is not rope"},
        {"qkv-bias", o->from.qkv_bias, o->qkv_bias && o->bias, "without --no-bias every linear layer has biases"},
        {"norm-eps", o->from.norm_eps, normless && !o->qk_norm, "there are no norms"},
        {"init-scheme", o->from.init_scheme, kind->loaded, "the weights are loaded"},
        {"hellaswag-limit", o->from.hellaswag_limit, o->hellaswag_limit && !o->hellaswag[0], "there is no --hellaswag FILE"},
        {"sample-every", o->from.sample_every, o->sample_every && !o->sample_tokens, "--sample-tokens is 0"},
        {"sample-prompt", o->from.sample_prompt, !o->sample_tokens, "--sample-tokens is 0"},
        {"plan-memory", o->from.plan_memory, o->plan_memory > 0, "it is for --plan"},
        {"link-speed", o->from.link_speed, o->link_speed > 0, "it is for --plan"},
        {"matmul-speed", o->from.matmul_speed, o->matmul_speed > 0, "it is for --plan"},
        {"profile", o->from.profile, o->profile && o->eval_only, "--eval-only does not train"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].idle && given(rows[i].from)) warn("--%s changes nothing: %s", rows[i].name, rows[i].because);
}
