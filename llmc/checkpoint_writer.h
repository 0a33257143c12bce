/* checkpoint_writer.h: checkpoints written on a thread of their own while training goes on, one at a time. A write that fails is tried three times
   in all, with a second and then three between, since network file systems and busy disks fail for a moment and somebody may make room on a full one;
   when that does not help it is reported on stderr and training goes on, with the earlier checkpoints as they were. For rank 0. */
#ifndef LLMC_CHECKPOINT_WRITER_H
#define LLMC_CHECKPOINT_WRITER_H

#include "checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CheckpointWriter CheckpointWriter;

/* run, options, which stay as they are, tokenizer_directory (may be NULL) and the model of the snapshots outlive the writer. best_val_loss: of the best
   checkpoint of the run that is there; INFINITY if none is. Where no thread can be had, it warns, and saves wait. */
CheckpointWriter *checkpoint_writer_open(const char *run, const Options *options, const char *tokenizer_directory, double best_val_loss,
                                         bool background);
/* True if it works in the background, from copies: what to give model_snapshot as `copy`. */
bool checkpoint_writer_copies(const CheckpointWriter *w);
/* The snapshot to fill for the next save: waits until the writer is done with it. */
Snapshot *checkpoint_writer_snapshot(CheckpointWriter *w);
/* Writes that snapshot (checkpoint_save); in the background it returns at once. The state is copied; unless this save is the best one, with the best
   loss that is on the disk. last: the run ends with it, and only checkpoint_writer_wait tells if it fails. */
void checkpoint_writer_save(CheckpointWriter *w, const RunState *state, bool best, bool last);
/* Waits for the save under way. False, with the reason, if the last one failed; true before the first. */
bool checkpoint_writer_wait(CheckpointWriter *w, char error[ERROR_SIZE]);
/* How many saves have failed so far. Does not wait. */
int64_t checkpoint_writer_failures(CheckpointWriter *w);
/* Validation loss of the best checkpoint that is on the disk, or on its way there: one that could not be written does not count. Does not wait. */
double checkpoint_writer_best(CheckpointWriter *w);
/* Seconds since the last call that callers spent in here, and that writing took, pauses included, of the saves that are over. */
typedef struct { double stall, writing; } WriterTimes;
WriterTimes checkpoint_writer_times(CheckpointWriter *w);
/* Waits for the save under way, then frees everything. NULL is fine. */
void checkpoint_writer_close(CheckpointWriter *w);

/* For tests: what is called, where the writing is done, between one try and the next, instead of waiting. */
void checkpoint_writer_pause_with(CheckpointWriter *w, void (*pause)(double seconds));

#ifdef __cplusplus
}
#endif
#endif
