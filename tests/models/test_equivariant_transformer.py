"""The equivariant transformer against TorchMD-NET's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.config import EquivariantTransformer
from study.models.equivariant_transformer import EquivariantTransformer as OurTransformer

CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


def test_attention_heads_see_their_own_features_alone(batch: Batch) -> None:
    energies = []
    for heads in (1, 2, 8):
        settings = EquivariantTransformer(
            name="equivariant_transformer", hidden=8, layers=2, basis=6, heads=heads
        )
        energies.append(build_model(settings, seed=0).double().eval()(batch).energy.tolist())
    assert energies[0] != energies[1] != energies[2]


def test_the_equivariant_transformer_is_that_of_torchmd_net(water: Frames) -> None:
    """Its features are those of the authors' package, in the option whose vectors fade out."""
    published = pytest.importorskip("torchmdnet.models.torchmd_et", exc_type=ImportError)
    settings = EquivariantTransformer(
        name="equivariant_transformer",
        hidden=8,
        layers=3,
        basis=6,
        heads=2,
        cutoff=5.0,
        envelope="raised_cosine",
    )
    graphs = GraphSet.build(water, settings.cutoff, dtype=torch.float64)
    batch = graphs.gather(torch.tensor([0]))
    ours = build_model(settings, seed=0).double().eval()
    assert isinstance(ours, OurTransformer)
    theirs = published.TorchMD_ET(
        8, 3, 6, "expnorm", trainable_rbf=False, num_heads=2, cutoff_upper=5.0, vector_cutoff=True
    ).double()
    theirs.load_state_dict(_names_of_torchmd_net(ours), strict=False)
    theirs.distance_expansion.double().reset_parameters()
    theirs.distance = _OurLoopedEdges(batch)
    scalars, vectors, *_ = theirs(batch.z, batch.pos, batch.batch)
    expected = (scalars, vectors)
    torch.testing.assert_close(ours.features(batch, batch.pos), expected, rtol=1e-6, atol=1e-7)


class _OurLoopedEdges(torch.nn.Module):
    """Edges and loops, as the package finds them, with vectors from source to target."""

    def __init__(self, graph: Batch) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *_arguments: object) -> tuple[Tensor, Tensor, Tensor]:
        graph = self.graph
        atoms = torch.arange(len(graph.z))
        edges = edge_vectors(graph, graph.pos)
        loops = edges.new_zeros(len(atoms), 3)
        return (
            torch.cat([graph.edge_index, torch.stack([atoms, atoms])], dim=1),
            torch.cat([edges.norm(dim=1), loops[:, 0]]),
            torch.cat([edges, loops]),
        )


def _names_of_torchmd_net(model: OurTransformer) -> dict[str, Tensor]:
    """The weights of our model by the names of the package, which lays out values by head."""
    kinds = {
        "norm": "layernorm",
        "query": "q_proj",
        "key": "k_proj",
        "value": "v_proj",
        "key_filter.0": "dk_proj",
        "value_filter.0": "dv_proj",
        "vector_maps": "vec_proj",
        "output": "o_proj",
    }
    outside = {
        "embedding.species.weight": "embedding.weight",
        "neighbor_species.weight": "neighbor_embedding.embedding.weight",
        "neighbor_filter": "neighbor_embedding.distance_proj",
        "meet": "neighbor_embedding.combine",
        "norm": "out_norm",
    }
    renamed = {}
    for name, value in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        if name in outside:
            renamed[outside[name]] = value[:100]
        elif module in outside:
            renamed[f"{outside[module]}.{kind}"] = value
        elif module.startswith("layers."):
            _, number, part = module.split(".", 2)
            theirs = f"attention_layers.{number}.{kinds[part]}.{kind}"
            renamed[theirs] = _for_torchmd_net(part, value, model.settings.heads)
    return renamed


def _for_torchmd_net(part: str, value: Tensor, heads: int) -> Tensor:
    if part in ("value", "value_filter.0"):
        rows = value.unflatten(0, (3, heads, len(value) // (3 * heads)))
        return rows.transpose(0, 1).flatten(0, 2)
    if part == "output":
        plain, by_vectors, for_vectors = value.chunk(3)
        return torch.cat([for_vectors, by_vectors, plain])
    return value
