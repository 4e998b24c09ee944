"""Command line: write one report of one study or several from their Parquet tables.

`python -m analysis.report STUDY...` reads `STUDY/tables/`, which `python -m analysis.export STUDY`
writes, and the study's command in `study.json`. It writes `STUDY/report/`, or of several studies
`report/` beside the folder that holds them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analysis.steps import show_steps
from study.core.errors import exit_code
from study.core.paths import follow_links, path_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, write the report, print its path."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument(
        "studies", type=path_of, nargs="+", metavar="STUDY", help="folder of a study"
    )
    parser.add_argument("--out", type=path_of, metavar="FOLDER", help="folder of the report")
    parser.add_argument(
        "--log", action="store_true", help="also log the report to the studies' runs in MLflow"
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow for --log; default: from study.json"
    )
    parser.add_argument(
        "--figure",
        type=path_of,
        action="append",
        default=[],
        metavar="FILE.py",
        help="your own figure, `figure(tables)`; may be repeated",
    )
    options = parser.parse_args(arguments)
    if sys.stderr.isatty():
        show_steps(sys.stderr)
    return exit_code(lambda: _report(options))


def _report(options: argparse.Namespace) -> None:
    from analysis.html.report import report

    first, several = follow_links(options.studies[0]), len(options.studies) > 1
    named = follow_links(options.out) if options.out else None
    out = named or (first.parent.parent if several else first) / "report"
    uri, own = options.tracking_uri, options.figure
    report(options.studies, out, log=options.log, tracking_uri=uri, figures=own)


if __name__ == "__main__":
    sys.exit(main())
