"""The command line of `python -m study.run`, and what its words mean."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.console.command_line import (
    complete_with,
    parse,
    seconds_in,
    seconds_until,
    space_names,
)
from study.core.paths import Address, data_of, root_of
from study.core.records import without_password

# Nothing heavy is imported before it is needed, so that help appears at once.

EPILOG = """\
exit codes:
  0    every trial completed, or was stopped early or diverged
  1    a trial failed; rerun the same command to try it again
  2    bad input; nothing was written
  71   a fault of this machine: Ray does not start, or a file or disk refuses; fix it and rerun the
       same command, completed work is reused
  75   --budget, --stop-at, SIGUSR1 or the end of a SLURM job stopped the study; rerun with a larger
       budget or a later time to continue
  130  interrupted; rerun the same command to resume

NO_COLOR=1 switches colours off. `python -m study.status` shows what a study has done so far.
"""

SLURM_MARGIN = 120.0
"""Seconds before the end of a job at which a study stops: for checkpoints, MLflow and Ray."""

Add = Callable[..., argparse.Action]
"""`add_argument` of a group."""

SET_HELP = "replace a setting, such as trial.finetune.epochs=5; may be given several times"


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks for.

    Args:
        space: path or name of the search space.
        profile: of the space; chosen by the machine when left out.
        settings: `KEY=VALUE` over what the space says.
        seeds: in place of the space's, separated by commas.
        trials: proposals of a search, in place of the space's.
        audit: trials that were stopped early, to finish at the end.
        data: a file, here or elsewhere, or a folder in place of the space's data set.
        dry_run: only show plan and estimated cost.
        probe: only show plan and measured cost.
        verify_resume: only kill and resume a short trial.
        max_concurrent: trials at once; as many as fit when left out.
        budget: GPU or core seconds; unlimited when left out.
        budget_text: the same as typed.
        stop_at: moment to stop at, as typed.
        patience: seconds that a worker may take for a step.
        address: of a Ray cluster; this machine when left out.
        out: folder of all results.
        name: of the study; that of the space when left out.
        report: whether to write the report and log it and the best model.
        tracking_uri: of MLflow; a database in `out` when left out.
        optuna_storage: URL of the database for a search; a file in the study when left out.
        verbose: whether to print every epoch, or every arm.
        quiet: whether to print only problems and the final table.
        json: whether to print JSON lines.
        command: the command itself, for whoever wants to resume the study.
    """

    space: str
    profile: str | None
    settings: tuple[str, ...]
    seeds: str | None
    trials: int | None
    audit: int | None
    data: Path | Address | None
    dry_run: bool
    probe: bool
    verify_resume: bool
    max_concurrent: int | None
    budget: float | None
    budget_text: str
    stop_at: str | None
    patience: float
    address: str | None
    out: Path
    name: str | None
    report: bool
    tracking_uri: str | None
    optuna_storage: str | None
    verbose: bool
    quiet: bool
    json: bool
    command: str

    @property
    def writes(self) -> bool:
        """Whether it writes results."""
        return not (self.dry_run or self.probe or self.verify_resume)

    @property
    def seconds_left(self) -> float | None:
        """Time to the moment when the study has to stop; none if there is no such moment.

        SLURM tells in the environment when it ends a job, in seconds since 1970.
        """
        if self.stop_at is not None:
            return seconds_until(self.stop_at)
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        return max(1.0, int(end) - SLURM_MARGIN - time.time()) if end.isdigit() else None


def parse_options(arguments: list[str] | None = None) -> RunOptions:
    """Read the command line.

    Raises:
        UserError: if a duration is none.
    """
    found = vars(parse(parser(), arguments))
    budget, no_report = found.pop("budget"), found.pop("no_report")
    typed = sys.argv[1:] if arguments is None else arguments
    return RunOptions(
        **found
        | {
            "settings": tuple(found["settings"]),
            "budget": None if budget is None else seconds_in(budget, "--budget"),
            "budget_text": budget or "",
            "patience": seconds_in(found["patience"], "--patience"),
            "report": not no_report,
            "command": _command(typed),
        }
    )


def _command(arguments: list[str]) -> str:
    shown = [without_password(argument) for argument in arguments]
    return shlex.join(["python", "-m", "study.run", *shown])


def parser() -> argparse.ArgumentParser:
    """Build the parser: all options, in four groups."""
    made = argparse.ArgumentParser(
        prog="python -m study.run",
        description="Run a study of pretraining: make its data, pretrain, finetune, compare. "
        "Rerunning the same command resumes an interrupted study and skips what is finished.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(made.add_argument_group("what to study").add_argument)
    _add_how_much(made.add_argument_group("how much at once, how long").add_argument)
    _add_where(made.add_argument_group("where").add_argument)
    shown = made.add_argument_group("what is shown").add_mutually_exclusive_group()
    _add_shown(shown.add_argument)
    return made


def _add_what(add: Add) -> None:
    space = add("--space", required=True, help="a YAML file, or the name of one in search_spaces/")
    complete_with(space, space_names)
    profile = add("--profile", help="quick or paper (default: paper with a GPU, quick without)")
    complete_with(profile, lambda **_: ("quick", "paper"))
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=SET_HELP,
    )
    add("--seeds", metavar="0,1,2", help="replace the space's seeds")
    add("--trials", type=int, metavar="N", help="replace a search's number of proposals")
    add("--audit", type=int, metavar="N", help="finally finish N trials that were stopped early")
    add("--data", type=data_of, metavar="FILE", help="replace the space's data set by one of yours")
    add("--dry-run", action="store_true", help="show plan and estimated cost, write nothing")
    add("--probe", action="store_true", help="--dry-run that times a few real steps of each kind")
    add("--verify-resume", action="store_true", help="kill and resume a short trial, and compare")


def _add_how_much(add: Add) -> None:
    add("--max-concurrent", type=int, metavar="N", help="trials at once (default: what fits)")
    add("--budget", metavar="8h", help="stop after this many GPU- or core-hours")
    add(
        "--stop-at",
        metavar="TIME",
        help="stop at this time, such as 18:30 or 2026-12-24T06:00 (default: before a SLURM job "
        "ends)",
    )
    add(
        "--patience",
        metavar="1h",
        default="1h",
        help="kill a trial that makes no progress for this long (default: 1h)",
    )
    add("--address", help="Ray cluster to run on (default: this machine)")


def _add_where(add: Add) -> None:
    add("--out", type=root_of, default=Path("runs"), help="folder of all results (default: runs)")
    add("--name", help="name of the study (default: space and profile)")
    add("--no-report", action="store_true", help="leave out the report and the model in MLflow")
    add("--tracking-uri", help="MLflow server or database (default: a database in --out)")
    add("--optuna-storage", metavar="URL", help="database for a search's trials (default: a file)")


def _add_shown(add: Add) -> None:
    add(
        "-v",
        "--verbose",
        action="store_true",
        help="print every epoch if the output is no terminal; in a dry run, every arm",
    )
    add("-q", "--quiet", action="store_true", help="print only problems and the final table")
    add("--json", action="store_true", help="JSON lines on the standard output, words elsewhere")
