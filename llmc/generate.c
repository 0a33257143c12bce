/* generate.c: see generate.h. */
#include "generate.h"

#include "error.h"
#include "sampler.h"
#include "token_stream.h"

#include <stdlib.h>
#include <string.h>

void generate_spec(ModelSpec *spec, int64_t prompt_length, int64_t max_tokens) {
    spec->mode = MODEL_GENERATE;
    spec->B = 1;
    spec->T = prompt_length + max_tokens;
    if (spec->T > spec->config.maxT) spec->T = spec->config.maxT;
}

int32_t *generate_prompt(const Tokenizer *tokenizer, const char *text, int64_t V, int64_t *length, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE];
    if (!*text) return file_error(error, "the prompt is empty; give at least one character"), NULL;
    int32_t *prompt = tokenizer_encode_prompt(tokenizer, text, strlen(text), length, cause);
    if (!prompt) return file_error(error, "the prompt cannot be read: %.400s", cause), NULL;
    for (int64_t i = 0; i < *length; i++)
        if (prompt[i] >= V) {
            file_error(error, "the vocabulary does not belong to its model: token %d, but only %lld", prompt[i], (long long)V);
            free(prompt);
            return NULL;
        }
    return prompt;
}

/* The text so far, and how much of it the cache holds. */
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

TextEnd generate_text(Model *m, const SampleOptions *o, const Tokenizer *tokenizer, const int32_t *prompt, int64_t prompt_length,
                      const volatile sig_atomic_t *give_up, FILE *file) {
    Writer w = {m, o->cache, xmalloc((size_t)m->spec.T * sizeof(int32_t)), 0, 0};
    float *logits = xmalloc((size_t)m->config.V * sizeof *logits);
    int64_t vocabulary = tokenizer_vocab_size(tokenizer) < m->config.V ? tokenizer_vocab_size(tokenizer) : m->config.V;
    TokenPrinter printer = {.tokenizer = tokenizer, .file = file};
    Sampler sampler;
    int32_t token = 0;
    int64_t written = 0;
    bool ended = false;
    sampler_create(&sampler, vocabulary, o->temperature, o->top_k, o->top_p, (uint64_t)o->seed);
    for (int64_t i = 0; i < prompt_length; i++) append(&w, prompt[i]);
    for (int64_t i = prompt[0] == tokenizer_begin_of_text(tokenizer); i < prompt_length; i++) print_token(&printer, prompt[i]);
    while (written < o->max_tokens && !ended && !*give_up) {
        next_logits(&w, logits);
        token = sampler_next(&sampler, logits);
        ended = token < 0 || tokenizer_ends_text(tokenizer, token);
        if (ended) break;
        print_token(&printer, token);
        append(&w, token);
        written++;
    }
    print_end(&printer);
    fputc('\n', file);
    sampler_free(&sampler);
    free(logits);
    free(w.context);
    return token < 0 ? TEXT_NOT_FINITE : ended || written == o->max_tokens ? TEXT_WHOLE : TEXT_CUT_SHORT;
}
