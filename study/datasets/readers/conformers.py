"""Molecules in vacuum as frames: conformers of one composition each, or one by one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.core.elements import ATOMIC_NUMBERS
from study.core.errors import UserError
from study.datasets.frames import Frames

Array = NDArray[np.float64]


NOWHERE = np.zeros(3, np.bool_)
"""Along which vectors molecules are periodic."""

Molecule = tuple[list[str], list[float], dict[str, float]]
"""Symbols (N), positions (3 N) Å, and properties in the units of `PROPERTIES`."""


@dataclass(frozen=True)
class Conformers:
    """Frames with the same atoms, correlated with each other.

    Args:
        numbers: (N,) atomic numbers.
        positions: (F, N, 3) Å.
        energies: (F,) total energies, eV.
        forces: (F, N, 3) eV/Å; NaN if they are not known.
        properties: (F,) values by name.
    """

    numbers: NDArray[np.int64]
    positions: Array
    energies: Array
    forces: Array
    properties: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
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


def joined(parts: Sequence[Conformers], source: Path) -> Frames:
    """All conformers as frames, each part a group.

    Raises:
        UserError: if there are none.
    """
    counts = [len(part.energies) for part in parts]
    if not sum(counts):
        raise UserError(f"{source}: must hold a frame with its labels, but holds none")
    sizes = np.repeat([len(part.numbers) for part in parts], counts)
    names = parts[0].properties
    return Frames(
        numbers=np.concatenate([np.tile(part.numbers, len(part.energies)) for part in parts]),
        positions=np.concatenate([part.positions.reshape(-1, 3) for part in parts]),
        forces=np.concatenate([part.forces.reshape(-1, 3) for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        cells=np.zeros((len(sizes), 3, 3)),
        energies=np.concatenate([part.energies for part in parts]),
        groups=np.repeat(np.arange(len(parts)), counts),
        pbc=NOWHERE,
        origin={"labels": []},
        properties={
            name: np.concatenate([part.properties[name] for part in parts]) for name in names
        },
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
    numbers, positions, sizes = bytearray(), array("d"), array("q")
    known: dict[str, array[float]] = {}
    for count, (symbols, places, properties) in enumerate(molecules):
        with named(f"{source}: molecule {count} (from 0)"):
            numbers += bytes(ATOMIC_NUMBERS[symbol] for symbol in symbols)
        if len(places) != 3 * len(symbols) or not symbols:
            raise UserError(
                f"{source}: molecule {count} (from 0) must have three coordinates for each atom, "
                f"but has {len(places)} for {len(symbols)}"
            )
        positions.extend(places)
        sizes.append(len(symbols))
        for name, value in properties.items():
            column = known.setdefault(name, array("d"))
            column.extend([np.nan] * (count - len(column)))
            column.append(value)
    if not sizes:
        raise UserError(f"{source}: must hold a molecule, but holds none")
    for column in known.values():
        column.extend([np.nan] * (len(sizes) - len(column)))
    offsets = np.concatenate([[0], np.cumsum(np.frombuffer(sizes, np.int64))])
    xyz = np.frombuffer(positions).reshape(-1, 3)
    names = np.array(groups()) if groups else np.arange(len(sizes))
    return Frames(
        numbers=np.frombuffer(numbers, np.uint8),
        positions=xyz,
        forces=np.full(xyz.shape, np.nan),
        offsets=offsets,
        cells=np.zeros((len(sizes), 3, 3)),
        energies=np.full(len(sizes), np.nan),
        groups=np.unique(names, return_inverse=True)[1],
        pbc=NOWHERE,
        origin={"labels": []},
        properties={name: np.frombuffer(column) for name, column in known.items()},
    )


@contextmanager
def named(where: str) -> Iterator[None]:
    """Say where something is that cannot be read."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError) as problem:
        raise UserError(f"{where}: cannot be read ({type(problem).__name__}: {problem})") from None
