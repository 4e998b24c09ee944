"""After any fault at any step, the same command finishes the study as if nothing had happened.

`python -m tests.faults` tries every fault at every step.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.core import atomic_io
from study.scheduling import known_outcomes
from tests.faults import mini
from tests.faults.cases import Undisturbed, disk_fault, server_fault, undisturbed
from tests.faults.disk import KINDS, FaultyDisk, Killed, Kind

SEED = 6
DRAWN = 6
"""Steps of the study per kind of fault."""


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The study, run without any fault."""
    return undisturbed(tmp_path_factory.mktemp("faults"))


def drawn(steps: int, count: int, salt: str) -> list[int]:
    return sorted(random.Random(f"{SEED} {salt}").sample(range(steps), count))


def test_the_study_under_test_ends_in_every_way(usual: Undisturbed) -> None:
    ends = list(usual.ends.values())
    assert [ends.count(end) for end in ("completed", "stopped", "diverged")] == [3, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_the_disk_loses_and_doubles_nothing(usual: Undisturbed, kind: Kind) -> None:
    for at in drawn(usual.steps, DRAWN, kind):
        problems = disk_fault(usual, at, kind)
        assert not problems, f"{kind} at step {at}: {problems}"


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("error", [ConnectionError, Killed])
def test_a_lost_call_of_mlflow_loses_and_doubles_nothing(
    usual: Undisturbed, error: type[BaseException], *, done: bool
) -> None:
    for at in (*drawn(usual.calls - 3, DRAWN // 2, f"{error} {done}"), *range(-3, 0)):
        problems = server_fault(usual, at % usual.calls, error, done=done)
        assert not problems, f"{error.__name__} at call {at % usual.calls}: {problems}"


def nothing(*_: object) -> None:
    pass


def in_place(path: Path, writer: Callable[[Path], object]) -> None:
    atomic_io.make_folder(path.parent)
    atomic_io.disk.fill(path, writer)
    atomic_io.disk.sync(path)


def file_alone(disk: FaultyDisk, path: Path) -> None:
    if path.is_file():
        FORCE(disk, path)


def folder_alone(disk: FaultyDisk, path: Path) -> None:
    if path.is_dir():
        FORCE(disk, path)


FORCE = FaultyDisk.sync
MISTAKES: dict[str, tuple[Kind, Any, str, Any]] = {
    "temporary files stay": ("killed", atomic_io, "_remove_abandoned", nothing),
    "checkpoints stay": ("killed", known_outcomes, "delete_checkpoints", nothing),
    "files are written in place": ("torn", atomic_io, "write_with", in_place),
    "names are not forced to disk": ("power cut", FaultyDisk, "sync", file_alone),
    "contents are not forced to disk": ("power cut", FaultyDisk, "sync", folder_alone),
    "every trial is exempt": ("killed", mini.Hopeless, "should_prune", lambda *_: False),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_these_tests_find_a_mistake(
    usual: Undisturbed, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, owner, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(owner, name, wrong)
    late = mistake == "checkpoints stay"
    assert any(_wrong(usual, at, kind) for at in range(220 if late else 0, usual.steps))


def _wrong(usual: Undisturbed, at: int, kind: Kind) -> bool:
    try:
        return bool(disk_fault(usual, at, kind))
    except Exception:  # a study that cannot go on at all
        return True
