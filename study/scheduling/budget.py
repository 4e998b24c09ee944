"""How much compute a study may take, over all its runs."""

from __future__ import annotations

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Planned


class Budget:
    """Adds up what the study's work has cost, in this run and in earlier ones.

    The history of finished and of continued work comes again in each run, and counts.

    Args:
        share: GPUs or cores that one trial takes.
        limit: GPU or core seconds.
    """

    def __init__(self, share: float, limit: float) -> None:
        self.share, self.limit = share, limit
        self._seconds: dict[str, float] = {}
        self._parents: dict[str, str] = {}

    @property
    def total(self) -> float:
        """Compute of all work so far, GPU or core seconds."""
        inherited = sum(self._seconds.get(parent, 0.0) for parent in self._parents.values())
        return self.share * (sum(self._seconds.values()) - inherited)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left of it."""
        return self.total >= self.limit

    def planned(self, planned: Planned) -> None:
        """Costs nothing yet."""

    def started(self, work: Job, number: int | None) -> None:
        """Costs nothing yet."""

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """`seconds` of a record is what its stage has cost so far."""
        # A longer pretraining has the epochs of a shorter one in its history.
        name, seconds = work.full_schedule.key, record.metrics["seconds"]
        if work.segment is not None and work.segment.parent is not None:
            self._parents[name] = work.segment.parent
        self._seconds[name] = max(self._seconds.get(name, 0.0), seconds)

    def ended(self, work: Job, result: JobResult) -> None:
        """Nothing more to count."""
