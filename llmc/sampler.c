/* sampler.c: temperature, top-k and top-p. */
#include "sampler.h"

#include "error.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void sampler_create(Sampler *s, int64_t V, double temperature, int64_t top_k, double top_p, uint64_t seed) {
    memset(s, 0, sizeof *s);
    s->V = V;
    s->temperature = temperature;
    s->top_k = top_k > 0 && top_k < V ? top_k : V;
    s->top_p = top_p;
    s->seed = seed;
    s->probability = xmalloc((size_t)V * sizeof *s->probability);
    s->order = xmalloc((size_t)V * sizeof *s->order);
}

void sampler_free(Sampler *s) {
    free(s->probability);
    free(s->order);
}

/* A uniform number in [0, 1) for the n-th draw. */
static double uniform(uint64_t seed, int64_t n) {
    enum { SAMPLER_TENSOR = 0xFFFFFFFE };
    return (double)philox_at(seed, 0, SAMPLER_TENSOR, (uint64_t)n) / 4294967296.0;
}

static int32_t likeliest(const float *logits, int64_t V) {
    int64_t best = 0;
    for (int64_t i = 1; i < V; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* probability = softmax(logits / temperature) */
static void softmax(Sampler *s, const float *logits) {
    double greatest = logits[likeliest(logits, s->V)], sum = 0;
    for (int64_t i = 0; i < s->V; i++) sum += s->probability[i] = exp((logits[i] - greatest) / s->temperature);
    for (int64_t i = 0; i < s->V; i++) s->probability[i] /= sum;
}

static const double *sort_keys;   /* qsort has no context argument; a sampler is used by one thread at a time */
static int likelier_first(const void *a, const void *b) {
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sort_keys[i] != sort_keys[j]) return sort_keys[i] > sort_keys[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

/* Orders the tokens, and returns how many of them stay and their mass. */
static int64_t cut(Sampler *s, double *mass) {
    int64_t kept = 0;
    bool all = s->top_k == s->V && s->top_p >= 1;
    for (int64_t i = 0; i < s->V; i++) s->order[i] = (int32_t)i;
    if (!all) {
        sort_keys = s->probability;
        qsort(s->order, (size_t)s->V, sizeof *s->order, likelier_first);
    }
    double total = 0, wanted;
    for (int64_t i = 0; i < s->top_k; i++) total += s->probability[s->order[i]];
    /* top-p counts what top-k left as the whole */
    wanted = s->top_p * total;
    *mass = 0;
    while (kept < s->top_k && (kept == 0 || s->top_p >= 1 || *mass < wanted)) *mass += s->probability[s->order[kept++]];
    return kept;
}

int32_t sampler_next(Sampler *s, const float *logits) {
    for (int64_t i = 0; i < s->V; i++)
        if (!isfinite(logits[i])) return -1;
    int64_t draw = s->drawn++;
    if (s->temperature == 0) return likeliest(logits, s->V);
    double mass;
    softmax(s, logits);
    int64_t kept = cut(s, &mass);
    double left = uniform(s->seed, draw) * mass;
    for (int64_t i = 0; i < kept; i++) {
        left -= s->probability[s->order[i]];
        if (left < 0) return s->order[i];
    }
    return s->order[kept - 1];
}
