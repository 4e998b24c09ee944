"""Frames from ANI-1, ANI-1x and SPICE: HDF5 files with arrays for each formula or molecule.

ANI-1 (doi:10.1038/sdata.2017.193) has Å and Hartree, and symbols of elements as ASCII byte strings,
each molecule in a group of a group, as its authors' `pyanitools.py` reads them
(github.com/isayev/ANI1_dataset); its conformers of high energy, `coordinatesHE`, are left out.
Later files of that kind, such as ANI-2x, have atomic numbers for each conformer, and forces.
ANI-1x (doi:10.1038/s41597-020-0473-z) has Å, Hartree and Hartree/Å, and NaN where a conformer was
not computed. SPICE (arXiv:2209.10702) has Bohr, Hartree and gradients in Hartree/Bohr; the charge
of a molecule is that in its SMILES. Where arrays have an attribute `units`, that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.arrays import real
from study.datasets.parsing.declared_units import declared, text_of
from study.datasets.parsing.folders import files_in
from study.datasets.parsing.guard import guarded
from study.datasets.parsing.hdf5_groups import (
    groups_of,
    opened_hdf5,
    require_storage,
    require_unpacked,
    unpacked_size,
)
from study.datasets.parsing.label_names import chosen, is_label, sign_of, sign_remarks
from study.datasets.readers.conformers import Conformers, joined
from study.datasets.readers.hdf5_layouts import (
    ANI1,
    ANI1X,
    LAYOUTS,
    SPICE,
    Layout,
    cell_of,
    charge_of,
    numbers_of,
)
from study.datasets.reading import PLAIN, Divisible, Reading, Units

SUFFIXES = (".h5", ".hdf5", ".hdf")
PIECE_BYTES = 24_000_000
"""Of the arrays of a piece, which take some four times as much while frames are made of them."""


def read(layout: Layout, path: Path, given: Reading = PLAIN) -> Frames:
    """All conformers that have their labels.

    Raises:
        UserError: one line that names file, group and rule.
    """
    if given.labels.stress or given.labels.virial:
        raise UserError(
            f"{path}: frames of this format have no cell, so they have no stress; leave out "
            "`labels.stress` and `labels.virial`"
        )
    remarks: dict[str, None] = {}
    groups = chain.from_iterable(map(_groups, files_of(path)))
    frames = joined(_conformers(layout, groups, given, remarks), path)
    frames.origin["labels"] = list(remarks)
    return frames


def _groups(path: Path) -> Iterator[tuple[str, Any]]:
    """The groups of a file, each after words for it."""
    with guarded(path), opened_hdf5(path) as file:
        require_storage(file, path)
        for name, group in groups_of(file):
            yield f"{path}: group {name}", group


def _conformers(
    layout: Layout, groups: Iterable[tuple[str, Any]], given: Reading, remarks: dict[str, None]
) -> Iterator[Conformers]:
    """The conformers of some groups; what to say of them is added."""
    for where, group in groups:
        with guarded(where):
            made, said = _read(layout, group, given)
        remarks |= dict.fromkeys(said)
        yield from made


def divide(path: Path) -> list[tuple[int, list[str]]]:
    """Pieces of a file or folder: number of the file, and names of groups."""
    pieces: list[tuple[int, list[str]]] = []
    for number, each in enumerate(files_of(path)):
        total, bound = 0, 0
        with guarded(each), opened_hdf5(each) as file:
            for name, group in groups_of(file):
                if total >= bound:
                    pieces.append((number, []))
                    bound = total + PIECE_BYTES
                pieces[-1][1].append(name)
                total += unpacked_size(group)
        require_unpacked(total, each)
    return pieces


def read_piece(
    layout: Layout, path: Path, given: Reading, piece: tuple[int, list[str]]
) -> tuple[Frames, list[str]]:
    """The frames of some groups, and names of the sets of conformers that they are."""
    (number, names), remarks = piece, dict[str, None]()
    with opened_hdf5(files_of(path)[number]) as file:
        groups = ((name, file[name]) for name in names)
        parts = list(_conformers(layout, groups, given, remarks))
    frames = joined(parts, path)
    frames.origin["labels"] = list(remarks)
    return frames, [f"{number}/{names[0]}/{place}" for place in range(len(parts))]


def files_of(path: Path) -> list[Path]:
    """The file itself, or those of a folder, as ANI-1 has them."""
    if not path.is_dir():
        return [path]
    return [file for file in files_in(path) if file.suffix in SUFFIXES]


def kind_of(path: Path) -> str:
    """Name of the data set that a file is, by the arrays of its first group.

    Raises:
        UserError: if it is none of them.
    """
    with guarded(path), opened_hdf5(path) as file:
        arrays = next((set(group) for _, group in groups_of(file)), set())
    for name, layout in LAYOUTS.items():
        if layout.names <= arrays and (layout.energies in arrays or layout is not ANI1X):
            return name
    if ANI1X.names <= arrays:
        return "ani1x_hdf5"
    raise UserError(
        f"{path}: must be ANI-1, ANI-1x or SPICE, but its first group has "
        f"{', '.join(sorted(arrays)) or 'nothing'}"
    )


def _read(layout: Layout, group: Any, given: Reading) -> tuple[list[Conformers], tuple[str, ...]]:
    """The conformers of a group, and what to say of them."""
    names = {key for key, part in group.items() if hasattr(part, "shape")}
    energy = _name(group, names, "energy", given.labels.energy, layout.energies)
    force = _name(group, names, "forces", given.labels.forces, layout.forces)
    sign = sign_of(force)
    factors = given.factors(layout.units, **_units(layout, group, names, (energy, force), given))
    positions = factors.length * _values(group, layout.positions)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ValueError(
            f"`{layout.positions}` must have shape (frames, atoms, 3), but got {positions.shape}"
        )
    if cell := cell_of(group):
        raise ValueError(f"has `{cell}`, and sets of this kind have no cells; write it as extxyz")
    frames = len(positions)
    energies = factors.energy * _values(group, energy).reshape(-1) if energy else _none(frames)
    forces = sign * factors.force * _values(group, force) if force else _none(*positions.shape)
    if energies.shape != (frames,) or forces.shape != positions.shape:
        raise ValueError(
            f"must have {frames} energies and forces of shape {positions.shape}, but got "
            f"{energies.shape} and {forces.shape}"
        )
    known = np.ones(frames, dtype=bool)
    known &= _finite(energies) if energy else True
    known &= _finite(forces) if force else True
    remarks = list(factors.remarks)
    remarks += [] if force == layout.forces else sign_remarks(force)
    remarks += [] if energy else [f"no energy among {', '.join(sorted(names))}"]
    others = names - {layout.positions, layout.elements, energy, "smiles"}
    if not force and (layout.forces or any(group[name].ndim == 3 for name in others)):
        remarks.append(f"no forces among {', '.join(sorted(names))}")
    if not known.all():
        remarks.append("conformers whose energy or forces are not finite are left out")
    if not known.any() and frames:
        raise ValueError(f"no conformer has finite `{energy or force}`")
    numbers = numbers_of(_array(group, layout.elements))
    charge = {"charge": np.full(frames, charge_of(group))} if layout is SPICE else {}
    return _parts(numbers, positions, energies, forces, charge, known), tuple(remarks)


def _parts(
    numbers: NDArray[Any],
    positions: NDArray[np.float64],
    energies: NDArray[np.float64],
    forces: NDArray[np.float64],
    properties: dict[str, NDArray[np.float64]],
    known: NDArray[np.bool_],
) -> list[Conformers]:
    """One part for each set of atoms: of ANI-2x every conformer tells its own."""
    if numbers.ndim == 1:
        chosen_rows = [(numbers, known)]
    else:
        if len(numbers) != len(positions):
            raise ValueError(f"must have atoms for {len(positions)} conformers")
        kinds, owner = np.unique(numbers, axis=0, return_inverse=True)
        owner = owner.ravel()
        chosen_rows = [(kind, known & (owner == place)) for place, kind in enumerate(kinds)]
    return [
        Conformers(
            atoms,
            positions[rows],
            energies[rows],
            forces[rows],
            {name: values[rows] for name, values in properties.items()},
        )
        for atoms, rows in chosen_rows
    ]


def _name(
    group: Any, names: set[str], label: Any, asked: str | None, usual: str | None
) -> str | None:
    """The array that is a label: the user's, the layout's, or one with a well-known name."""
    if asked:
        if asked not in names:
            raise ValueError(
                f"`labels.{label}` must name one of {', '.join(sorted(names))}, but got {asked!r}"
            )
        return asked
    if usual in names:
        return usual
    dimensions = 1 if label == "energy" else 3
    fits = [
        name
        for name in sorted(names)
        if is_label(name, label)
        and group[name].ndim == dimensions
        and group[name].dtype.kind in "iuf"
    ]
    # Several are compared.
    return chosen({name: group[name][()] if fits[1:] else 0 for name in fits}, label, None)


def _units(
    layout: Layout,
    group: Any,
    arrays: set[str],
    labels: tuple[str | None, str | None],
    given: Reading,
) -> dict[str, str]:
    """Units that arrays have as their attribute `units`, or groups and the file for all arrays."""
    told = given.units != Units()
    found: dict[str, str] = {}
    names: dict[Any, str | None] = dict(zip(("energy", "forces"), labels, strict=True))
    texts = {name: group[name][()] for name in arrays if "unit" in name.lower()}
    for above in (dict(group.file.attrs), dict(group.attrs), texts):
        found |= declared(above, names, told=told)
    for kind, name in (("length", layout.positions), *names.items()):
        attributes = group[name].attrs if name and name in group else {}
        plain = {key.lower(): value for key, value in attributes.items()}
        unit = next((text_of(plain[key]) for key in ("units", "unit") if key in plain), "")
        found |= {kind: unit} if unit else {}
    return found


def _none(*shape: int) -> NDArray[np.float64]:
    return np.full(shape, np.nan)


def _array(group: Any, name: str) -> NDArray[Any]:
    """An array that is there."""
    if name not in group:
        raise ValueError(f"there is no `{name}`")
    found = group[name]
    array: NDArray[Any] = found[()]
    return array


def _values(group: Any, name: str) -> NDArray[np.float64]:
    return real(_array(group, name), name)


def _finite(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F,) whether all numbers of a conformer are known."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


PIECES = {name: Divisible(divide, partial(read_piece, layout)) for name, layout in LAYOUTS.items()}
read_ani1 = partial(read, ANI1)
read_ani1x = partial(read, ANI1X)
read_spice = partial(read, SPICE)


def _is(kind: str, path: Path) -> bool:
    """Whether a file or folder has the arrays of a kind."""
    file = next(iter(files_of(path)), path) if path.is_dir() else path
    return file.suffix in SUFFIXES and file.is_file() and kind_of(file) == kind


is_ani1 = partial(_is, "ani1_hdf5")
is_ani1x = partial(_is, "ani1x_hdf5")
is_spice = partial(_is, "spice_hdf5")
