"""Files of one kind in a folder that are one set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from study.datasets.parsing.folders import files_below, require_there
from study.datasets.parsing.guard import printable
from study.datasets.parsing.text import plain_suffix
from study.datasets.readers.atoms import extxyz

KINDS: tuple[Callable[[Path], bool], ...] = (
    extxyz.has_name,
    lambda file: "outcar" in file.name.lower(),
    lambda file: file.name.lower().startswith("vasprun") and ".xml" in file.name.lower(),
    lambda file: plain_suffix(file) == ".traj",
)
"""Of files in a folder that are one set; the first that is there counts."""


def passed_over_remarks(path: Path) -> list[str]:
    """What to say of files in a folder that are of another kind than those read."""
    others = [file for files in _by_kind(path)[1:] for file in files]
    if not others:
        return []
    first = printable(str(others[0].relative_to(path)))
    return [f"{len(others)} files of other kinds in the folder are not read, such as {first}"]


def files_of(path: Path) -> list[Path]:
    """The files of a folder, or below it, that are one set."""
    return require_there(next(iter(_by_kind(path)), []))


def _by_kind(path: Path) -> list[list[Path]]:
    """The files of each kind that is there."""
    files = files_below(path)
    return [found for kind in KINDS if (found := [file for file in files if kind(file)])]
