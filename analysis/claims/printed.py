"""Errors that the papers print for arms that a study has, too."""

from __future__ import annotations

import re

import pandas as pd

from analysis.claims.claim import Statement, select
from analysis.claims.findings import statements
from analysis.claims.scale import deviations
from analysis.comparisons.arms import references
from analysis.comparisons.outcomes import compared
from analysis.records.study_tables import Study

CHANGE = re.compile(r"([\d.]+|not converged) → ([\d.]+) meV")
"""What a claim prints of an error: of its reference, then of its arm."""

COLUMNS = ["quantity", "arm", "value", "place", "deviations"]


def printed_errors(study: Study) -> pd.DataFrame:
    """List errors of the papers' arms, in the unit of the study's tables.

    Returns:
        A row per quantity and arm of the study that is an arm of a paper: value; place: of the
        paper; deviations: settings in which the study's trials are smaller or other than there.
    """
    trials = compared(study)
    rows = [row for statement in statements() for row in _rows(statement, trials)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.drop_duplicates(["quantity", "arm"]).reset_index(drop=True)


def _rows(statement: Statement, trials: pd.DataFrame) -> list[dict[str, object]]:
    printed = CHANGE.match(statement.printed)
    if printed is None or statement.arm is None or statement.measure != "final":
        return []
    mine = select(trials, statement.arm)
    pairs = references(trials)
    values = {}
    for arm in mine.arm.unique():
        values[arm] = printed[2]
        # A claim against other arms prints theirs first.
        if statement.against == "scratch" and arm in pairs and printed[1][0].isdigit():
            values[pairs[arm]] = printed[1]
    other = deviations(statement, mine, of_data=False) if len(mine) else ()
    facts = {"quantity": statement.quantity, "place": _place(statement), "deviations": other}
    return [facts | {"arm": arm, "value": float(value)} for arm, value in values.items()]


def _place(statement: Statement) -> str:
    """Such as `arXiv:2402.15921, Table 1`."""
    named = statement.place.startswith("arXiv:")
    return statement.place if named else f"arXiv:{statement.paper}, {statement.place}"
