"""Frames of xyz files: none is lost, and what is no number is refused."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from study.core.errors import UserError
from study.datasets.readers.ase_file import checked, read

FRAME = """2
Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-5.0
O 1.0 1.0 1.0 0.1 0.2 0.3
H 1.0 1.0 2.0 -0.1 -0.2 -0.3
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("between", ["\n", "\n\n   \n", "\t\n"])
def test_blank_lines_between_frames_lose_none(between: str, tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", between.join([FRAME] * 7) + between)
    assert len(read(path)) == 7


def test_frames_are_those_of_ase(tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", FRAME * 3)
    for mine, theirs in zip(checked(path), ase.io.iread(path, ":"), strict=True):
        assert mine == theirs
        np.testing.assert_array_equal(mine.get_forces(), theirs.get_forces())


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", FRAME + "and so on\n" + FRAME)
    with pytest.raises(UserError, match=r"frame 1 \(from 0\).*number of atoms, but got 'and so"):
        read(path)


def test_an_at_sign_is_part_of_a_name(tmp_path: Path) -> None:
    written(tmp_path / "run", FRAME)
    assert len(read(written(tmp_path / "run@2.extxyz", FRAME * 4))) == 4
    atoms = Atoms("H", cell=[9, 9, 9], pbc=True)
    ase.io.write(tmp_path / "plain.traj", [atoms] * 3)
    (tmp_path / "plain.traj").rename(tmp_path / "run@1.traj")
    assert len(read(tmp_path / "run@1.traj")) == 3


def test_deuterium_and_tritium_are_hydrogen(tmp_path: Path) -> None:
    for symbol in "DT":
        path = written(tmp_path / "heavy.extxyz", FRAME.replace("\nH ", f"\n{symbol} "))
        assert read(path).numbers.tolist() == [8, 1]


def test_a_mark_of_byte_order_is_no_text(tmp_path: Path) -> None:
    assert len(read(written(tmp_path / "water.extxyz", "\ufeff" + FRAME))) == 1


@pytest.mark.parametrize("number", ["1_0", "१.0", "1.0.0"])
def test_what_only_python_takes_for_a_number_is_refused(number: str, tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", FRAME.replace("2.0 -0.1", f"{number} -0.1"))
    with pytest.raises(UserError, match=r"frame 0 \(from 0\)"):
        read(path)


def test_cp2k_tells_energies_in_hartree(tmp_path: Path) -> None:
    text = "1\n i =        5, time =        2.500, E =       -17.1646\nO 1.0 2.0 3.0\n"
    frames = read(written(tmp_path / "water-pos-1.xyz", text))
    assert frames.energies[0] == pytest.approx(-17.1646 * 27.211386245988)


def test_columns_without_a_name_are_told(tmp_path: Path) -> None:
    frames = read(written(tmp_path / "water.xyz", "1\n\nO 1.0 2.0 3.0 0.1 0.2 0.3\n"))
    assert frames.origin["labels"][0].startswith("3 columns of the atoms have no name")


@pytest.mark.parametrize("name", ["train", "water.txt", "WATER.EXTXYZ", "set.xyz.bak"])
def test_a_file_of_any_name_is_read_to_its_end(name: str, tmp_path: Path) -> None:
    assert len(read(written(tmp_path / name, (FRAME + "\n") * 5))) == 5


@pytest.mark.parametrize("symbol", ["1", "OW", "H2", "X", "Q"])
def test_what_is_no_element_is_refused(symbol: str, tmp_path: Path) -> None:
    path = written(tmp_path / "water.xyz", FRAME.replace("\nH ", f"\n{symbol} "))
    with pytest.raises(UserError, match=f"must have symbols of elements.*'{symbol}'.*Z:I:1"):
        read(path)


@pytest.mark.parametrize("kind", ["frc", "vel"])
def test_forces_and_velocities_of_cp2k_are_no_positions(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"water-{kind}-1.xyz", "1\n i = 0, E = -17.1\nO 0.1 0.2 0.3\n")
    with pytest.raises(UserError, match=r"must hold positions.*-pos-"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("energy=-5.0", "energy=-\u0665.0"),
        ('="9 0 0', '="9_0 0 0'),
        ('="9 0 0', '="\u0669 0 0'),
        ("0 0 9", "0 0 \uff19"),
    ],
)
def test_numbers_of_a_comment_are_plain(old: str, new: str, tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", FRAME.replace(old, new))
    with pytest.raises(UserError, match=r"must have (digits 0 to 9|numbers without underscores)"):
        read(path)


def test_other_words_of_a_comment_may_be_of_any_script(tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", FRAME.replace("energy", "name=\u6c34\u00b2_1 energy"))
    assert read(path).energies.tolist() == [-5.0]


def test_numbers_as_fortran_writes_them_are_read(tmp_path: Path) -> None:
    text = FRAME.replace("-5.0", "-0.5D+01").replace("0.3", "3.0d-1").replace('"9 0', '"0.9D1 0')
    frames = read(written(tmp_path / "water.extxyz", text))
    assert frames.energies.tolist() == [-5.0]
    assert frames.forces.tolist() == [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
    assert frames.cells[0].tolist() == [[9, 0, 0], [0, 9, 0], [0, 0, 9]]


def test_text_of_windows_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "water.extxyz").write_bytes((FRAME * 2).replace("\n", "\r\n").encode(encoding))
        assert read(tmp_path / "water.extxyz").energies.tolist() == [-5.0, -5.0]


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ("Species:S:1:pos:R:3:forces:R:3", "must have `species:S:1` or `Z:I:1`"),
        ("species:S:1:frac_pos:R:3:forces:R:3", "must have `pos:R:3`"),
        ("species:S:1:pos:R:3:Z:I:1:id:I:2", "has `species` O with atomic number 7"),
    ],
)
def test_columns_without_positions_or_with_two_elements_are_refused(
    columns: str, rule: str, tmp_path: Path
) -> None:
    text = FRAME.replace("species:S:1:pos:R:3:forces:R:3", columns)
    text = text.replace(" 0.1 0.2 0.3", " 7 8 9").replace("-0.1 -0.2 -0.3", "1 8 9")
    with pytest.raises(UserError, match=rf"frame 0 .*{rule}"):
        read(written(tmp_path / "water.extxyz", text))
