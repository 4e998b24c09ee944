"""Arrays as files of a folder: written with their hashes, and mapped where they are large."""

from __future__ import annotations

import hashlib
import json
import mmap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import disk, lock_of, make_folder, remove, rename, write_json, write_with
from study.core.errors import MALFORMED, UserError
from study.core.hashing import code_version, digest

MAPPED = 2**20
"""Bytes from which a file is mapped, so that all processes of a machine share its pages."""
SETTLED = 2 * 10**9
"""Nanoseconds after its change from which a file is known by size and time of change: within the
same tick of a file system's clock it may change twice."""
DERIVED = "arrays.json"
"""Header of a folder of arrays that can be made again."""
REMADE = "delete the folder, and it is made again"


def save_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write one .npy per array."""
    for name, array in arrays.items():
        write_with(folder / f"{name}.npy", partial(_write, array))


def described(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """What `require_whole` asks for: the hashes of the `files` of a folder, and their `stamps`."""
    return {
        "files": {name: _file_hash(folder / name) for name in names},
        "stamps": {name: _stamp(folder / name) for name in names},
    }


def require_whole(folder: Path, header: Mapping[str, Any], *, known: bool = False) -> None:
    """Check the files of a folder.

    Args:
        folder: with the files.
        header: what `described` returned.
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


def request_rows(arrays: Iterable[NDArray[Any]], spans: Iterable[tuple[int, int]]) -> None:
    """Let the system read rows of mapped arrays all at once, and nothing around them.

    Else each is waited for when it is touched, and megabytes around it are read.

    Args:
        arrays: of `load_arrays`; those in memory are passed over.
        spans: first row of each, and the one after its last.
    """
    found = [each.base for each in arrays if isinstance(each.base, np.memmap)]
    mapped: list[tuple[Any, Any]] = [(array, array.base) for array in found]
    for first, last in spans:
        for array, file in mapped:
            row, page = array.strides[0], mmap.PAGESIZE
            begin = (array.offset + first * row) // page * page
            file.madvise(mmap.MADV_WILLNEED, begin, array.offset + last * row - begin)


def arrays_once(folder: Path, make: Callable[[Path], object]) -> dict[str, NDArray[Any]]:
    """The arrays of a folder, made by the first process that asks for them; others wait.

    Args:
        folder: that holds them; it is made again if it is damaged.
        make: writes them as .npy into the folder that it is given.
    """
    with lock_of(folder.with_name(f"{folder.name}.lock")):
        header = _whole(folder)
        if header is None:
            partial = folder.with_name(f"{folder.name}.partial")
            remove(partial)
            make_folder(partial)
            make(partial)
            files = sorted(partial.glob("*.npy"))
            for file in files:
                disk.sync(file)
            header = described(partial, [file.name for file in files])
            write_json(partial / DERIVED, header | {"digest": digest(header)})
            remove(folder)
            rename(partial, folder)
    return load_arrays(folder, header)


@dataclass(frozen=True)
class DerivedArrays:
    """Arrays that follow from stored frames and the code, kept beside these for all processes.

    Args:
        folder: of the frames.
        content_hash: of the frames.
    """

    folder: Path
    content_hash: str

    def once(
        self, kind: str, of: list[Any], make: Callable[[Path], object]
    ) -> dict[str, NDArray[Any]]:
        """Find arrays, or make them; see `arrays_once`.

        Args:
            kind: what they are, in a word.
            of: JSON values of all else that they depend on.
            make: writes them.
        """
        name = f"{kind}-{digest([self.content_hash, code_version(), *of])[:12]}"
        return arrays_once(self.folder / name, make)


def _whole(folder: Path) -> dict[str, Any] | None:
    """The header of a folder of arrays; None if something is missing or damaged."""
    try:
        header: dict[str, Any] = json.loads((folder / DERIVED).read_bytes())
        if header.pop("digest") != digest(header):
            return None
        require_whole(folder, header, known=True)
    except (*MALFORMED, FileNotFoundError, UserError):
        return None
    return header


class GrowingArray:
    """An .npy file to which rows are appended, so that an array need not fit into memory.

    Args:
        path: of the file.
        dtype: of the array.
        row: shape of a row.
    """

    def __init__(self, path: Path, dtype: Any, row: tuple[int, ...] = ()) -> None:
        self.file, self.dtype, self.row, self.length = path.open("wb"), np.dtype(dtype), row, 0
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows at the end."""
        self.file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.length += len(rows)

    def close(self) -> None:
        """Write how many rows there are; the header has spare space for that."""
        self.file.seek(0)
        self._write_header()
        self.file.close()

    def _write_header(self) -> None:
        shape = (self.length, *self.row)
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, described)


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
