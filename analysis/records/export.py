"""Copy a study's records from MLflow into Parquet."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.records.mlflow_reader import read_runs
from analysis.records.parquet_tables import write_tables
from analysis.records.predictions import read_predictions
from study.core.errors import UserError
from study.core.paths import follow_links
from study.core.trust import tracking_uri_of


def export(
    study: str,
    tracking_uri: str | None = None,
    out: Path | None = None,
    *,
    predictions: bool = False,
) -> Path:
    """Write the tables of a study.

    Args:
        study: folder of a study, or the name of its experiment if both others are given.
        tracking_uri: where MLflow is; by default what `study.json` says.
        out: folder of the tables; by default `tables` in the study's folder.
        predictions: also what `study.predict` left beside the trials' weights.

    Returns:
        The folder of the tables.
    """
    facts = study_json(Path(study) / "study.json")
    if not facts and (tracking_uri is None or out is None):
        raise UserError(
            f"no study.json in {study}; name a study's folder,"
            " or an experiment together with --tracking-uri and --out"
        )
    folder = follow_links(out) if out else follow_links(Path(study)) / "tables"
    experiment = facts.get("experiment", study)
    uri = (
        tracking_uri_of(Path(study), facts["tracking_uri"], tracking_uri) if facts else tracking_uri
    )
    runs = read_runs(str(uri), experiment)
    predicted = read_predictions(runs, Path(study).resolve().parent.parent) if predictions else None
    write_tables(runs, experiment, folder, predicted)
    return folder


def study_json(path: Path) -> dict[str, str]:
    """Read the tracking URI and experiment of a study from its `study.json`, if it exists."""
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_bytes())
        return {name: str(facts[name]) for name in ("tracking_uri", "experiment")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}); run the study again to repair it"
        ) from error
