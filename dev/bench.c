/* bench: training speed of whole steps against the machine's own matrix-product rate, measured in the same run, for the baby GPT and
   GPT-2 124M, in fp32 and bf16; and the memory taken against what --plan says. Usage: bench [seconds a measurement] */
#include "llmc/error.h"
#include "llmc/logger.h"
#include "llmc/machine.h"
#include "llmc/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct { const char *preset, *settings; int64_t B, T; } Case;
static const Case cases[] = {
    {"baby", "vocab-size=65\n", 64, 128},
    {"gpt2-124M", "", 4, 64},
};

static ModelSpec spec_of(const Case *bench, DType dtype) {
    Options o;
    ModelSpec spec;
    char error[ERROR_SIZE];
    memset(&spec, 0, sizeof spec);
    options_defaults(&o);
    if (!config_preset(&o, bench->preset) || !options_parse_text(&o, bench->settings, strlen(bench->settings), "bench", error)
        || !config_from_options(&spec.config, &o, error)) die("%s", error);
    spec.dtype = dtype;
    spec.mode = MODEL_TRAIN;
    spec.B = bench->B;
    spec.T = bench->T;
    options_release(&train_options, &o);
    return spec;
}

/* Seconds of the median step of one micro-batch: forward, backward, norm and AdamW, all of it. */
static double step_seconds(Model *m, double seconds) {
    enum { MOST = 1000 };
    static double times[MOST];
    int64_t BT = m->spec.B * m->spec.T;
    int32_t *tokens = xmalloc((size_t)BT * sizeof *tokens), *targets = xmalloc((size_t)BT * sizeof *targets);
    for (int64_t i = 0; i < BT; i++) {
        tokens[i] = (int32_t)(i * 7919 % m->config.V);
        targets[i] = (int32_t)((i + 1) * 7919 % m->config.V);
    }
    int n = 0;
    double begin = 0;
    for (int step = 0; n < 3 || (n < MOST && machine_seconds() - begin < seconds); step++) {
        double start = machine_seconds();
        model_begin_step(m, step, 1e-4, 1, BT);
        model_micro_step(m, tokens, targets, 0, 0);
        model_update(m);
        m->backend->synchronize(m->stream);
        if (step == 0) begin = machine_seconds();   /* the first step makes primitives and touches memory */
        else times[n++] = machine_seconds() - start;
    }
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && times[j] < times[j - 1]; j--) {
            double t = times[j];
            times[j] = times[j - 1];
            times[j - 1] = t;
        }
    free(tokens);
    free(targets);
    return times[n / 2];
}

/* In a process of its own, so that its peak memory is this case's. */
static void run_case(const Case *bench, DType dtype, double seconds) {
    char speed[32], planned[32], taken[32], flops_text[32];
    const Backend *backend = backend_find("auto");
    ModelSpec spec = spec_of(bench, dtype);
    double before = machine_matmul_rate(backend, dtype, seconds / 2), baseline = machine_peak_memory();
    MemoryPlan plan = model_plan(&spec, backend);
    Model m;
    model_create(&m, &spec, backend);
    model_init_weights(&m, 0, 1);
    double step = step_seconds(&m, seconds), peak = machine_peak_memory();
    double rate = (before + machine_matmul_rate(backend, dtype, seconds / 2)) / 2;
    double tokens = (double)(spec.B * spec.T) / step, flops = config_flops_per_token(&spec.config, spec.T);
    format_count(speed, tokens);
    format_bytes(planned, (double)plan.total);
    format_bytes(taken, peak);
    format_count(flops_text, flops);
    printf("%-10s B=%-3lld T=%-4lld %s | %8s tok/s | %11s FLOP/token | ceiling %6.1f GFLOP/s | share %5.1f%% | plan %s, peak %s (%.1f MiB before the model)\n",
           bench->preset, (long long)spec.B, (long long)spec.T, dtype == BF16 ? "bf16" : "fp32", speed, flops_text, rate / 1e9,
           100 * tokens * flops / rate, planned, taken, baseline / 1048576.0);
    model_free(&m);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 6;
    error_program_name("bench");
    if (!(seconds > 0)) die("'%s' is not a number of seconds", argv[1]);
    const Backend *backend = backend_find("auto");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int d = F32; d <= BF16; d++) {
            if (d == BF16 && !backend->supports_bf16()) {
                printf("%-10s bf16: not on this CPU\n", cases[i].preset);
                continue;
            }
            fflush(stdout);
            pid_t child = fork();
            int status = 1;
            if (child == 0) {
                run_case(&cases[i], (DType)d, seconds);
                fflush(stdout);
                _exit(0);
            }
            if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) die("the measurement of %s did not finish", cases[i].preset);
        }
    return 0;
}
