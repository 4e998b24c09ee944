"""The process table: which processes are a study's, how to hit them, and busy loops beside them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

MARK = "CHAOS_MARK"
"""Environment variable that all processes of a study inherit."""


def living(mark: str) -> list[psutil.Process]:
    """All processes whose mark begins like this: those of a place, or of one study there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(
                MARK, ""
            ).startswith(mark):
                found.append(process)
    return found


def named(mark: str, target: str) -> list[psutil.Process]:
    """A study's processes of one kind: worker, raylet, gcs or publisher."""
    return [process for process in living(mark) if _kind(process) == target]


def _kind(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        # It has none while it ends.
        command = process.cmdline() or [""]
        name, words = os.path.basename(command[0]), " ".join(command)  # noqa: PTH119
        if words.startswith("ray::") and not words.endswith(("IDLE", "Agent")):
            return "worker"
        if any(word.endswith(".publish") for word in command):
            return "publisher"
        return {"raylet": "raylet", "gcs_server": "gcs"}.get(name, "")
    return ""


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL, all at once."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def seconds_until_gone(mark: str, patience: float) -> float | None:
    """How long it takes until no process carries a mark; none if that takes longer."""
    began = time.monotonic()
    while living(mark):
        if time.monotonic() - began > patience:
            return None
        time.sleep(0.2)
    return time.monotonic() - began


class BusyLoops:
    """So many processes that take all the processor time they can get; they end with the context.

    Args:
        count: of them.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._loops: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> BusyLoops:
        # A loop whose parent is gone ends by itself.
        loop = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100000))"
        for _ in range(self.count):
            command = [sys.executable, "-S", "-c", loop]
            self._loops.append(subprocess.Popen(command, start_new_session=True))
        return self

    def __exit__(self, *problem: object) -> None:
        for loop in self._loops:
            loop.kill()
        for loop in self._loops:
            loop.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the machine to this process meanwhile."""
        self._send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        for loop in self._loops:
            loop.send_signal(number)
