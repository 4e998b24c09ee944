"""Reads a study's tables back, and refuses damaged ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.columns import MANIFEST, PREDICTIONS, TABLES_VERSION, sha256
from study.errors import UserError

DTYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
"""Pandas' own integers and booleans have no missing values."""


@dataclass(frozen=True, eq=False)
class Study:
    """All that analysis knows of a study.

    Args:
        name: as the user calls it.
        facts: its row of `studies.parquet`; space, packages and hardware parsed.
        settings: columns of `trials` that are configuration.
        trials: one row per trial, in the order of the plan.
        pretrainings: one row per pretraining, with the same columns.
        curves: key, run_id, stage, epoch, metric, value; one row per value.
        audits: stopped trials that were finished afterwards, with the same columns as trials.
        predictions: of test frames, one row per atom; empty if none were exported.
    """

    name: str
    facts: dict[str, Any]
    settings: tuple[str, ...]
    trials: pd.DataFrame
    pretrainings: pd.DataFrame
    curves: pd.DataFrame
    audits: pd.DataFrame
    predictions: pd.DataFrame


remembered = lru_cache(maxsize=64)
"""For a frame that many tables derive from a study; its readers must not change it."""


def load(folder: Path) -> Study:
    """Read the tables that `analysis.export` wrote into `folder`."""
    tables = _verify(folder)
    work = _read(folder / "trials.parquet")
    facts: dict[str, Any] = _read(folder / "studies.parquet").to_pylist()[0]
    for name in ("space", "packages", "hardware"):
        facts[name] = json.loads(facts[name] or "{}")
    rows = work.to_pandas(types_mapper=DTYPES.get)
    kinds = {
        kind: rows[rows.kind == kind].reset_index(drop=True)
        for kind in ("trial", "pretrain", "audit")
    }
    predicted = _read(folder / PREDICTIONS).to_pandas() if PREDICTIONS in tables else None
    return Study(
        name=facts["name"],
        facts=facts,
        settings=tuple(f.name for f in work.schema if f.metadata[b"role"] == b"setting"),
        trials=kinds["trial"],
        pretrainings=kinds["pretrain"],
        curves=_read(folder / "curves.parquet").to_pandas(types_mapper=DTYPES.get),
        audits=kinds["audit"],
        predictions=pd.DataFrame() if predicted is None else predicted,
    )


def _verify(folder: Path) -> set[str]:
    """Names of the tables, if all are as the manifest says."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"no tables in {folder}; run `python -m analysis.export` on the study")
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        schema, hashes = manifest["schema"], dict(manifest["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / MANIFEST) from error
    if schema != TABLES_VERSION:
        raise UserError(
            f"tables in {folder} have schema {schema}, this program reads {TABLES_VERSION};"
            " run `python -m analysis.export` on the study again"
        )
    for name, expected in hashes.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise _damaged(folder / name)
    return set(hashes)


def _read(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path) from error
    version = (table.schema.metadata or {}).get(b"schema_version")
    if version != str(TABLES_VERSION).encode():
        raise _damaged(path)
    return table


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or missing; run `python -m analysis.export` again")
