"""Checks of the results folder, of databases and of servers."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.checks import storage
from study.checks.finding import Environment, Finding
from study.doctor import CHECKS
from study.planning.study_dir import StudyDir
from tests.faults.database import half_written


def environment(
    out: Path, tracking_uri: str | None = None, address: str | None = None
) -> Environment:
    return Environment(out, tracking_uri, address)


def run_named_check(name: str, out: Path, **options: str) -> Finding:
    return CHECKS[name](environment(out, **options))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MLflow server", {"tracking_uri": "http://127.0.0.1:PORT"}),
        ("Ray", {"address": "127.0.0.1:PORT"}),
        ("Ray", {"address": "nonsense"}),
    ],
)
def test_who_does_not_answer_is_named(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    port = str(closed_port())
    asked = {key: value.replace("PORT", port) for key, value in options.items()}
    finding = run_named_check(name, tmp_path, **asked)
    assert finding.state == "failed"
    assert next(iter(asked.values())) in finding.found
    assert "start" in finding.fix


def test_a_cluster_that_answers_is_well(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert run_named_check("Ray", tmp_path, address=address).state == "ok"


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database, but long enough to be looked at" * 100)
    assert run_named_check("MLflow database", tmp_path).state == "failed"


def test_runs_of_a_database_are_counted(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE runs (id)")
        database.execute("INSERT INTO runs VALUES (1)")
    database.close()
    assert run_named_check("MLflow database", tmp_path) == Finding("ok", "1 runs")


def test_a_database_whose_writer_was_killed_is_well(tmp_path: Path) -> None:
    left = half_written(tmp_path, "runs", ["whole"])
    assert run_named_check("MLflow database", left) == Finding("ok", "1 runs")


def test_locks_that_hold_nobody_off_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_named_check("file locks", tmp_path).state == "ok"
    monkeypatch.setattr(storage, "is_locked", lambda _path: False)
    assert run_named_check("file locks", tmp_path).state == "failed"


def test_a_database_on_a_network_share_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_kind_of_mount", lambda _path: "nfs4")
    assert run_named_check("file system", tmp_path).state == "warning"
    assert run_named_check("file system", tmp_path, tracking_uri="http://server").state == "ok"


def test_little_space_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_full = SimpleNamespace(disk_usage=lambda _path: SimpleNamespace(free=10**8))
    monkeypatch.setattr(storage, "shutil", nearly_full)
    assert run_named_check("disk", tmp_path).state == "failed"


def test_unfinished_studies_are_found(small_study: StudyDir) -> None:
    assert run_named_check("stale studies", small_study.root) == Finding("ok", "none")


def test_what_a_crash_left_is_found(tmp_path: Path) -> None:
    left = tmp_path / "data" / "water.partial"
    left.mkdir(parents=True)
    assert run_named_check("leftovers", tmp_path).state == "ok"
    os.utime(left, (0, 0))
    assert run_named_check("leftovers", tmp_path).state == "warning"
