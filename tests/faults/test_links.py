"""A results folder with a symbolic link in it: nothing is written where the link leads."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from study.core.atomic_io import append_json
from study.core.errors import exit_code
from study.space.search_space import Space
from tests.faults.disk import FaultyDisk, inserted
from tests.faults.mini import Mini, read_space
from tests.faults.server import Server

UNFINISHED = b'{"event": "started"}\nno newline at the end'


class WatchingDisk(FaultyDisk):
    """Remembers which files are written and which folders made."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Path] = []
        self.folders: list[Path] = []

    def make_folder(self, path: Path) -> None:
        self.folders.append(path)
        super().make_folder(path)

    def append(self, path: Path, length: int, content: bytes) -> None:
        self.files.append(path)
        super().append(path, length, content)

    def rename(self, source: Path, target: Path) -> None:
        (self.folders if source.is_dir() else self.files).append(target)
        super().rename(source, target)


def one_of_each_kind(places: list[Path], root: Path) -> list[Path]:
    """Of places that differ in hashes and numbers alone the first, relative to the root."""
    kinds: dict[str, Path] = {}
    for place in places:
        relative = place.relative_to(root)
        kinds.setdefault(re.sub(r"[0-9a-f]{8,}|\d+", "N", str(relative)), relative)
    return list(kinds.values())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, list[Path], list[Path]]:
    """The study, the files that it writes and locks, and its folders, without links."""
    folder = tmp_path_factory.mktemp("plain")
    space, disk, root = read_space(folder), WatchingDisk(), folder / "runs"
    with inserted(disk):
        Mini(space, root, Server()).run()
    locks = [path for path in root.rglob("*") if path.name == "lock" or path.suffix == ".lock"]
    folders = [path for path in disk.folders if path.is_relative_to(root) and path != root]
    # What the user has accepted is written down in the user's settings.
    files = [path for path in disk.files if path.is_relative_to(root)]
    return space, *(one_of_each_kind(each, root) for each in (files + locks, folders))


def outcome(
    space: Space,
    folder: Path,
    place: Path,
    make: Callable[[Path], None],
    link: Callable[[Path, Path], None] = Path.symlink_to,
) -> tuple[int, set[str]]:
    """Exit code of the study with a link in one place, and the reasons of its failed trials."""
    root, outside = folder / "runs", folder / "outside"
    failed: list[str] = []
    shutil.rmtree(root, ignore_errors=True)
    (root / place).parent.mkdir(parents=True)
    make(outside)
    link(root / place, outside)
    before = state(outside)

    def command() -> int:
        with inserted(FaultyDisk()):
            entries = Mini(space, root, Server()).run().entries().values()
        results = [entry.result for entry in entries if entry.result is not None]
        failed.extend(result.reason for result in results if result.status == "failed")
        return int(bool(failed))

    code = exit_code(command)
    assert state(outside) == before, place
    assert not any("\n" in reason for reason in failed)
    return code, set(failed)


def state(outside: Path) -> object:
    """All that is there: names, contents, times."""
    places = sorted(outside.rglob("*")) if outside.is_dir() else [outside]
    return [
        (place, place.stat().st_mtime_ns, place.read_bytes() if place.is_file() else b"")
        for place in (outside, *places)
        if place.exists()
    ]


def a_file(outside: Path) -> None:
    outside.write_bytes(UNFINISHED)


def a_journal(outside: Path) -> None:
    """Of a study that has begun; one of nothing but plans is deleted, not written to."""
    append_json(outside, {"event": "started"})
    outside.write_bytes(outside.read_bytes() + UNFINISHED)


def a_folder(outside: Path) -> None:
    outside.mkdir()
    (outside / "precious").write_bytes(UNFINISHED)
    (outside / ".old.0a1b2c3d.tmp").write_bytes(UNFINISHED)


def nothing(outside: Path) -> None:
    with suppress(FileNotFoundError):
        outside.unlink()


def test_the_walk_meets_every_kind_of_file(written: tuple[Space, list[Path], list[Path]]) -> None:
    _, files, folders = written
    names = {path.name if path.suffix != ".json" else "*.json" for path in files}
    assert {"journal.jsonl", "lock", "*.json", "temperatures.npy"} <= names
    assert {"data", "splits", "studies", "work"} <= {str(path) for path in folders}
    assert len(files) > 15


@pytest.mark.parametrize("make", [a_file, nothing])
def test_no_file_is_written_through_a_link(
    written: tuple[Space, list[Path], list[Path]],
    make: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space, files, _ = written
    for number, place in enumerate(files):
        folder = tmp_path / str(number)
        folder.mkdir()
        code, reasons = outcome(space, folder, place, make)
        lines = [*capsys.readouterr().err.splitlines(), *reasons]
        assert len(lines) == 1 or code < 2, (place, lines)
        assert bool(lines) == bool(code)
        assert all(str(folder / "runs" / place) in line for line in lines), (place, lines)


def test_no_file_is_changed_that_has_a_second_name(
    written: tuple[Space, list[Path], list[Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space, files, _ = written
    in_place = [path for path in files if path.name in ("lock", "journal.jsonl")]
    assert len(in_place) > 2
    for number, place in enumerate(in_place):
        folder = tmp_path / str(number)
        folder.mkdir()
        make = a_journal if place.suffix == ".jsonl" else a_file
        code, reasons = outcome(space, folder, place, make, Path.hardlink_to)
        (line,) = [*capsys.readouterr().err.splitlines(), *reasons]
        assert code
        assert (folder / "outside").stat().st_nlink == 2
        assert f"{folder / 'runs' / place}: has 2 names (hard links)" in line


def test_no_file_is_written_into_a_folder_that_is_a_link(
    written: tuple[Space, list[Path], list[Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space, _, folders = written
    for number, place in enumerate(folders):
        folder = tmp_path / str(number)
        folder.mkdir()
        code, reasons = outcome(space, folder, place, a_folder)
        lines = [*capsys.readouterr().err.splitlines(), *reasons]
        assert len(lines) == 1 or code < 2, (place, lines)
        assert bool(lines) == bool(code)
        assert all(str(folder / "runs" / place) in line for line in lines), (place, lines)


def test_a_journal_of_plans_alone_that_has_a_second_name_is_replaced(
    written: tuple[Space, list[Path], list[Path]], tmp_path: Path
) -> None:
    place = Path("studies", "mini", "journal.jsonl")
    assert outcome(written[0], tmp_path, place, a_file, Path.hardlink_to) == (0, set())
    assert (tmp_path / "outside").stat().st_nlink == 1


def test_a_journal_that_is_a_link_is_refused_before_anything_is_appended(
    written: tuple[Space, list[Path], list[Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, outside = tmp_path / "runs", tmp_path / "outside"
    mini = Mini(written[0], root, Server())
    with inserted(FaultyDisk()):
        lines = mini.run().path.read_bytes().splitlines(keepends=True)
        # Without its last results, and torn: such a line is cut off before the next is appended.
        outside.write_bytes(b"".join(lines[:4]) + UNFINISHED)
        mini.folder.journal.unlink()
        mini.folder.journal.symlink_to(outside)
        before = state(outside)
        assert exit_code(lambda: mini.run() and 0) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{mini.folder.journal}: is a symbolic link")
    assert state(outside) == before
