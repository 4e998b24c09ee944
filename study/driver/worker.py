"""What a worker of Ray does with a piece of work."""

from __future__ import annotations

from study.scheduling import ray_env  # noqa: F401

# isort: split
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from study.core.records import JobResult
from study.driver.watchdog import Watch
from study.pipeline.job import Job

REQUEST = "end"
"""File whose existence asks all workers to end."""


def perform(
    config: dict[str, Any],
    root: str,
    frames: dict[str, str],
    scratch: str,
    patience: float,
    threads: int,
    device: str,
    *,
    deterministic: bool,
) -> None:
    """Do one piece of work in a worker process; report every epoch, and what the user is told."""
    work, told = Job.from_json(config["work"]), _Told()
    diagnosis = Path(scratch) / f"{work.key}.txt"
    logging.getLogger("study").addHandler(told)
    try:
        with Watch(Path(scratch) / REQUEST, diagnosis, patience) as watch:
            if not watch.asked:
                from study.training.runtime import configure_process  # Torch takes long to import.

                configure_process(threads, device, deterministic=deterministic)
            for kind, news in _news(work, root, frames, device, watch):
                tune.report({kind: news, "told": told.take()})
    finally:
        logging.getLogger("study").removeHandler(told)


def _news(
    work: Job, root: str, frames: dict[str, str], device: str, watch: Watch
) -> Iterator[tuple[str, str]]:
    """What a worker reports, and its kind."""
    if watch.asked:
        yield "paused", ""
        return
    from study.pipeline.execute import run_job_safely
    from study.training.loop import PausedError

    try:
        for news in run_job_safely(work, Path(root), Path(frames[work.data_hash]), device, watch):
            kind = "result" if isinstance(news, JobResult) else "record"
            yield kind, json.dumps(asdict(news))
    except PausedError:
        yield "paused", ""


class _Told(logging.Handler):
    """Keeps what a worker tells the user, who does not see its output."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One line more."""
        self.lines.append(record.getMessage())

    def take(self) -> list[str]:
        """The lines since the last call."""
        taken, self.lines = self.lines, []
        return taken
