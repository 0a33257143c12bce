/* model_state.c: weights and moments on their way into the model and out of it. What comes from a file or from initialisation is made whole in host
   memory on every rank, which keeps its part; what goes out is gathered whole on rank 0. */
#include "snapshot.h"

#include "error.h"
#include "files.h"
#include "kernels/cpu.h"
#include "model_ranks.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const moment_prefixes[2] = {"exp_avg.", "exp_avg_sq."};

static size_t whole_bytes(const Model *m) { return (size_t)m->table.elements * sizeof(float); }

/* ---- in ---------------------------------------------------------------------------------------------------------------------- */

/* Host memory for new values of a flat fp32 buffer: the buffer itself where the host may write it. Pair with room_done. */
static float *room_for(const Model *m, Tensor flat) {
    ranks_need_all(m);
    if (flat.data && m->backend->host_memory && is_whole(m, flat)) return (float *)flat.data;
    return (float *)xcalloc((size_t)m->table.elements, sizeof(float));
}

static void upload_shares(const Model *m, Tensor flat, const float *host) {
    for (int i = 0; i < m->together->share_count; i++) {
        const Share *share = &m->together->shares[i];
        m->backend->upload(share_of(m, flat, share).data, host + share->offset, (size_t)share->count * sizeof *host, m->stream);
    }
}

/* changed: the device shall have the new values. */
static void room_done(const Model *m, Tensor flat, float *host, bool changed) {
    if (host == flat.data) return;
    if (changed && flat.data) {
        if (is_whole(m, flat)) m->backend->upload(flat.data, host, whole_bytes(m), m->stream);
        else upload_shares(m, flat, host);
        m->backend->synchronize(m->stream);
    }
    free(host);
}

/* The bf16 copy of new fp32 weights, in pieces: a whole second copy would be more memory than the plan says. */
static void round_weights(Model *m, const float *host) {
    enum { PIECE = 1 << 18 };
    if (m->spec.dtype == F32) return;
    uint16_t *half = (uint16_t *)xmalloc(PIECE * sizeof *half);
    for (int64_t i = 0; i < m->table.elements; i += PIECE) {
        int64_t n = m->table.elements - i < PIECE ? m->table.elements - i : PIECE;
        bf16_of_floats(half, host + i, n);
        m->backend->upload((uint16_t *)m->parameters.data + i, half, (size_t)n * sizeof *half, m->stream);
        m->backend->synchronize(m->stream);
    }
    free(half);
}

void model_init_weights(Model *m, int scheme, uint64_t seed) {
    float *host = room_for(m, m->masters);
    m->state.seed = seed;
    parameters_init(host, &m->table, &m->config, scheme, seed);
    round_weights(m, host);
    room_done(m, m->masters, host, true);
}

/* One flat buffer from a file with our own names. */
static bool read_floats_of(Model *m, const Safetensors *st, const char *path, const char *prefix, Tensor flat, bool weights, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE];
    float *host = room_for(m, flat);
    bool ok = parameters_read(st, &m->table, prefix, host, cause);
    if (!ok) snprintf(error, ERROR_SIZE, "%.200s: %.300s", path, cause);
    if (ok && weights) round_weights(m, host);
    room_done(m, flat, host, ok);
    return ok;
}

bool model_read_weights(Model *m, const char *path, const char *prefix, char error[ERROR_SIZE]) {
    Safetensors st;
    if (!safetensors_open(&st, path, error)) return false;
    bool ok = read_floats_of(m, &st, path, prefix, m->masters, true, error);
    safetensors_close(&st);
    return ok;
}

bool model_read_directory(Model *m, const char *directory, char error[ERROR_SIZE]) {
    float *host = room_for(m, m->masters);
    bool ok = weights_read_directory(directory, &m->table, &m->config, host, error);
    if (ok) round_weights(m, host);
    room_done(m, m->masters, host, ok);
    return ok;
}

bool model_read_optimizer(Model *m, const char *path, char error[ERROR_SIZE]) {
    const Tensor moments[2] = {m->m, m->v};
    Safetensors st;
    bool ok = true;
    if (!safetensors_open(&st, path, error)) return false;
    for (int i = 0; i < 2 && ok; i++)
        if (moments[i].data) ok = read_floats_of(m, &st, path, moment_prefixes[i], moments[i], false, error);
    safetensors_close(&st);
    return ok;
}

/* ---- out --------------------------------------------------------------------------------------------------------------------- */

float *model_copy_flat(const Model *m, ArenaName which) {
    Tensor flat = which == ARENA_GRADIENTS ? m->gradients : m->masters;
    CHECK(is_whole(m, flat));
    float *copy = (float *)xmalloc(whole_bytes(m));
    ranks_need_all(m);
    ranks_synchronize(m, "parameters");
    m->backend->download(copy, flat.data, whole_bytes(m), m->stream);
    return copy;
}

void model_copy_parameters(Model *m, const Model *from) {
    enum { PIECE = 1 << 22 };
    const Backend *backend = m->backend;
    const size_t bytes = tensor_bytes(m->parameters);
    CHECK(bytes == tensor_bytes(from->parameters));
    ranks_need_all(from);
    ranks_synchronize(from, "parameters");
    char *copy = (char *)xmalloc(PIECE);
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        backend->download(copy, (const char *)from->parameters.data + at, n, m->stream);
        backend->upload((char *)m->parameters.data + at, copy, n, m->stream);
    }
    backend->synchronize(m->stream);
    free(copy);
}

uint32_t model_parameters_crc(Model *m) {
    enum { PIECE = 1 << 22 };
    const size_t bytes = tensor_bytes(m->parameters);
    const char *from = (const char *)m->parameters.data;
    uint32_t crc = 0;
    char *copy = (char *)xmalloc(PIECE);
    ranks_need_all(m);
    ranks_synchronize(m, "parameters");
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        m->backend->download(copy, from + at, n, m->stream);
        crc = crc32_update(crc, copy, n);
    }
    free(copy);
    return crc;
}

static void forget_arrays(Snapshot *s) {
    if (s->owned) {
        free(s->weights);
        free(s->m);
        free(s->v);
    }
    s->weights = s->m = s->v = NULL;
}

/* *array becomes the flat buffer, whole, on rank 0; every rank sends its shares. */
static void copy_out(Model *m, Tensor flat, float **array) {
    Tensor whole = ranks_whole(m, flat);
    ranks_synchronize(m, "a checkpoint's data");
    if (m->spec.rank != 0) return;
    if (!*array) *array = (float *)xmalloc(whole_bytes(m));
    m->backend->download(*array, whole.data, whole_bytes(m), m->stream);
}

void model_snapshot(Model *m, Snapshot *s, bool moments, bool copy) {
    Tensor flats[3] = {m->masters, moments ? m->m : no_tensor(), moments ? m->v : no_tensor()};
    float **arrays[3] = {&s->weights, &s->m, &s->v};
    CHECK(m->masters.data);
    bool own = copy || !m->backend->host_memory;
    for (int i = 0; i < 3; i++) own = own || (flats[i].data && !is_whole(m, flats[i]));
    if (!own || !s->owned || (s->m != NULL) != (flats[1].data != NULL)) forget_arrays(s);
    s->owned = own;
    s->config = &m->config;
    s->table = &m->table;
    s->updates = model_updates(m);
    free(s->algorithms);
    s->algorithms = xstrdup(m->backend->algorithms());
    ranks_need_all(m);
    for (int i = 0; i < 3; i++) {
        if (!flats[i].data) continue;
        if (own) copy_out(m, flats[i], arrays[i]);
        else if (m->spec.rank == 0) *arrays[i] = (float *)flats[i].data;
    }
}

void snapshot_release(Snapshot *s) {
    forget_arrays(s);
    free(s->algorithms);
    memset(s, 0, sizeof *s);
}

size_t snapshot_bytes(const ModelSpec *spec) {
    ParameterTable table;
    model_table(&table, spec);
    size_t arrays = spec->mode == MODEL_TRAIN && spec->optimizer == OPTIMIZER_ADAMW ? 3 : 1, bytes = arrays * (size_t)table.elements * sizeof(float);
    parameters_release(&table);
    return bytes;
}
