/* rope_scaling_test.c: frequencies of published models as transformers has them, what every scaling keeps to, and what is refused. */
#include "rope_scaling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static char error[ERROR_SIZE];

static const RopeScaling llama32 = {.kind = SCALING_LLAMA3, .factor = 32, .original_len = 8192, .low_freq = 1, .high_freq = 4};
static const RopeScaling qwen25 = {.kind = SCALING_YARN, .factor = 4, .original_len = 32768, .whole_pairs = true};

static void expect_frequency(RopeScaling s, double base, int64_t i, double expected) {
    s = rope_scaling_settled(s);
    double frequency = rope_frequency(&s, base, 64, i);
    if (!(fabs(frequency - expected) <= 2e-6 * expected)) fail_msg("pair %d turns by %.9g; expected %.9g", (int)i, frequency, expected);
}

/* Of Llama 3.2 1B, and of Qwen2.5 with the YaRN of its model card, both with heads of 64: printed by transformers 5.23, which computes in
   fp32. */
static void test_published(void **state) {
    (void)state;
    static const struct { int64_t pair; double llama, yarn, yarn_between; } expected[] = {
        {0, 1, 1, 1}, {1, 0.663601279, 0.649381638, 0.649381638}, {10, 0, 0.0133352149, 0.0133352149},
        {12, 0.00729266508, 0.00515479548, 0.00551727042},
        {13, 0.00483942125, 0, 0}, {14, 0.00321144611, 0.00177853031, 0.00188350258}, {15, 0.00129054801, 0, 0},
        {16, 0.000429556705, 0.000583333371, 0.000607408001}, {17, 9.70828623e-05, 0, 0}, {18, 1.94616387e-05, 0.000175706868, 0.000177344235},
        {19, 1.29147675e-05, 0, 0}, {20, 0, 4.44569851e-05, 4.44569851e-05}, {31, 9.41830649e-08, 3.84981632e-07, 3.84981632e-07},
    };
    RopeScaling between = qwen25, yarn = rope_scaling_settled(qwen25);
    between.whole_pairs = false;
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
        if (expected[k].llama > 0) expect_frequency(llama32, 5e5, expected[k].pair, expected[k].llama);
        if (expected[k].yarn > 0) expect_frequency(qwen25, 1e6, expected[k].pair, expected[k].yarn);
        if (expected[k].yarn > 0) expect_frequency(between, 1e6, expected[k].pair, expected[k].yarn_between);
    }
    assert_true(fabs(rope_magnitude(&yarn) - 1.138629436) < 1e-9 && rope_magnitude(&llama32) == 1);
}

/* Whatever the shape: between the frequency by itself and that over the factor, never growing from pair to pair; a factor of 1 scales
   nothing; linear is the whole factor for all. */
static void test_bounds(void **state) {
    (void)state;
    static const int64_t sizes[] = {2, 32, 64, 80, 96, 128, 256}, lengths[] = {1, 8, 2048, 8192, 1048576};
    static const double bases[] = {1.5, 100, 1e4, 5e5, 1e12};
    for (int shape = 0; shape < 7 * 5 * 5; shape++)
        for (int kind = SCALING_NONE; kind <= SCALING_YARN; kind++)
            for (int whole = 0; whole < 2; whole++) {
                int64_t HS = sizes[shape % 7];
                double base = bases[shape / 7 % 5], last = 1;
                RopeScaling s = {.kind = (ScalingKind)kind, .factor = 8, .original_len = lengths[shape / 35], .whole_pairs = whole};
                RopeScaling one = s;
                one.factor = 1;
                s = rope_scaling_settled(s);
                one = rope_scaling_settled(one);
                if (!rope_scaling_check(&s, base, error)) fail_msg("%s", error);
                for (int64_t i = 0; i < HS / 2; i++) {
                    double plain = pow(base, -2.0 * (double)i / (double)HS), frequency = rope_frequency(&s, base, HS, i);
                    assert_true(frequency <= plain * (1 + 1e-12) && frequency >= plain / 8 * (1 - 1e-12));
                    assert_true(fabs(rope_frequency(&one, base, HS, i) - plain) <= 1e-12 * plain);
                    if (kind == SCALING_NONE) assert_true(frequency == plain);
                    if (kind == SCALING_LINEAR) assert_true(frequency == plain / 8);
                    if (kind != SCALING_YARN) assert_true(frequency <= last);
                    last = frequency;
                }
            }
}

static void test_settled(void **state) {
    (void)state;
    RopeScaling all = {SCALING_NONE, 4, 100, 2, 3, 5, true}, s = rope_scaling_settled(all);
    assert_true(s.factor == 0 && s.original_len == 0 && s.low_freq == 0 && s.high_freq == 0 && s.magnitude == 0 && !s.whole_pairs);
    all.kind = SCALING_LINEAR, s = rope_scaling_settled(all);
    assert_true(s.factor == 4 && s.original_len == 0 && s.low_freq == 0 && s.high_freq == 0 && s.magnitude == 0 && !s.whole_pairs);
    all.kind = SCALING_LLAMA3, s = rope_scaling_settled(all);
    assert_true(s.factor == 4 && s.original_len == 100 && s.low_freq == 2 && s.high_freq == 3 && s.magnitude == 0 && !s.whole_pairs);
    all.kind = SCALING_YARN, s = rope_scaling_settled(all);
    assert_true(s.factor == 4 && s.original_len == 100 && s.low_freq == 2 && s.high_freq == 3 && s.magnitude == 5 && s.whole_pairs);
    RopeScaling bare = {.kind = SCALING_LLAMA3, .factor = 2};
    s = rope_scaling_settled(bare);
    assert_true(s.low_freq == 1 && s.high_freq == 4);
    bare.kind = SCALING_YARN, s = rope_scaling_settled(bare);
    assert_true(s.low_freq == 1 && s.high_freq == 32 && s.magnitude == 1 + log(2) / 10);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct { RopeScaling scaling; double base; const char *named; } wrong[] = {
        {{SCALING_LINEAR, 0, 0, 0, 0, 0, false}, 1e4, "rope_factor is 0"}, {{SCALING_LINEAR, 0.5, 0, 0, 0, 0, false}, 1e4, "rope_factor is 0.5"},
        {{SCALING_LLAMA3, 1e7, 8, 1, 4, 0, false}, 1e4, "rope_factor is 1e+07"}, {{SCALING_LLAMA3, NAN, 8, 1, 4, 0, false}, 1e4, "rope_factor is"},
        {{SCALING_LLAMA3, 2, 0, 1, 4, 0, false}, 1e4, "rope_original_len is 0"},
        {{SCALING_YARN, 2, -8, 1, 4, 0, false}, 1e4, "rope_original_len is -8"},
        {{SCALING_LLAMA3, 2, 8, 4, 1, 0, false}, 1e4, "rope_low_freq is 4 and rope_high_freq 1"},
        {{SCALING_LLAMA3, 2, 8, 4, 4, 0, false}, 1e4, "rope_low_freq is 4 and rope_high_freq 4"},
        {{SCALING_YARN, 2, 8, -1, 4, 0, false}, 1e4, "rope_low_freq is -1"}, {{SCALING_YARN, 2, 8, 1, NAN, 0, false}, 1e4, "rope_low_freq"},
        {{SCALING_YARN, 2, 8, 1, 4, -1, false}, 1e4, "rope_magnitude is -1"}, {{SCALING_YARN, 2, 8, 1, 4, NAN, false}, 1e4, "rope_magnitude"},
        {{SCALING_YARN, 2, 8, 1, 4, 0, false}, 1, "rope_base 1"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        RopeScaling s = rope_scaling_settled(wrong[i].scaling);
        if (rope_scaling_check(&s, wrong[i].base, error)) fail_msg("accepted; expected: %s", wrong[i].named);
        if (!strstr(error, wrong[i].named)) fail_msg("\"%s\" does not say \"%s\"", error, wrong[i].named);
    }
    RopeScaling none = rope_scaling_settled((RopeScaling){0}), yarn = rope_scaling_settled(qwen25);
    assert_true(rope_scaling_check(&none, 1, error) && rope_scaling_check(&llama32, 1, error) && rope_scaling_check(&yarn, 1.5, error));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published), cmocka_unit_test(test_bounds), cmocka_unit_test(test_settled), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
