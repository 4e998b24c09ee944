"""Forest plots: change of each arm from its controls, at the first evaluation and the end."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.comparisons.controls import KINDS, compare_with_controls, final
from analysis.comparisons.error_tables import early_errors, final_errors
from analysis.comparisons.outcomes import planned
from analysis.comparisons.quantities import Quantity, lead
from analysis.figures.style import COLOURS, INK, MARKERS, Drawing, styled
from analysis.formatting import interval, percent
from analysis.records.study_tables import Study
from analysis.statistics.verdict import NEGLIGIBLE

MOST_ROWS = 40
WIDTH = 26
"""Letters of an arm's name on a line."""
LIMIT = 100.0
"""Intervals are clipped at ± this many %."""


def drawings(study: Study) -> list[Drawing]:
    """Changes from each control; changes at the first evaluation and at the end."""
    main = lead(study)
    changes = compare_with_controls(final(planned(study), main))
    changes = changes[changes.change.notna()]
    made = []
    if len(changes):
        made.append(
            _forest(
                main,
                changes,
                "kind",
                KINDS,
                name="changes",
                title=f"Change of the final {main.error} by arm",
                caption="Relative to each control",
            )
        )
    ends = {"first evaluation": early_errors(study), "final": final_errors(study)}
    rows = pd.concat([table.assign(when=when) for when, table in ends.items()])
    rows = rows[(rows.quantity == main.name) & (rows.pairs > 1) & rows.change.notna()]
    if len(rows):
        made.append(
            _forest(
                main,
                rows,
                "when",
                list(ends),
                name="start_and_end",
                title=f"{_capitalized(main.error)} at the first evaluation and at the end",
                caption="Relative to each arm's reference, on validation data at the first"
                " evaluation and on test data at the end",
            )
        )
    return made


def _forest(
    quantity: Quantity,
    rows: pd.DataFrame,
    by: str,
    kinds: Sequence[str],
    *,
    name: str,
    title: str,
    caption: str,
) -> Drawing:
    arms = list(rows.arm.unique()[:MOST_ROWS])
    shown = [kind for kind in kinds if kind in set(rows[by])]
    names = [fill(str(arm), WIDTH) for arm in arms]
    lines = max((name.count("\n") + 1 for name in names), default=1)
    with styled(1.4 + 0.16 * len(arms) * max(len(shown) + 1, lines)) as (figure, axes):
        axes.axvspan(-NEGLIGIBLE, NEGLIGIBLE, color=INK, alpha=0.07, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, kind in enumerate(shown):
            _intervals(axes, rows[rows[by] == kind], arms, kind, (place, len(shown)))
        axes.set_yticks(range(len(arms)), names)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_xlabel(f"Change of the {quantity.in_sentence} (%)", loc="right")
        figure.legend(loc="outside upper left", ncols=2)
    described = "; ".join(
        f"{row['arm']}, {row[by]}: {percent(row['change'])} % {interval(row['low'], row['high'])}"
        for row in rows.to_dict("records")
    )
    return Drawing(
        name=name,
        title=title,
        caption=f"{caption}: {_caption(rows)}",
        alt=f"{title}: {described}.",
        figure=figure,
        shown=rows[["arm", by, "reference", "pairs", "change", "low", "high", "verdict"]],
    )


def _caption(rows: pd.DataFrame) -> str:
    """What the intervals are, and how many pairs they rest on."""
    n = sorted(rows.pairs.dropna().astype(int).unique())
    family = rows.family_size.max()
    together = f" simultaneous 95 % interval (Bonferroni over {family:g} arms)"
    return (
        "change of the typical pair of seeds and its"
        f"{together if family > 1 else ' 95 % interval'}, in %, clipped at ± {LIMIT:g} %; below"
        f" 0 is better. Grey band: equivalence margin ± {NEGLIGIBLE:g} %."
        f" n = {' to '.join(map(str, sorted({n[0], n[-1]})))} pairs."
    )


def _intervals(
    axes: Axes, rows: pd.DataFrame, arms: list[str], kind: str, place: tuple[int, int]
) -> None:
    """Draw the changes of one kind, whose place among the kinds is `place`."""
    index, count = place
    some = rows[rows.arm.isin(arms)]
    at = np.array([arms.index(arm) for arm in some.arm], dtype=float)
    at += 0.68 * ((index + 0.5) / count - 0.5)
    low, high = (some[end].clip(-LIMIT, LIMIT).fillna(some.change) for end in ("low", "high"))
    middle = some.change.clip(-LIMIT, LIMIT)
    axes.hlines(at, low, high, color=COLOURS[index], linewidth=1.4)
    axes.plot(middle, at, MARKERS[index], color=COLOURS[index], label=kind, linestyle="none")


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
