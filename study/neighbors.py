"""Who sees whom: all pairs within a cutoff, periodic images included."""

from __future__ import annotations

import numpy as np
import vesin
from numpy.typing import NDArray


def neighbor_list(
    positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """All directed pairs closer than `cutoff`, exact for any cell and any number of images.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors.
        cutoff: Å.

    Returns:
        edge_index (2, E), source then target, sorted by target; shifts (E, 3), so that
        positions[target] − positions[source] + shifts @ cell is the edge vector.
    """
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    target, source, shifts = search.compute(
        points=positions, box=cell, periodic=True, quantities="ijS"
    )
    # vesin's vector runs from its first to its second atom; ours from source to target.
    edge_index = np.stack([source, target]).astype(np.int32)
    if np.abs(shifts).max(initial=0) > np.iinfo(np.int16).max:
        raise ValueError("atoms must lie within 32767 cells of each other; wrap their positions")
    return edge_index, (-shifts).astype(np.int16)
