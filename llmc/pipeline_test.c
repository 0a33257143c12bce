/* pipeline_test.c: every piece once, in order, whatever the threads; and an early end. */
#include "pipeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct { int64_t number, square; } Piece;

typedef struct {
    int64_t total, stop;            /* pieces; the one at which writing refuses, or -1 */
    int64_t read, written;
    int reading, writing, threads;
    bool wrong;
} Stream;

static void expect(Stream *s, bool good) {
    if (!good) __atomic_store_n(&s->wrong, true, __ATOMIC_SEQ_CST);
}

static bool read_piece(void *context, void *piece) {
    Stream *s = context;
    expect(s, __atomic_add_fetch(&s->reading, 1, __ATOMIC_SEQ_CST) == 1);
    ((Piece *)piece)->number = s->read;
    bool more = s->read < s->total;
    s->read += more;
    __atomic_sub_fetch(&s->reading, 1, __ATOMIC_SEQ_CST);
    return more;
}

static void work(void *context, int thread, void *piece_) {
    Stream *s = context;
    Piece *piece = piece_;
    expect(s, thread >= 0 && thread < s->threads);
    if (piece->number % 7 == 3) usleep(2000);   /* so that others overtake it */
    piece->square = piece->number * piece->number;
}

static bool write_piece(void *context, void *piece_) {
    Stream *s = context;
    const Piece *piece = piece_;
    expect(s, __atomic_add_fetch(&s->writing, 1, __ATOMIC_SEQ_CST) == 1);
    expect(s, piece->number == s->written && piece->square == piece->number * piece->number);
    if (piece->number % 5 == 4) usleep(500);
    s->written++;
    __atomic_sub_fetch(&s->writing, 1, __ATOMIC_SEQ_CST);
    return piece->number != s->stop;
}

static Stream run(int64_t total, int64_t stop, int threads, int piece_count) {
    Stream s = { .total = total, .stop = stop, .threads = threads };
    Piece *pieces = calloc((size_t)piece_count, sizeof *pieces);
    pipeline_run(&(Pipeline){ &s, read_piece, work, write_piece, pieces, sizeof *pieces, piece_count, threads });
    free(pieces);
    assert_false(s.wrong);
    return s;
}

static void test_all_pieces_in_order(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++)
        for (int64_t total = 0; total <= 100; total = 3 * total + 1) {
            assert_int_equal(run(total, -1, threads, pipeline_pieces(threads)).written, total);
            assert_int_equal(run(total, -1, threads, 1).written, total);
        }
}

static void test_a_refusal_ends_it(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++)
        for (int64_t stop = 0; stop < 20; stop += 6) {
            Stream s = run(1000, stop, threads, pipeline_pieces(threads));
            assert_int_equal(s.written, stop + 1);
            assert_true(s.read <= stop + 1 + pipeline_pieces(threads));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_pieces_in_order),
        cmocka_unit_test(test_a_refusal_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
