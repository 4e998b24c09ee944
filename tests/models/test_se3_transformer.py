"""The SE(3)-Transformer beyond its contract."""

from __future__ import annotations

import itertools

import pytest
import torch
from sympy.physics.wigner import real_gaunt
from torch import Tensor
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import SE3Transformer
from study.models.se3_transformer import coupling_tensor

CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


@pytest.mark.parametrize("degrees", [(0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 1, 3), (2, 2, 4)])
def test_degrees_couple_by_gaunt_coefficients(degrees: tuple[int, int, int]) -> None:
    """Those of sympy, but for the norm and the signs of harmonics."""
    coupling = coupling_tensor(*degrees)
    orders = [range(-degree, degree + 1) for degree in degrees]
    exact = [float(real_gaunt(*degrees, *m)) for m in itertools.product(*orders)]
    expected = torch.tensor(exact, dtype=torch.float64).reshape(coupling.shape)
    torch.testing.assert_close(coupling.abs(), (expected / expected.norm()).abs())


def test_attention_to_a_neighbour_fades_out_with_it(batch: Batch) -> None:
    """The farther of two neighbours, hardly inside the cutoff, changes next to nothing."""
    settings = SE3Transformer(name="se3_transformer", hidden=4, layers=2, basis=4, cutoff=CUTOFF)
    model = build_model(settings, seed=0).double().eval()

    def energy(distance: float) -> Tensor:
        graph = batch.clone()
        graph.z, graph.batch = torch.tensor([8, 1, 1]), torch.zeros(3, dtype=torch.long)
        graph.ptr, graph.cell = torch.tensor([0, 3]), batch.cell[:1]
        graph.pos = torch.tensor([[0, 0, 0], [1, 0, 0], [0, distance, 0]], dtype=torch.float64)
        graph.edge_index = torch.tensor([[1, 0, 2, 0], [0, 1, 0, 2]])
        graph.shift = torch.zeros(4, 3, dtype=torch.float64)
        return model(graph).energy.detach()

    gone = energy(CUTOFF)
    assert abs(energy(2.0) - gone) > 1e-3
    assert abs(energy(CUTOFF - 1e-3) - gone) < 1e-6
