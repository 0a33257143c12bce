/* model_step.h: between model.c, which has the passes and the memory, and model_step.c, which has the step. Not for others. */
#ifndef LLMC_MODEL_STEP_H
#define LLMC_MODEL_STEP_H

#include "model.h"

/* The passes over one micro-batch that lies on the device already. */
void model_forward(Model *m, bool first_micro);
void model_backward(Model *m, bool first_micro);

/* Host memory, events and graphs of the steps. */
void step_open(Model *m);
void step_close(Model *m);

#endif
