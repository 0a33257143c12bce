/* team_body.h: between team.c, which has what all teams share, and the two that have members: team_processes.c and comm_loopback.c. Not for
   others. */
#ifndef LLMC_TEAM_BODY_H
#define LLMC_TEAM_BODY_H

#include "team.h"

typedef struct {
    void (*gather)(Team *t, const void *mine, size_t bytes, void *all, const char *what);
    void (*wait_begin)(Team *t, const char *what);   /* NULL: nobody watches */
    void (*wait_end)(Team *t);
    void (*excuse)(Team *t, bool excused);
    void (*close)(Team *t);                          /* and frees what belongs to the body; team.c frees the rest */
    bool threads;                                    /* all ranks are in this process and take turns */
} TeamBody;

struct Team {
    const TeamBody *body;
    int rank, ranks, local_rank;
    char **hosts;            /* (ranks) */
    double timeout;          /* seconds */
    int64_t step;            /* written by team_note_step, read by the thread that watches: with __atomic */
    void *own;               /* the body's */
};

#endif
