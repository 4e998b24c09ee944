"""Reads a study's runs out of MLflow: in bulk with SQL where it is SQLite, else its client."""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from study.core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"


class Point(NamedTuple):
    """One value of one metric."""

    metric: str
    step: int
    value: float


@dataclass(frozen=True)
class Run:
    """One MLflow run, in full.

    Args:
        run_id: MLflow's name of it.
        status: RUNNING, FINISHED, FAILED or KILLED.
        started: ms since 1970, UTC.
        ended: the same; None while running.
        params: name → text.
        tags: name → text.
        points: one per metric and step, in that order.
    """

    run_id: str
    status: str
    started: int | None = None
    ended: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)


def read_runs(tracking_uri: str, experiment: str) -> list[Run]:
    """All runs of an experiment that are not deleted, in the order they started."""
    if tracking_uri.startswith(SQLITE):
        runs = _read_sqlite(Path(tracking_uri.removeprefix(SQLITE)), experiment)
    else:
        runs = read_with_client(tracking_uri, experiment)
    return sorted(runs, key=lambda run: (run.started or 0, run.run_id))


def read_with_client(tracking_uri: str, experiment: str) -> list[Run]:
    """The same for any MLflow server, metric by metric."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage != "active":
            raise _no_experiment(experiment)
        return list(_client_runs(client, found.experiment_id))
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot read MLflow: {reason}"
        ) from error  # Its address may hold a secret.


def _client_runs(client: MlflowClient, experiment_id: str) -> Iterable[Run]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        for found in page:
            histories = [
                client.get_metric_history(found.info.run_id, m) for m in found.data.metrics
            ]
            yield Run(
                found.info.run_id,
                found.info.status,
                found.info.start_time,
                found.info.end_time,
                dict(found.data.params),
                dict(found.data.tags),
                _points((m.key, m.step, m.timestamp, m.value) for h in histories for m in h),
            )
        token = page.token
        if not token:
            return


def _read_sqlite(path: Path, experiment: str) -> list[Run]:
    if not path.is_file():
        raise UserError(f"no MLflow database at {path}")
    # Not read-only: SQLite may have to roll back what a killed writer left half done.
    address = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as database:
            return _query(database, experiment)
    except sqlite3.DatabaseError as error:
        raise UserError(f"cannot read the MLflow database {path}: {error}") from error


def _query(database: sqlite3.Connection, experiment: str) -> list[Run]:
    database.execute("BEGIN")  # One snapshot, though a study may be writing.
    chosen = database.execute(
        "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'",
        (experiment,),
    ).fetchone()
    if chosen is None:
        raise _no_experiment(experiment)
    runs = database.execute(
        "SELECT run_uuid, status, start_time, end_time FROM runs"
        " WHERE experiment_id = ? AND lifecycle_stage = 'active'",
        chosen,
    ).fetchall()
    belongs = "WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = ?)"
    params: dict[str, dict[str, str]] = defaultdict(dict)
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for table, texts in (("params", params), ("tags", tags)):
        rows = database.execute(f"SELECT run_uuid, key, value FROM {table} {belongs}", chosen)
        for run_id, key, value in rows:
            texts[run_id][key] = value or ""
    points: dict[str, list[tuple[str, int, int, float]]] = defaultdict(list)
    columns = "run_uuid, key, step, timestamp, value, is_nan"
    rows = database.execute(f"SELECT {columns} FROM metrics {belongs}", chosen)
    for run_id, key, step, timestamp, value, is_nan in rows:
        points[run_id].append((key, step, timestamp, math.nan if is_nan else value))
    return [
        Run(name, status, started, ended, params[name], tags[name], _points(points[name]))
        for name, status, started, ended in runs
    ]


def _points(logged: Iterable[tuple[str, int, int, float]]) -> list[Point]:
    """The last value of each metric and step; a resumed study may log a step twice."""
    latest: dict[tuple[str, int], float] = {}
    ordered = sorted(logged, key=lambda p: (p[0], p[1], p[2], math.isnan(p[3]), p[3]))
    for metric, step, _, value in ordered:
        latest[metric, step] = _infinite(value)
    return [Point(metric, step, value) for (metric, step), value in latest.items()]


def _infinite(value: float) -> float:
    """MLflow stores infinities as the largest floats."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _no_experiment(experiment: str) -> UserError:
    return UserError(f"no experiment {experiment!r} in MLflow; run the study first")
