/* count.cpp: counts the distinct bytes of global memory that kernels read and write. */
#include "watch.h"

#include <unordered_map>

namespace emu {

enum { WAS_READ = 1, WAS_WRITTEN = 2 };
static std::unordered_map<const void *, std::vector<uint8_t>> touched;   /* by allocation: a byte for each byte */
static double distinct, all;

void count_access(const Touch &touch, Allocation base) {
    std::vector<uint8_t> &bytes = touched[base.memory];
    bytes.resize(base.bytes);
    const size_t first = size_t(static_cast<const char *>(touch.memory) - base.memory);
    const uint8_t marks = touch.kind == READ ? WAS_READ : touch.kind == WRITE ? WAS_WRITTEN : WAS_READ | WAS_WRITTEN;
    for (size_t i = first; i < first + touch.bytes; i++) {
        distinct += __builtin_popcount(marks & ~bytes[i]);
        bytes[i] |= marks;
    }
    all += (double)touch.bytes * __builtin_popcount(marks);
}

}   // namespace emu

using namespace emu;

/* From here to emu_count_end kernels are counted instead of checked for races. */
extern "C" void emu_count_begin() {
    touched.clear();
    distinct = all = 0;
    counting = true;
}
/* Distinct bytes read plus distinct bytes written; in *all_bytes what all accesses move. */
extern "C" double emu_count_end(double *all_bytes) {
    counting = false;
    *all_bytes = all;
    return distinct;
}
