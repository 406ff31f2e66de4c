"""The import hook: modules come from their .pyinit where one is current.

`NAME.cpython-313.pyinit` lies beside `NAME.cpython-313.pyc`, has the same header, and is believed or not by the same rules.
Finding a module and taking its code object from there is done by two methods of `_native`, which take the place of
`FileFinder.find_spec` and `SourceFileLoader.get_code`: so finders and loaders stay of the very classes that they are without
us, and there is nothing else that could be noticed. Subclasses that others derive go the way they always went. What to do
when there is no initializer is said here.

Invariants:
- Whatever is wrong with an initializer, or with the folder it belongs into, an import succeeds or fails as without it.
- An initializer is written only of a .pyc that importlib wrote, or took for current, and never in place.

A bundle is a finder of its own on `sys.meta_path`, before the one that searches `sys.path`.
"""

# Annotations that need what is not imported are quoted: `__future__` is a module, too, which would be imported.

import sys

# What `importlib.machinery` hands on, without importing it: this module is imported when an interpreter starts.
from _frozen_importlib_external import FileFinder, PathFinder, SourceFileLoader, cache_from_source

from . import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

#: Where importlib asks whether case matters before it finds a module; there its own method does.
_CASE_INSENSITIVE = ("win", "cygwin", "darwin", "ios", "tvos", "watchos")


def _method(function: "Any", replaced: "Any") -> "Any":
    """Ours for a method of importlib; if this module is imported once more, the one that is there already."""
    return replaced if isinstance(replaced, _native.Method) else _native.Method(function, replaced)


get_code: "Any" = _method(_native.get_code, SourceFileLoader.get_code)
find_spec: "Any" = _method(_native.find_spec, FileFinder.find_spec)

#: Importlib's own methods, which ours call for everything rare.
base_get_code: "Any" = get_code.replaced
base_find_spec: "Any" = find_spec.replaced


class BundleLoader(SourceFileLoader):
    """Takes code objects from a bundle; from elsewhere, as ever, what is not there or not current."""

    #: The `_native.Bundle` that made the spec.
    bundle: _native.Bundle

    get_code: "Any" = _native.Method(_native.get_bundled_code, base_get_code)

    def __reduce__(self) -> "tuple[Any, ...]":
        # A bundle cannot be copied: a copy loads what the file system has.
        return SourceFileLoader, (self.name, self.path)


def missed(loader: "Any", damage: str | None) -> None:
    """Makes good what was missing when `loader` loaded a module without an initializer.

    `damage` says what is wrong with the one there is; that it is stale needs no words.
    """
    if sys.implementation.cache_tag is None:
        return
    try:
        pyc = cache_from_source(loader.path)
        target = pyc.removesuffix("pyc") + "pyinit"
        _write(loader, pyc, target)
        if damage is not None:
            _warn(target, damage)
    except (OSError, ValueError, NotImplementedError, MemoryError, RecursionError) as error:
        # The module is loaded; this is between us and the next import. What a signal handler raises is not ours.
        _state["failures"] += 1
        _state["last_failure"] = f"{type(error).__name__}: {error}"


def writes(pyc: str) -> bool:
    """Whether importlib would write this .pyc, as far as can be told beforehand."""
    return not sys.dont_write_bytecode and bool(_os.access(pyc.rpartition("/")[0] or ".", _os.W_OK))


def _write(loader: "Any", pyc: str, target: str) -> None:
    """Writes the initializer of the .pyc that importlib has just read or written, as importlib writes."""
    # To compile takes longer than to import: not for a folder that cannot be written.
    if not writes(pyc):
        return
    try:
        with open(pyc, "rb") as file:
            compiled = file.read()
    except OSError:
        return
    initializer = _native.compile_pyc(compiled)
    # Makes a temporary file with the source's mode, and renames it; passes over a full disk and the like.
    loader._cache_bytecode(loader.path, target, initializer)
    # It says nothing of a failure.
    if _os.stat(target).st_size == len(initializer):
        _state["written"] += 1


def _warn(target: str, damage: str, of_bundle: bool = False, stacklevel: int = 3) -> None:
    """Says that an initializer is damaged, of which the first in a process stands for all; or a bundle, each time."""
    global _has_warned
    if not of_bundle:
        if _has_warned:
            return
        _has_warned = True
    text = f"{target} is not used: {damage}"
    if _state["warning"] is None:
        _state["warning"] = text
    try:
        import warnings

        warnings.warn(text, RuntimeWarning, stacklevel=stacklevel)
    except Exception:
        # This must not end an import that can go on: with -W error, or while `warnings` itself is imported.
        _print(f"RuntimeWarning: {text}")


def _print(text: str) -> None:
    """Writes a line to standard error, if there is one that takes it."""
    try:
        if sys.stderr is not None:
            print(text, file=sys.stderr)
    except Exception:
        pass


#: Whether a damaged initializer was reported.
_has_warned = False
_state: "dict[str, Any]" = {"written": 0, "failures": 0, "last_failure": None, "warning": None}


def is_installed() -> bool:
    """Whether imports go through the hook."""
    return vars(SourceFileLoader).get("get_code") is get_code


def install(bundles: "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]" = ()) -> None:
    """Puts our methods in the place of importlib's, and finders of bundles before that of `sys.path`."""
    is_one = isinstance(bundles, str) or hasattr(bundles, "__fspath__")
    for path in (bundles,) if is_one else bundles:  # type: ignore[union-attr]
        _add_bundle(path)
    _native.huge_pages(True)
    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    if not sys.platform.startswith(_CASE_INSENSITIVE):
        FileFinder.find_spec = find_spec  # type: ignore[method-assign]


def _add_bundle(path: "str | os.PathLike[str]") -> None:
    try:
        bundle = _native.Bundle(path)
    except (OSError, ValueError) as error:
        # It points at who called `rehydrate.install`: past `_warn`, this, and two functions of that name.
        _warn(_os.fspath(path), str(error), of_bundle=True, stacklevel=5)
        return
    if any(other.path == bundle.path for other in _bundles()):
        return
    finders = sys.meta_path
    at = finders.index(PathFinder) if PathFinder in finders else len(finders)
    finders.insert(at, bundle)


def _bundles() -> list[_native.Bundle]:
    return [finder for finder in sys.meta_path if isinstance(finder, _native.Bundle)]


def uninstall() -> None:
    """Puts back what `install` replaced, and takes its finders away."""
    for bundle in _bundles():
        sys.meta_path.remove(bundle)
    _native.huge_pages(False)
    if is_installed():
        # It is inherited, unless somebody else replaced it before us.
        del SourceFileLoader.get_code
        if SourceFileLoader.get_code is not base_get_code:
            SourceFileLoader.get_code = base_get_code  # type: ignore[method-assign]
    if vars(FileFinder)["find_spec"] is find_spec:
        FileFinder.find_spec = base_find_spec  # type: ignore[method-assign]


def status() -> "dict[str, Any]":
    """What the hook did so far in this process."""
    hits, misses = _native.counts()
    bundles = [{"path": bundle.path, "hits": bundle.hits} for bundle in _bundles()]
    return {"installed": is_installed(), "hits": hits, "misses": misses, "bundles": bundles} | _state


_os: "Any" = sys.modules["posix" if "posix" in sys.builtin_module_names else "nt"]

_native.prepare(sys.modules[__name__])
