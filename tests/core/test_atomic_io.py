"""Files that survive crashes: whole old or whole new content, never a mixture."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import study
from study.core.atomic_io import (
    append_json,
    locked,
    read_hashed,
    read_json_lines,
    write_bytes,
    write_hashed,
    write_json,
    write_with,
)
from study.core.errors import UserError

LINES: list[dict[str, Any]] = [{"a": 1, "é": "x\ny"}, {"b": [1.5, None]}, {"c": "z\r"}, {}]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "value.json"
    write_json(path, {"σ": [1, 2.5], "a": None})
    assert json.loads(path.read_text()) == {"σ": [1, 2.5], "a": None}


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"a": 1, "b": 2})
    write_json(tmp_path / "two", {"b": 2, "a": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_new_content_replaces_the_old_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old and long")
    write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("problem", [OSError("disk full"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file_alone(
    problem: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def writer(temporary: Path) -> None:
        temporary.write_bytes(b"half of the n")
        raise problem

    with pytest.raises(type(problem)):
        write_with(path, writer)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_not_json_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "file", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"path": tmp_path})
    assert (tmp_path / "file").read_text() == "1\n"


def test_a_reader_sees_the_old_content_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    seen = []

    def writer(temporary: Path) -> None:
        temporary.write_bytes(b"new")
        seen.append(path.read_bytes())

    write_with(path, writer)
    assert seen == [b"old"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_files_get_the_usual_mode(tmp_path: Path) -> None:
    write_bytes(tmp_path / "durable", b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "durable").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_appended_lines_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    assert read_json_lines(path) == []
    for line in LINES:
        append_json(path, line)
    assert read_json_lines(path) == LINES


@pytest.fixture
def journal(tmp_path: Path) -> bytes:
    """Content of a journal of `LINES`."""
    for line in LINES:
        append_json(tmp_path / "whole", line)
    return (tmp_path / "whole").read_bytes()


def test_a_torn_last_line_is_left_out_wherever_it_is_torn(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "torn"
    for length in range(len(journal) + 1):
        path.write_bytes(journal[:length])
        assert read_json_lines(path) == LINES[: journal[:length].count(b"\n")]


def test_appending_after_a_torn_line_loses_no_whole_line(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "torn"
    for length in range(len(journal) + 1):
        path.write_bytes(journal[:length])
        append_json(path, {"d": "next"})
        assert read_json_lines(path) == [*LINES[: journal[:length].count(b"\n")], {"d": "next"}]


def test_the_temporary_file_of_a_killed_writer_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".result.json.0a1b2c3d.tmp").write_bytes(b"half of")
    write_bytes(tmp_path / "other", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_temporary_file_of_a_living_writer_stays(tmp_path: Path) -> None:
    def writer(temporary: Path) -> None:
        temporary.write_bytes(b"slow")
        write_bytes(tmp_path / "other", b"fast")

    write_with(tmp_path / "file", writer)
    assert (tmp_path / "file").read_bytes() == b"slow"


def test_a_file_that_cannot_be_opened_just_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_hashed(tmp_path, "epoch", ".bin", b"whole")

    def refuse(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        read_hashed(path)


def test_a_changed_line_is_left_out_and_the_user_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    for number in range(3):
        append_json(path, {"value": number})
    path.write_text(path.read_text().replace('"value": 1', '"value": 7'))
    assert read_json_lines(path) == [{"value": 0}, {"value": 2}]
    assert caplog.messages == [f"{path}:2: damaged line, skipped"]


def test_a_line_without_its_hash_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"value": 1}\n')
    assert read_json_lines(tmp_path / "journal.jsonl") == []


HOLD = """
import sys
from pathlib import Path
from study.core.atomic_io import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_of_another_process_is_refused_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    root = str(Path(study.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match="somebody works here"),
            locked(path, "somebody works here"),
        ):
            pytest.fail("two processes hold the lock")
        other.kill()
        other.wait(10)
        # A killed process holds nothing.
        with locked(path, "still busy"):
            pass


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "busy"):
        raise ZeroDivisionError
    with locked(tmp_path / "lock", "busy"):
        pass
