"""SQL on MLflow's own tables; no other module contains their names.

SQL reads a million points in seconds, where MLflow's client takes minutes, and it does not need
MLflow, which takes seconds to import.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from study.core.records import FINAL_STATUSES, Tag
from study.tracking.mlflow_db import is_local, path_of

COLUMNS = {
    "experiments": ("experiment_id", "name", "lifecycle_stage"),
    "runs": ("run_uuid", "experiment_id", "status", "start_time", "end_time", "lifecycle_stage"),
    "params": ("run_uuid", "key", "value"),
    "tags": ("run_uuid", "key", "value"),
    "metrics": ("run_uuid", "key", "step", "timestamp", "value", "is_nan"),
}
"""MLflow's tables and columns that are read here; a test compares them with MLflow's own."""

EXPERIMENT = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
RUNS = """
SELECT run_uuid, status, start_time, end_time FROM runs
WHERE experiment_id = ? AND lifecycle_stage = 'active'
"""
OF_EXPERIMENT = "WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = ?)"
PARAMS = f"SELECT run_uuid, key, value FROM params {OF_EXPERIMENT}"
TAGS = f"SELECT run_uuid, key, value FROM tags {OF_EXPERIMENT}"
METRICS = f"SELECT run_uuid, key, step, timestamp, value, is_nan FROM metrics {OF_EXPERIMENT}"
COUNT = "SELECT COUNT(*) FROM runs"
RUNS_WITH_KEYS = """
SELECT experiment_id, runs.run_uuid, runs.status, end_time, kinds.value, keys.value, ends.value
FROM runs JOIN experiments USING (experiment_id)
JOIN tags AS kinds ON kinds.run_uuid = runs.run_uuid AND kinds.key = ?
JOIN tags AS keys ON keys.run_uuid = runs.run_uuid AND keys.key = ?
LEFT JOIN tags AS ends ON ends.run_uuid = runs.run_uuid AND ends.key = ?
WHERE experiments.name = ? AND experiments.lifecycle_stage = 'active'
AND runs.lifecycle_stage = 'active'
"""


@dataclass(frozen=True)
class ExperimentTables:
    """Rows of one experiment, read from one snapshot of the database.

    Args:
        database: in a transaction.
        experiment_id: of the experiment.
    """

    database: sqlite3.Connection
    experiment_id: int

    def runs(self) -> Iterable[tuple[str, str, int | None, int | None]]:
        """Return id, status, start and end (ms) of each run that is not deleted."""
        return self._rows(RUNS)

    def params(self) -> Iterable[tuple[str, str, str | None]]:
        """Return run id, name and text of each parameter."""
        return self._rows(PARAMS)

    def tags(self) -> Iterable[tuple[str, str, str | None]]:
        """Return run id, name and text of each tag."""
        return self._rows(TAGS)

    def metrics(self) -> Iterable[tuple[str, str, int, int, float, bool]]:
        """Return run id, name, step, time (ms), value and whether it is NaN of each point."""
        return self._rows(METRICS)

    def _rows(self, query: str) -> Iterable[Any]:
        return self.database.execute(query, (self.experiment_id,))


@contextmanager
def open_experiment_tables(path: Path, experiment: str) -> Iterator[ExperimentTables | None]:
    """Open the tables of an experiment, None if the database has no active one of this name.

    Raises:
        sqlite3.DatabaseError: if the file is no database, or its tables are not MLflow's.
    """
    with _connected(path) as database:
        database.execute("BEGIN")  # One snapshot, though a study may be writing.
        row = database.execute(EXPERIMENT, (experiment,)).fetchone()
        yield None if row is None else ExperimentTables(database, row[0])


def count_runs(path: Path) -> int:
    """Return the number of runs in a database.

    Raises:
        sqlite3.DatabaseError: if the file is no database, or its tables are not MLflow's.
    """
    with _connected(path) as database:
        return int(database.execute(COUNT).fetchone()[0])


@dataclass(frozen=True)
class FinishedStudy:
    """Records of a finished study.

    Args:
        experiment_id: of the study.
        run_id: of the study's own run.
        ended: when that run ended, ms.
        complete: kind and key of each job that has a run with a final status.
    """

    experiment_id: str
    run_id: str
    ended: int
    complete: frozenset[tuple[str, str]]

    def state(self) -> dict[str, Any]:
        """See `StudyRun.state`."""
        return {"run": self.run_id, "ended": self.ended}


def find_finished_study(uri: str, experiment: str, key: str) -> FinishedStudy | None:
    """Return the records of a study that has finished and whose every run is complete.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        key: of the study's own run.

    Returns:
        None if MLflow itself must be asked: records are missing, or the tables differ from
        `COLUMNS`.
    """
    path = path_of(uri)
    if not is_local(uri) or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tags = (Tag.KIND, Tag.KEY, Tag.STATUS)
            rows = database.execute(RUNS_WITH_KEYS, (*tags, experiment)).fetchall()
    except sqlite3.Error:
        return None
    studies = [row for row in rows if row[4] == "study"]
    jobs = [row for row in rows if row[4] != "study"]
    if len(studies) != 1 or any(end not in FINAL_STATUSES for *_, end in jobs):
        return None
    ((experiment_id, run_id, status, ended, _, study_key, _),) = studies
    if (status, study_key) != ("FINISHED", key):
        return None
    complete = frozenset((kind, job) for *_, kind, job, _ in jobs)
    return FinishedStudy(str(experiment_id), run_id, ended, complete)


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    # Not read-only: SQLite may have to roll back what a killed writer left half done.
    address = f"file:{quote(str(path))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as database:
        yield database
