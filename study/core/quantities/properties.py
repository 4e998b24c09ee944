"""Labels of whole structures besides energy and forces, with their units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Property:
    """A scalar property of a whole structure.

    Args:
        unit: unit in which it is stored, learned and reported.
        meaning: description in words.
        extensive: whether it is a sum over atoms: two distant copies have twice the value.
    """

    unit: str
    meaning: str
    extensive: bool = False


PROPERTIES = {
    "mu": Property("D", "dipole moment"),
    "alpha": Property("a0³", "isotropic polarizability", extensive=True),
    "homo": Property("eV", "energy of the highest occupied orbital"),
    "lumo": Property("eV", "energy of the lowest unoccupied orbital"),
    "gap": Property("eV", "gap between these two orbitals"),
    "r2": Property("a0²", "electronic spatial extent", extensive=True),
    "zpve": Property("eV", "zero point vibrational energy", extensive=True),
    "u0": Property("eV", "internal energy at 0 K", extensive=True),
    "u298": Property("eV", "internal energy at 298.15 K", extensive=True),
    "h298": Property("eV", "enthalpy at 298.15 K", extensive=True),
    "g298": Property("eV", "free energy at 298.15 K", extensive=True),
    "cv": Property("cal/mol/K", "heat capacity at 298.15 K", extensive=True),
    "interaction_energy": Property("eV", "energy of a dimer less that of its monomers"),
    "charge": Property("e", "total charge", extensive=True),
    "multiplicity": Property("1", "spin multiplicity, 2S + 1"),
    "part": Property("1", "part of the published split: 0 training, 1 validation, 2 test"),
}
"""Properties by name; the first twelve are QM9's targets (doi:10.1038/sdata.2014.22, table 3)."""

GIVEN = ("charge", "multiplicity", "part")
"""Properties that are inputs or metadata, not targets."""

TARGETS = tuple(name for name in PROPERTIES if name not in GIVEN)
