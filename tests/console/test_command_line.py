"""What a shell offers after `python -m study.`, with argcomplete's global completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from study.console.command_line import parse, space_names, study_dirs
from study.console.run_options import parser

REPOSITORY = Path(__file__).parent.parent.parent

PROGRAM = """
source <("$PYTHON" -m argcomplete.scripts.activate_global_python_argcomplete --dest=-)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
COMP_TYPE=9; COMP_KEY=9
_python_argcomplete_global "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Has a space and a study."""
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "runs/studies/masking-quick").mkdir(parents=True)
    (tmp_path / "runs/studies/masking-quick/study.json").touch()
    return tmp_path


def offered(folder: Path, *words: str) -> list[str]:
    """What bash completes the last word to."""
    command = ["bash", "--norc", "-c", PROGRAM, "bash", "python", "-m", *words]
    # argcomplete knows `python`, and asks the one that it finds first.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(REPOSITORY),
        "PATH": path,
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=folder, env=environment
    )
    assert not done.stderr
    return sorted(word.strip() for word in done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["study.run", "--sp"], ["--space"]),
        (["study.run", "--space", "masking_r"], ["masking_ratio"]),
        (["study.run", "--space", "min"], ["mine.yaml"]),
        (["study.run", "--space", "x", "--profile", "q"], ["quick"]),
        (["study.run", "--no-r"], ["--no-report"]),
        (["study.status", "runs/studies/m"], ["runs/studies/masking-quick"]),
        (["study.rerun", "runs/studies/m"], ["runs/studies/masking-quick"]),
        (["study.data", "insp"], ["inspect"]),
    ],
)
def test_bash_completes(folder: Path, words: list[str], expected: list[str]) -> None:
    assert offered(folder, *words) == expected


def test_other_programs_are_left_alone(folder: Path) -> None:
    assert offered(folder, "json.tool", "--sp") == []


def test_a_command_line_is_parsed_without_argcomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert parse(parser(), ["--space", "x"]).space == "x"


def test_what_is_offered_lies_here_or_is_shipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert {"masking_ratio", "mine.yaml"} <= set(space_names(""))
    assert study_dirs("") == ["runs/studies/masking-quick"]
    assert space_names("/") == space_names("nowhere")
