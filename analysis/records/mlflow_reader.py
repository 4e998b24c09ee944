"""Reads a study's runs out of MLflow: in bulk with SQL where it is SQLite, else its client."""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from study.core.errors import UserError
from study.core.records import recorded_curve
from study.tracking.mlflow_sql import ExperimentTables, open_experiment_tables
from study.tracking.postgres import require_answer

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
        run_id: MLflow's id of it.
        status: RUNNING, FINISHED, FAILED or KILLED.
        started: ms since 1970, UTC.
        ended: ms since 1970, UTC; None while running.
        params: name → text.
        tags: name → text.
        points: one per metric and step, in that order; curves as `recorded_curve` names them.
    """

    run_id: str
    status: str
    started: int | None = None
    ended: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)


def read_runs(tracking_uri: str, experiment: str) -> list[Run]:
    """Return all runs of an experiment that are not deleted, in the order they started."""
    if tracking_uri.startswith(SQLITE):
        runs = _read_sqlite(Path(tracking_uri.removeprefix(SQLITE)), experiment)
    else:
        runs = read_with_client(tracking_uri, experiment)
    return sorted(runs, key=lambda run: (run.started or 0, run.run_id))


def read_with_client(tracking_uri: str, experiment: str) -> list[Run]:
    """Return the runs of an experiment by MLflow's client, metric by metric, from any server."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    require_answer(tracking_uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri)
        named = client.get_experiment_by_name(experiment)
        if named is None or named.lifecycle_stage != "active":
            raise _no_experiment(experiment)
        return list(_client_runs(client, named.experiment_id))
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot read MLflow: {reason}"
        ) from error  # Its address may hold a secret.


def _client_runs(client: MlflowClient, experiment_id: str) -> Iterable[Run]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        for run in page:
            histories = [client.get_metric_history(run.info.run_id, m) for m in run.data.metrics]
            yield Run(
                run.info.run_id,
                run.info.status,
                run.info.start_time,
                run.info.end_time,
                dict(run.data.params),
                dict(run.data.tags),
                _points((m.key, m.step, m.timestamp, m.value) for h in histories for m in h),
            )
        token = page.token
        if not token:
            return


def _read_sqlite(path: Path, experiment: str) -> list[Run]:
    if not path.is_file():
        raise UserError(f"no MLflow database at {path}")
    try:
        with open_experiment_tables(path, experiment) as tables:
            if tables is None:
                raise _no_experiment(experiment)
            return _collect(tables)
    except sqlite3.DatabaseError as error:
        raise UserError(f"cannot read the MLflow database {path}: {error}") from error


def _collect(tables: ExperimentTables) -> list[Run]:
    """Sort the rows of all tables by run."""
    params: dict[str, dict[str, str]] = defaultdict(dict)
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for rows, texts in ((tables.params(), params), (tables.tags(), tags)):
        for run_id, key, value in rows:
            texts[run_id][key] = value or ""
    points: dict[str, list[tuple[str, int, int, float]]] = defaultdict(list)
    for run_id, key, step, timestamp, number, is_nan in tables.metrics():
        points[run_id].append((key, step, timestamp, math.nan if is_nan else number))
    return [
        Run(name, status, started, ended, params[name], tags[name], _points(points[name]))
        for name, status, started, ended in tables.runs()
    ]


def _points(logged: Iterable[tuple[str, int, int, float]]) -> list[Point]:
    """Keep the last value of each metric and step; a resumed study may log a step twice."""
    latest: dict[tuple[str, int], float] = {}
    named = ((_recorded(name), step, time, value) for name, step, time, value in logged)
    ordered = sorted(named, key=lambda p: (p[0], p[1], p[2], math.isnan(p[3]), p[3]))
    for metric, step, _, value in ordered:
        latest[metric, step] = _infinite(value)
    return [Point(metric, step, value) for (metric, step), value in latest.items()]


_recorded = cache(recorded_curve)


def _infinite(value: float) -> float:
    """Restore infinities, which MLflow stores as the largest floats."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _no_experiment(experiment: str) -> UserError:
    return UserError(f"no experiment {experiment!r} in MLflow; run the study first")
