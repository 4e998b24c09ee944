"""Which atoms form a water molecule, found by distance under periodic boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.errors import UserError
from study.graph import GraphSet, Ragged

HYDROGEN, OXYGEN = 1, 8

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
    rows: Ragged

    @classmethod
    def find(cls, graphs: GraphSet) -> WaterMolecules:
        """Give each hydrogen to its nearest oxygen.

        Raises:
            UserError: if some frame is not made of whole water molecules.
        """
        everything = torch.arange(len(graphs), device=graphs.device)
        found = [_molecules(graphs, piece) for piece in everything.split(PIECE)]
        counts = torch.cat([counts for _, _, counts in found])
        return cls(
            torch.cat([atoms for atoms, _, _ in found]),
            torch.cat([bonds for _, bonds, _ in found]),
            Ragged(torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])),
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
