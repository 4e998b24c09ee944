"""Convergence and stability of finetuning, from its curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.comparisons.arms import references
from analysis.comparisons.error_tables import CHANGE, by_seed, finetuning, finetuning_of_all, judged
from analysis.comparisons.labels import EPOCHS
from analysis.comparisons.outcomes import Outcome, ended, family_size, planned
from analysis.comparisons.quantities import lead
from analysis.comparisons.selection import only
from analysis.records.study_tables import Study, remembered
from analysis.statistics.change import paired_change
from analysis.statistics.rates import paired_rates, proportion_interval, rate_verdict

TARGETS = (2.0, 1.5, 1.2, 1.0)
"""Errors to be reached, in final medians of the reference."""
RACED = ("arm", "task", "family", "run_id", "seed")
CLOCKED = ("compute", "pretrain_compute", EPOCHS)
"""Columns from which `arrivals` computes time and compute."""
SHARES = (0.3, 1.0)
"""First parts of finetuning over which errors are averaged."""
COLLAPSED = 0.95
"""A final error above this share of the trivial predictor's is a collapse."""


@remembered
def arrivals(study: Study) -> pd.DataFrame:
    """When each trial gets to the final error of its arm's reference, times `TARGETS`.

    The first crossing of the validation error is interpolated in its logarithm.

    Returns:
        A row per trial and target: arm, task, family, reference, run_id, seed, target, epochs and
        seconds (measured compute, pretraining included); infinite for one that never gets there.
    """
    trials, curves = ended(study), finetuning_of_all(study)
    metric = f"val_{lead(study).name}"
    wide = curves[curves.metric == metric].pivot(index="epoch", columns="run_id", values="value")
    pairs = references(trials)
    rows: list[dict[str, object]] = []
    for arm, group in only(trials, (*RACED, *CLOCKED)).groupby("arm", sort=False):
        reference = pairs.get(str(arm), str(arm))
        with_errors = trials.outcome == Outcome.ERROR
        others = trials[(trials.arm == reference) & with_errors].run_id
        ends = wide.reindex(columns=others).ffill().iloc[-1:].median(axis=1).dropna()
        for trial in group.to_dict("records"):
            for end in ends:
                rows += _arrivals(trial | {"reference": reference}, wide, float(end))
    return pd.DataFrame(rows)


def convergence(study: Study) -> pd.DataFrame:
    """Epochs that each arm takes to the final error of its reference, times `TARGETS`.

    Seeds that never get there are censored: later than any that does, as one that diverged.

    Returns:
        A row per arm and target: arm, task, family, reference, target, epochs and seconds (medians
        over seeds), reached, n, and the change of epochs against the reference, as `CHANGE`;
        `speedup` is how many times fewer epochs, `total` the same in compute of both stages.
    """
    table = arrivals(study)
    if table.empty:
        return table
    groups = dict(list(table.groupby(["arm", "target"], sort=False)))
    rows = pd.DataFrame(
        [_speed(group, groups[group.reference.iloc[0], key[1]]) for key, group in groups.items()]
    )
    controls = _controls(study)
    judgements = [
        pd.DataFrame(
            judged(list(some.change_), family_size(planned(study), control=control)), some.index
        )
        for control in (False, True)
        if len(some := rows[(rows.arm != rows.reference) & (rows.arm.isin(controls) == control)])
    ]
    table = pd.concat(judgements) if judgements else pd.DataFrame(columns=CHANGE)
    return rows.drop(columns="change_").join(table)


def _controls(study: Study) -> set[str]:
    trials = planned(study)
    return set(trials[trials.scratch.astype(bool) | trials.placebo.astype(bool)].arm)


def learning_area(study: Study, share: float = 1.0) -> pd.DataFrame:
    """Mean of ln(validation error) over the first `share` of finetuning, by run.

    Its exponential is the geometric mean of the error while training; early gains count.
    """
    curves = finetuning(study)
    rows = curves[(curves.metric == f"val_{lead(study).name}") & (curves.value > 0)]
    rows = rows[rows.epoch <= share * rows.groupby("run_id").epoch.transform("max")]
    table = rows.assign(log=np.log(rows.value)).groupby(["arm", "run_id", "seed"], sort=False)
    return table.log.mean().reset_index()


def while_learning(study: Study) -> pd.DataFrame:
    """Change of the geometric mean of the validation error against the reference.

    Returns:
        A row per arm that has a reference, and per share of `SHARES`: arm, share, and `CHANGE`.
    """
    trials, controls = planned(study), _controls(study)
    pairs = references(trials)
    tables = []
    for share in SHARES:
        values = trials.assign(value=while_learning_errors(study, share))
        means = {arm: by_seed(rows, "value") for arm, rows in values.groupby("arm")}
        changes = {arm: paired_change(means[arm], means[other]) for arm, other in pairs.items()}
        for control in (False, True):
            some = {a: c for a, c in changes.items() if c.ended and (a in controls) == control}
            family = family_size(trials, control=control)
            table = pd.DataFrame(judged(list(some.values()), family), columns=CHANGE)
            tables.append(table.assign(arm=[*some], share=share))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def while_learning_errors(study: Study, share: float = 1.0) -> pd.Series[float]:
    """Geometric mean of the validation error of each trial of `planned`.

    Infinite for one that diverged, which has no whole curve.
    """
    trials = planned(study)
    logs = trials.run_id.map(learning_area(study, share).set_index("run_id")["log"]).astype(float)
    failed = trials.outcome.eq(Outcome.DIVERGED).to_numpy(dtype=bool)
    return pd.Series(np.where(failed, math.inf, np.exp(logs.to_numpy())), trials.index)


@remembered
def stability(study: Study) -> pd.DataFrame:
    """Training stability of each arm, over all trials that were started.

    Returns:
        A row per arm: arm, n, diverged and collapsed (counts with Clopper–Pearson ends in %),
        roughness (s.d. of the steps of ln validation error over the last half),
        fluctuation (s.d. of ln error about its trend after the first third), spikes (99th
        percentile over median of the gradient norm): medians over seeds; against the reference
        change of roughness as `CHANGE`, and of the rate of divergence, paired by seed: mcnemar (p)
        and divergence (verdict, missing where nothing diverged).
    """
    steady = steadiness(study)
    if steady.empty:
        return steady
    trials, controls = planned(study), _controls(study)
    pairs = references(trials)
    groups = {str(arm): group for arm, group in steady.groupby("arm", sort=False)}
    families = {control: family_size(trials, control=control) for control in (False, True)}
    return pd.DataFrame(
        [
            _steady_row(arm, group, groups.get(pairs.get(arm, "")), families[arm in controls])
            for arm, group in groups.items()
        ]
    )


@remembered
def steadiness(study: Study) -> pd.DataFrame:
    """The columns of `stability` for each trial of `ended`, with run_id and seed."""
    curves = study.curves[study.curves.stage == "finetune"]
    judged_by = lead(study).name
    wide = {
        name: curves[curves.metric == name].pivot(index="epoch", columns="run_id", values="value")
        for name in (f"val_{judged_by}", "grad_norm")
    }
    return pd.DataFrame(
        [_steadiness(row, wide, judged_by) for row in ended(study).to_dict("records")]
    )


def first_below(errors: pd.Series[float], limit: float) -> float:
    """Epoch at which a curve first reaches a limit, interpolated in ln error; inf if never.

    Args:
        errors: by epoch, in order.
        limit: to be reached.
    """
    epochs, values = errors.index.to_numpy(dtype=float), errors.to_numpy(dtype=float)
    below = np.flatnonzero(values <= limit)
    if len(below) == 0:
        return math.inf
    at = int(below[0])
    if at == 0:
        return float(epochs[0])
    before, after = np.log(values[at - 1 : at + 1])
    share = (before - math.log(limit)) / (before - after)
    return float(epochs[at - 1] + share * (epochs[at] - epochs[at - 1]))


def _arrivals(trial: dict[Any, Any], wide: pd.DataFrame, end: float) -> list[dict[str, object]]:
    if trial["run_id"] not in wide:
        return []
    errors = wide[trial["run_id"]].dropna()
    before = float(trial["pretrain_compute"])
    pace = (float(trial["compute"]) - before) / float(trial.get(EPOCHS, math.nan))
    kept = {name: trial[name] for name in (*RACED, "reference")}
    epochs = {target: first_below(errors, target * end) for target in TARGETS}
    return [
        kept | {"target": target, "epochs": at, "seconds": before + pace * at}
        for target, at in epochs.items()
    ]


def _speed(mine: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, object]:
    # A time without end is later than any other.
    changes = {
        n: paired_change(by_seed(mine, n), by_seed(theirs, n)) for n in ("epochs", "seconds")
    }
    fewer = {name: 1 / (1 + c.percent / 100) if c.n else math.nan for name, c in changes.items()}
    first = mine.iloc[0]
    return {name: first[name] for name in ("arm", "task", "family", "reference", "target")} | {
        "epochs": _median(mine.epochs),
        "seconds": _median(mine.seconds),
        "reached": int(np.isfinite(mine.epochs).sum()),
        "n": len(mine),
        "speedup": fewer["epochs"],
        "total": fewer["seconds"],
        "change_": changes["epochs"],
    }


def _median(values: pd.Series[float]) -> float:
    """Median by numpy, which handles infinity."""
    return float(np.median(values.to_numpy(dtype=float)))


def _steadiness(
    trial: dict[Any, Any], wide: dict[str, pd.DataFrame], error: str
) -> dict[str, object]:
    run = trial["run_id"]
    errors, norms = (
        table[run].dropna().to_numpy(dtype=float) if run in table else np.empty(0)
        for table in wide.values()
    )
    logs = np.log(errors[(errors > 0) & np.isfinite(errors)])
    limit = COLLAPSED * trial[f"trivial_{error}"]
    return {
        "run_id": run,
        "arm": trial["arm"],
        "family": trial["family"],
        "seed": trial["seed"],
        "diverged": trial["outcome"] == Outcome.DIVERGED,
        "collapsed": trial["outcome"] == Outcome.ERROR and trial[f"test_{error}"] >= limit,
        "roughness": _spread(np.diff(logs[len(logs) // 2 :])),
        "fluctuation": _about_trend(logs[len(logs) // 3 :]),
        "spikes": float(np.quantile(norms, 0.99) / np.median(norms)) if len(norms) else math.nan,
    }


def _steady_row(
    arm: str, group: pd.DataFrame, other: pd.DataFrame | None, family: int
) -> dict[str, object]:
    n = len(group)
    row: dict[str, object] = {"arm": arm, "family": group.family.iloc[0], "n": n}
    for name in ("diverged", "collapsed"):
        events = int(group[name].sum())
        low, high = proportion_interval(events, n)
        row |= {name: events, f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    row |= {name: group[name].median() for name in ("roughness", "fluctuation", "spikes")}
    if other is None:
        return row
    mine, theirs = (by_seed(rough_or_worst(rows), "roughness") for rows in (group, other))
    changed = judged([paired_change(mine, theirs)], family)[0]
    return row | changed | _divergence(group, other, family)


def rough_or_worst(steady: pd.DataFrame) -> pd.DataFrame:
    """The same with infinite roughness where a trial diverged."""
    return steady.assign(roughness=steady.roughness.mask(steady.diverged, math.inf))


def _divergence(group: pd.DataFrame, other: pd.DataFrame, family: int) -> dict[str, object]:
    """Compare how often both diverged, of the seeds that ended in both."""
    mine, theirs = (rows.groupby("seed").diverged.any() for rows in (group, other))
    pairs = pd.concat([mine, theirs], axis=1, join="inner").astype(bool)
    first, second = pairs.iloc[:, 0], pairs.iloc[:, 1]
    p = paired_rates(first.tolist(), second.tolist())
    said = rate_verdict(first.mean(), second.mean(), p, family) if pairs.any().any() else None
    return {"mcnemar": p, "divergence": said}


def _spread(values: NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _about_trend(logs: NDArray[np.float64]) -> float:
    """Standard deviation about a linear trend, so that learning itself is no fluctuation."""
    if len(logs) < 3:
        return math.nan
    at = np.arange(len(logs))
    return float(np.std(logs - np.polyval(np.polyfit(at, logs, 1), at), ddof=2))
