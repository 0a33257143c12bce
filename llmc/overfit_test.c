/* overfit_test.c: what --overfit does: a model that sees one batch again and again learns it by heart, whatever is in it. A model that cannot has
   something wrong with it. (Where rows begin with the same tokens and go on with different ones, nothing can tell them apart there: with many rows
   the loss stops at a few hundredths.) */
#include "dataloader.h"
#include "model_test.h"
#include "shard.h"

/* Text without any pattern: nothing but memory brings the loss down from ln 65 = 4.17. */
enum { ROWS = 4, T = 32, V = 65, TOKENS = 20000, STEPS = 120, BEFORE = 1000 };

static DataLoader *random_text(void) {
    int32_t *tokens = malloc(TOKENS * sizeof *tokens);
    test_seed = 3;
    for (int i = 0; i < TOKENS; i++) tokens[i] = test_below(V);
    char *path = path_join(directory, "train.bin");
    if (!shard_write(path, tokens, TOKENS, V, error)) fail_msg("%s", error);
    DataLoader *loader = dataloader_open(path, SAMPLE_CROPS, T, V, 1337, false);
    free(tokens);
    free(path);
    return loader;
}

/* Two micro-batches a step, from row BEFORE on, as in a run that is resumed. Returns the loss of the last step, before its update. */
static double loss_after(const char *settings, DType dtype, bool repeat, double learning_rate) {
    Model m;
    ModelSpec spec = spec_of(settings, dtype, MODEL_TRAIN, ROWS / 2);
    DataLoader *loader = random_text();
    int32_t tokens[ROWS * T], targets[ROWS * T];
    create_on(backend_find("cpu"), &m, &spec);
    if (repeat) dataloader_repeat(loader, ROWS);
    double loss = NAN;
    for (int64_t step = 0; step < STEPS; step++) {
        int64_t first = (BEFORE + step) * ROWS;
        Batch b = {ROWS, T, dataloader_batch(loader, first, ROWS, tokens, targets), tokens, targets};
        dataloader_prefetch(loader, first + ROWS, ROWS);
        train(&m, &b, step, 1, learning_rate);
        loss = model_outcome(&m, 0).loss;
    }
    model_free(&m);
    dataloader_close(loader);
    return loss;
}

static void test_one_batch_is_learned(void **state) {
    (void)state;
    static const struct { const char *settings; DType dtype; double learning_rate; } models[] = {
        {"n_layer=6\nn_head=6\nn_embd=192\nseq_len=32\n", F32, 2e-3},   /* --model baby, with shorter rows */
        {"n_embd=64\nseq_len=32\ntie=0\nn_kv_head=2\nactivation=swiglu\nn_hidden=128\nnorm=rmsnorm\nbias=0\npos=rope\nqk_norm=1\n", BF16, 5e-3},
    };
    for (int k = 0; k < 2; k++) {
        double loss = loss_after(models[k].settings, models[k].dtype, true, models[k].learning_rate);
        if (!(loss < 0.01)) fail_msg("loss %g after %d steps of %s", loss, STEPS, models[k].settings);
    }
}

/* The test can fail: without repetition there is nothing to learn. */
static void test_new_batches_are_not(void **state) {
    (void)state;
    double loss = loss_after("seq_len=32\n", F32, false, 5e-3);
    if (!(loss > 3)) fail_msg("loss %g", loss);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_batch_is_learned), cmocka_unit_test(test_new_batches_are_not)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
