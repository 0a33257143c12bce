/* hf_words.h: words in config.json, for its writer (hf_config_write.c) and its reader (hf_config.c). */
#ifndef LLMC_HF_WORDS_H
#define LLMC_HF_WORDS_H

#include "config.h"

extern const char rope_layout_key[];
/* rope_type, by ScalingKind. */
extern const char *const scaling_names[SCALING_YARN + 1];
/* The words of train_gpt's own fields are those of its options. */
const char *choices_of(const char *option);
/* transformers' name of an activation. */
const char *activation_name(Activation activation);
/* The activation that transformers calls so; false if there is none here. */
bool activation_named(Activation *activation, const char *name);

#endif
