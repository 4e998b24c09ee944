"""Command line: write the report of a study from its Parquet tables.

`python -m analysis.report STUDY` reads `STUDY/tables/`, which `python -m analysis.export STUDY`
writes, and nothing else; it writes `STUDY/report/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, write the reports, print their paths."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="folder of a study")
    given = parser.parse_args(arguments)

    from analysis.page import write_report

    try:
        for folder in given.studies:
            sys.stdout.write(f"{write_report(folder)}\n")
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
