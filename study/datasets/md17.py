"""Frames from MD17 (arXiv:1611.04678) and rMD17 (arXiv:2007.09593): an npz file per molecule.

MD17 names its arrays z, R, E, F, rMD17 nuclear_charges, coords, energies, forces; both are in Å,
kcal/mol and kcal/mol/Å. A file is one trajectory, and so one group.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from study.datasets.conformers import Conformers, joined
from study.errors import UserError
from study.frames import Frames
from study.units import KCAL_PER_MOL

NAMES = (("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces"))
"""Of elements, positions, energies and forces, in MD17 and in rMD17."""


def read(path: Path) -> Frames:
    """All frames of a file, or of all npz files of a folder.

    Raises:
        UserError: one line that names file and rule.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    return joined([_read(file) for file in files], path)


def _read(file: Path) -> Conformers:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            known = [names for names in NAMES if set(names) <= set(arrays.files)]
            if not known:
                raise UserError(
                    f"{file}: must hold the arrays {' '.join(NAMES[0])} of MD17 or "
                    f"{' '.join(NAMES[1])} of rMD17, but holds {' '.join(arrays.files)}"
                )
            numbers, positions, energies, forces = (arrays[name] for name in known[0])
        return Conformers(
            numbers.astype(np.int64),
            positions.astype(np.float64),
            KCAL_PER_MOL * energies.reshape(-1).astype(np.float64),
            KCAL_PER_MOL * forces.astype(np.float64),
        )
    except (OSError, ValueError, zipfile.BadZipFile) as problem:
        raise UserError(f"{file}: cannot be read ({problem})") from None
