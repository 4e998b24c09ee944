"""Errors of arms and their changes, as pandas frames.

Only completed trials with finite test errors enter a mean. In comparisons a diverged trial counts
as worse than any other; what was stopped or has not ended is listed, and nothing is imputed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparisons.arms import REFERRED, references, varying
from analysis.comparisons.labels import AUXILIARY, AUXILIARY_TASK, RATIO, START, TASK
from analysis.comparisons.outcomes import (
    Outcome,
    compared,
    ended,
    family_size,
    planned,
)
from analysis.comparisons.quantities import Quantity, lead, quantities, tabled
from analysis.comparisons.selection import column, only
from analysis.records.study_tables import Study, remembered
from analysis.statistics.change import Change, paired_change
from analysis.statistics.verdict import verdict

CHANGE = [
    *("pairs", "change", "low", "high", "p", "adjusted", "spread", "effect", "verdict"),
    *("family_size", "ended", "failed", "reference_failed", "missing"),
]
"""Columns of a comparison, see `Change`; `verdict` is decided by the interval that they hold."""


def is_ablation(study: Study) -> bool:
    """Check whether there are arms to compare with each other."""
    return planned(study).arm.nunique() > 1


@remembered
def final_errors(study: Study) -> pd.DataFrame:
    """Test errors of each arm, and their change against its reference.

    One row per quantity and arm: n, mean and std in `unit`, trivial predictor's error,
    reference, and the columns of `CHANGE`.
    """
    return _tested(study, quantities(study))


@remembered
def tabled_errors(study: Study) -> pd.DataFrame:
    """The same with the errors of stresses, which nothing is judged by."""
    return _tested(study, tabled(study))


def _tested(study: Study, reported: Sequence[Quantity]) -> pd.DataFrame:
    trials = planned(study)
    values = {
        f"{part}{q.name}": trials[f"{of}_{q.name}"] * q.scale
        for q in reported
        for part, of in (("", "test"), ("trivial_", "trivial"))
    }
    return compare(trials.assign(**values), reported)


@remembered
def early_errors(study: Study) -> pd.DataFrame:
    """Validation errors at the first evaluation in finetuning; columns as in `final_errors`."""
    trials = planned(study)
    reported = quantities(study)
    values = first_errors(study).reindex(trials.run_id).reset_index(drop=True)
    named = {q.name: values[f"val_{q.name}"] * q.scale for q in reported}
    trivial = {f"trivial_{q.name}": np.nan for q in reported}  # Recorded on test data only.
    return compare(trials.assign(**named, **trivial), reported)


@remembered
def first_errors(study: Study) -> pd.DataFrame:
    """Validation errors at the first evaluation, by run; infinite for one that diverged before."""
    trials = ended(study)
    curves = _curves_of(study, trials)
    names = [f"val_{q.name}" for q in quantities(study)]
    first = curves[curves.epoch == curves[curves.metric.isin(names)].epoch.min()]
    wide = first.pivot(index="run_id", columns="metric", values="value").reindex(columns=names)
    wide = wide.astype(float).reindex(trials.run_id)
    failed = (trials.outcome == Outcome.DIVERGED).to_numpy(dtype=bool)
    # Of some errors a data set has no labels, so that no trial has them.
    labelled = wide.notna().any().to_numpy()
    lost = wide.isna().to_numpy() & failed[:, None] & labelled
    errors: pd.DataFrame = wide.mask(lost, np.inf)
    return errors


def compare(trials: pd.DataFrame, quantities: Sequence[Quantity]) -> pd.DataFrame:
    """Mean of each arm, and its change against `references`, for each quantity.

    The intervals of the arms that were pretrained hold together, and so do those of the controls.
    """
    shown = [f"{part}{q.name}" for q in quantities for part in ("", "trivial_")]
    narrow = only(trials, [*REFERRED, "seed", "task", "ratio", "placebo", *shown])
    rows = [row for q in quantities for row in _rows(q, narrow)]
    columns = [
        "quantity",
        "unit",
        "arm",
        "task",
        "ratio",
        "setting",
        "family",
        "scratch",
        "control",
    ]
    columns += ["n", "mean", "std", "trivial", "reference", *CHANGE]
    return pd.DataFrame(rows, columns=columns)


def is_control(group: pd.DataFrame) -> bool:
    """Check whether an arm is a control: from scratch, or a placebo."""
    return bool(group.scratch.iloc[0] or group.placebo.iloc[0])


def judged(changes: Sequence[Change], family: int) -> list[dict[str, object]]:
    """Columns of `CHANGE`, with intervals that hold together in a family of that size."""
    rows = [
        (
            *(c.n, c.percent, c.low, c.high, c.p, c.adjusted, c.spread, c.effect, verdict(c)),
            *(c.family, c.ended, c.failed, c.reference_failed, c.missing),
        )
        for c in (change.simultaneous(family) for change in changes)
    ]
    return [dict(zip(CHANGE, values, strict=True)) for values in rows]


def by_seed(trials: pd.DataFrame, name: str) -> pd.Series[float]:
    """Values of one arm, by seed."""
    return trials.groupby("seed")[name].mean()


@remembered
def finetuning(study: Study) -> pd.DataFrame:
    """Finetuning curves of the compared trials, with arm and seed."""
    return _curves_of(study, compared(study))


@remembered
def finetuning_of_all(study: Study) -> pd.DataFrame:
    """The same, also of trials that diverged."""
    return _curves_of(study, ended(study))


def _curves_of(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    names = ["run_id", "arm", "task", "ratio", "noise", "family", "seed"]
    curves = study.curves[study.curves.stage == "finetune"]
    return curves.merge(trials.reindex(columns=names), on="run_id", how="inner")


@remembered
def pretraining(study: Study) -> pd.DataFrame:
    """Validation loss of the completed pretrainings of arms: arm, seed, epoch, value."""
    trials = compared(study)
    served = trials[trials.pretext != ""].drop_duplicates("pretraining").set_index("pretraining")
    works = study.pretrainings[study.pretrainings.status == "completed"]
    works = works[works.key.isin(served.index)].reindex(columns=["run_id", "key", "seed"])
    for name in ("ratio", "noise", "placebo", "family"):
        works[name] = works.key.map(served[name])
    works["task"] = works.key.map(_named(served))
    of_loss = (study.curves.stage == "pretrain") & (study.curves.metric == "val_loss")
    curves = study.curves[of_loss].drop(columns="key").merge(works, on="run_id", how="inner")
    finite: pd.DataFrame = curves[np.isfinite(curves.value)]
    order = ["family", "placebo", "ratio", "noise", "task", "run_id", "epoch"]
    return finite.sort_values(order).reset_index(drop=True)


def _named(trials: pd.DataFrame) -> pd.Series[str]:
    """Names of pretext tasks, with their data set if it differs from that of finetuning."""
    return trials.pretext.str.cat(trials.variant, sep=", ").str.removesuffix(", ")


def pretext(study: Study) -> pd.DataFrame:
    """Final validation loss per task: family, task, ratio, n, mean, std; 1 is chance."""
    by = ["family", "task", "ratio", "noise", "placebo"]
    last = pretraining(study).groupby([*by, "run_id"], sort=False, dropna=False)["value"].last()
    table = last.groupby(by, sort=False, dropna=False).agg(n="count", mean="mean", std="std")
    return table.reset_index()


def results(study: Study) -> pd.DataFrame:
    """Every trial: the settings that vary, status, final errors, seconds.

    Each seed has test frames of its own: `of trivial` is the first error over the trivial
    predictor's on the same frames, which makes trials of different seeds comparable.
    """
    trials = study.trials
    table = trials[["number", *differing(study), "status"]].copy()
    for q in tabled(study):
        table[f"{q.label} ({q.unit})"] = trials[f"test_{q.name}"] * q.scale
    first = lead(study).name
    ours, trivial = (column(trials, f"{part}_{first}") for part in ("test", "trivial"))
    table["of trivial"] = ours.astype(float) / trivial.astype(float)
    table["seconds"] = trials.seconds
    return table.sort_values("number", kind="stable").reset_index(drop=True)


def differing(study: Study) -> list[str]:
    """Settings that differ between trials; those of pretraining only if pretrained ones differ."""
    trials = study.trials
    pretrained = trials[column(trials, TASK).notna()]
    own = [name for name in study.settings if name.startswith("pretrain.") and name != RATIO]
    beside = [name for name in study.settings if name.startswith(AUXILIARY)]
    names = varying(
        trials, [name for name in study.settings if name not in {*own, *beside, "pretrain"}]
    )
    helped = trials[column(trials, AUXILIARY_TASK).notna()]
    names += varying(helped, beside)
    if 0 < len(helped) < len(trials) and AUXILIARY_TASK not in names:
        names.append(AUXILIARY_TASK)
    if RATIO not in names and TASK in own and trials[TASK].nunique(dropna=False) > 1:
        names.append(TASK)
    names += [START] if START in own else []
    return sorted({*names, *varying(pretrained, own)})


def _rows(q: Quantity, trials: pd.DataFrame) -> list[dict[str, object]]:
    measured = trials[trials[q.name].notna()]
    everyone = {str(name): group for name, group in trials.groupby("arm", sort=False)}
    groups = {str(name): group for name, group in measured.groupby("arm", sort=False)}
    pairs = {a: r for a, r in references(trials).items() if a in groups and r in groups}
    judgements: dict[str, dict[str, object]] = {}
    for control in (False, True):
        family = [arm for arm in pairs if is_control(groups[arm]) == control]
        changes = [
            paired_change(by_seed(everyone[arm], q.name), by_seed(everyone[pairs[arm]], q.name))
            for arm in family
        ]
        size = family_size(trials, control=control)
        judgements |= dict(zip(family, judged(changes, size), strict=True))
    return [
        _summary(q, group) | {"reference": pairs.get(arm)} | judgements.get(arm, {})
        for arm, group in groups.items()
    ]


def _summary(q: Quantity, group: pd.DataFrame) -> dict[str, Any]:
    first = group.iloc[0]
    finite = group[np.isfinite(group[q.name].astype(float))]
    return {name: first[name] for name in ("arm", "task", "ratio", "setting", "family")} | {
        "quantity": q.name,
        "unit": q.unit,
        "scratch": bool(first.scratch),
        "control": is_control(group),
        "n": len(finite),
        "mean": finite[q.name].mean(),
        "std": finite[q.name].std(),
        "trivial": finite[f"trivial_{q.name}"].mean(),
    }
