"""Who sees whom: all pairs within a cutoff, periodic images included."""

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
"""That `dense_neighbors` compares: 2 GB."""

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
    search = linked_cells if vesin is None else _by_vesin
    target, source, shifts = search(positions, cell, cutoff)
    # Their vector runs from the first to the second atom; ours from source to target.
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
    """`neighbor_list` of each frame.

    Args:
        positions: (ΣN, 3) Å.
        offsets: (frames + 1,) first atom of each frame, then the number of all atoms.
        cells: (frames, 3, 3) Å.
        cutoff: Å.
    """
    found = [
        neighbor_list(positions[first:last], cell, cutoff)
        for first, last, cell in zip(offsets[:-1], offsets[1:], cells, strict=True)
    ]
    return [pairs for pairs, _ in found], [shifts for _, shifts in found]


def _by_vesin(positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float) -> Any:
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    return search.compute(points=positions, box=cell, periodic=True, quantities="ijS")


def linked_cells(positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float) -> Pairs:
    """The same pairs, found by numpy alone, some ten times slower than by vesin.

    Every atom of the cell looks for the images of all atoms in its own bin and the 26 around it;
    bins have the shape of the cell, and are as thick as the cutoff.
    """
    inverse = np.linalg.inv(cell)
    # A little more than the cutoff in units of the cell's thicknesses.
    reach = cutoff * np.linalg.norm(inverse, axis=0) * (1 + 1e-9)
    fractional = positions @ inverse
    home = np.floor(fractional)
    source, images, places = _images(fractional - home, reach)
    bins = np.floor(places / reach).astype(np.int64) + 1
    counts = bins.max(axis=0, initial=0) + 2
    names = np.ravel_multi_index(tuple(bins.T), tuple(counts))
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    (inside,) = np.nonzero(~images.any(axis=1))
    targets, sources = [], []
    for step in itertools.product((-1, 0, 1), repeat=3):
        looked_at = names[inside] + np.dot(step, (counts[1] * counts[2], counts[2], 1))
        first = np.searchsorted(ordered, looked_at, side="left")
        found = np.searchsorted(ordered, looked_at, side="right") - first
        targets.append(np.repeat(inside, found))
        begin = np.repeat(first - np.cumsum(found) + found, found)
        sources.append(order[begin + np.arange(len(begin))])
    seen, seeing = np.concatenate(sources), np.concatenate(targets)
    shifts = (home[source[seeing]] - home[source[seen]] + images[seen]).astype(np.int64)
    target, other = source[seeing], source[seen]
    vectors = positions[other] - positions[target] + shifts @ cell
    (near,) = np.nonzero((np.linalg.norm(vectors, axis=1) < cutoff) & (seen != seeing))
    near = near[np.argsort(target[near], kind="stable")]
    return target[near], other[near], shifts[near]


def _images(
    wrapped: NDArray[np.float64], reach: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Atoms in the cell and their images no farther from it than `reach`.

    Args:
        wrapped: (N, 3) in units of the lattice vectors, from 0 to 1.
        reach: (3,) in the same units.

    Returns:
        (M,) atoms, (M, 3) translations, (M, 3) places in units of the lattice vectors.
    """
    most = np.ceil(reach).astype(np.int64)
    translations = np.array(list(itertools.product(*(range(-n, n + 1) for n in most))))
    places = wrapped + translations[:, None]
    image, atom = np.nonzero(((places > -reach) & (places < 1 + reach)).all(axis=-1))
    return atom, translations[image], places[image, atom]


def dense_neighbors(
    positions: Tensor, ptr: Tensor, cells: Tensor, cutoff: float
) -> tuple[Tensor, Tensor] | None:
    """The same for a batch on its device, where every two atoms see one image of each other.

    All pairs of atoms of a frame are compared, each by its nearest image: what a GPU does in less
    time than it takes to ask the processor.

    Args:
        positions: (N, 3) Å.
        ptr: (G + 1,) first atom of each frame, then N.
        cells: (G, 3, 3) Å.
        cutoff: Å.

    Returns:
        edge_index (2, E), source then target, sorted by target, and shifts (E, 3) float64; nothing
        where a cell is thinner than two cutoffs, or there are more than `MAX_PAIRS`.
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
    apart = places[target] - places[source]
    shifts = -apart.round()
    apart += shifts
    along = [apart[:, axis, None] * cells[owner, axis] for axis in range(3)]
    vectors = along[0] + along[1] + along[2]
    near = (vectors.square().sum(dim=1) < cutoff**2) & (source != target)
    return torch.stack([source, target])[:, near], shifts[near]
