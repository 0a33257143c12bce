/* schedule.c: learning-rate and batch-size schedules. */
#include "schedule.h"

#include "error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CONSTANT, LINEAR, COSINE, WSD, INVERSE_SQRT, SQRT_DECAY };   /* as the words of --schedule */

/* From 0 at `from` to 1 at `to`, clamped. */
static double progress(double t, double from, double to) {
    if (t >= to) return 1;
    return t <= from ? 0 : (t - from) / (to - from);
}

double schedule_lr(const Options *o, int64_t step) {
    double t = (double)step, w = (double)o->warmup, steps = (double)o->steps, a = o->lr, b = o->min_lr;
    double end = o->decay_steps ? (double)o->decay_steps : steps;
    if (o->schedule == INVERSE_SQRT) {
        double n = t + 1, warm = w > 0 ? n * pow(w, -1.5) : INFINITY;
        return a / sqrt((double)o->n_embd) * fmin(1 / sqrt(n), warm);
    }
    if (o->schedule == SQRT_DECAY) return a / sqrt(t + 1);
    if (t < w) return a * (t + (o->warmup_from ? 1 : 0)) / w;
    switch (o->schedule) {
    case LINEAR: return a + (b - a) * progress(t, w, end);
    case COSINE: return t >= end ? b : b + 0.5 * (1 + cos(3.14159265358979323846 * progress(t, w, end))) * (a - b);
    case WSD: {
        double length = o->decay_steps ? (double)o->decay_steps : floor(steps / 5);
        return a + (b - a) * progress(t, steps - length, steps);
    }
    default: return a;
    }
}

bool schedule_reaches_peak(const Options *o) {
    bool one_less = o->warmup > 0 && (o->warmup_from || o->schedule == INVERSE_SQRT);
    int64_t top = o->schedule == SQRT_DECAY ? 0 : o->warmup - one_less;
    return o->steps == 0 || (top < o->steps && (o->schedule == INVERSE_SQRT || schedule_lr(o, top) >= o->lr));
}

int64_t schedule_sensible_warmup(const Options *o) {
    bool ends = o->schedule == LINEAR || o->schedule == COSINE;
    int64_t most = (o->decay_steps && ends ? o->decay_steps : o->steps) / 10;
    if (o->schedule == WSD && o->decay_steps && o->steps - o->decay_steps < most) most = o->steps - o->decay_steps;
    if (most < 0) most = 0;
    return o->schedule != SQRT_DECAY && o->warmup > most ? most : o->warmup;
}

bool schedule_check_lr(const Options *o, char error[ERROR_SIZE]) {
    long long warmup = o->warmup, decay = o->decay_steps, steps = o->steps;
    bool ends = o->schedule == LINEAR || o->schedule == COSINE, wsd = o->schedule == WSD;
    if ((ends || wsd) && o->min_lr > o->lr)
        return file_error(error, "--min-lr %g, at which the decay ends, is above the peak, --lr %g; give a lower one", o->min_lr, o->lr);
    if (ends && decay && warmup >= decay)
        return file_error(error, "--decay-steps %lld is the step at which the decay ends, and --warmup %lld is not over before; give more "
                          "--decay-steps, or a shorter --warmup", decay, warmup);
    if (wsd && decay > steps)
        return file_error(error, "--decay-steps %lld is the length of the decay at the end of --schedule wsd, and there are %lld --steps in all; "
                          "give fewer", decay, steps);
    if (wsd && decay && warmup + decay > steps)
        return file_error(error, "--warmup %lld and the --decay-steps %lld of --schedule wsd are more than the %lld --steps; give fewer", warmup,
                          decay, steps);
    return true;
}

/* The next "step:count" of *text. 1 read, 0 at the end, -1 not understood. */
static int next_entry(const char **text, int64_t *step, int64_t *count) {
    char *end;
    if (**text == 0) return 0;
    *step = strtoll(*text, &end, 10);
    if (end == *text || *end != ':') return -1;
    *text = end + 1;
    *count = strtoll(*text, &end, 10);
    if (end == *text || (*end != 0 && *end != ',')) return -1;
    *text = end + (*end == ',');
    return 1;
}

int64_t schedule_grad_accum(const Options *o, int64_t t) {
    const char *text = o->batch_schedule;
    int64_t step, count, current = o->grad_accum;
    while (next_entry(&text, &step, &count) == 1)
        if (step <= t) current = count;
    return current;
}

static int64_t grad_accum_at_the_ends(const Options *o, bool most) {
    const char *text = o->batch_schedule;
    int64_t step, count, found = 0;
    while (next_entry(&text, &step, &count) == 1)
        if (!found || (most ? count > found : count < found)) found = count;
    return found ? found : o->grad_accum;
}

int64_t schedule_least_grad_accum(const Options *o) { return grad_accum_at_the_ends(o, false); }
int64_t schedule_most_grad_accum(const Options *o) { return grad_accum_at_the_ends(o, true); }

bool schedule_check(const Options *o, char error[ERROR_SIZE]) {
    const char *text = o->batch_schedule;
    int64_t step, count, previous = -1;
    int found;
    while ((found = next_entry(&text, &step, &count)) == 1) {
        bool starts = previous >= 0 || step == 0;
        if (!starts || step <= previous || count < 1 || count > 1048576) found = -1;
        if (found < 0) break;
        previous = step;
    }
    if (found == 0) return true;
    snprintf(error, ERROR_SIZE, "--batch-schedule is '%.100s'; expected STEP:MICRO-BATCHES pairs with ascending steps from 0, as 0:1,200:4,400:8",
             o->batch_schedule);
    return false;
}

static bool rescale(int64_t *count, int64_t from, int64_t to, char error[ERROR_SIZE]) {
    if (*count * from % to != 0)
        return file_error(error, "steps of %lld ranks x %lld micro-batches do not divide among %lld ranks; give --batch with --grad-accum or "
                          "--batch-schedule anew, or --total-batch", (long long)from, (long long)*count, (long long)to);
    *count = *count * from / to;
    return true;
}

bool schedule_rescale(Options *o, int64_t now, int64_t from, int64_t to, char error[ERROR_SIZE]) {
    const char *text = o->batch_schedule;
    int64_t step, count, next, unused, accum = o->grad_accum;
    if (!*text) {
        if (!rescale(&accum, from, to, error)) return false;
        o->grad_accum = accum;
        return true;
    }
    char *scaled = xstrdup("");
    bool ok = true;
    while (ok && next_entry(&text, &step, &count) == 1) {
        const char *rest = text;
        if (next_entry(&rest, &next, &unused) == 1 && next <= now) continue;   /* over */
        ok = rescale(&count, from, to, error);
        char *longer = xprintf("%s%s%lld:%lld", scaled, *scaled ? "," : "", *scaled ? (long long)step : 0, (long long)count);
        free(scaled);
        scaled = longer;
    }
    free(ok ? o->batch_schedule : scaled);
    if (ok) o->batch_schedule = scaled;
    return ok;
}
