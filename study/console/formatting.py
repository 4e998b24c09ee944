"""Numbers, durations and paths in words."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from study.core.errors import printable
from study.core.quantities.metrics import unit_of

MILLI = {"eV/Å": "meV/Å", "eV/atom": "meV/atom", "eV": "meV"}
"""Units that read better by the thousandth."""

ERRORS = ("rmse", "mae")
"""Parts of metrics' names that are abbreviations."""


class PlainConsole(Console):
    """Shows text as it is: no markup, and no character that could command the terminal."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(
            highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=stderr, quiet=quiet
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; a terminal gets sentences that are broken between words."""
        if self.is_terminal:
            objects = tuple(
                wrapped(each, self.width) if isinstance(each, str) else each for each in objects
            )
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string, also that of a table's cell."""
        return super().render_str(printable(text), **options)


def write_lines(text: str) -> None:
    """Write sentences to the standard output; a terminal gets them broken between words."""
    width = shutil.get_terminal_size().columns
    sys.stdout.write(wrapped(printable(text), width) if sys.stdout.isatty() else printable(text))


KEPT = re.compile(r"`[^`]*`|\[[^][]{,40}\]|(?:[A-Z_]+=\S* )*python -m .*|\b[A-Z_]{5,}=\S* .*")
"""Intervals and commands, which stay in one piece."""

LABEL = re.compile(r" *(?:\S+(?: \S+){0,3} {2,})?")
"""Where a line begins, and the word before its text."""


def wrapped(text: str, width: int) -> str:
    """Break lines between words, and indent what follows as far as the text after a label."""
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    label = LABEL.match(line)
    indent = " " * min(label.end() if label else 0, width // 2)
    held = LABEL.sub(_held, KEPT.sub(_held, line), count=1)
    lines = textwrap.wrap(
        held, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace("\0", " ")


def _held(found: re.Match[str]) -> str:
    """What was found, without a space to break at."""
    return found[0].replace(" ", "\0")


def brief_name(name: str, *, several: bool) -> str:
    """A name with what differs in a search of one seed or several, in three digits."""
    name = name.replace(", finetune.", ", ")
    name = name if several else re.sub(r", seed \d+(?=,|$)", "", name)
    return re.sub(r"(?<= )\d+\.\d{3,}(?=,|$)", lambda found: f"{float(found[0]):.3g}", name)


def with_unit(metric: str, value: float) -> str:
    """A metric's value for people, such as 63.9 meV/Å."""
    unit, number = unit_of(metric), without_unit(metric, value)
    return number if unit == "1" else f"{number} {MILLI.get(unit, unit)}"


def relative_to_cwd(path: Path) -> Path:
    """The path relative to the current folder, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def error_in(reason: str) -> str:
    """The error that a reason names, whichever stage met it and whatever called what failed."""
    error = reason.rpartition("its pretraining failed: ")[2]
    return error.partition("; called from ")[0].rstrip(")")


def counted(count: int, what: str) -> str:
    """A number of things in words: 1 seed, 3 seeds."""
    return f"{count} {what}" + "s" * (count != 1)


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 7 min, 3.5 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def metric_title(metric: str) -> str:
    """A metric's name and unit for the head of a column, such as val force RMSE (meV/Å)."""
    unit = unit_of(metric)
    words = [word.upper() if word in ERRORS else word for word in metric.split("_")]
    title = " ".join(words)
    return title if unit == "1" else f"{title} ({MILLI.get(unit, unit)})"


def without_unit(metric: str, value: float) -> str:
    """A metric's value in the unit that `metric_title` names."""
    return figures(1000 * value if unit_of(metric) in MILLI else value)


def figures(value: float) -> str:
    """A number with one decimal place from 10 on, and with three significant digits below."""
    return f"{value:.1f}" if 10 <= abs(value) < 1e6 else f"{value:.3g}"
