/* fuzz_shard.c: in a shard that is read, every token that the header counts is there. */
#include "llmc/dataloader.h"
#include "llmc/error.h"

#include <stdlib.h>
#include <string.h>

static void check_shard(const uint8_t *data, size_t size, bool headerless) {
    char error[ERROR_SIZE] = "";
    Shard shard;
    if (!shard_parse(&shard, data, size, "input", headerless, error)) {
        CHECK(strncmp(error, "'input'", 7) == 0);
        return;
    }
    CHECK(shard.count > 0 && (shard.width == 2 || shard.width == 4));
    CHECK(shard.tokens + shard.count * shard.width == data + size);
    int64_t sum = 0;
    for (int64_t i = 0; i < shard.count; i++) {
        int32_t token = shard_token(&shard, i);
        CHECK(shard.width == 4 || (token >= 0 && token < 65536));
        sum += token;
    }
    CHECK(sum >= INT32_MIN * shard.count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_shard(data, size, false);
    check_shard(data, size, true);
    /* Most changes to a shard spoil its length: try it with the count put right, too, for either width. */
    for (size_t width = 2; width <= 4 && size >= 1024; width += 2) {
        uint8_t *repaired = memcpy(xmalloc(size), data, size);
        for (int i = 0; i < 4; i++) repaired[8 + i] = (size - 1024) / width >> 8 * i;
        check_shard(repaired, size, false);
        free(repaired);
    }
    return 0;
}
