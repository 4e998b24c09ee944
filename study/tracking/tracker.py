"""Forwards a study's events to MLflow from a background thread of the driver.

Training never waits for MLflow: events are queued here, and calls that fail are repeated. Records
that are still missing at the end are completed by running the study again, because runs are
identified by the key of their job and steps that MLflow already has are skipped.
"""

from __future__ import annotations

import logging
import math
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.core.errors import RERUN, MachineError, is_disk_fault
from study.core.records import EpochRecord, JobResult, Tag
from study.pipeline.job import Job
from study.scheduling.protocols import Planned
from study.tracking.mlflow_db import initialize_once, is_local, one_line_of, path_of, unreachable
from study.tracking.mlflow_runs import StudyRuns
from study.tracking.mlflow_sql import FinishedStudy, find_finished_study

logger = logging.getLogger(__name__)

PATIENCE = 150.0
"""Seconds to wait for a locked database at the start, and for MLflow's next step at the end."""
HURRY = 25.0
"""Seconds to wait for MLflow at the end of an interrupted study."""
DISK_PATIENCE = 10.0
"""Seconds to wait at the end for a disk that is full: it was told before, and nobody mends it."""
MANY = 1000
"""Records left at the end of which the user is told."""
SPACE = 2**20
"""Bytes below which a disk is called full."""


class Tracker:
    """Forwards events to `StudyRuns` from a background thread, without delay for the caller.

    MLflow takes seconds to import, so a study whose records are all in a database file does not
    use it until there is something new.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        root: folder of all work.
        tags: of the parent run.
        trials: kind under which trials are recorded; see `StudyRuns`.
    """

    runs: StudyRuns

    def __init__(
        self, uri: str, experiment: str, root: Path, tags: dict[str, str], trials: str = "trial"
    ) -> None:
        self.uri, self.experiment, self.root, self.tags = uri, experiment, root, tags
        self.trials = trials
        self.finished: FinishedStudy | None = None
        self.problem = ""
        self._told = False
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._opened = threading.Event()
        self._patience, self._deadline = PATIENCE, math.inf
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)

    def open(self) -> None:
        """Start the background thread if MLflow is needed already; `wait` raises its failure."""
        self.finished = find_finished_study(self.uri, self.experiment, self.tags[Tag.KEY])
        if self.finished is None:
            self._thread.start()

    def connect(self) -> None:
        """Start the background thread if it has not started, before new events."""
        if self._idle:
            self._thread.start()

    def wait(self) -> None:
        """Wait until MLflow is ready, or return at once if it is not needed.

        Raises:
            UserError: if it cannot be reached.
            MachineError: if the disk of a local database refuses it.
        """
        if self._idle:
            return
        self._opened.wait()
        if self.fault:
            raise MachineError(f"{self.fault}; {RERUN}")
        if self.problem:
            raise unreachable(self.uri, self.problem)

    def planned(self, planned: Planned) -> None:
        """Remember a planned trial; its run is created when the job starts."""
        self._tasks.put(lambda: self.runs.plan(planned))

    def started(self, work: Job, number: int | None) -> None:
        """Create or reopen the run."""
        self._enqueue(work, lambda: self.runs.start(work, number))

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """Log an epoch."""
        now = _milliseconds()
        self._enqueue(work, lambda: self.runs.record(work.key, record, now))

    def ended(self, work: Job, result: JobResult) -> None:
        """Log final metrics and the weights, and end the run."""
        now = _milliseconds()
        self._enqueue(work, lambda: self.runs.end(work, result, now))

    def tag_study(self, name: str, value: str) -> None:
        """Set a tag of the study's run, if there was anything new to record."""
        if not self._idle:
            self._tasks.put(lambda: self.runs.study.set_tag(name, value))

    def close(self, status: str) -> bool:
        """Write the queued events and end the parent run.

        Args:
            status: FINISHED, or KILLED if the study was interrupted.

        Returns:
            True if MLflow has all records.
        """
        if self._idle:
            return True
        self._tasks.put(lambda: self.runs.close(status))
        self._tasks.put(None)
        self._patience = PATIENCE if status == "FINISHED" else HURRY
        self._deadline = time.monotonic() + self._patience
        if self._tasks.qsize() > MANY:
            logger.warning("MLflow has %d records yet to take", self._tasks.qsize())
        while self._thread.is_alive() and time.monotonic() < self._deadline + 5:
            left = self._tasks.qsize()
            self._thread.join(1)
            if status == "FINISHED" and self._tasks.qsize() < left:
                self._deadline = time.monotonic() + self._patience
        return self.whole

    @property
    def fault(self) -> str:
        """What keeps the disk of a local database from taking records; empty if nothing does."""
        disk = is_local(self.uri) and is_disk_fault(self.problem)
        return f"{self._full_place()}: MLflow's records: {self.problem}" if disk else ""

    @property
    def whole(self) -> bool:
        """True if the tracker is closed and MLflow has all records."""
        return not self._thread.is_alive() and not self.problem

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the study's experiment."""
        return (self.finished or self.runs).experiment_id

    @property
    def has_view(self) -> bool:
        """True if this session has seen to the saved view of the study's trials."""
        return not self._idle and hasattr(self, "runs")

    def state(self) -> dict[str, Any]:
        """Identify the study's records, once the tracker is closed; see `StudyRun.state`."""
        return self.finished.state() if self.finished and self._idle else self.runs.state()

    @property
    def _idle(self) -> bool:
        """True if MLflow has not been needed so far."""
        return self._thread.ident is None

    def _enqueue(self, work: Job, task: Callable[[], None]) -> None:
        """Queue an event of a job, unless its records are complete."""
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
            self.problem = one_line_of(problem, self.uri)
            return
        finally:
            self._opened.set()
        # After a task that failed for good nothing else is written: a later session continues after
        # the last step of each run, so that there must not be gaps before it.
        while (task := self._tasks.get()) is not None and self._done(task):
            # Epochs that arrived while MLflow was slow are written together.
            if self._tasks.empty() and not self._done(self.runs.flush):
                break

    def _connect(self) -> None:
        """Open the runs; wait while another program has locked the database."""
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
        """Repeat a task until it succeeds or the deadline has passed; tell if it succeeded."""
        pause, began = 0.5, time.monotonic()
        while True:
            try:
                task()
            except Exception as problem:
                full = is_local(self.uri) and is_disk_fault(problem)
                if full and time.monotonic() - began > DISK_PATIENCE / 2:
                    self._warn_of(problem)
                spared = self._patience - DISK_PATIENCE if full else 0.0
                if time.monotonic() > self._deadline - spared:
                    self.problem = one_line_of(problem, self.uri)
                    return False
                time.sleep(pause)
                pause = min(2 * pause, 10)
            else:
                return True

    def _warn_of(self, problem: Exception) -> None:
        """Say once that the disk is at fault, unless the study ends and says so by itself."""
        if not self._told and self._deadline == math.inf:
            self._told = True
            logger.warning(
                "%s: MLflow does not take records: %s; free some space or make it writable, and "
                "they follow",
                self._full_place(),
                one_line_of(problem, self.uri),
            )

    def _full_place(self) -> Path:
        """Where no space is left: MLflow also writes artifacts, by way of temporary files."""
        database = path_of(self.uri)
        places = (database.parent, self.root, Path(tempfile.gettempdir()))
        full = (place for place in places if shutil.disk_usage(place).free < SPACE)
        return next(full, database)


def _milliseconds() -> int:
    return int(time.time() * 1000)
