/* cudnn_standin.cpp: a libcudnn.so.9 for a machine without a GPU. It keeps the descriptors that kernels/sdpa.cu makes and works their graph
   out on the CPU, one operation after the other: sums in double precision, every result rounded to the type of its tensor. That shows what
   the graph says; whether cuDNN has a kernel for it, dev/sdpa_plan.cu asks cuDNN.

   It is strict: a descriptor used before it is final, an attribute of another type, shapes that do not fit, memory unbound or misaligned,
   and all it does not know, end the program with a sentence. Environment:
   CUDNN_STANDIN_VERSION=90500         what cudnnGetVersion says; else 99900
   CUDNN_STANDIN_REFUSES=plan|launch   this gives an error status */
#include "kernels/cu.h"
#include "kernels/cudnn.cuh"

#include <array>
#include <map>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

#define X(result, name, arguments) extern "C" result cudnn##name arguments;
CUDNN_FUNCTIONS(X)
#undef X

enum { REFUSED = 1, WORKSPACE = 1000 };   /* a status that is not success; bytes: a size that nothing else here has */

static const struct {
    const char *name;
    int value;
} constants[] = {
#define X(name, value) {#name, value},
    CUDNN_CONSTANTS(X)
#undef X
};

/* The constant that begins with the family's prefix and has that value. */
static std::string name_of(const char *family, int value) {
    for (const auto &constant : constants)
        if (constant.value == value && strncmp(constant.name, family, strlen(family)) == 0) return constant.name;
    return std::string(family) + " number " + std::to_string(value);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) static void give_up(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "cudnn_standin: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

/* ---- descriptors ---------------------------------------------------------------------------------------------------------------- */

enum { OPTIONAL, NEEDED };

/* The attributes that there are; count 0 stands for any number of elements. */
static const struct Rule {
    int descriptor, attribute, type;
    int64_t count;
    int needed;
} rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, NEEDED},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, NEEDED},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, NEEDED},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, NEEDED},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, NEEDED},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, NEEDED},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, NEEDED},
    {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, NEEDED},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, NEEDED},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, OPTIONAL},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, OPTIONAL},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, OPTIONAL},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, NEEDED},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, NEEDED},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, NEEDED},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, NEEDED},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, NEEDED},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NEEDED},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 0, NEEDED},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 0, NEEDED},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, NEEDED},
};

struct Descriptor {
    int type;
    bool final;
    std::map<int, std::vector<unsigned char>> attributes;
    cudnnBackendDescriptor_t graph;   /* of an engine configuration: what it is for */
    bool usable;                      /* of an engine configuration: whether it makes a plan */
};

/* What the caller holds are names, not addresses: a destroyed descriptor is noticed. */
static std::map<cudnnBackendDescriptor_t, Descriptor> descriptors;

static Descriptor &descriptor_of(cudnnBackendDescriptor_t name) {
    auto found = descriptors.find(name);
    if (found == descriptors.end()) give_up("%p is no descriptor, or was destroyed", name);
    return found->second;
}
static Descriptor &final_descriptor(cudnnBackendDescriptor_t name) {
    Descriptor &d = descriptor_of(name);
    if (!d.final) give_up("a %s is used before it is final", name_of("CUDNN_BACKEND_", d.type).c_str());
    return d;
}
static void expect_type(const Descriptor &d, int type) {
    if (d.type != type)
        give_up("a %s stands where a %s is expected", name_of("CUDNN_BACKEND_", d.type).c_str(), name_of("CUDNN_BACKEND_", type).c_str());
}

static bool has(const Descriptor &d, int attribute) { return d.attributes.count(attribute) != 0; }
template <class T> static std::vector<T> values(const Descriptor &d, int attribute) {
    if (!has(d, attribute)) give_up("%s is missing", name_of("CUDNN_ATTR_", attribute).c_str());
    const std::vector<unsigned char> &bytes = d.attributes.at(attribute);
    std::vector<T> all(bytes.size() / sizeof(T));
    memcpy(all.data(), bytes.data(), bytes.size());
    return all;
}
template <class T> static T value(const Descriptor &d, int attribute) { return values<T>(d, attribute)[0]; }
static bool flag(const Descriptor &d, int attribute) { return d.attributes.at(attribute)[0] != 0; }
static Descriptor &part(const Descriptor &d, int attribute, int type) {
    Descriptor &found = final_descriptor(value<cudnnBackendDescriptor_t>(d, attribute));
    expect_type(found, type);
    return found;
}

/* Bytes of an attribute's element. */
static size_t attribute_size(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_HANDLE: case CUDNN_TYPE_VOID_PTR: case CUDNN_TYPE_BACKEND_DESCRIPTOR: return sizeof(void *);
    case CUDNN_TYPE_INT64: return sizeof(int64_t);
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    default: return sizeof(int);   /* enumerations */
    }
}

static const Rule &rule_of(const Descriptor &d, int attribute) {
    for (const Rule &rule : rules)
        if (rule.descriptor == d.type && rule.attribute == attribute) return rule;
    give_up("%s is not an attribute of a %s", name_of("CUDNN_ATTR_", attribute).c_str(), name_of("CUDNN_BACKEND_", d.type).c_str());
}

/* ---- tensors -------------------------------------------------------------------------------------------------------------------- */

typedef std::array<int64_t, 4> Four;

struct View {
    Four shape, strides;
    int dtype;
    unsigned char *memory;
};

/* What the tensors of a graph have for memory while it runs: the caller's, or their own where they are virtual. */
struct Run {
    std::map<int64_t, unsigned char *> bound;
    std::map<int64_t, std::vector<unsigned char>> temporaries;
};

static size_t element_size(int dtype) {
    switch (dtype) {
    case CUDNN_DATA_FLOAT: return sizeof(float);
    case CUDNN_DATA_BFLOAT16: return sizeof(bf16);
    case CUDNN_DATA_INT32: return sizeof(int32_t);
    case CUDNN_DATA_BOOLEAN: return sizeof(bool);
    default: give_up("%s is not known here", name_of("CUDNN_DATA_", dtype).c_str());
    }
}

static int64_t offset(const View &v, const Four &i) {
    return i[0] * v.strides[0] + i[1] * v.strides[1] + i[2] * v.strides[2] + i[3] * v.strides[3];
}
static int64_t span(const View &v) { return offset(v, {v.shape[0] - 1, v.shape[1] - 1, v.shape[2] - 1, v.shape[3] - 1}) + 1; }

static double load_at(const View &v, int64_t at) {
    switch (v.dtype) {
    case CUDNN_DATA_FLOAT: return ((const float *)v.memory)[at];
    case CUDNN_DATA_BFLOAT16: return to_float(((const bf16 *)v.memory)[at]);
    case CUDNN_DATA_INT32: return ((const int32_t *)v.memory)[at];
    default: return v.memory[at] != 0;
    }
}
static double load(const View &v, const Four &i) { return load_at(v, offset(v, i)); }
static void store(const View &v, const Four &i, double x) {
    const int64_t at = offset(v, i);
    switch (v.dtype) {
    case CUDNN_DATA_FLOAT: ((float *)v.memory)[at] = (float)x; break;
    case CUDNN_DATA_BFLOAT16: ((bf16 *)v.memory)[at] = from_float<bf16>((float)x); break;
    case CUDNN_DATA_INT32: ((int32_t *)v.memory)[at] = (int32_t)x; break;
    default: v.memory[at] = x != 0;
    }
}

template <class F> static void for_each(const Four &shape, F f) {
    for (int64_t i = 0; i < shape[0]; i++)
        for (int64_t j = 0; j < shape[1]; j++)
            for (int64_t k = 0; k < shape[2]; k++)
                for (int64_t l = 0; l < shape[3]; l++) f(Four{i, j, k, l});
}

static View view(const Descriptor &d) {
    View v;
    const std::vector<int64_t> shape = values<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS);
    const std::vector<int64_t> strides = values<int64_t>(d, CUDNN_ATTR_TENSOR_STRIDES);
    for (size_t i = 0; i < 4; i++) {
        v.shape[i] = shape[i];
        v.strides[i] = strides[i];
        if (shape[i] < 1 || strides[i] < 1) give_up("a tensor has extent %lld, stride %lld", (long long)shape[i], (long long)strides[i]);
    }
    v.dtype = value<int>(d, CUDNN_ATTR_TENSOR_DATA_TYPE);
    v.memory = NULL;
    return v;
}

static unsigned char *bound_memory(const Run &run, const Descriptor &d, int64_t id) {
    auto found = run.bound.find(id);
    if (found == run.bound.end() || !found->second) give_up("no memory is bound to tensor %lld", (long long)id);
    if ((uintptr_t)found->second % (uintptr_t)value<int64_t>(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) != 0)
        give_up("the memory of tensor %lld is not aligned as said", (long long)id);
    return found->second;
}

static View operand(Run &run, const Descriptor &operation, int attribute) {
    const Descriptor &d = part(operation, attribute, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t id = value<int64_t>(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    View v = view(d);
    if (!flag(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL)) v.memory = bound_memory(run, d, id);
    else if (run.temporaries.count(id)) v.memory = run.temporaries[id].data();
    else give_up("tensor %lld is read before it is written", (long long)id);
    return v;
}
static View result(Run &run, const Descriptor &operation, int attribute) {
    const Descriptor &d = part(operation, attribute, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t id = value<int64_t>(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    View v = view(d);
    if (flag(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE)) give_up("tensor %lld is a number, and cannot be written", (long long)id);
    if (!flag(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
        v.memory = bound_memory(run, d, id);
        return v;
    }
    if (run.temporaries.count(id)) give_up("tensor %lld is written twice", (long long)id);
    std::vector<unsigned char> &memory = run.temporaries[id];
    memory.assign((size_t)span(v) * element_size(v.dtype), 0xFF);   /* NaN */
    v.memory = memory.data();
    return v;
}

/* ---- operations ----------------------------------------------------------------------------------------------------------------- */

/* Where element i of a tensor of the large shape finds its fellow in one of the small shape: neighbours share it. */
static Four shared(const Four &i, const Four &large, const Four &small) {
    Four j;
    for (size_t k = 0; k < 4; k++) j[k] = i[k] * small[k] / large[k];
    return j;
}

static void expect_float(const Descriptor &kind, int attribute) {
    const int type = value<int>(kind, attribute);
    if (type != CUDNN_DATA_FLOAT) give_up("sums in %s are not known here", name_of("CUDNN_DATA_", type).c_str());
}

/* c = a b for every head of c; where a or b has fewer heads, each serves a group of neighbours. */
static void matmul(Run &run, const Descriptor &o) {
    expect_float(part(o, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_BACKEND_MATMUL_DESCRIPTOR), CUDNN_ATTR_MATMUL_COMP_TYPE);
    const View a = operand(run, o, CUDNN_ATTR_OPERATION_MATMUL_ADESC), b = operand(run, o, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    const View c = result(run, o, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    if (a.shape[0] != c.shape[0] || b.shape[0] != c.shape[0] || c.shape[1] % a.shape[1] != 0 || c.shape[1] % b.shape[1] != 0 ||
        a.shape[2] != c.shape[2] || a.shape[3] != b.shape[2] || b.shape[3] != c.shape[3])
        give_up("the shapes of a matrix product do not fit");
    for_each(c.shape, [&](const Four &i) {
        const int64_t head_a = i[1] * a.shape[1] / c.shape[1], head_b = i[1] * b.shape[1] / c.shape[1];
        double sum = 0;
        for (int64_t k = 0; k < a.shape[3]; k++) sum += load(a, {i[0], head_a, i[2], k}) * load(b, {i[0], head_b, k, i[3]});
        store(c, i, sum);
    });
}

/* y = f(x, b, t) of one mode; an operand that is not there is 0. */
static double apply(int mode, double x, double b, double t) {
    switch (mode) {
    case CUDNN_POINTWISE_ADD: return x + b;
    case CUDNN_POINTWISE_MUL: return x * b;
    case CUDNN_POINTWISE_DIV: return x / b;
    case CUDNN_POINTWISE_SUB: return x - b;
    case CUDNN_POINTWISE_EXP: return exp(x);
    case CUDNN_POINTWISE_LOG: return log(x);
    case CUDNN_POINTWISE_IDENTITY: return x;
    case CUDNN_POINTWISE_CMP_GE: return x >= b;
    case CUDNN_POINTWISE_BINARY_SELECT: return t != 0 ? x : b;
    default: give_up("%s is not known here", name_of("CUDNN_POINTWISE_", mode).c_str());
    }
}

static int operands_of(int mode) {
    switch (mode) {
    case CUDNN_POINTWISE_EXP: case CUDNN_POINTWISE_LOG: case CUDNN_POINTWISE_IDENTITY: case CUDNN_POINTWISE_GEN_INDEX: return 1;
    case CUDNN_POINTWISE_BINARY_SELECT: return 3;
    default: return 2;
    }
}

/* MATH_PREC is not looked at: all modes are worked out in double precision. */
static void pointwise(Run &run, const Descriptor &o) {
    static const int names[] = {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
                                CUDNN_ATTR_OPERATION_POINTWISE_TDESC};
    const Descriptor &kind = part(o, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    const int mode = value<int>(kind, CUDNN_ATTR_POINTWISE_MODE);
    std::vector<View> in;
    for (int name : names)
        if (has(o, name)) in.push_back(operand(run, o, name));
    const View y = result(run, o, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    if ((int)in.size() != operands_of(mode)) give_up("%s has %zu operands", name_of("CUDNN_POINTWISE_", mode).c_str(), in.size());
    for (const View &v : in)
        for (size_t k = 0; k < 4; k++)
            if (v.shape[k] != y.shape[k] && v.shape[k] != 1)
                give_up("the shapes of a %s do not fit", name_of("CUDNN_POINTWISE_", mode).c_str());
    if (mode == CUDNN_POINTWISE_GEN_INDEX) {
        const int64_t axis = value<int64_t>(kind, CUDNN_ATTR_POINTWISE_AXIS);
        if (axis < 0 || axis > 3) give_up("there is no axis %lld", (long long)axis);
        for_each(y.shape, [&](const Four &i) { store(y, i, (double)i[(size_t)axis]); });
        return;
    }
    for_each(y.shape, [&](const Four &i) {
        double x[3] = {0, 0, 0};
        for (size_t k = 0; k < in.size(); k++) x[k] = load(in[k], shared(i, y.shape, in[k].shape));
        store(y, i, apply(mode, x[0], x[1], x[2]));
    });
}

/* y = x reduced over neighbours along each axis, as many as go into one element of y. NaN stays. */
static void reduction(Run &run, const Descriptor &o) {
    const Descriptor &kind = part(o, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    const int how = value<int>(kind, CUDNN_ATTR_REDUCTION_OPERATOR);
    expect_float(kind, CUDNN_ATTR_REDUCTION_COMP_TYPE);
    if (how != CUDNN_REDUCE_TENSOR_ADD && how != CUDNN_REDUCE_TENSOR_MAX)
        give_up("%s is not known here", name_of("CUDNN_REDUCE_TENSOR_", how).c_str());
    const View x = operand(run, o, CUDNN_ATTR_OPERATION_REDUCTION_XDESC), y = result(run, o, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    Four block;
    for (size_t k = 0; k < 4; k++) {
        if (x.shape[k] % y.shape[k] != 0) give_up("the shapes of a reduction do not fit");
        block[k] = x.shape[k] / y.shape[k];
    }
    for_each(y.shape, [&](const Four &i) {
        double all = how == CUDNN_REDUCE_TENSOR_ADD ? 0 : -INFINITY;
        for_each(block, [&](const Four &j) {
            Four at;
            for (size_t k = 0; k < 4; k++) at[k] = i[k] * block[k] + j[k];
            const double one = load(x, at);
            if (how == CUDNN_REDUCE_TENSOR_ADD) all += one;
            else if (one > all || isnan(one)) all = one;
        });
        store(y, i, all);
    });
}

/* y is x's memory seen with y's shape and strides: where these are swapped, x transposed. */
static void reshape(Run &run, const Descriptor &o) {
    const View x = operand(run, o, CUDNN_ATTR_OPERATION_RESHAPE_XDESC), y = result(run, o, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
    int64_t elements_x = 1, elements_y = 1;
    for (size_t k = 0; k < 4; k++) {
        elements_x *= x.shape[k];
        elements_y *= y.shape[k];
    }
    if (elements_x != elements_y || span(x) != span(y)) give_up("the shapes of a reshape do not fit");
    for_each(y.shape, [&](const Four &i) { store(y, i, load_at(x, offset(y, i))); });
}

static void work_out(Run &run, const Descriptor &o) {
    switch (o.type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: matmul(run, o); break;
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: pointwise(run, o); break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: reduction(run, o); break;
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR: reshape(run, o); break;
    default: give_up("a %s is no operation", name_of("CUDNN_BACKEND_", o.type).c_str());
    }
}

/* ---- the library ---------------------------------------------------------------------------------------------------------------- */

static cudnnHandle_t the_handle(void) { return (cudnnHandle_t)(uintptr_t)0x9; }   /* only ever compared */

static bool refuses(const char *what) {
    const char *refused = getenv("CUDNN_STANDIN_REFUSES");
    return refused && strcmp(refused, what) == 0;
}

size_t cudnnGetVersion(void) {
    const char *version = getenv("CUDNN_STANDIN_VERSION");
    return version ? (size_t)atol(version) : 99900;
}

/* In two lines, as cuDNN's are. */
void cudnnGetLastErrorString(char *message, size_t max_size) { snprintf(message, max_size, "refused as asked\nby the stand-in"); }

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    *handle = the_handle();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t) {
    if (handle != the_handle()) give_up("cudnnSetStream has a handle that is none");
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor) {
    static uintptr_t made;
    *descriptor = (cudnnBackendDescriptor_t)++made;
    descriptors[*descriptor] = {type, false, {}, NULL, false};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    descriptor_of(descriptor);
    descriptors.erase(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *elements) {
    Descriptor &d = descriptor_of(descriptor);
    const Rule &rule = rule_of(d, name);
    if (d.final) give_up("%s is set where all is final", name_of("CUDNN_ATTR_", name).c_str());
    if (type != rule.type || count < 1 || (rule.count && count != rule.count))
        give_up("%s is set to %lld of %s", name_of("CUDNN_ATTR_", name).c_str(), (long long)count, name_of("CUDNN_TYPE_", type).c_str());
    const unsigned char *bytes = (const unsigned char *)elements;
    d.attributes[name].assign(bytes, bytes + attribute_size(type) * (size_t)count);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (cudnnBackendDescriptor_t other : values<cudnnBackendDescriptor_t>(d, name)) final_descriptor(other);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    Descriptor &d = descriptor_of(descriptor);
    for (const Rule &rule : rules)
        if (rule.descriptor == d.type && rule.needed && !has(d, rule.attribute))
            give_up("%s is missing", name_of("CUDNN_ATTR_", rule.attribute).c_str());
    if (d.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR &&
        (refuses("plan") || !part(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).usable))
        return REFUSED;
    d.final = true;
    return CUDNN_STATUS_SUCCESS;
}

/* Two suggestions, of which the first makes no plan: a caller has to go on to the second. */
static int64_t suggest(const Descriptor &heuristic, int64_t requested, cudnnBackendDescriptor_t *engines) {
    if (requested < 2) give_up("%lld suggestions are asked for, 2 or more expected", (long long)requested);
    for (int i = 0; i < 2; i++) {
        Descriptor &engine = descriptor_of(engines[i]);
        expect_type(engine, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        engine.graph = value<cudnnBackendDescriptor_t>(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
        engine.usable = i == 1;
        engine.final = true;
    }
    return 2;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t *count, void *elements) {
    Descriptor &d = final_descriptor(descriptor);
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        expect_type(d, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
        *count = suggest(d, requested, (cudnnBackendDescriptor_t *)elements);
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
        expect_type(d, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        *(int64_t *)elements = WORKSPACE;
        *count = 1;
    } else {
        give_up("%s as %s cannot be asked for", name_of("CUDNN_ATTR_", name).c_str(), name_of("CUDNN_TYPE_", type).c_str());
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t variant_pack) {
    const Descriptor &p = final_descriptor(plan), &pack = final_descriptor(variant_pack);
    expect_type(p, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    expect_type(pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    const std::vector<int64_t> ids = values<int64_t>(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const std::vector<unsigned char *> memory = values<unsigned char *>(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    unsigned char *workspace = value<unsigned char *>(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (handle != the_handle()) give_up("cudnnBackendExecute has a handle that is none");
    if (ids.size() != memory.size()) give_up("%zu tensors are bound to %zu addresses", ids.size(), memory.size());
    if (!workspace || (uintptr_t)workspace % 256 != 0) give_up("the workspace is missing, or not aligned to 256 bytes");
    if (refuses("launch")) return REFUSED;
    Run run;
    for (size_t i = 0; i < ids.size(); i++)
        if (!run.bound.emplace(ids[i], memory[i]).second) give_up("tensor %lld is bound twice", (long long)ids[i]);
    memset(workspace, 0xFF, WORKSPACE);
    const Descriptor &engine = part(p, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    const Descriptor &graph = final_descriptor(engine.graph);
    for (cudnnBackendDescriptor_t operation : values<cudnnBackendDescriptor_t>(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS))
        work_out(run, final_descriptor(operation));
    return CUDNN_STATUS_SUCCESS;
}
