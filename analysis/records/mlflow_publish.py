"""The report of a study on its page in MLflow, with its verdicts in the description."""

from __future__ import annotations

import csv
from pathlib import Path

from analysis.records.export import study_json
from study.core.errors import UserError
from study.core.records import Tag


def publish(study: Path, page: Path) -> str:
    """Log a report to the study's run, and its verdicts to the run's description.

    Args:
        study: folder of a study.
        page: its report, beside which `claims.csv` lies.

    Returns:
        The run's id.

    Raises:
        UserError: if MLflow has no run of the study, or does not answer.
    """
    from mlflow import MlflowClient, MlflowException

    facts = study_json(study / "study.json")
    if not facts:
        raise UserError(f"{study}: no study.json here; --log takes the folders of studies")
    uri, client = facts["tracking_uri"], MlflowClient(facts["tracking_uri"])
    claims = page.with_name("claims.csv")
    try:
        experiment = client.get_experiment_by_name(facts["experiment"])
        kind = f"tags.`{Tag.KIND}` = 'study'"
        runs = client.search_runs([experiment.experiment_id], kind) if experiment else []
        if not runs:
            raise UserError(f"{uri}: has no study {facts['experiment']}; name the right study")
        run = runs[0]
        for file in (page, claims):
            client.log_artifact(run.info.run_id, str(file), "report")
        client.set_tag(run.info.run_id, Tag.NOTE, _note(run.data.tags, claims, facts["experiment"]))
    except MlflowException as problem:
        reason = str(problem).splitlines()[0]
        raise UserError(f"{uri}: rejected the report ({reason})") from None
    return str(run.info.run_id)


def _note(tags: dict[str, str], claims: Path, study: str) -> str:
    """Question, verdicts and the best model, in Markdown."""
    with claims.open(newline="") as opened:
        verdicts = [row for row in csv.DictReader(opened) if row["study"] == study]
    lines = [f"- {row['claim']}: **{row['verdict']}**" for row in verdicts]
    links = ["", "The full report is among the artifacts."]
    if Tag.MODEL in tags:
        links += ["", f"Best model: `mlflow.pyfunc.load_model({tags[Tag.MODEL]!r})`"]
    return "\n".join([tags[Tag.QUESTION], "", *lines, *links])
