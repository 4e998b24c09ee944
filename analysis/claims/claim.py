"""A claim, and how it is measured: which trials it is about, and what they are set against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from analysis.comparisons.controls import competitors
from analysis.comparisons.error_tables import by_seed, finetuning
from analysis.comparisons.labels import EPOCHS, LABELS, OTHER_DATA
from analysis.comparisons.selection import column
from analysis.comparisons.statistics import FEWEST, Change, Claim, change_of, paired_change
from analysis.comparisons.training_curves import arrivals, learning_area, steadiness
from analysis.records.study_tables import Study

NO_CHANGE = Change(0, math.nan, math.nan, math.nan, math.nan)


FILE = Path(__file__).parent / "claims.yaml"

ARRIVED = 1.2
"""Of `TARGETS`: at the final error itself noise decides who gets there."""

DIRECTIONS = {"lower": -1, "none": 0, "higher": 1}


@dataclass(frozen=True)
class Statement:
    """An entry of `claims.yaml`, which explains its keys."""

    id: str
    place: str
    text: str
    printed: str = ""
    needs: str = ""
    measure: str = "final"
    quantity: str = "force_rmse"
    arm: dict[str, Any] | None = None
    against: str | dict[str, Any] = "scratch"
    direction: str = "lower"
    full: tuple[float, float] = (math.nan, math.nan)
    reduced: tuple[float, float] = (math.nan, math.nan)
    seeds: int = FEWEST

    def claim(self, scale: str) -> Claim:
        """What is claimed at this scale."""
        return Claim(DIRECTIONS[self.direction], *(self.full if scale == "full" else self.reduced))


def chosen(trials: pd.DataFrame, selector: dict[str, Any]) -> pd.DataFrame:
    """Trials of the arms that a claim is about."""
    conditions = [
        trials.placebo == selector.get("placebo", False),
        (trials.auxiliary != "") == selector.get("auxiliary", False),
        _pretrained_on(trials, selector.get("pretrained_on", [None])),
    ]
    if "task" in selector:
        conditions.append(_does(trials, selector["task"]))
    for name, (setting, usual) in USUAL.items():
        unset = column(trials, setting).isna()
        conditions.append(unset | _have(trials, setting, selector.get(name, usual)))
    for name, setting in SETTINGS.items():
        if name in selector:
            conditions.append(_have(trials, setting, selector[name]))
    if "dataset" in selector:
        conditions.append(column(trials, "dataset.name").isin(readers(selector["dataset"])))
        # The papers' water is rigid.
        conditions.append(~_have(trials, "dataset.flexible", wanted=True))
    if "file" in selector:
        paths = column(trials, "dataset.path").astype(str).str.lower()
        conditions.append(paths.str.contains(selector["file"], regex=False))
    fits = np.logical_and.reduce([np.asarray(holds, dtype=bool) for holds in conditions])
    kept: pd.DataFrame = trials[fits]
    if selector.get("longer") and len(kept):
        shortest = kept.groupby("family")[EPOCHS].transform("min")
        kept = kept[kept[EPOCHS] > shortest]
    return kept


def _does(trials: pd.DataFrame, task: str) -> NDArray[np.bool_]:
    """Whether trials were pretrained by a task, alone; or by none, for `scratch`."""
    if task == "scratch":
        return np.asarray(trials.pretext == "", dtype=bool)
    alone = [" + " not in told and told.split()[:1] == [task] for told in trials.pretext]
    return np.array(alone, dtype=bool)


def _pretrained_on(trials: pd.DataFrame, wanted: Sequence[str | None] | str) -> NDArray[np.bool_]:
    """Whether the data of pretraining are one of these; none is the trial's own.

    Or `any` of all, or any `other` than the trial's own.
    """
    names = column(trials, f"{OTHER_DATA}name")
    if wanted == "any":
        return np.ones(len(trials), dtype=bool)
    if wanted == "other":
        return np.asarray(names.notna(), dtype=bool)
    known = [reader for name in wanted if name is not None for reader in readers(name)]
    found = names.isin(known) | (names.isna() if None in wanted else False)
    return np.asarray(found, dtype=bool)


def readers(name: str) -> list[str]:
    """Data sets of a study that are the one that a claim names."""
    known: dict[str, list[str]] = content()["readers"]
    return known.get(name, [name])


@cache
def content() -> dict[str, Any]:
    """`claims.yaml`."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return read


def _have(trials: pd.DataFrame, setting: str, wanted: Any) -> NDArray[np.bool_]:
    return np.array([equal(value, wanted) for value in column(trials, setting)], dtype=bool)


SETTINGS = {
    "model": "model.name",
    "activation": "model.activation",
    "ratio": "ratio",
    "noise": "noise",
}

USUAL = {
    "within": ("pretrain.task.within", "water"),
    "atom": ("pretrain.task.atom", "hydrogen"),
    "trainable": ("finetune.trainable", "all"),
    "pretrain_precision": ("pretrain.precision", "float32"),
    "precision": ("finetune.precision", "float32"),
}
"""Settings that have the papers' value unless a claim names another, as far as trials have them."""


def measured(study: Study, trials: pd.DataFrame, statement: Statement) -> pd.DataFrame:
    """Trials with what is compared as `value`."""
    if statement.measure == "final" or statement.measure in GAINS:
        return trials.assign(value=trials[f"test_{statement.quantity}"])
    if statement.measure == "early":
        curves = finetuning(study)
        curves = curves[curves.metric == f"val_{statement.quantity}"]
        first = curves[curves.epoch == curves.epoch.min()].set_index("run_id").value
    elif statement.measure == "learning":
        first = np.exp(learning_area(study).set_index("run_id")["log"])
    elif statement.measure == "arrival":
        told = arrivals(study)
        first = told[told.target == ARRIVED].set_index("run_id").epochs.replace(math.inf, math.nan)
    else:
        first = steadiness(study).set_index("run_id").roughness
    return trials.assign(value=trials.run_id.map(first).astype(float))


def compared_as(
    statement: Statement, mine: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    """The change that a statement is about, if the study has it, and all trials behind it.

    Args:
        statement: the claim.
        mine: trials that it is about.
        values: all trials, with `value` as of `measured`.
    """
    if statement.measure in GAINS:
        return _gain(statement.measure, mine, values)
    return _against(statement, mine, values)


def _against(
    statement: Statement, mine: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    """The arm with most pairs against what the statement names, and all trials of both."""
    best: tuple[Change | None, pd.DataFrame] = None, values[:0]
    for arm, group in mine.groupby("arm", sort=False):
        change, others = _competitor(statement, str(arm), group, values)
        if change is not None and (best[0] is None or change.n > best[0].n):
            best = change, pd.concat([group, others])
    return best


def _competitor(
    statement: Statement, arm: str, group: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    other = statement.against
    if group.scratch.iloc[0]:
        same = values[values.scratch & (values.family == group.family.iloc[0])]
        others = same[same[EPOCHS] == same[EPOCHS].min()]
    elif isinstance(other, dict) or other == "others":
        same = values[(values.setting == group.setting.iloc[0]) & (values.arm != arm)]
        others = chosen(same, other if isinstance(other, dict) else {"task": "masking"})
    else:
        found = competitors(arm, values).get(other)
        if found is None:
            return None, values[:0]
        return found[2], values[values.arm.isin(found[0].split(" … "))]
    if others.empty:
        return None, others
    reference = np.exp(np.log(others.value).groupby(others.seed).mean())
    return paired_change(by_seed(group, "value"), reference.rename("value")), others


GAINS: dict[str, tuple[str, Callable[[Iterable[Any]], Any], Callable[[Iterable[Any]], Any]]] = {
    "labels": (LABELS, min, max),
    "size": ("parameters", max, min),
}
"""Measures of how the gain depends on a count: at which of its values against which."""


def _gain(
    measure: str, mine: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    """Gain at one value of a count against the gain at another, of one kind of model, by seed."""
    name, here, there = GAINS[measure]
    counts = pd.to_numeric(column(mine, name)).astype(float)
    kinds = column(mine, "model.name").astype(str)
    mine = mine[kinds == counts.groupby(kinds).nunique().idxmax()]
    gains: dict[Any, pd.Series[float]] = {}
    others = values[values.scratch]
    for number, group in mine.groupby(counts):
        same = others[others.setting == group.setting.iloc[0]]
        pair = pd.concat([by_seed(group, "value"), by_seed(same, "value")], axis=1, join="inner")
        gains[number] = pair.iloc[:, 0].div(pair.iloc[:, 1]).map(math.log)
    if len(gains) < 2:
        return None, others
    both = pd.concat([gains[here(gains)], gains[there(gains)]], axis=1, join="inner")
    behind = pd.concat([mine, others[others.setting.isin(mine.setting)]])
    return change_of([float(x) for x in both.iloc[:, 0] - both.iloc[:, 1]]), behind


def equal(value: Any, wanted: Any) -> bool:
    """Whether a setting has a value that `claims.yaml` names."""
    if isinstance(wanted, float) and not isinstance(value, str):
        return not pd.isna(value) and math.isclose(float(value), wanted, rel_tol=1e-9)
    return not pd.isna(value) and bool(value == wanted)


@dataclass(frozen=True)
class Finding:
    """What one study says of a statement.

    Args:
        statement: the claim.
        verdict: in the words of `judge`, or not run, or different data.
        reason: why there is no verdict, or what else it rests on.
        study: name of the study.
        scale: full (the paper's profile) or reduced.
        change: of the arm against what it is claimed to beat.
        told: the finding where it is no change.
        reading: which of the paper's readings the trials used.
        needed: seeds that the claim would need, at the spread that was found.
        run_ids: MLflow runs behind the numbers.
        keys: hashes of that work, or of the data; studies that share it share the finding.
    """

    statement: Statement
    verdict: str
    reason: str = ""
    study: str = ""
    scale: str = ""
    change: Change = NO_CHANGE
    told: str = ""
    reading: str = ""
    needed: int | None = None
    run_ids: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
