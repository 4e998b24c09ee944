"""Frames from MD17 (arXiv:1611.04678), rMD17, MD22 (arXiv:2209.14865), sGDML and PhysNet.

A file is one molecule and one trajectory, and so one group. In npz files MD17, MD22 and sGDML name
their arrays z, R, E, F, rMD17 nuclear_charges, coords, energies, forces; all are in Å, kcal/mol and
kcal/mol/Å unless `r_unit` and `e_unit` tell others. `lattice` has the vectors of the cell as its
columns (sgdml.org/doc). PhysNet (arXiv:1902.08408) pads its arrays N, Z, R, E, F of many molecules,
in Å and eV; each composition is a group. MD22 also comes as extxyz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.arrays import Array, checked_numbers, finite, opened_npz, real
from study.datasets.parsing.declared_units import declared, unit_of
from study.datasets.parsing.folders import files_in
from study.datasets.parsing.guard import guarded
from study.datasets.parsing.label_names import chosen, sign_of, sign_remarks
from study.datasets.parsing.stress import may_be_stress, stress_names, stresses
from study.datasets.readers import ase_file
from study.datasets.readers.conformers import Conformers, joined
from study.datasets.reading import PLAIN, Factors, Labels, Reading, Units

NUMBERS = ("z", "Z", "nuclear_charges", "atomic_numbers", "numbers", "species")
POSITIONS = ("R", "coords", "coordinates", "positions", "pos")
PUBLISHED = ("R", "coords")
"""Those of MD17, MD22, sGDML and PhysNet, and of rMD17."""
CELLS = ("lattice", "cell", "cells", "box", "unit_cell", "Lattice")
DEFAULT = ("Å", "kcal/mol", "kcal/mol/Å")
NO_STRESS = "stress of frames without a cell, or of several compositions, left out"
ENERGY_UNITS = ("energy-unit", "energy_unit", "energy-units", "energy_units")
PHYSNET = {"N", "Z", "R"}
PHYSNET_UNITS = ("Å", "eV", "eV/Å")


def read(path: Path, given: Reading = PLAIN) -> Frames:
    """All frames of a file, or of all npz files of a folder, or of its *.xyz if it has no npz.

    Raises:
        UserError: one line that names file and rule.
    """
    files = [path]
    if path.is_dir():
        files = [file for file in files_in(path) if file.suffix == ".npz"]
        files = files or [file for file in files_in(path) if file.match("md22_*.xyz")]
    if files and files[0].suffix == ".xyz":
        return _read_xyz(files, path, given)
    parts: list[Conformers] = []
    remarks: dict[str, None] = {}
    units: dict[str, str] = {}
    for file in files:
        with guarded(file), opened_npz(file) as arrays:
            made, units, said = _read(arrays, given)
            parts += made
            remarks |= dict.fromkeys(said)
    frames = joined(parts, path)
    return replace(frames, origin=frames.origin | {"units": units, "labels": list(remarks)})


def holds_molecules(path: Path) -> bool:
    """Whether it is such a file, or a folder of them."""
    if path.is_dir():
        return any(map(holds_molecules, files_in(path)))
    return path.suffix == ".npz" or (path.name.startswith("md22_") and path.suffix == ".xyz")


def _read_xyz(files: list[Path], path: Path, given: Reading) -> Frames:
    """MD22's extxyz, whose numbers are in kcal/mol where neither file nor user tells a unit."""
    units = Units(**{"energy": "kcal/mol", **given.units.model_dump(exclude_none=True)})
    atoms = []
    for file in files:
        for frame in ase_file.checked(file, given):
            frame.info["group"] = f"file {file.name}"
            atoms.append(frame)
    if not atoms:
        raise UserError(f"{path}: must hold a frame, but holds none")
    told = any(str(key).lower() in ENERGY_UNITS for key in atoms[0].info)
    return ase_file.joined(atoms, path, given if told else replace(given, units=units))


def _read(
    arrays: Mapping[str, Any], given: Reading
) -> tuple[list[Conformers], dict[str, str], tuple[str, ...]]:
    """The conformers of a file, the units of its numbers, and what to say of them."""
    names = list(arrays)
    padded = set(names) >= PHYSNET and arrays["Z"].ndim == 2
    numbers = "Z" if padded else _first(NUMBERS, names, "atomic numbers")
    kinds = arrays[numbers]
    place = _first(POSITIONS, names, "positions")
    positions = real(arrays[place], place)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ValueError(f"`{place}` must have shape (frames, atoms, 3), but got {positions.shape}")
    texts = _texts(arrays)
    told = given.units != Units()
    units = declared(
        texts, {"energy": given.labels.energy, "forces": given.labels.forces}, told=told
    )
    if place not in PUBLISHED and not units.get("energy") and not told:
        raise ValueError(
            f"must tell its units, because `{place}` is of no published format; say them with "
            "`units: {energy: …, length: …}`, or write an array `e_unit`"
        )
    factors = given.factors(PHYSNET_UNITS if padded else DEFAULT, **units)
    energies, forces, remarks = _labels(arrays, positions.shape, given.labels)
    whole = (
        factors.length * positions,
        factors.energy * energies,
        factors.force * forces,
    )
    cells = _cells(arrays, len(positions))
    scaled = None if cells is None else factors.length * cells
    if kinds.ndim == 2:
        counts = arrays["N"] if padded else (kinds != 0).sum(axis=1)
        parts = _unpadded(kinds, counts, *whole, scaled)
    else:
        parts = [Conformers(checked_numbers(kinds), *whole, cells=scaled)]
    parts, said = _with_stresses(parts, arrays, given, factors)
    return parts, factors.names, (*factors.remarks, *remarks, *said)


def _with_stresses(
    parts: list[Conformers], arrays: Mapping[str, Any], given: Reading, factors: Factors
) -> tuple[list[Conformers], tuple[str, ...]]:
    """The conformers with the stresses that the file has, and what to say of these."""
    asked = given.labels.stress or given.labels.virial
    # Stresses of files with molecules of several compositions are not told apart.
    cells = parts[0].cells if len(parts) == 1 else None
    frames = sum(len(part.energies) for part in parts)
    # What is not asked for is not loaded.
    values = {name: arrays[name] for name in stress_names(dict.fromkeys(arrays), given)}
    values = {name: value for name, value in values.items() if may_be_stress(name, value, frames)}
    if asked and (cells is None or not values):
        raise ValueError(
            f"`labels.{'stress' if given.labels.stress else 'virial'}` must name an array with 6 "
            f"or 9 numbers for each of {frames} frames of one composition in a cell, but got "
            f"{asked!r}"
        )
    if not values or cells is None:
        return parts, (NO_STRESS,) if values else ()
    units = {name: unit for name in values if (unit := unit_of(_texts(arrays), name))}
    found = stresses(values, cells, given, factors, units)
    return [replace(parts[0], stresses=found)], ()


def _texts(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The words among some arrays."""
    return {name: arrays[name] for name in arrays if arrays[name].dtype.kind in "US"}


def _labels(
    arrays: Mapping[str, Any], shape: tuple[int, ...], labels: Labels
) -> tuple[Array, Array, tuple[str, ...]]:
    """Energies (F,) and forces (F, N, 3), NaN where the file has none."""
    frames, remarks = shape[0], []
    values = {name: arrays[name] for name in arrays}
    scalars = {name: value for name, value in values.items() if value.size == frames}
    scalars |= {name: values[name] for name in ("E", "energies", "energy") if name in values}
    energies = {name: value for name, value in scalars.items() if name != "energies_std"}
    energy = _named(energies, "energy", labels.energy, {"energies": "energy"})
    vectors = {
        name: value
        for name, value in values.items()
        if value.shape == shape or name in ("F", "forces")
    }
    vectors = {name: value for name, value in vectors.items() if name not in POSITIONS}
    force = _named(vectors, "forces", labels.forces, {})
    for label, asked, name in (
        ("energy", labels.energy, energy),
        ("forces", labels.forces, force),
    ):
        if asked and not name:
            raise ValueError(f"`labels.{label}` must name an array, one of {', '.join(values)}")
        if not name:
            remarks.append(f"no {label} among the arrays {', '.join(values)}")
    found = np.full(frames, np.nan)
    if energy:
        found = real(values[energy], energy).reshape(-1)
        if len(found) != frames:
            raise ValueError(f"`{energy}` must have {frames} numbers, but has {len(found)}")
        finite(found, energy, frames)
    pushes = np.full(shape, np.nan)
    if force:
        remarks += sign_remarks(force)
        pushes = sign_of(force) * real(values[force], force)
        if pushes.shape != shape:
            raise ValueError(f"`{force}` must have shape {shape}, but got {pushes.shape}")
        finite(pushes, force, frames)
    return found, pushes, tuple(remarks)


def _named(
    values: dict[str, Any], label: Any, asked: str | None, also: dict[str, str]
) -> str | None:
    """The array that is a label; names in the plural count, too."""
    if asked:
        return asked if asked in values else None
    known = {also.get(name.lower(), name): name for name in values}
    name = chosen({key: values[mine] for key, mine in known.items()}, label, None)
    return known[name] if name else None


def _first(known: tuple[str, ...], names: list[str], what: str) -> str:
    """The name of an array that a file cannot do without."""
    found = next((name for name in known if name in names), None)
    if found is None:
        raise ValueError(
            f"must hold {what} as {' or '.join(known)}, but holds {' '.join(names) or 'nothing'}"
        )
    return found


def _cells(arrays: Mapping[str, Any], frames: int) -> Array | None:
    """(F, 3, 3), rows are lattice vectors, as sGDML's columns are; none without a lattice."""
    name = next((name for name in CELLS if name in arrays), None)
    if name is None:
        return None
    values = real(arrays[name], name)
    if values.shape not in ((3, 3), (frames, 3, 3)):
        raise ValueError(f"`{name}` must have shape (3, 3), but got {values.shape}")
    if "pbc" in arrays and not np.all(arrays["pbc"]):
        raise ValueError("`pbc` must be true along all vectors of a cell; write it as extxyz")
    rows = np.swapaxes(values, -1, -2) if name.lower() == "lattice" else values
    return np.array(np.broadcast_to(rows, (frames, 3, 3)))


def _unpadded(
    numbers: NDArray[Any],
    counts: NDArray[Any],
    positions: Array,
    energies: Array,
    forces: Array,
    cells: Array | None,
) -> list[Conformers]:
    """Molecules of different size without what fills them up, one group for each composition."""
    if counts.shape != (len(positions),) or numbers.shape != positions.shape[:2]:
        raise ValueError("N, Z and R must have a row for each molecule")
    filled = np.arange(numbers.shape[1]) < counts[:, None]
    wrong = (filled != (numbers != 0)).any(axis=1) | (counts != filled.sum(axis=1))
    if wrong.any():
        raise ValueError(
            f"molecule {int(wrong.argmax())} (from 0) must have as many atomic numbers above 0 as "
            f"`N` says, {counts[wrong.argmax()]}, and zeros behind them"
        )
    kinds: dict[bytes, list[int]] = {}
    for index, count in enumerate(counts.tolist()):
        kinds.setdefault(numbers[index, : int(count)].tobytes(), []).append(index)
    parts = []
    for places in kinds.values():
        count = int(counts[places[0]])
        parts.append(
            Conformers(
                checked_numbers(numbers[places[0], :count]),
                positions[places, :count],
                energies[places],
                forces[places, :count],
                cells=None if cells is None else cells[places],
            )
        )
    return parts
