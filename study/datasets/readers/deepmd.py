"""Frames from DeePMD-kit's systems: `type.raw` with `set.*/*.npy`, or with `*.raw`, in eV and Å.

Format: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html. Frames of one
system are one group: they mostly come from one trajectory; systems of the mixed type
(`real_atom_types.npy`) hold frames of many. Systems with a file `nopbc` are molecules in vacuum.
Files of energies, forces or virials may be missing; a virial is −volume × stress, in eV. Without
`type_map.raw` the user names the elements: `species: [O, H]`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.core.quantities.elements import atomic_number
from study.datasets.frames import Frames
from study.datasets.parsing.arrays import Array, finite, load_npy, real
from study.datasets.parsing.folders import files_below, require_there
from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.stress import stresses
from study.datasets.parsing.text import number, text_lines, whole, whole_text
from study.datasets.readers.conformers import Conformers, joined, joined_stresses
from study.datasets.reading import PLAIN, Factors, Reading

DEFAULT = ("Å", "eV", "eV/Å")


def holds_systems(path: Path) -> bool:
    """Whether there is a system in the folder or below it."""
    return path.is_dir() and bool(files_below(path, "type.raw"))


def read(path: Path, given: Reading = PLAIN) -> Frames:
    """All frames of all systems of a folder.

    Raises:
        UserError: one line that names system, file and rule.
    """
    parts: list[Conformers] = []
    factors = given.factors(DEFAULT)
    for system in (file.parent for file in require_there(files_below(path, "type.raw"))):
        parts += _system(system, given, factors)
    if not parts:
        raise UserError(f"{path}: must hold a system with frames, a folder with type.raw and set.*")
    frames = joined(parts, path)
    frames.origin["units"] = factors.names
    frames.origin["labels"] += [*factors.remarks, *_species_remarks(path, given)]
    return frames


def _species_remarks(path: Path, given: Reading) -> list[str]:
    """Where the user sets other elements than a file has."""
    if not given.species:
        return []
    maps = files_below(path, "type_map.raw")
    others = [names for file in maps if (names := whole_text(file).split()) != list(given.species)]
    said = ", ".join(given.species)
    return (
        [f"types read as {said}, though a type_map.raw says {printable(', '.join(others[0]))}"]
        if others
        else []
    )


def _system(system: Path, given: Reading, factors: Factors) -> Iterator[Conformers]:
    """The frames of each set of a system, or of its plain tables if it has no sets."""
    kinds = _types(system)
    elements = _elements(system, given)
    folders = sorted(each for each in system.glob("set.*") if each.is_dir()) or [system]
    made = [_read_set(folder, system, kinds, elements, factors) for folder in folders]
    first = made[0][0].numbers if made[0] else None
    # Sets of the mixed type may have a frame each, with atoms of their own.
    mixed = any(
        len(part) != 1 or first is None or not np.array_equal(part[0].numbers, first)
        for part in made
    )
    if mixed:
        for part in made:
            yield from part
    else:
        yield _together([part[0] for part in made])


def _together(parts: list[Conformers]) -> Conformers:
    """The sets of a system, which have the same atoms, as one group."""
    cells = [part.cells for part in parts if part.cells is not None]
    return Conformers(
        parts[0].numbers,
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.energies for part in parts]),
        np.concatenate([part.forces for part in parts]),
        cells=np.concatenate(cells) if cells else None,
        stresses=joined_stresses(parts),
    )


def _read_set(
    folder: Path, system: Path, kinds: NDArray[np.int64], elements: list[int], factors: Factors
) -> list[Conformers]:
    """Frames with the same atoms; of the mixed type one part for each frame."""
    atoms = len(kinds)
    with guarded(folder):
        coordinates = _table(folder, "coord", 3 * atoms)
        if coordinates is None:
            raise UserError(f"{folder}: must have coord.npy or coord.raw, but has neither")
        frames = len(coordinates)
        energies = _table(folder, "energy", 1, frames)
        forces = _table(folder, "force", 3 * atoms, frames)
        cells = None if (system / "nopbc").exists() else _table(folder, "box", 9, frames)
        if cells is None and not (system / "nopbc").exists():
            raise UserError(
                f"{folder}: must have box.npy or box.raw; molecules without a cell have an empty "
                f"file {system / 'nopbc'}"
            )
        shape = (frames, atoms, 3)
        whole = Conformers(
            _numbers(kinds, elements, system),
            factors.length * coordinates.reshape(shape),
            np.full(frames, np.nan) if energies is None else factors.energy * energies.reshape(-1),
            np.full(shape, np.nan) if forces is None else factors.force * forces.reshape(shape),
            cells=None if cells is None else factors.length * cells.reshape(frames, 3, 3),
        )
        virials = None if whole.cells is None else _table(folder, "virial", 9, frames)
        if virials is not None and whole.cells is not None:
            found = stresses({"virial": virials}, whole.cells, Reading(), factors)
            whole = replace(whole, stresses=found)
        real_types = folder / "real_atom_types.npy"
        if not real_types.exists():
            return [whole]
        return _apart(whole, load_npy(real_types), elements, system)


def _apart(
    whole: Conformers, types: NDArray[np.int64], elements: list[int], system: Path
) -> list[Conformers]:
    """Frames of the mixed type, whose atoms of type -1 are no atoms."""
    if types.shape != whole.positions.shape[:2]:
        raise ValueError(
            f"real_atom_types.npy must have shape {whole.positions.shape[:2]}, but got "
            f"{types.shape}"
        )
    if types.dtype.kind not in "iuf" or (types != np.floor(types)).any():
        raise ValueError("real_atom_types.npy must hold whole numbers")
    parts = []
    for index, kinds in enumerate(types.astype(np.int64)):
        here, chosen = kinds != -1, slice(index, index + 1)
        parts.append(
            Conformers(
                _numbers(kinds[here], elements, system),
                whole.positions[chosen, here],
                whole.energies[chosen],
                whole.forces[chosen, here],
                cells=None if whole.cells is None else whole.cells[chosen],
                stresses=None if whole.stresses is None else whole.stresses[chosen],
            )
        )
    return parts


def _types(system: Path) -> NDArray[np.int64]:
    """(N,) types of the atoms of every frame."""
    with guarded(system / "type.raw", "must hold a whole number for each atom"):
        words = whole_text(system / "type.raw").split()
        return np.array(
            [-whole(word[1:]) if word.startswith("-") else whole(word) for word in words],
            dtype=np.int64,
        )


def _elements(system: Path, given: Reading) -> list[int]:
    """Atomic numbers of the types, by the user's word or the file's."""
    if given.species:
        return given.elements()
    names = system / "type_map.raw"
    if not names.exists():
        raise UserError(
            f"{names}: must name the elements, such as `O H`; write this file, or say "
            "`species: [O, H]`"
        )
    with guarded(names):
        return [atomic_number(symbol) for symbol in whole_text(names).split()]


def _numbers(kinds: NDArray[np.int64], elements: list[int], system: Path) -> NDArray[np.uint8]:
    """(N,) atomic numbers."""
    wrong = kinds[(kinds < 0) | (kinds >= len(elements))]
    if len(wrong):
        raise UserError(
            f"{system}: type.raw must hold a number per atom, each with an element in "
            f"type_map.raw, but there is none for {wrong[0]}"
        )
    return np.array(elements, dtype=np.uint8)[kinds]


def _text_rows(path: Path) -> Array:
    """The numbers of a table, one row after the other.

    Raises:
        UserError: naming the line that has more or fewer numbers than the first.
    """
    values, width, rows = array("d"), 0, 0
    with text_lines(path) as lines:
        for place, line in enumerate(lines, start=1):
            words = line.split()
            if not words:
                continue
            width, rows = width or len(words), rows + 1
            if len(words) != width:
                raise UserError(f"{path}:{place}: must have {width} numbers, but has {len(words)}")
            values.extend([number(word) for word in words])
    return np.array(values).reshape(rows, width)


def _table(folder: Path, name: str, width: int, frames: int | None = None) -> Array | None:
    """A row per frame of an npy or raw file; none where there is neither."""
    binary, text = folder / f"{name}.npy", folder / f"{name}.raw"
    if binary.exists():
        values = real(load_npy(binary), binary.name)
        if values.ndim == 0:
            raise UserError(f"{binary}: must have a row per frame, but holds a single number")
        rows, file = values.reshape(len(values), math.prod(values.shape[1:])), binary
    elif text.exists():
        rows, file = _text_rows(text), text
    else:
        return None
    if rows.shape[1] != width or frames not in (None, len(rows)):
        wanted = (len(rows) if frames is None else frames, width)
        raise UserError(f"{file}: must have shape {wanted}, but got {rows.shape}")
    with guarded(file):
        return finite(rows, name, len(rows)) if len(rows) else rows
