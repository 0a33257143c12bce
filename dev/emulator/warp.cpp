/* warp.cpp: what threads do together: barriers, and the meetings of a warp's lanes. */
#include "engine.h"

namespace emu {

const char *op_name(Op op) {
    static const char *const names[] = {
        "__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count", "__syncwarp", "__shfl_sync", "__shfl_up_sync",
        "__shfl_down_sync", "__shfl_xor_sync", "__ballot_sync", "__any_sync", "__all_sync", "__reduce_add_sync", "__reduce_max_sync",
        "__reduce_or_sync", "ldmatrix", "mma",
    };
    return names[op];
}
static bool same_place(const Fiber &f, Op op, Site site) {
    return f.op == op && f.site.line == site.line && !strcmp(f.site.file, site.file);
}

/* ---- the block's barrier ------------------------------------------------------------------------------------------------------------- */

static void release(Fiber &f, int result) {
    if (f.state != AT_BARRIER) return;
    f.predicate = result;
    if (&f == thread) f.state = READY;   /* it runs already */
    else make_ready(&f);
}
void release_barrier() {
    RunningBlock *b = running();
    const Fiber *first = nullptr;
    int count = 0;
    for (const Fiber &f : b->fibers) {
        if (f.state != AT_BARRIER) continue;
        if (!first) first = &f;
        if (!same_place(f, first->op, first->site)) fail("divergent __syncthreads: threads of one block wait at different barriers");
        count += f.predicate != 0;
    }
    const int result = first->op == SYNCTHREADS_OR ? count > 0 : first->op == SYNCTHREADS_AND ? count == b->arrived : count;
    b->arrived = 0;
    b->epoch++;
    if (config.order == REVERSE)
        for (size_t i = b->fibers.size(); i-- > 0;) release(b->fibers[i], result);
    else
        for (Fiber &f : b->fibers) release(f, result);
}
int block_barrier(Op op, int predicate, Site site) {
    Fiber *self = fiber();
    RunningBlock *b = running();
    self->state = AT_BARRIER;
    self->op = op;
    self->predicate = predicate;
    self->site = site;
    if (b->live != b->threads && !config.lax) fail("divergent __syncthreads: threads of the block returned without reaching it");
    if (++b->arrived == b->live) release_barrier();
    else wait();
    return self->predicate;
}

/* ---- meetings of lanes --------------------------------------------------------------------------------------------------------------- */

/* True once every lane of the mask waits with that same mask. */
static bool all_there(const Warp &w, const Fiber *lanes, unsigned mask) {
    if ((w.waiting & mask) != mask) return false;
    for (unsigned m = mask; m; m &= m - 1)
        if (lanes[__builtin_ctz(m)].mask != mask) return false;
    return true;
}
/* Returns when all lanes of the mask have come and compute(lanes, mask), run by the last of them, is done. */
template <class F> static void meet(unsigned mask, Op op, void *operands, Site site, F compute) {
    Fiber *self = fiber();
    RunningBlock *b = running();
    Warp &w = b->warps[self->warp];
    Fiber *lanes = &b->fibers[self->warp * 32];
    self->state = AT_WARP;
    self->op = op;
    self->mask = mask;
    self->operands = operands;
    self->site = site;
    if (!(mask >> self->lane & 1)) fail("warp operation: the calling lane is not in its own mask");
    if (mask & ~w.alive) {
        if (!config.lax) fail("warp operation: the mask names lanes that have returned or do not exist");
        mask &= w.alive;
        self->mask = mask;
    }
    w.waiting |= 1u << self->lane;
    if (!all_there(w, lanes, mask)) {
        wait();
        return;
    }
    for (unsigned m = mask; m; m &= m - 1)
        if (!same_place(lanes[__builtin_ctz(m)], op, site)) fail("warp divergence: lanes of one mask wait at different warp operations");
    compute(lanes, mask);
    w.waiting &= ~mask;
    self->state = READY;
    for (unsigned m = mask; m; m &= m - 1) {
        Fiber &f = lanes[__builtin_ctz(m)];
        f.warp_epoch += op == SYNCWARP;
        if (&f != self) make_ready(&f);
    }
}

void warp_barrier(unsigned mask, Site site) {
    meet(mask, SYNCWARP, nullptr, site, [](Fiber *, unsigned) {});
}

struct ShuffleOperands {
    const void *in;
    void *out;
    int source;
};
void shuffle(Op op, unsigned mask, const void *in, void *out, size_t size, int source, Site site) {
    ShuffleOperands mine = {in, out, source};
    meet(mask, op, &mine, site, [size](Fiber *lanes, unsigned all) {
        for (unsigned m = all; m; m &= m - 1) {
            const auto *to = static_cast<ShuffleOperands *>(lanes[__builtin_ctz(m)].operands);
            if (to->source < 0) continue;
            if (!(all >> to->source & 1)) fail("a shuffle reads from a lane that is not in the mask");
            memcpy(to->out, static_cast<ShuffleOperands *>(lanes[to->source].operands)->in, size);
        }
    });
}

static unsigned combined(Op op, unsigned so_far, unsigned value, int lane) {
    switch (op) {
    case BALLOT: return so_far | value << lane;
    case ALL: return so_far & value;
    case REDUCE_ADD: return so_far + value;
    case REDUCE_MAX: return so_far > value ? so_far : value;
    default: return so_far | value;
    }
}
unsigned combine(Op op, unsigned mask, unsigned value, Site site) {
    unsigned mine = value;
    meet(mask, op, &mine, site, [op](Fiber *lanes, unsigned all) {
        unsigned result = op == ALL;
        auto value_of = [lanes](int lane) -> unsigned & { return *static_cast<unsigned *>(lanes[lane].operands); };
        for (unsigned m = all; m; m &= m - 1) result = combined(op, result, value_of(__builtin_ctz(m)), __builtin_ctz(m));
        for (unsigned m = all; m; m &= m - 1) value_of(__builtin_ctz(m)) = result;
    });
    return mine;
}

/* ---- tensor cores: the layouts are those in cu.h ------------------------------------------------------------------------------------- */

struct LdmatrixOperands {
    const void *row;
    uint32_t *r;
};
void ldmatrix(uint32_t (&r)[4], const void *row, bool transposed, Site site) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix: the address of a row is not 16-byte aligned");
    note_access(row, 16, READ);
    LdmatrixOperands mine = {row, r};
    meet(0xffffffffu, LDMATRIX, &mine, site, [transposed](Fiber *lanes, unsigned) {
        for (int i = 0; i < 4; i++) {
            uint16_t matrix[8][8];
            for (int j = 0; j < 8; j++) memcpy(matrix[j], static_cast<LdmatrixOperands *>(lanes[8 * i + j].operands)->row, 16);
            for (int lane = 0; lane < 32; lane++) {
                const int g = lane / 4, t = lane % 4 * 2;
                const uint32_t low = transposed ? matrix[t][g] : matrix[g][t], high = transposed ? matrix[t + 1][g] : matrix[g][t + 1];
                static_cast<LdmatrixOperands *>(lanes[lane].operands)->r[i] = low | high << 16;
            }
        }
    });
}

struct MmaOperands {
    float *d;
    const uint32_t *a, *b;
    const float *c;
};
static float low_bf16(uint32_t pair) { return bits_as<float>(pair << 16); }
static float high_bf16(uint32_t pair) { return bits_as<float>(pair & 0xffff0000u); }
/* The matrices of a warp's product, gathered from its lanes. */
struct MmaMatrices {
    typedef float Row __attribute__((vector_size(32)));
    float a[16][16];
    Row b[16], c[16];

    void set_pair(float *row, int column, uint32_t pair) {
        row[column] = low_bf16(pair);
        row[column + 1] = high_bf16(pair);
    }
    void gather(const MmaOperands &m, int g, int t) {
        for (int i = 0; i < 4; i++) set_pair(a[g + i % 2 * 8], t + i / 2 * 8, m.a[i]);
        for (int i = 0; i < 2; i++) {
            b[t + 8 * i][g] = low_bf16(m.b[i]);
            b[t + 8 * i + 1][g] = high_bf16(m.b[i]);
        }
        for (int i = 0; i < 4; i++) c[g + i / 2 * 8][t + i % 2] = m.c[i];
    }
    void multiply() {
        for (int i = 0; i < 16; i++)
            for (int k = 0; k < 16; k++) c[i] += a[i][k] * b[k];
    }
    void scatter(const MmaOperands &m, int g, int t) const {
        for (int i = 0; i < 4; i++) m.d[i] = c[g + i / 2 * 8][t + i % 2];
    }
};

}   // namespace emu

using namespace emu;

void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], Site site) {
    MmaOperands mine = {d, a, b, c};
    meet(0xffffffffu, MMA, &mine, site, [](Fiber *lanes, unsigned) {
        MmaMatrices matrices;
        for (int lane = 0; lane < 32; lane++) matrices.gather(*static_cast<MmaOperands *>(lanes[lane].operands), lane / 4, lane % 4 * 2);
        matrices.multiply();
        for (int lane = 0; lane < 32; lane++) matrices.scatter(*static_cast<MmaOperands *>(lanes[lane].operands), lane / 4, lane % 4 * 2);
    });
}

/* ---- asynchronous copies ------------------------------------------------------------------------------------------------------------- */

void cp_async16(void *shared, const void *global) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16)
        fail("cp.async: an address is not 16-byte aligned");
    note_access(global, 16, READ);
    note_access(shared, 16, WRITE);
    AsyncCopy copy = {shared, {}, fiber()->copy_group};
    memcpy(copy.bytes, global, 16);
    memset(shared, 0xff, 16);
    fiber()->copies.push_back(copy);
}
void cp_async_commit() { fiber()->copy_group++; }
void emu::cp_async_wait(int groups) {
    Fiber *self = fiber();
    size_t kept = 0;
    for (const AsyncCopy &copy : self->copies) {
        if (copy.group >= self->copy_group - groups) {
            self->copies[kept++] = copy;
            continue;
        }
        note_access(copy.to, 16, WRITE);
        memcpy(copy.to, copy.bytes, 16);
    }
    self->copies.resize(kept);
}
