"""The answer of a study in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from analysis.comparisons.arms import compared, included, is_search
from analysis.comparisons.controls import beside
from analysis.comparisons.controls import final as final_values
from analysis.comparisons.error_tables import early_errors, final_errors, finetuning
from analysis.comparisons.labels import SCRATCH
from analysis.comparisons.quantities import FORCE, Quantity, charted, lead
from analysis.comparisons.statistics import FEWEST, NEGLIGIBLE, TOO_FEW, seeds_needed
from analysis.formatting import interval, listed, number, percent, spread
from analysis.records.study_tables import Study

MOST_ARMS = 8
"""A headline with more is no headline; the tables have them all."""


@dataclass(frozen=True)
class Headline:
    """What was found, in one sentence.

    Args:
        sentence: the answer.
        remark: what casts doubt on it, and what would make it surer.
        details: per error that it rests on, a title, and per arm what is said and the numbers.
    """

    sentence: str
    remark: str = ""
    details: tuple[tuple[str, list[tuple[str, str]]], ...] = ()


def headline(study: Study) -> Headline:
    """The answer in plain words, as sure as the seeds and the start of training allow."""
    said, warning = _headline(study), study.facts["warning"]
    warned = f"Warning: {warning}." if warning else ""
    return replace(said, remark=" ".join(filter(None, (warned, said.remark))))


def _headline(study: Study) -> Headline:
    if included(study).empty:
        return Headline("No trial has completed yet, so there is nothing to report.")
    if is_search(study):
        return _best(study)
    final, early, main = final_errors(study), early_errors(study), lead(study)
    if final.pairs.isna().all():
        return _best(study)
    if final.pairs.max() == 0:
        return Headline(f"No seed has completed both with pretraining and {SCRATCH} yet.")
    details = (
        *((f"Final {_error(q, study)}", _changes(final, q)) for q in charted(study)),
        (f"{_capital(_error(main, study))} at the first evaluation", _changes(early, main)),
    )
    told = tuple(detail for detail in details if 0 < len(detail[1]) <= MOST_ARMS)
    remarks = (_competitors(study), _seeds_wanted(final, main))
    return Headline(_answer(study, final, main), " ".join(filter(None, remarks)), told)


def _answer(study: Study, final: pd.DataFrame, main: Quantity) -> str:
    """What the arms that were pretrained, or else all arms with a reference, show."""
    rows = final[(final.quantity == main.name) & final.verdict.notna()]
    asked = ~rows.control.astype(bool)
    rows = rows[asked] if asked.any() else rows
    pretrained = ~rows.scratch.astype(bool)
    subject = "Pretraining" if pretrained.any() else "Longer training"
    trials = compared(study)
    if rows.arm.isin(trials[trials.auxiliary != ""].arm).any():
        subject = "Pretraining or an auxiliary task"
    if not final.scratch.any():
        subject = "Another setting"
    lower, higher = (listed(rows[rows.verdict == said].arm) for said in ("lower", "higher"))
    if lower or higher:
        told = [f"lowered the final {main.error}: {lower}"] if lower else []
        told += (
            [f"raised {'it' if lower else f'the final {main.error}'}: {higher}"] if higher else []
        )
        return f"{subject} {listed(told)}."
    if set(rows.verdict) == {"no difference"}:
        return f"{subject} changed the final {main.error} by less than {NEGLIGIBLE:g} %."
    if set(rows.verdict) == {TOO_FEW}:
        return (
            f"Too few seeds to tell whether {subject.lower()} changes the final {main.error}:"
            f" at most {rows.pairs.max():g} per arm, and at least {FEWEST} are needed."
        )
    return f"These seeds cannot tell whether {subject.lower()} changes the final {main.error}."


def _competitors(study: Study) -> str:
    """How arms that beat scratch stand against what else they have to beat."""
    table = beside(final_values(compared(study), lead(study)))
    better = table[(table.kind == "scratch") & (table.verdict == "lower")].arm
    rows = table[table.arm.isin(better) & (table.kind != "scratch")]
    told = [
        f"{row['kind']}{'' if row['kind'] == 'placebo' else ' from scratch'}"
        f" {percent(row['change'])} % {interval(row['low'], row['high'])} ({row['verdict']})"
        for row in rows.to_dict("records")
    ]
    return f"Against {listed(told)}." if told else ""


def _seeds_wanted(final: pd.DataFrame, main: Quantity) -> str:
    """How many seeds would tell of a small change."""
    rows = final[(final.quantity == main.name) & final.verdict.isin(["cannot tell", TOO_FEW])]
    wanted = [seeds_needed(round(s, 3), -NEGLIGIBLE, len(rows)) for s in rows.spread.dropna()]
    known = [n for n in wanted if n is not None]
    if not known:
        return ""
    few = (rows.verdict == TOO_FEW).any()
    where = ", as far as so few show how they scatter," if few else " where these cannot tell"
    low, high = min(known), max(known)
    seeds = f"{high} seeds" if low == high else f"{low} to {high} seeds, depending on the arm"
    return f"To find a change of {NEGLIGIBLE:g} %{where} takes {seeds}."


def _error(quantity: Quantity, study: Study) -> str:
    """What it is an error of, and which one where the study tells several of it."""
    alike = [q for q in charted(study) if q.error == quantity.error]
    return quantity.error if len(alike) < 2 else quantity.in_sentence


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


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
    main = lead(study)
    metric = study.facts["space"].get("metric", f"val_{main.name}")
    curves = _curves(study)
    lowest = curves[curves.metric == metric].groupby(["arm", "run_id"]).value.min()
    arms = lowest.groupby("arm").agg(["mean", "count"])
    chosen = arms[arms["count"] == arms["count"].max()]["mean"]
    if chosen.empty:
        return Headline("The completed trials have no validation errors to choose between them.")
    best = str(chosen.idxmin())
    trials = included(study).query("arm == @best")
    trivial = main.scale * trials[f"trivial_{main.name}"].mean()
    errors = main.scale * trials[f"test_{main.name}"]
    unit = main.unit.replace("/", "/\N{WORD JOINER}")  # Or lines break there.
    subject = f"The best of {len(arms)} settings has a" if len(arms) > 1 else "The"
    verb = "of" if len(arms) > 1 else "is"
    trivially = "zero force" if main == FORCE else "the mean"
    return Headline(
        f"{subject} test {main.in_sentence} {verb} {spread(errors.mean(), errors.std())} {unit};"
        f" predicting {trivially} gives {number(trivial)}.",
        details=(("Best in validation", [(best, f"n = {len(errors)}")]),),
    )


def _curves(study: Study) -> pd.DataFrame:
    """Of all included trials; of a search also of those with one seed."""
    if len(compared(study)) == len(included(study)):
        return finetuning(study)
    names = included(study)[["run_id", "arm"]]
    return study.curves[study.curves.stage == "finetune"].merge(names, on="run_id")
