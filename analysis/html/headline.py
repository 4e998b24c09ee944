"""The result of a study in one sentence, with its numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from analysis.comparisons.arms import compared, included, is_search
from analysis.comparisons.controls import compare_with_controls
from analysis.comparisons.controls import final as final_values
from analysis.comparisons.error_tables import early_errors, final_errors, finetuning
from analysis.comparisons.labels import SCRATCH
from analysis.comparisons.quantities import FORCE, Quantity, charted, lead
from analysis.comparisons.statistics import (
    FEWEST,
    INCONCLUSIVE,
    NEGLIGIBLE,
    POWER,
    TOO_FEW,
    seeds_needed,
)
from analysis.formatting import interval, listed, number, percent, spread
from analysis.records.study_tables import Study

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
    answer, warning = _headline(study), study.facts["warning"]
    warned = f"Warning: {warning}." if warning else ""
    return replace(answer, remark=" ".join(filter(None, (warned, answer.remark))))


def _headline(study: Study) -> Headline:
    if included(study).empty:
        return Headline("No trial has completed yet.")
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
    shown = tuple(detail for detail in details if 0 < len(detail[1]) <= MOST_ARMS)
    remarks = (_against_controls(study), _seeds_for_power(final, main))
    return Headline(_answer(study, final, main), " ".join(filter(None, remarks)), shown)


def _answer(study: Study, final: pd.DataFrame, main: Quantity) -> str:
    """Effect on the pretrained arms or, without any, on all arms that have a reference."""
    rows = final[(final.quantity == main.name) & final.verdict.notna()]
    treated = ~rows.control.astype(bool)
    rows = rows[treated] if treated.any() else rows
    pretrained = ~rows.scratch.astype(bool)
    subject = "Pretraining" if pretrained.any() else "Longer training"
    trials = compared(study)
    if rows.arm.isin(trials[trials.auxiliary != ""].arm).any():
        subject = "Pretraining or an auxiliary task"
    if not final.scratch.any():
        subject = "Changing the settings"
    lower, higher = (listed(rows[rows.verdict == verdict].arm) for verdict in ("lower", "higher"))
    if lower or higher:
        effects = [f"lowered the final {main.error}: {lower}"] if lower else []
        effects += (
            [f"raised {'it' if lower else f'the final {main.error}'}: {higher}"] if higher else []
        )
        return f"{subject} {listed(effects)}."
    if set(rows.verdict) == {"no difference"}:
        return f"{subject} changed the final {main.error} by less than {NEGLIGIBLE:g} %."
    if set(rows.verdict) == {TOO_FEW}:
        return (
            f"Too few seeds for a verdict on {subject.lower()}: {rows.pairs.max():g} per arm at"
            f" most, at least {FEWEST} needed."
        )
    return (
        f"Inconclusive: no significant effect of {subject.lower()} on the final {main.error}"
        f" ({_seeds(rows)})."
    )


def _seeds(rows: pd.DataFrame) -> str:
    """`n = 3 seeds`, or the fewest and the most of all arms."""
    fewest, most = (f"{count:g}" for count in (rows.pairs.min(), rows.pairs.max()))
    return f"n = {fewest if fewest == most else f'{fewest} to {most}'} seeds"


def _against_controls(study: Study) -> str:
    """Changes of the arms that beat scratch relative to their other controls."""
    table = compare_with_controls(final_values(compared(study), lead(study)))
    better = table[(table.kind == "scratch") & (table.verdict == "lower")].arm
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
    """Number of seeds that would detect a small change."""
    rows = final[(final.quantity == main.name) & final.verdict.isin([INCONCLUSIVE, TOO_FEW])]
    counts = [seeds_needed(round(s, 3), -NEGLIGIBLE, len(rows)) for s in rows.spread.dropna()]
    finite = [n for n in counts if n is not None]
    if not finite:
        return ""
    rough = " (a rough estimate from so few seeds)" if (rows.verdict == TOO_FEW).any() else ""
    low, high = min(finite), max(finite)
    seeds = f"{high} seeds" if low == high else f"{low}–{high} seeds, depending on the arm"
    power = f"{100 * POWER:.0f} % power"
    return f"Detecting a {NEGLIGIBLE:g} % change with {power} needs {seeds}{rough}."


def _error(quantity: Quantity, study: Study) -> str:
    """`force error`, or its full name where the study reports several errors of the quantity."""
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
    errors = main.scale * trials[f"test_{main.name}"]
    unit = main.unit.replace("/", "/\N{WORD JOINER}")  # Or lines break there.
    subject = f"The best of {len(arms)} settings has a" if len(arms) > 1 else "The"
    verb = "of" if len(arms) > 1 else "is"
    trivially = "zero force" if main == FORCE else "the mean"
    return Headline(
        f"{subject} test {main.in_sentence} {verb} {spread(errors.mean(), errors.std())} {unit};"
        f" predicting {trivially} gives {number(trivial)}.",
        details=(("Lowest validation error", [(best, f"n = {len(errors)}")]),),
    )


def _curves(study: Study) -> pd.DataFrame:
    """Finetuning curves of all included trials, also those of a search with a single seed."""
    if len(compared(study)) == len(included(study)):
        return finetuning(study)
    names = included(study)[["run_id", "arm"]]
    return study.curves[study.curves.stage == "finetune"].merge(names, on="run_id")
