/* hf_words.c: see hf_words.h. */
#include "hf_words.h"

#include <string.h>

const char rope_layout_key[] = "train_gpt_rope_layout";

const char *const scaling_names[SCALING_YARN + 1] = {"default", "linear", "llama3", "yarn"};

const char *choices_of(const char *option) { return options_find(&train_options, option)->choices; }

/* transformers' names of activations: the first of each is the one that is written. */
static const struct { const char *name; Activation activation; } activation_names[] = {
    {"gelu_new", ACT_GELU}, {"gelu", ACT_GELU_ERF}, {"relu", ACT_RELU}, {"silu", ACT_SILU}, {"relu2", ACT_RELU2},

    {"gelu_pytorch_tanh", ACT_GELU}, {"gelu_fast", ACT_GELU}, {"gelu_accurate", ACT_GELU}, {"gelu_python_tanh", ACT_GELU},
    {"gelu_python", ACT_GELU_ERF}, {"swish", ACT_SILU},
};
enum { ACTIVATION_NAMES = sizeof activation_names / sizeof *activation_names };

const char *activation_name(Activation activation) {
    int i = 0;
    while (activation_names[i].activation != activation) i++;
    return activation_names[i].name;
}

bool activation_named(Activation *activation, const char *name) {
    for (int i = 0; i < ACTIVATION_NAMES; i++) {
        if (strcmp(activation_names[i].name, name) != 0) continue;
        *activation = activation_names[i].activation;
        return true;
    }
    return false;
}
