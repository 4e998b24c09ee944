"""Command line: copy a study's records from MLflow into Parquet.

`python -m analysis.export STUDY` reads `STUDY/study.json` and writes `STUDY/tables/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from study.core.errors import exit_code
from study.core.paths import path_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, export, print the folder."""
    parser = argparse.ArgumentParser(prog="python -m analysis.export", description=__doc__)
    parser.add_argument("study", metavar="STUDY", help="folder of a study, or an experiment's name")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow; default: from study.json")
    parser.add_argument("--out", type=path_of, metavar="FOLDER", help="default: STUDY/tables")
    parser.add_argument(
        "--predictions",
        action="store_true",
        help="also predictions.parquet, of what `python -m study.predict STUDY` made",
    )
    options = parser.parse_args(arguments)
    return exit_code(lambda: _export(options))


def _export(options: argparse.Namespace) -> None:
    from analysis.records.export import export

    folder = export(
        options.study, options.tracking_uri, options.out, predictions=options.predictions
    )
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    sys.exit(main())
