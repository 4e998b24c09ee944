"""What a structure can be labelled with besides energy and forces, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Property:
    """A number that belongs to a whole structure.

    Args:
        unit: it is stored, learned and reported in.
        meaning: in words.
        extensive: two copies far apart have twice the value, so atoms add up to it.
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
    "part": Property("1", "place in the published split: 0 trains, 1 validates, 2 tests"),
}
"""By name; the first twelve are QM9's targets (doi:10.1038/sdata.2014.22, table 3)."""

GIVEN = ("charge", "multiplicity", "part")
"""What is not learned."""

TARGETS = tuple(name for name in PROPERTIES if name not in GIVEN)
