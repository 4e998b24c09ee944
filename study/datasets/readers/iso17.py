"""ISO17 (arXiv:1706.08566): isomers of C7O2H10 from molecular dynamics, in ASE databases.

Energies are under the key `total_energy`, eV; forces in the data as `atomic_forces`, eV/Å.
`reference.db` has most steps of most molecules; the frames whose ids, from 1, are listed in
`validation_ids.txt` validate, the others train. The test frames are other steps of the same
molecules, `test_within.db`, or other molecules, `test_other.db`. Which frame is of which molecule
the files do not tell.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.text import whole, whole_text
from study.datasets.readers import ase_file
from study.datasets.reading import PLAIN, Reading

if TYPE_CHECKING:
    from ase import Atoms

REFERENCE, VALIDATION_IDS = "reference.db", "validation_ids.txt"
TRAIN, VALIDATION, TEST = 0.0, 1.0, 2.0


def holds_reference(path: Path) -> bool:
    """Whether it is the folder of the unpacked set."""
    return (path / REFERENCE).is_file()


def read(test: str, path: Path, given: Reading = PLAIN) -> Frames:
    """The frames of a folder, each with its part of the published split.

    Args:
        test: name of the database to test on, without its suffix.
        path: the folder.
        given: what the user says of the files.

    Raises:
        UserError: if a file is missing, or ids are not those of frames.
    """
    reference, tested = (_database(path / name, given) for name in (REFERENCE, f"{test}.db"))
    parts = np.full(len(reference), TRAIN)
    parts[_validation(path / VALIDATION_IDS, len(reference))] = VALIDATION
    frames = ase_file.joined([*reference, *tested], path, given)
    together = np.concatenate([parts, np.full(len(tested), TEST)])
    return replace(frames, properties=frames.properties | {"part": together})


def _database(file: Path, given: Reading) -> list[Atoms]:
    if not file.is_file():
        raise UserError(f"{file}: no such file; unpack iso17.tar.gz, and name its folder")
    return list(ase_file.checked(file, given))


def _validation(file: Path, frames: int) -> NDArray[np.int64]:
    """Numbers, from 0, of the frames that validate."""
    try:
        ids = np.array([whole(word) for word in whole_text(file).split()], dtype=np.int64)
    except (OSError, ValueError, UserError) as problem:
        raise UserError(f"{file}: must hold an id in each line ({problem})") from None
    if len(ids) == 0 or ids.min() < 1 or ids.max() > frames:
        raise UserError(f"{file}: must hold ids from 1 to {frames}, the frames of {REFERENCE}")
    return ids - 1


read_within = partial(read, "test_within")
read_other = partial(read, "test_other")
