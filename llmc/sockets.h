/* sockets.h: TCP between the ranks of a run. Every socket made here closes on exec, sends at once (no Nagle), notices a dead peer (keep-alive) and
   does not block, unless socket_block says so. */
#ifndef LLMC_SOCKETS_H
#define LLMC_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A socket that listens at that address ("127.0.0.1"; NULL: every interface, IPv6 and IPv4) and port, or at a free one if *port is 0, which is put
   there. -1 and errno on failure. */
int socket_listen(const char *address, int *port);
/* The next caller, or -1. */
int socket_accept(int listener);
/* A connection to one address, within so many seconds; -1 and errno on failure. */
int socket_connect(const struct sockaddr *address, socklen_t length, double seconds);
/* A connection to the first of the names and addresses, separated by commas, that answers at that port; -1 on failure, and the cause of the last
   one. */
int socket_reach(const char *addresses, int port, char *cause, size_t size);
/* The addresses of this machine's interfaces, separated by commas, those of the machine alone last; free() it. */
char *socket_addresses(void);
void socket_block(int socket, bool block);

#endif
