"""Chemical elements: symbols, covalent radii, and the masses of those in the data sets here."""

from __future__ import annotations

SYMBOLS = (  # noqa: SIM905 - a table reads better as text
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb "
    "Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm "
    "Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
).split()
"""Element symbols; the first has atomic number 1."""

ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}

ISOTOPES = {"D": 1, "T": 1}
"""Symbol → atomic number: energies and forces do not depend on the mass of a nucleus."""

MASSES = {1: 1.008, 6: 12.011, 7: 14.007, 8: 15.999}
"""Atomic masses by atomic number, u."""

# fmt: off
RADII = (  # pm, by atomic number: single-bond covalent radii, doi:10.1002/chem.200800987, table 1.
    0, 32, 46,
    133, 102, 85, 75, 71, 63, 64, 67,
    155, 139, 126, 116, 111, 103, 99, 96,
    196, 171, 148, 136, 134, 122, 119, 116, 111, 110, 112, 118, 124, 121, 121, 116, 114, 117,
    210, 185, 163, 154, 147, 138, 128, 125, 125, 120, 128, 136, 142, 140, 140, 136, 133, 131,
    232, 196, 180, 163, 176, 174, 173, 172, 168, 169, 168, 167, 166, 165, 164, 170, 162,
    152, 146, 137, 131, 129, 122, 123, 124, 133, 144, 144, 151, 145, 147, 142,
    223, 201, 186, 175, 169, 170, 171, 172, 166, 166, 168, 168, 165, 167, 173, 176, 161,
    157, 149, 143, 141, 134, 129, 128, 121, 122, 136, 143, 162, 175, 165, 157,
)
# fmt: on


def atomic_number(symbol: str) -> int:
    """The atomic number of an element or isotope of hydrogen.

    Raises:
        ValueError: if there is no such element.
    """
    number = ATOMIC_NUMBERS.get(symbol) or ISOTOPES.get(symbol)
    if number is None:
        raise ValueError(f"must be the symbol of an element, but got {symbol!r}")
    return number
