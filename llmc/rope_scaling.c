/* rope_scaling.c: see rope_scaling.h. */
#include "rope_scaling.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

double yarn_magnitude(double factor) { return factor > 1 ? 1 + 0.1 * log(factor) : 1; }

RopeScaling rope_scaling_settled(RopeScaling s) {
    RopeScaling settled = {.kind = s.kind};
    if (s.kind == SCALING_NONE) return settled;
    settled.factor = s.factor;
    if (s.kind == SCALING_LINEAR) return settled;
    settled.original_len = s.original_len;
    settled.low_freq = s.low_freq != 0 ? s.low_freq : 1;
    settled.high_freq = s.high_freq != 0 ? s.high_freq : s.kind == SCALING_YARN ? 32 : 4;
    if (s.kind == SCALING_LLAMA3) return settled;
    settled.magnitude = s.magnitude != 0 ? s.magnitude : yarn_magnitude(s.factor);
    settled.whole_pairs = s.whole_pairs;
    return settled;
}

bool rope_scaling_check(const RopeScaling *s, double base, char error[ERROR_SIZE]) {
    enum { MOST_LENGTH = 1048576 };
    if (s->kind == SCALING_NONE) return true;
    if (!(s->factor >= 1 && s->factor <= 1e6))
        return file_error(error, "rope_factor is %g; expected 1 to 1e6: how many times as long the context becomes", s->factor);
    if (s->kind == SCALING_LINEAR) return true;
    if (s->original_len < 1 || s->original_len > MOST_LENGTH)
        return file_error(error, "rope_original_len is %lld; expected the length of the context before RoPE's scaling, 1 to %d",
                          (long long)s->original_len, MOST_LENGTH);
    if (!(s->low_freq > 0 && s->high_freq > s->low_freq && s->high_freq <= 1e6))
        return file_error(error, "rope_low_freq is %g and rope_high_freq %g; expected a number above 0, and a greater one", s->low_freq,
                          s->high_freq);
    if (s->kind == SCALING_LLAMA3) return true;
    if (!(s->magnitude > 0 && s->magnitude <= 1000))
        return file_error(error, "rope_magnitude is %g; expected a number above 0, up to 1000", s->magnitude);
    return base > 1 || file_error(error, "rope_scaling is yarn, but rope_base 1, by which all pairs turn alike; choose a larger base");
}

/* The pair, not a whole one, that turns so often in the original context: base^(-2i/HS) original_len = 2 pi turns. */
static double pair_of(double turns, const RopeScaling *s, double base, int64_t HS) {
    return (double)HS * log((double)s->original_len / (turns * 2 * pi)) / (2 * log(base));
}

/* 0 at `from`, 1 at `to`, linear in between, and no further on either side. */
static double ramp(double x, double from, double to) { return fmin(fmax((x - from) / (to - from), 0), 1); }

/* As transformers has it: the bounds lie within the head, and apart. */
static double kept_by_yarn(const RopeScaling *s, double base, int64_t HS, int64_t i) {
    double first = pair_of(s->high_freq, s, base, HS), last = pair_of(s->low_freq, s, base, HS);
    if (s->whole_pairs) {
        first = floor(first);
        last = ceil(last);
    }
    first = fmax(first, 0);
    last = fmin(last, (double)HS - 1);
    if (last == first) last += 0.001;
    return 1 - ramp((double)i, first, last);
}

double rope_frequency(const RopeScaling *s, double base, int64_t HS, int64_t i) {
    double frequency = pow(base, -2.0 * (double)i / (double)HS), kept = 0;
    if (s->kind == SCALING_NONE) return frequency;
    if (s->kind == SCALING_LLAMA3) kept = ramp((double)s->original_len * frequency / (2 * pi), s->low_freq, s->high_freq);
    if (s->kind == SCALING_YARN) kept = kept_by_yarn(s, base, HS, i);
    return frequency * (kept + (1 - kept) / s->factor);
}
