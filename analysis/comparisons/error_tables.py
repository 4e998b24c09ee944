"""Errors of arms and their changes, as pandas frames.

Only completed trials with finite test errors enter a mean; the rest is listed, never imputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparisons.arms import REFERRED, compared, references, varying
from analysis.comparisons.labels import AUXILIARY, AUXILIARY_TASK, RATIO, START, TASK
from analysis.comparisons.quantities import Quantity, quantities
from analysis.comparisons.selection import column, only
from analysis.comparisons.statistics import Change, holm, paired_change, verdict
from analysis.records.study_tables import Study, remembered

CHANGE = ["pairs", "change", "low", "high", "p", "adjusted", "spread", "effect", "verdict"]
"""Columns of a comparison: see `Change`; `adjusted` is p after Holm's correction."""


def is_ablation(study: Study) -> bool:
    """Check whether there are arms to compare with each other."""
    return compared(study).arm.nunique() > 1


@remembered
def final_errors(study: Study) -> pd.DataFrame:
    """Test errors of each arm, and their change against its reference.

    One row per quantity and arm: n, mean and std in `unit`, trivial predictor's error,
    reference, pairs, change in % with its 95 % interval, p, effect size and verdict.
    """
    trials = compared(study)
    reported = quantities(study)
    values = {
        f"{part}{q.name}": trials[f"{of}_{q.name}"] * q.scale
        for q in reported
        for part, of in (("", "test"), ("trivial_", "trivial"))
    }
    return compare(trials.assign(**values), reported)


@remembered
def early_errors(study: Study) -> pd.DataFrame:
    """Validation errors at the first evaluation in finetuning; columns as in `final_errors`."""
    trials = compared(study)
    curves = finetuning(study)
    reported = quantities(study)
    names = [f"val_{q.name}" for q in reported]
    first = curves[curves.epoch == curves[curves.metric.isin(names)].epoch.min()]
    wide = first.pivot(index="run_id", columns="metric", values="value").reindex(columns=names)
    values = wide.reindex(trials.run_id).reset_index(drop=True)
    named = {q.name: values[f"val_{q.name}"] * q.scale for q in reported}
    trivial = {f"trivial_{q.name}": np.nan for q in reported}  # Recorded on test data only.
    return compare(trials.assign(**named, **trivial), reported)


def compare(trials: pd.DataFrame, quantities: Sequence[Quantity]) -> pd.DataFrame:
    """Mean of each arm, and its change against `references`, for each quantity.

    Holm's correction is over the arms that were pretrained, and over the controls apart.
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


def judged(changes: Sequence[Change]) -> list[dict[str, object]]:
    """Columns of `CHANGE` for a family of comparisons."""
    adjusted = holm([change.p for change in changes])
    rows = [
        (c.n, c.percent, c.low, c.high, c.p, p, c.spread, c.effect, verdict(c, p))
        for c, p in zip(changes, adjusted, strict=True)
    ]
    return [dict(zip(CHANGE, values, strict=True)) for values in rows]


def by_seed(trials: pd.DataFrame, name: str) -> pd.Series[float]:
    """Values of one arm, by seed."""
    return trials.groupby("seed")[name].mean()


@remembered
def finetuning(study: Study) -> pd.DataFrame:
    """Finetuning curves of the compared trials, with arm and seed."""
    names = ["run_id", "arm", "task", "ratio", "noise", "family", "seed"]
    trials = compared(study).reindex(columns=names)
    curves = study.curves[study.curves.stage == "finetune"]
    return curves.merge(trials, on="run_id", how="inner")


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
    """Every trial: the settings that vary, status, final errors, seconds."""
    trials = study.trials
    table = trials[["number", *differing(study), "status"]].copy()
    for q in quantities(study):
        table[f"{q.label} ({q.unit})"] = trials[f"test_{q.name}"] * q.scale
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
    finite = trials[np.isfinite(trials[q.name].astype(float))]
    groups = {str(name): group for name, group in finite.groupby("arm", sort=False)}
    pairs = {a: r for a, r in references(finite).items() if r in groups}
    judgements: dict[str, dict[str, object]] = {}
    for control in (False, True):
        family = [arm for arm in pairs if is_control(groups[arm]) == control]
        changes = [
            paired_change(by_seed(groups[arm], q.name), by_seed(groups[pairs[arm]], q.name))
            for arm in family
        ]
        judgements |= dict(zip(family, judged(changes), strict=True))
    return [
        _summary(q, group) | {"reference": pairs.get(arm)} | judgements.get(arm, {})
        for arm, group in groups.items()
    ]


def _summary(q: Quantity, group: pd.DataFrame) -> dict[str, Any]:
    first = group.iloc[0]
    return {name: first[name] for name in ("arm", "task", "ratio", "setting", "family")} | {
        "quantity": q.name,
        "unit": q.unit,
        "scratch": bool(first.scratch),
        "control": is_control(group),
        "n": len(group),
        "mean": group[q.name].mean(),
        "std": group[q.name].std(),
        "trivial": group[f"trivial_{q.name}"].mean(),
    }
