"""GNS, the graph network simulator (arXiv:2002.09405), as a direct-force potential."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.graphs.graph_set import edge_vectors, gather_rows
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.init import initialize
from study.models.layers.radial import bessel_basis, distances, edge_weights
from study.models.layers.tailored_relu import CorrelationMap, TailoredReLU, tailored_slope
from study.models.potential import DirectPotential

if TYPE_CHECKING:
    from study.models.config import GNS as GNSSettings  # noqa: N811 - names a model, no constant


@dataclass(frozen=True)
class MLPStyle:
    """Activations and normalization of all MLPs.

    Args:
        activation: builds the nonlinearity.
        norm: builds the normalization that ends an MLP of the processor, for a width.
        average: divide sums of n terms by √n, and sums over neighbours by their number, where no
            norm bounds them.
    """

    activation: Callable[[], nn.Module] = nn.ReLU
    norm: Callable[[int], nn.Module] = nn.LayerNorm
    average: bool = False

    def term_weight(self, parts: int) -> float:
        """Weight of each term in a sum of `parts` terms."""
        return 1 / math.sqrt(parts) if self.average else 1.0


def make_mlp_style(settings: GNSSettings) -> MLPStyle:
    """Choose ReLU with layer norms, or tailored ReLU without."""
    if settings.activation == "relu":
        return MLPStyle()
    slope = tailored_slope(partial(network_correlation_map, settings.layers))
    return MLPStyle(partial(TailoredReLU, slope), lambda _hidden: nn.Identity(), average=True)


def network_correlation_map(layers: int, layer: CorrelationMap) -> CorrelationMap:
    """Compose the correlation map of the whole network, with all edges alike."""

    def twice(cosine: float) -> float:
        return layer(layer(cosine))

    def mapped(cosine: float) -> float:
        nodes = edges = twice(cosine)
        for _ in range(layers):
            message = twice((2 * nodes + edges) / 3)
            nodes = (nodes + twice((nodes + message) / 2)) / 2
            edges = (edges + message) / 2
        return twice(nodes)

    return mapped


def mlp(inputs: int, hidden: int, outputs: int, style: MLPStyle) -> nn.Sequential:
    """Build the MLP used all over GNS: two hidden layers and a linear output."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        style.activation(),
        nn.Linear(hidden, hidden),
        style.activation(),
        nn.Linear(hidden, outputs),
    )


class Layer(nn.Module):
    """One layer of the processor: an interaction network (arXiv:1612.00222)."""

    def __init__(self, hidden: int, style: MLPStyle) -> None:
        super().__init__()
        self.style = style
        # The first layer of the edge network acts on [v_target, v_source, e]: the parts for v are
        # computed once per atom instead of once per edge.
        self.target = nn.Linear(hidden, hidden)
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.state = nn.Linear(hidden, hidden, bias=False)
        self.edge = nn.Sequential(
            style.activation(),
            nn.Linear(hidden, hidden),
            style.activation(),
            nn.Linear(hidden, hidden),
            style.norm(hidden),
        )
        self.node = nn.Sequential(mlp(2 * hidden, hidden, hidden, style), style.norm(hidden))

    def messages(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        """Compute the messages (E, F), which also update the edge states."""
        source, target = edge_index
        inputs = gather_rows(self.target(nodes), target) + gather_rows(self.source(nodes), source)
        inputs = inputs + self.state(edges)
        return self.edge(self.style.term_weight(3) * inputs)

    def update(self, nodes: Tensor, target: Tensor, messages: Tensor, weight: Tensor) -> Tensor:
        """Update node states (N, F) by the sum or mean of messages with weights (E, 1)."""
        received = torch.zeros_like(nodes).index_add(0, target, weight * messages)
        if self.style.average:
            received = received / (torch.zeros_like(nodes[:, :1]).index_add(0, target, weight) + 1)
        return self.style.term_weight(2) * (nodes + self.node(torch.cat([nodes, received], dim=-1)))


class GNS(DirectPotential):
    """GNS potential: encoder, processor, and separate decoders for energy and forces.

    Translation and permutation invariant, but neither rotation equivariant nor conservative: edges
    know their vector by its Cartesian components, and nothing ties forces to the energy or makes
    them sum to zero.

    The released code of arXiv:2402.15921 (`abs_pos`) also feeds wrapped absolute positions to the
    nodes. That is not offered here: a periodic system has no origin, and moving an atom by a
    lattice vector must change nothing.

    With tailored activations (GNS-TAT of arXiv:2206.00133) there are no layer norms; residual sums
    keep their variance, and messages are averaged over Σ envelope + 1 neighbours, as sums would
    grow from step to step.
    """

    equivariant = False

    settings: GNSSettings

    def __init__(self, settings: GNSSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden = settings.hidden
        radial = settings.basis if settings.radial == "bessel" else 1
        self.style = style = make_mlp_style(settings)
        self.embedding = AtomEmbedding(hidden, mask_init=settings.mask_init)
        self.encode_node = nn.Sequential(mlp(hidden, hidden, hidden, style), style.norm(hidden))
        self.encode_edge = nn.Sequential(mlp(3 + radial, hidden, hidden, style), style.norm(hidden))
        self.layers = nn.ModuleList(Layer(hidden, style) for _ in range(settings.layers))
        self.readout = mlp(hidden, hidden, 1, style)
        self.vector_readout = mlp(hidden, hidden, 3, style)
        initialize(self, settings.init if settings.activation == "relu" else "fan_in")
        self.force = nn.Linear(3, hidden, bias=False) if settings.force_input else None

    def features(self, graph: Data) -> Tensor:
        """Compute the node states (N, F) after the last layer."""
        vectors = edge_vectors(graph, graph.pos)
        distance = distances(vectors)
        weight = edge_weights(distance, graph.edge_index[1], self.settings)
        nodes: Tensor = self.encode_node(self.embedding(graph))
        if self.force is not None and "given_force" in graph:
            nodes = nodes + self.force(graph.given_force)
        edges = self.encode_edge(self._edge_inputs(vectors, distance))
        for layer in self.layers:
            assert isinstance(layer, Layer)
            messages = layer.messages(nodes, edges, graph.edge_index)
            nodes = layer.update(nodes, graph.edge_index[1], messages, weight)
            # The released code doubles the edge state instead of adding its update.
            change = edges if self.settings.edge_update == "legacy" else messages
            edges = self.style.term_weight(2) * (edges + change)
        return nodes

    def _edge_inputs(self, vectors: Tensor, distance: Tensor) -> Tensor:
        """Concatenate relative vectors and distances to (E, 3 + radial).

        Beside a Bessel basis, which encodes the length, vectors are scaled to length √3, so that
        components have variance 1. Otherwise both are in units of the cutoff, as in the paper.
        """
        cutoff = self.settings.cutoff
        if self.settings.radial == "bessel":
            direction = math.sqrt(3) * vectors / distance
            return torch.cat([direction, bessel_basis(distance, cutoff, self.settings.basis)], -1)
        return torch.cat([vectors, distance], dim=-1) / cutoff
