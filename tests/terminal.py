"""A picture of a terminal, from a real run; needs `pip install pyte`.

`python -m tests.terminal --out terminal.svg -- python -m study.run --space masking_ratio`: the
command runs in a terminal of its own, which no other program draws on. The fullest screen that
holds the text of `--showing` becomes an SVG; what remains on the last one is printed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.text import Text

BLOCK = 65536
"""Bytes that are read at once."""


def screens(command: list[str], columns: int, rows: int) -> Iterator[Any]:
    """Run a command in a terminal; its screen after each of its outputs."""
    import pyte

    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    try:
        while output := os.read(terminal, BLOCK):
            stream.feed(output)
            yield screen
    except OSError:  # The end of its output, on Linux.
        pass
    finally:
        os.waitpid(child, 0)


def colour(name: str) -> str | None:
    """Rich's name of a colour of pyte's."""
    if name in ("default", "brown"):
        return {"default": None, "brown": "yellow"}[name]
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name.replace("bright", "bright_")


def text_of(screen: Any) -> Text:
    """A screen as styled text, without the empty lines at its end."""
    text = Text()
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            style = Style(color=colour(cell.fg), bold=cell.bold, reverse=cell.reverse)
            text.append(cell.data, style)
        text.append("\n")
    text.rstrip()
    return text


def svg_of(text: Text, columns: int, title: str) -> str:
    """A window with the text."""
    console = Console(record=True, width=columns, file=StringIO(), force_terminal=True)
    console.print(text, no_wrap=True, crop=False)
    # Its fonts would be fetched from elsewhere; every machine has one of equal width.
    return re.sub(r"@font-face \{[^}]*\}", "", console.export_svg(title=title))


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and draw its fullest screen."""
    parser = argparse.ArgumentParser(prog="python -m tests.terminal", description=__doc__)
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--showing", default="running", metavar="TEXT")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--title", default="")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    fullest, lines, last = Text(), 0, ""
    for screen in screens(options.command, options.columns, options.rows):
        shown = [line.rstrip() for line in screen.display]
        last = "\n".join(shown).rstrip()
        full = sum(bool(line) for line in shown)
        if options.showing in last and full >= lines:
            fullest, lines = text_of(screen), full
    sys.stdout.write(f"{last}\n")
    if not lines:
        sys.stderr.write(f"no screen has shown {options.showing!r}\n")
        return 1
    options.out.write_text(svg_of(fullest, options.columns, options.title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
