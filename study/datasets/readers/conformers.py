"""Molecules in vacuum as frames: conformers of one composition each, or one by one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.core.quantities.elements import atomic_number
from study.datasets.frames import Frames
from study.datasets.parsing.arrays import checked_numbers
from study.datasets.parsing.guard import guarded

Array = NDArray[np.float64]


NOWHERE = np.zeros(3, np.bool_)
"""Along which vectors molecules are periodic."""

AT_ONCE = 100_000
"""Frames that are joined at once, so that a large set is not in memory twice; their arrays are so
large that the system takes them back."""

Molecule = tuple[list[str], list[float], dict[str, float]]
"""Symbols (N), positions (3 N) Å, and properties in the units of `PROPERTIES`."""


@dataclass(frozen=True)
class Conformers:
    """Frames with the same atoms, correlated with each other.

    Args:
        numbers: (N,) atomic numbers.
        positions: (F, N, 3) Å.
        energies: (F,) total energies, eV; NaN if they are not known.
        forces: (F, N, 3) eV/Å; NaN if they are not known.
        properties: (F,) values by name.
        cells: (F, 3, 3) Å; none for molecules in vacuum.
        stresses: (F, 3, 3) eV/Å³; none if they are not known.
    """

    numbers: NDArray[np.uint8]
    positions: Array
    energies: Array
    forces: Array
    properties: dict[str, Array] = field(default_factory=dict)
    cells: Array | None = None
    stresses: Array | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together, and atoms of no element."""
        object.__setattr__(self, "numbers", checked_numbers(self.numbers))
        shape = (len(self.energies), len(self.numbers), 3)
        for name in ("positions", "forces"):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} must have shape {shape}, but got {getattr(self, name).shape}"
                )


def extents(frames: Frames) -> Array:
    """(frames, 3) Å, from the first to the last atom along each axis."""
    starts, positions = frames.offsets[:-1], frames.positions
    spans: Array = np.maximum.reduceat(positions, starts) - np.minimum.reduceat(positions, starts)
    return spans


def joined(parts: Iterable[Conformers], source: Path) -> Frames:
    """All conformers as frames, each part a group.

    Raises:
        UserError: if there are none.
    """
    chunks: list[Frames] = []
    some: list[Conformers] = []
    waiting = 0
    for number, part in enumerate(parts, 1):
        some.append(part)
        waiting += len(part.energies)
        if waiting >= AT_ONCE:
            chunks.append(_of_parts(some, number - len(some)))
            some, waiting = [], 0
    if waiting:
        chunks.append(_of_parts(some, number - len(some)))
    if not chunks:
        raise UserError(f"{source}: must hold a frame with its labels, but holds none")
    return chunks[0] if len(chunks) == 1 else _concatenated(chunks)


def _concatenated(chunks: list[Frames]) -> Frames:
    """All frames of all chunks; each array of theirs is let go as soon as it is joined."""
    columns = [dict(vars(chunk)) for chunk in chunks]
    chunks.clear()

    def taken(name: str) -> NDArray[Any]:
        return np.concatenate([column.pop(name) for column in columns])

    labelled = any(column["stresses"] is not None for column in columns)
    for column in columns:
        column["sizes"] = np.diff(column["offsets"])
        if labelled and column["stresses"] is None:
            column["stresses"] = np.full(column["cells"].shape, np.nan)
    properties = [column["properties"] for column in columns]
    names = ("numbers", "positions", "forces", "cells", "energies", "groups", "pbc")
    return Frames(
        **{name: taken(name) for name in names},
        offsets=np.concatenate([[0], np.cumsum(taken("sizes"))]),
        stresses=taken("stresses") if labelled else None,
        origin=columns[0]["origin"],
        properties={name: np.concatenate([e[name] for e in properties]) for name in properties[0]},
    )


def _of_parts(parts: Sequence[Conformers], first: int) -> Frames:
    """Some conformers as frames, each part a group, numbered from the first one."""
    counts = [len(part.energies) for part in parts]
    sizes = np.repeat([len(part.numbers) for part in parts], counts)
    names = parts[0].properties
    return Frames(
        numbers=np.concatenate([np.tile(part.numbers, len(part.energies)) for part in parts]),
        positions=np.concatenate([part.positions.reshape(-1, 3) for part in parts]),
        forces=np.concatenate([part.forces.reshape(-1, 3) for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        cells=np.concatenate(
            [
                np.zeros((count, 3, 3)) if part.cells is None else part.cells
                for part, count in zip(parts, counts, strict=True)
            ]
        ),
        energies=np.concatenate([part.energies for part in parts]),
        groups=np.repeat(np.arange(first, first + len(parts)), counts),
        stresses=joined_stresses(parts),
        pbc=np.repeat([[part.cells is not None] * 3 for part in parts], counts, axis=0),
        origin={"labels": [], "absent": ["energy", "forces", "stress"]},
        properties={
            name: np.concatenate([part.properties[name] for part in parts]) for name in names
        },
    )


def joined_stresses(parts: Sequence[Conformers]) -> Array | None:
    """(frames, 3, 3) of all parts, NaN where one has none; none if no part has any."""
    if all(part.stresses is None for part in parts):
        return None
    absent = [np.full((len(part.energies), 3, 3), np.nan) for part in parts]
    pairs = zip(parts, absent, strict=True)
    return np.concatenate(
        [nothing if part.stresses is None else part.stresses for part, nothing in pairs]
    )


def collected(
    molecules: Iterable[Molecule], source: Path, groups: Callable[[], list[str]] | None = None
) -> Frames:
    """Molecules as frames without energy and forces, each in vacuum.

    Args:
        molecules: one after the other, so that millions fit into memory.
        source: named in messages.
        groups: names of the groups, asked for at the end; each is its own when left out.
    """
    table = _MoleculeTable(source)
    for symbols, places, properties in molecules:
        table.add(symbols, places, properties)
    if not table.sizes:
        raise UserError(f"{source}: must hold a molecule, but holds none")
    names = np.array(groups()) if groups else np.arange(len(table.sizes))
    return table.frames(np.unique(names, return_inverse=True)[1])


class _MoleculeTable:
    """Flat columns that molecules are added to.

    Args:
        source: named in messages.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.numbers, self.positions, self.sizes = bytearray(), array("d"), array("q")
        self.columns: dict[str, array[float]] = {}

    def add(self, symbols: list[str], places: list[float], properties: dict[str, float]) -> None:
        """Add a molecule; properties that others have are NaN where it lacks them.

        Raises:
            UserError: if it is none.
        """
        count = len(self.sizes)
        self.numbers += _elements(symbols, places, f"{self.source}: molecule {count} (from 0)")
        self.positions.extend(places)
        self.sizes.append(len(symbols))
        for name, value in properties.items():
            column = self.columns.setdefault(name, array("d"))
            column.extend([np.nan] * (count - len(column)))
            column.append(value)

    def frames(self, groups: NDArray[np.int64]) -> Frames:
        """All molecules as frames, of these groups."""
        count, xyz = len(self.sizes), np.frombuffer(self.positions).reshape(-1, 3)
        for column in self.columns.values():
            column.extend([np.nan] * (count - len(column)))
        return Frames(
            numbers=np.frombuffer(self.numbers, np.uint8),
            positions=xyz,
            forces=np.full(xyz.shape, np.nan),
            offsets=np.concatenate([[0], np.cumsum(np.frombuffer(self.sizes, np.int64))]),
            cells=np.zeros((count, 3, 3)),
            energies=np.full(count, np.nan),
            groups=groups,
            pbc=NOWHERE,
            origin={"labels": []},
            properties={name: np.frombuffer(column) for name, column in self.columns.items()},
        )


def _elements(symbols: list[str], places: list[float], where: str) -> bytes:
    """Atomic numbers of a molecule whose atoms have all coordinates."""
    if len(places) != 3 * len(symbols) or not symbols:
        raise UserError(
            f"{where} must have three coordinates for each atom, but has {len(places)} for "
            f"{len(symbols)}"
        )
    with named(where):
        return bytes(map(atomic_number, symbols))


@contextmanager
def named(where: str) -> Iterator[None]:
    """Say where something is that cannot be read."""
    with guarded(where):
        yield
