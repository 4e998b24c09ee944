"""Structures to predict, read from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import UserError
from study.datasets.readers.ase_file import checked

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(path: Path) -> list[Atoms]:
    """All structures of a file, read as training frames are.

    Raises:
        UserError: if it cannot be read, or holds none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")

    structures = list(checked(path))
    if not structures:
        raise UserError(f"{path}: must hold a structure, but holds none")
    return structures
