"""Training on what research files hold: lone atoms, slabs, wires and liquids in one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from study.datasets.frames import Frames
from study.datasets.parsing.header import read_header
from study.datasets.prepare import prepare, sizes_of
from study.datasets.splits import split
from study.inference.ase_calculator import StudyCalculator
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.predict import main
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.trial import Trial

MODELS = ["egnn", "gns", "forcenet", "schnet", "visnet", "equivariant_transformer"]


def argon(pbc: tuple[bool, bool, bool], seed: int) -> Atoms:
    """Eight atoms of a Lennard-Jones gas at the density of its liquid, labelled by ASE."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[[0, 1.7]] * 3), axis=-1).reshape(-1, 3)
    made = Atoms("Ar8", grid + rng.uniform(-0.2, 0.2, (8, 3)), cell=[3.4, 3.5, 3.6], pbc=pbc)
    made.calc = LennardJones(sigma=1.4, epsilon=0.1, rc=3.0, smooth=True)
    energy, forces = made.get_potential_energy(), made.get_forces()
    made.calc = SinglePointCalculator(made, energy=energy, forces=forces)
    return made


def lone(symbol: str, energy: float) -> Atoms:
    """An atom on its own, with an energy and no forces."""
    made = Atoms(symbol, [[energy, 0, 0]])
    made.calc = SinglePointCalculator(made, energy=energy)
    return made


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Liquid, slab, wire and cluster in turn, and lone atoms between them."""
    kinds = [(True, True, True), (True, True, False), (False, False, True), (False,) * 3]
    frames = [argon(kinds[seed % 4], seed) for seed in range(16)]
    frames[2:2] = [lone("Ar", -0.01 * number) for number in range(4)]
    ase.io.write(tmp_path / "mixed.extxyz", frames)
    return tmp_path / "mixed.extxyz"


def trained(trial: Trial, root: Path) -> tuple[Path, Frames]:
    """Folder of a finished trial, found by what predicts, and its data."""
    folder = prepare(trial.dataset, root, 1, lambda *_: None)
    sizes = sizes_of(trial.dataset, root)
    assert sizes is not None
    trial.check_sizes(sizes)
    job = Job("trial", trial, read_header(folder)["content_hash"])
    if trial.pretrain is not None:
        list(run_job(job.pretraining, root, folder))  # type: ignore[arg-type]
    list(run_job(job, root, folder))
    Journal(root / "studies" / "s" / "journal.jsonl", "").planned(Planned(0, job))
    return job.folder(root), Frames.load(folder)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_to_the_end_and_is_tested_on_the_labels_there_are(
    model: str, mixed: Path, tiny: Callable[..., Trial], tmp_path: Path
) -> None:
    stage = {"task": {"name": "denoising", "noise_scale": 0.05}, "epochs": 1, "batch_size": 3}
    trial = tiny(
        dataset={"name": "ase_file", "path": str(mixed)},
        model={"name": model, "hidden": 8, "layers": 1, "cutoff": 3.0},
        split={"by": "frame", "test": 0.3, "validation": 0.3},
        pretrain=stage,
        finetune__batch_size=1,
        finetune__epochs=2,
        finetune__task={"name": "energy_forces", "energy_reference": "per_element"},
    )
    place, frames = trained(trial, tmp_path)
    test = frames.select(split(frames, trial.split, trial.seed).test)
    assert 0 < test.labelled("forces").sum() < len(test), "the test needs frames of both kinds"
    outcome = load_outcome(place)
    assert outcome is not None
    metrics = outcome.result.metrics
    known = test.forces[np.isfinite(test.forces)]
    assert metrics["trivial_force_rmse"] == pytest.approx(np.sqrt((known**2).mean()), rel=1e-5)
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_calculator_moves_slabs_as_it_moves_bulk_with_vacuum(
    mixed: Path, tiny: Callable[..., Trial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = tiny(
        dataset={"name": "ase_file", "path": str(mixed)},
        model={"name": "egnn", "hidden": 8, "layers": 2, "cutoff": 3.0},
        split={"by": "frame"},
        pretrain=None,
    )
    place, _ = trained(trial, tmp_path)
    slab = argon((True, True, False), 40)
    slab.rotate(30, "y", rotate_cell=True)
    apart = slab.copy()
    apart.cell[2] *= 10
    apart.pbc = True
    wrong = slab.copy()
    wrong.pbc = True
    energies, forces = [], []
    for atoms in (slab, apart, wrong):
        atoms.calc = StudyCalculator(place)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    assert energies[0] == pytest.approx(energies[1], abs=1e-10)
    np.testing.assert_allclose(forces[0], forces[1], atol=1e-10)
    assert abs(energies[2] - energies[0]) > 1e-6
    step, moved = 1e-4, []
    for way in (step, -step):
        atoms = slab.copy()
        atoms.positions[3, 2] += way
        atoms.calc = StudyCalculator(place)
        moved.append(atoms.get_potential_energy())
    assert (moved[1] - moved[0]) / (2 * step) == pytest.approx(forces[0][3, 2], abs=1e-6)
    assert main([str(place), str(mixed)]) == 0
    assert "meV/Å of 16 of 20 frames, energy RMSE" in capsys.readouterr().out
