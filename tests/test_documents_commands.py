"""What the documents say can be done as it stands there.

Commands run in a folder with a small study; `RUN` says which, and what is added to them. What needs
a network, a cluster, MLflow or hours is only given to the parser of its command.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ase.io
import click
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree

from study.core.quantities.elements import SYMBOLS
from study.datasets.frames import Frames
from study.planning import plan_checks
from study.planning.study_dir import StudyDir
from tests.readme import DOCUMENTS, REPOSITORY, blocks, commands, write_examples

STUDY = "masking_ratio-quick"
RUN = {
    "study.run": ["--dry-run", "--profile", "quick", "--out", "planned"],
    "study.check": [],
    "study.data": [],
    "study.dynamics": ["--picoseconds", "0.005"],
    "study.predict": [],
    "study.rerun": [],
    "study.status": [],
    "analysis.dynamics": [],
}
"""Commands that run here, with what is added to each."""
ELSEWHERE = {
    "fetch",  # needs the internet
    "label",  # needs a calculator
    "sample",
    "tip3p",  # takes a minute
    "--log",  # needs MLflow's records
    "--register",
    "--verify-resume",  # kills real processes
}
"""Words of commands that are only parsed."""
TOOLS = {
    "activate-global-python-argcomplete": "argcomplete",
    "lint-imports": "import-linter",
    "mypy": "mypy",
    "optuna-dashboard": "optuna-dashboard",
    "pytest": "pytest",
    "ruff": "ruff",
}
"""Programs, and the requirement that brings each."""
SHELL = {".", "export", "source", "python3"}


class ParsedError(Exception):
    """Ends a command once its words are understood."""


@contextmanager
def parsing_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser, arguments: object = None) -> None:
        parse(parser, arguments)  # type: ignore[call-overload]
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
        yield


def start(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    name = f"{module}.__main__" if spec.submodule_search_locations else module
    return int(importlib.import_module(name).main())


def parse(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with parsing_only(monkeypatch), pytest.raises(ParsedError):
        start(module, arguments, monkeypatch)


def of_modules() -> dict[tuple[str, ...], str]:
    """Distinct `python -m` commands of ours, and where the first of each stands."""
    found: dict[tuple[str, ...], str] = {}
    for place, words in commands():
        if words[:2] == ["python", "-m"] and words[2].partition(".")[0] in (
            "study",
            "analysis",
            "tests",
        ):
            found.setdefault(tuple(words[2:]), place)
    return found


OURS = of_modules()
HERE = [words for words in OURS if words[0] in RUN and not ELSEWHERE & {*words}]


def title(words: tuple[str, ...]) -> str:
    return " ".join(words)


@pytest.fixture
def folder(
    small_study: StudyDir,
    water: Frames,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A reader's folder: a finished study, water in two formats, and the files of the documents."""
    root = small_study.path.parent.parent
    shutil.copytree(root, tmp_path / "runs")
    (tmp_path / "runs/studies" / small_study.path.name).rename(tmp_path / "runs/studies" / STUDY)
    ase.io.write(tmp_path / "water.extxyz", [*map(atoms_of, [water] * 12, range(12))])
    text = (tmp_path / "water.extxyz").read_text()
    renamed = text.replace("forces:R", "REF_forces:R").replace(" energy=", " REF_energy=")
    (tmp_path / "train.xyz").write_text(renamed)
    (tmp_path / "input.data").write_text(n2p2_of(water))
    (tmp_path / "input.data.gz").write_bytes(gzip.compress(n2p2_of(water).encode()))
    write_examples(tmp_path)
    (stored,) = (tmp_path / "runs/data").glob("tip3p_water-????????????")
    shutil.copytree(stored, tmp_path / "runs/data/stored")
    # The files stand in for a reader's, and have too few frames for the splits in the documents.
    monkeypatch.setattr(plan_checks, "SMALL_FILE", 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def n2p2_of(frames: Frames) -> str:
    """The frames as n2p2 has them."""
    lines = []
    for number in range(len(frames)):
        atoms = slice(*frames.offsets[number : number + 2])
        cell = frames.cells[number] / Bohr
        lines += ["begin", *(f"lattice {x} {y} {z}" for x, y, z in cell)]
        for kind, place, force in zip(
            frames.numbers[atoms],
            frames.positions[atoms] / Bohr,
            frames.forces[atoms] * Bohr / Hartree,
            strict=True,
        ):
            columns = [*place, SYMBOLS[kind - 1], 0, 0, *force]
            lines.append(f"atom {' '.join(map(str, columns))}")
        lines += [f"energy {frames.energies[number] / Hartree}", "charge 0", "end"]
    return "\n".join(lines) + "\n"


def atoms_of(frames: Frames, number: int) -> Atoms:
    atoms = slice(*frames.offsets[number : number + 2])
    made = Atoms(
        frames.numbers[atoms], frames.positions[atoms], cell=frames.cells[number], pbc=True
    )
    made.calc = SinglePointCalculator(
        made, energy=float(frames.energies[number]), forces=frames.forces[atoms]
    )
    return made


@pytest.mark.parametrize("words", HERE, ids=title)
def test_commands_run(
    words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del folder
    module, *arguments = words
    if module == "analysis.dynamics":
        arguments_before = [f"runs/studies/{STUDY}", "water.extxyz", "--out", arguments[0]]
        moved = start("study.dynamics", [*arguments_before, *RUN["study.dynamics"]], monkeypatch)
        assert moved == 0
    assert start(module, [*arguments, *RUN[module]], monkeypatch) == 0, OURS[words]


@pytest.mark.parametrize("words", [words for words in OURS if words not in HERE], ids=title)
def test_commands_that_take_long_are_understood(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse(words[0], [*words[1:]], monkeypatch)


@pytest.mark.parametrize("words", [words for words in OURS if words[0] == "study.run"], ids=title)
def test_a_changed_study_has_a_name_of_its_own(words: tuple[str, ...]) -> None:
    """Or it is refused where the reader has run the unchanged one."""
    assert "--name" in words or not {"--set", "--data"} & {*words}


def requirements() -> dict[str, list[str]]:
    """Of each extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return {
        extra: [re.split(r"[^\w-]", line)[0] for line in lines] for extra, lines in extras.items()
    }


CLICK = {"mlflow": "mlflow.cli", "ray": "ray.scripts.scripts"}


def options_of(program: str, command: str) -> set[str]:
    """Options of a command of Ray or MLflow."""
    group = importlib.import_module(CLICK[program]).cli
    assert isinstance(group, click.Group)
    return {option for parameter in group.commands[command].params for option in parameter.opts}


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's own
def test_other_programs_are_known_and_take_their_options() -> None:
    installed = {name for names in requirements().values() for name in names}
    for place, words in commands():
        program = words[0] if words else "."
        if program == "pip":
            extras = re.findall(r"\[(\w+)\]", " ".join(words))
            assert {*extras} <= {*requirements()}, place
        elif program in CLICK:
            given = {word for word in words if word.startswith("--")}
            assert given <= options_of(program, words[1]), place
        elif words[:3] == ["python", "-m", "pytest"] or program in TOOLS:
            assert TOOLS[words[2] if program == "python" else program] in installed, place
        else:
            assert program in SHELL or tuple(words[2:]) in OURS, f"{place}: {words}"


def test_the_calculator_of_the_readme_computes_forces(folder: Path) -> None:
    (program,) = [block for block in blocks("python") if "StudyCalculator" in block.text]
    (folder / "program.py").write_text(program.text)
    atoms = runpy.run_path("program.py")["atoms"]
    assert atoms.get_forces().shape == (24, 3)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_and_options_in_sentences_exist(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    known = help_of_all(monkeypatch, capsys)
    for code in re.findall(r"`([^`\n]+)`", text):
        words = code.split()
        if words[:2] == ["python", "-m"] and words[2] != "pytest":
            assert importlib.util.find_spec(words[2]) is not None, code
        for option in re.findall(r"(?<![\w-])--\w[\w-]*", code):
            assert option in known or words[0] in ("pip", "ray", "mlflow", "python"), code


def help_of_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `--help` shows of every command in the documents."""
    for words in {words[:2] if words[0] == "study.data" else words[:1] for words in OURS}:
        with pytest.raises(SystemExit):
            start(words[0], [*words[1:], "--help"], monkeypatch)
    return capsys.readouterr().out
