"""Files that are damaged, odd or hostile end in a line; none ends in a traceback or is misread."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.readers.detect import kind_of, read_set
from study.datasets.validation import check

FRAMES = 6
PLACES = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]) + 4.0
MUTATIONS = 26
"""Of each of 13 kinds of files: more than 300 in all."""


def water(number: int) -> Atoms:
    """A molecule of water in a box, a little off its place, with labels."""
    rng = np.random.default_rng(number)
    atoms = Atoms("OHH", PLACES + rng.normal(scale=0.02, size=(3, 3)), cell=[9, 9, 9], pbc=True)
    forces = rng.normal(size=(3, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0 - 0.1 * number, forces=forces)
    return atoms


WATERS = [water(number) for number in range(FRAMES)]
POSITIONS = np.array([atoms.positions for atoms in WATERS])
ENERGIES = np.array([atoms.get_potential_energy() for atoms in WATERS])
FORCES = np.array([atoms.get_forces() for atoms in WATERS])


def write_data(path: Path) -> None:
    lines = []
    for places, energy, forces in zip(POSITIONS, ENERGIES, FORCES, strict=True):
        lines += ["begin", "lattice 9 0 0", "lattice 0 9 0", "lattice 0 0 9"]
        for symbol, place, force in zip("OHH", places, forces, strict=True):
            numbers = " ".join(f"{x:.8f}" for x in place)
            pushes = " ".join(f"{x:.8f}" for x in force)
            lines.append(f"atom {numbers} {symbol} 0 0 {pushes}")
        lines += [f"energy {energy:.8f}", "charge 0", "end"]
    path.write_text("\n".join(lines) + "\n")


def write_dump(path: Path) -> None:
    lines = []
    for step, (places, forces) in enumerate(zip(POSITIONS, FORCES, strict=True)):
        lines += ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", "3"]
        lines += ["ITEM: BOX BOUNDS pp pp pp", "0 9", "0 9", "0 9"]
        lines.append("ITEM: ATOMS id element x y z fx fy fz")
        for number, (symbol, place, force) in enumerate(zip("OHH", places, forces, strict=True)):
            words = " ".join(f"{x:.6f}" for x in (*place, *force))
            lines.append(f"{number + 1} {symbol} {words}")
    path.write_text("\n".join(lines) + "\n")


def write_md17(path: Path) -> None:
    np.savez(path, z=np.array([8, 1, 1]), R=POSITIONS, E=ENERGIES, F=FORCES)


def write_zipped_npz(path: Path) -> None:
    np.savez_compressed(path, z=np.array([8, 1, 1]), R=POSITIONS, E=ENERGIES, F=FORCES)


def write_hdf5(path: Path, names: tuple[str, str, str]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("H2O")
        group["atomic_numbers"] = np.array([8, 1, 1])
        for name, values in zip(names, (POSITIONS, ENERGIES, FORCES), strict=True):
            group[name] = values


def write_ani1x(path: Path) -> None:
    write_hdf5(path, ("coordinates", "wb97x_dz.energy", "wb97x_dz.forces"))


def write_spice(path: Path) -> None:
    write_hdf5(path, ("conformations", "dft_total_energy", "dft_total_gradient"))


def write_database(path: Path) -> None:
    with ase.db.connect(path) as database:
        for atoms in WATERS:
            database.write(atoms)


def write_sdf(path: Path) -> None:
    records = []
    for places in POSITIONS:
        rows = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0"
            for symbol, (x, y, z) in zip("OHH", places, strict=True)
        ]
        records += ["water", " x", "", "  3  0  0  0 V2000", *rows, "M  END", "$$$$"]
    path.write_text("\n".join(records) + "\n")


def write_csv(path: Path) -> None:
    head = "charge0,charge1,system_id,elements,xyz,cbs_CCSD(T)_all"
    rows = [
        f"0,0,{n},O H H,{' '.join(map(str, places.ravel()))},-1.0"
        for n, places in enumerate(POSITIONS)
    ]
    path.write_text("\n".join([head, *rows]) + "\n")


def write_extxyz(path: Path) -> None:
    ase.io.write(path, WATERS, format="extxyz")


def write_gz(path: Path) -> None:
    plain = path.with_name("plain.extxyz")
    write_extxyz(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()


def write_traj(path: Path) -> None:
    ase.io.write(path, WATERS, format="traj")


def write_qm9(path: Path) -> None:
    rows = [
        f"{s}\t{x:.5f}\t{y:.5f}\t{z:.5f}\t0.1" for s, (x, y, z) in zip("OHH", PLACES, strict=True)
    ]
    targets = "\t".join(["1.5"] * 15)
    path.write_text("\n".join(["3", f"gdb 3\t{targets}\t", *rows, "1\t2", "O\tO", "I\tI"]) + "\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "water.data": write_data,
    "water.dump": write_dump,
    "water.npz": write_md17,
    "zipped.npz": write_zipped_npz,
    "ani1x.h5": write_ani1x,
    "spice.h5": write_spice,
    "water.db": write_database,
    "water.sdf": write_sdf,
    "water.csv": write_csv,
    "water.extxyz": write_extxyz,
    "water.extxyz.gz": write_gz,
    "water.traj": write_traj,
    "some.xyz": write_qm9,
}


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
