"""The files of a folder of data: through links, and without what is hidden."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from study.core.errors import UserError


def files_below(folder: Path, name: str = "*") -> list[Path]:
    """All files in a folder and below it whose names match, in order.

    Links are followed, as those that people make of runs that lie elsewhere; those that lead to
    nothing are among the files. Names that begin with a dot are left out: copies that macOS and
    Jupyter make.
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
            if not each.startswith(".") and (file.is_file() or not file.exists()):
                found.append(file)
    return sorted(found)


def require_there(files: list[Path]) -> list[Path]:
    """The files of a set.

    Raises:
        UserError: if one is a link to nothing, so that a part of the set would be missing.
    """
    for file in files:
        if not file.exists():
            raise UserError(f"{file}: is a link to nothing; mend it, or take it out")
    return files


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that are not hidden, in order; not those below it."""
    return sorted(each for each in folder.iterdir() if each.is_file() and each.name[:1] != ".")


def _raise(problem: OSError) -> None:
    raise problem
