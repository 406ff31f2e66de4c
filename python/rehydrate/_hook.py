"""The import hook: modules come from their .pyinit where one is current.

`NAME.cpython-313.pyinit` lies beside `NAME.cpython-313.pyc`, has the same header, and is believed or not by the same rules.
Finding a module and taking its code object from there is `_native`'s; what to do when there is none is said here.

Invariants:
- Whatever is wrong with an initializer, or with the folder it belongs into, an import succeeds or fails as without it.
- An initializer is written only of a .pyc that importlib wrote, or took for current, and never in place.
"""

from __future__ import annotations

import sys

# What `importlib.machinery` hands on, without importing it: this module is imported when an interpreter starts.
from _frozen_importlib_external import FileFinder, SourceFileLoader, cache_from_source

from . import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Where importlib asks whether case matters before it finds a module; there its own method does.
_CASE_INSENSITIVE = ("win", "cygwin", "darwin", "ios", "tvos", "watchos")


class Loader(SourceFileLoader):
    """Loads modules as its base does, from the initializer where it can."""

    # Has no frame, and calls the method of the base if need be: tracebacks stay as they are.
    get_code = _native.method(_native.get_code)


class Finder(FileFinder):
    """Finds modules as its base does."""

    if not sys.platform.startswith(_CASE_INSENSITIVE):
        find_spec = _native.method(_native.find_spec)


def missed(loader: Loader, damage: str | None) -> None:
    """Makes good what was missing when `loader` loaded a module without an initializer.

    `damage` says what is wrong with the one there is; that it is stale needs no words.
    """
    if sys.implementation.cache_tag is None:
        return
    try:
        pyc = cache_from_source(loader.path)
        target = pyc.removesuffix("pyc") + "pyinit"
        if not sys.dont_write_bytecode:
            _write(loader, pyc, target)
        if damage is not None:
            _warn(target, damage)
    except Exception as error:
        # The module is loaded; this is between us and the next import.
        _state["failures"] += 1
        _state["last_failure"] = f"{type(error).__name__}: {error}"


def _write(loader: Loader, pyc: str, target: str) -> None:
    """Writes the initializer of the .pyc that importlib has just read or written, as importlib writes."""
    try:
        with open(pyc, "rb") as file:
            compiled = file.read()
    except OSError:
        return
    # To compile takes longer than to import: not for a folder that cannot be written.
    if _os.access(pyc.rpartition("/")[0] or ".", _os.W_OK):
        initializer = _native.compile_pyc(compiled)
        # Makes a temporary file with the source's mode, and renames it; passes over a full disk and the like.
        loader._cache_bytecode(loader.path, target, initializer)
        _state["written"] += 1


def _warn(target: str, damage: str) -> None:
    """Says once in a process that an initializer is damaged; the first one stands for all."""
    if _state["warning"] is not None:
        return
    _state["warning"] = f"{target} is not used: {damage}"
    import warnings

    # With -W error this would end an import that can go on.
    try:
        warnings.warn(_state["warning"], RuntimeWarning, stacklevel=3)
    except RuntimeWarning as warning:
        print(f"RuntimeWarning: {warning}", file=sys.stderr)


_state: dict[str, Any] = {"written": 0, "failures": 0, "last_failure": None, "warning": None}
#: Our path hook, and those it stands for, in their order: FileFinder's, and zipimporter if that came right before.
_installed: tuple[Callable[[str], Any], list[Any]] | None = None


def _is_own_of_importlib(hook: object) -> bool:
    """Whether it is `FileFinder.path_hook(...)`, as `site` leaves it."""
    return getattr(hook, "__name__", None) == "path_hook_for_FileFinder" and _closure(hook).get("cls") is FileFinder


def _closure(hook: Any) -> dict[str, Any]:
    names = hook.__code__.co_freevars
    return dict(zip(names, [cell.cell_contents for cell in hook.__closure__ or ()]))


def install() -> None:
    """Puts our path hook in the place of importlib's."""
    global _installed
    if _installed is not None and _installed[0] in sys.path_hooks:
        return
    hooks = sys.path_hooks
    at = next((at for at, hook in enumerate(hooks) if _is_own_of_importlib(hook)), None)
    if at is None:
        return
    replaced = [hooks[at]]
    details = [
        (Loader if loader is SourceFileLoader else loader, suffixes)
        for loader, suffixes in _closure(hooks[at])["loader_details"]
    ]
    # zipimporter comes before and refuses every folder, slowly. We refuse everything else.
    if at > 0 and getattr(hooks[at - 1], "__module__", None) == "zipimport":
        at -= 1
        replaced.insert(0, hooks[at])
    own = Finder.path_hook(*details)
    hooks[at : at + len(replaced)] = [own, *replaced[:-1]]
    _installed = own, replaced
    sys.path_importer_cache.clear()


def uninstall() -> None:
    """Puts back what `install` replaced."""
    global _installed
    if _installed is None:
        return
    own, replaced = _installed
    _installed = None
    hooks = sys.path_hooks
    if own in hooks:
        at = hooks.index(own)
        zips = replaced[:-1]
        if hooks[at + 1 : at + 1 + len(zips)] == zips:
            hooks[at : at + 1 + len(zips)] = replaced
        else:
            hooks[at] = replaced[-1]
        sys.path_importer_cache.clear()


def status() -> dict[str, Any]:
    """What the hook did so far in this process."""
    hits, misses = _native.counts()
    return {"installed": _installed is not None and _installed[0] in sys.path_hooks, "hits": hits, "misses": misses} | _state


_os: Any = sys.modules["posix" if "posix" in sys.builtin_module_names else "nt"]
