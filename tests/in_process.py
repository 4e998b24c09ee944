"""Jobs of a scheduler, done one after the other in the process of a test."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

from study.pipeline.execute import run_job
from study.pipeline.outcome import load_outcome
from study.scheduling.scheduler import Scheduler


def conduct(scheduler: Scheduler, root: Path, frames: Path, most: int | None = None) -> bool:
    """Do real work, and stop as if killed after `most` jobs: whether more may be left."""
    for _ in repeat(None) if most is None else repeat(None, most):
        job = scheduler.next()
        if job is None:
            return False
        scheduler.began(job.key)
        for record in run_job(job, root, frames):
            scheduler.report(job.key, record)
        outcome = load_outcome(job.folder(root))
        assert outcome is not None
        scheduler.end(job.key, outcome.result)
    return True
