/* model_ranks.h: between the model and the ranks that train it together. Not for others.

   What a rank updates is a list of shares of the flat buffers: without ZeRO one share, which is all of them; with ZeRO (Rajbhandari et al. 2020,
   stage 1) this rank's piece of every bucket. Gradients are added up over the ranks a bucket at a time, as soon as backward is done with one; with
   ZeRO each rank then updates its shares and all gather the parameters, which the next forward pass waits for a bucket at a time. */
#ifndef LLMC_MODEL_RANKS_H
#define LLMC_MODEL_RANKS_H

#include "model.h"

typedef struct {
    int bucket;                        /* -1: all of them */
    int64_t offset, count;             /* in buffers that are whole */
    int64_t kept;                      /* where it begins in buffers that hold shares alone */
    int64_t first_segment, segments;   /* its boundaries, relative to its beginning, in Ranks.segments */
} Share;

/* Shares in the order in which the forward pass comes upon them. */
struct Ranks {
    Share *shares;
    int share_count;
    int64_t *segments, segment_count;  /* as ParameterTable's, of all shares one behind the other */
    bool exchanging;                   /* the micro-step under way is the last of a step of several ranks */
    Ticket given;                      /* the last sum of gradients started that nobody has waited for; 0: none */
    Ticket *gathered;                  /* (buckets) parameters on their way; 0: they are here */
    Event *reached;
};

/* Host memory of the above, for m->spec and m->table; the boundaries to m->segments. */
void ranks_open(Model *m);
void ranks_close(Model *m);

/* The share of a flat buffer that is whole or holds shares alone; absent if the buffer is. */
Tensor share_of(const Model *m, Tensor flat, const Share *share);
bool is_whole(const Model *m, Tensor flat);
Tensor share_segments(const Model *m, const Share *share);

/* Parameters of a bucket, or all, are about to be read in the stream: what comes later there waits until they are all here. */
void ranks_need(const Model *m, int bucket);
void ranks_need_all(const Model *m);
/* True while parameters of any bucket are on their way. */
bool ranks_gathering(const Model *m);

/* In the last micro-step of a step: the totals, or the gradients of a bucket (-1: none), are final on this rank. */
void ranks_give_totals(const Model *m);
void ranks_give(const Model *m, int bucket);
/* What comes later in the stream waits for the sums of all that was given. */
void ranks_await_given(const Model *m);

/* With ZeRO: x summed over the ranks at once; the parameters of a bucket, of which each rank has updated its share, sent to all. */
void ranks_sum(const Model *m, Tensor x);
void ranks_gather(const Model *m, int bucket);
/* A flat fp32 buffer whole: itself, or gathered from all ranks into the gradients. */
Tensor ranks_whole(const Model *m, Tensor flat);

/* The host waits for an event, or for all that is in the stream, which may itself wait for other ranks: the watch is told. */
void ranks_wait_event(const Model *m, Event *event, const char *what);
void ranks_synchronize(const Model *m, const char *what);

#endif
