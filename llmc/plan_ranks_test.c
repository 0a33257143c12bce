/* plan_ranks_test.c: the model of communication, against what one works out by hand. */
#include "plan_ranks.h"

#include "config_test.h"

#include <math.h>

static void expect_near(const char *what, double value, double expected) {
    if (!(fabs(value - expected) <= 1e-9 * (fabs(expected) + 1e-12))) fail_msg("%s: %.17g, expected %.17g", what, value, expected);
}

/* Ready at 2, 4 and 6; on the link from 2 to 5, 5 to 6 and 6 to 11. */
static void test_transfers_follow_computing(void **state) {
    (void)state;
    const Leg legs[] = {{2, 3}, {2, 1}, {2, 5}};
    expect_near("exposed", exposed_after(legs, 3), 5);
    const Leg nothing_to_send[] = {{2, 3}, {2, 0}, {2, 0}};
    expect_near("hidden whole", exposed_after(nothing_to_send, 3), 0);
    const Leg too_late[] = {{2, 7}, {2, 0}};
    expect_near("begun early, over late", exposed_after(too_late, 2), 5);
}

/* There at 3, 4 and 9; computing from 3 to 5, 5 to 7, and 9 to 11. */
static void test_computing_follows_transfers(void **state) {
    (void)state;
    const Leg legs[] = {{2, 3}, {2, 1}, {2, 5}};
    expect_near("exposed", exposed_before(legs, 3), 5);
    const Leg nothing_to_wait_for[] = {{2, 0}, {3, 1}, {2, 4}};
    expect_near("hidden whole", exposed_before(nothing_to_wait_for, 3), 0);
}

/* n layers alike: while the link keeps up only one transfer shows; where it does not, n of them less what was computed meanwhile. */
static void test_equal_layers(void **state) {
    (void)state;
    enum { N = 12 };
    for (double transfer = 0.125; transfer <= 8; transfer *= 2) {
        Leg legs[N];
        double expected = transfer <= 1 ? transfer : N * transfer - (N - 1);
        for (int i = 0; i < N; i++) legs[i] = (Leg){1, transfer};
        expect_near("after", exposed_after(legs, N), expected);
        expect_near("before", exposed_before(legs, N), expected);
    }
}

static ModelSpec spec_of(const char *preset, const char *settings, int64_t ranks, bool zero) {
    ModelSpec spec;
    memset(&spec, 0, sizeof spec);
    configure(&spec.config, preset, settings);
    spec.dtype = BF16;
    spec.B = 16;
    spec.T = 1024;
    spec.ranks = ranks;
    spec.zero = zero;
    return spec;
}

/* GPT-2 124M in memory: 50,304 padded tokens and 1,024 positions of 768; 12 layers of 12 C^2 + 13 C; the final norm's 2 C. */
enum { C = 768, GPT2_EMBEDDING = (50304 + 1024) * C, GPT2_LAYER = 12 * C * C + 13 * C, GPT2 = GPT2_EMBEDDING + 12 * GPT2_LAYER + 2 * C };

static void test_bytes_of_gpt2(void **state) {
    (void)state;
    ModelSpec spec = spec_of("gpt2-124M", "vocab_size=50257\n", 8, false);
    RanksTraffic traffic = ranks_traffic(&spec);
    expect_near("all-reduced", traffic.gradients, 2 * 7 / 8.0 * 4 * GPT2);
    expect_near("gathered", traffic.parameters, 0);
    expect_near("totals", traffic.others, 2 * 7 / 8.0 * 3 * 4);
    assert_int_equal(traffic.collectives, 1 + 12 + 1 + 1);
    spec.zero = true;
    spec.ranks = 2;   /* every bucket falls into two pieces without padding */
    traffic = ranks_traffic(&spec);
    expect_near("reduce-scattered", traffic.gradients, 1 / 2.0 * 4 * GPT2);
    expect_near("gathered in bf16", traffic.parameters, 1 / 2.0 * 2 * GPT2);
    expect_near("totals and squares", traffic.others, 2 * 1 / 2.0 * (3 * 4 + 8));
    assert_int_equal(traffic.collectives, 2 * 14 + 2);
    spec.dtype = F32;
    expect_near("gathered in fp32", ranks_traffic(&spec).parameters, 1 / 2.0 * 4 * GPT2);
}

/* With pieces for an odd number of ranks there is padding: less than 128 elements a rank and bucket. */
static void test_padding(void **state) {
    (void)state;
    ModelSpec spec = spec_of("gpt2-124M", "vocab_size=50257\n", 7, true);
    double least = 6 / 7.0 * 4 * GPT2, padding = ranks_traffic(&spec).gradients - least;
    assert_true(padding > 0 && padding < 6 / 7.0 * 4 * 14 * 7 * 128);
}

static void test_one_rank(void **state) {
    (void)state;
    for (int64_t ranks = 0; ranks <= 1; ranks++) {
        ModelSpec spec = spec_of("gpt2-124M", "vocab_size=50257\n", ranks, ranks == 1);
        assert_int_equal(ranks_traffic(&spec).collectives, 0);
        expect_near("sent", ranks_traffic(&spec).gradients, 0);
        RanksTime time = ranks_time(&spec, 4, 1e9, 1e12);
        expect_near("exposed", time.exposed, 0);
        expect_near("efficiency", time.efficiency, 1);
    }
}

/* One node of 8 GPUs at 300 GB/s and 400 TFLOP/s: a layer's transfer is far shorter than its backward, so what shows is that of the first layer, the
   last to be done, and of the embeddings. Layers and head take 6 FLOPs a weight and token, attention 6 C T a layer. */
static void test_a_node_with_nvlink(void **state) {
    (void)state;
    const double link = 300e9, matmul = 400e12, tokens = 16 * 1024;
    ModelSpec spec = spec_of("gpt2-124M", "vocab_size=50257\n", 8, false);
    double layer = 2 * 7 / 8.0 * 4 * GPT2_LAYER / link + LINK_LATENCY, embedding = 2 * 7 / 8.0 * 4 * GPT2_EMBEDDING / link + LINK_LATENCY;
    double step = 6 * (12 * 12.0 * C * C + 50257.0 * C + 12.0 * C * 1024) * tokens * 4 / matmul;
    RanksTime time = ranks_time(&spec, 4, link, matmul);
    expect_near("step", time.step, step);
    expect_near("exposed", time.exposed, layer + embedding);
    expect_near("by the embeddings", time.exposed_embedding, embedding);
    expect_near("busy", time.busy, 2 * 7 / 8.0 * (4.0 * GPT2 + 12) / link + 15 * LINK_LATENCY);
    expect_near("efficiency", time.efficiency, step / (step + layer + embedding));
    assert_true(time.efficiency > 0.99 && time.exposed > 0.9e-3 && time.exposed < 1.2e-3);   /* 0.99 ms on 131 ms */
}

/* With ZeRO each way is half as long in fp32; the parameters' way back shows that of the embeddings and of the first layer; and the squares' trip. */
static void test_zero(void **state) {
    (void)state;
    const double link = 300e9, matmul = 400e12;
    ModelSpec spec = spec_of("gpt2-124M", "vocab_size=50257\n", 2, true);
    double there = 1 / 2.0 * 4 * (GPT2_LAYER + GPT2_EMBEDDING) / link + 2 * LINK_LATENCY;
    double back = 1 / 2.0 * 2 * (GPT2_LAYER + GPT2_EMBEDDING) / link + 2 * LINK_LATENCY;
    double squares = 2 * 1 / 2.0 * 8 / link + LINK_LATENCY;
    RanksTime time = ranks_time(&spec, 4, link, matmul);
    expect_near("exposed", time.exposed, there + back + squares);
    expect_near("by the embeddings", time.exposed_embedding, 1 / 2.0 * 6 * GPT2_EMBEDDING / link + 2 * LINK_LATENCY);
    expect_near("busy", time.busy, 1 / 2.0 * (6.0 * GPT2 + 2 * (12 + 8)) / link + 30 * LINK_LATENCY);
}

/* A link so slow that it never rests from the first bucket on: all transfers less what is computed behind the first. The first are
   the totals, ready when the head is done; tied or not, what is computed from then on are the layers. */
static void test_a_slow_link(void **state) {
    (void)state;
    const double link = 1e6, matmul = 1e15;
    for (int tie = 0; tie <= 1; tie++) {
        ModelSpec spec = spec_of("gpt2-124M", tie ? "vocab_size=50257\n" : "vocab_size=50257\ntie=0\n", 2, false);
        double layers = 4 * (12 * 12.0 * C * C + 12.0 * C * 1024) * 16 * 1024 / matmul;
        RanksTime time = ranks_time(&spec, 1, link, matmul);
        expect_near("exposed", time.exposed, time.busy - layers);
        assert_int_equal(ranks_traffic(&spec).collectives, tie ? 15 : 16);
        assert_true(time.efficiency < 0.01);
    }
}

/* GPT-2 1558M, 48 layers of C = 1600, with 8 rows at 450 TFLOP/s and 300 GB/s. */
static void test_gpt2_1558M(void **state) {
    (void)state;
    const double W = 1600, layer = 12 * W * W + 13 * W, embedding = (50304 + 1024) * W, link = 300e9;
    ModelSpec spec = spec_of("gpt2-1558M", "vocab_size=50257\n", 8, false);
    spec.B = 8;
    RanksTime time = ranks_time(&spec, 8, link, 450e12);
    expect_near("bytes", ranks_traffic(&spec).gradients, 7 * (48 * layer + embedding + 2 * W));
    expect_near("exposed", time.exposed, 7 * (layer + embedding) / link + 2 * LINK_LATENCY);
    assert_true(time.exposed / time.busy < 0.1 && time.efficiency > 0.995);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfers_follow_computing), cmocka_unit_test(test_computing_follows_transfers), cmocka_unit_test(test_equal_layers),
        cmocka_unit_test(test_bytes_of_gpt2), cmocka_unit_test(test_padding), cmocka_unit_test(test_one_rank),
        cmocka_unit_test(test_a_node_with_nvlink), cmocka_unit_test(test_zero), cmocka_unit_test(test_a_slow_link), cmocka_unit_test(test_gpt2_1558M),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
