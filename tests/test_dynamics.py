"""Dynamics at constant energy: the integrator by theory, models by their energy, the command."""

from __future__ import annotations

import csv
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from study.datasets.frames import Frames
from study.dynamics import main
from study.inference.ase_calculator import StudyCalculator
from study.models.egnn import EGNN
from study.planning.study_dir import StudyDir


@pytest.fixture
def structure(water: Frames, tmp_path: Path) -> Path:
    path = tmp_path / "water.extxyz"
    inside = slice(*water.offsets[:2])
    ase.io.write(
        path, Atoms(water.numbers[inside], water.positions[inside], cell=water.cells[0], pbc=True)
    )
    return path


def test_the_command_writes_energies_that_add_up(
    small_study: StudyDir, structure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = structure.with_name("nve.csv")
    run = [str(small_study.path), str(structure), "--picoseconds", "0.004", "--timestep", "0.2"]
    assert main([*run, "--out", str(out), "--temperature", "100"]) == 0
    said = capsys.readouterr()
    assert "meV/atom/ps" in said.out
    assert "without constraints" in said.err  # Its labels are those of rigid molecules.
    with out.open() as opened:
        rows = [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(opened)
        ]
    assert [row["time"] for row in rows] == pytest.approx(np.arange(21) * 0.0002)
    atoms = ase.io.read(structure)
    atoms.calc = StudyCalculator(small_study.path)
    assert rows[0]["potential"] == pytest.approx(atoms.get_potential_energy())
    for row in rows:
        assert row["total"] == pytest.approx(row["kinetic"] + row["potential"])
        assert row["total"] == pytest.approx(len(atoms) * row["total_per_atom"])
    # Another 0.004 ps would overwrite it.
    assert main([*run, "--out", str(out)]) == 2
    assert "must not exist yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--timestep", "0"], "--timestep: must be above 0"),
        (["--timestep", "nan"], "--timestep: must be above 0"),
        (["--picoseconds", "0.0005"], "at least two steps"),
        (["--temperature", "-1"], "--temperature: must be above 0"),
        (["--seed", "-1"], "--seed: must be at least 0"),
    ],
)
def test_bad_options_are_answered_in_a_line(
    options: list[str], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nve.csv"
    assert main(["runs", "water.extxyz", "--out", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_models_whose_forces_are_no_gradient_are_refused(
    small_study: StudyDir,
    structure: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    never = property(lambda _: False, lambda *_: None)
    monkeypatch.setattr(EGNN, "conservative", never)
    out = structure.with_name("nve.csv")
    assert main([str(small_study.path), str(structure), "--out", str(out)]) == 2
    assert "no gradient of its energy" in capsys.readouterr().err
    assert not out.exists()
