"""Tables of runs as this and earlier versions record them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from analysis.records.mlflow_reader import Run
from analysis.records.parquet_tables import write_tables
from analysis.records.study_tables import Study
from study.core.records import SCHEMA_VERSION, Tag
from tests.readme import REPOSITORY

Build = Callable[..., Run]


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


def test_the_document_lists_every_column_with_its_unit(
    tabulate: Callable[..., Study], scratch: Build, tmp_path: Path
) -> None:
    tabulate(scratch(0, 0, 0.1))
    columns = {
        field.name: (field.metadata.get(b"unit", b"").decode(), field.metadata[b"meaning"].decode())
        for field in pq.read_schema(tmp_path / "tables" / "trials.parquet")
        if field.metadata[b"role"] != b"setting"
    }
    text = (REPOSITORY / "analysis" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ?(.*?) \| (.+) \|$", text.partition("<summary>")[2], re.M)
    assert {name: (unit, meaning) for name, unit, meaning in rows} == columns


def test_arms_are_called_as_in_the_report(
    tabulate: Callable[..., Study],
    scratch: Build,
    masked: Build,
    pretrained: Build,
    tmp_path: Path,
) -> None:
    tabulate(scratch(0, 0, 0.1), masked(1, 0, 0.5, 0.1), pretrained(0, 0.5, 0.3))
    trials, curves = (
        pq.read_table(tmp_path / "tables" / f"{name}.parquet").to_pandas()
        for name in ("trials", "curves")
    )
    named = trials.set_index("run_id").arm.dropna().to_dict()
    assert named == {"trial-0": "from scratch", "trial-1": "masking 0.5"}
    assert set(curves[curves.run_id == "trial-1"].arm) == {"masking 0.5"}
    assert curves[curves.stage == "pretrain"].arm.isna().all()
