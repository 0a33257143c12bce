/* sdpa.cu: causal attention by cuDNN 9, through its C backend interface and without its headers. An operation graph spells attention out
   as matrix products, pointwise operations and reductions; cuDNN recognises the pattern and answers with one fused kernel (Dao 2023). */
#include "cu.h"
#include "cudnn.cuh"
#include "sdpa.cuh"

#include <array>
#include <dlfcn.h>
#include <map>
#include <math.h>
#include <stdio.h>
#include <string>
#include <vector>

/* ---- the library ---------------------------------------------------------------------------------------------------------------- */

typedef cudnnBackendDescriptor_t Descriptor;

/* 9.6 is the first that clears the accumulator of dq itself; 9.10.0 and 9.10.1 are known to give wrong results, and up to
   LAST_TO_MISS_TAILS the backward does so when the last tile of 128 keys is not full (all three by NVIDIA's cudnn-frontend). */
enum { OLDEST = 90600, FAULTY_FROM = 91000, FAULTY_TO = 91001, LAST_TO_MISS_TAILS = 91500 };

static struct {
#define X(result, name, arguments) result (*name) arguments;
    CUDNN_FUNCTIONS(X)
#undef X
    size_t version;
    char name[64];         /* empty: cannot be used */
    std::string refusal;   /* why not; or why the last plan asked for cannot be had */
} cudnn;

static std::string library_load() {
    void *file = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!file) return std::string("cuDNN 9 is not to be found (") + dlerror() + "); install it, or add its folder to LD_LIBRARY_PATH";
#define X(result, name, arguments)                                                                                                    \
    cudnn.name = reinterpret_cast<result (*) arguments>(dlsym(file, "cudnn" #name));                                                  \
    if (!cudnn.name) return "libcudnn.so.9 lacks cudnn" #name "; install cuDNN 9.6 or later";
    CUDNN_FUNCTIONS(X)
#undef X
    cudnn.version = cudnn.GetVersion();
    char name[sizeof cudnn.name];
    snprintf(name, sizeof name, "cuDNN %zu.%zu", cudnn.version / 10000, cudnn.version / 100 % 100);
    if (cudnn.version < OLDEST) return std::string(name) + " is too old; install 9.6 or later";
    if (cudnn.version >= FAULTY_FROM && cudnn.version <= FAULTY_TO) return std::string(name) + " is faulty before 9.10.2; install that or a later one";
    snprintf(cudnn.name, sizeof cudnn.name, "%s", name);
    return "";
}

const char *sdpa_library(void) {
    static bool tried = false;
    if (!tried) cudnn.refusal = library_load();
    tried = true;
    return cudnn.name[0] ? cudnn.name : NULL;
}

const char *sdpa_refusal(void) { return cudnn.refusal.c_str(); }

/* What cuDNN says about its last failure, in one line: the cause comes first, and then who called whom. */
static std::string last_error() {
    char text[300] = "";
    cudnn.GetLastErrorString(text, sizeof text);
    for (char *c = text; *c; c++)
        if (*c == '\n') *c = ' ';
    return text;
}

/* ---- making a plan -------------------------------------------------------------------------------------------------------------- */

/* A plan in the making: its shapes, the operations so far, and the first thing that cuDNN refused, after which the other steps do nothing.
   Its descriptors are never destroyed: the plan refers to them, and is kept. */
struct Draft {
    int64_t B, T, NH, NKV, HS;
    std::vector<Descriptor> operations;
    std::string refusal;
    int64_t temporaries;
};

static void accept(Draft &d, const char *what, cudnnStatus_t status) {
    if (status != CUDNN_STATUS_SUCCESS && d.refusal.empty()) d.refusal = std::string(what) + ": " + last_error();
}
static Descriptor describe(Draft &d, cudnnBackendDescriptorType_t type) {
    Descriptor descriptor = NULL;
    if (d.refusal.empty()) accept(d, "a new descriptor", cudnn.BackendCreateDescriptor(type, &descriptor));
    return descriptor;
}
static void set(Draft &d, Descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                const void *elements) {
    if (d.refusal.empty()) accept(d, "an attribute", cudnn.BackendSetAttribute(descriptor, name, type, count, elements));
}
static void set_integer(Draft &d, Descriptor descriptor, cudnnBackendAttributeName_t name, int64_t value) {
    set(d, descriptor, name, CUDNN_TYPE_INT64, 1, &value);
}
static void set_choice(Draft &d, Descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int value) {
    set(d, descriptor, name, type, 1, &value);
}
static void set_descriptor(Draft &d, Descriptor descriptor, cudnnBackendAttributeName_t name, Descriptor value) {
    set(d, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}
static void get(Draft &d, Descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t most,
                int64_t *count, void *elements) {
    if (d.refusal.empty()) accept(d, "a property", cudnn.BackendGetAttribute(descriptor, name, type, most, count, elements));
}
static void finalize(Draft &d, Descriptor descriptor, const char *what) {
    if (d.refusal.empty()) accept(d, what, cudnn.BackendFinalize(descriptor));
}

/* ---- tensors of the graph ------------------------------------------------------------------------------------------------------- */

/* What the caller binds memory to when the plan is run; from FIRST_TEMPORARY on, what lives within the kernel only. */
enum { Q = 1, K, V, OUT, LSE, DOUT, DQ, DK, DV, DELTA, DQ_SUM, SCALE, MINUS_INFINITY, ONE, FIRST_TEMPORARY = 100 };

struct Node {
    Descriptor descriptor;
};

typedef std::array<int64_t, 4> Four;

static Node node(Draft &d, int64_t id, int dtype, Four shape, Four strides) {
    const bool temporary = id >= FIRST_TEMPORARY, by_value = id == SCALE || id == MINUS_INFINITY || id == ONE;
    Node n = {describe(d, CUDNN_BACKEND_TENSOR_DESCRIPTOR)};
    set_integer(d, n.descriptor, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set_choice(d, n.descriptor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, dtype);
    set_integer(d, n.descriptor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, by_value ? 4 : 16);
    set(d, n.descriptor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, shape.data());
    set(d, n.descriptor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.data());
    set(d, n.descriptor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &temporary);
    set(d, n.descriptor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    finalize(d, n.descriptor, "a tensor");
    return n;
}

/* (B,heads,T,HS) in a tensor (B,T,width): Q, K or V in the packed qkv, or the heads of out. */
static Node heads(Draft &d, int64_t id, int64_t count, int64_t width) {
    return node(d, id, CUDNN_DATA_BFLOAT16, {d.B, count, d.T, d.HS}, {d.T * width, d.HS, width, 1});
}
/* The same as (B,heads,HS,T). */
static Node heads_transposed(Draft &d, int64_t id, int64_t count, int64_t width) {
    return node(d, id, CUDNN_DATA_BFLOAT16, {d.B, count, d.HS, d.T}, {d.T * width, d.HS, 1, width});
}
/* (B,NH,rows,columns), dense. */
static Node dense(Draft &d, int64_t id, int dtype, int64_t rows, int64_t columns) {
    return node(d, id, dtype, {d.B, d.NH, rows, columns}, {d.NH * rows * columns, rows * columns, columns, 1});
}
static Node number(Draft &d, int64_t id) { return node(d, id, CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1}); }

static int64_t fresh(Draft &d) { return FIRST_TEMPORARY + d.temporaries++; }
/* Temporaries (B,NH,T,T), (B,NH,T,1) and (B,NH,T,HS). */
static Node scores(Draft &d, int dtype = CUDNN_DATA_FLOAT) { return dense(d, fresh(d), dtype, d.T, d.T); }
static Node scores_transposed(Draft &d) {
    return node(d, fresh(d), CUDNN_DATA_BFLOAT16, {d.B, d.NH, d.T, d.T}, {d.NH * d.T * d.T, d.T * d.T, 1, d.T});
}
static Node row_numbers(Draft &d) { return dense(d, fresh(d), CUDNN_DATA_FLOAT, d.T, 1); }
static Node vectors(Draft &d, int dtype) { return dense(d, fresh(d), dtype, d.T, d.HS); }

/* ---- operations: each writes its second argument, and returns it ----------------------------------------------------------------- */

static Node operation(Draft &d, Descriptor o, Node result) {
    finalize(d, o, "an operation");
    d.operations.push_back(o);
    return result;
}

/* c = a b, summed in fp32 */
static Node matmul(Draft &d, Node c, Node a, Node b) {
    Descriptor kind = describe(d, CUDNN_BACKEND_MATMUL_DESCRIPTOR), o = describe(d, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_choice(d, kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    finalize(d, kind, "a matrix product");
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
    return operation(d, o, c);
}

/* y = mode(x), mode(x, b) or mode(x, b, t), element by element; b and t may be broadcast */
static Node pointwise(Draft &d, Node y, int mode, Node x, Node b = {NULL}, Node t = {NULL}, int axis = -1) {
    Descriptor kind = describe(d, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), o = describe(d, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_choice(d, kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
    set_choice(d, kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE,
               mode == CUDNN_POINTWISE_CMP_GE      ? CUDNN_DATA_BOOLEAN
               : mode == CUDNN_POINTWISE_GEN_INDEX ? CUDNN_DATA_INT32
                                                   : CUDNN_DATA_FLOAT);
    if (axis >= 0) set_integer(d, kind, CUDNN_ATTR_POINTWISE_AXIS, axis);
    finalize(d, kind, "a pointwise function");
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor);
    if (b.descriptor) set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b.descriptor);
    if (t.descriptor) set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor);
    return operation(d, o, y);
}

/* y = x reduced over the axes in which y has fewer elements */
static Node reduce(Draft &d, Node y, int how, Node x) {
    Descriptor kind = describe(d, CUDNN_BACKEND_REDUCTION_DESCRIPTOR), o = describe(d, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_choice(d, kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, how);
    set_choice(d, kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    finalize(d, kind, "a reduction");
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind);
    return operation(d, o, y);
}

/* y = x, read with y's shape and strides */
static Node reshape(Draft &d, Node y, Node x) {
    Descriptor o = describe(d, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.descriptor);
    set_descriptor(d, o, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.descriptor);
    return operation(d, o, y);
}

/* s where the query is not before the key, -infinity elsewhere */
static Node causal(Draft &d, Node s) {
    enum { QUERY_AXIS = 2, KEY_AXIS = 3 };
    Node query = pointwise(d, scores(d, CUDNN_DATA_INT32), CUDNN_POINTWISE_GEN_INDEX, s, {NULL}, {NULL}, QUERY_AXIS);
    Node key = pointwise(d, scores(d, CUDNN_DATA_INT32), CUDNN_POINTWISE_GEN_INDEX, s, {NULL}, {NULL}, KEY_AXIS);
    Node seen = pointwise(d, scores(d, CUDNN_DATA_BOOLEAN), CUDNN_POINTWISE_CMP_GE, query, key);
    return pointwise(d, scores(d), CUDNN_POINTWISE_BINARY_SELECT, s, number(d, MINUS_INFINITY), seen);
}

/* y(B,NKV,T,HS) = a b; with fewer heads in y than in a and b, the sum over each group */
static void matmul_of_groups(Draft &d, Node y, Node a, Node b) {
    if (d.NH == d.NKV) matmul(d, y, a, b);
    else reduce(d, y, CUDNN_REDUCE_TENSOR_ADD, matmul(d, vectors(d, CUDNN_DATA_BFLOAT16), a, b));
}

/* ---- the graphs ----------------------------------------------------------------------------------------------------------------- */

/* p = softmax(causal(q k^T / sqrt(HS))), out = p v, lse = the log-sum-exp of the scores */
static void forward_graph(Draft &d) {
    const int64_t packed = (d.NH + 2 * d.NKV) * d.HS, C = d.NH * d.HS;
    Node q = heads(d, Q, d.NH, packed), k_transposed = heads_transposed(d, K, d.NKV, packed), v = heads(d, V, d.NKV, packed);
    Node out = heads(d, OUT, d.NH, C), lse = dense(d, LSE, CUDNN_DATA_FLOAT, d.T, 1);

    Node s = matmul(d, scores(d), q, k_transposed);
    s = pointwise(d, scores(d), CUDNN_POINTWISE_MUL, s, number(d, SCALE));
    s = causal(d, s);
    Node top = reduce(d, row_numbers(d), CUDNN_REDUCE_TENSOR_MAX, s);
    Node e = pointwise(d, scores(d), CUDNN_POINTWISE_SUB, s, top);
    e = pointwise(d, scores(d), CUDNN_POINTWISE_EXP, e);
    Node sum = reduce(d, row_numbers(d), CUDNN_REDUCE_TENSOR_ADD, e);
    Node log_sum = pointwise(d, row_numbers(d), CUDNN_POINTWISE_LOG, sum);
    pointwise(d, lse, CUDNN_POINTWISE_ADD, top, log_sum);
    Node p = pointwise(d, scores(d, CUDNN_DATA_BFLOAT16), CUDNN_POINTWISE_DIV, e, sum);
    matmul(d, out, p, v);
}

/* p = exp(causal(q k^T / sqrt(HS) - lse)), delta = rows of dout * out summed, dp = dout v^T, ds = p (dp - delta) / sqrt(HS);
   dv = p^T dout, dk = ds^T q, dq = ds k. Where dq has a sum DQ_SUM in memory, cuDNN adds up in it with float atomics; where it has none,
   cuDNN takes its deterministic kernel, which keeps all of ds in the workspace. */
static void backward_graph(Draft &d, bool deterministic) {
    const int64_t packed = (d.NH + 2 * d.NKV) * d.HS, C = d.NH * d.HS;
    Node q = heads(d, Q, d.NH, packed), k_transposed = heads_transposed(d, K, d.NKV, packed);
    Node v_transposed = heads_transposed(d, V, d.NKV, packed);
    Node out = heads(d, OUT, d.NH, C), dout = heads(d, DOUT, d.NH, C), lse = dense(d, LSE, CUDNN_DATA_FLOAT, d.T, 1);
    Node dq = heads(d, DQ, d.NH, packed), dk = heads(d, DK, d.NKV, packed), dv = heads(d, DV, d.NKV, packed);
    Node scale = number(d, SCALE);

    /* The product with one stands where dropout would scale: it is a part of the pattern. */
    Node products = pointwise(d, vectors(d, CUDNN_DATA_FLOAT), CUDNN_POINTWISE_MUL, dout, out);
    Node sums = reduce(d, row_numbers(d), CUDNN_REDUCE_TENSOR_ADD, products);
    Node delta = pointwise(d, dense(d, DELTA, CUDNN_DATA_FLOAT, d.T, 1), CUDNN_POINTWISE_MUL, sums, number(d, ONE));

    Node s = matmul(d, scores(d), q, k_transposed);
    s = pointwise(d, scores(d), CUDNN_POINTWISE_MUL, s, scale);
    s = pointwise(d, scores(d), CUDNN_POINTWISE_SUB, s, lse);
    s = causal(d, s);
    Node p = pointwise(d, scores(d), CUDNN_POINTWISE_EXP, s);
    matmul_of_groups(d, dv, reshape(d, scores_transposed(d), p), dout);

    Node dp = matmul(d, scores(d), dout, v_transposed);
    dp = pointwise(d, scores(d), CUDNN_POINTWISE_SUB, dp, delta);
    Node ds = pointwise(d, scores(d), CUDNN_POINTWISE_MUL, dp, p);
    ds = pointwise(d, scores(d, CUDNN_DATA_BFLOAT16), CUDNN_POINTWISE_MUL, ds, scale);
    matmul_of_groups(d, dk, reshape(d, scores_transposed(d), ds), q);

    Node k = reshape(d, heads(d, fresh(d), d.NKV, packed), k_transposed);
    if (deterministic) matmul(d, dq, ds, k);
    else pointwise(d, dq, CUDNN_POINTWISE_IDENTITY, matmul(d, dense(d, DQ_SUM, CUDNN_DATA_FLOAT, d.T, d.HS), ds, k));
}

/* ---- plans ---------------------------------------------------------------------------------------------------------------------- */

static cudnnHandle_t handle;            /* of the process; opened for its first plan */
static std::string device_properties;   /* of a device that need not be there; empty: plans are for the one that is */

void sdpa_for_device(const char *properties) { device_properties = properties; }

struct Plan {
    Descriptor descriptor;   /* NULL: cannot be had */
    size_t dq_sum;           /* bytes at the head of the scratch */
    size_t workspace;        /* bytes behind them */
    std::string refusal;
};

/* Takes the description of sdpa_for_device, if there is one, or else opens the handle. Returns NULL for the device that is here. */
static Descriptor device_of(Draft &d) {
    if (device_properties.empty()) {
        if (!handle) accept(d, "opening the device", cudnn.Create(&handle));
        return NULL;
    }
    Descriptor device = describe(d, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(d, device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)device_properties.size(),
        device_properties.data());
    finalize(d, device, "the description of a device");
    return device;
}

/* cuDNN's suggestions for the graph of d's operations, best first. */
static std::vector<Descriptor> suggestions(Draft &d, Descriptor device) {
    const int64_t most = 16;
    int64_t count = 0;
    std::vector<Descriptor> engines(most);
    Descriptor graph = describe(d, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR), heuristic = describe(d, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set(d, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, (int64_t)d.operations.size(), d.operations.data());
    if (!device) set(d, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    finalize(d, graph, "the graph");
    set_descriptor(d, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set_choice(d, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
    if (device) set_descriptor(d, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    finalize(d, heuristic, "the choice of a kernel");
    for (Descriptor &engine : engines) engine = describe(d, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    get(d, heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &count, engines.data());
    engines.resize((size_t)(count < most ? count : most));
    return engines;
}

/* The first suggestion that can be made into a plan: this is when its kernel is compiled. */
static Descriptor finish(Draft &d) {
    Descriptor device = device_of(d);
    for (Descriptor configuration : suggestions(d, device)) {
        Descriptor plan = describe(d, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        if (!device) set(d, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
        else set_descriptor(d, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
        set_descriptor(d, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
        if (d.refusal.empty() && cudnn.BackendFinalize(plan) == CUDNN_STATUS_SUCCESS) return plan;
    }
    if (d.refusal.empty()) d.refusal = "no kernel for these shapes: " + last_error();
    return NULL;
}

/* Shapes that cuDNN would take on, and compute wrongly or read out of line. */
static const char *unfit(int64_t T, int HS, int backward) {
    if (HS % 8 != 0) return "the head size is not a multiple of 8";
    if (T < 2) return "there is no attention over a single position";
    if (backward && cudnn.version <= LAST_TO_MISS_TAILS && T % 128 != 0) return "up to cuDNN 9.15 T must be a multiple of 128";
    return NULL;
}

static Plan plan_make(int64_t B, int64_t T, int NH, int NKV, int HS, bool backward, bool deterministic) {
    Plan plan = {NULL, 0, 0, ""};
    Draft d = {B, T, NH, NKV, HS, {}, "", 0};
    int64_t workspace = 0, count;
    if (const char *reason = unfit(T, HS, backward)) {
        plan.refusal = reason;
        return plan;
    }
    if (backward) backward_graph(d, deterministic);
    else forward_graph(d);
    Descriptor descriptor = finish(d);
    if (descriptor) get(d, descriptor, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &workspace);
    plan.refusal = d.refusal;
    if (!plan.refusal.empty()) return plan;
    plan.descriptor = descriptor;
    plan.workspace = (size_t)workspace;
    if (backward && !deterministic) plan.dq_sum = ((size_t)(B * NH * T * HS) * sizeof(float) + 255) / 256 * 256;
    return plan;
}

/* Made when first asked for, and kept. */
static const Plan *plan_of(int64_t B, int64_t T, int NH, int NKV, int HS, int backward) {
    static std::map<std::array<int64_t, 7>, Plan> plans;
    if (!sdpa_library()) return NULL;
    const bool deterministic = backward && cuda_settings.deterministic;
    const std::array<int64_t, 7> key = {B, T, NH, NKV, HS, backward != 0, deterministic};
    auto found = plans.find(key);
    if (found == plans.end()) found = plans.emplace(key, plan_make(B, T, NH, NKV, HS, backward != 0, deterministic)).first;
    cudnn.refusal = found->second.refusal;
    return found->second.descriptor ? &found->second : NULL;
}

int sdpa_can(int64_t B, int64_t T, int NH, int NKV, int HS, int backward) { return plan_of(B, T, NH, NKV, HS, backward) != NULL; }

size_t sdpa_workspace(int64_t B, int64_t T, int NH, int NKV, int HS, int backward) {
    const Plan *plan = plan_of(B, T, NH, NKV, HS, backward);
    return plan ? plan->dq_sum + plan->workspace : 0;
}

/* ---- the ops -------------------------------------------------------------------------------------------------------------------- */

struct Binding {
    int64_t id;
    void *memory;   /* on the device; by-value tensors: on the host, read before the call returns */
};

[[noreturn]] static void sdpa_failed(const char *op, const Draft &d, const std::string &reason) {
    backend_fail("%s by %s failed at B=%lld T=%lld NH=%lld NKV=%lld HS=%lld: %s. --attention own does without cuDNN", op,
                 cudnn.name[0] ? cudnn.name : "cuDNN", (long long)d.B, (long long)d.T, (long long)d.NH, (long long)d.NKV, (long long)d.HS,
                 reason.c_str());
}

static void execute(const char *op, Draft &d, const Plan &plan, const std::vector<Binding> &bindings, Tensor scratch, Stream *s) {
    std::vector<int64_t> ids;
    std::vector<void *> memory;
    for (const Binding &binding : bindings) {
        ids.push_back(binding.id);
        memory.push_back(binding.memory);
    }
    void *workspace = scratch.data ? (char *)scratch.data + plan.dq_sum : NULL;
    Descriptor pack = describe(d, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(d, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, (int64_t)ids.size(), ids.data());
    set(d, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, (int64_t)memory.size(), memory.data());
    set(d, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finalize(d, pack, "the arguments");
    if (d.refusal.empty()) accept(d, "the stream", cudnn.SetStream(handle, cuda_stream(s)));
    if (d.refusal.empty()) accept(d, "the launch", cudnn.BackendExecute(handle, plan.descriptor, pack));
    if (!d.refusal.empty()) sdpa_failed(op, d, d.refusal);
    cudnn.BackendDestroyDescriptor(pack);
}

/* The parts of qkv(B,T,NH+2NKV,HS), or of its gradient. */
struct Packed {
    bf16 *q, *k, *v;
};
static Packed parts(Tensor qkv, int NH, int NKV) {
    bf16 *q = (bf16 *)qkv.data;
    const int64_t HS = qkv.shape[3];
    return {q, q + NH * HS, q + (NH + NKV) * HS};
}

static Draft shapes(Tensor qkv, int NH, int NKV) { return {qkv.shape[0], qkv.shape[1], NH, NKV, qkv.shape[3], {}, "", 0}; }

void sdpa_forward(Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Stream *s) {
    Draft d = shapes(qkv, NH, NKV);
    const Plan *plan = plan_of(d.B, d.T, NH, NKV, (int)d.HS, 0);
    if (!plan) sdpa_failed("attention_forward", d, cudnn.refusal);
    const Packed in = parts(qkv, NH, NKV);
    float scale = 1.0f / sqrtf((float)d.HS), minus_infinity = -INFINITY;
    execute("attention_forward", d, *plan,
            {{Q, in.q}, {K, in.k}, {V, in.v}, {OUT, out.data}, {LSE, lse.data}, {SCALE, &scale}, {MINUS_INFINITY, &minus_infinity}},
            scratch, s);
}

void sdpa_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Stream *s) {
    Draft d = shapes(qkv, NH, NKV);
    const Plan *plan = plan_of(d.B, d.T, NH, NKV, (int)d.HS, 1);
    if (!plan) sdpa_failed("attention_backward", d, cudnn.refusal);
    const Packed in = parts(qkv, NH, NKV), gradient = parts(dqkv, NH, NKV);
    float scale = 1.0f / sqrtf((float)d.HS), minus_infinity = -INFINITY, one = 1.0f;
    std::vector<Binding> bindings = {{Q, in.q}, {K, in.k}, {V, in.v}, {OUT, out.data}, {DOUT, dout.data}, {LSE, lse.data},
                                     {DQ, gradient.q}, {DK, gradient.k}, {DV, gradient.v}, {DELTA, delta.data},
                                     {SCALE, &scale}, {MINUS_INFINITY, &minus_infinity}, {ONE, &one}};
    if (plan->dq_sum) bindings.push_back({DQ_SUM, scratch.data});
    execute("attention_backward", d, *plan, bindings, scratch, s);
}
