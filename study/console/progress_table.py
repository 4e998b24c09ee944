"""What the user sees while a study runs: a live table, plain lines off a terminal, or JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from study.console.formatting import duration, with_unit
from study.core.provenance import gpu_use
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Planned
from study.space.trial import Trial
from study.training.config import Stage

REFRESHED = 2.0
"""Seconds between two looks of the live table: with twenty rows one takes 12 ms of a core."""

PLAIN_EVERY = 30.0
"""Seconds between progress lines off a terminal."""

GPU_EVERY = 10.0
"""Seconds between questions to the GPUs' driver."""

MOST_WARNINGS = 3

ROWS = 12
"""Trials shown at once: the running ones and the latest others."""

STYLES = {"completed": "green", "stopped": "yellow", "diverged": "red", "failed": "red"}


@dataclass
class _Line:
    """One piece of work on the screen."""

    work: Job
    expected: float
    epochs: int
    epoch: int = 0
    seconds: float = 0.0
    value: float | None = None
    best: float | None = None
    status: str = "running"
    new: bool = field(default=False)
    began: float = field(default_factory=time.monotonic)
    saved: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """To the end of a running stage, at its present speed."""
        if self.status != "running" or not self.epoch:
            return None
        return self.seconds / self.epoch * (self.epochs - self.epoch)

    @property
    def left(self) -> float:
        """Expected compute still to come, as a share of `expected`."""
        running = self.status == "running" and self.epochs > 0
        return 1 - self.epoch / self.epochs if running else 0.0


class Display:
    """Follows a study on a console.

    Args:
        console: where to show it.
        metric: finetuning metric to show.
        expected: compute of all planned work, s.
        slots: trials at once.
        planned_trials: how many trials there will be.
        seconds_of: expected compute of a stage, s.
        names: of planned work by its key, if it has another than its label.
        every_epoch: off a terminal, say each epoch.
    """

    def __init__(
        self,
        console: Console,
        metric: str,
        expected: float,
        slots: int,
        planned_trials: int,
        seconds_of: Callable[[Trial, Stage], float],
        names: Mapping[str, str],
        *,
        every_epoch: bool = False,
    ) -> None:
        self.console, self.metric, self.expected = console, metric, expected
        self.slots, self.planned_trials, self.seconds_of = slots, planned_trials, seconds_of
        self.names, self.every_epoch = names, every_epoch
        self.lines: dict[str, _Line] = {}
        self.warnings: list[str] = []
        self.reused, self.saved, self.shared = 0, 0.0, set[str]()
        self.gpu_use, self.asked_gpus_at = "", -math.inf
        self.spoke_at = time.monotonic()
        self.live = Live(
            console=console, refresh_per_second=1 / REFRESHED, get_renderable=self._render
        )

    def __enter__(self) -> Display:
        """Begin to show."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *problem: object) -> None:
        """Show the last state and leave it there."""
        if self.console.is_terminal:
            self.live.stop()

    def planned(self, planned: Planned) -> None:
        """Nothing to show until work starts."""

    def started(self, work: Job, number: int | None) -> None:
        """A new line."""
        del number
        seconds = 0.0 if work.start else self.seconds_of(work.trial, work.training)
        self.lines[work.key] = _Line(work, seconds, work.epochs)
        if work.pretraining is not None:
            self._note_shared(work.pretraining.key)

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """An epoch is done."""
        line = self.lines[work.key]
        before, line.seconds = line.seconds, record.metrics["seconds"]
        line.new = line.new or line.seconds > before
        line.epoch = record.epoch
        line.value = record.metrics.get(self.metric, record.metrics.get("val_loss"))
        if line.value is not None:
            line.best = line.value if line.best is None else min(line.best, line.value)
        if self.every_epoch and not self.console.is_terminal:
            now, best = self._shown(work, line.value), self._shown(work, line.best)
            self.console.print(
                f"{self._name(work)}: epoch {line.epoch} of {line.epochs}, {now}, best {best}"
            )
        self._speak()

    def ended(self, work: Job, result: JobResult) -> None:
        """Its last state."""
        line = self.lines.get(work.key)
        if line is None or line.status != "running":
            return
        line.status = result.status
        self._note_reused(line)
        if result.status in ("diverged", "failed"):
            self.warnings.append(f"{self._name(work)} {result.status}: {result.reason}")
        if not self.console.is_terminal:
            shown = self._shown(line.work, line.best)
            self.console.print(
                f"{self._name(work)}: {result.status} after {line.epoch} of {line.epochs} epochs, "
                f"best {shown}" + (f" ({result.reason})" if result.reason else ""),
                highlight=False,
            )

    def _note_shared(self, pretraining: str) -> None:
        """A pretraining that a second trial starts from has not run a second time."""
        if pretraining in self.shared and pretraining in self.lines:
            self.reused += 1
            self.saved += self.lines[pretraining].seconds
        self.shared.add(pretraining)

    def _note_reused(self, line: _Line) -> None:
        """Work that cost more than the time it has been here was done before."""
        saved = line.seconds - (time.monotonic() - line.began)
        if saved > 0.9 * line.seconds:
            self.reused += 1
        self.saved += max(0.0, saved)

    def _speak(self) -> None:
        if self.console.is_terminal or time.monotonic() - self.spoke_at < PLAIN_EVERY:
            return
        self.spoke_at = time.monotonic()
        self.console.print(self._summary(), highlight=False)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "stage", "epoch", "now", "best", "left", ""):
            table.add_column(name, justify="left" if name in ("trial", "stage", "") else "right")
        for line in self._visible():
            style = STYLES.get(line.status, "")
            table.add_row(
                self._name(line.work).removeprefix("pretrain "),
                line.work.stage,
                f"{line.epoch}/{line.epochs}",
                self._shown(line.work, line.value),
                self._shown(line.work, line.best),
                "" if line.seconds_left is None else duration(line.seconds_left),
                Text(line.status, style=style),
            )
        # Cells wrap, where lines of their own would be cut off.
        warnings = Table.grid()
        warnings.add_column(overflow="fold", style="red")
        for warning in self.warnings[-MOST_WARNINGS:]:
            warnings.add_row(Text(f"! {warning}"))
        return Group(table, Text(self._summary()), warnings)

    def _visible(self) -> Sequence[_Line]:
        running = [line for line in self.lines.values() if line.status == "running"]
        others = [line for line in self.lines.values() if line.status != "running"]
        return [*others[-max(1, ROWS - len(running)) :], *running]

    def _summary(self) -> str:
        trials = [line for line in self.lines.values() if line.work.kind == "trial"]
        pretrainings = [line for line in self.lines.values() if line.work.kind == "pretrain"]
        states = Counter(line.status for line in trials)
        done = sum(states[status] for status in STYLES)
        parts = [f"{done}/{self.planned_trials} trials done"]
        running = sum(line.status == "running" for line in self.lines.values())
        parts += [f"{running} running"] if running else []
        parts += [
            f"{states[status]} {status}"
            for status in ("stopped", "diverged", "failed")
            if states[status]
        ]
        finished = sum(line.status == "completed" for line in pretrainings)
        parts += [f"{finished} pretrainings done"] if pretrainings else []
        best = [line.best for line in trials if line.best is not None]
        parts += [f"best {self._shown(trials[0].work, min(best))}"] if best else []
        if self.reused:
            parts.append(f"{self.reused} reused, {duration(self.saved)} saved")
        parts += [use] if (use := self._gpu_use()) else []
        left = self._time_left()
        parts += [f"about {duration(left)} left"] if left is not None and running else []
        return " · ".join(parts)

    def _gpu_use(self) -> str:
        """Mean load and memory of the GPUs here, asked for every ten seconds."""
        now = time.monotonic()
        if now - self.asked_gpus_at >= GPU_EVERY:
            self.asked_gpus_at, self.gpu_use = now, gpu_use()
        return self.gpu_use

    def _time_left(self) -> float | None:
        """Remaining expected compute, corrected by what the epochs so far took."""
        fresh = [line for line in self.lines.values() if line.new]
        spent = sum(line.seconds for line in fresh)
        foreseen = sum(line.expected * line.epoch / line.epochs for line in fresh)
        if not foreseen:
            return None
        settled = sum(line.expected * (1 - line.left) for line in self.lines.values())
        return max(0.0, self.expected - settled) * spent / foreseen / self.slots

    def _name(self, work: Job) -> str:
        return self.names.get(work.key, work.label)

    def _shown(self, work: Job, value: float | None) -> str:
        if value is None:
            return "–"
        if work.kind == "pretrain":
            return f"{value:.3f}"
        return with_unit(self.metric, value)
