"""What a study that is done gets by itself: a report, and that and its best model in MLflow.

Another process does what the user could do by commands, after Ray is gone; all of it is one
process, which imports MLflow once.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from study.core.atomic_io import write_json
from study.core.signals import EXIT_INTERRUPTED

STATE = "reported.json"
"""In the folder of a study: which records its report is of."""
GRACE = 10.0
"""Seconds that the other process has to tidy up when it is told to end."""


class PublishingError(Exception):
    """The report could not be made or logged, and why, in a line."""


def commands(study: str, *, model: bool) -> list[list[str]]:
    """Modules with their arguments, in order.

    Args:
        study: its folder.
        model: whether its trials are models of energy and forces, which `study.predict` knows.
    """
    best = [["study.predict", study, "--log"]] if model else []
    return [["analysis.export", study], *best, ["analysis.report", study, "--log"]]


def by_hand(study: str, *, model: bool) -> str:
    """What does the same in a shell."""
    return " && ".join(f"python -m {shlex.join(each)}" for each in commands(study, model=model))


def page_of(study: Path) -> Path:
    """The report of a study."""
    return study / "report" / "report.html"


def is_current(study: Path, state: dict[str, Any]) -> bool:
    """Whether the report is there and of these records.

    Args:
        study: its folder.
        state: of its records in MLflow, see `StudyRuns.state`.
    """
    try:
        known = json.loads((study / STATE).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(known == state) and page_of(study).is_file()


def publish(
    study: Path, tracking_uri: str, state: dict[str, Any], *, model: bool, patience: float
) -> None:
    """Write tables and report, log report and best model, and remember of which records they are.

    Args:
        study: its folder.
        tracking_uri: of MLflow, with user and password if it needs them.
        state: of its records in MLflow, see `StudyRuns.state`.
        model: see `commands`.
        patience: seconds that it may take.

    Raises:
        PublishingError: if something of it failed.
    """
    process = subprocess.Popen(
        command(study, model=model),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | _credentials(tracking_uri),
        start_new_session=True,  # Ctrl-C reaches it once, through `_ended`.
    )
    with _ended(process):
        try:
            _, told = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise PublishingError(f"no end after {patience:g} s") from None
    if process.returncode:
        lines = told.strip().splitlines() or [f"exit code {process.returncode}"]
        raise PublishingError(lines[-1].strip())
    write_json(study / STATE, state)


def command(study: Path, *, model: bool) -> list[str]:
    """Of the other process."""
    return [sys.executable, "-m", "study.tracking.publish", str(study), *["--model"] * model]


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """However this is left, the process is gone."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _credentials(uri: str) -> dict[str, str]:
    """User and password of a tracking URI, which `study.json` does not have, for MLflow."""
    parts = urlsplit(uri)
    found = {
        "MLFLOW_TRACKING_USERNAME": parts.username,
        "MLFLOW_TRACKING_PASSWORD": parts.password,
    }
    return {name: unquote(value) for name, value in found.items() if value}


def main(arguments: Sequence[str]) -> int:
    """Do all of a study's `commands`, also after one that failed; the largest exit code."""
    (study, *chosen), code = arguments, 0
    for name, *options in commands(study, model="--model" in chosen):
        code = max(code, importlib.import_module(name).main(options))
        if code == EXIT_INTERRUPTED:
            break
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
