/* samples.c: see samples.h. */
#include "samples.h"

#include "error.h"
#include "generate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Samples {
    char *path;
    Tokenizer *tokenizer;
    SampleOptions options;     /* the defaults of sample_gpt, but for tokens and seed */
    int32_t *prompt;
    int64_t prompt_length;
    int64_t newest;            /* step in the file, or -1 */
    bool failed;               /* the last one did */
};

static const char heading[] = "--- step ";

/* The step that a line of the file is the heading of, or -1. */
static int64_t step_of_heading(const char *line) {
    char *end;
    if (strncmp(line, heading, sizeof heading - 1) != 0) return -1;
    int64_t step = strtoll(line + sizeof heading - 1, &end, 10);
    return *end == '\n' ? step : -1;
}

static bool drop_later_samples(Samples *s, int64_t step, char error[ERROR_SIZE]) {
    size_t length;
    if (!path_exists(s->path)) return true;
    char *text = file_read_text(s->path, (size_t)1 << 31, &length, error), *cut = text;
    if (!text) return false;
    while (cut && *cut && step_of_heading(cut) <= step) {
        if (step_of_heading(cut) >= 0) s->newest = step_of_heading(cut);
        cut = strchr(cut, '\n');
        if (cut) cut++;
    }
    bool ok = true;
    if (cut && *cut) {
        FileWriter *file = file_create(s->path);
        file_write(file, text, (size_t)(cut - text));
        ok = file_close(file, NULL, error);
    }
    free(text);
    return ok;
}

static bool open_prompt(Samples *s, const Options *o, const char *vocabulary, int64_t V, int64_t step, char error[ERROR_SIZE]) {
    if (!vocabulary) return file_error(error, "no vocabulary is known: none lies beside the training data");
    s->tokenizer = tokenizer_open(vocabulary, error);
    s->prompt = s->tokenizer ? generate_prompt(s->tokenizer, o->sample_prompt, V, &s->prompt_length, error) : NULL;
    return s->prompt && drop_later_samples(s, step, error);
}

Samples *samples_open(const char *run, const Options *o, const char *vocabulary, int64_t V, int64_t step) {
    char error[ERROR_SIZE];
    bool asked = o->from.sample_every >= FROM_FILE || o->from.sample_prompt >= FROM_FILE;
    if (o->sample_tokens == 0) return NULL;
    Samples *s = (Samples *)xcalloc(1, sizeof *s);
    s->path = path_join(run, "samples.txt");
    s->newest = -1;
    options_set_defaults(&sample_options, &s->options);
    s->options.max_tokens = o->sample_tokens;
    s->options.seed = o->seed;
    if (open_prompt(s, o, vocabulary, V, step, error)) return s;
    if (asked) warn("no samples will be written: %s", error);
    samples_close(s);
    return NULL;
}

/* The model that writes. False where it has no room beside the one that is trained. */
static bool make_writer(Model *m, const Samples *s, const Model *trained, const Backend *backend, char error[ERROR_SIZE]) {
    ModelSpec spec = trained->spec;
    generate_spec(&spec, s->prompt_length, s->options.max_tokens);
    double needed = (double)model_plan(&spec, backend).total, free_bytes = backend->free_memory();
    if (!(needed <= 0.95 * free_bytes))
        return file_error(error, "they need %.1f GiB of memory, but only %.1f GiB are free", needed / 0x1p30, free_bytes / 0x1p30);
    model_create(m, &spec, backend);
    model_copy_parameters(m, trained);
    return true;
}

static bool append_text(const char *path, const char *text, size_t length, char error[ERROR_SIZE]) {
    FILE *file = fopen(path, "ae");
    bool good = file && fwrite(text, 1, length, file) == length;
    if (file && fclose(file) != 0) good = false;
    return good || file_error(error, "cannot write %.300s: %s", path, strerror(errno));
}

static bool write_sample(Samples *s, const Model *trained, const Backend *backend, int64_t step, const volatile sig_atomic_t *give_up,
                         char error[ERROR_SIZE]) {
    Model m;
    char *text = NULL;
    size_t length = 0;
    if (!make_writer(&m, s, trained, backend, error)) return false;
    FILE *f = open_memstream(&text, &length);
    if (!f) die("out of memory");
    fprintf(f, "%s%lld\n", heading, (long long)step);
    TextEnd end = generate_text(&m, &s->options, s->tokenizer, s->prompt, s->prompt_length, give_up, f);
    fclose(f);
    model_free(&m);
    bool good = end == TEXT_NOT_FINITE ? file_error(error, "the model's logits are not finite") :
                end == TEXT_CUT_SHORT || append_text(s->path, text, length, error);
    if (good && end == TEXT_WHOLE) s->newest = step;
    free(text);
    return good;
}

int64_t samples_newest_step(const Samples *s) { return s->newest; }

void samples_write(Samples *s, const Model *trained, const Backend *backend, int64_t step, const volatile sig_atomic_t *give_up) {
    char error[ERROR_SIZE];
    if (!s) return;
    bool said = s->failed;
    s->failed = !write_sample(s, trained, backend, step, give_up, error);
    if (s->failed && !said) warn("step %lld: no sample: %s", (long long)step, error);
}

void samples_close(Samples *s) {
    if (!s) return;
    if (s->tokenizer) tokenizer_free(s->tokenizer);
    options_release(&sample_options, &s->options);
    free(s->prompt);
    free(s->path);
    free(s);
}
