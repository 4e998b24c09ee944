"""A mixed training set, as MACE's users have: lone atoms, slabs and liquid, not all with forces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from study.core.errors import UserError
from study.datasets.config import ASEFile
from study.datasets.frames import Frames
from study.datasets.parsing import array_files
from study.datasets.parsing.header import read_header
from study.datasets.prepare import prepare, remark_on
from study.graphs import edges, graph_set
from study.pipeline import setup
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.pipeline.setup import set_up
from study.space.trial import Trial

WATER = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])


def labelled(atoms: Atoms, seed: int, *, forces: bool) -> Atoms:
    rng = np.random.default_rng(seed)
    labels = {"energy": -5.0 * len(atoms) + rng.normal(scale=0.1)}
    if forces:
        labels["forces"] = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def mixed(path: Path) -> ASEFile:
    rng = np.random.default_rng(0)
    made = [
        labelled(Atoms("H", [[5, 5, 5]], cell=[10, 10, 10], pbc=True), 0, forces=False),
        labelled(Atoms("O", [[5, 5, 5]], cell=[10, 10, 10], pbc=True), 1, forces=False),
    ]
    for seed in range(20):
        places = np.concatenate([WATER + 2.0, WATER + np.array([5.0, 2.0, 4.0])])
        places += rng.normal(scale=0.03, size=(6, 3))
        slab = seed % 2 == 0
        atoms = Atoms("OHHOHH", places, cell=[7, 7, 30 if slab else 7], pbc=(True, True, not slab))
        made.append(labelled(atoms, seed, forces=seed % 4 != 3))
    ase.io.write(path, made, format="extxyz")
    return ASEFile(name="ase_file", path=str(path))


@pytest.mark.parametrize("model", ["egnn", "forcenet"])
def test_a_mixed_set_trains_to_the_end(
    model: str, tmp_path: Path, tiny: Callable[..., Trial]
) -> None:
    dataset = mixed(tmp_path / "train.extxyz")
    folder = prepare(dataset, tmp_path, 1, lambda _done, _total: None)
    frames = Frames.load(folder)
    assert frames.pbc.sum(axis=1).tolist() == [3, 3] + [2, 3] * 10
    assert int(frames.labelled("forces").sum()) == 15
    assert "forces of 15 of 22 frames" in remark_on(dataset, tmp_path)
    settings = {"name": model, "hidden": 8}
    trial = tiny(
        dataset=dataset.model_dump(exclude_none=True),
        model=settings,
        pretrain=None,
        split={"by": "frame", "test": 0.2, "validation": 0.2},
        finetune__batch_size=1,
    )
    job = Job("trial", trial, read_header(folder)["content_hash"])
    records = list(run_job(job, tmp_path, folder))
    assert all(np.isfinite(list(record.metrics.values())).all() for record in records)
    outcome = load_outcome(job.folder(tmp_path))
    assert outcome is not None
    assert outcome.result.status == "completed"


def test_a_part_without_a_label_that_is_trained_on_is_refused(
    tmp_path: Path, tiny: Callable[..., Trial]
) -> None:
    dataset = mixed(tmp_path / "train.extxyz")
    made = ase.io.read(tmp_path / "train.extxyz", ":")
    for atoms in made[3:]:
        atoms.calc.results.pop("forces", None)
    ase.io.write(tmp_path / "train.extxyz", made, format="extxyz")
    folder = prepare(dataset, tmp_path, 1, lambda _done, _total: None)
    trial = tiny(
        dataset=dataset.model_dump(exclude_none=True), pretrain=None, split={"by": "frame"}
    )
    job = Job("trial", trial, read_header(folder)["content_hash"])
    with pytest.raises(UserError, match="every part needs a frame labelled with forces"):
        list(run_job(job, tmp_path, folder))


def test_a_training_on_few_frames_of_a_large_set_prepares_no_others_and_learns_the_same(
    tmp_path: Path, tiny: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mixed(tmp_path / "train.extxyz")
    folder = prepare(dataset, tmp_path, 1, lambda _done, _total: None)
    trial = tiny(
        dataset=dataset.model_dump(exclude_none=True),
        split={"by": "frame", "test": 4, "validation": 3},
        pretrain=None,
        finetune__frames=4,
    )
    job = Job("trial", trial, read_header(folder)["content_hash"])
    losses, prepared, tested = [], [], []
    for share in (0.0, 0.5):
        monkeypatch.setattr(setup, "STORED_ATOMS", 0)
        monkeypatch.setattr(setup, "MOST_SELECTED", share)
        made = set_up(job, trial, tmp_path, folder, "cpu")
        prepared.append(len(made.task.graphs))
        tested.append(made.numbers[made.parts[2]].tolist())
        timed = {"cpu_seconds", "seconds", "flops", "joules"}
        losses.append(
            [
                {name: value for name, value in metrics.items() if name not in timed}
                for metrics in made.train(0, tmp_path / f"{share}", None, lambda: False)
            ]
        )
        losses[-1].append(made.task.errors(made.model, [made.parts[2]]))
    assert prepared == [22, 11]
    assert tested[0] == tested[1]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("pbc", [True, False])
def test_a_training_on_mapped_files_of_a_large_set_gives_the_weights_of_one_in_memory(
    tmp_path: Path, tiny: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch, *, pbc: bool
) -> None:
    dataset = mixed(tmp_path / "train.extxyz")
    if not pbc:
        made = ase.io.read(dataset.path, ":")
        for atoms in made:
            atoms.pbc = False
        ase.io.write(dataset.path, made, format="extxyz")
    folder = prepare(dataset, tmp_path, 1, lambda _done, _total: None)
    task = {"name": "energy_forces", "energy_reference": "per_element"}
    trial = tiny(
        dataset=dataset.model_dump(exclude_none=True),
        split={"by": "frame", "test": 4, "validation": 3},
        pretrain=None,
        finetune__task=task,
    )
    job = Job("trial", trial, read_header(folder)["content_hash"])
    weights, mapped = [], []
    for large in (False, True):
        setup._graphs.cache_clear()
        setup._load.cache_clear()
        if large:
            monkeypatch.setattr(array_files, "MAPPED", 0)
            monkeypatch.setattr(edges, "STORED_EDGE_BYTES", 0)
            monkeypatch.setattr(edges, "MANY_MOLECULES", 0)
            monkeypatch.setattr(edges, "SAMPLE_FRAMES", 2)
            monkeypatch.setattr(setup, "MOST_SELECTED", 0)
            for module in (graph_set, setup):
                monkeypatch.setattr(module, "STORED_ATOMS", 0)
        made = set_up(job, trial, tmp_path, folder, "cpu")
        list(made.train(0, tmp_path / f"{large}", None, lambda: False))
        weights.append(made.model.state_dict())
        mapped.append(made.task.graphs.pos.dtype == torch.float64)
    assert mapped == [False, True]
    kept = {path.parent.name.split("-")[0] for path in folder.glob("*/arrays.json")}
    assert kept == ({"edges", "statistics"} if pbc else {"statistics"})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
