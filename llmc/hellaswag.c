/* hellaswag.c: see hellaswag.h. */
#include "hellaswag.h"

#include "error.h"
#include "json.h"
#include "tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 1 << 30 };

/* A context and one of its endings. */
typedef struct {
    int32_t *tokens;
    int64_t count, ending;   /* the ending's tokens are number `ending` to count - 1; there is at least one, and one before it */
} Candidate;

struct Hellaswag {
    int64_t examples;
    Candidate *candidates;   /* (examples,4) */
    int *labels;             /* (examples) */
};

int64_t hellaswag_examples(const Hellaswag *h) { return h->examples; }

void hellaswag_close(Hellaswag *h) {
    if (!h) return;
    for (int64_t i = 0; i < HELLASWAG_ENDINGS * h->examples; i++) free(h->candidates[i].tokens);
    free(h->candidates);
    free(h->labels);
    free(h);
}

/* ---- Reading ---- */

static bool read_candidate(Candidate *c, const Tokenizer *tokenizer, const char *context, const char *ending, char error[ERROR_SIZE]) {
    size_t length = strlen(context);
    while (length > 0 && strchr(" \t\n\r", context[length - 1])) length--;
    if (length == 0) return file_error(error, "the context is empty");
    char *text = xprintf("%s %s", context, ending);
    int32_t *alone = tokenizer_encode(tokenizer, text, length, &c->ending, error);
    c->tokens = alone ? tokenizer_encode(tokenizer, text, strlen(text), &c->count, error) : NULL;
    if (c->tokens && c->count < 2) file_error(error, "it is a single token");
    if (c->ending >= c->count) c->ending = c->count - 1;   /* a vocabulary may merge the ending into the context's last token */
    free(alone);
    free(text);
    return c->tokens && c->count >= 2;
}

static bool read_example(Hellaswag *h, const Tokenizer *tokenizer, const Json *line, char error[ERROR_SIZE]) {
    const char *context = json_get_string(line, "context");
    const Json *endings = json_get(line, "endings");
    int64_t label = -1;
    bool whole = context && endings && endings->type == JSON_ARRAY && endings->count == HELLASWAG_ENDINGS &&
                 json_get_integer(line, "label", &label) && label >= 0 && label < HELLASWAG_ENDINGS;
    for (size_t i = 0; whole && i < HELLASWAG_ENDINGS; i++) whole = endings->items[i].type == JSON_STRING;
    if (!whole)
        return file_error(error, "it is not {\"context\": TEXT, \"endings\": [four TEXTs], \"label\": 0 to 3}; data/hellaswag.py makes such a file");
    h->labels = xrealloc(h->labels, (h->examples + 1) * sizeof *h->labels);
    h->candidates = xrealloc(h->candidates, HELLASWAG_ENDINGS * (h->examples + 1) * sizeof *h->candidates);
    h->labels[h->examples] = (int)label;
    Candidate *candidates = h->candidates + HELLASWAG_ENDINGS * h->examples++;
    memset(candidates, 0, HELLASWAG_ENDINGS * sizeof *candidates);
    for (int i = 0; i < HELLASWAG_ENDINGS; i++)
        if (!read_candidate(&candidates[i], tokenizer, context, endings->items[i].string, error)) return false;
    return true;
}

static bool read_line(Hellaswag *h, const Tokenizer *tokenizer, const char *line, size_t length, char error[ERROR_SIZE]) {
    Json *json = json_parse(line, length, error, ERROR_SIZE);
    bool good = json && read_example(h, tokenizer, json, error);
    json_free(json);
    return good;
}

static bool read_lines(Hellaswag *h, const Tokenizer *tokenizer, const char *path, int64_t limit, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE];
    size_t length;
    int64_t number = 1;
    char *text = file_read_text(path, FILE_BYTES, &length, error);
    bool good = text != NULL;
    for (size_t at = 0, n; good && at < length && (limit == 0 || h->examples < limit); at += n + 1, number++) {
        const char *newline = memchr(text + at, '\n', length - at);
        n = (newline ? newline : text + length) - (text + at);
        good = read_line(h, tokenizer, text + at, n, cause);
        if (!good) file_error(error, "'%s', line %lld: %s", path, (long long)number, cause);
    }
    if (good && h->examples == 0) good = file_error(error, "'%s' is empty; data/hellaswag.py makes it", path);
    free(text);
    return good;
}

Hellaswag *hellaswag_open(const char *path, const char *vocabulary, int64_t vocab_size, int64_t limit, char error[ERROR_SIZE]) {
    if (!vocabulary) {
        file_error(error, "--hellaswag needs the vocabulary of the training data, beside which there is no dataset.json");
        return NULL;
    }
    Tokenizer *tokenizer = tokenizer_open(vocabulary, error);
    if (!tokenizer) return NULL;
    Hellaswag *h = xcalloc(1, sizeof *h);
    bool good = tokenizer_vocab_size(tokenizer) <= vocab_size;
    if (!good)
        file_error(error, "the vocabulary in '%s' has %lld tokens, the model only %lld", vocabulary, (long long)tokenizer_vocab_size(tokenizer),
                   (long long)vocab_size);
    good = good && read_lines(h, tokenizer, path, limit, error);
    tokenizer_free(tokenizer);
    if (good) return h;
    hellaswag_close(h);
    return NULL;
}

/* ---- Scoring ---- */

/* tokens(T) and targets(T) of a row: only the ending is asked for. Without a candidate the row asks for nothing. */
static void fill_row(const Candidate *c, int64_t T, int32_t *tokens, int32_t *targets) {
    int64_t first = c && c->count > T + 1 ? c->count - T - 1 : 0;
    for (int64_t t = 0; t < T; t++) {
        int64_t next = first + t + 1;
        bool inside = c && next < c->count;
        tokens[t] = inside ? c->tokens[next - 1] : 0;
        targets[t] = inside && next >= c->ending ? c->tokens[next] : -1;
    }
}

static void add_up(const float *losses, const int32_t *targets, int64_t T, double *sum, double *mean) {
    int64_t n = 0;
    *sum = 0;
    for (int64_t t = 0; t < T; t++) {
        if (targets[t] < 0) continue;
        *sum += losses[t];
        n++;
    }
    *mean = *sum / (double)n;
}

void hellaswag_losses(const Hellaswag *h, Model *m, double *sums, double *means) {
    int64_t B = m->spec.B, T = m->spec.T, rows = HELLASWAG_ENDINGS * h->examples;
    int32_t *tokens = xmalloc(B * T * sizeof *tokens), *targets = xmalloc(B * T * sizeof *targets);
    float *losses = xmalloc(B * T * sizeof *losses);
    memset(sums, 0, rows * sizeof *sums);
    memset(means, 0, rows * sizeof *means);
    for (int64_t first = comm_rank(m->comm) * B; first < rows; first += comm_ranks(m->comm) * B) {
        for (int64_t b = 0; b < B; b++)
            fill_row(first + b < rows ? &h->candidates[first + b] : NULL, T, tokens + b * T, targets + b * T);
        model_evaluate(m, tokens, targets);
        model_copy_losses(m, losses);
        for (int64_t b = 0; b < B && first + b < rows; b++)
            add_up(losses + b * T, targets + b * T, T, &sums[first + b], &means[first + b]);
    }
    team_sum(comm_team(m->comm), sums, (int)rows, "HellaSwag");
    team_sum(comm_team(m->comm), means, (int)rows, "HellaSwag");
    free(tokens);
    free(targets);
    free(losses);
}

/* The first of the least; -1 if one is not finite. */
static int least(const double *of_ending) {
    int best = 0;
    for (int i = 0; i < HELLASWAG_ENDINGS; i++) {
        if (!isfinite(of_ending[i])) return -1;
        if (of_ending[i] < of_ending[best]) best = i;
    }
    return best;
}

static double share_of_right(const Hellaswag *h, const double *losses) {
    int64_t right = 0;
    for (int64_t i = 0; i < h->examples; i++) {
        int choice = least(losses + HELLASWAG_ENDINGS * i);
        if (choice < 0) return NAN;
        right += choice == h->labels[i];
    }
    return (double)right / (double)h->examples;
}

HellaswagScore hellaswag_evaluate(const Hellaswag *h, Model *m) {
    size_t bytes = HELLASWAG_ENDINGS * h->examples * sizeof(double);
    double *sums = xmalloc(bytes), *means = xmalloc(bytes);
    hellaswag_losses(h, m, sums, means);
    HellaswagScore score = { h->examples, share_of_right(h, sums), share_of_right(h, means) };
    free(sums);
    free(means);
    return score;
}
