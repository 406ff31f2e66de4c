"""Makes bundles: `python -m rehydrate bundle`.

Which modules there are, and what is in a bundle, the native half knows. Here their code comes from: the current .pyc, or the
compiler of this interpreter, which writes nothing but the bundle.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import Any

from . import _compile, _native

_external: Any = sys.modules["_frozen_importlib_external"]


def compiled(source: str, level: int) -> bytes:
    """The bytes of the .pyc of a source: those that are there, if they are of the source as it is, or new ones."""
    try:
        with open(_compile._pyc_path(source, level), "rb") as file:
            pyc = file.read()
        flags = _external._classify_pyc(pyc, source, {})
        if flags & 1:
            with open(source, "rb") as file:
                _external._validate_hash_pyc(pyc, importlib.util.source_hash(file.read()), source, {})
        else:
            stats = os.stat(source)
            _external._validate_timestamp_pyc(pyc, int(stats.st_mtime), stats.st_size, source, {})
        return pyc
    except (OSError, ImportError, EOFError):
        return _compile._pyc(source, level, None)


def bundle(
    paths: list[str], output: str, *, unchecked: bool = False, level: int = 0, shared_by: int | None = None, quiet: int = 0
) -> bool:
    """Writes a bundle of the modules that paths name, if there are any; says whether all of them are in it."""
    folders, modules, extensions, unreadable = _native.find_modules(paths, output)
    n_missing = 0

    def miss(why: str) -> None:
        nonlocal n_missing
        n_missing += 1
        if quiet < 2:
            print(why, file=sys.stderr)

    for why in unreadable:
        miss(f"error: {why}")
    parts, sources = [], {}
    for name, is_package, folder, path, source in modules:
        sources[name] = source
        try:
            parts.append((name, is_package, folder, path, compiled(source, level)))
        except (OSError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
            # The compiler says of what nests too deep that there is no memory, or too much recursion.
            miss(f"*** Error compiling {source!r}...\n{type(error).__name__}: {error}")
    made, refused = _native.make_bundle(parts, extensions, folders, unchecked=unchecked, level=level, shared_by=shared_by)
    for name, why in refused:
        miss(f"*** Error compiling {sources[name]!r}...\n{why}")
    if made is None:
        return False
    _compile._write(output, made, 0o666)
    if not quiet:
        n = len(parts) - len(refused) + len(extensions)
        print(f"{n} {'module' if n == 1 else 'modules'} -> {output} ({len(made)} bytes)", file=sys.stderr)
    return n_missing == 0


DESCRIPTION = """\
Put the modules of packages and folders into one file, from which Python imports them:

    python -m rehydrate bundle app -o app.pybundle
    python -c 'import rehydrate; rehydrate.install(bundles=["app.pybundle"]); import app'

A PATH is a package (a folder with an __init__.py), a folder of modules and packages, a .py or an extension module. The code
of a module is that of its .pyc, if it is current; else the source is compiled, and no .pyc is written. Of extension modules,
beside one source at least, the bundle says where they lie. Folders that lie beside the bundle or below are found from there,
so that both can be moved; others keep their path. The bundle can be read as any new file, whoever may read the sources.
"""


def main(arguments: list[str]) -> int:
    """Does `rehydrate bundle ARGUMENTS`, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="rehydrate bundle",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 if all modules are in the bundle, 1 if some are not, 2 for wrong usage, or if it cannot be made.",
    )
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", help="package, folder of modules, .py or extension module")
    add("-o", "--output", metavar="FILE", required=True, help="write here")
    add("--unchecked", action="store_true", help="take the modules without a look at their sources, which may be missing")
    add("--level", type=int, choices=[0, 1, 2], default=0, help="optimize as with -O (1) or -OO (2)")
    add("--shared-by", type=int, metavar="N", help="share what so many modules need (default: 2, or one in 200 of the modules)")
    add("-q", "--quiet", action="count", default=0, help="print only errors; -qq prints nothing")
    given = parser.parse_args(arguments)
    how = {"unchecked": given.unchecked, "level": given.level, "shared_by": given.shared_by, "quiet": given.quiet}
    try:
        done = bundle(given.paths, given.output, **how)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if done else 1
