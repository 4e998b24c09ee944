"""Whatever stops the writing of Parquet and HTML, each file is whole: the old one or the new."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.html.report_dir import ReportFolder
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from study.core.errors import UserError
from tests.faults.disk import KINDS, FaultyDisk, Killed, Kind, inserted

OLD, NEW = {"report.html": b"old" * 9000, "old.svg": b"old"}, {"report.html": b"new", "n.svg": b"n"}
Files = dict[str, bytes]
Write = Callable[[str], None]


@pytest.fixture
def write(tabulate: Callable[..., Study], scratch: Callable[..., Run], tmp_path: Path) -> Write:
    """Writes tables and a page of other pages' content, old or new."""

    def written(which: str) -> None:
        tabulate(*(scratch(number, number, 0.1) for number in range(1 + (which == "new"))))
        folder = ReportFolder(tmp_path / "report")
        for name, content in (NEW if which == "new" else OLD).items():
            folder.write(name, content)
        folder.close()

    return written


def files(root: Path) -> Files:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".tmp"
    }


@pytest.fixture
def states(write: Write, tmp_path: Path) -> tuple[Files, Files, int]:
    """All files before and after, and the steps of disk between."""
    write("old")
    old, disk = files(tmp_path), FaultyDisk()
    with inserted(disk):
        write("new")
    return old, files(tmp_path), disk.steps


def restored(root: Path, state: Files) -> None:
    for folder in ("tables", "report"):
        shutil.rmtree(root / folder)
    for name, content in state.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)


def faults(steps: int, kind: Kind) -> Iterator[FaultyDisk]:
    return (FaultyDisk(at, kind) for at in range(steps))


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_whole_after_any_fault_at_any_step(
    kind: Kind, write: Write, states: tuple[Files, Files, int], tmp_path: Path
) -> None:
    old, new, steps = states
    assert steps > 25
    for disk in faults(steps, kind):
        restored(tmp_path, old)
        # Tables of two exports are refused when they are read, see `test_analysis_export`.
        with inserted(disk), contextlib.suppress(Killed, OSError, UserError):
            write("new")
        assert disk.failed
        found = files(tmp_path)
        torn = {
            name for name, content in found.items() if content not in (old.get(name), new.get(name))
        }
        assert not torn, f"{kind} at step {disk.at}"
        assert not [name for name in old.keys() & new.keys() if name not in found]
        write("new")
        assert files(tmp_path) == new
        assert not list(tmp_path.rglob("*.tmp"))
