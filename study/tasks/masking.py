"""Masking (arXiv:2402.15921): hide atoms and predict the directions to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.graphs.edges import RaggedIndex
from study.graphs.graph_set import GraphSet
from study.graphs.hidden_atoms import BondedGroups, MaskingGroups, WaterGroups, rows_where
from study.models.potential import Potential
from study.tasks.task import PretextTask, Term

if TYPE_CHECKING:
    from study.tasks.pretext_config import Masking as MaskingSettings


@dataclass(frozen=True)
class MaskedBatch:
    """Graphs without the hidden atoms, and the directions to these.

    Args:
        graph: the remaining atoms; `masked` is 1 for context atoms.
        atoms: (K,) context atoms of `graph`, each bonded to or beside one hidden atom.
        directions: (K, 3) unit vectors from context to hidden atom, minimum image.
        distances: (K, 1) Å, between the two.
    """

    graph: Batch
    atoms: Tensor
    directions: Tensor
    distances: Tensor


class Masking(PretextTask):
    """Hide one hydrogen of some molecules and predict the directions to it from the other atoms.

    In each frame int(ratio · molecules) molecules are sampled without replacement, and one of the
    two hydrogens of each is hidden. It is removed from the graph with all its edges, so that its
    position cannot leak to the model. The oxygen can be hidden instead, which the paper found to
    be worse. The placebo has random directions as targets. Beyond water, bonded neighbourhoods
    replace molecules; of a frame with too few of them one is sampled, and a frame without any is
    only seen. The loss is 1 − mean cosine, or the mean square of the distance between the
    vector and the displacement to the hidden atom.
    """

    def __init__(self, settings: MaskingSettings, graphs: GraphSet) -> None:
        self.settings, self.ratio = settings, settings.masking_ratio
        self.by_distance = settings.loss == "distance"
        self.graphs = graphs
        group_type = WaterGroups if settings.within == "water" else BondedGroups
        self.groups: MaskingGroups = group_type(graphs, settings.atom)
        self.masked_rows = RaggedIndex.from_sizes(self.groups.sampled_sizes(self.ratio))

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Loss of a batch: by the angle to the hidden atoms, or by the distance from them."""
        del step
        masked = self.example(frames, generator)
        masked.graph.context_atoms = masked.atoms
        if self.by_distance:
            masked.graph.displacements = masked.distances * masked.directions
            name = "square distance from the hidden atoms"
            return [Term(name, mean_square_distance, masked.graph, counts=count_context_atoms)]
        masked.graph.directions = masked.directions
        name = "cosine of the directions"
        return [Term(name, mean_cosine_distance, masked.graph, counts=count_context_atoms)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Validation loss over all context atoms of the batches."""
        parts = [self._agreement(model, frames, generator).detach() for frames in batches]
        agreements = torch.cat(parts)
        if len(agreements) == 0:
            raise UserError(
                "masking: no validation frame has an atom to hide; raise `split.validation`"
            )
        mean = agreements.mean()
        return {"val_loss": float(mean if self.by_distance else 1 - mean)}

    def example(self, frames: Tensor, generator: torch.Generator) -> MaskedBatch:
        """Hide atoms of the given frames.

        Args:
            frames: (G,) frame indices.
            generator: draws the groups and their atoms; on the graphs' device.
        """
        graph = self.graphs.gather(frames)
        rows, owner = self.groups.rows.rows(frames)
        sampled = self._sample_groups(owner, frames, generator)
        hidden = self.groups.hide(rows[sampled], graph.ptr[owner[sampled]], graph, generator)
        visible = torch.ones_like(graph.z, dtype=torch.bool).index_fill_(
            0, hidden.atoms, value=False
        )
        place = torch.cumsum(visible, 0) - 1
        atoms = rows_where(visible, len(visible) - len(hidden.atoms))
        remaining, vectors = _remove_hidden(graph, visible, place, atoms), hidden.vectors
        context_atoms = place[hidden.context_atoms]
        remaining.masked = torch.zeros_like(remaining.z)
        remaining.masked[context_atoms] = 1
        distances = vectors.norm(dim=-1, keepdim=True)
        if self.settings.placebo:
            vectors = _normal_like(vectors, generator)
        directions = vectors / vectors.norm(dim=-1, keepdim=True)
        return MaskedBatch(remaining, context_atoms, directions, distances)

    def _sample_groups(self, owner: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Sample groups of each frame without replacement."""
        random_keys = torch.rand(
            len(owner), generator=generator, device=owner.device, dtype=torch.float64
        )
        order = torch.argsort(owner + random_keys)
        sizes, n_masked = self.groups.rows.sizes(frames), self.masked_rows.sizes(frames)
        # Groups of earlier frames that are not sampled precede those of each frame.
        skipped = (sizes.cumsum(0) - sizes) - (n_masked.cumsum(0) - n_masked)
        rows, frame = self.masked_rows.rows(frames)
        return order[torch.arange(len(rows), device=rows.device) + skipped[frame]]

    def _agreement(self, model: Potential, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Cosines (K,) between vectors and directions, or squares of the distances, Å²."""
        masked = self.example(frames, generator)
        predicted = model.vectors(masked.graph)[masked.atoms]
        if self.by_distance:
            return (predicted - masked.distances * masked.directions).square().sum(dim=-1)
        return cosine_similarity(predicted, masked.directions, dim=-1)


def count_context_atoms(batch: Batch) -> int:
    """Count the values of a mean over `context_atoms`; 1 of the zero that stands for none."""
    return max(1, len(batch.context_atoms))


def mean_cosine_distance(model: Potential, batch: Batch) -> Tensor:
    """Compute () 1 − mean cosine between the vectors of `context_atoms` and `directions`.

    It is 0 without any, as where no atom of a batch is hidden.
    """
    predicted = model.vectors(batch)[batch.context_atoms]
    if predicted.shape[0] == 0:
        return predicted.sum()
    return 1 - cosine_similarity(predicted, batch.directions, dim=-1).mean()


def mean_square_distance(model: Potential, batch: Batch) -> Tensor:
    """Compute () Å², the mean square of vectors of `context_atoms` less `displacements`.

    It is 0 without any.
    """
    predicted = model.vectors(batch)[batch.context_atoms]
    if predicted.shape[0] == 0:
        return predicted.sum()
    return (predicted - batch.displacements).square().sum(dim=-1).mean()


def _normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(values.shape, generator=generator, device=values.device, dtype=values.dtype)


def _remove_hidden(graph: Batch, visible: Tensor, place: Tensor, atoms: Tensor) -> Batch:
    """Keep some atoms and the edges between them.

    Args:
        graph: of N atoms.
        visible: (N,) whether an atom stays.
        place: (N,) new numbers of atoms.
        atoms: (M,) those that stay.
    """
    source, target = graph.edge_index
    # The number of remaining edges depends on the data: this synchronizes with a GPU.
    edges = torch.nonzero(visible[source] & visible[target])[:, 0]
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
