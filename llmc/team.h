/* team.h: the ranks of a run as their hosts see them: who they are, small messages between them, and how all end when one fails.

   Kinds of team: one rank alone; threads of one process (--comm loopback: comm_loopback.c); processes, here and on other machines
   (team_processes.c: each has a TCP connection to rank 0). Large arrays in device memory are comm.h's matter, not this one's.

   While a team of processes is up, a thread of each watches: a rank that dies, that reports an error through die(), that is not heard from, or
   that lets the others wait longer than the timeout, ends all; rank 0 prints one sentence with rank, host and cause, and every process exits with
   status 1. exit() without team_close counts as a death. */
#ifndef LLMC_TEAM_H
#define LLMC_TEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Everything takes NULL for a rank alone. */
typedef struct Team Team;

int team_rank(const Team *t);                  /* 0 ... team_ranks - 1 */
int team_ranks(const Team *t);
int team_local_rank(const Team *t);            /* among the ranks of this machine */
const char *team_host(const Team *t, int rank);
bool team_of_threads(const Team *t);           /* all ranks are in this process and take turns */

/* What every rank gives (mine, so many bytes, the same number on all), in the order of the ranks: all(ranks * bytes), on every rank. Waits for all;
   every rank calls the functions from here on in the same order. `what` names the occasion in messages. */
void team_gather(Team *t, const void *mine, size_t bytes, void *all, const char *what);
void team_barrier(Team *t, const char *what);
/* x(n) becomes the sum over the ranks, added in their order: the same bits on each. */
void team_sum(Team *t, double *x, int n, const char *what);
/* Rank 0's text on every rank, in fresh memory; NULL is NULL on every rank. */
char *team_text_of_first(Team *t, const char *text, const char *what);
/* Dies, naming the first rank whose text is not rank 0's and the first line that differs, if there is one. */
void team_expect_same(Team *t, const char *text, const char *what);

/* For the watch: this rank is about to wait for others, or no longer is. Not nested. */
void team_wait_begin(Team *t, const char *what);
void team_wait_end(Team *t);
/* From now on, or no longer, this rank may let the others wait as long as it likes: it reads or writes files, which takes as long as it takes. */
void team_excuse(Team *t, bool excused);
/* The step under way, for messages. */
void team_note_step(Team *t, int64_t step);
/* Seconds from which on others count as stuck; infinity for a rank alone. */
double team_timeout(const Team *t);

/* The end in good order: all ranks have done their work. Waits for all. */
void team_close(Team *t);

#ifdef __cplusplus
}
#endif
#endif
