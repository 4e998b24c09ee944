"""Labels and group of one of ASE's structures, whatever names and units they have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.core.quantities.properties import PROPERTIES
from study.datasets.parsing.arrays import real
from study.datasets.parsing.declared_units import Kind, declared, unit_of
from study.datasets.parsing.label_names import (
    Label,
    chosen,
    is_label,
    sign_of,
    sign_remarks,
)
from study.datasets.parsing.stress import NO_CELL, is_stress, may_be_stress, stress_names, stresses
from study.datasets.readers.atoms.comments import PASSED, UNREAD
from study.datasets.readers.atoms.extxyz import UNNAMED
from study.datasets.reading import PER_ATOM, Factors, Reading, Units

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

GROUP = "group"
"""Key of a frame's info that names its trajectory. `config_type` names a kind of structure."""
DEFAULT = ("Å", "eV", "eV/Å")
NO_ENERGIES = (UNNAMED, UNREAD, PASSED, GROUP, *PROPERTIES)
NO_STRESS = re.compile("cell|latt|box|pol|rot|matrix", re.IGNORECASE)
"""In names of six or nine numbers that are something else, such as a polarizability."""
COMPONENTS = ("fx", "fy", "fz")
"""Forces, a column for each component."""
NO_LABELS: tuple[str, ...] = (
    "positions",
    "numbers",
    "momenta",
    "velocities",
    "velo",
    "vel",
    "masses",
    "tags",
)
NO_LABELS += ("initial_magmoms", "initial_charges", "magmoms", "dipole", "charges")


@dataclass(frozen=True)
class Labelled:
    """A frame in eV and Å.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        cell: (3, 3) Å, as the file has it.
        pbc: (3,) along which vectors it repeats.
        energy: eV, or NaN.
        forces: (N, 3) eV/Å, or NaN.
        stress: (3, 3) eV/Å³, or NaN.
        group: name of its trajectory, or nothing.
        names: of the columns that its labels have in the file.
        factors: from the units of the file.
        properties: numbers that are named as in `PROPERTIES`.
        others: columns of the right shape that are no labels by their name.
        remarks: on what the user has set.
    """

    numbers: NDArray[Any]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    energy: float
    forces: Array
    stress: Array
    group: str
    names: dict[str, str | None]
    factors: Factors
    properties: dict[str, float]
    others: dict[str, list[str]]
    remarks: tuple[str, ...]


def labelled(frame: Atoms, given: Reading) -> Labelled:
    """Find the labels of a frame, and convert it.

    Raises:
        ValueError: naming the label that is none.
    """
    scalars, vectors, tensors = _scalars(frame), _vectors(frame), _tensors(frame)
    energy = chosen(scalars, "energy", given.labels.energy)
    forces = chosen(vectors, "forces", given.labels.forces)
    told = given.units != Units()
    strained = next(iter(stress_names(tensors, given)), None)
    # The unit of a virial is that of an energy.
    pressed = None if given.labels.virial or is_label(strained or "", "virial") else strained
    names: dict[Kind, str | None] = {"energy": energy, "forces": forces, "stress": pressed}
    factors = given.factors(DEFAULT, **declared(_said(frame), names, told=told))
    remarks = (*factors.remarks, *sign_remarks(forces), *_left_out(frame))
    if not frame.pbc.all():
        remarks, tensors = (*remarks, NO_CELL) if strained else remarks, {}
    return Labelled(
        frame.numbers,
        factors.length * frame.positions,
        factors.length * frame.cell.array,
        frame.pbc,
        factors.energy * _energy(scalars, energy),
        sign_of(forces) * factors.force * _forces(vectors, forces, len(frame)),
        _stress(frame, tensors, given, factors),
        _group(_info(frame)),
        {"energy": energy, "forces": forces, "stress": strained},
        factors,
        _properties(_info(frame)),
        {
            "energy": _others(scalars, "energy"),
            "forces": _others(vectors, "forces"),
            "stress": [name for name in tensors if _may_mean_stress(name, frame)],
        },
        remarks,
    )


def _left_out(frame: Atoms) -> Iterator[str]:
    """What of a frame is not read, in words."""
    if spare := frame.info.get(UNNAMED):
        yield f"{spare} columns of the atoms have no name in `Properties` and are left out"
    if unread := frame.info.get(UNREAD):
        yield f"comments such as {unread!r} are not read, because they have no `key=value`"
    if passed := frame.info.get(PASSED):
        yield passed


def columns(frame: Atoms) -> set[str]:
    """Names of all numbers of a frame, of its matrices, and of all vectors of its atoms."""
    return set(_scalars(frame)) | set(_tensors(frame)) | set(_vectors(frame))


def _energy(scalars: Mapping[str, Any], name: str | None) -> float:
    if name is None:
        return float("nan")
    value = np.asarray(scalars[name])
    if value.dtype.kind not in "iuf" or value.size != 1:
        raise ValueError(f"`{name}` must be a number, but is {str(scalars[name])[:40]!r}")
    if not np.isfinite(value).all():
        number = float(value.reshape(-1)[0])
        raise ValueError(f"must have finite numbers as `{name}`, but has {number}")
    return float(value.reshape(-1)[0])


def _forces(vectors: Mapping[str, Any], name: str | None, atoms: int) -> Array:
    if name is None:
        return np.full((atoms, 3), np.nan)
    forces = real(vectors[name], name)
    if forces.shape != (atoms, 3):
        raise ValueError(f"must have `{name}` of shape {(atoms, 3)}, but got {forces.shape}")
    if not np.isfinite(forces).all():
        strange = forces[~np.isfinite(forces)][0]
        raise ValueError(f"must have finite numbers as `{name}`, but has {strange}")
    return forces


def _stress(frame: Atoms, tensors: Mapping[str, Any], given: Reading, factors: Factors) -> Array:
    cells = factors.length * frame.cell.array[None]
    units = {name: unit for name in tensors if (unit := unit_of(_said(frame), name))}
    found = stresses(tensors, cells, given, factors, units)
    return np.full((3, 3), np.nan) if found is None else found[0]


def _said(frame: Atoms) -> dict[str, Any]:
    """What is written beside a frame, the data of a database's row included."""
    data = frame.info.get("data")
    return (data if isinstance(data, dict) else {}) | _info(frame)


def _sources(frame: Atoms) -> list[Mapping[str, Any]]:
    """Where ASE keeps what a file says of a frame, the calculator's results first."""
    results: dict[str, Any] = frame.calc.results if frame.calc else {}
    data = frame.info.get("data")
    return [
        {name: value for name, value in results.items() if value is not None},
        frame.info,
        frame.info.get("key_value_pairs", {}),
        data if isinstance(data, dict) else {},
    ]


def _scalars(frame: Atoms) -> dict[str, Any]:
    """What may be an energy: single numbers, and whatever has the name of one."""
    found: dict[str, Any] = {}
    for number, source in enumerate(_sources(frame)):
        for name, value in source.items():
            single = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            single |= isinstance(value, np.ndarray) and value.shape in ((), (1,))
            # Energies of atoms are results of calculators too, and have other names.
            text = isinstance(name, str) and is_label(name, "energy") and number < 3
            if isinstance(name, str) and (single or text):
                found.setdefault(name, value)
    return found


def _tensors(frame: Atoms) -> dict[str, Any]:
    """What may be a stress or a virial of the whole frame."""
    found: dict[str, Any] = {}
    for number, source in enumerate(_sources(frame)):
        for name, value in source.items():
            # A calculator's `stresses` are those of atoms.
            of_atoms = number == 0 and name == "stresses"
            if isinstance(name, str) and may_be_stress(name, value) and not of_atoms:
                found.setdefault(name, value)
    return found


def _vectors(frame: Atoms) -> dict[str, Any]:
    """What may be forces: arrays with a row for each atom, and whatever has the name of such."""
    found: dict[str, Any] = {}
    for source in (*_sources(frame), frame.arrays):
        for name, value in source.items():
            if not isinstance(name, str) or name in NO_LABELS or is_stress(name):
                continue
            shape = np.shape(value) if isinstance(value, np.ndarray | list) else ()
            if shape == (len(frame), 3) or (
                len(shape) > 0 and is_label(name, "forces") and name.lower() != "f"
            ):
                found.setdefault(name, value)
    if set(COMPONENTS) <= frame.arrays.keys():
        found.setdefault("forces", np.stack([frame.arrays[name] for name in COMPONENTS], axis=1))
    return found


def _others(values: Mapping[str, Any], label: Label) -> list[str]:
    """Names that may mean a label, the likeliest first."""
    hint = "en" if label == "energy" else "f"
    names = (
        name
        for name, value in values.items()
        if not is_label(name, label)
        and name not in NO_ENERGIES
        and not PER_ATOM.search(name)
        and (hint in name.lower() or not _counts(value))
    )
    return sorted(names, key=lambda name: (hint not in name.lower(), name))


def _may_mean_stress(name: str, frame: Atoms) -> bool:
    """Whether six or nine numbers are no forces, and no result of a calculator by ASE's name."""
    return name in _info(frame) and not NO_STRESS.search(name) and not is_label(name, "forces")


def _counts(value: Any) -> bool:
    """Whether it is a whole number from 0, such as that of a step."""
    return isinstance(value, int | np.integer) and bool(value >= 0)


def _info(frame: Atoms) -> dict[str, Any]:
    """What is written beside a frame, in its info or as key-value pairs of a database."""
    pairs: dict[str, Any] = frame.info.get("key_value_pairs", {})
    return frame.info | pairs


def _group(info: Mapping[str, Any]) -> str:
    """Name of the frame's trajectory; empty when the file does not tell."""
    name = next((key for key in info if str(key).lower() == GROUP), None)
    return f"{GROUP}={info[name]}" if name else ""


def _properties(info: Mapping[str, Any]) -> dict[str, float]:
    """Numbers that are named as in `PROPERTIES`."""
    return {
        name: float(info[name])
        for name in PROPERTIES
        if isinstance(info.get(name), int | float | np.number)
    }
