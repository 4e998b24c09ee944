"""The neighbours in all frames: held in memory, or found for every batch if they are too many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.datasets.frames import Frames
from study.datasets.sizes import MOST_EDGE_BYTES
from study.graphs.neighbor_list import neighbor_lists

SAMPLE = 64
"""Frames from which edges are estimated before there are any."""


@dataclass(frozen=True)
class RaggedIndex:
    """Rows of several owners, one owner after the other.

    Args:
        offsets: (owners + 1,) first row of each owner, then the number of all rows.
    """

    offsets: Tensor

    @classmethod
    def from_sizes(cls, sizes: Tensor) -> RaggedIndex:
        """Of owners with so many rows each."""
        return cls(torch.cat([sizes.new_zeros(1), torch.cumsum(sizes, 0)]))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(owners,) rows of each, known without waiting for a GPU."""
        counts: NDArray[np.int64] = self.offsets.cpu().diff().numpy()
        return counts

    def count(self, owners: Tensor) -> int:
        """Rows of all the chosen owners together."""
        return int(self.counts[owners.cpu().numpy()].sum())

    def sizes(self, owners: Tensor) -> Tensor:
        """(M,) rows of the chosen owners, on the device."""
        owners = owners.to(self.offsets.device, non_blocking=True)
        return self.offsets[owners + 1] - self.offsets[owners]

    def rows(self, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the chosen owners in order, and for each row its place in `owners`.

        Args:
            owners: (M,); a GPU need not be waited for if they lie on the processor.
        """
        count = self.count(owners)
        owners = owners.to(self.offsets.device, non_blocking=True)
        starts, sizes = self.offsets[owners], self.sizes(owners)
        place = torch.repeat_interleave(sizes, output_size=count)
        first = torch.cumsum(sizes, 0) - sizes
        return torch.arange(len(place), device=place.device) + (starts - first)[place], place


class Edges(Protocol):
    """Pairs of neighbours, by frame."""

    def of(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the chosen frames, one frame after the other.

        Args:
            frames: (G,) indices, best on the processor.

        Returns:
            edge_index (2, E) source and target, counted from the frame's first atom; (E, 3)
            lattice translations of the target, whole numbers; (E,) places of frames in `frames`.
        """

    def count(self, frames: Tensor) -> int:
        """How many the chosen frames have, about, where that is not known."""


@dataclass(frozen=True)
class PrecomputedEdges:
    """Edges in memory.

    Args:
        index: (2, ΣE) source and target, counted from the frame's first atom.
        shift: (ΣE, 3) lattice translations of the target.
        rows: of both, by frame.
    """

    index: Tensor
    shift: Tensor
    rows: RaggedIndex

    @property
    def nbytes(self) -> int:
        """In memory."""
        return self.index.nbytes + self.shift.nbytes

    def of(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Edges`."""
        rows, place = self.rows.rows(frames)
        return self.index[:, rows], self.shift[rows], place

    def count(self, frames: Tensor) -> int:
        """See `Edges`."""
        return self.rows.count(frames)


@dataclass(frozen=True)
class OnTheFlyEdges:
    """Edges found when they are asked for, by the processor, and the same as if they were held.

    Args:
        source: all frames.
        cutoff: Å.
        per_atom: about how many an atom has.
        device: where they are wanted.
    """

    source: Frames
    cutoff: float
    per_atom: float
    device: torch.device

    def of(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Edges`."""
        held = precompute_edges(self.source.select(frames.cpu().numpy()), self.cutoff, self.device)
        _, place = held.rows.rows(torch.arange(len(frames)))
        return held.index, held.shift, place

    def count(self, frames: Tensor) -> int:
        """See `Edges`."""
        return round(self.per_atom * int(self.source.sizes[frames.cpu().numpy()].sum()))


def connect_frames(
    frames: Frames, cutoff: float, device: torch.device, most: int | None = None
) -> Edges:
    """The neighbours in all frames, held if they take no more memory than they may.

    Args:
        frames: to connect.
        cutoff: Å.
        device: where they are wanted.
        most: bytes that they may take; default: `MOST_EDGE_BYTES`, on a GPU a quarter of what is
            free there.
    """
    spread = np.linspace(0, len(frames) - 1, min(SAMPLE, len(frames))).astype(np.int64)
    sample = frames.select(spread)
    held = precompute_edges(sample, cutoff, device)
    share = len(sample.numbers) / max(1, len(frames.numbers))
    if held.nbytes > share * (_most_bytes(device) if most is None else most):
        return OnTheFlyEdges(frames, cutoff, held.index.shape[1] / len(sample.numbers), device)
    return held if len(sample) == len(frames) else precompute_edges(frames, cutoff, device)


def precompute_edges(
    frames: Frames, cutoff: float, device: torch.device | str = "cpu"
) -> PrecomputedEdges:
    """The neighbours in all frames, in memory."""
    pairs, shifts = neighbor_lists(frames.positions, frames.offsets, frames.cells, cutoff)
    offsets = np.cumsum([0, *map(len, shifts)])
    index = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device)
    pairs.clear()  # Large sets should not be in memory thrice.
    shift = torch.from_numpy(np.concatenate(shifts)).to(device)
    return PrecomputedEdges(index, shift, RaggedIndex(torch.from_numpy(offsets).to(device)))


def _most_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return MOST_EDGE_BYTES
    return torch.cuda.mem_get_info(device)[0] // 4
