/* families.h: the Hugging Face families, declared once: which architectures each expresses, the keys of its config.json, and the names of
   its tensors. hf_config*.c and weights.c read these tables; to add a family is to add its tables. */
#ifndef LLMC_FAMILIES_H
#define LLMC_FAMILIES_H

#include "parameters.h"

/* What an architecture is made of, sizes aside. Of each property a family expresses some values, numbered as the words in families.c. */
typedef enum { POSITION, NORM, PLACE, ACTIVATION, BIAS, QK_NORM, KV_HEADS, HEAD_SIZE, PROPERTIES } Property;
enum { BIAS_NONE, BIAS_QKV, BIAS_ALL };
enum { HEADS_DIVIDE_CHANNELS, HEADS_APART, HEADS_UNEVEN };   /* NH HS is C; it is not, but NH divides C; it does not */
int family_property(const Config *config, Property property);

/* Keys of config.json, by the field of Config that each gives. NULL: the family has none, and so does the architecture. */
typedef struct {
    const char *L, *NH, *NKV, *HS, *C, *F, *maxT, *activation, *norm_eps;
    const char *dropouts[4];      /* all are written; the last is the residual branches' */
    const char *biases[3];        /* flags that must agree: biases everywhere, or nowhere */
    const char *rope_base, *rotated;
} ConfigKeys;

/* A flag that transformers' model obeys and the engine cannot: it must have this value. */
typedef struct { const char *key; bool needed, absent; } ConfigSwitch;   /* absent: what the family takes it for where it is missing */

/* Which rows of a parameter a tensor holds. Ours has the rows of all query heads, then of all key heads, then of all value heads; and the
   gate before the other half of the MLP's first product. PACKED: for each head in turn its query, key and value rows. */
typedef enum { WHOLE, QUERIES, KEYS, VALUES, PACKED, GATE, UP } RowRange;
typedef struct { ParameterKind parameter; RowRange rows; const char *name; } TensorName;

typedef struct {
    const char *model_type, *architecture;
    bool native;                      /* train_gpt */
    unsigned expresses[PROPERTIES];   /* bit v: value v */
    bool tie;                         /* where config.json does not say */
    int64_t head_size;                /* likewise; 0: C / NH */
    double norm_eps;                  /* likewise */
    double rotated;                   /* likewise: the share of a head that RoPE rotates */
    Activation activation;            /* likewise */
    ConfigKeys keys;
    ConfigSwitch switches[5];         /* an empty key ends them */
    const char *base, *layers;        /* names begin with base, the head's aside; a layer's go on with layers and its number */
    const TensorName *tensors;        /* NULL: our own names and layout */
    int tensor_count;
} Family;

/* The family of a config.json's model_type; NULL if there is none. train_gpt is one too: ours, which expresses everything. */
const Family *family_named(const char *model_type);
/* The family in which a model is saved: the first that expresses it, else train_gpt. */
const Family *family_of(const Config *config);
/* config.json of a directory: the architecture, and the family that it is given in. */
bool config_read_directory(const char *directory, Config *config, const Family **family, char error[ERROR_SIZE]);
/* "gpt2, llama, ...", in fresh memory. */
char *family_names(void);
/* The family's row for the parameter and the n-th piece of it; NULL after the last. */
const TensorName *family_tensor(const Family *family, ParameterKind parameter, int n);

#endif
