#!/usr/bin/env python3
"""bench_tokens.py: the tokens that all benchmarks of training speed train on, one for one those of bench.c.

    python3 dev/bench_tokens.py 50257 524288 23 >shard.bin      a shard (data/README.md) of 23 times the same 524288 tokens, and one more
"""
import array
import math
import struct
import sys

MAGIC, VERSION, HEADER = 20240520, 1, 256


def draw(n, V):
    """n tokens, token k as often as 1/(k+1), by the generator of bench.c (Marsaglia's xorshift)."""
    state, drawn, mask = 88172645463325252, [], (1 << 64) - 1
    for _ in range(n):
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        drawn.append(int(math.pow(V, (state >> 11) * 2.0**-53)) - 1)
    return drawn


def write_shard(file, V, n, repeats):
    tokens = array.array("H", draw(n, V))
    if sys.byteorder == "big":
        tokens.byteswap()
    file.write(struct.pack(f"<{HEADER}i", MAGIC, VERSION, n * repeats + 1, *[0] * (HEADER - 3)))
    for _ in range(repeats):
        file.write(tokens.tobytes())
    file.write(tokens[:1].tobytes())


def main():
    try:
        V, n, repeats = map(int, sys.argv[1:])
    except ValueError:
        sys.exit(__doc__.strip())
    if not (1 <= V <= 65536 and n >= 1 and repeats >= 1 and n * repeats < 2**31 - 1):
        sys.exit(f"bench_tokens.py: no shard of {repeats} times {n} tokens below {V}; a token has 16 bits, and their number 31")
    write_shard(sys.stdout.buffer, V, n, repeats)


if __name__ == "__main__":
    main()
