/* checkpoint.h: a run's checkpoints. In the run's directory:

     step_00000600/        a model's directory (model_directory.h; in fp32), optimizer.safetensors, and state.json, which holds step,
                           data position, number of ranks, the spike guard, options, the CRC-32 and size of each other file, and
                           last the CRC-32 of its own text
     best, last            symbolic links to the one with the lowest validation loss and to the newest

   A checkpoint is written under .writing-step_N, synced, and renamed when it is whole, so a reader never sees half of one; the links move
   in one step; older ones are removed only then. It is of the whole model, whatever ranks it lay on, and any number of them may go on from
   it. One rank alone writes, cleans and finds; all of them read. */
#ifndef LLMC_CHECKPOINT_H
#define LLMC_CHECKPOINT_H

#include "model_directory.h"
#include "spikes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a run has to know, besides the model, to go on as if it had never stopped. */
typedef struct {
    int64_t step;            /* optimizer steps done */
    int64_t samples;         /* rows of data used */
    int64_t tokens;          /* in them */
    double best_val_loss;    /* INFINITY before the first evaluation */
    double elapsed_s;        /* training time so far */
    char data[96];           /* what it is trained on, in words that differ where the data does; "" if nobody knows */
    int64_t ranks;           /* that train it; read from a checkpoint that does not say: 1 */
    SpikeGuard spikes;
} RunState;

/* Writes a checkpoint of state->step into the run's directory and points `last`, and `best` if it is the best, at it; then removes all but
   the newest `keep` and the best, warning where one cannot be removed. One of that step that exists already is replaced. The vocabulary is that of
   tokenizer_directory (NULL: none), or once that is gone of the last checkpoint. */
bool checkpoint_save(const char *run, const Snapshot *snapshot, const RunState *state, const Options *options, const char *tokenizer_directory,
                     bool best, char error[ERROR_SIZE]);
/* Removes what a killed writer left behind. */
bool checkpoint_clean(const char *run, char error[ERROR_SIZE]);
/* True if that is the name of a checkpoint in a run, of a link to one, or of what a killed writer or a damaged one leaves. */
bool checkpoint_owns(const char *name);
/* True if the directory holds a run: a log or a checkpoint. */
bool checkpoint_run_exists(const char *run);
/* Step of its newest checkpoint, complete or not; -1 if there is none. */
int64_t checkpoint_newest_step(const char *run);

/* The checkpoint to resume from, in fresh memory: `which` itself, or for "auto" the newest complete one of the run (newer ones, damaged,
   are named on stderr and renamed damaged_step_N). NULL with the reason, and nothing renamed. */
char *checkpoint_find(const char *run, const char *which, char error[ERROR_SIZE]);
/* Checks state.json and every file's size and checksum. */
bool checkpoint_verify(const char *directory, char error[ERROR_SIZE]);
/* Of how many ranks the run was that wrote it, and after how many steps. */
bool checkpoint_read_ranks(const char *directory, int64_t *ranks, int64_t *step, char error[ERROR_SIZE]);
/* The options it was trained with, into those that the user left open. */
bool checkpoint_read_options(const char *directory, Options *options, char error[ERROR_SIZE]);
/* Weights, moments and state. The model must be of the same architecture. */
bool checkpoint_load(const char *directory, Model *m, RunState *state, char error[ERROR_SIZE]);

/* The directory of a model: path itself if it holds config.json, else its best or its last checkpoint. NULL with the reason; free() it. */
char *model_directory(const char *path, char error[ERROR_SIZE]);
/* Checks the files of a model against state.json, the optimizer's aside; a directory without state.json passes. */
bool model_directory_verify(const char *directory, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
