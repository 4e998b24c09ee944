"""Cost of a study, and savings by shared pretraining runs and early stopping."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparisons.arms import arms
from analysis.comparisons.outcomes import is_search, with_parts
from analysis.records.study_tables import Study
from study.core.records import COST_METRICS


def cost(study: Study) -> pd.DataFrame:
    """Cost per stage: stage, number of runs, median seconds, and the sums of `COST_METRICS`.

    A sum is NaN where a run that has started does not record it. A run that continues another one
    of the study counts what it added: a pretraining that continues a shorter one, the audit of a
    stopped trial, and the test of a member of a population, which adds nothing to its parts.
    """
    stages = {"pretraining": _pretrainings(study), "finetuning": _finetunings(study)}
    stages |= {"audit": _audits(study)} if len(study.audits) else {}
    parts = "population" if study.tuning.pbt_generation.notna().any() else "tuning"
    stages |= {parts: study.tuning} if len(study.tuning) else {}
    return pd.DataFrame([_summed(stage, work) for stage, work in stages.items()])


def reuse(study: Study) -> pd.DataFrame:
    """Per pretraining run: task, number of trials that begin with it, cost and savings.

    Columns `COST_METRICS` are the cost of the run itself, without that of a run that it continues;
    `saved_` with these names is the additional cost of as many separate pretraining runs.
    """
    trials = arms(with_parts(study))
    uses = trials[trials.pbt_parent.isna()].pretraining.value_counts()
    names = trials.drop_duplicates("pretraining").set_index("pretraining").pretext
    table = study.pretrainings.reindex(columns=["key", "seed", "status"])
    table["task"] = table.key.map(names)
    table["trials"] = [int(uses.get(key, 0)) for key in table.key]
    own = _pretrainings(study)
    for name in COST_METRICS:
        alone = study.pretrainings[name].astype(float)
        table[name] = own[name]
        table[f"saved_{name}"] = alone * table.trials.clip(lower=1) - own[name]
    return table


def saved_by_sharing(study: Study) -> dict[str, float]:
    """Additional cost of separate pretraining runs, by `COST_METRICS`."""
    table = reuse(study)
    return {name: _sum(table, f"saved_{name}") for name in COST_METRICS}


def saved_by_stopping(study: Study) -> dict[str, float]:
    """Remaining cost of stopped trials at their own pace, by `COST_METRICS`."""
    stopped = study.trials[study.trials.status == "stopped"]
    if stopped.empty or not is_search(study):
        return dict.fromkeys(COST_METRICS, 0.0)
    curves = study.curves[study.curves.stage == "finetune"]
    done = stopped.run_id.map(curves.groupby("run_id").epoch.max()).astype(float)
    left = pd.to_numeric(stopped["finetune.epochs"]).astype(float) / done - 1
    spent = stopped[list(COST_METRICS)].astype(float)
    return {name: _sum(spent.mul(left, axis=0), name) for name in COST_METRICS}


def _pretrainings(study: Study) -> pd.DataFrame:
    """Pretraining runs with their own cost, without that of a shorter run that they continue."""
    table = study.pretrainings
    shared = table.key.where(table.whole.isna(), table.whole)
    added = {}
    for name in COST_METRICS:
        values = table[name].astype(float)
        added[name] = values - values.sort_values().groupby(shared).shift().fillna(0)
    return table.assign(**added)


def _finetunings(study: Study) -> pd.DataFrame:
    """Trials with their own cost; those that test a member of a population have none."""
    own = study.trials.pbt_parent.isna().astype(float)
    return study.trials.assign(**{name: own * study.trials[name] for name in COST_METRICS})


def _audits(study: Study) -> pd.DataFrame:
    """Audits with their own cost, without that of the trial until it was stopped.

    An audit whose checkpoint was lost started again, so that all its cost counts.
    """
    stopped = study.trials.drop_duplicates("key").set_index("key")
    added = {}
    for name in COST_METRICS:
        values = study.audits[name].astype(float)
        before = study.audits.key.map(stopped[name].astype(float)).fillna(0)
        added[name] = values - before.where(before <= values, 0)
    return study.audits.assign(**added)


def _summed(stage: str, work: pd.DataFrame) -> dict[str, object]:
    row: dict[str, object] = {"stage": stage, "pieces": len(work)}
    row["median"] = work.seconds.median() if len(work) else np.nan
    return row | {name: _sum(work, name) for name in COST_METRICS}


def _sum(work: pd.DataFrame, name: str) -> float:
    """Sum over all runs that have started; NaN if one of them has no value."""
    return float(work.loc[work.seconds.notna(), name].astype(float).sum(skipna=False))
