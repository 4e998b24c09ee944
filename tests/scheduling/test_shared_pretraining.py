"""Pretrainings of one schedule that differ in length alone are one training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from study.core.records import EpochRecord, JobResult
from study.datasets.frames import Frames
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, load_outcome
from study.scheduling.budget import Budget
from study.scheduling.proposals.grid import Grid
from study.scheduling.scheduler import Scheduler
from study.space.trial import Trial

Build = Callable[..., Job]


@pytest.fixture(scope="module")
def pretraining(tiny: Callable[..., Trial], water: Frames) -> Build:
    """A pretraining of some epochs, whose schedule has four; arguments as those of `tiny`."""

    def build(epochs: int, **changes: Any) -> Job:
        stage = {"pretrain__epochs": epochs, "pretrain__schedule_epochs": 4}
        work = Job("trial", tiny(**(stage | changes)), water.content_hash()).pretraining
        assert work is not None
        return work

    return build


@pytest.fixture(scope="module")
def alone(pretraining: Build, water_folder: Path, tmp_path_factory: Any) -> dict[int, Path]:
    """Folders in which only one length was ever asked for; not to be changed."""
    roots = {epochs: tmp_path_factory.mktemp(f"alone-{epochs}") for epochs in (2, 3, 4)}
    for epochs, root in roots.items():
        list(run_job(pretraining(epochs), root, water_folder))
    return roots


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The epochs that are trained during a test."""
    from study.training.loop import _TrainingLoop

    epochs, train = [], _TrainingLoop.epoch

    def counted(run: _TrainingLoop) -> dict[str, float]:
        epochs.append(run.state.progress.epoch + 1)
        return train(run)

    monkeypatch.setattr(_TrainingLoop, "epoch", counted)
    return epochs  # type: ignore[return-value]


def outcome_of(work: Job, root: Path) -> Outcome:
    outcome = load_outcome(work.folder(root))
    assert outcome is not None
    return outcome


def assert_same(work: Job, root: Path, expected: Path) -> None:
    """Equal metrics in every epoch, and weights of the same hash."""
    mine, other = outcome_of(work, root), outcome_of(work, expected)
    assert mine.weights is not None
    assert other.weights is not None
    assert mine.weights.name == other.weights.name
    assert len(mine.history) == work.training.epochs
    for found, record in zip(mine.history, other.history, strict=True):
        for name in set(record.metrics) - {"seconds", "cpu_seconds"}:
            assert found.metrics[name] == record.metrics[name], name


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_shorter_one_takes_its_weights_from_a_longer_one(
    select: str,
    pretraining: Build,
    alone: dict[int, Path],
    water_folder: Path,
    tmp_path: Path,
    trained: list[int],
) -> None:
    changes = {"pretrain__select": select}
    expected = alone[2]
    if select == "last":
        expected = tmp_path / "expected"
        list(run_job(pretraining(2, **changes), expected, water_folder))
    list(run_job(pretraining(4, **changes), tmp_path, water_folder))
    trained.clear()
    list(run_job(pretraining(2, **changes), tmp_path, water_folder))
    assert trained == []
    assert_same(pretraining(2, **changes), tmp_path, expected)


def test_a_longer_one_goes_on_from_a_shorter_one(
    pretraining: Build,
    alone: dict[int, Path],
    water_folder: Path,
    tmp_path: Path,
    trained: list[int],
) -> None:
    for epochs in (2, 3, 4):
        list(run_job(pretraining(epochs), tmp_path, water_folder))
        assert_same(pretraining(epochs), tmp_path, alone[epochs])
    assert trained == [1, 2, 3, 4]
    history = outcome_of(pretraining(4), tmp_path).history
    # Its cost is that of all its epochs, whoever has paid for them.
    shorter = outcome_of(pretraining(3), tmp_path).history
    assert [record.metrics["seconds"] for record in history[:3]] == [
        record.metrics["seconds"] for record in shorter
    ]


def test_a_killed_one_goes_on_and_serves_a_shorter_one(
    pretraining: Build,
    alone: dict[int, Path],
    water_folder: Path,
    tmp_path: Path,
    trained: list[int],
) -> None:
    killed = run_job(pretraining(4), tmp_path, water_folder)
    for _ in range(3):
        next(killed)
    killed.close()
    list(run_job(pretraining(2), tmp_path, water_folder))
    assert trained == [1, 2, 3]
    list(run_job(pretraining(4), tmp_path, water_folder))
    assert trained == [1, 2, 3, 4]
    assert_same(pretraining(2), tmp_path, alone[2])
    assert_same(pretraining(4), tmp_path, alone[4])


def test_damaged_weights_of_an_epoch_are_made_again(
    pretraining: Build,
    alone: dict[int, Path],
    water_folder: Path,
    tmp_path: Path,
    trained: list[int],
) -> None:
    shutil.copytree(alone[4], tmp_path, dirs_exist_ok=True)
    (kept,) = tmp_path.glob("work/*/selected-00000002-*")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    list(run_job(pretraining(2), tmp_path, water_folder))
    assert trained == [1, 2]
    assert_same(pretraining(2), tmp_path, alone[2])


def test_other_schedules_share_nothing(pretraining: Build) -> None:
    whole = pretraining(2).full_schedule
    assert whole == pretraining(3).full_schedule == pretraining(4) == pretraining(4).full_schedule
    assert pretraining(2, seed=1).full_schedule.key != whole.key
    longer = pretraining(2, pretrain__schedule_epochs=5)
    assert longer.full_schedule.key != whole.key
    without = pretraining(2, pretrain__schedule_epochs=None)
    assert without.full_schedule == without


def test_a_schedule_ends_no_earlier_than_the_epochs(tiny: Callable[..., Trial]) -> None:
    with pytest.raises(ValidationError, match="epochs <= schedule_epochs"):
        tiny(pretrain__epochs=5, pretrain__schedule_epochs=4)
    with pytest.raises(ValidationError, match="schedule_epochs"):
        tiny(finetune__schedule_epochs=4)


def test_those_that_share_epochs_run_one_after_the_other_and_cost_them_once(
    tiny: Callable[..., Trial], tmp_path: Path
) -> None:
    trials = [
        Job("trial", tiny(pretrain__epochs=epochs, pretrain__schedule_epochs=4), "data")
        for epochs in (2, 4, 3)
    ]
    budget = Budget(share=1, limit=1e9)
    scheduler = Scheduler(Grid(trials, {}, exempt=True), "val_force_rmse", tmp_path, [budget])
    begun = []
    while (work := scheduler.next()) is not None:
        if work.kind == "pretrain":
            while (other := scheduler.next()) is not None:
                assert other.kind == "trial"
                scheduler.end(other.key, JobResult("completed"))
            begun.append(work.training.epochs)
            for epoch in range(1, begun[-1] + 1):
                metrics = {"seconds": 10.0 * epoch, "val_loss": 1.0}
                scheduler.report(work.key, EpochRecord("pretrain", epoch, metrics))
        scheduler.end(work.key, JobResult("completed"))
    assert begun == [2, 3, 4]
    assert scheduler.finished
    assert budget.total == 40
