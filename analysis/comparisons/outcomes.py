"""Outcomes of planned trials: which enter means, which count as worst, and which are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparisons.arms import arms, references
from analysis.comparisons.labels import EPOCHS
from analysis.comparisons.quantities import metric_of, quantities
from analysis.comparisons.selection import column
from analysis.records.study_tables import Study, remembered


class Outcome(StrEnum):
    """How a trial ended."""

    ERROR = "error"
    """It has test errors, which enter means."""
    DIVERGED = "diverged"
    """It has none, by its own fault: in comparisons it is worse than any that has."""
    STOPPED = "stopped early"
    """The scheduler chose so; it makes no pair."""
    MISSING = "missing"
    """Not run yet, or lost by a fault of the machine or of the program; it makes no pair."""


ENDED = (Outcome.ERROR, Outcome.DIVERGED)
"""Outcomes that make a pair."""

OF_PRETRAINING = "its pretraining diverged"
"""How the reason of a trial begins that could not be run because of that."""


def excluded(study: Study) -> pd.DataFrame:
    """List runs that enter no mean: kind, number, key, arm, seed, status, reason."""
    unfinished = study.pretrainings[study.pretrainings.status != "completed"]
    work = pd.concat([unfinished, arms(study)], ignore_index=True)
    errors = _errors(study)
    work["reason"] = [_why(row, errors) for row in work.to_dict("records")]
    columns = ["kind", "number", "key", "arm", "seed", "status", "reason"]
    return work[work.reason != ""].reindex(columns=columns).reset_index(drop=True)


@remembered
def _ordered(study: Study) -> pd.DataFrame:
    """All trials with their outcome: scratch first, then by size of task, plan and seed.

    Errors of one that diverged are infinite; compute of one without errors is unknown.
    """
    trials, errors = arms(study), _errors(study)
    rows = trials.to_dict("records")
    outcomes = np.array([_outcome(row, errors) for row in rows], dtype=object)
    trials = trials.assign(
        outcome=outcomes, compute=trials["compute"].where(outcomes == Outcome.ERROR)
    )
    trials.loc[outcomes == Outcome.DIVERGED, errors] = math.inf
    trials.loc[[outcome not in ENDED for outcome in outcomes], errors] = math.nan
    first = trials.assign(
        order=~trials.scratch,
        planned=trials.groupby("family").number.transform("min"),
        length=column(trials, EPOCHS),
        place=trials.groupby("arm").number.transform("min"),
    )
    by = ["order", "placebo", "ratio", "noise", "planned", "length", "place"]
    by += ["seed"] if "seed" in trials else []
    ordered = first.sort_values(by, na_position="last", kind="stable")
    return ordered.drop(columns=["order", "planned", "length", "place"]).reset_index(drop=True)


@remembered
def included(study: Study) -> pd.DataFrame:
    """Select trials that enter the means: scratch first, then by size of task, plan and seed."""
    trials = _ordered(study)
    return trials[(trials.outcome == Outcome.ERROR).astype(bool)].reset_index(drop=True)


def judged(study: Study) -> pd.DataFrame:
    """Trials that ended or were stopped early, also those of settings that have a single seed."""
    trials = _ordered(study)
    return trials[trials.outcome != Outcome.MISSING]


@remembered
def planned(study: Study) -> pd.DataFrame:
    """Trials that are compared, however they ended; of a search those of arms with several seeds.

    The column `outcome` tells how: see `_ordered`.
    """
    trials = _ordered(study)
    if not is_search(study):
        return trials
    return trials[trials.groupby("arm").seed.transform("nunique") > 1].reset_index(drop=True)


@remembered
def ended(study: Study) -> pd.DataFrame:
    """The trials of `planned` that ended by themselves, well or badly."""
    trials = planned(study)
    return trials[trials.outcome.isin(ENDED)].reset_index(drop=True)


@remembered
def compared(study: Study) -> pd.DataFrame:
    """The trials of `planned` that have test errors, which tables and figures show."""
    trials = planned(study)
    return trials[(trials.outcome == Outcome.ERROR).astype(bool)].reset_index(drop=True)


def is_search(study: Study) -> bool:
    """Check whether Optuna sampled the settings; then only repeated trials can be compared."""
    return bool(study.facts["space"].get("search"))


def population_of(study: Study) -> int:
    """Members of population-based training; 0 for another study."""
    search = study.facts["space"].get("search") or {}
    sampler = search.get("sampler")
    name = sampler.get("name") if isinstance(sampler, dict) else sampler
    return int(search.get("trials", 0)) if name == "pbt" else 0


def proposed(study: Study) -> pd.DataFrame:
    """Trials of a search that Optuna proposed, in that order; without its repeats."""
    trials = arms(study)
    proposals: pd.DataFrame = trials[~trials.exempt.fillna(value=True)]
    return proposals


@remembered
def with_parts(study: Study) -> Study:
    """The study with the parts of its population among the trials; without one the study itself.

    Parts have no test errors; their epochs and costs are their own.
    """
    is_part = study.tuning.pbt_generation.notna()
    if not is_part.any():
        return study
    trials = pd.concat([study.trials, study.tuning[is_part]]).sort_values("number")
    return replace(study, trials=trials.reset_index(drop=True), tuning=study.tuning[~is_part])


def population(study: Study) -> pd.DataFrame:
    """Every part of population-based training: who went on from whom; empty for another study.

    Returns:
        generation, member, parent: the member of the generation before; the settings that vary;
        error: of validation after the last epoch; status; best: the winner has gone through it.
    """
    parts = study.tuning[study.tuning.pbt_generation.notna() & ~study.tuning.exempt]
    parts = parts.sort_values("number")
    curves = study.curves[study.curves.metric == metric_of(study)].sort_values("epoch")
    known = parts.set_index("key")
    names = [n for n in study.settings if parts[n].nunique(dropna=False) > 1]
    table = pd.DataFrame(
        {
            "generation": parts.pbt_generation,
            "member": parts.pbt_member,
            "parent": parts.pbt_parent.map(known.pbt_member),
            **{name: parts[name] for name in names},
            "error": parts.run_id.map(curves.groupby("run_id").value.last()).astype(float),
            "status": parts.status,
            "best": parts.key.isin(
                _ancestors(study, dict(parts[["key", "pbt_parent"]].itertuples(index=False)))
            ),
        }
    )
    return table.reset_index(drop=True)


def _ancestors(study: Study, parents: dict[str, str]) -> list[str]:
    """Keys of all parts that the best member has gone through, the last one first."""
    tests = proposed(study)
    tests = tests[tests.pbt_parent.notna()]
    curves = study.curves[study.curves.metric == metric_of(study)].sort_values("epoch")
    values, takes_last = curves.groupby("run_id").value, column(tests, "finetune.select") == "last"
    errors = tests.run_id.map(values.last()).where(takes_last, tests.run_id.map(values.min()))
    errors = errors.dropna()
    first = tests.loc[errors.sort_values(kind="stable").index[:1]]
    key = "".join(first.pbt_parent)
    found: list[str] = []
    while key in parents:
        found.append(key)
        key = parents[key]
    return found


def family_size(trials: pd.DataFrame, *, control: bool = False) -> int:
    """Number of comparisons whose intervals hold together: of a study's arms with references.

    Pretrained arms (without scratch: all) are one family, and controls (longer trainings from
    scratch, placebos) another; it is the same for every error, reference and table.

    Args:
        trials: of `planned`.
        control: of which of both families.
    """
    first = trials.drop_duplicates("arm").set_index("arm")
    controls = first.scratch.astype(bool) | first.placebo.astype(bool)
    return max(1, sum(bool(controls[arm]) == control for arm in references(trials)))


def _errors(study: Study) -> list[str]:
    """Test errors that a trial needs to enter a mean."""
    return [f"test_{q.name}" for q in quantities(study)]


def _outcome(trial: dict[Any, Any], errors: Sequence[str]) -> Outcome:
    status = trial["status"]
    if status == "completed":
        finite = all(np.isfinite(trial[name]) for name in errors)
        return Outcome.ERROR if finite else Outcome.DIVERGED
    if status == "diverged" or str(trial["reason"]).startswith(OF_PRETRAINING):
        return Outcome.DIVERGED
    return Outcome.STOPPED if status == "stopped" else Outcome.MISSING


def _why(trial: dict[Any, Any], errors: Sequence[str]) -> str:
    """State why a trial enters no mean; empty if it does."""
    if trial["status"] == "completed":
        bad = [name for name in errors if not np.isfinite(trial[name])]
        what = bad[0].removeprefix("test_") if bad else ""
        return f"completed, but without a finite test {what}" if bad else ""
    recorded = trial["reason"] if isinstance(trial["reason"], str) else ""
    return recorded or REASONS.get(trial["status"], "no reason was recorded")


REASONS = {
    "running": "still running, or its process died",
    "killed": "interrupted before it ended",
    "stopped": "stopped early by the scheduler",
}
