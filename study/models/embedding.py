"""What a network is told of each atom before it looks at its neighbours."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data

from study.models.potential import MAX_ATOMIC_NUMBER


class AtomEmbedding(nn.Module):
    """A learned vector per element, plus one for marked and one for unmarked atoms.

    Args:
        hidden: F.
        species_blind: give all elements the same vector, as a bug in the released ForceNet does.
    """

    def __init__(self, hidden: int, *, species_blind: bool = False) -> None:
        super().__init__()
        self.species_blind = species_blind
        self.species = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden)
        self.mask = nn.Embedding(2, hidden)
        nn.init.zeros_(self.mask.weight)

    def forward(self, graph: Data) -> Tensor:
        """(N, F); a graph without `masked` gets no mask embedding at all."""
        elements = graph.z.new_zeros(graph.z.shape) if self.species_blind else graph.z
        features = self.species(elements)
        return features + self.mask(graph.masked.long()) if "masked" in graph else features
