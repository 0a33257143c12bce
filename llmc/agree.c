/* agree.c: see agree.h. */
#include "agree.h"

#include "error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void agree_on_options(Team *team, const Options *options) {
    char *text = NULL;
    size_t length = 0;
    FILE *f = open_memstream(&text, &length);
    if (!f) die("out of memory");
    for (int i = 0; i < train_options.count; i++) {
        const OptionRow *row = &train_options.rows[i];
        if (row->kind == OPTION_SECTION) continue;
        char *value = options_format(row, options);
        fprintf(f, "%s = %s\n", row->name, value);
        free(value);
    }
    fclose(f);
    team_expect_same(team, text, "options");
    free(text);
}

void agree_on_parameters(Model *m, int64_t step) {
    Team *team = comm_team(m->comm);
    int ranks = team_ranks(team);
    if (ranks == 1) return;
    uint32_t mine = model_parameters_crc(m), *all = (uint32_t *)xmalloc((size_t)ranks * sizeof *all);
    team_gather(team, &mine, sizeof mine, all, "the comparison of parameters");
    int differs = 0;
    while (differs < ranks && all[differs] == all[0]) differs++;
    if (differs == team_rank(team))
        die("after step %lld its parameters have the checksum %08x, those of rank 0 %08x; go on from a checkpoint with --resume auto, and look at this "
            "machine's memory and links", (long long)step, (unsigned)mine, (unsigned)all[0]);
    if (differs < ranks) team_barrier(team, "the end");
    free(all);
}

/* printf gives a NaN the sign that it happens to have. */
static double without_sign(double x) { return isnan(x) ? (double)NAN : x; }

void agree_on_bad_numbers(Team *team, int64_t step, const StepOutcome *outcome) {
    int ranks = team_ranks(team), culprit = 0;
    double *losses = (double *)xmalloc((size_t)ranks * sizeof *losses);
    team_gather(team, &outcome->own_loss, sizeof *losses, losses, "the search for what is not finite");
    while (culprit < ranks && isfinite(losses[culprit])) culprit++;
    bool known = culprit < ranks;
    free(losses);
    if (team_rank(team) == (known ? culprit : 0))
        die("step %lld: the loss is %f and the gradient norm %f%s; no parameter was changed in it; --check-numerics names the op that made it",
            (long long)step, without_sign(outcome->loss), without_sign(outcome->grad_norm),
            ranks == 1 ? "" : known ? ", and so is the loss of this rank's own rows" : ", and it is not known of which rank");
    team_barrier(team, "the end");
    die("the run should have ended with rank %d", known ? culprit : 0);
}
