"""The result of a study in one table: an arm per line, mean and spread over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table

from study.identity import digest
from study.records import WorkResult
from study.work import Work

MOST_ARMS = 30


@dataclass
class Arm:
    """Trials that differ in their seed alone."""

    work: Work
    results: list[WorkResult] = field(default_factory=list)

    @property
    def completed(self) -> list[WorkResult]:
        """Results that count."""
        return [result for result in self.results if result.status == "completed"]

    def mean(self, metric: str) -> float:
        """Over the completed trials; infinite without any."""
        values = [result.metrics[metric] for result in self.completed]
        return statistics.mean(values) if values else float("inf")

    def shown(self, metric: str) -> str:
        """Mean ± standard deviation over the seeds, in thousandths of the metric's unit."""
        values = [1000 * result.metrics[metric] for result in self.completed]
        if not values:
            return "–"
        spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.4g}{spread}"

    def change(self, baseline: Arm | None) -> str:
        """Of the mean test force error against the baseline, in per cent."""
        if baseline is None or baseline is self or not self.completed or not baseline.completed:
            return ""
        ratio = self.mean("test_force_rmse") / baseline.mean("test_force_rmse")
        return f"{100 * (ratio - 1):+.1f} %"


def arms(ended: Iterable[tuple[Work, WorkResult]]) -> list[Arm]:
    """Group trials by everything but the seed, in order of appearance."""
    grouped: dict[str, Arm] = {}
    for work, result in ended:
        settings = {key: value for key, value in work.settings.items() if key != "seed"}
        grouped.setdefault(digest(settings), Arm(work)).results.append(result)
    return list(grouped.values())


def result_table(found: list[Arm], names: dict[str, str]) -> Table:
    """Test errors of every arm beside those of predicting nothing.

    Args:
        found: arms of the study; only the `MOST_ARMS` with most trials are shown.
        names: what else distinguishes a trial, by its key: a search's proposals.
    """
    table = Table(title="Test errors, mean ± s.d. over seeds", title_justify="left", box=None)
    table.add_column("arm")
    for name in ("trials", "force RMSE\nmeV/Å", "against\nscratch", "energy RMSE\nmeV/atom"):
        table.add_column(name, justify="right")
    baseline = next((arm for arm in found if arm.work.trial.pretrain is None), None)
    shown = found if not names else sorted(found, key=lambda arm: -len(arm.completed))
    for arm in shown[:MOST_ARMS]:
        table.add_row(
            arm.work.label.rpartition(",")[0] + names.get(arm.work.key, ""),
            f"{len(arm.completed)}/{len(arm.results)}",
            arm.shown("test_force_rmse"),
            arm.change(baseline),
            arm.shown("test_energy_rmse"),
        )
    trivial = next((arm for arm in found if arm.completed), None)
    if trivial is not None:
        table.add_row(
            "zero force, mean energy",
            "",
            trivial.shown("trivial_force_rmse"),
            "",
            trivial.shown("trivial_energy_rmse"),
            style="dim",
        )
    return table
