"""Help, and what is wrong with options and files, appear without torch, Ray and MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = (
    "import json, sys\nfrom importlib import import_module\n"
    "command, arguments = json.loads(sys.argv[1])\n"
    "try:\n    code = import_module(command).main(arguments)\n"
    "except SystemExit as end:\n    code = end.code\n"
    "heavy = {'torch', 'ray', 'mlflow'} & set(sys.modules)\n"
    "sys.exit(' '.join(heavy) or code)"
)


def answer(tmp_path: Path, command: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    order = json.dumps([f"study.{command}", arguments])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, order],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["predict", "dynamics", "check", "data", "rerun"])
def test_help_appears_without_torch_ray_and_mlflow(tmp_path: Path, command: str) -> None:
    done = answer(tmp_path, command, ["--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m study.{command}" in done.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "rule"),
    [
        ("predict", ["runs", "no.extxyz"], "no.extxyz: no such file"),
        ("predict", ["runs", "no.extxyz", "--out", "."], "--out .: must not exist yet"),
        ("dynamics", ["runs", "no.extxyz"], "no.extxyz: no such file"),
        ("dynamics", ["runs", "no.extxyz", "--seed", "-1"], "--seed: must be at least 0"),
        ("data", ["inspect", "no"], "no: no such file"),
        ("data", ["import", "no"], "no such file"),
        ("data", ["fetch", "no"], "no: must be one of rpbe"),
        ("data", ["split", "no", "."], ".: must not exist yet"),
        ("data", ["label", "no", "--calculator", "GFN2-xTB", "--out", "x"], "no such file"),
    ],
)
def test_bad_input_is_answered_without_torch_ray_and_mlflow(
    tmp_path: Path, command: str, arguments: list[str], rule: str
) -> None:
    done = answer(tmp_path, command, arguments)
    assert done.returncode == 2
    assert rule in done.stderr
    assert done.stderr.count("\n") == 1
