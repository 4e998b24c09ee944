"""The papers' claims, `claims.yaml`, and what studies say of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.arms import arms, column, compared
from analysis.claimed import (
    Statement,
    chosen,
    compared_as,
    content,
    equal,
    measured,
)
from analysis.labels import LABELS, data_label
from analysis.load import Study
from analysis.quantities import MILLI, quantities
from analysis.statistics import (
    CONTRADICTED,
    INCONCLUSIVE,
    LEVEL,
    REPRODUCED,
    TOO_FEW,
    Change,
    fisher,
    holm,
    judge,
    proportion_interval,
    seeds_needed,
    t_interval,
)
from analysis.training_curves import begun
from analysis.words import listed, number

NOT_RUN, OTHER_DATA = "not run", "different data"
WATERS = ("tip3p_water", "rpbe_water")
NO_CHANGE = Change(0, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Finding:
    """What one study says of a statement.

    Args:
        statement: the claim.
        verdict: in the words of `judge`, or not run, or different data.
        reason: why there is no verdict, or what else it rests on.
        study: name of the study.
        scale: full (the paper's profile) or reduced.
        change: of the arm against what it is claimed to beat.
        told: the finding where it is no change.
        reading: which of the paper's readings the trials used.
        needed: seeds that the claim would need, at the spread that was found.
        run_ids: MLflow runs behind the numbers.
        keys: hashes of that work, or of the data; studies that share it share the finding.
    """

    statement: Statement
    verdict: str
    reason: str = ""
    study: str = ""
    scale: str = ""
    change: Change = NO_CHANGE
    told: str = ""
    reading: str = ""
    needed: int | None = None
    run_ids: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()


def statements() -> list[Statement]:
    """All claims, in the order of the papers."""
    return [Statement(**entry) for entry in content()["claims"]]


def findings(studies: Sequence[Study]) -> list[Finding]:
    """What the studies say of each statement; several rows where several studies do.

    Holm's correction is over the statements of one place of a paper that one study tests. Studies
    that rest on the very same work are told together, with the verdict of the first.
    """
    by_study = {id(study): _findings(study) for study in studies}
    rows = []
    for statement in statements():
        told = [found[statement.id] for found in by_study.values() if statement.id in found]
        rows += _shared(told) or [Finding(statement, NOT_RUN, _missing(statement))]
    return rows


def _shared(told: Sequence[Finding]) -> list[Finding]:
    first: dict[frozenset[str], Finding] = {}
    for finding in told:
        known = first.get(finding.keys)
        names = finding.study if known is None else f"{known.study}, {finding.study}"
        first[finding.keys] = replace(known or finding, study=names)
    return list(first.values())


def findings_table(found: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table, one row each, in %."""
    return pd.DataFrame(
        [
            {
                "id": f.statement.id,
                "place": f.statement.place,
                "claim": f.statement.text,
                "printed": f.statement.printed,
                "study": f.study,
                "scale": f.scale,
                "ours": f.change.percent,
                "low": f.change.low,
                "high": f.change.high,
                "n": f.change.n,
                "told": f.told,
                "verdict": f.verdict,
                "reason": f.reason,
                "reading": f.reading,
                "seeds_needed": f.needed,
                "run_ids": " ".join(f.run_ids),
            }
            for f in found
        ]
    )


def reading(trials: pd.DataFrame) -> str:
    """Which side trials took where the paper's text, its released code and sense disagree."""
    others = []
    for rule in content()["readings"]:
        names = column(trials, "model.name")
        concerned = trials[names.isin(rule["models"])] if "models" in rule else trials
        used = column(concerned, rule["setting"]).dropna().unique()
        source = "paper" if "paper" in rule else "released"
        if any(equal(value, rule[source]) for value in used):
            others.append(f"{rule['setting']} {rule[source]} ({source})")
    return f"corrected, but {', '.join(others)}" if others else "corrected"


def unlike_paper(study: Study) -> pd.DataFrame:
    """Settings that trials on the main paper's data have otherwise.

    Returns:
        A row per setting: setting, for (which model or data), unit, paper and here (all values).
    """
    trials = arms(study)
    rows = []
    for rule in content()["settings"]:
        of = {name: rule[name] for name in ("model", "dataset") if name in rule}
        fits = column(trials, "dataset.name").isin(WATERS)
        for name, value in of.items():
            fits &= column(trials, f"{name}.name") == value
        wanted = rule["value"] if isinstance(rule["value"], list) else [rule["value"]]
        used = column(trials, rule["setting"])[fits].dropna().unique()
        here = [value for value in used if not any(equal(value, one) for one in wanted)]
        if here:
            told = {"setting": rule["setting"], "unit": rule.get("unit", ""), "paper": wanted[0]}
            rows.append(told | {"for": listed(of.values()), "here": here})
    return pd.DataFrame(rows, columns=["setting", "for", "unit", "paper", "here"])


def _findings(study: Study) -> dict[str, Finding]:
    trials = compared(study)
    found = {s.id: _finding(s, study, trials) for s in statements() if s.arm is not None}
    told = {name: finding for name, finding in found.items() if finding is not None}
    judged = {}
    for place in dict.fromkeys(finding.statement.place for finding in told.values()):
        family = {name: f for name, f in told.items() if f.statement.place == place}
        p_values = [finding.change.p for finding in family.values()]
        tests = sum(map(math.isfinite, p_values))
        for (name, finding), p in zip(family.items(), holm(p_values), strict=True):
            judged[name] = _judged(finding, p, max(1, tests))
    return judged


def _judged(finding: Finding, adjusted: float, tests: int) -> Finding:
    """The verdict, unless the finding has one already."""
    statement, change = finding.statement, finding.change
    claim = statement.claim(finding.scale)
    expected = (claim.direction or -1) * claim.smallest
    needed = seeds_needed(round(change.spread, 3), expected, tests)
    finding = replace(finding, needed=max(needed, statement.seeds) if needed else None)
    if finding.verdict:
        return finding
    if change.n < statement.seeds:
        few = f"{change.n} of at least {statement.seeds} seeds"
        reason = ", ".join(filter(None, (few, finding.reason)))
        return replace(finding, verdict=TOO_FEW, reason=reason)
    return replace(finding, verdict=judge(claim, change, adjusted, tests))


def _finding(statement: Statement, study: Study, trials: pd.DataFrame) -> Finding | None:
    """The change without its verdict; none if the study has no such arms."""
    assert statement.arm is not None
    if statement.quantity not in {q.name for q in quantities(study)}:
        return None
    reason = ""
    mine = chosen(trials, statement.arm)
    if mine.empty and statement.measure not in OF_DATA:
        mine = _elsewhere(statement.arm, trials)
        reason = f"{listed(mine.data.unique())} in place of {_wanted(statement.arm)}"
    if mine.empty:
        return None
    base = Finding(
        statement,
        OTHER_DATA if reason else "",
        reason,
        study.name,
        "full" if study.facts["profile"] == "paper" else "reduced",
        reading=reading(mine),
    )
    if statement.measure in OTHERWISE:
        return OTHERWISE[statement.measure](base, study, mine)
    values = measured(study, trials, statement)
    change, behind = compared_as(statement, values[values.arm.isin(mine.arm)], values)
    if change is None:
        return None
    if statement.measure == "arrival":
        never = int(behind.value.isna().sum())
        late = f"{never} of {len(behind)} trials never get there" if never else ""
        base = replace(base, reason=", ".join(filter(None, (reason, late))))
    return _resting_on(replace(base, change=change), behind)


def _elsewhere(arm: dict[str, Any], trials: pd.DataFrame) -> pd.DataFrame:
    """Such arms on other data, where any may stand in; data of another claim may not."""
    excluded = content()["stand_ins"].get(arm.get("dataset"))
    if excluded is None:
        return trials[:0]
    others = trials[~column(trials, "dataset.name").isin(excluded)]
    elsewhere = {name: value for name, value in arm.items() if name not in ("dataset", "file")}
    if "pretrained_on" in arm:
        elsewhere["pretrained_on"] = "any" if None in arm["pretrained_on"] else "other"
    return chosen(others, elsewhere)


def _wanted(arm: dict[str, Any]) -> str:
    return data_label({"dataset.name": arm.get("dataset")})


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
    return _resting_on(told_of, pd.concat([arms, other]))


def _failure(base: Finding, study: Study, mine: pd.DataFrame) -> Finding | None:
    trials = begun(study)
    arms = trials[trials.arm.isin(mine.arm)]
    bad = int(_failed(arms).sum())
    low, high = proportion_interval(bad, len(arms))
    said = REPRODUCED if low > 0.5 else CONTRADICTED if high < 0.5 else INCONCLUSIVE
    said = TOO_FEW if len(arms) < base.statement.seeds else said
    told = f"{bad} of {len(arms)} diverged or collapsed"
    return _resting_on(replace(base, verdict=base.verdict or said, told=told), arms)


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
    return _resting_on(replace(base, verdict=base.verdict or said, told=told), mine)


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
    found = _resting_on(replace(base, verdict=base.verdict or said, told=told), trials)
    return replace(found, keys=frozenset(trials.data_hash))


def _resting_on(finding: Finding, trials: pd.DataFrame) -> Finding:
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


def _missing(statement: Statement) -> str:
    if statement.needs:
        return f"needs {statement.needs}"
    arm = statement.arm or {}
    told = [f"{name} {value}" for name, value in arm.items() if name != "pretrained_on"]
    against = f", against {statement.against}" if statement.against != "scratch" else ""
    only_full = statement.measure in LEVELS and math.isnan(statement.reduced[0])
    where = "no study here at the paper's size" if only_full else "no study here"
    return f"{where} has {', '.join(told)}{against}"
