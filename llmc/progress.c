/* progress.c: see progress.h. */
#include "progress.h"

#include "error.h"
#include "machine.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char wipe[] = "\r\033[K";   /* to the first column; erase to the end of the line (ECMA-48 EL) */
static const double seconds_between = 0.1;

static int columns_now(void) {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* mpirun gives its processes a terminal of no columns, whatever their output goes to. */
static bool can_move_the_cursor(void) {
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && columns_now() > 0 && term && *term && strcmp(term, "dumb") != 0;
}

void progress_open(Progress *p, bool quiet, bool live) {
    *p = (Progress){.kind = quiet ? PROGRESS_QUIET : live && can_move_the_cursor() ? PROGRESS_LIVE : PROGRESS_PLAIN, .drawn_at = -INFINITY};
    error_begin_lines(p->kind == PROGRESS_LIVE ? wipe : "");
}

static bool somebody_reads(void) {
    struct pollfd room = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&room, 1, 0) == 1;
}

static void flush(Progress *p) {
    bool good = fflush(stdout) == 0;
    int cause = errno;
    clearerr(stdout);
    if (good || p->lost) return;
    p->lost = true;
    warn("standard output cannot be written: %s; training goes on, and log.jsonl has its steps", strerror(cause));
}

void progress_clear(Progress *p) {
    if (!somebody_reads()) return;
    if (p->drawn) fputs(wipe, stdout);
    flush(p);
    p->drawn = false;
}

/* ---- the live line ------------------------------------------------------------------------------------------------------------- */

enum { FIELDS = 8, FIELD_SIZE = 48, LONGEST_BAR = 30, SHORTEST_BAR = 10 };

static int digits(int64_t n) { return snprintf(NULL, 0, "%lld", (long long)n); }

/* As they stand on the line; "" where unknown. */
static void write_fields(char field[FIELDS][FIELD_SIZE], const StepReport *r, double val_loss) {
    char speed[32], left[32];
    memset(field, 0, FIELDS * FIELD_SIZE);
    format_count(speed, r->tokens_per_s);
    format_duration(left, r->left_s);
    snprintf(field[0], FIELD_SIZE, "step %*lld/%lld", digits(r->steps), (long long)r->step, (long long)r->steps);
    snprintf(field[1], FIELD_SIZE, "loss %.4f", r->loss);
    if (val_loss) snprintf(field[2], FIELD_SIZE, "val %.4f", val_loss);
    snprintf(field[3], FIELD_SIZE, "lr %.2e", r->lr);
    snprintf(field[4], FIELD_SIZE, "norm %.3f", r->grad_norm);
    snprintf(field[5], FIELD_SIZE, "%7s tok/s", speed);   /* of one width mostly, so that the line stands still */
    if (r->mfu > 0) snprintf(field[6], FIELD_SIZE, "mfu %.1f%%", 100 * r->mfu);
    snprintf(field[7], FIELD_SIZE, "%s left", left);
}

static int write_bar(char *text, const StepReport *r, int length) {
    int inside = length - 2, full = r->steps > 0 ? (int)((double)inside * (double)r->step / (double)r->steps) : 0;
    text[0] = '[';
    for (int i = 0; i < inside; i++) text[1 + i] = i < full ? '#' : '.';
    strcpy(text + 1 + inside, "] ");
    return length + 1;
}

void progress_live_line(char text[PROGRESS_WIDEST], const StepReport *r, double val_loss, int columns) {
    static const int by_importance[FIELDS] = {0, 1, 2, 7, 5, 3, 4, 6};
    char field[FIELDS][FIELD_SIZE];
    bool fits[FIELDS] = {false};
    int room = columns - 3 < PROGRESS_WIDEST - 1 ? columns - 3 : PROGRESS_WIDEST - 1, used = 0;
    if (room < 0) room = 0;
    write_fields(field, r, val_loss);
    for (int i = 0; i < FIELDS; i++) {
        int f = by_importance[i], length = (int)strlen(field[f]) + (used ? 3 : 0);
        if (!field[f][0] || (used && used + length > room)) continue;
        fits[f] = true;
        used += length;
    }
    int bar = room - used - 1 < LONGEST_BAR ? room - used - 1 : LONGEST_BAR;
    int at = bar >= SHORTEST_BAR ? write_bar(text, r, bar) : 0;
    for (int f = 0; f < FIELDS; f++)
        if (fits[f]) at += snprintf(text + at, PROGRESS_WIDEST - (size_t)at, "%s%s", f ? " | " : "", field[f]);
    text[room] = 0;   /* where even the first is too long */
}

static void draw(Progress *p, const StepReport *r) {
    char text[PROGRESS_WIDEST] = "";
    progress_live_line(text, r, p->val_loss, columns_now());
    printf("%s%s", wipe, text);
    flush(p);
    p->drawn = true;
    p->drawn_at = machine_seconds();
}

void progress_say(Progress *p, const char *what) {
    if (p->kind != PROGRESS_LIVE || (int)strlen(what) + 3 > columns_now() || !somebody_reads()) return;
    printf("%s%s", wipe, what);
    flush(p);
    p->drawn = true;
}

/* ---- lines that last ----------------------------------------------------------------------------------------------------------- */

void progress_print_evaluation(const StepReport *r) {
    printf("train loss %.4f | val loss %.4f | val ppl %.2f", r->train_loss, r->val_loss, exp(r->val_loss));
    if (r->val_bits_per_byte > 0) printf(" | %.4f bits per byte", r->val_bits_per_byte);
    if (r->hellaswag_examples > 0) printf(" | HellaSwag acc %.4f, acc_norm %.4f", r->hellaswag_acc, r->hellaswag_acc_norm);
}

static const char *best_note(const StepReport *r) { return r->best ? " | best so far" : ""; }
static const char *spike_note(const StepReport *r) { return r->skipped ? " | a spike: update left out" : ""; }

static void print_step(const StepReport *r) {
    printf("step %*lld/%lld", digits(r->steps), (long long)r->step, (long long)r->steps);
}

static void print_plain(const StepReport *r) {
    char speed[32], left[32], mfu[32] = "";
    format_count(speed, r->tokens_per_s);
    format_duration(left, r->left_s);
    if (r->mfu > 0) snprintf(mfu, sizeof mfu, " | mfu %.1f%%", 100 * r->mfu);
    print_step(r);
    printf(" | loss %.4f | ppl %8.2f | lr %.2e | norm %6.3f | %s tok/s%s | %s left%s\n", r->loss, exp(r->loss), r->lr, r->grad_norm, speed, mfu, left,
           spike_note(r));
    if (r->evaluated) {
        printf("  evaluation: ");
        progress_print_evaluation(r);
        printf("%s\n", best_note(r));
    }
}

/* Above the live line. */
static void print_lasting(const StepReport *r) {
    print_step(r);
    if (r->skipped) printf(" | loss %.4f | norm %.3f%s", r->loss, r->grad_norm, spike_note(r));
    if (r->evaluated) {
        printf(" | ");
        progress_print_evaluation(r);
    }
    printf("%s\n", best_note(r));
}

void progress_step(Progress *p, const StepReport *r, bool shown) {
    bool lasting = r->evaluated || r->skipped;
    if (r->evaluated) p->val_loss = r->val_loss;
    if (p->kind == PROGRESS_QUIET || !somebody_reads()) return;
    if (p->kind == PROGRESS_PLAIN && shown) {
        print_plain(r);
        flush(p);
    }
    if (p->kind != PROGRESS_LIVE) return;
    if (lasting) {
        progress_clear(p);
        print_lasting(r);
    }
    if (lasting || machine_seconds() - p->drawn_at >= seconds_between) draw(p, r);
}
