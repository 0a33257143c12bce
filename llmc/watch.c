/* watch.c: see watch.h. The thread holds the lock except while it polls. Where all must end it prints the cause and leaves the process itself: the
   thread that computes may hang in a collective that never ends. */
#include "watch.h"

#include "error.h"
#include "machine.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const double tick = 1, farewell = 2, longest_silence = 25, shortest_silence = 3;   /* seconds */

void watch_wake(Watch *w) { CHECK(eventfd_write(w->wake, 1) == 0); }

static bool is_first(const Watch *w) { return w->team->rank == 0; }

static void __attribute__((noreturn)) leave(void) {
    error_flush();
    _exit(EXIT_FAILURE);
}

/* Sends what is in the queues and waits until the others have closed, as they do on FRAME_ENDED and FRAME_BYE, so that nothing on the way to them is
   lost. */
static void see_off(Watch *w) {
    double until = machine_seconds() + farewell;
    struct pollfd *polls = xcalloc((size_t)w->count, sizeof *polls);
    for (double left = farewell; left > 0; left = until - machine_seconds()) {
        int n = 0;
        for (int r = 0; r < w->count; r++) {
            Connection *link = &w->members[r].link;
            if (link->socket < 0) continue;
            link->in.count = link->taken = 0;
            if (!connection_write(link) || !connection_read(link)) connection_close(link);
            else polls[n++] = (struct pollfd){.fd = link->socket, .events = (short)(POLLIN | (connection_has_more(link) ? POLLOUT : 0))};
        }
        if (n == 0) break;
        poll(polls, (nfds_t)n, (int)(1000 * left) + 1);
    }
    free(polls);
}

static void __attribute__((noreturn, format(printf, 2, 3))) end(Watch *w, const char *format, ...) {
    char sentence[SENTENCE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    error_print(sentence);
    if (is_first(w)) {
        for (int r = 1; r < w->count; r++) connection_put(&w->members[r].link, FRAME_ENDED, NULL, 0, NULL, 0);
        see_off(w);
    }
    leave();
}

/* Of a die(): a sentence that begins with a rank names the culprit already. */
static void __attribute__((noreturn)) end_dead(Watch *w, int rank, const char *sentence, size_t length) {
    if (length >= 5 && memcmp(sentence, "rank ", 5) == 0) end(w, "%.*s", (int)length, sentence);
    end(w, "rank %d on %s: %.*s", rank, team_host(w->team, rank), (int)length, sentence);
}

/* A sentence about a member by one who watches it: the other ranks each print their own, as they do not hear of each other. */
static void __attribute__((noreturn)) end_lost(Watch *w, int rank, const char *happened) {
    end(w, "rank %d on %s %s", rank, team_host(w->team, rank), happened);
}

/* ---- gather ---- */

static void keep_piece(Watch *w, int rank, const void *head, const void *rest, size_t rest_bytes) {
    Member *m = &w->members[rank];
    if (m->has_piece) end_lost(w, rank, "sent two pieces of a gather; this is a bug of the program, please report it");
    m->piece_bytes = WHAT_SIZE + rest_bytes;
    m->piece = xmalloc(m->piece_bytes);
    memcpy(m->piece, head, WHAT_SIZE);
    if (rest_bytes) memcpy(m->piece + WHAT_SIZE, rest, rest_bytes);
    m->has_piece = true;
}

static void finish_gather(Watch *w) {
    w->bytes = -1;
    pthread_cond_broadcast(&w->changed);
}

/* Rank 0: once all pieces are here, all get all of them. */
static void try_gather(Watch *w) {
    int there = 0, giver = 0;
    for (int r = 0; r < w->count; r++)
        if (w->members[r].has_piece) there++, giver = r;
    if (there == 0) return;
    const Member *first = &w->members[0], *one = &w->members[giver];
    for (int r = 0; r < w->count; r++) {
        const Member *m = &w->members[r];
        if (!m->has_piece && (m->bye || (r == 0 && w->closing)))
            end(w, "rank %d on %s has finished, and rank %d waits for it (%.*s)", r, team_host(w->team, r), giver, WHAT_SIZE, one->piece);
        if (m->has_piece && (m->piece_bytes != one->piece_bytes || memcmp(m->piece, one->piece, WHAT_SIZE) != 0))
            end(w, "rank %d on %s is at '%.*s' (%zu bytes) while rank %d is at '%.*s' (%zu bytes): a bug of the program, please report it", r,
                team_host(w->team, r), WHAT_SIZE, m->piece, m->piece_bytes - WHAT_SIZE, giver, WHAT_SIZE, one->piece, one->piece_bytes - WHAT_SIZE);
    }
    if (there < w->count) return;
    size_t bytes = first->piece_bytes - WHAT_SIZE;
    for (int r = 0; r < w->count; r++) {
        if (bytes) memcpy((char *)w->all + (size_t)r * bytes, w->members[r].piece + WHAT_SIZE, bytes);
        free(w->members[r].piece);
        w->members[r].piece = NULL;
        w->members[r].has_piece = false;
    }
    for (int r = 1; r < w->count; r++) connection_put(&w->members[r].link, FRAME_RESULT, w->all, bytes * (size_t)w->count, NULL, 0);
    finish_gather(w);
}

static void take_result(Watch *w, const Frame *frame) {
    if (w->bytes < 0 || frame->count != (size_t)w->bytes * (size_t)w->team->ranks)
        end_lost(w, 0, "sent the result of another gather; this is a bug of the program, please report it");
    if (frame->count) memcpy(w->all, frame->bytes, frame->count);
    finish_gather(w);
}

/* ---- what this rank's own threads asked for ---- */

static void serve_own(Watch *w) {
    Connection *link = &w->members[0].link;
    if (w->dying[0] && is_first(w)) end_dead(w, 0, w->dying, strlen(w->dying));
    if (w->dying[0] && !w->said_dying) {
        connection_put(link, FRAME_ABORT, w->dying, strlen(w->dying), NULL, 0);
        w->said_dying = true;
    }
    if (w->bytes >= 0 && !w->given_away) {
        if (is_first(w)) keep_piece(w, 0, w->mine.what, w->given, (size_t)w->bytes);
        else connection_put(link, FRAME_PIECE, w->mine.what, WHAT_SIZE, w->given, (size_t)w->bytes);
        w->given_away = true;
    }
    if (w->closing && !w->said_bye && !is_first(w)) {
        connection_put(link, FRAME_BYE, NULL, 0, NULL, 0);
        w->said_bye = true;
    }
}

/* Rank 0, once all have said it and has nothing more to do itself. */
static void try_close(Watch *w) {
    if (!w->closing) return;
    for (int r = 1; r < w->count; r++)
        if (!w->members[r].bye) return;
    for (int r = 1; r < w->count; r++) connection_put(&w->members[r].link, FRAME_BYE, NULL, 0, NULL, 0);
    see_off(w);
    w->closed = true;
}

/* ---- heartbeats ---- */

static Condition condition_now(Watch *w, double now) {
    Condition c = w->mine;
    c.step = __atomic_load_n(&w->team->step, __ATOMIC_RELAXED);
    c.waited = c.waiting ? now - w->since : 0;
    return c;
}

/* Rank 0: does one keep the others waiting? That is one who does not wait while they do; of several, who is furthest behind. Time in which one had an
   excuse does not count. */
static void check_stuck(Watch *w, double now) {
    const Condition *longest = &w->members[0].condition;
    int culprit = -1;
    double shortest = longest->waited;
    for (int r = 0; r < w->count; r++) {
        const Condition *c = &w->members[r].condition;
        if (c->waited > longest->waited) longest = c;
        if (c->waited < shortest) shortest = c->waited;
        if (c->excused) w->excused = now;
        if (c->waiting) continue;
        const Condition *worst = culprit < 0 ? NULL : &w->members[culprit].condition;
        if (!worst || c->step < worst->step || (c->step == worst->step && c->waits < worst->waits)) culprit = r;
    }
    double timeout = w->team->timeout;
    if (!(longest->waited > timeout) || !(now - w->excused > timeout)) return;
    char step[48] = "";
    if (longest->step >= 0) snprintf(step, sizeof step, " in step %lld", (long long)longest->step);
    if (culprit >= 0)
        end(w, "rank %d on %s has kept the others waiting for %.3g s (they wait for %s%s; --comm-timeout sets how long)", culprit,
            team_host(w->team, culprit), longest->waited, longest->what, step);
    if (shortest > timeout)
        end(w, "all ranks wait for %s%s since %.3g s, so the link between them is stuck (--comm-timeout sets how long)", longest->what, step,
            shortest);
}

static double silence(const Watch *w) {
    double timeout = w->team->timeout;
    return timeout > longest_silence ? longest_silence : timeout > shortest_silence ? timeout : shortest_silence;
}

static void check_silence(Watch *w, double now) {
    for (int r = 0; r < w->count; r++) {
        if (r == w->team->rank || now - w->members[r].heard <= silence(w)) continue;
        char happened[128];
        snprintf(happened, sizeof happened, "has not been heard from for %.3g s: stopped, or its machine or network lost", now - w->members[r].heard);
        end_lost(w, r, happened);
    }
}

/* Once a second. A process that was stopped itself, as a whole job is by ctrl-Z, does not count that time against the others. */
static void beat(Watch *w) {
    double now = machine_seconds(), stopped = now - w->ticked - tick;
    if (stopped < 0) return;
    if (stopped > tick) {
        for (int r = 0; r < w->count; r++) w->members[r].heard += stopped;
        w->since += stopped;
    }
    w->ticked = now;
    Condition c = condition_now(w, now);
    if (is_first(w)) w->members[0].condition = c;
    for (int r = 0; r < w->count; r++) connection_put(&w->members[r].link, FRAME_HEARTBEAT, &c, sizeof c, NULL, 0);
    check_silence(w, now);
    if (is_first(w)) check_stuck(w, now);
}

/* ---- what comes in ---- */

static void take(Watch *w, int rank, const Frame *frame) {
    Member *m = &w->members[rank];
    bool first = is_first(w);
    if (frame->type == FRAME_HEARTBEAT && frame->count == sizeof m->condition) {
        memcpy(&m->condition, frame->bytes, sizeof m->condition);
        m->condition.what[WHAT_SIZE - 1] = 0;
    } else if (first && frame->type == FRAME_PIECE && frame->count >= WHAT_SIZE)
        keep_piece(w, rank, frame->bytes, frame->bytes + WHAT_SIZE, frame->count - WHAT_SIZE);
    else if (first && frame->type == FRAME_ABORT)
        end_dead(w, rank, frame->bytes, frame->count);
    else if (frame->type == FRAME_BYE) {
        m->bye = true;
        w->closed = !first;
    } else if (!first && frame->type == FRAME_RESULT)
        take_result(w, frame);
    else if (!first && frame->type == FRAME_ENDED)
        leave();
    else
        end_lost(w, rank, "sent what is no message");
}

static void take_all(Watch *w, int rank) {
    Frame frame;
    int whole;
    while ((whole = connection_next(&w->members[rank].link, &frame, SIZE_MAX)) == 1) take(w, rank, &frame);
    if (whole < 0) end_lost(w, rank, "sent what is no message");
}

static void hear(Watch *w, int rank) {
    Member *m = &w->members[rank];
    bool open = connection_read(&m->link);
    m->heard = machine_seconds();
    take_all(w, rank);
    if (!open && !w->closed) end_lost(w, rank, "ended without a word (killed by a signal, or out of memory?)");
}

static void send_all(Watch *w) {
    for (int r = 0; r < w->count; r++) {
        Member *m = &w->members[r];
        if (!connection_has_more(&m->link) || connection_write(&m->link)) continue;
        hear(w, r);   /* its last words may be there */
        end_lost(w, r, "ended without a word (killed by a signal, or out of memory?)");
    }
}

static int wait_for_events(Watch *w, struct pollfd *polls) {
    int n = 0;
    polls[n++] = (struct pollfd){.fd = w->wake, .events = POLLIN};
    for (int r = 0; r < w->count; r++) {
        const Connection *link = &w->members[r].link;
        polls[n++] = (struct pollfd){.fd = link->socket, .events = (short)(POLLIN | (connection_has_more(link) ? POLLOUT : 0))};
    }
    double left = w->ticked + tick - machine_seconds();
    pthread_mutex_unlock(&w->lock);
    int ready = poll(polls, (nfds_t)n, left > 0 ? (int)(1000 * left) + 1 : 0);
    pthread_mutex_lock(&w->lock);
    return ready;
}

void *watch_run(void *argument) {
    Watch *w = argument;
    struct pollfd *polls = xcalloc((size_t)w->count + 1, sizeof *polls);
    pthread_mutex_lock(&w->lock);
    for (int r = 0; r < w->count; r++) take_all(w, r);   /* what came in one piece with the last words of the rendezvous */
    while (!w->closed) {
        serve_own(w);
        if (is_first(w)) try_gather(w);
        if (is_first(w)) try_close(w);
        beat(w);
        send_all(w);
        if (w->closed || wait_for_events(w, polls) <= 0) continue;
        eventfd_t count;
        if (polls[0].revents) eventfd_read(w->wake, &count);
        for (int r = 0; r < w->count && !w->closed; r++)
            if (polls[r + 1].revents & (POLLIN | POLLERR | POLLHUP)) hear(w, r);
    }
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    free(polls);
    return NULL;
}
