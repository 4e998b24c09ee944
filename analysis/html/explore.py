"""One interactive page beside the report: trials by their settings, curves, time and cost."""

from __future__ import annotations

import base64
import gzip
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from analysis.comparisons.error_tables import differing
from analysis.comparisons.labels import RATIO, short_words, value_text
from analysis.comparisons.outcomes import is_search, with_parts
from analysis.comparisons.quantities import charted, metric_of, quantity_of
from analysis.comparisons.search import importances, rungs, timeline
from analysis.comparisons.selection import column
from analysis.records.study_tables import Study

INSTALL = 'pip install -e ".[explore]"'
"""What brings plotly, without which there is no interactive page."""

MOST_POINTS = 200
"""Points along a trial's curve; more cannot be seen."""

SCRIPT = Path(__file__).with_name("explore.js")

MISSING = "\N{EN DASH}"


def plotly_script() -> str:
    """Plotly's script as plotly ships it; empty if plotly is not installed."""
    try:
        offline = importlib.import_module("plotly.offline")
    except ImportError:
        return ""
    return str(offline.get_plotlyjs())


def explore_page(studies: Sequence[Study], title: str, templates: Environment) -> str:
    """The page as text; empty if plotly is not installed.

    Plotly's script is in it once, compressed, so that the page needs no network and stays small.
    """
    script = plotly_script()
    if not script:
        return ""
    packed = base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()
    return templates.get_template("explore.html.jinja").render(
        title=title,
        plotly=packed,
        content=_embedded([explorable(study) for study in studies]),
        script=Markup(SCRIPT.read_text(encoding="utf-8")),
    )


def explorable(study: Study) -> dict[str, Any]:
    """All that the page shows of a study.

    Returns:
        name; metric: label of `value`; tests: labels of `tests`; settings: label, whether it is a
        number, and whether it is logarithmic; trials: one each, with the values of the settings;
        importances: branch, setting, importance, low, high; rungs: epochs at which ASHA stops
        trials.
    """
    study = with_parts(study)
    quantity = quantity_of(study, metric_of(study))
    names = _settings(study)
    words = short_words(study.settings)
    trials = study.trials.sort_values("number", kind="stable")
    columns = [_column(column(trials, name)) for name in names]
    return {
        "name": study.name,
        "metric": f"validation {quantity.in_words}",
        "tests": [f"test {q.in_words}" for q in charted(study)],
        "settings": [
            {"label": words.get(name, name), "numeric": numeric, "log": _spans_decades(values)}
            for name, (values, numeric) in zip(names, columns, strict=True)
        ],
        "trials": _trials(study, trials, [values for values, _ in columns]),
        "importances": _importances(study, words),
        "rungs": rungs(study),
    }


def _settings(study: Study) -> list[str]:
    """Settings that differ between trials, with the ratio and the seed where they do."""
    names = differing(study)
    extra = [
        name
        for name in (RATIO, "seed")
        if name not in names and column(study.trials, name).nunique(dropna=False) > 1
    ]
    return [*names, *extra]


def _column(values: pd.Series[Any]) -> tuple[list[Any], bool]:
    """Values as JSON holds them, and whether all that are there are numbers."""
    known = values.dropna()
    plain = not pd.api.types.is_bool_dtype(values)
    numeric = plain and bool(len(known)) and pd.to_numeric(known, errors="coerce").notna().all()
    if numeric:
        return [_number(value) for value in values], True
    return [MISSING if pd.isna(value) else value_text(value) for value in values], False


def _spans_decades(values: Sequence[Any]) -> bool:
    """Check for positive numbers that span a decade or more."""
    numbers = [value for value in values if isinstance(value, float)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= 10 * min(numbers)


def _trials(
    study: Study, trials: pd.DataFrame, columns: Sequence[Sequence[Any]]
) -> list[dict[str, Any]]:
    told = timeline(study).set_index("number")
    curves = _curves(study)
    rows = []
    for place, row in enumerate(trials.to_dict("records")):
        known = told.loc[row["number"]]
        rows.append(
            {"number": int(row["number"]), "status": str(row["status"]), "arm": str(known.arm)}
            | {name: _number(known[name]) for name in ("value", "begin", "end", "seconds")}
            | {
                "settings": [values[place] for values in columns],
                "tests": [_number(q.scale * row[f"test_{q.name}"]) for q in charted(study)],
                "curve": curves.get(str(row["run_id"]), [[], []]),
            }
        )
    return rows


def _curves(study: Study) -> dict[str, list[list[float]]]:
    """Run → epochs and values of the study's metric."""
    metric, scale = metric_of(study), quantity_of(study, metric_of(study)).scale
    rows = study.curves[(study.curves.stage == "finetune") & (study.curves.metric == metric)]
    rows = rows[np.isfinite(rows.value.astype(float))].sort_values("epoch")
    found: dict[str, list[list[float]]] = {}
    for run_id, group in rows.groupby("run_id"):
        thinned = group.iloc[:: max(1, len(group) // MOST_POINTS)]
        values: list[float] = [float(f"{scale * value:.5g}") for value in thinned.value]
        found[str(run_id)] = [[float(epoch) for epoch in thinned.epoch], values]
    return found


def _importances(study: Study, words: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of `importances`, of a search; settings by their short names."""
    rows = importances(study) if is_search(study) else pd.DataFrame()
    return [
        {"label": f"{row['branch']}: {words.get(row['setting'], row['setting'])}"}
        | {name: _number(row[name]) for name in ("importance", "low", "high")}
        for row in rows.to_dict("records")
    ]


def _number(value: Any) -> float | None:
    """A finite number; JSON has no other."""
    if pd.isna(value) or not np.isfinite(float(value)):
        return None
    return float(value)


def _embedded(content: object) -> Markup:
    """JSON that cannot end the element which holds it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
