/* plan_ranks.c: see plan_ranks.h. */
#include "plan_ranks.h"

#include "error.h"

#include <stdlib.h>

double exposed_after(const Leg *legs, int n) {
    double ready = 0, link_free = 0;
    for (int i = 0; i < n; i++) {
        ready += legs[i].compute;
        if (legs[i].transfer > 0) link_free = (link_free > ready ? link_free : ready) + legs[i].transfer;
    }
    return link_free > ready ? link_free - ready : 0;
}

double exposed_before(const Leg *legs, int n) {
    double now = 0, arrived = 0, computing = 0;
    for (int i = 0; i < n; i++) {
        arrived += legs[i].transfer;
        if (legs[i].transfer > 0 && arrived > now) now = arrived;
        now += legs[i].compute;
        computing += legs[i].compute;
    }
    return now - computing;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------------- */

static int64_t ranks_of(const ModelSpec *spec) { return spec->ranks > 0 ? spec->ranks : 1; }

/* Of n bytes, how many a rank sends in a reduce-scatter or an all-gather. */
static double ring_bytes(const ModelSpec *spec, double n) { return n * (double)(ranks_of(spec) - 1) / (double)ranks_of(spec); }

static double gradient_bytes(const ModelSpec *spec, int64_t elements) { return (spec->zero ? 1 : 2) * ring_bytes(spec, 4.0 * (double)elements); }
static double parameter_bytes(const ModelSpec *spec, int64_t elements) {
    return spec->zero ? ring_bytes(spec, (double)dtype_size(spec->dtype) * (double)elements) : 0;
}
static double totals_bytes(const ModelSpec *spec) { return 2 * ring_bytes(spec, TOTALS * sizeof(float)); }
static double squares_bytes(const ModelSpec *spec) { return spec->zero ? 2 * ring_bytes(spec, sizeof(double)) : 0; }

RanksTraffic ranks_traffic(const ModelSpec *spec) {
    RanksTraffic traffic = {0};
    if (ranks_of(spec) == 1) return traffic;
    ParameterTable table;
    model_table(&table, spec);
    for (int i = 0; i < table.bucket_count; i++) {
        traffic.gradients += gradient_bytes(spec, table.buckets[i].count);
        traffic.parameters += parameter_bytes(spec, table.buckets[i].count);
    }
    traffic.others = totals_bytes(spec) + squares_bytes(spec);
    traffic.collectives = spec->zero ? 2 * table.bucket_count + 2 : table.bucket_count + 1;
    parameters_release(&table);
    return traffic;
}

/* ---- time -------------------------------------------------------------------------------------------------------------------- */

/* Seconds of the forward pass of a micro-step: in a layer, and in the head. */
typedef struct { double layer, head; } ForwardTime;

static ForwardTime forward_time(const ModelSpec *spec, double matmul) {
    const Config *c = &spec->config;
    double tokens = (double)(spec->B * spec->T), head = 2.0 * (double)(c->V * c->C);
    double all = config_flops_per_token(c, spec->T) / 3;
    ForwardTime time = {(all - head) / (double)c->L * tokens / matmul, head * tokens / matmul};
    return time;
}

static double transfer_time(double bytes, double link) { return bytes > 0 ? bytes / link + LINK_LATENCY : 0; }

/* The buckets of a table in the order in which backward is done with them: -1 stands for what a model has not. */
static int bucket_after_head(const ParameterTable *table, int place, int64_t L) {
    if (place == 0) return table->bucket_of_norm;
    return place <= L ? table->bucket_of_layer + (int)(L - place) : BUCKET_EMBEDDING;
}

static double bucket_time(const ParameterTable *table, int bucket, const ModelSpec *spec, double (*bytes)(const ModelSpec *, int64_t), double link) {
    return bucket < 0 ? 0 : transfer_time(bytes(spec, table->buckets[bucket].count), link);
}

/* The last micro-step's backward, legs[L + 4]: totals behind the head, head, final norm, layers, embeddings. */
static void backward_legs(Leg *legs, const ParameterTable *table, const ModelSpec *spec, ForwardTime forward, double link) {
    int64_t L = spec->config.L;
    legs[0] = (Leg){2 * forward.head, transfer_time(totals_bytes(spec), link)};
    legs[1] = (Leg){0, bucket_time(table, table->bucket_of_head, spec, gradient_bytes, link)};
    for (int place = 0; place <= L + 1; place++) {
        bool layer = place >= 1 && place <= L;
        int bucket = bucket_after_head(table, place, L);
        legs[2 + place] = (Leg){layer ? 2 * forward.layer : 0, bucket_time(table, bucket, spec, gradient_bytes, link)};
    }
}

/* The next step's first forward, legs[L + 3]: embeddings, layers, final norm, head. */
static void forward_legs(Leg *legs, const ParameterTable *table, const ModelSpec *spec, ForwardTime forward, double link) {
    int64_t L = spec->config.L;
    for (int place = 0; place <= L + 1; place++) {
        bool layer = place >= 1 && place <= L;
        int bucket = bucket_after_head(table, (int)L + 1 - place, L);
        legs[place] = (Leg){layer ? forward.layer : 0, bucket_time(table, bucket, spec, parameter_bytes, link)};
    }
    legs[L + 2] = (Leg){forward.head, bucket_time(table, table->bucket_of_head, spec, parameter_bytes, link)};
}

static double transfers(const Leg *legs, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += legs[i].transfer;
    return sum;
}

RanksTime ranks_time(const ModelSpec *spec, int64_t grad_accum, double link, double matmul) {
    RanksTime time = {0};
    const int L = (int)spec->config.L;
    time.step = config_flops_per_token(&spec->config, spec->T) * (double)(grad_accum * spec->B * spec->T) / matmul;
    time.efficiency = 1;
    if (ranks_of(spec) == 1) return time;
    ParameterTable table;
    model_table(&table, spec);
    Leg *legs = (Leg *)xcalloc((size_t)L + 4, sizeof *legs);
    ForwardTime forward = forward_time(spec, matmul);
    backward_legs(legs, &table, spec, forward, link);
    double squares = transfer_time(squares_bytes(spec), link);
    time.exposed = exposed_after(legs, L + 4) + squares;
    time.busy = transfers(legs, L + 4) + squares;
    time.exposed_embedding = legs[L + 3].transfer;
    forward_legs(legs, &table, spec, forward, link);
    time.exposed += exposed_before(legs, L + 3);
    time.busy += transfers(legs, L + 3);
    time.exposed_embedding += legs[0].transfer;
    time.efficiency = time.step / (time.step + time.exposed);
    free(legs);
    parameters_release(&table);
    return time;
}
