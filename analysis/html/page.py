"""One self-contained HTML page for one study or several, from their tables alone."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.claims.claim import Finding
from analysis.claims.findings import findings, findings_table
from analysis.figures import against, changes, curves, errors, learning, parity, search
from analysis.figures.own import drawings_beside, own_drawings
from analysis.figures.style import Drawing, files, slug
from analysis.formatting import csv, listed
from analysis.html import ablation_grids
from analysis.html.explore import INSTALL, explore_page
from analysis.html.report_dir import ReportFolder
from analysis.html.study_section import study_section
from analysis.html.verdict_table import as_parquet, headlines
from analysis.records.study_tables import Study, load
from analysis.statistics.verdict import Verdict
from analysis.steps import step

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

FIGURES = (changes, against, errors, curves, learning, search, parity)

MANY_STUDIES = 3
"""From here on starting further processes takes less time than they save."""


def write_report(folders: Sequence[Path], out: Path, own: Sequence[Path] = ()) -> Path:
    """Write the page, its figures as SVG and PDF with their values as CSV, and the verdicts.

    These are `claims.csv`, `verdicts.parquet` and `headlines.json`; with plotly, `explore.html`.
    What an earlier report wrote into the folder goes, if it is not written anew.

    Args:
        folders: of the studies; each holds `tables/`.
        out: folder of the report.
        own: Python files of the user's, each with a figure; see `analysis.figures.own`.

    Returns:
        The page.

    Raises:
        UserError: if one of those fails; nothing is written then.
    """
    step("reading the tables")
    studies = [load(folder / "tables") for folder in folders]
    with _drawn(folders, studies) as drawn:
        step("comparing arms, judging claims")
        all_findings = findings(studies)
        parts = list(map(study_section, studies, folders))
        step("drawing figures")
        figures = [
            [*_own(study, folder, own, prefix), *of_study]
            for study, folder, prefix, of_study in zip(
                studies, folders, _prefixes(studies), drawn, strict=True
            )
        ]
    step("writing the page")
    placed = [part | _placed(of) for part, of in zip(parts, figures, strict=True)]
    return _write(ReportFolder(out), studies, list(chain(*figures)), placed, all_findings)


def _write(
    report: ReportFolder,
    studies: list[Study],
    figures: list[Figure],
    parts: list[dict[str, Any]],
    all_findings: list[Finding],
) -> Path:
    """Write the files of a report; the page is the last."""
    for figure in figures:
        for ending, content in figure.files.items():
            report.write(f"{figure.name}.{ending}", content)
    several = len(studies) > 1
    title = f"{len(studies)} studies" if several else studies[0].name
    interactive = explore_page(studies, title, TEMPLATES)
    if interactive:
        report.write("explore.html", interactive.encode())
    page = TEMPLATES.get_template("report.html.jinja").render(
        title=title,
        explore="" if interactive else INSTALL,
        parts=parts,
        several=several,
        **_claims(all_findings),
    )
    report.write("verdicts.parquet", as_parquet(studies))
    report.write("headlines.json", json.dumps(headlines(studies), ensure_ascii=False).encode())
    report.write("claims.csv", csv(findings_table(all_findings)))
    path = report.write("report.html", page.encode())
    report.close()
    return path


@dataclass(frozen=True)
class Figure:
    """A drawing as the page shows it.

    Args:
        name: of its files, without ending.
        title: what is shown.
        caption: how to read it.
        files: ending → content.
    """

    name: str
    title: str
    caption: str
    files: dict[str, bytes]

    @property
    def svg(self) -> Markup:
        """The element."""
        return Markup(self.files["svg"].decode())


@contextmanager
def _drawn(folders: Sequence[Path], studies: Sequence[Study]) -> Iterator[Iterator[list[Figure]]]:
    """The figures of each study, many at once where there are many studies.

    Each of several has its prefix, for its files and its ids.
    """
    prefixes = _prefixes(studies)
    workers = min(len(studies), os.cpu_count() or 1)
    if len(studies) < MANY_STUDIES or workers < 2:
        yield map(_figures, studies, prefixes)
        return
    # Not forked: the tables' reader has threads, which a fork would not take along.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield pool.map(_loaded_figures, folders, prefixes)


def _loaded_figures(folder: Path, prefix: str) -> list[Figure]:
    return _figures(load(folder / "tables"), prefix)


def _prefixes(studies: Sequence[Study]) -> list[str]:
    return [f"{slug(study.name)}-" if len(studies) > 1 else "" for study in studies]


def _own(study: Study, folder: Path, files: Sequence[Path], prefix: str) -> list[Figure]:
    """The user's own figures: of the files named, and of the one beside the study."""
    return _as_shown([*own_drawings(study, files), *drawings_beside(study, folder)], prefix)


def _figures(study: Study, prefix: str) -> list[Figure]:
    made = [drawing for module in FIGURES for drawing in module.drawings(study)]
    return _as_shown(made, prefix)


def _as_shown(made: Sequence[Drawing], prefix: str) -> list[Figure]:
    named = [replace(drawing, name=f"{prefix}{drawing.name}") for drawing in made]
    return [Figure(d.name, d.title, d.caption, files(d)) for d in named]


def _placed(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """The figures that stand below the answer, and those that come after the tables."""
    first: list[Figure] = []
    for kind in FIRST:
        first += [f for f in figures if kind in f.name and f not in first][:1]
    shown = first[:MOST_FIRST]
    return {"first": shown, "figures": [figure for figure in figures if figure not in shown]}


FIRST = (
    *("changes", "_against_", "timeline", "importances", "pareto"),
    *("errors_", "errors_", "_curves", "_curves"),
)
"""Parts of the names of the figures that show the answer, one for each, in their order."""
MOST_FIRST = 6


def _claims(all_findings: Sequence[Finding]) -> dict[str, Any]:
    """Claims that are judged; those that no study tests, or only on other data, stand apart."""
    apart = (Verdict.NOT_RUN, Verdict.OTHER_DATA)
    tested = [finding for finding in all_findings if finding.verdict not in apart]
    verdicts = pd.Series([str(f.verdict) for f in tested], dtype="str").value_counts()
    return {
        "claims": ablation_grids.claim_grid(tested) if tested else None,
        "not_run": ablation_grids.claim_grid([f for f in all_findings if f.verdict in apart]),
        "verdicts": listed(f"{n} {verdict}" for verdict, n in verdicts.items()),
        "runs": {f"{f.statement.id}, {f.study}": f.run_ids for f in tested if f.run_ids},
    }
