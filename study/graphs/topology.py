"""Which atoms belong together: water molecules and bonds, found under periodic boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.core.elements import RADII
from study.core.errors import UserError
from study.graphs.edges import RaggedIndex
from study.graphs.graph_set import GraphSet, edge_vectors

HYDROGEN, OXYGEN = 1, 8

BOND_TOLERANCE = 1.3
"""Atoms are bonded up to so many times the sum of their covalent radii."""

PIECE = 100
"""Frames whose edges are looked at at once: all of a large set would not fit into memory."""


@dataclass(frozen=True)
class WaterMolecules:
    """The water molecules of every frame of a `GraphSet`.

    Args:
        atoms: (ΣM, 3) oxygen and its two hydrogens, counted from the frame's first atom.
        bonds: (ΣM, 2, 3) Å, from the oxygen to each of its hydrogens, minimum image.
        rows: rows of `atoms` and `bonds` by frame.
    """

    atoms: Tensor
    bonds: Tensor
    rows: RaggedIndex

    @classmethod
    def find(cls, graphs: GraphSet) -> WaterMolecules:
        """Give each hydrogen to its nearest oxygen.

        Raises:
            UserError: if some frame is not made of whole water molecules.
        """
        everything = torch.arange(len(graphs))
        found = [_molecules(graphs, piece) for piece in everything.split(PIECE)]
        counts = torch.cat([counts for _, _, counts in found])
        return cls(
            torch.cat([atoms for atoms, _, _ in found]),
            torch.cat([bonds for _, bonds, _ in found]),
            RaggedIndex.from_sizes(counts),
        )


def _molecules(graphs: GraphSet, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms and bonds of the molecules of some frames, and how many each frame has."""
    batch = graphs.gather(frames)
    source, target = batch.edge_index
    bonding = (batch.z[source] == OXYGEN) & (batch.z[target] == HYDROGEN)
    source, target = source[bonding], target[bonding]
    vectors = batch.pos[target] - batch.pos[source] + batch.shift[bonding]
    nearest = _nearest_per_target(target, vectors.norm(dim=-1))
    oxygen, hydrogen, bonds = source[nearest], target[nearest], vectors[nearest]

    by_oxygen = torch.argsort(oxygen, stable=True)
    oxygens = torch.nonzero(batch.z == OXYGEN).flatten()
    waters = (batch.z == HYDROGEN).sum() + len(oxygens) == len(batch.z)
    if not waters or not torch.equal(oxygen[by_oxygen], oxygens.repeat_interleave(2)):
        raise UserError(
            "masking needs whole water molecules in every frame: two hydrogens nearest to "
            "each oxygen, within the cutoff, and no other element"
        )
    frame = batch.batch[oxygens]
    atoms = torch.cat([oxygens[:, None], hydrogen[by_oxygen].view(-1, 2)], dim=1)
    counts = torch.bincount(frame, minlength=len(frames))
    return atoms - batch.ptr[frame][:, None], bonds[by_oxygen].view(-1, 2, 3), counts


def _nearest_per_target(target: Tensor, distance: Tensor) -> Tensor:
    """For every target, in ascending order, the row with the smallest distance."""
    by_distance = torch.argsort(distance, stable=True)
    order = by_distance[torch.argsort(target[by_distance], stable=True)]
    sorted_target = target[order]
    first = torch.ones_like(sorted_target, dtype=torch.bool)
    first[1:] = sorted_target[1:] != sorted_target[:-1]
    return order[first]


@dataclass(frozen=True)
class Neighborhoods:
    """Atoms with at least two bonds, and the atoms that are bonded to them alone.

    A terminal atom has one bond, so no atom is in two neighbourhoods. Water molecules are such;
    of ethanol these are CH3, CH2 and OH.

    Args:
        centres: (ΣM,) counted from the frame's first atom.
        rows: rows of `centres` by frame.
        ends: (ΣK,) terminal atoms, counted from the frame's first atom.
        bonds: (ΣK, 3) Å, from the centre to each, minimum image.
        members: rows of `ends` and `bonds` by neighbourhood.
    """

    centres: Tensor
    rows: RaggedIndex
    ends: Tensor
    bonds: Tensor
    members: RaggedIndex

    @classmethod
    def find(cls, graphs: GraphSet, hidden: int | None = None) -> Neighborhoods:
        """All neighbourhoods with a terminal atom that may be hidden.

        Args:
            graphs: whose cutoff is longer than any bond.
            hidden: atomic number of what may be hidden; any when left out.
        """
        everything = torch.arange(len(graphs))
        found = [_neighborhoods(graphs, piece, hidden) for piece in everything.split(PIECE)]
        centres, frames, ends, bonds, sizes = (
            torch.cat(parts) for parts in zip(*found, strict=True)
        )
        return cls(
            centres, RaggedIndex.from_sizes(frames), ends, bonds, RaggedIndex.from_sizes(sizes)
        )


def _neighborhoods(
    graphs: GraphSet, frames: Tensor, hidden: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centres, their number by frame, terminal atoms, bonds, and their number by centre."""
    batch = graphs.gather(frames)
    radii = torch.tensor(RADII, dtype=batch.pos.dtype, device=batch.pos.device) / 100
    vectors = edge_vectors(batch, batch.pos)
    reach = BOND_TOLERANCE * radii[batch.z[batch.edge_index]].sum(dim=0)
    centre, end = batch.edge_index[:, bonded := vectors.norm(dim=-1) < reach]
    vectors = vectors[bonded]
    degree = torch.bincount(centre, minlength=len(batch.z))
    terminal = (degree[end] == 1) & (degree[centre] > 1)
    may_go = terminal if hidden is None else terminal & (batch.z[end] == hidden)
    kept = terminal & torch.zeros_like(degree).index_add(0, centre, may_go.long()).bool()[centre]
    order = torch.argsort(centre[kept], stable=True)
    centres, sizes = torch.unique_consecutive(centre[kept][order], return_counts=True)
    ends, frame = end[kept][order], batch.batch[centres]
    return (
        centres - batch.ptr[frame],
        torch.bincount(frame, minlength=len(frames)),
        ends - batch.ptr[batch.batch[ends]],
        vectors[kept][order],
        sizes,
    )
