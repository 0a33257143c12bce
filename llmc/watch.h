/* watch.h: the thread of each process of a team that talks with the other processes and ends this one when one of them fails. Rank 0 is connected
   with all, the others with rank 0. Between watch.c, which is that thread, and team_processes.c, which is what the program calls. */
#ifndef LLMC_WATCH_H
#define LLMC_WATCH_H

#include "frames.h"
#include "team_body.h"

#include <pthread.h>

enum { WHAT_SIZE = 64, SENTENCE_SIZE = 2048 };

/* How a rank is doing: of this one, and in each heartbeat. */
typedef struct {
    uint64_t waits;                  /* begun so far */
    int64_t step;                    /* -1: none yet */
    double waited;                   /* seconds, since it began to wait */
    uint32_t waiting, excused;
    char what[WHAT_SIZE];            /* it waits for */
} Condition;

/* What is known of a rank. Rank 0 has one of each, the others one of rank 0. */
typedef struct {
    Connection link;                 /* rank 0's own is closed */
    double heard;                    /* when something last came from it */
    Condition condition;
    bool bye;
    bool has_piece;                  /* of the gather under way: char what[WHAT_SIZE], then its bytes */
    char *piece;
    size_t piece_bytes;
} Member;

typedef struct {
    Team *team;
    Member *members;                 /* (count) */
    int count;
    pthread_t thread;
    pthread_mutex_t lock;            /* of everything here */
    pthread_cond_t changed;
    int wake;                        /* an eventfd, for the thread that watches */

    Condition mine;                  /* waited is not kept */
    double since;                    /* when the wait began */
    double ticked;                   /* when the last second of the watch began */
    double excused;                  /* when a rank last had an excuse for letting others wait */

    const void *given;               /* the gather that this rank is in, or bytes < 0 */
    void *all;
    int64_t bytes;
    bool given_away;                 /* its piece is on the way */

    bool closing, closed, said_bye;
    char dying[SENTENCE_SIZE];       /* what die() said; "" */
    bool said_dying;
} Watch;

void *watch_run(void *watch);
/* Tells the thread that something has changed; the lock is held. */
void watch_wake(Watch *w);

#endif
