"""Names and units of the arrays of HDF5 sets, each as it is published."""

from __future__ import annotations

from dataclasses import dataclass


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
