"""Measures of claims that are not the change of an error: rates, levels, sizes."""

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
    text = f"{bad} of {len(arms)} vs. {reference} of {len(other)}"
    few = min(len(arms), len(other)) < base.statement.seeds
    verdict = TOO_FEW if few else REPRODUCED if p < 1 - LEVEL else INCONCLUSIVE
    finding = replace(base, verdict=base.verdict or verdict, measured=text)
    return with_runs(finding, pd.concat([arms, other]))


def _failure(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    trials = begun(study)
    arms = trials[trials.arm.isin(mine.arm)]
    bad = int(_failed(arms).sum())
    low, high = proportion_interval(bad, len(arms))
    verdict = REPRODUCED if low > 0.5 else CONTRADICTED if high < 0.5 else INCONCLUSIVE
    verdict = TOO_FEW if len(arms) < base.statement.seeds else verdict
    text = f"{bad} of {len(arms)} diverged or collapsed"
    return with_runs(replace(base, verdict=base.verdict or verdict, measured=text), arms)


def _level(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Judge the test error itself, by the t interval of its mean."""
    del study
    errors = MILLI * mine[f"test_{base.statement.quantity}"].astype(float)
    low, high = t_interval(errors.tolist())
    claim = base.statement.claim(base.scale)
    if math.isnan(claim.low):
        return None
    inside, outside = claim.low <= low and high <= claim.high, claim.excludes(low, high)
    verdict = REPRODUCED if inside else CONTRADICTED if outside else INCONCLUSIVE
    verdict = TOO_FEW if len(errors) < base.statement.seeds else verdict
    text = f"{number(errors.mean())} [{number(low)}, {number(high)}] meV/Å, n = {len(errors)}"
    return with_runs(replace(base, verdict=base.verdict or verdict, measured=text), mine)


def _forces(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Judge the size of the test frames' forces, which is the error of predicting zero."""
    del study
    size = MILLI * float(mine.trivial_force_rmse.mean())
    return _measured(base, mine, size, f"{number(size)} meV/Å")


def _frames(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Judge the number of frames, from trials that finetune on all their training frames."""
    del study
    whole = mine[pd.to_numeric(column(mine, LABELS)).isna()]
    parts = whole[["train_frames", "validation_frames", "test_frames"]].dropna()
    if parts.empty:
        return None
    frames = int(parts.sum(axis=1).iloc[0])
    return _measured(base, whole, frames, f"{frames} frames")


def _measured(base: Finding, trials: pd.DataFrame, value: float, text: str) -> Finding | None:
    """Judge a number without an interval: is it in its band? None where there is no band."""
    claim = base.statement.claim(base.scale)
    if math.isnan(claim.low):
        return None
    verdict = REPRODUCED if claim.holds(value) else CONTRADICTED
    finding = replace(base, verdict=base.verdict or verdict, measured=text)
    return replace(with_runs(finding, trials), keys=frozenset(trials.data_hash))


def with_runs(finding: Finding, trials: pd.DataFrame) -> Finding:
    """Add the runs that a finding is based on."""
    runs = tuple(sorted(trials.run_id))
    return replace(finding, run_ids=runs, keys=frozenset(trials.key))


WITHOUT_CHANGE = {
    "divergence": _divergence,
    "failure": _failure,
    "level": _level,
    "forces": _forces,
    "frames": _frames,
}
"""Measures that are not a change relative to a reference."""

OF_DATA = ("forces", "frames")
"""Measures of the data set itself, for which no other data can stand in."""

LEVELS = ("level", *OF_DATA)
"""Measures whose band is of the measured number, not of a change."""


def _failed(trials: pd.DataFrame) -> pd.Series[bool]:
    collapsed = trials.test_force_rmse >= 0.95 * trials.trivial_force_rmse
    return (trials.status == "diverged") | collapsed.fillna(value=False)
