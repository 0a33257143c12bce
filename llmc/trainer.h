/* trainer.h: all that a training run consists of, and how it comes together: options -> ranks -> data -> model -> run directory. */
#ifndef LLMC_TRAINER_H
#define LLMC_TRAINER_H

#include "checkpoint_writer.h"
#include "dataloader.h"
#include "deadline.h"
#include "hellaswag.h"
#include "machine.h"
#include "model_stats.h"
#include "progress.h"
#include "run_record.h"
#include "samples.h"

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    Options options;
    Team *team;                  /* NULL: alone */
    Comm *comm;                  /* NULL: alone */
    int64_t rank, ranks;
    const Backend *backend;
    DatasetInfo dataset;
    char *vocabulary;            /* directory of the data's vocabulary, else of that which came with the weights; NULL: none is known */
    ModelSpec spec;
    Model model;
    DataLoader *train, *val;
    double val_bytes_per_token;  /* 0: unknown */
    Hellaswag *hellaswag;        /* NULL: not asked for */
    Logger *logger;              /* of rank 0, as are progress, writer, record and samples */
    Progress progress;
    CheckpointWriter *writer;
    RunRecord *record;
    Samples *samples;            /* NULL: there are none */
    ModelStats *stats;           /* NULL: not asked for */
    Peak peak;                   /* of all ranks together */
    double flops_per_token;
    int lock;                    /* on the run's directory (files.h) */
    Snapshot snapshot;           /* of other ranks: empty */
    RunState run;
    int64_t saved_step;          /* of the newest checkpoint */
    int64_t valid_targets;       /* in this rank's part of the batch of this step */
    int32_t *tokens, *targets;   /* (G, B, T): this rank's part of the batch of one optimizer step */
    int64_t spikes;              /* updates left out by this process */
    bool stopping;               /* all ranks know that this step is the last */
    double started;              /* machine_seconds at which this process began to train */
    Deadline deadline;           /* of --max-time */
    bool writing;                /* a checkpoint whose time is not known yet */
    double clock;                /* and at which the step under way began */
    int64_t first_step;          /* of this process */
    double elapsed_before;       /* seconds that the run took in other processes */
} Trainer;

/* Reads the command line and opens everything; dies with the reason if something is missing. --export, --plan and --print-config end the program
   here. t begins as zeros; team is NULL where this rank is alone. */
void trainer_open(Trainer *t, int argc, char **argv, Team *team);
void trainer_close(Trainer *t);

/* A copy of the model's state for a checkpoint, on rank 0; every rank has a part in it. Waits until the writer is done with the one before. */
void trainer_copy_state(Trainer *t);

/* A sample of the model as it is now; rank 0 writes it, the others need not wait. *give_up: a signal has come, and the sample is left out. */
void trainer_sample(Trainer *t, const volatile sig_atomic_t *give_up);
/* Behind the last save, on every rank: rank 0 waits for it. Dies where that one could not be written, saying which one is the newest there; a
   warning of hours ago, of another, is said again. */
void trainer_settle_checkpoints(Trainer *t);
/* Training ends at a loss that is not finite, in that step and with so many tokens seen: run.json is told, and the log gets the last steps. Does
   nothing on other ranks than 0. */
void trainer_note_diverged(const Trainer *t, int64_t step, int64_t tokens);
/* At the end of training, on rank 0: run.json, the last sample and curve.png; of a run that a signal stopped run.json alone, for time may be
   short. *give_up: a signal has come, so that nobody waits for sample or picture any more. */
void trainer_finish(Trainer *t, bool stopped, const volatile sig_atomic_t *give_up);

/* Rank 0 prints, and writes files. */
static inline bool first_rank(const Trainer *t) { return t->rank == 0; }

#ifdef __cplusplus
}
#endif
#endif
