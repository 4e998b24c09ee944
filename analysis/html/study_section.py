"""The section of the page about one study."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims.findings import differences_from_paper
from analysis.comparisons.controls import compare_with_controls, final
from analysis.comparisons.cost import cost, reuse, saved_by_sharing, saved_by_stopping
from analysis.comparisons.error_tables import early_errors, is_ablation, tabled_errors
from analysis.comparisons.labels import START
from analysis.comparisons.outcomes import (
    excluded,
    is_search,
    planned,
    population,
    population_of,
    with_parts,
)
from analysis.comparisons.paper_tables import data_efficiency, table1
from analysis.comparisons.prediction_errors import by_element
from analysis.comparisons.quantities import FORCE, charted, lead, tabled
from analysis.comparisons.search import FEWEST_TRIALS, audit, most_in_a_branch
from analysis.comparisons.selection import column
from analysis.comparisons.training_curves import convergence, stability, while_learning
from analysis.formatting import duration, listed, number
from analysis.html import ablation_grids, grids
from analysis.html.headline import headline
from analysis.html.scope import population_grid, scope, tuning_grid
from analysis.records.study_tables import Study
from study.core.errors import printable


def study_section(study: Study, folder: Path) -> dict[str, Any]:
    """Everything on one study except its figures, by the names that the template uses."""
    return _results(study) | {
        "study": study,
        "error": lead(study).error,
        "forces": lead(study) == FORCE,
        "headline": headline(study),
        "tuning": tuning_grid(study),
        "population": population_grid(study),
        "scope": scope(study),
        "progress": _progress(study),
        "trials": None if study.trials.empty else grids.result_grid(study),
        "listed": min(len(study.trials), grids.MOST_RUNS),
        "left_out": len(excluded(study)),
        "excluded": grids.excluded_grid(study) if len(excluded(study)) else None,
        "cost": grids.cost_grid(study),
        "sharing": _sharing(study),
        "reuse": grids.reuse_grid(study),
        "provenance": _provenance(study),
        "differences": ablation_grids.setting_grid(differences_from_paper(study)),
        "packages": study.facts["packages"],
        "space": json.dumps(study.facts["space"], indent=2, ensure_ascii=False),
        "commands": _commands(study, folder),
    }


def _results(study: Study) -> dict[str, Any]:
    """Tables of the ablations; None where there is nothing to compare."""
    trials = planned(study)
    names = (
        "final",
        "controls",
        "table1",
        "early",
        "pretext",
        "convergence",
        "stability",
        "labels",
    )
    empty: dict[str, Any] = dict.fromkeys(names) | {"elements": None, "compared": False}
    empty["search"] = _search(study) if is_search(study) else ""
    empty["front"] = grids.front_grid(study) if is_search(study) else None
    if trials.empty:
        return empty
    many = is_ablation(study)
    tables: dict[str, tuple[Callable[[Any], grids.Grid], Sized]] = {
        "controls": (
            ablation_grids.controls_grid,
            compare_with_controls(final(trials, lead(study))),
        ),
        "table1": (ablation_grids.table1_grid, table1(study)),
        "convergence": (
            partial(ablation_grids.convergence_grid, while_learning(study)),
            convergence(study) if many else [],
        ),
        "stability": (ablation_grids.stability_grid, stability(study)),
        "labels": (partial(ablation_grids.label_grid, lead(study)), data_efficiency(study)),
        "elements": (ablation_grids.element_grid, by_element(study)),
    }
    made = {name: grid(table) if len(table) else None for name, (grid, table) in tables.items()}
    return empty | made | _errors(study, many=many)


def _errors(study: Study, *, many: bool) -> dict[str, Any]:
    """Tables of errors and of the pretext loss; `many` if the study has several arms."""
    pretext, early = grids.pretext_grid(study), early_errors(study)
    return {
        "compared": many,
        "final": grids.error_grid(tabled_errors(study), tabled(study)),
        "early": grids.error_grid(early, charted(study)) if many and len(early) else None,
        "pretext": pretext if pretext.rows else None,
    }


def _search(study: Study) -> str:
    """Early stopping, its audit, and why importances may be missing; or what a population did."""
    parts = population(study)
    if len(parts):
        replaced = int((parts.parent != parts.member).sum())
        often = "once" if replaced == 1 else f"{replaced} times"
        went = (
            f"A population of {parts.member.nunique()} went through"
            f" {parts.generation.nunique()} generations; {often} a member took over the"
            " weights of a better one and changed its settings."
        )
        return " ".join(filter(None, (went, _too_few(study))))
    return " ".join(filter(None, (_stopping(study), _too_few(study))))


def _too_few(study: Study) -> str:
    most = most_in_a_branch(study)
    if most >= FEWEST_TRIALS:
        return ""
    return (
        f"Hyperparameter importances need at least {FEWEST_TRIALS} trials per pretraining task;"
        f" here there are at most {most}."
    )


def _stopping(study: Study) -> str:
    counts = audit(study)
    stopped = f"Early stopping ended {counts['stopped']:g} trials."
    if "better" not in counts:
        return f"{stopped} None of them was trained to the end to audit the stopping."
    low, high = (number(counts[end]) for end in ("low", "high"))
    return (
        f"{stopped} Audit: of {counts['sampled']:g} sampled at random and trained to the end,"
        f" {counts['better']:g} beat the best completed trial (95 % interval of the rate: {low} to"
        f" {high} %); the best of them would have ranked number {counts['rank']:g}."
    )


def _progress(study: Study) -> str:
    trials = with_parts(study).trials
    counts = trials.status.value_counts()
    if counts.empty:
        return "No trial has started yet."
    others = [f", {n} {status}" for status, n in counts.items() if status != "completed"]
    parts = len(trials) - len(study.trials)
    others += [f" ({parts} of them parts of the population)"] if parts else []
    done = f"{counts.get('completed', 0)} of {len(trials)} trials completed{''.join(others)}"
    seconds = cost(study).seconds.sum(skipna=False)
    took = "" if pd.isna(seconds) else f"; {duration(seconds)} of training including pretraining"
    return f"{done}{took}."


def _sharing(study: Study) -> str:
    """Trials per pretraining run, and the time saved by sharing them and by early stopping.

    Of a population each chain of parts is one finetuning run that begins with a pretraining.
    """
    table, costs = reuse(study), cost(study).set_index("stage").seconds
    stopping = saved_by_stopping(study)["seconds"]
    notes = f" Early stopping saved {duration(stopping)} of finetuning." if stopping else ""
    earlier = column(study.pretrainings, START).notna().sum()
    if earlier:
        notes += f" Not counted: {earlier} pretraining runs of earlier studies."
    if table.empty:
        return notes.strip()
    saved = saved_by_sharing(study)["seconds"]
    spent = costs.reindex(["pretraining", "finetuning", "population"]).sum()
    what = "finetuning runs" if population_of(study) else "trials"
    uses = f"{len(table)} pretraining runs were used by {table.trials.sum()} {what}"
    if not saved > 0:
        return f"{uses}; none was shared.{notes}"
    return (
        f"{uses}. Sharing saved {duration(saved)},"
        f" {100 * saved / (saved + spent):.0f} % of the cost of separate training.{notes}"
    )


def _provenance(study: Study) -> dict[str, list[str]]:
    """Label → values; hashes that differ within the study are listed."""
    facts = study.facts
    work = pd.concat([study.trials, study.pretrainings])
    times = [f"{facts[name]:%Y-%m-%d %H:%M} UTC" for name in TIMES if facts[name] is not None]
    hashes = {
        label: _few(sorted(work[name].dropna().str[:SHORT].unique()))
        for name, label in HASHES.items()
    }
    entries = {
        "Experiment": [facts["experiment"]],
        "Study": [facts["key"][:SHORT]],
        "Started, ended": [" – ".join(times)],
        "Commit": [_commit(facts["git"])],
        **hashes,
        "Hardware": [_machine(name, value) for name, value in facts["hardware"].items()],
        "Schema": [str(facts["schema"])],
    }
    return {label: values for label, values in entries.items() if any(values)}


SHORT = 12
"""Letters of a hash that the page shows; the tables hold all of them."""


def _commit(commit: str) -> str:
    """A commit shortened, with what git adds to it."""
    name, plus, more = commit.partition("+")
    return f"{name[:SHORT]}{plus}{more}"


def _few(values: list[str], most: int = 8) -> list[str]:
    more = [f"and {len(values) - most} more, in trials.parquet"] if len(values) > most else []
    return values[:most] + more


def _machine(name: str, value: object) -> str:
    text = listed(map(str, value)) or "none" if isinstance(value, list) else value
    return f"{name.replace('_', ' ')}: {text}"


def _commands(study: Study, folder: Path) -> list[str]:
    """Commands from the space to this page, and where they run; no path is of one machine."""
    words = _recorded(folder)
    if not words:
        place = folder.name if folder.is_absolute() else str(folder)
        run, *where = [f"python -m study.run --profile {study.facts['profile']}"]
    else:
        out = _typed_out(words)
        base = _base(folder, out)
        shown = [_portable(word, base) for word in words]
        place = str(Path(_portable(out, base), "studies", folder.name))
        run, where = shlex.join(shown), [BEGUN if shown == words else CUT]
    place = shlex.quote(place)
    return [*where, run, f"python -m analysis.export {place}", f"python -m analysis.report {place}"]


BEGUN = "# in the folder in which the study was begun:"
CUT = "# in the folder that holds the results; of files elsewhere only the name is given:"


def _recorded(folder: Path) -> list[str]:
    """The user's own command, as the study's folder records it; empty if it does not."""
    try:
        command = str(json.loads((folder / "study.json").read_bytes())["command"])
        return shlex.split(printable(command))
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _typed_out(words: Sequence[str]) -> str:
    """The folder of all results as it was typed."""
    for word, following in itertools.pairwise([*words, ""]):
        if word == "--out" or word.startswith("--out="):
            return following if word == "--out" else word.removeprefix("--out=")
    return "runs"


def _base(folder: Path, out: str) -> str:
    """Where the study was begun, or what holds the results if their folder was typed whole."""
    depth = 1 if Path(out).is_absolute() else len(Path(out).parts)
    above = [] if ".." in out else [*folder.resolve().parents][1 + depth :]
    return str(above[0]) if above else "/"


def _portable(word: str, base: str) -> str:
    """A word of a command without folders of one machine, and without servers."""
    if "://" in word:
        return "URI"
    known = re.sub(rf"(^|=){re.escape(base)}/", r"\1", word)
    return re.sub(r"(^|=)/(?:[^/=]+/)*", r"\1", known)


TIMES = ("start_time", "end_time")

HASHES = {"data_hash": "Data", "split_hash": "Split", "code_version": "Code"}
