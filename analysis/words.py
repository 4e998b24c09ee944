"""How results are put in words: numbers, intervals and the headline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis.load import Study
from analysis.statistics import FEWEST, NEGLIGIBLE
from analysis.tables import (
    ENERGY,
    FORCE,
    MILLI,
    SCRATCH,
    Quantity,
    early_errors,
    final_errors,
    finetuning,
    included,
    is_ablation,
)

NONE = "–"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Headline:
    """What was found, in one sentence.

    Args:
        sentence: the answer.
        details: per error that it rests on, a title, and per arm what is said and the numbers.
    """

    sentence: str
    details: tuple[tuple[str, list[tuple[str, str]]], ...] = ()


def number(value: float, like: float | None = None) -> str:
    """Three significant digits; as many decimals as `like` gets if that is given."""
    if pd.isna(value):
        return NONE
    if math.isinf(value):
        return signed("∞" if value > 0 else "-∞")
    scale = abs(value if like is None or not math.isfinite(like) else like)
    if scale and not 1e-4 <= scale < 1e6:
        return signed(f"{value:.2e}")
    decimals = max(0, 2 - math.floor(math.log10(scale))) if scale else 0
    return signed(f"{value:.{decimals}f}")


def spread(mean: float, std: float) -> str:
    """Mean ± standard deviation; a single value has none."""
    return number(mean) if pd.isna(std) else f"{number(mean)} ± {number(std, like=mean)}"


def percent(value: float) -> str:
    """With its sign; a runaway end of an interval is not spelled out."""
    if pd.isna(value):
        return NONE
    return "> +999" if value > 999 else signed(f"{value:+.1f}")


def interval(low: float, high: float) -> str:
    """Both ends in %, or nothing if there are too few seeds for one."""
    return "" if pd.isna(low) else f"[{percent(low)}, {percent(high)}]"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if pd.isna(seconds):
        return NONE
    if seconds < 120:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def signed(text: str) -> str:
    """Typographic minus."""
    return text.replace("-", "−")


def listed(items: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = [*items] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def headline(study: Study) -> Headline:
    """The answer in plain words, as sure as the seeds allow."""
    done = included(study)
    if done.empty:
        return Headline("No trial has completed yet, so there is nothing to report.")
    if not is_ablation(study):
        return _best(study)
    final, early = final_errors(study), early_errors(study)
    if final.pairs.fillna(0).max() == 0:
        return Headline(f"No seed has completed both with pretraining and {SCRATCH} yet.")
    details = (
        ("Final force error", _changes(final, FORCE)),
        ("Final energy error", _changes(final, ENERGY)),
        ("Force error at the first evaluation", _changes(early, FORCE)),
    )
    return Headline(_answer(final), tuple(detail for detail in details if detail[1]))


def _answer(final: pd.DataFrame) -> str:
    rows = final[(final.quantity == FORCE.name) & final.verdict.notna()]
    lower, higher = (listed(rows[rows.verdict == said].arm) for said in ("lower", "higher"))
    if lower or higher:
        told = [f"lowered the final force error at {lower}"] if lower else []
        told += (
            [f"raised {'it' if lower else 'the final force error'} at {higher}"] if higher else []
        )
        return f"Pretraining {listed(told)}."
    if set(rows.verdict) == {"no difference"}:
        return f"Pretraining changed the final force error by less than {NEGLIGIBLE:g} %."
    if set(rows.verdict) == {"too few seeds"}:
        return (
            "Too few seeds to tell whether pretraining changes the final force error:"
            f" at most {rows.pairs.max():g} per arm, and at least {FEWEST} are needed."
        )
    return "These seeds cannot tell whether pretraining changes the final force error."


def _changes(errors: pd.DataFrame, quantity: Quantity) -> list[tuple[str, str]]:
    rows = errors[(errors.quantity == quantity.name) & (errors.pairs > 0)]
    return [
        (
            f"{row.arm}: {row.verdict}",
            f"{percent(row.change)} % {interval(row.low, row.high)}".rstrip()
            + f", n = {row.pairs:g}",
        )
        for _, row in rows.iterrows()
    ]


def _best(study: Study) -> Headline:
    """Of a search or a baseline: best in validation among the settings with most seeds."""
    metric = study.facts["space"].get("metric", f"val_{FORCE.name}")
    curves = finetuning(study)
    lowest = curves[curves.metric == metric].groupby(["arm", "run_id"]).value.min()
    arms = lowest.groupby("arm").agg(["mean", "count"])
    chosen = arms[arms["count"] == arms["count"].max()]["mean"]
    if chosen.empty:
        return Headline("The completed trials have no validation errors to choose between them.")
    best = str(chosen.idxmin())
    trials = included(study).query("arm == @best")
    trivial = MILLI * trials[f"trivial_{FORCE.name}"].mean()
    errors = MILLI * trials[f"test_{FORCE.name}"]
    unit = FORCE.unit.replace("/", "/\N{WORD JOINER}")  # Or lines break there.
    subject = f"The best of {len(arms)} settings has a" if len(arms) > 1 else "The"
    verb = "of" if len(arms) > 1 else "is"
    return Headline(
        f"{subject} test force RMSE {verb} {spread(errors.mean(), errors.std())} {unit};"
        f" predicting zero force gives {number(trivial)}.",
        (("Best in validation", [(best, f"n = {len(errors)}")]),),
    )
