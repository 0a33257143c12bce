/* bpe_train_test.c: the trainer against the definition carried out in the plainest way, threads against one thread, special tokens,
   refusals, and texts made to be slow. */
#include "bpe_train.h"
#include "directory_test.h"
#include "error.h"
#include "machine.h"
#include "pretokenize.h"
#include "specials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Helpers ---- */

static const char *write_text(const char *name, const char *text, size_t length) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    assert_true(file_close(file, NULL, error));
    return path;
}

static uint64_t random_state;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static char *repeat(const char *part, size_t times) {
    size_t length = strlen(part);
    char *text = xmalloc(length * times + 1);
    for (size_t i = 0; i < times; i++) memcpy(text + i * length, part, length);
    text[length * times] = 0;
    return text;
}

static BpeTrainer *open_file(const char *path, const char *const *specials, int64_t special_count, int threads) {
    Corpus corpus = { .files = &path, .file_count = 1, .specials = specials, .special_count = special_count, .threads = threads };
    return bpe_trainer_open(&corpus, error);
}

/* ---- The reference: every pair counted anew for every merge, in the text as it stands ---- */

enum { MOST_TOKENS = 700, BETWEEN = -1 };

typedef struct {
    char *bytes;
    size_t length;
} Spelling;

typedef struct {
    int32_t *tokens;                   /* of the text; BETWEEN between pre-tokens */
    size_t count;
    int64_t special_count;
    Spelling spellings[MOST_TOKENS];
    int32_t token_count;
    int64_t *pair_counts;              /* MOST_TOKENS x MOST_TOKENS */
} Reference;

static size_t special_at(const char *text, size_t length, const char *const *specials, int64_t special_count) {
    size_t longest = 0;
    for (int64_t i = 0; i < special_count; i++) {
        size_t n = strlen(specials[i]);
        if (n <= length && n > longest && memcmp(text, specials[i], n) == 0) longest = n;
    }
    return longest;
}

static void reference_pretokens(Reference *r, Pretokenizer *pretokenizer, const char *text, size_t length) {
    for (size_t at = 0; at < length;) {
        size_t n = pretoken_length(pretokenizer, text + at, length - at);
        for (size_t i = 0; i < n; i++) r->tokens[r->count++] = (unsigned char)text[at + i];
        r->tokens[r->count++] = BETWEEN;
        at += n;
    }
}

static Reference *reference_open(const char *text, size_t length, const char *const *specials, int64_t special_count) {
    Reference *r = xcalloc(1, sizeof *r);
    r->tokens = xmalloc((2 * length + 1) * sizeof *r->tokens);
    r->pair_counts = xmalloc(MOST_TOKENS * MOST_TOKENS * sizeof *r->pair_counts);
    for (r->token_count = 0; r->token_count < 256; r->token_count++) {
        r->spellings[r->token_count] = (Spelling){ xmalloc(1), 1 };
        r->spellings[r->token_count].bytes[0] = (char)r->token_count;
    }
    Pretokenizer *pretokenizer = pretokenizer_open(PRETOKENS_GPT2, error);
    assert_non_null(pretokenizer);
    size_t start = 0, at = 0;
    while (at < length) {
        size_t special = special_at(text + at, length - at, specials, special_count);
        if (special) reference_pretokens(r, pretokenizer, text + start, at - start);
        r->special_count += special > 0;
        at += special ? special : 1;
        if (special) start = at;
    }
    reference_pretokens(r, pretokenizer, text + start, length - start);
    pretokenizer_close(pretokenizer);
    return r;
}

static void reference_close(Reference *r) {
    for (int32_t i = 0; i < r->token_count; i++) free(r->spellings[i].bytes);
    free(r->tokens);
    free(r->pair_counts);
    free(r);
}

static int spelling_order(const Reference *r, int32_t a, int32_t b) {
    const Spelling *x = &r->spellings[a], *y = &r->spellings[b];
    int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* False if there is no pair. */
static bool reference_best(Reference *r, int32_t *left, int32_t *right) {
    memset(r->pair_counts, 0, MOST_TOKENS * MOST_TOKENS * sizeof *r->pair_counts);
    for (size_t i = 0; i + 1 < r->count; i++)
        if (r->tokens[i] != BETWEEN && r->tokens[i + 1] != BETWEEN) r->pair_counts[r->tokens[i] * MOST_TOKENS + r->tokens[i + 1]]++;
    int64_t most = 0;
    for (int32_t a = 0; a < r->token_count; a++)
        for (int32_t b = 0; b < r->token_count; b++) {
            int64_t count = r->pair_counts[a * MOST_TOKENS + b];
            if (r->spellings[a].length + r->spellings[b].length > BPE_LONGEST_TOKEN) continue;
            int order = count == 0 || count < most ? -1 : count > most ? 1 : spelling_order(r, a, *left);
            if (order < 0 || (order == 0 && spelling_order(r, b, *right) <= 0)) continue;
            most = count;
            *left = a;
            *right = b;
        }
    return most > 0;
}

static bool reference_merge(Reference *r, BpeMerge *merge) {
    if (!reference_best(r, &merge->left, &merge->right)) return false;
    merge->token = r->token_count;
    const Spelling *a = &r->spellings[merge->left], *b = &r->spellings[merge->right];
    Spelling *made = &r->spellings[r->token_count++];
    *made = (Spelling){ xmalloc(a->length + b->length), a->length + b->length };
    memcpy(made->bytes, a->bytes, a->length);
    memcpy(made->bytes + a->length, b->bytes, b->length);
    size_t written = 0;
    for (size_t i = 0; i < r->count; written++) {
        bool here = i + 1 < r->count && r->tokens[i] == merge->left && r->tokens[i + 1] == merge->right;
        r->tokens[written] = here ? merge->token : r->tokens[i];
        i += here ? 2 : 1;
    }
    r->count = written;
    return true;
}

static int64_t reference_length(const Reference *r) {
    int64_t tokens = r->special_count;
    for (size_t i = 0; i < r->count; i++) tokens += r->tokens[i] != BETWEEN;
    return tokens;
}

/* ---- Against the reference ---- */

static void compare(const char *name, const char *text, size_t length, const char *const *specials, int64_t special_count, int64_t merges) {
    const char *path = write_text("text", text, length);
    for (int threads = 1; threads <= 3; threads += 2) {
        Reference *reference = reference_open(text, length, specials, special_count);
        BpeTrainer *trainer = open_file(path, specials, special_count, threads);
        if (!trainer) fail_msg("%s: %s", name, error);
        for (int64_t i = 0; i < merges; i++) {
            BpeMerge expected;
            bool more = reference_merge(reference, &expected);
            int64_t count;
            if (bpe_trainer_merge(trainer, 1) != more) fail_msg("%s: merge %d is there in one only", name, (int)i);
            const BpeMerge *found = bpe_trainer_merges(trainer, &count) + i;
            if (!more) break;
            assert_int_equal(count, i + 1);
            if (found->left != expected.left || found->right != expected.right || found->token != expected.token)
                fail_msg("%s, %d threads: merge %d is (%d, %d) = %d, not (%d, %d) = %d", name, threads, (int)i, found->left, found->right,
                         found->token, expected.left, expected.right, expected.token);
            assert_int_equal(bpe_trainer_report(trainer).tokens, reference_length(reference));
        }
        assert_int_equal(bpe_trainer_report(trainer).bytes, length);
        bpe_trainer_close(trainer);
        reference_close(reference);
    }
}

static void compare_text(const char *text, int64_t merges) { compare(text, text, strlen(text), NULL, 0, merges); }

/* (e, s) and (s, t) occur 9 times each, and (s, t) is the greater; then (e, st), and so on. */
static void test_by_hand(void **state) {
    (void)state;
    static const char text[] = "low\nlow\nlow\nlow\nlow\nlower\nlower\nwidest\nwidest\nwidest\n"
                               "newest\nnewest\nnewest\nnewest\nnewest\nnewest";
    enum { ST = 256, EST, OW, LOW, WEST, NE };
    static const BpeMerge expected[] = { { 's', 't', ST },   { 'e', ST, EST },   { 'o', 'w', OW },
                                         { 'l', OW, LOW }, { 'w', EST, WEST }, { 'n', 'e', NE } };
    BpeTrainer *trainer = open_file(write_text("hand", text, sizeof text - 1), NULL, 0, 1);
    int64_t count;
    assert_int_equal(bpe_trainer_merge(trainer, 6), 6);
    assert_memory_equal(bpe_trainer_merges(trainer, &count), expected, sizeof expected);
    assert_int_equal(count, 6);
    bpe_trainer_close(trainer);
}

static void test_small_texts(void **state) {
    (void)state;
    compare_text("a", 3);
    compare_text("ab", 3);
    compare_text(" ", 1);
    compare_text("aaa", 5);
    compare_text("aaaaaaaaaaaaaaa aaaaaaa aaaa", 40);
    compare_text("abababababa babab ababab aabbaabb", 40);
    compare_text("xaaaxaaaaxaaaaax yaay aaaaaay", 60);
    compare_text("abcabcab cabcabc bcabca", 60);
    compare_text("low low low low low lower lower widest widest widest newest newest newest newest newest newest", 60);
    compare_text("zz yy xx ww zz yy xx ww", 20);                              /* ties of single bytes */
    compare_text("ab abc a\u00e9 a\u00e9\u00e9 \xff\xfe \x80\x80\x80 \xff\xfe", 40);   /* bytes above 127 are the greater */
    compare_text("\u4f60\u597d\u4e16\u754c\u4f60\u597d \u05e9\u05dc\u05d5\u05dd caf\u00e9 e\u0301e\u0301", 80);
    compare_text("\U0001F468\u200d\U0001F469\U0001F468\u200d\U0001F469", 20);
    compare_text("1234 1234 12 5 don't we'll  two   spaces\n\n\nlines\t\ttabs\r\n\r\n   \u00a0\u2003\u2003x", 80);
    char *long_words = repeat("aaaaaaabaaaaaaa", 1500);
    compare("long words", long_words, strlen(long_words), NULL, 0, 60);
    free(long_words);
    compare("NUL", "a\0b\0\0a\0b", 8, NULL, 0, 20);
}

static void test_random_texts(void **state) {
    (void)state;
    static const char *const letters[] = { "ab", "ab ", "aab b\n", "abcdefgh  ", "a\xc3\xa9\xe4\xbd\xa0 \xff" };
    random_state = 1;
    for (int i = 0; i < 60; i++) {
        char text[600];
        const char *from = letters[i % 5];
        size_t length = 1 + random_below(sizeof text);
        for (size_t k = 0; k < length; k++) text[k] = from[random_below((uint32_t)strlen(from))];
        compare("random", text, length, NULL, 0, 150);
    }
}

static void test_specials(void **state) {
    (void)state;
    static const char *const specials[] = { "<|end|>", "<|end|>x", "a b", "aba", " ", "\u4f60" };
    static const char text[] = "ab ab<|end|>ab  <|end|>xab abaaba a b a baba \u4f60\u597d\u4f60<|end|<|end|><|end|> <|enda b";
    for (int64_t count = 1; count <= 6; count++) {
        compare("specials", text, sizeof text - 1, specials, count, 100);
        compare("one special", text, sizeof text - 1, specials + count - 1, 1, 100);
    }
    static const char *const end[] = { "<|end|>" };
    compare("nothing but one pre-token and specials", "<|end|><|end|>ab<|end|>", 23, end, 1, 5);
}

/* Texts of several pieces, whose cuts must cut neither pre-tokens nor special tokens. */
static void test_pieces(void **state) {
    (void)state;
    enum { LENGTH = 2500000 };
    static const char *const specials[] = { "<| end |>", "b c" };
    static const char *const parts[] = { "ab", "b", " ", "c", "<| end |>", "\n", " b", "\u3000", "\xff", "1" };
    char *text = xmalloc(LENGTH + 16);
    random_state = 2;
    for (int kind = 0; kind < 3; kind++) {
        size_t length = 0;
        while (length < LENGTH) {
            /* kind 1 has no white space but in special tokens (parts 0, 1, 3 and 4), and kind 2 none at all for a long stretch */
            bool stretch = kind == 2 && length > 100 && length < LENGTH - 100;
            const char *part = parts[kind == 1 ? 3 * random_below(2) + random_below(2) : random_below(stretch ? 2 : 10)];
            size_t n = strlen(part);
            memcpy(text + length, part, n);
            length += n;
        }
        compare("pieces", text, length, specials, 2, 8);
        compare("pieces without specials", text, length, NULL, 0, 8);
    }
    free(text);
}

static void test_files(void **state) {
    (void)state;
    /* Each file ends a pre-token; an empty one does no harm. */
    const char *files[] = { write_text("one", "ab", 2), write_text("none", "", 0), write_text("two", "cd ab", 5) };
    Corpus corpus = { .files = files, .file_count = 3, .threads = 2 };
    BpeTrainer *trainer = bpe_trainer_open(&corpus, error);
    assert_non_null(trainer);
    assert_int_equal(bpe_trainer_report(trainer).pretokens, 3);
    assert_int_equal(bpe_trainer_report(trainer).distinct, 3);
    assert_int_equal(bpe_trainer_merge(trainer, 10), 3);   /* ab, cd, and the space with ab */
    assert_int_equal(bpe_trainer_report(trainer).tokens, 3);
    assert_int_equal(bpe_trainer_merge(trainer, 10), 0);
    bpe_trainer_close(trainer);
}

/* ---- Threads ---- */

static void test_threads(void **state) {
    (void)state;
    enum { LENGTH = 6000000, MERGES = 500 };
    char *text = xmalloc(LENGTH);
    random_state = 3;
    for (size_t i = 0; i < LENGTH; i++) text[i] = "etaoin shrdlu "[random_below(14)];   /* more pre-tokens than a thread keeps to itself */
    const char *path = write_text("text", text, LENGTH);
    BpeMerge first[MERGES];
    for (int threads = 1; threads <= 8; threads *= 2) {
        BpeTrainer *trainer = open_file(path, NULL, 0, threads);
        assert_non_null(trainer);
        assert_true(bpe_trainer_report(trainer).distinct > 150000);
        assert_int_equal(bpe_trainer_merge(trainer, MERGES), MERGES);
        int64_t count;
        const BpeMerge *merges = bpe_trainer_merges(trainer, &count);
        if (threads == 1) memcpy(first, merges, sizeof first);
        assert_memory_equal(first, merges, sizeof first);
        bpe_trainer_close(trainer);
    }
    free(text);
}

/* ---- Texts made to be slow ---- */

static double seconds_to_train(const char *text, size_t length, int64_t merges) {
    const char *path = write_text("text", text, length);
    double start = machine_seconds();
    BpeTrainer *trainer = open_file(path, NULL, 0, 2);
    assert_non_null(trainer);
    bpe_trainer_merge(trainer, merges);
    double seconds = machine_seconds() - start;
    bpe_trainer_close(trainer);
    return seconds;
}

/* Eight times the text may take eight times as long, and as much again for a machine that is busy; the square would be 64 times. */
static void expect_linear(const char *name, char *text, size_t length, int64_t merges) {
    double eighth = seconds_to_train(text, length / 8, merges), whole = seconds_to_train(text, length, merges);
    if (!(whole < 16 * eighth + 0.1)) fail_msg("%s: %zu bytes take %.2f s, an eighth of them %.2f s", name, length, whole, eighth);
    free(text);
}

static void test_slow_texts(void **state) {
    (void)state;
    enum { LENGTH = 1 << 22 };
    expect_linear("one letter", repeat("a", LENGTH), LENGTH, 100);
    expect_linear("one word of two letters", repeat("ab", LENGTH / 2), LENGTH, 100);
    char *text = xmalloc(LENGTH);
    random_state = 4;
    for (size_t i = 0; i < LENGTH; i++) text[i] = (char)('a' + random_below(26));
    expect_linear("one word", text, LENGTH, 3000);
    expect_linear("white space", repeat(" ", LENGTH), LENGTH, 100);
    expect_linear("bytes that are no UTF-8", repeat("\xff", LENGTH), LENGTH, 100);
}

/* ---- Refusals ---- */

static void expect_refusal(const Corpus *corpus, const char *phrase) {
    error[0] = 0;
    if (bpe_trainer_open(corpus, error)) fail_msg("accepted, where '%s' was expected", phrase);
    if (!strstr(error, phrase)) fail_msg("'%s' does not hold '%s'", error, phrase);
}

static void test_refusals(void **state) {
    (void)state;
    const char *good = write_text("good", "text", 4), *empty = write_text("empty", "", 0), *only = write_text("only", "<|e|><|e|>", 10);
    const char *missing[] = { good, "/nowhere/text" }, *folder[] = { directory };
    const char *twice[] = { "<|e|>", "x", "<|e|>" }, *nothing[] = { "x", "" };
    expect_refusal(&(Corpus){ .files = missing, .file_count = 2, .threads = 2 }, "cannot open '/nowhere/text': No such file");
    expect_refusal(&(Corpus){ .files = folder, .file_count = 1, .threads = 2 }, "': Is a directory");
    expect_refusal(&(Corpus){ .files = &empty, .file_count = 1, .threads = 2 }, "holds no text");
    expect_refusal(&(Corpus){ .files = &only, .file_count = 1, .specials = twice, .special_count = 1, .threads = 2 }, "holds no text");
    expect_refusal(&(Corpus){ .files = &good, .file_count = 1, .specials = twice, .special_count = 3, .threads = 2 }, "is given twice");
    expect_refusal(&(Corpus){ .files = &good, .file_count = 1, .specials = nothing, .special_count = 2, .threads = 2 }, "is empty");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),      cmocka_unit_test(test_small_texts), cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_specials),     cmocka_unit_test(test_pieces),      cmocka_unit_test(test_files),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_slow_texts),  cmocka_unit_test(test_refusals),
    };
    Pretokenizer *pretokenizer = pretokenizer_open(PRETOKENS_GPT2, error);
    if (!pretokenizer) {
        print_message("skipped: %s\n", error);
        return 0;
    }
    pretokenizer_close(pretokenizer);
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
