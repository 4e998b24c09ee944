"""Atom embeddings: element, mask token, and given forces."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data

from study.graphs.graph_set import gather_rows
from study.models.layers.radial import distances
from study.models.potential import MAX_ATOMIC_NUMBER


class AtomEmbedding(nn.Module):
    """A learned vector per element, plus one for masked and one for unmasked atoms.

    Args:
        hidden: number of features, F.
        species_blind: give all elements the same vector, as a bug in the released ForceNet does.
        mask_init: vectors for masked and unmasked atoms start at `zeros`, or `normal`.
    """

    def __init__(
        self, hidden: int, *, species_blind: bool = False, mask_init: str = "zeros"
    ) -> None:
        super().__init__()
        self.species_blind = species_blind
        self.species = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden)
        self.mask = nn.Embedding(2, hidden)
        if mask_init == "zeros":
            nn.init.zeros_(self.mask.weight)

    def forward(self, graph: Data) -> Tensor:
        """Embed atoms to (N, F); a graph without `masked` gets no mask embedding at all."""
        elements = graph.z.new_zeros(graph.z.shape) if self.species_blind else graph.z
        features = gather_rows(self.species.weight, elements)
        if "masked" in graph:
            features = features + gather_rows(self.mask.weight, graph.masked.long())
        return features


class ForceEmbedding(nn.Module):
    """Embedding of a graph's `given_force` (N, 3), eV/Å (DeNS, arXiv:2403.09549).

    Without it nothing is added, so that the network also works where forces are predicted. As in
    the authors' code, weights start small, so that forces enter gradually.

    Args:
        hidden: number of features, F.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sizes = nn.Linear(1, hidden, bias=False)
        self.directions = nn.Linear(1, hidden, bias=False)
        for linear in (self.sizes, self.directions):
            nn.init.uniform_(linear.weight, -0.001, 0.001)

    def forward(self, graph: Data) -> tuple[Tensor, Tensor] | None:
        """Embed force magnitudes to (N, F) and forces to (N, 3, F); None without forces."""
        if "given_force" not in graph:
            return None
        force = graph.given_force
        return self.sizes(distances(force)), self.directions(force[..., None])
