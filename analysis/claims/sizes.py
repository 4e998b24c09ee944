"""Measures of claims on models of one kind and several sizes: not of gains, but of errors."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.comparisons.error_tables import by_seed
from analysis.comparisons.selection import column
from analysis.statistics.change import Change, paired_change

SIZE = "parameters"
"""Number of weights."""


def _scaling(mine: pd.DataFrame, values: pd.DataFrame) -> tuple[Change | None, pd.DataFrame]:
    """Compare the largest model with the smallest, both pretrained."""
    mine = _of_one_kind(mine)
    sizes = sorted(mine[SIZE].unique())
    if len(sizes) < 2:
        return None, values[:0]
    small, large = mine[mine[SIZE] == sizes[0]], mine[mine[SIZE] == sizes[-1]]
    return paired_change(by_seed(large, "value"), by_seed(small, "value")), mine


def _smaller(mine: pd.DataFrame, values: pd.DataFrame) -> tuple[Change | None, pd.DataFrame]:
    """Compare the second largest model after pretraining with the largest from scratch."""
    mine = _of_one_kind(mine)
    sizes = sorted(mine[SIZE].unique())
    scratch = values[(values.pretext == "") & values.auxiliary.isin(mine.auxiliary)]
    scratch = scratch[(scratch.model == mine.model.iloc[0]) & (scratch[SIZE] == sizes[-1])]
    if len(sizes) < 2 or scratch.empty:
        return None, values[:0]
    smaller = mine[mine[SIZE] == sizes[-2]]
    change = paired_change(by_seed(smaller, "value"), by_seed(scratch, "value"))
    return change, pd.concat([smaller, scratch])


def _of_one_kind(trials: pd.DataFrame) -> pd.DataFrame:
    """Select the kind of model that comes in most sizes."""
    recorded = pd.to_numeric(column(trials, SIZE)).astype(float)
    # A trial that diverged may lack it.
    sized = trials.assign(**{SIZE: recorded.groupby(trials.arm).transform("max")})
    kept: pd.DataFrame = sized[sized.model == sized.groupby("model")[SIZE].nunique().idxmax()]
    return kept


Compare = Callable[[pd.DataFrame, pd.DataFrame], tuple[Change | None, pd.DataFrame]]

SIZES: dict[str, Compare] = {"scaling": _scaling, "smaller": _smaller}
"""Measures that compare errors of models of several sizes."""
