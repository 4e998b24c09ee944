"""Figures of the masking-ratio ablation: curves of both stages, errors against the ratio."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.figures.style import INK, Drawing, Look, looks, styled
from analysis.load import Study
from analysis.tables import (
    ENERGY,
    FORCE,
    MILLI,
    Quantity,
    finetuning,
    included,
    is_ablation,
    pretraining,
)
from analysis.words import listed, number

MOST_EPOCHS = 400
"""More points than this along a line cannot be seen."""


def drawings(study: Study) -> list[Drawing]:
    """The figures for which the study has data; none for a search with many arms."""
    trials = included(study)
    if trials.empty or not (is_ablation(study) or trials.scratch.all()):
        return []
    losses = pretraining(study).assign(arm=lambda rows: [f"ratio {r:g}" for r in rows.ratio])
    names = list(dict.fromkeys([*trials.arm, *losses.arm]))
    look = looks(names, scratch=set(trials[trials.scratch].arm))
    made = [_curves(study, quantity, look) for quantity in (FORCE, ENERGY)]
    made += [_against_ratio(trials, quantity, look) for quantity in (FORCE, ENERGY)]
    made += [_pretext(losses, look)]
    return [drawing for drawing in made if drawing is not None]


def _curves(study: Study, quantity: Quantity, look: dict[str, Look]) -> Drawing | None:
    rows = finetuning(study)
    rows = rows[(rows.metric == f"val_{quantity.name}") & np.isfinite(rows.value)]
    if rows.empty:
        return None
    rows = _thinned(rows.assign(value=rows.value * MILLI))
    with styled() as (figure, axes):
        _lines(axes, rows, look)
        _logarithmic(axes, rows.value)
        axes.legend(loc="upper right")
        axes.set(xlabel="Finetuning epoch", ylabel=f"Validation {_in_words(quantity)}")
    title = f"{quantity.label} during finetuning"
    return Drawing(
        name=f"{quantity.name}_curves",
        title=title,
        caption="On validation data, logarithmic axis. Thick lines are means over seeds, thin lines"
        f" the seeds. {_counts(rows)}",
        alt=f"{title} in {quantity.unit}, mean at first and last epoch: {_ends(rows)}.",
        figure=figure,
        shown=rows[["arm", "seed", "epoch", "value"]],
    )


def _pretext(rows: pd.DataFrame, look: dict[str, Look]) -> Drawing | None:
    if rows.empty:
        return None
    rows = _thinned(rows)
    with styled() as (figure, axes):
        axes.axhline(1, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            "chance", (1, 1), (0, 3), ("axes fraction", "data"), "offset points", ha="right"
        )
        _lines(axes, rows, look)
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.88))
        axes.set(xlabel="Pretraining epoch", ylabel="Validation loss (1 − mean cosine)")
        axes.set_ylim(0, 1.12 * max(1, rows.value.max()))
    title = "Pretext loss during pretraining"
    return Drawing(
        name="pretext_curves",
        title=title,
        caption="How well the directions to hidden hydrogens are predicted on validation data:"
        f" 1 is chance, 0 perfect. {_counts(rows)}",
        alt=f"{title}, mean at first and last epoch: {_ends(rows)}.",
        figure=figure,
        shown=rows[["arm", "seed", "epoch", "value"]],
    )


def _against_ratio(
    trials: pd.DataFrame, quantity: Quantity, look: dict[str, Look]
) -> Drawing | None:
    rows = trials.assign(value=trials[f"test_{quantity.name}"] * MILLI)
    if rows.ratio.isna().all():
        return None
    with styled() as (figure, axes):
        for arm, group in rows.groupby("arm", sort=False):
            draw = _baseline if group.scratch.iloc[0] else _points
            draw(axes, group, str(arm), look[str(arm)])
        axes.set(xlabel="Masking ratio", ylabel=f"Test {_in_words(quantity)}", xlim=(-0.05, 1.05))
        axes.margins(y=0.12)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="best")
    trivial = number(rows[f"trivial_{quantity.name}"].mean() * MILLI)
    means = rows.groupby("arm", sort=False).value.mean()
    described = "; ".join(f"{arm} {number(mean)}" for arm, mean in means.items())
    return Drawing(
        name=f"{quantity.name}_against_ratio",
        title=f"{quantity.label} against masking ratio",
        caption="On test data, after finetuning. Large markers are means, open circles seeds; line"
        " and band are training from scratch, mean ± standard deviation, its seeds drawn at 0."
        f" The trivial predictor has {trivial} {quantity.unit}. {_counts(rows)}",
        alt=f"Mean test {_in_words(quantity)}: {described}; trivial predictor {trivial}.",
        figure=figure,
        shown=rows[["arm", "ratio", "seed", "value"]],
    )


def _lines(axes: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    for place, (name, group) in enumerate(rows.groupby("arm", sort=False)):
        arm = look[str(name)]
        for _, run in group.groupby("run_id"):
            axes.plot(run.epoch, run.value, color=arm.colour, linewidth=0.7, alpha=0.35)
        mean = group.groupby("epoch").value.mean()
        every = max(1, len(mean) // 5)
        axes.plot(
            mean.index.to_numpy(dtype=float),
            mean.to_numpy(),
            color=arm.colour,
            linestyle=arm.dash,
            marker=arm.marker,
            markevery=(place * every // 4 % every, every),
            label=str(name),
        )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _points(axes: Axes, group: pd.DataFrame, name: str, arm: Look) -> None:
    ratio, mean = group.ratio.iloc[0], group.value.mean()
    label = None if name == f"ratio {ratio:g}" else name  # The axis says it.
    _seeds(axes, group.ratio, group, arm)
    axes.plot([ratio], [mean], arm.marker, color=arm.colour, markersize=8, label=label)


def _baseline(axes: Axes, group: pd.DataFrame, name: str, arm: Look) -> None:
    mean, std = group.value.mean(), group.value.std()
    if math.isfinite(std):
        axes.axhspan(mean - std, mean + std, color=arm.colour, alpha=0.1, linewidth=0)
    axes.axhline(mean, color=arm.colour, linestyle=arm.dash, linewidth=1.4, label=name)
    _seeds(axes, 0 * group.value, group, arm)


def _seeds(axes: Axes, at: pd.Series[float], group: pd.DataFrame, arm: Look) -> None:
    axes.plot(at, group.value, "o", color=arm.colour, markerfacecolor="none", markersize=4)


def _logarithmic(axes: Axes, values: pd.Series[float]) -> None:
    axes.set_yscale("log")
    wide = values.max() > 4 * values.min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """Every k-th epoch and the last, with arms in the order of the legend."""
    epochs = np.unique(rows.epoch.to_numpy(dtype=int))
    kept = {*epochs[:: math.ceil(len(epochs) / MOST_EPOCHS)], epochs[-1]}
    order = ["ratio", "arm", "run_id", "epoch"]
    chosen = rows[rows.epoch.isin(kept)]
    return chosen.sort_values(order, na_position="first").reset_index(drop=True)


def _in_words(quantity: Quantity) -> str:
    return f"{quantity.label.lower().replace('rmse', 'RMSE')} ({quantity.unit})"


def _counts(rows: pd.DataFrame) -> str:
    counts = rows.groupby("arm", sort=False).run_id.nunique()
    if counts.nunique() == 1:
        return f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{counts.iloc[0]} per arm."
    return f"n = {listed(f'{n} ({arm})' for arm, n in counts.items())}."


def _ends(rows: pd.DataFrame) -> str:
    texts = []
    for arm, group in rows.groupby("arm", sort=False):
        means = group.groupby("epoch").value.mean()
        texts.append(f"{arm} {number(means.iloc[0])} → {number(means.iloc[-1])}")
    return "; ".join(texts)
