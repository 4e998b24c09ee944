"""npz files of MD17, sGDML and PhysNet: units, cells and padding as the files have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from study.core.errors import UserError
from study.datasets.readers.md17 import read
from study.datasets.reading import Labels, Reading, Units

KCAL, BOHR, HARTREE = 0.0433641042385, 0.529177210903, 27.211386245988
PLACES = np.array([[[0.0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]] * 4) + 3
PUSHES = np.arange(36.0).reshape(4, 3, 3)
ENERGIES = np.array([-14.0, -14.5, -15.0, -15.5])


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **({"z": [8, 1, 1], "R": PLACES, "E": ENERGIES, "F": PUSHES} | arrays))
    return path


@pytest.mark.parametrize(
    ("units", "energy", "length"),
    [
        ({}, KCAL, 1.0),
        ({"e_unit": "eV", "r_unit": "Ang"}, 1.0, 1.0),
        ({"e_unit": "kcal/mol", "r_unit": "Ang"}, KCAL, 1.0),
        ({"e_unit": "Ha", "r_unit": "bohr"}, HARTREE, BOHR),
    ],
)
def test_units_that_a_file_declares_count(
    units: dict[str, str], energy: float, length: float, tmp_path: Path
) -> None:
    frames = read(saved(tmp_path / "water.npz", **units))
    np.testing.assert_allclose(frames.energies, ENERGIES * energy, rtol=1e-8)
    np.testing.assert_allclose(frames.positions, PLACES.reshape(-1, 3) * length, rtol=1e-8)
    np.testing.assert_allclose(frames.forces, PUSHES.reshape(-1, 3) * energy / length, rtol=1e-8)


def test_the_user_comes_before_the_file_and_that_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "water.npz", e_unit="kcal/mol", r_unit="Ang")
    frames = read(path, Reading(units=Units(energy="eV")))
    np.testing.assert_allclose(frames.energies, ENERGIES)
    assert frames.origin["labels"] == ["energy read in eV, though the file says kcal/mol"]


def test_a_lattice_has_its_vectors_as_columns(tmp_path: Path) -> None:
    lattice = np.array([[9.0, 1.0, 2.0], [0.0, 8.0, 3.0], [0.0, 0.0, 7.0]])
    frames = read(saved(tmp_path / "water.npz", lattice=lattice))
    np.testing.assert_allclose(frames.cells[3], [[9, 0, 0], [1, 8, 0], [2, 3, 7]])
    assert frames.pbc.all()


def test_molecules_of_physnet_lose_what_fills_them_up(tmp_path: Path) -> None:
    numbers = np.array([[8, 1, 1], [1, 1, 0], [8, 1, 1], [6, 8, 0]])
    np.savez(
        tmp_path / "set.npz",
        N=np.array([3, 2, 3, 2]),
        Z=numbers,
        R=PLACES,
        E=ENERGIES,
        F=PUSHES,
        Q=np.zeros(4),
    )
    frames = read(tmp_path / "set.npz")
    assert sorted(frames.sizes.tolist()) == [2, 2, 3, 3]
    assert sorted(frames.energies.tolist()) == sorted(ENERGIES.tolist())
    first = frames.select(np.flatnonzero(frames.energies == -14.5))
    assert first.numbers.tolist() == [1, 1]
    np.testing.assert_allclose(first.forces, PUSHES[1, :2])


def test_other_names_are_told_and_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "water.npz"
    np.savez(path, z=[8, 1, 1], R=PLACES, my_e=ENERGIES, my_f=PUSHES)
    frames = read(path)
    assert frames.labels == ()
    assert "no energy among the arrays z, R, my_e, my_f" in frames.origin["labels"]
    named = Reading(labels=Labels(energy="my_e", forces="my_f"), units=Units(energy="eV"))
    np.testing.assert_allclose(read(path, named).energies, ENERGIES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_label_that_is_no_number_names_its_frame(value: float, tmp_path: Path) -> None:
    energies = ENERGIES.copy()
    energies[2] = value
    with pytest.raises(UserError, match=r"frame 2 \(from 0\) must have a finite `E`"):
        read(saved(tmp_path / "water.npz", E=energies))


def test_boxes_of_md22_are_kept(tmp_path: Path) -> None:
    for number in range(2):
        atoms = Atoms("OHH", PLACES[number], cell=[9, 8, 7], pbc=True, info={"Energy": -323.0})
        atoms.new_array("forces", PUSHES[number])
        write(tmp_path / "md22_water.xyz", atoms, format="extxyz", append=number > 0)
    frames = read(tmp_path / "md22_water.xyz")
    np.testing.assert_allclose(frames.cells, np.tile(np.diag([9.0, 8, 7]), (2, 1, 1)))
    np.testing.assert_allclose(frames.energies, -323.0 * KCAL, rtol=1e-8)
    np.testing.assert_allclose(frames.forces[:3], PUSHES[0] * KCAL, rtol=1e-7)


@pytest.mark.parametrize("name", ["z", "Z", "atomic_numbers"])
def test_atoms_of_each_frame_may_be_given(name: str, tmp_path: Path) -> None:
    kinds = np.array([[8, 1, 1], [6, 1, 0], [8, 1, 1], [8, 1, 1]])
    np.savez(tmp_path / "set.npz", **{name: kinds}, R=PLACES, E=ENERGIES, F=PUSHES)
    frames = read(tmp_path / "set.npz")
    assert sorted(frames.sizes.tolist()) == [2, 3, 3, 3]
    assert frames.numbers.tolist() == [8, 1, 1] * 3 + [6, 1]


@pytest.mark.parametrize("counts", [[2, 3, 3, 3], [4, 3, 3, 3], [2.5, 3, 3, 3], [-1, 3, 3, 3]])
def test_counts_that_lose_an_atom_are_refused(counts: list[float], tmp_path: Path) -> None:
    kinds = np.tile([8, 1, 1], (4, 1))
    np.savez(tmp_path / "set.npz", N=counts, Z=kinds, R=PLACES, E=ENERGIES, F=PUSHES)
    with pytest.raises(UserError, match=r"molecule 0 \(from 0\) must have as many"):
        read(tmp_path / "set.npz")


def test_slabs_are_not_taken_for_crystals(tmp_path: Path) -> None:
    path = saved(tmp_path / "set.npz", cell=9 * np.eye(3), pbc=[True, True, False])
    with pytest.raises(UserError, match="`pbc` must be true"):
        read(path)


def test_gradients_that_the_user_names_have_their_sign_turned(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", z=[8, 1, 1], R=PLACES, E=ENERGIES, gradient=PUSHES)
    frames = read(tmp_path / "set.npz", Reading(labels=Labels(forces="gradient")))
    np.testing.assert_allclose(frames.forces[:3], -PUSHES[0] * KCAL, rtol=1e-8)


def test_arrays_of_no_published_format_must_tell_their_units(tmp_path: Path) -> None:
    path = tmp_path / "water.npz"
    arrays = {"numbers": [8, 1, 1], "positions": PLACES, "energy": ENERGIES, "forces": PUSHES}
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"must tell its units, because `positions`.*units: \{"):
        read(path)
    assert read(path, Reading(units=Units(energy="eV"))).energies.tolist() == ENERGIES.tolist()
    np.savez(path, **arrays, energy_unit="eV")
    assert read(path).energies.tolist() == ENERGIES.tolist()


def test_the_unit_of_a_virial_counts(tmp_path: Path) -> None:
    virials = np.tile(np.eye(3), (4, 1, 1))
    units = {"e_unit": "eV", "virial_unit": "kcal/mol"}
    frames = read(saved(tmp_path / "water.npz", cell=9 * np.eye(3), virial=virials, **units))
    assert frames.stresses is not None
    np.testing.assert_allclose(frames.stresses[3], -KCAL * np.eye(3) / 9**3, rtol=1e-8)
