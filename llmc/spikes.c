/* spikes.c: see spikes.h. */
#include "spikes.h"

#include "error.h"

#include <float.h>
#include <math.h>

void spikes_note(SpikeGuard *g, double z, int64_t step, double loss, double grad_norm) {
    double spike_loss, spike_norm;
    CHECK(step >= 0 && isfinite(loss) && isfinite(grad_norm));
    spikes_thresholds(g, z, step, &spike_loss, &spike_norm);
    if (spike_loss > 0 && loss > spike_loss) loss = spike_loss;
    if (spike_norm > 0 && grad_norm > spike_norm) grad_norm = spike_norm;
    bool follows = g->count > 0 && step == g->newest + 1;
    g->count = !follows ? 1 : g->count < SPIKE_WINDOW ? g->count + 1 : SPIKE_WINDOW;
    g->newest = step;
    g->losses[step % SPIKE_WINDOW] = (float)fmin(loss, FLT_MAX);
    g->norms[step % SPIKE_WINDOW] = (float)fmin(grad_norm, FLT_MAX);
}

/* Mean + z standard deviations of the values of steps first ... last; in two passes, so that nothing cancels. */
static double threshold(const float *values, int64_t first, int64_t last, double z) {
    double sum = 0, squares = 0, n = (double)(last - first + 1);
    for (int64_t s = first; s <= last; s++) sum += values[s % SPIKE_WINDOW];
    for (int64_t s = first; s <= last; s++) {
        double d = values[s % SPIKE_WINDOW] - sum / n;
        squares += d * d;
    }
    return sum / n + z * sqrt(squares / (n - 1));
}

void spikes_thresholds(const SpikeGuard *g, double z, int64_t step, double *spike_loss, double *spike_norm) {
    int64_t first = g->newest - g->count + 1, last = g->newest < step - 2 ? g->newest : step - 2;
    if (first < step - SPIKE_WINDOW + 1) first = step - SPIKE_WINDOW + 1;
    *spike_loss = *spike_norm = 0;
    if (z == 0 || g->count == 0 || last - first + 1 < SPIKE_LEAST) return;
    *spike_loss = threshold(g->losses, first, last, z);
    *spike_norm = threshold(g->norms, first, last, z);
}
