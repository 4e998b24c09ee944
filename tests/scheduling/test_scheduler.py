from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from study.core.atomic_io import write_hashed
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.pipeline.outcome import OUT_OF_MEMORY, Outcome, save_outcome
from study.scheduling.journal import Journal
from study.scheduling.proposals.grid import Grid
from study.scheduling.protocols import Later, Planned
from study.scheduling.scheduler import RETRIES, Scheduler
from study.space.trial import Trial

METRIC = "val_force_rmse"
DONE = JobResult("completed")


def trial(ratio: float | None = None, seed: int = 0, lr: float = 1e-3) -> Job:
    settings: dict[str, Any] = {
        "dataset": {"name": "tip3p_water"},
        "model": {"name": "egnn"},
        "finetune": {"task": {"name": "energy_forces"}, "epochs": 3, "batch_size": 2, "lr": lr},
        "seed": seed,
    }
    if ratio is not None:
        task = {"name": "masking", "masking_ratio": ratio}
        settings["pretrain"] = {"task": task, "epochs": 2, "batch_size": 2}
    return Job("trial", Trial.model_validate(settings), "data")


def record(epoch: int, value: float) -> EpochRecord:
    return EpochRecord("finetune", epoch, {METRIC: value, "seconds": float(epoch)})


class Log:
    """Writes down what observers are told."""

    def __init__(self) -> None:
        self.news: list[tuple[str, str]] = []

    def planned(self, planned: Planned) -> None:
        self.news.append(("planned", planned.work.label))

    def started(self, work: Job, number: int | None) -> None:
        del number
        self.news.append(("started", work.label))

    def recorded(self, work: Job, record: EpochRecord) -> None:
        self.news.append((f"epoch {record.epoch}", work.label))

    def ended(self, work: Job, result: JobResult) -> None:
        self.news.append((result.status, work.label))

    def of(self, label: str) -> list[str]:
        return [what for what, whom in self.news if whom == label and what != "planned"]


class Never:
    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        del number, epoch, value
        return False

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        del number, result, values


class From(Never):
    """Stops every trial from an epoch on."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        del number, value
        return epoch >= self.epoch


def conduct(tmp_path: Path, trials: Iterable[Job], log: Log, **options: Any) -> Scheduler:
    grid = Grid(list(trials), {}, exempt=options.pop("exempt", True))
    return Scheduler(grid, METRIC, tmp_path, [log], **options)


def start(scheduler: Scheduler) -> Job:
    work = scheduler.next()
    assert work is not None
    scheduler.began(work.key)
    return work


def test_trials_with_the_same_pretraining_wait_for_it_and_share_it(tmp_path: Path) -> None:
    log, arms = Log(), [trial(0.5, lr=1e-3), trial(0.5, lr=2e-3)]
    scheduler = conduct(tmp_path, arms, log)
    pretraining = start(scheduler)
    assert [arm.pretraining and arm.pretraining.key for arm in arms] == 2 * [pretraining.key]
    assert scheduler.next() is None
    assert not scheduler.finished
    scheduler.end(pretraining.key, DONE)
    assert [start(scheduler), start(scheduler)] == arms
    assert not scheduler.finished
    for arm in arms:
        scheduler.end(arm.key, DONE)
    assert scheduler.finished


def test_work_that_needs_no_pretraining_runs_meanwhile(tmp_path: Path) -> None:
    pretrained, scratch = trial(0.5), trial()
    scheduler = conduct(tmp_path, [pretrained, scratch], Log())
    assert start(scheduler).kind == "pretrain"
    assert start(scheduler) == scratch


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_trial_fails_with_its_pretraining(tmp_path: Path, status: Any) -> None:
    log, work = Log(), trial(0.5)
    scheduler = conduct(tmp_path, [work], log)
    scheduler.end(start(scheduler).key, JobResult(status, "loss is nan"))
    assert scheduler.next() is None
    assert scheduler.finished
    assert log.of(work.label) == ["started", "failed"]


def test_finished_work_is_taken_over_and_not_handed_out(tmp_path: Path) -> None:
    log, work = Log(), trial(0.5)
    assert work.pretraining is not None
    for piece in (work.pretraining, work):
        folder = piece.folder(tmp_path)
        weights = write_hashed(folder, "weights", ".safetensors", b"")
        save_outcome(folder, Outcome(DONE, [record(1, 0.2), record(2, 0.1)], weights))
    scheduler = conduct(tmp_path, [work], log)
    assert not scheduler.has_work()
    assert scheduler.finished
    assert log.of(work.label) == ["started", "epoch 1", "epoch 2", "completed"]
    # The pretraining too, so that records which were lost elsewhere are complete again.
    assert log.of(work.pretraining.label) == ["started", "epoch 1", "epoch 2", "completed"]


def test_looking_for_work_loses_none(tmp_path: Path) -> None:
    work = trial()
    scheduler = conduct(tmp_path, [work], Log())
    assert scheduler.has_work()
    assert scheduler.has_work()
    assert start(scheduler) == work


def test_a_trial_that_early_stopping_gives_up_ends_as_stopped(tmp_path: Path) -> None:
    log, work = Log(), trial()
    scheduler = conduct(tmp_path, [work], log, early_stop=From(2), exempt=False)
    start(scheduler)
    assert not scheduler.report(work.key, record(1, 0.3))
    assert scheduler.report(work.key, record(2, 0.2))
    assert log.of(work.label) == ["started", "epoch 1", "epoch 2", "stopped"]


def test_an_exempt_trial_is_never_stopped(tmp_path: Path) -> None:
    work = trial()
    scheduler = conduct(tmp_path, [work], Log(), early_stop=From(1), exempt=True)
    start(scheduler)
    assert not scheduler.report(work.key, record(1, 0.3))


def test_a_trial_stopped_in_an_earlier_run_stays_stopped(tmp_path: Path) -> None:
    log, work = Log(), trial()
    scheduler = conduct(
        tmp_path, [work], log, earlier={work.key: (JobResult("stopped", "early"), 2)}
    )
    assert not scheduler.has_work()
    assert log.of(work.label) == ["started", "stopped"]


class Twins:
    """Proposes the same trial twice and remembers what it is told."""

    def __init__(self, work: Job) -> None:
        self.plan = [Planned(0, work), Planned(1, work)]
        self.told: list[tuple[int, str, list[float]]] = []

    def next(self) -> Planned | Later | None:
        return self.plan.pop(0) if self.plan else None

    def reported(self, number: int, epoch: int, value: float) -> None:
        pass

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        self.told.append((number, result.status, values))


def test_a_trial_proposed_twice_runs_once_and_both_learn_its_end(tmp_path: Path) -> None:
    twins = Twins(trial())
    scheduler = Scheduler(twins, METRIC, tmp_path, [Log()])
    work = start(scheduler)
    assert scheduler.next() is None
    scheduler.report(work.key, record(1, 0.3))
    scheduler.report(work.key, record(1, 0.3))
    scheduler.end(work.key, DONE)
    assert twins.told == [(0, "completed", [0.3]), (1, "completed", [0.3])]


def test_the_journal_gives_back_what_it_was_told(tmp_path: Path) -> None:
    work, path = trial(), tmp_path / "journal.jsonl"
    journal = Journal(path, METRIC)
    journal.planned(Planned(0, work, {"lr": 0.1}, exempt=False))
    for epoch, value in ((1, 0.3), (2, 0.2), (1, 0.3), (2, 0.2), (3, float("inf"))):
        journal.recorded(work, record(epoch, value))
    journal.ended(work, JobResult("stopped", "early"))
    entry = Journal(path, METRIC).entries()[0]
    assert entry.planned == Planned(0, work, {"lr": 0.1}, exempt=False)
    assert entry.values == [0.3, 0.2, float("inf")]
    assert entry.result == JobResult("stopped", "early")
    assert entry.over


def test_repeated_news_leave_the_journal_unchanged(tmp_path: Path) -> None:
    work, path = trial(), tmp_path / "journal.jsonl"
    for _ in range(3):
        journal = Journal(path, METRIC)
        journal.planned(Planned(0, work))
        journal.recorded(work, record(1, 0.3))
        journal.ended(work, DONE)
    assert path.read_text().count("\n") == 3


def test_a_failed_trial_is_not_over(tmp_path: Path) -> None:
    work = trial()
    journal = Journal(tmp_path / "journal.jsonl", METRIC)
    journal.planned(Planned(0, work))
    journal.ended(work, JobResult("failed", "out of memory"))
    assert not journal.entries()[0].over
    assert journal.stopped() == {}


def test_a_grid_that_grew_keeps_the_numbers_of_its_trials(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", METRIC)
    old = [trial(seed=0), trial(seed=1)]
    for number, work in enumerate(old):
        journal.planned(Planned(number, work))
    grown = Grid([trial(0.5), *old], journal.entries(), exempt=True)
    plan = [grown.next() for _ in range(4)]
    assert [planned and planned.number for planned in plan] == [2, 0, 1, None]


def test_the_journal_refuses_what_it_could_not_read_again(tmp_path: Path) -> None:
    work, path = trial(), tmp_path / "journal.jsonl"
    bad = Planned(0, Job("trial", work.trial.model_copy(update={"seed": -1}), "data"))
    with pytest.raises(ValueError, match="seed"):
        Journal(path, METRIC).planned(bad)
    assert not path.exists()


def test_work_whose_worker_dies_goes_to_another_up_to_three_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, arm = Log(), trial()
    scheduler = conduct(tmp_path, [arm], log)
    for _ in range(RETRIES + 1):
        assert start(scheduler) == arm
        scheduler.worker_died(arm.key, "no power")
    assert scheduler.next() is None
    assert scheduler.finished
    assert log.of(arm.label) == ["started"] * (RETRIES + 1) + ["failed"]
    assert caplog.text.count("died (no power); another one resumes") == RETRIES


def test_work_whose_worker_dies_before_it_is_up_has_begun_and_ended(tmp_path: Path) -> None:
    """An observer that is not told so knows nothing of what ends."""
    log, arms = Log(), [trial(), trial(seed=1)]
    scheduler = conduct(tmp_path, arms, log)
    for _ in arms:
        assert scheduler.next() in arms
    scheduler.end(arms[0].key, JobResult("failed", "out of memory"))
    for _ in range(RETRIES + 1):
        scheduler.worker_died(arms[1].key, "no power")
        scheduler.next()
    for arm in arms:
        assert log.of(arm.label) == ["started", "failed"]


def test_work_that_was_lost_waits_for_a_later_run_once_nothing_may_begin(tmp_path: Path) -> None:
    log, arm = Log(), trial()
    scheduler = conduct(tmp_path, [arm], log)
    start(scheduler)
    scheduler.stop_scheduling()
    assert not scheduler.idle
    scheduler.worker_died(arm.key, "no power")
    assert scheduler.idle
    assert scheduler.finished
    assert log.of(arm.label) == ["started"]


@pytest.mark.parametrize("pretrained", [False, True])
def test_work_too_large_for_its_memory_is_not_tried_again_with_as_much(
    tmp_path: Path, *, pretrained: bool
) -> None:
    arms = [trial(0.5) if pretrained else trial(), trial(seed=1)]
    small, large = {"memory_gb": 16}, {"memory_gb": 32}
    log = Log()
    scheduler = conduct(tmp_path, arms, log, room=small)
    too_large = start(scheduler)
    assert start(scheduler) == arms[1]
    failure = JobResult("failed", "out of memory", facts={OUT_OF_MEMORY: True})
    scheduler.end(too_large.key, failure)
    scheduler.end(arms[1].key, JobResult("failed", "a bug"))
    assert log.of(arms[0].label)[-1] == "failed"

    again = Log()
    assert start(conduct(tmp_path, arms, again, room=small)) == arms[1]
    assert again.of(arms[0].label) == ["started", "failed"]
    assert start(conduct(tmp_path, arms, Log(), room=large)) == too_large
