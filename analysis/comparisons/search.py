"""A hyperparameter search: its history, importances, Pareto front and audit.

A stopped trial keeps the error at which it was stopped; nothing is imputed for later epochs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.comparisons.arms import arms, varying
from analysis.comparisons.labels import EPOCHS
from analysis.comparisons.outcomes import population_of, proposed, with_parts
from analysis.comparisons.quantities import metric_of, quantity_of
from analysis.comparisons.selection import column
from analysis.records.study_tables import Study
from analysis.statistics.rates import proportion_interval

FEWEST_TRIALS = 8
"""Fewest proposals per pretraining task from which importances are computed."""
RESAMPLES = 60
MOST_TRIALS = 200
"""Most proposals from which importances are computed; more take long and change little."""


def timeline(study: Study) -> pd.DataFrame:
    """Every trial: number, arm, task, status, begin and end in minutes, epochs, value.

    `value` is the lowest value of the study's metric, in the unit of `quantity_of`; `proposed`
    marks Optuna's proposals, not their later repeats. Parts of a population are among the trials;
    their `seconds` are those from the begin of the chain that they end.
    """
    trials = arms(with_parts(study))
    curves = study.curves[study.curves.stage == "finetune"]
    of_metric = curves[curves.metric == metric_of(study)].groupby("run_id")
    started = trials.start_time.min()
    scale = quantity_of(study, metric_of(study)).scale
    minutes = {
        name: (trials[name] - started).dt.total_seconds() / 60
        for name in ("start_time", "end_time")
    }
    return pd.DataFrame(
        {
            "number": trials.number,
            "arm": trials.arm,
            "task": trials.task,
            "seed": trials.seed,
            "status": trials.status,
            "begin": minutes["start_time"],
            "end": minutes["end_time"],
            "epochs": trials.run_id.map(of_metric.epoch.max()),
            "value": trials.run_id.map(of_metric.value.min()) * scale,
            "seconds": _since_the_first_part(trials),
            "proposed": trials.number.isin(proposed(with_parts(study)).number),
        }
    ).sort_values("number")


def _since_the_first_part(trials: pd.DataFrame) -> pd.Series[float]:
    """Seconds of both stages; of a part of a population with those of the parts before it."""
    spent: dict[str, float] = {}
    for row in trials.sort_values("number").to_dict("records"):
        continues = row["tuning"] and row["pbt_parent"] in spent
        before = spent[row["pbt_parent"]] if continues else row["total_seconds"] - row["seconds"]
        spent[row["key"]] = before + row["seconds"]
    return trials.key.map(spent).astype(float)


def importances(study: Study) -> pd.DataFrame:
    """Share of the error variance that each setting explains, per pretraining task (fANOVA).

    A branch is the proposals with the same pretraining task, so that settings that only one task
    has are not dropped. The error is that at the last epoch which all proposals reached: final
    errors would leave out those that were stopped. Ends are 95 % of bootstrap resamples. Of a
    population the first generation counts, whose settings were drawn independently.

    Returns:
        branch, setting, importance, low, high, n.
    """
    trials = _with_errors(study)
    curves = study.curves[(study.curves.stage == "finetune")]
    curves = curves[curves.metric == metric_of(study)]
    epochs = trials.run_id.map(curves.groupby("run_id").epoch.max())
    if epochs.empty or epochs.isna().all():
        return pd.DataFrame()
    common = curves[curves.epoch == epochs.min()].set_index("run_id").value
    valued = trials.assign(value=np.log(trials.run_id.map(common).astype(float)))
    valued = valued[np.isfinite(valued.value)].head(MOST_TRIALS)
    rows = []
    for branch, group in valued.groupby(_branch(valued), sort=False):
        names = [name for name in varying(group, study.settings) if name != "seed"]
        if len(group) >= FEWEST_TRIALS and names:
            rows += _importances(str(branch), group, names)
    return pd.DataFrame(rows)


def rungs(study: Study) -> list[int]:
    """Epochs of finetuning after which ASHA lets only the best go on; none without it."""
    stopping = study.facts["space"].get("early_stopping")
    lengths = pd.to_numeric(column(study.trials, EPOCHS)).dropna()
    if not stopping or lengths.empty:
        return []
    longest, rung, found = float(lengths.max()), float(stopping["grace_epochs"]), []
    while rung < longest:
        found.append(math.ceil(rung))
        rung *= float(stopping["reduction_factor"])
    return found


def most_in_a_branch(study: Study) -> int:
    """Most proposals of any pretraining task; importances need `FEWEST_TRIALS`."""
    trials = _with_errors(study)
    return int(trials.groupby(_branch(trials)).size().max()) if len(trials) else 0


def _with_errors(study: Study) -> pd.DataFrame:
    """Proposals that have an error; of a population, its first generation."""
    trials = proposed(with_parts(study))
    if population_of(study):
        trials = trials[(trials.pbt_generation == 0).fillna(value=False)]
    return trials[trials.status.isin(["completed", "stopped"])]


def _branch(trials: pd.DataFrame) -> pd.Series[str]:
    """Pretraining task of each trial, without its settings."""
    return trials.task.str.split().str[0]


def pareto(study: Study) -> pd.DataFrame:
    """Completed trials by compute and error; `front`: no other one beats it in both."""
    table = timeline(study)
    whole = table[table.number.isin(study.trials.number)]
    done = whole[(whole.status == "completed") & whole.value.notna()].sort_values(
        ["seconds", "value"]
    )
    best = done.value.cummin()
    return done.assign(front=(done.value <= best) & ~done.value.duplicated())


def objectives_of(study: Study) -> list[str]:
    """Names of what the search minimized together; none if it was one metric alone."""
    return list((study.facts["space"].get("search") or {}).get("objectives") or [])


def objectives(study: Study) -> pd.DataFrame:
    """Completed proposals of a search with several objectives, by the first one.

    Returns:
        number, arm, each objective as it is recorded, and `front`: within the limits of the search,
        and no other one is as good in all objectives and better in one.
    """
    names = objectives_of(study)
    done = proposed(study)
    if not names or not set(names) <= set(done):
        return pd.DataFrame()
    done = done[(done.status == "completed") & done[names].notna().all(axis=1)]
    limits = study.facts["space"]["search"].get("at_most") or {}
    kept = [~(column(done, name).astype(float) > limit) for name, limit in limits.items()]
    allowed = np.all(kept, axis=0) if kept else np.full(len(done), fill_value=True)
    values = done[names].to_numpy(dtype=float)
    best = [
        bool(free) and not any(_beats(other, own) for other in values[allowed])
        for own, free in zip(values, allowed, strict=True)
    ]
    return done[["number", "arm", *names]].assign(front=best).sort_values(names)


def _beats(other: np.ndarray, own: np.ndarray) -> bool:
    return bool((other <= own).all() and (other < own).any())


def audit(study: Study) -> dict[str, float]:
    """Audit early stopping: a random sample of stopped trials was trained to the end.

    One that diverged afterwards counts as worse; one that failed does not count.

    Returns:
        stopped, sampled; better: sampled that end below the best completed proposal, with
        Clopper–Pearson ends of that rate in %; rank: best place that one would have had.
    """
    trials = proposed(study)
    stopped = trials[trials.status == "stopped"]
    counts: dict[str, float] = {"stopped": len(stopped), "sampled": 0}
    sampled = study.audits[study.audits.status.isin(["completed", "diverged"])]
    curves = study.curves[
        (study.curves.stage == "finetune") & (study.curves.metric == metric_of(study))
    ]
    lowest = curves.groupby("run_id").value.min()
    done = trials[trials.status == "completed"].run_id.map(lowest).dropna()
    ends = sampled.run_id.map(lowest).mask(sampled.status == "diverged", np.inf).dropna()
    if ends.empty or done.empty:
        return counts
    better = int((ends < done.min()).sum())
    low, high = proportion_interval(better, len(ends))
    rank = 1 + int((done < ends.min()).sum())
    return counts | {
        "sampled": len(ends),
        "better": better,
        "low": 100 * low,
        "high": 100 * high,
        "rank": rank,
    }


def _importances(
    branch: str, group: pd.DataFrame, names: Sequence[str]
) -> list[dict[str, str | float]]:
    whole = _fanova(group, names)
    random = np.random.default_rng(0)
    draws = [group.iloc[random.integers(len(group), size=len(group))] for _ in range(RESAMPLES)]
    resampled = pd.DataFrame([_fanova(draw, names) for draw in draws])
    return [
        {
            "branch": branch,
            "setting": name,
            "importance": 100 * whole[name],
            "low": 100 * float(resampled[name].quantile(0.025)),
            "high": 100 * float(resampled[name].quantile(0.975)),
            "n": len(group),
        }
        for name in sorted(names, key=lambda name: -whole[name])
    ]


def _fanova(group: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Optuna's fANOVA of ln error; categorical settings count as their index."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {name: _as_numbers(column(group, name)) for name in names}
    useful = {name: values for name, values in columns.items() if np.ptp(values) > 0}
    if not useful or np.ptp(group.value) == 0:
        return dict.fromkeys(names, 0.0)
    distributions = {
        name: optuna.distributions.FloatDistribution(float(values.min()), float(values.max()))
        for name, values in useful.items()
    }
    study = optuna.create_study()
    for place, value in enumerate(group.value):
        params = {name: float(values[place]) for name, values in useful.items()}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=dict(distributions), value=float(value)
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=8, max_depth=8, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        importance = evaluator.evaluate(study)
    return dict.fromkeys(names, 0.0) | importance


def _as_numbers(values: pd.Series) -> np.ndarray:
    """Logarithms of positive numbers that span a decade, numbers, or indices of categories."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        return values.astype(str).astype("category").cat.codes.to_numpy(dtype=float)
    array = numbers.to_numpy(dtype=float)
    return np.log(array) if array.min() > 0 and array.max() >= 10 * array.min() else array
