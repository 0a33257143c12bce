/* team_processes.h: a team of processes, each with a TCP connection to rank 0, for launch.c; and what comm_tcp.c needs to know of it. */
#ifndef LLMC_TEAM_PROCESSES_H
#define LLMC_TEAM_PROCESSES_H

#include "rendezvous.h"
#include "team.h"

#include <sys/socket.h>

/* Comes together as the launcher says; at least two ranks. Dies if that fails. From here until team_close a die() of any rank ends all. */
Team *team_of_processes(const TeamPlace *place);
/* On other ranks than 0: rank 0's address as it was reached. */
socklen_t team_address_of_first(Team *t, struct sockaddr_storage *address);

#endif
