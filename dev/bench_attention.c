/* bench_attention: what fewer key/value heads cost and save. Six query heads share 1, 2, 3 or 6 key/value heads (Shazeer 2019; Ainslie et
   al. 2023). Timed are attention forward, attention backward, and the whole sublayer with its two projections; counted are the bytes. Each
   device present gets two Markdown tables. The four variants take turns within every round, and a ratio is the median of the rounds' own
   ratios: a machine that is busy for a while slows all four and not one. */
#include "bench_attention.h"

#include "llmc/config.h"
#include "llmc/json.h"
#include "llmc/options.h"

#include <errno.h>
#include <stdio.h>

static const char usage[] =
    "bench_attention [SECONDS] [--json FILE] [OPTION ...]: time and memory of attention with 1, 2, 3 and 6 key/value heads of 6.\n"
    "  SECONDS          given to each of the cases, four of every dtype (6)\n"
    "  --json FILE      append the results, one JSON object a line; scripts/plot.py --kv-heads FILE draws them\n"
    "  OPTION           of train_gpt: --device (else all present), --dtype (else both), --attention, --deterministic\n";

enum { NH = 6, VARIANTS = 4 };
static const int kv_heads[VARIANTS] = {6, 3, 2, 1};
static const struct { int64_t HS, T; } cases[] = {{32, 256}, {32, 1024}, {64, 256}, {64, 1024}};

static const char *dtype_name(DType dtype) { return dtype == BF16 ? "bf16" : "fp32"; }

/* ---- the sublayer ------------------------------------------------------------------------------------------------------------------ */

static Tensor matrix(Tensor t, int64_t columns) { return tensor(t.data, t.dtype, 2, tensor_numel(t) / columns, columns, 0, 0); }

/* Forward and backward, weight gradients included. */
static void whole_sublayer(const Sublayer *s) {
    const OpTable *op = &s->backend->op;
    int64_t C = last_dim(s->x), width = s->qkvw.shape[0];
    Tensor qkv = matrix(s->qkv, width), dqkv = matrix(s->dqkv, width), att = matrix(s->att, C), datt = matrix(s->datt, C);
    op->matmul_forward(qkv, no_tensor(), s->x, s->qkvw, no_tensor(), ACT_NONE, NULL);
    attention_forward(s);
    op->matmul_forward(s->out, no_tensor(), att, s->projw, no_tensor(), ACT_NONE, NULL);
    op->matmul_backward_weight(s->dprojw, no_tensor(), s->dout, att, 0, NULL);
    op->matmul_backward_input(datt, s->dout, s->projw, no_tensor(), ACT_NONE, NULL);
    attention_backward(s);
    op->matmul_backward_weight(s->dqkvw, no_tensor(), dqkv, s->x, 0, NULL);
    op->matmul_backward_input(s->dx, dqkv, s->qkvw, no_tensor(), ACT_NONE, NULL);
}

/* ---- time -------------------------------------------------------------------------------------------------------------------------- */

/* The whole comes first: it computes what the other two read. */
enum { WHOLE, FORWARD, BACKWARD, PIECES };
static const Work works[PIECES] = {whole_sublayer, attention_forward, attention_backward};

typedef struct { double seconds, ratio; } Timing;   /* ratio: to the variant with as many key/value heads as query heads */

/* Rounds go on for so many seconds, at least three. Each begins with another variant. Short work is timed several times in a row. */
static void time_variants(Timing timings[PIECES][VARIANTS], const Sublayer variants[VARIANTS], double seconds) {
    static double times[PIECES][VARIANTS][MOST_ROUNDS];
    int in_a_row[PIECES], round = 0;
    for (int p = 0; p < PIECES; p++)
        for (int v = 0; v < VARIANTS; v++) {
            seconds_of(works[p], &variants[v], 1);   /* to warm up */
            if (v == 0) in_a_row[p] = 1 + (int)(0.005 / (seconds_of(works[p], &variants[v], 1) + 1e-6));
        }
    for (double begin = machine_seconds(); round < 3 || (round < MOST_ROUNDS && machine_seconds() - begin < seconds); round++)
        for (int p = 0; p < PIECES; p++)
            for (int i = 0; i < VARIANTS; i++) {
                int v = (round + i) % VARIANTS;
                times[p][v][round] = seconds_of(works[p], &variants[v], in_a_row[p]);
            }
    for (int p = 0; p < PIECES; p++)
        for (int v = VARIANTS - 1; v >= 0; v--) {
            timings[p][v].seconds = median(times[p][v], round);
            for (int r = 0; r < round; r++) times[p][v][r] /= times[p][0][r];   /* the first variant's own times go last */
            timings[p][v].ratio = median(times[p][v], round);
        }
}

/* GFLOP/s by what causal attention must do: the cost functions of the two ops. */
static double attention_rate(const Sublayer *s, double flops_per_element, double seconds) {
    return flops_per_element * (double)tensor_numel(s->att) * (double)s->att.shape[1] / seconds / 1e9;
}

/* Times are of B * T tokens; bytes of one token in one layer, and of the layer's two projection matrices. */
static void append_json(const char *path, const Sublayer *s, const Timing *forward, const Timing *backward, const Timing *whole) {
    FILE *file = fopen(path, "a");
    if (!file) die("cannot write %s: %s", path, strerror(errno));
    int64_t B = s->att.shape[0], T = s->att.shape[1], HS = last_dim(s->att);
    double tokens = (double)(B * T), head = (double)HS * (double)dtype_size(s->qkv.dtype);
    fputs("{\"program\": \"bench_attention\"", file);
    json_write_string_member(file, "device", s->backend->describe());
    json_write_string_member(file, "dtype", dtype_name(s->qkv.dtype));
    json_write_number_member(file, "head_size", (double)HS);
    json_write_number_member(file, "seq_len", (double)T);
    json_write_number_member(file, "batch", (double)B);
    json_write_number_member(file, "query_heads", NH);
    json_write_number_member(file, "kv_heads", s->NKV);
    json_write_number_member(file, "forward_ms", 1e3 * forward->seconds);
    json_write_number_member(file, "forward_ratio", forward->ratio);
    json_write_number_member(file, "backward_ms", 1e3 * backward->seconds);
    json_write_number_member(file, "backward_ratio", backward->ratio);
    json_write_number_member(file, "sublayer_ms", 1e3 * whole->seconds);
    json_write_number_member(file, "sublayer_ratio", whole->ratio);
    json_write_number_member(file, "qkv_bytes", (double)tensor_bytes(s->qkv) / tokens);
    json_write_number_member(file, "dqkv_bytes", (double)tensor_bytes(s->dqkv) / tokens);
    json_write_number_member(file, "kv_cache_bytes", 2 * s->NKV * head);
    json_write_number_member(file, "projection_bytes", (double)(tensor_bytes(s->qkvw) + tensor_bytes(s->projw)));
    fprintf(file, "}\n");
    if (fclose(file) != 0) die("cannot write %s: %s", path, strerror(errno));
}

static void time_case(const Backend *backend, DType dtype, int64_t HS, int64_t T, double seconds, const char *json) {
    int64_t tokens = backend->host_memory ? 4096 : 65536;
    Sublayer variants[VARIANTS];
    Timing timings[PIECES][VARIANTS];
    for (int v = 0; v < VARIANTS; v++) variants[v] = open_sublayer(backend, dtype, tokens / T, T, NH, kv_heads[v], HS);
    time_variants(timings, variants, seconds);
    for (int v = 0; v < VARIANTS; v++) {
        const Timing *forward = &timings[FORWARD][v], *backward = &timings[BACKWARD][v], *whole = &timings[WHOLE][v];
        double forward_rate = attention_rate(&variants[v], 2, forward->seconds);
        double backward_rate = attention_rate(&variants[v], 5, backward->seconds);
        printf("| %s | %2lld | %4lld | %3lld | %d ", dtype_name(dtype), (long long)HS, (long long)T, (long long)(tokens / T), kv_heads[v]);
        printf("| %7.3f | %.2f | %6.1f ", 1e3 * forward->seconds, forward->ratio, forward_rate);
        printf("| %7.3f | %.2f | %6.1f ", 1e3 * backward->seconds, backward->ratio, backward_rate);
        printf("| %7.3f | %.2f |\n", 1e3 * whole->seconds, whole->ratio);
        if (json) append_json(json, &variants[v], forward, backward, whole);
        close_sublayer(&variants[v]);
    }
    fflush(stdout);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------------ */

/* Bytes a token and layer, and of a layer's two projections; scratch is what the device asks for to go backward. */
static void count_case(const Backend *backend, DType dtype, int64_t HS, int64_t T) {
    for (int v = 0; v < VARIANTS; v++) {
        Sublayer s = open_sublayer(backend, dtype, 1, T, NH, kv_heads[v], HS);
        Tensor cache = tensor(s.qkv.data, dtype, 4, 1, T, s.NKV, HS);
        printf("| %s | %2d | %d | %5zu | %5zu | %5zu | %6zu | %7.1f |\n", dtype_name(dtype), (int)HS, s.NKV,
               tensor_bytes(s.qkv) / (size_t)T, tensor_bytes(s.dqkv) / (size_t)T, tensor_bytes(s.scratch) / (size_t)T,
               2 * tensor_bytes(cache) / (size_t)T, (double)(tensor_bytes(s.qkvw) + tensor_bytes(s.projw)) / 1024);
        close_sublayer(&s);
    }
}

static bool wanted(const Options *o, const Backend *backend, DType dtype) {
    return (!o->dtype || (o->dtype == 2) == (dtype == BF16)) && (dtype == F32 || backend->supports_bf16());
}

static void bench(const Backend *backend, const Options *o, double seconds, const char *json) {
    BackendSettings settings = settings_from_options(o);
    backend->configure(&settings);
    printf("\n%s: %d query heads. Milliseconds, and their ratio to those with %d key/value heads\n\n", backend->describe(), NH, NH);
    printf("| dtype | HS | T | B | NKV | forward | ratio | GFLOP/s | backward | ratio | GFLOP/s | both, with projections | ratio |\n");
    printf("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int d = F32; d <= BF16; d++)
        for (size_t i = 0; wanted(o, backend, (DType)d) && i < sizeof cases / sizeof *cases; i++)
            time_case(backend, (DType)d, cases[i].HS, cases[i].T, seconds, json);
    printf("\nBytes a token in one layer, and KiB of the layer's two projection matrices\n\n");
    printf("| dtype | HS | NKV | qkv | dqkv | scratch | KV cache | projections KiB |\n|---|---|---|---|---|---|---|---|\n");
    for (int d = F32; d <= BF16; d++)
        for (size_t i = 0; wanted(o, backend, (DType)d) && i < sizeof cases / sizeof *cases; i++)
            if (i == 0 || cases[i].HS != cases[i - 1].HS) count_case(backend, (DType)d, cases[i].HS, cases[i].T);
}

int main(int argc, char **argv) {
    static const char *const devices[] = {"cpu", "cuda"};
    double seconds = 6;
    const char *json = NULL;
    Options o;
    error_program_name("bench_attention");
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) return fputs(usage, stdout) < 0;
    if (argc > 1 && argv[1][0] != '-') {
        char *end;
        seconds = strtod(argv[1], &end);
        if (*end || !(seconds > 0 && seconds < 1e6)) die("'%s' is not a number of seconds", argv[1]);
        argv[1] = argv[0];
        argc--, argv++;
    }
    if (argc > 1 && !strcmp(argv[1], "--json")) {
        if (argc == 2) die("--json needs a value");
        json = argv[2];
        argv[2] = argv[0];
        argc -= 2, argv += 2;
    }
    options_parse(&train_options, &o, argc, argv);
    bool asked = o.from.device == FROM_COMMAND_LINE;
    for (size_t i = 0; i < (asked ? 1 : sizeof devices / sizeof *devices); i++) {
        const Backend *backend = backend_find(asked ? o.device : devices[i]);
        if (backend) bench(backend, &o, seconds, json);
        else if (asked) die("--device '%s' is not in this build or machine; there is: %s", o.device, backend_names());
    }
    options_release(&train_options, &o);
    return 0;
}
