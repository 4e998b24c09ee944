"""What the user sees while a study runs: a live table, or plain lines if there is no terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from study.console.formatting import (
    brief_name,
    counted,
    duration,
    error_in,
    metric_title,
    with_unit,
    without_unit,
)
from study.console.progress import ENDED, JobProgress, StudyProgress
from study.core.errors import printable
from study.core.provenance import gpu_use
from study.core.records import EpochRecord, JobResult
from study.core.signals import STOPPING, ShutdownRequest
from study.pipeline.job import Job
from study.planning.arms import brief_member, names_of, searched_name
from study.scheduling.protocols import Planned
from study.space.trial import Trial
from study.training.config import Stage

REFRESH_EVERY = 1.0
"""Seconds between two looks of the live table: with twelve rows one takes 8 ms of a core."""

PLAIN_EVERY = 30.0
"""Seconds between progress lines if there is no terminal."""

GPU_EVERY = 10.0
"""Seconds between questions to the GPUs' driver."""

MOST_WARNINGS = 3

ROWS, OTHER_LINES = 12, 9
"""Trials shown at once, the running ones and the latest others, and lines of a window that the
summary, the heads, the warnings and the prompt take."""

STYLES = {
    "completed": "green",
    "paused": "yellow",
    "stopped": "yellow",
    "diverged": "red",
    "failed": "red",
}


class ProgressTable:
    """Follows a study on a console.

    Args:
        console: where to show it.
        metric: finetuning metric to show.
        expected: compute of all planned work, s.
        slots: trials at once.
        planned_trials: how many trials there will be.
        seconds_of: expected compute of a stage, s.
        names: of planned work by its key; work that a search proposes gets one when it starts.
        stop: what a signal does, which the live table acknowledges.
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
        stop: ShutdownRequest,
        *,
        every_epoch: bool = False,
    ) -> None:
        self.console, self.metric, self.planned_trials = console, metric, planned_trials
        self.names, self.stop, self.every_epoch = dict(names), stop, every_epoch
        self.numbers, self.searched = dict[str, int](), dict[str, None]()
        self.progress, self.is_search = StudyProgress(metric, expected, slots, seconds_of), False
        self.phase, self.warnings, self.errors = "", list[str](), set[str]()
        self.gpu_use, self.asked_gpus_at = "", -math.inf
        self.printed_at = time.monotonic()
        self.live = Live(
            console=console, refresh_per_second=1 / REFRESH_EVERY, get_renderable=self.render
        )

    def __enter__(self) -> ProgressTable:
        """Begin to show."""
        if self.console.is_terminal:
            self.live.start()
            self.stop.shown = True
        return self

    def __exit__(self, *problem: object) -> None:
        """Show the last state and leave it there."""
        self.phase = ""
        self.progress.pause()
        if self.console.is_terminal:
            self.stop.shown = False
            self.live.stop()

    def complete(self) -> None:
        """No more trials come: a search may have fewer than were planned at most."""
        self.planned_trials = len(self.progress.of("trial"))

    def say(self, phase: str) -> None:
        """Show what goes on before the first trial starts."""
        self.phase = phase
        if not self.console.is_terminal:
            self.console.print(phase)

    def planned(self, planned: Planned) -> None:
        """Learn what a trial is called: it shows when its work starts."""
        key = planned.work.key
        self.searched |= planned.searched
        self.is_search |= bool(planned.searched or planned.member)
        if planned.untuned is not None:
            self.names[key] = self.names.get(planned.untuned.key, planned.work.label)
        if planned.member is not None:
            self.names.setdefault(key, brief_member(planned))
            if planned.exempt:
                self.progress.tuning.add(key)
        elif planned.tuning:
            self.progress.tuning.add(key)
            name = self.names.get(key, planned.work.label)
            self.names[key] = f"{name.rpartition(', seed ')[0]}, tuning"

    def started(self, work: Job, number: int | None) -> None:
        """Add a line."""
        self.phase = ""
        if number is not None:
            self.numbers[work.key] = number
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
        reason = result.reason
        if error_in(reason) in self.errors:
            reason = "as above"
        elif result.status in ("diverged", "failed"):
            self.errors.add(error_in(reason))
            self.warnings.append(f"{self._name(work)} {result.status}: {reason}")
        if not self.console.is_terminal:
            best = self._in_words(line.job, line.best)
            self.console.print(
                f"{self._name(work)}: {result.status} after {line.epoch} of {line.epochs} epochs, "
                f"best {best}" + (f" ({reason})" if reason else ""),
                highlight=False,
            )

    def render(self) -> Group:
        """The summary, the live table and the latest warnings, never wider than the window."""
        lines = self._visible()
        names = self._names([line.job for line in lines])
        table = Table(box=None, pad_edge=False)
        # Rich takes width from columns that may wrap first: names are cut, figures never.
        table.add_column("trial", vertical="bottom")
        for head in ("progress", metric_title(self.metric).replace(" (", "\n("), "state"):
            table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
        for line in lines:
            progress = f"{line.job.stage} {line.epoch}/{line.epochs}"
            value = self._number(line.job, line.value)
            name = Text(names[line.job.key], no_wrap=True, overflow="ellipsis")
            table.add_row(name, progress, value, _state(line))
        # Cells of a table wrap, where the end of other lines is cut off.
        warnings = Table.grid()
        warnings.add_column(overflow="fold", style="red")
        for warning in self.warnings[-MOST_WARNINGS:]:
            warnings.add_row(Text(printable(f"! {warning}")))
        return Group(*self._summary_lines(), table if lines else "", warnings)

    def _summary_lines(self) -> list[Text]:
        """What goes on, the state of the study, and its best trial, a line each."""
        doing = STOPPING if self.stop.stopping else self.phase
        told = [(doing, "bold yellow"), (self.summary(), "bold"), (self._best(), "")]
        return [
            Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in told if text
        ]

    def _names(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Names of jobs; the model is named where it varies, and a proposal by its number."""
        found = {job.key: self._name(job) for job in jobs}
        unnamed = [job for job in jobs if job.key not in self.names]
        for kind in ("pretrain", "trial"):
            found |= names_of(job for job in unnamed if job.kind == kind)
        found = {key: name.removeprefix("pretrain ") for key, name in found.items()}
        models = {job.trial.model.name for job in jobs}
        if len(models) == 1:
            model = f"{models.pop()} "
            found = {key: name.removeprefix(model) for key, name in found.items()}
        for job in unnamed:
            if job.key in self.numbers:
                found[job.key] = f"#{self.numbers[job.key]} {found[job.key]}"
        if self.is_search:
            several = len({line.job.trial.seed for line in self.progress.jobs.values()}) > 1
            return {key: brief_name(name, several=several) for key, name in found.items()}
        return found

    def _visible(self) -> Sequence[JobProgress]:
        lines = self.progress.jobs.values()
        running = [line for line in lines if line.status == "running"]
        others = [line for line in lines if line.status != "running"]
        rows = max(2, min(ROWS, self.console.height - OTHER_LINES))
        return [*others[-max(1, rows - len(running)) :], *running[:rows]]

    def summary(self) -> str:
        """The state of the whole study in a line, the time left first."""
        return " · ".join(self._facts())

    def _facts(self) -> Iterator[str]:
        progress, states = self.progress, self.progress.states
        if progress.seconds_left is not None and progress.running:
            yield f"ETA {duration(progress.seconds_left)}"
        yield f"{sum(states[end] for end in ENDED)}/{self.planned_trials} trials done"
        if progress.running and not self.stop.stopping:
            yield f"{progress.running} running"
        for status in ("paused", "stopped", "diverged", "failed"):
            if states[status]:
                yield f"{states[status]} {status}"
        if pretrainings := progress.of("pretrain"):
            finished = sum(line.status == "completed" for line in pretrainings)
            yield f"{counted(finished, 'pretraining')} done"
        if progress.reused:
            yield f"{progress.reused} reused, {duration(progress.saved)} saved"
        if use := self._gpu_use():
            yield use

    def _best(self) -> str:
        """The best trial so far, and its error."""
        best = self.progress.best
        if best is None or best.best is None:
            return ""
        name = self._names([best.job])[best.job.key]
        title = metric_title(self.metric).partition(" (")[0]
        return f"best {title} {with_unit(self.metric, best.best)}: {name}"

    def _print_progress(self) -> None:
        """Print the summary now and then if there is no terminal."""
        if self.console.is_terminal or time.monotonic() - self.printed_at < PLAIN_EVERY:
            return
        self.printed_at = time.monotonic()
        told = " · ".join(part for part in (self.summary(), self._best()) if part)
        self.console.print(told, highlight=False)

    def _gpu_use(self) -> str:
        """Mean load and memory of the GPUs here, queried every ten seconds."""
        now = time.monotonic()
        if now - self.asked_gpus_at >= GPU_EVERY:
            self.asked_gpus_at, self.gpu_use = now, gpu_use()
        return self.gpu_use

    def _name(self, job: Job) -> str:
        return self.names.get(job.key) or searched_name(job, self.searched)

    def _number(self, job: Job, value: float | None) -> str:
        """A value in the column of the metric; that of a pretraining is its loss."""
        if value is None or job.kind == "trial":
            return "–" if value is None else without_unit(self.metric, value)
        return f"loss {value:.3f}"

    def _in_words(self, job: Job, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.3f}" if job.kind == "pretrain" else with_unit(self.metric, value)


def _state(line: JobProgress) -> Text:
    """How a job ended, or its time left."""
    if line.status != "running":
        return Text(line.status, STYLES.get(line.status, ""))
    left = line.seconds_left
    return Text("running" if left is None else f"{duration(left)} left")
