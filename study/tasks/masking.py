"""Masking (arXiv:2402.15921): predict the directions to a hidden atom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.graphs.edges import RaggedIndex
from study.graphs.graph_set import GraphSet
from study.graphs.topology import HYDROGEN, OXYGEN, Neighborhoods, WaterMolecules
from study.models.potential import Potential
from study.tasks.task import PretextTask, Term

if TYPE_CHECKING:
    from study.tasks.config import Masking as MaskingSettings


@dataclass(frozen=True)
class MaskedBatch:
    """Graphs without the hidden atoms, and where those are.

    Args:
        graph: what is left; `masked` marks the atoms that must point.
        atoms: (K,) atoms of `graph` that must point to a hidden one.
        directions: (K, 3) unit vectors, minimum image.
    """

    graph: Batch
    atoms: Tensor
    directions: Tensor


@dataclass(frozen=True)
class Hidden:
    """What is hidden in a batch of whole frames.

    Args:
        atoms: (M,) that leave.
        pointing: (K,) atoms that must point to one of them.
        vectors: (K, 3) Å, from each of these to it.
    """

    atoms: Tensor
    pointing: Tensor
    vectors: Tensor


class Units(Protocol):
    """What loses one atom each: water molecules, or bonded neighbourhoods."""

    rows: RaggedIndex
    """Of the units, by frame."""
    name: str

    def hide(
        self, chosen: Tensor, first: Tensor, graph: Batch, generator: torch.Generator
    ) -> Hidden:
        """Hide an atom of each chosen unit.

        Args:
            chosen: (M,) rows of the units.
            first: (M,) first atom of the frame of each.
            graph: the whole frames.
            generator: tosses the coins.
        """


class WaterGroups:
    """Water molecules, of which a hydrogen goes, or the oxygen."""

    name = "molecules"

    def __init__(self, graphs: GraphSet, atom: str) -> None:
        self.molecules, self.atom = WaterMolecules.find(graphs), atom
        self.rows = self.molecules.rows

    def hide(
        self, chosen: Tensor, first: Tensor, graph: Batch, generator: torch.Generator
    ) -> Hidden:
        """A coin decides which hydrogen goes; the other two atoms must point to it."""
        del graph
        atoms = self.molecules.atoms[chosen] + first[:, None]
        bonds = self.molecules.bonds[chosen]
        if self.atom == "oxygen":
            vectors = torch.cat([-bonds[:, 0], -bonds[:, 1]])
            return Hidden(atoms[:, 0], atoms[:, 1:].T.flatten(), vectors)
        row = torch.arange(len(atoms), device=atoms.device)
        coin = torch.randint(2, (len(atoms),), generator=generator, device=atoms.device)
        to_hidden, to_kept = bonds[row, coin], bonds[row, 1 - coin]
        pointing = torch.cat([atoms[:, 0], atoms[row, 2 - coin]])
        return Hidden(atoms[row, 1 + coin], pointing, torch.cat([to_hidden, to_hidden - to_kept]))


class BondedGroups:
    """Atoms with those bonded to them alone, of which one goes."""

    name = "neighbourhoods"

    def __init__(self, graphs: GraphSet, atom: str) -> None:
        self.element = {"hydrogen": HYDROGEN, "oxygen": OXYGEN}.get(atom)
        self.neighborhoods = Neighborhoods.find(graphs, self.element)
        self.rows = self.neighborhoods.rows

    def hide(
        self, chosen: Tensor, first: Tensor, graph: Batch, generator: torch.Generator
    ) -> Hidden:
        """A random_keys decides which goes; centre and other terminal atoms must point to it."""
        found = self.neighborhoods
        rows, place = found.members.rows(chosen)
        ends, bonds = found.terminals[rows] + first[place], found.bonds[rows]
        random_keys = torch.rand(
            len(rows), generator=generator, device=rows.device, dtype=torch.double
        )
        if self.element is not None:
            random_keys = torch.where(graph.z[ends] == self.element, random_keys, 1.0)
        order = torch.argsort(2 * place + random_keys)
        # The first member of each neighbourhood goes.
        goes = torch.zeros_like(place, dtype=torch.bool)
        goes[order[torch.searchsorted(place, torch.arange(len(chosen), device=place.device))]] = (
            True
        )
        to_hidden, stays = bonds[goes], ~goes
        pointing = torch.cat([found.centres[chosen] + first, ends[stays]])
        vectors = torch.cat([to_hidden, to_hidden[place[stays]] - bonds[stays]])
        return Hidden(ends[goes], pointing, vectors)


class Masking(PretextTask):
    """Some molecules lose one of their hydrogens; their other two atoms must point to it.

    In every frame int(ratio · molecules) molecules are drawn, and in each a coin decides which
    hydrogen goes. It leaves the graph with all its edges, so its position cannot reach the model.
    Instead of a hydrogen the oxygen can go, which the paper found to be worse. As a placebo the
    atoms must point in random directions. Beyond water, bonded neighbourhoods take the place of
    molecules.
    """

    def __init__(self, settings: MaskingSettings, graphs: GraphSet) -> None:
        self.settings, self.ratio = settings, settings.masking_ratio
        self.graphs = graphs
        kind = WaterGroups if settings.within == "water" else BondedGroups
        self.units: Units = kind(graphs, settings.atom)
        sizes = self.units.rows.offsets.diff()
        self.drawn = RaggedIndex.from_sizes((self.ratio * sizes.double()).long())
        fewest = int(sizes.min())
        if int(self.ratio * fewest) < 1:
            raise UserError(
                f"`int(masking_ratio * {self.units.name}) >= 1` must hold in every frame, but got "
                f"masking_ratio={self.ratio}, {self.units.name}={fewest}"
            )

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """1 − mean cosine between predicted and true directions."""
        del step
        masked = self.example(frames, generator)
        masked.graph.pointing, masked.graph.directions = masked.atoms, masked.directions
        return [Term("cosine of the directions", mean_cosine_distance, masked.graph)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Loss over all pointing atoms of the batches."""
        cosines = [self._cosines(model, frames, generator).detach() for frames in batches]
        return {"val_loss": float(1 - torch.cat(cosines).mean())}

    def example(self, frames: Tensor, generator: torch.Generator) -> MaskedBatch:
        """Hide atoms of the chosen frames.

        Args:
            frames: (G,) indices into the graphs.
            generator: decides which molecules and which of their atoms; on the graphs' device.
        """
        graph = self.graphs.gather(frames)
        rows, owner = self.units.rows.rows(frames)
        chosen = self._choose(owner, frames, generator)
        hidden = self.units.hide(rows[chosen], graph.ptr[owner[chosen]], graph, generator)
        stays = torch.ones_like(graph.z, dtype=torch.bool).index_fill_(0, hidden.atoms, value=False)
        place = torch.cumsum(stays, 0) - 1
        left, pointing, vectors = _without(graph, stays, place), hidden.pointing, hidden.vectors
        left.masked = torch.zeros_like(left.z)
        left.masked[place[pointing]] = 1
        if self.settings.placebo:
            vectors = _normal_like(vectors, generator)
        return MaskedBatch(left, place[pointing], vectors / vectors.norm(dim=-1, keepdim=True))

    def _choose(self, owner: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Molecules drawn: int(ratio · M) of the M molecules of each frame, without repetition."""
        random_keys = torch.rand(
            len(owner), generator=generator, device=owner.device, dtype=torch.float64
        )
        order = torch.argsort(owner + random_keys)
        units, drawn = self.units.rows.sizes(frames), self.drawn.sizes(frames)
        # Before each frame lie the units of earlier ones that are not drawn.
        passed_over = (units.cumsum(0) - units) - (drawn.cumsum(0) - drawn)
        rows, frame = self.drawn.rows(frames)
        return order[torch.arange(len(rows), device=rows.device) + passed_over[frame]]

    def _cosines(self, model: Potential, frames: Tensor, generator: torch.Generator) -> Tensor:
        masked = self.example(frames, generator)
        predicted = model.vectors(masked.graph)[masked.atoms]
        return cosine_similarity(predicted, masked.directions, dim=-1)


def mean_cosine_distance(model: Potential, batch: Batch) -> Tensor:
    """() 1 − mean cosine between the vectors of `pointing` atoms and their `directions`."""
    predicted = model.vectors(batch)[batch.pointing]
    return 1 - cosine_similarity(predicted, batch.directions, dim=-1).mean()


def _normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(values.shape, generator=generator, device=values.device, dtype=values.dtype)


def _without(graph: Batch, stays: Tensor, place: Tensor) -> Batch:
    """The graph of the atoms that stay; `place` is their new number."""
    source, target = graph.edge_index
    # How many edges that leaves nobody knows before: a GPU is waited for here.
    edges = torch.nonzero(stays[source] & stays[target])[:, 0]
    atoms = torch.nonzero(stays)[:, 0]
    batch = graph.batch[atoms]
    sizes = graph.ptr.new_zeros(graph.num_graphs).index_add(0, batch, torch.ones_like(batch))
    return Batch(
        z=graph.z[atoms],
        pos=graph.pos[atoms],
        edge_index=place[graph.edge_index[:, edges]],
        shift=graph.shift[edges],
        cell=graph.cell,
        batch=batch,
        ptr=RaggedIndex.from_sizes(sizes).offsets,
    )
