"""What the user sees while a study runs: a live table, or plain lines if there is no terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from study.console.formatting import duration, metric_title, with_unit, without_unit
from study.console.progress import ENDED, JobProgress, StudyProgress
from study.core.provenance import gpu_use
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Planned
from study.space.trial import Trial
from study.training.config import Stage

REFRESH_EVERY = 2.0
"""Seconds between two looks of the live table: with twenty rows one takes 12 ms of a core."""

PLAIN_EVERY = 30.0
"""Seconds between progress lines if there is no terminal."""

GPU_EVERY = 10.0
"""Seconds between questions to the GPUs' driver."""

MOST_WARNINGS = 3

ROWS = 12
"""Trials shown at once: the running ones and the latest others."""

UNBROKEN = 26
"""Characters of a trial's name that 80 columns have room for; longer ones wrap."""

STYLES = {"completed": "green", "stopped": "yellow", "diverged": "red", "failed": "red"}


class ProgressTable:
    """Follows a study on a console.

    Args:
        console: where to show it.
        metric: finetuning metric to show.
        expected: compute of all planned work, s.
        slots: trials at once.
        planned_trials: how many trials there will be.
        seconds_of: expected compute of a stage, s.
        names: of planned work by its key, if it has another than its label.
        every_epoch: whether to print each epoch if there is no terminal.
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
        self.console, self.metric, self.planned_trials = console, metric, planned_trials
        self.names, self.every_epoch = names, every_epoch
        self.progress = StudyProgress(metric, expected, slots, seconds_of)
        self.warnings: list[str] = []
        self.gpu_use, self.asked_gpus_at = "", -math.inf
        self.printed_at = time.monotonic()
        self.live = Live(
            console=console, refresh_per_second=1 / REFRESH_EVERY, get_renderable=self.render
        )

    def __enter__(self) -> ProgressTable:
        """Begin to show."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *problem: object) -> None:
        """Show the last state and leave it there."""
        if self.console.is_terminal:
            self.live.stop()

    def planned(self, planned: Planned) -> None:
        """Show nothing until work starts."""

    def started(self, work: Job, number: int | None) -> None:
        """Add a line."""
        del number
        self.progress.start(work)

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """Show an epoch."""
        line = self.progress.record(work, record)
        if self.every_epoch and not self.console.is_terminal:
            value, best = self._in_words(work, line.value), self._in_words(work, line.best)
            self.console.print(
                f"{self._name(work)}: epoch {line.epoch} of {line.epochs}, {value}, best {best}"
            )
        self._print_progress()

    def ended(self, work: Job, result: JobResult) -> None:
        """Show the last state."""
        line = self.progress.end(work, result)
        if line is None:
            return
        if result.status in ("diverged", "failed"):
            self.warnings.append(f"{self._name(work)} {result.status}: {result.reason}")
        if not self.console.is_terminal:
            best = self._in_words(line.job, line.best)
            self.console.print(
                f"{self._name(work)}: {result.status} after {line.epoch} of {line.epochs} epochs, "
                f"best {best}" + (f" ({result.reason})" if result.reason else ""),
                highlight=False,
            )

    def render(self) -> Group:
        """The live table with its summary and the latest warnings."""
        table = Table(box=None, pad_edge=False)
        rows = [(self._cells(line), line.status) for line in self._visible()]
        table.add_column("trial", no_wrap=all(len(cells[0]) <= UNBROKEN for cells, _ in rows))
        for name in ("stage", "epoch", metric_title(self.metric), "best", "ETA", "status"):
            table.add_column(name, justify="left" if name in ("stage", "status") else "right")
        for cells, status in rows:
            table.add_row(*cells, Text(status, style=STYLES.get(status, "")))
        # Cells wrap, where lines of their own would be cut off.
        warnings = Table.grid()
        warnings.add_column(overflow="fold", style="red")
        for warning in self.warnings[-MOST_WARNINGS:]:
            warnings.add_row(Text(f"! {warning}"))
        return Group(table, Text(self.summary()), warnings)

    def _cells(self, line: JobProgress) -> list[str]:
        return [
            self._name(line.job).removeprefix("pretrain "),
            line.job.stage,
            f"{line.epoch}/{line.epochs}",
            self._number(line.job, line.value),
            self._number(line.job, line.best).removeprefix("loss "),
            "" if line.seconds_left is None else duration(line.seconds_left),
        ]

    def _visible(self) -> Sequence[JobProgress]:
        lines = self.progress.jobs.values()
        running = [line for line in lines if line.status == "running"]
        others = [line for line in lines if line.status != "running"]
        return [*others[-max(1, ROWS - len(running)) :], *running]

    def summary(self) -> str:
        """The state of the whole study in a line."""
        return " · ".join(self._facts())

    def _facts(self) -> Iterator[str]:
        progress, states = self.progress, self.progress.states
        yield f"{sum(states[end] for end in ENDED)}/{self.planned_trials} trials done"
        if progress.running:
            yield f"{progress.running} running"
        for status in ("stopped", "diverged", "failed"):
            if states[status]:
                yield f"{states[status]} {status}"
        if pretrainings := progress.of("pretrain"):
            finished = sum(line.status == "completed" for line in pretrainings)
            yield f"{finished} pretrainings done"
        if progress.best is not None:
            yield f"best {with_unit(self.metric, progress.best)}"
        if progress.reused:
            yield f"{progress.reused} reused, {duration(progress.saved)} saved"
        if use := self._gpu_use():
            yield use
        if progress.seconds_left is not None and progress.running:
            yield f"ETA {duration(progress.seconds_left)}"

    def _print_progress(self) -> None:
        """Print the summary now and then if there is no terminal."""
        if self.console.is_terminal or time.monotonic() - self.printed_at < PLAIN_EVERY:
            return
        self.printed_at = time.monotonic()
        self.console.print(self.summary(), highlight=False)

    def _gpu_use(self) -> str:
        """Mean load and memory of the GPUs here, queried every ten seconds."""
        now = time.monotonic()
        if now - self.asked_gpus_at >= GPU_EVERY:
            self.asked_gpus_at, self.gpu_use = now, gpu_use()
        return self.gpu_use

    def _name(self, job: Job) -> str:
        return self.names.get(job.key, job.label)

    def _number(self, job: Job, value: float | None) -> str:
        """A value in the column of the metric; that of a pretraining is its loss."""
        if value is None or job.kind == "trial":
            return "–" if value is None else without_unit(self.metric, value)
        return f"loss {value:.3f}"

    def _in_words(self, job: Job, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.3f}" if job.kind == "pretrain" else with_unit(self.metric, value)
