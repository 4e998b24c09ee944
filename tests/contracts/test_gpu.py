"""The script for a machine with a GPU, rehearsed on a pretended one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.core.config import shipped
from study.models.config import ModelConfig
from study.tasks.config import Denoising, EnergyForces, Masking
from tests.gpu import bench
from tests.gpu.__main__ import STAGES, Report, run
from tests.plain_settings import with_implementations
from tests.pretended_device import NAME, Pretended


def test_its_settings_are_the_defaults_of_today() -> None:
    kinds = {name: kind for name, kind in shipped(ModelConfig).items() if not kind.package}
    tasks = [
        Masking(name="masking", masking_ratio=0.5),
        Denoising(name="denoising", noise_scale=0.5),
        EnergyForces(name="energy_forces"),
    ]
    expected = {
        "models": {
            name: with_implementations(kind.model_validate({"name": name}))
            for name, kind in kinds.items()
        },
        "tasks": {task.name: with_implementations(task) for task in tasks},
    }
    # To write them: bench.SETTINGS.write_text(json.dumps(expected, indent=1) + "\n")
    assert json.loads(bench.SETTINGS.read_text()) == json.loads(json.dumps(expected))


def test_every_check_runs_and_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = bench.load_settings(small=True)
    # SchNet is quick; the tests of steps on this device have all models.
    parts["models"] = {"egnn": parts["models"]["schnet"]}
    monkeypatch.setattr(bench, "load_settings", lambda **_: parts)
    with Pretended().running():
        run(NAME, Report(tmp_path, limit=600), bench.REHEARSAL)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["what"] for row in rows if not row["good"]] == []
    counted = {kind: sum(row["kind"] == kind for row in rows) for kind in ("parity", "speed")}
    assert counted == {"parity": 2, "speed": len(STAGES)}
    (arm,) = (row["result"] for row in rows if row["kind"] == "arm")
    assert arm["hours"] > 0


def test_wrong_numbers_are_told(tmp_path: Path) -> None:
    report = Report(tmp_path, limit=600)
    report.add("parity", "right", lambda: {"float64": 1e-12, "float32": 1e-5})
    report.add("parity", "wrong", lambda: {"float64": 1e-3, "float32": 1e-5})
    report.add("repeats", "differs", lambda: False)
    report.add("speed", "fails", lambda: 1 / 0)
    assert [row["good"] for row in report.rows] == [True, False, False, False]
    assert report.failed == 3
    late = Report(tmp_path, limit=-1)
    late.add("speed", "late", lambda: 1 / 0)
    assert "left_out" in late.rows[0]
    assert late.failed == 0
