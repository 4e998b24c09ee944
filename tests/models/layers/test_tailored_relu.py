"""Tailored activations: correlation maps and features of deep networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import GNS
from study.models.gns import network_correlation_map
from study.models.layers.tailored_relu import TARGET, TailoredReLU, correlation_map, tailored_slope

CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.7, 1.0])
def test_a_tailored_activation_maps_correlations_as_predicted(slope: float, cosine: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    second = cosine * first + math.sqrt(1 - cosine**2) * other
    activation = TailoredReLU(slope)
    mean = (activation(first) * activation(second)).mean().item()
    assert mean == pytest.approx(correlation_map(slope)(cosine), abs=0.01)


@pytest.mark.parametrize("layers", [10, 30])
def test_the_slope_is_tailored_to_the_depth(layers: int) -> None:
    slope = tailored_slope(lambda layer: network_correlation_map(layers, layer))
    assert 0 < slope < 1
    assert network_correlation_map(layers, correlation_map(slope))(0.0) == pytest.approx(TARGET)
    deeper = tailored_slope(lambda layer: network_correlation_map(2 * layers, layer))
    assert deeper > slope


def test_a_network_too_shallow_to_tailor_gets_relu() -> None:
    assert tailored_slope(lambda layer: layer) == 0


@pytest.mark.parametrize("layers", [2, 20])
def test_features_of_a_tailored_network_keep_their_size_at_any_depth(
    batch: Batch, layers: int
) -> None:
    settings = GNS(name="gns", hidden=64, layers=layers, radial="bessel", activation="tailored")
    features = build_model(settings, seed=0).double().features(batch)  # type: ignore[operator]
    assert 0.2 < features.square().mean().sqrt().item() < 3
