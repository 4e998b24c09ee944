"""The work of a study that nobody does yet: what comes next, and what waits for a pretraining."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from study.core.records import JobResult
from study.pipeline.outcome import Outcome
from study.scheduling.announcements import Announcements, Running
from study.scheduling.known_outcomes import KnownOutcomes
from study.scheduling.objectives import with_measures
from study.scheduling.protocols import Later, Planned, Proposals
from study.scheduling.shared_pretraining import SharedPretrainings


class Backlog:
    """Finds the next piece of work; what is finished already is replayed on the way.

    Args:
        proposals: source of trials.
        metric: finetuning metric by which trials are ranked.
        known: how work ended before.
        announce: informs the observers.
        measured: errors and costs that results of trials must have, too; see `objectives`.
    """

    def __init__(
        self,
        proposals: Proposals,
        metric: str,
        known: KnownOutcomes,
        announce: Announcements,
        measured: Sequence[str] = (),
    ) -> None:
        self.measured = measured
        self.proposals, self.metric = proposals, metric
        self.known, self.announce = known, announce
        self.ready: deque[Running] = deque()
        self.shared = SharedPretrainings()
        self.numbers: dict[str, list[int]] = {}
        """Numbers of the proposals that are the same trial, by its key."""
        self.ends: dict[str, tuple[JobResult, list[float]]] = {}
        self.all_proposed = False

    @property
    def empty(self) -> bool:
        """Nothing is left, nor will be when running work ends."""
        return self.all_proposed and not self.ready and not self.shared.waiting

    def next(self) -> Running | None:
        """The next piece of work; none if there is none or it has to wait for running work."""
        while not self.ready:
            planned = None if self.all_proposed else self.proposals.next()
            if isinstance(planned, Later):
                return None
            if planned is None:
                self.all_proposed = True
                return None
            self.announce.planned(planned)
            first = None if self._is_duplicate(planned) else self._first_step(planned)
            if first is not None:
                return first
        return self.ready.popleft()

    def end(self, running: Running, result: JobResult) -> None:
        """Take in how work ended; trials that waited for it become ready, or fail with it."""
        if running.planned is None:
            self.announce.ended(running, result)
            self._end_pretraining(running, result)
            return
        if self.measured:
            result = with_measures(result, running.work, running.metrics, self.measured)
        self.announce.ended(running, result)
        values = list(running.values.values())
        self.ends[running.work.key] = result, values
        for number in self.numbers[running.work.key]:
            self.proposals.ended(number, result, values)

    def _end_pretraining(self, running: Running, result: JobResult) -> None:
        following, waiting = self.shared.end(running.work, result)
        self.ready.extend(Running(work, None) for work in following)
        for planned in waiting:
            trial = self._after_pretraining(Running(planned.work, planned), result)
            if trial is not None:
                self.ready.append(trial)

    def _is_duplicate(self, planned: Planned) -> bool:
        """Optuna may propose a trial twice: it runs once, and both receive its result."""
        key = planned.work.key
        numbers = self.numbers.setdefault(key, [])
        numbers.append(planned.number)
        if key in self.ends:
            self.proposals.ended(planned.number, *self.ends[key])
        return len(numbers) > 1

    def _first_step(self, planned: Planned) -> Running | None:
        """The trial itself, its pretraining, or none if it is finished or has to wait."""
        trial = Running(planned.work, planned)
        pretraining, outcome = planned.work.pretraining, self.known.find(planned.work)
        if pretraining is not None and not self.shared.knows(pretraining):
            pretrained = self.known.find(pretraining)
            if pretrained is not None:
                self._replay(Running(pretraining, None), pretrained)
            elif outcome is None:
                may_begin = self.shared.add(pretraining, planned)
                return Running(pretraining, None) if may_begin else None
        if outcome is not None:
            self._replay(trial, outcome)
            return None
        if pretraining is None:
            return trial
        if self.shared.join(pretraining, planned):
            return None
        return self._after_pretraining(trial, self.shared.results[pretraining.key])

    def _after_pretraining(self, trial: Running, result: JobResult) -> Running | None:
        if result.status == "completed":
            return trial
        self.announce.started(trial)
        reason = f"its pretraining {result.status}: {result.reason}"
        self.end(trial, JobResult("failed", reason))
        return None

    def _replay(self, running: Running, outcome: Outcome) -> None:
        """Announce work that ended before as if it did so now."""
        self.announce.started(running)
        for record in outcome.history:
            self.announce.recorded(running, record)
        if running.planned is not None:
            values = {record.epoch: record.metrics[self.metric] for record in outcome.history}
            running.values.update(values)
            running.metrics.update((record.epoch, record.metrics) for record in outcome.history)
        self.end(running, outcome.result)
