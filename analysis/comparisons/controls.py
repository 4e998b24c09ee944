"""Each pretrained arm compared with its controls.

- scratch: the same finetuning without pretraining
- equal steps: scratch with as many optimizer steps as both stages have together
- equal compute: scratch at the compute that both stages took, as measured: by processor time where
  the study ran on CPUs, because wall time there is that of all who share them
- placebo: the same pretraining with random targets

Arms that start from earlier work or a foundation model have no equals in steps or compute, because
what these cost is not counted.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd

from analysis.comparisons.error_tables import CHANGE, by_seed, judged
from analysis.comparisons.labels import START
from analysis.comparisons.outcomes import family_size
from analysis.comparisons.quantities import Quantity
from analysis.comparisons.selection import column, only
from analysis.statistics.change import Change, paired_change

ALIKE = 0.1
"""Steps or compute that differ by less than this fraction count as equal."""
KINDS = ("scratch", "equal steps", "equal compute", "placebo")
NEEDED = (
    *("arm", "family", "setting", "variant", "task", "scratch", "placebo", "seed"),
    *("value", "steps", "compute", START),
)
"""Columns of trials that comparisons look at."""


def compare_with_controls(values: pd.DataFrame) -> pd.DataFrame:
    """Change of each pretrained arm against each of `KINDS`, with the intervals of its family.

    Args:
        values: trials of `planned` with a column `value`; see `final`.

    Returns:
        A row per arm and kind: arm, task, kind, reference, share (compute of the reference over
        that of the arm), and the columns of `CHANGE`; kinds without data are left out.
    """
    rows: list[dict[str, object]] = []
    changes = []
    family = family_size(values)
    values = only(values, NEEDED)
    for arm, group in values[~values.scratch & ~values.placebo].groupby("arm", sort=False):
        first = group.iloc[0]
        for kind, (reference, share, change) in changes_from_controls(str(arm), values).items():
            row = {"arm": arm, "task": first.task, "family": first.family, "kind": kind}
            rows.append(row | {"reference": reference, "share": share})
            changes.append(change)
    table = pd.DataFrame(rows, columns=["arm", "task", "family", "kind", "reference", "share"])
    return table.join(pd.DataFrame(judged(changes, family), columns=CHANGE))


def final(trials: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """Trials with the test error as `value`, in the unit of the quantity."""
    return trials.assign(value=trials[f"test_{quantity.name}"] * quantity.scale)


def changes_from_controls(arm: str, values: pd.DataFrame) -> dict[str, tuple[str, float, Change]]:
    """Per control of an arm: reference, its share of the arm's compute, and the change."""
    values = only(values, NEEDED)
    group = values[values.arm == arm]
    scratch = values[values.scratch & (values.family == group.family.iloc[0])]
    comparisons = {}
    for kind, other in {
        "scratch": scratch[scratch.setting == group.setting.iloc[0]],
        "equal steps": _equal_steps(group, scratch),
        "placebo": _placebo(group, values),
    }.items():
        if len(other):
            change = paired_change(by_seed(group, "value"), by_seed(other, "value"))
            comparisons[kind] = str(other.arm.iloc[0]), _share(other, group), change
    if column(group, START).notna().any():
        comparisons.pop("equal steps", None)
        return comparisons
    same = _equal_compute(group, scratch)
    if same is not None:
        comparisons["equal compute"] = same
    return {kind: comparisons[kind] for kind in KINDS if kind in comparisons}


def _equal_steps(group: pd.DataFrame, scratch: pd.DataFrame) -> pd.DataFrame:
    near = (scratch.steps / group.steps.median() - 1).abs()
    equal: pd.DataFrame = scratch[near == near[near < ALIKE].min()]
    return equal


def _placebo(group: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """The placebo of the same task, at the same ratio or noise if there is one."""
    alike = (values.setting == group.setting.iloc[0]) & (values.variant == group.variant.iloc[0])
    placebos = values[values.placebo & alike]
    task = str(group.task.iloc[0])
    exact, near = (placebos.task.map(like) == like(task) for like in (_real, _kind_of_task))
    candidates: pd.DataFrame = placebos[exact if exact.any() else near]
    return candidates[candidates.arm.isin(candidates.arm[:1])]


def _real(task: str) -> str:
    """The task whose targets a placebo replaces by random ones."""
    return task.replace(" placebo", "")


def _kind_of_task(task: str) -> str:
    """Name of a task without its size; of combined tasks the first."""
    return re.sub(r" [\d.]+", "", _real(task).partition(" + ")[0])


def _equal_compute(group: pd.DataFrame, scratch: pd.DataFrame) -> tuple[str, float, Change] | None:
    """Scratch at the arm's measured compute, between shorter and longer trainings.

    The error is interpolated seed by seed, linearly in the logarithms of error and compute;
    nothing is extrapolated. Where a scratch of one length diverged, so it did in between.
    """
    lengths = scratch.groupby("arm")["compute"].median().dropna().sort_values()
    spent = group["compute"].median()
    if len(lengths) < 2 or not lengths.iloc[0] <= spent <= lengths.iloc[-1] * (1 + ALIKE):
        return None
    errors = scratch.pivot_table(index="seed", columns="arm", values="value")
    errors = errors.reindex(columns=lengths.index)  # An arm may have no value at all.
    both = pd.concat([by_seed(group, "value"), errors], axis=1, join="inner").dropna()
    at = np.log(lengths.to_numpy(dtype=float))
    between = [
        math.exp(np.interp(math.log(spent), at, np.log(row)))
        if np.isfinite(row).all()
        else math.inf
        for row in both.iloc[:, 1:].to_numpy(dtype=float)
    ]
    share = float(min(1.0, lengths.iloc[-1] / spent))
    change = paired_change(both.iloc[:, 0], pd.Series(between, both.index))
    return " … ".join(map(str, lengths.index)), share, change


def _share(other: pd.DataFrame, group: pd.DataFrame) -> float:
    return float(other["compute"].median() / group["compute"].median())
