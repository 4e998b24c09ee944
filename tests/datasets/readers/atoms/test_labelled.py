"""Labels, units and groups of structures, whatever names a file has for them."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms

from study.core.errors import UserError
from study.datasets import inspection
from study.datasets.readers import ase_file
from study.datasets.reading import Labels, Reading, Units

# CODATA 2018, as physics.nist.gov lists them.
KCAL, HARTREE, BOHR = 0.0433641042385, 27.211386245988, 0.529177210903
PLACES = [[4.0, 4.0, 4.0], [4.76, 4.59, 4.0], [3.24, 4.59, 4.0]]
PUSHES = [[0.1, -0.2, 0.3], [1.0, 2.0, 3.0], [-1.1, -1.8, -3.3]]


def extxyz(
    path: Path, comment: str = "energy=-14.0", column: str = ":forces:R:3", count: int = 2
) -> Path:
    """Frames of one molecule of water, as text."""
    rows = [
        " ".join([symbol, *map(str, place), *map(str, push if column else [])])
        for symbol, place, push in zip("OHH", PLACES, PUSHES, strict=True)
    ]
    head = f'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3{column} {comment}'
    path.write_text("\n".join(["3", head, *rows]) * 1 + "\n")
    path.write_text(path.read_text() * count)
    return path


@pytest.mark.parametrize("name", ["Energy", "ENERGY", "total_energy", "REF_energy", "energy_dft"])
@pytest.mark.parametrize("column", ["forces", "force", "REF_forces", "dft_force"])
def test_well_known_names_are_labels(name: str, column: str, tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", f"{name}=-14.0", f":{column}:R:3")
    frames = ase_file.read(path)
    assert frames.energies.tolist() == [-14.0, -14.0]
    assert frames.forces[:3].tolist() == PUSHES


def test_forces_may_be_three_columns(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", column=":fx:R:1:fy:R:1:fz:R:1")
    assert ase_file.read(path).forces[:3].tolist() == PUSHES


def test_other_names_are_told_and_can_be_named(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", "my_energy=-14.0", ":pushes:R:3")
    frames = ase_file.read(path)
    assert frames.labels == ()
    remarks = " ".join(frames.origin["labels"])
    assert "my_energy" in remarks
    assert "pushes" in remarks
    named = Reading(labels=Labels(energy="my_energy", forces="pushes"))
    frames = ase_file.read(path, named)
    assert frames.energies.tolist() == [-14.0, -14.0]
    assert frames.forces[:3].tolist() == PUSHES


def test_names_that_no_frame_has_are_refused(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", "my_energy=-14.0")
    with pytest.raises(UserError, match=r"`labels\.energy` must name .*my_energy.*'mine'"):
        ase_file.read(path, Reading(labels=Labels(energy="mine")))


def test_two_energies_that_disagree_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", "energy=-14.0 REF_energy=-15.5")
    with pytest.raises(UserError, match="`energy` and `REF_energy`, which disagree"):
        ase_file.read(path)
    frames = ase_file.read(path, Reading(labels=Labels(energy="REF_energy")))
    assert frames.energies.tolist() == [-15.5, -15.5]


def test_the_free_energy_counts_only_where_there_is_no_other(tmp_path: Path) -> None:
    both = extxyz(tmp_path / "both.extxyz", "energy=-14.0 free_energy=-14.1")
    assert ase_file.read(both).energies.tolist() == [-14.0, -14.0]
    alone = extxyz(tmp_path / "alone.extxyz", "free_energy=-14.1")
    assert ase_file.read(alone).energies.tolist() == [-14.1, -14.1]


@pytest.mark.parametrize(
    ("comment", "energy", "length", "force"),
    [
        ("energy=-14.0 energy-unit=kcal/mol", KCAL, 1, KCAL),
        ("energy=-14.0 energy_unit=Hartree length_unit=Bohr", HARTREE, BOHR, HARTREE / BOHR),
        ("energy=-14.0 energy-unit=eV force-unit=Hartree/Bohr", 1, 1, HARTREE / BOHR),
    ],
)
def test_units_that_a_file_declares_count(
    comment: str, energy: float, length: float, force: float, tmp_path: Path
) -> None:
    frames = ase_file.read(extxyz(tmp_path / "water.extxyz", comment))
    np.testing.assert_allclose(frames.energies, -14.0 * energy, rtol=1e-8)
    np.testing.assert_allclose(frames.positions[:3], np.array(PLACES) * length, rtol=1e-8)
    np.testing.assert_allclose(frames.cells[0], 9 * np.eye(3) * length, rtol=1e-8)
    np.testing.assert_allclose(frames.forces[:3], np.array(PUSHES) * force, rtol=1e-8)


def test_an_unknown_unit_is_refused_unless_the_user_tells_it(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", "energy=-14.0 energy-unit=furlong")
    with pytest.raises(UserError, match=r"must be an energy.*furlong.*units: \{energy"):
        ase_file.read(path)
    frames = ase_file.read(path, Reading(units=Units(energy="eV")))
    assert frames.energies.tolist() == [-14.0, -14.0]
    assert frames.origin["labels"] == ["energy read in eV, though the file says furlong"]


def test_config_type_is_no_trajectory_and_group_is(tmp_path: Path) -> None:
    kinds = extxyz(tmp_path / "kinds.extxyz", "energy=-14.0 config_type=dimer")
    assert ase_file.read(kinds).groups.tolist() == [-1, -1]
    groups = extxyz(tmp_path / "groups.extxyz", "energy=-14.0 group=run7")
    assert ase_file.read(groups).groups.tolist() == [0, 0]


@pytest.mark.parametrize("value", ["nan", "inf", "abc", "1_0"])
def test_an_energy_that_is_no_number_names_its_frame(value: str, tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", f"energy={value}")
    with pytest.raises(UserError, match=r"water\.extxyz: frame 0 \(from 0\)"):
        ase_file.read(path)


def test_a_frame_keeps_what_it_has(tmp_path: Path) -> None:
    whole = extxyz(tmp_path / "whole.extxyz").read_text()
    bare = extxyz(tmp_path / "bare.extxyz", "energy=-15.0", "", 1).read_text()
    path = tmp_path / "mixed.extxyz"
    path.write_text(whole + bare)
    frames = ase_file.read(path)
    assert frames.energies.tolist() == [-14.0, -14.0, -15.0]
    assert frames.labelled("forces").tolist() == [True, True, False]
    ase_file.write(frames, tmp_path / "again.extxyz")
    again = ase_file.read(tmp_path / "again.extxyz")
    np.testing.assert_allclose(again.forces, frames.forces)


@pytest.mark.parametrize("unit", ["eV", "kcal/mol", "Hartree"])
def test_schnetpack_databases_tell_their_units(unit: str, tmp_path: Path) -> None:
    factor = {"eV": 1.0, "kcal/mol": KCAL, "Hartree": HARTREE}[unit]
    path = tmp_path / "water.db"
    with ase.db.connect(path) as database:
        database.metadata = {
            "_distance_unit": "Ang",
            "_property_unit_dict": {"energy": unit, "forces": f"{unit}/Ang"},
        }
        database.write(
            Atoms("OHH", PLACES),
            data={"energy": np.array([-14.0]), "forces": np.array(PUSHES)},
        )
    frames = ase_file.read(path)
    np.testing.assert_allclose(frames.energies, [-14.0 * factor], rtol=1e-8)
    np.testing.assert_allclose(frames.forces, np.array(PUSHES) * factor, rtol=1e-8)


def test_gradients_that_the_user_names_have_their_sign_turned(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", column=":gradients:R:3")
    assert "gradients" in ase_file.read(path).origin["labels"][0]
    frames = ase_file.read(path, Reading(labels=Labels(forces="gradients")))
    np.testing.assert_allclose(frames.forces[:3], -np.array(PUSHES))
    assert frames.origin["labels"] == ["forces are `gradients` with their sign turned"]


@pytest.mark.parametrize("name", ["E0", "U", "my_energy"])
def test_numbers_that_may_be_energies_are_named(name: str, tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", f"{name}=-14.0 step=3 charge=0")
    (remark,) = ase_file.read(path).origin["labels"]
    assert remark == f"no energy; columns that may be such: {name} (`labels: {{energy: {name}}}`)"


def test_numbers_that_may_be_a_stress_are_named_and_columns_that_count_are_told(
    tmp_path: Path,
) -> None:
    other = 'polarizability="1 0 0 0 1 0 0 0 1"'
    path = extxyz(tmp_path / "water.extxyz", f'dft_E=-14.0 dft_S="1 2 3 4 5 6" {other}')
    frames = ase_file.read(path)
    named = "columns that may be such: dft_S (`labels: {stress: dft_S}`)"
    assert f"no stress; {named}" in frames.origin["labels"]
    assert inspection.summary(frames)["columns of the file"] == "energy from dft_E"


@pytest.mark.parametrize(
    "comment", ["energy=-14.0 Ha", "energy = -14.0 kcal/mol", "units: Bohr, eV"]
)
def test_a_unit_that_stands_alone_is_refused_unless_it_is_the_usual_one(
    comment: str, tmp_path: Path
) -> None:
    path = extxyz(tmp_path / "water.extxyz", f"step=1 {comment}")
    with pytest.raises(UserError, match=r"frame 0 .*has the word `\S+` without a key; write"):
        ase_file.read(path)
    ase_file.read(path, Reading(units=Units(energy="Hartree")))
    usual = extxyz(tmp_path / "usual.extxyz", "energy=-14.0 eV Au Angstrom")
    assert ase_file.read(usual).energies.tolist() == [-14.0, -14.0]


@pytest.mark.parametrize(
    ("name", "factor"), [("energy_Ha", HARTREE), ("E_kcal_per_mol", KCAL), ("my_energy_eV", 1.0)]
)
def test_a_name_tells_its_unit(name: str, factor: float, tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", f"{name}=-14.0", "")
    frames = ase_file.read(path, Reading(labels=Labels(energy=name)))
    np.testing.assert_allclose(frames.energies, -14.0 * factor, rtol=1e-8)


def test_energies_per_atom_are_no_energies(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", "energy_per_atom=-4.7 my_number=1.5")
    assert "per_atom" not in ase_file.read(path).origin["labels"][0]
    with pytest.raises(ValueError, match="must name total energies"):
        Labels(energy="energy_per_atom")


def test_the_unit_of_a_virial_counts(tmp_path: Path) -> None:
    virial = 'virial="1 0 0 0 1 0 0 0 1"'
    path = extxyz(tmp_path / "water.extxyz", f"energy=-14.0 virial_unit=kcal/mol {virial}")
    stresses = ase_file.read(path).stresses
    assert stresses is not None
    np.testing.assert_allclose(stresses[0], -KCAL * np.eye(3) / 9**3, rtol=1e-8)
    with pytest.raises(UserError, match=r"the unit of `virial` must be an energy.*GPa"):
        ase_file.read(extxyz(tmp_path / "gpa.extxyz", f"energy=-14.0 virial_unit=GPa {virial}"))


def test_units_that_only_some_frames_declare_are_refused(tmp_path: Path) -> None:
    first = extxyz(tmp_path / "water.extxyz", "energy=-14.0 energy_unit=kcal/mol", count=1)
    rest = extxyz(tmp_path / "rest.extxyz", count=3).read_text()
    first.write_text(first.read_text() + rest)
    with pytest.raises(UserError, match=r"frame 0 \(from 0\) declares units.*frame 1 none"):
        ase_file.read(first)
    frames = ase_file.read(first, Reading(units=Units(energy="kcal/mol")))
    np.testing.assert_allclose(frames.energies, -14.0 * KCAL, rtol=1e-8)
    other = extxyz(tmp_path / "other.extxyz", "energy=-14.0 energy_unit=eV").read_text()
    first.write_text(extxyz(first, "energy=-14.0 energy_unit=meV", count=1).read_text() + other)
    np.testing.assert_allclose(ase_file.read(first).energies, [-0.014, -14.0, -14.0])
    usual = extxyz(tmp_path / "usual.extxyz", "energy=-14.0 energy_unit=eV", count=1)
    usual.write_text(usual.read_text() + first.read_text() + rest)
    with pytest.raises(UserError, match=r"frame 1 \(from 0\) declares units.*frame 4 none"):
        ase_file.read(usual)


def test_labels_of_several_names_are_told(tmp_path: Path) -> None:
    path = extxyz(tmp_path / "water.extxyz", "energy=-14.0 free_energy=-15.0", count=1)
    other = extxyz(tmp_path / "other.extxyz", "free_energy=-15.0").read_text()
    path.write_text(path.read_text() + other)
    (remark,) = ase_file.read(path).origin["labels"]
    assert remark == "energy is `energy` and `free_energy`, of different frames"


@pytest.mark.parametrize("name", ["water.json", "water.db", "water.db.gz"])
def test_databases_of_any_kind_tell_their_units(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.removesuffix(".gz")
    database = ase.db.connect(path)
    for energy in (-14.0, -15.0):
        database.write(Atoms("OHH", PLACES), data={"energy": np.array([energy])})
    database.metadata = {"_property_unit_dict": {"energy": "kcal/mol"}}
    if path.name != name:
        path = tmp_path / name
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    frames = ase_file.read(path)
    np.testing.assert_allclose(frames.energies, [-14.0 * KCAL, -15.0 * KCAL], rtol=1e-8)


@pytest.mark.parametrize("place", ["text", "key", "pairs", "data"])
def test_a_unit_counts_wherever_a_database_has_it(place: str, tmp_path: Path) -> None:
    key = {"energy_unit": "Hartree"}
    with ase.db.connect(tmp_path / "water.db") as database:
        database.metadata = {"text": {"units": "Hartree"}, "key": key}.get(place, {})
        database.write(
            Atoms("OHH", PLACES),
            key_value_pairs=key if place == "pairs" else {},
            data={"energy": -14.0, "virial": np.eye(3)} | (key if place == "data" else {}),
        )
    frames = ase_file.read(tmp_path / "water.db")
    np.testing.assert_allclose(frames.energies, [-14.0 * HARTREE], rtol=1e-8)
    assert "virial" not in " ".join(frames.origin["labels"])
