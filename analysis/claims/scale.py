"""Whether trials are as large as a paper's: what of its settings they deviate from."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from analysis.claims.claim import Statement, content, equal
from analysis.comparisons.labels import LABELS
from analysis.comparisons.selection import column
from analysis.formatting import listed

WATERS = ("tip3p_water", "rpbe_water")
"""Data of the main paper."""

OF_ANOTHER = re.compile(r"arXiv:([\d.]+\d)")
"""How the place of a claim begins that another paper makes."""

OF_DATA = ("dataset.", "split.")
"""Settings that decide what a data set is."""


def differences(trials: pd.DataFrame, paper: str = "") -> pd.DataFrame:
    """List settings in which trials differ from those of a paper.

    Args:
        trials: any; of the main paper those on its data are compared.
        paper: its arXiv number; by default that of the main paper.

    Returns:
        A row per setting: setting, for (which model or data), unit, paper and here (all values).
    """
    rows = []
    for rule in _rules(paper):
        of = {name: rule[name] for name in ("model", "dataset") if name in rule}
        fits = column(trials, "dataset.name").isin(WATERS) | bool(paper)
        for name, value in of.items():
            fits &= column(trials, f"{name}.name") == value
        wanted = rule["value"] if isinstance(rule["value"], list) else [rule["value"]]
        used = column(trials, rule["setting"])[fits].dropna().unique()
        here = [value for value in used if not any(equal(value, one) for one in wanted)]
        if here:
            paper = "all" if wanted[0] is None else wanted[0]
            row = {"setting": rule["setting"], "unit": rule.get("unit", ""), "paper": paper}
            rows.append(row | {"for": listed(of.values()), "here": here})
    return pd.DataFrame(rows, columns=["setting", "for", "unit", "paper", "here"])


def deviations(statement: Statement, trials: pd.DataFrame, *, of_data: bool) -> tuple[str, ...]:
    """Settings in which trials are smaller or other than those of the claim's paper.

    Settings in which its text and its code disagree are not among them: those are told as the
    reading. Without any deviation a finding is at full scale, whatever its profile is called.

    Args:
        statement: the claim.
        trials: those that it is judged by.
        of_data: whether the claim is about the data set alone.
    """
    named = OF_ANOTHER.match(statement.place)
    paper = named[1] if named else ""
    others = [] if paper else sorted(set(column(trials, "dataset.name").dropna()) - {*WATERS})
    if others or not _rules(paper):
        return (f"no settings of the paper are listed for {listed(others) or statement.place}",)
    read = {rule["setting"] for rule in content()["readings"]}
    ignored = read | ({LABELS} if statement.measure == "labels" else set())
    return tuple(
        f"{row['setting']} {listed(map(_text, row['here']))} instead of {_text(row['paper'])}"
        for row in differences(trials, paper).to_dict("records")
        if (row["setting"].startswith(OF_DATA) if of_data else True)
        and row["setting"] not in ignored
    )


def _rules(paper: str) -> list[dict[str, Any]]:
    return [rule for rule in content()["settings"] if rule.get("of", "") == paper]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
