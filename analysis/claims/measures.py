"""Measures of claims that are not the change of an error: rates, levels, sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from analysis.claims.claim import Finding
from analysis.comparisons.labels import LABELS
from analysis.comparisons.outcomes import Outcome, ended, family_size, planned
from analysis.comparisons.quantities import MILLI
from analysis.comparisons.selection import column
from analysis.comparisons.training_curves import COLLAPSED
from analysis.formatting import number
from analysis.records.study_tables import Study
from analysis.statistics.change import LEVEL, t_interval
from analysis.statistics.rates import fisher, paired_rates, proportion_interval, rate_verdict
from analysis.statistics.verdict import Verdict


def _divergence(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    trials = ended(study)
    arms = trials[trials.arm.isin(mine.arm)]
    other = trials[trials.scratch & trials.setting.isin(mine.setting)]
    if other.empty:
        return None
    bad, reference = int(_failed(arms).sum()), int(_failed(other).sum())
    p = _p_of_rates(arms, other, (bad, reference))
    effect = rate_verdict(bad / len(arms), reference / len(other), p, family_size(planned(study)))
    verdict = Verdict.INCONCLUSIVE
    if min(len(arms), len(other)) < base.statement.seeds:
        verdict = Verdict.TOO_FEW
    elif effect != Verdict.INCONCLUSIVE:
        as_claimed = effect == base.statement.direction
        verdict = Verdict.REPRODUCED if as_claimed else Verdict.CONTRADICTED
    text = f"{bad} of {len(arms)} vs. {reference} of {len(other)}"
    finding = replace(base, verdict=base.verdict or verdict, effect=effect, measured=text)
    return with_runs(finding, pd.concat([arms, other]))


def _p_of_rates(arms: pd.DataFrame, other: pd.DataFrame, bad: tuple[int, int]) -> float:
    """P of equal rates: paired by seed where it is one arm against one, else of all trials."""
    if arms.arm.nunique() > 1 or other.arm.nunique() > 1:
        return fisher(bad[0], len(arms), bad[1], len(other))
    sides = (rows.assign(bad=_failed(rows)).groupby("seed").bad.any() for rows in (arms, other))
    pairs = pd.concat(list(sides), axis=1, join="inner")
    return paired_rates(pairs.iloc[:, 0].tolist(), pairs.iloc[:, 1].tolist())


def _failure(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    trials = ended(study)
    arms = trials[trials.arm.isin(mine.arm)]
    bad = int(_failed(arms).sum())
    low, high = proportion_interval(bad, len(arms), 1 - (1 - LEVEL) / _family(study, mine))
    verdict = _by_interval(inside=low > 0.5, outside=high < 0.5)
    verdict = Verdict.TOO_FEW if len(arms) < base.statement.seeds else verdict
    text = f"{bad} of {len(arms)} diverged or collapsed"
    return with_runs(replace(base, verdict=base.verdict or verdict, measured=text), arms)


def _converges(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Judge whether fewer than half diverge or collapse: the reverse of `_failure`."""
    found = _failure(base, study, mine)
    reverse = {
        Verdict.REPRODUCED: Verdict.CONTRADICTED,
        Verdict.CONTRADICTED: Verdict.REPRODUCED,
    }
    if found is None or base.verdict:
        return found
    return replace(found, verdict=reverse.get(Verdict(found.verdict), found.verdict))


def _level(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    """Judge the test error itself, by the t interval of its mean; if none diverged."""
    errors = MILLI * mine[f"test_{base.statement.quantity}"].astype(float).dropna()
    failed = int(errors.eq(math.inf).sum())
    errors = errors[errors < math.inf]
    low, high = t_interval(errors.tolist(), 1 - (1 - LEVEL) / _family(study, mine))
    claim = base.statement.claim(base.scale)
    if math.isnan(claim.low):
        return None
    inside, outside = claim.low <= low and high <= claim.high, claim.excludes(low, high)
    verdict = Verdict.NO_VERDICT if failed else _by_interval(inside=inside, outside=outside)
    verdict = Verdict.TOO_FEW if len(errors) + failed < base.statement.seeds else verdict
    text = f"{number(errors.mean())} [{number(low)}, {number(high)}] meV/Å, n = {len(errors)}"
    text += f"; {failed} of {len(errors) + failed} diverged" if failed else ""
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
    verdict = Verdict.REPRODUCED if claim.holds(value) else Verdict.CONTRADICTED
    finding = replace(base, verdict=base.verdict or verdict, measured=text)
    return replace(with_runs(finding, trials), keys=frozenset(trials.data_hash))


def with_runs(finding: Finding, trials: pd.DataFrame) -> Finding:
    """Add the runs that a finding is based on."""
    runs = tuple(sorted(trials.run_id))
    return replace(finding, run_ids=runs, keys=frozenset(trials.key))


WITHOUT_CHANGE = {
    "divergence": _divergence,
    "failure": _failure,
    "converges": _converges,
    "level": _level,
    "forces": _forces,
    "frames": _frames,
}
"""Measures that are not a change relative to a reference."""

OF_DATA = ("forces", "frames")
"""Measures of the data set itself, for which no other data can stand in."""

LEVELS = ("level", *OF_DATA)
"""Measures whose band is of the measured number, not of a change."""


def _by_interval(*, inside: bool, outside: bool) -> Verdict:
    if inside:
        return Verdict.REPRODUCED
    return Verdict.CONTRADICTED if outside else Verdict.INCONCLUSIVE


def _family(study: Study, mine: pd.DataFrame) -> int:
    return family_size(planned(study), control=bool((mine.scratch | mine.placebo).all()))


def _failed(trials: pd.DataFrame) -> pd.Series[bool]:
    collapsed = trials.test_force_rmse >= COLLAPSED * trials.trivial_force_rmse
    return (trials.outcome == Outcome.DIVERGED).astype(bool) | collapsed.fillna(value=False)
