/* hellaswag_test.c: the losses of endings against those of a model that is given each text alone, on every backend present; the choice; files. */
#include "hellaswag.h"

#include "model_test.h"
#include "tokenizer.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static char path[256];

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz :.";
enum { V = sizeof alphabet - 1, EXAMPLES = 3, ROWS = HELLASWAG_ENDINGS * EXAMPLES, T = 16 };

/* Some fit into T + 1 tokens, by one and by several; of some the context is cut, of one the ending too, so that its first token stands alone. */
static const char *const contexts[EXAMPLES] = {"a b:", "knitting: he cast", "so the dog  "};
static const char *const endings[EXAMPLES][HELLASWAG_ENDINGS] = {
    {"went on", "x", "slept at home", "abcdefghijk"},
    {"on.", "the stitches off again", "a", "a net into the sea of time"},
    {"ran.", "sat down", "", "barked"},
};
static const int labels[EXAMPLES] = {2, 0, 3};

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

static void write_text(const char *name, const char *text) {
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FileWriter *file = file_create(path);
    file_write(file, text, strlen(text));
    assert_true(file_close(file, NULL, error));
}

static int make_files(void **state) {
    if (make_directory(state) != 0) return -1;
    Tokenizer *tokenizer = tokenizer_of_characters(alphabet, V, error);
    bool ok = tokenizer && tokenizer_save(tokenizer, directory, error);
    tokenizer_free(tokenizer);
    char text[4096] = "";
    for (int i = 0; i < EXAMPLES; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "{\"context\": \"%s\", \"endings\": [\"%s\", \"%s\", \"%s\", \"%s\"], \"label\": %d}\n", contexts[i], endings[i][0],
                 endings[i][1], endings[i][2], endings[i][3], labels[i]);
    write_text("examples.jsonl", text);
    return ok ? 0 : -1;
}

/* A character's token, by counting: the vocabulary is sorted. */
static int32_t token_of(char c) {
    int32_t token = 0;
    for (int i = 0; i < V; i++) token += alphabet[i] < c;
    return token;
}

static ModelSpec tiny(DType dtype, int64_t B, int64_t length) {
    char settings[200];
    snprintf(settings, sizeof settings, "vocab_size=%d\nn_layer=1\nn_head=2\nn_embd=16\npos=rope\nseq_len=%d\n", V, (int)length);
    return spec_of(settings, dtype, MODEL_EVALUATE, B);
}

/* Louder than a model begins, so that it likes some endings much better than others. */
static void create_loud(Model *m, const Backend *backend, const ModelSpec *spec) {
    model_create(m, spec, backend);
    model_init_weights(m, 1, 5);
}

/* Losses of one ending, from a model that is exactly as long as the text (but its last token), or T where it is longer. */
static void alone(const Backend *backend, DType dtype, const char *context, const char *ending, double *sum, double *mean) {
    char text[200];
    snprintf(text, sizeof text, "%s %s", context, ending);
    int64_t length = (int64_t)strlen(text), trimmed = (int64_t)strlen(context);
    while (context[trimmed - 1] == ' ') trimmed--;
    const char *tail = length > T + 1 ? text + length - T - 1 : text;
    int64_t n = length > T + 1 ? T : length - 1, skipped = tail - text;
    ModelSpec spec = tiny(dtype, 1, n);
    Model m;
    int32_t tokens[200], targets[200];
    float losses[200];
    create_loud(&m, backend, &spec);
    for (int64_t t = 0; t < n; t++) tokens[t] = token_of(tail[t]), targets[t] = token_of(tail[t + 1]);
    model_evaluate(&m, tokens, targets);
    model_copy_losses(&m, losses);
    int64_t first = trimmed - skipped > 1 ? trimmed - skipped : 1;   /* the first letter of the ending that has a letter before it */
    *sum = 0;
    for (int64_t i = first; i <= n; i++) *sum += losses[i - 1];
    *mean = *sum / (double)(n + 1 - first);
    model_free(&m);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

static void check_losses(const Backend *backend, DType dtype, int64_t B) {
    double sums[ROWS], means[ROWS], tolerance = dtype == F32 ? 1e-5 : 0x1p-8;
    int right = 0, right_norm = 0;
    ModelSpec spec = tiny(dtype, B, T);
    Model m;
    snprintf(path, sizeof path, "%s/examples.jsonl", directory);
    Hellaswag *h = hellaswag_open(path, directory, V, 0, error);
    if (!h) fail_msg("%s", error);
    assert_int_equal(hellaswag_examples(h), EXAMPLES);
    create_loud(&m, backend, &spec);
    hellaswag_losses(h, &m, sums, means);
    for (int i = 0; i < ROWS; i++) {
        double sum, mean;
        alone(backend, dtype, contexts[i / 4], endings[i / 4][i % 4], &sum, &mean);
        if (!(fabs(sums[i] / sum - 1) <= tolerance) || !(fabs(means[i] / mean - 1) <= tolerance))
            fail_msg("%s, %s, B %d, ending %d: %g and %g, alone %g and %g", backend->name, dtype_names[dtype], (int)B, i, sums[i], means[i], sum,
                     mean);
    }
    for (int i = 0; i < EXAMPLES; i++) {
        int sum_wins = 1, mean_wins = 1;
        for (int k = 0; k < HELLASWAG_ENDINGS; k++) {
            sum_wins &= sums[4 * i + labels[i]] <= sums[4 * i + k];
            mean_wins &= means[4 * i + labels[i]] <= means[4 * i + k];
        }
        right += sum_wins;
        right_norm += mean_wins;
    }
    HellaswagScore score = hellaswag_evaluate(h, &m);
    assert_int_equal(score.examples, EXAMPLES);
    assert_true(score.acc == (double)right / EXAMPLES && score.acc_norm == (double)right_norm / EXAMPLES);
    model_free(&m);
    hellaswag_close(h);
}

/* Batches that the rows fill, that hold more than all of them, and of one. */
static void test_losses(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++) {
        const Backend *backend = test_backend(i);
        if (!backend) continue;
        for (int dtype = F32; dtype <= BF16; dtype++)
            if (dtype == F32 || backend->supports_bf16())
                for (int64_t B = 1; B <= 25; B = B * 5) check_losses(backend, (DType)dtype, B);
    }
}

/* A model without weights finds every token equally likely: V nats' log each. The shortest ending has the least sum; of equal means the first is
   taken. */
static void test_choice(void **state) {
    (void)state;
    static const char text[] = "{\"context\": \"a\", \"endings\": [\"bcd\", \"b\", \"bc\", \"d\"], \"label\": 1}\n"
                               "{\"context\": \"a\", \"endings\": [\"bcd\", \"b\", \"bc\", \"de\"], \"label\": 0}\n"
                               "{\"context\": \"a\", \"endings\": [\"bcd\", \"bb\", \"bc\", \"d\"], \"label\": 2}\n"
                               "{\"context\": \"a\", \"endings\": [\"bcd\", \"bb\", \"bc\", \"d\"], \"label\": 3}";
    ModelSpec spec = tiny(F32, 3, T);
    Model m;
    model_create(&m, &spec, backend_find("cpu"));
    write_text("choice.jsonl", text);
    Hellaswag *h = hellaswag_open(path, directory, V, 0, error);
    double sums[16], means[16];
    hellaswag_losses(h, &m, sums, means);
    for (int i = 0; i < 16; i++) assert_true(fabs(means[i] - log(V)) < 1e-5);
    assert_true(fabs(sums[0] - 4 * log(V)) < 1e-4 && fabs(sums[1] - 2 * log(V)) < 1e-4);   /* the blank belongs to the ending */
    HellaswagScore score = hellaswag_evaluate(h, &m);
    assert_true(score.examples == 4 && score.acc == 0.5 && score.acc_norm == 0.25);
    hellaswag_close(h);
    h = hellaswag_open(path, directory, V, 1, error);
    score = hellaswag_evaluate(h, &m);
    assert_true(score.examples == 1 && score.acc == 1 && score.acc_norm == 0);
    hellaswag_close(h);
    model_free(&m);
}

static void expect_refused(const char *text, const char *phrase) {
    write_text("bad.jsonl", text);
    Hellaswag *h = hellaswag_open(path, directory, V, 0, error);
    if (h) fail_msg("accepted: %s", text);
    if (!strstr(error, phrase) || !strstr(error, "bad.jsonl")) fail_msg("no \"%s\" in: %s", phrase, error);
}

static void test_bad_files_are_refused(void **state) {
    (void)state;
    static const char good[] = "{\"context\": \"a\", \"endings\": [\"a\", \"b\", \"c\", \"d\"], \"label\": 3}\n";
    char two[400];
    expect_refused("", "is empty; data/hellaswag.py makes it");
    expect_refused("{\"context\"", "line 1: ");
    expect_refused("{\"ctx\": \"a\", \"endings\": [\"a\", \"b\", \"c\", \"d\"], \"label\": 3}", "line 1: it is not {\"context\": TEXT");
    expect_refused("{\"context\": \"a\", \"endings\": [\"a\", \"b\", \"c\"], \"label\": 2}", "four TEXTs");
    expect_refused("{\"context\": \"a\", \"endings\": [\"a\", \"b\", \"c\", 1], \"label\": 2}", "four TEXTs");
    expect_refused("{\"context\": \"a\", \"endings\": [\"a\", \"b\", \"c\", \"d\"], \"label\": 4}", "0 to 3");
    expect_refused("{\"context\": \"a\", \"endings\": [\"a\", \"b\", \"c\", \"d\"], \"label\": \"3\"}", "data/hellaswag.py makes such a file");
    expect_refused("{\"context\": \" \", \"endings\": [\"a\", \"b\", \"c\", \"d\"], \"label\": 3}", "the context is empty");
    expect_refused("{\"context\": \"a\", \"endings\": [\"a\", \"b\", \"c\", \"D\"], \"label\": 3}", "'D' (U+0044) is not among the");
    snprintf(two, sizeof two, "%s{\"context\": 1}", good);
    expect_refused(two, "line 2: ");
    snprintf(two, sizeof two, "%s\n%s", good, good);
    expect_refused(two, "line 2: ");
    write_text("good.jsonl", good);
    assert_null(hellaswag_open("no/such/file", directory, V, 0, error));
    assert_non_null(strstr(error, "no/such/file"));
    assert_null(hellaswag_open(path, NULL, V, 0, error));
    assert_non_null(strstr(error, "no dataset.json"));
    assert_null(hellaswag_open(path, "no/vocabulary", V, 0, error));
    assert_non_null(strstr(error, "no/vocabulary"));
    assert_null(hellaswag_open(path, directory, V - 1, 0, error));
    assert_non_null(strstr(error, "has 29 tokens, the model only 28"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_bad_files_are_refused),
    };
    return cmocka_run_group_tests(tests, make_files, remove_directory);
}
