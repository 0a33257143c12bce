/* bpe_files.c: see bpe.h. vocab.json, merges.txt and tokenizer.json read, and kept once bpe_write.c has written them. */
#define _GNU_SOURCE   /* open_memstream */
#include "bpe_parts.h"
#include "error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 256 << 20 };

static const char vocab_file[] = "vocab.json", merges_file[] = "merges.txt", tokenizer_file[] = "tokenizer.json";

/* ---- Tokens and merges, as they are read ---- */

typedef struct {
    const char *name;           /* of the file, in quotes, for messages */
    char *error;
    const Json *vocab;
    BpeToken *tokens;           /* (vocab_size) */
    const char **spelling;      /* (vocab_size) a token's key in the file; NULL where there is none */
    bool *unspelled;            /* (vocab_size) that key is not in GPT-2's letters, and the token is not known to be special */
    int64_t vocab_size;
    BpeMerge *merges;
    int64_t merge_count, merge_capacity;
} Reader;

static void reader_free(Reader *r) {
    for (int64_t i = 0; i < r->vocab_size && r->tokens; i++) free(r->tokens[i].bytes);
    free(r->tokens);
    free(r->merges);
    free(r->spelling);
    free(r->unspelled);
}

static bool check_id(const Reader *r, const char *text, const Json *json, int64_t *id) {
    if (json_integer(json, id) && *id >= 0 && *id < BPE_MAX_TOKENS) return true;
    return file_error(r->error, "%s: the token \"%.80s\" has no number from 0 to %d", r->name, text, BPE_MAX_TOKENS - 1);
}

static bool refuse_number(const Reader *r, const char *text, const char *other, int64_t id) {
    return file_error(r->error, "%s: the tokens \"%.80s\" and \"%.80s\" have the same number, %d", r->name, text, other, (int)id);
}

static bool read_token(Reader *r, const Json *member) {
    int64_t id;
    if (!*member->key) return file_error(r->error, "%s: there is an empty token", r->name);
    if (!check_id(r, member->key, member, &id)) return false;
    if (r->spelling[id]) return refuse_number(r, r->spelling[id], member->key, id);
    BpeToken *token = &r->tokens[id];
    token->bytes = bpe_unspell(member->key, &token->length);
    r->unspelled[id] = !token->bytes;
    if (!token->bytes) *token = (BpeToken){ xstrdup(member->key), strlen(member->key) };
    r->spelling[id] = member->key;
    return true;
}

/* One more than the highest number, also of tokens added besides; -1 on error. */
static int64_t count_tokens(const Reader *r, const Json *vocab, const Json *added) {
    int64_t count = 0, id;
    for (size_t i = 0; i < vocab->count; i++) {
        if (!check_id(r, vocab->items[i].key, &vocab->items[i], &id)) return -1;
        if (id >= count) count = id + 1;
    }
    for (size_t i = 0; added && i < added->count; i++) {
        const char *content = json_get_string(&added->items[i], "content");
        if (added->items[i].type != JSON_OBJECT) {
            file_error(r->error, "%s: number %zu of its added_tokens is not {\"id\": ..., \"content\": ...}", r->name, i + 1);
            return -1;
        }
        if (!check_id(r, content ? content : "", json_get(&added->items[i], "id"), &id)) return -1;
        if (id >= count) count = id + 1;
    }
    return count;
}

static bool read_vocab(Reader *r, const Json *vocab, const Json *added) {
    if (!vocab || vocab->type != JSON_OBJECT)
        return file_error(r->error, "%s has no vocabulary, {\"token\": number, ...}", r->name);
    int64_t count = count_tokens(r, vocab, added);
    if (count < 0) return false;
    r->vocab = vocab;
    r->vocab_size = count;
    r->tokens = xcalloc(count + 1, sizeof *r->tokens);
    r->spelling = xcalloc(count + 1, sizeof *r->spelling);
    r->unspelled = xcalloc(count + 1, sizeof *r->unspelled);
    for (size_t i = 0; i < vocab->count; i++)
        if (!read_token(r, &vocab->items[i])) return false;
    return true;
}

static bool find_token(const Reader *r, const char *spelling, const char *where, int32_t *token) {
    int64_t id;
    if (!json_get_integer(r->vocab, spelling, &id))
        return file_error(r->error, "%s: \"%.80s\" is not in the vocabulary", where, spelling);
    *token = (int32_t)id;
    return true;
}

/* where: the file and the place in it, for messages. */
static bool add_merge(Reader *r, const char *left, const char *right, const char *where) {
    BpeMerge merge;
    char *both = xprintf("%s%s", left, right);
    bool good = find_token(r, left, where, &merge.left) && find_token(r, right, where, &merge.right) &&
                find_token(r, both, where, &merge.token);
    free(both);
    if (!good) return false;
    if (r->merge_count == r->merge_capacity) {
        r->merge_capacity = 2 * r->merge_capacity + 1024;
        r->merges = xrealloc(r->merges, r->merge_capacity * sizeof *r->merges);
    }
    r->merges[r->merge_count++] = merge;
    return true;
}

/* "left right", the whole text. */
static bool add_merge_text(Reader *r, const char *text, const char *where) {
    const char *space = strchr(text, ' ');
    if (!space || space == text || !space[1] || strchr(space + 1, ' '))
        return file_error(r->error, "%s: found \"%.80s\" where two tokens with a space between them were expected", where, text);
    char *left = xprintf("%.*s", (int)(space - text), text);
    bool good = add_merge(r, left, space + 1, where);
    free(left);
    return good;
}

/* Which tokens are a byte or the result of a merge, (vocab_size) in fresh memory. */
static bool *tokens_made(const Reader *r) {
    bool *made = xcalloc(r->vocab_size + 1, sizeof *made);
    for (int64_t i = 0; i < r->vocab_size; i++) made[i] = r->tokens[i].length == 1 && !r->unspelled[i];
    for (int64_t i = 0; i < r->merge_count; i++) made[r->merges[i].token] = true;
    return made;
}

/* A special token is not spelled: its text in the file is itself. */
static void take_literally(Reader *r, int64_t token, const char *text) {
    free(r->tokens[token].bytes);
    r->tokens[token] = (BpeToken){ xstrdup(text), strlen(text) };
    r->unspelled[token] = false;
}

/* A special token may be any text; of another, two keys could stand for the same bytes, and one file for two vocabularies. */
static bool check_spelled(const Reader *r) {
    for (int64_t i = 0; i < r->vocab_size; i++)
        if (r->unspelled[i])
            return file_error(r->error, "%s: the token \"%.80s\" is not special, and not spelled in the letters that stand for bytes", r->name,
                              r->spelling[i]);
    return true;
}

static Bpe *assemble(Reader *r) {
    if (!check_spelled(r)) return NULL;
    Bpe *bpe = bpe_assemble(r->tokens, r->vocab_size, r->merges, r->merge_count, r->name, r->error);
    r->tokens = NULL;
    r->merges = NULL;
    return bpe;
}

/* ---- vocab.json and merges.txt ---- */

static bool read_merges(Reader *r, const char *text, size_t length, const char *name) {
    if (memchr(text, 0, length)) return file_error(r->error, "%s holds NUL bytes, so it is no list of merges", name);
    const char *end = text + length;
    bool good = true;
    for (int64_t line = 1; good && text < end; line++) {
        size_t n = strcspn(text, "\n");
        char *pair = xprintf("%.*s", (int)(n > 0 && text[n - 1] == '\r' ? n - 1 : n), text);
        char *where = xprintf("%s, line %d", name, (int)line);
        bool heading = line == 1 && strncmp(pair, "#version", 8) == 0;
        good = heading || add_merge_text(r, pair, where);
        text += n + (text[n] == '\n');
        free(pair);
        free(where);
    }
    return good;
}

/* What no merge makes is special; if that is much, the two files do not belong together. */
static Bpe *assemble_vocabulary(Reader *r, const char *merges_name) {
    enum { MOST = 256 };
    BpeAdded added[MOST];
    int64_t count = 0;
    bool *made = tokens_made(r);
    for (int64_t i = 0; i < r->vocab_size; i++) {
        if (!r->spelling[i] || made[i]) continue;
        if (count < MOST) {
            added[count] = (BpeAdded){ (char *)r->spelling[i], (int32_t)i, true, false };
            take_literally(r, i, r->spelling[i]);
        }
        count++;
    }
    free(made);
    if (count > MOST) {
        file_error(r->error, "%s and %s do not belong together: no merge makes %d of the tokens, as \"%.80s\"", r->name, merges_name,
                   (int)count, added[0].text);
        return NULL;
    }
    Bpe *bpe = assemble(r);
    if (bpe) CHECK(bpe_set_added(bpe, added, count, r->error));
    return bpe;
}

Bpe *bpe_of_vocabulary(const char *vocab, size_t vocab_length, const char *vocab_name, const char *merges, size_t merges_length,
                       const char *merges_name, char error[ERROR_SIZE]) {
    Reader r = { .name = vocab_name, .error = error };
    char cause[ERROR_SIZE / 2];
    Json *json = json_parse(vocab, vocab_length, cause, sizeof cause);
    if (!json) file_error(error, "%s is broken: %s", vocab_name, cause);
    bool good = json && read_vocab(&r, json, NULL) && read_merges(&r, merges, merges_length, merges_name);
    Bpe *bpe = good ? assemble_vocabulary(&r, merges_name) : NULL;
    reader_free(&r);
    json_free(json);
    return bpe;
}

/* ---- tokenizer.json ---- */

static bool flag_of(const Json *object, const char *key, bool value) {
    json_get_bool(object, key, &value);
    return value;
}

static bool read_merge_list(Reader *r, const Json *list) {
    if (!list || list->type != JSON_ARRAY) return file_error(r->error, "%s: its model has no list of merges", r->name);
    bool good = true;
    for (size_t i = 0; good && i < list->count; i++) {
        const Json *merge = &list->items[i];
        bool pair = merge->type == JSON_ARRAY && merge->count == 2 && merge->items[0].type == JSON_STRING &&
                    merge->items[1].type == JSON_STRING;
        char *where = xprintf("%s, merge %zu", r->name, i + 1);
        good = merge->type == JSON_STRING ? add_merge_text(r, merge->string, where)
               : pair                     ? add_merge(r, merge->items[0].string, merge->items[1].string, where)
                                          : file_error(r->error, "%s is neither \"a b\" nor [\"a\", \"b\"]", where);
        free(where);
    }
    return good;
}

/* What is sought in normal form C must be that in every text, lest a cut of the text go across it: ASCII that stands for no other character. */
static bool check_normalized(const Reader *r, const char *text) {
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c >= 0x80 || strchr("K;`", *c))
            return file_error(r->error, "%s: the added token \"%.80s\" is normalized, and other than plain ASCII, which is not done here beside "
                                        "a normalizer", r->name, text);
    return true;
}

/* An added token: its text, and its number agreeing with the vocabulary. */
static bool read_added(Reader *r, const Json *json, const bool *made, const BpeRules *rules, BpeAdded *added) {
    static const char *const options[] = { "single_word", "lstrip", "rstrip" };
    const char *text = json_get_string(json, "content");
    int64_t id, other;
    if (!text || !*text) return file_error(r->error, "%s: an added token has no content", r->name);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (flag_of(json, options[i], false))
            return file_error(r->error, "%s: the added token \"%.80s\" sets %s, which is not done here", r->name, text, options[i]);
    CHECK(json_get_integer(json, "id", &id));
    if (json_get_integer(r->vocab, text, &other) && other != id)
        return file_error(r->error, "%s: the added token \"%.80s\" has the number %d, and %d in the vocabulary", r->name, text, (int)id,
                          (int)other);
    if (r->spelling[id] && strcmp(r->spelling[id], text) != 0) return refuse_number(r, r->spelling[id], text, id);
    if (made[id] && strcmp(r->tokens[id].bytes, text) != 0)
        return file_error(r->error, "%s: the added token \"%.80s\" is spelled as other bytes are in the vocabulary", r->name, text);
    *added = (BpeAdded){ (char *)text, (int32_t)id, flag_of(json, "special", true), flag_of(json, "normalized", false) };
    if (rules->nfc && added->normalized && !check_normalized(r, text)) return false;
    if (!made[id]) take_literally(r, id, text);
    r->unspelled[id] = false;
    r->spelling[id] = text;
    return true;
}

static bool read_all_added(Reader *r, const Json *list, const BpeRules *rules, BpeAdded *added) {
    bool *made = tokens_made(r), good = true;
    for (size_t i = 0; good && i < list->count; i++) good = read_added(r, &list->items[i], made, rules, &added[i]);
    free(made);
    return good;
}

static bool apply(const Reader *r, Bpe *bpe, const BpeRules *rules, const BpeAdded *added, size_t count) {
    char cause[ERROR_SIZE];
    int64_t i = 0;
    if (!bpe_set_added(bpe, added, (int64_t)count, cause)) return file_error(r->error, "%s: %.400s", r->name, cause);
    bpe->rules = *rules;
    if (rules->whole_words) bpe_index_words(bpe);
    while (i < bpe->specials.count && bpe->added[i].token != rules->first) i++;
    return rules->first < 0 || i < bpe->specials.count ||
           file_error(r->error, "%s: its post_processor puts token %d before a text, which is not one of its added_tokens", r->name, rules->first);
}

static Bpe *assemble_tokenizer(Reader *r, const Json *list, const BpeRules *rules) {
    BpeAdded *added = xcalloc(list->count + 1, sizeof *added);
    Bpe *bpe = read_all_added(r, list, rules, added) ? assemble(r) : NULL;
    bool good = bpe && apply(r, bpe, rules, added, list->count);
    free(added);
    if (good) return bpe;
    bpe_free(bpe);
    return NULL;
}

Bpe *bpe_of_tokenizer(const char *text, size_t length, const char *name, char error[ERROR_SIZE]) {
    Reader r = { .name = name, .error = error };
    char cause[ERROR_SIZE / 2];
    static const Json none = { .type = JSON_ARRAY };
    BpeRules rules;
    Json *json = json_parse(text, length, cause, sizeof cause);
    if (!json) file_error(error, "%s is broken: %s", name, cause);
    const Json *model = json_get(json, "model"), *added = json_get(json, "added_tokens");
    bool good = json && bpe_read_rules(json, &rules, name, error);
    if (good && !is_null(added) && added->type != JSON_ARRAY) good = file_error(error, "%s: its added_tokens are no list", name);
    good = good && read_vocab(&r, json_get(model, "vocab"), added) && read_merge_list(&r, json_get(model, "merges"));
    Bpe *bpe = good ? assemble_tokenizer(&r, is_null(added) ? &none : added, &rules) : NULL;
    reader_free(&r);
    json_free(json);
    return bpe;
}

/* ---- Opening ---- */

static Bpe *open_tokenizer(const char *path, char error[ERROR_SIZE]) {
    size_t length;
    char *text = file_read_text(path, FILE_BYTES, &length, error), *name = xprintf("'%s'", path);
    Bpe *bpe = text ? bpe_of_tokenizer(text, length, name, error) : NULL;
    free(text);
    free(name);
    return bpe;
}

static Bpe *open_vocabulary(const char *vocab_path, const char *merges_path, char error[ERROR_SIZE]) {
    size_t vocab_length, merges_length;
    char *vocab = file_read_text(vocab_path, FILE_BYTES, &vocab_length, error), *vocab_name = xprintf("'%s'", vocab_path);
    char *merges = vocab ? file_read_text(merges_path, FILE_BYTES, &merges_length, error) : NULL;
    char *merges_name = xprintf("'%s'", merges_path);
    Bpe *bpe = merges ? bpe_of_vocabulary(vocab, vocab_length, vocab_name, merges, merges_length, merges_name, error) : NULL;
    free(vocab);
    free(vocab_name);
    free(merges);
    free(merges_name);
    return bpe;
}

Bpe *bpe_open(const char *directory, char error[ERROR_SIZE]) {
    char *tokenizer = path_join(directory, tokenizer_file), *vocab = path_join(directory, vocab_file);
    char *merges = path_join(directory, merges_file);
    bool has_vocab = path_exists(vocab), has_merges = path_exists(merges);
    Bpe *bpe = NULL;
    if (path_exists(tokenizer)) bpe = open_tokenizer(tokenizer, error);
    else if (has_vocab && has_merges) bpe = open_vocabulary(vocab, merges, error);
    else if (has_vocab || has_merges)
        file_error(error, "the vocabulary in '%s' is not whole: %s is missing beside %s", directory, has_vocab ? merges_file : vocab_file,
                   has_vocab ? vocab_file : merges_file);
    else file_error(error, "there is no vocabulary in '%s': neither %s, nor %s and %s", directory, tokenizer_file, vocab_file, merges_file);
    free(tokenizer);
    free(vocab);
    free(merges);
    return bpe;
}

/* ---- Keeping ---- */

/* The file, whole but under its temporary name: file_close does the rest. */
static FileWriter *prepare(const Bpe *bpe, void (*write)(FILE *, const Bpe *), const char *path) {
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    CHECK(memory);
    write(memory, bpe);
    CHECK(fclose(memory) == 0);
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    file_sync(file);
    free(text);
    return file;
}

static bool remove_old(const char *path, char error[ERROR_SIZE]) {
    return unlink(path) == 0 || errno == ENOENT || file_error(error, "cannot replace '%s': %s", path, strerror(errno));
}

/* In an order in which never a file of an older vocabulary stands beside a new one and can be taken for the same: the older merges.txt
   goes before the new vocab.json comes. */
bool bpe_save(const Bpe *bpe, const char *directory, char error[ERROR_SIZE]) {
    enum { FILES = 3, MERGES = 1, TOKENIZER = 2 };
    static const char *const names[FILES] = { vocab_file, merges_file, tokenizer_file };
    static void (*const writers[FILES])(FILE *, const Bpe *) = { bpe_write_vocab, bpe_write_merges, bpe_write_tokenizer };
    char *paths[FILES];
    FileWriter *files[FILES];
    bool good = true;
    for (int i = 0; i < FILES; i++) {
        paths[i] = path_join(directory, names[i]);
        files[i] = prepare(bpe, writers[i], paths[i]);
        good = good && file_good(files[i], error);
    }
    good = good && remove_old(paths[TOKENIZER], error) && remove_old(paths[MERGES], error) && directory_sync(directory, error);
    for (int i = 0; i < FILES; i++) {
        if (good) good = file_close(files[i], NULL, error);
        else file_discard(files[i]);
        free(paths[i]);
    }
    return good;
}
