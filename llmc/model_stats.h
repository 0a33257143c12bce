/* model_stats.h: what a model looks like inside, in a few hundred numbers: the size of every parameter, of its gradient, and of what flows from
   layer to layer. They are computed from what lies in memory after a step, without running anything again.

     weights      L2 norm of each parameter tensor, after the update: of the fp32 values that the optimizer keeps
     gradients    L2 norm of the gradient of each, as it enters clipping: that of the mean loss over the valid targets of the global batch. The
                  root of the sum of their squares is the step's grad_norm
     activations  root mean square over all elements, in the last micro-batch; of several ranks, over the last one of each

   Activations are those that backward keeps, in the order in which they come to be: embedded (after its dropout), and of each layer ln1, qkv (after
   bias; after rotation where RoPE follows it directly), att, mid, ln2, fc (before the activation), fc_act, out; then lnf. Those that the
   model does not have are left out, and so are those that --recompute does not keep one a layer: fc_act from mlp on, ln1 and ln2 from norm on, all
   but embedded, out and lnf with block. Post-norm has no norm before its first block: the first of its ln1 is null. */
#ifndef LLMC_MODEL_STATS_H
#define LLMC_MODEL_STATS_H

#include "model.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ModelStats ModelStats;

/* For a model that trains and outlives it. Takes a few kilobytes of device memory, the only time. */
ModelStats *model_stats_create(Model *m);
/* NULL is none. */
void model_stats_free(ModelStats *stats);

/* Of the last step: after model_outcome(m, 0), before the next step, an evaluation or a snapshot, which write over what is read here. Every rank calls
   it, and all get the same numbers. Changes nothing that training reads. Waits. */
void model_stats_measure(ModelStats *stats);

/* What was measured last, as one JSON object without a newline: {"weights": {"wte": [n], "ln1w": [n of layer 0, n of layer 1, ...], ...},
   "gradients": {the same keys}, "activations": {"embedded": [r], "ln1": [r of layer 0, ...], ...}}, keys as in PARAMETER_LIST and ACTIVATION_LIST,
   numbers as fp32. What is not finite is null. */
void model_stats_write(FILE *file, const ModelStats *stats);

#ifdef __cplusplus
}
#endif
#endif
