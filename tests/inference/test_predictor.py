"""Predictions of trained models: errors, elements, cells and molecules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.header import read_header
from study.datasets.prepare import prepare
from study.datasets.splits import split
from study.inference.ase_calculator import StudyCalculator
from study.inference.predictor import TrainedPotential
from study.inference.trained_model import resolve_trained_model
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, load_outcome
from study.planning.study_dir import StudyDir
from study.predict import main
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.trial import Trial


def structure(frames: Frames, index: int) -> Atoms:
    """A frame with its labels."""
    atoms = slice(*frames.offsets[index : index + 2])
    made = Atoms(frames.numbers[atoms], frames.positions[atoms], cell=frames.cells[index], pbc=True)
    made.calc = SinglePointCalculator(
        made, energy=frames.energies[index], forces=frames.forces[atoms]
    )
    return made


def trials_of(study: StudyDir) -> list[tuple[Job, Outcome]]:
    trials = []
    for entry in Journal(study.journal, "val_force_rmse").entries().values():
        outcome = load_outcome(entry.planned.work.folder(study.root))
        assert outcome is not None
        trials.append((entry.planned.work, outcome))
    return trials


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("number", range(4))
def test_predictions_have_the_test_errors_that_training_found(
    small_study: StudyDir, water: Frames, number: int
) -> None:
    work, outcome = trials_of(small_study)[number]
    potential = TrainedPotential(resolve_trained_model(work.folder(small_study.root)))
    test = split(water, work.trial.split, work.trial.seed).test
    structures = [structure(water, index) for index in test]
    predicted = list(potential.predict(structures))
    pairs = list(zip(predicted, structures, strict=True))
    forces = [each.forces - atoms.get_forces() for each, atoms in pairs]
    energies = [(each.energy - atoms.get_potential_energy()) / len(atoms) for each, atoms in pairs]
    assert rms(forces) == pytest.approx(outcome.result.metrics["test_force_rmse"], rel=1e-6)
    assert rms(energies) == pytest.approx(outcome.result.metrics["test_energy_rmse"], rel=1e-6)


def _slope(atoms: Atoms, index: int, axis: int, h: float = 1e-4) -> float:
    """−∂E/∂x, eV/Å, from energies alone."""
    energies = []
    for step in (h, -h):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[index, axis] += step
        energies.append(moved.get_potential_energy())
    return (energies[1] - energies[0]) / (2 * h)


def refusal(small_study: StudyDir, atoms: Atoms) -> str:
    potential = TrainedPotential(resolve_trained_model(small_study.path))
    with pytest.raises(UserError) as refused:
        list(potential.predict([atoms]))
    return refused.value.problems[0]


def test_structures_unlike_the_training_frames_are_refused(
    small_study: StudyDir, water: Frames
) -> None:
    molecule = Atoms("OH2", water.positions[:3])
    assert "must have a periodic cell" in refusal(small_study, molecule)
    other = structure(water, 0)
    other.numbers[3] = 11
    assert "has Na, which no frame had" in refusal(small_study, other)


def test_damaged_weights_are_not_used(small_study: StudyDir, tmp_path: Path) -> None:
    trained = resolve_trained_model(small_study.path)
    content = bytearray(trained.weights.read_bytes())
    content[-1] ^= 1
    damaged = tmp_path / trained.weights.name
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="content does not match"):
        TrainedPotential(type(trained)(trained.job, damaged, trained.root))


def test_a_potential_of_molecules_takes_them_without_a_cell(
    water: Frames, tiny: Callable[..., Trial], tmp_path: Path
) -> None:
    alone = [Atoms("OH2", water.positions[3 * n : 3 * n + 3]) for n in range(8)]
    for number, atoms in enumerate(alone):
        forces = np.random.default_rng(number).normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=0.1 * number, forces=forces)
    given = tmp_path / "alone.extxyz"
    ase.io.write(given, alone)
    dataset = {"name": "ase_file", "path": str(given)}
    trial = tiny(dataset=dataset, pretrain=None, split={"by": "frame"}, finetune__epochs=2)
    folder = prepare(trial.dataset, tmp_path, 1, lambda *_: None)
    work = Job("trial", trial, read_header(folder)["content_hash"])
    list(run_job(work, tmp_path, folder))
    Journal(tmp_path / "studies" / "s" / "journal.jsonl", "").planned(Planned(0, work))
    place, out = work.folder(tmp_path), tmp_path / "model.pt2"
    potential = TrainedPotential(resolve_trained_model(place), precision="float64")
    inside = alone[0].copy()
    inside.cell, inside.pbc = np.ptp(inside.positions, axis=0) + 51, True
    (energy, forces, _), (same, same_forces, _) = potential.predict([alone[0], inside])
    assert np.abs(forces).max() > 1e-3
    assert energy == pytest.approx(same, abs=1e-9)
    np.testing.assert_allclose(forces, same_forces, atol=1e-9)
    moved = alone[0].copy()
    moved.calc = StudyCalculator(place)
    assert _slope(moved, 0, 1) == pytest.approx(forces[0, 1], abs=1e-6)
    assert main([str(place), str(given), "--export", str(out), "--json"]) == 0
    graph = TrainedPotential(resolve_trained_model(place)).graph([alone[0]])
    exported, _ = torch.export.load(out).module()(graph.z, graph.pos, graph.edge_index, graph.shift)
    assert float(exported) == pytest.approx(energy, rel=1e-5)
