"""A command in a process of its own, forked from one that has imported what it needs."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS, WAIT = 10, 120
"""Of the processor, and of the clock on a busy machine, that a command may take."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: its exit code; none if a signal ended it.
        signal: which.
        seconds: of the processor that it took.
        memory: most that it held, MB.
        shown: all that it wrote.
    """

    code: int | None
    signal: int
    seconds: float
    memory: float
    shown: str

    @property
    def fault(self) -> str:
        """What no command may do; empty if it did none of it."""
        if self.signal in (signal.SIGKILL, signal.SIGXCPU):
            return "hang"
        if self.signal:
            return "crash"
        if "Traceback" in self.shown:
            return "traceback"
        return "memory" if self.memory > 1000 else ""


def in_child(command: Callable[[], int], folder: Path) -> Ended:
    """Run a function in a fork of this process.

    Args:
        command: returns an exit code.
        folder: the current one, in which its output is kept in a file as well.
    """
    shown = folder / ".shown"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(command, folder, shown)
    usage, status = _waited(child, started + WAIT)
    return Ended(
        code=os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        seconds=usage.ru_utime + usage.ru_stime,
        memory=usage.ru_maxrss / 1024,
        shown=shown.read_text(errors="replace") if shown.exists() else "",
    )


def _become(command: Callable[[], int], folder: Path, shown: Path) -> None:
    """End this process, a fork, with the exit code of the command."""
    code = 99
    with contextlib.suppress(BaseException):
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 1, SECONDS + 2))
        output = os.open(shown, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", encoding="ascii", errors="strict", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="ascii", errors="strict", closefd=False)
        code = _run(command)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as ended:
        # What argparse refuses ends so.
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 98


def _waited(child: int, end: float) -> tuple[resource.struct_rusage, int]:
    """Resources and status of a process, killed if it does not end in time."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return usage, status
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return usage, status
        time.sleep(0.005)
