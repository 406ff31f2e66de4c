"""Many modules in one mapped file. Not built yet."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


def install(bundles: list[str | os.PathLike[str]]) -> None:
    """Imports from `bundles` first, in the order given."""
    raise NotImplementedError("bundles cannot be imported from yet")


def uninstall() -> None:
    """Undoes `install`."""
