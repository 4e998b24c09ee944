"""Frames from GAMD's water sets: a file `data_SEED_FRAME.npz` per frame (arXiv:2112.03383).

Each holds `pos` in Å, `forces` in kJ/mol/nm and `energy` in kJ/mol, as OpenMM gives them, with the
atoms of every molecule in the order O, H, H. The box is not in the files: it is the cube of the
density of 258 molecules in 20 Å. Frames of one seed are one group.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.core.units import KJ_PER_MOL, KJ_PER_MOL_PER_NM
from study.datasets.frames import Frames

NAME = re.compile(r"data_(\d+)_(\d+)\.npz")
MOLECULES, EDGE = 258, 20.0
"""In a cube of so many Å."""
WATER = (8, 1, 1)


def holds_frames(path: Path) -> bool:
    """Whether the folder has files of this kind."""
    return path.is_dir() and any(NAME.fullmatch(file.name) for file in path.iterdir())


def read(path: Path) -> Frames:
    """All frames of a folder, by seed and number.

    Raises:
        UserError: one line that names file and rule.
    """
    named = {file: NAME.fullmatch(file.name) for file in path.iterdir()}
    found = sorted((int(n[1]), int(n[2]), file) for file, n in named.items() if n)
    if not found:
        raise UserError(f"{path}: must hold files data_SEED_FRAME.npz, but holds none")
    frames = [_read(file) for _, _, file in found]
    sizes = [len(positions) for positions, _, _ in frames]
    edges = EDGE * (np.array(sizes) / (3 * MOLECULES)) ** (1 / 3)
    return Frames(
        numbers=np.concatenate([np.tile(WATER, size // 3) for size in sizes]),
        positions=np.concatenate([positions for positions, _, _ in frames]),
        forces=np.concatenate([forces for _, forces, _ in frames]),
        offsets=np.cumsum([0, *sizes]),
        cells=edges[:, None, None] * np.eye(3),
        energies=np.array([energy for _, _, energy in frames]),
        groups=np.array([seed for seed, _, _ in found]),
        origin={
            "units": {"length": "Å", "energy": "kJ/mol", "force": "kJ/mol/nm"},
            "labels": [],
        },
    )


def _read(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Positions (N, 3) Å, forces (N, 3) eV/Å and energy, eV."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            positions, forces = (arrays[name].reshape(-1, 3) for name in ("pos", "forces"))
            energy = float(arrays["energy"].reshape(-1)[0])
    except KeyError as problem:
        raise UserError(
            f"{file}: must hold pos, forces and energy, but: {problem.args[0]}; sets without "
            "energies are of no use here"
        ) from None
    except (OSError, ValueError, zipfile.BadZipFile) as problem:
        raise UserError(f"{file}: cannot be read ({problem})") from None
    if len(positions) % 3 or positions.shape != forces.shape:
        raise UserError(
            f"{file}: must hold positions and forces of whole water molecules, but got "
            f"{positions.shape} and {forces.shape}"
        )
    return positions, KJ_PER_MOL_PER_NM * forces, KJ_PER_MOL * energy
