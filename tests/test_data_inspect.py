"""`study.data` inspect, verify, split and export, on sets of every kind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from numpy.typing import NDArray

from study.core.errors import UserError
from study.data import main
from study.datasets.diagnostics import warnings
from study.datasets.frames import Frames
from study.datasets.inspection import summary
from study.datasets.readers.detect import read_set
from study.datasets.split_config import Split
from study.datasets.splits import split

HARTREE, BOHR = 27.211386245988, 0.529177210903
KCAL = 0.0433641
"""eV in one kcal/mol."""


def same(one: Frames, other: Frames, atol: float = 1e-7) -> None:
    for name in ("numbers", "positions", "forces", "offsets", "cells", "energies"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=atol)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def write_system(folder: Path, frames: Frames, *, sets: int = 2) -> None:
    """As the format's description says: types by place in type_map, a row per frame."""
    atoms = int(frames.sizes[0])
    folder.mkdir(parents=True)
    (folder / "type_map.raw").write_text("H\nO\n")
    kinds = [{1: 0, 8: 1}[number] for number in frames.numbers[:atoms].tolist()]
    (folder / "type.raw").write_text("\n".join(map(str, kinds)))
    for number, rows in enumerate(np.array_split(np.arange(len(frames)), sets)):
        here = folder / f"set.{number:03}"
        here.mkdir()
        np.save(here / "energy.npy", frames.energies[rows])
        for name, array in (("coord", frames.positions), ("force", frames.forces)):
            np.save(here / f"{name}.npy", array.reshape(len(frames), -1)[rows].astype(np.float32))
        np.save(here / "box.npy", frames.cells[rows].reshape(-1, 9))


def test_deepmd_systems_are_read_with_a_group_each(
    water: Frames, triclinic_water: Frames, tmp_path: Path
) -> None:
    write_system(tmp_path / "a", water)
    write_system(tmp_path / "b" / "c", triclinic_water, sets=1)
    frames = read_set(tmp_path)
    same(frames.select(np.arange(12)), water, atol=1e-5)
    same(frames.select(np.arange(12, 16)), triclinic_water, atol=1e-5)
    assert frames.groups.tolist() == 12 * [0] + 4 * [1]


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda folder: (folder / "type_map.raw").unlink(), "must name the elements"),
        (lambda folder: (folder / "type_map.raw").write_text("H"), "type.raw must hold a number"),
        (lambda folder: (folder / "set.000" / "coord.npy").unlink(), "must have coord.npy or"),
        (lambda folder: (folder / "set.000" / "box.npy").unlink(), "must have box.npy or box.raw"),
        (
            lambda folder: np.save(folder / "set.000" / "coord.npy", np.zeros((6, 9))),
            "coord.npy: must have shape (6, 72), but got (6, 9)",
        ),
        (
            lambda folder: np.save(folder / "set.000" / "real_atom_types.npy", np.zeros(1)),
            "real_atom_types.npy must have shape (6, 24), but got (1,)",
        ),
    ],
)
def test_broken_deepmd_systems_are_answered_in_a_line(
    water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object, rule: str
) -> None:
    write_system(tmp_path / "a", water)
    assert callable(damage)
    damage(tmp_path / "a")
    assert rule in error_of(capsys, "inspect", tmp_path / "a")


def test_gamd_files_are_read_in_order_with_a_group_per_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    positions, forces = rng.uniform(0, 20, (4, 774, 3)), rng.normal(size=(4, 774, 3))
    for number, (seed, frame) in enumerate([(0, 2), (0, 10), (1, 0), (1, 1)]):
        np.savez(
            tmp_path / f"data_{seed}_{frame}.npz",
            pos=positions[number],
            forces=forces[number] * 964.8533,
            energy=np.array([96.48533 * number]),
        )
    frames = read_set(tmp_path)
    np.testing.assert_allclose(frames.positions, positions.reshape(-1, 3))
    np.testing.assert_allclose(frames.forces, forces.reshape(-1, 3), rtol=1e-6)
    np.testing.assert_allclose(frames.energies, [0, 1, 2, 3], rtol=1e-6)
    assert frames.groups.tolist() == [0, 0, 1, 1]
    assert frames.numbers[:4].tolist() == [8, 1, 1, 8]
    np.testing.assert_allclose(frames.cells, 4 * [20 * np.eye(3)])


def test_gamd_files_without_energies_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "data_0_0.npz", pos=np.zeros((3, 3)), forces=np.zeros((3, 3)))
    assert "must hold pos, forces and energy" in error_of(capsys, "inspect", tmp_path)
    (tmp_path / "data_0_0.npz").write_bytes(b"no zip")
    assert "is no npz file" in error_of(capsys, "inspect", tmp_path)


def test_what_is_exported_is_read_back_the_same(
    triclinic_water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    triclinic_water.save(tmp_path / "set")
    out = tmp_path / "out.extxyz"
    assert main(["export", str(tmp_path / "set"), str(out)]) == 0
    assert "4 frames" in capsys.readouterr().out
    again = read_set(out)
    same(again, triclinic_water)
    assert len(np.unique(again.groups)) == len(np.unique(triclinic_water.groups))
    # ASE, which wrote it, reads it too.
    (first, *_) = ase.io.read(out, index=":")
    assert first.get_potential_energy() == pytest.approx(triclinic_water.energies[0])


def test_every_third_frame_can_be_exported(water: Frames, tmp_path: Path) -> None:
    water.save(tmp_path / "set")
    assert main(["export", str(tmp_path / "set"), str(tmp_path / "o.extxyz"), "--every", "3"]) == 0
    same(read_set(tmp_path / "o.extxyz"), water.select(np.array([0, 3, 6, 9])))


@pytest.mark.parametrize("by", ["trajectory", "frame"])
@pytest.mark.parametrize("test", [0.3, 2])
def test_the_parts_are_those_of_a_trial(
    water: Frames, tmp_path: Path, by: str, test: float
) -> None:
    water.save(tmp_path / "set")
    options = ["--by", by, "--test", f"{test}", "--seed", "5"]
    assert main(["split", str(tmp_path / "set"), str(tmp_path / "parts"), *options]) == 0
    parts = split(water, Split.model_validate({"by": by, "test": test}), 5)
    for name, indices in vars(parts).items():
        same(read_set(tmp_path / "parts" / f"{name}.extxyz"), water.select(indices))


def test_nothing_is_overwritten_and_bad_options_are_answered_in_a_line(
    water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "set"
    water.save(place)
    assert "must not exist yet" in error_of(capsys, "export", place, place)
    assert "must not exist yet" in error_of(capsys, "split", place, place)
    assert "--every: must be at least 1" in error_of(
        capsys, "export", place, tmp_path / "o.extxyz", "--every", "0"
    )
    assert "--test: " in error_of(capsys, "split", place, tmp_path / "p", "--test", "1.5")
    assert "--test: " in error_of(capsys, "split", place, tmp_path / "p", "--test", "0")
    assert "every part needs a frame" in error_of(
        capsys, "split", place, tmp_path / "p", "--test", "4"
    )
    assert "no such file" in error_of(capsys, "inspect", tmp_path / "nope")
    assert "no data set here" in error_of(capsys, "inspect", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_verify_finds_every_damaged_set(
    water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        water.save(tmp_path / "data" / name)
    assert main(["verify", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("ok  ") == 3
    damaged = tmp_path / "data" / "b" / "forces.npy"
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    (tmp_path / "data" / "c" / "cells.npy").unlink()
    assert main(["verify", "--out", str(tmp_path)]) == 2
    spoken = capsys.readouterr()
    assert spoken.out.count("ok  ") == 1
    assert "b/forces.npy" in spoken.err
    assert "c/cells.npy" in spoken.err
    shutil.rmtree(tmp_path / "data")
    assert "no data set here" in error_of(capsys, "verify", "--out", tmp_path)


def test_verify_finds_what_no_set_may_contain(
    water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    positions = water.positions.copy()
    positions[1] = positions[0]
    replace(water, positions=positions).save(tmp_path / "set")
    assert "two atoms in the same place" in error_of(capsys, "verify", tmp_path / "set")


def test_inspect_shows_the_nearest_contact_of_each_pair_of_elements(water: Frames) -> None:
    shown = summary(water)["nearest contacts"]
    shortest = {"H-H": np.inf, "H-O": np.inf, "O-O": np.inf}
    for index in range(len(water)):
        frame = water.select(np.array([index]))
        distances = _distances(frame.positions, frame.cells[0])
        for pair, kinds in {"H-H": (1, 1), "H-O": (1, 8), "O-O": (8, 8)}.items():
            rows, columns = (np.flatnonzero(frame.numbers == kind) for kind in kinds)
            block = distances[np.ix_(rows, columns)]
            shortest[pair] = min(shortest[pair], block[block > 0].min())
    expected = ", ".join(f"{pair} {length:.3f} Å" for pair, length in shortest.items())
    assert shown == expected


def _distances(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, N) minimum image, right for cubes."""
    apart = positions[None] - positions[:, None]
    apart -= np.round(apart / cell[0, 0]) * cell[0, 0]
    return np.asarray(np.linalg.norm(apart, axis=-1))


def test_repeated_frames_are_counted(water: Frames) -> None:
    twice = water.select(np.array([0, 1, 1, 0, 0]))
    assert summary(twice)["repeated frames"] == "3"
    assert any("3 frames repeat an earlier one" in line for line in warnings(twice))


def test_consistent_units_are_not_warned_of(water: Frames) -> None:
    assert not [line for line in warnings(water) if "units" in line or "positions in" in line]


def test_wrong_lengths_are_found(water: Frames) -> None:
    in_bohr = replace(water, positions=water.positions / BOHR, cells=water.cells / BOHR)
    assert any("are positions in Bohr?" in line for line in warnings(in_bohr))
    in_nm = replace(water, positions=water.positions / 10, cells=water.cells / 10)
    assert any("are positions in nm?" in line for line in warnings(in_nm))


@pytest.fixture(scope="module")
def trajectory(water: Frames, relabel: object) -> Frames:
    """20 frames in which the atoms of one move on by 0.01 Å each."""
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.normal(scale=0.01, size=(20, 24, 3)), axis=0)
    positions = (water.positions[:24] + steps).reshape(-1, 3)
    frames = replace(water.select(np.zeros(20, dtype=int)), positions=positions)
    assert callable(relabel)
    labelled = relabel(frames)
    assert isinstance(labelled, Frames)
    return labelled


@pytest.mark.parametrize(
    ("energy", "force", "guess"),
    [
        (1.0, 1.0, ""),
        (1 / KCAL, 1.0, "energies are in kcal/mol and forces in eV/Å"),
        (1 / 0.01036427, 1.0, "energies are in kJ/mol and forces in eV/Å"),
        (1 / HARTREE, 1.0, "energies are in Hartree and forces in eV/Å"),
        (1.0, BOHR / HARTREE, "energies are in eV and forces in Hartree/Bohr"),
        (1.0, -1.0, "forces are the gradient, not its negative"),
    ],
)
def test_energies_and_forces_of_different_units_are_found(
    trajectory: Frames, energy: float, force: float, guess: str
) -> None:
    frames = replace(
        trajectory, energies=trajectory.energies * energy, forces=trajectory.forces * force
    )
    found = [line for line in warnings(frames) if "units belong together" in line]
    assert len(found) == bool(guess)
    assert guess in "".join(found)


def test_a_file_that_is_no_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="not readable by ASE"):
        read_set(tmp_path / "notes.txt")
