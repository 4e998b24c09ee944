"""The report of a study on its page in MLflow, with its verdicts in the description."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from math import inf, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from analysis.formatting import spread
from analysis.records.export import study_json
from study.core.errors import UserError
from study.core.quantities.metrics import METRICS
from study.core.records import MASKING_RATIO, Tag, as_markdown, without_password
from study.core.trust import require_own_artifacts, tracking_uri_of
from study.tracking.postgres import require_answer

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UNFIT = re.compile(r"[^\w\-. /:]")
"""Characters that MLflow refuses in the name of a metric."""


UNTOLD = ("seed", MASKING_RATIO)
"""Parameters that tell no arms apart which the others do not."""

ERRORS = [name for name in METRICS if name.startswith("test_") and name.endswith("_rmse")]
"""Errors that a description shows."""

MAX_ARMS = 12
"""Arms that a description shows; MLflow limits its length."""

FILES = ("claims.csv", "headlines.json", "verdicts.parquet", "explore.html")
"""Beside the report; the last one only with plotly."""


def publish(study: Path, page: Path, tracking_uri: str | None = None) -> str:
    """Log a report to the study's run, and its verdicts to the run's description.

    Args:
        study: folder of a study.
        page: its report, beside which its other files lie.
        tracking_uri: of MLflow, as the user names it; by default as the study records it.

    Returns:
        The run's id.

    Raises:
        UserError: if MLflow has no run of the study, or does not answer.
    """
    from mlflow import MlflowClient, MlflowException

    facts = study_json(study / "study.json")
    if not facts:
        raise UserError(f"{study}: no study.json here; --log takes the folders of studies")
    uri = tracking_uri_of(study, facts["tracking_uri"], tracking_uri)
    require_answer(uri)
    shown, client = without_password(uri), MlflowClient(uri)
    claims, sentences, *others = map(page.with_name, FILES)
    try:
        experiment = client.get_experiment_by_name(facts["experiment"])
        runs = _study_runs(client, experiment.experiment_id) if experiment else []
        if not runs:
            raise UserError(f"{shown}: has no study {facts['experiment']}; name the right study")
        run = runs[0]
        require_own_artifacts(uri, study, run.info.artifact_uri)
        for file in filter(Path.is_file, (page, claims, *others)):
            client.log_artifact(run.info.run_id, str(file), "report")
        arms = _log_arms(client, run)
        headline = json.loads(sentences.read_bytes()).get(facts["experiment"], {})
        note = _note(run.data.tags, headline, claims, facts["experiment"], arms)
        client.set_tag(run.info.run_id, Tag.NOTE, note)
    except MlflowException as problem:
        reason = str(problem).splitlines()[0].replace(uri, shown)
        raise UserError(f"{shown}: rejected the report ({reason})") from None
    return str(run.info.run_id)


def _study_runs(client: MlflowClient, experiment: str) -> list[Run]:
    return list(client.search_runs([experiment], f"tags.`{Tag.KIND}` = 'study'"))


def _log_arms(client: MlflowClient, study: Run) -> list[dict[str, Any]]:
    """Log the mean test errors of each arm to the study's run: as a table, and as metrics.

    Arms of one label differ in settings that the label does not name; a table tells them apart,
    the name of a metric could not.

    Returns:
        The table's rows.
    """
    arms: dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, float]]] = {}
    for run in _completed(client, study.info.experiment_id):
        named = ((name, v) for name, v in run.data.params.items() if name not in UNTOLD)
        settings = frozenset(named)
        tested = {name: v for name, v in run.data.metrics.items() if name.startswith("test_")}
        arms.setdefault((run.data.tags[Tag.ARM], settings), []).append(tested)
    rows, labels = [], Counter(label for label, _ in arms)
    shared = frozenset.intersection(*(settings for _, settings in arms)) if arms else frozenset()
    for (label, settings), trials in arms.items():
        means = {name: fmean(each[name] for each in trials) for name in sorted(_shared(trials))}
        own = ", ".join(f"{name} {value}" for name, value in sorted(settings - shared))
        spreads = {
            f"{name} std": stdev(each[name] for each in trials) for name in means if len(trials) > 1
        }
        rows.append({"arm": label, "settings": own, "trials": len(trials)} | means | spreads)
        for name, value in means.items() if labels[label] == 1 else ():
            client.log_metric(study.info.run_id, f"{name}/{UNFIT.sub('_', label)}"[:250], value)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = [[row.get(name) for name in columns] for row in rows]
    client.log_dict(study.info.run_id, {"columns": columns, "data": data}, "report/arms.json")
    return rows


def _completed(client: MlflowClient, experiment: str) -> list[Run]:
    """All completed trials that are compared; runs of earlier versions have no arm."""
    wanted, found, token = f"tags.`{Tag.STATUS}` = 'completed'", list[Any](), None
    while True:
        page = client.search_runs([experiment], wanted, page_token=token)
        found += [run for run in page if run.data.tags[Tag.KIND] == "trial"]
        token = page.token
        if not token:
            tags = [(run, run.data.tags) for run in found]
            return [run for run, known in tags if Tag.ARM in known and Tag.TUNING not in known]


def _shared(trials: list[dict[str, float]]) -> set[str]:
    """Names of the errors that all trials have."""
    return set.intersection(*map(set, trials))


def _note(
    tags: dict[str, str],
    headline: dict[str, str],
    claims: Path,
    study: str,
    arms: Sequence[dict[str, Any]] = (),
) -> str:
    """Question, headline, errors of the arms, verdicts on claims and best model, in Markdown."""
    with claims.open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if study in row["study"].split(", ")]
    lines = [
        f"- {as_markdown(row['claim'])}: **{as_markdown(row['verdict'])}**{_smaller(row)}"
        for row in rows
    ]
    answer = [text for text in (headline.get("sentence"), headline.get("remark")) if text]
    links = ["", "The full report is among the artifacts."]
    if Tag.MODEL in tags:
        model = tags[Tag.MODEL].replace("`", "'")
        links += ["", f"Best model: `mlflow.pyfunc.load_model({model!r})`"]
    question = as_markdown(tags.get(Tag.QUESTION, ""))
    table = "\n".join(_table(arms))
    told = [question, *map(as_markdown, answer), table, "\n".join([*lines, *links])]
    return "\n\n".join(filter(None, told))


def _table(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Mean test errors of the arms as lines of Markdown, the lowest first; units as in METRICS."""
    errors = [name for name in ERRORS if any(name in arm for arm in arms)]
    if not errors:
        return []
    units = [f"{name} ({METRICS[name][0]})" for name in errors]
    ordered = sorted(arms, key=lambda arm: float(arm.get(errors[0], inf)))
    rows = [
        [as_markdown(arm["arm"]), str(arm["trials"]), *(_spread(arm, name) for name in errors)]
        for arm in ordered[:MAX_ARMS]
    ]
    lines = [["arm", "trials", *units], ["---", *["---:"] * (1 + len(errors))], *rows]
    more = [f"\n{len(arms) - MAX_ARMS} more arms are in `report/arms.json`."]
    return [f"| {' | '.join(line)} |" for line in lines] + more * (len(arms) > MAX_ARMS)


def _spread(arm: dict[str, Any], name: str) -> str:
    """Mean and standard deviation over the trials of an arm; empty if it has no such error."""
    return spread(arm[name], arm.get(f"{name} std", nan)) if name in arm else ""


def _smaller(row: dict[str, str]) -> str:
    return f" ({row['scale']} scale)" if row["scale"] else ""
