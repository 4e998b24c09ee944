"""Publishing a finished study: its report, and the report and best model in MLflow.

A separate process runs the commands that the user could run, after Ray has shut down; it is one
process for all of them, which imports MLflow once.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from analysis.steps import PREFIX, show_steps, step
from study.core.atomic_io import write_json
from study.core.errors import is_disk_fault
from study.core.signals import EXIT_INTERRUPTED
from study.tracking.postgres import is_postgres

STATE = "reported.json"
"""File in the folder of a study that identifies the records of its report."""
GRACE = 10.0
"""Seconds that the other process has to clean up when it is asked to end."""

WATCH_EVERY = 0.5
"""Seconds between two looks whether the study's process is there."""


class PublishingError(Exception):
    """The report could not be made or logged; the message is the reason in one line."""


def commands(study: str, *, model: bool) -> list[list[str]]:
    """Modules with their arguments, in order.

    Args:
        study: its folder.
        model: whether its trials are models of energy and forces, which `study.predict` knows.
    """
    best = [["study.predict", study, "--log"]] if model else []
    return [["analysis.export", study], *best, ["analysis.report", study, "--log"]]


def by_hand(study: str, *, model: bool) -> str:
    """Shell command that does the same."""
    return " && ".join(f"python -m {shlex.join(each)}" for each in commands(study, model=model))


def page_of(study: Path) -> Path:
    """The report of a study."""
    return study / "report" / "report.html"


def headline_of(study: Path) -> list[str]:
    """The sentences that the report of a study begins with; none if it has no such file."""
    try:
        found = json.loads((study / "report" / "headlines.json").read_bytes())
        return [text for each in found.values() for text in each.values() if text]
    except (OSError, ValueError, AttributeError):
        return []


def was_published(study: Path) -> bool:
    """Check that a report exists, and that it and the model were logged."""
    return (study / STATE).is_file() and page_of(study).is_file()


def is_current(study: Path, state: dict[str, Any]) -> bool:
    """Check that the report exists and was made from these records.

    Args:
        study: its folder.
        state: of its records in MLflow, see `StudyRun.state`.
    """
    try:
        published = json.loads((study / STATE).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(published == state) and page_of(study).is_file()


def publish(
    study: Path,
    tracking_uri: str,
    state: dict[str, Any],
    *,
    model: bool,
    patience: float,
    on_step: Callable[[str], object] = str,
) -> None:
    """Write tables and report, log report and best model, and remember of which records they are.

    Args:
        study: its folder.
        tracking_uri: of MLflow, with user and password if it needs them.
        state: of its records in MLflow, see `StudyRun.state`.
        model: see `commands`.
        patience: time limit, s.
        on_step: told what is done next, from another thread.

    Raises:
        PublishingError: if one of the commands failed.
    """
    steps, written = os.pipe()
    process = _started(command(study, model=model), tracking_uri, written)
    os.close(written)
    threading.Thread(target=_follow, args=(steps, on_step), daemon=True).start()
    with _ended(process):
        try:
            _, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise PublishingError(f"timed out after {patience:g} s") from None
    if process.returncode:
        raise PublishingError(_reason(errors, process.returncode))
    write_json(study / STATE, state)


def _started(words: list[str], tracking_uri: str, written: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=written,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | _credentials(tracking_uri),
        start_new_session=True,  # Ctrl-C reaches it once, through `_ended`.
    )


def _reason(errors: str, code: int) -> str:
    """Why a command failed, in the line of its errors that says most."""
    lines = errors.strip().splitlines() or [f"exit code {code}"]
    # What SQLAlchemy says last is where to read more.
    return next(filter(is_disk_fault, reversed(lines)), lines[-1]).strip()


def _follow(steps: int, on_step: Callable[[str], object]) -> None:
    """Pass on the steps among the lines of the other process, until it ends."""
    with os.fdopen(steps, errors="replace") as lines:
        for line in lines:
            if line.startswith(PREFIX):
                on_step(line.removeprefix(PREFIX).strip())


def command(study: Path, *, model: bool) -> list[str]:
    """Command line of the other process."""
    return [sys.executable, "-m", "study.tracking.publish", str(study), *["--model"] * model]


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process, however the block is left."""
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
    """User and password of a tracking URI for MLflow; `study.json` does not contain them."""
    parts = urlsplit(uri)
    if is_postgres(uri):
        (password,) = parse_qs(parts.query).get("password", [unquote(parts.password or "")])[-1:]
        return {"PGPASSWORD": password} if password else {}
    variables = {
        "MLFLOW_TRACKING_USERNAME": parts.username,
        "MLFLOW_TRACKING_PASSWORD": parts.password,
    }
    return {name: unquote(value) for name, value in variables.items() if value}


def end_with_parent() -> None:
    """Let this process end when the study's process is killed: the next one publishes anew."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_EVERY)
        os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, name="watching the study", daemon=True).start()


STEPS = {
    "analysis.export": "copying MLflow's records into tables",
    "study.predict": "logging the best model",
}
"""What the commands do, of which none tells more by itself but the report."""


def main(arguments: Sequence[str]) -> int:
    """Run all of a study's `commands`, even after one failed; return the largest exit code."""
    (study, *flags), code = arguments, 0
    end_with_parent()
    show_steps(sys.stdout, PREFIX)
    for name, *options in commands(study, model="--model" in flags):
        step(STEPS.get(name, "reading tables"))
        code = max(code, importlib.import_module(name).main(options))
        if code == EXIT_INTERRUPTED:
            break
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
