/* rendezvous.h: how processes find each other and become a team: rank 0 listens, the others call, and rank 0 sees that all are there, once each, of
   one size and one program. */
#ifndef LLMC_RENDEZVOUS_H
#define LLMC_RENDEZVOUS_H

#include "frames.h"

#include <stdint.h>

enum { HOST_SIZE = 128 };

/* What the launcher says. */
typedef struct {
    int rank, ranks;
    int local_rank;           /* -1: not said; then it is the order among the ranks of equal host names */
    const char *addresses;    /* of rank 0: names or addresses, separated by commas */
    int port;                 /* of rank 0 */
    int listener;             /* rank 0: a socket that listens there already, or -1 */
    uint64_t job;             /* the same for all ranks of a job, and another for others; 0: not known */
    double timeout;           /* seconds until all must be there */
    double silence;           /* seconds until a rank that waits says what for; again after twice as many, and so on; 0: 10 */
} TeamPlace;

typedef struct {
    Connection *links;        /* rank 0: (ranks), its own closed; others: (1), to rank 0 */
    char (*hosts)[HOST_SIZE]; /* (ranks) */
    int local_rank;
} Meeting;

/* Dies, on rank 0's terminal where rank 0 can be reached, if the ranks do not come together. links and hosts are the caller's. */
Meeting rendezvous(const TeamPlace *place);

#endif
