"""Loads Python modules faster than marshal does.

A .pyc is a marshal dump: a description of the objects of a module. An *initializer* describes the same objects by a stream
of instructions that build them, and lies beside the .pyc as a .pyinit. `install()` makes imports use such files, and write
them where there are none yet:

    import rehydrate
    rehydrate.install()

The other functions are for streams in hand: `dumps` and `loads` stand for those of marshal, `compile_file` makes a .pyinit,
`verify`, `disassemble` and `explain` look into one. Each takes any bytes-like object, which holds either a bare stream or
a whole .pyinit, and raises ValueError, with the position and the reason, if it is refused.
"""

# Annotations that need what is not imported are quoted: `__future__` is a module, too, which would be imported.

try:
    from . import _hook, _native
    from ._native import __version__, disassemble, dumps, explain, load, loads, verify
except ImportError as error:
    # An interpreter starts with what a .pth says, and that must not make noise in every subinterpreter.
    if "subinterpreter" not in str(error):
        raise
    _hook = _native = None  # type: ignore[assignment]
    _why_not = str(error)

    def __getattr__(name: str) -> object:
        if name in __all__:
            raise ImportError(f"rehydrate.{name} is not to be had in a subinterpreter: {_why_not}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from py_compile import PycInvalidationMode
    from typing import Any

    from ._native import _Profile, _Sharing

__all__ = [
    "__version__",
    "compile_file",
    "disassemble",
    "dumps",
    "explain",
    "install",
    "load",
    "loads",
    "status",
    "uninstall",
    "verify",
]


def compile_file(
    pyc_or_py: "str | os.PathLike[str]",
    target: "str | os.PathLike[str] | None" = None,
    *,
    profile: "_Profile" = "load",
    sharing: "_Sharing" = "structural",
    optimize: int = -1,
    invalidation_mode: "PycInvalidationMode | None" = None,
) -> str:
    """Compile a .pyc, or a source, into an initializer, and return the path of that.

    The initializer of a .pyc has its header, and is written beside it as NAME.pyinit. That of a source is written where an
    import looks for it, `__pycache__/NAME.cpython-313.pyinit`, and so is the .pyc, without which an import would not believe
    it; *optimize* and *invalidation_mode* are those of `py_compile.compile`, SOURCE_DATE_EPOCH included, and belong to
    sources alone. *target* names another place for the initializer, and then no .pyc is written.

    Raises ValueError if a .pyc is refused, SyntaxError for a source that is not Python, FileExistsError if the target is
    not a regular file, and OSError.
    """
    from . import _compile

    return _compile.compile_file(
        pyc_or_py, target, profile=profile, sharing=sharing, optimize=optimize, invalidation_mode=invalidation_mode
    )


def install(*, bundles: "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]" = ()) -> None:
    """Make imports use the initializers in __pycache__, and those of *bundles*: the path of a .pybundle file, or several.

    Where there is none, or a stale one, a module is imported as ever, and its initializer is written for the next time,
    unless `sys.dont_write_bytecode` is set.

    Modules of a bundle come from there before `sys.path` is searched, if their sources are those of which the bundle was
    made; so do its extension modules, if they are there. A bundle that cannot be used, because it is of another Python for one, is reported by a RuntimeWarning.

    In a subinterpreter nothing happens, as Rust extensions cannot be loaded there.
    """
    if _hook is not None:
        _hook.install(bundles)


def uninstall() -> None:
    """Undo `install`. Modules that are imported stay as they are."""
    if _hook is not None:
        _hook.uninstall()


def status() -> "dict[str, Any]":
    """Say what is active in this process, and why.

    "hook" counts the modules that came from initializers ("hits") and those that did not ("misses"), the initializers
    written, lists the bundles, and keeps the first warning and the last failure to write. The other entries are the executor's. In a
    subinterpreter, "refused" says why nothing is active.
    """
    if _native is None:
        return {"hook": {"installed": False}, "refused": _why_not}
    return _native.status() | {"hook": _hook.status()}
