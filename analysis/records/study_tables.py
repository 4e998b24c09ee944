"""Reads a study's tables back, and refuses damaged ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import is_string_dtype

from analysis.records.parquet_tables import CURVES, MANIFEST, PREDICTIONS, TABLES_VERSION, sha256
from study.core.errors import MALFORMED, UserError, printable, readable

DTYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
"""Pandas' own integers and booleans have no missing values."""

REQUIRED = {"trials.parquet", "curves.parquet", "studies.parquet"}

AGAIN = "run `python -m analysis.export` again"


@dataclass(frozen=True, eq=False)
class Study:
    """The records of a study.

    Args:
        name: as the user calls it.
        facts: its row of `studies.parquet`; space, packages and hardware parsed.
        settings: columns of `trials` that are configuration.
        units: of those columns of `trials` that have one.
        trials: one row per trial, in the order of the plan.
        pretrainings: one row per pretraining, with the same columns.
        curves: key, run_id, stage, epoch, metric, value; one row per value.
        audits: stopped trials that were finished afterwards, with the same columns as trials.
        predictions: of test frames, one row per atom; empty if none were exported.
        tuning: trials and pretrainings that only chose settings for the arms, with the same columns
            as trials; no other table holds them.
    """

    name: str
    facts: dict[str, Any]
    settings: tuple[str, ...]
    units: dict[str, str]
    trials: pd.DataFrame
    pretrainings: pd.DataFrame
    curves: pd.DataFrame
    audits: pd.DataFrame
    predictions: pd.DataFrame
    tuning: pd.DataFrame


remembered = lru_cache(maxsize=64)
"""Cache for a frame that many tables derive from; its readers must not change it."""


def load(folder: Path) -> Study:
    """Read the tables that `analysis.export` wrote into `folder`.

    Raises:
        UserError: if they are missing, damaged, of another version or of different exports.
    """
    with readable(folder, AGAIN):
        return study_of({name.removesuffix(".parquet"): each for name, each in _tables(folder)})


def study_of(tables: dict[str, pa.Table]) -> Study:
    """The study of tables by name, without their ending."""
    work = tables["trials"]
    facts: dict[str, Any] = {
        name: printable(value) if isinstance(value, str) else value
        for name, value in tables["studies"].to_pylist()[0].items()
    }
    for name in ("space", "packages", "hardware"):
        facts[name] = dict(json.loads(facts[name] or "{}"))
    rows = _printable(work.to_pandas(types_mapper=DTYPES.get))
    tuning = rows.tuning.astype(bool)
    kinds = {
        kind: rows[(rows.kind == kind) & ~tuning].reset_index(drop=True)
        for kind in ("trial", "pretrain", "audit")
    }
    predicted = tables.get("predictions")
    return Study(
        name=facts["name"],
        facts=facts,
        settings=tuple(f.name for f in work.schema if f.metadata[b"role"] == b"setting"),
        units={f.name: f.metadata[b"unit"].decode() for f in work.schema if b"unit" in f.metadata},
        trials=kinds["trial"],
        pretrainings=kinds["pretrain"],
        curves=tables["curves"].select(CURVES.names).to_pandas(types_mapper=DTYPES.get),
        audits=kinds["audit"],
        predictions=pd.DataFrame() if predicted is None else predicted.to_pandas(),
        tuning=rows[tuning].reset_index(drop=True),
    )


def _printable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose texts hold no character that hides or reorders what a reader sees."""
    texts = {str(name): rows[name] for name in rows.columns if is_string_dtype(rows[name])}
    shown = {name: column.map(printable, na_action="ignore") for name, column in texts.items()}
    return rows.assign(**{name: shown[name].astype(texts[name].dtype) for name in texts})


def _tables(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """The tables that the manifest names, each of the very bytes that it vouches for."""
    manifest = _manifest(folder)
    for name, expected in manifest["sha256"].items():
        path = folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _damaged(path) from error
        if sha256(content) != expected:
            raise _torn(folder) if _is_of_another(content, manifest) else _damaged(path)
        try:
            yield name, _parquet(content).read()
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path) from error


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"no tables in {folder}; run `python -m analysis.export` on the study")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        schema, names = manifest["schema"], set(manifest["sha256"].keys())
    except (*MALFORMED, OSError) as error:
        raise _damaged(folder / MANIFEST) from error
    if schema != TABLES_VERSION:
        raise UserError(
            f"tables in {folder} have schema {schema!r:.40}, this program reads {TABLES_VERSION};"
            " run `python -m analysis.export` on the study again"
        )
    # Names are those of files in the folder: nothing elsewhere is opened.
    if not REQUIRED <= names <= {*REQUIRED, PREDICTIONS}:
        raise _damaged(folder / MANIFEST)
    return manifest


def _is_of_another(content: bytes, manifest: dict[str, Any]) -> bool:
    """Check for an intact table of another export than the manifest."""
    try:
        table = _parquet(content).read()
    except (OSError, pa.ArrowException):
        return False
    named = (table.schema.metadata or {}).get(b"export", b"").decode(errors="replace")
    return bool(named != manifest.get("export"))


def _parquet(content: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)


def _torn(folder: Path) -> UserError:
    return UserError(
        f"the tables in {folder} are of different exports; one is running or was interrupted:"
        f" wait for it, or {AGAIN}"
    )


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or missing; {AGAIN}")
