/* options.h: every option of the programs, declared once. A row gives the field, its default, the parser (-l 3e-4, --lr 3e-4,
   --lr=3e-4), the range check, --help, the key of a config file, the start-up banner and the record in a checkpoint.

     REAL  (letter, field, default, least, most, help)      a finite number
     INT   (letter, field, default, least, most, help)      a whole number
     FLAG  (letter, field, default, help)                   --field, --field=0|1, --field 0|1, --no-field
     CHOICE(letter, field, default, "a|b|c", help)          stored as the index of the word
     TEXT  (letter, field, default, help)                   "" means "not given"
   letter is 0 where there is none; field n_layer is option --n-layer. */
#ifndef LLMC_OPTIONS_H
#define LLMC_OPTIONS_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRAIN_OPTIONS(SECTION, REAL, INT, FLAG, CHOICE, TEXT)                                                                       \
    SECTION("Model")                                                                                                                \
    TEXT  ('m', model,           "baby", "preset (as gpt2-124M, llama-350M; a wrong name lists them) or directory to start from")   \
    CHOICE('e', pos,             "rope", "learned|rope|none", "how tokens know their position")                                     \
    INT   (0,   n_layer,         6, 1, 1024, "layers")                                                                              \
    INT   (0,   n_head,          6, 1, 4096, "query heads")                                                                         \
    INT   (0,   n_kv_head,       0, 0, 4096, "key/value heads, a divisor of n-head; 0: n-head")                                     \
    INT   (0,   head_size,       0, 0, 256, "channels of a head; 0: n-embd / n-head")                                               \
    INT   (0,   n_embd,          192, 1, 16384, "channels of the residual stream")                                                  \
    CHOICE(0,   activation,      "gelu", "gelu|gelu-erf|relu|silu|relu2|swiglu", "of the MLP; gelu is the tanh form")               \
    INT   (0,   n_hidden,        0, 0, 1048576, "hidden width of the MLP; 0: 4 n-embd, swiglu: 8/3 n-embd to the nearest 64")       \
    INT   (0,   vocab_size,      0, 0, 16777216, "tokens in the vocabulary; 0: as the data says")                                   \
    INT   (0,   max_seq_len,     0, 0, 1048576, "rows of a learned position table; 0: seq-len")                                     \
    FLAG  (0,   bias,            1, "biases in linear layers and LayerNorm")                                                        \
    FLAG  (0,   qkv_bias,        0, "with --no-bias: still biases on queries, keys and values")                                     \
    FLAG  (0,   tie,             1, "share the token embedding with the head")                                                      \
    REAL  (0,   rope_base,       10000, 1, 1e12, "theta_i = base^(-2i/head-size)")                                                  \
    CHOICE(0,   rope_layout,     "interleaved", "interleaved|half", "rotate pairs (2i, 2i+1), or (i, i + head-size/2)")             \
    CHOICE(0,   rope_scaling,    "none", "none|linear|llama3|yarn", "slows RoPE for a context longer than the original one")        \
    REAL  (0,   rope_factor,     0, 0, 1e6, "with rope-scaling: how many times as long the context becomes")                        \
    INT   (0,   rope_original_len, 0, 0, 1048576, "with llama3, yarn: the original context; 0: that of --model DIR")                \
    REAL  (0,   rope_low_freq,   0, 0, 1e6, "with llama3, yarn: pairs of fewer turns in it are slowed by the factor; 0: 1")         \
    REAL  (0,   rope_high_freq,  0, 0, 1e6, "with llama3, yarn: pairs of more turns are not; 0: llama3 4, yarn 32")                 \
    REAL  (0,   rope_magnitude,  0, 0, 1000, "with yarn: multiplies queries and keys; 0: 1 + ln(rope-factor) / 10")                 \
    FLAG  (0,   rope_whole_pairs, 1, "with yarn: both bounds are moved outwards to whole pairs")                                    \
    CHOICE(0,   norm,            "layernorm", "layernorm|rmsnorm|none", "normalisation of what enters attention, MLP and head")     \
    CHOICE(0,   norm_place,      "pre", "pre|post", "before attention and MLP, or after their sum with the residual")               \
    FLAG  (0,   qk_norm,         0, "RMSNorm of every query and key head before RoPE")                                              \
    REAL  (0,   norm_eps,        1e-5, 1e-12, 1, "epsilon of the norms")                                                            \
    REAL  (0,   dropout,         0, 0, 0.95, "probability, on embedding, attention and residual branches")                          \
    CHOICE(0,   init_scheme,     "gpt2", "gpt2|xavier|kaiming", "initial weights")                                                  \
    SECTION("Data")                                                                                                                 \
    TEXT  ('i', train_data,      "data/characters/train.bin", "training tokens: a shard, a glob in quotes, or a directory but its val*.bin")\
    TEXT  ('j', val_data,        "data/characters/val.bin", "validation tokens, as -i (a directory: its val*.bin); if only -i is given, its name with val for train")\
    CHOICE(0,   data_order,      "crops", "crops|shards", "random places, or every row once an epoch in shuffled order")            \
    FLAG  (0,   doc_start,       0, "rows begin at the data's end-of-text tokens, so at documents, not in their middle")            \
    INT   ('t', seq_len,         128, 1, 1048576, "T, tokens in a row")                                                             \
    INT   ('b', batch,           8, 1, 65536, "B, rows in a micro-batch")                                                           \
    INT   ('g', grad_accum,      8, 1, 1048576, "micro-batches of a rank in a step")                                                \
    INT   (0,   total_batch,     0, 0, 1073741824, "tokens in a step; sets grad-accum; 0: ranks x batch x seq-len x grad-accum")    \
    TEXT  (0,   batch_schedule,  "", "grad-accum from a step on, as 0:1,200:4,400:8")                                               \
    SECTION("Optimizer")                                                                                                            \
    CHOICE(0,   optimizer,       "adamw", "adamw|sgd", "update rule")                                                               \
    REAL  ('l', lr,              3e-3, 0, 1000, "peak learning rate")                                                               \
    REAL  (0,   beta1,           0.9, 0, 0.99999, "AdamW's decay of the first moment")                                              \
    REAL  (0,   beta2,           0.99, 0, 0.9999999, "AdamW's decay of the second moment")                                          \
    REAL  (0,   eps,             1e-8, 1e-30, 1, "AdamW's epsilon")                                                                 \
    REAL  (0,   weight_decay,    0.1, 0, 100, "decoupled, on weights of two dimensions")                                            \
    REAL  (0,   grad_clip,       1, 0, 1e9, "largest global norm of the gradient; 0: never clip")                                   \
    CHOICE(0,   schedule,        "cosine", "constant|linear|cosine|wsd|inverse-sqrt|sqrt-decay", "of the learning rate")            \
    INT   (0,   warmup,          50, 0, 1073741824, "steps of linear warm-up")                                                      \
    CHOICE(0,   warmup_from,     "zero", "zero|one", "warm-up factor t/warmup, or (t+1)/warmup as nanoGPT has it")                  \
    INT   (0,   decay_steps,     0, 0, 1073741824, "step at which min-lr is reached (0: steps); wsd: length of the final decay")    \
    REAL  (0,   min_lr,          0, 0, 1000, "learning rate at the end of the decay")                                               \
    REAL  (0,   skip_spikes,     0, 0, 1e6, "leave out updates so many standard deviations above the last 128; 0: none")            \
    SECTION("Run")                                                                                                                  \
    INT   ('x', steps,           600, 0, 1073741824, "optimizer steps")                                                             \
    REAL  (0,   max_time,        0, 0, 1e9, "seconds of training after which the last checkpoint must be written; 0: no limit")                           \
    INT   ('s', seed,            1337, 0, 9007199254740991, "of initial weights, data order and dropout")                           \
    TEXT  (0,   device,          "auto", "cpu, cuda, or auto: the best at hand")                                                    \
    CHOICE(0,   dtype,           "auto", "auto|fp32|bf16", "of weights and activations; auto: fp32 on the CPU, bf16 on a GPU")      \
    FLAG  (0,   deterministic,   0, "the same bits on every run on this machine (the cpu always gives them)")                       \
    CHOICE(0,   attention,       "auto", "auto|own|cudnn|plain", "kernels of attention on a GPU; auto: the fastest at hand")        \
    FLAG  (0,   tf32,            0, "let fp32 matrix products on a GPU round their inputs to TF32")                                 \
    FLAG  (0,   autotune,        1, "on a GPU, time the algorithms of each matrix product once and keep the fastest")               \
    TEXT  (0,   algorithms,      "matmul_algorithms.txt", "file that keeps what autotune chose; '': none")                          \
    FLAG  (0,   graphs,          1, "on a GPU, replay micro-steps as CUDA graphs")                                                  \
    CHOICE(0,   residual,        "norm", "norm|matmul", "which kernel adds the residual; matmul only without dropout")              \
    CHOICE(0,   recompute,       "none", "none|mlp|norm|block", "activations made again in backward instead of kept")               \
    INT   (0,   head_chunks,     0, 0, 1048576, "pieces in which the logits are made; 0: bounded by their memory")                  \
    TEXT  (0,   config,          "", "file of options, a line each, as: lr = 3e-4 # peak; the command line wins")                   \
    SECTION("Many ranks")                                                                                                           \
    INT   (0,   gpus,            0, 0, 1024, "ranks to start on this machine, a GPU each; 0: as mpirun, srun, torchrun say")        \
    CHOICE(0,   comm,            "auto", "auto|none|nccl|mpi|tcp|loopback", "what carries gradients")                               \
    INT   (0,   ranks,           0, 0, 1048576, "with --plan: for so many; with --comm loopback: threads of this process")          \
    INT   (0,   zero,            0, 0, 1, "1: each rank keeps only its share of the optimizer's state (ZeRO-1)")                    \
    REAL  (0,   comm_timeout,    300, 1, 1e6, "seconds that a rank may let the others wait before all end")                         \
    INT   (0,   check_ranks,     0, 0, 1073741824, "steps between comparisons of all ranks' parameters; 0: at the start alone")     \
    REAL  (0,   plan_memory,     0, 0, 1e6, "with --plan: GiB of memory to fill, in place of this device's")                        \
    REAL  (0,   link_speed,      0, 0, 1e6, "with --plan --ranks: GB/s that a rank sends and receives at once")                     \
    REAL  (0,   matmul_speed,    0, 0, 1e6, "with --plan --ranks: TFLOP/s of a rank's matrix products")                             \
    SECTION("Evaluation, log and checkpoints")                                                                                      \
    INT   (0,   eval_every,      50, 0, 1073741824, "steps between evaluations of both splits; 0: only at the end")                 \
    INT   (0,   eval_batches,    20, 0, 1073741824, "micro-batches in an evaluation of a split; 0: the whole validation set, as much of training")\
    FLAG  (0,   eval_only,       0, "evaluate the model of --model DIR or --resume, print, and exit")                               \
    TEXT  (0,   hellaswag,       "", "file of data/hellaswag.py: HellaSwag at every evaluation")                                    \
    INT   (0,   hellaswag_limit, 0, 0, 1073741824, "of its examples; 0: all")                                                       \
    INT   (0,   log_every,       10, 1, 1073741824, "steps between lines of progress")                                              \
    TEXT  ('o', out,             "out", "directory of log.jsonl and checkpoints")                                                   \
    INT   (0,   checkpoint_every,100, 0, 1073741824, "steps between checkpoints; 0: only the best and the last")                    \
    INT   (0,   keep,            1, 1, 1000000, "newest checkpoints kept besides the best")                                         \
    FLAG  (0,   checkpoint_async, 1, "write checkpoints while training goes on, from a copy in host memory")                        \
    TEXT  (0,   resume,          "", "auto: the newest complete checkpoint in --out; or a checkpoint's directory")                  \
    FLAG  (0,   quiet,           0, "nothing on the terminal but warnings and the last line")                                       \
    FLAG  (0,   live,            1, "on a terminal, a line of progress that is written over at every step")                         \
    INT   (0,   sample_every,    0, 0, 1073741824, "steps between samples in out/samples.txt; 0: only one at the end")              \
    INT   (0,   sample_tokens,   200, 0, 1073741824, "tokens in such a sample; 0: none is written")                                 \
    TEXT  (0,   sample_prompt,   "\n", "text that it goes on from")                                                                 \
    FLAG  (0,   curve,           1, "at the end draw out/curve.png by scripts/plot.py, where python3 has matplotlib")               \
    SECTION("Looking inside")                                                                                                       \
    FLAG  (0,   plan,            0, "print parameters, memory and FLOPs, and exit")                                                 \
    FLAG  (0,   print_config,    0, "print the config.json of the model, and exit")                                                 \
    TEXT  (0,   export_,         "", "write the model of --model DIR or --resume as a Hugging Face directory, and exit")            \
    INT   (0,   stats,           0, 0, 1073741824, "steps between norms of weights, gradients and activations, layer by layer, in the log; 0: never")\
    FLAG  (0,   overfit,         0, "train on the first batch again and again, without dropout: the loss must go to nearly zero")   \
    FLAG  (0,   profile,         0, "time every op against the machine's floor")                                                    \
    FLAG  (0,   check_numerics,  0, "scan every op's outputs and stop at the first NaN or Inf, naming the op")

#define SAMPLE_OPTIONS(SECTION, REAL, INT, FLAG, CHOICE, TEXT)                                                                      \
    SECTION("Sampling")                                                                                                             \
    TEXT  ('m', model,           "out", "directory of a model, of a checkpoint, or of a run (its best checkpoint)")                 \
    TEXT  ('p', prompt,          "\n", "text to go on from, or FILE:path")                                                          \
    INT   ('n', n,               1, 1, 1000000, "samples")                                                                          \
    INT   (0,   max_tokens,      500, 1, 1073741824, "tokens in a sample")                                                          \
    REAL  (0,   temperature,     0.8, 0, 100, "divides the logits; 0: always the likeliest token")                                  \
    INT   (0,   top_k,           0, 0, 16777216, "keep only the k likeliest tokens; 0: all")                                        \
    REAL  (0,   top_p,           1, 0, 1, "keep the smallest set of tokens whose mass is at least p")                               \
    INT   ('s', seed,            1337, 0, 9007199254740991, "sample i uses seed + i")                                               \
    FLAG  (0,   cache,           1, "keep keys and values; 0 computes every token from the whole context again")                    \
    TEXT  (0,   device,          "auto", "cpu, cuda, or auto: the best at hand")                                                    \
    CHOICE(0,   dtype,           "auto", "auto|fp32|bf16", "of weights and activations")

typedef enum { OPTION_SECTION, OPTION_REAL, OPTION_INT, OPTION_FLAG, OPTION_CHOICE, OPTION_TEXT } OptionKind;

/* Where a value came from; a later source overrides an earlier one. */
typedef enum { FROM_DEFAULT, FROM_MODEL, FROM_CHECKPOINT, FROM_FILE, FROM_COMMAND_LINE } OptionSource;

typedef union { double real; int64_t integer; char *text; } OptionValue;

typedef struct {
    OptionKind kind;
    char letter;
    const char *name;          /* as in C: n_layer */
    double least, most;
    const char *choices;
    const char *fallback;      /* the default, as text */
    const char *help;
    size_t value, source;      /* offsets of the field and of its OptionSource in the struct */
} OptionRow;

typedef struct { const OptionRow *rows; int count; const char *usage; } OptionTable;

/* The struct of a list: fields, and for each `from.field`, its source. */
#define OPTION_NO_FIELD(title)
#define OPTION_REAL_FIELD(letter, field, ...) double field;
#define OPTION_INT_FIELD(letter, field, ...) int64_t field;
#define OPTION_TEXT_FIELD(letter, field, ...) char *field;
#define OPTION_SOURCE_FIELD(letter, field, ...) OptionSource field;
#define OPTION_STRUCT(LIST)                                                                                                         \
    LIST(OPTION_NO_FIELD, OPTION_REAL_FIELD, OPTION_INT_FIELD, OPTION_INT_FIELD, OPTION_INT_FIELD, OPTION_TEXT_FIELD)               \
    struct { LIST(OPTION_NO_FIELD, OPTION_SOURCE_FIELD, OPTION_SOURCE_FIELD, OPTION_SOURCE_FIELD, OPTION_SOURCE_FIELD,              \
                  OPTION_SOURCE_FIELD) } from;

typedef struct { OPTION_STRUCT(TRAIN_OPTIONS) } Options;
typedef struct { OPTION_STRUCT(SAMPLE_OPTIONS) } SampleOptions;

extern const OptionTable train_options, sample_options;

/* Sets every field to its default. `values` is an Options or SampleOptions, as the table says. */
void options_set_defaults(const OptionTable *table, void *values);
/* Frees the texts. */
void options_release(const OptionTable *table, void *values);
/* Sets one option from text; ranked by source: a value from a stronger source stays. False with a sentence: unknown name (the nearest
   one is named), not a number, out of range, not one of the choices. */
bool options_set(const OptionTable *table, void *values, const char *name, const char *text, OptionSource source, char error[ERROR_SIZE]);
/* Lines of `key = value`; # at a line's beginning or after a blank begins a comment. A value may stand in quotes, " or ', which are taken off, and
   in which # is a character. A byte-order mark is passed over. No file names another by `config`. */
bool options_read_text(const OptionTable *table, void *values, const char *text, size_t length, const char *path, OptionSource source,
                       char error[ERROR_SIZE]);
/* The file that `values` names by config, if it does; what came from a stronger source stays. */
bool options_read_config(const OptionTable *table, void *values, char error[ERROR_SIZE]);
/* The command line, then the file it names with --config. --help prints and exits 0; a mistake dies. */
void options_parse(const OptionTable *table, void *values, int argc, char **argv);
/* The option's value as text that options_set reads back to the same value; free() it. */
char *options_format(const OptionRow *row, const void *values);
void options_help(const OptionTable *table);
/* The row of that name, in either spelling, or NULL. */
const OptionRow *options_find(const OptionTable *table, const char *name);
/* Of choices as "a|b|c": the number of a word, or -1; and the word of that number, in fresh memory. */
int option_choice_index(const char *choices, const char *word);
char *option_choice_word(const char *choices, int64_t index);

/* For train_gpt's table: what the checkpoint and the fuzzer use. */
void options_defaults(Options *options);
bool options_parse_text(Options *options, const char *text, size_t length, const char *path, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
