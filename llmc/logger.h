/* logger.h: what a run says of itself: log.jsonl, one JSON object a line. What it prints is in progress.h. */
#ifndef LLMC_LOGGER_H
#define LLMC_LOGGER_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t step, steps, tokens;           /* optimizer steps done, planned; tokens of this step */
    int64_t tokens_seen;                   /* of all steps up to this one */
    double loss, lr, grad_norm;
    double ms;                             /* of this step */
    double tokens_per_s;                   /* of this step */
    double mfu;                            /* the model's FLOP/s in this step, of the peak's; 0: unknown */
    double elapsed_s, left_s;              /* training time so far; what is left at the present pace */
    bool skipped;                          /* the update was left out: a spike */
    double comm_ms, comm_exposed_ms;       /* exchange between ranks, and the part of it that training waited for; 0: unknown, or alone */
    bool evaluated;
    double train_loss, val_loss;           /* if evaluated */
    double val_bits_per_byte;              /* 0: unknown */
    int64_t hellaswag_examples;            /* 0: not evaluated on them */
    double hellaswag_acc, hellaswag_acc_norm;
    bool best;                             /* if evaluated: the lowest validation loss so far */
    const struct ModelStats *stats;        /* of this step; NULL: not measured */
} StepReport;

typedef struct Logger Logger;

/* Opens RUN/log.jsonl; lines of steps after `step` (a run resumed from an earlier checkpoint) and a half-written last line are dropped. */
Logger *logger_open(const char *run, int64_t step, char error[ERROR_SIZE]);
/* Appends the report to the log. False when the log cannot be written, as on a full disk, the first time: lines wait then, up to 16 MiB of them, and
   follow with a later report once they can. The file holds whole lines only. */
bool logger_report(Logger *logger, const StepReport *report, char error[ERROR_SIZE]);
/* A step without a line of its own. The last 16 of these since the last line are remembered. */
void logger_remember(Logger *logger, const StepReport *report);
/* Their lines, where the steps before an end matter. NULL is fine. False as above. */
bool logger_report_remembered(Logger *logger, char error[ERROR_SIZE]);
/* Lines that wait are tried once more; a warning says where they are lost. */
void logger_close(Logger *logger);

/* "1h02m", "3m05s", "12s" */
void format_duration(char text[32], double seconds);
/* "12.3 MiB" */
void format_bytes(char text[32], double bytes);
/* "7,654" */
void format_count(char text[32], double count);

#ifdef __cplusplus
}
#endif
#endif
