"""Makes every compiled file of this folder, byte for byte the same on every run.

    python3 examples/make.py PYTHON...           make the files
    python3 examples/make.py --check PYTHON...   say which files differ from what would be made
    python3 examples/make.py --load PYTHON...    load each dump in its interpreter; the refused ones must raise

Runs on Python 3.8 or newer. Each PYTHON is a CPython interpreter, 3.6 to 3.15, one of each version. Without one, only
the hand-made files are made; those that need an interpreter that was not given are listed and left as they are.

NAME.cpython-3XX.pyc      NAME.py compiled by CPython 3.XX, under the file name 'examples/NAME.py'
NAME.cpython-3XX.marshal  a bare marshal dump for CPython 3.XX
refused/                  dumps whose loading raises an exception
downstream/               a crate, which nothing here makes

The bytes do not depend on the place of this folder, on its time stamps, or on the hash seed. They do depend on the
micro version of an interpreter; those here come from 3.6.15, 3.7.16, 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1, 3.13.0,
3.14.10 and 3.15.2.

Exit status: 0 all is well; 1 a file differs, or loads otherwise than it should; 2 wrong usage.
"""

import argparse
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
from typing import NamedTuple, Union

FOLDER = pathlib.Path(__file__).resolve().parent

VERSIONS = (36, 37, 38, 39, 310, 311, 312, 313, 314, 315)
MTIME = 1_600_000_000

MAGIC = {
    36: 3379, 37: 3394, 38: 3413, 39: 3425, 310: 3439,
    311: 3495, 312: 3531, 313: 3571, 314: 3627, 315: 3666,
}

# ---------------------------------------------------------------------------------------------------------------------
# Sources and the versions that compile them
# ---------------------------------------------------------------------------------------------------------------------

MILESTONES = (38, 311, 313, 314, 315)

SOURCES = {
    "greeting": (VERSIONS, "a docstring, a function, an f-string, a call: the smallest whole program"),
    "pair": ((311, 315), "one constant tuple: the example of the lazy container in DESIGN.md"),
    "constants": (VERSIONS, "integers, floats, bytes and strings at the borders of their encodings"),
    "closures": (VERSIONS, "free and cell variables, `nonlocal`, every kind of parameter"),
    "classes": (MILESTONES, "inheritance, properties, `super()` and its class cell, annotations"),
    "errors": (MILESTONES, "`try` and `with`: exception tables from 3.11 on"),
    "generators": (MILESTONES, "generators, comprehensions, `async` and `await`"),
    "tables": (MILESTONES, "more than 256 distinct constants: `EXTENDED_ARG`"),
    "slices": (MILESTONES, "slices with constant bounds: constants from 3.14 on"),
    "positional_only": (MILESTONES, "positional-only parameters"),
    "docstrings": (VERSIONS, "docstrings that functions share, and that they do not; of a class and a module"),
    "empty": (MILESTONES, "a module of no bytes"),
}

# Beside the usual header, which names the time and the size of the source.
HASHED = {
    "greeting-checked.cpython-313.pyc": "CHECKED_HASH",
    "greeting-unchecked.cpython-313.pyc": "UNCHECKED_HASH",
}

# The Erg compiler writes a header of its own: magic, four zero bytes, a time stamp, and in newer releases four more
# zero bytes, whatever the version of Python.
ERG = {
    "erg12.cpython-36.pyc": 12,
    "erg16.cpython-36.pyc": 16,
    "erg16.cpython-38.pyc": 16,
    "erg12.cpython-311.pyc": 12,
}


def erg_header(version, size):
    return (struct.pack("<H", MAGIC[version]) + b"\r\n" + bytes(4) + i32(MTIME)).ljust(size, b"\0")


# ---------------------------------------------------------------------------------------------------------------------
# The marshal format, one function for each type code
# ---------------------------------------------------------------------------------------------------------------------

NULL, NONE, TRUE, FALSE, ELLIPSIS, STOP_ITERATION = b"0", b"N", b"T", b"F", b".", b"S"


def i32(number):
    return struct.pack("<i", number)


def flagged(dump):
    """Sets FLAG_REF: the object takes the next index of the reference table, before its children take theirs."""
    return bytes([dump[0] | 0x80]) + dump[1:]


def ref(index):
    return b"r" + i32(index)


def int32(number):
    return b"i" + i32(number)


def int64(number):
    return b"I" + struct.pack("<q", number)


def long(count, *digits):
    """Digits of 15 bits, least significant first; the sign of count is that of the number."""
    return b"l" + i32(count) + struct.pack(f"<{len(digits)}H", *digits)


def binary_float(bits):
    return b"g" + struct.pack("<Q", bits)


def binary_complex(real_bits, imag_bits):
    return b"y" + struct.pack("<QQ", real_bits, imag_bits)


def text_float(text):
    return b"f" + bytes([len(text)]) + text


def text_complex(real, imag):
    return b"x" + bytes([len(real)]) + real + bytes([len(imag)]) + imag


def string(code, payload):
    """The codes s (bytes), u, t (UTF-8), a, A (one byte a character), and z, Z (the same, with a short length)."""
    length = bytes([len(payload)]) if code in b"zZ" else i32(len(payload))
    return code + length + payload


def text(word):
    return string(b"z", word)


def tuple_(*items):
    return b")" + bytes([len(items)]) + b"".join(items)


def sequence(code, *items):
    """The codes ( [ < >: tuple, list, set, frozenset."""
    return code + i32(len(items)) + b"".join(items)


def wide_tuple(*items):
    return sequence(b"(", *items)


def list_(*items):
    return sequence(b"[", *items)


def set_(*items):
    return sequence(b"<", *items)


def frozenset_(*items):
    return sequence(b">", *items)


def dict_(*keys_and_values, end=NULL):
    return b"{" + b"".join(keys_and_values) + end


def frozendict_(*keys_and_values):
    return b"}" + b"".join(keys_and_values) + NULL


def slice_(start, stop, step):
    return b":" + start + stop + step


def code(*consts, word=text):
    """A code object of CPython 3.13 that returns its first constant; word dumps its strings."""
    return b"".join([
        b"c",
        i32(0),                                  # argcount
        i32(0),                                  # posonlyargcount
        i32(0),                                  # kwonlyargcount
        i32(1),                                  # stacksize
        i32(0),                                  # flags
        string(b"s", b"\x95\x00\x67\x00"),       # code: RESUME 0, RETURN_CONST 0
        tuple_(*consts),                         # consts
        tuple_(word(b"spam")),                   # names
        tuple_(),                                # localsplusnames
        string(b"s", b""),                       # localspluskinds
        word(b"examples/make.py"),               # filename
        word(b"constant"),                       # name
        word(b"constant"),                       # qualname
        i32(1),                                  # firstlineno
        string(b"s", b"\xf0\x03\x01\x01\x01"),   # linetable
        string(b"s", b""),                       # exceptiontable
    ])


# ---------------------------------------------------------------------------------------------------------------------
# Dumps
# ---------------------------------------------------------------------------------------------------------------------


class Dump(NamedTuple):
    """One bare marshal dump: a file for each of its versions."""

    name: str
    made: Union[bytes, str]
    """The bytes themselves, or the Python expression that the interpreter of each version evaluates to them."""
    versions: tuple = (313,)
    error: str = ""
    """What loading it raises: the file belongs in refused/."""

    def path(self, version):
        return f"{'refused/' if self.error else ''}{self.name}.cpython-{version}.marshal"


def doubled(times):
    """w = (w, w), this many times: 2 ** times leaves in 7 bytes a level. The outermost tuple has index 0."""
    dump = flagged(text(b"w"))
    for level in reversed(range(times)):
        dump = flagged(tuple_(dump, ref(level + 1)))
    return dump


def deep(levels):
    """A tuple in a list in a tuple ... around None."""
    pairs, odd = divmod(levels, 2)
    return (b")\x01" + b"[\x01\0\0\0") * pairs + b")\x01" * odd + NONE


SAMPLE = (
    r"1, -2**40, 0.1, -0.0, 2.5j, 'twice', 'twice', '\xe9', '\U0001f40d', "
    r"b'bytes', (), [None, {'key': True}], {7}, ..."
)
PROGRAM = "compile('def f(x, *, y=(1, 2)):\\n    return [x + y for x in y]\\n', 'examples/make.py', 'exec')"

ZERO, ONE, MINUS_ZERO = 0x0000000000000000, 0x3FF0000000000000, 0x8000000000000000
QUIET_NAN, SIGNALLING_NAN = 0x7FF8000000000000, 0x7FF0000000000001

# Each line of comment says what the dump below it shows.
DUMPS = {
    "Whole values, as an interpreter dumps them": [
        # The first example anyone tries: numbers, text, a tuple in a tuple.
        Dump("tuple_of_issue566", "dumps((1, 'a', 37.0, (2, 'foo')))"),
        # One value by each marshal version: text floats until 1, references from 3, short strings from 4.
        Dump("version0", f"dumps(({SAMPLE}), 0)"),
        Dump("version1", f"dumps(({SAMPLE}), 1)"),
        Dump("version2", f"dumps(({SAMPLE}), 2)"),
        Dump("version3", f"dumps(({SAMPLE}), 3)"),
        Dump("version4", f"dumps(({SAMPLE}), 4)"),
        # Version 5 adds slices.
        Dump("version5", f"dumps(({SAMPLE}, slice(1, None, 2)), 5)", (314,)),
        # Version 6 adds frozendict.
        Dump("version6", f"dumps(({SAMPLE}, slice(1, None, 2), frozendict(key=1)), 6)", (315,)),
    ],
    "Numbers": [
        # The code I, of 64 bits, which no interpreter writes.
        Dump("int64", tuple_(int64(0), int64(-1), int64(2**31), int64(2**63 - 1), int64(-2**63))),
        # One number by its three codes.
        Dump("int_codes", tuple_(int32(7), int64(7), long(1, 7))),
        # The code l for small numbers: 0, 1, -1, 2**15.
        Dump("long_small", tuple_(long(0), long(1, 1), long(-1, 1), long(2, 0, 1))),
        # The numbers beside the border of 32 bits: -2**31 - 1, 2**31.
        Dump("long_border", tuple_(long(-3, 1, 0, 2), long(3, 0, 0, 2))),
        # Floats and complex numbers as decimal text.
        Dump("text_floats", tuple_(
            *map(text_float, [b"0.0", b"-0.0", b"1e5", b"0.10000000000000001", b"1e999", b"inf", b"-inf", b"nan"]),
            text_complex(b"1", b"-0.0"),
            text_complex(b"nan", b"1e5"),
        ), (38, 313)),
        # One float by both codes.
        Dump("float_codes", tuple_(text_float(b"1"), binary_float(ONE))),
        # NaNs that differ in sign, payload and signalling bit; one in a complex number.
        Dump("nan_payloads", tuple_(
            binary_float(QUIET_NAN),
            binary_float(QUIET_NAN | MINUS_ZERO),
            binary_float(QUIET_NAN | 0xBEEF),
            binary_float(SIGNALLING_NAN),
            binary_complex(SIGNALLING_NAN, MINUS_ZERO),
        )),
        # 0, False, 0.0, -0.0, 0j, -0j: all equal, no two the same.
        Dump("zeros", tuple_(
            int32(0),
            FALSE,
            binary_float(ZERO),
            binary_float(MINUS_ZERO),
            binary_complex(ZERO, ZERO),
            binary_complex(MINUS_ZERO, MINUS_ZERO),
        )),
    ],
    "Strings": [
        # One text by its six codes, of which t, A and Z intern it; and the same bytes.
        Dump("text_codes", tuple_(*(string(bytes([letter]), b"spam") for letter in b"utaAzZs"))),
        # Equal strings beside each other, interned and not.
        Dump("interned_or_not", tuple_(
            string(b"Z", b"spam"),
            string(b"z", b"spam"),
            string(b"Z", b"spam"),
            string(b"z", b"two words"),
            string(b"Z", b"two words"),
        )),
        # The codes of ASCII text with the byte E9, which CPython reads as the character of that number.
        Dump("latin1", tuple_(*(string(bytes([letter]), b"caf\xe9") for letter in b"aAzZ"))),
        # A surrogate alone; two that would be a pair in UTF-16 stay two characters; the pair's character itself.
        Dump("surrogates", tuple_(
            string(b"u", b"\xed\xa0\x80"),
            string(b"u", b"\xed\xa0\xbd\xed\xb0\x8d"),
            string(b"u", "🐍".encode()),
        )),
        # No character, by every code; a NUL inside.
        Dump("empty_strings", tuple_(
            *(string(bytes([letter]), b"") for letter in b"utaAzZs"),
            string(b"z", b"a\0b"),
        )),
    ],
    "Lists, sets, dicts": [
        # Lists: empty, mixed, nested.
        Dump("lists", list_(list_(), list_(int32(1), text(b"a"), NONE), list_(list_(list_())))),
        # Two equal lists are two objects; a list by reference is one object twice.
        Dump("list_twice", tuple_(list_(int32(1)), flagged(list_(int32(1))), ref(0))),
        # A dict keeps the order of insertion.
        Dump("dicts", dict_(text(b"z"), int32(1), text(b"a"), int32(2), text(b"m"), dict_())),
        # Dicts in dicts, keyed by tuples and None.
        Dump("dict_nested", dict_(
            tuple_(int32(1), int32(2)), dict_(NONE, dict_(TRUE, list_(dict_()))),
            NONE, tuple_(),
        )),
        # 1, True and 1.0 are one key: the first key stays, the last value wins.
        Dump("dict_equal_keys", dict_(int32(1), text(b"a"), TRUE, text(b"b"), binary_float(ONE), text(b"c"))),
        # NULL as a value ends the dict and drops its key.
        Dump("dict_value_null", dict_(text(b"a"), int32(1), text(b"dropped"))),
        # A flagged NULL ends a dict, too, and takes no index: the reference is to the string.
        Dump("dict_flagged_null", tuple_(dict_(text(b"a"), int32(1), end=flagged(NULL)), flagged(text(b"b")), ref(0))),
        # Sets and frozensets, empty and not.
        Dump("sets", tuple_(
            set_(), set_(int32(1), int32(2), text(b"a")),
            frozenset_(), frozenset_(frozenset_(), tuple_(int32(1)), NONE),
        )),
        # Equal items collapse into the first.
        Dump("set_equal_items", set_(int32(1), TRUE, binary_float(ONE), int32(2))),
        # A wide code for a short tuple; an empty tuple by both codes.
        Dump("tuple_codes", tuple_(wide_tuple(int32(1)), tuple_(int32(1)), wide_tuple(), tuple_())),
        # Constant from 3.14 on: slices with and without bounds; a slice of slices.
        Dump("slice", tuple_(
            slice_(int32(1), int32(2), NONE),
            slice_(NONE, NONE, int32(-1)),
            slice_(text(b"a"), list_(), slice_(NONE, NONE, NONE)),
        ), (314, 315)),
        # The frozendict of 3.15: empty, nested, as a key.
        Dump("frozendict", tuple_(
            frozendict_(),
            frozendict_(text(b"b"), int32(1), text(b"a"), frozendict_(NONE, list_())),
            dict_(frozendict_(text(b"key"), NONE), TRUE),
        ), (315,)),
    ],
    "Singletons and references": [
        # None, True, False, Ellipsis, and the class StopIteration.
        Dump("stop_iteration", tuple_(NONE, TRUE, FALSE, ELLIPSIS, STOP_ITERATION)),
        # A flagged singleton takes no index: the reference is to 777.
        Dump("flagged_singletons", tuple_(
            *map(flagged, [NONE, TRUE, FALSE, ELLIPSIS, STOP_ITERATION, int32(777)]),
            ref(0),
        )),
        # Flags that no reference uses.
        Dump("unused_flags", flagged(tuple_(*map(flagged, [int32(1), text(b"a"), list_(), tuple_()])))),
        # A container takes its index before its children: 0 the tuple, 1 the list, 2 the string.
        Dump("reference_order", flagged(tuple_(flagged(list_(flagged(text(b"a")))), ref(2), ref(1)))),
        # The flag of a reference itself means nothing.
        Dump("flagged_reference", tuple_(flagged(text(b"a")), flagged(ref(0)), ref(0))),
        # Bytes after the object are ignored.
        Dump("trailing_bytes", int32(1) + b"ignored"),
    ],
    "Values in themselves": [
        # A list that holds itself.
        Dump("list_in_itself", flagged(list_(ref(0)))),
        # A dict that is its own value.
        Dump("dict_in_itself", flagged(dict_(text(b"self"), ref(0)))),
        # A tuple that holds a list that holds the tuple.
        Dump("tuple_through_list", flagged(tuple_(list_(ref(0))))),
        # A tuple that directly holds itself: dumps never writes it, loads reads it.
        Dump("tuple_in_itself", flagged(tuple_(ref(0)))),
        # Two lists that hold each other, seen from both.
        Dump("list_pair", tuple_(flagged(list_(flagged(list_(ref(0))))), ref(1))),
        # A tuple that holds a set that holds the tuple: hashing it half-built crashes every CPython until 3.15.
        Dump("set_in_tuple_crash", flagged(tuple_(NONE, set_(ref(0))))),
    ],
    "Large values": [
        # 2**60 leaves by 60 shared tuples.
        Dump("doubled", doubled(60)),
        # As deep as CPython loads: 1,999 containers around None.
        Dump("deep_1999", deep(1999)),
        # A count that takes more than two bytes.
        Dump("wide_70000", wide_tuple(*[NONE] * 70_000)),
    ],
    "Code objects": [
        # A code object without a .pyc around it, in each layout of its fields.
        Dump("code_bare", f"dumps({PROGRAM})", (36, 38, 311, 313, 315)),
        # The same, by a marshal version without references.
        Dump("code_version2", f"dumps({PROGRAM}, 2)"),
        # Code objects as items of a list and values of a dict.
        Dump("code_in_list", list_(code(NONE), int32(1), dict_(text(b"f"), code(TRUE)))),
        # One code object twice, by reference.
        Dump("code_shared", tuple_(flagged(code(int32(1))), ref(0))),
        # Two equal code objects.
        Dump("code_equal", tuple_(code(int32(1)), code(int32(1)))),
        # Constants that no compiler makes: a list and a dict, which stay mutable.
        Dump("code_mutable_constants", code(list_(int32(1)), dict_(), frozenset_(int32(1)))),
        # Strings by the code u, of which the code object interns its names, and constants like identifiers.
        Dump("code_plain_strings", code(
            string(b"u", b"identifier"),
            string(b"u", b"two words"),
            tuple_(string(b"u", b"identifier")),
            word=lambda payload: string(b"u", payload),
        )),
        # A list that holds code whose constant is the list.
        Dump("code_through_list", flagged(list_(code(ref(0))))),
    ],
    "Too short": [
        # Nothing at all.
        Dump("nothing", b"", error="EOFError"),
        # An end inside a number, inside a string, between items, before the end of a dict.
        Dump("truncated_int", int32(1)[:-1], error="EOFError"),
        Dump("truncated_string", text(b"spam")[:-1], error="EOFError"),
        Dump("truncated_tuple", tuple_(NONE, NONE)[:-1], error="EOFError"),
        Dump("truncated_dict", dict_(NONE, NONE, end=b""), error="EOFError"),
        Dump("truncated_code", code(NONE)[:-1], error="EOFError"),
        # A count of two billion, and nothing to fill it.
        Dump("truncated_bytes_huge", b"s" + i32(2**31 - 1), error="EOFError"),
    ],
    "Bad sizes, codes and references": [
        # Negative sizes.
        Dump("negative_tuple", b"(" + i32(-1), error="ValueError"),
        Dump("negative_list", b"[" + i32(-1), error="ValueError"),
        Dump("negative_set", b"<" + i32(-1), error="ValueError"),
        Dump("negative_bytes", b"s" + i32(-1), error="ValueError"),
        Dump("negative_string", b"u" + i32(-1), error="ValueError"),
        # Codes that never were, that are only written, and that came later.
        Dump("unknown_code", b"Q", error="ValueError"),
        Dump("unknown_code_question", b"?", error="ValueError"),
        Dump("unknown_code_slice", slice_(NONE, NONE, NONE), error="ValueError"),
        Dump("unknown_code_frozendict", frozendict_(), (314,), error="ValueError"),
        # References past the end of the table, before its start, and to an object that is not complete.
        Dump("bad_reference", tuple_(flagged(text(b"a")), ref(1)), error="ValueError"),
        Dump("bad_reference_negative", tuple_(flagged(text(b"a")), ref(-1)), error="ValueError"),
        Dump("frozenset_in_itself", flagged(frozenset_(ref(0))), error="ValueError"),
        Dump("slice_in_itself", flagged(slice_(NONE, ref(0), NONE)), (314,), error="ValueError"),
        Dump("frozendict_in_itself", flagged(frozendict_(NONE, ref(0))), (315,), error="ValueError"),
        Dump("code_in_its_own_consts", flagged(code(ref(0))), error="ValueError"),
        Dump("code_in_its_own_consts_through_list", flagged(code(list_(ref(0)))), error="ValueError"),
        # NULL where an object is expected.
        Dump("null_alone", NULL, error="TypeError"),
        Dump("null_in_tuple", tuple_(NULL), error="TypeError"),
        Dump("null_in_list", list_(NULL), error="TypeError"),
        Dump("null_in_set", set_(NULL), error="TypeError"),
    ],
    "Bad values": [
        # A top digit of 0; a digit of 16 bits; a count whose sign cannot be turned.
        Dump("long_unnormalized", long(2, 1, 0), error="ValueError"),
        Dump("long_digit_out_of_range", long(1, 0x8000), error="ValueError"),
        Dump("long_size_out_of_range", long(-2**31), error="ValueError"),
        # Text that is not a number; a number with a space before it.
        Dump("text_float_word", text_float(b"spam"), error="ValueError"),
        Dump("text_float_space", text_float(b" 1.5"), error="ValueError"),
        # Bytes that no UTF-8 has; a character cut short.
        Dump("bad_utf8", string(b"u", b"\xff"), error="UnicodeDecodeError"),
        Dump("bad_utf8_cut", string(b"t", b"\xc3"), error="UnicodeDecodeError"),
        # Items and keys that cannot be hashed.
        Dump("unhashable_set_item", set_(list_()), error="TypeError"),
        Dump("unhashable_key", dict_(dict_(), NONE), error="TypeError"),
        Dump("unhashable_in_tuple", frozenset_(tuple_(list_())), error="TypeError"),
        Dump("dict_key_is_dict_itself", flagged(dict_(ref(0), NONE)), error="TypeError"),
        Dump("set_in_itself", flagged(set_(ref(0))), error="TypeError"),
        # Code where a field has the wrong type: names that are not a tuple.
        Dump(
            "code_names_not_tuple",
            code(NONE).replace(tuple_(text(b"spam")), list_(text(b"spam"))),
            error="SystemError",
        ),
        # Deeper than CPython loads: by one level, and by far.
        Dump("deep_2000", deep(2000), error="ValueError"),
        Dump("deep_100000", b")\x01" * 100_000 + NONE, error="ValueError"),
    ],
}

# Loading it would end the interpreter, not raise.
NEVER_LOADED = {"set_in_tuple_crash"}

# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


class Interpreter(NamedTuple):
    command: str
    version: int

    def run(self, program, *arguments, **options):
        """Returns the standard output, bytes, of a fresh process."""
        # Without the site module and the user's variables, no path of this machine takes part.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["PYTHONHASHSEED"] = "0"
        with tempfile.TemporaryDirectory() as elsewhere:
            return subprocess.run(
                [self.command, "-S", "-s", "-B", "-c", program, *arguments],
                cwd=elsewhere, env=environment, stdout=subprocess.PIPE, check=True, **options,
            ).stdout


COMPILE = """
import os, py_compile, sys
name, mtime, mode = sys.argv[1:]
source = name + '.py'
with open(source, 'wb') as file:
    file.write(sys.stdin.buffer.read())
os.utime(source, (int(mtime), int(mtime)))
options = {}
if sys.version_info >= (3, 7):
    options['invalidation_mode'] = py_compile.PycInvalidationMode[mode]
py_compile.compile(source, cfile='compiled', dfile='examples/' + source, doraise=True, **options)
with open('compiled', 'rb') as file:
    sys.stdout.buffer.write(file.read())
"""


def compiled(interpreter, name, mode="TIMESTAMP"):
    source = (FOLDER / f"{name}.py").read_bytes()
    return interpreter.run(COMPILE, name, str(MTIME), mode, input=source)


def dumped(interpreter, expression):
    return interpreter.run(f"import sys; from marshal import dumps; sys.stdout.buffer.write({expression})")


def files():
    """Yields each file as its path, the version of the interpreter that makes it or None, and how it is made."""
    for name, (versions, _) in SOURCES.items():
        for version in versions:
            yield f"{name}.cpython-{version}.pyc", version, lambda python, name=name: compiled(python, name)
    for path, mode in HASHED.items():
        yield path, 313, lambda python, mode=mode: compiled(python, "greeting", mode)
    for path, size in ERG.items():
        yield path, version_of(path), lambda python, size=size: erg(python, size)
    for dump in every_dump():
        for version in dump.versions:
            if isinstance(dump.made, bytes):
                yield dump.path(version), None, lambda _, made=dump.made: made
            else:
                yield dump.path(version), version, lambda python, made=dump.made: dumped(python, made)
    yield "README.md", None, lambda _: readme().encode()


def every_dump():
    return [dump for group in DUMPS.values() for dump in group]


def version_of(path):
    return int(path.split(".cpython-")[1].split(".")[0])


def erg(interpreter, size):
    header = 12 if interpreter.version == 36 else 16
    return erg_header(interpreter.version, size) + compiled(interpreter, "greeting")[header:]


def readme():
    lines = [
        "# Examples",
        "",
        "Each file names its version: `greeting.cpython-313.pyc` is `greeting.py`, compiled by CPython 3.13.",
        "`python3 examples/make.py PYTHON...` makes them all; its table of dumps says what each one shows.",
        "",
        "| Compiled | Shows |",
        "|---|---|",
    ]
    for name, (_, shows) in SOURCES.items():
        lines.append(f"| `{name}` | {shows} |")
    lines += [
        "| `greeting-checked`, `greeting-unchecked` | headers with the hash of the source, not its time |",
        "| `erg12`, `erg16` | the headers of the Erg compiler, of 12 and 16 bytes |",
        "",
        "Bare marshal dumps, of what a compiled file seldom or never contains:",
        "",
        "| Group | Dumps |",
        "|---|---|",
        *(row(group, dumps) for group, dumps in DUMPS.items() if not dumps[0].error),
        "",
        "`set_in_tuple_crash` ends every CPython until 3.15 by a segmentation fault: never load it there.",
        "",
        "Dumps whose loading raises an exception, in `refused/`:",
        "",
        "| Group | Dumps |",
        "|---|---|",
        *(row(group, dumps) for group, dumps in DUMPS.items() if dumps[0].error),
        "",
        "`python3.X record_executed.py MODULE` records which code objects run during an import, for `rehydrate lazy-report`.",
        "",
        "[`downstream/`](downstream/tests/sequence.rs) is a crate of its own that tests with [insta](https://insta.rs) what",
        "rehydrate emits for a module: `cargo test` there, and `cargo insta review` when it has changed.",
        "",
    ]
    return "\n".join(lines)


def row(group, dumps):
    return f"| {group} | {', '.join(f'`{dump.name}`' for dump in dumps)} |"


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------


def make(interpreters):
    def write(path, content):
        target = FOLDER / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        return True

    return for_each_file(interpreters, write)


def check(interpreters):
    """Says which files differ, are absent, or are made by nothing here."""

    def same(path, content):
        target = FOLDER / path
        if target.exists() and target.read_bytes() == content:
            return True
        print(f"{path}: {'differs' if target.exists() else 'is absent'}")
        return False

    known = {path for path, _, _ in files()}
    strays = [
        path.relative_to(FOLDER).as_posix()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in (".pyc", ".marshal") and "__pycache__" not in path.parts
    ]
    strays = [path for path in strays if path not in known and not path.startswith("downstream/")]
    for path in strays:
        print(f"{path}: is made by nothing in make.py")
    return for_each_file(interpreters, same) and not strays


def for_each_file(interpreters, act):
    """Makes the content of each file and acts on it; says which cannot be made. Returns whether every act did well."""
    well, left = True, {}
    for path, version, content in files():
        if version is None or version in interpreters:
            well &= act(path, content(interpreters.get(version)))
        else:
            left.setdefault(version, []).append(path)
    for version, paths in left.items():
        print(f"no interpreter of version {dotted(version)} for: {', '.join(paths)}", file=sys.stderr)
    return well


LOAD = """
import marshal, sys
for path in sys.argv[1:]:
    with open(path, 'rb') as file:
        dump = file.read()
    try:
        marshal.loads(dump)
    except Exception as error:
        print(type(error).__name__, error, sep=': ')
    else:
        print()
"""


def load(interpreters):
    """Loads each dump in its interpreter, and says which do otherwise than their table tells."""
    well = True
    for version, interpreter in interpreters.items():
        dumps = [dump for dump in every_dump() if version in dump.versions and dump.name not in NEVER_LOADED]
        paths = [dump.path(version) for dump in dumps]
        output = interpreter.run(LOAD, *(str(FOLDER / path) for path in paths)).decode()
        for dump, path, outcome in zip(dumps, paths, output.splitlines()):
            if dump.error:
                print(f"{path}: {outcome or 'loads'}")
            if outcome.partition(":")[0] != dump.error:
                print(f"{path}: expected {dump.error or 'no error'}, found {outcome or 'none'}")
                well = False
    return well


def dotted(version):
    return f"3.{str(version)[1:]}"


def interpreter_at(command):
    query = "import sys; print(sys.implementation.name, '%d%d' % sys.version_info[:2])"
    answer = subprocess.run(
        [command, "-S", "-c", query], stdout=subprocess.PIPE, check=True, universal_newlines=True
    ).stdout.split()
    for version in VERSIONS:
        if answer == ["cpython", str(version)]:
            return Interpreter(command, version)
    raise ValueError(f"{command} is not CPython 3.6 to 3.15: it answers {' '.join(answer)!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="a CPython interpreter, 3.6 to 3.15")
    command = parser.add_mutually_exclusive_group()
    command.add_argument("--check", dest="command", action="store_const", const=check, help="say which files differ")
    command.add_argument("--load", dest="command", action="store_const", const=load, help="load each dump")
    parser.set_defaults(command=make)
    options = parser.parse_args()

    interpreters = {}
    for python in options.pythons:
        try:
            interpreter = interpreter_at(python)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            parser.error(str(error))
        if interpreter.version in interpreters:
            parser.error(f"two interpreters of version {dotted(interpreter.version)}")
        interpreters[interpreter.version] = interpreter

    return 0 if options.command(interpreters) else 1


if __name__ == "__main__":
    sys.exit(main())
