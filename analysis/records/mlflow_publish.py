"""The report of a study on its page in MLflow, with its verdicts in the description."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from analysis.records.export import study_json
from study.core.errors import UserError
from study.core.records import Tag, as_markdown, without_password
from study.core.trust import require_own_artifacts, tracking_uri_of


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
    shown, client = without_password(uri), MlflowClient(uri)
    claims, sentences = page.with_name("claims.csv"), page.with_name("headlines.json")
    try:
        experiment = client.get_experiment_by_name(facts["experiment"])
        kind = f"tags.`{Tag.KIND}` = 'study'"
        runs = client.search_runs([experiment.experiment_id], kind) if experiment else []
        if not runs:
            raise UserError(f"{shown}: has no study {facts['experiment']}; name the right study")
        run = runs[0]
        require_own_artifacts(uri, study, run.info.artifact_uri)
        for file in (page, claims, page.with_name("verdicts.parquet")):
            client.log_artifact(run.info.run_id, str(file), "report")
        headline = json.loads(sentences.read_bytes()).get(facts["experiment"], {})
        note = _note(run.data.tags, headline, claims, facts["experiment"])
        client.set_tag(run.info.run_id, Tag.NOTE, note)
    except MlflowException as problem:
        reason = str(problem).splitlines()[0].replace(uri, shown)
        raise UserError(f"{shown}: rejected the report ({reason})") from None
    return str(run.info.run_id)


def _note(tags: dict[str, str], headline: dict[str, str], claims: Path, study: str) -> str:
    """Question, headline, verdicts on claims and the best model, in Markdown."""
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
    told = [question, *map(as_markdown, answer), "\n".join([*lines, *links])]
    return "\n\n".join(told)


def _smaller(row: dict[str, str]) -> str:
    return f" ({row['scale']} scale)" if row["scale"] else ""
