/* checkpoint_writer_test.c: what is written in the background is what the model was when it was asked for; trouble is tried again, then reported,
   and training goes on; and at whatever moment the process is killed, a whole checkpoint is there to go on from. */
#include "checkpoint_test.h"

#include "checkpoint_writer.h"
#include "machine.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mount.h>
#include <sys/syscall.h>

/* ---- trouble, and its end ----------------------------------------------------------------------------------------------------- */

/* What the writer meets between one try and the next. Its own thread calls it. */
static struct {
    int pauses;
    double seconds;
    int mended_in;               /* the pause in which the cause of the trouble goes; 0: in none */
    void (*mend)(void);
    sem_t failed, go_on;         /* with `handshake`: posted in each pause, and awaited there */
    bool handshake;
    int priority;
    bool takes_signals;
} trouble;

/* Long enough for a busy machine; a writer that does not do its part shall not hang the test. */
static bool await(sem_t *semaphore) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    return sem_timedwait(semaphore, &until) == 0;
}

static void on_pause(double seconds) {
    sigset_t blocked;
    trouble.pauses++;
    trouble.seconds += seconds;
    trouble.priority = getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    trouble.takes_signals = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGINT);
    if (trouble.handshake) {
        sem_post(&trouble.failed);
        await(&trouble.go_on);
    }
    if (trouble.pauses == trouble.mended_in) trouble.mend();
}

static void expect_trouble(int mended_in, void (*mend)(void), bool handshake) {
    trouble.pauses = 0;
    trouble.seconds = 0;
    trouble.mended_in = mended_in;
    trouble.mend = mend;
    trouble.handshake = handshake;
}

/* A file where the run's directory should be. */
static const char *blocked_run;
static void block(const char *run) {
    blocked_run = run;
    put_bytes(run, "x", 1);
}
static void unblock(void) { unlink(blocked_run); }

static CheckpointWriter *open_writer(const char *run, bool background) {
    CheckpointWriter *w = checkpoint_writer_open(run, &options, NULL, 0.75, background);
    checkpoint_writer_pause_with(w, on_pause);
    assert_int_equal(checkpoint_writer_copies(w), background);
    return w;
}

static void start_save(CheckpointWriter *w, Model *m, int64_t step, bool best) {
    RunState state = state_at(step);
    state.best_val_loss = 1.0 / (double)step;
    model_snapshot(m, checkpoint_writer_snapshot(w), true, checkpoint_writer_copies(w));
    checkpoint_writer_save(w, &state, best, false);
}

static void expect_written(CheckpointWriter *w) {
    if (!checkpoint_writer_wait(w, error)) fail_msg("%s", error);
}

static void expect_same_files(const char *a, const char *b) {
    char *names = xstrdup(names_in(a));
    assert_string_equal(names_in(b), names);
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) {
        Bytes x = file_bytes(at("%s/%s", a + strlen(directory) + 1, name)), y = file_bytes(at("%s/%s", b + strlen(directory) + 1, name));
        if (x.size != y.size || memcmp(x.bytes, y.bytes, x.size) != 0) fail_msg("%s is not the same", name);
        free(x.bytes);
        free(y.bytes);
    }
    free(names);
}

/* ---- copies ----------------------------------------------------------------------------------------------------------------- */

/* The first try fails; before the second the model is trained further. */
static void check_same_files(const char *settings, DType dtype) {
    Model m;
    char *straight = xstrdup(at("straight")), *aside = xstrdup(at("aside"));
    create_with(&m, settings, dtype, 1);
    train(&m, 0, 3);
    CheckpointWriter *foreground = open_writer(straight, false), *background = open_writer(aside, true);
    start_save(foreground, &m, 3, true);
    expect_written(foreground);
    int priority = getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
    block(aside);
    expect_trouble(1, unblock, true);
    start_save(background, &m, 3, true);
    assert_true(await(&trouble.failed));
    train(&m, 3, 2);
    sem_post(&trouble.go_on);
    expect_written(background);
    assert_int_equal(trouble.pauses, 1);
    expect_same_files(at("straight/step_00000003"), at("aside/step_00000003"));
    expect_link(at("aside/best"), "step_00000003");
    assert_true(checkpoint_writer_best(background) == 1.0 / 3);
    /* Training comes first, and signals are for it. */
    assert_int_equal(trouble.priority, priority + 10 < 19 ? priority + 10 : 19);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid)), priority);
    assert_false(trouble.takes_signals);
    checkpoint_writer_close(foreground);
    checkpoint_writer_close(background);
    model_free(&m);
    assert_true(directory_remove(straight, error) && directory_remove(aside, error));
    free(straight);
    free(aside);
}

static void test_background_equals_foreground(void **state) {
    (void)state;
    check_same_files("", F32);
    check_same_files("", BF16);
    check_same_files("optimizer=sgd\n", F32);
    check_same_files("norm=rmsnorm\nactivation=swiglu\nbias=0\n", BF16);
}

static void unblock_late(void) {
    usleep(20000);
    unblock();
}

static void test_one_at_a_time(void **state) {
    (void)state;
    Model m;
    char *run = xstrdup(at("two"));
    create(&m);
    options.keep = 10;
    CheckpointWriter *w = open_writer(run, true);
    expect_written(w);   /* nothing has failed yet */
    expect_trouble(1, unblock_late, true);
    block(run);
    start_save(w, &m, 1, false);
    assert_true(await(&trouble.failed));
    assert_true(checkpoint_writer_times(w).writing == 0);   /* it goes on, and here we are */
    assert_true(checkpoint_writer_best(w) == 0.75);         /* it is not to be the best */
    sem_post(&trouble.go_on);
    const float *weights = checkpoint_writer_snapshot(w)->weights;   /* the first save must be over */
    if (!checkpoint_verify(at("two/step_00000001"), error)) fail_msg("%s", error);
    WriterTimes times = checkpoint_writer_times(w);
    if (!(times.writing >= 0.02 && times.stall > 0)) fail_msg("stall %g, writing %g", times.stall, times.writing);
    times = checkpoint_writer_times(w);
    assert_true(times.writing == 0 && times.stall == 0);
    start_save(w, &m, 2, true);
    assert_true(checkpoint_writer_best(w) == 0.5);
    assert_ptr_equal(checkpoint_writer_snapshot(w)->weights, weights);   /* the same memory again */
    start_save(w, &m, 3, false);
    checkpoint_writer_close(w);   /* which waits */
    assert_string_equal(names_in(run), "best last step_00000001 step_00000002 step_00000003 ");
    for (int step = 1; step <= 3; step++)
        if (!checkpoint_verify(at("two/step_%08d", step), error)) fail_msg("%s", error);
    expect_link(at("two/best"), "step_00000002");
    expect_link(at("two/last"), "step_00000003");
    checkpoint_writer_close(NULL);
    options.keep = 1;
    free(run);
    model_free(&m);
}

/* ---- a full disk ------------------------------------------------------------------------------------------------------------ */

/* Ways to have no room: a small disk of memory that something else fills up, where one may be mounted; else a limit on the size of files. */
typedef struct { void (*fill)(void), (*mend)(void); const char *cause; } Disk;

static void fill_disk(void) {
    static char zeros[4096];
    int file = open(at("disk/ballast"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while (write(file, zeros, sizeof zeros) > 0) {}
    close(file);
}
static void empty_disk(void) { unlink(at("disk/ballast")); }

static rlim_t size_limit_before;
static void set_size_limit(rlim_t limit) {
    struct rlimit l;
    getrlimit(RLIMIT_FSIZE, &l);
    size_limit_before = l.rlim_cur;
    l.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &l);
}
static void limit_files(void) { set_size_limit(4096); }   /* more than config.json, less than the weights */
static void free_files(void) { set_size_limit(size_limit_before); }

static void expect_one_warning(const char *said, const char *cause) {
    const char *first = strstr(said, "warning: step 2: the checkpoint could not be written: cannot write ");
    if (!first || strstr(first + 1, "warning") || !strstr(said, cause) || !strstr(said, "training goes on, the earlier ones are untouched\n"))
        fail_msg("said: %s", said);
}

/* Three saves: the second finds the disk full, at first or to the end. */
static void check_full_disk(const Disk *disk, bool background, bool for_good) {
    Model m, twin, loaded;
    RunState back;
    char *run = xstrdup(at("disk/run"));
    create(&m);
    create(&twin);
    create(&loaded);
    train(&m, 0, 1);
    train(&twin, 0, 2);
    options.keep = 10;
    CheckpointWriter *w = open_writer(run, background);
    start_save(w, &m, 1, true);
    expect_written(w);
    train(&m, 1, 1);
    disk->fill();
    expect_trouble(for_good ? 0 : 2, disk->mend, false);
    listen_begin();
    start_save(w, &m, 2, true);
    bool good = checkpoint_writer_wait(w, error), again = checkpoint_writer_wait(w, error);
    char *said = listen_end();
    assert_true(good == !for_good && again == good);
    assert_int_equal(trouble.pauses, 2);
    assert_true(trouble.seconds == 4);
    if (for_good) {
        expect_one_warning(said, disk->cause);
        assert_non_null(strstr(error, disk->cause));
        assert_string_equal(names_in(run), "best last step_00000001 ");
        disk->mend();
    } else {
        assert_string_equal(said, "");
        assert_string_equal(names_in(run), "best last step_00000001 step_00000002 ");
    }
    assert_int_equal(checkpoint_writer_failures(w), for_good);   /* a save that took several tries is none */
    const double best = for_good ? 1 : 0.5;   /* one that is not on the disk is none */
    assert_true(checkpoint_writer_best(w) == best);
    if (!checkpoint_verify(at("disk/run/step_00000001"), error)) fail_msg("%s", error);
    expect_same_model(&m, &twin);   /* training has seen nothing of it */
    start_save(w, &m, 3, false);
    expect_written(w);
    assert_true(checkpoint_load(at("disk/run/last"), &loaded, &back, error));
    assert_int_equal(back.step, 3);
    assert_true(back.best_val_loss == best);
    expect_same_model(&m, &loaded);
    checkpoint_writer_close(w);
    options.keep = 1;
    assert_true(directory_remove(run, error));
    free(said);
    free(run);
    model_free(&m);
    model_free(&twin);
    model_free(&loaded);
}

static void check_disk(const Disk *disk) {
    for (int i = 0; i < 4; i++) check_full_disk(disk, i % 2, i / 2);
}

static void test_limited_files(void **state) {
    (void)state;
    static const Disk disk = {limit_files, free_files, "File too large"};
    signal(SIGXFSZ, SIG_IGN);
    assert_true(directory_create(at("disk"), error));
    check_disk(&disk);
    signal(SIGXFSZ, SIG_DFL);
}

static void test_small_disk(void **state) {
    (void)state;
    static const Disk disk = {fill_disk, empty_disk, "No space left on device"};
    assert_true(directory_create(at("disk"), error));
    if (mount("tmpfs", at("disk"), "tmpfs", 0, "size=2m") != 0) skip();
    check_disk(&disk);
    assert_int_equal(umount(at("disk")), 0);
}

/* ---- the end of a process --------------------------------------------------------------------------------------------------- */

/* Trains and saves, a step each, and tells of every step whose checkpoint has been written. */
static void train_until_killed(Model *m, const char *run, int64_t step, int progress) {
    CheckpointWriter *w = checkpoint_writer_open(run, &options, NULL, 0.5, true);
    for (;; step++) {
        train(m, step, 1);
        RunState state = state_at(step + 1);
        model_snapshot(m, checkpoint_writer_snapshot(w), true, true);
        if (write(progress, &step, sizeof step) != sizeof step) _exit(1);   /* the one before is done */
        checkpoint_writer_save(w, &state, step % 3 == 0, false);
    }
}

/* Kills such a process at some moment after its second save has begun; the last step that it told of. */
static int64_t train_and_kill(Model *m, const char *run, int64_t step) {
    int ends[2];
    int64_t told = step, next;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) train_until_killed(m, run, step, ends[1]);
    close(ends[1]);
    while (told == step) assert_int_equal(read(ends[0], &told, sizeof told), sizeof told);
    usleep((useconds_t)test_below(15000));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while (read(ends[0], &next, sizeof next) == sizeof next) told = next;
    close(ends[0]);
    return told;
}

static void test_killed(void **state) {
    (void)state;
    enum { ROUNDS = 40 };
    Model m, loaded;
    RunState back;
    char *run = xstrdup(at("killed"));
    int64_t step = 0;
    int half_written = 0;
    create(&m);
    create(&loaded);
    test_seed = (uint64_t)getpid();
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t moments = test_seed;   /* train() sets it */
        int64_t told = train_and_kill(&m, run, step);
        half_written += strstr(names_in(run), ".writing-") != NULL;
        assert_true(checkpoint_clean(run, error));
        assert_null(strstr(names_in(run), ".writing-"));
        char *found = checkpoint_find(run, "auto", error);
        if (!found || !checkpoint_load(found, &loaded, &back, error)) fail_msg("round %d: %s", round, error);
        assert_null(strstr(names_in(run), "damaged"));
        if (back.step < told) fail_msg("round %d: step %d was written, but there is only step %d", round, (int)told, (int)back.step);
        train(&m, step, back.step - step);
        step = back.step;
        expect_same_model(&m, &loaded);
        test_seed = moments * 6364136223846793005u + 1442695040888963407u;
        free(found);
    }
    print_message("killed %d times, %d of them with half a checkpoint written\n", ROUNDS, half_written);
    assert_true(half_written > 0);
    free(run);
    model_free(&m);
    model_free(&loaded);
}

static void pause_for_ever(double seconds) {
    (void)seconds;
    sem_post(&trouble.failed);
    for (;;) pause();
}

/* die() does not wait for the writer. */
static void test_death_while_writing(void **state) {
    (void)state;
    Model m;
    int status;
    create(&m);
    pid_t child = fork();
    if (child == 0) {
        char *run = xstrdup(at("died"));
        block(run);
        CheckpointWriter *w = open_writer(run, true);
        checkpoint_writer_pause_with(w, pause_for_ever);
        start_save(w, &m, 1, false);
        if (!await(&trouble.failed)) _exit(2);
        dup2(open("/dev/null", O_WRONLY), 2);
        die("the end");
    }
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    model_free(&m);
}

/* ---- no thread -------------------------------------------------------------------------------------------------------------- */

/* In a child that may start none: 0 if it warned and then saved all the same. */
static int save_without_thread(Model *m, const char *run) {
    struct rlimit none = {0, 0};
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 2;
    setrlimit(RLIMIT_NPROC, &none);
    CheckpointWriter *w = checkpoint_writer_open(run, &options, NULL, 0.5, true);
    if (checkpoint_writer_copies(w)) return 3;
    start_save(w, m, 1, false);
    if (!checkpoint_writer_wait(w, error)) return 4;
    WriterTimes times = checkpoint_writer_times(w);
    if (!(times.stall >= times.writing && times.writing > 0)) return 5;
    checkpoint_writer_close(w);
    return checkpoint_verify(at("alone/run/last"), error) ? 0 : 6;
}

static void test_no_thread(void **state) {
    (void)state;
    Model m;
    int status;
    create(&m);
    assert_true(directory_create(at("alone"), error));
    assert_int_equal(chmod(directory, 0755) + chmod(at("alone"), 0777), 0);
    listen_begin();
    pid_t child = fork();
    if (child == 0) _exit(save_without_thread(&m, at("alone/run")));
    waitpid(child, &status, 0);
    char *said = listen_end();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("status %d: %s", status, said);
    assert_non_null(strstr(said, "no thread can be had to write checkpoints on: "));
    free(said);
    model_free(&m);
}

static int begin_with_trouble(void **state) {
    sem_init(&trouble.failed, 0, 0);
    sem_init(&trouble.go_on, 0, 0);
    return begin(state);
}
static int end_of_disk(void **state) {
    umount2(at("disk"), MNT_DETACH);   /* where a test has failed */
    return end(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_background_equals_foreground), cmocka_unit_test(test_one_at_a_time), cmocka_unit_test(test_limited_files),
        cmocka_unit_test(test_small_disk), cmocka_unit_test(test_killed), cmocka_unit_test(test_death_while_writing),
        cmocka_unit_test(test_no_thread),
    };
    return cmocka_run_group_tests(tests, begin_with_trouble, end_of_disk);
}
