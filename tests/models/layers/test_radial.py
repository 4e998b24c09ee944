"""Radial bases, envelopes and the limit on neighbours."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.config import (
    EGNN,
    GNS,
    EquivariantTransformer,
    ForceNet,
    SchNet,
    ViSNet,
)
from study.models.layers.radial import (
    cutoff_envelope,
    distances,
    exponential_basis,
    nearest_neighbor_mask,
)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_nearest_neighbours_are_those_of_a_sorted_list(limit: int) -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(5, (60,), generator=generator)
    distance = torch.rand(60, 1, generator=generator)
    expected = torch.zeros(60, 1)
    for atom in range(5):
        edges = torch.nonzero(target == atom).flatten().tolist()
        expected[sorted(edges, key=lambda edge: float(distance[edge]))[:limit]] = 1
    assert torch.equal(nearest_neighbor_mask(target, distance, limit), expected)


def test_no_edges_have_no_nearest() -> None:
    assert nearest_neighbor_mask(torch.zeros(0, dtype=torch.long), torch.zeros(0, 1), 3).shape == (
        0,
        1,
    )


def test_a_limit_above_the_number_of_neighbours_changes_nothing(graphs: GraphSet) -> None:
    batch = graphs.gather(torch.tensor([0, 1]))
    most = int(torch.bincount(batch.edge_index[1]).max())
    forces = [
        build_model(ForceNet(name="forcenet", hidden=8, max_neighbors=limit), seed=0)
        .double()
        .eval()(batch)
        .forces
        for limit in (None, most, most - 1)
    ]
    assert torch.equal(forces[0], forces[1])
    assert not torch.allclose(forces[0], forces[2])


CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


def test_the_exponential_basis_has_its_centres_between_cutoff_and_zero() -> None:
    distance = torch.tensor([[0.0], [CUTOFF]], dtype=torch.float64)
    basis = exponential_basis(distance, CUTOFF, 5)
    assert basis.argmax(dim=1).tolist() == [4, 0]
    torch.testing.assert_close(basis.max(dim=1).values, torch.ones(2, dtype=torch.float64))


def test_the_raised_cosine_falls_from_one_to_zero_without_a_slope_at_the_end() -> None:
    distance = torch.tensor([[0.0], [1.5], [3.0]], dtype=torch.float64, requires_grad=True)
    weight = cutoff_envelope(distance, 3.0, "raised_cosine")
    assert weight.flatten().tolist() == pytest.approx([1, 0.5, 0])
    weight.sum().backward()
    assert distance.grad is not None
    assert distance.grad[2].item() == pytest.approx(0)


def test_no_atom_sees_more_neighbours_than_allowed(batch: Batch) -> None:
    """The capped model on all edges is the uncapped one on the nearest edges of each atom."""
    distance = distances(edge_vectors(batch, batch.pos)).squeeze(-1)
    source, target = batch.edge_index
    kept = torch.zeros(len(target), dtype=torch.bool)
    for atom in range(len(batch.z)):
        mine = (target == atom).nonzero().squeeze(-1)
        kept[mine[distance[mine].argsort()[:3]]] = True
    fewer = batch.clone()
    fewer.edge_index, fewer.shift = batch.edge_index[:, kept], batch.shift[kept]
    assert len(source) > kept.sum()
    for settings in (
        EGNN(name="egnn", hidden=8, layers=2, basis=6),
        SchNet(name="schnet", hidden=8, layers=2, basis=6),
        ViSNet(name="visnet", hidden=8, layers=2, basis=6, heads=2),
        EquivariantTransformer(name="equivariant_transformer", hidden=8, layers=2, heads=2),
        GNS(name="gns", hidden=8, layers=2),
    ):
        capped = settings.model_copy(update={"max_neighbors": 3})
        expected = build_model(settings, seed=0).double().eval()(fewer)
        result = build_model(capped, seed=0).double().eval()(batch)
        torch.testing.assert_close(result.energy, expected.energy)
        torch.testing.assert_close(result.forces, expected.forces)
