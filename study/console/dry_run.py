"""What `--dry-run` shows of a study: every arm, what of it is done, and the cost of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from rich.console import Console
from rich.table import Table

from study.console.formatting import duration
from study.console.json_lines import print_json_event
from study.console.plan_summary import parallel
from study.core.provenance import gpus, hardware
from study.datasets.config import DatasetConfig
from study.datasets.prepare import import_command
from study.pipeline.job import Job
from study.planning.arms import Arm, arms
from study.planning.cost_model import Cost
from study.planning.plan import Plan
from study.space.distributions import listed
from study.space.trial import Trial
from study.training.config import Stage

OVERHEAD = (8.0, 40.0)
"""Seconds that Ray, MLflow and the report add to the trials of a small study."""

MOST_ARMS = 30

Row = tuple[str, ...]


class DryRun:
    """Shows a plan without carrying it out.

    Args:
        plan: the plan.
        every_arm: list all arms, however many.
    """

    def __init__(self, plan: Plan, *, every_arm: bool = False) -> None:
        self.plan = plan
        self.shown = None if every_arm else MOST_ARMS
        resources = plan.space.settings.resources
        self.on_gpu = bool(gpus()) and resources.gpus > 0
        self.share = resources.total_gpus if self.on_gpu else resources.total_cpus

    def show(self, console: Console) -> None:
        """Show the arms of a grid with what of them is done, or what a search varies."""
        columns, rows = self._arms_in_words() if self.plan.grid else self._holes_in_words()
        table = Table(*columns, box=None)
        for row in rows[: self.shown]:
            table.add_row(*row)
        console.print(table)
        if len(rows) > table.row_count:
            console.print(f" and {len(rows) - table.row_count} more; list them with -v")

    def show_cost(self, console: Console, cost: Cost, source: str) -> None:
        """Show the cost of what is left to do.

        Args:
            console: where to show it.
            cost: what is left.
            source: how it is known.
        """
        if not any(cost.seconds):
            console.print("  compute  nothing left to do")
            return
        if self.unread:
            commands = (import_command(each, self.plan.root) for each in self._not_read)
            read = " and ".join(f"`{command}`" for command in commands)
            console.print(f"  compute  {self._unknown()}; do that first with {read}")
            return
        unit = "GPU" if self.on_gpu else "core"
        low, high = (_rounded(self.share * seconds / 3600) for seconds in cost.seconds)
        console.print(f"  compute  {low} to {high} {unit}-hours, {source}")
        self.show_time(console, cost)
        if cost.memory:
            used = f"{cost.memory / 1e9:.1f} GB per trial"
            console.print(f"  memory   about {used}{self._crowd(cost)}")
        disk = f"{cost.disk / 1e6:.0f} MB" if cost.disk < 1e9 else f"{cost.disk / 1e9:.1f} GB"
        console.print(f"  disk     about {disk}")

    def show_time(self, console: Console, cost: Cost) -> None:
        """Show how long that takes here."""
        if not any(cost.seconds):
            console.print("  time     nothing left to do")
            return
        making = self.plan.seconds_of_making
        low, high = (
            duration(seconds / self.plan.slots + making + overhead)
            for seconds, overhead in zip(cost.seconds, OVERHEAD, strict=True)
        )
        console.print(f"  time     {low} to {high}, {parallel(self.plan)}")

    def print_json(self, cost: Cost) -> None:
        """Print plan and cost as a JSON line, with all settings of all arms."""
        pretrainings = self.plan.pretraining_stages
        print_json_event(
            "plan",
            trials=self.plan.trials,
            tuning=len(self.plan.tuning),
            arms=[
                {"label": arm.label, "seeds": [*arm.trials], "settings": arm.settings}
                for arm in self.arms
            ],
            searched=dict(listed(self.plan.space.body)) if not self.plan.grid else {},
            pretrainings={
                "unique": len(pretrainings),
                "done": sum(self.plan.is_done(*stage) for stage in pretrainings),
            },
            seconds=cost.seconds,
            memory=cost.memory,
            disk=cost.disk,
            unread=self.unread,
        )

    @cached_property
    def arms(self) -> list[Arm]:
        """Trials of a grid that differ in their seed alone."""
        tune = self.plan.space.settings.tune
        works = ((Job("trial", trial, ""), None) for trial in self.plan.reported)
        return arms(works, tune.each_arm if tune else ())

    @cached_property
    def unread(self) -> list[str]:
        """Data sets whose size is not known, so that nobody can tell what the study costs."""
        return [each.label for each in self._not_read]

    @cached_property
    def _not_read(self) -> list[DatasetConfig]:
        return [each for each in self.plan.datasets if self.plan.sizes_of(each) is None]

    def _unknown(self) -> str:
        return f"not known before {' and '.join(self.unread)} is read"

    def _crowd(self, cost: Cost) -> str:
        """What to do if concurrent trials need more than this machine has, in words."""
        here, most = hardware()["memory_gb"] * 2**30, self.plan.slots
        if self.on_gpu or most * cost.memory <= here:
            return ""
        has = f"this machine has {here / 1e9:.1f} GB"
        fitting = int(here / cost.memory)
        if not fitting:
            return f", but {has}"
        needed = f"{most * cost.memory / 1e9:.1f} GB for {most} at a time"
        slower = f"{fitting} at a time takes {most / fitting:.2g} times as long"
        return f", {needed}, but {has}; {slower}: --max-concurrent {fitting}"

    def _holes_in_words(self) -> tuple[Row, list[Row]]:
        return ("searched", "values"), [*listed(self.plan.space.body)]

    def _arms_in_words(self) -> tuple[Row, list[Row]]:
        rows: list[Row] = []
        tuned = self._tuned()
        for arm in self.arms:
            trials = list(arm.trials.values())
            pretrained = [(trial, trial.pretraining) for trial in trials if trial.pretraining]
            seeds = ", ".join(map(str, arm.trials))
            finetuned = self._done([(trial, trial.finetune) for trial in trials])
            told = tuned[self.plan.arm_of(trials[0])] if tuned else ()
            rows.append((arm.label, *told, seeds, finetuned, self._done(pretrained)))
        return ("arm", *(("tuned",) if tuned else ()), "seeds", "finetuned", "pretrained"), rows

    def _tuned(self) -> dict[str, tuple[str]]:
        """How many tuning trials of each arm are done, of how many."""
        stages: dict[str, list[tuple[Trial, Stage]]] = {}
        for trial in self.plan.tuning:
            stages.setdefault(self.plan.arm_of(trial), []).append((trial, trial.finetune))
        return {arm: (self._done(those),) for arm, those in stages.items()}

    def _done(self, stages: Sequence[tuple[Trial, Stage]]) -> str:
        done = sum(self.plan.is_done(*stage) for stage in stages)
        return f"{done} of {len(stages)}" if stages else ""


def _rounded(hours: float) -> str:
    """To two digits."""
    return f"{hours:.2g}" if hours < 99.5 else f"{float(f'{hours:.2g}'):,.0f}"
