/* bpe_write.c: see bpe_parts.h. The texts of vocab.json, merges.txt and tokenizer.json. */
#include "bpe_parts.h"
#include "error.h"

#include <stdlib.h>

/* The token's text in the files. */
static char *spelling_of(const Bpe *bpe, int64_t token) {
    int64_t i = bpe->specials.count - 1;
    while (i >= 0 && bpe->added[i].token != token) i--;
    return i >= 0 ? xstrdup(bpe->added[i].text) : bpe_spell(bpe->tokens[token].bytes, bpe->tokens[token].length);
}

void bpe_write_vocab(FILE *file, const Bpe *bpe) {
    const char *separator = "{";
    for (int64_t token = 0; token < bpe->vocab_size; token++) {
        if (!bpe->tokens[token].bytes) continue;
        char *text = spelling_of(bpe, token);
        fprintf(file, "%s\n", separator);
        json_write_string(file, text);
        fprintf(file, ": %d", (int)token);
        separator = ",";
        free(text);
    }
    fprintf(file, "\n}\n");
}

static char *merge_text(const Bpe *bpe, int64_t rank) {
    char *left = spelling_of(bpe, bpe->merges[rank].left), *right = spelling_of(bpe, bpe->merges[rank].right);
    char *text = xprintf("%s %s", left, right);
    free(left);
    free(right);
    return text;
}

void bpe_write_merges(FILE *file, const Bpe *bpe) {
    fprintf(file, "#version: 0.2\n");
    for (int64_t rank = 0; rank < bpe->merge_count; rank++) {
        char *text = merge_text(bpe, rank);
        fprintf(file, "%s\n", text);
        free(text);
    }
}

static void write_added(FILE *file, const Bpe *bpe) {
    fprintf(file, "\"added_tokens\": [");
    for (int64_t i = 0; i < bpe->specials.count; i++) {
        const BpeAdded *added = &bpe->added[i];
        fprintf(file, "%s\n{\"id\": %d, \"content\": ", i ? "," : "", added->token);
        json_write_string(file, added->text);
        fprintf(file, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": %s, \"special\": %s}",
                added->normalized ? "true" : "false", added->special ? "true" : "false");
    }
    fprintf(file, "],\n");
}

/* Merges as "a b", which every release of tokenizers reads; the pairs of newer ones are for tokens with spaces in them. */
static void write_model(FILE *file, const Bpe *bpe) {
    fprintf(file, "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null, "
                  "\"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": %s,\n\"vocab\": ",
            bpe->rules.whole_words ? "true" : "false");
    bpe_write_vocab(file, bpe);
    fprintf(file, ",\"merges\": [");
    for (int64_t rank = 0; rank < bpe->merge_count; rank++) {
        char *text = merge_text(bpe, rank);
        fprintf(file, rank ? ",\n" : "\n");
        json_write_string(file, text);
        free(text);
    }
    fprintf(file, "]}");
}

void bpe_write_tokenizer(FILE *file, const Bpe *bpe) {
    fprintf(file, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n");
    write_added(file, bpe);
    bpe_write_rules(file, bpe);
    fprintf(file, "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n");
    write_model(file, bpe);
    fprintf(file, "}\n");
}
