"""What a data set holds, in words, and what looks wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import vesin
from numpy.typing import NDArray

from study.datasets.sanity import closest_atoms
from study.datasets.splits import units_of
from study.elements import MASSES, SYMBOLS
from study.frames import Frames

GRAMS_PER_CM3 = 1.66053906660
"""g/cm³ in one u/Å³ (CODATA 2018)."""
FRAMES_FOR_DISTANCES = 20
"""Frames, evenly spread, in which molecules are told apart."""
REACH = 3.0
"""Å, how far molecules look for their hydrogens and for each other."""
USUAL_FORCES = (0.05, 5.0)
"""eV/Å, root mean square per component of thermal structures; other units fall outside."""
TOO_CLOSE = 0.5
"""Å; no two nuclei of real structures are nearer, H-H bonds have 0.74."""


def summary(frames: Frames) -> dict[str, str]:
    """Property → value with unit."""
    per_atom = frames.energies / frames.sizes
    norms, edges = np.linalg.norm(frames.forces, axis=1), np.linalg.norm(frames.cells, axis=2)
    rows = {
        "frames": f"{len(frames)} in {len(np.unique(frames.groups))} groups",
        "atoms per frame": _span(frames.sizes, "d"),
        "atoms in all": _composition(frames),
        "box edges": f"{_span(edges, '.4f')} Å",
        "box angles": f"{_span(_angles(frames.cells), '.2f')}°",
        "density": _density(frames),
        "energy": f"{per_atom.mean():.5f} eV/atom, deviation {per_atom.std():.5f}",
        "force component": f"{_force_size(frames):.4f} eV/Å root mean square",
        "largest force": f"{norms.max():.3f} eV/Å",
        "labels": ", ".join(frames.origin.get("labels", [])),
    }
    return {name: value for name, value in rows.items() if value} | _distance_rows(frames)


def warnings(frames: Frames) -> list[str]:
    """What looks wrong, one line each."""
    found, (low, high), size = [], USUAL_FORCES, _force_size(frames)
    if not low < size < high:
        found.append(
            f"the root mean square force component is {size:.3g} eV/Å, outside {low} to {high}: "
            "are forces and positions in eV/Å and Å?"
        )
    copies = len(frames) - len(np.unique(units_of(frames, "frame")))
    if copies:
        found.append(f"{copies} frames repeat an earlier one; a split keeps equal frames together")
    close = np.flatnonzero((closest := closest_atoms(frames)) < TOO_CLOSE)
    if len(close):
        found.append(
            f"{len(close)} frames have atoms closer than {TOO_CLOSE} Å; frame {close[0]} (from 0): "
            f"{closest[close[0]]:.3f} Å"
        )
    if len(np.unique(frames.groups)) == 1 < len(frames):
        found.append("all frames are one group: only `split: {by: frame}` can divide them")
    return found


def _force_size(frames: Frames) -> float:
    return float(np.sqrt(np.mean(frames.forces**2)))


def _span(values: NDArray[Any], form: str) -> str:
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"


def _composition(frames: Frames) -> str:
    kinds, counts = np.unique(frames.numbers, return_counts=True)
    pairs = zip(kinds, counts, strict=True)
    return ", ".join(f"{count} {SYMBOLS[kind - 1]}" for kind, count in pairs)


def _angles(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """(frames, 3) degrees between the lattice vectors."""
    units = cells / np.linalg.norm(cells, axis=2, keepdims=True)
    cosines = np.sum(units * np.roll(units, 1, axis=1), axis=2)
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1, 1))))


def _density(frames: Frames) -> str:
    """Nothing where an element's mass is not listed."""
    if not set(np.unique(frames.numbers).tolist()) <= MASSES.keys():
        return ""
    masses = np.array([MASSES.get(number, 0.0) for number in range(256)])[frames.numbers]
    volumes = np.abs(np.linalg.det(frames.cells))
    density = np.add.reduceat(masses, frames.offsets[:-1]) / volumes * GRAMS_PER_CM3
    return f"{density.mean():.4f} g/cm³, deviation {density.std():.4f}"


def _distance_rows(frames: Frames) -> dict[str, str]:
    """Rows that only sets with O and H have."""
    if not {1, 8} <= set(np.unique(frames.numbers).tolist()):
        return {}
    shown = np.unique(np.linspace(0, len(frames) - 1, FRAMES_FOR_DISTANCES).round().astype(int))
    distances = [_distances(frames, int(index)) for index in shown]
    bonds, contact = np.concatenate([d[0] for d in distances]), min(d[1] for d in distances)
    return {
        "O-H distance": f"{_span(bonds, '.4f')} Å in {len(shown)} frames",
        "shortest contact between molecules": f"{contact:.3f} Å in {len(shown)} frames",
    }


def _distances(frames: Frames, index: int) -> tuple[NDArray[np.float64], float]:
    """Each hydrogen to its oxygen, and the shortest distance between two molecules, Å.

    A hydrogen belongs to the oxygen nearest to it; any other atom is a molecule of its own.
    """
    atoms = slice(*frames.offsets[index : index + 2])
    numbers = frames.numbers[atoms]
    first, second, lengths = vesin.NeighborList(cutoff=REACH, full_list=True).compute(
        points=frames.positions[atoms], box=frames.cells[index], periodic=True, quantities="ijd"
    )
    by_length = np.argsort(lengths)[::-1]
    bonded = by_length[(numbers[first] == 1)[by_length] & (numbers[second] == 8)[by_length]]
    molecule, bonds = np.arange(len(numbers)), np.full(len(numbers), np.nan)
    # The nearest oxygen comes last, and stays.
    molecule[first[bonded]], bonds[first[bonded]] = second[bonded], lengths[bonded]
    between = lengths[molecule[first] != molecule[second]]
    return bonds[numbers == 1], float(between.min(initial=np.inf))
