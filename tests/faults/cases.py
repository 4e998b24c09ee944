"""One fault at one step, the same command once more, and what is wrong then."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from study.core.errors import MachineError, UserError
from study.scheduling.journal import Journal
from study.space.search_space import Space
from tests.faults.disk import FaultyDisk, Killed, Kind, inserted
from tests.faults.invariants import check_invariants, check_runs
from tests.faults.mini import SLOTS, Mini, read_space
from tests.faults.server import Server


class Told(logging.Handler):
    """What the user was told."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect the lines that the user is told."""
    told, logger = Told(), logging.getLogger("study")
    logger.addHandler(told)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield told.lines
    finally:
        logger.removeHandler(told)
        logger.propagate = propagate


@dataclass(frozen=True)
class Undisturbed:
    """A run of the study without any fault.

    Args:
        space: of the study.
        folder: of this run, and of the others beside it.
        steps: of durable writes.
        calls: to MLflow.
        epochs: that were computed.
        ends: how each trial ended, by its key.
    """

    space: Space
    folder: Path
    steps: int
    calls: int
    epochs: int
    ends: dict[str, str]


def undisturbed(folder: Path) -> Undisturbed:
    """Run the study without any fault."""
    space, server, disk = read_space(folder), Server(), FaultyDisk()
    mini = Mini(space, folder / "undisturbed", server)
    with inserted(disk):
        journal = mini.run()
    epochs = sum(mini.trained.values())
    return Undisturbed(space, folder, disk.steps, server.calls, epochs, _ends(journal))


def disk_fault(usual: Undisturbed, at: int, kind: Kind) -> list[str]:
    """What is wrong after a fault of the disk and another run; a line each."""
    return _after_fault(usual, FaultyDisk(at, kind), Server(), lag=at % 10)


def server_fault(
    usual: Undisturbed, at: int, error: type[BaseException], *, done: bool
) -> list[str]:
    """What is wrong after MLflow did not answer once, or the driver died, and another run."""
    return _after_fault(usual, FaultyDisk(), Server(at, done=done, error=error))


def _after_fault(usual: Undisturbed, disk: FaultyDisk, server: Server, lag: int = 0) -> list[str]:
    mini = Mini(usual.space, usual.folder / "disturbed", server, lag)
    try:
        with listening() as told:
            disturb(mini, disk)
            problems = again(mini, usual)
        epochs = sum(mini.trained.values()) - usual.epochs
        if epochs > SLOTS:
            problems.append(f"{epochs} epochs were computed twice")
    finally:
        shutil.rmtree(mini.root, ignore_errors=True)
    return problems + [f"told of {line}" for line in told]


def disturb(mini: Mini, disk: FaultyDisk) -> None:
    """Run into the fault."""
    try:
        with inserted(disk):
            mini.run()
    except (Killed, OSError, UserError, MachineError):
        pass


def again(mini: Mini, usual: Undisturbed) -> list[str]:
    """What is wrong after the same command, run twice more; the second time changes nothing."""
    with inserted(FaultyDisk()):
        journal = mini.run()
        before = contents(mini.root)
        mini.run()
    problems = [f"{path} changed again" for path in before ^ contents(mini.root)]
    problems += check_invariants(mini.root, usual.folder / "undisturbed")
    runs = {name: (run.data.tags, run.info.status) for name, run in mini.server.runs.items()}
    problems += check_runs(runs, mini.server.points, mini.folder.journal, mini.root)
    if _ends(journal) != usual.ends:
        problems.append(f"trials ended as {_ends(journal)}")
    return problems


def contents(folder: Path) -> set[tuple[str, int, int]]:
    """Name, size and time of last change of every file but locks."""
    return {
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != "lock"
    }


def _ends(journal: Journal) -> dict[str, str]:
    entries = journal.entries().values()
    return {
        entry.planned.work.key: entry.result.status if entry.result else "" for entry in entries
    }
