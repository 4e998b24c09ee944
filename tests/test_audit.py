"""The command that looks for known holes says what it found, and when it could not look."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from types import SimpleNamespace

import pytest

from tests import audit

SOUND = {"name": "sound", "version": "1", "vulns": []}
HOLED = {
    "name": "holed",
    "version": "2",
    "vulns": [{"id": "PYSEC-0-0", "fix_versions": ["3"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "own", "skip_reason": "not on the index"}


@pytest.mark.parametrize(
    ("packages", "code", "line"),
    [
        ([SOUND, UNKNOWN], 0, "not checked: own: not on the index"),
        ([SOUND, HOLED], 1, "holed 2: PYSEC-0-0, fixed in 3"),
        ([UNKNOWN], os.EX_UNAVAILABLE, "not checked: the database knows none of these packages"),
    ],
)
def test_each_advisory_and_each_unknown_package_is_a_line(
    packages: list[dict[str, object]], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.report(packages) == code
    assert line in capsys.readouterr().out.splitlines()


def test_without_network_nothing_counts_as_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = SimpleNamespace(stdout="", stderr="Traceback\nConnectionError: no route\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert audit.main([]) == os.EX_UNAVAILABLE
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "not checked: no network, or no advisory database (ConnectionError: no route)"


def test_without_pip_audit_nothing_counts_as_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert audit.main([]) == os.EX_UNAVAILABLE
    assert "pip install pip-audit" in capsys.readouterr().out
