"""From MLflow into Parquet and back, and what happens to damaged files."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.export import main
from analysis.records.export import export
from analysis.records.mlflow_reader import Run, read_runs, read_with_client
from analysis.records.parquet_tables import TABLES_VERSION, write_tables
from analysis.records.study_tables import Study, load
from study.core.errors import UserError
from study.core.records import Tag
from tests.analysis.conftest import EXPERIMENT

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:sqlalchemy",  # MLflow's use of SQLAlchemy.
    "ignore::DeprecationWarning:mlflow",
)


def test_sql_and_client_read_the_same(store: str) -> None:
    by_sql = read_runs(store, EXPERIMENT)
    by_client = read_with_client(store, EXPERIMENT)
    assert repr(by_sql) == repr(sorted(by_client, key=lambda run: (run.started, run.run_id)))


def test_special_values_survive_and_the_last_duplicate_counts(exported: Study) -> None:
    curve = exported.curves.query("metric == 'val_force_rmse'")
    assert curve.epoch.tolist() == [1, 2, 3, 4]
    assert repr(curve.value.tolist()) == "[2.0, nan, inf, -inf]"


def test_trials_come_in_the_order_of_the_plan(exported: Study) -> None:
    assert exported.trials.number.tolist() == [0, 1]
    assert exported.trials.status.tolist() == ["running", "diverged"]
    assert exported.pretrainings.seconds.tolist() == [7.0]


def test_unfinished_work_costs_what_its_last_epoch_says(exported: Study) -> None:
    assert exported.trials.seconds[1] == 5.0


def test_parameters_get_the_narrowest_type(exported: Study) -> None:
    trials = exported.trials
    assert trials["seed"].dtype == pd.Int64Dtype()
    assert trials["finetune.lr"].tolist() == [2.0, 0.001]
    assert trials["model.name"].tolist() == ["7x", "egnn"]
    assert trials["finetune.frames"].isna().all()
    assert set(exported.settings) >= {"seed", "finetune.lr", "pretrain.task.masking_ratio"}


def test_times_are_utc(exported: Study) -> None:
    assert str(exported.trials.end_time[1]) == "2023-11-14 22:13:25+00:00"


def test_the_study_knows_its_name_and_space(exported: Study) -> None:
    assert exported.name == "masking_ratio"
    assert exported.facts["space"] == {"trials": 2}


@pytest.mark.usefixtures("exported")
def test_units_and_schema_version_travel_with_the_file(tmp_path: Path) -> None:
    schema = pq.read_schema(tmp_path / "trials.parquet")
    assert schema.field("test_force_rmse").metadata[b"unit"].decode() == "eV/Å"
    assert schema.metadata[b"schema_version"] == str(TABLES_VERSION).encode()


def test_exporting_twice_gives_the_same_bytes(store: str, tmp_path: Path) -> None:
    for name in ("once", "twice"):
        export(EXPERIMENT, store, tmp_path / name)
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes()


def test_an_extended_study_keeps_its_earlier_work(
    tabulate: Callable[..., Study], scratch: Callable[..., Run]
) -> None:
    earlier = scratch(0, 0, 0.1)
    earlier.tags["mlflow.parentRunId"] = "the smaller study"
    assert tabulate(earlier, scratch(1, 1, 0.1)).trials.number.tolist() == [0, 1]


def test_a_study_without_work_has_the_same_typed_columns(
    tabulate: Callable[..., Study], scratch: Callable[..., Run]
) -> None:
    empty, full = tabulate(), tabulate(scratch(0, 0, 0.1))
    assert empty.trials.dtypes.equals(full.trials[empty.trials.columns].dtypes)
    assert empty.curves.dtypes.equals(full.curves.dtypes)


def test_a_study_folder_says_where_its_records_are(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"name": "x", "tracking_uri": store, "experiment": EXPERIMENT, "profile": "quick"}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'tables'}\n"
    assert (tmp_path / "tables" / "curves.parquet").exists()


@pytest.mark.parametrize(
    ("experiment", "message"),
    [("nowhere", "no study.json in nowhere"), ("absent", "no experiment 'absent'")],
)
def test_what_is_not_there_is_said_in_one_line(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], experiment: str, message: str
) -> None:
    place = [] if experiment == "nowhere" else ["--tracking-uri", store, "--out", str(tmp_path)]
    assert main([experiment, *place]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_study_of_another_schema_is_refused(tmp_path: Path) -> None:
    study = Run("s", "FINISHED", tags={Tag.KIND: "study", Tag.SCHEMA: "2"})
    with pytest.raises(UserError, match="but 'x' has 2"):
        write_tables([study], "x", tmp_path)


def test_a_failed_export_leaves_the_old_tables(
    exported: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("analysis.records.parquet_tables.pq.write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_tables(
            [Run("s", "FINISHED", tags={Tag.KIND: "study", Tag.SCHEMA: "1"})], "x", tmp_path
        )
    assert load(tmp_path).name == exported.name
    assert not list(tmp_path.glob("*.tmp"))


def test_what_a_killed_writer_left_half_done_is_rolled_back(store: str, tmp_path: Path) -> None:
    writing, left = tmp_path / "writing", tmp_path / "left"
    writing.mkdir()
    shutil.copy(store.removeprefix("sqlite:///"), writing / "mlflow.db")
    with closing(sqlite3.connect(writing / "mlflow.db")) as database:
        database.execute("PRAGMA cache_size = 1")
        rows = [(str(place), "x" * 500, "active") for place in range(1000)]
        database.execute("UPDATE runs SET status = 'KILLED'")
        insert = "INSERT INTO experiments (name, artifact_location, lifecycle_stage)"
        database.executemany(f"{insert} VALUES (?, ?, ?)", rows)
        # As a killed process leaves it: half of a transaction, and the journal that undoes it.
        shutil.copytree(writing, left)
    assert (left / "mlflow.db-journal").stat().st_size > 0
    assert read_runs(f"sqlite:///{left}/mlflow.db", EXPERIMENT) == read_runs(store, EXPERIMENT)
