"""How far the work of a study has come, as its observers hear it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.space.trial import Trial
from study.training.config import Stage

ENDED = ("completed", "stopped", "diverged", "failed")


@dataclass
class JobProgress:
    """How far one job has come.

    Args:
        job: the job.
        expected: its compute, s.
        epochs: that it will have.
        begin: epochs that it does not do itself, because another job has.
        epoch: the last one that is done.
        before: what the jobs that it continues have cost, s.
        seconds: what it has cost so far, with those.
        value: the metric after the last epoch; none before the first.
        best: its lowest value.
        status: running, or how it ended.
        is_new: whether some of its epochs were done in this run of the study.
        began: moment by the monotonic clock.
    """

    job: Job
    expected: float
    epochs: int
    begin: int = 0
    before: float = 0.0
    epoch: int = 0
    seconds: float = 0.0
    value: float | None = None
    best: float | None = None
    status: str = "running"
    is_new: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float | None:
        """Time to the end of a running stage at its present speed."""
        if self.status != "running" or not self.epoch:
            return None
        return self.seconds / self.epoch * (self.epochs - self.epoch)

    @property
    def done(self) -> float:
        """Expected compute of what it has done, or need not do."""
        return self.expected * (1 - self.left) - self.inherited

    @property
    def inherited(self) -> float:
        """Expected compute of the epochs that another job has done."""
        return self.expected * self.begin / self.epochs if self.epochs else 0.0

    @property
    def left(self) -> float:
        """Share of the expected compute that is still to come."""
        running = self.status == "running" and self.epochs > 0
        return 1 - max(self.epoch, self.begin) / self.epochs if running else 0.0

    def record(self, record: EpochRecord, metric: str) -> None:
        """Take in an epoch."""
        before, self.seconds = self.seconds, record.metrics["seconds"]
        self.is_new = self.is_new or self.seconds > before
        self.epoch = record.epoch
        self.value = record.metrics.get(metric, record.metrics.get("val_loss"))
        if self.value is not None:
            self.best = self.value if self.best is None else min(self.best, self.value)


class StudyProgress:
    """How far all jobs have come, and what reuse has saved.

    Args:
        metric: finetuning metric to follow.
        expected: compute of all planned work, s.
        slots: trials at once.
        seconds_of: expected compute of a stage, s.
    """

    def __init__(
        self,
        metric: str,
        expected: float,
        slots: int,
        seconds_of: Callable[[Trial, Stage], float],
    ) -> None:
        self.metric, self.expected = metric, expected
        self.slots, self.seconds_of = slots, seconds_of
        self.jobs: dict[str, JobProgress] = {}
        self.tuning: set[str] = set()
        """Keys of trials that only choose values, or repeat a member of a population; they are not
        among the best."""
        self.reused, self.saved, self.shared = 0, 0.0, set[str]()

    def start(self, job: Job) -> None:
        """Begin to follow a job."""
        seconds = 0.0 if job.start else self.seconds_of(job.trial, job.training)
        begin = job.segment.begin if job.segment else 0
        seconds *= job.epochs / job.training.epochs if job.segment else 1
        parent = self.jobs.get(job.segment.parent or "") if job.segment else None
        before = parent.seconds if parent else 0.0
        self.jobs[job.key] = JobProgress(job, seconds, job.epochs, begin, before)
        # A part that continues another one does not start from its pretraining.
        if job.pretraining is not None and begin == 0:
            self._note_shared(job.pretraining.key)

    def record(self, job: Job, record: EpochRecord) -> JobProgress:
        """Take in an epoch."""
        progress = self.jobs[job.key]
        progress.record(record, self.metric)
        return progress

    def end(self, job: Job, result: JobResult) -> JobProgress | None:
        """Take in how a job ended; returns its progress, or none if it had ended before."""
        progress = self.jobs.get(job.key)
        if progress is None or progress.status != "running":
            return None
        progress.status = result.status
        self._note_reused(progress)
        return progress

    def pause(self) -> None:
        """Note that no job runs any more; a later run of the study resumes them."""
        for progress in self.jobs.values():
            if progress.status == "running":
                progress.status = "paused"

    def of(self, kind: str) -> list[JobProgress]:
        """The pretrainings or the trials that have begun."""
        return [progress for progress in self.jobs.values() if progress.job.kind == kind]

    @property
    def running(self) -> int:
        """How many jobs are running."""
        return sum(progress.status == "running" for progress in self.jobs.values())

    @property
    def states(self) -> Counter[str]:
        """How many trials are in which state."""
        return Counter(progress.status for progress in self.of("trial"))

    @property
    def best(self) -> JobProgress | None:
        """The trial with the lowest metric; of a population that is over, of those it tests."""
        trials = [each for each in self.of("trial") if each.job.key not in self.tuning]
        found = [progress for progress in trials if progress.best is not None]
        ended = [each for each in found if each.job.segment and each.status == "completed"]
        tested = [each for each in ended if not each.job.is_part]
        return min(tested or found, key=lambda progress: progress.best or 0.0, default=None)

    @property
    def seconds_left(self) -> float | None:
        """Remaining expected compute, corrected by what the epochs so far took."""
        jobs = self.jobs.values()
        fresh = [progress for progress in jobs if progress.is_new]
        measured = sum(progress.seconds for progress in fresh)
        expected = sum(each.expected * each.epoch / each.epochs for each in fresh)
        if not expected:
            return None
        done = sum(progress.done for progress in jobs)
        return max(0.0, self.expected - done) * measured / expected / self.slots

    def _note_shared(self, pretraining: str) -> None:
        """A pretraining that a second trial starts from has not run a second time."""
        if pretraining in self.shared and pretraining in self.jobs:
            self.reused += 1
            self.saved += self.jobs[pretraining].seconds
        self.shared.add(pretraining)

    def _note_reused(self, progress: JobProgress) -> None:
        """Work that cost more than the time it has been here was done before."""
        own = progress.seconds - progress.before
        saved = own - (time.monotonic() - progress.began)
        if saved > 0.9 * own:
            self.reused += 1
        self.saved += max(0.0, saved)
