"""Pairs of atoms within a cutoff, in lattices of zero to three periodic directions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError

MAX_IMAGES = 1_000_000
"""Images of a cell within the cutoff; a cell with more is no structure."""
VESIN_BINS = 100_000
"""Bins up to which vesin never merges them; it dies of merging those of a needle to none."""
VESIN_RATIO = 100
"""Longest over shortest side, in bins, up to which vesin merges them well."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Target, source, and the lattice translations of the source, (E,), (E,), (E, 3)."""


@cache
def find_vesin() -> Any:
    """The package vesin, or None where it is not installed."""
    try:
        # It imports torch, which takes longer than most commands that import this module.
        import vesin
    except ModuleNotFoundError:
        return None
    return vesin


def completed(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) Å, a lattice with unit vectors perpendicular to it in place of its zero rows."""
    periodic = lattice.any(axis=1)
    if periodic.all():
        return lattice
    if not periodic.any():
        return np.eye(3)
    filled = lattice.copy()
    filled[~periodic] = np.linalg.svd(lattice[periodic])[2][periodic.sum() :]
    return filled


def thicknesses(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) Å between opposite faces of a cell; infinite where the lattice is not periodic."""
    heights = 1 / np.linalg.norm(np.linalg.inv(completed(lattice)), axis=0)
    return np.where(lattice.any(axis=1), heights, np.inf)


def search(
    positions: NDArray[np.float64],
    lattice: NDArray[np.float64],
    cutoff: float,
    quantities: str = "ijS",
    *,
    full: bool = True,
) -> list[NDArray[Any]]:
    """All pairs closer than `cutoff`, sorted by their first atom.

    Args:
        positions: (N, 3) Å.
        lattice: (3, 3) Å, rows are lattice vectors, zero where nothing repeats.
        cutoff: Å.
        quantities: what to return: the atoms `i` and `j`, translations `S` of the second one,
            distances `d`.
        full: each pair in both directions, or at least in one.

    Raises:
        UserError: if the cell is so thin that it has too many images within the cutoff.
    """
    vesin = find_vesin()
    if vesin is not None and _suits_vesin(positions, lattice, cutoff):
        found: list[NDArray[Any]] = vesin.NeighborList(
            cutoff=cutoff, full_list=full, sorted=True
        ).compute(
            points=positions,
            box=completed(lattice),
            periodic=lattice.any(axis=1),
            quantities=quantities,
        )
        return found
    first, second, shifts = linked_cells(positions, lattice, cutoff)
    known = {"i": first, "j": second, "S": shifts}
    vectors = positions[second] - positions[first] + shifts @ lattice
    return [(known | {"d": np.linalg.norm(vectors, axis=1)})[name] for name in quantities]


def search_isolated(
    positions: NDArray[np.float64],
    offsets: NDArray[np.int64],
    lattices: NDArray[np.float64],
    cutoff: float,
) -> Iterator[NDArray[np.int32] | None]:
    """What `search` finds of frames that repeat along no vector, in a third of its time.

    Args:
        positions: (ΣN, 3) Å.
        offsets: (frames + 1,) first atom of each frame, then the number of all atoms.
        lattices: (frames, 3, 3) Å, as in `search`.
        cutoff: Å.

    Yields:
        Of each frame target and source (E, 2), in the order of `search`; None where that must be
        called, because the frame repeats, or vesin is not installed or does not suit.
    """
    vesin, starts = find_vesin(), offsets[:-1]
    if vesin is None or not len(starts):
        yield from [None] * len(starts)
        return
    spans = np.maximum.reduceat(positions, starts) - np.minimum.reduceat(positions, starts)
    suited = _divides_well(spans / cutoff) & ~lattices.any(axis=(1, 2))
    finder = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    box, periodic = np.eye(3), np.zeros(3, np.bool_)
    bounds = zip(starts.tolist(), offsets[1:].tolist(), suited.tolist(), strict=True)
    for first, last, suits in bounds:
        if suits:
            (found,) = finder.compute(positions[first:last], box, periodic, "P", copy=False)
        yield found.astype(np.int32) if suits else None


def _divides_well(bins: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(…,) whether vesin divides a frame with so many bins along each side (…, 3) as it should."""
    sides = np.maximum(bins, 1)
    few = np.prod(sides, axis=-1) <= VESIN_BINS
    return np.asarray(few | (sides.max(axis=-1) <= VESIN_RATIO * sides.min(axis=-1)))


def _suits_vesin(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], cutoff: float
) -> bool:
    """Whether vesin can divide the frame into bins.

    Raises:
        UserError: if there are too many images within the cutoff.
    """
    filled, periodic = completed(lattice), lattice.any(axis=1)
    inverse = np.linalg.inv(filled)
    spans = np.where(periodic, 1.0, np.ptp(positions @ inverse, axis=0))
    bins = spans / (cutoff * np.linalg.norm(inverse, axis=0))
    images = np.prod(2 * np.ceil(1 / bins[periodic]) + 1)
    if not images <= MAX_IMAGES:
        raise UserError(
            f"cell: must have at most {MAX_IMAGES} images within {cutoff} Å, but its faces are "
            f"{thicknesses(lattice)[periodic].min():.3g} Å apart"
        )
    return bool(_divides_well(bins))


def linked_cells(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], cutoff: float
) -> Pairs:
    """Linked-cell neighbour search in numpy, about ten times slower than vesin.

    Each atom of the cell is compared with the periodic images in its own bin and the 26 around it.
    Bins have the shape of the cell, and their thickness is the cutoff.

    Args:
        positions: (N, 3) Å.
        lattice: (3, 3) Å, as in `search`.
        cutoff: Å.

    Returns:
        Target (E,), source (E,), and lattice translations of the source (E, 3), sorted by target.
    """
    periodic = np.asarray(lattice.any(axis=1))
    inverse = np.linalg.inv(completed(lattice))
    # The cutoff in units of the cell's thicknesses, enlarged against rounding.
    reach = cutoff * np.linalg.norm(inverse, axis=0) * (1 + 1e-9)
    fractional = positions @ inverse
    home = np.where(periodic, np.floor(fractional), 0.0)
    source, images, places = _images(fractional - home, reach, periodic)
    (inside,) = np.nonzero(~images.any(axis=1))
    center, image = _pairs_of_adjacent_bins(np.floor(places / reach), inside)
    shifts = (home[source[center]] - home[source[image]] + images[image]).astype(np.int64)
    target, other = source[center], source[image]
    vectors = positions[other] - positions[target] + shifts @ lattice
    (within_cutoff,) = np.nonzero((np.linalg.norm(vectors, axis=1) < cutoff) & (image != center))
    within_cutoff = within_cutoff[np.argsort(target[within_cutoff], kind="stable")]
    return target[within_cutoff], other[within_cutoff], shifts[within_cutoff]


def _pairs_of_adjacent_bins(
    bins: NDArray[np.float64], centers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair each center with all points in its own bin and the 26 around it.

    Args:
        bins: (M, 3) bin of each point, whole numbers.
        centers: (C,) points among them.

    Returns:
        Center (P,) and point (P,) of each pair, a center with itself among them.
    """
    packed = np.stack([_without_gaps(axis) for axis in bins.T], axis=1)
    counts = packed.max(axis=0, initial=0) + 2
    bin_ids = np.ravel_multi_index(tuple(packed.T), tuple(counts))
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


def _without_gaps(bins: NDArray[np.float64]) -> NDArray[np.int64]:
    """(M,) bins numbered from 1, in which any number of empty bins in a row counts as one."""
    occupied, place = np.unique(bins, return_inverse=True)
    steps = np.minimum(np.diff(occupied, prepend=occupied[:1] - 1), 2)
    return np.cumsum(steps).astype(np.int64)[place.ravel()]


def _images(
    wrapped: NDArray[np.float64], reach: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """List the atoms in the cell and their periodic images within `reach` of it.

    Args:
        wrapped: (N, 3) in units of the lattice vectors, from 0 to 1 where they are periodic.
        reach: (3,) in the same units.
        periodic: (3,) along which vectors there are images.

    Returns:
        (M,) atoms, (M, 3) translations, (M, 3) fractional coordinates.
    """
    most = np.where(periodic, np.ceil(reach), 0).astype(np.int64)
    translations = np.array(list(itertools.product(*(range(-n, n + 1) for n in most))))
    places = wrapped + translations[:, None]
    near = (places > -reach) & (places < 1 + reach) | ~periodic
    image, atom = np.nonzero(near.all(axis=-1))
    return atom, translations[image], places[image, atom]
