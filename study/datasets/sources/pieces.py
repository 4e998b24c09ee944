"""Large files read piece by piece: by several processes, and on from where they stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import disk, make_folder, remove
from study.core.components import resolve
from study.core.errors import UserError
from study.core.hashing import code_version, digest
from study.datasets.frames import Frames
from study.datasets.parsing.array_files import GrowingArray, load_arrays
from study.datasets.parsing.guard import guarded
from study.datasets.parsing.header import verified_header
from study.datasets.reading import Divisible, Stored
from study.datasets.sources.worker_process import in_processes
from study.datasets.validation import Contacts, check

FEWEST = 3
"""Pieces; a smaller file is read at once."""
GROUPS, CONTACTS, REMARKS = "groups of the piece", "contacts of the piece", "labels"
"""Keys of a piece's origin."""


def divided(dataset: Stored, file: Path) -> list[Any]:
    """The pieces of a file or folder; none if it is small or not read in pieces."""
    try:
        with guarded(file):
            pieces = list(_divisible(dataset).divide(file)) if dataset.pieces else []
    except UserError:
        # Who reads it at once says what is wrong with it.
        return []
    return pieces if len(pieces) >= FEWEST else []


def read_in_pieces(
    dataset: Stored,
    file: Path,
    pieces: Sequence[Any],
    place: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> tuple[Frames, Contacts] | None:
    """Read a file; pieces that an earlier call has read are not read again.

    Args:
        dataset: what to read.
        file: its file or folder.
        pieces: of that.
        place: folder for the pieces; the arrays of all frames are in its `all`.
        workers: processes.
        progress: told how many pieces of how many are read.

    Returns:
        The frames, sane ones, mapped from files, and how near their atoms are; None if something
        is so odd that only who reads all at once can say what it is.
    """
    names = [
        f"{number:05d}-{digest([code_version(), of])[:12]}" for number, of in enumerate(pieces)
    ]
    folders = [place / name for name in names]
    missing = [number for number, folder in enumerate(folders) if not _is_whole(folder)]
    jobs = {number: (dataset, file, pieces[number], folders[number]) for number in missing}
    done = len(pieces) - len(jobs)
    progress(done, len(pieces))
    for _, made in in_processes(_make, jobs, workers, "read a file") if jobs else ():
        if not made:
            return None
        done += 1
        progress(done, len(pieces))
    return _joined(folders, place / "all") if _have_same_units(folders) else None


def _divisible(dataset: Stored) -> Divisible:
    found: Divisible = resolve(dataset.pieces)[dataset.name]
    return found


def _have_same_units(folders: Sequence[Path]) -> bool:
    """Whether pieces were read in the same units, of which frames may declare their own."""
    units = [verified_header(each, known=True)["origin"].get("units") for each in folders]
    return all(each == units[0] for each in units)


def _is_whole(folder: Path) -> bool:
    try:
        verified_header(folder, known=True)
    except UserError:
        return False
    return True


def _make(dataset: Stored, file: Path, piece: Any, folder: Path) -> bool:
    """Read a piece into a folder; False if something is odd about it."""
    try:
        with guarded(file):
            frames, names = _divisible(dataset).read(file, dataset.reading, piece)
        contacts = check(frames, file)
    except UserError:
        return False
    frames.origin.update({GROUPS: names, CONTACTS: contacts})
    frames.save(folder)
    return True


def _joined(folders: list[Path], place: Path) -> tuple[Frames, Contacts]:
    """All frames of some pieces, in their order, without having them in memory."""
    remove(place)
    make_folder(place)
    files = {name for each in folders for name in verified_header(each, known=True)["files"]}
    arrays: dict[str, GrowingArray] = {}
    groups: dict[str, int] = {}
    contacts, origins = Contacts(), list[dict[str, Any]]()
    frames = atoms = 0
    for folder in folders:
        piece = Frames.load(folder, known=True)
        names = piece.origin[GROUPS]
        for name in names:
            groups.setdefault(name, len(groups))
        columns = dict(_columns(piece, files))
        columns["groups.npy"] = np.array([*(groups[name] for name in names), -1])[piece.groups]
        columns["offsets.npy"] = piece.offsets[bool(frames) :] + atoms
        for file, values in columns.items():
            if file not in arrays:
                arrays[file] = GrowingArray(place / file, values.dtype, values.shape[1:])
            arrays[file].append(values)
        contacts = contacts.joined(Contacts(*piece.origin[CONTACTS]), frames)
        origins.append(piece.origin)
        frames, atoms = frames + len(piece), atoms + len(piece.numbers)
    for file, array in arrays.items():
        array.close()
        disk.sync(place / file)
    return Frames.of(load_arrays(place, {"files": arrays}), _origin(origins)), contacts


def _columns(piece: Frames, files: Iterable[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of a piece by the files of all pieces; NaN of labels that only other pieces have."""
    own = {f"{name}.npy": values for name, values in piece.arrays().items()}
    for file in files:
        shape = (len(piece), 3, 3) if file == "stresses.npy" else (len(piece),)
        absent = piece.pbc if file == "pbc.npy" else np.full(shape, np.nan)
        yield file, own.get(file, absent)


def _origin(origins: list[dict[str, Any]]) -> dict[str, Any]:
    """What the pieces say of where they come from, as who reads all at once says it."""
    said = {
        key: list(dict.fromkeys(each for origin in origins for each in origin[key]))
        for key in (REMARKS, "columns")
        if key in origins[0]
    }
    first = {key: value for key, value in origins[0].items() if key not in (GROUPS, CONTACTS)}
    return first | said
