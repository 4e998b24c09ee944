"""A job's progress as text, for a process that has not done the job itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from study.core.errors import MachineError
from study.core.records import JobResult
from study.pipeline.execute import run_job_safely
from study.pipeline.job import Job
from study.training.loop import PausedError
from study.training.runtime import configure_process


def run_and_report(
    job: Job,
    root: Path,
    frames: Path,
    device: str,
    stop_requested: Callable[[], bool],
    threads: int,
    workers: int = 1,
    *,
    deterministic: bool,
) -> Iterator[tuple[str, str]]:
    """Do a job in this process, and report every epoch and the end.

    Args:
        job: what to do.
        root: folder of all work.
        frames: folder of the data set.
        device: torch device.
        stop_requested: asked after every step whether to write a checkpoint and stop.
        threads: that torch may use, in each worker.
        workers: processes that share each training step, this one included.
        deterministic: whether repeated runs must agree in every bit on a GPU, too.

    Yields:
        `record` with an epoch as JSON, `result` with how the job ended, `paused`, or `fault` with
        what this machine does not do any more.
    """
    configure_process(threads, device, deterministic=deterministic)
    try:
        for news in run_job_safely(job, root, frames, device, stop_requested, workers):
            kind = "result" if isinstance(news, JobResult) else "record"
            yield kind, json.dumps(asdict(news))
    except PausedError:
        yield "paused", ""
    except MachineError as fault:
        yield "fault", str(fault)
