"""What no set of frames may contain, whatever it was read from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.core.paths import Address
from study.datasets.frames import Frames
from study.datasets.pairs import completed, search

SMALLEST_VOLUME = 1e-3
"""Å³; a cell with less is none."""
THINNEST = 0.5
"""Å between opposite faces of a cell; an atom is as near to its own image."""
SAME_PLACE = 1e-3
"""Å; atoms closer than this are on top of each other."""
TOO_CLOSE = 0.5
"""Å; no two nuclei of real structures are nearer, H-H bonds have 0.74."""
FARTHEST = 1e8
"""Å from the origin; beyond, float64 no longer tells atoms apart."""
NEAR = 1.5
"""Å, how far `closest_atoms` looks."""
MOST_COMPARED = 160
"""Atoms of a molecule up to which comparing them all is quicker than a search."""
COMPARED_AT_ONCE = 2**16
"""Pairs of atoms of many molecules, which fit into the cache of a processor."""
MOST_IN_CUBE = 200
"""Atoms in a cube with edges of that length."""


class Contacts(NamedTuple):
    """How near each other atoms are.

    Args:
        shortest: distance in any frame, Å; infinite beyond `NEAR`.
        close: frames with atoms closer than `TOO_CLOSE`.
        first: of these; −1 if there is none.
        distance: in it, Å.
    """

    shortest: float = np.inf
    close: int = 0
    first: int = -1
    distance: float = np.inf

    @classmethod
    def of(cls, frames: Frames) -> Contacts:
        """Those of some frames."""
        return cls._of(closest_atoms(frames))

    @classmethod
    def _of(cls, shortest: NDArray[np.float64]) -> Contacts:
        close = np.flatnonzero(shortest < TOO_CLOSE)
        first = (int(close[0]), float(shortest[close[0]])) if len(close) else (-1, np.inf)
        return cls(float(shortest.min(initial=np.inf)), len(close), *first)

    def joined(self, later: Contacts, before: int) -> Contacts:
        """Those of these frames and some that come after so many of them."""
        first = (self.first, self.distance)
        if not self.close and later.close:
            first = (before + later.first, later.distance)
        return Contacts(min(self.shortest, later.shortest), self.close + later.close, *first)


def check(frames: Frames, source: Path | Address) -> Contacts:
    """Refuse frames that no model can learn from.

    Returns:
        How near their atoms are.

    Raises:
        UserError: naming the first frame that breaks a rule, and the rule.
    """
    if not len(frames):
        raise UserError(f"{source}: must hold a frame, but holds none")
    _refuse_where(
        source,
        ~_finite(frames),
        "must have finite numbers only, and energy, forces and stress where other frames have them",
    )
    far = np.abs(frames.positions).max(axis=1) > FARTHEST
    rule = f"must have its atoms within {FARTHEST:g} Å of the origin: are positions in Å?"
    _refuse_where(source, np.logical_or.reduceat(far, frames.offsets[:-1]), rule)
    cells = _filled(frames)
    volumes = np.linalg.det(cells)
    _refuse_where(source, np.abs(volumes) < SMALLEST_VOLUME, "must have a cell with a volume")
    thin = f"must have a cell that is at least {THINNEST} Å thick wherever it is periodic"
    _refuse_where(source, _thickness(cells, frames.pbc) < THINNEST, thin)
    left = "must have a right-handed cell; swap two lattice vectors"
    _refuse_where(source, frames.pbc.all(axis=1) & (volumes < 0), left)
    _refuse_where(
        source, _crowded(frames), f"must not have {MOST_IN_CUBE} atoms in a cube of {NEAR} Å"
    )
    on_top = "must not have two atoms in the same place, periodic images included"
    shortest = closest_atoms(frames)
    _refuse_where(source, shortest < SAME_PLACE, on_top)
    return Contacts._of(shortest)


def _crowded(frames: Frames) -> NDArray[np.bool_]:
    """(frames,) which have so many atoms in one place that their pairs would fill the memory.

    No substance has more than a few there. Frames of fewer atoms are not looked at.
    """
    crowded = np.zeros(len(frames), np.bool_)
    for index in np.flatnonzero(frames.sizes > MOST_IN_CUBE):
        atoms = slice(*frames.offsets[index : index + 2])
        positions, lattice = frames.positions[atoms], frames.lattices[index]
        if frames.pbc[index].any():
            inverse = np.linalg.pinv(lattice)
            positions = positions - np.floor(positions @ inverse + 1e-9) @ lattice
        cubes = np.floor(positions / NEAR).astype(np.int64)
        crowded[index] = np.unique(cubes, axis=0, return_counts=True)[1].max() > MOST_IN_CUBE
    return crowded


def closest_atoms(frames: Frames) -> NDArray[np.float64]:
    """(frames,) shortest distance in each, images included, Å; infinite beyond `NEAR`."""
    shortest = np.full(len(frames), np.inf)
    compared = ~frames.lattices.any(axis=(1, 2)) & (frames.sizes <= MOST_COMPARED)
    for index in np.flatnonzero(~compared):
        atoms = slice(*frames.offsets[index : index + 2])
        lattice = frames.lattices[index]
        (distances,) = search(frames.positions[atoms], lattice, NEAR, "d", full=False)
        shortest[index] = distances.min(initial=np.inf)
    for size in np.unique(frames.sizes[compared]):
        alike = np.flatnonzero(compared & (frames.sizes == size))
        for some in np.array_split(alike, 1 + len(alike) * size**2 // COMPARED_AT_ONCE):
            places = frames.offsets[some][:, np.newaxis] + np.arange(size)
            shortest[some] = _shortest(frames.positions[places])
    return np.where(shortest < NEAR, shortest, np.inf)


def _shortest(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(frames,) shortest distance in each of some molecules with (frames, N, 3) Å; inf of atoms."""
    frames, atoms, _ = positions.shape
    squares = np.zeros((frames, atoms, atoms))
    for along in np.ascontiguousarray(positions.transpose(2, 0, 1)):
        apart = along[:, :, np.newaxis] - along[:, np.newaxis]
        squares += np.square(apart, out=apart)
    itself = np.arange(atoms)
    squares[:, itself, itself] = np.inf
    return np.asarray(np.sqrt(squares.min(axis=(1, 2))))


def _finite(frames: Frames) -> NDArray[np.bool_]:
    """(frames,) whether all numbers of a frame are finite, but for labels that may be absent.

    No frame has them, or the source says of which it does not know them: `origin["absent"]`. A
    NaN that a file holds as a label is none of these.
    """
    absent = [name for name in ("energy", "forces", "stress") if name not in frames.labels]
    absent += frames.origin.get("absent", [])
    starts = frames.offsets[:-1]
    whole = np.logical_and.reduceat(np.isfinite(frames.positions).all(axis=1), starts)
    whole &= np.isfinite(frames.cells).all(axis=(1, 2))
    if frames.stresses is not None:
        known, unknown = (
            test(frames.stresses).all(axis=(1, 2)) for test in (np.isfinite, np.isnan)
        )
        whole &= known | (unknown & ("stress" in absent))
    known, unknown = np.isfinite(frames.energies), np.isnan(frames.energies)
    whole &= known | (unknown & ("energy" in absent))
    known, unknown = (
        np.logical_and.reduceat(test(frames.forces).all(axis=1), starts)
        for test in (np.isfinite, np.isnan)
    )
    return np.asarray(whole & (known | (unknown & ("forces" in absent))))


def _filled(frames: Frames) -> NDArray[np.float64]:
    """(frames, 3, 3) Å, cells with unit vectors in place of those that are not periodic."""
    cells = np.where(frames.isolated[:, np.newaxis, np.newaxis], np.eye(3), frames.cells)
    for index in np.flatnonzero(~frames.pbc.all(axis=1) & ~frames.isolated):
        missing = frames.pbc[index] & ~frames.cells[index].any(axis=1)
        cells[index] = 0 if missing.any() else completed(frames.lattices[index])
    return cells


def _thickness(cells: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(frames,) Å, the smallest distance between opposite faces that repeat."""
    faces = np.cross(np.roll(cells, -1, axis=1), np.roll(cells, -2, axis=1))
    heights = np.abs(np.linalg.det(cells))[:, None] / np.linalg.norm(faces, axis=2)
    return np.asarray(np.where(pbc, heights, np.inf).min(axis=1))


def _refuse_where(source: Path | Address, broken: NDArray[np.bool_], rule: str) -> None:
    if broken.any():
        first, count = int(broken.argmax()), int(broken.sum())
        others = f"; {count} frames do not" if count > 1 else ""
        raise UserError(f"{source}: frame {first} (from 0) {rule}{others}")
