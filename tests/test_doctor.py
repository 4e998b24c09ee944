from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.checks import machine, storage
from study.checks.finding import Environment, Finding
from study.core import provenance
from study.doctor import CHECKS, main
from study.planning.study_dir import StudyFolder
from study.scheduling import ray_places
from tests.faults.database import half_written


def place(out: Path, tracking_uri: str | None = None, address: str | None = None) -> Environment:
    return Environment(out, tracking_uri, address)


def found(name: str, out: Path, **options: str) -> Finding:
    return CHECKS[name](place(out, **options))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_every_check_of_this_machine_ends_in_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.process_time()
    assert main(["--out", str(tmp_path / "runs"), "--json"]) == 0
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(findings) >= 15
    assert all(finding["fix"] for finding in findings if finding["state"] != "ok")
    assert {finding["check"] for finding in findings} == set(CHECKS)
    # Other tests may run beside this one; what this process itself takes does not depend on them.
    assert time.process_time() - started < 5
    assert list(tmp_path.iterdir()) == []


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
    finding = found(name, tmp_path, **asked)
    assert finding.state == "failed"
    assert next(iter(asked.values())) in finding.found
    assert "start" in finding.fix


def test_a_cluster_that_answers_is_well(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert found("Ray", tmp_path, address=address).state == "ok"


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database, but long enough to be looked at" * 100)
    assert found("MLflow database", tmp_path).state == "failed"


def test_runs_of_a_database_are_counted(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE runs (id)")
        database.execute("INSERT INTO runs VALUES (1)")
    database.close()
    assert found("MLflow database", tmp_path) == Finding("ok", "1 runs")


def test_a_database_whose_writer_was_killed_is_well(tmp_path: Path) -> None:
    left = half_written(tmp_path, "runs", ["whole"])
    assert found("MLflow database", left) == Finding("ok", "1 runs")


def test_a_gpu_that_torch_cannot_use_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "nvidia_gpus", lambda: ("NVIDIA H200",))
    monkeypatch.setattr(machine, "version", lambda _name: "2.13.0+cpu")
    finding = found("GPU", tmp_path)
    assert (finding.state, finding.found) == (
        "warning",
        "NVIDIA H200, but torch 2.13.0+cpu is built without CUDA",
    )


def test_more_threads_than_cores_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    finding = found("cores", tmp_path)
    assert finding.fix.startswith(f"export OMP_NUM_THREADS={provenance.cores()}")


def test_missing_and_old_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "requires", lambda _name: ["numpy>=999", "nosuchpackage", "rich"])
    finding = found("packages", tmp_path)
    assert finding.state == "failed"
    assert "nosuchpackage is missing" in finding.found
    assert "is not >=999" in finding.found


def test_a_broken_package_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine.FIRST_STEPS, "ray", "raise ImportError('libmissing.so')")
    finding = found("ray works", tmp_path)
    assert (finding.state, finding.found) == ("failed", "ImportError: libmissing.so")


def test_locks_that_hold_nobody_off_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found("file locks", tmp_path).state == "ok"
    monkeypatch.setattr(storage, "is_locked", lambda _path: False)
    assert found("file locks", tmp_path).state == "failed"


def test_a_database_on_a_network_share_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_kind_of_mount", lambda _path: "nfs4")
    assert found("file system", tmp_path).state == "warning"
    assert found("file system", tmp_path, tracking_uri="http://server").state == "ok"


def test_a_long_temporary_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_places, "LONGEST_SOCKET", 40)
    assert found("temporary folder", tmp_path).fix == "export TMPDIR=/tmp"


def test_little_space_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_full = SimpleNamespace(disk_usage=lambda _path: SimpleNamespace(free=10**8))
    monkeypatch.setattr(storage, "shutil", nearly_full)
    assert found("disk", tmp_path).state == "failed"


def test_unfinished_studies_are_found(small_study: StudyFolder) -> None:
    assert found("stale studies", small_study.root) == Finding("ok", "none")


def test_what_a_crash_left_is_found(tmp_path: Path) -> None:
    left = tmp_path / "data" / "water.partial"
    left.mkdir(parents=True)
    assert found("leftovers", tmp_path).state == "ok"
    os.utime(left, (0, 0))
    assert found("leftovers", tmp_path).state == "warning"
