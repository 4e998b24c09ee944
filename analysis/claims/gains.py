"""How the gain of pretraining depends on a count: of labels, or of frames to pretrain on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparisons.error_tables import by_seed
from analysis.comparisons.labels import LABELS
from analysis.comparisons.selection import column
from analysis.statistics.change import Change, change_of, log_ratios

GAINS: dict[str, tuple[str, Callable[[Iterable[Any]], Any], Callable[[Iterable[Any]], Any]]] = {
    "labels": (LABELS, min, max),
    "upstream": ("pretrain.frames", max, min),
}
"""Measures of how the gain depends on a count: the column, its value and that compared with."""


def gain(
    measure: str, mine: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    """Compare gains at two values of a count by seed, within one kind of model."""
    name, here, there = GAINS[measure]
    recorded = pd.to_numeric(column(mine, name)).astype(float)
    counts = recorded.groupby(mine.arm).transform("max")  # One that diverged may lack it.
    kinds = column(mine, "model.name").astype(str)
    mine = mine[kinds == counts.groupby(kinds).nunique().idxmax()]
    gains: dict[Any, pd.Series[float]] = {}
    # Noisy Nodes are on both sides, if on any.
    others = values[(values.pretext == "") & values.auxiliary.isin(mine.auxiliary)]
    for number, group in mine.groupby(counts):
        same = others[others.setting == group.setting.iloc[0]]
        pair = pd.concat([by_seed(group, "value"), by_seed(same, "value")], axis=1, join="inner")
        gains[number] = log_ratios(pair.iloc[:, 0], pair.iloc[:, 1])
    if len(gains) < 2:
        return None, others
    both = pd.concat([gains[here(gains)], gains[there(gains)]], axis=1, join="inner")
    behind = pd.concat([mine, others[others.setting.isin(mine.setting)]])
    logs = np.subtract(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy())
    return change_of([float(log) for log in logs]), behind
