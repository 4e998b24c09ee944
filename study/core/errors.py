"""Errors that are shown to the user as they are, and the exit codes of commands."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An error the user can fix: printed one line per problem, exit code 2.

    Args:
        problems: one line each, with place, rule, value and fix.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(map(printable, problems))
        super().__init__("\n".join(self.problems))


CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}
"""Characters that would move a terminal's cursor or change its colours, as text."""

HIDDEN = (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0x061C, 0xFEFF)
"""Characters that show a text in another order than it has, break its line, or hide."""

CONTROL |= {code: f"\\u{code:04x}" for code in HIDDEN}


def printable(text: str) -> str:
    """Return a text that cannot command a terminal: names may come from anyone's file."""
    return text.translate(CONTROL)


class PrintableFormatter(logging.Formatter):
    """Formats log lines so that they can be shown on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return printable(super().format(record))


def show_any_text() -> None:
    """Let streams that lack a character, such as ASCII ones, show it as an escape sequence.

    Log lines of warnings, which may name anyone's files, cannot command a terminal either.
    """
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PrintableFormatter())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class MachineError(Exception):
    """An error of this machine, such as a missing GPU: printed as it is, exit code 71.

    Results written before it stay, and a rerun resumes from them.
    """


RERUN = "fix this and rerun the same command; completed work is reused"
"""What to do about a fault of the machine."""

MACHINE_FAULT = 71
"""Exit code of `MachineError` and of what the operating system refuses (EX_OSERR)."""


DISK_FAULT = re.compile(
    r"disk is full|No space left|quota exceeded|disk I/O error|Input/output error"
    r"|read-?only (file system|database)|unable to open database file"
    r"|Permission denied|Operation not permitted|requested and \d+ written",
    re.IGNORECASE,
)
"""What the system, SQLite and numpy say when a disk does not take what is written to it."""


def is_disk_fault(problem: BaseException | str) -> bool:
    """Whether a disk has refused what was written to it, whichever library says so."""
    return DISK_FAULT.search(str(problem)) is not None


def os_error_message(problem: OSError) -> str:
    """Describe an error of the operating system in one line: file and reason."""
    if problem.errno is None and is_disk_fault(problem):
        return f"the disk is full ({problem})"  # Numpy counts bytes instead of naming a cause.
    place = f"{problem.filename}: " if problem.filename else ""
    return f"{place}{problem.strerror or problem}"


def one_line(problem: BaseException) -> str:
    """Describe any exception in one line: type and message."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What code raises that reads a value of another kind than was written."""


@contextmanager
def readable(place: object, way_out: str) -> Iterator[None]:
    """Answer in a line what is wrong with a file that somebody else may have written.

    Args:
        place: the file.
        way_out: what to do then.

    Raises:
        UserError: if the block meets a value of another kind than it expects.
    """
    try:
        yield
    except MALFORMED as problem:
        raise UserError(
            f"{place}: holds what this version does not write ({one_line(problem)[:200]}); "
            f"{way_out}"
        ) from None


def exit_code(command: Callable[[], int | None], interrupted: str = "") -> int:
    """Run a command, print its errors to stderr, and return the exit code.

    Args:
        command: the command; it may return an exit code.
        interrupted: message to print on Ctrl-C.

    Returns:
        The code of the command or 0; 2 for a `UserError`, 71 for an error of this machine, 130 for
        Ctrl-C.
    """
    show_any_text()
    try:
        return command() or 0
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return MACHINE_FAULT
    except OSError as error:
        sys.stderr.write(f"{os_error_message(error)}\n")
        return MACHINE_FAULT
    except KeyboardInterrupt:
        sys.stderr.write(interrupted)
        return 130
