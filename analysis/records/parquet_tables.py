"""The Parquet tables of a study: their columns, filled from MLflow's runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.records.columns import COUNTS, FACTS
from analysis.records.mlflow_reader import Run
from study.core.atomic_io import remove, write_json, write_with
from study.core.errors import UserError
from study.core.quantities.metrics import METRICS, PROPERTY_METRICS, meaning_of
from study.core.records import (
    COST_METRICS,
    MASKING_RATIO,
    SCHEMA_VERSION,
    Tag,
)

MANIFEST = "tables.json"
"""SHA-256 of each table, whose footer has no checksum, and which export they are of."""

PREDICTIONS = "predictions.parquet"
"""Written on request."""

NAME = "mlflow.runName"
UTC = pa.timestamp("ms", tz="UTC")

TAGS = {
    "kind": Tag.KIND,
    "key": Tag.KEY,
    "reason": Tag.REASON,
    "pretraining": Tag.PRETRAINING,
    "pbt_parent": Tag.PARENT,
    "whole": Tag.WHOLE,
    "data_hash": Tag.DATA,
    "split_hash": Tag.SPLIT,
    "test_hash": "study.test_hash",
    "tested": "study.tested",
    "code_version": Tag.CODE,
}
FINAL = [
    name
    for name in METRICS
    if name not in PROPERTY_METRICS
    and (name.startswith(("test_", "trivial_")) or name in {"best_epoch", *COST_METRICS})
]
STUDY_TAGS = {
    "key": Tag.KEY,
    "question": Tag.QUESTION,
    "profile": Tag.PROFILE,
    "space": Tag.SPACE,
    "packages": Tag.PACKAGES,
    "hardware": Tag.HARDWARE,
    "git": Tag.GIT,
    "warning": Tag.WARNING,
}
TABLES_VERSION = 7
"""Raised when a column comes, goes or changes its meaning."""

CURVES = pa.schema(
    [
        ("key", pa.string()),
        ("run_id", pa.string()),
        ("stage", pa.string()),
        ("epoch", pa.int64()),
        ("metric", pa.string()),
        pa.field(
            "value",
            pa.float64(),
            metadata={"units": json.dumps({name: unit for name, (unit, _) in METRICS.items()})},
        ),
    ]
)


def write_tables(
    runs: Sequence[Run], experiment: str, folder: Path, predictions: pa.Table | None = None
) -> None:
    """Write the Parquet files of a study, then the manifest that vouches for them."""
    study = _study(runs, experiment)
    work = _work(runs)
    tables = {
        "trials.parquet": _trials(work),
        "curves.parquet": _curves(work),
        "studies.parquet": _studies(study, experiment),
    }
    tables = _with_arms(tables)
    if predictions is not None:
        tables[PREDICTIONS] = predictions
    of_export = _identity(tables)
    for name, table in tables.items():
        write_with(folder / name, _parquet(table, of_export))
    hashes = {name: sha256((folder / name).read_bytes()) for name in tables}
    manifest = {"schema": TABLES_VERSION, "export": of_export, "sha256": hashes}
    write_json(folder / MANIFEST, manifest)
    if predictions is None:
        remove(folder / PREDICTIONS)  # Those of an earlier export.


def _with_arms(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables with a column that names the arm of each trial, as the report does."""
    # These read what this module writes.
    from analysis.comparisons.arms import arms
    from analysis.records.study_tables import study_of

    study = study_of({name.removesuffix(".parquet"): table for name, table in tables.items()})
    trials = arms(study)
    named = dict(zip(trials.run_id, trials.arm, strict=True))
    field = _field("arm", "fact", pa.string())
    extended = {
        name: tables[name].add_column(
            1, field, _texts([named.get(run) for run in tables[name]["run_id"].to_pylist()])
        )
        for name in ("trials.parquet", "curves.parquet")
    }
    return tables | extended


def sha256(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _identity(tables: dict[str, pa.Table]) -> str:
    """Names an export: tables of the same content have the same."""
    digest = hashlib.sha256()
    for table in tables.values():
        with pa.BufferOutputStream() as stream:
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
            digest.update(stream.getvalue())
    return digest.hexdigest()


def _parquet(table: pa.Table, of_export: str) -> Callable[[Path], None]:
    facts = {"schema_version": str(TABLES_VERSION), "export": of_export}
    marked = table.replace_schema_metadata(facts)
    return lambda path: pq.write_table(
        marked, path, compression="zstd", write_page_checksum=True, version="2.6"
    )


def _study(runs: Sequence[Run], experiment: str) -> Run:
    studies = [run for run in runs if run.tags.get(Tag.KIND) == "study"]
    if not studies:
        raise UserError(f"experiment {experiment!r} holds no study; was it made by study.run?")
    newest = studies[-1]
    schema = newest.tags.get(Tag.SCHEMA)
    if schema != str(SCHEMA_VERSION):
        raise UserError(
            f"`{Tag.SCHEMA} == {SCHEMA_VERSION}` must hold, but {experiment!r} has {schema};"
            " use the version of this program that ran the study"
        )
    return newest


def _work(runs: Sequence[Run]) -> list[Run]:
    """Audits, pretrainings, then trials in the order of the plan; the last run of each.

    A study that was extended has a second parent, but only ever adds work to the first one's.
    """
    work = [run for run in runs if run.tags.get(Tag.KIND) in {"audit", "pretrain", "trial"}]
    last = {(run.tags[Tag.KIND], run.tags.get(Tag.KEY, run.run_id)): run for run in work}
    return sorted(last.values(), key=_place)


def _place(run: Run) -> tuple[str, int, str]:
    return run.tags[Tag.KIND], int(run.tags.get(Tag.NUMBER, -1)), run.tags.get(Tag.KEY, run.run_id)


def _trials(work: Sequence[Run]) -> pa.Table:
    numbers = [int(run.tags[Tag.NUMBER]) if Tag.NUMBER in run.tags else None for run in work]
    columns: dict[str, tuple[str, pa.Array]] = {
        name: ("fact", _texts([run.tags.get(tag) for run in work])) for name, tag in TAGS.items()
    }
    columns |= {
        "number": ("fact", pa.array(numbers, pa.int64())),
        "run_id": ("fact", _texts([run.run_id for run in work])),
        "status": ("fact", _texts([_status(run) for run in work])),
        "start_time": ("fact", pa.array([run.started for run in work], UTC)),
        "end_time": ("fact", pa.array([run.ended for run in work], UTC)),
        "device": ("fact", _texts([run.tags.get("study.device") for run in work])),
        "exempt": ("fact", _flags([run.tags.get(Tag.EXEMPT) for run in work])),
        "tuning": ("fact", _flags([run.tags.get(Tag.TUNING, "False") for run in work])),
    }
    for name in COUNTS:
        texts = [run.tags.get(f"study.{name}") for run in work]
        columns[name] = ("fact", pa.array([int(n) if n else None for n in texts], pa.int64()))
    params = [_params(run) for run in work]
    for name in sorted({name for each in params for name in each} - set(columns)):
        columns[name] = ("setting", _setting([each.get(name) for each in params]))
    finals = [_finals(run) for run in work]
    others = sorted({name for final in finals for name in final} - set(FINAL) - set(columns))
    for name in [*FINAL, *others]:
        values = [final.get(name) for final in finals]
        columns[name] = ("result", pa.array(values, pa.float64()))
    fields = [_field(name, role, array.type) for name, (role, array) in columns.items()]
    return pa.table([array for _, array in columns.values()], pa.schema(fields))


def _params(run: Run) -> dict[str, str | None]:
    """Settings of a run; those that are null are parameters only of earlier studies."""
    settings = {name: value for name, value in run.params.items() if name != MASKING_RATIO}
    return {**settings, **dict.fromkeys(json.loads(run.tags.get(Tag.UNSET, "[]")))}


def _field(name: str, role: str, kind: pa.DataType) -> pa.Field:
    metadata = {"role": role}
    if role == "result" and name in METRICS:
        unit, meaning = METRICS[name]
        metadata |= {"unit": unit, "meaning": meaning}
    elif role == "result":
        metadata["meaning"] = meaning_of(name)
    elif role == "fact":
        metadata["meaning"] = FACTS[name]
    return pa.field(name, kind, metadata=metadata)


def _status(run: Run) -> str:
    """Status that the study recorded; else MLflow's: running, failed, killed, finished."""
    return run.tags.get(Tag.STATUS) or run.status.lower()


def _finals(run: Run) -> dict[str, float]:
    """Metrics without a stage; compute of unfinished work is that of its last epoch."""
    last = {point.metric.partition("/")[2]: point.value for point in run.points}
    finals = {point.metric: point.value for point in run.points if "/" not in point.metric}
    return {name: last[name] for name in COST_METRICS if name in last} | finals


def _texts(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _flags(texts: Sequence[str | None]) -> pa.Array:
    return pa.array([None if text is None else text == "True" for text in texts], pa.bool_())


def _setting(texts: Sequence[str | None]) -> pa.Array:
    """A column of parameters as the narrowest type that holds them all."""
    values = [None if text in {None, "None"} else text for text in texts]
    present = [text for text in values if text is not None]
    for kind, pattern, parse in TYPES:
        if present and all(re.fullmatch(pattern, text) for text in present):
            return pa.array([None if text is None else parse(text) for text in values], kind)
    return pa.array(values, pa.string())


TYPES: list[tuple[pa.DataType, str, Callable[[str], object]]] = [
    (pa.bool_(), "True|False", lambda text: text == "True"),
    (pa.int64(), r"-?(0|[1-9]\d{0,17})", int),
    (pa.float64(), r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|-?inf|nan", float),
]
"""Type, the texts it takes, and how to read one; 18 digits surely fit 64 bits."""


def _curves(work: Sequence[Run]) -> pa.Table:
    rows = [
        (run.tags.get(Tag.KEY), run.run_id, *point.metric.split("/", 1), point.step, point.value)
        for run in work
        for point in run.points
        if point.metric.startswith(("pretrain/", "finetune/"))
    ]
    key, run_id, stage, metric, epoch, value = zip(*rows, strict=True) if rows else [()] * 6
    arrays = [key, run_id, stage, epoch, metric, value]
    return pa.table(
        [pa.array(array, field.type) for array, field in zip(arrays, CURVES, strict=True)], CURVES
    )


def _studies(study: Run, experiment: str) -> pa.Table:
    texts = {
        "name": study.tags.get(NAME) or experiment,
        "experiment": experiment,
        "run_id": study.run_id,
        "status": study.status.lower(),
    }
    texts |= {name: study.tags.get(tag, "") for name, tag in STUDY_TAGS.items()}
    arrays = {name: _texts([text]) for name, text in texts.items()}
    arrays["schema"] = pa.array([SCHEMA_VERSION], pa.int64())
    arrays["start_time"] = pa.array([study.started], UTC)
    arrays["end_time"] = pa.array([study.ended], UTC)
    return pa.table(arrays)
