"""The papers' claims, `claims.yaml`, and the result of each study on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.claims.claim import Finding, Statement, compared_as, content, equal, measured, select
from analysis.claims.measures import LEVELS, OF_DATA, WITHOUT_CHANGE, with_runs
from analysis.comparisons.arms import arms, compared
from analysis.comparisons.labels import data_label
from analysis.comparisons.quantities import quantities
from analysis.comparisons.selection import column
from analysis.comparisons.statistics import TOO_FEW, holm, judge, seeds_needed
from analysis.formatting import listed
from analysis.records.study_tables import Study

NOT_RUN, OTHER_DATA = "not run", "different data"

WATERS = ("tip3p_water", "rpbe_water")


def statements() -> list[Statement]:
    """Return all claims, in the order of the papers."""
    return [Statement(**entry) for entry in content()["claims"]]


def findings(studies: Sequence[Study]) -> list[Finding]:
    """Return the findings on each statement; one per study that tests it, or one "not run".

    Holm's correction is over the statements of one place of a paper that one study tests. Studies
    that share the same runs are listed together, with the verdict of the first.
    """
    by_study = {id(study): _findings(study) for study in studies}
    rows = []
    for statement in statements():
        of_statement = [each[statement.id] for each in by_study.values() if statement.id in each]
        rows += _merge_shared(of_statement) or [Finding(statement, NOT_RUN, _missing(statement))]
    return rows


def _merge_shared(of_statement: Sequence[Finding]) -> list[Finding]:
    first: dict[frozenset[str], Finding] = {}
    for finding in of_statement:
        same = first.get(finding.keys)
        names = finding.study if same is None else f"{same.study}, {finding.study}"
        first[finding.keys] = replace(same or finding, study=names)
    return list(first.values())


def findings_table(rows: Iterable[Finding]) -> pd.DataFrame:
    """Return the findings as a table, changes in %."""
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
                "told": f.measured,
                "verdict": f.verdict,
                "reason": f.reason,
                "reading": f.reading,
                "seeds_needed": f.needed,
                "run_ids": " ".join(f.run_ids),
            }
            for f in rows
        ]
    )


def reading(trials: pd.DataFrame) -> str:
    """Name the reading that trials follow where the paper's text and its released code disagree."""
    others = []
    for rule in content()["readings"]:
        names = column(trials, "model.name")
        concerned = trials[names.isin(rule["models"])] if "models" in rule else trials
        used = column(concerned, rule["setting"]).dropna().unique()
        source = "paper" if "paper" in rule else "released"
        if any(equal(value, rule[source]) for value in used):
            others.append(f"{rule['setting']} {rule[source]} ({source})")
    return f"corrected, but {', '.join(others)}" if others else "corrected"


def differences_from_paper(study: Study) -> pd.DataFrame:
    """List settings in which trials on the main paper's data differ from the paper.

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
            row = {"setting": rule["setting"], "unit": rule.get("unit", ""), "paper": wanted[0]}
            rows.append(row | {"for": listed(of.values()), "here": here})
    return pd.DataFrame(rows, columns=["setting", "for", "unit", "paper", "here"])


def _findings(study: Study) -> dict[str, Finding]:
    trials = compared(study)
    every = {s.id: _finding(s, study, trials) for s in statements() if s.arm is not None}
    tested = {name: finding for name, finding in every.items() if finding is not None}
    judged = {}
    for place in dict.fromkeys(finding.statement.place for finding in tested.values()):
        family = {name: f for name, f in tested.items() if f.statement.place == place}
        p_values = [finding.change.p for finding in family.values()]
        tests = sum(map(math.isfinite, p_values))
        for (name, finding), p in zip(family.items(), holm(p_values), strict=True):
            judged[name] = _judged(finding, p, max(1, tests))
    return judged


def _judged(finding: Finding, adjusted: float, tests: int) -> Finding:
    """Add the verdict, unless the finding has one already."""
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
    """Return the change without its verdict; None if the study has no such arms."""
    assert statement.arm is not None
    if statement.quantity not in {q.name for q in quantities(study)}:
        return None
    reason = ""
    mine = select(trials, statement.arm)
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
    if statement.measure in WITHOUT_CHANGE:
        return WITHOUT_CHANGE[statement.measure](base, study, mine)
    values = measured(study, trials, statement)
    change, behind = compared_as(statement, values[values.arm.isin(mine.arm)], values)
    if change is None:
        return None
    if statement.measure == "arrival":
        never = int(behind.value.isna().sum())
        late = f"{never} of {len(behind)} trials never reach it" if never else ""
        base = replace(base, reason=", ".join(filter(None, (reason, late))))
    return with_runs(replace(base, change=change), behind)


def _elsewhere(arm: dict[str, Any], trials: pd.DataFrame) -> pd.DataFrame:
    """Select such arms on other data that may stand in; data of another claim may not."""
    excluded = content()["stand_ins"].get(arm.get("dataset"))
    if excluded is None:
        return trials[:0]
    others = trials[~column(trials, "dataset.name").isin(excluded)]
    elsewhere = {name: value for name, value in arm.items() if name not in ("dataset", "file")}
    if "pretrained_on" in arm:
        elsewhere["pretrained_on"] = "any" if None in arm["pretrained_on"] else "other"
    return select(others, elsewhere)


def _wanted(arm: dict[str, Any]) -> str:
    return data_label({"dataset.name": arm.get("dataset")})


def _missing(statement: Statement) -> str:
    if statement.needs:
        return f"needs {statement.needs}"
    arm = statement.arm or {}
    settings = [f"{name} {value}" for name, value in arm.items() if name != "pretrained_on"]
    against = f", compared with {statement.against}" if statement.against != "scratch" else ""
    only_full = statement.measure in LEVELS and math.isnan(statement.reduced[0])
    where = "no study here at the paper's size" if only_full else "no study here"
    return f"{where} has {', '.join(settings)}{against}"
