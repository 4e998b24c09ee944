"""The part of the page that is about one study."""

from __future__ import annotations

import json
from collections.abc import Callable, Sized
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims.findings import unlike_paper
from analysis.comparisons.arms import compared, excluded, is_search
from analysis.comparisons.controls import beside, final
from analysis.comparisons.cost import cost, reuse, saved_by_sharing, saved_by_stopping
from analysis.comparisons.error_tables import early_errors, final_errors, is_ablation
from analysis.comparisons.labels import START
from analysis.comparisons.paper_tables import data_efficiency, table1
from analysis.comparisons.prediction_errors import by_element
from analysis.comparisons.quantities import FORCE, charted, lead, quantities
from analysis.comparisons.search import FEWEST_TRIALS, audit, most_in_a_branch
from analysis.comparisons.selection import column
from analysis.comparisons.training_curves import convergence, stability, while_learning
from analysis.formatting import duration, listed, number
from analysis.html import ablation_grids, grids
from analysis.html.headline import headline
from analysis.records.study_tables import Study

MOST_TRIALS = 200
"""Trials that the page lists; the table holds them all."""


def study_section(study: Study, folder: Path) -> dict[str, Any]:
    """What the page shows of one study besides its figures."""
    return _results(study) | {
        "study": study,
        "error": lead(study).error,
        "forces": lead(study) == FORCE,
        "headline": headline(study),
        "progress": _progress(study),
        "trials": _trials(study),
        "listed": min(len(study.trials), MOST_TRIALS),
        "excluded": grids.excluded_grid(study) if len(excluded(study)) else None,
        "cost": grids.cost_grid(study),
        "sharing": _sharing(study),
        "reuse": grids.reuse_grid(study),
        "provenance": _provenance(study),
        "unlike": ablation_grids.setting_grid(unlike_paper(study)),
        "packages": study.facts["packages"],
        "space": json.dumps(study.facts["space"], indent=2, ensure_ascii=False),
        "commands": _commands(study, folder),
    }


def _results(study: Study) -> dict[str, Any]:
    """Tables of the ablations; left out where there is nothing to compare."""
    trials = compared(study)
    names = ("final", "beside", "table1", "early", "pretext", "speed", "steady", "labels")
    empty: dict[str, Any] = dict.fromkeys(names) | {"elements": None, "compared": False}
    empty["search"] = _search(study) if is_search(study) else ""
    if trials.empty:
        return empty
    many = is_ablation(study)
    tables: dict[str, tuple[Callable[[Any], grids.Grid], Sized]] = {
        "beside": (ablation_grids.beside_grid, beside(final(trials, lead(study)))),
        "table1": (ablation_grids.table1_grid, table1(study)),
        "speed": (
            partial(ablation_grids.convergence_grid, while_learning(study)),
            convergence(study) if many else [],
        ),
        "steady": (ablation_grids.stability_grid, stability(study)),
        "labels": (partial(ablation_grids.label_grid, lead(study)), data_efficiency(study)),
        "elements": (ablation_grids.element_grid, by_element(study)),
    }
    made = {name: grid(table) if len(table) else None for name, (grid, table) in tables.items()}
    pretext, early = grids.pretext_grid(study), early_errors(study)
    return (
        empty
        | made
        | {
            "compared": many,
            "final": grids.error_grid(final_errors(study), quantities(study)),
            "early": grids.error_grid(early, charted(study)) if many and len(early) else None,
            "pretext": pretext if pretext.rows else None,
        }
    )


def _trials(study: Study) -> grids.Grid | None:
    if study.trials.empty:
        return None
    grid = grids.result_grid(study)
    return grids.Grid(grid.columns, grid.rows[:MOST_TRIALS], grid.foot)


def _search(study: Study) -> str:
    """What ASHA did, what an audit says of it, and why nothing is said of what mattered."""
    return " ".join(filter(None, (_stopping(study), _too_few(study))))


def _too_few(study: Study) -> str:
    most = most_in_a_branch(study)
    if most >= FEWEST_TRIALS:
        return ""
    return (
        f"What mattered is told from {FEWEST_TRIALS} proposals with the same pretraining on; here"
        f" there are at most {most}."
    )


def _stopping(study: Study) -> str:
    found = audit(study)
    told = f"ASHA stopped {found['stopped']:g} proposals early."
    if "better" not in found:
        return f"{told} None of them was finished to see what they would have become."
    return (
        f"{told} {found['sampled']:g} of them, drawn at random, were finished: {found['better']:g}"
        f" ended below the best proposal, {number(found['low'])} to {number(found['high'])} % of"
        f" all stopped ones (95 % interval); the best would have been number {found['rank']:g}."
    )


def _progress(study: Study) -> str:
    counts = study.trials.status.value_counts()
    if counts.empty:
        return "No trial has started yet."
    told = listed(f"{n} {status}" for status, n in counts.items())
    spent = cost(study).seconds.sum(skipna=False)
    took = "" if pd.isna(spent) else f", {duration(spent)} of training with all pretrainings"
    return f"{len(study.trials)} trials: {told}{took}."


def _sharing(study: Study) -> str:
    """How many trials pretrainings served, and what sharing them and stopping early saved."""
    table = reuse(study)
    stopping = saved_by_stopping(study)["seconds"]
    told = f" Stopping early saved {duration(stopping)} of finetuning." if stopping else ""
    before = column(study.pretrainings, START).notna().sum()
    if before:
        told += f" What was done before, {before} of the pretrainings, is not counted."
    if table.empty:
        return told.strip()
    saved = saved_by_sharing(study)["seconds"]
    spent = study.trials.seconds.sum() + table.seconds.sum()
    uses = f"{len(table)} pretrainings served {table.trials.sum()} trials"
    if not saved > 0:
        return f"{uses}; none was shared, so sharing saved nothing here.{told}"
    return (
        f"{uses}. Sharing them saved {duration(saved)}:"
        f" {100 * saved / (saved + spent):.0f} % of what separate trainings would have cost.{told}"
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
