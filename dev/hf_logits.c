/* hf_logits: logits of a directory's model, on the CPU in fp32, for dev/check_hf.py:  hf_logits DIRECTORY TOKENS LOGITS
   TOKENS is a safetensors file with the tensor tokens (B,T) of I32; LOGITS will be one with the tensor logits (B,T,V) of F32. */
#include "llmc/error.h"
#include "llmc/model_directory.h"
#include "llmc/safetensors.h"

#include <stdlib.h>
#include <string.h>

static int32_t *read_tokens(const char *path, int64_t *B, int64_t *T) {
    char error[ERROR_SIZE];
    Safetensors file;
    if (!safetensors_open(&file, path, error)) die("%s", error);
    const SafetensorsEntry *entry = safetensors_find(&file, "tokens");
    if (!entry || entry->dtype != ST_I32 || entry->rank != 2) die("%s has no tensor tokens (B,T) of I32", path);
    *B = entry->shape[0];
    *T = entry->shape[1];
    int32_t *tokens = xmalloc(entry->bytes);
    memcpy(tokens, entry->data, entry->bytes);
    safetensors_close(&file);
    return tokens;
}

static void write_logits(const char *path, int64_t B, int64_t T, int64_t V, const float *logits) {
    char error[ERROR_SIZE];
    const int64_t shape[] = {B, T, V};
    SafetensorsWriter *w = safetensors_create(path);
    safetensors_declare(w, "logits", ST_F32, 3, shape);
    safetensors_begin(w);
    safetensors_write(w, logits, (size_t)(B * T * V) * sizeof *logits);
    if (!safetensors_finish(w, NULL, error)) die("%s", error);
}

int main(int argc, char **argv) {
    char error[ERROR_SIZE];
    ModelSpec spec = {.dtype = F32, .mode = MODEL_EVALUATE};
    Model m;
    error_program_name("hf_logits");
    if (argc != 4) die("usage: hf_logits DIRECTORY TOKENS LOGITS");
    int32_t *tokens = read_tokens(argv[2], &spec.B, &spec.T);
    if (!model_directory_config(argv[1], &spec.config, error)) die("%s", error);
    for (int64_t i = 0; i < spec.B * spec.T; i++)
        if (tokens[i] < 0 || tokens[i] >= spec.config.V)
            die("token %d is not in the vocabulary of %lld", (int)tokens[i], (long long)spec.config.V);
    model_create(&m, &spec, backend_find("cpu"));
    if (!model_read_directory(&m, argv[1], error)) die("%s", error);
    float *logits = xmalloc((size_t)(spec.B * spec.T * spec.config.V) * sizeof *logits);
    model_evaluate(&m, tokens, tokens);
    model_copy_logits(&m, logits);
    write_logits(argv[3], spec.B, spec.T, spec.config.V, logits);
    model_free(&m);
    free(logits);
    free(tokens);
    return 0;
}
