"""Small structures on which models and tasks are checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """One structure in a periodic cell.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        cell: (3, 3) Å.
    """

    numbers: NDArray[np.uint8]
    positions: Array
    cell: Array


def build_graphs(structures: Sequence[Structure], cutoff: float) -> GraphSet:
    """Build float64 graphs of structures, with zero labels."""
    sizes = [len(structure.numbers) for structure in structures]
    frames = Frames(
        numbers=np.concatenate([structure.numbers for structure in structures]),
        positions=np.concatenate([structure.positions for structure in structures]),
        forces=np.zeros((sum(sizes), 3)),
        offsets=np.cumsum([0, *sizes]),
        cells=np.stack([structure.cell for structure in structures]),
        energies=np.zeros(len(sizes)),
        groups=np.zeros(len(sizes), np.int64),
    )
    return GraphSet.build(frames, cutoff, dtype=torch.float64)


def water_box(seed: int) -> Structure:
    """Place eight water molecules, randomly rotated, on a jittered lattice in a skewed cell."""
    rng = np.random.default_rng(seed)
    cell = np.array([[6.4, 0, 0], [1.9, 6.5, 0], [-1.4, 1.7, 6.6]])
    molecule = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])
    sites = np.array(list(itertools.product((0, 0.5), repeat=3))) @ cell
    rotated = [molecule @ np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in sites]
    positions = np.concatenate(sites[:, None] + rng.uniform(-0.2, 0.2, (8, 1, 3)) + rotated)
    return Structure(np.tile(np.array([8, 1, 1], np.uint8), 8), positions, cell)
