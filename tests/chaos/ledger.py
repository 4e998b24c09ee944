"""The ledger: a line of JSON for each act, and a table at the end."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

COLUMNS = (("study", 22), ("moment", 22), ("target", 9), ("code", 5), ("seconds", 8), ("said", 110))


@dataclass
class Row:
    """What was done, and what came of it.

    Args:
        study: scenario and profile.
        moment: when.
        target: what was hit.
        code: exit code; none if the command went on.
        seconds: until it had ended with all that it had started.
        said: what the next run said, or this one if it went on.
        problems: what must not be.
    """

    study: str
    moment: str
    target: str
    code: int | None
    seconds: float | None
    said: str = ""
    problems: list[str] = field(default_factory=list)


class Ledger:
    """Rows in memory and in a file.

    Args:
        path: the file; lines are added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.wrong = 0

    def add(self, row: Row) -> None:
        """Keep a row, and show it."""
        self.rows.append(row)
        self.wrong += len(row.problems)
        with self.path.open("a") as opened:
            opened.write(json.dumps({"at": time.strftime("%H:%M:%S")} | asdict(row)) + "\n")
        say(_line(row))
        for problem in row.problems:
            say(f"  PROBLEM {problem}")

    @property
    def kills(self) -> int:
        """Rows in which something was killed or stopped."""
        return sum(row.target != "finish" for row in self.rows)

    def show(self) -> None:
        """The table, and counts."""
        say("\n" + " ".join(name.ljust(width) for name, width in COLUMNS))
        for row in self.rows:
            say(_line(row))
        counted = Counter(row.target for row in self.rows if row.target != "finish")
        targets = ", ".join(f"{count} {target}" for target, count in counted.most_common())
        say(f"\n{self.kills} hits ({targets}); {self.wrong} problems")


def _line(row: Row) -> str:
    code = "-" if row.code is None else str(row.code)
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    texts = (row.study, row.moment, row.target, code, seconds, row.said)
    return " ".join(
        text[:width].ljust(width) for text, (_, width) in zip(texts, COLUMNS, strict=True)
    ).rstrip()


def say(what: str) -> None:
    """Show a line at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
