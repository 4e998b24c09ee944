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
BOHR_CONTACT = 1.3
"""Å; every bond of hydrogen is shorter, and longer than this if it is in Bohr."""
SMALL_MOVE = 0.1
"""Å per component; over moves of that size forces hardly change."""
ENOUGH_MOVES = 5
"""Pairs of neighbouring frames, to judge by."""
ALIKE = 0.9
"""Correlation of energies with the work of forces, above which their ratio means something."""
UNIT_FACTORS = {
    "energies are in kcal/mol and forces in eV/Å": 23.06,
    "energies are in kJ/mol and forces in eV/Å": 96.49,
    "energies are in Hartree and forces in eV/Å": 0.03675,
    "energies are in eV and forces in Hartree/Bohr": 51.42,
    "forces are the gradient, not its negative": -1.0,
}
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
        "repeated frames": str(_copies(frames)),
        "nearest contacts": _contacts(frames),
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
    if copies := _copies(frames):
        found.append(f"{copies} frames repeat an earlier one; a split keeps equal frames together")
    closest = closest_atoms(frames)
    close = np.flatnonzero(closest < TOO_CLOSE)
    if len(close):
        found.append(
            f"{len(close)} frames have atoms closer than {TOO_CLOSE} Å; frame {close[0]} (from 0): "
            f"{closest[close[0]]:.3f} Å"
            + ("; are positions in nm?" if len(close) == len(frames) else "")
        )
    if 1 in frames.numbers and closest.min() > BOHR_CONTACT:
        found.append(
            f"no atom is nearer than {BOHR_CONTACT} Å to another, though there is hydrogen, whose "
            "bonds have about 1 Å: are positions in Bohr?"
        )
    found += _mismatched_labels(frames)
    if len(np.unique(frames.groups)) == 1 < len(frames):
        found.append("all frames are one group: only `split: {by: frame}` can divide them")
    return found


def _mismatched_labels(frames: Frames) -> list[str]:
    """Where a frame follows closely on another, its energy must fall by the work of the forces."""
    works, changes = [], []
    for index in range(1, len(frames)):
        before, after = (slice(*frames.offsets[i : i + 2]) for i in (index - 1, index))
        same = np.array_equal(frames.numbers[before], frames.numbers[after])
        if not same or not np.allclose(frames.cells[index - 1], frames.cells[index]):
            continue
        move = frames.positions[after] - frames.positions[before]
        move -= np.round(move @ np.linalg.inv(frames.cells[index])) @ frames.cells[index]
        if 0 < np.sqrt(np.mean(move**2)) < SMALL_MOVE:
            mean_force = (frames.forces[before] + frames.forces[after]) / 2
            works.append(float(np.sum(mean_force * move)))
            changes.append(float(frames.energies[index] - frames.energies[index - 1]))
    work, change = np.array(works), np.array(changes)
    if len(work) < ENOUGH_MOVES or not np.any(work) or not np.any(change):
        return []
    factor = -np.sum(work * change) / np.sum(work**2)
    alike = -np.sum(work * change) / np.sqrt(np.sum(work**2) * np.sum(change**2))
    if abs(alike) < ALIKE or 0.5 < factor < 2:
        return []
    known = [name for name, value in UNIT_FACTORS.items() if abs(factor / value - 1) < 0.3]
    guess = f", as when {known[0]}" if known else ""
    return [
        f"between neighbouring frames energies change by {factor:.3g} times the work of the forces"
        f"{guess}: do their units belong together?"
    ]


def _copies(frames: Frames) -> int:
    """Frames that repeat an earlier one."""
    return len(frames) - len(np.unique(units_of(frames, "frame")))


def _contacts(frames: Frames) -> str:
    """The shortest distance of each pair of elements."""
    shortest: dict[tuple[int, int], float] = {}
    for index in _shown(frames):
        atoms = slice(*frames.offsets[index : index + 2])
        first, second, lengths = _neighbours(frames, index)
        numbers = frames.numbers[atoms].astype(int)
        pairs = np.sort(np.stack([numbers[first], numbers[second]], axis=1), axis=1)
        for pair in np.unique(pairs, axis=0):
            key, here = (int(pair[0]), int(pair[1])), (pairs == pair).all(axis=1)
            shortest[key] = min(shortest.get(key, np.inf), float(lengths[here].min()))
    return ", ".join(
        f"{SYMBOLS[a - 1]}-{SYMBOLS[b - 1]} {length:.3f} Å"
        for (a, b), length in sorted(shortest.items())
    )


def _shown(frames: Frames) -> list[int]:
    """Frames that are looked at more closely, evenly spread."""
    places = np.linspace(0, len(frames) - 1, FRAMES_FOR_DISTANCES).round().astype(int)
    return [int(place) for place in np.unique(places)]


def _neighbours(frames: Frames, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Both atoms and length of all pairs within `REACH` in a frame."""
    atoms = slice(*frames.offsets[index : index + 2])
    first, second, lengths = vesin.NeighborList(cutoff=REACH, full_list=True).compute(
        points=frames.positions[atoms], box=frames.cells[index], periodic=True, quantities="ijd"
    )
    return first, second, lengths


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
    shown = _shown(frames)
    distances = [_distances(frames, index) for index in shown]
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
    first, second, lengths = _neighbours(frames, index)
    by_length = np.argsort(lengths)[::-1]
    bonded = by_length[(numbers[first] == 1)[by_length] & (numbers[second] == 8)[by_length]]
    molecule, bonds = np.arange(len(numbers)), np.full(len(numbers), np.nan)
    # The nearest oxygen comes last, and stays.
    molecule[first[bonded]], bonds[first[bonded]] = second[bonded], lengths[bonded]
    between = lengths[molecule[first] != molecule[second]]
    return bonds[numbers == 1], float(between.min(initial=np.inf))
