/* sockets.c: see sockets.h. */
#include "sockets.h"

#include "error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 3000 };   /* for one address to answer: it may be that of a network which does not lead here */

void socket_block(int socket, bool block) {
    int flags = fcntl(socket, F_GETFL);
    CHECK(flags >= 0 && fcntl(socket, F_SETFL, block ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0);
}

static void tune(int socket) {
    int yes = 1;
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    socket_block(socket, false);
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
}

static int fail_closed(int socket) {
    int cause = errno;
    close(socket);
    errno = cause;
    return -1;
}

static int listen_at(const struct sockaddr *address, socklen_t length) {
    int s = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1, no = 0;
    if (s < 0) return -1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (address->sa_family == AF_INET6) setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(s, address, length) != 0 || listen(s, SOMAXCONN) != 0) return fail_closed(s);
    socket_block(s, false);
    return s;
}

static int port_of(int socket) {
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; struct sockaddr_storage room; } name;
    socklen_t length = sizeof name;
    CHECK(getsockname(socket, &name.any, &length) == 0);
    return ntohs(name.any.sa_family == AF_INET6 ? name.v6.sin6_port : name.v4.sin_port);
}

int socket_listen(const char *address, int *port) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port), .sin_addr.s_addr = htonl(INADDR_ANY)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)*port), .sin6_addr = in6addr_any};
    int s = -1;
    if (address) CHECK(inet_pton(AF_INET, address, &v4.sin_addr) == 1);
    else s = listen_at((struct sockaddr *)&v6, sizeof v6);
    /* A machine may be without IPv6. */
    if (s < 0 && (address || errno != EADDRINUSE)) s = listen_at((struct sockaddr *)&v4, sizeof v4);
    if (s >= 0) *port = port_of(s);
    return s;
}

int socket_accept(int listener) {
    int s;
    do s = accept(listener, NULL, NULL);
    while (s < 0 && errno == EINTR);
    if (s >= 0) tune(s);
    return s;
}

/* Where nobody listens, a port of this machine may be connected with itself. */
static bool is_with_itself(int s) {
    struct sockaddr_storage here, there;
    memset(&here, 0, sizeof here);
    memset(&there, 0, sizeof there);
    socklen_t n = sizeof here, m = sizeof there;
    return getsockname(s, (struct sockaddr *)&here, &n) == 0 && getpeername(s, (struct sockaddr *)&there, &m) == 0 && n == m &&
           memcmp(&here, &there, n) == 0;
}

int socket_connect(const struct sockaddr *address, socklen_t length, double seconds) {
    int s = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), cause = 0;
    if (s < 0) return -1;
    tune(s);
    if (connect(s, address, length) != 0) {
        if (errno != EINPROGRESS) return fail_closed(s);
        struct pollfd ready = {.fd = s, .events = POLLOUT};
        socklen_t size = sizeof cause;
        int n;
        do n = poll(&ready, 1, (int)(seconds * 1000));
        while (n < 0 && errno == EINTR);
        if (n == 0) cause = ETIMEDOUT;
        else if (getsockopt(s, SOL_SOCKET, SO_ERROR, &cause, &size) != 0) cause = errno;
    }
    if (!cause && is_with_itself(s)) cause = ECONNREFUSED;
    errno = cause;
    return cause ? fail_closed(s) : s;
}

static int reach_one(const char *name, int port, char *cause, size_t size) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char service[16];
    int s = -1;
    snprintf(service, sizeof service, "%d", port);
    int unknown = getaddrinfo(name, service, &hints, &found);
    if (unknown) {
        snprintf(cause, size, "%s", gai_strerror(unknown));
        return -1;
    }
    for (struct addrinfo *a = found; a && s < 0; a = a->ai_next) {
        s = socket_connect(a->ai_addr, a->ai_addrlen, PATIENCE_MS / 1e3);
        if (s < 0) snprintf(cause, size, "%s", strerror(errno));
    }
    freeaddrinfo(found);
    return s;
}

int socket_reach(const char *addresses, int port, char *cause, size_t size) {
    char *names = xstrdup(addresses), *rest = names, *name;
    int s = -1;
    while (s < 0 && (name = strsep(&rest, ","))) s = reach_one(name, port, cause, size);
    free(names);
    return s;
}

char *socket_addresses(void) {
    struct ifaddrs *all = NULL;
    char *text = xstrdup("");
    if (getifaddrs(&all) != 0) all = NULL;
    for (int alone = 0; alone < 2; alone++)
        for (struct ifaddrs *i = all; i; i = i->ifa_next) {
            char name[NI_MAXHOST];
            if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) || !(i->ifa_flags & IFF_LOOPBACK) != !alone) continue;
            if (getnameinfo(i->ifa_addr, sizeof(struct sockaddr_in), name, sizeof name, NULL, 0, NI_NUMERICHOST) != 0) continue;
            char *longer = xprintf("%s%s%s", text, *text ? "," : "", name);
            free(text);
            text = longer;
        }
    if (all) freeifaddrs(all);
    return text;
}
