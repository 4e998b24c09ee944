"""Edges, their vectors and lengths, as networks of other packages take them."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data

from study.graphs.graph_set import edge_vectors
from study.models.layers.radial import distances, nearest_neighbor_mask


def nearest_edges(
    graph: Data, positions: Tensor, max_neighbors: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The edges of a graph, or the shortest ones of each target.

    Args:
        graph: has `edge_index` (2, E') and `shift` (E', 3) Å.
        positions: (N, 3) Å; vectors and lengths are differentiable with respect to them.
        max_neighbors: most edges that end at an atom; None for no limit.

    Returns:
        edge_index (2, E), vectors from source to target (E, 3) Å, and their lengths (E,) Å.
    """
    edge_index, vectors = graph.edge_index, edge_vectors(graph, positions)
    distance = distances(vectors)
    if max_neighbors is not None:
        kept = nearest_neighbor_mask(edge_index[1], distance, max_neighbors)[:, 0] > 0
        edge_index, vectors, distance = edge_index[:, kept], vectors[kept], distance[kept]
    return edge_index, vectors, distance.squeeze(-1)
