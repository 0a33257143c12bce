/* data_files_test.c: which files of a directory are to train on and which to validate on. */
#include "dataloader_test.h"

/* The names after the last slash, each with a blank behind it. */
static const char *names_of(DataFiles files) {
    static char text[256];
    text[0] = 0;
    for (size_t i = 0; i < files.count; i++) {
        strcat(text, strrchr(files.names[i], '/') + 1);
        strcat(text, " ");
    }
    data_files_free(&files);
    return text;
}

static void fill(const char *name, const char *files) {
    char path[256];
    make(name);
    while (*files) {
        snprintf(path, sizeof path, "%s/%.*s", at(name), (int)strcspn(files, " "), files);
        write_bytes(path, "x", 1);
        files += strcspn(files, " ") + 1;
    }
}

static void test_directories(void **state) {
    (void)state;
    fill("both", "train_1.bin train_0.bin val_0.bin more.bin val.txt ");
    fill("values", "a.bin validation.bin ");   /* a directory of that name is no sign */
    fill("plain", "a.bin b.bin ");
    assert_string_equal(names_of(data_files(at("both"))), "more.bin train_0.bin train_1.bin val_0.bin ");
    assert_string_equal(names_of(data_files_for_training(at("both"), at("both"))), "more.bin train_0.bin train_1.bin ");
    assert_string_equal(names_of(data_files_for_training(at("both/"), at("plain"))), "more.bin train_0.bin train_1.bin ");
    assert_string_equal(names_of(data_files_for_validation(at("both"))), "val_0.bin ");
    assert_string_equal(names_of(data_files_for_validation(at("plain"))), "a.bin b.bin ");
    assert_string_equal(names_of(data_files_for_training(at("values"), at("values"))), "a.bin ");
}

/* However the validation tokens are named. */
static void test_what_validation_takes(void **state) {
    (void)state;
    fill("shared", "a.bin b.bin c.bin ");
    assert_int_equal(symlink("shared/b.bin", at("link.bin")), 0);
    assert_string_equal(names_of(data_files_for_training(at("shared"), at("shared/b.bin"))), "a.bin c.bin ");
    assert_string_equal(names_of(data_files_for_training(at("shared"), at("shared/../shared/[bc].bin"))), "a.bin ");
    assert_string_equal(names_of(data_files_for_training(at("shared"), at("link.bin"))), "a.bin c.bin ");
}

/* A file or a pattern says what it says. */
static void test_patterns(void **state) {
    (void)state;
    fill("named", "train.bin val.bin ");
    assert_string_equal(names_of(data_files_for_training(at("named/*.bin"), at("named/val.bin"))), "train.bin val.bin ");
    assert_string_equal(names_of(data_files_for_training(at("named/val.bin"), at("named/val.bin"))), "val.bin ");
    assert_string_equal(names_of(data_files_for_validation(at("named/*.bin"))), "train.bin val.bin ");
}

static void train_on(const char *path) { data_files_for_training(path, path); }
static void take(const char *path) { data_files(path); }

static void test_nothing_to_take(void **state) {
    (void)state;
    fill("held", "val_0.bin val_1.bin ");
    fill("same", "a.bin ");
    make("none");
    expect_death(train_on, at("held"), "of the directory '", "held' nothing is left to train on without its validation tokens (val*.bin", NULL);
    expect_death(train_on, at("same"), "same' nothing is left to train on", "name the training tokens by a pattern in quotes", NULL);
    expect_death(take, at("none"), "none' holds no token shards (*.bin)", "data/prepare.py", NULL);
    expect_death(take, at("none/train_*.bin"), "there is no token file '", "data/prepare.py", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directories), cmocka_unit_test(test_what_validation_takes), cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_nothing_to_take),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
