"""Arrays as files of a folder: written with their hashes, and mapped where they are large."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import write_with
from study.core.errors import UserError

MAPPED = 2**20
"""Bytes from which a file is mapped, so that all processes of a machine share its pages."""
SETTLED = 2 * 10**9
"""Nanoseconds after its change from which a file is known by size and time of change: within the
same tick of a file system's clock it may change twice."""
REMADE = "delete the folder, and it is made again"


def save_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Write one .npy per array.

    Returns:
        What `require_whole` asks for: the hashes of the `files`, and their `stamps`.
    """
    for name, array in arrays.items():
        write_with(folder / f"{name}.npy", partial(_write, array))
    return described(folder, [f"{name}.npy" for name in arrays])


def described(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """The hashes of the `files` of a folder, and their `stamps`: size and time of change."""
    return {
        "files": {name: _file_hash(folder / name) for name in names},
        "stamps": {name: _stamp(folder / name) for name in names},
    }


def require_whole(folder: Path, header: Mapping[str, Any], *, known: bool = False) -> None:
    """Check the files of a folder.

    Args:
        folder: with the files.
        header: what `save_arrays` returned.
        known: whether a large file is trusted that has the size and the time of change with which
            it was written; else all are read for their hashes.

    Raises:
        UserError: if one is missing or damaged.
    """
    for name, written in header["files"].items():
        path = folder / name
        if not (known and _unchanged(path, header.get("stamps"))) and _file_hash(path) != written:
            raise UserError(f"{path}: missing, or not what was written; {REMADE}")


def load_arrays(folder: Path, header: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Arrays of a folder by the stems of their files, mapped where they are large.

    Nobody else sees what is written into a mapped array.
    """
    arrays = {}
    for name in header["files"]:
        mode: Any = "c" if (folder / name).stat().st_size >= MAPPED else None
        arrays[name.removesuffix(".npy")] = np.load(
            folder / name, allow_pickle=False, mmap_mode=mode
        )
    return arrays


def _unchanged(path: Path, stamps: Any) -> bool:
    """Whether a file is large, settled, and has the size and time of change of its stamp."""
    stamp = _stamp(path)
    known = isinstance(stamps, dict) and stamps.get(path.name) == stamp
    return known and stamp[0] >= MAPPED and stamp[1] + SETTLED < time.time_ns()


def _stamp(path: Path) -> list[int]:
    """Size and time of change of a file; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _file_hash(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""


def _write(array: NDArray[Any], path: Path) -> None:
    with path.open("wb") as opened:
        np.save(opened, array, allow_pickle=False)
