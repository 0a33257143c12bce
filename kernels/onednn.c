/* onednn.c: matrix products through oneDNN 2.x and 3.x. Creating a primitive compiles machine code (about a millisecond), so each
   is made once and kept in a hash table under its shape, dtypes and flags; later calls only set pointers. Not thread-safe: the ops
   are called from one thread, and oneDNN spreads each product over the cores by itself. */
#include "onednn.h"

#ifdef USE_ONEDNN

#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t M, N, K;
    int32_t d_dtype, ab_dtype, bias_dtype, has_bias, transpose_a, transpose_b, add, used;   /* a whole number of 64-bit words: no padding */
} Key;

typedef struct {
    Key key;
    dnnl_primitive_t primitive;   /* NULL: oneDNN has no such product, or none that is fast */
    dnnl_memory_t d, a, b, bias;
} Product;

/* A run needs about a hundred products, but prompts of every length would make more without end: half full, the table is emptied. */
enum { SLOTS = 1024 };
static Product products[SLOTS];
static int products_used;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void check(dnnl_status_t status, const char *what) {
    if (status == dnnl_success) return;
    backend_fail("oneDNN cannot %s (status %d): free some memory, or build with ONEDNN=0", what, (int)status);
}

/* Versions 2.x and 3.x differ in how matrices are described (by value, by handle), operations made, and a post-op's arguments. */
#if DNNL_VERSION_MAJOR < 3
static void describe_matrix(dnnl_memory_desc_t *m, dnnl_dims_t shape, dnnl_data_type_t type, dnnl_dims_t strides) {
    check(dnnl_memory_desc_init_by_strides(m, 2, shape, type, strides), "describe a matrix");
}
static dnnl_memory_t memory_of(dnnl_memory_desc_t *m) {
    dnnl_memory_t memory;
    check(dnnl_memory_create(&memory, m, engine, DNNL_MEMORY_NONE), "create a matrix");
    return memory;
}
static dnnl_status_t describe_product(dnnl_primitive_desc_t *product, dnnl_memory_desc_t m[4], int has_bias, dnnl_primitive_attr_t attr) {
    dnnl_matmul_desc_t operation;
    dnnl_status_t status = dnnl_matmul_desc_init(&operation, &m[1], &m[2], has_bias ? &m[3] : NULL, &m[0]);
    return status == dnnl_success ? dnnl_primitive_desc_create(product, &operation, attr, engine, NULL) : status;
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1.0f); }
static void forget_matrix(dnnl_memory_desc_t m) { (void)m; }
#else
static void describe_matrix(dnnl_memory_desc_t *m, dnnl_dims_t shape, dnnl_data_type_t type, dnnl_dims_t strides) {
    check(dnnl_memory_desc_create_with_strides(m, 2, shape, type, strides), "describe a matrix");
}
static dnnl_memory_t memory_of(dnnl_memory_desc_t *m) {
    dnnl_memory_t memory;
    check(dnnl_memory_create(&memory, *m, engine, DNNL_MEMORY_NONE), "create a matrix");
    return memory;
}
static dnnl_status_t describe_product(dnnl_primitive_desc_t *product, dnnl_memory_desc_t m[4], int has_bias, dnnl_primitive_attr_t attr) {
    return dnnl_matmul_primitive_desc_create(product, engine, m[1], m[2], has_bias ? m[3] : NULL, m[0], attr);
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef); }
static void forget_matrix(dnnl_memory_desc_t m) { dnnl_memory_desc_destroy(m); }
#endif

static dnnl_data_type_t dnnl_type(DType dtype) { return dtype == BF16 ? dnnl_bf16 : dnnl_f32; }

static void create_product(Product *p) {
    const Key *k = &p->key;
    dnnl_memory_desc_t m[4];
    describe_matrix(&m[0], (dnnl_dims_t){k->M, k->N}, dnnl_type(k->d_dtype), (dnnl_dims_t){k->N, 1});
    describe_matrix(&m[1], (dnnl_dims_t){k->M, k->K}, dnnl_type(k->ab_dtype),
                    k->transpose_a ? (dnnl_dims_t){1, k->M} : (dnnl_dims_t){k->K, 1});
    describe_matrix(&m[2], (dnnl_dims_t){k->K, k->N}, dnnl_type(k->ab_dtype),
                    k->transpose_b ? (dnnl_dims_t){1, k->K} : (dnnl_dims_t){k->N, 1});
    describe_matrix(&m[3], (dnnl_dims_t){1, k->N}, dnnl_type(k->bias_dtype), (dnnl_dims_t){k->N, 1});

    dnnl_post_ops_t ops;
    dnnl_primitive_attr_t attr;
    check(dnnl_post_ops_create(&ops), "create post-ops");
    if (k->add) check(append_sum(ops), "add in place");
    check(dnnl_primitive_attr_create(&attr), "create attributes");
    check(dnnl_primitive_attr_set_post_ops(attr, ops), "set post-ops");

    dnnl_primitive_desc_t description;
    if (describe_product(&description, m, k->has_bias, attr) == dnnl_success) {
        const char *name = "";
        dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name);
        if (strncmp(name, "ref", 3) != 0) {   /* oneDNN's reference loops are slower than ours */
            check(dnnl_primitive_create(&p->primitive, description), "compile a matrix product");
            p->d = memory_of(&m[0]);
            p->a = memory_of(&m[1]);
            p->b = memory_of(&m[2]);
            if (k->has_bias) p->bias = memory_of(&m[3]);
        }
        dnnl_primitive_desc_destroy(description);
    }
    dnnl_primitive_attr_destroy(attr);
    dnnl_post_ops_destroy(ops);
    for (int i = 0; i < 4; i++) forget_matrix(m[i]);
}

static void forget_products(void) {
    for (int i = 0; i < SLOTS; i++) {
        Product *p = &products[i];
        if (!p->primitive) continue;
        dnnl_primitive_destroy(p->primitive);
        dnnl_memory_destroy(p->d);
        dnnl_memory_destroy(p->a);
        dnnl_memory_destroy(p->b);
        if (p->bias) dnnl_memory_destroy(p->bias);
    }
    memset(products, 0, sizeof products);
    products_used = 0;
}

/* The slot that holds this key, or the free one where it belongs. */
static Product *find_product(const Key *key) {
    uint64_t words[sizeof *key / sizeof(uint64_t)], hash = 0;
    memcpy(words, key, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15u ^ hash >> 29;
    size_t slot = (size_t)(hash >> 32) % SLOTS;
    while (products[slot].key.used && memcmp(&products[slot].key, key, sizeof *key) != 0) slot = (slot + 1) % SLOTS;
    return &products[slot];
}

static Product *product_for(const Key *key) {
    Product *p = find_product(key);
    if (p->key.used) return p;
    if (products_used == SLOTS / 2) {
        forget_products();
        p = find_product(key);
    }
    p->key = *key;
    products_used++;
    create_product(p);
    return p;
}

int onednn_matmul(void *D, DType d_dtype, const void *A, const void *B, DType ab_dtype, const void *bias, DType bias_dtype,
                  int64_t M, int64_t N, int64_t K, int transpose_a, int transpose_b, int add) {
    if (!engine) {
        check(dnnl_engine_create(&engine, dnnl_cpu, 0), "start on this CPU");
        check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "open a stream");
    }
    int has_bias = bias != NULL;
    Key key = {M, N, K, d_dtype, ab_dtype, has_bias ? bias_dtype : F32, has_bias, transpose_a != 0, transpose_b != 0, add != 0, 1};
    Product *p = product_for(&key);
    if (!p->primitive) return 0;

    dnnl_memory_set_data_handle(p->d, D);
    dnnl_memory_set_data_handle(p->a, (void *)A);
    dnnl_memory_set_data_handle(p->b, (void *)B);
    if (has_bias) dnnl_memory_set_data_handle(p->bias, (void *)bias);
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_DST, p->d}, {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_BIAS, p->bias}};
    check(dnnl_primitive_execute(p->primitive, stream, 3 + has_bias, arguments), "run a matrix product");
    check(dnnl_stream_wait(stream), "finish a matrix product");
    return 1;
}

int matmul_supports_bf16(void) {
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;   /* the sets of AMX and AVX10 contain this one */
}

#else

int onednn_matmul(void *D, DType d_dtype, const void *A, const void *B, DType ab_dtype, const void *bias, DType bias_dtype,
                  int64_t M, int64_t N, int64_t K, int transpose_a, int transpose_b, int add) {
    (void)D; (void)d_dtype; (void)A; (void)B; (void)ab_dtype; (void)bias; (void)bias_dtype;
    (void)M; (void)N; (void)K; (void)transpose_a; (void)transpose_b; (void)add;
    return 0;
}

int matmul_supports_bf16(void) { return 0; }

#endif
