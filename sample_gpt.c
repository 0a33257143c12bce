/* sample_gpt: writes text with a trained model. */
#include "llmc/checkpoint.h"
#include "llmc/error.h"
#include "llmc/generate.h"
#include "llmc/machine.h"
#include "llmc/plan.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first signal ends the text after a whole character; a second one, the program. */
static volatile sig_atomic_t interrupted;
static void on_signal(int number) {
    interrupted = 1;
    signal(number, SIG_DFL);
}

/* The prompt's text: the option itself, or what the file after FILE: holds. */
static char *read_prompt(const char *prompt) {
    static const char file_prefix[] = "FILE:";
    char error[ERROR_SIZE];
    size_t length;
    if (strncmp(prompt, file_prefix, sizeof file_prefix - 1) != 0) return xstrdup(prompt);
    char *text = file_read_text(prompt + sizeof file_prefix - 1, 64 << 20, &length, error);
    if (!text) die("%s", error);
    if (strlen(text) != length) die("%s holds a zero byte; a prompt is text", prompt + sizeof file_prefix - 1);
    return text;
}

/* The architecture, the backend and the dtype. */
static const Backend *resolve_spec(ModelSpec *spec, const SampleOptions *o, const char *directory) {
    char error[ERROR_SIZE];
    const Backend *backend = backend_find(o->device);
    if (!backend && backend_missing(o->device))
        die("--device '%s' cannot be used here: %s; there is: %s", o->device, backend_missing(o->device), backend_names());
    if (!backend) die("--device '%s' is not in this build; there is: %s", o->device, backend_names());
    memset(spec, 0, sizeof *spec);
    if (!model_directory_config(directory, &spec->config, error)) die("%s", error);
    spec->dtype = o->dtype == 2 || (o->dtype == 0 && strcmp(backend->name, "cpu") != 0) ? BF16 : F32;
    if (spec->dtype == BF16 && !backend->supports_bf16()) die("this CPU (or this build without oneDNN) has no bf16 matrix product; use --dtype fp32");
    return backend;
}

int main(int argc, char **argv) {
    char error[ERROR_SIZE];
    SampleOptions o;
    ModelSpec spec;
    Model model;
    int64_t prompt_length;
    machine_share_cores(argv);
    error_program_name("sample_gpt");
    options_parse(&sample_options, &o, argc, argv);
    if (o.from.model == FROM_DEFAULT && !path_is_directory(o.model))
        die("there is no run in '%s' yet; train one with ./train_gpt, or name a model's directory with --model", o.model);
    char *directory = model_directory(o.model, error);
    if (!directory || !model_directory_verify(directory, error)) die("%s", error);
    char *text = read_prompt(o.prompt);
    Tokenizer *tokenizer = tokenizer_open(directory, error);
    if (!tokenizer) die("%s", error);
    const Backend *backend = resolve_spec(&spec, &o, directory);
    int32_t *prompt = generate_prompt(tokenizer, text, spec.config.V, &prompt_length, error);
    if (!prompt) die("%s", error);
    generate_spec(&spec, prompt_length, o.max_tokens);
    plan_check_memory(&spec, backend, false);
    model_create(&model, &spec, backend);
    if (!model_read_directory(&model, directory, error)) die("%s", error);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    TextEnd end = TEXT_WHOLE;
    for (int64_t i = 0; i < o.n && end == TEXT_WHOLE; i++) {
        if (o.n > 1) printf("--- sample %lld\n", (long long)i + 1);
        end = generate_text(&model, &o, tokenizer, prompt, prompt_length, &interrupted, stdout);
        o.seed++;
    }
    if (end == TEXT_NOT_FINITE) die("the model's logits are not finite: its weights are broken");
    model_free(&model);
    tokenizer_free(tokenizer);
    free(prompt);
    free(text);
    free(directory);
    options_release(&sample_options, &o);
    if (ferror(stdout) || fclose(stdout) != 0) die("the text could not be written");
    return end == TEXT_CUT_SHORT ? 130 : 0;
}
