from __future__ import annotations

import io
import sys

import pytest

from study.console.formatting import PlainConsole, write_lines

WARNING = "  warning  the values were chosen for the pretrained trial; a grid tunes both alike"


def printed(text: str, *, terminal: bool) -> list[str]:
    console = PlainConsole()
    console.file, console.width = io.StringIO(), 40
    console._force_terminal = terminal
    console.print(text)
    shown = console.file.getvalue()
    return shown.splitlines()


def test_a_terminal_gets_lines_that_break_between_words() -> None:
    assert printed(WARNING, terminal=True) == [
        "  warning  the values were chosen for",
        "           the pretrained trial; a grid",
        "           tunes both alike",
    ]
    assert printed(WARNING, terminal=False) == [WARNING]


def test_intervals_and_commands_stay_in_one_piece() -> None:
    assert printed("Denoising changes the error by 12 % [-81.1, +231.5]", terminal=True) == [
        "Denoising changes the error by 12 %",
        "[-81.1, +231.5]",
    ]
    command = (
        "  MLFLOW_X=true python -m analysis.export runs/studies/a && python -m analysis.report"
    )
    assert printed(command, terminal=True) == [command]


def test_what_commands_write_is_broken_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    write_lines(f"{WARNING}\n")
    assert capsys.readouterr().out == f"{WARNING}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_lines(f"{WARNING}\n")
    assert [len(line) < 41 for line in capsys.readouterr().out.splitlines()] == [True] * 3
