"""What models of the user's own may look like: names of layers, kinds of heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.checks.model_contract import examine
from study.core.errors import UserError
from study.graphs.graph_set import edge_vectors
from study.models.config import ModelConfig
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.radial import cutoff_envelope, distances
from study.models.potential import ConservativePotential, DirectPotential, Potential
from study.training.schedule import layer_groups

SETTINGS = ModelConfig(name="own", hidden=8, layers=2, cutoff=3.4)


class Pairs(ConservativePotential):
    """Messages over pairs, whose parts have whatever names the authors chose."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.settings = SETTINGS
        self.net = nn.Module()
        self.net.embedding = AtomEmbedding(8)
        self.net.interactions = nn.ModuleList(nn.Linear(1, 8) for _ in range(2))
        self.net.products = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.net.energy = head or nn.Linear(8, 1, bias=False)

    heads = ("net.energy",)

    @property
    def blocks(self) -> list[nn.Module]:
        pairs = zip(self.net.interactions, self.net.products, strict=True)
        return [nn.ModuleList(pair) for pair in pairs]

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        source, target = graph.edge_index
        vectors = edge_vectors(graph, positions)
        length = distances(vectors)
        weight, features = cutoff_envelope(length, 3.4, "smooth"), self.net.embedding(graph)
        for interaction, product in zip(self.net.interactions, self.net.products, strict=True):
            messages = weight * torch.tanh(interaction(length)) * features[source]
            features = (
                features + product(torch.zeros_like(features).index_add(0, target, messages)).tanh()
            )
        return self.net.energy(features).squeeze(-1)


class Arrows(DirectPotential):
    """Its forces are weighted sums of edge vectors: an equivariant head without a bias."""

    equivariant = True

    def __init__(self) -> None:
        super().__init__()
        self.settings = SETTINGS
        self.embedding = AtomEmbedding(8)
        self.readout, self.vector_readout = Scalars(), Vectors()

    def features(self, graph: Data) -> Any:
        source, target = graph.edge_index
        vectors = edge_vectors(graph, graph.pos)
        weight = cutoff_envelope(distances(vectors), 3.4, "smooth")
        atoms = self.embedding(graph)
        messages = weight * atoms[source]
        scalars = atoms + torch.zeros_like(atoms).index_add(0, target, messages)
        directed = vectors[:, :, None] * (messages * atoms[target])[:, None, :]
        return scalars.tanh(), atoms.new_zeros(len(atoms), 3, 8).index_add(0, target, directed)


class Scalars(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1, bias=False))

    def forward(self, features: Any) -> Tensor:
        return super().forward(features[0])


class Vectors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 1, bias=False)

    def forward(self, features: Any) -> Tensor:
        return self.mix(features[1]).squeeze(-1)


HEADS: dict[str, Any] = {
    "a linear layer": lambda: Pairs(nn.Linear(8, 1)),
    "a linear layer without a bias": Pairs,
    "layers that end without a bias": lambda: Pairs(nn.Sequential(nn.Linear(8, 1, bias=False))),
    "an equivariant vector head": Arrows,
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_all_kinds_keep_the_contract(head: str) -> None:
    found = dict(examine(HEADS[head], SETTINGS))
    assert set(filter(None, found.values())) == set()
    assert "heads can be zero-initialized" in found


def trainable(model: Potential) -> set[str]:
    return {name for name, weights in model.named_parameters() if weights.requires_grad}


def test_layers_are_counted_whatever_they_are_called() -> None:
    model = Pairs()
    model.freeze_all_but_last(1)
    parts, weights = ("interactions", "products"), ("weight", "bias")
    last = {f"net.{part}.1.{name}" for part in parts for name in weights}
    assert trainable(model) == last | {"net.energy.weight"}
    depths = {name: model.layer_depth(name) for name, _ in model.named_parameters()}
    assert {depth for name, depth in depths.items() if ".0." in name} == {2}
    assert {depth for name, depth in depths.items() if "embedding" in name} == {3}
    assert {group["lr_factor"] for group in layer_groups(model, 0.5)} == {1, 0.5, 0.25, 0.125}


def test_what_counts_layers_is_refused_where_none_are_named() -> None:
    model = Arrows()
    model.freeze_all_but_last(0)
    assert all(name.startswith(model.heads) for name in trainable(model))
    assert len(layer_groups(model, 1.0)) == 1
    with pytest.raises(UserError, match=r"`trainable` counts the layers .* Arrows names none"):
        model.freeze_all_but_last(1)
    with pytest.raises(UserError, match=r"`layer_decay` counts the layers"):
        layer_groups(model, 0.5)


def test_a_head_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"the head `net\.energy` of Pairs has no weights"):
        Pairs(nn.Identity()).zero_init_readout()
