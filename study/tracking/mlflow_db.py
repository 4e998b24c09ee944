"""MLflow's database, where it is a file: made by one process, and looked at without MLflow.

Importing MLflow takes seconds, and a study that is finished has nothing to tell it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock

from study.core.atomic_io import remove, write_with
from study.core.errors import UserError
from study.core.records import FINAL_STATUSES, Tag


def is_local(uri: str) -> bool:
    """Whether MLflow's records are a database file here, without a server."""
    return uri.startswith("sqlite:")


def path_of(uri: str) -> Path:
    """The file of a local database."""
    return Path(uri.removeprefix("sqlite:///"))


@dataclass(frozen=True)
class Finished:
    """Records of a finished study.

    Args:
        experiment_id: of the study.
        run_id: of the study's own run.
        ended: when that ended, ms.
        complete: kind and key of all work that has a run, whose every record is there.
    """

    experiment_id: str
    run_id: str
    ended: int
    complete: frozenset[tuple[str, str]]

    def state(self) -> dict[str, Any]:
        """As `StudyRuns.state`."""
        return {"run": self.run_id, "ended": self.ended}


RUNS = """
SELECT experiment_id, runs.run_uuid, runs.status, end_time, kinds.value, keys.value, ends.value
FROM runs JOIN experiments USING (experiment_id)
JOIN tags AS kinds ON kinds.run_uuid = runs.run_uuid AND kinds.key = ?
JOIN tags AS keys ON keys.run_uuid = runs.run_uuid AND keys.key = ?
LEFT JOIN tags AS ends ON ends.run_uuid = runs.run_uuid AND ends.key = ?
WHERE experiments.name = ? AND experiments.lifecycle_stage = 'active'
AND runs.lifecycle_stage = 'active'
"""


def finished_records(uri: str, experiment: str, key: str) -> Finished | None:
    """What the database has of a study, if that has finished and every run in it is complete.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        key: of the study's own run.

    Returns:
        None if only MLflow can tell: something is missing, or the tables are not those known here.
    """
    path = path_of(uri)
    if not is_local(uri) or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(RUNS, (Tag.KIND, Tag.KEY, Tag.STATUS, experiment)).fetchall()
    except sqlite3.Error:
        return None
    studies = [row for row in rows if row[4] == "study"]
    work = [row for row in rows if row[4] != "study"]
    if len(studies) != 1 or any(end not in FINAL_STATUSES for *_, end in work):
        return None
    ((experiment_id, run_id, status, ended, _, found, _),) = studies
    if (status, found) != ("FINISHED", key):
        return None
    complete = frozenset((kind, each) for *_, kind, each, _ in work)
    return Finished(str(experiment_id), run_id, ended, complete)


def require_usable(path: Path) -> None:
    """Refuse a file that is no database, or a place where none can be made.

    Raises:
        UserError: naming it.
    """
    if not path.exists():
        _require_room(path.absolute().parent)
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.Error as problem:
        raise _unusable(path, str(problem)) from None
    # SQLite opens such a file all the same, and fails later.
    if not os.access(path, os.W_OK):
        raise _unusable(path, "it cannot be written to")


def _require_room(folder: Path) -> None:
    """Try whether files can be written to a folder, or to that in which it would be made."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        TemporaryFile(dir=there).close()
    except OSError as problem:
        raise UserError(
            f"{folder}: cannot be written to ({problem.strerror}); choose another --out or "
            "--tracking-uri"
        ) from None


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: no usable database ({why}); move the file away, or name another with "
        "--tracking-uri"
    )


@contextmanager
def first_touch(uri: str) -> Iterator[None]:
    """Only one process may create the tables of a database file, and creates all or none."""
    if not is_local(uri):
        yield
        return
    path = path_of(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            for abandoned in path.parent.glob(f".{path.name}.*-journal"):
                remove(abandoned)
            write_with(path, _create)
        yield


def _create(path: Path) -> None:
    """Make all tables of a new database file; what is killed meanwhile leaves one of no use."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    artifacts = (path.parent / "artifacts").resolve().as_uri()
    store: Any = SqlAlchemyStore
    store(f"sqlite:///{path}", artifacts).engine.dispose()
