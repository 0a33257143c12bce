/* philox.h: Philox4x32-10, a counter-based random number generator (Salmon et al., "Parallel Random Numbers: As Easy as
   1, 2, 3", 2011). The same four words come out for the same key and counter on every backend, so nothing has to be stored
   or replayed. */
#ifndef KERNELS_PHILOX_H
#define KERNELS_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_FUNCTION static inline __host__ __device__
#else
#define PHILOX_FUNCTION static inline
#endif

/* Ten rounds on counter[4] under a 64-bit key; the result replaces the counter. */
PHILOX_FUNCTION void philox(uint32_t counter[4], uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * counter[0], b = (uint64_t)0xCD9E8D57u * counter[2];
        uint32_t c1 = counter[1], c3 = counter[3];
        counter[0] = (uint32_t)(b >> 32) ^ c1 ^ k0;
        counter[1] = (uint32_t)b;
        counter[2] = (uint32_t)(a >> 32) ^ c3 ^ k1;
        counter[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* The 32 random bits of element `index` of `tensor` at `step`: word index%4 of block index/4. */
PHILOX_FUNCTION uint32_t philox_at(uint64_t seed, uint32_t step, uint32_t tensor, uint64_t index) {
    uint64_t block = index >> 2;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), step, tensor};
    philox(counter, seed);
    return counter[index & 3];
}

/* Dropout keeps an element when its bits are at or above this threshold: P(drop) = p to within 2^-32. */
PHILOX_FUNCTION uint32_t dropout_threshold(float p) { return (uint32_t)((double)p * 4294967296.0); }

#endif
