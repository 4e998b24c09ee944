"""What ends a study before it is done: Ctrl-C, a scheduler's signals, a moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

EXIT_UNFINISHED, EXIT_INTERRUPTED = 75, 130

GRACE = 30.0
"""Seconds that running work has to write its checkpoints."""

LONGEST = 366 * 86400.0
"""Seconds: no process runs longer, and the system's timers cannot count to any year."""

SOON = 0.05
"""Seconds until an interrupt that was lost in a finalizer comes again."""

ABORT_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the process at once when another one came before."""
HANDLED_SIGNALS = (*ABORT_SIGNALS, signal.SIGUSR1, signal.SIGALRM)


@dataclass
class ShutdownRequest:
    """Which signal came first, and what it does.

    Args:
        number: of the signal; none if none came.
        ask: lets running work end in order; without it a signal raises KeyboardInterrupt.
    """

    number: int | None = None
    ask: Callable[[], None] | None = None

    @property
    def code(self) -> int:
        """Exit code: SLURM's warning and the moment ask to be continued, the others do not."""
        ends_in_time = self.number in (signal.SIGUSR1, signal.SIGALRM)
        return EXIT_UNFINISHED if ends_in_time else EXIT_INTERRUPTED

    @contextmanager
    def graceful_shutdown(self, ask: Callable[[], None]) -> Iterator[None]:
        """Let a signal call `ask` first; KeyboardInterrupt follows at the end, or after `GRACE`."""
        self.ask = ask
        try:
            yield
        finally:
            self.ask = None
        if self.number is not None:
            raise KeyboardInterrupt

    def on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        """What happens at a signal."""
        asked = self.number is not None
        if asked and number in ABORT_SIGNALS:
            # The same command tidies up what this leaves.
            os.write(2, b"aborted; the same command continues the study\n")
            os._exit(self.code)
        if not asked:
            self.number = number
            if self.ask is not None:
                os.write(2, b"ending after the step under way; Ctrl-C aborts at once\n")
                signal.setitimer(signal.ITIMER_REAL, GRACE)
                self.ask()
                return
        if not asked or number == signal.SIGALRM:
            raise KeyboardInterrupt


@contextmanager
def handle_signals(seconds: float | None) -> Iterator[ShutdownRequest]:
    """Heed the signals that end a study.

    Args:
        seconds: from now to the moment when the study has to end; none for no such moment.
    """
    ending = ShutdownRequest()
    before = {number: signal.signal(number, ending.on_signal) for number in HANDLED_SIGNALS}
    signal.setitimer(signal.ITIMER_REAL, min(seconds or 0, LONGEST))
    report = sys.unraisablehook

    def raise_again(problem: sys.UnraisableHookArgs) -> None:
        """No exception can leave a finalizer that a signal has interrupted."""
        if isinstance(problem.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, SOON)
        else:
            report(problem)

    sys.unraisablehook = raise_again
    try:
        yield ending
    finally:
        sys.unraisablehook = report
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
