"""Neighbor lists under periodic boundary conditions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.datasets.pairs import search, search_isolated

MAX_PAIRS = 2**23
"""Atom pairs that `dense_neighbors` compares at most; they take 2 GB."""

Lists = tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int64]]
"""edge_index (2, ΣE), shifts (ΣE, 3), and edges of each frame (frames,)."""


def neighbor_list(
    positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """All directed pairs closer than `cutoff`, exact for any cell and any number of images.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors, zero where nothing repeats.
        cutoff: Å.

    Returns:
        edge_index (2, E), source then target, sorted by target; shifts (E, 3), so that
        positions[target] − positions[source] + shifts @ cell is the edge vector.
    """
    target, source, shifts = search(positions, cell, cutoff)
    # Vesin's vectors run from the first to the second atom, ours from source to target.
    edge_index = np.stack([source, target]).astype(np.int32)
    if np.abs(shifts).max(initial=0) > np.iinfo(np.int16).max:
        raise ValueError("atoms must lie within 32767 cells of each other; wrap their positions")
    return edge_index, (-shifts).astype(np.int16)


def neighbor_lists(
    positions: NDArray[np.float64],
    offsets: NDArray[np.int64],
    cells: NDArray[np.float64],
    cutoff: float,
) -> Lists:
    """Compute the `neighbor_list` of each frame.

    Args:
        positions: (ΣN, 3) Å.
        offsets: (frames + 1,) first atom of each frame, then the number of all atoms.
        cells: (frames, 3, 3) Å, as in `neighbor_list`.
        cutoff: Å.

    Returns:
        edge_index (2, ΣE) and shifts (ΣE, 3) frame by frame, atoms counted from the first one of
        their frame; the number of edges (frames,) of each.
    """
    pairs, moved = [np.empty((0, 2), np.int32)], {}
    for frame, found in enumerate(search_isolated(positions, offsets, cells, cutoff)):
        if found is None:
            atoms = positions[offsets[frame] : offsets[frame + 1]]
            index, moved[frame] = neighbor_list(atoms, cells[frame], cutoff)
            found = index[::-1].T
        pairs.append(found)
    counts = np.array([len(each) for each in pairs[1:]], np.int64)
    ends = np.cumsum(counts)
    shifts = np.zeros((counts.sum(), 3), np.int16)
    for frame, shift in moved.items():
        shifts[ends[frame] - counts[frame] : ends[frame]] = shift
    return np.ascontiguousarray(np.concatenate(pairs).T[::-1]), shifts, counts


def dense_neighbors(
    positions: Tensor, ptr: Tensor, cells: Tensor, cutoff: float
) -> tuple[Tensor, Tensor] | None:
    """Minimum-image neighbour list of a batch on its own device.

    All pairs of atoms of a frame are compared, each by its nearest image; on a GPU this takes less
    time than a round trip to the CPU.

    Args:
        positions: (N, 3) Å.
        ptr: (G + 1,) first atom of each frame, then N.
        cells: (G, 3, 3) Å, with zeros for vectors along which a frame does not repeat.
        cutoff: Å.

    Returns:
        edge_index (2, E), source then target, sorted by target, and shifts (E, 3) float64; None if
        a cell is thinner than two cutoffs or there are more than `MAX_PAIRS` pairs.
    """
    sizes, periodic, cells = ptr.diff(), cells.any(dim=2), _completed(cells.double())
    inverse = torch.linalg.inv_ex(cells).inverse
    thin = (periodic & (1 / inverse.norm(dim=1) < 2 * cutoff)).any()
    # A GPU is waited for here once, and once more at the end, to count the edges.
    is_thin, pairs = torch.stack([thin, sizes.square().sum()]).tolist()
    if is_thin or pairs > MAX_PAIRS:
        return None
    frame = torch.repeat_interleave(sizes, output_size=len(positions))
    target = torch.repeat_interleave(sizes[frame], output_size=pairs)
    count = torch.cumsum(sizes[frame], 0) - sizes[frame]
    source = torch.arange(len(target), device=ptr.device) - count[target] + ptr[frame[target]]
    owner = frame[target]
    places = torch.einsum("ni,nij->nj", positions.double(), inverse[frame])
    separations = places[target] - places[source]
    shifts = torch.where(periodic[owner], -separations.round(), 0.0)
    separations += shifts
    components = [separations[:, axis, None] * cells[owner, axis] for axis in range(3)]
    vectors = components[0] + components[1] + components[2]
    within_cutoff = (vectors.square().sum(dim=1) < cutoff**2) & (source != target)
    edges = torch.nonzero(within_cutoff)[:, 0]
    return torch.stack([source, target])[:, edges], shifts[edges]


def _completed(cells: Tensor) -> Tensor:
    """Cells (G, 3, 3) with unit vectors perpendicular to all others in place of zero rows."""
    rows, axes = list(cells.unbind(1)), torch.eye(3, dtype=cells.dtype, device=cells.device)
    for row in range(3):
        one, other = rows[row - 2], rows[row - 1]
        has_one, has_other, is_there = (
            each.any(dim=1, keepdim=True) for each in (one, other, rows[row])
        )
        known = torch.where(has_one, one, other)
        second = torch.where(has_one & has_other, other, axes[known.abs().argmin(dim=1)])
        normal = torch.linalg.cross(known, second)
        filled = torch.where(
            has_one | has_other, normal / normal.norm(dim=1, keepdim=True), axes[row]
        )
        rows[row] = torch.where(is_there, rows[row], filled)
    return torch.stack(rows, dim=1)
