"""One self-contained HTML page per study, from its tables alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import grids
from analysis.figures import masking_ratio
from analysis.figures.style import save
from analysis.load import Study, load
from analysis.tables import (
    ENERGY,
    FORCE,
    QUANTITIES,
    early_errors,
    excluded,
    final_errors,
    included,
    is_ablation,
    reuse,
)
from analysis.words import duration, headline, listed
from study.durable import write_bytes

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(folder: Path) -> Path:
    """Write `report/` of a study: the page, and its figures as SVG and CSV.

    Args:
        folder: of the study; holds `tables/`.

    Returns:
        The page.
    """
    study = load(folder / "tables")
    page = folder / "report" / "report.html"
    figures = [
        {
            "name": d.name,
            "title": d.title,
            "caption": d.caption,
            "svg": Markup(save(d, page.parent)),
        }
        for d in masking_ratio.drawings(study)
    ]
    write_bytes(page, render(study, figures, folder).encode())
    return page


def render(study: Study, figures: list[dict[str, str]], folder: Path) -> str:
    """The page as text."""
    template = TEMPLATES.get_template("report.html.jinja")
    return template.render(
        study=study,
        headline=headline(study),
        progress=_progress(study),
        **_results(study),
        figures=figures,
        trials=grids.result_grid(study) if len(study.trials) else None,
        excluded=grids.excluded_grid(study) if len(excluded(study)) else None,
        cost=grids.cost_grid(study),
        sharing=_sharing(study),
        reuse=grids.reuse_grid(study),
        provenance=_provenance(study),
        packages=study.facts["packages"],
        space=json.dumps(study.facts["space"], indent=2, ensure_ascii=False),
        commands=_commands(study, folder),
    )


def _results(study: Study) -> dict[str, Any]:
    """Tables of the ablation; left out where there is nothing to compare."""
    trials = included(study)
    compared = is_ablation(study)
    if trials.empty or not (compared or trials.scratch.all()):
        return {"compared": False, "final": None, "early": None, "pretext": None}
    early, pretext = early_errors(study), grids.pretext_grid(study)
    return {
        "compared": compared,
        "final": grids.error_grid(final_errors(study), QUANTITIES),
        "early": grids.error_grid(early, (FORCE, ENERGY)) if compared and len(early) else None,
        "pretext": pretext if pretext.rows else None,
    }


def _progress(study: Study) -> str:
    counts = study.trials.status.value_counts()
    told = [f"{n} {status}" for status, n in counts.items()]
    return f"{len(study.trials)} trials: {listed(told)}." if told else "No trial has started yet."


def _sharing(study: Study) -> str:
    table = reuse(study)
    if table.empty:
        return ""
    saved, spent = table.saved.sum(), study.trials.seconds.sum() + table.seconds.sum()
    uses = f"{len(table)} pretrainings served {table.trials.sum()} trials"
    if not saved:
        return f"{uses}; none was shared, so sharing saved nothing here."
    return (
        f"{uses}. Sharing them saved {duration(saved)}:"
        f" {100 * saved / (saved + spent):.0f} % of what separate trainings would have cost."
    )


def _provenance(study: Study) -> dict[str, list[str]]:
    """Label → values; hashes that differ within the study are listed."""
    facts = study.facts
    work = pd.concat([study.trials, study.pretrainings])
    times = [f"{facts[name]:%Y-%m-%d %H:%M} UTC" for name in TIMES if facts[name] is not None]
    hashes = {label: _few(sorted(work[name].dropna().unique())) for name, label in HASHES.items()}
    told = {
        "Experiment": [facts["experiment"]],
        "Study": [facts["key"]],
        "Started, ended": [" – ".join(times)],
        "Commit": [facts["git"]],
        **hashes,
        "Hardware": [_machine(name, value) for name, value in facts["hardware"].items()],
        "Schema": [str(facts["schema"])],
    }
    return {label: values for label, values in told.items() if any(values)}


def _few(values: list[str], most: int = 8) -> list[str]:
    more = [f"and {len(values) - most} more, in trials.parquet"] if len(values) > most else []
    return values[:most] + more


def _machine(name: str, value: object) -> str:
    told = listed(map(str, value)) or "none" if isinstance(value, list) else value
    return f"{name.replace('_', ' ')}: {told}"


def _commands(study: Study, folder: Path) -> list[str]:
    """From the space to this page; a machine's own paths stay out."""
    place = folder.name if folder.is_absolute() else folder
    return [
        f"python -m study.run --space SPACE.yaml --profile {study.facts['profile']}",
        f"python -m analysis.export {place}",
        f"python -m analysis.report {place}",
    ]


TIMES = ("start_time", "end_time")
HASHES = {"data_hash": "Data", "split_hash": "Split", "code_version": "Code"}
