/* snapshot.h: what a checkpoint holds of a model, in host memory: whole, whatever ranks and devices it lies on. */
#ifndef LLMC_SNAPSHOT_H
#define LLMC_SNAPSHOT_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Before the names of tensors in optimizer.safetensors: the moments m and v. */
extern const char *const moment_prefixes[2];

typedef struct {
    const Config *config;
    const ParameterTable *table;       /* how the arrays are laid out; both belong to the model, which outlives the snapshot */
    float *weights, *m, *v;            /* (table->elements); NULL on ranks other than 0, and m, v where the optimizer has none */
    uint32_t updates;
    char *algorithms;                  /* of matrix products, as the backend gives them */
    bool owned;                        /* the arrays are copies */
} Snapshot;

/* Fills the snapshot with the state after the last update; every rank calls it, and the gradients are used as scratch. copy: the arrays are copies,
   of memory that an earlier call into the same snapshot took if there was one; else they may be the model's own and hold until its next step. A Snapshot
   begins as zeros. moments 0: weights alone, as for an export. */
void model_snapshot(Model *m, Snapshot *snapshot, bool moments, bool copy);
void snapshot_release(Snapshot *snapshot);
/* Bytes of host memory that a copy takes on rank 0. */
size_t snapshot_bytes(const ModelSpec *spec);

#ifdef __cplusplus
}
#endif
#endif
