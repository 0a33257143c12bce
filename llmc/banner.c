/* banner.c: see banner.h. */
#include "banner.h"

#include "plan.h"
#include "schedule.h"

#include <stdio.h>
#include <string.h>

/* How large a step of all ranks is, and how many there are. */
static void print_steps(const Options *o, int64_t ranks, int64_t shortened) {
    int64_t least = schedule_least_grad_accum(o), most = schedule_most_grad_accum(o), rows = ranks * o->batch * o->seq_len;
    char of_ranks[64] = "", counts[64], tokens[32], largest[32];
    format_count(tokens, (double)(least * rows));
    format_count(largest, (double)(most * rows));
    if (ranks > 1) snprintf(of_ranks, sizeof of_ranks, "%lld ranks x ", (long long)ranks);
    if (least == most) snprintf(counts, sizeof counts, "%lld", (long long)most);
    else snprintf(counts, sizeof counts, "%lld to %lld", (long long)least, (long long)most);
    printf("step    %s%s micro-batches x %lld rows x %lld tokens = %s%s%s tokens", of_ranks, counts, (long long)o->batch, (long long)o->seq_len,
           tokens, least == most ? "" : " to ", least == most ? "" : largest);
    if (o->batch_schedule[0]) printf(" (--batch-schedule %s)", o->batch_schedule);
    printf("; %lld steps of %s, peak lr %g\n", (long long)o->steps, o->optimizer ? "SGD" : "AdamW", o->lr);
    if (shortened)
        printf("note    a warm-up of %lld steps, not %lld: at most a tenth of the schedule, unless --warmup is given\n", (long long)o->warmup,
               (long long)shortened);
    if (!schedule_reaches_peak(o))
        printf("note    the peak lr is never reached: the warm-up takes %lld steps, and the run has %lld\n", (long long)o->warmup,
               (long long)o->steps);
}

void banner_print(const Trainer *t, const char *weights, int64_t shortened) {
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
    printf("\n");
    if (o->eval_only) printf("batch   %lld rows x %lld tokens\n", (long long)o->batch, (long long)o->seq_len);
    else print_steps(o, t->ranks, shortened);
    if (strcmp(o->device, "auto") == 0 && backend_missing("auto")) printf("note    on the cpu: %s\n", backend_missing("auto"));
    printf("device  %s, %s, %s of memory\n", t->backend->describe(), t->spec.dtype == BF16 ? "bf16" : "fp32", memory);
    if (t->comm) printf("ranks   %lld over %s%s\n", (long long)t->ranks, comm_name(t->comm), t->spec.zero ? ", ZeRO-1" : "");
    if (o->eval_only) printf("weights %s\n", weights);
    else printf("run     %s\n", o->out);
    fflush(stdout);
}
