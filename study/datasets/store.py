"""Files and folders of frames, read once into the store and found again by their content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study.core.atomic_io import locked, remove, rename
from study.core.components import resolve
from study.core.errors import UserError, readable
from study.core.hashing import digest, file_hash
from study.datasets.diagnostics import warnings
from study.datasets.frames import Frames
from study.datasets.parsing.array_files import REMADE
from study.datasets.parsing.folders import files_below
from study.datasets.parsing.guard import require_filled, require_plain
from study.datasets.parsing.header import HEADER, read_header
from study.datasets.readers.detect import read_frames
from study.datasets.sizes import Sizes
from study.datasets.sources.pieces import divided, read_in_pieces
from study.datasets.sources.remote import DOWNLOADS, local
from study.datasets.splits import sizes_of
from study.datasets.validation import Contacts, check

if TYPE_CHECKING:
    from study.datasets.reading import Stored

READER_VERSION = 8
"""Raised when the same file gives other frames."""


def folder_of(dataset: Stored, root: Path) -> Path:
    """Where the frames of a file or folder are, or will be.

    Raises:
        UserError: if it cannot be read.
    """
    file = file_of(dataset, root)
    beside = resolve(dataset.beside)(file) if dataset.beside else []
    hashes = [source_hash(file), *map(file_hash, beside), READER_VERSION]
    said = dataset.model_dump(mode="json", exclude={"name", "path"}, exclude_none=True)
    what = [*hashes, said] if said else hashes
    return root / "data" / f"{dataset.name}-{digest(what)[:12]}"


def prepare(
    dataset: Stored, root: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    """Read a file into the store, unless a file with the same content is there already.

    Args:
        dataset: what to read.
        root: folder of all work.
        workers: processes that read a large file.
        progress: told how many pieces of how many are read of a large file.

    Returns:
        The folder, for `Frames.load`.

    Raises:
        UserError: if it cannot be read, or no model can learn from it.
    """
    file, folder = file_of(dataset, root), folder_of(dataset, root)

    def read() -> Frames:
        frames = _described(read_frames(dataset, file), dataset.name, file)
        if dataset.path is None:
            _fetched(dataset).check(frames)
        return frames

    pieces = [] if folder.exists() else divided(dataset, file)
    place = folder.with_name(f"{folder.name}.pieces")
    if folder.exists() and place.exists():
        # Whoever made the folder was killed before it could clean up, or is about to.
        with suppress(UserError), locked(*_lock_of(folder)):
            remove(place)
    if pieces:
        with locked(*_lock_of(folder)):
            found = read_in_pieces(dataset, file, pieces, place, workers, progress)
            if found and not folder.exists():
                _described(found[0], dataset.name, file, found[1]).save(place / "all", there=True)
                rename(place / "all", folder)
            remove(place)
    return _stored(folder, read)


def seconds_to_make(dataset: Stored, root: Path, workers: int) -> float:
    """Expected time to read a file: some 20 MB of text a second, a third of that when zipped."""
    del workers
    file = file_of(dataset, root)
    size = sum(each.stat().st_size for each in _files_of(file))
    return 1.0 + size / (7e6 if file.suffix == ".gz" else 20e6)


def file_of(dataset: Stored, root: Path) -> Path:
    """The file or folder of a data set.

    Raises:
        UserError: if it is not there.
    """
    if dataset.path is None:
        file: Path = _fetched(dataset).file_of(root)
        way_out = f"fetch it with `python -m study.data fetch rpbe --out {root}`, or set"
    else:
        file = local(dataset.path, root / DOWNLOADS)
        way_out = "names in a space are relative to its folder, others to the current one; correct"
    suits = {"file": file.is_file(), "folder": file.is_dir(), "either": file.exists()}
    if not suits[dataset.place]:
        kind = "folder" if dataset.place == "folder" else "file"
        raise UserError(f"{file.absolute()}: no such {kind}; {way_out} `dataset.path`")
    require_plain(file)
    return file


def _fetched(dataset: Any) -> Any:
    """The module that knows a published file."""
    return import_module(dataset.fetched)


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
    with locked(*_lock_of(folder)):
        if not folder.exists():
            partial = store / f"{folder.name}.partial"
            remove(partial)
            frames.save(partial)
            rename(partial, folder)
    return folder


def _lock_of(folder: Path) -> tuple[Path, str]:
    """The lock of a data set, and what to say while it is held."""
    busy = f"{folder}: another process is writing this data set; wait until it is done"
    return folder.with_name(f"{folder.name}.lock"), busy


@lru_cache
def sizes_in(folder: Path) -> Sizes:
    """How much the frames of a file hold; the folder's name stands for its content."""
    origin = read_header(folder)["origin"]
    with readable(folder / HEADER, REMADE):
        return Sizes.from_json(origin["sizes"])


def source_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder.

    Raises:
        UserError: if it cannot be read.
    """
    if not path.is_dir():
        return file_hash(path)
    found = {}
    for file in _files_of(path):
        require_filled(file)
        found[file.relative_to(path).as_posix()] = file_hash(file)
    return digest(found)


def _files_of(path: Path) -> list[Path]:
    return [each for each in files_below(path) if each.exists()] if path.is_dir() else [path]


def _described(frames: Frames, name: str, file: Path, contacts: Contacts | None = None) -> Frames:
    """The frames, found sane unless their contacts are known, with where they come from."""
    origin = {
        "dataset": name,
        "file": file.name,
        "sha256": source_hash(file),
        "reader_version": READER_VERSION,
    }
    sane = _checked(frames, file, contacts)
    return replace(sane, origin=sane.origin | origin)


def _checked(frames: Frames, source: Path, contacts: Contacts | None = None) -> Frames:
    """The frames, found sane, with how many they are and what looks wrong with them."""
    contacts = contacts or check(frames, source)
    remarks = list(frames.origin.get("labels", []))
    if "charge" in frames.labels and np.nan_to_num(frames.properties["charge"]).any():
        remarks.append("charges that no model sees")
    found = {
        "sizes": asdict(sizes_of(frames)),
        "labels": remarks,
        "warnings": warnings(frames, contacts),
    }
    return replace(frames, origin=frames.origin | found)
