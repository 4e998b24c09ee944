"""Which atoms form a water molecule, found by distance under periodic boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.errors import UserError
from study.graph import GraphSet, Ragged

HYDROGEN, OXYGEN = 1, 8


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
        batch = graphs.gather(torch.arange(len(graphs), device=graphs.device))
        source, target = batch.edge_index
        bonding = (batch.z[source] == OXYGEN) & (batch.z[target] == HYDROGEN)
        source, target = source[bonding], target[bonding]
        vectors = batch.pos[target] - batch.pos[source] + batch.shift[bonding]
        nearest = _nearest_per_target(target, vectors.norm(dim=-1))
        oxygen, hydrogen, bonds = source[nearest], target[nearest], vectors[nearest]

        by_oxygen = torch.argsort(oxygen, stable=True)
        owners = oxygen[by_oxygen]
        oxygens = torch.nonzero(batch.z == OXYGEN).flatten()
        waters = (batch.z == HYDROGEN).sum() + len(oxygens) == len(batch.z)
        if not waters or not torch.equal(owners, oxygens.repeat_interleave(2)):
            raise UserError(
                "masking needs whole water molecules in every frame: two hydrogens nearest to "
                "each oxygen, within the cutoff, and no other element"
            )
        hydrogens = hydrogen[by_oxygen].view(-1, 2)
        frame = batch.batch[oxygens]
        counts = torch.bincount(frame, minlength=len(graphs))
        atoms = torch.cat([oxygens[:, None], hydrogens], dim=1) - batch.ptr[frame][:, None]
        offsets = torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])
        return cls(atoms, bonds[by_oxygen].view(-1, 2, 3), Ragged(offsets))


def _nearest_per_target(target: Tensor, distance: Tensor) -> Tensor:
    """For every target, in ascending order, the row with the smallest distance."""
    by_distance = torch.argsort(distance, stable=True)
    order = by_distance[torch.argsort(target[by_distance], stable=True)]
    sorted_target = target[order]
    first = torch.ones_like(sorted_target, dtype=torch.bool)
    first[1:] = sorted_target[1:] != sorted_target[:-1]
    return order[first]
