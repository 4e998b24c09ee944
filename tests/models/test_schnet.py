"""SchNet against torch-geometric's."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.nn.models import SchNet as PublishedSchNet

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.config import SchNet
from study.models.layers.radial import distances

CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


def test_schnet_is_that_of_torch_geometric(batch: Batch) -> None:
    settings = SchNet(
        name="schnet", hidden=8, layers=2, basis=6, cutoff=CUTOFF, envelope="raised_cosine"
    )
    ours = build_model(settings, seed=0).double().eval()
    distance = distances(edge_vectors(batch, batch.pos)).squeeze(-1)
    published = PublishedSchNet(
        8, 8, 2, 6, CUTOFF, interaction_graph=lambda _pos, _batch: (batch.edge_index, distance)
    ).double()
    weights = ours.state_dict()
    names = {"embedding.weight": weights["embedding.species.weight"][:100]}
    for key, part in (("lin1", "readout.0"), ("lin2", "readout.2")):
        names |= {f"{key}.{kind}": weights[f"{part}.{kind}"] for kind in ("weight", "bias")}
    for key, value in weights.items():
        if key.startswith("layers."):
            _, number, rest = key.split(".", 2)
            rest = rest.replace("convolution", "conv").replace("node.1", "lin")
            names[f"interactions.{number}.{rest}"] = value
            if "conv.nn" in rest:
                names[f"interactions.{number}.{rest.replace('conv.nn', 'mlp')}"] = value
    published.load_state_dict(names, strict=False)
    expected = published(batch.z, batch.pos, batch.batch).squeeze(-1)
    torch.testing.assert_close(ours(batch).energy, expected, rtol=1e-9, atol=1e-9)
