"""How far something slow has come, in a terminal, a log or a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import IO, Any

from study.console.formatting import duration
from study.core.errors import printable
from study.core.paths import real_path
from study.core.records import without_password
from study.datasets.sources.remote import DOWNLOADS, local

WORTH_SHOWING = 10**7
"""Bytes; less comes at once."""

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


def fetch_data(place: Path | str, root: Path, *, keep: bool = True) -> None:
    """Copy data that lie elsewhere here, and show how far that has come; a path needs nothing.

    Args:
        place: path or address.
        root: folder of all work, for the copy.
        keep: whether it is for longer than this process.

    Raises:
        UserError: if they cannot be had.
    """
    if "://" not in str(place):
        return
    with progress_display(
        printable(f"fetching {without_password(str(place))}"), "MB", sys.stderr
    ) as progress:
        told = partial(_in_megabytes, progress)
        local(place, real_path(root) / DOWNLOADS, keep=keep, progress=told)


def _in_megabytes(progress: Callable[[int, int], None], done: int, total: int) -> None:
    if total >= WORTH_SHOWING:
        progress(done // 10**6, total // 10**6)


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


@dataclass
class StudyProgress:
    """How far a study has come, by its events as lines of JSON have them.

    Args:
        total: trials.
        shares: key of each trial that has begun -> share of its epochs that are done.
        label: what has reported last.
    """

    total: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    label: str = "starting"
    _epochs: dict[str, int] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> float:
        """Trials that are done, with the shares of those that run."""
        return sum(self.shares.values())

    def read(self, event: dict[str, Any]) -> None:
        """Take in an event."""
        kind, key = event["event"], event.get("key", "")
        if kind == "study":
            self.total = event["trials"]
        elif kind == "started":
            self._epochs[key] = event["epochs"]
            self.label = event["label"]
        elif kind == "epoch" and key in self._epochs:
            self.label = f"{event['label']}: epoch {event['epoch']} of {self._epochs[key]}"
            self._set(event, event["epoch"] / self._epochs[key])
        elif kind == "ended":
            self._set(event, 1.0)
        elif kind == "complete":
            # A search may have fewer trials than were planned at most.
            self.total = len(self.shares)

    def _set(self, event: dict[str, Any], share: float) -> None:
        if event["kind"] == "trial":
            self.shares[event["key"]] = share

    def text(self) -> str:
        """A line for people: trials, the time left at the pace so far, and what reported last."""
        ended = sum(share == 1 for share in self.shares.values())
        spent = time.monotonic() - self._began
        count = f"{ended} of {self.total} trials" if self.total else "no trial yet"
        if ended == self.total > 0:
            return f"{count}, {duration(spent)}"
        left = spent * (self.total / self.done - 1) if self.done else 0.0
        return f"{count}{f', {duration(left)} left' if left else ''}; {self.label}"


@contextmanager
def study_bar(*, shown: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A callback for a study's events that shows a bar over its trials, also in a notebook."""
    progress = StudyProgress()
    if not shown:
        yield progress.read
    elif in_notebook():
        yield _notebook_bar(progress)
    else:
        from rich.progress import BarColumn, Progress, TextColumn

        with Progress(BarColumn(), TextColumn("{task.description}")) as bar:
            task = bar.add_task(progress.label, total=None)

            def advance(event: dict[str, Any]) -> None:
                progress.read(event)
                total = progress.total or None
                bar.update(task, description=progress.text(), total=total, completed=progress.done)

            yield advance


def in_notebook() -> bool:
    """True in a kernel of Jupyter."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")


def _notebook_bar(progress: StudyProgress) -> Callable[[dict[str, Any]], None]:
    """A bar in a cell's output that needs no widgets, and stays when the notebook is saved."""
    from IPython.display import display

    def drawn() -> dict[str, str]:
        text = progress.text()
        bar = f'<progress value="{progress.done:.3f}" max="{progress.total or 1}"></progress>'
        return {"text/plain": text, "text/html": f"{bar} {escape(text)}"}

    handle, last = display(drawn(), raw=True, display_id=True), time.monotonic()

    def advance(event: dict[str, Any]) -> None:
        nonlocal last
        progress.read(event)
        # A fast study would flood the browser.
        if event["event"] != "epoch" or time.monotonic() - last > 0.5:
            last = time.monotonic()
            handle.update(drawn(), raw=True)

    return advance
