"""A disk that fills, or turns read-only, under a real study: results, temporary files, MLflow.

Each place is a small file system of its own, so this needs the right to mount one. The command must
end with one line and exit code 71 within half a minute, and go on when there is space again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import records
from tests.chaos.acts import MOMENTS
from tests.chaos.ledger import Ledger, Row
from tests.chaos.processes import kill, living
from tests.chaos.study import LONGEST, Place, Study

SIZE = "96m"
"""Of each file system: enough for the study."""

LIMIT = 30.0
"""Seconds in which a line must say what is wrong."""

FAULT = 71
"""Exit code of a fault of the machine."""


@dataclass(frozen=True)
class Case:
    """One disk that fails.

    Args:
        where: out, tmp, database or artifacts.
        moment: one of `tests.chaos.acts.MOMENTS`, from when on it fails.
        how: full or read-only.
    """

    where: str
    moment: str
    how: str = "full"

    def __str__(self) -> str:
        return f"{self.where} {self.how}"


CASES = (
    Case("database", "worker"),
    Case("out", "checkpoint"),
    Case("out", "data"),
    Case("tmp", "worker"),
    Case("out", "checkpoint", "read-only"),
    Case("artifacts", "worker"),
    Case("out", "publishing"),
    Case("database", "start"),
    Case("database", "checkpoint", "read-only"),
    Case("out", "start"),
    Case("out", "worker"),
    Case("out", "late"),
    Case("tmp", "start"),
)
"""The first ones tell most."""


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A small file system; a folder of its own in it, because tools look at its root."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fail(place: Path, how: str) -> Callable[[], None]:
    """Let a file system fail; returns what mends it."""
    if how == "read-only":
        _immutable(place, "+i")
        return lambda: _immutable(place, "-i")
    filler = place / "filler"
    with filler.open("wb", buffering=0) as opened:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    opened.write(b"x" * size)
            except OSError:
                continue
    return filler.unlink


def _immutable(place: Path, mode: str) -> None:
    """Forbid changes below a place, or allow them again: root may write where modes forbid it."""
    subprocess.run(["chattr", "-R", mode, place], check=False, capture_output=True)


def run(
    folder: Path, ledger: Ledger, usual: Study, expected: records.Records, chosen: list[str]
) -> None:
    """Go through the cases whose place is chosen.

    Args:
        folder: for all of them.
        ledger: of what was seen.
        usual: an undisturbed study, whose data are copied where they are not at stake.
        expected: its records.
        chosen: places.
    """
    for number, case in enumerate(CASES, start=1):
        if case.where in chosen:
            data = None if case.moment in ("start", "data") else usual.place.out / "data"
            _play(folder / f"disk-{number}", case, ledger, data, expected)


def _play(
    folder: Path, case: Case, ledger: Ledger, data: Path | None, usual: records.Records
) -> None:
    place = Place(folder)
    where = {
        "out": place.out,
        "tmp": place.tmp,
        "database": folder / "db",
        "artifacts": place.out / "artifacts",
    }[case.where]
    options = ["--tracking-uri", f"sqlite:///{where}/mlflow.db"] if where.name == "db" else []
    study = Study(place, "grid", *options)
    with mounted(where):
        if data is not None:
            shutil.copytree(data, place.out / "data")
        try:
            row, mend = _fail_once(study, case, where)
            mend()
            if row.code is None:
                study.ended(LONGEST)
            row.problems += study.finish() + records.differences("grid", records.read(study), usual)
            ledger.add(row)
        finally:
            kill(living(place.mark))
    shutil.rmtree(folder, ignore_errors=True)


def _fail_once(study: Study, case: Case, where: Path) -> tuple[Row, Callable[[], None]]:
    driver, due = study.start(), MOMENTS[case.moment]
    while not due(study) and driver.poll() is None:
        time.sleep(0.05)
    moment = f"{case.moment}, {time.monotonic() - study.began:.1f} s"
    began, mend = time.monotonic(), fail(where, case.how)
    before = len(study.log.read_bytes())
    told = None
    while driver.poll() is None and time.monotonic() - began < 200:
        if told is None and _tells(study, before):
            told = time.monotonic() - began
        time.sleep(0.2)
    code = study.ended(0) if driver.poll() is not None else None
    seconds = time.monotonic() - began
    if told is None and _tells(study, before):
        told = seconds
    said = _since(study, before).splitlines()
    lines = [line for line in said if _names_fault(line)]
    row = Row(
        str(case), moment, f"told {told and round(told, 1)}", code, seconds, " | ".join(lines)
    )
    if code == 0 and study.said() == "finished":
        row.said = "finished all the same"
        return row, mend
    if code != FAULT:
        row.problems.append(f"exit code {code}: {said[-3:]}")
    if told is None or told > LIMIT:
        row.problems.append(f"no line within {LIMIT:g} s: {said[-3:]}")
    row.problems += study.tracebacks()
    return row, mend


def _tells(study: Study, since: int) -> bool:
    return _names_fault(_since(study, since))


def _since(study: Study, since: int) -> str:
    return study.log.read_bytes()[since:].decode(errors="replace").strip()


def _names_fault(text: str) -> bool:
    low = text.lower()
    return any(
        word in low
        for word in (
            "space left",
            "full",
            "are free",
            "unable to open",
            "read-only",
            "readonly",
            "not permitted",
        )
    )


def mountable(folder: Path) -> bool:
    """Whether this user may mount a file system."""
    if os.geteuid() != 0:
        return False
    try:
        with mounted(folder / "try"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
