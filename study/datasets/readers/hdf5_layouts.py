"""Names and units of the arrays of HDF5 sets, each as it is published, and charges of molecules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.quantities.elements import atomic_number
from study.datasets.parsing.arrays import checked_numbers

CHARGE = re.compile(r"\[[^]:]*?([+-])(\d*)(?::\d+)?\]")
"""Of an atom in SMILES: a sign, and how much if it is more than one."""

CELLS = ("cell", "cells", "lattice", "box", "pbc")


@dataclass(frozen=True)
class Layout:
    """Names of the arrays of a group, and their units where the file tells none.

    Args:
        positions: name of their array.
        energies: likewise.
        forces: likewise; none if there need not be any.
        units: of length, energy and forces.
        elements: name of their atomic numbers or symbols.
    """

    positions: str
    energies: str
    forces: str | None
    units: tuple[str, str, str]
    elements: str = "atomic_numbers"

    @property
    def names(self) -> set[str]:
        """Of all arrays that it needs."""
        return {self.positions, self.elements}


ANI1 = Layout("coordinates", "energies", None, ("Å", "Hartree", "Hartree/Å"), "species")
ANI1X = Layout("coordinates", "wb97x_dz.energy", "wb97x_dz.forces", ("Å", "Hartree", "Hartree/Å"))
SPICE = Layout(
    "conformations",
    "dft_total_energy",
    "dft_total_gradient",
    ("Bohr", "Hartree", "Hartree/Bohr"),
)
LAYOUTS = {"ani1_hdf5": ANI1, "ani1x_hdf5": ANI1X, "spice_hdf5": SPICE}
"""By name of the data set."""


def charge_of(group: Any) -> float:
    """The sum of the formal charges of all atoms in a molecule's SMILES, e; NaN without one."""
    if "smiles" not in group:
        return float("nan")
    smiles = np.ravel(group["smiles"].asstr()[()])[0]
    signs = CHARGE.findall(smiles)
    return float(sum((1 if sign == "+" else -1) * int(size or 1) for sign, size in signs))


def cell_of(group: Any) -> str | None:
    """The array that makes frames periodic; none where all are zero, or `pbc` is nowhere true."""
    there = {name.lower(): name for name in group if name.lower() in CELLS}
    flags = there.get("pbc")
    if flags and not np.any(group[flags][()]):
        return None
    return next((name for name in there.values() if np.any(group[name][()])), None)


def numbers_of(elements: NDArray[Any]) -> NDArray[np.uint8]:
    """Atomic numbers of atomic numbers or symbols."""
    if elements.dtype.kind in "iufc":
        return checked_numbers(elements)
    symbols = [word.decode() if isinstance(word, bytes) else str(word) for word in elements]
    return np.array([atomic_number(symbol) for symbol in symbols], dtype=np.uint8)
