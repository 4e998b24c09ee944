"""Convergence and training stability of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.comparisons.error_tables import is_ablation
from analysis.comparisons.training_curves import arrivals, stability, steadiness
from analysis.figures.style import (
    COLOURS,
    MARKERS,
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

MOST_ARMS = 9
"""The number that colours and markers distinguish."""
MOST_ROWS = 30
WIDTH = 26
"""Letters of an arm's name on a line."""
STEADINESS = {
    "roughness": "roughness: s.d. of steps, last half",
    "fluctuation": "fluctuation: s.d. about trend, after first third",
}
RATES = {"diverged": "diverged", "collapsed": "collapsed"}


def drawings(study: Study) -> list[Drawing]:
    """Convergence of each family of arms; stability of all arms."""
    if not is_ablation(study):
        return []
    rows = arrivals(study)
    made: list[Drawing | None] = [
        _speed(rows[rows.family == family], str(family), *how)
        for family in (rows.family.unique() if len(rows) else [])
        if rows[rows.family == family].arm.nunique() > 1
        for how in (("epochs", "Finetuning epochs"), ("minutes", "Compute of both stages (min)"))
    ]
    if len(steadiness(study)):
        made += [_steadiness(study), _spikes(study), _rates(study)]
    return [drawing for drawing in made if drawing is not None]


def _speed(rows: pd.DataFrame, family: str, name: str, label: str) -> Drawing:
    """Epochs or compute until each target error is reached."""
    rows = rows.assign(minutes=rows.seconds / 60)
    rows = rows[rows.arm.isin(rows.arm.unique()[:MOST_ARMS])]
    targets = sorted(rows.target.unique(), reverse=True)
    look = looks(list(rows.arm.unique()), scratch=set(rows[rows.task == "from scratch"].arm))
    never = int((~np.isfinite(rows.epochs.astype(float))).sum())
    described = []
    with styled() as (figure, axes):
        for arm, group in rows.groupby("arm", sort=False):
            label_of_arm = str(arm).removesuffix(f", {family}")
            medians = _times(axes, group, name, targets, label_of_arm, look[str(arm)])
            described.append(f"{arm} {', '.join(number(value) for value in medians)}")
        axes.set_xticks(range(len(targets)), [f"{target:g} ×" for target in targets])
        axes.set(xlabel="Target, in final errors of the reference", ylabel=label)
        axes.set_ylim(bottom=0)
        legend(axes)
    what = label[:1].lower() + label[1:]
    names = ", ".join(f"{target:g} ×" for target in targets)
    return Drawing(
        name="_".join(filter(None, (f"speed_{name}", slug(family)))),
        title=f"{label.partition(' (')[0]} to target error" + (f", {family}" if family else ""),
        caption="Until the validation error first reaches a multiple of the reference's median"
        " final error. Markers: medians over seeds, where seeds that never reach it count as"
        f" infinite; open circles: seeds. {never} of {len(rows)} targets were never reached."
        f" {counts(rows)}",
        alt=f"Median {what} to {names}: {'; '.join(described)} (∞: never).",
        figure=figure,
        shown=rows[["arm", "seed", "target", name]],
    )


def _times(
    axes: Axes, group: pd.DataFrame, name: str, targets: list[float], label: str, look: Look
) -> pd.Series[float]:
    """Draw one arm's epochs or compute to each target; return the medians over seeds."""
    medians = group.groupby("target")[name].median().reindex(targets)
    axes.plot(
        np.arange(len(targets), dtype=float),
        medians.where(np.isfinite(medians)).to_numpy(dtype=float),
        look.dash,
        color=look.colour,
        marker=look.marker,
        label=label,
    )
    places = group.target.map({target: place for place, target in enumerate(targets)})
    finite = np.isfinite(group[name].astype(float))
    axes.plot(places[finite], group[name][finite], "o", color=look.colour, mfc="none", ms=4)
    return medians


def _steadiness(study: Study) -> Drawing | None:
    return _by_arm(
        steadiness(study),
        STEADINESS,
        name="steadiness",
        title="Smoothness of validation curves",
        label="Standard deviation of ln(validation error)",
        caption="Roughness: over the curve's steps in the last half of finetuning; fluctuation:"
        " about a linear trend after the first third",
    )


def _spikes(study: Study) -> Drawing | None:
    return _by_arm(
        steadiness(study),
        {"spikes": "spikes"},
        name="gradient_spikes",
        title="Gradient spikes",
        label="Gradient norm: 99th percentile over median",
        caption="Over the norms of all epochs, each a mean over steps; 1 means no spikes",
    )


def _by_arm(
    rows: pd.DataFrame, kinds: Mapping[str, str], *, name: str, title: str, label: str, caption: str
) -> Drawing | None:
    """Seeds as open circles and medians, arm by arm."""
    for kind in kinds:
        rows = rows[np.isfinite(rows[kind].astype(float)) & (rows[kind] > 0)]
    arms = list(rows.arm.unique()[:MOST_ROWS])
    rows = rows[rows.arm.isin(arms)]
    if rows.empty:
        return None
    with styled(_height(arms, len(kinds))) as (figure, axes):
        for place, (kind, words) in enumerate(kinds.items()):
            offset = 0.5 * ((place + 0.5) / len(kinds) - 0.5)
            at = np.array([arms.index(arm) + offset for arm in rows.arm])
            axes.plot(rows[kind], at, "o", color=COLOURS[place], mfc="none", ms=4)
            medians = rows.groupby("arm")[kind].median().reindex(arms)
            marks = np.arange(len(arms)) + offset
            axes.plot(medians, marks, MARKERS[place], color=COLOURS[place], label=words, ls="none")
        axes.set_xscale("log")
        logarithmic(axes.xaxis, pd.concat([rows[kind] for kind in kinds]))
        _name_rows(axes, arms)
        axes.set_xlabel(label, loc="right")
        if len(kinds) > 1:
            figure.legend(loc="outside upper left")
    table = rows.groupby("arm", sort=False)[[*kinds]].median().reset_index()
    described = "; ".join(
        f"{row['arm']} {', '.join(f'{kind} {number(row[kind])}' for kind in kinds)}"
        for row in table.to_dict("records")
    )
    return Drawing(
        name=name,
        title=title,
        caption=f"{caption}. Markers: medians over seeds; open circles: seeds. {counts(rows)}",
        alt=f"{title}, medians: {described}.",
        figure=figure,
        shown=rows[["arm", "seed", *kinds]],
    )


def _rates(study: Study) -> Drawing | None:
    """Shares of diverged and collapsed trials; None if there are none."""
    rows = stability(study).head(MOST_ROWS)
    if not rows[[*RATES]].to_numpy().any():
        return None
    arms = list(rows.arm)
    shown = pd.DataFrame({"arm": rows.arm, "n": rows.n})
    with styled(_height(arms, len(RATES))) as (figure, axes):
        for place, kind in enumerate(RATES):
            at = np.arange(len(arms)) + 0.5 * ((place + 0.5) / len(RATES) - 0.5)
            shown[f"{kind} (%)"] = rate = 100 * rows[kind].astype(float) / rows.n
            colour = COLOURS[place]
            axes.hlines(at, rows[f"{kind}_low"], rows[f"{kind}_high"], color=colour, linewidth=1.4)
            axes.plot(rate, at, MARKERS[place], color=colour, label=RATES[kind], linestyle="none")
        axes.set_xlim(-2, 102)
        _name_rows(axes, arms)
        axes.set_xlabel("Share of trials (%)", loc="right")
        figure.legend(loc="outside upper left", ncols=2)
    described = "; ".join(
        f"{row['arm']} {row['diverged']} diverged and {row['collapsed']} collapsed of {row['n']}"
        for row in rows.to_dict("records")
    )
    return Drawing(
        name="failures",
        title="Trials that diverged or collapsed",
        caption="Collapsed: test error above 95 % of the trivial predictor's."
        " Lines: 95 % Clopper–Pearson intervals."
        f" n = {rows.n.min()} to {rows.n.max()} trials per arm.",
        alt=f"{described}.",
        figure=figure,
        shown=shown,
    )


def _height(arms: Sequence[str], kinds: int) -> float:
    lines = max(fill(arm, WIDTH).count("\n") + 1 for arm in arms)
    return 1.5 + 0.16 * len(arms) * max(kinds + 1, lines)


def _name_rows(axes: Axes, arms: Sequence[str]) -> None:
    axes.set_yticks(range(len(arms)), [fill(arm, WIDTH) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
