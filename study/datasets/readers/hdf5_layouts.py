"""Names and units of the arrays of HDF5 sets, each as it is published, and charges of molecules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

CHARGE = re.compile(r"\[[^]:]*?([+-])(\d*)(?::\d+)?\]")
"""Of an atom in SMILES: a sign, and how much if it is more than one."""


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
