"""The result of a study in one table: an arm per line, mean and spread over the seeds."""

from __future__ import annotations

from rich.table import Table

from study.core.records import METRICS
from study.planning.arms import DEFAULT_ERRORS, Arm

MOST_ARMS = 30


def result_table(found: list[Arm]) -> Table:
    """Test errors of every arm beside those of predicting nothing.

    Args:
        found: arms of the study; only the `MOST_ARMS` with most trials are shown.
    """
    table = Table(title="Test errors, mean ± s.d. over seeds", title_justify="left", box=None)
    first, second = next((arm.errors for arm in found if arm.completed), DEFAULT_ERRORS)
    table.add_column("arm")
    for name in ("trials", _head(first), "against\nscratch", _head(second)):
        table.add_column(name, justify="right")
    scratch = {arm.setting: arm for arm in found if arm.from_scratch}
    shown = found
    if len(found) > MOST_ARMS:
        shown = sorted(found, key=lambda arm: -len(arm.completed))[:MOST_ARMS]
    for arm in shown:
        table.add_row(
            arm.label,
            f"{len(arm.completed)}/{len(arm.results)}",
            arm.shown(f"test_{first}"),
            arm.change(scratch.get(arm.setting)),
            arm.shown(f"test_{second}"),
        )
    for label, arm in _one_per_data_set(found).items():
        table.add_row(
            f"{'zero force, mean energy' if first == 'force_rmse' else 'mean'}{label}",
            "",
            arm.shown(f"trivial_{first}"),
            "",
            arm.shown(f"trivial_{second}"),
            style="dim",
        )
    return table


def _head(error: str) -> str:
    """Head of a column: the error and its unit."""
    unit = METRICS[f"test_{error}"][0]
    what, _, kind = error.rpartition("_")
    return f"{what.replace('_', ' ')} {kind.upper()}\n{'m' * unit.startswith('eV')}{unit}"


def _one_per_data_set(found: list[Arm]) -> dict[str, Arm]:
    """A completed arm of each data set, by what to call it; nothing if there is only one set."""
    sets: dict[str, Arm] = {}
    for arm in found:
        names = [name for name in arm.settings if name.startswith("dataset.")]
        if arm.completed:
            sets.setdefault(str([arm.settings[name] for name in names]), arm)
    several = len(sets) > 1
    return {f", data of {arm.label}" * several: arm for arm in sets.values()}
