"""Finetuning on a number of each structure: statistics, errors with their units, whole trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch_geometric.data import Data

from study import data, predict
from study.commands.predict import MOST_LINES
from study.core.errors import UserError
from study.core.quantities.metrics import METRICS
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.datasets.readers import ase_file
from study.datasets.readers.ase_file import structures
from study.datasets.splits import sizes_of, split
from study.graphs.graph_set import GraphSet
from study.inference import test_predictions
from study.inference.ase_calculator import StudyCalculator
from study.inference.predictor import TrainedScalar
from study.inference.trained_model import resolve_trained_model
from study.models.build import build_model
from study.models.config import EGNN, ForceNet
from study.models.potential import MAX_ATOMIC_NUMBER
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome, require_weights
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.search_space import load_space
from study.space.trial import Trial
from study.tasks.config import Scalar as ScalarSettings
from study.tasks.scalar import Scalar, mean_per_graph
from study.tracking.model_registry import log_model
from study.training.checkpoint import load_tensors

Tiny = Callable[..., Trial]


def molecules(count: int = 24, seed: int = 0) -> Frames:
    """Small molecules in vacuum: an extensive property of their elements, one of their size."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 7, count)
    numbers = rng.choice([1, 6, 8], sizes.sum())
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    bonds = np.array([0, 1.1, 2.2, 3.3, 4.4, 5.5])
    positions = np.concatenate(
        [np.stack([bonds[:n], rng.random(n), rng.random(n)], axis=1) for n in sizes]
    )
    carbons = np.add.reduceat(numbers == 6, offsets[:-1])
    hydrogens = np.add.reduceat(numbers == 1, offsets[:-1])
    return Frames(
        numbers=numbers,
        positions=positions,
        forces=np.full((len(numbers), 3), np.nan),
        offsets=offsets,
        cells=np.tile(60 * np.eye(3), (count, 1, 1)),
        energies=np.full(count, np.nan),
        groups=np.arange(count),
        properties={
            "u0": -1000.0 * carbons - 13.0 * hydrogens - 2000.0 * (sizes - carbons - hydrogens),
            "gap": 5.0 + 2.0 * carbons / sizes + rng.normal(0, 0.01, count),
        },
    )


def task_of(frames: Frames, target: str, **settings: Any) -> Scalar:
    graphs = GraphSet.build(frames, cutoff=3.0)
    scalar_settings = ScalarSettings(name="scalar", target=target, **settings)  # type: ignore[arg-type]
    return Scalar(scalar_settings, graphs)


def model_of(task: Scalar) -> Any:
    model = build_model(EGNN(name="egnn", hidden=8, layers=2, cutoff=3.0), 0)
    task.prepare(model, torch.arange(len(task.graphs)))
    return model.eval()


def all_of(frames: Frames) -> list[torch.Tensor]:
    return list(torch.arange(len(frames)).split(5))


def test_extensive_properties_are_learned_about_a_sum_over_elements() -> None:
    frames = molecules()
    task = task_of(frames, "u0")
    model = model_of(task)
    assert model.reference[6] == pytest.approx(-1000)
    assert model.reference[1] == pytest.approx(-13)
    assert model.reference[8] == pytest.approx(-2000)
    # What is a sum over elements is left without any error by them alone.
    assert task.trivial_errors(model, all_of(frames))["u0_mae"] < 1e-6


def test_intensive_properties_are_learned_about_the_mean() -> None:
    frames = molecules()
    gap = frames.properties["gap"]
    task = task_of(frames, "gap")
    errors = task.trivial_errors(model_of(task), all_of(frames))
    assert errors == pytest.approx(
        {"gap_rmse": gap.std(), "gap_mae": np.abs(gap - gap.mean()).mean()}
    )
    assert task.statistics.std == pytest.approx(gap.std())


def test_predictions_pool_atoms_and_scale_by_the_spread_of_the_labels() -> None:
    frames = molecules(6)
    for readout in ("sum", "mean"):
        task = task_of(frames, "gap", readout=readout)
        model = model_of(task)
        batch = task.gather(torch.arange(6))
        atoms = model.scalars(batch).detach().double().numpy()
        expected = []
        for index in range(6):
            here = slice(*frames.offsets[index : index + 2])
            pooled = atoms[here].sum() if readout == "sum" else atoms[here].mean()
            about = sum(model.reference[z].item() for z in frames.numbers[here])
            expected.append(pooled * task.statistics.std + about + model.frame_reference.item())
        errors = np.array(expected) - frames.properties["gap"]
        metrics = task.errors(model, all_of(frames))
        assert metrics["gap_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
        assert metrics["gap_rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)
        loss = task.loss(model, torch.arange(6), seeded(0)).item()
        assert loss == pytest.approx((errors**2).mean() / task.statistics.std**2, rel=1e-3)


def test_a_mean_does_not_depend_on_the_size_of_other_structures() -> None:
    task = task_of(molecules(6), "gap")
    batch = task.gather(torch.arange(6))
    ones = torch.ones(len(batch.z))
    torch.testing.assert_close(mean_per_graph(ones, batch), torch.ones(6))


def test_the_readout_of_every_kind_of_model_is_what_its_energy_is_made_of(water: Frames) -> None:
    batch = GraphSet.build(water, 3.4).gather(torch.arange(3))
    batch.masked = torch.zeros_like(batch.z)
    for settings in (
        EGNN(name="egnn", hidden=8, layers=2),
        ForceNet(name="forcenet", hidden=8, layers=2),
    ):
        model = build_model(settings, 0).eval()
        model.scale.fill_(2.0)
        summed = torch.zeros(3).index_add(0, batch.batch, model.scale * model.scalars(batch))
        torch.testing.assert_close(summed, model(batch).energy)


def test_every_error_has_a_unit() -> None:
    for name in ("u0", "mu", "cv", "alpha", "r2", "homo", "interaction_energy"):
        settings = ScalarSettings(name="scalar", target=name)  # type: ignore[arg-type]
        for error in settings.errors:
            for part in ("val", "test", "trivial"):
                assert METRICS[f"{part}_{error}"][0] != "1"
    assert METRICS["test_mu_mae"][0] == "D"
    assert METRICS["test_cv_mae"][0] == "cal/mol/K"
    assert METRICS["test_homo_mae"][0] == "eV"


SCALAR = {"task": {"name": "scalar", "target": "gap"}, "epochs": 20, "batch_size": 4, "lr": 1e-2}
STORED = {"name": "qm9_xyz", "path": "qm9"}
SPLIT = {"by": "frame", "test": 0.2, "validation": 0.2}


def test_a_trial_pretrains_without_labels_and_learns_a_property(tiny: Tiny, tmp_path: Path) -> None:
    frames = molecules(40)
    content = frames.save(tmp_path / "data")
    denoising = {"name": "denoising", "noise_scale": 0.1}
    trial = tiny(
        dataset=STORED,
        pretrain__task=denoising,
        finetune=SCALAR,
        split=SPLIT,
        model__cutoff=3.0,
    )
    work = Job("trial", trial, content)
    assert work.pretraining is not None
    list(run_job(work.pretraining, tmp_path, tmp_path / "data"))
    records = list(run_job(work, tmp_path, tmp_path / "data"))
    assert records[-1].metrics["val_gap_mae"] < records[0].metrics["val_gap_mae"]
    outcome = load_outcome(work.folder(tmp_path))
    assert outcome is not None
    metrics = outcome.result.metrics
    # The share of carbon tells nearly everything.
    assert metrics["test_gap_mae"] < 0.7 * metrics["trivial_gap_mae"]
    assert not any("force" in name or "energy" in name for name in metrics)
    with pytest.raises(UserError, match=r"learned gap, and predicts no energies"):
        StudyCalculator(_journalled(tmp_path, work))


def _journalled(root: Path, work: Job) -> Path:
    Journal(root / "studies" / "s" / "journal.jsonl", "").planned(Planned(0, work))
    return work.folder(root)


def finished(root: Path, frames: Frames, trial: Trial) -> tuple[Path, Job]:
    """The folder of a trial that was done on frames in a study's store, and the trial."""
    store = root / "data" / "set"
    sized = replace(frames, origin={"sizes": asdict(sizes_of(frames))})
    work = Job("trial", trial, sized.save(store))
    list(run_job(work, root, store))
    return _journalled(root, work), work


def alone(frames: Frames) -> Frames:
    """Molecules without a cell, as readers give them."""
    return replace(frames, cells=0 * frames.cells, pbc=np.zeros(3, bool))


@pytest.fixture(scope="module")
def learned(
    tmp_path_factory: pytest.TempPathFactory, tiny: Tiny
) -> tuple[Path, Job, list[Atoms], Path]:
    """Folder and settings of a trial that knows gaps, its test molecules, and a file of these."""
    root, frames = tmp_path_factory.mktemp("learned"), alone(molecules(40))
    finetune = SCALAR | {"epochs": 3}
    trial = tiny(dataset=STORED, pretrain=None, finetune=finetune, split=SPLIT, model__cutoff=3.0)
    place, work = finished(root, frames, trial)
    tested = structures(frames.select(split(frames, trial.split, trial.seed).test))
    ase.io.write(root / "test.extxyz", tested)
    return place, work, tested, root / "test.extxyz"


def direct(place: Path, work: Job, tested: list[Atoms]) -> list[float]:
    """The mean of the readout over the atoms of each molecule, scaled, about the mean label."""
    model = build_model(work.trial.model, 0).eval()
    model.load_state_dict(load_tensors(require_weights(work, place.parent.parent)))
    values = []
    for atoms in tested:
        source, target, shift = neighbor_list("ijS", atoms.copy(), 3.0)
        assert not shift.any()
        graph = Data(
            z=torch.tensor(atoms.numbers),
            pos=torch.tensor(atoms.positions, dtype=torch.float32),
            edge_index=torch.tensor(np.stack([source, target])),
            shift=torch.zeros(len(source), 3),
            masked=torch.zeros(len(atoms), dtype=torch.long),
        )
        readout = model.scalars(graph).detach().double()
        values.append(float(model.scale * readout.mean() + model.frame_reference))
    return values


def test_predicted_numbers_are_those_of_the_model_in_a_table_and_in_extxyz(
    learned: tuple[Path, Job, list[Atoms], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, work, tested, given = learned
    out = tmp_path / "out.extxyz"
    assert predict.main([str(place), str(given), "--out", str(out)]) == 0
    head, *lines, place_told, errors = capsys.readouterr().out.splitlines()
    assert place_told.endswith(out.name)
    assert head.split() == ["frame", "atoms", "gap", "eV"]
    expected = direct(place, work, tested)
    assert np.ptp(expected) > 1e-3
    if len(expected) > MOST_LINES:
        assert lines.pop() == f"and {len(expected) - MOST_LINES} more"
    shown = [float(line.split()[2]) for line in lines]
    np.testing.assert_allclose(shown, expected[:MOST_LINES], atol=2e-6)
    written = ase_file.read(out)
    np.testing.assert_allclose(written.properties["gap"], expected, atol=1e-5)
    assert [atoms.info["gap_unit"] for atoms in ase.io.read(out, ":")] == ["eV"] * len(tested)
    outcome = load_outcome(place)
    assert outcome is not None
    mae, rmse = (outcome.result.metrics[f"test_gap_{name}"] for name in ("mae", "rmse"))
    assert errors == f"against the file's labels: gap MAE {mae:.4g} eV, RMSE {rmse:.4g} eV"


def test_numbers_are_printed_with_name_and_unit_for_programs(
    learned: tuple[Path, Job, list[Atoms], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place, work, tested, given = learned
    assert predict.main([str(place), str(given), "--json", "--precision", "float64"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["frame"], row["unit"]) for row in rows] == [(n, "eV") for n in range(len(tested))]
    expected = direct(place, work, tested)
    np.testing.assert_allclose([row["gap"] for row in rows], expected, atol=1e-5)


def test_a_molecule_may_come_with_a_cell_of_vacuum_or_none(
    learned: tuple[Path, Job, list[Atoms], Path],
) -> None:
    place, _, tested, _ = learned
    model = TrainedScalar(resolve_trained_model(place), precision="float64")
    alone = tested[0].copy()
    inside = alone.copy()
    inside.cell, inside.pbc = np.ptp(inside.positions, axis=0) + 51, True
    assert not alone.pbc.any()
    first, second = model.predict([alone, inside])
    assert first == pytest.approx(second, abs=1e-9)
    alone.pbc = [True, True, False]
    with pytest.raises(UserError, match="must have a periodic cell"):
        list(model.predict([alone]))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["test.extxyz", "--export", "model.pt2"], "--export: takes models of energies and forces"),
        (["test.extxyz", "--out", "test.extxyz"], "must not exist yet"),
    ],
)
def test_what_a_model_of_a_number_cannot_do_is_told_in_a_line(
    learned: tuple[Path, Job, list[Atoms], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    rule: str,
) -> None:
    place, _, _, given = learned
    monkeypatch.chdir(given.parent)
    assert predict.main([str(place), *options]) == 2
    messages = capsys.readouterr().err.splitlines()
    assert rule in messages[-1]
    assert not Path("model.pt2").exists()
    with pytest.raises(UserError, match="learned gap, and predicts no energies"):
        log_model(resolve_trained_model(place), StudyDir(place.parent.parent, "s"), None)


def test_the_way_to_predict_test_frames_leads_to_the_errors_of_the_test(
    learned: tuple[Path, Job, list[Atoms], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, work, _, _ = learned
    with pytest.raises(UserError, match="learned gap, but without a file") as refused:
        test_predictions.predict(work, place.parent.parent, place.parent.parent / "data" / "set")
    messages = str(refused.value).replace("SPLIT", str(tmp_path / "split")).split("`")[1::2]
    splitting, predicting = (command.split()[3:] for command in messages)
    assert data.main(splitting) == 0
    capsys.readouterr()
    assert predict.main(predicting) == 0
    outcome = load_outcome(place)
    assert outcome is not None
    assert f"MAE {outcome.result.metrics['test_gap_mae']:.4g} eV" in capsys.readouterr().out


def test_energies_learned_alone_are_predicted_as_totals(
    tiny: Tiny, water: Frames, tmp_path: Path
) -> None:
    finetune = SCALAR | {"task": {"name": "scalar", "target": "energy"}, "epochs": 2}
    place, work = finished(tmp_path, water, tiny(pretrain=None, finetune=finetune))
    tested = structures(water.select(split(water, work.trial.split, work.trial.seed).test))
    ase.io.write(tmp_path / "test.extxyz", tested)
    out = tmp_path / "out.extxyz"
    assert predict.main([str(place), str(tmp_path / "test.extxyz"), "--out", str(out)]) == 0
    energies = [atoms.get_potential_energy() for atoms in ase.io.read(out, ":")]
    off = np.array(energies) - [atoms.get_potential_energy() for atoms in tested]
    outcome = load_outcome(place)
    assert outcome is not None
    assert np.abs(off).mean() == pytest.approx(
        outcome.result.metrics["test_frame_energy_mae"], rel=1e-5
    )
    # Without forces, which such a model does not predict.
    assert "forces" not in ase.io.read(out).calc.results


def test_energies_alone_are_learned_with_forces_left_out_of_it(
    tiny: Tiny, water: Frames, tmp_path: Path
) -> None:
    bare = replace(water, forces=water.forces * np.nan)
    content = bare.save(tmp_path / "data")
    task = {"name": "scalar", "target": "energy", "auxiliary": {"task": {"name": "denoising"}}}
    trial = tiny(pretrain=None, finetune={"task": task, "epochs": 2, "batch_size": 4}, split=SPLIT)
    trial.check_sizes(sizes_of(bare))
    work = Job("trial", trial, content)
    list(run_job(work, tmp_path, tmp_path / "data"))
    outcome = load_outcome(work.folder(tmp_path))
    assert outcome is not None
    metrics = outcome.result.metrics
    parts = split(bare, trial.split, 0)
    test, train = bare.select(parts.test), bare.select(parts.train)
    # All frames have the same atoms, so the sum over elements is the mean of training.
    off = test.energies - train.energies.mean()
    assert metrics["trivial_frame_energy_rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-5)
    assert metrics["trivial_energy_mae"] == pytest.approx(np.abs(off).mean() / 24, rel=1e-5)
    weights = load_tensors(require_weights(work, tmp_path))
    assert weights["reference"].shape == (MAX_ATOMIC_NUMBER + 1,)
    assert weights["scale"].item() == pytest.approx(train.energies.std(), rel=1e-3)


def test_frames_without_the_property_are_refused_by_name(tiny: Tiny, water: Frames) -> None:
    with pytest.raises(ValueError, match=r"`dataset` must be labelled with gap"):
        tiny(finetune=SCALAR, split=SPLIT)
    trial = tiny(dataset=STORED, pretrain=None, finetune=SCALAR, split=SPLIT)
    with pytest.raises(ValueError, match=r"must be labelled with gap for `finetune\.task`, but"):
        trial.check_sizes(sizes_of(water))


SPACE = """\
question: Does it learn?
metric: val_homo_mae
seeds: [0]
trial:
  dataset: {name: qm9_xyz, path: qm9}
  model: {name: egnn, hidden: 8, layers: 1}
  pretrain: {task: {name: denoising, noise_scale: 0.1}, epochs: 1, batch_size: 2}
  finetune: {task: {name: scalar, target: homo}, epochs: 1, batch_size: 2}
profiles: {quick: }
"""


def test_a_space_ranks_by_what_its_task_measures(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    assert load_space(str(path), "quick").settings.metric == "val_homo_mae"
    path.write_text(SPACE.replace("val_homo_mae", "val_force_rmse"))
    with pytest.raises(UserError, match=r"space\.yaml:2: metric: must be one of val_homo_r"):
        load_space(str(path), "quick")


def test_a_published_split_is_taken_as_it_is() -> None:
    frames = molecules(10)
    parts = np.array([0.0] * 6 + [1.0] * 2 + [2.0] * 2)
    published = replace(frames, properties=frames.properties | {"part": parts})
    settings = Trial.model_fields["split"].default.model_copy(update={"by": "published"})
    splits = split(published, settings, 3)
    assert sorted(splits.test.tolist()) == [8, 9]
    assert sorted(splits.validation.tolist()) == [6, 7]
    assert len(splits.train) == 6
    with pytest.raises(UserError, match="every part needs a frame"):
        split(frames, settings, 3)
