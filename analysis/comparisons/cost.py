"""What a study has cost, and what sharing pretrainings and stopping early have saved."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparisons.arms import arms, is_search
from analysis.records.study_tables import Study
from study.core.records import COST_METRICS


def cost(study: Study) -> pd.DataFrame:
    """What each stage took: stage, pieces of work, median seconds, and the sums of `COST_METRICS`.

    A sum is not a number where some work that has begun does not tell it. Work that went on from
    other work of the study counts what it added: a pretraining that went on where a shorter one
    ended, and the audit of a stopped trial.
    """
    stages = {"pretraining": _pretrainings(study), "finetuning": study.trials}
    stages |= {"audit": _audits(study)} if len(study.audits) else {}
    return pd.DataFrame([_summed(stage, work) for stage, work in stages.items()])


def reuse(study: Study) -> pd.DataFrame:
    """Per pretraining: task, trials that started from it, and what they took and saved.

    Columns `COST_METRICS` are of the work itself, after that which it went on from; `saved_` with
    these names what as many separate pretrainings would have cost more.
    """
    uses = study.trials.pretraining.value_counts()
    names = arms(study).drop_duplicates("pretraining").set_index("pretraining").pretext
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
    """What separate pretrainings would have cost more, by the names of `COST_METRICS`."""
    table = reuse(study)
    return {name: _sum(table, f"saved_{name}") for name in COST_METRICS}


def saved_by_stopping(study: Study) -> dict[str, float]:
    """What stopped trials would still have cost, at their own pace, by `COST_METRICS`."""
    stopped = study.trials[study.trials.status == "stopped"]
    if stopped.empty or not is_search(study):
        return dict.fromkeys(COST_METRICS, 0.0)
    curves = study.curves[study.curves.stage == "finetune"]
    done = stopped.run_id.map(curves.groupby("run_id").epoch.max()).astype(float)
    left = pd.to_numeric(stopped["finetune.epochs"]).astype(float) / done - 1
    spent = stopped[list(COST_METRICS)].astype(float)
    return {name: _sum(spent.mul(left, axis=0), name) for name in COST_METRICS}


def _pretrainings(study: Study) -> pd.DataFrame:
    """Without what was shared with a shorter one that they went on from."""
    table = study.pretrainings
    shared = table.key.where(table.whole.isna(), table.whole)
    added = {}
    for name in COST_METRICS:
        values = table[name].astype(float)
        added[name] = values - values.sort_values().groupby(shared).shift().fillna(0)
    return table.assign(**added)


def _audits(study: Study) -> pd.DataFrame:
    """Without what the trials took until they were stopped.

    One whose checkpoint was lost began anew, and took all that it says.
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
    """Over all work that has begun; not a number if some of it does not tell."""
    return float(work.loc[work.seconds.notna(), name].astype(float).sum(skipna=False))
