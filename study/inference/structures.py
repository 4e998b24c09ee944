"""Structures to predict, read from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import UserError
from study.core.paths import Address
from study.datasets.readers.ase_file import checked
from study.datasets.sources.remote import local

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(place: Path | Address) -> list[Atoms]:
    """All structures of a file, here or elsewhere, read as training frames are.

    Raises:
        UserError: if it cannot be read, or holds none.
    """
    path = local(place)
    if not path.is_file():
        raise UserError(f"{path}: no such file")

    structures = list(checked(path))
    if not structures:
        raise UserError(f"{path}: must hold a structure, but holds none")
    return structures
