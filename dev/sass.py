"""What the machine code of a kernel says about its speed: instruction mix, the busiest unit, and a predicted upper bound. No GPU is used.

    python3 dev/sass.py [--arch 90] [--warps 2] [--trips 4] FILE.cu|FILE.cubin KERNEL        (a pattern of the name as c++filt writes it)

Needs nvcc, c++filt and cuobjdump. For each long loop without another around it, or all of the code where there is none, two bounds are printed: the
cycles for which the busiest unit of a scheduler works on one warp's turn, and those in which a model of one scheduler issues it, with so many warps
sharing it.

The model: a multiprocessor has four schedulers; each issues one warp instruction a cycle, in the warp's order, when the stall count and the
scoreboards that the assembler wrote into the instructions allow it and its unit is free (UNITS, LATENCY). All warps find all data in shared
memory in time, memory answers after LATENCY, caches of instructions never miss. So what it gives is an upper bound on speed.

Of an if the way is taken that a full tile takes: masks (parts that mostly select) are jumped over, of two branches the longer is taken."""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile

# Cycles for which a scheduler's share of a unit is busy with one warp instruction. Throughputs: CUDA C++ Programming Guide, arithmetic
# instructions; what four schedulers share counts four times. Tensor cores: 1024 dense bf16 multiply-adds a cycle and multiprocessor on sm_80, 2048 on
# sm_90, of which mma.sync reaches 63% (Luo et al. 2024, arXiv 2402.13499); nvcc puts 6 cycles between two of them. Shared memory: 128 bytes a cycle.
UNITS = {90: {"tensor": 6.4, "fp32": 1, "integer": 2, "special": 8}, 80: {"tensor": 8, "fp32": 2, "integer": 2, "special": 8}}
CLOCK = {90: (132, 1.755e9, 3.0e12), 80: (108, 1.41e9, 1.8e12)}   # multiprocessors, Hz under load, bytes/s of memory
# Cycles until a result is there, for instructions that announce it by a scoreboard.
LATENCY = {"LDSM": 33, "LDS": 30, "MUFU": 20, "SHFL": 25, "LDG": 700, "LD": 700, "S2UR": 25, "S2R": 25, "LDC": 30}
MMA_FLOPS = 4096   # of m16n8k16

Instruction = collections.namedtuple("Instruction", "address opcode text stall write read wait")


def parse(listing):
    """{mangled name: [Instruction]} of cuobjdump -sass. The second word of an instruction holds its stall count and scoreboards."""
    kernels, code, pending = {}, None, None
    for line in listing.splitlines():
        if match := re.search(r"Function : (\S+)", line):
            code = kernels[match[1]] = []
        elif match := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\* 0x", line):
            pending = int(match[1], 16), match[2]
        elif pending and (match := re.match(r"\s+/\* 0x([0-9a-f]{16}) \*/", line)):
            bits = int(match[1], 16)
            name = re.sub(r"^@!?U?P\w+\s+", "", pending[1]).split()[0]
            code.append(Instruction(pending[0], name, pending[1], bits >> 41 & 15, bits >> 46 & 7, bits >> 49 & 7, bits >> 52 & 63))
            pending = None
    return kernels


def kind(instruction):
    """The instruction's name, with its width where that matters."""
    parts = instruction.opcode.split(".")
    if parts[0] in ("LDG", "STG", "LDS", "STS", "LDL", "STL", "LDGSTS", "REDG", "RED", "ATOMG", "LDSM"):
        return f"{parts[0]}.{8 * width(instruction)}"
    return parts[0]


def width(instruction):
    """Bytes a lane."""
    if instruction.opcode.startswith("LDSM"):
        return 16 if instruction.opcode.endswith(".4") else 8
    sizes = [int(p) for p in instruction.opcode.split(".") if p in ("64", "128")]
    if sizes:
        return sizes[-1] // 8
    return 2 if re.search(r"\.[US]16", instruction.opcode) else 1 if re.search(r"\.[US]8", instruction.opcode) else 4


def unit(instruction, arch):
    """(unit, cycles); the unit may be None."""
    name, rate = instruction.opcode.split(".")[0], UNITS[arch]
    if instruction.text.startswith("@!PT"):
        return None, 0
    if name == "HMMA":
        return "tensor", rate["tensor"]
    if name in ("FFMA", "FADD", "FMUL"):
        return "fp32", rate["fp32"]
    if name in ("MUFU", "F2F", "I2F", "F2I"):
        return "special", rate["special"]
    if name in ("LDS", "STS", "LDSM", "LDGSTS", "SHFL", "LDG", "STG", "REDG", "RED", "ATOMG", "LDL", "STL"):
        return "shared", 4 if name == "SHFL" else max(4, width(instruction))
    if name.startswith("U") or name in ("BRA", "BSSY", "BSYNC", "NOP", "BAR", "WARPSYNC", "EXIT", "S2R", "S2UR", "LDC", "CS2R", "DEPBAR"):
        return None, 0
    return "integer", rate["integer"]


def target(instruction):
    match = re.search(r"\b0x([0-9a-f]+)$", instruction.text) if instruction.opcode.startswith("BRA") else None
    return int(match[1], 16) if match else None


def loops(code):
    """[(first, last)] of indices; a loop may lie within another."""
    at = {instruction.address: i for i, instruction in enumerate(code)}
    found = {}
    for i, instruction in enumerate(code):
        back = at.get(target(instruction), i)
        if back < i:
            found[back] = i
    return sorted(found.items())


def way(code, first, last, trips):
    """The indices first .. last in the order in which a full tile goes through them; loops within go round `trips` times."""
    at = {instruction.address: i for i, instruction in enumerate(code)}
    inner = dict((e, b) for b, e in loops(code) if first <= b and e < last)
    left, path, i = {e: trips - 1 for e in inner}, [], first
    while i <= last:
        path.append(i)
        to = at.get(target(code[i]))
        conditional = code[i].text.startswith("@")
        if to is None or to == i:
            if code[i].opcode == "EXIT" and not conditional:
                break
        elif i in inner:
            left[i] -= 1
            if left[i] >= 0:
                i = inner[i]
                continue
            left[i] = trips - 1
        elif to > i and (not conditional or jumps(code, at, i, to)):
            if to > last:
                break
            i = to
            continue
        i += 1
    return path


def jumps(code, at, i, to):
    """Whether a full tile jumps from i over what lies before `to`."""
    skipped = code[i + 1:to]
    names = collections.Counter(instruction.opcode.split(".")[0] for instruction in skipped)
    if names["FSEL"] * 3 > len(skipped):
        return True
    end = at.get(target(skipped[-1])) if skipped else None
    return end is not None and end > to and not skipped[-1].text.startswith("@") and end - to > len(skipped)


def busy(code, path, arch):
    """{unit: cycles} for one warp; "issue" is the number of instructions."""
    cycles = collections.Counter(issue=len(path))
    for i in path:
        name, cost = unit(code[i], arch)
        if name:
            cycles[name] += cost
    return cycles


def issue(code, path, arch, warps, rounds=8):
    """Cycles of a scheduler until each of `warps` warps has gone the way once: the mean of some rounds, the first of them included."""
    free, last, now = collections.Counter(), -1, [7.0 * w for w in range(warps)]
    ready, places = [collections.Counter() for _ in range(warps)], [0] * warps

    def earliest(w):
        instruction = code[path[places[w] % len(path)]]
        waited = [ready[w][b] for b in range(6) if instruction.wait >> b & 1]
        return max([now[w], last + 1, free[unit(instruction, arch)[0]], *waited])

    while min(places) < rounds * len(path):
        w = min((w for w in range(warps) if places[w] < rounds * len(path)), key=earliest)
        instruction, start = code[path[places[w] % len(path)]], earliest(w)
        name, cost = unit(instruction, arch)
        if name:
            free[name] = start + cost
        latency = LATENCY.get(instruction.opcode.split(".")[0], 20)
        for scoreboard, delay in ((instruction.write, latency), (instruction.read, 20)):
            if scoreboard < 6:
                ready[w][scoreboard] = max(ready[w][scoreboard], start + delay)
        last, now[w] = start, start + max(1, instruction.stall)
        places[w] += 1
    return max(now) / rounds


def in_flight(code, path):
    """The most bytes of a thread that its loads from device memory have under way at once."""
    under_way, most = collections.Counter(), 0
    for i in path:
        for scoreboard in range(6):
            if code[i].wait >> scoreboard & 1:
                under_way[scoreboard] = 0
        if code[i].opcode.startswith("LDG."):
            under_way[code[i].write] += width(code[i])
        if code[i].opcode.startswith("LDGSTS"):
            under_way["copies"] += width(code[i])
        if code[i].opcode.startswith("DEPBAR"):
            under_way["copies"] = 0
        most = max(most, sum(under_way.values()))
    return most


def report(code, first, last, arch, warps, trips):
    path = way(code, first, last, trips)
    mix = collections.Counter(kind(code[i]) for i in path)
    cycles = busy(code, path, arch)
    bound = max(cycles, key=cycles.get)
    turn = issue(code, path, arch, warps) / warps
    processors, hertz, bandwidth = CLOCK[arch]
    most = ", ".join(f"{n} {k}" for k, n in mix.most_common(18))
    print(f"  {code[first].address:#06x}-{code[last].address:#06x}: {len(path)} instructions: {most}")
    print("    cycles of a warp's turn: " + ", ".join(f"{u} {c:.0f}" for u, c in cycles.most_common()) + f"; busiest: {bound}")
    print(f"    {warps} warps a scheduler: {turn:.0f} cycles a turn ({cycles[bound] / turn:.0%} of the time {bound} is busy)")
    if mix["HMMA"]:
        speed = [4 * processors * hertz * mix["HMMA"] * MMA_FLOPS / c / 1e12 for c in (cycles[bound], turn)]
        print(f"    predicted, at most: {speed[0]:.0f} TFLOP/s by the busiest unit, {speed[1]:.0f} as issued")
    moved = 32 * sum(width(code[i]) for i in path if re.match(r"(LDG|STG)\.", code[i].opcode))
    if moved and not mix["HMMA"]:
        rate = 4 * processors * hertz * moved / cycles[bound]
        print(f"    {moved} bytes a warp, {in_flight(code, path)} under way a thread; units would allow {rate / bandwidth:.1f} times the bandwidth "
              f"of memory; {bandwidth / processors * 700e-9 / max(1, in_flight(code, path)):.0f} threads a multiprocessor keep it busy (700 ns)")


def listing(path, arch):
    with tempfile.TemporaryDirectory() as work:
        if path.endswith(".cu"):
            cubin = os.path.join(work, "kernels.cubin")
            target = f"arch=compute_{arch},code=sm_{arch}"
            subprocess.run(["nvcc", "-O3", "-std=c++17", "-I.", "-gencode", target, "-cubin", path, "-o", cubin], check=True)
            path = cubin
        return subprocess.run(["cuobjdump", "-sass", path], check=True, capture_output=True, text=True).stdout


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, default=90, choices=sorted(UNITS))
    parser.add_argument("--warps", type=int, default=2, help="that share a scheduler")
    parser.add_argument("--trips", type=int, default=1, help="how often loops within a loop go round")
    parser.add_argument("file")
    parser.add_argument("kernel")
    options = parser.parse_args(arguments)
    os.environ["PATH"] += ":/usr/local/cuda/bin"
    kernels = parse(listing(options.file, options.arch))
    names = subprocess.run(["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True).stdout.splitlines()
    found = [(name, code) for name, code in zip(names, kernels.values()) if re.search(options.kernel, name)]
    if not found:
        sys.exit(f"sass.py: {options.file} has no kernel {options.kernel}; there are: " + ", ".join(sorted(n.split("(")[0] for n in names)))
    for name, code in found:
        spilled = sum(i.opcode.startswith(("LDL", "STL")) for i in code)
        short = name.split("(")[0].replace("void ", "")
        print(f"{short} sm_{options.arch}: {len(code)} instructions, {len(code) * 16 / 1024:.1f} KB, {spilled} of them spills")
        around = loops(code)
        outer = [(b, e) for b, e in around if not any(c < b and e < d for c, d in around)]
        heavy = [loop for loop in outer if loop[1] - loop[0] > len(code) / 8]   # not those that clear or tidy up
        for first, last in heavy or [(0, len(code) - 1)]:
            report(code, first, last, options.arch, options.warps, options.trips)


if __name__ == "__main__":
    main(sys.argv[1:])
