/* logger.c: log.jsonl, and numbers for people. */
#include "logger.h"

#include "byte_buffer.h"
#include "error.h"
#include "json.h"
#include "model_stats.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REMEMBERED = 16, MOST_WAITING = 16 << 20, SMALL = 1 << 16 };

struct Logger {
    char *path;
    int file;
    ByteBuffer waiting;                    /* whole lines that are not in the file yet */
    bool failed;                           /* the last write did, and it has been said */
    StepReport remembered[REMEMBERED];
    int64_t count;                         /* of them since the last line; the newest is number count - 1, in its place modulo REMEMBERED */
};

void format_duration(char text[32], double seconds) {
    bool known = fabs(seconds) < 1e15;
    long s = known ? (long)(seconds + 0.5) : 0;
    if (!known) snprintf(text, 32, "?");
    else if (s >= 3600) snprintf(text, 32, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else if (s >= 60) snprintf(text, 32, "%ldm%02lds", s / 60, s % 60);
    else snprintf(text, 32, "%lds", s);
}

void format_bytes(char text[32], double bytes) {
    if (bytes >= 1073741824.0) snprintf(text, 32, "%.2f GiB", bytes / 1073741824.0);
    else if (bytes >= 1048576.0 || bytes == 0) snprintf(text, 32, "%.1f MiB", bytes / 1048576.0);
    else snprintf(text, 32, "%.1f KiB", bytes / 1024.0);
}

void format_count(char text[32], double count) {
    if (!(fabs(count) < 1e21)) {   /* NaN and Inf too */
        snprintf(text, 32, "%.3g", count);
        return;
    }
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", count), out = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-') text[out++] = ',';
        text[out++] = digits[i];
    }
    text[out] = 0;
}

/* Length of the leading lines that are whole JSON objects of steps up to `step`. */
static size_t kept_length(const char *text, size_t length, int64_t step) {
    size_t kept = 0;
    for (const char *newline; (newline = memchr(text + kept, '\n', length - kept));) {
        size_t n = (size_t)(newline - (text + kept));
        Json *line = json_parse(text + kept, n, NULL, 0);
        int64_t of_step = -1;
        bool whole = json_get_integer(line, "step", &of_step);
        json_free(line);
        if (!whole || of_step > step) break;
        kept += n + 1;
    }
    return kept;
}

static bool drop_later_lines(const char *path, int64_t step, char error[ERROR_SIZE]) {
    size_t length;
    uint32_t crc;
    if (!path_exists(path)) return true;
    char *text = file_read_text(path, (size_t)1 << 31, &length, error);
    if (!text) return false;
    size_t kept = kept_length(text, length, step);
    bool ok = true;
    if (kept < length) {
        FileWriter *file = file_create(path);
        file_write(file, text, kept);
        ok = file_close(file, &crc, error);
    }
    free(text);
    return ok;
}

/* All that waits, or nothing: a line that got through in part is taken back. */
static bool write_waiting(Logger *logger) {
    ByteBuffer *lines = &logger->waiting;
    off_t end = lseek(logger->file, 0, SEEK_END);
    for (size_t done = 0; done < lines->count;) {
        ssize_t n = write(logger->file, lines->bytes + done, lines->count - done);
        if (n < 0 && errno == EINTR) continue;
        if (n > 0) done += (size_t)n;
        if (n > 0) continue;
        int cause = errno;
        if (ftruncate(logger->file, end) != 0) byte_buffer_clear(lines, SMALL);   /* what cannot be taken back must not come twice */
        errno = cause;
        return false;
    }
    byte_buffer_clear(lines, SMALL);
    return true;
}

Logger *logger_open(const char *run, int64_t step, char error[ERROR_SIZE]) {
    Logger *logger = (Logger *)xcalloc(1, sizeof *logger);
    logger->file = -1;
    logger->path = path_join(run, "log.jsonl");
    if (drop_later_lines(logger->path, step, error)) {
        logger->file = open(logger->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (logger->file >= 0) return logger;
        file_error(error, "cannot write %.300s: %s", logger->path, strerror(errno));
    }
    logger_close(logger);
    return NULL;
}

void logger_close(Logger *logger) {
    if (!logger) return;
    if (logger->waiting.count > 0 && !write_waiting(logger)) warn("%s lacks its last lines: %s", logger->path, strerror(errno));
    if (logger->file >= 0) close(logger->file);
    byte_buffer_free(&logger->waiting);
    free(logger->path);
    free(logger);
}

static double rounded_to(double value, double unit) { return round(value / unit) * unit; }

static void write_line(FILE *f, const StepReport *r) {
    fprintf(f, "{\"step\": %lld, \"tokens\": %lld, \"tokens_seen\": %lld", (long long)r->step, (long long)r->tokens, (long long)r->tokens_seen);
    json_write_number_member(f, "loss", r->loss);
    json_write_number_member(f, "perplexity", exp(r->loss));
    json_write_number_member(f, "lr", r->lr);
    json_write_number_member(f, "grad_norm", r->grad_norm);
    json_write_number_member(f, "tokens_per_s", rounded_to(r->tokens_per_s, 0.5));
    if (r->mfu > 0) json_write_number_member(f, "mfu", rounded_to(r->mfu, 0x1p-13));
    json_write_number_member(f, "ms", rounded_to(r->ms, 0.125));
    json_write_number_member(f, "elapsed_s", rounded_to(r->elapsed_s, 0.125));
    if (r->skipped) fprintf(f, ", \"skipped\": true");
    if (r->comm_ms > 0) {
        json_write_number_member(f, "comm_ms", rounded_to(r->comm_ms, 0.0625));
        json_write_number_member(f, "comm_exposed_ms", rounded_to(r->comm_exposed_ms, 0.0625));
    }
    if (r->evaluated) {
        json_write_number_member(f, "train_loss", r->train_loss);
        json_write_number_member(f, "val_loss", r->val_loss);
        json_write_number_member(f, "val_perplexity", exp(r->val_loss));
        if (r->val_bits_per_byte > 0) json_write_number_member(f, "val_bits_per_byte", r->val_bits_per_byte);
    }
    if (r->evaluated && r->hellaswag_examples > 0) {
        json_write_number_member(f, "hellaswag_acc", r->hellaswag_acc);
        json_write_number_member(f, "hellaswag_acc_norm", r->hellaswag_acc_norm);
        json_write_number_member(f, "hellaswag_examples", (double)r->hellaswag_examples);
    }
    if (r->stats) {
        fputs(", \"stats\": ", f);
        model_stats_write(f, r->stats);
    }
    fprintf(f, "}\n");
}

static void append_line(Logger *logger, const StepReport *r) {
    char *line = NULL;
    size_t length = 0;
    FILE *f = open_memstream(&line, &length);
    if (!f) die("out of memory");
    write_line(f, r);
    fclose(f);
    if (logger->waiting.count + length <= MOST_WAITING) byte_buffer_append(&logger->waiting, line, length);
    free(line);
}

bool logger_report(Logger *logger, const StepReport *r, char error[ERROR_SIZE]) {
    bool said = logger->failed;
    append_line(logger, r);
    logger->count = 0;
    logger->failed = !write_waiting(logger);
    return !logger->failed || said || file_error(error, "cannot write %.300s: %s", logger->path, strerror(errno));
}

void logger_remember(Logger *logger, const StepReport *r) { logger->remembered[logger->count++ % REMEMBERED] = *r; }

bool logger_report_remembered(Logger *logger, char error[ERROR_SIZE]) {
    if (!logger) return true;
    bool good = true;
    int64_t count = logger->count, first = count > REMEMBERED ? count - REMEMBERED : 0;
    for (int64_t i = first; i < count; i++) good = logger_report(logger, &logger->remembered[i % REMEMBERED], error) && good;
    return good;
}
