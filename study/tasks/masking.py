"""Hydrogen masking (arXiv:2402.15921): predict the directions to a hidden hydrogen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch_geometric.data import Batch

from study.errors import UserError
from study.graph import GraphSet
from study.models.potential import Potential
from study.molecules import WaterMolecules

if TYPE_CHECKING:
    from study.trial import Masking as MaskingSettings


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


class Masking:
    """Some molecules lose one of their hydrogens; their other two atoms must point to it.

    In every frame int(ratio · molecules) molecules are drawn, and in each a coin decides which
    hydrogen goes. It leaves the graph with all its edges, so its position cannot reach the model.
    """

    criterion = "val_loss"

    def __init__(self, settings: MaskingSettings, graphs: GraphSet) -> None:
        self.ratio = settings.masking_ratio
        self.graphs = graphs
        self.molecules = WaterMolecules.find(graphs)
        fewest = int(self.molecules.rows.offsets.diff().min())
        if int(self.ratio * fewest) < 1:
            raise UserError(
                "`int(masking_ratio * molecules) >= 1` must hold in every frame, but got "
                f"masking_ratio={self.ratio}, molecules={fewest}"
            )

    def loss(self, model: Potential, frames: Tensor, generator: torch.Generator) -> Tensor:
        """1 − mean cosine between predicted and true directions."""
        return 1 - self._cosines(model, frames, generator).mean()

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Loss over all pointing atoms of the batches."""
        cosines = [self._cosines(model, frames, generator).detach() for frames in batches]
        return {"val_loss": float(1 - torch.cat(cosines).mean())}

    def example(self, frames: Tensor, generator: torch.Generator) -> MaskedBatch:
        """Hide hydrogens of the chosen frames.

        Args:
            frames: (G,) indices into the graphs.
            generator: decides which molecules and which hydrogen; on the graphs' device.
        """
        graph = self.graphs.gather(frames)
        rows, owner = self.molecules.rows.rows(frames)
        chosen = self._choose(owner, len(frames), generator)
        atoms = self.molecules.atoms[rows][chosen] + graph.ptr[owner[chosen]][:, None]
        bonds = self.molecules.bonds[rows][chosen]

        molecule = torch.arange(len(chosen), device=frames.device)
        coin = torch.randint(2, (len(chosen),), generator=generator, device=frames.device)
        oxygen, kept, hidden = atoms[:, 0], atoms[molecule, 2 - coin], atoms[molecule, 1 + coin]
        to_hidden, to_kept = bonds[molecule, coin], bonds[molecule, 1 - coin]
        vectors = torch.cat([to_hidden, to_hidden - to_kept])
        pointing = torch.cat([oxygen, kept])

        stays = torch.ones_like(graph.z, dtype=torch.bool).index_fill_(0, hidden, value=False)
        place = torch.cumsum(stays, 0) - 1
        directions = vectors / vectors.norm(dim=-1, keepdim=True)
        left = _without(graph, stays, place)
        left.masked = torch.zeros_like(left.z, dtype=left.pos.dtype)
        left.masked[place[pointing]] = 1
        return MaskedBatch(left, place[pointing], directions)

    def _choose(self, owner: Tensor, graphs: int, generator: torch.Generator) -> Tensor:
        """Molecules drawn: int(ratio · M) of the M molecules of each graph, without repetition."""
        size = torch.bincount(owner, minlength=graphs)
        quota = (self.ratio * size.double()).long()
        lottery = torch.rand(
            len(owner), generator=generator, device=owner.device, dtype=torch.float64
        )
        order = torch.argsort(owner + lottery)
        rank = torch.arange(len(owner), device=owner.device) - (torch.cumsum(size, 0) - size)[owner]
        return order[rank < quota[owner]]

    def _cosines(self, model: Potential, frames: Tensor, generator: torch.Generator) -> Tensor:
        masked = self.example(frames, generator)
        predicted = model.vectors(masked.graph)[masked.atoms]
        return cosine_similarity(predicted, masked.directions, dim=-1)


def _without(graph: Batch, stays: Tensor, place: Tensor) -> Batch:
    """The graph of the atoms that stay; `place` is their new number."""
    source, target = graph.edge_index
    edges = stays[source] & stays[target]
    batch = graph.batch[stays]
    sizes = torch.bincount(batch, minlength=graph.num_graphs)
    return Batch(
        z=graph.z[stays],
        pos=graph.pos[stays],
        edge_index=place[graph.edge_index[:, edges]],
        shift=graph.shift[edges],
        batch=batch,
        ptr=torch.cat([sizes.new_zeros(1), torch.cumsum(sizes, 0)]),
    )
