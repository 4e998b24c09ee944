"""What a data set holds, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.quantities.elements import MASSES, SYMBOLS
from study.core.quantities.properties import PROPERTIES
from study.core.quantities.units import GIGAPASCAL
from study.datasets.frames import Frames
from study.datasets.pairs import search
from study.datasets.sizes import partly
from study.datasets.split_config import Split
from study.datasets.splits import element_counts, held_out_units, sizes_of, units_of

GRAMS_PER_CM3 = 1.66053906660
"""g/cm³ in one u/Å³ (CODATA 2018)."""
FRAMES_FOR_DISTANCES = 20
"""Frames, evenly spread, in which molecules are told apart."""
AT_ONCE = 100_000
"""Atoms whose forces are in memory at once."""
SEEDS = 10
"""Seeds of a study that are looked at."""
MOST_GROUPS = 100
"""Of more groups seeds hardly draw the same ones to test on."""
REACH = 3.0
"""Å, how far molecules look for their hydrogens and for each other."""


def summary(frames: Frames) -> dict[str, str]:
    """Property → value with unit."""
    alone = frames.isolated
    periodic = frames.select(np.flatnonzero(frames.pbc.all(axis=1)))
    rows = {
        "frames": f"{len(frames)} in {len(np.unique(frames.groups))} groups",
        "atoms per frame": _span(frames.sizes, "d"),
        "atoms in all": _composition(frames),
        "in vacuum": f"{alone.sum()} frames" if alone.any() else "",
        "periodic in part": _part_periodic(frames),
        **(_box_rows(periodic) if len(periodic) else {}),
        **_label_rows(frames),
        "units of the file": ", ".join(frames.origin.get("units", {}).values()),
        "columns of the file": ", ".join(frames.origin.get("columns", [])),
        "labels": ", ".join(frames.origin.get("labels", [])),
        "repeated frames": str(copies(frames)),
        "test parts": _test_parts(frames),
        "nearest contacts": _contacts(frames),
    }
    return {name: value for name, value in rows.items() if value} | _distance_rows(frames)


def _test_parts(frames: Frames) -> str:
    """How many different groups of frames the first seeds test on; empty if each has its own."""
    groups = len(np.unique(units_of(frames, "trajectory")))
    if not SEEDS / 2 <= groups <= MOST_GROUPS:
        return ""
    parts = {held_out_units(groups, Split(), seed) for seed in range(SEEDS)}
    if len(parts) == SEEDS:
        return ""
    return (
        f"seeds 0 to {SEEDS - 1} draw {len(parts)} different ones of {groups} groups; "
        f"`split.folds: {groups}` gives seeds 0 to {groups - 1} parts of their own"
    )


def _part_periodic(frames: Frames) -> str:
    """How many frames repeat along one or two vectors, which are slabs and wires."""
    kinds, counts = np.unique(frames.pbc, axis=0, return_counts=True)
    named = {" ".join("FT"[along] for along in kind.astype(int)): kind.sum() for kind in kinds}
    found = zip(named.items(), counts, strict=True)
    return ", ".join(f"{count} frames {name}" for (name, along), count in found if 0 < along < 3)


def _box_rows(frames: Frames) -> dict[str, str]:
    edges = np.linalg.norm(frames.cells, axis=2)
    return {
        "box edges": f"{_span(edges, '.4f')} Å",
        "box angles": f"{_span(_angles(frames.cells), '.2f')}°",
        "density": _density(frames),
    }


def _label_rows(frames: Frames) -> dict[str, str]:
    """What the frames are labelled with, each in its unit."""
    counts = {name: int(frames.labelled(name).sum()) for name in frames.labels}
    labels = [partly(name, counts[name], len(frames)) for name in counts]
    rows = {"labelled with": ", ".join(labels) or "nothing"}
    if "energy" in frames.labels:
        there = frames.labelled("energy")
        per_atom = frames.energies[there] / frames.sizes[there]
        rows["energy"] = f"{per_atom.mean():.5f} eV/atom, deviation {per_atom.std():.5f}"
        elements, left = fitted_elements(frames, frames.energies)
        named = [f"{SYMBOLS[number - 1]} {value:.3f}" for number, value in elements.items()]
        rows["energy of elements"] = f"{', '.join(named)} eV, fitted; {left:.4f} eV/frame is left"
    if "forces" in frames.labels:
        norms = np.linalg.norm(frames.forces, axis=1)
        rows["force component"] = f"{force_size(frames):.4f} eV/Å root mean square"
        rows["largest force"] = f"{np.nanmax(norms):.3f} eV/Å"
    if frames.stresses is not None:
        stresses = frames.stresses[frames.labelled("stress")]
        pressure = -np.trace(stresses, axis1=1, axis2=2) / 3 / GIGAPASCAL
        rows["stress component"] = f"{rms(stresses):.5f} eV/Å³ root mean square"
        rows["pressure"] = f"{_span(pressure, '.3f')} GPa"
    for name, values in frames.properties.items():
        known = values[np.isfinite(values)]
        if len(known):
            some = "" if len(known) == len(values) else f", known of {len(known)} frames"
            spread = f"mean {known.mean():.5g}, deviation {known.std():.5g}"
            rows[name] = f"{_span(known, '.5g')} {PROPERTIES[name].unit}, {spread}{some}"
    return rows


def fitted_elements(frames: Frames, values: NDArray[np.float64]) -> tuple[dict[int, float], float]:
    """Value of each element by least squares, and the root mean square of what is left."""
    kinds, whole = element_counts(frames)
    counts = whole.astype(np.float64)
    known = np.isfinite(values)
    mean = (values[known] / frames.sizes[known]).mean()
    # The nearest to the mean per atom, where frames cannot tell elements apart.
    off = np.linalg.lstsq(counts[known], values[known] - mean * frames.sizes[known])[0]
    left = values[known] - counts[known] @ (mean + off)
    found = {int(number): float(mean + value) for number, value in zip(kinds, off, strict=True)}
    return found, float(np.sqrt(np.mean(left**2)))


def copies(frames: Frames) -> int:
    """Frames that repeat an earlier one."""
    return int((units_of(frames, "frame") != np.arange(len(frames))).sum())


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
    first, second, lengths = search(frames.positions[atoms], frames.lattices[index], REACH, "ijd")
    return first, second, lengths


def force_size(frames: Frames) -> float:
    """Root mean square per component of the forces that are there, eV/Å; NaN if none is."""
    squares, count = 0.0, 0
    for some in np.array_split(frames.forces, 1 + len(frames.forces) // AT_ONCE):
        known = some[~np.isnan(some)]
        squares, count = squares + float(np.sum(known**2)), count + len(known)
    return float(np.sqrt(squares / count)) if count else float("nan")


def rms(values: NDArray[np.float64]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))


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
    """Rows that only sets of water have."""
    if not sizes_of(frames).waters:
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
