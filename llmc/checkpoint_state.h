/* checkpoint_state.h: state.json, between checkpoint.c and the file itself. Not for others. */
#ifndef LLMC_CHECKPOINT_STATE_H
#define LLMC_CHECKPOINT_STATE_H

#include "checkpoint.h"
#include "json.h"

/* Into a directory that holds all the other files of the checkpoint: it lists them. */
bool state_write(const char *directory, const Snapshot *s, const RunState *run, const Options *options, char error[ERROR_SIZE]);
/* The file as a tree, its own checksum and its form checked; NULL with the reason. */
Json *state_read(const char *directory, char error[ERROR_SIZE]);
/* What it says of the run, and how many updates the model has had. Refused whole: run is as it was. */
bool state_parse(const Json *json, const char *directory, RunState *run, int64_t *updates, char error[ERROR_SIZE]);

#endif
