from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from study.doctor import CHECKS, main


def test_every_check_of_this_machine_ends_in_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.process_time()
    assert main(["--out", str(tmp_path / "runs"), "--json"]) == 0
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(findings) >= 15
    assert all(finding["fix"] for finding in findings if finding["state"] != "ok")
    assert {finding["check"] for finding in findings} == set(CHECKS)
    # Other tests may run beside this one; what this process itself takes does not depend on them.
    assert time.process_time() - started < 5
    assert list(tmp_path.iterdir()) == []
