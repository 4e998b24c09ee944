"""Frames as graphs: flat tensors on one device, from which batches are gathered by index.

A batch is a torch-geometric `Batch` with the names of its molecular data sets: `z`, `pos`,
`edge_index`, `energy`, `force`. Two names are ours: `shift`, the lattice translation of every
edge's target, and `masked`, which atoms a pretext task has marked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from study.datasets.frames import Frames
from study.graphs.edges import Edges, RaggedIndex, connect_frames
from study.graphs.neighbor_list import dense_neighbors, neighbor_lists


def edge_vectors(graph: Data, positions: Tensor) -> Tensor:
    """(E, 3) Å, from source to target atom; differentiable with respect to `positions`."""
    source, target = graph.edge_index
    return gather_rows(positions, target) - gather_rows(positions, source) + graph.shift


def gather_rows(values: Tensor, chosen: Tensor) -> Tensor:
    """(E, …) `values[chosen]`.

    The gradient of plain indexing adds up in any order, with several threads twenty times slower;
    that of `index_select` in the same order always.
    """
    return values.index_select(0, chosen)


@dataclass(frozen=True)
class GraphSet:
    """Every frame of a data set with its neighbours, as flat tensors on one device.

    Args:
        z: (ΣN,) atomic numbers.
        pos: (ΣN, 3) Å.
        force: (ΣN, 3) eV/Å.
        energy: (frames,) total energies, eV, float64.
        cell: (frames, 3, 3) Å.
        atoms: rows of `z`, `pos`, `force` by frame.
        edges: neighbours by frame.
        cutoff: Å.
        properties: (frames,) float64 each, by name, in the units of `PROPERTIES`.
    """

    z: Tensor
    pos: Tensor
    force: Tensor
    energy: Tensor
    cell: Tensor
    atoms: RaggedIndex
    edges: Edges
    cutoff: float
    properties: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        frames: Frames,
        cutoff: float,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        max_edge_bytes: int | None = None,
    ) -> GraphSet:
        """Connect every frame and move all to `device`; energies stay float64.

        Args:
            frames: of the set.
            cutoff: Å.
            dtype: of positions, forces and cells.
            device: torch device.
            max_edge_bytes: bytes that neighbours may take in memory; see `connect_frames`.
        """
        real = partial(torch.tensor, dtype=dtype, device=device)
        return cls(
            z=torch.tensor(frames.numbers, dtype=torch.long, device=device),
            pos=real(frames.positions),
            force=real(frames.forces),
            energy=torch.tensor(frames.energies, device=device),
            cell=real(frames.cells),
            atoms=RaggedIndex(torch.tensor(frames.offsets, device=device)),
            edges=connect_frames(frames, cutoff, torch.device(device), max_edge_bytes),
            cutoff=cutoff,
            properties={
                name: torch.tensor(values, device=device)
                for name, values in frames.properties.items()
            },
        )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.energy)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.pos.device

    def gather(self, frames: Tensor) -> Batch:
        """The chosen frames as one batch.

        Args:
            frames: (G,) indices; a GPU is not waited for if they lie on the processor.
        """
        batch = self.gather_atoms(frames)
        pairs, lattice, place = self.edges.of(frames)
        batch.edge_index = pairs.long() + batch.ptr[place]
        translations = lattice.to(self.pos.dtype)
        batch.shift = torch.einsum("ei,eij->ej", translations, batch.cell[place])
        return batch

    def gather_atoms(self, frames: Tensor) -> Batch:
        """The same without edges."""
        atoms, batch = self.atoms.rows(frames)
        frames = frames.to(self.device, non_blocking=True)
        sizes = self.atoms.sizes(frames)
        ptr = RaggedIndex.from_sizes(sizes).offsets
        return Batch(
            z=self.z[atoms],
            pos=self.pos[atoms],
            cell=self.cell[frames],
            batch=batch,
            ptr=ptr,
            energy=self.energy[frames],
            force=self.force[atoms],
        )


def connect(graph: Batch, cutoff: float) -> tuple[Tensor, Tensor]:
    """Neighbours at the batch's present positions, found on its device where that is faster.

    Returns:
        edge_index (2, E) and shift (E, 3) Å, as in the batch.
    """
    found = None
    if graph.pos.device.type == "cuda":
        found = dense_neighbors(graph.pos.detach(), graph.ptr, graph.cell, cutoff)
    edge_index, lattice = found or _connect_each(graph, cutoff)
    cells = graph.cell[graph.batch[edge_index[1]]].double()
    shift = torch.einsum("ei,eij->ej", lattice.double(), cells)
    return edge_index, shift.to(graph.pos.dtype)


def _connect_each(graph: Batch, cutoff: float) -> tuple[Tensor, Tensor]:
    """Frame by frame on the processor: edge_index (2, E), lattice translations (E, 3)."""
    positions, cells = (each.detach().cpu().double().numpy() for each in (graph.pos, graph.cell))
    ptr = graph.ptr.cpu().numpy()
    found, shifts = neighbor_lists(positions, ptr, cells, cutoff)
    pairs = [each + first for each, first in zip(found, ptr[:-1], strict=True)]
    device = graph.pos.device
    edge_index = torch.tensor(np.concatenate(pairs, axis=1), device=device)
    return edge_index, torch.tensor(np.concatenate(shifts), device=device)


def indices(chosen: NDArray[np.int64]) -> Tensor:
    """Frame numbers as an index tensor, on the processor."""
    return torch.as_tensor(chosen, dtype=torch.long)
