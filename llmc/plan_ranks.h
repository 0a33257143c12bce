/* plan_ranks.h: what several ranks send each other in an optimizer step, and how much of the time that takes hides behind computing. Estimates, made
   of sizes and two speeds: nothing is measured and nothing allocated.

   The model: a ring moves (W-1)/W of n bytes out of every rank, and as much into it, for a reduce-scatter or an all-gather of n bytes, twice that
   for an all-reduce (Patarasu and Yuan 2009). The link does one collective after the other, each in bytes / speed + LINK_LATENCY. Gradients go in
   buckets, in the order in which the last micro-step's backward is done with them (untied head, final norm, layers from the last to the first,
   embeddings), none before it is ready; with ZeRO the new parameters come back in the order in which the next forward needs them. Computing is the
   products of matrices alone, at one speed (config_flops_per_token: a third forward, two thirds backward), and communication costs it nothing:
   true of a GPU, hardly of a rank on a single core. */
#ifndef LLMC_PLAN_RANKS_H
#define LLMC_PLAN_RANKS_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds that a collective takes besides its bytes: of the order of NCCL's within one machine. */
#define LINK_LATENCY 20e-6

/* A piece of a pass: seconds of computing, and of the link for what goes with it. */
typedef struct { double compute, transfer; } Leg;

/* Seconds from the end of the computing to the end of the last of n transfers, which go one after the other, each not before the computing of its own
   leg and of all earlier ones is done. */
double exposed_after(const Leg *legs, int n);
/* Seconds that computing waits, in all, where it goes on with each leg not before its transfer, and the transfers, all possible from the start on, go
   one after the other. */
double exposed_before(const Leg *legs, int n);

/* Bytes that a rank sends in an optimizer step, and receives. */
typedef struct {
    double gradients;          /* fp32: all-reduced, or with ZeRO reduce-scattered */
    double parameters;         /* ZeRO: all-gathered, in the model's dtype */
    double others;             /* totals of loss and targets; ZeRO: squares of the gradient */
    int64_t collectives;
} RanksTraffic;
RanksTraffic ranks_traffic(const ModelSpec *spec);

/* Seconds of an optimizer step. */
typedef struct {
    double step;               /* of a rank alone */
    double busy;               /* of the link */
    double exposed;            /* of busy, that computing waits for */
    double exposed_embedding;  /* of exposed, for the embeddings: backward is done with them last, and with ZeRO forward needs them first */
    double efficiency;         /* step / (step + exposed) */
} RanksTime;
/* link: bytes/s that a rank sends while it receives as many; matmul: FLOP/s of a rank; both > 0. */
RanksTime ranks_time(const ModelSpec *spec, int64_t grad_accum, double link, double matmul);

#ifdef __cplusplus
}
#endif
#endif
