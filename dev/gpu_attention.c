/* gpu_attention: the project's attention kernels and cuDNN's, turn about, in bf16: forward and backward by head size, length of rows, key/value
   heads, and with and without the same bits on every run. dev/gpu_decisions.py makes of it which should be taken for which head size. */
#include "bench_attention.h"

#include "llmc/json.h"

#include <errno.h>
#include <stdio.h>

static const char usage[] =
    "gpu_attention [--device NAME] [--json FILE] [--seconds S] [--seq-len T] [--tokens N]: our attention kernels against cuDNN's, in bf16.\n"
    "  --device NAME    cuda\n"
    "  --json FILE      append the results, one JSON object a line\n"
    "  --seconds S      given to each of the 48 cases (0.2)\n"
    "  --seq-len T      only the 16 cases of that T: 256, 1024 or 4096\n"
    "  --tokens N       in every case, at least T (65536)\n";

enum { OWN, LIBRARY, KINDS };
typedef struct { int deterministic, NH, NKV; int64_t B, T, HS; } Shape;
typedef struct { double forward[KINDS], backward[KINDS], forward_apart, backward_apart; } Comparison;

/* AUTO is the library where that can do the shape, else our own: so nothing is refused, and equal bits show which it was. */
static void choose_kind(const Backend *backend, int kind, int deterministic) {
    BackendSettings settings = {.attention = kind == OWN ? ATTENTION_OWN : ATTENTION_AUTO, .deterministic = deterministic};
    backend->configure(&settings);
}

/* ||a - b|| / ||a|| over what is of the first row of tokens, in columns from `first` on of `columns`. */
static double distance(const Backend *backend, Tensor a, Tensor b, int64_t columns, int64_t first) {
    size_t bytes = tensor_bytes(a) / (size_t)a.shape[0];
    uint16_t *x = xmalloc(bytes), *y = xmalloc(bytes);
    double apart = 0, whole = 0;
    backend->download(x, a.data, bytes, NULL);
    backend->download(y, b.data, bytes, NULL);
    for (size_t i = 0; i < bytes / sizeof *x; i++) {
        uint32_t bits[2] = {(uint32_t)x[i] << 16, (uint32_t)y[i] << 16};
        float numbers[2];
        memcpy(numbers, bits, sizeof numbers);
        if ((int64_t)i % columns < first) continue;
        apart += (double)(numbers[0] - numbers[1]) * (double)(numbers[0] - numbers[1]);
        whole += (double)numbers[0] * (double)numbers[0];
    }
    free(x);
    free(y);
    return sqrt(apart / whole);
}

/* The median over at least `seconds` of each kind's times, turn about; the first call of each, which may compile a kernel, does not count. */
static void time_kinds(double medians[KINDS], Work work, const Sublayer kinds[KINDS], const Shape *shape, double seconds) {
    static double times[KINDS][MOST_ROUNDS];
    int in_a_row = 1, round = 0;
    for (int k = 0; k < KINDS; k++) {
        choose_kind(kinds[k].backend, k, shape->deterministic);
        seconds_of(work, &kinds[k], 1);
        if (k == OWN) in_a_row = 1 + (int)(0.005 / (seconds_of(work, &kinds[k], 1) + 1e-6));
    }
    for (double begin = machine_seconds(); round < 3 || (round < MOST_ROUNDS && machine_seconds() - begin < seconds); round++)
        for (int k = 0; k < KINDS; k++) {
            choose_kind(kinds[k].backend, k, shape->deterministic);
            times[k][round] = seconds_of(work, &kinds[k], in_a_row);
        }
    for (int k = 0; k < KINDS; k++) medians[k] = median(times[k], round);
}

/* Both backwards read the same forward's result, ours. Of our backward only dK and dV are the same bits on every run. */
static Comparison compare_kinds(const Backend *backend, const Shape *z, double seconds) {
    Sublayer kinds[KINDS];
    Comparison c;
    for (int k = 0; k < KINDS; k++) {
        choose_kind(backend, k, z->deterministic);
        kinds[k] = open_sublayer(backend, BF16, z->B, z->T, z->NH, z->NKV, z->HS);
        fill(backend, kinds[k].qkv, 1);
        fill(backend, kinds[k].datt, 1);
    }
    int64_t C = z->NH * z->HS, packed = C + 2 * z->NKV * z->HS;
    time_kinds(c.forward, attention_forward, kinds, z, seconds / 2);
    c.forward_apart = distance(backend, kinds[OWN].att, kinds[LIBRARY].att, C, 0);
    Sublayer both[KINDS] = {kinds[OWN], kinds[LIBRARY]};
    both[LIBRARY].att = kinds[OWN].att;
    both[LIBRARY].lse = kinds[OWN].lse;
    time_kinds(c.backward, attention_backward, both, z, seconds / 2);
    c.backward_apart = distance(backend, kinds[OWN].dqkv, kinds[LIBRARY].dqkv, packed, C);
    for (int k = 0; k < KINDS; k++) close_sublayer(&kinds[k]);
    return c;
}

/* Microseconds; null for the library where its result is ours to the bit, because then it did not do it. */
static void append_comparison(const char *path, const Shape *z, const Comparison *c) {
    FILE *file = fopen(path, "a");
    if (!file) die("cannot write %s: %s", path, strerror(errno));
    const struct { const char *name; double value; } members[] = {
        {"head_size", (double)z->HS}, {"query_heads", z->NH}, {"kv_heads", z->NKV}, {"seq_len", (double)z->T}, {"batch", (double)z->B},
        {"deterministic", z->deterministic}, {"own_forward_us", 1e6 * c->forward[OWN]}, {"own_backward_us", 1e6 * c->backward[OWN]},
        {"cudnn_forward_us", c->forward_apart == 0 ? NAN : 1e6 * c->forward[LIBRARY]},
        {"cudnn_backward_us", c->backward_apart == 0 ? NAN : 1e6 * c->backward[LIBRARY]},
        {"forward_distance", c->forward_apart}, {"backward_distance", c->backward_apart},
    };
    fputs("{\"probe\": \"attention\"", file);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) json_write_number_member(file, members[i].name, members[i].value);
    fprintf(file, "}\n");
    if (fclose(file) != 0) die("cannot write %s: %s", path, strerror(errno));
}

static void say_comparison(const Shape *z, const Comparison *c) {
    double forward = 2.0 * (double)(z->B * z->NH * z->T * z->T * z->HS), backward = 2.5 * forward;   /* FLOP */
    printf("| %3lld | %4lld | %2d | %2d | %d ", (long long)z->HS, (long long)z->T, z->NH, z->NKV, z->deterministic);
    for (int k = 0; k < KINDS; k++) {
        if (k == LIBRARY && c->forward_apart == 0) printf("| - | - ");
        else printf("| %9.1f | %5.1f ", 1e6 * c->forward[k], forward / c->forward[k] / 1e12);
        if (k == LIBRARY && c->backward_apart == 0) printf("| - | - ");
        else printf("| %9.1f | %5.1f ", 1e6 * c->backward[k], backward / c->backward[k] / 1e12);
    }
    printf("| %.4f | %.4f |\n", c->forward_apart, c->backward_apart);
    fflush(stdout);
}

/* As many query heads as make 768 channels; each with keys and values of its own, or sharing them. 1 if some result is wrong: two right ones in
   bf16 are each within 2^-8 of the truth, and cancellation leaves a few times that. */
static int bench_kinds(const Backend *backend, int64_t only, int64_t tokens, double seconds, const char *json) {
    static const int64_t sizes[] = {64, 128, 96, 32}, lengths[] = {1024, 256, 4096};
    int wrong = 0;
    printf("%s, bf16, %lld tokens. us and TFLOP/s of our kernels and of cuDNN's, and how far apart their results are\n\n", backend->describe(),
           (long long)tokens);
    printf("| HS | T | NH | NKV | deterministic | own forward | TFLOP/s | own backward | TFLOP/s | cuDNN forward | TFLOP/s "
           "| cuDNN backward | TFLOP/s | forward apart | dK, dV apart |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < 48; i++) {
        int64_t T = lengths[i / 16], HS = sizes[i / 4 % 4];
        int NH = (int)(768 / HS), shared = NH % 4 ? NH / 3 : NH / 4;
        Shape z = {i % 2, NH, i / 2 % 2 ? shared : NH, tokens > T ? tokens / T : 1, T, HS};
        if (only && T != only) continue;
        Comparison c = compare_kinds(backend, &z, seconds);
        say_comparison(&z, &c);
        if (json) append_comparison(json, &z, &c);
        wrong |= !(c.forward_apart < 0.03 && c.backward_apart < 0.03);
    }
    if (wrong) fprintf(stderr, "gpu_attention: results further than 0.03 apart, or NaN: one of the two kernels is wrong\n");
    return wrong;
}

int main(int argc, char **argv) {
    const char *device = "cuda", *json = NULL;
    double seconds = 0.2, only = 0, tokens = 65536;
    error_program_name("gpu_attention");
    for (int i = 1; i < argc; i += 2) {
        char *end = NULL;
        if (!strcmp(argv[i], "--help")) return fputs(usage, stdout) < 0;
        if (i + 1 == argc) die("%s needs a value, or is no option; see --help", argv[i]);
        if (!strcmp(argv[i], "--device")) device = argv[i + 1];
        else if (!strcmp(argv[i], "--json")) json = argv[i + 1];
        else if (!strcmp(argv[i], "--seconds")) seconds = strtod(argv[i + 1], &end);
        else if (!strcmp(argv[i], "--seq-len")) only = strtod(argv[i + 1], &end);
        else if (!strcmp(argv[i], "--tokens")) tokens = strtod(argv[i + 1], &end);
        else die("there is no option %s; see --help", argv[i]);
        if (end && (*end || !(strtod(argv[i + 1], NULL) > 0))) die("%s %s: a number above 0 was expected", argv[i], argv[i + 1]);
    }
    const Backend *backend = backend_find(device);
    if (!backend) die("--device '%s' is not in this build or machine; there is: %s", device, backend_names());
    if (backend->host_memory || !backend->supports_bf16()) die("%s has no attention kernels in bf16 to compare", backend->describe());
    return bench_kinds(backend, (int64_t)only, (int64_t)tokens, seconds, json);
}
