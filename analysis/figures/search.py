"""A hyperparameter search: optimization history, Pareto front and importances."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.comparisons.outcomes import is_search, population_of
from analysis.comparisons.quantities import metric_of, quantity_of
from analysis.comparisons.search import (
    importances,
    objectives,
    objectives_of,
    pareto,
    timeline,
)
from analysis.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    Drawing,
    legend,
    logarithmic,
    styled,
    thinned,
    thinned_note,
)
from analysis.formatting import number, percent
from analysis.records.study_tables import Study
from study.core.quantities.metrics import METRICS

STATES = ("completed", "stopped", "diverged", "failed", "running", "killed")
LOOK = dict(zip(STATES, zip(("o", "x", "v", "P", ".", "."), COLOURS, strict=False), strict=False))


def drawings(study: Study) -> list[Drawing]:
    """Figures of a search; empty for a study without one."""
    if not is_search(study):
        return []
    made = [_timeline(study), _front(study), _pareto(study), _importances(study)]
    return [drawing for drawing in made if drawing is not None]


def _timeline(study: Study) -> Drawing | None:
    rows = timeline(study)
    rows = rows[np.isfinite(rows.value.astype(float))]
    if rows.empty:
        return None
    with styled() as (figure, axes):
        best = rows[rows.status == "completed"].sort_values("end")
        axes.step(best.end, best.value.cummin(), where="post", color=INK, linewidth=1, label="best")
        _states(axes, rows, "end")
        axes.set_yscale("log")
        logarithmic(axes.yaxis, rows.value)
        axes.set(xlabel="Time since study start (min)", ylabel=_label(study))
        legend(axes)
    counts = rows.status.value_counts()
    states = ", ".join(f"{n} {status}" for status, n in counts.items())
    return Drawing(
        name="timeline",
        title="Optimization history",
        caption=f"Lowest validation error of each {_each(study)}, at the time it ended; crosses:"
        f" stopped early. n = {len(rows)} trials: {states}.{thinned_note(counts)}",
        alt=f"{states}; lowest validation error {number(rows.value.min())}.",
        figure=figure,
        shown=rows,
    )


def _each(study: Study) -> str:
    """What is a trial."""
    return "part of a population and of each test" if population_of(study) else "trial"


def _pareto(study: Study) -> Drawing | None:
    rows = pareto(study)
    if rows.empty:
        return None
    front, tasks = rows[rows.front], rows.task.str.split().str[0]
    with styled() as (figure, axes):
        axes.step(front.seconds / 60, front.value, where="post", color=INK, linewidth=1)
        for place, (task, group) in enumerate(rows.groupby(tasks)):
            some = group[group.front | group.index.isin(thinned(group).index)]
            axes.plot(
                some.seconds / 60,
                some.value,
                MARKERS[place % len(MARKERS)],
                color=INK if task == "from" else COLOURS[place % len(COLOURS)],
                label="from scratch" if task == "from" else task,
            )
        axes.set_yscale("log")
        logarithmic(axes.yaxis, rows.value)
        axes.set(xlabel="Compute of both stages (min)", ylabel=_label(study), xlim=(0, None))
        legend(axes)
    described = "; ".join(
        f"{row['arm']}: {number(row['value'])} after {number(row['seconds'] / 60)} min"
        for row in front.to_dict("records")
    )
    return Drawing(
        name="pareto",
        title="Error against compute: Pareto front",
        caption="Completed trials; no other trial is both cheaper and better than those on the"
        f" line. n = {len(rows)}.{thinned_note(tasks.value_counts())}",
        alt=f"On the front: {described}.",
        figure=figure,
        shown=rows,
    )


def _front(study: Study) -> Drawing | None:
    """The first two of several objectives."""
    rows = objectives(study)
    if rows.empty:
        return None
    (first, second), best = objectives_of(study)[:2], rows[rows.front]
    with styled() as (figure, axes):
        axes.plot(rows[second], rows[first], "o", color=COLOURS[0], label="completed")
        axes.plot(best[second], best[first], "s", color=INK, label="on the front")
        axes.set(xlabel=_objective(second), ylabel=_objective(first))
        legend(axes)
    described = "; ".join(
        f"trial {row['number']}: {number(row[first])} and {number(row[second])}"
        for row in best.to_dict("records")
    )
    return Drawing(
        name="front",
        title="Pareto front of the objectives",
        caption=f"Completed proposals by the first two objectives. n = {len(rows)}.",
        alt=f"On the front: {described}.",
        figure=figure,
        shown=rows,
    )


def _objective(name: str) -> str:
    """Label of an objective with the unit of the records."""
    unit = METRICS[name][0] if name in METRICS else "1"
    words = name.replace("val_", "validation ").replace("_", " ").replace("rmse", "RMSE")
    return words if unit == "1" else f"{words} ({unit})"


def _importances(study: Study) -> Drawing | None:
    rows = importances(study)
    if rows.empty:
        return None
    rows = rows.reset_index(drop=True)
    names = [f"{row['branch']}: {row['setting']}" for row in rows.to_dict("records")]
    with styled(1.2 + 0.4 * len(rows)) as (figure, axes):
        axes.hlines(rows.index, rows.low, rows.high, color=COLOURS[0], linewidth=1.4)
        axes.plot(rows.importance, rows.index, "s", color=COLOURS[0])
        axes.set_yticks(
            range(len(rows)), [fill(name, 22, break_long_words=False) for name in names]
        )
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set(xlabel="Share of error variance (%)", xlim=(0, 100))
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
    whose = " of the first generation" if population_of(study) else ""
    described = "; ".join(
        f"{n} {percent(v)} %" for n, v in zip(names, rows.importance, strict=True)
    )
    return Drawing(
        name="importances",
        title="Hyperparameter importance",
        caption="fANOVA per pretraining task, of the error at the last epoch that all trials"
        f"{whose} reached; lines: 95 % bootstrap intervals."
        f" n = {', '.join(f'{n} ({b})' for b, n in rows.groupby('branch').n.first().items())}.",
        alt=f"Share of error variance explained: {described}.",
        figure=figure,
        shown=rows,
    )


def _states(axes: Axes, rows: pd.DataFrame, at: str) -> None:
    for status, group in rows.groupby("status"):
        (marker, colour), some = LOOK.get(str(status), (".", INK)), thinned(group)
        axes.plot(some[at], some.value, marker, color=colour, linestyle="none", label=status)


def _label(study: Study) -> str:
    return f"Validation {quantity_of(study, metric_of(study)).in_words}"
