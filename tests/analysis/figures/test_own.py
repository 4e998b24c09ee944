"""Figures of the user's own: the documented one, and what goes wrong in others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.html.page import write_report
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from analysis.report import main
from tests.readme import example

Build = Callable[..., Run]
Tabulate = Callable[..., Study]


@pytest.fixture
def study(tabulate: Tabulate, scratch: Build, masked: Build, tmp_path: Path) -> Path:
    """The folder of a study of two arms."""
    tabulate(scratch(0, 0, 0.1), masked(1, 0, 0.5, 0.08))
    return tmp_path


def test_the_documented_figure_stands_in_the_report(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(study / "config"))
    monkeypatch.setenv("STUDY_TRUSTED_CODE", "")
    file = study / "spread.py"
    file.write_text(example("spread.py"))
    assert main([str(study), "--figure", str(file)]) == 0
    page = (study / "report" / "report.html").read_text()
    assert "<strong>Spread over seeds.</strong> Each dot is a trial;" in page
    assert "masking 0.5" in (study / "report" / "own_spread.svg").read_text()
    assert (study / "report" / "own_spread.pdf").is_file()


def test_a_file_beside_a_study_is_run_only_if_it_was_named_before(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(study / "config"))
    monkeypatch.setenv("STUDY_TRUSTED_CODE", "")
    beside = study / "figures.py"
    text = example("spread.py").replace("Spread over seeds", "Beside the study")
    beside.write_text(f"import pathlib\npathlib.Path({str(study / 'ran')!r}).touch()\n{text}")
    drawn = study / "report" / "own_figures.svg"
    write_report([study], study / "report")
    told = capsys.readouterr().err
    assert told.startswith(f"not drawn: {beside}: is code beside results")
    assert told.count("\n") == 1
    assert not drawn.exists()
    assert not (study / "ran").exists()
    write_report([study], study / "elsewhere", [beside])
    write_report([study], study / "report")
    assert drawn.is_file()


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("x = 1\n\ndef figure(tables):\n    return tables.trials['no']", ":4", "'no'"),
        ("import os\n1 / 0", ":2", "division by zero"),
        ("def figure(tables)\n    pass", "", "expected ':' (mine.py, line 1)"),
        (
            "def figure(tables):\n    return 3",
            "",
            "must return a matplotlib figure, but returned int",
        ),
        ("x = 1", "", "must define `figure(tables)`"),
    ],
)
def test_what_goes_wrong_is_one_line_with_its_place(
    study: Path, capsys: pytest.CaptureFixture[str], text: str, line: str, problem: str
) -> None:
    file = study / "mine.py"
    file.write_text(text)
    assert main([str(study), "--figure", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{file}: ")
    assert f"{file}{line}" in told
    assert problem in told
    assert told.count("\n") == 1
    assert not (study / "report").exists()
