/* sampler_test.c: the sampler's frequencies against exact probabilities, the edges of top-k and top-p, ties, and bad logits.

   Frequencies are compared by Pearson's chi-square X over the tokens that may occur. With df degrees of freedom,
   P(X >= df + 2 sqrt(df x) + 2x) <= exp(-x) (Laurent and Massart 2000, lemma 1): with x = 14 a right sampler fails one comparison in a
   million; and as the seeds are fixed, a test that has passed will pass again. */
#include "sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { DRAWS = 100000, MOST = 64 };

/* The distribution as the definition says, in long double: tokens join one by one, the likeliest first (the first of equals), until there
   are k of them or their mass is >= p of what k leaves. Returns how many there are. */
static int reference(long double *probability, const float *logits, int V, double temperature, int k, double p) {
    bool kept[MOST] = {false};
    long double weight[MOST], greatest = logits[0], within_k = 0, mass = 0;
    int order[MOST], count = 0;
    if (k <= 0 || k > V) k = V;
    for (int i = 0; i < V; i++) greatest = logits[i] > greatest ? logits[i] : greatest;
    for (int i = 0; i < V; i++) weight[i] = expl(((long double)logits[i] - greatest) / temperature);
    for (int n = 0; n < V; n++) {
        order[n] = -1;
        for (int i = 0; i < V; i++)
            if (!kept[i] && (order[n] < 0 || weight[i] > weight[order[n]])) order[n] = i;
        kept[order[n]] = true;
        if (n < k) within_k += weight[order[n]];
        probability[n] = 0;
    }
    while (count < k && (count == 0 || mass < p * within_k)) mass += weight[order[count++]];
    for (int i = 0; i < V; i++) probability[i] = 0;
    for (int n = 0; n < count; n++) probability[order[n]] = weight[order[n]] / mass;
    return count;
}

/* Draws many and compares. expected_count: how many tokens must be left, 0 if any number will do. */
static void check_frequencies(const float *logits, int V, double temperature, int k, double p, int expected_count) {
    long double probability[MOST];
    int64_t seen[MOST] = {0};
    int count = reference(probability, logits, V, temperature, k, p);
    if (expected_count) assert_int_equal(count, expected_count);
    Sampler s;
    sampler_create(&s, V, temperature, k, p, 42 + (uint64_t)V);
    for (int n = 0; n < DRAWS; n++) {
        int32_t token = sampler_next(&s, logits);
        assert_true(token >= 0 && token < V);
        seen[token]++;
    }
    sampler_free(&s);
    /* Tokens expected fewer than five times are counted together, as the test's theory wants. */
    double x = 0, rare_expected = 0, rare_seen = 0;
    int cells = 0;
    for (int i = 0; i < V; i++) {
        double expected = (double)probability[i] * DRAWS, difference = (double)seen[i] - expected;
        if (probability[i] == 0 && seen[i] > 0)
            fail_msg("token %d was drawn %lld times, but top-k %d and top-p %g cut it off", i, (long long)seen[i], k, p);
        if (expected < 5) rare_expected += expected, rare_seen += (double)seen[i];
        else x += difference * difference / expected, cells++;
    }
    if (rare_expected >= 5) x += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected, cells++;
    else if (rare_seen > 40) fail_msg("%g draws of tokens expected %g times in all", rare_seen, rare_expected);
    double df = cells - 1, bound = df + 2 * sqrt(df * 14) + 2 * 14;
    if (cells > 1 && !(x <= bound))
        fail_msg("V %d, temperature %g, top-k %d, top-p %g: chi-square %g > %g, %g degrees of freedom", V, temperature, k, p, x, bound, df);
}

static const float ten[] = {0.5f, -1.0f, 2.0f, 1.0f, 0.0f, -3.0f, 1.5f, -0.5f, 0.25f, -2.0f};

static void test_plain_softmax(void **state) {
    (void)state;
    check_frequencies(ten, 10, 1, 0, 1, 10);
    check_frequencies(ten, 10, 2, 0, 1, 10);
    check_frequencies(ten, 10, 0.5, 0, 1, 10);
    check_frequencies(ten, 10, 1, 10, 1, 10);
    check_frequencies(ten, 10, 1, 99, 1, 10);
    float many[MOST];
    for (int i = 0; i < MOST; i++) many[i] = sinf((float)i) * 2;
    check_frequencies(many, MOST, 1, 0, 1, MOST);
}

/* At temperature 1 the probabilities, likeliest first, are .375 .228 .138 .084 .065 .051 ...: with p between two partial sums the set is
   known. */
static void test_top_p(void **state) {
    (void)state;
    check_frequencies(ten, 10, 1, 0, 0.5, 2);
    check_frequencies(ten, 10, 1, 0, 0.37, 1);
    check_frequencies(ten, 10, 1, 0, 0.38, 2);
    check_frequencies(ten, 10, 1, 0, 0.89, 5);
    check_frequencies(ten, 10, 1, 0, 0.9, 6);
    check_frequencies(ten, 10, 1, 0, 0.999, 0);
    check_frequencies(ten, 10, 2, 0, 0.5, 0);
    check_frequencies(ten, 10, 0.5, 0, 0.9, 0);
    for (int p = 1; p < 20; p++) check_frequencies(ten, 10, 1.5, 0, p / 20.0, 0);
}

static void test_top_k(void **state) {
    (void)state;
    for (int k = 1; k <= 10; k++) check_frequencies(ten, 10, 1, k, 1, k);
    check_frequencies(ten, 10, 2, 3, 1, 3);
}

/* Top-p measures what top-k left: of the two likeliest, .375 and .228 become .622 and .378. */
static void test_both(void **state) {
    (void)state;
    check_frequencies(ten, 10, 1, 2, 0.6, 1);
    check_frequencies(ten, 10, 1, 2, 0.65, 2);
    check_frequencies(ten, 10, 1, 5, 0.8, 3);
    check_frequencies(ten, 10, 2, 7, 0.9, 0);
}

static void expect_always(const float *logits, int V, double temperature, int k, double p, int32_t token) {
    Sampler s;
    sampler_create(&s, V, temperature, k, p, 7);
    for (int n = 0; n < 1000; n++)
        if (sampler_next(&s, logits) != token)
            fail_msg("temperature %g, top-k %d, top-p %g: draw %d is not %d", temperature, k, p, n, token);
    sampler_free(&s);
}

static void test_one_choice(void **state) {
    (void)state;
    static const float one[] = {-7}, huge[] = {1e38f, -1e38f, 3e38f, 2e38f};
    expect_always(ten, 10, 0, 0, 1, 2);
    expect_always(ten, 10, 0, 5, 0.5, 2);
    expect_always(ten, 10, 1, 1, 1, 2);
    expect_always(ten, 10, 1, 0, 1e-300, 2);
    expect_always(ten, 10, 1, 0, 0, 2);
    expect_always(ten, 10, 1e-300, 0, 1, 2);
    expect_always(ten, 10, 0.001, 0, 1, 2);
    expect_always(huge, 4, 1, 0, 1, 2);
    expect_always(huge, 4, 0, 0, 1, 2);
    expect_always(one, 1, 0, 0, 1, 0);
    expect_always(one, 1, 1, 0, 1, 0);
    expect_always(one, 1, 1, 5, 0.1, 0);
}

/* Of equals the first are kept. Eight equal ones have the probability 1/8 exactly, so p = 1/4 is reached by two of them exactly. */
static void test_ties(void **state) {
    (void)state;
    static const float equal[8] = {0}, pairs[] = {1, 3, 3, 1, 3, 1};
    check_frequencies(equal, 8, 1, 0, 1, 8);
    check_frequencies(equal, 8, 1, 3, 1, 3);
    check_frequencies(equal, 8, 1, 0, 0.25, 2);
    check_frequencies(equal, 8, 1, 0, 0.2500001, 3);
    check_frequencies(equal, 8, 1, 4, 0.5, 2);
    check_frequencies(pairs, 6, 1, 2, 1, 2);
    expect_always(equal, 8, 0, 0, 1, 0);
    expect_always(pairs, 6, 0, 0, 1, 1);
    expect_always(pairs, 6, 1, 1, 1, 1);
    expect_always(equal, 8, 1, 0, 0.1, 0);
}

/* A draw says nothing about the next: pairs of four tokens occur as the product of their probabilities. */
static void test_independence(void **state) {
    (void)state;
    static const float four[] = {0, 0.5f, 1, -0.5f};
    long double probability[MOST];
    double x = 0, seen[16] = {0};
    reference(probability, four, 4, 1, 0, 1);
    Sampler s;
    sampler_create(&s, 4, 1, 0, 1, 3);
    for (int n = 0; n < DRAWS; n++) {
        int32_t first = sampler_next(&s, four);
        seen[first * 4 + sampler_next(&s, four)]++;
    }
    sampler_free(&s);
    for (int i = 0; i < 16; i++) {
        double expected = (double)(probability[i / 4] * probability[i % 4]) * DRAWS;
        x += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    if (!(x <= 15 + 2 * sqrt(15.0 * 14) + 28)) fail_msg("chi-square %g", x);
}

static void draw_many(int32_t *tokens, int n, uint64_t seed) {
    Sampler s;
    sampler_create(&s, 10, 1, 0, 0.95, seed);
    for (int i = 0; i < n; i++) tokens[i] = sampler_next(&s, ten);
    sampler_free(&s);
}

static void test_seed(void **state) {
    (void)state;
    enum { N = 500 };
    int32_t a[N], b[N], c[N];
    draw_many(a, N, 1);
    draw_many(b, N, 1);
    assert_memory_equal(a, b, sizeof a);
    static const uint64_t others[] = {0, 2, 1ULL << 32, (1ULL << 32) + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        draw_many(c, N, others[i]);
        assert_memory_not_equal(a, c, sizeof a);
    }
    /* Going on at the stored position is going on with the sequence. */
    Sampler s;
    sampler_create(&s, 10, 1, 0, 0.95, 1);
    s.drawn = 100;
    for (int i = 100; i < N; i++) assert_int_equal(sampler_next(&s, ten), a[i]);
    assert_int_equal(s.drawn, N);
    sampler_free(&s);
}

static void test_bad_logits(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int where = 0; where < 10; where++)
        for (int which = 0; which < 3; which++)
            for (int temperature = 0; temperature < 2; temperature++) {
                float logits[10];
                Sampler s;
                memcpy(logits, ten, sizeof logits);
                logits[where] = bad[which];
                sampler_create(&s, 10, temperature, 3, 0.9, 1);
                assert_int_equal(sampler_next(&s, logits), -1);
                assert_true(sampler_next(&s, ten) >= 0);
                sampler_free(&s);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_softmax), cmocka_unit_test(test_top_p), cmocka_unit_test(test_top_k), cmocka_unit_test(test_both),
        cmocka_unit_test(test_one_choice), cmocka_unit_test(test_ties), cmocka_unit_test(test_independence), cmocka_unit_test(test_seed),
        cmocka_unit_test(test_bad_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
