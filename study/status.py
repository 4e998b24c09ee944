# PYTHON_ARGCOMPLETE_OK
"""What studies have done so far: `python -m study.status [STUDY]`.

Works while a study runs and after its driver died; reads and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.console.command_line import complete_with, parse, study_dirs
from study.core.errors import exit_code
from study.core.paths import root_of


def main(arguments: list[str] | None = None) -> int:
    """Show one study or all; 0 is success, 2 an error the user can fix."""
    options = parse(parser(), arguments)
    return exit_code(lambda: _show(options))


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    made = argparse.ArgumentParser(
        prog="python -m study.status",
        description=__doc__,
        epilog="Exit codes: 0 shown, 2 no such study.",
    )
    study = made.add_argument(
        "study", nargs="?", help="name or folder of a study; all when left out"
    )
    complete_with(study, study_dirs)
    made.add_argument(
        "--out", type=root_of, default=Path("runs"), help="folder of all results (default: runs)"
    )
    made.add_argument("--all", action="store_true", help="list every trial, not just the open ones")
    made.add_argument("--json", action="store_true", help="print JSON, one line per study")
    return made


def _show(options: argparse.Namespace) -> None:
    # Help appears without what this imports.
    from study.console.status_view import show_all, show_study

    if options.study is None:
        show_all(options.out, as_json=options.json)
    else:
        show_study(options.study, options.out, every=options.all, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
