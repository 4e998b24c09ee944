"""What a study has left, read as anybody can: files, MLflow's client, Parquet by the command."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.study import Study

MEASURED = ("seconds", "energy_joule")
"""Ends of the names of metrics that no two runs agree in."""
ROW_MEASURED = ("run_id", "start_time", "end_time", "seconds", "cpu_seconds", "energy_joule")
PLACE_IN_PLAN = ("number", "exempt")
"""Columns of a search alone that say when a trial was proposed."""

Points = dict[tuple[str, int], float]
"""Metric and step → value."""


@dataclass
class Records:
    """Everything that must be equal, by the settings of a trial or pretraining as a text.

    Args:
        weights: name of a folder of work → hash of its weights.
        points: settings → metric and step → value.
        logged: settings → hash of the weights that MLflow keeps.
        status: settings → how it ended.
        rows: settings → row of `trials.parquet`, without what is measured.
        curves: settings → stage, epoch and metric → value of `curves.parquet`.
        doubled: what is there twice.
    """

    weights: dict[str, str] = field(default_factory=dict)
    points: dict[str, Points] = field(default_factory=dict)
    logged: dict[str, str] = field(default_factory=dict)
    status: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, dict[tuple[str, int, str], float]] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)


def read(study: Study) -> Records:
    """Read all records of a finished study."""
    records = Records()
    for path in study.place.out.glob("work/*/weights-*"):
        if path.parent.name in records.weights:
            records.doubled.append(f"weights in {path.parent}")
        records.weights[path.parent.name] = _hash(path)
    _read_mlflow(study, records)
    _read_parquet(study, records)
    return records


def _read_mlflow(study: Study, records: Records) -> None:
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    from mlflow import MlflowClient

    client = MlflowClient(study.tracking_uri)
    experiment = client.get_experiment_by_name(study.folder.name)
    for run in client.search_runs([experiment.experiment_id]):
        kind, name = run.data.tags["study.kind"], run.info.run_id
        if run.info.status != "FINISHED":
            records.doubled.append(f"run {name} ({kind}) is {run.info.status}")
        if kind == "study":
            continue
        key = json.dumps([kind, sorted(run.data.params.items())])
        if key in records.points:
            records.doubled.append(f"MLflow run of {run.info.run_name}")
        records.status[key] = run.data.tags["study.status"]
        records.points[key] = _points(client, run, records.doubled)
        for artifact in client.list_artifacts(name):
            if "weights" in artifact.path:
                records.logged[key] = _hash(Path(client.download_artifacts(name, artifact.path)))


def _points(client: Any, run: Any, doubled: list[str]) -> Points:
    every = [
        ((name, point.step), point.value)
        for name in run.data.metrics
        if not name.endswith(MEASURED)
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    counted = Counter(where for where, _ in every)
    doubled += [
        f"{run.info.run_name}: {where} {times} times"
        for where, times in counted.items()
        if times > 1
    ]
    return dict(every)


def _read_parquet(study: Study, records: Records) -> None:
    """Read what the public command writes, into another folder."""
    import pyarrow.parquet as pq

    tables = study.place.folder / f"tables-{study.profile}"
    command = [sys.executable, "-m", "analysis.export", str(study.folder), "--out", str(tables)]
    subprocess.run(command, check=True, capture_output=True, env=study.place.environment)
    trials = pq.read_table(tables / "trials.parquet").to_pylist()
    curves = pq.read_table(tables / "curves.parquet").to_pylist()
    for row in trials:
        if row["key"] in records.rows:
            records.doubled.append(f"row of {row['key']}")
        records.rows[row["key"]] = {
            name: value
            for name, value in row.items()
            # A column that only some studies have is empty in the others.
            if name not in ROW_MEASURED and value is not None
        }
    for point in curves:
        if point["metric"].endswith(MEASURED):
            continue
        where = (point["stage"], point["epoch"], point["metric"])
        curve = records.curves.setdefault(point["key"], {})
        if where in curve:
            records.doubled.append(f"Parquet point {where} of {point['key']}")
        curve[where] = point["value"]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(profile: str, found: Records, usual: Records) -> list[str]:
    """What is lost, doubled or other than in the undisturbed grid.

    A grid must be equal to it. A search proposes by what has ended before, and stops early by what
    the others have reported: each of its trials must be one of the grid's, equal to it as far as it
    went.
    """
    problems = [f"doubled: {what}" for what in found.doubled]
    whole = profile == "grid"
    stopped = {key for key, status in found.status.items() if status == "stopped"}
    stopped |= {key for key, row in found.rows.items() if row["status"] == "stopped"}
    for name in ("weights", "points", "logged", "status", "rows", "curves"):
        here, there = _comparable(found, name, whole), _comparable(usual, name, whole)
        lost = there.keys() - here.keys() if whole else set()
        problems += [f"{name}: lost {key[:80]}" for key in lost]
        problems += [f"{name}: unknown {key[:80]}" for key in here.keys() - there.keys()]
        for key in here.keys() & there.keys():
            if here[key] == there[key] or (
                key in stopped and _is_part(name, here[key], there[key])
            ):
                continue
            problems.append(f"{name}: {key[:80]} {_difference(here[key], there[key])}")
    return problems


def _comparable(records: Records, name: str, whole: bool) -> dict[str, Any]:  # noqa: FBT001
    """One kind of records; rows of a search without their place in the plan."""
    kept: dict[str, Any] = getattr(records, name)
    if whole or name != "rows":
        return kept
    return {
        key: {column: value for column, value in row.items() if column not in PLACE_IN_PLAN}
        for key, row in kept.items()
    }


def _is_part(name: str, here: Any, there: Any) -> bool:
    """Whether a trial that was stopped early is the beginning of the whole one."""
    if name == "points" or name == "curves":
        return bool(here) and all(there.get(where) == value for where, value in here.items())
    if name == "rows":
        same = [column for column in here if column.startswith(SETTINGS)]
        return bool(same) and all(here[column] == there.get(column) for column in same)
    return name == "status"


SETTINGS = (
    "dataset.",
    "finetune.",
    "model.",
    "pretrain.",
    "seed",
    "split",
    "transfer",
    "data_hash",
)


def _difference(here: Any, there: Any) -> str:
    if not isinstance(here, dict):
        return f"is {here}, undisturbed {there}"
    where = [each for each in (*here, *there) if here.get(each) != there.get(each)]
    return f"{len(where)} differ, such as {where[0]}: {here.get(where[0])}, {there.get(where[0])}"
