"""What commands share: parsing, durations, and completion by a shell."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from study.core.errors import UserError, printable

SHIPPED = Path(__file__).parent.parent.parent / "search_spaces"

SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}

Completer = Callable[..., Iterable[str]]
"""Called by argcomplete with keywords such as `prefix` and `parsed_args`."""


def parse(
    parser: argparse.ArgumentParser, arguments: list[str] | None = None
) -> argparse.Namespace:
    """Parse a command line; a shell that asks for completions gets them instead.

    What a value raises as a `UserError` ends the command with its line alone.
    """
    if "_ARGCOMPLETE" in os.environ:
        # An optional extra: without it there are no completions.
        with suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)
    try:
        return parser.parse_args(arguments)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def complete_with(action: argparse.Action, completer: Completer) -> None:
    """Let a shell complete an option's value."""
    # argcomplete looks for this attribute, which argparse does not know.
    action.completer = completer  # type: ignore[attr-defined]


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option that answers `may_run` beforehand."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the code that came with the results or the model; without it you are asked once",
    )


def may_run(*, trust: bool) -> Callable[[str, str], bool]:
    """Make the function that decides whether code may run that came with results or a model.

    Args:
        trust: the answer; where it is no, the user is asked on a terminal.
    """
    return lambda code, sha256: trust or _asked(code, sha256)


def _asked(code: str, sha256: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(
        f"{printable(code)}: is code that came with results or a model, and would run with your "
        f"rights\nSHA-256 {sha256}; to read it: less {shlex.quote(printable(code))}\n"
        "Run it, now and later? [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def seconds_in(text: str, option: str) -> float:
    """Convert a duration such as 30min, 8h or 1.5d to seconds.

    Raises:
        UserError: if it is none.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(s|min|m|h|d)", text.strip())
    if not match or float(match[1]) == 0:
        raise UserError(f"{option} {text}: must be a duration such as 30min, 8h or 1.5d")
    return float(match[1]) * SECONDS[match[2]]


def seconds_until(moment: str) -> float:
    """Count the seconds to HH:MM, tomorrow's if that is over, or to an ISO moment, local time.

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
        raise UserError(f"--stop-at {moment}: is over; name a moment in the future")
    return (then - now).total_seconds()


def space_names(prefix: str, **_context: object) -> list[str]:
    """Names of the shipped spaces, and YAML files here that begin with a prefix."""
    shipped = [path.stem for path in SHIPPED.glob("*.yaml")]
    return [*shipped, *_paths(f"{prefix}*.yaml")]


def study_dirs(prefix: str, **_context: object) -> list[str]:
    """Folders of studies in the usual place, or in another that has been typed."""
    folder = prefix.rpartition("/")[0]
    typed = _paths(f"{folder}/*/study.json") if folder else []
    return [str(Path(path).parent) for path in (*_paths("runs/studies/*/study.json"), *typed)]


def _paths(pattern: str) -> list[str]:
    """What exists here and fits a pattern; nothing for patterns that lead elsewhere."""
    if Path(pattern).is_absolute() or pattern.startswith(("/", "..")):
        return []
    return sorted(map(str, Path().glob(pattern)))
