"""Groups of an HDF5 file, with bounds on how deep they lie and on what their arrays claim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from study.core.errors import UserError
from study.datasets.parsing.guard import reason
from study.datasets.parsing.text import MOST_UNPACKED, SMALL

DEEPEST = 20
"""Groups in groups."""


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """The file, open.

    Raises:
        UserError: if it is none, or h5py is not installed.
    """
    try:
        h5py = import_module("h5py")
    except ImportError as problem:
        raise UserError(f"{path}: is read with h5py ({problem}); pip install h5py") from None
    try:
        file = h5py.File(path)
    except OSError as problem:
        raise UserError(f"{path}: is no HDF5 file ({reason(problem)})") from None
    with file:
        yield file


def groups_of(
    file: Any, name: str = "", depth: int = 0, seen: set[Any] | None = None
) -> Iterator[tuple[str, Any]]:
    """Every group that holds arrays, whatever it lies in.

    Raises:
        ValueError: if a group is met twice, which may have no end.
    """
    seen = set() if seen is None else seen
    address = import_module("h5py").h5o.get_info(file.id).addr
    if depth > DEEPEST or address in seen:
        raise ValueError(
            f"groups must not lie in more than {DEEPEST} others, in two places, or in themselves"
        )
    seen.add(address)
    groups = {key: part for key, part in file.items() if hasattr(part, "items")}
    if name and len(groups) < len(file):
        yield name, file
    for key, group in groups.items():
        yield from groups_of(group, f"{name}/{key}".lstrip("/"), depth + 1, seen)


def require_storage(file: Any, path: Path) -> None:
    """Refuse a file whose arrays are far larger than what it stores, before they are read.

    Raises:
        UserError: if it unpacks to too much.
    """
    require_unpacked(sum(map(unpacked_size, (group for _, group in groups_of(file)))), path)


def unpacked_size(group: Any) -> int:
    """Bytes that the arrays of a group take in memory."""
    return sum(
        part.nbytes for part in group.values() if hasattr(part, "shape") and part.shape is not None
    )


def require_unpacked(claimed: int, path: Path) -> None:
    """Refuse a file whose arrays take so many bytes in memory, if that is far more than its size.

    Raises:
        UserError: if it is.
    """
    if claimed > max(SMALL, MOST_UNPACKED * path.stat().st_size):
        raise UserError(
            f"{path}: unpacks to more than {MOST_UNPACKED} times its size, as no data set does"
        )
