/* rope_scaling.h: RoPE for contexts longer than the one that a model was trained at. Pair i of a head turns by base^(-2i/HS) a position;
   a scaling makes it turn slower, by up to `factor`, so that far positions come back to angles that the model knows. A share k of its
   speed a pair keeps: speed (k + (1 - k) / factor).

     linear   no pair keeps any (Chen et al. 2023, position interpolation)
     llama3   by how often a pair turns in the original context: none of its speed below low_freq turns, all of it above high_freq,
              in between linearly (Llama 3.1, as transformers defines rope_type llama3)
     yarn     the same bounds, but in between linearly by the pair's number; and queries and keys are `magnitude` times as large,
              1 + ln(factor) / 10 where none is given (Peng et al. 2023, YaRN, as transformers defines rope_type yarn) */
#ifndef LLMC_ROPE_SCALING_H
#define LLMC_ROPE_SCALING_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SCALING_NONE, SCALING_LINEAR, SCALING_LLAMA3, SCALING_YARN } ScalingKind;   /* in the order of --rope-scaling's words */

/* What its kind does not heed is 0. */
typedef struct {
    ScalingKind kind;
    double factor;
    int64_t original_len;          /* llama3, yarn: tokens of the original context */
    double low_freq, high_freq;    /* llama3, yarn: turns in it */
    double magnitude;              /* yarn */
    bool whole_pairs;              /* yarn: low_freq and high_freq are moved outwards to whole pairs */
} RopeScaling;

/* The scaling with 0 in what its kind does not heed, and the kind's own bounds and magnitude where they are 0. */
RopeScaling rope_scaling_settled(RopeScaling scaling);
/* False, with a sentence, unless a settled scaling makes sense for that base. */
bool rope_scaling_check(const RopeScaling *scaling, double base, char error[ERROR_SIZE]);
/* YaRN's own magnitude for a factor. */
double yarn_magnitude(double factor);
/* Radians that pair i of a head of HS channels turns by from one position to the next; the scaling is settled. */
double rope_frequency(const RopeScaling *scaling, double base, int64_t HS, int64_t i);
/* What queries and keys are multiplied by: 1 but for yarn. */
static inline double rope_magnitude(const RopeScaling *scaling) { return scaling->kind == SCALING_YARN ? scaling->magnitude : 1; }

#ifdef __cplusplus
}
#endif
#endif
