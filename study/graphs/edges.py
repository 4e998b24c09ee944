"""Edges of all frames, precomputed in memory or built per batch if they do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.datasets.frames import Frames
from study.datasets.parsing.array_files import DerivedArrays, GrowingArray
from study.datasets.sizes import MOST_EDGE_BYTES, STORED_EDGE_BYTES
from study.graphs.neighbor_list import neighbor_lists

SAMPLE_FRAMES = 64
"""Frames whose edges are counted to estimate the number of all edges."""
MANY_MOLECULES = 50_000
"""Frames from which the edges of all would take a second and more before the first step."""
ATOMS_AT_ONCE = 200_000
"""Atoms whose edges are in memory while those of a large set are found."""


@dataclass(frozen=True)
class RaggedIndex:
    """CSR-style row offsets: rows of owner i are offsets[i] to offsets[i + 1] − 1.

    Args:
        offsets: (owners + 1,) first row of each owner, then the number of all rows.
    """

    offsets: Tensor

    @classmethod
    def from_sizes(cls, sizes: Tensor) -> RaggedIndex:
        """Build the index from the (owners,) number of rows of each owner."""
        return cls(torch.cat([sizes.new_zeros(1), torch.cumsum(sizes, 0)]))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of rows (owners,) of each owner, on the CPU, so that reading it does not sync."""
        counts: NDArray[np.int64] = self.offsets.cpu().diff().numpy()
        return counts

    def count(self, owners: Tensor) -> int:
        """Total number of rows of the given owners."""
        return int(self.counts[owners.cpu().numpy()].sum())

    def sizes(self, owners: Tensor) -> Tensor:
        """Number of rows (M,) of each given owner, on the device of the offsets."""
        owners = owners.to(self.offsets.device, non_blocking=True)
        return self.offsets[owners + 1] - self.offsets[owners]

    def rows(self, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the given owners in order, and for each row the position of its owner.

        Args:
            owners: (M,) owner indices; on the CPU they cause no GPU synchronization.

        Returns:
            (R,) row indices and (R,) positions in `owners`, both on the device of the offsets.
        """
        count = self.count(owners)
        owners = owners.to(self.offsets.device, non_blocking=True)
        starts, sizes = self.offsets[owners], self.sizes(owners)
        place = torch.repeat_interleave(sizes, output_size=count)
        first = torch.cumsum(sizes, 0) - sizes
        return torch.arange(len(place), device=place.device) + (starts - first)[place], place


class Edges(Protocol):
    """Directed edges between neighbouring atoms, by frame."""

    def gather(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Concatenate the edges of the given frames.

        Args:
            frames: (G,) frame indices, preferably on the CPU.

        Returns:
            edge_index (2, E) source and target, counted from the frame's first atom; (E, 3)
            integer lattice translations of the target; (E,) position of the frame in `frames`.
        """

    def count(self, frames: Tensor) -> int:
        """Number of edges of the given frames; an estimate if they are built per batch."""


@dataclass(frozen=True)
class PrecomputedEdges:
    """Edges of all frames, held in memory or mapped from a file.

    Args:
        source: (ΣE,) source atoms, counted from the frame's first atom.
        target: (ΣE,) target atoms, counted likewise.
        shift: (ΣE, 3) lattice translations of the target; one row where no frame repeats.
        rows: of all three, by frame.
    """

    source: Tensor
    target: Tensor
    shift: Tensor
    rows: RaggedIndex

    @property
    def nbytes(self) -> int:
        """Bytes that the edges take in memory."""
        return self.source.nbytes + self.target.nbytes + self.shift.nbytes

    def gather(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Concatenate the edges of the given frames; see `Edges.gather`."""
        rows, place = self.rows.rows(frames)
        index = torch.stack([self.source[rows], self.target[rows]])
        if len(self.shift) == 1:
            return index, self.shift.expand(len(rows), 3), place
        return index, self.shift[rows], place

    def count(self, frames: Tensor) -> int:
        """Exact number of edges of the given frames."""
        return self.rows.count(frames)


@dataclass(frozen=True)
class OnTheFlyEdges:
    """Edges built on the CPU for each batch, equal to the precomputed ones.

    Args:
        source: all frames.
        cutoff: Å.
        per_atom: mean number of edges per atom, estimated from a sample of frames.
        device: where `gather` returns its tensors.
    """

    source: Frames
    cutoff: float
    per_atom: float
    device: torch.device

    def gather(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Build the edges of the given frames; see `Edges.gather`."""
        some, source = frames.cpu().numpy(), self.source
        atoms, offsets = source.atoms(some)
        index, shift, counts = neighbor_lists(
            source.positions[atoms], offsets, source.lattices[some], self.cutoff
        )
        found = index, shift, np.repeat(np.arange(len(some)), counts)
        pairs, lattice, place = (torch.from_numpy(each).to(self.device) for each in found)
        return pairs, lattice, place

    def count(self, frames: Tensor) -> int:
        """Estimated number of edges of the given frames."""
        return round(self.per_atom * int(self.source.sizes[frames.cpu().numpy()].sum()))


def connect_frames(
    frames: Frames,
    cutoff: float,
    device: torch.device,
    max_bytes: int | None = None,
    store: DerivedArrays | None = None,
) -> Edges:
    """Precompute the edges of all frames if they fit into memory, else build them per batch.

    Those of many molecules are built per batch on a CPU, too: that takes 20 µs a frame of 18 atoms,
    one percent of a step, and finding those of a million frames first would take 25 s.

    Args:
        frames: the data set.
        cutoff: Å.
        device: where batches are needed.
        max_bytes: memory limit of precomputed edges; default: `MOST_EDGE_BYTES`, on a GPU a
            quarter of its free memory.
        store: of the data set, where many edges are kept for all processes.
    """
    evenly_spaced = np.linspace(0, len(frames) - 1, min(SAMPLE_FRAMES, len(frames))).astype(
        np.int64
    )
    sample = frames.select(evenly_spaced)
    precomputed = precompute_edges(sample, cutoff, device)
    fraction = len(sample.numbers) / max(1, len(frames.numbers))
    per_atom = len(precomputed.source) / len(sample.numbers)
    on_the_fly = OnTheFlyEdges(frames, cutoff, per_atom, device)
    if precomputed.nbytes > fraction * (_max_bytes(device) if max_bytes is None else max_bytes):
        return on_the_fly
    if len(sample) == len(frames):
        return precomputed
    if device.type == "cpu" and len(frames) >= MANY_MOLECULES and frames.isolated.all():
        return on_the_fly
    if store is None or precomputed.nbytes < fraction * STORED_EDGE_BYTES:
        return precompute_edges(frames, cutoff, device)
    return _stored_edges(frames, cutoff, device, store)


def precompute_edges(
    frames: Frames, cutoff: float, device: torch.device | str = "cpu"
) -> PrecomputedEdges:
    """Build the edges of all frames and move them to `device`."""
    index, shift, counts = neighbor_lists(frames.positions, frames.offsets, frames.lattices, cutoff)
    small, repeats = _storage(frames)
    source, target = (torch.from_numpy(each.astype(small, copy=False)) for each in index)
    shifts = torch.from_numpy(shift if repeats else np.zeros((1, 3), np.int16))
    return PrecomputedEdges(
        source.to(device),
        target.to(device),
        shifts.to(device),
        RaggedIndex.from_sizes(torch.from_numpy(counts).to(device)),
    )


def _storage(frames: Frames) -> tuple[type[np.integer[Any]], bool]:
    """Type of the atoms of edges, and whether these have translations: no molecule has any."""
    if frames.isolated.all():
        return (np.uint8 if frames.sizes.max() <= 256 else np.int32), False
    return np.int32, True


def _stored_edges(
    frames: Frames, cutoff: float, device: torch.device, store: DerivedArrays
) -> PrecomputedEdges:
    """Edges beside the frames, found by the first process that needs them and mapped by all."""
    arrays = store.once("edges", [cutoff], partial(_write_edges, frames, cutoff))
    source, target, shift, offsets = (
        torch.from_numpy(arrays[name]).to(device)
        for name in ("source", "target", "shift", "offsets")
    )
    return PrecomputedEdges(source, target, shift, RaggedIndex(offsets))


def _write_edges(frames: Frames, cutoff: float, folder: Path) -> None:
    """Find the edges of some frames after the other, and append them to files."""
    (small, repeats), counts = _storage(frames), [np.zeros(1, np.int64)]
    source, target = (GrowingArray(folder / f"{name}.npy", small) for name in ("source", "target"))
    shift = GrowingArray(folder / "shift.npy", np.int16, (3,))
    for chunk in np.array_split(np.arange(len(frames)), 1 + len(frames.numbers) // ATOMS_AT_ONCE):
        some = frames.select(chunk)
        index, moved, number = neighbor_lists(some.positions, some.offsets, some.lattices, cutoff)
        source.append(index[0])
        target.append(index[1])
        counts.append(number)
        if repeats:
            shift.append(moved)
    if not repeats:
        shift.append(np.zeros((1, 3)))
    for each in (source, target, shift):
        each.close()
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(counts)))


def _max_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return MOST_EDGE_BYTES
    return torch.cuda.mem_get_info(device)[0] // 4
