"""What a worker looks at after every step: whether to end, and that it does make steps."""

from __future__ import annotations

import faulthandler
import time
from pathlib import Path
from types import TracebackType
from typing import Self

SOONEST = 1.0
"""Seconds between two windings of the alarm."""


class Watch:
    """Ends a process that makes no step; called after each, it says whether training must end.

    Args:
        request: a file whose existence asks to end.
        diagnosis: file that shows where the process hung, if it did.
        patience: seconds without a step after which it is ended, by a clock that nobody sets.
    """

    def __init__(self, request: Path, diagnosis: Path, patience: float) -> None:
        self.request, self.patience = request, patience
        self._diagnosis = diagnosis.open("wb")
        self._wound_at = float("-inf")

    def __enter__(self) -> Self:
        """Waiting for other work is no hanging: the first call winds the alarm."""
        return self

    @property
    def asked(self) -> bool:
        """Whether work is asked to end."""
        return self.request.exists()

    def __call__(self) -> bool:
        """A step is done."""
        now = time.monotonic()
        if now - self._wound_at > SOONEST:
            self._wound_at = now
            faulthandler.dump_traceback_later(self.patience, exit=True, file=self._diagnosis)
        return self.asked

    def __exit__(
        self, kind: type[BaseException] | None, problem: object, trace: TracebackType | None
    ) -> None:
        """The work is over; its process may wait for more."""
        faulthandler.cancel_dump_traceback_later()
        self._diagnosis.close()
