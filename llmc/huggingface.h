/* huggingface.h: models as Hugging Face's transformers has them: config.json of the families gpt2, llama, qwen2, qwen3 and gpt_neox, and of
   our own, train_gpt, for what no family expresses. Its fields are GPT-2's and what GPT-2 lacks; its tensors have our names.

   RoPE in files of a family always rotates the halves of a head against each other (ROPE_HALF). A model whose pairs are interleaved is
   written with the rows of its queries and keys in that order, and config.json then has the member "train_gpt_rope_layout": "interleaved",
   by which they are put back when we read it; transformers does not heed it. */
#ifndef LLMC_HUGGINGFACE_H
#define LLMC_HUGGINGFACE_H

#include "config.h"
#include "json.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The model_type that expresses the architecture; or NULL, with a sentence that names the nearest family and what it lacks. */
const char *huggingface_family(const Config *config, char error[ERROR_SIZE]);

/* Token ids that begin a text, end it, and fill it up: numbers, or for eos an array of them; NULL: not known. */
typedef struct { const Json *bos, *eos, *pad; } SpecialTokens;
/* Whether id is that of a token, of V. Only such are written. */
bool is_token(const Json *id, int64_t V);

/* config.json of the family, or of train_gpt, for weights of that dtype (F32 or BF16). What is read back is the same config. */
void config_write(FILE *file, const Config *config, DType dtype, SpecialTokens special);
/* generation_config.json, without which transformers would take its own defaults for such tokens. */
void generation_config_write(FILE *file, SpecialTokens special, int64_t V);
/* config_write for fp32 and unknown special tokens. */
void config_write_json(FILE *file, const Config *config);
/* Refuses, by name, features that the engine lacks. */
bool config_read_json(Config *config, const Json *json, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
