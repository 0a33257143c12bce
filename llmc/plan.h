/* plan.h: what a model takes, before anything is allocated: parameters, memory, floating-point operations, the largest batch that fits. */
#ifndef LLMC_PLAN_H
#define LLMC_PLAN_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Parameters as published: a tied head once, no padding. */
int64_t plan_parameters(const Config *config);
/* For --plan: the table, on stdout; for spec->ranks ranks, also what they communicate and how they scale (plan_ranks.h).
   grad_accum: of the smallest step; most_grad_accum: of the largest. Speeds: of a link in bytes/s and of matrix products in FLOP/s; memory: bytes to
   fill, in place of what this device has left; 0: not given. */
typedef struct { int64_t grad_accum, most_grad_accum; double link, matmul, memory; bool checkpoint_async; } PlanSettings;
void plan_print(const ModelSpec *spec, const Backend *backend, const PlanSettings *settings);
/* Dies, naming the largest batch that fits, if the model takes more memory than the backend has left. copy: beside one of its state in host memory,
   from which checkpoints are written while training goes on. */
void plan_check_memory(const ModelSpec *spec, const Backend *backend, bool copy);

#ifdef __cplusplus
}
#endif
#endif
