"""The study's records on their way to MLflow, through one background thread of the driver.

Training never waits for MLflow: news queue up here, and what the server did not take is tried
again. Whatever is still missing at the end is completed by running the study again, because runs
are found by the key of their work and steps that MLflow already has are left out.
"""

from __future__ import annotations

import math
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.core.errors import UserError
from study.core.records import EpochRecord, JobResult, Tag, without_password
from study.pipeline.job import Job
from study.scheduling.protocols import Planned
from study.tracking.mlflow_db import initialize_once, is_local, path_of, require_usable
from study.tracking.mlflow_runs import StudyRuns
from study.tracking.mlflow_sql import FinishedStudy, find_finished_study

PATIENCE = 150.0
"""Seconds that a study waits at its beginning for a locked database, at its end for MLflow."""
HURRY = 25.0
"""The same at the end of a study that was interrupted."""
UNANSWERED = re.compile(r"Max retries exceeded .*\[Errno \d+\] ([^'\")]+)")
"""What requests says of a server that is not there, and why."""


def require_reachable(uri: str) -> None:
    """Ask a server for its first experiment; a local database is made when it is first used.

    Raises:
        UserError: if it does not answer, or the file is no database.
    """
    if is_local(uri):
        require_usable(path_of(uri))
        return
    from mlflow import MlflowClient

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as problem:
        raise _unreachable(uri, _one_line(problem, uri)) from None


class Tracker:
    """Passes news on to `StudyRuns` without delay for who brings them.

    MLflow takes seconds to import. A study whose records are all in a database file does without,
    until there is something new.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        root: folder of all work.
        tags: of the parent run.
        trials: what trials are recorded as; see `StudyRuns`.
    """

    runs: StudyRuns

    def __init__(
        self, uri: str, experiment: str, root: Path, tags: dict[str, str], trials: str = "trial"
    ) -> None:
        self.uri, self.experiment, self.root, self.tags = uri, experiment, root, tags
        self.trials = trials
        self.finished: FinishedStudy | None = None
        self.problem = ""
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._opened = threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)

    def open(self) -> None:
        """Begin in the background if MLflow is needed already; `wait` tells how it went."""
        self.finished = find_finished_study(self.uri, self.experiment, self.tags[Tag.KEY])
        if self.finished is None:
            self._thread.start()

    def connect(self) -> None:
        """Begin in the background, if that has not begun, because something new will come."""
        if self._idle:
            self._thread.start()

    def wait(self) -> None:
        """Return when MLflow is ready, or not needed.

        Raises:
            UserError: if it cannot be reached.
        """
        if self._idle:
            return
        self._opened.wait()
        if self.problem:
            raise _unreachable(self.uri, self.problem)

    def planned(self, planned: Planned) -> None:
        """Remember it; runs begin when work begins."""
        self._tasks.put(lambda: self.runs.plan(planned))

    def started(self, work: Job, number: int | None) -> None:
        """Create or reopen the run."""
        self._tell(work, lambda: self.runs.start(work, number))

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """Log an epoch."""
        now = _milliseconds()
        self._tell(work, lambda: self.runs.record(work.key, record, now))

    def ended(self, work: Job, result: JobResult) -> None:
        """Log final metrics and the weights, and end the run."""
        now = _milliseconds()
        self._tell(work, lambda: self.runs.end(work, result, now))

    def close(self, status: str) -> bool:
        """Write what is queued and end the parent run.

        Args:
            status: FINISHED, or KILLED if the study was interrupted.

        Returns:
            Whether MLflow has got everything.
        """
        if self._idle:
            return True
        self._tasks.put(lambda: self.runs.close(status))
        self._tasks.put(None)
        patience = PATIENCE if status == "FINISHED" else HURRY
        self._deadline = time.monotonic() + patience
        self._thread.join(patience + 5)
        return self.whole

    @property
    def whole(self) -> bool:
        """Whether it is closed and MLflow has got everything."""
        return not self._thread.is_alive() and not self.problem

    @property
    def experiment_id(self) -> str:
        """Of the study."""
        return (self.finished or self.runs).experiment_id

    def state(self) -> dict[str, Any]:
        """Of the study's records, once it is closed; see `StudyRuns.state`."""
        return self.finished.state() if self.finished and self._idle else self.runs.state()

    @property
    def _idle(self) -> bool:
        """Whether MLflow was not needed so far."""
        return self._thread.ident is None

    def _tell(self, work: Job, task: Callable[[], None]) -> None:
        """Queue up news of work, unless its records are complete."""
        if self.finished is not None:
            kind = self.trials if work.kind == "trial" else work.kind
            if (kind, work.key) in self.finished.complete:
                return
            self.connect()
        self._tasks.put(task)

    def _write(self) -> None:
        try:
            self._connect()
        except Exception as problem:
            self.problem = _one_line(problem, self.uri)
            return
        finally:
            self._opened.set()
        # After a task that could not be done nothing else is: a later run of the study finds the
        # last step of each run, and must not find gaps before it.
        while (task := self._tasks.get()) is not None and self._done(task):
            # Epochs that came while MLflow was slow go to it together.
            if self._tasks.empty() and not self._done(self.runs.flush):
                break

    def _connect(self) -> None:
        """A database that another program has locked is waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with initialize_once(self.uri):
                    self.runs = StudyRuns(
                        self.uri, self.experiment, self.root, self.tags, self.trials
                    )
            except Exception as problem:
                busy = is_local(self.uri) and "database is locked" in str(problem)
                if not busy or time.monotonic() > deadline:
                    raise
            else:
                return

    def _done(self, task: Callable[[], None]) -> bool:
        """Repeat until it works, or the study has ended and patience with it."""
        pause = 0.5
        while True:
            try:
                task()
            except Exception as problem:
                if time.monotonic() > self._deadline:
                    self.problem = _one_line(problem, self.uri)
                    return False
                time.sleep(pause)
                pause = min(2 * pause, 10)
            else:
                return True


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _one_line(problem: Exception, uri: str) -> str:
    text = str(problem).split("\n", 1)[0] or type(problem).__name__
    if unanswered := UNANSWERED.search(text):
        return f"nobody answers ({unanswered[1]})"
    return text.replace(uri, without_password(uri))[:200]


def _unreachable(uri: str, problem: str) -> UserError:
    return UserError(
        f"--tracking-uri {without_password(uri)}: {problem}; start the server, or leave the "
        "option out to use a local database"
    )
