# PYTHON_ARGCOMPLETE_OK
"""Run one trial of a study in this process: `python -m study.rerun STUDY NUMBER`.

It needs neither Ray nor MLflow, and prints every epoch, and the whole traceback if the trial fails.
Of a population-based training, the parts that the trial continues run before it.
It resumes from the trial's checkpoint; a finished trial is only shown. The study's own command
reuses the result.
"""

from __future__ import annotations

import argparse
import sys

from study.console.command_line import add_trust, complete_with, may_run, parse, study_dirs
from study.core.errors import exit_code
from study.core.paths import path_of


def main(arguments: list[str] | None = None) -> int:
    """Run the trial.

    Returns:
        0; 1 if it diverged; 2 for an error the user can fix; 130 after Ctrl-C. Whatever makes the
        trial fail is raised.
    """
    options = parse(parser(), arguments)
    return exit_code(lambda: _rerun(options), "interrupted; rerun the same command to resume\n")


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    made = argparse.ArgumentParser(
        prog="python -m study.rerun",
        description=__doc__,
        epilog="Exit codes: 0 completed, 1 diverged or failed, 2 bad input, 130 interrupted.",
    )
    study = made.add_argument("study", type=path_of, help="its folder, such as runs/studies/NAME")
    complete_with(study, study_dirs)
    made.add_argument("number", type=int, help="of the trial, as `python -m study.status` says")
    made.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add_trust(made)
    return made


def _rerun(options: argparse.Namespace) -> int:
    # Help appears without what this imports.
    from study.commands.rerun import rerun_trial

    return rerun_trial(options.study, options.number, options.device, may_run(trust=options.trust))


if __name__ == "__main__":
    sys.exit(main())
