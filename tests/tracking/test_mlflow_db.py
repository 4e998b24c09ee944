from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from study.core.errors import UserError
from study.tracking import mlflow_db
from study.tracking.mlflow_db import initialize_once, require_reachable
from tests.faults.database import half_written

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_database_is_there_with_all_its_tables_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        path.write_bytes(b"SQLite format 3")
        path.with_name(f"{path.name}-journal").write_bytes(b"half")
        raise KeyboardInterrupt

    database = tmp_path / "mlflow.db"
    monkeypatch.setattr("study.tracking.mlflow_db._create", killed)
    with pytest.raises(KeyboardInterrupt), initialize_once(f"sqlite:///{database}"):
        pass
    assert not database.exists()
    monkeypatch.setattr("study.tracking.mlflow_db._create", lambda path: path.write_bytes(b"whole"))
    with initialize_once(f"sqlite:///{database}"):
        assert database.read_bytes() == b"whole"
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_database_whose_writer_was_killed_is_usable(tmp_path: Path) -> None:
    left = half_written(tmp_path, "experiments")
    require_reachable(f"sqlite:///{left}/mlflow.db")
    with closing(sqlite3.connect(left / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone() == (0,)


def test_a_database_that_cannot_be_made_or_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_reachable(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/runs: cannot be written to"):
        require_reachable(f"sqlite:///{tmp_path}/file/runs/mlflow.db")
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (a)")
    require_reachable(f"sqlite:///{path}")
    # Root may write to any file.
    monkeypatch.setattr(mlflow_db.os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written to"):
        require_reachable(f"sqlite:///{path}")
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="no usable database"):
        require_reachable(f"sqlite:///{path}")


def test_a_database_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("create table x (a)")
    before = path.read_bytes()
    with pytest.raises(UserError, match="holds other tables, such as x, and was not changed"):
        require_reachable(f"sqlite:///{path}")
    assert path.read_bytes() == before
