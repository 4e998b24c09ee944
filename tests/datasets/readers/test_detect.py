"""Files that are damaged, odd or hostile end in a line; none ends in a traceback or is misread."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.readers.detect import kind_of, read_set
from study.datasets.store import source_hash
from study.datasets.validation import check
from tests.fuzz.files import (
    ENERGIES,
    FORCES,
    FRAMES,
    POSITIONS,
    WATERS,
    WRITERS,
    water,
    write_ani1x,
    write_database,
)

MUTATIONS = 26
"""Of each of 13 kinds of files: more than 300 in all."""


@pytest.fixture
def no_hang() -> Iterator[None]:
    """End a test that takes more than ten seconds."""
    signal.alarm(10)
    yield
    signal.alarm(0)


def sane(path: Path) -> Frames | str:
    """The frames of a file, or the line that says why not."""
    try:
        frames = read_set(path)
        check(frames, path)
    except UserError as problem:
        line = str(problem)
        assert line.startswith(str(path))
        assert "\n" not in line
        assert "Traceback" not in line
        return line
    return frames


def damaged(content: bytes, number: int) -> bytes:
    """The content with one of three kinds of damage: cut off, bytes changed, a piece repeated."""
    rng = np.random.default_rng(number)
    place = int(rng.integers(1, len(content)))
    match number % 3:
        case 0:
            return content[:place]
        case 1:
            changed = bytearray(content)
            for spot in rng.integers(0, len(content), 4):
                changed[spot] = int(rng.integers(0, 256))
            return bytes(changed)
        case _:
            return content[:place] + content[place // 2 : place] + content[place:]


@pytest.mark.parametrize("name", WRITERS)
def test_whole_files_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    frames = sane(path)
    assert isinstance(frames, Frames)
    assert frames.numbers.tolist() == [8, 1, 1] * len(frames)


@pytest.mark.parametrize("number", range(MUTATIONS))
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("no_hang")
def test_a_damaged_file_is_read_or_told_in_a_line(name: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(damaged(path.read_bytes(), number))
    before = path.read_bytes()
    frames = sane(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [name]
    if isinstance(frames, Frames):
        assert frames.numbers.min() >= 1
        assert frames.numbers.max() <= 118
        assert np.isfinite(frames.positions).all()


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ([0, 1, 1], "has 0"),
        ([-1, 1, 1], "has -1"),
        ([264, 1, 1], "has 264"),
        ([8.5, 1, 1], "has 8.5"),
        ([np.nan, 1, 1], "has nan"),
        ([8 + 0j, 1, 1], "complex"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_atoms_of_no_element_are_refused(
    numbers: list[float], rule: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"water.{kind}"
    if kind == "npz":
        np.savez(path, z=np.array(numbers), R=POSITIONS, E=ENERGIES, F=FORCES)
    else:
        write_ani1x(path)
        with h5py.File(path, "a") as file:
            del file["H2O/atomic_numbers"]
            file["H2O/atomic_numbers"] = np.array(numbers)
    problem = sane(path)
    assert isinstance(problem, str)
    assert rule in problem


@pytest.mark.usefixtures("no_hang")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "water.extxyz")
    with pytest.raises(UserError, match="must be a file or a folder"):
        kind_of(tmp_path / "water.extxyz")


@pytest.mark.usefixtures("no_hang")
def test_what_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    text, arrays = tmp_path / "bomb.extxyz.gz", tmp_path / "bomb.npz"
    text.write_bytes(gzip.compress(b" " * 300_000_000, 9))
    with zipfile.ZipFile(arrays, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("R.npy", b"\0" * 300_000_000)
    for path in (text, arrays):
        problem = sane(path)
        assert isinstance(problem, str)
        assert "200 times its size" in problem or "lines of less than" in problem


@pytest.mark.usefixtures("no_hang")
def test_an_array_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.npz"
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (90000000000000,), }"
    head = head.ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    with zipfile.ZipFile(path, "w") as archive:
        for name in "zREF":
            archive.writestr(f"{name}.npy", array)
    assert isinstance(sane(path), str)


@pytest.mark.usefixtures("no_hang")
def test_a_database_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as opened:
        opened.execute("create table x (a)")
    opened.close()
    before = path.read_bytes()
    problem = sane(path)
    assert isinstance(problem, str)
    assert "was not changed" in problem
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["foreign.db"]


@pytest.mark.usefixtures("no_hang")
def test_a_needle_of_a_cell_is_refused(tmp_path: Path) -> None:
    atoms = Atoms("O", [[0, 0, 0]], cell=[1e6, 0.1, 0.1], pbc=True)
    ase.io.write(tmp_path / "needle.extxyz", atoms)
    problem = sane(tmp_path / "needle.extxyz")
    assert isinstance(problem, str)
    assert "at least 0.5 Å thick" in problem


def test_a_folder_of_extxyz_is_one_set_whose_files_are_groups(tmp_path: Path) -> None:
    for number, atoms in enumerate(WATERS):
        ase.io.write(tmp_path / f"f{number}.extxyz", atoms)
    frames = read_set(tmp_path)
    assert len(frames) == FRAMES
    assert len(np.unique(frames.groups)) == FRAMES
    assert kind_of(tmp_path) == "ase_file"


def test_left_handed_cells_are_turned_and_the_crystal_stays(tmp_path: Path) -> None:
    atoms = water(0)
    atoms.cell = [[0, 9, 0], [9, 0, 0], [0, 0, 9]]
    ase.io.write(tmp_path / "left.extxyz", atoms)
    frames = read_set(tmp_path / "left.extxyz")
    np.testing.assert_allclose(frames.cells[0], 9 * np.eye(3))
    np.testing.assert_allclose(frames.positions, atoms.positions, atol=1e-7)
    assert frames.origin["labels"] == ["left-handed cells of 1 frames turned"]


@pytest.mark.usefixtures("no_hang")
def test_a_file_that_is_a_hole_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hole.extxyz"
    with path.open("wb") as opened:
        opened.truncate(20_000_000_000)
    with pytest.raises(UserError, match="must be filled"):
        read_set(path)


@pytest.mark.usefixtures("no_hang")
def test_a_crowd_of_atoms_in_one_place_is_refused(tmp_path: Path) -> None:
    places = np.random.default_rng(0).random((20_000, 3))
    ase.io.write(tmp_path / "fractions.extxyz", Atoms("H20000", places))
    problem = sane(tmp_path / "fractions.extxyz")
    assert isinstance(problem, str)
    assert "atoms in a cube of 1.5 Å" in problem


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_database_that_is_being_written_is_left_alone(suffix: str, tmp_path: Path) -> None:
    write_database(tmp_path / "water.db")
    (tmp_path / f"water.db{suffix}").write_bytes(b"x")
    problem = sane(tmp_path / "water.db")
    assert isinstance(problem, str)
    assert "must be closed" in problem
    assert (tmp_path / f"water.db{suffix}").read_bytes() == b"x"


def test_a_folder_with_a_hole_in_it_is_refused_before_it_is_read(tmp_path: Path) -> None:
    write_ani1x(tmp_path / "a.h5")
    with (tmp_path / "hole.bin").open("wb") as opened:
        opened.truncate(20_000_000_000)
    with pytest.raises(UserError, match="must be filled"):
        source_hash(tmp_path)
