from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from study.datasets.frames import Frames
from study.datasets.splits import Splits
from study.inference.ase_calculator import StudyCalculator
from study.inference.trained_model import resolve_trained_model
from study.pipeline.outcome import load_outcome
from study.planning.study_dir import StudyDir
from study.predict import main


def structure(frames: Frames, index: int) -> Atoms:
    """A frame with its labels."""
    atoms = slice(*frames.offsets[index : index + 2])
    made = Atoms(frames.numbers[atoms], frames.positions[atoms], cell=frames.cells[index], pbc=True)
    made.calc = SinglePointCalculator(
        made, energy=frames.energies[index], forces=frames.forces[atoms]
    )
    return made


def predictions(path: Path) -> list[tuple[float, NDArray[np.float64]]]:
    frames = ase.io.read(path, index=":")
    return [(atoms.get_potential_energy(), atoms.get_forces()) for atoms in frames]


def test_the_command_writes_what_the_calculator_gives(
    small_study: StudyDir,
    mixed_water: Frames,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, out = tmp_path / "mixed.extxyz", tmp_path / "out.extxyz"
    structures = [structure(mixed_water, index) for index in range(4)]
    ase.io.write(given, structures)
    arguments = [str(small_study.path), str(given), "--precision", "float64", "--json"]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    calculator = StudyCalculator(small_study.path)
    for number, (energy, forces) in enumerate(predictions(out)):
        atoms = structures[number].copy()
        atoms.calc = calculator
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-6)
        assert printed[number]["energy"] == pytest.approx(energy, abs=1e-6)


def test_frames_that_the_model_was_trained_on_are_told(
    small_study: StudyDir, water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = resolve_trained_model(small_study.path)
    outcome = load_outcome(trained.weights.parent)
    assert outcome is not None
    splits = Splits.load(small_study.root / "splits", str(outcome.result.facts["split_hash"]))
    assert splits is not None

    def told(indices: list[int]) -> str:
        given = tmp_path / "given.extxyz"
        ase.io.write(given, [structure(water, index) for index in indices])
        assert main([str(small_study.path), str(given)]) == 0
        return capsys.readouterr().err

    mixed = [*splits.train[:2], splits.validation[0], splits.test[0]]
    warning = "trained on 2 of these 4 structures, and 1 chose its best epoch; its errors"
    assert warning in told([int(index) for index in mixed])
    assert "warning" not in told(splits.test[:2].tolist())


def test_the_command_shows_the_errors_against_labels(
    small_study: StudyDir, water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "water.extxyz"
    ase.io.write(given, [structure(water, index) for index in range(3)])
    assert main([str(small_study.path), str(given)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[-1].startswith("against the file's labels: force RMSE ")
    assert [path.name for path in tmp_path.iterdir()] == ["water.extxyz"]


def test_of_what_a_file_holds_the_first_lines_are_shown_and_its_path(
    small_study: StudyDir, water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "water.extxyz", tmp_path / "out.extxyz"
    ase.io.write(given, [structure(water, index % 3) for index in range(12)])
    assert main([str(small_study.path), str(given), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(predictions(out)) == 12
    assert lines[10].split()[0] == "9"
    assert lines[11:13] == ["and 2 more", f"written: {out}"]
    assert lines[13].startswith("against the file's labels: force RMSE ")
