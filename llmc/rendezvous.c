/* rendezvous.c: see rendezvous.h. Anybody may call rank 0's port: a caller counts once it has said a whole FRAME_HELLO, and is shown the door if it
   says anything else, or nothing for 10 s. */
#include "rendezvous.h"

#include "error.h"
#include "files.h"
#include "machine.h"
#include "sockets.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_SIZE = 64, CAUSE_SIZE = 1024, GUESTS = 256 };
static const double guest_patience = 10, farewell = 2, grace = 15;   /* seconds */

typedef struct {
    int32_t rank, ranks, local_rank;
    uint32_t checksum;                /* CRC-32 of the program's file, 0 if it cannot be read */
    uint64_t job;
    char host[HOST_SIZE], program[NAME_SIZE];
} Hello;

typedef struct {
    char host[HOST_SIZE];
    int32_t local_rank;
} Row;   /* of FRAME_TABLE */

static Hello introduction(const TeamPlace *place) {
    Hello hello;
    memset(&hello, 0, sizeof hello);
    hello.rank = place->rank;
    hello.ranks = place->ranks;
    hello.local_rank = place->local_rank;
    hello.job = place->job;
    if (gethostname(hello.host, sizeof hello.host - 1) != 0) strcpy(hello.host, "localhost");
    char error[ERROR_SIZE], path[PATH_MAX];
    uint64_t size;
    if (!file_crc32("/proc/self/exe", &hello.checksum, &size, error)) hello.checksum = 0;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    const char *slash = strrchr(path, '/');
    snprintf(hello.program, sizeof hello.program, "%.*s", NAME_SIZE - 1, slash ? slash + 1 : path);
    return hello;
}

/* ---- waiting ---- */

typedef struct {
    double until, next, pause;   /* machine_seconds; seconds */
} Wait;

static Wait wait_from_now(const TeamPlace *place) {
    double now = machine_seconds(), pause = place->silence > 0 ? place->silence : 10;
    return (Wait){now + place->timeout, now + pause, pause};
}

static double seconds_left(const Wait *w) { return w->until - machine_seconds(); }

/* True if it is time for a word about what is waited for. */
static bool time_for_a_word(Wait *w) {
    double now = machine_seconds();
    if (now < w->next) return false;
    w->pause *= 2;
    w->next = now + w->pause;
    return true;
}

/* ---- rank 0 ---- */

typedef struct {
    Connection link;
    double since;
} Guest;

typedef struct {
    const TeamPlace *place;
    int listener;
    Connection *links;           /* (ranks) */
    Hello *hellos;               /* (ranks); of those that have come */
    bool *here, *told;           /* (ranks): has come; knows that there will be no team */
    int count;                   /* that have come, rank 0 included */
    Guest guests[GUESTS];
    int guest_count;
    char cause[CAUSE_SIZE];      /* why there will be no team; "" as long as there may be one */
} Table;

/* The first cause counts. */
static void __attribute__((format(printf, 2, 3))) give_up(Table *t, const char *format, ...) {
    if (t->cause[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->cause, sizeof t->cause, format, arguments);
    va_end(arguments);
}

/* The ranks for which here[r] is false, as text: "ranks 2 and 5 have". */
static char *missing_ranks(const bool *here, int ranks) {
    enum { SHOWN = 8 };
    int missing = 0, named = 0;
    for (int r = 0; r < ranks; r++) missing += !here[r];
    char *text = xstrdup(missing == 1 ? "rank" : "ranks");
    for (int r = 0; r < ranks && named < SHOWN; r++) {
        if (here[r]) continue;
        named++;
        bool last = named == missing;
        char *longer = xprintf("%s%s%d", text, named == 1 ? " " : last ? " and " : ", ", r);
        free(text);
        text = longer;
    }
    char *whole = missing > SHOWN ? xprintf("%s and %d more have", text, missing - SHOWN) : xprintf("%s %s", text, missing == 1 ? "has" : "have");
    free(text);
    return whole;
}

static void refuse(Connection *guest, const char *sentence) {
    connection_put(guest, FRAME_REFUSED, sentence, strlen(sentence), NULL, 0);
    connection_write(guest);
    connection_close(guest);
}

/* A guest has said who it is. Either it sits down, or it is refused, or nothing can come of this team. */
static void seat(Table *t, Connection *guest, Hello hello) {
    const Hello *first = &t->hellos[0];
    hello.host[HOST_SIZE - 1] = hello.program[NAME_SIZE - 1] = 0;
    if (hello.job && first->job && hello.job != first->job) {
        char *sentence = xprintf("rank 0 on %s, port %d, belongs to another job; give this one another MASTER_PORT", first->host, t->place->port);
        refuse(guest, sentence);
        free(sentence);
        return;
    }
    bool known = hello.rank > 0 && hello.rank < t->place->ranks;
    if (hello.ranks != t->place->ranks)
        give_up(t, "rank %d on %s is one of %d ranks, and rank 0 on %s one of %d; WORLD_SIZE must be the same everywhere", hello.rank, hello.host,
                hello.ranks, first->host, t->place->ranks);
    else if (!known)
        give_up(t, "a process on %s calls itself rank %d; expected 1 to %d", hello.host, hello.rank, t->place->ranks - 1);
    else if (t->here[hello.rank])
        give_up(t, "rank %d was started twice, on %s and on %s; every process needs a RANK of its own", hello.rank,
                t->hellos[hello.rank].host, hello.host);
    else if (hello.checksum != first->checksum)
        give_up(t, "rank %d on %s runs another %s (checksum %08x) than rank 0 on %s (checksum %08x); copy the same program to all machines",
                hello.rank, hello.host, hello.program, hello.checksum, first->host, first->checksum);
    if (known && !t->here[hello.rank]) {
        t->links[hello.rank] = *guest;
        t->hellos[hello.rank] = hello;
        t->here[hello.rank] = true;
        t->count++;
    } else {
        connection_put(guest, FRAME_ENDED, NULL, 0, NULL, 0);
        connection_write(guest);
        connection_close(guest);
    }
}

/* Reads what guest number i says; false if it is a guest no more. */
static bool hear_guest(Table *t, int i, double now) {
    Guest *guest = &t->guests[i];
    bool open = connection_read(&guest->link);
    Frame frame;
    int whole = connection_next(&guest->link, &frame, sizeof(Hello));
    if (whole == 1 && frame.type == FRAME_HELLO && frame.count == sizeof(Hello)) {
        Hello hello;
        memcpy(&hello, frame.bytes, sizeof hello);
        seat(t, &guest->link, hello);
        return false;
    }
    if (open && whole == 0 && now - guest->since < guest_patience) return true;
    connection_close(&guest->link);
    return false;
}

static void hear_guests(Table *t) {
    double now = machine_seconds();
    int kept = 0;
    for (int i = 0; i < t->guest_count; i++)
        if (hear_guest(t, i, now)) t->guests[kept++] = t->guests[i];
    t->guest_count = kept;
    while (t->guest_count < GUESTS) {
        int s = socket_accept(t->listener);
        if (s < 0) break;
        t->guests[t->guest_count++] = (Guest){.link.socket = s, .since = now};
    }
}

/* Those that sit may die while others are waited for. */
static void hear_seated(Table *t) {
    for (int r = 1; r < t->place->ranks; r++)
        if (t->here[r] && t->links[r].socket >= 0 && !connection_read(&t->links[r])) {
            connection_close(&t->links[r]);
            give_up(t, "rank %d on %s ended while the others were waited for", r, t->hellos[r].host);
        }
}

/* Waits for something to happen, at most until then. Of the seated ones nobody speaks: 0.2 s is soon enough to see that one has gone. */
static void wait_for_callers(Table *t, double until) {
    struct pollfd polls[GUESTS + 1];
    double left = until - machine_seconds();
    int n = 0;
    if (t->guest_count < GUESTS) polls[n++] = (struct pollfd){.fd = t->listener, .events = POLLIN};
    for (int i = 0; i < t->guest_count; i++) polls[n++] = (struct pollfd){.fd = t->guests[i].link.socket, .events = POLLIN};
    poll(polls, (nfds_t)n, left > 0.2 ? 200 : left > 0 ? (int)(1000 * left) + 1 : 0);
}

/* There is a cause: rank 0 says it, and the others learn of it, those that call within the next seconds too. */
static void __attribute__((noreturn)) dismiss(Table *t) {
    error_print(t->cause);
    double until = machine_seconds() + farewell;
    while (machine_seconds() < until) {
        bool all_told = t->count == t->place->ranks;
        for (int r = 1; r < t->place->ranks; r++) {
            Connection *link = &t->links[r];
            if (!t->here[r] || link->socket < 0) continue;
            if (!t->told[r]) connection_put(link, FRAME_ENDED, NULL, 0, NULL, 0);
            t->told[r] = true;
            if (!connection_write(link) || !connection_read(link)) connection_close(link);
            else all_told = false;
        }
        if (all_told) break;
        wait_for_callers(t, until);
        hear_guests(t);
    }
    error_flush();
    _exit(EXIT_FAILURE);
}

static int listen_as_first(const TeamPlace *place, const char *host) {
    int port = place->port, s = place->listener >= 0 ? place->listener : socket_listen(NULL, &port);
    if (s < 0)
        die("rank 0 on %s cannot listen on port %d: %s%s", host, place->port, strerror(errno),
            errno == EADDRINUSE ? "; is another job there? give this one another MASTER_PORT" : "");
    return s;
}

static void close_table(Table *t) {
    close(t->listener);
    for (int i = 0; i < t->guest_count; i++) connection_close(&t->guests[i].link);
    free(t->hellos);
    free(t->here);
    free(t->told);
    free(t);
}

/* Fills local ranks that no launcher said, and host names. */
static Meeting seated(const Hello *hellos, int ranks, Connection *links, Row *rows) {
    Meeting meeting = {.links = links, .hosts = xcalloc((size_t)ranks, HOST_SIZE), .local_rank = 0};
    memset(rows, 0, sizeof *rows * (size_t)ranks);
    for (int r = 0; r < ranks; r++) {
        int before = 0;
        for (int other = 0; other < r; other++) before += strcmp(hellos[other].host, hellos[r].host) == 0;
        rows[r].local_rank = hellos[r].local_rank >= 0 ? hellos[r].local_rank : before;
        memcpy(rows[r].host, hellos[r].host, HOST_SIZE);
        memcpy(meeting.hosts[r], hellos[r].host, HOST_SIZE);
    }
    meeting.local_rank = rows[0].local_rank;
    return meeting;
}

static void say_who_is_missing(const Table *t, const Wait *w) {
    char *names = missing_ranks(t->here, t->place->ranks);
    warn("%s not come yet; rank 0 on %s waits on port %d, for %.0f s more", names, t->hellos[0].host, t->place->port, fmax(seconds_left(w), 0));
    free(names);
}

static Meeting receive_all(const TeamPlace *place) {
    size_t ranks = (size_t)place->ranks;
    Table *t = xcalloc(1, sizeof *t);
    t->place = place;
    t->links = xcalloc(ranks, sizeof *t->links);
    t->hellos = xcalloc(ranks, sizeof *t->hellos);
    t->here = xcalloc(ranks, sizeof *t->here);
    t->told = xcalloc(ranks, sizeof *t->told);
    for (size_t r = 0; r < ranks; r++) t->links[r].socket = -1;
    t->hellos[0] = introduction(place);
    t->here[0] = true;
    t->count = 1;
    t->listener = listen_as_first(place, t->hellos[0].host);
    Wait w = wait_from_now(place);
    while (t->count < place->ranks && !t->cause[0]) {
        wait_for_callers(t, w.until);
        hear_guests(t);
        hear_seated(t);
        if (t->count == place->ranks || t->cause[0]) break;
        if (time_for_a_word(&w)) say_who_is_missing(t, &w);
        if (seconds_left(&w) > 0) continue;
        char *names = missing_ranks(t->here, place->ranks);
        give_up(t, "%s not come within %.3g s; rank 0 on %s waits on port %d (--comm-timeout sets how long)", names, place->timeout,
                t->hellos[0].host, place->port);
        free(names);
    }
    if (t->cause[0]) dismiss(t);
    Row *rows = xcalloc(ranks, sizeof *rows);
    Meeting meeting = seated(t->hellos, place->ranks, t->links, rows);
    for (size_t r = 1; r < ranks; r++) connection_put(&meeting.links[r], FRAME_TABLE, rows, ranks * sizeof *rows, NULL, 0);
    free(rows);
    close_table(t);
    return meeting;
}

/* ---- the others ---- */

static void __attribute__((noreturn)) die_unreached(const TeamPlace *place, const char *host, const char *cause) {
    die("rank %d on %s cannot reach rank 0 at %s:%d: %s, for %.3g s; is it running, and do MASTER_ADDR and MASTER_PORT name it?", place->rank, host,
        place->addresses, place->port, cause, place->timeout);
}

static void pause_for(double seconds) { poll(NULL, 0, (int)(1000 * seconds) + 1); }

/* Waits for rank 0's answer to the FRAME_HELLO that is in the queue; false, with a cause, if the connection ends without one, which is worth another
   try. */
static bool hear_answer(const TeamPlace *place, const Hello *hello, Connection *link, double until, Frame *frame, const char **cause) {
    for (;;) {
        bool open = connection_write(link) && connection_read(link);
        int whole = connection_next(link, frame, (size_t)place->ranks * sizeof(Row) + CAUSE_SIZE);
        if (whole < 0)
            die("rank %d on %s found something else than rank 0 of this program at %s:%d; do MASTER_ADDR and MASTER_PORT name it, and nobody else?",
                place->rank, hello->host, place->addresses, place->port);
        if (whole == 1) return true;
        *cause = "the connection was closed";
        if (!open) return false;
        *cause = "it takes the call, and does not answer";
        double left = until - machine_seconds();
        if (left <= 0) return false;
        struct pollfd ready = {.fd = link->socket, .events = (short)(POLLIN | (connection_has_more(link) ? POLLOUT : 0))};
        poll(&ready, 1, left > 1 ? 1000 : (int)(1000 * left) + 1);
    }
}

static Meeting take_seat(const TeamPlace *place, Connection link, const Frame *frame) {
    size_t ranks = (size_t)place->ranks;
    if (frame->type == FRAME_ENDED) {   /* rank 0 has said why */
        error_flush();
        _exit(EXIT_FAILURE);
    }
    if (frame->type == FRAME_REFUSED) die("rank %d: %.*s", place->rank, (int)frame->count, frame->bytes);
    CHECK(frame->type == FRAME_TABLE && frame->count == ranks * sizeof(Row));
    Meeting meeting = {.links = xmalloc(sizeof link), .hosts = xcalloc(ranks, HOST_SIZE)};
    for (size_t r = 0; r < ranks; r++) {
        Row row;
        memcpy(&row, frame->bytes + r * sizeof row, sizeof row);
        memcpy(meeting.hosts[r], row.host, HOST_SIZE);
        if ((int)r == place->rank) meeting.local_rank = row.local_rank;
    }
    meeting.links[0] = link;
    return meeting;
}

/* The first rank of a machine speaks for all of them. */
static void say_who_is_called(const TeamPlace *place, const char *host, const char *cause, const Wait *w) {
    if (place->local_rank > 0) return;
    warn("rank %d on %s does not reach rank 0 at %s:%d yet: %s; it tries for %.0f s more", place->rank, host, place->addresses, place->port, cause,
         fmax(seconds_left(w), 0));
}

static Meeting call_first(const TeamPlace *place) {
    Hello hello = introduction(place);
    Wait w = wait_from_now(place);
    double pause = 0.05;
    for (;;) {
        char unreached[256] = "";
        const char *cause = unreached;
        Connection link = {.socket = socket_reach(place->addresses, place->port, unreached, sizeof unreached)};
        Frame frame;
        if (link.socket >= 0) {
            connection_put(&link, FRAME_HELLO, &hello, sizeof hello, NULL, 0);
            /* Rank 0, whose time began when it did, is the one to say who is missing. */
            if (hear_answer(place, &hello, &link, w.until + grace, &frame, &cause)) return take_seat(place, link, &frame);
            connection_close(&link);
        }
        if (time_for_a_word(&w)) say_who_is_called(place, hello.host, cause, &w);
        if (seconds_left(&w) < pause) die_unreached(place, hello.host, cause);
        pause_for(pause);
        pause = pause < 0.7 ? pause * 1.5 : 1;
    }
}

Meeting rendezvous(const TeamPlace *place) { return place->rank == 0 ? receive_all(place) : call_first(place); }
