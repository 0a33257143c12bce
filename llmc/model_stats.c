/* model_stats.c: see model_stats.h. Sums of squares in double of every tensor, each into a place of its own on the device; then one download. */
#include "model_stats.h"

#include "error.h"
#include "json.h"
#include "kernels/global_norm.h"
#include "model_ranks.h"

#include <math.h>
#include <stdlib.h>

struct ModelStats {
    Model *model;
    Tensor sums;       /* on the device: of each of table.count weights, of their gradients, then of each activation */
    double *values;    /* the same places: sums, then what is made of them; NaN where there is nothing to measure */
    int count;
};

static const char *const parameter_names[PARAMETER_KINDS] = {
#define NAME(field, ...) #field,
    PARAMETER_LIST(NAME, NAME)
#undef NAME
};

/* ---- what is measured ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    const Tensor *tensors;
    int64_t count;
} Row;
enum { ROWS = 10 };

/* Those that the model has and keeps: where layers share one tensor, it holds what was made last. */
static int activation_rows(const Model *m, Row kept[ROWS]) {
    const Activations *a = &m->a;
    const int64_t L = m->config.L;
    const Row rows[ROWS] = {{"embedded", &a->embedded, 1}, {"ln1", a->ln1, L}, {"qkv", a->qkv, L}, {"att", a->att, L}, {"mid", a->mid, L},
                            {"ln2", a->ln2, L}, {"fc", a->fc, L}, {"fc_act", a->fc_act, L}, {"out", a->out, L}, {"lnf", &a->lnf, 1}};
    int n = 0;
    for (int i = 0; i < ROWS; i++) {
        const Tensor *t = rows[i].tensors;
        const bool shared = rows[i].count > 1 && t[0].data == t[1].data;
        if (t[0].data && !shared) kept[n++] = rows[i];
    }
    return n;
}

/* Post-norm has memory for a norm before its first block, and no such norm. */
static bool is_written(const Model *m, Tensor activation) {
    return m->config.norm_place == NORM_PRE || activation.data != m->a.ln1[0].data;
}

static int measured_tensors(const Model *m) {
    Row rows[ROWS];
    int n = 2 * m->table.count, kept = activation_rows(m, rows);
    for (int i = 0; i < kept; i++) n += (int)rows[i].count;
    return n;
}

ModelStats *model_stats_create(Model *m) {
    CHECK(m->spec.mode == MODEL_TRAIN);
    ModelStats *stats = (ModelStats *)xcalloc(1, sizeof *stats);
    stats->model = m;
    stats->count = measured_tensors(m);
    stats->values = (double *)xcalloc((size_t)stats->count, sizeof *stats->values);
    stats->sums = tensor(m->backend->alloc((size_t)stats->count * sizeof *stats->values), F64, 1, stats->count, 0, 0, 0);
    return stats;
}

void model_stats_free(ModelStats *stats) {
    if (!stats) return;
    stats->model->backend->release(stats->sums.data);
    free(stats->values);
    free(stats);
}

/* ---- measuring -------------------------------------------------------------------------------------------------------------- */

/* The elements of a parameter that this rank has the last word on, in a flat fp32 buffer: all of them, or with ZeRO those in its piece of the
   bucket, which may be none. */
static Tensor own_part(const Model *m, Tensor flat, const ParameterInfo *p) {
    for (int i = 0; i < m->together->share_count; i++) {
        const Share *share = &m->together->shares[i];
        const int64_t begin = p->offset > share->offset ? p->offset : share->offset;
        const int64_t share_end = share->offset + share->count, p_end = p->offset + p->count, end = p_end < share_end ? p_end : share_end;
        if (begin < end) return tensor((float *)share_of(m, flat, share).data + (begin - share->offset), F32, 1, end - begin, 0, 0, 0);
    }
    return tensor(flat.data, F32, 1, 0, 0, 0, 0);
}

static void sum_into(const ModelStats *stats, int place, Tensor x) {
    const Model *m = stats->model;
    m->backend->op.sum_of_squares(tensor((double *)stats->sums.data + place, F64, 1, 1, 0, 0, 0), x, false, m->stream);
}

static void start_sums(const ModelStats *stats) {
    const Model *m = stats->model;
    const int n = m->table.count;
    Row rows[ROWS];
    int place = 2 * n, kept = activation_rows(m, rows);
    for (int i = 0; i < n; i++) {
        sum_into(stats, i, own_part(m, m->masters, &m->table.info[i]));
        sum_into(stats, n + i, own_part(m, m->gradients, &m->table.info[i]));
    }
    for (int r = 0; r < kept; r++)
        for (int64_t l = 0; l < rows[r].count; l++) sum_into(stats, place++, rows[r].tensors[l]);
}

/* Parts of parameters where ranks have parts; activations always, as every rank has rows of its own. */
static void sum_over_ranks(const ModelStats *stats) {
    const Model *m = stats->model;
    const int whole = m->spec.zero ? 0 : 2 * m->table.count;
    if (m->comm) team_sum(comm_team(m->comm), stats->values + whole, stats->count - whole, "norms for --stats");
}

/* Of the stored gradient to that of the mean, as global_norm has it. */
static double gradient_factor(const Model *m) {
    float totals[TOTALS];
    m->backend->download(totals, m->a.totals.data, sizeof totals, m->stream);
    return mean_factor(m->state.targets, totals[TOTAL_VALID]);
}

/* Sums of squares become norms and root mean squares. */
static void finish_values(const ModelStats *stats) {
    const Model *m = stats->model;
    const int n = m->table.count;
    const double factor = gradient_factor(m), ranks = m->comm ? comm_ranks(m->comm) : 1;
    double *v = stats->values;
    Row rows[ROWS];
    int place = 2 * n, kept = activation_rows(m, rows);
    for (int i = 0; i < n; i++) {
        v[i] = sqrt(v[i]);
        v[n + i] = sqrt(v[n + i]) * factor;
    }
    for (int r = 0; r < kept; r++)
        for (int64_t l = 0; l < rows[r].count; l++, place++) {
            const Tensor t = rows[r].tensors[l];
            v[place] = is_written(m, t) ? sqrt(v[place] / (ranks * (double)tensor_numel(t))) : (double)NAN;
        }
}

void model_stats_measure(ModelStats *stats) {
    const Model *m = stats->model;
    ranks_need_all(m);   /* with ZeRO and fp32, masters are parameters, on their way to the others */
    start_sums(stats);
    ranks_synchronize(m, "norms for --stats");
    m->backend->download(stats->values, stats->sums.data, tensor_bytes(stats->sums), m->stream);
    sum_over_ranks(stats);
    finish_values(stats);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

static void write_number(FILE *f, double value, bool first) {
    if (!first) fprintf(f, ", ");
    json_write_float(f, (float)value);
}

/* "name": [numbers of the layers], ... of each kind of parameter that there is */
static void write_parameters(FILE *f, const ParameterTable *table, const double *values) {
    bool first_kind = true;
    for (int kind = 0; kind < PARAMETER_KINDS; kind++) {
        bool first = true;
        for (int i = 0; i < table->count; i++) {
            if ((int)table->info[i].kind != kind) continue;
            if (first) fprintf(f, "%s\"%s\": [", first_kind ? "" : ", ", parameter_names[kind]);
            write_number(f, values[i], first);
            first = first_kind = false;
        }
        if (!first) fprintf(f, "]");
    }
}

static void write_activations(FILE *f, const Model *m, const double *values) {
    Row rows[ROWS];
    int kept = activation_rows(m, rows);
    for (int r = 0; r < kept; r++) {
        fprintf(f, "%s\"%s\": [", r > 0 ? ", " : "", rows[r].name);
        for (int64_t l = 0; l < rows[r].count; l++) write_number(f, *values++, l == 0);
        fprintf(f, "]");
    }
}

void model_stats_write(FILE *f, const ModelStats *stats) {
    const ParameterTable *table = &stats->model->table;
    fprintf(f, "{\"weights\": {");
    write_parameters(f, table, stats->values);
    fprintf(f, "}, \"gradients\": {");
    write_parameters(f, table, stats->values + table->count);
    fprintf(f, "}, \"activations\": {");
    write_activations(f, stats->model, stats->values + 2 * table->count);
    fprintf(f, "}}");
}
