"""Paths that a user names: what is none is a line, and nothing is read without end."""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib import import_module
from pathlib import Path

import pytest

from study.core.errors import UserError
from study.core.paths import (
    LARGEST_TEXT,
    follow_links,
    path_of,
    private_folder,
    read_small_file,
    real_path,
    require_no_links,
    require_no_links_below,
)


def test_a_path_is_followed_to_its_end_whether_it_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert real_path(tmp_path / "link" / "below") == tmp_path.resolve() / "target" / "below"


@pytest.mark.parametrize("name", ["loop", "loop/below", "a\0b"])
def test_what_is_no_path_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="cannot be read or written") as refused:
        real_path(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_a_path_without_a_character_is_refused() -> None:
    assert path_of("a b") == Path("a b")
    for text in ("", " ", "\t"):
        with pytest.raises(argparse.ArgumentTypeError, match="must name a file or folder"):
            path_of(text)


@pytest.mark.parametrize("text", ["s3://bucket/runs", "file:///tmp/runs", "gs://b"])
def test_an_address_is_no_folder_called_s3(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: must be a path here"):
        path_of(text)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("study.run", ["--space", "masking_ratio", "--data", ""]),
        ("study.run", ["--space", "masking_ratio", "--out", ""]),
        ("study.data", ["inspect", ""]),
        ("study.data", ["import", ""]),
        ("study.predict", ["", "water.xyz"]),
        ("study.predict", ["model", ""]),
        ("study.dynamics", ["model", ""]),
        ("study.status", ["--out", ""]),
        ("study.doctor", ["--out", ""]),
        ("study.rerun", [""]),
        ("analysis.report", [""]),
        ("analysis.export", ["study", "--out", ""]),
        ("analysis.gates", [""]),
        ("analysis.dynamics", [""]),
    ],
)
def test_no_command_takes_an_empty_path_for_the_current_folder(
    command: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        import_module(command).main(options)
    assert (
        capsys.readouterr().err.splitlines()[-1].endswith("must name a file or folder, but got ''")
    )


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("study.run", ["--space", "masking_ratio", "--dry-run"]),
        ("study.status", []),
        ("study.doctor", []),
        ("study.data", ["verify"]),
    ],
)
def test_a_file_in_place_of_the_folder_of_results_is_one_line(
    command: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(SystemExit, match="2"):
        import_module(command).main([*options, "--out", str(tmp_path / "notes")])
    given = f"argument --out: {tmp_path / 'notes'} is a file; give a folder"
    assert capsys.readouterr().err == f"{given}\n"


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_small_file(tmp_path / "file", "a space") == b"content"


def test_what_never_ends_blocks_or_is_huge_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as opened:
        opened.truncate(LARGEST_TEXT + 1)
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path / "sparse", tmp_path):
        with pytest.raises(UserError):
            read_small_file(path, "a space")
    for path in (tmp_path / "none", Path("a\0b")):
        with pytest.raises(UserError, match="name a space"):
            read_small_file(path, "a space")


def test_a_link_anywhere_in_a_path_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    require_no_links(tmp_path / "target" / "new" / "file")
    for place in ("link", "link/file", "link/new/file", "target/../link/file"):
        with pytest.raises(UserError, match="/link: is a symbolic link"):
            require_no_links(tmp_path / place)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/usr/bin")
    with pytest.raises(UserError, match="/link: is a symbolic link"):
        require_no_links(tmp_path / "link" / ".." / "file")
    assert follow_links(tmp_path / "link" / "file") == Path("/usr/bin").resolve() / "file"


def test_a_path_without_a_link_stays_as_the_user_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert follow_links(Path("runs")) == Path("runs")


def test_a_link_below_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "1" / "run").mkdir(parents=True)
    require_no_links_below(tmp_path)
    (tmp_path / "1" / "run" / "artifacts").symlink_to("/")
    with pytest.raises(UserError, match="artifacts: is a symbolic link"):
        require_no_links_below(tmp_path)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where a private folder may lie: in the user's cache, else among temporary files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary = tmp_path / f"pretraining-study-{os.geteuid()}"
    return tmp_path / "cache" / "pretraining-study", temporary


def test_a_private_folder_lies_in_the_users_cache(places: tuple[Path, Path]) -> None:
    folder = private_folder("compiled")
    assert folder == places[0] / "compiled"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    assert private_folder("compiled") == folder


@pytest.mark.parametrize("below", [".", "compiled"])
def test_a_folder_in_which_others_can_write_is_not_used(
    places: tuple[Path, Path], below: str
) -> None:
    (places[0] / "compiled").mkdir(parents=True, mode=0o700)
    places[0].chmod(0o700)
    (places[0] / below).chmod(0o770)
    assert private_folder("compiled") == places[1] / "compiled"


def test_a_cache_that_is_a_link_or_no_folder_is_not_used(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    places[0].parent.mkdir()
    places[0].symlink_to(tmp_path / "elsewhere")
    assert private_folder("compiled") == places[1] / "compiled"
    places[0].unlink()
    places[0].write_bytes(b"")
    assert private_folder("compiled") == places[1] / "compiled"


def test_without_a_place_of_ones_own_there_is_none(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in places:
        (place / "compiled").mkdir(parents=True, mode=0o700)
    me = os.geteuid()
    places[1].rename(places[1].with_name(f"pretraining-study-{me + 1}"))
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert private_folder("compiled") is None
