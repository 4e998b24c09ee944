"""Which piece of work comes next, and when running work has to stop.

Every pretraining runs once, as work of its own that the trials built on it wait for; finished
work is taken over, not repeated. Nothing here knows Ray, Optuna or MLflow.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.announcements import Announcements, Running
from study.scheduling.backlog import Backlog
from study.scheduling.known_outcomes import KnownOutcomes
from study.scheduling.protocols import Allowance, EarlyStop, Observer, Planned, Proposals

RETRIES = 3
"""How often work whose worker died goes to another, which resumes from its checkpoint."""

logger = logging.getLogger(__name__)


class Scheduler:
    """Assigns work to workers and handles their reports.

    Args:
        proposals: source of trials.
        metric: finetuning metric by which trials are ranked; lower is better.
        root: folder of all work.
        observers: who is informed of every event.
        early_stop: stops trials that are not exempt.
        earlier: trials that an earlier run of the study stopped, by key: result and epochs.
        allowance: of compute; unlimited when left out.
        room: cores, GPUs and memory that work may take; what it was too small for is not tried
            again with the same.
        measured: errors and costs that results of trials must have; see `objectives`.
    """

    def __init__(
        self,
        proposals: Proposals,
        metric: str,
        root: Path,
        observers: Sequence[Observer],
        early_stop: EarlyStop | None = None,
        earlier: Mapping[str, tuple[JobResult, int]] | None = None,
        allowance: Allowance | None = None,
        room: Mapping[str, Any] | None = None,
        measured: Sequence[str] = (),
    ) -> None:
        self.proposals, self.metric = proposals, metric
        self.early_stop, self.allowance = early_stop, allowance
        self.known = KnownOutcomes(root, earlier or {}, room or {})
        self.announce = Announcements(observers)
        self.backlog = Backlog(proposals, metric, self.known, self.announce, measured)
        self.running: dict[str, Running] = {}
        self.stopping = False
        """Work is left to a later run of the study, because of the allowance or a signal."""

    @property
    def finished(self) -> bool:
        """No work is left to hand out, now or later."""
        return self.stopping or (self.backlog.empty and not self.running)

    @property
    def idle(self) -> bool:
        """No worker is at work."""
        return not any(running.began for running in self.running.values())

    def stop_scheduling(self) -> None:
        """Hand out nothing more; running work ends at its next report."""
        self.stopping = True

    def has_work(self) -> bool:
        """Whether there is something to do at all; what is finished is replayed on the way."""
        found = self._next()
        if found is not None:
            self.backlog.ready.appendleft(found)
        return found is not None

    def next(self) -> Job | None:
        """Work to start now; none if there is none or it has to wait for running work."""
        found = self._next()
        if found is None:
            return None
        self.running[found.work.key] = found
        return found.work

    def began(self, key: str) -> None:
        """Note that work which was handed out has got a worker, perhaps not its first."""
        if key in self.running:
            self.running[key].began = True
            self.announce.started(self.running[key])

    def report(self, key: str, record: EpochRecord) -> bool:
        """Take in an epoch of running work; true if the work must stop."""
        running = self.running[key]
        self.announce.recorded(running, record)
        if running.planned is not None and self._should_prune(running, running.planned, record):
            reason = f"early, after {record.epoch} epochs of finetuning"
            self.end(key, JobResult("stopped", reason))
            return True
        if record.epoch < running.work.epochs and (self.stopping or self._exhausted):
            # It resumes from its checkpoint, which was written before this report.
            self.paused(key)
            self.stopping = True
            return True
        return False

    def paused(self, key: str) -> None:
        """Note that running work has written a checkpoint and ended; a later run resumes it."""
        self.running.pop(key, None)

    def worker_died(self, key: str, why: str) -> None:
        """Let another worker resume running work from its last checkpoint."""
        running = self.running.pop(key, None)
        if running is None or self.stopping:
            return
        running.began, running.deaths = False, running.deaths + 1
        if running.deaths > RETRIES:
            reason = f"its worker process died {running.deaths} times, the last time: {why}"
            self.backlog.end(running, JobResult("failed", reason))
            return
        logger.warning(
            "%s: its worker process died (%s); another one resumes from the last checkpoint",
            running.work.label,
            why,
        )
        self.backlog.ready.append(running)

    def end(self, key: str, result: JobResult) -> None:
        """Take in the end of running work; trials that waited for it become ready, or fail too."""
        running = self.running.pop(key, None)
        if running is not None:
            self.known.record(running.work, result)
            planned, stop = running.planned, self.early_stop
            if planned is not None and stop is not None and not planned.exempt:
                stop.ended(planned.number, result, list(running.values.values()))
            self.backlog.end(running, result)

    def _should_prune(self, running: Running, planned: Planned, record: EpochRecord) -> bool:
        value = record.metrics[self.metric]
        running.values[record.epoch] = value
        if self.backlog.measured:
            running.metrics[record.epoch] = record.metrics
        self.proposals.reported(planned.number, record.epoch, value)
        if planned.exempt or self.early_stop is None:
            return False
        return self.early_stop.should_prune(planned.number, record.epoch, value)

    @property
    def _exhausted(self) -> bool:
        return self.allowance is not None and self.allowance.exhausted

    def _next(self) -> Running | None:
        found = None if self.stopping else self.backlog.next()
        if found is not None and self._exhausted:
            self.stopping = True
            return None
        return found
