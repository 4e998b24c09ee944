"""Data sets as graphs: flat tensors on one device, from which batches are gathered by index.

A batch is a torch-geometric `Batch` with the names of its molecular data sets: `z`, `pos`,
`edge_index`, `energy`, `force`. Two names are our own: `shift` (E, 3) Å, the lattice translation of
the target of each edge, and `masked` (N,), 1 for atoms that a pretext task has marked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from study.datasets.frames import Frames
from study.datasets.parsing.array_files import DerivedArrays, request_rows
from study.datasets.sizes import STORED_ATOMS
from study.graphs.edges import ATOMS_AT_ONCE, Edges, RaggedIndex, connect_frames
from study.graphs.neighbor_list import dense_neighbors, neighbor_lists

EVALUATED_ATOMS, EVALUATED_ATOMS_ON_GPU = 800, 16_000
"""Atoms of a batch in validation and tests, if batches of training are smaller. On a core, EGNN of
32 features takes 2.7 ms for a frame of 96 atoms with 8 in a batch, 4.2 with 2, 2.6 with 40."""


def edge_vectors(graph: Data, positions: Tensor) -> Tensor:
    """Vectors from source to target atom under periodic boundary conditions.

    Args:
        graph: has `edge_index` (2, E) and `shift` (E, 3) Å.
        positions: (N, 3) Å; the result is differentiable with respect to them.

    Returns:
        (E, 3) Å.
    """
    source, target = graph.edge_index
    return gather_rows(positions, target) - gather_rows(positions, source) + graph.shift


def nearest_images(graph: Data, vectors: Tensor) -> Tensor:
    """Vectors less the multiples of lattice vectors that make them shortest, one after the other.

    In orthorhombic cells these are the minimum images.

    Args:
        graph: has `edge_index` (2, E), `batch` (N,) and `cell` (G, 3, 3) Å.
        vectors: (E, 3) Å; gradients pass unchanged.

    Returns:
        (E, 3) Å.
    """
    cells = gather_rows(graph.cell, gather_rows(graph.batch, graph.edge_index[1]))
    for lattice in cells.unbind(1):
        # Directions that do not repeat have lattice vectors of zeros.
        square = lattice.square().sum(dim=-1, keepdim=True).clamp(min=1e-12)
        along = (vectors.detach() * lattice).sum(dim=-1, keepdim=True) / square
        vectors = vectors - torch.round(along) * lattice
    return vectors


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Select rows, (E, …) = `values[index]`, with a deterministic gradient.

    The gradient of plain indexing sums in an undefined order, and with several threads takes
    twenty times as long; that of `index_select` always sums in the same order.
    """
    return values.index_select(0, index)


@dataclass(frozen=True)
class GraphSet:
    """Every frame of a data set with its neighbours, as flat tensors on one device.

    On the CPU, tensors that are mapped from files have the type that is stored, and their rows are
    converted when they are gathered: all processes of a machine share one copy.

    Args:
        z: (ΣN,) atomic numbers.
        pos: (ΣN, 3) Å.
        force: (ΣN, 3) eV/Å.
        energy: (frames,) total energies, eV, float64.
        cell: (frames, 3, 3) Å, rows are lattice vectors, zero where a frame does not repeat.
        atoms: rows of `z`, `pos`, `force` by frame.
        edges: neighbours by frame.
        cutoff: Å.
        dtype: of the positions, forces, stresses and cells that are gathered.
        properties: (frames,) float64 each, by name, in the units of `PROPERTIES`.
        stress: (frames, 3, 3) eV/Å³, NaN of frames without one; none if no frame has one.
        store: of a large set, where what follows from its frames is kept for all processes.
        files: of a large set, the arrays of atoms that are mapped.
    """

    z: Tensor
    pos: Tensor
    force: Tensor
    energy: Tensor
    cell: Tensor
    atoms: RaggedIndex
    edges: Edges
    cutoff: float
    dtype: torch.dtype = torch.float32
    properties: dict[str, Tensor] = field(default_factory=dict)
    stress: Tensor | None = None
    store: DerivedArrays | None = None
    files: tuple[NDArray[np.float64], ...] = ()

    @classmethod
    def build(
        cls,
        frames: Frames,
        cutoff: float,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        max_edge_bytes: int | None = None,
        store: DerivedArrays | None = None,
    ) -> GraphSet:
        """Build the neighbour lists of all frames and move everything to `device`.

        Args:
            frames: the data set.
            cutoff: Å.
            dtype: of positions, forces, stresses and cells; energies stay float64.
            device: torch device.
            max_edge_bytes: memory limit of precomputed edges; see `connect_frames`.
            store: of the frames, where large sets keep what takes long to find, for all processes.
        """
        tensor, stresses = partial(_tensor, device=device), frames.stresses
        large = store if len(frames.numbers) >= STORED_ATOMS else None
        nowhere = torch.zeros((1, 3, 3), dtype=dtype, device=device).expand(len(frames), 3, 3)
        return cls(
            z=tensor(frames.numbers, torch.long),
            pos=tensor(frames.positions, dtype),
            force=tensor(frames.forces, dtype),
            energy=tensor(frames.energies),
            cell=tensor(frames.lattices, dtype) if frames.pbc.any() else nowhere,
            atoms=RaggedIndex(tensor(frames.offsets)),
            edges=connect_frames(frames, cutoff, torch.device(device), max_edge_bytes, store),
            cutoff=cutoff,
            dtype=dtype,
            properties={name: tensor(values) for name, values in frames.properties.items()},
            stress=None if stresses is None else tensor(stresses, dtype),
            store=large,
            files=(frames.positions, frames.forces) if large and device == "cpu" else (),
        )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.energy)

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.pos.device

    def pieces(self, frames: Tensor) -> int:
        """In how many parts many atoms are looked at, so that these take little memory."""
        atoms = self.atoms.count(frames)
        return 1 if atoms < STORED_ATOMS else 1 + atoms // ATOMS_AT_ONCE

    def evaluation_batches(self, frames: Tensor, batch_size: int) -> list[Tensor]:
        """Split frames into batches to evaluate a model on, without second derivatives.

        Small batches cost launches; those of training may be small for the sake of the steps.

        Args:
            frames: (M,) frame indices.
            batch_size: frames of a training step, which is the least.
        """
        atoms = self.atoms.count(frames) / max(1, len(frames))
        wanted = EVALUATED_ATOMS if self.device.type == "cpu" else EVALUATED_ATOMS_ON_GPU
        return list(frames.split(max(batch_size, int(wanted / max(1, atoms)))))

    def gather(self, frames: Tensor) -> Batch:
        """Collate the given frames into one batch.

        Args:
            frames: (G,) frame indices; on the CPU they cause no GPU synchronization.
        """
        batch = self.gather_atoms(frames)
        pairs, lattice, place = self.edges.gather(frames)
        batch.edge_index = pairs.long() + batch.ptr[place]
        if self.cell.stride(0) == 0:
            # No frame repeats: all share one cell, which is zero.
            batch.shift = batch.pos.new_zeros(len(place), 3)
            return batch
        translations = lattice.to(self.dtype)
        batch.shift = torch.einsum("ei,eij->ej", translations, batch.cell[place])
        return batch

    def gather_atoms(self, frames: Tensor) -> Batch:
        """Collate the given frames into one batch without edges."""
        if self.files:
            bounds = self.atoms.offsets[torch.stack([frames, frames + 1], dim=1)]
            request_rows(self.files, bounds.tolist())
        atoms, batch = self.atoms.rows(frames)
        frames = frames.to(self.device, non_blocking=True)
        sizes = self.atoms.sizes(frames)
        ptr = RaggedIndex.from_sizes(sizes).offsets
        return Batch(
            z=self.z[atoms].long(),
            pos=self.pos[atoms].to(self.dtype),
            cell=self.cell[frames].to(self.dtype),
            batch=batch,
            ptr=ptr,
            energy=self.energy[frames],
            force=self.force[atoms].to(self.dtype),
        )

    def stresses(self, frames: Tensor) -> Tensor:
        """Stresses (G, 3, 3) eV/Å³ of the given frames of a set that has some."""
        assert self.stress is not None
        return self.stress[frames.to(self.device)].to(self.dtype)


def _tensor(values: NDArray[Any], dtype: torch.dtype | None = None, *, device: str) -> Tensor:
    """A tensor of an array; on the CPU one that is mapped from a file stays there, in its type."""
    if device == "cpu" and isinstance(values.base, np.memmap):
        return torch.from_numpy(values)
    return torch.tensor(values, dtype=dtype).to(device)


def connect(graph: Batch, cutoff: float) -> tuple[Tensor, Tensor]:
    """Rebuild the neighbour list of a batch at its current positions.

    On a GPU it is built there if `dense_neighbors` applies, else on the CPU.

    Returns:
        edge_index (2, E) and shift (E, 3) Å, as in the batch.
    """
    neighbors = None
    if graph.pos.device.type != "cpu":
        neighbors = dense_neighbors(graph.pos.detach(), graph.ptr, graph.cell, cutoff)
    edge_index, lattice = neighbors or _connect_on_cpu(graph, cutoff)
    cells = graph.cell[graph.batch[edge_index[1]]].double()
    shift = torch.einsum("ei,eij->ej", lattice.double(), cells)
    return edge_index, shift.to(graph.pos.dtype)


def _connect_on_cpu(graph: Batch, cutoff: float) -> tuple[Tensor, Tensor]:
    """Build edge_index (2, E) and lattice translations (E, 3) frame by frame on the CPU."""
    positions, cells = (each.detach().cpu().double().numpy() for each in (graph.pos, graph.cell))
    ptr = graph.ptr.cpu().numpy()
    pairs, shifts, counts = neighbor_lists(positions, ptr, cells, cutoff)
    edge_index = pairs + np.repeat(ptr[:-1], counts)
    device = graph.pos.device
    return torch.tensor(edge_index, device=device), torch.tensor(shifts, device=device)


def index_tensor(frames: NDArray[np.int64]) -> Tensor:
    """Convert (M,) frame numbers to an int64 index tensor on the CPU."""
    return torch.as_tensor(frames, dtype=torch.long)
