"""Final errors against the settings that a study varies, and against compute."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from analysis.comparisons.labels import LABELS
from analysis.comparisons.outcomes import compared
from analysis.comparisons.quantities import Quantity, charted, lead
from analysis.comparisons.selection import column
from analysis.figures.style import (
    INK,
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
from analysis.statistics.change import LEVEL

SCALES = {
    "ratio": ("Masking ratio", "masking ratio"),
    "noise": ("Noise scale (Å)", "noise scale"),
}

COUNTS = {
    LABELS: ("Labelled frames in finetuning", "labels"),
    "pretrain.frames": ("Frames in pretraining", "frames to pretrain on"),
    "model.hidden": ("Model width", "width"),
    "model.layers": ("Model layers", "depth"),
}
"""Settings against which errors may follow a power law."""


def drawings(study: Study) -> list[Drawing]:
    """Errors against each setting of which the study has two values or more."""
    trials = compared(study)
    made = []
    for family, group in trials.groupby("family", sort=False):
        bare = group[group.scratch]
        bare = bare[bare.setting == bare.setting.iloc[0]] if len(bare) else bare
        for scale in SCALES:
            swept = group[group[scale].notna() & ~group.placebo]
            for auxiliary, some in swept.groupby("auxiliary", sort=False):
                if some[scale].nunique() > 1:
                    rows = pd.concat([bare, some])
                    name = ", ".join(filter(None, (str(family), str(auxiliary))))
                    made += [_scale(rows, q, scale, name) for q in charted(study)]
    models = column(trials, "model.name").fillna("").astype(str)
    for model, group in trials.groupby(models, sort=False):
        name = str(model) if models.nunique() > 1 else ""
        for setting in COUNTS:
            if column(group, setting).nunique() > 1:
                made += [_count(group, q, setting, name) for q in charted(study)]
    for family, group in trials.groupby("family", sort=False):
        if group[group.scratch].arm.nunique() > 1 and group["compute"].notna().all():
            made.append(_compute(group, lead(study), str(family)))
    return made


def _scale(trials: pd.DataFrame, quantity: Quantity, scale: str, family: str) -> Drawing:
    rows = trials.assign(value=trials[f"test_{quantity.name}"] * quantity.scale)
    label, words = SCALES[scale]
    look = looks(list(rows.arm.unique()), scratch=set(rows[rows.scratch].arm))
    alone = rows.groupby(scale).arm.nunique().max() == 1  # Then the axis identifies arms.
    with styled() as (figure, axes):
        for arm, group in rows.groupby("arm", sort=False):
            if group.scratch.iloc[0]:
                _baseline(axes, group, str(arm), look[str(arm)])
            else:
                _points(axes, group, scale, None if alone else str(arm), look[str(arm)])
        axes.set(xlabel=label, ylabel=f"Test {quantity.in_words}")
        if scale == "ratio":
            axes.set_xlim(-0.05, 1.05)
        axes.margins(y=0.12)
        legend(axes)
    trivial = number(rows[f"trivial_{quantity.name}"].mean() * quantity.scale)
    means = rows.groupby("arm", sort=False).value.mean()
    described = "; ".join(f"{arm} {number(mean)}" for arm, mean in means.items())
    return Drawing(
        name="_".join(filter(None, (quantity.name, "against", scale, slug(family)))),
        title=f"{quantity.label} against {words}" + (f", {family}" if family else ""),
        caption="Test error after finetuning. Large markers: means with their 95 % intervals; open"
        " circles: seeds; dashed line and band: mean from scratch with its interval, its seeds at"
        " 0. Seeds differ alike in all arms, so paired changes are surer than these intervals."
        f" Trivial predictor: {trivial} {quantity.unit}. {counts(rows)}",
        alt=f"Mean test {quantity.in_words}: {described}; trivial predictor {trivial}.",
        figure=figure,
        shown=rows[["arm", scale, "seed", "value"]],
    )


def _count(trials: pd.DataFrame, quantity: Quantity, setting: str, model: str) -> Drawing:
    label, words = COUNTS[setting]
    at = pd.to_numeric(column(trials, setting)).astype(float)
    if setting == LABELS:
        at = at.fillna(trials.train_frames.astype(float))
    rows = trials.assign(
        at=at,
        value=trials[f"test_{quantity.name}"] * quantity.scale,
        task=trials.task + _others(trials, setting),
    )
    # A task with a single value is not drawn beside the lines of others.
    values = rows.groupby("task")["at"].transform("nunique")
    bare = rows[rows["at"].isna() & rows.scratch]
    rows = rows[(values > 1) | ((values == 1) & (values.max() == 1))]
    drawn = pd.concat([bare, rows])
    look = looks(list(drawn.task.unique()), scratch=set(drawn[drawn.scratch].task))
    with styled() as (figure, axes):
        for task, group in bare.groupby("task", sort=False):
            mean = group.value.mean()
            axes.axhline(mean, color=INK, linestyle=look[str(task)].dash, lw=1.4, label=str(task))
        for task, group in rows.groupby("task", sort=False):
            _line(axes, group, str(task), look[str(task)])
        axes.set(xscale="log", yscale="log")
        logarithmic(axes.xaxis, rows["at"])
        axes.set_xticks(sorted(rows["at"].unique()))
        logarithmic(axes.yaxis, drawn.value)
        axes.set(xlabel=label, ylabel=f"Test {quantity.in_words}")
        legend(axes)
    return Drawing(
        name="_".join(filter(None, (quantity.name, "against", slug(words), slug(model)))),
        title=f"{quantity.label} against {words}" + (f", {model}" if model else ""),
        caption="Test error, both axes logarithmic. Lines join means; open circles: seeds."
        + " Horizontal lines: means from scratch." * (len(bare) > 0)
        + f" {counts(rows)}",
        alt=f"Mean test {quantity.in_words}: {_means(bare, rows)}.",
        figure=figure,
        shown=drawn[["task", "at", "seed", "value"]],
    )


def _line(axes: Axes, group: pd.DataFrame, task: str, look: Look) -> None:
    """Draw the means of a task as a line, and its seeds."""
    mean = group.groupby("at").value.mean()
    at = mean.index.to_numpy(dtype=float)
    axes.plot(at, mean.to_numpy(), look.dash, color=look.colour, marker=look.marker, label=task)
    axes.plot(group["at"], group.value, "o", color=look.colour, mfc="none", ms=4)


def _means(bare: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Means in words, of tasks without a value and of each task at each value."""
    means = rows.groupby(["task", "at"], sort=False).value.mean().reset_index()
    return "; ".join(
        [f"{task} {number(mean)}" for task, mean in bare.groupby("task").value.mean().items()]
        + [
            f"{row['task']} at {row['at']:g} {number(row['value'])}"
            for row in means.to_dict("records")
        ]
    )


def _others(trials: pd.DataFrame, setting: str) -> pd.Series[str]:
    """Other counts that vary, by trial, so that a line joins trials equal in all else."""
    texts = pd.Series("", trials.index)
    for other, (_, words) in COUNTS.items():
        values = pd.to_numeric(column(trials, other)).astype(float)
        if other != setting and values.nunique() > 1:
            texts += [f", {words} {value:g}" if value == value else "" for value in values]
    return texts


def _compute(trials: pd.DataFrame, quantity: Quantity, family: str) -> Drawing:
    rows = trials.assign(
        value=trials[f"test_{quantity.name}"] * quantity.scale, minutes=trials["compute"] / 60
    )
    look = looks(list(rows.arm.unique()), scratch=set(rows[rows.scratch].arm))
    means = rows.groupby("arm", sort=False).agg(
        scratch=("scratch", "first"),
        minutes=("minutes", "median"),
        value=("value", "mean"),
        std=("value", "std"),
    )
    with styled() as (figure, axes):
        bare = means[means.scratch].sort_values("minutes")
        axes.plot(bare.minutes, bare.value, "--", color=INK, linewidth=1.2)
        for name, mean in means.iterrows():
            _errorbar(axes, mean, str(name).removesuffix(f", {family}"), look[str(name)])
        axes.set(xlabel="Compute of both stages (min)", ylabel=f"Test {quantity.in_words}")
        axes.set_xlim(left=0)
        axes.margins(0.08, 0.12)
        legend(axes)
    described = "; ".join(
        f"{name} {number(mean.value)} after {number(mean.minutes)} min"
        for name, mean in means.iterrows()
    )
    return Drawing(
        name="_".join(filter(None, ("compute", slug(family)))),
        title="Error against compute" + (f", {family}" if family else ""),
        caption="Compute of pretraining and finetuning, as epochs times the study's median time of"
        " such an epoch; mean ± standard deviation of the test error. Arms below the dashed line"
        " (training from scratch) are worth their compute."
        f" {counts(rows)}",
        alt=f"Mean test {quantity.in_words}: {described}.",
        figure=figure,
        shown=rows[["arm", "seed", "minutes", "value"]],
    )


def _errorbar(axes: Axes, mean: pd.Series[Any], label: str, look: Look) -> None:
    """Draw the mean and standard deviation of an arm against its compute."""
    axes.errorbar(
        mean.minutes,
        mean.value,
        yerr=mean["std"] if math.isfinite(mean["std"]) else 0,
        fmt=look.marker,
        color=look.colour,
        markersize=8,
        elinewidth=1,
        label=label,
    )


def _points(axes: Axes, group: pd.DataFrame, scale: str, name: str | None, arm: Look) -> None:
    at, mean = group[scale].iloc[0], group.value.mean()
    _seeds(axes, group[scale], group, arm)
    axes.plot([at], [mean], arm.marker, color=arm.colour, markersize=8, label=name)
    low, high = mean_interval(group.value)
    if math.isfinite(low):
        axes.vlines(at, low, high, color=arm.colour, linewidth=1.6)


def _baseline(axes: Axes, group: pd.DataFrame, name: str, arm: Look) -> None:
    low, high = mean_interval(group.value)
    if math.isfinite(low):
        axes.axhspan(low, high, color=arm.colour, alpha=0.1, linewidth=0)
    axes.axhline(group.value.mean(), color=arm.colour, linestyle=arm.dash, lw=1.4, label=name)
    _seeds(axes, 0 * group.value, group, arm)


def mean_interval(values: pd.Series[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean; of fewer than two values there is none."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return math.nan, math.nan
    half = float(stats.t.isf((1 - LEVEL) / 2, n - 1) * values.std() / math.sqrt(n))
    return mean - half, mean + half


def _seeds(axes: Axes, at: pd.Series[float], group: pd.DataFrame, arm: Look) -> None:
    axes.plot(at, group.value, "o", color=arm.colour, markerfacecolor="none", markersize=4)
