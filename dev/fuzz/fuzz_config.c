/* fuzz_config.c: a config.json of any family that is read describes a possible model, and writing it and reading that gives the same model. */
#include "llmc/error.h"
#include "llmc/huggingface.h"

#include <stdlib.h>
#include <string.h>

static void check_config(const Config *config) {
    char error[ERROR_SIZE] = "", *text = NULL;
    size_t length = 0;
    CHECK(config->L > 0 && config->HS > 0 && config->Vp >= config->V && config->Vp % 128 == 0 && config->NH % config->NKV == 0);
    FILE *file = open_memstream(&text, &length);
    config_write_json(file, config);
    fclose(file);
    Json *json = json_parse(text, length, error, sizeof error);
    CHECK(json);
    Config again;
    CHECK(config_read_json(&again, json, error));
    CHECK(config_same(config, &again, error) && config->dropout == again.dropout && config->maxT == again.maxT);
    json_free(json);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[ERROR_SIZE] = "";
    Config config;
    Json *json = json_parse((const char *)data, size, NULL, 0);
    if (!json) return 0;
    if (config_read_json(&config, json, error)) check_config(&config);
    else CHECK(*error && strlen(error) < ERROR_SIZE);
    json_free(json);
    return 0;
}
