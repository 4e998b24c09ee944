"""DimeNet++ against torch-geometric's, and its pairs of edges under periodic boundaries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.nn.models import dimenet as published

from study.checks.structures import Structure, build_graphs
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.packages.config import DimeNetPlusPlus
from study.models.packages.dimenet import edge_pairs

CUTOFF = 3.4
SIZES = {
    "num_radial": 4,
    "num_spherical": 3,
    "int_emb_size": 6,
    "basis_emb_size": 5,
    "out_emb_channels": 7,
    "num_output_layers": 2,
    "envelope_exponent": 4,
}
PLACES = {"radial": "rbf", "edge_embedding": "emb", "output": "output_blocks.0"}
"""Our parts as torch-geometric calls them."""


def of_torch_geometric(settings: DimeNetPlusPlus) -> published.DimeNetPlusPlus:
    return published.DimeNetPlusPlus(
        hidden_channels=settings.hidden,
        out_channels=settings.hidden,
        num_blocks=settings.layers,
        cutoff=settings.cutoff,
        **SIZES,
    )


def renamed(name: str) -> str:
    """Name of our weights as torch-geometric calls them."""
    first, _, rest = name.partition(".")
    if first != "layers":
        return f"{PLACES[first]}.{rest}"
    number, block, rest = rest.split(".", 2)
    return f"{block}_blocks.{int(number) + (block == 'output')}.{rest}"


def graph_of(positions: np.ndarray, cell: np.ndarray, cutoff: float = CUTOFF) -> Batch:
    structure = Structure(np.resize([8, 1, 1], len(positions)), positions, cell)
    return build_graphs([structure], cutoff).gather(torch.tensor([0]))


def test_it_is_that_of_torch_geometric(water: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DimeNetPlusPlus(name="dimenet_plus_plus", hidden=8, layers=2, cutoff=CUTOFF, **SIZES)
    ours, theirs = build_model(settings, seed=0).double(), of_torch_geometric(settings).double()
    # In a cell far wider than the cutoff, because theirs knows no periodic images.
    graph = graph_of(water.positions[:24], 100 * np.eye(3))
    before, after = edge_pairs(graph.edge_index, edge_vectors(graph, graph.pos), 24)
    source, target = graph.edge_index
    found = (target, source, target[after], source[after], source[before], before, after)
    monkeypatch.setattr(published, "radius_graph", lambda *_, **__: graph.edge_index)
    monkeypatch.setattr(published, "triplets", lambda *_, **__: found)
    weights = ours.state_dict()
    taken = [name for name in weights if name.startswith((*PLACES, "layers"))]
    theirs.load_state_dict(
        {renamed(name): weights[name] for name in taken}
        | {"emb.emb.weight": weights["embedding.species.weight"][:95]}
    )
    expected = ours.readout(theirs(graph.z, graph.pos, torch.arange(24)))[:, 0]
    actual = ours.atomic_energies(graph, graph.pos)
    # Torch-geometric rounds the sizes of its radial functions to single precision.
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


def test_an_atom_turns_to_its_own_images_but_not_back() -> None:
    graph = graph_of(np.zeros((1, 3)), np.diag([2.0, 50.0, 50.0]), 2.5)
    vectors = edge_vectors(graph, graph.pos)
    before, after = edge_pairs(graph.edge_index, vectors, 1)
    assert sorted(vectors[:, 0].tolist()) == [-2, 2]
    assert (vectors[before] + vectors[after])[:, 0].abs().tolist() == [4, 4]


def test_pairs_are_those_of_a_search_by_hand(triclinic_water: Frames) -> None:
    graph = GraphSet.build(triclinic_water, 2.6, dtype=torch.float64).gather(torch.arange(2))
    # The order of edges is of no account.
    order = torch.randperm(len(graph.shift), generator=torch.Generator().manual_seed(0))
    edge_index, vectors = graph.edge_index[:, order], edge_vectors(graph, graph.pos)[order]
    before, after = edge_pairs(edge_index, vectors, len(graph.z))
    source, target = edge_index.tolist()
    expected = {
        (first, second)
        for second, middle in enumerate(source)
        for first, end in enumerate(target)
        if end == middle and float((vectors[first] + vectors[second]).norm()) > 1e-6
    }
    found = list(zip(before.tolist(), after.tolist(), strict=True))
    assert len(found) == len(expected)
    assert {*found} == expected
