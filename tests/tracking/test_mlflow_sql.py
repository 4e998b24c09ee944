"""The SQL on MLflow's tables: what it relies on, so that a new MLflow fails here first."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from study.tracking import mlflow_sql
from study.tracking.mlflow_db import initialize_once, path_of
from study.tracking.mlflow_sql import COLUMNS, FinishedStudy, find_finished_study

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
QUERIES = {
    name: query for name, query in vars(mlflow_sql).items() if str(query).strip()[:6] == "SELECT"
}


@pytest.fixture(scope="module")
def of_mlflow(uri: str) -> Path:
    """A database that the installed MLflow has created."""
    with initialize_once(uri):
        return path_of(uri)


@pytest.mark.parametrize("table", COLUMNS)
def test_mlflow_has_the_columns_that_are_read(of_mlflow: Path, table: str) -> None:
    with closing(sqlite3.connect(of_mlflow)) as database:
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
    assert {*COLUMNS[table]} <= columns


def test_queries_read_the_named_columns_and_no_others(of_mlflow: Path) -> None:
    read: dict[str, set[str]] = defaultdict(set)

    def authorize(action: int, table: str, column: str, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and column:
            read[table].add(column)
        return sqlite3.SQLITE_OK

    assert len(QUERIES) == 7
    with closing(sqlite3.connect(of_mlflow)) as database:
        database.set_authorizer(authorize)
        for query in QUERIES.values():
            database.execute(query, [""] * query.count("?"))
    assert read == {table: {*columns} for table, columns in COLUMNS.items()}


def test_no_other_module_queries_a_database() -> None:
    root = Path(mlflow_sql.__file__).parents[2]
    modules = [path for name in ("study", "analysis") for path in (root / name).rglob("*.py")]
    assert len(modules) > 100
    sql = [path.name for path in modules if "SELECT " in path.read_text()]
    assert sql == ["mlflow_sql.py"]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE runs RENAME COLUMN status TO state",
        "DROP TABLE tags",
        "UPDATE experiments SET lifecycle_stage = 'deleted'",
        "UPDATE tags SET value = 'of another folder' WHERE value = 'study-key'",
    ],
)
def test_mlflow_is_asked_about_a_database_with_other_tables(tmp_path: Path, change: str) -> None:
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)
        assert find_finished_study(uri, "s", "study-key") == FinishedStudy(
            "7", "r", 17, frozenset()
        )
        database.executescript(change)
    assert find_finished_study(uri, "s", "study-key") is None
    path.write_bytes(b"no database")
    assert find_finished_study(uri, "s", "study-key") is None


TABLES = """
CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, status TEXT, end_time BIGINT,
                   lifecycle_stage TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
INSERT INTO experiments VALUES (7, 's', 'active');
INSERT INTO runs VALUES ('r', 7, 'FINISHED', 17, 'active');
INSERT INTO tags VALUES ('study.kind', 'study', 'r'), ('study.key', 'study-key', 'r');
"""
"""MLflow's tables as far as they are read, with a finished study without jobs."""
