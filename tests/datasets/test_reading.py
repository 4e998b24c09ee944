"""Units by their usual names, against CODATA 2018 (physics.nist.gov)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from pydantic import ValidationError

from study.core.quantities.units import energy_unit, force_unit, length_unit
from study.datasets.readers.detect import parsed
from study.datasets.reading import Reading, Units

KCAL, KJ, HARTREE, BOHR = 0.0433641042385, 0.0103642696562, 27.211386245988, 0.529177210903


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("eV", 1.0),
        ("ev", 1.0),
        ("meV", 1e-3),
        ("Hartree", HARTREE),
        ("Ha", HARTREE),
        ("a.u.", HARTREE),
        ("Ry", HARTREE / 2),
        ("kcal/mol", KCAL),
        ("kcal mol^-1", KCAL),
        ("kcal*mol**-1", KCAL),
        ("kJ/mol", KJ),
    ],
)
def test_energies_have_their_size(name: str, size: float) -> None:
    assert energy_unit(name) == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "size"),
    [("Å", 1.0), ("\u212b", 1.0), ("A", 1.0), ("Angstrom", 1.0), ("bohr", BOHR), ("nm", 10.0)],
)
def test_lengths_have_their_size(name: str, size: float) -> None:
    assert length_unit(name) == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("eV/Ang", 1.0),
        ("eV/Å", 1.0),
        ("Hartree/Bohr", HARTREE / BOHR),
        ("a.u.", HARTREE / BOHR),
        ("kcal/mol/Å", KCAL),
        ("kcal/(mol Å)", KCAL),
        ("kcal mol^-1 Angstrom^-1", KCAL),
        ("kJ/mol/nm", KJ / 10),
    ],
)
def test_forces_have_their_size(name: str, size: float) -> None:
    assert force_unit(name) == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize("name", ["furlong", "", "eV/Å", "mol"])
def test_a_unit_that_nobody_knows_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ValidationError, match="one of eV, meV, Hartree"):
        Units(energy=name)


def test_forces_go_with_energy_and_length() -> None:
    factors = Reading(units=Units(energy="kcal/mol")).factors(("Å", "Hartree", "Hartree/Å"))
    assert (factors.energy, factors.force) == (pytest.approx(KCAL), pytest.approx(KCAL))
    mixed = Reading(units=Units(forces="eV/Å")).factors(("Bohr", "Hartree", "Hartree/Bohr"))
    assert (mixed.energy, mixed.force) == (pytest.approx(HARTREE), pytest.approx(1.0))


def test_the_command_that_imports_a_set_says_all_that_the_space_says(tmp_path: Path) -> None:
    given = {"name": "ase_file", "path": "s3://bucket/a b.dump", "species": ["O", "H"]}
    units = {"energy": "kcal/mol", "length": "nm"}
    command = parsed(given | {"units": units}).import_command(tmp_path)
    assert shlex.split(command)[3:] == [
        *("import", "s3://bucket/a b.dump", "--units", "energy=kcal/mol,length=nm"),
        *("--species", "O,H", "--out", str(tmp_path)),
    ]
