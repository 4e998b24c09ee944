"""How much compute a study may take, over all its runs."""

from __future__ import annotations

import re

from study.core.errors import UserError
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Planned

SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def seconds_in(text: str, option: str) -> float:
    """Seconds in a duration such as 30min, 8h or 1.5d.

    Raises:
        UserError: if it is none.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(s|min|m|h|d)", text.strip())
    if not found or float(found[1]) == 0:
        raise UserError(f"{option} {text}: must be a duration such as 30min, 8h or 1.5d")
    return float(found[1]) * SECONDS[found[2]]


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

    @property
    def total(self) -> float:
        """Compute of all work so far, GPU or core seconds."""
        return self.share * sum(self._seconds.values())

    @property
    def spent(self) -> bool:
        """Nothing is left of it."""
        return self.total >= self.limit

    def planned(self, planned: Planned) -> None:
        """Costs nothing yet."""

    def started(self, work: Job, number: int | None) -> None:
        """Costs nothing yet."""

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """`seconds` of a record is what its stage has cost so far."""
        # A longer pretraining has the epochs of a shorter one in its history.
        name, seconds = work.full_schedule.key, record.metrics["seconds"]
        self._seconds[name] = max(self._seconds.get(name, 0.0), seconds)

    def ended(self, work: Job, result: JobResult) -> None:
        """Nothing more to count."""
