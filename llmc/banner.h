/* banner.h: what a run says of itself before it begins: model, data, step, device, ranks, directory. */
#ifndef LLMC_BANNER_H
#define LLMC_BANNER_H

#include "trainer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* On stdout. weights: the directory that the model comes from, or NULL; shortened: the warm-up that gave way to a shorter one, as
   options_settle_schedule gives it, or 0. */
void banner_print(const Trainer *t, const char *weights, int64_t shortened);

#ifdef __cplusplus
}
#endif
#endif
