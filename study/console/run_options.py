"""The command line of `python -m study.run`, and what its words mean."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from study.core.errors import UserError

# Nothing heavy is imported before it is needed, so that help appears at once.

EPILOG = """\
exit codes:
  0    every trial completed, or was stopped early or diverged
  1    a trial failed; the same command tries it again
  2    bad input; nothing was written
  71   this machine's fault: Ray does not start, or a file or disk refuses; the same command goes
       on from what is done
  75   --budget, --stop-at, SIGUSR1 or the end of a SLURM job ended the study; the same command
       with more of it goes on
  130  interrupted; the same command continues

NO_COLOR=1 switches colours off. `python -m study.status` shows what a study has done so far.
"""

SLURM_MARGIN = 120.0
"""Seconds before the end of a job at which a study ends: for checkpoints, MLflow and Ray."""

SET_HELP = "replace a setting, such as trial.finetune.epochs=5; may be given several times"


def parser() -> argparse.ArgumentParser:
    """All options, in four groups."""
    made = argparse.ArgumentParser(
        prog="python -m study.run",
        description="Run a study of pretraining: make its data, pretrain, finetune, compare. "
        "The same command continues an interrupted study and skips what is finished.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what, how, where, words = map(
        made.add_argument_group,
        ("what to study", "how much at once, how long", "where", "what is shown"),
    )
    add = what.add_argument
    add("--space", required=True, help="a YAML file, or the name of one in search_spaces/")
    add("--profile", help="quick or paper (default: paper with a GPU, quick without)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
    add("--seeds", metavar="0,1,2", help="in place of the space's")
    add("--trials", type=int, metavar="N", help="proposals of a search, in place of the space's")
    add("--audit", type=int, metavar="N", help="then finish N trials that were stopped early")
    add("--data", type=Path, metavar="FILE", help="a data set of yours in place of the space's")
    add("--dry-run", action="store_true", help="show plan and estimated cost, write nothing")
    add("--probe", action="store_true", help="--dry-run that times a few real steps of each kind")
    add("--verify-resume", action="store_true", help="kill and resume a short trial, and compare")
    add = how.add_argument
    add("--max-concurrent", type=int, metavar="N", help="trials at once (default: what fits)")
    add("--budget", metavar="8h", help="stop once so many GPU or core hours are spent")
    add(
        "--stop-at",
        metavar="TIME",
        help="stop then, such as 18:30 or 2026-12-24T06:00 (default: before a SLURM job ends)",
    )
    add("--patience", metavar="1h", default="1h", help="end work that makes no step in so long")
    add("--address", help="Ray cluster to run on (default: this machine)")
    add = where.add_argument
    add("--out", type=Path, default=Path("runs"), help="folder of all results (default: runs)")
    add("--name", help="name of the study (default: space and profile)")
    add("--no-report", action="store_true", help="leave out the report and the model in MLflow")
    add("--tracking-uri", help="MLflow server or database (default: a database in --out)")
    add = words.add_mutually_exclusive_group().add_argument
    add(
        "-v",
        "--verbose",
        action="store_true",
        help="off a terminal, every epoch; in a dry run, every arm",
    )
    add("-q", "--quiet", action="store_true", help="only problems and the final table")
    add("--json", action="store_true", help="JSON lines on the standard output, words elsewhere")
    return made


def changes(chosen: argparse.Namespace) -> list[tuple[list[str], Any]]:
    """Keys and values of a space that the command line replaces; the last one counts.

    Raises:
        UserError: if one cannot be read.
    """
    from study.space.overrides import parse_change

    short = []
    if chosen.seeds is not None:
        short.append(f"seeds=[{chosen.seeds}]")
    if chosen.trials is not None:
        short.append(f"search.trials={chosen.trials}")
    found = [parse_change(text) for text in (*short, *chosen.set)]
    if chosen.data is not None:
        from study.datasets.readers.detect import settings_of
        from study.space.yaml_loader import as_block

        if not chosen.data.exists():
            raise UserError(f"--data {chosen.data}: no such file")
        found.insert(0, (["trial", "dataset"], as_block(settings_of(chosen.data))))
    return found


def budget(chosen: argparse.Namespace) -> float | None:
    """GPU or core seconds."""
    if chosen.budget is None:
        return None
    from study.scheduling.budget import seconds_in

    return seconds_in(chosen.budget, "--budget")


def patience(chosen: argparse.Namespace) -> float:
    """Seconds that a worker may take for a step."""
    from study.scheduling.budget import seconds_in

    return seconds_in(chosen.patience, "--patience")


def seconds_left(chosen: argparse.Namespace) -> float | None:
    """From now to the moment when the study has to end; none if there is no such moment.

    SLURM tells in the environment when it ends a job, in seconds since 1970.
    """
    if chosen.stop_at is not None:
        return seconds_until(chosen.stop_at)
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return max(1.0, int(end) - SLURM_MARGIN - time.time()) if end.isdigit() else None


def command(arguments: list[str]) -> str:
    """What the user has typed, for whoever wants to continue the study."""
    from study.core.records import without_password

    shown = [without_password(argument) for argument in arguments]
    return shlex.join(["python", "-m", "study.run", *shown])


def seconds_until(moment: str) -> float:
    """From now to HH:MM, tomorrow's if that is over, or to a moment in ISO form, local time.

    Raises:
        UserError: if it is none, or past.
    """
    now = datetime.now().astimezone()
    today = now.strftime("%Y-%m-%dT") if re.fullmatch(r"\d\d:\d\d(:\d\d)?", moment) else ""
    try:
        then = datetime.fromisoformat(today + moment).astimezone()
    except ValueError:
        raise UserError(
            f"--stop-at {moment}: must be a time such as 18:30 or 2026-12-24T06:00"
        ) from None
    if today and then <= now:
        then += timedelta(days=1)
    if then <= now:
        raise UserError(f"--stop-at {moment}: is over; name a moment to come")
    return (then - now).total_seconds()
