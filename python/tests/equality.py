"""Whether loaded objects are what marshal loads: every attribute of code objects, every type, every interned str.

    python equality.py [--all] [--fresh] [--path direct|constructor|marshal] [MODULE|FOLDER ...]

compiles modules of this interpreter's standard library, about 60 or those named or all of it, and those in folders, loads
each by marshal and by rehydrate, and names the first difference of each. With --fresh, each load is done in a process of its
own, in which nothing was interned by another one.
"""

import argparse
import builtins
import ctypes
import gc
import importlib.util
import marshal
import os
import pickle
import struct
import sys
import sysconfig
import types
import warnings
from pathlib import Path

import rehydrate
from rehydrate import _native

#: Modules of all kinds that every version has.
SAMPLE = """
    abc argparse ast asyncio.base_events asyncio.streams asyncio.tasks base64 calendar collections concurrent.futures._base
    configparser contextlib copy csv ctypes dataclasses datetime _pydecimal difflib dis doctest email._header_value_parser
    email.message email.policy enum fractions functools gzip heapq html.entities html.parser http.client http.cookiejar imaplib
    inspect ipaddress json.decoder json.encoder logging logging.config mailbox multiprocessing.managers os pdb pickle
    pickletools platform plistlib pydoc random re._parser shutil smtplib socket ssl statistics string subprocess tarfile
    tempfile threading tokenize turtle typing unittest.case unittest.mock urllib.parse urllib.request uuid weakref
    xml.dom.minidom zipfile
""".split()

CODE = types.CodeType
#: From 3.15 on.
FROZENDICT = getattr(builtins, "frozendict", None)


def is_interned(text):
    """Whether a str is interned. `sys.intern(text) is text` would intern it."""
    if hasattr(sys, "_is_interned"):
        return sys._is_interned(text)
    # PyASCIIObject.state, whose lowest two bits say it in 3.11 and 3.12; reference count, type, length, hash come before.
    return ctypes.c_uint32.from_address(id(text) + 4 * ctypes.sizeof(ctypes.c_void_p)).value & 3 != 0


#: All attributes of code objects that are no methods. What the interpreter itself changes as the code runs is left out.
ATTRIBUTES = [
    name
    for name in dir(CODE)
    if name.startswith(("co_", "_co_")) and not callable(getattr(CODE, name)) and name != "_co_cached"
]
METHODS = [name for name in ("co_lines", "co_positions", "co_branches") if hasattr(CODE, name)]


def describe(value, interning=True):
    """Says what a value is, a line for each object it holds, in an order that depends on nothing else.

    Equal descriptions are of values that only `is` tells apart, and lists, dicts, sets and code objects that are shared
    are shared alike.
    """
    lines, numbers, alive = [], {}, []
    stack = [("", value)]
    with warnings.catch_warnings():
        # co_lnotab.
        warnings.simplefilter("ignore", DeprecationWarning)
        while stack:
            where, value = stack.pop()
            kind = type(value)
            if kind in (list, dict, set, CODE):
                alive.append(value)
                if id(value) in numbers:
                    lines.append(f"{where}: again #{numbers[id(value)]}")
                    continue
                numbers[id(value)] = len(numbers)
            line, children = _describe(kind, value, interning)
            lines.append(f"{where}: {line}")
            stack.extend((where + name, child) for name, child in reversed(children))
    return lines


def _describe(kind, value, interning):
    if kind is CODE:
        # These are read by other code than the attributes, of the same tables.
        listed = "; ".join(f"{name} {list(getattr(value, name)())}" for name in METHODS)
        again = value.replace()
        same = (again == value, hash(again) == hash(value), hash(value) == hash(value))
        children = [(f".{name}", getattr(value, name)) for name in ATTRIBUTES]
        return f"code; {listed}; replace {same}", children
    if kind is str:
        mark = (" interned" if is_interned(value) else " not interned") if interning else ""
        return f"str {value!a}{mark}", []
    if kind is float:
        return f"float {struct.pack('>d', value).hex()}", []
    if kind is complex:
        return f"complex {struct.pack('>dd', value.real, value.imag).hex()}", []
    if kind in (tuple, list, set, frozenset):
        return f"{kind.__name__} of {len(value)}", [(f"[{n}]", item) for n, item in enumerate(value)]
    if kind is dict or kind is FROZENDICT:
        pairs = [(f"[{n}] {side}", part) for n, pair in enumerate(value.items()) for side, part in zip(("key", "value"), pair)]
        return f"{kind.__name__} of {len(value)}", pairs
    if kind is slice:
        return "slice", [(".start", value.start), (".stop", value.stop), (".step", value.step)]
    if kind is int:
        return f"int {value:#x}", []
    if kind in (bool, bytes, type(None), type(Ellipsis)) or value is StopIteration:
        return f"{kind.__name__} {value!r}", []
    return f"{kind.__name__}, which is not of marshal", []


def difference(wanted, found, interning=True):
    """The first line in which the descriptions of two values differ, or None."""
    return first_difference(describe(wanted, interning), describe(found, interning))


def first_difference(wanted, found):
    for left, right in zip(wanted, found):
        if left != right:
            return f"{left[:400]} is {right[:400]}"
    return None if len(wanted) == len(found) else f"{len(wanted)} objects are {len(found)}"


# --- The standard library ---


def source_of(module):
    """The path of a module's source, found without importing what it is in; None if this version has none."""
    folder = Path(sysconfig.get_path("stdlib")).joinpath(*module.split("."))
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if path.is_file():
            return path
    return None


def whole_library():
    """The sources of the standard library, its tests included, some of which do not compile."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        # Debian has a link there to what may not be installed.
        if path.is_file() and not {"site-packages", "dist-packages", "__pycache__"} & set(parts[:-1]):
            yield path


def sources_of(name):
    """The sources of a module, or those in a folder; what has a separator is a folder, or a file."""
    if os.sep not in name:
        path = source_of(name)
        return [] if path is None else [path]
    path = Path(name)
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def dump_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return marshal.dumps(compile(path.read_bytes(), str(path), "exec", dont_inherit=True))


def module_difference(dump, profile="load", sharing="structural", fresh=False):
    """What differs if a dump is loaded by marshal, and if what is compiled of it is loaded by rehydrate."""
    stream = _native.compile_pyc(importlib.util.MAGIC_NUMBER + bytes(12) + dump, profile=profile, sharing=sharing)
    load_both = [lambda: marshal.loads(dump), lambda: rehydrate.loads(stream)]
    if fresh:
        return first_difference(*[_in_child(lambda load=load: describe(load())) for load in load_both])
    # Names are interned by whoever comes first, which shows: neither of the two that are compared does.
    first = marshal.loads(dump)
    descriptions = [describe(load()) for load in load_both]
    del first
    return first_difference(*descriptions)


def _in_child(work):
    """What `work` gives in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(work(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"a child ended with status {status:#x}")
    return pickle.loads(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE|FOLDER")
    parser.add_argument("--all", action="store_true", help="the whole standard library, its tests included")
    parser.add_argument("--fresh", action="store_true", help="load in processes of their own")
    parser.add_argument("--profile", default="load", choices=["load", "compact", "core"])
    parser.add_argument("--sharing", default="structural", choices=["structural", "identity", "none"])
    parser.add_argument("--path", choices=["direct", "constructor", "marshal"], help="make code objects so")
    given = parser.parse_args()
    _native._force_path(given.path)
    names = given.modules or ([] if given.all else SAMPLE)
    paths = [*(whole_library() if given.all else ()), *(path for name in names for path in sources_of(name))]
    n_different = n_skipped = 0
    for path in paths:
        try:
            dump = dump_of(path)
        except (SyntaxError, ValueError) as error:
            print(f"{path}: does not compile: {error}")
            n_skipped += 1
            continue
        why = module_difference(dump, given.profile, given.sharing, given.fresh)
        if why is not None:
            n_different += 1
            print(f"{path}: {why}")
        gc.collect()
    print(f"{len(paths) - n_skipped} modules, {n_different} differ, {n_skipped} do not compile; {rehydrate.status()}")
    return 1 if n_different else 0


if __name__ == "__main__":
    sys.exit(main())
