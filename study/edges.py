"""The neighbours in all frames: held in memory, or found for every batch if they are too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from study.frames import Frames
from study.neighbors import neighbor_list
from study.sizes import EDGE_BYTES, MOST_EDGE_BYTES

SAMPLE = 64
"""Frames from which edges are estimated before there are any."""


@dataclass(frozen=True)
class Ragged:
    """Rows of several owners, one owner after the other.

    Args:
        offsets: (owners + 1,) first row of each owner, then the number of all rows.
    """

    offsets: Tensor

    def rows(self, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the chosen owners in order, and for each row its place in `owners`."""
        starts, sizes = self.offsets[owners], self.offsets[owners + 1] - self.offsets[owners]
        place = torch.repeat_interleave(sizes)
        first = torch.cumsum(sizes, 0) - sizes
        return torch.arange(len(place), device=place.device) + (starts - first)[place], place


class Edges(Protocol):
    """Pairs of neighbours, by frame."""

    def of(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the chosen frames, one frame after the other.

        Args:
            frames: (G,) indices.

        Returns:
            edge_index (2, E) source and target, counted from the frame's first atom; (E, 3)
            lattice translations of the target, whole numbers; (E,) places of frames in `frames`.
        """

    def count(self, frames: Tensor) -> int:
        """How many the chosen frames have, about, where that is not known."""


@dataclass(frozen=True)
class HeldEdges:
    """Edges in memory.

    Args:
        index: (2, ΣE) source and target, counted from the frame's first atom.
        shift: (ΣE, 3) lattice translations of the target.
        rows: of both, by frame.
    """

    index: Tensor
    shift: Tensor
    rows: Ragged

    def of(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Edges`."""
        rows, place = self.rows.rows(frames)
        return self.index[:, rows], self.shift[rows], place

    def count(self, frames: Tensor) -> int:
        """See `Edges`."""
        return int(self.rows.offsets.diff()[frames].sum())


@dataclass(frozen=True)
class FoundEdges:
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
        held = held_edges(self.source.select(frames.cpu().numpy()), self.cutoff, self.device)
        return held.index, held.shift, torch.repeat_interleave(held.rows.offsets.diff())

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
        most: bytes that they may take; default: `MOST_EDGE_BYTES`, on a GPU a quarter of its own.
    """
    spread = np.linspace(0, len(frames) - 1, min(SAMPLE, len(frames))).astype(np.int64)
    sample = frames.select(spread)
    per_atom = held_edges(sample, cutoff).index.shape[1] / len(sample.numbers)
    if EDGE_BYTES * per_atom * len(frames.numbers) > (
        _most_bytes(device) if most is None else most
    ):
        return FoundEdges(frames, cutoff, per_atom, device)
    return held_edges(frames, cutoff, device)


def held_edges(frames: Frames, cutoff: float, device: torch.device | str = "cpu") -> HeldEdges:
    """The neighbours in all frames, in memory."""
    pairs, shifts = [], []
    for first, last, cell in zip(
        frames.offsets[:-1], frames.offsets[1:], frames.cells, strict=True
    ):
        found, translations = neighbor_list(frames.positions[first:last], cell, cutoff)
        pairs.append(found)
        shifts.append(translations)
    offsets = np.cumsum([0, *map(len, shifts)])
    index = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device)
    pairs.clear()  # Large sets should not be in memory thrice.
    shift = torch.from_numpy(np.concatenate(shifts)).to(device)
    return HeldEdges(index, shift, Ragged(torch.from_numpy(offsets).to(device)))


def _most_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return MOST_EDGE_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory) // 4
