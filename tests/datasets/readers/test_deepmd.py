"""DeePMD's systems: with and without a cell, of the mixed type, as npy or text, without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study.core.errors import UserError
from study.datasets.readers.deepmd import read
from study.datasets.reading import Reading, Units

PLACES = np.array([[[0.0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]] * 2) + 3
PUSHES = np.arange(18.0).reshape(2, 3, 3)
ENERGIES = np.array([-14.0, -14.5])


def system(folder: Path, save: Callable[[Path, np.ndarray], None]) -> Path:
    part = folder / "set.000"
    part.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n1\n1\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    for name, values in {
        "coord": PLACES.reshape(2, 9),
        "force": PUSHES.reshape(2, 9),
        "energy": ENERGIES.reshape(2, 1),
        "box": np.tile(9 * np.eye(3).reshape(9), (2, 1)),
    }.items():
        save(part / name, values)
    return folder


def as_npy(path: Path, values: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), values)


def as_text(path: Path, values: np.ndarray) -> None:
    np.savetxt(path.parent.parent / f"{path.name}.raw", values)


@pytest.mark.parametrize("save", [as_npy, as_text])
def test_a_system_is_read_from_arrays_and_from_text(
    save: Callable[[Path, np.ndarray], None], tmp_path: Path
) -> None:
    folder = system(tmp_path / "water", save)
    if save is as_text:
        (folder / "set.000").rmdir()
    frames = read(tmp_path)
    assert frames.numbers.tolist() == [8, 1, 1] * 2
    np.testing.assert_allclose(frames.positions, PLACES.reshape(-1, 3))
    np.testing.assert_allclose(frames.forces, PUSHES.reshape(-1, 3))
    np.testing.assert_allclose(frames.energies, ENERGIES)
    np.testing.assert_allclose(frames.cells, np.tile(9 * np.eye(3), (2, 1, 1)))


def test_nopbc_is_a_molecule_without_a_cell(tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    (folder / "nopbc").touch()
    (folder / "set.000" / "box.npy").unlink()
    frames = read(tmp_path)
    assert frames.isolated.all()
    np.testing.assert_allclose(frames.positions, PLACES.reshape(-1, 3))


@pytest.mark.parametrize(("name", "left"), [("energy", ("forces",)), ("force", ("energy",))])
def test_labels_that_are_not_there_are_absent(
    name: str, left: tuple[str, ...], tmp_path: Path
) -> None:
    folder = system(tmp_path / "water", as_npy)
    (folder / "set.000" / f"{name}.npy").unlink()
    assert read(tmp_path).labels == left


def test_frames_of_the_mixed_type_have_atoms_of_their_own(tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[0, 1, 1], [1, 0, -1]]))
    frames = read(tmp_path)
    assert frames.numbers.tolist() == [8, 1, 1, 1, 8]
    np.testing.assert_allclose(frames.positions[3:], PLACES[1, :2])
    assert frames.energies.tolist() == ENERGIES.tolist()


def test_without_a_map_the_user_names_the_elements(tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    (folder / "type_map.raw").unlink()
    with pytest.raises(UserError, match=r"species: \[O, H\]"):
        read(tmp_path)
    assert read(tmp_path, Reading(species=("O", "H"))).numbers.tolist() == [8, 1, 1] * 2


def test_the_units_of_the_user_count(tmp_path: Path) -> None:
    system(tmp_path / "water", as_npy)
    frames = read(tmp_path, Reading(units=Units(energy="kcal/mol")))
    np.testing.assert_allclose(frames.energies, ENERGIES * 0.0433641042385, rtol=1e-8)
    np.testing.assert_allclose(
        frames.forces, PUSHES.reshape(-1, 3) * 0.0433641042385, rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("kind", [-1, 2, 200])
def test_a_type_without_an_element_is_refused(kind: int, tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    (folder / "type.raw").write_text(f"0 1 {kind}")
    with pytest.raises(UserError, match=f"there is none for {kind}"):
        read(tmp_path)


def test_a_label_that_is_no_number_names_its_frame(tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    np.save(folder / "set.000" / "energy.npy", np.array([-14.0, np.nan]))
    with pytest.raises(UserError, match=r"energy\.npy: .*frame 1 \(from 0\)"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["1_0", "\uff11", "1.0"])
def test_types_are_whole_numbers_of_digits(kind: str, tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    (folder / "type.raw").write_text(f"0\n{kind}\n1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"type\.raw: must hold a whole number"):
        read(tmp_path)


def test_sets_of_the_mixed_type_with_a_frame_each_keep_their_atoms(tmp_path: Path) -> None:
    folder = system(tmp_path / "water", as_npy)
    for number, types in enumerate(([0, 1, 1], [1, 0, 1])):
        part = folder / f"set.{number:03d}"
        part.mkdir(exist_ok=True)
        for name, values in {"coord": PLACES, "force": PUSHES}.items():
            np.save(part / f"{name}.npy", values[:1].reshape(1, 9))
        np.save(part / "energy.npy", ENERGIES[:1])
        np.save(part / "box.npy", 9 * np.eye(3).reshape(1, 9))
        np.save(part / "real_atom_types.npy", np.array([types]))
    assert read(tmp_path).numbers.tolist() == [8, 1, 1, 1, 8, 1]


def test_elements_that_the_user_sets_against_the_file_are_told(tmp_path: Path) -> None:
    system(tmp_path / "water", as_npy)
    frames = read(tmp_path, Reading(species=("N", "H")))
    assert frames.origin["labels"] == ["types read as N, H, though a type_map.raw says O, H"]
