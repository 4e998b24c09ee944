"""Paths that a user names: what is none is a line, and nothing is read without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.core.errors import UserError
from study.core.paths import LARGEST_TEXT, read_small_file, real_path


def test_a_path_is_followed_to_its_end_whether_it_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert real_path(tmp_path / "link" / "below") == tmp_path.resolve() / "target" / "below"


@pytest.mark.parametrize("name", ["loop", "loop/below", "a\0b"])
def test_what_is_no_path_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="cannot be read or written") as refused:
        real_path(tmp_path / name)
    assert "\n" not in str(refused.value)


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
