"""LAMMPS dumps: types are no elements, and there is no energy."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest

from study.core.errors import UserError
from study.datasets.readers.ase_file import read
from study.datasets.reading import Reading

KCAL = 0.0433641042385
"""eV in one kcal/mol, CODATA 2018."""


def dump(
    columns: str = "id type x y z fx fy fz", rows: str = "", head: str = "", box: str = "pp pp pp"
) -> str:
    rows = rows or "2 1 1.5 1.0 1.0 0.5 0 0\n1 2 1.0 1.0 1.0 -0.5 0 0\n"
    return (
        f"{head}ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(rows.splitlines())}\n"
        f"ITEM: BOX BOUNDS {box}\n0 9\n0 8\n0 7\nITEM: ATOMS {columns}\n{rows}"
    )


def test_types_need_elements_and_labels_are_forces_alone(tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    path.write_text(dump())
    with pytest.raises(UserError, match=r"atom types 1, 2, which are no elements.*species: \["):
        read(path)
    frames = read(path, Reading(species=("H", "O")))
    assert frames.numbers.tolist() == [8, 1]
    assert frames.labels == ("forces",)
    np.testing.assert_allclose(frames.positions, [[1, 1, 1], [1.5, 1, 1]])
    np.testing.assert_allclose(frames.forces, [[-0.5, 0, 0], [0.5, 0, 0]])
    np.testing.assert_allclose(frames.cells[0], np.diag([9, 8, 7]))


def test_too_few_elements_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    path.write_text(dump())
    with pytest.raises(UserError, match="`species` names 1 elements"):
        read(path, Reading(species=("H",)))


def test_the_column_of_elements_counts(tmp_path: Path) -> None:
    path = tmp_path / "water.lammpstrj"
    path.write_text(dump("element x y z", "O 1 1 1\nH 1 1 2\n"))
    frames = read(path)
    assert frames.numbers.tolist() == [8, 1]
    assert frames.labels == ()


def test_the_style_of_units_counts(tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    path.write_text(dump(head="ITEM: UNITS\nreal\n"))
    frames = read(path, Reading(species=("H", "O")))
    np.testing.assert_allclose(frames.forces[0], [-0.5 * KCAL, 0, 0], rtol=1e-8)


def test_scaled_places_and_tilted_boxes_are_those_of_ase(tmp_path: Path) -> None:
    path = tmp_path / "tilted.dump"
    text = dump("id type xs ys zs", "1 1 0.1 0.2 0.3\n2 1 0.5 0.5 0.5\n")
    text = text.replace(
        "BOUNDS pp pp pp\n0 9\n0 8\n0 7\n", "BOUNDS xy xz yz pp pp pp\n0 12 2.0\n0 9 1.0\n0 7 1.0\n"
    )
    path.write_text(text)
    frames = read(path, Reading(species=("O",)))
    theirs = ase.io.read(path, format="lammps-dump-text", specorder=["O"])
    np.testing.assert_allclose(frames.cells[0], theirs.cell.array, atol=1e-9)
    fractions = theirs.get_scaled_positions(wrap=False)
    mine = frames.positions @ np.linalg.inv(frames.cells[0])
    np.testing.assert_allclose(mine, fractions, atol=1e-9)


def test_open_boundaries_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "slab.dump"
    path.write_text(dump(box="pp pp ff"))
    frames = read(path, Reading(species=("H", "O")))
    assert frames.pbc.tolist() == [[True, True, False]]


def test_more_atoms_than_a_frame_says_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    path.write_text((dump() + "3 1 2.0 1.0 1.0 0 0 0\n") * 3)
    with pytest.raises(UserError, match=r"frame 0 \(from 0\): has more lines than"):
        read(path, Reading(species=("H", "O")))


def test_a_tilted_box_without_boundaries_is_periodic(tmp_path: Path) -> None:
    path = tmp_path / "old.dump"
    path.write_text(dump(box="xy xz yz").replace("0 9\n0 8\n0 7\n", "0 9 0\n0 8 0\n0 7 0\n"))
    assert read(path, Reading(species=("H", "O"))).pbc.all()


def test_boxes_of_any_vectors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "general.dump"
    path.write_text(dump(box="abc origin pp pp pp"))
    with pytest.raises(UserError, match="has `abc origin`"):
        read(path, Reading(species=("H", "O")))


def test_an_atom_stands_there_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.dump"
    path.write_text(dump(rows="1 1 1 1 1 0 0 0\n1 2 2 1 1 0 0 0\n"))
    with pytest.raises(UserError, match="a different `id`"):
        read(path, Reading(species=("H", "O")))


@pytest.mark.parametrize("before", ["\n\n", "\ufeff"])
def test_what_comes_before_the_first_item_is_passed_over(before: str, tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    path.write_text(before + dump(), encoding="utf-8")
    assert len(read(path, Reading(species=("H", "O")))) == 1


def test_elements_that_disagree_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    path.write_text(dump("id type element x y z", "1 1 O 1 1 1\n2 2 H 1 1 2\n"))
    assert read(path, Reading(species=("O", "H"))).numbers.tolist() == [8, 1]
    with pytest.raises(UserError, match="`element` with O, where `species` says Si"):
        read(path, Reading(species=("Si", "H")))
