"""Tables of the report: errors, trials, cost; every cell is a text, perhaps with notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.comparisons.cost import cost, reuse, saved_by_sharing, saved_by_stopping
from analysis.comparisons.error_tables import pretext, results
from analysis.comparisons.labels import value_text
from analysis.comparisons.outcomes import excluded
from analysis.comparisons.quantities import Quantity, charted, quantity_of
from analysis.comparisons.search import objectives, objectives_of
from analysis.formatting import (
    NONE,
    duration,
    energy,
    interval,
    number,
    operations,
    percent,
    spread,
)
from analysis.records.study_tables import Study
from study.core.records import COST_METRICS

COSTS = {
    "seconds": ("Finetuning", "s"),
    "step_seconds": ("Step", "s"),
    "flops": ("Operations", ""),
    "parameters": ("Parameters", ""),
    "peak_memory": ("Peak memory", "GB"),
}
"""Heading and unit of the costs that a search may minimize."""


@dataclass(frozen=True)
class Column:
    """Heading of a column; numbers are set flush right."""

    label: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A text, and smaller ones below it."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A printed table.

    Args:
        columns: its headings.
        rows: as many cells each as there are columns.
        foot: how many of the last rows are set apart.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    foot: int = 0


def error_grid(errors: pd.DataFrame, quantities: Sequence[Quantity]) -> Grid:
    """Arms down; errors and their change from the reference across; trivial predictor last."""
    columns = [Column("Arm", numeric=False), Column("n")]
    for q in quantities:
        columns += [Column(q.label, q.unit)]
        columns += [Column("Change", "95 % interval")] if not q.per_frame else []
    rows = [_arm(group, quantities) for _, group in errors.groupby("arm", sort=False)]
    trivial = [_trivial(errors, q) for q in quantities]
    foot = [cell for cells in trivial for cell in cells]
    if any(cells[0].text != NONE for cells in trivial):
        rows.append([Cell("trivial predictor"), Cell(""), *foot])
        return Grid(columns, rows, foot=1)
    return Grid(columns, rows)


def pretext_grid(study: Study) -> Grid:
    """Final pretext loss per task."""
    table = pretext(study)
    several = table.family.nunique() > 1
    rows = [
        [
            Cell(f"{row.task}, {row.family}" if several else row.task),
            Cell(f"{row.n:g}"),
            Cell(spread(row["mean"], row["std"])),
        ]
        for _, row in table.iterrows()
    ]
    return Grid(
        [Column("Pretext task", numeric=False), Column("n"), Column("Loss", "1 is chance")], rows
    )


MOST_RUNS = 200
"""Runs that a table of the page lists; trials.parquet holds them all."""


def result_grid(study: Study) -> Grid:
    """One row for each of the first trials of any study."""
    table = results(study)
    settings = [name for name in table if name in study.settings]
    columns = [Column("Trial")]
    columns += [Column(short(n), numeric=_is_number(table[n])) for n in settings]
    columns += [Column("Status", numeric=False)]
    columns += [Column(q.label, q.unit) for q in charted(study)]
    columns += [Column("Share", "of trivial error"), Column("Wall time")]
    rows = []
    for _, row in table.head(MOST_RUNS).iterrows():
        cells = [_plain(row[name]) for name in ("number", *settings, "status")]
        cells += [number(row[f"{q.label} ({q.unit})"]) for q in charted(study)]
        cells += [number(row["of trivial"])]
        rows.append([Cell(text) for text in (*cells, duration(row.seconds))])
    return Grid(columns, rows)


def front_grid(study: Study) -> Grid | None:
    """The Pareto front of a search with several objectives; None without one."""
    table = objectives(study)
    if table.empty:
        return None
    names = objectives_of(study)
    shown = [quantity_of(study, name) if name.startswith("val_") else None for name in names]
    columns = [Column("Trial"), Column("Arm", numeric=False)]
    columns += [
        Column(f"Validation {q.in_sentence}", q.unit) if q else Column(*COSTS[name])
        for name, q in zip(names, shown, strict=True)
    ]
    scales = [q.scale if q else 1 for q in shown]
    rows = [
        [Cell(_plain(row["number"])), Cell(str(row["arm"]))]
        + [Cell(number(row[name] * scale)) for name, scale in zip(names, scales, strict=True)]
        for row in table[table.front].to_dict("records")
    ]
    return Grid(columns, rows)


def excluded_grid(study: Study) -> Grid:
    """The first runs that enter no mean, and why."""
    rows = [
        [
            Cell("pretraining" if row.kind == "pretrain" else f"trial {_plain(row.number)}"),
            Cell("" if row.kind == "pretrain" else str(row.arm)),
            Cell(_plain(row.seed)),
            Cell(str(row.status)),
            Cell(row.reason),
        ]
        for _, row in excluded(study).head(MOST_RUNS).iterrows()
    ]
    labels = ("Run", "Arm", "Seed", "Status", "Reason")
    return Grid([Column(label, numeric=label == "Seed") for label in labels], rows)


def cost_grid(study: Study) -> Grid:
    """Cost of each stage and of the study, and what was saved; only columns with values."""
    table = cost(study)
    names = [name for name in COST_METRICS if table[name].notna().any()]
    columns = [Column("Stage", numeric=False), Column("Runs"), Column("Median")]
    columns += [Column(COST_LABELS[name]) for name in names]
    rows = [
        [Cell(row.stage), Cell(str(row.pieces)), Cell(duration(row["median"])), *_spent(row, names)]
        for _, row in table.iterrows()
    ]
    total = table[names].sum(skipna=False)
    rows.append([Cell("total"), Cell(str(table.pieces.sum())), Cell(""), *_spent(total, names)])
    foot = 1
    for what, saved in (
        ("saved by sharing pretraining runs", saved_by_sharing(study)),
        ("saved by early stopping", saved_by_stopping(study)),
    ):
        if saved["seconds"] > 0:
            rows.append([Cell(what), Cell(""), Cell(""), *_spent(pd.Series(saved), names)])
            foot += 1
    return Grid(columns, rows, foot=foot)


COST_LABELS = {
    "seconds": "Wall time",
    "cpu_seconds": "CPU time",
    "flops": "FLOPs",
    "energy_joule": "Energy",
}


def _spent(row: pd.Series[Any], names: Sequence[str]) -> list[Cell]:
    words = {"flops": operations, "energy_joule": energy}
    return [Cell(words.get(name, duration)(float(row[name]))) for name in names]


def reuse_grid(study: Study) -> Grid | None:
    """Pretraining runs shared by several trials or continued by others; None if none is."""
    table = reuse(study)
    shared = table[table.saved_seconds > 0]
    if shared.empty:
        return None
    rows = [
        [
            Cell(row.key[:12]),
            Cell(_plain(row.task)),
            Cell(_plain(row.seed)),
            Cell(str(row.trials)),
            Cell(duration(row.seconds)),
            Cell(duration(row.saved_seconds)),
        ]
        for _, row in shared.iterrows()
    ]
    labels = ("Task", "Seed", "Trials", "Wall time", "Saved")
    return Grid([Column("Pretraining", numeric=False), *map(Column, labels)], rows)


def short(name: str) -> str:
    """The last part of a dotted name, with its stage where that matters."""
    special = {"pretrain.task.masking_ratio": "masking ratio", "pretrain.task.name": "pretraining"}
    stage, _, rest = name.rpartition(".")
    words = special.get(name) or (f"{stage} {rest}" if stage else name).replace("_", " ")
    return words[:1].upper() + words[1:]


def _arm(group: pd.DataFrame, quantities: Sequence[Quantity]) -> list[Cell]:
    by_name = {row.quantity: row for _, row in group.iterrows()}
    cells = [Cell(str(group.arm.iloc[0])), Cell(f"{group.n.max():d}")]
    for q in quantities:
        row = by_name.get(q.name)
        if row is None:  # Models whose forces are no gradient have no stress.
            cells += [Cell(NONE), *[Cell("")] * (not q.per_frame)]
            continue
        notes = (WORSE,) if row["mean"] > row["trivial"] else ()
        cells.append(Cell(spread(row["mean"], row["std"]), notes))
        if not q.per_frame:
            cells.append(change_cell(row))
    return cells


WORSE = "worse than the trivial predictor"


def change_cell(row: pd.Series[Any]) -> Cell:
    """Change with its interval and verdict, and how many trials count as worst."""
    if pd.isna(row.pairs):
        return Cell("reference")
    if row.ended == 0:
        return Cell(NONE, ("no paired seeds",))
    change = NONE if pd.isna(row.change) else f"{percent(row.change)} %"
    notes = (interval(row.low, row.high), str(row.verdict), failures(row))
    return Cell(change, tuple(filter(None, notes)))


def failures(row: pd.Series[Any]) -> str:
    """How many trials of the pairs behind a change have no value; empty if none."""
    if not row.failed and not row.reference_failed:
        return ""
    return f"{row.failed:g} of {row.ended:g} diverged, of the reference {row.reference_failed:g}"


def _trivial(errors: pd.DataFrame, quantity: Quantity) -> list[Cell]:
    value = errors[errors.quantity == quantity.name].trivial.mean()
    return [Cell(number(value))] + ([Cell("")] if not quantity.per_frame else [])


def _is_number(column: pd.Series[float]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _plain(value: Any) -> str:
    if pd.isna(value):
        return NONE
    return value_text(value)
