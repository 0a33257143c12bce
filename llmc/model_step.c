/* model_step.c: an optimizer step as the host drives it. The host runs ahead of the device: inputs go through two pinned buffers, so that the
   next micro-batch is filled in while the last is still on its way; the outcome of a step comes back into two more, to be read a step later;
   and from the third time on each kind of micro-step is one graph instead of hundreds of launches.

   A micro-step that starts collectives or waits for some is no graph: the host has a part in them, and would have none in the replay. */
#include "model_step.h"

#include "error.h"
#include "model_ranks.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFERS = 2 };

/* What a micro-step or an update looks like is the same every time but for the first micro-step of a step, which assigns gradients. */
typedef enum { GRAPH_FIRST, GRAPH_MIDDLE, GRAPH_UPDATE, GRAPHS } GraphKind;

typedef struct {
    char *memory;       /* Inputs, then tokens(B,T), then targets(B,T); or an Outcome */
    Event *done;        /* the device has read it, or written it */
} Buffer;

typedef struct {
    StepState state;
    float totals[TOTALS];
} Inputs;

typedef struct {
    StepState state;
    float loss_sum, totals[TOTALS];
} Outcome;

struct Step {
    Buffer inputs[BUFFERS], outcomes[BUFFERS];
    int64_t inputs_sent, updates_sent;
    int64_t valid, micro_steps;   /* of the step under way */
    Graph *graphs[GRAPHS];
    int runs[GRAPHS];
};

static size_t batch_bytes(const Model *m) { return tensor_bytes(m->a.tokens); }

void step_open(Model *m) {
    const Backend *b = m->backend;
    struct Step *step = m->step = (struct Step *)xcalloc(1, sizeof *step);
    for (int i = 0; i < BUFFERS; i++) {
        step->inputs[i].memory = (char *)b->alloc_host(sizeof(Inputs) + 2 * batch_bytes(m));
        step->inputs[i].done = b->event_open();
        step->outcomes[i].memory = (char *)b->alloc_host(sizeof(Outcome));
        step->outcomes[i].done = b->event_open();
    }
}

void step_close(Model *m) {
    const Backend *b = m->backend;
    struct Step *step = m->step;
    for (int i = 0; i < BUFFERS; i++) {
        b->release_host(step->inputs[i].memory);
        b->event_close(step->inputs[i].done);
        b->release_host(step->outcomes[i].memory);
        b->event_close(step->outcomes[i].done);
    }
    for (int i = 0; i < GRAPHS; i++)
        if (step->graphs[i]) b->graph_close(step->graphs[i]);
    free(step);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------------------ */

/* Runs work(m), which only puts ops into the stream and does the same ones every time. The first time as it is, because libraries then choose
   and load what they need, which cannot be captured; the second time under capture; from then on by its graph. */
static void run_captured(Model *m, GraphKind kind, void (*work)(Model *m)) {
    const Backend *b = m->backend;
    struct Step *step = m->step;
    if (!m->use_graphs || !b->graph_begin || step->runs[kind]++ == 0) {
        work(m);
        return;
    }
    if (!step->graphs[kind]) {
        b->graph_begin(m->stream);
        work(m);
        step->graphs[kind] = b->graph_end(m->stream);
    }
    b->graph_launch(step->graphs[kind], m->stream);
}

/* ---- the step ---------------------------------------------------------------------------------------------------------------- */

/* Hands state, totals and micro-batch to the device. Of state and totals only what the host owns: the rest is the device's. */
static void send_inputs(Model *m, const int32_t *tokens, const int32_t *targets) {
    const Backend *b = m->backend;
    Buffer *buffer = &m->step->inputs[m->step->inputs_sent++ % BUFFERS];
    Inputs *inputs = (Inputs *)buffer->memory;
    char *host_tokens = buffer->memory + sizeof *inputs, *host_targets = host_tokens + batch_bytes(m);
    ranks_wait_event(m, buffer->done, "a micro-step");
    inputs->state = m->state;
    inputs->totals[TOTAL_VALID] = (float)m->step->valid;
    inputs->totals[TOTAL_VOTES] = m->vote ? 1.0f : 0.0f;
    memcpy(host_tokens, tokens, batch_bytes(m));
    memcpy(host_targets, targets, batch_bytes(m));
    b->upload(m->device_state, &inputs->state, offsetof(StepState, loss), m->stream);
    b->upload((float *)m->a.totals.data + TOTAL_VALID, &inputs->totals[TOTAL_VALID], (TOTALS - TOTAL_VALID) * sizeof(float), m->stream);
    b->upload(m->a.tokens.data, host_tokens, batch_bytes(m), m->stream);
    b->upload(m->a.targets.data, host_targets, batch_bytes(m), m->stream);
    b->event_record(buffer->done, m->stream);
}

void model_begin_step(Model *m, const StepSettings *settings) {
    const int64_t targets = settings->targets > 0 ? settings->targets : settings->valid;
    CHECK(!m->comm || (settings->targets > 0 && settings->micro_steps > 0 && !m->together->given));
    m->state.step = (uint32_t)settings->step;
    m->state.lr = (float)settings->lr;
    m->state.max_norm = (float)settings->max_norm;
    m->state.targets = (float)targets;
    m->state.loss_scale = targets > 0 ? (float)(1.0 / (double)targets) : 0.0f;
    m->state.spike_loss = (float)settings->spike_loss;
    m->state.spike_norm = (float)settings->spike_norm;
    m->step->valid = settings->valid;
    m->step->micro_steps = settings->micro_steps;
}

static void first_micro_step(Model *m) {
    model_forward(m, true);
    model_backward(m, true);
}
static void middle_micro_step(Model *m) {
    model_forward(m, false);
    model_backward(m, false);
}

void model_micro_step(Model *m, const int32_t *tokens, const int32_t *targets, int64_t sample, int64_t micro) {
    CHECK(m->spec.mode == MODEL_TRAIN);
    m->state.sample = sample;
    m->training = true;
    m->together->exchanging = m->comm && micro == m->step->micro_steps - 1;
    send_inputs(m, tokens, targets);
    if (m->together->exchanging || ranks_gathering(m)) (micro == 0 ? first_micro_step : middle_micro_step)(m);
    else if (micro == 0) run_captured(m, GRAPH_FIRST, first_micro_step);
    else run_captured(m, GRAPH_MIDDLE, middle_micro_step);
    m->together->exchanging = false;
    m->training = false;
}

static void update_share(Model *m, const Share *share) {
    const OpTable *op = &m->backend->op;
    Tensor parameters = share_of(m, m->parameters, share), masters = share_of(m, m->masters, share), gradients = share_of(m, m->gradients, share);
    Tensor segments = share_segments(m, share);
    if (m->spec.optimizer == OPTIMIZER_SGD)
        op->sgd(parameters, masters, gradients, segments, m->adamw.weight_decay, m->device_state, m->stream);
    else
        op->adamw(parameters, masters, share_of(m, m->m, share), share_of(m, m->v, share), gradients, segments, m->adamw, m->device_state, m->stream);
}

/* With ZeRO every rank adds up the squares of its shares, and sends what it has updated. */
static void update(Model *m) {
    const OpTable *op = &m->backend->op;
    const struct Ranks *r = m->together;
    for (int i = 0; i < r->share_count; i++) op->sum_of_squares(m->a.squares, share_of(m, m->gradients, &r->shares[i]), i > 0, m->stream);
    if (m->spec.zero) ranks_sum(m, m->a.squares);
    op->global_norm(m->device_state, m->a.totals, m->a.squares, m->stream);
    for (int i = 0; i < r->share_count; i++) {
        update_share(m, &r->shares[i]);
        if (m->spec.zero) ranks_gather(m, r->shares[i].bucket);
    }
}

void model_update(Model *m) {
    const Backend *b = m->backend;
    Buffer *buffer = &m->step->outcomes[m->step->updates_sent++ % BUFFERS];
    ranks_await_given(m);
    if (m->comm && m->spec.zero) update(m);
    else run_captured(m, GRAPH_UPDATE, update);
    b->download_later(buffer->memory + offsetof(Outcome, state), m->device_state, sizeof(StepState), m->stream);
    b->download_later(buffer->memory + offsetof(Outcome, loss_sum), m->a.loss_sum.data, sizeof(float), m->stream);
    b->download_later(buffer->memory + offsetof(Outcome, totals), m->a.totals.data, TOTALS * sizeof(float), m->stream);
    b->event_record(buffer->done, m->stream);
}

/* By way of 1/valid in fp32, as the gradient has it where all targets are valid. */
static double mean_loss(double sum, double valid) { return valid > 0 ? sum * (double)(float)(1.0 / valid) : sum; }

StepOutcome model_outcome(const Model *m, int back) {
    int64_t number = m->step->updates_sent - 1 - back;
    CHECK(back >= 0 && back < BUFFERS && number >= 0);
    const Buffer *buffer = &m->step->outcomes[number % BUFFERS];
    const Outcome *outcome = (const Outcome *)buffer->memory;
    ranks_wait_event(m, buffer->done, "the end of a step");
    StepOutcome result = {mean_loss(outcome->totals[TOTAL_LOSS], outcome->totals[TOTAL_VALID]), outcome->state.grad_norm, outcome->loss_sum,
                          (StepSkip)outcome->state.skip, (int)outcome->totals[TOTAL_VOTES]};
    return result;
}

static StepState download_state(const Model *m) {
    StepState state;
    ranks_synchronize(m, "the end of a step");
    m->backend->download(&state, m->device_state, sizeof state, m->stream);
    return state;
}

static float download_loss_sum(const Model *m) {
    float sum;
    ranks_synchronize(m, "a micro-step");
    m->backend->download(&sum, m->a.loss_sum.data, sizeof sum, m->stream);
    return sum;
}

double model_loss(const Model *m) { return mean_loss(download_loss_sum(m), (double)m->step->valid); }
double model_grad_norm(const Model *m) { return download_state(m).grad_norm; }
bool model_skipped(const Model *m) { return download_state(m).skip != 0; }
uint32_t model_updates(const Model *m) { return download_state(m).updates; }

void model_set_updates(Model *m, uint32_t updates) {
    m->backend->upload(&m->device_state->updates, &updates, sizeof updates, m->stream);
    m->backend->synchronize(m->stream);
}

double model_evaluate(Model *m, const int32_t *tokens, const int32_t *targets) {
    send_inputs(m, tokens, targets);
    model_forward(m, true);
    return download_loss_sum(m);
}
