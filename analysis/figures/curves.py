"""Curves of both stages: validation errors in finetuning, and the pretext loss."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.comparisons.error_tables import finetuning, pretraining
from analysis.comparisons.outcomes import compared
from analysis.comparisons.quantities import Quantity, charted
from analysis.figures.style import (
    INK,
    MOST_LINES,
    Drawing,
    Look,
    counts,
    legend,
    logarithmic,
    looks,
    slug,
    styled,
)
from analysis.formatting import number
from analysis.records.study_tables import Study

MOST_EPOCHS = 400
"""More points than this along a line cannot be seen."""
MOST_ARMS = 9
"""The number that colours and markers distinguish; a larger family shows the first ones."""


def drawings(study: Study) -> list[Drawing]:
    """For each family of arms, which share all but pretraining; else for each model."""
    trials = compared(study)
    if trials.empty:
        return []
    rows, losses = finetuning(study), pretraining(study)
    losses = losses.assign(arm=losses.task)
    made = []
    arms = trials.groupby("family").arm.transform("nunique")
    alone = arms.max() == 1  # Settings vary, and each has one arm.
    shown = trials if alone else trials[arms > 1]
    by = shown.model if alone else shown.family
    for family, group in shown.groupby(by, sort=False):
        names = list(group.arm.unique()[:MOST_ARMS])
        look = looks(names, scratch=set(group[group.scratch].arm))
        of_family = rows[rows.arm.isin(names)]
        made += [_errors(of_family, quantity, look, str(family)) for quantity in charted(study)]
        made += [_pretext(losses[losses.family.isin(group.family)], look, str(family))]
    return [drawing for drawing in made if drawing is not None]


def _errors(
    rows: pd.DataFrame, quantity: Quantity, look: dict[str, Look], family: str
) -> Drawing | None:
    rows = rows[(rows.metric == f"val_{quantity.name}") & np.isfinite(rows.value)]
    if rows.empty:
        return None
    rows = _thinned(rows.assign(value=rows.value * quantity.scale))
    with styled() as (figure, axes):
        _lines(axes, rows, look, family)
        axes.set_yscale("log")
        logarithmic(axes.yaxis, rows.value)
        legend(axes)
        axes.set(xlabel="Finetuning epoch", ylabel=f"Validation {quantity.in_words}")
    title = f"{quantity.label} during finetuning" + (f", {family}" if family else "")
    return Drawing(
        name="_".join(filter(None, (quantity.name, "curves", slug(family)))),
        title=title,
        caption="Validation error, logarithmic axis. Thick lines: means over seeds; thin lines:"
        f" seeds. {counts(rows)}",
        alt=f"{title} in {quantity.unit}, mean at first and last epoch: {_ends(rows)}.",
        figure=figure,
        shown=rows[["arm", "seed", "epoch", "value"]],
    )


def _pretext(rows: pd.DataFrame, look: dict[str, Look], family: str) -> Drawing | None:
    if rows.empty:
        return None
    rows = _thinned(rows)
    # Arms look the same in all figures, also where one pretraining serves several families.
    by_task = {arm.removesuffix(f", {family}"): of_arm for arm, of_arm in look.items()}
    tasks = list(rows.arm.unique()[:MOST_ARMS])
    with styled() as (figure, axes):
        axes.axhline(1, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            "chance", (1, 1), (0, 3), ("axes fraction", "data"), "offset points", ha="right"
        )
        _lines(axes, rows, by_task if by_task.keys() >= {*tasks} else looks(tasks, scratch=set()))
        legend(axes)
        axes.set(xlabel="Pretraining epoch", ylabel="Validation loss (1 is chance)")
        axes.set_ylim(0, 1.12 * max(1, rows.value.max()))
    title = "Pretext loss during pretraining" + (f", {family}" if family else "")
    return Drawing(
        name="_".join(filter(None, ("pretext_curves", slug(family)))),
        title=title,
        caption="Validation loss of the pretext task: 1 is chance, 0 is perfect; the sum where"
        f" tasks are combined. {counts(rows)}",
        alt=f"{title}, mean at first and last epoch: {_ends(rows)}.",
        figure=figure,
        shown=rows[["arm", "seed", "epoch", "value"]],
    )


def _lines(axes: Axes, rows: pd.DataFrame, look: dict[str, Look], family: str = "") -> None:
    for place, (name, group) in enumerate(rows.groupby("arm", sort=False)):
        arm = look.get(str(name))
        if arm is None:
            continue
        for run in group.run_id.unique()[:MOST_LINES]:
            line = group[group.run_id == run]
            axes.plot(line.epoch, line.value, color=arm.colour, linewidth=0.7, alpha=0.35)
        mean = group.groupby("epoch").value.mean()
        every = max(1, len(mean) // 5)
        axes.plot(
            mean.index.to_numpy(dtype=float),
            mean.to_numpy(),
            color=arm.colour,
            linestyle=arm.dash,
            marker=arm.marker,
            markevery=(place * every // 4 % every, every),
            label=str(name).removesuffix(f", {family}"),
        )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """Every k-th epoch and the last."""
    epochs = np.unique(rows.epoch.to_numpy(dtype=int))
    kept = {*epochs[:: math.ceil(len(epochs) / MOST_EPOCHS)], *rows.groupby("run_id").epoch.max()}
    thinned = rows[rows.epoch.isin(kept)]
    order = pd.Series(range(rows.arm.nunique()), rows.arm.unique())
    placed = thinned.assign(place=thinned.arm.map(order))
    return placed.sort_values(["place", "run_id", "epoch"]).reset_index(drop=True)


def _ends(rows: pd.DataFrame) -> str:
    texts = []
    for arm, group in rows.groupby("arm", sort=False):
        means = group.groupby("epoch").value.mean()
        texts.append(f"{arm} {number(means.iloc[0])} → {number(means.iloc[-1])}")
    return "; ".join(texts)
