"""Units are found under the names that programs give them."""

from __future__ import annotations

import numpy as np
import pytest

from study.datasets.parsing.declared_units import Kind, declared

NAMES: dict[Kind, str | None] = {"energy": "my_e", "forces": None}


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("energy-unit", "kcal/mol", {"energy": "kcal/mol"}),
        ("Energy_Units", "kcal/mol", {"energy": "kcal/mol"}),
        ("E_unit", np.array(b"eV"), {"energy": "eV"}),
        ("e_unit", np.array(["eV"]), {"energy": "eV"}),
        ("energyunit", "Hartree", {"energy": "Hartree"}),
        ("REF_energy_unit", "Hartree", {"energy": "Hartree"}),
        ("my_e_unit", "meV", {"energy": "meV"}),
        ("units_of_length", "nm", {"length": "nm"}),
        ("R_units", "Bohr", {"length": "Bohr"}),
        ("F_unit", "Ha/Bohr", {"forces": "Ha/Bohr"}),
        ("units", "eV", {"energy": "eV"}),
        ("units", "{energy: eV, length: nm}", {"energy": "eV", "length": "nm"}),
        ("unit", "atomic", {"energy": "atomic", "length": "atomic"}),
        ("units", {"energy": "eV", "R": "nm"}, {"energy": "eV", "length": "nm"}),
        ("time_unit", "fs", {}),
        ("dipole unit", "Debye", {}),
        ("unit", 3, {}),
        ("reunited", "x", {}),
    ],
)
def test_keys_of_many_forms_tell_a_unit(key: str, value: object, found: dict[str, str]) -> None:
    assert declared({key: value}, NAMES) == found


def test_the_unit_of_the_label_itself_comes_first() -> None:
    entries = {"unit of my_e": "Hartree", "unit of energy": "eV"}
    assert declared(entries, NAMES) == {"energy": "Hartree"}


def test_units_that_nobody_knows_are_refused_unless_the_user_tells_them() -> None:
    with pytest.raises(ValueError, match=r"declares `units` 'metal'.*units: \{energy"):
        declared({"units": "metal"}, NAMES)
    assert declared({"units": "metal"}, NAMES, told=True) == {}
