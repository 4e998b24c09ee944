"""Small molecules of ASE's, for tests of bonds."""

from __future__ import annotations

import ase.build
import numpy as np
import torch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet

EDGE = 12.0
"""Edge of the cube of every frame, Å."""


def molecules(*names: str) -> Frames:
    """One molecule a frame, wrapped into a cube about a corner, so that bonds cross its faces."""
    atoms = [ase.build.molecule(name) for name in names]
    positions = [(one.positions - one.positions.mean(axis=0)) % EDGE for one in atoms]
    total = sum(map(len, atoms))
    return Frames(
        numbers=np.concatenate([one.numbers for one in atoms]),
        positions=np.concatenate(positions),
        forces=np.zeros((total, 3)),
        offsets=np.cumsum([0, *map(len, atoms)]),
        cells=np.stack([EDGE * np.eye(3)] * len(atoms)),
        energies=np.zeros(len(atoms)),
        groups=np.arange(len(atoms)),
    )


def graphs_of(frames: Frames) -> GraphSet:
    """Their graphs within 3.4 Å, in double precision."""
    return GraphSet.build(frames, 3.4, dtype=torch.float64)
