"""Tables of the report: the papers' claims, controls, convergence, stability, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.claims.claim import Finding
from analysis.claims.measures import LEVELS
from analysis.comparisons.controls import KINDS
from analysis.comparisons.quantities import Quantity
from analysis.formatting import NONE, interval, listed, number, percent, spread
from analysis.html.grids import Cell, Column, Grid, change_cell
from analysis.statistics.verdict import Verdict

NO_BREAK_PERCENT = "\N{NO-BREAK SPACE}%"
DIRECTION_WORDS = {-1: Verdict.LOWER, 0: Verdict.NO_DIFFERENCE, 1: Verdict.HIGHER}
MOST_DEVIATIONS = 3
"""Settings that a claim's cell names."""


def claim_grid(findings: Sequence[Finding]) -> Grid:
    """Claims with the paper's number, ours and the verdict."""
    columns = [Column("Verdict", numeric=False), Column("Claim", numeric=False)]
    columns += [Column("Ours", "95 % interval"), Column("n"), Column("Seeds", "needed")]
    columns += [Column("Paper", numeric=False)]
    return Grid(columns, [_claim(finding) for finding in findings])


def controls_grid(table: pd.DataFrame) -> Grid:
    """Pretrained arms down, their controls across."""
    kinds = [kind for kind in KINDS if kind in set(table.kind)]
    columns = [Column("Arm", numeric=False)]
    columns += [Column(f"vs. {kind}", "95 % interval") for kind in kinds]
    rows = []
    for arm, group in table.groupby("arm", sort=False):
        by_kind = {row.kind: row for _, row in group.iterrows()}
        cells = [_against(by_kind[kind]) if kind in by_kind else Cell(NONE) for kind in kinds]
        rows.append([Cell(str(arm)), *cells])
    return Grid(columns, rows)


def table1_grid(table: pd.DataFrame) -> Grid:
    """The layout of Table 1 of arXiv:2402.15921."""
    columns = [Column("Data", numeric=False), Column("Model", numeric=False)]
    columns += [Column("Pretext task", numeric=False), Column("n")]
    for label, unit in (("Force RMSE", "meV/Å"), ("Energy RMSE", "meV/frame")):
        columns += [Column(f"{label}", f"scratch, {unit}"), Column("", f"pretrained, {unit}")]
        columns += [Column("Change", "95 % interval")]
    rows = []
    for row in table.to_dict("records"):
        cells = [Cell(str(row[name])) for name in ("dataset", "model", "task")]
        cells.append(Cell(f"{row['n']:g}"))
        for name in ("force", "energy"):
            for which in ("scratch", "pretrained"):
                label = f"{name}_{which}"
                cells.append(Cell(spread(row[label], row[f"{label}_std"])))
            ends = interval(row[f"{name}_low"], row[f"{name}_high"])
            notes = (*filter(None, [ends]), str(row[f"{name}_verdict"]))
            change = row[f"{name}_change"]
            cells.append(Cell(NONE if math.isnan(change) else f"{percent(change)} %", notes))
        rows.append(cells)
    return Grid(columns, rows)


def convergence_grid(learning: pd.DataFrame, table: pd.DataFrame) -> Grid:
    """Arms down; epochs to targets across, and how much lower errors were on the way.

    Args:
        learning: of `while_learning`.
        table: of `convergence`.
    """
    columns = [Column("Arm", numeric=False)]
    columns += [Column(f"to {target:g} ×", "epochs") for target in table.target.unique()]
    shares = list(learning.share.unique())
    columns += [Column(_part(share), "mean error, 95 % interval") for share in shares]
    changes = {(row.arm, row.share): change_cell(row) for _, row in learning.iterrows()}
    rows = []
    for arm, group in table.groupby("arm", sort=False):
        cells = [_epochs(row) for _, row in group.iterrows()]
        missing = Cell("reference" if arm == group.reference.iloc[0] else NONE)
        cells += [changes.get((arm, share), missing) for share in shares]
        rows.append([Cell(str(arm)), *cells])
    return Grid(columns, rows)


def _part(share: float) -> str:
    return "all epochs" if share == 1 else f"first {100 * share:g} %"


def stability_grid(table: pd.DataFrame) -> Grid:
    """Divergence, collapse, roughness, fluctuation and gradient spikes of each arm."""
    columns = [Column("Arm", numeric=False), Column("Diverged", "95 % interval")]
    columns += [
        Column("Collapsed", "95 % interval"),
        Column("Roughness"),
        Column("Change", "95 % interval"),
    ]
    columns += [Column("Fluctuation"), Column("Gradient norm", "99 % / median")]
    rows = []
    for _, row in table.iterrows():
        rates = [
            Cell(
                f"{row[name]} of {row.n}",
                (f"[{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}] %", *said),
            )
            for name, said in (("diverged", _rate_words(row)), ("collapsed", ()))
        ]
        change = Cell("reference") if pd.isna(row.get("pairs")) else change_cell(row)
        sizes = [Cell(number(row[name])) for name in ("fluctuation", "spikes")]
        rows.append([Cell(row.arm), *rates, Cell(number(row.roughness)), change, *sizes])
    return Grid(columns, rows)


def _rate_words(row: pd.Series[Any]) -> tuple[str, ...]:
    said = row.get("divergence")
    return () if pd.isna(said) else (str(said),)


def label_grid(quantity: Quantity, table: pd.DataFrame) -> Grid:
    """Error by number of labelled frames."""
    columns = [Column("Arm", numeric=False), Column("Labels"), Column("n")]
    columns += [Column(quantity.label, quantity.unit), Column("Change", "95 % interval")]
    columns += [Column("Slope", "ln error / ln labels")]
    rows = [
        [
            Cell(str(row.task)),
            Cell(f"{row['labels']:g}"),
            Cell(f"{row.n:g}"),
            Cell(spread(row["mean"], row["std"])),
            change_cell(row),
            Cell(number(row.slope), (f"[{number(row.slope_low)}, {number(row.slope_high)}]",)),
        ]
        for _, row in table.iterrows()
    ]
    return Grid(columns, rows)


def element_grid(table: pd.DataFrame) -> Grid:
    """Force error of each element."""
    columns = [Column("Arm", numeric=False), Column("Element", numeric=False), Column("n")]
    columns += [Column("Force RMSE", "meV/Å"), Column("Force MAE", "meV/Å")]
    rows = [
        [
            Cell(row.arm),
            Cell(row.element),
            Cell(f"{row.n:g}"),
            Cell(spread(row.rmse, row["std"])),
            Cell(number(row.mae)),
        ]
        for _, row in table.iterrows()
    ]
    return Grid(columns, rows)


def setting_grid(table: pd.DataFrame) -> Grid:
    """Settings that differ from the main paper."""
    columns = [Column(label, numeric=False) for label in ("Setting", "For", "Paper", "Here")]
    rows = []
    for row in table.to_dict("records"):
        unit = f" {row['unit']}" if row["unit"] else ""
        here = listed(_value(value) for value in row["here"])
        rows.append([row["setting"], row["for"], f"{_value(row['paper'])}{unit}", f"{here}{unit}"])
    return Grid(columns, [[Cell(text) for text in row] for row in rows])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _claim(finding: Finding) -> list[Cell]:
    change, statement = finding.change, finding.statement
    ours = Cell(NONE)
    if finding.measured:
        ours = Cell("", (finding.measured,))
    elif change.ended:
        ends = interval(change.low, change.high)
        middle = NONE if math.isnan(change.percent) else f"{percent(change.percent)} %"
        ours = Cell(middle, tuple(filter(None, [ends, str(finding.effect)])))
    where = ", ".join(filter(None, (finding.study, finding.scale and f"{finding.scale} scale")))
    reading = finding.reading and f"reading: {finding.reading}"
    notes = (statement.place, where, _smaller(finding), finding.reason, reading)
    return [
        Cell(finding.verdict),
        Cell(statement.text, tuple(filter(None, notes))),
        ours,
        Cell(str(change.ended) if change.ended else ""),
        Cell(str(finding.needed) if finding.needed else ""),
        Cell(statement.printed.replace(" %", NO_BREAK_PERCENT) or NONE, _expected(finding)),
    ]


def _smaller(finding: Finding) -> str:
    """What keeps a finding from full scale; more than a few settings are in `claims.csv`."""
    shown = finding.deviations[:MOST_DEVIATIONS]
    more = len(finding.deviations) - len(shown)
    rest = f" and {more} more, in claims.csv" if more else ""
    return f"deviates: {', '.join(shown)}{rest}" if shown else ""


def _expected(finding: Finding) -> tuple[str, ...]:
    """Direction, and band at this scale, that count as reproduced."""
    statement = finding.statement
    if statement.arm is None:
        return ()
    claim, levels = statement.claim(finding.scale or "full"), statement.measure in LEVELS
    texts: list[str] = (
        [] if levels or statement.measure == "failure" else [DIRECTION_WORDS[claim.direction]]
    )
    if math.isfinite(claim.low):
        ends = (
            (number if levels else percent)(claim.low),
            (number if levels else percent)(claim.high),
        )
        texts.append(f"band {' to '.join(ends)}{'' if levels else NO_BREAK_PERCENT}")
    return (f"expected: {', '.join(texts)}",) if texts else ()


def _against(row: pd.Series[Any]) -> Cell:
    cell = change_cell(row)
    return Cell(cell.text, (*cell.notes, f"at {100 * row.share:.0f} % of its compute"))


def _epochs(row: pd.Series[Any]) -> Cell:
    if not row.reached:
        return Cell("never", (f"0 of {row.n:g} seeds",))
    notes = [] if row.reached == row.n else [f"{row.reached:g} of {row.n:g} seeds"]
    if row.arm != row.reference and math.isfinite(row.speedup):
        notes.append(f"speed-up {number(row.speedup)} ×")
        notes += [f"{number(1 / row.total)} × the compute"] if row.total > 0 else []
    return Cell(number(row.epochs), tuple(notes))
