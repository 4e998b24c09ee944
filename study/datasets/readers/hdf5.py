"""Frames from ANI-1, ANI-1x and SPICE: HDF5 files with arrays for each formula or molecule.

ANI-1 (doi:10.1038/sdata.2017.193) has Å and Hartree, no forces, and symbols of elements as ASCII
byte strings, each molecule in a group of a group, as its authors' `pyanitools.py` reads them
(github.com/isayev/ANI1_dataset); its conformers of high energy, `coordinatesHE`, are left out.
ANI-1x (doi:10.1038/s41597-020-0473-z) has Å, Hartree and Hartree/Å, and NaN where a conformer was
not computed. SPICE (arXiv:2209.10702) has Bohr, Hartree and gradients in Hartree/Bohr; the charge
of a molecule is that in its SMILES.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.elements import ATOMIC_NUMBERS
from study.core.errors import UserError
from study.core.units import BOHR, HARTREE, HARTREE_PER_BOHR
from study.datasets.frames import Frames
from study.datasets.readers.conformers import Conformers, joined


@dataclass(frozen=True)
class Layout:
    """Names of the arrays of a group, and the unit of each.

    Args:
        positions: name and Å.
        energies: name and eV.
        forces: name and eV/Å, negative for gradients; if there are any.
        elements: name of their atomic numbers or symbols.
    """

    positions: tuple[str, float]
    energies: tuple[str, float]
    forces: tuple[str, float] | None
    elements: str = "atomic_numbers"

    @property
    def names(self) -> set[str]:
        """Of all arrays that it needs."""
        forces = {self.forces[0]} if self.forces else set()
        return {self.positions[0], self.energies[0], self.elements} | forces


ANI1 = Layout(("coordinates", 1.0), ("energies", HARTREE), None, "species")
ANI1X = Layout(("coordinates", 1.0), ("wb97x_dz.energy", HARTREE), ("wb97x_dz.forces", HARTREE))
SPICE = Layout(
    ("conformations", BOHR),
    ("dft_total_energy", HARTREE),
    ("dft_total_gradient", -HARTREE_PER_BOHR),
)
LAYOUTS = {"ani1_hdf5": ANI1, "ani1x_hdf5": ANI1X, "spice_hdf5": SPICE}
"""By name of the data set."""
CHARGE = re.compile(r"\[[^]:]*?([+-])(\d*)(?::\d+)?\]")
"""Of an atom in SMILES: a sign, and how much if it is more than one."""


def read(layout: Layout, path: Path) -> Frames:
    """All conformers that have their labels.

    Raises:
        UserError: one line that names file, group and rule.
    """
    parts: list[Conformers] = []
    for each in files_of(path):
        with _opened(each) as file:
            parts += _conformers(layout, each, file)
    return joined(parts, path)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the *.h5 of a folder, as ANI-1 has them."""
    return sorted(path.glob("*.h5")) if path.is_dir() else [path]


def kind_of(path: Path) -> str:
    """Name of the data set that a file is, by the arrays of its first group.

    Raises:
        UserError: if it is none of them.
    """
    with _opened(path) as file:
        arrays = next((set(group) for _, group in _groups(file)), set())
    for name, layout in LAYOUTS.items():
        if layout.names <= arrays:
            return name
    raise UserError(
        f"{path}: must be ANI-1, ANI-1x or SPICE, but its first group has "
        f"{', '.join(sorted(arrays)) or 'nothing'}"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        h5py = import_module("h5py")
    except ImportError as problem:
        raise UserError(f"{path}: is read with h5py ({problem}); pip install h5py") from None
    try:
        file = h5py.File(path)
    except OSError as problem:
        raise UserError(f"{path}: is no HDF5 file ({problem})") from None
    with file:
        yield file


def _groups(file: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every group that holds arrays, whatever it lies in."""
    groups = {key: part for key, part in file.items() if hasattr(part, "items")}
    if name and len(groups) < len(file):
        yield name, file
    for key, group in groups.items():
        yield from _groups(group, f"{name}/{key}".lstrip("/"))


def _conformers(layout: Layout, path: Path, file: Any) -> Iterator[Conformers]:
    for name, group in _groups(file):
        try:
            yield _read(layout, group)
        except KeyError as problem:
            raise UserError(f"{path}: group {name}: {problem.args[0]}") from None
        except (ValueError, IndexError) as problem:
            raise UserError(f"{path}: group {name}: {problem}") from None


def _read(layout: Layout, group: Any) -> Conformers:
    def values(name: str, unit: float) -> NDArray[np.float64]:
        return np.asarray(unit * group[name][()].astype(np.float64))

    positions, energies = values(*layout.positions), values(*layout.energies)
    forces = values(*layout.forces) if layout.forces else np.full(positions.shape, np.nan)
    known = _finite(energies)
    if layout.forces:
        known &= _finite(forces)
    properties = {}
    if layout is SPICE:
        properties["charge"] = np.full(known.sum(), _charge(group))
    numbers = _numbers(group[layout.elements][()])
    return Conformers(numbers, positions[known], energies[known], forces[known], properties)


def _numbers(elements: NDArray[Any]) -> NDArray[np.int64]:
    """(N,) atomic numbers of atomic numbers or symbols."""
    if elements.dtype.kind in "iu":
        return elements.astype(np.int64)
    symbols = [word.decode() if isinstance(word, bytes) else str(word) for word in elements]
    if unknown := [symbol for symbol in symbols if symbol not in ATOMIC_NUMBERS]:
        raise ValueError(f"must have symbols of elements, but got {unknown[0]}")
    return np.array([ATOMIC_NUMBERS[symbol] for symbol in symbols])


def _charge(group: Any) -> float:
    """The sum of the formal charges of all atoms in a molecule's SMILES, e; NaN without one."""
    if "smiles" not in group:
        return float("nan")
    smiles = np.ravel(group["smiles"].asstr()[()])[0]
    signs = CHARGE.findall(smiles)
    return float(sum((1 if sign == "+" else -1) * int(size or 1) for sign, size in signs))


def _finite(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F,) whether all numbers of a conformer are known."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


read_ani1 = partial(read, ANI1)
read_ani1x = partial(read, ANI1X)
read_spice = partial(read, SPICE)
