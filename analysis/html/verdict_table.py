"""Every verdict of a study in one table, and its headline, for those who read no page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO

import pandas as pd

from analysis.comparisons.controls import compare_with_controls, final
from analysis.comparisons.error_tables import CHANGE, early_errors, final_errors
from analysis.comparisons.outcomes import planned
from analysis.comparisons.quantities import lead
from analysis.comparisons.training_curves import convergence, stability, while_learning
from analysis.html.headline import headline
from analysis.records.study_tables import Study

COLUMNS = ["study", "comparison", "quantity", "arm", "reference", *CHANGE]


def verdict_table(study: Study) -> pd.DataFrame:
    """List all verdicts of a study.

    Returns:
        A row per comparison, quantity and arm: study; comparison: final, first evaluation, against
        a control, while learning, epochs to a target, roughness, or divergence; quantity, arm,
        reference, and `CHANGE`.
    """
    trials, main = planned(study), lead(study).name
    if trials.empty:
        return pd.DataFrame(columns=COLUMNS)
    beside = compare_with_controls(final(trials, lead(study)))
    learning, speed, steady = while_learning(study), convergence(study), stability(study)
    parts = [
        final_errors(study).assign(comparison="final"),
        early_errors(study).assign(comparison="first evaluation"),
        beside.assign(comparison="final against " + beside.kind, quantity=main),
        learning.assign(comparison=[f"mean of {share:.0%}" for share in learning.share]),
    ]
    if len(speed):
        at = [f"epochs to {target:g} ×" for target in speed.target]
        parts.append(speed.assign(comparison=at))
    if "pairs" in steady:
        parts.append(steady.assign(comparison="roughness"))
    filled = [part.reindex(columns=COLUMNS) for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat(filled)
    rows = pd.concat([rows, _divergence(steady)]) if "divergence" in steady else rows
    rows = rows[rows.verdict.notna()].assign(study=study.name)
    rows["quantity"] = rows.quantity.fillna(main)
    return rows.astype({"verdict": "str"}).reset_index(drop=True)


def _divergence(steady: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on the rate of divergence, whose p is McNemar's."""
    rows = steady.assign(comparison="divergence", verdict=steady.divergence, p=steady.mcnemar)
    unset = [
        name for name in CHANGE if name not in {"p", "verdict", "family_size", "ended", "missing"}
    ]
    rows[unset] = math.nan
    rows["adjusted"] = (rows.p * rows.family_size).clip(upper=1)
    return rows.reindex(columns=COLUMNS)


def as_parquet(studies: Sequence[Study]) -> bytes:
    """The verdicts of several studies as the content of a file."""
    tables = [verdict_table(study) for study in studies]
    content = BytesIO()
    numbers = {name: "float64" for name in CHANGE if name != "verdict"}
    pd.concat(tables, ignore_index=True).astype(numbers).to_parquet(content, index=False)
    return content.getvalue()


def headlines(studies: Sequence[Study]) -> dict[str, dict[str, str]]:
    """Experiment → the sentence that its report begins with, and the remark below it."""
    return {
        str(study.facts["experiment"]): {"sentence": found.sentence, "remark": found.remark}
        for study in studies
        for found in [headline(study)]
    }
