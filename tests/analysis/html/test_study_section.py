"""The parts of a report that one study has."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.html.study_section import study_section
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study


@pytest.mark.parametrize(
    ("typed", "shown", "results"),
    [
        ("--space a.yaml", "--space a.yaml", "runs"),
        ("--space sub/a.yaml --out=x/y", "--space sub/a.yaml --out=x/y", "x/y"),
        ("--space HERE/sub/a.yaml --out HERE/out", "--space sub/a.yaml --out out", "out"),
        ("--space HERE/a.yaml --out x/y", "--space a.yaml --out x/y", "x/y"),
        ("--space /else/where/a.yaml --set k=/else/b", "--space a.yaml --set k=b", "runs"),
        ("--space a.yaml --tracking-uri http://host", "--space a.yaml --tracking-uri URI", "runs"),
    ],
)
def test_commands_run_from_where_the_study_was_begun(
    typed: str,
    shown: str,
    results: str,
    tabulate: Callable[..., Study],
    scratch: Callable[..., Run],
    tmp_path: Path,
) -> None:
    here = tmp_path / "home dir"
    folder = here / results / "studies" / "s"
    folder.mkdir(parents=True)
    command = f"python -m study.run {typed.replace('HERE', shlex.quote(str(here)))}"
    (folder / "study.json").write_text(json.dumps({"command": command}))
    where, *commands = study_section(tabulate(scratch(0, 0, 0.1)), folder)["commands"]
    assert commands == [
        f"python -m study.run {shown}",
        f"python -m analysis.export {results}/studies/s",
        f"python -m analysis.report {results}/studies/s",
    ]
    assert where.startswith("# ")
    assert ("begun" in where) == (typed == shown)
    assert all((here / shlex.split(each)[-1]).is_dir() for each in commands[1:])
