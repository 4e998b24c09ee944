"""A claim and its measurement: which trials it is about, and their reference."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from analysis.claims.gains import GAINS, gain
from analysis.claims.sizes import SIZES
from analysis.comparisons.controls import changes_from_controls
from analysis.comparisons.error_tables import by_seed, first_errors
from analysis.comparisons.labels import EPOCHS, OTHER_DATA
from analysis.comparisons.selection import column
from analysis.comparisons.training_curves import (
    arrivals,
    rough_or_worst,
    steadiness,
    while_learning_errors,
)
from analysis.records.study_tables import Study
from analysis.statistics.change import FEWEST, Change, paired_change
from analysis.statistics.verdict import Claim

NO_CHANGE = Change(0, math.nan, math.nan, math.nan, math.nan)


FILE = Path(__file__).parent / "claims.yaml"

ARRIVED = 1.2
"""The one of `TARGETS` that claims use: at the final error itself noise decides who arrives."""

DIRECTIONS = {"lower": -1, "none": 0, "higher": 1}


@dataclass(frozen=True)
class Statement:
    """An entry of `claims.yaml`, which explains its keys."""

    id: str
    place: str
    text: str
    origin: str
    source: str = ""
    printed: str = ""
    derived: str = ""
    needs: str = ""
    space: str = ""
    profile: str = "paper"
    parts: tuple[str, ...] = ()
    enough: int = 0
    measure: str = "final"
    quantity: str = "force_rmse"
    arm: dict[str, Any] | None = None
    against: str | dict[str, Any] = "scratch"
    direction: str = "lower"
    full: tuple[float, float] = (math.nan, math.nan)
    reduced: tuple[float, float] = (math.nan, math.nan)
    seeds: int = FEWEST

    @property
    def paper(self) -> str:
        """The arXiv number of its paper; empty for controls, which are in none."""
        named = re.match(r"arXiv:(\d+\.\d+)", self.place)
        if named:
            return named[1]
        return "" if self.place.startswith("Control") else str(content()["paper"]["arXiv"])

    @property
    def command(self) -> str:
        """What runs the study that answers it; empty if no space does."""
        if not self.space:
            return ""
        return f"python -m study.run --space {self.space} --profile {self.profile}"

    def claim(self, scale: str) -> Claim:
        """Direction and band at a scale, `full` or `reduced`."""
        return Claim(DIRECTIONS[self.direction], *(self.full if scale == "full" else self.reduced))


def select(trials: pd.DataFrame, selector: dict[str, Any]) -> pd.DataFrame:
    """Select the trials of the arms that a claim is about."""
    conditions = [
        trials.placebo == selector.get("placebo", False),
        (trials.auxiliary != "") == selector.get("auxiliary", False),
        _pretrained_on(trials, selector.get("pretrained_on", [None])),
    ]
    if "task" in selector:
        conditions.append(_has_task(trials, selector["task"]))
    for name, (setting, usual) in USUAL.items():
        unset = column(trials, setting).isna()
        conditions.append(unset | _equals(trials, setting, selector.get(name, usual)))
    for name, setting in SETTINGS.items():
        if name in selector:
            conditions.append(_equals(trials, setting, selector[name]))
    if "dataset" in selector:
        conditions.append(column(trials, "dataset.name").isin(readers(selector["dataset"])))
        # The papers' water is rigid.
        conditions.append(~_equals(trials, "dataset.flexible", wanted=True))
    if "file" in selector:
        paths = column(trials, "dataset.path").astype(str).str.lower()
        conditions.append(paths.str.contains(selector["file"], regex=False))
    fits = np.logical_and.reduce([np.asarray(holds, dtype=bool) for holds in conditions])
    kept: pd.DataFrame = trials[fits]
    if selector.get("longer") and len(kept):
        shortest = kept.groupby("family")[EPOCHS].transform("min")
        kept = kept[kept[EPOCHS] > shortest]
    return kept


def _has_task(trials: pd.DataFrame, task: str) -> NDArray[np.bool_]:
    """Per trial: was it pretrained on this task alone, or on none for `scratch`?"""
    if task == "scratch":
        return np.asarray(trials.pretext == "", dtype=bool)
    alone = [" + " not in name and name.split()[:1] == [task] for name in trials.pretext]
    return np.array(alone, dtype=bool)


def _pretrained_on(trials: pd.DataFrame, wanted: Sequence[str | None] | str) -> NDArray[np.bool_]:
    """Per trial: was it pretrained on one of these data sets?

    Args:
        trials: a study's.
        wanted: names of data sets, None for the trial's own; or `any`, or `other` for any but the
            trial's own.
    """
    names = column(trials, f"{OTHER_DATA}name")
    if wanted == "any":
        return np.ones(len(trials), dtype=bool)
    if wanted == "other":
        return np.asarray(names.notna(), dtype=bool)
    accepted = [reader for name in wanted if name is not None for reader in readers(name)]
    fits = names.isin(accepted) | (names.isna() if None in wanted else False)
    return np.asarray(fits, dtype=bool)


def readers(name: str) -> list[str]:
    """Names that studies give to the data set that a claim names."""
    aliases: dict[str, list[str]] = content()["readers"]
    return aliases.get(name, [name])


@cache
def content() -> dict[str, Any]:
    """Load `claims.yaml`."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return read


def _equals(trials: pd.DataFrame, setting: str, wanted: Any) -> NDArray[np.bool_]:
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
    "loss": ("pretrain.task.loss", "cosine"),
    "trainable": ("finetune.trainable", "all"),
    "pretrain_precision": ("pretrain.precision", "float32"),
    "precision": ("finetune.precision", "float32"),
}
"""Settings that have the papers' value unless a claim names another, as far as trials have them."""


def measured(study: Study, trials: pd.DataFrame, statement: Statement) -> pd.DataFrame:
    """Add the compared quantity as column `value`.

    It is infinite for a trial that diverged or, of `arrival`, never arrived.
    """
    if statement.measure == "final" or statement.measure in {*GAINS, *SIZES}:
        return trials.assign(value=trials[f"test_{statement.quantity}"])
    if statement.measure == "learning":
        return trials.assign(value=while_learning_errors(study))
    if statement.measure == "early":
        by_run = first_errors(study)[f"val_{statement.quantity}"]
    elif statement.measure == "arrival":
        table = arrivals(study)
        if table.empty:  # The reference has no final error.
            return trials.assign(value=math.nan)
        by_run = table[table.target == ARRIVED].set_index("run_id").epochs
    else:
        by_run = rough_or_worst(steadiness(study)).set_index("run_id").roughness
    return trials.assign(value=trials.run_id.map(by_run).astype(float))


def compared_as(
    statement: Statement, mine: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    """Compute the change that a statement is about, if the study has it, and the trials behind it.

    Args:
        statement: the claim.
        mine: trials that it is about.
        values: all trials, with the column `value` that `measured` adds.
    """
    if statement.measure in GAINS:
        return gain(statement.measure, mine, values)
    if statement.measure in SIZES:
        return SIZES[statement.measure](mine, values)
    return _against(statement, mine, values)


def _against(
    statement: Statement, mine: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    """Compare the arm with most pairs with the statement's reference; also return both's trials."""
    best: tuple[Change | None, pd.DataFrame] = None, values[:0]
    for arm, group in mine.groupby("arm", sort=False):
        change, others = _reference(statement, str(arm), group, values)
        if change is not None and (best[0] is None or change.ended > best[0].ended):
            best = change, pd.concat([group, others])
    return best


def _reference(
    statement: Statement, arm: str, group: pd.DataFrame, values: pd.DataFrame
) -> tuple[Change | None, pd.DataFrame]:
    other = statement.against
    if group.scratch.iloc[0]:
        same = values[values.scratch & (values.family == group.family.iloc[0])]
        others = same[same[EPOCHS] == same[EPOCHS].min()]
    elif isinstance(other, dict) or other == "others":
        same = values[(values.setting == group.setting.iloc[0]) & (values.arm != arm)]
        others = select(same, other if isinstance(other, dict) else {"task": "masking"})
    else:
        comparison = changes_from_controls(arm, values).get(other)
        if comparison is None:
            return None, values[:0]
        reference_arms, _, change = comparison
        return change, values[values.arm.isin(reference_arms.split(" … "))]
    if others.empty:
        return None, others
    reference = np.exp(np.log(others.value).groupby(others.seed).mean())
    return paired_change(by_seed(group, "value"), reference.rename("value")), others


def equal(value: Any, wanted: Any) -> bool:
    """Compare a setting with a value of `claims.yaml`; missing values equal nothing."""
    if isinstance(wanted, float) and not isinstance(value, str):
        return not pd.isna(value) and math.isclose(float(value), wanted, rel_tol=1e-9)
    return not pd.isna(value) and bool(value == wanted)


@dataclass(frozen=True)
class Finding:
    """The result of one study on a statement.

    Args:
        statement: the claim.
        verdict: one of `judge`, or not run, or different data.
        reason: why there is no verdict, or what limits it.
        study: name of the study.
        scale: full if nothing that matters differs from the paper's settings, or reduced.
        deviations: what differs.
        change: of the arm relative to its reference, with the interval of the study's family.
        effect: what that says, in the words of all tables.
        measured: the result where it is not a change.
        reading: which reading of the paper the trials follow.
        needed: seeds that the claim needs at the observed spread.
        run_ids: MLflow runs behind the numbers.
        keys: hashes of that work, or of the data; studies that share it share the finding.
    """

    statement: Statement
    verdict: str
    reason: str = ""
    study: str = ""
    scale: str = ""
    deviations: tuple[str, ...] = ()
    change: Change = NO_CHANGE
    effect: str = ""
    measured: str = ""
    reading: str = ""
    needed: int | None = None
    run_ids: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
