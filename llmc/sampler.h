/* sampler.h: from logits to the next token. */
#ifndef LLMC_SAMPLER_H
#define LLMC_SAMPLER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    double temperature;   /* divides the logits; 0: the likeliest token, the first of equals */
    int64_t top_k;        /* keep the k likeliest; 0: all */
    double top_p;         /* then keep the smallest set, likeliest first, whose mass is >= p, at least one token; 1: all */
    uint64_t seed;
    int64_t V;
    int64_t drawn;        /* tokens drawn so far: the position in the random sequence */
    double *probability;  /* scratch (V) */
    int32_t *order;       /* scratch (V) */
} Sampler;

void sampler_create(Sampler *sampler, int64_t V, double temperature, int64_t top_k, double top_p, uint64_t seed);
void sampler_free(Sampler *sampler);

/* Draws from softmax(logits(V) / temperature), cut by top-k, then top-p, and renormalised. -1 if a logit is not finite. */
int32_t sampler_next(Sampler *sampler, const float *logits);

#ifdef __cplusplus
}
#endif
#endif
