"""What the user is told when something cannot go on."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: shown as it is, one line per problem, exit code 2.

    Args:
        problems: one line each, naming place, rule, value and the way out.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(map(printable, problems))
        super().__init__("\n".join(self.problems))


CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}
"""Characters that would move a terminal's cursor or change its colours, as text."""


def printable(text: str) -> str:
    """Return a text that cannot command a terminal: names may come from anyone's file."""
    return text.translate(CONTROL)


def show_any_text() -> None:
    """Let streams that lack a character, such as ASCII ones, show it as an escape sequence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class MachineError(Exception):
    """Something that this machine lacks or refuses: shown as it is, exit code 71.

    What was written before it stays, and the same command goes on from there.
    """


MACHINE_FAULT = 71
"""Exit code of `MachineError` and of what the operating system refuses (EX_OSERR)."""


def os_error_message(problem: OSError) -> str:
    """What the system refused to do, and with which file, in a line."""
    place = f"{problem.filename}: " if problem.filename else ""
    return f"{place}{problem.strerror or problem}"


def one_line(problem: Exception) -> str:
    """Kind and message of what code of others has raised."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


def exit_code(command: Callable[[], int | None], interrupted: str = "") -> int:
    """Do what a command line asks for; what the user can mend goes to the standard error.

    Args:
        command: does it, and may have an exit code of its own.
        interrupted: what Ctrl-C leaves to say.

    Returns:
        That of the command or 0, 2 for something the user can mend, 71 for a fault of this machine,
        130 for Ctrl-C.
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
