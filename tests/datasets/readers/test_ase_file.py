"""Files that ASE reads: the same numbers as ASE, its groups, refusals that name the frame."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.readers.ase_file import read, write
from study.datasets.splits import sizes_of
from study.datasets.validation import check

DATA = Path(os.environ.get("STUDY_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
CELL = [[5.0, 0, 0], [1.0, 6, 0], [-1, 0.5, 7]]


def frame(seed: int, atoms: int = 3, **info: object) -> Atoms:
    """Labelled, triclinic."""
    rng = np.random.default_rng(seed)
    made = Atoms(rng.choice([1, 8], atoms), rng.random((atoms, 3)) @ CELL, cell=CELL, pbc=True)
    made.calc = SinglePointCalculator(made, energy=rng.normal(), forces=rng.normal(size=(atoms, 3)))
    made.info |= info
    return made


def assert_same(frames: Frames, expected: list[Atoms]) -> None:
    assert frames.sizes.tolist() == list(map(len, expected))
    np.testing.assert_array_equal(frames.numbers, np.concatenate([a.numbers for a in expected]))
    for found, wanted in (
        (frames.positions, np.concatenate([a.positions for a in expected])),
        (frames.forces, np.concatenate([a.calc.results["forces"] for a in expected])),
        (frames.cells, np.stack([a.cell.array for a in expected])),
        (frames.energies, [a.calc.results["energy"] for a in expected]),
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.fixture
def mixed() -> list[Atoms]:
    """Frames of 3, 5 and 1 atoms."""
    return [frame(0), frame(1, 5), frame(2, 1)]


@pytest.mark.parametrize("name", ["set.extxyz", "set.traj", "set.db", "set.json"])
def test_every_format_keeps_atoms_cells_and_labels(
    name: str, mixed: list[Atoms], tmp_path: Path
) -> None:
    ase.io.write(tmp_path / name, mixed)
    assert_same(read(tmp_path / name), mixed)


def test_a_zipped_file_reads_like_the_plain_one(mixed: list[Atoms], tmp_path: Path) -> None:
    plain, zipped = tmp_path / "set.extxyz", tmp_path / "set.extxyz.gz"
    ase.io.write(plain, mixed)
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(zipped).content_hash() == read(plain).content_hash()


def test_forces_of_fixed_atoms_are_those_of_the_calculator(tmp_path: Path) -> None:
    fixed = frame(0)
    fixed.set_constraint(FixAtoms([0, 1, 2]))
    ase.io.write(tmp_path / "set.traj", fixed)
    assert_same(read(tmp_path / "set.traj"), [fixed])


def test_frames_of_one_name_are_a_group_and_those_without_share_one(tmp_path: Path) -> None:
    named = [frame(0, group="a"), frame(1, group="b"), frame(2), frame(3, group="a")]
    ase.io.write(tmp_path / "set.extxyz", [*named, frame(4)])
    first, second, none, again, nothing = read(tmp_path / "set.extxyz").groups.tolist()
    assert first == again
    assert none == nothing
    assert len({first, second, none}) == 3


def test_the_group_comes_before_the_config_type(tmp_path: Path) -> None:
    frames = [frame(i, group=i // 2, config_type="bulk") for i in range(4)]
    ase.io.write(tmp_path / "set.extxyz", frames)
    assert read(tmp_path / "set.extxyz").groups.tolist() == [0, 0, 1, 1]


def test_a_database_names_groups_by_its_keys(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "set.db") as database:
        for seed, group in enumerate("aba"):
            database.write(frame(seed), group=group)
    assert read(tmp_path / "set.db").groups.tolist() == [0, 1, 0]


def with_energy_nan(atoms: Atoms) -> None:
    atoms.calc.results["energy"] = np.nan


def with_a_force_nan(atoms: Atoms) -> None:
    atoms.calc.results["forces"][1, 2] = np.nan


def with_a_ghost(atoms: Atoms) -> None:
    atoms.numbers[1] = 0


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (with_energy_nan, "must have finite numbers as `energy`"),
        (with_a_force_nan, "must have finite numbers as `forces`"),
        (with_a_ghost, "must name the element"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(
    damage: Callable[[Atoms], None], rule: str, tmp_path: Path
) -> None:
    good, bad = frame(0), frame(1)
    damage(bad)
    ase.io.write(tmp_path / "set.traj", [good, bad, good])
    with pytest.raises(UserError, match=rule) as refused:
        read(tmp_path / "set.traj")
    assert str(refused.value).startswith(f"{tmp_path / 'set.traj'}: frame 1 (from 0)")
    assert "\n" not in str(refused.value)


def test_a_file_without_labels_is_a_set_without_labels(tmp_path: Path) -> None:
    bare = [frame(0), frame(1, 5)]
    for atoms in bare:
        atoms.calc = None
    ase.io.write(tmp_path / "set.extxyz", bare)
    frames = read(tmp_path / "set.extxyz")
    check(frames, tmp_path)
    assert frames.labels == ()
    assert np.isnan(frames.energies).all()
    assert np.isnan(frames.forces).all()


def test_properties_are_taken_from_info_and_database_where_they_are_numbers(
    tmp_path: Path,
) -> None:
    some = [frame(0, homo=-6.5, mu=[1.0, 2.0, 3.0]), frame(1, multiplicity=3)]
    ase.io.write(tmp_path / "set.extxyz", some)
    with ase.db.connect(tmp_path / "set.db") as database:
        database.write(some[0], homo=-6.5)
        database.write(some[1], multiplicity=3)
    for name in ("set.extxyz", "set.db"):
        frames = read(tmp_path / name)
        assert frames.labels == ("energy", "forces", "homo", "multiplicity")
        np.testing.assert_array_equal(frames.properties["homo"], [-6.5, np.nan])
        np.testing.assert_array_equal(frames.properties["multiplicity"], [np.nan, 3])


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("set.extxyz", "", "must hold a frame, but holds none"),
        (
            "set.extxyz",
            "2\nProperties=species:S:1:pos:R:3\nH 0 0 0\n",
            "frame 0 (from 0): cannot be read (must have a line for each of its 2 atoms",
        ),
        ("set.nonsense", "what is this?\n", "frame 0 (from 0): not readable"),
        ("set.extxyz.gz", "not zipped", "must begin with its number of atoms"),
    ],
)
def test_a_file_that_ase_cannot_read_is_refused_in_one_line(
    name: str, content: str, rule: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as refused:
        read(tmp_path / name)
    assert rule in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_ase_the_answer_is_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(UserError, match="pip install ase"):
        read(tmp_path / "set.extxyz")


def test_the_real_dft_file_agrees_with_ase_and_holds_water(tmp_path: Path) -> None:
    path = DATA / "pbe0ts_water_192atoms.extxyz.gz"
    if not path.exists():
        pytest.skip(f"no {path}; STUDY_TEST_DATA names the folder with {path.name}")
    plain = tmp_path / path.stem
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    frames = read(path)
    assert_same(frames, ase.io.read(plain, ":"))
    assert (len(frames), set(frames.sizes.tolist())) == (400, {192})
    np.testing.assert_allclose(frames.cells, np.tile(12.4446611 * np.eye(3), (400, 1, 1)))
    check(frames, path)
    assert sizes_of(frames).waters == 64


@pytest.mark.parametrize("name", ["energy", "forces"])
def test_frames_have_the_labels_that_the_file_gives_them(name: str, tmp_path: Path) -> None:
    made = [frame(seed) for seed in range(4)]
    del made[1].calc.results[name]
    made[2].calc = None
    ase.io.write(tmp_path / "some.extxyz", made)
    frames = read(tmp_path / "some.extxyz")
    check(frames, tmp_path)
    assert frames.labelled(name).tolist() == [True, False, False, True]
    other = {"energy": "forces", "forces": "energy"}[name]
    assert frames.labelled(other).tolist() == [True, True, False, True]
    frames.save(tmp_path / "stored")
    write(Frames.load(tmp_path / "stored"), tmp_path / "out.extxyz")
    again = ase.io.read(tmp_path / "out.extxyz", ":")
    for atoms, given in zip(again, made, strict=True):
        results = given.calc.results if given.calc else {}
        assert (atoms.calc.results if atoms.calc else {}).keys() == results.keys()
        for label, value in results.items():
            np.testing.assert_allclose(atoms.calc.results[label], value, atol=1e-7)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (False,) * 3])
def test_slabs_and_wires_keep_their_cell_and_where_they_repeat(
    pbc: tuple[bool, ...], tmp_path: Path
) -> None:
    made = [frame(seed) for seed in range(3)]
    for atoms in made[1:]:
        atoms.pbc = atoms.calc.atoms.pbc = pbc
    ase.io.write(tmp_path / "mixed.extxyz", made)
    frames = read(tmp_path / "mixed.extxyz")
    check(frames, tmp_path)
    content = frames.save(tmp_path / "stored")
    stored = Frames.load(tmp_path / "stored")
    assert stored.content_hash() == content
    assert replace(stored, pbc=np.ones(3, bool)).content_hash() != content
    write(stored.select(np.array([2, 0])), tmp_path / "out.extxyz")
    again = ase.io.read(tmp_path / "out.extxyz", ":")
    assert [atoms.pbc.tolist() for atoms in again] == [list(pbc), [True] * 3]
    for atoms in again:
        np.testing.assert_allclose(atoms.cell.array, CELL, atol=1e-7)


def test_molecules_without_a_cell_are_not_periodic(tmp_path: Path) -> None:
    made = [frame(seed) for seed in range(3)]
    for atoms in made[:2]:
        atoms.pbc, atoms.cell = False, None
        atoms.calc.atoms.pbc, atoms.calc.atoms.cell = False, None
    ase.io.write(tmp_path / "mixed.extxyz", made)
    frames = read(tmp_path / "mixed.extxyz")
    np.testing.assert_allclose(frames.cells[2], CELL)
    assert frames.isolated.tolist() == [True, True, False]
    assert not frames.lattices[:2].any()


def test_a_folder_takes_names_in_any_case_and_tells_what_it_leaves(tmp_path: Path) -> None:
    for name in ("a.extxyz", "B.XYZ"):
        ase.io.write(tmp_path / name, frame(1), format="extxyz")
    (tmp_path / "c.xyz.gz").write_bytes(gzip.compress((tmp_path / "a.extxyz").read_bytes()))
    (tmp_path / "vasprun.xml").touch()
    frames = read(tmp_path)
    assert len(frames) == 3
    assert frames.origin["labels"] == [
        "1 files of other kinds in the folder are not read, such as vasprun.xml"
    ]


def test_a_file_of_a_folder_without_a_frame_is_told(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", frame(1))
    (tmp_path / "b.extxyz").touch()
    assert read(tmp_path).origin["labels"] == ["1 files hold no frame, such as b.extxyz"]
