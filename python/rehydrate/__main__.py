"""The command line: `python -m rehydrate`.

`compile` of sources and folders works in the manner of `compileall`; `bundle` compiles what has no current .pyc. All else is the
Rust tool's, `compile` of .pyc files and marshal dumps included.
"""

from __future__ import annotations

import sys

from . import _native

#: Of the options of the Rust tool's `compile`, those that compileall does not have.
RUST_OPTIONS = (
    "--format",
    "--jobs",
    "--keep-caches",
    "--lazy-layout",
    "--no-source-flags",
    "--optimize",
    "--out-dir",
    "--output",
    "--python",
    "--start-code",
    "--strip-caches",
)


def _is_compileall(arguments: list[str]) -> bool:
    """Whether `compile ARGUMENTS` is for sources.

    It is for the Rust tool if an input is a .pyc, a marshal dump, standard input or a __pycache__ folder, or if it has an
    option that compileall does not have.
    """

    def is_of_rust(argument: str) -> bool:
        return (
            argument == "-"
            or argument.endswith((".pyc", ".marshal"))
            or argument.rstrip("/\\").endswith("__pycache__")
            or argument.split("=")[0] in RUST_OPTIONS
        )

    lists_stdin = any(pair == ("-i", "-") for pair in zip(arguments, arguments[1:]))
    return lists_stdin or not any(map(is_of_rust, arguments))


def main(arguments: list[str] | None = None) -> int:
    """Does what a command line says, and gives the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compile"] and _is_compileall(arguments[1:]):
        from . import _compile

        return _compile.main(arguments[1:])
    if arguments[:1] == ["bundle"]:
        from . import _bundle

        return _bundle.main(arguments[1:])
    sys.stdout.flush()
    return _native._main(["rehydrate", *arguments])


if __name__ == "__main__":
    sys.exit(main())
