"""Tables of runs as this and earlier versions record them."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.records.mlflow_reader import Run
from analysis.records.parquet_tables import write_tables
from study.core.records import SCHEMA_VERSION, Tag


def test_settings_that_are_null_give_the_tables_of_earlier_studies(tmp_path: Path) -> None:
    tags = {Tag.KIND: "study", Tag.KEY: "s", Tag.SCHEMA: str(SCHEMA_VERSION)}
    study, trial = Run("s", "FINISHED", tags=tags), {Tag.KIND: "trial", Tag.NUMBER: "0"}
    null, given = {"pretrain": "None", "finetune.frames": "None"}, {"seed": "0"}
    newer = Run("t", "FINISHED", params=given, tags=trial | {Tag.UNSET: json.dumps([*null])})
    tables = []
    for run in (Run("t", "FINISHED", params=given | null, tags=trial), newer):
        write_tables([study, run], "x", tmp_path)
        tables.append((tmp_path / "trials.parquet").read_bytes())
    assert tables[0] == tables[1]
