"""Which piece of work comes next, and what is known about all of them.

Every pretraining runs once, as work of its own that the trials built on it wait for; finished
work is taken over, not repeated. Nothing here knows Ray, Optuna or MLflow.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.core.records import RESULT, EpochRecord, JobResult
from study.pipeline.job import Job
from study.pipeline.outcome import (
    OUT_OF_MEMORY,
    Outcome,
    load_history,
    load_out_of_memory,
    load_outcome,
    record_out_of_memory,
)
from study.scheduling.protocols import Allowance, EarlyStop, Later, Observer, Planned, Proposals
from study.scheduling.shared_pretraining import SharedPretrainings
from study.training.checkpoint import delete_checkpoints

RETRIES = 3
"""Work whose worker dies is given to another so often, and goes on from its checkpoint."""

logger = logging.getLogger(__name__)


@dataclass
class _Running:
    """Work under way.

    Args:
        work: what is done.
        planned: the trial; none for a pretraining.
        values: a trial's metric by epoch, which may come twice.
        began: whether it has a worker.
        told: whether observers know that it has begun.
        deaths: how many of its workers have died.
    """

    work: Job
    planned: Planned | None
    values: dict[int, float] = field(default_factory=dict)
    began: bool = False
    told: bool = False
    deaths: int = 0


class Conductor:
    """Hands out work and takes in reports.

    Args:
        proposals: source of trials.
        metric: finetuning metric by which trials are ranked; lower is better.
        root: folder of all work.
        observers: who is told.
        early_stop: stops trials that are not exempt.
        earlier: trials that an earlier run of the study stopped, by key: result and epochs.
        allowance: of compute; no end to it when left out.
        size: cores, GPUs and memory that work may take; what it was too small for is not tried
            again with the same.
    """

    def __init__(
        self,
        proposals: Proposals,
        metric: str,
        root: Path,
        observers: Sequence[Observer],
        early_stop: EarlyStop | None = None,
        earlier: dict[str, tuple[JobResult, int]] | None = None,
        allowance: Allowance | None = None,
        size: Mapping[str, Any] | None = None,
    ) -> None:
        self.proposals, self.metric, self.root = proposals, metric, root
        self.observers, self.early_stop = observers, early_stop
        self.earlier, self.allowance = earlier or {}, allowance
        self.size = size or {}
        self.running: dict[str, _Running] = {}
        self.ready: deque[_Running] = deque()
        self.shared = SharedPretrainings()
        self.numbers: dict[str, list[int]] = {}
        self.ends: dict[str, tuple[JobResult, list[float]]] = {}
        self.exhausted = False
        self.put_off = False
        """Work is left to a later run of the study, because of the allowance or a signal."""

    @property
    def finished(self) -> bool:
        """No work is left to hand out, now or later."""
        left = self.ready or self.shared.waiting or self.running
        return self.put_off or (self.exhausted and not left)

    @property
    def idle(self) -> bool:
        """No worker is at work."""
        return not any(running.began for running in self.running.values())

    def put_off_all(self) -> None:
        """Hand out nothing more; work under way ends at its next report."""
        self.put_off = True

    def has_work(self) -> bool:
        """Whether there is something to do at all; what is finished is taken over on the way."""
        work = self._find()
        if work is not None:
            self.ready.appendleft(work)
        return work is not None

    def next(self) -> Job | None:
        """Work to start now; none if there is none or it has to wait for running work."""
        found = self._find()
        if found is None:
            return None
        self.running[found.work.key] = found
        return found.work

    def began(self, key: str) -> None:
        """Work that was handed out has got a worker, perhaps not its first."""
        if key in self.running:
            self.running[key].began = True
            self._tell_started(self.running[key])

    def report(self, key: str, record: EpochRecord) -> bool:
        """Take in an epoch of running work; true if the work must stop."""
        running = self.running[key]
        for observer in self.observers:
            observer.recorded(running.work, record)
        if running.planned is not None and self._is_hopeless(running, running.planned, record):
            reason = f"early, after {record.epoch} epochs of finetuning"
            self.end(key, JobResult("stopped", reason))
            return True
        if record.epoch < running.work.epochs and (self.put_off or self._has_spent()):
            # It goes on from its checkpoint, which was written before this report.
            self.paused(key)
            self.put_off = True
            return True
        return False

    def paused(self, key: str) -> None:
        """Running work has written a checkpoint and ended; a later run of the study goes on."""
        self.running.pop(key, None)

    def lost(self, key: str, why: str) -> None:
        """The worker of running work has died; another goes on from its last checkpoint."""
        running = self.running.pop(key, None)
        if running is None or self.put_off:
            return
        running.began, running.deaths = False, running.deaths + 1
        if running.deaths > RETRIES:
            reason = f"its worker process died {running.deaths} times, the last time: {why}"
            self._tell_ended(running, JobResult("failed", reason))
            return
        logger.warning(
            "%s: its worker process died (%s); another goes on from the last checkpoint",
            running.work.label,
            why,
        )
        self.ready.append(running)

    def end(self, key: str, result: JobResult) -> None:
        """Running work is over; trials that waited for it become ready, or fail with it."""
        running = self.running.pop(key, None)
        if running is None:
            return
        if result.facts.get(OUT_OF_MEMORY):
            record_out_of_memory(running.work.folder(self.root), result, self.size)
        self._tell_ended(running, result)

    def _is_hopeless(self, running: _Running, planned: Planned, record: EpochRecord) -> bool:
        value = record.metrics[self.metric]
        running.values[record.epoch] = value
        self.proposals.reported(planned.number, record.epoch, value)
        if planned.exempt or self.early_stop is None:
            return False
        return self.early_stop.hopeless(planned.number, record.epoch, value)

    def _has_spent(self) -> bool:
        return self.allowance is not None and self.allowance.spent

    def _find(self) -> _Running | None:
        found = None if self.put_off else self._first_left()
        if found is not None and self._has_spent():
            self.put_off = True
            return None
        return found

    def _first_left(self) -> _Running | None:
        while True:
            if self.ready:
                return self.ready.popleft()
            planned = None if self.exhausted else self.proposals.next()
            if isinstance(planned, Later):
                return None
            if planned is None:
                self.exhausted = True
                return None
            for observer in self.observers:
                observer.planned(planned)
            found = None if self._is_twin(planned) else self._first_step(planned)
            if found is not None:
                return found

    def _is_twin(self, planned: Planned) -> bool:
        """Optuna may propose a trial twice: it runs once, and both learn its end."""
        key = planned.work.key
        numbers = self.numbers.setdefault(key, [])
        numbers.append(planned.number)
        if key in self.ends:
            self.proposals.ended(planned.number, *self.ends[key])
        return len(numbers) > 1

    def _first_step(self, planned: Planned) -> _Running | None:
        """The trial itself, its pretraining, or none if it is finished or has to wait."""
        trial = _Running(planned.work, planned)
        pretraining, outcome = planned.work.pretraining, self._known_outcome(planned.work)
        if pretraining is not None and not self.shared.knows(pretraining):
            pretrained = self._known_outcome(pretraining)
            if pretrained is not None:
                self._take_over(_Running(pretraining, None), pretrained)
            elif outcome is None:
                begins = self.shared.add(pretraining, planned)
                return _Running(pretraining, None) if begins else None
        if outcome is not None:
            self._take_over(trial, outcome)
            return None
        if pretraining is None:
            return trial
        if self.shared.join(pretraining, planned):
            return None
        return self._after_pretraining(trial, self.shared.results[pretraining.key])

    def _after_pretraining(self, trial: _Running, result: JobResult) -> _Running | None:
        if result.status == "completed":
            return trial
        self._tell_started(trial)
        reason = f"its pretraining {result.status}: {result.reason}"
        self._tell_ended(trial, JobResult("failed", reason))
        return None

    def _known_outcome(self, work: Job) -> Outcome | None:
        if work.key in self.earlier:
            result, epochs = self.earlier[work.key]
            return Outcome(result, load_history(work, self.root)[:epochs], None)
        folder = work.folder(self.root)
        outcome = load_outcome(folder)
        if outcome is not None:
            # A crash right after the end of the work leaves some.
            delete_checkpoints(folder)
            return outcome
        if (folder / RESULT).exists():
            logger.warning("%s: result or weights are damaged; the work is done again", folder)
        oversized = load_out_of_memory(folder, self.size)
        return Outcome(oversized, load_history(work, self.root), None) if oversized else None

    def _take_over(self, running: _Running, outcome: Outcome) -> None:
        self._tell_started(running)
        for record in outcome.history:
            for observer in self.observers:
                observer.recorded(running.work, record)
        if running.planned is not None:
            values = {record.epoch: record.metrics[self.metric] for record in outcome.history}
            running.values.update(values)
        self._tell_ended(running, outcome.result)

    def _tell_started(self, running: _Running) -> None:
        running.told = True
        number = None if running.planned is None else running.planned.number
        for observer in self.observers:
            observer.started(running.work, number)

    def _tell_ended(self, running: _Running, result: JobResult) -> None:
        # Its worker may have died before it was up.
        if not running.told:
            self._tell_started(running)
        for observer in self.observers:
            observer.ended(running.work, result)
        if running.planned is not None:
            values = list(running.values.values())
            self.ends[running.work.key] = result, values
            for number in self.numbers[running.work.key]:
                self.proposals.ended(number, result, values)
            return
        following, waiting = self.shared.end(running.work, result)
        self.ready.extend(_Running(work, None) for work in following)
        for planned in waiting:
            trial = self._after_pretraining(_Running(planned.work, planned), result)
            if trial is not None:
                self.ready.append(trial)
