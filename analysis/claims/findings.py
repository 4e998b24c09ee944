"""The papers' claims, `claims.yaml`, and the result of each study on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.claims.claim import Finding, Statement, compared_as, content, equal, measured, select
from analysis.claims.compounds import compound_finding
from analysis.claims.measures import LEVELS, OF_DATA, WITHOUT_CHANGE, with_runs
from analysis.claims.scale import deviations, differences
from analysis.comparisons.arms import arms
from analysis.comparisons.labels import data_label
from analysis.comparisons.outcomes import ENDED, family_size, planned
from analysis.comparisons.quantities import quantities
from analysis.comparisons.selection import column
from analysis.formatting import interval, listed, percent
from analysis.records.study_tables import Study
from analysis.statistics.power import seeds_needed
from analysis.statistics.verdict import Verdict, judge, verdict


def statements() -> list[Statement]:
    """Return all claims, in the order of the papers."""
    return [Statement(**entry) for entry in content()["claims"]]


def findings(studies: Sequence[Study]) -> list[Finding]:
    """Return the findings on each statement; one per study that tests it, or one "not run".

    A change has the interval and the word that it has in the tables of its study. Studies that
    share the same work are listed together, with the verdict of the first; where another machine
    or number of threads gave another verdict to the same trials, that is told.
    """
    by_study = {id(study): _findings(study) for study in studies}
    rows: list[Finding] = []
    for statement in statements():
        of_statement = [each[statement.id] for each in by_study.values() if statement.id in each]
        rows += _merge_shared(of_statement) or [
            Finding(statement, Verdict.NOT_RUN, _missing(statement))
        ]
    return [compound_finding(f.statement, rows) or f if f.statement.parts else f for f in rows]


def _merge_shared(of_statement: Sequence[Finding]) -> list[Finding]:
    first: dict[frozenset[str], Finding] = {}
    for finding in of_statement:
        same = first.get(finding.keys)
        if same is None:
            first[finding.keys] = finding
            continue
        reason = filter(None, (same.reason, _otherwise(same, finding)))
        names = f"{same.study}, {finding.study}"
        first[finding.keys] = replace(same, study=names, reason=", ".join(reason))
    return list(first.values())


def _otherwise(one: Finding, other: Finding) -> str:
    """What the same work gave elsewhere, if that changes the verdict."""
    if (one.verdict, one.effect) == (other.verdict, other.effect):
        return ""
    change = other.change
    ours = f"{percent(change.percent)} % {interval(change.low, change.high)} " if change.n else ""
    return f"hangs on rounding: {ours}{other.verdict} in {other.study}"


def findings_table(rows: Iterable[Finding]) -> pd.DataFrame:
    """Return the findings as a table, changes in %."""
    return pd.DataFrame(
        [
            {
                "id": f.statement.id,
                "place": f.statement.place,
                "claim": f.statement.text,
                "origin": f.statement.origin,
                "printed": f.statement.printed,
                "derived": f.statement.derived,
                "space": f.statement.space,
                "study": f.study,
                "scale": f.scale,
                "deviations": "; ".join(f.deviations),
                "ours": f.change.percent,
                "low": f.change.low,
                "high": f.change.high,
                "n": f.change.n,
                "failed": f.change.failed,
                "reference_failed": f.change.reference_failed,
                "family": f.change.family if f.change.n else None,
                "effect": f.effect,
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
    return differences(arms(study))


def _findings(study: Study) -> dict[str, Finding]:
    trials = planned(study)
    every = {s.id: _finding(s, study, trials) for s in statements() if s.arm is not None}
    return {name: _judged(found) for name, found in every.items() if found is not None}


def _judged(finding: Finding) -> Finding:
    """Add effect and verdict, unless the finding has a verdict already."""
    statement, change = finding.statement, finding.change
    claim = statement.claim(finding.scale)
    expected = (claim.direction or -1) * claim.smallest
    needed = seeds_needed(round(change.spread, 3), expected, change.family)
    finding = replace(finding, needed=max(needed, statement.seeds) if needed else None)
    if change.ended:
        finding = replace(finding, effect=verdict(change))
    if finding.verdict:
        return finding
    if change.ended < statement.seeds:
        few = f"{change.ended} of at least {statement.seeds} seeds"
        reason = ", ".join(filter(None, (few, finding.reason)))
        return replace(finding, verdict=Verdict.TOO_FEW, reason=reason)
    return replace(finding, verdict=judge(claim, change))


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
    if not mine.outcome.isin(ENDED).any():
        return None
    smaller = deviations(statement, mine, of_data=statement.measure in OF_DATA)
    base = Finding(
        statement,
        Verdict.OTHER_DATA if reason else "",
        reason,
        study.name,
        "reduced" if smaller else "full",
        smaller,
        reading=reading(mine),
    )
    if statement.measure in WITHOUT_CHANGE:
        return WITHOUT_CHANGE[statement.measure](base, study, mine)
    values = measured(study, trials, statement)
    change, behind = compared_as(statement, values[values.arm.isin(mine.arm)], values)
    if change is None:
        return None
    family = family_size(trials, control=bool(mine.scratch.all() or mine.placebo.all()))
    noted = ", ".join(filter(None, (reason, _failures(statement, behind))))
    base = replace(base, reason=noted, change=change.simultaneous(family))
    return with_runs(base, behind)


def _failures(statement: Statement, trials: pd.DataFrame) -> str:
    """How many of the trials behind a finding have no value but count as worst."""
    failed, ended = int(trials.value.eq(math.inf).sum()), int(trials.value.notna().sum())
    what = "never reach it" if statement.measure == "arrival" else "diverged"
    return f"{failed} of {ended} trials {what}" if failed else ""


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
    if statement.parts:
        return f"no study here tests any of its {len(statement.parts)} parts"
    arm = statement.arm or {}
    settings = [f"{name} {value}" for name, value in arm.items() if name != "pretrained_on"]
    against = f", compared with {statement.against}" if statement.against != "scratch" else ""
    only_full = statement.measure in LEVELS and math.isnan(statement.reduced[0])
    where = "no study here at the paper's size" if only_full else "no study here"
    return f"{where} has {', '.join(settings)}{against}"
