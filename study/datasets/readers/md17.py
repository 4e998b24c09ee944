"""Frames from MD17 (arXiv:1611.04678), rMD17 (arXiv:2007.09593) and MD22 (arXiv:2209.14865).

A file is one molecule and one trajectory, and so one group. In npz files MD17 and MD22 name their
arrays z, R, E, F, rMD17 nuclear_charges, coords, energies, forces; MD22 also comes as extxyz with
`Energy` and `forces`. All are in Å, kcal/mol and kcal/mol/Å.
"""

from __future__ import annotations

import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np

from study.core.errors import UserError
from study.core.units import KCAL_PER_MOL
from study.datasets.frames import Frames
from study.datasets.readers.conformers import Conformers, joined

NAMES = (("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces"))
"""Of elements, positions, energies and forces, in MD17 and in rMD17."""


def read(path: Path) -> Frames:
    """All frames of a file, or of all npz files of a folder, or of its *.xyz if it has no npz.

    Raises:
        UserError: one line that names file and rule.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.npz")) or sorted(path.glob("md22_*.xyz"))
    return joined(
        [_read_xyz(file) if file.suffix == ".xyz" else _read(file) for file in files], path
    )


def holds_molecules(path: Path) -> bool:
    """Whether it is such a file, or a folder of them."""
    if path.is_dir():
        return any(holds_molecules(file) for file in path.iterdir() if file.is_file())
    return path.suffix == ".npz" or (path.name.startswith("md22_") and path.suffix == ".xyz")


def _read_xyz(file: Path) -> Conformers:
    try:
        frames = list(import_module("ase.io").iread(file, index=":", format="extxyz"))
        return Conformers(
            frames[0].numbers,
            np.stack([frame.positions for frame in frames]),
            KCAL_PER_MOL * np.array([frame.info["Energy"] for frame in frames]),
            KCAL_PER_MOL * np.stack([frame.get_forces() for frame in frames]),
        )
    # ASE's readers raise whatever a malformed file makes them stumble over.
    except Exception as problem:
        raise UserError(
            f"{file}: must be extxyz of one molecule with `Energy` and `forces` in kcal/mol and Å, "
            f"but cannot be read ({type(problem).__name__}: {problem})"
        ) from None


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
