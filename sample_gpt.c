/* sample_gpt: writes text with a trained model. */
#include "llmc/checkpoint.h"
#include "llmc/error.h"
#include "llmc/plan.h"
#include "llmc/sampler.h"
#include "llmc/token_stream.h"
#include "llmc/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* With room for prompt and text, or for as much of them as the model can see at once. */
static void open_model(Model *m, const SampleOptions *o, const char *directory, int64_t prompt_length) {
    char error[ERROR_SIZE];
    const Backend *backend = backend_find(o->device);
    if (!backend && backend_missing(o->device))
        die("--device '%s' cannot be used here: %s; there is: %s", o->device, backend_missing(o->device), backend_names());
    if (!backend) die("--device '%s' is not in this build; there is: %s", o->device, backend_names());
    ModelSpec spec;
    memset(&spec, 0, sizeof spec);
    if (!model_directory_config(directory, &spec.config, error)) die("%s", error);
    spec.dtype = o->dtype == 2 || (o->dtype == 0 && strcmp(backend->name, "cpu") != 0) ? BF16 : F32;
    if (spec.dtype == BF16 && !backend->supports_bf16()) die("this CPU (or this build without oneDNN) has no bf16 matrix product; use --dtype fp32");
    spec.mode = MODEL_GENERATE;
    spec.B = 1;
    spec.T = prompt_length + o->max_tokens;
    if (spec.T > spec.config.maxT) spec.T = spec.config.maxT;
    plan_check_memory(&spec, backend);
    model_create(m, &spec, backend);
    if (!model_read_directory(m, directory, error)) die("%s", error);
}

/* The text so far, and how much of it the cache holds. When the context is full, its older half is forgotten and the rest is fed again, so
   that a token costs the same however long the text grows. */
typedef struct {
    Model *model;
    bool use_cache;
    int32_t *context;    /* (T) */
    int64_t length, cached;
} Writer;

static void append(Writer *w, int32_t token) {
    int64_t T = w->model->spec.T;
    if (w->length == T) {
        int64_t keep = T - T / 2;
        if (keep == T) keep = 0;   /* T is 1: only the new token is seen */
        memmove(w->context, w->context + T - keep, (size_t)keep * sizeof *w->context);
        w->length = keep;
        w->cached = 0;
    }
    w->context[w->length++] = token;
}

static void next_logits(Writer *w, float *logits) {
    if (!w->use_cache) w->cached = 0;
    model_generate(w->model, w->context + w->cached, w->length - w->cached, w->cached, logits);
    w->cached = w->length;
}

static void write_sample(Model *m, const SampleOptions *o, const Tokenizer *tokenizer, const int32_t *prompt, int64_t prompt_length, int64_t number) {
    Writer w = {m, o->cache, xmalloc((size_t)m->spec.T * sizeof(int32_t)), 0, 0};
    float *logits = xmalloc((size_t)m->config.V * sizeof *logits);
    int64_t vocabulary = tokenizer_vocab_size(tokenizer) < m->config.V ? tokenizer_vocab_size(tokenizer) : m->config.V;
    TokenPrinter printer = {.tokenizer = tokenizer};
    Sampler sampler;
    sampler_create(&sampler, vocabulary, o->temperature, o->top_k, o->top_p, (uint64_t)(o->seed + number));
    for (int64_t i = 0; i < prompt_length; i++) append(&w, prompt[i]);
    for (int64_t i = 0; i < prompt_length; i++) print_token(&printer, prompt[i]);
    for (int64_t i = 0; i < o->max_tokens; i++) {
        next_logits(&w, logits);
        int32_t token = sampler_next(&sampler, logits);
        if (token < 0) die("the model's logits are not finite: its weights are broken");
        if (token == tokenizer_end_of_text(tokenizer)) break;
        print_token(&printer, token);
        append(&w, token);
    }
    print_end(&printer);
    printf("\n");
    sampler_free(&sampler);
    free(logits);
    free(w.context);
}

int main(int argc, char **argv) {
    char error[ERROR_SIZE];
    SampleOptions o;
    Model model;
    int64_t prompt_length;
    error_program_name("sample_gpt");
    options_parse(&sample_options, &o, argc, argv);
    char *directory = model_directory(o.model, error);
    if (!directory || !model_directory_verify(directory, error)) die("%s", error);
    char *text = read_prompt(o.prompt);
    if (!*text) die("the prompt is empty; give at least one character");
    Tokenizer *tokenizer = tokenizer_open(directory, error);
    if (!tokenizer) die("%s", error);
    int32_t *prompt = tokenizer_encode(tokenizer, text, strlen(text), &prompt_length, error);
    if (!prompt) die("the prompt cannot be read: %s", error);
    open_model(&model, &o, directory, prompt_length);
    for (int64_t i = 0; i < prompt_length; i++)
        if (prompt[i] >= model.config.V) die("the vocabulary in %s does not belong to its model: token %d, but only %lld", directory, prompt[i], (long long)model.config.V);
    for (int64_t i = 0; i < o.n; i++) {
        if (o.n > 1) printf("--- sample %lld\n", (long long)i + 1);
        write_sample(&model, &o, tokenizer, prompt, prompt_length, i);
    }
    model_free(&model);
    tokenizer_free(tokenizer);
    free(prompt);
    free(text);
    free(directory);
    options_release(&sample_options, &o);
    return ferror(stdout) || fclose(stdout) != 0 ? (warn("the text could not be written"), 1) : 0;
}
