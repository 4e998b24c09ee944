"""What a study measures of each claim."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from analysis.claims.claim import Finding
from analysis.comparisons.labels import LABELS
from analysis.comparisons.quantities import MILLI
from analysis.comparisons.selection import column
from analysis.comparisons.statistics import (
    CONTRADICTED,
    INCONCLUSIVE,
    LEVEL,
    REPRODUCED,
    TOO_FEW,
    fisher,
    proportion_interval,
    t_interval,
)
from analysis.comparisons.training_curves import begun
from analysis.formatting import number
from analysis.records.study_tables import Study


def _divergence(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    trials = begun(study)
    arms = trials[trials.arm.isin(mine.arm)]
    other = trials[trials.scratch & trials.setting.isin(mine.setting)]
    if other.empty:
        return None
    bad, reference = int(_failed(arms).sum()), int(_failed(other).sum())
    p = fisher(bad, len(arms), reference, len(other))
    told = f"{bad} of {len(arms)} against {reference} of {len(other)}"
    few = min(len(arms), len(other)) < base.statement.seeds
    said = TOO_FEW if few else REPRODUCED if p < 1 - LEVEL else INCONCLUSIVE
    told_of = replace(base, verdict=base.verdict or said, told=told)
    return resting_on(told_of, pd.concat([arms, other]))


def _failure(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    trials = begun(study)
    arms = trials[trials.arm.isin(mine.arm)]
    bad = int(_failed(arms).sum())
    low, high = proportion_interval(bad, len(arms))
    said = REPRODUCED if low > 0.5 else CONTRADICTED if high < 0.5 else INCONCLUSIVE
    said = TOO_FEW if len(arms) < base.statement.seeds else said
    told = f"{bad} of {len(arms)} diverged or collapsed"
    return resting_on(replace(base, verdict=base.verdict or said, told=told), arms)


def _level(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """The test error itself, by the t interval of its mean."""
    del study
    errors = MILLI * mine[f"test_{base.statement.quantity}"].astype(float)
    low, high = t_interval(errors.tolist())
    claim = base.statement.claim(base.scale)
    if math.isnan(claim.low):
        return None
    inside, outside = claim.low <= low and high <= claim.high, claim.excludes(low, high)
    said = REPRODUCED if inside else CONTRADICTED if outside else INCONCLUSIVE
    said = TOO_FEW if len(errors) < base.statement.seeds else said
    told = f"{number(errors.mean())} [{number(low)}, {number(high)}] meV/Å, n = {len(errors)}"
    return resting_on(replace(base, verdict=base.verdict or said, told=told), mine)


def _forces(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Size of the test frames' forces, which is the error of predicting none."""
    del study
    size = MILLI * float(mine.trivial_force_rmse.mean())
    return _measured(base, mine, size, f"{number(size)} meV/Å")


def _frames(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Frames of the whole data set, as far as trials finetune on all of their share."""
    del study
    whole = mine[pd.to_numeric(column(mine, LABELS)).isna()]
    parts = whole[["train_frames", "validation_frames", "test_frames"]].dropna()
    if parts.empty:
        return None
    frames = int(parts.sum(axis=1).iloc[0])
    return _measured(base, whole, frames, f"{frames} frames")


def _measured(base: Finding, trials: pd.DataFrame, value: float, told: str) -> Finding | None:
    """A number without an interval: in its band or not; no finding where there is no band."""
    claim = base.statement.claim(base.scale)
    if math.isnan(claim.low):
        return None
    said = REPRODUCED if claim.holds(value) else CONTRADICTED
    found = resting_on(replace(base, verdict=base.verdict or said, told=told), trials)
    return replace(found, keys=frozenset(trials.data_hash))


def resting_on(finding: Finding, trials: pd.DataFrame) -> Finding:
    """The finding with the runs that it rests on."""
    runs = tuple(sorted(trials.run_id))
    return replace(finding, run_ids=runs, keys=frozenset(trials.key))


OTHERWISE = {
    "divergence": _divergence,
    "failure": _failure,
    "level": _level,
    "forces": _forces,
    "frames": _frames,
}
"""Measures that are no change against something."""

OF_DATA = ("forces", "frames")
"""Those that no other data can stand in for."""

LEVELS = ("level", *OF_DATA)
"""Those whose band is of what they tell itself."""


def _failed(trials: pd.DataFrame) -> pd.Series[bool]:
    collapsed = trials.test_force_rmse >= 0.95 * trials.trivial_force_rmse
    return (trials.status == "diverged") | collapsed.fillna(value=False)
