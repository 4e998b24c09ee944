"""What looks wrong with a data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from study.core.quantities.elements import SYMBOLS
from study.core.quantities.properties import PROPERTIES
from study.core.quantities.units import GIGAPASCAL, HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from study.datasets.frames import Frames
from study.datasets.inspection import copies, fitted_elements, force_size, rms
from study.datasets.splits import element_counts, units_of
from study.datasets.validation import TOO_CLOSE, Contacts

USUAL_FORCES = (0.05, 5.0)
"""eV/Å, root mean square per component of thermal structures; other units fall outside."""
USUAL_STRESSES = 0.6
"""eV/Å³, the largest root mean square per component; stresses in GPa or kbar are beyond."""
BOHR_CONTACT = 1.3
"""Å; every bond of hydrogen is shorter, and longer than this if it is in Bohr."""
SMALL_MOVE = 0.1
"""Å per component; over moves of that size forces hardly change."""
AT_ONCE = 10_000
"""Frames that are compared with the ones before them."""
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
ORBITALS = 1.0
"""eV; orbital energies and gaps of most molecules are larger, and smaller in Hartree."""
TOTALS = ("u0", "u298", "h298", "g298")
"""Properties that are total energies."""
ATOMS = {1: -13.6, 6: -1029.9, 7: -1485.3, 8: -2042.6, 9: -2713.5}
"""eV, total energies of atoms with all their electrons (B3LYP, doi:10.1038/sdata.2014.22)."""
ONE_GROUP = "all frames are one group"
"""How a warning begins that says nothing to who splits by frame."""


def warnings(frames: Frames, contacts: Contacts | None = None) -> list[str]:
    """What looks wrong, one line each.

    Args:
        frames: all.
        contacts: theirs, if they are known.
    """
    found, (low, high), size = [], USUAL_FORCES, force_size(frames)
    if "forces" in frames.labels and not low < size < high:
        found.append(
            f"the root mean square force component is {size:.3g} eV/Å, outside {low} to {high}: "
            "are forces and positions in eV/Å and Å?"
        )
    found += _strange_stresses(frames)
    if repeated := copies(frames):
        found.append(
            f"{repeated} frames repeat an earlier one; a split keeps equal frames together"
        )
    shortest, close, first, distance = contacts or Contacts.of(frames)
    if close:
        found.append(
            f"{close} frames have atoms closer than {TOO_CLOSE} Å; frame {first} (from 0): "
            f"{distance:.3f} Å" + ("; are positions in nm?" if close == len(frames) else "")
        )
    if 1 in frames.numbers and shortest > BOHR_CONTACT:
        found.append(
            f"no atom is nearer than {BOHR_CONTACT} Å to another, though there is hydrogen, whose "
            "bonds have about 1 Å: are positions in Bohr?"
        )
    if {"energy", "forces"} <= set(frames.labels):
        found += _mismatched_labels(frames)
    found += _no_energies(frames)
    found += _strange_properties(frames)
    found += _lonely_elements(frames)
    if len(np.unique(frames.groups)) == 1 < len(frames):
        found.append(f"{ONE_GROUP}: only {_ways_to_divide(frames)} can divide them")
    return found


def _strange_stresses(frames: Frames) -> list[str]:
    """Stresses in a unit other than eV/Å³."""
    if frames.stresses is None:
        return []
    size = rms(frames.stresses[frames.labelled("stress")])
    if size <= USUAL_STRESSES:
        return []
    return [
        f"the root mean square stress component is {size:.3g} eV/Å³, or "
        f"{size / GIGAPASCAL:.3g} GPa, above {USUAL_STRESSES} eV/Å³: are stresses in eV/Å³, and "
        "virials in the unit of energies?"
    ]


def _no_energies(frames: Frames) -> list[str]:
    """Zeros in the place of energies that are not known."""
    zeros = int((frames.energies == 0).sum())
    if not zeros or len(frames) == 1:
        return []
    return [f"the energy of {zeros} frames is exactly 0: leave it out where it is not known"]


def _ways_to_divide(frames: Frames) -> str:
    """Splits of frames that are one group."""
    if "part" in frames.properties:
        return "`split: {by: published}`"
    several = len(np.unique(units_of(frames, "composition"))) > 2
    return "`split: {by: frame}`" + " or `{by: composition}`" * several


def split_warnings(frames: Frames, parts: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """What is odd about the parts of a split, one line each.

    Args:
        frames: all.
        parts: frame numbers of train, validation and test.
    """
    owner = np.repeat(np.arange(len(frames)), frames.sizes)
    kinds = {
        name: {int(z) for z in np.unique(frames.numbers[np.isin(owner, part)])}
        for name, part in parts.items()
    }
    sizes = {name: frames.sizes[part] for name, part in parts.items()}
    found, train = [], parts["train"]
    for name in ("validation", "test"):
        if unseen := sorted(kinds[name] - kinds["train"]):
            symbols = ", ".join(SYMBOLS[z - 1] for z in unseen)
            found.append(f"{symbols} in the {name} part, but not in the training part")
    if len(train) < len(frames) - len(train):
        counts = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        found.append(f"fewer frames train than are held out: {counts}; split by frame, or smaller")
    if sizes["train"].max() == 1 < frames.sizes.max():
        found.append("the training part has nothing but lone atoms: models learn no forces there")
    others = np.concatenate([sizes["validation"], sizes["test"]])
    if others.min() > sizes["train"].max() or others.max() < sizes["train"].min():
        found.append(
            f"frames that train have {_range(sizes['train'])} atoms, those held out "
            f"{_range(others)}"
        )
    for label in ("energy", "forces", "stress"):
        known = frames.labelled(label)
        lacking = [name for name, part in parts.items() if not known[part].any()]
        if label in frames.labels and lacking:
            found.append(f"no frame of the {' and '.join(lacking)} part has {label}")
    return found


def _range(sizes: NDArray[np.int64]) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return str(low) if low == high else f"{low} to {high}"


def _lonely_elements(frames: Frames) -> list[str]:
    """Elements that a split may test on without having trained on them."""
    elements, counts = element_counts(frames)
    homes = {
        int(z): np.unique(frames.groups[count > 0])
        for z, count in zip(elements, counts.T, strict=True)
    }
    if len(np.unique(frames.groups)) == 1:
        return []
    return [
        f"{SYMBOLS[z - 1]} is in one group alone: where that is tested, no model has learned it; "
        "leave it out, or split by frame"
        for z, home in homes.items()
        if len(home) == 1
    ]


def _strange_properties(frames: Frames) -> list[str]:
    """Charges and spins that no model sees, and units other than those that are meant."""
    found = []
    usual = {"charge": 0.0, "multiplicity": 1.0}
    for name in usual.keys() & frames.properties.keys():
        values = frames.properties[name]
        if strange := int((np.isfinite(values) & (values != usual[name])).sum()):
            found.append(
                f"{strange} frames have a {PROPERTIES[name].meaning} other than {usual[name]:g}: "
                "the models here do not see it, and cannot tell such frames apart by it"
            )
    for name in ("homo", "gap"):
        values = frames.properties.get(name, np.empty(0))
        if len(values) and np.nanmedian(np.abs(values)) < ORBITALS:
            found.append(
                f"half of `{name}` is below {ORBITALS} eV, which is rare in molecules: is it in "
                "Hartree?"
            )
    totals = {"energy": frames.energies} | {
        name: frames.properties[name] for name in TOTALS if name in frames.properties
    }
    for name, values in totals.items():
        if name in frames.labels and (unit := _unit_of_totals(frames, values)):
            found.append(f"`{name}` looks like a total energy in {unit}, not in eV")
    return found


def _unit_of_totals(frames: Frames, values: NDArray[np.float64]) -> str:
    """The unit in which elements have their usual total energies, if that is not eV; or empty."""
    fitted, _ = fitted_elements(frames, values)
    shared = sorted(fitted.keys() & ATOMS.keys())
    if len(shared) < 2 or len(shared) < len(fitted):
        return ""
    here, usual = np.array([[fitted[z], ATOMS[z]] for z in shared]).T
    if not here.any():
        return ""
    alike = here @ usual / np.sqrt((here @ here) * (usual @ usual))
    factor = here @ usual / (usual @ usual)
    units = {"Hartree": 1 / HARTREE, "kcal/mol": 1 / KCAL_PER_MOL, "kJ/mol": 1 / KJ_PER_MOL}
    return next(
        (unit for unit, size in units.items() if alike > 0.99 and abs(factor / size - 1) < 0.1), ""
    )


def _mismatched_labels(frames: Frames) -> list[str]:
    """Where a frame follows closely on another, its energy must fall by the work of the forces."""
    labelled, sizes = frames.labelled("energy") & frames.labelled("forces"), frames.sizes
    later = 1 + np.flatnonzero(labelled[1:] & labelled[:-1] & (sizes[1:] == sizes[:-1]))
    moves = [np.empty((2, 0))]
    for size in np.unique(sizes[later]):
        alike = later[sizes[later] == size]
        moves += [_moves(frames, some) for some in np.array_split(alike, 1 + len(alike) // AT_ONCE)]
    work, change = np.concatenate(moves, axis=1)
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


def _moves(frames: Frames, later: NDArray[np.int64]) -> NDArray[np.float64]:
    """(2, M) eV, work of the forces and change of energy wherever a frame follows closely.

    Args:
        frames: all.
        later: (F,) frames with as many atoms as the one before each, the same number in all.
    """
    places = np.arange(frames.sizes[later[0]])
    before, after = (frames.offsets[each][:, np.newaxis] + places for each in (later - 1, later))
    same = (frames.numbers[before] == frames.numbers[after]).all(axis=1)
    same &= np.isclose(frames.lattices[later - 1], frames.lattices[later]).all(axis=(1, 2))
    later, before, after = later[same], before[same], after[same]
    move = frames.positions[after] - frames.positions[before]
    repeats = frames.pbc[later].any(axis=1)
    lattice = frames.lattices[later[repeats]]
    move[repeats] -= np.round(move[repeats] @ np.linalg.pinv(lattice)) @ lattice
    mean_force = (frames.forces[before] + frames.forces[after]) / 2
    work = np.einsum("fni,fni->f", mean_force, move)
    fall = frames.energies[later] - frames.energies[later - 1]
    size = np.sqrt(np.mean(move**2, axis=(1, 2)))
    near = (size > 0) & (size < SMALL_MOVE) & np.isfinite(work + fall)
    return np.stack([work, fall])[:, near]
