"""Nothing is leaked, by loads that succeed and by those that do not."""

import gc
import marshal
import os
import platform
import subprocess
import sys
import unittest

import equality
import rehydrate
from rehydrate import _native


def grown(work, cycles=50):
    """By how many blocks, and references where this interpreter counts them, the process grows in `cycles` of `work`."""

    def counted():
        gc.collect()
        total = getattr(sys, "gettotalrefcount", lambda: 0)
        return sys.getallocatedblocks(), total()

    # What is made once a process, or once it is known that a name is used.
    for _ in range(5):
        work()
    before = counted()
    for _ in range(cycles):
        work()
    after = counted()
    return [b - a for a, b in zip(before, after)]


#: Allocates as long as no arena comes, and says by how many KiB the process grew at most at once.
ARENA = """\
import sys
from rehydrate import _native

def resident():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))

_native.huge_pages(sys.argv[1] == "huge")
kept, steps = [], []
before = resident()
for _ in range(200):
    kept.append([object() for _ in range(1000)])
    after = resident()
    steps.append(after - before)
    before = after
# Arenas outlive the change.
_native.huge_pages(sys.argv[1] != "huge")
kept.clear()
kept = [object() for _ in range(100_000)]
print(max(steps))
"""


class Arenas(unittest.TestCase):
    @unittest.skipUnless(os.path.exists("/proc/self/smaps_rollup"), "the system does not tell")
    @unittest.skipIf(os.environ.get("PYTHONMALLOC"), "there are no arenas, or they are larger")
    def test_arenas_come_with_all_their_pages(self):
        def most(way):
            run = subprocess.run([sys.executable, "-c", ARENA, way], check=True, capture_output=True, text=True)
            return int(run.stdout)

        # An arena is of 1 MiB.
        self.assertGreaterEqual(most("huge"), 512)
        self.assertLess(most("as before"), 512)


#: Loads again and again while the heap of the C library grows, and says how many KiB of that are to be in huge pages.
HEAP = """\
import sys
from rehydrate import _native

def advised():
    "By part of the heap: how large it is, and whether huge pages are wanted there."
    parts, is_heap = [], False
    with open("/proc/self/smaps") as file:
        for line in file:
            name, *values = line.split()
            if not name.endswith(":"):
                is_heap = values[-1] == "[heap]"
            elif is_heap and name == "Size:":
                size = int(values[0])
            elif is_heap and name == "VmFlags:" and "hg" in values:
                parts.append(size)
    return sum(parts)

stream = _native.dumps(())
_native.huge_pages(sys.argv[1] == "huge")
kept = []
for _ in range(20):
    _native.loads(stream)
    kept.append([bytes(2000) for _ in range(500)])
print(advised())
"""


def has_huge_heap():
    """Whether the C library is the one whose heap can grow by huge pages, and the system knows these."""
    return platform.libc_ver()[0] == "glibc" and os.path.exists("/sys/kernel/mm/transparent_hugepage/enabled")


class Heap(unittest.TestCase):
    @unittest.skipUnless(has_huge_heap(), "another C library, or no huge pages")
    def test_the_heap_grows_by_huge_pages(self):
        def advised(way, **environment):
            command = [sys.executable, "-c", HEAP, way]
            run = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)
            return int(run.stdout)

        self.assertGreaterEqual(advised("huge"), 6 << 10)
        self.assertEqual(advised("as before"), 0)
        # Where large blocks are always mapped apart, all stays as it is.
        self.assertEqual(advised("huge", MALLOC_MMAP_THRESHOLD_="131072"), 0)


class Collector(unittest.TestCase):
    def test_what_is_loaded_and_freed_leaves_the_collector_at_work(self):
        # More tuples than wait in the interpreter's free lists, and in the end more than are not counted.
        stream = rehydrate.dumps(tuple((n, n + 0.5) for n in range(40)))
        loads = {"ours": rehydrate.loads, "marshal": marshal.loads}
        dumped = {"ours": stream, "marshal": marshal.dumps(rehydrate.loads(stream))}
        for name, load in loads.items():
            collections = []
            note = lambda phase, info: phase == "start" and collections.append(info["generation"])
            gc.callbacks.append(note)
            try:
                for _ in range(6000):
                    garbage = []
                    garbage.append(garbage)
                    load(dumped[name])
            finally:
                gc.callbacks.remove(note)
            with self.subTest(loads=name):
                self.assertGreaterEqual(len(collections), 1)


class Leaks(unittest.TestCase):
    def assert_flat(self, work):
        # What leaks one block a cycle grows by 50 every time. Free lists and the cache of attributes that types have grow by
        # as much, but only until they are full.
        growths = []
        for _ in range(20):
            blocks, references = grown(work)
            if blocks < 10 and references < 20:
                return
            growths.append((blocks, references))
        self.fail(f"50 cycles grow by (blocks, references) {growths}")

    @classmethod
    def setUpClass(cls):
        path = equality.source_of("argparse")
        cls.code = compile(path.read_bytes(), str(path), "exec")
        cls.stream = rehydrate.dumps(cls.code)

    def test_the_measure_sees_a_leak(self):
        kept = []
        self.assertGreaterEqual(grown(lambda: kept.append([object()]))[0], 50)

    def test_loading(self):
        for profile in ("load", "compact", "core"):
            with self.subTest(profile):
                stream = rehydrate.dumps(self.code, profile=profile)
                self.assert_flat(lambda: rehydrate.loads(stream))
                self.assert_flat(lambda: rehydrate.loads(stream, filename="other.py"))

    def test_values(self):
        stream = rehydrate.dumps([(1.5, "not an identifier"), {"k": {1, 2}}, frozenset({"x", 2**90}), b"bytes", 1j])
        self.assert_flat(lambda: rehydrate.loads(stream))

    def test_what_is_executed(self):
        source = "class C:\n    def f(self): return [x for x in range(3)]\nr = C().f()\n"
        stream = rehydrate.dumps(compile(source, "x.py", "exec"))

        def work():
            exec(rehydrate.loads(stream), {})

        self.assert_flat(work)

    @unittest.skipIf(sys.version_info < (3, 12), "it has no opcodes of a running interpreter")
    def test_refusals_of_bytecode(self):
        function = next(const for const in self.code.co_consts if hasattr(const, "co_code"))
        at = self.stream.index(function._co_code_adaptive)
        bad = self.stream[:at] + b"\xff" + self.stream[at + 1 :]

        def work():
            with self.assertRaisesRegex(ValueError, "cannot read back"):
                rehydrate.loads(bad)

        self.assert_flat(work)

    def test_refusals(self):
        stream = bytearray(self.stream)
        bad = [bytes(stream[: len(stream) * n // 7]) for n in range(7)] + [bytes(stream[:-40] + b"\xff" * 40)]

        def work():
            for data in bad:
                try:
                    rehydrate.loads(data)
                except ValueError:
                    pass
                else:
                    raise AssertionError("it is not refused")

        self.assert_flat(work)

    def test_the_other_functions(self):
        small = rehydrate.dumps((1, "text", [2.5]))
        pyc = __import__("importlib.util").util.MAGIC_NUMBER + bytes(12) + __import__("marshal").dumps(self.code)
        self.assert_flat(lambda: rehydrate.dumps([1, "text", {2: 3}]))
        self.assert_flat(lambda: rehydrate.disassemble(small))
        self.assert_flat(lambda: rehydrate.explain(small))
        self.assert_flat(lambda: rehydrate.verify(bytearray(small)))
        self.assert_flat(rehydrate.status)
        self.assert_flat(lambda: _native.compile_pyc(pyc))


if __name__ == "__main__":
    unittest.main()
