/* model_step.c: an optimizer step as the host drives it. The host runs ahead of the device: inputs go through two pinned buffers, so that the
   next micro-batch is filled in while the last is still on its way; the outcome of a step comes back into two more, to be read a step later;
   and from the third time on each kind of micro-step is one graph instead of hundreds of launches. */
#include "model_step.h"

#include "error.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFERS = 2 };

/* What a micro-step or an update looks like is the same every time but for the first micro-step of a step, which assigns gradients. */
typedef enum { GRAPH_FIRST, GRAPH_MIDDLE, GRAPH_UPDATE, GRAPHS } GraphKind;

typedef struct {
    char *memory;       /* StepState, then tokens(B,T), then targets(B,T); or an Outcome */
    Event *done;        /* the device has read it, or written it */
} Buffer;

typedef struct {
    StepState state;
    float loss_sum;
} Outcome;

struct Step {
    Buffer inputs[BUFFERS], outcomes[BUFFERS];
    int64_t inputs_sent, updates_sent;
    Graph *graphs[GRAPHS];
    int runs[GRAPHS];
};

static size_t batch_bytes(const Model *m) { return tensor_bytes(m->a.tokens); }

void step_open(Model *m) {
    const Backend *b = m->backend;
    struct Step *step = m->step = (struct Step *)xcalloc(1, sizeof *step);
    for (int i = 0; i < BUFFERS; i++) {
        step->inputs[i].memory = (char *)b->alloc_host(sizeof(StepState) + 2 * batch_bytes(m));
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

/* Hands state and micro-batch to the device. Of the state only the fields that the host owns: the rest is written by global_norm. */
static void send_inputs(Model *m, const int32_t *tokens, const int32_t *targets) {
    const Backend *b = m->backend;
    Buffer *buffer = &m->step->inputs[m->step->inputs_sent++ % BUFFERS];
    char *host_tokens = buffer->memory + sizeof(StepState), *host_targets = host_tokens + batch_bytes(m);
    b->event_wait(buffer->done);
    memcpy(buffer->memory, &m->state, sizeof m->state);
    memcpy(host_tokens, tokens, batch_bytes(m));
    memcpy(host_targets, targets, batch_bytes(m));
    b->upload(m->device_state, buffer->memory, offsetof(StepState, grad_norm), m->stream);
    b->upload(m->a.tokens.data, host_tokens, batch_bytes(m), m->stream);
    b->upload(m->a.targets.data, host_targets, batch_bytes(m), m->stream);
    b->event_record(buffer->done, m->stream);
}

void model_begin_step(Model *m, int64_t step, double lr, double max_norm, int64_t valid_targets) {
    m->state.step = (uint32_t)step;
    m->state.lr = (float)lr;
    m->state.max_norm = (float)max_norm;
    m->state.loss_scale = valid_targets > 0 ? (float)(1.0 / (double)valid_targets) : 0.0f;
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
    send_inputs(m, tokens, targets);
    if (micro == 0) run_captured(m, GRAPH_FIRST, first_micro_step);
    else run_captured(m, GRAPH_MIDDLE, middle_micro_step);
    m->training = false;
}

static void update(Model *m) {
    const OpTable *op = &m->backend->op;
    op->global_norm(m->device_state, m->a.loss_sum, m->gradients, m->stream);
    if (m->spec.optimizer == OPTIMIZER_SGD)
        op->sgd(m->parameters, m->masters, m->gradients, m->segments, m->adamw.weight_decay, m->device_state, m->stream);
    else
        op->adamw(m->parameters, m->masters, m->m, m->v, m->gradients, m->segments, m->adamw, m->device_state, m->stream);
}

void model_update(Model *m) {
    const Backend *b = m->backend;
    Buffer *buffer = &m->step->outcomes[m->step->updates_sent++ % BUFFERS];
    run_captured(m, GRAPH_UPDATE, update);
    b->download_later(buffer->memory + offsetof(Outcome, state), m->device_state, sizeof(StepState), m->stream);
    b->download_later(buffer->memory + offsetof(Outcome, loss_sum), m->a.loss_sum.data, sizeof(float), m->stream);
    b->event_record(buffer->done, m->stream);
}

StepOutcome model_outcome(const Model *m, int back) {
    int64_t number = m->step->updates_sent - 1 - back;
    CHECK(back >= 0 && back < BUFFERS && number >= 0);
    const Buffer *buffer = &m->step->outcomes[number % BUFFERS];
    const Outcome *outcome = (const Outcome *)buffer->memory;
    m->backend->event_wait(buffer->done);
    StepOutcome result = {(double)outcome->loss_sum * (double)outcome->state.loss_scale, outcome->state.grad_norm, outcome->state.skip != 0};
    return result;
}

static StepState download_state(const Model *m) {
    StepState state;
    m->backend->download(&state, m->device_state, sizeof state, m->stream);
    return state;
}

static float download_loss_sum(const Model *m) {
    float sum;
    m->backend->download(&sum, m->a.loss_sum.data, sizeof sum, m->stream);
    return sum;
}

double model_loss(const Model *m) { return (double)download_loss_sum(m) * (double)m->state.loss_scale; }
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
