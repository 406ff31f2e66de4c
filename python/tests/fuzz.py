"""Loads damaged and made-up streams; whatever they are, the interpreter goes on.

    python fuzz.py [--runs 100000] [--seed 0] [--path direct|constructor|marshal] [--only NUMBER]

Each stream is loaded, every field of what it builds is read (nothing is executed), and it is freed. That happens in a child
process, which says beforehand which stream comes next; if it crashes or hangs, the stream is named, written to a file, and
the rest is done by another child. The exit status is 1 if any crashed, hung, or raised what is no refusal; or if the process
grew.
"""

import argparse
import gc
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings

import equality
import rehydrate
from rehydrate import _native

#: Seconds that one stream may take.
PATIENCE = 60
#: Blocks that may stay for each stream that loaded or did not: names that code objects intern for good.
KEPT_BLOCKS = 4

SOURCES = [
    "",
    "x = 1\ny = 'a text', b'bytes', 2.5, -0.0, 10**30, ..., None\n",
    "def f(a, b=1, *c, d: int = 2, **e):\n    'doc'\n    def g(): return a, b, e\n    return g\n",
    "class C:\n    x: int = 1\n    def m(self): return super().m()\n    async def n(self):\n        async with self as y: await y\n",
    "try:\n    import os.path as p\nexcept (ValueError, OSError) as e:\n    raise RuntimeError from e\nfinally:\n    del p\n",
    "a = [x for x in range(3) if x in {1, 2, 3}]\nb = {k: (lambda: k)() for k in 'größe'}\nprint(f'{a!r:>{len(b)}}')\n",
    "match x:\n    case {'k': [1, *rest]} if rest: y = rest\n    case str() | bytes(): z = 'Ω\U0001f600\\ud800'\n",
]


def seeds():
    """Valid streams to damage."""
    codes = [compile(source, "fuzz.py", "exec") for source in SOURCES]
    functions = [constant for code in codes for constant in code.co_consts if isinstance(constant, type(code))]
    values = [
        (1, "a", 37.0, (2, "foo")),
        [set("abc"), frozenset({1, (2, 3)}), {"k": [1, {}]}, 2**200, -(2**70), 1j, "é", "\ud800", b"", b"x" * 300],
        [("shared", 1.5)] * 4,
    ]
    big = equality.source_of("contextlib")
    codes.append(compile(big.read_bytes(), str(big), "exec"))
    for value in [*codes, *functions, *values]:
        for profile, sharing in itertools.product(("load", "compact", "core"), ("structural", "identity")):
            yield rehydrate.dumps(value, profile=profile, sharing=sharing)


class Damage:
    """Makes streams, the n-th of a seed always the same."""

    def __init__(self, seed):
        self.seed = seed
        self.valid = list(seeds())
        # Small ones are taken more often: more of their damage is met before the verifier gives up.
        self.small = [stream for stream in self.valid if len(stream) < 1000]

    def stream(self, number):
        self.random = random.Random(f"{self.seed} {number}")
        valid = self.random.choice(self.small if self.random.random() < 0.8 else self.valid)
        damages = [self.nothing, self.byte, self.byte, self.bytes, self.numbers, self.cut, self.splice, self.swap, self.made_up]
        how = self.random.choice([*damages, self.listing, self.listing])
        return how.__name__, how(bytearray(valid))

    def nothing(self, stream):
        return stream

    def byte(self, stream):
        stream[self.random.randrange(len(stream))] = self.random.randrange(256)
        return stream

    def bytes(self, stream):
        for _ in range(self.random.randrange(2, 6)):
            self.byte(stream)
        return stream

    def numbers(self, stream):
        """Small changes of what are mostly lengths, operands and counts, behind the container's first bytes."""
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(8, len(stream))
            stream[at] = (stream[at] + self.random.choice([-1, 1, 2, 128])) % 256
        return stream

    def cut(self, stream):
        return stream[: self.random.randrange(len(stream))]

    def splice(self, stream):
        other = self.random.choice(self.small)
        at, end = sorted(self.random.randrange(len(stream)) for _ in range(2))
        start = self.random.randrange(len(other))
        return stream[:at] + other[start : start + self.random.choice([end - at, self.random.randrange(40)])] + stream[end:]

    def swap(self, stream):
        """Two runs of bytes change places, so that all lengths stay right."""
        n = self.random.randrange(1, 9)
        if len(stream) > 2 * n + 24:
            a, b = (self.random.randrange(24, len(stream) - n) for _ in range(2))
            stream[a : a + n], stream[b : b + n] = stream[b : b + n], stream[a : a + n]
        return stream

    def listing(self, stream):
        """Instructions change, and the assembler computes again what depends on them: lengths, the stack, hashes."""
        lines = _native.disassemble(bytes(stream)).splitlines()
        first = next((at for at, line in enumerate(lines) if line.startswith(" ")), 0)
        for _ in range(self.random.randrange(1, 4)):
            at, other = (self.random.randrange(first, len(lines)) for _ in range(2))
            change = self.random.randrange(5)
            if change == 0:
                del lines[at]
            elif change == 1:
                lines.insert(at, lines[other])
            elif change == 2:
                lines[at], lines[other] = lines[other], lines[at]
            else:
                numbers = list(re.finditer(r"\d+", lines[at]))
                if numbers:
                    number = self.random.choice(numbers)
                    changed = str(max(0, int(number[0]) + self.random.choice([-1, 1, 1, 100])))
                    lines[at] = lines[at][: number.start()] + changed + lines[at][number.end() :]
        try:
            return bytearray(_native.assemble("\n".join(lines) + "\n"))
        except ValueError:
            return stream

    def made_up(self, stream):
        rest = self.random.randbytes(self.random.randrange(200))
        return bytearray(stream[:8] + rest if self.random.random() < 0.8 else rest)


def read_all(value):
    """Reads every field of what was built, once each, by attributes and methods that run no bytecode."""
    todo, seen = [value], set()
    while todo:
        value = todo.pop()
        if isinstance(value, (list, dict, set, equality.CODE)):
            if id(value) in seen:
                continue
            seen.add(id(value))
        if isinstance(value, equality.CODE):
            for name in equality.ATTRIBUTES:
                todo.append(getattr(value, name))
            for name in equality.METHODS:
                for entry in getattr(value, name)():
                    repr(entry)
            repr(value), hash(value), value == value
        elif isinstance(value, dict) or (equality.FROZENDICT and isinstance(value, equality.FROZENDICT)):
            todo.extend(part for pair in value.items() for part in pair)
        elif isinstance(value, (tuple, list, set, frozenset)):
            todo.extend(value)
        elif isinstance(value, slice):
            todo.extend((value.start, value.stop, value.step))
        else:
            repr(value) if not isinstance(value, int) else hex(value)


def work(seed, numbers):
    """The child: a line for each stream before it is loaded, and one at the end."""
    warnings.simplefilter("ignore")
    damage = Damage(seed)
    loaded = 0
    wrong = []
    before = None
    for done, number in enumerate(numbers):
        if done == 200:
            gc.collect()
            before = sys.getallocatedblocks()
        how, stream = damage.stream(number)
        print(number, flush=True)
        try:
            # A damaged stream that would be started must not run.
            value = _native._build(bytes(stream))
        except ValueError:
            continue
        except BaseException as error:
            wrong.append(f"stream {number} ({how}): {type(error).__name__}: {error}")
            continue
        try:
            read_all(value)
            loaded += 1
        except (ValueError, SystemError, UnicodeError, OverflowError, IndexError, TypeError) as error:
            # Tables that say nonsense are read as nonsense, or refused by whoever reads them; constants may have no hash.
            if isinstance(error, SystemError) and "returned NULL" in str(error):
                wrong.append(f"stream {number} ({how}): {type(error).__name__}: {error}")
        finally:
            value = None
    gc.collect()
    grown = 0 if before is None else sys.getallocatedblocks() - before
    print(json.dumps({"loaded": loaded, "wrong": wrong, "grown": grown}), flush=True)


def run(runs, seed, first=0, path=None, report=print):
    """Does `runs` streams in children, by the way that `path` names, and gives what went wrong: a line each."""
    wrong, at, end, loaded = [], first, first + runs, 0
    while at < end:
        command = [sys.executable, __file__, "--child", "--seed", str(seed), "--first", str(at), "--runs", str(end - at)]
        if path:
            command += ["--path", path]
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen([*command], stdout=said, stderr=subprocess.PIPE, text=True)
            status = _wait(child, said)
            complaint = child.stderr.read()
            child.stderr.close()
            said.seek(0)
            lines = said.read().splitlines()
        last = lines[-1] if lines else ""
        if status == 0 and last.startswith("{"):
            result = json.loads(last)
            loaded += result["loaded"]
            wrong += result["wrong"]
            if result["grown"] > KEPT_BLOCKS * (end - at):
                wrong.append(f"{end - at} streams left {result['grown']} blocks behind")
            break
        number = int(last) if last.isdigit() else at
        how, stream = Damage(seed).stream(number)
        kept = os.path.join(tempfile.gettempdir(), f"rehydrate-fuzz-{sys.implementation.cache_tag}-{seed}-{number}.stream")
        with open(kept, "wb") as file:
            file.write(stream)
        wrong.append(f"stream {number} ({how}), now in {kept}: exit status {status}\n{complaint[-2000:]}")
        report(wrong[-1])
        at = number + 1
    report(f"{runs} streams of seed {seed}: {loaded} loaded, {len(wrong)} went wrong")
    return wrong


def _wait(child, said):
    """Waits until the child ends; kills it if it stays with one stream."""
    size = -1
    while True:
        try:
            return child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            if os.fstat(said.fileno()).st_size == size:
                child.kill()
                child.wait()
                return "none: it hangs"
            size = os.fstat(said.fileno()).st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--path", choices=["direct", "constructor", "marshal"], help="make code objects so")
    parser.add_argument("--only", type=int, help="do this one stream, here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    _native._force_path(given.path)
    if given.only is not None:
        work(given.seed, [given.only])
        return 0
    if given.child:
        work(given.seed, range(given.first, given.first + given.runs))
        return 0
    wrong = run(given.runs, given.seed, given.first, given.path)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
