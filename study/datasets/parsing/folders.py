"""The files of a folder of data: through links, and without what is hidden."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from study.core.errors import UserError


def files_below(folder: Path, name: str = "*") -> list[Path]:
    """All files in a folder and below it whose names match, in order.

    Links are followed, as those that people make of runs that lie elsewhere. Names that begin with
    a dot are left out: copies that macOS and Jupyter make.

    Raises:
        UserError: if a link leads to nothing, which may be part of the data.
    """
    found, seen = [], set[str]()
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for each in fnmatch.filter(files, name):
            file = Path(place, each)
            if each.startswith("."):
                continue
            if not file.exists():
                raise UserError(f"{file}: is a link to nothing; mend it, or take it out")
            if file.is_file():
                found.append(file)
    return sorted(found)


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that are not hidden, in order; not those below it."""
    return sorted(each for each in folder.iterdir() if each.is_file() and each.name[:1] != ".")


def _raise(problem: OSError) -> None:
    raise problem
