/* model_ranks.c: see model_ranks.h. */
#include "model_ranks.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

/* Pieces of buckets are multiples of so many elements: their copies in bf16 begin at multiples of 256 bytes too. */
enum { PIECE_ALIGNMENT = 128 };

static int64_t ranks_of(const ModelSpec *spec) { return spec->ranks > 0 ? spec->ranks : 1; }

void model_table(ParameterTable *table, const ModelSpec *spec) {
    if (spec->zero) parameters_describe_padded(table, &spec->config, ranks_of(spec) * PIECE_ALIGNMENT);
    else parameters_describe(table, &spec->config);
}

/* ---- shares ------------------------------------------------------------------------------------------------------------------ */

/* Appends a share with its part of the table's boundaries: from the last decayed piece that begins at or before it, clamped, so that even pieces
   stay the decayed ones. */
static void add_share(struct Ranks *r, const ParameterTable *table, int bucket, int64_t offset, int64_t count, int64_t kept) {
    const int64_t *bound = table->segments, end = offset + count;
    int p = 0;
    while (p + 2 < table->segment_count && bound[p + 2] <= offset) p += 2;
    Share *share = &r->shares[r->share_count++];
    *share = (Share){bucket, offset, count, kept, r->segment_count, 0};
    for (bool inside = true; inside; p++) {
        int64_t at = bound[p] < offset ? offset : bound[p] > end ? end : bound[p];
        r->segments[r->segment_count++] = at - offset;
        inside = bound[p] < end;
    }
    share->segments = r->segment_count - share->first_segment;
}

static void add_share_of_bucket(struct Ranks *r, const ParameterTable *table, const ModelSpec *spec, int b) {
    if (b < 0) return;
    int64_t ranks = ranks_of(spec), piece = table->buckets[b].count / ranks;
    add_share(r, table, b, table->buckets[b].offset + spec->rank * piece, piece, table->buckets[b].offset / ranks);
}

void ranks_open(Model *m) {
    const ParameterTable *table = &m->table;
    const ModelSpec *spec = &m->spec;
    struct Ranks *r = m->together = (struct Ranks *)xcalloc(1, sizeof *r);
    CHECK(spec->rank >= 0 && spec->rank < ranks_of(spec));
    r->shares = (Share *)xcalloc((size_t)table->bucket_count, sizeof *r->shares);
    r->gathered = (Ticket *)xcalloc((size_t)table->bucket_count, sizeof *r->gathered);
    r->segments = (int64_t *)xcalloc((size_t)(table->segment_count + 4 * table->bucket_count), sizeof *r->segments);
    if (!spec->zero) {
        add_share(r, table, -1, 0, table->elements, 0);
        return;
    }
    add_share_of_bucket(r, table, spec, BUCKET_EMBEDDING);
    for (int l = 0; l < (int)m->config.L; l++) add_share_of_bucket(r, table, spec, table->bucket_of_layer + l);
    add_share_of_bucket(r, table, spec, table->bucket_of_norm);
    add_share_of_bucket(r, table, spec, table->bucket_of_head);
}

void ranks_close(Model *m) {
    struct Ranks *r = m->together;
    if (r->reached) m->backend->event_close(r->reached);
    free(r->shares);
    free(r->gathered);
    free(r->segments);
    free(r);
}

void model_join(Model *m, Comm *comm) {
    CHECK(comm_rank(comm) == m->spec.rank && comm_ranks(comm) == ranks_of(&m->spec) && !m->comm);
    if (!comm) return;
    m->comm = comm;
    m->together->reached = m->backend->event_open();
}

static Tensor part(Tensor flat, int64_t offset, int64_t count) {
    if (!flat.data) return no_tensor();
    return tensor((char *)flat.data + (size_t)offset * dtype_size(flat.dtype), flat.dtype, 1, count, 0, 0, 0);
}

bool is_whole(const Model *m, Tensor flat) { return tensor_numel(flat) == m->table.elements; }

Tensor share_of(const Model *m, Tensor flat, const Share *share) { return part(flat, is_whole(m, flat) ? share->offset : share->kept, share->count); }

Tensor share_segments(const Model *m, const Share *share) { return part(m->segments, share->first_segment, share->segments); }

static Tensor bucket_of(const Model *m, Tensor flat, int bucket) {
    return part(flat, m->table.buckets[bucket].offset, m->table.buckets[bucket].count);
}

/* ---- parameters on their way ------------------------------------------------------------------------------------------------- */

void ranks_gather(const Model *m, int bucket) {
    m->together->gathered[bucket] = comm_all_gather(m->comm, bucket_of(m, m->parameters, bucket), m->stream);
}

void ranks_need(const Model *m, int bucket) {
    if (!m->comm || bucket < 0) return;
    Ticket *gathered = &m->together->gathered[bucket];
    if (*gathered) comm_wait(m->comm, *gathered, m->stream);
    *gathered = 0;
}

void ranks_need_all(const Model *m) {
    for (int b = 0; b < m->table.bucket_count; b++) ranks_need(m, b);
}

bool ranks_gathering(const Model *m) {
    for (int b = 0; b < m->table.bucket_count; b++)
        if (m->together->gathered[b]) return true;
    return false;
}

/* ---- gradients --------------------------------------------------------------------------------------------------------------- */

void ranks_give_totals(const Model *m) {
    if (m->together->exchanging) m->together->given = comm_all_reduce(m->comm, m->a.totals, m->stream);
}

void ranks_give(const Model *m, int bucket) {
    if (!m->together->exchanging || bucket < 0) return;
    Tensor gradients = bucket_of(m, m->gradients, bucket);
    m->together->given = m->spec.zero ? comm_reduce_scatter(m->comm, gradients, m->stream) : comm_all_reduce(m->comm, gradients, m->stream);
}

/* Collectives run in order: behind the last all are over. */
void ranks_await_given(const Model *m) {
    if (m->together->given) comm_wait(m->comm, m->together->given, m->stream);
    m->together->given = 0;
}

void ranks_sum(const Model *m, Tensor x) { comm_wait(m->comm, comm_all_reduce(m->comm, x, m->stream), m->stream); }

Tensor ranks_whole(const Model *m, Tensor flat) {
    const struct Ranks *r = m->together;
    const Dropout none = {0};
    Ticket last = 0;
    if (!flat.data || is_whole(m, flat)) return flat;
    for (int i = 0; i < r->share_count; i++) {
        const Share *share = &r->shares[i];
        m->backend->op.dropout(share_of(m, m->gradients, share), share_of(m, flat, share), none, m->stream);   /* with nothing to drop, a copy */
        last = comm_all_gather(m->comm, bucket_of(m, m->gradients, share->bucket), m->stream);
    }
    comm_wait(m->comm, last, m->stream);
    return m->gradients;
}

/* ---- the host waits ---------------------------------------------------------------------------------------------------------- */

void ranks_wait_event(const Model *m, Event *event, const char *what) {
    const bool watched = m->comm && !m->backend->event_over(event);
    if (watched) team_wait_begin(comm_team(m->comm), what);
    m->backend->event_wait(event);
    if (watched) team_wait_end(comm_team(m->comm));
}

void ranks_synchronize(const Model *m, const char *what) {
    if (!m->comm) {
        m->backend->synchronize(m->stream);
        return;
    }
    m->backend->event_record(m->together->reached, m->stream);
    ranks_wait_event(m, m->together->reached, what);
}
