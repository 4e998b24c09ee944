"""Water molecules and covalent bonds under periodic boundary conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.core.errors import UserError
from study.core.quantities.elements import RADII
from study.graphs.edges import RaggedIndex
from study.graphs.graph_set import GraphSet, edge_vectors

HYDROGEN, OXYGEN = 1, 8

BOND_TOLERANCE = 1.3
"""Longest bond in units of the sum of the covalent radii."""

CHUNK_FRAMES = 100
"""Frames processed at once; the edges of a large data set would not fit into memory."""


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
        """Assign each hydrogen to its nearest oxygen.

        Raises:
            UserError: if some frame does not consist of whole water molecules.
        """
        atoms, bonds, counts = _found_once(graphs, "waters", [], partial(_molecules, graphs))
        return cls(atoms, bonds, RaggedIndex.from_sizes(counts))


def _molecules(graphs: GraphSet, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the molecules of some frames: atoms (M, 3), bonds (M, 2, 3) Å, and counts (G,)."""
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
    """Find the row with the smallest distance for each target, in ascending order of target."""
    by_distance = torch.argsort(distance, stable=True)
    order = by_distance[torch.argsort(target[by_distance], stable=True)]
    sorted_target = target[order]
    first = torch.ones_like(sorted_target, dtype=torch.bool)
    first[1:] = sorted_target[1:] != sorted_target[:-1]
    return order[first]


@dataclass(frozen=True)
class Neighborhoods:
    """Atoms with at least two bonds, and the atoms that are bonded to them alone.

    A terminal atom has one bond, so no atom is in two neighbourhoods. A water molecule is one
    neighbourhood; ethanol has CH3, CH2 and OH.

    Args:
        centres: (ΣM,) central atoms, counted from the frame's first atom.
        rows: rows of `centres` by frame.
        terminals: (ΣK,) terminal atoms, counted from the frame's first atom.
        bonds: (ΣK, 3) Å, from the centre to each, minimum image.
        members: rows of `terminals` and `bonds` by neighbourhood.
    """

    centres: Tensor
    rows: RaggedIndex
    terminals: Tensor
    bonds: Tensor
    members: RaggedIndex

    @classmethod
    def find(cls, graphs: GraphSet, hidden: int | None = None) -> Neighborhoods:
        """Find all neighbourhoods with a terminal atom that may be hidden.

        Args:
            graphs: the data set; its cutoff must exceed the length of any bond.
            hidden: atomic number of atoms that may be hidden; None for any element.
        """
        centres, frames, terminals, bonds, sizes = _found_once(
            graphs, "neighborhoods", [hidden], partial(_neighborhoods, graphs, hidden=hidden)
        )
        return cls(
            centres, RaggedIndex.from_sizes(frames), terminals, bonds, RaggedIndex.from_sizes(sizes)
        )


def _neighborhoods(
    graphs: GraphSet, frames: Tensor, *, hidden: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find centres (M,), their count by frame (G,), terminals (K,), bonds, and count by centre."""
    batch = graphs.gather(frames)
    radii = torch.tensor(RADII, dtype=batch.pos.dtype, device=batch.pos.device) / 100
    vectors = edge_vectors(batch, batch.pos)
    reach = BOND_TOLERANCE * radii[batch.z[batch.edge_index]].sum(dim=0)
    centre, terminal_atom = batch.edge_index[:, bonded := vectors.norm(dim=-1) < reach]
    vectors = vectors[bonded]
    degree = torch.bincount(centre, minlength=len(batch.z))
    terminal = (degree[terminal_atom] == 1) & (degree[centre] > 1)
    may_hide = terminal if hidden is None else terminal & (batch.z[terminal_atom] == hidden)
    kept = terminal & torch.zeros_like(degree).index_add(0, centre, may_hide.long()).bool()[centre]
    order = torch.argsort(centre[kept], stable=True)
    centres, sizes = torch.unique_consecutive(centre[kept][order], return_counts=True)
    terminals, frame = terminal_atom[kept][order], batch.batch[centres]
    return (
        centres - batch.ptr[frame],
        torch.bincount(frame, minlength=len(frames)),
        terminals - batch.ptr[batch.batch[terminals]],
        vectors[kept][order],
        sizes,
    )


def _found_once(
    graphs: GraphSet, kind: str, of: list[Any], find: Callable[[Tensor], tuple[Tensor, ...]]
) -> list[Tensor]:
    """What is found in all frames, some after the other; that of large sets is kept beside them.

    Args:
        graphs: the data set.
        kind: of what is found, in a word.
        of: JSON values of all else that it depends on.
        find: gives it for some frames (M,).
    """

    def found() -> list[Tensor]:
        chunks = torch.arange(len(graphs)).split(CHUNK_FRAMES)
        return [torch.cat(parts) for parts in zip(*map(find, chunks), strict=True)]

    def make(folder: Path) -> None:
        for number, tensor in enumerate(found()):
            np.save(folder / f"{number}.npy", tensor.cpu().numpy())

    if graphs.store is None:
        return found()
    arrays = graphs.store.once(kind, [graphs.cutoff, str(graphs.dtype), *of], make)
    tensors = [torch.from_numpy(arrays[str(number)]) for number in range(len(arrays))]
    return [tensor.to(graphs.device) for tensor in tensors]
