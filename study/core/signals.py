"""Graceful shutdown on Ctrl-C, on signals of a batch scheduler, and at a deadline."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

EXIT_FAILED, EXIT_USAGE_ERROR = 1, 2
"""Exit codes: a trial failed; wrong input."""

EXIT_UNFINISHED, EXIT_INTERRUPTED = 75, 130
"""Exit codes: stopped in time to be resumed (EX_TEMPFAIL), and interrupted by the user."""

STOPPING = "stopping after the current step; press Ctrl-C again to abort"

GRACE_PERIOD = 30.0
"""Seconds that running jobs have to write their checkpoints."""

FAULT_GRACE = 15.0
"""The same after a fault of the machine: checkpoints are hardly written then."""

MAX_DEADLINE = 366 * 86400.0
"""Longest time to a deadline, s: no process runs longer, and system timers are limited."""

RERAISE_DELAY = 0.05
"""Seconds after which an interrupt that was lost in a finalizer is raised again."""

ABORT_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that abort the process at once if another signal came before."""

HANDLED_SIGNALS = (*ABORT_SIGNALS, signal.SIGUSR1, signal.SIGALRM)


@dataclass
class ShutdownRequest:
    """The first signal that asked this process to stop, and how to stop it.

    Args:
        number: number of the signal; None if none came.
        request_stop: asks running jobs to stop; without it a signal raises KeyboardInterrupt.
        shown: whether a live display says `STOPPING` itself, which a line would tear.
        fault: what this machine does not do any more, so that no work can go on.
    """

    number: int | None = None
    request_stop: Callable[[], None] | None = None
    shown: bool = False
    fault: str = ""

    @property
    def stopping(self) -> bool:
        """Running jobs were asked to stop, and have not all done so."""
        return self.number is not None and self.request_stop is not None

    @property
    def requested(self) -> bool:
        """Whether work has to stop, for a signal or for a fault."""
        return self.number is not None or bool(self.fault)

    def fail(self, fault: str) -> None:
        """Stop for a fault of this machine as for a signal; `MachineError` is raised in the end."""
        if self.fault or self.request_stop is None:
            return
        self.fault = fault
        if self.number is None:
            signal.setitimer(signal.ITIMER_REAL, FAULT_GRACE)
            self.request_stop()

    @property
    def code(self) -> int:
        """Exit code: 75 after SLURM's warning or the deadline, which expect a rerun; else 130."""
        resumable = self.number in (signal.SIGUSR1, signal.SIGALRM)
        return EXIT_UNFINISHED if resumable else EXIT_INTERRUPTED

    @contextmanager
    def graceful_shutdown(self, request_stop: Callable[[], None]) -> Iterator[None]:
        """Call `request_stop` on a signal; raise KeyboardInterrupt at the end of the block.

        It is raised earlier if the block takes longer than `GRACE_PERIOD` to end.
        """
        self.request_stop = request_stop
        try:
            yield
        finally:
            self.request_stop = None
            # What follows a fault is not hurried: its line has to come.
            if self.fault and self.number is None:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if self.requested:
            raise KeyboardInterrupt

    def on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: stop in order at the first one, abort at a second."""
        requested = self.requested
        if self.number is not None and number in ABORT_SIGNALS:
            # A rerun cleans up what an abort leaves behind.
            os.write(2, b"aborted; rerun the same command to resume\n")
            os._exit(self.code)
        if not requested:
            self.number = number
            if self.request_stop is not None:
                if not self.shown:
                    os.write(2, f"{STOPPING}\n".encode())
                signal.setitimer(signal.ITIMER_REAL, GRACE_PERIOD)
                self.request_stop()
                return
        if not requested or number in (signal.SIGALRM, *ABORT_SIGNALS):
            raise KeyboardInterrupt


@contextmanager
def handle_signals(seconds: float | None) -> Iterator[ShutdownRequest]:
    """Handle the signals that stop a study, until the block ends.

    Args:
        seconds: time until the deadline, at which SIGALRM is raised; None for no deadline.
    """
    shutdown = ShutdownRequest()
    before = {number: signal.signal(number, shutdown.on_signal) for number in HANDLED_SIGNALS}
    signal.setitimer(signal.ITIMER_REAL, min(seconds or 0, MAX_DEADLINE))
    report = sys.unraisablehook

    def raise_again(problem: sys.UnraisableHookArgs) -> None:
        """Repeat an interrupt that Python discarded because it was raised in a finalizer."""
        if isinstance(problem.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, RERAISE_DELAY)
        else:
            report(problem)

    sys.unraisablehook = raise_again
    try:
        yield shutdown
    finally:
        sys.unraisablehook = report
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
