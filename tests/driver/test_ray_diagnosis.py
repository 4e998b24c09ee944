"""Why Ray did not start is found where Ray writes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from study.driver import ray_diagnosis
from study.driver.ray_diagnosis import CAUSES, WAYS_OUT, start_failure


def test_the_log_of_any_of_rays_processes_tells_the_cause(tmp_path: Path) -> None:
    logs = tmp_path / "ray" / "session_2026-11-29_19-20-26_199380_9420" / "logs"
    logs.mkdir(parents=True)
    (tmp_path / "start.log").write_text("Exception: something of no use\n")
    (logs / "raylet.out").write_text("C raylet: Timed out waiting for file /x/agent_port_1\n")
    assert start_failure(tmp_path) == "it was too slow"
    (logs / "gcs_server.out").write_text("E rpc: Missing authorization header\n")
    assert start_failure(tmp_path) == "the token is not accepted"


def test_a_full_disk_is_seen_without_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(disk_usage=lambda _path: SimpleNamespace(free=10**6))
    monkeypatch.setattr(ray_diagnosis, "shutil", full)
    assert start_failure(tmp_path) == "the disk is full"


def test_every_cause_has_a_way_out() -> None:
    assert {meaning for _, meaning in CAUSES} == set(WAYS_OUT)
