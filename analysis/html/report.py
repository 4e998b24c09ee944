"""What `python -m analysis.report` writes, and logs to MLflow if asked to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.html.page import write_report
from analysis.records.mlflow_publish import publish
from analysis.steps import step


def report(
    studies: Sequence[Path],
    out: Path,
    *,
    log: bool,
    tracking_uri: str | None = None,
    figures: Sequence[Path] = (),
) -> None:
    """Write the report of one study or several, and print its place.

    Args:
        studies: their folders.
        out: folder of the report.
        log: whether to log it to the studies' runs, too.
        figures: Python files of the user's, see `analysis.figures.own`.
        tracking_uri: of MLflow, for that; by default as the studies record it.
    """
    page = write_report(studies, out, figures)
    sys.stdout.write(f"{page}\n")
    if log:
        for study in studies:
            step(f"logging the report of {study.name}")
            publish(study, page, tracking_uri)
