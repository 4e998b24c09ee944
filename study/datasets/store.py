"""Files and folders of frames, read once into the store and found again by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from study.core.atomic_io import locked, remove, rename
from study.core.errors import UserError
from study.core.hashing import digest
from study.datasets.frames import Frames, read_header
from study.datasets.readers import molecule_sets
from study.datasets.readers.detect import READERS
from study.datasets.sizes import Sizes

READER_VERSION = 4
"""Raised when the same file gives other frames."""


def folder_of(name: str, file: Path, store: Path) -> Path:
    """Where the frames of a file or folder are, or will be.

    Raises:
        UserError: if it cannot be read.
    """
    beside = [file_hash(each) for each in molecule_sets.read_beside(name, file)]
    return store / f"{name}-{digest([source_hash(file), *beside, READER_VERSION])[:12]}"


def bring_in(
    name: str, file: Path, store: Path, check: Callable[[Frames], None] | None = None
) -> Path:
    """Read a file into the store, unless a file with the same content is there already.

    Args:
        name: of the data set, one of `READERS`.
        file: what to read, a file or a folder.
        store: folder of all data sets.
        check: raises if these are not the frames expected.

    Returns:
        The folder, for `Frames.load`.
    """

    def read() -> Frames:
        frames = _described(READERS[name](file), name, file)
        if check is not None:
            check(frames)
        return frames

    return _stored(folder_of(name, file, store), read)


def store(folder: Path, make: Callable[[], Frames], settings: dict[str, Any]) -> Path:
    """Make frames and put them into a folder, unless they are there already.

    Args:
        folder: in the store.
        make: gives all frames.
        settings: what they are made by.

    Returns:
        The folder, for `Frames.load`.

    Raises:
        UserError: if no model can learn from them.
    """

    def described() -> Frames:
        frames = _checked(make(), Path(settings["name"]))
        return replace(frames, origin=frames.origin | {"settings": settings})

    return _stored(folder, described)


def _stored(folder: Path, make: Callable[[], Frames]) -> Path:
    if folder.exists():
        return folder
    # Before the lock, so that nothing is written if something is wrong with them.
    frames, store = make(), folder.parent
    busy = f"{folder}: another process is writing this data set; wait until it is done"
    with locked(store / f"{folder.name}.lock", busy):
        if not folder.exists():
            partial = store / f"{folder.name}.partial"
            remove(partial)
            frames.save(partial)
            rename(partial, folder)
    return folder


@lru_cache
def sizes_in(folder: Path) -> Sizes:
    """How much the frames of a file hold; the folder's name stands for its content."""
    return Sizes.from_json(read_header(folder)["origin"]["sizes"])


def seconds_to_read(file: Path) -> float:
    """Expected time to read a file: some 20 MB of text a second, a third of that when zipped."""
    size = sum(each.stat().st_size for each in _files_of(file))
    return 1.0 + size / (7e6 if file.suffix == ".gz" else 20e6)


def source_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder.

    Raises:
        UserError: if it cannot be read.
    """
    if not path.is_dir():
        return file_hash(path)
    found = {file.relative_to(path).as_posix(): file_hash(file) for file in _files_of(path)}
    return digest(found)


def file_hash(file: Path) -> str:
    """SHA-256 of a file; computed once as long as size and time of change stay.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        known = file.stat()
        return _file_hash(file, known.st_size, known.st_mtime_ns)
    except OSError as problem:
        raise UserError(f"{file}: cannot be read ({problem.strerror})") from None


@lru_cache
def _file_hash(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _files_of(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _described(frames: Frames, name: str, file: Path) -> Frames:
    """The frames, found sane, with where they come from."""
    origin = {
        "dataset": name,
        "file": file.name,
        "sha256": source_hash(file),
        "reader_version": READER_VERSION,
    }
    sane = _checked(frames, file)
    return replace(sane, origin=sane.origin | origin)


def _checked(frames: Frames, source: Path) -> Frames:
    """The frames, found sane, with how many they are."""
    # vesin and SciPy are needed only here, and plans shall appear at once.
    from study.datasets.splits import sizes_of
    from study.datasets.validation import check

    check(frames, source)
    remarks = list(frames.origin.get("labels", []))
    if "charge" in frames.labels and np.nan_to_num(frames.properties["charge"]).any():
        remarks.append("charges that no model sees")
    sizes = asdict(sizes_of(frames))
    return replace(frames, origin=frames.origin | {"sizes": sizes, "labels": remarks})
