"""The result of a study in one sentence, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.comparisons.arms import references
from analysis.comparisons.controls import compare_with_controls
from analysis.comparisons.controls import final as final_values
from analysis.comparisons.error_tables import early_errors, final_errors, finetuning
from analysis.comparisons.labels import SCRATCH, missing
from analysis.comparisons.outcomes import (
    Outcome,
    compared,
    included,
    is_search,
    judged,
    planned,
    population_of,
)
from analysis.comparisons.quantities import FORCE, Quantity, charted, lead
from analysis.comparisons.training_curves import stability
from analysis.formatting import interval, listed, number, percent, spread
from analysis.html.answer import answer
from analysis.html.grids import failures
from analysis.records.study_tables import Study
from analysis.statistics.change import FEWEST
from analysis.statistics.power import POWER, seeds_needed
from analysis.statistics.verdict import NEGLIGIBLE, Verdict

MOST_ARMS = 8
"""A headline with more is no headline; the tables have them all."""


@dataclass(frozen=True)
class Headline:
    """The result of a study in one sentence.

    Args:
        sentence: the answer.
        remark: warnings, controls, and the seeds that a firmer answer needs.
        details: per error, a title, and per arm the verdict and the numbers.
    """

    sentence: str
    remark: str = ""
    details: tuple[tuple[str, list[tuple[str, str]]], ...] = ()


def headline(study: Study) -> Headline:
    """The answer in plain words, no more certain than the seeds allow."""
    found, warning = _headline(study), study.facts["warning"]
    warned = f"Warning: {warning}." if warning else ""
    return replace(found, remark=" ".join(filter(None, (warned, found.remark))))


def _headline(study: Study) -> Headline:
    if included(study).empty:
        failed = int(planned(study).outcome.eq(Outcome.DIVERGED).sum())
        others = f"; {failed} of {len(study.trials)} diverged" if failed else ""
        return Headline(f"No trial has completed yet{others}.")
    if is_search(study):
        return _best(study)
    final, early, main = final_errors(study), early_errors(study), lead(study)
    if final.pairs.isna().all():
        return _best(study)
    if final.ended.max() == 0:
        return Headline(f"No seed has completed both with pretraining and {SCRATCH} yet.")
    details = (
        *((f"Final {_error(q, study)}", _changes(final, q)) for q in charted(study)),
        (f"{_capital(_error(main, study))} at the first evaluation", _changes(early, main)),
    )
    shown = tuple(detail for detail in details if 0 < len(detail[1]) <= MOST_ARMS)
    remarks = (_provisional(final, main), _against_controls(study), _seeds_for_power(final, main))
    remark = " ".join(filter(None, (*remarks, _worse_than_trivial(final, charted(study)))))
    sentence = " ".join(filter(None, (answer(study, final, main), _diverged(study))))
    return Headline(sentence, remark, shown)


def _diverged(study: Study) -> str:
    """How many trials diverged, of the arms and their references, and the verdicts on that."""
    table = stability(study)
    if table.empty or not table.diverged.any():
        return ""
    pairs = references(planned(study))
    failed = set(table[table.diverged > 0].arm)
    named = failed | {pairs[arm] for arm in failed if arm in pairs}
    named |= {arm for arm, reference in pairs.items() if reference in failed}
    rows = table[table.arm.isin(named)].head(MOST_ARMS).to_dict("records")
    counts = listed(f"{row['arm']} {row['diverged']} of {row['n']}" for row in rows)
    said = [
        f"{row['arm']} {OFTEN.get(row['divergence'], row['divergence'])}"
        for row in table.to_dict("records")
        if not missing(row.get("divergence"))
    ]
    verdicts = f" (against the reference: {listed(said[:MOST_ARMS])})" if said else ""
    return f"Diverged: {counts}{verdicts}."


OFTEN = {Verdict.LOWER: "less often", Verdict.HIGHER: "more often"}
"""Verdicts on a rate, in a sentence."""


def _worse_than_trivial(final: pd.DataFrame, reported: Sequence[Quantity]) -> str:
    """Which arms predict worse than the mean of the training labels, or zero force."""
    sentences = []
    for q in reported:
        rows = final[(final.quantity == q.name) & (final["mean"] > final.trivial)]
        if len(rows):
            arms = listed(rows.arm) if len(rows) <= MOST_ARMS else f"{len(rows)} arms"
            what = "zero force" if q == FORCE else "the mean"
            sentences.append(f"Worse than predicting {what}: {q.in_sentence} of {arms}.")
    return " ".join(sentences)


def _provisional(final: pd.DataFrame, main: Quantity) -> str:
    rows = final[(final.quantity == main.name) & (final.missing > 0)]
    if rows.empty:
        return ""
    most = rows.sort_values("missing").iloc[-1]
    pairs = most.ended + most.missing
    return f"Provisional: {most.missing:g} of {pairs:g} pairs of seeds are missing."


def _against_controls(study: Study) -> str:
    """Changes of the arms that beat scratch relative to their other controls."""
    table = compare_with_controls(final_values(planned(study), lead(study)))
    better = table[(table.kind == "scratch") & (table.verdict == Verdict.LOWER)].arm
    rows = table[table.arm.isin(better) & (table.kind != "scratch")]
    changes = [
        f"{CONTROLS[row['kind']]} {percent(row['change'])} %"
        f" {interval(row['low'], row['high'])} ({row['verdict']})"
        for row in rows.to_dict("records")
    ]
    return f"Relative to {listed(changes)}." if changes else ""


CONTROLS = {
    "equal steps": "training from scratch for equal steps",
    "equal compute": "training from scratch at equal compute",
    "placebo": "the placebo",
}
"""Controls besides scratch, in a sentence."""


def _seeds_for_power(final: pd.DataFrame, main: Quantity) -> str:
    """Number of seeds that would detect a small change; two tell too little of the spread."""
    rows = final[(final.quantity == main.name) & final.spread.notna()]
    if len(rows) and (rows.verdict == Verdict.TOO_FEW).all():
        return f"It takes {FEWEST} seeds to estimate how many find a {NEGLIGIBLE:g} % change."
    rows = rows[rows.verdict == Verdict.INCONCLUSIVE]
    counts = [
        seeds_needed(round(row["spread"], 3), -NEGLIGIBLE, int(row["family_size"]))
        for row in rows.to_dict("records")
    ]
    finite = [n for n in counts if n is not None]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    seeds = f"{high} seeds" if low == high else f"{low}–{high} seeds, depending on the arm"
    return f"Detecting a {NEGLIGIBLE:g} % change with {100 * POWER:.0f} % power needs {seeds}."


def _error(quantity: Quantity, study: Study) -> str:
    """`force error`, or its full name where the study reports several errors of the quantity."""
    alike = [q for q in charted(study) if q.error == quantity.error]
    return quantity.error if len(alike) < 2 else quantity.in_sentence


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _changes(errors: pd.DataFrame, quantity: Quantity) -> list[tuple[str, str]]:
    rows = errors[(errors.quantity == quantity.name) & (errors.ended > 0)]
    return [(f"{row.arm}: {row.verdict}", _numbers(row)) for _, row in rows.iterrows()]


def _numbers(row: pd.Series[Any]) -> str:
    change = "" if pd.isna(row.change) else f"{percent(row.change)} %"
    parts = (f"{change} {interval(row.low, row.high)}".strip(), f"n = {row.pairs:g}", failures(row))
    return ", ".join(filter(None, parts))


def _best(study: Study) -> Headline:
    """Lowest validation error of a search or baseline, among the settings with most seeds."""
    main = lead(study)
    metric = study.facts["space"].get("metric", f"val_{main.name}")
    curves = _curves(study)
    lowest = curves[curves.metric == metric].groupby(["arm", "run_id"]).value.min()
    arms = lowest.groupby("arm").agg(["mean", "count"])
    candidates = arms[arms["count"] == arms["count"].max()]["mean"]
    if candidates.empty:
        return Headline("The completed trials have no validation errors by which to rank them.")
    best = str(candidates.idxmin())
    trials = included(study).query("arm == @best")
    trivial = main.scale * trials[f"trivial_{main.name}"].mean()
    worse = [
        f"Its {q.in_sentence} is worse than that of predicting the mean."
        for q in charted(study)
        if trials[f"test_{q.name}"].mean() > trials[f"trivial_{q.name}"].mean()
    ]
    errors = main.scale * trials[f"test_{main.name}"]
    members = population_of(study)
    settings = judged(study).arm.nunique()
    several = f"a population of {members}" if members else f"{settings} settings"
    chosen = settings > 1 or members
    subject = f"The best of {several} has a" if chosen else "The"
    if members and len(arms) > 1:
        subject = f"Of {several} and its baseline, the best has a"
    verb = "of" if chosen else "is"
    what = "zero force" if main == FORCE else "the mean"
    trivially = f"; predicting {what} gives {number(trivial)}" if trivial == trivial else ""
    return Headline(
        f"{subject} test {main.in_sentence} {verb} {spread(errors.mean(), errors.std())}"
        f"{main.unit and ' '}{main.unit}{trivially}.",
        " ".join(worse),
        details=(("Lowest validation error", [(best, f"n = {len(errors)}")]),),
    )


def _curves(study: Study) -> pd.DataFrame:
    """Finetuning curves of all included trials, also those of a search with a single seed."""
    if len(compared(study)) == len(included(study)):
        return finetuning(study)
    names = included(study)[["run_id", "arm"]]
    return study.curves[study.curves.stage == "finetune"].merge(names, on="run_id")
