"""HDF5 files: attributes tell units, arrays of later sets are read, circles end."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.readers.hdf5 import kind_of, read_ani1, read_spice
from study.datasets.reading import Labels, Reading

HARTREE, BOHR = 27.211386245988, 0.529177210903
PLACES = np.array([[[0.0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]] * 4) + 3
PUSHES = np.arange(36.0).reshape(4, 3, 3)
ENERGIES = np.array([-14.0, -14.5, -15.0, -15.5])
SPICE = ("conformations", "dft_total_energy", "dft_total_gradient")


def spice(path: Path, units: tuple[str, str, str] | None) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"] = [8, 1, 1]
        for number, (name, values) in enumerate(
            zip(SPICE, (PLACES, ENERGIES, PUSHES), strict=True)
        ):
            group[name] = values
            if units:
                group[name].attrs["units"] = units[number]
    return path


@pytest.mark.parametrize(
    ("units", "length", "energy", "force"),
    [
        (None, BOHR, HARTREE, HARTREE / BOHR),
        (("bohr", "hartree", "hartree/bohr"), BOHR, HARTREE, HARTREE / BOHR),
        (("angstrom", "ev", "ev/angstrom"), 1.0, 1.0, 1.0),
    ],
)
def test_units_of_arrays_count(
    units: tuple[str, str, str] | None, length: float, energy: float, force: float, tmp_path: Path
) -> None:
    frames = read_spice(spice(tmp_path / "spice.hdf5", units))
    np.testing.assert_allclose(frames.positions, PLACES.reshape(-1, 3) * length, rtol=1e-8)
    np.testing.assert_allclose(frames.energies, ENERGIES * energy, rtol=1e-8)
    np.testing.assert_allclose(frames.forces, -PUSHES.reshape(-1, 3) * force, rtol=1e-8)


def test_a_unit_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = spice(tmp_path / "spice.hdf5", ("angstrom", "furlong", "ev/angstrom"))
    with pytest.raises(UserError, match=r"group water: .*energy.*furlong"):
        read_spice(path)


def test_forces_and_atoms_of_each_conformer_are_read_as_in_ani2x(tmp_path: Path) -> None:
    path = tmp_path / "ani2x.h5"
    kinds = np.array([[8, 1, 1], [6, 1, 1], [8, 1, 1], [6, 1, 1]])
    with h5py.File(path, "w") as file:
        group = file.create_group("003")
        group["coordinates"], group["energies"] = PLACES, ENERGIES
        group["species"], group["forces"] = kinds, PUSHES
    assert kind_of(path) == "ani1_hdf5"
    frames = read_ani1(path)
    assert frames.numbers.tolist() == [6, 1, 1] * 2 + [8, 1, 1] * 2
    np.testing.assert_allclose(frames.forces[:3], PUSHES[1] * HARTREE, rtol=1e-8)
    np.testing.assert_allclose(frames.energies[:2], ENERGIES[[1, 3]] * HARTREE, rtol=1e-8)


def test_the_user_names_a_level_of_theory(tmp_path: Path) -> None:
    path = spice(tmp_path / "spice.hdf5", None)
    with h5py.File(path, "a") as file:
        file["water/other_energy"] = ENERGIES - 1
    frames = read_spice(path, Reading(labels=Labels(energy="other_energy")))
    np.testing.assert_allclose(frames.energies, (ENERGIES - 1) * HARTREE, rtol=1e-8)
    with pytest.raises(UserError, match=r"`labels\.energy` must name one of"):
        read_spice(path, Reading(labels=Labels(energy="mine")))


def test_a_group_in_itself_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "loop.h5", "w") as file:
        group = file.create_group("a")
        group["again"] = group
    with pytest.raises(UserError, match="in themselves"):
        kind_of(tmp_path / "loop.h5")


@pytest.mark.parametrize("place", ["file", "group", "array"])
def test_units_may_stand_at_the_file_the_group_or_the_array(place: str, tmp_path: Path) -> None:
    path = spice(tmp_path / "spice.hdf5", None)
    with h5py.File(path, "a") as file:
        holder = {"file": file, "group": file["water"], "array": file["water"][SPICE[1]]}[place]
        holder.attrs["Units" if place == "array" else "energy_units"] = "eV"
    np.testing.assert_allclose(read_spice(path).energies, ENERGIES, rtol=1e-8)


def test_conformers_that_are_left_out_are_told(tmp_path: Path) -> None:
    path = spice(tmp_path / "spice.hdf5", None)
    with h5py.File(path, "a") as file:
        file["water"][SPICE[1]][1] = np.nan
    frames = read_spice(path)
    assert len(frames) == 3
    assert "not finite are left out" in frames.origin["labels"][0]


def test_arrays_that_are_not_stored_are_not_made(tmp_path: Path) -> None:
    path = tmp_path / "empty.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["atomic_numbers"], group[SPICE[1]] = [8, 1, 1], ENERGIES
        group.create_dataset(SPICE[0], (10**8, 3, 3), "f8", chunks=(1000, 3, 3))
    with pytest.raises(UserError, match="200 times its size"):
        read_spice(path)


def test_groups_that_lie_in_many_places_are_met_once(tmp_path: Path) -> None:
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        inner = file.create_group("g0")
        for number in range(1, 19):
            outer = file.create_group(f"g{number}")
            outer["left"], outer["right"] = inner, inner
            inner = outer
    with pytest.raises(UserError, match="in two places"):
        kind_of(path)


def test_an_array_tells_the_unit_of_another(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "set.h5", "w") as file:
        arrays = {"species": [8, 1, 1], "coordinates": PLACES, "energies": ENERGIES}
        for key, array in (arrays | {"energy_units": "eV"}).items():
            file[f"water/{key}"] = array
        file["water"].create_group("units of nothing")
    assert read_ani1(tmp_path / "set.h5").energies.tolist() == ENERGIES.tolist()


def test_molecules_that_say_that_they_are_not_periodic_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "set.h5", "w") as file:
        arrays = {"species": [8, 1, 1], "coordinates": PLACES, "energies": ENERGIES}
        for key, array in (arrays | {"pbc": np.zeros((4, 3), bool)}).items():
            file[f"water/{key}"] = array
    assert len(read_ani1(tmp_path / "set.h5")) == 4


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("pbc", np.ones((4, 3), bool), "has `pbc`"),
        ("dft_energy", ENERGIES - 1, "`energy` and `dft_energy`, which disagree"),
        ("cell", np.tile(9 * np.eye(3), (4, 1, 1)), "has `cell`"),
    ],
)
def test_what_would_be_lost_is_refused(
    name: str, values: NDArray[np.float64], rule: str, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "set.h5", "w") as file:
        group = file.create_group("water")
        arrays = {"species": [8, 1, 1], "coordinates": PLACES, "energy": ENERGIES, name: values}
        for key, array in arrays.items():
            group[key] = array
    with pytest.raises(UserError, match=f"group water.*{rule}"):
        read_ani1(tmp_path / "set.h5")
