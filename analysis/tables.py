"""Tables of a study, as pandas frames.

Only completed trials with finite test errors enter a mean; the rest is listed, never imputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import Study
from analysis.statistics import holm, paired_change, verdict

RATIO = "pretrain.task.masking_ratio"
TASK = "pretrain.task.name"
SCRATCH = "from scratch"
MILLI = 1000
"""Tables and figures show meV; records hold eV."""
CHANGE = ["pairs", "change", "low", "high", "p", "verdict"]
"""Columns that compare an arm with training from scratch."""


FEW_ARMS = 8
"""As many as colours and markers tell apart."""


@dataclass(frozen=True)
class Quantity:
    """An error that is reported.

    Args:
        name: metric without `test_` or `val_`.
        label: in words.
        unit: of the tables and figures.
    """

    name: str
    label: str
    unit: str


FORCE = Quantity("force_rmse", "Force RMSE", "meV/Å")
ENERGY = Quantity("energy_rmse", "Energy RMSE", "meV/atom")
FRAME_ENERGY = Quantity("frame_energy_rmse", "Energy RMSE", "meV/frame")
QUANTITIES = (FORCE, ENERGY, FRAME_ENERGY)


def arms(study: Study) -> pd.DataFrame:
    """Trials with the columns `arm`, `ratio` and `setting`.

    Trials of one arm differ by their seed alone. `setting` names what differs between trials
    besides pretraining; an arm is compared with the from-scratch trials of the same setting.
    """
    trials = study.trials.copy()
    scratch = _column(trials, TASK).isna()
    own = [
        name
        for name in study.settings
        if name.startswith(("pretrain", "transfer")) and name not in {RATIO, TASK}
    ]
    shared = [name for name in study.settings if name not in {*own, RATIO, TASK, "seed"}]
    trials["ratio"] = pd.to_numeric(_column(trials, RATIO)).astype(float)
    trials["setting"] = _spelled(trials, varying(trials, shared))
    variant = _spelled(trials, varying(trials[~scratch], own)).mask(scratch, "")
    base = [
        SCRATCH if bare else (str(task) if np.isnan(ratio) else f"ratio {ratio:g}")
        for bare, task, ratio in zip(scratch, _column(trials, TASK), trials.ratio, strict=True)
    ]
    parts = zip(base, variant, trials.setting, strict=True)
    trials["arm"] = [", ".join(filter(None, part)) for part in parts]
    trials["scratch"] = scratch
    return trials


def varying(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those columns that do not have one value throughout."""
    return [name for name in names if frame[name].nunique(dropna=False) > 1]


def excluded(study: Study) -> pd.DataFrame:
    """Work that enters no mean: kind, number, key, arm, seed, status, reason."""
    unfinished = study.pretrainings[study.pretrainings.status != "completed"]
    work = pd.concat([unfinished, arms(study)], ignore_index=True)
    work["reason"] = [_why(row) for _, row in work.iterrows()]
    columns = ["kind", "number", "key", "arm", "seed", "status", "reason"]
    return work[work.reason != ""].reindex(columns=columns).reset_index(drop=True)


def included(study: Study) -> pd.DataFrame:
    """Trials that enter the means, from scratch first, then by ratio and seed."""
    trials = arms(study)
    kept = trials[np.array([_why(row) == "" for _, row in trials.iterrows()], dtype=bool)]
    by = [name for name in ("setting", "ratio", "arm", "seed") if name in kept]
    return kept.sort_values(by, na_position="first", kind="stable").reset_index(drop=True)


def is_ablation(study: Study) -> bool:
    """Whether pretrained arms can be compared; more than a few arms are a search."""
    trials = included(study)
    return not trials.scratch.all() and trials.arm.nunique() <= FEW_ARMS


def final_errors(study: Study) -> pd.DataFrame:
    """Test errors of each arm, and their change against training from scratch.

    One row per quantity and arm: n, mean and std in `unit`, trivial predictor's error,
    pairs, change in % with its 95 % interval, p (Holm over the arms) and verdict.
    """
    trials = included(study)
    return _compare(trials.assign(**{q.name: trials[f"test_{q.name}"] * MILLI for q in QUANTITIES}))


def early_errors(study: Study) -> pd.DataFrame:
    """The same at the first evaluation in finetuning, on validation data."""
    trials = included(study)
    curves = finetuning(study)
    names = [f"val_{q.name}" for q in QUANTITIES]
    first = curves[curves.epoch == curves[curves.metric.isin(names)].epoch.min()]
    wide = first.pivot(index="run_id", columns="metric", values="value").reindex(columns=names)
    values = wide.reindex(trials.run_id).reset_index(drop=True) * MILLI
    named = {q.name: values[f"val_{q.name}"] for q in QUANTITIES}
    unknown = {f"trivial_{q.name}": np.nan for q in QUANTITIES}  # Known of the test data only.
    return _compare(trials.assign(**named, **unknown))


def finetuning(study: Study) -> pd.DataFrame:
    """Finetuning curves of the included trials, with arm and seed."""
    trials = included(study).reindex(columns=["run_id", "arm", "ratio", "seed"])
    curves = study.curves[study.curves.stage == "finetune"]
    return curves.merge(trials, on="run_id", how="inner")


def pretraining(study: Study) -> pd.DataFrame:
    """Validation loss of the completed pretrainings by masking: ratio, seed, epoch, value."""
    works = study.pretrainings
    ratio = pd.to_numeric(_column(works, RATIO)).astype(float)
    kept = works.assign(ratio=ratio)[(works.status == "completed") & ratio.notna()]
    chosen = (study.curves.stage == "pretrain") & (study.curves.metric == "val_loss")
    columns = kept.reindex(columns=["run_id", "ratio", "seed"])
    curves = study.curves[chosen].merge(columns, on="run_id", how="inner")
    finite: pd.DataFrame = curves[np.isfinite(curves.value)]
    return finite.sort_values(["ratio", "run_id", "epoch"]).reset_index(drop=True)


def pretext(study: Study) -> pd.DataFrame:
    """Final validation loss of pretraining per ratio: n, mean, std; 1 is chance."""
    last = pretraining(study).groupby(["ratio", "run_id"])["value"].last()
    table = last.groupby("ratio").agg(n="count", mean="mean", std="std")
    return table.reset_index()


def results(study: Study) -> pd.DataFrame:
    """Every trial of any study: the settings that vary, status, final errors, seconds."""
    trials = study.trials
    table = trials[["number", *differing(study), "status"]].copy()
    for q in QUANTITIES:
        table[f"{q.label} ({q.unit})"] = trials[f"test_{q.name}"] * MILLI
    table["seconds"] = trials.seconds
    return table.sort_values("number", kind="stable").reset_index(drop=True)


def differing(study: Study) -> list[str]:
    """Settings that tell trials apart; those of pretraining only if pretrained trials differ."""
    trials = study.trials
    pretrained = trials[_column(trials, TASK).notna()]
    own = [name for name in study.settings if name.startswith("pretrain.") and name != RATIO]
    names = varying(trials, [name for name in study.settings if name not in own])
    if RATIO not in names and TASK in own:
        names += varying(trials, [TASK])
    return sorted({*names, *varying(pretrained, own)})


def cost(study: Study) -> pd.DataFrame:
    """Compute of each stage: pieces of work, total and median seconds."""
    stages = {"pretraining": study.pretrainings, "finetuning": study.trials}
    rows = [
        {
            "stage": stage,
            "pieces": len(work),
            "seconds": work.seconds.sum(),
            "median": work.seconds.median() if len(work) else np.nan,
        }
        for stage, work in stages.items()
    ]
    return pd.DataFrame(rows)


def reuse(study: Study) -> pd.DataFrame:
    """Per pretraining: how many trials started from it, its seconds, and those that saved."""
    uses = study.trials.pretraining.value_counts()
    table = study.pretrainings.reindex(columns=["key", RATIO, "seed", "status", "seconds"])
    table["trials"] = [int(uses.get(key, 0)) for key in table.key]
    table["saved"] = table.seconds.fillna(0) * (table.trials - 1).clip(lower=0)
    return table


def _compare(trials: pd.DataFrame) -> pd.DataFrame:
    rows = [row for q in QUANTITIES for row in _rows(q, trials)]
    columns = ["quantity", "unit", "arm", "ratio", "setting", "n", "mean", "std", "trivial"]
    return pd.DataFrame(rows, columns=[*columns, *CHANGE])


def _rows(q: Quantity, trials: pd.DataFrame) -> list[dict[str, object]]:
    finite = trials[np.isfinite(trials[q.name])]
    groups = [group for _, group in finite.groupby("arm", sort=False)]
    pretrained = [group for group in groups if not group.scratch.iloc[0]]
    changes = [paired_change(_by_seed(g, q), _reference(g, finite, q)) for g in pretrained]
    adjusted = holm([change.p for change in changes])
    compared = {
        group.arm.iloc[0]: (c.n, c.percent, c.low, c.high, p, verdict(c, p))
        for group, c, p in zip(pretrained, changes, adjusted, strict=True)
    }
    return [
        _summary(q, group) | dict(zip(CHANGE, compared.get(group.arm.iloc[0], ()), strict=False))
        for group in groups
    ]


def _summary(q: Quantity, group: pd.DataFrame) -> dict[str, object]:
    return {
        "quantity": q.name,
        "unit": q.unit,
        "arm": group.arm.iloc[0],
        "ratio": group.ratio.iloc[0],
        "setting": group.setting.iloc[0],
        "n": len(group),
        "mean": group[q.name].mean(),
        "std": group[q.name].std(),
        "trivial": group[f"trivial_{q.name}"].mean() * MILLI,
    }


def _reference(group: pd.DataFrame, trials: pd.DataFrame, q: Quantity) -> pd.Series[float]:
    return _by_seed(trials[trials.scratch & (trials.setting == group.setting.iloc[0])], q)


def _by_seed(trials: pd.DataFrame, q: Quantity) -> pd.Series[float]:
    return trials.groupby("seed")[q.name].mean()


def _why(trial: pd.Series[Any]) -> str:
    """Why a trial enters no mean; empty if it does."""
    if trial.status == "completed":
        bad = [q.name for q in QUANTITIES if not np.isfinite(trial[f"test_{q.name}"])]
        return f"completed, but without a finite test {bad[0]}" if bad else ""
    given = trial.reason if isinstance(trial.reason, str) else ""
    return given or REASONS.get(trial.status, "no reason was recorded")


REASONS = {
    "running": "still running, or its process died",
    "killed": "interrupted before it ended",
    "stopped": "stopped early by the scheduler",
}


def _column(frame: pd.DataFrame, name: str) -> pd.Series[str]:
    return frame[name] if name in frame else pd.Series(None, frame.index, dtype="str")


def _spelled(frame: pd.DataFrame, names: Sequence[str]) -> pd.Series[str]:
    """`name=value` of the given columns, as one text per row."""
    texts = [
        ", ".join(f"{name} {row[name]}" for name in names if not pd.isna(row[name]))
        for _, row in frame.iterrows()
    ]
    return pd.Series(texts, frame.index, dtype="str")
