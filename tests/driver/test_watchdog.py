"""A worker that makes no step is ended, and leaves a trace of where it hung."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from study.driver import watchdog

watchdog.RESET_EVERY = 0.0
folder = Path(sys.argv[1])

def stand_still():
    if sys.argv[2] == "hang":
        time.sleep(60)
    time.sleep(0.5)

with watchdog.Watchdog(folder / "stop", folder / "diagnosis.txt", 2.0) as alarm:
    if sys.argv[2] == "waits":
        time.sleep(2.5)
    time.time = lambda: 1e12
    for _ in range(5):
        assert not alarm()
        stand_still()
time.sleep(2.5 * (sys.argv[2] == "waits"))
"""


@pytest.mark.parametrize(("how", "code"), [("waits", 0), ("hang", 1)])
def test_only_a_process_that_makes_no_step_is_ended(tmp_path: Path, how: str, code: int) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path), how]
    assert subprocess.run(program, timeout=30, check=False).returncode == code
    diagnosis = (tmp_path / "diagnosis.txt").read_text()
    assert ("stand_still" in diagnosis) == (how == "hang")
