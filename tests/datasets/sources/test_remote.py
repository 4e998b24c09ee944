"""Data that lie elsewhere are copied once, known by their content, and refused in a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from study import data, run
from study.core.errors import UserError
from study.datasets.config import ASEFile
from study.datasets.frames import Frames
from study.datasets.prepare import prepare
from study.datasets.readers.ase_file import write
from study.datasets.sources import remote
from study.datasets.sources.remote import DOWNLOADS
from study.planning.study_changes import require_same_datasets
from study.planning.study_dir import StudyDir

ADDRESS = "memory://bucket/water.extxyz"


@pytest.fixture
def file(water: Frames, tmp_path: Path) -> Path:
    """Water as a file here."""
    path = tmp_path / "water.extxyz"
    write(water, path)
    return path


@pytest.fixture
def elsewhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """The same file at `ADDRESS`; how often it was copied is the length of `copied`."""
    filesystem = MemoryFileSystem()
    filesystem.pipe(ADDRESS, file.read_bytes())
    copied = filesystem.get_file

    def counted(*arguments: object, **options: object) -> None:
        filesystem.copies += 1
        copied(*arguments, **options)

    filesystem.copies = 0
    monkeypatch.setattr(filesystem, "get_file", counted)
    yield filesystem
    filesystem.rm_file(ADDRESS)
    forget()


def forget() -> None:
    """As a new process does."""
    remote._copies.clear()


def prepared(path: str, root: Path) -> Path:
    forget()
    return prepare(ASEFile(name="ase_file", path=path), root, 1, lambda _done, _all: None)


def test_a_file_elsewhere_is_the_same_data_as_its_copy_here(
    elsewhere: MemoryFileSystem, file: Path, tmp_path: Path
) -> None:
    here = prepared(str(file), tmp_path / "here")
    there = prepared(ADDRESS, tmp_path / "there")
    assert there.name == here.name
    assert Frames.load(there).content_hash() == Frames.load(here).content_hash()
    assert prepared(ADDRESS, tmp_path / "there") == there
    assert elsewhere.copies == 1


def test_another_content_elsewhere_is_another_data_set(
    elsewhere: MemoryFileSystem, water: Frames, file: Path, tmp_path: Path
) -> None:
    before = prepared(ADDRESS, tmp_path)
    write(water.select([*range(9)]), file)
    elsewhere.pipe(ADDRESS, file.read_bytes())
    after = prepared(ADDRESS, tmp_path)
    assert after != before
    assert len(Frames.load(after)) == 9


def test_a_change_elsewhere_leaves_the_copy_that_a_study_began_with_and_names_it(
    elsewhere: MemoryFileSystem, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, began = file.read_bytes(), prepared(ADDRESS, tmp_path)
    (copy,) = (tmp_path / DOWNLOADS).rglob("*.extxyz")
    elsewhere.pipe(ADDRESS, old.replace(b"O ", b"S "))
    after = prepared(ADDRESS, tmp_path)
    assert copy.read_bytes() == old
    study = StudyDir(tmp_path, "mine")
    monkeypatch.setattr(StudyDir, "has_begun", lambda _study: True)
    monkeypatch.setattr(StudyDir, "read", lambda _study: {"data": {began.name: "content"}})
    with pytest.raises(UserError, match=f"{began.name}.*{after.name}.*kept as {copy}\\)"):
        require_same_datasets(study, {after.name})
    assert prepared(str(copy), tmp_path) == began


def test_a_change_that_no_server_tells_leaves_the_copy_too(
    elsewhere: MemoryFileSystem, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = file.read_bytes(), file.read_bytes().replace(b"O ", b"S ")
    monkeypatch.setattr(elsewhere, "info", lambda _path: {"type": "file", "size": len(old)})
    for content in (old, new, old, new):
        elsewhere.pipe(ADDRESS, content)
        prepared(ADDRESS, tmp_path)
    copies = [each.read_bytes() for each in (tmp_path / DOWNLOADS).rglob("*.extxyz")]
    assert sorted(copies) == sorted([old, new])


def test_a_name_with_an_at_sign_is_no_login(
    elsewhere: MemoryFileSystem, file: Path, tmp_path: Path
) -> None:
    address = "memory://bucket/me@300K.extxyz"
    elsewhere.pipe(address, file.read_bytes())
    assert prepared(address, tmp_path) == prepared(str(file), tmp_path)
    elsewhere.rm_file(address)


def test_a_copy_that_somebody_changed_is_made_anew(
    elsewhere: MemoryFileSystem, file: Path, tmp_path: Path
) -> None:
    before = prepared(ADDRESS, tmp_path)
    (copy,) = (tmp_path / DOWNLOADS).rglob("*.extxyz")
    copy.write_text(copy.read_text().replace("O ", "S "))
    assert prepared(ADDRESS, tmp_path) == before
    assert copy.read_bytes() == file.read_bytes()
    assert elsewhere.copies == 2


def test_a_file_whose_server_tells_no_change_is_copied_by_each_process(
    elsewhere: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = elsewhere.info(ADDRESS)
    monkeypatch.setattr(elsewhere, "info", lambda _path: {"type": "file", "size": told["size"]})
    assert prepared(ADDRESS, tmp_path) == prepared(ADDRESS, tmp_path)
    assert elsewhere.copies == 2


def test_a_copy_is_offered_when_its_source_is_gone(file: Path, tmp_path: Path) -> None:
    address = f"file://{file}"
    prepared(address, tmp_path)
    (copy,) = (tmp_path / DOWNLOADS).rglob("*.extxyz")
    file.unlink()
    with pytest.raises(UserError, match=rf"no such file; .*; or go on with the copy, {copy}"):
        prepared(address, tmp_path)


def test_a_broken_copy_leaves_nothing(
    elsewhere: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "get_file", lambda _path, part, **_: Path(part).touch())
    with pytest.raises(UserError, match=r"cannot be read \(ConnectionError: got 0 of \d+ bytes\)"):
        prepared(ADDRESS, tmp_path)
    assert not [path for path in (tmp_path / DOWNLOADS).rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_server(
    elsewhere: MemoryFileSystem, tmp_path: Path
) -> None:
    del elsewhere
    (tmp_path / DOWNLOADS).touch()
    with pytest.raises(FileExistsError):
        prepared(ADDRESS, tmp_path)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("memory://bucket/ice.extxyz", "no such file"),
        ("memory://bucket", "must be one file, but is a folder"),
        ("unknown://bucket/water.extxyz", "Protocol not known: unknown"),
        ("absent://bucket/water.extxyz", "not installed: `pip install absentfs`"),
        ("ftp://me:hidden@host/water.extxyz", "without user, password or key"),
        ("https://host/water.extxyz?X-Amz-Signature=hidden", "without user, password or key"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_nothing_is_written(
    address: str,
    told: str,
    elsewhere: MemoryFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del elsewhere
    absent = {"class": "absentfs.core.AbsentFileSystem", "err": "Install absentfs"}
    monkeypatch.setitem(known_implementations, "absent", absent)
    out = tmp_path / "runs"
    assert run.main(["--space", "masking_ratio", "--data", address, "--out", str(out)]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(address.partition("?")[0].replace("me:hidden@", ""))
    assert told in line
    assert "hidden" not in line
    assert not out.exists()


def test_a_dry_run_reads_a_file_elsewhere_and_writes_nothing(
    elsewhere: MemoryFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del elsewhere
    out = tmp_path / "runs"
    options = ["--space", "masking_ratio", "--data", ADDRESS, "--set", "trial.split.by=frame"]
    options += ["--set", "trial.finetune.frames=4"]
    assert run.main([*options, "--out", str(out), "--dry-run", "--name", "mine"]) == 0
    assert ADDRESS in capsys.readouterr().out
    assert not out.exists()


def test_every_command_on_data_takes_an_address(
    elsewhere: MemoryFileSystem, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del elsewhere
    told = []
    for place in (ADDRESS, str(file)):
        assert data.main(["inspect", place]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert data.main(["import", ADDRESS, "--out", str(tmp_path / "runs")]) == 0
    assert f"dataset: {{name: ase_file, path: {ADDRESS}}}" in capsys.readouterr().out


def test_a_missing_file_of_this_machine_blames_no_network(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        remote.local(f"file://{tmp_path}/absent.extxyz", tmp_path / "downloads")
    assert "no such file; check the address" in str(caught.value)
    assert "network" not in str(caught.value)
