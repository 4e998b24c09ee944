"""Stopped trials that are finished afterwards, without Ray and MLflow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from study.core.records import EpochRecord, JobResult
from study.datasets.frames import Frames
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, load_outcome
from study.scheduling.early_stopping_audit import Audit
from study.scheduling.journal import Entry, Journal
from study.scheduling.proposals.grid import Grid
from study.scheduling.protocols import Planned
from study.scheduling.scheduler import Scheduler
from study.space.trial import Trial

METRIC = "val_force_rmse"
STOPPED, DONE = JobResult("stopped", "early"), JobResult("completed")
Tiny = Callable[..., Trial]


def entry(
    tiny: Tiny, number: int, result: JobResult | None, values: list[float], **trial: Any
) -> Entry:
    work = Job("trial", tiny(pretrain=None, **{"seed": number} | trial), "d", "c")
    return Entry(Planned(number, work, {"lr": 0.1}, exempt=False), values, result)


@pytest.fixture
def entries(tiny: Tiny) -> dict[int, Entry]:
    """Ten stopped trials among others."""
    ends = [STOPPED] * 10 + [DONE, JobResult("diverged"), JobResult("failed"), None]
    return {number: entry(tiny, number, end, [0.5]) for number, end in enumerate(ends)}


def numbers(*arguments: Any) -> list[int]:
    return [planned.number for planned in Audit(*arguments).sample]


def test_a_larger_sample_contains_the_smaller(entries: dict[int, Entry]) -> None:
    samples = [numbers("study", 0, entries, size) for size in range(12)]
    assert [len(sample) for sample in samples] == [*range(11), 10]
    assert set(samples[-1]) == set(range(10))
    for smaller, larger in itertools.pairwise(samples):
        assert larger[: len(smaller)] == smaller


def test_the_sample_depends_on_the_studys_name_and_seed(entries: dict[int, Entry]) -> None:
    assert numbers("study", 0, entries, 5) == numbers("study", 0, entries, 5)
    assert numbers("study", 0, entries, 5) != numbers("other", 0, entries, 5)
    assert numbers("study", 0, entries, 5) != numbers("study", 1, entries, 5)


def test_every_stopped_trial_is_as_likely_as_any_other(entries: dict[int, Entry]) -> None:
    drawn = [number for seed in range(400) for number in numbers("study", seed, entries, 3)]
    # 120 each are expected; a fair draw leaves this range once in ten thousand times.
    assert all(75 < drawn.count(number) < 165 for number in range(10))


def test_a_trial_that_was_proposed_twice_is_finished_once(tiny: Tiny) -> None:
    twins = {number: entry(tiny, number, STOPPED, [0.5], seed=0) for number in (3, 7)}
    audit = Audit("study", 0, twins, 2)
    assert (audit.stopped, [planned.number for planned in audit.sample]) == (1, [3])


def test_an_audit_counts_those_that_end_below_the_best(tiny: Tiny) -> None:
    ends = {10: [0.4, 0.3], 11: [0.2]} | {number: [0.5] for number in range(4)}
    known = {n: entry(tiny, n, DONE if n > 9 else STOPPED, values) for n, values in ends.items()}
    audit = Audit("study", 0, known, 4)
    for number, status, values in (
        (0, "completed", [0.5, 0.1]),
        (1, "completed", [0.5, 0.25]),
        (2, "diverged", [0.1]),
    ):
        audit.ended(number, JobResult(status), values)  # type: ignore[arg-type]
    assert audit.summary == "1 of 3 stopped trials end below the best that was not stopped"
    assert not audit.failed
    audit.ended(3, JobResult("failed"), [])
    assert audit.failed
    assert " of 3 " in audit.summary


class FirstEpoch:
    """Stops every trial after its first epoch."""

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        del number, value
        return epoch == 1

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        del number, result, values


class Log:
    """Writes down what is told of trials."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def planned(self, planned: Planned) -> None:
        self.news.append(f"planned {planned.number}")

    def started(self, work: Job, number: int | None) -> None: ...

    def recorded(self, work: Job, record: EpochRecord) -> None:
        if work.kind == "trial":
            self.news.append(f"epoch {record.epoch}")

    def ended(self, work: Job, result: JobResult) -> None:
        if work.kind == "trial":
            self.news.append(result.status)


class Study:
    """A study of one trial that is worked off in this process."""

    def __init__(self, root: Path, frames: Path, trial: Job) -> None:
        self.root, self.frames, self.trial = root, frames, trial
        self.journal = Journal(root / "journal.jsonl", METRIC)

    def search(self) -> list[str]:
        """Run it, with early stopping; what was told."""
        log, grid = Log(), Grid([self.trial], self.journal.entries(), exempt=False)
        observers = [self.journal, log]
        earlier = self.journal.stopped()
        self._work_off(
            Scheduler(grid, METRIC, self.root, observers, FirstEpoch(), earlier), epochs=99
        )
        return log.news

    def audit(self, epochs: int = 99) -> list[str]:
        """Finish it; a crash ends that after so many epochs."""
        log, audit = Log(), Audit("study", 0, self.journal.entries(), 1)
        self._work_off(Scheduler(audit, METRIC, self.root, [log]), epochs)
        return log.news

    def _work_off(self, scheduler: Scheduler, epochs: int) -> None:
        while (work := scheduler.next()) is not None:
            scheduler.began(work.key)
            records = run_job(work, self.root, self.frames)
            if any(
                scheduler.report(work.key, record) for record in itertools.islice(records, epochs)
            ):
                continue
            outcome = load_outcome(work.folder(self.root))
            if outcome is None:
                return
            scheduler.end(work.key, outcome.result)


def outcome_of(study: Study) -> Outcome:
    outcome = load_outcome(study.trial.folder(study.root))
    assert outcome is not None
    return outcome


@pytest.fixture
def study(tiny: Tiny, water: Frames, water_folder: Path, tmp_path: Path) -> Study:
    """Its trial was stopped after one of three epochs."""
    made = Study(tmp_path, water_folder, Job("trial", tiny(), water.content_hash()))
    assert made.search() == ["planned 0", "epoch 1", "stopped"]
    return made


EPOCHS = [f"epoch {epoch}" for epoch in range(1, 4)]


def test_an_audited_trial_goes_on_to_its_end_and_stays_stopped_in_the_study(study: Study) -> None:
    written = study.journal.path.read_bytes()
    assert study.audit() == ["planned 0", *EPOCHS, "completed"]
    assert outcome_of(study).result.metrics["test_force_rmse"] > 0
    assert study.search() == ["planned 0", "epoch 1", "stopped"]
    assert study.journal.path.read_bytes() == written


def test_an_interrupted_audit_goes_on_and_ends_as_if_it_had_not_been(
    study: Study, water_folder: Path, tmp_path: Path
) -> None:
    assert study.audit(epochs=2) == ["planned 0", *EPOCHS[:2]]
    assert study.audit() == ["planned 0", *EPOCHS, "completed"]
    alone = Study(tmp_path / "alone", water_folder, study.trial)
    assert study.trial.pretraining is not None
    for piece in (study.trial.pretraining, study.trial):
        list(run_job(piece, alone.root, water_folder))
    ends = [outcome_of(each).weights for each in (study, alone)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].name == ends[1].name


def test_a_finished_audit_is_only_told_again(study: Study) -> None:
    first = study.audit()
    before = {p: p.stat().st_mtime_ns for p in study.root.rglob("*") if p.name != "lock"}
    assert study.audit() == first
    assert {p: p.stat().st_mtime_ns for p in study.root.rglob("*") if p.name != "lock"} == before
