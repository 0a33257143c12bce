/* machine_test.c: which card a device's name stands for, and what is made of a peak. */
#include "machine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const char *device;
static const char *describe(void) { return device; }
static const Backend made_up = {.name = "cuda", .describe = describe};

static double tera_flops(const char *name) {
    device = name;
    const Card *card = machine_card(&made_up);
    return card ? card->tera_flops : 0;
}

static void test_cards(void **state) {
    (void)state;
    static const struct { const char *name; double tera_flops; } known[] = {
        {"NVIDIA H100 80GB HBM3, CUDA 12.4", 989.4}, {"NVIDIA H100 NVL", 835.5}, {"NVIDIA GH200 480GB", 989.4}, {"NVIDIA GB200", 2500},
        {"NVIDIA A100-SXM4-40GB, of H200s", 312}, {"NVIDIA RTX A6000", 154.8}, {"NVIDIA A10", 125}, {"NVIDIA L4", 121}, {"NVIDIA L40S", 362.1},
        {"NVIDIA GeForce RTX 3090 Ti", 80}, {"NVIDIA GeForce RTX 3090", 71},
    };
    static const char *const unknown[] = {"NVIDIA RTX A4000", "NVIDIA RTX A1000", "NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU",
                                          "NVIDIA GeForce RTX 4090 D", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GL4", "cpu, 2 threads", ""};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (tera_flops(known[i].name) != known[i].tera_flops) fail_msg("%s: %g", known[i].name, tera_flops(known[i].name));
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (tera_flops(unknown[i]) != 0) fail_msg("%s: %g", unknown[i], tera_flops(unknown[i]));
}

static void test_utilization(void **state) {
    (void)state;
    Peak measured = {1e12, "measured"}, published = {1e12, "published"}, unknown = {0, NULL}, of_threads = {1e12, NULL};
    assert_true(machine_utilization(&measured, 5e11) == 0.5 && measured.flops == 1e12);
    assert_true(machine_utilization(&measured, 2e12) == 1 && measured.flops == 2e12);
    assert_true(machine_utilization(&measured, 5e11) == 0.25);
    assert_true(machine_utilization(&measured, INFINITY) == INFINITY && measured.flops == 2e12);   /* a step of no time */
    assert_true(machine_utilization(&published, 2e12) == 2 && published.flops == 1e12);
    assert_true(machine_utilization(&unknown, 2e12) == 0 && unknown.flops == 0);
    assert_true(machine_utilization(&of_threads, 5e11) == 0.5);
}

/* Plausible, of any machine that runs this. Of a GPU no peak in fp32 is in the list. */
static void test_measured_peak(void **state) {
    (void)state;
    const Backend *cpu = backend_find("cpu");
    Peak peak = machine_peak(cpu, F32);
    assert_string_equal(peak.from, "measured");
    assert_true(peak.flops > 1e8 && peak.flops < 1e15);
    assert_true(machine_peak(&made_up, F32).from == NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cards), cmocka_unit_test(test_utilization), cmocka_unit_test(test_measured_peak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
