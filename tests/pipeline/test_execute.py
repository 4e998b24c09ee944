"""Pretraining, then finetuning: done once, whatever is interrupted, damaged or asked for again."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from study.core.atomic_io import DamagedFileError
from study.core.errors import MachineError, UserError
from study.core.records import EpochRecord, JobResult
from study.datasets.frames import Frames
from study.datasets.splits import split
from study.models.build import build_model
from study.models.potential import ConservativePotential
from study.pipeline import execute, setup
from study.pipeline.execute import run_job, run_job_safely
from study.pipeline.job import Job
from study.pipeline.outcome import OUT_OF_MEMORY, Outcome, load_outcome, require_weights
from study.space.trial import Trial
from study.training.checkpoint import load_tensors
from study.training.loop import DivergenceError, PausedError
from study.training.program_cache import user_store

History = list[tuple[str, int, dict[str, float]]]


def without_seconds(records: list[EpochRecord]) -> History:
    return [
        (
            r.stage,
            r.epoch,
            {k: v for k, v in r.metrics.items() if not k.endswith(("seconds", "joule"))},
        )
        for r in records
    ]


def outcome_of(work: Job, root: Path) -> Outcome:
    outcome = load_outcome(work.folder(root))
    assert outcome is not None
    return outcome


def weights_of(work: Job, root: Path) -> str:
    """Name of the file of weights; it has their hash in it."""
    weights = outcome_of(work, root).weights
    assert weights is not None
    return weights.name


def untrainable(*_arguments: object) -> Iterator[dict[str, float]]:
    raise AssertionError("trained again")


@pytest.fixture(scope="module")
def work(water: Frames, tiny: Callable[..., Trial]) -> Job:
    """A pretrained trial."""
    return Job("trial", tiny(), water.content_hash())


@pytest.fixture(scope="module")
def pretraining(work: Job) -> Job:
    assert work.pretraining is not None
    return work.pretraining


@pytest.fixture(scope="module")
def done(
    work: Job, pretraining: Job, water_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of all work in which both stages are finished; not to be changed."""
    root = tmp_path_factory.mktemp("done")
    list(run_job(pretraining, root, water_folder))
    list(run_job(work, root, water_folder))
    return root


@pytest.fixture
def root(done: Path, tmp_path: Path) -> Path:
    """A copy of it to work in."""
    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_both_stages_yield_a_record_per_epoch(
    work: Job, pretraining: Job, water_folder: Path, tmp_path: Path
) -> None:
    records = [
        *run_job(pretraining, tmp_path, water_folder),
        *run_job(work, tmp_path, water_folder),
    ]
    epochs = [(record.stage, record.epoch) for record in records]
    assert epochs == [
        (stage, i) for stage, n in (("pretrain", 2), ("finetune", 3)) for i in range(1, n + 1)
    ]


def test_operations_are_counted_anew_for_trials_that_differ_in_them(
    tiny: Callable[..., Trial], water: Frames, water_folder: Path, tmp_path: Path
) -> None:
    first = {"pretrain": None, "finetune__epochs": 1}
    displaced = {"name": "energy_forces", "auxiliary": {"task": {"name": "denoising"}}}
    different = {
        "model": {"model__hidden": 12},
        "batch": {"finetune__batch_size": 3},
        "task": {"finetune__task": displaced},
        "frozen": {"finetune__trainable": "readout"},
    }
    same = {"lr": {"finetune__lr": 1e-3}, "seed": {"seed": 1}}

    def counted(name: str, changes: dict[str, Any]) -> float:
        done = run_job(
            Job("trial", tiny(**first, **changes), water.content_hash()),
            tmp_path / name,
            water_folder,
        )
        return next(done).metrics["flops"]

    def all_counted(folder: str, *, fresh: bool) -> dict[str, float]:
        totals = {}
        for name, changes in {"first": {}, **different, **same}.items():
            if fresh:
                setup._FLOPS.clear()
            totals[name] = counted(f"{folder}/{name}", changes)
        return totals

    remembered = all_counted("remembered", fresh=False)
    assert remembered == all_counted("fresh", fresh=True)
    assert remembered["first"] not in [remembered[name] for name in ("model", "task", "frozen")]
    assert remembered["lr"] == remembered["first"]


def test_a_finished_trial_has_errors_on_the_test_frames(work: Job, done: Path) -> None:
    outcome = outcome_of(work, done)
    assert outcome.result.status == "completed"
    errors = ["force_rmse", "force_mae", "energy_rmse", "energy_mae", "frame_energy_rmse"]
    for name in errors:
        assert 0 < outcome.result.metrics[f"test_{name}"] < 10
        assert 0 < outcome.result.metrics[f"trivial_{name}"] < 10


def test_trivial_errors_are_those_of_numpy(work: Job, done: Path, water: Frames) -> None:
    parts = split(water, work.trial.split, work.trial.seed)
    train, test = water.select(parts.train), water.select(parts.test)
    metrics = outcome_of(work, done).result.metrics
    assert metrics["trivial_force_rmse"] == pytest.approx(np.sqrt(np.mean(test.forces**2)))
    errors = test.energies - np.mean(train.energies / 24) * 24
    assert metrics["trivial_frame_energy_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))


def test_the_best_epoch_is_that_of_the_history(work: Job, done: Path) -> None:
    outcome = outcome_of(work, done)
    errors = [record.metrics["val_force_rmse"] for record in outcome.history]
    assert outcome.result.metrics["best_epoch"] == 1 + int(np.argmin(errors))


def test_the_facts_count_the_frames_of_the_split(work: Job, done: Path, water: Frames) -> None:
    facts = outcome_of(work, done).result.facts
    parts = split(water, work.trial.split, work.trial.seed)
    assert facts["split_hash"] == parts.content_hash()
    counts = [facts[f"{part}_frames"] for part in ("train", "validation", "test")]
    assert counts == [len(parts.train), len(parts.validation), len(parts.test)] == [6, 3, 3]


def test_finished_work_leaves_only_its_result_and_weights(work: Job, done: Path) -> None:
    kinds = {path.name.split("-")[0] for path in work.folder(done).iterdir()}
    assert kinds - {"lock"} == {"result.json", "weights"}


def test_compiled_code_comes_from_the_user_and_never_from_the_results(
    work: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[Path] = []

    def train(_seed: int, _folder: Path, store: Path, *_others: object) -> Iterator[Any]:
        stores.append(store)
        raise ZeroDivisionError

    monkeypatch.setattr(execute, "set_up", lambda *_: SimpleNamespace(train=train))
    with pytest.raises(ZeroDivisionError):
        list(run_job(work, tmp_path, tmp_path))
    assert stores == [user_store()]
    assert stores[0].stat().st_mode & 0o077 == 0
    assert not stores[0].is_relative_to(tmp_path)


def test_finished_work_is_not_done_again(
    work: Job,
    pretraining: Job,
    done: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "fit", untrainable)
    for finished in (pretraining, work):
        records = list(run_job(finished, done, water_folder))
        assert records == outcome_of(finished, done).history


@pytest.mark.parametrize("crash", [1, 2, 3])
def test_interrupted_work_ends_as_if_uninterrupted(
    crash: int, work: Job, pretraining: Job, done: Path, water_folder: Path, tmp_path: Path
) -> None:
    for piece in (pretraining, work):
        unfinished = run_job(piece, tmp_path, water_folder)
        list(itertools.islice(unfinished, min(crash, piece.training.epochs)))
        unfinished.close()
        assert load_outcome(piece.folder(tmp_path)) is None
        records = list(run_job(piece, tmp_path, water_folder))
        assert without_seconds(records) == without_seconds(outcome_of(piece, done).history)
        assert weights_of(piece, tmp_path) == weights_of(piece, done)


def test_interrupted_work_goes_on_where_it_stopped(
    pretraining: Job, water_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = run_job(pretraining, tmp_path, water_folder)
    first = next(unfinished)
    unfinished.close()
    monkeypatch.setattr("study.training.loop._TrainingLoop.epoch", untrainable)
    # The first epoch comes from the checkpoint, with its seconds; the second would be trained.
    assert next(run_job(pretraining, tmp_path, water_folder)) == first


def test_a_trial_without_its_pretraining_is_refused(
    work: Job, water_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="`pretrain: null`"):
        next(run_job(work, tmp_path, water_folder))


def test_a_trial_of_an_interrupted_pretraining_is_refused(
    work: Job, pretraining: Job, water_folder: Path, tmp_path: Path
) -> None:
    next(run_job(pretraining, tmp_path, water_folder))
    with pytest.raises(UserError, match="no finished pretraining"):
        next(run_job(work, tmp_path, water_folder))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def better_result(content: bytes) -> bytes:
    value = json.loads(content)
    value["result"]["metrics"]["test_force_rmse"] = 0.0
    return json.dumps(value).encode()


def no_digest(content: bytes) -> bytes:
    value = json.loads(content)
    del value["digest"]
    return json.dumps(value).encode()


def nothing(content: bytes) -> bytes:
    del content
    return b""


def not_text(content: bytes) -> bytes:
    return b"\xff" + content


def a_list(content: bytes) -> bytes:
    return b"[" + content + b"]"


@pytest.mark.parametrize("damage", [cut, better_result, no_digest, nothing, not_text, a_list])
def test_work_with_a_damaged_result_is_done_again_to_the_same_end(
    damage: Callable[[bytes], bytes],
    work: Job,
    done: Path,
    root: Path,
    water_folder: Path,
) -> None:
    path = work.folder(root) / "result.json"
    path.write_bytes(damage(path.read_bytes()))
    assert load_outcome(work.folder(root)) is None
    list(run_job(work, root, water_folder))
    first, again = outcome_of(work, done), outcome_of(work, root)
    assert without_seconds(again.history) == without_seconds(first.history)
    assert weights_of(work, root) == weights_of(work, done)
    unlike = dict.fromkeys(("seconds", "cpu_seconds", "energy_joule"), 0)
    metrics = [outcome.result.metrics | unlike for outcome in (first, again)]
    assert metrics[0] == metrics[1]


def test_a_flipped_bit_of_a_result_is_noticed_or_without_consequence(
    work: Job, done: Path, root: Path
) -> None:
    path = work.folder(root) / "result.json"
    content, expected = path.read_bytes(), outcome_of(work, done)
    noticed = 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        outcome = load_outcome(work.folder(root))
        noticed += outcome is None
        assert outcome is None or outcome.history == expected.history
    assert noticed > len(content) / 7 / 4


def test_work_that_lost_its_weights_is_done_again(
    pretraining: Job, done: Path, root: Path, water_folder: Path
) -> None:
    require_weights(pretraining, root).unlink()
    with pytest.raises(UserError, match="no finished pretraining"):
        require_weights(pretraining, root)
    list(run_job(pretraining, root, water_folder))
    assert weights_of(pretraining, root) == weights_of(pretraining, done)


def test_damaged_weights_of_a_pretraining_are_not_built_on(
    work: Job, pretraining: Job, root: Path, water_folder: Path
) -> None:
    shutil.rmtree(work.folder(root))
    weights = require_weights(pretraining, root)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises((DamagedFileError, UserError)):
        next(run_job(work, root, water_folder))


def test_work_with_damaged_weights_is_done_again(
    pretraining: Job, done: Path, root: Path, water_folder: Path
) -> None:
    weights = require_weights(pretraining, root)
    weights.write_bytes(weights.read_bytes()[:-1])
    list(run_job(pretraining, root, water_folder))
    assert weights.read_bytes() == require_weights(pretraining, done).read_bytes()


def test_diverged_work_is_finished_and_not_done_again(
    pretraining: Job,
    work: Job,
    water_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverge(*_arguments: object) -> Iterator[dict[str, float]]:
        yield {"val_loss": 1.0}
        raise DivergenceError("training loss is nan in epoch 2")

    monkeypatch.setattr(setup, "fit", diverge)
    records = list(run_job(pretraining, tmp_path, water_folder))
    assert records == [EpochRecord("pretrain", 1, {"val_loss": 1.0})]
    outcome = outcome_of(pretraining, tmp_path)
    assert (outcome.result.status, outcome.weights) == ("diverged", None)
    assert outcome.result.reason == "training loss is nan in epoch 2"
    monkeypatch.setattr(setup, "fit", untrainable)
    assert list(run_job(pretraining, tmp_path, water_folder)) == records
    with pytest.raises(UserError, match="no finished pretraining"):
        next(run_job(work, tmp_path, water_folder))


def start_of(
    trial: Trial, water: Frames, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    """The weights with which finetuning starts."""
    weights: dict[str, Tensor] = {}

    def spy(model: ConservativePotential, *_arguments: object) -> Iterator[dict[str, float]]:
        weights.update({name: value.clone() for name, value in model.state_dict().items()})
        raise KeyboardInterrupt
        yield {}

    monkeypatch.setattr(setup, "fit", spy)
    with pytest.raises(KeyboardInterrupt):
        next(run_job(Job("trial", trial, water.content_hash()), root, folder))
    return weights


LABEL_STATISTICS = {"scale", "reference"}


LAST_LAYER = {"readout.2.weight", "readout.2.bias"}


@pytest.mark.parametrize("transfer", ["body", "all"])
def test_finetuning_starts_from_the_pretrained_weights(
    transfer: str,
    tiny: Callable[..., Trial],
    pretraining: Job,
    water: Frames,
    done: Path,
    tmp_path: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(pretraining.folder(done), pretraining.folder(tmp_path))
    trial = tiny(transfer=transfer)
    start = start_of(trial, water, tmp_path, water_folder, monkeypatch)
    pretrained = load_tensors(require_weights(pretraining, done))
    same = {name for name, value in start.items() if torch.equal(value, pretrained[name])}
    readout = {name for name in start if name.startswith("readout.")}
    expected = set(start) - LABEL_STATISTICS
    if transfer == "body":
        expected -= readout
        assert not any(start[name].any() for name in LAST_LAYER)
    assert same - LABEL_STATISTICS == expected


def test_training_from_scratch_starts_from_the_seeds_weights_and_a_silent_readout(
    tiny: Callable[..., Trial],
    water: Frames,
    tmp_path: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = tiny(pretrain=None, seed=5)
    start = start_of(trial, water, tmp_path, water_folder, monkeypatch)
    initial = build_model(trial.model, 5).state_dict()
    for name in set(start) - LABEL_STATISTICS - LAST_LAYER:
        assert torch.equal(start[name], initial[name]), name
    assert not any(start[name].any() for name in LAST_LAYER)


def test_random_heads_stay_as_they_were_drawn(
    tiny: Callable[..., Trial],
    water: Frames,
    tmp_path: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = tiny(pretrain=None, finetune__head_init="random")
    start = start_of(trial, water, tmp_path, water_folder, monkeypatch)
    initial = build_model(trial.model, trial.seed).state_dict()
    assert {n for n in start if not torch.equal(start[n], initial[n])} == LABEL_STATISTICS


@pytest.mark.parametrize("seed", [0, 3])
def test_the_seed_decides_the_split_and_the_training(
    seed: int,
    tiny: Callable[..., Trial],
    water: Frames,
    tmp_path: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def spy(*arguments: Any) -> Iterator[dict[str, float]]:
        _, _, _, train, validation, *rest = arguments
        seen.extend([train.tolist(), validation.tolist(), rest[0]])
        yield {"val_force_rmse": 1.0, "seconds": 0.0, "cpu_seconds": 0.0}

    monkeypatch.setattr(setup, "fit", spy)
    trial = tiny(pretrain=None, seed=seed)
    list(run_job(Job("trial", trial, water.content_hash()), tmp_path, water_folder))
    expected = split(water, trial.split, seed)
    assert seen == [expected.train.tolist(), expected.validation.tolist(), seed]


def test_frames_other_than_those_the_work_is_named_by_are_refused(
    pretraining: Job, water_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        next(run_job(replace(pretraining, data_hash="other"), tmp_path, water_folder))


def test_frames_made_anew_in_the_same_folder_are_read_anew(
    tiny: Callable[..., Trial], water: Frames, tmp_path: Path
) -> None:
    errors = []
    for factor in (1, 3):
        frames = replace(water, forces=factor * water.forces)
        work = Job("trial", tiny(pretrain=None, finetune__epochs=1), frames.save(tmp_path / "set"))
        list(run_job(work, tmp_path, tmp_path / "set"))
        errors.append(outcome_of(work, tmp_path).result.metrics["trivial_force_rmse"])
    assert errors[1] == pytest.approx(3 * errors[0])


def test_labels_of_test_frames_do_not_reach_training(
    work: Job, pretraining: Job, done: Path, water: Frames, tmp_path: Path
) -> None:
    test = split(water, work.trial.split, work.trial.seed).test
    energies, forces = water.energies.copy(), water.forces.reshape(12, 24, 3).copy()
    energies[test] += 100
    forces[test] *= 3
    changed = replace(water, energies=energies, forces=forces.reshape(-1, 3))
    changed.save(tmp_path / "changed")
    for piece in (pretraining, work):
        moved = replace(piece, data_hash=changed.content_hash())
        records = list(run_job(moved, tmp_path, tmp_path / "changed"))
        assert without_seconds(records) == without_seconds(outcome_of(piece, done).history)
        assert weights_of(moved, tmp_path) == weights_of(piece, done)
    errors = outcome_of(moved, tmp_path).result.metrics
    assert errors["trivial_force_rmse"] == pytest.approx(
        3 * outcome_of(work, done).result.metrics["trivial_force_rmse"]
    )


def test_pretraining_reads_no_labels(
    pretraining: Job, done: Path, water: Frames, tmp_path: Path
) -> None:
    blank = replace(
        water, energies=np.full_like(water.energies, np.nan), forces=np.zeros_like(water.forces)
    )
    unlabelled = replace(pretraining, data_hash=blank.save(tmp_path / "blank"))
    list(run_job(unlabelled, tmp_path, tmp_path / "blank"))
    assert weights_of(unlabelled, tmp_path) == weights_of(pretraining, done)


def test_a_stage_takes_its_label_statistics_from_its_own_frames(
    tiny: Callable[..., Trial],
    water: Frames,
    tmp_path: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = tiny(pretrain=None, finetune__frames=2)
    start = start_of(trial, water, tmp_path, water_folder, monkeypatch)
    seen = water.select(split(water, trial.split, trial.seed).train[:2])
    assert start["scale"].item() == pytest.approx(np.sqrt(np.mean(seen.forces**2)))
    assert start["reference"][8].item() == pytest.approx(np.mean(seen.energies / 24), rel=1e-12)


def test_work_that_is_asked_to_end_goes_on_bitwise_from_the_step_after(
    work: Job, pretraining: Job, done: Path, root: Path, water_folder: Path
) -> None:
    for piece in (pretraining, work):
        shutil.rmtree(piece.folder(root))
    for piece in (pretraining, work):
        asked = itertools.count()
        with pytest.raises(PausedError):
            # It is asked once before the first step.
            list(
                run_job(piece, root, water_folder, should_stop=lambda asked=asked: next(asked) == 4)
            )
        assert list(piece.folder(root).glob("epoch-*-step-*"))
        list(run_job(piece, root, water_folder))
        outcome, expected = (load_outcome(piece.folder(folder)) for folder in (root, done))
        assert outcome is not None
        assert expected is not None
        assert outcome.weights is not None
        assert expected.weights is not None
        assert outcome.weights.name == expected.weights.name


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("Unable to allocate 3.00 TiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_work_without_memory_fails_with_its_peak(
    problem: Exception,
    work: Job,
    root: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(*_: object) -> None:
        raise problem

    (work.folder(root) / "result.json").unlink()
    monkeypatch.setattr("study.training.gradients.Engine.backward", step)
    (result,) = run_job_safely(work, root, water_folder)
    assert isinstance(result, JobResult)
    assert result.status == "failed"
    assert result.facts[OUT_OF_MEMORY]
    assert result.facts["peak_memory_mb"] > 100
    assert f"out of memory at its peak of {result.facts['peak_memory_mb']} MB" in result.reason
    assert str(problem).splitlines()[0] in result.reason


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_is_no_failure_of_the_work(
    number: int,
    work: Job,
    root: Path,
    water_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = work.folder(root) / "epoch"

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(place))

    (work.folder(root) / "result.json").unlink()
    monkeypatch.setattr("study.training.gradients.Engine.backward", refuse)
    with pytest.raises(MachineError, match=re.escape(f"{place}: {os.strerror(number)}")):
        list(run_job_safely(work, root, water_folder))


CRAMPED = """
import json, resource, sys
from pathlib import Path
import psutil, torch
from study.pipeline.execute import run_job_safely
from study.pipeline.job import Job

root, frames, *texts = sys.argv[1:]
limit = psutil.Process().memory_info().vms + 500 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
torch.set_num_threads(1)
for text in texts:
    *_, result = run_job_safely(Job.from_json(json.loads(text)), Path(root), Path(frames))
    print(json.dumps([result.status, result.reason, result.facts.get("peak_memory_mb", 0)]))
"""


def test_work_beyond_a_limit_of_memory_fails_alone(
    tiny: Callable[..., Trial], water: Frames, water_folder: Path, tmp_path: Path
) -> None:
    scratch = {"pretrain": None, "finetune__epochs": 1}
    works = [
        Job("trial", tiny(model__hidden=hidden, **scratch), water.content_hash())
        for hidden in (4096, 8)
    ]
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED, str(tmp_path), str(water_folder)]
        + [json.dumps(work.to_json()) for work in works],
        capture_output=True,
        text=True,
        check=True,
    )
    (failed, reason, peak), (completed, *_) = map(json.loads, done.stdout.splitlines())
    assert (failed, completed) == ("failed", "completed")
    assert f"out of memory at its peak of {peak} MB" in reason
    assert peak > 100
