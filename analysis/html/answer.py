"""The first sentence of a report: each effect with its size, interval and number of seeds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.comparisons.labels import SCRATCH
from analysis.comparisons.outcomes import compared
from analysis.comparisons.quantities import Quantity
from analysis.formatting import listed, percent
from analysis.records.study_tables import Study
from analysis.statistics.change import FEWEST
from analysis.statistics.verdict import NEGLIGIBLE, Verdict

MOST_EFFECTS = 2
"""Arms whose effects the sentence spells out; the picture below it shows all of them."""


def answer(study: Study, final: pd.DataFrame, main: Quantity) -> str:
    """Effect on the pretrained arms or, without any, on all arms that have a reference.

    Args:
        study: whose arms they are.
        final: of `final_errors`.
        main: the error by which the study is judged.
    """
    rows = final[(final.quantity == main.name) & final.verdict.notna()]
    treated = ~rows.control.astype(bool)
    rows = rows[treated] if treated.any() else rows
    effects = _effects(rows, main)
    return effects or _without_effect(rows, main, _subject(study, final, rows))


def _subject(study: Study, final: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What the arms have in common that their references lack."""
    if not final.scratch.any():
        return "Changing the settings"
    trials = compared(study)
    if rows.arm.isin(trials[trials.auxiliary != ""].arm).any():
        return "Pretraining or an auxiliary task"
    return "Pretraining" if (~rows.scratch.astype(bool)).any() else "Longer training"


def _effects(rows: pd.DataFrame, main: Quantity) -> str:
    """The arms that lower the error, then those that raise it; empty if none does either."""
    parts = []
    for word, verb in ((Verdict.LOWER, "lowers"), (Verdict.HIGHER, "raises")):
        found = rows[rows.verdict == word].sort_values("change", key=abs, ascending=False)
        if found.empty:
            continue
        shown = found.head(MOST_EFFECTS).to_dict("records")
        effects = [f"{_named(row['arm'])} by {_size(row)}" for row in shown]
        first = f"{_named(shown[0]['arm'])} {verb} the test {main.in_sentence} by {_size(shown[0])}"
        more = len(found) - len(shown)
        others = [f"{more} more arm{'s' * (more > 1)} by less"] if more else []
        parts.append(listed([first, *effects[1:], *others]))
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def _named(arm: object) -> str:
    """An arm as the subject of a sentence."""
    text = str(arm)
    if text.startswith(SCRATCH):
        return f"training {text}"
    return f"starting {text}" if text.startswith("from ") else text


def _size(row: dict[Any, Any]) -> str:
    """`4.5 % (95 % CI 2.4–6.6, n = 8 seeds)`, of a change whose direction is told already."""
    ends = sorted(abs(float(row[end])) for end in ("low", "high"))
    low, high = (_plain(end) for end in ends)
    middle = _plain(abs(float(row["change"])))
    return f"{middle}\N{NO-BREAK SPACE}% (95 % CI {low}–{high}, {_seeds_of(row['ended'])})"


def _plain(size: float) -> str:
    return f"{size:.1f}" if size <= 999 else percent(size).replace("+", "")


def _seeds_of(count: float) -> str:
    space = "\N{NO-BREAK SPACE}"
    return f"n{space}={space}{count:g} seeds"


def _without_effect(rows: pd.DataFrame, main: Quantity, subject: str) -> str:
    if set(rows.verdict) == {Verdict.NO_VERDICT}:
        return f"No verdict on the final {main.error}: too many trials diverged."
    if set(rows.verdict) == {Verdict.TOO_FEW}:
        return (
            f"Too few seeds for a verdict on {subject.lower()}: {rows.ended.max():g} per arm at"
            f" most, at least {FEWEST} needed."
        )
    if set(rows.verdict) == {Verdict.NO_DIFFERENCE}:
        sentence = f"{subject} changed the final {main.error} by less than {NEGLIGIBLE:g} %"
        return f"{sentence}{_largest(rows)}."
    return (
        f"Inconclusive: no significant effect of {subject.lower()} on the final {main.error}"
        f" ({_seeds(rows)}){_largest(rows)}."
    )


def _seeds(rows: pd.DataFrame) -> str:
    """`n = 3 seeds`, or the fewest and the most of all arms."""
    fewest, most = (f"{count:g}" for count in (rows.ended.min(), rows.ended.max()))
    return f"n = {fewest if fewest == most else f'{fewest} to {most}'} seeds"


def _largest(rows: pd.DataFrame) -> str:
    """The largest change with its interval; empty if no arm has both."""
    known = rows[rows.change.notna() & rows.low.notna()]
    if known.empty:
        return ""
    row = known.sort_values("change", key=abs).iloc[-1].to_dict()
    if not math.isfinite(row["change"]):
        return ""
    ends = f"{percent(row['low'])} to {percent(row['high'])}"
    largest = "; largest change: " if len(known) > 1 else ": "
    return f"{largest}{row['arm']} {percent(row['change'])}\N{NO-BREAK SPACE}% (95 % CI {ends})"
