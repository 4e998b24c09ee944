"""The baseline: the three models and stages as one writes them from papers and tutorials.

Edges are `MessagePassing` with networks on concatenated inputs, forces are
`torch.autograd.grad(..., create_graph=True)`, neighbours are found with torch in every step,
samples are corrupted one by one in Python, and a `DataLoader` collates `Data`. The mathematics is
that of `study.models` at its default settings; nothing of `study` computes here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MessagePassing, global_add_pool

RADII = {1: 0.32, 8: 0.63}
"""Å, covalent."""


def neighbours(
    positions: Tensor, cell: Tensor, cutoff: float, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Pairs within the cutoff by the matrix of all minimum-image distances.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; at least two cutoffs wide.
        cutoff: Å.
        most: neighbours to keep per atom, the nearest.

    Returns:
        edge_index (2, E), source then target, and the shift (E, 3) Å of the target.
    """
    vectors = positions[None] - positions[:, None]
    shift = -torch.round(vectors @ torch.linalg.inv(cell)) @ cell
    distance = (vectors + shift).norm(dim=-1).fill_diagonal_(math.inf)
    close = distance < cutoff
    if most is not None and int(close.sum(0).max()) > most:
        furthest = distance.kthvalue(most, dim=0).values
        close &= distance <= furthest
    source, target = close.nonzero().T
    return torch.stack([source, target]), shift[source, target]


def connect(batch: Batch, cutoff: float, most: int | None = None) -> Batch:
    """The batch with `edge_index` and `shift`, found frame by frame."""
    edges, shifts = [], []
    for number, first in enumerate(batch.ptr[:-1].tolist()):
        here = slice(first, int(batch.ptr[number + 1]))
        found, shift = neighbours(batch.pos[here], batch.cell[number], cutoff, most)
        edges.append(found + first)
        shifts.append(shift)
    batch.edge_index, batch.shift = torch.cat(edges, dim=1), torch.cat(shifts)
    return batch


def length(vectors: Tensor) -> Tensor:
    """(E, 1) of (E, 3)."""
    return (vectors.pow(2).sum(-1, keepdim=True) + 1e-12).sqrt()


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """(E, 1) 1 − 28 x⁶ + 48 x⁷ − 21 x⁸, x = r/c (arXiv:2003.03123, eq. 8, p = 6)."""
    x = (distance / cutoff).clamp(max=1)
    return 1 - 28 * x.pow(6) + 48 * x.pow(7) - 21 * x.pow(8)


class Embedding(nn.Module):
    """A vector per element, plus one for masked and unmasked atoms where there are any."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.species, self.mask = nn.Embedding(119, hidden), nn.Embedding(2, hidden)

    def forward(self, batch: Batch) -> Tensor:
        species = self.species(batch.z)
        return species + self.mask(batch.masked) if "masked" in batch else species


class EGNNLayer(MessagePassing):
    """Equations 3–6 of arXiv:2102.09844."""

    def __init__(self, hidden: int, basis: int, cutoff: float) -> None:
        super().__init__(aggr="sum")
        self.hidden, self.basis, self.cutoff = hidden, basis, cutoff
        self.edge = nn.Sequential(
            nn.Linear(2 * hidden + basis, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.coordinate = nn.Sequential(
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1, bias=False)
        )
        self.node = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )

    def forward(
        self, h: Tensor, x: Tensor, batch: Batch, weight: Tensor, degree: Tensor
    ) -> tuple[Tensor, Tensor]:
        received = self.propagate(batch.edge_index, h=h, x=x, shift=batch.shift, weight=weight)
        messages, pull = received.split([self.hidden, 3], dim=-1)
        return h + self.node(torch.cat([h, messages], dim=-1)), x + pull / degree

    def message(
        self, h_i: Tensor, h_j: Tensor, x_i: Tensor, x_j: Tensor, shift: Tensor, weight: Tensor
    ) -> Tensor:
        vector = x_i - x_j + shift
        distance = length(vector)
        order = torch.arange(1, self.basis + 1, dtype=distance.dtype, device=distance.device)
        waves = torch.sin(order * math.pi * distance / self.cutoff) / distance
        radial = math.sqrt(2 / self.cutoff) * waves
        message = weight * self.edge(torch.cat([h_i, h_j, radial], dim=-1))
        pull = -vector / (distance + 1) * self.coordinate(message) * weight
        return torch.cat([message, pull], dim=-1)


class EGNN(nn.Module):
    """Energies of atoms summed, forces and pretext vectors by autograd."""

    def __init__(self, hidden: int = 128, layers: int = 5, basis: int = 16, cutoff: float = 3.4):
        super().__init__()
        self.cutoff, self.most = cutoff, None
        self.embedding = Embedding(hidden)
        self.layers = nn.ModuleList(EGNNLayer(hidden, basis, cutoff) for _ in range(layers))
        self.readout = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(G,) energies and (N, 3) vectors."""
        x = start = batch.pos.requires_grad_()
        source, target = batch.edge_index
        weight = envelope(length(x[target] - x[source] + batch.shift), self.cutoff)
        degree = torch.zeros_like(x[:, :1]).index_add(0, target, weight) + 1
        h = self.embedding(batch)
        for layer in self.layers:
            h, x = layer(h, x, batch, weight, degree)
        energy = global_add_pool(self.readout(h), batch.batch).squeeze(-1)
        gradient = torch.autograd.grad(energy.sum(), start, create_graph=True)[0]
        return energy, -gradient


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class GNSLayer(MessagePassing):
    """An interaction network (arXiv:2002.09405)."""

    def __init__(self, hidden: int) -> None:
        super().__init__(aggr="sum")
        self.edge = nn.Sequential(mlp(3 * hidden, hidden, hidden), nn.LayerNorm(hidden))
        self.node = nn.Sequential(mlp(2 * hidden, hidden, hidden), nn.LayerNorm(hidden))

    def forward(
        self, h: Tensor, e: Tensor, edge_index: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        told = self.edge_updater(edge_index, h=h, e=e)
        received = self.propagate(edge_index, told=told, weight=weight)
        return h + self.node(torch.cat([h, received], dim=-1)), e + told

    def edge_update(self, h_i: Tensor, h_j: Tensor, e: Tensor) -> Tensor:
        return self.edge(torch.cat([h_i, h_j, e], dim=-1))

    def message(self, told: Tensor, weight: Tensor) -> Tensor:
        return weight * told


class GNS(nn.Module):
    """Encode, process, decode."""

    def __init__(self, hidden: int = 128, layers: int = 10, cutoff: float = 3.4) -> None:
        super().__init__()
        self.cutoff, self.most = cutoff, None
        self.embedding = Embedding(hidden)
        self.encode_node = nn.Sequential(mlp(hidden, hidden, hidden), nn.LayerNorm(hidden))
        self.encode_edge = nn.Sequential(mlp(4, hidden, hidden), nn.LayerNorm(hidden))
        self.layers = nn.ModuleList(GNSLayer(hidden) for _ in range(layers))
        self.readout, self.vector_readout = mlp(hidden, hidden, 1), mlp(hidden, hidden, 3)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(G,) energies and (N, 3) vectors."""
        source, target = batch.edge_index
        vectors = batch.pos[target] - batch.pos[source] + batch.shift
        distance = length(vectors)
        weight = envelope(distance, self.cutoff)
        h = self.encode_node(self.embedding(batch))
        e = self.encode_edge(torch.cat([vectors, distance], dim=-1) / self.cutoff)
        for layer in self.layers:
            h, e = layer(h, e, batch.edge_index, weight)
        energy = global_add_pool(self.readout(h), batch.batch).squeeze(-1)
        return energy, self.vector_readout(h)


def decoder(hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer with batch normalization."""
    return nn.Sequential(
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


class ForceNetLayer(MessagePassing):
    """A convolution whose filter depends on edge, source and target (arXiv:2103.01436)."""

    def __init__(self, hidden: int, basis: int) -> None:
        super().__init__(aggr="sum")
        self.filter = nn.Sequential(
            nn.Linear(2 * hidden + basis, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
        )
        self.value = nn.Linear(hidden, hidden)
        self.own = nn.Parameter(torch.ones(1, hidden))
        self.node = decoder(hidden, hidden)

    def forward(self, h: Tensor, edge_index: Tensor, basis: Tensor, weight: Tensor) -> Tensor:
        value = self.value(h)
        received = self.propagate(edge_index, h=h, value=value, basis=basis, weight=weight)
        return h + self.node(self.own * value + received)

    def message(
        self, h_i: Tensor, h_j: Tensor, value_j: Tensor, basis: Tensor, weight: Tensor
    ) -> Tensor:
        return weight * self.filter(torch.cat([h_i, h_j, basis], dim=-1)) * value_j


class ForceNet(nn.Module):
    """Continuous-filter convolutions on spherical harmonics times sines."""

    radii: Tensor

    def __init__(
        self, hidden: int = 128, layers: int = 5, frequencies: int = 50, cutoff: float = 3.4
    ) -> None:
        super().__init__()
        self.cutoff, self.most, self.frequencies = cutoff, 50, frequencies
        radii = torch.zeros(9)
        radii[list(RADII)] = torch.tensor(list(RADII.values()))
        self.register_buffer("radii", radii, persistent=False)
        self.embedding = Embedding(hidden)
        self.mix = nn.Linear(4 * frequencies, 4)
        self.layers = nn.ModuleList(ForceNetLayer(hidden, 36) for _ in range(layers))
        self.output = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU())
        self.readout = nn.Linear(hidden, 1)
        self.vector_readout = decoder(hidden, 3)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(G,) energies and (N, 3) vectors."""
        source, target = batch.edge_index
        vectors = batch.pos[target] - batch.pos[source] + batch.shift
        distance = length(vectors)
        weight = envelope(distance, self.cutoff)
        basis = self._basis(vectors / distance, distance, batch.z[source], batch.z[target])
        h = self.embedding(batch)
        for layer in self.layers:
            h = layer(h, batch.edge_index, basis, weight)
        h = self.output(h)
        energy = global_add_pool(self.readout(h), batch.batch).squeeze(-1)
        return energy, self.vector_readout(h)

    def _basis(self, unit: Tensor, distance: Tensor, z_j: Tensor, z_i: Tensor) -> Tensor:
        """(E, 36) four mixed sines times nine harmonics."""
        a, b = self.radii[z_j][:, None], self.radii[z_i][:, None]
        lengths = torch.cat([distance, distance - a, distance - b, distance - a - b], dim=-1)
        power = torch.arange(self.frequencies, dtype=distance.dtype, device=distance.device)
        waves = torch.sin(lengths[..., None] / self.cutoff * 1.1**power)
        radial = self.mix(waves.flatten(1))
        return (radial[:, :, None] * harmonics(unit)[:, None]).flatten(1)


def harmonics(unit: Tensor) -> Tensor:
    """(E, 9) real spherical harmonics of (E, 3) unit vectors up to l = 2."""
    x, y, z = unit.unbind(-1)
    s, p = math.sqrt(1 / (4 * math.pi)), math.sqrt(3 / (4 * math.pi))
    d = math.sqrt(15 / (4 * math.pi))
    quadratic = [d * x * y, d * y * z, d / math.sqrt(12) * (3 * z * z - 1)]
    quadratic += [d * x * z, d / 2 * (x * x - y * y)]
    return torch.stack([torch.full_like(x, s), p * y, p * z, p * x, *quadratic], dim=-1)


MODELS: dict[str, Callable[..., nn.Module]] = {"egnn": EGNN, "gns": GNS, "forcenet": ForceNet}


def hide(frame: Data, molecules: list[int], coins: list[int]) -> Data:
    """A frame in which each of some molecules has lost its first (0) or second (1) hydrogen.

    Molecules are taken for O, H, H in a row. `points_index` (K,), a name that torch-geometric
    counts on from graph to graph, are the atoms that must point, along `direction` (K, 3).
    """
    hidden, points, directions = set(), [], []
    for molecule, coin in zip(molecules, coins, strict=True):
        oxygen = 3 * molecule
        gone, kept = oxygen + 1 + coin, oxygen + 2 - coin
        hidden.add(gone)
        for atom in (oxygen, kept):
            vector = frame.pos[gone] - frame.pos[atom]
            cell = frame.cell[0]
            vector = vector - torch.round(vector @ torch.linalg.inv(cell)) @ cell
            points.append(atom)
            directions.append(vector / vector.norm())
    left = [atom for atom in range(len(frame.z)) if atom not in hidden]
    place = {atom: new for new, atom in enumerate(left)}
    masked = torch.zeros(len(left), dtype=torch.long)
    masked[[place[atom] for atom in points]] = 1
    return Data(
        z=frame.z[left],
        pos=frame.pos[left],
        cell=frame.cell,
        masked=masked,
        points_index=torch.tensor([place[atom] for atom in points]),
        direction=torch.stack(directions),
    )


class Frames(torch.utils.data.Dataset[Data]):
    """Labelled frames, corrupted when they are asked for.

    Args:
        frames: `Data` with z, pos, cell (1, 3, 3), energy, force, masked.
        stage: masking, denoising or energy_forces, both of the former at 0.5.
    """

    def __init__(self, frames: list[Data], stage: str) -> None:
        self.frames, self.stage = frames, stage

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Data:
        frame = self.frames[index]
        if self.stage == "masking":
            count = len(frame.z) // 3
            molecules = random.sample(range(count), int(0.5 * count))
            return hide(frame, molecules, [random.randint(0, 1) for _ in molecules])
        if self.stage == "denoising":
            noise = torch.randn_like(frame.pos)
            noisy = frame.clone()
            noisy.pos, noisy.target = frame.pos + 0.5 * noise, -noise
            del noisy.masked
            return noisy
        return frame.clone()


def loss(model: nn.Module, batch: Batch, stage: str, units: tuple[float, float]) -> Tensor:
    """Of a connected batch.

    Args:
        model: one of `MODELS`.
        batch: as `Frames` gives it, energies about their mean per atom.
        stage: which loss.
        units: standard deviation of frames' energies (eV) and root mean square force (eV/Å); the
            network puts out energies and forces in units of the latter.
    """
    energy, vectors = model(batch)
    if stage == "masking":
        pointing = vectors[batch.points_index]
        return 1 - cosine_similarity(pointing, batch.direction, dim=-1).mean()
    if stage == "denoising":
        return mse_loss(vectors, batch.target)
    spread, rms = units
    return 0.001 * mse_loss(energy * rms / spread, batch.energy / spread) + mse_loss(
        vectors, batch.force / rms
    )
