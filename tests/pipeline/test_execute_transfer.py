"""Pretraining on one data set, finetuning on another; what learns, and what goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.datasets.splits import sizes_of
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome, require_weights
from study.planning.plan import Plan
from study.planning.prepared_data import DataSets
from study.space.search_space import load_space
from study.space.trial import Trial
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.training.checkpoint import load_tensors

OTHER = {"name": "tip3p_water", "molecules": 16, "trajectories": 4, "frames": 5}
Tiny = Callable[..., Trial]


def test_finetunings_on_several_data_sets_share_a_pretraining(tiny: Tiny) -> None:
    here, there = (
        tiny(dataset__molecules=molecules, pretrain__dataset=OTHER) for molecules in (8, 27)
    )
    first = Job("trial", here, "here", pretraining_data_hash="other")
    second = Job("trial", there, "there", pretraining_data_hash="other")
    assert first.key != second.key
    assert first.pretraining is not None
    assert second.pretraining is not None
    assert first.pretraining.key == second.pretraining.key
    # It does not matter either how the data set got its name.
    alone = Job("trial", tiny(dataset=OTHER), "other")
    assert alone.pretraining is not None
    assert alone.pretraining.key == first.pretraining.key
    assert first.pretraining.data_hash == "other"
    assert first.pretraining.settings["dataset"]["molecules"] == 16
    assert first.label == "egnn masking 0.5 on tip3p_water, seed 0"
    file = {"name": "ase_file", "path": "data/small.extxyz"}
    trial = tiny(pretrain__dataset=file, pretrain__task={"name": "denoising"})
    work = Job("trial", trial, "here", pretraining_data_hash="other")
    assert work.label == "egnn denoising 0.5 on small.extxyz, seed 0"


def test_work_on_two_data_sets_survives_json(tiny: Tiny) -> None:
    work = Job("trial", tiny(pretrain__dataset=OTHER), "here", pretraining_data_hash="other")
    again = Job.from_json(work.to_json())
    assert again == work
    assert again.pretraining is not None
    assert work.pretraining is not None
    assert again.pretraining.key == work.pretraining.key


def test_another_pretraining_data_set_makes_another_trial(tiny: Tiny) -> None:
    trial = tiny(pretrain__dataset=OTHER)
    keys = {Job("trial", trial, "here", pretraining_data_hash=h).key for h in ("one", "two")}
    assert len(keys) == 2


SPACE = """\
question: Does pretraining carry over?
seeds: [0, 1]
trial:
  dataset:
    choice:
      - {name: tip3p_water, molecules: 8, trajectories: 4, frames: 3}
      - {name: tip3p_water, molecules: 27, trajectories: 4, frames: 3}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    dataset: {name: tip3p_water, molecules: 16, trajectories: 4, frames: 5}
    task: {name: masking, masking_ratio: 0.5}
    epochs: 2
    batch_size: 2
  finetune: {task: {name: energy_forces}, epochs: 2, batch_size: 2}
profiles: {quick: }
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "transfer.yaml").write_text(SPACE)
    space = load_space(str(tmp_path / "transfer.yaml"), "quick")
    return Plan(space, tmp_path, "transfer", "sqlite:///nowhere.db")


def test_a_plan_counts_shared_pretrainings_once_and_makes_all_data_sets(plan: Plan) -> None:
    assert len(plan.grid) == 2 * 2 * 2
    assert len(plan.pretrainings) == 2
    assert sorted(dataset.molecules for dataset in plan.datasets) == [8, 16, 27]  # type: ignore[union-attr]
    assert plan.seconds > 0


def test_work_is_named_by_both_data_sets(plan: Plan, water: Frames) -> None:
    folders = {dataset: plan.root / str(place) for place, dataset in enumerate(plan.datasets)}
    for place, folder in enumerate(folders.values()):
        water.select(np.arange(3 + place)).save(folder)
    data = DataSets(folders)
    trial = next(trial for trial in plan.grid if trial.pretrain is not None)
    work = data.work(trial)
    assert work.pretraining is not None
    assert work.pretraining.data_hash == data.hashes[folders[trial.datasets[1]].name]
    assert work.data_hash == data.hashes[folders[trial.dataset].name]
    assert set(data.folders) == {*data.hashes.values()}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"pretrain__frames": 50}, r"`pretrain\.frames` must be <= 10"),
        ({"pretrain__dataset": OTHER | {"trajectories": 2}}, r"`pretrain\.dataset` must leave"),
        ({"finetune__frames": 7}, r"`finetune\.frames` must be <= 6"),
    ],
)
def test_both_data_sets_must_be_large_enough(change: dict[str, Any], rule: str, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=rule):
        tiny(**({"pretrain__dataset": OTHER} | change))


@pytest.mark.parametrize("trainable", ["all", "readout", 1])
def test_weights_carry_over_to_other_frames_and_may_stay_as_they_are(
    trainable: str | int, tiny: Tiny, water_folder: Path, triclinic_water: Frames, tmp_path: Path
) -> None:
    target = triclinic_water.save(tmp_path / "target")
    source = Frames.load(water_folder).content_hash()
    trial = tiny(
        pretrain__dataset=OTHER,
        pretrain__epochs=1,
        finetune__epochs=1,
        finetune__trainable=trainable,
        split={"by": "frame", "test": 0.25, "validation": 0.25},
    )
    work = Job("trial", trial, target, pretraining_data_hash=source)
    assert work.pretraining is not None
    list(run_job(work.pretraining, tmp_path, water_folder))
    list(run_job(work, tmp_path, tmp_path / "target"))
    outcome = load_outcome(work.folder(tmp_path))
    assert outcome is not None
    assert outcome.weights is not None
    assert outcome.result.facts["test_frames"] == 1
    before = load_tensors(require_weights(work.pretraining, tmp_path))
    after = load_tensors(outcome.weights)
    changed = {
        "last layer" if name.startswith("layers.1") else name.split(".")[0]
        for name, value in after.items()
        if value.dim() and not name.startswith("reference") and not torch.equal(value, before[name])
    }
    body = {"all": {"embedding", "layers", "last layer"}, "readout": set(), 1: {"last layer"}}
    assert changed == {"readout"} | body[trainable]


def test_no_more_layers_may_learn_than_there_are(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"`finetune\.trainable` must be <= 2, the layers"):
        tiny(finetune__trainable=3)


AUXILIARY = {"task": {"name": "denoising", "noise_scale": 0.1}, "weight": 0.25}


def noisy_nodes(graphs: GraphSet, **changes: Any) -> EnergyForces:
    settings = EnergyForcesSettings.model_validate({"name": "energy_forces"} | changes)
    return EnergyForces(settings, graphs, LabelStatistics.fit(graphs, torch.arange(8)))


def test_noisy_nodes_add_a_weighted_term_on_marked_atoms(graphs: GraphSet) -> None:
    indices = torch.tensor([3, 1])
    plain = noisy_nodes(graphs).terms(indices, seeded(1))
    errors, noise = noisy_nodes(graphs, auxiliary=AUXILIARY).terms(indices, seeded(1))
    assert [errors.name] == [term.name for term in plain]
    assert torch.equal(errors.batch.pos, plain[0].batch.pos)
    assert noise.weight == 0.25
    assert bool((noise.batch.masked == 1).all())
    assert bool((errors.batch.masked == 0).all())
    push = (noise.batch.pos - errors.batch.pos) / 0.1
    torch.testing.assert_close(push, -noise.batch.noise)


def test_noisy_nodes_leave_validation_and_the_criterion_alone(graphs: GraphSet, egnn: EGNN) -> None:
    model, batches = build_model(egnn, seed=0).double().eval(), [torch.tensor([0, 1])]
    with_noise, without = noisy_nodes(graphs, auxiliary=AUXILIARY), noisy_nodes(graphs)
    assert with_noise.evaluate(model, batches, seeded(0)) == without.evaluate(
        model, batches, seeded(0)
    )
    assert with_noise.settings.label == "energy and forces + denoising 0.1"


@pytest.mark.parametrize("mask_embedding", ["zeros", "none"])
def test_labels_may_be_those_of_the_noised_copies(graphs: GraphSet, mask_embedding: str) -> None:
    indices, options = torch.tensor([3, 1]), {"mask_embedding": mask_embedding}
    clean, noise = noisy_nodes(graphs, auxiliary=AUXILIARY, **options).terms(indices, seeded(1))
    noisy = noisy_nodes(graphs, auxiliary=AUXILIARY, labels_from="noised", **options)
    errors, same_noise = noisy.terms(indices, seeded(1))
    assert torch.equal(errors.batch.pos, noise.batch.pos)
    assert torch.equal(errors.batch.edge_index, noise.batch.edge_index)
    for name in ("energy", "force", "units", "weights"):
        assert torch.equal(errors.batch[name], clean.batch[name])
    assert (same_noise.name, same_noise.weight) == (noise.name, noise.weight)
    assert torch.equal(same_noise.batch.noise, noise.batch.noise)
    assert set(errors.batch.keys()) == set(clean.batch.keys())
    for term in (errors, same_noise):
        assert ("masked" in term.batch) == (mask_embedding == "zeros")
        assert mask_embedding == "none" or not term.batch.masked.any()
    assert noisy.settings.label == "energy and forces of noised frames + denoising 0.1"


@pytest.mark.parametrize("auxiliary", [None, {"task": {"name": "masking", "masking_ratio": 0.5}}])
def test_labels_of_noised_copies_need_denoising(graphs: GraphSet, auxiliary: object) -> None:
    with pytest.raises(ValueError, match="`labels_from: noised` needs an auxiliary denoising"):
        noisy_nodes(graphs, auxiliary=auxiliary, labels_from="noised")


def test_masking_may_go_on_while_finetuning(graphs: GraphSet, egnn: EGNN) -> None:
    task = {"name": "masking", "masking_ratio": 0.5}
    _, masked = noisy_nodes(graphs, auxiliary={"task": task}).terms(torch.tensor([0]), seeded(0))
    assert len(masked.batch.z) == 20
    assert set(masked.batch.masked.tolist()) == {0, 1}
    assert torch.isfinite(masked.penalty(build_model(egnn, seed=0).double(), masked.batch))


def test_an_auxiliary_masking_needs_water_to_mask(tiny: Tiny) -> None:
    task = {"name": "masking", "masking_ratio": 0.01}
    with pytest.raises(ValueError, match=r"finetune\.task\.auxiliary\.task\.masking_ratio"):
        tiny(finetune__task={"name": "energy_forces", "auxiliary": {"task": task}})


def test_pretraining_may_learn_labels_of_another_data_set(
    tiny: Tiny, water_folder: Path, triclinic_water: Frames, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"`pretrain\.task` must work without labels, or"):
        tiny(pretrain__task={"name": "energy_forces"})
    target = triclinic_water.save(tmp_path / "target")
    source = Frames.load(water_folder).content_hash()
    split = {"by": "frame", "test": 0.25, "validation": 0.25}
    trial = tiny(
        pretrain__dataset=OTHER,
        pretrain__task={"name": "energy_forces"},
        split=split,
        transfer="all",
    )
    work = Job("trial", trial, target, pretraining_data_hash=source)
    assert work.pretraining is not None
    epochs = list(run_job(work.pretraining, tmp_path, water_folder))
    assert all(epoch.metrics["val_force_rmse"] > 0 for epoch in epochs)
    list(run_job(work, tmp_path, tmp_path / "target"))
    learned = load_tensors(require_weights(work.pretraining, tmp_path))
    loaded = load_tensors(load_outcome(work.folder(tmp_path)).weights)  # type: ignore[union-attr, arg-type]
    # Energies are about those of the frames to finetune on, not of the first ones.
    references = [float(weights["reference"].max()) for weights in (learned, loaded)]
    expected = [
        (frames.energies / frames.sizes).mean()
        for frames in (Frames.load(water_folder), triclinic_water)
    ]
    assert references == pytest.approx(expected, rel=0.1)


def test_frames_without_the_labels_of_the_task_are_refused(tiny: Tiny, water: Frames) -> None:
    bare = replace(water, forces=water.forces * np.nan)
    trial = tiny(split={"by": "frame"})
    trial.check_sizes(sizes_of(water))
    with pytest.raises(ValueError, match="`dataset` must be labelled with forces for `finetune"):
        trial.check_sizes(sizes_of(bare))
