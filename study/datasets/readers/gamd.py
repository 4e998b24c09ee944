"""Frames from GAMD's water sets: a file `data_SEED_FRAME.npz` per frame (arXiv:2112.03383).

Each holds `pos` in Å, `forces` in kJ/mol/nm and `energy` in kJ/mol, as OpenMM gives them, with the
atoms of every molecule in the order O, H, H. The box is not in the files: it is the cube of the
density of 258 molecules in 20 Å. Frames of one seed are one group.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.arrays import finite, opened_npz, real
from study.datasets.parsing.guard import guarded
from study.datasets.reading import PLAIN, Factors, Reading

DEFAULT = ("Å", "kJ/mol", "kJ/mol/nm")

NAME = re.compile(r"data_(\d+)_(\d+)\.npz")
MOLECULES, EDGE = 258, 20.0
"""In a cube of so many Å."""
WATER = (8, 1, 1)


def holds_frames(path: Path) -> bool:
    """Whether the folder has files of this kind."""
    return path.is_dir() and any(NAME.fullmatch(file.name) for file in path.iterdir())


def read(path: Path, given: Reading = PLAIN) -> Frames:
    """All frames of a folder, by seed and number.

    Raises:
        UserError: one line that names file and rule.
    """
    named = {file: NAME.fullmatch(file.name) for file in path.iterdir()}
    found = sorted((int(n[1]), int(n[2]), file) for file, n in named.items() if n)
    if not found:
        raise UserError(f"{path}: must hold files data_SEED_FRAME.npz, but holds none")
    factors = given.factors(DEFAULT)
    frames = [_read(file, factors) for _, _, file in found]
    sizes = [len(positions) for positions, _, _ in frames]
    # The box is not in the files, and stays in Å.
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
            "units": factors.names,
            "labels": [],
        },
    )


def _read(file: Path, factors: Factors) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Positions (N, 3) Å, forces (N, 3) eV/Å and energy, eV."""
    with guarded(file), opened_npz(file) as arrays:
        missing = [name for name in ("pos", "forces", "energy") if name not in arrays]
        if missing:
            raise UserError(
                f"{file}: must hold pos, forces and energy, but has no {missing[0]}; sets without "
                "energies are of no use here"
            )
        positions, forces = (real(arrays[name], name) for name in ("pos", "forces"))
        energy = real(arrays["energy"], "energy").reshape(-1)
        if energy.size != 1:
            raise ValueError(f"`energy` must be one number, but has {energy.size}")
        if positions.size % 9 or positions.shape != forces.shape or positions.shape[-1:] != (3,):
            raise UserError(
                f"{file}: must hold positions and forces of whole water molecules, but got "
                f"{positions.shape} and {forces.shape}"
            )
        finite(energy, "energy", 1)
        finite(forces, "forces", 1)
    shape = (-1, 3)
    return (
        factors.length * positions.reshape(shape),
        factors.force * forces.reshape(shape),
        factors.energy * float(energy[0]),
    )
