"""What a worker checks after every step: whether to stop, and that it does make steps."""

from __future__ import annotations

import faulthandler
import time
from pathlib import Path
from types import TracebackType
from typing import Self

RESET_EVERY = 1.0
"""Seconds between two watchdog resets."""


class Watchdog:
    """Kills a process that makes no step; called after each, it says whether training must stop.

    Args:
        stop_file: a file whose existence asks to stop.
        diagnosis: file that shows where the process hung, if it did.
        patience: seconds without a step after which it is killed, by a monotonic clock.
    """

    def __init__(self, stop_file: Path, diagnosis: Path, patience: float) -> None:
        self.stop_file, self.patience = stop_file, patience
        self._diagnosis = diagnosis.open("wb")
        self._last_reset = float("-inf")

    def __enter__(self) -> Self:
        """Wait for the first step: waiting for other work is no hanging."""
        return self

    @property
    def stop_requested(self) -> bool:
        """Whether work is asked to stop."""
        return self.stop_file.exists()

    def __call__(self) -> bool:
        """Note that a step is done; returns whether to stop."""
        now = time.monotonic()
        if now - self._last_reset > RESET_EVERY:
            self._last_reset = now
            faulthandler.dump_traceback_later(self.patience, exit=True, file=self._diagnosis)
        return self.stop_requested

    def __exit__(
        self, kind: type[BaseException] | None, problem: object, trace: TracebackType | None
    ) -> None:
        """Stop watching; the process may wait for more work."""
        faulthandler.cancel_dump_traceback_later()
        self._diagnosis.close()
