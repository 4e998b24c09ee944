"""What a worker process of Ray does with a piece of work."""

from __future__ import annotations

from study.driver import ray_env  # noqa: F401

# isort: split
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune

from study.core.trust import ACCEPTED
from study.driver.watchdog import Watchdog
from study.pipeline.job import Job

STOP_FILE = "stop"
"""File whose existence asks all workers to stop."""


def run_work(
    config: dict[str, Any],
    root: str,
    frames: dict[str, str],
    scratch: str,
    patience: float,
    threads: int,
    workers: int,
    device: str,
    *,
    deterministic: bool,
    accepted: str,
) -> None:
    """Do one job in a worker process; report every epoch, with warnings.

    On another node the user's settings may be missing, so that `accepted` names the code that may
    run as the driver's environment does.
    """
    os.environ[ACCEPTED] = accepted
    job, warnings = Job.from_json(json.loads(config["work"])), _WarningBuffer()
    diagnosis = Path(scratch) / f"{job.key}.txt"
    data = Path(frames[job.data_hash])
    logging.getLogger("study").addHandler(warnings)
    try:
        with Watchdog(Path(scratch) / STOP_FILE, diagnosis, patience) as watchdog:
            reports = _reports(
                job,
                Path(root),
                data,
                device,
                watchdog,
                threads,
                workers,
                deterministic=deterministic,
            )
            for kind, content in reports:
                tune.report({kind: content, "warnings": warnings.take()})
    finally:
        logging.getLogger("study").removeHandler(warnings)


def _reports(
    job: Job,
    root: Path,
    frames: Path,
    device: str,
    watchdog: Watchdog,
    threads: int,
    workers: int,
    *,
    deterministic: bool,
) -> Iterator[tuple[str, str]]:
    """Do the job, unless work has been asked to stop meanwhile."""
    if watchdog.stop_requested:
        yield "paused", ""
        return
    # Torch takes long to import.
    from study.pipeline.job_reports import run_and_report

    yield from run_and_report(
        job, root, frames, device, watchdog, threads, workers, deterministic=deterministic
    )


class _WarningBuffer(logging.Handler):
    """Keeps a worker's warnings for the next report: the user does not see its output."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())

    def take(self) -> list[str]:
        """Return the lines since the last call."""
        lines, self.lines = self.lines, []
        return lines
