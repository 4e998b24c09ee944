"""Neighbor lists under periodic boundary conditions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

try:
    import vesin
except ModuleNotFoundError:
    vesin = None

MAX_PAIRS = 2**23
"""Atom pairs that `dense_neighbors` compares at most; they take 2 GB."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Target, source, and the lattice translations of the source, (E,), (E,), (E, 3)."""


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
    search = linked_cells if vesin is None else _vesin_neighbors
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
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int16]]]:
    """Compute the `neighbor_list` of each frame.

    Args:
        positions: (ΣN, 3) Å.
        offsets: (frames + 1,) first atom of each frame, then the number of all atoms.
        cells: (frames, 3, 3) Å.
        cutoff: Å.

    Returns:
        edge_index (2, E) and shifts (E, 3) of each frame, atoms counted from its first one.
    """
    lists = [
        neighbor_list(positions[first:last], cell, cutoff)
        for first, last, cell in zip(offsets[:-1], offsets[1:], cells, strict=True)
    ]
    return [pairs for pairs, _ in lists], [shifts for _, shifts in lists]


def _vesin_neighbors(
    positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float
) -> Any:
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    return search.compute(points=positions, box=cell, periodic=True, quantities="ijS")


def linked_cells(positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float) -> Pairs:
    """Linked-cell neighbour search in numpy, about ten times slower than vesin.

    Each atom of the cell is compared with the periodic images in its own bin and the 26 around it.
    Bins have the shape of the cell, and their thickness is the cutoff.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors.
        cutoff: Å.

    Returns:
        Target (E,), source (E,), and lattice translations of the source (E, 3), sorted by target.
    """
    inverse = np.linalg.inv(cell)
    # The cutoff in units of the cell's thicknesses, enlarged against rounding.
    reach = cutoff * np.linalg.norm(inverse, axis=0) * (1 + 1e-9)
    fractional = positions @ inverse
    home = np.floor(fractional)
    source, images, places = _images(fractional - home, reach)
    (inside,) = np.nonzero(~images.any(axis=1))
    bins = np.floor(places / reach).astype(np.int64) + 1
    center, image = _pairs_of_adjacent_bins(bins, inside)
    shifts = (home[source[center]] - home[source[image]] + images[image]).astype(np.int64)
    target, other = source[center], source[image]
    vectors = positions[other] - positions[target] + shifts @ cell
    (within_cutoff,) = np.nonzero((np.linalg.norm(vectors, axis=1) < cutoff) & (image != center))
    within_cutoff = within_cutoff[np.argsort(target[within_cutoff], kind="stable")]
    return target[within_cutoff], other[within_cutoff], shifts[within_cutoff]


def _pairs_of_adjacent_bins(
    bins: NDArray[np.int64], centers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair each center with all points in its own bin and the 26 around it.

    Args:
        bins: (M, 3) bin of each point, from 0.
        centers: (C,) points that are not in an outermost bin.

    Returns:
        Center (P,) and point (P,) of each pair, a center with itself among them.
    """
    counts = bins.max(axis=0, initial=0) + 2
    bin_ids = np.ravel_multi_index(tuple(bins.T), tuple(counts))
    order = np.argsort(bin_ids, kind="stable")
    ordered = bin_ids[order]
    pairs, points = [], []
    for step in itertools.product((-1, 0, 1), repeat=3):
        neighbor_bins = bin_ids[centers] + np.dot(step, (counts[1] * counts[2], counts[2], 1))
        first = np.searchsorted(ordered, neighbor_bins, side="left")
        occupancy = np.searchsorted(ordered, neighbor_bins, side="right") - first
        pairs.append(np.repeat(centers, occupancy))
        begin = np.repeat(first - np.cumsum(occupancy) + occupancy, occupancy)
        points.append(order[begin + np.arange(len(begin))])
    return np.concatenate(pairs), np.concatenate(points)


def _images(
    wrapped: NDArray[np.float64], reach: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """List the atoms in the cell and their periodic images within `reach` of it.

    Args:
        wrapped: (N, 3) in units of the lattice vectors, from 0 to 1.
        reach: (3,) in the same units.

    Returns:
        (M,) atoms, (M, 3) translations, (M, 3) fractional coordinates.
    """
    n_images = np.ceil(reach).astype(np.int64)
    translations = np.array(list(itertools.product(*(range(-n, n + 1) for n in n_images))))
    places = wrapped + translations[:, None]
    image, atom = np.nonzero(((places > -reach) & (places < 1 + reach)).all(axis=-1))
    return atom, translations[image], places[image, atom]


def dense_neighbors(
    positions: Tensor, ptr: Tensor, cells: Tensor, cutoff: float
) -> tuple[Tensor, Tensor] | None:
    """Minimum-image neighbour list of a batch on its own device.

    All pairs of atoms of a frame are compared, each by its nearest image; on a GPU this takes less
    time than a round trip to the CPU.

    Args:
        positions: (N, 3) Å.
        ptr: (G + 1,) first atom of each frame, then N.
        cells: (G, 3, 3) Å.
        cutoff: Å.

    Returns:
        edge_index (2, E), source then target, sorted by target, and shifts (E, 3) float64; None if
        a cell is thinner than two cutoffs or there are more than `MAX_PAIRS` pairs.
    """
    sizes = ptr.diff()
    inverse = torch.linalg.inv(cells.double())
    thickness = 1 / inverse.norm(dim=1)
    if bool((thickness < 2 * cutoff).any()) or int(sizes.square().sum()) > MAX_PAIRS:
        return None
    frame = torch.repeat_interleave(sizes)
    target = torch.repeat_interleave(sizes[frame])
    count = torch.cumsum(sizes[frame], 0) - sizes[frame]
    source = torch.arange(len(target), device=ptr.device) - count[target] + ptr[frame[target]]
    owner, cells = frame[target], cells.double()
    places = torch.einsum("ni,nij->nj", positions.double(), inverse[frame])
    separations = places[target] - places[source]
    shifts = -separations.round()
    separations += shifts
    components = [separations[:, axis, None] * cells[owner, axis] for axis in range(3)]
    vectors = components[0] + components[1] + components[2]
    within_cutoff = (vectors.square().sum(dim=1) < cutoff**2) & (source != target)
    return torch.stack([source, target])[:, within_cutoff], shifts[within_cutoff]
