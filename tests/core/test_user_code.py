"""What the user's own code reads beside itself is seen, and told."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from study.core.hashing import OWN_FILES
from study.core.user_code import load

CODE = """\
import inspect, json, pathlib

HERE = pathlib.Path({folder!r})
TABLE = json.loads((HERE / "table.json").read_text())


def build():
    (HERE / "written.txt").write_text("mine")
    return (HERE / "at_build.txt").read_bytes(), inspect.getsource(json)
"""


def test_files_that_own_code_reads_are_hashed_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name in ("table.json", "at_build.txt", "ours.txt"):
        (tmp_path / name).write_text("[1]")
    (tmp_path / "mine.py").write_text(CODE.format(folder=str(tmp_path)))
    before = dict(OWN_FILES)
    with caplog.at_level(logging.WARNING, "study"):
        module, _ = load(str(tmp_path / "mine.py"))
        module.build()
        module.build()
        (tmp_path / "ours.txt").read_text()
    seen = {path: sha256 for path, sha256 in OWN_FILES.items() if path not in before}
    sha256 = hashlib.sha256(b"[1]").hexdigest()
    assert seen == {str(tmp_path / name): sha256 for name in ("table.json", "at_build.txt")}
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in told] == list(seen)
    for path in seen:
        del OWN_FILES[path]
