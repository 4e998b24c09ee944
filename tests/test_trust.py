"""Results and models that somebody else hands over: their code runs only if the user accepts it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ase import Atoms

from study import dynamics, predict, rerun, status
from study.core.errors import UserError
from study.core.trust import ACCEPTED, accept, is_accepted
from study.core.user_code import load
from study.datasets.parsing.header import read_header
from study.datasets.prepare import prepare
from study.inference.ase_calculator import StudyCalculator
from study.inference.trained_model import resolve_trained_model, save_portable
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.search_space import load_space
from tests.readme import example


@dataclass(frozen=True)
class Gift:
    """Somebody's results.

    Args:
        study: folder of a study with one finished trial, and one that is not.
        model: folder of its model alone.
        structure: a file to predict.
        marker: a file that the code writes when it runs.
        sha256: of the code.
    """

    study: Path
    model: Path
    structure: Path
    marker: Path
    sha256: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Gift:
    """What its author made, who trusts it; its user has a new folder of settings in each test."""
    here = tmp_path_factory.mktemp("author")
    marker = here / "ran"
    (here / "mine.py").write_text(f"{example('mine.py')}\nopen({str(marker)!r}, 'w').close()\n")
    (here / "mine.yaml").write_text(example("mine.yaml").replace("mine.py", f"{here}/mine.py"))
    space, root = load_space(str(here / "mine.yaml"), "quick"), here / "runs"
    study = StudyDir(root, space.name)
    study.write(space, "sqlite:///nowhere.db", {})
    trial, other = space.grid()[:2]
    frames = prepare(trial.dataset, root, 1, lambda *_: None)
    data = str(read_header(frames)["content_hash"])
    study.write(space, "sqlite:///nowhere.db", {frames.name: data})
    journal = Journal(study.journal, space.settings.metric)
    for number, each in enumerate((trial, other)):
        journal.planned(Planned(number, Job("trial", each, data)))
    job = Job("trial", trial, data)
    for record in run_job(job, root, frames):
        journal.recorded(job, record)
    outcome = load_outcome(job.folder(root))
    assert outcome is not None
    journal.ended(job, outcome.result)
    save_portable(resolve_trained_model(study.path), here / "model")
    Atoms("OH", [[0, 0, 0], [1.2, 0, 0]], cell=[10, 10, 10], pbc=True).write(here / "oh.xyz")
    (here / "mine.py").rename(here / "moved.py")
    sha256 = hashlib.sha256((here / "moved.py").read_bytes()).hexdigest()
    return Gift(study.path, here / "model", here / "oh.xyz", marker, sha256)


@pytest.fixture
def gift(made: Gift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gift]:
    """The gift before any of its code has run, with a user who accepted nothing, no terminal."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv(ACCEPTED, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.chdir(tmp_path)
    forget(made)
    yield made
    forget(made)


def forget(gift: Gift) -> None:
    """As in a new process."""
    sys.modules.pop(f"own_{gift.sha256[:16]}", None)
    gift.marker.unlink(missing_ok=True)


COMMANDS: dict[str, Callable[[Gift], list[str]]] = {
    "predict": lambda gift: [str(gift.study), str(gift.structure)],
    "predict a model": lambda gift: [str(gift.model), str(gift.structure)],
    "predict test frames": lambda gift: [str(gift.study)],
    "dynamics": lambda gift: [str(gift.model), str(gift.structure), "--picoseconds", "0.001"],
    "rerun": lambda gift: [str(gift.study), "1"],
}


def run(command: str, gift: Gift, *options: str) -> int:
    module: Any = {"predict": predict, "dynamics": dynamics, "rerun": rerun}[command.split()[0]]
    return int(module.main([*COMMANDS[command](gift), *options]))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_not_run_code_that_came_with_results(
    gift: Gift, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, gift) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"code/{gift.sha256}.py: is code that came with results or a model" in line
    assert "--trust" in line
    assert not gift.marker.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_code_that_it_is_told_to_trust_and_later_without_being_told(
    gift: Gift, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(gift.study.parent.parent, tmp_path / "runs"))
    here = replace(gift, study=root / "studies" / gift.study.name)
    assert run(command, here, "--trust") == 0
    assert gift.marker.exists()
    forget(gift)
    monkeypatch.setenv(ACCEPTED, "")
    (tmp_path / "nve.csv").unlink(missing_ok=True)
    assert run(command, here) == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2), ("n\n", 2), ("", 2)])
def test_on_a_terminal_the_user_is_asked_once(
    gift: Gift,
    answer: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run("predict", gift) == code
    asked = capsys.readouterr().err
    assert gift.sha256 in asked
    assert f"less {gift.study.parent.parent}/code/" in asked
    assert gift.marker.exists() == (code == 0)
    if not code:
        assert run("predict", gift) == 0
        assert "Run it" not in capsys.readouterr().err


def test_a_calculator_runs_the_code_only_if_told(gift: Gift) -> None:
    with pytest.raises(UserError, match="trust=True"):
        StudyCalculator(gift.model)
    assert not gift.marker.exists()
    StudyCalculator(gift.model, trust=True)
    assert gift.marker.exists()


def test_a_model_in_mlflow_runs_the_code_only_if_the_environment_names_it(
    gift: Gift, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow has some of its own types
        from study.tracking.pyfunc_model import StudyModel

    context = SimpleNamespace(artifacts={"trained": str(gift.model)})
    with pytest.raises(UserError, match=f"{ACCEPTED}={gift.sha256}"):
        StudyModel().load_context(context)
    assert not gift.marker.exists()
    monkeypatch.setenv(ACCEPTED, gift.sha256)
    StudyModel().load_context(context)
    assert gift.marker.exists()


def test_what_reads_only_works_on_anything(gift: Gift, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--all"], ["--json"]):
        assert status.main([str(gift.study), *options]) == 0
        assert "pair" in capsys.readouterr().out
    assert not gift.marker.exists()


def test_a_space_that_names_a_file_accepts_it(gift: Gift, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes((gift.structure.parent / "moved.py").read_bytes())
    (tmp_path / "mine.yaml").write_text(example("mine.yaml"))
    load_space("mine.yaml", "quick")
    (written,) = (tmp_path / "settings").rglob("code.txt")
    assert written.read_text().startswith(f"{gift.sha256}  {tmp_path}/mine.py")
    assert written.stat().st_mode & 0o777 == 0o600
    assert run("predict", gift) == 0


def test_code_is_accepted_by_its_content_alone(gift: Gift, tmp_path: Path) -> None:
    accept(gift.sha256, "where it was\nbefore")
    other = tmp_path / "other.py"
    other.write_text("raise SystemExit\n")
    with pytest.raises(UserError, match="is code that came with"):
        load(str(other), hashlib.sha256(other.read_bytes()).hexdigest())
    for planned in ("", gift.sha256):
        with pytest.raises(UserError, match="is not the code that this was planned with"):
            load(str(other), planned)
    assert is_accepted(gift.sha256)
    assert not is_accepted("")


def test_a_list_of_accepted_code_in_which_others_can_write_does_not_count(
    gift: Gift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(gift.sha256, "here")
    monkeypatch.setenv(ACCEPTED, "")
    assert is_accepted(gift.sha256)
    (tmp_path / "settings" / "pretraining-study").chmod(0o777)
    assert not is_accepted(gift.sha256)


def test_a_module_beside_the_current_folder_is_not_imported_for_a_model(
    gift: Gift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unheard_of.py").write_bytes(b"open('ran', 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(UserError, match="is not the code that this was planned with"):
        load("unheard_of", gift.sha256)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("field", ["kind", "key"])
def test_a_job_of_another_name_than_ours_names_no_folder(gift: Gift, field: str) -> None:
    (trial, *_) = Journal(gift.study / "journal.jsonl", "").entries().values()
    written = trial.planned.work.to_json() | {field: "/../../outside"}
    with pytest.raises(ValueError, match="must name a job"):
        Job.from_json(written)


def test_workers_may_run_what_their_driver_may(gift: Gift) -> None:
    accept(gift.sha256, "here")
    assert gift.sha256 in os.environ[ACCEPTED]
