"""What a shell offers after `python -m study.`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from study.completion import main


def offered(script: Path, *words: str) -> list[str]:
    """What bash completes the last word to."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        "_study_complete; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True, cwd=script.parent
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("sys.stdout.write", lines.append)
        assert main(["bash"]) == 0
    (folder / "script").write_text("".join(lines))
    (folder / "mine.yaml").touch()
    (folder / "other.txt").touch()
    (folder / "runs/studies/masking-quick").mkdir(parents=True)
    return folder / "script"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["study.ru"], ["study.run"]),
        (["study.run", "--sp"], ["--space"]),
        (["study.run", "--space", "masking_r"], ["masking_ratio"]),
        (["study.run", "--space", "mask"], ["mask_vs_denoise", "masking_ratio", "masking_search"]),
        (["study.run", "--space", "min"], ["mine.yaml"]),
        (["study.run", "--space", "x", "--profile", "q"], ["quick"]),
        (["study.status", ""], ["runs/studies/masking-quick"]),
        (["study.predict", "runs/studies/m"], ["runs/studies/masking-quick"]),
        (["study.data", "--h"], ["--help"]),
        (["pytest", "--sp"], []),
    ],
)
def test_bash_completes(script: Path, words: list[str], expected: list[str]) -> None:
    assert sorted(offered(script, "python", "-m", *words)) == expected


def test_other_programs_are_left_alone(script: Path) -> None:
    assert offered(script, "python", "file.py", "--sp") == []
