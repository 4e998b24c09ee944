"""ViSNet against torch-geometric's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.nn.models.visnet import ViSNetBlock

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.config import ViSNet

CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


class _OurEdges(torch.nn.Module):
    """Periodic edges and loops, as torch-geometric's `Distance` gives them without a cell.

    No atom may see images of itself, which torch-geometric would take for loops.
    """

    def __init__(self, graph: Batch) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del batch
        loops = torch.arange(len(pos)).expand(2, -1)
        vectors = torch.cat([-edge_vectors(self.graph, pos), torch.zeros_like(pos)])
        edges = torch.cat([self.graph.edge_index, loops], dim=1)
        return edges, vectors.norm(dim=-1), vectors


@pytest.mark.parametrize("degrees", [1, 2])
def test_visnet_is_that_of_torch_geometric_but_for_its_messages_at_the_cutoff(
    batch: Batch, degrees: int
) -> None:
    settings = ViSNet(
        name="visnet",
        hidden=8,
        layers=3,
        basis=6,
        heads=2,
        cutoff=CUTOFF,
        envelope="raised_cosine",
        degrees=degrees,
    )
    ours = build_model(settings, seed=0).double().eval()
    sizes = {"num_heads": 2, "num_layers": 3, "hidden_channels": 8, "num_rbf": 6}
    published = ViSNetBlock(lmax=degrees, cutoff=CUTOFF, trainable_rbf=False, **sizes).double()
    published.distance = _OurEdges(batch)
    renamed = {
        "embedding.species": "embedding",
        "neighbors": "neighbor_embedding",
        "edges": "edge_embedding",
        "layers": "vis_mp_layers",
        "norm": "out_norm",
    }
    weights = {}
    for key, value in ours.state_dict().items():
        for mine, theirs in renamed.items():
            if key.startswith(f"{mine}."):
                weights[theirs + key.removeprefix(mine)] = value
    weights = {
        key: value[:100] if "bedding.weight" in key else value for key, value in weights.items()
    }
    published.load_state_dict(weights, strict=False)
    # Ours fade out at the cutoff.
    published.vis_mp_layers = ours.layers  # type: ignore[attr-defined]
    features = ours.features(batch, batch.pos)  # type: ignore[operator]
    expected = published(batch.z, batch.pos, batch.batch)
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)
