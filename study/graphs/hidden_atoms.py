"""Which atoms masking may hide: one of a water molecule, or of a bonded neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.graphs.edges import RaggedIndex
from study.graphs.graph_set import GraphSet
from study.graphs.topology import HYDROGEN, OXYGEN, Neighborhoods, WaterMolecules


@dataclass(frozen=True)
class HiddenAtoms:
    """Atoms to hide in a batch of complete frames.

    Args:
        atoms: (M,) hidden atoms.
        context_atoms: (K,) atoms from which the direction to a hidden one is predicted.
        vectors: (K, 3) Å, from each context atom to its hidden atom.
    """

    atoms: Tensor
    context_atoms: Tensor
    vectors: Tensor


class MaskingGroups(Protocol):
    """Groups of atoms that lose one atom each: water molecules or bonded neighbourhoods."""

    rows: RaggedIndex
    """Rows of the groups by frame."""

    def sampled_sizes(self, ratio: float) -> Tensor:
        """Number of groups (G,) that lose an atom in each frame.

        Raises:
            UserError: if the ratio is too low for the frames.
        """

    def hide(
        self, sampled: Tensor, first: Tensor, graph: Batch, generator: torch.Generator
    ) -> HiddenAtoms:
        """Choose one atom to hide in each sampled group.

        Args:
            sampled: (M,) rows of the groups.
            first: (M,) index of the first atom of each group's frame.
            graph: the complete frames.
            generator: draws the atoms.
        """


class WaterGroups:
    """Water molecules, which lose one of their hydrogens or the oxygen."""

    def __init__(self, graphs: GraphSet, atom: str) -> None:
        self.molecules, self.atom = WaterMolecules.find(graphs), atom
        self.rows = self.molecules.rows

    def sampled_sizes(self, ratio: float) -> Tensor:
        """int(ratio · molecules), as in the paper."""
        sizes = _share_of(self.rows, ratio)
        if int(sizes.min()) < 1:
            smallest = int(self.rows.offsets.diff().min())
            raise UserError(
                f"`int(masking_ratio * molecules) >= 1` must hold in every frame, but got "
                f"masking_ratio={ratio}, molecules={smallest}"
            )
        return sizes

    def hide(
        self, sampled: Tensor, first: Tensor, graph: Batch, generator: torch.Generator
    ) -> HiddenAtoms:
        """Draw a hydrogen of each molecule; the other two atoms are its context atoms."""
        del graph
        atoms = self.molecules.atoms[sampled] + first[:, None]
        bonds = self.molecules.bonds[sampled]
        if self.atom == "oxygen":
            vectors = torch.cat([-bonds[:, 0], -bonds[:, 1]])
            return HiddenAtoms(atoms[:, 0], atoms[:, 1:].T.flatten(), vectors)
        row = torch.arange(len(atoms), device=atoms.device)
        choice = torch.randint(2, (len(atoms),), generator=generator, device=atoms.device)
        to_hidden, to_visible = bonds[row, choice], bonds[row, 1 - choice]
        context_atoms = torch.cat([atoms[:, 0], atoms[row, 2 - choice]])
        return HiddenAtoms(
            atoms[row, 1 + choice], context_atoms, torch.cat([to_hidden, to_hidden - to_visible])
        )


class BondedGroups:
    """Bonded neighbourhoods, which lose one of their terminal atoms."""

    def __init__(self, graphs: GraphSet, atom: str) -> None:
        self.element = {"hydrogen": HYDROGEN, "oxygen": OXYGEN}.get(atom)
        self.neighborhoods = Neighborhoods.find(graphs, self.element)
        self.rows = self.neighborhoods.rows

    def sampled_sizes(self, ratio: float) -> Tensor:
        """int(ratio · neighbourhoods), but one in a smaller frame that has any.

        Sets of molecules mostly hold some that are too small. At least half of the frames have to
        be large enough, or else the ratio would be another one than was asked for.
        """
        sizes = _share_of(self.rows, ratio)
        enough = int((sizes > 0).sum())
        if 2 * enough < len(sizes):
            raise UserError(
                f"`int(masking_ratio * neighbourhoods) >= 1` must hold in half of the frames, but "
                f"holds in {enough} of {len(sizes)} with masking_ratio={ratio}; raise it"
            )
        return sizes.maximum(self.rows.offsets.diff().clamp(max=1))

    def hide(
        self, sampled: Tensor, first: Tensor, graph: Batch, generator: torch.Generator
    ) -> HiddenAtoms:
        """Draw a terminal atom; the centre and the other terminal atoms are its context atoms."""
        neighborhoods = self.neighborhoods
        rows, place = neighborhoods.members.rows(sampled)
        ends, bonds = neighborhoods.terminals[rows] + first[place], neighborhoods.bonds[rows]
        random_keys = torch.rand(
            len(rows), generator=generator, device=rows.device, dtype=torch.double
        )
        if self.element is not None:
            random_keys = torch.where(graph.z[ends] == self.element, random_keys, 1.0)
        order = torch.argsort(2 * place + random_keys)
        # The terminal atom with the lowest key of each neighbourhood is hidden.
        starts = torch.searchsorted(place, torch.arange(len(sampled), device=place.device))
        hidden = order[starts]
        is_visible = torch.ones_like(place, dtype=torch.bool).index_fill_(0, hidden, value=False)
        visible = rows_where(is_visible, len(rows) - len(sampled))
        to_hidden = bonds[hidden]
        context_atoms = torch.cat([neighborhoods.centres[sampled] + first, ends[visible]])
        vectors = torch.cat([to_hidden, to_hidden[place[visible]] - bonds[visible]])
        return HiddenAtoms(ends[hidden], context_atoms, vectors)


def _share_of(rows: RaggedIndex, ratio: float) -> Tensor:
    """int(ratio · rows) of each frame."""
    return (ratio * rows.offsets.diff().double()).long()


def rows_where(mask: Tensor, count: int) -> Tensor:
    """Rows (count,) where a mask (N,) is true, in order; a GPU is not waited for to count them."""
    numbers = torch.arange(1, count + 1, device=mask.device)
    return torch.searchsorted(torch.cumsum(mask, 0), numbers)
