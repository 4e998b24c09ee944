"""Results in which somebody changed a value, with a hash that fits: a line, or an answer."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from study import predict, status
from study.core.hashing import digest
from study.inference.trained_model import resolve_trained_model, save_portable
from study.planning.study_dir import StudyDir
from tests.hostile import altered


def save(path: Path, value: dict[str, Any]) -> None:
    content = {name: each for name, each in value.items() if name != "digest"}
    path.write_text(json.dumps(content | {"digest": digest(content)}))


@pytest.fixture
def results(small_study: StudyDir, tmp_path: Path) -> Path:
    """A study and its model, and a structure."""
    shutil.copytree(small_study.root, tmp_path / "runs")
    study = tmp_path / "runs" / "studies" / small_study.name
    save_portable(resolve_trained_model(study), tmp_path / "model")
    Atoms("OH", [[0, 0, 0], [1.2, 0, 0]], cell=[10, 10, 10], pbc=True).write(tmp_path / "oh.xyz")
    return study


def answers(command: Callable[[], int], capsys: pytest.CaptureFixture[str], what: object) -> None:
    """A command works, or ends with one line; warnings before it are lines of their own."""
    code, lines = command(), capsys.readouterr().err.splitlines()
    assert code in (0, 2), what
    problems = [line for line in lines if not line.startswith(("warning:", "model:"))]
    assert len(problems) == (code == 2), (what, lines)


def test_a_strange_study_json_is_a_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "study.json"
    for value in altered(json.loads(path.read_text()), 0):
        save(path, value)
        answers(lambda: status.main([str(results), "--all"]), capsys, value)
        answers(lambda: status.main(["--out", str(results.parents[1])]), capsys, value)


def test_a_strange_journal_is_a_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    first = {event["event"]: number for number, event in enumerate(map(json.loads, lines[::-1]))}
    for number in (len(lines) - 1 - each for each in first.values()):
        event = {name: v for name, v in json.loads(lines[number]).items() if name != "digest"}
        for value in altered(event, 1):
            line = json.dumps(value | {"digest": digest(value)[:16]}, sort_keys=True).encode()
            path.write_bytes(b"".join((*lines[:number], line + b"\n", *lines[number + 1 :])))
            answers(lambda: status.main([str(results), "--all"]), capsys, value)


@pytest.mark.parametrize("name", ["result.json", "model.json"])
def test_a_strange_model_is_a_line(
    results: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model, structure = results.parents[2] / "model", str(results.parents[2] / "oh.xyz")
    path, place = model / name, model
    if name == "result.json":
        place = resolve_trained_model(results).weights.parent
        path = place / name
    original = json.loads(path.read_text())
    for value in altered(copy.deepcopy(original), 0):
        save(path, value)
        answers(lambda: predict.main([str(place), structure]), capsys, value)
