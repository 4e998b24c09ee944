from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from study.core.atomic_io import append_json, read_json_lines
from study.core.errors import UserError
from study.core.records import JobResult
from study.datasets.frames import Frames, read_header
from study.datasets.prepare import prepare
from study.datasets.readers.conformers import box
from study.datasets.splits import split
from study.inference.ase_calculator import StudyCalculator
from study.inference.predictor import TrainedPotential
from study.inference.trained_model import resolve_trained_model
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, load_outcome
from study.planning.study_dir import StudyFolder
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


def trials_of(study: StudyFolder) -> list[tuple[Job, Outcome]]:
    found = []
    for entry in Journal(study.journal, "val_force_rmse").entries().values():
        outcome = load_outcome(entry.planned.work.folder(study.root))
        assert outcome is not None
        found.append((entry.planned.work, outcome))
    return found


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_a_study_stands_for_its_best_trial_in_validation(small_study: StudyFolder) -> None:
    trials = trials_of(small_study)
    errors = [min(r.metrics["val_force_rmse"] for r in end.history) for _, end in trials]
    best, _ = trials[int(np.argmin(errors))]
    assert resolve_trained_model(small_study.path).job == best


@pytest.mark.parametrize("number", range(4))
def test_predictions_have_the_test_errors_that_training_found(
    small_study: StudyFolder, water: Frames, number: int
) -> None:
    work, outcome = trials_of(small_study)[number]
    potential = TrainedPotential(resolve_trained_model(work.folder(small_study.root)))
    test = split(water, work.trial.split, work.trial.seed).test
    structures = [structure(water, index) for index in test]
    predicted = list(potential.predict(structures))
    forces = [f - atoms.get_forces() for (_, f), atoms in zip(predicted, structures, strict=True)]
    energies = [
        (energy - atoms.get_potential_energy()) / len(atoms)
        for (energy, _), atoms in zip(predicted, structures, strict=True)
    ]
    assert rms(forces) == pytest.approx(outcome.result.metrics["test_force_rmse"], rel=1e-6)
    assert rms(energies) == pytest.approx(outcome.result.metrics["test_energy_rmse"], rel=1e-6)


def test_forces_are_the_slope_of_the_energy_in_a_skewed_cell(
    small_study: StudyFolder, triclinic_water: Frames
) -> None:
    atoms = structure(triclinic_water, 1)
    atoms.calc = StudyCalculator(small_study.path)
    numeric = np.array([[_slope(atoms, i, axis) for axis in range(3)] for i in range(6)])
    np.testing.assert_allclose(atoms.get_forces()[:6], numeric, rtol=1e-5, atol=1e-6)


def _slope(atoms: Atoms, index: int, axis: int, h: float = 1e-4) -> float:
    """−∂E/∂x, eV/Å, from energies alone."""
    energies = []
    for step in (h, -h):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[index, axis] += step
        energies.append(moved.get_potential_energy())
    return (energies[1] - energies[0]) / (2 * h)


def test_a_box_smaller_than_the_cutoff_is_the_same_as_its_supercell(
    small_study: StudyFolder, water: Frames
) -> None:
    cell = np.array([[3.1, 0, 0], [0.9, 3.2, 0], [-0.4, 0.7, 3.3]])
    small = Atoms("OH2", water.positions[:3], cell=cell, pbc=True)
    large = small.repeat(2)
    small.calc = large.calc = StudyCalculator(small_study.path)
    assert large.get_potential_energy() == pytest.approx(8 * small.get_potential_energy())
    np.testing.assert_allclose(large.get_forces()[:3], small.get_forces(), atol=1e-9)


def test_atoms_outside_the_cell_are_the_same_as_inside(
    small_study: StudyFolder, water: Frames
) -> None:
    inside = structure(water, 0)
    outside = inside.copy()
    outside.positions += np.array([[3, -2, 1]]) @ inside.cell.array
    inside.calc = outside.calc = StudyCalculator(small_study.path)
    np.testing.assert_allclose(outside.get_forces(), inside.get_forces(), atol=1e-9)


def drift_and_exchange(atoms: Atoms, femtoseconds: float, steps: int) -> tuple[float, float]:
    """Largest change of the total energy, and range of the kinetic energy, eV."""
    spread = np.sqrt(units.kB * 100 / atoms.get_masses())[:, None]
    atoms.set_velocities(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    totals, kinetics = [], []
    dynamics = VelocityVerlet(atoms, timestep=femtoseconds * units.fs)
    for _ in dynamics.irun(steps):
        totals.append(atoms.get_total_energy())
        kinetics.append(atoms.get_kinetic_energy())
    return float(np.ptp(totals)), float(np.ptp(kinetics))


def test_dynamics_conserve_energy(small_study: StudyFolder, water: Frames) -> None:
    atoms = structure(water, 0)
    atoms.calc = StudyCalculator(small_study.path)
    drift, exchanged = drift_and_exchange(atoms, 0.1, 200)
    assert exchanged > 0.2
    assert drift < 1e-3 * exchanged


def predictions(path: Path) -> list[tuple[float, NDArray[np.float64]]]:
    frames = ase.io.read(path, index=":")
    return [(atoms.get_potential_energy(), atoms.get_forces()) for atoms in frames]


def test_the_command_writes_what_the_calculator_gives(
    small_study: StudyFolder,
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


def test_the_command_shows_the_errors_against_labels(
    small_study: StudyFolder, water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "water.extxyz"
    ase.io.write(given, [structure(water, index) for index in range(3)])
    assert main([str(small_study.path), str(given)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[-1].startswith("against the file's labels: force RMSE ")
    assert [path.name for path in tmp_path.iterdir()] == ["water.extxyz"]


def refusal(small_study: StudyFolder, atoms: Atoms) -> str:
    potential = TrainedPotential(resolve_trained_model(small_study.path))
    with pytest.raises(UserError) as refused:
        list(potential.predict([atoms]))
    return refused.value.problems[0]


def test_structures_unlike_the_training_frames_are_refused(
    small_study: StudyFolder, water: Frames
) -> None:
    molecule = Atoms("OH2", water.positions[:3])
    assert "must have a periodic cell" in refusal(small_study, molecule)
    other = structure(water, 0)
    other.numbers[3] = 11
    assert "has Na, which no frame had" in refusal(small_study, other)


def test_a_path_without_a_model_is_answered_in_a_line(
    small_study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "one.extxyz"
    ase.io.write(given, Atoms("O", cell=[4, 4, 4], pbc=True))
    pretrained = next((small_study.root / "work").glob("pretrain-*"))
    for place, rule in (
        (tmp_path, "no trained model of a study"),
        (pretrained, "is a pretraining"),
        (pretrained / "weights-0.safetensors", "is a pretraining"),
    ):
        assert main([str(place), str(given)]) == 2
        error = capsys.readouterr().err
        assert rule in error
        assert error.count("\n") == 1
    assert main([str(small_study.path), str(tmp_path / "none.xyz")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/none.xyz: no such file\n"


@pytest.fixture
def copied(small_study: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A study that may be changed."""
    shutil.copytree(small_study.root, tmp_path / "runs")
    return StudyFolder(tmp_path / "runs", small_study.name)


def test_a_study_predicts_the_test_frames_of_all_completed_trials(
    copied: StudyFolder, water: Frames, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(copied.path)]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("predictions of 4 trials\n", "")
    for work, outcome in trials_of(copied):
        found = np.load(work.folder(copied.root) / "predictions.npz")
        test = split(water, work.trial.split, work.trial.seed).test
        np.testing.assert_array_equal(found["frames"], test)
        off = found["forces"] - found["predicted_forces"]
        assert rms(off) == pytest.approx(outcome.result.metrics["test_force_rmse"], rel=1e-6)


def test_a_trial_that_was_stopped_early_does_not_stand_for_its_study(copied: StudyFolder) -> None:
    best = resolve_trained_model(copied.path).job
    # An audit has finished it, so its folder has an outcome.
    Journal(copied.journal, "val_force_rmse").ended(best, JobResult("stopped"))
    assert resolve_trained_model(copied.path).job.key != best.key


def change_journal(study: StudyFolder, old: str, new: str) -> None:
    """As another version of the code would have written it."""
    events = [json.dumps(event) for event in read_json_lines(study.journal)]
    assert any(old in event for event in events)
    study.journal.unlink()
    for event in events:
        append_json(study.journal, json.loads(event.replace(old, new)))


def test_models_of_other_code_are_used_if_they_still_do_what_was_tested(
    copied: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("study.inference.test_predictions.code_version", lambda: "other")
    for folder in (copied.root / "work").glob("pretrain-*"):
        shutil.rmtree(folder)
    assert main([str(copied.path)]) == 0
    told = capsys.readouterr()
    assert told.out == "predictions of 4 trials\n"
    assert told.err.startswith("warning: code or torch have changed since this study ran")
    assert told.err.count("\n") == 1


def test_models_that_other_code_makes_worse_are_refused(
    copied: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("study.inference.test_predictions.TOLERANCE", -1.0)
    assert main([str(copied.path)]) == 2
    error = capsys.readouterr().err
    assert "when it was tested; code or torch have changed since: check out the commit" in error
    assert error.count("\n") == 1
    assert not list(copied.root.glob("work/*/predictions.npz"))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('"hidden": 8', '"hiden": 8', "was written by another version of the code"),
        ('"hidden": 8', '"hidden": 9', "its weights do not fit the model"),
        ('"status": "completed"', '"status": "failed"', "no trial has completed yet"),
    ],
)
def test_a_study_that_cannot_predict_says_why_and_how_to_go_on(
    copied: StudyFolder, capsys: pytest.CaptureFixture[str], old: str, new: str, rule: str
) -> None:
    change_journal(copied, old, new)
    assert main([str(copied.path)]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1


def test_a_folder_without_a_study_is_no_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no study here; name a study's folder" in capsys.readouterr().err


def test_damaged_weights_are_not_used(small_study: StudyFolder, tmp_path: Path) -> None:
    trained = resolve_trained_model(small_study.path)
    content = bytearray(trained.weights.read_bytes())
    content[-1] ^= 1
    damaged = tmp_path / trained.weights.name
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="content does not match"):
        TrainedPotential(type(trained)(trained.job, damaged, trained.root))


def test_an_exported_model_predicts_the_same_without_its_class(
    small_study: StudyFolder, water: Frames, triclinic_water: Frames, tmp_path: Path
) -> None:
    given, out = tmp_path / "water.extxyz", tmp_path / "model.pt2"
    ase.io.write(given, structure(water, 0))
    assert main([str(small_study.path), str(given), "--export", str(out)]) == 0
    potential = TrainedPotential(resolve_trained_model(small_study.path))
    atoms = structure(triclinic_water, 0)[:9]
    graph = potential.graph([atoms])
    program = torch.export.load(out).module()
    energy, forces = program(graph.z, graph.pos, graph.edge_index, graph.shift)
    ((expected, expected_forces),) = potential.predict([atoms])
    assert float(energy) == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(forces.detach().numpy(), expected_forces, atol=1e-5)


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
    inside.cell, inside.pbc = box(inside.positions), True
    (energy, forces), (same, same_forces) = potential.predict([alone[0], inside])
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
