"""Pretrainings that several trials share: each runs once, and trials wait for it."""

from __future__ import annotations

from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Planned


class SharedPretrainings:
    """Which pretrainings are done, and which trials wait for those that are not.

    Pretrainings of one schedule that differ in their length alone share epochs: they run one after
    the other, and each goes on from where the last one ended.
    """

    def __init__(self) -> None:
        self.results: dict[str, JobResult] = {}
        self.waiting: dict[str, list[Planned]] = {}
        """Trials, by the key of their pretraining."""
        self._sharing: dict[str, list[Job]] = {}
        """Pretrainings that share epochs, by the key of the whole; the first is under way."""

    def knows(self, pretraining: Job) -> bool:
        """Whether it is done, or a trial waits for it."""
        return pretraining.key in (*self.results, *self.waiting)

    def add(self, pretraining: Job, planned: Planned) -> bool:
        """A trial waits for a pretraining that nobody has asked for.

        Returns:
            Whether it may begin now; else one that it shares epochs with is under way.
        """
        self.waiting[pretraining.key] = [planned]
        sharing = self._sharing.setdefault(pretraining.full_schedule.key, [])
        sharing.append(pretraining)
        return len(sharing) == 1

    def join(self, pretraining: Job, planned: Planned) -> bool:
        """Let a trial wait for a pretraining, if others do; whether it has to."""
        if pretraining.key not in self.waiting:
            return False
        self.waiting[pretraining.key].append(planned)
        return True

    def end(self, pretraining: Job, result: JobResult) -> tuple[list[Job], list[Planned]]:
        """Take in the end of a pretraining.

        Returns:
            Another that shares its epochs and may begin now, if there is one, and the trials that
            have waited.
        """
        self.results[pretraining.key] = result
        return self._start_next_shared(pretraining), self.waiting.pop(pretraining.key, [])

    def _start_next_shared(self, done: Job) -> list[Job]:
        """The next of the pretrainings that share epochs, the shortest first."""
        sharing = self._sharing.get(done.full_schedule.key, [])
        if done not in sharing:
            return []
        sharing.remove(done)
        sharing.sort(key=lambda work: work.epochs)
        return sharing[:1]
