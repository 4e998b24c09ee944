"""Command line: copy a study's records from MLflow into Parquet.

`python -m analysis.export STUDY` reads `STUDY/study.json` and writes `STUDY/tables/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from study.core.errors import UserError, exit_code


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
    from analysis.records.mlflow_reader import read_runs
    from analysis.records.parquet_tables import write_tables
    from analysis.records.predictions import read_predictions

    facts = study_json(Path(study) / "study.json")
    if not facts and (tracking_uri is None or out is None):
        raise UserError(
            f"no study.json in {study}; name a study's folder,"
            " or an experiment together with --tracking-uri and --out"
        )
    folder = out or Path(study) / "tables"
    experiment = facts.get("experiment", study)
    runs = read_runs(tracking_uri or facts["tracking_uri"], experiment)
    predicted = read_predictions(runs, Path(study).resolve().parent.parent) if predictions else None
    write_tables(runs, experiment, folder, predicted)
    return folder


def study_json(path: Path) -> dict[str, str]:
    """Where MLflow has a study, by its `study.json`; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_bytes())
        return {name: str(facts[name]) for name in ("tracking_uri", "experiment")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); run the study again to mend it") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, export, print the folder."""
    parser = argparse.ArgumentParser(prog="python -m analysis.export", description=__doc__)
    parser.add_argument("study", metavar="STUDY", help="folder of a study, or an experiment's name")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow; default: from study.json")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: STUDY/tables")
    parser.add_argument(
        "--predictions",
        action="store_true",
        help="also predictions.parquet, of what `python -m study.predict STUDY` made",
    )
    given = parser.parse_args(arguments)
    return exit_code(lambda: _export(given))


def _export(given: argparse.Namespace) -> None:
    folder = export(given.study, given.tracking_uri, given.out, predictions=given.predictions)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    sys.exit(main())
