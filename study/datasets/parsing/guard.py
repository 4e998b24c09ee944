"""The one boundary at which whatever a format's library raises becomes a line for the user."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.core.errors import UserError

MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO)
"""What the system refuses whatever the file is."""
LARGE, MOST_CLAIMED = 64_000_000, 200
"""Bytes from which a file may not claim so many times what the disk holds of it."""
LONGEST = 300
"""Characters of another program's message."""


@contextmanager
def guarded(path: Path | str, what: str = "cannot be read") -> Iterator[None]:
    """Turn what is raised inside into one line that begins with a path.

    Raises:
        UserError: of anything but a fault of the machine.
    """
    try:
        yield
    except UserError:
        raise
    # Libraries raise whatever a malformed file makes them stumble over.
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno in MACHINE:
            raise
        raise UserError(f"{path}: {what} ({reason(problem)})") from None


def reason(problem: Exception) -> str:
    """What an exception says, in a line of characters that a terminal can show."""
    kind = type(problem).__name__
    match problem:
        case KeyError():
            key = str(problem.args[0]) if problem.args else "entry"
            text = key if " " in key else f"there is no {key!r}"
        case MemoryError():
            text = "it asks for more memory than there is"
        case RecursionError():
            text = "it is nested too deeply, or in a circle"
        case OSError() if problem.strerror:
            text = problem.strerror
        case ValueError() if str(problem).strip():
            text = str(problem)
        case _:
            text = f"{kind}: {problem}" if str(problem).strip() else kind
    plain = printable(" ".join(text.split()))
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]} …"


def printable(text: str) -> str:
    """Text of a file with its control characters escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "replace").decode()
        for each in text
    )


def require_plain(path: Path) -> None:
    """Refuse what is neither a file nor a folder, such as a pipe, which would never end.

    Raises:
        UserError: if it is not there, or of another kind.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: must be a file or a folder, but is neither")
    if path.is_file():
        require_filled(path)


def require_filled(path: Path) -> None:
    """Refuse a file that claims far more than the disk holds of it, and is empty for the rest.

    Raises:
        UserError: if it does.
    """
    status = path.stat()
    stored = 512 * getattr(status, "st_blocks", status.st_size)
    if status.st_size > LARGE and status.st_size > MOST_CLAIMED * max(stored, 1):
        raise UserError(
            f"{path}: must be filled, but the disk holds {stored} of its {status.st_size} bytes; "
            "copy it again"
        )
