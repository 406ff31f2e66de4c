"""The public functions: what they take, what they give, and how they refuse."""

import ast
import contextlib
import dis
import doctest
import gc
import inspect
import itertools
import marshal
import mmap
import opcode
import os
import pydoc
import struct
import sys
import tempfile
import threading
import unittest
from array import array
from pathlib import Path

import rehydrate
from equality import CODE, FROZENDICT, describe, difference, is_interned
from rehydrate import _native
from support import Project

PROFILES = ["load", "compact", "core"]
SHARINGS = ["structural", "identity", "none"]
OWN_MAGIC = __import__("importlib.util").util.MAGIC_NUMBER[:2]


def function(a, /, b=(1, "x"), *args, c: int = 3.5, **kwargs):
    """Docstring."""

    class Inner:
        field = b"bytes"

        def method(self):
            return [a for a in (yield) or {1, 2, 3} if a in {"x", "y"} and self]

    try:
        return Inner, lambda: (a, args, kwargs)
    except (ValueError, OSError):
        return -0.0, 1e300, 2**100, ..., None


async def coroutine(x):
    async with x as y:
        await y
    return [z async for z in y]


def values():
    """Every type that marshal has, with its odd cases."""
    yield from [None, True, False, ..., StopIteration]
    for n in (0, 1, 255, 256, 2**15, 2**31 - 1, 2**31, 2**63, 2**64 + 1, 10**100, 1 << 30_000):
        yield from (n, -n, n - 1)
    floats = [0.0, -0.0, 1.5, 1e-320, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan")]
    payload = struct.unpack("<d", b"\x01\x02\x03\x00\x00\x00\xf8\xff")[0]
    yield from [*floats, payload, complex(-0.0, 0.0), complex(0.0, -0.0), complex(payload, float("inf"))]
    yield from ["", "a", "é", "identifier", "not an identifier", "ÿ" * 300, "Ω€", "\U0001f600 astral", "\ud800", "\udfff\ud800"]
    yield from ["\0", "x" * 70_000, sys.intern("an interned text!"), "nul\0inside", "𝟙" * 3]
    yield from [b"", b"a", b"bytes", bytes(range(256)), b"x" * 70_000]
    yield from [(), (1,), tuple(range(300)), ((), ((),), [[], {}])]
    yield from [[], [1, "two"], {}, {"k": [1]}, {1: 2, (3, 4): {"x": {}}}, set(), {1, 2, 3}, frozenset()]
    yield from [frozenset(range(1000)), frozenset({"a", "b", "c", (1, 2), None, 0.5}), {frozenset({1}), frozenset()}]
    yield from [function.__code__, coroutine.__code__, compile("a: int = 1\nimport b.c as d", "file name", "exec")]
    shared, twice = [1], (1, 2.5, "text" * 3)
    yield from [[shared, shared], (twice, twice, [twice]), {"a": shared, "b": shared}]
    cyclic_list, cyclic_dict = [], {}
    cyclic_list.append(cyclic_list)
    cyclic_dict["self"] = (cyclic_dict, [cyclic_dict])
    yield from [cyclic_list, cyclic_dict]
    deep = ()
    for _ in range(500):
        deep = (deep,)
    yield deep
    if sys.version_info >= (3, 14):
        yield from [slice(1, 2, 3), slice(None), (slice("a", (1,), None), slice(1, 2, 3))]
    if FROZENDICT:
        yield from [FROZENDICT(), FROZENDICT(a=1, b=(2, 3)), {FROZENDICT(x=1): FROZENDICT()}]


class Values(unittest.TestCase):
    def test_what_is_loaded_is_what_marshal_loads(self):
        for number, value in enumerate(values()):
            dump = marshal.dumps(value)
            marshal.loads(dump)
            for profile in PROFILES:
                for sharing in SHARINGS:
                    with self.subTest(number=number, type=type(value), profile=profile, sharing=sharing):
                        stream = rehydrate.dumps(value, profile=profile, sharing=sharing)
                        self.assertIsNone(difference(marshal.loads(dump), rehydrate.loads(stream)))

    def test_the_comparison_sees_differences(self):
        again = eval("0.0"), eval("''.join(['a', 'b'])")
        pairs = [(0.0, -0.0), (1, True), (1, 1.0), ([1], (1,)), ({1}, frozenset({1})), ("a", b"a"), (0, None)]
        pairs += [([[]] * 2, [[], []]), ((1, 2), (1, 3)), ((1,), (1, 1)), (sys.intern("ab"), again[1])]
        pairs += [(function.__code__, function.__code__.replace(co_firstlineno=7)), ({1: 2, 3: 4}, {3: 4, 1: 2})]
        pairs += [(function.__code__, coroutine.__code__), (float("nan"), -float("nan"))]
        for wanted, found in pairs:
            with self.subTest(wanted=wanted):
                self.assertIsNotNone(difference(wanted, found))
        self.assertIsNone(difference(((1, 2.5), [0.0]), ((1, 2.5), [again[0]])))
        self.assertFalse(is_interned("".join(["not ", "interned"])))
        self.assertTrue(is_interned(sys.intern("".join(["is ", "interned"]))))
        self.assertIn("co_consts", "\n".join(describe(function.__code__)))

    def test_identity_keeps_what_is_shared(self):
        text, item = "not an identifier, and long", (1.5, 2.5)
        value = [text, text, item, item, "".join(["not an ident", "ifier, and long"])]
        loaded = rehydrate.loads(rehydrate.dumps(value, sharing="identity"))
        self.assertIs(loaded[0], loaded[1])
        self.assertIs(loaded[2], loaded[3])
        self.assertIsNot(loaded[0], loaded[4])
        loaded = rehydrate.loads(rehydrate.dumps(value))
        self.assertIs(loaded[0], loaded[4])
        loaded = rehydrate.loads(rehydrate.dumps(value, sharing="none"))
        self.assertIsNot(loaded[2], loaded[3])

    def test_mutable_objects_are_new_at_every_load(self):
        stream = rehydrate.dumps([[1], {"a": []}, {1}])
        first, second = rehydrate.loads(stream), rehydrate.loads(stream)
        first[0].append(2)
        first[1]["a"].append(2)
        self.assertEqual(second, [[1], {"a": []}, {1}])

    def test_loaded_functions_run(self):
        namespace = {}
        source = "def f(n):\n    return [g(i) for i in range(n)]\ndef g(i):\n    return i * i\n"
        exec(rehydrate.loads(rehydrate.dumps(compile(source, "f.py", "exec"))), namespace)
        # Often enough to be specialized.
        self.assertEqual([namespace["f"](100) for _ in range(100)][-1], [i * i for i in range(100)])

    def test_values_that_marshal_does_not_take_are_refused(self):
        for value in (object(), lambda: 0, [object()], type):
            with self.assertRaisesRegex(ValueError, "unmarshallable"):
                rehydrate.dumps(value)

    def test_names_of_profiles_and_sharings_are_checked(self):
        for name, known in [("profile", "load, compact and core"), ("sharing", "structural, identity and none")]:
            for call in (rehydrate.dumps, rehydrate.disassemble, rehydrate.explain):
                with self.assertRaisesRegex(ValueError, f"no {name}: \"other\"; there are {known}"):
                    call(b"", **{name: "other"})
                with self.assertRaises(TypeError):
                    call(b"", **{name: 7})


class BytesLike(unittest.TestCase):
    STREAM = rehydrate.dumps((1, "a", [2.5]))

    def forms(self, data):
        yield data
        yield bytearray(data)
        yield memoryview(data)
        yield memoryview(bytearray(data))
        yield memoryview(b"x" + data + b"x")[1:-1]
        yield memoryview(data).cast("c")
        padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
        if padded == data:
            yield array("I", padded)
        yield type("Subclass", (bytes,), {})(data)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped

    def test_every_kind_is_read(self):
        pyc = OWN_MAGIC + b"\r\n" + bytes(12) + marshal.dumps(function.__code__)
        whole = _native.compile_pyc(pyc)
        for data, check in [(self.STREAM, lambda loaded: self.assertEqual(loaded, (1, "a", [2.5])))] + [
            (whole, lambda loaded: self.assertEqual(loaded, function.__code__))
        ]:
            for form in self.forms(data):
                with self.subTest(type(form)):
                    check(rehydrate.loads(form))
                    rehydrate.verify(form)
                    self.assertIn("RETURN_VALUE", rehydrate.disassemble(form))
                    self.assertIn("objects", rehydrate.explain(form))
        for form in self.forms(pyc):
            self.assertEqual(_native.compile_pyc(form), whole)

    def test_arrays_of_wide_items_are_read_as_bytes(self):
        stream = rehydrate.dumps("x" * 7)
        while len(stream) % 4:
            stream = rehydrate.dumps(rehydrate.loads(stream) + "x")
        self.assertEqual(rehydrate.loads(array("I", stream)), rehydrate.loads(stream))

    def test_what_is_not_contiguous_is_refused(self):
        every_other = memoryview(bytes(byte for pair in zip(self.STREAM, self.STREAM) for byte in pair))[::2]
        self.assertEqual(every_other.tobytes(), self.STREAM)
        for call in (rehydrate.loads, rehydrate.verify, rehydrate.disassemble, rehydrate.explain, _native.compile_pyc):
            with self.assertRaisesRegex(BufferError, "not contiguous"):
                call(every_other)

    def test_other_types_are_refused(self):
        for call in (rehydrate.loads, rehydrate.verify, rehydrate.disassemble, rehydrate.explain, _native.compile_pyc):
            for other in ("text", None, 7, [1, 2]):
                with self.assertRaisesRegex(TypeError, "bytes-like"):
                    call(other)
            with self.assertRaises(TypeError):
                call()

    def test_a_buffer_is_released(self):
        data = bytearray(self.STREAM)
        rehydrate.loads(data)
        with self.assertRaises(ValueError):
            rehydrate.loads(data[:-1])
        data.extend(b"x")


class Refusals(unittest.TestCase):
    STREAM = rehydrate.dumps((function.__code__, "x"))

    def test_a_refusal_has_a_position_and_a_reason(self):
        number = struct.unpack("<H", OWN_MAGIC)[0]
        other = 3531 if number != 3531 else 3571
        cases = [
            (b"", r"neither a stream nor a .pyinit: .* \(at byte 0x0\)"),
            (b"junk" * 9, r"neither a stream nor a .pyinit: .* \(at byte 0x0\)"),
            (b"PYI.", r"the container ends inside its header \(at byte 0x4\)"),
            (self.STREAM[:-1], r"ends early: \d+ bytes needed, \d+ left \(at byte 0x[0-9a-f]+\)"),
            (self.STREAM + b"x", rf"bytes follow the container \(at byte {len(self.STREAM):#x}\)"),
            (b"PYI.\xff" + self.STREAM[5:], r"unknown version \(at byte 0x4\)"),
            (self.STREAM[:6] + struct.pack("<H", other) + self.STREAM[8:], rf"is of Python 3\..*{other}.*{number} \(at byte 0x6\)"),
            (self.STREAM[:6] + b"\0\0" + self.STREAM[8:], r"is of an unknown version of Python.* \(at byte 0x6\)"),
            (struct.pack("<H", other) + b"\r\n" + bytes(12) + self.STREAM, r"is of Python 3\..* \(at byte 0x0\)"),
            (OWN_MAGIC + b"\r\n" + bytes(12) + b"c" * 30, "no container stands behind the header"),
        ]
        for data, why in cases:
            with self.subTest(data=data[:24]):
                with self.assertRaisesRegex(ValueError, why):
                    rehydrate.loads(data)
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, "x.pyinit")
                    path.write_bytes(data)
                    with self.assertRaisesRegex(ValueError, why):
                        rehydrate.load(path)

    def test_code_objects_share_tables_however_they_are_made(self):
        """One whose stack is too large for MAKE_FULL_CODE is made by MAKE_CODE; they name each other's tables."""
        small = function.__code__
        large = small.replace(co_stacksize=1 << 16)
        for codes in (small, large), (large, small), (small, small.replace(co_name="other"), large):
            # The order of a set depends on that in which it was filled: marshal fills it in the order of the dump, too.
            wanted = marshal.loads(marshal.dumps(codes))
            for sharing in SHARINGS:
                stream = rehydrate.dumps(codes, sharing=sharing)
                self.assertIn("MAKE_CODE", rehydrate.disassemble(stream))
                self.assertIn("MAKE_FULL_CODE", rehydrate.disassemble(stream))
                self.assertEqual(_native.assemble(rehydrate.disassemble(stream)), stream)
                self.addCleanup(_native._force_path)
                for path in ("direct", "constructor", "marshal"):
                    with self.subTest(sharing=sharing, path=path):
                        _native._force_path(path)
                        for made, code in zip(rehydrate.loads(stream), wanted, strict=True):
                            self.assertIsNone(difference(code, made))

    def test_what_is_left_to_marshal_is_looked_at(self):
        """A code object that the constructor makes another has all of its stream read by marshal, which looks at no bytecode."""

        def code(kinds, bytecode):
            return f"""
                BUILD_TUPLE 0
                BUILD_TUPLE 0
                MAKE_STRING 'n x'
                BUILD_TUPLE 1
                MAKE_STRING 'a name'
                COPY 1
                COPY 1
                MAKE_CODE
                .numbers co_argcount=0 co_posonlyargcount=0 co_kwonlyargcount=0 co_stacksize=2 co_flags=0 co_firstlineno=1
                .co_code {bytecode}
                .co_localspluskinds {kinds}
                .co_linetable empty
                .co_exceptiontable empty
                """

        def built(second):
            listing = f".magic {struct.unpack('<H', OWN_MAGIC)[0]}\n{code('1f', plain)}{second}BUILD_TUPLE 2\nRETURN_VALUE\n"
            return _native._build(_native.assemble(listing))

        plain = (lambda: None).__code__.co_code.hex()
        self.assertEqual([each.co_code.hex() for each in built(code("20", plain))], [plain] * 2)
        for kinds, bytecode, why in ("20", f"{plain}fe00", "cannot read back"), ("a0", plain, "a variable that is free, and local"):
            with self.subTest(why), self.assertRaisesRegex(ValueError, why):
                built(code(kinds, bytecode))

    def test_streams_of_other_pythons_can_be_looked_into(self):
        # ("some text", 2.5) of Python 3.6.
        stream = bytes.fromhex("5059492e0501330d0200000800090008000000000000000008090d0010021e00736f6d6520746578740000000000000440")
        rehydrate.verify(stream)
        self.assertIn("MAKE_STRING", rehydrate.disassemble(stream))
        with self.assertRaisesRegex(ValueError, "is of Python 3.6"):
            rehydrate.loads(stream)

    def test_every_prefix_is_refused(self):
        for end in range(len(self.STREAM)):
            for call in (rehydrate.loads, rehydrate.verify, rehydrate.disassemble, rehydrate.explain):
                with self.assertRaises(ValueError):
                    call(self.STREAM[:end])

    def test_compile_pyc_takes_pycs_alone(self):
        for data in (b"", b"junk", self.STREAM, OWN_MAGIC + b"\r\n" + bytes(12), OWN_MAGIC + b"\r\n" + bytes(12) + b"("):
            with self.assertRaises(ValueError):
                _native.compile_pyc(data)

    def test_what_is_moved_out_of_a_slot_is_counted_once(self):
        """Also if what it is moved into is refused."""
        start = f".magic {struct.unpack('<H', OWN_MAGIC)[0]}\nMAKE_STRING 'that nobody else has'\nBUILD_LIST 0\nLOAD_INT 2\n"
        assembled = lambda items: _native.assemble(f"{start}BUILD_TUPLE_NEAR {items}\nRETURN_VALUE\n")
        for items, n_texts in ("0! 1", 1), ("0 1! 0!", 2), ("0 0 0! 1", 3):
            value = rehydrate.loads(assembled(items))
            self.assertEqual(sys.getrefcount(value[0]), n_texts + 1, items)
        stream, moved = assembled("1! 0 0! 2"), 0x8000
        at = stream.index(struct.pack("<4H", 1 | moved, 0, 0 | moved, 2)) + 6
        for slot in (0, 1, 0 | moved, 1 | moved, 3):
            refused = stream[:at] + struct.pack("<H", slot) + stream[at + 2 :]
            with self.assertRaisesRegex(ValueError, "whose value was moved|the stack holds 3"):
                rehydrate.loads(refused)
            n_blocks = sys.getallocatedblocks()
            for _ in range(100):
                with contextlib.suppress(ValueError):
                    rehydrate.loads(refused)
            self.assertLess(sys.getallocatedblocks() - n_blocks, 50, slot)


def colliding(n, prefix=b""):
    """Names of one hash, another one for each length. It has no seed: its last two steps are undone, from states whose lower
    halves are the same."""
    mask, factor = (1 << 64) - 1, 0x9E3779B97F4A7C15
    inverse = pow(factor, -1, 1 << 64)
    word = lambda text: int.from_bytes(text, "little")
    mixed = lambda state, word: (product := (state ^ word) * factor & mask) ^ product >> 32
    undone = lambda state: (state ^ state >> 32) * inverse & mask
    state = len(prefix) + 16
    for at in range(0, len(prefix), 8):
        state = mixed(state, word(prefix[at : at + 8]))
    state, names = mixed(state, word(b"collides")), []
    for upper in itertools.count():
        last = undone(undone(upper << 32 | len(prefix) << 6)) ^ state
        if not last & 0x8080808080808080:
            names.append((prefix + b"collides" + last.to_bytes(8, "little")).decode())
            if len(names) == n:
                return names


class Names(unittest.TestCase):
    def test_names_are_counted_where_they_are_not_immortal(self):
        """All of them are known to the second load."""
        stream = _native.assemble(
            f".magic {struct.unpack('<H', OWN_MAGIC)[0]}\nMAKE_NAMES 'a_name_of_this_test' 'another_name'\n"
            "BUILD_TUPLE_NEAR 0 1 0\nRETURN_VALUE\n"
        )
        name = rehydrate.loads(stream)[0]
        n_references = sys.getrefcount(name)
        for _ in range(100):
            self.assertIs(rehydrate.loads(stream)[2], name)
        self.assertEqual(sys.getrefcount(name), n_references)

    def test_a_name_is_moved_out_of_the_slot_that_is_named(self):
        """Not out of the one whose number has the same bits, where there are so many."""
        names = " ".join(f"'name{n}'" for n in range(33_000))
        lines = f".magic {struct.unpack('<H', OWN_MAGIC)[0]}\nMAKE_NAMES {names}\nBUILD_TUPLE_NEAR 5! 6\n"
        stream = _native.assemble(f"{lines}RETURN_VALUE\n")
        for _ in range(2):
            self.assertEqual(rehydrate.loads(stream), ("name5", "name6"))

    #: Most names of one hash that the table takes.
    BOUND = 64

    def test_names_of_one_hash_fill_no_more_than_their_run(self):
        """Those that are short stand in the table, long ones apart."""
        for prefix in (b"", b"a prefix" * 2):
            names = colliding(500, prefix)
            code = compile("", "x.py", "exec").replace(co_names=tuple(names))
            stream = rehydrate.dumps(code)
            self.assertIn("MAKE_NAMES", rehydrate.disassemble(stream))
            before = rehydrate.status()["names"]["count"]
            first = rehydrate.loads(stream)
            grown = rehydrate.status()["names"]["count"] - before
            self.assertTrue(2 < grown <= self.BOUND + 2, grown)
            self.assertIsNone(difference(code, first))
            for _ in range(3):
                again = rehydrate.loads(stream)
                self.assertTrue(all(one is other for one, other in zip(first.co_names, again.co_names, strict=True)))
                self.assertTrue(all(map(is_interned, again.co_names)))
            # What found no room does not come in later, and nothing stands there twice.
            self.assertEqual(rehydrate.status()["names"]["count"] - before, grown)
            # One by one, so that none is found because another was looked for.
            for name in names:
                alone = rehydrate.loads(rehydrate.dumps(code.replace(co_names=(name,))))
                self.assertIs(alone.co_names[0], sys.intern(name))

    def test_names_without_room_are_freed(self):
        names = colliding(500)
        code = compile("", "x.py", "exec").replace(co_names=tuple(names))
        stream = rehydrate.dumps(code)
        del code, names
        blocks = []
        for _ in range(3):
            rehydrate.loads(stream)
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        self.assertLess(blocks[-1] - blocks[0], 100)


class Effort(unittest.TestCase):
    """What CPython would walk into for too long."""

    WHY = "in so many places that CPython"
    PATHS = ("direct", "constructor", "marshal")

    @contextlib.contextmanager
    def on(self, path):
        _native._force_path(path)
        try:
            with self.subTest(path=path):
                yield
        finally:
            _native._force_path()

    def build(self, *lines):
        head = f".magic {struct.unpack('<H', OWN_MAGIC)[0]}"
        return _native._build(_native.assemble("\n".join([head, *lines, "RETURN_VALUE", ""])))

    def doubled(self, n, first="BUILD_TUPLE 0", double=("COPY 1", "BUILD_TUPLE 2")):
        return [first, *double * n]

    def code(self, consts):
        numbers = "co_argcount=0 co_posonlyargcount=0 co_kwonlyargcount=0 co_stacksize=2 co_flags=0 co_firstlineno=1"
        lines = ["BUILD_TUPLE 0", *consts, "BUILD_TUPLE 1", "BUILD_TUPLE 0", "MAKE_STRING 'f'", "COPY 1", "COPY 1", "MAKE_CODE"]
        tables = {"co_code": (lambda: None).__code__.co_code.hex(), "co_localspluskinds": "empty"}
        tables |= {"co_linetable": "empty", "co_exceptiontable": "empty"}
        return [*lines, f".numbers {numbers}", *(f".{table} {content}" for table, content in tables.items())]

    def hashed(self):
        """What makes sixty doublings, of which each takes CPython twice as long as the one before."""
        yield "tuple", self.doubled(60)
        yield "tuple in a code object", self.code(self.doubled(60))
        # Two that are equal are compared.
        double = ("COPY 1", "BUILD_TUPLE 1", "BUILD_TUPLE 2", "CALL_INTRINSIC_1 make_frozenset")
        yield "frozenset", self.doubled(60, double=double)
        if sys.version_info >= (3, 14):
            yield "slice", self.doubled(60, "LOAD_INT 7", ("COPY 1", "COPY 1", "BUILD_SLICE 3"))
        if FROZENDICT:
            double = ("COPY 1", "BUILD_TUPLE 2", "BUILD_TUPLE 0", "COPY 2", "BUILD_MAP 1", "CALL_INTRINSIC_1 make_frozendict")
            yield "frozendict", self.doubled(60, double=double)

    def test_sixty_doublings_are_not_hashed(self):
        holders = {
            "set": ["BUILD_SET 1"],
            "frozenset": ["BUILD_TUPLE 1", "CALL_INTRINSIC_1 make_frozenset"],
            "dict": ["LOAD_INT 7", "BUILD_MAP 1"],
            "grown dict": ["BUILD_MAP 0", "COPY 2", "LOAD_INT 7", "MAP_ADD 1"],
        }
        for path in self.PATHS:
            with self.on(path):
                for of, doublings in self.hashed():
                    for holder, lines in holders.items():
                        with self.subTest(of=of, holder=holder), self.assertRaisesRegex(ValueError, self.WHY):
                            self.build(*doublings, *lines)

    def test_sixty_doublings_are_not_searched_for_what_to_intern(self):
        # What could be a name is not interned, so the constructor is asked whatever the path.
        code = self.code(self.doubled(60, "MAKE_STRING 'constant'"))
        for path in self.PATHS:
            with self.on(path):
                with self.assertRaisesRegex(ValueError, self.WHY):
                    self.build(*code)
                if path == "direct":
                    interned = [line.replace("MAKE_STRING", "MAKE_IDENTIFIERS") for line in code]
                    self.assertEqual(self.build(*interned).co_name, "f")

    def test_sixty_doublings_are_built_where_nobody_walks_into_them(self):
        for path in self.PATHS:
            with self.on(path):
                built = self.build(*self.doubled(60), "LOAD_INT 7", "COPY 2", "BUILD_MAP 1", "BUILD_LIST 2")
                tower, depth = built[0], 0
                self.assertIs(built[1][7], tower)
                while tower:
                    self.assertIs(tower[0], tower[1])
                    tower, depth = tower[0], depth + 1
                self.assertEqual(depth, 60)

    def test_what_is_shared_as_values_are_is_hashed(self):
        shared = tuple(range(1000))
        big, text = 1 << 300_000, "a text " * 100_000
        values = [{(shared, n) for n in range(1000)}, {(shared, n): frozenset({shared}) for n in range(1000)}]
        values += [{big, text, (big, text)}, {compile("x = 1, 'a'", "x.py", "exec"): shared}, set(range(100_000))]
        for path in self.PATHS:
            with self.on(path):
                for value in values:
                    self.assertEqual(rehydrate.loads(rehydrate.dumps(value)), value)
                level = ("LOAD_INT 1", "BUILD_TUPLE 2", "CALL_INTRINSIC_1 make_frozenset")
                deep = self.build(*self.doubled(990, double=level), "BUILD_SET 1")
                self.assertEqual(len(deep), 1)

    def test_large_things_are_not_hashed_again_and_again(self):
        """The hash of an int is computed anew each time, the hash of a text is not."""
        again = ["COPY 1", "BUILD_SET 1", "COPY 2"] * 10_000
        for path in self.PATHS:
            with self.on(path):
                self.build("MAKE_STRING 'a text'", *again)
                with self.assertRaisesRegex(ValueError, self.WHY):
                    self.build(f"MAKE_LONG {1 << 300_000:#x}", *again)

    def test_sets_of_a_tuple_that_is_made_once_take_memory_each(self):
        items = [*(f"MAKE_LONG {n}" for n in range(1000, 2000)), "BUILD_TUPLE 1000"]
        again = ["LOAD_FAST 0", "CALL_INTRINSIC_1 make_frozenset"]
        for path in self.PATHS:
            with self.on(path):
                self.assertEqual(len(self.build(*items, *again * 100, "BUILD_LIST 100")), 100)
                with self.assertRaisesRegex(ValueError, "in so many places|more items than a stream of this size may make"):
                    self.build(*items, *again * 1000, "BUILD_LIST 1000")

    def constructed(self, slots, kinds):
        """A code object that the direct path does not make, as its stack is larger; of values in slots."""
        numbers = f"co_argcount=0 co_posonlyargcount=0 co_kwonlyargcount=0 co_stacksize={1 << 24} co_flags=3 co_firstlineno=1"
        lines = [*(f"LOAD_FAST {slot}" for slot in slots), "MAKE_CODE", f".numbers {numbers}"]
        lines += [f".co_code {(lambda: None).__code__.co_code.hex()}", f".co_localspluskinds {kinds}"]
        return [*lines, ".co_linetable empty", ".co_exceptiontable empty"]

    def test_variables_that_many_code_objects_share(self):
        """The constructor makes tuples of them for each, so that marshal, which does not, is asked where these are many."""
        n_variables, n_codes = 1000, 1000
        lines = ["MAKE_NAMES " + " ".join(f"'v{n}'" for n in range(n_variables)), f"BUILD_TUPLE {n_variables}"]
        lines += ["BUILD_TUPLE 0", "MAKE_STRING 'f'"]
        for n in range(n_codes):
            lines += self.constructed([1, 1, 0, 2, 2, 2], "table 0" if n else "20" * n_variables)
        for path in self.PATHS:
            with self.on(path):
                codes = self.build(*lines, f"BUILD_LIST {n_codes}")
                variables = [len(code.co_varnames) for code in codes]
                self.assertEqual(variables, [n_variables] * n_codes)

    def test_bytecode_that_many_code_objects_share_takes_memory_in_each(self):
        bytecode = bytes([dis.opmap["NOP"], 0] * 5_000 + [dis.opmap["RETURN_VALUE"], 0]).hex()
        numbers = "co_argcount=0 co_posonlyargcount=0 co_kwonlyargcount=0 co_stacksize=1 co_flags=3 co_firstlineno=1"
        lines = ["BUILD_TUPLE 0", "MAKE_IDENTIFIERS 'f'"]
        for n in range(2000):
            lines += ["MAKE_FULL_CODE 0 0 0 1 1 1", f".numbers {numbers}"]
            lines += [f".co_code {'table 0' if n else f'quickened numbered {bytecode}'}", ".co_localspluskinds empty"]
            lines += [".co_linetable empty", ".co_exceptiontable empty"]
        few = lines[: 2 + 300 * 6]
        for path in self.PATHS:
            with self.on(path):
                self.assertEqual(len(self.build(*few, "BUILD_LIST 300")), 300)
                with self.assertRaisesRegex(ValueError, "share bytecode hold more copies of it than a stream of this size"):
                    self.build(*lines, "BUILD_LIST 2000")

    def test_names_that_many_code_objects_share_are_interned_for_each(self):
        n_names, n_codes = 20_000, 2000
        lines = ["MAKE_NAMES " + " ".join(f"'n{n}'" for n in range(n_names)), f"BUILD_TUPLE {n_names}"]
        lines += ["BUILD_TUPLE 0", "MAKE_STRING 'f'"]
        code = self.constructed([0, 1, 1, 2, 2, 2], "empty")
        for path in self.PATHS:
            with self.on(path):
                codes = self.build(*lines, *code * 100, "BUILD_LIST 100")
                self.assertEqual([len(code.co_names) for code in codes], [n_names] * 100)
                with self.assertRaisesRegex(ValueError, self.WHY):
                    self.build(*lines, *code * n_codes, f"BUILD_LIST {n_codes}")

    def test_many_locals_and_cells(self):
        """The constructor compares each local variable with each cell, so that marshal is asked where these are many."""
        n = 3000
        source = f"def f({', '.join(f'a{n}' for n in range(n))}):\n    {' = '.join(f'b{n}' for n in range(n))} = 1\n"
        source += f"    return lambda: ({', '.join(f'b{n}' for n in range(n))})\n"
        code = compile(source, "x.py", "exec")
        stream = rehydrate.dumps(code)
        for path in self.PATHS:
            with self.on(path):
                self.assertIsNone(difference(code, rehydrate.loads(stream)))


class Filenames(unittest.TestCase):
    SOURCE = "def f():\n    def g(): pass\n    return g\n"

    def test_filename_replaces_that_of_the_module_where_it_stands(self):
        module = compile(self.SOURCE, "old.py", "exec")
        inner = module.co_consts[0]
        others = [
            constant.replace(co_filename="other.py") if isinstance(constant, CODE) else constant
            for constant in inner.co_consts
        ]
        other = inner.replace(co_filename="other.py", co_consts=tuple(others))
        module = module.replace(co_consts=(other, *module.co_consts[1:]))
        for profile in PROFILES:
            loaded = rehydrate.loads(rehydrate.dumps(module, profile=profile), filename="new.py")
            self.assertEqual(loaded.co_filename, "new.py")
            # As of marshal and _fix_co_filename: one that has another name keeps it.
            wanted = marshal.loads(marshal.dumps(module))
            __import__("_imp")._fix_co_filename(wanted, "new.py")
            self.assertIsNone(difference(wanted, loaded))

    def test_filenames_are_any_str(self):
        stream = rehydrate.dumps(compile(self.SOURCE, "old.py", "exec"))
        for name in ("", "old.py", "größe.py", "\udc80", "x" * 5000, "nul\0"):
            loaded = rehydrate.loads(stream, filename=name)
            self.assertEqual(loaded.co_filename, name)
            self.assertEqual(loaded.co_consts[0].co_filename, name)
        for name in (b"bytes", 7, Path("x")):
            with self.assertRaises(TypeError):
                rehydrate.loads(stream, filename=name)

    def test_filename_replaces_none_that_another_was_in_the_place_of(self):
        """Filenames that are freed before the next one is made, which is then where they were."""
        code = rehydrate.disassemble(rehydrate.dumps(compile("0", "a.py", "exec"), profile="core"))
        tables = "".join(line.strip() + "\n" for line in code.splitlines() if line.lstrip().startswith((".numbers", ".co_")))
        listing = f".python {sys.version_info[0]}.{sys.version_info[1]}\n.filename 'a.py'\n"
        listing += "MAKE_IDENTIFIERS '<module>'\nLOAD_COMMON_CONST ()\n"
        for name in ("a.py", "b.py", "a.py", "c.py"):
            listing += f"MAKE_STRING '{name}'\nMAKE_CODE 1 1 1 0 0 pop\n{tables}"
        loaded = rehydrate.loads(_native.assemble(listing + "BUILD_TUPLE 4\nRETURN_VALUE\n"), filename="new.py")
        self.assertEqual([code.co_filename for code in loaded], ["new.py", "b.py", "new.py", "c.py"])

    def test_filename_does_nothing_to_other_values(self):
        self.assertEqual(rehydrate.loads(rehydrate.dumps([1]), filename="x"), [1])

    def test_without_filename_it_is_that_of_the_dump(self):
        self.assertEqual(rehydrate.loads(rehydrate.dumps(compile("", "größe.py", "exec"))).co_filename, "größe.py")


class Files(Project):
    def test_load_reads_a_mapped_file(self):
        path = self.root / "x.pyinit"
        path.write_bytes(rehydrate.dumps(compile("VALUE = 7", "x.py", "exec")))
        for spelled in (path, str(path)):
            self.assertEqual(rehydrate.load(spelled).co_filename, "x.py")
        self.assertEqual(rehydrate.load(path, filename="y.py").co_filename, "y.py")

    def test_caches_of_loaded_bytecode_lie_inside(self):
        """To read `co_code` clears them: the debug allocator sees what is written behind the end."""
        script = """
            import itertools, opcode, sys
            import rehydrate
            from rehydrate import _native
            _native._force_path(sys.argv[1])
            code = compile("a = b = c = d = e = f = g = h = i = j = k = l = m = n = 1", "x.py", "exec")
            stream, bytecode = rehydrate.dumps(code), code._co_code_adaptive
            at, n_units = stream.index(bytecode), len(bytecode) // 2
            nop = bytes([opcode.opmap["NOP"], 0])
            n_loaded = n_refused = 0
            # 255: what looks like a counter of 3.14 and 3.15 has it.
            for last, op, oparg in itertools.product(range(1, 14), range(256), (0, 255)):
                changed = nop * (n_units - last) + bytes([op, oparg]) + nop * (last - 1)
                try:
                    loaded = rehydrate.loads(stream[:at] + changed + stream[at + len(bytecode) :])
                except ValueError:
                    n_refused += 1
                    continue
                n_loaded += 1
                assert len(loaded.co_code) == len(bytecode)
            print(n_loaded > n_refused > 0)
            """
        path = self.write("script.py", script)
        for way in ("direct", "constructor"):
            with self.subTest(way):
                run = self.python(path, way, hook=False, env={"PYTHONMALLOC": "debug"})
                self.assertEqual(run.stdout, "True\n")

    @unittest.skipIf(sys.version_info < (3, 12), "it has no such opcodes")
    def test_opcodes_of_a_running_interpreter_are_refused_wherever_they_stand(self):
        nop, end = (bytes([opcode.opmap[name], 0]) for name in ("NOP", "RETURN_VALUE"))
        # 3.12 has no executors.
        names = {"INSTRUMENTED_LINE", "ENTER_EXECUTOR"} & opcode.opmap.keys()
        self.assertIn("INSTRUMENTED_LINE", names)
        running = [bytes([opcode.opmap[name], 0]) for name in names]
        for n_units in range(1, 51):
            code = compile("", "x.py", "exec").replace(co_code=nop * (n_units - 1) + end)
            stream, bytecode = rehydrate.dumps(code), code._co_code_adaptive
            self.assertEqual(rehydrate.loads(stream).co_code, code.co_code)
            at = stream.index(bytecode)
            for unit, place in itertools.product(running, range(n_units)):
                changed = bytecode[: 2 * place] + unit + bytecode[2 * place + 2 :]
                with self.assertRaisesRegex(ValueError, "cannot read back", msg=f"{unit} at {place} of {n_units}"):
                    rehydrate.loads(stream[:at] + changed + stream[at + len(bytecode) :])

    def test_slots_that_held_names_hold_others_later(self):
        listing = self.write("listing", f"""\
            .python {sys.version_info[0]}.{sys.version_info[1]}
            MAKE_NAMES 'first_name' 'second_name'
            BUILD_TUPLE_NEAR 0 1 0
            BUILD_TUPLE 2
            BUILD_LIST 2
            BUILD_TUPLE_NEAR 0 0
            BUILD_TUPLE_NEAR 0 1
            BUILD_TUPLE 3
            RETURN_VALUE
            """)
        self.python("-m", "rehydrate", "asm", str(listing), "-o", "stream", hook=False)
        loaded = rehydrate.load(self.root / "stream")
        of_list = ["first_name", ("second_name", ("first_name", "second_name", "first_name"))]
        inner = (of_list, of_list)
        expected = (of_list, inner, (of_list, inner))
        self.assertEqual(loaded, expected)
        for where in (lambda value: value[0], lambda value: value[1]):
            self.assertEqual(sys.getrefcount(where(loaded)), sys.getrefcount(where(expected)) - 1)
            self.assertTrue(gc.is_tracked(where(loaded)))

    def test_load_says_which_file_cannot_be_opened(self):
        for path, kind in [(self.root / "none", FileNotFoundError), (self.root / "größe" / "x", FileNotFoundError)]:
            with self.assertRaises(kind) as caught:
                rehydrate.load(path)
            self.assertEqual(caught.exception.filename, str(path))
        with self.assertRaises(OSError):
            rehydrate.load(self.root)
        for path in (7, None):
            with self.assertRaises(TypeError):
                rehydrate.load(path)
        with self.assertRaises(ValueError):
            rehydrate.load("nul\0")

    def test_an_empty_file_is_refused(self):
        (self.root / "empty").touch()
        with self.assertRaises(ValueError):
            rehydrate.load(self.root / "empty")


class Public(unittest.TestCase):
    def test_all_that_is_public_is_documented(self):
        for name in rehydrate.__all__:
            value = getattr(rehydrate, name)
            if name != "__version__":
                self.assertTrue(pydoc.getdoc(value), name)
                self.assertTrue(inspect.signature(value), name)
        self.assertRegex(rehydrate.__version__, r"\A\d+\.\d+\.\d+\Z")

    def test_the_signatures_are_those_promised(self):
        wanted = {
            "loads": "(data, /, *, filename=None)",
            "load": "(path, *, filename=None)",
            "dumps": "(value, /, *, profile='load', sharing='structural')",
            "disassemble": "(data, /, *, profile='load', sharing='structural')",
            "verify": "(data, /)",
            "uninstall": "()",
            "status": "()",
        }
        for name, signature in wanted.items():
            found = inspect.signature(getattr(rehydrate, name))
            plain = [p.replace(annotation=p.empty) for p in found.parameters.values()]
            self.assertEqual(str(found.replace(parameters=plain, return_annotation=found.empty)), signature)

    def test_the_stub_has_what_the_extension_has(self):
        stub = ast.parse((Path(rehydrate.__file__).parent / "_native.pyi").read_text())
        functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
        variables = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)} - {"_Profile", "_Sharing"}
        found = {name for name in vars(_native) if not name.startswith("__") or name == "__version__"}
        classes = {node.name for node in stub.body if isinstance(node, ast.ClassDef)}
        self.assertEqual(found, functions.keys() | variables | classes)
        for name, node in functions.items():
            signature = inspect.signature(getattr(_native, name))
            spelled = [arg.arg for arg in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
            self.assertEqual(list(signature.parameters), spelled, name)
            defaults = [ast.literal_eval(value) for value in node.args.defaults + node.args.kw_defaults if value is not None]
            has = [p.default for p in signature.parameters.values() if p.default is not p.empty]
            self.assertEqual(has, defaults, name)

    def test_the_package_is_marked_as_typed(self):
        self.assertTrue((Path(rehydrate.__file__).parent / "py.typed").exists())

    def test_status_is_a_dict_of_what_is_active(self):
        status = rehydrate.status()
        self.assertEqual(status["hook"]["installed"], False)
        self.assertEqual(set(status["hook"]), {"installed", "hits", "misses", "bundles", "written", "failures", "last_failure", "warning"})

    def test_explain_says_what_is_shared(self):
        source = "def f():\n    '''The same text.'''\ndef g():\n    '''The same text.'''\n"
        code = compile(source, "x.py", "exec")
        pyc = OWN_MAGIC + b"\r\n" + bytes(12) + marshal.dumps(code)
        for data in (rehydrate.dumps(code), pyc, _native.compile_pyc(pyc)):
            said = rehydrate.explain(data, value="same text")
            self.assertIn("1 for 2 places: shared", said)
        self.assertIn("2 for 2 places: not shared", rehydrate.explain(pyc, value="same text", sharing="none"))

    def test_source_flags_are_kept_only_if_asked_for(self):
        pyc = OWN_MAGIC + b"\r\n" + bytes(12) + marshal.dumps(function.__code__)
        without, with_them = _native.compile_pyc(pyc), _native.compile_pyc(pyc, source_flags=True)
        self.assertLess(len(without), len(with_them))
        self.assertIsNone(difference(rehydrate.loads(without), rehydrate.loads(with_them)))

    def test_the_examples_of_the_readme(self):
        readme = Path(__file__).parent.parent / "README.md"
        result = doctest.testfile(str(readme), module_relative=False)
        self.assertEqual((result.failed, result.attempted), (0, 4))

    def test_threads_load_at_once(self):
        stream = rehydrate.dumps(function.__code__)
        wanted = describe(rehydrate.loads(stream))
        wrong = []

        def work():
            for _ in range(30):
                if describe(rehydrate.loads(rehydrate.dumps(rehydrate.loads(stream)))) != wanted:
                    wrong.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_code_type_is_the_real_one(self):
        self.assertIs(type(rehydrate.loads(rehydrate.dumps(function.__code__))), CODE)
        self.assertTrue(os.path.exists(rehydrate.__file__))


if __name__ == "__main__":
    unittest.main()
