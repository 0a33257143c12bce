/* checkpoint_test.h: small models, and checkpoints of them in a directory of the test's own. */
#ifndef LLMC_CHECKPOINT_TEST_H
#define LLMC_CHECKPOINT_TEST_H

#include "checkpoint.h"

#include "directory_test.h"
#include "error.h"
#include "kernels/op_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static Options options;

/* A test with its own directory. */
static inline int begin(void **state) {
#ifdef _OPENMP
    omp_set_num_threads(1);   /* models this small are fastest so */
#endif
    options_defaults(&options);
    return make_directory(state);
}
static inline int end(void **state) {
    options_release(&train_options, &options);
    return remove_directory(state);
}

/* A path in the test's directory, alive until the sixteenth call after it. */
static inline const char *at(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline const char *at(const char *format, ...) {
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    int n = snprintf(path, sizeof paths[0], "%s/", directory);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path + n, sizeof paths[0] - (size_t)n, format, arguments);
    va_end(arguments);
    return path;
}

static inline void create_with(Model *m, const char *settings, DType dtype, uint64_t seed) {
    static const char small[] = "n_layer=2\nn_head=2\nn_embd=16\nvocab_size=50\nseq_len=8\ndropout=0.2\n";
    Options o;
    ModelSpec spec = {.dtype = dtype, .mode = MODEL_TRAIN, .B = 2, .T = 8};
    options_defaults(&o);
    bool ok = options_parse_text(&o, small, strlen(small), "small", error)
           && options_parse_text(&o, settings, strlen(settings), "test", error)
           && config_from_options(&spec.config, &o, error);
    if (!ok) fail_msg("%s: %s", settings, error);
    spec.optimizer = (OptimizerKind)o.optimizer;
    options_release(&train_options, &o);
    model_create(m, &spec, backend_find("cpu"));
    m->adamw = (AdamW){0.9f, 0.99f, 1e-8f, 0.1f};
    model_init_weights(m, 0, seed);
    m->state.seed = 5;   /* of the masks, as the trainer sets it */
}
static inline void create(Model *m) { create_with(m, "", F32, 1); }

/* Steps first ... first+count-1, in two micro-batches each; the data depends on the step alone. */
static inline void train(Model *m, int64_t first, int64_t count) {
    for (int64_t step = first; step < first + count; step++) {
        int32_t tokens[2][16], targets[2][16];
        test_seed = 1000 + (uint64_t)step;
        for (int i = 0; i < 32; i++) {
            tokens[i / 16][i % 16] = test_below(50);
            targets[i / 16][i % 16] = test_below(50);
        }
        model_begin_step(m, &(StepSettings){.step = step, .lr = 1e-2, .max_norm = 1, .valid = 32, .micro_steps = 2});
        for (int64_t micro = 0; micro < 2; micro++) model_micro_step(m, tokens[micro], targets[micro], 2 * micro, micro);
        model_update(m);
    }
}

static inline void expect_same_model(const Model *a, const Model *b) {
    const Tensor x[] = {a->masters, a->parameters, a->m, a->v}, y[] = {b->masters, b->parameters, b->m, b->v};
    static const char *const names[] = {"masters", "parameters", "m", "v"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tensor_bytes(x[i]), tensor_bytes(y[i]));
        if (x[i].data && memcmp(x[i].data, y[i].data, tensor_bytes(x[i])) != 0) fail_msg("%s differ", names[i]);
    }
    assert_int_equal(model_updates(a), model_updates(b));
}

static inline RunState state_at(int64_t step) {
    return (RunState){.step = step, .samples = 4 * step, .best_val_loss = 1.0 / 3, .elapsed_s = 0.1 * (double)step};
}

/* checkpoint_save of the model's state now. */
static inline bool try_save(const char *run, Model *m, const RunState *state, const Options *o, const char *tokenizer_directory, bool best) {
    Snapshot s = {0};
    model_snapshot(m, &s, true, false);
    bool good = checkpoint_save(run, &s, state, o, tokenizer_directory, best, error);
    snapshot_release(&s);
    return good;
}

static inline void save(const char *run, Model *m, int64_t step, bool best) {
    RunState state = state_at(step);
    if (!try_save(run, m, &state, &options, NULL, best)) fail_msg("%s", error);
}

static inline void expect_link(const char *link, const char *target) {
    char found[256];
    ssize_t n = readlink(link, found, sizeof found - 1);
    found[n > 0 ? n : 0] = 0;
    assert_string_equal(found, target);
}

/* The names in a directory, sorted, with a blank after each. */
static inline const char *names_in(const char *path) {
    static char names[4096];
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    names[0] = 0;
    for (int i = 0; i < count; i++) {
        if (strcmp(entries[i]->d_name, ".") != 0 && strcmp(entries[i]->d_name, "..") != 0) {
            strcat(names, entries[i]->d_name);
            strcat(names, " ");
        }
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return names;
}

typedef struct { char *bytes; size_t size; } Bytes;

static inline Bytes file_bytes(const char *path) {
    Bytes b;
    b.bytes = file_read_text(path, 1 << 26, &b.size, error);
    if (!b.bytes) fail_msg("%s", error);
    return b;
}
static inline size_t file_size(const char *path) {
    Bytes b = file_bytes(path);
    free(b.bytes);
    return b.size;
}
static inline void put_bytes(const char *path, const char *bytes, size_t size) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

/* What is said on stderr between the two; free() it. */
static int stderr_aside = -1;
static inline void listen_begin(void) {
    int file = open(at("stderr"), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    stderr_aside = dup(2);
    dup2(file, 2);
    close(file);
}
static inline char *listen_end(void) {
    dup2(stderr_aside, 2);
    close(stderr_aside);
    return file_bytes(at("stderr")).bytes;
}

/* checkpoint_find warns; that noise is not wanted here. */
static inline char *find(const char *run, const char *which) {
    listen_begin();
    char *found = checkpoint_find(run, which, error);
    free(listen_end());
    return found;
}

static inline void expect_found(const char *run, const char *which, const char *expected) {
    char *found = find(run, which);
    if (!found) fail_msg("%s", error);
    assert_string_equal(found, expected);
    free(found);
}

#endif
