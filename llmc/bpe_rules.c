/* bpe_rules.c: see bpe_parts.h. What a tokenizer.json says about texts, vocabulary and merges apart: read, written, and refused by name where it
   is not done here. */
#include "bpe_parts.h"

#include <string.h>

/* The expressions of pretokenize.h as the tools spell them; the first of each kind is the one we write. */
static const struct {
    Pretokenization kind;
    const char *expression;
} spellings[] = {
    { PRETOKENS_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
    { PRETOKENS_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
    { PRETOKENS_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s" },
    { PRETOKENS_LLAMA3, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                        "\\s+(?!\\S)|\\s+" },
    { PRETOKENS_QWEN2, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                       "\\s+(?!\\S)|\\s+" },
};
enum { SPELLINGS = sizeof spellings / sizeof *spellings };

typedef struct {
    const char *name;           /* of the file, in quotes, for messages */
    char *error;
    BpeRules *rules;
} Reader;

/* ---- JSON ---- */

static const char *type_of(const Json *json) {
    const char *type = json_get_string(json, "type");
    return type ? type : "of no type";
}

static bool is_type(const Json *json, const char *type) { return strcmp(type_of(json), type) == 0; }

static bool is_bool(const Json *object, const char *key, bool wanted) {
    bool value;
    return json_get_bool(object, key, &value) && value == wanted;
}

/* The list's items, if it is one of so many; else NULL. */
static const Json *items_of(const Json *list, size_t count) {
    return list && list->type == JSON_ARRAY && list->count == count ? list->items : NULL;
}

/* ---- Pre-tokens ---- */

static bool check_byte_level(const Reader *r, const Json *json, bool use_regex) {
    if (!is_bool(json, "add_prefix_space", false))
        return file_error(r->error, "%s: its pre_tokenizer puts a space before a text: add_prefix_space must be false", r->name);
    bool regex = !is_bool(json, "use_regex", false);
    return regex == use_regex || file_error(r->error, "%s: its pre_tokenizer ByteLevel has use_regex %s, where %s is needed", r->name,
                                            regex ? "true" : "false", use_regex ? "true" : "false");
}

static bool read_split(const Reader *r, const Json *json) {
    const char *expression = json_get_string(json_get(json, "pattern"), "Regex"), *behavior = json_get_string(json, "behavior");
    int i = 0;
    while (expression && i < SPELLINGS && strcmp(expression, spellings[i].expression) != 0) i++;
    if (!expression || i == SPELLINGS)
        return file_error(r->error, "%s: its pre_tokenizer splits by \"%.120s\", where the expression of GPT-2, Llama 3 or Qwen 2 is needed",
                          r->name, expression ? expression : "no expression");
    const Json *invert = json_get(json, "invert");
    if (!behavior || strcmp(behavior, "Isolated") != 0 || !(is_null(invert) || invert->type == JSON_FALSE))
        return file_error(r->error, "%s: its pre_tokenizer Split has another behavior than Isolated, or is inverted", r->name);
    r->rules->pretokenization = spellings[i].kind;
    return true;
}

static bool read_digits(const Reader *r, const Json *json) {
    r->rules->pretokenization = PRETOKENS_SMOLLM;
    return is_bool(json, "individual_digits", true) ||
           file_error(r->error, "%s: its pre_tokenizer Digits has individual_digits false, where true is needed", r->name);
}

static bool read_pretokenizer(const Reader *r, const Json *json) {
    if (is_null(json)) return file_error(r->error, "%s has no pre_tokenizer, where ByteLevel is needed", r->name);
    if (is_type(json, "ByteLevel")) return check_byte_level(r, json, true);
    const Json *steps = is_type(json, "Sequence") ? items_of(json_get(json, "pretokenizers"), 2) : NULL;
    if (steps && is_type(&steps[1], "ByteLevel")) {
        if (is_type(&steps[0], "Split")) return read_split(r, &steps[0]) && check_byte_level(r, &steps[1], false);
        if (is_type(&steps[0], "Digits")) return read_digits(r, &steps[0]) && check_byte_level(r, &steps[1], true);
    }
    return file_error(r->error, "%s: its pre_tokenizer is %.80s, where ByteLevel is needed, or a Sequence of a Split by a known expression, or "
                                "Digits, and ByteLevel", r->name, type_of(json));
}

/* ---- What goes before a text ---- */

/* The number of a special token of the template. */
static bool read_first(const Reader *r, const Json *processor, const char *special) {
    const Json *ids = items_of(json_get(json_get(json_get(processor, "special_tokens"), special), "ids"), 1);
    int64_t id;
    if (!ids || !json_integer(ids, &id) || id < 0 || id >= BPE_MAX_TOKENS)
        return file_error(r->error, "%s: its post_processor, TemplateProcessing, names \"%.80s\", which is not one token in its special_tokens",
                          r->name, special);
    r->rules->first = (int32_t)id;
    return true;
}

/* For a single text: itself, with one token before it at most. What a template has for pairs of texts is never asked for. */
static bool read_template(const Reader *r, const Json *processor) {
    const Json *single = json_get(processor, "single");
    size_t count = single && single->type == JSON_ARRAY ? single->count : 0;
    const char *sequence = count > 0 ? json_get_string(json_get(&single->items[count - 1], "Sequence"), "id") : NULL;
    const char *special = count == 2 ? json_get_string(json_get(&single->items[0], "SpecialToken"), "id") : NULL;
    if (!sequence || strcmp(sequence, "A") != 0 || count > 2 || (count == 2 && !special) || (special && r->rules->first >= 0))
        return file_error(r->error, "%s: its post_processor, TemplateProcessing, is not done here: \"single\" must hold one special token, or "
                                    "none, and then Sequence A", r->name);
    return !special || read_first(r, processor, special);
}

static bool read_processor(const Reader *r, const Json *processor) {
    const Json *steps = is_type(processor, "Sequence") ? json_get(processor, "processors") : NULL;
    if (is_null(processor) || is_type(processor, "ByteLevel")) return true;
    if (is_type(processor, "TemplateProcessing")) return read_template(r, processor);
    bool good = steps && steps->type == JSON_ARRAY;
    for (size_t i = 0; good && i < steps->count; i++) {
        if (is_type(&steps->items[i], "TemplateProcessing") && !read_template(r, &steps->items[i])) return false;
        good = is_type(&steps->items[i], "TemplateProcessing") || is_type(&steps->items[i], "ByteLevel");
    }
    return good || file_error(r->error, "%s: its post_processor, %.80s, is not done here; it must be null, ByteLevel, TemplateProcessing, or a "
                                        "Sequence of these", r->name, type_of(processor));
}

/* ---- The rest ---- */

static bool read_normalizer(const Reader *r, const Json *normalizer) {
    r->rules->nfc = is_type(normalizer, "NFC");
    return is_null(normalizer) || r->rules->nfc ||
           file_error(r->error, "%s: its normalizer, %.80s, is not done here; it must be null or NFC", r->name, type_of(normalizer));
}

/* Nothing, false, "" or 0. */
static bool is_unset(const Json *json) {
    return is_null(json) || json->type == JSON_FALSE || (json->type == JSON_STRING && !*json->string) ||
           (json->type == JSON_NUMBER && json->number == 0);
}

/* But unk_token: with all 256 bytes no text has need of it. */
static bool read_model(const Reader *r, const Json *model) {
    static const char *const options[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback" };
    if (is_null(model)) return file_error(r->error, "%s has no model, so it is no tokenizer.json", r->name);
    if (json_get(model, "type") && !is_type(model, "BPE"))   /* old files do not say */
        return file_error(r->error, "%s: its model is %.80s, where BPE is needed", r->name, type_of(model));
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!is_unset(json_get(model, options[i])))
            return file_error(r->error, "%s: its model sets %s, which is not done here", r->name, options[i]);
    r->rules->whole_words = !is_unset(json_get(model, "ignore_merges"));
    return true;
}

bool bpe_read_rules(const Json *tokenizer, BpeRules *rules, const char *name, char error[ERROR_SIZE]) {
    Reader r = { name, error, rules };
    *rules = (BpeRules){ .first = -1 };
    return read_model(&r, json_get(tokenizer, "model")) && read_pretokenizer(&r, json_get(tokenizer, "pre_tokenizer")) &&
           read_normalizer(&r, json_get(tokenizer, "normalizer")) && read_processor(&r, json_get(tokenizer, "post_processor"));
}

/* ---- Writing ---- */

static void write_pretokenizer(FILE *file, Pretokenization kind) {
    int i = 0;
    while (i < SPELLINGS && spellings[i].kind != kind) i++;
    bool sequence = kind != PRETOKENS_GPT2, split = sequence && i < SPELLINGS;
    fprintf(file, "\"pre_tokenizer\": ");
    if (sequence) fprintf(file, "{\"type\": \"Sequence\", \"pretokenizers\": [");
    if (split) {
        fprintf(file, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        json_write_string(file, spellings[i].expression);
        fprintf(file, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    } else if (sequence) {
        fprintf(file, "{\"type\": \"Digits\", \"individual_digits\": true}, ");
    }
    fprintf(file, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": %s}%s,\n", split ? "false" : "true",
            sequence ? "]}" : "");
}

/* {"Sequence": {"id": "A", "type_id": 0}} and the like. */
static void write_piece(FILE *file, const char *kind, const char *id, int type) {
    fprintf(file, "{\"%s\": {\"id\": ", kind);
    json_write_string(file, id);
    fprintf(file, ", \"type_id\": %d}}", type);
}

static void write_template(FILE *file, const char *first, int32_t token) {
    static const char *const members[] = { "single", "pair" };
    fprintf(file, "{\"type\": \"TemplateProcessing\"");
    for (int pair = 0; pair < 2; pair++) {
        fprintf(file, ", \"%s\": [", members[pair]);
        for (int type = 0; type <= pair; type++) {
            if (type > 0) fprintf(file, ", ");
            write_piece(file, "SpecialToken", first, type);
            fprintf(file, ", ");
            write_piece(file, "Sequence", type ? "B" : "A", type);
        }
        fprintf(file, "]");
    }
    fprintf(file, ", \"special_tokens\": {");
    json_write_string(file, first);
    fprintf(file, ": {\"id\": ");
    json_write_string(file, first);
    fprintf(file, ", \"ids\": [%d], \"tokens\": [", token);
    json_write_string(file, first);
    fprintf(file, "]}}}");
}

void bpe_write_rules(FILE *file, const Bpe *bpe) {
    int64_t i = 0;
    while (i < bpe->specials.count && bpe->added[i].token != bpe->rules.first) i++;
    fprintf(file, "\"normalizer\": %s,\n", bpe->rules.nfc ? "{\"type\": \"NFC\"}" : "null");
    write_pretokenizer(file, bpe->rules.pretokenization);
    fprintf(file, "\"post_processor\": ");
    if (i < bpe->specials.count) write_template(file, bpe->added[i].text, bpe->rules.first);
    else fprintf(file, "null");
    fprintf(file, ",\n");
}
