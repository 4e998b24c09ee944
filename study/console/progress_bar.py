"""How far something slow has come, in a terminal or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

# Rich is imported only for a terminal, so that help appears at once.


@contextmanager
def progress_display(
    label: str, unit: str = "pieces", stream: IO[str] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, all) that shows a bar in a terminal, else a line every ten seconds.

    Args:
        label: what is going on.
        unit: of the numbers.
        stream: where to show it; the standard output when left out.
    """
    out = stream or sys.stdout
    if not out.isatty():
        yield _plain_lines(label, unit, out)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(file=out)) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(label: str, unit: str, out: IO[str]) -> Callable[[int, int], None]:
    started, shown = time.monotonic(), float("-inf")

    def show(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= 10:
            shown = now
            out.write(f"{label}: {done}/{total} {unit}, {now - started:.0f} s\n")
            out.flush()

    return show
