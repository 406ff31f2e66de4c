"""Compiles files and folders into initializers, in the manner of `py_compile` and `compileall`.

Sources are compiled into a .pyc by `compileall` itself, so that all of its options mean what they mean there. An initializer
is current exactly if it begins with the header of the .pyc that it stands beside, and was written by this version.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import re
import sys
from functools import partial
from importlib.machinery import SourceFileLoader
from py_compile import PycInvalidationMode, _get_default_invalidation_mode
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _native

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._native import _Profile, _Sharing

HEADER_LEN = 16

#: What importlib and py_compile write with.
_external: Any = sys.modules["_frozen_importlib_external"]


def compile_file(
    pyc_or_py: str | os.PathLike[str],
    target: str | os.PathLike[str] | None,
    *,
    profile: _Profile,
    sharing: _Sharing,
    optimize: int = -1,
    invalidation_mode: PycInvalidationMode | None = None,
) -> str:
    """See `rehydrate.compile_file`."""
    path = os.fspath(pyc_or_py)
    if path.endswith(".pyc"):
        if optimize != -1 or invalidation_mode is not None:
            raise ValueError("optimize and invalidation_mode are for sources; a .pyc has been compiled, and has a header")
        with open(path, "rb") as file:
            pyc = file.read()
        beside = path.removesuffix("pyc") + "pyinit"
    else:
        pyc = _pyc(path, optimize, invalidation_mode)
        pyc_path = _pyc_path(path, optimize)
        beside = initializer_path(pyc_path)
        if target is None:
            _write(pyc_path, pyc, _external._calc_mode(path))
    target = beside if target is None else os.fspath(target)
    _write(target, _native.compile_pyc(pyc, profile=profile, sharing=sharing), _external._calc_mode(path))
    return target


def _write(target: str, data: bytes, mode: int) -> None:
    _check_target(target)
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    try:
        _external._write_atomic(target, data, mode)
    except OSError as error:
        # It names a temporary file; where importlib itself says what is wrong, none.
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, target) from None


def initializer_path(pyc: str) -> str:
    """The path of the initializer that stands beside a .pyc."""
    return pyc.removesuffix("pyc") + "pyinit"


def _pyc_path(source: str, level: int) -> str:
    """Where the .pyc of a source is, for an optimization level; -1 is the interpreter's."""
    if level < 0:
        return importlib.util.cache_from_source(source)
    return importlib.util.cache_from_source(source, optimization=level or "")


def _check_target(target: str) -> None:
    """Refuses what a rename would replace by a regular file, as `py_compile.compile` does."""
    if os.path.islink(target) or (os.path.exists(target) and not os.path.isfile(target)):
        raise FileExistsError(f"{target} is not a regular file, and would be replaced by one")


def _pyc(path: str, optimize: int, mode: PycInvalidationMode | None) -> bytes:
    """What `py_compile.compile` would write."""
    mode = _get_default_invalidation_mode() if mode is None else mode
    loader = SourceFileLoader("<rehydrate>", path)
    stats = loader.path_stats(path)
    source = loader.get_data(path)
    code = loader.source_to_code(source, path, _optimize=optimize)
    if mode == PycInvalidationMode.TIMESTAMP:
        return bytes(_external._code_to_timestamp_pyc(code, stats["mtime"], stats["size"]))
    is_checked = mode == PycInvalidationMode.CHECKED_HASH
    return bytes(_external._code_to_hash_pyc(code, importlib.util.source_hash(source), is_checked))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


class Order(NamedTuple):
    """How to compile files: the options of compileall, and ours."""

    ddir: str | None
    stripdir: str | None
    prependdir: str | None
    limit_sl_dest: str | None
    rx: re.Pattern[str] | None
    force: bool
    quiet: int
    levels: list[int]
    invalidation_mode: PycInvalidationMode | None
    profile: _Profile
    sharing: _Sharing


def compile_source(order: Order, path: str) -> bool:
    """Compiles a source into a .pyc where needed, and that into an initializer; says whether that went well."""
    if not path.endswith(".py") or (order.rx is not None and order.rx.search(path)):
        return True
    if not compileall.compile_file(
        path,
        order.ddir,
        order.force,
        order.rx,
        order.quiet,
        optimize=order.levels,  # type: ignore[arg-type]  # typeshed has no lists
        invalidation_mode=order.invalidation_mode,
        stripdir=order.stripdir,
        prependdir=order.prependdir,
        limit_sl_dest=order.limit_sl_dest,
    ):
        return False
    pycs = {_pyc_path(path, level) for level in order.levels}
    # A list, so that one that fails does not keep the next from being tried.
    return all([_compile_pyc(order, pyc) for pyc in sorted(pycs)])


def _compile_pyc(order: Order, pyc: str) -> bool:
    target = initializer_path(pyc)
    try:
        # A link that leads out of `limit_sl_dest` was passed over, and has none.
        if not os.path.exists(pyc) or (not order.force and _is_current(target, pyc)):
            return True
        if order.quiet < 1:
            print(f"Compiling {pyc!r}...")
        compile_file(pyc, None, profile=order.profile, sharing=order.sharing)
    except (OSError, ValueError) as error:
        if order.quiet < 2:
            print(f"*** Error compiling {pyc!r}...\n{type(error).__name__}: {error}")
        return False
    return True


def _is_current(target: str, pyc: str) -> bool:
    try:
        with open(pyc, "rb") as file:
            header = file.read(HEADER_LEN)
        with open(target, "rb") as file:
            return file.read(HEADER_LEN + len(_native.STREAM_START)) == header + _native.STREAM_START
    except OSError:
        return False


def sources(folder: str, levels: int, quiet: int) -> Iterator[str]:
    """The files below a folder, in order; not those behind links to folders."""
    if not quiet:
        print(f"Listing {folder!r}...")
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        if quiet < 2:
            print(f"Can't list {folder!r}")
        return
    for name in names:
        path = os.path.join(folder, name)
        if name == "__pycache__":
            continue
        if not os.path.isdir(path):
            yield path
        elif levels > 0 and not os.path.islink(path):
            yield from sources(path, levels - 1, quiet)


def _compile_folder(order: Order, folder: str, levels: int, workers: int) -> bool:
    if order.ddir is not None:
        order = order._replace(ddir=None, stripdir=folder, prependdir=order.ddir)
    work = partial(compile_source, order)
    found = sources(folder, levels, order.quiet)
    if workers == 1:
        return all([work(path) for path in found])
    # As compileall: fork is not safe where there are threads.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    is_fork = multiprocessing.get_start_method() == "fork"
    context = multiprocessing.get_context("forkserver") if is_fork else None
    with ProcessPoolExecutor(max_workers=workers or None, mp_context=context) as executor:
        return all(list(executor.map(work, found, chunksize=4)))


DESCRIPTION = """\
Compile sources into .pyc files, where those are missing or stale, and each .pyc into the initializer beside it,
__pycache__/NAME.pyinit, which imports use once rehydrate.install() was called.

With a .pyc, a .marshal, a __pycache__ folder or - among its arguments, or an option that is not listed below and is one of the
Rust tool's (--out-dir, --output, --python, --format ...), this is the command of the Rust tool instead: see
`rehydrate compile module.pyc --help`.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rehydrate compile",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 if all is compiled, 1 if something is not, 2 for wrong usage.",
    )
    add = parser.add_argument
    add("paths", metavar="FILE|DIR", nargs="*", help="sources, and folders of sources")
    add("-l", action="store_const", const=0, dest="levels", help="do not recurse into subfolders")
    add("-r", type=int, dest="recursion", metavar="LEVELS", help="how deep to recurse; takes precedence over -l")
    add("-f", "--force", action="store_true", help="compile even what is current")
    add("-q", "--quiet", action="count", default=0, help="print only errors; -qq prints nothing")
    add("-d", dest="ddir", metavar="DESTDIR", help="folder to prepend to the paths in tracebacks")
    add("-s", dest="stripdir", metavar="STRIPDIR", help="part of the path to strip from the left")
    add("-p", dest="prependdir", metavar="PREPENDDIR", help="path to prepend, once stripped")
    add("-x", dest="rx", metavar="REGEXP", type=_pattern, help="skip files in whose path this is found")
    add("-i", dest="list", metavar="FILE", help="also compile what this file lists, one a line; - is standard input")
    add("-j", "--workers", type=int, default=1, metavar="N", help="processes; 0 is one a core")
    add("-o", dest="levels_of_optimization", action="append", type=int, metavar="LEVEL", help="as of -O; repeat for several")
    add("-e", dest="limit_sl_dest", metavar="DIR", help="skip links that lead out of DIR")
    modes = sorted(mode.name.lower().replace("_", "-") for mode in PycInvalidationMode)
    add("--invalidation-mode", choices=modes, help="default: timestamp, or checked-hash if SOURCE_DATE_EPOCH is set")
    add("--profile", choices=["load", "compact", "core"], default="load", help="instructions to use (default: load)")
    add("--sharing", choices=["structural", "identity", "none"], default="structural", help="default: structural")
    return parser


def main(arguments: list[str]) -> int:
    """Does `rehydrate compile ARGUMENTS`, and gives the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.ddir is not None and (given.stripdir is not None or given.prependdir is not None):
        parser.error("-d cannot be used with -s or -p")
    if given.workers < 0:
        parser.error("-j takes 0 or more")
    paths = given.paths
    if given.list is not None:
        try:
            paths += _listed(given.list)
        except OSError as error:
            if given.quiet < 2:
                print(f"Error reading file list {given.list}: {error}")
            return 1
    if not paths:
        parser.error("no FILE or DIR")
    mode = given.invalidation_mode
    order = Order(
        ddir=given.ddir,
        stripdir=given.stripdir,
        prependdir=given.prependdir,
        limit_sl_dest=given.limit_sl_dest or None,
        rx=given.rx,
        force=given.force,
        quiet=given.quiet,
        levels=sorted(set(given.levels_of_optimization or [-1])),
        invalidation_mode=mode and PycInvalidationMode[mode.replace("-", "_").upper()],
        profile=given.profile,
        sharing=given.sharing,
    )
    levels = given.recursion if given.recursion is not None else given.levels
    levels = sys.getrecursionlimit() if levels is None else levels
    try:
        done = [_compile(order, path, levels, given.workers) for path in paths]
        sys.stdout.flush()
    except KeyboardInterrupt:
        if given.quiet < 2:
            print("\n[interrupted]")
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: {error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            # The interpreter would try once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0 if all(done) else 1


def _compile(order: Order, path: str, levels: int, workers: int) -> bool:
    if os.path.isfile(path):
        return compile_source(order, path)
    return _compile_folder(order, path, levels, workers)


def _listed(name: str) -> list[str]:
    if name == "-":
        return [line.strip() for line in sys.stdin]
    with open(name, encoding="utf-8") as file:
        return [line.strip() for line in file]
