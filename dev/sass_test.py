"""Tests of sass.py on a listing made here: python3 -m unittest dev.sass_test, or python3 dev/sass_test.py"""
import collections
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import sass  # noqa: E402

NONE = 7


def line(address, text, stall=1, write=NONE, read=NONE, wait=0):
    bits = stall << 41 | write << 46 | read << 49 | wait << 52
    return f"        /*{address:04x}*/   {text} ;   /* 0x0000000000000000 */\n                /* 0x{bits:016x} */\n"


def code(*rows):
    """Instructions 16 bytes apart, each a text or (text, keywords)."""
    rows = [(row, {}) if isinstance(row, str) else row for row in rows]
    return sass.parse("\tFunction : kernel\n" + "".join(line(16 * i, text, **more) for i, (text, more) in enumerate(rows)))["kernel"]


class Sass(unittest.TestCase):
    def test_fields(self):
        load, product = code(("@!P1 LDG.E.128 R4, desc[UR4][R2.64]", dict(stall=4, write=2)), ("HMMA.16816.F32.BF16 R0, R4, R8, R0", dict(wait=4)))
        self.assertEqual((load.opcode, load.stall, load.write, load.read, sass.width(load)), ("LDG.E.128", 4, 2, NONE, 16))
        self.assertEqual((product.wait, sass.unit(product, 90), sass.unit(product, 80)), (4, ("tensor", 6.4), ("tensor", 8)))

    def test_widths(self):
        texts = {"LDG.E R0, [R2]": 4, "LDG.E.64 R0, [R2]": 8, "STG.E.U16 [R2], R0": 2, "LDS.U8 R0, [R2]": 1, "LDSM.16.MT88.4 R0, [R2]": 16,
                 "REDG.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R0": 4, "LDGSTS.E.BYPASS.128 [R4], desc[UR4][R2.64]": 16}
        for text, width in texts.items():
            self.assertEqual(sass.width(code(text)[0]), width, text)

    def test_way(self):
        mask = code("FADD R0", "@!P0 BRA 0x50", "FSEL R0", "FSEL R2", "ISETP R3", "FMUL R0", "@P1 BRA 0x0", "EXIT")
        self.assertEqual(sass.loops(mask), [(0, 6)])
        self.assertEqual(sass.way(mask, 0, 6, 1), [0, 1, 5, 6])
        longer = code("@!P0 BRA 0x30", "MOV R0", "BRA 0x60", "FADD R0", "FADD R1", "FADD R2", "EXIT")
        self.assertEqual(sass.way(longer, 0, 6, 1), [0, 3, 4, 5, 6])
        nested = code("FADD R0", "FMUL R1", "@P0 BRA 0x10", "@P1 BRA 0x0", "EXIT")
        self.assertEqual(sass.way(nested, 0, 3, 3), [0, 1, 2, 1, 2, 1, 2, 3])

    def test_issue(self):
        busy = code(*["HMMA.16816.F32.BF16 R0, R4, R8, R0"] * 10)
        path = list(range(10))
        cycles = sass.busy(busy, path, 80)
        self.assertEqual(cycles, collections.Counter(issue=10, tensor=80))
        for warps in (1, 4):
            self.assertAlmostEqual(sass.issue(busy, path, 90, warps) / warps, 64, delta=2)
        slow = code(*[("FADD R0, R0, R0", dict(stall=8))] * 10)
        self.assertAlmostEqual(sass.issue(slow, path, 90, 1), 80, delta=2)   # a chain: two warps take no longer than one
        self.assertAlmostEqual(sass.issue(slow, path, 90, 2), 80, delta=4)
        waits = code(("LDS R0, [R1]", dict(write=0)), ("FADD R0, R0, R0", dict(wait=1)))
        self.assertAlmostEqual(sass.issue(waits, [0, 1], 90, 1), sass.LATENCY["LDS"] + 1, delta=2)

    def test_in_flight(self):
        two = code(("LDG.E.128 R0, [R8]", dict(write=0)), ("LDG.E.128 R4, [R9]", dict(write=1)), ("FADD R0", dict(wait=1)),
                   ("LDG.E R0, [R8]", dict(write=2)), ("FADD R4", dict(wait=6)))
        self.assertEqual(sass.in_flight(two, range(5)), 32)


if __name__ == "__main__":
    unittest.main()
