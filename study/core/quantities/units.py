"""Unit conversion factors to eV, Å, eV/Å and eV/Å³; readers convert once, when reading."""

from __future__ import annotations

import re
import unicodedata

KJ_PER_MOL = 0.010364269656262174
"""eV in one kJ/mol (CODATA 2018)."""

KCAL_PER_MOL = 4.184 * KJ_PER_MOL
"""eV in one (thermochemical) kcal/mol."""

NANOMETRE = 10.0
"""Å in one nm."""

KJ_PER_MOL_PER_NM = KJ_PER_MOL / NANOMETRE
"""eV/Å in one kJ/mol/nm."""

BOHR = 0.529177210903
"""Å in one Bohr radius (CODATA 2018)."""

HARTREE = 27.211386245988
"""eV in one Hartree (CODATA 2018)."""

HARTREE_PER_BOHR = HARTREE / BOHR
"""eV/Å in one Hartree/Bohr."""

ENERGIES = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": HARTREE,
    "mHartree": 1e-3 * HARTREE,
    "Rydberg": HARTREE / 2,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
"""eV in one of each."""

GIGAPASCAL = 1e9 * 1e-30 / 1.602176634e-19
"""eV/Å³ in one GPa (the elementary charge is exact)."""

PRESSURES = {
    "GPa": GIGAPASCAL,
    "MPa": 1e-3 * GIGAPASCAL,
    "Pa": 1e-9 * GIGAPASCAL,
    "kbar": 0.1 * GIGAPASCAL,
    "bar": 1e-4 * GIGAPASCAL,
    "atm": 101325e-9 * GIGAPASCAL,
}
"""eV/Å³ in one of each; kB is VASP's name of kbar."""

LENGTHS = {"Å": 1.0, "Bohr": BOHR, "nm": NANOMETRE, "pm": 0.01}
"""Å in one of each."""

_ENERGY_NAMES = {
    **{name.lower(): name for name in ENERGIES},
    **dict.fromkeys(("electronvolt", "electron_volt", "electronvolts"), "eV"),
    **dict.fromkeys(("ha", "eh", "e_h", "hartrees", "a.u.", "au", "atomic"), "Hartree"),
    **dict.fromkeys(("mha", "meh"), "mHartree"),
    **dict.fromkeys(("ry", "rydbergs"), "Rydberg"),
    **dict.fromkeys(("kcal", "kcal_per_mol", "kcalmol", "kilocalories/mol"), "kcal/mol"),
    **dict.fromkeys(("kcal/mole", "kilocalorie/mole", "kilocalorie/mol"), "kcal/mol"),
    **dict.fromkeys(("kj", "kj_per_mol", "kjmol", "kilojoules/mol"), "kJ/mol"),
    **dict.fromkeys(("kj/mole", "kilojoule/mole", "kilojoule/mol"), "kJ/mol"),
}
_LENGTH_NAMES = {
    **{name.lower(): name for name in LENGTHS},
    **dict.fromkeys(("a", "ang", "angs", "angstrom", "angstroms", "ångström", "ångstrom"), "Å"),
    **dict.fromkeys(("bohrs", "a0", "a_0", "bohr_radius", "a.u.", "au", "atomic"), "Bohr"),
    **dict.fromkeys(("nanometer", "nanometre", "nanometers", "nanometres"), "nm"),
    **dict.fromkeys(("picometer", "picometre", "picometers", "picometres"), "pm"),
}


def energy_unit(name: str) -> float:
    """EV in one of an energy unit, by any of its usual names.

    Raises:
        ValueError: naming the units that are known.
    """
    return _unit(name, _ENERGY_NAMES, ENERGIES, "an energy")


def length_unit(name: str) -> float:
    """Å in one of a length unit, by any of its usual names.

    Raises:
        ValueError: naming the units that are known.
    """
    return _unit(name, _LENGTH_NAMES, LENGTHS, "a length")


def _unit(name: str, names: dict[str, str], units: dict[str, float], kind: str) -> float:
    known = names.get(_plain(name))
    if known is None:
        raise ValueError(f"must be {kind}, one of {', '.join(units)}, but got {name!r}")
    return units[known]


def force_unit(name: str) -> float:
    """EV/Å in one of a force unit, such as kcal/mol/Å.

    Raises:
        ValueError: naming the units that are known.
    """
    plain = _plain(name)
    if plain in ("a.u.", "au", "atomic"):
        return HARTREE_PER_BOHR
    energy, slash, length = plain.rpartition("/")
    if not slash or energy not in _ENERGY_NAMES or length not in _LENGTH_NAMES:
        raise ValueError(
            f"must be a force such as eV/Å, of {', '.join(ENERGIES)} and {', '.join(LENGTHS)}, "
            f"but got {name!r}"
        )
    return ENERGIES[_ENERGY_NAMES[energy]] / LENGTHS[_LENGTH_NAMES[length]]


def stress_unit(name: str) -> float:
    """EV/Å³ in one of a stress unit, such as GPa or Hartree/Bohr³.

    A minus before it turns the sign: `-kbar` is of codes that print a positive number under
    pressure, where ASE's stress is negative.

    Raises:
        ValueError: naming the units that are known.
    """
    plain = _plain(name)
    sign, plain = (-1.0, plain[1:].strip()) if plain[:1] in ("-", "−") else (1.0, plain)
    known = {unit.lower(): factor for unit, factor in PRESSURES.items()}
    known["kb"] = known["kbar"]
    if plain in known:
        return sign * known[plain]
    if plain in ("a.u.", "au", "atomic"):
        return sign * HARTREE / BOHR**3
    energy, length = _per_volume(plain)
    if energy not in _ENERGY_NAMES or length not in _LENGTH_NAMES:
        raise ValueError(
            f"must be a stress such as eV/Å³, Hartree/Bohr³ or one of {', '.join(PRESSURES)}, but "
            f"got {name!r}"
        )
    return sign * ENERGIES[_ENERGY_NAMES[energy]] / LENGTHS[_LENGTH_NAMES[length]] ** 3


def _per_volume(plain: str) -> tuple[str, str]:
    """Energy and length of `ev/å3`, `ev/å^3`, `ev å^-3` or `ev/å/å/å`; empty if it is none."""
    cubed = re.fullmatch(r"(.+?)(?:/\(?|[\s*·]+)([a-zå_0]+?)\s*\^?\s*-?3\)?", plain)
    if cubed:
        return cubed[1].strip(), cubed[2]
    parts = plain.rsplit("/", 3)
    return (parts[0], parts[1]) if len(parts) == 4 and len(set(parts[1:])) == 1 else ("", "")


def _plain(name: str) -> str:
    """A unit with its parts in lower case behind slashes: `kcal mol^-1 Å^-1` as `kcal/mol/å`."""
    text = unicodedata.normalize("NFKC", name).strip().lower().replace("**", "^")
    text = re.sub(r"/\s*\(([^)]*)\)", lambda part: "/" + re.sub(r"[\s*·]+", "/", part[1]), text)
    text = re.sub(r"[\s*·]*\b([a-zå_0]+)\s*\^?\s*-1\b", r"/\1", text)
    return re.sub(r"\s*/\s*", "/", text)
