"""What a shell offers after `python -m study.`."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path
from shutil import which
from typing import Self

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


def printed(shell: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("sys.stdout.write", lines.append)
        assert main([shell]) == 0
    return "".join(lines)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For bash, beside some files."""
    folder = tmp_path_factory.mktemp("shell")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(printed(shell))
    (folder / "mine.yaml").touch()
    (folder / "other.txt").touch()
    (folder / "runs/studies/masking-quick").mkdir(parents=True)
    return folder / "bash"


CASES = [
    (["study.ru"], ["study.run"]),
    (["study.run", "--sp"], ["--space"]),
    (["study.run", "--space", "masking_r"], ["masking_ratio"]),
    (["study.run", "--space", "mask"], ["mask_vs_denoise", "masking_ratio", "masking_search"]),
    (["study.run", "--space", "min"], ["mine.yaml"]),
    (["study.run", "--space", "x", "--profile", "q"], ["quick"]),
    (["study.run", "--no-r"], ["--no-report"]),
    (["study.predict", "--precision", "float3"], ["float32"]),
    (["study.predict", "runs/studies/m"], ["runs/studies/masking-quick"]),
    (["study.data", "insp"], ["inspect"]),
    (["study.completion", "zs"], ["zsh"]),
    (["pytest", "--sp"], []),
]


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_bash_completes(script: Path, words: list[str], expected: list[str]) -> None:
    assert sorted(offered(script, "python", "-m", *words)) == expected


def test_bash_completes_studies_and_what_follows_an_equals_sign(script: Path) -> None:
    assert offered(script, "python", "-m", "study.status", "") == ["runs/studies/masking-quick"]
    assert offered(script, "python", "-m", "study.run", "--profile", "=", "q") == ["quick"]
    assert offered(script, "python", "-m", "study.run", "--profile", "=") == ["quick", "paper"]


@pytest.mark.skipif(not which("fish"), reason="no fish here")
@pytest.mark.parametrize(("words", "expected"), CASES)
def test_fish_completes(script: Path, words: list[str], expected: list[str]) -> None:
    assert offered_by_fish(script, "-N", *words) == set(expected)


@pytest.mark.skipif(not which("fish"), reason="no fish here")
def test_fish_completes_commands_beside_what_it_knows_of_python_itself(script: Path) -> None:
    assert offered_by_fish(script, "--private", "study.ru") == {"study.run"}


def offered_by_fish(script: Path, mode: str, *words: str) -> set[str]:
    line = " ".join(["python", "-m", *words])
    program = f"source {script.with_name('fish')}; complete -C '{line}'"
    home = {"HOME": str(script.parent), "XDG_CONFIG_HOME": str(script.parent / "config")}
    done = subprocess.run(
        ["fish", mode, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=script.parent,
        env=os.environ | home,
    )
    return {line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()}


@pytest.mark.skipif(not which("zsh"), reason="no zsh here")
def test_zsh_completes_what_is_typed(script: Path) -> None:
    with Typist(["zsh", "-f", "-i"], script.parent) as zsh:
        zsh.type(f"source {script.with_name('zsh')}; echo rea''dy\n", "ready")
        zsh.type("python -m study.ru\t", "study.run ")
        zsh.type("--sp\t", "--space ")
        zsh.type("masking_r\t", "masking_ratio ")
        zsh.type("--profile q\t", "quick ")


class Typist:
    """Types at a terminal and reads what it shows."""

    def __init__(self, command: list[str], folder: Path) -> None:
        mine, its = pty.openpty()
        self.terminal = mine
        environment = os.environ | {"TERM": "dumb", "HOME": str(folder), "ZDOTDIR": str(folder)}
        self.process = subprocess.Popen(
            command, stdin=its, stdout=its, stderr=its, cwd=folder, env=environment
        )
        os.close(its)

    def type(self, keys: str, expected: str) -> None:
        """Wait for the answer to some keys."""
        os.write(self.terminal, keys.encode())
        shown, deadline = "", time.monotonic() + 60
        while expected not in shown:
            ready, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            assert ready, f"{keys!r} shows {shown!r}"
            shown += os.read(self.terminal, 4096).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


def test_other_programs_are_left_alone(script: Path) -> None:
    assert offered(script, "python", "file.py", "--sp") == []
