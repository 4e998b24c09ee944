"""Water without simulation: whole molecules, randomly turned, at the density of TIP3P.

Cost depends on atoms and edges alone; labels are random numbers of the right size.
"""

from __future__ import annotations

import math

import numpy as np

from study.datasets.frames import Frames

RIGID = np.array([[0, 0, 0], [0.7569, 0.5859, 0], [-0.7569, 0.5859, 0]])
"""(3, 3) Å, oxygen and its two hydrogens, TIP3P."""
PAPER = 258, 20.0
"""Molecules in a cube, and its edge, Å."""


def water_box(molecules: int, frames: int, seed: int = 0) -> Frames:
    """Frames of one size, atoms in the order O, H, H; every frame is its own group."""
    rng = np.random.default_rng(seed)
    edge = PAPER[1] * (molecules / PAPER[0]) ** (1 / 3)
    side = math.ceil(round(molecules ** (1 / 3), 9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = []
    for _ in range(frames):
        sites = grid[np.sort(rng.choice(len(grid), molecules, replace=False))] * (edge / side)
        origins = sites + rng.uniform(-0.25, 0.25, (molecules, 3))
        turned = RIGID @ _rotations(molecules, rng)
        positions.append((origins[:, None] + turned).reshape(-1, 3))
    atoms = 3 * molecules
    return Frames(
        numbers=np.tile([8, 1, 1], molecules * frames),
        positions=np.concatenate(positions),
        forces=rng.normal(0, 0.6, (frames * atoms, 3)),
        offsets=np.arange(frames + 1) * atoms,
        cells=np.tile(edge * np.eye(3), (frames, 1, 1)),
        energies=atoms * rng.normal(-0.138, 0.002, frames),
        groups=np.arange(frames),
    )


def _rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3, 3) proper rotations."""
    matrices, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return matrices * np.linalg.det(matrices)[:, None, None]
