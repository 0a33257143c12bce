/* run_record.h: RUN/run.json, what a run is: program, options, model, data, each start on whatever machine, and how it ended. One JSON object; its
   members stand in the README. Written whole when training starts, and again at its end; "end" is null while it runs, and after a crash. */
#ifndef LLMC_RUN_RECORD_H
#define LLMC_RUN_RECORD_H

#include "config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *path;
    int64_t files, tokens;
    uint32_t crc32;              /* of the tokens (dataloader_crc32) */
} RecordedData;

/* What is known when training starts. All of it is copied. */
typedef struct {
    const Options *options;
    const Config *config;        /* of the model; what an option leaves to follow from others is recorded as it came out */
    const char *description;     /* of the model */
    int64_t parameters;
    double flops_per_token;
    RecordedData train, val;
    int64_t vocab_size;
    const char *source;          /* of the text; NULL: unknown */
    double peak_flops;           /* of all ranks together; 0: unknown */
    const char *peak_from;       /* a string that stays */
    const char *host, *device, *dtype;
    int64_t ranks, step;         /* step: that training starts from */
    bool resumed;
    int argc;
    char **argv;
} RunFacts;

typedef struct {
    const char *status;          /* "done", "interrupted", "max-time" or "diverged": a loss was not finite */
    int64_t step, tokens;        /* of the whole run, up to and with that step */
    double elapsed_s, best_val_loss, peak_memory;
    double peak_flops;           /* may have risen */
} RunEnd;

typedef struct RunRecord RunRecord;

/* Writes run.json. That of a run that is resumed keeps the starts that it has; where it is damaged or of another format it is refused. NULL with a
   sentence if that is so or it cannot be written. */
RunRecord *run_record_open(const char *run, const RunFacts *facts, char error[ERROR_SIZE]);
/* Writes it again, with the end. NULL is fine: nothing is written. */
bool run_record_end(RunRecord *record, const RunEnd *end, char error[ERROR_SIZE]);
/* NULL is fine. */
void run_record_close(RunRecord *record);

#ifdef __cplusplus
}
#endif
#endif
