"""What no set of frames may contain, whatever it was read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.frames import Frames

SMALLEST_VOLUME = 1e-3
"""Å³; a cell with less is none."""
SAME_PLACE = 1e-3
"""Å; atoms closer than this are on top of each other."""
NEAR = 1.5
"""Å, how far `closest_atoms` looks."""


def check(frames: Frames, source: Path) -> None:
    """Refuse frames that no model can learn from.

    Raises:
        UserError: naming the first frame that breaks a rule, and the rule.
    """
    _refuse_where(
        source,
        ~_finite(frames),
        "must have finite numbers only, and energy and forces where other frames have them",
    )
    volumes = np.linalg.det(frames.cells)
    _refuse_where(source, np.abs(volumes) < SMALLEST_VOLUME, "must have a cell with a volume")
    left = "must have a right-handed cell; swap two lattice vectors"
    _refuse_where(source, volumes < 0, left)
    on_top = "must not have two atoms in the same place, periodic images included"
    _refuse_where(source, closest_atoms(frames) < SAME_PLACE, on_top)


def closest_atoms(frames: Frames) -> NDArray[np.float64]:
    """(frames,) shortest distance in each, images included, Å; infinite beyond `NEAR`."""
    import vesin  # It imports torch, which takes long.

    search = vesin.NeighborList(cutoff=NEAR, full_list=False)
    shortest = np.full(len(frames), np.inf)
    for index, cell in enumerate(frames.cells):
        atoms = slice(*frames.offsets[index : index + 2])
        (distances,) = search.compute(
            points=frames.positions[atoms], box=cell, periodic=True, quantities="d"
        )
        shortest[index] = distances.min(initial=np.inf)
    return shortest


def _finite(frames: Frames) -> NDArray[np.bool_]:
    """(frames,) whether all numbers of a frame are finite, but for labels that no frame has."""
    rows = np.isfinite(frames.positions).all(axis=1)
    if "forces" in frames.labels:
        rows &= np.isfinite(frames.forces).all(axis=1)
    whole = np.logical_and.reduceat(rows, frames.offsets[:-1])
    whole &= np.isfinite(frames.cells).all(axis=(1, 2))
    if "energy" in frames.labels:
        whole &= np.isfinite(frames.energies)
    return np.asarray(whole)


def _refuse_where(source: Path, broken: NDArray[np.bool_], rule: str) -> None:
    if broken.any():
        first, count = int(broken.argmax()), int(broken.sum())
        others = f"; {count} frames do not" if count > 1 else ""
        raise UserError(f"{source}: frame {first} (from 0) {rule}{others}")
