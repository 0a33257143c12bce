/* utf8.c: see utf8.h. */
#include "utf8.h"

#include <string.h>

int32_t utf8_decode(const char *text, size_t length, size_t *size) {
    static const int32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *at = (const unsigned char *)text;
    size_t n = length == 0 ? 0 : at[0] < 0x80 ? 1 : at[0] < 0xC0 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF8 ? 4 : 0;
    if (n == 0 || n > length) return -1;
    int32_t code = n == 1 ? at[0] : at[0] & (0x7F >> n);
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xC0) != 0x80) return -1;
        code = code << 6 | (at[i] & 0x3F);
    }
    if (code < least[n] || code >= CODE_POINTS || (code >= 0xD800 && code < 0xE000)) return -1;
    *size = n;
    return code;
}

size_t utf8_encode(int32_t code, char bytes[5]) {
    int n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    memset(bytes, 0, 5);
    for (int i = n - 1; i > 0; i--, code >>= 6) bytes[i] = (char)(0x80 | (code & 0x3F));
    bytes[0] = (char)(n == 1 ? code : (0xF00 >> n & 0xFF) | code);
    return n;
}
