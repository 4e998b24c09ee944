"""Structures to predict, read by ASE."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import UserError, one_line

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(path: Path) -> list[Atoms]:
    """Read all structures of a file.

    Raises:
        UserError: if ASE cannot read it, or it holds none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    from ase.io import iread

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structures = [atoms for atoms in iread(path, index=":") if len(atoms)]
    # ASE's readers raise exceptions of any type on malformed files.
    except Exception as problem:
        raise UserError(f"{path}: not readable by ASE: {one_line(problem)}") from None
    if not structures:
        raise UserError(f"{path}: must hold a structure, but holds none")
    return structures
