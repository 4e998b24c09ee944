"""Bars of the final errors of each arm, beside what a paper prints for the same arm."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes

from analysis.claims.printed import printed_errors
from analysis.comparisons.error_tables import final_errors
from analysis.comparisons.quantities import ENERGY, FRAME_ENERGY, Quantity, charted
from analysis.figures.style import COLOURS, INK, Drawing, slug, styled
from analysis.formatting import listed, spread
from analysis.records.study_tables import Study

MOST_ARMS = 16
WIDTH = 26
"""Letters of an arm's name on a line."""
MOST_DEVIATIONS = 3
"""Settings that the caption names."""


def drawings(study: Study) -> list[Drawing]:
    """Bars of each error, if there are arms to compare or numbers of a paper."""
    errors, printed = final_errors(study), printed_errors(study)
    made = []
    for quantity in charted(study):
        # The papers print energies of whole frames.
        per_frame = quantity == ENERGY and (printed.quantity == FRAME_ENERGY.name).any()
        shown = FRAME_ENERGY if per_frame else quantity
        rows = errors[(errors.quantity == shown.name) & (errors.n > 0)].head(MOST_ARMS)
        of_paper = printed[(printed.quantity == shown.name) & printed.arm.isin(rows.arm)]
        if len(rows) > 1 or len(of_paper):
            made.append(_bars(shown, rows, of_paper.set_index("arm")))
    return made


def _bars(quantity: Quantity, rows: pd.DataFrame, printed: pd.DataFrame) -> Drawing:
    rows = rows.assign(paper=rows.arm.map(printed.value))
    names = [fill(str(arm), WIDTH) for arm in rows.arm]
    lines = max(name.count("\n") + 1 for name in names)
    with styled(1.4 + 0.17 * len(names) * max(3, lines)) as (figure, axes):
        _draw(axes, rows)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_xlabel(f"Test {quantity.in_words}", loc="right")
        if len(printed):
            figure.legend(loc="outside upper left", ncols=2)
    described = "; ".join(
        f"{row['arm']} {spread(row['mean'], row['std'])}" for row in rows.to_dict("records")
    )
    counts = sorted({int(n) for n in rows.n})
    return Drawing(
        name=f"errors_{slug(quantity.name)}",
        title=f"Final {quantity.in_sentence}" + " beside the paper’s" * bool(len(printed)),
        caption="Mean ± standard deviation of the test error over seeds,"
        f" n = {listed(map(str, counts))} per arm.{_of_paper(printed)}",
        alt=f"Mean test {quantity.in_words}: {described}.",
        figure=figure,
        shown=rows[["arm", "n", "mean", "std", "paper"]],
    )


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    paper = rows.paper.notna().any()
    at, height = pd.Series(range(len(rows)), dtype=float), 0.36 if paper else 0.6
    ours = at - height / 2 if paper else at
    bars = {"height": 0.9 * height, "xerr": rows["std"].fillna(0)}
    look = {"ecolor": INK, "error_kw": {"elinewidth": 1, "capsize": 2}}
    axes.barh(ours, rows["mean"], color=COLOURS[0], label="here", **bars, **look)  # type: ignore[arg-type]
    if paper:
        outlined = {"color": "none", "edgecolor": INK, "hatch": "////", "linewidth": 0.6}
        values = rows.paper.fillna(0)
        axes.barh(at + height / 2, values, 0.9 * height, label="printed in the paper", **outlined)  # type: ignore[arg-type]


def _of_paper(printed: pd.DataFrame) -> str:
    """Where the numbers stand, and why they may not be comparable."""
    if printed.empty:
        return ""
    places = listed(dict.fromkeys(printed.place))
    other = list(dict.fromkeys(name for row in printed.deviations for name in row))
    if not other:
        return f" Hatched: as printed in {places}, with the same settings."
    more = f" and {len(other) - MOST_DEVIATIONS} more" if len(other) > MOST_DEVIATIONS else ""
    return (
        f" Hatched: as printed in {places}, at full scale. Here it is smaller or other"
        f" ({', '.join(other[:MOST_DEVIATIONS])}{more}), so compare the changes between arms,"
        " not the heights."
    )
